//! rmcp's handler for one request: every method ends in a gateway function under the caller's own key.

// Logging and resources/subscribe are deprecated in the newest revision, and part of all older ones.
#![allow(deprecated)]

use std::borrow::Cow;
use std::sync::{Arc, Mutex};

use rmcp::model::*;
use rmcp::service::{NotificationContext, RequestContext, RoleServer, SubscriptionContext};
use rmcp::{ErrorData, ServerHandler};
use serde_json::{json, Value};

use super::ask::{Link, MOST_ROUNDS};
use super::watch::{Change, Want, Watch, MOST_RESOURCES};
use super::{message, results};
use crate::app::App;
use crate::gateway::{Caller, Outcome};

type Context = RequestContext<RoleServer>;

/// How long a client may keep a list before asking again; changes are announced besides.
const LIST_TTL_MS: u64 = 30_000;

#[derive(Clone)]
pub struct Handler {
    pub app: Arc<App>,
    pub caller: Arc<Caller>,
    /// The way to ask an older client something in the middle of a call.
    pub link: Link,
    /// The client takes one JSON answer and no stream: no progress, no logs.
    pub quiet: bool,
    /// For a subscription: begun before its acknowledgement goes out.
    pub watch: Begun,
}

/// A watch that waits for whoever is to announce what it sees.
pub type Begun = Arc<Mutex<Option<Watch>>>;

fn wanted(filter: &SubscriptionFilter) -> Want {
    Want {
        tools: filter.tools_list_changed == Some(true),
        prompts: filter.prompts_list_changed == Some(true),
        resources: filter.resources_list_changed == Some(true),
        uris: filter.resource_subscriptions.clone().unwrap_or_default(),
    }
}

pub fn is_modern(cx: &Context) -> bool {
    cx.protocol_version()
        .is_some_and(|version| version.as_str() >= message::MODERN)
}

impl Handler {
    /// The database no longer accepts this key: the door must not let it in from memory either.
    pub fn note_refusal(&self, error: &Value) {
        if error["code"] == "not_authenticated" {
            self.app.auth.forget(self.caller.credential());
        }
    }

    fn refused(&self, error: Value) -> ErrorData {
        self.note_refusal(&error);
        results::as_protocol_error(&error)
    }

    pub fn meta(&self) -> MetaObject {
        let mut meta = MetaObject::new();
        meta.0.insert(
            "io.modelcontextprotocol/serverInfo".into(),
            json!({"name": super::SERVER_NAME, "version": env!("CARGO_PKG_VERSION")}),
        );
        meta
    }

    fn list_meta(&self, cx: &Context) -> Option<MetaObject> {
        is_modern(cx).then(|| self.meta())
    }
}

/// The farm's error code inside a tool result, for metrics and logs.
fn tool_error(response: &CallToolResponse) -> Option<String> {
    match response {
        CallToolResponse::Complete(result) if result.is_error == Some(true) => {
            Some("tool_error".to_owned())
        }
        _ => None,
    }
}

fn nothing<T>(_: &T) -> Option<String> {
    None
}

impl ServerHandler for Handler {
    fn get_info(&self) -> ServerConfig {
        super::server_config(false)
    }

    async fn initialize(
        &self,
        request: InitializeRequestParams,
        cx: Context,
    ) -> Result<InitializeResult, ErrorData> {
        cx.peer.set_peer_info(request.clone());
        let mut result = super::server_config(true);
        result.protocol_version = self.negotiate_initialize(&request)?.protocol_version;
        Ok(result)
    }

    async fn discover(&self, _cx: Context) -> Result<DiscoverResult, ErrorData> {
        let mut result = DiscoverResult::from_server_info(
            self.supported_protocol_versions().into_owned(),
            self.get_info(),
        );
        result.ttl_ms = 3_600_000;
        result.cache_scope = CacheScope::Private;
        Ok(result)
    }

