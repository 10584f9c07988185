//! A list of records: chosen fields, order, one page by the keys of the last row.

use super::catalog::{Column, Kind, Table};
use super::emit::{dotted, operator, quoted, relation, Emitter};
use super::leaf;
use super::literal;
use super::parse::domain;
use super::paths::{split, Joins, Place, Scalar};
use super::{listed, Fallible, Wrong};
use serde_json::{json, Map, Value};
use std::rc::Rc;

const MOST_FIELDS: usize = 200;
const MOST_ORDER: usize = 8;
/// PostgreSQL's identifiers hold 63 bytes; a longer name of a field goes another way.
const LONGEST_NAME: usize = 63;

/// The FROM of a request's own table.
pub fn root(em: &mut Emitter<'_>, request: &Value, table: &Rc<Table>) -> Place {
    let id = request.get("table").and_then(Value::as_u64).unwrap_or(0) as u32;
    Place {
        id,
        table: table.clone(),
        alias: em.fresh(),
    }
}

/// The WHERE condition of a request's domain, which may be a list or its text.
pub fn filter(em: &mut Emitter<'_>, request: &Value, key: &str, place: &Place) -> Fallible<String> {
    let asked = request.get(key).unwrap_or(&Value::Null);
    let parsed = match asked {
        Value::String(text) => domain(&literal::parse(text)?)?,
        other => domain(other)?,
    };
    leaf::condition(em, place, &parsed)
}

/// Only the condition, for updates and deletes: their table has the alias t1.
pub fn condition(
    request: &Value,
    em: &mut Emitter<'_>,
    table: &Rc<Table>,
) -> Fallible<Map<String, Value>> {
    let place = root(em, request, table);
    let sql = filter(em, request, "domain", &place)?;
    Ok(Map::from_iter([
        ("sql".to_owned(), json!(sql)),
        ("key".to_owned(), json!(table.key)),
    ]))
}

pub fn search(
    request: &Value,
    em: &mut Emitter<'_>,
    table: &Rc<Table>,
) -> Fallible<Map<String, Value>> {
    let place = root(em, request, table);
    let mut joins = Joins::default();
    let row = row(request, em, &place, &mut joins)?;
    let order = order(request, em, &place, &mut joins)?;
    let filter = filter(em, request, "domain", &place)?;
    let limit = request.get("limit").and_then(Value::as_u64).unwrap_or(100);
    let keyed = !table.key.is_empty();
    let mark = fingerprint(em, &order, table);
    let from = format!("{} {}{}", relation(table), place.alias, joins.sql);
    // Values are taken below the LIMIT and made JSON above it, so that only what is answered costs.
    let (json, inner, shape) = row.around(&order, keyed);
    let mut sql = format!("SELECT {json} FROM (SELECT {inner} FROM {from} WHERE {filter}");
    if let Some(cursor) = request.get("cursor").filter(|c| !c.is_null()) {
        let after = after(em, &order, cursor, &mark, keyed)?;
        sql.push_str(&format!(" AND ({after})"));
    }
    if !order.is_empty() {
        let terms: Vec<String> = order.iter().map(Term::sql).collect();
        sql.push_str(&format!(" ORDER BY {}", terms.join(", ")));
    }
    // One more than asked for tells whether there is a next page.
    sql.push_str(&format!(" LIMIT {}) x{shape}", limit + 1));
    Ok(Map::from_iter([
        ("sql".to_owned(), json!(sql)),
        ("mark".to_owned(), json!(mark)),
        ("keyed".to_owned(), json!(keyed)),
    ]))
}

/// A record of the answer: values that go by the catalog's names, and others whose name is a parameter.
#[derive(Default)]
struct Row {
    plain: Vec<(String, String)>,
    named: Vec<(String, String)>,
}

