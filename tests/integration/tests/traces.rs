//! Spans on their way to a collector on this machine, by OpenTelemetry's names for MCP.

use std::sync::{Arc, Mutex};

use odin_tests::sidecar::{until, Sidecar, PATIENCE};
use odin_tests::Farm;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Whatever was posted, one entry a request: the path, and all bytes.
type Posted = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

async fn collector() -> (String, Posted) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let posted = Posted::default();
    let held = posted.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let held = held.clone();
            tokio::spawn(async move {
                let mut bytes = Vec::new();
                let mut buffer = [0u8; 65536];
                while let Ok(n) = socket.read(&mut buffer).await {
                    bytes.extend_from_slice(&buffer[..n]);
                    let text = String::from_utf8_lossy(&bytes);
                    let Some(head) = text.find("\r\n\r\n") else {
                        continue;
                    };
                    let length = text[..head].lines().find_map(|line| {
                        line.to_ascii_lowercase()
                            .strip_prefix("content-length: ")?
                            .parse::<usize>()
                            .ok()
                    });
                    if n == 0 || bytes.len() >= text[..head].len() + 4 + length.unwrap_or(0) {
                        break;
                    }
                }
                let line = String::from_utf8_lossy(&bytes)
                    .lines()
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                held.lock().unwrap().push((line, bytes));
                let answer = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
                let _ = socket.write_all(answer.as_bytes()).await;
            });
        }
    });
    (url, posted)
}

fn holds(posted: &Posted, wanted: &[u8]) -> bool {
    let posted = posted.lock().unwrap();
    posted
        .iter()
        .any(|(_, bytes)| bytes.windows(wanted.len()).any(|piece| piece == wanted))
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_reach_the_collector_as_part_of_the_callers_trace() {
    let farm = Farm::with_fixture().await;
    let key = farm
        .key("op", "odin_operator", "agent:read,agent:write")
        .await;
    let (url, posted) = collector().await;
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
    ];
    let sidecar = Sidecar::start(&farm, &settings).await;
    let client = sidecar.client().key(&key);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let params = json!({"name": "greet", "arguments": {"name": "a secret argument"}, "_meta": {"traceparent": parent}});
    assert_eq!(client.rpc("tools/call", params).await.status, 200);
    let params = json!({"name": "test_error_handling", "arguments": {}});
    assert_eq!(client.rpc("tools/call", params).await.status, 200);
    let rest = client.with(
        "traceparent",
        "00-1bf7651916cd43dd8448eb211c80319d-00f067aa0ba902b8-01",
    );
    assert_eq!(rest.get("/api/v1/version").await.unwrap().status, 200);
    let reply = rest
        .send(http::Method::POST, "/api/v1/tools/greet", r#"{"name":"x"}"#)
        .await
        .unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    until("the spans arrive", PATIENCE, || async {
        holds(&posted, b"tools/call test_error_handling") && holds(&posted, b"POST greet")
    })
    .await;
    let id = |hex: &str| -> Vec<u8> {
        (0..hex.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
            .collect()
    };
    for wanted in [
        &b"tools/call greet"[..],
        b"SELECT odin.gateway_call",
        b"mcp.method.name",
        b"gen_ai.tool.name",
        b"mcp.protocol.version",
        b"jsonrpc.request.id",
        b"error.type",
        b"tool_error",
        b"service.name",
        b"odin-farm",
        &id(trace),
        &id("00f067aa0ba902b7"),
        &id("1bf7651916cd43dd8448eb211c80319d"),
    ] {
        assert!(
            holds(&posted, wanted),
            "{}",
            String::from_utf8_lossy(wanted)
        );
    }
    // Nothing that was said in the calls, and no key.
    assert!(!holds(&posted, b"a secret argument") && !holds(&posted, key.as_bytes()));
    assert!(posted
        .lock()
        .unwrap()
        .iter()
        .all(|(line, _)| line.starts_with("POST /v1/traces ")));
    farm.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_away_is_in_nobodys_way() {
    let farm = Farm::with_fixture().await;
    let key = farm.key("op", "odin_operator", "agent:read").await;
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")];
    let mut sidecar = Sidecar::start(&farm, &settings).await;
    let client = sidecar.client().key(&key);
    for _ in 0..20 {
        assert_eq!(client.call("greet", json!({"name": "x"})).await.status, 200);
    }
    assert_eq!(sidecar.terminate().await, Some(0));
    drop(client);
    farm.finish().await;
}
