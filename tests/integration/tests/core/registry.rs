//! The registry: who is shown what, names and aliases, functions that change or vanish, and a database of another version.

use odin_tests::{code, result, rows, Farm, Gateway, Key};
use serde_json::{json, Value};

fn listed(answer: &Value) -> Vec<String> {
    let tools = answer["tools"]
        .as_array()
        .unwrap_or_else(|| panic!("{answer}"));
    tools
        .iter()
        .map(|t| t["name"].as_str().unwrap().to_owned())
        .collect()
}

async fn names(gateway: &Gateway, key: &Key) -> Vec<String> {
    listed(&gateway.ask("gateway_tools", key, json!({})).await)
        .into_iter()
        .filter(|n| n.starts_with("lab_"))
        .collect()
}

#[tokio::test]
async fn listing_is_by_role_scope_and_toolset() {
    let farm = Farm::new().await;
    for (name, scope, group) in [
        ("lab_read", "read", "odin_viewer"),
        ("lab_write", "write", "odin_operator"),
        ("lab_rule", "admin", "odin_admin"),
        ("lab_customer", "read", "odin_customer"),
    ] {
        farm.tool(name, "", scope, "BEGIN RETURN 'in'; END").await;
        farm.sql(&format!("REVOKE EXECUTE ON FUNCTION lab.{name} FROM odin_viewer, odin_customer; GRANT EXECUTE ON FUNCTION lab.{name} TO {group}")).await;
    }
    farm.sql("INSERT INTO odin.toolsets VALUES ('hidden', 'Not listed.', false)")
        .await;
    farm.tool_with(
        "lab_hidden",
        "",
        "read",
        "BEGIN RETURN 'in'; END",
        ", toolset => 'hidden', area => 'quiet'",
    )
    .await;
    let gateway = farm.gateway().await;
    let mut all = Vec::new();
    for (suffix, group, scopes, sees) in [
        ("v", "odin_viewer", "agent:read", &["lab_read"][..]),
        ("o", "odin_operator", "agent:read", &["lab_read"]),
        (
            "o2",
            "odin_operator",
            "agent:read,agent:write",
            &["lab_read", "lab_write"],
        ),
        ("o3", "odin_operator", "read:quiet", &[]),
        (
            "a",
            "odin_admin",
            "agent:read,agent:write",
            &["lab_read", "lab_write"],
        ),
        (
            "a2",
            "odin_admin",
            "agent:read,agent:write,admin",
            &["lab_read", "lab_rule", "lab_write"],
        ),
        ("c", "odin_customer", "agent:read", &["lab_customer"]),
    ] {
        let role = farm.role(suffix, group).await;
        let key = farm.mint(&role, scopes).await;
        assert_eq!(names(&gateway, &key).await, sees, "{group} {scopes}");
        // What is listed can be called, what is not cannot: the two lists are one rule.
        for name in ["lab_read", "lab_write", "lab_rule", "lab_customer"] {
            let can = code(&gateway.call(&key, name, json!({})).await) == "complete";
            assert_eq!(can, sees.contains(&name), "{group} {scopes} {name}");
        }
        all.push(key);
    }
    let (viewer, writer) = (&all[0], &all[2]);
    let ask = |key, options| gateway.ask("gateway_tools", key, options);
    assert!(
        listed(&ask(viewer, json!({"toolsets": ["hidden"]})).await).contains(&"lab_hidden".into())
    );
    assert!(
        !listed(&ask(viewer, json!({"toolsets": ["hidden"]})).await).contains(&"lab_read".into())
    );
    assert!(listed(&ask(viewer, json!({"all": true})).await).contains(&"lab_hidden".into()));
    assert!(!listed(&ask(writer, json!({"readonly": true})).await).contains(&"lab_write".into()));
    assert_eq!(
        code(
            &gateway
                .call_with(writer, "lab_write", json!({}), json!({"readonly": true}))
                .await
        ),
        "scope_denied"
    );
    // A hidden tool can be found and called.
    let found = gateway
        .call(viewer, "search_tools", json!({"query": "lab hidden"}))
        .await;
    assert_eq!(found["result"]["tools"][0]["name"], "lab_hidden", "{found}");
    assert_eq!(
        code(
            &gateway
                .call(viewer, "call_tool", json!({"name": "lab_hidden"}))
                .await
        ),
        "complete"
    );
    // The same list, byte for byte and in the order of the names, from any connection.
    let first = ask(writer, json!({"all": true})).await;
    let mut sorted = listed(&first);
    sorted.sort();
    assert_eq!(listed(&first), sorted);
    farm.sql("REINDEX TABLE odin.tools; SET session_replication_role = replica; UPDATE odin.tools SET version = version WHERE id % 2 = 0; RESET session_replication_role")
        .await;
    assert_eq!(
        farm.gateway()
            .await
            .ask("gateway_tools", writer, json!({"all": true}))
            .await
            .to_string(),
        first.to_string()
    );
    farm.finish().await;
}

