//! OctoPrint's push socket, used as a wake-up: what it says is asked for again over REST, so there is one truth.
//! It comes back for ever; without it the keeper simply looks more often.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{json, Value};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::printers::http::Http;

/// A socket that is silent for so long is dead: OctoPrint speaks every second.
const SILENCE: Duration = Duration::from_secs(30);
const WAIT: Duration = Duration::from_secs(2);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

#[derive(Default)]
struct News {
    open: AtomicBool,
    files: AtomicBool,
    changed: Notify,
}

pub struct Push {
    news: Arc<News>,
    _stops_with_me: DropGuard,
}

impl Push {
    pub fn start(base: &str, http: Arc<Http>) -> Push {
        let news = Arc::new(News::default());
        let stop = CancellationToken::new();
        // TLS sockets are left to polling: this one speaks plain text only.
        if let Some(host) = base.strip_prefix("http://") {
            let url = format!("ws://{host}/sockjs/websocket");
            let (news, stop) = (news.clone(), stop.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = listen_for_ever(&url, &http, &news) => {}
                    () = stop.cancelled() => {}
                }
            });
        }
        Push {
            news,
            _stops_with_me: stop.drop_guard(),
        }
    }

    pub async fn changed(&self) {
        self.news.changed.notified().await;
    }

    pub fn is_open(&self) -> bool {
        self.news.open.load(Ordering::Relaxed)
    }

    pub fn files_moved(&self) -> bool {
        self.news.files.swap(false, Ordering::Relaxed)
    }
}

async fn listen_for_ever(url: &str, http: &Http, news: &News) {
    let mut wait = WAIT;
    loop {
        let was_open = listen(url, http, news).await.is_some();
        news.open.store(false, Ordering::Relaxed);
        wait = if was_open {
            WAIT
        } else {
            (wait * 2).min(LONGEST_WAIT)
        };
        tokio::time::sleep(wait).await;
    }
}

/// One session. `Some` when it was open for a while.
async fn listen(url: &str, http: &Http, news: &News) -> Option<()> {
    // Without a session the socket stays open and says nothing.
    let login = http
        .post(
            "/api/login",
            &json!({"passive": true}),
            Duration::from_secs(10),
        )
        .await
        .ok()?
        .json()
        .ok()?;
    let auth = format!("{}:{}", login["name"].as_str()?, login["session"].as_str()?);
    let (mut socket, _) = tokio::time::timeout(
        Duration::from_secs(10),
        tokio_tungstenite::connect_async(url),
    )
    .await
    .ok()?
    .ok()?;
    for frame in [json!({"auth": auth}), json!({"throttle": 2})] {
        socket.send(Message::text(frame.to_string())).await.ok()?;
    }
    let mut seen = String::new();
    while let Ok(Some(Ok(message))) = tokio::time::timeout(SILENCE, socket.next()).await {
        let Ok(text) = message.to_text() else {
            continue;
        };
        let Ok(frame) = serde_json::from_str::<Value>(text) else {
            continue;
        };
        if !frame["reauthRequired"].is_null() {
            return Some(());
        }
        if let Some(current) = frame.get("current") {
            news.open.store(true, Ordering::Relaxed);
            // Temperatures move all the time; the pace of looking covers them.
            let state = current["state"]["text"].as_str().unwrap_or_default();
            let now = format!(
                "{state} {} {}",
                current["job"]["file"]["path"],
                current["progress"]["completion"].is_null()
            );
            if now != seen {
                seen = now;
                news.changed.notify_one();
            }
        } else if let Some(kind) = frame["event"]["type"].as_str() {
            if matches!(
                kind,
                "UpdatedFiles" | "FileAdded" | "FileRemoved" | "MetadataAnalysisFinished"
            ) {
                news.files.store(true, Ordering::Relaxed);
                news.changed.notify_one();
            } else if kind.starts_with("Print")
                || matches!(kind, "Error" | "Disconnected" | "Connected")
            {
                news.changed.notify_one();
            }
        }
    }
    Some(())
}
