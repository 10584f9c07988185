//! The short way of a call: a key calls a tool that needs nothing but to be run. `odin._dispatch` decides which tools are of that kind, by the rules
//! that stand there, and teaches them (`plain_learn`); this repeats what was decided while registry, key and rights are the same. What is otherwise
//! in any way is left to `_dispatch`, a result that needs more than to be handed over included.

use crate::context::{call_has_hints, About};
use crate::jail::{is_above, Broken, Inmate, LATE};
use crate::made::Made;
use crate::rows::Row;
use crate::tools::{functions, may_be_uncommitted, KEPT};
use crate::{arguments, lookups, secrets, trail};
use pgrx::fcinfo::{direct_function_call, pg_getarg};
use pgrx::prelude::*;
use pgrx::{pg_sys, IntoDatum, JsonB};
use serde_json::{json, Value};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::CString;

/// More kinds of keys for one tool than any farm has.
const MOST_SCOPES: usize = 100;
/// With one of these a call asks for more than to be done.
const ASKS_MORE: [&str; 2] = ["input_responses", "request_state"];
/// With one of these a write does.
const WRITE_ASKS_MORE: [&str; 4] = ["dry_run", "readonly", "idempotency_key", "preview_token"];

/// A tool that may be run at once for certain scopes.
#[derive(Clone)]
struct Plain {
    id: i64,
    version: i64,
    name: String,
    read_only: bool,
    raw: bool,
    redact: bool,
    limit_ms: i32,
}

#[derive(Default)]
struct Learnt {
    registry: i64,
    /// By the name that was called; each for the scopes of a key.
    tools: HashMap<String, Vec<(Vec<String>, Plain)>>,
}

thread_local! {
    static LEARNT: RefCell<Learnt> = RefCell::new(Learnt::default());
}

/// `_dispatch` has found that with these scopes nothing but the right to the function has to be asked for before this tool runs.
#[pg_extern]
#[allow(clippy::too_many_arguments)]
fn plain_learn(
    registry: i64,
    wanted: &str,
    scopes: Vec<String>,
    tool: i64,
    version: i64,
    name: &str,
    read_only: bool,
    raw: bool,
    redact: bool,
    limit_ms: i32,
) {
    // What this transaction has written may include the registry itself, and may be rolled back.
    if may_be_uncommitted() {
        return;
    }
    LEARNT.with(|learnt| {
        let mut learnt = learnt.borrow_mut();
        if learnt.registry != registry || learnt.tools.len() >= KEPT {
            *learnt = Learnt {
                registry,
                ..Learnt::default()
            };
        }
        let plain = Plain {
            id: tool,
            version,
            name: name.to_owned(),
            read_only,
            raw,
            redact,
            limit_ms,
        };
        let known = learnt.tools.entry(wanted.to_owned()).or_default();
        known.retain(|(of, _)| *of != scopes);
        if known.len() >= MOST_SCOPES {
            known.clear();
        }
        known.push((scopes, plain));
    });
}

/// Most tools need more than to be run: for them nothing else has to be looked at.
fn is_learnt(wanted: &str) -> bool {
    LEARNT.with(|learnt| learnt.borrow().tools.contains_key(wanted))
}

fn learnt(registry: i64, wanted: &str, scopes: &[String]) -> Option<Plain> {
    LEARNT.with(|learnt| {
        let learnt = learnt.borrow();
        if learnt.registry != registry || may_be_uncommitted() {
            return None;
        }
        let mut known = learnt.tools.get(wanted)?.iter();
        known
            .find(|(of, _)| of == scopes)
            .map(|(_, tool)| tool.clone())
    })
}

/// Who calls, as far as the short way needs it.
struct Caller {
    role: pg_sys::Oid,
    role_name: String,
    key: i64,
    scopes: Vec<String>,
    registry: i64,
}

impl Caller {
    /// None: the long way finds out what is the matter.
    ///
    /// # Safety
    /// Inside a transaction with a snapshot.
    unsafe fn of(credential: &str, now: i64) -> Option<Caller> {
        let instance = Row::read(lookups::instance()?);
        if instance.get::<&str>("schema_version")? != secrets::code_version() {
            return None;
        }
        let hash = odin_core::key_hash(credential)?.into_datum()?;
        let key = Row::read(lookups::key(hash)?);
        let narrowed = [
            "revoked_at",
            "allowed_ips",
            "rate_per_minute",
            "concurrency",
        ];
        let expires = key.value("expires_at").map(|at| at.value() as i64);
        if narrowed.iter().any(|column| key.value(column).is_some())
            || expires.is_some_and(|at| at <= now)
        {
            return None;
        }
        let role_name: String = key.get("role_name")?;
        let role = pg_sys::get_role_oid(CString::new(role_name.as_str()).ok()?.as_ptr(), true);
        if role == pg_sys::Oid::INVALID || is_above(role) {
            return None;
        }
        Some(Caller {
            role,
            role_name,
            key: key.get("id")?,
            scopes: key.get("scopes")?,
            registry: instance.get("registry_version")?,
        })
    }
}

