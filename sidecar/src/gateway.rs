//! The sidecar's only view of the farm: one Rust method per gateway function. Every face (MCP, REST, stdio) calls these.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Map, Value};
use tracing::Instrument;

use crate::auth::{Credential, Principal};
use crate::db::{Db, DbError, Listener, Live};
use crate::embed::{self, Embedder};
use crate::printers::confirm;
use crate::printers::secrets::{self, Keyring};
use crate::traces;
use crate::work::wait;

/// Which face a call came through; the audit keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    Mcp,
    Rest,
    Stdio,
}

impl Face {
    pub fn as_str(self) -> &'static str {
        match self {
            Face::Mcp => "mcp",
            Face::Rest => "rest",
            Face::Stdio => "stdio",
        }
    }
}

/// Who calls, from where, and what they asked to be limited to.
#[derive(Clone, Debug)]
pub struct Caller {
    pub principal: Arc<Principal>,
    pub face: Face,
    pub ip: Option<IpAddr>,
    pub request_id: Arc<str>,
    /// Toolsets asked for by header or flag; the key's own limits apply as well, in the database.
    pub toolsets: Option<Arc<[String]>>,
    pub readonly: bool,
}

impl Caller {
    pub fn credential(&self) -> &Credential {
        &self.principal.credential
    }

    /// The options every gateway function takes.
    pub fn options(&self) -> Map<String, Value> {
        let mut options = Map::new();
        options.insert("face".into(), self.face.as_str().into());
        options.insert("request_id".into(), (*self.request_id).into());
        if let Some(ip) = self.ip {
            options.insert("ip".into(), ip.to_string().into());
        }
        if let Some(toolsets) = &self.toolsets {
            options.insert("toolsets".into(), json!(toolsets));
        }
        if self.readonly {
            options.insert("readonly".into(), true.into());
        }
        options
    }
}

/// What one call brings along besides its arguments.
#[derive(Clone, Debug, Default)]
pub struct CallOptions {
    pub idempotency_key: Option<String>,
    pub dry_run: bool,
    pub preview_token: Option<String>,
    /// A person at the client said yes to a tool that previews unless confirmed.
    pub confirmed: bool,
    pub client: Option<(String, String)>,
    pub input_responses: Option<Value>,
    pub request_state: Option<String>,
    /// What the client can do: {"elicit":bool,"tasks":bool,...}
    pub can: Value,
    /// Trace id of the caller, shown in pg_stat_activity.
    pub trace_id: Option<String>,
}

/// How a call ended.
#[derive(Debug)]
pub enum Outcome {
    Complete {
        result: Value,
        /// The result is a finished MCP result, not a value to be dressed.
        raw: bool,
        /// The caller asked to read the result as a table.
        markdown: bool,
    },
    /// The farm's error object: code, detail, retriable, status, hint, ...
    Error(Value),
    InputRequired {
        requests: Map<String, Value>,
        state: Option<String>,
    },
    Task(Value),
}

pub struct Gateway {
    db: Db,
    call_limit: Duration,
    /// How long a caller waits for a printer, and what seals printers' credentials on their way in.
    command_wait: Duration,
    /// How long a caller waits for a task that cannot poll it.
    task_wait: Duration,
    keyring: Option<Keyring>,
    embedder: Option<Arc<Embedder>>,
    listener: Option<Arc<Listener>>,
}

// `set_config(..., true)` lasts for this statement's transaction: the trace is visible in pg_stat_activity while the call runs.
const CALL: &str = "SELECT odin.gateway_call($1, $2, $3, $4) \
                    FROM pg_catalog.set_config('application_name', $5, true)";
