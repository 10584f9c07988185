//! The jail: run `odin.invoke` as another role. SET ROLE, RESET ROLE and SESSION AUTHORIZATION are
//! refused inside by the server (LOCAL_USERID_CHANGE), and so are temp tables, PREPARE, LISTEN,
//! WITH HOLD cursors and deferred triggers (RESTRICTED_OPERATION): nothing may wait for the moment the
//! role is ours again. Settings changed inside are put back.
//!
//! It calls the PL/pgSQL function directly: errors are handled below, in `odin.invoke`, where SQLSTATE
//! and constraint names still exist, and the result passes through untouched.

use crate::context::{About, Guard};
use crate::timeout::Timer;
use pgrx::fcinfo::pg_getarg;
use pgrx::prelude::*;
use pgrx::{pg_sys, JsonB};
use serde_json::Value;

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

/// jail_run(role oid, invoke regprocedure, run oid, arguments jsonb, preview boolean, bound_to text, call_id bigint, role_name text, key_id bigint,
/// answers jsonb, state jsonb, limit_ms int): invoke(run, arguments, preview, bound_to) in the jail.
///
/// # Safety
/// Called by the server with twelve arguments of the types declared in leaves.sql.
#[no_mangle]
#[pg_guard]
pub unsafe extern "C-unwind" fn jail_run(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let role: pg_sys::Oid = required(pg_getarg(fcinfo, 0), "role");
    let invoke: pg_sys::Oid = required(pg_getarg(fcinfo, 1), "invoke");
    let preview: bool = required(pg_getarg(fcinfo, 4), "preview");
    let bound_to: &str = required(pg_getarg(fcinfo, 5), "bound_to");
    let limit_ms: i32 = required(pg_getarg(fcinfo, 11), "limit_ms");
    let sent = |n: usize, name: &str| {
        let argument = (*fcinfo).args.as_slice(12)[n];
        required((!argument.isnull).then_some(argument.value), name)
    };
    let (run, arguments) = (sent(2, "run"), sent(3, "arguments"));
    if is_above(role) {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            "a call never runs as a superuser or a role that bypasses row security"
        );
    }
    let json = |value: Option<JsonB>| value.map_or(Value::Null, |json| json.0);
    let inmate = Inmate {
        role,
        invoke,
        run,
        arguments,
        preview: sent(4, "preview"),
        bound_to: sent(5, "bound_to"),
        limit_ms,
    };
    let about = About {
        id: pg_getarg(fcinfo, 6).unwrap_or(0),
        role: required(pg_getarg(fcinfo, 7), "role_name"),
        key: pg_getarg(fcinfo, 8),
        preview,
        images: preview || !bound_to.is_empty(),
        answers: json(pg_getarg(fcinfo, 9)),
        state: json(pg_getarg(fcinfo, 10)),
    };
    match inmate.run(about) {
        Ok(result) => result,
        Err(Broken::Nested) => {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
                "a tool cannot call another tool through the dispatcher"
            );
        }
        Err(Broken::Late) => {
            ereport!(
                ERROR,
                PgSqlErrorCode::ERRCODE_QUERY_CANCELED,
                LATE.0,
                LATE.1
            );
        }
    }
}

/// What a tool is told that went on after its time: message and detail.
pub const LATE: (&str, &str) = (
    "canceling statement due to statement timeout",
    "the tool went on after its time",
);

/// No key may act as such a role.
///
/// # Safety
/// Looks into the backend's catalog caches, so a transaction must be open.
pub unsafe fn is_above(role: pg_sys::Oid) -> bool {
    pg_sys::superuser_arg(role) || pg_sys::has_bypassrls_privilege(role)
}

/// What runs in the jail: `invoke(run, arguments, preview, bound_to)` as `role`.
pub struct Inmate {
    pub role: pg_sys::Oid,
    pub invoke: pg_sys::Oid,
    pub run: pg_sys::Datum,
    pub arguments: pg_sys::Datum,
    pub preview: pg_sys::Datum,
    pub bound_to: pg_sys::Datum,
    pub limit_ms: i32,
}

pub enum Broken {
    /// The backend is in the middle of another call.
    Nested,
    /// A tool may swallow the cancellation and go on; what comes after its time does not count.
    Late,
}

