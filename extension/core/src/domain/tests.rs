//! Compiled SQL, word for word; what it selects is tested in the database (tests/records).

use super::catalog::{Table, TableId};
use super::{compile, Catalog};
use serde_json::{json, Value};
use std::collections::HashMap;
use std::rc::Rc;

pub struct Fixed(pub HashMap<TableId, Rc<Table>>);

impl Catalog for Fixed {
    fn table(&self, id: TableId) -> Option<Rc<Table>> {
        self.0.get(&id).cloned()
    }
}

/// jobs (1) point to printers (2); runs (3) point to jobs; groups (4) are a tree.
pub fn farm() -> Fixed {
    let tables = [
        (
            1,
            json!({"schema": "odin", "name": "jobs", "key": ["id"], "display": "name",
            "columns": [
                {"name": "id", "type": "bigint", "kind": "int8", "not_null": true, "ordered": true},
                {"name": "org_id", "type": "bigint", "kind": "int8", "not_null": true, "ordered": true},
                {"name": "name", "type": "text", "kind": "text", "not_null": true, "ordered": true},
                {"name": "notes", "type": "text", "kind": "text", "ordered": true},
                {"name": "priority", "type": "smallint", "kind": "int2", "not_null": true, "ordered": true},
                {"name": "cost", "type": "numeric", "kind": "number", "ordered": true},
                {"name": "hold", "type": "boolean", "kind": "boolean", "not_null": true, "ordered": true},
                {"name": "seen", "type": "boolean", "kind": "boolean", "ordered": true},
                {"name": "due_at", "type": "timestamp with time zone", "kind": "temporal", "ordered": true},
                {"name": "tags", "type": "text[]", "kind": "array", "ordered": true, "element": {"type": "text", "kind": "text", "ordered": true}},
                {"name": "settings", "type": "jsonb", "kind": "jsonb", "ordered": true},
                {"name": "spot", "type": "point", "kind": "other"},
                {"name": "code", "type": "public.citext", "kind": "text", "ordered": true, "operators": "public"},
                {"name": "printer_id", "type": "bigint", "kind": "int8", "ordered": true}],
            "links": {"printer_id": {"to": 2, "far_key": "id", "pairs": [["org_id", "org_id"], ["printer_id", "id"]]}},
            "back": {"runs": {"to": 3, "far_key": null, "pairs": [["id", "job_id"]]}}}),
        ),
        (
            2,
            json!({"schema": "odin", "name": "printers", "key": ["id"], "display": "name",
            "columns": [
                {"name": "id", "type": "bigint", "kind": "int8", "not_null": true, "ordered": true},
                {"name": "org_id", "type": "bigint", "kind": "int8", "not_null": true, "ordered": true},
                {"name": "name", "type": "text", "kind": "text", "not_null": true, "ordered": true},
                {"name": "group_id", "type": "bigint", "kind": "int8", "ordered": true}],
            "links": {"group_id": {"to": 4, "far_key": "id", "pairs": [["group_id", "id"]]}}}),
        ),
        (
            3,
            json!({"schema": "odin", "name": "runs", "key": ["id"],
            "columns": [
                {"name": "id", "type": "bigint", "kind": "int8", "not_null": true, "ordered": true},
                {"name": "job_id", "type": "bigint", "kind": "int8", "not_null": true, "ordered": true},
                {"name": "good", "type": "integer", "kind": "int4", "ordered": true}],
            "links": {"job_id": {"to": 1, "far_key": "id", "pairs": [["job_id", "id"]]}}}),
        ),
        (
            4,
            json!({"schema": "shop", "name": "my \"groups\"", "key": ["id"], "display": "name", "parent": "parent_id",
            "columns": [
                {"name": "id", "type": "bigint", "kind": "int8", "not_null": true, "ordered": true},
                {"name": "name", "type": "text", "kind": "text", "ordered": true},
                {"name": "parent_id", "type": "bigint", "kind": "int8", "ordered": true}],
            "links": {"parent_id": {"to": 4, "far_key": "id", "pairs": [["parent_id", "id"]]}}}),
        ),
    ];
    Fixed(
        tables
            .into_iter()
            .map(|(id, t)| {
                (
                    id,
                    Rc::new(Table::from_json(&t).expect("the test's own table")),
                )
            })
            .collect(),
    )
}

