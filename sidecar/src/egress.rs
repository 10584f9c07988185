//! The one way out to the web: a list of hosts, no private addresses unless the operator names them, the address that was
//! checked is the one that is used, redirects checked like first requests, limits on size and time, and an air gap.
//! Printers have their own way (`printers::http`): they are in the farm.
//!
//! `Egress::new(&options)` once; then `get`/`post` for small answers, `open` for a body in pieces.

mod rules;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::{dns::Name, HttpConnector};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::{json, Value};
use tokio::time::Instant;
use url::Url;

pub use rules::EgressOptions;
use rules::Rules;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
const MOST_REDIRECTS: usize = 5;
const USER_AGENT: &str = concat!("odin-farm/", env!("CARGO_PKG_VERSION"));

/// Why nothing came back. Texts name hosts, never credentials, paths or queries.
#[derive(Debug, thiserror::Error)]
pub enum EgressError {
    #[error("{detail}")]
    Refused { detail: String, hint: &'static str },
    #[error("{0}")]
    Unreachable(String),
    #[error("{host} did not answer within {seconds} s")]
    TimedOut { host: String, seconds: u64 },
    #[error("the answer of {host} is larger than {most} bytes")]
    TooLarge { host: String, most: u64 },
    #[error("{0} broke off its answer")]
    BrokenOff(String),
}

impl EgressError {
    fn refused(detail: impl Into<String>, hint: &'static str) -> Self {
        EgressError::Refused {
            detail: detail.into(),
            hint,
        }
    }

    /// The same request may succeed later.
    pub fn retriable(&self) -> bool {
        !matches!(
            self,
            EgressError::Refused { .. } | EgressError::TooLarge { .. }
        )
    }

    /// The farm's error object.
    pub fn to_json(&self) -> Value {
        let (code, status) = match self {
            EgressError::Refused { .. } => ("egress_refused", 403),
            EgressError::TooLarge { .. } => ("file_too_large", 413),
            _ => ("upstream_unavailable", 503),
        };
        let mut error = json!({"code": code, "status": status, "retriable": self.retriable(), "detail": self.to_string()});
        if let EgressError::Refused { hint, .. } = self {
            error["hint"] = (*hint).into();
        }
        error
    }
}

/// How much and how long, redirects and body included.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub bytes: u64,
    pub within: Duration,
}

impl Limits {
    /// For the answer of an interface.
    pub const SMALL: Limits = Limits {
        bytes: 4 * 1024 * 1024,
        within: Duration::from_secs(20),
    };
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// An answer whose body is still on its way.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// Where it came from, after redirects.
    pub url: Url,
    body: Incoming,
    limits: Limits,
    until: Instant,
    taken: u64,
}

impl Reply {
    /// What the server says the body's size is.
    pub fn announced(&self) -> Option<u64> {
        self.body.size_hint().exact()
    }

    /// The next piece; `None` at the end. A body that is shorter than announced is an error.
    pub async fn piece(&mut self) -> Result<Option<Bytes>, EgressError> {
        let host = || host_of(&self.url);
        if self.announced().is_some_and(|n| n > self.limits.bytes) {
            return Err(self.too_large());
        }
        loop {
            let frame = tokio::time::timeout_at(self.until, self.body.frame())
                .await
                .map_err(|_| timed_out(&self.url, self.limits))?;
            let Some(frame) = frame else {
                return Ok(None);
            };
            let frame = frame.map_err(|_| EgressError::BrokenOff(host()))?;
            if let Ok(bytes) = frame.into_data() {
                self.taken += bytes.len() as u64;
                if self.taken > self.limits.bytes {
                    return Err(self.too_large());
                }
                return Ok(Some(bytes));
            }
        }
    }

    /// All of it.
    pub async fn whole(mut self) -> Result<Answer, EgressError> {
        let mut body = BytesMut::new();
        while let Some(piece) = self.piece().await? {
            body.extend_from_slice(&piece);
        }
        Ok(Answer {
            status: self.status,
            headers: self.headers,
            body: body.freeze(),
        })
    }

    fn too_large(&self) -> EgressError {
        EgressError::TooLarge {
            host: host_of(&self.url),
            most: self.limits.bytes,
        }
    }
}

type Web = Client<HttpsConnector<HttpConnector<Resolver>>, Full<Bytes>>;

/// Cheap to clone; connections are kept for a while.
#[derive(Clone)]
pub struct Egress {
    rules: Arc<Rules>,
    /// Two clients, because a name may be reached by TLS that may not be reached without.
    tls: Web,
    plain: Web,
}

impl Egress {
    pub fn new(options: &EgressOptions) -> Result<Self, String> {
        let rules = Arc::new(Rules::new(options));
        Ok(Egress {
            tls: web(&rules, true)?,
            plain: web(&rules, false)?,
            rules,
        })
    }

    /// What may be reached, in a few words.
    pub fn summary(&self) -> String {
        self.rules.summary()
    }

    pub async fn get(
        &self,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        limits: Limits,
    ) -> Result<Answer, EgressError> {
        self.open(url, headers, limits).await?.whole().await
    }

    /// Redirects are not followed: the answer has their status.
    pub async fn post(
        &self,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
        limits: Limits,
    ) -> Result<Answer, EgressError> {
        let reply = self
            .request(Method::POST, url, headers, body, limits)
            .await?;
        reply.whole().await
    }

