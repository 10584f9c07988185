//! What printers have reported and the database has not heard yet: one statement per tick for all of them.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{json, Map, Value};

use super::driver::{Ended, RemoteFile, Report};

/// A state that did not change is written again after this long, so that its age stays small.
const REFRESH: Duration = Duration::from_secs(8);

#[derive(Default)]
pub struct Outbox {
    waiting: Mutex<HashMap<i64, Entry>>,
}

struct Entry {
    fence: i64,
    report: Report,
    changed: bool,
    written: Option<Instant>,
    /// Said once, kept until the database has heard it.
    extra: Map<String, Value>,
}

/// A batch on its way: what to put right once it is known how it went.
pub struct Batch {
    pub reports: Value,
    taken: Vec<(i64, i64, Map<String, Value>)>,
}

impl Outbox {
    pub fn report(&self, printer: i64, fence: i64, report: &Report) {
        self.with(printer, fence, |entry| {
            if entry.report != *report {
                entry.report = report.clone();
                entry.changed = true;
            }
        });
    }

    pub fn ended(&self, printer: i64, fence: i64, ended: &Ended) {
        self.extra(printer, fence, "ended", json!(ended));
    }

    pub fn notable(&self, printer: i64, fence: i64, notable: Value) {
        self.extra(printer, fence, "notable", notable);
    }

    pub fn facts(&self, printer: i64, fence: i64, facts: Value) {
        self.extra(printer, fence, "facts", facts);
    }

    pub fn files(&self, printer: i64, fence: i64, files: &[RemoteFile]) {
        self.extra(printer, fence, "files", json!(files));
    }

    fn extra(&self, printer: i64, fence: i64, name: &str, value: Value) {
        self.with(printer, fence, |entry| {
            entry.extra.insert(name.to_owned(), value);
            entry.changed = true;
        });
    }

    fn with(&self, printer: i64, fence: i64, change: impl FnOnce(&mut Entry)) {
        let Ok(mut waiting) = self.waiting.lock() else {
            return;
        };
        let entry = waiting.entry(printer).or_insert_with(|| Entry {
            fence,
            report: Report::default(),
            changed: true,
            written: None,
            extra: Map::new(),
        });
        if entry.fence != fence {
            // Another lease: what the earlier one had to say no longer counts.
            *entry = Entry {
                fence,
                report: Report::default(),
                changed: true,
                written: None,
                extra: Map::new(),
            };
        }
        change(entry);
    }

    /// The printer is no longer held here.
    pub fn forget(&self, printer: i64, fence: i64) {
        if let Ok(mut waiting) = self.waiting.lock() {
            if waiting.get(&printer).is_some_and(|e| e.fence == fence) {
                waiting.remove(&printer);
            }
        }
    }

    /// Everything that has to be written now.
    pub fn take(&self) -> Option<Batch> {
        let mut waiting = self.waiting.lock().ok()?;
        let mut reports = Vec::new();
        let mut taken = Vec::new();
        for (&printer, entry) in waiting.iter_mut() {
            let stale = entry.written.is_none_or(|t| t.elapsed() >= REFRESH);
            if !entry.changed && !stale {
                continue;
            }
            let mut row = match json!(entry.report) {
                Value::Object(row) => row,
                _ => continue,
            };
            row.retain(|_, value| !value.is_null());
            row.insert("p".into(), printer.into());
            row.insert("f".into(), entry.fence.into());
            let extra = std::mem::take(&mut entry.extra);
            row.extend(extra.clone());
            entry.changed = false;
            entry.written = Some(Instant::now());
            reports.push(Value::Object(row));
            taken.push((printer, entry.fence, extra));
        }
        (!reports.is_empty()).then(|| Batch {
            reports: Value::Array(reports),
            taken,
        })
    }

    /// Nobody heard it: say it again, unless something newer has taken its place.
    pub fn give_back(&self, batch: Batch) {
        let Ok(mut waiting) = self.waiting.lock() else {
            return;
        };
        for (printer, fence, extra) in batch.taken {
            if let Some(entry) = waiting.get_mut(&printer).filter(|e| e.fence == fence) {
                for (name, value) in extra {
                    entry.extra.entry(name).or_insert(value);
                }
                entry.changed = true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::printers::driver::{Outcome, State};

    fn busy() -> Report {
        Report {
            state: State::Printing,
            file: Some("a".into()),
            ..Report::default()
        }
    }

    #[test]
    fn what_nobody_heard_is_said_again() {
        let outbox = Outbox::default();
        outbox.report(1, 5, &busy());
        outbox.ended(1, 5, &busy().ended(Outcome::Completed));
        let batch = outbox.take().unwrap();
        assert_eq!(batch.reports[0]["ended"]["outcome"], "completed");
        assert!(outbox.take().is_none());
        outbox.give_back(batch);
        let again = outbox.take().unwrap();
        assert_eq!(again.reports[0]["ended"]["file"], "a");
        assert_eq!(again.reports[0]["state"], "printing");
        outbox.report(1, 5, &busy());
        assert!(outbox.take().is_none(), "an unchanged report waits");
    }

    #[test]
    fn another_lease_starts_afresh() {
        let outbox = Outbox::default();
        outbox.ended(1, 5, &busy().ended(Outcome::Failed));
        let old = outbox.take().unwrap();
        outbox.report(1, 6, &busy());
        outbox.give_back(old);
        assert!(outbox.take().unwrap().reports[0].get("ended").is_none());
    }
}
