//! `odin-farm check`: how ready every level is, for a person or as JSON. It changes nothing, and fails only for what is
//! broken: what is merely not set up yet is said, and counts only where it is required.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use serde_json::{json, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::config::{Common, DatabaseUrl, WorkOptions};
use crate::db::Db;
use crate::egress::{Egress, Limits};
use crate::files::objects::Objects;
use crate::slicers::Slicers;

const VERSION: &str = "SELECT odin.gateway_version()";
const READINESS: &str = "SELECT odin.worker_readiness()";
const STORES: &str = "SELECT odin.worker_object_stores()";
/// Nobody waits longer for one answer; a busy machine may need a while for one.
const PATIENCE: Duration = Duration::from_secs(20);
/// Work that waits longer has nobody who does it.
const LONG_WAIT_S: i64 = 120;

#[derive(Args, Clone, Debug)]
pub struct Check {
    #[command(flatten)]
    common: Common,
    /// PostgreSQL as odin_gateway
    #[arg(long, env = "ODIN_GATEWAY_URL", hide_env_values = true)]
    gateway_url: Option<DatabaseUrl>,
    /// PostgreSQL as odin_worker
    #[arg(long, env = "ODIN_WORKER_URL", hide_env_values = true)]
    worker_url: Option<DatabaseUrl>,
    /// Where the sidecar of this machine listens
    #[arg(long, env = "ODIN_LISTEN", default_value = "127.0.0.1:8808")]
    listen: SocketAddr,
    #[command(flatten)]
    work: WorkOptions,
    /// Levels that must be ready: database, sidecar, objects, printers, slicers, sources (comma separated)
    #[arg(long, value_delimiter = ',', default_value = "database", value_parser = ["database", "sidecar", "objects", "printers", "slicers", "sources"])]
    require: Vec<String>,
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub fn common(&self) -> &Common {
        &self.common
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Ready,
    /// Not set up.
    Missing,
    Failed,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Ready => "ready",
            State::Missing => "missing",
            State::Failed => "failed",
        }
    }
}

struct Level {
    name: &'static str,
    state: State,
    detail: String,
    hint: String,
}

fn level(name: &'static str, state: State, detail: impl Into<String>, hint: &str) -> Level {
    Level {
        name,
        state,
        detail: detail.into(),
        hint: hint.to_owned(),
    }
}

/// Prints the report. False: something is broken, or something required is missing.
pub async fn run(check: Check) -> Result<bool, String> {
    let (database, farm) = database(&check).await;
    let levels = [
        database,
        sidecar(&check, &farm).await,
        objects(&check).await,
        printers(&farm),
        slicers(&check, &farm).await,
        sources(&check, &farm).await,
    ];
    let good = levels.iter().all(|level| {
        let required = check.require.iter().any(|name| name == level.name);
        level.state == State::Ready || (level.state == State::Missing && !required)
    });
    if check.json {
        let list: Vec<Value> = levels
            .iter()
            .map(|l| json!({"level": l.name, "state": l.state.word(), "detail": l.detail, "hint": l.hint}))
            .collect();
        println!(
            "{}",
            json!({"ready": good, "version": env!("CARGO_PKG_VERSION"), "levels": list})
        );
    } else {
        for level in &levels {
            println!(
                "{:<8} {:<9} {}",
                level.state.word(),
                level.name,
                level.detail
            );
            if level.state != State::Ready {
                level
                    .hint
                    .lines()
                    .for_each(|line| println!("{:18} {line}", ""));
            }
        }
    }
    Ok(good)
}

async fn ask(url: &DatabaseUrl, sql: &'static str) -> Result<Value, String> {
    let db = Db::new(url.parse()?, 1, PATIENCE).map_err(|e| e.to_string())?;
    let answer = tokio::time::timeout(PATIENCE, db.quick(sql, &[])).await;
    db.close();
    answer
        .map_err(|_| "the database does not answer".to_owned())?
        .map_err(|e| e.to_string())
}