const AUTHENTICATE: &str = "SELECT odin.gateway_authenticate($1, $2)";
const SIGN_IN: &str = "SELECT odin.gateway_sign_in($1, $2)";
const ISSUERS: &str = "SELECT odin.gateway_issuers()";
const TOOLS: &str = "SELECT odin.gateway_tools($1, $2)";
const PROMPTS: &str = "SELECT odin.gateway_prompts($1, $2)";
const PROMPT_GET: &str = "SELECT odin.gateway_prompt_get($1, $2, $3, $4)";
const RESOURCES: &str = "SELECT odin.gateway_resources($1, $2)";
const TEMPLATES: &str = "SELECT odin.gateway_resource_templates($1, $2)";
const RESOURCE_READ: &str = "SELECT odin.gateway_resource_read($1, $2, $3)";
const COMPLETE: &str = "SELECT odin.gateway_complete($1, $2, $3, $4)";
const VERSION: &str = "SELECT odin.gateway_version()";
const DECIDE: &str = "SELECT odin.gateway_decide($1, $2, $3, $4)";
const TASK_GET: &str = "SELECT odin.gateway_task_get($1, $2, $3)";
const TASK_UPDATE: &str = "SELECT odin.gateway_task_update($1, $2, $3, $4)";
const TASK_CANCEL: &str = "SELECT odin.gateway_task_cancel($1, $2, $3)";

impl Gateway {
    pub fn new(
        db: Db,
        call_limit: Duration,
        command_wait: Duration,
        task_wait: Duration,
        keyring: Option<Keyring>,
    ) -> Self {
        Gateway {
            db,
            call_limit,
            command_wait,
            task_wait,
            keyring,
            embedder: None,
            listener: None,
        }
    }

