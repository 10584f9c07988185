//! Time, size and interruption: the call ends, the trail has it, and the connection goes on.

use odin_tests::sidecar::{until, PATIENCE};
use odin_tests::{code, result, Farm, Gateway, Key};
use serde_json::{json, Value};
use std::time::{Duration, Instant};
use tokio_postgres::NoTls;

async fn still_works(farm: &Farm, gateway: &Gateway, key: &Key) {
    farm.tool(
        "control",
        "",
        "write",
        "BEGIN RETURN current_setting('statement_timeout'); END",
    )
    .await;
    let answer = gateway.call(key, "control", json!({})).await;
    assert_eq!(code(&answer), "complete", "{answer}");
    assert_eq!(
        odin_tests::value::<String>(&gateway.client, "SELECT current_user::text").await,
        "odin_gateway"
    );
}

async fn last_of(farm: &Farm, tool: &str) -> String {
    farm.text(&format!("SELECT outcome || ' ' || coalesce(code, '-') FROM odin.audit_calls WHERE tool = '{tool}' ORDER BY id DESC LIMIT 1")).await
}

/// A tool that never ends meets its own limit, as a write and as a read, and takes its effect with it.
#[tokio::test]
async fn an_endless_tool_meets_its_limit() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    for (scope, body) in [
        ("write", "BEGIN INSERT INTO lab.t VALUES (1, 'x'); LOOP NULL; END LOOP; END"),
        ("write", "BEGIN INSERT INTO lab.t VALUES (1, 'x'); SET statement_timeout = 0; PERFORM pg_sleep(60); RETURN 'out'; END"),
        ("read", "BEGIN PERFORM pg_sleep(60); RETURN 'out'; END"),
        ("write", "BEGIN BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END; INSERT INTO lab.t VALUES (1, 'late'); RETURN 'out'; END"),
    ] {
        farm.tool_with("endless", "", scope, body, ", timeout => '200 ms'").await;
        let began = Instant::now();
        let answer = gateway.call(&key, "endless", json!({})).await;
        assert_eq!((code(&answer), answer["error"]["retriable"].as_bool()), ("timeout", Some(true)), "{body}\n{answer}");
        assert!(began.elapsed() < Duration::from_secs(20), "{body}");
        assert_eq!(last_of(&farm, "endless").await, "failed timeout");
        assert_eq!(farm.text("SELECT count(*) FROM lab.t").await, "0");
        // The timer is put away: whatever runs next is not cut short.
        gateway.client.batch_execute("SELECT pg_sleep(0.4)").await.expect("the tool's timer outlived it");
        still_works(&farm, &gateway, &key).await;
    }
    farm.finish().await;
}

/// The connection's own limit counts when it comes sooner, and is still armed after a call that was quicker.
#[tokio::test]
async fn the_statements_own_limit_stays() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.tool(
        "slow",
        "",
        "write",
        "BEGIN PERFORM pg_sleep(60); RETURN 'out'; END",
    )
    .await;
    farm.tool_with(
        "quick",
        "",
        "write",
        "BEGIN RETURN 'in'; END",
        ", timeout => '1 s'",
    )
    .await;
    gateway
        .client
        .batch_execute("SET statement_timeout = '3 s'")
        .await
        .unwrap();
    let answer = gateway.call(&key, "slow", json!({})).await;
    assert_eq!(
        (code(&answer), last_of(&farm, "slow").await.as_str()),
        ("timeout", "failed timeout")
    );
    let after = format!(
        "SELECT odin.gateway_call('{}', 'quick', '{{}}', '{{}}'), pg_sleep(60)",
        key.credential
    );
    let said = odin_tests::refusal(&gateway.client, &after).await;
    assert!(
        said.starts_with("57014"),
        "the statement's limit was lost: {said}"
    );
    gateway
        .client
        .batch_execute("SET statement_timeout = 0")
        .await
        .unwrap();
    still_works(&farm, &gateway, &key).await;
    farm.finish().await;
}