/// The farm as odin_worker sees it; null where that login is not there.
async fn database(check: &Check) -> (Level, Value) {
    let hint = "Set ODIN_GATEWAY_URL and ODIN_WORKER_URL as docs/sidecar.md shows; CREATE EXTENSION odin_farm in the database.";
    let failed = |who: &str, why: String| {
        (
            level("database", State::Failed, format!("as {who}: {why}"), hint),
            Value::Null,
        )
    };
    let (mut about, mut farm) = (Vec::new(), Value::Null);
    if let Some(url) = &check.gateway_url {
        match ask(url, VERSION).await {
            Ok(answer) => about.push(format!(
                "odin_farm {} as odin_gateway",
                answer["version"].as_str().unwrap_or("of no version")
            )),
            Err(why) => return failed("odin_gateway", why),
        }
    }
    if let Some(url) = &check.worker_url {
        match ask(url, READINESS).await {
            Ok(answer) => farm = answer,
            Err(why) => return failed("odin_worker", why),
        }
        about.push(format!(
            "PostgreSQL {}, odin_farm {} as odin_worker",
            farm["postgresql"].as_str().unwrap_or_default(),
            farm["version"].as_str().unwrap_or_default()
        ));
        let waited = farm["tasks"]["longest_wait_s"].as_i64().unwrap_or_default();
        if waited > LONG_WAIT_S {
            let detail = format!(
                "{} tasks wait, one for {waited} s, and nobody takes them",
                farm["tasks"]["queued"]
            );
            let hint =
                "Start odin-farm serve or worker with ODIN_WORKER_URL and what the tasks need.";
            return (level("database", State::Failed, detail, hint), farm);
        }
    }
    if about.is_empty() {
        return (
            level("database", State::Missing, "no login is set", hint),
            farm,
        );
    }
    (level("database", State::Ready, about.join("; "), ""), farm)
}

async fn sidecar(check: &Check, farm: &Value) -> Level {
    let key = match check.common.keyring() {
        Ok(Some(_)) => "with a secret key",
        Ok(None) => "without ODIN_SECRET_KEY: no credentials can be kept",
        Err(why) => {
            return level(
                "sidecar",
                State::Failed,
                why,
                "openssl rand -hex 32 makes a key; every sidecar has the same.",
            )
        }
    };
    let held = farm["sidecars"].as_i64().map_or(String::new(), |n| {
        format!("; {n} in the farm look after printers")
    });
    match tokio::time::timeout(PATIENCE, readyz(check.listen)).await {
        Ok(Ok(200)) => level(
            "sidecar",
            State::Ready,
            format!("serves at {}, {key}{held}", check.listen),
            "",
        ),
        Ok(Ok(status)) => level(
            "sidecar",
            State::Failed,
            format!("{} answers /readyz with {status}", check.listen),
            "Its log says why; 503 is a database that does not answer.",
        ),
        _ => level(
            "sidecar",
            State::Missing,
            format!("nothing serves at {}{held}", check.listen),
            "Start odin-farm serve, or name its address with --listen.",
        ),
    }
}

async fn readyz(address: SocketAddr) -> std::io::Result<u16> {
    let mut socket = tokio::net::TcpStream::connect(address).await?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut line = [0u8; 12];
    socket.read_exact(&mut line).await?;
    let status = std::str::from_utf8(&line[9..])
        .ok()
        .and_then(|s| s.parse().ok());
    status.ok_or_else(|| std::io::Error::other("no HTTP"))
}

/// Every bucket that is in use is asked.
async fn objects(check: &Check) -> Level {
    let name = "objects";
    let hint = "get_object_store says what waits; set_object_store changes the way, the key or the mode. Files stay in PostgreSQL meanwhile.";
    let Some(url) = &check.worker_url else {
        return level(name, State::Missing, "unknown without ODIN_WORKER_URL", "");
    };
    let ready = async {
        let stores = ask(url, STORES).await?;
        let egress = Egress::new(&check.common.egress)?;
        let way = Objects::new(egress, check.common.keyring()?);
        let mut good = Vec::new();
        for row in stores.as_array().into_iter().flatten() {
            let object = way.object(row).map_err(|e| e.to_string())?;
            let probe = tokio::time::timeout(PATIENCE, way.probe(&object)).await;
            probe
                .map_err(|_| format!("{} does not answer", object.place()))?
                .map_err(|e| e.to_string())?;
            let (mode, waiting) = (&row["mode"], &row["waiting"]);
            good.push(format!(
                "{} answers (mode {}, {waiting} files wait)",
                object.place(),
                mode.as_str().unwrap_or_default()
            ));
        }
        Ok::<_, String>(good)
    };
    match ready.await {
        Ok(good) if good.is_empty() => level(
            name,
            State::Missing,
            "no org has an object store: all files are in PostgreSQL",
            "That is enough for most farms; set_object_store keeps larger files in a bucket.",
        ),
        Ok(good) => level(name, State::Ready, good.join("; "), ""),
        Err(why) => level(name, State::Failed, why, hint),
    }
}

