"""Model sites and files by URL, against a server on loopback that answers as Thingiverse's interface does, errors and paging included."""
import http.server, json, os, subprocess, threading, urllib.parse

from farm import VIEWER, box, call, code, run_all, sql, test, wait_for

ADMIN, TOKEN = os.environ["ADMIN"], "thing-token-3f9a"
CUBE = box(10, 10, 10)
SEEN = []
BUSY = {"left": 0}


def thing(number):
    return {"id": number, "name": f"Bracket {number}", "thumbnail": f"https://cdn.example/{number}.jpg", "public_url": f"https://www.thingiverse.com/thing:{number}",
            "creator": {"id": 9, "name": "maker9", "first_name": "M"}, "like_count": number * 3, "is_nsfw": False, "license": "Creative Commons - Attribution",
            "description": "<p>Holds a <b>shelf</b> &amp; more</p>" + "x" * 900, "added": "2024-01-01T00:00:00+00:00"}


class Site(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def say(self, status, body, headers=()):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in [("Content-Length", str(len(data))), *headers]:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        url = urllib.parse.urlsplit(self.path)
        query, parts = dict(urllib.parse.parse_qsl(url.query)), urllib.parse.unquote(url.path).strip("/").split("/")
        bearer = self.headers.get("Authorization")
        SEEN.append((self.path, bearer))
        if parts[0] == "cdn":
            if parts[1] == "cut":
                self.send_response(200)
                self.send_header("Content-Length", "5000")
                self.end_headers()
                self.wfile.write(b"short")
                return self.close_connection
            return self.say(200, CUBE if parts[1] != "notes.txt" else b"read me")
        if parts[0] == "moved":
            return self.say(302, b"", [("Location", query["to"])])
        if bearer != f"Bearer {TOKEN}":
            return self.say(401, {"error": "Unauthorized"})
        if parts[0] == "search":
            if parts[1] == "limited":
                return self.say(429, {"error": "too many"}, [("Retry-After", "17")])
            if parts[1] == "shaky" and BUSY["left"] > 0:
                BUSY["left"] -= 1
                return self.say(503, b"<html>down</html>")
            if parts[1] == "nonsense":
                return self.say(200, b"<html>not json</html>")
            page, size = int(query["page"]), int(query["per_page"])
            found = [] if parts[1] == "nothing" else list(range(1, 26))
            return self.say(200, {"total": len(found), "hits": [thing(n) for n in found[(page - 1) * size:page * size]]})
        if parts[0] == "things" and parts[1] in ("7", "8", "9"):
            if len(parts) == 2:
                return self.say(200, thing(int(parts[1])))
            base = f"http://127.0.0.1:{self.server.server_port}"
            names = {"7": ["bracket.stl", "../sly.STL", "notes.txt", "photo.jpg"], "8": ["photo.jpg"], "9": ["good.stl", "gone.stl"]}[parts[1]]
            return self.say(200, [{"id": 100 + n, "name": name, "size": len(CUBE), "url": f"{base}/files/{name}", "download_url": f"{base}/files/{100 + n}/{name.split('/')[-1]}/download"} for n, name in enumerate(names)])
        if parts[0] == "things" and parts[1] == "403":
            return self.say(403, {"error": "Forbidden"})
        if parts[0] == "files" and parts[2] != "gone.stl":
            # Kept elsewhere, as the real site keeps them: another origin, which must not see the token.
            return self.say(302, b"", [("Location", f"http://127.0.0.2:{self.server.server_port}/cdn/{parts[2]}")])
        return self.say(404, {"error": "Not Found"})


server = http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["SITE_PORT"])), Site)
threading.Thread(target=server.serve_forever, daemon=True).start()
HERE = f"http://127.0.0.1:{server.server_port}"


