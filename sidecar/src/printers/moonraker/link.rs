//! JSON-RPC over Moonraker's websocket: orders and questions by number, news as a wake-up. It comes back for ever.
//! Over HTTP Moonraker hides Klipper's own words; here they arrive whole.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{json, Value};
use tokio::sync::{mpsc, oneshot, Notify};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::printers::driver::Fault;

const CONNECT_LIMIT: Duration = Duration::from_secs(8);
/// Moonraker tells its own load every second or so.
const SILENCE: Duration = Duration::from_secs(60);
const WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// Lines kept of what Klipper says to a script.
const MOST_WORDS: usize = 100;
/// What it says comes before its answer; a straggler is waited for.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What wakes the keeper; temperatures move all the time and do not.
const WATCHED: [&str; 4] = ["webhooks", "print_stats", "pause_resume", "virtual_sdcard"];

struct Request {
    method: &'static str,
    params: Value,
    answer: oneshot::Sender<Result<Value, Fault>>,
}

#[derive(Default)]
struct News {
    changed: Notify,
    files: AtomicBool,
    open: AtomicBool,
    /// What Klipper says while a script of ours runs.
    words: Mutex<Option<Vec<String>>>,
    /// Why there is no connection.
    trouble: Mutex<Option<Fault>>,
}

pub struct Link {
    requests: mpsc::Sender<Request>,
    news: Arc<News>,
    _stops_with_me: DropGuard,
}

impl Link {
    pub fn start(base: &str, key: Option<&str>) -> Result<Link, Fault> {
        let Some(host) = base.strip_prefix("http://") else {
            return Err(Fault::unsupported(
                "Moonraker over TLS is not supported; give its http:// address",
            ));
        };
        let url = format!("ws://{host}/websocket");
        let (requests, inbox) = mpsc::channel(64);
        let news = Arc::new(News::default());
        let stop = CancellationToken::new();
        let (shared, stopped, key) = (news.clone(), stop.clone(), key.map(str::to_owned));
        tokio::spawn(async move {
            tokio::select! {
                () = connect_for_ever(&url, key.as_deref(), &shared, inbox) => {}
                () = stopped.cancelled() => {}
            }
        });
        Ok(Link {
            requests,
            news,
            _stops_with_me: stop.drop_guard(),
        })
    }

    pub async fn changed(&self) {
        self.news.changed.notified().await;
    }

    pub fn files_moved(&self) -> bool {
        self.news.files.swap(false, Ordering::Relaxed)
    }

    /// Runs lines and returns what Klipper said meanwhile: its answer alone is ok to almost anything.
    pub async fn script(&self, lines: &str, limit: Duration) -> Result<Vec<String>, Fault> {
        if let Ok(mut words) = self.news.words.lock() {
            *words = Some(Vec::new());
        }
        let answer = self
            .call("printer.gcode.script", json!({"script": lines}), limit)
            .await;
        if answer.is_ok() {
            tokio::time::sleep(LAST_WORDS).await;
        }
        let words = self.news.words.lock().ok().and_then(|mut w| w.take());
        answer.map(|_| words.unwrap_or_default())
    }

    pub async fn call(
        &self,
        method: &'static str,
        params: Value,
        limit: Duration,
    ) -> Result<Value, Fault> {
        // A connection that is just being made is worth a moment.
        for _ in 0..20 {
            if self.news.open.load(Ordering::Relaxed) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if !self.news.open.load(Ordering::Relaxed) {
            let trouble = self.news.trouble.lock().ok().and_then(|t| t.clone());
            return Err(trouble.unwrap_or_else(|| Fault::unreachable("Moonraker does not answer")));
        }
        let (answer, heard) = oneshot::channel();
        let request = Request {
            method,
            params,
            answer,
        };
        self.requests
            .send(request)
            .await
            .map_err(|_| Fault::unreachable("the connection is closed"))?;
        match tokio::time::timeout(limit, heard).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Fault::broken("Moonraker broke the connection")),
            Err(_) => Err(Fault::broken(format!(
                "Moonraker did not answer within {} s",
                limit.as_secs()
            ))),
        }
    }
}

