//! S3-compatible storage for the bytes of larger files: signed requests, sent through egress, so that its rules and the air
//! gap hold here too. Keys are opened for one request at a time and are in no error, no log and no `Debug`.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ETAG, RANGE};
use http::{HeaderValue, Method, StatusCode};
use rusty_s3::actions::{CreateMultipartUpload, S3Action};
use rusty_s3::{Bucket, Credentials, UrlStyle};
use serde_json::Value;
use url::Url;

use crate::egress::{Answer, Egress, EgressError, Limits};
use crate::printers::secrets::Keyring;

/// A signature is for one request that starts now; servers allow their clocks some minutes.
const SIGNED_FOR: Duration = Duration::from_secs(900);
const SMALL: Limits = Limits::SMALL;
/// Long enough for a part on a slow line.
const TRANSFER: Duration = Duration::from_secs(300);

#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    #[error("the object store cannot be used: {0}")]
    Way(#[from] EgressError),
    /// Nothing of this name is in the bucket.
    #[error("the object is not in the bucket {0}")]
    Missing(String),
    #[error("{0}")]
    Said(String),
    #[error("{0}")]
    Setup(&'static str),
}

/// One object and the way to it.
#[derive(Clone)]
pub struct Object {
    bucket: Bucket,
    credentials: Credentials,
    key: String,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object")
            .field("bucket", &self.bucket.name())
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

/// What every user of object storage needs: the way out, and the key that opens keys.
#[derive(Clone)]
pub struct Objects {
    egress: Egress,
    keyring: Option<Keyring>,
}

impl Objects {
    pub fn new(egress: Egress, keyring: Option<Keyring>) -> Self {
        Objects { egress, keyring }
    }

    /// From the farm's row: {"endpoint", "bucket", "region", "path_style", "sealed", "key"}.
    pub fn object(&self, row: &Value) -> Result<Object, ObjectError> {
        let text = |name: &str| row[name].as_str().unwrap_or_default();
        let keyring = self.keyring.as_ref().ok_or(ObjectError::Setup(
            "this sidecar has no ODIN_SECRET_KEY, so it cannot open the key of the object store",
        ))?;
        let opened = keyring
            .open(text("endpoint"), text("sealed"))
            .and_then(|plain| serde_json::from_str::<Value>(&plain).ok())
            .ok_or(ObjectError::Setup(
                "the key of the object store was sealed with another ODIN_SECRET_KEY; set it again with set_object_store",
            ))?;
        let (Some(access), Some(secret)) =
            (opened["access_key"].as_str(), opened["secret_key"].as_str())
        else {
            return Err(ObjectError::Setup(
                "the object store has half a key: give access_key and secret_key together with set_object_store",
            ));
        };
        let odd = ObjectError::Setup("the object store's endpoint is no address");
        let Ok(endpoint) = Url::parse(text("endpoint")) else {
            return Err(odd);
        };
        let style = if row["path_style"] == false {
            UrlStyle::VirtualHost
        } else {
            UrlStyle::Path
        };
        let (name, region) = (text("bucket").to_owned(), text("region").to_owned());
        let bucket = Bucket::new(endpoint, style, name, region).map_err(|_| odd)?;
        Ok(Object {
            bucket,
            credentials: Credentials::new(access, secret),
            key: text("key").to_owned(),
        })
    }

    /// A store that refuses a large body may hang up before it is sent, and its answer is lost; a small question brings the reason.
    async fn send(
        &self,
        object: &Object,
        method: Method,
        url: Url,
        body: Bytes,
        limits: Limits,
    ) -> Result<Answer, ObjectError> {
        let large = !body.is_empty();
        let answer = self.ask(object, method, url, body, limits).await;
        if large && matches!(answer, Err(ObjectError::Way(_))) {
            self.probe(object).await?;
        }
        answer
    }

    async fn ask(
        &self,
        object: &Object,
        method: Method,
        url: Url,
        body: Bytes,
        limits: Limits,
    ) -> Result<Answer, ObjectError> {
        let reply = self
            .egress
            .request(method, url.as_str(), &[], body, limits)
            .await?;
        settled(object, reply.whole().await?)
    }

    /// Bytes of an object, exactly as many as asked for.
    pub async fn get(
        &self,
        object: &Object,
        offset: u64,
        length: usize,
    ) -> Result<Bytes, ObjectError> {
        let url = object
            .bucket
            .get_object(Some(&object.credentials), &object.key)
            .sign(SIGNED_FOR);
        let last = offset + (length as u64).max(1) - 1;
        let range = HeaderValue::from_str(&format!("bytes={offset}-{last}"))
            .map_err(|_| ObjectError::Setup("no such range"))?;
        let limits = Limits {
            bytes: (length as u64).max(SMALL.bytes),
            within: TRANSFER,
        };
        let reply = self
            .egress
            .request(
                Method::GET,
                url.as_str(),
                &[(RANGE, range)],
                Bytes::new(),
                limits,
            )
            .await?;
        let answer = settled(object, reply.whole().await?)?;
        if answer.body.len() != length {
            return Err(ObjectError::Said(format!(
                "{} gave {} bytes of an object where {length} were asked for",
                object.host(),
                answer.body.len()
            )));
        }
        Ok(answer.body)
    }

    /// A whole object in one piece.
    pub async fn put(&self, object: &Object, bytes: Bytes) -> Result<(), ObjectError> {
        let url = object
            .bucket
            .put_object(Some(&object.credentials), &object.key)
            .sign(SIGNED_FOR);
        self.send(object, Method::PUT, url, bytes, transfer())
            .await?;
        Ok(())
    }

    /// Begins an upload in parts: its id.
    pub async fn begin(&self, object: &Object) -> Result<String, ObjectError> {
        let url = object
            .bucket
            .create_multipart_upload(Some(&object.credentials), &object.key)
            .sign(SIGNED_FOR);
        let answer = self
            .send(object, Method::POST, url, Bytes::new(), SMALL)
            .await?;
        let text = String::from_utf8_lossy(&answer.body);
        match CreateMultipartUpload::parse_response(&text) {
            Ok(begun) => Ok(begun.upload_id().to_owned()),
            Err(_) => Err(ObjectError::Said(format!(
                "{} answered the begin of an upload with something else than its id",
                object.host()
            ))),
        }
    }

    /// Part `n`, counted from 1: its tag.
    pub async fn part(
        &self,
        object: &Object,
        upload: &str,
        n: u16,
        bytes: Bytes,
    ) -> Result<String, ObjectError> {
        let url = object
            .bucket
            .upload_part(Some(&object.credentials), &object.key, n, upload)
            .sign(SIGNED_FOR);
        let answer = self
            .send(object, Method::PUT, url, bytes, transfer())
            .await?;
        let tag = answer.headers.get(ETAG).and_then(|tag| tag.to_str().ok());
        tag.map(str::to_owned)
            .ok_or_else(|| ObjectError::Said(format!("{} gave no ETag for a part", object.host())))
    }

    pub async fn complete(
        &self,
        object: &Object,
        upload: &str,
        tags: &[String],
    ) -> Result<(), ObjectError> {
        let tags = tags.iter().map(String::as_str);
        let action = object.bucket.complete_multipart_upload(
            Some(&object.credentials),
            &object.key,
            upload,
            tags,
        );
        let url = action.sign(SIGNED_FOR);
        let body = Bytes::from(action.body());
        let answer = self
            .send(object, Method::POST, url, body, transfer())
            .await?;
        // Here an error may come after a good status.
        match code_of(&answer.body) {
            Some(code) => Err(ObjectError::Said(format!(
                "{} could not put the parts together ({code})",
                object.host()
            ))),
            None => Ok(()),
        }
    }

    /// Forgets an upload in parts; one that is not known is forgotten already.
    pub async fn abort(&self, object: &Object, upload: &str) -> Result<(), ObjectError> {
        let url = object
            .bucket
            .abort_multipart_upload(Some(&object.credentials), &object.key, upload)
            .sign(SIGNED_FOR);
        self.delete(object, url).await
    }

    /// Removes an object; one that is not there is removed already.
    pub async fn remove(&self, object: &Object) -> Result<(), ObjectError> {
        let url = object
            .bucket
            .delete_object(Some(&object.credentials), &object.key)
            .sign(SIGNED_FOR);
        self.delete(object, url).await
    }

    /// What is not there is deleted already.
    async fn delete(&self, object: &Object, url: Url) -> Result<(), ObjectError> {
        match self
            .send(object, Method::DELETE, url, Bytes::new(), SMALL)
            .await
        {
            Err(ObjectError::Missing(_)) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Is the bucket there and the key good? Asks for the first name in the bucket; changes nothing.
    pub async fn probe(&self, object: &Object) -> Result<(), ObjectError> {
        let mut list = object.bucket.list_objects_v2(Some(&object.credentials));
        list.with_max_keys(1);
        let url = list.sign(SIGNED_FOR);
        self.ask(object, Method::GET, url, Bytes::new(), SMALL)
            .await?;
        Ok(())
    }
}

impl Object {
    fn host(&self) -> &str {
        self.bucket.base_url().host_str().unwrap_or_default()
    }

    /// Is it the same object?
    pub fn is(&self, other: &Object) -> bool {
        self.key == other.key && self.bucket.base_url() == other.bucket.base_url()
    }

    /// For people: which bucket where.
    pub fn place(&self) -> String {
        format!("bucket {} at {}", self.bucket.name(), self.host())
    }
}

fn transfer() -> Limits {
    Limits {
        within: TRANSFER,
        ..SMALL
    }
}

/// The code of an S3 error, if the body is one. Only letters: the text goes into logs.
fn code_of(body: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(body.get(..body.len().min(8192))?);
    let rest = &text[text.find("<Error>")?..];
    let rest = &rest[rest.find("<Code>")? + 6..];
    let code: String = rest
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric())
        .take(60)
        .collect();
    (!code.is_empty()).then_some(code)
}

/// Good answers pass; for the others, what is wrong and what would be right.
fn settled(object: &Object, answer: Answer) -> Result<Answer, ObjectError> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    let (host, bucket) = (object.host(), object.bucket.name());
    let code = code_of(&answer.body).unwrap_or_default();
    let status = answer.status.as_u16();
    let said = format!("{status} {code}").trim().to_owned();
    let text = match (answer.status, code.as_str()) {
        (StatusCode::NOT_FOUND, "NoSuchKey" | "NoSuchUpload") => return Err(ObjectError::Missing(bucket.to_owned())),
        (_, "NoSuchBucket") => format!("there is no bucket {bucket} at {host} ({said}); make it, or name another with set_object_store"),
        (_, "InvalidAccessKeyId") => format!("{host} does not know the access key ({said}); set a good one with set_object_store"),
        (_, "SignatureDoesNotMatch") => format!("{host} does not accept the secret key ({said}); set access_key and secret_key with set_object_store, and check region and path_style"),
        (_, "RequestTimeTooSkewed") => format!("the clock of this machine differs from that of {host} ({said})"),
        (_, "PermanentRedirect" | "TemporaryRedirect" | "AuthorizationHeaderMalformed") | (StatusCode::MOVED_PERMANENTLY | StatusCode::TEMPORARY_REDIRECT, _) => {
            format!("bucket {bucket} is in another region or at another endpoint than {host} ({said})")
        }
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => {
            format!("{host} does not let this key into bucket {bucket} ({said}); it has to be allowed to get, put and delete objects and to list the bucket")
        }
        (StatusCode::NOT_FOUND, _) => format!("{host} answered {said}: is it an S3 endpoint with a bucket {bucket}?"),
        _ => format!("{host} answered {said}"),
    };
    Err(ObjectError::Said(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(keyring: &Keyring) -> Value {
        let secret = json!({"access_key": "AK", "secret_key": "s3cret"}).to_string();
        json!({
            "endpoint": "https://s3.example", "bucket": "farm", "region": "eu-1", "path_style": true, "key": "1/ab/abc-1",
            "sealed": keyring.seal("https://s3.example", &secret).unwrap(),
        })
    }

    fn objects() -> (Objects, Keyring) {
        let keyring: Keyring = "7f".repeat(32).parse().unwrap();
        let options = crate::egress::EgressOptions {
            allow: vec!["s3.example".parse().unwrap()],
            private: Vec::new(),
            air_gap: true,
        };
        let egress = Egress::new(&options).unwrap();
        (Objects::new(egress, Some(keyring.clone())), keyring)
    }

    #[test]
    fn a_key_opens_for_its_endpoint_only() {
        let (objects, keyring) = objects();
        let object = objects.object(&row(&keyring)).unwrap();
        assert_eq!(object.place(), "bucket farm at s3.example");
        assert!(!format!("{object:?}").contains("s3cret"));
        let mut moved = row(&keyring);
        moved["endpoint"] = "https://evil.example".into();
        assert!(matches!(objects.object(&moved), Err(ObjectError::Setup(_))));
    }

    #[tokio::test]
    async fn the_air_gap_holds() {
        let (objects, keyring) = objects();
        let object = objects.object(&row(&keyring)).unwrap();
        let refused = objects.get(&object, 0, 10).await.unwrap_err().to_string();
        assert!(
            refused.contains("air gap") && !refused.contains("Signature"),
            "{refused}"
        );
    }

    #[test]
    fn errors_say_what_would_be_right() {
        let (objects, keyring) = objects();
        let object = objects.object(&row(&keyring)).unwrap();
        let said = |status: u16, body: &str| {
            let answer = Answer {
                status: StatusCode::from_u16(status).unwrap(),
                headers: http::HeaderMap::new(),
                body: Bytes::copy_from_slice(body.as_bytes()),
            };
            settled(&object, answer).unwrap_err().to_string()
        };
        let xml = |code: &str| format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
        assert!(said(404, &xml("NoSuchBucket")).contains("there is no bucket farm at s3.example"));
        assert!(said(403, &xml("InvalidAccessKeyId")).contains("access key"));
        assert!(said(403, &xml("SignatureDoesNotMatch")).contains("secret key"));
        assert!(said(403, "").contains("does not let this key into bucket farm (403)"));
        assert!(said(301, &xml("PermanentRedirect")).contains("another region"));
        assert!(said(404, "<html>").contains("is it an S3 endpoint"));
        assert_eq!(
            said(503, &xml("SlowDown")),
            "s3.example answered 503 SlowDown"
        );
        assert_eq!(
            said(404, &xml("NoSuchKey")),
            "the object is not in the bucket farm"
        );
        assert_eq!(code_of(b"<Error><Code>\x1b[2J</Code></Error>"), None);
    }
}
