//! What the database last said a key may use: kept per key until the registry changes, so that lists are cheap.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rmcp::model::{JsonObject, Prompt, Resource, ResourceTemplate, Tool};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::auth::Credential;
use crate::gateway::{Caller, Gateway};

/// Changes are announced; this is for the announcement that never came.
const FRESH: Duration = Duration::from_secs(300);
const MOST_ENTRIES: usize = 2_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    Tools,
    Prompts,
    Resources,
    Templates,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    what: What,
    credential: Credential,
    toolsets: Option<Arc<[String]>>,
    readonly: bool,
}

/// One key's view of a list, with a fingerprint to tell whether it changed.
pub struct Listing<T> {
    pub items: Vec<T>,
    pub fingerprint: u64,
}

#[derive(Clone)]
enum Entry {
    Tools(Arc<Listing<Tool>>),
    Prompts(Arc<Listing<Prompt>>),
    Resources(Arc<Listing<Resource>>),
    Templates(Arc<Listing<ResourceTemplate>>),
}

pub struct Registry {
    gateway: Arc<Gateway>,
    epoch: AtomicU64,
    entries: Mutex<HashMap<Key, (u64, Instant, Entry)>>,
}

impl Registry {
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Registry {
            gateway,
            epoch: AtomicU64::new(0),
            entries: Mutex::default(),
        }
    }

    /// What was kept under another number is out of date, whether or not it has been forgotten yet.
    fn epoch(&self) -> u64 {
        let heard = self.gateway.listener().map_or(0, |l| l.registry_changes());
        self.epoch.load(Ordering::SeqCst) + heard
    }

    pub fn forget(&self) {
        self.epoch.fetch_add(1, Ordering::SeqCst);
        if let Ok(mut entries) = self.entries.lock() {
            entries.clear();
        }
    }

    /// The tools this key may call, in the registry's order. `Err` is the farm's error object.
    pub async fn tools(&self, caller: &Caller) -> Result<Arc<Listing<Tool>>, Value> {
        let key = self.key(What::Tools, caller);
        if let Some(Entry::Tools(tools)) = self.known(&key) {
            return Ok(tools);
        }
        let epoch = self.epoch();
        let answer = self.gateway.tools(caller).await?;
        let listing = Arc::new(read(answer, &["tools"]));
        self.keep(key, epoch, Entry::Tools(listing.clone()));
        Ok(listing)
    }

    pub async fn prompts(&self, caller: &Caller) -> Result<Arc<Listing<Prompt>>, Value> {
        let key = self.key(What::Prompts, caller);
        if let Some(Entry::Prompts(prompts)) = self.known(&key) {
            return Ok(prompts);
        }
        let epoch = self.epoch();
        let answer = self.gateway.prompts(caller).await?;
        let listing = Arc::new(read(answer, &["prompts"]));
        self.keep(key, epoch, Entry::Prompts(listing.clone()));
        Ok(listing)
    }

    pub async fn resources(&self, caller: &Caller) -> Result<Arc<Listing<Resource>>, Value> {
        let key = self.key(What::Resources, caller);
        if let Some(Entry::Resources(resources)) = self.known(&key) {
            return Ok(resources);
        }
        let epoch = self.epoch();
        let answer = self.gateway.resources(caller).await?;
        let listing = Arc::new(read(answer, &["resources"]));
        self.keep(key, epoch, Entry::Resources(listing.clone()));
        Ok(listing)
    }

    pub async fn templates(
        &self,
        caller: &Caller,
    ) -> Result<Arc<Listing<ResourceTemplate>>, Value> {
        let key = self.key(What::Templates, caller);
        if let Some(Entry::Templates(templates)) = self.known(&key) {
            return Ok(templates);
        }
        let epoch = self.epoch();
        let answer = self.gateway.resource_templates(caller).await?;
        let listing = Arc::new(read(answer, &["resourceTemplates", "resource_templates"]));
        self.keep(key, epoch, Entry::Templates(listing.clone()));
        Ok(listing)
    }

    /// The input schema of a tool, if it is in the list this key was given lately. For header checks only.
    pub fn input_schema(&self, caller: &Caller, name: &str) -> Option<Arc<JsonObject>> {
        match self.known(&self.key(What::Tools, caller)) {
            Some(Entry::Tools(tools)) => tools
                .items
                .iter()
                .find(|tool| tool.name == name)
                .map(|tool| tool.input_schema.clone()),
            _ => None,
        }
    }

    fn key(&self, what: What, caller: &Caller) -> Key {
        // Toolsets and read-only shape the list of tools only.
        let tools = what == What::Tools;
        Key {
            what,
            credential: caller.credential().clone(),
            toolsets: caller.toolsets.clone().filter(|_| tools),
            readonly: tools && caller.readonly,
        }
    }

    fn known(&self, key: &Key) -> Option<Entry> {
        let entries = self.entries.lock().ok()?;
        let (epoch, at, entry) = entries.get(key)?;
        let current = *epoch == self.epoch() && at.elapsed() < FRESH;
        current.then(|| entry.clone())
    }

    fn keep(&self, key: Key, epoch: u64, entry: Entry) {
        if let Ok(mut entries) = self.entries.lock() {
            if entries.len() >= MOST_ENTRIES {
                entries.clear();
            }
            entries.insert(key, (epoch, Instant::now(), entry));
        }
    }
}

fn read<T: DeserializeOwned>(mut answer: Value, names: &[&str]) -> Listing<T> {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let list = names
        .iter()
        .find_map(|name| answer.get_mut(*name).map(Value::take))
        .unwrap_or_default();
    let mut hasher = DefaultHasher::new();
    list.to_string().hash(&mut hasher);
    let items = match list {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    let items = items
        .into_iter()
        .filter_map(|item| {
            let name = item["name"].as_str().unwrap_or_default().to_owned();
            serde_json::from_value(item)
                .inspect_err(|e| {
                    tracing::error!(name, error = %e, "the registry holds an entry MCP cannot carry");
                })
                .ok()
        })
        .collect();
    Listing {
        items,
        fingerprint: hasher.finish(),
    }
}
