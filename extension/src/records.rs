//! One page of records: compiled, run by a plan that this backend keeps, and put together as JSON once.
//! It runs as whoever calls, with the server's own checks of every column and row; a plan is kept by role,
//! and the server makes it anew when tables, policies or rights change. Whatever is unusual is left to SQL.

use crate::domain::compile_for;
use crate::made::Made;
use base64::Engine;
use pgrx::prelude::*;
use pgrx::{pg_sys, FromDatum, IntoDatum, JsonB};
use serde_json::{json, Value};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::CString;

/// Questions of a role; past it the memory starts anew.
const KEPT_PLANS: usize = 500;
/// A longer question is asked once and not kept.
const LONGEST_SQL: usize = 20_000;
/// What one answer holds.
const MOST_BYTES: usize = 200_000;

thread_local! {
    static PLANS: RefCell<HashMap<(u32, String), pg_sys::SPIPlanPtr>> = RefCell::new(HashMap::new());
    static RUNNING: Cell<usize> = const { Cell::new(0) };
}

/// A plan in use must not be forgotten: a policy's function may ask for records itself.
struct Running;

impl Running {
    fn enter() -> Running {
        RUNNING.with(|n| n.set(n.get() + 1));
        Running
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        RUNNING.with(|n| n.set(n.get() - 1));
    }
}

/// What was compiled, as far as running it needs it.
struct Question {
    sql: String,
    params: Vec<Option<String>>,
    mark: String,
    keyed: bool,
}

impl Question {
    fn from_json(mut made: Value) -> Option<Question> {
        if made["ok"] != Value::Bool(true) {
            return None;
        }
        let text = |v: Value| match v {
            Value::String(s) => Some(s),
            _ => None,
        };
        let params = match made["params"].take() {
            Value::Array(values) => values.into_iter().map(text).collect(),
            _ => return None,
        };
        Some(Question {
            sql: text(made["sql"].take())?,
            params,
            mark: text(made["mark"].take())?,
            keyed: made["keyed"] == Value::Bool(true),
        })
    }
}

#[no_mangle]
#[doc(hidden)]
pub extern "C" fn pg_finfo_records_page() -> &'static pg_sys::Pg_finfo_record {
    const V1: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
    &V1
}

/// records_page(model text, relation oid, domain jsonb, fields text[], order text, limit int, cursor jsonb): the answer of search_records, or NULL
/// where this backend does not know the table yet, or something is wrong with the question. The relation goes before the model.
///
/// # Safety
/// Called by the server with seven arguments of these types.
#[no_mangle]
#[pg_guard]
pub unsafe extern "C-unwind" fn records_page(fcinfo: pg_sys::FunctionCallInfo) -> pg_sys::Datum {
    let args = (*fcinfo).args.as_slice(7);
    match page(args) {
        Some(answer) => answer,
        None => {
            (*fcinfo).isnull = true;
            pg_sys::Datum::from(0)
        }
    }
}

/// # Safety
/// `args` are those of records_page.
unsafe fn page(args: &[pg_sys::NullableDatum]) -> Option<pg_sys::Datum> {
    let model: Option<&str> = taken(args[0]);
    let relation = match taken::<pg_sys::Oid>(args[1]) {
        Some(relation) => relation,
        None => own_table(model?)?,
    };
    let json = |n: usize| taken::<JsonB>(args[n]).map_or(Value::Null, |j| j.0);
    let fields: Option<Vec<Option<String>>> = taken(args[3]);
    let order: Option<String> = taken(args[4]);
    let limit: i32 = taken(args[5])?;
    let role = pg_sys::GetUserId();
    let request = json!({"op": "search", "table": relation.to_u32(), "domain": json(2), "fields": fields,
        "order": order, "limit": limit, "cursor": json(6)});
    let question = Question::from_json(compile_for(role, &request))?;
    run(role, relation, &question, usize::try_from(limit).ok()?)
}

/// # Safety
/// The server's arguments are of the types that were declared.
unsafe fn taken<T: FromDatum>(argument: pg_sys::NullableDatum) -> Option<T> {
    T::from_datum(argument.value, argument.isnull)
}

/// A table of the farm's by its own name.
fn own_table(name: &str) -> Option<pg_sys::Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: both only look into the catalog's cache.
    let relation = unsafe {
        let home = pg_sys::get_namespace_oid(c"odin".as_ptr(), true);
        if home == pg_sys::Oid::INVALID {
            return None;
        }
        pg_sys::get_relname_relid(name.as_ptr(), home)
    };
    (relation != pg_sys::Oid::INVALID).then_some(relation)
}

