//! Slicers on this sidecar's machine: which there are, what they know, and how each is started. They run as child
//! processes in a folder of their own, with an environment of their own.

pub mod cura;
mod formula;
pub mod ini;
pub mod presets;
pub mod process;

use std::path::{Path, PathBuf};

use serde_json::{json, Value};

use crate::config::SlicerOptions;
use cura::Cura;
use presets::Orca;

pub struct Slicers {
    pub cura: Result<Cura, String>,
    pub prusa: Result<PathBuf, String>,
    pub orca: Result<Orca, String>,
    /// Folders of running slices are made in here.
    pub scratch: PathBuf,
}

impl Slicers {
    pub fn find(options: &SlicerOptions) -> Slicers {
        Slicers {
            cura: find_cura(options),
            prusa: find_program(options.prusa_slicer.as_deref(), &["prusa-slicer", "PrusaSlicer"])
                .ok_or_else(|| "PrusaSlicer is not installed: run scripts/packages-slicers --prusa, or set ODIN_PRUSA_SLICER".to_owned()),
            orca: find_orca(options),
            scratch: swept(std::env::temp_dir()),
        }
    }

    /// What is here, as the database keeps it for checks and lists. Hundreds of files are read for it: not on the
    /// runtime's threads. Programs are started from those all the same, because a slicer dies with the thread that forked it.
    pub async fn describe(&self) -> Value {
        let mut all = Vec::new();
        if let Ok(cura) = &self.cura {
            let version = process::version(&cura.engine, &["help"]).await;
            let cura = cura.clone();
            let (settings, printers) = beside(move || (cura.settings(), cura.printers())).await;
            all.push(json!({"slicer": "cura", "version": version, "settings": settings, "presets": {"machine": printers}}));
        }
        if let Ok(prusa) = &self.prusa {
            let version = process::version(prusa, &["--help"]).await;
            all.push(json!({"slicer": "prusa", "version": version, "settings": ini::settings(prusa).await, "presets": {}}));
        }
        if let Ok(orca) = &self.orca {
            let orca = orca.clone();
            let presets = beside(move || orca.presets()).await;
            all.push(
                json!({"slicer": "orca", "version": null, "settings": {}, "presets": presets}),
            );
        }
        Value::Array(all)
    }
}

/// On a thread that may block; nothing at all if it gave up.
async fn beside<T: Default + Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

/// Without the folders of workers that were killed: no slice takes an hour.
fn swept(scratch: PathBuf) -> PathBuf {
    let entries = std::fs::read_dir(&scratch).into_iter().flatten().flatten();
    for entry in entries.filter(|e| e.file_name().to_string_lossy().starts_with("odin-slice-")) {
        let age = entry
            .metadata()
            .and_then(|m| m.modified())
            .map(|at| at.elapsed().unwrap_or_default());
        if age.is_ok_and(|age| age.as_secs() > 3600) {
            // Another worker may be faster, or its owner another user.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    scratch
}

fn find_program(named: Option<&Path>, usual: &[&str]) -> Option<PathBuf> {
    if let Some(named) = named {
        return named.is_file().then(|| named.to_owned());
    }
    let path = std::env::var_os("PATH")?;
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    usual
        .iter()
        .flat_map(|name| folders.iter().map(move |folder| folder.join(name)))
        .find(|file| file.is_file())
}

fn find_cura(options: &SlicerOptions) -> Result<Cura, String> {
    let hint = "run scripts/packages-slicers, or set ODIN_CURA_ENGINE and ODIN_CURA_RESOURCES";
    let engine = find_program(options.cura_engine.as_deref(), &["CuraEngine"])
        .ok_or(format!("CuraEngine is not installed: {hint}"))?;
    let usual = ["/usr/share/cura/resources", "/usr/share/odin-farm/cura"];
    let folders = options
        .cura_resources
        .iter()
        .cloned()
        .chain(usual.map(PathBuf::from));
    let resources = folders
        .into_iter()
        .find(|folder| {
            folder.join("definitions/fdmprinter.def.json").is_file()
                && folder.join("extruders").is_dir()
        })
        .ok_or(format!(
            "CuraEngine is here, but not its printer definitions: {hint}"
        ))?;
    Ok(Cura { engine, resources })
}

fn find_orca(options: &SlicerOptions) -> Result<Orca, String> {
    let hint = "install OrcaSlicer (github.com/OrcaSlicer/OrcaSlicer, AppImage or Flatpak) on the machine of a worker and set ODIN_ORCA_COMMAND and ODIN_ORCA_PROFILES (its resources/profiles folder)";
    let command = find_program(
        options.orca_command.as_deref(),
        &["orca-slicer", "OrcaSlicer"],
    )
    .ok_or(format!("OrcaSlicer is not installed: {hint}"))?;
    let beside = command
        .parent()
        .map(|folder| folder.join("resources/profiles"));
    let usual = [
        PathBuf::from("/usr/share/OrcaSlicer/profiles"),
        PathBuf::from("/opt/orca-slicer/resources/profiles"),
    ];
    let profiles = options
        .orca_profiles
        .iter()
        .cloned()
        .chain(beside)
        .chain(usual)
        .find(|folder| folder.is_dir())
        .ok_or(format!("OrcaSlicer is here, but not its profiles: {hint}"))?;
    Ok(Orca { command, profiles })
}
