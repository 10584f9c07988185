//! Against small servers on loopback: what is followed, what is refused, what is cut off.

use std::sync::atomic::{AtomicUsize, Ordering};

use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    egress: EgressOptions,
}

fn egress(arguments: &[&str]) -> Egress {
    let all = std::iter::once("test").chain(arguments.iter().copied());
    Egress::new(&Cli::parse_from(all).egress).unwrap()
}

fn local() -> Egress {
    egress(&["--egress-allow", "*", "--egress-private", "127.0.0.1/32"])
}

const SHORT: Limits = Limits {
    bytes: 1000,
    within: Duration::from_secs(60),
};

/// Answers every connection with `answer(head of the request)`, then closes it.
async fn server(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = vec![0u8; 4096];
            let n = socket.read(&mut head).await.unwrap_or(0);
            let text = answer(&String::from_utf8_lossy(&head[..n]));
            if text.is_empty() {
                tokio::time::sleep(Duration::from_secs(30)).await;
            }
            let _ = socket.write_all(text.as_bytes()).await;
        }
    });
    base
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn to(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn an_answer_is_an_answer_whatever_its_status() {
    let base = server(|head| match head.contains("GET /missing") {
        true => {
            "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno".to_owned()
        }
        false => ok(if head.starts_with("POST") {
            "posted"
        } else {
            "got"
        }),
    })
    .await;
    let answer = local().get(&base, &[], SHORT).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (200, &b"got"[..])
    );
    let answer = local()
        .get(&format!("{base}/missing"), &[], SHORT)
        .await
        .unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..]),
        (404, &b"no"[..])
    );
    let answer = local().post(&base, &[], Bytes::from("{}"), SHORT).await;
    assert_eq!(&answer.unwrap().body[..], b"posted");
}

#[tokio::test]
async fn private_addresses_are_closed_also_behind_a_name() {
    let closed = egress(&["--egress-allow", "*"]);
    for url in [
        "http://127.0.0.1:9/",
        "https://localhost:9/",
        "http://localhost:9/",
    ] {
        let error = closed.get(url, &[], SHORT).await.unwrap_err();
        assert!(
            matches!(error, EgressError::Refused { .. }),
            "{url}: {error}"
        );
        assert_eq!(error.to_json()["code"], "egress_refused");
    }
    // Named networks are open, and nothing listens there.
    let error = local()
        .get("http://127.0.0.1:1/", &[], SHORT)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("refused") && error.retriable());
}

#[tokio::test]
async fn redirects_are_checked_and_credentials_stay_home() {
    let elsewhere = server(|head| {
        ok(if head.to_lowercase().contains("authorization") {
            "leaked"
        } else {
            "clean"
        })
    })
    .await;
    let asked = elsewhere.clone();
    let base = server(move |head| {
        let path = head.split(' ').nth(1).unwrap_or_default();
        match path {
            "/there" => to(&asked),
            "/same" => to("/home"),
            "/home" => ok(if head.to_lowercase().contains("authorization") {
                "kept"
            } else {
                "lost"
            }),
            "/metadata" => to("http://169.254.169.254/latest"),
            "/file" => to("file:///etc/passwd"),
            _ => to("/round"),
        }
    })
    .await;
    let secret = [(header::AUTHORIZATION, HeaderValue::from_static("Bearer x"))];
    let get = async |path: &str| local().get(&format!("{base}{path}"), &secret, SHORT).await;
    assert_eq!(&get("/same").await.unwrap().body[..], b"kept");
    assert_eq!(&get("/there").await.unwrap().body[..], b"clean");
    for path in ["/metadata", "/file", "/round"] {
        let error = get(path).await.unwrap_err();
        assert!(
            matches!(error, EgressError::Refused { .. }),
            "{path}: {error}"
        );
    }
}

#[tokio::test]
async fn limits_hold() {
    let counted = Arc::new(AtomicUsize::new(0));
    let seen = counted.clone();
    let base = server(move |head| {
        seen.fetch_add(1, Ordering::Relaxed);
        let path = head.split(' ').nth(1).unwrap_or_default();
        match path {
            "/large" => ok(&"x".repeat(1001)),
            "/endless" => format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}",
                "x".repeat(5000)
            ),
            "/short" => "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nless".to_owned(),
            _ => String::new(),
        }
    })
    .await;
    let get = async |path: &str| {
        let within = match path {
            "/silent" => Duration::from_secs(1),
            _ => SHORT.within,
        };
        let limits = Limits { within, ..SHORT };
        let error = local().get(&format!("{base}{path}"), &[], limits).await;
        error.unwrap_err()
    };
    assert!(matches!(get("/large").await, EgressError::TooLarge { .. }));
    assert!(matches!(
        get("/endless").await,
        EgressError::TooLarge { .. }
    ));
    assert!(matches!(get("/short").await, EgressError::BrokenOff(_)));
    assert!(matches!(get("/silent").await, EgressError::TimedOut { .. }));
    assert_eq!(counted.load(Ordering::Relaxed), 4);
}
