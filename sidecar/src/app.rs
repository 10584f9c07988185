//! What every face shares in one sidecar process.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::auth::Authenticator;
use crate::bridge::Bridge;
use crate::config::Common;
use crate::db::{Channel, Db, Listener};
use crate::gateway::Gateway;
use crate::limits::Limits;
use crate::registry::Registry;
use crate::sign_in::Issuers;
use crate::telemetry::Metrics;

pub struct App {
    pub gateway: Arc<Gateway>,
    pub auth: Authenticator,
    pub registry: Registry,
    pub issuers: Issuers,
    pub listener: Arc<Listener>,
    pub bridge: Arc<Bridge>,
    pub limits: Limits,
    pub metrics: Metrics,
    /// How long a person may take to answer.
    pub ask_timeout: Duration,
    /// Cancelled when no new work is taken: change streams end, so that running calls are all that is waited for.
    pub draining: CancellationToken,
    /// Cancelled when the sidecar shuts down.
    pub stop: CancellationToken,
}

impl App {
    pub fn new(db: Db, common: &Common, stop: CancellationToken) -> Arc<App> {
        let listener = db.listen(stop.child_token());
        let gateway = Arc::new(
            Gateway::new(
                db.clone(),
                common.call_timeout(),
                common.command_wait(),
                common.task_wait(),
                common.keyring().unwrap_or_else(|e| {
                    tracing::error!(error = %e, "no credentials can be kept");
                    None
                }),
            )
            .with_embedder(common.embedder().unwrap_or_else(|e| {
                tracing::error!(error = %e, "questions go without vectors");
                None
            }))
            .with_listener(listener.clone()),
        );
        let app = Arc::new(App {
            auth: Authenticator::new(gateway.clone()),
            registry: Registry::new(gateway.clone()),
            issuers: Issuers::default(),
            bridge: Bridge::start(db, listener.subscribe(), stop.child_token()),
            limits: Limits::new(common.rate_per_minute, common.concurrency),
            metrics: Metrics::default(),
            ask_timeout: common.ask_timeout(),
            gateway,
            listener,
            draining: stop.child_token(),
            stop,
        });
        tokio::spawn(forget_on_change(app.clone()));
        app
    }
}

/// Whatever is remembered about tools and keys is asked for again when the registry says it changed.
async fn forget_on_change(app: Arc<App>) {
    let mut wake = app.listener.subscribe();
    loop {
        let channel = tokio::select! {
            channel = wake.recv() => channel,
            () = app.stop.cancelled() => return,
        };
        // Having missed some is as good as having been told.
        if matches!(channel, Ok(Channel::Registry) | Err(_)) {
            app.registry.forget();
            app.auth.forget_all();
            app.issuers.forget();
        }
    }
}
