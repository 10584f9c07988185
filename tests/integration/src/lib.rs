//! What the tests share: a farm of their own (a database made from the template), people and keys in it,
//! and the gateway's login. The cluster comes from scripts/test-cluster, through ODIN_TEST_URL.

pub mod sidecar;
pub mod web;

use serde_json::{json, Value};
use sha2::{Digest, Sha256};
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{Client, Config, NoTls, Statement};

static MADE: AtomicUsize = AtomicUsize::new(0);

/// A database made from the template, with one org (id 1) and a schema `lab` for the test's own tools.
pub struct Farm {
    pub name: String,
    pub admin: Client,
}

/// A minted key: its secret, and what the sidecar sends instead of it.
#[derive(Clone)]
pub struct Key {
    pub id: i64,
    pub secret: String,
    pub credential: String,
}

/// The gateway's login on one connection that is used again and again, with its statements prepared once.
pub struct Gateway {
    pub client: Client,
    call: Statement,
}

/// How to reach the test cluster as its superuser.
pub fn server() -> Config {
    let url = std::env::var("ODIN_TEST_URL")
        .expect("ODIN_TEST_URL is not set: run scripts/test integration, or eval \"$(scripts/test-cluster start)\"");
    url.parse().expect("ODIN_TEST_URL is no connection string")
}

/// A connection of one user to one database.
pub async fn connect(database: &str, user: &str) -> Client {
    let mut config = server();
    config.dbname(database).user(user);
    let (client, connection) = config
        .connect(NoTls)
        .await
        .unwrap_or_else(|e| panic!("{user} cannot connect to {database}: {e}"));
    // It ends with the client; a connection that a test kills on purpose ends with an error.
    tokio::spawn(async move { drop(connection.await) });
    client
}

/// The lowercase hex SHA-256 that stands for a key on its way to the database.
pub fn credential(secret: &str) -> String {
    Sha256::digest(secret.as_bytes())
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}

impl Farm {
    pub async fn new() -> Farm {
        let template =
            std::env::var("ODIN_TEST_TEMPLATE").unwrap_or_else(|_| "odin_template".into());
        let name = format!(
            "t{}_{}",
            std::process::id(),
            MADE.fetch_add(1, Ordering::Relaxed)
        );
        let root = connect("postgres", "postgres").await;
        root.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {template}"))
            .await
            .unwrap_or_else(|e| panic!("no database from {template}: {e:?}"));
        let admin = connect(&name, "postgres").await;
        let farm = Farm { name, admin };
        farm.sql(
            "SET client_min_messages = error;
             INSERT INTO odin.orgs(name) VALUES ('Farm');
             CREATE SCHEMA lab; GRANT USAGE ON SCHEMA lab TO odin_viewer, odin_customer;
             CREATE TABLE lab.t (id bigint PRIMARY KEY, v text); GRANT ALL ON lab.t TO odin_viewer",
        )
        .await;
        farm
    }

    /// Drops the database and its roles; a failed test leaves them for whoever looks for the reason.
    pub async fn finish(self) {
        let Farm { name, admin } = self;
        let roles: Vec<String> = rows(
            &admin,
            &format!(
                "SELECT quote_ident(rolname) FROM pg_roles WHERE starts_with(rolname, '{name}_')"
            ),
        )
        .await;
        drop(admin);
        let root = connect("postgres", "postgres").await;
        // The server waits a few seconds for sessions it has ended; on a busy machine they may take longer.
        let drop_it = format!("DROP DATABASE {name} WITH (FORCE)");
        sidecar::until(&drop_it, sidecar::PATIENCE, || async {
            match root.batch_execute(&drop_it).await {
                Ok(()) => true,
                Err(e) if e.code() == Some(&SqlState::OBJECT_IN_USE) => false,
                Err(e) => panic!("{name} stays: {e:?}"),
            }
        })
        .await;
        for role in roles {
            // A role that owns something elsewhere stays; the cluster is thrown away anyhow.
            drop(root.batch_execute(&format!("DROP ROLE {role}")).await);
        }
    }

    /// Statements as the superuser; they must succeed.
    pub async fn sql(&self, sql: &str) {
        if let Err(e) = self.admin.batch_execute(sql).await {
            panic!("{sql}\n{}", said(&e));
        }
    }

    /// What a statement of the superuser is refused with: "SQLSTATE message".
    pub async fn refusal(&self, sql: &str) -> String {
        refusal(&self.admin, sql).await
    }

    /// One value, as the superuser sees it.
    pub async fn value<T: FromSqlOwned>(&self, sql: &str) -> T {
        value(&self.admin, sql).await
    }

    pub async fn text(&self, sql: &str) -> String {
        self.value::<Option<String>>(&format!("SELECT ({sql})::text"))
            .await
            .unwrap_or_else(|| "NULL".into())
    }

    pub async fn client(&self, user: &str) -> Client {
        connect(&self.name, user).await
    }

    pub async fn gateway(&self) -> Gateway {
        Gateway::over(self.client("odin_gateway").await).await
    }

    /// A person of org 1, in one of the groups: `role("boss", "odin_admin")` makes and names t1_0_boss.
    pub async fn role(&self, suffix: &str, group: &str) -> String {
        let role = self.stranger(suffix, group).await;
        self.sql(&format!("SELECT odin.add_member('{role}', 1)"))
            .await;
        role
    }

