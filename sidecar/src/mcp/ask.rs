//! Asking the client something in the middle of a call. Since 2026-07-28 a tool returns its questions and is called
//! again; for older clients this module sends them as requests, collects the answers, and the call is repeated here.

// Sampling, roots and logging are deprecated in the newest revision, and part of all older ones.
#![allow(deprecated)]

use std::sync::Arc;

use futures::future::join_all;
use rmcp::model::{
    ClientCapabilities, CustomRequest, JsonRpcRequest, LoggingLevel, RequestId,
    ServerJsonRpcMessage, ServerRequest,
};
use rmcp::service::{PeerRequestOptions, RequestContext, RoleServer};
use rmcp::ErrorData;
use serde_json::{json, Map, Value};
use tokio::sync::mpsc;

use super::handler::Handler;
use super::relay;
use crate::db::DbError;

/// Rounds of questions before a tool is taken to be lost.
pub const MOST_ROUNDS: usize = 10;

/// The way back to the client while a call runs.
#[derive(Clone)]
pub enum Link {
    /// None needed: questions are results.
    Stateless,
    /// An older client over HTTP: its answers may arrive at any sidecar.
    Http(Arc<Conversation>),
    /// An older client on our own stdin and stdout.
    Stdio(Arc<super::stdio::Session>),
}

pub struct Conversation {
    /// What the client said in `initialize` came back with its session id; otherwise nobody can be asked.
    pub known: bool,
    /// Names the client among those with the same key.
    pub session: String,
    /// Goes out on the call's own stream.
    pub out: mpsc::UnboundedSender<ServerJsonRpcMessage>,
}

/// The capability a question needs; elicitation by URL is one of its own.
fn needs(request: &Value, have: &ClientCapabilities) -> Option<(&'static str, bool)> {
    match request["method"].as_str()? {
        "elicitation/create" if request["params"]["mode"] == "url" => Some((
            "elicitation",
            have.elicitation.as_ref().is_some_and(|e| e.url.is_some()),
        )),
        "elicitation/create" => Some(("elicitation", have.elicitation.is_some())),
        "sampling/createMessage" => Some(("sampling", have.sampling.is_some())),
        "roots/list" => Some(("roots", have.roots.is_some())),
        _ => None,
    }
}

/// The questions this client can answer. If there is none, the error names what is missing.
pub fn answerable(
    requests: Map<String, Value>,
    cx: &RequestContext<RoleServer>,
) -> Result<Map<String, Value>, ErrorData> {
    let have = cx.client_capabilities().unwrap_or_default();
    let mut missing = Map::new();
    let asked = requests.len();
    let mut kept = Map::new();
    for (key, request) in requests {
        match needs(&request, &have) {
            Some((_, true)) => {
                kept.insert(key, request);
            }
            Some((name, false)) => {
                missing.insert(name.to_owned(), json!({}));
            }
            None => tracing::error!(key, "a tool asks in a way MCP does not know"),
        }
    }
    if kept.is_empty() && asked > 0 {
        let required = serde_json::from_value(Value::Object(missing)).unwrap_or_default();
        return Err(ErrorData::missing_required_client_capability(required));
    }
    Ok(kept)
}

impl Link {
    pub fn can_ask(&self) -> bool {
        match self {
            Link::Stateless => false,
            Link::Http(conversation) => conversation.known,
            Link::Stdio(_) => true,
        }
    }

    /// Ask everything at once; the answers by the keys of the questions.
    pub async fn ask_all(
        &self,
        requests: Map<String, Value>,
        handler: &Handler,
        cx: &RequestContext<RoleServer>,
    ) -> Result<Map<String, Value>, ErrorData> {
        let asking = requests.into_iter().map(|(key, request)| async move {
            let method = request["method"].as_str().unwrap_or_default().to_owned();
            let answer = self
                .ask(&method, request["params"].clone(), handler, cx)
                .await?;
            Ok::<_, ErrorData>((key, answer))
        });
        let answers = tokio::select! {
            answers = join_all(asking) => answers,
            () = cx.ct.cancelled() => {
                return Err(ErrorData::internal_error("the call was cancelled", None))
            }
        };
        answers.into_iter().collect()
    }

