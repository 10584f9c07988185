//! From what a caller sent to what a tool gets: envelope, aliases, text that should be JSON, unknown
//! names, JSON Schema. Everything is said at once, each problem with its field.

use crate::nearest::nearest;
use crate::problems::{problem, Problem};
use jsonschema::Validator;
use serde_json::{json, Map, Number, Value};
use std::fmt;

/// What a tool accepts, compiled once and kept by the backend.
pub struct Spec {
    validator: Validator,
    properties: Map<String, Value>,
    aliases: Map<String, Value>,
    control: Vec<String>,
    /// Least and most of whole numbers whose SQL type holds less than JSON does.
    ranges: Map<String, Value>,
}

/// Why a spec cannot be compiled.
#[derive(Debug)]
pub struct SpecError(String);

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The outcome: arguments for the function, controls for the dispatcher, or problems.
#[derive(Debug)]
pub enum Prepared {
    Ready { arguments: Value, control: Value },
    Refused { problems: Vec<Problem> },
}

impl Prepared {
    /// The JSON the dispatcher reads.
    pub fn into_json(self) -> Value {
        match self {
            Prepared::Ready { arguments, control } => {
                json!({"ok": true, "arguments": arguments, "control": control})
            }
            Prepared::Refused { problems } => json!({
                "ok": false,
                "detail": problems.iter().map(|p| p.text.as_str()).collect::<Vec<_>>().join("; "),
                "problems": problems.iter().map(Problem::to_json).collect::<Vec<_>>(),
            }),
        }
    }

    /// The arguments, when nothing is wrong with them and nothing stands beside them.
    pub fn into_plain(self) -> Option<Value> {
        match self {
            Prepared::Ready { arguments, control }
                if control.as_object().is_some_and(Map::is_empty) =>
            {
                Some(arguments)
            }
            _ => None,
        }
    }
}

impl Spec {
    /// `spec` = {"schema": JSON Schema, "aliases": {alias: name}, "control": [names the dispatcher keeps],
    /// "ranges": {name: [least, most]}}.
    pub fn compile(spec: &Value) -> Result<Self, SpecError> {
        let schema = spec
            .get("schema")
            .ok_or_else(|| SpecError("spec has no schema".into()))?;
        let validator = jsonschema::draft202012::options()
            .should_validate_formats(true)
            .build(schema)
            .map_err(|e| SpecError(e.to_string()))?;
        let object = |key: &str| {
            spec.get(key)
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default()
        };
        Ok(Spec {
            validator,
            properties: schema
                .get("properties")
                .and_then(Value::as_object)
                .cloned()
                .unwrap_or_default(),
            aliases: object("aliases"),
            ranges: object("ranges"),
            control: spec
                .get("control")
                .and_then(Value::as_array)
                .map(|names| {
                    names
                        .iter()
                        .filter_map(|n| n.as_str().map(str::to_owned))
                        .collect()
                })
                .unwrap_or_default(),
        })
    }

    /// Prepare one call's arguments.
    pub fn prepare(&self, sent: Value) -> Prepared {
        let sent = match sent {
            Value::Null => Map::new(),
            Value::Object(map) => self.unwrap_envelope(map),
            other => {
                return Prepared::Refused {
                    problems: vec![Problem::new(
                        "",
                        format!("arguments must be an object, not {}", kind(&other)),
                    )],
                }
            }
        };
        let mut problems = Vec::new();
        let mut arguments = Map::new();
        for (name, value) in sent {
            match self.resolve(&name) {
                Some(known) => self.accept(&name, known, value, &mut arguments, &mut problems),
                None => problems.push(self.unknown(&name)),
            }
        }
        let whole = Value::Object(arguments);
        problems.extend(self.validator.iter_errors(&whole).map(|e| problem(&e)));
        if !problems.is_empty() {
            return Prepared::Refused { problems };
        }
        self.split(whole)
    }

    /// PrintMCP's older clients wrap everything in {"params": {...}}.
    fn unwrap_envelope(&self, mut map: Map<String, Value>) -> Map<String, Value> {
        let wrapped = map.len() == 1
            && matches!(map.get("params"), Some(Value::Object(_)))
            && self.resolve("params").is_none();
        match wrapped.then(|| map.remove("params")) {
            Some(Some(Value::Object(inner))) => inner,
            _ => map,
        }
    }

