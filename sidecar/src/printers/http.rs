//! HTTP towards printers: no proxy, no redirects, no credentials in logs or errors, and a fault that knows whether the
//! request may have arrived.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use http::header::{
    HeaderName, HeaderValue, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT,
    WWW_AUTHENTICATE,
};
use http::{Method, Request, StatusCode, Uri};
use http_body::Frame;
use http_body_util::{combinators::UnsyncBoxBody, BodyExt, Full, Limited, StreamBody};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use super::digest::Digest;
use super::driver::Fault;
use super::spool::Spooled;

type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// No printer's answer is larger; a list of ten thousand files is 2 MB.
const MOST_ANSWER: usize = 16 * 1024 * 1024;
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
const SHORT: Duration = Duration::from_secs(10);
const UPLOAD_LIMIT: Duration = Duration::from_secs(600);

pub struct Http {
    client: Client<HttpsConnector<HttpConnector>, Body>,
    base: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    digest: Option<Digest>,
}

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
    pub challenge: Option<String>,
}

impl Answer {
    pub fn json(&self) -> Result<Value, Fault> {
        serde_json::from_slice(&self.body)
            .map_err(|_| Fault::odd(format!("the server answered {} with something that is not JSON; is this the right address and protocol?", self.status.as_u16())))
    }

    /// Taken, or what this protocol's words for a refusal mean.
    pub fn done(&self, wrong: fn(&Answer) -> Fault) -> Result<(), Fault> {
        match self.status.is_success() {
            true => Ok(()),
            false => Err(wrong(self)),
        }
    }

    pub fn asks_for_digest(&self) -> bool {
        let challenge = self.challenge.as_deref().unwrap_or_default();
        challenge.starts_with("Digest")
    }

    /// What the server says is wrong, in one line.
    pub fn complaint(&self) -> String {
        let said = serde_json::from_slice::<Value>(&self.body).ok();
        let text = said
            .as_ref()
            .and_then(|v| {
                v["error"]
                    .as_str()
                    .or(v["error"]["message"].as_str())
                    .or(v["message"].as_str())
                    .or(v["title"].as_str())
                    .map(str::to_owned)
            })
            .unwrap_or_else(|| {
                String::from_utf8_lossy(&self.body[..self.body.len().min(200)])
                    .trim()
                    .to_owned()
            });
        let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
        match text.is_empty() {
            true => self.status.to_string(),
            false => format!("{} {text}", self.status.as_u16()),
        }
    }
}

/// The base address: `host`, `host:port` or a URL.
pub fn base(address: &str) -> Result<String, Fault> {
    let text = address.trim().trim_end_matches('/');
    let text = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let uri: Uri = text
        .parse()
        .map_err(|_| Fault::unreachable(format!("{address:?} is not an address")))?;
    match (uri.scheme_str(), uri.authority()) {
        // A password in the address would end up in messages.
        (Some("http" | "https"), Some(a)) if !a.as_str().contains('@') => Ok(text),
        _ => Err(Fault::unreachable(
            "the address must be host, host:port or http://host:port/path, without a password",
        )),
    }
}

