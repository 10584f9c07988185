//! Settings: flags and environment, one place. Secrets come from the environment or files, and are never printed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::egress::EgressOptions;
use crate::embed::{EmbedOptions, Embedder};
use crate::printers::secrets::Keyring;

/// A PostgreSQL URL. Its `Debug` hides everything but the host, so no log line can carry the password.
#[derive(Clone)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    pub fn parse(&self) -> Result<tokio_postgres::Config, String> {
        self.0
            .parse()
            .map_err(|e: tokio_postgres::Error| format!("not a PostgreSQL URL: {e}"))
    }
}

impl std::str::FromStr for DatabaseUrl {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let url = DatabaseUrl(text.to_owned());
        url.parse()?;
        Ok(url)
    }
}

impl std::fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.parse() {
            Ok(config) => write!(f, "postgres://…@{:?}", config.get_hosts()),
            Err(_) => f.write_str("postgres://…"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    Json,
    Text,
}

/// What both `serve` and `stdio` need: the way to the farm and how to log.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Connections to PostgreSQL for requests
    #[arg(long, env = "ODIN_POOL_SIZE", default_value_t = 16)]
    pub pool_size: usize,
    /// Longest wait for a free connection, in milliseconds
    #[arg(long, env = "ODIN_POOL_WAIT_MS", default_value_t = 5_000)]
    pub pool_wait_ms: u64,
    /// A call that runs longer is cancelled in PostgreSQL, in seconds
    #[arg(long, env = "ODIN_CALL_TIMEOUT", default_value_t = 120)]
    pub call_timeout: u64,
    /// Calls a minute for a key without a limit of its own
    #[arg(long, env = "ODIN_RATE_PER_MINUTE", default_value_t = 6_000)]
    pub rate_per_minute: u32,
    /// Calls at once for a key without a limit of its own
    #[arg(long, env = "ODIN_CONCURRENCY", default_value_t = 64)]
    pub concurrency: u32,
    /// How long a person may take to answer a question a tool asks, in seconds
    #[arg(long, env = "ODIN_ASK_TIMEOUT", default_value_t = 300)]
    pub ask_timeout: u64,
    /// How long a call waits for a printer to confirm a command before it gets a handle, in seconds
    #[arg(long, env = "ODIN_COMMAND_WAIT", default_value_t = 20)]
    pub command_wait: u64,
    /// How long a call waits for work such as slicing before it gets a handle, in seconds
    #[arg(long, env = "ODIN_TASK_WAIT", default_value_t = 50)]
    pub task_wait: u64,
    /// 64 hex digits that seal printers' credentials, the same for every sidecar
    #[arg(long, env = "ODIN_SECRET_KEY", hide_env_values = true)]
    pub secret_key: Option<Keyring>,
    /// File holding the secret key; otherwise ODIN_SECRET_KEY
    #[arg(long, env = "ODIN_SECRET_KEY_FILE")]
    pub secret_key_file: Option<PathBuf>,
    #[command(flatten)]
    pub egress: EgressOptions,
    #[command(flatten)]
    pub embed: EmbedOptions,
    #[arg(long, env = "ODIN_LOG_FORMAT", value_enum, default_value = "json")]
    pub log_format: LogFormat,
    /// Filter of the log, as in RUST_LOG (default: info, for stdio: warn)
    #[arg(long, env = "ODIN_LOG")]
    pub log: Option<String>,
}

impl Common {
    pub fn pool_wait(&self) -> Duration {
        Duration::from_millis(self.pool_wait_ms)
    }
    pub fn call_timeout(&self) -> Duration {
        Duration::from_secs(self.call_timeout)
    }
    pub fn ask_timeout(&self) -> Duration {
        Duration::from_secs(self.ask_timeout)
    }
    pub fn command_wait(&self) -> Duration {
        Duration::from_secs(self.command_wait)
    }
    /// What makes vectors; `None` without an endpoint.
    pub fn embedder(&self) -> Result<Option<Arc<Embedder>>, String> {
        Embedder::new(&self.embed, &self.egress)
    }
    pub fn task_wait(&self) -> Duration {
        Duration::from_secs(self.task_wait)
    }
    /// What seals printers' credentials; without it this sidecar can neither take nor read them.
    pub fn keyring(&self) -> Result<Option<Keyring>, String> {
        let Some(path) = &self.secret_key_file else {
            return Ok(self.secret_key.clone());
        };
        let text = std::fs::read_to_string(path)
            .map_err(|e| format!("cannot read the secret key file {}: {e}", path.display()))?;
        text.parse().map(Some)
    }
}

