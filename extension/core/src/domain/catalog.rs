//! What the compiler knows of a table: described by SQL from the server's catalog, never by a caller.

use serde_json::Value;
use std::collections::BTreeMap;

/// The table's oid.
pub type TableId = u32;

/// How a column's values are written and compared.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Text,
    Integer { bits: u32 },
    Number,
    Float,
    Boolean,
    Temporal,
    Uuid,
    Enum,
    Bytes,
    Json,
    Jsonb,
    Array(Box<Column>),
    Other,
}

/// A column, or an element of an array column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    pub name: String,
    /// The type as SQL, qualified where it must be; casts are made of it.
    pub sql_type: String,
    pub kind: Kind,
    pub nullable: bool,
    /// It has an order: < and ORDER BY work.
    pub ordered: bool,
    /// Equality is defined for it.
    pub equatable: bool,
    /// Schema of its comparison operators when that is not pg_catalog.
    pub operators: Option<String>,
}

/// A foreign key, seen from one of its ends.
#[derive(Debug, Clone)]
pub struct Link {
    pub to: TableId,
    /// (column here, column there)
    pub pairs: Vec<(String, String)>,
    /// The column there that stands for the record, if one column does.
    pub far_key: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub struct Table {
    pub schema: String,
    pub name: String,
    pub columns: Vec<Column>,
    pub key: Vec<String>,
    /// The column a person would call the record by.
    pub display: Option<String>,
    /// Foreign keys by the column that points.
    pub links: BTreeMap<String, Link>,
    /// Foreign keys of other tables that point here, by a name made of theirs.
    pub back: BTreeMap<String, Link>,
    /// The column that points to the parent record in this same table.
    pub parent: Option<String>,
}

impl Table {
    /// None if the description is not one of ours.
    pub fn from_json(value: &Value) -> Option<Table> {
        let columns = value
            .get("columns")?
            .as_array()?
            .iter()
            .map(column)
            .collect::<Option<Vec<_>>>()?;
        Some(Table {
            schema: text(value, "schema")?,
            name: text(value, "name")?,
            columns,
            key: texts(value.get("key")),
            display: text(value, "display"),
            links: links(value.get("links"))?,
            back: links(value.get("back"))?,
            parent: text(value, "parent"),
        })
    }

    pub fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|c| c.name == name)
    }

    /// The key, if it is one column.
    pub fn single_key(&self) -> Option<&Column> {
        match self.key.as_slice() {
            [only] => self.column(only),
            _ => None,
        }
    }
}

impl Column {
    /// A column that no table has: the result of an expression of ours.
    pub fn computed(name: &str, sql_type: &str, kind: Kind) -> Column {
        Column {
            name: name.to_owned(),
            sql_type: sql_type.to_owned(),
            kind,
            nullable: true,
            ordered: true,
            equatable: true,
            operators: None,
        }
    }

    /// What to call its type in an error.
    pub fn wanted(&self) -> &'static str {
        match self.kind {
            Kind::Text => "text",
            Kind::Integer { .. } => "a whole number",
            Kind::Number | Kind::Float => "a number",
            Kind::Boolean => "true or false",
            Kind::Temporal => "a date or time as text, like 2026-01-31 or 2026-01-31T08:00:00Z",
            Kind::Uuid => "a UUID",
            Kind::Enum => "one of its words",
            Kind::Bytes => "bytes as \\x and hexadecimal digits",
            Kind::Json | Kind::Jsonb => "JSON",
            Kind::Array(_) => "a list",
            Kind::Other => "text in its type's form",
        }
    }
}

fn text(value: &Value, key: &str) -> Option<String> {
    value.get(key).and_then(Value::as_str).map(str::to_owned)
}

fn texts(value: Option<&Value>) -> Vec<String> {
    value
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|v| v.as_str().map(str::to_owned))
        .collect()
}

fn flag(value: &Value, key: &str) -> bool {
    value.get(key).and_then(Value::as_bool) == Some(true)
}

fn column(value: &Value) -> Option<Column> {
    let kind = match value.get("kind")?.as_str()? {
        "text" => Kind::Text,
        "int2" => Kind::Integer { bits: 16 },
        "int4" => Kind::Integer { bits: 32 },
        "int8" => Kind::Integer { bits: 64 },
        "number" => Kind::Number,
        "float" => Kind::Float,
        "boolean" => Kind::Boolean,
        "temporal" => Kind::Temporal,
        "uuid" => Kind::Uuid,
        "enum" => Kind::Enum,
        "bytes" => Kind::Bytes,
        "json" => Kind::Json,
        "jsonb" => Kind::Jsonb,
        "array" => Kind::Array(Box::new(column(value.get("element")?)?)),
        _ => Kind::Other,
    };
    Some(Column {
        name: text(value, "name").unwrap_or_default(),
        sql_type: text(value, "type")?,
        kind,
        nullable: !flag(value, "not_null"),
        ordered: flag(value, "ordered"),
        equatable: flag(value, "ordered") || flag(value, "equatable"),
        operators: text(value, "operators"),
    })
}

fn links(value: Option<&Value>) -> Option<BTreeMap<String, Link>> {
    let Some(Value::Object(map)) = value else {
        return Some(BTreeMap::new());
    };
    map.iter()
        .map(|(name, l)| {
            let pairs = l
                .get("pairs")?
                .as_array()?
                .iter()
                .map(|p| {
                    Some((
                        p.get(0)?.as_str()?.to_owned(),
                        p.get(1)?.as_str()?.to_owned(),
                    ))
                })
                .collect::<Option<Vec<_>>>()?;
            let to = TableId::try_from(l.get("to")?.as_u64()?).ok()?;
            let far_key = text(l, "far_key");
            Some((name.clone(), Link { to, pairs, far_key }))
        })
        .collect()
}
