//! Everything an inner statement can try against the role it runs as: one test a line of the table of
//! known ways out, each as a tool called through the gateway on one connection.

use crate::jail::{Attempt, Jail};
use odin_tests::{code, refusal, result};
use serde_json::json;

attempts! {
    // Becoming somebody else.
    set_role: "write", "permission_denied", "BEGIN SET ROLE odin_gateway; RETURN 'out'; END";
    set_local_role: "write", "permission_denied", "BEGIN SET LOCAL ROLE odin_owner; RETURN 'out'; END";
    reset_role: "write", "permission_denied", "BEGIN RESET ROLE; RETURN 'out'; END";
    set_config_role: "write", "permission_denied", "BEGIN PERFORM set_config('role', 'odin_owner', true); RETURN 'out'; END";
    set_role_read_tool: "read", "permission_denied", "BEGIN RESET ROLE; RETURN 'out'; END";
    function_with_a_role_of_its_own: "write", "permission_denied",
        "BEGIN CREATE FUNCTION OWN.f() RETURNS text LANGUAGE sql SET role = odin_gateway AS 'SELECT current_user::text'; RETURN OWN.f(); END";
    session_authorization: "write", "permission_denied", "BEGIN SET SESSION AUTHORIZATION odin_gateway; RETURN 'out'; END";
    reset_session_authorization: "write", "permission_denied", "BEGIN RESET SESSION AUTHORIZATION; RETURN 'out'; END";
    set_config_session_authorization: "write", "permission_denied", "BEGIN PERFORM set_config('session_authorization', 'postgres', false); RETURN 'out'; END";

    // Ending the transaction.
    commit: "write", "internal_error", "BEGIN INSERT INTO lab.t VALUES (1, 'kept'); COMMIT; RETURN 'out'; END", ("SELECT count(*) FROM lab.t WHERE id = 1", "0");
    rollback: "write", "internal_error", "BEGIN ROLLBACK; RETURN 'out'; END", ("SELECT count(*) > 0 FROM odin.audit_calls WHERE tool = 'ATTEMPT' AND outcome = 'failed'", "true");
    savepoint: "write", "internal_error", "BEGIN EXECUTE 'SAVEPOINT s'; RETURN 'out'; END";
    dynamic_commit: "write", "internal_error", "BEGIN EXECUTE 'COMMIT'; RETURN 'out'; END";

    // Settings: allowed by the server, so nothing of them may be left.
    search_path: "write", "complete", "BEGIN SET search_path = OWN, pg_catalog; RETURN 'set'; END";
    search_path_by_set_config: "write", "complete", "BEGIN PERFORM set_config('search_path', 'OWN', false); RETURN 'set'; END";
    statement_timeout: "write", "complete", "BEGIN SET statement_timeout = 0; SET lock_timeout = 1; SET idle_in_transaction_session_timeout = 1; RETURN 'set'; END";
    row_security: "write", "complete", "BEGIN SET row_security = off; RETURN 'set'; END";
    reset_all: "write", "complete", "BEGIN SET work_mem = '1GB'; RESET ALL; SET timezone = 'Asia/Tokyo'; RETURN 'set'; END";
    session_characteristics: "write", "complete", "BEGIN SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY; RETURN 'set'; END";
    transaction_read_only: "write", "complete", "BEGIN SET TRANSACTION READ ONLY; RETURN 'set'; END",
        ("SELECT count(*) FROM odin.audit_calls WHERE tool = 'ATTEMPT'", "1");
    synchronous_commit: "write", "complete", "BEGIN SET synchronous_commit = off; SET application_name = 'me'; RETURN 'set'; END";
    replication_role: "write", "permission_denied", "BEGIN SET session_replication_role = replica; RETURN 'out'; END";
    settings_behind_an_exception: "write", "complete",
        "BEGIN BEGIN SET search_path = OWN; SET work_mem = '2GB'; END; BEGIN SET datestyle = 'German'; PERFORM 1/0; EXCEPTION WHEN OTHERS THEN NULL; END; RETURN 'set'; END";
    settings_of_a_failed_call: "write", "validation_failed", "BEGIN SET search_path = OWN; SET row_security = off; RAISE EXCEPTION 'no'; END";
    forged_identity: "write", "complete", "BEGIN PERFORM set_config('my.principal', 'boss', false), set_config('odin.role', 'boss', false), set_config('odin.actor', 'boss', false); RETURN odin.actor(); END",
        ("SELECT count(*) FROM odin.audit_calls WHERE role_name IN ('boss', 'odin_gateway') OR tool = 'ATTEMPT' AND role_name <> 'ROLE'", "0");

    // What would wait for the login.
    temporary_table: "write", "permission_denied", "BEGIN CREATE TEMP TABLE audit_calls (x int); RETURN 'out'; END";
    temporary_view: "write", "permission_denied", "BEGIN CREATE TEMP VIEW pg_class AS SELECT 1; RETURN 'out'; END";
    select_into_temporary: "write", "permission_denied", "BEGIN EXECUTE 'CREATE TEMP TABLE x AS SELECT 1'; RETURN 'out'; END";
    prepare: "write", "permission_denied", "BEGIN EXECUTE 'PREPARE s0 AS SELECT 1'; RETURN 'out'; END";
    deallocate: "write", "permission_denied", "BEGIN EXECUTE 'DEALLOCATE s0'; RETURN 'out'; END";
    deallocate_all: "write", "permission_denied", "BEGIN EXECUTE 'DEALLOCATE ALL'; RETURN 'out'; END";
    held_cursor: "write", "permission_denied", "BEGIN EXECUTE 'DECLARE c CURSOR WITH HOLD FOR SELECT current_user'; RETURN 'out'; END";
    listen: "write", "permission_denied", "BEGIN LISTEN odin_work; RETURN 'out'; END";
    unlisten: "write", "permission_denied", "BEGIN UNLISTEN *; RETURN 'out'; END";
    discard_all: "write", "permission_denied", "BEGIN EXECUTE 'DISCARD ALL'; RETURN 'out'; END";
    discard_plans: "write", "permission_denied", "BEGIN EXECUTE 'DISCARD PLANS'; RETURN 'out'; END";
    discard_temp: "write", "permission_denied", "BEGIN EXECUTE 'DISCARD TEMP'; RETURN 'out'; END";
    discard_sequences: "write", "permission_denied", "BEGIN EXECUTE 'DISCARD SEQUENCES'; RETURN 'out'; END";
    close_all: "write", "permission_denied", "BEGIN EXECUTE 'CLOSE ALL'; RETURN 'out'; END";
    deferred_trigger: "write", "permission_denied",
        "BEGIN CREATE TABLE OWN.x (i int); CREATE FUNCTION OWN.run() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN CREATE TABLE OWN.ran AS SELECT current_user::text; RETURN NULL; END';
         CREATE CONSTRAINT TRIGGER later AFTER INSERT ON OWN.x INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION OWN.run();
         SET CONSTRAINTS ALL DEFERRED; INSERT INTO OWN.x VALUES (1); RETURN 'out'; END",
        ("SELECT to_regclass('OWN.ran')", "NULL"), ("SELECT to_regclass('OWN.x')", "NULL");

    // Locks, messages, numbers and objects: allowed as far as the role goes, and over with the call.
    session_lock: "write", "complete", "BEGIN PERFORM pg_advisory_lock(1), pg_advisory_lock_shared(2), pg_advisory_xact_lock(3); RETURN 'locked'; END";
    session_lock_of_a_read_tool: "read", "complete", "BEGIN PERFORM pg_advisory_lock(1); RETURN 'locked'; END";
    session_lock_of_a_failed_call: "write", "validation_failed", "BEGIN PERFORM pg_advisory_lock(1); RAISE EXCEPTION 'no'; END";
    table_lock: "write", "complete", "BEGIN LOCK TABLE lab.t; RETURN 'locked'; END", ("SELECT count(*) FROM pg_locks WHERE relation = 'lab.t'::regclass AND mode = 'AccessExclusiveLock'", "0");
    table_lock_without_a_right: "write", "permission_denied", "BEGIN LOCK TABLE odin.audit_calls; RETURN 'locked'; END";
    notify: "write", "complete", "BEGIN NOTIFY odin_registry, 'forged'; RETURN 'sent'; END";
    sequence: "write", "complete", "BEGIN RETURN nextval('lab.s'); END";
    foreign_sequence: "write", "permission_denied", "BEGIN RETURN nextval('odin.audit_calls_id_seq'); END";
    set_a_sequence: "write", "permission_denied", "BEGIN PERFORM setval('odin.audit_changes_id_seq', 1); RETURN 'out'; END";
    large_object: "write", "complete", "BEGIN RETURN lo_from_bytea(0, 'x'); END", ("SELECT count(*) FROM pg_largeobject_metadata WHERE lomowner = 'ROLE'::regrole", "1");
    server_file: "write", "permission_denied", "BEGIN RETURN lo_import('/etc/passwd'); END";
    copy_program: "write", "permission_denied", "BEGIN EXECUTE 'COPY lab.t TO PROGRAM ''id'''; RETURN 'out'; END";
    own_schema: "write", "complete", "BEGIN CREATE TABLE OWN.mine (i int); RETURN 'made'; END", ("SELECT pg_get_userbyid(relowner) = 'ROLE' FROM pg_class WHERE oid = 'OWN.mine'::regclass", "true");
    farm_schema: "write", "permission_denied", "BEGIN CREATE TABLE odin.mine (i int); RETURN 'made'; END";
    call_schema: "write", "permission_denied", "BEGIN CREATE FUNCTION odin_call.tool_1(a jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'; RETURN 'made'; END";
    own_settings: "write", "complete", "BEGIN EXECUTE format('ALTER ROLE %I SET statement_timeout = 0', current_user); RETURN 'set'; END",
        ("SELECT count(*) FROM pg_db_role_setting WHERE setrole = 'odin_gateway'::regrole", "0");
    settings_of_the_gateway: "write", "permission_denied", "BEGIN ALTER ROLE odin_gateway SET search_path = OWN; RETURN 'set'; END";
    grant_to_self: "write", "permission_denied", "BEGIN EXECUTE format('GRANT odin_owner TO %I', current_user); RETURN 'out'; END";
    do_block: "write", "permission_denied", "BEGIN DO 'BEGIN RESET ROLE; END'; RETURN 'out'; END";
    cancel_the_gateway: "write", "permission_denied", "BEGIN PERFORM pg_cancel_backend(pid) FROM pg_stat_activity WHERE usename = 'odin_gateway'; RETURN 'out'; END";
    end_the_gateway: "write", "permission_denied", "BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN 'out'; END";
    end_the_superuser: "write", "permission_denied", "BEGIN PERFORM pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'postgres'; RETURN 'out'; END";
    read_the_seal: "write", "permission_denied", "BEGIN RETURN (SELECT value FROM odin_private.secrets LIMIT 1); END";
    read_the_keys: "write", "permission_denied", "BEGIN RETURN (SELECT hash FROM odin_private.keys LIMIT 1); END";
    the_jail_itself: "write", "permission_denied",
        "BEGIN PERFORM odin._jail_run('odin_owner'::regrole, 'odin._invoke(oid,jsonb,boolean,text)'::regprocedure, 0, '{}', false, '', 0, 'boss', 0, '{}', '{}', 0); RETURN 'out'; END";
    the_inner_half: "write", "permission_denied", "BEGIN RETURN odin._invoke(0, '{}', false, ''); END";
    the_gateway_functions: "write", "permission_denied", "BEGIN RETURN odin.gateway_call('x', 'control', '{}', '{}'); END";
    the_clock: "write", "permission_denied", "BEGIN RETURN odin.tick(); END";
}

