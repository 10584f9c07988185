//! The door of every HTTP face: Host and Origin, then who is calling, then the body. Refusals are the farm's error objects;
//! each face dresses them in its own way.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{header, request::Parts, HeaderMap, HeaderValue};
use serde_json::{json, Value};

use crate::app::App;
use crate::auth::{presented, Refusal};
use crate::config::Serve;
use crate::gateway::{Caller, Face};
use crate::limits::Counted;
use crate::origin::Origins;
use crate::rest::answer::{error, fail};
use crate::sign_in;

pub struct Door {
    pub app: Arc<App>,
    pub origins: Origins,
    trusted_proxies: Vec<IpAddr>,
    max_body: usize,
    body_timeout: Duration,
    /// The address people use, without a slash at its end.
    pub public_url: Option<String>,
}

/// Who stands outside, before any key is looked at.
pub struct Visitor {
    pub ip: IpAddr,
    /// Nobody on the way could have read a password: loopback, or TLS up to a proxy of ours.
    pub confidential: bool,
    /// The caller speaks TLS to a proxy of ours.
    pub tls: bool,
    pub request_id: Arc<str>,
}

impl Door {
    pub fn new(app: Arc<App>, config: &Serve) -> Self {
        Door {
            app,
            origins: Origins::new(config),
            trusted_proxies: config.trusted_proxies.clone(),
            max_body: config.max_body,
            body_timeout: config.body_timeout(),
            public_url: config
                .public_url
                .as_deref()
                .map(|url| url.trim_end_matches('/').to_owned()),
        }
    }

    pub fn visitor(&self, headers: &HeaderMap, peer: IpAddr) -> Visitor {
        let trusted = self.trusted_proxies.contains(&peer);
        let forwarded = text(headers, "x-forwarded-for");
        let ip = match forwarded {
            Some(list) if trusted => list
                .rsplit(',')
                .filter_map(|entry| entry.trim().parse().ok())
                .find(|ip| !self.trusted_proxies.contains(ip))
                .unwrap_or(peer),
            _ => peer,
        };
        let proxied = forwarded.is_some() || headers.contains_key(header::FORWARDED);
        let tls =
            text(headers, "x-forwarded-proto").is_some_and(|p| p.eq_ignore_ascii_case("https"));
        Visitor {
            ip,
            // A proxy nobody declared may have taken the request from anywhere in the clear.
            confidential: if trusted {
                tls
            } else {
                peer.is_loopback() && !proxied
            },
            tls: trusted && tls,
            request_id: request_id(headers),
        }
    }

    pub fn check_origin(&self, parts: &Parts) -> Result<(), Value> {
        self.origins
            .check(&parts.uri, &parts.headers)
            .map_err(|why| {
                self.app.metrics.refused("origin");
                error("permission_denied", 403, why, "")
            })
    }

    /// The key's owner.
    pub async fn admit(
        &self,
        headers: &HeaderMap,
        visitor: &Visitor,
        face: Face,
    ) -> Result<Arc<Caller>, Value> {
        let admitted = match presented(headers) {
            Ok(key) => self.app.auth.authenticate(key, Some(visitor.ip)).await,
            Err(refusal) => Err(refusal),
        };
        let principal = admitted.map_err(|refusal| {
            self.app.metrics.refused("auth");
            refused(refusal)
        })?;
        let toolsets = text(headers, "x-mcp-toolsets").map(|list| {
            list.split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(str::to_owned)
                .collect::<Arc<[String]>>()
        });
        Ok(Arc::new(Caller {
            principal,
            face,
            ip: Some(visitor.ip),
            request_id: visitor.request_id.clone(),
            toolsets: toolsets.filter(|list| !list.is_empty()),
            readonly: text(headers, "x-mcp-readonly").is_some_and(|v| truthy(v) == Some(true)),
        }))
    }

    /// Count a call among the caller's, or say when there is room for it.
    pub fn counted(&self, caller: &Caller, tool: &str) -> Result<Counted, Value> {
        let counted = self.app.limits.call(&caller.principal, tool);
        counted.map_err(|too_many| {
            self.app.metrics.refused("rate");
            too_many.error()
        })
    }