fn condition(domain: Value) -> Value {
    compile(
        &json!({"op": "where", "table": 1, "domain": domain}),
        &farm(),
    )
}

#[track_caller]
fn is(domain: Value, sql: &str, params: Value) {
    let got = condition(domain);
    assert_eq!(got["sql"], json!(sql), "{got}");
    assert_eq!(got["params"], params, "{got}");
}

#[track_caller]
fn wrong(domain: Value, said: &str) {
    let got = condition(domain);
    assert_eq!(got["ok"], json!(false), "{got}");
    let text = format!(
        "{} | {}",
        got["detail"].as_str().unwrap_or(""),
        got["hint"].as_str().unwrap_or("")
    );
    assert!(text.contains(said), "{text}");
}

#[test]
fn operators_become_sql() {
    is(json!([]), "TRUE", json!([]));
    is(
        json!([["priority", "=", 3]]),
        "t1.\"priority\" = $1[1]::smallint",
        json!(["3"]),
    );
    is(
        json!(["priority", "=", 3]),
        "t1.\"priority\" = $1[1]::smallint",
        json!(["3"]),
    );
    is(
        json!([["priority", "!=", 3]]),
        "(t1.\"priority\" = $1[1]::smallint) IS NOT TRUE",
        json!(["3"]),
    );
    is(
        json!([["priority", "<", 2.5]]),
        "t1.\"priority\" < $1[1]::numeric",
        json!(["2.5"]),
    );
    is(
        json!([["priority", "in", [1, 2]]]),
        "t1.\"priority\" = ANY ($1[1]::smallint[])",
        json!(["{\"1\",\"2\"}"]),
    );
    is(
        json!([["priority", "in", [1, 99999]]]),
        "t1.\"priority\" = ANY ($1[1]::numeric[])",
        json!(["{\"1\",\"99999\"}"]),
    );
    is(
        json!([["notes", "in", ["a", false]]]),
        "(t1.\"notes\" = ANY ($1[1]::text[]) OR t1.\"notes\" IS NULL)",
        json!(["{\"a\"}"]),
    );
    is(
        json!([["notes", "=", false]]),
        "t1.\"notes\" IS NULL",
        json!([]),
    );
    is(
        json!([["notes", "!=", false]]),
        "(t1.\"notes\" IS NULL) IS NOT TRUE",
        json!([]),
    );
    is(json!([["notes", "=?", null]]), "TRUE", json!([]));
    is(
        json!([["notes", "ilike", "50%\\"]]),
        "t1.\"notes\" ILIKE $1[1]",
        json!(["%50%\\\\%"]),
    );
    is(
        json!([["notes", "=like", "a_"]]),
        "t1.\"notes\" LIKE $1[1]",
        json!(["a_"]),
    );
    is(
        json!([["due_at", "not like", "2026"]]),
        "(t1.\"due_at\"::text LIKE $1[1]) IS NOT TRUE",
        json!(["%2026%"]),
    );
    is(json!([["hold", "=", false]]), "NOT t1.\"hold\"", json!([]));
    is(
        json!([["seen", "=", false]]),
        "t1.\"seen\" IS NOT TRUE",
        json!([]),
    );
    is(
        json!([["seen", "!=", false]]),
        "t1.\"seen\" IS TRUE",
        json!([]),
    );
    is(
        json!([["code", "=", "x"]]),
        "t1.\"code\" OPERATOR(\"public\".=) $1[1]::public.citext",
        json!(["x"]),
    );
    is(
        json!([["tags", "in", ["a", "b\"c"]]]),
        "t1.\"tags\" && $1[1]::text[]",
        json!(["{\"a\",\"b\\\"c\"}"]),
    );
    is(
        json!([["tags", "=", "a"]]),
        "$1[1]::text = ANY (t1.\"tags\")",
        json!(["a"]),
    );
    is(
        json!([["settings.a.b", "=", 5]]),
        "(t1.\"settings\"::jsonb #> $1[1]::text[]) = $1[2]::jsonb",
        json!(["{\"a\",\"b\"}", "5"]),
    );
}

