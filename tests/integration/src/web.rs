//! A client that sends what it is told, right or wrong, and shows what came back.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::{json, Value};

type Http = legacy::Client<HttpConnector, Full<Bytes>>;

#[derive(Clone)]
pub struct Client {
    pub port: u16,
    http: Http,
    headers: Vec<(String, String)>,
}

pub struct Reply {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The messages of an event stream, or the one of a plain answer.
    pub fn messages(&self) -> Vec<Value> {
        if !self.header("content-type").starts_with("text/event-stream") {
            return vec![self.json()];
        }
        self.text()
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .filter_map(|data| serde_json::from_str(data.trim()).ok())
            .collect()
    }

    /// The farm's error inside a tool result.
    pub fn tool_error(&self) -> Value {
        let message = self.messages().pop().unwrap_or_default();
        let text = message["result"]["content"][0]["text"].as_str();
        let parsed: Value = text
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default();
        parsed["error"].clone()
    }
}

/// An open event stream. Dropping it hangs up.
pub struct Stream {
    pub headers: HeaderMap,
    body: Incoming,
    buffer: BytesMut,
}

impl Stream {
    /// The next message, or `None` when the stream ended or nothing came in time.
    pub async fn next(&mut self, limit: Duration) -> Option<Value> {
        tokio::time::timeout(limit, self.message()).await.ok()?
    }

    async fn message(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|w| w == b"\n\n") {
                let block = self.buffer.split_to(end + 2);
                let text = String::from_utf8_lossy(&block).into_owned();
                let data = text.lines().find_map(|line| line.strip_prefix("data:"));
                if let Some(message) = data.and_then(|d| serde_json::from_str(d.trim()).ok()) {
                    return Some(message);
                }
                continue;
            }
            let frame = self.body.frame().await?.ok()?;
            if let Some(data) = frame.data_ref() {
                self.buffer.extend_from_slice(data);
            }
        }
    }

    /// The next message of a method.
    pub async fn next_of(&mut self, method: &str, limit: Duration) -> Value {
        let found = async {
            loop {
                let message = self.message().await.expect("the stream ended");
                if message["method"] == method {
                    return message;
                }
            }
        };
        let found = tokio::time::timeout(limit, found).await;
        found.unwrap_or_else(|_| panic!("no {method} within {limit:?}"))
    }
}

/// Params of the stateless protocol: `capabilities` are the client's.
pub fn modern(mut params: Value, capabilities: Value) -> Value {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2026-07-28");
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities;
    params
}

impl Client {
    pub fn new(port: u16) -> Client {
        Client {
            port,
            http: legacy::Client::builder(TokioExecutor::new()).build(HttpConnector::new()),
            headers: Vec::new(),
        }
    }

    /// With one more header on every request.
    pub fn with(&self, name: &str, value: &str) -> Client {
        let mut client = self.clone();
        client.headers.retain(|(n, _)| n != name);
        client.headers.push((name.to_owned(), value.to_owned()));
        client
    }

    pub fn key(&self, key: &str) -> Client {
        self.with("authorization", &format!("Bearer {key}"))
    }

    fn request(&self, method: Method, path: &str, body: String) -> Request<Full<Bytes>> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://127.0.0.1:{}{path}", self.port));
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        request.body(Full::from(body)).expect("a request")
    }

    pub async fn send(&self, method: Method, path: &str, body: &str) -> Option<Reply> {
        let request = self.request(method, path, body.to_owned());
        let response = self.http.request(request).await.ok()?;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        Some(Reply {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
        })
    }

    pub async fn get(&self, path: &str) -> Option<Reply> {
        self.send(Method::GET, path, "").await
    }

    pub async fn post(&self, body: &str) -> Reply {
        let reply = self.send(Method::POST, "/mcp", body).await;
        reply.expect("an answer")
    }

    /// A request of an older revision.
    pub async fn rpc(&self, method: &str, params: Value) -> Reply {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        self.post(&body.to_string()).await
    }

    pub async fn call(&self, tool: &str, arguments: Value) -> Reply {
        self.rpc("tools/call", json!({"name": tool, "arguments": arguments}))
            .await
    }

    /// With the headers the stateless protocol wants.
    pub fn modern_headers(&self, method: &str, params: &Value) -> Client {
        let mut client = self
            .with("mcp-protocol-version", "2026-07-28")
            .with("mcp-method", method);
        for field in ["name", "uri", "taskId"] {
            if let Some(name) = params[field].as_str() {
                client = client.with("mcp-name", name);
            }
        }
        client
    }

    pub async fn modern_rpc(&self, method: &str, params: Value) -> Reply {
        self.modern_headers(method, &params)
            .rpc(method, params)
            .await
    }

    pub async fn modern_call(&self, tool: &str, arguments: Value, capabilities: Value) -> Reply {
        let params = json!({"name": tool, "arguments": arguments});
        self.modern_rpc("tools/call", modern(params, capabilities))
            .await
    }

    /// Open a stream by a request, and leave it open.
    pub async fn open(&self, method: Method, body: Value) -> Stream {
        let client = self.with("accept", "application/json, text/event-stream");
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let request = client.request(method, "/mcp", body);
        let response = client.http.request(request).await.expect("an answer");
        assert_eq!(response.status(), 200);
        let (parts, body) = response.into_parts();
        Stream {
            headers: parts.headers,
            body,
            buffer: BytesMut::new(),
        }
    }

    /// Start an older session: a client that sends its id from now on.
    pub async fn session(&self, capabilities: Value) -> Client {
        let reply = self
            .rpc(
                "initialize",
                json!({"protocolVersion": "2025-11-25", "capabilities": capabilities,
                       "clientInfo": {"name": "odin-tests", "version": "1"}}),
            )
            .await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        self.with("mcp-session-id", reply.header("mcp-session-id"))
            .with("mcp-protocol-version", "2025-11-25")
    }
}
