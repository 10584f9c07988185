//! Remote MCP servers: their lists of tools are asked for now and then, and calls of these tools are carried out as tasks.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Value};
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::claims::Job;
use super::jobs::{refusal, Live, Trouble};
use crate::db::{Channel, Db, Listener};
use crate::egress::Egress;
use crate::printers::secrets::Keyring;
use crate::remote::{Remote, RemoteError};

const DUE: &str = "SELECT odin.worker_remote_due()";
const SERVER: &str = "SELECT odin.worker_remote_server($1)";
const TOOLS: &str = "SELECT odin.worker_remote_tools($1, $2)";
const FAILED: &str = "SELECT to_jsonb(odin.worker_remote_failed($1, $2))";
const LOOK_ANYWAY: Duration = Duration::from_secs(10);

/// What calls to remote servers need.
pub struct Remotes {
    pub db: Db,
    pub egress: Egress,
    pub keyring: Option<Keyring>,
}

impl Remotes {
    async fn server(&self, id: i64) -> Result<Value, String> {
        self.db
            .quick(SERVER, &[&id])
            .await
            .map_err(|e| e.to_string())
    }

    /// One call; its result is the remote server's own.
    pub async fn carry_out(&self, job: &Job, live: &Live) -> Result<Value, Trouble> {
        let id = job.arguments["server_id"].as_i64().unwrap_or_default();
        let row = self.server(id).await.map_err(Trouble::Again)?;
        let called = async {
            let mut remote = Remote::new(&self.egress, self.keyring.as_ref(), &row)?;
            remote
                .call(job.text("tool"), &job.arguments["arguments"])
                .await
        };
        let result = tokio::select! {
            result = called => result,
            () = live.cancel.cancelled() => return Err(Trouble::Stopped),
        };
        match result {
            Ok(result) => Ok(json!({"status": "complete", "raw": true, "result": result})),
            Err(RemoteError::Way(e)) => Err(Trouble::Final(e.to_json())),
            Err(e) => Err(Trouble::Final(refusal(
                "remote_server_failed",
                502,
                e.to_string(),
            ))),
        }
    }
}

/// Keeps the registry's copy of remote lists true, until the sidecar stops.
pub async fn run(remotes: Arc<Remotes>, listener: Arc<Listener>, stop: CancellationToken) {
    let mut wake = listener.subscribe();
    loop {
        match remotes.db.quick(DUE, &[]).await {
            Ok(Value::Array(due)) => {
                for id in due.iter().filter_map(Value::as_i64) {
                    if let Err(e) = sync(&remotes, id).await {
                        tracing::warn!(server = id, error = %e, "a remote server's tools could not be recorded");
                    }
                }
            }
            Ok(_) => {}
            Err(e) => tracing::debug!(error = %e, "cannot look for remote servers"),
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_ANYWAY) => {}
            () = woken(&mut wake) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn woken(wake: &mut broadcast::Receiver<Channel>) {
    loop {
        match wake.recv().await {
            Ok(Channel::Work) | Err(broadcast::error::RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

async fn sync(remotes: &Remotes, id: i64) -> Result<(), String> {
    let row = remotes.server(id).await?;
    let listed = match Remote::new(&remotes.egress, remotes.keyring.as_ref(), &row) {
        Ok(mut remote) => remote.tools().await,
        Err(e) => Err(e),
    };
    match listed {
        Ok(tools) => {
            let tools = Value::Array(tools);
            let kept = remotes
                .db
                .quick(TOOLS, &[&id, &tools])
                .await
                .map_err(|e| e.to_string())?;
            tracing::info!(server = id, tools = %kept["tools"], "remote tools");
        }
        Err(e) => {
            let said = e.to_string();
            tracing::info!(server = id, error = said, "a remote server cannot be asked");
            remotes
                .db
                .quick(FAILED, &[&id, &said])
                .await
                .map_err(|e| e.to_string())?;
        }
    }
    Ok(())
}
