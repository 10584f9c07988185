//! Row-level access: two orgs, customers' own logins, inherited membership, and rules that become policies.

use odin_tests::{code, refusal, result, rows, value, Farm};
use serde_json::{json, Value};
use tokio_postgres::Client;

/// Two orgs with two customers and an order each; customer 1 is Ann (org 1), 2 is Abe (org 1), 3 is Zoe (org 2), 4 is Zed (org 2).
async fn farm() -> Farm {
    let farm = Farm::new().await;
    farm.sql(
        "INSERT INTO odin.orgs(name) VALUES ('Other');
         INSERT INTO odin.customers(org_id, name) VALUES (1, 'Ann'), (1, 'Abe'), (2, 'Zoe'), (2, 'Zed');
         INSERT INTO odin.orders(org_id, customer_id, order_number) SELECT org_id, id, 'for ' || name FROM odin.customers",
    )
    .await;
    farm
}

async fn seen(client: &Client) -> (Vec<String>, Vec<String>) {
    (
        rows(client, "SELECT name FROM odin.customers ORDER BY id").await,
        rows(client, "SELECT order_number FROM odin.orders ORDER BY id").await,
    )
}

fn names(of: &[&str]) -> (Vec<String>, Vec<String>) {
    (
        of.iter().map(|n| (*n).to_owned()).collect(),
        of.iter().map(|n| format!("for {n}")).collect(),
    )
}

#[tokio::test]
async fn staff_see_their_orgs_and_nothing_else() {
    let farm = farm().await;
    let operator = farm.role("op", "odin_operator").await;
    let admin = farm.role("admin", "odin_admin").await;
    let nobody = farm.stranger("nobody", "odin_admin").await;
    let both = farm.role("both", "odin_viewer").await;
    farm.sql(&format!("SELECT odin.add_member('{both}', 2)"))
        .await;
    for (who, sees) in [
        (&operator, &["Ann", "Abe"][..]),
        (&admin, &["Ann", "Abe"]),
        (&nobody, &[]),
        (&both, &["Ann", "Abe", "Zoe", "Zed"]),
    ] {
        assert_eq!(seen(&farm.client(who).await).await, names(sees), "{who}");
    }
    // Writing: silence where the row is not seen, a refusal where it would leave.
    let person = farm.client(&operator).await;
    assert_eq!(
        person
            .execute("UPDATE odin.customers SET notes = 'mine' WHERE id = 3", &[])
            .await
            .unwrap(),
        0
    );
    assert_eq!(
        person
            .execute("UPDATE odin.customers SET notes = 'mine' WHERE id = 1", &[])
            .await
            .unwrap(),
        1
    );
    for sql in [
        "INSERT INTO odin.customers(org_id, name) VALUES (2, 'Planted')",
        "UPDATE odin.customers SET org_id = 2 WHERE id = 2",
        "INSERT INTO odin.orders(org_id, customer_id, order_number) VALUES (2, 3, 'x')",
    ] {
        let said = refusal(&person, sql).await;
        assert!(said.starts_with("42501"), "{sql}: {said}");
    }
    // Through a key it is the same, whatever the tool sets first; the org it acts for is its own.
    let gateway = farm.gateway().await;
    let key = farm.mint(&operator, "agent:read,agent:write").await;
    farm.tool("count_them", "", "read", "BEGIN PERFORM set_config('odin.org', '2', true), set_config('odin.role', 'boss', true); SET row_security = on; RETURN count(*) || ' of ' || odin.my_org() FROM odin.customers; END").await;
    assert_eq!(
        result(&gateway.call(&key, "count_them", json!({})).await),
        "2 of 1"
    );
    farm.tool(
        "without_security",
        "",
        "read",
        "BEGIN SET row_security = off; RETURN count(*) FROM odin.customers; END",
    )
    .await;
    assert_eq!(
        code(&gateway.call(&key, "without_security", json!({})).await),
        "permission_denied"
    );
    farm.finish().await;
}

