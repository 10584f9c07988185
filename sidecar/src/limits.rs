//! How often and how many at once: per key, in this sidecar. The farm's own quotas are the database's business.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use serde_json::Value;

use crate::auth::Principal;
use crate::rest::answer::error;

/// One tool may take this share of a key's concurrency, so that a slow tool leaves room for the others.
const TOOL_SHARE: f64 = 0.75;

pub struct Limits {
    keys: Arc<Mutex<HashMap<i64, Usage>>>,
    /// For keys that carry no limits of their own.
    rate_per_minute: u32,
    concurrency: u32,
}

struct Usage {
    /// Calls the key may still make at once, refilled with time.
    tokens: f64,
    refilled: Instant,
    running: u32,
    tools: HashMap<String, u32>,
    streams: usize,
}

/// A call, or an open stream, that is being counted. Dropping it counts it out.
pub struct Counted {
    keys: Arc<Mutex<HashMap<i64, Usage>>>,
    key: i64,
    tool: Option<String>,
}

#[derive(Debug, PartialEq)]
pub struct TooMany {
    pub retry_after: u64,
    pub what: &'static str,
}

impl TooMany {
    /// The farm's error object.
    pub fn error(&self) -> Value {
        let detail = format!("Too many {} with this key.", self.what);
        let hint = format!("Wait {} s and repeat the call.", self.retry_after);
        let mut error = error("rate_limited", 429, detail, &hint);
        error["retry_after"] = self.retry_after.into();
        error
    }
}

impl Limits {
    pub fn new(rate_per_minute: u32, concurrency: u32) -> Self {
        Limits {
            keys: Arc::default(),
            rate_per_minute: rate_per_minute.max(1),
            concurrency: concurrency.max(1),
        }
    }

    pub fn call(&self, principal: &Principal, tool: &str) -> Result<Counted, TooMany> {
        let rate = f64::from(
            principal
                .rate_per_minute
                .unwrap_or(self.rate_per_minute)
                .max(1),
        );
        let concurrency = principal.concurrency.unwrap_or(self.concurrency).max(1);
        let per_tool = ((f64::from(concurrency) * TOOL_SHARE).ceil() as u32).max(1);
        let Ok(mut keys) = self.keys.lock() else {
            return Err(too_many(1, "internal"));
        };
        let usage = usage(&mut keys, principal.key_id, rate);
        let earned = usage.refilled.elapsed().as_secs_f64() * rate / 60.0;
        usage.tokens = (usage.tokens + earned).min(rate);
        usage.refilled = Instant::now();
        if usage.tokens < 1.0 {
            let wait = (1.0 - usage.tokens) * 60.0 / rate;
            return Err(too_many(wait.ceil() as u64, "calls per minute"));
        }
        if usage.running >= concurrency {
            return Err(too_many(1, "calls at once"));
        }
        let of_tool = usage.tools.entry(tool.to_owned()).or_default();
        if *of_tool >= per_tool {
            return Err(too_many(1, "calls of this tool at once"));
        }
        *of_tool += 1;
        usage.running += 1;
        usage.tokens -= 1.0;
        Ok(Counted {
            keys: self.keys.clone(),
            key: principal.key_id,
            tool: Some(tool.to_owned()),
        })
    }

    pub fn stream(&self, principal: &Principal, most: usize) -> Result<Counted, TooMany> {
        let Ok(mut keys) = self.keys.lock() else {
            return Err(too_many(1, "internal"));
        };
        let usage = usage(&mut keys, principal.key_id, f64::from(self.rate_per_minute));
        if usage.streams >= most {
            return Err(too_many(30, "open streams"));
        }
        usage.streams += 1;
        Ok(Counted {
            keys: self.keys.clone(),
            key: principal.key_id,
            tool: None,
        })
    }
}

fn usage(keys: &mut HashMap<i64, Usage>, key: i64, rate: f64) -> &mut Usage {
    keys.entry(key).or_insert_with(|| Usage {
        tokens: rate,
        refilled: Instant::now(),
        running: 0,
        tools: HashMap::new(),
        streams: 0,
    })
}

fn too_many(retry_after: u64, what: &'static str) -> TooMany {
    TooMany {
        retry_after: retry_after.max(1),
        what,
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let Ok(mut keys) = self.keys.lock() else {
            return;
        };
        let Some(usage) = keys.get_mut(&self.key) else {
            return;
        };
        match &self.tool {
            None => usage.streams = usage.streams.saturating_sub(1),
            Some(tool) => {
                usage.running = usage.running.saturating_sub(1);
                if let Some(n) = usage.tools.get_mut(tool) {
                    *n -= 1;
                    if *n == 0 {
                        usage.tools.remove(tool);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::Credential;

    fn key(rate: u32, concurrency: u32) -> Principal {
        Principal {
            credential: Credential::of_key("k"),
            role: "r".into(),
            key_id: 1,
            key_name: "k".into(),
            rate_per_minute: Some(rate),
            concurrency: Some(concurrency),
        }
    }

    #[test]
    fn calls_at_once_are_counted_out_again() {
        let limits = Limits::new(6_000, 64);
        let key = key(600, 2);
        let a = limits.call(&key, "a").ok().unwrap();
        let _b = limits.call(&key, "b").ok().unwrap();
        assert_eq!(limits.call(&key, "c").err().unwrap().what, "calls at once");
        drop(a);
        assert!(limits.call(&key, "c").is_ok());
    }

    #[test]
    fn one_tool_leaves_room_for_the_others() {
        let limits = Limits::new(6_000, 64);
        let key = key(600, 4);
        let _held: Vec<_> = (0..3)
            .map(|_| limits.call(&key, "a").ok().unwrap())
            .collect();
        assert_eq!(
            limits.call(&key, "a").err().unwrap().what,
            "calls of this tool at once"
        );
        assert!(limits.call(&key, "b").is_ok());
    }

    #[test]
    fn the_rate_says_when_to_come_back() {
        let limits = Limits::new(6_000, 64);
        let key = key(2, 10);
        assert!(limits.call(&key, "a").is_ok());
        assert!(limits.call(&key, "a").is_ok());
        let refused = limits.call(&key, "a").err().unwrap();
        assert_eq!(refused.what, "calls per minute");
        assert!((1..=30).contains(&refused.retry_after));
    }
}
