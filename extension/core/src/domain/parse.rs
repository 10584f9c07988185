//! Odoo's domain: conditions and prefix operators in one list, to a tree.

use super::value::shown;
use super::{Fallible, Wrong};
use crate::nearest::nearest;
use serde_json::Value;

/// Conditions of one domain.
const MOST_CONDITIONS: usize = 300;
/// Lists in lists.
const DEEPEST: usize = 20;

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Op {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
    In,
    NotIn,
    Like,
    NotLike,
    Ilike,
    NotIlike,
    EqLike,
    EqIlike,
    EqMaybe,
    ChildOf,
    ParentOf,
    Any,
    NotAny,
}

const WORDS: [(&str, Op); 21] = [
    ("=", Op::Eq),
    ("!=", Op::Ne),
    (">", Op::Gt),
    (">=", Op::Ge),
    ("<", Op::Lt),
    ("<=", Op::Le),
    ("in", Op::In),
    ("not in", Op::NotIn),
    ("like", Op::Like),
    ("not like", Op::NotLike),
    ("ilike", Op::Ilike),
    ("not ilike", Op::NotIlike),
    ("=like", Op::EqLike),
    ("=ilike", Op::EqIlike),
    ("=?", Op::EqMaybe),
    ("child_of", Op::ChildOf),
    ("parent_of", Op::ParentOf),
    ("any", Op::Any),
    ("not any", Op::NotAny),
    // Odoo's older spellings.
    ("==", Op::Eq),
    ("<>", Op::Ne),
];

