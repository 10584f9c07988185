//! A call that a backend has seen before takes a shorter way (extension/src/plain.rs). Whoever calls must not be able to tell: each
//! test teaches a connection, changes something, and asks it and a connection that knows nothing yet.

use odin_tests::{code, result, Farm, Gateway, Key};
use serde_json::{json, Value};

/// Two calls that go well: the first is the long way and teaches, the second is short.
async fn teach(gateway: &Gateway, key: &Key, tool: &str, arguments: Value) {
    for _ in 0..2 {
        let answer = gateway.call(key, tool, arguments.clone()).await;
        assert_eq!(code(&answer), "complete", "{answer}");
    }
}

/// From here on a call by the long way ends with this error.
async fn close_the_long_way(farm: &Farm) {
    farm.sql(
        "CREATE OR REPLACE FUNCTION odin._dispatch(who oid, role_name text, key_id bigint, scopes text[], key_rate int, wanted text, arguments jsonb, options jsonb, own_tx boolean,
           registry bigint DEFAULT NULL, wanted_kind text DEFAULT 'tool', done jsonb DEFAULT NULL) RETURNS jsonb LANGUAGE plpgsql AS $f$ BEGIN RAISE 'the long way'; END $f$",
    )
    .await;
}

/// The answer of a taught connection, which must be that of a new one.
async fn both(
    farm: &Farm,
    taught: &Gateway,
    key: &Key,
    tool: &str,
    arguments: Value,
    options: Value,
) -> Value {
    let mut long = farm
        .gateway()
        .await
        .call_with(key, tool, arguments.clone(), options.clone())
        .await;
    let mut short = taught.call_with(key, tool, arguments, options).await;
    // Seconds until it may be tried again.
    for answer in [&mut long, &mut short] {
        if let Some(error) = answer["error"].as_object_mut() {
            error.remove("retry_after");
        }
    }
    assert_eq!(short, long, "{tool}");
    short
}

/// What the trail says of the calls, but for when, how long and in which transaction.
async fn trail(farm: &Farm) -> Vec<Value> {
    odin_tests::rows(
        &farm.admin,
        "SELECT to_jsonb(c) - '{id,called_at,duration_us,xid}'::text[] FROM odin.audit_calls c ORDER BY id",
    )
    .await
}

const READ: &str = "BEGIN RETURN v || (SELECT count(*) FROM lab.t); END";
const WRITE: &str =
    "BEGIN INSERT INTO lab.t VALUES ((SELECT count(*) FROM lab.t) + 1, v); RETURN v; END";

/// Reads and writes take it, say the same, and leave the same trail: face, client, request, arguments, outcome.
#[tokio::test]
async fn it_is_taken_and_leaves_the_same_trail() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.tool("look", "v text, n int DEFAULT 3", "read", READ)
        .await;
    farm.tool("put", "v text, n int DEFAULT 3", "write", WRITE)
        .await;
    farm.tool(
        "quiet",
        "",
        "write",
        "BEGIN RETURN current_setting('synchronous_commit'); END",
    )
    .await;
    let options = json!({"face": "mcp", "client": {"name": "c".repeat(300)}, "request_id": "r-1", "ip": "127.0.0.1", "dry_run": false, "readonly": null});
    for tool in ["look", "put"] {
        let mut answers = Vec::new();
        for turn in 0..3 {
            if turn == 1 {
                farm.sql("ALTER FUNCTION odin._dispatch RENAME TO _dispatch_kept")
                    .await;
                close_the_long_way(&farm).await;
            }
            let answer = gateway
                .call_with(&key, tool, json!({"v": "x"}), options.clone())
                .await;
            answers.push(answer);
        }
        farm.sql(
            "DROP FUNCTION odin._dispatch; ALTER FUNCTION odin._dispatch_kept RENAME TO _dispatch",
        )
        .await;
        assert!(
            answers
                .iter()
                .all(|a| a["status"] == "complete" && a.as_object().unwrap().len() == 5),
            "{answers:?}"
        );
        assert_eq!(
            answers[0].as_object().unwrap().keys().collect::<Vec<_>>(),
            answers[1].as_object().unwrap().keys().collect::<Vec<_>>()
        );
    }
    let trail = trail(&farm).await;
    assert_eq!(trail.len(), 6);
    for (kind, rows) in [("look", &trail[..3]), ("put", &trail[3..])] {
        assert!(rows.iter().all(|row| row == &rows[0]), "{rows:?}");
        assert_eq!(rows[0]["tool"], kind);
        assert_eq!(rows[0]["arguments"], json!({"v": "x"}));
        assert_eq!(rows[0]["client"], json!("c".repeat(200)));
        assert_eq!(
            (
                &rows[0]["face"],
                &rows[0]["request_id"],
                &rows[0]["outcome"]
            ),
            (&json!("mcp"), &json!("r-1"), &json!("done"))
        );
    }
    // A write waits for its flush, whichever way it takes.
    teach(&gateway, &key, "quiet", json!({})).await;
    let quiet = gateway.call(&key, "quiet", json!({})).await;
    assert_eq!(result(&quiet), "on", "{quiet}");
    farm.finish().await;
}

