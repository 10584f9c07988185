//! The door of /mcp. In this order: Host and Origin, the key, the body; then the revision decides who serves it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{header, request::Parts, HeaderMap, HeaderValue, Method, Request, StatusCode};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::{json, Value};

use super::ask::Link;
use super::handler::Handler;
use super::legacy;
use super::message::{
    header as text_header, Kind, Message, INVALID_REQUEST, METHOD_NOT_FOUND, MODERN, VERSION_HEADER,
};
use super::{farm_error, not_allowed, rpc_error};
use crate::app::App;
use crate::auth::{presented, Refusal};
use crate::config::Serve;
use crate::gateway::{Caller, Face};
use crate::limits::Counted;
use crate::origin::Origins;

tokio::task_local! {
    /// The handler of the request being served: rmcp's factory is not given the request.
    static CURRENT: Handler;
}

type Modern = StreamableHttpService<Handler, NeverSessionManager>;

pub struct Front {
    app: Arc<App>,
    modern: Modern,
    origins: Origins,
    trusted_proxies: Vec<IpAddr>,
    max_body: usize,
    body_timeout: Duration,
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
            origins: Origins::new(config),
            trusted_proxies: config.trusted_proxies.clone(),
            max_body: config.max_body,
            body_timeout: config.body_timeout(),
            max_streams: config.max_streams,
            app,
        }
    }

    /// Who is really calling: the nearest address that is no proxy of ours.
    pub fn client_ip(&self, headers: &HeaderMap, peer: IpAddr) -> IpAddr {
        if !self.trusted_proxies.contains(&peer) {
            return peer;
        }
        let forwarded = text_header(headers, "x-forwarded-for").unwrap_or_default();
        forwarded
            .rsplit(',')
            .filter_map(|text| text.trim().parse().ok())
            .find(|ip| !self.trusted_proxies.contains(ip))
            .unwrap_or(peer)
    }

    /// Host, Origin and key, for any face. `Err` is the finished refusal.
    pub async fn admit(
        &self,
        parts: &Parts,
        peer: IpAddr,
        face: Face,
    ) -> Result<Arc<Caller>, Box<Response>> {
        let headers = &parts.headers;
        if let Err(text) = self.origins.check(&parts.uri, headers) {
            self.app.metrics.refused("origin");
            return Err(Box::new(rpc_error(
                StatusCode::FORBIDDEN,
                None,
                -403,
                text.to_owned(),
                None,
            )));
        }
        let ip = self.client_ip(headers, peer);
        let key = presented(headers);
        let admitted = match key {
            Ok(key) => self.app.auth.authenticate(key, Some(ip)).await,
            Err(refusal) => Err(refusal),
        };
        let principal = admitted.map_err(|refusal| {
            self.app.metrics.refused("auth");
            Box::new(refused(refusal))
        })?;
        let toolsets = text_header(headers, "x-mcp-toolsets").map(|text| {
            text.split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect::<Arc<[String]>>()
        });
        Ok(Arc::new(Caller {
            principal,
            face,
            ip: Some(ip),
            request_id: request_id(headers),
            toolsets: toolsets.filter(|list| !list.is_empty()),
            readonly: text_header(headers, "x-mcp-readonly").is_some_and(|text| {
                matches!(text.to_ascii_lowercase().as_str(), "true" | "1" | "yes")
            }),
        }))
    }

    async fn body(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, Box<Response>> {
        let too_large = || {
            self.app.metrics.refused("body_size");
            let text = format!("The body is larger than {} bytes.", self.max_body);
            let data = json!({"error": {"code": "payload_too_large", "retriable": false,
                                        "status": 413, "detail": text}});
            Box::new(rpc_error(
                StatusCode::PAYLOAD_TOO_LARGE,
                None,
                -413,
                text,
                Some(data),
            ))
        };
        let announced = headers
            .get(header::CONTENT_LENGTH)
            .and_then(|n| n.to_str().ok()?.parse::<usize>().ok());
        if announced.is_some_and(|n| n > self.max_body) {
            return Err(too_large());
        }
        let mut stream = body.into_data_stream();
        let read = async {
            let mut bytes = BytesMut::with_capacity(announced.unwrap_or(0));
            while let Some(chunk) = stream.next().await {
                let Ok(chunk) = chunk else {
                    let text = "The body ended early.".to_owned();
                    return Err(Box::new(rpc_error(
                        StatusCode::BAD_REQUEST,
                        None,
                        INVALID_REQUEST,
                        text,
                        None,
                    )));
                };
                if bytes.len() + chunk.len() > self.max_body {
                    return Err(too_large());
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes.freeze())
        };
        match tokio::time::timeout(self.body_timeout, read).await {
            Ok(result) => result,
            Err(_) => {
                self.app.metrics.refused("body_time");
                let text = "The body did not arrive in time.".to_owned();
                let mut response = rpc_error(StatusCode::REQUEST_TIMEOUT, None, -408, text, None);
                // What is still on its way belongs to this request.
                response
                    .headers_mut()
                    .insert(header::CONNECTION, HeaderValue::from_static("close"));
                Err(Box::new(response))
            }
        }
    }

    async fn post(&self, parts: Parts, body: Body, caller: Arc<Caller>) -> Response {
        let bytes = match self.body(&parts.headers, body).await {
            Ok(bytes) => bytes,
            Err(response) => return *response,
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
            (Some(tool), Kind::Request) => match self.app.limits.call(&caller.principal, tool) {
                Ok(counted) => Some(counted),
                Err(too_many) => {
                    self.app.metrics.refused("rate");
                    return farm_error(message.id().cloned(), rate_limited(&too_many));
                }
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
        };
        match message.method() {
            // rmcp compares Mcp-Param-* headers with the tool's schema, and can only look it up, not ask for it.
            "tools/call" => {
                let _ = self.app.registry.tools(&caller).await;
            }
            "subscriptions/listen" => {
                match self.app.limits.stream(&caller.principal, self.max_streams) {
                    Ok(stream) => counted = Some(stream),
                    Err(too_many) => {
                        return farm_error(message.id().cloned(), rate_limited(&too_many))
                    }
                }
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

fn rate_limited(too_many: &crate::limits::TooMany) -> Value {
    json!({
        "code": "rate_limited", "status": 429, "retriable": true,
        "retry_after": too_many.retry_after,
        "detail": format!("Too many {} with this key.", too_many.what),
        "hint": format!("Wait {} s and repeat the call.", too_many.retry_after),
    })
}

fn refused(refusal: Refusal) -> Response {
    let (error, challenge) = match refusal {
        Refusal::Missing => (
            json!({"code": "not_authenticated", "status": 401, "retriable": false,
                   "detail": "No key was presented.",
                   "hint": "Send Authorization: Bearer <key>, or X-API-Key."}),
            Some("Bearer realm=\"odin_farm\""),
        ),
        Refusal::Unknown(error) if error["status"] == 403 => (
            error,
            Some("Bearer realm=\"odin_farm\", error=\"insufficient_scope\""),
        ),
        Refusal::Unknown(error) => (
            error,
            Some("Bearer realm=\"odin_farm\", error=\"invalid_token\""),
        ),
        Refusal::Slow { retry_after } => (
            json!({"code": "rate_limited", "status": 429, "retriable": true,
                   "retry_after": retry_after,
                   "detail": "Too many keys that do not exist came from this address.",
                   "hint": "Check the key, and wait."}),
            None,
        ),
        Refusal::Unavailable(error) => (error, None),
    };
    let mut response = farm_error(None, error);
    if let Some(challenge) = challenge {
        response.headers_mut().insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static(challenge),
        );
    }
    response
}

/// The caller's own request id if it is a tame one, else a new one.
fn request_id(headers: &HeaderMap) -> Arc<str> {
    let tame = |id: &&str| {
        (1..=64).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    match text_header(headers, "x-request-id").filter(tame) {
        Some(id) => id.into(),
        None => crate::random_id().into(),
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
        return front.origins.preflight(&parts.uri, &parts.headers);
    }
    let caller = match front.admit(&parts, peer.ip(), Face::Mcp).await {
        Ok(caller) => caller,
        Err(response) => return *response,
    };
    let id = caller.request_id.clone();
    let modern = text_header(&parts.headers, VERSION_HEADER).is_some_and(|v| v >= MODERN);
    let over = !modern && legacy::is_over(&front.app, &caller, &parts.headers);
    let mut response = match parts.method {
        _ if over => rpc_error(
            StatusCode::NOT_FOUND,
            None,
            -404,
            "This session has ended; start a new one with initialize.".to_owned(),
            None,
        ),
        Method::POST => front.post(parts, body, caller).await,
        Method::GET if !modern && reads_streams(&parts.headers) => {
            let app = front.app.clone();
            legacy::stream(app, caller, &parts.headers, front.max_streams).await
        }
        Method::DELETE if !modern => legacy::end(&front.app, &caller, &parts.headers).await,
        _ => not_allowed("POST"),
    };
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("x-request-id", id);
    }
    if let Some(origin) = origin {
        front.origins.allow(&mut response, origin);
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
