//! Claiming tasks and holding them: one loop for every kind of work. A task is held by a lease under a fence; whoever
//! lost it hears so from the next heartbeat.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Value};
use tokio::sync::{broadcast, watch, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::db::{Channel, Db, Listener};

const CLAIM: &str = "SELECT odin.worker_claim_tasks($1, $2, $3, $4)";
const HEARTBEAT: &str = "SELECT odin.worker_heartbeat($1, $2, $3, $4)";

/// A lease outlives a few missed heartbeats.
const LEASE_SECONDS: i32 = 30;
const HEARTBEAT_EVERY: Duration = Duration::from_secs(8);
/// For the wake-up that never came, and for tasks that are due later.
const LOOK_ANYWAY: Duration = Duration::from_secs(3);
/// Progress is written down at most this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(300);

/// A claimed task.
#[derive(Clone, Debug)]
pub struct Job {
    pub id: String,
    pub fence: i64,
    pub kind: String,
    /// Of kind `tool` only.
    pub tool: String,
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
            tool: row["tool"].as_str().unwrap_or_default().to_owned(),
            role: row["role"].as_str()?.to_owned(),
            // A tool's task may belong to no org.
            org: row["org_id"].as_i64().unwrap_or_default(),
            arguments: row["arguments"].clone(),
        })
    }

    pub fn text(&self, name: &str) -> &str {
        self.arguments[name].as_str().unwrap_or_default()
    }
}

/// What every loop needs besides its work.
#[derive(Clone)]
pub struct Desk {
    pub db: Db,
    pub listener: Arc<Listener>,
    pub stop: CancellationToken,
}

/// Claims tasks of `kinds`, at most `most` at once, and has each done by `work`, until the sidecar stops.
pub async fn run<F, Working>(desk: Desk, kinds: Vec<&'static str>, most: usize, work: F)
where
    F: Fn(Desk, Job) -> Working,
    Working: Future<Output = ()> + Send + 'static,
{
    let worker = format!("{}-{}", std::process::id(), crate::random_id());
    let free = Arc::new(Semaphore::new(most));
    let mut wake = desk.listener.subscribe();
    let mut running = JoinSet::new();
    loop {
        while running.try_join_next().is_some() {}
        let room = free.available_permits();
        let claimed = if room > 0 {
            claim(&desk.db, &worker, &kinds, room).await
        } else {
            Vec::new()
        };
        let full_hand = !claimed.is_empty() && claimed.len() == room;
        for job in claimed {
            let Ok(permit) = free.clone().try_acquire_owned() else {
                break;
            };
            let working = work(desk.clone(), job);
            running.spawn(async move {
                working.await;
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
            () = desk.stop.cancelled() => break,
        }
    }
    // Each running task hands its lease back by itself.
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

/// Keeps the lease and writes progress down. Returns when the task is no longer ours to do.
pub async fn hold(desk: &Desk, job: &Job, mut progress: watch::Receiver<Option<Value>>) {
    let mut wake = desk.listener.subscribe();
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
            () = desk.stop.cancelled() => return,
        };
        let params: crate::db::Params<'_> = &[&job.id, &job.fence, &LEASE_SECONDS, &status];
        match desk.db.quick(HEARTBEAT, params).await {
            Ok(answer) if answer["ok"] == Value::Bool(true) => {}
            Ok(_) => return,
            // The lease outlives a short outage; the fence guards the rest.
            Err(e) => tracing::warn!(task = job.id, error = %e, "missed a heartbeat"),
        }
    }
}
