//! The farm's clock: PostgreSQL has none of its own, so every sidecar calls odin.tick() and odin.dispatch_ready(); one at a time does the work.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::db::Db;

/// Housekeeping, and jobs that printers may start by themselves: apart, so that neither waits for the other's trouble.
const HANDS: [(&str, &str); 2] = [
    ("the farm's clock", "SELECT odin.tick()"),
    ("automatic start", "SELECT to_jsonb(odin.dispatch_ready())"),
];
const EVERY: Duration = Duration::from_secs(5);

pub async fn run(db: Db, stop: CancellationToken) {
    let mut failing = [false; HANDS.len()];
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => return,
        }
        for ((what, statement), failing) in HANDS.iter().zip(&mut failing) {
            match db.quick(statement, &[]).await {
                Ok(_) => *failing = false,
                // An outage is said once, not every five seconds.
                Err(e) if !*failing => {
                    tracing::warn!(error = %e, "{what} stands still");
                    *failing = true;
                }
                Err(_) => {}
            }
        }
    }
}
