//! A command as the database hands it out: what to do, what must hold before, and what the machine must show after.

use serde_json::Value;

use super::driver::{Act, Fault, Filament, Heater, Outcome, Report, State};

#[derive(Clone, Debug)]
pub struct Order {
    pub id: i64,
    pub printer: i64,
    pub fence: i64,
    pub verb: String,
    pub arguments: Value,
    pub in_doubt: bool,
    pub file: Option<String>,
    pub sha256: Option<String>,
    pub seconds: f64,
    /// Which plate of a sliced file with several.
    pub plate: u32,
    /// Slot of each filament of the file, in the file's order.
    pub slots: Vec<i64>,
    pub seconds_left: f64,
}

/// Does the machine show what was wanted?
#[derive(Debug, PartialEq)]
pub enum Shown {
    Yes,
    /// Not yet; keep looking.
    NotYet,
    /// It never will: something else is going on.
    Never(String),
}

/// What a machine does not report cannot be waited for.
fn reported(shown: Option<bool>) -> Shown {
    match shown {
        Some(false) => Shown::NotYet,
        _ => Shown::Yes,
    }
}

/// [{tool, slot_number}] as a list by tool; 0 where a tool of the file has no slot.
fn slot_map(rows: &Value) -> Vec<i64> {
    let mut map = Vec::new();
    for row in rows.as_array().into_iter().flatten() {
        let tool = row["tool"].as_u64().and_then(|n| usize::try_from(n).ok());
        if let (Some(tool @ 0..=63), Some(slot)) = (tool, row["slot_number"].as_i64()) {
            if map.len() <= tool {
                map.resize(tool + 1, 0);
            }
            map[tool] = slot;
        }
    }
    map
}

fn text_of(arguments: &Value, name: &str) -> Result<String, Fault> {
    arguments[name]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| Fault::odd(format!("the command names no {name}")))
}

fn percent(arguments: &Value) -> Result<f64, Fault> {
    arguments["percent"]
        .as_f64()
        .ok_or_else(|| Fault::odd("the command names no percentage"))
}

impl Order {
    pub fn from(row: &Value) -> Option<Order> {
        let arguments = row["arguments"].clone();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let verb = text(&row["verb"])?;
        // Only these bring a file along; the others merely belong to its run.
        let brings = matches!(verb.as_str(), "start" | "upload");
        Some(Order {
            id: row["id"].as_i64()?,
            printer: row["printer_id"].as_i64()?,
            fence: row["fence"].as_i64()?,
            verb,
            in_doubt: row["in_doubt"].as_bool()?,
            file: text(&row["remote_file"]).or_else(|| text(&arguments["path"])),
            sha256: text(&row["file_sha256"])
                .or_else(|| text(&arguments["sha256"]))
                .filter(|_| brings),
            seconds: row["estimated_seconds"]
                .as_f64()
                .or(arguments["seconds"].as_f64())
                .unwrap_or(60.0),
            plate: arguments["plate"]
                .as_u64()
                .and_then(|n| n.try_into().ok())
                .unwrap_or(1),
            slots: slot_map(&arguments["slots"]),
            seconds_left: row["seconds_left"].as_f64().unwrap_or(0.0),
            arguments,
        })
    }

