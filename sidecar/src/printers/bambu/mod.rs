//! Bambu Lab printers in their local network: MQTT for state and orders, FTPS for files. Newer firmware takes orders from third
//! parties only in Developer Mode; this driver says so and never signs anything.

mod ftp;
mod link;
mod report;
mod tls;

use std::sync::Mutex;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{json, Value};

use super::driver::{Act, Driver, Ended, Fault, Filament, Heater, RemoteFile, Report};
use super::gcode;
use super::spool::Spooled;
use ftp::Ftp;
use link::{Document, Link, DEVELOPER_MODE};
use report::{EXTERNAL, EXTERNAL_TOO};
use tls::Identity;

const MQTT_PORT: u16 = 8883;
const FTP_PORT: u16 = 990;
/// Its file server is slow; the list is only asked for when it may have changed, and now and then.
const LIST_EVERY: Duration = Duration::from_secs(300);
/// X1, P1 and A1 print from their card; newer ones want an ftp address.
const CARD_SERIALS: [&str; 7] = ["00M", "00W", "03W", "01S", "01P", "030", "039"];
/// Percent of normal: silent, standard, sport, ludicrous.
const SPEEDS: [(f64, &str); 4] = [(50.0, "1"), (100.0, "2"), (124.0, "3"), (166.0, "4")];

pub struct Bambu {
    link: Link,
    ftp: Ftp,
    serial: String,
    from_card: bool,
    listed: Mutex<Option<(Instant, Vec<RemoteFile>)>>,
}

impl Bambu {
    pub fn open(address: &str, config: &Value, code: Option<&str>) -> Result<Bambu, Fault> {
        let code = code.ok_or_else(|| {
            Fault::auth("a Bambu Lab printer needs the access code from its screen: set access_code with set_printer_credentials")
        })?;
        let serial = config["serial"].as_str().filter(|s| !s.is_empty());
        let serial = serial.ok_or_else(|| {
            Fault::auth("a Bambu Lab printer needs its serial number, from its screen: set serial")
        })?;
        if serial.contains(['/', '+', '#']) {
            return Err(Fault::auth("the serial number is letters and digits"));
        }
        let place = Place::from(address)?;
        let identity = Identity::new(serial, config["certificate"].as_str());
        let link = Link::start(&place.host, place.mqtt, serial, code, identity.clone())?;
        Ok(Bambu {
            link,
            ftp: Ftp {
                host: place.host,
                port: place.ftp,
                code: code.to_owned(),
                identity,
            },
            serial: serial.to_owned(),
            from_card: place
                .from_card
                .unwrap_or_else(|| CARD_SERIALS.iter().any(|model| serial.starts_with(model))),
            listed: Mutex::default(),
        })
    }

    async fn print(&self, body: Value) -> Result<Value, Fault> {
        self.link.order("print", body).await
    }

    async fn lines(&self, lines: &str) -> Result<(), Fault> {
        self.print(json!({"command": "gcode_line", "param": format!("{lines}\n")}))
            .await
            .map(drop)
    }

    fn forget_list(&self) {
        if let Ok(mut listed) = self.listed.lock() {
            *listed = None;
        }
    }

    fn start(&self, file: &str, plate: u32, slots: &[i64]) -> Value {
        if !file.ends_with(".3mf") {
            return json!({"command": "gcode_file", "param": format!("/sdcard/{file}")});
        }
        let url = match self.from_card {
            true => format!("file:///sdcard/{file}"),
            false => format!("ftp:///{file}"),
        };
        // One entry for each filament of the file; -1 where the plate does not use it.
        let trays: Vec<i64> = slots.iter().map(|slot| tray(*slot)).collect();
        let use_ams = trays.iter().any(|tray| *tray >= 0 && !is_external(*tray));
        // Sources disagree about the spelling of levelling; printers ignore what they do not know.
        json!({
            "command": "project_file", "param": format!("Metadata/plate_{plate}.gcode"), "url": url, "file": file, "subtask_name": file,
            "project_id": "0", "profile_id": "0", "task_id": "0", "subtask_id": "0", "md5": "", "bed_type": "auto", "timelapse": false,
            "bed_leveling": true, "bed_levelling": true, "flow_cali": true, "vibration_cali": true, "layer_inspect": false,
            "use_ams": use_ams, "ams_mapping": if use_ams { json!(trays) } else { json!([]) },
        })
    }
}

/// `host`, and for unusual networks `host mqtt=8883 ftp=990 print_from=card|ftp`.
struct Place {
    host: String,
    mqtt: u16,
    ftp: u16,
    from_card: Option<bool>,
}

