//! A remote MCP server as a client sees it: its list of tools, one call of a tool. Streamable HTTP through egress; what it
//! says is data, whatever it claims to be.

use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, ACCEPT, CONTENT_TYPE};
use serde_json::{json, Value};

use crate::egress::{Answer, Egress, EgressError, Limits};
use crate::printers::secrets::Keyring;

/// The tool that sets a server's header, whatever face it comes through.
pub const SEALED_TOOL: &str = "set_remote_secret";
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
    pub fn new(egress: &'a Egress, keyring: Option<&Keyring>, row: &Value) -> Result<Self, RemoteError> {
        let url = row["url"].as_str().ok_or(RemoteError::Secret("the remote server was removed or switched off"))?;
        let mut headers = vec![
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (ACCEPT, HeaderValue::from_static("application/json, text/event-stream")),
        ];
        if let Some(sealed) = row["sealed"].as_str() {
            headers.push(opened(keyring, row["id"].as_i64().unwrap_or_default(), sealed)?);
        }
        Ok(Remote { egress, url: url.to_owned(), headers, next_id: 0 })
    }

    /// All tools it lists.
    pub async fn tools(&mut self) -> Result<Vec<Value>, RemoteError> {
        self.begin().await?;
        let mut found = Vec::new();
        let mut cursor = Value::Null;
        for _ in 0..MOST_PAGES {
            let params = if cursor.is_null() { json!({}) } else { json!({"cursor": cursor}) };
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
        let result = self.ask("tools/call", json!({"name": tool, "arguments": arguments}), CALLING).await?;
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
        let agreed = result_of(message)?["protocolVersion"].as_str().unwrap_or(REVISION).to_owned();
        let mut keep = |name: &'static str, value: Option<HeaderValue>| {
            if let Some(value) = value {
                self.headers.push((HeaderName::from_static(name), value));
            }
        };
        keep("mcp-protocol-version", HeaderValue::from_str(&agreed).ok());
        keep("mcp-session-id", answer.headers.get("mcp-session-id").cloned());
        let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        self.egress
            .post(&self.url, &self.headers, Bytes::from(ready.to_string()), LISTING)
            .await?;
        Ok(())
    }

    async fn ask(&mut self, method: &str, params: Value, limits: Limits) -> Result<Value, RemoteError> {
        let (_, message) = self.send(method, params, limits).await?;
        result_of(message)
    }

    async fn send(&mut self, method: &str, params: Value, limits: Limits) -> Result<(Answer, Value), RemoteError> {
        self.next_id += 1;
        let id = self.next_id;
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let answer = self
            .egress
            .post(&self.url, &self.headers, Bytes::from(body.to_string()), limits)
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
    let wanted = |value: &Value| value["id"].as_u64() == Some(id) && (value.get("result").is_some() || value.get("error").is_some());
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

/// Sealed for the server's number, negative so that it is nobody's printer.
fn place(server: i64) -> i64 {
    -server
}

fn opened(keyring: Option<&Keyring>, server: i64, sealed: &str) -> Result<(HeaderName, HeaderValue), RemoteError> {
    let keyring = keyring.ok_or(RemoteError::Secret("this sidecar has no secret key, so it cannot open the server's secret"))?;
    let plain = keyring
        .open(place(server), sealed)
        .ok_or(RemoteError::Secret("the server's secret was sealed with another key; set it again with set_remote_secret"))?;
    let value: Value = serde_json::from_str(&plain).unwrap_or_default();
    header_of(&value).ok_or(RemoteError::Secret("the server's secret is no header; set it again with set_remote_secret"))
}

fn header_of(value: &Value) -> Option<(HeaderName, HeaderValue)> {
    let name = HeaderName::from_bytes(value["header"].as_str()?.as_bytes()).ok()?;
    let mut text = HeaderValue::from_str(value["value"].as_str()?).ok()?;
    text.set_sensitive(true);
    Some((name, text))
}

/// The header of a call becomes one sealed argument before the call leaves for the database.
pub fn seal_arguments(keyring: Option<&Keyring>, tool: &str, arguments: &Value) -> Result<Option<Value>, Value> {
    let wrapped = tool == "call_tool";
    let (tool, inner) = match wrapped {
        true => (arguments["name"].as_str().unwrap_or_default(), &arguments["arguments"]),
        false => (tool, arguments),
    };
    let Some(object) = inner.as_object().filter(|o| tool == SEALED_TOOL && o.contains_key("value")) else {
        return Ok(None);
    };
    let refuse = |detail: &str, hint: &str| json!({"code": "validation_failed", "detail": detail, "status": 422, "retriable": false, "hint": hint});
    let Some(keyring) = keyring else {
        return Err(refuse(
            "this sidecar has no secret key, so it cannot keep secrets",
            "The operator sets ODIN_SECRET_KEY (64 hex digits) or ODIN_SECRET_KEY_FILE, the same for every sidecar.",
        ));
    };
    let mut rest = object.clone();
    let value = rest.remove("value").unwrap_or_default();
    let secret = json!({"header": rest.remove("header").unwrap_or_else(|| "Authorization".into()), "value": value});
    if header_of(&secret).is_none() {
        return Err(refuse("value: these are no name and value of a header", "Mostly: header Authorization, value \"Bearer ...\"."));
    }
    let Some(server) = rest.get("server_id").and_then(Value::as_i64) else {
        return Err(refuse("server_id: is required", "list_remote_servers has the number."));
    };
    let sealed = keyring.seal(place(server), &secret.to_string()).map_err(|e| refuse(&e, ""))?;
    rest.insert("sealed".into(), sealed.into());
    let rest = Value::Object(rest);
    Ok(Some(if wrapped { json!({"name": tool, "arguments": rest}) } else { rest }))
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
    fn secrets_are_sealed_for_one_server() {
        let keyring: Keyring = "ab".repeat(32).parse().unwrap();
        let call = json!({"server_id": 7, "header": "X-Key", "value": "s3cret"});
        let sent = seal_arguments(Some(&keyring), SEALED_TOOL, &call).unwrap().unwrap();
        assert!(!sent.to_string().contains("s3cret"));
        let sealed = sent["sealed"].as_str().unwrap();
        assert_eq!(opened(Some(&keyring), 7, sealed).unwrap().1, "s3cret");
        assert!(opened(Some(&keyring), 8, sealed).is_err());
        let wrapped = json!({"name": SEALED_TOOL, "arguments": call});
        let sent = seal_arguments(Some(&keyring), "call_tool", &wrapped).unwrap().unwrap();
        assert!(sent["arguments"]["sealed"].is_string());
        assert!(seal_arguments(None, SEALED_TOOL, &call).is_err());
        assert!(seal_arguments(Some(&keyring), SEALED_TOOL, &json!({"server_id": 7, "value": "a\nb"})).is_err());
        assert_eq!(seal_arguments(None, SEALED_TOOL, &json!({"server_id": 7, "remove": true})).unwrap(), None);
    }
}