    pub fn act(&self) -> Result<Option<Act>, Fault> {
        let a = &self.arguments;
        let file = || {
            self.file
                .clone()
                .ok_or_else(|| Fault::odd("the command names no file"))
        };
        Ok(Some(match self.verb.as_str() {
            "start" | "print_file" => Act::Start {
                file: file()?,
                seconds: self.seconds,
                plate: self.plate,
                slots: self.slots.clone(),
            },
            "upload" if a["print"] == true => Act::Start {
                file: file()?,
                seconds: self.seconds,
                plate: self.plate,
                slots: self.slots.clone(),
            },
            "upload" if a["select"] == true => Act::Select { file: file()? },
            "upload" => return Ok(None),
            "pause" => Act::Pause,
            "resume" => Act::Resume,
            "stop" => Act::Stop,
            "set_temperature" => Act::Heat {
                heater: match a["heater"].as_str() {
                    Some("bed") => Heater::Bed,
                    _ => Heater::Tool(
                        a["tool_index"]
                            .as_u64()
                            .and_then(|n| n.try_into().ok())
                            .unwrap_or(0),
                    ),
                },
                target: a["target"]
                    .as_f64()
                    .ok_or_else(|| Fault::odd("the command names no temperature"))?,
            },
            "home" => Act::Home {
                axes: a["axes"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|x| x.as_str()?.chars().next())
                    .collect(),
            },
            "move" => Act::Move {
                x: a["x"].as_f64(),
                y: a["y"].as_f64(),
                z: a["z"].as_f64(),
                speed: a["speed"].as_f64(),
            },
            "gcode" => Act::Gcode {
                lines: a["lines"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|x| Some(x.as_str()?.to_owned()))
                    .collect(),
            },
            "connect" => Act::Connect {
                port: a["port"].as_str().map(str::to_owned),
                baudrate: a["baudrate"].as_i64(),
            },
            "disconnect" => Act::Disconnect,
            "set_slot" => Act::Slot {
                slot: a["slot_number"].as_i64().unwrap_or(1),
                filament: Filament {
                    material: text_of(a, "material")?,
                    color: text_of(a, "color")?,
                    low_c: a["low_c"].as_i64().unwrap_or(190),
                    high_c: a["high_c"].as_i64().unwrap_or(240),
                },
            },
            "set_light" => Act::Light {
                on: a["on"] == true,
            },
            "set_fan" => Act::Fan {
                percent: percent(a)?,
            },
            "set_speed" => Act::Speed {
                percent: percent(a)?,
            },
            "skip_objects" => Act::Skip {
                objects: a["objects"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(|x| Some(x.as_str()?.to_owned()))
                    .collect(),
            },
            verb => {
                return Err(Fault::unsupported(format!(
                    "this sidecar does not know the command {verb}"
                )))
            }
        }))
    }

    /// What the machine must be like before anything leaves. `Ok(true)`: it is there already, nothing has to leave.
    pub fn may_leave(&self, now: &Report) -> Result<bool, Fault> {
        let busy = now.state.is_busy();
        let refuse = |what: &str| {
            Err(Fault::not_ready(format!(
                "the printer is {}; {what}",
                now.state.as_str()
            )))
        };
        match self.verb.as_str() {
            "connect" => Ok(false),
            _ if matches!(now.state, State::Offline | State::Unknown) => Err(Fault::unreachable(
                now.error_message
                    .clone()
                    .unwrap_or_else(|| "the printer is not connected to its server".into()),
            )),
            "disconnect" if busy => refuse("disconnecting would lose the print"),
            "start" | "print_file" if busy => refuse("it must be idle before a print starts"),
            "start" | "print_file" if now.state == State::Error => refuse("clear the error first"),
            "upload" if busy && self.arguments["print"] == true => {
                refuse("it must be idle before a print starts")
            }
            "pause" if now.state == State::Paused => Ok(true),
            "pause" if !busy => refuse("there is nothing to pause"),
            "resume" if now.state == State::Printing => Ok(true),
            "resume" if now.state != State::Paused => refuse("there is nothing to resume"),
            "stop" if !busy => Ok(true),
            "home" | "move" | "gcode" | "set_temperature" if busy => {
                refuse("motion and heat are for machines at rest")
            }
            "skip_objects" if !busy => refuse("there is no print to leave anything out of"),
            "home" | "move" | "gcode" | "set_temperature" if now.state == State::Error => {
                refuse("clear the error first")
            }
            _ => Ok(false),
        }
    }

    /// Did it happen? Success codes prove nothing; the state does.
    pub fn shown(&self, now: &Report) -> Shown {
        let ours = now.file.is_none() || now.file == self.file;
        match self.verb.as_str() {
            _ if self.prints() => {
                match now.state {
                    State::Printing | State::Paused | State::Preparing if ours => Shown::Yes,
                    State::Printing | State::Paused | State::Preparing => Shown::Never(format!(
                        "the printer prints {} instead",
                        now.file.as_deref().unwrap_or("something else")
                    )),
                    State::Error => Shown::Never(
                        now.error_message
                            .clone()
                            .unwrap_or_else(|| "the printer reports an error".into()),
                    ),
                    // So short that nobody saw it print.
                    _ if now.outcome == Some(Outcome::Completed) && now.file == self.file => {
                        Shown::Yes
                    }
                    _ => Shown::NotYet,
                }
            }
            "pause" => match now.state {
                State::Paused => Shown::Yes,
                State::Idle | State::Error => {
                    Shown::Never("the print ended before it could be paused".into())
                }
                _ => Shown::NotYet,
            },
            "resume" => match now.state {
                State::Printing | State::Preparing => Shown::Yes,
                State::Idle if now.outcome == Some(Outcome::Completed) => Shown::Yes,
                State::Idle | State::Error => {
                    Shown::Never("the print ended before it could go on".into())
                }
                _ => Shown::NotYet,
            },
            "stop" if now.state.is_busy() => Shown::NotYet,
            "connect" => match now.state {
                // An old error is still shown for a moment.
                State::Offline | State::Unknown | State::Error => Shown::NotYet,
                _ => Shown::Yes,
            },
            "disconnect" if now.state != State::Offline => Shown::NotYet,
            "set_temperature" => {
                let target = match self.arguments["heater"].as_str() {
                    Some("bed") => now.bed_target_c,
                    // Only the first tool's target is reported; the others are taken as accepted.
                    _ if self.arguments["tool_index"].as_u64().unwrap_or(0) == 0 => {
                        now.tool_target_c
                    }
                    _ => return Shown::Yes,
                };
                match (target, self.arguments["target"].as_f64()) {
                    (Some(is), Some(wanted)) if (is - wanted).abs() < 0.6 => Shown::Yes,
                    _ => Shown::NotYet,
                }
            }
            "set_light" => reported(now.lights_on.map(|on| on == (self.arguments["on"] == true))),
            "set_slot" => reported(self.slot_shown(now)),
            "set_fan" => reported(self.near(now.fan_pct, 1.0)),
            // Some machines know a few speeds only; the nearest is what was asked for.
            "set_speed" => reported(self.near(now.speed_pct, 35.0)),
            _ => Shown::Yes,
        }
    }

    /// What is true once it is done.
    pub fn words(&self, printing: bool) -> &'static str {
        match self.verb.as_str() {
            "start" | "print_file" => "the print has begun",
            "pause" => "the print is paused",
            "resume" => "the print goes on",
            "stop" => "the print is stopped",
            "set_temperature" => "the target is set",
            "home" => "homing was accepted",
            "move" => "the move was accepted",
            "gcode" => "the G-code was accepted",
            "set_light" => "the light is set",
            "set_fan" => "the fan is set",
            "set_speed" => "the speed is set",
            "skip_objects" => "the objects are left out",
            "set_slot" => "the printer knows what is loaded",
            "connect" => "the printer is connected",
            "disconnect" => "the printer is disconnected",
            "upload" if printing => "the file is stored and the print has begun",
            "upload" => "the file is stored",
            _ => "done",
        }
    }