    fn supported_protocol_versions(&self) -> Cow<'static, [ProtocolVersion]> {
        Cow::Borrowed(ProtocolVersion::KNOWN_VERSIONS)
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        let schema = self.app.registry.input_schema(&self.caller, name)?;
        Some(Tool::new_with_raw(name.to_owned(), None, schema))
    }

    async fn list_tools(
        &self,
        _page: Option<PaginatedRequestParams>,
        cx: Context,
    ) -> Result<ListToolsResult, ErrorData> {
        let work = Box::pin(async {
            let list = self.app.registry.tools(&self.caller).await;
            let list = list.map_err(|e| self.refused(e))?;
            let mut result = ListToolsResult::with_all_items(list.items.clone());
            result.ttl_ms = Some(LIST_TTL_MS);
            result.cache_scope = Some(CacheScope::Private);
            result.meta = self.list_meta(&cx);
            Ok(result)
        });
        self.observed("tools/list", None, &cx, work, nothing).await
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        cx: Context,
    ) -> Result<CallToolResponse, ErrorData> {
        let name = request.name.to_string();
        let work = Box::pin(self.call_and_sign(request, &cx));
        self.observed("tools/call", Some(&name), &cx, work, tool_error)
            .await
    }

    async fn list_prompts(
        &self,
        _page: Option<PaginatedRequestParams>,
        cx: Context,
    ) -> Result<ListPromptsResult, ErrorData> {
        let work = Box::pin(async {
            let list = self.app.registry.prompts(&self.caller).await;
            let list = list.map_err(|e| self.refused(e))?;
            let mut result = ListPromptsResult::with_all_items(list.items.clone());
            result.ttl_ms = Some(LIST_TTL_MS);
            result.cache_scope = Some(CacheScope::Private);
            result.meta = self.list_meta(&cx);
            Ok(result)
        });
        self.observed("prompts/list", None, &cx, work, nothing)
            .await
    }

    async fn get_prompt(
        &self,
        request: GetPromptRequestParams,
        cx: Context,
    ) -> Result<GetPromptResponse, ErrorData> {
        let name = request.name.clone();
        let work = Box::pin(async {
            let arguments = Value::Object(request.arguments.unwrap_or_default());
            let mut options = self.call_options(&cx);
            options.input_responses = request.input_responses.map(|answers| json!(answers));
            options.request_state = request.request_state;
            for _ in 0..MOST_ROUNDS {
                let gateway = &self.app.gateway;
                match gateway
                    .prompt(&self.caller, &request.name, &arguments, &options)
                    .await
                {
                    Outcome::InputRequired { requests, state } => {
                        let requests = super::ask::answerable(requests, &cx)?;
                        if is_modern(&cx) {
                            return results::input_required(requests, state).map(Into::into);
                        }
                        let answers = self.link.ask_all(requests, self, &cx).await?;
                        options.input_responses = Some(Value::Object(answers));
                        options.request_state = state;
                    }
                    other => {
                        let value = self.completed(other)?;
                        let mut result: GetPromptResult = typed(value, "prompt")?;
                        result.result_type = Some(ResultType::COMPLETE);
                        result.meta = self.list_meta(&cx);
                        return Ok(GetPromptResponse::Complete(result));
                    }
                }
            }
            Err(ErrorData::internal_error("the prompt keeps asking", None))
        });
        self.observed("prompts/get", Some(&name), &cx, work, nothing)
            .await
    }

    async fn list_resources(
        &self,
        _page: Option<PaginatedRequestParams>,
        cx: Context,
    ) -> Result<ListResourcesResult, ErrorData> {
        let work = Box::pin(async {
            let list = self.app.registry.resources(&self.caller).await;
            let list = list.map_err(|e| self.refused(e))?;
            let mut result = ListResourcesResult::with_all_items(list.items.clone());
            result.ttl_ms = Some(LIST_TTL_MS);
            result.cache_scope = Some(CacheScope::Private);
            result.meta = self.list_meta(&cx);
            Ok(result)
        });
        self.observed("resources/list", None, &cx, work, nothing)
            .await
    }

    async fn list_resource_templates(
        &self,
        _page: Option<PaginatedRequestParams>,
        cx: Context,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        let work = Box::pin(async {
            let list = self.app.registry.templates(&self.caller).await;
            let list = list.map_err(|e| self.refused(e))?;
            let mut result = ListResourceTemplatesResult::with_all_items(list.items.clone());
            result.ttl_ms = Some(LIST_TTL_MS);
            result.cache_scope = Some(CacheScope::Private);
            result.meta = self.list_meta(&cx);
            Ok(result)
        });
        self.observed("resources/templates/list", None, &cx, work, nothing)
            .await
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        cx: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let work = Box::pin(async {
            let options = self.call_options(&cx);
            let gateway = &self.app.gateway;
            let outcome = gateway.resource(&self.caller, &request.uri, &options).await;
            if let Outcome::Error(error) = &outcome {
                if error["status"] == 404 {
                    self.note_refusal(error);
                    let detail = error["detail"].as_str().unwrap_or("no such resource");
                    return Err(ErrorData::resource_not_found(
                        detail.to_owned(),
                        Some(json!({"uri": request.uri})),
                    ));
                }
            }
            let value = self.completed(outcome)?;
            let mut result: ReadResourceResult = typed(value, "resource")?;
            result.result_type = Some(ResultType::COMPLETE);
            // A farm moves: what was read is stale at once.
            result.ttl_ms = Some(0);
            result.cache_scope = Some(CacheScope::Private);
            Ok(ReadResourceResponse::Complete(result))
        });
        self.observed("resources/read", None, &cx, work, nothing)
            .await
    }

    async fn complete(
        &self,
        request: CompleteRequestParams,
        cx: Context,
    ) -> Result<CompleteResult, ErrorData> {
        let work = Box::pin(async {
            let reference = json!(request.r#ref);
            let argument = json!(request.argument);
            let context = json!(request.context);
            let answer = self
                .app
                .gateway
                .complete(&self.caller, &reference, &argument, &context)
                .await
                .map_err(|e| self.refused(e))?;
            let mut completion = answer.get("completion").unwrap_or(&answer).clone();
            if let Some(values) = completion["values"].as_array_mut() {
                values.truncate(CompletionInfo::MAX_VALUES);
            }
            let info: CompletionInfo = typed(completion, "completion")?;
            let mut result = CompleteResult::new(info);
            result.meta = self.list_meta(&cx);
            Ok(result)
        });
        self.observed("completion/complete", None, &cx, work, nothing)
            .await
    }

    async fn set_level(
        &self,
        request: SetLevelRequestParams,
        _cx: Context,
    ) -> Result<(), ErrorData> {
        Box::pin(self.link.set_level(self, request.level)).await
    }

    async fn subscribe(
        &self,
        request: SubscribeRequestParams,
        _cx: Context,
    ) -> Result<(), ErrorData> {
        Box::pin(self.link.subscribe(self, &request.uri, true)).await
    }

    async fn unsubscribe(
        &self,
        request: UnsubscribeRequestParams,
        _cx: Context,
    ) -> Result<(), ErrorData> {
        Box::pin(self.link.subscribe(self, &request.uri, false)).await
    }

    async fn on_initialized(&self, cx: NotificationContext<RoleServer>) {
        if let Link::Stdio(session) = &self.link {
            let announcing = super::stdio::announce(self.clone(), session.clone(), cx.peer);
            tokio::spawn(announcing);
        }
    }

    fn accepted_subscription_filter(
        &self,
        requested: &SubscriptionFilter,
    ) -> Option<SubscriptionFilter> {
        let mut accepted = requested.clone();
        if let Some(uris) = &mut accepted.resource_subscriptions {
            uris.truncate(MOST_RESOURCES);
        }
        Some(accepted)
    }

    async fn listen(&self, cx: SubscriptionContext) -> Result<(), ErrorData> {
        let begun = self.watch.lock().ok().and_then(|mut watch| watch.take());
        self.app.metrics.stream(1);
        let watching = Box::pin(async {
            let mut watch = match begun {
                Some(watch) => watch,
                None => self.watching(cx.accepted()).await,
            };
            loop {
                for change in watch.next().await {
                    let sent = match change {
                        Change::Tools => cx.sink().notify_tool_list_changed().await,
                        Change::Prompts => cx.sink().notify_prompt_list_changed().await,
                        Change::Resources => cx.sink().notify_resource_list_changed().await,
                        Change::Resource(uri) => cx.sink().notify_resource_updated(uri).await,
                    };
                    if sent.is_err() {
                        return;
                    }
                }
            }
        });
        tokio::select! {
            () = watching => {}
            () = cx.cancelled() => {}
            () = self.app.draining.cancelled() => {}
        }
        self.app.metrics.stream(-1);
        Ok(())
    }

    async fn get_task(
        &self,
        request: GetTaskParams,
        cx: Context,
    ) -> Result<GetTaskResult, ErrorData> {
        let work = Box::pin(super::tasks::get(self, &request.task_id));
        self.observed("tasks/get", None, &cx, work, nothing).await
    }

    async fn update_task(&self, request: UpdateTaskParams, cx: Context) -> Result<(), ErrorData> {
        let responses = json!(request.input_responses);
        let work = Box::pin(super::tasks::update(self, &request.task_id, &responses));
        self.observed("tasks/update", None, &cx, work, nothing)
            .await
    }

    async fn cancel_task(&self, request: CancelTaskParams, cx: Context) -> Result<(), ErrorData> {
        let work = Box::pin(super::tasks::cancel(self, &request.task_id));
        self.observed("tasks/cancel", None, &cx, work, nothing)
            .await
    }

    /// rmcp sends a known method with unreadable params here as well.
    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _cx: Context,
    ) -> Result<CustomResult, ErrorData> {
        if message::METHODS.contains(&request.method.as_str()) {
            let text = format!("Invalid params for {}.", request.method);
            return Err(ErrorData::invalid_params(text, None));
        }
        Err(ErrorData::new(
            ErrorCode::METHOD_NOT_FOUND,
            format!("Unknown method {}.", request.method),
            None,
        ))
    }
}

