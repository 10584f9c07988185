//! Moonraker in front of Klipper: websocket for orders and state, HTTP for files.
//! Klipper says ok to almost anything, even twice and even in the middle of a print, so every check is on our side.

mod link;

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{json, Value};

use super::driver::{Act, Driver, Ended, Fault, Heater, Outcome, RemoteFile, Report, State};
use super::gcode;
use super::http::Http;
use super::spool::Spooled;
use link::Link;

const SHORT: Duration = Duration::from_secs(10);
/// Pause, cancel and G-code wait behind what the machine does; heating alone may take minutes.
const LONG: Duration = Duration::from_secs(290);

pub struct Moonraker {
    http: Http,
    link: Link,
}

impl Moonraker {
    pub fn open(address: &str, api_key: Option<&str>) -> Result<Moonraker, Fault> {
        // A trusted client needs no key.
        let headers: Vec<(&'static str, &str)> =
            api_key.map(|key| ("x-api-key", key)).into_iter().collect();
        Ok(Moonraker {
            http: Http::new(address, &headers)?,
            link: Link::start(&super::http::base(address)?, api_key)?,
        })
    }

    async fn ask(&self, method: &'static str, params: Value) -> Result<Value, Fault> {
        let answer = self.link.call(method, params, SHORT).await;
        // Asking changes nothing, so it does not matter whether it arrived.
        answer.map_err(|fault| Fault {
            maybe_sent: false,
            ..fault
        })
    }

    async fn script(&self, lines: &str) -> Result<Vec<String>, Fault> {
        judged(lines, self.link.script(lines, LONG).await?)
    }
}

/// Klipper answers ok to a command it does not know and goes on with the next line; only its words tell. A print that runs
/// meanwhile may have unknown commands of its own, so only those that were sent count.
fn judged(lines: &str, words: Vec<String>) -> Result<Vec<String>, Fault> {
    let sent: Vec<&str> = lines
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let ours = |said: &str| {
        let name = said.strip_prefix("// Unknown command:");
        name.is_some_and(|name| {
            sent.iter()
                .any(|word| word.eq_ignore_ascii_case(name.trim_matches(['"', ' '])))
        })
    };
    let wrong: Vec<&str> = words
        .iter()
        .filter(|said| ours(said))
        .map(|said| said.trim_start_matches(['/', ' ']))
        .collect();
    match wrong.is_empty() {
        true => Ok(words),
        false => Err(Fault::refused(format!(
            "Klipper says: {}. Whatever else was sent with it was carried out",
            wrong.join("; ")
        ))),
    }
}

/// Klipper's objects as one report. Its own state comes first: after a shutdown print_stats keeps its old words.
fn report(server: &Value, objects: &Value, message: &str) -> Report {
    let klippy = server["klippy_state"].as_str().unwrap_or("disconnected");
    let mut report = Report {
        raw: Some(klippy.to_owned()),
        ..Report::default()
    };
    let webhooks = objects["webhooks"]["state"].as_str().unwrap_or(klippy);
    if klippy != "ready" || webhooks != "ready" {
        let state = if klippy == "ready" { webhooks } else { klippy };
        report.raw = Some(state.to_owned());
        report.state = match state {
            "shutdown" | "error" => State::Error,
            _ => State::Offline,
        };
        if report.state == State::Error {
            report.outcome = Some(Outcome::Failed);
        }
        let said = objects["webhooks"]["state_message"]
            .as_str()
            .unwrap_or(message);
        report.error_message = Some(match said {
            "" => format!("Klipper is {state}"),
            said => said.lines().next().unwrap_or_default().to_owned(),
        });
        return report;
    }
    let stats = &objects["print_stats"];
    let words = stats["state"].as_str().unwrap_or_default();
    report.raw = Some(words.to_owned());
    report.file = stats["filename"]
        .as_str()
        .filter(|f| !f.is_empty())
        .map(str::to_owned);
    let part = objects["virtual_sdcard"]["progress"].as_f64();
    let ran = stats["print_duration"].as_f64();
    report.seconds = ran.map(|s| s as i64);
    (report.state, report.outcome) = match words {
        "printing" => (State::Printing, None),
        "paused" => (State::Paused, None),
        "complete" => (State::Idle, Some(Outcome::Completed)),
        "cancelled" => (State::Idle, Some(Outcome::Cancelled)),
        "error" => (State::Idle, Some(Outcome::Failed)),
        _ => (State::Idle, None),
    };
    if words == "error" {
        report.error_message = stats["message"]
            .as_str()
            .filter(|m| !m.is_empty())
            .map(str::to_owned);
    }
    if words == "complete" {
        report.progress_pct = Some(100.0);
    } else if report.state.is_busy() {
        report.progress_pct = part.map(|p| (p * 1000.0).round() / 10.0);
        if let (Some(part), Some(ran)) = (part.filter(|p| *p > 0.02), ran) {
            report.remaining_seconds = Some((ran / part - ran).max(0.0) as i64);
        }
    }
    report.layer = stats["info"]["current_layer"].as_i64();
    report.total_layers = stats["info"]["total_layer"].as_i64();
    report.tool_c = objects["extruder"]["temperature"].as_f64();
    report.tool_target_c = objects["extruder"]["target"].as_f64();
    report.bed_c = objects["heater_bed"]["temperature"].as_f64();
    report.bed_target_c = objects["heater_bed"]["target"].as_f64();
    let percent = |part: &Value| part.as_f64().map(|p| (p * 100.0).round());
    report.fan_pct = percent(&objects["fan"]["speed"]);
    report.speed_pct = percent(&objects["gcode_move"]["speed_factor"]);
    report
}

/// A history entry of one file, newest first.
fn record(jobs: &Value, file: &str) -> Option<Ended> {
    let job = jobs
        .as_array()?
        .iter()
        .find(|job| job["filename"] == file)?;
    let outcome = match job["status"].as_str()? {
        "in_progress" => return None,
        "completed" => Outcome::Completed,
        "cancelled" => Outcome::Cancelled,
        _ => Outcome::Failed,
    };
    let message = (outcome == Outcome::Failed).then(|| {
        format!(
            "Moonraker's history says: {}",
            job["status"].as_str().unwrap_or_default().replace('_', " ")
        )
    });
    Some(Ended {
        outcome,
        file: Some(file.to_owned()),
        message,
        progress: None,
        seconds: job["print_duration"].as_f64().map(|s| s as i64),
    })
}

#[async_trait]
impl Driver for Moonraker {
    async fn status(&self) -> Result<Report, Fault> {
        let server = self.ask("server.info", json!({})).await?;
        if server["klippy_connected"] != true {
            return Ok(report(
                &server,
                &Value::Null,
                "Klipper is not connected to Moonraker",
            ));
        }
        let wanted = json!({"objects": {"webhooks": null, "print_stats": null, "virtual_sdcard": ["progress"], "extruder": ["temperature", "target"], "heater_bed": ["temperature", "target"], "fan": ["speed"], "gcode_move": ["speed_factor"]}});
        match self.ask("printer.objects.query", wanted).await {
            Ok(answer) => Ok(report(&server, &answer["status"], "")),
            Err(fault) if server["klippy_state"] == "ready" => Err(fault),
            Err(_) => Ok(report(&server, &Value::Null, "")),
        }
    }

