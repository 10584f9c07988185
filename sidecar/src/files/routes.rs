//! PUT /files/NAME and GET /files/SHA256. Uploads stream into the store chunk by chunk; downloads need a key, or a link
//! that get_file gave out. In this order: Host and Origin, the key, the bytes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, State};
use axum::response::Response;
use axum::routing::{get, put};
use axum::Router;
use futures::StreamExt;
use http::{header, request::Parts, HeaderMap, HeaderValue, Method, Request, StatusCode};
use serde::Deserialize;
use serde_json::{json, Value};
use sha2::{Digest, Sha256};

use super::objects::Objects;
use super::reading::{Door as Way, Reading};
use super::{Chunker, FileError};
use crate::app::App;
use crate::config::Serve;
use crate::db::Live;
use crate::door::{text, Door, Visitor};
use crate::egress::Egress;
use crate::gateway::{CallOptions, Caller, Face, Outcome};
use crate::hex::hex;
use crate::rest::answer::{self, error};

const BEGIN: &str = "SELECT odin.gateway_upload_begin($1, $2, $3)";
const SEND: &str = "SELECT odin.gateway_upload_chunk($1, $2, $3, $4)";
const ABORT: &str = "SELECT odin.gateway_upload_abort($1, $2)";
const FILE: &str = "SELECT odin.gateway_file($1)";

/// A sender that says nothing for so long has gone away.
const SILENCE: Duration = Duration::from_secs(30);

struct Desk {
    door: Door,
    app: Arc<App>,
    objects: Objects,
}

pub fn router(app: Arc<App>, config: &Serve) -> Result<Router, String> {
    let egress = Egress::new(&config.common.egress)?;
    let desk = Arc::new(Desk {
        door: Door::new(app.clone(), config),
        app,
        objects: Objects::new(egress, config.common.keyring()?),
    });
    Ok(Router::new()
        .route("/files/{*name}", put(upload).merge(get(download)))
        .layer(DefaultBodyLimit::disable())
        .with_state(desk))
}

type Refused = Value;

impl Desk {
    async fn ask(
        &self,
        sql: &'static str,
        params: crate::db::Params<'_>,
    ) -> Result<Value, Refused> {
        let answer = self
            .app
            .gateway
            .db()
            .quick(sql, params)
            .await
            .map_err(|e| e.to_json())?;
        if answer["ok"] == Value::Bool(true) {
            Ok(answer)
        } else {
            Err(answer["error"].clone())
        }
    }

    async fn call(&self, caller: &Caller, tool: &str, arguments: Value) -> Result<Value, Refused> {
        let options = CallOptions::default();
        match self
            .app
            .gateway
            .call(caller, tool, &arguments, options, Live::default())
            .await
        {
            Outcome::Complete { result, .. } => Ok(result),
            Outcome::Error(error) => Err(error),
            _ => Err(error(
                "internal_error",
                500,
                "The farm answered in an unexpected way.",
                "",
            )),
        }
    }
}

async fn upload(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(name): Path<String>,
    request: Request<Body>,
) -> Response {
    let (parts, body) = request.into_parts();
    let visitor = desk.door.visitor(&parts.headers, peer.ip());
    let mut stream = body.into_data_stream();
    match take(&desk, &parts, &visitor, &name, &mut stream).await {
        Ok(stored) => answer::json(
            if stored["duplicate"] == true {
                200
            } else {
                201
            },
            &stored,
        ),
        Err(error) => {
            // Who waits to be asked for the body has not sent any of it; who fell silent sends no more.
            if !parts.headers.contains_key(header::EXPECT) && error["status"] != 408 {
                desk.door.swallow(&mut stream).await;
            }
            let mut response = desk.door.refuse(error, &parts.headers, &visitor).await;
            // What is still on its way belongs to this request.
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("close"));
            response
        }
    }
}

async fn take(
    desk: &Desk,
    parts: &Parts,
    visitor: &Visitor,
    name: &str,
    stream: &mut BodyDataStream,
) -> Result<Value, Refused> {
    desk.door.check_origin(parts)?;
    let caller = desk.door.admit(&parts.headers, visitor, Face::Rest).await?;
    let _counted = desk.door.counted(&caller, "upload_file")?;
    let announced = text(&parts.headers, "content-length").and_then(|n| n.parse::<u64>().ok());
    let credential = caller.credential().as_str();
    let options = Value::Object(caller.options());
    let about = json!({"name": name, "bytes": announced});
    let begun = desk.ask(BEGIN, &[&credential, &about, &options]).await?;
    let upload = begun["upload"].as_i64().unwrap_or_default();
    let wanted = text(&parts.headers, "x-content-sha256").map(str::to_ascii_lowercase);
    let sent = send(
        desk,
        credential,
        upload,
        stream,
        announced,
        wanted.as_deref(),
    )
    .await;
    let stored = match sent {
        Ok(sha256) => {
            let arguments = json!({"upload": upload, "sha256": sha256, "name": name});
            desk.call(&caller, "finish_upload", arguments).await
        }
        Err(error) => Err(error),
    };
    if stored.is_err() {
        // Best effort: the clock removes what stays open.
        let _ = desk
            .app
            .gateway
            .db()
            .quick(ABORT, &[&credential, &upload])
            .await;
    }
    stored
}

