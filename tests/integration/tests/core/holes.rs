//! Holes that systems of this design had: writing through a read, reaching further through somebody else's
//! function, lying about a preview, guessing hidden rows.

use crate::jail::Jail;
use odin_tests::{code, result, value, Farm};
use serde_json::json;

attempts! {
    // The trail and what it is about.
    truncate_calls: "write", "permission_denied", "BEGIN TRUNCATE odin.audit_calls; RETURN 'out'; END";
    truncate_changes: "write", "permission_denied", "BEGIN TRUNCATE odin.audit_changes; RETURN 'out'; END";
    truncate_a_partition: "write", "permission_denied", "BEGIN EXECUTE (SELECT 'TRUNCATE ' || inhrelid::regclass FROM pg_inherits WHERE inhparent = 'odin.audit_calls'::regclass LIMIT 1); RETURN 'out'; END";
    truncate_seals: "write", "permission_denied", "BEGIN TRUNCATE odin.audit_seals; RETURN 'out'; END";
    truncate_jobs: "write", "permission_denied", "BEGIN TRUNCATE odin.jobs CASCADE; RETURN 'out'; END";
    truncate_members: "write", "permission_denied", "BEGIN TRUNCATE odin.members; RETURN 'out'; END";
    insert_into_the_trail: "write", "permission_denied", "BEGIN INSERT INTO odin.audit_calls(called_at, duration_us, role_name, face, tool, arguments, outcome, origin, xid) VALUES (now(), 0, 'boss', 'sql', 'x', '{}', 'done', 0, '1'); RETURN 'out'; END";
    change_the_trail: "write", "permission_denied", "BEGIN UPDATE odin.audit_calls SET role_name = 'boss'; RETURN 'out'; END";
    delete_from_the_trail: "write", "permission_denied", "BEGIN DELETE FROM odin.audit_changes; RETURN 'out'; END";
    a_trail_trigger_of_ones_own: "write", "permission_denied", "BEGIN CREATE TABLE OWN.x (id int, org_id int); CREATE TRIGGER t AFTER INSERT ON OWN.x REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION odin._trail('id'); RETURN 'out'; END";

    // Writing in a read tool.
    insert_in_a_read_tool: "read", "read_only", "BEGIN INSERT INTO lab.t VALUES (20, 'x'); RETURN 'out'; END", ("SELECT count(*) FROM lab.t WHERE id = 20", "0");
    writing_cte: "read", "read_only", "DECLARE n int; BEGIN EXECUTE 'WITH w AS (INSERT INTO lab.t VALUES (21, ''x'') RETURNING id) SELECT count(*) FROM w' INTO n; RETURN n; END", ("SELECT count(*) FROM lab.t WHERE id = 21", "0");
    writing_function: "read", "read_only", "BEGIN RETURN (SELECT max(lo_put) FROM (SELECT lo_creat(-1)::text AS lo_put) x); END", ("SELECT count(*) FROM pg_largeobject_metadata WHERE lomowner = 'ROLE'::regrole", "0");
    ddl_in_a_read_tool: "read", "read_only", "BEGIN CREATE TABLE OWN.x (i int); RETURN 'out'; END", ("SELECT to_regclass('OWN.x')", "NULL");
    truncate_in_a_read_tool: "read", "read_only", "BEGIN TRUNCATE lab.t; RETURN 'out'; END";
    sequence_in_a_read_tool: "read", "read_only", "BEGIN RETURN nextval('lab.s'); END";
    lock_rows_in_a_read_tool: "read", "read_only", "BEGIN PERFORM 1 FROM lab.t FOR UPDATE; RETURN 'out'; END";
    read_write_again: "read", "internal_error", "BEGIN SET TRANSACTION READ WRITE; INSERT INTO lab.t VALUES (22, 'x'); RETURN 'out'; END", ("SELECT count(*) FROM lab.t WHERE id = 22", "0");
    reset_read_only: "read", "read_only", "BEGIN RESET transaction_read_only; INSERT INTO lab.t VALUES (23, 'x'); RETURN 'out'; END", ("SELECT count(*) FROM lab.t WHERE id = 23", "0");
    read_only_to_default: "read", "read_only", "BEGIN SET transaction_read_only TO DEFAULT; INSERT INTO lab.t VALUES (24, 'x'); RETURN 'out'; END", ("SELECT count(*) FROM lab.t WHERE id = 24", "0");
    read_only_to_null: "read", "read_only", "BEGIN PERFORM set_config('transaction_read_only', NULL, true); INSERT INTO lab.t VALUES (25, 'x'); RETURN 'out'; END", ("SELECT count(*) FROM lab.t WHERE id = 25", "0");
    read_only_lifted_and_set_again: "read", "read_only", "BEGIN RESET transaction_read_only; INSERT INTO lab.t VALUES (26, 'x'); SET transaction_read_only = on; RETURN 'out'; END", ("SELECT count(*) FROM lab.t WHERE id = 26", "0");
    write_in_a_subtransaction_of_a_read_tool: "read", "read_only", "BEGIN BEGIN RESET transaction_read_only; INSERT INTO lab.t VALUES (27, 'x'); EXCEPTION WHEN OTHERS THEN NULL; END; RETURN 'out'; END", ("SELECT count(*) FROM lab.t WHERE id = 27", "0");
    sequence_after_a_reset: "read", "read_only", "BEGIN RESET transaction_read_only; RETURN nextval('lab.s'); END";

    // Swallowing what was refused changes nothing about the refusal.
    swallow_in_a_read_tool: "read", "complete", "BEGIN BEGIN INSERT INTO lab.t VALUES (30, 'x'); EXCEPTION WHEN OTHERS THEN NULL; END; RETURN 'fine'; END", ("SELECT count(*) FROM lab.t WHERE id = 30", "0");
    swallow_a_role_change: "write", "complete", "BEGIN BEGIN RESET ROLE; EXCEPTION WHEN OTHERS THEN NULL; END; BEGIN SET ROLE odin_owner; EXCEPTION WHEN OTHERS THEN NULL; END; RETURN current_user; END";
    swallow_a_forgery: "write", "complete", "BEGIN BEGIN DELETE FROM odin.audit_calls; EXCEPTION WHEN OTHERS THEN NULL; END; RETURN 'fine'; END";

    // Errors of our own kind, raised by a tool.
    our_preview_signal: "write", "internal_error", "BEGIN INSERT INTO lab.t VALUES (31, 'x'); RAISE EXCEPTION 'preview' USING ERRCODE = 'OD000', DETAIL = '{\"result\": {}, \"changes\": [], \"touched\": \"\"}'; END", ("SELECT count(*) FROM lab.t WHERE id = 31", "0");
    our_code_without_a_detail: "write", "quota_exceeded", "BEGIN RAISE EXCEPTION 'enough' USING ERRCODE = 'OD028'; END";
    our_code_with_nonsense: "write", "quota_exceeded", "BEGIN RAISE EXCEPTION 'enough' USING ERRCODE = 'OD028', DETAIL = '{broken'; END";
    our_code_with_an_unknown_name: "write", "quota_exceeded", "BEGIN RAISE EXCEPTION 'enough' USING ERRCODE = 'OD028', DETAIL = '{\"code\": \"made_up\", \"extra\": 7}'; END";
    a_code_of_nobody: "write", "internal_error", "BEGIN RAISE EXCEPTION 'x' USING ERRCODE = 'OD9ZZ'; END";
    a_failed_assertion: "write", "internal_error", "BEGIN ASSERT false, 'broken'; RETURN 'out'; END";
}

