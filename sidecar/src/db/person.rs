//! A person's own connection from a shell: no pool, and what the database says is shown to him as it is.

use serde_json::Value;
use tokio_postgres::{Client, Config};

use super::connection::Connector;
use super::{DbError, Params};

pub struct Person {
    client: Client,
}

impl Person {
    pub async fn open(config: Config) -> Result<Person, DbError> {
        let (client, _driver) = Connector::new(config)?.connect(|_| {}).await?;
        Ok(Person { client })
    }

    /// A statement that yields one jsonb value. `Err` is the database's own sentence and hint.
    pub async fn json(&self, sql: &str, params: Params<'_>) -> Result<Value, String> {
        let row = self.client.query_one(sql, params).await;
        let row = row.map_err(|e| match e.as_db_error() {
            Some(said) => match said.hint() {
                Some(hint) => format!("{} {hint}", said.message()),
                None => said.message().to_owned(),
            },
            None => DbError::from(e).to_string(),
        })?;
        row.try_get(0).map_err(|e| DbError::from(e).to_string())
    }
}
