//! What a Bambu Lab printer says, in the farm's words.

use serde_json::{Map, Value};

use super::link::{number, Document};
use crate::printers::driver::{Outcome, Report, SlotReport, State};

const RUN_OUT: i64 = 6;
/// Slots of one AMS.
const TRAYS: i64 = 4;
pub const EXTERNAL: i64 = 254;
/// Of machines with two nozzles.
pub const EXTERNAL_TOO: i64 = 255;

pub fn report(document: &Document) -> Report {
    let print = &document.print;
    let text = |name: &str| print.get(name).and_then(Value::as_str).unwrap_or_default();
    let real = |name: &str| real(print.get(name));
    let words = text("gcode_state");
    let mut report = Report {
        raw: Some(words.to_owned()),
        file: file(text("subtask_name"), text("gcode_file")),
        progress_pct: real("mc_percent"),
        remaining_seconds: number(print.get("mc_remaining_time")).map(|minutes| minutes * 60),
        layer: number(print.get("layer_num")),
        total_layers: number(print.get("total_layer_num")).filter(|n| *n > 0),
        tool_c: real("nozzle_temper"),
        tool_target_c: real("nozzle_target_temper"),
        bed_c: real("bed_temper"),
        bed_target_c: real("bed_target_temper"),
        chamber_c: real("chamber_temper"),
        // In steps of a fifteenth.
        fan_pct: real("cooling_fan_speed").map(|s| (s / 15.0 * 100.0).round()),
        speed_pct: real("spd_mag"),
        lights_on: light(print),
        slots: slots(print),
        ..Report::default()
    };
    (report.state, report.outcome) = match words {
        "IDLE" => (State::Idle, None),
        "INIT" | "PREPARE" | "SLICING" => (State::Preparing, None),
        "RUNNING" => (State::Printing, None),
        "PAUSE" => (State::Paused, None),
        "FINISH" => (State::Idle, Some(Outcome::Completed)),
        "FAILED" if document.cancelled => (State::Idle, Some(Outcome::Cancelled)),
        "FAILED" => (State::Idle, Some(Outcome::Failed)),
        "OFFLINE" => (State::Offline, None),
        _ => (State::Unknown, None),
    };
    report.stage = number(print.get("stg_cur")).and_then(stage);
    if document.needs_signature() && report.stage.is_none() {
        report.stage = Some("monitor only: enable Developer Mode".to_owned());
    }
    if let Some((code, message)) = trouble(print, report.state, report.outcome) {
        report.error_code = Some(code);
        report.error_message = Some(message);
    }
    report
}

fn real(value: Option<&Value>) -> Option<f64> {
    let value = value?;
    value
        .as_f64()
        .or_else(|| value.as_str()?.trim().parse().ok())
}

/// The name a print was started under. Some firmwares drop the ending in one place and keep it in the other.
fn file(task: &str, path: &str) -> Option<String> {
    let name = path.rsplit('/').next().unwrap_or_default();
    let chosen = match (task, name) {
        ("", name) => name,
        (task, name) if name.starts_with(task) => name,
        (task, _) => task,
    };
    (!chosen.is_empty()).then(|| chosen.to_owned())
}

fn light(print: &Map<String, Value>) -> Option<bool> {
    let lights = print.get("lights_report")?.as_array()?;
    let chamber = lights.iter().find(|l| l["node"] == "chamber_light")?;
    Some(chamber["mode"] == "on")
}

fn stage(number: i64) -> Option<String> {
    let words = match number {
        1 => "levelling the bed",
        2 => "heating the bed",
        4 => "changing filament",
        RUN_OUT => "filament ran out",
        7 => "heating the nozzle",
        8 => "calibrating the extrusion",
        13 => "homing",
        14 => "cleaning the nozzle",
        16 => "paused by somebody",
        17 => "the front cover fell off",
        20 => "the nozzle's temperature is at fault",
        21 => "the bed's temperature is at fault",
        22 => "unloading filament",
        24 => "loading filament",
        35 => "the nozzle is clogged",
        // -1 and 255: nothing special.
        _ => return None,
    };
    Some(words.to_owned())
}

/// Slots count from 1: the first of the first AMS. 254 is the external spool.
fn slots(print: &Map<String, Value>) -> Vec<SlotReport> {
    let seen = |slot: i64, tray: &Value| {
        let word = |name: &str| {
            tray[name]
                .as_str()
                .filter(|t| !t.is_empty())
                .map(str::to_owned)
        };
        SlotReport {
            slot,
            material: word("tray_type"),
            color: word("tray_color").map(|c| c.chars().take(6).collect()),
        }
    };
    let mut slots = Vec::new();
    let units = print.get("ams").and_then(|a| a["ams"].as_array());
    for unit in units.into_iter().flatten() {
        let Some(ams) = number(unit.get("id")) else {
            continue;
        };
        for tray in unit["tray"].as_array().into_iter().flatten() {
            if let Some(id) = number(tray.get("id")) {
                slots.push(seen(ams * TRAYS + id + 1, tray));
            }
        }
    }
    if let Some(tray) = print.get("vt_tray").filter(|t| t.is_object()) {
        slots.push(seen(EXTERNAL, tray));
    }
    slots
}