/// A path inside a URL: each part escaped, the slashes kept.
pub fn escaped(path: &str) -> String {
    let mut out = String::new();
    for byte in path.trim_start_matches('/').bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                out.push(byte as char)
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

impl Http {
    pub fn new(address: &str, headers: &[(&'static str, &str)]) -> Result<Http, Fault> {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(CONNECT_LIMIT));
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|e| Fault::odd(format!("the system's certificates cannot be read: {e}")))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let mut own = Vec::new();
        for (name, value) in headers {
            let mut value = HeaderValue::from_str(value).map_err(|_| {
                Fault::auth("the credential holds characters that no HTTP header can carry")
            })?;
            value.set_sensitive(true);
            own.push((HeaderName::from_static(name), value));
        }
        Ok(Http {
            client: Client::builder(TokioExecutor::new())
                .pool_max_idle_per_host(2)
                .build(connector),
            base: base(address)?,
            headers: own,
            digest: None,
        })
    }

    /// Logs in by HTTP Digest where the server asks for it.
    pub fn with_digest(self, user: &str, password: &str) -> Http {
        Http {
            digest: Some(Digest::new(user, password)),
            ..self
        }
    }

    pub async fn get(&self, path: &str) -> Result<Answer, Fault> {
        self.get_with(path, &[]).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answer, Fault> {
        self.send(Method::GET, path, headers, || full(Bytes::new()), SHORT)
            .await
            .map_err(harmless)
    }

    pub async fn post(&self, path: &str, body: &Value, limit: Duration) -> Result<Answer, Fault> {
        let bytes = Bytes::from(body.to_string());
        let headers = [
            (CONTENT_TYPE.as_str(), "application/json"),
            (CONTENT_LENGTH.as_str(), &bytes.len().to_string()),
        ];
        self.send(Method::POST, path, &headers, || full(bytes.clone()), limit)
            .await
    }

    /// An order without a body.
    pub async fn order(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        limit: Duration,
    ) -> Result<Answer, Fault> {
        self.send(method, path, headers, || full(Bytes::new()), limit)
            .await
    }

    /// A file as the body itself, streamed.
    pub async fn send_file(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        file: &Spooled,
    ) -> Result<Answer, Fault> {
        let size = file.size.to_string();
        let mut all = vec![(CONTENT_LENGTH.as_str(), size.as_str())];
        all.extend_from_slice(headers);
        let body = || StreamBody::new(file.stream().map_ok(Frame::data)).boxed_unsync();
        self.send(method, path, &all, body, UPLOAD_LIMIT).await
    }

    /// A file as multipart/form-data, streamed; its length is known beforehand.
    pub async fn upload(
        &self,
        path: &str,
        fields: &[(&str, &str)],
        name: &str,
        file: &Spooled,
    ) -> Result<Answer, Fault> {
        let boundary = format!("odin-{}", crate::random_id());
        let mut head = String::new();
        for (field, value) in fields {
            head.push_str(&format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{field}\"\r\n\r\n{value}\r\n"));
        }
        let name: String = name
            .chars()
            .filter(|c| !c.is_control() && *c != '"' && *c != '\\')
            .collect();
        head.push_str(&format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
        ));
        let tail = format!("\r\n--{boundary}--\r\n");
        let length = head.len() as u64 + file.size + tail.len() as u64;
        let body = || {
            let pieces = futures::stream::iter([Ok(Bytes::from(head.clone()))])
                .chain(file.stream())
                .chain(futures::stream::iter([Ok(Bytes::from(tail.clone()))]));
            StreamBody::new(pieces.map_ok(Frame::data)).boxed_unsync()
        };
        let kind = format!("multipart/form-data; boundary={boundary}");
        let length = length.to_string();
        let headers = [
            (CONTENT_TYPE.as_str(), kind.as_str()),
            (CONTENT_LENGTH.as_str(), length.as_str()),
        ];
        self.send(Method::POST, path, &headers, body, UPLOAD_LIMIT)
            .await
    }

    /// Once; and once more when the server only wanted a login first, since then it has done nothing yet.
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Fn() -> Body,
        limit: Duration,
    ) -> Result<Answer, Fault> {
        let answer = self.once(&method, path, headers, body(), limit).await?;
        let asked = answer
            .challenge
            .as_deref()
            .filter(|_| answer.status == StatusCode::UNAUTHORIZED);
        match (&self.digest, asked) {
            (Some(digest), Some(challenge)) if digest.learn(challenge) => {
                self.once(&method, path, headers, body(), limit).await
            }
            _ => Ok(answer),
        }
    }

    async fn once(
        &self,
        method: &Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
        limit: Duration,
    ) -> Result<Answer, Fault> {
        let uri: Uri = format!("{}{path}", self.base)
            .parse()
            .map_err(|_| Fault::odd("no request can be made of this path"))?;
        let mut request = Request::builder()
            .method(method)
            // Digest servers tie their nonce to it.
            .header(USER_AGENT, "odin-farm");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        let whole = uri.path_and_query().map_or("/", |p| p.as_str());
        if let Some(login) = self.digest.as_ref().and_then(|d| d.answer(method, whole)) {
            request = request.header(AUTHORIZATION, login);
        }
        let request = request
            .uri(uri)
            .body(body)
            .map_err(|e| Fault::odd(format!("no request can be made of this: {e}")))?;
        let talk = async {
            let response = self
                .client
                .request(request)
                .await
                .map_err(|e| fault(&self.base, &e))?;
            let status = response.status();
            let challenge = response.headers().get(WWW_AUTHENTICATE);
            let challenge = challenge.and_then(|c| Some(c.to_str().ok()?.to_owned()));
            let body = Limited::new(response.into_body(), MOST_ANSWER)
                .collect()
                .await
                .map_err(|_| Fault::broken(format!("{} broke off its answer", self.base)))?;
            Ok(Answer {
                status,
                body: body.to_bytes(),
                challenge,
            })
        };
        tokio::time::timeout(limit, talk).await.unwrap_or_else(|_| {
            Err(Fault::broken(format!(
                "{} did not answer within {} s",
                self.base,
                limit.as_secs()
            )))
        })
    }
}