impl Row {
    /// What stands around the list of rows x: the record as JSON with the place of its row, the values to
    /// take for both, and what gives the values their names.
    fn around(&self, order: &[Term], keyed: bool) -> (String, String, String) {
        let place = |keys: Vec<String>| match keyed {
            true => format!("ARRAY[{}] AS at", keys.join(", ")),
            false => "NULL::text[] AS at".to_owned(),
        };
        let order = if keyed { order } else { &[] };
        // The shorter form, where the order's own values are shown anyway.
        let shown = |term: &Term| {
            self.plain
                .iter()
                .find(|(_, sql)| *sql == term.sql)
                .map(|(name, _)| name)
        };
        if let Some(keys) = order
            .iter()
            .map(shown)
            .collect::<Option<Vec<_>>>()
            .filter(|_| self.named.is_empty())
        {
            let at = place(
                keys.iter()
                    .map(|k| format!("x.{}::text", quoted(k)))
                    .collect(),
            );
            let inner: Vec<String> = self
                .plain
                .iter()
                .map(|(name, sql)| format!("{sql} AS {}", quoted(name)))
                .collect();
            return (
                format!("pg_catalog.to_jsonb(x.*) AS j, {at}"),
                inner.join(", "),
                String::new(),
            );
        }
        let mut inner: Vec<String> = Vec::new();
        let mut take = |sql: &str| {
            inner.push(format!("{sql} AS c{}", inner.len()));
            format!("x.c{}", inner.len() - 1)
        };
        let columns: Vec<String> = self
            .plain
            .iter()
            .map(|(name, sql)| format!("{} AS {}", take(sql), quoted(name)))
            .collect();
        let (mut json, shape) = match columns.is_empty() {
            true => ("'{}'::jsonb".to_owned(), String::new()),
            false => (
                "pg_catalog.to_jsonb(r.*)".to_owned(),
                format!(" CROSS JOIN LATERAL (SELECT {}) r", columns.join(", ")),
            ),
        };
        for (name, sql) in &self.named {
            json.push_str(&format!(
                " || pg_catalog.jsonb_build_object({name}, {})",
                take(sql)
            ));
        }
        let at = place(
            order
                .iter()
                .map(|o| format!("{}::text", take(&o.sql)))
                .collect(),
        );
        (format!("{json} AS j, {at}"), inner.join(", "), shape)
    }
}

fn row(request: &Value, em: &mut Emitter<'_>, place: &Place, joins: &mut Joins) -> Fallible<Row> {
    let mut row = Row::default();
    let own = |name: &str| (name.to_owned(), dotted(&place.alias, name));
    let Some(asked) = fields(request, place)? else {
        row.plain = shown(&place.table).map(own).collect();
        return Ok(row);
    };
    let mut seen: Vec<String> = Vec::new();
    for path in asked {
        let asked = path.join(".");
        if seen.contains(&asked) {
            continue;
        }
        // Most fields are columns of the table itself.
        if let [name] = path.as_slice() {
            if place.table.column(name).is_some() {
                row.plain.push(own(name));
                seen.push(asked);
                continue;
            }
        }
        let Some(scalar) = joins.scalar(em, place, &path)? else {
            continue;
        };
        // A name that is not the catalog's own goes along as a value.
        if scalar.name == asked && asked.len() <= LONGEST_NAME {
            row.plain.push((asked.clone(), scalar.sql));
        } else {
            let name = em.text_param(Some(asked.clone()), "fields")?;
            row.named.push((name, scalar.sql));
        }
        seen.push(asked);
    }
    Ok(row)
}

/// What is shown where nobody says what: not bytes, and not what only a search engine reads.
fn shown(table: &Table) -> impl Iterator<Item = &str> {
    let readable = |c: &&Column| {
        !matches!(c.kind, Kind::Bytes)
            && c.sql_type != "tsvector"
            && !c.sql_type.ends_with("vector")
    };
    table
        .columns
        .iter()
        .filter(readable)
        .map(|c| c.name.as_str())
}

/// The paths asked for; None = what is shown where nobody says what.
fn fields(request: &Value, place: &Place) -> Fallible<Option<Vec<Vec<String>>>> {
    let asked = match request.get("fields") {
        Some(Value::Array(items)) if !items.is_empty() => items,
        _ => return Ok(None),
    };
    if asked.len() > MOST_FIELDS {
        return Err(Wrong::new(
            "fields",
            format!("fields: more than {MOST_FIELDS}"),
        ));
    }
    let mut wanted = Vec::new();
    for item in asked {
        match item.as_str() {
            Some("*") => wanted.extend(place.table.columns.iter().map(|c| vec![c.name.clone()])),
            Some(path) => wanted.push(split(path, "fields")?),
            None => {
                return Err(Wrong::new(
                    "fields",
                    "fields: every field is a name in quotes",
                ))
            }
        }
    }
    Ok(Some(wanted))
}

