//! From the tree of a domain to a WHERE condition: links become EXISTS, so no row is ever doubled.

use super::catalog::{Column, Kind, Link};
use super::compare::{compare, negated};
use super::emit::{array_text, dotted, relation, Emitter};
use super::hierarchy;
use super::parse::{subdomain, Expr, Leaf, Op};
use super::paths::{find, leads_nowhere, Found, Place};
use super::value::bind;
use super::{Fallible, Wrong};
use serde_json::Value;

/// The condition of a whole domain.
pub fn condition(em: &mut Emitter<'_>, place: &Place, expr: &Expr) -> Fallible<String> {
    match expr {
        Expr::Always(b) => Ok(if *b { "TRUE" } else { "FALSE" }.into()),
        Expr::All(terms) => joined(em, place, terms, " AND "),
        Expr::Either(terms) => joined(em, place, terms, " OR "),
        Expr::Not(inner) => condition(em, place, inner).map(|sql| negated(&sql)),
        Expr::Leaf(leaf) => at(em, place, &leaf.path, leaf),
    }
}

fn joined(em: &mut Emitter<'_>, place: &Place, terms: &[Expr], with: &str) -> Fallible<String> {
    let parts = terms
        .iter()
        .map(|t| condition(em, place, t))
        .collect::<Fallible<Vec<_>>>()?;
    Ok(format!("({})", parts.join(with)))
}

/// The condition of a leaf, with `path` what is left of its path at this place.
fn at(em: &mut Emitter<'_>, place: &Place, path: &[String], leaf: &Leaf) -> Fallible<String> {
    let field = leaf.field();
    let Some((head, rest)) = path.split_first() else {
        return Err(Wrong::new("domain", "a field name is empty"));
    };
    match find(em, place, head, &field)? {
        Found::Back(link) if rest.is_empty() => many(em, place, &link, leaf),
        Found::Back(link) => related(em, place, &link, |em, far| at(em, far, rest, leaf)),
        Found::Column(column) if rest.is_empty() => own(em, place, &column, leaf),
        Found::Column(column) => match place.table.links.get(&column.name).cloned() {
            Some(link) => related(em, place, &link, |em, far| at(em, far, rest, leaf)),
            None if matches!(column.kind, Kind::Json | Kind::Jsonb) => {
                in_json(em, place, &column, rest, leaf)
            }
            None => Err(leads_nowhere(&column, &field, &rest[0])),
        },
    }
}

