//! Duet and other RepRapFirmware boards over their own web interface (rr_*). An order is G-code that is accepted, not finished; a
//! session ends after eight silent seconds and is opened anew when the board says 401.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::StreamExt;
use http::Method;
use serde_json::{json, Value};

use super::driver::{Act, Driver, Ended, Fault, Heater, Outcome, RemoteFile, Report, State};
use super::gcode;
use super::http::{escaped, Answer, Http};
use super::spool::Spooled;

const FOLDER: &str = "0:/gcodes/";
/// What the firmware takes when nobody has set a password.
const NO_PASSWORD: &str = "reprap";
const SHORT: Duration = Duration::from_secs(10);
/// The reply to a line comes a moment after the line was accepted: so often it is looked for, whatever the board takes to answer.
const REPLY_LOOKS: u32 = 10;
const PAUSE_LIMIT: Duration = Duration::from_secs(120);
const MOST_PAGES: usize = 50;

pub struct Duet {
    http: Http,
    password: String,
    /// 0: none is open; 1: the board knows us by our address alone.
    session: AtomicU64,
}

impl Duet {
    pub fn open(address: &str, password: Option<&str>) -> Result<Duet, Fault> {
        Ok(Duet {
            http: Http::new(address, &[])?,
            password: password.unwrap_or(NO_PASSWORD).to_owned(),
            session: AtomicU64::new(0),
        })
    }

    async fn connect(&self) -> Result<(), Fault> {
        let path = format!(
            "/rr_connect?password={}&sessionKey=yes",
            escaped(&self.password)
        );
        let answer = self.http.get(&path).await?;
        if answer.status == 404 {
            return Err(Fault::odd(
                "something answers there, but it has no rr_connect: is it a Duet in standalone mode?",
            ));
        }
        let said = read(&answer)?;
        match said["err"].as_i64() {
            Some(0) => {
                let key = said["sessionKey"].as_u64().unwrap_or(1);
                self.session.store(key.max(1), Ordering::Relaxed);
                Ok(())
            }
            Some(1) => Err(Fault::auth("the Duet does not accept the password")),
            Some(2) => Err(Fault::refused(
                "the Duet has no free session: close other browsers and programs that watch it",
            )),
            _ => Err(Fault::odd("something answers there, but not like a Duet")),
        }
    }

