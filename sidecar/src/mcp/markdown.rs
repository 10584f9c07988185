//! A result as a person reads it: plain values as lines, a list of rows as a table.

use std::fmt::Write;

use serde_json::{Map, Value};

pub fn render(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(fields) => object(&mut out, fields),
        Value::Array(rows) => table(&mut out, rows),
        plain => out.push_str(&cell(plain)),
    }
    out.truncate(out.trim_end().len());
    out
}

fn object(out: &mut String, fields: &Map<String, Value>) {
    for (name, value) in fields.iter().filter(|(_, v)| !is_rows(v)) {
        // Writing to a String cannot fail.
        let _ = writeln!(out, "- **{name}**: {}", cell(value));
    }
    for (name, value) in fields.iter().filter(|(_, v)| is_rows(v)) {
        if let Value::Array(rows) = value {
            let _ = write!(out, "\n### {name}\n\n");
            table(out, rows);
        }
    }
}

fn is_rows(value: &Value) -> bool {
    matches!(value, Value::Array(rows) if !rows.is_empty() && rows.iter().all(Value::is_object))
}

fn table(out: &mut String, rows: &[Value]) {
    let mut columns: Vec<&str> = Vec::new();
    for row in rows.iter().filter_map(Value::as_object) {
        for name in row.keys() {
            if !columns.contains(&name.as_str()) {
                columns.push(name);
            }
        }
    }
    if columns.is_empty() {
        for value in rows {
            let _ = writeln!(out, "- {}", cell(value));
        }
        return;
    }
    let line = |out: &mut String, cells: Vec<String>| {
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    };
    line(out, columns.iter().map(|c| (*c).to_owned()).collect());
    line(out, columns.iter().map(|_| "---".to_owned()).collect());
    for row in rows {
        line(out, columns.iter().map(|c| cell(&row[*c])).collect());
    }
}

/// One line, and nothing in it that would end the cell.
fn cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    text.replace('\\', "\\\\")
        .replace('|', "\\|")
        .replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_become_a_table() {
        let text = render(&json!({
            "jobs": [{"id": 1, "name": "a|b"}, {"id": 2, "name": null, "note": "x\ny"}],
            "count": 2,
        }));
        assert_eq!(
            text,
            "- **count**: 2\n\n### jobs\n\n| id | name | note |\n| --- | --- | --- |\n\
             | 1 | a\\|b |  |\n| 2 |  | x y |"
        );
    }

    #[test]
    fn plain_values_and_empty_lists_are_lines() {
        assert_eq!(
            render(&json!({"a": [], "b": true})),
            "- **a**: []\n- **b**: true"
        );
        assert_eq!(render(&json!("x")), "x");
    }
}
