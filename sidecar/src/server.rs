//! The HTTP server: routes, health, metrics, shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::Router;
use http::{header, HeaderValue, StatusCode};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower_http::compression::predicate::{DefaultPredicate, Predicate, SizeAbove};
use tower_http::compression::CompressionLayer;

use crate::app::App;
use crate::config::Serve;
use crate::db::Db;
use crate::mcp::front::{self, Front};

pub async fn run(config: Serve) -> Result<(), String> {
    let stop = CancellationToken::new();
    let gateway = Db::new(
        config.gateway_url.parse()?,
        config.common.pool_size,
        config.common.pool_wait(),
    )
    .map_err(|e| e.to_string())?;
    let app = App::new(gateway.clone(), &config.common, stop.clone());
    let listener = tokio::net::TcpListener::bind(config.listen)
        .await
        .map_err(|e| format!("cannot listen on {}: {e}", config.listen))?;
    let workers = crate::work::start(
        config.worker_url.as_ref(),
        &config.work,
        &config.common,
        &stop,
    )?;
    tracing::info!(
        listen = %config.listen,
        version = env!("CARGO_PKG_VERSION"),
        database = ?config.gateway_url,
        "serving"
    );

    let draining = app.draining.clone();
    tokio::spawn(watch_signals(
        stop.clone(),
        draining.clone(),
        Duration::from_secs(config.shutdown_grace),
    ));
    let drained = draining.clone();
    let served = axum::serve(
        listener,
        router(app, &config)?.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .with_graceful_shutdown(async move { draining.cancelled().await });
    // Calls get their grace; whoever still talks after it is cut off.
    let grace = Duration::from_secs(config.shutdown_grace);
    let result = tokio::select! {
        served = served => served.map_err(|e| e.to_string()),
        () = async {
            drained.cancelled().await;
            tokio::time::sleep(grace).await;
        } => Ok(()),
    };
    stop.cancel();
    workers.finish(grace).await;
    gateway.close();
    tracing::info!("stopped");
    result
}

/// Returns when this process is asked to stop.
pub async fn signalled() {
    let interrupt = tokio::signal::ctrl_c();
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        _ = interrupt => {}
        () = terminate => {}
    }
}

/// First signal: no new connections, change streams end, running calls finish. The sidecar stops for good after the grace.
async fn watch_signals(stop: CancellationToken, draining: CancellationToken, grace: Duration) {
    signalled().await;
    tracing::info!(grace_seconds = grace.as_secs(), "shutting down");
    draining.cancel();
    tokio::time::sleep(grace.mul_f64(0.8)).await;
    stop.cancel();
}

pub fn router(app: Arc<App>, config: &Serve) -> Result<Router, String> {
    let front = Arc::new(Front::new(app.clone(), config));
    Ok(Router::new()
        .route("/mcp", any(front::serve))
        .with_state(front)
        // Lists are worth it; a short answer and a stream of events are not.
        .layer(
            CompressionLayer::new()
                .compress_when(DefaultPredicate::new().and(SizeAbove::new(4096))),
        )
        .merge(
            Router::new()
                .route("/healthz", get(healthz).post(healthz))
                .route("/mcp/health", get(healthz).post(healthz))
                .route("/readyz", get(readyz))
                .route("/metrics", get(metrics))
                .with_state(app.clone()),
        )
        .merge(crate::files::routes::router(app.clone(), config)?)
        .merge(crate::sign_in::router(app.clone(), config))
        .merge(crate::rest::router(app, config))
        .fallback(not_found))
}

/// Alive: this process answers.
async fn healthz() -> Response {
    let body = json!({
        "status": "healthy",
        "server": crate::mcp::SERVER_NAME,
        "version": env!("CARGO_PKG_VERSION"),
    });
    axum::Json(body).into_response()
}

/// Ready: the farm answers through this process.
async fn readyz(State(app): State<Arc<App>>) -> Response {
    let asked = tokio::time::timeout(Duration::from_secs(2), app.gateway.version()).await;
    match asked {
        Ok(Ok(version)) => axum::Json(json!({"status": "ready", "farm": version})).into_response(),
        _ => {
            let body =
                json!({"status": "unavailable", "reason": "the farm's database does not answer"});
            (StatusCode::SERVICE_UNAVAILABLE, axum::Json(body)).into_response()
        }
    }
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    let text = app.metrics.render(&app.gateway.db().status());
    let mut response = text.into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4"),
    );
    response
}

/// Quick and without a key: clients probe many well-known paths.
async fn not_found() -> Response {
    let body = json!({"error": {"code": "not_found", "status": 404, "retriable": false,
                                "detail": "Nothing is served here.", "hint": "MCP is at /mcp."}});
    (StatusCode::NOT_FOUND, axum::Json(body)).into_response()
}
