//! What happens while calls run, and between sidecars: cancellation, questions, change notices, tasks, outages.

use std::time::Duration;

use http::Method;
use odin_tests::sidecar::{until, Sidecar, PATIENCE};
use odin_tests::web::{modern, Client};
use odin_tests::Farm;
use serde_json::{json, Value};

const SOON: Duration = PATIENCE;
/// What a call that nobody cancels takes, and how soon after its cancellation it must be gone: too soon to have ended by itself.
const LONG: u64 = 110;
const CUT_SHORT: Duration = Duration::from_secs(60);

/// One farm, two sidecars, one key; `a` and `b` are the same client at each of them.
struct Pair {
    farm: Farm,
    first: Sidecar,
    second: Sidecar,
    a: Client,
    b: Client,
}

async fn pair() -> Pair {
    let farm = Farm::with_fixture().await;
    let key = farm
        .key("op", "odin_operator", "agent:read,agent:write")
        .await;
    let first = Sidecar::start(&farm, &[]).await;
    let second = Sidecar::start(&farm, &[]).await;
    let a = first.client().key(&key);
    let b = second.client().key(&key);
    Pair {
        farm,
        first,
        second,
        a,
        b,
    }
}

/// The same session at another sidecar.
fn over_at(session: &Client, other: &Sidecar) -> Client {
    let mut client = session.clone();
    client.port = other.port;
    client
}

#[tokio::test(flavor = "multi_thread")]
async fn hanging_up_cancels_a_stateless_call() {
    let pair = pair().await;
    let client = pair.a.clone();
    let call = tokio::spawn(async move {
        client
            .modern_call("slow_compute", json!({"seconds": LONG}), json!({}))
            .await
            .status
    });
    let runs = || async { pair.farm.running("slow_compute").await == 1 };
    until("the call runs", SOON, runs).await;
    call.abort();
    let gone = || async { pair.farm.running("slow_compute").await == 0 };
    until("the statement is cancelled", CUT_SHORT, gone).await;
    let reply = pair.a.call("greet", json!({"name": "x"})).await;
    assert_eq!(reply.json()["result"]["content"][0]["text"], "Hello, x!");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_call_is_cancelled_from_any_sidecar() {
    let pair = pair().await;
    let session = pair.a.session(json!({})).await;
    let caller = session.clone();
    let call = tokio::spawn(async move {
        let body = json!({"jsonrpc": "2.0", "id": "long", "method": "tools/call",
                          "params": {"name": "slow_compute", "arguments": {"seconds": LONG}}});
        caller.post(&body.to_string()).await
    });
    let runs = || async { pair.farm.running("slow_compute").await == 1 };
    until("the call runs", SOON, runs).await;
    let cancel = |id: &str| {
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}})
            .to_string()
    };
    // Another session's cancellation of the same number is not ours.
    let other = pair.b.session(json!({})).await;
    assert_eq!(other.post(&cancel("long")).await.status, 202);
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(pair.farm.running("slow_compute").await, 1);
    let elsewhere = over_at(&session, &pair.second);
    assert_eq!(elsewhere.post(&cancel("long")).await.status, 202);
    let gone = || async { pair.farm.running("slow_compute").await == 0 };
    until("the statement is cancelled", CUT_SHORT, gone).await;
    let reply = call.await.unwrap();
    assert_eq!((reply.status, reply.text().as_str()), (202, ""));
}

/// A tool that says it has begun, waits for the lock of `id` and leaves a row.
async fn slow_note(farm: &Farm, id: i32) {
    farm.tool(
        "note",
        "",
        "write",
        &format!(
            "BEGIN PERFORM odin.progress(1, 2); PERFORM pg_advisory_xact_lock({id}); INSERT INTO lab.t VALUES (1, 'kept'); RETURN 'ok'; END"
        ),
    )
    .await;
    farm.sql("GRANT INSERT ON lab.t TO odin_operator").await;
    farm.sql(&format!("SELECT pg_advisory_lock({id})")).await;
}