    async fn changed(&self) {
        self.link.changed().await;
    }

    fn files_moved(&self) -> bool {
        self.link.files_moved()
    }

    fn pace(&self) -> (f64, f64) {
        (2.0, 4.0)
    }

    async fn facts(&self) -> Result<Value, Fault> {
        let server = self.ask("server.info", json!({})).await?;
        let printer = self
            .ask("printer.info", json!({}))
            .await
            .unwrap_or_default();
        Ok(json!({
            "server": {"version": server["moonraker_version"], "api": server["api_version_string"], "text": "Moonraker"},
            "connection": {"state": server["klippy_state"], "port": null, "baudrate": null},
            "firmware": printer["software_version"],
        }))
    }

    async fn probe(&self) -> Result<String, Fault> {
        let server = self.ask("server.info", json!({})).await?;
        let version = server["moonraker_version"]
            .as_str()
            .ok_or_else(|| Fault::odd("something answers there, but it is not Moonraker"))?;
        Ok(format!(
            "Moonraker {version} answers and takes the key; Klipper is: {}",
            server["klippy_state"].as_str().unwrap_or("unknown")
        ))
    }

    async fn files(&self) -> Result<Vec<RemoteFile>, Fault> {
        let listing = self
            .ask("server.files.list", json!({"root": "gcodes"}))
            .await?;
        Ok(listing
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|f| {
                Some(RemoteFile {
                    path: f["path"].as_str()?.to_owned(),
                    size_bytes: f["size"].as_i64(),
                    date: f["modified"].as_f64().map(|t| t as i64),
                    estimated_print_time_s: None,
                })
            })
            .collect())
    }

