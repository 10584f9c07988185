//! Figures over records: groups (dates by hour to year), measures, conditions on the figures.

use super::catalog::{Column, Kind, Table};
use super::compare::{compare, negated};
use super::emit::{quoted, relation, Emitter};
use super::parse::{domain, Expr};
use super::paths::{split, Joins, Place};
use super::search::{asked_order, filter, no_output, root};
use super::{literal, Fallible, Wrong};
use crate::nearest::nearest;
use serde_json::{json, Map, Value};
use std::rc::Rc;

const MOST_COLUMNS: usize = 30;
const PERIODS: [&str; 6] = ["hour", "day", "week", "month", "quarter", "year"];
const FUNCTIONS: [&str; 8] = [
    "count",
    "count_distinct",
    "sum",
    "avg",
    "min",
    "max",
    "bool_and",
    "bool_or",
];

/// A column of the answer.
struct Output {
    name: String,
    sql: String,
    column: Column,
}

pub fn aggregate(
    request: &Value,
    em: &mut Emitter<'_>,
    table: &Rc<Table>,
) -> Fallible<Map<String, Value>> {
    let place = root(em, request, table);
    let mut joins = Joins::default();
    let groups = texts(request, "group_by")?
        .iter()
        .map(|g| group(em, &place, &mut joins, g))
        .collect::<Fallible<Vec<_>>>()?;
    let mut asked = texts(request, "measures")?;
    if asked.is_empty() {
        asked.push("count".into());
    }
    let measures = asked
        .iter()
        .map(|m| measure(em, &place, &mut joins, m))
        .collect::<Fallible<Vec<_>>>()?;
    let (groups, measures): (Vec<Output>, Vec<Output>) = (
        groups.into_iter().flatten().collect(),
        measures.into_iter().flatten().collect(),
    );
    if groups.len() + measures.len() > MOST_COLUMNS {
        return Err(Wrong::new(
            "measures",
            format!("measures: more than {MOST_COLUMNS} columns in one answer"),
        ));
    }
    let filter = filter(em, request, "domain", &place)?;
    let having = having(request, em, &groups, &measures)?;
    let mut outputs: Vec<&Output> = Vec::new();
    for output in groups.iter().chain(&measures) {
        if !outputs.iter().any(|o| o.name == output.name) {
            outputs.push(output);
        }
    }
    let list: Vec<String> = outputs
        .iter()
        .map(|o| format!("{} AS {}", o.sql, quoted(&o.name)))
        .collect();
    let mut sql = format!(
        "SELECT pg_catalog.to_jsonb(r.*) AS j, NULL::text[] AS at FROM (SELECT {} FROM {} {}{} WHERE {filter}",
        list.join(", "),
        relation(table),
        place.alias,
        joins.sql
    );
    let is_group = |o: &&&Output| groups.iter().any(|g| g.name == o.name);
    let grouped: Vec<String> = (1..=outputs.iter().filter(is_group).count())
        .map(|n| n.to_string())
        .collect();
    if !grouped.is_empty() {
        sql.push_str(&format!(" GROUP BY {}", grouped.join(", ")));
    }
    sql.push_str(&format!(" HAVING {having}"));
    let order = order(request, &outputs)?;
    if !order.is_empty() {
        sql.push_str(&format!(" ORDER BY {}", order.join(", ")));
    } else if !grouped.is_empty() {
        sql.push_str(&format!(" ORDER BY {}", grouped.join(", ")));
    }
    let limit = request.get("limit").and_then(Value::as_u64).unwrap_or(100);
    sql.push_str(&format!(" LIMIT {}) r", limit + 1));
    Ok(Map::from_iter([
        ("sql".to_owned(), json!(sql)),
        ("keyed".to_owned(), json!(false)),
    ]))
}

/// A list of texts; one text stands for a list of one.
fn texts(request: &Value, key: &str) -> Fallible<Vec<String>> {
    let one = |v: &Value| {
        v.as_str()
            .map(str::to_owned)
            .ok_or_else(|| Wrong::new(key, format!("{key}: every entry is a name in quotes")))
    };
    match request.get(key) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(items)) => items.iter().map(one).collect(),
        Some(other) => Ok(vec![one(other)?]),
    }
}

/// field, or field:period for a date.
fn group(
    em: &mut Emitter<'_>,
    place: &Place,
    joins: &mut Joins,
    text: &str,
) -> Fallible<Option<Output>> {
    let (path, period) = match text.split_once(':') {
        Some((path, period)) => (path, Some(period.trim())),
        None => (text, None),
    };
    let Some(scalar) = joins.scalar(em, place, &split(path, "group_by")?)? else {
        return Ok(None);
    };
    if scalar.name.is_empty() {
        return Err(Wrong::new(
            "group_by",
            format!("group_by: {path} is inside JSON, which cannot be grouped by"),
        ));
    }
    let Some(period) = period else {
        if !scalar.column.equatable {
            return Err(Wrong::new(
                "group_by",
                format!(
                    "group_by: {path} ({}) cannot be grouped by",
                    scalar.column.sql_type
                ),
            ));
        }
        return Ok(Some(Output {
            name: scalar.name,
            sql: scalar.sql,
            column: scalar.column,
        }));
    };
    let Some(known) = PERIODS.iter().find(|p| **p == period) else {
        return Err(Wrong::new(
            "group_by",
            format!(
                "group_by: {} is no period",
                super::value::shown(&json!(period))
            ),
        )
        .hint(format!("Periods are: {}", PERIODS.join(", "))));
    };
    if scalar.column.kind != Kind::Temporal || scalar.column.sql_type.starts_with("time ") {
        return Err(Wrong::new(
            "group_by",
            format!("group_by: {path} is {}, not a date", scalar.column.sql_type),
        ));
    }
    let cut = format!("pg_catalog.date_trunc('{known}', {})", scalar.sql);
    let sql = if scalar.column.sql_type == "date" {
        format!("{cut}::date")
    } else {
        cut
    };
    Ok(Some(Output {
        name: format!("{}:{known}", scalar.name),
        sql,
        column: scalar.column,
    }))
}