/// What a call brought along.
struct Asked<'a> {
    tool: Plain,
    arguments: Value,
    options: &'a Value,
    began: i64,
}

/// How a call by the short way ended.
enum End {
    Answer(pg_sys::Datum),
    /// The tool has run; what becomes of its result is for `_dispatch` to say.
    Ran(Ran),
}

struct Ran {
    out: pg_sys::Datum,
    number: i64,
    caller: Caller,
}

#[no_mangle]
#[doc(hidden)]
pub extern "C" fn pg_finfo_plain_call() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// plain_call(invoke_read regprocedure, invoke_write regprocedure, credential text, tool text, arguments jsonb, options jsonb): the answer of the
/// call; {"ran": what the jail gave, "call_id", "took_us", "who", "role_name", "key_id", "registry"} when that needs more; NULL when nothing was done.
///
/// # Safety
/// Called by the server with six arguments of these types.
#[no_mangle]
#[pg_guard]
pub unsafe extern "C-unwind" fn plain_call(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let began = pg_sys::GetCurrentTimestamp();
    let end = (|| {
        let wanted: &str = pg_getarg(fcinfo, 3)?;
        if !is_learnt(wanted) {
            return None;
        }
        let caller = Caller::of(pg_getarg(fcinfo, 2)?, began)?;
        let tool = learnt(caller.registry, wanted, &caller.scopes)?;
        let options = pg_getarg::<JsonB>(fcinfo, 5).map_or(Value::Null, |o| o.0);
        let asked = Asked {
            tool,
            arguments: pg_getarg::<JsonB>(fcinfo, 4).map_or_else(|| json!({}), |a| a.0),
            options: &options,
            began,
        };
        call(pg_getarg(fcinfo, 0)?, pg_getarg(fcinfo, 1)?, caller, asked)
    })();
    match end {
        Some(End::Answer(answer)) => answer,
        Some(End::Ran(ran)) => ran.told(began),
        None => {
            (*fcinfo).isnull = true;
            pg_sys::Datum::from(0)
        }
    }
}

/// # Safety
/// The two take what every odin._invoke takes.
unsafe fn call(
    invoke_read: pg_sys::Oid,
    invoke_write: pg_sys::Oid,
    caller: Caller,
    asked: Asked,
) -> Option<End> {
    let tool = asked.tool;
    let (function, run) = functions(tool.id, tool.version)?;
    let asks = |key: &&str| {
        !matches!(
            asked.options.get(*key),
            None | Some(Value::Null | Value::Bool(false))
        )
    };
    if ASKS_MORE.iter().any(asks)
        || (!tool.read_only && WRITE_ASKS_MORE.iter().any(asks))
        || !may_execute(caller.role, function)
    {
        return None;
    }
    let sent = arguments::plain(tool.id, tool.version, asked.arguments)?;
    if tool.redact && !trail::kept_as_it_is(&sent) {
        return None;
    }
    let arguments = JsonB(sent).into_datum()?;
    let inmate = Inmate {
        role: caller.role,
        invoke: if tool.read_only {
            invoke_read
        } else {
            invoke_write
        },
        run: run.into_datum()?,
        arguments,
        preview: false.into_datum()?,
        bound_to: "".into_datum()?,
        limit_ms: tool.limit_ms,
    };
    // A read takes its number when it is over: taking one may write.
    let mut number = 0;
    if !tool.read_only {
        number = next_number()?;
    }
    let about = About {
        id: number,
        role: caller.role_name.clone(),
        key: Some(caller.key),
        preview: false,
        images: false,
        answers: Value::Null,
        state: Value::Null,
    };
    let done = if tool.read_only {
        no_wait_for_flush();
        inmate.run(about)
    } else {
        undone_when_late(|| inmate.run(about))
    };
    let out = match done {
        Ok(out) => out,
        Err(Broken::Nested) => return None,
        Err(Broken::Late) => {
            let late = json!({"sqlstate": "57014", "message": LATE.0, "detail": LATE.1});
            let out = JsonB(json!({ "caught": late })).into_datum()?;
            return Some(End::Ran(Ran {
                out,
                number,
                caller,
            }));
        }
    };
    let Some(mut result) = whole_answer(out, tool.raw) else {
        return Some(End::Ran(Ran {
            out,
            number,
            caller,
        }));
    };
    if tool.read_only {
        number = next_number()?;
    }
    let done = trail::Done {
        number,
        began: asked.began,
        role_name: &caller.role_name,
        key: caller.key,
        tool: &tool.name,
        arguments,
        options: asked.options,
    };
    done.write();
    // A session lock that a tool took must not outlive its call.
    pg_sys::LockReleaseSession(pg_sys::USER_LOCKMETHOD as pg_sys::LOCKMETHODID);
    let mut made = Made::new();
    made.key("status");
    made.text(pg_sys::JsonbIteratorToken::WJB_VALUE, "complete");
    made.key("result");
    made.value(&mut result);
    made.key("raw");
    made.boolean(tool.raw);
    made.key("replay");
    made.boolean(false);
    made.key("format");
    made.null();
    Some(End::Answer(made.finish(pg_sys::CurrentMemoryContext)))
}

