//! The REST face, /api/v1: every tool by name, the routes that ODIN's clients know, an OpenAPI document, keys and consents.
//! In this order: Host and Origin, the path, the key, the body. Everything ends in the same dispatcher as MCP.

pub mod answer;
mod body;
mod call;
mod openapi;
mod people;
mod routes;
mod schemas;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use axum::Router;
use http::{
    header, request::Parts, HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode,
};
use serde_json::{json, Value};
use tower_http::compression::CompressionLayer;

use crate::app::App;
use crate::config::Serve;
use crate::door::{self, Door, Visitor};
use crate::gateway::{Caller, Face};
use answer::error;
use routes::{Found, Miss, Own, Variables};

/// The version of ODIN's interface that these routes keep to; its client asks before it trusts a preview (1.9.0 or later).
const ODIN_INTERFACE: &str = "1.9.3";
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

struct Rest {
    door: Door,
    people: people::People,
}

/// One request past the door.
pub struct Asked<'a> {
    door: &'a Door,
    caller: &'a Arc<Caller>,
    headers: &'a HeaderMap,
    method: &'a str,
    path: &'a str,
    query: &'a [(String, String)],
}

pub fn router(app: Arc<App>, config: &Serve) -> Router {
    let rest = Arc::new(Rest {
        door: Door::new(app, config),
        people: people::People::new(config),
    });
    Router::new()
        .route("/api/v1/{*path}", any(serve))
        .with_state(rest)
        .layer(CompressionLayer::new())
}