    async fn ask(
        &self,
        method: &str,
        params: Value,
        handler: &Handler,
        cx: &RequestContext<RoleServer>,
    ) -> Result<Value, ErrorData> {
        let params = Some(params).filter(|p| !p.is_null());
        let question = ServerRequest::CustomRequest(CustomRequest::new(method, params));
        match self {
            Link::Stateless => Err(cannot_ask()),
            Link::Http(conversation) => {
                let app = &handler.app;
                let answer = app
                    .bridge
                    .ask(
                        &handler.caller.principal,
                        &conversation.session,
                        app.ask_timeout,
                        |id| {
                            let id = RequestId::String(id.into());
                            let message = JsonRpcRequest::new(id, question);
                            conversation
                                .out
                                .send(ServerJsonRpcMessage::Request(message))
                                .is_ok()
                        },
                    )
                    .await;
                match answer {
                    Ok(mut answer) => match answer.get_mut("result") {
                        Some(result) => Ok(result.take()),
                        None => no_answer(method, &answer["error"]),
                    },
                    Err(DbError::Timeout) => {
                        no_answer(method, &json!({"message": "no answer in time"}))
                    }
                    Err(e) => {
                        tracing::warn!(error = %e, "cannot ask the client");
                        Err(ErrorData::internal_error(
                            "the client could not be asked",
                            None,
                        ))
                    }
                }
            }
            Link::Stdio(_) => {
                let limit = PeerRequestOptions::with_timeout(handler.app.ask_timeout);
                let asked = cx.peer.send_request_with_option(question, limit).await;
                let answer = match asked {
                    Ok(handle) => handle.await_response().await,
                    Err(e) => Err(e),
                };
                match answer {
                    Ok(result) => Ok(json!(result)),
                    Err(e) => no_answer(method, &json!({"message": e.to_string()})),
                }
            }
        }
    }

    /// The least level of log messages the client wants.
    pub async fn level(&self, handler: &Handler) -> LoggingLevel {
        match self {
            Link::Stateless => LoggingLevel::Info,
            Link::Stdio(session) => match session.level.lock() {
                Ok(level) => *level,
                Err(_) => LoggingLevel::Info,
            },
            Link::Http(conversation) => {
                let session = handler
                    .app
                    .bridge
                    .session_get(&handler.caller.principal, &conversation.session)
                    .await;
                match session {
                    Ok(session) => relay::level(session["log_level"].as_str().unwrap_or("info")),
                    Err(_) => LoggingLevel::Info,
                }
            }
        }
    }

    pub async fn set_level(&self, handler: &Handler, level: LoggingLevel) -> Result<(), ErrorData> {
        match self {
            Link::Stateless => Err(cannot_ask()),
            Link::Stdio(session) => {
                if let Ok(mut own) = session.level.lock() {
                    *own = level;
                }
                Ok(())
            }
            Link::Http(_) => self.remember(handler, json!({"log_level": level})).await,
        }
    }

    /// Watch a resource, or stop; the older revisions announce it on their own stream.
    pub async fn subscribe(&self, handler: &Handler, uri: &str, on: bool) -> Result<(), ErrorData> {
        if let Link::Stdio(session) = self {
            session.watched.send_modify(|uris| {
                uris.retain(|known| known != uri);
                if on && uris.len() < super::watch::MOST_RESOURCES {
                    uris.push(uri.to_owned());
                }
            });
            return Ok(());
        }
        let change = if on { "watch" } else { "unwatch" };
        self.remember(handler, json!({change: uri})).await
    }

    async fn remember(&self, handler: &Handler, change: Value) -> Result<(), ErrorData> {
        let Link::Http(conversation) = self else {
            return Err(cannot_ask());
        };
        handler
            .app
            .bridge
            .session_set(&handler.caller.principal, &conversation.session, &change)
            .await
            .map(|_| ())
            .map_err(|e| super::results::as_protocol_error(&e.to_json()))
    }
}

fn cannot_ask() -> ErrorData {
    ErrorData::invalid_request("this connection keeps no session", None)
}

/// A person who does not answer has not agreed; anything else cannot go on without its answer.
fn no_answer(method: &str, error: &Value) -> Result<Value, ErrorData> {
    if method == "elicitation/create" {
        return Ok(json!({"action": "cancel"}));
    }
    let why = error["message"].as_str().unwrap_or("no reason given");
    Err(ErrorData::internal_error(
        format!("the client did not answer {method}: {why}"),
        None,
    ))
}
