//! Record queries: Odoo's domain grammar, field paths, order, grouping and paging become SQL. Names in
//! the SQL come from the catalog only, values only as parameters; no text of a caller is ever copied.

mod aggregate;
mod catalog;
mod compare;
mod emit;
mod hierarchy;
mod leaf;
mod literal;
mod parse;
mod paths;
mod search;
mod value;

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

pub use catalog::{Table, TableId};

use emit::Emitter;
use serde_json::{json, Map, Value};
use std::rc::Rc;

/// What is wrong with a request, in words a caller can act on.
#[derive(Debug, Clone, PartialEq)]
pub struct Wrong {
    pub field: String,
    pub detail: String,
    pub hint: Option<String>,
}

impl Wrong {
    pub fn new(field: &str, detail: impl Into<String>) -> Self {
        Wrong {
            field: field.to_owned(),
            detail: detail.into(),
            hint: None,
        }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

pub type Fallible<T> = Result<T, Wrong>;

/// Where the compiler looks tables up; None = not known yet.
pub trait Catalog {
    fn table(&self, id: TableId) -> Option<Rc<Table>>;
}

/// Compile a request. The answer is `{"ok":true,"sql",..}`, `{"ok":false,"field","detail","hint"}`, or
/// `{"need":[table ids]}`: learn these tables and ask again.
pub fn compile(request: &Value, catalog: &dyn Catalog) -> Value {
    let mut emitter = Emitter::new(catalog, request.get("aliases"));
    let outcome = run(request, &mut emitter);
    if !emitter.need.is_empty() {
        return json!({"need": emitter.need});
    }
    match outcome {
        Ok(mut answer) => {
            answer.insert("ok".into(), json!(true));
            answer.insert("params".into(), json!(emitter.params));
            answer.insert("about".into(), json!(emitter.about));
            Value::Object(answer)
        }
        Err(w) => json!({"ok": false, "field": w.field, "detail": w.detail, "hint": w.hint}),
    }
}

fn run(request: &Value, emitter: &mut Emitter<'_>) -> Fallible<Map<String, Value>> {
    let id = request
        .get("table")
        .and_then(Value::as_u64)
        .and_then(|n| TableId::try_from(n).ok())
        .ok_or_else(|| Wrong::new("model", "the request names no table"))?;
    let Some(table) = emitter.table(id) else {
        return Ok(Map::new());
    };
    match request.get("op").and_then(Value::as_str) {
        Some("search") => search::search(request, emitter, &table),
        Some("where") => search::condition(request, emitter, &table),
        Some("aggregate") => aggregate::aggregate(request, emitter, &table),
        _ => Err(Wrong::new("op", "the request has no known operation")),
    }
}

/// Items of a list for an error text, not too many.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 40;
    let all: Vec<&str> = names.collect();
    let mut text = all
        .iter()
        .take(SHOWN)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    if all.len() > SHOWN {
        text.push_str(&format!(" and {} more", all.len() - SHOWN));
    }
    text
}