    /// One request as it is. Redirects are not followed: the answer has their status.
    pub async fn request(
        &self,
        method: Method,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
        limits: Limits,
    ) -> Result<Reply, EgressError> {
        let url = self.rules.url(url)?;
        let until = Instant::now() + limits.within;
        self.send(method, url, headers, body, limits, until).await
    }

    /// GET, following redirects. `headers` go only to the origin they were meant for.
    pub async fn open(
        &self,
        url: &str,
        headers: &[(HeaderName, HeaderValue)],
        limits: Limits,
    ) -> Result<Reply, EgressError> {
        let mut url = self.rules.url(url)?;
        let first = url.origin();
        let until = Instant::now() + limits.within;
        for _ in 0..=MOST_REDIRECTS {
            let own = if url.origin() == first { headers } else { &[] };
            let reply = self
                .send(Method::GET, url.clone(), own, Bytes::new(), limits, until)
                .await?;
            let Some(next) = moved(&reply) else {
                return Ok(reply);
            };
            let next = url
                .join(&next)
                .map_err(|_| EgressError::BrokenOff(host_of(&url)))?;
            if url.scheme() == "https" && next.scheme() != "https" {
                return Err(EgressError::refused(
                    format!("{} redirects to an address without TLS", host_of(&url)),
                    "Give the address it redirects to.",
                ));
            }
            url = self.rules.url(next.as_str())?;
        }
        Err(EgressError::refused(
            format!(
                "{} redirects more than {MOST_REDIRECTS} times",
                host_of(&url)
            ),
            "Give the address it redirects to.",
        ))
    }

    async fn send(
        &self,
        method: Method,
        url: Url,
        headers: &[(HeaderName, HeaderValue)],
        body: Bytes,
        limits: Limits,
        until: Instant,
    ) -> Result<Reply, EgressError> {
        let mut request = Request::builder()
            .method(method)
            .uri(url.as_str())
            .header(header::USER_AGENT, USER_AGENT);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(body)).map_err(|_| {
            EgressError::refused(
                "no request can be made of this URL",
                "Give https://host/path.",
            )
        })?;
        let web = if url.scheme() == "https" {
            &self.tls
        } else {
            &self.plain
        };
        let response = tokio::time::timeout_at(until, web.request(request))
            .await
            .map_err(|_| timed_out(&url, limits))?
            .map_err(|e| self.failed(&url, &e))?;
        let (parts, body) = response.into_parts();
        Ok(Reply {
            status: parts.status,
            headers: parts.headers,
            url,
            body,
            limits,
            until,
            taken: 0,
        })
    }

    fn failed(&self, url: &Url, error: &hyper_util::client::legacy::Error) -> EgressError {
        let host = host_of(url);
        let mut words = String::new();
        let mut source: Option<&dyn std::error::Error> = Some(error);
        while let Some(e) = source {
            if e.is::<NoAddress>() {
                return self.rules.address_refused(&host);
            }
            words.push_str(&e.to_string().to_lowercase());
            source = e.source();
        }
        if !error.is_connect() {
            return EgressError::BrokenOff(host);
        }
        let has = |list: &[&str]| list.iter().any(|w| words.contains(w));
        let why = if has(&["dns", "lookup"]) {
            "its name cannot be resolved"
        } else if has(&["refused"]) {
            "the connection is refused"
        } else if has(&["certificate", "tls", "handshake", "corrupt message"]) {
            "TLS fails: its certificate is not trusted, or the port does not speak TLS"
        } else {
            "it cannot be reached"
        };
        EgressError::Unreachable(format!("{host}: {why}"))
    }
}

fn web(rules: &Arc<Rules>, tls: bool) -> Result<Web, String> {
    let resolver = Resolver {
        rules: rules.clone(),
        tls,
    };
    let mut connector = HttpConnector::new_with_resolver(resolver);
    connector.set_connect_timeout(Some(CONNECT_LIMIT));
    connector.enforce_http(false);
    connector.set_nodelay(true);
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
        .map_err(|e| format!("the system's certificates cannot be read: {e}"))?
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Ok(Client::builder(TokioExecutor::new())
        .pool_idle_timeout(Duration::from_secs(30))
        .pool_max_idle_per_host(4)
        .build(connector))
}

fn moved(reply: &Reply) -> Option<String> {
    let location = reply.headers.get(header::LOCATION)?.to_str().ok()?;
    matches!(reply.status.as_u16(), 301 | 302 | 303 | 307 | 308).then(|| location.to_owned())
}

fn host_of(url: &Url) -> String {
    url.host_str().unwrap_or_default().to_owned()
}

fn timed_out(url: &Url, limits: Limits) -> EgressError {
    EgressError::TimedOut {
        host: host_of(url),
        seconds: limits.within.as_secs(),
    }
}

/// Gives out only addresses that may be reached; the connection is made to exactly these, so a name cannot change its
/// mind between the check and the use.
#[derive(Clone)]
struct Resolver {
    rules: Arc<Rules>,
    tls: bool,
}

#[derive(Debug, thiserror::Error)]
#[error("no address that may be reached")]
struct NoAddress;

impl tower::Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let own = self.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let good: Vec<SocketAddr> = found
                .filter(|address| own.rules.may_reach(address.ip(), own.tls))
                .collect();
            if good.is_empty() {
                return Err(NoAddress.into());
            }
            Ok(good.into_iter())
        })
    }
}

#[cfg(test)]
mod tests;