#[test]
fn links_become_exists() {
    let printer = "EXISTS (SELECT 1 FROM \"odin\".\"printers\" t2 WHERE t2.\"org_id\" = t1.\"org_id\" AND t2.\"id\" = t1.\"printer_id\" AND ";
    is(
        json!([["printer_id.name", "=", "A"]]),
        &format!("{printer}t2.\"name\" = $1[1]::text)"),
        json!(["A"]),
    );
    is(
        json!([["printer.name", "=", "A"]]),
        &format!("{printer}t2.\"name\" = $1[1]::text)"),
        json!(["A"]),
    );
    is(
        json!([["printer_id", "ilike", "mk4"]]),
        &format!("{printer}t2.\"name\" ILIKE $1[1])"),
        json!(["%mk4%"]),
    );
    is(
        json!([["printer_id", "not ilike", "mk4"]]),
        &format!("({printer}t2.\"name\" ILIKE $1[1])) IS NOT TRUE"),
        json!(["%mk4%"]),
    );
    is(
        json!([["printer_id", "any", [["name", "=", "A"]]]]),
        &format!("{printer}t2.\"name\" = $1[1]::text)"),
        json!(["A"]),
    );
    is(json!([["runs.good", ">", 3]]), "EXISTS (SELECT 1 FROM \"odin\".\"runs\" t2 WHERE t2.\"job_id\" = t1.\"id\" AND t2.\"good\" > $1[1]::integer)", json!(["3"]));
    is(json!([["runs", "=", false]]), "(EXISTS (SELECT 1 FROM \"odin\".\"runs\" t2 WHERE t2.\"job_id\" = t1.\"id\" AND TRUE)) IS NOT TRUE", json!([]));
}

#[test]
fn trees_are_walked() {
    let got = compile(
        &json!({"op": "where", "table": 2, "domain": [["group_id", "child_of", 7]]}),
        &farm(),
    );
    assert_eq!(
        got["sql"],
        json!("t1.\"group_id\" IN (WITH RECURSIVE t3(k) AS (SELECT t2.\"id\" FROM \"shop\".\"my \"\"groups\"\"\" t2 WHERE (t2.\"id\" = ANY ($1[1]::bigint[])) UNION SELECT t2.\"id\" FROM \"shop\".\"my \"\"groups\"\"\" t2 JOIN t3 ON t2.\"parent_id\" = t3.k) SELECT t3.k FROM t3)")
    );
    let got = compile(
        &json!({"op": "where", "table": 4, "domain": [["id", "parent_of", "Hall"]]}),
        &farm(),
    );
    assert!(
        got["sql"]
            .as_str()
            .is_some_and(|s| s.contains("t2.\"name\" ILIKE $1[1]") && s.contains("= t3.p")),
        "{got}"
    );
    wrong(
        json!([["name", "child_of", 7]]),
        "works on a record's own key",
    );
}

