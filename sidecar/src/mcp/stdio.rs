//! MCP on stdin and stdout, for clients that start their servers: straight to the database, or through a running sidecar.

// Logging is deprecated in the newest revision, and part of all older ones.
#![allow(deprecated)]

use std::sync::{Arc, Mutex};

use rmcp::model::LoggingLevel;
use rmcp::service::{Peer, RoleServer};
use rmcp::ServiceExt;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ask::Link;
use super::handler::{Begun, Handler};
use super::watch::{Change, Want, Watch};
use super::{proxy, relay};
use crate::app::App;
use crate::auth::{Credential, Principal, Refusal};
use crate::config::Stdio;
use crate::db::Db;
use crate::gateway::{Caller, Face};

/// What an older client set for its session, which here is this process.
pub struct Session {
    pub level: Mutex<LoggingLevel>,
    pub watched: watch::Sender<Vec<String>>,
}

impl Default for Session {
    fn default() -> Self {
        Session {
            level: Mutex::new(relay::level("info")),
            watched: watch::Sender::new(Vec::new()),
        }
    }
}

pub async fn run(config: Stdio) -> Result<(), String> {
    let key = config.key()?;
    // A shell that knows a farm often holds both; the way through the sidecar needs no database login at all.
    match (&config.url, &config.database_url) {
        (Some(url), _) => {
            let url = url.clone();
            proxy::run(&config, &url, &key).await
        }
        (None, Some(url)) => {
            let url = url.parse()?;
            direct(config, url, &key).await
        }
        (None, None) => Err(
            "set ODIN_URL (a running sidecar) or ODIN_DATABASE_URL (PostgreSQL as odin_gateway)"
                .to_owned(),
        ),
    }
}

const GATEWAY: &str = "odin_gateway";
/// The login, if it can do more than call the gateway's functions.
const MIGHTY: &str = "SELECT to_jsonb(r.rolname) FROM pg_catalog.pg_roles r WHERE r.rolname = session_user AND (r.rolsuper OR r.rolbypassrls OR r.rolcreaterole \
    OR EXISTS (SELECT 1 FROM pg_catalog.pg_roles g WHERE g.rolname IN ('odin_owner', 'odin_viewer', 'odin_worker', 'odin_customer', 'odin_bi') AND pg_catalog.pg_has_role(r.oid, g.oid, 'MEMBER'))) \
    UNION ALL SELECT 'null'::jsonb LIMIT 1";

/// A program that an agent's host starts must not hold more than the gateway's login, whatever the shell was set up with.
async fn refuse_mighty(db: &Db, user: Option<&str>) -> Result<(), String> {
    if user == Some(GATEWAY) {
        return Ok(());
    }
    let found = db.quick(MIGHTY, &[]).await;
    match found.map_err(|e| format!("cannot check the login of ODIN_DATABASE_URL: {e}"))? {
        serde_json::Value::Null => Ok(()),
        name => Err(format!(
            "ODIN_DATABASE_URL logs in as {}, who may do more than an agent's program should; use {GATEWAY}'s login, or set ODIN_URL to go through a running sidecar",
            name.as_str().unwrap_or_default()
        )),
    }
}

async fn direct(config: Stdio, url: tokio_postgres::Config, key: &str) -> Result<(), String> {
    let stop = CancellationToken::new();
    // One client, so a handful of connections.
    let size = config.common.pool_size.min(4);
    let user = url.get_user().map(str::to_owned);
    let db = Db::new(url, size, config.common.pool_wait()).map_err(|e| e.to_string())?;
    refuse_mighty(&db, user.as_deref()).await?;
    let app = App::new(db, &config.common, stop.clone());
    let principal = match app.auth.authenticate(Some(key), None).await {
        Ok(principal) => principal,
        // The database may come up while the client waits; every call asks again whose key this is.
        Err(Refusal::Unavailable(_)) => Arc::new(Principal::not_asked_yet(Credential::of_key(key))),
        Err(refusal) => return Err(refusal.to_string()),
    };
    let toolsets: Arc<[String]> = config.toolsets.into();
    let handler = Handler {
        app: app.clone(),
        caller: Arc::new(Caller {
            principal,
            face: Face::Stdio,
            ip: None,
            request_id: crate::random_id().into(),
            toolsets: Some(toolsets).filter(|list| !list.is_empty()),
            readonly: config.readonly,
        }),
        link: Link::Stdio(Arc::default()),
        quiet: false,
        watch: Begun::default(),
    };
    let pipes = (tokio::io::stdin(), tokio::io::stdout());
    let service = handler
        .serve_with_ct(pipes, stop.child_token())
        .await
        .map_err(|e| format!("the client did not start a conversation: {e}"))?;
    let ended = service.waiting().await;
    stop.cancel();
    ended.map(|_| ()).map_err(|e| e.to_string())
}

/// Change notices for an older client, as long as the pipe lives.
pub async fn announce(handler: Handler, session: Arc<Session>, peer: Peer<RoleServer>) {
    let want = Want {
        tools: true,
        prompts: true,
        resources: true,
        uris: Vec::new(),
    };
    let mut watched = session.watched.subscribe();
    let mut watch = Watch::start(handler.app.clone(), handler.caller.clone(), want).await;
    loop {
        let changes = tokio::select! {
            changes = watch.next() => changes,
            changed = watched.changed() => {
                if changed.is_err() {
                    return;
                }
                let uris = watched.borrow_and_update().clone();
                watch.watch_uris(uris).await;
                continue;
            }
            () = handler.app.stop.cancelled() => return,
        };
        for change in changes {
            let sent = match change {
                Change::Tools => peer.notify_tool_list_changed().await,
                Change::Prompts => peer.notify_prompt_list_changed().await,
                Change::Resources => peer.notify_resource_list_changed().await,
                Change::Resource(uri) => {
                    let param = rmcp::model::ResourceUpdatedNotificationParam::new(uri);
                    peer.notify_resource_updated(param).await
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }
}