impl Inmate {
    /// # Safety
    /// The values are of the types that every odin._invoke takes, and the role is not above.
    pub unsafe fn run(&self, about: About) -> Result<pg_sys::Datum, Broken> {
        let Some(_call) = Guard::enter(about) else {
            return Err(Broken::Nested);
        };
        let level = pg_sys::NewGUCNestLevel();
        let began = pg_sys::GetCurrentTimestamp();
        let timer = Timer::arm(self.limit_ms);
        let inside = Role::enter(self.role);
        let result = pg_sys::OidFunctionCall4Coll(
            self.invoke,
            pg_sys::Oid::INVALID,
            self.run,
            self.arguments,
            self.preview,
            self.bound_to,
        );
        drop(inside);
        drop(timer);
        // Not a commit: every setting changed inside goes back, plain SET included.
        pg_sys::AtEOXact_GUC(false, level);
        let took = pg_sys::GetCurrentTimestamp() - began;
        if self.limit_ms > 0 && took > i64::from(self.limit_ms) * 1000 {
            return Err(Broken::Late);
        }
        Ok(result)
    }
}

#[no_mangle]
#[doc(hidden)]
pub extern "C" fn pg_finfo_run_tool() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// run_tool(run oid, arguments jsonb): the result of run(arguments), without the statement that would have to be parsed and planned for it at every call.
/// It has no guard and nothing to drop: an error of the tool passes it as the server raised it, with its SQLSTATE and constraint.
///
/// # Safety
/// Called by the server with two arguments of the types declared in leaves.sql, none of them NULL (STRICT).
#[no_mangle]
pub unsafe extern "C-unwind" fn run_tool(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let call = ready(fcinfo);
    let result = match (*(*call).flinfo).fn_addr {
        Some(function) => function(call),
        None => pg_sys::Datum::from(0),
    };
    (*fcinfo).isnull = (*call).isnull;
    result
}

/// The call that run_tool makes, checked.
///
/// # Safety
/// As run_tool.
#[pg_guard]
unsafe extern "C-unwind" fn ready(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::FunctionCallInfo {
    let run: pg_sys::Oid = required(pg_getarg(fcinfo, 0), "run");
    let allowed: Option<bool> = pgrx::fcinfo::direct_function_call(
        pg_sys::has_function_privilege_id,
        &[run.into_datum(), "EXECUTE".into_datum()],
    );
    if allowed.is_none() {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_UNDEFINED_FUNCTION,
            "the tool's function is gone"
        );
    }
    if allowed == Some(false) {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("permission denied for function {}", name_of(run))
        );
    }
    // The bytes are handed over as they are: any other kind of function would read them as something else.
    if !takes_and_gives_json(run) {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE,
            format!(
                "{} is no function of jsonb that returns jsonb",
                name_of(run)
            )
        );
    }
    let called = pg_sys::palloc0(size_of::<pg_sys::FmgrInfo>()).cast::<pg_sys::FmgrInfo>();
    pg_sys::fmgr_info(run, called);
    let size = size_of::<pg_sys::FunctionCallInfoBaseData>() + size_of::<pg_sys::NullableDatum>();
    let call = pg_sys::palloc0(size).cast::<pg_sys::FunctionCallInfoBaseData>();
    (*call).flinfo = called;
    (*call).nargs = 1;
    (*call).args.as_mut_slice(1)[0].value = (*fcinfo).args.as_slice(2)[1].value;
    call
}

/// # Safety
/// Looks into the backend's catalog caches, so a transaction must be open.
unsafe fn takes_and_gives_json(function: pg_sys::Oid) -> bool {
    let (mut types, mut count) = (std::ptr::null_mut(), 0);
    let result = pg_sys::get_func_signature(function, &mut types, &mut count);
    count == 1
        && *types == pg_sys::JSONBOID
        && result == pg_sys::JSONBOID
        && pg_sys::get_func_prokind(function) == pg_sys::PROKIND_FUNCTION as std::ffi::c_char
        && !pg_sys::get_func_retset(function)
}

/// # Safety
/// As above.
unsafe fn name_of(function: pg_sys::Oid) -> String {
    let name = pg_sys::get_func_name(function);
    if name.is_null() {
        return function.to_u32().to_string();
    }
    std::ffi::CStr::from_ptr(name)
        .to_string_lossy()
        .into_owned()
}

/// Has the current subtransaction written anything? A read tool can lift transaction_read_only by RESET
/// before PostgreSQL 16, but no row, large object or catalog can change without a transaction id.
#[pg_extern(stable)]
fn has_written() -> bool {
    // SAFETY: reads this backend's own state and assigns nothing.
    unsafe { pg_sys::GetCurrentTransactionIdIfAny() != pg_sys::InvalidTransactionId }
}

fn required<T>(value: Option<T>, name: &str) -> T {
    match value {
        Some(value) => value,
        None => pgrx::error!("{name} is null"),
    }
}
