//! `virtual`: a printer simulated in real or fast time (address `speed=60`), for trying the farm and for load.
//! The machine's memory is a row in the database, so it goes on printing while no sidecar looks, as a real one does.

use std::sync::Mutex;
use std::time::Instant;

use async_trait::async_trait;
use serde_json::{json, Value};

use super::driver::{Act, Driver, Ended, Fault, Heater, Outcome, RemoteFile, Report, State};
use super::spool::Spooled;
use crate::db::Db;

const TELL: &str = "SELECT odin.worker_virtual($1, $2)";
/// Share of a print's time that goes by before the first layer.
const PREPARING: f64 = 0.02;
const ROOM_C: f64 = 22.0;

pub struct VirtualMachine {
    db: Db,
    id: i64,
    memory: Mutex<Option<Memory>>,
}

#[derive(Clone)]
struct Memory {
    read: Instant,
    speed: f64,
    file: Option<String>,
    seconds: f64,
    ran: Option<f64>,
    paused: bool,
    ended: Option<Outcome>,
    tool_target: f64,
    bed_target: f64,
    files: Value,
}

impl Memory {
    fn from(row: &Value) -> Memory {
        Memory {
            read: Instant::now(),
            speed: row["speed"].as_f64().unwrap_or(1.0),
            file: row["file"].as_str().map(str::to_owned),
            seconds: row["seconds"].as_f64().unwrap_or(0.0),
            ran: row["ran"].as_f64(),
            paused: row["paused"].as_bool().unwrap_or(false),
            ended: match row["ended"].as_str() {
                Some("cancelled") => Some(Outcome::Cancelled),
                Some("failed") => Some(Outcome::Failed),
                _ => None,
            },
            tool_target: row["tool_target"].as_f64().unwrap_or(0.0),
            bed_target: row["bed_target"].as_f64().unwrap_or(0.0),
            files: row["files"].clone(),
        }
    }

    /// Printed seconds so far, in the machine's own fast time.
    fn ran(&self) -> Option<f64> {
        let since = if self.paused {
            0.0
        } else {
            self.read.elapsed().as_secs_f64()
        };
        self.ran.map(|ran| (ran + since) * self.speed)
    }

    fn report(&self) -> Report {
        let ran = self.ran().unwrap_or(0.0);
        let part = if self.seconds > 0.0 {
            (ran / self.seconds).min(1.0)
        } else {
            1.0
        };
        let mut report = Report {
            file: self.file.clone(),
            speed_pct: Some(100.0),
            ..Report::default()
        };
        let printing = self.file.is_some() && self.ended.is_none() && part < 1.0;
        report.state = match printing {
            true if self.paused => State::Paused,
            true if part < PREPARING => State::Preparing,
            true => State::Printing,
            false => State::Idle,
        };
        report.outcome = match self.ended {
            _ if self.file.is_none() || printing => None,
            None => Some(Outcome::Completed),
            ended => ended,
        };
        if self.file.is_some() {
            report.progress_pct = Some((part * 1000.0).round() / 10.0);
            report.seconds = Some((ran.min(self.seconds) / self.speed) as i64);
        }
        if printing {
            report.remaining_seconds = Some(((self.seconds - ran) / self.speed).ceil() as i64);
        }
        let (tool, bed) = if printing {
            (205.0, 60.0)
        } else {
            (self.tool_target, self.bed_target)
        };
        report.tool_target_c = Some(tool);
        report.bed_target_c = Some(bed);
        report.tool_c = Some(tool.max(ROOM_C));
        report.bed_c = Some(bed.max(ROOM_C));
        report.raw = Some(report.state.as_str().to_owned());
        report
    }
}

impl VirtualMachine {
    pub fn new(db: Db, id: i64) -> Self {
        VirtualMachine {
            db,
            id,
            memory: Mutex::default(),
        }
    }

    async fn tell(&self, act: Value) -> Result<Memory, Fault> {
        let sent = act.get("verb").is_some();
        let row = self.db.quick(TELL, &[&self.id, &act]).await.map_err(|e| {
            let fault =
                Fault::unreachable(format!("the virtual machine's memory does not answer: {e}"));
            Fault {
                maybe_sent: sent,
                ..fault
            }
        })?;
        let memory = Memory::from(&row);
        if let Ok(mut kept) = self.memory.lock() {
            *kept = Some(memory.clone());
        }
        Ok(memory)
    }

    async fn memory(&self) -> Result<Memory, Fault> {
        let kept = self.memory.lock().ok().and_then(|m| m.clone());
        match kept {
            Some(memory) => Ok(memory),
            None => self.tell(json!({})).await,
        }
    }
}