/// A cancel request in the middle of a tool ends it, is in the trail, and the connection is good.
#[tokio::test]
async fn a_cancelled_call_is_in_the_trail() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    for (scope, body) in [
        (
            "write",
            "BEGIN INSERT INTO lab.t VALUES (1, 'x'); PERFORM pg_sleep(60); RETURN 'out'; END",
        ),
        ("read", "BEGIN PERFORM pg_sleep(60); RETURN 'out'; END"),
    ] {
        farm.tool("slow", "", scope, body).await;
        let cancel = gateway.client.cancel_token();
        let (answer, ()) = tokio::join!(gateway.call(&key, "slow", json!({})), async {
            waits_for(&farm, "PgSleep", 1).await;
            cancel.cancel_query(NoTls).await.unwrap();
        });
        assert_eq!(code(&answer), "cancelled", "{answer}");
        assert_eq!(last_of(&farm, "slow").await, "failed cancelled");
        assert_eq!(farm.text("SELECT count(*) FROM lab.t").await, "0");
        still_works(&farm, &gateway, &key).await;
    }
    farm.finish().await;
}

/// The same before the tool begins, while the dispatcher itself waits.
#[tokio::test]
async fn a_call_cancelled_before_its_tool_is_in_the_trail() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.tool_with(
        "guarded",
        "",
        "write",
        "BEGIN RETURN 'in'; END",
        ", confirm => 'human'",
    )
    .await;
    assert_eq!(
        code(&gateway.call(&key, "guarded", json!({})).await),
        "approval_required"
    );
    let other = farm.client("postgres").await;
    other
        .batch_execute("BEGIN; SELECT 1 FROM odin.consents FOR UPDATE")
        .await
        .unwrap();
    let cancel = gateway.client.cancel_token();
    let (answer, ()) = tokio::join!(gateway.call(&key, "guarded", json!({})), async {
        waits_for(&farm, "transactionid", 1).await;
        cancel.cancel_query(NoTls).await.unwrap();
    });
    assert_eq!(
        (code(&answer), last_of(&farm, "guarded").await.as_str()),
        ("cancelled", "refused cancelled")
    );
    other.batch_execute("ROLLBACK").await.unwrap();
    still_works(&farm, &gateway, &key).await;
    farm.finish().await;
}

/// A server may send one request's signal twice, and people press twice: the second finds a call that is being ended and leaves it to that.
#[tokio::test]
async fn a_call_cancelled_twice_is_in_the_trail() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    for scope in ["write", "read"] {
        farm.tool(
            "slow",
            "",
            scope,
            "BEGIN PERFORM pg_sleep(60); RETURN 'out'; END",
        )
        .await;
        // The first time the dispatcher runs it, then the short way.
        for _ in 0..2 {
            let other = farm.client("postgres").await;
            let cancel = gateway.client.cancel_token();
            let (answer, ()) = tokio::join!(gateway.call(&key, "slow", json!({})), async {
                waits_for(&farm, "PgSleep", 1).await;
                other
                    .batch_execute("BEGIN; LOCK TABLE odin.audit_calls IN EXCLUSIVE MODE")
                    .await
                    .unwrap();
                cancel.cancel_query(NoTls).await.unwrap();
                waits_for(&farm, "relation", 1).await;
                cancel.cancel_query(NoTls).await.unwrap();
                // A backend that obeyed would be gone from its lock by then.
                tokio::time::sleep(Duration::from_millis(300)).await;
                other.batch_execute("ROLLBACK").await.unwrap();
            });
            assert_eq!(code(&answer), "cancelled", "{answer}");
            assert_eq!(last_of(&farm, "slow").await, "failed cancelled");
            still_works(&farm, &gateway, &key).await;
            // The next statement can be cancelled as ever.
            let (said, ()) = tokio::join!(
                odin_tests::refusal(&gateway.client, "SELECT pg_sleep(60)"),
                async {
                    waits_for(&farm, "PgSleep", 1).await;
                    cancel.cancel_query(NoTls).await.unwrap();
                }
            );
            assert!(said.starts_with("57014"), "{said}");
        }
    }
    farm.finish().await;
}

