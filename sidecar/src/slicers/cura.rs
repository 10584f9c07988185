//! CuraEngine with the printer definitions of the `cura` package. The engine takes no formulas and believes every name,
//! so settings are worked out, checked and placed here.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use serde_json::{json, Map, Value as Json};

use super::formula::{evaluate, Names, Value};

#[derive(Clone)]
pub struct Cura {
    pub engine: PathBuf,
    pub resources: PathBuf,
}

/// One setting of a definition, with everything inherited.
#[derive(Clone, Debug, Default)]
struct Setting {
    kind: String,
    default: Json,
    formula: Option<String>,
    least: Option<Json>,
    most: Option<Json>,
    options: Vec<String>,
}

pub struct Definition {
    pub name: String,
    settings: HashMap<String, Setting>,
}

/// All settings with their final values.
pub struct Resolved {
    values: BTreeMap<String, Value>,
    /// Names whose value is not what the engine would find by itself.
    changed: Vec<String>,
}

const MOST_PARENTS: usize = 12;
const LARGEST_DEFINITION: u64 = 4 * 1024 * 1024;

impl Cura {
    pub fn search_path(&self) -> String {
        let folder = |name: &str| self.resources.join(name).display().to_string();
        format!("{}:{}", folder("definitions"), folder("extruders"))
    }

    pub fn definition_file(&self, id: &str) -> PathBuf {
        self.resources
            .join("definitions")
            .join(format!("{id}.def.json"))
    }

    /// Printers that can be named: id, name, bed and nozzle.
    pub fn printers(&self) -> Vec<Json> {
        let Ok(folder) = std::fs::read_dir(self.resources.join("definitions")) else {
            return Vec::new();
        };
        let mut ids: Vec<String> = folder
            .filter_map(|entry| {
                entry
                    .ok()?
                    .file_name()
                    .to_str()?
                    .strip_suffix(".def.json")
                    .map(str::to_owned)
            })
            .collect();
        ids.sort_unstable();
        ids.iter().filter_map(|id| self.printer(id)).collect()
    }

    fn printer(&self, id: &str) -> Option<Json> {
        let file = read_json(&self.definition_file(id)).ok()?;
        if file["metadata"]["visible"] != true && id != "fdmprinter" {
            return None;
        }
        let definition = self.definition(id).ok()?;
        let resolved = definition.resolve(&Map::new()).ok()?;
        let number = |name: &str| resolved.number(name);
        Some(json!({
            "name": id, "label": definition.name, "file": format!("{id}.def.json"),
            "data": {"bed_x_mm": number("machine_width"), "bed_y_mm": number("machine_depth"), "bed_z_mm": number("machine_height"),
                     "nozzle_mm": number("machine_nozzle_size"), "filament_mm": number("material_diameter")},
        }))
    }

    /// Names, kinds and limits of the settings every printer knows.
    pub fn settings(&self) -> Map<String, Json> {
        let Ok(definition) = self.definition("fdmprinter") else {
            return Map::new();
        };
        let mut list: Vec<_> = definition.settings.into_iter().collect();
        list.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        list.into_iter()
            .map(|(name, setting)| {
                let limit = |value: &Option<Json>| {
                    value
                        .as_ref()
                        .and_then(|v| v.as_f64().or_else(|| v.as_str()?.parse().ok()))
                };
                let mut about = json!({"type": setting.kind});
                if let Some(least) = limit(&setting.least) {
                    about["minimum"] = json!(least);
                }
                if let Some(most) = limit(&setting.most) {
                    about["maximum"] = json!(most);
                }
                if !setting.options.is_empty() {
                    about["enum"] = json!(setting.options);
                }
                (name, about)
            })
            .collect()
    }

    /// A definition with all its parents and its first extruder.
    pub fn definition(&self, id: &str) -> Result<Definition, String> {
        if !is_id(id) {
            return Err(format!("{id} is no id of a printer definition"));
        }
        let mut chain = Vec::new();
        let mut next = Some(id.to_owned());
        let mut extruder = None;
        while let Some(id) = next.filter(|id| is_id(id)) {
            if chain.len() > MOST_PARENTS {
                return Err("the definition inherits without end".to_owned());
            }
            let file = read_json(&self.definition_file(&id))?;
            extruder = extruder.or_else(|| {
                file["metadata"]["machine_extruder_trains"]["0"]
                    .as_str()
                    .map(str::to_owned)
            });
            next = file["inherits"].as_str().map(str::to_owned);
            chain.push(file);
        }
        let name = chain
            .first()
            .and_then(|file| file["name"].as_str())
            .unwrap_or(id)
            .to_owned();
        let mut settings = HashMap::new();
        for file in chain.iter().rev() {
            read_settings(file, &mut settings);
        }
        // The extruder's own values win, as they do in the engine.
        if let Some(extruder) = extruder.filter(|id| is_id(id)) {
            let mut chain = Vec::new();
            let mut next = Some(extruder);
            while let Some(id) = next.filter(|id| is_id(id)) {
                if chain.len() > MOST_PARENTS {
                    return Err("the extruder inherits without end".to_owned());
                }
                let file = read_json(
                    &self
                        .resources
                        .join("extruders")
                        .join(format!("{id}.def.json")),
                )
                .or_else(|_| read_json(&self.definition_file(&id)))?;
                next = file["inherits"].as_str().map(str::to_owned);
                chain.push(file);
            }
            for file in chain.iter().rev() {
                read_settings(file, &mut settings);
            }
        }
        Ok(Definition { name, settings })
    }
}

