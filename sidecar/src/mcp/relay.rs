//! Progress and log notices of a running statement, on their way to the client that waits for it.

// Logging is deprecated in the newest revision, and part of all older ones.
#![allow(deprecated)]

use std::future::Future;
use std::pin::Pin;

use rmcp::model::{
    LoggingLevel, LoggingMessageNotificationParam, ProgressNotificationParam, ProgressToken,
};
use rmcp::service::{Peer, RequestContext, RoleServer};
use serde_json::Value;
use tokio::sync::{mpsc, OnceCell};

use super::handler::{is_modern, Handler};
use crate::db::{Notice, NoticeKind};

pub struct Relay {
    heard: mpsc::UnboundedReceiver<Notice>,
    peer: Peer<RoleServer>,
    token: Option<ProgressToken>,
    /// The least level wanted; an older client's is looked up when the first message comes.
    level: OnceCell<Option<LoggingLevel>>,
    handler: Handler,
}

/// Listen only when the client asked: for progress by a token, for logs by a level (older clients by having a session).
pub fn start(
    handler: &Handler,
    cx: &RequestContext<RoleServer>,
) -> (Option<mpsc::UnboundedSender<Notice>>, Option<Relay>) {
    let token = cx.meta.get_progress_token();
    let level = if is_modern(cx) {
        OnceCell::new_with(Some(cx.meta.log_level()))
    } else {
        OnceCell::new()
    };
    let wants_logs = level.get() != Some(&None);
    if handler.quiet || (token.is_none() && !wants_logs) {
        return (None, None);
    }
    let (sender, heard) = mpsc::unbounded_channel();
    let relay = Relay {
        heard,
        peer: cx.peer.clone(),
        token,
        level,
        handler: handler.clone(),
    };
    (Some(sender), Some(relay))
}

impl Relay {
    /// Pass notices on while `work` runs, and what came with its end before the answer itself.
    pub async fn during<T>(mut self, mut work: Pin<&mut impl Future<Output = T>>) -> T {
        let mut open = true;
        let result = loop {
            tokio::select! {
                biased;
                notice = self.heard.recv(), if open => match notice {
                    // Boxed: hardly a call has notices, and every call would carry room for them.
                    Some(notice) => Box::pin(self.pass_on(notice)).await,
                    None => open = false,
                },
                result = &mut work => break result,
            }
        };
        while let Ok(notice) = self.heard.try_recv() {
            Box::pin(self.pass_on(notice)).await;
        }
        result
    }

    async fn pass_on(&self, notice: Notice) {
        // A client that is gone is noticed by the call itself.
        match notice.kind {
            NoticeKind::Progress => {
                let (Some(token), Some(progress)) = (&self.token, notice.body["progress"].as_f64())
                else {
                    return;
                };
                let mut param = ProgressNotificationParam::new(token.clone(), progress);
                param.total = notice.body["total"].as_f64();
                param.message = notice.body["message"].as_str().map(str::to_owned);
                let _ = self.peer.notify_progress(param).await;
            }
            NoticeKind::Log => {
                let level = level(notice.body["level"].as_str().unwrap_or("info"));
                let least = self
                    .level
                    .get_or_init(|| async { Some(self.handler.link.level(&self.handler).await) });
                if least.await.is_none_or(|least| rank(level) < rank(least)) {
                    return;
                }
                let data = match notice.body.get("data") {
                    Some(data) => data.clone(),
                    None => Value::Null,
                };
                self.log(level, data).await;
            }
        }
    }

    async fn log(&self, level: LoggingLevel, data: Value) {
        let param = LoggingMessageNotificationParam::new(level, data).with_logger("odin");
        let _ = self.peer.notify_logging_message(param).await;
    }
}

pub fn level(name: &str) -> LoggingLevel {
    match name {
        "debug" => LoggingLevel::Debug,
        "notice" => LoggingLevel::Notice,
        "warning" => LoggingLevel::Warning,
        "error" => LoggingLevel::Error,
        "critical" => LoggingLevel::Critical,
        "alert" => LoggingLevel::Alert,
        "emergency" => LoggingLevel::Emergency,
        _ => LoggingLevel::Info,
    }
}

fn rank(level: LoggingLevel) -> u8 {
    match level {
        LoggingLevel::Debug => 0,
        LoggingLevel::Info => 1,
        LoggingLevel::Notice => 2,
        LoggingLevel::Warning => 3,
        LoggingLevel::Error => 4,
        LoggingLevel::Critical => 5,
        LoggingLevel::Alert => 6,
        LoggingLevel::Emergency => 7,
    }
}