/// Nothing but the trail's row will be written: no caller has to wait for that.
///
/// # Safety
/// Inside a transaction.
unsafe fn no_wait_for_flush() {
    pg_sys::set_config_option(
        c"synchronous_commit".as_ptr(),
        c"off".as_ptr(),
        pg_sys::GucContext::PGC_USERSET,
        pg_sys::GucSource::PGC_S_SESSION,
        pg_sys::GucAction::GUC_ACTION_LOCAL,
        true,
        0,
        false,
    );
}

/// Runs a write in a subtransaction: what it did after its time is taken back, and the trail can still be written.
///
/// # Safety
/// Inside a transaction.
unsafe fn undone_when_late(
    run: impl FnOnce() -> Result<pg_sys::Datum, Broken>,
) -> Result<pg_sys::Datum, Broken> {
    let (memory, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
    pg_sys::BeginInternalSubTransaction(std::ptr::null());
    pg_sys::MemoryContextSwitchTo(memory);
    let done = run();
    if done.is_ok() {
        pg_sys::ReleaseCurrentSubTransaction();
    } else {
        pg_sys::RollbackAndReleaseCurrentSubTransaction();
    }
    pg_sys::MemoryContextSwitchTo(memory);
    pg_sys::CurrentResourceOwner = owner;
    done
}

/// The call's number in the trail.
///
/// # Safety
/// Inside a transaction.
unsafe fn next_number() -> Option<i64> {
    let home = pg_sys::get_namespace_oid(c"odin".as_ptr(), false);
    let sequence = pg_sys::get_relname_relid(c"audit_calls_id_seq".as_ptr(), home);
    direct_function_call(pg_sys::nextval_oid, &[sequence.into_datum()])
}

/// # Safety
/// Inside a transaction.
unsafe fn may_execute(role: pg_sys::Oid, function: pg_sys::Oid) -> bool {
    let asked = [
        role.into_datum(),
        function.into_datum(),
        "EXECUTE".into_datum(),
    ];
    direct_function_call(pg_sys::has_function_privilege_id_id, &asked) == Some(true)
}

/// The result, if it is an object that stands as it is.
///
/// # Safety
/// `out` is the jsonb that an odin._invoke gave.
unsafe fn whole_answer(out: pg_sys::Datum, raw: bool) -> Option<pg_sys::JsonbValue> {
    let out: *mut pg_sys::Jsonb = pg_sys::pg_detoast_datum(out.cast_mut_ptr()).cast();
    let result = entry(&mut (*out).root, "result")?;
    if result.type_ != pg_sys::jbvType::jbvBinary {
        return None;
    }
    let inside = result.val.binary.data;
    let more = (*inside).header & pg_sys::JB_FOBJECT == 0
        || entry(inside, "ask_outside").is_some()
        || (raw && entry(inside, "input_required").is_some())
        || (!raw && call_has_hints());
    (!more).then_some(result)
}

/// # Safety
/// `container` is a JSON value of the server's.
unsafe fn entry(container: *mut pg_sys::JsonbContainer, key: &str) -> Option<pg_sys::JsonbValue> {
    let found = pg_sys::getKeyJsonValueFromContainer(
        container,
        key.as_ptr().cast(),
        key.len() as i32,
        std::ptr::null_mut(),
    );
    (!found.is_null()).then(|| *found)
}

impl Ran {
    /// # Safety
    /// `out` is the jsonb that an odin._invoke gave.
    unsafe fn told(self, began: i64) -> pg_sys::Datum {
        let mut made = Made::new();
        made.key("ran");
        made.whole(
            pg_sys::JsonbIteratorToken::WJB_VALUE,
            pg_sys::pg_detoast_datum(self.out.cast_mut_ptr()),
        );
        for (key, number) in [
            ("call_id", self.number),
            ("took_us", pg_sys::GetCurrentTimestamp() - began),
            ("who", self.caller.role.to_u32().into()),
            ("key_id", self.caller.key),
            ("registry", self.caller.registry),
        ] {
            made.key(key);
            made.number(number);
        }
        made.key("role_name");
        made.text(
            pg_sys::JsonbIteratorToken::WJB_VALUE,
            &self.caller.role_name,
        );
        made.finish(pg_sys::CurrentMemoryContext)
    }
}
