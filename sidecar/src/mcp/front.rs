//! The door of /mcp. In this order: Host and Origin, the key, the body; then the revision decides who serves it.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::response::Response;
use bytes::Bytes;
use futures::StreamExt;
use http::{header, request::Parts, HeaderMap, HeaderValue, Method, Request, StatusCode};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::Value;

use super::ask::Link;
use super::handler::{Begun, Handler};
use super::legacy;
use super::message::{
    header as text_header, Kind, Message, INVALID_REQUEST, METHOD_NOT_FOUND, MODERN, VERSION_HEADER,
};
use super::{farm_error, not_allowed, rpc_error};
use crate::app::App;
use crate::config::Serve;
use crate::door::{forget_presented, Door, Visitor};
use crate::gateway::{Caller, Face};
use crate::limits::Counted;

tokio::task_local! {
    /// The handler of the request being served: rmcp's factory is not given the request.
    static CURRENT: Handler;
}

type Modern = StreamableHttpService<Handler, NeverSessionManager>;

pub struct Front {
    app: Arc<App>,
    door: Door,
    modern: Modern,
    max_streams: usize,
}

impl Front {
    pub fn new(app: Arc<App>, config: &Serve) -> Self {
        let http = StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true)
            .with_sse_keep_alive(Some(legacy::KEEP_ALIVE))
            // Host, Origin and size are judged here, before the key is.
            .disable_allowed_hosts()
            .disable_allowed_origins()
            .with_max_request_body_bytes(config.max_body)
            .with_cancellation_token(app.stop.child_token());
        let current = || {
            CURRENT
                .try_with(Handler::clone)
                .map_err(std::io::Error::other)
        };
        Front {
            modern: StreamableHttpService::new(current, Arc::default(), http),
            door: Door::new(app.clone(), config),
            max_streams: config.max_streams,
            app,
        }
    }

    /// A refusal of the whole request, before any tool.
    async fn refuse(&self, mut error: Value, asked: &HeaderMap, visitor: &Visitor) -> Response {
        let challenge = self.door.challenge(asked, visitor, &error).await;
        let close = error["status"] == 408;
        forget_presented(&mut error);
        let mut response = farm_error(None, error);
        let headers = response.headers_mut();
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if close {
            // What is still on its way belongs to this request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Whoever has a key.
    async fn admitted(
        &self,
        parts: Parts,
        body: Body,
        caller: Arc<Caller>,
        visitor: &Visitor,
    ) -> Response {
        let modern = text_header(&parts.headers, VERSION_HEADER).is_some_and(|v| v >= MODERN);
        let over = !modern && legacy::is_over(&self.app, &caller, &parts.headers);
        match parts.method {
            _ if over => rpc_error(
                StatusCode::NOT_FOUND,
                None,
                -404,
                "This session has ended; start a new one with initialize.".to_owned(),
                None,
            ),
            Method::POST => self.post(parts, body, caller, visitor).await,
            Method::GET if !modern && reads_streams(&parts.headers) => {
                let app = self.app.clone();
                legacy::stream(app, caller, &parts.headers, self.max_streams).await
            }
            Method::DELETE if !modern => legacy::end(&self.app, &caller, &parts.headers).await,
            _ => not_allowed("POST"),
        }
    }

    async fn post(
        &self,
        parts: Parts,
        body: Body,
        caller: Arc<Caller>,
        visitor: &Visitor,
    ) -> Response {
        let bytes = match self.door.bytes(&parts.headers, body).await {
            Ok(bytes) => bytes,
            Err(error) => return self.refuse(error, &parts.headers, visitor).await,
        };
        let message = match Message::parse(&bytes) {
            Ok(message) => message,
            Err(e) => {
                self.app.metrics.refused("malformed");
                return rpc_error(
                    StatusCode::BAD_REQUEST,
                    e.id,
                    e.code,
                    e.text.to_owned(),
                    None,
                );
            }
        };
        let accept = Accept::of(&parts.headers);
        if accept == Accept::Neither {
            self.app.metrics.refused("accept");
            return rpc_error(
                StatusCode::NOT_ACCEPTABLE,
                message.id().cloned(),
                INVALID_REQUEST,
                "Accept must allow application/json or text/event-stream.".to_owned(),
                None,
            );
        }
        let quiet = accept == Accept::Json;
        let counted = match (message.tool(), &message.kind) {
            (Some(tool), Kind::Request) => match self.door.counted(&caller, tool) {
                Ok(counted) => Some(counted),
                Err(error) => return farm_error(message.id().cloned(), error),
            },
            _ => None,
        };
        let modern = message.is_modern(&parts.headers);
        match message.kind {
            Kind::Request if modern && message.is_removed() => rpc_error(
                StatusCode::NOT_FOUND,
                message.id().cloned(),
                METHOD_NOT_FOUND,
                format!("{} is not part of this revision.", message.method()),
                None,
            ),
            Kind::Request if modern => {
                self.modern(parts, bytes, message, caller, quiet, counted)
                    .await
            }
            Kind::Request => {
                let app = self.app.clone();
                legacy::request(app, caller, &parts.headers, message, quiet, counted).await
            }
            Kind::Notification => {
                legacy::notification(&self.app, &caller, &parts.headers, &message).await
            }
            Kind::Answer if modern => rpc_error(
                StatusCode::BAD_REQUEST,
                None,
                INVALID_REQUEST,
                "Answers travel in inputResponses in this revision.".to_owned(),
                None,
            ),
            Kind::Answer => legacy::answer(&self.app, &caller, &message).await,
        }
    }

    async fn modern(
        &self,
        mut parts: Parts,
        bytes: Bytes,
        message: Message,
        caller: Arc<Caller>,
        quiet: bool,
        mut counted: Option<Counted>,
    ) -> Response {
        let handler = Handler {
            app: self.app.clone(),
            caller: caller.clone(),
            link: Link::Stateless,
            quiet,
            watch: Begun::default(),
        };
        match message.method() {
            // rmcp compares Mcp-Param-* headers with the tool's schema, and can only look it up, not ask for it.
            "tools/call" => {
                let _ = self.app.registry.tools(&caller).await;
            }
            "subscriptions/listen" => {
                match self.app.limits.stream(&caller.principal, self.max_streams) {
                    Ok(stream) => counted = Some(stream),
                    Err(too_many) => return farm_error(message.id().cloned(), too_many.error()),
                }
                handler.begin_to_watch(message.params()).await;
            }
            _ => {}
        }
        // rmcp insists on both types and on the exact content type; what matters was judged above.
        parts.headers.insert(
            header::ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        parts.headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        let request = Request::from_parts(parts, Body::from(bytes));
        let response = CURRENT.scope(handler, self.modern.handle(request)).await;
        let response = response.map(Body::new);
        let response = super::refusal::tidy(response, message.id()).await;
        // A plain answer is the end of the call; a stream is counted until it closes.
        match counted.filter(|_| is_stream(&response)) {
            None => response,
            Some(counted) => held(response, counted),
        }
    }
}

fn is_stream(response: &Response) -> bool {
    response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"))
}

/// Keep `guard` as long as the response's body lives.
fn held(response: Response, guard: impl Send + 'static) -> Response {
    response.map(|body| {
        let stream = body.into_data_stream().map(move |chunk| {
            let _held = &guard;
            chunk
        });
        Body::from_stream(stream)
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Accept {
    Both,
    /// One JSON answer and nothing else.
    Json,
    Neither,
}

impl Accept {
    fn of(headers: &HeaderMap) -> Accept {
        let mut any = false;
        let (mut json, mut stream) = (false, false);
        for value in headers.get_all(header::ACCEPT) {
            any = true;
            for entry in value.to_str().unwrap_or_default().split(',') {
                let mut parts = entry.split(';').map(str::trim);
                let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
                if parts.any(|p| matches!(p, "q=0" | "q=0.0" | "q=0.00" | "q=0.000")) {
                    continue;
                }
                match essence.as_str() {
                    "*/*" => (json, stream) = (true, true),
                    "application/json" | "application/*" => json = true,
                    "text/event-stream" | "text/*" => stream = true,
                    _ => {}
                }
            }
        }
        match (any, json, stream) {
            (false, _, _) | (_, true, true) => Accept::Both,
            (_, true, false) => Accept::Json,
            // A client that reads streams reads the JSON of a short answer as well.
            (_, false, true) => Accept::Both,
            (_, false, false) => Accept::Neither,
        }
    }
}

pub async fn serve(
    State(front): State<Arc<Front>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request<Body>,
) -> Response {
    let (parts, body) = request.into_parts();
    let origin = parts.headers.get(header::ORIGIN).cloned();
    if parts.method == Method::OPTIONS {
        return front.door.origins.preflight(&parts.uri, &parts.headers);
    }
    let visitor = front.door.visitor(&parts.headers, peer.ip());
    if let Err(error) = front.door.check_origin(&parts) {
        return front.refuse(error, &parts.headers, &visitor).await;
    }
    let admitted = front.door.admit(&parts.headers, &visitor, Face::Mcp);
    let mut response = match admitted.await {
        Ok(caller) => front.admitted(parts, body, caller, &visitor).await,
        Err(error) => front.refuse(error, &parts.headers, &visitor).await,
    };
    if let Ok(id) = HeaderValue::from_str(&visitor.request_id) {
        response.headers_mut().insert("x-request-id", id);
    }
    if let Some(origin) = origin {
        front.door.origins.allow(&mut response, origin);
    }
    response
}

fn reads_streams(headers: &HeaderMap) -> bool {
    text_header(headers, "accept").is_some_and(|accept| accept.contains("text/event-stream"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accept(text: &str) -> Accept {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT, HeaderValue::from_str(text).unwrap());
        Accept::of(&headers)
    }

    #[test]
    fn accept_is_read_kindly() {
        assert_eq!(Accept::of(&HeaderMap::new()), Accept::Both);
        assert_eq!(accept("*/*"), Accept::Both);
        assert_eq!(accept("application/json, text/event-stream"), Accept::Both);
        assert_eq!(accept("application/json;q=0.9"), Accept::Json);
        assert_eq!(accept("text/html"), Accept::Neither);
        assert_eq!(accept("application/json;q=0"), Accept::Neither);
    }
}