/// Whatever becomes of key, right, tool or registry counts at the very next call.
#[tokio::test]
async fn what_changes_counts_at_once() {
    let farm = Farm::new().await;
    let (role, key, gateway) = farm.operator().await;
    farm.tool("look", "v text", "read", READ).await;
    farm.tool("put", "v text", "write", WRITE).await;
    farm.sql("SELECT odin.register_tool('lab.look', scope => 'read', description => 'A tool.', aliases => '{peek}')").await;
    for (change, back, tool, expected) in [
        (
            "UPDATE odin_private.keys SET revoked_at = now()",
            "UPDATE odin_private.keys SET revoked_at = NULL",
            "look",
            "not_authenticated",
        ),
        (
            "UPDATE odin_private.keys SET expires_at = now() - interval '1 s'",
            "UPDATE odin_private.keys SET expires_at = NULL",
            "look",
            "not_authenticated",
        ),
        (
            "UPDATE odin_private.keys SET allowed_ips = '{10.0.0.0/8}'",
            "UPDATE odin_private.keys SET allowed_ips = NULL",
            "put",
            "not_authenticated",
        ),
        (
            "UPDATE odin_private.keys SET scopes = '{agent:read}'",
            "UPDATE odin_private.keys SET scopes = '{agent:read,agent:write}'",
            "put",
            "scope_denied",
        ),
        (
            "UPDATE odin_private.keys SET rate_per_minute = 1",
            "UPDATE odin_private.keys SET rate_per_minute = NULL",
            "look",
            "rate_limited",
        ),
        (
            "REVOKE ALL ON FUNCTION lab.put FROM odin_viewer, odin_customer",
            "GRANT EXECUTE ON FUNCTION lab.put TO odin_viewer",
            "put",
            "permission_denied",
        ),
        (
            "UPDATE odin.tools SET active = false WHERE name = 'look'",
            "UPDATE odin.tools SET active = true WHERE name = 'look'",
            "look",
            "tool_not_found",
        ),
        (
            "UPDATE odin.tools SET active = false WHERE name = 'look'",
            "UPDATE odin.tools SET active = true WHERE name = 'look'",
            "peek",
            "tool_not_found",
        ),
        (
            "UPDATE odin.tools SET confirm = 'human' WHERE name = 'put'",
            "UPDATE odin.tools SET confirm = 'none' WHERE name = 'put'",
            "put",
            "approval_required",
        ),
        (
            "UPDATE odin.tools SET rate_per_minute = 1 WHERE name = 'put'",
            "UPDATE odin.tools SET rate_per_minute = NULL WHERE name = 'put'",
            "put",
            "rate_limited",
        ),
        (
            "UPDATE odin.instance SET schema_version = '0.0.1'",
            "UPDATE odin.instance SET schema_version = odin._code_version()",
            "look",
            "schema_outdated",
        ),
    ] {
        teach(&gateway, &key, tool, json!({"v": "x"})).await;
        farm.sql(change).await;
        let before: i64 = farm.value("SELECT count(*) FROM lab.t").await;
        let answer = both(
            &farm,
            &gateway,
            &key,
            tool,
            json!({"v": "x"}),
            json!({"ip": "127.0.0.1"}),
        )
        .await;
        // A limit of one a minute is full already: the calls before it were counted in the trail.
        assert_eq!(code(&answer), expected, "{change}\n{answer}");
        assert_eq!(
            farm.value::<i64>("SELECT count(*) FROM lab.t").await,
            before,
            "{change}"
        );
        farm.sql(back).await;
    }
    teach(&gateway, &key, "put", json!({"v": "x"})).await;
    farm.sql(&format!("ALTER ROLE {role} SUPERUSER")).await;
    assert_ne!(
        code(&both(&farm, &gateway, &key, "put", json!({"v": "x"}), json!({})).await),
        "complete"
    );
    farm.sql(&format!("ALTER ROLE {role} NOSUPERUSER")).await;
    // The tool itself made anew: the other body, the other arguments.
    teach(&gateway, &key, "put", json!({"v": "x"})).await;
    farm.sql("DROP FUNCTION lab.put(text)").await;
    farm.tool("put", "w int", "write", "BEGIN RETURN 'now ' || w; END")
        .await;
    assert_eq!(
        code(&both(&farm, &gateway, &key, "put", json!({"v": "x"}), json!({})).await),
        "validation_failed"
    );
    assert_eq!(
        result(&both(&farm, &gateway, &key, "put", json!({"w": 3}), json!({})).await),
        "now 3"
    );
    farm.finish().await;
}

