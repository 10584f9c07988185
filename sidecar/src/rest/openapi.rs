//! The OpenAPI 3.1 document, made from the registry for one caller: every tool he may call is an operation with its own
//! schemas. Nothing about a tool is written down a second time.

use serde_json::{json, Map, Value};

use super::routes::{Route, Shape, ROUTES};
use super::schemas::{by_key, by_person, components};

const DESCRIPTION: &str = "Every tool of the farm by name, and the routes that clients of ODIN know. \
Reads and writes go through the same checks as over MCP: roles, row-level access, idempotency, preview, audit. \
Arguments are taken kindly: a number or a list may come as text, null for an optional argument is the same as leaving it out, \
and older names of arguments are understood; anything else that is unknown is refused.";

pub fn document(tools: &[Value], public_url: Option<&str>) -> Value {
    let mut paths = Map::new();
    own_paths(&mut paths);
    for tool in tools {
        let Some(name) = tool["name"].as_str() else {
            continue;
        };
        paths.insert(
            format!("/api/v1/tools/{name}"),
            json!({"post": tool_operation(name, tool)}),
        );
    }
    for route in ROUTES.iter().filter(|route| route.when.is_empty()) {
        let Some(tool) = tools.iter().find(|tool| tool["name"] == route.tool) else {
            continue;
        };
        let path = paths
            .entry(format!("/api/v1/{}", route.path))
            .or_insert_with(|| json!({}));
        path[route.method.to_ascii_lowercase()] = route_operation(route, tool);
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "odin_farm", "version": env!("CARGO_PKG_VERSION"), "description": DESCRIPTION,
                 "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        "servers": [{"url": public_url.unwrap_or("/")}],
        "security": by_key(),
        "tags": [
            {"name": "tools", "description": "Every tool by its name."},
            {"name": "routes", "description": "Paths that clients of ODIN know; each is one of the tools."},
            {"name": "people", "description": "Keys and waiting calls: for a person's own login, never for a key."},
            {"name": "farm", "description": "Versions, tasks and the registry itself."},
        ],
        "paths": paths,
        "components": components(),
    })
}

fn reference(kind: &str, name: &str) -> Value {
    json!({"$ref": format!("#/components/{kind}/{name}")})
}

fn is_read(tool: &Value) -> bool {
    tool["annotations"]["readOnlyHint"] == Value::Bool(true)
}

/// Every answer there may be besides the good one.
fn with_refusals(good: &str, body: Value) -> Value {
    let mut responses = Map::new();
    responses.insert(good.to_owned(), body);
    responses.insert("4XX".to_owned(), reference("responses", "Refused"));
    responses.insert("5XX".to_owned(), reference("responses", "Refused"));
    Value::Object(responses)
}

fn answer(description: &str, schema: Value) -> Value {
    json!({
        "description": description,
        "headers": {"X-Request-Id": reference("headers", "RequestId")},
        "content": {"application/json": {"schema": schema}},
    })
}

fn output_schema(tool: &Value) -> Value {
    tool.get("outputSchema")
        .cloned()
        .unwrap_or_else(|| json!({"type": "object"}))
}

/// The tool's arguments; null for one that may be left out is the same as leaving it out.
fn input_schema(tool: &Value) -> Value {
    let mut schema = tool["inputSchema"].clone();
    let required = schema["required"].clone();
    for (name, property) in schema["properties"].as_object_mut().into_iter().flatten() {
        if !required
            .as_array()
            .is_some_and(|list| list.iter().any(|r| r == name))
        {
            *property = or_null(property);
        }
    }
    schema
}

fn or_null(schema: &Value) -> Value {
    let mut schema = schema.clone();
    let types = match schema.get("type") {
        Some(Value::String(one)) => Some(json!([one, "null"])),
        Some(Value::Array(types)) if !types.iter().any(|t| t == "null") => {
            Some(types.iter().cloned().chain([Value::from("null")]).collect())
        }
        _ => None,
    };
    if let Some(types) = types {
        schema["type"] = types;
    }
    if let Some(values) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        values.push(Value::Null);
    }
    schema
}