/// Membership comes through roles too, over any number of steps, and goes with them; the very next query knows.
#[tokio::test]
async fn membership_is_inherited() {
    let farm = farm().await;
    let team = farm.stranger("team", "odin_viewer").await;
    farm.sql(&format!("SELECT odin.add_member('{team}', 2); CREATE ROLE {0}_middle IN ROLE {team}; CREATE ROLE {0}_person LOGIN IN ROLE {0}_middle", farm.name)).await;
    let person = farm.client(&format!("{}_person", farm.name)).await;
    assert_eq!(seen(&person).await, names(&["Zoe", "Zed"]));
    farm.sql(&format!(
        "SELECT odin.add_member('{}_person', 1)",
        farm.name
    ))
    .await;
    assert_eq!(seen(&person).await, names(&["Ann", "Abe", "Zoe", "Zed"]));
    farm.sql(&format!(
        "REVOKE {team} FROM {}_middle; GRANT odin_viewer TO {0}_middle",
        farm.name
    ))
    .await;
    assert_eq!(seen(&person).await, names(&["Ann", "Abe"]));
    farm.sql(&format!(
        "SELECT odin.remove_member('{}_person', 1)",
        farm.name
    ))
    .await;
    assert_eq!(seen(&person).await, names(&[]));
    farm.finish().await;
}

#[tokio::test]
async fn a_customers_login_sees_that_customer() {
    let farm = farm().await;
    let ann = farm.stranger("ann", "odin_customer").await;
    farm.sql(&format!("SELECT odin.add_member('{ann}', 1, 1)"))
        .await;
    let person = farm.client(&ann).await;
    assert_eq!(seen(&person).await, names(&["Ann"]));
    // Nothing of the staff's: no row of others in a table it reads, no other table, no members, no calls, no changes, no other keys.
    let mut read = 0;
    for table in rows::<String>(
        &farm.admin,
        "SELECT table_name FROM odin.guarded_tables ORDER BY 1",
    )
    .await
    {
        let may: bool = farm
            .value(&format!(
                "SELECT has_any_column_privilege('odin_customer', '{table}', 'SELECT')"
            ))
            .await;
        if may {
            read += 1;
            let others: i64 = value(
                &person,
                &format!("SELECT count(*) FROM {table} WHERE customer_id IS DISTINCT FROM 1"),
            )
            .await;
            assert_eq!(others, 0, "{table} shows rows of others");
        } else {
            let said = refusal(&person, &format!("SELECT count(*) FROM {table}")).await;
            assert!(said.starts_with("42501"), "{table}: {said}");
        }
    }
    assert!(read > 10, "only {read} tables were tried");
    for sql in [
        "SELECT * FROM odin.members",
        "SELECT * FROM odin.audit_calls",
        "SELECT * FROM odin.audit_changes",
        "SELECT * FROM odin.consents",
        "SELECT * FROM odin.access_rules",
        "SELECT * FROM odin.login_failures",
        "INSERT INTO odin.orders(org_id, customer_id, order_number) VALUES (1, 1, 'own')",
        "UPDATE odin.customers SET notes = 'x'",
        "DELETE FROM odin.orders",
    ] {
        let said = refusal(&person, sql).await;
        assert!(said.starts_with("42501"), "{sql}: {said}");
    }
    // A customer of another org cannot be given to a login of this one, by whoever administers this one.
    let boss = farm.role("boss", "odin_admin").await;
    let planted = farm.stranger("planted", "odin_customer").await;
    let said = refusal(
        &farm.client(&boss).await,
        &format!("SELECT odin.add_member('{planted}', 1, 3)"),
    )
    .await;
    assert!(said.starts_with("OD002"), "{said}");
    // A member row of a customer makes nobody staff.
    let mixed = farm.stranger("mixed", "odin_viewer").await;
    farm.sql(&format!("SELECT odin.add_member('{mixed}', 1, 2)"))
        .await;
    assert_eq!(seen(&farm.client(&mixed).await).await, names(&[]));
    farm.finish().await;
}

#[tokio::test]
async fn only_an_orgs_administrator_changes_its_members() {
    let farm = farm().await;
    let boss = farm.role("boss", "odin_admin").await;
    let operator = farm.role("op", "odin_operator").await;
    let fresh = farm.stranger("fresh", "odin_viewer").await;
    let person = farm.client(&boss).await;
    person
        .batch_execute(&format!(
            "SELECT odin.add_member('{fresh}', 1), odin.remove_member('{fresh}', 1)"
        ))
        .await
        .unwrap();
    for (who, org) in [(&boss, "2"), (&boss, "NULL"), (&operator, "1")] {
        for act in ["add_member", "remove_member"] {
            let said = refusal(
                &farm.client(who).await,
                &format!("SELECT odin.{act}('{fresh}', {org})"),
            )
            .await;
            assert!(
                said.starts_with("OD005") || said.starts_with("42501"),
                "{who} {act} {org}: {said}"
            );
        }
    }
    assert!(farm
        .refusal(&format!("SELECT odin.add_member('{fresh}', 99)"))
        .await
        .starts_with("OD002"));
    farm.finish().await;
}

