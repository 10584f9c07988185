//! Answers of the REST face: JSON with an ETag, and one envelope for every failure.

use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use http::{header, HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use serde_json::{json, Value};
use sha2::{Digest, Sha256};

use crate::hex::hex;

pub const REPLAYED: HeaderName = HeaderName::from_static("x-idempotent-replay");

pub fn json(status: u16, body: &impl Serialize) -> Response {
    // Values we build ourselves always serialise.
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    typed(status, "application/json", bytes)
}

pub fn typed(status: u16, content_type: &'static str, bytes: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() =
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    // What a farm answers is one caller's, and stale at once.
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, no-cache"),
    );
    response
}

/// A JSON answer to a GET, or 304 if the caller has this very text already.
pub fn cacheable(body: &impl Serialize, asked: &HeaderMap) -> Response {
    let bytes = serde_json::to_vec(body).unwrap_or_default();
    let short = hex(&Sha256::digest(&bytes)[..12]);
    // Weak: compression changes the bytes, not the meaning.
    let tag = format!("W/\"{short}\"");
    let mut response = if has(asked, &short) {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        typed(200, "application/json", bytes)
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

fn has(asked: &HeaderMap, tag: &str) -> bool {
    let sent = asked.get_all(header::IF_NONE_MATCH);
    sent.iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| {
            value.split(',').any(|entry| {
                let entry = entry.trim();
                entry == "*" || entry.trim_start_matches("W/").trim_matches('"') == tag
            })
        })
}

/// The farm's error object as a response. `detail` stands outside as well, where ODIN's older clients look for it.
pub fn fail(mut error: Value, request_id: &Arc<str>) -> Response {
    let status = error["status"].as_u64().and_then(|s| u16::try_from(s).ok());
    let status = status.filter(|s| (400..600).contains(s)).unwrap_or(500);
    let wait = error["retry_after"]
        .as_f64()
        .map(|s| s.ceil().max(1.0) as u64);
    if error["status"] != status {
        error["status"] = status.into();
    }
    if error["request_id"].is_null() {
        error["request_id"] = json!(**request_id);
    }
    let mut response = json(status, &json!({"detail": error["detail"], "error": error}));
    if let Some(wait) = wait {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(wait));
    }
    response
}

/// An error object of the face itself, in the farm's own words.
pub fn error(code: &str, status: u16, detail: impl Into<String>, hint: &str) -> Value {
    let mut error = json!({"code": code, "detail": detail.into(), "retriable": status == 429, "status": status});
    if !hint.is_empty() {
        error["hint"] = hint.into();
    }
    error
}

pub fn invalid(field: &str, problem: &str) -> Value {
    let mut error = error(
        "validation_failed",
        422,
        format!("{field}: {problem}"),
        "Correct the named field and call again.",
    );
    error["field"] = field.into();
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_tag_needs_no_body() {
        let body = json!({"id": 1});
        let first = cacheable(&body, &HeaderMap::new());
        assert_eq!(first.status(), 200);
        let tag = first.headers()[header::ETAG].clone();
        let mut asked = HeaderMap::new();
        asked.insert(header::IF_NONE_MATCH, tag);
        assert_eq!(cacheable(&body, &asked).status(), 304);
        assert_eq!(cacheable(&json!({"id": 2}), &asked).status(), 200);
    }

    #[test]
    fn failures_carry_status_and_wait() {
        let error =
            json!({"code": "rate_limited", "detail": "d", "status": 429, "retry_after": 1.2});
        let response = fail(error, &"r1".into());
        assert_eq!(response.status(), 429);
        assert_eq!(response.headers()[header::RETRY_AFTER], "2");
        assert_eq!(fail(json!({"code": "x"}), &"r1".into()).status(), 500);
    }
}