/// The client has gone: the work, let go on, is done all the same.
async fn done_all_the_same(farm: &Farm, id: i32) {
    // Time enough to notice.
    tokio::time::sleep(Duration::from_millis(500)).await;
    farm.sql(&format!("SELECT pg_advisory_unlock({id})")).await;
    let kept = || async { farm.value::<i64>("SELECT count(*) FROM lab.t").await == 1 };
    until("the work is done all the same", SOON, kept).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_is_no_cancellation_for_older_clients() {
    let pair = pair().await;
    slow_note(&pair.farm, 46110002).await;
    let client = pair.a.clone();
    let call = tokio::spawn(async move { client.call("note", json!({})).await.status });
    let runs = || async { pair.farm.running("note").await == 1 };
    until("the call runs", SOON, runs).await;
    call.abort();
    done_all_the_same(&pair.farm, 46110002).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn leaving_a_stream_is_none_either() {
    let pair = pair().await;
    slow_note(&pair.farm, 46110003).await;
    let call = json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call",
                      "params": {"name": "note", "arguments": {}, "_meta": {"progressToken": "p"}}});
    let mut stream = pair
        .a
        .session(json!({}))
        .await
        .open(Method::POST, call)
        .await;
    stream.next_of("notifications/progress", SOON).await;
    drop(stream);
    done_all_the_same(&pair.farm, 46110003).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_may_be_answered_at_another_sidecar() {
    let pair = pair().await;
    let session = pair.a.session(json!({"elicitation": {}})).await;
    let mut stream = session
        .open(
            Method::POST,
            json!({"jsonrpc": "2.0", "id": 5, "method": "tools/call",
                   "params": {"name": "test_input_required_result_elicitation", "arguments": {}}}),
        )
        .await;
    let question = stream.next_of("elicitation/create", SOON).await;
    let answer = json!({"jsonrpc": "2.0", "id": question["id"],
                        "result": {"action": "accept", "content": {"name": "Ada"}}});
    // Somebody else's key cannot answer it.
    let stranger = pair.farm.key("other", "odin_operator", "agent:read").await;
    let theft = pair
        .second
        .client()
        .key(&stranger)
        .post(&answer.to_string())
        .await;
    assert_eq!(theft.status, 400);
    let elsewhere = over_at(&session, &pair.second);
    assert_eq!(elsewhere.post(&answer.to_string()).await.status, 202);
    let result = stream.next(SOON).await.expect("an answer");
    assert_eq!(result["result"]["content"][0]["text"], "Hello, Ada!");
    // Answered once is answered.
    assert_eq!(elsewhere.post(&answer.to_string()).await.status, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_cannot_be_asked_is_told_so() {
    let pair = pair().await;
    let tool = "test_input_required_result_elicitation";
    let modern = pair.a.modern_call(tool, json!({}), json!({})).await;
    assert_eq!(modern.status, 400);
    assert_eq!(modern.json()["error"]["code"], -32021);
    // Without the session's id nobody knows what this client can.
    let legacy = pair.a.call(tool, json!({})).await;
    assert!(legacy.json()["error"]["code"].is_i64(), "{}", legacy.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tool_registered_in_sql_appears_everywhere() {
    let pair = pair().await;
    let listen = modern(
        json!({"notifications": {"toolsListChanged": true}}),
        json!({}),
    );
    let mut stateless = pair
        .b
        .modern_headers("subscriptions/listen", &listen)
        .open(
            Method::POST,
            json!({"jsonrpc": "2.0", "id": 9, "method": "subscriptions/listen", "params": listen}),
        )
        .await;
    let first = stateless.next(SOON).await.expect("an acknowledgement");
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    let mut older = pair
        .a
        .session(json!({}))
        .await
        .open(Method::GET, Value::Null)
        .await;
    let names = |reply: odin_tests::web::Reply| {
        let tools = reply.json()["result"]["tools"].clone();
        let list = tools.as_array().cloned().unwrap_or_default();
        list.iter().any(|tool| tool["name"] == "brand_new")
    };
    assert!(!names(pair.a.rpc("tools/list", json!({})).await));
    pair.farm
        .tool("brand_new", "", "read", "BEGIN RETURN 'new'; END")
        .await;
    let notice = stateless
        .next_of("notifications/tools/list_changed", SOON)
        .await;
    assert_eq!(
        notice["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"],
        9
    );
    older
        .next_of("notifications/tools/list_changed", SOON)
        .await;
    assert!(names(pair.a.rpc("tools/list", json!({})).await));
    assert!(names(pair.b.rpc("tools/list", json!({})).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watched_resource_announces_its_change() {
    let pair = pair().await;
    pair.farm
        .sql(
            "CREATE TABLE lab.board (said text); INSERT INTO lab.board VALUES ('one'); GRANT SELECT ON lab.board TO odin_viewer;
             CREATE FUNCTION lab.board() RETURNS text LANGUAGE plpgsql STABLE AS
               'BEGIN PERFORM pg_advisory_xact_lock_shared(46110003); RETURN (SELECT said FROM lab.board); END';
             COMMENT ON FUNCTION lab.board() IS 'The board.'; GRANT EXECUTE ON FUNCTION lab.board() TO odin_viewer;
             GRANT USAGE ON SCHEMA lab TO odin_owner;
             SELECT odin.register_resource('lab://board', 'lab.board', name => 'board', mime_type => 'text/plain')",
        )
        .await;
    let session = pair.a.session(json!({})).await;
    let mut stream = session.open(Method::GET, Value::Null).await;
    // Subscribed at the other sidecar than the stream is open at, which then reads what there is before it is told of changes. It is seen
    // to do so: a reader waits for this lock, having chosen what it sees.
    pair.farm.sql("SELECT pg_advisory_lock(46110003)").await;
    let elsewhere = over_at(&session, &pair.second);
    let reply = elsewhere
        .rpc("resources/subscribe", json!({"uri": "lab://board"}))
        .await;
    assert_eq!(reply.json()["result"], json!({}), "{}", reply.text());
    let reads = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'";
    until("the resource is read", SOON, || async {
        pair.farm.value::<i64>(reads).await == 1
    })
    .await;
    pair.farm.sql("SELECT pg_advisory_unlock(46110003)").await;
    pair.farm
        .sql("UPDATE lab.board SET said = 'two'; NOTIFY odin_resources")
        .await;
    let notice = stream
        .next_of("notifications/resources/updated", SOON)
        .await;
    assert_eq!(notice["params"]["uri"], "lab://board");
    // A wake-up without a change is not passed on.
    pair.farm.sql("NOTIFY odin_resources").await;
    let more = stream.next(Duration::from_millis(700)).await;
    assert!(more.is_none(), "{more:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_callers_trace_shows_in_the_database() {
    let pair = pair().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    pair.farm
        .tool(
            "gated",
            "",
            "read",
            "BEGIN PERFORM pg_advisory_xact_lock_shared(46110004); RETURN 'x'; END",
        )
        .await;
    pair.farm.sql("SELECT pg_advisory_lock(46110004)").await;
    let params = json!({"name": "gated", "arguments": {},
                        "_meta": {"traceparent": format!("00-{trace}-00f067aa0ba902b7-01")}});
    let client = pair.a.clone();
    let call = tokio::spawn(async move { client.rpc("tools/call", params).await.status });
    let seen = || async { pair.farm.running(trace).await == 1 };
    until("the trace is in application_name", SOON, seen).await;
    pair.farm.sql("SELECT pg_advisory_unlock(46110004)").await;
    assert_eq!(call.await.unwrap(), 200);
    assert_eq!(pair.farm.running(trace).await, 0);
    let log = pair.first.log_text();
    assert!(log
        .lines()
        .any(|l| l.contains(trace) && l.contains("\"gen_ai.tool.name\":\"gated\"")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_outlives_the_sidecar_that_ran_it() {
    let mut pair = pair().await;
    let tasks = json!({"extensions": {"io.modelcontextprotocol/tasks": {}}});
    let started = pair
        .a
        .modern_call(
            "slow_compute",
            json!({"seconds": 5, "label": "twice"}),
            tasks.clone(),
        )
        .await
        .json();
    let id = started["result"]["taskId"]
        .as_str()
        .expect("a task")
        .to_owned();
    // Whoever runs it dies; the lease runs out, and the other one starts again.
    let runs = || async { pair.farm.running("").await >= 1 };
    until("the task runs", SOON, runs).await;
    let sql = "SELECT count(*) FROM odin.tasks WHERE state = 'working'";
    until("the task is claimed", SOON, || async {
        pair.farm.value::<i64>(sql).await == 1
    })
    .await;
    pair.first.kill().await;
    pair.farm
        .sql("UPDATE odin.tasks SET lease_until = clock_timestamp() - interval '1 second' WHERE state = 'working'")
        .await;
    let get = |client: Client, id: String, tasks: Value| async move {
        let params = modern(json!({"taskId": id}), tasks);
        client.modern_rpc("tasks/get", params).await.json()["result"].clone()
    };
    let done =
        || async { get(pair.b.clone(), id.clone(), tasks.clone()).await["status"] == "completed" };
    until("the task is done", SOON, done).await;
    let task = get(pair.b.clone(), id.clone(), tasks.clone()).await;
    assert_eq!(task["result"]["content"][0]["text"], "computed twice");
    let other = pair.farm.key("other", "odin_operator", "agent:read").await;
    let params = modern(json!({"taskId": id}), tasks);
    let reply = pair
        .second
        .client()
        .key(&other)
        .modern_rpc("tasks/get", params)
        .await;
    assert_eq!(reply.json()["error"]["code"], -32602, "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_told_and_heals_by_itself() {
    let pair = pair().await;
    assert_eq!(pair.a.call("greet", json!({"name": "x"})).await.status, 200);
    pair.farm.close().await;
    let reply = pair.a.call("greet", json!({"name": "x"})).await;
    let error = reply.tool_error();
    assert_eq!(error["code"], "upstream_unavailable", "{}", reply.text());
    assert_eq!(error["retriable"], true);
    let ready = pair.first.client().get("/readyz").await.unwrap();
    assert_eq!(ready.status, 503);
    assert_eq!(
        pair.first.client().get("/healthz").await.unwrap().status,
        200
    );
    // A key nobody has seen yet cannot be checked: that is not "unknown key".
    let stranger = pair.second.client().key("odin_never_seen").post("{}").await;
    assert_eq!(stranger.status, 503);
    pair.farm.reopen().await;
    let back = || async {
        let reply = pair.a.call("greet", json!({"name": "x"})).await;
        reply.json()["result"]["content"][0]["text"] == "Hello, x!"
    };
    until("calls work again", SOON, back).await;
    // The listening connection came back as well.
    let mut older = pair
        .a
        .session(json!({}))
        .await
        .open(Method::GET, Value::Null)
        .await;
    pair.farm
        .tool("later", "", "read", "BEGIN RETURN 'x'; END")
        .await;
    older
        .next_of("notifications/tools/list_changed", SOON)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_sidecar_finishes_what_it_has() {
    let farm = Farm::with_fixture().await;
    let key = farm.key("op", "odin_operator", "agent:read").await;
    // It is to end with its last call, not with its grace.
    let settings = [("ODIN_SHUTDOWN_GRACE", "600")];
    let mut sidecar = Sidecar::start(&farm, &settings).await;
    let client = sidecar.client().key(&key);
    let call =
        tokio::spawn(async move { client.call("slow_compute", json!({"seconds": 5})).await });
    let runs = || async { farm.running("slow_compute").await == 1 };
    until("the call runs", SOON, runs).await;
    assert_eq!(sidecar.terminate().await, Some(0));
    let reply = call.await.unwrap();
    assert_eq!(
        reply.json()["result"]["content"][0]["text"],
        "computed ",
        "{}",
        reply.text()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_at_the_client_is_asked() {
    let pair = pair().await;
    pair.farm
        .sql("GRANT INSERT ON lab.t TO odin_operator")
        .await;
    let insert = "BEGIN INSERT INTO lab.t VALUES (n, 'x'); RETURN 'done'; END";
    pair.farm
        .tool_with("by_hand", "n int", "write", insert, ", confirm => 'human'")
        .await;
    pair.farm
        .tool_with("by_yes", "n int", "write", insert, ", confirm => 'confirm'")
        .await;
    let rows = "SELECT count(*) FROM lab.t";
    let elicit = json!({"elicitation": {}});

    // The older way: asked in the middle of the call.
    let session = pair.a.session(elicit.clone()).await;
    for (tool, n, agree, made) in [
        ("by_hand", 1, false, 0),
        ("by_hand", 2, true, 1),
        ("by_yes", 3, false, 1),
        ("by_yes", 4, true, 2),
    ] {
        let call = json!({"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": {"name": tool, "arguments": {"n": n}}});
        let mut stream = session.open(Method::POST, call).await;
        let question = stream.next_of("elicitation/create", SOON).await;
        assert!(question["params"]["message"]
            .as_str()
            .unwrap()
            .contains(tool));
        let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": {"agree": agree}}});
        assert_eq!(session.post(&answer.to_string()).await.status, 202);
        let result = stream.next(SOON).await.expect("an answer");
        assert_eq!(
            pair.farm.value::<i64>(rows).await,
            made,
            "{tool} {agree}: {result}"
        );
    }

    // The stateless way: a question as a result, the answer with the repeated call.
    for (tool, n, key) in [
        ("by_hand", 10, "odin_approve"),
        ("by_yes", 11, "odin_confirm"),
    ] {
        let asked = pair
            .a
            .modern_call(tool, json!({"n": n}), elicit.clone())
            .await
            .json();
        assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
        let before: i64 = pair.farm.value(rows).await;
        let mut params = json!({"name": tool, "arguments": {"n": n},
            "inputResponses": {key: {"action": "accept", "content": {"agree": true}}}});
        if let Some(state) = asked["result"].get("requestState") {
            params["requestState"] = state.clone();
        }
        let done = pair
            .b
            .modern_rpc("tools/call", modern(params, elicit.clone()))
            .await
            .json();
        assert_eq!(done["result"]["resultType"], "complete", "{done}");
        assert_eq!(pair.farm.value::<i64>(rows).await, before + 1, "{done}");
    }

    // A yes that nobody asked for is none: not without the question, not for another request.
    let last = "SELECT coalesce(max(id), 0) FROM odin.consents";
    let before: i64 = pair.farm.value(rows).await;
    for state in [None, Some(pair.farm.value::<i64>(last).await.to_string())] {
        let mut params = json!({"name": "by_hand", "arguments": {"n": 12},
            "inputResponses": {"odin_approve": {"action": "accept", "content": {"agree": true}}}});
        if let Some(state) = state {
            params["requestState"] = json!(state);
        }
        let asked = pair
            .a
            .modern_rpc("tools/call", modern(params, elicit.clone()))
            .await
            .json();
        assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    }
    assert_eq!(pair.farm.value::<i64>(rows).await, before);

    // The question says why and what; a no is kept, and the agent told not to ask again.
    let arguments = json!({"n": 13, "approval_reason": "the customer asked"});
    let asked = pair
        .a
        .modern_call("by_hand", arguments.clone(), elicit.clone())
        .await
        .json();
    let message = asked["result"]["inputRequests"]["odin_approve"]["params"]["message"].to_string();
    for part in ["by_hand", "the customer asked", "It would do this"] {
        assert!(message.contains(part), "{asked}");
    }
    let refusal = json!({"name": "by_hand", "arguments": arguments, "requestState": asked["result"]["requestState"],
        "inputResponses": {"odin_approve": {"action": "decline"}}});
    let told = pair
        .a
        .modern_rpc("tools/call", modern(refusal, elicit.clone()))
        .await;
    let error = told.tool_error();
    assert_eq!(error["code"], "approval_denied", "{}", told.text());
    assert_eq!(error["retriable"], false, "{error}");
    assert!(error["hint"].to_string().contains("not retry"), "{error}");
    assert_eq!(
        pair.farm
            .text("SELECT concat_ws(' ', state, decided_via, decided_by <> '', decided_at IS NOT NULL, expires_at > now() + interval '23 hours') FROM odin.consents ORDER BY id DESC LIMIT 1")
            .await,
        "denied elicitation t t t"
    );
    assert_eq!(pair.farm.value::<i64>(rows).await, before);

    // Who cannot be asked is told what to do.
    let reply = pair
        .a
        .modern_call("by_hand", json!({"n": 20}), json!({}))
        .await;
    assert_eq!(
        reply.tool_error()["code"],
        "approval_required",
        "{}",
        reply.text()
    );
    let reply = pair
        .a
        .modern_call("by_yes", json!({"n": 21}), json!({}))
        .await;
    assert_eq!(
        reply.json()["result"]["structuredContent"]["dry_run"],
        true,
        "{}",
        reply.text()
    );
}
