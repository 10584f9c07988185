//! What a backend remembers of the registry, so that a call need not look it up again: a tool's row, and the
//! functions behind it. A row is of one version of the whole registry, and is asked for by that version.

use pgrx::fcinfo::pg_getarg;
use pgrx::prelude::*;
use pgrx::{pg_sys, varsize};
use std::cell::RefCell;
use std::collections::HashMap;

/// More tools than any farm has; past it the cache starts anew instead of growing without end.
pub const KEPT: usize = 2000;

#[derive(Default)]
struct Rows {
    registry: i64,
    /// By kind and name. Words of eight bytes: a row starts where a long may start.
    kept: HashMap<(String, String), Vec<u64>>,
}

thread_local! {
    static ROWS: RefCell<Rows> = RefCell::new(Rows::default());
    /// The tool's function and the one in odin_call, by tool and version.
    static FUNCTIONS: RefCell<HashMap<(i64, i64), (pg_sys::Oid, pg_sys::Oid)>> = RefCell::new(HashMap::new());
}

/// Remember under (tool, version): one version a tool, and not without end.
pub fn keep<T>(map: &mut HashMap<(i64, i64), T>, key: (i64, i64), value: T) {
    map.retain(|(tool, version), _| *tool != key.0 || *version == key.1);
    if map.len() >= KEPT {
        map.clear();
    }
    map.insert(key, value);
}

/// The tool's function and the one in odin_call, as this backend learned them.
pub fn functions(tool: i64, version: i64) -> Option<(pg_sys::Oid, pg_sys::Oid)> {
    FUNCTIONS.with(|known| known.borrow().get(&(tool, version)).copied())
}

/// The function behind a version of a tool, if this backend has looked it up before. One dropped since is
/// still told: whoever asks what it may do finds that it is gone.
#[pg_extern]
fn function_known(tool: i64, version: i64) -> Option<pg_sys::Oid> {
    functions(tool, version).map(|f| f.0)
}

/// The function in odin_call that runs it.
#[pg_extern]
fn caller_known(tool: i64, version: i64) -> Option<pg_sys::Oid> {
    functions(tool, version).map(|f| f.1)
}

/// Remember the functions behind a version of a tool; the answer is the tool's own.
#[pg_extern]
fn function_learn(
    tool: i64,
    version: i64,
    function: pg_sys::Oid,
    caller: pg_sys::Oid,
) -> pg_sys::Oid {
    FUNCTIONS.with(|known| keep(&mut known.borrow_mut(), (tool, version), (function, caller)));
    function
}

/// A transaction that has written may have changed the registry itself, and may still be rolled back.
pub fn may_be_uncommitted() -> bool {
    // SAFETY: reads this backend's own state and assigns nothing.
    unsafe { pg_sys::GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId }
}

#[no_mangle]
#[doc(hidden)]
pub extern "C" fn pg_finfo_tool_known() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// tool_known(kind text, name text, registry bigint): the row, or NULL when this backend has none of that version.
///
/// # Safety
/// Called by the server with arguments of the types declared in leaves.sql, none of them NULL (STRICT).
#[no_mangle]
#[pg_guard]
pub unsafe extern "C-unwind" fn tool_known(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let found = (|| {
        let key = (pg_getarg(fcinfo, 0)?, pg_getarg(fcinfo, 1)?);
        let registry: i64 = pg_getarg(fcinfo, 2)?;
        ROWS.with(|rows| {
            let rows = rows.borrow();
            let row = rows.kept.get(&key)?;
            if rows.registry != registry || may_be_uncommitted() {
                return None;
            }
            // A copy in the caller's memory: ours may go while he still looks at it.
            let copy = pg_sys::palloc(size_of_val(row.as_slice())).cast::<u64>();
            std::ptr::copy_nonoverlapping(row.as_ptr(), copy, row.len());
            Some(pg_sys::Datum::from(copy))
        })
    })();
    found.unwrap_or_else(|| {
        (*fcinfo).isnull = true;
        pg_sys::Datum::from(0)
    })
}

#[no_mangle]
#[doc(hidden)]
pub extern "C" fn pg_finfo_tool_learn() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// tool_learn(kind text, name text, registry bigint, tool record): remembers the row and answers with it. Without a version, or for a tool that is
/// not there, it remembers nothing.
///
/// # Safety
/// Called by the server with arguments of the types declared in leaves.sql.
#[no_mangle]
#[pg_guard]
pub unsafe extern "C-unwind" fn tool_learn(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let row = (*fcinfo).args.as_slice(4)[3];
    if row.isnull {
        (*fcinfo).isnull = true;
        return row.value;
    }
    let names = pg_getarg(fcinfo, 0).zip(pg_getarg(fcinfo, 1));
    if let (Some(key), Some(registry), false) = (names, pg_getarg(fcinfo, 2), may_be_uncommitted())
    {
        // Flat: no value of it may lie in another table's storage.
        let flat = pg_sys::pg_detoast_datum(row.value.cast_mut_ptr());
        let size = varsize(flat);
        let mut words = vec![0u64; size.div_ceil(size_of::<u64>())];
        std::ptr::copy_nonoverlapping(flat.cast::<u8>(), words.as_mut_ptr().cast::<u8>(), size);
        ROWS.with(|rows| {
            let mut rows = rows.borrow_mut();
            if rows.registry != registry || rows.kept.len() >= KEPT {
                *rows = Rows {
                    registry,
                    ..Rows::default()
                };
            }
            rows.kept.insert(key, words);
        });
    }
    row.value
}