/// # Safety
/// Inside a transaction; the question's SQL is the compiler's.
unsafe fn run(
    role: pg_sys::Oid,
    relation: pg_sys::Oid,
    question: &Question,
    most: usize,
) -> Option<pg_sys::Datum> {
    let name = pg_sys::quote_qualified_identifier(
        pg_sys::get_namespace_name(pg_sys::get_rel_namespace(relation)),
        pg_sys::get_rel_name(relation),
    );
    let params = question.params.clone().into_datum()?;
    let outside = pg_sys::CurrentMemoryContext;
    let _running = Running::enter();
    if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as i32 {
        return None;
    }
    let mut answer = None;
    if let Some(plan) = plan(role, &question.sql) {
        let mut values = [params];
        let done = pg_sys::SPI_execute_plan(plan, values.as_mut_ptr(), c" ".as_ptr(), true, 0);
        if done == pg_sys::SPI_OK_SELECT as i32 {
            answer = together(question, std::ffi::CStr::from_ptr(name), most, outside);
        }
    }
    pg_sys::SPI_finish();
    answer
}

/// The kept plan of this SQL for this role.
///
/// # Safety
/// Connected to SPI.
unsafe fn plan(role: pg_sys::Oid, sql: &str) -> Option<pg_sys::SPIPlanPtr> {
    let key = (role.to_u32(), sql.to_owned());
    if let Some(known) = PLANS.with(|p| p.borrow().get(&key).copied()) {
        return Some(known);
    }
    let text = CString::new(sql).ok()?;
    let mut types = [pg_sys::TEXTARRAYOID];
    let plan = pg_sys::SPI_prepare(text.as_ptr(), 1, types.as_mut_ptr());
    if plan.is_null() {
        return None;
    }
    if sql.len() > LONGEST_SQL || pg_sys::SPI_keepplan(plan) != 0 {
        return Some(plan);
    }
    // Our own call is one of those that run.
    if RUNNING.with(Cell::get) == 1 && PLANS.with(|p| p.borrow().len()) >= KEPT_PLANS {
        for (_, old) in PLANS.with(|p| p.take()) {
            pg_sys::SPI_freeplan(old);
        }
    }
    PLANS.with(|p| p.borrow_mut().insert(key, plan));
    Some(plan)
}

/// The rows that SPI holds as the answer, made in the caller's memory. NULL where one record alone is too large.
///
/// # Safety
/// SPI has just run a question: rows of (j jsonb, at text[]).
unsafe fn together(
    question: &Question,
    name: &std::ffi::CStr,
    most: usize,
    outside: pg_sys::MemoryContext,
) -> Option<pg_sys::Datum> {
    let table = &*pg_sys::SPI_tuptable;
    let found = usize::try_from(pg_sys::SPI_processed).ok()?;
    let rows = std::slice::from_raw_parts(table.vals, found);
    let column = |row: usize, n: i32| {
        let mut null = false;
        let value = pg_sys::SPI_getbinval(rows[row], table.tupdesc, n, &mut null);
        (!null).then_some(value)
    };
    let mut records = Vec::with_capacity(found.min(most));
    let mut bytes = 0;
    for row in 0..found.min(most) {
        let record = pg_sys::pg_detoast_datum(column(row, 1)?.cast_mut_ptr());
        bytes += pgrx::varsize_any(record);
        if bytes > MOST_BYTES {
            break;
        }
        records.push(record);
    }
    let kept = records.len();
    let (cut, more) = (kept < found.min(most), kept == most && found > most);
    if cut && kept == 0 {
        return None;
    }
    let next = ((cut || more) && question.keyed).then(|| -> Option<String> {
        let at: Vec<Option<String>> = FromDatum::from_datum(column(kept - 1, 2)?, false)?;
        let place: Vec<Option<&str>> = std::iter::once(Some(question.mark.as_str()))
            .chain(at.iter().map(Option::as_deref))
            .collect();
        Some(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json!(place).to_string()))
    });
    let next = match next {
        Some(place) => Some(place?),
        None => None,
    };
    let note = match (cut, more, &next) {
        (true, _, Some(_)) => Some(format!("Cut to {kept} records because an answer holds 200 kB; go on with next_cursor, or choose fewer fields.")),
        (true, _, None) => Some(format!("Cut to {kept} records because an answer holds 200 kB; choose fewer fields or a narrower domain.")),
        (false, true, None) => Some(format!("More than {most} records match. {} has no key to page by: narrow the domain or raise limit (at most 1000).", name.to_string_lossy())),
        _ => None,
    };
    let mut made = Made::new();
    made.key("model");
    made.text(
        pg_sys::JsonbIteratorToken::WJB_VALUE,
        &name.to_string_lossy(),
    );
    made.key("records");
    made.mark(pg_sys::JsonbIteratorToken::WJB_BEGIN_ARRAY);
    for record in records {
        made.whole(pg_sys::JsonbIteratorToken::WJB_ELEM, record);
    }
    made.mark(pg_sys::JsonbIteratorToken::WJB_END_ARRAY);
    made.key("count");
    made.number(kept as i64);
    for (key, value) in [("next_cursor", &next), ("note", &note)] {
        if let Some(value) = value {
            made.key(key);
            made.text(pg_sys::JsonbIteratorToken::WJB_VALUE, value);
        }
    }
    Some(made.finish(outside))
}
