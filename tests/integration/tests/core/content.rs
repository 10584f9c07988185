//! Prompts, resources and completions: made from functions, run as the caller, refused to whom the function is not granted.

use odin_tests::{Farm, Gateway, Key};
use serde_json::{json, Value};

async fn farm() -> (Farm, Key, Gateway) {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.sql(
        r#"CREATE FUNCTION lab.greet(who text, tone text DEFAULT 'plain') RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'Hello ' || who || ', ' || tone || ', from ' || current_user $$;
        CREATE FUNCTION lab.talk() RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT '[{"role": "user", "content": {"type": "text", "text": "a"}}, {"role": "assistant", "content": {"type": "text", "text": "b"}}]'::jsonb $$;
        CREATE FUNCTION lab.plain() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'some text'::text $$;
        CREATE FUNCTION lab.one(id int) RETURNS jsonb LANGUAGE sql STABLE AS $$ SELECT CASE WHEN id < 100 THEN jsonb_build_object('id', id, 'by', current_user) END $$;
        CREATE FUNCTION lab.file(name text, part text) RETURNS bytea LANGUAGE sql STABLE AS $$ SELECT convert_to(part || ':' || name, 'UTF8') $$;
        CREATE FUNCTION lab.writes() RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO lab.t VALUES (1, 'x'); RETURN 'in'; END $$;
        CREATE FUNCTION lab.secret() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'hush'::text $$;
        CREATE FUNCTION lab.people(beginning text) RETURNS SETOF text LANGUAGE sql STABLE AS $$ SELECT n FROM unnest(ARRAY['Ann', 'Abe', 'Zoe', current_user::text]) n WHERE starts_with(n, beginning) $$;
        REVOKE ALL ON ALL FUNCTIONS IN SCHEMA lab FROM PUBLIC; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA lab TO odin_viewer; REVOKE EXECUTE ON FUNCTION lab.secret FROM odin_viewer;
        SELECT odin.register_prompt('lab.greet', description => 'Greets.', arguments => '{"who": {"x-complete": "lab.people"}, "tone": {"enum": ["plain", "warm", "wry"]}}');
        SELECT odin.register_prompt('lab.talk', description => 'Talks.'), odin.register_prompt('lab.secret', name => 'secret_prompt', description => 'Hidden.'), odin.register_prompt('lab.writes', name => 'writing_prompt', description => 'Writes.');
        SELECT odin.register_resource('odin://lab/plain', 'lab.plain', description => 'Text.', mime_type => 'text/plain'), odin.register_resource('odin://lab/one/{id}', 'lab.one', description => 'One.'),
          odin.register_resource('odin://lab/file/{name}/{part}', 'lab.file', description => 'Bytes.', mime_type => 'application/octet-stream'), odin.register_resource('odin://lab/writes', 'lab.writes', description => 'Writes.'),
          odin.register_resource('odin://lab/secret', 'lab.secret', description => 'Hidden.'), odin.register_resource('odin://lab/one/first.(x)+?', 'lab.plain', name => 'odd', description => 'Its address looks like a pattern.')"#,
    )
    .await;
    (farm, key, gateway)
}

async fn read(gateway: &Gateway, key: &Key, uri: &str) -> Value {
    let row = gateway
        .client
        .query_one(
            "SELECT odin.gateway_resource_read($1, $2, '{}')",
            &[&key.credential, &uri],
        )
        .await;
    row.unwrap_or_else(|e| panic!("{uri}: {}", odin_tests::said(&e)))
        .get(0)
}

async fn prompt(gateway: &Gateway, key: &Key, name: &str, arguments: Value) -> Value {
    let row = gateway
        .client
        .query_one(
            "SELECT odin.gateway_prompt_get($1, $2, $3, '{}')",
            &[&key.credential, &name, &arguments],
        )
        .await;
    row.unwrap_or_else(|e| panic!("{name}: {}", odin_tests::said(&e)))
        .get(0)
}

