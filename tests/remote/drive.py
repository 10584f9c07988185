"""A farm whose tools come partly from another farm's sidecar. Standard library only; one line a test.  drive.py up | down"""
import json, os, subprocess, sys, time, traceback, urllib.error, urllib.request

BASE, KEY, VIEWER, ADMIN = (os.environ[n] for n in ("BASE", "KEY", "VIEWER", "ADMIN"))
REMOTE_KEY, REMOTE_URL = os.environ["REMOTE_KEY"], os.environ["REMOTE_URL"]


def call(tool, key=KEY, headers=None, **arguments):
    request = urllib.request.Request(f"{BASE}/api/v1/tools/{tool}", json.dumps(arguments).encode(), {"Content-Type": "application/json", "Authorization": "Bearer " + key, **(headers or {})})
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            return json.loads(answer.read())
    except urllib.error.HTTPError as e:
        return json.loads(e.read())


def mcp(method, params, key=KEY, toolsets="remote"):
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    request = urllib.request.Request(BASE + "/mcp", body, {"Content-Type": "application/json", "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25",
                                                          "Authorization": "Bearer " + key, "X-MCP-Toolsets": toolsets})
    with urllib.request.urlopen(request, timeout=300) as answer:
        text = answer.read().decode()
    return json.loads(text if text.startswith("{") else next(l[5:] for l in text.splitlines() if l.startswith("data:") and '"id"' in l))


def code(answer):
    return answer.get("error", {}).get("code")


