//! The revisions before 2026-07-28, stateless: one request, one short-lived rmcp service, and a stream only if
//! something besides the answer has to be said. Answers and cancellations go through the bridge.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode};
use rmcp::model::{
    CallToolRequest, ClientJsonRpcMessage, ClientRequest, InitializeRequestParams, JsonRpcRequest,
    ProtocolVersion, ServerJsonRpcMessage, ServerResult,
};
use serde::Deserialize;
use serde_json::{json, Value};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::ask::{Conversation, Link};
use super::handler::{Begun, Handler};
use super::message::{
    header, Message, INVALID_PARAMS, INVALID_REQUEST, SESSION_HEADER, VERSION_HEADER,
};
use super::session::Session;
use super::turn::Turn;
use super::watch::{Change, Want, Watch};
use super::{rpc_error, rpc_ok};
use crate::app::App;
use crate::bridge::CallName;
use crate::db::Channel;
use crate::gateway::Caller;
use crate::limits::Counted;

/// A comment line this often keeps proxies from closing a quiet stream.
pub const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What every stream of an older client is told of; single resources are the session's matter.
const ALL_LISTS: Want = Want {
    tools: true,
    prompts: true,
    resources: true,
    uris: Vec::new(),
};

struct Client {
    session: Option<Session>,
    name: String,
}

impl Client {
    fn of(headers: &HeaderMap, caller: &Caller) -> Client {
        let session = header(headers, SESSION_HEADER).and_then(Session::read);
        // Without a session, the address at least keeps two clients of one key apart.
        let name = match (&session, caller.ip) {
            (Some(session), _) => session.nonce.clone(),
            (None, Some(ip)) => format!("ip:{ip}"),
            (None, None) => String::new(),
        };
        Client { session, name }
    }
}

/// The revision of a request: its header, else what was agreed on, else the oldest that had none.
fn version(headers: &HeaderMap) -> Result<Option<ProtocolVersion>, String> {
    let Some(text) = header(headers, VERSION_HEADER) else {
        return Ok(None);
    };
    ProtocolVersion::KNOWN_VERSIONS
        .iter()
        .find(|known| known.as_str() == text)
        .map(|known| Some(known.clone()))
        .ok_or_else(|| {
            format!(
                "Unsupported MCP-Protocol-Version: {}",
                super::printable(text)
            )
        })
}

/// The request in rmcp's words. A call of a tool is read as what it is; rmcp tries one kind of request after the other.
fn read(message: Message) -> Option<JsonRpcRequest<ClientRequest>> {
    if message.tool().is_some() {
        if let Ok(call) = JsonRpcRequest::<CallToolRequest>::deserialize(&message.body) {
            let request = ClientRequest::CallToolRequest(call.request);
            return Some(JsonRpcRequest::new(call.id, request));
        }
    }
    match serde_json::from_value(message.body) {
        Ok(ClientJsonRpcMessage::Request(request)) => Some(request),
        _ => None,
    }
}