async fn connect_for_ever(
    url: &str,
    key: Option<&str>,
    news: &News,
    mut inbox: mpsc::Receiver<Request>,
) {
    let mut wait = WAIT;
    loop {
        let fault = match session(url, key, news, &mut inbox).await {
            Some(fault) => {
                wait = (wait * 2).min(LONGEST_WAIT);
                fault
            }
            None => {
                wait = WAIT;
                Fault::unreachable("Moonraker broke the connection")
            }
        };
        news.open.store(false, Ordering::Relaxed);
        if let Ok(mut trouble) = news.trouble.lock() {
            *trouble = Some(fault);
        }
        news.changed.notify_one();
        tokio::time::sleep(wait).await;
    }
}

/// One connection. `Some` when it never came to be, with the reason.
async fn session(
    url: &str,
    key: Option<&str>,
    news: &News,
    inbox: &mut mpsc::Receiver<Request>,
) -> Option<Fault> {
    let (mut socket, _) =
        match tokio::time::timeout(CONNECT_LIMIT, tokio_tungstenite::connect_async(url)).await {
            Ok(Ok(connected)) => connected,
            Ok(Err(e)) => return Some(trouble(&e)),
            Err(_) => {
                return Some(Fault::unreachable(
                    "nothing answers: off, another network, or a firewall",
                ))
            }
        };
    let mut waiting: HashMap<u64, oneshot::Sender<Result<Value, Fault>>> = HashMap::new();
    let mut number = 1u64;
    let mut who = json!({"client_name": "odin-farm", "version": env!("CARGO_PKG_VERSION"), "type": "agent", "url": "https://odin.farm"});
    if let Some(key) = key {
        who["api_key"] = json!(key);
    }
    if socket
        .send(rpc(0, "server.connection.identify", &who))
        .await
        .is_err()
    {
        return Some(Fault::unreachable("Moonraker broke the connection"));
    }
    let mut known = false;
    loop {
        let heard = tokio::select! {
            heard = tokio::time::timeout(SILENCE, socket.next()) => heard,
            request = inbox.recv(), if known => {
                let request = request?;
                if request.answer.is_closed() {
                    continue;
                }
                number += 1;
                let sent = socket.send(rpc(number, request.method, &request.params)).await;
                waiting.insert(number, request.answer);
                match sent {
                    Ok(()) => continue,
                    Err(_) => return None,
                }
            }
        };
        let Ok(Some(Ok(message))) = heard else {
            return if known {
                None
            } else {
                Some(Fault::unreachable("Moonraker broke the connection"))
            };
        };
        let Ok(text) = message.to_text() else {
            continue;
        };
        let Ok(frame) = serde_json::from_str::<Value>(text) else {
            continue;
        };
        match frame["id"].as_u64() {
            Some(0) => match answer(&frame) {
                Ok(_) => {
                    known = true;
                    news.open.store(true, Ordering::Relaxed);
                    let objects: serde_json::Map<String, Value> = WATCHED
                        .iter()
                        .map(|name| ((*name).to_owned(), Value::Null))
                        .collect();
                    // Refused while Klipper is away; it is asked for again when Klipper comes.
                    let _ = socket
                        .send(rpc(
                            1,
                            "printer.objects.subscribe",
                            &json!({"objects": objects}),
                        ))
                        .await;
                    news.changed.notify_one();
                }
                Err(fault) => return Some(fault),
            },
            Some(id) => {
                if let Some(asker) = waiting.remove(&id) {
                    let _ = asker.send(answer(&frame));
                }
            }
            None => {
                let method = frame["method"].as_str().unwrap_or_default();
                if method == "notify_klippy_ready" {
                    let objects: serde_json::Map<String, Value> = WATCHED
                        .iter()
                        .map(|name| ((*name).to_owned(), Value::Null))
                        .collect();
                    let _ = socket
                        .send(rpc(
                            1,
                            "printer.objects.subscribe",
                            &json!({"objects": objects}),
                        ))
                        .await;
                }
                if method == "notify_gcode_response" {
                    listen(news, &frame["params"]);
                }
                if method == "notify_filelist_changed" {
                    news.files.store(true, Ordering::Relaxed);
                }
                if wakes(method, &frame["params"]) {
                    news.changed.notify_one();
                }
            }
        }
    }
}

