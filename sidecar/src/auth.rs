//! Who is calling: the presented key becomes a credential (its SHA-256), the database says whose it is.
//! The key itself goes no further than this file.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::HeaderMap;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::db::DbError;
use crate::gateway::Gateway;
use crate::hex::hex;

/// Lowercase hex SHA-256 of a key. It opens the farm, so it is never logged either.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Credential(Arc<str>);

impl Credential {
    pub fn of_key(key: &str) -> Self {
        Credential(hex(&Sha256::digest(key.as_bytes())).into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// A key's owner, as the database knows him.
#[derive(Debug)]
pub struct Principal {
    pub credential: Credential,
    pub role: String,
    pub key_id: i64,
    pub key_name: String,
    pub rate_per_minute: Option<u32>,
    pub concurrency: Option<u32>,
}

impl Principal {
    /// Whose key it is shows at the first call.
    pub fn not_asked_yet(credential: Credential) -> Self {
        Principal::read(credential, &Value::Null)
    }

    fn read(credential: Credential, answer: &Value) -> Self {
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let limit = |name: &str| {
            answer["limits"][name]
                .as_u64()
                .and_then(|n| u32::try_from(n).ok())
        };
        Principal {
            role: text("role"),
            key_id: answer["key_id"].as_i64().unwrap_or_default(),
            key_name: text("key_name"),
            rate_per_minute: limit("rate_per_minute"),
            concurrency: limit("concurrency"),
            credential,
        }
    }
}

/// Why nobody was let in.
#[derive(Debug)]
pub enum Refusal {
    /// No key at all.
    Missing,
    /// A key the farm does not accept; the farm's error object.
    Unknown(Value),
    /// Too many bad keys from this address.
    Slow { retry_after: u64 },
    /// The farm cannot be asked.
    Unavailable(Value),
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Refusal::Missing => f.write_str("no key was given"),
            Refusal::Unknown(error) | Refusal::Unavailable(error) => {
                f.write_str(error["detail"].as_str().unwrap_or("the key was refused"))
            }
            Refusal::Slow { .. } => f.write_str("too many wrong keys"),
        }
    }
}

/// The key in the request, if any. Two different keys at once are one too many.
pub fn presented(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let two_keys = || {
        Refusal::Unknown(serde_json::json!({
            "code": "not_authenticated", "retriable": false, "status": 401,
            "detail": "Authorization and X-API-Key carry different keys.",
        }))
    };
    let bearer = match headers.get(AUTHORIZATION) {
        None => None,
        Some(value) => value.to_str().ok().and_then(|value| {
            let (scheme, key) = value.trim().split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
        }),
    };
    let plain = headers
        .get("x-api-key")
        .and_then(|value| value.to_str().ok())
        .map(str::trim);
    let key = match (bearer, plain) {
        (Some(a), Some(b)) if a != b => return Err(two_keys()),
        (a, b) => a.or(b),
    };
    Ok(key.filter(|key| !key.is_empty()))
}

/// How long an answer of the database about a key is good for. Every call is checked again in the database,
/// so this only saves a round trip; it can let nobody do anything.
const FRESH: Duration = Duration::from_secs(10);
/// A key that was good lately is not slowed down by its neighbours' bad ones.
const KNOWN: Duration = Duration::from_secs(3600);
const CACHE_SIZE: usize = 10_000;

pub struct Authenticator {
    gateway: Arc<Gateway>,
    seen: Mutex<HashMap<Credential, (Instant, Arc<Principal>)>>,
    failures: Mutex<HashMap<IpAddr, Failures>>,
}

/// How long a token may wait for its issuer's keys to be fetched.
const KEYS_LIMIT: Duration = Duration::from_secs(15);
const KEYS_POLL: Duration = Duration::from_millis(100);
/// Longer ones are no tokens of anybody.
const LONGEST_TOKEN: usize = 16 * 1024;

/// Does this look like a signed token rather than a key of the farm?
fn is_token(key: &str) -> bool {
    key.starts_with("eyJ") && key.len() <= LONGEST_TOKEN && key.matches('.').count() == 2
}

struct Failures {
    since: Instant,
    count: u32,
}

/// Failures are counted per address over this window.
const WINDOW: Duration = Duration::from_secs(60);
/// This many are answered at once; then every further one waits longer, and beyond the limit none is looked at.
const FREE_FAILURES: u32 = 3;
const MOST_FAILURES: u32 = 20;

impl Authenticator {
    pub fn new(gateway: Arc<Gateway>) -> Self {
        Authenticator {
            gateway,
            seen: Mutex::default(),
            failures: Mutex::default(),
        }
    }

