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
use sha2::{Digest, Sha256};

/// SHA-256 over each field as its length, a colon and its text, a missing one as a dash: no two lists of fields give the same bytes.
pub fn hash_of<'a>(fields: impl Iterator<Item = Option<&'a str>>) -> Vec<u8> {
    let mut hash = Sha256::new();
    for field in fields {
        match field {
            Some(text) => {
                hash.update(format!("{}:", text.len()));
                hash.update(text);
            }
            None => hash.update("-"),
        }
    }
    hash.finalize().to_vec()
}

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

/// What the key table holds of a credential (64 hexadecimal digits, lower case): the SHA-256 of its bytes. None for anything else.
pub fn key_hash(credential: &str) -> Option<Vec<u8>> {
    let digits = credential.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let digit = |c: u8| (!c.is_ascii_uppercase()).then(|| char::from(c).to_digit(16))?;
    let mut bytes = [0u8; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    Some(Sha256::digest(bytes).to_vec())
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_sixty_four_digits_are_a_credential() {
        let zeros = "0".repeat(64);
        let hash = super::key_hash(&zeros).unwrap();
        assert_eq!(hash[..4], [0x66, 0x68, 0x7a, 0xad]);
        for wrong in [
            "",
            "0",
            &zeros[1..],
            &"g".repeat(64),
            &"A".repeat(64),
            &"é".repeat(32),
        ] {
            assert_eq!(super::key_hash(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn hmac_matches_rfc_4231_case_2() {
        let tag = super::hmac_sha256(b"Jefe", b"what do ya want for nothing?");
        let hex: String = tag.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(
            hex,
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn lists_of_fields_are_told_apart() {
        let hash = |fields: &[Option<&str>]| super::hash_of(fields.iter().copied());
        let lists: [&[Option<&str>]; 6] = [
            &[],
            &[None],
            &[Some("")],
            &[Some("a"), Some("b")],
            &[Some("ab")],
            &[Some("1:a"), Some("b")],
        ];
        for (i, one) in lists.iter().enumerate() {
            for other in &lists[i + 1..] {
                assert_ne!(hash(one), hash(other), "{one:?} {other:?}");
            }
        }
        assert_eq!(
            super::key_hash(&"00".repeat(32)).map(|h| h.len()),
            Some(hash(&[]).len())
        );
    }
}
