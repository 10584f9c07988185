//! rmcp refuses some requests in plain text; a JSON-RPC client wants to read why.

use axum::body::Body;
use axum::response::Response;
use http::{header, StatusCode};
use serde_json::Value;

use super::message::{INVALID_PARAMS, INVALID_REQUEST};
use super::rpc_error;

/// Plain texts of a refusal are short; anything longer is not one.
const LONGEST: usize = 4096;

pub async fn tidy(response: Response, id: Option<&Value>) -> Response {
    let status = response.status();
    let typed = response.headers().contains_key(header::CONTENT_TYPE);
    let json = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|t| t.as_bytes().starts_with(b"application/json"));
    if status.is_success() || (typed && json) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let Ok(bytes) = axum::body::to_bytes(body, LONGEST).await else {
        return Response::from_parts(parts, Body::empty());
    };
    let text = String::from_utf8_lossy(&bytes);
    // What does not parse as a request although it is JSON-RPC has wrong params.
    if status == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        return rpc_error(
            StatusCode::BAD_REQUEST,
            id.cloned(),
            INVALID_PARAMS,
            "Invalid params.".to_owned(),
            None,
        );
    }
    if status.is_server_error() {
        tracing::error!(%status, %text, "the protocol layer failed");
        return rpc_error(
            StatusCode::SERVICE_UNAVAILABLE,
            id.cloned(),
            -503,
            "The request could not be served; try again.".to_owned(),
            None,
        );
    }
    let text = super::printable(text.trim_start_matches("Bad Request: "));
    rpc_error(status, id.cloned(), INVALID_REQUEST, text, None)
}
