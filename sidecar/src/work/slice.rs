//! A slice: the model on a scratch disk, a slicer over it, its G-code read, checked against the printer and stored.
//! Whatever happens, the slicer's processes and the scratch folder are gone afterwards.

use std::path::{Path, PathBuf};
use std::time::Duration;

use odin_meta::{read_gcode, Facts, Limits};
use serde_json::{json, Map, Value};

use super::claims::Job;
use super::jobs::{refusal, Live, Trouble};
use super::shop::Shop;
use crate::files::{Files, Written, CHUNK};
use crate::slicers::process::{run, Ended, NoEnd, Run};
use crate::slicers::{ini, presets};

/// As long as PrintMCP gave a slicer.
const LIMIT: Duration = Duration::from_secs(900);
/// A line's middle may lie on the very edge.
const SLACK_MM: f64 = 0.5;

/// A folder of its own for one slice, readable by nobody else, removed when it goes out of scope.
struct Scratch(PathBuf);

impl Scratch {
    fn new(within: &Path) -> std::io::Result<Scratch> {
        use std::os::unix::fs::DirBuilderExt;
        let folder = within.join(format!("odin-slice-{}", crate::random_id()));
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        Ok(Scratch(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(e) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(folder = %self.0.display(), error = %e, "a scratch folder could not be removed");
        }
    }
}

/// What a slicer made.
struct Sliced {
    gcode: PathBuf,
    /// Header lines that replace those of the file, by their beginning.
    header: Vec<(String, String)>,
    seconds: Option<f64>,
    mm3: Option<f64>,
    filament_mm: f64,
    bed: Option<Bed>,
    placed: Option<Map<String, Value>>,
}

/// Where a printer can lay plastic down.
#[derive(Debug, Clone, Copy)]
struct Bed {
    size: [f64; 3],
    centered: bool,
}

pub async fn carry_out(shop: &Shop, job: &Job, live: &Live) -> Result<Value, Trouble> {
    let file = shop.files.open(job.text("sha256"), job.org).await?;
    let scratch = Scratch::new(&shop.slicers.scratch)
        .map_err(|e| Trouble::Again(format!("no scratch folder: {e}")))?;
    let model = scratch.0.join(format!("model.{}", job.text("kind")));
    live.progress(1.0, "fetching the model");
    shop.files.copy_to(&file, &model).await?;
    live.progress(5.0, "slicing");
    let sliced = match job.text("slicer") {
        "cura" => cura(shop, job, live, &scratch.0, &model).await?,
        "prusa" => prusa(shop, job, live, &scratch.0, &model).await?,
        "orca" => orca(shop, job, live, &scratch.0, &model).await?,
        other => {
            return Err(Trouble::Final(refusal(
                "validation_failed",
                422,
                format!("there is no slicer {other}"),
            )))
        }
    };
    live.progress(95.0, "checking the G-code");
    let path = sliced.gcode.clone();
    let read = tokio::task::spawn_blocking(move || {
        let file = std::fs::File::open(path).map_err(odin_meta::Error::Io)?;
        read_gcode(file, &Limits::default())
    });
    let mut facts = match read.await {
        Ok(Ok(facts)) => facts,
        Ok(Err(e)) => return Err(failed(format!("the slicer's file makes no sense: {e}"))),
        Err(_) => return Err(failed("the slicer's file could not be read")),
    };
    settle(&mut facts, job, &sliced);
    fits(&facts, job, &sliced)?;
    let written = store(&shop.files, job, &sliced).await?;
    Ok(answer(job, &facts, &sliced, &written))
}

fn failed(detail: impl Into<String>) -> Trouble {
    Trouble::Final(refusal("slicing_failed", 422, detail))
}

fn missing(why: &str) -> Trouble {
    Trouble::Final(refusal("slicer_missing", 503, why))
}

/// The slicer's own figures where it gave them, and the material's name and weight.
fn settle(facts: &mut Facts, job: &Job, sliced: &Sliced) {
    facts.print_seconds = sliced.seconds.or(facts.print_seconds);
    let density = job.arguments["density"].as_f64();
    let material = job.arguments["material"].as_str();
    let radius = sliced.filament_mm / 2.0;
    let area = std::f64::consts::PI * radius * radius;
    let one_tool = facts.tools.len() == 1;
    for tool in &mut facts.tools {
        if let (Some(mm3), true) = (sliced.mm3.filter(|v| *v > 0.0), one_tool) {
            tool.mm = Some((mm3 / area * 100.0).round() / 100.0);
        }
        if let (Some(mm), Some(density)) = (tool.mm, density) {
            tool.grams = Some((mm * area / 1000.0 * density * 1000.0).round() / 1000.0);
        }
        tool.material = tool.material.take().or(material.map(str::to_owned));
    }
    if density.is_some() || sliced.mm3.is_some() {
        let sum = |values: Vec<f64>| (values.iter().sum::<f64>() * 1000.0).round() / 1000.0;
        facts.grams = Some(sum(facts.tools.iter().filter_map(|t| t.grams).collect()));
        facts.filament_mm = Some(sum(facts.tools.iter().filter_map(|t| t.mm).collect()));
        facts.counted.clear();
    }
    let nozzle = job.arguments["limits"]["nozzle_mm"].as_f64();
    facts.nozzle_mm = facts.nozzle_mm.or(nozzle);
}

/// No slicer can be trusted to say that a model is too large: the file itself says where it goes and how hot it gets.
fn fits(facts: &Facts, job: &Job, sliced: &Sliced) -> Result<(), Trouble> {
    let limits = &job.arguments["limits"];
    let given: Vec<f64> = ["bed_x_mm", "bed_y_mm", "bed_z_mm"]
        .iter()
        .filter_map(|n| limits[*n].as_f64())
        .collect();
    let named = match given[..] {
        [x, y, z] => Some(Bed {
            size: [x, y, z],
            centered: sliced.bed.is_some_and(|b| b.centered),
        }),
        _ => None,
    };
    let (Some(min), Some(max)) = (facts.min_mm, facts.max_mm) else {
        return Err(failed(
            "nothing is extruded: the model may be too thin for this nozzle, or inside out",
        ));
    };
    for bed in [sliced.bed, named].into_iter().flatten() {
        for (axis, name) in ["x", "y", "z"].iter().enumerate() {
            let low = if bed.centered && axis < 2 {
                -bed.size[axis] / 2.0
            } else {
                0.0
            };
            let high = low + bed.size[axis];
            if min[axis] < low - SLACK_MM || max[axis] > high + SLACK_MM {
                let (from, to) = (min[axis], max[axis]);
                let mut error = refusal(
                    "does_not_fit",
                    422,
                    format!("the print goes from {from} to {to} mm in {name}; the printer reaches from {low} to {high} mm"),
                );
                error["hint"] = "Choose a larger printer, scale the model down, or turn it. Skirt and brim need room too.".into();
                error["extent_mm"] = json!({"min": min, "max": max});
                return Err(Trouble::Final(error));
            }
        }
    }
    let hot = [
        ("max_tool_c", facts.max_tool_c, "nozzle"),
        ("max_bed_c", facts.max_bed_c, "bed"),
    ];
    for (limit, reached, what) in hot {
        if let (Some(most), Some(reached)) = (limits[limit].as_f64(), reached) {
            if reached > most {
                let detail = format!(
                    "the G-code heats the {what} to {reached} C; the printer's limit is {most} C"
                );
                return Err(Trouble::Final(refusal("does_not_fit", 422, detail)));
            }
        }
    }
    Ok(())
}

/// Into the store, with the header put right.
async fn store(files: &Files, job: &Job, sliced: &Sliced) -> Result<Written, Trouble> {
    use tokio::io::AsyncReadExt;
    let io = |e: std::io::Error| Trouble::Again(format!("the slicer's file: {e}"));
    let mut file = tokio::fs::File::open(&sliced.gcode).await.map_err(io)?;
    let mut writer = files.begin(&job.id, job.fence, &job.role).await?;
    let mut buffer = vec![0u8; CHUNK];
    let mut first = true;
    loop {
        let n = file.read(&mut buffer).await.map_err(io)?;
        if n == 0 {
            break;
        }
        if first {
            writer
                .write(&with_header(&buffer[..n], &sliced.header))
                .await?;
            first = false;
        } else {
            writer.write(&buffer[..n]).await?;
        }
    }
    Ok(writer.end().await?)
}

/// The first lines of a file, those that begin like one of `header` replaced by it.
fn with_header(bytes: &[u8], header: &[(String, String)]) -> Vec<u8> {
    const HEAD: usize = 30;
    let mut out = Vec::with_capacity(bytes.len() + 200);
    for (n, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
        let new = header
            .iter()
            .find(|(begin, _)| n < HEAD && line.starts_with(begin.as_bytes()));
        match new {
            Some((_, new)) => {
                out.extend_from_slice(new.as_bytes());
                out.push(b'\n');
            }
            None => out.extend_from_slice(line),
        }
    }
    out
}

fn answer(job: &Job, facts: &Facts, sliced: &Sliced, written: &Written) -> Value {
    let seconds = facts.print_seconds.map(f64::round);
    let mm = facts.filament_mm.unwrap_or(0.0);
    let mut stats = json!({
        "print_time": seconds.map(spoken), "print_time_s": seconds, "filament_m": (mm / 10.0).round() / 100.0, "grams": facts.grams,
        "layers": facts.layers,
    });
    if let Some(mm3) = sliced.mm3 {
        stats["filament_mm3"] = json!(mm3);
    }
    let mut result = job.arguments["result"].clone();
    result["gcode_path"] = job.arguments["output_path"].clone();
    result["stats"] = stats;
    if let (Some(min), Some(max)) = (facts.min_mm, facts.max_mm) {
        result["size_mm"] =
            json!([0, 1, 2].map(|i: usize| ((max[i] - min[i]) * 100.0).round() / 100.0));
    }
    if let Some(placed) = &sliced.placed {
        result["overrides_placed"] = json!(placed);
    }
    json!({
        "status": "complete", "result": result,
        "files": [{
            "as": "gcode", "origin": "slice", "upload": written.upload, "sha256": written.sha256, "path": job.text("output_path"),
            "facts": facts, "made_from": job.text("sha256"), "license": job.arguments["license"], "author": job.arguments["author"], "source_url": job.arguments["source_url"],
        }],
    })
}

/// 5025 -> "1h 23m 45s"
fn spoken(seconds: f64) -> String {
    let s = seconds as u64;
    let parts = [
        (s / 86_400, "d"),
        (s / 3_600 % 24, "h"),
        (s / 60 % 60, "m"),
        (s % 60, "s"),
    ];
    let text: Vec<String> = parts
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, unit)| format!("{n}{unit}"))
        .collect();
    if text.is_empty() {
        "0s".to_owned()
    } else {
        text.join(" ")
    }
}