/// Kept for whoever runs a script; otherwise nobody's business.
fn listen(news: &News, params: &Value) {
    let Ok(mut kept) = news.words.lock() else {
        return;
    };
    let Some(words) = kept.as_mut() else {
        return;
    };
    let said = params.as_array().into_iter().flatten();
    for line in said.filter_map(Value::as_str).flat_map(str::lines) {
        let line: String = line.chars().filter(|c| !c.is_control()).take(300).collect();
        if words.len() < MOST_WORDS && !line.trim().is_empty() {
            words.push(line.trim().to_owned());
        }
    }
}

/// Progress moves several times a second; only what changes the state is news.
fn wakes(method: &str, params: &Value) -> bool {
    match method {
        "notify_status_update" => {
            !params[0]["webhooks"].is_null()
                || !params[0]["print_stats"]["state"].is_null()
                || !params[0]["print_stats"]["filename"].is_null()
                || !params[0]["pause_resume"].is_null()
        }
        "notify_proc_stat_update" | "notify_gcode_response" => false,
        _ => method.starts_with("notify_"),
    }
}

fn rpc(id: u64, method: &str, params: &Value) -> Message {
    Message::text(
        json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string(),
    )
}

fn answer(frame: &Value) -> Result<Value, Fault> {
    let error = &frame["error"];
    if error.is_null() {
        return Ok(frame["result"].clone());
    }
    let said: String = error["message"]
        .as_str()
        .unwrap_or("no reason given")
        .chars()
        .filter(|c| !c.is_control())
        .take(300)
        .collect();
    Err(match error["code"].as_i64().unwrap_or(0) {
        401 => Fault::auth("Moonraker does not accept the API key (401)"),
        -32602 if said.contains("Unauthorized") || said.contains("API Key") => Fault::auth(
            format!("Moonraker does not accept the API key (it says: {said})"),
        ),
        -32601 => Fault::unsupported(format!("this Moonraker cannot do that: {said}")),
        503 => Fault::unreachable(format!("Klipper is not connected to Moonraker: {said}")),
        500 => Fault::odd(format!("Moonraker failed: {said}")),
        _ => Fault::refused(format!("Klipper refuses: {said}")),
    })
}

fn trouble(error: &WsError) -> Fault {
    match error {
        WsError::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            Fault::unreachable("the connection is refused: nothing listens on that port")
        }
        WsError::Io(e) if e.to_string().contains("lookup") => {
            Fault::unreachable("its name cannot be resolved")
        }
        WsError::Http(response) if response.status() == 401 => {
            Fault::auth("Moonraker does not accept the API key (401)")
        }
        WsError::Http(response) => Fault::odd(format!(
            "no Moonraker there: its websocket answers {}",
            response.status().as_u16()
        )),
        _ => Fault::unreachable("the connection fails"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_fault() {
        let error = |code: i64, message: &str| {
            answer(&json!({"error": {"code": code, "message": message}}))
                .unwrap_err()
                .code
        };
        assert_eq!(error(-32602, "Unauthorized"), "printer_auth");
        assert_eq!(error(-32602, "Invalid API Key"), "printer_auth");
        assert_eq!(
            error(400, "Must home axis first: 1.0 2.0"),
            "printer_refused"
        );
        assert_eq!(
            error(503, "Klippy Host not connected"),
            "printer_unreachable"
        );
        assert_eq!(error(-32601, "Method not found"), "not_supported");
        assert_eq!(answer(&json!({"result": "ok"})).unwrap(), "ok");
    }

    #[test]
    fn words_are_kept_while_a_script_runs() {
        let news = News::default();
        let said = json!(["// one\n// two", "!! three"]);
        listen(&news, &said);
        assert!(news.words.lock().unwrap().is_none());
        *news.words.lock().unwrap() = Some(Vec::new());
        listen(&news, &said);
        let words = news.words.lock().unwrap().take().unwrap();
        assert_eq!(words, ["// one", "// two", "!! three"]);
    }

    #[test]
    fn what_is_news() {
        assert!(wakes(
            "notify_status_update",
            &json!([{"print_stats": {"state": "paused"}}])
        ));
        assert!(!wakes(
            "notify_status_update",
            &json!([{"virtual_sdcard": {"progress": 0.5}}])
        ));
        assert!(wakes("notify_klippy_shutdown", &Value::Null));
        assert!(!wakes("notify_proc_stat_update", &Value::Null));
    }
}
