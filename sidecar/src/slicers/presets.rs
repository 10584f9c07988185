//! OrcaSlicer: presets of its profile folder by tier and name, flattened with what they inherit, and its command line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{json, Map, Value};

#[derive(Clone)]
pub struct Orca {
    pub command: PathBuf,
    pub profiles: PathBuf,
}

pub const TIERS: [&str; 3] = ["machine", "process", "filament"];
const MOST_PRESETS: usize = 20_000;
const MOST_PARENTS: usize = 12;
const LARGEST_PRESET: u64 = 1024 * 1024;

/// A preset file: its name and where it is, below the profile folder.
type Found = BTreeMap<String, PathBuf>;

impl Orca {
    /// Names of a tier, over all vendors and the shared filament library.
    fn files(&self, tier: &str) -> Found {
        let mut found = Found::new();
        let vendors = std::fs::read_dir(&self.profiles)
            .into_iter()
            .flatten()
            .flatten();
        for vendor in vendors {
            walk(&vendor.path().join(tier), 0, &mut found);
        }
        found
    }

    /// For the database: what can be chosen. Bases that only others inherit from are left out.
    pub fn presets(&self) -> Value {
        let mut all = Map::new();
        for tier in TIERS {
            let list: Vec<Value> = self
                .files(tier)
                .into_iter()
                .filter(|(_, path)| {
                    read(path).is_ok_and(|preset| preset["instantiation"].as_str() != Some("false"))
                })
                .map(|(name, path)| {
                    let file = path
                        .strip_prefix(&self.profiles)
                        .unwrap_or(&path)
                        .display()
                        .to_string();
                    json!({"name": name, "label": name, "file": file, "data": {}})
                })
                .collect();
            all.insert(tier.to_owned(), Value::Array(list));
        }
        Value::Object(all)
    }

    /// One preset with everything it inherits, and with overrides that belong to it.
    pub fn flat(&self, tier: &str, name: &str) -> Result<Map<String, Value>, String> {
        let files = self.files(tier);
        let mut chain = Vec::new();
        let mut next = Some(name.to_owned());
        while let Some(name) = next {
            let path = files
                .get(&name)
                .ok_or_else(|| format!("there is no {tier} preset {name}"))?;
            let preset = read(path)?;
            next = preset["inherits"]
                .as_str()
                .filter(|n| !n.is_empty())
                .map(str::to_owned);
            chain.push(preset);
            if chain.len() > MOST_PARENTS {
                return Err(format!("the {tier} preset {name} inherits without end"));
            }
        }
        let mut flat = Map::new();
        for preset in chain.into_iter().rev() {
            if let Value::Object(fields) = preset {
                flat.extend(fields);
            }
        }
        flat.remove("inherits");
        for name in super::ini::FORBIDDEN {
            flat.remove(*name);
        }
        flat.insert("name".into(), name.into());
        flat.insert("from".into(), "system".into());
        Ok(flat)
    }
}

fn walk(folder: &Path, depth: usize, found: &mut Found) {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    for entry in entries {
        let path = entry.path();
        if path.is_dir() && depth < 3 {
            walk(&path, depth + 1, found);
        } else if path.extension().is_some_and(|e| e == "json") && found.len() < MOST_PRESETS {
            if let Some(name) = path.file_stem().and_then(|n| n.to_str()) {
                found.insert(name.to_owned(), path.clone());
            }
        }
    }
}

fn read(path: &Path) -> Result<Value, String> {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    if std::fs::metadata(path)
        .map_err(|e| format!("{name}: {e}"))?
        .len()
        > LARGEST_PRESET
    {
        return Err(format!("{name}: the preset is too large"));
    }
    let text = std::fs::read(path).map_err(|e| format!("{name}: {e}"))?;
    serde_json::from_slice(&text).map_err(|e| format!("{name}: {e}"))
}

/// Puts each override where its name is at home: into the tier that has it. What no tier has is an error.
pub fn place(
    overrides: &Map<String, Value>,
    tiers: &mut [(&'static str, Map<String, Value>)],
) -> Result<Map<String, Value>, String> {
    let mut placed = Map::new();
    for (name, value) in overrides {
        let home = tiers
            .iter_mut()
            .find(|(_, settings)| settings.contains_key(name));
        let Some((tier, settings)) = home else {
            let tiers: Vec<&str> = tiers.iter().map(|(tier, _)| *tier).collect();
            return Err(format!(
                "overrides: none of the chosen presets ({}) has a setting {name}",
                tiers.join(", ")
            ));
        };
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Bool(yes) => u8::from(*yes).to_string(),
            other => other.to_string(),
        };
        // Orca keeps numbers as text, and what there is one of per extruder as a list.
        let new = match settings.get(name) {
            Some(Value::Array(list)) => Value::Array(vec![Value::String(text); list.len().max(1)]),
            _ => Value::String(text),
        };
        settings.insert(name.clone(), new);
        placed.insert(name.clone(), (*tier).into());
    }
    Ok(placed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_go_home() {
        let tier = |fields: Value| fields.as_object().cloned().unwrap();
        let mut tiers = [
            (
                "process",
                tier(json!({"layer_height": "0.2", "wall_loops": "2"})),
            ),
            (
                "filament",
                tier(json!({"nozzle_temperature": ["210", "210"]})),
            ),
            ("machine", tier(json!({"nozzle_diameter": ["0.4"]}))),
        ];
        let placed = place(
            &tier(json!({"layer_height": 0.3, "nozzle_temperature": 220})),
            &mut tiers,
        )
        .unwrap();
        assert_eq!(placed["layer_height"], "process");
        assert_eq!(placed["nozzle_temperature"], "filament");
        assert_eq!(tiers[0].1["layer_height"], "0.3");
        assert_eq!(tiers[1].1["nozzle_temperature"], json!(["220", "220"]));
        assert!(place(&tier(json!({"layer_hight": 1})), &mut tiers)
            .unwrap_err()
            .contains("layer_hight"));
    }
}
