//! One request onto one tool: arguments from path, query, headers and body; the dispatcher does the rest.

use std::time::Instant;

use axum::response::Response;
use http::{header, HeaderMap, HeaderValue};
use serde_json::{json, Map, Value};
use tracing::field::Empty;
use tracing::Instrument;

use super::answer::{self, error, invalid, REPLAYED};
use super::body::holds_nul;
use super::routes::{Route, Shape, Variables};
use super::Asked;
use crate::db::Live;
use crate::door::{text, truthy};
use crate::gateway::{CallOptions, Outcome};
use crate::mcp::trace_id;
use crate::traces;

/// Rows asked for at once when a list is wanted whole, and where even that ends.
const PAGE: u64 = 250;
const MOST_ROWS: usize = 10_000;

/// A finished call.
struct Done {
    result: Value,
    raw: bool,
    markdown: bool,
}

/// Call options that headers carry.
fn options(headers: &HeaderMap) -> Result<CallOptions, Value> {
    let mut options = CallOptions {
        dry_run: dry_run(headers)?,
        preview_token: ascii(headers, "x-preview-token", "X-Preview-Token")?,
        idempotency_key: ascii(headers, "idempotency-key", "Idempotency-Key")?,
        // A program cannot be asked; it may say that it will come back for the answer.
        can: json!({"elicit": false, "tasks": wants_task(headers)}),
        trace_id: text(headers, "traceparent")
            .and_then(trace_id)
            .map(str::to_owned),
        ..CallOptions::default()
    };
    if options
        .idempotency_key
        .as_ref()
        .is_some_and(|key| !(1..=255).contains(&key.len()))
    {
        return Err(invalid("Idempotency-Key", "must have 1 to 255 characters"));
    }
    if let Some(agent) = text(headers, "user-agent") {
        let product = agent.split_whitespace().next().unwrap_or_default();
        let (name, version) = product.split_once('/').unwrap_or((product, ""));
        options.client = Some((name.to_owned(), version.to_owned()));
    }
    Ok(options)
}

/// A header that makes a call safer is never overlooked because it cannot be read.
fn ascii(headers: &HeaderMap, name: &str, shown: &str) -> Result<Option<String>, Value> {
    let Some(value) = headers.get(name) else {
        return Ok(None);
    };
    // A tab is text to HTTP, and nothing that anybody means in a key or token.
    match value.to_str() {
        Ok(value) if !value.contains('\t') => Ok(Some(value.to_owned())),
        _ => Err(invalid(shown, "must be plain ASCII without tabs")),
    }
}

/// A word that is neither yes nor no must not commit what was meant as a preview.
pub fn dry_run(headers: &HeaderMap) -> Result<bool, Value> {
    match headers.get("x-dry-run") {
        None => Ok(false),
        Some(value) => said(value).and_then(truthy).ok_or_else(|| {
            invalid(
                "X-Dry-Run",
                "must be true, 1, yes or on; or false, 0, no, off",
            )
        }),
    }
}

/// A header's word; an empty one says nothing.
fn said(value: &HeaderValue) -> Option<&str> {
    let word = value.to_str().ok()?;
    Some(word).filter(|word| !word.trim().is_empty())
}

fn wants_task(headers: &HeaderMap) -> bool {
    text(headers, "prefer").is_some_and(|p| {
        p.split([',', ';'])
            .any(|word| word.trim().eq_ignore_ascii_case("respond-async"))
    })
}

/// The query as arguments; a name given twice is a list, and `fields` may be written with commas.
pub fn query_arguments(query: &[(String, String)]) -> Result<Map<String, Value>, Value> {
    let mut arguments = Map::new();
    for (name, value) in query {
        if name.contains('\0') || value.contains('\0') {
            return Err(invalid("query", "text may not hold the character U+0000"));
        }
        let value = if name == "fields" && !value.starts_with('[') {
            json!(value.split(',').map(str::trim).collect::<Vec<_>>())
        } else {
            json!(value)
        };
        match arguments.get_mut(name) {
            None => {
                arguments.insert(name.clone(), value);
            }
            Some(Value::Array(list)) => match value {
                Value::Array(more) => list.extend(more),
                value => list.push(value),
            },
            Some(earlier) => {
                let first = earlier.take();
                *earlier = json!([first, value]);
            }
        }
    }
    Ok(arguments)
}

