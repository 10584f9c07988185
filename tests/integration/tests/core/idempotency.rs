//! Exactly once: the five refusals, replays, what frees a key, and what a crash leaves.

use odin_tests::sidecar::{until, PATIENCE};
use odin_tests::{code, result, Farm, Gateway, Key};
use serde_json::{json, Value};

/// A farm with a tool `add(id, v)` that inserts one row, and what calls it.
async fn farm() -> (Farm, String, Key, Gateway) {
    let farm = Farm::new().await;
    let (role, key, gateway) = farm.operator().await;
    farm.tool(
        "add",
        "id int, v text DEFAULT 'x'",
        "write",
        "BEGIN INSERT INTO lab.t VALUES (add.id, add.v); RETURN 'added ' || id; END",
    )
    .await;
    (farm, role, key, gateway)
}

fn under(key: &str) -> Value {
    json!({ "idempotency_key": key })
}

#[tokio::test]
async fn the_same_call_is_answered_again_and_done_once() {
    let (farm, _, key, gateway) = farm().await;
    let first = gateway
        .call_with(&key, "add", json!({"id": 1}), under("k"))
        .await;
    assert_eq!(
        (result(&first), first["replay"].as_bool()),
        (&json!("added 1"), Some(false))
    );
    // However the arguments are written, and whichever way the key came.
    for (arguments, options) in [
        (json!({"id": 1}), under("k")),
        (json!({"id": "1"}), under("k")),
        (json!({"id": 1.0, "idempotency_key": "k"}), json!({})),
    ] {
        let again = gateway.call_with(&key, "add", arguments, options).await;
        assert_eq!(
            (result(&again), again["replay"].as_bool()),
            (&json!("added 1"), Some(true)),
            "{again}"
        );
    }
    assert_eq!(
        farm.text(
            "SELECT string_agg(outcome, ' ' ORDER BY id) FROM odin.audit_calls WHERE tool = 'add'"
        )
        .await,
        "done replay replay replay"
    );
    // A SQL user's replay is marked in the answer itself.
    let person = farm.client(&format!("{}_op", farm.name)).await;
    for marked in [None, Some(true)] {
        let answer: Value = odin_tests::value(
            &person,
            r#"SELECT odin.call('add', '{"id": 9}', '{"idempotency_key": "sql"}')"#,
        )
        .await;
        assert_eq!(answer["_idempotent_replay"].as_bool(), marked, "{answer}");
    }
    farm.finish().await;
}

#[tokio::test]
async fn another_body_or_tool_is_a_conflict() {
    let (farm, _, key, gateway) = farm().await;
    farm.tool(
        "other",
        "id int",
        "write",
        "BEGIN INSERT INTO lab.t VALUES (other.id, 'other'); RETURN 'other'; END",
    )
    .await;
    gateway
        .call_with(&key, "add", json!({"id": 1}), under("k"))
        .await;
    for (tool, arguments) in [
        ("add", json!({"id": 2})),
        ("add", json!({"id": 1, "v": "y"})),
        ("other", json!({"id": 1})),
    ] {
        let answer = gateway.call_with(&key, tool, arguments, under("k")).await;
        assert_eq!(
            (
                code(&answer),
                answer["error"]["status"].as_i64(),
                answer["error"]["retriable"].as_bool()
            ),
            ("idempotency_conflict", Some(409), Some(false)),
            "{answer}"
        );
    }
    assert_eq!(farm.text("SELECT count(*) FROM lab.t").await, "1");
    farm.finish().await;
}

/// Two connections race with one key: one does it, the other is told at once that it is still running; later it gets the answer.
#[tokio::test]
async fn a_racing_call_is_told_that_the_first_is_running() {
    let (farm, _, key, gateway) = farm().await;
    farm.tool("slow", "id int", "write", "BEGIN PERFORM pg_advisory_xact_lock(77); INSERT INTO lab.t VALUES (slow.id, 'slow'); RETURN 'slow'; END").await;
    let other = farm.gateway().await;
    let holder = farm.client("postgres").await;
    holder
        .batch_execute("SELECT pg_advisory_lock(77)")
        .await
        .unwrap();
    let (first, ()) = tokio::join!(
        gateway.call_with(&key, "slow", json!({"id": 1}), under("k")),
        async {
            until_waiting(&farm).await;
            let second = other
                .call_with(&key, "slow", json!({"id": 1}), under("k"))
                .await;
            assert_eq!(
                (code(&second), second["error"]["retriable"].as_bool()),
                ("idempotency_in_progress", Some(true)),
                "{second}"
            );
            assert!(
                second["error"]["retry_after"].as_i64() > Some(0),
                "{second}"
            );
            // Another key is not held up.
            assert_eq!(
                code(
                    &other
                        .call_with(&key, "add", json!({"id": 2}), under("k2"))
                        .await
                ),
                "complete"
            );
            holder
                .batch_execute("SELECT pg_advisory_unlock(77)")
                .await
                .unwrap();
        }
    );
    assert_eq!(
        (code(&first), first["replay"].as_bool()),
        ("complete", Some(false))
    );
    let third = other
        .call_with(&key, "slow", json!({"id": 1}), under("k"))
        .await;
    assert_eq!(third["replay"], true, "{third}");
    assert_eq!(
        farm.text("SELECT count(*) FROM lab.t WHERE v = 'slow'")
            .await,
        "1"
    );
    farm.finish().await;
}

