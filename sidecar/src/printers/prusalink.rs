//! PrusaLink, v1 API: the MK2.5/MK3 server and the one inside newer printers. It forgets a print some seconds after its end and
//! keeps no history, so its last states are the only proof; what nobody saw is never guessed.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::{Method, StatusCode};
use serde_json::{json, Value};

use super::driver::{Act, Driver, Ended, Fault, Heater, Outcome, RemoteFile, Report, State};
use super::http::{escaped, Answer, Http};
use super::spool::Spooled;

/// Newer firmware answers a pause when it has paused. 0.8.1 answers at once and tries later, behind whatever it still has to send
/// (half a minute when its disk is slow), and tells nobody when it gives up: only the state says what came of it.
const LONG: Duration = Duration::from_secs(120);
const KNOWN_LIMIT: Duration = Duration::from_secs(15);
/// Text errors otherwise.
const JSON: (&str, &str) = ("accept", "application/json");
const DEEPEST: usize = 4;

pub struct PrusaLink {
    http: Http,
}

impl PrusaLink {
    pub fn open(address: &str, secret: &Value) -> Result<PrusaLink, Fault> {
        let login = secret["username"].as_str().zip(secret["password"].as_str());
        let http = match (secret["api_key"].as_str(), login) {
            (Some(key), _) => Http::new(address, &[("x-api-key", key)])?,
            (None, Some((user, password))) => {
                Http::new(address, &[])?.with_digest(user, password)
            }
            (None, None) => {
                return Err(Fault::auth("PrusaLink needs an API key, or a username (usually maker) and a password: set them with set_printer_credentials"))
            }
        };
        Ok(PrusaLink { http })
    }

    async fn get(&self, path: &str) -> Result<Answer, Fault> {
        self.http.get_with(path, &[JSON]).await
    }

    async fn read(&self, path: &str) -> Result<Value, Fault> {
        let answer = self.get(path).await?;
        match answer.status {
            StatusCode::OK => answer.json(),
            StatusCode::NO_CONTENT => Ok(Value::Null),
            _ => Err(wrong(&answer)),
        }
    }

    /// A page that not every version has; `Null` where it is missing.
    async fn if_there(&self, path: &str) -> Result<Value, Fault> {
        let answer = self.get(path).await?;
        match is_gone(&answer) {
            true => Ok(Value::Null),
            false if answer.status == StatusCode::OK => answer.json(),
            false => Err(wrong(&answer)),
        }
    }

    async fn state(&self) -> Result<Value, Fault> {
        let status = self.if_there("/api/v1/status").await?;
        match status["printer"]["state"].is_string() {
            true => Ok(status),
            false => Err(Fault::odd(
                "something answers there, but it is not PrusaLink: it has no /api/v1/status",
            )),
        }
    }

    async fn order(&self, method: Method, path: &str) -> Result<(), Fault> {
        let answer = self.http.order(method, path, &[JSON], LONG).await?;
        answer.done(wrong)
    }

    /// The pages of the older API, which newer printers no longer have.
    async fn old(&self, path: &str, body: Value) -> Result<(), Fault> {
        let answer = self.http.post(path, &body, LONG).await?;
        if is_gone(&answer) {
            return Err(Fault::unsupported(
                "this PrusaLink lets nobody move or heat over the network; use the printer's screen",
            ));
        }
        answer.done(wrong)
    }

    /// Where files go: the first place that can be written to.
    async fn storage(&self) -> Result<String, Fault> {
        let said = self.read("/api/v1/storage").await?;
        writable(&said)
    }

    async fn place_of(&self, file: &str) -> Result<String, Fault> {
        Ok(format!(
            "/api/v1/files/{}/{}",
            self.storage().await?,
            escaped(file)
        ))
    }

    async fn job(&self) -> Result<Option<Value>, Fault> {
        let job = self.read("/api/v1/job").await?;
        Ok((!job.is_null()).then_some(job))
    }

    /// Orders name the job they mean, so that nobody pauses the next one.
    async fn job_order(&self, method: Method, verb: &str) -> Result<(), Fault> {
        let job = self
            .job()
            .await?
            .ok_or_else(|| Fault::refused("PrusaLink knows of no print"))?;
        let id = job["id"]
            .as_i64()
            .ok_or_else(|| Fault::odd("PrusaLink gives its print no number"))?;
        self.order(method, &format!("/api/v1/job/{id}{verb}")).await
    }
}