/// Rules are rows: a guard takes rows away, a permission adds some, and both are gone when the row is.
#[tokio::test]
async fn rules_become_policies() {
    let farm = farm().await;
    let (operator, viewer) = (
        farm.role("op", "odin_operator").await,
        farm.role("v", "odin_viewer").await,
    );
    farm.sql(
        "CREATE POLICY by_hand ON odin.customers FOR SELECT TO odin_viewer USING (name = 'Zoe')",
    )
    .await;
    let (op, v) = (farm.client(&operator).await, farm.client(&viewer).await);
    let see = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let customers = "SELECT name FROM odin.customers ORDER BY id";
    assert_eq!(
        rows::<String>(&v, customers).await,
        see(&["Ann", "Abe", "Zoe"]),
        "a policy of somebody's own hand adds"
    );
    farm.sql(&format!(
        "INSERT INTO odin.access_rules(name, table_name, role_name, kind, operations, filter) VALUES ('no_abe', 'odin.customers', '{viewer}', 'guard', 'r', 'name <> ''Abe''');
         INSERT INTO odin.access_rules(name, table_name, kind, operations, filter) VALUES ('frozen', 'odin.customers', 'guard', 'ud', 'is_active');
         SELECT odin.apply_access(); UPDATE odin.customers SET is_active = false WHERE id = 1"
    ))
    .await;
    assert_eq!(rows::<String>(&v, customers).await, see(&["Ann", "Zoe"]));
    assert_eq!(
        rows::<String>(&op, customers).await,
        see(&["Ann", "Abe", "Zoe"])
    );
    assert_eq!(
        op.execute("UPDATE odin.customers SET notes = 'x'", &[])
            .await
            .unwrap(),
        1,
        "only Abe's row is left to change"
    );
    assert!(refusal(
        &op,
        "UPDATE odin.customers SET is_active = false WHERE id = 2"
    )
    .await
    .starts_with("42501"));
    farm.sql("DELETE FROM odin.access_rules WHERE name IN ('no_abe', 'frozen'); SELECT odin.apply_access()").await;
    assert_eq!(
        rows::<String>(&v, customers).await,
        see(&["Ann", "Abe", "Zoe"]),
        "the hand-written policy stays, the rules' are gone"
    );
    assert_eq!(
        op.execute(
            "UPDATE odin.customers SET notes = 'y' WHERE org_id = 1",
            &[]
        )
        .await
        .unwrap(),
        2
    );
    // A rule for * goes where its columns are.
    farm.sql("INSERT INTO odin.access_rules(name, kind, operations, filter) VALUES ('recent', 'guard', 'r', 'tracking_number IS NULL'); SELECT odin.apply_access()").await;
    let on: Vec<String> = rows(&farm.admin, "SELECT polrelid::regclass::text FROM pg_policy WHERE polname = 'odin_recent_select' ORDER BY 1").await;
    assert!(
        on.contains(&"odin.orders".to_owned()) && !on.contains(&"odin.customers".to_owned()),
        "{on:?}"
    );
    farm.finish().await;
}

