//! The MQTT connection to one Bambu Lab printer: its report merged into one document, and orders with their answers.
//! Every connection is made anew, so that nothing that was not sent in time is ever sent later.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, Event, MqttOptions, Packet, QoS, Transport,
};
use serde_json::{json, Map, Value};
use tokio::sync::{oneshot, Notify};

use super::tls::{tls_fault, Identity};
use crate::printers::driver::Fault;

/// A full report has up to 12 KB today; the library's own limit is 10.
const MOST_BYTES: usize = 1024 * 1024;
const KEEP_ALIVE: Duration = Duration::from_secs(15);
const SLOWEST: Duration = Duration::from_secs(30);
/// Not every firmware answers every order; the state tells.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
pub const FIRST_REPORT: Duration = Duration::from_secs(8);
/// Orders must be signed by Bambu's own software; reading needs no signature.
const SIGNATURE_NEEDED: u64 = 0x2000_0000;
const NOT_SIGNED: i64 = 84_033_543;
/// "Cancelled by the user", shown for a few seconds.
const CANCELLED: i64 = 50_348_044;

pub const DEVELOPER_MODE: &str =
    "this printer takes orders only in Developer Mode: on its screen switch on LAN Only Mode, then Developer Mode. Until then it can only be watched";

/// What is known of the printer on this connection.
#[derive(Default)]
pub struct Document {
    pub print: Map<String, Value>,
    pub version: Value,
    /// The print that is shown as failed was cancelled by somebody.
    pub cancelled: bool,
    /// We have told it to stop ourselves.
    pub stopping: bool,
    pub complete: bool,
}

impl Document {
    /// Objects are merged, everything else is replaced: smaller printers send only what changed.
    fn merge(&mut self, said: &Map<String, Value>) {
        merge(&mut self.print, said);
        match self.print.get("gcode_state").and_then(Value::as_str) {
            Some("FAILED") => {
                let said = number(self.print.get("print_error")) == Some(CANCELLED);
                self.cancelled |= said || self.stopping;
                self.stopping = false;
            }
            Some("IDLE" | "FINISH") => (self.cancelled, self.stopping) = (false, false),
            Some(_) => self.cancelled = false,
            None => {}
        }
        self.complete |= self.print.contains_key("gcode_state");
    }

    pub fn needs_signature(&self) -> bool {
        let fun = self.print.get("fun").and_then(Value::as_str);
        fun.and_then(|hex| u64::from_str_radix(hex, 16).ok())
            .is_some_and(|bits| bits & SIGNATURE_NEEDED != 0)
    }
}

fn merge(into: &mut Map<String, Value>, said: &Map<String, Value>) {
    for (name, value) in said {
        match (into.get_mut(name), value) {
            (Some(Value::Object(old)), Value::Object(new)) => merge(old, new),
            _ => {
                into.insert(name.clone(), value.clone());
            }
        }
    }
}

/// Numbers often arrive as text.
pub fn number(value: Option<&Value>) -> Option<i64> {
    let value = value?;
    value
        .as_i64()
        .or_else(|| value.as_f64().map(|f| f as i64))
        .or_else(|| value.as_str()?.trim().parse().ok())
}

struct Shared {
    topic: String,
    client: Mutex<Option<AsyncClient>>,
    document: Mutex<Document>,
    waiting: Mutex<HashMap<String, oneshot::Sender<Value>>>,
    problem: Mutex<Option<Fault>>,
    moved: Notify,
    sequence: AtomicU64,
}