#[tokio::test]
async fn prompts() {
    let (farm, key, gateway) = farm().await;
    let list = gateway.ask("gateway_prompts", &key, json!({})).await;
    let ours: Vec<&Value> = list["prompts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|p| ["greet", "talk", "secret_prompt"].contains(&p["name"].as_str().unwrap()))
        .collect();
    assert_eq!(ours.len(), 2, "one is not granted: {list}");
    assert_eq!(
        ours[0]["arguments"],
        json!([{"name": "who", "required": true}, {"name": "tone", "required": false}]),
        "in the function's order"
    );
    let answer = prompt(
        &gateway,
        &key,
        "greet",
        json!({"who": "Ann", "tone": "warm"}),
    )
    .await;
    assert_eq!(answer["description"], "Greets.");
    assert_eq!(
        answer["messages"],
        json!([{"role": "user", "content": {"type": "text", "text": format!("Hello Ann, warm, from {}_op", farm.name)}}])
    );
    assert_eq!(
        prompt(&gateway, &key, "talk", json!({})).await["messages"]
            .as_array()
            .map(Vec::len),
        Some(2)
    );
    for (name, arguments, meets) in [
        ("greet", json!({}), "validation_failed"),
        (
            "greet",
            json!({"who": "Ann", "tone": "rude"}),
            "validation_failed",
        ),
        ("greet", json!({"whom": "Ann"}), "validation_failed"),
        ("secret_prompt", json!({}), "permission_denied"),
        ("writing_prompt", json!({}), "read_only"),
        ("nothing", json!({}), "tool_not_found"),
        ("search_tools", json!({}), "tool_not_found"),
    ] {
        assert_eq!(
            prompt(&gateway, &key, name, arguments).await["error"]["code"],
            meets,
            "{name}"
        );
    }
    // A prompt is no tool, and a tool no prompt.
    assert_eq!(
        odin_tests::code(&gateway.call(&key, "greet", json!({"who": "x"})).await),
        "tool_not_found"
    );
    farm.finish().await;
}

#[tokio::test]
async fn resources() {
    let (farm, key, gateway) = farm().await;
    let role = format!("{}_op", farm.name);
    let listed = |list: Value, key: &str, field: &str| -> Vec<String> {
        list[key]
            .as_array()
            .unwrap()
            .iter()
            .map(|r| {
                r[field]
                    .as_str()
                    .unwrap_or_else(|| panic!("{r}"))
                    .to_owned()
            })
            .filter(|u| u.starts_with("odin://lab"))
            .collect()
    };
    let mut plain = listed(
        gateway.ask("gateway_resources", &key, json!({})).await,
        "resources",
        "uri",
    );
    plain.sort();
    assert_eq!(
        plain,
        [
            "odin://lab/one/first.(x)+?",
            "odin://lab/plain",
            "odin://lab/writes"
        ]
    );
    let mut templates = listed(
        gateway
            .ask("gateway_resource_templates", &key, json!({}))
            .await,
        "resourceTemplates",
        "uriTemplate",
    );
    templates.sort();
    assert_eq!(
        templates,
        ["odin://lab/file/{name}/{part}", "odin://lab/one/{id}"]
    );
    for (uri, contents) in [
        (
            "odin://lab/plain",
            json!({"uri": "odin://lab/plain", "mimeType": "text/plain", "text": "some text"}),
        ),
        (
            "odin://lab/one/7",
            json!({"uri": "odin://lab/one/7", "mimeType": "application/json", "text": format!("{{\"by\": \"{role}\", \"id\": 7}}")}),
        ),
        (
            "odin://lab/file/a%20b%2Fc/x",
            json!({"uri": "odin://lab/file/a%20b%2Fc/x", "mimeType": "application/octet-stream", "blob": "eDphIGIvYw=="}),
        ),
        (
            "odin://lab/file/%C3%A9/x",
            json!({"uri": "odin://lab/file/%C3%A9/x", "mimeType": "application/octet-stream", "blob": "eDrDqQ=="}),
        ),
        (
            "odin://lab/file/%FF%00/x",
            json!({"uri": "odin://lab/file/%FF%00/x", "mimeType": "application/octet-stream", "blob": "eDolRkYlMDA="}),
        ),
        (
            "odin://lab/file/50%/x",
            json!({"uri": "odin://lab/file/50%/x", "mimeType": "application/octet-stream", "blob": "eDo1MCU="}),
        ),
        (
            "odin://lab/one/first.(x)+?",
            json!({"uri": "odin://lab/one/first.(x)+?", "mimeType": "application/json", "text": "some text"}),
        ),
    ] {
        let answer = read(&gateway, &key, uri).await;
        assert_eq!(answer["contents"], json!([contents]), "{answer}");
    }
    for (uri, meets) in [
        ("odin://lab/one/100", "not_found"), // the function returned NULL
        ("odin://lab/nothing", "not_found"),
        ("odin://lab/plain/more", "not_found"),
        ("odin://lab/one/7/8", "not_found"),
        ("odin://lab/one/", "not_found"),
        ("odin://lab/plainX", "not_found"),
        ("", "not_found"),
        ("odin://lab/one/seven", "validation_failed"),
        ("odin://lab/writes", "read_only"),
        ("odin://lab/secret", "permission_denied"),
    ] {
        let answer = read(&gateway, &key, uri).await;
        assert_eq!(answer["error"]["code"], meets, "{uri}: {answer}");
        assert_eq!(answer["error"]["uri"], uri, "{answer}");
    }
    farm.finish().await;
}

#[tokio::test]
async fn completions() {
    let (farm, key, gateway) = farm().await;
    let complete = |reference: Value, argument: Value| {
        let (client, credential) = (&gateway.client, &key.credential);
        async move {
            let row = client
                .query_one(
                    "SELECT odin.gateway_complete($1, $2, $3, '{}')",
                    &[credential, &reference, &argument],
                )
                .await
                .unwrap();
            row.get::<_, Value>(0)
        }
    };
    let greet = json!({"type": "ref/prompt", "name": "greet"});
    for (argument, values) in [
        (
            json!({"name": "tone", "value": "w"}),
            json!(["warm", "wry"]),
        ),
        (
            json!({"name": "tone", "value": "W"}),
            json!(["warm", "wry"]),
        ),
        (
            json!({"name": "tone", "value": ""}),
            json!(["plain", "warm", "wry"]),
        ),
        (json!({"name": "who", "value": "A"}), json!(["Ann", "Abe"])),
        (
            json!({"name": "who", "value": farm.name.clone()}),
            json!([format!("{}_op", farm.name)]),
        ), // as the caller
        (
            json!({"name": "who", "value": "'; DROP TABLE lab.t; --"}),
            json!([]),
        ),
        (json!({"name": "nobody", "value": "x"}), json!([])),
    ] {
        let answer = complete(greet.clone(), argument.clone()).await;
        assert_eq!(answer["values"], values, "{argument}: {answer}");
    }
    for reference in [
        json!({"type": "ref/prompt", "name": "secret_prompt"}),
        json!({"type": "ref/resource", "uri": "odin://lab/nothing"}),
        json!({}),
    ] {
        assert_eq!(
            complete(reference.clone(), json!({"name": "x", "value": ""})).await["error"]["code"],
            "not_found",
            "{reference}"
        );
    }
    farm.finish().await;
}
