//! Randomness, seals and other people's signatures.

use odin_core::sign_in::{self, Refused, Rules};
use pgrx::pg_sys;
use pgrx::prelude::*;
use pgrx::{Array, JsonB};
use serde_json::json;

/// Random bytes from the server's own strong source, as lowercase hex.
#[pg_extern]
fn random_hex(bytes: i32) -> String {
    let mut buffer = vec![0u8; bytes.clamp(16, 1024) as usize];
    // SAFETY: the buffer is ours and as long as we say.
    let ok = unsafe { pg_sys::pg_strong_random(buffer.as_mut_ptr().cast(), buffer.len()) };
    if !ok {
        ereport!(
            ERROR,
            PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            "the system gives no randomness"
        );
    }
    buffer.iter().map(|b| format!("{b:02x}")).collect()
}

#[pg_extern(immutable, parallel_safe)]
fn hmac(secret: &[u8], message: &[u8]) -> Vec<u8> {
    odin_core::hmac_sha256(secret, message)
}

/// One hash of several texts, the same only for the same texts: what seals cover and what calls are told apart by. In Rust because the trail has
/// millions of rows.
#[pg_extern(immutable, parallel_safe)]
fn hash(fields: Array<'_, &str>) -> Vec<u8> {
    odin_core::hash_of(fields.iter())
}

/// The key table's hash of a credential, NULL when it cannot be one; in Rust because every call needs it.
#[pg_extern(immutable, parallel_safe)]
fn key_hash(credential: &str) -> Option<Vec<u8>> {
    odin_core::key_hash(credential)
}

/// The issuer that a token names. Unverified.
#[pg_extern(immutable, parallel_safe)]
fn token_issuer(token: &str) -> Option<String> {
    sign_in::claimed_issuer(token)
}

/// {"claims": {...}} of a token that one of these keys signed, {"unknown_key": true}, or {"refused": why}.
#[pg_extern]
fn token_claims(
    token: &str,
    keys: JsonB,
    issuer: &str,
    audiences: Vec<String>,
    algorithms: Vec<String>,
) -> JsonB {
    let rules = Rules {
        issuer,
        audiences: audiences.iter().map(String::as_str).collect(),
        algorithms: algorithms.iter().map(String::as_str).collect(),
    };
    JsonB(match sign_in::verified(token, &keys.0, &rules) {
        Ok(claims) => json!({ "claims": claims }),
        Err(Refused::UnknownKey) => json!({"unknown_key": true}),
        Err(Refused::Bad(why)) => json!({ "refused": why }),
    })
}

/// Which cluster and database a row was written in: after a restore elsewhere transaction ids start
/// anew, and the audit's seals must tell the two apart.
#[pg_extern(stable)]
pub fn origin() -> i64 {
    // SAFETY: both are set before any SQL runs and never change in a backend.
    unsafe {
        (pg_sys::GetSystemIdentifier() ^ (u64::from(pg_sys::MyDatabaseId.to_u32()) << 32)) as i64
    }
}

/// The version of the code; every call compares it with the version of the tables.
#[pg_extern(immutable, parallel_safe)]
pub fn code_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
