//! A domain as text: JSON, or as Odoo's people write it, [('name', 'ilike', 'mk4'), ('active', '=', True)].

use super::value::shown;
use super::{Fallible, Wrong};
use serde_json::{json, Number, Value};

const DEEPEST: usize = 40;

/// The value a text stands for.
pub fn parse(text: &str) -> Fallible<Value> {
    if text.trim().is_empty() {
        return Ok(Value::Null);
    }
    if let Ok(value) = serde_json::from_str(text) {
        return Ok(value);
    }
    let mut reader = Reader {
        chars: text.chars().collect(),
        at: 0,
    };
    let value = reader.value(DEEPEST)?;
    reader.blanks();
    if reader.at < reader.chars.len() {
        return Err(reader.wrong());
    }
    Ok(value)
}

struct Reader {
    chars: Vec<char>,
    at: usize,
}

impl Reader {
    fn wrong(&self) -> Wrong {
        let rest: String = self.chars[self.at.min(self.chars.len())..]
            .iter()
            .take(30)
            .collect();
        Wrong::new(
            "domain",
            format!(
                "domain: the text cannot be read from {} on",
                shown(&json!(rest))
            ),
        )
        .hint("Send a list, not a text: [[\"status\", \"=\", \"pending\"]].")
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn value(&mut self, depth: usize) -> Fallible<Value> {
        self.blanks();
        match self.peek() {
            Some('[' | '(') if depth > 0 => self.list(depth),
            Some(quote @ ('"' | '\'')) => self.text(quote),
            Some(c) if c.is_ascii_digit() || matches!(c, '-' | '+' | '.') => self.number(),
            Some(c) if c.is_ascii_alphabetic() => self.word(),
            _ => Err(self.wrong()),
        }
    }

    fn list(&mut self, depth: usize) -> Fallible<Value> {
        let close = if self.peek() == Some('[') { ']' } else { ')' };
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.blanks();
            if self.peek() == Some(close) {
                self.at += 1;
                return Ok(Value::Array(items));
            }
            items.push(self.value(depth - 1)?);
            self.blanks();
            match self.peek() {
                Some(',') => self.at += 1,
                Some(c) if c == close => {}
                _ => return Err(self.wrong()),
            }
        }
    }

    fn text(&mut self, quote: char) -> Fallible<Value> {
        let start = self.at;
        self.at += 1;
        let mut out = String::new();
        while let Some(c) = self.peek() {
            self.at += 1;
            match c {
                c if c == quote => return Ok(Value::String(out)),
                '\\' => {
                    let Some(next) = self.peek() else { break };
                    self.at += 1;
                    match next {
                        'n' => out.push('\n'),
                        't' => out.push('\t'),
                        '\\' | '\'' | '"' => out.push(next),
                        other => out.extend(['\\', other]),
                    }
                }
                c => out.push(c),
            }
        }
        self.at = start;
        Err(self.wrong())
    }

    fn number(&mut self) -> Fallible<Value> {
        let start = self.at;
        while self
            .peek()
            .is_some_and(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '+' | '.'))
        {
            self.at += 1;
        }
        let digits: String = self.chars[start..self.at].iter().collect();
        let whole = digits.parse::<i64>().ok().map(Number::from);
        match whole.or_else(|| digits.parse::<f64>().ok().and_then(Number::from_f64)) {
            Some(n) => Ok(Value::Number(n)),
            None => {
                self.at = start;
                Err(self.wrong())
            }
        }
    }

    fn word(&mut self) -> Fallible<Value> {
        let start = self.at;
        while self.peek().is_some_and(|c| c.is_ascii_alphabetic()) {
            self.at += 1;
        }
        let word: String = self.chars[start..self.at].iter().collect();
        match word.as_str() {
            "True" | "true" => Ok(Value::Bool(true)),
            "False" | "false" => Ok(Value::Bool(false)),
            "None" | "null" => Ok(Value::Null),
            _ => {
                self.at = start;
                Err(self.wrong())
            }
        }
    }
}
