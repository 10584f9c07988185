//! A value of the domain as a parameter: is it of the column's kind, and which cast does it get?

use super::catalog::{Column, Kind};
use super::emit::array_text;
use super::{Fallible, Wrong};
use serde_json::{Number, Value};

/// A float with more digits than this was longer than a float can hold when it was sent.
const EXACT_DIGITS: usize = 15;

/// A parameter: its text, and the type it is cast to.
pub struct Bound {
    pub text: String,
    pub sql_type: String,
}

impl Bound {
    fn new(text: String, sql_type: &str) -> Self {
        Bound {
            text,
            sql_type: sql_type.to_owned(),
        }
    }
}

/// Odoo's empty value: null, or false where the column is no boolean.
pub fn is_empty(value: &Value, column: &Column) -> bool {
    value.is_null() || (*value == Value::Bool(false) && column.kind != Kind::Boolean)
}

/// One value for comparing with `column`.
pub fn bind(value: &Value, column: &Column, field: &str) -> Fallible<Bound> {
    let refused = || {
        Wrong::new(
            field,
            format!("{field}: {} is not {}", shown(value), column.wanted()),
        )
    };
    let own = |text: String| Ok(Bound::new(text, &column.sql_type));
    match (&column.kind, value) {
        (Kind::Json | Kind::Jsonb, v) => Ok(Bound::new(v.to_string(), "jsonb")),
        (Kind::Array(element), Value::Array(items)) => own(array_of(items, element, field)?.text),
        (_, Value::Array(_) | Value::Object(_) | Value::Null) => Err(refused()),
        (Kind::Boolean, v) => boolean(v).map(own).unwrap_or_else(|| Err(refused())),
        (_, Value::Bool(_)) => Err(refused()),
        (Kind::Integer { bits }, Value::Number(n)) => whole(n, *bits, field, &column.sql_type),
        (Kind::Integer { bits }, Value::String(s)) => match number_text(s) {
            Some(text) if fits(&text, *bits) => own(text),
            Some(text) => Ok(Bound::new(text, "numeric")),
            None => Err(refused()),
        },
        (Kind::Number, Value::Number(n)) => exact(n, field).map(|t| Bound::new(t, "numeric")),
        (Kind::Float, Value::Number(n)) => own(n.to_string()),
        (Kind::Number | Kind::Float, Value::String(s))
            if matches!(s.as_str(), "NaN" | "Infinity" | "-Infinity") =>
        {
            own(s.clone())
        }
        (Kind::Number | Kind::Float, Value::String(s)) => {
            let text = number_text(s).ok_or_else(refused)?;
            own(text)
        }
        (Kind::Temporal | Kind::Uuid, Value::Number(_)) => Err(refused()),
        (_, Value::String(s)) => own(s.clone()),
        (_, Value::Number(n)) => own(n.to_string()),
    }
}

/// A list of values as one array parameter; empty values are left to the caller.
pub fn bind_list(values: &[&Value], column: &Column, field: &str) -> Fallible<Bound> {
    let bound = values
        .iter()
        .map(|v| bind(v, column, field))
        .collect::<Fallible<Vec<_>>>()?;
    // One value outside the column's range makes the whole list numeric.
    let element = bound
        .iter()
        .find(|b| b.sql_type != column.sql_type)
        .map_or(column.sql_type.as_str(), |b| b.sql_type.as_str());
    let texts: Vec<Option<String>> = bound.iter().map(|b| Some(b.text.clone())).collect();
    Ok(Bound::new(array_text(&texts), &format!("{element}[]")))
}

/// An array value for an array column.
pub fn array_of(items: &[Value], element: &Column, field: &str) -> Fallible<Bound> {
    let texts = items
        .iter()
        .map(|v| {
            if v.is_null() {
                Ok(None)
            } else {
                bind(v, element, field).map(|b| Some(b.text))
            }
        })
        .collect::<Fallible<Vec<_>>>()?;
    Ok(Bound::new(
        array_text(&texts),
        &format!("{}[]", element.sql_type),
    ))
}

/// The text a pattern operator looks for.
pub fn pattern(value: &Value, field: &str) -> Fallible<String> {
    match value {
        Value::String(s) => Ok(s.clone()),
        Value::Number(n) => Ok(n.to_string()),
        other => Err(Wrong::new(
            field,
            format!("{field}: {} is not a text to look for", shown(other)),
        )),
    }
}

fn boolean(value: &Value) -> Option<String> {
    let truth = match value {
        Value::Bool(b) => *b,
        Value::Number(n) => match n.as_i64()? {
            0 => false,
            1 => true,
            _ => return None,
        },
        Value::String(s) => match s.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "1" => true,
            "false" | "f" | "no" | "0" => false,
            _ => return None,
        },
        _ => return None,
    };
    Some(truth.to_string())
}

fn whole(n: &Number, bits: u32, field: &str, own: &str) -> Fallible<Bound> {
    let text = exact(n, field)?;
    if fits(&text, bits) {
        return Ok(Bound::new(text, own));
    }
    // 2.5 or 10 billion: never equal to a small integer, but it has a place in its order.
    Ok(Bound::new(text, "numeric"))
}

fn fits(text: &str, bits: u32) -> bool {
    match text.parse::<i64>() {
        Ok(i) => bits == 64 || (i >> (bits - 1)) == 0 || (i >> (bits - 1)) == -1,
        Err(_) => false,
    }
}

/// The digits of a number, if JSON kept them all.
fn exact(n: &Number, field: &str) -> Fallible<String> {
    let Some(float) = n.as_f64().filter(|_| n.is_f64()) else {
        return Ok(n.to_string());
    };
    if float.fract() == 0.0 && float.abs() < 1e15 {
        return Ok(format!("{}", float as i64));
    }
    let text = n.to_string();
    let mantissa = text.split(['e', 'E']).next().unwrap_or("");
    let digits = mantissa.chars().filter(char::is_ascii_digit).count();
    if digits > EXACT_DIGITS + 1 {
        return Err(Wrong::new(
            field,
            format!("{field}: the number has more digits than JSON keeps exactly"),
        )
        .hint("Send it as text, in quotes."));
    }
    Ok(text)
}

/// A decimal number written as text; None for anything else.
fn number_text(text: &str) -> Option<String> {
    let text = text.trim();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match digits.split_once(['e', 'E']) {
        Some((m, e)) => (m, Some(e.strip_prefix(['-', '+']).unwrap_or(e))),
        None => (digits, None),
    };
    let plain = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some((a, b)) => {
            (plain(a) || a.is_empty()) && (plain(b) || b.is_empty()) && mantissa.len() > 1
        }
        None => plain(mantissa),
    };
    (mantissa_ok && exponent.is_none_or(|e| plain(e) && e.len() <= 4) && text.len() <= 1000)
        .then(|| text.to_owned())
}

/// The value as sent, short enough for an error.
pub fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 {
        return text;
    }
    text.chars().take(57).collect::<String>() + "..."
}