/// The same when the tool ran into its own limit: a cancel that comes while that is written down finds nothing to cancel.
#[tokio::test]
async fn a_late_call_cancelled_is_in_the_trail() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    for scope in ["write", "read"] {
        let body = "BEGIN PERFORM pg_sleep(60); RETURN 'out'; END";
        farm.tool_with("late", "", scope, body, ", timeout => '200 ms'")
            .await;
        // The first time the dispatcher runs it, then the short way.
        for _ in 0..2 {
            let other = farm.client("postgres").await;
            let cancel = gateway.client.cancel_token();
            other
                .batch_execute("BEGIN; LOCK TABLE odin.audit_calls IN EXCLUSIVE MODE")
                .await
                .unwrap();
            let (answer, ()) = tokio::join!(gateway.call(&key, "late", json!({})), async {
                waits_for(&farm, "relation", 1).await;
                cancel.cancel_query(NoTls).await.unwrap();
                // A backend that obeyed would be gone from its lock by then.
                tokio::time::sleep(Duration::from_millis(300)).await;
                other.batch_execute("ROLLBACK").await.unwrap();
            });
            assert_eq!(code(&answer), "timeout", "{answer}");
            assert_eq!(last_of(&farm, "late").await, "failed timeout");
            still_works(&farm, &gateway, &key).await;
        }
    }
    farm.finish().await;
}

/// Where the trail cannot be written, nothing is done: the effect and its record are one.
#[tokio::test]
async fn no_effect_without_its_record() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.tool(
        "writes",
        "",
        "write",
        "BEGIN INSERT INTO lab.t VALUES (1, 'x'); RETURN 'in'; END",
    )
    .await;
    let other = farm.client("postgres").await;
    other
        .batch_execute("BEGIN; LOCK TABLE odin.audit_calls IN EXCLUSIVE MODE")
        .await
        .unwrap();
    let cancel = gateway.client.cancel_token();
    let (answer, ()) = tokio::join!(
        gateway.try_call(&key, "writes", json!({}), json!({})),
        async {
            waits_for(&farm, "relation", 1).await;
            cancel.cancel_query(NoTls).await.unwrap();
        }
    );
    assert!(answer.unwrap_err().starts_with("57014"));
    other.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(farm.text("SELECT count(*) FROM lab.t").await, "0");
    still_works(&farm, &gateway, &key).await;
    farm.finish().await;
}

/// Large answers pass; what PostgreSQL itself cannot hold is an error like any other.
#[tokio::test]
async fn oversized_answers() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.tool(
        "fill",
        "n int",
        "write",
        "BEGIN INSERT INTO lab.t VALUES (n, 'x'); RETURN repeat('x', n); END",
    )
    .await;
    let answer = gateway.call(&key, "fill", json!({"n": 20_000_000})).await;
    assert_eq!(result(&answer).as_str().map(str::len), Some(20_000_000));
    let answer = gateway.call(&key, "fill", json!({"n": 300_000_000})).await;
    assert_eq!(code(&answer), "internal_error", "{answer}");
    assert_eq!(last_of(&farm, "fill").await, "failed internal_error");
    assert_eq!(
        farm.text("SELECT string_agg(id::text, ' ') FROM lab.t")
            .await,
        "20000000"
    );
    farm.tool(
        "deep",
        "n int",
        "write",
        "BEGIN RETURN lab.deep(n + 1); END",
    )
    .await;
    let answer = gateway.call(&key, "deep", json!({"n": 0})).await;
    assert_eq!(code(&answer), "internal_error", "{answer}");
    still_works(&farm, &gateway, &key).await;
    farm.finish().await;
}

