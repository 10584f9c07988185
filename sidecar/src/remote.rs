//! A remote MCP server as a client sees it: its list of tools, one call of a tool. Streamable HTTP through egress; what it
//! says is data, whatever it claims to be.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, ACCEPT, CONTENT_TYPE};
use serde_json::{json, Value};

use crate::egress::{Answer, Egress, EgressError, Limits};
use crate::printers::secrets::Keyring;

const REVISION: &str = "2025-06-18";
const MOST_PAGES: usize = 20;
const LISTING: Limits = Limits::SMALL;
const CALLING: Limits = Limits {
    bytes: 16 * 1024 * 1024,
    within: Duration::from_secs(120),
};

#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("{0}")]
    Way(#[from] EgressError),
    #[error("the remote server answered {0}")]
    Status(u16),
    #[error("the remote server answered with something that is not MCP")]
    Odd,
    #[error("the remote server refused: {0}")]
    Said(String),
    #[error("{0}")]
    Secret(&'static str),
}

/// Where it is and what it wants to see. Nothing of it is kept between calls.
pub struct Remote<'a> {
    egress: &'a Egress,
    url: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    next_id: u64,
}

impl<'a> Remote<'a> {
    /// From the row the farm gave: {"id", "url", "sealed"}.
    pub fn new(
        egress: &'a Egress,
        keyring: Option<&Keyring>,
        row: &Value,
    ) -> Result<Self, RemoteError> {
        let url = row["url"].as_str().ok_or(RemoteError::Secret(
            "the remote server was removed or switched off",
        ))?;
        let mut headers = vec![
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (
                ACCEPT,
                HeaderValue::from_static("application/json, text/event-stream"),
            ),
        ];
        if let Some(sealed) = row["sealed"].as_str() {
            headers.push(opened(keyring, url, sealed)?);
        }
        Ok(Remote {
            egress,
            url: url.to_owned(),
            headers,
            next_id: 0,
        })
    }

    /// All tools it lists.
    pub async fn tools(&mut self) -> Result<Vec<Value>, RemoteError> {
        self.begin().await?;
        let mut found = Vec::new();
        let mut cursor = Value::Null;
        for _ in 0..MOST_PAGES {
            let params = if cursor.is_null() {
                json!({})
            } else {
                json!({"cursor": cursor})
            };
            let mut page = self.ask("tools/list", params, LISTING).await?;
            match page["tools"].take() {
                Value::Array(tools) => found.extend(tools),
                _ => return Err(RemoteError::Odd),
            }
            cursor = page["nextCursor"].take();
            if cursor.is_null() {
                break;
            }
        }
        Ok(found)
    }

    /// The result of one call, as the remote server gave it.
    pub async fn call(&mut self, tool: &str, arguments: &Value) -> Result<Value, RemoteError> {
        self.begin().await?;
        let result = self
            .ask(
                "tools/call",
                json!({"name": tool, "arguments": arguments}),
                CALLING,
            )
            .await?;
        match result["content"].is_array() {
            true => Ok(result),
            false => Err(RemoteError::Odd),
        }
    }

    async fn begin(&mut self) -> Result<(), RemoteError> {
        let hello = json!({
            "protocolVersion": REVISION, "capabilities": {},
            "clientInfo": {"name": "odin-farm", "version": env!("CARGO_PKG_VERSION")},
        });
        let (answer, message) = self.send("initialize", hello, LISTING).await?;
        let agreed = result_of(message)?["protocolVersion"]
            .as_str()
            .unwrap_or(REVISION)
            .to_owned();
        let mut keep = |name: &'static str, value: Option<HeaderValue>| {
            if let Some(value) = value {
                self.headers.push((HeaderName::from_static(name), value));
            }
        };
        keep("mcp-protocol-version", HeaderValue::from_str(&agreed).ok());
        keep(
            "mcp-session-id",
            answer.headers.get("mcp-session-id").cloned(),
        );
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        self.egress
            .post(
                &self.url,
                &self.headers,
                Bytes::from(ready.to_string()),
                LISTING,
            )
            .await?;
        Ok(())
    }

    async fn ask(
        &mut self,
        method: &str,
        params: Value,
        limits: Limits,
    ) -> Result<Value, RemoteError> {
        let (_, message) = self.send(method, params, limits).await?;
        result_of(message)
    }

    async fn send(
        &mut self,
        method: &str,
        params: Value,
        limits: Limits,
    ) -> Result<(Answer, Value), RemoteError> {
        self.next_id += 1;
        let id = self.next_id;
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let answer = self
            .egress
            .post(
                &self.url,
                &self.headers,
                Bytes::from(body.to_string()),
                limits,
            )
            .await?;
        if !answer.status.is_success() {
            return Err(RemoteError::Status(answer.status.as_u16()));
        }
        let message = message_of(&answer.body, id).ok_or(RemoteError::Odd)?;
        Ok((answer, message))
    }
}

