//! The worked example of docs/tools-in-sql.md, run as it stands: what it says comes out is what comes out.

use odin_tests::{said, Farm};
use serde_json::Value;
use tokio_postgres::{Client, SimpleQueryMessage};

const PAGE: &str = include_str!("../../../../docs/tools-in-sql.md");

/// The page's code blocks: language and text.
fn blocks() -> Vec<(&'static str, &'static str)> {
    PAGE.split("\n```")
        .skip(1)
        .step_by(2)
        .filter_map(|block| block.split_once('\n'))
        .collect()
}

async fn last_value(client: &Client, sql: &str) -> Option<String> {
    let answer = client
        .simple_query(sql)
        .await
        .unwrap_or_else(|e| panic!("{sql}\n{}", said(&e)));
    let rows = answer.iter().filter_map(|m| match m {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    rows.last()
}

#[tokio::test]
async fn the_worked_example_works() {
    let farm = Farm::new().await;
    // What the page takes for granted: an operator and an order.
    let operator = farm.role("operator", "odin_operator").await;
    farm.sql("INSERT INTO odin.orders(org_id, order_number) VALUES (1, 'first')")
        .await;
    let key = farm.mint(&operator, "agent:write").await;
    let gateway = farm.gateway().await;
    let listed = || async {
        gateway
            .ask("gateway_tools", &key, serde_json::json!({}))
            .await
            .to_string()
            .contains("\"set_rush_fee\"")
    };
    let (mut shown, mut checked, mut appeared) = (None, 0, false);
    for (language, text) in blocks() {
        match language {
            "sql" => {
                shown = last_value(&farm.admin, &text.replace("demo_operator", &operator)).await;
                appeared |= listed().await;
            }
            "json" => {
                let wanted: Value =
                    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"));
                let got: Value =
                    serde_json::from_str(&shown.take().expect("an answer before the JSON"))
                        .unwrap();
                assert_eq!(got, wanted);
                checked += 1;
            }
            "text" => {
                assert_eq!(shown.take().as_deref(), Some(text.trim()));
                checked += 1;
            }
            other => panic!("a block of {other}: {text}"),
        }
    }
    assert_eq!(checked, 3);
    assert!(appeared, "the tool was never listed");
    assert!(!listed().await, "the page's last block takes it away");
    farm.finish().await;
}
