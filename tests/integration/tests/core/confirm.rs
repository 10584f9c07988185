//! Confirm policies: who has to agree before a tool commits, and that no key can agree with itself.

use odin_tests::{code, refusal, result, value, Farm, Gateway, Key};
use serde_json::{json, Value};

async fn farm(policy: &str) -> (Farm, Key, Gateway) {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.tool_with(
        "act",
        "id int, fails boolean DEFAULT false",
        "write",
        "BEGIN INSERT INTO lab.t VALUES (act.id, 'x'); IF fails AND NOT EXISTS (SELECT 1 FROM lab.t WHERE t.id = -1) THEN RAISE EXCEPTION 'no' USING ERRCODE = '40001'; END IF; RETURN 'done'; END",
        &format!(", confirm => '{policy}'"),
    )
    .await;
    (farm, key, gateway)
}

async fn done(farm: &Farm) -> String {
    farm.text("SELECT count(*) FROM lab.t WHERE id > 0").await
}

#[tokio::test]
async fn none_commits_unless_asked_for_a_preview() {
    let (farm, key, gateway) = farm("none").await;
    assert_eq!(
        result(&gateway.call(&key, "act", json!({"id": 1})).await),
        "done"
    );
    assert_eq!(
        gateway
            .call(&key, "act", json!({"id": 2, "dry_run": true}))
            .await["result"]["dry_run"],
        true
    );
    assert_eq!(
        code(
            &gateway
                .call(&key, "act", json!({"id": 2, "confirm": true}))
                .await
        ),
        "validation_failed",
        "it has no such argument"
    );
    assert_eq!(done(&farm).await, "1");
    farm.finish().await;
}

#[tokio::test]
async fn confirm_previews_unless_confirmed() {
    let (farm, key, gateway) = farm("confirm").await;
    for arguments in [
        json!({"id": 1}),
        json!({"id": 1, "confirm": false}),
        json!({"id": 1, "confirm": true, "dry_run": true}),
    ] {
        let answer = gateway.call(&key, "act", arguments.clone()).await;
        assert_eq!(answer["result"]["dry_run"], true, "{arguments}: {answer}");
        assert_eq!(
            answer["result"]["next_actions"][0]["args"],
            json!({"id": 1, "confirm": true}),
            "{answer}"
        );
    }
    assert_eq!(done(&farm).await, "0");
    assert_eq!(
        result(
            &gateway
                .call(&key, "act", json!({"id": 1, "confirm": true}))
                .await
        ),
        "done"
    );
    assert_eq!(
        result(
            &gateway
                .call_with(&key, "act", json!({"id": 2}), json!({"confirmed": true}))
                .await
        ),
        "done"
    );
    assert_eq!(done(&farm).await, "2");
    farm.finish().await;
}

#[tokio::test]
async fn preview_commits_only_with_a_token() {
    let (farm, key, gateway) = farm("preview").await;
    let refused = gateway.call(&key, "act", json!({"id": 1})).await;
    assert_eq!(
        (code(&refused), refused["error"]["status"].as_i64()),
        ("preview_required", Some(428)),
        "{refused}"
    );
    let token = gateway
        .call(&key, "act", json!({"id": 1, "dry_run": true}))
        .await["result"]["preview_token"]
        .clone();
    assert_eq!(
        code(
            &gateway
                .call(&key, "act", json!({"id": 2, "preview_token": token}))
                .await
        ),
        "preview_stale"
    );
    let commit = json!({"id": 1, "preview_token": token, "idempotency_key": "k"});
    assert_eq!(
        result(&gateway.call(&key, "act", commit.clone()).await),
        "done"
    );
    // A retry after a lost answer is answered again.
    assert_eq!(gateway.call(&key, "act", commit).await["replay"], true);
    assert_eq!(done(&farm).await, "1");
    farm.finish().await;
}

fn request(answer: &Value) -> i64 {
    assert_eq!(code(answer), "approval_required", "{answer}");
    answer["error"]["consent_id"]
        .as_i64()
        .expect("the request's number")
}

#[tokio::test]
async fn human_waits_for_a_person_once_a_call() {
    let (farm, key, gateway) = farm("human").await;
    let first = request(&gateway.call(&key, "act", json!({"id": 1})).await);
    assert_eq!(
        request(&gateway.call(&key, "act", json!({"id": 1})).await),
        first,
        "asking again is the same request"
    );
    assert_ne!(
        request(&gateway.call(&key, "act", json!({"id": 2})).await),
        first
    );
    assert_eq!(
        gateway
            .call(&key, "act", json!({"id": 1, "dry_run": true}))
            .await["result"]["dry_run"],
        true,
        "a preview needs nobody"
    );
    let boss = farm.role("boss", "odin_admin").await;
    let person = farm.client(&boss).await;
    assert!(value::<bool>(&person, &format!("SELECT odin.approve_call({first})")).await);
    assert!(
        refusal(&person, &format!("SELECT odin.approve_call({first})"))
            .await
            .contains("already approved")
    );
    let commit = json!({"id": 1, "idempotency_key": "k"});
    assert_eq!(
        result(&gateway.call(&key, "act", commit.clone()).await),
        "done"
    );
    assert_eq!(
        gateway.call(&key, "act", commit).await["replay"],
        true,
        "a transport retry needs no second approval"
    );
    assert_ne!(
        request(&gateway.call(&key, "act", json!({"id": 1})).await),
        first,
        "an approval is for one call"
    );
    assert_eq!(done(&farm).await, "1");
    farm.finish().await;
}