/// Many connections at once with one key: the effect is there once, and everybody heard one of the three true answers.
#[tokio::test]
async fn a_stampede_does_it_once() {
    let (farm, _, key, _) = farm().await;
    let mut callers = Vec::new();
    for _ in 0..12 {
        callers.push(farm.gateway().await);
    }
    for round in 0..10 {
        let (arguments, options) = (json!({"id": round}), under(&format!("round {round}")));
        let answers = futures::future::join_all(
            callers
                .iter()
                .map(|c| c.call_with(&key, "add", arguments.clone(), options.clone())),
        )
        .await;
        let done = answers
            .iter()
            .filter(|a| code(a) == "complete" && a["replay"] == false)
            .count();
        assert_eq!(done, 1, "{answers:?}");
        assert!(
            answers
                .iter()
                .all(|a| matches!(code(a), "complete" | "idempotency_in_progress")),
            "{answers:?}"
        );
    }
    assert_eq!(farm.text("SELECT count(*) FROM lab.t").await, "10");
    farm.finish().await;
}

/// Rights that changed in between: of the key, of the role, of its memberships. The same owner's other key counts as changed scopes.
#[tokio::test]
async fn changed_rights_are_not_answered_from_before() {
    let (farm, role, key, gateway) = farm().await;
    gateway
        .call_with(&key, "add", json!({"id": 1}), under("k"))
        .await;
    let narrow = farm.mint(&role, "write").await;
    assert_eq!(
        code(
            &gateway
                .call_with(&narrow, "add", json!({"id": 1}), under("k"))
                .await
        ),
        "idempotency_authz_changed"
    );
    let same = farm.mint(&role, "agent:write,agent:read").await;
    assert_eq!(
        gateway
            .call_with(&same, "add", json!({"id": 1}), under("k"))
            .await["replay"],
        true,
        "the order of scopes is no right"
    );
    for (change, back) in [
        (format!("GRANT odin_admin TO {role}"), format!("REVOKE odin_admin FROM {role}")),
        (format!("INSERT INTO odin.orgs(name) VALUES ('Second'); SELECT odin.add_member('{role}', (SELECT max(id) FROM odin.orgs))"), format!("SELECT odin.remove_member('{role}', (SELECT max(id) FROM odin.orgs))")),
    ] {
        farm.sql(&change).await;
        assert_eq!(code(&gateway.call_with(&key, "add", json!({"id": 1}), under("k")).await), "idempotency_authz_changed", "{change}");
        farm.sql(&back).await;
        assert_eq!(gateway.call_with(&key, "add", json!({"id": 1}), under("k")).await["replay"], true, "{back}");
    }
    // Another role's key of the same name is another key.
    let other = farm.role("op2", "odin_operator").await;
    let theirs = farm.mint(&other, "agent:read,agent:write").await;
    assert_eq!(
        gateway
            .call_with(&theirs, "add", json!({"id": 2}), under("k"))
            .await["replay"],
        false
    );
    farm.finish().await;
}

#[tokio::test]
async fn expired_and_revoked_keys_get_no_replay() {
    let (farm, role, key, gateway) = farm().await;
    gateway
        .call_with(&key, "add", json!({"id": 1}), under("k"))
        .await;
    farm.sql(&format!("SELECT odin.revoke_key({})", key.id))
        .await;
    assert_eq!(
        code(
            &gateway
                .call_with(&key, "add", json!({"id": 1}), under("k"))
                .await
        ),
        "not_authenticated"
    );
    let short = farm
        .mint_with(&role, "agent:read,agent:write", ", expires => '1 hour'")
        .await;
    assert_eq!(
        gateway
            .call_with(&short, "add", json!({"id": 1}), under("k"))
            .await["replay"],
        true,
        "a key that is good is answered"
    );
    farm.sql(&format!(
        "UPDATE odin_private.keys SET expires_at = now() - interval '1 second' WHERE id = {}",
        short.id
    ))
    .await;
    assert_eq!(
        code(
            &gateway
                .call_with(&short, "add", json!({"id": 1}), under("k"))
                .await
        ),
        "not_authenticated"
    );
    farm.finish().await;
}

