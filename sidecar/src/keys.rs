//! `odin-farm key`: a person makes and ends keys from a shell. The SQL functions decide; a secret is shown once, on stdout.

use serde_json::Value;

use crate::config::{KeyAct, Keys, Mint};
use crate::db::Person;

const MINT: &str = "SELECT to_jsonb(m) FROM odin.mint_key($1, $2, pg_catalog.make_interval(days => $3), $4, $5, CAST($6::text[] AS pg_catalog.inet[]), $7, $8) m";
const LIST: &str =
    "SELECT coalesce(jsonb_agg(to_jsonb(k) ORDER BY k.id), '[]') FROM odin.list_keys() k";
const REVOKE: &str = "SELECT to_jsonb(odin.revoke_key($1))";
const ROTATE: &str =
    "SELECT to_jsonb(r) FROM odin.rotate_key($1, pg_catalog.make_interval(mins => $2)) r";

pub async fn run(config: Keys) -> Result<(), String> {
    let person = Person::open(config.database_url.parse()?)
        .await
        .map_err(|e| format!("cannot log in to the database: {e}"))?;
    match &config.act {
        KeyAct::Mint(mint) => {
            let made = mint_key(&person, mint).await?;
            show_secret(&config, &made, &made["expires_at"], "ends");
        }
        KeyAct::Rotate {
            id,
            overlap_minutes,
        } => {
            let made = person.json(ROTATE, &[id, overlap_minutes]).await?;
            show_secret(&config, &made, &made["old_key_ends"], "the old one ends");
        }
        KeyAct::Revoke { id } => {
            let ended = person.json(REVOKE, &[id]).await? == Value::Bool(true);
            match (config.json, ended) {
                (true, _) => println!("{}", serde_json::json!({"id": id, "revoked": ended})),
                (false, true) => println!("key {id} is revoked"),
                (false, false) => println!("key {id} was revoked before"),
            }
        }
        KeyAct::List => {
            let keys = person.json(LIST, &[]).await?;
            match config.json {
                true => println!("{keys}"),
                false => print!("{}", table(&keys)),
            }
        }
    }
    Ok(())
}

async fn mint_key(person: &Person, mint: &Mint) -> Result<Value, String> {
    let days = (!mint.no_end).then_some(mint.expires_days);
    let some = |list: &Vec<String>| (!list.is_empty()).then(|| list.clone());
    let (toolsets, ips) = (some(&mint.toolsets), some(&mint.allowed_ips));
    person
        .json(
            MINT,
            &[
                &mint.name,
                &mint.scopes,
                &days,
                &mint.role,
                &toolsets,
                &ips,
                &mint.rate_per_minute,
                &mint.concurrency,
            ],
        )
        .await
}

/// The secret alone on stdout, for a pipe; what belongs to it on stderr.
fn show_secret(config: &Keys, made: &Value, when: &Value, ends: &str) {
    if config.json {
        println!("{made}");
        return;
    }
    println!("{}", made["key"].as_str().unwrap_or_default());
    let id = made.get("key_id").unwrap_or(&made["new_key_id"]);
    let when = when.as_str().unwrap_or("never");
    eprintln!("key {id}, shown this once; {ends}: {when}");
}

/// What a person looks for in the list.
fn table(keys: &Value) -> String {
    const COLUMNS: [&str; 8] = [
        "id",
        "name",
        "role_name",
        "prefix",
        "scopes",
        "state",
        "expires_at",
        "last_used_at",
    ];
    let text = |value: &Value| match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.chars().filter(|c| !c.is_control()).collect(),
        Value::Array(items) => {
            let items = items.iter().filter_map(Value::as_str);
            items.collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    };
    let mut rows: Vec<Vec<String>> = vec![COLUMNS.iter().map(|c| (*c).to_owned()).collect()];
    for key in keys.as_array().into_iter().flatten() {
        rows.push(COLUMNS.iter().map(|c| text(&key[*c])).collect());
    }
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max();
    let widths: Vec<usize> = (0..COLUMNS.len()).filter_map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells.map(|(cell, w)| format!("{cell:<w$}")).collect();
        out.push_str(line.join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_list_is_a_table_without_tricks() {
        let keys = json!([{"id": 3, "name": "a\u{1b}[2J", "scopes": ["agent:read", "x"], "state": "active"}]);
        let text = table(&keys);
        let mut lines = text.lines();
        assert!(lines.next().unwrap().starts_with("id  name"));
        let row = lines.next().unwrap();
        assert!(
            row.contains("agent:read,x") && !row.contains('\u{1b}'),
            "{row}"
        );
    }
}