    /// The machine shows this very print as failed.
    pub fn failed_at_once(&self, now: &Report) -> bool {
        self.prints() && now.outcome == Some(Outcome::Failed) && now.file == self.file
    }

    /// A print begins with it.
    pub fn prints(&self) -> bool {
        matches!(self.verb.as_str(), "start" | "print_file")
            || (self.verb == "upload" && self.arguments["print"] == true)
    }

    fn slot_shown(&self, now: &Report) -> Option<bool> {
        let wanted = self.arguments["slot_number"].as_i64()?;
        let slot = now.slots.iter().find(|s| s.slot == wanted)?;
        let same = |is: &Option<String>, name: &str| {
            let wanted = self.arguments[name].as_str().unwrap_or_default();
            is.as_deref()
                .is_some_and(|is| is.eq_ignore_ascii_case(wanted))
        };
        Some(same(&slot.material, "material") && same(&slot.color, "color"))
    }

    fn near(&self, is: Option<f64>, within: f64) -> Option<bool> {
        Some((is? - self.arguments["percent"].as_f64()?).abs() <= within)
    }

    /// An absolute setting: saying it twice is the same as saying it once.
    pub fn is_harmless_twice(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "test" | "snapshot" | "set_light" | "set_fan" | "set_speed" | "set_slot"
        )
    }

    /// Done when it was accepted, because not every machine shows it.
    pub fn is_done_when_accepted(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "home"
                | "move"
                | "gcode"
                | "set_light"
                | "set_fan"
                | "set_speed"
                | "set_slot"
                | "skip_objects"
        )
    }

    /// Longest wait for the machine to show it, in seconds.
    pub fn patience(&self) -> f64 {
        let usual: f64 = match self.verb.as_str() {
            "stop" => 240.0,
            "pause" => 180.0,
            "set_temperature" | "set_light" | "set_fan" | "set_speed" | "set_slot" => 30.0,
            _ => 60.0,
        };
        usual.min(self.seconds_left.max(5.0))
    }

    /// After a crash: may it be sent once more when the machine shows no sign of it? Moves and G-code leave no sign.
    pub fn leaves_a_sign(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "start" | "pause" | "resume" | "stop" | "set_temperature" | "connect" | "disconnect"
        ) || (self.verb == "upload" && self.arguments["print"] != true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn order(verb: &str, arguments: Value) -> Order {
        Order::from(&json!({"id": 1, "printer_id": 2, "fence": 3, "verb": verb, "arguments": arguments, "in_doubt": false,
                            "remote_file": "odin_1.gcode", "seconds_left": 100}))
        .unwrap()
    }

    fn now(state: State) -> Report {
        Report {
            state,
            ..Report::default()
        }
    }

    #[test]
    fn motion_and_heat_wait_for_rest() {
        for verb in ["home", "move", "gcode", "set_temperature", "start"] {
            for state in [State::Printing, State::Paused, State::Preparing] {
                let refused = order(verb, json!({})).may_leave(&now(state)).unwrap_err();
                assert_eq!(refused.code, "printer_not_ready", "{verb} while {state:?}");
            }
            assert_eq!(
                order(verb, json!({})).may_leave(&now(State::Idle)),
                Ok(false),
                "{verb}"
            );
        }
        assert!(order("home", json!({}))
            .may_leave(&now(State::Offline))
            .is_err());
        assert_eq!(
            order("connect", json!({})).may_leave(&now(State::Offline)),
            Ok(false)
        );
    }

    #[test]
    fn what_is_already_so_is_not_sent() {
        assert_eq!(
            order("pause", json!({})).may_leave(&now(State::Paused)),
            Ok(true)
        );
        assert_eq!(
            order("resume", json!({})).may_leave(&now(State::Printing)),
            Ok(true)
        );
        assert_eq!(
            order("stop", json!({})).may_leave(&now(State::Idle)),
            Ok(true)
        );
        assert!(order("pause", json!({}))
            .may_leave(&now(State::Idle))
            .is_err());
    }

    #[test]
    fn only_the_machine_confirms() {
        let start = order("start", json!({}));
        assert_eq!(start.shown(&now(State::Idle)), Shown::NotYet);
        let mut other = now(State::Printing);
        other.file = Some("theirs.gcode".into());
        assert!(matches!(start.shown(&other), Shown::Never(_)));
        other.file = Some("odin_1.gcode".into());
        assert_eq!(start.shown(&other), Shown::Yes);
        let mut short = now(State::Idle);
        short.file = Some("odin_1.gcode".into());
        assert_eq!(
            start.shown(&short),
            Shown::NotYet,
            "selected is not printed"
        );
        short.outcome = Some(Outcome::Completed);
        assert_eq!(start.shown(&short), Shown::Yes);
        let heat = order("set_temperature", json!({"heater": "bed", "target": 60}));
        let mut warm = now(State::Idle);
        assert_eq!(heat.shown(&warm), Shown::NotYet);
        warm.bed_target_c = Some(60.0);
        assert_eq!(heat.shown(&warm), Shown::Yes);
        assert_eq!(
            order("stop", json!({})).shown(&now(State::Printing)),
            Shown::NotYet
        );
        assert_eq!(
            order("upload", json!({"path": "x"})).shown(&now(State::Printing)),
            Shown::Yes
        );
    }
}