/// What failed, was refused or was only a preview leaves the key free.
#[tokio::test]
async fn errors_and_previews_free_the_key() {
    let (farm, _, key, gateway) = farm().await;
    farm.tool("fails", "id int", "write", "BEGIN INSERT INTO lab.t VALUES (fails.id, 'x'); IF (SELECT v FROM lab.t WHERE t.id = -1) = 'break' THEN RAISE EXCEPTION 'no'; END IF; RETURN 'in'; END").await;
    farm.sql("INSERT INTO lab.t VALUES (-1, 'break')").await;
    assert_eq!(
        code(
            &gateway
                .call_with(&key, "fails", json!({"id": 1}), under("k"))
                .await
        ),
        "validation_failed"
    );
    assert_eq!(
        code(
            &gateway
                .call_with(&key, "fails", json!({"id": "one"}), under("k"))
                .await
        ),
        "validation_failed"
    );
    let preview = gateway
        .call_with(&key, "add", json!({"id": 5, "dry_run": true}), under("k"))
        .await;
    assert_eq!(preview["result"]["dry_run"], true);
    assert_eq!(
        farm.text("SELECT count(*) FROM odin.idempotency").await,
        "0"
    );
    farm.sql("UPDATE lab.t SET v = 'mended' WHERE id = -1")
        .await;
    let answer = gateway
        .call_with(&key, "fails", json!({"id": 1}), under("k"))
        .await;
    assert_eq!(
        (code(&answer), answer["replay"].as_bool()),
        ("complete", Some(false)),
        "{answer}"
    );
    // A preview under a key that is used says what would happen, not what did.
    let preview = gateway
        .call_with(&key, "fails", json!({"id": 7, "dry_run": true}), under("k"))
        .await;
    assert_eq!(preview["result"]["dry_run"], true, "{preview}");
    farm.finish().await;
}

#[tokio::test]
async fn too_large_to_keep_and_too_large_to_take() {
    let (farm, _, key, gateway) = farm().await;
    farm.tool(
        "fill",
        "n int",
        "write",
        "BEGIN INSERT INTO lab.t VALUES (n, 'x'); RETURN repeat('x', n); END",
    )
    .await;
    assert_eq!(
        code(
            &gateway
                .call_with(&key, "fill", json!({"n": 300_000}), under("big"))
                .await
        ),
        "complete"
    );
    let again = gateway
        .call_with(&key, "fill", json!({"n": 300_000}), under("big"))
        .await;
    assert_eq!(
        (code(&again), again["error"]["retriable"].as_bool()),
        ("idempotency_uncacheable_success", Some(false)),
        "{again}"
    );
    assert_eq!(
        code(
            &gateway
                .call_with(&key, "fill", json!({"n": 200_000}), under("fits"))
                .await
        ),
        "complete"
    );
    assert_eq!(
        gateway
            .call_with(&key, "fill", json!({"n": 200_000}), under("fits"))
            .await["replay"],
        true
    );
    // Arguments past a megabyte: refused with a key, taken without one.
    let long = "y".repeat(1_100_000);
    let answer = gateway
        .call_with(&key, "add", json!({"id": 1, "v": long}), under("long"))
        .await;
    assert_eq!(
        (code(&answer), answer["error"]["status"].as_i64()),
        ("idempotency_unsupported", Some(413)),
        "{answer}"
    );
    assert_eq!(
        code(&gateway.call(&key, "add", json!({"id": 1, "v": long})).await),
        "complete"
    );
    for bad in ["".to_owned(), "k".repeat(256)] {
        assert_eq!(
            code(
                &gateway
                    .call_with(&key, "add", json!({"id": 2}), under(&bad))
                    .await
            ),
            "validation_failed",
            "a key of {} bytes",
            bad.len()
        );
    }
    assert_eq!(farm.text("SELECT count(*) FROM lab.t").await, "3");
    farm.finish().await;
}

