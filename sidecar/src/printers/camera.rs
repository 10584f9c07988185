//! A picture from a printer's camera: fetched once, judged by its first bytes, stored by the database under the command's lease.

use base64::engine::general_purpose::STANDARD;
use base64::Engine;
use serde_json::{json, Value};

use super::driver::Fault;
use super::http::Http;
use super::order::Order;
use super::Shared;

const PICTURE: &str = "SELECT odin.worker_command_picture($1, $2, $3, $4)";
const MOST: usize = 8 * 1024 * 1024;

pub async fn snapshot(shared: &Shared, order: &Order) -> Result<Value, Fault> {
    let url = order.arguments["url"].as_str().unwrap_or_default();
    let picture = fetch(url).await?;
    let ending = kind_of(&picture).ok_or_else(|| {
        Fault::odd("the camera answers with something that is no JPEG, PNG or WebP picture")
    })?;
    let body = json!({"base64": STANDARD.encode(&picture), "ending": ending});
    let stored = shared
        .db
        .quick(PICTURE, &[&order.id, &shared.holder, &order.fence, &body])
        .await
        .map_err(|e| Fault::odd(format!("the picture could not be stored: {e}")))?;
    if stored["ok"] != true {
        return Err(Fault::odd(
            "the printer was handed to another sidecar meanwhile; ask again",
        ));
    }
    let name = stored["name"].as_str().unwrap_or_default();
    Ok(json!({
        "detail": format!("The picture is stored as {name}."),
        "picture": {"file_id": stored["file_id"], "sha256": stored["sha256"], "name": name, "bytes": stored["bytes"]},
    }))
}

async fn fetch(url: &str) -> Result<bytes::Bytes, Fault> {
    let (base, path) = split(url);
    let http = Http::new(base, &[])?;
    let answer = http.get(&path).await.map_err(|fault| {
        Fault::unreachable(format!(
            "{fault}. camera_url must give one picture, not a stream"
        ))
    })?;
    if !answer.status.is_success() {
        return Err(Fault::odd(format!(
            "the camera answers {}",
            answer.status.as_u16()
        )));
    }
    if answer.body.len() > MOST {
        return Err(Fault::odd("the camera's picture is larger than 8 MiB"));
    }
    Ok(answer.body)
}

/// Server and the rest of an address.
fn split(url: &str) -> (&str, String) {
    let start = url.find("://").map_or(0, |at| at + 3);
    match url[start..].find(['/', '?']) {
        Some(at) if url[start + at..].starts_with('/') => {
            (&url[..start + at], url[start + at..].to_owned())
        }
        Some(at) => (&url[..start + at], format!("/{}", &url[start + at..])),
        None => (url, "/".to_owned()),
    }
}

fn kind_of(picture: &[u8]) -> Option<&'static str> {
    match picture {
        [0xFF, 0xD8, 0xFF, ..] => Some("jpg"),
        [0x89, b'P', b'N', b'G', ..] => Some("png"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_pictures() {
        assert_eq!(
            split("http://cam:8080/webcam/?action=snapshot"),
            ("http://cam:8080", "/webcam/?action=snapshot".to_owned())
        );
        assert_eq!(split("http://cam?x"), ("http://cam", "/?x".to_owned()));
        assert_eq!(split("http://cam"), ("http://cam", "/".to_owned()));
        assert_eq!(kind_of(&[0xFF, 0xD8, 0xFF, 0xE0]), Some("jpg"));
        assert_eq!(kind_of(b"<html>"), None);
        assert_eq!(kind_of(b""), None);
    }
}