impl Place {
    fn from(address: &str) -> Result<Place, Fault> {
        let mut words = address.split_whitespace();
        let mut place = Place {
            host: words.next().unwrap_or_default().to_owned(),
            mqtt: MQTT_PORT,
            ftp: FTP_PORT,
            from_card: None,
        };
        let wrong = || {
            Fault::unreachable("the address must be the printer's name or IP address, if need be followed by mqtt=PORT ftp=PORT print_from=card or print_from=ftp")
        };
        if place.host.is_empty() || place.host.contains(['/', '@', '=']) {
            return Err(wrong());
        }
        for word in words {
            match word.split_once('=').ok_or_else(wrong)? {
                ("mqtt", port) => place.mqtt = port.parse().map_err(|_| wrong())?,
                ("ftp", port) => place.ftp = port.parse().map_err(|_| wrong())?,
                ("print_from", "card") => place.from_card = Some(true),
                ("print_from", "ftp") => place.from_card = Some(false),
                _ => return Err(wrong()),
            }
        }
        Ok(place)
    }
}

fn is_external(slot: i64) -> bool {
    matches!(slot, EXTERNAL | EXTERNAL_TOO)
}

/// Global trays: four to an AMS, counted from 0; external spools feed past the AMS and keep their numbers.
fn tray(slot: i64) -> i64 {
    match is_external(slot) {
        true => slot,
        false => slot - 1,
    }
}

fn slot_order(slot: i64, filament: &Filament) -> Value {
    let (ams, tray) = match is_external(slot) {
        true => (255, slot),
        false => (tray(slot) / 4, tray(slot) % 4),
    };
    // Generic entries of the printers' own list, so that any maker's spool is known by its material.
    let known = match filament.material.to_uppercase().as_str() {
        "PLA" => "GFL99",
        "PETG" => "GFG99",
        "ABS" => "GFB99",
        "ASA" => "GFB98",
        "TPU" => "GFU99",
        "PC" => "GFC99",
        "PA" => "GFN99",
        "PVA" => "GFS99",
        _ => "",
    };
    json!({"command": "ams_filament_setting", "ams_id": ams, "tray_id": tray, "slot_id": tray, "tray_info_idx": known,
           "tray_type": filament.material, "tray_color": format!("{}FF", filament.color.to_uppercase()),
           "nozzle_temp_min": filament.low_c, "nozzle_temp_max": filament.high_c})
}

#[async_trait]
impl Driver for Bambu {
    async fn status(&self) -> Result<Report, Fault> {
        self.link.read(report::report).await
    }