/// count, or field:function.
fn measure(
    em: &mut Emitter<'_>,
    place: &Place,
    joins: &mut Joins,
    text: &str,
) -> Fallible<Option<Output>> {
    if matches!(text, "count" | "__count" | "*:count") {
        let column = Column::computed("count", "bigint", Kind::Integer { bits: 64 });
        return Ok(Some(Output {
            name: "count".into(),
            sql: "pg_catalog.count(*)".into(),
            column,
        }));
    }
    let Some((path, function)) = text.split_once(':') else {
        return Err(Wrong::new("measures", format!("measures: {} is not field:function", super::value::shown(&json!(text))))
            .hint("Write count, or a field and one of sum, avg, min, max, count, count_distinct: \"pieces:sum\"."));
    };
    let Some(function) = FUNCTIONS.iter().find(|f| **f == function.trim()) else {
        return Err(Wrong::new(
            "measures",
            format!(
                "measures: {} is no function",
                super::value::shown(&json!(function))
            ),
        )
        .hint(match nearest(function, FUNCTIONS) {
            Some(near) => format!("Did you mean {near}?"),
            None => format!("Functions are: {}", FUNCTIONS.join(", ")),
        }));
    };
    let Some(scalar) = joins.scalar(em, place, &split(path, "measures")?)? else {
        return Ok(None);
    };
    let c = &scalar.column;
    let number = matches!(c.kind, Kind::Integer { .. } | Kind::Number | Kind::Float)
        || matches!(c.sql_type.as_str(), "interval" | "money");
    let fits = match *function {
        "sum" | "avg" => number && !(*function == "avg" && c.sql_type == "money"),
        "min" | "max" => {
            c.ordered
                && !matches!(
                    c.kind,
                    Kind::Boolean | Kind::Jsonb | Kind::Uuid | Kind::Bytes
                )
        }
        "bool_and" | "bool_or" => c.kind == Kind::Boolean,
        "count_distinct" => c.equatable,
        _ => true,
    };
    if !fits || scalar.name.is_empty() {
        return Err(Wrong::new(
            "measures",
            format!(
                "measures: {function} does not work on {path} ({})",
                c.sql_type
            ),
        ));
    }
    let sql = match *function {
        "count_distinct" => format!("pg_catalog.count(DISTINCT {})", scalar.sql),
        plain => format!("pg_catalog.{plain}({})", scalar.sql),
    };
    let column = match *function {
        "count" | "count_distinct" => {
            Column::computed("count", "bigint", Kind::Integer { bits: 64 })
        }
        "sum" | "avg" if matches!(c.kind, Kind::Integer { .. } | Kind::Number) => {
            Column::computed("sum", "numeric", Kind::Number)
        }
        _ => Column {
            nullable: true,
            ..c.clone()
        },
    };
    Ok(Some(Output {
        name: format!("{}:{function}", scalar.name),
        sql,
        column,
    }))
}

/// Conditions on figures: the same grammar, with the answer's columns for fields.
fn having(
    request: &Value,
    em: &mut Emitter<'_>,
    groups: &[Output],
    measures: &[Output],
) -> Fallible<String> {
    let parsed = match request.get("having") {
        Some(Value::String(text)) => domain(&literal::parse(text)?)?,
        Some(other) => domain(other)?,
        None => Expr::Always(true),
    };
    figures(em, &parsed, groups, measures)
}

fn figures(
    em: &mut Emitter<'_>,
    expr: &Expr,
    groups: &[Output],
    measures: &[Output],
) -> Fallible<String> {
    let mut all = |terms: &[Expr], with: &str| -> Fallible<String> {
        let parts = terms
            .iter()
            .map(|t| figures(em, t, groups, measures))
            .collect::<Fallible<Vec<_>>>()?;
        Ok(format!("({})", parts.join(with)))
    };
    match expr {
        Expr::Always(b) => Ok(if *b { "TRUE" } else { "FALSE" }.into()),
        Expr::All(terms) => all(terms, " AND "),
        Expr::Either(terms) => all(terms, " OR "),
        Expr::Not(inner) => figures(em, inner, groups, measures).map(|s| negated(&s)),
        Expr::Leaf(leaf) => {
            let field = leaf.field();
            let name = if field == "__count" {
                "count"
            } else {
                field.as_str()
            };
            let outputs = || groups.iter().chain(measures);
            match outputs().find(|o| o.name == name) {
                Some(o) => compare(em, &o.sql, &o.column, leaf.op, &leaf.value, &field),
                None => Err(no_output(
                    "having",
                    name,
                    outputs().map(|o| o.name.as_str()),
                )),
            }
        }
    }
}

fn order(request: &Value, outputs: &[&Output]) -> Fallible<Vec<String>> {
    asked_order(request)?
        .iter()
        .map(|asked| {
            let name = if asked.path == "__count" {
                "count"
            } else {
                asked.path.as_str()
            };
            let Some(n) = outputs.iter().position(|o| o.name == name) else {
                return Err(no_output(
                    "order",
                    name,
                    outputs.iter().map(|o| o.name.as_str()),
                ));
            };
            let way = if asked.down { " DESC" } else { "" };
            let empty = if asked.empty_first {
                " NULLS FIRST"
            } else {
                " NULLS LAST"
            };
            Ok(format!("{}{way}{empty}", n + 1))
        })
        .collect()
}