    fn resolve<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        if self.properties.contains_key(name) {
            return Some(name);
        }
        self.aliases.get(name).and_then(Value::as_str)
    }

    fn accept(
        &self,
        sent: &str,
        known: &str,
        value: Value,
        arguments: &mut Map<String, Value>,
        problems: &mut Vec<Problem>,
    ) {
        if value.is_null() && !self.takes(known, "null") {
            return; // a null for an optional argument is the same as leaving it out
        }
        let value = self.coerce(known, value);
        // JSON Schema knows no largest integer; the database does.
        let endless = value.as_number().is_some_and(is_whole) && value.as_i64().is_none();
        if endless && self.takes(known, "integer") && !self.takes(known, "number") {
            problems.push(Problem::new(
                known,
                format!("{known}: {value} is too large"),
            ));
        }
        if let Some(text) = self.out_of_range(known, &value) {
            problems.push(Problem::new(known, text));
        }
        match arguments.get(known) {
            Some(earlier) if *earlier != value => problems.push(Problem::new(
                known,
                format!("{sent}: is another name of {known}, and the two were given different values; give one"),
            )),
            _ => {
                arguments.insert(known.to_owned(), value);
            }
        }
    }

    fn out_of_range(&self, known: &str, value: &Value) -> Option<String> {
        let range = self.ranges.get(known)?.as_array()?;
        let (least, most) = (range.first()?.as_i64()?, range.get(1)?.as_i64()?);
        let sent = value.as_i64()?;
        (sent < least || sent > most)
            .then(|| format!("{known}: {sent} is not between {least} and {most}"))
    }

    /// Some clients send arrays, objects and numbers as text, and whole numbers as 1.0.
    fn coerce(&self, name: &str, value: Value) -> Value {
        if let Some(whole) = whole_number(&value).filter(|_| self.takes(name, "integer")) {
            return whole;
        }
        let Value::String(text) = &value else {
            return value;
        };
        if self.takes(name, "string") || self.type_of(name).is_none() {
            return value;
        }
        match serde_json::from_str::<Value>(text.trim()) {
            Ok(parsed) if self.takes(name, kind(&parsed)) => parsed,
            _ => value,
        }
    }

    fn type_of(&self, name: &str) -> Option<&Value> {
        self.properties.get(name).and_then(|p| p.get("type"))
    }

    fn takes(&self, name: &str, wanted: &str) -> bool {
        let fits = |t: &str| t == wanted || (t == "number" && wanted == "integer");
        match self.type_of(name) {
            Some(Value::String(t)) => fits(t),
            Some(Value::Array(types)) => types.iter().filter_map(Value::as_str).any(fits),
            _ => false,
        }
    }

    fn unknown(&self, name: &str) -> Problem {
        let known = self.properties.keys().map(String::as_str);
        let aliases = self.aliases.keys().map(String::as_str);
        let hint = match nearest(name, known.clone().chain(aliases)) {
            Some(near) => format!("did you mean {near}?"),
            None if self.properties.is_empty() => "it takes none".to_owned(),
            None => format!("known are {}", known.collect::<Vec<_>>().join(", ")),
        };
        Problem::new(name, format!("{name}: no such argument; {hint}"))
    }

    fn split(&self, whole: Value) -> Prepared {
        let mut arguments = Map::new();
        let mut control = Map::new();
        if let Value::Object(map) = whole {
            for (name, value) in map {
                if self.control.contains(&name) {
                    control.insert(name, value);
                } else {
                    arguments.insert(name, value);
                }
            }
        }
        Prepared::Ready {
            arguments: Value::Object(arguments),
            control: Value::Object(control),
        }
    }
}

/// 1.0 as 1: JSON Schema calls it an integer, SQL does not.
fn whole_number(value: &Value) -> Option<Value> {
    let number = value.as_number().filter(|n| is_whole(n))?.to_string();
    let (whole, _) = number.split_once('.')?;
    whole.parse::<i64>().ok().map(|n| json!(n))
}

