//! PrusaSlicer: started with an ini file, so that a value can hold anything but a line's end.

use std::path::PathBuf;

use serde_json::{json, Map, Value};
use tokio_util::sync::CancellationToken;

use super::process::{run, Run, FIRST_WORDS};

/// The options it knows, from the configuration it writes itself, so that a misspelt name is an answer and no default.
pub async fn settings(program: &PathBuf) -> Map<String, Value> {
    let folder = std::env::temp_dir();
    let file = folder.join(format!("odin-prusa-{}.ini", crate::random_id()));
    let arguments = ["--save".to_owned(), file.display().to_string()];
    let about = Run {
        program,
        arguments: &arguments,
        environment: &[],
        folder: &folder,
        limit: FIRST_WORDS,
    };
    // Without the list, nothing is checked by name.
    let _ = run(&about, &CancellationToken::new(), |_| {}).await;
    let text = tokio::fs::read_to_string(&file).await.unwrap_or_default();
    let _ = tokio::fs::remove_file(&file).await;
    text.lines()
        .filter_map(|line| Some((line.split_once(" = ")?.0.trim().to_owned(), json!({}))))
        .filter(|(name, _)| !FORBIDDEN.contains(&name.as_str()))
        .collect()
}

/// Settings that start programs or say where files go. Nobody sets them from outside.
pub const FORBIDDEN: &[&str] = &[
    "post_process",
    "output_filename_format",
    "print_host",
    "printhost_apikey",
    "printhost_cafile",
    "thumbnails_internal",
];

/// `name = value` lines; line ends inside a value become what PrusaSlicer reads as such.
pub fn file(settings: &Map<String, Value>) -> String {
    settings
        .iter()
        .filter(|(name, _)| !FORBIDDEN.contains(&name.as_str()))
        .map(|(name, value)| {
            let text = match value {
                Value::String(text) => text.replace('\r', "").replace('\n', "\\n"),
                Value::Bool(yes) => u8::from(*yes).to_string(),
                other => other.to_string(),
            };
            format!("{name} = {text}\n")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_become_another_setting() {
        let mut settings = Map::new();
        settings.insert("notes".into(), json!("a\npost_process = rm"));
        settings.insert("support_material".into(), json!(true));
        settings.insert("post_process".into(), json!("rm -r /"));
        let mut lines: Vec<String> = file(&settings).lines().map(str::to_owned).collect();
        lines.sort();
        assert_eq!(
            lines,
            ["notes = a\\npost_process = rm", "support_material = 1"]
        );
    }
}