async fn serve(
    State(rest): State<Arc<Rest>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request<Body>,
) -> Response {
    let (parts, body) = request.into_parts();
    let visitor = rest.door.visitor(&parts.headers, peer.ip());
    if parts.method == Method::OPTIONS {
        return rest.preflight(&parts, &visitor).await;
    }
    let mut response = match rest.answer(&parts, body, &visitor).await {
        Ok(response) => response,
        Err(error) => rest.door.refuse(error, &parts.headers, &visitor).await,
    };
    if let Ok(id) = HeaderValue::from_str(&visitor.request_id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    rest.allow_origin(&parts.headers, &mut response);
    response
}

impl Rest {
    async fn answer(
        &self,
        parts: &Parts,
        body: Body,
        visitor: &Visitor,
    ) -> Result<Response, Value> {
        self.door.check_origin(parts)?;
        let path = parts.uri.path();
        let query = routes::query_pairs(parts.uri.query())
            .ok_or_else(|| answer::invalid("query", "is not percent-encoded UTF-8"))?;
        let short = path.strip_prefix("/api/v1/").unwrap_or_default();
        let (found, variables) = match routes::find(parts.method.as_str(), short, &query) {
            Ok(found) => found,
            Err(Miss::NoSuchPath) => {
                let hint = "GET /api/v1/openapi.json lists what is.";
                return Err(error(
                    "not_found",
                    404,
                    "Nothing is served at this path.",
                    hint,
                ));
            }
            Err(Miss::NotAllowed(methods)) => {
                let mut error = error(
                    "http_error",
                    405,
                    format!("This path answers to {methods}."),
                    "",
                );
                error["allow"] = methods.into();
                return Err(error);
            }
        };
        match found {
            Found::Own(Own::Version) => Ok(self.version().await),
            Found::Own(Own::Person(act, status)) => {
                self.person(parts, body, visitor, act, status, variables, &query)
                    .await
            }
            found => {
                let caller = self.door.admit(&parts.headers, visitor, Face::Rest).await?;
                let asked = Asked {
                    door: &self.door,
                    caller: &caller,
                    headers: &parts.headers,
                    method: parts.method.as_str(),
                    path,
                    query: &query,
                };
                self.called(&asked, body, found, variables).await
            }
        }
    }

    /// Whoever has a key.
    async fn called(
        &self,
        asked: &Asked<'_>,
        body: Body,
        found: Found,
        variables: Variables,
    ) -> Result<Response, Value> {
        let app = &self.door.app;
        let first = variables
            .first()
            .map(|(_, value)| value.clone())
            .unwrap_or_default();
        match found {
            Found::Tool(route) => {
                let arguments = match route.method {
                    "GET" => serde_json::Map::new(),
                    _ => body::arguments(&self.door, asked.headers, body).await?,
                };
                call::by_route(asked, route, variables, arguments).await
            }
            Found::Own(Own::Call) => {
                let arguments = body::arguments(&self.door, asked.headers, body).await?;
                call::by_name(asked, &first, arguments).await
            }
            Found::Own(Own::Tools) => {
                let list = app
                    .gateway
                    .every_tool(asked.caller, asks_all(asked.query)?)
                    .await?;
                let tools = &list["tools"];
                let count = tools.as_array().map_or(0, Vec::len);
                let body = json!({"tools": tools, "count": count, "version": list["version"]});
                Ok(answer::cacheable(&body, asked.headers))
            }
            Found::Own(Own::Tool) => {
                let list = app.gateway.every_tool(asked.caller, true).await?;
                let mut tools = list["tools"].as_array().into_iter().flatten();
                match tools.find(|tool| tool["name"] == first.as_str()) {
                    Some(tool) => Ok(answer::cacheable(tool, asked.headers)),
                    None => {
                        let detail = format!("There is no tool {first} that this key may call.");
                        Err(error(
                            "tool_not_found",
                            404,
                            detail,
                            "GET /api/v1/tools?all=true lists them.",
                        ))
                    }
                }
            }
            Found::Own(Own::OpenApi) => {
                let list = app.gateway.every_tool(asked.caller, true).await?;
                let tools = list["tools"]
                    .as_array()
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                let document = openapi::document(tools, self.door.public_url.as_deref());
                Ok(answer::cacheable(&document, asked.headers))
            }
            Found::Own(Own::Me) => {
                let ip = asked.caller.ip;
                let known = app
                    .gateway
                    .authenticate(asked.caller.credential(), ip)
                    .await;
                let mut me = known.map_err(|e| e.to_json())?;
                if me["ok"] != Value::Bool(true) {
                    app.auth.forget(asked.caller.credential());
                    return Err(me["error"].take());
                }
                if let Some(me) = me.as_object_mut() {
                    me.shift_remove("ok");
                }
                Ok(answer::cacheable(&me, asked.headers))
            }
            Found::Own(Own::Task) => {
                let mut task = app.gateway.task_get(asked.caller, &tame(&first)?).await?;
                Ok(answer::cacheable(
                    &json!({"task": task["task"].take()}),
                    asked.headers,
                ))
            }
            Found::Own(Own::TaskCancel) => {
                if call::dry_run(asked.headers)? {
                    return Err(no_preview());
                }
                let task = app
                    .gateway
                    .task_cancel(asked.caller, &tame(&first)?)
                    .await?;
                Ok(answer::json(200, &json!({"cancelled": task["cancelled"]})))
            }
            Found::Own(Own::Version | Own::Person(..)) => {
                Err(error("internal_error", 500, "Not for a key.", ""))
            }
        }
    }

    /// Whoever logs in as himself; a key is told that it cannot.
    #[allow(clippy::too_many_arguments)]
    async fn person(
        &self,
        parts: &Parts,
        body: Body,
        visitor: &Visitor,
        act: &str,
        status: u16,
        variables: Variables,
        query: &[(String, String)],
    ) -> Result<Response, Value> {
        let Some(login) = people::presented(&parts.headers)? else {
            // A stranger learns nothing here; the owner of a key learns why it does not do.
            self.door
                .admit(&parts.headers, visitor, Face::Rest)
                .await
                .map_err(people::basic_instead)?;
            return Err(people::not_by_key(act));
        };
        let get = parts.method == Method::GET || parts.method == Method::HEAD;
        if !get && call::dry_run(&parts.headers)? {
            return Err(no_preview());
        }
        let mut arguments = call::query_arguments(query)?;
        let login = self.people.enter(&self.door.app, visitor, login).await?;
        if !get {
            arguments.extend(body::arguments(&self.door, &parts.headers, body).await?);
        }
        for (name, value) in variables {
            let id: i64 = value
                .parse()
                .map_err(|_| answer::invalid(name, "must be a whole number"))?;
            arguments.insert(name.to_owned(), id.into());
        }
        if act == "mint_key" || act == "rotate_key" {
            if let Some(url) = &self.door.public_url {
                arguments.entry("url").or_insert(json!(url));
            }
        }
        let result = login.call(act, &Value::Object(arguments)).await?;
        tracing::info!(act, role = login.role(), request_id = %visitor.request_id, face = "rest", "a person's act");
        if get {
            return Ok(answer::cacheable(&result, &parts.headers));
        }
        let mut response = answer::json(status, &result);
        // It may hold a key, shown this once.
        response
            .headers_mut()
            .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    /// Needs no key and answers without the database too: ODIN's client asks once and remembers a failure for ever.
    async fn version(&self) -> Response {
        let asked = self.door.app.gateway.version();
        let farm = match tokio::time::timeout(Duration::from_secs(1), asked).await {
            Ok(Ok(farm)) => farm,
            _ => Value::Null,
        };
        answer::json(
            200,
            &json!({
                "version": ODIN_INTERFACE,
                "product": "odin_farm",
                "odin_farm": env!("CARGO_PKG_VERSION"),
                "farm": farm,
            }),
        )
    }

    /// A browser's question before the request: only configured origins get a yes.
    async fn preflight(&self, parts: &Parts, visitor: &Visitor) -> Response {
        if let Err(error) = self.door.check_origin(parts) {
            return self.door.refuse(error, &parts.headers, visitor).await;
        }
        let mut response = StatusCode::NO_CONTENT.into_response();
        if self.allow_origin(&parts.headers, &mut response) {
            let headers = response.headers_mut();
            headers.insert(
                header::ACCESS_CONTROL_ALLOW_METHODS,
                HeaderValue::from_static("GET, HEAD, POST, PATCH, DELETE"),
            );
            if let Some(wanted) = parts.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
                headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
            }
            headers.insert(
                header::ACCESS_CONTROL_MAX_AGE,
                HeaderValue::from_static("600"),
            );
        }
        response
    }

    fn allow_origin(&self, asked: &HeaderMap, response: &mut Response) -> bool {
        let Some(origin) = asked.get(header::ORIGIN) else {
            return false;
        };
        let headers = response.headers_mut();
        headers.append(header::VARY, HeaderValue::from_static("origin"));
        if !self.door.origins.is_configured(origin) {
            return false;
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            HeaderValue::from_static("etag, link, location, retry-after, www-authenticate, x-idempotent-replay, x-request-id"),
        );
        true
    }
}

fn asks_all(query: &[(String, String)]) -> Result<bool, Value> {
    match query.iter().find(|(name, _)| name == "all") {
        None => Ok(false),
        Some((_, value)) => {
            door::truthy(value).ok_or_else(|| answer::invalid("all", "must be true or false"))
        }
    }
}

fn tame(id: &str) -> Result<String, Value> {
    match id.contains('\0') {
        true => Err(error("task_not_found", 404, "There is no such task.", "")),
        false => Ok(id.to_owned()),
    }
}

fn no_preview() -> Value {
    let hint = "Leave X-Dry-Run out to do it.";
    error("dry_run_unsupported", 501, "This has no preview.", hint)
}
