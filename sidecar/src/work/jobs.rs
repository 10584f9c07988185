//! Work outside the database: reading files, slicing, downloads. A task is held by a lease while it goes on; its files and
//! its end are recorded in one transaction, so a worker that dies or loses the lease leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Value};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::claims::{hold, Desk, Job};
use super::shop::Shop;
use crate::db::Db;
use crate::egress::EgressError;
use crate::files::FileError;

const FINISH: &str = "SELECT to_jsonb(odin.worker_finish($1, $2, $3))";

/// Why a task did not end well.
#[derive(Debug)]
pub enum Trouble {
    /// The farm's error object: trying again would end the same way.
    Final(Value),
    /// Something that may be over in a while.
    Again(String),
    /// The task was cancelled or lost: nobody wants an answer.
    Stopped,
}

impl From<FileError> for Trouble {
    fn from(error: FileError) -> Self {
        match error {
            FileError::Missing => Trouble::Final(refusal(
                "file_not_found",
                404,
                "the file is no longer in the store",
            )),
            other => Trouble::Again(other.to_string()),
        }
    }
}

impl From<EgressError> for Trouble {
    fn from(error: EgressError) -> Self {
        if error.retriable() {
            Trouble::Again(error.to_string())
        } else {
            Trouble::Final(error.to_json())
        }
    }
}

/// An error object of a task.
pub fn refusal(code: &str, status: u16, detail: impl Into<String>) -> Value {
    json!({"code": code, "status": status, "retriable": false, "detail": detail.into()})
}

/// What a running job can say and hear.
#[derive(Clone)]
pub struct Live {
    pub cancel: CancellationToken,
    progress: watch::Sender<Option<Value>>,
}

impl Live {
    pub fn progress(&self, percent: f64, message: &str) {
        // Nobody listens only when the job is over.
        let _ = self.progress.send(Some(
            json!({"progress": percent.round(), "total": 100, "message": message}),
        ));
    }
}

/// One task to its end, or until it is taken away.
pub async fn work(shop: Arc<Shop>, desk: Desk, job: Job) {
    let started = std::time::Instant::now();
    let (sender, progress) = watch::channel(None);
    let live = Live {
        cancel: CancellationToken::new(),
        progress: sender,
    };
    let outcome = {
        let carried = shop.carry_out(&job, &live);
        tokio::pin!(carried);
        tokio::select! {
            outcome = &mut carried => outcome,
            // Cancelled, lost, or the sidecar stops: the work is told, and ends (a slicer's processes are killed).
            () = hold(&desk, &job, progress) => {
                live.cancel.cancel();
                match carried.await {
                    // It was ready at the same moment: the fence decides.
                    Ok(answer) => Ok(answer),
                    Err(_) => Err(Trouble::Stopped),
                }
            }
        }
    };
    let took = started.elapsed().as_millis() as u64;
    let answer = match outcome {
        Ok(answer) => answer,
        Err(Trouble::Final(error)) => {
            tracing::info!(task = job.id, kind = job.kind, duration_ms = took, detail = %error["detail"], "task failed");
            json!({"status": "error", "error": error})
        }
        Err(Trouble::Again(reason)) => {
            tracing::warn!(
                task = job.id,
                kind = job.kind,
                reason,
                "task will be tried again"
            );
            json!({"status": "retry", "message": reason, "error": {"code": -32603, "message": reason}})
        }
        Err(Trouble::Stopped) if desk.stop.is_cancelled() => {
            json!({"status": "retry", "delay_seconds": 0, "message": "handed over", "error": {"code": -32603, "message": "the worker stopped"}})
        }
        Err(Trouble::Stopped) => {
            tracing::info!(
                task = job.id,
                kind = job.kind,
                duration_ms = took,
                "task stopped"
            );
            return;
        }
    };
    record(&desk.db, &job, &answer, took).await;
}

/// A large file leaves PostgreSQL with the end of its task, and that takes the time it takes.
const FINISH_WITHIN: Duration = Duration::from_secs(600);

async fn record(db: &Db, job: &Job, answer: &Value, took: u64) {
    let patience = crate::db::Live {
        limit: Some(FINISH_WITHIN),
        ..crate::db::Live::default()
    };
    let params: crate::db::Params<'_> = &[&job.id, &job.fence, answer];
    match db.json(FINISH, params, patience).await {
        Ok(Value::Bool(true)) => {
            tracing::info!(task = job.id, kind = job.kind, duration_ms = took, status = %answer["status"], "task");
        }
        Ok(_) => tracing::info!(
            task = job.id,
            kind = job.kind,
            "task was no longer ours; nothing of it was kept"
        ),
        Err(e) => {
            tracing::warn!(task = job.id, kind = job.kind, error = %e, "a task's end could not be recorded");
            let failed = json!({"status": "retry", "error": {"code": -32603, "message": "the end of the task could not be recorded"}});
            if let Err(e) = db.quick(FINISH, &[&job.id, &job.fence, &failed]).await {
                tracing::warn!(task = job.id, error = %e, "its lease will run out");
            }
        }
    }
}
