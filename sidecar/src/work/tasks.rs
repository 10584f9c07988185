//! Tools as tasks. A tool runs in one transaction with the record of its end, so losing the lease, the database or this
//! process never makes it happen twice.

use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;

use super::claims::{hold, Desk, Job};
use crate::db::{DbError, Live, Notice, NoticeKind};

const REPORT: &str = "SELECT to_jsonb(odin.worker_report($1, $2, $3))";
const RUN_TOOL: &str = "SELECT odin.worker_run_tool($1, $2)";

/// Run one task to its end, or until it is taken away.
pub async fn work(desk: Desk, job: Job) {
    let cancel = CancellationToken::new();
    let (notices, heard) = mpsc::unbounded_channel();
    let (told, progress) = watch::channel(None);
    let live = Live {
        cancel: cancel.clone(),
        notices: Some(notices),
        limit: None,
    };
    let started = std::time::Instant::now();
    let result = {
        let params: [&(dyn ToSql + Sync); 2] = [&job.id, &job.fence];
        let run = desk.db.json(RUN_TOOL, &params, live);
        let listening = tell(heard, told);
        tokio::pin!(run);
        tokio::select! {
            result = &mut run => result,
            // Cancelled, lost, or the sidecar stops: the statement is cancelled and rolls back.
            () = hold(&desk, &job, progress) => {
                cancel.cancel();
                run.await
            }
            never = listening => match never {},
        }
    };
    let took = started.elapsed().as_millis() as u64;
    match result {
        Ok(answer) => {
            tracing::info!(
                task = job.id,
                tool = job.tool,
                status = answer["status"].as_str().unwrap_or_default(),
                duration_ms = took,
                "task"
            );
        }
        Err(e) => {
            tracing::info!(task = job.id, tool = job.tool, error = %e, "task did not end");
            // Give it back at once if it is still ours; otherwise this changes nothing.
            let again = !matches!(e, DbError::Sql { .. });
            let answer = json!({
                "status": if again { "retry" } else { "failed" },
                "delay_seconds": if desk.stop.is_cancelled() { 0 } else { 2 },
                "error": {"code": -32603, "message": "the worker could not finish this task"},
            });
            if let Err(e) = desk.db.quick(REPORT, &[&job.id, &job.fence, &answer]).await {
                tracing::warn!(task = job.id, error = %e, "a task's end could not be recorded; its lease will run out");
            }
        }
    }
}

/// The progress that the running statement raises, to whoever holds the lease.
async fn tell(
    mut heard: mpsc::UnboundedReceiver<Notice>,
    told: watch::Sender<Option<serde_json::Value>>,
) -> std::convert::Infallible {
    while let Some(notice) = heard.recv().await {
        if notice.kind == NoticeKind::Progress {
            // The holder is gone only when the task is.
            let _ = told.send(Some(notice.body));
        }
    }
    std::future::pending().await
}