/// A filter is one condition. Whatever tries to be more, or fits nowhere, is refused and leaves everything as it was.
#[tokio::test]
async fn filters_cannot_carry_statements() {
    let farm = farm().await;
    farm.sql("CREATE TABLE lab.victim (i int)").await;
    let before: Value = policies(&farm).await;
    for filter in [
        "true); DROP TABLE lab.victim; --",
        "true) WITH CHECK (true); DROP TABLE lab.victim; SELECT (true",
        "true) TO PUBLIC USING (true",
        "true) OR (true",
        "true; SELECT 1",
        "true, true",
        "true) AS x, (true",
        "true UNION SELECT true",
        "SELECT true",
        "true FROM pg_class",
        "true -- and the rest",
        "true /*",
        "*/ true /*",
        "true) ORDER BY (1",
        "true LIMIT 1",
        "$$true",
        "'",
        "\"",
        "",
        "   ",
        "(true",
        "true)",
        "no_such_column = 1",
        "odin.no_such_function()",
        "1",
        "count(*) > 0",
        "{org} = ANY (ARRAY(DELETE FROM lab.victim RETURNING 1))",
    ] {
        let quoted = filter.replace('\'', "''");
        let said = farm
            .admin
            .batch_execute(&format!("INSERT INTO odin.access_rules(name, table_name, kind, operations, filter) VALUES ('evil', 'odin.customers', 'permission', 'crud', '{quoted}'); SELECT odin.apply_access()"))
            .await;
        let harmless = filter == "true -- and the rest";
        assert_eq!(said.is_ok(), harmless, "{filter}: {said:?}");
        if !harmless {
            assert_eq!(policies(&farm).await, before, "{filter}");
        }
        farm.sql("DELETE FROM odin.access_rules WHERE name = 'evil'; SELECT odin.apply_access()")
            .await;
        assert_eq!(
            farm.text("SELECT to_regclass('lab.victim')").await,
            "lab.victim",
            "{filter}"
        );
    }
    // Names and operations are checked by the table itself; a rule that fits no table is a mistake that is said.
    for row in [
        "'Evil; --', 'odin.jobs', 'guard', 'r', 'true'",
        "'evil', 'odin.jobs', 'nonsense', 'r', 'true'",
        "'evil', 'odin.jobs', 'guard', 'x', 'true'",
        "'evil', 'odin.jobs', 'guard', '', 'true'",
    ] {
        let said = farm.refusal(&format!("INSERT INTO odin.access_rules(name, table_name, kind, operations, filter) VALUES ({row})")).await;
        assert!(said.starts_with("23514"), "{row}: {said}");
    }
    for (table, filter) in [
        ("odin.no_such_table", "true"),
        ("*", "column_of_nobody = 1"),
    ] {
        let said = farm.refusal(&format!("INSERT INTO odin.access_rules(name, table_name, kind, operations, filter) VALUES ('lost', '{table}', 'guard', 'r', '{filter}'); SELECT odin.apply_access()")).await;
        assert!(said.starts_with("OD001"), "{table}: {said}");
    }
    farm.finish().await;
}

async fn policies(farm: &Farm) -> Value {
    farm.value("SELECT jsonb_agg(jsonb_build_array(polrelid::regclass, polname, polcmd, pg_get_expr(polqual, polrelid)) ORDER BY 1, 2) FROM (SELECT * FROM pg_policy ORDER BY polrelid::regclass::text, polname) p").await
}

/// Memberships are read once a query, not once a row; the plan shows an InitPlan and an index, and no function of the row.
#[tokio::test]
async fn policies_are_initplans() {
    let farm = farm().await;
    let role = farm.role("op", "odin_operator").await;
    farm.sql("INSERT INTO odin.customers(org_id, name) SELECT 1 + i % 2, 'C' || i FROM generate_series(1, 3000) i; ANALYZE odin.customers").await;
    let person = farm.client(&role).await;
    let plan = rows::<String>(
        &person,
        "EXPLAIN (VERBOSE, COSTS off) SELECT count(*) FROM odin.customers",
    )
    .await
    .join("\n");
    assert!(plan.contains("InitPlan"), "{plan}");
    let filters: Vec<&str> = plan
        .lines()
        .filter(|l| l.contains("Filter:") || l.contains("Cond:"))
        .collect();
    assert!(
        !filters.is_empty()
            && filters
                .iter()
                .all(|l| !l.contains("orgs_of(") && !l.contains("customers_of(")),
        "{plan}"
    );
    // Every policy of the farm's own rules is of that kind.
    let bad: Vec<String> = rows(
        &farm.admin,
        "SELECT polrelid::regclass || ' ' || polname FROM pg_policy WHERE polname ~ '^odin_(staff|reporting|customer)' AND pg_get_expr(polqual, polrelid) !~ '= ANY \\(ARRAY\\( SELECT odin\\.(orgs|customers)_of\\(CURRENT_USER\\)'",
    )
    .await;
    assert_eq!(bad, Vec::<String>::new());
    let calls: Vec<i64> = {
        person.batch_execute("SELECT 1").await.unwrap();
        farm.sql("SELECT pg_stat_reset()").await;
        let counted = connect_counting(&farm, &role).await;
        counted
            .batch_execute("SELECT count(*) FROM odin.customers")
            .await
            .unwrap();
        rows(
            &counted,
            "SELECT pg_stat_get_xact_function_calls('odin.orgs_of(name)'::regprocedure) + 0",
        )
        .await
    };
    assert_eq!(calls, [1], "orgs_of ran more than once in one query");
    farm.finish().await;
}