/// A list that is too large for a model is cut, says so, and its cursor leads to the rest.
#[tokio::test]
async fn a_cut_list_can_be_read_to_its_end() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.sql(
        "CREATE FUNCTION lab.rows(\"limit\" int DEFAULT 100, cursor text DEFAULT NULL) RETURNS TABLE(id bigint, v text) LANGUAGE plpgsql STABLE AS $$ BEGIN
           RETURN QUERY SELECT i::bigint, repeat('x', 5000) FROM generate_series(1 + coalesce((odin.cursor_decode(cursor)->>0)::int, 0), 250) i LIMIT \"limit\"; END $$;
         GRANT EXECUTE ON FUNCTION lab.rows TO odin_viewer; SELECT odin.register_tool('lab.rows', description => 'x', page_by => '{id}', default_fields => '{v}')",
    )
    .await;
    let (mut cursor, mut seen, mut cut) = (Value::Null, 0, 0);
    for _ in 0..50 {
        let answer = gateway.call(&key, "rows", json!({"cursor": cursor})).await;
        let page = result(&answer);
        seen += page["count"].as_i64().unwrap();
        cut += i64::from(page.get("note").is_some());
        cursor = page["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(seen, 250, "rows are lost between pages");
    assert!(cut > 0, "the control: no page was cut");
    farm.finish().await;
}

/// Waits until so many backends of this farm wait for what is named.
async fn waits_for(farm: &Farm, event: &str, backends: i64) {
    let other = farm.client("postgres").await;
    let sql = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = '{event}'");
    let waits = || async { odin_tests::value::<i64>(&other, &sql).await >= backends };
    until(&format!("{backends} wait for {event}"), PATIENCE, waits).await;
}

/// A tool's own cap, and a key's, hold over every connection there is; the place is free again when the call ends.
#[tokio::test]
async fn so_many_calls_at_once_and_no_more() {
    let farm = Farm::new().await;
    let (role, key, gateway) = farm.operator().await;
    let second = farm.gateway().await;
    let third = farm.gateway().await;
    // Calls stay in their tools as long as this lock is held.
    let holder = farm.client("postgres").await;
    let body = "BEGIN PERFORM pg_advisory_xact_lock_shared(46110001); RETURN 'out'; END";
    farm.tool_with("capped", "", "read", body, ", concurrency => 2")
        .await;
    farm.tool("open", "", "read", body).await;
    let narrow = farm
        .mint_with(&role, "agent:read,agent:write", ", concurrency => 1")
        .await;
    for (tool, key, detail) in [
        ("capped", &key, "capped runs as often at once as it may (2)"),
        ("open", &narrow, "this key may make 1 calls at once"),
    ] {
        holder
            .batch_execute("SELECT pg_advisory_lock(46110001)")
            .await
            .unwrap();
        // As many as may be are in the tool; the next is refused while they are, and each of them gets its answer.
        let (a, (b, refused)) = tokio::join!(gateway.call(key, tool, json!({})), async {
            waits_for(&farm, "advisory", 1).await;
            let one_more = second.call(key, tool, json!({}));
            let over = async {
                if tool == "capped" {
                    waits_for(&farm, "advisory", 2).await;
                }
                let refused = third.call(key, tool, json!({})).await;
                holder
                    .batch_execute("SELECT pg_advisory_unlock(46110001)")
                    .await
                    .unwrap();
                refused
            };
            if tool == "capped" {
                tokio::join!(one_more, over)
            } else {
                (one_more.await, over.await)
            }
        });
        let refusals = if tool == "capped" {
            assert_eq!(code(&b), "complete", "{b}");
            vec![&refused]
        } else {
            vec![&b, &refused]
        };
        assert_eq!(code(&a), "complete", "{a}");
        for refused in refusals {
            let error = &refused["error"];
            assert_eq!(
                (
                    error["code"].as_str(),
                    error["detail"].as_str(),
                    error["retry_after"].as_i64(),
                    error["retriable"].as_bool()
                ),
                (Some("rate_limited"), Some(detail), Some(1), Some(true)),
                "{refused}"
            );
        }
        assert_eq!(code(&third.call(key, tool, json!({})).await), "complete");
    }
    assert_eq!(last_of(&farm, "capped").await, "done -");
    farm.finish().await;
}
