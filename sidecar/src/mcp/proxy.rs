//! stdin and stdout on one side, a sidecar's /mcp on the other: for clients that speak no HTTP, or may not hold a
//! database login. Messages pass as they are; only what HTTP wants besides (headers, sessions, streams) is made here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::prelude::{Engine, BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use http::{header, HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::{connect::HttpConnector, Client};
use hyper_util::rt::TokioExecutor;
use serde_json::{json, Value};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::message::{SESSION_HEADER, VERSION_HEADER};
use crate::config::Stdio;

type Http = Client<hyper_rustls::HttpsConnector<HttpConnector>, Full<Bytes>>;

struct Proxy {
    http: Http,
    url: http::Uri,
    bearer: HeaderValue,
    toolsets: Option<HeaderValue>,
    readonly: bool,
    out: mpsc::UnboundedSender<Vec<u8>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    session: Option<HeaderValue>,
    /// What `initialize` agreed on.
    version: Option<HeaderValue>,
    /// Requests of the stateless protocol, where leaving is cancelling.
    running: HashMap<String, AbortHandle>,
}

/// The farm's address, with or without /mcp.
fn endpoint(url: &str) -> Result<http::Uri, String> {
    let url: http::Uri = url.parse().map_err(|e| format!("ODIN_URL: {e}"))?;
    match (url.scheme_str(), url.authority(), url.path()) {
        (Some(scheme), Some(authority), "" | "/") => format!("{scheme}://{authority}/mcp")
            .parse()
            .map_err(|e| format!("ODIN_URL: {e}")),
        (Some("http" | "https"), Some(_), _) => Ok(url),
        _ => Err("ODIN_URL: must be an address such as https://farm.example.org".to_owned()),
    }
}

pub async fn run(config: &Stdio, url: &str, key: &str) -> Result<(), String> {
    let url = endpoint(url)?;
    let mut bearer = HeaderValue::from_str(&format!("Bearer {key}"))
        .map_err(|_| "the key holds characters no header can carry".to_owned())?;
    bearer.set_sensitive(true);
    let tls = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
        .map_err(|e| e.to_string())?
        .https_or_http()
        .enable_http1()
        .build();
    let (out, lines) = mpsc::unbounded_channel();
    let proxy = Arc::new(Proxy {
        http: Client::builder(TokioExecutor::new()).build(tls),
        url,
        bearer,
        toolsets: HeaderValue::from_str(&config.toolsets.join(","))
            .ok()
            .filter(|v| !v.is_empty()),
        readonly: config.readonly,
        out,
        state: Mutex::default(),
    });
    tokio::spawn(write_lines(lines));
    let mut running = JoinSet::new();
    let mut input = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(line)) = input.next_line().await {
        while running.try_join_next().is_some() {}
        proxy.clone().take(&line, &mut running).await;
    }
    // The client has said everything; what it asked is still answered.
    let rest = async { while running.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(5), rest).await;
    Ok(())
}

async fn write_lines(mut lines: mpsc::UnboundedReceiver<Vec<u8>>) {
    let mut stdout = tokio::io::stdout();
    while let Some(mut line) = lines.recv().await {
        line.push(b'\n');
        if stdout.write_all(&line).await.is_err() || stdout.flush().await.is_err() {
            return;
        }
    }
}

