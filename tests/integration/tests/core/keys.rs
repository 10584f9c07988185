//! Keys: who may mint what, when one ends, what it may not do however wide it is, and where its secret is (nowhere).

use odin_tests::{code, connect, credential, refusal, result, rows, value, Farm, Key};
use serde_json::{json, Value};

/// A farm with a tool of each scope.
pub async fn farm() -> Farm {
    let farm = Farm::new().await;
    farm.tool("reads", "", "read", "BEGIN RETURN current_user; END")
        .await;
    farm.tool("writes", "", "write", "BEGIN RETURN current_user; END")
        .await;
    farm.tool("rules", "", "admin", "BEGIN RETURN current_user; END")
        .await;
    farm
}

#[tokio::test]
async fn scopes_need_the_role_that_goes_with_them() {
    let farm = farm().await;
    // viewer, operator, admin, customer: which scopes each may mint for himself.
    let people = [
        ("v", "odin_viewer", 1),
        ("o", "odin_operator", 2),
        ("a", "odin_admin", 3),
        ("c", "odin_customer", 1),
    ];
    let scopes = [
        ("agent:read", 1),
        ("read", 1),
        ("read:jobs", 1),
        ("agent:write", 2),
        ("write", 2),
        ("write:jobs", 2),
        ("agent:read,write:printers", 2),
        ("admin", 3),
        ("agent:read,agent:write,admin", 3),
    ];
    for (suffix, group, level) in people {
        let role = farm.role(suffix, group).await;
        let person = farm.client(&role).await;
        for (scope, needs) in scopes {
            let mint = format!("SELECT odin.mint_key('k', '{{{scope}}}')");
            if level >= needs {
                person
                    .batch_execute(&mint)
                    .await
                    .unwrap_or_else(|e| panic!("{group} {scope}: {}", odin_tests::said(&e)));
            } else {
                let said = refusal(&person, &mint).await;
                assert!(said.starts_with("OD005"), "{group} {scope}: {said}");
            }
        }
        for bad in ["everything", "admin:jobs", "read:", "WRITE", ""] {
            let said = refusal(&person, &format!("SELECT odin.mint_key('k', '{{{bad}}}')")).await;
            assert!(said.starts_with("OD001"), "{bad}: {said}");
        }
        let said = refusal(&person, "SELECT odin.mint_key('k', expires => '-1 hour')").await;
        assert!(said.starts_with("OD001"), "{said}");
    }
    farm.finish().await;
}

/// Role and scope are stacked: a tool needs both, and the refusal says which was missing.
#[tokio::test]
async fn a_call_needs_role_and_scope() {
    let farm = farm().await;
    farm.sql("REVOKE EXECUTE ON FUNCTION lab.rules FROM odin_viewer, odin_customer; GRANT EXECUTE ON FUNCTION lab.rules TO odin_admin").await;
    let (operator, admin) = (
        farm.role("o", "odin_operator").await,
        farm.role("a", "odin_admin").await,
    );
    let gateway = farm.gateway().await;
    for (role, scopes, tool, meets) in [
        (&operator, "agent:read", "reads", "complete"),
        (&operator, "agent:read", "writes", "scope_denied"),
        (&operator, "agent:write", "reads", "complete"),
        (&operator, "read:general", "reads", "complete"),
        (&operator, "read:jobs", "reads", "scope_denied"),
        (&operator, "write:general", "writes", "complete"),
        (&operator, "write:jobs", "writes", "scope_denied"),
        (&operator, "agent:read,agent:write", "rules", "scope_denied"),
        (&admin, "agent:read,agent:write", "rules", "scope_denied"),
        (&admin, "admin", "rules", "complete"),
    ] {
        let key = farm.mint(role, scopes).await;
        let answer = gateway.call(&key, tool, json!({})).await;
        assert_eq!(code(&answer), meets, "{scopes} {tool}: {answer}");
        if meets == "scope_denied" {
            let token: Vec<&str> = scopes.split(',').collect();
            assert_eq!(answer["error"]["token_scopes"], json!(token), "{answer}");
            assert!(
                answer["error"]["allowed_scopes"]
                    .as_array()
                    .is_some_and(|a| !a.is_empty()),
                "{answer}"
            );
        }
    }
    // The scope is wide enough, the role is not: the missing GRANT is named. A role that loses its group loses the call, whatever its key says.
    let key = farm.mint(&admin, "admin").await;
    farm.sql(&format!(
        "REVOKE odin_admin FROM {admin}; GRANT odin_operator TO {admin}"
    ))
    .await;
    let answer = gateway.call(&key, "rules", json!({})).await;
    assert_eq!(code(&answer), "permission_denied");
    assert!(
        answer["error"]["hint"]
            .as_str()
            .unwrap()
            .contains("GRANT EXECUTE ON FUNCTION lab.rules()"),
        "{answer}"
    );
    farm.finish().await;
}

