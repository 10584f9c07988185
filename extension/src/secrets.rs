//! Randomness and seals.

use pgrx::pg_sys;
use pgrx::prelude::*;

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

/// The key table's hash of a credential, NULL when it cannot be one; in Rust because every call needs it.
#[pg_extern(immutable, parallel_safe)]
fn key_hash(credential: &str) -> Option<Vec<u8>> {
    odin_core::key_hash(credential)
}

/// Which cluster and database a row was written in: after a restore elsewhere transaction ids start
/// anew, and the audit's seals must tell the two apart.
#[pg_extern(stable)]
fn origin() -> i64 {
    // SAFETY: both are set before any SQL runs and never change in a backend.
    unsafe {
        (pg_sys::GetSystemIdentifier() ^ (u64::from(pg_sys::MyDatabaseId.to_u32()) << 32)) as i64
    }
}

/// The version of the code; every call compares it with the version of the tables.
#[pg_extern(immutable, parallel_safe)]
fn code_version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}