    async fn changed(&self) {
        self.link.changed().await;
        // Some of them speak once a second and more.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }

    fn pace(&self) -> (f64, f64) {
        (3.0, 5.0)
    }

    async fn facts(&self) -> Result<Value, Fault> {
        let certificate = self.ftp.identity.certificate();
        self.link
            .read(|document: &Document| {
                let modules = document.version["module"].as_array();
                let firmware = modules
                    .into_iter()
                    .flatten()
                    .find(|m| m["name"] == "ota")
                    .map(|m| m["sw_ver"].clone());
                let needed = document.needs_signature();
                json!({
                    "server": {"version": firmware, "api": "mqtt", "text": "Bambu Lab"},
                    "connection": {"state": if needed { "monitor only" } else { "full control" }, "port": null, "baudrate": null},
                    "serial": self.serial, "certificate": certificate, "developer_mode_needed": needed,
                })
            })
            .await
    }

    async fn probe(&self) -> Result<String, Fault> {
        let (report, needed) = self
            .link
            .read(|document| (report::report(document), document.needs_signature()))
            .await?;
        self.ftp.probe().await?;
        let mut words = format!(
            "the printer {} answers and takes the access code, for state and for files; it reports: {}",
            self.serial,
            report.raw.as_deref().unwrap_or("nothing")
        );
        if needed {
            words.push_str(&format!(". But {DEVELOPER_MODE}"));
        }
        Ok(words)
    }

    async fn files(&self) -> Result<Vec<RemoteFile>, Fault> {
        if let Ok(Some((_, files))) = self
            .listed
            .lock()
            .map(|l| l.clone().filter(|(at, _)| at.elapsed() < LIST_EVERY))
        {
            return Ok(files);
        }
        let files = self.ftp.files().await?;
        if let Ok(mut listed) = self.listed.lock() {
            *listed = Some((Instant::now(), files.clone()));
        }
        Ok(files)
    }

    async fn upload(&self, name: &str, file: &Spooled) -> Result<(), Fault> {
        // Nobody uploads for minutes what cannot be started.
        if self.link.read(Document::needs_signature).await? {
            return Err(Fault::refused(DEVELOPER_MODE));
        }
        if name.contains('/') {
            return Err(Fault::refused(
                "files go to the top folder of a Bambu Lab printer; leave dest_path out",
            ));
        }
        self.ftp.store(name, file).await?;
        self.forget_list();
        Ok(())
    }

    async fn act(&self, act: &Act) -> Result<Value, Fault> {
        match act {
            Act::Start {
                file, plate, slots, ..
            } => {
                self.print(self.start(file, *plate, slots)).await?;
            }
            Act::Pause => {
                self.print(json!({"command": "pause", "param": ""})).await?;
            }
            Act::Resume => {
                self.print(json!({"command": "resume", "param": ""}))
                    .await?;
            }
            Act::Stop => {
                self.link.stopping();
                self.print(json!({"command": "stop", "param": ""})).await?;
            }
            Act::Heat {
                heater: Heater::Bed,
                target,
            } => self.lines(&format!("M140 S{target}")).await?,
            Act::Heat {
                heater: Heater::Tool(0),
                target,
            } => self.lines(&format!("M104 S{target}")).await?,
            Act::Heat {
                heater: Heater::Tool(n),
                target,
            } => self.lines(&format!("M104 T{n} S{target}")).await?,
            Act::Home { axes } => {
                let axes: Vec<String> = axes
                    .iter()
                    .map(|axis| axis.to_uppercase().to_string())
                    .collect();
                self.lines(&format!("G28 {}", axes.join(" "))).await?;
            }
            Act::Move { x, y, z, speed } => {
                let mut line = "G1".to_owned();
                for (axis, way) in [('X', x), ('Y', y), ('Z', z), ('F', speed)] {
                    if let Some(way) = way {
                        line.push_str(&format!(" {axis}{way}"));
                    }
                }
                self.lines(&format!("G91\n{line}\nG90")).await?;
            }
            Act::Gcode { lines } => self.lines(&lines.join("\n")).await?,
            Act::Fan { percent } => {
                let line = gcode::fan(*percent).replace("M106", "M106 P1");
                self.lines(&line).await?;
            }
            Act::Speed { percent } => {
                let nearest = SPEEDS
                    .iter()
                    .min_by(|a, b| (a.0 - percent).abs().total_cmp(&(b.0 - percent).abs()));
                let level = nearest.map_or("2", |s| s.1);
                self.print(json!({"command": "print_speed", "param": level}))
                    .await?;
            }
            Act::Skip { objects } => {
                let numbers: Result<Vec<i64>, _> = objects.iter().map(|o| o.parse()).collect();
                let numbers = numbers.map_err(|_| {
                    Fault::refused(
                        "Bambu Lab printers name objects by the numbers of the sliced file",
                    )
                })?;
                self.print(json!({"command": "skip_objects", "obj_list": numbers}))
                    .await?;
            }
            Act::Light { on } => {
                let mode = if *on { "on" } else { "off" };
                let body = json!({"command": "ledctrl", "led_node": "chamber_light", "led_mode": mode, "led_on_time": 500,
                                  "led_off_time": 500, "loop_times": 0, "interval_time": 0});
                self.link.order("system", body).await?;
            }
            Act::Slot { slot, filament } => {
                self.print(slot_order(*slot, filament)).await?;
            }
            Act::Select { .. } => {
                return Err(Fault::unsupported(
                    "a Bambu Lab printer cannot choose a file without printing it",
                ))
            }
            Act::Connect { .. } | Act::Disconnect => {
                return Err(Fault::unsupported(
                    "there is no serial line between a Bambu Lab printer and its server",
                ))
            }
        }
        Ok(json!({}))
    }

    async fn record_of(&self, file: &str) -> Result<Option<Ended>, Fault> {
        let now = self.status().await?;
        if let (Some(outcome), true) = (now.outcome, now.file.as_deref() == Some(file)) {
            return Ok(Some(now.ended(outcome)));
        }
        match self.ftp.size_of(file).await? {
            None => Ok(None),
            Some(_) => Err(Fault::unsupported(
                "a Bambu Lab printer remembers its last print only, and that was another one",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let place = Place::from("10.0.0.9").unwrap();
        assert_eq!((place.mqtt, place.ftp, place.from_card), (8883, 990, None));
        let place = Place::from("p1.lan mqtt=18883 ftp=1990 print_from=ftp").unwrap();
        assert_eq!(
            (place.mqtt, place.ftp, place.from_card),
            (18883, 1990, Some(false))
        );
        for wrong in ["", "http://p1", "p1 mqtt=x", "p1 speed=3", "user@p1"] {
            assert!(Place::from(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn slots_have_two_numbers() {
        let pla = Filament {
            material: "PLA".into(),
            color: "ff8800".into(),
            low_c: 190,
            high_c: 230,
        };
        let order = slot_order(6, &pla);
        assert_eq!(
            (
                order["ams_id"].as_i64(),
                order["tray_id"].as_i64(),
                order["tray_color"].as_str()
            ),
            (Some(1), Some(1), Some("FF8800FF"))
        );
        assert_eq!(slot_order(254, &pla)["tray_id"], 254);
        // An AMS with a single slot counts from 128, as the report has it.
        assert_eq!(slot_order(513, &pla)["ams_id"], 128);
        assert_eq!(
            [1, 6, 0, 254, 255, 513].map(tray),
            [0, 5, -1, 254, 255, 512]
        );
    }
}
