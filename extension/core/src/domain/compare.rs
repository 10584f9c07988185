//! One expression, one operator, one value. A negative operator selects exactly the rows that its
//! opposite does not, empty ones included, as Odoo's do.

use super::catalog::{Column, Kind};
use super::emit::{operator, Emitter};
use super::parse::Op;
use super::value::{array_of, bind, bind_list, is_empty, pattern, shown};
use super::{Fallible, Wrong};
use serde_json::Value;

/// The condition as SQL.
pub fn compare(
    em: &mut Emitter<'_>,
    expr: &str,
    column: &Column,
    op: Op,
    value: &Value,
    field: &str,
) -> Fallible<String> {
    if let Some(positive) = op.positive() {
        if column.kind != Kind::Boolean {
            let found = compare(em, expr, column, positive, value, field)?;
            return Ok(negated(&found));
        }
    }
    match (op, &column.kind) {
        (Op::EqMaybe, _) if value.is_null() || *value == Value::Bool(false) => Ok("TRUE".into()),
        (Op::EqMaybe, _) => compare(em, expr, column, Op::Eq, value, field),
        (Op::Eq | Op::Ne | Op::In | Op::NotIn, Kind::Boolean) => {
            truth(expr, column, op, value, field)
        }
        (Op::Eq, Kind::Array(element)) => array_equal(em, expr, column, element, value, field),
        (Op::In, Kind::Array(element)) => array_overlap(em, expr, column, element, value, field),
        (Op::Eq, kind) if value.is_array() && !matches!(kind, Kind::Json | Kind::Jsonb) => {
            member(em, expr, column, value, field)
        }
        (Op::Eq, _) => equal(em, expr, column, value, field),
        (Op::In, _) => member(em, expr, column, value, field),
        (Op::Gt | Op::Ge | Op::Lt | Op::Le, _) => ordered(em, expr, column, op, value, field),
        (Op::Like | Op::Ilike | Op::EqLike | Op::EqIlike, _) => {
            like(em, expr, column, op, value, field)
        }
        (Op::NotLike | Op::NotIlike, Kind::Boolean) => {
            let positive = op.positive().unwrap_or(Op::Like);
            Ok(negated(&like(em, expr, column, positive, value, field)?))
        }
        _ => Err(Wrong::new(
            field,
            format!(
                "{field}: {} does not work here; {} leads to no other record",
                op.word(),
                column.name
            ),
        )),
    }
}

/// Everything but these rows; NULL counts as not found.
pub fn negated(sql: &str) -> String {
    match sql {
        "TRUE" => "FALSE".into(),
        "FALSE" => "TRUE".into(),
        found => format!("({found}) IS NOT TRUE"),
    }
}

fn truth(expr: &str, column: &Column, op: Op, value: &Value, field: &str) -> Fallible<String> {
    let one = |v: &Value| match v {
        Value::Null => Ok(false),
        v => bind(v, column, field).map(|b| b.text == "true"),
    };
    let wanted = match value {
        Value::Array(items) => items.iter().map(one).collect::<Fallible<Vec<_>>>()?,
        v => vec![one(v)?],
    };
    let negative = op.positive().is_some();
    let yes = wanted.contains(&true) != negative;
    let no = wanted.contains(&false) != negative;
    Ok(match (yes, no, column.nullable) {
        (true, true, _) => "TRUE".into(),
        (false, false, _) => "FALSE".into(),
        (true, false, true) => format!("{expr} IS TRUE"),
        (false, true, true) => format!("{expr} IS NOT TRUE"),
        (true, false, false) => expr.into(),
        (false, true, false) => format!("NOT {expr}"),
    })
}

fn equal(
    em: &mut Emitter<'_>,
    expr: &str,
    column: &Column,
    value: &Value,
    field: &str,
) -> Fallible<String> {
    if is_empty(value, column) {
        return Ok(format!("{expr} IS NULL"));
    }
    equatable(column, field)?;
    let bound = bind(value, column, field)?;
    let place = em.param(Some(bound.text), &bound.sql_type, field)?;
    Ok(format!(
        "{} {} {place}",
        comparable(expr, column),
        operator(column, "=")
    ))
}

fn member(
    em: &mut Emitter<'_>,
    expr: &str,
    column: &Column,
    value: &Value,
    field: &str,
) -> Fallible<String> {
    let one;
    let items: &[Value] = match value {
        Value::Array(items) => items,
        other => {
            one = [other.clone()];
            &one
        }
    };
    let full: Vec<&Value> = items.iter().filter(|v| !is_empty(v, column)).collect();
    let or_empty = full.len() < items.len();
    if full.is_empty() {
        return Ok(if or_empty {
            format!("{expr} IS NULL")
        } else {
            "FALSE".into()
        });
    }
    equatable(column, field)?;
    let bound = bind_list(&full, column, field)?;
    let place = em.param(Some(bound.text), &bound.sql_type, field)?;
    let found = format!(
        "{} {} ANY ({place})",
        comparable(expr, column),
        operator(column, "=")
    );
    Ok(if or_empty {
        format!("({found} OR {expr} IS NULL)")
    } else {
        found
    })
}

