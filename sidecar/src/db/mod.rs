//! The way to PostgreSQL: a pool whose calls are one round trip, can be cancelled exactly, and hear notices as they come.

mod connection;
mod error;
mod listen;
mod login;
mod person;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use deadpool::managed::{Object, Pool, PoolError, Timeouts};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_postgres::types::{FromSql, ToSql};
use tokio_util::sync::CancellationToken;

pub use connection::{Notice, NoticeKind};
pub use error::DbError;
pub use listen::{Channel, Listener};
pub use login::{Login, LoginError};
pub use person::Person;

use connection::{Connection, Connector};

/// One plane's pool: requests run as odin_gateway, work as odin_worker.
#[derive(Clone)]
pub struct Db {
    pool: Pool<Connector>,
}

/// What a call may hear and be told while it runs.
#[derive(Default)]
pub struct Live {
    /// Cancelling it cancels the statement in PostgreSQL.
    pub cancel: CancellationToken,
    /// Progress and log notices raised by the running statement.
    pub notices: Option<mpsc::UnboundedSender<Notice>>,
    /// After this long the statement is cancelled.
    pub limit: Option<Duration>,
}

pub type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

impl Db {
    /// A pool that connects on first use, so that a sidecar starts before its database does.
    pub fn new(
        config: tokio_postgres::Config,
        size: usize,
        wait: Duration,
    ) -> Result<Self, DbError> {
        let connector = Connector::new(config)?;
        let pool = Pool::builder(connector)
            .max_size(size.max(1))
            .timeouts(Timeouts {
                wait: Some(wait),
                create: Some(wait),
                recycle: None,
            })
            .runtime(deadpool::Runtime::Tokio1)
            // The connection used last is the warmest one.
            .queue_mode(deadpool::managed::QueueMode::Lifo)
            .build()
            .map_err(|e| DbError::Internal(e.to_string()))?;
        Ok(Db { pool })
    }

    async fn connection(&self) -> Result<Object<Connector>, DbError> {
        self.pool.get().await.map_err(|e| match e {
            PoolError::Backend(e) => e,
            PoolError::Timeout(_) => DbError::Busy,
            other => DbError::Internal(other.to_string()),
        })
    }

    /// Run a statement that yields one jsonb value, in one round trip (the statement is prepared once per connection).
    pub async fn json(
        &self,
        sql: &'static str,
        params: Params<'_>,
        live: Live,
    ) -> Result<Value, DbError> {
        self.one(sql, params, live).await
    }

    /// The same for a statement that yields a piece of a file; `None` is SQL's NULL.
    pub async fn bytes(
        &self,
        sql: &'static str,
        params: Params<'_>,
    ) -> Result<Option<Vec<u8>>, DbError> {
        let live = Live {
            limit: Some(Duration::from_secs(30)),
            ..Live::default()
        };
        self.one(sql, params, live).await
    }

    async fn one<T: for<'a> FromSql<'a>>(
        &self,
        sql: &'static str,
        params: Params<'_>,
        live: Live,
    ) -> Result<T, DbError> {
        // A waiting caller may leave before a connection is free.
        let connection = tokio::select! {
            c = self.connection() => c?,
            () = live.cancel.cancelled() => return Err(DbError::Cancelled),
        };
        connection.hear(live.notices);
        let mut running = Running::new(connection);
        let outcome = {
            let connection = running.connection();
            let statement = connection.prepared(sql).await?;
            let query = connection.client.query_one(&statement, params);
            tokio::pin!(query);
            tokio::select! {
                row = &mut query => Some(row),
                () = live.cancel.cancelled() => None,
                () = sleep_or_forever(live.limit) => None,
            }
        };
        running.connection().hear(None);
        match outcome {
            Some(row) => {
                running.done();
                let row = row.map_err(DbError::from)?;
                row.try_get(0).map_err(DbError::from)
            }
            // `running` is dropped here: the statement is cancelled and its connection thrown away, so the
            // cancel request can never hit a later statement.
            None if live.cancel.is_cancelled() => Err(DbError::Cancelled),
            None => Err(DbError::Timeout),
        }
    }

    /// Same, for callers with nothing to hear and nobody to stop them.
    pub async fn quick(&self, sql: &'static str, params: Params<'_>) -> Result<Value, DbError> {
        let live = Live {
            limit: Some(Duration::from_secs(15)),
            ..Live::default()
        };
        self.json(sql, params, live).await
    }

    /// A dedicated connection that listens, and comes back for ever.
    pub fn listen(&self, stop: CancellationToken) -> Arc<Listener> {
        Listener::start(self.pool.manager().clone(), stop)
    }

    pub fn status(&self) -> deadpool::Status {
        self.pool.status()
    }

    pub fn close(&self) {
        self.pool.close();
    }
}

async fn sleep_or_forever(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

/// A connection with a statement in flight. Dropped before `done`, it stops the statement.
struct Running {
    object: Option<Object<Connector>>,
}

impl Running {
    fn new(object: Object<Connector>) -> Self {
        Running {
            object: Some(object),
        }
    }

    fn connection(&mut self) -> &mut Connection {
        // Taken only by `done` and `drop`, after which nobody can call this.
        self.object.as_mut().expect("a running statement")
    }

    fn done(&mut self) {
        self.object.take();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            let connection = Object::take(object);
            if !connection.client.is_closed() {
                tokio::spawn(connection.cancel_and_close());
            }
        }
    }
}