/// What a call asks for beside being done is not overlooked.
#[tokio::test]
async fn what_is_asked_for_is_given() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.tool("put", "v text", "write", WRITE).await;
    teach(&gateway, &key, "put", json!({"v": "x"})).await;
    let count = "SELECT count(*) FROM lab.t";
    for (arguments, options) in [
        (json!({"v": "x", "dry_run": true}), json!({})),
        (json!({"v": "x"}), json!({"dry_run": true})),
    ] {
        let answer = gateway.call_with(&key, "put", arguments, options).await;
        assert_eq!(answer["result"]["dry_run"], true, "{answer}");
    }
    let refused = gateway
        .call_with(&key, "put", json!({"v": "x"}), json!({"readonly": true}))
        .await;
    assert_eq!(code(&refused), "scope_denied");
    assert_eq!(farm.text(count).await, "2");
    for replay in [false, true] {
        let answer = gateway
            .call_with(
                &key,
                "put",
                json!({"v": "x"}),
                json!({"idempotency_key": "k-1"}),
            )
            .await;
        assert_eq!(answer["replay"], replay, "{answer}");
    }
    let replayed = gateway
        .call(&key, "put", json!({"v": "x", "idempotency_key": "k-1"}))
        .await;
    assert_eq!(replayed["replay"], true, "{replayed}");
    assert_eq!(farm.text(count).await, "3");
    let wrong = gateway.call(&key, "put", json!({"v": 3, "x": 1})).await;
    assert_eq!(code(&wrong), "validation_failed");
    farm.finish().await;
}

/// An error of a tool is told whole, its effect is gone, and so are its settings and session locks.
#[tokio::test]
async fn errors_are_told_whole() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.sql("ALTER TABLE lab.t ADD CONSTRAINT short CHECK (length(v) < 5)")
        .await;
    let body = "BEGIN SET work_mem = '77MB'; PERFORM pg_advisory_lock(7);
        IF v = 'own' THEN PERFORM odin.fail('not_found', 'there is no such thing', 'Look elsewhere.'); END IF;
        IF v = 'wide' THEN INSERT INTO lab.t VALUES (999, 'n'); END IF;
        INSERT INTO lab.t VALUES (CASE v WHEN 'twin' THEN 1 ELSE (SELECT count(*) FROM lab.t) + 1 END, CASE v WHEN 'wide' THEN 'too long' ELSE v END); RETURN v; END";
    farm.tool("put", "v text", "write", body).await;
    farm.tool(
        "look",
        "v text",
        "read",
        "BEGIN IF v = 'x' THEN RETURN v; END IF; INSERT INTO lab.t VALUES (50, v); RETURN v; END",
    )
    .await;
    teach(&gateway, &key, "put", json!({"v": "x"})).await;
    teach(&gateway, &key, "look", json!({"v": "x"})).await;
    for (tool, v) in [
        ("put", "own"),
        ("put", "wide"),
        ("put", "twin"),
        ("look", "sly"),
    ] {
        let answer = both(&farm, &gateway, &key, tool, json!({"v": v}), json!({})).await;
        assert_eq!(answer["status"], "error", "{answer}");
        assert_ne!(code(&answer), "internal_error", "{answer}");
    }
    assert_eq!(farm.text("SELECT count(*) FROM lab.t").await, "2");
    assert_eq!(farm.text("SELECT count(*) FILTER (WHERE outcome = 'failed') || ' of ' || count(*) FROM odin.audit_calls").await, "8 of 12");
    assert_eq!(
        odin_tests::value::<String>(&gateway.client, "SELECT current_setting('work_mem')").await,
        farm.text("current_setting('work_mem')").await
    );
    assert_eq!(farm.text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())").await, "0");
    farm.finish().await;
}