/// An approval survives a call that failed, is used by exactly one of two at once, and ends with its time.
#[tokio::test]
async fn an_approval_is_used_by_success_only_and_once() {
    let (farm, key, gateway) = farm("human").await;
    let arguments = json!({"id": 1, "fails": true});
    let asked = request(&gateway.call(&key, "act", arguments.clone()).await);
    farm.sql(&format!("SELECT odin.approve_call({asked})"))
        .await;
    assert_eq!(
        code(&gateway.call(&key, "act", arguments.clone()).await),
        "conflict"
    );
    assert_eq!(
        farm.text(&format!(
            "SELECT state FROM odin.consents WHERE id = {asked}"
        ))
        .await,
        "approved"
    );
    farm.sql("INSERT INTO lab.t VALUES (-1, 'mended')").await;
    let other = farm.gateway().await;
    let (a, b) = tokio::join!(
        gateway.call(&key, "act", arguments.clone()),
        other.call(&key, "act", arguments.clone())
    );
    let mut codes = [code(&a), code(&b)];
    codes.sort();
    assert_eq!(codes, ["approval_required", "complete"], "{a} {b}");
    assert_eq!(done(&farm).await, "1");
    let asked = request(&gateway.call(&key, "act", json!({"id": 2})).await);
    farm.sql(&format!("SELECT odin.approve_call({asked}, '1 hour'); UPDATE odin.consents SET expires_at = now() - interval '1 second' WHERE id = {asked}")).await;
    assert_ne!(
        request(&gateway.call(&key, "act", json!({"id": 2})).await),
        asked,
        "an approval past its time is none"
    );
    assert_eq!(
        farm.text(&format!(
            "SELECT state FROM odin.consents WHERE id = {asked}"
        ))
        .await,
        "expired"
    );
    farm.finish().await;
}

#[tokio::test]
async fn denied_is_denied_until_it_expires() {
    let (farm, key, gateway) = farm("human").await;
    let asked = request(&gateway.call(&key, "act", json!({"id": 1})).await);
    farm.sql(&format!("SELECT odin.deny_call({asked}, 'not today')"))
        .await;
    let answer = gateway.call(&key, "act", json!({"id": 1})).await;
    assert_eq!(
        (code(&answer), answer["error"]["retriable"].as_bool()),
        ("approval_denied", Some(false)),
        "{answer}"
    );
    assert!(
        answer["error"]["detail"]
            .as_str()
            .unwrap()
            .contains("not today"),
        "{answer}"
    );
    farm.sql(&format!(
        "UPDATE odin.consents SET expires_at = now() - interval '1 second' WHERE id = {asked}"
    ))
    .await;
    assert_ne!(
        request(&gateway.call(&key, "act", json!({"id": 1})).await),
        asked
    );
    farm.finish().await;
}

/// Two first calls at once ask for one approval.
#[tokio::test]
async fn racing_requests_are_one() {
    let (farm, key, gateway) = farm("human").await;
    let other = farm.gateway().await;
    for id in 1..15 {
        let (a, b) = tokio::join!(
            gateway.call(&key, "act", json!({"id": id})),
            other.call(&key, "act", json!({"id": id}))
        );
        assert_eq!(request(&a), request(&b));
    }
    farm.finish().await;
}