/// What a route's own names mean in the tool's.
fn rename(route: &Route, arguments: &mut Map<String, Value>) -> Result<(), Value> {
    for (name, _) in route.when.iter().filter(|(_, wanted)| wanted.is_some()) {
        arguments.remove(*name);
    }
    for renamed in route.renamed {
        let Some(value) = arguments.remove(renamed.sent) else {
            continue;
        };
        let value = match renamed.only {
            None => value,
            Some((sent, given)) if value == sent => json!(given),
            Some((sent, _)) => {
                return Err(invalid(renamed.sent, &format!("only {sent} is understood")))
            }
        };
        arguments.insert(renamed.argument.to_owned(), value);
    }
    Ok(())
}

/// Put a path's values among the arguments. A number in a path is a number.
fn place(variables: Variables, arguments: &mut Map<String, Value>) -> Result<(), Value> {
    for (name, text) in variables {
        let value = text
            .parse::<i64>()
            .map_or_else(|_| json!(text), |n| json!(n));
        if holds_nul(&value) {
            return Err(invalid(name, "text may not hold the character U+0000"));
        }
        match arguments.get(name) {
            Some(other) if *other != value && other.as_str() != Some(&text) => {
                return Err(invalid(
                    name,
                    "the path and the arguments name different ones",
                ));
            }
            _ => {
                arguments.insert(name.to_owned(), value);
            }
        }
    }
    Ok(())
}

/// POST /tools/{name}: any tool of the registry.
pub async fn by_name(
    asked: &Asked<'_>,
    name: &str,
    mut arguments: Map<String, Value>,
) -> Result<Response, Value> {
    arguments.extend(query_arguments(asked.query)?);
    if name.contains('\0') {
        return Err(error("tool_not_found", 404, "There is no such tool.", ""));
    }
    let options = options(asked.headers)?;
    respond(asked, 200, call(asked, name, arguments, options).await?)
}

/// A route of the table.
pub async fn by_route(
    asked: &Asked<'_>,
    route: &Route,
    variables: Variables,
    mut arguments: Map<String, Value>,
) -> Result<Response, Value> {
    arguments.extend(query_arguments(asked.query)?);
    rename(route, &mut arguments)?;
    place(variables, &mut arguments)?;
    let options = options(asked.headers)?;
    match route.shape {
        Shape::Object => respond(
            asked,
            route.status,
            call(asked, route.tool, arguments, options).await?,
        ),
        Shape::List(key) => list(asked, route.tool, key, arguments, options).await,
    }
}