#[test]
fn prefix_operators_nest() {
    let a = json!(["priority", "=", 1]);
    let b = json!(["hold", "=", true]);
    let c = json!(["notes", "=", false]);
    is(
        json!([a, b]),
        "(t1.\"priority\" = $1[1]::smallint AND t1.\"hold\")",
        json!(["1"]),
    );
    is(
        json!(["|", a, b]),
        "(t1.\"priority\" = $1[1]::smallint OR t1.\"hold\")",
        json!(["1"]),
    );
    is(
        json!(["|", "&", a, b, c]),
        "((t1.\"priority\" = $1[1]::smallint AND t1.\"hold\") OR t1.\"notes\" IS NULL)",
        json!(["1"]),
    );
    is(json!(["!", "|", a, b, c]), "(((t1.\"priority\" = $1[1]::smallint OR t1.\"hold\")) IS NOT TRUE AND t1.\"notes\" IS NULL)", json!(["1"]));
    is(
        json!(["|", [a, b], c]),
        "((t1.\"priority\" = $1[1]::smallint AND t1.\"hold\") OR t1.\"notes\" IS NULL)",
        json!(["1"]),
    );
    is(
        json!("['|', ('priority', '=', 1), ('hold', '=', True)]"),
        "(t1.\"priority\" = $1[1]::smallint OR t1.\"hold\")",
        json!(["1"]),
    );
    is(
        json!([[1, "=", 1], [0, "=", 1]]),
        "(TRUE AND FALSE)",
        json!([]),
    );
}

#[test]
fn errors_name_the_field_and_the_nearest_name() {
    wrong(json!([["priorty", "=", 1]]), "Did you mean priority?");
    wrong(
        json!([["printer_id.nam", "=", 1]]),
        "printer_id.nam: odin.printers has no field nam | Did you mean name?",
    );
    wrong(json!([["name.x", "=", 1]]), "leads to no other record");
    wrong(
        json!([["priority", "=", "high"]]),
        "priority: \"high\" is not a whole number",
    );
    wrong(json!([["priority", "ilikes", "x"]]), "Did you mean ilike?");
    wrong(json!([["priority", "="]]), "this one has 2 parts");
    wrong(
        json!(["|", ["priority", "=", 1]]),
        "domain[0]: | needs two conditions after it, found 1",
    );
    wrong(
        json!(["or", ["priority", "=", 1], ["priority", "=", 2]]),
        "\"or\" is neither a condition nor one of & | !",
    );
    wrong(json!([["hold", ">", true]]), "boolean has no order");
    wrong(json!([["spot", "=", "(1,2)"]]), "cannot be compared");
    wrong(json!([["priority", "<", false]]), "needs a value");
    wrong(
        json!([["cost", "=", 123456789.12345678]]),
        "Send it as text",
    );
    wrong(json!({"a": 1}), "is not a list of conditions");
    wrong(json!("[('a', '=', os.system)]"), "cannot be read from");
}

#[test]
fn caps_hold() {
    let many: Vec<Value> = (0..400).map(|_| json!(["priority", "=", 1])).collect();
    wrong(json!(many), "more than 300 conditions");
    let mut deep = json!([["priority", "=", 1]]);
    for _ in 0..50 {
        deep = json!([deep]);
    }
    wrong(deep, "nested deeper than 20");
    wrong(json!([["a.b.c.d.e.f.g.h.i.j", "=", 1]]), "at most 8 parts");
    wrong(json!([["name", "=", "x".repeat(300_000)]]), "longer than");
    let nots: Vec<Value> = std::iter::repeat_n(json!("!"), 100_001)
        .chain([json!(["priority", "=", 1])])
        .collect();
    is(
        json!(nots),
        "(t1.\"priority\" = $1[1]::smallint) IS NOT TRUE",
        json!(["1"]),
    );
}

