//! Hostile requests by the thousand: whatever a caller sends, the SQL holds only the catalog's names,
//! our own words and parameters.

use super::compile;
use super::tests::farm;
use serde_json::{json, Value};

/// A small generator, so that a failing case can be found again by its number.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

const NAMES: [&str; 18] = [
    "id",
    "name",
    "notes",
    "priority",
    "cost",
    "hold",
    "seen",
    "due_at",
    "tags",
    "settings",
    "spot",
    "code",
    "printer_id",
    "runs",
    "printer_id.name",
    "printer_id.group_id",
    "runs.good",
    "settings.a",
];
const OPERATORS: [&str; 23] = [
    "=",
    "!=",
    ">",
    ">=",
    "<",
    "<=",
    "in",
    "not in",
    "like",
    "not like",
    "ilike",
    "not ilike",
    "=like",
    "=ilike",
    "=?",
    "child_of",
    "parent_of",
    "any",
    "not any",
    "==",
    "<>",
    "~",
    "= 1; DROP TABLE zqx",
];
const HOSTILE: [&str; 14] = [
    "zqx",
    "zqx'; DROP TABLE odin.jobs; --",
    "zqx\"; --",
    "$1zqx",
    "zqx$$",
    "\\zqx",
    "zqx\u{0}x",
    "zqx.zqx",
    "zqx)",
    "zqx::regclass",
    "E'zqx'",
    "/*zqx*/",
    "zqx:sum",
    "\u{202e}zqx",
];

fn word(d: &mut Dice) -> String {
    match d.below(4) {
        0 => (*d.pick(&HOSTILE)).to_owned(),
        1 => format!("{}.{}", d.pick(&NAMES), d.pick(&HOSTILE)),
        2 => format!("{}{}", d.pick(&NAMES), d.pick(&HOSTILE)),
        _ => (*d.pick(&NAMES)).to_owned(),
    }
}

fn value(d: &mut Dice, depth: usize) -> Value {
    match d.below(if depth == 0 { 8 } else { 11 }) {
        0 => Value::Null,
        1 => json!(d.below(2) == 0),
        2 => json!(d.below(100_000)),
        3 => json!(d.next()),
        4 => json!(d.below(1000) as f64 / 7.0),
        5 => json!(format!("{}", d.below(50))),
        6 | 7 => json!(*d.pick(&HOSTILE)),
        8 => json!({ word(d): value(d, depth - 1) }),
        9 => domain(d, depth - 1),
        _ => Value::Array((0..d.below(4)).map(|_| value(d, depth - 1)).collect()),
    }
}

fn domain(d: &mut Dice, depth: usize) -> Value {
    let mut items = Vec::new();
    for _ in 0..d.below(5) {
        items.push(match d.below(8) {
            0 => json!("|"),
            1 => json!("&"),
            2 => json!("!"),
            3 if depth > 0 => domain(d, depth - 1),
            4 => json!(*d.pick(&HOSTILE)),
            _ => json!([word(d), *d.pick(&OPERATORS), value(d, depth)]),
        });
    }
    match d.below(20) {
        0 => json!(Value::Array(items).to_string().replace('"', "'")),
        1 => json!(*d.pick(&HOSTILE)),
        _ => Value::Array(items),
    }
}

fn list(d: &mut Dice, suffix: &[&str]) -> Value {
    Value::Array(
        (0..d.below(4))
            .map(|_| json!(format!("{}{}", word(d), d.pick(suffix))))
            .collect(),
    )
}

fn request(d: &mut Dice) -> Value {
    let order = format!(
        "{} {}, {}",
        word(d),
        d.pick(&["", "desc", "asc nulls first", "desc; zqx"]),
        word(d)
    );
    let order = if d.below(3) == 0 {
        Value::Null
    } else {
        json!(order)
    };
    match d.below(3) {
        0 => json!({"op": "where", "table": 1 + d.below(4), "domain": domain(d, 3)}),
        1 => {
            json!({"op": "search", "table": 1 + d.below(4), "domain": domain(d, 2), "fields": list(d, &["", "", "zqx"]), "order": order, "limit": d.below(99)})
        }
        _ => {
            json!({"op": "aggregate", "table": 1 + d.below(4), "domain": domain(d, 2), "group_by": list(d, &["", ":month", ":zqx"]),
            "measures": list(d, &[":sum", ":count", ":max", "zqx"]), "having": domain(d, 2), "order": order})
        }
    }
}