/// One term of an order.
pub struct Term {
    pub sql: String,
    column: Column,
    down: bool,
    empty_first: bool,
}

impl Term {
    pub fn sql(&self) -> String {
        let way = if self.down { " DESC" } else { "" };
        // PostgreSQL's own default needs no words.
        let empty = match (self.down, self.empty_first) {
            (false, true) => " NULLS FIRST",
            (true, false) => " NULLS LAST",
            _ => "",
        };
        format!("{}{way}{empty}", self.sql)
    }
}

/// A term as written: "due_at desc nulls last".
pub struct Asked {
    pub path: String,
    pub down: bool,
    pub empty_first: bool,
}

/// The terms of an order text, or of a list of such texts.
pub fn asked_order(request: &Value) -> Fallible<Vec<Asked>> {
    let texts: Vec<&str> = match request.get("order") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::String(s)) => s.split(',').collect(),
        Some(Value::Array(items)) => items
            .iter()
            .map(|i| {
                i.as_str().ok_or_else(|| {
                    Wrong::new("order", "order: a list of texts like \"due_at desc\"")
                })
            })
            .collect::<Fallible<_>>()?,
        Some(_) => {
            return Err(Wrong::new(
                "order",
                "order: a text like \"priority, due_at desc\"",
            ))
        }
    };
    let texts = texts.iter().map(|t| t.trim()).filter(|t| !t.is_empty());
    let terms = texts.map(one_term).collect::<Fallible<Vec<_>>>()?;
    if terms.len() > MOST_ORDER {
        return Err(Wrong::new(
            "order",
            format!("order: more than {MOST_ORDER} terms"),
        ));
    }
    Ok(terms)
}

fn one_term(text: &str) -> Fallible<Asked> {
    let mut words = text.split_whitespace();
    let path = words.next().unwrap_or("").to_owned();
    let rest: Vec<String> = words.map(str::to_ascii_lowercase).collect();
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let (down, empty) = match rest.as_slice() {
        [] | ["asc"] => (false, None),
        ["desc"] => (true, None),
        ["nulls", n] | ["asc", "nulls", n] => (false, Some(*n)),
        ["desc", "nulls", n] => (true, Some(*n)),
        _ => return Err(bad_order(text)),
    };
    let empty_first = match empty {
        None => down,
        Some("first") => true,
        Some("last") => false,
        Some(_) => return Err(bad_order(text)),
    };
    Ok(Asked {
        path,
        down,
        empty_first,
    })
}

fn bad_order(text: &str) -> Wrong {
    Wrong::new(
        "order",
        format!(
            "order: {} is not a field with asc or desc",
            super::value::shown(&json!(text))
        ),
    )
    .hint("Write \"due_at desc, id\"; nulls first or nulls last may follow.")
}

fn order(
    request: &Value,
    em: &mut Emitter<'_>,
    place: &Place,
    joins: &mut Joins,
) -> Fallible<Vec<Term>> {
    let mut terms: Vec<Term> = Vec::new();
    for asked in asked_order(request)? {
        let path = split(&asked.path, "order")?;
        let Some(Scalar { sql, column, .. }) = joins.scalar(em, place, &path)? else {
            continue;
        };
        if !column.ordered {
            return Err(Wrong::new(
                "order",
                format!("order: {} has no order ({})", asked.path, column.sql_type),
            ));
        }
        terms.push(Term {
            sql,
            column,
            down: asked.down,
            empty_first: asked.empty_first,
        });
    }
    let down = !terms.is_empty() && terms.iter().all(|t| t.down);
    for key in &place.table.key {
        let sql = super::emit::dotted(&place.alias, key);
        let Some(column) = place.table.column(key).cloned() else {
            continue;
        };
        if terms.iter().all(|t| t.sql != sql) {
            terms.push(Term {
                sql,
                column,
                down,
                empty_first: down,
            });
        }
    }
    Ok(terms)
}

