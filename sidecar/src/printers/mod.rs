//! Printers: this sidecar holds its share of them by lease, looks at them, and carries out what the farm wants of them.
//! The database decides and remembers; whatever is kept here can be lost at any moment.

mod bambu;
mod camera;
pub mod confirm;
mod crash;
mod digest;
mod discovery;
mod driver;
mod duet;
mod gcode;
pub mod http;
mod keeper;
mod moonraker;
mod octoprint;
mod order;
mod outbox;
mod prusalink;
pub mod secrets;
mod spool;
mod virtual_machine;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{json, Value};
use tokio::sync::{broadcast, mpsc, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::db::{Channel, Db, Listener};
use crate::files::Files;
use driver::{Driver, Fault};
use keeper::Keeper;
use order::Order;
use outbox::Outbox;
use secrets::Keyring;
use watch::Watch;

const LEASE: &str = "SELECT odin.worker_lease_printers($1, $2, $3, $4)";
const LEAVE: &str = "SELECT odin.worker_leave($1)";
const ANEW: &str = "SELECT odin.worker_lease_anew($1, $2)";
const CONFIGS: &str = "SELECT odin.worker_printer_configs($1, $2)";
const CLAIM: &str = "SELECT odin.worker_claim_commands($1, $2)";
const REPORTS: &str = "SELECT odin.worker_printer_reports($1, $2)";
const ENDED: &str = "SELECT odin.worker_command_ended($1, $2, $3, $4)";

const LEASE_SECONDS: i32 = 10;
/// Nothing is sent when the last heartbeat is older than this: somebody else may hold the printer soon.
const SURE_FOR: Duration = Duration::from_secs(8);
const HEARTBEAT: Duration = Duration::from_millis(2500);
const LATEST_HEARTBEAT: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_secs(1);
const LOOK_FOR_COMMANDS: Duration = Duration::from_secs(2);
const MOST_CLAIMED: i32 = 200;
const UPLOADS_AT_ONCE: usize = 8;

/// What every keeper of this sidecar shares.
pub struct Shared {
    pub db: Db,
    pub files: Files,
    pub holder: String,
    pub outbox: Outbox,
    pub uploads: Semaphore,
    heard_at: Mutex<Option<Instant>>,
    /// One batch of reports at a time, so that an older one never lands on a newer.
    reporting: tokio::sync::Mutex<()>,
}

impl Shared {
    pub fn lease_is_good(&self) -> bool {
        self.heard_at
            .lock()
            .is_ok_and(|t| t.is_some_and(|t| t.elapsed() < SURE_FOR))
    }

    /// One that is late is waited for while nothing is marked as sent yet; a lease that is gone ends the keeper that waits.
    pub async fn wait_for_heartbeat(&self) {
        let until = Instant::now() + LATEST_HEARTBEAT;
        while !self.lease_is_good() && Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Everything that printers have said and the database has not heard, in one statement.
    pub async fn flush(&self) {
        let _one = self.reporting.lock().await;
        let Some(batch) = self.outbox.take() else {
            return;
        };
        if let Err(e) = self
            .db
            .quick(REPORTS, &[&self.holder, &batch.reports])
            .await
        {
            tracing::warn!(error = %e, "reports of printers wait: the database does not answer");
            self.outbox.give_back(batch);
        }
    }
}

struct Held {
    fence: i64,
    version: String,
    orders: mpsc::Sender<Order>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

pub async fn run(
    files: Files,
    listener: Arc<Listener>,
    most: usize,
    keyring: Option<Keyring>,
    stop: CancellationToken,
) {
    let shared = Arc::new(Shared {
        db: files.db().clone(),
        files,
        holder: format!("{}-{}", std::process::id(), crate::random_id()),
        outbox: Outbox::default(),
        uploads: Semaphore::new(UPLOADS_AT_ONCE),
        heard_at: Mutex::default(),
        reporting: tokio::sync::Mutex::default(),
    });
    let mut farm = Farm {
        shared: shared.clone(),
        keyring,
        most: i32::try_from(most).unwrap_or(i32::MAX),
        held: HashMap::new(),
    };
    let reporting = tokio::spawn(report_for_ever(shared.clone(), stop.clone()));
    let mut wake = listener.subscribe();
    let mut heartbeat = tokio::time::interval(HEARTBEAT);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = heartbeat.tick() => farm.renew().await,
            () = work_woken(&mut wake) => {}
            () = tokio::time::sleep(LOOK_FOR_COMMANDS) => {}
            () = stop.cancelled() => break,
        }
        farm.claim().await;
    }
    for held in farm.held.values() {
        held.stop.cancel();
    }
    let _ = reporting.await;
    // Others take over at once instead of waiting for the lease to run out.
    if let Err(e) = shared.db.quick(LEAVE, &[&shared.holder]).await {
        tracing::warn!(error = %e, "the printers' leases could not be handed back; they run out by themselves");
    }
}

async fn work_woken(wake: &mut broadcast::Receiver<Channel>) {
    loop {
        match wake.recv().await {
            Ok(Channel::Work) | Err(broadcast::error::RecvError::Lagged(_)) => return,
            Ok(_) => {}
            Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
        }
    }
}

struct Farm {
    shared: Arc<Shared>,
    keyring: Option<Keyring>,
    most: i32,
    held: HashMap<i64, Held>,
}

impl Farm {
    /// Report in, and follow what the database says is ours.
    async fn renew(&mut self) {
        let asked = Instant::now();
        let version = env!("CARGO_PKG_VERSION");
        let answer = self
            .shared
            .db
            .quick(
                LEASE,
                &[&self.shared.holder, &LEASE_SECONDS, &self.most, &version],
            )
            .await;
        let answer = match answer {
            Ok(answer) => answer,
            Err(e) => {
                tracing::debug!(error = %e, "cannot report in");
                return;
            }
        };
        if let Ok(mut heard) = self.shared.heard_at.lock() {
            *heard = Some(asked);
        }
        let mut ours: HashMap<i64, (i64, String)> = HashMap::new();
        for row in answer["held"].as_array().into_iter().flatten() {
            if let (Some(id), Some(fence), Some(version)) =
                (row[0].as_i64(), row[1].as_i64(), row[2].as_str())
            {
                ours.insert(id, (fence, version.to_owned()));
            }
        }
        self.held.retain(|id, held| {
            let stays = ours.get(id).is_some_and(|(fence, _)| *fence == held.fence);
            if !stays {
                held.stop.cancel();
            }
            stays
        });
        // Other settings, or a keeper that died: a new fence, so that what was under way is looked at anew.
        for (id, (fence, version)) in &mut ours {
            let stale = self
                .held
                .get(id)
                .is_some_and(|held| held.version != *version || held.task.is_finished());
            if stale {
                if let Some(old) = self.held.remove(id) {
                    old.stop.cancel();
                    let _ = old.task.await;
                }
                match self.shared.db.quick(ANEW, &[&self.shared.holder, id]).await {
                    Ok(answer) if answer.is_i64() => *fence = answer.as_i64().unwrap_or(*fence),
                    _ => *version = String::new(),
                }
            }
        }
        let new: Vec<i64> = ours
            .iter()
            .filter(|(id, (_, v))| !self.held.contains_key(id) && !v.is_empty())
            .map(|(id, _)| *id)
            .collect();
        if new.is_empty() {
            return;
        }
        match self
            .shared
            .db
            .quick(CONFIGS, &[&self.shared.holder, &new])
            .await
        {
            Ok(Value::Array(configs)) => {
                for config in configs {
                    let Some((id, (fence, version))) = config["id"]
                        .as_i64()
                        .and_then(|id| Some((id, ours.remove(&id)?)))
                    else {
                        continue;
                    };
                    self.held.insert(id, self.keep(id, fence, version, &config));
                }
            }
            Ok(_) => {}
            Err(e) => tracing::warn!(error = %e, "cannot read the printers' settings"),
        }
    }

    fn keep(&self, id: i64, fence: i64, version: String, config: &Value) -> Held {
        let (orders, inbox) = mpsc::channel(8);
        let stop = CancellationToken::new();
        let watch = Watch::resume(config["run_file"].as_str(), config["run_status"].as_str());
        let keeper = Keeper {
            id,
            fence,
            driver: open(&self.shared.db, self.keyring.as_ref(), id, config),
            shared: self.shared.clone(),
            stall_after: Duration::from_secs(config["stall_seconds"].as_u64().unwrap_or(900)),
            watch: Mutex::new(watch),
        };
        let task = tokio::spawn(keeper.run(inbox, stop.clone()));
        tracing::info!(
            printer = id,
            protocol = config["protocol"].as_str(),
            fence,
            "printer is ours"
        );
        Held {
            fence,
            version,
            orders,
            stop,
            task,
        }
    }

    async fn claim(&mut self) {
        if self.most == 0 || !self.shared.lease_is_good() {
            return;
        }
        let answer = self
            .shared
            .db
            .quick(CLAIM, &[&self.shared.holder, &MOST_CLAIMED])
            .await;
        let rows = match answer {
            Ok(Value::Array(rows)) => rows,
            Ok(_) => return,
            Err(e) => {
                tracing::debug!(error = %e, "cannot claim commands");
                return;
            }
        };
        for search in rows.iter().filter(|row| row["search"].is_object()) {
            tokio::spawn(look_around(self.shared.clone(), search.clone()));
        }
        for order in rows.iter().filter_map(Order::from) {
            let (id, fence) = (order.id, order.fence);
            let keeper = self
                .held
                .get(&order.printer)
                .filter(|held| held.fence == fence);
            if keeper.is_some_and(|held| held.orders.try_send(order).is_ok()) {
                continue;
            }
            // Leased a moment ago and not looked at yet: nothing was sent, it waits for the next round.
            let again = json!({"state": "again"});
            if let Err(e) = self
                .shared
                .db
                .quick(ENDED, &[&id, &self.shared.holder, &fence, &again])
                .await
            {
                tracing::warn!(command = id, error = %e, "a command could not be given back");
            }
        }
    }
}

/// A search for printers: belongs to no printer, so it has no keeper and no fence.
async fn look_around(shared: Arc<Shared>, search: Value) {
    let Some(id) = search["id"].as_i64() else {
        return;
    };
    let seconds = search["search"]["seconds"].as_u64().unwrap_or(6);
    let found = discovery::search(seconds).await;
    let outcome = json!({"state": "done", "result": found});
    if let Err(e) = shared
        .db
        .quick(ENDED, &[&id, &shared.holder, &0i64, &outcome])
        .await
    {
        tracing::warn!(command = id, error = %e, "what was found in the network could not be written");
    }
}

/// The driver of a printer. What cannot be opened is kept too, and says why.
fn open(db: &Db, keyring: Option<&Keyring>, id: i64, config: &Value) -> Box<dyn Driver> {
    let secret = match (config["sealed"].as_str(), keyring) {
        (None, _) => Ok(json!({})),
        (Some(_), None) => Err(Fault::auth(
            "this sidecar has no secret key, so it cannot read the printer's credentials",
        )),
        (Some(sealed), Some(keyring)) => keyring
            .open(id, sealed)
            .and_then(|plain| serde_json::from_str(&plain).ok())
            .ok_or_else(|| {
                Fault::auth("the printer's credentials were sealed with another secret key")
            }),
    };
    let address = config["address"].as_str().unwrap_or_default();
    let opened: Result<Box<dyn Driver>, Fault> =
        secret.and_then(
            |secret| match config["protocol"].as_str().unwrap_or_default() {
                "virtual" => Ok(
                    Box::new(virtual_machine::VirtualMachine::new(db.clone(), id))
                        as Box<dyn Driver>,
                ),
                "octoprint" => octoprint::OctoPrint::open(address, secret["api_key"].as_str())
                    .map(|d| Box::new(d) as Box<dyn Driver>),
                "moonraker" => moonraker::Moonraker::open(address, secret["api_key"].as_str())
                    .map(|d| Box::new(d) as Box<dyn Driver>),
                "prusalink" => prusalink::PrusaLink::open(address, &secret)
                    .map(|d| Box::new(d) as Box<dyn Driver>),
                "duet" => duet::Duet::open(address, secret["password"].as_str())
                    .map(|d| Box::new(d) as Box<dyn Driver>),
                "bambu" => bambu::Bambu::open(address, config, secret["access_code"].as_str())
                    .map(|d| Box::new(d) as Box<dyn Driver>),
                other => Err(Fault::unsupported(format!(
                    "this version has no driver for {other}"
                ))),
            },
        );
    opened.unwrap_or_else(|fault| Box::new(driver::Closed(fault)))
}

/// One statement per tick for all printers, whatever their number.
async fn report_for_ever(shared: Arc<Shared>, stop: CancellationToken) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = false;
    while !last {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => last = true,
        }
        shared.flush().await;
    }
}