    /// A refusal with what HTTP wants besides the envelope.
    pub async fn refuse(&self, mut error: Value, asked: &HeaderMap, visitor: &Visitor) -> Response {
        // A wider scope is asked for by whoever is refused at the door, not by a tool.
        let challenge = match error["status"] == 401 {
            true => self.challenge(asked, visitor, &error).await,
            false => None,
        };
        let allow = error["allow"]
            .as_str()
            .and_then(|text| HeaderValue::from_str(text).ok());
        let close = error["status"] == 408;
        forget_presented(&mut error);
        let mut response = fail(error, &visitor.request_id);
        let headers = response.headers_mut();
        if let Some(challenge) = challenge {
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(allow) = allow {
            headers.insert(header::ALLOW, allow);
        }
        if close {
            // What is still on its way belongs to this request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// WWW-Authenticate for a refusal: how to come back with something better.
    pub async fn challenge(
        &self,
        headers: &HeaderMap,
        visitor: &Visitor,
        refusal: &Value,
    ) -> Option<HeaderValue> {
        let error = match refusal["code"].as_str()? {
            "not_authenticated" if refusal["scheme"] == "basic" => {
                return Some(HeaderValue::from_static(
                    "Basic realm=\"odin_farm\", charset=\"UTF-8\"",
                ))
            }
            "not_authenticated" if refusal["presented"] == Value::Bool(false) => "",
            "not_authenticated" => ", error=\"invalid_token\"",
            "scope_denied" => ", error=\"insufficient_scope\"",
            _ => return None,
        };
        let mut text = format!("Bearer realm=\"odin_farm\"{error}");
        let issuers = self.app.issuers.known(&self.app.gateway).await;
        if let (Some(issuers), Some(base)) = (issuers, self.base_url(headers, visitor)) {
            text.push_str(&sign_in::challenge(&issuers, &base));
        }
        HeaderValue::from_str(&text).ok()
    }

    /// The address this farm is reached under, as far as the caller's own request tells.
    pub fn base_url(&self, headers: &HeaderMap, visitor: &Visitor) -> Option<String> {
        if let Some(url) = &self.public_url {
            return Some(url.clone());
        }
        // Checked against the hosts served here before anything is answered.
        let host = text(headers, header::HOST.as_str())?;
        let scheme = if visitor.tls { "https" } else { "http" };
        Some(format!("{scheme}://{host}"))
    }

    /// The whole body, within the limits of size and time.
    pub async fn bytes(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, Value> {
        let too_large = || {
            self.app.metrics.refused("body_size");
            let detail = format!("The body is larger than {} bytes.", self.max_body);
            error("request_too_large", 413, detail, "")
        };
        let announced = text(headers, "content-length").and_then(|n| n.parse::<usize>().ok());
        let mut stream = body.into_data_stream();
        if announced.is_some_and(|n| n > self.max_body) {
            self.swallow(&mut stream).await;
            return Err(too_large());
        }
        let read = async {
            let mut bytes = BytesMut::with_capacity(announced.unwrap_or(0));
            while let Some(chunk) = stream.next().await {
                let Ok(chunk) = chunk else {
                    return Err(error("validation_failed", 400, "The body ended early.", ""));
                };
                if bytes.len() + chunk.len() > self.max_body {
                    return Err(too_large());
                }
                bytes.extend_from_slice(&chunk);
            }
            Ok(bytes.freeze())
        };
        match tokio::time::timeout(self.body_timeout, read).await {
            Ok(Err(error)) if error["status"] == 413 => {
                // In its own time: a slow sender is told that it is too much, not that it is too late.
                self.swallow(&mut stream).await;
                Err(error)
            }
            Ok(result) => result,
            Err(_) => {
                self.app.metrics.refused("body_time");
                Err(error(
                    "timeout",
                    408,
                    "The body did not arrive in time.",
                    "",
                ))
            }
        }
    }

    /// Take in some of what is still coming: a client that is cut off while it sends never reads why.
    pub async fn swallow(&self, stream: &mut axum::body::BodyDataStream) {
        const MOST: usize = 32 * 1024 * 1024;
        let mut taken = 0;
        let reading = async {
            while let Some(Ok(chunk)) = stream.next().await {
                taken += chunk.len();
                if taken > MOST {
                    return;
                }
            }
        };
        // Whoever is slower than this is cut off.
        let _ = tokio::time::timeout(self.body_timeout, reading).await;
    }
}

/// ODIN's words for a flag in a header. None: neither yes nor no.
pub fn truthy(value: &str) -> Option<bool> {
    match value.trim().to_ascii_lowercase().as_str() {
        "true" | "1" | "yes" | "on" => Some(true),
        "false" | "0" | "no" | "off" | "" => Some(false),
        _ => None,
    }
}

/// A header's text, if it is text.
pub fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

pub fn refused(refusal: Refusal) -> Value {
    match refusal {
        Refusal::Missing => {
            let hint = "Send Authorization: Bearer <key>, or X-API-Key: <key>.";
            let mut error = error("not_authenticated", 401, "No key was presented.", hint);
            error["presented"] = false.into();
            error
        }
        Refusal::Unknown(error) | Refusal::Unavailable(error) => error,
        Refusal::Slow { retry_after } => {
            let detail = "Too many wrong keys or passwords came from this address.";
            let mut error = error("rate_limited", 429, detail, "Check the key, and wait.");
            error["retry_after"] = json!(retry_after);
            error
        }
    }
}

/// Whether a key came at all is for the challenge, not for the answer.
pub fn forget_presented(error: &mut Value) {
    if let Some(error) = error.as_object_mut() {
        error.shift_remove("presented");
    }
}

/// The caller's own request id if it is a tame one, else a new one.
fn request_id(headers: &HeaderMap) -> Arc<str> {
    let tame = |id: &&str| {
        (1..=64).contains(&id.len())
            && id
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    };
    match text(headers, "x-request-id").filter(tame) {
        Some(id) => id.into(),
        None => crate::random_id().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_as_odin_reads_them() {
        for yes in ["true", "1", "YES", " on "] {
            assert_eq!(truthy(yes), Some(true));
        }
        assert_eq!(truthy("false"), Some(false));
        assert_eq!(truthy("maybe"), None);
    }
}