def finished(answer):
    """The end of a task, also when the call came back with a handle."""
    if "task_id" not in answer:
        return answer
    return wait_for("the task", lambda: (lambda t: t.get("result") or ({"error": t["error"]} if t.get("error") and t["state"] in ("failed", "completed") else None))(call("get_task", task_id=answer["task_id"])))


@test
def without_a_token_nothing_is_asked():
    answer = call("thingiverse_search_models", query="bracket")
    assert code(answer) == "source_token_missing" and "set_source_token" in answer["error"]["hint"], answer
    assert code(call("thingiverse_download_model", thing_id=7)) == "source_token_missing" and not SEEN
    assert code(call("set_source_token", source="thingiverse", token=TOKEN)) == "scope_denied"


@test
def a_token_goes_in_and_never_comes_out():
    wrong = call("set_source_token", key=ADMIN, source="thingiverse", token="wrong-token")
    assert wrong["has_token"] is True, wrong
    answer = call("thingiverse_search_models", query="bracket")
    assert code(answer) == "source_refused" and "401" in answer["error"]["detail"], answer
    assert call("set_source_token", key=ADMIN, source="thingiverse", token=TOKEN)["replaced"] is True
    everywhere = sql("SELECT jsonb_agg(to_jsonb(s)) FROM odin_private.source_secrets s") + sql("SELECT jsonb_agg(to_jsonb(a)) FROM odin.audit_calls a") + sql("SELECT jsonb_agg(to_jsonb(t)) FROM odin.tasks t")
    assert TOKEN not in everywhere and "wrong-token" not in everywhere and "sealed:v1:" in everywhere
    assert "sealed:v1:" not in sql("SELECT jsonb_agg(to_jsonb(t)) FROM odin.tasks t")


@test
def a_search_has_pages():
    first = call("thingiverse_search_models", key=VIEWER, query="  shelf bracket ", limit=10)
    assert (first["query"], first["total"], first["count"], first["page"]) == ("shelf bracket", 25, 10, 1), first
    assert first["results"][2] == {"id": 3, "name": "Bracket 3", "creator": "maker9", "url": "https://www.thingiverse.com/thing:3", "thumbnail": "https://cdn.example/3.jpg", "like_count": 9, "is_nsfw": False}, first
    last = call("thingiverse_search_models", query="shelf bracket", limit=10, page=3)
    assert (last["count"], last["results"][0]["id"]) == (5, 21), last
    assert call("thingiverse_search_models", query="nothing")["results"] == []
    tricky = call("thingiverse_search_models", query="a/../b?type=users#x")
    assert "error" not in tricky and "/search/a%2F..%2Fb%3Ftype=users%23x?type=things" in SEEN[-1][0], SEEN[-1]
    for wrong in (dict(query=" "), dict(query="x" * 201), dict(query="x", limit=31), dict(query="x", limit=0), dict(query="x", page=0)):
        assert code(call("thingiverse_search_models", **wrong)) == "validation_failed", wrong


@test
def a_search_writes_nothing_of_the_farm():
    tool = json.loads(sql("SELECT listing->'annotations' FROM odin.tools WHERE name = 'thingiverse_search_models'"))
    assert tool["readOnlyHint"] is True and tool["openWorldHint"] is True, tool
    # What uploads and slices left to be read is read by now.
    wait_for("the work before", lambda: sql("SELECT count(*) FROM odin.tasks WHERE state IN ('queued', 'working')") == "0")
    before = sql("SELECT count(*) FROM odin.audit_changes")
    call("thingiverse_search_models", key=VIEWER, query="again")
    assert sql("SELECT count(*) FROM odin.audit_changes") == before


@test
def a_model_has_its_licence_and_files():
    model = call("thingiverse_get_model", key=VIEWER, thing_id=7)
    assert (model["id"], model["creator"], model["license"], model["file_count"]) == (7, "maker9", "Creative Commons - Attribution", 4), model
    assert model["description"].startswith("Holds a shelf & more") and len(model["description"]) <= 500
    assert set(model["files"][0]) == {"file_id", "name", "size_bytes", "download_url"} and model["files"][0]["file_id"] == 100
    for number, wanted in ((404, "source_not_found"), (403, "source_refused")):
        assert code(call("thingiverse_get_model", thing_id=number)) == wanted


