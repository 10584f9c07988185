//! The trail's row of a call that was done without `odin._dispatch`, written by a plan that this backend keeps.

use crate::secrets;
use pgrx::{pg_sys, IntoDatum};
use serde_json::Value;
use std::cell::Cell;

/// What is kept of a caller's own texts, in characters.
const LONGEST_TEXT: usize = 200;
/// The trail's row of a call that was done, as `_dispatch` writes it.
const TRAIL: &std::ffi::CStr = c"INSERT INTO odin.audit_calls(id, called_at, duration_us, role_name, key_id, face, client, tool, arguments, request_id, origin, outcome, xid) \
    OVERRIDING SYSTEM VALUE VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, 'done', pg_current_xact_id())";

/// More is cut in the trail; half of what `odin._redact` keeps, whose text has spaces.
const WHOLE_BYTES: usize = 4096;
/// What `odin._redact` looks for in the names of values.
const SECRET_WORDS: [&str; 7] = [
    "password",
    "secret",
    "token",
    "apikey",
    "api_key",
    "access_code",
    "credential",
];

thread_local! {
    static TRAILED: Cell<pg_sys::SPIPlanPtr> = const { Cell::new(std::ptr::null_mut()) };
}

/// Are these arguments small, and without any word that a secret goes by? Then the trail keeps them as they are; of others SQL decides.
pub fn kept_as_it_is(arguments: &Value) -> bool {
    let text = arguments.to_string().to_lowercase();
    text.len() <= WHOLE_BYTES && !SECRET_WORDS.iter().any(|word| text.contains(word))
}

/// A call that was done.
pub struct Done<'a> {
    pub number: i64,
    pub began: i64,
    pub role_name: &'a str,
    pub key: i64,
    pub tool: &'a str,
    pub arguments: pg_sys::Datum,
    pub options: &'a Value,
}

impl Done<'_> {
    /// # Safety
    /// Inside a call of the owner's, who may write the trail; `arguments` is a jsonb.
    pub unsafe fn write(&self) {
        let took = pg_sys::GetCurrentTimestamp() - self.began;
        let client = self.options.pointer("/client/name").and_then(text);
        let request = self.options.get("request_id").and_then(text);
        let face = self.options.get("face").and_then(text);
        let values = [
            self.number.into_datum(),
            Some(pg_sys::Datum::from(self.began)),
            i32::try_from(took).unwrap_or(i32::MAX).into_datum(),
            self.role_name.into_datum(),
            self.key.into_datum(),
            face.unwrap_or_else(|| "sql".to_owned()).into_datum(),
            client.and_then(IntoDatum::into_datum),
            self.tool.into_datum(),
            Some(self.arguments),
            request.and_then(IntoDatum::into_datum),
            secrets::origin().into_datum(),
        ];
        let nulls = values.map(|value| if value.is_some() { b' ' } else { b'n' });
        let mut values = values.map(|value| value.unwrap_or(pg_sys::Datum::from(0)));
        if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as i32 {
            pgrx::error!("the trail cannot be written: no SPI");
        }
        let done = pg_sys::SPI_execute_plan(
            trail_plan(),
            values.as_mut_ptr(),
            nulls.as_ptr().cast(),
            false,
            0,
        );
        if done != pg_sys::SPI_OK_INSERT as i32 {
            pgrx::error!("the trail was not written: SPI says {done}");
        }
        pg_sys::SPI_finish();
    }
}

/// # Safety
/// Connected to SPI.
unsafe fn trail_plan() -> pg_sys::SPIPlanPtr {
    let known = TRAILED.get();
    if !known.is_null() {
        return known;
    }
    let mut types = [
        pg_sys::INT8OID,
        pg_sys::TIMESTAMPTZOID,
        pg_sys::INT4OID,
        pg_sys::TEXTOID,
        pg_sys::INT8OID,
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
        pg_sys::TEXTOID,
        pg_sys::JSONBOID,
        pg_sys::TEXTOID,
        pg_sys::INT8OID,
    ];
    // One row of values: a plan made anew for each would be the same.
    let plan = pg_sys::SPI_prepare_cursor(
        TRAIL.as_ptr(),
        types.len() as i32,
        types.as_mut_ptr(),
        pg_sys::CURSOR_OPT_GENERIC_PLAN as i32,
    );
    if plan.is_null() || pg_sys::SPI_keepplan(plan) != 0 {
        pgrx::error!("the trail's plan cannot be made");
    }
    TRAILED.set(plan);
    plan
}

/// What `->>` gives, not longer than the trail keeps it.
fn text(value: &Value) -> Option<String> {
    let whole = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(whole.chars().take(LONGEST_TEXT).collect())
}