const KEYWORDS: [&str; 57] = [
    "SELECT",
    "FROM",
    "WHERE",
    "AND",
    "OR",
    "NOT",
    "IS",
    "NULL",
    "TRUE",
    "FALSE",
    "EXISTS",
    "ANY",
    "IN",
    "AS",
    "LEFT",
    "JOIN",
    "ON",
    "ORDER",
    "GROUP",
    "BY",
    "HAVING",
    "LIMIT",
    "DESC",
    "NULLS",
    "FIRST",
    "LAST",
    "ARRAY",
    "LIKE",
    "ILIKE",
    "WITH",
    "RECURSIVE",
    "UNION",
    "CASE",
    "WHEN",
    "THEN",
    "END",
    "DISTINCT",
    "OPERATOR",
    "pg_catalog",
    "r",
    "e",
    "v",
    "k",
    "p",
    "with",
    "time",
    "zone",
    "timestamp",
    "public",
    "citext",
    "text",
    "jsonb",
    "CROSS",
    "LATERAL",
    "x",
    "j",
    "at",
];
const TYPES_AND_FUNCTIONS: [&str; 22] = [
    "bigint",
    "smallint",
    "integer",
    "numeric",
    "boolean",
    "point",
    "to_jsonb",
    "jsonb_build_object",
    "jsonb_typeof",
    "unnest",
    "cardinality",
    "count",
    "sum",
    "avg",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "date_trunc",
    "regclass",
    "number",
    "month",
];
const LITERALS: [&str; 8] = [
    "'{}'",
    "'number'",
    "'hour'",
    "'day'",
    "'week'",
    "'month'",
    "'quarter'",
    "'year'",
];

/// Every token of the SQL must be a word of ours, a name of the catalog, a parameter or a plain number.
fn check(sql: &str, names: &[String]) -> Result<(), String> {
    let chars: Vec<char> = sql.chars().collect();
    let mut i = 0;
    while i < chars.len() {
        let start = i;
        let c = chars[i];
        i += 1;
        if c == '"' {
            loop {
                match (chars.get(i), chars.get(i + 1)) {
                    (Some('"'), Some('"')) => i += 2,
                    (Some('"'), _) => break,
                    (Some(_), _) => i += 1,
                    (None, _) => return Err("open quote".into()),
                }
            }
            i += 1;
            let name: String = chars[start + 1..i - 1]
                .iter()
                .collect::<String>()
                .replace("\"\"", "\"");
            // A column of an answer is named by the catalog's names and a function or period of ours.
            let plain = name.split(':').next().unwrap_or("");
            let known = |n: &str| names.iter().any(|k| k == n) || n == "count";
            if !(known(&name) || plain.split('.').all(known)) {
                return Err(format!("name {name:?}"));
            }
        } else if c == '\'' {
            while chars.get(i).is_some_and(|c| *c != '\'') {
                i += 1;
            }
            i += 1;
            let literal: String = chars[start..i.min(chars.len())].iter().collect();
            if !LITERALS.contains(&literal.as_str()) {
                return Err(format!("literal {literal}"));
            }
        } else if c.is_ascii_alphabetic() {
            while chars
                .get(i)
                .is_some_and(|c| c.is_ascii_alphanumeric() || *c == '_')
            {
                i += 1;
            }
            let word: String = chars[start..i].iter().collect();
            let alias = word
                .strip_prefix(['t', 'c'])
                .is_some_and(|n| n.parse::<u32>().is_ok());
            if !alias
                && !KEYWORDS.contains(&word.as_str())
                && !TYPES_AND_FUNCTIONS.contains(&word.as_str())
            {
                return Err(format!("word {word}"));
            }
        } else if !(c.is_ascii_digit() || " ()[],.$=<>!#:*|&".contains(c)) {
            return Err(format!("character {c:?}"));
        }
    }
    for forbidden in ["zqx", "--", "/*", ";"] {
        if sql.contains(forbidden) {
            return Err(format!("{forbidden} got in"));
        }
    }
    Ok(())
}

#[test]
fn no_text_of_a_caller_enters_the_sql() {
    let farm = farm();
    let mut names: Vec<String> = Vec::new();
    for table in farm.0.values() {
        names.extend([table.schema.clone(), table.name.clone()]);
        names.extend(table.columns.iter().map(|c| c.name.clone()));
    }
    names.push("public".into());
    let rounds = std::env::var("ODIN_FUZZ_ROUNDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(60_000);
    let (mut compiled, mut refused) = (0, 0);
    for round in 1..=rounds {
        let mut dice = Dice(u64::wrapping_mul(round, 0x9e37_79b9_7f4a_7c15) | 1);
        let request = request(&mut dice);
        let answer = compile(&request, &farm);
        match answer["sql"].as_str() {
            Some(sql) => {
                compiled += 1;
                if let Err(why) = check(sql, &names) {
                    panic!("round {round}: {why}\nrequest {request}\nsql {sql}");
                }
                let params = answer["params"].as_array().map_or(0, Vec::len);
                assert_eq!(
                    answer["about"].as_array().map(Vec::len),
                    Some(params),
                    "round {round}"
                );
                assert!(
                    !sql.contains(&format!("$1[{}]", params + 1)),
                    "round {round}: a parameter too many\n{sql}"
                );
            }
            None => {
                refused += 1;
                assert_eq!(answer["ok"], json!(false), "round {round}: {answer}");
                assert!(
                    answer["detail"].as_str().is_some_and(|d| !d.is_empty()),
                    "round {round}"
                );
            }
        }
    }
    // The dice must reach both ends, or the test proves nothing.
    assert!(
        compiled > rounds / 20 && refused > rounds / 20,
        "{compiled} compiled, {refused} refused"
    );
}