async fn start(about: Run<'_>, live: &Live, mut heard: impl FnMut(&str)) -> Result<Ended, Trouble> {
    run(&about, &live.cancel, &mut heard)
        .await
        .map_err(|e| match e {
            NoEnd::Cancelled => Trouble::Stopped,
            NoEnd::TimedOut => failed(format!(
                "slicing took longer than {} s and was stopped",
                LIMIT.as_secs()
            )),
            NoEnd::CouldNotStart(e) => {
                Trouble::Again(format!("the slicer could not be started: {e}"))
            }
        })
}

/// The end of a slicer that failed, in its own last words.
fn exited(ended: &Ended) -> Trouble {
    let words: Vec<&str> = ended
        .said
        .iter()
        .map(|l| l.trim())
        .filter(|l| !l.is_empty() && !l.contains("=\""))
        .collect();
    let last = words[words.len().saturating_sub(6)..].join(" | ");
    let last: String = last.chars().take(600).collect();
    match ended.code {
        Some(code) => failed(format!("slicing failed (exit {code}): {last}")),
        None => failed(format!("the slicer was killed or crashed: {last}")),
    }
}

/// Definitions and presets are read and worked out beside the runtime; only a wrong name or value makes that fail.
async fn worked_out<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, Trouble> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|why| Trouble::Final(refusal("validation_failed", 422, why))),
        Err(_) => Err(failed("the settings could not be worked out")),
    }
}