impl Proxy {
    /// One line of the client.
    async fn take(self: Arc<Self>, line: &str, running: &mut JoinSet<()>) {
        if line.trim().is_empty() {
            return;
        }
        let Ok(message) = serde_json::from_str::<Value>(line) else {
            self.say(
                &json!({"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}}),
            );
            return;
        };
        let method = message["method"].as_str().unwrap_or_default().to_owned();
        if method == "notifications/cancelled" && self.leave(&message["params"]["requestId"]) {
            return;
        }
        let id = message.get("id").cloned();
        let proxy = self.clone();
        let opening = method == "initialize";
        let exchange = async move {
            if let Err(error) = proxy.exchange(message).await {
                proxy.fail(id, &error);
            }
        };
        if opening {
            // Everything after it needs what it agreed on.
            exchange.await;
            let changes = self.clone();
            tokio::spawn(async move { changes.listen().await });
        } else {
            running.spawn(exchange);
        }
    }

    fn say(&self, message: &Value) {
        let _ = self.out.send(message.to_string().into_bytes());
    }

    fn fail(&self, id: Option<Value>, text: &str) {
        if let Some(id) = id {
            self.say(
                &json!({"jsonrpc": "2.0", "id": id, "error": {"code": -32603, "message": text}}),
            );
        }
    }

    /// Cancel a request of the stateless protocol by leaving it; false if it is none.
    fn leave(&self, id: &Value) -> bool {
        let handle = self
            .state
            .lock()
            .ok()
            .and_then(|mut state| state.running.remove(&id.to_string()));
        handle.map(|handle| handle.abort()).is_some()
    }

    fn request(
        &self,
        method: Method,
        message: Option<&Value>,
    ) -> Result<Request<Full<Bytes>>, String> {
        let body = message.map(Value::to_string).unwrap_or_default();
        let mut request = Request::builder()
            .method(method)
            .uri(self.url.clone())
            .body(Full::from(body))
            .map_err(|e| e.to_string())?;
        let headers = request.headers_mut();
        headers.insert(header::AUTHORIZATION, self.bearer.clone());
        let accept = match message {
            Some(_) => "application/json, text/event-stream",
            None => "text/event-stream",
        };
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Some(toolsets) = &self.toolsets {
            headers.insert("x-mcp-toolsets", toolsets.clone());
        }
        if self.readonly {
            headers.insert("x-mcp-readonly", HeaderValue::from_static("true"));
        }
        let own_version = message
            .and_then(|m| m["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"].as_str());
        if let (Some(version), Some(message)) = (own_version, message) {
            headers.insert(VERSION_HEADER, text_header(version));
            headers.insert(
                "mcp-method",
                text_header(message["method"].as_str().unwrap_or_default()),
            );
            let params = &message["params"];
            let name = ["name", "uri", "taskId"]
                .iter()
                .find_map(|field| params[*field].as_str());
            if let Some(name) = name {
                headers.insert("mcp-name", text_header(name));
            }
        } else if let Ok(state) = self.state.lock() {
            if let Some(session) = &state.session {
                headers.insert(SESSION_HEADER, session.clone());
            }
            if let Some(version) = &state.version {
                headers.insert(VERSION_HEADER, version.clone());
            }
        }
        Ok(request)
    }

    async fn exchange(self: &Arc<Self>, message: Value) -> Result<(), String> {
        let request = self.request(Method::POST, Some(&message))?;
        let id = message.get("id").cloned();
        let modern = message["params"]["_meta"]
            .get("io.modelcontextprotocol/protocolVersion")
            .is_some();
        let proxy = self.clone();
        let waiting_for = id.clone();
        let talk = async move {
            let response = proxy
                .http
                .request(request)
                .await
                .map_err(|e| format!("the sidecar cannot be reached: {e}"))?;
            proxy.note_session(&response);
            proxy.relay(response, waiting_for).await
        };
        let Some(id) = id.filter(|_| modern) else {
            return talk.await;
        };
        let task = tokio::spawn(talk);
        if let Ok(mut state) = self.state.lock() {
            state.running.insert(id.to_string(), task.abort_handle());
        }
        let ended = task.await;
        if let Ok(mut state) = self.state.lock() {
            state.running.remove(&id.to_string());
        }
        // Aborted = cancelled by the client, who wants no answer.
        ended.unwrap_or(Ok(()))
    }

    fn note_session<T>(&self, response: &Response<T>) {
        if let Some(session) = response.headers().get(SESSION_HEADER) {
            if let Ok(mut state) = self.state.lock() {
                state.session = Some(session.clone());
            }
        }
    }

    /// Pass on what the sidecar says: one JSON message, or a stream of them.
    async fn relay(
        &self,
        response: Response<hyper::body::Incoming>,
        id: Option<Value>,
    ) -> Result<(), String> {
        let stream = response
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|t| t.as_bytes().starts_with(b"text/event-stream"));
        let status = response.status();
        let mut body = response.into_body();
        let mut buffer = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| format!("the connection broke: {e}"))?;
            if let Some(data) = frame.data_ref() {
                buffer.extend_from_slice(data);
            }
            while let Some(event) = stream.then(|| next_event(&mut buffer)).flatten() {
                self.note_version(&event);
                let _ = self.out.send(event.into_bytes());
            }
        }
        if stream || buffer.is_empty() {
            return match status.is_success() {
                true => Ok(()),
                false => Err(format!("the sidecar answered {status}")),
            };
        }
        let text = String::from_utf8_lossy(&buffer);
        let Ok(mut message) = serde_json::from_str::<Value>(&text) else {
            return Err(format!("the sidecar answered {status}"));
        };
        // A refusal before the body was read does not know the id.
        if let (Some(fields), Some(id)) = (message.as_object_mut(), id) {
            fields.entry("id").or_insert(id);
        }
        self.note_version(&text);
        self.say(&message);
        Ok(())
    }

    fn note_version(&self, text: &str) {
        if !text.contains("\"protocolVersion\"") {
            return;
        }
        let message: Value = serde_json::from_str(text).unwrap_or_default();
        if let Some(version) = message["result"]["protocolVersion"].as_str() {
            if let Ok(mut state) = self.state.lock() {
                state.version = Some(text_header(version));
            }
        }
    }

    /// The stream of change notices of an older session, for ever.
    async fn listen(&self) {
        let mut wait = Duration::from_secs(1);
        loop {
            if let Ok(request) = self.request(Method::GET, None) {
                if let Ok(response) = self.http.request(request).await {
                    if response.status() == http::StatusCode::METHOD_NOT_ALLOWED {
                        return;
                    }
                    let _ = self.relay(response, None).await;
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(30));
        }
    }
}