/// The driver names its statements s0, s1, ...: a tool that runs or replaces one gets nothing, and the next use of it is still the login's OWN.
#[tokio::test]
async fn prepared_statements_of_the_driver_are_out_of_reach() {
    let jail = Jail::new().await;
    let mine = jail
        .gateway
        .client
        .prepare("SELECT current_user::text, 1 + $1::int")
        .await
        .unwrap();
    let names: Vec<String> = odin_tests::rows(
        &jail.gateway.client,
        "SELECT name FROM pg_prepared_statements WHERE NOT from_sql ORDER BY prepare_time",
    )
    .await;
    assert!(
        names.iter().any(|n| n.starts_with('s')),
        "the driver names them otherwise now: {names:?}"
    );
    for name in &names {
        for body in [
            format!("BEGIN EXECUTE 'DEALLOCATE {name}'; RETURN 'out'; END"),
            format!("BEGIN EXECUTE 'PREPARE {name} AS SELECT ''hijacked'', 0'; RETURN 'out'; END"),
            format!("BEGIN EXECUTE 'DEALLOCATE {name}; PREPARE {name} AS SELECT ''hijacked'', 0'; RETURN 'out'; END"),
        ] {
            let answer = jail.try_tool("write", &body, json!({})).await;
            assert_eq!(code(&answer), "permission_denied", "{body}");
        }
    }
    let row = jail
        .gateway
        .client
        .query_one(&mine, &[&41i32])
        .await
        .unwrap();
    assert_eq!(
        (row.get::<_, String>(0).as_str(), row.get::<_, i32>(1)),
        ("odin_gateway", 42)
    );
    jail.is_unharmed("the hijack").await;
}

