//! Work outside the database: reading files, slicing, downloads. A task is held by a lease while it goes on; its files and
//! its end are recorded in one transaction, so a worker that dies or loses the lease leaves nothing behind.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Value};
use tokio::sync::{broadcast, watch, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::shop::Shop;
use crate::db::{Channel, Db, Listener};
use crate::files::FileError;

const CLAIM: &str = "SELECT odin.worker_claim_tasks($1, $2, $3, $4)";
const HEARTBEAT: &str = "SELECT odin.worker_heartbeat($1, $2, $3, $4)";
const FINISH: &str = "SELECT to_jsonb(odin.worker_finish($1, $2, $3))";

const LEASE_SECONDS: i32 = 30;
const HEARTBEAT_EVERY: Duration = Duration::from_secs(8);
const LOOK_ANYWAY: Duration = Duration::from_secs(3);
const PROGRESS_EVERY: Duration = Duration::from_millis(500);

/// A claimed task.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: String,
    pub fence: i64,
    pub kind: String,
    pub role: String,
    pub org: i64,
    pub arguments: Value,
}

impl Job {
    fn read(row: &Value) -> Option<Job> {
        Some(Job {
            id: row["id"].as_str()?.to_owned(),
            fence: row["fence"].as_i64()?,
            kind: row["kind"].as_str()?.to_owned(),
            role: row["role"].as_str()?.to_owned(),
            org: row["org_id"].as_i64()?,
            arguments: row["arguments"].clone(),
        })
    }

    pub fn text(&self, name: &str) -> &str {
        self.arguments[name].as_str().unwrap_or_default()
    }
}

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

/// Claims tasks of `kinds`, at most `most` at once, until the sidecar stops.
pub async fn run(
    shop: Arc<Shop>,
    db: Db,
    listener: Arc<Listener>,
    kinds: Vec<&'static str>,
    most: usize,
    stop: CancellationToken,
) {
    let worker = format!("{}-{}", std::process::id(), crate::random_id());
    let free = Arc::new(Semaphore::new(most));
    let mut wake = listener.subscribe();
    let mut running = JoinSet::new();
    loop {
        while running.try_join_next().is_some() {}
        let room = free.available_permits();
        let claimed = if room > 0 {
            claim(&db, &worker, &kinds, room).await
        } else {
            Vec::new()
        };
        let full_hand = !claimed.is_empty() && claimed.len() == room;
        for job in claimed {
            let Ok(permit) = free.clone().try_acquire_owned() else {
                break;
            };
            let (shop, db, wake, stop) =
                (shop.clone(), db.clone(), listener.subscribe(), stop.clone());
            running.spawn(async move {
                work(&shop, &db, &job, wake, stop).await;
                drop(permit);
            });
        }
        if full_hand && free.available_permits() > 0 {
            continue;
        }
        tokio::select! {
            () = woken(&mut wake) => {}
            _ = running.join_next(), if !running.is_empty() => {}
            () = tokio::time::sleep(LOOK_ANYWAY) => {}
            () = stop.cancelled() => break,
        }
    }
    // Each running job hands its lease back by itself.
    while running.join_next().await.is_some() {}
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

async fn claim(db: &Db, worker: &str, kinds: &[&'static str], most: usize) -> Vec<Job> {
    let most = i32::try_from(most).unwrap_or(i32::MAX);
    match db
        .quick(CLAIM, &[&worker, &kinds, &most, &LEASE_SECONDS])
        .await
    {
        Ok(Value::Array(rows)) => rows.iter().filter_map(Job::read).collect(),
        Ok(_) => Vec::new(),
        Err(e) => {
            tracing::debug!(error = %e, "cannot claim tasks");
            Vec::new()
        }
    }
}

async fn work(
    shop: &Shop,
    db: &Db,
    job: &Job,
    wake: broadcast::Receiver<Channel>,
    stop: CancellationToken,
) {
    let started = std::time::Instant::now();
    let (sender, progress) = watch::channel(None);
    let live = Live {
        cancel: CancellationToken::new(),
        progress: sender,
    };
    let outcome = {
        let carried = shop.carry_out(job, &live);
        tokio::pin!(carried);
        tokio::select! {
            outcome = &mut carried => outcome,
            // Cancelled, lost, or the sidecar stops: the work is told, and ends (a slicer's processes are killed).
            () = guard(db, job, progress, wake, stop.clone()) => {
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
        Err(Trouble::Stopped) if stop.is_cancelled() => {
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
    record(db, job, &answer, took).await;
}

async fn record(db: &Db, job: &Job, answer: &Value, took: u64) {
    match db.quick(FINISH, &[&job.id, &job.fence, answer]).await {
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

/// Keeps the lease and writes progress down. Returns when the task is no longer ours to do.
async fn guard(
    db: &Db,
    job: &Job,
    mut progress: watch::Receiver<Option<Value>>,
    mut wake: broadcast::Receiver<Channel>,
    stop: CancellationToken,
) {
    let mut beat = tokio::time::interval(HEARTBEAT_EVERY);
    beat.tick().await;
    loop {
        let status = tokio::select! {
            Ok(()) = progress.changed() => {
                tokio::time::sleep(PROGRESS_EVERY).await;
                progress.borrow_and_update().clone().unwrap_or_else(|| json!({}))
            }
            _ = beat.tick() => json!({}),
            // Perhaps it was cancelled.
            () = woken(&mut wake) => json!({}),
            () = stop.cancelled() => return,
        };
        match db
            .quick(HEARTBEAT, &[&job.id, &job.fence, &LEASE_SECONDS, &status])
            .await
        {
            Ok(answer) if answer["ok"] == Value::Bool(true) => {}
            Ok(_) => return,
            // The lease outlives a short outage; the fence guards the rest.
            Err(e) => tracing::warn!(task = job.id, error = %e, "missed a heartbeat"),
        }
    }
}