/// The data of the next complete event in the buffer; comments and empty events are passed over.
fn next_event(buffer: &mut BytesMut) -> Option<String> {
    loop {
        let end = buffer.windows(2).position(|w| w == b"\n\n")?;
        let block = buffer.split_to(end + 2);
        let text = String::from_utf8_lossy(&block);
        let data: Vec<&str> = text
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(|data| data.strip_prefix(' ').unwrap_or(data))
            .collect();
        let data = data.join("\n");
        if !data.trim().is_empty() {
            return Some(data);
        }
    }
}

/// As a header may carry it: plain ASCII, or wrapped.
fn text_header(text: &str) -> HeaderValue {
    let plain = text.bytes().all(|b| (0x20..0x7f).contains(&b))
        && !text.starts_with(' ')
        && !text.ends_with(' ')
        && !text.starts_with("=?base64?");
    let wrapped = match plain {
        true => text.to_owned(),
        false => format!("=?base64?{}?=", BASE64_STANDARD.encode(text)),
    };
    HeaderValue::from_str(&wrapped).unwrap_or_else(|_| HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_cut_out_of_a_stream() {
        let mut buffer = BytesMut::from(&b": hi\n\nevent: message\ndata: {\"a\":1}\n\ndata: {"[..]);
        assert_eq!(next_event(&mut buffer).as_deref(), Some("{\"a\":1}"));
        assert_eq!(next_event(&mut buffer), None);
        assert_eq!(&buffer[..], b"data: {");
    }

    #[test]
    fn names_fit_into_headers() {
        assert_eq!(text_header("queue_job"), "queue_job");
        assert_eq!(text_header("größe"), "=?base64?Z3LDtsOfZQ==?=");
        assert_eq!(text_header(" a"), "=?base64?IGE=?=");
    }
}
