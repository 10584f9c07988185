//! The door of the REST face: Host and Origin, then who is calling, then the body. Refusals are the farm's error objects.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use http::{header, request::Parts, HeaderMap};
use serde_json::{json, Map, Value};

use super::answer::{error, invalid};
use crate::app::App;
use crate::auth::{presented, Refusal};
use crate::config::Serve;
use crate::gateway::{Caller, Face};
use crate::origin::Origins;

pub struct Door {
    pub app: Arc<App>,
    pub origins: Origins,
    trusted_proxies: Vec<IpAddr>,
    max_body: usize,
    body_timeout: Duration,
}

/// Who stands outside, before any key is looked at.
pub struct Visitor {
    pub ip: IpAddr,
    /// Nobody on the way could have read a password: loopback, or TLS up to a proxy of ours.
    pub confidential: bool,
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
            face: Face::Rest,
            ip: Some(visitor.ip),
            request_id: visitor.request_id.clone(),
            toolsets: toolsets.filter(|list| !list.is_empty()),
            readonly: text(headers, "x-mcp-readonly").is_some_and(|v| truthy(v) == Some(true)),
        }))
    }

    /// The body as arguments: a JSON object, or nothing.
    pub async fn arguments(
        &self,
        headers: &HeaderMap,
        body: Body,
    ) -> Result<Map<String, Value>, Value> {
        if text(headers, "content-type")
            .is_some_and(|t| t.to_ascii_lowercase().starts_with("multipart/"))
        {
            let hint = "Send the arguments as a JSON object.";
            return Err(error(
                "idempotency_unsupported",
                415,
                "A multipart body is not understood here.",
                hint,
            ));
        }
        let bytes = self.bytes(headers, body).await?;
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Ok(Map::new());
        }
        let value: Value = serde_json::from_slice(&bytes).map_err(|e| {
            self.app.metrics.refused("malformed");
            let detail = format!("The body is not JSON: {e}.");
            error(
                "validation_failed",
                400,
                detail,
                "Send a JSON object with Content-Type: application/json.",
            )
        })?;
        if holds_nul(&value) {
            return Err(invalid("body", "text may not hold the character U+0000"));
        }
        match value {
            Value::Object(map) => Ok(map),
            _ => Err(invalid("body", "must be a JSON object of arguments")),
        }
    }

    async fn bytes(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, Value> {
        let too_large = || {
            self.app.metrics.refused("body_size");
            let detail = format!("The body is larger than {} bytes.", self.max_body);
            error("request_too_large", 413, detail, "")
        };
        let announced = text(headers, "content-length").and_then(|n| n.parse::<usize>().ok());
        let mut stream = body.into_data_stream();
        if announced.is_some_and(|n| n > self.max_body) {
            swallow(&mut stream).await;
            return Err(too_large());
        }
        let read = async {
            let mut bytes = BytesMut::with_capacity(announced.unwrap_or(0));
            while let Some(chunk) = stream.next().await {
                let Ok(chunk) = chunk else {
                    return Err(error("validation_failed", 400, "The body ended early.", ""));
                };
                if bytes.len() + chunk.len() > self.max_body {
                    swallow(&mut stream).await;
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
                Err(error(
                    "timeout",
                    408,
                    "The body did not arrive in time.",
                    "",
                ))
            }
        }
    }
}

/// Take in some of what is still coming: a client that is cut off while it sends never reads why.
async fn swallow(stream: &mut axum::body::BodyDataStream) {
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
    let _ = tokio::time::timeout(Duration::from_secs(2), reading).await;
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

/// PostgreSQL keeps no U+0000 in a text.
pub fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(map) => map.iter().any(|(k, v)| k.contains('\0') || holds_nul(v)),
        _ => false,
    }
}

pub fn refused(refusal: Refusal) -> Value {
    match refusal {
        Refusal::Missing => error(
            "not_authenticated",
            401,
            "No key was presented.",
            "Send X-API-Key: <key>, or Authorization: Bearer <key>.",
        ),
        Refusal::Unknown(error) | Refusal::Unavailable(error) => error,
        Refusal::Slow { retry_after } => {
            let detail = "Too many wrong keys or passwords came from this address.";
            let mut error = error("rate_limited", 429, detail, "Check the key, and wait.");
            error["retry_after"] = json!(retry_after);
            error
        }
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

    #[test]
    fn a_nul_is_found_anywhere() {
        assert!(holds_nul(&json!({"a": [{"b": "x\u{0}"}]})));
        assert!(holds_nul(&json!({"a\u{0}": 1})));
        assert!(!holds_nul(&json!({"a": ["x", null, 1]})));
    }
}