pub async fn request(
    app: Arc<App>,
    caller: Arc<Caller>,
    headers: &HeaderMap,
    message: Message,
    quiet: bool,
    counted: Option<Counted>,
) -> Response {
    let id = message.id().cloned();
    let version = match version(headers) {
        Ok(version) => version,
        Err(text) => return rpc_error(StatusCode::BAD_REQUEST, id, INVALID_REQUEST, text, None),
    };
    let client = Client::of(headers, &caller);
    let Some(parsed) = read(message) else {
        let text = "Invalid params.".to_owned();
        return rpc_error(StatusCode::BAD_REQUEST, id, INVALID_PARAMS, text, None);
    };
    let initialize = match &parsed.request {
        ClientRequest::InitializeRequest(initialize) => Some(initialize.params.clone()),
        _ => None,
    };
    let peer = match (&initialize, &client.session) {
        (Some(params), _) => params.clone(),
        (None, Some(session)) => session.peer(version),
        (None, None) => InitializeRequestParams::default()
            .with_protocol_version(version.unwrap_or(ProtocolVersion::V_2025_03_26)),
    };

    // Everything the call says, in order, its answer last.
    let (out, mut said) = mpsc::unbounded_channel();
    let handler = Handler {
        app: app.clone(),
        caller: caller.clone(),
        link: Link::Http(Arc::new(Conversation {
            known: client.session.is_some() && !quiet,
            session: client.name.clone(),
            out: out.clone(),
        })),
        quiet,
        watch: Begun::default(),
    };
    let stop = CancellationToken::new();
    let cancellable = app.bridge.cancellable(
        CallName {
            key_id: caller.principal.key_id,
            session: client.name,
            request: id.clone().unwrap_or_default().to_string(),
        },
        stop.clone(),
    );
    let held = (cancellable, counted);
    let mut turn = Turn::new(handler, parsed, peer, out, stop.clone(), held);
    let first = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        () = app.stop.cancelled() => None,
        first = said.recv() => first,
        // Its answer at least is there now.
        () = &mut turn => said.recv().await,
    };
    let Some(first) = first else {
        // Cancelled by name: the client does not wait for an answer any more.
        return StatusCode::ACCEPTED.into_response();
    };
    if is_answer(&first) {
        return answered(&first, initialize.as_ref());
    }
    // A client that reads slowly must not hold the call up: it goes on by itself.
    drop(turn);
    let stream = futures::stream::unfold(Some((Some(first), said, stop)), |state| async {
        let (first, mut said, stop) = state?;
        let message = match first {
            Some(first) => first,
            None => tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                message = said.recv() => message?,
            },
        };
        let more = (!is_answer(&message)).then_some((None, said, stop));
        Some((event(&message), more))
    });
    stream_response(stream)
}

fn is_answer(message: &ServerJsonRpcMessage) -> bool {
    matches!(
        message,
        ServerJsonRpcMessage::Response(_) | ServerJsonRpcMessage::Error(_)
    )
}

/// One JSON answer, and with the one to `initialize` the id of a session.
fn answered(
    answer: &ServerJsonRpcMessage,
    initialize: Option<&InitializeRequestParams>,
) -> Response {
    let mut response = rpc_ok(answer);
    if let (Some(params), Some(agreed)) = (initialize, agreed_version(answer)) {
        let session = Session::mint(params, &agreed).id();
        if let Ok(value) = HeaderValue::from_str(&session) {
            response.headers_mut().insert(SESSION_HEADER, value);
        }
    }
    response
}

fn agreed_version(message: &ServerJsonRpcMessage) -> Option<ProtocolVersion> {
    match message {
        ServerJsonRpcMessage::Response(response) => match &response.result {
            ServerResult::InitializeResult(result) => Some(result.protocol_version.clone()),
            _ => None,
        },
        _ => None,
    }
}

fn event(message: &impl serde::Serialize) -> Result<Event, Infallible> {
    // Our own messages always serialise, and JSON holds no bare newline.
    let data = serde_json::to_string(message).unwrap_or_default();
    Ok(Event::default().event("message").data(data))
}