/// What a cursor belongs to: another table or order makes it worthless.
fn fingerprint(em: &Emitter<'_>, order: &[Term], table: &Table) -> String {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut eat = |text: &str| {
        for b in text.bytes().chain([0]) {
            hash = (hash ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    eat(&relation(table));
    for term in order {
        eat(&term.sql());
        // A path into JSON is a parameter: its keys are part of the order.
        for place in term
            .sql
            .match_indices("$1[")
            .filter_map(|(i, _)| term.sql[i + 3..].split(']').next())
        {
            if let Some(Some(value)) = place
                .parse::<usize>()
                .ok()
                .and_then(|n| em.params.get(n.wrapping_sub(1)))
            {
                eat(value);
            }
        }
    }
    format!("{hash:016x}")
}

/// The rows after the one whose values the cursor holds.
fn after(
    em: &mut Emitter<'_>,
    order: &[Term],
    cursor: &Value,
    mark: &str,
    keyed: bool,
) -> Fallible<String> {
    let foreign = || {
        Wrong::new("cursor", "cursor: it belongs to another model or order").hint(
            "Send next_cursor of the page before with the same model and order, or no cursor.",
        )
    };
    let (first, values) = cursor
        .as_array()
        .and_then(|c| c.split_first())
        .ok_or_else(foreign)?;
    if !keyed || first.as_str() != Some(mark) || values.len() != order.len() {
        return Err(foreign());
    }
    let mut places = Vec::new();
    for (term, value) in order.iter().zip(values) {
        places.push(match value {
            Value::Null => None,
            Value::String(s) => Some(em.param(Some(s.clone()), &term.column.sql_type, "cursor")?),
            _ => return Err(foreign()),
        });
    }
    let all_full = places.iter().all(Option::is_some)
        && order
            .iter()
            .all(|t| !t.column.nullable && t.column.operators.is_none());
    let same_way = order.windows(2).all(|w| w[0].down == w[1].down);
    if all_full && same_way {
        // One comparison of rows: an index on the order answers it.
        let sign = if order.first().is_some_and(|t| t.down) {
            "<"
        } else {
            ">"
        };
        let left: Vec<&str> = order.iter().map(|t| t.sql.as_str()).collect();
        let right: Vec<String> = places.into_iter().flatten().collect();
        return Ok(format!(
            "({}) {sign} ({})",
            left.join(", "),
            right.join(", ")
        ));
    }
    let mut ways = Vec::new();
    let mut equal: Vec<String> = Vec::new();
    for (term, place) in order.iter().zip(&places) {
        if let Some(beyond) = beyond(term, place.as_deref()) {
            let mut parts = equal.clone();
            parts.push(beyond);
            ways.push(parts.join(" AND "));
        }
        equal.push(match place {
            Some(p) => format!("{} {} {p}", term.sql, operator(&term.column, "=")),
            None => format!("{} IS NULL", term.sql),
        });
    }
    Ok(match ways.len() {
        0 => "FALSE".into(),
        _ => ways
            .iter()
            .map(|w| format!("({w})"))
            .collect::<Vec<_>>()
            .join(" OR "),
    })
}

fn beyond(term: &Term, place: Option<&str>) -> Option<String> {
    match (place, term.empty_first) {
        (None, true) => Some(format!("{} IS NOT NULL", term.sql)),
        (None, false) => None,
        (Some(p), empty_first) => {
            let sign = if term.down { "<" } else { ">" };
            let more = format!("{} {} {p}", term.sql, operator(&term.column, sign));
            Some(if empty_first || !term.column.nullable {
                more
            } else {
                format!("({more} OR {} IS NULL)", term.sql)
            })
        }
    }
}

/// The name nearest to one that is not among the outputs.
pub fn no_output<'a>(
    field: &str,
    name: &str,
    outputs: impl Iterator<Item = &'a str> + Clone,
) -> Wrong {
    Wrong::new(
        field,
        format!("{field}: {name} is none of the columns of this answer"),
    )
    .hint(match crate::nearest::nearest(name, outputs.clone()) {
        Some(near) => format!("Did you mean {near}?"),
        None => format!("Its columns are: {}", listed(outputs)),
    })
}