async fn cura(
    shop: &Shop,
    job: &Job,
    live: &Live,
    folder: &Path,
    model: &Path,
) -> Result<Sliced, Trouble> {
    let cura = shop.slicers.cura.as_ref().map_err(|why| missing(why))?;
    let id = job.text("printer");
    let (own, printer) = (cura.clone(), id.to_owned());
    let overrides = job.arguments["overrides"].clone();
    let resolved = worked_out(move || {
        let none = Map::new();
        let overrides = overrides.as_object().unwrap_or(&none);
        own.definition(&printer)?.resolve(overrides)
    })
    .await?;
    let gcode = folder.join("out.gcode");
    let mut arguments: Vec<String> = ["slice", "-v", "-p", "-j"].map(str::to_owned).to_vec();
    arguments.push(cura.definition_file(id).display().to_string());
    let settings = resolved.arguments();
    // For the model and for the extruder: an extruder's own default would win over the model's value.
    for place in [None, Some("-e0")] {
        arguments.extend(place.map(str::to_owned));
        for setting in &settings {
            arguments.extend(["-s".to_owned(), setting.clone()]);
        }
    }
    arguments.extend([
        "-l".to_owned(),
        model.display().to_string(),
        "-o".to_owned(),
        gcode.display().to_string(),
    ]);
    let about = Run {
        program: &cura.engine,
        arguments: &arguments,
        environment: &[("CURA_ENGINE_SEARCH_PATH", cura.search_path())],
        folder,
        limit: LIMIT,
    };
    let mut header = Vec::new();
    let (mut seconds, mut mm3) = (None, None);
    let mut in_header = false;
    let ended = start(about, live, |line| {
        if let Some(rest) = line.strip_prefix("Progress:") {
            let part = rest
                .rsplit(['\t', ' '])
                .next()
                .and_then(|n| n.parse::<f64>().ok());
            if let Some(part) = part.filter(|p| (0.0..=1.0).contains(p)) {
                live.progress(5.0 + part * 90.0, "slicing");
            }
        } else if line.starts_with("Gcode header after slicing") {
            (in_header, header) = (true, Vec::new());
        } else if line.starts_with("End of gcode header") {
            in_header = false;
        } else if in_header && line.starts_with(';') && header.len() < 30 {
            if let Some((begin, _)) = line.split_once(':') {
                header.push((format!("{begin}:"), line.to_owned()));
            }
        } else if let Some(rest) = line.strip_prefix("Print time (s):") {
            seconds = rest.trim().parse().ok();
        } else if let Some(rest) = line.strip_prefix("Filament (mm^3):") {
            mm3 = rest.trim().parse().ok();
        }
    })
    .await?;
    if ended.code != Some(0) || !gcode.is_file() {
        return Err(exited(&ended));
    }
    let size = |name: &str| resolved.number(name).unwrap_or(0.0);
    Ok(Sliced {
        gcode,
        header,
        seconds,
        mm3,
        filament_mm: resolved.number("material_diameter").unwrap_or(1.75),
        bed: Some(Bed {
            size: [
                size("machine_width"),
                size("machine_depth"),
                size("machine_height"),
            ],
            centered: resolved.number("machine_center_is_zero") == Some(1.0),
        }),
        placed: None,
    })
}

