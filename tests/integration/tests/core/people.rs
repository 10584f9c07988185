//! What is for people and no key, and which keys people are shown.

use crate::keys::farm;
use odin_tests::{code, refusal, rows, value};
use serde_json::json;

/// What only a person may do, by every route that a key of an administrator with every scope has.
#[tokio::test]
async fn no_key_does_what_only_people_may() {
    let farm = farm().await;
    let boss = farm.role("boss", "odin_admin").await;
    let key = farm.mint(&boss, "agent:read,agent:write,admin").await;
    let gateway = farm.gateway().await;
    let acts = [
        "PERFORM odin.mint_key('k')",
        "PERFORM odin.mint_key('k', '{admin}', NULL)",
        "PERFORM odin.revoke_key(1)",
        "PERFORM odin.rotate_key(1)",
        "PERFORM odin.add_member(current_user, 1)",
        "PERFORM odin.remove_member(current_user, 1)",
        "PERFORM odin.apply_access()",
        "PERFORM odin.register_tool('lab.reads')",
        "PERFORM odin.register_prompt('lab.reads')",
        "PERFORM odin.register_resource('odin://x', 'lab.reads')",
        "PERFORM odin.unregister_tool('reads')",
        "PERFORM odin.sync_tools()",
        "PERFORM odin.approve_call(1)",
        "PERFORM odin.deny_call(1)",
        "PERFORM odin.retire_audit('2000-01-01')",
        "PERFORM odin.demo_org()",
        "PERFORM odin.install()",
        "INSERT INTO odin.members(role_name, org_id) VALUES (current_user, 1)",
        "UPDATE odin.members SET org_id = 1",
        "DELETE FROM odin.members",
        "INSERT INTO odin.access_rules(name, kind, operations, filter) VALUES ('x', 'permission', 'crud', 'true')",
        "UPDATE odin.access_rules SET filter = 'true'",
        "INSERT INTO odin_private.keys(name) VALUES ('x')",
        "UPDATE odin_private.keys SET revoked_at = NULL",
        "UPDATE odin.tools SET scope = 'read'",
        "INSERT INTO odin.toolsets VALUES ('x', 'x')",
        "INSERT INTO odin.tool_aliases VALUES ('x', 1)",
        "UPDATE odin.guarded_tables SET trail = false",
        "UPDATE odin.instance SET schema_version = 'x'",
        "UPDATE odin.error_codes SET status = 500",
        "ALTER TABLE odin.jobs DISABLE ROW LEVEL SECURITY",
        "DROP POLICY odin_staff_all ON odin.jobs",
        "CREATE POLICY x ON odin.jobs USING (true)",
        "ALTER TABLE odin.audit_calls DISABLE TRIGGER append_only",
        "DROP TRIGGER humans_only ON odin.members",
        "CREATE ROLE evil",
        "GRANT odin_admin TO odin_viewer",
        "DROP EXTENSION odin_farm",
        "CHECKPOINT",
    ];
    let before: (String, i64) = (
        farm.text("SELECT jsonb_agg(to_jsonb(m) ORDER BY m.id) FROM odin.members m")
            .await,
        farm.value("SELECT count(*) FROM pg_policy").await,
    );
    for act in acts {
        for scope in ["write", "admin"] {
            farm.tool("act", "", scope, &format!("BEGIN {act}; RETURN 'out'; END"))
                .await;
            let answer = gateway.call(&key, "act", json!({})).await;
            assert!(
                matches!(code(&answer), "human_only" | "permission_denied"),
                "{act}: {answer}"
            );
        }
    }
    // The sidecar's own functions are no way round either: its login has none of these.
    for function in [
        "mint_key('k')",
        "add_member('x', 1)",
        "apply_access()",
        "approve_call(1)",
        "sync_tools()",
        "retire_audit('2000-01-01')",
    ] {
        for login in ["odin_gateway", "odin_worker"] {
            let said = refusal(
                &farm.client(login).await,
                &format!("SELECT odin.{function}"),
            )
            .await;
            assert!(said.starts_with("42501"), "{login} {function}: {said}");
        }
    }
    let after = (
        farm.text("SELECT jsonb_agg(to_jsonb(m) ORDER BY m.id) FROM odin.members m")
            .await,
        farm.value("SELECT count(*) FROM pg_policy").await,
    );
    assert_eq!(before, after);
    assert_eq!(
        farm.text("SELECT count(*) FROM odin_private.keys").await,
        "1"
    );
    // The control: the person behind the key may.
    farm.client(&boss)
        .await
        .batch_execute(&format!(
            "SELECT odin.mint_key('k'), odin.add_member('{boss}', 1)"
        ))
        .await
        .unwrap();
    farm.finish().await;
}

/// Everybody sees his own keys, administrators those of their org, nobody a secret.
#[tokio::test]
async fn keys_are_listed_to_those_they_concern() {
    let farm = farm().await;
    let (boss, op) = (
        farm.role("boss", "odin_admin").await,
        farm.role("op", "odin_operator").await,
    );
    let far = farm.stranger("far", "odin_admin").await;
    farm.sql(&format!(
        "INSERT INTO odin.orgs(name) VALUES ('Second'); SELECT odin.add_member('{far}', 2)"
    ))
    .await;
    for role in [&boss, &op, &far] {
        farm.mint(role, "agent:read").await;
    }
    for (who, sees) in [
        (&boss, vec![&boss, &op]),
        (&op, vec![&op]),
        (&far, vec![&far]),
    ] {
        let seen: Vec<String> = rows(
            &farm.client(who).await,
            "SELECT role_name FROM odin.keys ORDER BY id",
        )
        .await;
        assert_eq!(seen.iter().collect::<Vec<_>>(), sees, "{who}");
    }
    let key = farm.mint(&op, "agent:read").await;
    let gateway = farm.gateway().await;
    gateway.call(&key, "reads", json!({})).await;
    let used: bool = value(
        &farm.client(&op).await,
        &format!(
            "SELECT last_used_at > now() - interval '1 minute' FROM odin.keys WHERE id = {}",
            key.id
        ),
    )
    .await;
    assert!(used);
    farm.finish().await;
}
