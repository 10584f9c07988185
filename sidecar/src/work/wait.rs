//! A caller whose tool only queued work: one that can poll gets the task; any other waits here for its end, or gets a
//! handle when that takes longer than anybody should wait.

use std::time::{Duration, Instant};

use serde_json::{json, Value};
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use crate::db::{Channel, Live, Notice, NoticeKind};
use crate::gateway::{outcome, CallOptions, Caller, Gateway, Outcome};

// The end of a task is told; looking is for progress, and for an end that was not heard.
const FIRST: Duration = Duration::from_millis(60);
const LATER: Duration = Duration::from_millis(400);

/// How one caller waits.
pub struct Waiting {
    polls: bool,
    notices: Option<mpsc::UnboundedSender<Notice>>,
    cancel: CancellationToken,
    limit: Duration,
}

impl Waiting {
    pub fn new(call: &CallOptions, live: &Live, limit: Duration) -> Self {
        Waiting {
            polls: call.can["tasks"] == Value::Bool(true),
            notices: live.notices.clone(),
            cancel: live.cancel.clone(),
            limit,
        }
    }
}

/// A result that names work which has only been queued.
fn queued(result: &Value) -> Option<&str> {
    result["task_id"]
        .as_str()
        .filter(|_| result["task_state"] == "queued")
}

pub async fn finished(
    gateway: &Gateway,
    caller: &Caller,
    said: Outcome,
    waiting: Waiting,
) -> Outcome {
    let Outcome::Complete {
        result,
        raw: false,
        markdown,
    } = said
    else {
        return said;
    };
    let Some(id) = queued(&result).map(str::to_owned) else {
        return Outcome::Complete {
            result,
            raw: false,
            markdown,
        };
    };
    let started = Instant::now();
    let mut wait = FIRST;
    let mut told = Value::Null;
    let mut ends = gateway.listener().map(|listener| listener.subscribe());
    loop {
        let mut answer = match gateway.task_get(caller, &id).await {
            Ok(answer) => answer,
            Err(error) => return Outcome::Error(error),
        };
        let mut task = answer["task"].take();
        if waiting.polls {
            return Outcome::Task(task);
        }
        match task["status"].as_str() {
            Some("completed") => {
                return match outcome(task["outcome"].take()) {
                    Outcome::Complete { result, raw, .. } => Outcome::Complete {
                        result,
                        raw,
                        markdown,
                    },
                    other => other,
                }
            }
            Some("working") => {}
            ended => return Outcome::Error(broken_off(&id, ended, &task)),
        }
        if let (Some(ear), true) = (&waiting.notices, told != task["statusMessage"]) {
            told = task["statusMessage"].clone();
            // Seconds: they only ever grow, as progress must. Whoever left hears nothing.
            let _ = ear.send(Notice {
                kind: NoticeKind::Progress,
                body: json!({"progress": started.elapsed().as_secs_f64(), "message": told}),
            });
        }
        if started.elapsed() >= waiting.limit {
            return Outcome::Complete {
                result,
                raw: false,
                markdown,
            };
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = ended(&mut ends) => {}
            // Whoever takes the call back takes its work back.
            () = waiting.cancel.cancelled() => {
                if let Err(e) = gateway.task_cancel(caller, &id).await {
                    tracing::warn!(task = id, error = %e, "a cancelled call's work goes on");
                }
                return Outcome::Error(crate::db::DbError::Cancelled.to_json());
            }
        }
        wait = (wait * 3 / 2).min(LATER);
    }
}

/// Some task ended. Never, without a listener.
async fn ended(ends: &mut Option<broadcast::Receiver<Channel>>) {
    let Some(ends) = ends else {
        return std::future::pending().await;
    };
    loop {
        match ends.recv().await {
            Ok(Channel::Tasks) | Err(broadcast::error::RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Closed) => return std::future::pending().await,
        }
    }
}

fn broken_off(id: &str, ended: Option<&str>, task: &Value) -> Value {
    let why = task["error"]["message"]
        .as_str()
        .or(task["statusMessage"].as_str())
        .unwrap_or("no reason was recorded");
    let (code, status) = if ended == Some("cancelled") {
        ("cancelled", 499)
    } else {
        ("upstream_unavailable", 503)
    };
    json!({"code": code, "status": status, "retriable": status == 503, "detail": format!("task {id} {}: {why}", ended.unwrap_or("ended"))})
}
