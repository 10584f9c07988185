//! Reads a file as a worker does, and says how fast and with how much memory. For tests/bench/meta.sh.
//!   read KIND FILE

use std::time::Instant;

use odin_meta::{inspect, Inspected, Limits};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, path] = &arguments[..] else {
        return Err("read KIND FILE".into());
    };
    let mut file = std::fs::File::open(path)?;
    let megabytes = file.metadata()?.len() as f64 / 1e6;
    let started = Instant::now();
    let read = inspect(kind, &mut file, &Limits::default())?;
    let seconds = started.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap_or_default();
    let layers = match read {
        Inspected::Sliced(facts) => facts.layers,
        Inspected::Model(..) => None,
    };
    println!(
        "{megabytes:.0} MB in {seconds:.2} s: {:.0} MB/s, peak memory {} (layers: {layers:?})",
        megabytes / seconds,
        peak.trim_start_matches("VmHWM:").trim()
    );
    Ok(())
}
