//! OctoPrint: REST for orders, its push socket for news. A success code proves nothing here, so the keeper always looks.

mod push;

use std::time::Duration;

use async_trait::async_trait;
use http::StatusCode;
use serde_json::{json, Value};

use super::driver::{Act, Driver, Ended, Fault, Heater, Outcome, RemoteFile, Report, State};
use super::gcode;
use super::http::{escaped, Answer, Http};
use super::spool::Spooled;
use push::Push;

/// Orders may wait behind what the machine does; the keeper watches the state meanwhile.
const LONG: Duration = Duration::from_secs(60);

pub struct OctoPrint {
    http: std::sync::Arc<Http>,
    push: Push,
}

impl OctoPrint {
    pub fn open(address: &str, api_key: Option<&str>) -> Result<OctoPrint, Fault> {
        let key = api_key.ok_or_else(|| {
            Fault::auth("OctoPrint needs an API key: set it with set_printer_credentials")
        })?;
        let http = std::sync::Arc::new(Http::new(address, &[("x-api-key", key)])?);
        let push = Push::start(&super::http::base(address)?, http.clone());
        Ok(OctoPrint { http, push })
    }

    async fn get(&self, path: &str) -> Result<Value, Fault> {
        read(&self.http.get(path).await?)
    }

    async fn order(&self, path: &str, body: Value) -> Result<(), Fault> {
        self.http.post(path, &body, LONG).await?.done(wrong)
    }

    async fn lines(&self, lines: &[String]) -> Result<(), Fault> {
        self.order("/api/printer/command", json!({"commands": lines}))
            .await
    }
}

fn read(answer: &Answer) -> Result<Value, Fault> {
    match answer.status {
        StatusCode::OK => answer.json(),
        _ => Err(wrong(answer)),
    }
}

/// A wrong key is 403 when asking, and 400 "CSRF validation failed" when ordering.
fn wrong(answer: &Answer) -> Fault {
    let said = answer.complaint();
    match answer.status.as_u16() {
        401 | 403 => Fault::auth("OctoPrint does not accept the API key (403)"),
        400 if said.contains("CSRF") => {
            Fault::auth("OctoPrint does not accept the API key (it says: CSRF validation failed)")
        }
        404 => Fault::no_file(format!("OctoPrint knows nothing there: {said}")),
        400..=499 => Fault::refused(format!("OctoPrint refuses: {said}")),
        _ => Fault::odd(format!("OctoPrint failed: {said}")),
    }
}

/// `/api/job` and `/api/printer` as one report. The latter is missing while the machine is not connected.
fn report(job: &Value, printer: Option<&Value>) -> Report {
    let text = job["state"].as_str().unwrap_or_default();
    let mut report = Report {
        raw: Some(text.to_owned()),
        file: job["job"]["file"]["path"].as_str().map(str::to_owned),
        progress_pct: job["progress"]["completion"].as_f64(),
        remaining_seconds: job["progress"]["printTimeLeft"].as_i64(),
        seconds: job["progress"]["printTime"].as_i64(),
        error_message: job["error"]
            .as_str()
            .filter(|e| !e.is_empty())
            .map(str::to_owned),
        ..Report::default()
    };
    let Some(printer) = printer else {
        let broken =
            report.error_message.is_some() || text.contains("error") || text.contains("Error");
        report.state = if broken { State::Error } else { State::Offline };
        let connecting = ["Opening", "Connecting", "Detecting"]
            .iter()
            .any(|word| text.starts_with(word));
        if report.state == State::Offline && connecting {
            report.stage = Some("connecting".to_owned());
        } else {
            // The serial line is gone, and whatever was printed with it.
            report.outcome = Some(Outcome::Failed);
            report
                .error_message
                .get_or_insert_with(|| "OctoPrint is not connected to its printer".to_owned());
        }
        return report;
    };
    let flags = &printer["state"]["flags"];
    let on = |name: &str| flags[name] == true;
    report.state = if on("error") || on("closedOrError") {
        State::Error
    } else if on("cancelling") || on("finishing") {
        report.stage = Some(
            if on("cancelling") {
                "cancelling"
            } else {
                "finishing"
            }
            .to_owned(),
        );
        State::Printing
    } else if on("pausing") {
        report.stage = Some("pausing".to_owned());
        State::Printing
    } else if on("paused") {
        State::Paused
    } else if text == "Starting" {
        State::Preparing
    } else if on("printing") || on("resuming") {
        State::Printing
    } else if on("operational") {
        State::Idle
    } else {
        State::Unknown
    };
    if report.state == State::Idle && report.file.is_some() {
        // Selected but not begun looks like cancelled: only a keeper that saw it print may believe it.
        report.outcome = Some(match report.progress_pct {
            Some(done) if done >= 100.0 => Outcome::Completed,
            _ => Outcome::Cancelled,
        });
    }
    if report.state == State::Error {
        report.outcome = Some(Outcome::Failed);
    }
    let temperature = &printer["temperature"];
    report.tool_c = temperature["tool0"]["actual"].as_f64();
    report.tool_target_c = temperature["tool0"]["target"].as_f64();
    report.bed_c = temperature["bed"]["actual"].as_f64();
    report.bed_target_c = temperature["bed"]["target"].as_f64();
    report.chamber_c = temperature["chamber"]["actual"].as_f64();
    report
}