    async fn upload(&self, name: &str, file: &Spooled) -> Result<(), Fault> {
        let (folder, name) = name.rsplit_once('/').unwrap_or(("", name));
        let fields = [
            ("root", "gcodes"),
            ("path", folder),
            ("checksum", file.sha256.as_str()),
        ];
        let answer = self
            .http
            .upload("/server/files/upload", &fields, name, file)
            .await?;
        let said = answer.complaint();
        match answer.status.as_u16() {
            201 => Ok(()),
            401 => Err(Fault::auth("Moonraker does not accept the API key (401)")),
            403 => Err(Fault::refused(
                "Moonraker refuses the file: it is loaded or in use, or the place is reserved",
            )),
            // Larger than max_upload_size: 400 with nothing in it.
            400 if answer.body.is_empty() => Err(Fault::refused(
                "Moonraker refuses the file: it is larger than max_upload_size in moonraker.conf",
            )),
            422 => Err(Fault::broken("the file arrived damaged")),
            400..=499 => Err(Fault::refused(format!(
                "Moonraker refuses the file: {said}"
            ))),
            _ => Err(Fault::odd(format!("Moonraker failed: {said}"))),
        }
    }

    async fn act(&self, act: &Act) -> Result<Value, Fault> {
        match act {
            Act::Start { file, .. } => {
                self.link
                    .call("printer.print.start", json!({"filename": file}), LONG)
                    .await?;
            }
            Act::Pause => {
                self.link
                    .call("printer.print.pause", json!({}), LONG)
                    .await?;
            }
            Act::Resume => {
                self.link
                    .call("printer.print.resume", json!({}), LONG)
                    .await?;
            }
            Act::Stop => {
                self.link
                    .call("printer.print.cancel", json!({}), LONG)
                    .await?;
            }
            Act::Heat {
                heater: Heater::Bed,
                target,
            } => drop(self.script(&format!("M140 S{target}")).await?),
            Act::Heat {
                heater: Heater::Tool(0),
                target,
            } => drop(self.script(&format!("M104 S{target}")).await?),
            Act::Heat {
                heater: Heater::Tool(n),
                target,
            } => drop(self.script(&format!("M104 T{n} S{target}")).await?),
            Act::Home { axes } => {
                let axes: Vec<String> = axes
                    .iter()
                    .map(|axis| axis.to_uppercase().to_string())
                    .collect();
                self.script(&format!("G28 {}", axes.join(" "))).await?;
            }
            Act::Move { x, y, z, speed } => {
                let mut line = "G1".to_owned();
                for (axis, way) in [('X', x), ('Y', y), ('Z', z), ('F', speed)] {
                    if let Some(way) = way {
                        line.push_str(&format!(" {axis}{way}"));
                    }
                }
                self.script(&format!("SAVE_GCODE_STATE NAME=odin_move\nG91\n{line}\nRESTORE_GCODE_STATE NAME=odin_move")).await?;
            }
            Act::Gcode { lines } => {
                let words = self.script(&lines.join("\n")).await?;
                return Ok(json!({ "lines": words }));
            }
            Act::Fan { percent } => drop(self.script(&gcode::fan(*percent)).await?),
            Act::Speed { percent } => drop(self.script(&gcode::speed(*percent)).await?),
            Act::Skip { objects } => {
                let lines: Vec<String> = objects
                    .iter()
                    .map(|name| format!("EXCLUDE_OBJECT NAME={}", gcode::word(name)))
                    .collect();
                self.script(&lines.join("\n")).await?;
            }
            Act::Slot { .. } => {
                return Err(Fault::unsupported("Klipper keeps no record of spools"))
            }
            Act::Light { .. } => {
                return Err(Fault::unsupported(
                    "Klipper has no light of its own; run its macro with printer_gcode",
                ))
            }
            // After an emergency stop only this one brings Klipper back; a plain restart ends in an error.
            Act::Connect { .. } => {
                self.link
                    .call("printer.firmware_restart", json!({}), LONG)
                    .await?;
            }
            Act::Disconnect => {
                return Err(Fault::unsupported("Moonraker has no connection to close"))
            }
            Act::Select { .. } => {
                return Err(Fault::unsupported(
                    "Moonraker cannot choose a file without printing it",
                ))
            }
        }
        Ok(json!({}))
    }