async fn prusa(
    shop: &Shop,
    job: &Job,
    live: &Live,
    folder: &Path,
    model: &Path,
) -> Result<Sliced, Trouble> {
    let program = shop.slicers.prusa.as_ref().map_err(|why| missing(why))?;
    let none = Map::new();
    let settings = job.arguments["overrides"].as_object().unwrap_or(&none);
    let (gcode, config) = (folder.join("out.gcode"), folder.join("settings.ini"));
    let io = |e: std::io::Error| Trouble::Again(format!("the scratch folder: {e}"));
    tokio::fs::write(&config, ini::file(settings))
        .await
        .map_err(io)?;
    let path = |p: &Path| p.display().to_string();
    let arguments = [
        "--export-gcode".to_owned(),
        "--load".to_owned(),
        path(&config),
        "-o".to_owned(),
        path(&gcode),
        path(model),
    ];
    let about = Run {
        program,
        arguments: &arguments,
        environment: &[],
        folder,
        limit: LIMIT,
    };
    let ended = start(about, live, |line| {
        // "10 => Processing triangulated mesh"
        if let Some((percent, what)) = line.split_once(" => ") {
            if let Ok(percent) = percent.trim().parse::<f64>() {
                live.progress(5.0 + percent.min(100.0) * 0.9, what);
            }
        }
    })
    .await?;
    if ended
        .said
        .iter()
        .any(|line| line.contains("could not fit on the bed"))
    {
        return Err(Trouble::Final(refusal(
            "does_not_fit",
            422,
            "the model does not fit on the bed of this printer",
        )));
    }
    if ended.code != Some(0) || !gcode.is_file() {
        return Err(exited(&ended));
    }
    let diameter = settings
        .get("filament_diameter")
        .and_then(|v| v.as_f64().or_else(|| v.as_str()?.parse().ok()));
    Ok(Sliced {
        gcode,
        header: Vec::new(),
        seconds: None,
        mm3: None,
        filament_mm: diameter.unwrap_or(1.75),
        bed: None,
        placed: None,
    })
}