/// Every file of a nested listing, as the farm shows it.
fn flatten(entries: &Value, out: &mut Vec<RemoteFile>) {
    for entry in entries.as_array().into_iter().flatten() {
        if entry["type"] == "folder" {
            flatten(&entry["children"], out);
        } else if let Some(path) = entry["path"].as_str() {
            out.push(RemoteFile {
                path: path.to_owned(),
                size_bytes: entry["size"].as_i64(),
                date: entry["date"].as_i64(),
                estimated_print_time_s: entry["gcodeAnalysis"]["estimatedPrintTime"].as_f64(),
            });
        }
    }
}

#[async_trait]
impl Driver for OctoPrint {
    async fn status(&self) -> Result<Report, Fault> {
        let job = self.get("/api/job").await?;
        let answer = self.http.get("/api/printer?exclude=sd").await?;
        match answer.status {
            StatusCode::CONFLICT => Ok(report(&job, None)),
            _ => Ok(report(&job, Some(&read(&answer)?))),
        }
    }

    async fn changed(&self) {
        self.push.changed().await;
    }

    fn files_moved(&self) -> bool {
        self.push.files_moved()
    }

    fn pace(&self) -> (f64, f64) {
        if self.push.is_open() {
            (2.0, 5.0)
        } else {
            (1.0, 2.0)
        }
    }

    async fn facts(&self) -> Result<Value, Fault> {
        let version = self.get("/api/version").await?;
        let connection = self.get("/api/connection").await?;
        let current = &connection["current"];
        Ok(json!({
            "server": {"version": version["server"], "api": version["api"], "text": version["text"]},
            "connection": {"state": current["state"], "port": current["port"], "baudrate": current["baudrate"]},
        }))
    }

    async fn probe(&self) -> Result<String, Fault> {
        let answer = self.http.get("/api/version").await?;
        if !answer.status.is_success() {
            return Err(wrong(&answer));
        }
        let version = answer.json()?;
        // Others imitate this page; what they call themselves tells.
        let text = version["text"].as_str().unwrap_or_default();
        if !text.starts_with("OctoPrint") || text.contains("Moonraker") {
            return Err(Fault::odd(format!(
                "something else answers there: it calls itself {text:?}, not OctoPrint"
            )));
        }
        let connection = self.get("/api/connection").await?;
        let state = connection["current"]["state"].as_str().unwrap_or("unknown");
        Ok(format!(
            "{text} answers and takes the key; its printer is: {state}"
        ))
    }

    async fn files(&self) -> Result<Vec<RemoteFile>, Fault> {
        let listing = self.get("/api/files/local?recursive=true").await?;
        let mut files = Vec::new();
        flatten(&listing["files"], &mut files);
        Ok(files)
    }