impl Handler {
    async fn watching(&self, filter: &SubscriptionFilter) -> Watch {
        Watch::start(self.app.clone(), self.caller.clone(), wanted(filter)).await
    }

    /// Watch what a subscription asks for from now on: who has its acknowledgement is told of every change after it.
    pub async fn begin_to_watch(&self, params: &Value) {
        let asked = serde_json::from_value(params["notifications"].clone()).ok();
        // What cannot be read is refused further on.
        let Some(filter) = asked.and_then(|asked| self.accepted_subscription_filter(&asked)) else {
            return;
        };
        let watch = self.watching(&filter).await;
        if let Ok(mut begun) = self.watch.lock() {
            *begun = Some(watch);
        }
    }

    fn completed(&self, outcome: Outcome) -> Result<Value, ErrorData> {
        match outcome {
            Outcome::Complete { mut result, .. } => match result.get_mut("protocol_error") {
                Some(error) => Err(results::protocol_error(error.take())),
                None => Ok(result),
            },
            Outcome::Error(error) => Err(self.refused(error)),
            Outcome::InputRequired { .. } | Outcome::Task(_) => Err(ErrorData::internal_error(
                "only a tool may do this work later",
                None,
            )),
        }
    }
}

fn typed<T: serde::de::DeserializeOwned>(value: Value, what: &str) -> Result<T, ErrorData> {
    serde_json::from_value(value).map_err(|e| {
        tracing::error!(what, error = %e, "the farm returned something MCP cannot carry");
        ErrorData::internal_error(
            format!("the {what} came back in a shape MCP cannot carry"),
            None,
        )
    })
}
