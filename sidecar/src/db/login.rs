//! A person's own login: one connection as that role, for one request. Never pooled, and never in place of a password
//! that the server did not ask for.

use std::error::Error;

use serde_json::Value;
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config};

use super::{tls, DbError, Params};

pub struct Login {
    client: Client,
}

#[derive(Debug)]
pub enum LoginError {
    /// No such role, or not its password, or not from here.
    Refused,
    /// The server takes anybody from this host for anybody: a password would prove nothing.
    NotChecked,
    Unavailable(DbError),
}

impl Login {
    pub async fn open(server: &Config, user: &str, password: &str) -> Result<Login, LoginError> {
        let tls = tls::connector().map_err(|e| LoginError::Unavailable(DbError::Internal(e)))?;
        let mut config = address(server);
        config.user(user).application_name("odin-farm rest");
        // Without a password first: where that opens the door (trust, peer), the password would not have been looked at.
        match connect(&config, tls.clone()).await {
            Ok(_) => return Err(LoginError::NotChecked),
            Err(e) if asks_for_password(&e) => {}
            Err(e) => return Err(refused(e)),
        }
        config.password(password);
        let client = connect(&config, tls).await.map_err(refused)?;
        Ok(Login { client })
    }

    /// A statement that yields one jsonb value.
    pub async fn json(&self, sql: &str, params: Params<'_>) -> Result<Value, DbError> {
        let row = self.client.query_one(sql, params).await?;
        Ok(row.try_get(0)?)
    }
}

/// Where the farm is, without the gateway's own name and password.
fn address(server: &Config) -> Config {
    let mut config = Config::new();
    for host in server.get_hosts() {
        match host {
            Host::Tcp(name) => config.host(name),
            #[cfg(unix)]
            Host::Unix(path) => config.host_path(path),
        };
    }
    for ip in server.get_hostaddrs() {
        config.hostaddr(*ip);
    }
    for port in server.get_ports() {
        config.port(*port);
    }
    if let Some(name) = server.get_dbname() {
        config.dbname(name);
    }
    config.ssl_mode(server.get_ssl_mode());
    config.ssl_negotiation(server.get_ssl_negotiation());
    config.connect_timeout(std::time::Duration::from_secs(5));
    config
}

async fn connect(config: &Config, tls: tls::Tls) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = config.connect(tls).await?;
    tokio::spawn(async move {
        if let Err(e) = connection.await {
            tracing::debug!(error = %e, "a person's connection ended");
        }
    });
    Ok(client)
}

/// The driver's own word for a server that wants a password we did not give.
fn asks_for_password(e: &tokio_postgres::Error) -> bool {
    e.as_db_error().is_none()
        && e.source()
            .is_some_and(|s| s.to_string().contains("password missing"))
}

fn refused(e: tokio_postgres::Error) -> LoginError {
    match e.as_db_error() {
        // 28: wrong name, password or place; 42501 and 3D: not into this database.
        Some(db)
            if db.code().code().starts_with("28")
                || matches!(db.code().code(), "42501" | "3D000") =>
        {
            LoginError::Refused
        }
        _ => LoginError::Unavailable(e.into()),
    }
}
