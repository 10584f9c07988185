//! Sign-in with an OIDC issuer's tokens, as far as a sidecar goes: it tells clients where to get one (RFC 9728) and
//! fetches the issuers' public keys. Tokens are verified in the database, so no sidecar's word is taken for them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::extract::{ConnectInfo, State};
use axum::response::Response;
use axum::routing::get;
use axum::Router;
use http::{header, HeaderMap, HeaderValue, Request};
use serde_json::{json, Value};
use tokio_util::sync::CancellationToken;

use crate::app::App;
use crate::config::Serve;
use crate::db::{Channel, Db, Listener};
use crate::door::Door;
use crate::egress::{Egress, Limits};
use crate::gateway::Gateway;
use crate::rest::answer::{self, error};

const METADATA: &str = "/.well-known/oauth-protected-resource";
/// The resource that tokens are for; REST takes them as well.
const RESOURCE: &str = "/mcp";
const FRESH: Duration = Duration::from_secs(10);

/// Whom the farm trusts, and the scopes to ask them for.
pub struct Trusted {
    issuers: Vec<String>,
    scopes: Vec<String>,
}

/// What the database said lately about that.
#[derive(Default)]
pub struct Issuers {
    seen: Mutex<Option<(Instant, Arc<Trusted>)>>,
}

impl Issuers {
    /// `None`: nobody signs in this way, or the database cannot be asked.
    pub async fn known(&self, gateway: &Gateway) -> Option<Arc<Trusted>> {
        let seen = self.seen.lock().ok().and_then(|seen| seen.clone());
        let trusted = match seen {
            Some((at, trusted)) if at.elapsed() < FRESH => trusted,
            _ => {
                let answer = gateway.issuers().await.ok()?;
                let trusted = Arc::new(Trusted {
                    issuers: texts(&answer["issuers"]),
                    scopes: texts(&answer["scopes"]),
                });
                if let Ok(mut seen) = self.seen.lock() {
                    *seen = Some((Instant::now(), trusted.clone()));
                }
                trusted
            }
        };
        (!trusted.issuers.is_empty()).then_some(trusted)
    }

    pub fn forget(&self) {
        if let Ok(mut seen) = self.seen.lock() {
            *seen = None;
        }
    }
}

fn texts(list: &Value) -> Vec<String> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|text| text.as_str().map(str::to_owned))
        .collect()
}

/// What a challenge adds so that a client finds the way to a token.
pub fn challenge(trusted: &Trusted, base: &str) -> String {
    let quotable = |text: &str| !text.contains(['"', '\\']);
    let mut text = String::new();
    if quotable(base) {
        text.push_str(&format!(
            ", resource_metadata=\"{base}{METADATA}{RESOURCE}\""
        ));
    }
    let scopes: Vec<&str> = trusted.scopes.iter().map(String::as_str).collect();
    let scopes = scopes.join(" ");
    if !scopes.is_empty() && quotable(&scopes) {
        text.push_str(&format!(", scope=\"{scopes}\""));
    }
    text
}

pub fn router(app: Arc<App>, config: &Serve) -> Router {
    let door = Arc::new(Door::new(app, config));
    Router::new()
        .route(METADATA, get(metadata))
        .route(&format!("{METADATA}{RESOURCE}"), get(metadata))
        .with_state(door)
}

/// RFC 9728. Without an issuer there is nothing to tell.
async fn metadata(
    State(door): State<Arc<Door>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request<axum::body::Body>,
) -> Response {
    let (parts, _) = request.into_parts();
    let visitor = door.visitor(&parts.headers, peer.ip());
    if let Err(refused) = door.check_origin(&parts) {
        return door.refuse(refused, &parts.headers, &visitor).await;
    }
    let trusted = door.app.issuers.known(&door.app.gateway).await;
    let base = door.base_url(&parts.headers, &visitor);
    let (Some(trusted), Some(base)) = (trusted, base) else {
        let hint = "Send Authorization: Bearer with a key of the farm.";
        let refused = error("not_found", 404, "No issuer signs people in here.", hint);
        return door.refuse(refused, &parts.headers, &visitor).await;
    };
    let body = json!({
        "resource": format!("{base}{RESOURCE}"),
        "authorization_servers": trusted.issuers,
        "scopes_supported": trusted.scopes,
        "bearer_methods_supported": ["header"],
        "resource_name": "odin_farm print farm",
    });
    let mut response = answer::cacheable(&body, &HeaderMap::new());
    let headers = response.headers_mut();
    headers.remove(header::ETAG);
    headers.insert(
        header::CACHE_CONTROL,
        HeaderValue::from_static("max-age=60"),
    );
    // Public, and read by clients that live in a page.
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_ORIGIN,
        HeaderValue::from_static("*"),
    );
    response
}