def sql(text, database="DATABASE"):
    done = subprocess.run([os.environ["PSQL"], "-XAtq", "-v", "ON_ERROR_STOP=1", os.environ[database]], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def there(text):
    return sql(text, "REMOTE_DATABASE")


def wait_for(what, condition, seconds=180):
    until = time.time() + seconds
    while time.time() < until:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError("waited in vain for " + what)


def server():
    return call("list_remote_servers")["servers"][0]


UP, DOWN = [], []


def phase(tests):
    def note(f):
        tests.append(f)
        return f
    return note


@phase(UP)
def a_server_without_its_secret_says_what_is_wrong():
    sql(f"SELECT odin.add_remote_server('there', '{REMOTE_URL}', sync_every => '10 seconds')")
    row = wait_for("the first look", lambda: "401" in (server()["problem"] or "") and server())
    assert row["state"] == "failing" and row["has_secret"] is False, row


@phase(UP)
def the_secret_is_sealed_and_opens_the_server():
    assert code(call("set_remote_secret", url=REMOTE_URL, value="x")) in ("permission_denied", "scope_denied")
    assert code(call("set_remote_secret", ADMIN, url="https://nowhere.example/mcp", value="x")) == "remote_server_not_found"
    done = call("set_remote_secret", ADMIN, url=REMOTE_URL, header="Authorization", value="Bearer " + REMOTE_KEY)
    assert done["has_secret"] is True, done
    row = wait_for("the tools", lambda: server()["state"] == "ok" and server())
    assert row["tools"] > 20 and row["problem"] is None, row
    everything = sql("SELECT (SELECT string_agg(s::text, '') FROM odin_private.remote_secrets s) || (SELECT string_agg(a.arguments::text, '') FROM odin.audit_calls a) || coalesce((SELECT string_agg(t::text, '') FROM odin.tasks t), '') || (SELECT string_agg(l::text, '') FROM odin.registry_log l)")
    assert REMOTE_KEY not in everything


@phase(UP)
def its_tools_are_listed_with_a_prefix_for_those_who_may_call_them():
    listed = {t["name"]: t for t in mcp("tools/list", {})["result"]["tools"]}
    tool = listed["there_list_printers"]
    assert tool["description"].startswith("[there] ") and tool["annotations"]["openWorldHint"] is True and tool["annotations"]["destructiveHint"] is False, tool
    assert {"status_filter", "dry_run", "idempotency_key"} <= set(tool["inputSchema"]["properties"]), tool
    assert "there_list_printers" not in {t["name"] for t in mcp("tools/list", {}, VIEWER)["result"]["tools"]}
    assert code(call("there_list_printers", VIEWER)) in ("permission_denied", "scope_denied")
    assert any(t["name"].startswith("there_") for t in call("search_tools", query="there list printers", limit=20)["tools"])


@phase(UP)
def a_call_is_answered_by_the_other_farm_and_is_in_both_trails():
    names = there("SELECT string_agg(name, ',' ORDER BY name) FROM odin.printers")
    answer = call("there_list_printers")
    said = json.dumps(answer)
    assert all(name in said for name in names.split(",")), (names, said[:300])
    wire = mcp("tools/call", {"name": "there_list_printers", "arguments": {}})["result"]
    assert wire["structuredContent"]["printers"] and not wire.get("isError"), str(wire)[:300]
    assert int(sql("SELECT count(*) FROM odin.audit_calls WHERE tool = 'there_list_printers' AND outcome = 'done'")) >= 2
    assert int(there("SELECT count(*) FROM odin.audit_calls WHERE tool = 'list_printers' AND outcome = 'done'")) >= 2


@phase(UP)
def arguments_are_checked_here_and_errors_of_there_come_through():
    calls = there("SELECT count(*) FROM odin.audit_calls")
    assert code(call("there_get_job", id="soon")) == "validation_failed"
    assert code(call("there_get_job", number=1)) == "validation_failed"
    assert there("SELECT count(*) FROM odin.audit_calls") == calls
    said = mcp("tools/call", {"name": "there_get_job", "arguments": {"id": 99999}})["result"]
    assert said["isError"] is True and "job_not_found" in json.dumps(said), said


@phase(UP)
def a_preview_calls_nobody_and_a_repeated_call_is_made_once():
    jobs = there("SELECT count(*) FROM odin.jobs")
    model = int(there("SELECT min(id) FROM odin.models WHERE current_revision_id IS NOT NULL"))
    seen = call("there_queue_job", model_id=model, dry_run=True)
    assert seen.get("dry_run") is True and seen["would_execute"]["tool"] == "queue_job", seen
    assert there("SELECT count(*) FROM odin.jobs") == jobs
    first = call("there_queue_job", model_id=model, idempotency_key="remote-1")
    again = call("there_queue_job", model_id=model, idempotency_key="remote-1")
    assert int(there("SELECT count(*) FROM odin.jobs")) == int(jobs) + 1, (first, again)
    made = [json.loads(answer["content"][0]["text"])["id"] for answer in (first, again)]
    assert made[0] == made[1], made


@phase(UP)
def its_calls_wait_for_a_person_where_the_policy_says_so():
    sql(f"SELECT odin.add_remote_server('there', '{REMOTE_URL}', confirm => 'human', sync_every => '10 seconds')")
    wait_for("the policy", lambda: sql("SELECT confirm FROM odin.tools WHERE name = 'there_list_spools'") == "human")
    calls = there("SELECT count(*) FROM odin.audit_calls WHERE tool = 'list_spools'")
    asked = call("there_list_spools")
    assert code(asked) == "approval_required", asked
    assert there("SELECT count(*) FROM odin.audit_calls WHERE tool = 'list_spools'") == calls
    sql(f"SELECT odin.approve_call({asked['error']['consent_id']})")
    assert "spools" in json.dumps(call("there_list_spools"))
    asked = call("there_list_spools")
    sql(f"SELECT odin.deny_call({asked['error']['consent_id']}, 'not today')")
    denied = call("there_list_spools")
    assert code(denied) == "approval_denied" and "not today" in denied["error"]["detail"] and denied["error"]["retriable"] is False, denied
    sql(f"SELECT odin.add_remote_server('there', '{REMOTE_URL}', sync_every => '10 seconds')")
    wait_for("the policy", lambda: sql("SELECT confirm FROM odin.tools WHERE name = 'there_list_spools'") == "none")


@phase(UP)
def what_vanishes_there_is_switched_off_here_and_comes_back():
    there("UPDATE odin.tools SET toolsets = '{lean}' WHERE name = 'list_filaments'")
    there("UPDATE odin.instance SET registry_version = registry_version + 1; NOTIFY odin_registry")
    wait_for("the tool to go", lambda: sql("SELECT active FROM odin.tools WHERE name = 'there_list_filaments'") == "f")
    gone = call("there_list_filaments")
    assert code(gone) == "tool_not_found" and "does not offer it any more" in json.dumps(gone), gone
    assert "deactivated" in sql("SELECT string_agg(act || ' by ' || changed_by, ',' ORDER BY id) FROM odin.registry_log WHERE tool = 'there_list_filaments'")
    there("UPDATE odin.tools SET toolsets = '{farm}' WHERE name = 'list_filaments'")
    there("UPDATE odin.instance SET registry_version = registry_version + 1; NOTIFY odin_registry")
    wait_for("the tool to come back", lambda: sql("SELECT active FROM odin.tools WHERE name = 'there_list_filaments'") == "t")


@phase(UP)
def no_other_way_into_the_registry_is_open_to_a_sidecar():
    for text in ("UPDATE odin.tools SET confirm = 'none'", "SELECT odin._remote_call(1, 'x', '{}')", "SELECT odin.add_remote_server('x', 'http://x')", "SELECT odin.remove_remote_server('there')"):
        done = subprocess.run([os.environ["PSQL"], "-XAtq", "-v", "ON_ERROR_STOP=1", os.environ["DATABASE"]], input=f"SET SESSION AUTHORIZATION odin_worker; SET odin.remote_sync = 'on'; {text}", capture_output=True, text=True)
        assert done.returncode != 0 and "permission denied" in done.stderr, (text, done.stderr)
    assert code(json.loads(sql("SET ROLE demo_operator; SELECT odin.call('set_remote_secret', '{\"url\": \"https://x\", \"value\": \"x\"}')"))) == "permission_denied"


@phase(DOWN)
def a_server_that_is_away_fails_its_calls_and_says_so():
    said = call("there_list_printers")
    assert code(said) == "upstream_unavailable" and "refused" in json.dumps(said), said
    # While it went away it may have had other words for it.
    row = wait_for("the trouble", lambda: "refused" in (server()["problem"] or "") and server())
    assert row["state"] == "failing" and row["tools"] > 20, row


@phase(DOWN)
def a_removed_server_takes_its_tools_along():
    assert sql("SELECT odin.remove_remote_server('there')") == "t"
    assert sql("SELECT count(*) FROM odin.tools WHERE name LIKE 'there_%'") == "0"
    assert sql("SELECT count(*) FROM pg_proc WHERE pronamespace = 'odin_call'::regnamespace AND proname LIKE '%there_%'") == "0"
    assert code(call("there_list_printers")) == "tool_not_found"


def main():
    bad = 0
    for one in {"up": UP, "down": DOWN}[sys.argv[1]]:
        name = one.__name__.replace("_", " ")
        try:
            one()
            print("ok " + name, flush=True)
        except Exception:
            bad += 1
            print("NOT OK " + name, flush=True)
            print("\n".join("  " + line for line in traceback.format_exc().splitlines()[-6:]), flush=True)
    sys.exit(bad > 0)


main()