/// What strict clients ask of every tool the farm brings, and of every other name in the registry.
#[tokio::test]
async fn every_tool_is_acceptable_to_strict_clients() {
    let farm = Farm::new().await;
    let tools: Vec<Value> = rows(
        &farm.admin,
        "SELECT listing FROM odin.tools WHERE kind = 'tool'",
    )
    .await;
    assert!(tools.len() > 20, "{}", tools.len());
    for tool in tools {
        let name = tool["name"].as_str().unwrap();
        assert!(
            name.len() <= 64
                && name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-'),
            "{name}"
        );
        let schema = &tool["inputSchema"];
        assert_eq!(
            (&schema["type"], &schema["additionalProperties"]),
            (&json!("object"), &json!(false)),
            "{name}"
        );
        let properties = schema["properties"].as_object().unwrap();
        for required in schema["required"].as_array().into_iter().flatten() {
            assert!(
                properties.contains_key(required.as_str().unwrap()),
                "{name}: {required} is required and no property"
            );
        }
        for (argument, property) in properties {
            assert!(
                ["type", "enum", "anyOf", "oneOf", "$ref", "const"]
                    .iter()
                    .any(|k| property.get(k).is_some()),
                "{name}.{argument} has no type: {property}"
            );
        }
        assert!(
            tool["description"].as_str().is_some_and(|d| d.len() > 10),
            "{name} is not described"
        );
        for hint in [
            "readOnlyHint",
            "destructiveHint",
            "idempotentHint",
            "openWorldHint",
        ] {
            assert!(tool["annotations"][hint].is_boolean(), "{name} {hint}");
        }
        if let Some(output) = tool.get("outputSchema") {
            assert_eq!(output["type"], "object", "{name}");
        }
    }
    let writing: Vec<String> = rows(&farm.admin, "SELECT name FROM odin.tools WHERE NOT read_only AND (listing#>>'{annotations,readOnlyHint}')::boolean").await;
    assert_eq!(writing, Vec::<String>::new(), "they say they only read");
    farm.finish().await;
}