const DUE: &str = "SELECT odin.worker_issuers()";
const FETCHED: &str = "SELECT odin.worker_issuer_keys($1, $2, $3)";
const EVERY: Duration = Duration::from_secs(60);

/// Fetch what is due: keys that a token asked for, and all of them now and then, for keys that were withdrawn.
pub async fn fetch_keys(db: Db, listener: Arc<Listener>, egress: Egress, stop: CancellationToken) {
    let mut wake = listener.subscribe();
    loop {
        tokio::select! {
            channel = wake.recv() => if !matches!(channel, Ok(Channel::SignIn) | Err(_)) { continue },
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => return,
        }
        let due = match db.quick(DUE, &[]).await {
            Ok(due) => due,
            Err(e) => {
                tracing::debug!(error = %e, "cannot ask for issuers");
                continue;
            }
        };
        for issuer in due.as_array().into_iter().flatten() {
            let (keys, problem) = match fetch(&egress, issuer).await {
                Ok(keys) => (Some(keys), None),
                Err(problem) => (None, Some(problem)),
            };
            if let Some(problem) = &problem {
                tracing::warn!(issuer = %issuer["issuer"], problem, "an issuer's keys cannot be fetched");
            }
            let id = issuer["id"].as_i64().unwrap_or_default();
            if let Err(e) = db.quick(FETCHED, &[&id, &keys, &problem]).await {
                tracing::warn!(error = %e, "an issuer's keys cannot be kept");
            }
        }
    }
}

/// The issuer's key set: at the address given, or where its own configuration says.
async fn fetch(egress: &Egress, issuer: &Value) -> Result<Value, String> {
    let name = issuer["issuer"].as_str().unwrap_or_default();
    let url = match issuer["jwks_url"].as_str() {
        Some(url) => url.to_owned(),
        None => {
            let name = name.trim_end_matches('/');
            let about = format!("{name}/.well-known/openid-configuration");
            let about = json_at(egress, &about).await?;
            if about["issuer"] != issuer["issuer"] {
                return Err("its configuration is of another issuer".to_owned());
            }
            about["jwks_uri"].as_str().unwrap_or_default().to_owned()
        }
    };
    // An issuer reached over TLS does not send us on in the clear.
    if name.starts_with("https://") && !url.starts_with("https://") {
        return Err("its keys are not at an https address".to_owned());
    }
    let keys = json_at(egress, &url).await?;
    match keys["keys"].is_array() {
        true => Ok(keys),
        false => Err(format!("{url} holds no JSON Web Key Set")),
    }
}

async fn json_at(egress: &Egress, url: &str) -> Result<Value, String> {
    let said = egress.get(url, &[], Limits::SMALL).await;
    let said = said.map_err(|e| e.to_string())?;
    if !said.status.is_success() {
        return Err(format!("{url} answers {}", said.status.as_u16()));
    }
    serde_json::from_slice(&said.body).map_err(|_| format!("{url} holds no JSON"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_names_the_metadata_and_the_scopes() {
        let trusted = Trusted {
            issuers: vec!["https://id.example.org".into()],
            scopes: vec!["agent:read".into(), "agent:write".into()],
        };
        assert_eq!(
            challenge(&trusted, "https://farm.example.org"),
            ", resource_metadata=\"https://farm.example.org/.well-known/oauth-protected-resource/mcp\", scope=\"agent:read agent:write\""
        );
        assert!(!challenge(&trusted, "http://x\"y").contains("resource_metadata"));
    }
}
