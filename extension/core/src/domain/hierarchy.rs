//! child_of and parent_of: a record and all below or above it, along the table's link to itself.

use super::catalog::{Column, Link};
use super::compare::compare;
use super::emit::{dotted, relation, Emitter};
use super::parse::{Leaf, Op};
use super::paths::Place;
use super::{Fallible, Wrong};
use serde_json::Value;

/// The condition for a leaf whose operator is child_of or parent_of.
pub fn condition(
    em: &mut Emitter<'_>,
    place: &Place,
    column: &Column,
    link: Option<&Link>,
    leaf: &Leaf,
) -> Fallible<String> {
    let field = leaf.field();
    let (id, table) = match link {
        Some(link) => match em.table(link.to) {
            Some(far) => (link.to, far),
            None => return Ok("FALSE".into()),
        },
        None => (place.id, place.table.clone()),
    };
    let key = table.single_key().cloned();
    let key = match key {
        Some(key)
            if link.map_or(key.name == column.name, |l| {
                l.far_key.as_deref() == Some(&key.name)
            }) =>
        {
            key
        }
        _ => {
            return Err(Wrong::new(
                &field,
                format!(
                    "{field}: {} works on a record's own key or on a link to one",
                    leaf.op.word()
                ),
            )
            .hint("Write [\"id\", \"child_of\", 7] or [\"category_id\", \"child_of\", 7]."))
        }
    };
    let expr = dotted(&place.alias, &column.name);
    let here = Place {
        id,
        table,
        alias: em.fresh(),
    };
    let found = em.fresh();
    let roots = roots(em, &here, &key, leaf)?;
    if roots == "FALSE" {
        return Ok(roots);
    }
    let h = &here.alias;
    let from = relation(&here.table);
    let own = dotted(h, &key.name);
    let Some(parent) = here.table.parent.clone() else {
        // Nothing is above or below anything: the records themselves.
        return Ok(format!(
            "{expr} IN (SELECT {own} FROM {from} {h} WHERE {roots})"
        ));
    };
    let up = dotted(h, &parent);
    Ok(match leaf.op {
        Op::ParentOf => format!(
            "{expr} IN (WITH RECURSIVE {found}(k, p) AS (SELECT {own}, {up} FROM {from} {h} WHERE {roots} \
             UNION SELECT {own}, {up} FROM {from} {h} JOIN {found} ON {own} = {found}.p) SELECT {found}.k FROM {found})"
        ),
        _ => format!(
            "{expr} IN (WITH RECURSIVE {found}(k) AS (SELECT {own} FROM {from} {h} WHERE {roots} \
             UNION SELECT {own} FROM {from} {h} JOIN {found} ON {up} = {found}.k) SELECT {found}.k FROM {found})"
        ),
    })
}

/// Where to start: keys, or texts that names contain.
fn roots(em: &mut Emitter<'_>, here: &Place, key: &Column, leaf: &Leaf) -> Fallible<String> {
    let field = leaf.field();
    let one;
    let values: &[Value] = match &leaf.value {
        Value::Array(items) => items,
        other => {
            one = [other.clone()];
            &one
        }
    };
    let mut keys = Vec::new();
    let mut parts = Vec::new();
    for value in values {
        match value {
            Value::Null | Value::Bool(false) => {}
            Value::String(_) if super::value::bind(value, key, &field).is_err() => {
                let name = here
                    .table
                    .display
                    .as_deref()
                    .and_then(|n| here.table.column(n))
                    .cloned();
                let Some(name) = name else {
                    return Err(Wrong::new(
                        &field,
                        format!(
                            "{field}: {}.{} has no name to look for; use its key",
                            here.table.schema, here.table.name
                        ),
                    ));
                };
                parts.push(compare(
                    em,
                    &dotted(&here.alias, &name.name),
                    &name,
                    Op::Ilike,
                    value,
                    &field,
                )?);
            }
            other => keys.push(other.clone()),
        }
    }
    if !keys.is_empty() {
        let expr = dotted(&here.alias, &key.name);
        parts.push(compare(
            em,
            &expr,
            key,
            Op::In,
            &Value::Array(keys),
            &field,
        )?);
    }
    Ok(match parts.len() {
        0 => "FALSE".into(),
        _ => format!("({})", parts.join(" OR ")),
    })
}