    async fn upload(&self, name: &str, file: &Spooled) -> Result<(), Fault> {
        let (folder, name) = name.rsplit_once('/').unwrap_or(("", name));
        let fields: &[(&str, &str)] = if folder.is_empty() {
            &[]
        } else {
            &[("path", folder)]
        };
        let answer = self
            .http
            .upload("/api/files/local", fields, name, file)
            .await?;
        answer.done(wrong)?;
        // OctoPrint makes names safe in its own way; a run must be found again under the name it was given.
        let stored = answer.json()?["files"]["local"]["name"]
            .as_str()
            .map(str::to_owned);
        match stored {
            Some(stored) if stored == name => Ok(()),
            Some(stored) => Err(Fault::odd(format!("OctoPrint stored {name} as {stored}"))),
            None => Err(Fault::odd(
                "OctoPrint does not say where it stored the file",
            )),
        }
    }

    async fn act(&self, act: &Act) -> Result<Value, Fault> {
        match act {
            Act::Start { file, .. } => {
                let path = format!("/api/files/local/{}", escaped(file));
                self.order(&path, json!({"command": "select", "print": true}))
                    .await?;
            }
            Act::Select { file } => {
                self.order(
                    &format!("/api/files/local/{}", escaped(file)),
                    json!({"command": "select"}),
                )
                .await?
            }
            // The action is named: a toggle would do the opposite when somebody was faster.
            Act::Pause => {
                self.order("/api/job", json!({"command": "pause", "action": "pause"}))
                    .await?
            }
            Act::Resume => {
                self.order("/api/job", json!({"command": "pause", "action": "resume"}))
                    .await?
            }
            Act::Stop => self.order("/api/job", json!({"command": "cancel"})).await?,
            Act::Heat {
                heater: Heater::Bed,
                target,
            } => {
                self.order(
                    "/api/printer/bed",
                    json!({"command": "target", "target": target}),
                )
                .await?
            }
            Act::Heat {
                heater: Heater::Tool(n),
                target,
            } => {
                let targets = json!({format!("tool{n}"): target});
                self.order(
                    "/api/printer/tool",
                    json!({"command": "target", "targets": targets}),
                )
                .await?;
            }
            Act::Home { axes } => {
                let axes: Vec<String> = axes.iter().map(char::to_string).collect();
                self.order(
                    "/api/printer/printhead",
                    json!({"command": "home", "axes": axes}),
                )
                .await?;
            }
            Act::Move { x, y, z, speed } => {
                let mut jog = json!({"command": "jog"});
                for (name, value) in [("x", x), ("y", y), ("z", z), ("speed", speed)] {
                    if let Some(value) = value {
                        jog[name] = json!(value);
                    }
                }
                self.order("/api/printer/printhead", jog).await?;
            }
            Act::Gcode { lines } => self.lines(lines).await?,
            Act::Fan { percent } => self.lines(&[gcode::fan(*percent)]).await?,
            Act::Speed { percent } => {
                let body = json!({"command": "feedrate", "factor": percent.round()});
                self.order("/api/printer/printhead", body).await?;
            }
            Act::Skip { objects } => {
                let lines = gcode::skip(objects)?;
                self.lines(&lines).await?;
            }
            Act::Slot { .. } => {
                return Err(Fault::unsupported("OctoPrint keeps no record of spools"))
            }
            Act::Light { .. } => return Err(Fault::unsupported(
                "OctoPrint has no light of its own; send the firmware's G-code with printer_gcode",
            )),
            Act::Connect { port, baudrate } => {
                let mut connect = json!({"command": "connect"});
                if let Some(port) = port {
                    connect["port"] = json!(port);
                }
                if let Some(baudrate) = baudrate {
                    connect["baudrate"] = json!(baudrate);
                }
                self.order("/api/connection", connect).await?;
            }
            Act::Disconnect => {
                self.order("/api/connection", json!({"command": "disconnect"}))
                    .await?
            }
        }
        Ok(json!({}))
    }