#[async_trait]
impl Driver for VirtualMachine {
    async fn status(&self) -> Result<Report, Fault> {
        Ok(self.memory().await?.report())
    }

    fn pace(&self) -> (f64, f64) {
        (1.0, 1.0)
    }

    async fn facts(&self) -> Result<Value, Fault> {
        let speed = self.memory().await?.speed;
        Ok(
            json!({"server": {"version": env!("CARGO_PKG_VERSION"), "api": "virtual"},
                  "connection": {"state": "Operational", "port": "VIRTUAL", "baudrate": null}, "speed": speed}),
        )
    }

    async fn probe(&self) -> Result<String, Fault> {
        let speed = self.tell(json!({})).await?.speed;
        Ok(format!(
            "a virtual machine answers; it runs {speed} times as fast as a real one"
        ))
    }

    async fn files(&self) -> Result<Vec<RemoteFile>, Fault> {
        let memory = self.tell(json!({})).await?;
        let files = memory.files.as_array().cloned().unwrap_or_default();
        Ok(files
            .iter()
            .filter_map(|f| {
                Some(RemoteFile {
                    path: f["path"].as_str()?.to_owned(),
                    size_bytes: f["size_bytes"].as_i64(),
                    date: f["date"].as_i64(),
                    estimated_print_time_s: None,
                })
            })
            .collect())
    }

    async fn upload(&self, name: &str, file: &Spooled) -> Result<(), Fault> {
        self.tell(json!({"verb": "store", "file": name, "size": file.size}))
            .await?;
        Ok(())
    }

    async fn act(&self, act: &Act) -> Result<Value, Fault> {
        let told = match act {
            Act::Start { file, seconds, .. } => {
                json!({"verb": "start", "file": file, "seconds": seconds.max(1.0)})
            }
            Act::Select { file } => json!({"verb": "select", "file": file}),
            Act::Pause => json!({"verb": "pause"}),
            Act::Resume => json!({"verb": "resume"}),
            Act::Stop => json!({"verb": "stop"}),
            Act::Heat {
                heater: Heater::Bed,
                target,
            } => json!({"verb": "heat", "heater": "bed", "target": target}),
            Act::Heat { target, .. } => json!({"verb": "heat", "heater": "tool", "target": target}),
            Act::Home { .. } => json!({"verb": "home"}),
            Act::Move { .. } => json!({"verb": "move"}),
            Act::Gcode { .. } => json!({"verb": "gcode"}),
            Act::Connect { .. } => json!({"verb": "connect"}),
            Act::Slot { slot, .. } => json!({"verb": "slot", "slot": slot}),
            Act::Light { on } => json!({"verb": "light", "on": on}),
            Act::Fan { percent } => json!({"verb": "fan", "percent": percent}),
            Act::Speed { percent } => json!({"verb": "speed", "percent": percent}),
            Act::Skip { objects } => json!({"verb": "skip", "objects": objects}),
            Act::Disconnect => {
                return Err(Fault::unsupported(
                    "a virtual machine has no connection to close",
                ))
            }
        };
        self.tell(told).await?;
        Ok(json!({}))
    }

    async fn record_of(&self, file: &str) -> Result<Option<Ended>, Fault> {
        let report = self.tell(json!({})).await?.report();
        Ok(report
            .outcome
            .filter(|_| report.file.as_deref() == Some(file))
            .map(|outcome| report.ended(outcome)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(row: Value) -> Report {
        Memory::from(&row).report()
    }

    #[test]
    fn a_print_passes_through_its_states() {
        let row = |ran: f64| json!({"speed": 10, "file": "a.gcode", "seconds": 100, "ran": ran, "paused": true});
        assert_eq!(memory(row(1.0)).state, State::Paused);
        let mut going = row(0.05);
        going["paused"] = json!(false);
        assert_eq!(memory(going.clone()).state, State::Preparing);
        going["ran"] = json!(5.0);
        let report = memory(going.clone());
        assert_eq!(
            (report.state, report.progress_pct.map(f64::round)),
            (State::Printing, Some(50.0))
        );
        assert_eq!(report.outcome, None);
        going["ran"] = json!(10.0);
        let report = memory(going.clone());
        assert_eq!(
            (report.state, report.outcome),
            (State::Idle, Some(Outcome::Completed))
        );
        going["ended"] = json!("cancelled");
        assert_eq!(memory(going).outcome, Some(Outcome::Cancelled));
        assert_eq!(memory(json!({"speed": 1})).outcome, None);
    }
}