#[tokio::test]
async fn tools_follow_their_functions() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    let listener = farm.client("postgres").await;
    listener
        .batch_execute("LISTEN odin_registry")
        .await
        .unwrap();
    farm.tool("lab_a", "n int", "read", "BEGIN RETURN 'one ' || n; END")
        .await;
    farm.tool("lab_b", "", "read", "BEGIN RETURN 'b'; END")
        .await;
    let sync = || async {
        rows::<String>(
            &farm.admin,
            "SELECT tool || ' ' || split_part(change, ':', 1) FROM odin.sync_tools() ORDER BY 1",
        )
        .await
    };
    let version = || async {
        farm.value::<i64>("SELECT registry_version FROM odin.instance")
            .await
    };
    assert_eq!(
        sync().await,
        Vec::<String>::new(),
        "nothing changed, nothing is said"
    );
    let before = version().await;
    assert_eq!(sync().await, Vec::<String>::new());
    assert_eq!(version().await, before);
    // Another body is no change; another comment is; another signature is, and the old arguments are refused with the new names.
    farm.sql("CREATE OR REPLACE FUNCTION lab.lab_a(n int) RETURNS text LANGUAGE sql AS $$ SELECT 'two ' || n $$").await;
    assert_eq!(sync().await, Vec::<String>::new());
    assert_eq!(
        result(&gateway.call(&key, "lab_a", json!({"n": 1})).await),
        "two 1"
    );
    farm.sql("DROP FUNCTION lab.lab_a; CREATE FUNCTION lab.lab_a(n int, more text DEFAULT 'm') RETURNS text LANGUAGE sql AS $$ SELECT n || more $$; GRANT EXECUTE ON FUNCTION lab.lab_a TO odin_viewer").await;
    assert_eq!(
        sync().await,
        ["lab_a deactivated"],
        "the signature it was registered with is gone"
    );
    let gone = gateway.call(&key, "lab_a", json!({"n": 1})).await;
    assert_eq!(code(&gone), "tool_not_found");
    assert!(
        gone["error"]["hint"]
            .as_str()
            .unwrap()
            .contains("there is no lab.lab_a(integer)"),
        "{gone}"
    );
    assert_eq!(names(&gateway, &key).await, ["lab_b"]);
    farm.sql("SELECT odin.register_tool('lab.lab_a', description => 'A tool of the test.')")
        .await;
    assert_eq!(
        result(&gateway.call(&key, "lab_a", json!({"n": 1})).await),
        "1m"
    );
    farm.sql("DROP FUNCTION lab.lab_b").await;
    // Before anybody synced: the list is whole for everybody else, and the call says what to do.
    assert_eq!(names(&gateway, &key).await, ["lab_a"]);
    assert_eq!(
        code(&gateway.call(&key, "lab_b", json!({})).await),
        "tool_not_found"
    );
    assert_eq!(sync().await, ["lab_b deactivated"]);
    farm.sql("CREATE FUNCTION lab.lab_b() RETURNS text LANGUAGE sql AS $$ SELECT 'again' $$; GRANT EXECUTE ON FUNCTION lab.lab_b TO odin_viewer").await;
    assert_eq!(sync().await, ["lab_b activated"]);
    assert_eq!(
        result(&gateway.call(&key, "lab_b", json!({})).await),
        "again"
    );
    farm.sql("ALTER FUNCTION lab.lab_b() RENAME TO lab_c").await;
    assert_eq!(sync().await, ["lab_b deactivated"]);
    assert!(version().await > before);
    // A type in a signature, and its schema, dropped together with the function.
    farm.sql("CREATE SCHEMA lab2; GRANT USAGE ON SCHEMA lab2 TO odin_viewer; CREATE TYPE lab2.size AS ENUM ('s', 'm'); CREATE FUNCTION lab2.lab_d(x lab2.size) RETURNS text LANGUAGE sql AS $$ SELECT x::text $$;
        GRANT EXECUTE ON FUNCTION lab2.lab_d TO odin_viewer; SELECT odin.register_tool('lab2.lab_d', description => 'A tool of the test.')").await;
    assert_eq!(
        result(&gateway.call(&key, "lab_d", json!({"x": "m"})).await),
        "m"
    );
    farm.sql("DROP SCHEMA lab2 CASCADE").await;
    assert_eq!(names(&gateway, &key).await, ["lab_a"]);
    assert_eq!(
        code(&gateway.call(&key, "lab_d", json!({"x": "m"})).await),
        "tool_not_found"
    );
    assert_eq!(sync().await, ["lab_d deactivated"]);
    assert_eq!(
        farm.text(
            "SELECT string_agg(act, ' ' ORDER BY id) FROM odin.registry_log WHERE tool = 'lab_b'"
        )
        .await,
        "registered deactivated activated deactivated"
    );
    assert!(
        farm.value::<bool>("SELECT odin.unregister_tool('lab_d')")
            .await
    );
    assert!(
        !farm
            .value::<bool>("SELECT odin.unregister_tool('lab_d')")
            .await
    );
    farm.finish().await;
}

/// Argument and tool names: aliases lead to the one name, unknown ones to the nearest.
#[tokio::test]
async fn names_are_forgiving_and_exact() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.tool_with("lab_long_name", "quantity int, status text DEFAULT NULL", "read", "BEGIN RETURN quantity || coalesce(status, ''); END",
        r#", aliases => '{shop.long, longname}', arguments => '{"quantity": {"minimum": 1, "maximum": 9, "aliases": ["copies"]}, "status": {"enum": ["idle", "busy"]}}'"#).await;
    for (tool, arguments) in [
        ("lab_long_name", json!({"quantity": 3})),
        ("shop.long", json!({"copies": 3})),
        ("longname", json!({"copies": "3", "quantity": 3})),
        (
            "call_tool",
            json!({"name": "longname", "arguments": "{\"copies\": 3}"}),
        ),
    ] {
        assert_eq!(
            result(&gateway.call(&key, tool, arguments).await),
            "3",
            "{tool}"
        );
    }
    assert_eq!(
        farm.text("SELECT string_agg(DISTINCT tool, ' ') FROM odin.audit_calls")
            .await,
        "lab_long_name"
    );
    assert_eq!(
        names(&gateway, &key).await,
        ["lab_long_name"],
        "aliases are not listed"
    );
    for (tool, arguments, says) in [
        ("lab_long_nam", json!({}), "Did you mean lab_long_name?"),
        (
            "lab_long_name",
            json!({"quantiy": 3}),
            "did you mean quantity?",
        ),
        (
            "lab_long_name",
            json!({"quantity": 0}),
            "less than the minimum of 1",
        ),
        (
            "lab_long_name",
            json!({"quantity": 10}),
            "more than the maximum of 9",
        ),
        (
            "lab_long_name",
            json!({"quantity": 1.5}),
            "is not an integer",
        ),
        (
            "lab_long_name",
            json!({"quantity": 1, "status": "buzy"}),
            "did you mean busy?",
        ),
        (
            "lab_long_name",
            json!({"quantity": 1, "copies": 2}),
            "different values",
        ),
        ("lab_long_name", json!({}), "quantity: is required"),
        ("lab_long_name", json!([1]), "must be an object"),
        (
            "lab_long_name",
            json!({"quantity": 1, "dry_run": true}),
            "no such argument",
        ),
    ] {
        let answer = gateway.call(&key, tool, arguments.clone()).await;
        assert!(
            matches!(code(&answer), "validation_failed" | "tool_not_found"),
            "{arguments}: {answer}"
        );
        assert!(
            answer["error"].to_string().contains(says),
            "{arguments}: {answer}"
        );
    }
    // Null for an optional argument is leaving it out.
    assert_eq!(
        result(
            &gateway
                .call(
                    &key,
                    "lab_long_name",
                    json!({"quantity": 1, "status": null})
                )
                .await
        ),
        "1"
    );
    farm.finish().await;
}

