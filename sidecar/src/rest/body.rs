//! A request's body as a tool's arguments.

use axum::body::Body;
use http::HeaderMap;
use serde_json::{Map, Value};

use super::answer::{error, invalid};
use crate::door::{text, Door};

/// The body as arguments: a JSON object, or nothing.
pub async fn arguments(
    door: &Door,
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
    let bytes = door.bytes(headers, body).await?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(Map::new());
    }
    let value: Value = serde_json::from_slice(&bytes).map_err(|e| {
        door.app.metrics.refused("malformed");
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

/// PostgreSQL keeps no U+0000 in a text.
pub fn holds_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(map) => map.iter().any(|(k, v)| k.contains('\0') || holds_nul(v)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_nul_is_found_anywhere() {
        assert!(holds_nul(&json!({"a": [{"b": "x\u{0}"}]})));
        assert!(holds_nul(&json!({"a\u{0}": 1})));
        assert!(!holds_nul(&json!({"a": ["x", null, 1]})));
    }
}