fn array_equal(
    em: &mut Emitter<'_>,
    expr: &str,
    column: &Column,
    element: &Column,
    value: &Value,
    field: &str,
) -> Fallible<String> {
    match value {
        v if is_empty(v, column) => Ok(format!(
            "({expr} IS NULL OR pg_catalog.cardinality({expr}) = 0)"
        )),
        Value::Array(items) => {
            equatable(element, field)?;
            let bound = array_of(items, element, field)?;
            let place = em.param(Some(bound.text), &bound.sql_type, field)?;
            Ok(format!("{expr} = {place}"))
        }
        one => {
            equatable(element, field)?;
            let bound = bind(one, element, field)?;
            let place = em.param(Some(bound.text), &bound.sql_type, field)?;
            Ok(format!("{place} {} ANY ({expr})", operator(element, "=")))
        }
    }
}

/// A list column is in a list when the two share an element.
fn array_overlap(
    em: &mut Emitter<'_>,
    expr: &str,
    column: &Column,
    element: &Column,
    value: &Value,
    field: &str,
) -> Fallible<String> {
    let Value::Array(items) = value else {
        return array_equal(em, expr, column, element, value, field);
    };
    let full: Vec<Value> = items
        .iter()
        .filter(|v| !is_empty(v, element))
        .cloned()
        .collect();
    let empty = format!("({expr} IS NULL OR pg_catalog.cardinality({expr}) = 0)");
    let or_empty = full.len() < items.len();
    if full.is_empty() {
        return Ok(if or_empty { empty } else { "FALSE".into() });
    }
    equatable(element, field)?;
    // Elements outside the column's range cannot be shared with it.
    let bound = array_of(&full, element, field)?;
    let place = em.param(Some(bound.text), &bound.sql_type, field)?;
    let found = format!("{expr} && {place}");
    Ok(if or_empty {
        format!("({found} OR {empty})")
    } else {
        found
    })
}

fn ordered(
    em: &mut Emitter<'_>,
    expr: &str,
    column: &Column,
    op: Op,
    value: &Value,
    field: &str,
) -> Fallible<String> {
    if !column.ordered
        || matches!(
            column.kind,
            Kind::Boolean | Kind::Json | Kind::Jsonb | Kind::Array(_)
        )
    {
        return Err(Wrong::new(
            field,
            format!(
                "{field}: {} has no order, so {} does not work on it",
                column.sql_type,
                op.word()
            ),
        ));
    }
    if is_empty(value, column) {
        return Err(Wrong::new(
            field,
            format!("{field}: {} needs a value, not {}", op.word(), shown(value)),
        )
        .hint("To ask whether it is empty use [field, \"=\", false]."));
    }
    let bound = bind(value, column, field)?;
    let place = em.param(Some(bound.text), &bound.sql_type, field)?;
    Ok(format!("{expr} {} {place}", operator(column, op.word())))
}

fn like(
    em: &mut Emitter<'_>,
    expr: &str,
    column: &Column,
    op: Op,
    value: &Value,
    field: &str,
) -> Fallible<String> {
    // Odoo: an empty text is found in everything.
    if value.is_null() || *value == Value::Bool(false) || value.as_str() == Some("") {
        return Ok("TRUE".into());
    }
    let text = closed(pattern(value, field)?);
    let whole = matches!(op, Op::EqLike | Op::EqIlike);
    let text = if whole { text } else { format!("%{text}%") };
    let sign = if matches!(op, Op::Ilike | Op::EqIlike) {
        "ILIKE"
    } else {
        "LIKE"
    };
    let place = em.text_param(Some(text), field)?;
    Ok(match &column.kind {
        Kind::Array(_) => format!("EXISTS (SELECT 1 FROM pg_catalog.unnest({expr}) AS e(v) WHERE e.v::text {sign} {place})"),
        // Others are compared as text; char(n) too, or its blanks would count.
        Kind::Text if matches!(column.sql_type.as_str(), "text" | "character varying") => format!("{expr} {sign} {place}"),
        _ => format!("{expr}::text {sign} {place}"),
    })
}

/// A pattern may not end in an open escape.
fn closed(mut text: String) -> String {
    if text.chars().rev().take_while(|c| *c == '\\').count() % 2 == 1 {
        text.push('\\');
    }
    text
}

fn comparable(expr: &str, column: &Column) -> String {
    match column.kind {
        Kind::Json => format!("{expr}::jsonb"),
        _ => expr.to_owned(),
    }
}

fn equatable(column: &Column, field: &str) -> Fallible<()> {
    if column.equatable || matches!(column.kind, Kind::Json | Kind::Jsonb) {
        return Ok(());
    }
    Err(Wrong::new(
        field,
        format!(
            "{field}: values of type {} cannot be compared",
            column.sql_type
        ),
    )
    .hint("Ask whether it is empty ([field, \"=\", false]) or use ilike, which compares its text."))
}