/// A tool cannot make up its own preview: what it raises in a dry run is an error, and no token comes of it.
#[tokio::test]
async fn a_forged_preview_is_an_error() {
    let jail = Jail::new().await;
    let body = r#"BEGIN RAISE EXCEPTION 'preview' USING ERRCODE = 'OD000', DETAIL = '{"result": {}, "changes": [], "touched": "x"}'; END"#;
    let answer = jail.try_tool("write", body, json!({"dry_run": true})).await;
    assert_eq!(code(&answer), "internal_error", "{answer}");
    jail.is_unharmed("a forged preview").await;
}

/// A tool cannot come in through the front again, under whatever identity it likes.
#[tokio::test]
async fn a_tool_cannot_call_the_dispatcher() {
    let jail = Jail::new().await;
    let body =
        "BEGIN RETURN odin.call('farm_summary')::text || odin.call_tool('farm_summary')::text; END";
    let answer = jail.try_tool("write", body, json!({})).await;
    let said = result(&answer).as_str().unwrap();
    assert_eq!(
        said.matches("cannot call another tool").count(),
        2,
        "{said}"
    );
    assert_eq!(jail.farm.text(&jail.fill("SELECT count(*) FROM odin.audit_calls WHERE tool = 'farm_summary' AND role_name = 'ROLE'")).await, "0");
    // The dispatcher's own way to another tool works, once.
    let answer = jail
        .gateway
        .call(
            &jail.key,
            "call_tool",
            json!({"name": "farm_summary", "arguments": {}}),
        )
        .await;
    assert_eq!(code(&answer), "complete", "{answer}");
    let answer = jail
        .gateway
        .call(
            &jail.key,
            "call_tool",
            json!({"name": "farm_summary", "arguments": {}, "dry_run": true}),
        )
        .await;
    assert_eq!(
        code(&answer),
        "validation_failed",
        "a dry_run in the wrong place must not be lost: {answer}"
    );
}

