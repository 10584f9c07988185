//! A tool that tries something, and what is left of it: the gateway's session, compared setting by setting,
//! and a control tool that must go on answering under the right role.

use odin_tests::{code, connect, result, Farm, Gateway, Key};
use serde_json::{json, Value};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Mutex;
use tokio_postgres::SimpleQueryMessage;

/// `name: scope, meets, body, then...`: one test each.
macro_rules! attempts {
    ($($name:ident: $scope:literal, $meets:literal, $body:literal $(, ($sql:literal, $wanted:literal))*;)*) => {
        $(#[tokio::test]
        async fn $name() {
            let jail = $crate::jail::Jail::new().await;
            jail.attempt(&$crate::jail::Attempt { scope: $scope, meets: $meets, body: $body, then: &[$(($sql, $wanted)),*] }).await;
        })*
    };
}

/// One attempt, as a tool. OWN, ATTEMPT and ROLE stand for the attempt's own schema, tool and role.
pub struct Attempt {
    pub scope: &'static str,
    pub body: &'static str,
    /// The error code it must meet, or "complete" where the server allows it and nothing may be left.
    pub meets: &'static str,
    /// What the superuser asks afterwards, and the answer.
    pub then: &'static [(&'static str, &'static str)],
}

pub struct Jail {
    pub farm: Farm,
    pub role: String,
    pub key: Key,
    pub gateway: Gateway,
    number: usize,
    before: BTreeMap<String, String>,
}

/// Attempts share a database, each with a role, a schema and a tool of its own: a database for each would cost more than the attempt.
static SHARED: Mutex<Option<String>> = Mutex::const_new(None);
static NUMBER: AtomicUsize = AtomicUsize::new(0);

impl Jail {
    pub async fn new() -> Jail {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let farm = shared().await;
        let role = farm.role(&format!("op{number}"), "odin_operator").await;
        let key = farm.mint(&role, "agent:read,agent:write").await;
        let gateway = farm.gateway().await;
        // What somebody with a schema of his own could put in the way.
        farm.sql(&format!("CREATE SCHEMA own{number} AUTHORIZATION {role}"))
            .await;
        farm.tool(
            &format!("control{number}"),
            "",
            "write",
            "BEGIN RETURN current_user || '/' || odin.actor() || '/' || current_setting('search_path') || '/' || coalesce(current_setting('my.principal', true), ''); END",
        )
        .await;
        // The first call loads PL/pgSQL, which brings settings of its own.
        gateway
            .call(&key, &format!("control{number}"), json!({}))
            .await;
        let before = session(&gateway).await;
        let jail = Jail {
            farm,
            role,
            key,
            gateway,
            number,
            before,
        };
        jail.is_unharmed("at the start").await;
        jail
    }

    pub fn fill(&self, text: &str) -> String {
        text.replace("OWN", &format!("own{}", self.number))
            .replace("ATTEMPT", &format!("attempt{}", self.number))
            .replace("ROLE'", &format!("{}'", self.role))
    }

    /// Makes the attempt's tool and calls it.
    pub async fn try_tool(&self, scope: &str, body: &str, arguments: Value) -> Value {
        let name = self.fill("ATTEMPT");
        self.farm.tool(&name, "", scope, &self.fill(body)).await;
        self.gateway.call(&self.key, &name, arguments).await
    }

    pub async fn attempt(&self, a: &Attempt) -> Value {
        let answer = self.try_tool(a.scope, a.body, json!({})).await;
        assert_eq!(code(&answer), a.meets, "{}\n{answer}", a.body);
        self.is_unharmed(a.body).await;
        for (sql, wanted) in a.then {
            assert_eq!(
                &self.farm.text(&self.fill(sql)).await,
                wanted,
                "{}\nthen {sql}",
                a.body
            );
        }
        let audited: i64 = self.farm.value(&self.fill("SELECT count(*) FROM odin.audit_calls WHERE tool = 'ATTEMPT' AND role_name = 'ROLE'")).await;
        assert!(audited > 0, "the attempt is not in the trail: {}", a.body);
        answer
    }

    /// The login is still the gateway's, its session is as it was, and the next call works.
    pub async fn is_unharmed(&self, after: &str) {
        let now = session(&self.gateway).await;
        for (what, was) in &self.before {
            assert_eq!(now.get(what), Some(was), "{what} changed after {after}");
        }
        assert_eq!(
            now.len(),
            self.before.len(),
            "the session has something new after {after}: {now:?}"
        );
        let control = self
            .gateway
            .call(&self.key, &format!("control{}", self.number), json!({}))
            .await;
        assert_eq!(
            result(&control),
            &json!(format!("{0}/{0}/pg_catalog, pg_temp/", self.role)),
            "the control after {after}"
        );
    }
}

async fn shared() -> Farm {
    let mut name = SHARED.lock().await;
    if let Some(name) = name.as_ref() {
        return Farm {
            name: name.clone(),
            admin: connect(name, "postgres").await,
        };
    }
    let farm = Farm::new().await;
    farm.sql("CREATE SEQUENCE lab.s; GRANT ALL ON SEQUENCE lab.s TO odin_viewer")
        .await;
    *name = Some(farm.name.clone());
    farm
}

/// Everything a statement can leave behind in a session, asked without preparing anything.
async fn session(gateway: &Gateway) -> BTreeMap<String, String> {
    let all = gateway.client.simple_query(
        "SELECT 'setting ' || name || E'\\t' || setting FROM pg_settings WHERE name NOT IN ('transaction_isolation', 'in_hot_standby')
         UNION ALL SELECT E'users\\t' || current_user || ' ' || session_user
         UNION ALL SELECT 'custom ' || n || E'\\t' || coalesce(nullif(current_setting(n, true), ''), 'none') FROM unnest(ARRAY['my.principal', 'odin.role', 'odin.actor']) n
         UNION ALL SELECT 'prepared ' || name || E'\\t' || statement FROM pg_prepared_statements WHERE NOT from_sql AND statement LIKE 'SELECT odin.gateway_call($1%'
         UNION ALL SELECT E'prepared by SQL\\t' || count(*) FROM pg_prepared_statements WHERE from_sql
         UNION ALL SELECT E'cursors held\\t' || count(*) FROM pg_cursors WHERE is_holdable
         UNION ALL SELECT E'listening\\t' || count(*) FROM pg_listening_channels()
         UNION ALL SELECT E'locks\\t' || count(*) FROM pg_locks WHERE locktype <> 'virtualxid' AND pid = pg_backend_pid() AND relation IS DISTINCT FROM 'pg_locks'::regclass AND locktype <> 'relation'
         UNION ALL SELECT E'temporary relations\\t' || count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()",
    )
    .await
    .expect("the session cannot be read");
    let lines = all.iter().filter_map(|m| match m {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    lines
        .map(|line| line.split_once('\t').expect("a tab in every line"))
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .collect()
}
