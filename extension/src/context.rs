//! The call this backend is carrying out. It lives in the backend's memory and only the jail can set
//! it: a setting (GUC) could be forged by any statement a tool runs.

use pgrx::prelude::*;
use pgrx::{pg_sys, JsonB};
use serde_json::{json, Map, Value};
use std::cell::RefCell;

/// Hints kept per call; a tool that loops must not fill the backend's memory.
const KEPT_HINTS: usize = 50;

/// What the jail knows of the call.
pub struct About {
    pub id: i64,
    pub role: String,
    pub key: Option<i64>,
    pub preview: bool,
    pub images: bool,
    pub answers: Value,
    pub state: Value,
}

struct Call {
    about: About,
    would: Map<String, Value>,
    next: Vec<Value>,
    notes: Vec<Value>,
}

impl Call {
    fn has_hints(&self) -> bool {
        !self.would.is_empty() || !self.next.is_empty() || !self.notes.is_empty()
    }
}

thread_local! {
    static CALL: RefCell<Option<Call>> = const { RefCell::new(None) };
    static LEFT: RefCell<Option<Call>> = const { RefCell::new(None) };
}

/// Begin a call; the guard's end is the call's end, whatever happens between.
pub struct Guard;

impl Guard {
    pub fn enter(about: About) -> Option<Guard> {
        CALL.with(|slot| {
            let mut slot = slot.borrow_mut();
            if slot.is_some() {
                return None; // a tool must not call the dispatcher again
            }
            *slot = Some(Call {
                about,
                would: Map::new(),
                next: Vec::new(),
                notes: Vec::new(),
            });
            Some(Guard)
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let done = CALL.with(|slot| slot.borrow_mut().take());
        LEFT.with(|slot| *slot.borrow_mut() = done);
    }
}

fn with<T>(read: impl FnOnce(&Call) -> T) -> Option<T> {
    CALL.with(|slot| slot.borrow().as_ref().map(read))
}

fn edit(change: impl FnOnce(&mut Call)) {
    CALL.with(|slot| {
        if let Some(call) = slot.borrow_mut().as_mut() {
            change(call);
        }
    });
}

/// What the finished call said beside its result, taken once; NULL when it said nothing, as most do.
#[pg_extern]
fn call_hints() -> Option<JsonB> {
    let call = LEFT.with(|slot| slot.borrow_mut().take())?;
    call.has_hints()
        .then(|| JsonB(json!({"would": call.would, "next": call.next, "notes": call.notes})))
}

/// Has the finished call said anything beside its result?
#[pg_extern]
pub fn call_has_hints() -> bool {
    LEFT.with(|slot| slot.borrow().as_ref().is_some_and(Call::has_hints))
}

#[pg_extern(stable)]
pub fn current_call() -> Option<i64> {
    with(|c| c.about.id)
}

#[pg_extern(stable)]
fn call_key() -> Option<i64> {
    with(|c| c.about.key).flatten()
}

#[pg_extern(stable)]
fn call_is_preview() -> bool {
    with(|c| c.about.preview).unwrap_or(false)
}

/// True when the row trail must keep whole before-images: a preview, or a commit bound to one.
#[pg_extern(stable)]
fn call_keeps_images() -> bool {
    with(|c| c.about.images).unwrap_or(false)
}

/// Who acts: the key's owner inside a call, else the SQL user, even inside SECURITY DEFINER.
#[pg_extern(stable)]
fn actor() -> Option<String> {
    with(|c| c.about.role.clone()).or_else(|| {
        // SAFETY: both look into the backend's own state and the role cache; noerr returns null for a
        // role dropped meanwhile.
        unsafe {
            let name = pg_sys::GetUserNameFromId(pg_sys::GetOuterUserId(), true);
            (!name.is_null()).then(|| {
                std::ffi::CStr::from_ptr(name)
                    .to_string_lossy()
                    .into_owned()
            })
        }
    })
}

#[pg_extern]
fn would(what: JsonB) {
    if let Value::Object(map) = what.0 {
        edit(|c| c.would.extend(map));
    }
}

#[pg_extern]
fn suggest(tool: &str, args: default!(JsonB, "'{}'"), reason: default!(Option<&str>, "NULL")) {
    edit(|c| {
        if c.next.len() < KEPT_HINTS {
            let mut action = json!({"tool": tool, "args": args.0});
            if let Some(reason) = reason {
                action["reason"] = json!(reason);
            }
            c.next.push(action);
        }
    });
}

#[pg_extern]
fn note(text: &str) {
    edit(|c| {
        if c.notes.len() < KEPT_HINTS {
            c.notes.push(json!(text));
        }
    });
}

#[pg_extern(stable)]
fn input_responses() -> Option<JsonB> {
    with(|c| c.about.answers.clone())
        .filter(|v| !v.is_null())
        .map(JsonB)
}

#[pg_extern(stable)]
fn request_state() -> Option<JsonB> {
    with(|c| c.about.state.clone())
        .filter(|v| !v.is_null())
        .map(JsonB)
}
