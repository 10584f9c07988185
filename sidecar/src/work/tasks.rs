//! Tasks: claimed under a lease, run, reported with their fence. A tool runs in one transaction with the record of its
//! end, so losing the lease, the database or this process never makes it happen twice.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{json, Value};
use tokio::sync::{broadcast, mpsc, Semaphore};
use tokio::task::JoinSet;
use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;

use crate::db::{Channel, Db, DbError, Listener, Live, Notice, NoticeKind};

const CLAIM: &str = "SELECT odin.worker_claim_tasks($1, $2, $3, $4)";
const HEARTBEAT: &str = "SELECT odin.worker_heartbeat($1, $2, $3, $4)";
const REPORT: &str = "SELECT to_jsonb(odin.worker_report($1, $2, $3))";
const RUN_TOOL: &str = "SELECT odin.worker_run_tool($1, $2)";

/// A lease outlives a few missed heartbeats.
const LEASE_SECONDS: i32 = 30;
const HEARTBEAT_EVERY: Duration = Duration::from_secs(8);
/// For the wake-up that never came, and for tasks that are due later.
const LOOK_ANYWAY: Duration = Duration::from_secs(3);
/// Progress is written down at most this often.
const PROGRESS_EVERY: Duration = Duration::from_millis(250);

#[derive(Clone)]
struct Task {
    id: String,
    fence: i64,
    tool: String,
}

pub async fn run(db: Db, listener: Arc<Listener>, most: usize, stop: CancellationToken) {
    let worker = format!("{}-{}", std::process::id(), crate::random_id());
    let free = Arc::new(Semaphore::new(most));
    let mut wake = listener.subscribe();
    let mut running = JoinSet::new();
    loop {
        while running.try_join_next().is_some() {}
        let room = free.available_permits();
        let claimed = if room > 0 {
            claim(&db, &worker, room).await
        } else {
            Vec::new()
        };
        let full_hand = !claimed.is_empty() && claimed.len() == room;
        for task in claimed {
            let Ok(permit) = free.clone().try_acquire_owned() else {
                break;
            };
            let (db, wake, stop) = (db.clone(), listener.subscribe(), stop.clone());
            running.spawn(async move {
                work(&db, &task, wake, stop).await;
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

async fn claim(db: &Db, worker: &str, most: usize) -> Vec<Task> {
    let kinds = vec!["tool"];
    let most = i32::try_from(most).unwrap_or(i32::MAX);
    let answer = db
        .quick(CLAIM, &[&worker, &kinds, &most, &LEASE_SECONDS])
        .await;
    let rows = match answer {
        Ok(Value::Array(rows)) => rows,
        Ok(_) => Vec::new(),
        Err(e) => {
            tracing::debug!(error = %e, "cannot claim tasks");
            Vec::new()
        }
    };
    rows.iter()
        .filter_map(|row| {
            Some(Task {
                id: row["id"].as_str()?.to_owned(),
                fence: row["fence"].as_i64()?,
                tool: row["tool"].as_str().unwrap_or_default().to_owned(),
            })
        })
        .collect()
}

/// Run one task to its end, or until it is taken away.
async fn work(db: &Db, task: &Task, wake: broadcast::Receiver<Channel>, stop: CancellationToken) {
    let cancel = CancellationToken::new();
    let (notices, heard) = mpsc::unbounded_channel();
    let live = Live {
        cancel: cancel.clone(),
        notices: Some(notices),
        limit: None,
    };
    let started = std::time::Instant::now();
    let result = {
        let params: [&(dyn ToSql + Sync); 2] = [&task.id, &task.fence];
        let run = db.json(RUN_TOOL, &params, live);
        tokio::pin!(run);
        tokio::select! {
            result = &mut run => result,
            // Cancelled, lost, or the sidecar stops: the statement is cancelled and rolls back.
            () = guard(db, task, heard, wake, stop.clone()) => {
                cancel.cancel();
                run.await
            }
        }
    };
    let took = started.elapsed();
    match result {
        Ok(answer) => {
            let status = answer["status"].as_str().unwrap_or_default().to_owned();
            tracing::info!(
                task = task.id,
                tool = task.tool,
                status,
                duration_ms = took.as_millis() as u64,
                "task"
            );
        }
        Err(e) => {
            tracing::info!(task = task.id, tool = task.tool, error = %e, "task did not end");
            // Give it back at once if it is still ours; otherwise this changes nothing.
            let again = !matches!(e, DbError::Sql { .. });
            let answer = json!({
                "status": if again { "retry" } else { "failed" },
                "delay_seconds": if stop.is_cancelled() { 0 } else { 2 },
                "error": {"code": -32603, "message": "the worker could not finish this task"},
            });
            if let Err(e) = db.quick(REPORT, &[&task.id, &task.fence, &answer]).await {
                tracing::warn!(task = task.id, error = %e, "a task's end could not be recorded; its lease will run out");
            }
        }
    }
}

/// Keeps the lease and writes progress down. Returns when the task is no longer ours to do.
async fn guard(
    db: &Db,
    task: &Task,
    mut heard: mpsc::UnboundedReceiver<Notice>,
    mut wake: broadcast::Receiver<Channel>,
    stop: CancellationToken,
) {
    let mut beat = tokio::time::interval(HEARTBEAT_EVERY);
    beat.tick().await;
    let mut told = tokio::time::interval(PROGRESS_EVERY);
    let mut progress: Option<Value> = None;
    let mut open = true;
    loop {
        let status = tokio::select! {
            notice = heard.recv(), if open => {
                match notice {
                    Some(notice) if notice.kind == NoticeKind::Progress => progress = Some(notice.body),
                    Some(_) => {}
                    None => open = false,
                }
                continue;
            }
            _ = told.tick(), if progress.is_some() => progress.take().unwrap_or_default(),
            _ = beat.tick() => json!({}),
            // Perhaps it was cancelled.
            () = woken(&mut wake) => json!({}),
            () = stop.cancelled() => return,
        };
        let beat = db
            .quick(HEARTBEAT, &[&task.id, &task.fence, &LEASE_SECONDS, &status])
            .await;
        match beat {
            Ok(answer) if answer["ok"] == Value::Bool(true) => {}
            Ok(_) => return,
            // The lease outlives a short outage; the fence guards the rest.
            Err(e) => tracing::warn!(task = task.id, error = %e, "missed a heartbeat"),
        }
    }
}
