//! Schema errors in words: the field, what was wrong, what would be right.

use crate::nearest::nearest;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::ValidationError;
use serde_json::{json, Value};

/// One thing wrong with a call's arguments.
#[derive(Debug)]
pub struct Problem {
    pub field: String,
    pub text: String,
}

impl Problem {
    pub fn new(field: &str, text: String) -> Self {
        Problem {
            field: field.to_owned(),
            text,
        }
    }

    pub fn to_json(&self) -> Value {
        json!({"field": self.field, "problem": self.text})
    }
}

/// Put one validation error into words.
pub fn problem(error: &ValidationError<'_>) -> Problem {
    let path = error.instance_path().to_string();
    let field = path.trim_start_matches('/').replace('/', ".");
    let value = shown(error.instance());
    let (field, what) = match error.kind() {
        ValidationErrorKind::Required { property } => (
            join(&field, property.as_str().unwrap_or("")),
            "is required".into(),
        ),
        ValidationErrorKind::Minimum { limit } => (
            field,
            format!("{value} is less than the minimum of {limit}"),
        ),
        ValidationErrorKind::Maximum { limit } => (
            field,
            format!("{value} is more than the maximum of {limit}"),
        ),
        ValidationErrorKind::ExclusiveMinimum { limit } => {
            (field, format!("{value} must be more than {limit}"))
        }
        ValidationErrorKind::ExclusiveMaximum { limit } => {
            (field, format!("{value} must be less than {limit}"))
        }
        ValidationErrorKind::MinLength { limit } => {
            (field, format!("must have at least {limit} characters"))
        }
        ValidationErrorKind::MaxLength { limit } => {
            (field, format!("must have at most {limit} characters"))
        }
        ValidationErrorKind::Enum { options } => {
            let what = one_of(error.instance(), &value, options);
            (field, what)
        }
        ValidationErrorKind::Type { kind } => (field, format!("{value} is not {}", wanted(kind))),
        _ => (field, error.to_string()),
    };
    let text = if field.is_empty() {
        what
    } else {
        format!("{field}: {what}")
    };
    Problem { field, text }
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() {
        name.to_owned()
    } else {
        format!("{parent}.{name}")
    }
}

fn one_of(instance: &Value, value: &str, options: &Value) -> String {
    let names: Vec<String> = options
        .as_array()
        .into_iter()
        .flatten()
        .map(|o| o.as_str().map_or_else(|| o.to_string(), str::to_owned))
        .collect();
    let mut text = format!("{value} is not one of {}", names.join(", "));
    if let Some(near) = instance
        .as_str()
        .and_then(|w| nearest(w, names.iter().map(String::as_str)))
    {
        text.push_str(&format!("; did you mean {near}?"));
    }
    text
}

fn wanted(kind: &TypeKind) -> String {
    let names: Vec<String> = match kind {
        TypeKind::Single(t) => vec![t.to_string()],
        TypeKind::Multiple(set) => set.iter().map(|t| t.to_string()).collect(),
    };
    let article = |n: &String| match n.chars().next() {
        Some('a' | 'e' | 'i' | 'o') => format!("an {n}"),
        _ => format!("a {n}"),
    };
    names.iter().map(article).collect::<Vec<_>>().join(" or ")
}

/// The value as sent, short enough for an error.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 {
        return text;
    }
    text.chars().take(57).collect::<String>() + "..."
}