fn stream_response(
    stream: impl futures::Stream<Item = Result<Event, Infallible>> + Send + 'static,
) -> Response<Body> {
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("");
    let mut response = Sse::new(stream).keep_alive(keep_alive).into_response();
    response
        .headers_mut()
        .insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The session a request names was ended by its client; a session we do not know is no reason to refuse.
pub fn is_over(app: &App, caller: &Caller, headers: &HeaderMap) -> bool {
    header(headers, SESSION_HEADER)
        .and_then(Session::read)
        .is_some_and(|session| app.bridge.is_ended(&caller.principal, &session.nonce))
}

/// DELETE: the client is done.
pub async fn end(app: &App, caller: &Caller, headers: &HeaderMap) -> Response {
    let Some(session) = header(headers, SESSION_HEADER).and_then(Session::read) else {
        return super::not_allowed("POST");
    };
    match app
        .bridge
        .end_session(&caller.principal, &session.nonce)
        .await
    {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(e) => super::farm_error(None, e.to_json()),
    }
}

/// Something a client tells us: only a cancellation needs doing.
pub async fn notification(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    message: &Message,
) -> Response {
    let id = &message.params()["requestId"];
    if message.method() == "notifications/cancelled" && !id.is_null() {
        let name = CallName {
            key_id: caller.principal.key_id,
            session: Client::of(headers, caller).name,
            request: id.to_string(),
        };
        if let Err(e) = app.bridge.cancel(&caller.principal, &name).await {
            tracing::warn!(error = %e, "a cancellation could not be passed on");
        }
    }
    StatusCode::ACCEPTED.into_response()
}

/// A client's answer to a question some sidecar asked.
pub async fn answer(app: &App, caller: &Caller, message: &Message) -> Response {
    let id = match message.id() {
        Some(Value::String(id)) => id.clone(),
        _ => String::new(),
    };
    let answer = match message.body.get("result") {
        Some(result) => json!({ "result": result }),
        None => json!({ "error": message.body["error"] }),
    };
    match app.bridge.answer(&caller.principal, &id, &answer).await {
        Ok(true) => StatusCode::ACCEPTED.into_response(),
        Ok(false) => rpc_error(
            StatusCode::BAD_REQUEST,
            None,
            INVALID_REQUEST,
            "Nobody asked that, or nobody waits for it any more.".to_owned(),
            None,
        ),
        Err(e) => super::farm_error(None, e.to_json()),
    }
}

/// The stream an older client opens for change notices.
pub async fn stream(
    app: Arc<App>,
    caller: Arc<Caller>,
    headers: &HeaderMap,
    most: usize,
) -> Response {
    if let Err(text) = version(headers) {
        return rpc_error(StatusCode::BAD_REQUEST, None, INVALID_REQUEST, text, None);
    }
    let counted = match app.limits.stream(&caller.principal, most) {
        Ok(counted) => counted,
        Err(_) => return super::not_allowed("POST"),
    };
    let client = Client::of(headers, &caller);
    // Before the answer: whoever has the stream is told of every change from then on.
    let wake = app.listener.subscribe();
    let mut watch = Watch::start(app.clone(), caller.clone(), ALL_LISTS).await;
    look_at_session(&app, &caller, &client, &mut watch).await;
    let (sender, messages) = mpsc::unbounded_channel::<Value>();
    tokio::spawn(async move {
        let _counted = counted;
        app.metrics.stream(1);
        tokio::select! {
            () = announce(app.clone(), caller, client, watch, wake, &sender) => {}
            () = sender.closed() => {}
            () = app.draining.cancelled() => {}
        }
        app.metrics.stream(-1);
    });
    let stream = futures::stream::unfold(messages, |mut messages| async {
        let message = messages.recv().await?;
        Some((event(&message), messages))
    });
    stream_response(stream)
}

async fn announce(
    app: Arc<App>,
    caller: Arc<Caller>,
    client: Client,
    mut watch: Watch,
    mut wake: broadcast::Receiver<Channel>,
    sender: &mpsc::UnboundedSender<Value>,
) {
    loop {
        let changes = tokio::select! {
            changes = watch.next() => changes,
            // What the session watches is told to any sidecar; here it is looked up.
            channel = wake.recv() => {
                if matches!(channel, Ok(Channel::Sessions) | Err(_)) {
                    look_at_session(&app, &caller, &client, &mut watch).await;
                }
                continue;
            }
        };
        for change in changes {
            let notice = match change {
                Change::Tools => json!({"method": "notifications/tools/list_changed"}),
                Change::Prompts => json!({"method": "notifications/prompts/list_changed"}),
                Change::Resources => json!({"method": "notifications/resources/list_changed"}),
                Change::Resource(uri) => {
                    json!({"method": "notifications/resources/updated", "params": {"uri": uri}})
                }
            };
            let mut message = json!({"jsonrpc": "2.0"});
            if let (Some(message), Value::Object(notice)) = (message.as_object_mut(), notice) {
                message.extend(notice);
            }
            if sender.send(message).is_err() {
                return;
            }
        }
    }
}

async fn look_at_session(app: &App, caller: &Caller, client: &Client, watch: &mut Watch) {
    if client.session.is_none() {
        return;
    }
    let session = app
        .bridge
        .session_get(&caller.principal, &client.name)
        .await;
    if let Ok(session) = session {
        let uris = session["watches"].as_array().into_iter().flatten();
        let uris = uris.filter_map(|uri| uri.as_str().map(str::to_owned));
        watch.watch_uris(uris.collect()).await;
    }
}