#[test]
fn a_page_ends_where_the_next_begins() {
    let first = compile(
        &json!({"op": "search", "table": 1, "fields": ["id", "printer_id.name"], "order": "due_at desc", "limit": 2}),
        &farm(),
    );
    assert_eq!(
        first["sql"],
        json!("SELECT pg_catalog.to_jsonb(r.*) AS j, ARRAY[x.c2::text, x.c3::text] AS at FROM (SELECT t1.\"id\" AS c0, t2.\"name\" AS c1, t1.\"due_at\" AS c2, t1.\"id\" AS c3 FROM \"odin\".\"jobs\" t1 LEFT JOIN \"odin\".\"printers\" t2 ON t2.\"org_id\" = t1.\"org_id\" AND t2.\"id\" = t1.\"printer_id\" WHERE TRUE ORDER BY t1.\"due_at\" DESC, t1.\"id\" DESC LIMIT 3) x CROSS JOIN LATERAL (SELECT x.c0 AS \"id\", x.c1 AS \"printer_id.name\") r")
    );
    let short = compile(
        &json!({"op": "search", "table": 1, "fields": ["name", "id"], "limit": 2}),
        &farm(),
    );
    assert_eq!(
        short["sql"],
        json!("SELECT pg_catalog.to_jsonb(x.*) AS j, ARRAY[x.\"id\"::text] AS at FROM (SELECT t1.\"name\" AS \"name\", t1.\"id\" AS \"id\" FROM \"odin\".\"jobs\" t1 WHERE TRUE ORDER BY t1.\"id\" LIMIT 3) x")
    );
    let next = |cursor: Value, order: &str| {
        compile(
            &json!({"op": "search", "table": 1, "order": order, "cursor": cursor}),
            &farm(),
        )
    };
    let mark = first["mark"].clone();
    let sql = next(json!([mark, null, "5"]), "due_at desc")["sql"].to_string();
    assert!(sql.contains("AND ((t1.\\\"due_at\\\" IS NOT NULL) OR (t1.\\\"due_at\\\" IS NULL AND t1.\\\"id\\\" < $1[1]::bigint))"), "{sql}");
    assert_eq!(next(json!([mark, null, "5"]), "due_at")["ok"], json!(false));
    assert_eq!(
        next(json!(["no", null, "5"]), "due_at desc")["ok"],
        json!(false)
    );
    let mark = compile(
        &json!({"op": "search", "table": 1, "order": "priority"}),
        &farm(),
    )["mark"]
        .clone();
    let sql = next(json!([mark, "3", "5"]), "priority")["sql"].to_string();
    assert!(
        sql.contains(
            "AND ((t1.\\\"priority\\\", t1.\\\"id\\\") > ($1[1]::smallint, $1[2]::bigint))"
        ),
        "{sql}"
    );
}

#[test]
fn figures_are_grouped() {
    let got = compile(
        &json!({"op": "aggregate", "table": 1, "group_by": ["printer_id.name", "due_at:month"], "measures": ["count", "cost:sum"],
            "having": [["count", ">", 2]], "order": "cost:sum desc", "limit": 10}),
        &farm(),
    );
    assert_eq!(
        got["sql"],
        json!("SELECT pg_catalog.to_jsonb(r.*) AS j, NULL::text[] AS at FROM (SELECT t2.\"name\" AS \"printer_id.name\", pg_catalog.date_trunc('month', t1.\"due_at\") AS \"due_at:month\", pg_catalog.count(*) AS \"count\", pg_catalog.sum(t1.\"cost\") AS \"cost:sum\" FROM \"odin\".\"jobs\" t1 LEFT JOIN \"odin\".\"printers\" t2 ON t2.\"org_id\" = t1.\"org_id\" AND t2.\"id\" = t1.\"printer_id\" WHERE TRUE GROUP BY 1, 2 HAVING pg_catalog.count(*) > $1[1]::bigint ORDER BY 4 DESC NULLS FIRST LIMIT 11) r")
    );
    let refused = |request: Value| compile(&request, &farm())["detail"].to_string();
    assert!(
        refused(json!({"op": "aggregate", "table": 1, "measures": ["name:sum"]}))
            .contains("sum does not work on name")
    );
    assert!(
        refused(json!({"op": "aggregate", "table": 1, "having": [["x", ">", 1]]}))
            .contains("none of the columns")
    );
    assert!(
        refused(json!({"op": "aggregate", "table": 1, "group_by": ["due_at:decade"]}))
            .contains("no period")
    );
}

#[test]
fn unknown_tables_are_asked_for() {
    let mut some = farm();
    some.0.remove(&2);
    let got = compile(
        &json!({"op": "search", "table": 1, "fields": ["printer_id.name"], "domain": [["printer_id.name", "=", "x"]]}),
        &some,
    );
    assert_eq!(got, json!({"need": [2]}));
}
