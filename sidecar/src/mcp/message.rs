//! The shape of one JSON-RPC message, judged before anything else looks at it: rmcp answers 415 or the wrong code
//! for what is refused here.

use http::HeaderMap;
use serde_json::Value;

pub const PARSE_ERROR: i64 = -32700;
pub const INVALID_REQUEST: i64 = -32600;
pub const METHOD_NOT_FOUND: i64 = -32601;
pub const INVALID_PARAMS: i64 = -32602;

pub const VERSION_HEADER: &str = "mcp-protocol-version";
pub const SESSION_HEADER: &str = "mcp-session-id";
/// The first revision without sessions.
pub const MODERN: &str = "2026-07-28";
const VERSION_META: &str = "io.modelcontextprotocol/protocolVersion";

/// Every method rmcp knows: a known one that reaches the custom handler had bad params.
pub const METHODS: &[&str] = &[
    "initialize",
    "ping",
    "server/discover",
    "completion/complete",
    "logging/setLevel",
    "prompts/get",
    "prompts/list",
    "resources/list",
    "resources/templates/list",
    "resources/read",
    "resources/subscribe",
    "resources/unsubscribe",
    "subscriptions/listen",
    "tools/call",
    "tools/list",
    "tasks/get",
    "tasks/update",
    "tasks/cancel",
];

const REMOVED: &[&str] = &[
    "initialize",
    "ping",
    "logging/setLevel",
    "resources/subscribe",
    "resources/unsubscribe",
];

#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    Request,
    Notification,
    /// A client's answer to a question of ours.
    Answer,
}

#[derive(Debug)]
pub struct Message {
    pub body: Value,
    pub kind: Kind,
}

/// Why a body is no message: JSON-RPC code, text, and the id when one could be read.
#[derive(Debug, PartialEq)]
pub struct Malformed {
    pub code: i64,
    pub text: &'static str,
    pub id: Option<Value>,
}

impl Message {
    pub fn parse(bytes: &[u8]) -> Result<Message, Malformed> {
        let no_id = |code, text| Malformed {
            code,
            text,
            id: None,
        };
        let body: Value = serde_json::from_slice(bytes)
            .map_err(|_| no_id(PARSE_ERROR, "Parse error: the body is not JSON."))?;
        let Value::Object(fields) = &body else {
            let text = if body.is_array() {
                "Invalid request: batches are not supported; send one message per POST."
            } else {
                "Invalid request: the body is not a JSON-RPC message."
            };
            return Err(no_id(INVALID_REQUEST, text));
        };
        let id = match fields.get("id") {
            None => None,
            Some(id @ Value::String(_)) => Some(id.clone()),
            Some(Value::Number(n)) if n.is_i64() || n.is_u64() => Some(Value::Number(n.clone())),
            Some(_) => {
                return Err(no_id(
                    INVALID_REQUEST,
                    "Invalid request: id must be a string or an integer.",
                ))
            }
        };
        let bad = |code, text| {
            Err(Malformed {
                code,
                text,
                id: id.clone(),
            })
        };
        if fields.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
            return bad(INVALID_REQUEST, "Invalid request: jsonrpc must be \"2.0\".");
        }
        let answer = fields.contains_key("result") || fields.contains_key("error");
        let kind = match (fields.get("method"), answer) {
            (Some(Value::String(_)), false) if id.is_some() => Kind::Request,
            (Some(Value::String(_)), false) => Kind::Notification,
            (None, true) if id.is_some() => Kind::Answer,
            (Some(_), false) => {
                return bad(INVALID_REQUEST, "Invalid request: method must be a string.")
            }
            _ => {
                return bad(
                    INVALID_REQUEST,
                    "Invalid request: neither a request, a notification nor an answer.",
                )
            }
        };
        match fields.get("params") {
            None | Some(Value::Object(_)) => {}
            Some(_) => return bad(INVALID_PARAMS, "Invalid params: params must be an object."),
        }
        Ok(Message { body, kind })
    }

    pub fn id(&self) -> Option<&Value> {
        self.body.get("id")
    }

    pub fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }

    pub fn params(&self) -> &Value {
        &self.body["params"]
    }

    pub fn tool(&self) -> Option<&str> {
        match self.method() {
            "tools/call" => self.params()["name"].as_str(),
            _ => None,
        }
    }

    /// Does this message speak the stateless protocol? A plain `initialize` always selects the older one.
    pub fn is_modern(&self, headers: &HeaderMap) -> bool {
        let own_version = self.params()["_meta"].get(VERSION_META).is_some();
        match self.method() {
            "initialize" => own_version,
            "server/discover" | "subscriptions/listen" => true,
            _ => own_version || header(headers, VERSION_HEADER).is_some_and(|v| v >= MODERN),
        }
    }

    /// A method that the stateless protocol no longer has.
    pub fn is_removed(&self) -> bool {
        REMOVED.contains(&self.method())
    }
}

/// The trace id of a W3C traceparent.
pub fn trace_id(parent: &str) -> Option<&str> {
    let mut parts = parent.split('-');
    let (version, id) = (parts.next()?, parts.next()?);
    let hex = |s: &str| s.bytes().all(|b| b.is_ascii_hexdigit());
    (version.len() == 2 && id.len() == 32 && hex(id)).then_some(id)
}

pub fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(text: &str) -> (i64, Option<Value>) {
        let e = Message::parse(text.as_bytes()).unwrap_err();
        (e.code, e.id)
    }

    #[test]
    fn malformed_messages_get_their_codes() {
        assert_eq!(code("{").0, PARSE_ERROR);
        assert_eq!(code("[]").0, INVALID_REQUEST);
        assert_eq!(code("7").0, INVALID_REQUEST);
        assert_eq!(
            code(r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#).0,
            INVALID_REQUEST
        );
        assert_eq!(
            code(r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#).0,
            INVALID_REQUEST
        );
        assert_eq!(
            code(r#"{"id":1,"method":"ping"}"#),
            (INVALID_REQUEST, Some(1.into()))
        );
        assert_eq!(
            code(r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#).0,
            INVALID_PARAMS
        );
        assert_eq!(code(r#"{"jsonrpc":"2.0","id":1}"#).0, INVALID_REQUEST);
    }

    #[test]
    fn kinds_are_told_apart() {
        let kind = |text: &str| Message::parse(text.as_bytes()).unwrap().kind;
        assert_eq!(
            kind(r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#),
            Kind::Request
        );
        assert_eq!(
            kind(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#),
            Kind::Notification
        );
        assert_eq!(
            kind(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#),
            Kind::Answer
        );
    }

    #[test]
    fn a_trace_is_read_from_its_parent() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(trace_id(&format!("00-{id}-00f067aa0ba902b7-01")), Some(id));
        assert_eq!(trace_id("00-xyz-1-1"), None);
    }
}