/// A record over there for which `inner` holds.
fn related(
    em: &mut Emitter<'_>,
    place: &Place,
    link: &Link,
    inner: impl FnOnce(&mut Emitter<'_>, &Place) -> Fallible<String>,
) -> Fallible<String> {
    let Some(table) = em.table(link.to) else {
        return Ok("FALSE".into());
    };
    let far = Place {
        id: link.to,
        table,
        alias: em.fresh(),
    };
    let condition = inner(em, &far)?;
    Ok(format!(
        "EXISTS (SELECT 1 FROM {} {} WHERE {} AND {condition})",
        relation(&far.table),
        far.alias,
        Emitter::on(link, &place.alias, &far.alias)
    ))
}

/// A condition on a column of this very table.
fn own(em: &mut Emitter<'_>, place: &Place, column: &Column, leaf: &Leaf) -> Fallible<String> {
    let field = leaf.field();
    let expr = dotted(&place.alias, &column.name);
    let link = place.table.links.get(&column.name).cloned();
    match (leaf.op, link) {
        (Op::ChildOf | Op::ParentOf, link) => {
            hierarchy::condition(em, place, column, link.as_ref(), leaf)
        }
        (Op::Any | Op::NotAny, Some(link)) => any(em, place, &link, leaf),
        (op, Some(link)) if means_name(op, &leaf.value, column) => {
            let positive = op.positive();
            let found = named(em, place, &link, positive.unwrap_or(op), leaf)?;
            Ok(if positive.is_some() {
                negated(&found)
            } else {
                found
            })
        }
        (op, _) => compare(em, &expr, column, op, &leaf.value, &field),
    }
}

/// any and not any: the value is a domain on the records over there.
fn any(em: &mut Emitter<'_>, place: &Place, link: &Link, leaf: &Leaf) -> Fallible<String> {
    let inner = subdomain(&leaf.value, &leaf.field())?;
    let found = related(em, place, link, |em, far| condition(em, far, &inner))?;
    Ok(if leaf.op == Op::NotAny {
        negated(&found)
    } else {
        found
    })
}

/// Is a link compared with a name instead of a key? ("printer_id", "ilike", "mk4")
fn means_name(op: Op, value: &Value, column: &Column) -> bool {
    if column.kind == Kind::Text {
        return false;
    }
    let word = |v: &Value| {
        matches!(v, Value::String(_)) && bind(v, column, "").is_err()
            || column.kind == Kind::Uuid && !is_uuid(v)
    };
    match op {
        Op::Like | Op::NotLike | Op::Ilike | Op::NotIlike | Op::EqLike | Op::EqIlike => true,
        Op::Eq | Op::Ne | Op::In | Op::NotIn | Op::EqMaybe => match value {
            Value::Array(items) => {
                !items.is_empty() && items.iter().all(|v| v.is_string() && word(v))
            }
            v => v.is_string() && word(v),
        },
        _ => false,
    }
}

fn is_uuid(value: &Value) -> bool {
    value
        .as_str()
        .is_some_and(|s| s.bytes().filter(u8::is_ascii_hexdigit).count() == 32)
}

/// The condition on the name of the record a link leads to.
fn named(
    em: &mut Emitter<'_>,
    place: &Place,
    link: &Link,
    op: Op,
    leaf: &Leaf,
) -> Fallible<String> {
    let field = leaf.field();
    related(em, place, link, |em, far| {
        let name = far
            .table
            .display
            .as_deref()
            .and_then(|n| far.table.column(n))
            .cloned();
        let Some(name) = name else {
            return Err(Wrong::new(
                &field,
                format!(
                    "{field}: {}.{} has no name to look for; use its key",
                    far.table.schema, far.table.name
                ),
            ));
        };
        let expr = dotted(&far.alias, &name.name);
        compare(em, &expr, &name, op, &leaf.value, &field)
    })
}

/// A condition on the records that point here: are there any, is one of these among them, is one called so?
fn many(em: &mut Emitter<'_>, place: &Place, link: &Link, leaf: &Leaf) -> Fallible<String> {
    let field = leaf.field();
    if matches!(leaf.op, Op::Any | Op::NotAny) {
        return any(em, place, link, leaf);
    }
    let positive = leaf.op.positive();
    let op = positive.unwrap_or(leaf.op);
    let empty = leaf.value.is_null() || leaf.value == Value::Bool(false);
    let found = match op {
        Op::Eq if empty => negated(&related(em, place, link, |_, _| Ok("TRUE".into()))?),
        Op::EqMaybe if empty => "TRUE".into(),
        Op::Eq | Op::In | Op::EqMaybe | Op::Like | Op::Ilike | Op::EqLike | Op::EqIlike => {
            related(em, place, link, |em, far| {
                let key = far.table.single_key().cloned();
                let name = far
                    .table
                    .display
                    .as_deref()
                    .and_then(|n| far.table.column(n))
                    .cloned();
                let by_name = key.as_ref().is_none_or(|k| means_name(op, &leaf.value, k));
                match if by_name { name } else { key } {
                    Some(column) => compare(
                        em,
                        &dotted(&far.alias, &column.name),
                        &column,
                        op,
                        &leaf.value,
                        &field,
                    ),
                    None => Err(Wrong::new(
                        &field,
                        format!("{field}: name a field of it, like {field}.id"),
                    )),
                }
            })?
        }
        other => {
            return Err(Wrong::new(
                &field,
                format!(
                    "{field}: {} does not work on many records; name a field of them",
                    other.word()
                ),
            ))
        }
    };
    Ok(if positive.is_some() {
        negated(&found)
    } else {
        found
    })
}

/// A path that goes on inside a JSON column.
fn in_json(
    em: &mut Emitter<'_>,
    place: &Place,
    column: &Column,
    keys: &[String],
    leaf: &Leaf,
) -> Fallible<String> {
    let field = leaf.field();
    let keys = array_text(&keys.iter().cloned().map(Some).collect::<Vec<_>>());
    let keys = em.param(Some(keys), "text[]", &field)?;
    let base = format!("{}::jsonb", dotted(&place.alias, &column.name));
    let text = format!("({base} #>> {keys})");
    let value = format!("({base} #> {keys})");
    let empty = leaf.value.is_null();
    match leaf.op {
        Op::Eq if empty => Ok(format!("{text} IS NULL")),
        Op::Ne if empty => Ok(format!("{text} IS NOT NULL")),
        Op::Eq | Op::Ne | Op::EqMaybe => compare(
            em,
            &value,
            &Column::computed("", "jsonb", Kind::Jsonb),
            leaf.op,
            &leaf.value,
            &field,
        ),
        Op::In | Op::NotIn if leaf.value.is_array() => compare(
            em,
            &value,
            &Column::computed("", "jsonb", Kind::Jsonb),
            leaf.op,
            &leaf.value,
            &field,
        ),
        Op::Gt | Op::Ge | Op::Lt | Op::Le if leaf.value.is_number() => {
            let number = format!(
                "CASE pg_catalog.jsonb_typeof{value} WHEN 'number' THEN {text}::numeric END"
            );
            compare(
                em,
                &format!("({number})"),
                &Column::computed("", "numeric", Kind::Number),
                leaf.op,
                &leaf.value,
                &field,
            )
        }
        _ => compare(
            em,
            &text,
            &Column::computed("", "text", Kind::Text),
            leaf.op,
            &leaf.value,
            &field,
        ),
    }
}
