//! tools/call: rounds of running, asking and running again, until there is an answer.

use rmcp::model::{CallToolRequestParams, CallToolResponse, MetaObject};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::ErrorData;
use serde_json::{json, Map, Value};

use super::ask::{answerable, MOST_ROUNDS};
use super::consent::{self, Consent};
use super::handler::{is_modern, Handler};
use super::{message, relay, results, tasks};
use crate::db::Live;
use crate::gateway::{CallOptions, Outcome};

type Context = RequestContext<RoleServer>;

impl Handler {
    pub fn call_options(&self, cx: &Context) -> CallOptions {
        let capabilities = cx.client_capabilities().unwrap_or_default();
        let client = cx
            .client_info()
            .filter(|info| !info.name.is_empty())
            .map(|info| (info.name, info.version));
        let trace = cx.meta.get_traceparent();
        CallOptions {
            client,
            can: json!({
                "elicit": self.can_elicit(cx),
                "tasks": is_modern(cx) && capabilities.supports_tasks(),
            }),
            trace_id: trace.and_then(message::trace_id).map(str::to_owned),
            ..CallOptions::default()
        }
    }

    pub fn can_elicit(&self, cx: &Context) -> bool {
        (is_modern(cx) || self.link.can_ask())
            && cx
                .client_capabilities()
                .is_some_and(|c| c.elicitation.is_some())
    }

    /// One round of a call, with its notices on the way to the client meanwhile.
    async fn round(
        &self,
        tool: &str,
        arguments: &Value,
        options: CallOptions,
        cx: &Context,
    ) -> Outcome {
        let (notices, relay) = relay::start(self, cx);
        let live = Live {
            cancel: cx.ct.clone(),
            notices,
            limit: None,
        };
        let gateway = &self.app.gateway;
        // Pinned where it is made: moved once, it would take its room twice.
        let call = std::pin::pin!(gateway.call(&self.caller, tool, arguments, options, live));
        match relay {
            None => call.await,
            Some(relay) => relay.during(call).await,
        }
    }

    pub async fn call(
        &self,
        request: CallToolRequestParams,
        cx: &Context,
    ) -> Result<CallToolResponse, ErrorData> {
        let tool = request.name;
        let arguments = Value::Object(request.arguments.unwrap_or_default());
        let mut options = self.call_options(cx);
        let mut answers: Map<String, Value> = request
            .input_responses
            .unwrap_or_default()
            .into_iter()
            .collect();
        let mut state = request.request_state;
        for _ in 0..MOST_ROUNDS {
            // What a person said about the call itself is not for the tool.
            let mut consent = Consent::take(&mut answers, &mut state);
            consent.prepare(&mut options);
            options.input_responses = (!answers.is_empty()).then(|| json!(answers));
            options.request_state = state.take();
            let mut outcome = self.round(&tool, &arguments, options.clone(), cx).await;
            if consent.decide(self, &outcome).await {
                outcome = self.round(&tool, &arguments, options.clone(), cx).await;
            }
            if self.can_elicit(cx) && !consent.refused() {
                outcome = consent::question(&tool, &arguments, outcome);
            }
            let (requests, asked_state) = match outcome {
                Outcome::InputRequired { requests, state } => (requests, state),
                Outcome::Task(task) => return tasks::created(task),
                Outcome::Error(error) => {
                    self.note_refusal(&error);
                    let direct = tool != "call_tool";
                    return results::failed(error, direct).map(CallToolResponse::Complete);
                }
                Outcome::Complete {
                    result, raw: true, ..
                } if result["task"].is_string() => {
                    return tasks::handed_over(self, &result["task"], cx).await
                }
                Outcome::Complete {
                    result,
                    raw,
                    markdown,
                } => {
                    return results::complete(result, raw, markdown, is_modern(cx))
                        .map(CallToolResponse::Complete)
                }
            };
            let requests = answerable(requests, cx)?;
            if is_modern(cx) {
                return results::input_required(requests, asked_state).map(Into::into);
            }
            // An older client is asked right now, and the call repeated with its answers.
            answers = self.link.ask_all(requests, self, cx).await?;
            state = asked_state;
        }
        Err(ErrorData::internal_error(
            "the tool keeps asking without coming to an end",
            None,
        ))
    }

    /// The same, with our name on the result where the revision wants it.
    pub async fn call_and_sign(
        &self,
        request: CallToolRequestParams,
        cx: &Context,
    ) -> Result<CallToolResponse, ErrorData> {
        let mut response = self.call(request, cx).await?;
        if is_modern(cx) {
            let meta = match &mut response {
                CallToolResponse::Complete(r) => &mut r.meta,
                CallToolResponse::InputRequired(r) => &mut r.meta,
                CallToolResponse::Task(r) => &mut r.meta,
                _ => return Ok(response),
            };
            meta.get_or_insert_with(MetaObject::new).extend(self.meta());
        }
        Ok(response)
    }
}
