//! OctoPrint's push socket, used as a wake-up: what it says is asked for again over REST, so there is one truth.
//! It comes back for ever; without it, and while it is silent, the keeper simply looks more often.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use serde_json::{json, Value};
use tokio::sync::Notify;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::printers::http::Http;

/// OctoPrint speaks every second; when it does not, it is no longer relied upon.
const QUIET: Duration = Duration::from_secs(5);
/// A socket that is silent for so long is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// Sessions tried on one socket without hearing anything.
const LOGINS: u32 = 3;
const LIMIT: Duration = Duration::from_secs(10);
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
        let spoke = listen(url, http, news).await.unwrap_or(false);
        news.open.store(false, Ordering::Relaxed);
        // What happened since it fell silent is seen now.
        news.changed.notify_one();
        wait = if spoke {
            WAIT
        } else {
            (wait * 2).min(LONGEST_WAIT)
        };
        tokio::time::sleep(wait).await;
    }
}

/// A session of our own, as the socket wants it. `None`: there is none to be had.
async fn session(http: &Http) -> Option<Message> {
    let answer = http
        .post("/api/login", &json!({"passive": true}), LIMIT)
        .await
        .ok()?;
    let login = answer.json().ok()?;
    let auth = format!("{}:{}", login["name"].as_str()?, login["session"].as_str()?);
    Some(Message::text(json!({ "auth": auth }).to_string()))
}

/// One socket, until it ends. True when it spoke to us last.
async fn listen(url: &str, http: &Http, news: &News) -> Option<bool> {
    // Without a session the socket stays open and says nothing.
    let mut login = Some(session(http).await?);
    let connecting = tokio::time::timeout(LIMIT, tokio_tungstenite::connect_async(url));
    let (mut socket, _) = connecting.await.ok()?.ok()?;
    let throttle = json!({"throttle": 2}).to_string();
    socket.send(Message::text(throttle)).await.ok()?;
    let (mut heard_at, mut spoke, mut logins) = (Instant::now(), false, 0);
    let mut seen = String::new();
    loop {
        if let Some(login) = login.take() {
            logins += 1;
            socket.send(login).await.ok()?;
        }
        let next = tokio::time::timeout(QUIET, socket.next()).await;
        let text = match &next {
            Ok(Some(Ok(message))) => message.to_text().unwrap_or_default(),
            Ok(_) => return Some(spoke),
            Err(_) => "",
        };
        let frame: Value = serde_json::from_str(text).unwrap_or_default();
        if !frame["reauthRequired"].is_null() {
            // The session ended; the socket stays open and would say nothing more.
            news.open.store(false, Ordering::Relaxed);
            news.changed.notify_one();
            if logins >= LOGINS {
                return Some(false);
            }
            login = Some(session(http).await?);
        } else if let Some(current) = frame.get("current") {
            (heard_at, spoke, logins) = (Instant::now(), true, 0);
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
        if heard_at.elapsed() >= QUIET {
            news.open.store(false, Ordering::Relaxed);
        }
        if heard_at.elapsed() >= SILENCE {
            return Some(spoke);
        }
    }
}
