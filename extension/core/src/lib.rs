//! Pure logic of the leaves: what a call's arguments become before anything runs, and text that must be
//! the same on every machine. Nothing here knows PostgreSQL.

mod arguments;
mod canonical;
pub mod domain;
mod nearest;
mod plan;
mod problems;
pub mod sign_in;

pub use arguments::{Prepared, Spec, SpecError};
pub use canonical::canonical;
pub use nearest::nearest;
pub use plan::plan;

use hmac::{Hmac, Mac};
use sha2::Sha256;

/// HMAC-SHA256; the seal of preview tokens and request states.
pub fn hmac_sha256(secret: &[u8], message: &[u8]) -> Vec<u8> {
    // HMAC takes a key of any length, so this cannot fail; an empty tag would never verify.
    match Hmac::<Sha256>::new_from_slice(secret) {
        Ok(mut mac) => {
            mac.update(message);
            mac.finalize().into_bytes().to_vec()
        }
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn hmac_matches_rfc_4231_case_2() {
        let tag = super::hmac_sha256(b"Jefe", b"what do ya want for nothing?");
        let hex: String = tag.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