@test
def a_download_is_stored_with_its_licence():
    del SEEN[:]
    preview = call("thingiverse_download_model", thing_id=7, dry_run=True)
    assert preview["dry_run"] is True and not SEEN
    got = call("thingiverse_download_model", thing_id=7)
    assert got["downloaded_count"] == 2 and got["dest_dir"] == "thingiverse/7" and got["license"] == "Creative Commons - Attribution", got
    assert sorted(f["path"] for f in got["files"]) == ["thingiverse/7/bracket.stl", "thingiverse/7/sly.STL"], got
    assert {s["name"] for s in got["skipped"]} == {"notes.txt", "photo.jpg"}
    assert all(bearer is None for path, bearer in SEEN if path.startswith("/cdn/")), SEEN
    file = call("get_file", file="thingiverse/7/bracket.stl")
    assert (file["license"], file["author"], file["source_url"], file["sha256"]) == ("Creative Commons - Attribution", "maker9", "https://www.thingiverse.com/thing:7", got["files"][0]["sha256"]), file
    everything = call("thingiverse_download_model", thing_id=7, include_all_files=True, dest_subdir="shelf")
    assert everything["downloaded_count"] == 4 and everything["dest_dir"] == "shelf", everything
    one = call("thingiverse_download_model", thing_id=7, file_id=102, dest_subdir="one")
    assert [f["name"] for f in one["files"]] == ["notes.txt"], one
    assert code(call("thingiverse_download_model", thing_id=7, file_id=999)) == "source_not_found"
    assert code(call("thingiverse_download_model", thing_id=8)) == "source_not_found"
    assert code(call("thingiverse_download_model", thing_id=7, dest_subdir="../x")) == "validation_failed"
    assert code(call("thingiverse_download_model", key=VIEWER, thing_id=7)) == "scope_denied"
    some = call("thingiverse_download_model", thing_id=9)
    assert some["downloaded_count"] == 1 and "404" in some["skipped"][0]["reason"], some


@test
def a_licence_is_shown_before_it_is_sold():
    sliced = call("cura_slice_model", model_path="thingiverse/7/bracket.stl", layer_height=0.3)
    assert sql(f"SELECT license || '|' || author FROM odin.files WHERE sha256 = '{sliced['gcode_sha256']}'") == "Creative Commons - Attribution|maker9"
    made = call("create_model_from_file", file=sliced["gcode_sha256"])
    assert made["license"] == "Creative Commons - Attribution" and made["author"] == "maker9", made
    lines = [{"model_id": made["model_id"], "quantity": 1, "unit_price": 9.5}]
    for tool in ("create_quote", "create_order"):
        answer = call(tool, lines=lines)
        assert "Licence of the design" in json.dumps(answer) and "maker9" in json.dumps(answer), answer


@test
def trouble_of_the_site_is_told_or_waited_out():
    answer = call("thingiverse_search_models", query="limited")
    assert code(answer) == "rate_limited" and answer["error"]["retry_after"] == 17 and answer["error"]["retriable"] is True, answer
    BUSY["left"] = 1
    assert finished(call("thingiverse_search_models", query="shaky"))["total"] == 25
    BUSY["left"] = 99
    answer = call("thingiverse_search_models", query="shaky")
    assert code(answer) == "upstream_unavailable" and "503" in answer["error"]["detail"], answer
    BUSY["left"] = 0
    assert code(call("thingiverse_search_models", query="nonsense")) == "upstream_unavailable"