/// A result with something to add is finished by the dispatcher: done once, under one number.
#[tokio::test]
async fn a_result_with_more_to_say_is_done_once() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.sql(
        "CREATE TABLE lab.kept (id bigint PRIMARY KEY, org_id bigint NOT NULL DEFAULT odin.my_org(), v text); CREATE INDEX ON lab.kept (org_id);
         GRANT USAGE ON SCHEMA lab TO odin_owner; GRANT SELECT, INSERT ON lab.kept TO odin_operator; ALTER TABLE lab.kept OWNER TO odin_owner;
         SELECT odin.guard_table('lab.kept'); SELECT odin.apply_access()",
    )
    .await;
    let body = "BEGIN IF v <> 'x' THEN PERFORM odin.note('a word about ' || v); END IF;
        INSERT INTO lab.kept(id, v) VALUES ((SELECT count(*) FROM lab.kept) + 1, v); RETURN v; END";
    farm.tool("put", "v text", "write", body).await;
    teach(&gateway, &key, "put", json!({"v": "x"})).await;
    let answer = gateway.call(&key, "put", json!({"v": "y"})).await;
    assert_eq!(
        answer["result"]["notes"],
        json!(["a word about y"]),
        "{answer}"
    );
    let told = "SELECT string_agg(c.outcome || ' ' || r.row_key::text, ', ' ORDER BY c.id) FROM odin.audit_calls c JOIN odin.audit_changes r ON r.call_id = c.id";
    assert_eq!(farm.text(told).await, "done 1, done 2, done 3");
    assert_eq!(farm.text("SELECT count(*) FROM lab.kept").await, "3");
    farm.finish().await;
}

/// A tool that goes on after its time has done nothing, though it said that it had.
#[tokio::test]
async fn what_is_late_is_taken_back() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    let body = "BEGIN IF slow THEN BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END; END IF;
        INSERT INTO lab.t VALUES ((SELECT count(*) FROM lab.t) + 1, 'late'); RETURN 'out'; END";
    farm.tool_with("put", "slow boolean", "write", body, ", timeout => '2 s'")
        .await;
    teach(&gateway, &key, "put", json!({"slow": false})).await;
    let answer = gateway.call(&key, "put", json!({"slow": true})).await;
    assert_eq!(code(&answer), "timeout", "{answer}");
    assert_eq!(farm.text("SELECT count(*) FROM lab.t").await, "2");
    assert_eq!(
        farm.text("SELECT string_agg(outcome, ' ' ORDER BY id) FROM odin.audit_calls")
            .await,
        "done done failed"
    );
    teach(&gateway, &key, "put", json!({"slow": false})).await;
    farm.finish().await;
}

/// Every word that SQL masks by is one that the short way leaves to it, and large values are cut.
#[tokio::test]
async fn secrets_and_large_values_go_the_long_way() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.tool("put", "v jsonb", "write", "BEGIN RETURN 'kept'; END")
        .await;
    teach(&gateway, &key, "put", json!({"v": {"a": 1}})).await;
    let words: Vec<String> = odin_tests::rows(
        &farm.admin,
        r"SELECT regexp_split_to_table(substring(pg_get_functiondef('odin._redact'::regproc) FROM '\((password[^)]*)\)'), '\|')",
    )
    .await;
    assert!(
        words.len() >= 6 && words.contains(&"api_?key".to_owned()),
        "{words:?}"
    );
    for word in words {
        for name in [
            word.replace("_?", "_"),
            word.replace("_?", ""),
            word.replace("_?", "_").to_uppercase(),
        ] {
            let answer = gateway
                .call(
                    &key,
                    "put",
                    json!({"v": {"deep": [{(format!("my_{name}_2")): "hush-hush"}]}}),
                )
                .await;
            assert_eq!(code(&answer), "complete", "{answer}");
        }
    }
    gateway
        .call(&key, "put", json!({"v": "y".repeat(100_000)}))
        .await;
    assert_eq!(
        farm.text("SELECT count(*) FROM odin.audit_calls WHERE arguments::text LIKE '%hush-hush%'")
            .await,
        "0"
    );
    assert_eq!(
        farm.text("SELECT max(length(arguments::text)) < 9000 FROM odin.audit_calls")
            .await,
        "true"
    );
    farm.finish().await;
}