pub fn is_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn read_json(path: &Path) -> Result<Json, String> {
    let missing = || {
        format!(
            "there is no printer definition {}",
            path.file_name().unwrap_or_default().to_string_lossy()
        )
    };
    let size = std::fs::metadata(path).map_err(|_| missing())?.len();
    if size > LARGEST_DEFINITION {
        return Err("the printer definition is too large".to_owned());
    }
    let text = std::fs::read(path).map_err(|_| missing())?;
    serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))
}

fn read_settings(file: &Json, out: &mut HashMap<String, Setting>) {
    fn walk(group: &Json, out: &mut HashMap<String, Setting>) {
        let Some(group) = group.as_object() else {
            return;
        };
        for (name, about) in group {
            if about["type"].as_str().is_some_and(|t| t != "category") {
                take(about, out.entry(name.clone()).or_default());
            }
            walk(&about["children"], out);
        }
    }
    walk(&file["settings"], out);
    if let Some(overrides) = file["overrides"].as_object() {
        for (name, about) in overrides {
            take(about, out.entry(name.clone()).or_default());
        }
    }
}

fn take(about: &Json, setting: &mut Setting) {
    if let Some(kind) = about["type"].as_str() {
        setting.kind = kind.to_owned();
    }
    if let Some(default) = about.get("default_value") {
        setting.default = default.clone();
        setting.formula = None;
    }
    match about.get("value") {
        Some(Json::String(formula)) => setting.formula = Some(formula.clone()),
        Some(value) => {
            setting.default = value.clone();
            setting.formula = None;
        }
        None => {}
    }
    for (name, place) in [
        ("minimum_value", &mut setting.least),
        ("maximum_value", &mut setting.most),
    ] {
        if let Some(value) = about.get(name) {
            *place = Some(value.clone());
        }
    }
    if let Some(options) = about["options"].as_object() {
        setting.options = options.keys().cloned().collect();
    }
}

fn plain(value: &Json) -> Value {
    match value {
        Json::Null => Value::None,
        Json::Bool(b) => Value::Bool(*b),
        Json::Number(n) => Value::Number(n.as_f64().unwrap_or(0.0)),
        Json::String(t) => Value::Text(t.clone()),
        Json::Array(list) => Value::List(list.iter().map(plain).collect()),
        Json::Object(_) => Value::None,
    }
}

struct Resolver<'a> {
    settings: &'a HashMap<String, Setting>,
    given: &'a Map<String, Json>,
    done: HashMap<String, Value>,
    open: HashSet<String>,
}

impl Names for Resolver<'_> {
    fn value(&mut self, name: &str) -> Option<Value> {
        if let Some(value) = self.done.get(name) {
            return Some(value.clone());
        }
        if let Some(given) = self.given.get(name) {
            return Some(plain(given));
        }
        let setting = self.settings.get(name)?;
        // A circle, or a formula beyond us: the plain value stands.
        let worked_out = match &setting.formula {
            Some(formula) if self.open.insert(name.to_owned()) => {
                let value = evaluate(formula, self);
                self.open.remove(name);
                value
            }
            _ => None,
        };
        let value = fit(
            &setting.kind,
            worked_out.unwrap_or_else(|| plain(&setting.default)),
        );
        self.done.insert(name.to_owned(), value.clone());
        Some(value)
    }
}

/// As the setting's kind wants it.
fn fit(kind: &str, value: Value) -> Value {
    match (kind, value) {
        ("int", Value::Number(n)) => Value::Number(n.round_ties_even()),
        // No formula needs more, and the engine's text stays short.
        ("float", Value::Number(n)) => Value::Number((n * 1e6).round() / 1e6),
        ("bool", value) => Value::Bool(value.truthy()),
        (_, value) => value,
    }
}