/// Newer printers have /usb beside a /local that nobody may write to; and a drive that is not in is listed too.
fn writable(said: &Value) -> Result<String, Fault> {
    let places = said["storage_list"].as_array().cloned().unwrap_or_default();
    let mut why = Vec::new();
    for place in &places {
        let Some(path) = place["path"].as_str().map(|p| p.trim_matches('/')) else {
            continue;
        };
        if place["available"] == false {
            why.push(format!("{path} is not in the printer"));
        } else if place["read_only"] == true {
            why.push(format!("{path} can only be read"));
        } else {
            return Ok(path.to_owned());
        }
    }
    if why.is_empty() {
        why.push("it has none at all: no USB drive or card is in it".to_owned());
    }
    Err(Fault::refused(format!(
        "the printer has no storage that can be written to: {}",
        why.join(", ")
    )))
}

/// Newer firmware has dropped this page.
fn is_gone(answer: &Answer) -> bool {
    matches!(answer.status.as_u16(), 404 | 405 | 410 | 501)
}

/// A wrong key is 403, a wrong password 401.
fn wrong(answer: &Answer) -> Fault {
    let said = answer.complaint();
    match answer.status.as_u16() {
        401 => Fault::auth("PrusaLink does not accept the user name and password (401)"),
        403 => Fault::auth("PrusaLink does not accept the API key (403)"),
        404 => Fault::no_file(format!("PrusaLink knows nothing there: {said}")),
        503 => Fault::unreachable("PrusaLink is still starting"),
        400..=499 => Fault::refused(format!("PrusaLink refuses: {said}")),
        _ => Fault::odd(format!("PrusaLink failed: {said}")),
    }
}

/// The name a file was started under: its path without the storage in front.
fn file_of(job: &Value) -> Option<String> {
    let file = &job["file"];
    let name = file["name"].as_str()?;
    let folder = file["path"].as_str().unwrap_or_default();
    let folder = folder.trim_matches('/').split_once('/').map_or("", |p| p.1);
    // The older server repeats the name at the end of the path.
    Some(match folder {
        "" => name.to_owned(),
        folder if folder == name || folder.ends_with(&format!("/{name}")) => folder.to_owned(),
        folder => format!("{folder}/{name}"),
    })
}

fn report(status: &Value, job: Option<&Value>) -> Report {
    let printer = &status["printer"];
    let words = printer["state"].as_str().unwrap_or_default();
    let said = printer["status_printer"]["message"]
        .as_str()
        .filter(|_| printer["status_printer"]["ok"] == false);
    let mut report = Report {
        raw: Some(words.to_owned()),
        file: job.and_then(file_of),
        progress_pct: job.and_then(|j| j["progress"].as_f64()),
        remaining_seconds: job.and_then(|j| j["time_remaining"].as_i64()),
        seconds: job.and_then(|j| j["time_printing"].as_i64()),
        tool_c: printer["temp_nozzle"].as_f64(),
        tool_target_c: printer["target_nozzle"].as_f64(),
        bed_c: printer["temp_bed"].as_f64(),
        bed_target_c: printer["target_bed"].as_f64(),
        speed_pct: printer["speed"].as_f64(),
        error_message: said.map(str::to_owned),
        ..Report::default()
    };
    (report.state, report.outcome) = match words {
        "IDLE" | "READY" => (State::Idle, None),
        "PRINTING" => (State::Printing, None),
        "PAUSED" => (State::Paused, None),
        // It wants somebody: filament out, a dialog on its screen.
        "ATTENTION" if job.is_some() => (State::Paused, None),
        "BUSY" if job.is_some() => (State::Preparing, None),
        "BUSY" => (State::Idle, None),
        "FINISHED" => (State::Idle, Some(Outcome::Completed)),
        "STOPPED" => (State::Idle, Some(Outcome::Cancelled)),
        "ERROR" => (State::Error, Some(Outcome::Failed)),
        "ATTENTION" => (State::Error, None),
        _ => (State::Unknown, None),
    };
    report.settling = matches!(words, "FINISHED" | "STOPPED" | "BUSY");
    if words == "ATTENTION" {
        report.stage = Some("wants attention".to_owned());
        report
            .error_message
            .get_or_insert_with(|| "the printer wants somebody at its screen".to_owned());
    } else if words == "ERROR" {
        report
            .error_message
            .get_or_insert_with(|| "the printer reports an error".to_owned());
    } else {
        report.error_message = None;
    }
    report
}

