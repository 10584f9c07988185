//! The trail: append-only for everybody, and whatever a superuser does to it behind its triggers is found.

use odin_tests::{code, rows, Farm};
use serde_json::json;

/// A farm whose calls and changes are sealed, and its two seals at least.
async fn sealed() -> Farm {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.tool(
        "writes",
        "n int",
        "write",
        "BEGIN INSERT INTO odin.customers(org_id, name) VALUES (1, 'C' || n); RETURN 'in'; END",
    )
    .await;
    for round in 0..3 {
        for n in 0..5 {
            assert_eq!(
                code(
                    &gateway
                        .call(&key, "writes", json!({"n": round * 5 + n}))
                        .await
                ),
                "complete"
            );
        }
        seal_all(&farm).await;
    }
    assert_eq!(verdict(&farm).await, "ok");
    farm
}

/// Ticks until every row is under a seal: open transactions of other tests on the same cluster hold the cut back.
async fn seal_all(farm: &Farm) {
    let open = "SELECT (SELECT count(*) FROM odin.audit_calls c WHERE NOT EXISTS (SELECT 1 FROM odin.audit_seals s WHERE s.table_name = 'audit_calls' AND s.origin = c.origin AND c.xid >= s.from_xid AND c.xid < s.to_xid))
                     + (SELECT count(*) FROM odin.audit_changes c WHERE NOT EXISTS (SELECT 1 FROM odin.audit_seals s WHERE s.table_name = 'audit_changes' AND s.origin = c.origin AND c.xid >= s.from_xid AND c.xid < s.to_xid))";
    for _ in 0..2400 {
        tick(farm).await;
        if farm.value::<i64>(open).await == 0 {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("rows stay unsealed");
}

async fn tick(farm: &Farm) {
    farm.client("odin_worker")
        .await
        .batch_execute("SELECT odin.tick()")
        .await
        .unwrap();
}

async fn verdict(farm: &Farm) -> String {
    farm.text("SELECT CASE WHEN ok THEN 'ok' ELSE coalesce(first_break::text, '-') || ' ' || problem END FROM odin.verify_audit()").await
}

/// Behind the triggers, as a superuser can.
async fn tamper(farm: &Farm, sql: &str) {
    farm.sql(&format!(
        "DO $do$ DECLARE t text; BEGIN FOR t IN SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'odin'::regnamespace AND relname ~ '^audit_' AND relkind IN ('r', 'p') LOOP EXECUTE 'ALTER TABLE ' || t || ' DISABLE TRIGGER ALL'; END LOOP; END $do$; {sql}"
    ))
    .await;
}

/// INSERT aside, nobody changes a row of it: no role, not its owner, not a superuser, not under session_replication_role, not by its partitions.
#[tokio::test]
async fn append_only_for_everybody() {
    let farm = sealed().await;
    farm.sql("INSERT INTO odin.audit_retired VALUES ('audit_calls', '2000-01-01', 0, 'x')")
        .await;
    let mut tables: Vec<String> = [
        "odin.audit_calls",
        "odin.audit_changes",
        "odin.audit_seals",
        "odin.audit_retired",
        "odin.registry_log",
    ]
    .map(String::from)
    .to_vec();
    tables.extend(rows::<String>(&farm.admin, "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent IN ('odin.audit_calls'::regclass, 'odin.audit_changes'::regclass)").await);
    assert!(tables.len() >= 11, "partitions are made ahead: {tables:?}");
    let column = |t: &str| {
        if t.contains("retired") {
            "retired_by = 'y'"
        } else if t.contains("registry") {
            "tool = 'y'"
        } else if t.contains("seals") {
            "row_count = 0"
        } else {
            "role_name = 'y'"
        }
    };
    for role in [
        "postgres",
        "odin_owner",
        "odin_admin",
        "odin_operator",
        "odin_viewer",
        "odin_customer",
        "odin_bi",
        "odin_gateway",
        "odin_worker",
    ] {
        for replication in ["origin", "replica"] {
            for table in &tables {
                let all: i64 = farm.value(&format!("SELECT count(*) FROM {table}")).await;
                for act in [
                    format!("UPDATE {table} SET {}", column(table)),
                    format!("DELETE FROM {table}"),
                    format!("TRUNCATE {table}"),
                    format!("TRUNCATE {table} CASCADE"),
                ] {
                    let said = farm
                        .admin
                        .batch_execute(&format!(
                            "SET session_replication_role = {replication}; SET ROLE {role}; {act}"
                        ))
                        .await;
                    farm.sql("RESET ROLE; RESET session_replication_role").await;
                    match said {
                        Err(e) => assert_eq!(
                            e.code().map(|c| c.code().to_owned()).as_deref(),
                            Some("42501"),
                            "{role} {replication} {act}: {e:?}"
                        ),
                        // A row trigger has nothing to refuse where there is no row.
                        Ok(()) => assert!(
                            all == 0 && !act.starts_with("TRUNCATE"),
                            "{role} under {replication} could: {act}"
                        ),
                    }
                    assert_eq!(
                        farm.value::<i64>(&format!("SELECT count(*) FROM {table}"))
                            .await,
                        all
                    );
                }
            }
        }
    }
    farm.finish().await;
}

#[tokio::test]
async fn every_kind_of_tampering_is_found() {
    let farm = sealed().await;
    let insert = "INSERT INTO odin.audit_calls(called_at, duration_us, role_name, face, tool, arguments, outcome, origin, xid) SELECT called_at";
    for (act, wants) in [
        ("UPDATE odin.audit_calls SET role_name = 'boss' WHERE id = (SELECT min(id) FROM odin.audit_calls WHERE tool = 'writes')".to_owned(), "was altered"),
        ("UPDATE odin.audit_calls SET arguments = '{\"n\": 99}' WHERE id = (SELECT max(id) FROM odin.audit_calls WHERE tool = 'writes')".to_owned(), "was altered"),
        ("UPDATE odin.audit_changes SET after = after || '{\"name\": \"Z\"}' WHERE id = (SELECT max(id) FROM odin.audit_changes)".to_owned(), "was altered"),
        ("UPDATE odin.audit_changes SET before = '{}' WHERE id = (SELECT min(id) FROM odin.audit_changes)".to_owned(), "was altered"),
        ("DELETE FROM odin.audit_calls WHERE id = (SELECT min(id) FROM odin.audit_calls)".to_owned(), "rows were sealed"),
        ("TRUNCATE odin.audit_changes".to_owned(), "rows were sealed"),
        (format!("{insert}, 0, 'boss', 'sql', 'x', '{{}}', 'done', origin, xid FROM odin.audit_calls LIMIT 1"), "rows were sealed"),
        // Into a month that has no seal at all, under the cut.
        (format!("{insert} + interval '2 months', 0, 'boss', 'sql', 'x', '{{}}', 'done', origin, '3' FROM odin.audit_calls LIMIT 1"), "of that age are there"),
        // Two rows that trade places.
        ("UPDATE odin.audit_calls SET xid = CASE id WHEN (SELECT min(id) FROM odin.audit_calls) THEN (SELECT max(xid) FROM odin.audit_calls) ELSE (SELECT min(xid) FROM odin.audit_calls) END
          WHERE id IN (SELECT min(id) FROM odin.audit_calls UNION SELECT max(id) FROM odin.audit_calls)".to_owned(), "audit_calls of"),
        ("UPDATE odin.audit_calls a SET arguments = b.arguments FROM odin.audit_calls b WHERE a.id = b.id + 1 AND a.tool = 'writes'".to_owned(), "was altered"),
        ("DELETE FROM odin.audit_seals WHERE n = 2".to_owned(), "seal 2 is missing"),
        ("UPDATE odin.audit_seals SET row_count = row_count - 1 WHERE n = 1".to_owned(), "seal 1 was altered"),
        ("UPDATE odin.audit_seals SET to_xid = (to_xid::text::bigint + 1)::text::xid8 WHERE n = 2".to_owned(), "seal 2 was altered"),
        ("UPDATE odin.audit_seals SET sealed_at = sealed_at - interval '1 year' WHERE n = 2".to_owned(), "seal 2 was altered"),
        ("UPDATE odin.audit_seals SET digest = sha256('x') WHERE n = 1".to_owned(), "seal 1 was altered"),
        ("UPDATE odin.audit_seals SET origin = origin + 1 WHERE n = 3".to_owned(), "seal 3 was altered"),
        // A month marked as retired whose rows were only removed in part.
        ("INSERT INTO odin.audit_retired SELECT 'audit_calls', month, 9, 'boss' FROM odin.audit_seals WHERE table_name = 'audit_calls' LIMIT 1; DELETE FROM odin.audit_calls WHERE id = (SELECT min(id) FROM odin.audit_calls)".to_owned(), "of that age are there"),
    ] {
        farm.sql("BEGIN").await;
        tamper(&farm, &act).await;
        let said = verdict(&farm).await;
        assert!(said.contains(wants), "{act}\n{said}");
        farm.sql("ROLLBACK").await;
        assert_eq!(verdict(&farm).await, "ok", "the control");
    }
    farm.finish().await;
}

/// What nothing inside can find, a copy of the head can: the last seals cut off with their rows.
#[tokio::test]
async fn a_cut_tail_shows_in_the_head() {
    let farm = sealed().await;
    let head = farm.text("SELECT head FROM odin.verify_audit()").await;
    assert_eq!(
        head,
        farm.text("SELECT odin.tick()#>>'{seal,digest}'").await,
        "the clock gives it out for safe keeping"
    );
    tamper(&farm, "DELETE FROM odin.audit_calls WHERE xid >= (SELECT from_xid FROM odin.audit_seals ORDER BY n DESC LIMIT 1); DELETE FROM odin.audit_changes WHERE xid >= (SELECT from_xid FROM odin.audit_seals ORDER BY n DESC LIMIT 1);
        DELETE FROM odin.audit_seals WHERE from_xid >= (SELECT max(from_xid) FROM odin.audit_seals)").await;
    assert_ne!(
        head,
        farm.text("SELECT head FROM odin.verify_audit()").await
    );
    farm.finish().await;
}

/// The verdict does not depend on how the session shows dates, floats or times.
#[tokio::test]
async fn the_verdict_is_the_same_in_every_session() {
    let farm = sealed().await;
    for setting in [
        "datestyle = 'German'",
        "datestyle = 'SQL, DMY'",
        "timezone = 'Asia/Kathmandu'",
        "intervalstyle = 'iso_8601'",
        "extra_float_digits = 0",
        "bytea_output = 'escape'",
        "lc_messages = 'C'",
        "standard_conforming_strings = off",
    ] {
        farm.sql(&format!("SET {setting}")).await;
        assert_eq!(verdict(&farm).await, "ok", "{setting}");
        farm.sql(
            "INSERT INTO odin.customers(org_id, name) VALUES (1, 'x'); SELECT odin.seal_audit()",
        )
        .await;
        assert_eq!(verdict(&farm).await, "ok", "sealed under {setting}");
        farm.sql("RESET ALL").await;
        assert_eq!(
            verdict(&farm).await,
            "ok",
            "sealed under {setting}, verified without"
        );
    }
    farm.finish().await;
}

/// A seal never covers what is not committed: rows of an open transaction stay out, and are sealed once it is over.
#[tokio::test]
async fn open_transactions_are_not_sealed() {
    let farm = sealed().await;
    let open = farm.client("postgres").await;
    open.batch_execute("BEGIN; INSERT INTO odin.customers(org_id, name) VALUES (1, 'open')")
        .await
        .unwrap();
    let other = farm.client("postgres").await;
    other
        .batch_execute("INSERT INTO odin.customers(org_id, name) VALUES (1, 'later')")
        .await
        .unwrap();
    tick(&farm).await;
    assert_eq!(
        farm.text("SELECT unsealed_rows FROM odin.verify_audit()")
            .await,
        "0",
        "what a seal may not cover yet is not counted as forgotten"
    );
    let covered = "SELECT count(*) FROM odin.audit_changes c JOIN odin.audit_seals s ON s.table_name = 'audit_changes' AND c.origin = s.origin AND c.xid >= s.from_xid AND c.xid < s.to_xid WHERE c.after->>'name' IN ('open', 'later')";
    assert_eq!(farm.text(covered).await, "0");
    open.batch_execute("COMMIT").await.unwrap();
    seal_all(&farm).await;
    assert_eq!(
        (farm.text(covered).await, verdict(&farm).await),
        ("2".into(), "ok".into())
    );
    farm.finish().await;
}

/// Restored elsewhere, transaction numbers begin anew: the old seals still hold, new rows are sealed under the new origin, and both verify.
#[tokio::test]
async fn another_database_goes_on_sealing() {
    let farm = sealed().await;
    farm.sql("INSERT INTO odin.customers(org_id, name) VALUES (1, 'not sealed yet')")
        .await;
    let copy = format!("{}_copy", farm.name);
    let Farm { name, admin } = farm;
    drop(admin);
    let root = odin_tests::connect("postgres", "postgres").await;
    for attempt in 0.. {
        match root
            .batch_execute(&format!("CREATE DATABASE {copy} TEMPLATE {name}"))
            .await
        {
            Ok(()) => break,
            Err(e) => assert!(attempt < 100, "{e}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let farm = Farm {
        admin: odin_tests::connect(&copy, "postgres").await,
        name: copy,
    };
    assert_eq!(verdict(&farm).await, "ok");
    farm.sql("INSERT INTO odin.customers(org_id, name) VALUES (1, 'here')")
        .await;
    seal_all(&farm).await;
    assert_eq!(
        (
            verdict(&farm).await,
            farm.text("SELECT unsealed_rows FROM odin.verify_audit()")
                .await
        ),
        ("ok".into(), "0".into())
    );
    assert_eq!(
        farm.text("SELECT count(DISTINCT origin) FROM odin.audit_seals")
            .await,
        "2"
    );
    tamper(
        &farm,
        "UPDATE odin.audit_changes SET role_name = 'boss' WHERE after->>'name' = 'not sealed yet'",
    )
    .await;
    assert!(verdict(&farm).await.contains("was altered"));
    farm.finish().await;
    let farm = Farm {
        admin: odin_tests::connect(&name, "postgres").await,
        name,
    };
    farm.finish().await;
}

/// Months are retired whole, by a superuser, only when sealed; the chain goes on without them.
#[tokio::test]
async fn months_are_retired() {
    let farm = sealed().await;
    let boss = farm.role("boss", "odin_admin").await;
    assert!(odin_tests::refusal(
        &farm.client(&boss).await,
        "SELECT odin.retire_audit('2001-01-01')"
    )
    .await
    .starts_with("42501"));
    assert!(farm
        .refusal("SELECT odin.retire_audit('2999-01-01')")
        .await
        .starts_with("OD001"));
    // Last month's rows, as if the farm were older.
    farm.sql("SELECT odin._audit_partition(t, (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '1 month')::date) FROM unnest(ARRAY['audit_calls', 'audit_changes']) t").await;
    let old = "INSERT INTO odin.audit_calls(called_at, duration_us, role_name, face, tool, arguments, outcome, origin, xid) VALUES (date_trunc('month', now()) - interval '10 days', 0, 'x', 'sql', 'old', '{}', 'done', odin._origin(), pg_current_xact_id())";
    farm.sql(old).await;
    let open = farm.client("postgres").await;
    open.batch_execute("BEGIN; SELECT pg_current_xact_id()")
        .await
        .unwrap();
    farm.sql(old).await;
    let this_month = "(date_trunc('month', now() AT TIME ZONE 'UTC'))::date";
    assert!(
        farm.refusal(&format!("SELECT odin.retire_audit({this_month})"))
            .await
            .starts_with("OD023"),
        "a month with rows that cannot be sealed yet stays"
    );
    open.batch_execute("ROLLBACK").await.unwrap();
    seal_all(&farm).await;
    let retired: Vec<String> = rows(
        &farm.admin,
        &format!("SELECT * FROM odin.retire_audit({this_month})"),
    )
    .await;
    assert_eq!(retired.len(), 2, "{retired:?}");
    assert_eq!(
        (
            verdict(&farm).await,
            farm.text("SELECT count(*) FROM odin.audit_calls WHERE tool = 'old'")
                .await
        ),
        ("ok".into(), "0".into())
    );
    // The table stays for the archive, and may then be dropped.
    assert_eq!(
        farm.text(&format!("SELECT count(*) FROM {}", retired[0]))
            .await,
        "2"
    );
    farm.sql(&format!("DROP TABLE {}, {}", retired[0], retired[1]))
        .await;
    tick(&farm).await;
    assert_eq!(verdict(&farm).await, "ok");
    farm.finish().await;
}

/// Partitions are there before their month: the clock makes this one and two more, and two clocks at one moment do no harm.
#[tokio::test]
async fn partitions_are_made_ahead() {
    let farm = Farm::new().await;
    let months = "SELECT count(*) FROM pg_inherits WHERE inhparent IN ('odin.audit_calls'::regclass, 'odin.audit_changes'::regclass)";
    assert_eq!(farm.text(months).await, "6");
    // As on the first of a month: the newest is not there yet.
    farm.sql("DO $$ DECLARE t text; BEGIN FOR t IN SELECT max(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent IN ('odin.audit_calls'::regclass, 'odin.audit_changes'::regclass) GROUP BY inhparent LOOP EXECUTE 'DROP TABLE ' || t; END LOOP; END $$").await;
    assert_eq!(farm.text(months).await, "4");
    let (a, b) = (
        farm.client("odin_worker").await,
        farm.client("odin_worker").await,
    );
    let (x, y) = tokio::join!(
        a.batch_execute("SELECT odin.tick()"),
        b.batch_execute("SELECT odin.tick()")
    );
    assert!(x.is_ok() && y.is_ok(), "{x:?} {y:?}");
    assert_eq!(farm.text(months).await, "6");
    farm.finish().await;
}

/// Arguments are kept without their secrets, however deep, and without their bulk; the caller's own mistakes are kept too.
#[tokio::test]
async fn secrets_are_masked() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.tool_with(
        "connects",
        "host text, api_key text DEFAULT NULL, pin text DEFAULT NULL, more jsonb DEFAULT NULL",
        "write",
        "BEGIN RETURN 'in'; END",
        r#", arguments => '{"pin": {"secret": true}}'"#,
    )
    .await;
    farm.tool(
        "counts",
        "n int DEFAULT 1",
        "read",
        "BEGIN RETURN 'in'; END",
    )
    .await;
    let long = "z".repeat(20_000);
    for (tool, arguments) in [
        (
            "connects",
            json!({"host": "h", "api_key": "hush1", "pin": "hush2", "more": {"deep": [{"Password": "hush3", "access_code": "hush4"}, {"client_secret": {"x": "hush5"}}], "my_token": "hush6"}}),
        ),
        (
            "connects",
            json!({"host": 5, "api_key": "hush1", "pin": "hush2", "credential": "hush3"}),
        ),
        ("no_such_tool", json!({"password": "hush1"})),
        ("counts", json!({"n": "not a number", "password": "hush1"})),
        ("connects", json!({"host": long})),
    ] {
        gateway.call(&key, tool, arguments).await;
    }
    let kept: Vec<String> = rows(
        &farm.admin,
        "SELECT arguments::text FROM odin.audit_calls ORDER BY id",
    )
    .await;
    assert_eq!(kept.len(), 5);
    assert!(kept.iter().all(|k| !k.contains("hush")), "{kept:?}");
    assert!(
        kept[0].contains(r#""host": "h""#) && kept[0].matches("***").count() == 6,
        "{}",
        kept[0]
    );
    assert!(
        kept[3].contains("not a number"),
        "what was wrong is gone: {}",
        kept[3]
    );
    assert!(
        kept[4].len() < 4_000 && kept[4].contains("_sha256"),
        "{}",
        kept[4].len()
    );
    farm.finish().await;
}