async fn connect_counting(farm: &Farm, role: &str) -> Client {
    farm.sql(&format!("ALTER ROLE {role} SET track_functions = 'all'"))
        .await;
    let client = farm.client(role).await;
    client.batch_execute("BEGIN").await.unwrap();
    client
}

/// Every change of a guarded row is in the trail, also one that gives the row another key, and says who it was.
#[tokio::test]
async fn the_trail_misses_no_change() {
    let farm = farm().await;
    let role = farm.role("op", "odin_operator").await;
    let person = farm.client(&role).await;
    let last = "SELECT string_agg(op || ':' || row_key || ':' || role_name, ' ' ORDER BY id) FROM odin.audit_changes WHERE table_name = 'odin.customers' AND xid = (SELECT max(xid) FROM odin.audit_changes)";
    person
        .batch_execute("UPDATE odin.customers SET notes = 'x' WHERE id IN (1, 2)")
        .await
        .unwrap();
    assert_eq!(
        farm.text(last).await,
        format!("update:1:{role} update:2:{role}")
    );
    person.batch_execute("WITH x AS (INSERT INTO odin.customers(org_id, name) VALUES (1, 'New') RETURNING id) SELECT * FROM x").await.unwrap();
    assert_eq!(farm.text(last).await, format!("insert:5:{role}"));
    person
        .batch_execute("UPDATE odin.customers SET id = DEFAULT WHERE id = 5")
        .await
        .unwrap();
    assert_eq!(
        farm.text(last).await,
        format!("insert:6:{role} delete:5:{role}")
    );
    farm.sql("MERGE INTO odin.customers c USING (VALUES (6, 'Merged')) v(id, name) ON c.id = v.id WHEN MATCHED THEN UPDATE SET name = v.name").await;
    assert_eq!(farm.text(last).await, "update:6:postgres");
    farm.sql("COPY odin.customers(org_id, name) FROM PROGRAM 'printf \"1\\tCopied\\n\"'; DELETE FROM odin.customers WHERE name = 'Copied'").await;
    assert_eq!(farm.text("SELECT string_agg(op, ' ' ORDER BY id) FROM odin.audit_changes WHERE row_key = '7' AND table_name = 'odin.customers'").await, "insert delete");
    let unchanged = farm.text("SELECT count(*) FROM odin.audit_changes").await;
    farm.sql("UPDATE odin.orgs SET settings = settings").await;
    assert_eq!(
        farm.text("SELECT count(*) FROM odin.audit_changes").await,
        unchanged,
        "an update that changes nothing is none"
    );
    assert_eq!(farm.text("SELECT before - 'updated_at' FROM odin.audit_changes WHERE op = 'update' AND row_key = '1' ORDER BY id LIMIT 1").await, "{\"notes\": null}");
    farm.finish().await;
}

/// Operators see the trail of their own org and colleagues; viewers and customers none of it.
#[tokio::test]
async fn the_trail_is_under_access_too() {
    let farm = farm().await;
    let (mine, theirs) = (
        farm.role("op", "odin_operator").await,
        farm.stranger("far", "odin_operator").await,
    );
    farm.sql(&format!("SELECT odin.add_member('{theirs}', 2)"))
        .await;
    for (role, org) in [(&mine, 1), (&theirs, 2)] {
        let person = farm.client(role).await;
        person.batch_execute(&format!("INSERT INTO odin.customers(org_id, name) VALUES ({org}, 'By {role}'); SELECT odin.call('farm_summary')")).await.unwrap();
    }
    for (role, org) in [(&mine, 1), (&theirs, 2)] {
        let person = farm.client(role).await;
        assert_eq!(
            rows::<String>(&person, "SELECT DISTINCT role_name FROM odin.audit_calls").await,
            [role.to_string()]
        );
        assert_eq!(
            rows::<i64>(&person, "SELECT DISTINCT org_id FROM odin.audit_changes").await,
            [org]
        );
        // A partition by its own name shows nothing more.
        let part: String = farm.value("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'odin.audit_calls'::regclass LIMIT 1").await;
        assert!(refusal(&person, &format!("SELECT * FROM {part}"))
            .await
            .starts_with("42501"));
    }
    let viewer = farm.role("v", "odin_viewer").await;
    assert!(refusal(
        &farm.client(&viewer).await,
        "SELECT * FROM odin.audit_calls"
    )
    .await
    .starts_with("42501"));
    let n: i64 = value(&farm.admin, "SELECT count(*) FROM odin.audit_calls").await;
    assert_eq!(n, 2, "the control");
    farm.finish().await;
}
