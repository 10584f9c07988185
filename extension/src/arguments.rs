//! The leaf behind step 3 of a call: arguments checked against a compiled spec that the backend keeps.

use odin_core::{canonical, nearest, Spec};
use pgrx::prelude::*;
use pgrx::{pg_sys, JsonB};
use std::cell::RefCell;
use std::collections::HashMap;

/// More tools than any farm has; past it the cache starts anew instead of growing without end.
const KEPT_SPECS: usize = 2000;

thread_local! {
    static SPECS: RefCell<HashMap<(i64, i64), Spec>> = RefCell::new(HashMap::new());
    static FUNCTIONS: RefCell<HashMap<(i64, i64), pg_sys::Oid>> = RefCell::new(HashMap::new());
}

/// The function behind a version of a tool, if this backend has looked it up before. One dropped since is
/// still told: whoever asks what it may do finds that it is gone.
#[pg_extern]
fn function_known(tool: i64, version: i64) -> Option<pg_sys::Oid> {
    FUNCTIONS.with(|known| known.borrow().get(&(tool, version)).copied())
}

/// Remember the function behind a version of a tool; the answer is the same function.
#[pg_extern]
fn function_learn(tool: i64, version: i64, function: pg_sys::Oid) -> pg_sys::Oid {
    FUNCTIONS.with(|known| keep(&mut known.borrow_mut(), (tool, version), function));
    function
}

/// One version a tool, and not without end.
fn keep<T>(map: &mut HashMap<(i64, i64), T>, key: (i64, i64), value: T) {
    map.retain(|(tool, version), _| *tool != key.0 || *version == key.1);
    if map.len() >= KEPT_SPECS {
        map.clear();
    }
    map.insert(key, value);
}

/// NULL = this backend does not know that version of the tool yet: call `arguments_load`.
#[pg_extern]
fn arguments_prepare(tool: i64, version: i64, sent: JsonB) -> Option<JsonB> {
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