/// After 24 hours a key is free again, whether the clock has ticked or not; the clock takes the row away.
#[tokio::test]
async fn keys_are_kept_for_a_day() {
    let (farm, _, key, gateway) = farm().await;
    for name in ["a", "b"] {
        gateway
            .call_with(
                &key,
                "add",
                json!({"id": if name == "a" { 1 } else { 2 }}),
                under(name),
            )
            .await;
    }
    assert_eq!(farm.text("SELECT bool_and(expires_at - created_at BETWEEN interval '24 hours' AND interval '24 hours 1 minute') FROM odin.idempotency").await, "true");
    farm.sql(
        "UPDATE odin.idempotency SET expires_at = now() - interval '1 second' WHERE key = 'a'",
    )
    .await;
    let free = gateway
        .call_with(&key, "add", json!({"id": 3}), under("a"))
        .await;
    assert_eq!(
        (code(&free), free["replay"].as_bool()),
        ("complete", Some(false)),
        "{free}"
    );
    farm.sql(
        "UPDATE odin.idempotency SET expires_at = now() - interval '1 second' WHERE key = 'a'",
    )
    .await;
    farm.client("odin_worker")
        .await
        .batch_execute("SELECT odin.tick()")
        .await
        .unwrap();
    assert_eq!(
        farm.text("SELECT string_agg(key, ' ') FROM odin.idempotency")
            .await,
        "b"
    );
    farm.finish().await;
}

/// kill -9 of nothing less than the backend, after the work and before the answer: neither effect, nor answer, nor record is there; the retry does it.
#[tokio::test]
async fn effect_and_answer_are_one_under_a_crash() {
    let (farm, _, key, gateway) = farm().await;
    farm.tool("dies", "id int", "write", "BEGIN INSERT INTO lab.t VALUES (dies.id, 'x'); PERFORM pg_sleep(CASE WHEN EXISTS (SELECT 1 FROM lab.t WHERE t.id = -1) THEN 60 ELSE 0 END); RETURN 'in'; END").await;
    farm.sql("INSERT INTO lab.t VALUES (-1, 'wait')").await;
    let (lost, ()) = tokio::join!(
        gateway.try_call(&key, "dies", json!({"id": 1}), under("k")),
        async {
            until_waiting(&farm).await;
            farm.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'odin_gateway'").await;
        }
    );
    assert!(lost.is_err());
    // The caller hears of the end before the server process has let go of what it held.
    let gone = || async {
        farm.value::<i64>("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'odin_gateway'")
            .await
            == 0
    };
    until("the server process has ended", PATIENCE, gone).await;
    // One that ended between its last byte and the commit is the same to the caller: here the client goes away.
    assert_eq!(farm.text("SELECT (SELECT count(*) FROM lab.t WHERE id = 1) + (SELECT count(*) FROM odin.idempotency) + (SELECT count(*) FROM odin.audit_calls WHERE tool = 'dies')").await, "0");
    farm.sql("DELETE FROM lab.t WHERE id = -1").await;
    let gateway = farm.gateway().await;
    let answer = gateway
        .call_with(&key, "dies", json!({"id": 1}), under("k"))
        .await;
    assert_eq!(
        (code(&answer), answer["replay"].as_bool()),
        ("complete", Some(false)),
        "{answer}"
    );
    assert_eq!(
        gateway
            .call_with(&key, "dies", json!({"id": 1}), under("k"))
            .await["replay"],
        true
    );
    assert_eq!(
        farm.text("SELECT count(*) FROM lab.t WHERE id = 1").await,
        "1"
    );
    farm.finish().await;
}

/// A SQL user's key lives and dies with his transaction.
#[tokio::test]
async fn a_rolled_back_transaction_frees_the_key() {
    let (farm, role, _, _) = farm().await;
    let person = farm.client(&role).await;
    let call = r#"SELECT odin.call('add', '{"id": 1}', '{"idempotency_key": "k"}')"#;
    person
        .batch_execute(&format!("BEGIN; {call}; ROLLBACK"))
        .await
        .unwrap();
    assert_eq!(
        farm.text("SELECT count(*) FROM odin.idempotency").await,
        "0"
    );
    let answer: Value = odin_tests::value(&person, call).await;
    assert_eq!(answer, json!({"result": "added 1"}));
    farm.finish().await;
}

async fn until_waiting(farm: &Farm) {
    let other = farm.client("postgres").await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND usename = 'odin_gateway' AND wait_event IN ('PgSleep', 'advisory')";
    let waits = || async { odin_tests::value::<i64>(&other, sql).await > 0 };
    until("the call waits", PATIENCE, waits).await;
}
