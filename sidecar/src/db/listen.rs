//! LISTEN on one connection per sidecar, for ever. A notification only wakes: the truth is in the tables.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{broadcast, mpsc};
use tokio_postgres::AsyncMessage;
use tokio_util::sync::CancellationToken;

use super::connection::Connector;
use super::DbError;

/// What a sidecar listens for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channel {
    /// Tools, prompts, resources or keys changed.
    Registry,
    /// Rows behind resources changed.
    Resources,
    /// There is work to claim.
    Work,
    /// A task has ended.
    Tasks,
    /// An answer or a cancellation for a call is in the bridge tables.
    Bridge,
    /// A session of an older revision changed what it watches.
    Sessions,
    /// An issuer's keys are wanted.
    SignIn,
}

impl Channel {
    const ALL: [(Channel, &'static str); 7] = [
        (Channel::Registry, "odin_registry"),
        (Channel::Resources, "odin_resources"),
        (Channel::Work, "odin_work"),
        (Channel::Tasks, "odin_tasks"),
        (Channel::Bridge, "odin_bridge"),
        (Channel::Sessions, "odin_sessions"),
        (Channel::SignIn, "odin_sign_in"),
    ];

    fn named(name: &str) -> Option<Channel> {
        Channel::ALL
            .iter()
            .find(|(_, n)| *n == name)
            .map(|(channel, _)| *channel)
    }
}

pub struct Listener {
    wake: broadcast::Sender<Channel>,
    /// Counted before anybody is woken: who wakes must not find what was remembered before.
    registry_changes: AtomicU64,
}

impl Listener {
    pub(super) fn start(connector: Connector, stop: CancellationToken) -> Arc<Self> {
        let (wake, _) = broadcast::channel(256);
        let listener = Arc::new(Listener {
            wake,
            registry_changes: AtomicU64::new(0),
        });
        let task = listener.clone();
        tokio::spawn(async move {
            let mut failures = 0u32;
            loop {
                let started = std::time::Instant::now();
                let result = tokio::select! {
                    r = task.session(&connector) => r,
                    () = stop.cancelled() => return,
                };
                if started.elapsed() > Duration::from_secs(10) {
                    failures = 0;
                }
                match result {
                    Err(e) if failures == 0 => {
                        tracing::warn!(error = %e, "listening connection lost");
                    }
                    _ => {}
                }
                failures = (failures + 1).min(7);
                let wait = Duration::from_millis(50 << failures);
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    () = stop.cancelled() => return,
                }
            }
        });
        listener
    }

    /// Every wake-up from now on. A receiver that lags simply wakes once for many.
    pub fn subscribe(&self) -> broadcast::Receiver<Channel> {
        self.wake.subscribe()
    }

    /// How often the registry may have changed.
    pub fn registry_changes(&self) -> u64 {
        self.registry_changes.load(Ordering::SeqCst)
    }

    fn tell(&self, channel: Channel) {
        if channel == Channel::Registry {
            self.registry_changes.fetch_add(1, Ordering::SeqCst);
        }
        // Nobody has to listen.
        let _ = self.wake.send(channel);
    }

    async fn session(&self, connector: &Connector) -> Result<(), DbError> {
        let (sender, mut heard) = mpsc::unbounded_channel();
        let (client, _driver) = connector
            .connect(move |message| {
                if let AsyncMessage::Notification(n) = message {
                    let _ = sender.send(n.channel().to_owned());
                }
            })
            .await?;
        for (_, name) in Channel::ALL {
            client.batch_execute(&format!("LISTEN {name}")).await?;
        }
        // What happened while nobody listened is unknown: wake everybody once.
        for (channel, _) in Channel::ALL {
            self.tell(channel);
        }
        let mut alive = tokio::time::interval(Duration::from_secs(30));
        alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                name = heard.recv() => match name {
                    Some(name) => {
                        if let Some(channel) = Channel::named(&name) {
                            self.tell(channel);
                        }
                    }
                    None => return Err(DbError::Unavailable("connection closed".to_owned())),
                },
                // A silent network failure shows only when something is sent.
                _ = alive.tick() => client.batch_execute("").await?,
            }
        }
    }
}