/// A superuser's function, reached through a view, a default, a check, a trigger or an index expression: its rights to rows are its own, but it
/// becomes nobody, and no act that is a person's can be done through it.
#[tokio::test]
async fn definer_functions_do_not_open_the_jail() {
    let farm = Farm::new().await;
    let (role, key, gateway) = farm.operator().await;
    let acts = [
        ("SET ROLE odin_owner", "permission_denied"),
        ("RESET ROLE", "permission_denied"),
        ("SET SESSION AUTHORIZATION postgres", "permission_denied"),
        ("PREPARE x AS SELECT 1", "permission_denied"),
        ("CREATE TEMP TABLE x (i int)", "permission_denied"),
        (
            "SELECT odin.mint_key(''stolen'', ''{admin}'', role_name => ''%s'')",
            "human_only",
        ),
        ("SELECT odin.add_member(''%s'', 1)", "human_only"),
        ("SELECT odin.apply_access()", "human_only"),
        (
            "INSERT INTO odin.members(role_name, org_id) VALUES (''x'', 1)",
            "human_only",
        ),
        ("DELETE FROM odin.access_rules", "human_only"),
        (
            "UPDATE odin_private.keys SET scopes = ''{admin}''",
            "human_only",
        ),
        ("TRUNCATE odin.members", "human_only"),
        ("UPDATE odin.tools SET scope = ''read''", "human_only"),
        ("SELECT odin.register_tool(''odin.fail'')", "human_only"),
        ("SELECT odin.retire_audit(''2000-01-01'')", "human_only"),
        (
            "UPDATE odin.audit_calls SET role_name = ''boss''",
            "permission_denied",
        ),
        ("DELETE FROM odin.audit_changes", "permission_denied"),
        ("TRUNCATE odin.audit_calls", "permission_denied"),
    ];
    farm.sql(
        "CREATE TABLE lab.act (sql text); GRANT SELECT ON lab.act TO PUBLIC; INSERT INTO lab.t VALUES (1, 'x');
         CREATE FUNCTION lab.deep() RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
           BEGIN EXECUTE (SELECT a.sql FROM lab.act a); RETURN current_user || ' for ' || odin.actor(); END $$;
         GRANT EXECUTE ON FUNCTION lab.deep() TO PUBLIC;
         CREATE FUNCTION lab.deep_trigger() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN PERFORM lab.deep(); RETURN NEW; END $$;
         CREATE VIEW lab.by_view AS SELECT lab.deep() AS said FROM lab.t;
         CREATE TABLE lab.by_default (id int, said text DEFAULT lab.deep());
         CREATE TABLE lab.by_check (id int CHECK (lab.deep() <> ''));
         CREATE TABLE lab.by_trigger (id int); CREATE TRIGGER x BEFORE INSERT ON lab.by_trigger FOR EACH ROW EXECUTE FUNCTION lab.deep_trigger();
         GRANT ALL ON lab.by_view, lab.by_default, lab.by_check, lab.by_trigger TO odin_viewer",
    )
    .await;
    let ways = [
        ("directly", "BEGIN RETURN lab.deep(); END"),
        (
            "by_view",
            "BEGIN RETURN (SELECT max(said) FROM lab.by_view); END",
        ),
        (
            "by_default",
            "BEGIN INSERT INTO lab.by_default(id) VALUES (1); RETURN 'in'; END",
        ),
        (
            "by_check",
            "BEGIN INSERT INTO lab.by_check VALUES (1); RETURN 'in'; END",
        ),
        (
            "by_trigger",
            "BEGIN INSERT INTO lab.by_trigger VALUES (1); RETURN 'in'; END",
        ),
    ];
    for (name, body) in ways {
        farm.tool(name, "", "write", body).await;
        for (act, meets) in acts {
            let act = act.replace("%s", &role);
            farm.sql(&format!(
                "TRUNCATE lab.act; INSERT INTO lab.act VALUES ('{act}')"
            ))
            .await;
            let answer = gateway.call(&key, name, json!({})).await;
            assert_eq!(code(&answer), meets, "{act} {name}: {answer}");
        }
        farm.sql("TRUNCATE lab.act; INSERT INTO lab.act VALUES ('SELECT 1')")
            .await;
        assert_eq!(
            code(&gateway.call(&key, name, json!({})).await),
            "complete",
            "{name}, the control"
        );
    }
    // The function's rights are its owner's; who acts stays who acts.
    assert_eq!(
        result(&gateway.call(&key, "directly", json!({})).await),
        &json!(format!("postgres for {role}"))
    );
    assert_eq!(
        farm.text("SELECT count(*) FROM odin_private.keys").await,
        "1"
    );
    farm.finish().await;
}