    pub async fn authenticate(
        &self,
        key: Option<&str>,
        ip: Option<IpAddr>,
    ) -> Result<Arc<Principal>, Refusal> {
        let key = key.ok_or(Refusal::Missing)?;
        let credential = Credential::of_key(key);
        let known = self.seen(&credential);
        if let Some((at, principal)) = &known {
            if at.elapsed() < FRESH {
                return Ok(principal.clone());
            }
        }
        if known.is_none() {
            self.slow_down(ip).await?;
        }
        let asked = match is_token(key) {
            false => self.gateway.authenticate(&credential, ip).await,
            true => self.token(key, &credential, known.is_some(), ip).await,
        };
        let answer = asked.map_err(|e| {
            tracing::warn!(error = %e, "cannot check a key");
            Refusal::Unavailable(e.to_json())
        })?;
        if answer["ok"] == Value::Bool(true) {
            let principal = Arc::new(Principal::read(credential.clone(), &answer));
            self.remember(credential, principal.clone());
            return Ok(principal);
        }
        self.forget(&credential);
        let error = answer["error"].clone();
        // Tables of another version, an issuer that does not answer, and the like, are not the caller's fault.
        if error["status"].as_u64().is_some_and(|status| status >= 500) {
            return Err(Refusal::Unavailable(error));
        }
        self.failed(ip);
        Err(Refusal::Unknown(error))
    }

    /// Whose token this is: verified in the database at first, known by its hash from then on.
    async fn token(
        &self,
        token: &str,
        credential: &Credential,
        known: bool,
        ip: Option<IpAddr>,
    ) -> Result<Value, DbError> {
        if known {
            let answer = self.gateway.authenticate(credential, ip).await?;
            if answer["ok"] == Value::Bool(true) {
                return Ok(answer);
            }
        }
        let until = Instant::now() + KEYS_LIMIT;
        loop {
            let answer = self.gateway.sign_in(token, ip).await?;
            if answer["wait"] != Value::Bool(true) || Instant::now() > until {
                return Ok(answer);
            }
            tokio::time::sleep(KEYS_POLL).await;
        }
    }

    /// The database refused this key in a call: ask again next time.
    pub fn forget(&self, credential: &Credential) {
        if let Ok(mut seen) = self.seen.lock() {
            seen.remove(credential);
        }
    }

    /// Keys may have changed.
    pub fn forget_all(&self) {
        if let Ok(mut seen) = self.seen.lock() {
            for (at, _) in seen.values_mut() {
                *at = at.checked_sub(FRESH).unwrap_or(*at);
            }
        }
    }

    fn seen(&self, credential: &Credential) -> Option<(Instant, Arc<Principal>)> {
        let seen = self.seen.lock().ok()?;
        seen.get(credential)
            .filter(|(at, _)| at.elapsed() < KNOWN)
            .cloned()
    }

    fn remember(&self, credential: Credential, principal: Arc<Principal>) {
        if let Ok(mut seen) = self.seen.lock() {
            if seen.len() >= CACHE_SIZE {
                seen.retain(|_, (at, _)| at.elapsed() < FRESH);
            }
            if seen.len() < CACHE_SIZE {
                seen.insert(credential, (Instant::now(), principal));
            }
        }
    }

    /// Guessing gets slower with every miss from one address.
    pub async fn slow_down(&self, ip: Option<IpAddr>) -> Result<(), Refusal> {
        let Some(ip) = ip else { return Ok(()) };
        let (count, left) = match self.failures.lock() {
            Ok(failures) => match failures.get(&ip) {
                Some(f) if f.since.elapsed() < WINDOW => (f.count, WINDOW - f.since.elapsed()),
                _ => return Ok(()),
            },
            Err(_) => return Ok(()),
        };
        if count >= MOST_FAILURES {
            return Err(Refusal::Slow {
                retry_after: left.as_secs() + 1,
            });
        }
        if count > FREE_FAILURES {
            let wait = Duration::from_millis(100 << (count - FREE_FAILURES).min(5));
            tokio::time::sleep(wait).await;
        }
        Ok(())
    }

    pub fn failed(&self, ip: Option<IpAddr>) {
        let Some(ip) = ip else { return };
        let Ok(mut failures) = self.failures.lock() else {
            return;
        };
        if failures.len() >= CACHE_SIZE {
            failures.retain(|_, f| f.since.elapsed() < WINDOW);
        }
        let entry = failures.entry(ip).or_insert(Failures {
            since: Instant::now(),
            count: 0,
        });
        if entry.since.elapsed() >= WINDOW {
            entry.since = Instant::now();
            entry.count = 0;
        }
        entry.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_is_the_sha256_and_hides_itself() {
        let credential = Credential::of_key("abc");
        assert_eq!(
            credential.as_str(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert!(!format!("{credential:?}").contains("ba78"));
    }

    #[test]
    fn keys_are_found_in_both_headers() {
        let mut headers = HeaderMap::new();
        assert!(matches!(presented(&headers), Ok(None)));
        headers.insert("x-api-key", "k1".parse().unwrap());
        assert!(matches!(presented(&headers), Ok(Some("k1"))));
        headers.insert(AUTHORIZATION, "bearer  k1 ".parse().unwrap());
        assert!(matches!(presented(&headers), Ok(Some("k1"))));
        headers.insert(AUTHORIZATION, "Bearer k2".parse().unwrap());
        assert!(presented(&headers).is_err());
        headers.remove("x-api-key");
        headers.insert(AUTHORIZATION, "Basic abc".parse().unwrap());
        assert!(matches!(presented(&headers), Ok(None)));
    }
}