/// The hash of everything that arrived, once it is in the store.
async fn send(
    desk: &Desk,
    credential: &str,
    upload: i64,
    stream: &mut BodyDataStream,
    announced: Option<u64>,
    wanted: Option<&str>,
) -> Result<String, Refused> {
    let mut hash = Sha256::new();
    let mut chunker = Chunker::default();
    let mut chunks = 0i32;
    let mut bytes = 0u64;
    loop {
        let piece = tokio::time::timeout(SILENCE, stream.next()).await;
        let piece = piece.map_err(|_| {
            error(
                "timeout",
                408,
                "The body stopped arriving.",
                "Send the file again.",
            )
        })?;
        let full = match piece {
            Some(Ok(piece)) => {
                hash.update(&piece);
                bytes += piece.len() as u64;
                chunker.push(&piece)
            }
            Some(Err(_)) => {
                return Err(error(
                    "validation_failed",
                    400,
                    "The body ended early.",
                    "Send the file again.",
                ))
            }
            None => break,
        };
        for chunk in full {
            desk.ask(SEND, &[&credential, &upload, &chunks, &chunk.as_ref()])
                .await?;
            chunks += 1;
        }
    }
    if let Some(chunk) = chunker.rest() {
        desk.ask(SEND, &[&credential, &upload, &chunks, &chunk.as_ref()])
            .await?;
    }
    if announced.is_some_and(|n| n != bytes) {
        return Err(error(
            "validation_failed",
            400,
            "The body ended early.",
            "Send the file again.",
        ));
    }
    let found = hex(&hash.finalize());
    if wanted.is_some_and(|wanted| wanted != found) {
        let detail = "The bytes that arrived do not have the SHA-256 of X-Content-SHA256.";
        return Err(error("file_corrupt", 422, detail, "Send the file again."));
    }
    Ok(found)
}

#[derive(Deserialize)]
struct Link {
    ticket: Option<String>,
}

async fn download(
    State(desk): State<Arc<Desk>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Path(name): Path<String>,
    Query(link): Query<Link>,
    request: Request<Body>,
) -> Response {
    let (parts, _) = request.into_parts();
    let visitor = desk.door.visitor(&parts.headers, peer.ip());
    match give(desk.clone(), &parts, &visitor, &name, link.ticket).await {
        Ok(response) => response,
        Err(error) => desk.door.refuse(error, &parts.headers, &visitor).await,
    }
}

async fn give(
    desk: Arc<Desk>,
    parts: &Parts,
    visitor: &Visitor,
    name: &str,
    ticket: Option<String>,
) -> Result<Response, Refused> {
    desk.door.check_origin(parts)?;
    let ticket = match ticket {
        Some(ticket) => ticket,
        None => {
            let caller = desk.door.admit(&parts.headers, visitor, Face::Rest).await?;
            let file = desk
                .call(&caller, "get_file", json!({"file": name}))
                .await?;
            let url = file["download_url"].as_str().unwrap_or_default();
            url.split_once("ticket=")
                .map(|(_, t)| t.to_owned())
                .unwrap_or_default()
        }
    };
    let file = desk.ask(FILE, &[&ticket]).await?;
    let sha256 = file["sha256"].as_str().unwrap_or_default().to_owned();
    // A link is for one file, whatever its path says.
    if name.len() == 64 && name != sha256 {
        return Err(error(
            "link_expired",
            410,
            "This link is for another file.",
            "Ask for a new one with get_file.",
        ));
    }
    let size = file["bytes"].as_u64().unwrap_or_default();
    let tag = format!("\"{sha256}\"");
    if text(&parts.headers, "if-none-match").is_some_and(|tags| tags.contains(&tag)) {
        return Ok(plain(StatusCode::NOT_MODIFIED, Body::empty()));
    }
    let Some((from, to)) = range(&parts.headers, size) else {
        let mut response = plain(StatusCode::RANGE_NOT_SATISFIABLE, Body::empty());
        set(
            &mut response,
            header::CONTENT_RANGE,
            &format!("bytes */{size}"),
        );
        return Ok(response);
    };
    let whole = from == 0 && to == size;
    let body = match parts.method {
        Method::HEAD => Body::empty(),
        _ => {
            let db = desk.app.gateway.db();
            let reading = Reading::known(db, &desk.objects, Way::Ticket(ticket), &file)
                .map_err(|e| unread(&e))?;
            stream(reading, from, to, whole.then(|| sha256.clone())).await?
        }
    };
    let mut response = plain(
        if whole {
            StatusCode::OK
        } else {
            StatusCode::PARTIAL_CONTENT
        },
        body,
    );
    if !whole {
        set(
            &mut response,
            header::CONTENT_RANGE,
            &format!("bytes {from}-{}/{size}", to - 1),
        );
    }
    set(
        &mut response,
        header::CONTENT_LENGTH,
        &(to - from).to_string(),
    );
    set(&mut response, header::ETAG, &tag);
    set(&mut response, header::ACCEPT_RANGES, "bytes");
    set(
        &mut response,
        header::CONTENT_TYPE,
        media_type(file["name"].as_str().unwrap_or_default()),
    );
    set(
        &mut response,
        header::CONTENT_DISPOSITION,
        &disposition(file["name"].as_str().unwrap_or("file")),
    );
    Ok(response)
}