    async fn record_of(&self, file: &str) -> Result<Option<Ended>, Fault> {
        let history = self
            .ask(
                "server.history.list",
                json!({"limit": 100, "order": "desc"}),
            )
            .await?;
        Ok(record(&history["jobs"], file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(stats: Value) -> Report {
        let objects = json!({"webhooks": {"state": "ready"}, "print_stats": stats, "virtual_sdcard": {"progress": 0.25}, "extruder": {"temperature": 200.0, "target": 205.0}});
        report(
            &json!({"klippy_connected": true, "klippy_state": "ready"}),
            &objects,
            "",
        )
    }

    #[test]
    fn states() {
        let printing =
            ready(json!({"state": "printing", "filename": "a.gcode", "print_duration": 100.0}));
        assert_eq!(
            (
                printing.state,
                printing.progress_pct,
                printing.remaining_seconds
            ),
            (State::Printing, Some(25.0), Some(300))
        );
        assert_eq!(
            ready(json!({"state": "paused", "filename": "a"})).state,
            State::Paused
        );
        let done = ready(json!({"state": "complete", "filename": "a.gcode"}));
        assert_eq!(
            (done.state, done.outcome, done.progress_pct),
            (State::Idle, Some(Outcome::Completed), Some(100.0))
        );
        assert_eq!(
            ready(json!({"state": "cancelled", "filename": "a"})).outcome,
            Some(Outcome::Cancelled)
        );
        let failed =
            ready(json!({"state": "error", "filename": "a", "message": "Move out of range"}));
        assert_eq!(
            (
                failed.state,
                failed.outcome,
                failed.error_message.as_deref()
            ),
            (
                State::Idle,
                Some(Outcome::Failed),
                Some("Move out of range")
            )
        );
        assert_eq!(
            ready(json!({"state": "standby", "filename": ""})).outcome,
            None
        );
    }

    #[test]
    fn klipper_itself_comes_first() {
        let old = json!({"webhooks": {"state": "shutdown", "state_message": "Shutdown due to webhooks request\nOnce the issue..."}, "print_stats": {"state": "printing", "filename": "a"}});
        let seen = report(
            &json!({"klippy_connected": true, "klippy_state": "ready"}),
            &old,
            "",
        );
        assert_eq!(
            (seen.state, seen.outcome, seen.error_message.as_deref()),
            (
                State::Error,
                Some(Outcome::Failed),
                Some("Shutdown due to webhooks request")
            )
        );
        let away = report(
            &json!({"klippy_connected": false, "klippy_state": "disconnected"}),
            &Value::Null,
            "Klipper is not connected to Moonraker",
        );
        assert_eq!((away.state, away.outcome), (State::Offline, None));
    }

    #[test]
    fn an_unknown_command_is_refused_in_klippers_words() {
        let words = |said: &[&str]| {
            let said = said.iter().map(|w| (*w).to_owned()).collect();
            judged("G28\nfoo A=1", said)
        };
        assert_eq!(words(&["// T:21.0"]).unwrap(), ["// T:21.0"]);
        let refused = words(&["// ok so far", r#"// Unknown command:"FOO""#]).unwrap_err();
        assert!(
            refused.detail.contains(r#"says: Unknown command:"FOO""#),
            "{refused}"
        );
        assert!(words(&[r#"// Unknown command:"OF_THE_PRINT""#]).is_ok());
    }

    #[test]
    fn history() {
        let jobs = json!([{"filename": "b", "status": "in_progress"}, {"filename": "a", "status": "klippy_shutdown", "print_duration": 12.5}, {"filename": "a", "status": "completed"}]);
        assert_eq!(record(&jobs, "b"), None);
        assert_eq!(record(&jobs, "c"), None);
        let ended = record(&jobs, "a").unwrap();
        assert_eq!((ended.outcome, ended.seconds), (Outcome::Failed, Some(12)));
    }
}
