//! kill -9 of the server process that carries a call out, on a cluster of its own: the server restarts, and the effect, the stored answer
//! and the record are there together or not at all.

use odin_tests::{code, result, Farm};
use serde_json::json;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const SCRIPT: &str = "scripts/test-cluster";

/// A throw-away cluster, gone with the value.
struct Cluster(Vec<(String, String)>);

impl Cluster {
    fn start() -> Cluster {
        let out = script("start").output().expect("scripts/test-cluster runs");
        assert!(
            out.status.success(),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        let text = String::from_utf8(out.stdout).expect("UTF-8");
        let set = text
            .lines()
            .filter_map(|l| l.strip_prefix("export ")?.split_once('='));
        Cluster(
            set.map(|(k, v)| (k.to_owned(), v.replace('\\', "")))
                .collect(),
        )
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let stopped = script("stop").envs(self.0.iter().cloned()).status();
        if !stopped.is_ok_and(|s| s.success()) {
            eprintln!("the cluster could not be stopped: {:?}", self.0);
        }
    }
}

fn script(verb: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new(root.join(SCRIPT));
    command.arg(verb).current_dir(root);
    command
}

#[tokio::test]
async fn effect_answer_and_record_survive_a_killed_backend_together() {
    let cluster = Cluster::start();
    for (name, value) in &cluster.0 {
        // The only test of this binary: nobody else reads the environment.
        std::env::set_var(name, value);
    }
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.tool("act", "id int", "write", "BEGIN INSERT INTO lab.t VALUES (act.id, 'x'); PERFORM pg_sleep(CASE WHEN act.id = 1 THEN 60 ELSE 0 END); RETURN 'done'; END").await;
    let under = |k: &str| json!({ "idempotency_key": k });
    let before = gateway
        .call_with(&key, "act", json!({"id": 0}), under("before"))
        .await;
    assert_eq!(result(&before), "done");
    let pid: i32 = odin_tests::value(&gateway.client, "SELECT pg_backend_pid()").await;
    let (lost, ()) = tokio::join!(
        gateway.try_call(&key, "act", json!({"id": 1}), under("k")),
        async {
            let watch = farm.client("postgres").await;
            while odin_tests::value::<i64>(
                &watch,
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
            )
            .await
                == 0
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            // The server may run as another user than the tests; its own shell may signal it.
            drop(
                farm.admin
                    .batch_execute(&format!("COPY (SELECT 1) TO PROGRAM 'kill -9 {pid}'"))
                    .await,
            );
        }
    );
    assert!(lost.is_err(), "{lost:?}");
    // Every session of the server ends with the killed one; a new one before that would end too.
    while !farm.admin.is_closed() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let Farm { name, .. } = farm;
    let farm = reconnect(name).await;
    // What was committed before is whole; of the killed call there is nothing at all.
    let told = farm
        .text(
            "SELECT concat_ws(' ', (SELECT string_agg(id::text, ',') FROM lab.t), (SELECT string_agg(key, ',') FROM odin.idempotency),
               (SELECT string_agg(outcome, ',') FROM odin.audit_calls), (SELECT ok FROM odin.verify_audit()))",
        )
        .await;
    assert_eq!(told, "0 before done t");
    farm.sql("CREATE OR REPLACE FUNCTION lab.act(id int) RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO lab.t VALUES (act.id, 'x'); RETURN 'done'; END $$").await;
    let gateway = farm.gateway().await;
    for replay in [false, true] {
        let answer = gateway
            .call_with(&key, "act", json!({"id": 1}), under("k"))
            .await;
        assert_eq!(
            (code(&answer), answer["replay"].as_bool()),
            ("complete", Some(replay)),
            "{answer}"
        );
        let answer = gateway
            .call_with(&key, "act", json!({"id": 0}), under("before"))
            .await;
        assert_eq!(answer["replay"], true, "{answer}");
    }
    assert_eq!(
        farm.text("SELECT string_agg(id::text, ',' ORDER BY id) FROM lab.t")
            .await,
        "0,1"
    );
}

async fn reconnect(name: String) -> Farm {
    for _ in 0..1200 {
        let mut config = odin_tests::server();
        if let Ok((client, connection)) = config.dbname(&name).connect(tokio_postgres::NoTls).await
        {
            tokio::spawn(async move { drop(connection.await) });
            return Farm {
                name,
                admin: client,
            };
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the server did not come back");
}