/// The answer to request `id`: the body itself, or an event of a stream.
fn message_of(body: &[u8], id: u64) -> Option<Value> {
    let wanted = |value: &Value| {
        value["id"].as_u64() == Some(id)
            && (value.get("result").is_some() || value.get("error").is_some())
    };
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        return wanted(&value).then_some(value);
    }
    let text = std::str::from_utf8(body).ok()?.replace("\r\n", "\n");
    text.split("\n\n")
        .map(|event| {
            let data: Vec<&str> = event
                .lines()
                .filter_map(|line| line.strip_prefix("data:"))
                .map(|line| line.strip_prefix(' ').unwrap_or(line))
                .collect();
            data.join("\n")
        })
        .filter_map(|data| serde_json::from_str::<Value>(&data).ok())
        .find(wanted)
}

fn result_of(mut message: Value) -> Result<Value, RemoteError> {
    if let Some(error) = message.get("error") {
        let said = error["message"].as_str().unwrap_or("without a reason");
        let said: String = said.chars().filter(|c| !c.is_control()).take(300).collect();
        return Err(RemoteError::Said(said));
    }
    Ok(message["result"].take())
}

/// Sealed for this very address: a server that moved does not get it.
fn opened(
    keyring: Option<&Keyring>,
    url: &str,
    sealed: &str,
) -> Result<(HeaderName, HeaderValue), RemoteError> {
    let keyring = keyring.ok_or(RemoteError::Secret(
        "this sidecar has no secret key, so it cannot open the server's secret",
    ))?;
    let plain = keyring.open(url, sealed).ok_or(RemoteError::Secret(
        "the server's secret was sealed with another key; set it again with set_remote_secret",
    ))?;
    let value: Value = serde_json::from_str(&plain).unwrap_or_default();
    header_of(&value).ok_or(RemoteError::Secret(
        "the server's secret is no header; set it again with set_remote_secret",
    ))
}

fn header_of(value: &Value) -> Option<(HeaderName, HeaderValue)> {
    let name = value["header"].as_str().unwrap_or("authorization");
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    let mut text = HeaderValue::from_str(value["value"].as_str()?).ok()?;
    text.set_sensitive(true);
    Some((name, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_come_as_json_or_as_events() {
        let plain = br#"{"jsonrpc":"2.0","id":3,"result":{"tools":[]}}"#;
        assert!(message_of(plain, 3).is_some());
        assert!(message_of(plain, 4).is_none());
        let events = b"event: message\r\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\"}\r\n\r\ndata: {\"jsonrpc\":\"2.0\",\r\ndata: \"id\":3,\"result\":{}}\r\n\r\n";
        assert!(message_of(events, 3).is_some());
        assert!(message_of(b"<html>", 3).is_none());
        assert!(result_of(json!({"id": 1, "error": {"message": "no"}})).is_err());
    }

    #[test]
    fn secrets_open_for_their_address_only() {
        let keyring: Keyring = "ab".repeat(32).parse().unwrap();
        let secret = json!({"header": "X-Key", "value": "s3cret"}).to_string();
        let sealed = keyring.seal("https://a.example/mcp", &secret).unwrap();
        assert_eq!(
            opened(Some(&keyring), "https://a.example/mcp", &sealed)
                .unwrap()
                .1,
            "s3cret"
        );
        assert!(opened(Some(&keyring), "https://b.example/mcp", &sealed).is_err());
        assert!(opened(None, "https://a.example/mcp", &sealed).is_err());
        assert!(header_of(&json!({"value": "a\nb"})).is_none());
    }
}