fn plain(status: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("private, no-cache"),
    );
    // A file is a stranger's: no browser may run or guess anything of it.
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; sandbox"),
    );
    response
}

fn set(response: &mut Response, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// What a caller is told when the bytes cannot be had.
fn unread(problem: &FileError) -> Refused {
    match problem {
        FileError::Missing => error(
            "file_not_found",
            404,
            "The file is gone.",
            "Call list_files.",
        ),
        FileError::Object(problem) => error(
            "upstream_unavailable",
            503,
            problem.to_string(),
            "odin-farm check says how the object store stands. Try again later.",
        ),
        FileError::Db(problem) => problem.to_json(),
        other => error("internal_error", 500, other.to_string(), ""),
    }
}

/// Bytes from the store. What lies outside is asked for before the answer begins, so that a bucket that is away is an error
/// and no broken download. A whole file that does not hash right is cut off, never finished.
async fn stream(
    reading: Reading,
    from: u64,
    to: u64,
    expected: Option<String>,
) -> Result<Body, Refused> {
    let ask = move |at: u64, step: usize| usize::try_from(to - at).unwrap_or(step).min(step);
    let first = if reading.is_outside() {
        let length = ask(from, reading.step());
        Some(reading.read(from, length).await.map_err(|e| unread(&e))?)
    } else {
        None
    };
    let start = (reading, first, from, Some(Sha256::new()));
    let pieces = futures::stream::try_unfold(start, move |(reading, first, at, hash)| {
        let expected = expected.clone();
        async move {
            if at >= to {
                return Ok::<_, std::io::Error>(None);
            }
            let bytes = match first {
                Some(bytes) => bytes,
                None => {
                    let length = ask(at, reading.step());
                    let read = reading.read(at, length).await;
                    read.map_err(std::io::Error::other)?
                }
            };
            let next = at + bytes.len() as u64;
            let mut hash = hash;
            if let (Some(expected), Some(mut running)) = (&expected, hash.take()) {
                running.update(&bytes);
                if next < to {
                    hash = Some(running);
                } else if hex(&running.finalize()) != *expected {
                    tracing::error!(sha256 = %expected, "a stored file does not have its hash");
                    return Err(std::io::Error::other("the stored file is damaged"));
                }
            }
            Ok(Some((bytes, (reading, None, next, hash))))
        }
    });
    Ok(Body::from_stream(pieces))
}

/// One range of bytes, or all of them; `None` where the range lies outside.
fn range(headers: &HeaderMap, size: u64) -> Option<(u64, u64)> {
    let Some(spec) = text(headers, "range").and_then(|r| r.strip_prefix("bytes=")) else {
        return Some((0, size));
    };
    let Some((from, to)) = spec.split_once('-').filter(|_| !spec.contains(',')) else {
        return Some((0, size));
    };
    let (from, to) = match (from.trim().parse::<u64>(), to.trim().parse::<u64>()) {
        (Ok(from), Ok(to)) => (from, to.saturating_add(1).min(size)),
        (Ok(from), Err(_)) => (from, size),
        (Err(_), Ok(last)) => (size.saturating_sub(last), size),
        _ => return Some((0, size)),
    };
    (from < to).then_some((from, to))
}

fn media_type(name: &str) -> &'static str {
    let ending = name
        .rsplit('.')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    match ending.as_str() {
        "stl" => "model/stl",
        "3mf" => "model/3mf",
        "obj" => "model/obj",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gcode" | "gco" | "g" => "text/x.gcode",
        _ => "application/octet-stream",
    }
}

fn disposition(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || "._- ".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect();
    format!("attachment; filename=\"{plain}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(spec: &str) -> Option<(u64, u64)> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, spec.parse().unwrap());
        range(&headers, 100)
    }

    #[test]
    fn ranges() {
        assert_eq!(asked("bytes=0-9"), Some((0, 10)));
        assert_eq!(asked("bytes=90-"), Some((90, 100)));
        assert_eq!(asked("bytes=-5"), Some((95, 100)));
        assert_eq!(asked("bytes=50-999"), Some((50, 100)));
        assert_eq!(asked("bytes=100-"), None);
        assert_eq!(asked("bytes=9-1"), None);
        assert_eq!(asked("bytes=0-1,5-6"), Some((0, 100)));
        assert_eq!(asked("lines=1-2"), Some((0, 100)));
    }

    #[test]
    fn names_stay_in_their_header() {
        assert_eq!(
            disposition("a\"b\r\nc.stl"),
            "attachment; filename=\"a_b__c.stl\""
        );
    }
}
