//! Logs and metrics. Neither ever holds a key, an argument or a result.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;
use std::time::Duration;

use tracing::Subscriber;
use tracing_subscriber::filter::{filter_fn, FilterExt, LevelFilter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Common, LogFormat};

/// Logs go to stderr: stdout belongs to the protocol in `odin-farm stdio`. Spans go where OTEL_* says. Inside the runtime.
pub fn init(common: &Common, default: &str) -> Result<(), String> {
    // A second start in one process (tests) keeps the first subscriber.
    let _ = match crate::traces::layer()? {
        Some(traces) => tracing_subscriber::registry()
            .with(traces)
            .with(log(common, default))
            .try_init(),
        // Not `with(None)`: such a layer counts as one that takes every span.
        None => tracing_subscriber::registry()
            .with(log(common, default))
            .try_init(),
    };
    Ok(())
}

/// The log is of events; a span that only it would take is not made at all.
fn log<S>(common: &Common, default: &str) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let wanted = common.log.as_deref().unwrap_or(default);
    // rmcp reports every request at INFO and every ordinary disconnect at ERROR.
    let filter = EnvFilter::try_new(format!("{wanted},rmcp=off,tokio_postgres=warn"))
        .unwrap_or_else(|_| EnvFilter::new("info,rmcp=off"));
    // The hint says that levels are for the second filter to judge: without one, every library's every word would be looked at.
    let events = filter_fn(|of| of.is_event()).with_max_level_hint(LevelFilter::TRACE);
    let filter = events.and(filter);
    let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match common.log_format {
        LogFormat::Json => log
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_filter(filter)
            .boxed(),
        LogFormat::Text => log.with_filter(filter).boxed(),
    }
}

/// Upper bounds of the histogram's buckets, in seconds.
const BUCKETS: [f64; 12] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];

#[derive(Default)]
struct Histogram {
    buckets: [u64; BUCKETS.len()],
    count: u64,
    sum: f64,
}

/// One operation's labels: few and bounded, whatever clients send.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Operation {
    face: &'static str,
    method: String,
    tool: String,
    outcome: String,
}

/// Counters behind /metrics, in Prometheus' text format.
#[derive(Default)]
pub struct Metrics {
    operations: Mutex<BTreeMap<Operation, Histogram>>,
    refusals: Mutex<BTreeMap<&'static str, u64>>,
    streams: std::sync::atomic::AtomicI64,
}

/// More kinds of operations than this are counted together.
const MOST_SERIES: usize = 2_000;

impl Metrics {
    /// A finished operation; `outcome` is "ok" or the error's code.
    pub fn operation(
        &self,
        face: &'static str,
        method: &str,
        tool: Option<&str>,
        outcome: &str,
        took: Duration,
    ) {
        let mut operation = Operation {
            face,
            method: method.to_owned(),
            tool: tool.unwrap_or_default().to_owned(),
            outcome: outcome.to_owned(),
        };
        let Ok(mut operations) = self.operations.lock() else {
            return;
        };
        if operations.len() >= MOST_SERIES && !operations.contains_key(&operation) {
            operation.tool = "other".to_owned();
        }
        let histogram = operations.entry(operation).or_default();
        let seconds = took.as_secs_f64();
        for (bucket, bound) in histogram.buckets.iter_mut().zip(BUCKETS) {
            if seconds <= bound {
                *bucket += 1;
            }
        }
        histogram.count += 1;
        histogram.sum += seconds;
    }

    /// A request turned away at the door.
    pub fn refused(&self, why: &'static str) {
        if let Ok(mut refusals) = self.refusals.lock() {
            *refusals.entry(why).or_default() += 1;
        }
    }

    /// One more (or one fewer) open change stream.
    pub fn stream(&self, change: i64) {
        self.streams
            .fetch_add(change, std::sync::atomic::Ordering::Relaxed);
    }

    pub fn render(&self, pool: &deadpool::Status) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail, so the results are dropped.
        let _ = self.render_to(&mut out, pool);
        out
    }

    fn render_to(&self, out: &mut String, pool: &deadpool::Status) -> std::fmt::Result {
        let name = "mcp_server_operation_duration_seconds";
        writeln!(
            out,
            "# HELP {name} Time to answer, by face, method, tool and outcome."
        )?;
        writeln!(out, "# TYPE {name} histogram")?;
        if let Ok(operations) = self.operations.lock() {
            for (o, h) in operations.iter() {
                let labels = format!(
                    "face=\"{}\",method=\"{}\",tool=\"{}\",outcome=\"{}\"",
                    o.face,
                    escape(&o.method),
                    escape(&o.tool),
                    escape(&o.outcome)
                );
                for (count, bound) in h.buckets.iter().zip(BUCKETS) {
                    writeln!(out, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}")?;
                }
                writeln!(out, "{name}_bucket{{{labels},le=\"+Inf\"}} {}", h.count)?;
                writeln!(out, "{name}_sum{{{labels}}} {}", h.sum)?;
                writeln!(out, "{name}_count{{{labels}}} {}", h.count)?;
            }
        }
        let name = "odin_http_refusals_total";
        writeln!(
            out,
            "# HELP {name} Requests turned away before any tool, by reason."
        )?;
        writeln!(out, "# TYPE {name} counter")?;
        if let Ok(refusals) = self.refusals.lock() {
            for (why, count) in refusals.iter() {
                writeln!(out, "{name}{{reason=\"{why}\"}} {count}")?;
            }
        }
        let streams = self.streams.load(std::sync::atomic::Ordering::Relaxed);
        for (name, help, value) in [
            ("odin_open_streams", "Open change streams.", streams as f64),
            (
                "odin_db_connections",
                "Connections of the request pool.",
                pool.size as f64,
            ),
            (
                "odin_db_connections_idle",
                "Idle connections of the request pool.",
                pool.available as f64,
            ),
            (
                "odin_db_waiting",
                "Requests waiting for a connection.",
                pool.waiting as f64,
            ),
            (
                "process_resident_memory_bytes",
                "Resident memory.",
                resident_bytes(),
            ),
        ] {
            writeln!(
                out,
                "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}"
            )?;
        }
        Ok(())
    }
}

fn escape(text: &str) -> String {
    text.chars()
        .filter(|c| !c.is_control())
        .take(128)
        .flat_map(|c| match c {
            '"' | '\\' => vec!['\\', c],
            c => vec![c],
        })
        .collect()
}

/// From /proc; 0 where there is none.
fn resident_bytes() -> f64 {
    let Ok(statm) = std::fs::read_to_string("/proc/self/statm") else {
        return 0.0;
    };
    let pages: f64 = statm
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0.0);
    pages * 4096.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_count_and_escape() {
        let metrics = Metrics::default();
        let took = Duration::from_millis(3);
        metrics.operation("mcp", "tools/call", Some("a\"b"), "ok", took);
        metrics.operation("mcp", "tools/call", Some("a\"b"), "ok", took);
        metrics.refused("auth");
        let pool = deadpool::Status {
            max_size: 1,
            size: 1,
            available: 1,
            waiting: 0,
        };
        let text = metrics.render(&pool);
        assert!(text.contains(r#"tool="a\"b",outcome="ok"} 2"#));
        assert!(text.contains(r#"le="0.005"} 2"#));
        assert!(text.contains(r#"le="0.0025"} 0"#));
        assert!(text.contains(r#"odin_http_refusals_total{reason="auth"} 1"#));
    }
}
