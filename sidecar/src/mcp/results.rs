//! From the farm's answer to an MCP result: structured content, compact text, and errors an agent can branch on.

use rmcp::model::{
    CallToolResult, ClientCapabilities, ContentBlock, ErrorCode, InputRequests,
    InputRequiredResult, MetaObject, ResultType,
};
use rmcp::ErrorData;
use serde_json::{json, Map, Value};

use super::markdown;

/// Error codes of the farm that mean the request itself was wrong, not the tool's work.
const NOT_FOR_TOOLS: &[&str] = &["tool_not_found", "input_invalid"];

/// A finished call. `structured` is kept where the revision allows it: an object always, other values since 2026-07-28.
pub fn complete(
    result: Value,
    raw: bool,
    as_table: bool,
    modern: bool,
) -> Result<CallToolResult, ErrorData> {
    if raw {
        return raw_result(result);
    }
    let text = if as_table {
        markdown::render(&result)
    } else {
        // Not `to_string()`, which goes through the formatter and costs twice as much.
        serde_json::to_string(&result).unwrap_or_default()
    };
    let mut out = CallToolResult::success(vec![ContentBlock::text(text)]);
    if modern || result.is_object() {
        out.structured_content = Some(result);
    }
    // Names, notes and file names in here were typed by people: data, whatever they say.
    let mut meta = MetaObject::new();
    meta.0.insert("odin/untrusted".into(), Value::Bool(true));
    out.meta = Some(meta);
    Ok(out)
}

/// A tool that speaks MCP itself.
fn raw_result(mut result: Value) -> Result<CallToolResult, ErrorData> {
    if let Some(error) = result.get_mut("protocol_error") {
        return Err(protocol_error(error.take()));
    }
    let mut result: CallToolResult = serde_json::from_value(result).map_err(|e| {
        tracing::error!(error = %e, "a tool returned something that is no MCP result");
        ErrorData::internal_error("the tool returned something that is no MCP result", None)
    })?;
    result.result_type = Some(ResultType::COMPLETE);
    Ok(result)
}

pub fn protocol_error(mut error: Value) -> ErrorData {
    let code = error["code"]
        .as_i64()
        .and_then(|code| i32::try_from(code).ok())
        .unwrap_or(ErrorCode::INTERNAL_ERROR.0);
    let message = error["message"].as_str().unwrap_or("error").to_owned();
    let data = error
        .get_mut("data")
        .map(Value::take)
        .filter(|d| !d.is_null());
    ErrorData::new(ErrorCode(code), message, data)
}

/// A refused or failed call: a result the agent reads, except where the protocol wants an error of its own. `direct` = the
/// client named this tool itself; what call_tool was asked for is an argument.
pub fn failed(error: Value, direct: bool) -> Result<CallToolResult, ErrorData> {
    let code = error["code"].as_str().unwrap_or_default();
    if code == "task_required" {
        let tasks = ClientCapabilities::builder().enable_tasks().build();
        return Err(ErrorData::missing_required_client_capability(tasks));
    }
    if direct && NOT_FOR_TOOLS.contains(&code) {
        let detail = error["detail"].as_str().unwrap_or("unknown tool");
        let hint = error["hint"].as_str();
        let message = match hint {
            Some(hint) => format!("{detail} {hint}"),
            None => detail.to_owned(),
        };
        return Err(ErrorData::invalid_params(
            message,
            Some(json!({ "error": error })),
        ));
    }
    let text = json!({ "error": error }).to_string();
    Ok(CallToolResult::error(vec![ContentBlock::text(text)]))
}

/// A failure outside `tools/call`, where there is no result to carry it.
pub fn as_protocol_error(error: &Value) -> ErrorData {
    let detail = error["detail"].as_str().unwrap_or("the farm refused");
    let code = match error["status"].as_u64().unwrap_or(500) {
        400 | 404 | 409 | 422 => ErrorCode::INVALID_PARAMS,
        401 | 403 => ErrorCode::INVALID_REQUEST,
        _ => ErrorCode::INTERNAL_ERROR,
    };
    ErrorData::new(code, detail.to_owned(), Some(json!({ "error": error })))
}

pub fn input_required(
    requests: Map<String, Value>,
    state: Option<String>,
) -> Result<InputRequiredResult, ErrorData> {
    let requests: Option<InputRequests> = if requests.is_empty() {
        None
    } else {
        let typed = serde_json::from_value(Value::Object(requests)).map_err(|e| {
            tracing::error!(error = %e, "a tool asks for something no client understands");
            ErrorData::internal_error("the tool asks for something no client understands", None)
        })?;
        Some(typed)
    };
    Ok(InputRequiredResult::new(requests, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_becomes_text_and_structure() {
        let result = complete(json!({"count": 1}), false, false, false).unwrap();
        let wire = serde_json::to_value(&result).unwrap();
        assert_eq!(wire["content"][0]["text"], r#"{"count":1}"#);
        assert_eq!(wire["structuredContent"]["count"], 1);
        assert_eq!(wire["isError"], false);
        // Before 2026-07-28 only an object may be structured.
        let old = complete(json!([1]), false, false, false).unwrap();
        assert!(old.structured_content.is_none());
        let new = complete(json!([1]), false, false, true).unwrap();
        assert_eq!(new.structured_content, Some(json!([1])));
    }

    #[test]
    fn errors_keep_their_code() {
        let wire =
            serde_json::to_value(failed(json!({"code": "job_not_found"}), true).unwrap()).unwrap();
        assert_eq!(wire["isError"], true);
        assert!(wire.get("structuredContent").is_none());
        assert_eq!(
            wire["content"][0]["text"],
            r#"{"error":{"code":"job_not_found"}}"#
        );
        let unknown = failed(
            json!({"code": "tool_not_found", "detail": "No tool x."}),
            true,
        );
        assert_eq!(unknown.unwrap_err().code, ErrorCode::INVALID_PARAMS);
    }

    #[test]
    fn raw_results_pass_and_protocol_errors_rise() {
        let image =
            json!({"content": [{"type": "image", "data": "aGk=", "mimeType": "image/png"}]});
        assert!(complete(image, true, false, true).is_ok());
        let error = json!({"protocol_error": {"code": -32021, "message": "m", "data": {"a": 1}}});
        let error = complete(error, true, false, true).unwrap_err();
        assert_eq!((error.code.0, error.data), (-32021, Some(json!({"a": 1}))));
    }
}
