//! The farm's clock: PostgreSQL has none of its own, so every sidecar calls odin.tick(); one at a time does the work.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::db::Db;

const TICK: &str = "SELECT odin.tick()";
const EVERY: Duration = Duration::from_secs(5);

pub async fn run(db: Db, stop: CancellationToken) {
    let mut failing = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(EVERY) => {}
            () = stop.cancelled() => return,
        }
        match db.quick(TICK, &[]).await {
            Ok(_) => failing = false,
            // An outage is said once, not every five seconds.
            Err(e) if !failing => {
                tracing::warn!(error = %e, "the farm's clock stands still");
                failing = true;
            }
            Err(_) => {}
        }
    }
}