fn respond(asked: &Asked<'_>, status: u16, ended: Ended) -> Result<Response, Value> {
    let done = match ended {
        Ended::Done(done) => done,
        Ended::Task(task) => return Ok(accepted(&task)),
    };
    if done.raw && done.result["isError"] == Value::Bool(true) {
        let said = done.result["content"][0]["text"]
            .as_str()
            .unwrap_or("The tool failed.");
        return Err(error("http_error", 422, said, ""));
    }
    if done.markdown {
        let text = crate::mcp::markdown::render(&done.result);
        return Ok(answer::typed(
            status,
            "text/markdown; charset=utf-8",
            text.into_bytes(),
        ));
    }
    if asked.method == "GET" || asked.method == "HEAD" {
        return Ok(answer::cacheable(&done.result, asked.headers));
    }
    let mut response = answer::json(status, &done.result);
    if done.result["_idempotent_replay"] == Value::Bool(true) {
        response
            .headers_mut()
            .insert(REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// The work goes on without the caller, who comes back to the address given.
fn accepted(task: &Value) -> Response {
    let mut response = answer::json(202, &json!({"task": task}));
    let address = format!(
        "/api/v1/tasks/{}",
        task["taskId"].as_str().unwrap_or_default()
    );
    if let Ok(address) = HeaderValue::from_str(&address) {
        response.headers_mut().insert(header::LOCATION, address);
    }
    let wait = task["pollIntervalMs"]
        .as_u64()
        .unwrap_or(1000)
        .div_ceil(1000);
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, HeaderValue::from(wait.max(1)));
    response
}

/// A bare array. Who gives a limit or a cursor gets that page and a Link to the next; who gives none gets all of it.
async fn list(
    asked: &Asked<'_>,
    tool: &str,
    key: &str,
    mut arguments: Map<String, Value>,
    options: CallOptions,
) -> Result<Response, Value> {
    let whole = !arguments.contains_key("limit") && !arguments.contains_key("cursor");
    let mut page = PAGE;
    let mut rows: Vec<Value> = Vec::new();
    let next = loop {
        if whole {
            arguments.insert("limit".into(), page.into());
        }
        let mut done = match call(asked, tool, arguments.clone(), options.clone()).await? {
            Ended::Done(done) if !done.markdown => done,
            other => return respond(asked, 200, other),
        };
        let next = done.result["next_cursor"].as_str().map(str::to_owned);
        // The farm cut the page by size and cannot say where it goes on: ask for less at once.
        if whole && next.is_none() && done.result["note"].is_string() && page > 1 {
            page /= 2;
            continue;
        }
        if let Value::Array(more) = done.result[key].take() {
            rows.extend(more);
        }
        match next {
            Some(cursor) if whole && rows.len() < MOST_ROWS => {
                arguments.insert("cursor".into(), cursor.into());
            }
            next => break next,
        }
    };
    let mut response = answer::cacheable(&rows, asked.headers);
    if let Some(cursor) = next {
        link_next(&mut response, asked, &cursor);
    }
    Ok(response)
}

/// RFC 8288: the same request with the next page's cursor.
fn link_next(response: &mut Response, asked: &Asked<'_>, cursor: &str) {
    use std::fmt::Write;
    let mut target = format!("{}?", asked.path);
    for (name, value) in asked.query.iter().filter(|(name, _)| name != "cursor") {
        // Writing to a String cannot fail.
        let _ = write!(target, "{}={}&", encode(name), encode(value));
    }
    target.push_str("cursor=");
    target.push_str(&encode(cursor));
    if let Ok(link) = HeaderValue::from_str(&format!("<{target}>; rel=\"next\"")) {
        response.headers_mut().insert(header::LINK, link);
    }
}

fn encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}

enum Ended {
    Done(Done),
    Task(Value),
}

/// One call of the dispatcher, counted, timed and logged.
async fn call(
    asked: &Asked<'_>,
    tool: &str,
    arguments: Map<String, Value>,
    options: CallOptions,
) -> Result<Ended, Value> {
    let app = &asked.door.app;
    let caller = asked.caller;
    let _counted = asked.door.counted(caller, tool)?;
    let started = Instant::now();
    let arguments = Value::Object(arguments);
    let span = tracing::info_span!(
        "rest",
        otel.name = format!("{} {tool}", asked.method),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = asked.method,
        url.path = asked.path,
        gen_ai.tool.name = tool,
        gen_ai.operation.name = "execute_tool",
        client.address = caller.ip.map(tracing::field::display),
        error.r#type = Empty,
        odin.request_id = %caller.request_id,
        odin.role = %caller.principal.role,
    );
    let parent = text(asked.headers, "traceparent");
    traces::continue_trace(&span, parent, text(asked.headers, "tracestate"));
    let outcome = app
        .gateway
        .call(caller, tool, &arguments, options, Live::default())
        .instrument(span.clone())
        .await;
    let result = match outcome {
        Outcome::Complete {
            mut result,
            raw,
            markdown,
        } => match result.get_mut("protocol_error").filter(|_| raw) {
            Some(refused) => Err(error(
                "http_error",
                422,
                refused["message"].as_str().unwrap_or("refused"),
                "",
            )),
            None => Ok(Ended::Done(Done {
                result,
                raw,
                markdown,
            })),
        },
        Outcome::Task(task) => Ok(Ended::Task(task)),
        Outcome::Error(mut error) => {
            if error["code"] == "not_authenticated" {
                app.auth.forget(caller.credential());
            } else if error["code"] == "task_required" {
                error["hint"] =
                    "Send Prefer: respond-async and come back to the address in Location.".into();
            }
            Err(error)
        }
        Outcome::InputRequired { .. } => {
            let detail = format!("{tool} asks its caller something, and this face cannot ask.");
            Err(error(
                "approval_required",
                403,
                detail,
                "Call it over MCP, where a person can answer.",
            ))
        }
    };
    let code = result
        .as_ref()
        .err()
        .map(|e| e["code"].as_str().unwrap_or("internal_error").to_owned());
    if let Some(code) = &code {
        span.record("otel.status_code", "ERROR");
        span.record("error.type", code);
    }
    let took = started.elapsed();
    app.metrics.operation(
        "rest",
        "tools/call",
        Some(tool),
        code.as_deref().unwrap_or("ok"),
        took,
    );
    tracing::info!(
        trace_id = text(asked.headers, "traceparent").and_then(trace_id),
        http.request.method = asked.method,
        url.path = asked.path,
        gen_ai.tool.name = tool,
        error.r#type = code,
        duration_ms = took.as_micros() as f64 / 1000.0,
        request_id = %caller.request_id,
        key = %caller.principal.key_name,
        client.address = caller.ip.map(tracing::field::display),
        face = "rest",
        "request"
    );
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter()
            .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn a_query_becomes_arguments() {
        let sent = pairs(&[("a", "1"), ("a", "2"), ("fields", "id, name"), ("b", "x")]);
        let arguments = query_arguments(&sent).unwrap();
        assert_eq!(
            json!(arguments),
            json!({"a": ["1", "2"], "fields": ["id", "name"], "b": "x"})
        );
    }

    #[test]
    fn a_path_and_a_body_may_not_disagree() {
        let mut arguments = Map::new();
        arguments.insert("job_id".into(), json!(4));
        assert!(place(vec![("job_id", "4".into())], &mut arguments).is_ok());
        let refused = place(vec![("job_id", "5".into())], &mut arguments).unwrap_err();
        assert_eq!(refused["field"], "job_id");
    }

    #[test]
    fn only_what_filters_is_taken_as_a_filter() {
        let route = super::super::routes::ROUTES
            .iter()
            .find(|r| r.path == "alerts")
            .unwrap();
        let mut arguments = query_arguments(&pairs(&[("is_read", "false")])).unwrap();
        rename(route, &mut arguments).unwrap();
        assert_eq!(json!(arguments), json!({"unread_only": "true"}));
        let mut arguments = query_arguments(&pairs(&[("is_read", "true")])).unwrap();
        assert_eq!(
            rename(route, &mut arguments).unwrap_err()["field"],
            "is_read"
        );
    }

    #[test]
    fn a_dry_run_is_never_guessed() {
        let mut headers = HeaderMap::new();
        assert_eq!(dry_run(&headers), Ok(false));
        headers.insert("x-dry-run", HeaderValue::from_static("Yes"));
        assert_eq!(dry_run(&headers), Ok(true));
        for unclear in ["y", "", " "] {
            headers.insert("x-dry-run", HeaderValue::from_static(unclear));
            assert!(dry_run(&headers).is_err(), "{unclear:?}");
        }
    }
}