    /// Ask within a session. A board that is short of memory says 503 for a moment.
    async fn talk(
        &self,
        method: Method,
        path: &str,
        file: Option<&Spooled>,
    ) -> Result<Value, Fault> {
        let mut busy = 0;
        let mut opened = false;
        loop {
            if self.session.load(Ordering::Relaxed) == 0 {
                self.connect().await?;
                opened = true;
            }
            let key = self.session.load(Ordering::Relaxed).to_string();
            let headers = [("x-session-key", key.as_str())];
            let answer = match file {
                Some(file) => {
                    self.http
                        .send_file(method.clone(), path, &headers, file)
                        .await?
                }
                None => {
                    self.http
                        .order(method.clone(), path, &headers, SHORT)
                        .await?
                }
            };
            match answer.status.as_u16() {
                401 | 403 if !opened => self.session.store(0, Ordering::Relaxed),
                503 if busy < 5 => {
                    busy += 1;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                _ => return read(&answer),
            }
        }
    }

    async fn ask(&self, path: &str) -> Result<Value, Fault> {
        // Asking changes nothing, so it does not matter whether it arrived.
        let answer = self.talk(Method::GET, path, None).await;
        answer.map_err(|fault| Fault {
            maybe_sent: false,
            ..fault
        })
    }

    async fn model(&self, key: &str, flags: &str) -> Result<Value, Fault> {
        let mut said = self
            .ask(&format!("/rr_model?key={key}&flags={flags}"))
            .await?;
        Ok(said["result"].take())
    }

    /// Send lines and return what the board says to them, in so far as it says it at once.
    async fn lines(&self, lines: &str) -> Result<Vec<String>, Fault> {
        let before = self.model("seqs", "f").await?["reply"].take();
        let path = format!("/rr_gcode?gcode={}", encoded(lines));
        let said = self.talk(Method::GET, &path, None).await?;
        if said["err"].as_i64().unwrap_or(0) != 0 {
            return Err(Fault::refused(
                "the Duet takes no more G-code at the moment: too long, or its buffer is full",
            ));
        }
        for _ in 0..REPLY_LOOKS {
            tokio::time::sleep(Duration::from_millis(150)).await;
            let Ok(mut seqs) = self.model("seqs", "f").await else {
                break;
            };
            if seqs["reply"].take() != before {
                return self.reply().await;
            }
        }
        Ok(Vec::new())
    }

    async fn reply(&self) -> Result<Vec<String>, Fault> {
        let key = self.session.load(Ordering::Relaxed).to_string();
        let headers = [("x-session-key", key.as_str())];
        let Ok(answer) = self.http.get_with("/rr_reply", &headers).await else {
            return Ok(Vec::new());
        };
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let lines: Vec<String> = text
            .lines()
            .map(str::trim)
            .filter(|l| !l.is_empty())
            .map(str::to_owned)
            .collect();
        match lines.iter().find(|line| line.starts_with("Error")) {
            Some(error) => Err(Fault::refused(format!("the Duet refuses: {error}"))),
            None => Ok(lines),
        }
    }

    /// A print is only cancelled from a pause.
    async fn stop(&self) -> Result<(), Fault> {
        let state = self.model("state", "f").await?;
        if state["status"] != "paused" {
            self.lines("M25").await?;
            let until = Instant::now() + PAUSE_LIMIT;
            loop {
                let state = self.model("state", "f").await.unwrap_or_default();
                match state["status"].as_str() {
                    Some("paused") => break,
                    Some("idle") => return Ok(()),
                    _ if Instant::now() > until => {
                        return Err(Fault::broken(
                            "the Duet did not pause, so it was not told to cancel",
                        ))
                    }
                    _ => tokio::time::sleep(Duration::from_millis(400)).await,
                }
            }
        }
        self.lines("M0").await.map(drop)
    }
}

fn read(answer: &Answer) -> Result<Value, Fault> {
    match answer.status.as_u16() {
        200 => answer.json(),
        401 | 403 => Err(Fault::auth("the Duet does not accept the password")),
        404 => Err(Fault::odd(
            "this Duet does not know the request; its firmware may be older than 3.0",
        )),
        503 => Err(Fault::unreachable(
            "the Duet is short of memory; it answers again in a moment",
        )),
        status => Err(Fault::odd(format!("the Duet failed ({status})"))),
    }
}

/// Everything but letters and digits escaped.
fn encoded(text: &str) -> String {
    escaped(text).replace('/', "%2F")
}

fn without_folder(name: &str) -> String {
    name.strip_prefix(FOLDER).unwrap_or(name).to_owned()
}

fn report(state: &Value, job: &Value, heat: &Value) -> Report {
    let words = state["status"].as_str().unwrap_or_default();
    let file = job["file"]["fileName"].as_str().filter(|f| !f.is_empty());
    let mut report = Report {
        raw: Some(words.to_owned()),
        file: file.map(without_folder),
        layer: job["layer"].as_i64(),
        total_layers: job["file"]["numLayers"].as_i64(),
        seconds: job["duration"].as_i64(),
        ..Report::default()
    };
    report.state = match words {
        "idle" => State::Idle,
        "paused" => State::Paused,
        "processing" | "simulating" | "pausing" | "resuming" | "cancelling" => State::Printing,
        "changingTool" | "busy" if file.is_some() => State::Printing,
        "changingTool" | "busy" => State::Idle,
        "halted" => State::Error,
        "off" | "starting" | "updating" | "disconnected" => State::Offline,
        _ => State::Unknown,
    };
    if matches!(
        words,
        "pausing" | "cancelling" | "starting" | "updating" | "busy" | "simulating"
    ) {
        report.stage = Some(words.to_owned());
    }
    report.settling = words == "busy" && file.is_none();
    match report.state {
        State::Error => {
            report.outcome = Some(Outcome::Failed);
            report.error_message =
                Some("the firmware has halted; connect_printer resets it".to_owned());
        }
        State::Idle if words == "idle" => {
            report.file = job["lastFileName"]
                .as_str()
                .filter(|f| !f.is_empty())
                .map(without_folder);
            report.outcome = report.file.as_ref().map(|_| last_outcome(job));
            report.seconds = job["lastDuration"].as_i64();
        }
        State::Offline => report.error_message = Some(format!("the Duet says: {words}")),
        _ => {}
    }
    if report.state.is_busy() {
        let (at, size) = (job["filePosition"].as_f64(), job["file"]["size"].as_f64());
        report.progress_pct = at
            .zip(size.filter(|s| *s > 0.0))
            .map(|(at, size)| (at / size * 1000.0).round() / 10.0);
        report.remaining_seconds = ["slicer", "file", "filament"]
            .iter()
            .find_map(|by| job["timesLeft"][by].as_i64());
    } else if report.outcome == Some(Outcome::Completed) {
        report.progress_pct = Some(100.0);
    }
    let indices = |list: &Value| -> Vec<i64> {
        list.as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_i64)
            .filter(|i| *i >= 0)
            .collect()
    };
    let beds = indices(&heat["bedHeaters"]);
    let chambers = indices(&heat["chamberHeaters"]);
    let heaters = heat["heaters"].as_array().cloned().unwrap_or_default();
    for (i, heater) in (0i64..).zip(&heaters) {
        let now = heater["current"].as_f64();
        let target = match heater["state"].as_str() {
            Some("off") | None => Some(0.0),
            Some("standby") => heater["standby"].as_f64(),
            _ => heater["active"].as_f64(),
        };
        if beds.first() == Some(&i) {
            (report.bed_c, report.bed_target_c) = (now, target);
        } else if chambers.contains(&i) {
            report.chamber_c = now;
        } else if report.tool_c.is_none() && !beds.contains(&i) {
            (report.tool_c, report.tool_target_c) = (now, target);
        }
    }
    report
}

