//! Between sidecars, through PostgreSQL: an older client's answer or cancellation may arrive at any of them.
//! A question waits here; whichever sidecar gets the answer writes it down, and the one that asked picks it up.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use serde_json::{json, Value};
use tokio::sync::{broadcast, oneshot};
use tokio_util::sync::CancellationToken;

use crate::auth::Principal;
use crate::db::{Channel, Db, DbError};

const ASK: &str = "SELECT odin.gateway_bridge_ask($1, $2, $3)";
const ANSWER: &str = "SELECT odin.gateway_bridge_answer($1, $2, $3)";
const CANCEL: &str = "SELECT odin.gateway_bridge_cancel($1, $2, $3)";
const COLLECT: &str = "SELECT odin.gateway_bridge_collect($1, $2)";
const SESSION_SET: &str = "SELECT odin.gateway_session_set($1, $2, $3)";
const SESSION_GET: &str = "SELECT odin.gateway_session_get($1, $2)";
const SESSIONS_ENDED: &str = "SELECT odin.gateway_sessions_ended($1)";
/// Looking back a little further than the last look makes up for clocks and commit order.
const LOOK_BACK: Duration = Duration::from_secs(60);

/// A notification reaches every sidecar within this, unless the machine is very busy.
const SPREAD: Duration = Duration::from_millis(200);
const MOST_ENDED: usize = 50_000;

/// A running call of an older client, as its cancellation names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CallName {
    pub key_id: i64,
    pub session: String,
    /// The JSON-RPC id, as JSON text: 1 and "1" are different.
    pub request: String,
}

pub struct Bridge {
    db: Db,
    waiting: Mutex<HashMap<String, oneshot::Sender<Value>>>,
    running: Mutex<HashMap<CallName, CancellationToken>>,
    ended: Mutex<HashSet<(i64, String)>>,
}

/// A call that can be cancelled by name while this is held.
pub struct Cancellable {
    bridge: Arc<Bridge>,
    name: CallName,
}

impl Drop for Cancellable {
    fn drop(&mut self) {
        if let Ok(mut running) = self.bridge.running.lock() {
            running.remove(&self.name);
        }
    }
}

/// A question whose answer nobody waits for any more is forgotten.
struct Waiting<'a> {
    bridge: &'a Bridge,
    id: &'a str,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Ok(mut waiting) = self.bridge.waiting.lock() {
            waiting.remove(self.id);
        }
    }
}

impl Bridge {
    pub fn start(
        db: Db,
        wake: broadcast::Receiver<Channel>,
        stop: CancellationToken,
    ) -> Arc<Bridge> {
        let bridge = Arc::new(Bridge {
            db,
            waiting: Mutex::default(),
            running: Mutex::default(),
            ended: Mutex::default(),
        });
        tokio::spawn(bridge.clone().collect_for_ever(wake, stop));
        bridge
    }

