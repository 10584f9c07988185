//! The answer of the readers: numbers that are finite and sane, or absent.

use serde::Serialize;

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Facts {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slicer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slicer_version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub print_seconds: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grams: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filament_mm: Option<f64>,
    /// One entry per tool of the file that is used or described.
    pub tools: Vec<ToolFacts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_height_mm: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_layer_height_mm: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nozzle_mm: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layers: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub printer_model: Option<String>,
    /// Where the layers lie: [x, y, z] smallest and largest, in mm.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_mm: Option<[f64; 3]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_mm: Option<[f64; 3]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tool_c: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_bed_c: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub supports: Option<bool>,
    /// Plates of a sliced 3MF; the figures are of the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plates: Option<u32>,
    /// Which of them the figures are of, and which is printed: the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plate: Option<u32>,
    /// Figures that were counted from the moves because the slicer wrote none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub counted: Vec<&'static str>,
    #[serde(skip)]
    pub picture: Option<Picture>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ToolFacts {
    pub tool: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grams: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mm: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub material: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
}

#[derive(Clone, PartialEq)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    /// "png" or "jpg"
    pub format: &'static str,
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for Picture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (w, h) = (self.width, self.height);
        write!(f, "{w}x{h} {} of {} bytes", self.format, self.bytes.len())
    }
}

pub(crate) const MOST_TOOLS: usize = 64;

impl Facts {
    pub(crate) fn tool(&mut self, tool: usize) -> Option<&mut ToolFacts> {
        if tool >= MOST_TOOLS {
            return None;
        }
        let tool = tool as u32;
        let at = match self.tools.binary_search_by_key(&tool, |t| t.tool) {
            Ok(at) => at,
            Err(at) => {
                self.tools.insert(
                    at,
                    ToolFacts {
                        tool,
                        ..ToolFacts::default()
                    },
                );
                at
            }
        };
        self.tools.get_mut(at)
    }

    /// Sums and leftovers, once everything is read.
    pub(crate) fn settle(&mut self) {
        // A slicer describes every slot it knows; only what the print uses matters.
        let used = |t: &ToolFacts| t.grams.unwrap_or(0.0) > 0.0 || t.mm.unwrap_or(0.0) > 0.0;
        if self.tools.iter().any(used) {
            self.tools.retain(used);
        } else {
            self.tools.truncate(1);
        }
        let sum = |values: Vec<f64>| {
            let total: f64 = values.iter().sum();
            (!values.is_empty()).then(|| round(total, 3))
        };
        if self.grams.is_none() {
            self.grams = sum(self.tools.iter().filter_map(|t| t.grams).collect());
        }
        if self.filament_mm.is_none() {
            self.filament_mm = sum(self.tools.iter().filter_map(|t| t.mm).collect());
        }
    }
}

pub(crate) fn round(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}

/// A number within what a print can be; anything else is no number.
pub(crate) fn sane(value: f64, most: f64) -> Option<f64> {
    (value.is_finite() && (0.0..=most).contains(&value)).then_some(value)
}

/// Words of a file that people will read: short, and without control characters.
pub(crate) fn words(text: &str, most: usize) -> Option<String> {
    let clean: String = text
        .trim()
        .trim_matches('"')
        .chars()
        .filter(|c| !c.is_control())
        .take(most)
        .collect();
    (!clean.is_empty()).then_some(clean)
}

/// #RRGGBB in capitals, from what slicers write.
pub(crate) fn color(text: &str) -> Option<String> {
    let hex = text.trim().trim_matches('"').strip_prefix('#')?;
    let ok = matches!(hex.len(), 6 | 8) && hex.bytes().all(|b| b.is_ascii_hexdigit());
    ok.then(|| format!("#{}", hex[..6].to_ascii_uppercase()))
}
