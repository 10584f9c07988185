//! One connection: its driver, its notices, its prepared statements, its cancel.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use deadpool::managed::{Manager, Metrics, RecycleError, RecycleResult};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::DbError as ServerMessage;
use tokio_postgres::{AsyncMessage, CancelToken, Client, Config, Statement};

use super::{tls, DbError};

/// SQLSTATEs of the notices that odin.progress() and odin.log() raise.
const PROGRESS: &str = "OD0PR";
const LOG: &str = "OD0LG";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    Progress,
    Log,
}

/// Something the running statement wants the caller to hear.
#[derive(Clone, Debug)]
pub struct Notice {
    pub kind: NoticeKind,
    pub body: Value,
}

type Ear = Arc<Mutex<Option<mpsc::UnboundedSender<Notice>>>>;

pub struct Connection {
    pub client: Client,
    cancel: CancelToken,
    tls: tls::Tls,
    ear: Ear,
    statements: HashMap<&'static str, Statement>,
}

impl Connection {
    /// Who hears the notices from now on.
    pub fn hear(&self, listener: Option<mpsc::UnboundedSender<Notice>>) {
        if let Ok(mut ear) = self.ear.lock() {
            *ear = listener;
        }
    }

    pub async fn prepared(&mut self, sql: &'static str) -> Result<Statement, DbError> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await?;
        self.statements.insert(sql, statement.clone());
        Ok(statement)
    }

    /// Stop what runs here and end the connection: no later statement can be hit by this cancel request.
    pub async fn cancel_and_close(self) {
        let attempt = self.cancel.cancel_query(self.tls.clone());
        match tokio::time::timeout(Duration::from_secs(5), attempt).await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::warn!(error = %e, "cancel request failed"),
            Err(_) => tracing::warn!("cancel request timed out"),
        }
        // The client is dropped; its driver ends when the server has answered the cancelled statement.
    }
}

/// Makes connections; after a failure it waits longer and longer before it troubles the server again.
#[derive(Clone)]
pub struct Connector {
    config: Config,
    tls: tls::Tls,
    backoff: Arc<Mutex<Backoff>>,
}

#[derive(Default)]
struct Backoff {
    failures: u32,
    not_before: Option<Instant>,
}

impl Connector {
    pub fn new(mut config: Config) -> Result<Self, DbError> {
        if config.get_application_name().is_none() {
            config.application_name("odin-farm");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(5));
        }
        config.keepalives_idle(Duration::from_secs(30));
        // A socket on this machine needs no TLS, and has no name to check a certificate against.
        let local = |host: &Host| matches!(host, Host::Unix(_));
        if !config.get_hosts().is_empty() && config.get_hosts().iter().all(local) {
            config.ssl_mode(SslMode::Disable);
        }
        Ok(Connector {
            config,
            tls: tls::connector().map_err(DbError::Internal)?,
            backoff: Arc::default(),
        })
    }

    /// Connect, and hand every asynchronous message to `on_message` while the connection lives.
    pub async fn connect(
        &self,
        mut on_message: impl FnMut(AsyncMessage) + Send + 'static,
    ) -> Result<(Client, tokio::task::JoinHandle<()>), DbError> {
        // Boxed: this future is some 16 kB, and every call's own would carry room for it though hardly one connects.
        let connected = Box::pin(self.config.connect(self.tls.clone())).await;
        // Whatever keeps us out, a later try may get in.
        let (client, mut connection) = connected.map_err(|e| match DbError::from(e) {
            DbError::Sql { state, message } => DbError::Unavailable(format!("{state}: {message}")),
            other => other,
        })?;
        let driver = tokio::spawn(async move {
            loop {
                match poll_fn(|cx| connection.poll_message(cx)).await {
                    Some(Ok(message)) => on_message(message),
                    Some(Err(e)) => {
                        tracing::debug!(error = %e, "database connection ended");
                        return;
                    }
                    None => return,
                }
            }
        });
        Ok((client, driver))
    }

    /// Refuse at once while the server is known to be away, so that callers do not queue behind connect attempts.
    fn may_try(&self) -> Result<(), DbError> {
        match self.backoff.lock() {
            Ok(backoff) if backoff.not_before.is_some_and(|t| t > Instant::now()) => Err(
                DbError::Unavailable("waiting before the next attempt".to_owned()),
            ),
            _ => Ok(()),
        }
    }

    /// An outage is logged when it begins and when it ends, not at every attempt between.
    fn tried(&self, error: Option<&DbError>) {
        let Ok(mut backoff) = self.backoff.lock() else {
            return;
        };
        match error {
            None => {
                if backoff.failures > 0 {
                    tracing::info!("the database is back");
                }
                *backoff = Backoff::default();
            }
            Some(error) => {
                if backoff.failures == 0 {
                    tracing::warn!(error = %error, "cannot connect to the database");
                }
                backoff.failures = (backoff.failures + 1).min(6);
                let wait = Duration::from_millis(50 << backoff.failures);
                backoff.not_before = Some(Instant::now() + wait);
            }
        }
    }
}

fn notice(message: &ServerMessage) -> Option<Notice> {
    let kind = match message.code().code() {
        PROGRESS => NoticeKind::Progress,
        LOG => NoticeKind::Log,
        _ => return None,
    };
    let body = serde_json::from_str(message.message()).ok()?;
    Some(Notice { kind, body })
}

impl Manager for Connector {
    /// Boxed: on its way to a call and back it is moved a dozen times.
    type Type = Box<Connection>;
    type Error = DbError;

    async fn create(&self) -> Result<Box<Connection>, DbError> {
        self.may_try()?;
        let ear: Ear = Arc::default();
        let heard = ear.clone();
        let connected = self
            .connect(move |message| {
                let AsyncMessage::Notice(message) = message else {
                    return;
                };
                match notice(&message) {
                    Some(notice) => {
                        if let Ok(ear) = heard.lock() {
                            // Nobody listens any more: the notice is of no use to anyone.
                            let _ = ear.as_ref().map(|ear| ear.send(notice));
                        }
                    }
                    None => tracing::debug!(message = message.message(), "notice"),
                }
            })
            .await;
        self.tried(connected.as_ref().err());
        let (client, _driver) = connected?;
        Ok(Box::new(Connection {
            cancel: client.cancel_token(),
            client,
            tls: self.tls.clone(),
            ear,
            statements: HashMap::new(),
        }))
    }

    /// No round trip: the database's jail leaves nothing behind on a connection, and a dead one shows itself.
    async fn recycle(
        &self,
        connection: &mut Box<Connection>,
        _: &Metrics,
    ) -> RecycleResult<DbError> {
        if connection.client.is_closed() {
            return Err(RecycleError::message("connection closed"));
        }
        connection.hear(None);
        Ok(())
    }
}
