//! A caller waits here for the printer: the tool has queued a command and committed; the answer leaves when the machine has
//! confirmed it, or as a handle when that takes longer than anybody should wait.

use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::db::Db;
use crate::gateway::{Caller, Outcome};

const ASK: &str = "SELECT odin.gateway_command($1, $2, $3, $4)";
const FIRST: Duration = Duration::from_millis(60);
const LATER: Duration = Duration::from_millis(300);

/// A result that names a command which nobody has confirmed yet.
fn open_command(result: &Value) -> Option<i64> {
    let state = result["command_state"].as_str()?;
    let open = matches!(state, "queued" | "claimed" | "sent" | "in_doubt");
    result["command_id"].as_i64().filter(|_| open)
}

/// The same outcome, with what the printer says put in.
pub async fn confirmed(
    db: &Db,
    caller: &Caller,
    outcome: Outcome,
    limit: Duration,
    cancel: &CancellationToken,
) -> Outcome {
    let Outcome::Complete {
        result,
        raw: false,
        markdown,
    } = outcome
    else {
        return outcome;
    };
    let Some(id) = open_command(&result) else {
        return Outcome::Complete {
            result,
            raw: false,
            markdown,
        };
    };
    let options = Value::Object(caller.options());
    let until = Instant::now() + limit;
    let mut last = result.clone();
    let mut wait = FIRST;
    loop {
        // Somebody who leaves takes nothing back: the command stays.
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = cancel.cancelled() => break,
        }
        wait = (wait * 3 / 2).min(LATER);
        match db
            .quick(
                ASK,
                &[&caller.credential().as_str(), &id, &result, &options],
            )
            .await
        {
            Ok(mut answer) if answer["ok"] == true => {
                if !answer["failed"].is_null() {
                    return Outcome::Error(answer["failed"].take());
                }
                last = answer["result"].take();
                if answer["final"] == true {
                    break;
                }
            }
            Ok(mut answer) => return Outcome::Error(answer["error"].take()),
            Err(e) => tracing::debug!(command = id, error = %e, "a waiting caller cannot ask"),
        }
        if Instant::now() >= until {
            break;
        }
    }
    Outcome::Complete {
        result: last,
        raw: false,
        markdown,
    }
}
