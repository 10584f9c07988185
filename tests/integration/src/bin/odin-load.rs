//! Load for a sidecar: CONNECTIONS keep-alive connections call one tool for SECONDS and say how it went.
//!   ODIN_TEST_MCP=http://127.0.0.1:8808/mcp ODIN_TEST_KEY=odin_... odin-load CONNECTIONS SECONDS TOOL ARGUMENTS [stateless|rest]
//! With `rest` the same tool is called at /api/v1/tools/TOOL of the same sidecar.
//! Prints one line: connections, calls a second, p50 and p99 in milliseconds, failures.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{json, Value};
use tokio::net::TcpStream;

#[tokio::main]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let [_, connections, seconds, tool, arguments, rest @ ..] = args.as_slice() else {
        eprintln!("usage: odin-load CONNECTIONS SECONDS TOOL ARGUMENTS [stateless|rest]");
        std::process::exit(2);
    };
    let connections: usize = connections.parse().expect("CONNECTIONS");
    let limit = Duration::from_secs(seconds.parse().expect("SECONDS"));
    let arguments: Value = serde_json::from_str(arguments).expect("ARGUMENTS is JSON");
    let url: Uri = std::env::var("ODIN_TEST_MCP")
        .expect("ODIN_TEST_MCP")
        .parse()
        .expect("a URL");
    let key = std::env::var("ODIN_TEST_KEY").expect("ODIN_TEST_KEY");
    let stateless = rest.first().is_some_and(|word| word == "stateless");
    let rest = rest.first().is_some_and(|word| word == "rest");
    let mut params = json!({"name": tool, "arguments": arguments.clone()});
    if stateless {
        params = odin_tests::web::modern(params, json!({}));
    }
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let (path, body) = match rest {
        true => (format!("/api/v1/tools/{tool}"), arguments),
        false => (url.path().to_owned(), body),
    };
    let body = Bytes::from(body.to_string());

    let started = Instant::now();
    let mut running = Vec::new();
    for _ in 0..connections {
        let (url, key, tool) = (url.clone(), key.clone(), tool.clone());
        let (path, body) = (path.clone(), body.clone());
        running.push(tokio::spawn(async move {
            let host = url.authority().expect("a host").to_string();
            let stream = TcpStream::connect(&host)
                .await
                .expect("the sidecar listens");
            stream.set_nodelay(true).expect("a socket option");
            let (mut sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
            tokio::spawn(connection);
            let (mut times, mut failures) = (Vec::new(), 0u64);
            while started.elapsed() < limit {
                let mut request = Request::post(&path)
                    .header("host", &host)
                    .header("authorization", format!("Bearer {key}"))
                    .header("content-type", "application/json")
                    .header("accept", "application/json, text/event-stream");
                if stateless {
                    request = request
                        .header("mcp-protocol-version", "2026-07-28")
                        .header("mcp-method", "tools/call")
                        .header("mcp-name", &tool);
                }
                let request = request.body(Full::new(body.clone())).expect("a request");
                let began = Instant::now();
                let answer = match sender.send_request(request).await {
                    Ok(response) if response.status() == 200 => response.collect().await.ok(),
                    _ => None,
                };
                let bytes = answer.map(|answer| answer.to_bytes()).unwrap_or_default();
                times.push(began.elapsed().as_secs_f64() * 1000.0);
                let answered = rest || bytes.windows(9).any(|w| w == b"\"content\"");
                let good = answered
                    && !bytes.is_empty()
                    && !bytes.windows(14).any(|w| w == b"\"isError\":true");
                failures += u64::from(!good);
            }
            (times, failures)
        }));
    }
    let (mut times, mut failures) = (Vec::new(), 0);
    for task in running {
        let (mine, failed) = task.await.expect("a connection's task");
        times.extend(mine);
        failures += failed;
    }
    let took = started.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    let at = |share: f64| {
        times
            .get(((times.len() as f64 - 1.0) * share) as usize)
            .copied()
            .unwrap_or_default()
    };
    println!(
        "{connections} {:.0} {:.3} {:.3} {failures}",
        times.len() as f64 / took,
        at(0.5),
        at(0.99)
    );
}