impl Definition {
    /// Every setting, with what was given in place of its own value.
    pub fn resolve(&self, given: &Map<String, Json>) -> Result<Resolved, String> {
        for (name, value) in given {
            let Some(setting) = self.settings.get(name) else {
                return Err(format!("{name} is no setting of Cura"));
            };
            check(name, setting, value)?;
        }
        let mut resolver = Resolver {
            settings: &self.settings,
            given,
            done: HashMap::new(),
            open: HashSet::new(),
        };
        let mut values = BTreeMap::new();
        let mut changed = Vec::new();
        for (name, setting) in &self.settings {
            let value = resolver.value(name).unwrap_or(Value::None);
            let structured = setting.default.is_object()
                || setting.kind == "polygon"
                || setting.kind == "polygons";
            if !structured && (given.contains_key(name) || value != plain(&setting.default)) {
                changed.push(name.clone());
            }
            values.insert(name.clone(), value);
        }
        changed.sort_unstable();
        Ok(Resolved { values, changed })
    }
}

fn check(name: &str, setting: &Setting, value: &Json) -> Result<(), String> {
    let number = plain(value).number();
    let wrong = match setting.kind.as_str() {
        "bool" => (!value.is_boolean()).then(|| "is true or false".to_owned()),
        "int" => number
            .is_none_or(|n| n.fract() != 0.0)
            .then(|| "is a whole number".to_owned()),
        "float" => number
            .is_none_or(|n| !n.is_finite())
            .then(|| "is a number".to_owned()),
        "enum" if !setting.options.is_empty() => {
            let known = value
                .as_str()
                .is_some_and(|v| setting.options.iter().any(|o| o == v));
            (!known).then(|| format!("is one of {}", setting.options.join(", ")))
        }
        "polygon" | "polygons" => Some("cannot be set here".to_owned()),
        _ => value
            .as_str()
            .is_some_and(|t| t.len() > 10_000)
            .then(|| "is too long".to_owned()),
    };
    let limit = |limit: &Option<Json>| {
        limit
            .as_ref()
            .and_then(|l| l.as_f64().or_else(|| l.as_str()?.parse().ok()))
    };
    let outside = match number {
        Some(n) if limit(&setting.least).is_some_and(|least| n < least) => {
            limit(&setting.least).map(|l| format!("is at least {l}"))
        }
        Some(n) if limit(&setting.most).is_some_and(|most| n > most) => {
            limit(&setting.most).map(|l| format!("is at most {l}"))
        }
        _ => None,
    };
    match wrong.or(outside) {
        Some(rule) => Err(format!("{name}: {value} will not do; it {rule}")),
        None => Ok(()),
    }
}

impl Resolved {
    pub fn number(&self, name: &str) -> Option<f64> {
        self.values
            .get(name)
            .and_then(Value::number)
            .filter(|n| n.is_finite())
    }

    /// `name=value` for the engine: what differs from what it would find, and G-code with its places filled in.
    pub fn arguments(&self) -> Vec<String> {
        let mut out: Vec<String> = Vec::new();
        for name in &self.changed {
            if !name.ends_with("_gcode") {
                out.push(format!(
                    "{name}={}",
                    self.values.get(name).map(Value::show).unwrap_or_default()
                ));
            }
        }
        let start = self.text("machine_start_gcode");
        for name in ["machine_start_gcode", "machine_end_gcode"] {
            out.push(format!("{name}={}", self.filled(&self.text(name))));
        }
        // The engine heats up first, unless the start code does it.
        out.push(format!(
            "material_bed_temp_prepend={}",
            !start.contains("{material_bed_temperature")
        ));
        out.push(format!(
            "material_print_temp_prepend={}",
            !start.contains("{material_print_temperature")
        ));
        // The model lies anywhere in its file; it is put in the middle of the bed.
        out.push("center_object=true".to_owned());
        out
    }

    fn text(&self, name: &str) -> String {
        self.values.get(name).map(Value::show).unwrap_or_default()
    }

    /// {name} and {name, 0} become values; anything else in braces stays.
    fn filled(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            out.push_str(&rest[..open]);
            let inner = rest[open + 1..]
                .find('}')
                .map(|end| &rest[open + 1..open + 1 + end]);
            let value = inner.and_then(|inner| {
                self.values
                    .get(inner.split(',').next().unwrap_or_default().trim())
            });
            match (inner, value) {
                (Some(inner), Some(value)) => {
                    out.push_str(&value.show());
                    rest = &rest[open + 2 + inner.len()..];
                }
                _ => {
                    out.push('{');
                    rest = &rest[open + 1..];
                }
            }
        }
        out + rest
    }
}