#[tokio::test]
async fn who_may_mint_for_whom() {
    let farm = farm().await;
    farm.sql("INSERT INTO odin.orgs(name) VALUES ('Second')")
        .await;
    let boss = farm.role("boss", "odin_admin").await;
    let colleague = farm.role("colleague", "odin_operator").await;
    let far = farm.stranger("far", "odin_operator").await;
    farm.sql(&format!("SELECT odin.add_member('{far}', 2)"))
        .await;
    // In both orgs: a key of his would see rows of an org that the boss has nothing to do with.
    let both = farm.stranger("both", "odin_operator").await;
    farm.sql(&format!(
        "SELECT odin.add_member('{both}', 1), odin.add_member('{both}', 2)"
    ))
    .await;
    let (boss, person) = (farm.client(&boss).await, farm.client(&colleague).await);
    boss.batch_execute(&format!(
        "SELECT odin.mint_key('k', role_name => '{colleague}')"
    ))
    .await
    .expect("a colleague's");
    for (who, whose, why) in [
        (&boss, &far, "of another org"),
        (&boss, &both, "of two orgs"),
        (&person, &far, "no administrator"),
        (&person, &format!("{}_boss", farm.name), "no administrator"),
    ] {
        let said = refusal(
            who,
            &format!("SELECT odin.mint_key('k', role_name => '{whose}')"),
        )
        .await;
        assert!(said.starts_with("OD005"), "{why}: {said}");
    }
    let lone = farm.stranger("lone", "odin_operator").await;
    assert!(refusal(
        &boss,
        &format!("SELECT odin.mint_key('k', role_name => '{lone}')")
    )
    .await
    .starts_with("OD005"));
    // Roles that must never own a key or be a member, for a superuser either.
    farm.sql(&format!("CREATE ROLE {0}_super SUPERUSER; CREATE ROLE {0}_bypass BYPASSRLS IN ROLE odin_viewer; CREATE ROLE {0}_maker CREATEROLE IN ROLE odin_viewer; CREATE ROLE {0}_owner IN ROLE odin_owner; CREATE ROLE {0}_none;
        CREATE ROLE {0}_files IN ROLE odin_viewer, pg_execute_server_program; CREATE ROLE {0}_all IN ROLE odin_viewer, pg_read_all_data; CREATE ROLE {0}_door IN ROLE odin_viewer, odin_gateway", farm.name)).await;
    for role in [
        "super", "bypass", "maker", "owner", "none", "files", "all", "door",
    ] {
        for act in [
            "odin.mint_key('k', role_name => '{}')",
            "odin.add_member('{}', 1)",
        ] {
            let said = farm
                .refusal(&format!(
                    "SELECT {}",
                    act.replace("{}", &format!("{}_{role}", farm.name))
                ))
                .await;
            assert!(said.starts_with("OD001"), "{role} {act}: {said}");
        }
    }
    for role in [
        "odin_owner",
        "odin_gateway",
        "odin_worker",
        "pg_monitor",
        "nobody_at_all",
    ] {
        let said = farm
            .refusal(&format!("SELECT odin.mint_key('k', role_name => '{role}')"))
            .await;
        assert!(
            said.starts_with("OD001") || said.starts_with("OD046"),
            "{role}: {said}"
        );
    }
    farm.finish().await;
}

/// A role that became too mighty after its key was minted runs nothing.
#[tokio::test]
async fn a_call_never_runs_with_a_superusers_rights() {
    let farm = farm().await;
    let (role, key, gateway) = farm.operator().await;
    for (up, down) in [("SUPERUSER", "NOSUPERUSER"), ("BYPASSRLS", "NOBYPASSRLS")] {
        farm.sql(&format!("ALTER ROLE {role} {up}")).await;
        for tool in ["reads", "writes"] {
            assert_eq!(
                code(&gateway.call(&key, tool, json!({})).await),
                "permission_denied",
                "{up} {tool}"
            );
        }
        farm.sql(&format!("ALTER ROLE {role} {down}")).await;
        assert_eq!(
            code(&gateway.call(&key, "reads", json!({})).await),
            "complete"
        );
    }
    let said: Value = value(&farm.admin, "SELECT odin.call('reads')").await;
    assert_eq!(said["error"]["code"], "permission_denied", "{said}");
    farm.finish().await;
}

#[tokio::test]
async fn keys_end() {
    let farm = farm().await;
    let role = farm.role("o", "odin_operator").await;
    let gateway = farm.gateway().await;
    let revoked = farm.mint(&role, "agent:read").await;
    let expiring = farm
        .mint_with(&role, "agent:read", ", expires => '1 hour'")
        .await;
    for key in [&revoked, &expiring] {
        assert_eq!(
            code(&gateway.call(key, "reads", json!({})).await),
            "complete"
        );
    }
    // The owner ends his own; it is over with the very next call, on a connection that used it.
    let person = farm.client(&role).await;
    assert!(value::<bool>(&person, &format!("SELECT odin.revoke_key({})", revoked.id)).await);
    assert!(
        !value::<bool>(&person, &format!("SELECT odin.revoke_key({})", revoked.id)).await,
        "a second time it was over already"
    );
    // An hour later.
    farm.sql(&format!(
        "UPDATE odin_private.keys SET expires_at = expires_at - interval '1 hour' WHERE id = {}",
        expiring.id
    ))
    .await;
    for (key, state) in [(&revoked, "revoked"), (&expiring, "expired")] {
        let answer = gateway.call(key, "reads", json!({})).await;
        assert_eq!(
            (code(&answer), answer["error"]["status"].as_i64()),
            ("not_authenticated", Some(401)),
            "{answer}"
        );
        for function in [
            "gateway_authenticate",
            "gateway_tools",
            "gateway_prompts",
            "gateway_resources",
            "gateway_resource_templates",
        ] {
            assert_eq!(
                gateway.ask(function, key, json!({})).await["error"]["code"],
                "not_authenticated",
                "{function}"
            );
        }
        assert_eq!(
            value::<String>(
                &person,
                &format!("SELECT state FROM odin.keys WHERE id = {}", key.id)
            )
            .await,
            state
        );
    }
    // A role that is gone takes its keys with it, a role of the same name does not inherit a shut door but its rights are its own.
    let gone = farm.stranger("gone", "odin_viewer").await;
    let key = farm.mint(&gone, "agent:read").await;
    farm.sql(&format!("DROP ROLE {gone}")).await;
    assert_eq!(
        code(&gateway.call(&key, "reads", json!({})).await),
        "not_authenticated"
    );
    farm.finish().await;
}

#[tokio::test]
async fn rotation_overlaps_and_keeps_the_rights() {
    let farm = farm().await;
    let role = farm.role("o", "odin_operator").await;
    let gateway = farm.gateway().await;
    let old = farm
        .mint_with(
            &role,
            "agent:read",
            ", rate_per_minute => 50, expires => '10 days'",
        )
        .await;
    let row = farm
        .admin
        .query_one(
            "SELECT key, new_key_id FROM odin.rotate_key($1, '1 hour')",
            &[&old.id],
        )
        .await
        .unwrap();
    let secret: String = row.get(0);
    let new = Key {
        id: row.get(1),
        credential: credential(&secret),
        secret,
    };
    for key in [&old, &new] {
        assert_eq!(
            code(&gateway.call(key, "reads", json!({})).await),
            "complete",
            "both are good during the overlap"
        );
        assert_eq!(
            code(&gateway.call(key, "writes", json!({})).await),
            "scope_denied"
        );
    }
    // An hour later.
    farm.sql(&format!(
        "UPDATE odin_private.keys SET expires_at = expires_at - interval '1 hour' WHERE id = {}",
        old.id
    ))
    .await;
    assert_eq!(
        code(&gateway.call(&old, "reads", json!({})).await),
        "not_authenticated"
    );
    assert_eq!(
        code(&gateway.call(&new, "reads", json!({})).await),
        "complete"
    );
    let told = farm.text(&format!("SELECT rate_per_minute || ' ' || (expires_at > now() + interval '9 days') || ' ' || replaces FROM odin_private.keys WHERE id = {}", new.id)).await;
    assert_eq!(told, format!("50 true {}", old.id));
    // Neither a dead key nor lost rights come back by rotation.
    farm.sql(&format!("SELECT odin.revoke_key({})", new.id))
        .await;
    assert!(farm
        .refusal(&format!("SELECT odin.rotate_key({})", new.id))
        .await
        .starts_with("OD001"));
    let wide = farm.mint(&role, "agent:write").await;
    farm.sql(&format!(
        "REVOKE odin_operator FROM {role}; GRANT odin_viewer TO {role}"
    ))
    .await;
    assert!(farm
        .refusal(&format!("SELECT odin.rotate_key({})", wide.id))
        .await
        .starts_with("OD005"));
    assert!(farm
        .refusal("SELECT odin.rotate_key(999999)")
        .await
        .starts_with("OD002"));
    farm.finish().await;
}

#[tokio::test]
async fn addresses_are_checked() {
    let farm = farm().await;
    let role = farm.role("o", "odin_operator").await;
    let gateway = farm.gateway().await;
    let key = farm
        .mint_with(
            &role,
            "agent:read",
            ", allowed_ips => '{10.1.0.0/16, 2001:db8::/32}'",
        )
        .await;
    for (ip, meets) in [
        (json!("10.1.2.3"), "complete"),
        (json!("2001:db8::7"), "complete"),
        (json!("10.2.0.1"), "not_authenticated"),
        (json!("::ffff:10.1.2.3"), "not_authenticated"),
        (json!(null), "not_authenticated"),
    ] {
        let answer = gateway
            .call_with(&key, "reads", json!({}), json!({ "ip": ip }))
            .await;
        assert_eq!(code(&answer), meets, "{ip}: {answer}");
    }
    farm.finish().await;
}

/// Limits by the minute, of the key and of a tool; calls of other tools do not hide the tool's own, and waiting retry_after is enough.
#[tokio::test]
async fn rates_are_limited() {
    let farm = farm().await;
    let role = farm.role("o", "odin_operator").await;
    let gateway = farm.gateway().await;
    let key = farm
        .mint_with(&role, "agent:read", ", rate_per_minute => 3")
        .await;
    let mut codes = Vec::new();
    for _ in 0..5 {
        codes.push(code(&gateway.call(&key, "reads", json!({})).await).to_owned());
    }
    assert_eq!(
        codes,
        [
            "complete",
            "complete",
            "complete",
            "rate_limited",
            "rate_limited"
        ]
    );
    let answer = gateway.call(&key, "reads", json!({})).await;
    let wait = answer["error"]["retry_after"].as_i64().unwrap();
    assert!(
        (1..=60).contains(&wait)
            && answer["error"]["status"] == 429
            && answer["error"]["retriable"] == true,
        "{answer}"
    );
    // When the oldest of them is older than a minute there is room for one. The trail is append-only, so a partition's trigger is put aside for it.
    farm.sql(
        "SET session_replication_role = replica; ALTER TABLE odin.audit_calls DISABLE TRIGGER append_only;
         UPDATE odin.audit_calls SET called_at = called_at - interval '61 seconds' WHERE id = (SELECT min(id) FROM odin.audit_calls WHERE tool = 'reads'); RESET session_replication_role",
    )
    .await;
    assert_eq!(
        code(&gateway.call(&key, "reads", json!({})).await),
        "complete"
    );
    assert_eq!(
        code(&gateway.call(&key, "reads", json!({})).await),
        "rate_limited"
    );
    let other = farm.mint(&role, "agent:read").await;
    assert_eq!(
        code(&gateway.call(&other, "reads", json!({})).await),
        "complete",
        "another key has its own"
    );
    farm.tool_with(
        "rare",
        "",
        "read",
        "BEGIN RETURN 'in'; END",
        ", rate_per_minute => 2",
    )
    .await;
    for tool in [
        "rare", "rare", "reads", "reads", "reads", "reads", "reads", "reads",
    ] {
        assert_eq!(
            code(&gateway.call(&other, tool, json!({})).await),
            "complete",
            "{tool}"
        );
    }
    assert_eq!(
        code(&gateway.call(&other, "rare", json!({})).await),
        "rate_limited",
        "other calls hid the tool's own"
    );
    farm.finish().await;
}

/// The secret is in no table, no message and no log, and what is stored opens nothing.
#[tokio::test]
async fn the_secret_is_nowhere() {
    let farm = farm().await;
    let (role, _, _) = farm.operator().await;
    farm.sql(&format!("ALTER DATABASE {} SET log_statement = 'all'; ALTER DATABASE {0} SET log_min_duration_statement = 0; ALTER DATABASE {0} SET log_parameter_max_length = -1", farm.name)).await;
    let admin = connect(&farm.name, "postgres").await;
    let secret: String = value(&admin, &format!("SELECT key FROM odin.mint_key('logged', '{{agent:read,agent:write}}', role_name => '{role}')")).await;
    assert!(
        secret.starts_with("odin_") && secret.len() >= 5 + 64,
        "{secret}"
    );
    let key = Key {
        id: 0,
        credential: credential(&secret),
        secret: secret.clone(),
    };
    let gateway = farm.gateway().await;
    for tool in ["reads", "writes", "nothing"] {
        gateway.call(&key, tool, json!({})).await;
    }
    gateway.ask("gateway_authenticate", &key, json!({})).await;
    gateway.ask("gateway_tools", &key, json!({})).await;
    // The prefix that is kept to tell keys apart is all there is of it.
    for table in rows::<String>(&farm.admin, "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace::regnamespace::text !~ '^pg_'").await {
        let n: i64 = farm.value(&format!("SELECT count(*) FROM {table} x WHERE x::text LIKE '%{}%' OR x::text LIKE '%{}%'", &secret[12..], key.credential)).await;
        assert_eq!(n, 0, "{table} holds it");
    }
    // Bytes: what another test has half written is no text yet.
    let log = "pg_read_binary_file(current_setting('data_directory') || '/log')";
    let found: bool = farm
        .value(&format!(
            "SELECT position('{}'::bytea IN {log}) > 0",
            &secret[5..]
        ))
        .await;
    assert!(!found, "the server log holds the secret");
    let logged: bool = farm
        .value(&format!(
            "SELECT position('{}'::bytea IN {log}) > 0",
            farm.name
        ))
        .await;
    assert!(logged, "the control: nothing of this farm was logged");
    // Neither the table's hash nor its hex opens anything; nor does the secret itself in place of its hash.
    let stored: String = farm
        .value("SELECT encode(hash, 'hex') FROM odin_private.keys WHERE name = 'logged'")
        .await;
    for attempt in [
        stored,
        secret,
        key.credential.to_uppercase(),
        String::new(),
        "0".repeat(64),
    ] {
        let forged = Key {
            credential: attempt.clone(),
            ..key.clone()
        };
        assert_eq!(
            code(&gateway.call(&forged, "reads", json!({})).await),
            "not_authenticated",
            "{attempt}"
        );
    }
    assert_eq!(
        result(&gateway.call(&key, "reads", json!({})).await),
        &json!(role),
        "the control"
    );
    farm.finish().await;
}

/// Refused keys are counted by minute and address, never a row each, and are not in the trail.
#[tokio::test]
async fn failed_logins_are_counted() {
    let farm = farm().await;
    let gateway = farm.gateway().await;
    let nobody = Key {
        id: 0,
        secret: String::new(),
        credential: "ab".repeat(32),
    };
    for i in 0..40 {
        let ip = ["10.0.0.1".into(), format!("2001:db8:0:1::{i:x}")][i % 2].clone();
        assert_eq!(
            code(
                &gateway
                    .call_with(&nobody, "reads", json!({}), json!({ "ip": ip }))
                    .await
            ),
            "not_authenticated"
        );
    }
    gateway.call(&nobody, "reads", json!({})).await;
    assert_eq!(
        farm.text("SELECT sum(attempts) FROM odin.login_failures")
            .await,
        "41"
    );
    // At most one row an address and minute; all of an IPv6 network is one address.
    assert_eq!(
        farm.text(
            "SELECT string_agg(DISTINCT host(ip), ' ' ORDER BY host(ip)) FROM odin.login_failures"
        )
        .await,
        "0.0.0.0 10.0.0.1 2001:db8:0:1::"
    );
    assert_eq!(
        farm.text("SELECT count(*) FROM odin.audit_calls").await,
        "0"
    );
    farm.finish().await;
}