/// Asking changes nothing, so it does not matter whether it arrived.
fn harmless(fault: Fault) -> Fault {
    Fault {
        maybe_sent: false,
        ..fault
    }
}

fn full(bytes: Bytes) -> Body {
    Full::new(bytes)
        .map_err(|never| match never {})
        .boxed_unsync()
}

/// Whose fault it is, in words an operator can act on.
fn fault(base: &str, error: &hyper_util::client::legacy::Error) -> Fault {
    let mut chain = String::new();
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(e) = source {
        chain.push_str(&format!("{e}; "));
        source = e.source();
    }
    if !error.is_connect() {
        return Fault::broken(format!("{base} broke the connection"));
    }
    let lower = chain.to_lowercase();
    let why = if lower.contains("dns") || lower.contains("lookup") {
        "its name cannot be resolved"
    } else if lower.contains("refused") {
        "the connection is refused: nothing listens on that port"
    } else if ["certificate", "tls", "handshake", "corrupt message"]
        .iter()
        .any(|word| lower.contains(word))
    {
        "TLS fails: the certificate is not trusted, or the port does not speak TLS"
    } else if lower.contains("timed out") || lower.contains("elapsed") || lower.contains("deadline")
    {
        "nothing answers: off, another network, or a firewall"
    } else if lower.contains("unreachable") {
        "there is no way to that network"
    } else {
        "the connection fails"
    };
    Fault::unreachable(format!("{base}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        assert_eq!(base("10.0.0.5").unwrap(), "http://10.0.0.5");
        assert_eq!(
            base("https://op.local/octoprint/").unwrap(),
            "https://op.local/octoprint"
        );
        assert!(base("http://user:pw@host")
            .unwrap_err()
            .detail
            .contains("without a password"));
        assert!(base("ftp://host").is_err());
        assert!(base("").is_err());
    }

    #[tokio::test]
    async fn whose_fault() {
        let refused = Http::new("127.0.0.1:1", &[])
            .unwrap()
            .post("/", &Value::Null, SHORT)
            .await
            .unwrap_err();
        assert!(refused.detail.contains("refused"), "{refused}");
        assert!(!refused.maybe_sent);
        // Longer than a part of a name can be: no name server has to be asked, so none can be slow.
        let unknown = Http::new(&format!("{}.invalid", "x".repeat(70)), &[])
            .unwrap()
            .get("/")
            .await
            .unwrap_err();
        assert!(unknown.detail.contains("resolved"), "{unknown}");
        // Something that hangs up after it has read the request.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut some = [0u8; 64];
                let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut some).await;
            }
        });
        let broken = Http::new(&address, &[])
            .unwrap()
            .post("/", &Value::Null, SHORT)
            .await
            .unwrap_err();
        assert!(broken.maybe_sent, "{broken}");
    }
}