impl Op {
    pub fn word(self) -> &'static str {
        WORDS
            .iter()
            .find(|(_, o)| *o == self)
            .map_or("", |(w, _)| w)
    }

    fn from_word(word: &str) -> Option<Op> {
        let word = word.trim().to_ascii_lowercase();
        let word = word.split_whitespace().collect::<Vec<_>>().join(" ");
        WORDS.iter().find(|(w, _)| *w == word).map(|(_, o)| *o)
    }

    /// The operator whose opposite this is: not in -> in.
    pub fn positive(self) -> Option<Op> {
        Some(match self {
            Op::Ne => Op::Eq,
            Op::NotIn => Op::In,
            Op::NotLike => Op::Like,
            Op::NotIlike => Op::Ilike,
            Op::NotAny => Op::Any,
            _ => return None,
        })
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    All(Vec<Expr>),
    Either(Vec<Expr>),
    Not(Box<Expr>),
    Leaf(Leaf),
    Always(bool),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Leaf {
    pub path: Vec<String>,
    pub op: Op,
    pub value: Value,
}

impl Leaf {
    pub fn field(&self) -> String {
        self.path.join(".")
    }
}

/// Parse a domain; null and [] select everything.
pub fn domain(value: &Value) -> Fallible<Expr> {
    let mut left = MOST_CONDITIONS;
    list(value, "domain", DEEPEST, &mut left)
}

/// The same inside a domain: the value of any and not any.
pub fn subdomain(value: &Value, field: &str) -> Fallible<Expr> {
    let mut left = MOST_CONDITIONS;
    list(value, field, DEEPEST, &mut left)
}

fn list(value: &Value, at: &str, depth: usize, left: &mut usize) -> Fallible<Expr> {
    let items =
        match value {
            Value::Null => return Ok(Expr::Always(true)),
            Value::Array(items) => items,
            other => return Err(Wrong::new(
                at,
                format!("{at}: {} is not a list of conditions", shown(other)),
            )
            .hint(
                "Send a list like [[\"status\", \"=\", \"pending\"], [\"priority\", \"<=\", 3]].",
            )),
        };
    if depth == 0 {
        return Err(Wrong::new(
            at,
            format!("{at}: lists are nested deeper than {DEEPEST}"),
        ));
    }
    // A single condition without the list around it is what people mean by it.
    if is_condition(items) {
        return condition(items, at, left);
    }
    let mut stack: Vec<Expr> = Vec::new();
    for (i, item) in items.iter().enumerate().rev() {
        let here = format!("{at}[{i}]");
        match item {
            Value::String(s) => {
                let made = operator(s, &here, &mut stack)?;
                stack.push(made);
            }
            Value::Array(inner) if is_condition(inner) => {
                stack.push(condition(inner, &here, left)?)
            }
            Value::Array(inner) if looks_like_condition(inner) => return Err(broken(inner, &here)),
            Value::Array(_) => stack.push(list(item, &here, depth - 1, left)?),
            Value::Bool(b) => stack.push(Expr::Always(*b)),
            other => {
                return Err(Wrong::new(
                    &here,
                    format!(
                        "{here}: {} is neither a condition nor one of & | !",
                        shown(other)
                    ),
                ))
            }
        }
    }
    stack.reverse();
    Ok(joined(stack, true))
}

/// & | ! take the terms after them; those are already on the stack, the nearest on top.
fn operator(word: &str, here: &str, stack: &mut Vec<Expr>) -> Fallible<Expr> {
    let short = |wanted: &str, found: usize| {
        Wrong::new(
            here,
            format!("{here}: {word} needs {wanted} after it, found {found}"),
        )
        .hint("Operators come before their conditions: [\"|\", [a], [b]].")
    };
    match word {
        "&" | "|" => match (stack.pop(), stack.pop()) {
            (Some(a), Some(b)) => Ok(joined(vec![a, b], word == "&")),
            (Some(_), None) => Err(short("two conditions", 1)),
            _ => Err(short("two conditions", 0)),
        },
        "!" => match stack.pop() {
            Some(Expr::Not(inner)) => Ok(*inner),
            Some(a) => Ok(Expr::Not(Box::new(a))),
            None => Err(short("a condition", 0)),
        },
        other => Err(Wrong::new(
            here,
            format!(
                "{here}: {} is neither a condition nor one of & | !",
                shown(&Value::from(other))
            ),
        )
        .hint("A condition is a list of three: [field, operator, value].")),
    }
}

/// And or or of terms; like joins of like kind are flattened, so that long chains stay shallow.
fn joined(terms: Vec<Expr>, all: bool) -> Expr {
    let mut flat = Vec::with_capacity(terms.len());
    for term in terms {
        match term {
            Expr::All(inner) if all => flat.extend(inner),
            Expr::Either(inner) if !all => flat.extend(inner),
            other => flat.push(other),
        }
    }
    match (flat.len(), all) {
        (0, _) => Expr::Always(true),
        (1, _) => flat.remove(0),
        (_, true) => Expr::All(flat),
        (_, false) => Expr::Either(flat),
    }
}

fn is_condition(items: &[Value]) -> bool {
    match items {
        [Value::String(field), Value::String(op), _] => {
            !is_prefix(field) && Op::from_word(op).is_some()
        }
        [Value::Number(_), Value::String(op), Value::Number(_)] => op == "=" || op == "!=",
        _ => false,
    }
}

fn looks_like_condition(items: &[Value]) -> bool {
    match items.first() {
        Some(Value::String(field)) => !is_prefix(field),
        Some(Value::Number(_)) => true,
        _ => false,
    }
}

fn is_prefix(word: &str) -> bool {
    matches!(word, "&" | "|" | "!")
}

fn broken(items: &[Value], here: &str) -> Wrong {
    match items {
        [Value::String(_), Value::String(op), _] => {
            let known = WORDS.iter().take(19).map(|(w, _)| *w);
            let near = nearest(op, known.clone());
            Wrong::new(
                here,
                format!(
                    "{here}: {} is no operator",
                    shown(&Value::from(op.as_str()))
                ),
            )
            .hint(match near {
                Some(near) => format!("Did you mean {near}?"),
                None => format!("Operators are: {}", known.collect::<Vec<_>>().join(", ")),
            })
        }
        [Value::String(_), other, _] => {
            Wrong::new(here, format!("{here}: {} is no operator", shown(other)))
        }
        _ => Wrong::new(
            here,
            format!(
                "{here}: a condition is [field, operator, value]; this one has {} parts",
                items.len()
            ),
        ),
    }
}

fn condition(items: &[Value], here: &str, left: &mut usize) -> Fallible<Expr> {
    *left = left.checked_sub(1).ok_or_else(|| {
        Wrong::new(
            "domain",
            format!("domain: more than {MOST_CONDITIONS} conditions"),
        )
    })?;
    match items {
        // Odoo's constants: [1, "=", 1] is true and [0, "=", 1] is false.
        [Value::Number(a), Value::String(op), Value::Number(b)] => {
            Ok(Expr::Always((a == b) == (op == "=")))
        }
        [Value::String(field), Value::String(op), value] => Ok(Expr::Leaf(Leaf {
            path: super::paths::split(field, here)?,
            op: Op::from_word(op).ok_or_else(|| broken(items, here))?,
            value: value.clone(),
        })),
        _ => Err(broken(items, here)),
    }
}
