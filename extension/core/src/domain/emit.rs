//! Putting SQL together: quoted names from the catalog, parameters for values, aliases by number.

use super::catalog::{Column, Link, Table, TableId};
use super::{Catalog, Fallible, Wrong};
use serde_json::{json, Value};
use std::collections::BTreeSet;
use std::rc::Rc;

/// More parameters than any sensible question has.
const MOST_PARAMETERS: usize = 2_000;
/// One value; a longer one is a mistake or an attack.
const MOST_BYTES: usize = 200_000;

pub struct Emitter<'a> {
    catalog: &'a dyn Catalog,
    /// Other names of columns: {"table id": {"their name": "our column"}}; from the database, not a caller.
    aliases: Option<&'a Value>,
    pub need: BTreeSet<TableId>,
    pub params: Vec<Option<String>>,
    /// For each parameter the field it is for and its type: to say which one the server refused.
    pub about: Vec<Value>,
    numbered: usize,
}

impl<'a> Emitter<'a> {
    pub fn new(catalog: &'a dyn Catalog, aliases: Option<&'a Value>) -> Self {
        Emitter {
            catalog,
            aliases,
            need: BTreeSet::new(),
            params: Vec::new(),
            about: Vec::new(),
            numbered: 0,
        }
    }

    /// A known table; one that is not known yet is noted as needed.
    pub fn table(&mut self, id: TableId) -> Option<Rc<Table>> {
        let found = self.catalog.table(id);
        if found.is_none() {
            self.need.insert(id);
        }
        found
    }

    /// Our column behind another name, from the table of model names.
    pub fn alias_of(&self, table: TableId, name: &str) -> Option<String> {
        self.aliases?
            .get(table.to_string())?
            .get(name)?
            .as_str()
            .map(str::to_owned)
    }

    /// A fresh table alias.
    pub fn fresh(&mut self) -> String {
        self.numbered += 1;
        format!("t{}", self.numbered)
    }

    /// A value as a parameter without a cast: text.
    pub fn text_param(&mut self, value: Option<String>, field: &str) -> Fallible<String> {
        self.push(value, "text", field)
    }

    /// A value as a parameter, cast to a type of the catalog's.
    pub fn param(
        &mut self,
        value: Option<String>,
        sql_type: &str,
        field: &str,
    ) -> Fallible<String> {
        let place = self.push(value, sql_type, field)?;
        Ok(format!("{place}::{sql_type}"))
    }

    fn push(&mut self, value: Option<String>, sql_type: &str, field: &str) -> Fallible<String> {
        if value.as_ref().is_some_and(|v| v.len() > MOST_BYTES) {
            return Err(Wrong::new(
                field,
                format!("{field}: the value is longer than {MOST_BYTES} bytes"),
            ));
        }
        if self.params.len() >= MOST_PARAMETERS {
            return Err(Wrong::new(
                "domain",
                format!("more than {MOST_PARAMETERS} values; ask for less at once"),
            ));
        }
        self.params.push(value);
        self.about.push(json!({"field": field, "type": sql_type}));
        Ok(format!("$1[{}]", self.params.len()))
    }

    /// `here` joined with `there` over a link.
    pub fn on(link: &Link, here: &str, there: &str) -> String {
        link.pairs
            .iter()
            .map(|(a, b)| format!("{} = {}", dotted(there, b), dotted(here, a)))
            .collect::<Vec<_>>()
            .join(" AND ")
    }
}

/// A name as an SQL identifier.
pub fn quoted(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 2);
    quote_into(&mut out, name);
    out
}

fn quote_into(out: &mut String, name: &str) {
    out.push('"');
    for (i, part) in name.split('"').enumerate() {
        if i > 0 {
            out.push_str("\"\"");
        }
        out.push_str(part);
    }
    out.push('"');
}

/// alias.column
pub fn dotted(alias: &str, column: &str) -> String {
    let mut out = String::with_capacity(alias.len() + column.len() + 3);
    out.push_str(alias);
    out.push('.');
    quote_into(&mut out, column);
    out
}

/// schema.table
pub fn relation(table: &Table) -> String {
    format!("{}.{}", quoted(&table.schema), quoted(&table.name))
}

/// A comparison operator of the column's type.
pub fn operator(column: &Column, sign: &str) -> String {
    match &column.operators {
        Some(schema) => format!("OPERATOR({}.{sign})", quoted(schema)),
        None => sign.to_owned(),
    }
}

/// The text of an SQL array of these elements.
pub fn array_text(elements: &[Option<String>]) -> String {
    let mut out = String::from("{");
    for (i, element) in elements.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        match element {
            None => out.push_str("NULL"),
            Some(text) => {
                out.push('"');
                for c in text.chars() {
                    if c == '"' || c == '\\' {
                        out.push('\\');
                    }
                    out.push(c);
                }
                out.push('"');
            }
        }
    }
    out.push('}');
    out
}
