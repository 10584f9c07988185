//! One text for one value: keys sorted, no blanks, 1.0 and 1 alike. Fingerprints are taken of it.

use serde_json::Value;

/// The canonical text of a JSON value.
pub fn canonical(value: &Value) -> String {
    let mut out = String::new();
    write_value(value, &mut out);
    out
}

fn write_value(value: &Value, out: &mut String) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            out.push('{');
            for (i, key) in keys.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_string(key, out);
                out.push(':');
                write_value(&map[key.as_str()], out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_value(item, out);
            }
            out.push(']');
        }
        Value::Number(n) => write_number(n, out),
        Value::String(s) => write_string(s, out),
        Value::Bool(b) => out.push_str(if *b { "true" } else { "false" }),
        Value::Null => out.push_str("null"),
    }
}

fn write_string(text: &str, out: &mut String) {
    out.push_str(&Value::String(text.to_owned()).to_string());
}

/// Digit for digit, but for zeros that mean nothing: 1.50 is 1.5, and 1.0 is 1.
fn write_number(n: &serde_json::Number, out: &mut String) {
    let text = n.to_string();
    let short = match text.split_once('.') {
        Some((_, fraction)) if fraction.bytes().all(|b| b.is_ascii_digit()) => {
            text.trim_end_matches('0').trim_end_matches('.')
        }
        _ => text.as_str(),
    };
    out.push_str(if short == "-0" { "0" } else { short });
}

#[cfg(test)]
mod tests {
    use super::canonical;
    use serde_json::json;

    #[test]
    fn order_and_number_form_do_not_matter() {
        let a = json!({"b": 1.0, "a": [true, null, "x\n"]});
        let b = json!({"a": [true, null, "x\n"], "b": 1});
        assert_eq!(canonical(&a), canonical(&b));
        assert_eq!(canonical(&a), r#"{"a":[true,null,"x\n"],"b":1}"#);
    }

    #[test]
    fn different_values_differ() {
        assert_ne!(canonical(&json!([1, 2])), canonical(&json!([2, 1])));
        assert_ne!(
            canonical(&json!(9_007_199_254_740_993_i64)),
            canonical(&json!(9_007_199_254_740_992_i64))
        );
        assert_ne!(canonical(&json!("1")), canonical(&json!(1)));
        let text = "[0.12345678901234567890,100,1.50,123456789012345678901234567890,0.0]";
        let parsed: serde_json::Value = serde_json::from_str(text).expect("JSON");
        assert_eq!(
            canonical(&parsed),
            "[0.1234567890123456789,100,1.5,123456789012345678901234567890,0]"
        );
    }
}