    /// Callers that wait for a task hear of its end from this.
    pub fn with_listener(mut self, listener: Arc<Listener>) -> Self {
        self.listener = Some(listener);
        self
    }

    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_deref()
    }

    /// Questions of calls get a vector from this on their way.
    pub fn with_embedder(mut self, embedder: Option<Arc<Embedder>>) -> Self {
        self.embedder = embedder;
        self
    }

    pub fn db(&self) -> &Db {
        &self.db
    }

    /// Call a tool. A failure on the way becomes the farm's error object too.
    pub async fn call(
        &self,
        caller: &Caller,
        tool: &str,
        arguments: &Value,
        call: CallOptions,
        mut live: Live,
    ) -> Outcome {
        let mut options = call_options(caller, &call);
        if let (Some(embedder), Some(question)) =
            (&self.embedder, embed::question_of(tool, arguments))
        {
            // These tools ask nothing of their callers: what is there else is of no use.
            options["input_responses"] =
                json!({"question_vector": embedder.question(question).await});
        }
        let name = application_name(&call, caller, tool);
        let sealed = match secrets::seal_arguments(self.keyring.as_ref(), tool, arguments) {
            Ok(sealed) => sealed,
            Err(error) => return Outcome::Error(error),
        };
        let arguments = sealed.as_ref().unwrap_or(arguments);
        let cancel = live.cancel.clone();
        let waiting = wait::Waiting::new(&call, &live, self.task_wait);
        live.limit.get_or_insert(self.call_limit);
        let span = tracing::debug_span!(
            "db",
            otel.name = "SELECT odin.gateway_call",
            otel.kind = "client",
            db.system.name = "postgresql",
            db.operation.name = "SELECT",
            db.stored_procedure.name = "odin.gateway_call",
        );
        let answer = self
            .db
            .json(
                CALL,
                &[
                    &caller.credential().as_str(),
                    &tool,
                    arguments,
                    &options,
                    &name,
                ],
                live,
            )
            .instrument(span)
            .await;
        match answer {
            // What a printer has to confirm is answered when it has.
            Ok(answer) => {
                let said = outcome(answer);
                let said =
                    confirm::confirmed(&self.db, caller, said, self.command_wait, &cancel).await;
                wait::finished(self, caller, said, waiting).await
            }
            Err(e) => Outcome::Error(self.failed(&e, caller, tool)),
        }
    }

    pub async fn authenticate(
        &self,
        credential: &Credential,
        ip: Option<IpAddr>,
    ) -> Result<Value, DbError> {
        let options = from_address(ip);
        self.db
            .quick(AUTHENTICATE, &[&credential.as_str(), &options])
            .await
    }

    /// The same for an issuer's token; afterwards its hash is a credential like a key's.
    pub async fn sign_in(&self, token: &str, ip: Option<IpAddr>) -> Result<Value, DbError> {
        self.db.quick(SIGN_IN, &[&token, &from_address(ip)]).await
    }

    /// Whom the farm trusts to sign people in.
    pub async fn issuers(&self) -> Result<Value, DbError> {
        self.db.quick(ISSUERS, &[]).await
    }

    pub async fn tools(&self, caller: &Caller) -> Result<Value, Value> {
        let options = Value::Object(caller.options());
        self.ask(caller, TOOLS, &[&caller.credential().as_str(), &options])
            .await
    }

    /// The registry as this key sees it; `all` = tools outside the listed toolsets as well.
    pub async fn every_tool(&self, caller: &Caller, all: bool) -> Result<Value, Value> {
        let mut options = caller.options();
        options.insert("all".into(), all.into());
        let options = Value::Object(options);
        self.ask(caller, TOOLS, &[&caller.credential().as_str(), &options])
            .await
    }

    pub async fn prompts(&self, caller: &Caller) -> Result<Value, Value> {
        let options = Value::Object(caller.options());
        self.ask(caller, PROMPTS, &[&caller.credential().as_str(), &options])
            .await
    }

    pub async fn prompt(
        &self,
        caller: &Caller,
        name: &str,
        arguments: &Value,
        call: &CallOptions,
    ) -> Outcome {
        let options = call_options(caller, call);
        let credential = caller.credential().as_str();
        let params: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
            [&credential, &name, arguments, &options];
        match self.ask(caller, PROMPT_GET, &params).await {
            Ok(answer) => outcome(answer),
            Err(error) => Outcome::Error(error),
        }
    }

    pub async fn resources(&self, caller: &Caller) -> Result<Value, Value> {
        let options = Value::Object(caller.options());
        self.ask(
            caller,
            RESOURCES,
            &[&caller.credential().as_str(), &options],
        )
        .await
    }

    pub async fn resource_templates(&self, caller: &Caller) -> Result<Value, Value> {
        let options = Value::Object(caller.options());
        self.ask(
            caller,
            TEMPLATES,
            &[&caller.credential().as_str(), &options],
        )
        .await
    }

    pub async fn resource(&self, caller: &Caller, uri: &str, call: &CallOptions) -> Outcome {
        let options = call_options(caller, call);
        let credential = caller.credential().as_str();
        match self
            .ask(caller, RESOURCE_READ, &[&credential, &uri, &options])
            .await
        {
            Ok(answer) => outcome(answer),
            Err(error) => Outcome::Error(error),
        }
    }

    pub async fn complete(
        &self,
        caller: &Caller,
        reference: &Value,
        argument: &Value,
        context: &Value,
    ) -> Result<Value, Value> {
        let credential = caller.credential().as_str();
        self.ask(
            caller,
            COMPLETE,
            &[&credential, reference, argument, context],
        )
        .await
    }

    /// A person at the client answered about a call that waits for approval.
    pub async fn decide(&self, caller: &Caller, id: i64, approved: bool) -> Result<Value, Value> {
        let options = Value::Object(caller.options());
        let credential = caller.credential().as_str();
        self.ask(caller, DECIDE, &[&credential, &id, &approved, &options])
            .await
    }

    pub async fn task_get(&self, caller: &Caller, id: &str) -> Result<Value, Value> {
        let options = Value::Object(caller.options());
        let credential = caller.credential().as_str();
        self.ask(caller, TASK_GET, &[&credential, &id, &options])
            .await
    }

    pub async fn task_update(
        &self,
        caller: &Caller,
        id: &str,
        responses: &Value,
    ) -> Result<Value, Value> {
        let options = Value::Object(caller.options());
        let credential = caller.credential().as_str();
        self.ask(
            caller,
            TASK_UPDATE,
            &[&credential, &id, responses, &options],
        )
        .await
    }

    pub async fn task_cancel(&self, caller: &Caller, id: &str) -> Result<Value, Value> {
        let options = Value::Object(caller.options());
        let credential = caller.credential().as_str();
        self.ask(caller, TASK_CANCEL, &[&credential, &id, &options])
            .await
    }

    /// Versions of the extension, its schema and the registry; also the proof that the farm answers.
    pub async fn version(&self) -> Result<Value, DbError> {
        self.db.quick(VERSION, &[]).await
    }

    /// A question to the farm: `Err` is the farm's error object, from the answer or from the way there.
    async fn ask(
        &self,
        caller: &Caller,
        sql: &'static str,
        params: crate::db::Params<'_>,
    ) -> Result<Value, Value> {
        let answer = self
            .db
            .quick(sql, params)
            .await
            .map_err(|e| self.failed(&e, caller, sql))?;
        match answer.get("error") {
            Some(error) if answer.get("ok") != Some(&Value::Bool(true)) => Err(error.clone()),
            _ => Ok(answer),
        }
    }

    fn failed(&self, error: &DbError, caller: &Caller, what: &str) -> Value {
        match error {
            DbError::Cancelled => {}
            DbError::Sql { .. } | DbError::Internal(_) => {
                tracing::error!(request_id = %caller.request_id, what, error = %error, "call failed");
            }
            _ => {
                tracing::warn!(request_id = %caller.request_id, what, error = %error, "call failed");
            }
        }
        let mut value = error.to_json();
        value["request_id"] = json!(&*caller.request_id);
        value
    }
}