/// No key approves, however wide: not by the function, not by writing the row, not through a tool; nor does a person who is no administrator there.
#[tokio::test]
async fn no_key_approves() {
    let (farm, key, gateway) = farm("human").await;
    let asked = request(&gateway.call(&key, "act", json!({"id": 1})).await);
    let boss = farm.role("boss", "odin_admin").await;
    let wide = farm.mint(&boss, "agent:read,agent:write,admin").await;
    for (name, body) in [
        ("approves", format!("BEGIN RETURN odin.approve_call({asked}); END")),
        ("denies", format!("BEGIN RETURN odin.deny_call({asked}); END")),
        ("writes", "BEGIN UPDATE odin.consents SET state = 'approved', decided_by = 'me'; RETURN 'out'; END".into()),
        ("inserts", "BEGIN INSERT INTO odin.consents(role_name, tool, arguments, arguments_hash, state, decided_by) VALUES ('x', 'act', '{}', '', 'approved', 'me'); RETURN 'out'; END".into()),
        ("decides", format!("BEGIN RETURN odin.gateway_decide('x', {asked}, true, '{{}}'); END")),
        ("decides_inside", format!("BEGIN RETURN odin._decide({asked}, 'approved', 'sql', NULL, '1 hour'); END")),
    ] {
        farm.tool(name, "", "write", &body).await;
        let answer = gateway.call(&wide, name, json!({})).await;
        assert!(matches!(code(&answer), "human_only" | "permission_denied"), "{name}: {answer}");
    }
    let people = [
        farm.role("op2", "odin_operator").await,
        farm.stranger("far", "odin_admin").await,
    ];
    for person in &people {
        let said = refusal(
            &farm.client(person).await,
            &format!("SELECT odin.approve_call({asked})"),
        )
        .await;
        assert!(
            said.starts_with("42501") || said.starts_with("OD005"),
            "{person}: {said}"
        );
    }
    assert_eq!(
        farm.text(&format!(
            "SELECT state FROM odin.consents WHERE id = {asked}"
        ))
        .await,
        "pending"
    );
    // A request of somebody without an org is for a superuser to decide.
    let lost = farm
        .mint(&farm.stranger("lost", "odin_operator").await, "agent:write")
        .await;
    let asked = request(&gateway.call(&lost, "act", json!({"id": 7})).await);
    let said = refusal(
        &farm.client(&boss).await,
        &format!("SELECT odin.approve_call({asked})"),
    )
    .await;
    assert!(said.starts_with("OD005"), "{said}");
    farm.finish().await;
}

/// The request says who asks, why, and what the call would do; the approval is for these arguments, this asker and this time.
#[tokio::test]
async fn an_approval_is_for_one_asker_and_one_set_of_arguments() {
    let (farm, key, gateway) = farm("human").await;
    let arguments = json!({"id": 1, "approval_reason": "the customer asked"});
    let answer = gateway.call(&key, "act", arguments).await;
    let asked = request(&answer);
    assert_eq!(answer["error"]["why"], "the customer asked", "{answer}");
    assert_eq!(
        answer["error"]["would_execute"],
        json!({"action": "act", "id": 1}),
        "{answer}"
    );
    assert_eq!(
        farm.text(&format!("SELECT concat_ws('|', why, preview->'would_execute'->>'action', preview ? 'changes', state, expires_at > now()) FROM odin.consents WHERE id = {asked}"))
            .await,
        "the customer asked|act|t|pending|t"
    );
    assert_eq!(done(&farm).await, "0", "a preview changes nothing");
    // What would fail says so before anybody approves.
    let fails = gateway
        .call(&key, "act", json!({"id": 5, "fails": true}))
        .await;
    assert!(fails["error"]["would_fail"].is_string(), "{fails}");
    farm.sql(&format!("SELECT odin.approve_call({asked}, '20 minutes')"))
        .await;
    assert_eq!(
        farm.text(&format!("SELECT concat_ws('|', decided_by, decided_via, expires_at BETWEEN now() + interval '15 minutes' AND now() + interval '25 minutes') FROM odin.consents WHERE id = {asked}"))
            .await,
        "postgres|sql|t"
    );
    let colleague = farm
        .mint(
            &farm.role("op2", "odin_operator").await,
            "agent:read,agent:write",
        )
        .await;
    let theirs = request(&gateway.call(&colleague, "act", json!({"id": 1})).await);
    let other = request(&gateway.call(&key, "act", json!({"id": 2})).await);
    let with_more = request(
        &gateway
            .call(&key, "act", json!({"id": 1, "fails": true}))
            .await,
    );
    assert!([theirs, other, with_more].iter().all(|id| *id != asked));
    assert_eq!(
        result(&gateway.call(&key, "act", json!({"id": 1})).await),
        "done"
    );
    assert_eq!(
        farm.text(&format!(
            "SELECT state FROM odin.consents WHERE id = {asked}"
        ))
        .await,
        "used"
    );
    request(&gateway.call(&key, "act", json!({"id": 1})).await);
    assert_eq!(done(&farm).await, "1");
    // A denial says by whom, why, until when and what not to do.
    farm.sql(&format!(
        "SELECT odin.deny_call({other}, 'not this one', '2 hours')"
    ))
    .await;
    let told = gateway.call(&key, "act", json!({"id": 2})).await;
    let error = &told["error"];
    assert_eq!(code(&told), "approval_denied", "{told}");
    assert!(
        error["detail"]
            .to_string()
            .contains("postgres denied this call: not this one"),
        "{told}"
    );
    assert!(
        error["hint"].to_string().contains("not retry") && error["denied_until"].is_string(),
        "{told}"
    );
    farm.finish().await;
}