/// Its own code and words for what is wrong, when something is.
fn trouble(
    print: &Map<String, Value>,
    state: State,
    outcome: Option<Outcome>,
) -> Option<(String, String)> {
    let health = print.get("hms").and_then(Value::as_array);
    let worst = health
        .into_iter()
        .flatten()
        .filter_map(|h| Some((number(h.get("attr"))?, number(h.get("code"))?)))
        // Fatal and serious; the rest is information.
        .filter(|(_, code)| (1..=2).contains(&(code >> 16)))
        .min_by_key(|(_, code)| code >> 16);
    if let Some((attr, code)) = worst {
        let (attr, code) = (attr as u32, code as u32);
        let name = format!(
            "HMS_{:04X}_{:04X}_{:04X}_{:04X}",
            attr >> 16,
            attr & 0xFFFF,
            code >> 16,
            code & 0xFFFF
        );
        let part = match attr >> 24 {
            0x03 => "motion",
            0x05 => "mainboard",
            0x07 => "AMS",
            0x08 => "toolhead",
            0x0C => "camera",
            _ => "printer",
        };
        let message = format!("the {part} reports {name}; look it up at wiki.bambulab.com");
        return Some((name, message));
    }
    let error = number(print.get("print_error")).filter(|e| *e != 0)?;
    if outcome == Some(Outcome::Cancelled) || (state == State::Printing) {
        return None;
    }
    let error = error as u32;
    let name = format!("{:04X}_{:04X}", error >> 16, error & 0xFFFF);
    let message = format!("the printer reports error {name}");
    Some((name, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seen(print: Value) -> Report {
        let document = Document {
            print: print.as_object().cloned().unwrap(),
            ..Document::default()
        };
        report(&document)
    }

    #[test]
    fn states() {
        let running = seen(
            json!({"gcode_state": "RUNNING", "subtask_name": "odin_1_a.gcode.3mf", "gcode_file": "/data/Metadata/plate_1.gcode", "mc_percent": "40",
            "mc_remaining_time": 3, "spd_mag": 100, "cooling_fan_speed": "15", "stg_cur": -1, "lights_report": [{"node": "chamber_light", "mode": "on"}]}),
        );
        assert_eq!(
            (
                running.state,
                running.file.as_deref(),
                running.progress_pct,
                running.remaining_seconds
            ),
            (
                State::Printing,
                Some("odin_1_a.gcode.3mf"),
                Some(40.0),
                Some(180)
            )
        );
        assert_eq!(
            (running.fan_pct, running.lights_on, running.stage),
            (Some(100.0), Some(true), None)
        );
        assert_eq!(
            seen(json!({"gcode_state": "FINISH"})).outcome,
            Some(Outcome::Completed)
        );
        assert_eq!(
            seen(json!({"gcode_state": "PREPARE"})).state,
            State::Preparing
        );
        let failed = seen(json!({"gcode_state": "FAILED", "print_error": 117473286}));
        assert_eq!(
            (failed.outcome, failed.error_code.as_deref()),
            (Some(Outcome::Failed), Some("0700_8006"))
        );
        assert_eq!(seen(json!({})).state, State::Unknown);
    }

    #[test]
    fn run_out() {
        let out = seen(
            json!({"gcode_state": "PAUSE", "stg_cur": 6, "hms": [{"attr": 117448704, "code": 131089}, {"attr": 83886080, "code": 196609}]}),
        );
        assert_eq!(out.stage.as_deref(), Some("filament ran out"));
        assert_eq!(out.error_code.as_deref(), Some("HMS_0700_2000_0002_0011"));
        assert!(out.error_message.unwrap().contains("AMS"));
    }

    #[test]
    fn names_and_slots() {
        assert_eq!(
            file("odin_1_a", "odin_1_a.gcode.3mf").as_deref(),
            Some("odin_1_a.gcode.3mf")
        );
        assert_eq!(file("", "/sdcard/x.gcode").as_deref(), Some("x.gcode"));
        assert_eq!(file("", ""), None);
        let report = seen(
            json!({"ams": {"ams": [{"id": "1", "tray": [{"id": "0", "tray_type": "PLA", "tray_color": "FF0000FF"}, {"id": "1"}]}]}, "vt_tray": {"id": "254", "tray_type": "PETG", "tray_color": "000000FF"}}),
        );
        let said: Vec<_> = report
            .slots
            .iter()
            .map(|s| (s.slot, s.material.as_deref(), s.color.as_deref()))
            .collect();
        assert_eq!(
            said,
            [
                (5, Some("PLA"), Some("FF0000")),
                (6, None, None),
                (254, Some("PETG"), Some("000000"))
            ]
        );
    }
}