/// A tool may run a prepared statement of the connection (the server lets it), but only with its own rights.
#[tokio::test]
async fn a_borrowed_prepared_statement_runs_without_the_logins_rights() {
    let jail = Jail::new().await;
    jail.gateway
        .client
        .batch_execute("PREPARE mine AS SELECT odin.gateway_version()")
        .await
        .unwrap();
    let answer = jail
        .try_tool(
            "write",
            "DECLARE r text; BEGIN EXECUTE 'EXECUTE mine' INTO r; RETURN r; END",
            json!({}),
        )
        .await;
    assert_ne!(code(&answer), "complete", "{answer}");
    jail.gateway
        .client
        .batch_execute("DEALLOCATE mine")
        .await
        .unwrap();
    jail.is_unharmed("EXECUTE").await;
}

/// search_path moved to a schema full of look-alikes: what runs after the tool must not take them.
#[tokio::test]
async fn lookalikes_of_catalog_functions_are_never_taken() {
    let jail = Jail::new().await;
    jail.farm
        .sql(
            &jail.fill("CREATE TABLE OWN.ran (what text); GRANT ALL ON OWN.ran TO PUBLIC; GRANT USAGE ON SCHEMA OWN TO PUBLIC;
             CREATE FUNCTION OWN.jsonb_build_object(VARIADIC text[]) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN INSERT INTO OWN.ran VALUES ('jsonb_build_object'); RETURN '{\"result\": \"forged\"}'; END $$;
             CREATE FUNCTION OWN.jsonb_build_object(text, jsonb) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN INSERT INTO OWN.ran VALUES ('jsonb_build_object'); RETURN '{\"result\": \"forged\"}'; END $$;
             CREATE FUNCTION OWN.jsonb_typeof(jsonb) RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO OWN.ran VALUES ('jsonb_typeof'); RETURN 'null'; END $$;
             CREATE FUNCTION OWN.arrow(jsonb, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO OWN.ran VALUES ('->>'); RETURN 'false'; END $$;
             CREATE OPERATOR OWN.->> (FUNCTION = OWN.arrow, LEFTARG = jsonb, RIGHTARG = text);
             CREATE FUNCTION OWN.never(text, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN INSERT INTO OWN.ran VALUES ('<>'); RETURN false; END $$;
             CREATE OPERATOR OWN.<> (FUNCTION = OWN.never, LEFTARG = text, RIGHTARG = text);
             CREATE FUNCTION OWN.pg_current_xact_id_if_assigned() RETURNS xid8 LANGUAGE sql AS 'SELECT NULL::xid8'"),
        )
        .await;
    for scope in ["write", "read"] {
        let body = "BEGIN SET search_path = OWN, pg_catalog; RETURN 'honest'; END";
        let answer = jail
            .attempt(&Attempt {
                scope,
                meets: "complete",
                body,
                then: &[("SELECT count(*) FROM OWN.ran", "0")],
            })
            .await;
        assert_eq!(result(&answer), "honest");
    }
    // A preview must stay one, whatever the path says.
    let body = "BEGIN INSERT INTO lab.t VALUES (7, 'kept'); SET search_path = OWN, pg_catalog; RETURN 'honest'; END";
    let preview = jail.try_tool("write", body, json!({"dry_run": true})).await;
    assert_eq!(preview["result"]["dry_run"], true, "{preview}");
    assert_eq!(
        jail.farm
            .text("SELECT count(*) FROM lab.t WHERE id = 7")
            .await,
        "0"
    );
    assert_eq!(
        jail.farm
            .text(&jail.fill("SELECT count(*) FROM OWN.ran"))
            .await,
        "0"
    );
    jail.is_unharmed("look-alikes").await;
}

/// The control of all of the above: the same statements do work where nothing holds them, so the refusals are ours.
#[tokio::test]
async fn outside_the_jail_the_same_statements_work() {
    let jail = Jail::new().await;
    let person = jail.farm.client(&jail.role).await;
    for sql in [
        "PREPARE p AS SELECT 1",
        "DEALLOCATE p",
        "CREATE TEMP TABLE x (i int)",
        "LISTEN odin_work",
        "DISCARD ALL",
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
    ] {
        person
            .batch_execute(sql)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
    // The gateway's own login, stolen, is nobody: it reads no table and becomes nobody.
    let thief = &jail.gateway.client;
    for sql in [
        "SELECT * FROM odin.jobs",
        "SELECT * FROM odin.audit_calls",
        "SELECT * FROM odin_private.keys",
        "SET ROLE odin_owner",
        "SELECT odin.tick()",
        "SELECT odin.call('farm_summary')",
        "SELECT odin.mint_key('x')",
        "INSERT INTO odin.members(role_name, org_id) VALUES ('odin_gateway', 1)",
        "CREATE TABLE odin.x (i int)",
    ] {
        let said = refusal(thief, sql).await;
        assert!(said.starts_with("42501"), "{sql}: {said}");
    }
}
