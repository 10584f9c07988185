//! Functions of an engineer's as tools: what tools/list shows of them, and what good and bad arguments get over MCP and at the gateway.

use odin_tests::sidecar::Sidecar;
use odin_tests::{code, Farm};
use serde_json::{json, Value};

const SHOP: &str = "
    CREATE TYPE lab.spot AS (x int, y int);
    CREATE TYPE lab.shape AS (label text, corners lab.spot[]);
    CREATE DOMAIN lab.grade AS int CHECK (VALUE BETWEEN 1 AND 5);
    CREATE TYPE lab.mood AS ENUM ('sad', 'happy');
    CREATE FUNCTION lab.grade_it(a lab.grade, m lab.mood DEFAULT 'sad') RETURNS text LANGUAGE sql STABLE AS $$ SELECT a || ' ' || m $$;
    CREATE FUNCTION lab.corners(s lab.shape[]) RETURNS TABLE(label text, x int) LANGUAGE sql STABLE AS $$ SELECT (e).label, (c).x FROM unnest(s) e, unnest((e).corners) c ORDER BY 1, 2 $$;
    CREATE FUNCTION lab.waits(i interval, r int4range DEFAULT NULL) RETURNS interval LANGUAGE sql STABLE AS $$ SELECT i * 2 $$;
    CREATE FUNCTION lab.adds(VARIADIC n int[]) RETURNS bigint LANGUAGE sql STABLE AS $$ SELECT coalesce(sum(v), 0) FROM unnest(n) v $$;
    CREATE FUNCTION lab.turns(INOUT a int, OUT b text) LANGUAGE sql STABLE AS $$ SELECT a + 1, 'b' $$;
    CREATE FUNCTION lab.pick(n int) RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'number' $$;
    CREATE FUNCTION lab.pick(n text) RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'text' $$;
    CREATE FUNCTION lab.walk(\"limit\" int DEFAULT 2, cursor text DEFAULT NULL) RETURNS TABLE(id int) LANGUAGE sql STABLE AS $$
      SELECT g.k FROM generate_series(coalesce((odin.cursor_decode(cursor)->>0)::int, 0) + 1, 5) g(k) LIMIT \"limit\" $$;
    CREATE FUNCTION lab.hidden() RETURNS text LANGUAGE sql STABLE AS $$ SELECT 'in' $$;
    REVOKE ALL ON ALL FUNCTIONS IN SCHEMA lab FROM PUBLIC;
    GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA lab TO odin_viewer;
    REVOKE ALL ON FUNCTION lab.hidden() FROM odin_viewer; GRANT EXECUTE ON FUNCTION lab.hidden() TO odin_admin;
    SELECT odin.register_tool(f, name => n, description => 'A tool of the test.', page_by => p) FROM (VALUES ('lab.grade_it', NULL, NULL::text[]), ('lab.corners', NULL, NULL), ('lab.waits', NULL, NULL), ('lab.adds', NULL, NULL),
      ('lab.turns', NULL, NULL), ('lab.pick(integer)', 'pick_number', NULL), ('lab.pick(text)', 'pick_text', NULL), ('lab.walk', NULL, '{id}'), ('lab.hidden', NULL, NULL)) v(f, n, p)";

/// Tool, arguments, and either the structured content or the field and a part of what is said about it.
type Expected = (
    &'static str,
    Value,
    Result<Value, (&'static str, &'static str)>,
);

fn calls() -> Vec<Expected> {
    vec![
        (
            "grade_it",
            json!({"a": 5, "m": "happy"}),
            Ok(json!({"result": "5 happy"})),
        ),
        (
            "grade_it",
            json!({"a": 6}),
            Err(("a", "more than the maximum of 5")),
        ),
        (
            "grade_it",
            json!({"a": 1, "m": "glad"}),
            Err(("m", "not one of sad, happy")),
        ),
        (
            "corners",
            json!({"s": [{"label": "l", "corners": [{"x": 1, "y": 2}, {"x": 3}]}]}),
            Ok(json!({"rows": [{"label": "l", "x": 1}, {"label": "l", "x": 3}], "count": 2})),
        ),
        (
            "corners",
            json!({"s": [{"corners": [{"x": "one"}]}]}),
            Err(("s.0.corners.0.x", "integer")),
        ),
        (
            "corners",
            json!({"s": [{"lable": "l"}]}),
            Err(("s.0", "lable")),
        ),
        (
            "waits",
            json!({"i": "90 minutes", "r": "[1,3)"}),
            Ok(json!({"result": "03:00:00"})),
        ),
        (
            "waits",
            json!({"i": "soon"}),
            Err(("i", "invalid input syntax for type interval")),
        ),
        (
            "waits",
            json!({"i": "1 day", "r": "3"}),
            Err(("r", "malformed range literal")),
        ),
        ("adds", json!({}), Ok(json!({"result": 0}))),
        ("adds", json!({"n": [1, 2]}), Ok(json!({"result": 3}))),
        (
            "adds",
            json!({"n": [3_000_000_000_i64]}),
            Err(("n", "out of range for type integer")),
        ),
        ("turns", json!({"a": 1}), Ok(json!({"a": 2, "b": "b"}))),
        (
            "turns",
            json!({"a": 3_000_000_000_i64}),
            Err(("a", "not between -2147483648 and 2147483647")),
        ),
        (
            "pick_number",
            json!({"n": 1}),
            Ok(json!({"result": "number"})),
        ),
        (
            "pick_text",
            json!({"n": "1"}),
            Ok(json!({"result": "text"})),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_are_shown_and_called_as_they_are() {
    let farm = Farm::with_fixture().await;
    farm.sql(SHOP).await;
    let role = farm.role("any", "odin_operator").await;
    let key = farm.mint(&role, "agent:read,agent:write").await;
    let sidecar = Sidecar::start(&farm, &[]).await;
    let client = sidecar.client().key(&key.secret);
    let gateway = farm.gateway().await;

    let listed = client.rpc("tools/list", json!({})).await.json();
    let tools = listed["result"]["tools"].as_array().expect("tools").clone();
    let shown = |name: &str| tools.iter().find(|t| t["name"] == name);
    assert!(shown("hidden").is_none(), "no EXECUTE, not listed");
    let takes = |name: &str, argument: &str| {
        shown(name).unwrap_or_else(|| panic!("{name} is not listed"))["inputSchema"]["properties"]
            [argument]
            .clone()
    };
    assert_eq!(
        takes("grade_it", "a"),
        json!({"type": "integer", "minimum": 1, "maximum": 5})
    );
    assert_eq!(
        takes("corners", "s")["items"]["properties"]["corners"]["items"]["properties"]["y"]["type"],
        json!(["integer", "null"])
    );
    assert_eq!(
        takes("adds", "n"),
        json!({"type": "array", "items": {"type": "integer"}})
    );
    assert_eq!(
        shown("turns").expect("listed")["outputSchema"]["properties"]["b"]["type"],
        json!(["string", "null"])
    );

    for (tool, arguments, expected) in calls() {
        let direct = gateway.call(&key, tool, arguments.clone()).await;
        let over = client.call(tool, arguments.clone()).await;
        match expected {
            Ok(answer) => {
                assert_eq!(direct["result"], answer, "{tool} {arguments}: {direct}");
                let content = &over.json()["result"]["structuredContent"];
                assert_eq!(*content, answer, "{tool} {arguments}: {}", over.text());
            }
            Err((field, part)) => {
                for error in [&direct["error"], &over.tool_error()] {
                    assert_eq!(error["code"], "validation_failed", "{tool}: {error}");
                    assert_eq!(error["field"], field, "{tool} {arguments}: {error}");
                    let said = error["detail"].as_str().expect("a detail");
                    assert!(said.contains(part), "{tool} {arguments}: {error}");
                }
            }
        }
    }
    assert_eq!(
        code(&gateway.call(&key, "hidden", json!({})).await),
        "permission_denied"
    );

    // A set is walked to its end by the cursor.
    let (mut seen, mut cursor) = (Vec::new(), Value::Null);
    for _ in 0..5 {
        let arguments = json!({"limit": 2, "cursor": cursor});
        let page =
            client.call("walk", arguments).await.json()["result"]["structuredContent"].clone();
        seen.extend(page["rows"].as_array().expect("rows").clone());
        cursor = page["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(
        seen,
        (1..=5).map(|id| json!({"id": id})).collect::<Vec<_>>()
    );

    // What changes in SQL shows after a sync, by call and by comment.
    farm.sql("DROP FUNCTION lab.adds; CREATE FUNCTION lab.fresh(n int) RETURNS int LANGUAGE sql STABLE AS 'SELECT n';
              REVOKE ALL ON FUNCTION lab.fresh FROM PUBLIC; GRANT EXECUTE ON FUNCTION lab.fresh TO odin_viewer;
              COMMENT ON FUNCTION lab.fresh IS E'Says it again.\\n@tool {\"title\": \"Fresh\"}'; SELECT odin.sync_tools()")
        .await;
    // A sidecar hears of it a moment later.
    let mut names = Vec::new();
    for _ in 0..900 {
        let listed = client.rpc("tools/list", json!({})).await.json();
        names = listed["result"]["tools"]
            .as_array()
            .expect("tools")
            .iter()
            .filter_map(|t| t["name"].as_str().map(str::to_owned))
            .collect::<Vec<_>>();
        if names.iter().any(|n| n == "fresh") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let has = |name: &str| names.iter().any(|n| n == name);
    assert!(has("fresh") && !has("adds"), "{names:?}");
    let said = client.call("fresh", json!({"n": 7})).await.json();
    assert_eq!(said["result"]["structuredContent"], json!({"result": 7}));
}
