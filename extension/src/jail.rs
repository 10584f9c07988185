//! The jail: run `odin.invoke` as another role. SET ROLE, RESET ROLE and SESSION AUTHORIZATION are
//! refused inside by the server (LOCAL_USERID_CHANGE), and so are temp tables, PREPARE, LISTEN,
//! WITH HOLD cursors and deferred triggers (RESTRICTED_OPERATION): nothing may wait for the moment the
//! role is ours again. Settings changed inside are put back.
//!
//! It calls the PL/pgSQL function directly: errors are handled below, in `odin.invoke`, where SQLSTATE
//! and constraint names still exist, and the result passes through untouched.

use crate::context::Guard;
use crate::timeout::Timer;
use pgrx::fcinfo::pg_getarg;
use pgrx::prelude::*;
use pgrx::{pg_sys, JsonB};

/// User and security context as they were; put back on every way out.
struct Role {
    uid: pg_sys::Oid,
    context: i32,
}

impl Role {
    fn enter(role: pg_sys::Oid) -> Role {
        let (mut uid, mut context) = (pg_sys::Oid::INVALID, 0);
        let flags =
            (pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_RESTRICTED_OPERATION) as i32;
        // SAFETY: plain state of this backend; (sub)transaction abort puts it back as well.
        unsafe {
            pg_sys::GetUserIdAndSecContext(&mut uid, &mut context);
            pg_sys::SetUserIdAndSecContext(role, context | flags);
        }
        Role { uid, context }
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        // SAFETY: the values were read from the server on the way in.
        unsafe { pg_sys::SetUserIdAndSecContext(self.uid, self.context) }
    }
}

#[no_mangle]
#[doc(hidden)]
pub extern "C" fn pg_finfo_jail_run() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// jail_run(role oid, invoke regprocedure, call text, arguments jsonb, options jsonb, about jsonb, limit_ms int)
///
/// # Safety
/// Called by the server with seven arguments of the types declared in leaves.sql, none of them NULL
/// (STRICT).
#[no_mangle]
#[pg_guard]
pub unsafe extern "C-unwind" fn jail_run(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let role: pg_sys::Oid = required(pg_getarg(fcinfo, 0), "role");
    let invoke: pg_sys::Oid = required(pg_getarg(fcinfo, 1), "invoke");
    let about: JsonB = required(pg_getarg(fcinfo, 5), "about");
    let limit_ms: i32 = required(pg_getarg(fcinfo, 6), "limit_ms");
    let raw = |n: usize| (*fcinfo).args.as_slice(7)[n].value;
    if pg_sys::superuser_arg(role) || pg_sys::has_bypassrls_privilege(role) {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "a call never runs as a superuser or a role that bypasses row security"
        );
    }
    let Some(_call) = Guard::enter(about.0) else {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
            "a tool cannot call another tool through the dispatcher"
        );
    };
    let level = pg_sys::NewGUCNestLevel();
    let timer = Timer::arm(limit_ms);
    let inside = Role::enter(role);
    let result = pg_sys::OidFunctionCall3Coll(invoke, pg_sys::Oid::INVALID, raw(2), raw(3), raw(4));
    drop(inside);
    drop(timer);
    // Not a commit: every setting changed inside goes back, plain SET included.
    pg_sys::AtEOXact_GUC(false, level);
    result
}

/// Has the current subtransaction written anything? A read tool can lift transaction_read_only by RESET
/// before PostgreSQL 16, but no row, large object or catalog can change without a transaction id.
#[pg_extern(stable)]
fn has_written() -> bool {
    // SAFETY: reads this backend's own state and assigns nothing.
    unsafe { pg_sys::GetCurrentTransactionIdIfAny() != pg_sys::InvalidTransactionId }
}

/// The function is STRICT: the server never calls it with a NULL.
fn required<T>(value: Option<T>, name: &str) -> T {
    match value {
        Some(value) => value,
        None => pgrx::error!("jail_run: {name} is null"),
    }
}
