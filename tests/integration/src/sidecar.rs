//! Running sidecars, each killed when dropped, and what a test of one needs of its farm.

use std::future::Future;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::net::TcpSocket;
use tokio::process::{Child, Command};

use crate::web::Client;
use crate::{connect, Farm};

/// Long enough for a machine that is slow and busy; whoever waits on a condition waits no longer than it takes to come true.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Wait until something holds; panics with its name when it does not within `limit`.
pub async fn until<F, Fut>(what: &str, limit: Duration, mut holds: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < limit, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl Farm {
    /// With the tools, prompts and resources of the conformance suite.
    pub async fn with_fixture() -> Farm {
        let farm = Farm::new().await;
        let fixture = include_str!("../../conformance/fixture.sql");
        let plain: Vec<&str> = fixture.lines().filter(|l| !l.starts_with('\\')).collect();
        farm.sql(&plain.join("\n")).await;
        farm.sql("GRANT USAGE ON SCHEMA lab TO odin_owner").await;
        farm
    }

    /// The secret of a new key for somebody in a group.
    pub async fn key(&self, suffix: &str, group: &str, scopes: &str) -> String {
        let role = self.role(suffix, group).await;
        self.mint(&role, scopes).await.secret
    }

    /// The farm for a login of the sidecar's.
    pub fn url(&self, login: &str) -> String {
        let base = std::env::var("ODIN_TEST_URL").expect("ODIN_TEST_URL");
        base.replace("//postgres@", &format!("//{login}@"))
            .replace("/postgres?", &format!("/{}?", self.name))
    }

    /// Statements of the sidecars that run right now and whose trace holds `text`.
    pub async fn running(&self, text: &str) -> i64 {
        let sql = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' \
             AND usename IN ('odin_gateway', 'odin_worker') AND application_name LIKE '%{text}%'"
        );
        self.value(&sql).await
    }

    /// Nobody gets in any more, and everybody else is thrown out.
    pub async fn close(&self) {
        let root = connect("postgres", "postgres").await;
        let sql = format!("ALTER DATABASE {} ALLOW_CONNECTIONS false", self.name);
        root.batch_execute(&sql).await.expect("closed");
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1 AND usename <> 'postgres'";
        root.query(sql, &[&self.name]).await.expect("terminated");
    }

    pub async fn reopen(&self) {
        let root = connect("postgres", "postgres").await;
        let sql = format!("ALTER DATABASE {} ALLOW_CONNECTIONS true", self.name);
        root.batch_execute(&sql).await.expect("reopened");
    }
}

pub struct Sidecar {
    pub port: u16,
    pub log: PathBuf,
    child: Child,
    /// Bound, and never listening: nobody else is given the port while the sidecar lives.
    _reserved: TcpSocket,
}

impl Sidecar {
    pub async fn start(farm: &Farm, settings: &[(&str, &str)]) -> Sidecar {
        let sidecar = Sidecar::spawn(farm, settings);
        let client = Client::new(sidecar.port);
        until("the sidecar is ready", PATIENCE, || async {
            match client.get("/readyz").await {
                Some(reply) => reply.status == 200,
                None => false,
            }
        })
        .await;
        sidecar
    }

    pub fn spawn(farm: &Farm, settings: &[(&str, &str)]) -> Sidecar {
        let binary = std::env::var("ODIN_TEST_SIDECAR").expect("ODIN_TEST_SIDECAR");
        // A port from the system. The sidecar can listen on it beside this socket, because both let the address be used again.
        let reserved = TcpSocket::new_v4().expect("a socket");
        reserved.set_reuseaddr(true).expect("an option");
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        reserved.bind(any).expect("a free port");
        let port = reserved.local_addr().expect("an address").port();
        let out = std::env::var("ODIN_TEST_OUT").unwrap_or_else(|_| "/tmp".into());
        let log = PathBuf::from(out).join(format!("sidecar-{}-{port}.log", farm.name));
        let file = std::fs::File::create(&log).expect("a log file");
        let child = Command::new(binary)
            .arg("serve")
            .env("ODIN_LISTEN", format!("127.0.0.1:{port}"))
            .env("ODIN_GATEWAY_URL", farm.url("odin_gateway"))
            .env("ODIN_WORKER_URL", farm.url("odin_worker"))
            .envs(settings.iter().copied())
            .stdout(std::process::Stdio::null())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .expect("the sidecar starts");
        Sidecar {
            port,
            log,
            child,
            _reserved: reserved,
        }
    }

    pub fn client(&self) -> Client {
        Client::new(self.port)
    }

    /// As `kill -9` does it: nothing is handed back.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("killed");
    }

    /// As an orchestrator asks it to stop. Returns its exit code.
    pub async fn terminate(&mut self) -> Option<i32> {
        let pid = self.child.id().expect("it runs");
        let status = std::process::Command::new("kill")
            .args(["-TERM", &pid.to_string()])
            .status();
        assert!(status.is_ok_and(|s| s.success()));
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.expect("it ends").expect("it ends").code()
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Resident memory in MB.
    pub fn memory_mb(&self) -> f64 {
        let pid = self.child.id().expect("it runs");
        let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap_or_default();
        let pages: f64 = statm
            .split_whitespace()
            .nth(1)
            .and_then(|n| n.parse().ok())
            .unwrap_or(0.0);
        pages * 4096.0 / 1e6
    }
}