/// Registering reads the catalog and runs nothing: not the function, not its defaults.
#[tokio::test]
async fn registering_runs_nothing() {
    let farm = Farm::new().await;
    farm.sql(
        "CREATE FUNCTION lab.trap() RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN RAISE EXCEPTION 'it ran'; END $$; GRANT EXECUTE ON FUNCTION lab.trap() TO odin_viewer;
         GRANT USAGE ON SCHEMA lab TO odin_owner; -- a policy is made by name
         CREATE FUNCTION lab.trapped(a int DEFAULT lab.trap()) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT lab.trap()';
         SELECT odin.register_tool('lab.trapped', description => 'x'); SELECT odin.sync_tools();
         INSERT INTO odin.access_rules(name, table_name, kind, operations, filter) VALUES ('trap', 'odin.jobs', 'guard', 'r', 'lab.trap() = 1'); SELECT odin.apply_access()",
    )
    .await;
    farm.finish().await;
}

/// What the planner knows of rows that a person's own login may not see must not show in its estimates. (Conditions of leakproof operators, such as = and
/// a LIKE with a fixed beginning, are PostgreSQL's own exception; no key can EXPLAIN anything.)
#[tokio::test]
async fn estimates_do_not_tell_hidden_values() {
    let mut seen = Vec::new();
    for hidden in ["Acme", "Zulu"] {
        let farm = Farm::new().await;
        let role = farm.role("op", "odin_operator").await;
        farm.sql(&format!(
            "INSERT INTO odin.orgs(name) VALUES ('Other');
             INSERT INTO odin.customers(org_id, name) SELECT 2, '{hidden} ' || i FROM generate_series(1, 2000) i;
             INSERT INTO odin.customers(org_id, name) VALUES (1, 'Mine'); ANALYZE odin.customers"
        ))
        .await;
        let person = farm.client(&role).await;
        let plan: serde_json::Value = value(
            &person,
            "EXPLAIN (FORMAT json) SELECT * FROM odin.customers WHERE name LIKE '%cme%'",
        )
        .await;
        seen.push(plan[0]["Plan"]["Plan Rows"].clone());
        let n: i64 = value(
            &person,
            "SELECT count(*) FROM pg_stats WHERE schemaname = 'odin' AND tablename = 'customers'",
        )
        .await;
        assert_eq!(
            n, 0,
            "pg_stats shows values of rows under row-level security"
        );
        let n: i64 = value(&person, "SELECT count(*) FROM odin.customers").await;
        assert_eq!(n, 1, "the control");
        farm.finish().await;
    }
    assert_eq!(
        seen[0], seen[1],
        "the estimate tells whether hidden rows match"
    );
}

/// Numbers past 2^53 and long decimals come out of a tool with every digit.
#[tokio::test]
async fn long_numbers_keep_their_digits() {
    let farm = Farm::new().await;
    let (_, key, gateway) = farm.operator().await;
    farm.sql(
        "CREATE FUNCTION lab.numbers(OUT big bigint, OUT fine numeric) LANGUAGE sql STABLE AS 'SELECT 9007199254740993, 0.12345678901234567890123';
         GRANT EXECUTE ON FUNCTION lab.numbers TO odin_viewer; SELECT odin.register_tool('lab.numbers', description => 'x')",
    )
    .await;
    let row = gateway
        .client
        .query_one(
            "SELECT odin.gateway_call($1, 'numbers', '{}', '{}')::text",
            &[&key.credential],
        )
        .await
        .unwrap();
    let text: String = row.get(0);
    assert!(
        text.contains("9007199254740993") && text.contains("0.12345678901234567890123"),
        "{text}"
    );
    farm.finish().await;
}

/// CREATE EXTENSION gives nobody the schema; the groups have it, and only to use.
#[tokio::test]
async fn groups_may_use_the_schemas_and_create_in_none() {
    let farm = Farm::new().await;
    let told = farm
        .text(
            "SELECT string_agg(r || ':' || has_schema_privilege(r, 'odin', 'USAGE') || has_schema_privilege(r, 'odin', 'CREATE') || has_schema_privilege(r, 'odin_call', 'CREATE')
               || has_schema_privilege(r, 'odin_private', 'USAGE'), ' ' ORDER BY r)
             FROM unnest(ARRAY['odin_viewer', 'odin_operator', 'odin_admin', 'odin_customer', 'odin_bi', 'odin_gateway', 'odin_worker']) r",
        )
        .await;
    assert_eq!(
        told,
        "odin_admin:truefalsefalsefalse odin_bi:truefalsefalsefalse odin_customer:truefalsefalsefalse odin_gateway:truefalsefalsefalse \
         odin_operator:truefalsefalsefalse odin_viewer:truefalsefalsefalse odin_worker:truefalsefalsefalse"
    );
    farm.finish().await;
}