fn flatten(folder: &Value, inside: &str, depth: usize, out: &mut Vec<RemoteFile>) {
    for entry in folder["children"].as_array().into_iter().flatten() {
        let Some(name) = entry["name"].as_str() else {
            continue;
        };
        let path = match inside {
            "" => name.to_owned(),
            inside => format!("{inside}/{name}"),
        };
        if entry["type"] == "FOLDER" {
            if depth < DEEPEST {
                flatten(entry, &path, depth + 1, out);
            }
            continue;
        }
        out.push(RemoteFile {
            path,
            size_bytes: entry["size"].as_i64(),
            date: entry["m_timestamp"].as_i64(),
            estimated_print_time_s: entry["meta"]["estimated_print_time"].as_f64(),
        });
    }
}

#[async_trait]
impl Driver for PrusaLink {
    async fn status(&self) -> Result<Report, Fault> {
        let status = self.state().await?;
        let job = match status["job"].is_object() {
            true => self.job().await?,
            false => None,
        };
        Ok(report(&status, job.as_ref()))
    }

    /// A print that ended is shown for some eleven seconds.
    fn pace(&self) -> (f64, f64) {
        (2.0, 4.0)
    }

    async fn facts(&self) -> Result<Value, Fault> {
        let version = self.if_there("/api/version").await?;
        let info = self.if_there("/api/v1/info").await?;
        Ok(json!({
            "server": {"version": version["server"], "api": version["api"], "text": version["original"].as_str().or(version["text"].as_str())},
            "connection": {"state": null, "port": null, "baudrate": null},
            "firmware": version["firmware"], "serial": info["serial"], "nozzle_mm": info["nozzle_diameter"],
        }))
    }

    async fn probe(&self) -> Result<String, Fault> {
        let version = self.if_there("/api/version").await?;
        let name = ["original", "text", "server"]
            .iter()
            .filter_map(|key| version[*key].as_str())
            .find(|name| name.contains("PrusaLink"));
        let name = match name {
            Some(name) => format!("{name} {}", version["server"].as_str().unwrap_or_default()),
            // Without that page the state below tells whose server it is.
            None if version.is_null() => "PrusaLink".to_owned(),
            None => {
                let text = version["text"].as_str().unwrap_or("something else");
                return Err(Fault::odd(format!(
                    "something else answers there: it calls itself {text:?}, not PrusaLink"
                )));
            }
        };
        let status = self.state().await?;
        let state = status["printer"]["state"].as_str().unwrap_or("unknown");
        let mut words = format!("{name} answers and takes the login; its printer is: {state}");
        if let Err(fault) = self.storage().await {
            words.push_str(&format!(". But {fault}"));
        }
        Ok(words)
    }

    async fn files(&self) -> Result<Vec<RemoteFile>, Fault> {
        let place = self.storage().await?;
        let listing = self.read(&format!("/api/v1/files/{place}")).await?;
        let mut files = Vec::new();
        flatten(&listing, "", 0, &mut files);
        Ok(files)
    }

    async fn upload(&self, name: &str, file: &Spooled) -> Result<(), Fault> {
        let place = self.place_of(name).await?;
        // It would take the bytes in the middle of printing them.
        let job = self.job().await?;
        if job.as_ref().and_then(file_of).as_deref() == Some(name) {
            return Err(Fault::refused("the printer prints a file of this name"));
        }
        let headers = [
            // Any other type is refused, or fails with 500 on a new file.
            ("content-type", "text/x.gcode"),
            ("overwrite", "?1"),
            JSON,
        ];
        let answer = self
            .http
            .send_file(Method::PUT, &place, &headers, file)
            .await?;
        answer.done(wrong)?;
        // It answers before it knows the file by its name.
        let until = Instant::now() + KNOWN_LIMIT;
        loop {
            match self.get(&place).await?.status {
                StatusCode::OK => return Ok(()),
                _ if Instant::now() > until => {
                    return Err(Fault::broken(
                        "PrusaLink took the file but does not list it",
                    ))
                }
                _ => tokio::time::sleep(Duration::from_millis(200)).await,
            }
        }
    }