    async fn record_of(&self, file: &str) -> Result<Option<Ended>, Fault> {
        let answer = self
            .http
            .get(&format!("/api/files/local/{}", escaped(file)))
            .await?;
        if answer.status == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let prints = &read(&answer)?["prints"];
        if prints.is_null() {
            return Ok(None);
        }
        let outcome = if prints["last"]["success"] == true {
            Outcome::Completed
        } else {
            Outcome::Failed
        };
        let seconds = prints["last"]["printTime"].as_f64().map(|s| s as i64);
        Ok(Some(Ended {
            outcome,
            file: Some(file.to_owned()),
            message: None,
            progress: None,
            seconds,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(state: &str, file: Option<&str>, completion: Value) -> Value {
        json!({"state": state, "job": {"file": {"path": file}}, "progress": {"completion": completion, "printTime": 3, "printTimeLeft": null}})
    }

    fn printer(flags: Value) -> Value {
        json!({"state": {"flags": flags}, "temperature": {"tool0": {"actual": 21.3, "target": 0.0}, "bed": {"actual": 20.0, "target": 60.0}}})
    }

    #[test]
    fn states() {
        let idle = report(
            &job("Operational", None, Value::Null),
            Some(&printer(json!({"operational": true}))),
        );
        assert_eq!(
            (idle.state, idle.outcome, idle.bed_target_c),
            (State::Idle, None, Some(60.0))
        );
        let done = report(
            &job("Operational", Some("a.gcode"), json!(100.0)),
            Some(&printer(json!({"operational": true}))),
        );
        assert_eq!(done.outcome, Some(Outcome::Completed));
        let cancelled = report(
            &job("Operational", Some("a.gcode"), Value::Null),
            Some(&printer(json!({"operational": true}))),
        );
        assert_eq!(cancelled.outcome, Some(Outcome::Cancelled));
        let cancelling =
            printer(json!({"operational": true, "printing": true, "cancelling": true}));
        assert_eq!(
            report(&job("Cancelling", Some("a"), json!(5.0)), Some(&cancelling)).state,
            State::Printing
        );
        let pausing = printer(json!({"operational": true, "pausing": true, "printing": true}));
        assert_eq!(
            report(&job("Pausing", Some("a"), json!(5.0)), Some(&pausing)).state,
            State::Printing
        );
        let paused = printer(json!({"operational": true, "paused": true}));
        assert_eq!(
            report(&job("Paused", Some("a"), json!(5.0)), Some(&paused)).state,
            State::Paused
        );
        let mut halted = job("Offline after error", None, Value::Null);
        halted["error"] = json!("Printer halted. kill() called!");
        let halted = report(&halted, None);
        assert_eq!(
            (halted.state, halted.outcome),
            (State::Error, Some(Outcome::Failed))
        );
        assert!(halted.error_message.unwrap().contains("kill()"));
        assert_eq!(
            report(&job("Offline", None, Value::Null), None).state,
            State::Offline
        );
        assert_eq!(
            report(&job("Connecting", None, Value::Null), None).outcome,
            None
        );
    }

    #[test]
    fn the_odd_ways_of_a_wrong_key() {
        let answer = |status: u16, body: &str| Answer {
            status: StatusCode::from_u16(status).unwrap(),
            body: body.to_owned().into(),
            challenge: None,
        };
        assert_eq!(
            wrong(&answer(403, r#"{"error":"You don't have the permission"}"#)).code,
            "printer_auth"
        );
        assert_eq!(
            wrong(&answer(400, r#"{"error":"CSRF validation failed"}"#)).code,
            "printer_auth"
        );
        assert_eq!(
            wrong(&answer(400, r#"{"error":"port is invalid"}"#)).code,
            "printer_refused"
        );
        assert_eq!(
            wrong(&answer(409, r#"{"error":"Printer is already printing"}"#)).code,
            "printer_refused"
        );
        assert_eq!(wrong(&answer(502, "<html>")).code, "printer_fault");
    }

    #[test]
    fn nested_files_and_escapes() {
        let mut files = Vec::new();
        let listing = json!([{"type": "folder", "path": "d", "children": [{"type": "machinecode", "path": "d/x.gcode", "size": 5, "date": 7}]}, {"path": "y.gcode"}]);
        flatten(&listing, &mut files);
        assert_eq!(
            files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(),
            ["d/x.gcode", "y.gcode"]
        );
        assert_eq!(escaped("d/a b#?.gcode"), "d/a%20b%23%3F.gcode");
    }
}