/// By its digits, not by its value as a float: that is rounded past 2^53.
fn is_whole(number: &Number) -> bool {
    match number.to_string().split_once('.') {
        Some((_, fraction)) => fraction.bytes().all(|b| b == b'0'),
        None => true,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> Spec {
        Spec::compile(&json!({
            "schema": {"type": "object", "additionalProperties": false, "required": ["model_id"],
                "properties": {
                    "model_id": {"type": "integer", "minimum": 1},
                    "quantity": {"type": "integer", "minimum": 1, "maximum": 100},
                    "status": {"type": "string", "enum": ["idle", "printing"]},
                    "colors": {"type": "array", "items": {"type": "string"}},
                    "dry_run": {"type": "boolean"}}},
            "aliases": {"id": "model_id"}, "control": ["dry_run"]}))
        .expect("the test's own schema compiles")
    }

    fn refused(args: Value) -> String {
        match spec().prepare(args) {
            Prepared::Refused { problems } => problems
                .iter()
                .map(|p| p.text.clone())
                .collect::<Vec<_>>()
                .join("; "),
            ready => panic!("accepted: {ready:?}"),
        }
    }

    fn ready(args: Value) -> Value {
        match spec().prepare(args) {
            Prepared::Ready { arguments, control } => json!([arguments, control]),
            refused => panic!("refused: {refused:?}"),
        }
    }

    #[test]
    fn controls_are_split_off_and_aliases_renamed() {
        assert_eq!(
            ready(json!({"id": 4, "dry_run": true})),
            json!([{"model_id": 4}, {"dry_run": true}])
        );
    }

    #[test]
    fn text_becomes_what_the_schema_wants() {
        assert_eq!(
            ready(json!({"model_id": "4", "colors": "[\"red\"]"})),
            json!([{"model_id": 4, "colors": ["red"]}, {}])
        );
    }

    #[test]
    fn a_whole_number_is_an_integer_however_it_is_written() {
        assert_eq!(
            ready(json!({"model_id": 4.0})),
            json!([{"model_id": 4}, {}])
        );
        assert!(refused(json!({"model_id": 4.5})).contains("is not an integer"));
        assert!(refused(json!({"model_id": 1e300})).contains("model_id"));
    }

    #[test]
    fn a_number_keeps_every_digit() {
        let sent =
            r#"{"model_id": 9007199254740993.0, "price": 12345678901234567.8901, "quantity": 2}"#;
        let spec = Spec::compile(&json!({"schema": {"type": "object", "properties": {
            "model_id": {"type": "integer"}, "quantity": {"type": "integer"},
            "price": {"type": "number", "maximum": 12345678901234568.0}}}}))
        .expect("the test's own schema compiles");
        let prepared = spec
            .prepare(serde_json::from_str(sent).expect("JSON"))
            .into_json();
        assert_eq!(
            prepared["arguments"].to_string(),
            r#"{"model_id":9007199254740993,"price":12345678901234567.8901,"quantity":2}"#
        );
        let sent = r#"{"model_id": 123456789012345678901234567890}"#;
        let refused = spec
            .prepare(serde_json::from_str(sent).expect("JSON"))
            .into_json();
        assert!(
            refused["detail"].to_string().contains("is too large"),
            "{refused}"
        );
    }

    #[test]
    fn a_whole_number_fits_its_type() {
        let spec = Spec::compile(&json!({"schema": {"type": "object", "properties": {
            "n": {"type": "integer"}}}, "ranges": {"n": [-32768, 32767]}}))
        .expect("the test's own schema compiles");
        for (sent, problem) in [
            (json!(32767), None),
            (json!("-32768"), None),
            (
                json!(32768),
                Some("n: 32768 is not between -32768 and 32767"),
            ),
            (
                json!("-40000"),
                Some("n: -40000 is not between -32768 and 32767"),
            ),
        ] {
            let answer = spec.prepare(json!({"n": sent})).into_json();
            assert_eq!(answer["detail"].as_str(), problem, "{answer}");
        }
    }

    #[test]
    fn an_envelope_is_opened_and_nulls_are_left_out() {
        assert_eq!(
            ready(json!({"params": {"model_id": 4, "status": null}})),
            json!([{"model_id": 4}, {}])
        );
    }

    #[test]
    fn every_problem_is_named_with_what_would_be_right() {
        let text = refused(json!({"quantiy": 3, "model_id": 0}));
        assert!(
            text.contains("quantiy: no such argument; did you mean quantity?"),
            "{text}"
        );
        assert!(
            text.contains("model_id: 0 is less than the minimum of 1"),
            "{text}"
        );
        let text = refused(json!({"model_id": 1, "status": "idel"}));
        assert!(
            text.contains("status: \"idel\" is not one of idle, printing"),
            "{text}"
        );
        assert!(text.contains("did you mean idle?"), "{text}");
        let text = refused(json!({}));
        assert!(text.contains("model_id: is required"), "{text}");
        let text = refused(json!({"model_id": "four"}));
        assert!(
            text.contains("model_id: \"four\" is not an integer"),
            "{text}"
        );
        assert!(refused(json!([1])).contains("must be an object"));
        assert!(refused(json!({"id": 1, "model_id": 2})).contains("different values"));
    }

    #[test]
    fn a_bad_schema_is_refused_at_compile_time() {
        assert!(Spec::compile(&json!({"schema": {"type": "nonsense"}})).is_err());
        assert!(Spec::compile(&json!({})).is_err());
    }
}