    /// The same, in no org yet.
    pub async fn stranger(&self, suffix: &str, group: &str) -> String {
        let role = format!("{}_{suffix}", self.name);
        self.sql(&format!("CREATE ROLE {role} LOGIN IN ROLE {group}"))
            .await;
        role
    }

    pub async fn mint(&self, role: &str, scopes: &str) -> Key {
        self.mint_with(role, scopes, "").await
    }

    /// `more` is further arguments of odin.mint_key, such as `, rate_per_minute => 3`.
    pub async fn mint_with(&self, role: &str, scopes: &str, more: &str) -> Key {
        let sql = format!("SELECT key, key_id FROM odin.mint_key('test', '{{{scopes}}}', role_name => '{role}'{more})");
        let row = self
            .admin
            .query_one(&sql, &[])
            .await
            .unwrap_or_else(|e| panic!("{sql}\n{}", said(&e)));
        let secret: String = row.get(0);
        Key {
            id: row.get(1),
            credential: credential(&secret),
            secret,
        }
    }

    /// An operator, a key of his, and the gateway: what most tests begin with.
    pub async fn operator(&self) -> (String, Key, Gateway) {
        let role = self.role("op", "odin_operator").await;
        let key = self.mint(&role, "agent:read,agent:write").await;
        (role, key, self.gateway().await)
    }

    /// A tool `lab.NAME(arguments)` in PL/pgSQL that returns text, callable by every group.
    pub async fn tool(&self, name: &str, arguments: &str, scope: &str, body: &str) {
        self.tool_with(name, arguments, scope, body, "").await;
    }

    /// `more` is further arguments of odin.register_tool, such as `, confirm => 'human'`.
    pub async fn tool_with(
        &self,
        name: &str,
        arguments: &str,
        scope: &str,
        body: &str,
        more: &str,
    ) {
        self.sql(&format!(
            "CREATE OR REPLACE FUNCTION lab.{name}({arguments}) RETURNS text LANGUAGE plpgsql AS $tool$ {body} $tool$;
             REVOKE ALL ON FUNCTION lab.{name} FROM PUBLIC; GRANT EXECUTE ON FUNCTION lab.{name} TO odin_viewer, odin_customer;
             SELECT odin.register_tool('lab.{name}', scope => '{scope}', description => 'A tool of the test.'{more})"
        ))
        .await;
    }
}

impl Gateway {
    pub async fn over(client: Client) -> Gateway {
        let call = client
            .prepare("SELECT odin.gateway_call($1, $2, $3, $4)")
            .await
            .expect("the gateway may not call");
        Gateway { client, call }
    }

    pub async fn call(&self, key: &Key, tool: &str, arguments: Value) -> Value {
        self.call_with(key, tool, arguments, json!({})).await
    }

    /// The whole answer of the dispatcher.
    pub async fn call_with(
        &self,
        key: &Key,
        tool: &str,
        arguments: Value,
        options: Value,
    ) -> Value {
        self.try_call(key, tool, arguments, options)
            .await
            .unwrap_or_else(|e| panic!("{tool}: {e}"))
    }

    /// The same where the statement itself may fail.
    pub async fn try_call(
        &self,
        key: &Key,
        tool: &str,
        arguments: Value,
        options: Value,
    ) -> Result<Value, String> {
        let parameters: [&(dyn ToSql + Sync); 4] = [&key.credential, &tool, &arguments, &options];
        match self.client.query_one(&self.call, &parameters).await {
            Ok(row) => Ok(row.get(0)),
            Err(e) => Err(said(&e)),
        }
    }

    /// Another of the gateway's functions that take (credential, options).
    pub async fn ask(&self, function: &str, key: &Key, options: Value) -> Value {
        let row = self
            .client
            .query_one(
                &format!("SELECT odin.{function}($1, $2)"),
                &[&key.credential, &options],
            )
            .await
            .unwrap_or_else(|e| panic!("{function}: {}", said(&e)));
        row.get(0)
    }
}

/// The code of an error answer, or its status when it is none.
pub fn code(answer: &Value) -> &str {
    answer["error"]["code"]
        .as_str()
        .or(answer["status"].as_str())
        .unwrap_or("?")
}

/// The `result` of a scalar tool; fails with the whole answer if the call did not succeed.
pub fn result(answer: &Value) -> &Value {
    assert_eq!(answer["status"], "complete", "{answer}");
    let result = &answer["result"];
    if result.get("result").is_some() {
        &result["result"]
    } else {
        result
    }
}

pub async fn value<T: FromSqlOwned>(client: &Client, sql: &str) -> T {
    let row = client
        .query_one(sql, &[])
        .await
        .unwrap_or_else(|e| panic!("{sql}\n{}", said(&e)));
    row.get(0)
}

/// The first column of every row.
pub async fn rows<T: FromSqlOwned>(client: &Client, sql: &str) -> Vec<T> {
    let rows = client
        .query(sql, &[])
        .await
        .unwrap_or_else(|e| panic!("{sql}\n{}", said(&e)));
    rows.iter().map(|r| r.get(0)).collect()
}

/// What a statement is refused with, "SQLSTATE message"; it must not succeed.
pub async fn refusal(client: &Client, sql: &str) -> String {
    match client.batch_execute(sql).await {
        Ok(()) => panic!("not refused: {sql}"),
        Err(e) => said(&e),
    }
}

/// "SQLSTATE message" of a database error.
pub fn said(e: &tokio_postgres::Error) -> String {
    match e.as_db_error() {
        Some(db) => format!("{} {}", db.code().code(), db.message()),
        None => e.to_string(),
    }
}