    /// Put a question on record under an id nobody can guess; `send` then shows it to the client.
    /// The client's answer is `{"result": ..}` or `{"error": ..}`.
    pub async fn ask(
        &self,
        principal: &Principal,
        session: &str,
        limit: Duration,
        send: impl FnOnce(&str) -> bool,
    ) -> Result<Value, DbError> {
        let id = format!("odin-{}", crate::random_id());
        let (sender, receiver) = oneshot::channel();
        if let Ok(mut waiting) = self.waiting.lock() {
            waiting.insert(id.clone(), sender);
        }
        let _waiting = Waiting {
            bridge: self,
            id: &id,
        };
        let options = json!({"session": session, "seconds": limit.as_secs()});
        self.db
            .quick(ASK, &[&principal.credential.as_str(), &id, &options])
            .await?;
        if !send(&id) {
            return Err(DbError::Cancelled);
        }
        match tokio::time::timeout(limit, receiver).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(DbError::Internal("the question was dropped".into())),
            Err(_) => Err(DbError::Timeout),
        }
    }

    /// A client's answer, whichever sidecar asked.
    pub async fn answer(
        &self,
        principal: &Principal,
        id: &str,
        answer: &Value,
    ) -> Result<bool, DbError> {
        let known = self
            .db
            .quick(ANSWER, &[&principal.credential.as_str(), &id, answer])
            .await?;
        Ok(known == Value::Bool(true))
    }

    /// Register a running call, so that its cancellation finds it.
    pub fn cancellable(self: &Arc<Self>, name: CallName, token: CancellationToken) -> Cancellable {
        if let Ok(mut running) = self.running.lock() {
            running.insert(name.clone(), token);
        }
        Cancellable {
            bridge: self.clone(),
            name,
        }
    }

    /// Cancel a call by name, here or wherever it runs.
    pub async fn cancel(&self, principal: &Principal, name: &CallName) -> Result<(), DbError> {
        if self.cancel_here(name) {
            return Ok(());
        }
        self.db
            .quick(
                CANCEL,
                &[&principal.credential.as_str(), &name.session, &name.request],
            )
            .await
            .map(|_| ())
    }

    fn cancel_here(&self, name: &CallName) -> bool {
        let Ok(running) = self.running.lock() else {
            return false;
        };
        match running.get(name) {
            Some(token) => {
                token.cancel();
                true
            }
            None => false,
        }
    }

    /// Remember something about an older client's session: its log level, what it watches.
    pub async fn session_set(
        &self,
        principal: &Principal,
        session: &str,
        change: &Value,
    ) -> Result<Value, DbError> {
        self.db
            .quick(
                SESSION_SET,
                &[&principal.credential.as_str(), &session, change],
            )
            .await
    }

    pub async fn session_get(
        &self,
        principal: &Principal,
        session: &str,
    ) -> Result<Value, DbError> {
        self.db
            .quick(SESSION_GET, &[&principal.credential.as_str(), &session])
            .await
    }

    /// The client has ended this session; no sidecar serves it any more.
    pub async fn end_session(&self, principal: &Principal, session: &str) -> Result<(), DbError> {
        self.session_set(principal, session, &json!({"end": true}))
            .await?;
        self.note_ended(principal.key_id, session.to_owned());
        // Nobody is in a hurry to hear this, and by then the other sidecars know as well.
        tokio::time::sleep(SPREAD).await;
        Ok(())
    }

    pub fn is_ended(&self, principal: &Principal, session: &str) -> bool {
        self.ended
            .lock()
            .is_ok_and(|ended| ended.contains(&(principal.key_id, session.to_owned())))
    }

    /// Whatever still runs in an ended session is stopped.
    fn note_ended(&self, key_id: i64, session: String) {
        if let Ok(running) = self.running.lock() {
            for (name, token) in running.iter() {
                if name.key_id == key_id && name.session == session {
                    token.cancel();
                }
            }
        }
        if let Ok(mut ended) = self.ended.lock() {
            // Their clients are long gone; what is forgotten here is only the 404.
            if ended.len() >= MOST_ENDED {
                ended.clear();
            }
            ended.insert((key_id, session));
        }
    }

    async fn look_for_ended(&self, since: Option<SystemTime>) -> Result<(), DbError> {
        let since = since.map(|t| t - LOOK_BACK);
        let answer = self.db.quick(SESSIONS_ENDED, &[&since]).await?;
        for pair in answer["sessions"].as_array().into_iter().flatten() {
            if let (Some(key_id), Some(session)) = (pair[0].as_i64(), pair[1].as_str()) {
                self.note_ended(key_id, session.to_owned());
            }
        }
        Ok(())
    }

    async fn collect_for_ever(
        self: Arc<Self>,
        mut wake: broadcast::Receiver<Channel>,
        stop: CancellationToken,
    ) {
        // Cancellations are numbered; -1 = start from the newest.
        let mut seen: i64 = -1;
        let mut looked: Option<SystemTime> = None;
        loop {
            let poll = if self.idle() { 60 } else { 2 };
            tokio::select! {
                channel = wake.recv() => match channel {
                    Ok(Channel::Bridge) | Err(_) => {}
                    Ok(Channel::Sessions) => {
                        let now = SystemTime::now();
                        match self.look_for_ended(looked).await {
                            Ok(()) => looked = Some(now),
                            Err(e) => tracing::warn!(error = %e, "cannot look for ended sessions"),
                        }
                        continue;
                    }
                    Ok(_) => continue,
                },
                () = tokio::time::sleep(Duration::from_secs(poll)) => {}
                () = stop.cancelled() => return,
            }
            if self.idle() && seen >= 0 {
                continue;
            }
            match self.collect(seen).await {
                Ok(last) => seen = last,
                Err(e) => tracing::warn!(error = %e, "cannot collect answers"),
            }
        }
    }

    fn idle(&self) -> bool {
        let nobody_waits = self.waiting.lock().map(|w| w.is_empty()).unwrap_or(true);
        let nothing_runs = self.running.lock().map(|r| r.is_empty()).unwrap_or(true);
        nobody_waits && nothing_runs
    }

    async fn collect(&self, seen: i64) -> Result<i64, DbError> {
        let asked: Vec<String> = self
            .waiting
            .lock()
            .map(|w| w.keys().cloned().collect())
            .unwrap_or_default();
        let answer = self.db.quick(COLLECT, &[&asked, &seen]).await?;
        if let Some(answers) = answer["answers"].as_object() {
            for (id, value) in answers {
                let waiter = self.waiting.lock().ok().and_then(|mut w| w.remove(id));
                if let Some(waiter) = waiter {
                    // Whoever asked may have gone in the meantime.
                    let _ = waiter.send(value.clone());
                }
            }
        }
        for cancel in answer["cancels"].as_array().into_iter().flatten() {
            self.cancel_here(&CallName {
                key_id: cancel["key_id"].as_i64().unwrap_or_default(),
                session: cancel["session"].as_str().unwrap_or_default().to_owned(),
                request: cancel["request"].as_str().unwrap_or_default().to_owned(),
            });
        }
        Ok(answer["last"].as_i64().unwrap_or(seen))
    }
}