#[derive(Args, Clone, Debug)]
pub struct Serve {
    #[command(flatten)]
    pub common: Common,
    /// PostgreSQL as odin_gateway: the only way a request reaches the farm
    #[arg(long, env = "ODIN_GATEWAY_URL", hide_env_values = true)]
    pub gateway_url: DatabaseUrl,
    /// PostgreSQL as odin_worker: background work; without it this sidecar only answers requests
    #[arg(long, env = "ODIN_WORKER_URL", hide_env_values = true)]
    pub worker_url: Option<DatabaseUrl>,
    /// Address to listen on
    #[arg(long, env = "ODIN_LISTEN", default_value = "127.0.0.1:8808")]
    pub listen: SocketAddr,
    /// The address people use, for example https://farm.example.org
    #[arg(long, env = "ODIN_PUBLIC_URL")]
    pub public_url: Option<String>,
    /// Host names accepted besides loopback and the public URL's (comma separated; `*` = any)
    #[arg(long, env = "ODIN_ALLOWED_HOSTS", value_delimiter = ',')]
    pub allowed_hosts: Vec<String>,
    /// Web origins accepted besides loopback and the public URL's (comma separated)
    #[arg(long, env = "ODIN_ALLOWED_ORIGINS", value_delimiter = ',')]
    pub allowed_origins: Vec<String>,
    /// Proxies whose X-Forwarded-For is believed (comma separated addresses)
    #[arg(long, env = "ODIN_TRUSTED_PROXIES", value_delimiter = ',')]
    pub trusted_proxies: Vec<IpAddr>,
    /// Largest request body, in bytes
    #[arg(long, env = "ODIN_MAX_BODY", default_value_t = 4 * 1024 * 1024)]
    pub max_body: usize,
    /// A body must have arrived after this long, in seconds
    #[arg(long, env = "ODIN_BODY_TIMEOUT", default_value_t = 10)]
    pub body_timeout: u64,
    /// Open change streams per key
    #[arg(long, env = "ODIN_MAX_STREAMS", default_value_t = 16)]
    pub max_streams: usize,
    #[command(flatten)]
    pub work: WorkOptions,
    /// Grace for running calls at shutdown, in seconds
    #[arg(long, env = "ODIN_SHUTDOWN_GRACE", default_value_t = 10)]
    pub shutdown_grace: u64,
}

impl Serve {
    pub fn body_timeout(&self) -> Duration {
        Duration::from_secs(self.body_timeout)
    }
}

/// What a sidecar does beside answering requests.
#[derive(Args, Clone, Debug)]
pub struct WorkOptions {
    /// Tasks worked on at once by this sidecar
    #[arg(long, env = "ODIN_TASK_WORKERS", default_value_t = 4)]
    pub task_workers: usize,
    /// Printers this sidecar looks after at most; 0 = none
    #[arg(long, env = "ODIN_MOST_PRINTERS", default_value_t = 5_000)]
    pub most_printers: usize,
    /// Models sliced at once by this sidecar; 0 = it slices nothing
    #[arg(long, env = "ODIN_SLICE_WORKERS", default_value_t = 1)]
    pub slice_workers: usize,
    /// Where Thingiverse's interface is
    #[arg(
        long,
        env = "ODIN_THINGIVERSE_URL",
        default_value = "https://api.thingiverse.com"
    )]
    pub thingiverse_url: url::Url,
    #[command(flatten)]
    pub slicers: SlicerOptions,
}

/// Where the slicers are, if not in their usual places.
#[derive(Args, Clone, Debug, Default)]
pub struct SlicerOptions {
    /// The program CuraEngine
    #[arg(long, env = "ODIN_CURA_ENGINE")]
    pub cura_engine: Option<PathBuf>,
    /// Folder with Cura's definitions/ and extruders/
    #[arg(long, env = "ODIN_CURA_RESOURCES")]
    pub cura_resources: Option<PathBuf>,
    /// The program prusa-slicer
    #[arg(long, env = "ODIN_PRUSA_SLICER")]
    pub prusa_slicer: Option<PathBuf>,
    /// The program orca-slicer
    #[arg(long, env = "ODIN_ORCA_COMMAND")]
    pub orca_command: Option<PathBuf>,
    /// OrcaSlicer's folder resources/profiles
    #[arg(long, env = "ODIN_ORCA_PROFILES")]
    pub orca_profiles: Option<PathBuf>,
}

