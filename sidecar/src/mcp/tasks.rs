//! The tasks extension: long work is a row in the database, whichever sidecar does it or is asked about it.

use rmcp::model::{CallToolResponse, CreateTaskResult, DetailedTask, GetTaskResult, Task};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::ErrorData;
use serde_json::{json, Value};

use super::handler::Handler;
use super::results;
use crate::gateway::{outcome, Outcome};

/// The row is committed before this answer leaves, so the client's first poll finds it.
pub fn created(task: Value) -> Result<CallToolResponse, ErrorData> {
    let task: Task = serde_json::from_value(task).map_err(unreadable)?;
    Ok(CallToolResponse::Task(CreateTaskResult::new(task)))
}

/// A tool that asked its questions and then started a task for the rest.
pub async fn handed_over(
    handler: &Handler,
    id: &Value,
    cx: &RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    if !cx.client_capabilities().is_some_and(|c| c.supports_tasks()) {
        let text = json!({ "task": id, "hint": "The work goes on; this client cannot poll it." });
        return results::complete(text, false, false, false).map(CallToolResponse::Complete);
    }
    let id = id.as_str().unwrap_or_default();
    let answer = handler.app.gateway.task_get(&handler.caller, id).await;
    created(answer.map_err(|e| refused(handler, &e))?["task"].take())
}

pub async fn get(handler: &Handler, id: &str) -> Result<GetTaskResult, ErrorData> {
    let answer = handler
        .app
        .gateway
        .task_get(&handler.caller, id)
        .await
        .map_err(|e| refused(handler, &e))?;
    let task = dressed(answer["task"].clone())?;
    Ok(GetTaskResult::new(task))
}

pub async fn update(handler: &Handler, id: &str, responses: &Value) -> Result<(), ErrorData> {
    handler
        .app
        .gateway
        .task_update(&handler.caller, id, responses)
        .await
        .map(|_| ())
        .map_err(|e| refused(handler, &e))
}

pub async fn cancel(handler: &Handler, id: &str) -> Result<(), ErrorData> {
    handler
        .app
        .gateway
        .task_cancel(&handler.caller, id)
        .await
        .map(|_| ())
        .map_err(|e| refused(handler, &e))
}

fn refused(handler: &Handler, error: &Value) -> ErrorData {
    handler.note_refusal(error);
    results::as_protocol_error(error)
}

/// The row keeps the farm's own answer (`outcome`); the client gets what the call itself would have returned.
fn dressed(mut task: Value) -> Result<DetailedTask, ErrorData> {
    let kept = task.get_mut("outcome").map(Value::take);
    if let Some(kept) = kept.filter(|_| task["status"] == "completed") {
        let result = match outcome(kept) {
            Outcome::Complete {
                result,
                raw,
                markdown,
            } => results::complete(result, raw, markdown, true),
            Outcome::Error(error) => results::failed(error, true),
            _ => Err(ErrorData::internal_error("the task has no outcome", None)),
        };
        match result {
            Ok(result) => task["result"] = json!(result),
            Err(error) => {
                task["status"] = json!("failed");
                task["error"] = json!(error);
            }
        }
    }
    serde_json::from_value(task).map_err(unreadable)
}

fn unreadable(error: serde_json::Error) -> ErrorData {
    tracing::error!(error = %error, "a task's row is not what MCP expects");
    ErrorData::internal_error("the task came back in a shape MCP cannot carry", None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(status: &str, outcome: Value) -> Value {
        json!({"taskId": "t", "status": status, "createdAt": "2026-01-01T00:00:00Z",
               "lastUpdatedAt": "2026-01-01T00:00:00Z", "ttlMs": null, "pollIntervalMs": 500,
               "outcome": outcome})
    }

    #[test]
    fn outcomes_become_results() {
        let done = task(
            "completed",
            json!({"status": "complete", "result": {"n": 1}}),
        );
        let wire = json!(dressed(done).unwrap());
        assert_eq!(wire["result"]["structuredContent"]["n"], 1);
        assert!(wire.get("outcome").is_none());
        let error = task(
            "completed",
            json!({"status": "error", "error": {"code": "x"}}),
        );
        assert_eq!(json!(dressed(error).unwrap())["result"]["isError"], true);
        let raw = json!({"protocol_error": {"code": -32603, "message": "boom"}});
        let failed = task(
            "completed",
            json!({"status": "complete", "raw": true, "result": raw}),
        );
        let wire = json!(dressed(failed).unwrap());
        assert_eq!(wire["status"], "failed");
        assert_eq!(wire["error"]["message"], "boom");
    }
}