fn printers(farm: &Value) -> Level {
    let about = &farm["printers"];
    let Some(total) = about["total"].as_i64() else {
        return level(
            "printers",
            State::Missing,
            "unknown without ODIN_WORKER_URL",
            "",
        );
    };
    let lost = about["unreached"].as_i64().unwrap_or_default();
    if total == 0 {
        level(
            "printers",
            State::Missing,
            "there are none",
            "create_printer makes one; protocol virtual needs no machine.",
        )
    } else if lost == 0 {
        level(
            "printers",
            State::Ready,
            format!("{total}, all reached"),
            "",
        )
    } else {
        let names: Vec<&str> = about["names"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let detail = format!(
            "{lost} of {total} are not reached: {}{}",
            names.join(", "),
            if lost > names.len() as i64 {
                ", ..."
            } else {
                ""
            }
        );
        level(
            "printers",
            State::Failed,
            detail,
            "test_printer says what is wrong with one.",
        )
    }
}

async fn slicers(check: &Check, farm: &Value) -> Level {
    let here = Slicers::find(&check.work.slicers);
    let mut found = Vec::new();
    let mut hints = Vec::new();
    for (name, missing) in [
        ("CuraEngine", here.cura.as_ref().err()),
        ("PrusaSlicer", here.prusa.as_ref().err()),
        ("OrcaSlicer", here.orca.as_ref().err()),
    ] {
        match missing {
            None => found.push(name),
            Some(why) => hints.push(why.as_str()),
        }
    }
    let told: Vec<String> = farm["slicers"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|s| {
            let text = |name: &str| s[name].as_str().unwrap_or_default();
            format!("{} {}", text("slicer"), text("version"))
                .trim()
                .to_owned()
        })
        .collect();
    let here = if found.is_empty() {
        "none".to_owned()
    } else {
        found.join(", ")
    };
    let announced = if told.is_empty() {
        "none".to_owned()
    } else {
        told.join(", ")
    };
    let state = if found.is_empty() && told.is_empty() {
        State::Missing
    } else {
        State::Ready
    };
    level(
        "slicers",
        state,
        format!("on this machine: {here}; announced by workers: {announced}"),
        &hints.join("\n"),
    )
}

async fn sources(check: &Check, farm: &Value) -> Level {
    let egress = match Egress::new(&check.common.egress) {
        Ok(egress) => egress,
        Err(why) => {
            return level(
                "sources",
                State::Failed,
                why,
                "Install the system's certificates (ca-certificates).",
            )
        }
    };
    let tokens = farm["source_tokens"].as_i64().unwrap_or_default();
    let rules = egress.summary();
    if tokens == 0 {
        return level(
            "sources",
            State::Missing,
            format!("no org has a token for Thingiverse; {rules}"),
            "An administrator calls set_source_token.",
        );
    }
    let limits = Limits {
        within: PATIENCE,
        ..Limits::SMALL
    };
    // Any answer will do: whether a token is good is the org's affair.
    match egress
        .get(check.work.thingiverse_url.as_str(), &[], limits)
        .await
    {
        Ok(_) => level(
            "sources",
            State::Ready,
            format!("Thingiverse answers; {tokens} orgs have a token; {rules}"),
            "",
        ),
        Err(error) => level(
            "sources",
            State::Failed,
            format!("Thingiverse: {error}; {rules}"),
            error.to_json()["hint"]
                .as_str()
                .unwrap_or("Is there a way to the internet?"),
        ),
    }
}
