//! Background work: rows in the database that any sidecar may carry out, as odin_worker.

mod claims;
mod document;
mod embed;
mod facts;
mod jobs;
mod object;
mod remote;
mod shop;
mod slice;
mod source;
mod tasks;
mod ticker;
pub mod wait;

pub use document::read_pdf;

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Common, DatabaseUrl, WorkOptions, Worker};
use crate::db::Db;
use crate::egress::Egress;
use crate::files::objects::Objects;
use crate::files::Files;
use crate::slicers::Slicers;
use claims::Desk;
use shop::Shop;

const PUBLISH: &str = "SELECT to_jsonb(odin.worker_publish_slicers($1))";
const ANNOUNCE_EVERY: Duration = Duration::from_secs(600);
/// After a failure: until then nobody can slice.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(10);

/// What runs beside the requests; ends when the sidecar stops.
pub struct Workers {
    running: JoinSet<()>,
    db: Option<Db>,
}

/// Without a worker login this sidecar answers requests only.
pub fn start(
    url: Option<&DatabaseUrl>,
    work: &WorkOptions,
    common: &Common,
    stop: &CancellationToken,
) -> Result<Workers, String> {
    let mut running = JoinSet::new();
    let Some(url) = url else {
        tracing::info!("no worker login: this sidecar does no background work");
        return Ok(Workers { running, db: None });
    };
    // One connection a task, and a few for claims, reports and the clock.
    let size = work.task_workers + work.slice_workers + 8;
    let db = Db::new(url.parse()?, size, common.pool_wait()).map_err(|e| e.to_string())?;
    let listener = db.listen(stop.child_token());
    running.spawn(ticker::run(db.clone(), stop.clone()));
    running.spawn(crate::sign_in::fetch_keys(
        db.clone(),
        listener.clone(),
        Egress::new(&common.egress)?,
        stop.clone(),
    ));
    let egress = Egress::new(&common.egress)?;
    let files = Files::new(db.clone(), Objects::new(egress.clone(), common.keyring()?));
    if work.most_printers > 0 {
        let keyring = common.keyring()?;
        running.spawn(crate::printers::run(
            files.clone(),
            listener.clone(),
            work.most_printers,
            keyring,
            stop.clone(),
        ));
    }
    let desk = Desk {
        db: db.clone(),
        listener: listener.clone(),
        stop: stop.clone(),
    };
    running.spawn(claims::run(
        desk.clone(),
        vec!["tool"],
        work.task_workers,
        tasks::work,
    ));
    let remotes = Arc::new(remote::Remotes {
        db: db.clone(),
        egress: egress.clone(),
        keyring: common.keyring()?,
    });
    running.spawn(remote::run(remotes.clone(), listener.clone(), stop.clone()));
    let shop = Arc::new(Shop {
        files,
        slicers: Slicers::find(&work.slicers),
        remotes: remotes.clone(),
        egress,
        thingiverse: work.thingiverse_url.clone(),
        keyring: common.keyring()?,
    });
    // Reading files never waits behind slices, and neither waits behind a slow site.
    for (kinds, most) in [
        (vec!["facts", "document"], 2),
        (vec!["source"], 4),
        (vec!["object"], 2),
        (vec!["remote"], 8),
        (vec!["slice"], work.slice_workers),
    ] {
        if most > 0 {
            let shop = shop.clone();
            let work = move |desk, job| jobs::work(shop.clone(), desk, job);
            running.spawn(claims::run(desk.clone(), kinds, most, work));
        }
    }
    if let Some(embedder) = common.embedder()? {
        running.spawn(embed::run(embedder, db.clone(), listener, stop.clone()));
    }
    if work.slice_workers > 0 {
        running.spawn(announce(shop, db.clone(), stop.clone()));
    }
    Ok(Workers {
        running,
        db: Some(db),
    })
}

/// Which slicers there are: told at the start and again now and then, because what nobody repeats counts as gone.
async fn announce(shop: Arc<Shop>, db: Db, stop: CancellationToken) {
    let about = shop.slicers.describe().await;
    loop {
        let wait = match db.quick(PUBLISH, &[&about]).await {
            Ok(_) => ANNOUNCE_EVERY,
            Err(e) => {
                tracing::warn!(error = %e, "the slicers of this sidecar could not be announced");
                ANNOUNCE_AGAIN
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// `odin-farm worker`: until a signal comes.
pub async fn run(config: Worker) -> Result<(), String> {
    let stop = CancellationToken::new();
    let workers = start(
        Some(&config.worker_url),
        &config.work,
        &config.common,
        &stop,
    )?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), database = ?config.worker_url, "working");
    crate::server::signalled().await;
    tracing::info!("shutting down");
    stop.cancel();
    workers
        .finish(Duration::from_secs(config.shutdown_grace))
        .await;
    Ok(())
}

impl Workers {
    /// Wait until leases are handed back, but no longer than `grace`.
    pub async fn finish(mut self, grace: Duration) {
        let all = async { while self.running.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all).await.is_err() {
            tracing::warn!("background work did not end in time");
        }
        if let Some(db) = self.db {
            db.close();
        }
    }
}
