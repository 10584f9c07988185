//! The leaf behind step 3 of a call: arguments checked against a compiled spec that the backend keeps.

use crate::tools::keep;
use odin_core::{canonical, nearest, Spec};
use pgrx::prelude::*;
use pgrx::JsonB;
use serde_json::Value;
use std::cell::RefCell;
use std::collections::HashMap;

thread_local! {
    static SPECS: RefCell<HashMap<(i64, i64), Spec>> = RefCell::new(HashMap::new());
}

/// The arguments as the tool takes them, when there is nothing to say about them and nothing beside them; NULL = ask `arguments_checked`.
#[pg_extern]
fn arguments_plain(tool: i64, version: i64, sent: JsonB) -> Option<JsonB> {
    plain(tool, version, sent.0).map(JsonB)
}

pub fn plain(tool: i64, version: i64, sent: Value) -> Option<Value> {
    SPECS.with(|specs| {
        let specs = specs.borrow();
        specs.get(&(tool, version))?.prepare(sent).into_plain()
    })
}

/// NULL = this backend does not know that version of the tool yet: call `arguments_load`.
#[pg_extern]
fn arguments_checked(tool: i64, version: i64, sent: JsonB) -> Option<JsonB> {
    SPECS.with(|specs| {
        specs
            .borrow()
            .get(&(tool, version))
            .map(|spec| JsonB(spec.prepare(sent.0).into_json()))
    })
}

/// Compile and keep a tool's spec; the answer is NULL or what is wrong with it.
#[pg_extern]
fn arguments_load(tool: i64, version: i64, spec: JsonB) -> Option<String> {
    match Spec::compile(&spec.0) {
        Ok(compiled) => {
            SPECS.with(|specs| keep(&mut specs.borrow_mut(), (tool, version), compiled));
            None
        }
        Err(e) => Some(e.to_string()),
    }
}

/// The problem with a JSON Schema, or NULL.
#[pg_extern(immutable, parallel_safe)]
fn schema_problem(schema: JsonB) -> Option<String> {
    Spec::compile(&serde_json::json!({ "schema": schema.0 }))
        .err()
        .map(|e| e.to_string())
}

/// The one text of a JSON value, for fingerprints.
#[pg_extern(immutable, parallel_safe, name = "canonical")]
fn canonical_text(value: JsonB) -> String {
    canonical(&value.0)
}

/// The candidate nearest to a word, or NULL when none is near.
#[pg_extern(immutable, parallel_safe, name = "nearest")]
fn nearest_word(word: &str, candidates: Vec<Option<String>>) -> Option<String> {
    nearest(word, candidates.iter().flatten().map(String::as_str)).map(str::to_owned)
}