    async fn act(&self, act: &Act) -> Result<Value, Fault> {
        match act {
            Act::Start { file, .. } => {
                let place = self.place_of(file).await?;
                self.order(Method::POST, &place).await?;
            }
            Act::Pause => self.job_order(Method::PUT, "/pause").await?,
            Act::Resume => self.job_order(Method::PUT, "/resume").await?,
            Act::Stop => self.job_order(Method::DELETE, "").await?,
            Act::Heat {
                heater: Heater::Bed,
                target,
            } => {
                let body = json!({"command": "target", "target": target});
                self.old("/api/printer/bed", body).await?;
            }
            Act::Heat {
                heater: Heater::Tool(n),
                target,
            } => {
                let targets = json!({format!("tool{n}"): target});
                let body = json!({"command": "target", "targets": targets});
                self.old("/api/printer/tool", body).await?;
            }
            Act::Home { axes } => {
                let axes: Vec<String> = axes.iter().map(char::to_string).collect();
                let body = json!({"command": "home", "axes": axes});
                self.old("/api/printer/printhead", body).await?;
            }
            Act::Move { x, y, z, speed } => {
                let mut jog = json!({"command": "jog"});
                for (name, value) in [("x", x), ("y", y), ("z", z), ("feedrate", speed)] {
                    if let Some(value) = value {
                        jog[name] = json!(value);
                    }
                }
                self.old("/api/printer/printhead", jog).await?;
            }
            Act::Select { .. } => {
                return Err(Fault::unsupported(
                    "PrusaLink cannot choose a file without printing it",
                ))
            }
            Act::Connect { .. } | Act::Disconnect => {
                return Err(Fault::unsupported(
                    "PrusaLink minds the connection to its printer itself",
                ))
            }
            Act::Gcode { .. } => {
                return Err(Fault::unsupported("PrusaLink takes no single G-code lines"))
            }
            Act::Slot { .. } => {
                return Err(Fault::unsupported("PrusaLink keeps no record of spools"))
            }
            Act::Light { .. } | Act::Fan { .. } | Act::Speed { .. } | Act::Skip { .. } => {
                return Err(Fault::unsupported(
                    "PrusaLink has no lights, fan, speed or objects to set over the network",
                ))
            }
        }
        Ok(json!({}))
    }

    async fn record_of(&self, file: &str) -> Result<Option<Ended>, Fault> {
        // A file that never arrived was never printed; of any other PrusaLink remembers nothing.
        let place = self.place_of(file).await?;
        match self.get(&place).await?.status {
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(Fault::unsupported(
                "PrusaLink keeps no record of prints that are over",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: &str, job: Option<&Value>) -> Report {
        let status = json!({"printer": {"state": state, "temp_nozzle": 21.5, "status_printer": {"ok": false, "message": "Serial device does not exist"}}});
        report(&status, job)
    }

    #[test]
    fn states() {
        let job = json!({"id": 3, "progress": 40.0, "file": {"name": "a.gcode", "path": "/local"}});
        let printing = seen("PRINTING", Some(&job));
        assert_eq!(printing.state, State::Printing);
        assert_eq!(printing.file.as_deref(), Some("a.gcode"));
        assert_eq!(printing.error_message, None);
        assert_eq!(seen("ATTENTION", Some(&job)).state, State::Paused);
        assert_eq!(seen("ATTENTION", None).state, State::Error);
        let done = seen("FINISHED", Some(&job));
        assert_eq!(
            (done.state, done.outcome, done.settling),
            (State::Idle, Some(Outcome::Completed), true)
        );
        assert_eq!(seen("STOPPED", None).outcome, Some(Outcome::Cancelled));
        let lost = seen("ERROR", None);
        assert_eq!(
            (lost.state, lost.outcome),
            (State::Error, Some(Outcome::Failed))
        );
        assert_eq!(
            lost.error_message.as_deref(),
            Some("Serial device does not exist")
        );
        assert_eq!(seen("IDLE", None).outcome, None);
        assert_eq!(seen("", None).state, State::Unknown);
    }

    #[test]
    fn storages() {
        let list = |places: Value| writable(&json!({ "storage_list": places }));
        let local = json!({"path": "/local", "read_only": true, "available": true});
        let usb = json!({"path": "/usb", "read_only": false, "available": true});
        let gone = json!({"path": "/usb", "read_only": false, "available": false});
        assert_eq!(list(json!([local, usb])).unwrap(), "usb");
        let why = list(json!([local, gone])).unwrap_err().detail;
        assert!(
            why.contains("local can only be read") && why.contains("usb is not in"),
            "{why}"
        );
        assert!(list(json!([])).unwrap_err().detail.contains("none at all"));
    }

    #[test]
    fn names() {
        let named = |path: &str| file_of(&json!({"file": {"name": "a.gcode", "path": path}}));
        for (path, name) in [
            ("/local", "a.gcode"),
            ("/local/a.gcode", "a.gcode"),
            ("/usb/sub", "sub/a.gcode"),
            ("/usb/sub/a.gcode", "sub/a.gcode"),
        ] {
            assert_eq!(named(path).as_deref(), Some(name), "{path}");
        }
    }
}