@test
def readiness_of_every_level_is_told():
    def check(*arguments, **variables):
        told = subprocess.run([os.environ["SIDECAR"], "check", *arguments], env={**os.environ, **variables}, capture_output=True, text=True, timeout=300)
        return told.returncode, told.stdout

    status, text = check("--json")
    levels = {level["level"]: level for level in json.loads(text)["levels"]}
    assert list(levels) == ["database", "sidecar", "objects", "printers", "slicers", "sources"], text
    assert {name: levels[name]["state"] for name in ("database", "sidecar", "slicers", "sources")} == dict.fromkeys(("database", "sidecar", "slicers", "sources"), "ready"), text
    # Files are inside PostgreSQL unless a bucket is set.
    assert levels["objects"]["state"] == "missing", text
    # The printers of this farm have never been reached.
    assert levels["printers"]["state"] == "failed" and "Bench" in levels["printers"]["detail"] and status == 1, text
    sql("UPDATE odin.printers SET is_active = false")
    status, text = check()
    assert status == 0 and [line.split()[:2] for line in text.splitlines() if line[0] != " "] == [["ready", "database"], ["ready", "sidecar"], ["missing", "objects"], ["missing", "printers"], ["ready", "slicers"], ["ready", "sources"]], text
    assert check("--require", "printers")[0] == 1
    assert check(ODIN_GATEWAY_URL=os.environ["ODIN_GATEWAY_URL"].replace("odin_gateway", "nobody"))[0] == 1
    status, text = check(ODIN_AIR_GAP="true", ODIN_EGRESS_PRIVATE="10.0.0.0/8")
    assert status == 1 and "air gap" in text, text
    assert TOKEN not in text and os.environ["ODIN_SECRET_KEY"] not in text


@test
def files_come_by_url():
    got = call("fetch_file", url=f"{HERE}/cdn/cube.stl?signature=x", license="CC0", author="someone")
    assert got["name"] == "cube.stl" and got["bytes"] == len(CUBE), got
    file = call("get_file", file=got["files"][0]["sha256"])
    assert "cube.stl" in file["paths"], file
    assert call("fetch_file", url=f"{HERE}/moved?to=/cdn/x.stl", name="moved/x.stl")["name"] == "moved/x.stl"
    for url, wanted in [
        (f"{HERE}/things/7", "source_not_found"), ("http://127.0.0.3:1/x.stl", "egress_refused"), ("http://169.254.169.254/latest", "egress_refused"), (f"http://localhost:{server.server_port}/cdn/x", "egress_refused"),
        (f"{HERE}/moved?to=http://169.254.169.254/", "egress_refused"), (f"{HERE}/moved?to=file:///etc/passwd", "egress_refused"), ("https://example.org/x.stl", "egress_refused"),
        ("file:///etc/passwd", "validation_failed"), ("https://user:pw@example.org/x", "validation_failed"),
    ]:
        answer = call("fetch_file", url=url, name="never.stl")
        assert code(answer) == wanted, (url, answer)
    sql("UPDATE odin.orgs SET settings = settings || '{\"max_file_mb\": 0}' WHERE name = 'Demo Farm'")
    answer = call("fetch_file", url=f"{HERE}/cdn/large.stl")
    sql("UPDATE odin.orgs SET settings = settings - 'max_file_mb' WHERE name = 'Demo Farm'")
    assert code(answer) == "file_too_large", answer
    task = call("fetch_file", url=f"{HERE}/cdn/cut", name="never.stl")
    assert code(task) == "upstream_unavailable" and "broke off" in task["error"]["detail"], task
    assert sql("SELECT count(*) FROM odin.file_names WHERE path = 'never.stl'") == "0"
    # Of pictures too, which may be being stored at this moment.
    wait_for("no download to be left open", lambda: sql("SELECT count(*) FROM odin_private.blobs b JOIN odin.tasks t ON t.org_id = b.org_id WHERE b.state = 'open' AND t.state = 'working'") == "0")


raise SystemExit(1 if run_all() else 0)
