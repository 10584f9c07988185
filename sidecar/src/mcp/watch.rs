//! What changed for one client: lists of tools, prompts and resources, and single resources it watches. The database
//! only says "something changed"; here it is compared, so that nobody is told about changes he cannot see.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast;

use crate::app::App;
use crate::db::Channel;
use crate::gateway::{CallOptions, Caller, Outcome};

/// Changes come in bursts; one look serves them all.
const SETTLE: Duration = Duration::from_millis(50);
/// For the wake-up that never came.
const LOOK_ANYWAY: Duration = Duration::from_secs(60);
/// Resources one client may watch.
pub const MOST_RESOURCES: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Tools,
    Prompts,
    Resources,
    Resource(String),
}

#[derive(Clone, Debug, Default)]
pub struct Want {
    pub tools: bool,
    pub prompts: bool,
    pub resources: bool,
    pub uris: Vec<String>,
}

pub struct Watch {
    app: Arc<App>,
    caller: Arc<Caller>,
    want: Want,
    wake: broadcast::Receiver<Channel>,
    tools: Option<u64>,
    prompts: Option<u64>,
    resources: Option<u64>,
    uris: HashMap<String, Option<u64>>,
    /// To be looked at.
    lists: bool,
    rows: bool,
    /// Seen, not told yet.
    found: Vec<Change>,
}

impl Watch {
    /// From here on nothing is missed.
    pub async fn start(app: Arc<App>, caller: Arc<Caller>, mut want: Want) -> Watch {
        want.uris.truncate(MOST_RESOURCES);
        let wake = app.listener.subscribe();
        let mut watch = Watch {
            app,
            caller,
            want,
            wake,
            tools: None,
            prompts: None,
            resources: None,
            uris: HashMap::new(),
            lists: false,
            rows: false,
            found: Vec::new(),
        };
        watch.look_at_lists().await;
        watch.look_at_resources().await;
        watch
    }

    /// Watch other resources from now on.
    pub async fn watch_uris(&mut self, mut uris: Vec<String>) {
        uris.truncate(MOST_RESOURCES);
        self.want.uris = uris;
        self.uris.retain(|uri, _| self.want.uris.contains(uri));
        // Only new ones are read; their first state is no change.
        for uri in self.want.uris.clone() {
            if !self.uris.contains_key(&uri) {
                let state = self.resource(&uri).await;
                self.uris.insert(uri, state);
            }
        }
    }

    /// The next changes; never empty. Dropping the future before it is done loses nothing.
    pub async fn next(&mut self) -> Vec<Change> {
        loop {
            self.woken().await;
            if self.lists {
                self.look_at_lists().await;
                self.lists = false;
            }
            if self.rows {
                self.look_at_resources().await;
                self.rows = false;
            }
            if !self.found.is_empty() {
                return std::mem::take(&mut self.found);
            }
        }
    }

    async fn woken(&mut self) {
        while !self.lists && !self.rows {
            let channel = tokio::select! {
                channel = self.wake.recv() => channel,
                () = tokio::time::sleep(LOOK_ANYWAY) => {
                    (self.lists, self.rows) = (true, true);
                    return;
                }
            };
            self.note(channel);
        }
        let settled = tokio::time::sleep(SETTLE);
        tokio::pin!(settled);
        loop {
            let channel = tokio::select! {
                channel = self.wake.recv() => channel,
                () = &mut settled => return,
            };
            self.note(channel);
        }
    }

    fn note(&mut self, channel: Result<Channel, broadcast::error::RecvError>) {
        match channel {
            Ok(Channel::Registry) => self.lists = true,
            Ok(Channel::Resources) => self.rows = true,
            Ok(_) => {}
            Err(_) => (self.lists, self.rows) = (true, true),
        }
    }

    async fn look_at_lists(&mut self) {
        // An outage is no change; the next look finds what it hid.
        if self.want.tools {
            if let Ok(list) = self.app.registry.tools(&self.caller).await {
                if moved(&mut self.tools, list.fingerprint) {
                    self.found.push(Change::Tools);
                }
            }
        }
        if self.want.prompts {
            if let Ok(list) = self.app.registry.prompts(&self.caller).await {
                if moved(&mut self.prompts, list.fingerprint) {
                    self.found.push(Change::Prompts);
                }
            }
        }
        if self.want.resources {
            let resources = self.app.registry.resources(&self.caller).await;
            let templates = self.app.registry.templates(&self.caller).await;
            if let (Ok(resources), Ok(templates)) = (resources, templates) {
                let both = resources.fingerprint ^ templates.fingerprint.rotate_left(1);
                if moved(&mut self.resources, both) {
                    self.found.push(Change::Resources);
                }
            }
        }
    }

    async fn look_at_resources(&mut self) {
        for uri in self.want.uris.clone() {
            let now = self.resource(&uri).await;
            match self.uris.insert(uri.clone(), now) {
                Some(before) if before != now && now.is_some() => {
                    self.found.push(Change::Resource(uri));
                }
                _ => {}
            }
        }
    }

    /// A resource's content, as a fingerprint; `None` while it cannot be read.
    async fn resource(&self, uri: &str) -> Option<u64> {
        let call = CallOptions::default();
        match self.app.gateway.resource(&self.caller, uri, &call).await {
            Outcome::Complete { result, .. } => {
                let mut hasher = DefaultHasher::new();
                result.to_string().hash(&mut hasher);
                Some(hasher.finish())
            }
            _ => None,
        }
    }
}

/// The first value seen is where the watch starts.
fn moved(known: &mut Option<u64>, now: u64) -> bool {
    known.replace(now).is_some_and(|before| before != now)
}
