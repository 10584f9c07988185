//! Field paths: printer_id.name, order_lines.quantity, settings.require_job_approval.

use super::catalog::{Column, Kind, Link, Table, TableId};
use super::emit::{dotted, relation, Emitter};
use super::{listed, Fallible, Wrong};
use crate::nearest::nearest;
use std::collections::HashMap;
use std::rc::Rc;

const MOST_PARTS: usize = 8;
const MOST_BYTES: usize = 300;

/// A table in a query, under an alias of ours.
#[derive(Clone)]
pub struct Place {
    pub id: TableId,
    pub table: Rc<Table>,
    pub alias: String,
}

/// What one name of a path means.
pub enum Found {
    Column(Column),
    Back(Link),
}

/// The parts of a path.
pub fn split(path: &str, at: &str) -> Fallible<Vec<String>> {
    let parts: Vec<String> = path.split('.').map(|p| p.trim().to_owned()).collect();
    if path.len() > MOST_BYTES || parts.len() > MOST_PARTS {
        return Err(Wrong::new(
            at,
            format!("{at}: a field path has at most {MOST_PARTS} parts and {MOST_BYTES} bytes"),
        ));
    }
    if parts.iter().any(String::is_empty) {
        return Err(Wrong::new(at, format!("{at}: a field name is empty")));
    }
    Ok(parts)
}

/// What a name means in a table: a column, an other name of one, the link without its _id, or the records
/// of another table that point here.
pub fn find(em: &Emitter<'_>, place: &Place, name: &str, field: &str) -> Fallible<Found> {
    let table = &place.table;
    let own = |n: &str| table.column(n).cloned().map(Found::Column);
    if let Some(found) = own(name) {
        return Ok(found);
    }
    if let Some(alias) = em.alias_of(place.id, name) {
        if let Some(found) =
            own(&alias).or_else(|| table.back.get(&alias).cloned().map(Found::Back))
        {
            return Ok(found);
        }
    }
    let long = format!("{name}_id");
    if table.links.contains_key(&long) {
        if let Some(found) = own(&long) {
            return Ok(found);
        }
    }
    if let Some(link) = table.back.get(name) {
        return Ok(Found::Back(link.clone()));
    }
    if name == "display_name" {
        if let Some(found) = table.display.as_deref().and_then(own) {
            return Ok(found);
        }
    }
    Err(unknown(table, name, field))
}

fn unknown(table: &Table, name: &str, field: &str) -> Wrong {
    let names = || {
        table
            .columns
            .iter()
            .map(|c| c.name.as_str())
            .chain(table.back.keys().map(String::as_str))
    };
    let what = if name == field {
        format!("{}.{} has no field {name}", table.schema, table.name)
    } else {
        format!(
            "{field}: {}.{} has no field {name}",
            table.schema, table.name
        )
    };
    Wrong::new(field, what).hint(match nearest(name, names()) {
        Some(near) => format!("Did you mean {near}?"),
        None => format!("Fields are: {}", listed(names())),
    })
}

/// A path's last part leads nowhere further.
pub fn leads_nowhere(column: &Column, field: &str, next: &str) -> Wrong {
    Wrong::new(
        field,
        format!(
            "{field}: {} is {} and leads to no other record, so {next} cannot be read there",
            column.name, column.sql_type
        ),
    )
    .hint("Only a column that points to another table (or holds JSON) can be followed by a dot.")
}

/// Tables joined for reading and ordering: every link is followed once.
#[derive(Default)]
pub struct Joins {
    pub sql: String,
    known: HashMap<(String, String), Place>,
}

/// An expression for a path that has one value a record, its column, and its own name.
pub struct Scalar {
    pub sql: String,
    pub column: Column,
    pub name: String,
}

impl Joins {
    /// None = a table has to be learnt first.
    pub fn scalar(
        &mut self,
        em: &mut Emitter<'_>,
        root: &Place,
        path: &[String],
    ) -> Fallible<Option<Scalar>> {
        let field = path.join(".");
        let mut place = root.clone();
        let mut names: Vec<String> = Vec::new();
        for (i, part) in path.iter().enumerate() {
            let column = match find(em, &place, part, &field)? {
                Found::Column(column) => column,
                Found::Back(_) => {
                    return Err(Wrong::new(
                        &field,
                        format!(
                            "{field}: {part} are many records; only conditions can look into them"
                        ),
                    )
                    .hint("Read that table itself, or use aggregate_records on it."))
                }
            };
            names.push(column.name.clone());
            let rest = &path[i + 1..];
            let sql = dotted(&place.alias, &column.name);
            if rest.is_empty() {
                let mut column = column;
                column.nullable |= place.alias != root.alias;
                return Ok(Some(Scalar {
                    sql,
                    column,
                    name: names.join("."),
                }));
            }
            if let Some(link) = place.table.links.get(&column.name).cloned() {
                match self.follow(em, &place, &column.name, &link) {
                    Some(next) => place = next,
                    None => return Ok(None),
                }
            } else if matches!(column.kind, Kind::Json | Kind::Jsonb) {
                let keys =
                    super::emit::array_text(&rest.iter().cloned().map(Some).collect::<Vec<_>>());
                let keys = em.param(Some(keys), "text[]", &field)?;
                let sql = format!("({}::jsonb #> {keys})", sql);
                // The keys are the caller's words: the path has no name of its own.
                return Ok(Some(Scalar {
                    sql,
                    column: Column::computed(&column.name, "jsonb", Kind::Jsonb),
                    name: String::new(),
                }));
            } else {
                return Err(leads_nowhere(&column, &field, &rest[0]));
            }
        }
        Err(Wrong::new(&field, "a field name is empty"))
    }

    fn follow(
        &mut self,
        em: &mut Emitter<'_>,
        from: &Place,
        by: &str,
        link: &Link,
    ) -> Option<Place> {
        let known = (from.alias.clone(), by.to_owned());
        if let Some(place) = self.known.get(&known) {
            return Some(place.clone());
        }
        let table = em.table(link.to)?;
        let place = Place {
            id: link.to,
            table,
            alias: em.fresh(),
        };
        self.sql.push_str(&format!(
            " LEFT JOIN {} {} ON {}",
            relation(&place.table),
            place.alias,
            Emitter::on(link, &from.alias, &place.alias)
        ));
        self.known.insert(known, place.clone());
        Some(place)
    }
}