async fn orca(
    shop: &Shop,
    job: &Job,
    live: &Live,
    folder: &Path,
    model: &Path,
) -> Result<Sliced, Trouble> {
    let orca = shop.slicers.orca.as_ref().map_err(|why| missing(why))?;
    let (own, names) = (orca.clone(), job.arguments["presets"].clone());
    let overrides = job.arguments["overrides"].clone();
    let (mut tiers, placed) = worked_out(move || {
        let flat = |tier: &str| own.flat(tier, names[tier].as_str().unwrap_or_default());
        // What is at home in several tiers belongs to the process first.
        let mut tiers = [
            ("process", flat("process")?),
            ("filament", flat("filament")?),
            ("machine", flat("machine")?),
        ];
        let none = Map::new();
        let overrides = overrides.as_object().unwrap_or(&none);
        let placed = presets::place(overrides, &mut tiers)?;
        Ok((tiers, placed))
    })
    .await?;
    let mut paths = Map::new();
    for (tier, settings) in &mut tiers {
        settings.insert("type".into(), (*tier).into());
        let path = folder.join(format!("{tier}.json"));
        let text = serde_json::to_vec(settings).unwrap_or_default();
        tokio::fs::write(&path, text)
            .await
            .map_err(|e| Trouble::Again(format!("the scratch folder: {e}")))?;
        paths.insert((*tier).to_owned(), path.display().to_string().into());
    }
    let path = |tier: &str| paths[tier].as_str().unwrap_or_default().to_owned();
    let out = folder.join("out");
    tokio::fs::create_dir(&out)
        .await
        .map_err(|e| Trouble::Again(format!("the scratch folder: {e}")))?;
    let arguments = [
        "--slice".to_owned(),
        "0".to_owned(),
        "--load-settings".to_owned(),
        format!("{};{}", path("machine"), path("process")),
        "--load-filaments".to_owned(),
        path("filament"),
        "--outputdir".to_owned(),
        out.display().to_string(),
        model.display().to_string(),
    ];
    let about = Run {
        program: &orca.command,
        arguments: &arguments,
        environment: &[],
        folder,
        limit: LIMIT,
    };
    let ended = start(about, live, |_| {}).await?;
    let gcode = std::fs::read_dir(&out)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "gcode"))
        .min();
    match gcode {
        Some(gcode) if ended.code == Some(0) => Ok(Sliced {
            gcode,
            header: Vec::new(),
            seconds: None,
            mm3: None,
            filament_mm: 1.75,
            bed: None,
            placed: Some(placed),
        }),
        _ => Err(exited(&ended)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_put_right() {
        let file = b";FLAVOR:Marlin\n;TIME:6666\n;Filament used: 0m\nG28\n;TIME:1\n";
        let header = [
            (";TIME:".to_owned(), ";TIME:139".to_owned()),
            (
                ";Filament used:".to_owned(),
                ";Filament used: 0.13m".to_owned(),
            ),
        ];
        let text = String::from_utf8(with_header(file, &header[..])).unwrap();
        assert_eq!(
            text,
            ";FLAVOR:Marlin\n;TIME:139\n;Filament used: 0.13m\nG28\n;TIME:139\n"
        );
    }

    #[test]
    fn times_are_spoken() {
        assert_eq!(spoken(5025.0), "1h 23m 45s");
        assert_eq!(spoken(0.4), "0s");
        assert_eq!(spoken(90_000.0), "1d 1h");
    }
}