fn tool_operation(name: &str, tool: &Value) -> Value {
    let mut good = answer("The tool's answer.", output_schema(tool));
    if tool["inputSchema"]["properties"]
        .get("response_format")
        .is_some()
    {
        good["content"]["text/markdown"] = json!({"schema": {"type": "string"}});
    }
    let mut parameters = vec![reference("parameters", "Prefer")];
    if !is_read(tool) {
        good["headers"]["X-Idempotent-Replay"] = reference("headers", "Replay");
        parameters.extend(
            ["IdempotencyKey", "DryRun", "PreviewToken"].map(|p| reference("parameters", p)),
        );
    }
    let mut responses = with_refusals("200", good);
    responses["202"] = reference("responses", "Task");
    let required = tool["inputSchema"]["required"]
        .as_array()
        .is_some_and(|list| !list.is_empty());
    json!({
        "operationId": name,
        "summary": tool["title"].as_str().unwrap_or(name),
        "description": tool["description"],
        "tags": ["tools"],
        "parameters": parameters,
        "requestBody": {"required": required, "content": {"application/json": {"schema": input_schema(tool)}}},
        "responses": responses,
        "x-hints": tool["annotations"],
    })
}

fn route_operation(route: &Route, tool: &Value) -> Value {
    let properties = tool["inputSchema"]["properties"]
        .as_object()
        .cloned()
        .unwrap_or_default();
    let in_path: Vec<&str> = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .collect();
    let mut parameters: Vec<Value> = in_path
        .iter()
        .map(|name| {
            let schema = properties
                .get(*name)
                .cloned()
                .unwrap_or_else(|| json!({"type": "integer"}));
            json!({"name": name, "in": "path", "required": true, "schema": schema})
        })
        .collect();
    let rest = properties
        .iter()
        .filter(|(name, _)| !in_path.contains(&name.as_str()));
    let mut operation = json!({
        "operationId": format!("route_{}_{}", route.method.to_ascii_lowercase(), route.path.replace(['/', '-'], "_").replace(['{', '}'], "")),
        "summary": tool["title"].as_str().unwrap_or(route.tool),
        "description": format!("The tool {}. {}", route.tool, tool["description"].as_str().unwrap_or_default()),
        "tags": ["routes"],
        "x-tool": route.tool,
    });
    if route.method == "GET" {
        for (name, schema) in rest.filter(|(name, _)| *name != "response_format") {
            parameters.push(query_parameter(route, name, schema));
        }
        parameters.push(reference("parameters", "IfNoneMatch"));
    } else {
        parameters.extend(
            ["IdempotencyKey", "DryRun", "PreviewToken"].map(|p| reference("parameters", p)),
        );
        let nullable = input_schema(tool);
        let body: Map<String, Value> = rest
            .map(|(n, _)| (n.clone(), nullable["properties"][n].clone()))
            .collect();
        let required: Vec<&Value> = tool["inputSchema"]["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|name| !in_path.iter().any(|p| *name == *p))
            .collect();
        let mut schema =
            json!({"type": "object", "properties": body, "additionalProperties": false});
        if !required.is_empty() {
            schema["required"] = json!(required);
        }
        operation["requestBody"] = json!({"required": !required.is_empty(), "content": {"application/json": {"schema": schema}}});
    }
    operation["parameters"] = json!(parameters);
    operation["responses"] = route_responses(route, tool);
    operation
}

/// Under the name this route has for it.
fn query_parameter(route: &Route, name: &str, schema: &Value) -> Value {
    let renamed = route.renamed.iter().find(|r| r.argument == name);
    let (shown, schema) = match renamed {
        Some(r) => match r.only {
            Some((sent, _)) => (r.sent, json!({"type": "string", "enum": [sent]})),
            None => (r.sent, schema.clone()),
        },
        None => (name, schema.clone()),
    };
    json!({"name": shown, "in": "query", "schema": schema, "description": schema["description"].as_str().unwrap_or_default()})
}

fn route_responses(route: &Route, tool: &Value) -> Value {
    let schema = match route.shape {
        Shape::Object => output_schema(tool),
        Shape::List(key) => {
            let rows = &tool["outputSchema"]["properties"][key]["items"];
            json!({"type": "array", "items": if rows.is_null() { json!({"type": "object"}) } else { rows.clone() }})
        }
    };
    let mut good = answer("The tool's answer.", schema);
    if route.method != "GET" {
        good["headers"]["X-Idempotent-Replay"] = reference("headers", "Replay");
        return with_refusals(&route.status.to_string(), good);
    }
    good["headers"]["ETag"] = reference("headers", "ETag");
    if matches!(route.shape, Shape::List(_)) {
        good["description"] =
            "All rows; with limit or cursor one page, and a Link to the next.".into();
        good["headers"]["Link"] = reference("headers", "Link");
    }
    let mut responses = with_refusals("200", good);
    responses["304"] = reference("responses", "NotModified");
    responses
}

struct OwnPath {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    tag: &'static str,
    good: &'static str,
    schema: Value,
    body: Option<Value>,
    query: Option<(&'static str, Value)>,
}

fn own_paths(paths: &mut Map<String, Value>) {
    for own in own_list() {
        let person = own.tag == "people";
        let mut parameters = Vec::new();
        for name in own
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        {
            let schema = if person {
                json!({"type": "integer", "minimum": 1})
            } else {
                json!({"type": "string", "minLength": 1, "pattern": "^[A-Za-z0-9_-]+$"})
            };
            parameters
                .push(json!({"name": name, "in": "path", "required": true, "schema": schema}));
        }
        if let Some((name, schema)) = &own.query {
            parameters.push(json!({"name": name, "in": "query", "schema": schema}));
        }
        let mut operation = json!({
            "operationId": format!("api_{}", own.id),
            "summary": own.summary,
            "tags": [own.tag],
            "parameters": parameters,
            "responses": with_refusals(own.good, answer(own.summary, own.schema)),
        });
        if person {
            operation["security"] = by_person();
        } else if own.path == "version" {
            operation["security"] = json!([]);
        } else if own.method == "get" {
            operation["parameters"]
                .as_array_mut()
                .into_iter()
                .for_each(|p| p.push(reference("parameters", "IfNoneMatch")));
            operation["responses"]["304"] = reference("responses", "NotModified");
        }
        if let Some(schema) = own.body {
            operation["requestBody"] = json!({"required": schema["required"].is_array() || schema.get("$ref").is_some(),
                                              "content": {"application/json": {"schema": schema}}});
        }
        let path = paths
            .entry(format!("/api/v1/{}", own.path))
            .or_insert_with(|| json!({}));
        path[own.method] = operation;
    }
}

fn own_list() -> Vec<OwnPath> {
    let own = |method, path, id, summary, tag, good, schema| OwnPath {
        method,
        path,
        id,
        summary,
        tag,
        good,
        schema,
        body: None,
        query: None,
    };
    let minutes = |reason: bool| {
        let mut schema = json!({"type": "object", "additionalProperties": false,
            "properties": {"minutes": {"type": ["integer", "null"], "minimum": 1, "maximum": 10080, "description": "How long the decision holds."}}});
        if reason {
            schema["properties"]["reason"] = json!({"type": ["string", "null"], "maxLength": 500, "description": "The agent is told."});
        }
        Some(schema)
    };
    let rows = |key: &str| json!({"type": "object", "required": [key], "properties": {key: {"type": "array", "items": {"type": "object"}}}});
    let schema = |name: &str| reference("schemas", name);
    let tools = json!({"type": "object", "required": ["tools", "count"], "properties": {
        "tools": {"type": "array", "items": schema("Tool")}, "count": {"type": "integer"}, "version": {"type": "integer"}}});
    let all = (
        "all",
        json!({"type": "boolean", "description": "Also tools outside the listed toolsets."}),
    );
    let state = ("state", json!({"type": "string"}));
    vec![
        own(
            "get",
            "version",
            "version",
            "Versions",
            "farm",
            "200",
            schema("Version"),
        ),
        own(
            "get",
            "openapi.json",
            "openapi",
            "This document, for this caller",
            "farm",
            "200",
            json!({"type": "object"}),
        ),
        own(
            "get",
            "me",
            "me",
            "Whose key this is and what it may do",
            "farm",
            "200",
            schema("Me"),
        ),
        OwnPath {
            query: Some(all),
            ..own(
                "get",
                "tools",
                "list_tools",
                "The tools this key may call",
                "farm",
                "200",
                tools,
            )
        },
        own(
            "get",
            "tools/{name}",
            "get_tool",
            "One tool's description and schemas",
            "farm",
            "200",
            schema("Tool"),
        ),
        OwnPath {
            body: Some(json!({"type": "object"})),
            ..own(
                "post",
                "tools/{name}",
                "call_tool",
                "Calls a tool, also one that is not listed or by an older name",
                "farm",
                "200",
                json!({"type": "object"}),
            )
        },
        own(
            "get",
            "tasks/{id}",
            "get_task",
            "A task's state, and its answer once it is there",
            "farm",
            "200",
            schema("TaskEnvelope"),
        ),
        own(
            "post",
            "tasks/{id}/cancel",
            "cancel_task",
            "Ends a task",
            "farm",
            "200",
            json!({"type": "object"}),
        ),
        OwnPath {
            query: Some(state.clone()),
            ..own(
                "get",
                "tokens",
                "list_tokens",
                "Keys you may see; never a secret",
                "people",
                "200",
                rows("tokens"),
            )
        },
        OwnPath {
            body: Some(schema("NewToken")),
            ..own(
                "post",
                "tokens",
                "mint_token",
                "Makes a key and shows it once",
                "people",
                "201",
                schema("Token"),
            )
        },
        own(
            "delete",
            "tokens/{id}",
            "revoke_token",
            "Ends a key at once",
            "people",
            "200",
            json!({"type": "object"}),
        ),
        OwnPath {
            body: Some(
                json!({"type": "object", "additionalProperties": false, "properties": {"overlap_minutes": {"type": ["integer", "null"], "minimum": 0, "maximum": 525600}}}),
            ),
            ..own(
                "post",
                "tokens/{id}/rotate",
                "rotate_token",
                "A new secret with the same rights",
                "people",
                "201",
                schema("Token"),
            )
        },
        OwnPath {
            query: Some(state),
            ..own(
                "get",
                "consents",
                "list_consents",
                "Calls that wait for a person",
                "people",
                "200",
                rows("consents"),
            )
        },
        OwnPath {
            body: minutes(false),
            ..own(
                "post",
                "consents/{id}/approve",
                "approve_call",
                "Lets a waiting call through, once",
                "people",
                "200",
                json!({"type": "object"}),
            )
        },
        OwnPath {
            body: minutes(true),
            ..own(
                "post",
                "consents/{id}/deny",
                "deny_call",
                "Refuses a waiting call",
                "people",
                "200",
                json!({"type": "object"}),
            )
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::routes::OWN;

    fn tool(name: &str, read: bool) -> Value {
        json!({"name": name, "title": name, "description": "d", "annotations": {"readOnlyHint": read},
               "inputSchema": {"type": "object", "required": ["job_id"], "properties": {"job_id": {"type": "integer"}, "reason": {"type": "string"}}},
               "outputSchema": {"type": "object", "properties": {"jobs": {"type": "array", "items": {"type": "object", "title": "row"}}}}})
    }

    #[test]
    fn a_caller_sees_his_own_tools_only() {
        let doc = document(&[tool("cancel_job", false)], None);
        assert!(doc["paths"]["/api/v1/tools/cancel_job"]["post"].is_object());
        assert!(doc["paths"].get("/api/v1/tools/queue_job").is_none());
        assert!(doc["paths"]["/api/v1/jobs/{job_id}/cancel"]["post"].is_object());
        assert!(doc["paths"].get("/api/v1/printers").is_none());
    }

    #[test]
    fn what_stands_in_the_path_is_not_asked_for_again() {
        let doc = document(&[tool("cancel_job", false)], None);
        let cancel = &doc["paths"]["/api/v1/jobs/{job_id}/cancel"]["post"];
        let body = &cancel["requestBody"]["content"]["application/json"]["schema"];
        assert!(body["properties"].get("job_id").is_none());
        assert!(body["properties"]["reason"].is_object());
        assert_eq!(cancel["parameters"][0]["name"], "job_id");
        let list = document(&[tool("list_jobs", true)], None);
        let rows = &list["paths"]["/api/v1/jobs"]["get"]["responses"]["200"]["content"]
            ["application/json"]["schema"];
        assert_eq!(rows["items"]["title"], "row");
    }

    #[test]
    fn every_path_of_ours_is_in_the_document() {
        let doc = document(&[], None);
        for (method, path, _) in OWN {
            let found = &doc["paths"][format!("/api/v1/{path}")][method.to_ascii_lowercase()];
            assert!(found.is_object(), "{method} {path}");
        }
    }
}