fn last_outcome(job: &Value) -> Outcome {
    if job["lastFileCancelled"] == true {
        Outcome::Cancelled
    } else if job["lastFileAborted"] == true {
        Outcome::Failed
    } else {
        Outcome::Completed
    }
}

#[async_trait]
impl Driver for Duet {
    async fn status(&self) -> Result<Report, Fault> {
        let state = self.model("state", "d2").await?;
        let job = self.model("job", "d3v").await?;
        let heat = self.model("heat", "d3").await?;
        let mut report = report(&state, &job, &heat);
        let moving = self.model("move", "d2").await.unwrap_or_default();
        report.speed_pct = moving["speedFactor"]
            .as_f64()
            .map(|factor| (factor * 100.0).round());
        Ok(report)
    }

    /// Often enough that the session lives.
    fn pace(&self) -> (f64, f64) {
        (2.0, 4.0)
    }

    async fn facts(&self) -> Result<Value, Fault> {
        let board = self.model("boards", "d3v").await?[0].take();
        Ok(json!({
            "server": {"version": board["firmwareVersion"], "api": "rr", "text": board["firmwareName"]},
            "connection": {"state": null, "port": null, "baudrate": null},
            "board": board["name"],
        }))
    }

    async fn probe(&self) -> Result<String, Fault> {
        self.session.store(0, Ordering::Relaxed);
        let mut state = self.model("state", "d2").await?;
        let facts = self.facts().await?;
        Ok(format!(
            "{} {} answers and takes the password; the machine is: {}",
            facts["server"]["text"].as_str().unwrap_or("RepRapFirmware"),
            facts["server"]["version"].as_str().unwrap_or_default(),
            state["status"].take().as_str().unwrap_or("unknown")
        ))
    }

    async fn files(&self) -> Result<Vec<RemoteFile>, Fault> {
        let (mut files, mut first) = (Vec::new(), 0);
        for _ in 0..MOST_PAGES {
            let page = self
                .ask(&format!("/rr_filelist?dir=0:/gcodes&first={first}"))
                .await?;
            for entry in page["files"].as_array().into_iter().flatten() {
                if let Some(name) = entry["name"].as_str().filter(|_| entry["type"] == "f") {
                    files.push(RemoteFile {
                        path: name.to_owned(),
                        size_bytes: entry["size"].as_i64(),
                        date: None,
                        estimated_print_time_s: None,
                    });
                }
            }
            first = page["next"].as_i64().unwrap_or(0);
            if first == 0 {
                break;
            }
        }
        Ok(files)
    }