/// Tables of another version than the code are refused by every face, and the reason is not a puzzle.
#[tokio::test]
async fn another_schema_version_is_refused() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.tool(
        "lab_a",
        "",
        "write",
        "BEGIN INSERT INTO lab.t VALUES (1, 'x'); RETURN 'in'; END",
    )
    .await;
    farm.sql("UPDATE odin.instance SET schema_version = '0.0.1'")
        .await;
    let answer = gateway.call(&key, "lab_a", json!({})).await;
    assert_eq!(
        (code(&answer), answer["error"]["status"].as_i64()),
        ("schema_outdated", Some(503)),
        "{answer}"
    );
    assert!(
        answer["error"]["detail"]
            .as_str()
            .unwrap()
            .contains("0.0.1")
            && answer["error"]["hint"]
                .as_str()
                .unwrap()
                .contains("ALTER EXTENSION"),
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
            gateway.ask(function, &key, json!({})).await["error"]["code"],
            "schema_outdated",
            "{function}"
        );
    }
    assert_eq!(farm.text("SELECT count(*) FROM lab.t").await, "0");
    let version: Value = odin_tests::value(&gateway.client, "SELECT odin.gateway_version()").await;
    assert_ne!(
        version["version"], version["schema_version"],
        "readiness can see it"
    );
    farm.finish().await;
}

/// A backend remembers tools; whoever changes one, by whatever way, is obeyed by its next call. What was never committed is not remembered.
#[tokio::test]
async fn a_remembered_tool_is_looked_up_again() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.tool("kept", "", "read", "BEGIN RETURN 'first'; END")
        .await;
    let said = |answer: Value| match answer["error"]["code"].as_str() {
        Some(code) => code.to_owned(),
        None => answer["result"]["result"].to_string(),
    };
    let kept = || gateway.call(&key, "kept", json!({}));
    assert_eq!(said(kept().await), "\"first\"");
    farm.tool("kept", "", "read", "BEGIN RETURN 'second'; END")
        .await;
    assert_eq!(said(kept().await), "\"second\"");
    farm.sql(
        "UPDATE odin.tools SET active = false, inactive_reason = 'put away' WHERE name = 'kept'",
    )
    .await;
    assert_eq!(said(kept().await), "tool_not_found");
    farm.sql("UPDATE odin.tools SET active = true, scope = 'admin' WHERE name = 'kept'")
        .await;
    assert_eq!(said(kept().await), "scope_denied");
    farm.sql("UPDATE odin.tools SET scope = 'read' WHERE name = 'kept'; INSERT INTO odin.tool_aliases SELECT 'once_kept', id FROM odin.tools WHERE name = 'kept'")
        .await;
    let alias = || gateway.call(&key, "once_kept", json!({}));
    assert_eq!(said(alias().await), "\"second\"");
    farm.sql("DELETE FROM odin.tool_aliases WHERE alias = 'once_kept'")
        .await;
    assert_eq!(said(alias().await), "tool_not_found");
    farm.sql("BEGIN; UPDATE odin.tools SET active = false WHERE name = 'kept'; ROLLBACK; UPDATE odin.tools SET timeout_ms = 60000 WHERE name = 'kept'")
        .await;
    assert_eq!(said(kept().await), "\"second\"");
    farm.sql("DROP FUNCTION lab.kept()").await;
    assert_eq!(said(kept().await), "tool_not_found");
    farm.finish().await;
}