/// `odin-farm worker`: background work without a door.
#[derive(Args, Clone, Debug)]
pub struct Worker {
    #[command(flatten)]
    pub common: Common,
    /// PostgreSQL as odin_worker
    #[arg(long, env = "ODIN_WORKER_URL", hide_env_values = true)]
    pub worker_url: DatabaseUrl,
    #[command(flatten)]
    pub work: WorkOptions,
    /// Grace for running work at shutdown, in seconds
    #[arg(long, env = "ODIN_SHUTDOWN_GRACE", default_value_t = 10)]
    pub shutdown_grace: u64,
}

/// `odin-farm key`: keys of agents and programs, made and ended by a person with his own login.
#[derive(Args, Clone, Debug)]
pub struct Keys {
    /// PostgreSQL as yourself (or a superuser): never the gateway's or the worker's login
    #[arg(long, env = "ODIN_DATABASE_URL", hide_env_values = true)]
    pub database_url: DatabaseUrl,
    /// Everything as one line of JSON
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub act: KeyAct,
}

#[derive(clap::Subcommand, Clone, Debug)]
pub enum KeyAct {
    /// Make a key; its secret goes to stdout, once
    Mint(Mint),
    /// The keys you may see, never a secret
    List,
    /// End a key at once
    Revoke { id: i64 },
    /// A new secret with the same rights; the old one ends after the overlap
    Rotate {
        id: i64,
        /// How long the old one stays good, in minutes
        #[arg(long, default_value_t = 60)]
        overlap_minutes: i32,
    },
}

#[derive(Args, Clone, Debug)]
pub struct Mint {
    /// What it is for, as the list and the audit show it
    pub name: String,
    /// agent:read, agent:write, admin, or read:AREA and write:AREA (comma separated)
    #[arg(long, value_delimiter = ',', default_value = "agent:read")]
    pub scopes: Vec<String>,
    /// Whose key it is; yourself if not given
    #[arg(long)]
    pub role: Option<String>,
    /// Days until it ends
    #[arg(long, default_value_t = 90, conflicts_with = "no_end")]
    pub expires_days: i32,
    /// It never ends
    #[arg(long)]
    pub no_end: bool,
    /// Toolsets it lists (comma separated)
    #[arg(long, value_delimiter = ',')]
    pub toolsets: Vec<String>,
    /// Addresses or networks it may come from (comma separated)
    #[arg(long, value_delimiter = ',')]
    pub allowed_ips: Vec<String>,
    /// Calls a minute
    #[arg(long)]
    pub rate_per_minute: Option<i32>,
    /// Calls at once
    #[arg(long)]
    pub concurrency: Option<i32>,
}

#[derive(Args, Clone, Debug)]
pub struct Stdio {
    #[command(flatten)]
    pub common: Common,
    /// PostgreSQL as odin_gateway, no other login; used when there is no ODIN_URL
    #[arg(long, env = "ODIN_DATABASE_URL", hide_env_values = true)]
    pub database_url: Option<DatabaseUrl>,
    /// A running sidecar, for example https://farm.example.org
    #[arg(long, env = "ODIN_URL")]
    pub url: Option<String>,
    /// File holding the key; otherwise ODIN_KEY. A key is never taken from the command line
    #[arg(long, env = "ODIN_KEY_FILE")]
    pub key_file: Option<PathBuf>,
    /// Toolsets to offer (comma separated)
    #[arg(long, env = "ODIN_TOOLSETS", value_delimiter = ',')]
    pub toolsets: Vec<String>,
    /// Offer and allow read tools only
    #[arg(long, env = "ODIN_READONLY")]
    pub readonly: bool,
}

impl Stdio {
    /// The key, from the file or the environment.
    pub fn key(&self) -> Result<String, String> {
        let text = match &self.key_file {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|e| format!("cannot read the key file {}: {e}", path.display()))?,
            None => std::env::var("ODIN_KEY").map_err(|_| {
                "no key: set ODIN_KEY or ODIN_KEY_FILE to a key made with `odin-farm key mint`"
                    .to_owned()
            })?,
        };
        let key = text.trim();
        if key.is_empty() {
            return Err("the key is empty".to_owned());
        }
        Ok(key.to_owned())
    }
}