fn from_address(ip: Option<IpAddr>) -> Value {
    match ip {
        Some(ip) => json!({"ip": ip.to_string()}),
        None => json!({}),
    }
}

fn call_options(caller: &Caller, call: &CallOptions) -> Value {
    let mut options = caller.options();
    if let Some(key) = &call.idempotency_key {
        options.insert("idempotency_key".into(), key.as_str().into());
    }
    if call.dry_run {
        options.insert("dry_run".into(), true.into());
    }
    if call.confirmed {
        options.insert("confirmed".into(), true.into());
    }
    if let Some(token) = &call.preview_token {
        options.insert("preview_token".into(), token.as_str().into());
    }
    if let Some((name, version)) = &call.client {
        options.insert("client".into(), json!({"name": name, "version": version}));
    }
    if let Some(responses) = &call.input_responses {
        options.insert("input_responses".into(), responses.clone());
    }
    if let Some(state) = &call.request_state {
        options.insert("request_state".into(), state.as_str().into());
    }
    if !call.can.is_null() {
        options.insert("can".into(), call.can.clone());
    }
    Value::Object(options)
}

/// Shown in pg_stat_activity while the call runs: the caller's trace (or our request id) and the tool.
fn application_name(call: &CallOptions, caller: &Caller, tool: &str) -> String {
    let recorded = traces::trace_id();
    let trace = call.trace_id.as_deref().or(recorded.as_deref());
    let id = trace.unwrap_or(&caller.request_id);
    let mut name = format!("odin {id} {tool}");
    name.retain(|c| c.is_ascii_graphic() || c == ' ');
    // NAMEDATALEN - 1
    name.truncate(63);
    name
}

/// Read an answer of the dispatcher.
pub fn outcome(mut answer: Value) -> Outcome {
    let status = answer.get("status").and_then(Value::as_str).unwrap_or("");
    match status {
        "complete" => {
            let raw = answer["raw"] == Value::Bool(true);
            let replay = answer["replay"] == Value::Bool(true);
            let markdown = answer["format"] == "markdown";
            // Prompts and resources come without an envelope.
            let mut result = match answer.get_mut("result") {
                Some(result) => result.take(),
                None => answer,
            };
            if let (true, false, Value::Object(fields)) = (replay, raw, &mut result) {
                fields.insert("_idempotent_replay".into(), true.into());
            }
            Outcome::Complete {
                result,
                raw,
                markdown,
            }
        }
        "error" => Outcome::Error(answer["error"].take()),
        "input_required" => Outcome::InputRequired {
            requests: match answer["input_requests"].take() {
                Value::Object(requests) => requests,
                _ => Map::new(),
            },
            state: answer["request_state"].as_str().map(str::to_owned),
        },
        "task" => Outcome::Task(answer["task"].take()),
        _ => {
            tracing::error!(status, "the gateway answered in an unknown shape");
            Outcome::Error(DbError::Internal("unknown answer".into()).to_json())
        }
    }
}
