//! The door: whatever is wrong with a request gets the right status, a JSON-RPC error, and no secret.

use http::Method;
use odin_tests::sidecar::{until, Sidecar, PATIENCE};
use odin_tests::web::Client;
use odin_tests::Farm;
use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

struct Set {
    farm: Farm,
    sidecar: Sidecar,
    client: Client,
    key: String,
}

async fn set(settings: &[(&str, &str)]) -> Set {
    let farm = Farm::with_fixture().await;
    let key = farm
        .key("op", "odin_operator", "agent:read,agent:write")
        .await;
    let sidecar = Sidecar::start(&farm, settings).await;
    let client = sidecar.client().key(&key);
    Set {
        farm,
        sidecar,
        client,
        key,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_messages() {
    let set = set(&[]).await;
    for (body, status, code) in [
        ("{", 400, -32700),
        ("", 400, -32700),
        ("[]", 400, -32600),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, 400, -32600),
        ("7", 400, -32600),
        (
            r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
            400,
            -32600,
        ),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, 400, -32600),
        (r#"{"id":1,"method":"ping"}"#, 400, -32600),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, 400, -32600),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}"#,
            400,
            -32602,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
            200,
            -32602,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"greet","arguments":[1]}}"#,
            200,
            -32602,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"no/such"}"#,
            200,
            -32601,
        ),
        (r#"{"jsonrpc":"2.0","id":"x","result":{}}"#, 400, -32600),
    ] {
        let reply = set.client.post(body).await;
        assert_eq!(reply.status, status, "{body}: {}", reply.text());
        assert_eq!(
            reply.json()["error"]["code"],
            code,
            "{body}: {}",
            reply.text()
        );
    }
    // The content type is not what makes a body JSON.
    let plain = set.client.with("content-type", "text/plain");
    assert_eq!(
        plain.rpc("ping", json!({})).await.json()["result"],
        json!({})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_stateless_protocol_is_strict_about_itself() {
    let set = set(&[]).await;
    let meta = |version: &str| {
        json!({"_meta": {"io.modelcontextprotocol/protocolVersion": version,
                                       "io.modelcontextprotocol/clientCapabilities": {}}})
    };
    let ask = |method: &'static str, params: Value| {
        let client = set.client.modern_headers(method, &params);
        async move { client.rpc(method, params).await }
    };
    let unknown = ask("no/such", meta("2026-07-28")).await;
    assert_eq!(
        (unknown.status, &unknown.json()["error"]["code"]),
        (404, &json!(-32601))
    );
    let removed = ask("ping", meta("2026-07-28")).await;
    assert_eq!(
        (removed.status, &removed.json()["error"]["code"]),
        (404, &json!(-32601))
    );
    let bare = ask("tools/list", json!({})).await;
    assert_eq!(
        (bare.status, &bare.json()["error"]["code"]),
        (400, &json!(-32602))
    );
    let other = ask("tools/list", meta("2025-11-25")).await;
    assert_eq!(
        (other.status, &other.json()["error"]["code"]),
        (400, &json!(-32020))
    );
    let bad = ask("tools/call", meta("2026-07-28")).await;
    assert_eq!(bad.json()["error"]["code"], -32602, "{}", bad.text());
    let get = set.client.with("mcp-protocol-version", "2026-07-28");
    assert_eq!(get.get("/mcp").await.unwrap().status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn accept_is_read_kindly() {
    let set = set(&[]).await;
    assert_eq!(
        set.client
            .with("accept", "text/html")
            .rpc("ping", json!({}))
            .await
            .status,
        406
    );
    for accept in [
        "*/*",
        "application/json",
        "application/json, text/event-stream",
    ] {
        let reply = set
            .client
            .with("accept", accept)
            .rpc("ping", json!({}))
            .await;
        assert_eq!(reply.status, 200, "{accept}");
    }
    // Who reads no streams gets none, whatever the tool has to say in between.
    let params = json!({"name": "test_tool_with_progress", "_meta": {"progressToken": "p"}});
    let quiet = set.client.with("accept", "application/json");
    let reply = quiet.rpc("tools/call", params.clone()).await;
    assert_eq!(reply.header("content-type"), "application/json");
    let reply = set.client.rpc("tools/call", params).await;
    assert_eq!(reply.header("content-type"), "text/event-stream");
    assert_eq!(reply.messages().len(), 4, "{}", reply.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_turned_away_in_order() {
    let set = set(&[]).await;
    let stranger = set.sidecar.client();
    // Host and Origin come before the key, the key before the body.
    assert_eq!(
        stranger
            .with("host", "evil.example.org")
            .post("{")
            .await
            .status,
        403
    );
    assert_eq!(
        stranger
            .with("origin", "https://evil.example.org")
            .post("{")
            .await
            .status,
        403
    );
    let reply = stranger.post("{").await;
    assert_eq!(reply.status, 401);
    assert!(reply.header("www-authenticate").starts_with("Bearer"));
    let reply = stranger.key("odin_wrong").post("{").await;
    assert_eq!(reply.status, 401);
    assert!(reply.header("www-authenticate").contains("invalid_token"));
    assert_eq!(
        reply.json()["error"]["data"]["error"]["code"],
        "not_authenticated"
    );
    // A page on this machine may ask.
    let local = set.client.with("origin", "http://localhost:6274");
    let reply = local.rpc("ping", json!({})).await;
    assert_eq!(
        reply.header("access-control-allow-origin"),
        "http://localhost:6274"
    );
    let other_header = stranger.with("x-api-key", &set.key);
    assert_eq!(other_header.rpc("ping", json!({})).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_limited_in_size_and_time() {
    let set = set(&[("ODIN_MAX_BODY", "20000"), ("ODIN_BODY_TIMEOUT", "60")]).await;
    // Another sidecar for what comes too late, so that what is too large is never that as well.
    let hasty = Sidecar::start(&set.farm, &[("ODIN_BODY_TIMEOUT", "1")]).await;
    let large = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"ping","params":{{"a":"{}"}}}}"#,
        "x".repeat(30_000)
    );
    let reply = set.client.post(&large).await;
    assert_eq!(reply.status, 413);
    assert_eq!(reply.json()["error"]["code"], -413, "{}", reply.text());
    // Without an announced length, and dripping in.
    let key = set.key.clone();
    let raw = |port: u16, body: &'static [u8]| {
        let head = format!(
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\ntransfer-encoding: chunked\r\n\r\n"
        );
        async move {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            for _ in 0..40 {
                if stream.write_all(body).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            let mut answer = vec![0; 4096];
            let n = stream.read(&mut answer).await.unwrap();
            String::from_utf8_lossy(&answer[..n]).into_owned()
        }
    };
    let chunk: &'static [u8] = Box::leak(
        format!("400\r\n{}\r\n", "x".repeat(0x400))
            .into_boxed_str()
            .into_boxed_bytes(),
    );
    assert!(raw(set.sidecar.port, chunk)
        .await
        .starts_with("HTTP/1.1 413"));
    let slow = raw(hasty.port, b"").await;
    assert!(slow.starts_with("HTTP/1.1 408"), "{slow}");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_are_answered_without_a_key_and_are_no_guesses() {
    let set = set(&[]).await;
    let stranger = set.sidecar.client();
    for path in [
        "/.well-known/oauth-protected-resource/mcp",
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
        "/mcp/.well-known/openid-configuration",
        "/favicon.ico",
    ] {
        assert_eq!(stranger.get(path).await.unwrap().status, 404, "{path}");
    }
    let register = stranger
        .send(Method::POST, "/register", "{}")
        .await
        .unwrap();
    assert_eq!(register.status, 404);
    assert_eq!(
        stranger.get("/healthz").await.unwrap().json()["status"],
        "healthy"
    );
    assert_eq!(stranger.get("/readyz").await.unwrap().status, 200);
    assert_eq!(stranger.get("/mcp").await.unwrap().status, 401);
    // However many there are, none is slowed down.
    let counted = "SELECT count(*) FROM odin.login_failures";
    assert_eq!(set.farm.value::<i64>(counted).await, 0);
    set.client.call("greet", json!({"name": "x"})).await;
    let metrics = stranger.get("/metrics").await.unwrap().text();
    let line = r#"mcp_server_operation_duration_seconds_count{face="mcp",method="tools/call",tool="greet",outcome="ok"} 1"#;
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn guessing_keys_gets_slow_and_then_refused() {
    let set = set(&[]).await;
    let stranger = set.sidecar.client();
    assert_eq!(set.client.rpc("ping", json!({})).await.status, 200);
    let mut refused = None;
    for n in 0..40 {
        let client = stranger.key(&format!("odin_guess_{n}"));
        let guess = tokio::time::timeout(PATIENCE, client.post("{}")).await;
        let reply = guess.expect("an answer");
        if reply.status == 429 {
            refused = Some((n, reply));
            break;
        }
        assert_eq!(reply.status, 401);
        // The waits grow to seconds; the count is what is tested here, so most guesses are made at once.
        if n == 3 {
            let many = (0..20).map(|m| {
                let client = stranger.key(&format!("odin_guess_x{m}"));
                tokio::spawn(async move { client.post("{}").await.status })
            });
            for guess in many.collect::<Vec<_>>() {
                assert!(matches!(guess.await.unwrap(), 401 | 429));
            }
        }
    }
    let (_, reply) = refused.expect("guessing was stopped");
    assert!(reply.header("retry-after").parse::<u64>().unwrap() >= 1);
    // A key that was good is still good, from the same address.
    assert_eq!(set.client.rpc("ping", json!({})).await.status, 200);
    let counted = "SELECT coalesce(sum(attempts), 0)::bigint FROM odin.login_failures";
    assert!(set.farm.value::<i64>(counted).await >= 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_secret_is_logged_or_answered() {
    let set = set(&[("ODIN_LOG", "debug")]).await;
    let sql = "CREATE FUNCTION public.broken(secret_note text) RETURNS jsonb LANGUAGE plpgsql AS $$BEGIN RETURN (SELECT x FROM no_such_table); END$$;
        COMMENT ON FUNCTION public.broken(text) IS 'Always fails.';
        GRANT EXECUTE ON FUNCTION public.broken(text) TO odin_viewer;
        SELECT odin.register_tool('public.broken');";
    set.farm.sql(sql).await;
    let reply = set
        .client
        .call("broken", json!({"secret_note": "zebra-7"}))
        .await;
    let error = reply.tool_error();
    assert_eq!(error["status"], 500, "{}", reply.text());
    for word in ["no_such_table", "SELECT", "PL/pgSQL"] {
        assert!(!reply.text().contains(word), "{}", reply.text());
    }
    let log = set.sidecar.log_text();
    assert!(log.contains("\"broken\""), "the call is in the log");
    for secret in [set.key.as_str(), &set.key[10..40], "zebra-7"] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_its_limits() {
    let set = set(&[]).await;
    let role = set.farm.role("small", "odin_viewer").await;
    let small = ", rate_per_minute => 5, concurrency => 2";
    let key = set.farm.mint_with(&role, "agent:read", small).await;
    let client = set.sidecar.client().key(&key.secret);
    // Two calls stay in their tool as long as this lock is held.
    let body = "BEGIN PERFORM pg_advisory_xact_lock_shared(46110005); RETURN 'x'; END";
    set.farm.tool("gated", "", "read", body).await;
    set.farm.sql("SELECT pg_advisory_lock(46110005)").await;
    let slow = |client: Client| tokio::spawn(async move { client.call("gated", json!({})).await });
    let first = slow(client.clone());
    let second = slow(client.clone());
    let both = || async { set.farm.running("gated").await == 2 };
    until("both run", PATIENCE, both).await;
    let third = client.call("greet", json!({"name": "x"})).await;
    assert_eq!(third.status, 429, "{}", third.text());
    assert_eq!(third.header("retry-after"), "1");
    assert_eq!(
        third.json()["error"]["data"]["error"]["code"],
        "rate_limited"
    );
    set.farm.sql("SELECT pg_advisory_unlock(46110005)").await;
    assert_eq!(first.await.unwrap().status, 200);
    assert_eq!(second.await.unwrap().status, 200);
    let mut statuses = Vec::new();
    // More than the minute has, and than it earns again meanwhile.
    for _ in 0..20 {
        statuses.push(client.call("greet", json!({"name": "x"})).await.status);
    }
    assert!(statuses.contains(&429), "{statuses:?}");
}