    async fn upload(&self, name: &str, file: &Spooled) -> Result<(), Fault> {
        let mut crc = crc32fast::Hasher::new();
        let mut pieces = std::pin::pin!(file.stream());
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|e| Fault::odd(format!("the spooled file: {e}")))?;
            crc.update(&piece);
        }
        let path = format!(
            "/rr_upload?name={}&crc32={:08x}",
            encoded(&format!("{FOLDER}{name}")),
            crc.finalize()
        );
        let said = self.talk(Method::POST, &path, Some(file)).await?;
        match said["err"].as_i64() {
            Some(0) => Ok(()),
            // A wrong sum or a full card: trying again tells which.
            _ => Err(Fault::broken(
                "the Duet did not store the file: damaged on the way, or its card is full",
            )),
        }
    }

    async fn act(&self, act: &Act) -> Result<Value, Fault> {
        let lines = match act {
            Act::Start { file, .. } => {
                format!("M32 {}", gcode::quoted(&format!("{FOLDER}{file}")))
            }
            Act::Select { file } => format!("M23 {}", gcode::quoted(&format!("{FOLDER}{file}"))),
            Act::Pause => "M25".to_owned(),
            Act::Resume => "M24".to_owned(),
            Act::Stop => {
                self.stop().await?;
                return Ok(json!({}));
            }
            Act::Heat {
                heater: Heater::Bed,
                target,
            } => format!("M140 S{target}"),
            Act::Heat {
                heater: Heater::Tool(n),
                target,
            } => format!("M104 T{n} S{target}"),
            Act::Home { axes } => {
                let axes: Vec<String> = axes
                    .iter()
                    .map(|axis| axis.to_uppercase().to_string())
                    .collect();
                format!("G28 {}", axes.join(" "))
            }
            Act::Move { x, y, z, speed } => {
                let mut line = "G1".to_owned();
                for (axis, way) in [('X', x), ('Y', y), ('Z', z), ('F', speed)] {
                    if let Some(way) = way {
                        line.push_str(&format!(" {axis}{way}"));
                    }
                }
                // Pushed and popped, so that nobody is left in relative mode.
                format!("M120\nG91\n{line}\nM121")
            }
            Act::Gcode { lines } => lines.join("\n"),
            Act::Fan { percent } => gcode::fan(*percent),
            Act::Speed { percent } => gcode::speed(*percent),
            Act::Skip { objects } => gcode::skip(objects)?.join("\n"),
            Act::Connect { .. } => "M999".to_owned(),
            Act::Disconnect => return Err(Fault::unsupported("a Duet has no connection to close")),
            Act::Slot { .. } => return Err(Fault::unsupported("a Duet keeps no record of spools")),
            Act::Light { .. } => {
                return Err(Fault::unsupported(
                    "a Duet has no light of its own; run its macro with printer_gcode",
                ))
            }
        };
        let said = self.lines(&lines).await?;
        match act {
            Act::Gcode { .. } => Ok(json!({"lines": said})),
            _ => Ok(json!({})),
        }
    }

    async fn record_of(&self, file: &str) -> Result<Option<Ended>, Fault> {
        let job = self.model("job", "d3v").await?;
        if job["lastFileName"].as_str().map(without_folder).as_deref() == Some(file) {
            return Ok(Some(Ended {
                outcome: last_outcome(&job),
                file: Some(file.to_owned()),
                message: None,
                progress: None,
                seconds: job["lastDuration"].as_i64(),
            }));
        }
        let path = format!("/rr_fileinfo?name={}", encoded(&format!("{FOLDER}{file}")));
        match self.ask(&path).await?["err"].as_i64() {
            Some(0) => Err(Fault::unsupported(
                "a Duet remembers its last print only, and that was another one",
            )),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: &str, job: Value) -> Report {
        let heat = json!({"bedHeaters": [0, -1], "chamberHeaters": [-1], "heaters": [
            {"current": 60.1, "active": 60.0, "standby": 0.0, "state": "active"},
            {"current": 25.0, "active": 210.0, "standby": 0.0, "state": "off"}]});
        report(&json!({"status": status}), &job, &heat)
    }

    #[test]
    fn states() {
        let job = json!({"file": {"fileName": "0:/gcodes/a.gcode", "size": 1000, "numLayers": 50}, "filePosition": 250, "layer": 3, "timesLeft": {"file": 90}});
        let printing = seen("processing", job.clone());
        assert_eq!(
            (
                printing.state,
                printing.file.as_deref(),
                printing.progress_pct,
                printing.remaining_seconds
            ),
            (State::Printing, Some("a.gcode"), Some(25.0), Some(90))
        );
        assert_eq!(
            (printing.bed_target_c, printing.tool_target_c),
            (Some(60.0), Some(0.0))
        );
        assert_eq!(seen("busy", job.clone()).state, State::Printing);
        assert_eq!(seen("busy", json!({})).state, State::Idle);
        assert_eq!(seen("paused", job).state, State::Paused);
        assert_eq!(seen("off", json!({})).state, State::Offline);
        assert_eq!(seen("halted", json!({})).outcome, Some(Outcome::Failed));
        assert_eq!(seen("idle", json!({})).outcome, None);
        for (flag, outcome) in [
            ("x", Outcome::Completed),
            ("lastFileCancelled", Outcome::Cancelled),
            ("lastFileAborted", Outcome::Failed),
        ] {
            let over = seen(
                "idle",
                json!({"lastFileName": "0:/gcodes/a.gcode", flag: true}),
            );
            assert_eq!(
                (over.outcome, over.file.as_deref()),
                (Some(outcome), Some("a.gcode"))
            );
        }
    }

    #[test]
    fn nothing_escapes_a_request() {
        assert_eq!(
            encoded("M32 \"0:/gcodes/a&b.gcode\""),
            "M32%20%220%3A%2Fgcodes%2Fa%26b.gcode%22"
        );
    }
}
