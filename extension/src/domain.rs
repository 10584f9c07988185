//! The leaf behind record queries. Tables are learnt once a backend and role, and forgotten when the
//! server says that a table or a membership changed. What is kept here decides no access: the SQL runs
//! as the caller, and the server checks every column again.

use odin_core::domain::{compile, Catalog, Table, TableId};
use pgrx::prelude::*;
use pgrx::{pg_sys, JsonB};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

/// Tables times roles; past it the memory starts anew instead of growing without end.
const KEPT_TABLES: usize = 5000;

type Key = (u32, TableId);

thread_local! {
    static TABLES: RefCell<HashMap<Key, Rc<Table>>> = RefCell::new(HashMap::new());
    static WATCHING: Cell<bool> = const { Cell::new(false) };
    static STALE: Cell<bool> = const { Cell::new(false) };
}

struct Known {
    role: u32,
}

impl Catalog for Known {
    fn table(&self, id: TableId) -> Option<Rc<Table>> {
        TABLES.with(|t| t.borrow().get(&(self.role, id)).cloned())
    }
}

/// Compile a request for a role: SQL with parameters, what is wrong, or the tables to learn first.
#[pg_extern]
fn records_compile(role: pg_sys::Oid, request: JsonB) -> JsonB {
    JsonB(compile_for(role, &request.0))
}

/// The same for the other leaves.
pub fn compile_for(role: pg_sys::Oid, request: &Value) -> Value {
    forget_stale();
    compile(
        request,
        &Known {
            role: role.to_u32(),
        },
    )
}

/// Keep what a role may see of a table; false when the description is none.
#[pg_extern]
fn records_learn(role: pg_sys::Oid, table: pg_sys::Oid, description: JsonB) -> bool {
    watch();
    forget_stale();
    let Some(learnt) = Table::from_json(&description.0) else {
        return false;
    };
    TABLES.with(|t| {
        let mut tables = t.borrow_mut();
        if tables.len() >= KEPT_TABLES {
            tables.clear();
        }
        tables.insert((role.to_u32(), table.to_u32()), Rc::new(learnt));
    });
    true
}

fn forget_stale() {
    if STALE.with(|s| s.replace(false)) {
        TABLES.with(|t| t.borrow_mut().clear());
    }
}

/// Ask the server, once, to be told of changes.
fn watch() {
    if WATCHING.with(|w| w.replace(true)) {
        return;
    }
    // SAFETY: both only register functions that live as long as the library; memberships are the last
    // argument's cache in every supported version.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(table_changed), pg_sys::Datum::from(0));
        pg_sys::CacheRegisterSyscacheCallback(
            pg_sys::SysCacheIdentifier::AUTHMEMMEMROLE as i32,
            Some(membership_changed),
            pg_sys::Datum::from(0),
        );
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn table_changed(_arg: pg_sys::Datum, table: pg_sys::Oid) {
    let table = table.to_u32();
    let ours = TABLES.with(|t| match t.try_borrow() {
        Ok(tables) => table == 0 || tables.keys().any(|(_, id)| *id == table),
        Err(_) => true,
    });
    if ours {
        STALE.with(|s| s.set(true));
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn membership_changed(_arg: pg_sys::Datum, _cache: i32, _hash: u32) {
    STALE.with(|s| s.set(true));
}