pub struct Link {
    shared: Arc<Shared>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Link {
    pub fn start(
        host: &str,
        port: u16,
        serial: &str,
        code: &str,
        identity: Arc<Identity>,
    ) -> Result<Link, Fault> {
        let shared = Arc::new(Shared {
            topic: format!("device/{serial}"),
            client: Mutex::default(),
            document: Mutex::default(),
            waiting: Mutex::default(),
            problem: Mutex::default(),
            moved: Notify::new(),
            sequence: AtomicU64::new(1),
        });
        let mut options = MqttOptions::new(format!("odin-{}", crate::random_id()), host, port);
        options
            .set_credentials("bblp", code)
            .set_keep_alive(KEEP_ALIVE)
            .set_max_packet_size(MOST_BYTES, MOST_BYTES);
        // Looked at now, so that it cannot fail later.
        identity.config()?;
        let task = tokio::spawn(connect_for_ever(shared.clone(), options, identity));
        Ok(Link { shared, task })
    }

    /// What comes next is no failure: we have stopped it.
    pub fn stopping(&self) {
        if let Ok(mut document) = self.shared.document.lock() {
            document.stopping = true;
        }
    }

    pub async fn changed(&self) {
        self.shared.moved.notified().await;
    }

    /// The document, once the printer has told everything.
    pub async fn read<T>(&self, with: impl Fn(&Document) -> T) -> Result<T, Fault> {
        let until = tokio::time::Instant::now() + FIRST_REPORT;
        loop {
            let moved = self.shared.moved.notified();
            {
                let document = self.shared.document.lock().map_err(poisoned)?;
                if document.complete {
                    return Ok(with(&document));
                }
            }
            if let Some(fault) = self.shared.problem.lock().map_err(poisoned)?.clone() {
                return Err(fault);
            }
            if tokio::time::timeout_at(until, moved).await.is_err() {
                // A printer that has just been switched on takes connections before it hears what is asked of it.
                if let Some(client) = self.shared.client.lock().map_err(poisoned)?.as_ref() {
                    ask_for_all(&self.shared, client);
                }
                return Err(Fault::unreachable(
                    "the printer takes the access code but reports nothing: is the serial number right?",
                ));
            }
        }
    }

    /// Publish once and hear what the printer says. Silence is not a refusal: the state tells.
    pub async fn order(&self, topic: &str, mut body: Value) -> Result<Value, Fault> {
        if self.read(Document::needs_signature).await? {
            return Err(Fault::refused(DEVELOPER_MODE));
        }
        let id = self
            .shared
            .sequence
            .fetch_add(1, Ordering::Relaxed)
            .to_string();
        body["sequence_id"] = json!(id);
        let text = json!({ topic: body }).to_string();
        let client = self.shared.client.lock().map_err(poisoned)?.clone();
        let Some(client) = client else {
            return Err(Fault::unreachable("the printer is not connected"));
        };
        let (heard, answer) = oneshot::channel();
        self.shared
            .waiting
            .lock()
            .map_err(poisoned)?
            .insert(id.clone(), heard);
        let to = format!("{}/request", self.shared.topic);
        client
            .try_publish(to, QoS::AtLeastOnce, false, text)
            .map_err(|_| Fault::unreachable("the connection to the printer is jammed"))?;
        let answer = tokio::time::timeout(ANSWER_LIMIT, answer).await;
        if let Ok(mut waiting) = self.shared.waiting.lock() {
            waiting.remove(&id);
        }
        match answer {
            Ok(Ok(said)) => judged(said),
            Ok(Err(_)) => Err(Fault::broken(
                "the connection broke before the printer answered",
            )),
            Err(_) => Ok(json!({})),
        }
    }
}

fn poisoned<T>(_: T) -> Fault {
    Fault::odd("the connection's memory is broken")
}

/// What an answer to an order means.
fn judged(said: Value) -> Result<Value, Fault> {
    let result = said["result"].as_str().unwrap_or_default();
    let reason = said["reason"].as_str().unwrap_or_default();
    if number(said.get("err_code")) == Some(NOT_SIGNED) || reason.contains("verify failed") {
        return Err(Fault::refused(DEVELOPER_MODE));
    }
    if result.eq_ignore_ascii_case("fail") || result.eq_ignore_ascii_case("failed") {
        let why = match reason {
            "" => "without a reason",
            why => why,
        };
        return Err(Fault::refused(format!("the printer refuses: {why}")));
    }
    Ok(said)
}

async fn connect_for_ever(shared: Arc<Shared>, options: MqttOptions, identity: Arc<Identity>) {
    let mut wait = Duration::from_secs(1);
    loop {
        if let Ok(config) = identity.config() {
            let mut options = options.clone();
            options.set_transport(Transport::tls_with_config(config.into()));
            let was_open = run(&shared, options).await;
            if was_open {
                wait = Duration::from_secs(1);
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(SLOWEST);
    }
}

/// One connection, until it ends. True when it was open for a while.
async fn run(shared: &Shared, options: MqttOptions) -> bool {
    let (client, mut events) = AsyncClient::new(options, 20);
    let mut open = false;
    let fault = loop {
        match events.poll().await {
            Ok(Event::Incoming(Packet::ConnAck(_))) => {
                open = true;
                begin(shared, &client);
            }
            Ok(Event::Incoming(Packet::Publish(message))) => hear(shared, &message.payload),
            Ok(_) => {}
            Err(error) => break fault(&error),
        }
    };
    if let Ok(mut client) = shared.client.lock() {
        *client = None;
    }
    if let Ok(mut document) = shared.document.lock() {
        *document = Document::default();
    }
    // Whoever waits learns that the connection is gone.
    if let Ok(mut waiting) = shared.waiting.lock() {
        waiting.clear();
    }
    if let Ok(mut problem) = shared.problem.lock() {
        *problem = Some(fault);
    }
    shared.moved.notify_waiters();
    open
}

fn begin(shared: &Shared, client: &AsyncClient) {
    let ask = format!("{}/request", shared.topic);
    let report = format!("{}/report", shared.topic);
    let version = json!({"info": {"sequence_id": "0", "command": "get_version"}}).to_string();
    // The queue of a new connection has room for these.
    let _ = client.try_subscribe(report, QoS::AtMostOnce);
    let _ = client.try_publish(ask, QoS::AtMostOnce, false, version);
    ask_for_all(shared, client);
    if let Ok(mut problem) = shared.problem.lock() {
        *problem = None;
    }
    if let Ok(mut kept) = shared.client.lock() {
        *kept = Some(client.clone());
    }
}

fn ask_for_all(shared: &Shared, client: &AsyncClient) {
    let ask = format!("{}/request", shared.topic);
    let all = json!({"pushing": {"sequence_id": "0", "command": "pushall"}}).to_string();
    // Where even this cannot be queued the connection is about to be made anew.
    let _ = client.try_publish(ask, QoS::AtMostOnce, false, all);
}

fn hear(shared: &Shared, payload: &[u8]) {
    let Ok(Value::Object(said)) = serde_json::from_slice::<Value>(payload) else {
        return;
    };
    for (topic, body) in &said {
        let command = body["command"].as_str().unwrap_or_default();
        if let (Some(object), Ok(mut document)) = (body.as_object(), shared.document.lock()) {
            match (topic.as_str(), command) {
                ("print", "push_status") => document.merge(object),
                ("info", "get_version") => document.version = body.clone(),
                _ => {}
            }
        }
        let answered = body["sequence_id"]
            .as_str()
            .filter(|_| !body["result"].is_null())
            .and_then(|id| shared.waiting.lock().ok()?.remove(id));
        if let Some(waiting) = answered {
            let _ = waiting.send(body.clone());
        }
    }
    shared.moved.notify_waiters();
}

fn fault(error: &ConnectionError) -> Fault {
    match error {
        ConnectionError::ConnectionRefused(
            ConnectReturnCode::NotAuthorized | ConnectReturnCode::BadUserNamePassword,
        ) => Fault::auth("the printer does not accept the access code; it is shown on its screen and changes when it is renewed there"),
        ConnectionError::NetworkTimeout => {
            Fault::unreachable("nothing answers: off, another network, or a firewall")
        }
        ConnectionError::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            Fault::unreachable("the connection is refused: nothing listens on that port")
        }
        other => {
            let said = format!("{other:?}");
            let lower = said.to_lowercase();
            if lower.contains("lookup") || lower.contains("name or service") || lower.contains("name resolution") {
                return Fault::unreachable("its name cannot be resolved");
            }
            tls_fault(&said)
                .unwrap_or_else(|| Fault::unreachable("the connection to the printer breaks"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(said: &[Value]) -> Document {
        let mut document = Document::default();
        for part in said {
            document.merge(part.as_object().unwrap());
        }
        document
    }

    #[test]
    fn parts_are_merged_and_arrays_replaced() {
        let seen = document(&[
            json!({"gcode_state": "RUNNING", "upgrade": {"a": 1, "b": 2}, "hms": [1, 2]}),
            json!({"mc_percent": "7", "upgrade": {"b": 3}, "hms": []}),
        ]);
        assert_eq!(seen.print["upgrade"], json!({"a": 1, "b": 3}));
        assert_eq!(seen.print["hms"], json!([]));
        assert_eq!(number(seen.print.get("mc_percent")), Some(7));
        assert!(seen.complete);
        assert!(!document(&[json!({"mc_percent": 3})]).complete);
    }

    #[test]
    fn a_cancel_is_remembered_after_its_number_is_gone() {
        let failed = json!({"gcode_state": "FAILED", "print_error": 50348044});
        let gone = json!({"print_error": 0});
        assert!(document(&[failed.clone(), gone.clone()]).cancelled);
        let again = json!({"gcode_state": "RUNNING"});
        assert!(!document(&[failed, gone, again]).cancelled);
        assert!(!document(&[json!({"gcode_state": "FAILED", "print_error": 1})]).cancelled);
    }

    #[test]
    fn who_must_sign() {
        assert!(document(&[json!({"fun": "3EC1AFFF9CFF"})]).needs_signature());
        assert!(!document(&[json!({"fun": "3EC18FFF9CFF"})]).needs_signature());
        assert!(!document(&[json!({})]).needs_signature());
        let said = json!({"result": "failed", "reason": "mqtt message verify failed", "err_code": 84033543});
        assert_eq!(judged(said).unwrap_err().detail, DEVELOPER_MODE);
        assert!(judged(json!({"result": "SUCCESS"})).is_ok());
        assert!(judged(json!({"result": "Failed", "reason": "busy"})).is_err());
    }
}
