//! The parts of the OpenAPI document that no tool brings along: the error envelope, headers, keys, tasks.

use serde_json::{json, Value};

/// Who may come in, and how.
pub fn security_schemes() -> Value {
    json!({
        "bearer": {"type": "http", "scheme": "bearer", "description": "A key of the farm."},
        "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same key, in ODIN's header."},
        "person": {"type": "http", "scheme": "basic",
                   "description": "A person's own PostgreSQL role and password; over TLS or from the same machine only."},
    })
}

pub fn by_key() -> Value {
    json!([{"bearer": []}, {"apiKey": []}])
}

pub fn by_person() -> Value {
    json!([{"person": []}])
}

pub fn components() -> Value {
    json!({
        "securitySchemes": security_schemes(),
        "headers": {
            "RequestId": {"schema": {"type": "string"}, "description": "Give it to the operator when something is wrong."},
            "RetryAfter": {"schema": {"type": "integer"}, "description": "Seconds to wait."},
            "Replay": {"schema": {"type": "string", "const": "true"}, "description": "This is the stored answer of an earlier call."},
            "ETag": {"schema": {"type": "string"}, "description": "Send it back in If-None-Match."},
            "Link": {"schema": {"type": "string"}, "description": "rel=\"next\": the page after this one."},
            "Location": {"schema": {"type": "string"}, "description": "Where the task can be asked for."},
        },
        "parameters": {
            "IdempotencyKey": {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
                               "description": "Same key, same call: done once, answered again for 24 hours."},
            "DryRun": {"name": "X-Dry-Run", "in": "header", "schema": {"type": "string", "enum": ["true", "1", "yes", "on", "false", "0", "no", "off"]},
                       "description": "Only show what would change."},
            "PreviewToken": {"name": "X-Preview-Token", "in": "header", "schema": {"type": "string"},
                             "description": "From a preview: refuse if things changed since."},
            "Prefer": {"name": "Prefer", "in": "header", "schema": {"type": "string"},
                       "description": "respond-async: long work is answered with a task at once."},
            "IfNoneMatch": {"name": "If-None-Match", "in": "header", "schema": {"type": "string"},
                            "description": "304 if nothing changed since this ETag."},
        },
        "responses": {
            "Refused": {
                "description": "Refused or failed: one envelope for every failure.",
                "headers": {"Retry-After": {"$ref": "#/components/headers/RetryAfter"},
                            "X-Request-Id": {"$ref": "#/components/headers/RequestId"}},
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}},
            },
            "NotModified": {"description": "What the caller has is still right.",
                            "headers": {"ETag": {"$ref": "#/components/headers/ETag"}}},
            "Task": {
                "description": "The work goes on; ask at Location.",
                "headers": {"Location": {"$ref": "#/components/headers/Location"},
                            "Retry-After": {"$ref": "#/components/headers/RetryAfter"}},
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/TaskEnvelope"}}},
            },
        },
        "schemas": schemas(),
    })
}

fn schemas() -> Value {
    json!({
        "Failure": {
            "type": "object",
            "required": ["detail", "error"],
            "properties": {
                "detail": {"type": "string", "description": "As in error; older clients look here."},
                "error": {
                    "type": "object",
                    "required": ["code", "detail", "retriable", "status"],
                    "properties": {
                        "code": {"type": "string", "description": "Stable; branch on this."},
                        "detail": {"type": "string"},
                        "retriable": {"type": "boolean"},
                        "status": {"type": "integer"},
                        "hint": {"type": "string"},
                        "field": {"type": ["string", "null"]},
                        "retry_after": {"type": "number"},
                        "request_id": {"type": "string"},
                    },
                },
            },
        },
        "TaskEnvelope": {
            "type": "object",
            "required": ["task"],
            "properties": {"task": {
                "type": "object",
                "required": ["taskId", "status"],
                "properties": {
                    "taskId": {"type": "string"},
                    "status": {"type": "string", "enum": ["working", "input_required", "completed", "failed", "cancelled"]},
                    "pollIntervalMs": {"type": "integer"},
                    "outcome": {"description": "The answer, once completed."},
                    "error": {"description": "Why it failed."},
                },
            }},
        },
        "Version": {
            "type": "object",
            "required": ["version", "product", "odin_farm"],
            "properties": {
                "version": {"type": "string", "pattern": "^\\d+\\.\\d+\\.\\d+$", "description": "The version of ODIN's interface these routes keep to."},
                "product": {"const": "odin_farm"},
                "odin_farm": {"type": "string"},
                "farm": {"type": ["object", "null"], "description": "Versions in the database; null while it does not answer."},
            },
        },
        "Tool": {
            "type": "object",
            "required": ["name", "description", "inputSchema"],
            "properties": {
                "name": {"type": "string"}, "title": {"type": "string"}, "description": {"type": "string"},
                "inputSchema": {"type": "object"}, "outputSchema": {"type": "object"}, "annotations": {"type": "object"},
            },
        },
        "Me": {
            "type": "object",
            "required": ["role", "key_id", "key_name", "scopes"],
            "properties": {
                "role": {"type": "string"}, "key_id": {"type": "integer"}, "key_name": {"type": "string"},
                "scopes": {"type": "array", "items": {"type": "string"}},
                "toolsets": {"type": ["array", "null"], "items": {"type": "string"}},
                "org": {"type": ["string", "null"]},
                "limits": {"type": "object"},
            },
        },
        "NewToken": {
            "type": "object",
            "required": ["name"],
            "additionalProperties": false,
            "properties": {
                "name": {"type": "string", "minLength": 1, "maxLength": 100},
                "scopes": {"type": ["array", "null"], "minItems": 1, "items": {"type": "string"}, "default": ["agent:read"],
                           "description": "agent:read, agent:write (operators), admin (administrators), or read:AREA and write:AREA."},
                "expires_days": {"type": ["integer", "null"], "minimum": 1, "maximum": 36500, "default": 90, "description": "null: never."},
                "role": {"type": ["string", "null"], "description": "For another role of your orgs; administrators only."},
                "toolsets": {"type": ["array", "null"], "items": {"type": "string"}},
                "allowed_ips": {"type": ["array", "null"], "items": {"type": "string"}},
                "rate_per_minute": {"type": ["integer", "null"], "minimum": 1, "maximum": 1000000},
                "concurrency": {"type": ["integer", "null"], "minimum": 1, "maximum": 10000},
            },
        },
        "Token": {
            "type": "object",
            "required": ["id", "token", "prefix"],
            "properties": {
                "id": {"type": "integer"},
                "token": {"type": "string", "description": "Shown once, and kept nowhere."},
                "prefix": {"type": "string"},
                "scopes": {"type": "array", "items": {"type": "string"}},
                "expires_at": {"type": ["string", "null"], "format": "date-time"},
                "configurations": {"type": "object", "description": "To paste into a client's settings."},
            },
        },
    })
}
