//! Credentials of printers, keys of object stores and tokens of model sites: sealed here before they reach the database, opened here to be used.
//! The key stays with the sidecars.

use std::fmt::Display;

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use base64::Engine;
use ring::aead::{Aad, LessSafeKey, Nonce, UnboundKey, CHACHA20_POLY1305};
use ring::hmac;
use serde_json::Value;

const MARK: &str = "sealed:v1:";
const NONCE: usize = 12;

/// Arguments that are sealed on their way into the database, whatever face they come through.
struct Sealed {
    tool: &'static str,
    /// The argument that says what the secret is for; it can be opened for nothing else.
    bound_to: &'static str,
    arguments: &'static [&'static str],
}

const SEALED: [Sealed; 4] = [
    Sealed {
        tool: "set_object_store",
        bound_to: "endpoint",
        arguments: &["access_key", "secret_key"],
    },
    Sealed {
        tool: "set_remote_secret",
        bound_to: "url",
        arguments: &["header", "value"],
    },
    Sealed {
        tool: "set_printer_credentials",
        bound_to: "printer_id",
        arguments: &["api_key", "username", "password", "access_code"],
    },
    Sealed {
        tool: "set_source_token",
        bound_to: "source",
        arguments: &["token"],
    },
];

#[derive(Clone)]
pub struct Keyring {
    seal: LessSafeKey,
    nonce: hmac::Key,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyring(…)")
    }
}

impl std::str::FromStr for Keyring {
    type Err = String;

    /// 32 bytes as 64 hex digits.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let bytes: Vec<u8> = (0..text.len() / 2)
            .filter_map(|i| u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok())
            .collect();
        if text.len() != 64 || bytes.len() != 32 {
            return Err(
                "the secret key must be 64 hex digits, for example from: openssl rand -hex 32"
                    .to_owned(),
            );
        }
        let derive =
            |purpose: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &bytes), purpose);
        let seal = UnboundKey::new(
            &CHACHA20_POLY1305,
            derive(b"odin printer credentials").as_ref(),
        )
        .map_err(|_| "the secret key cannot be used".to_owned())?;
        Ok(Keyring {
            seal: LessSafeKey::new(seal),
            nonce: hmac::Key::new(hmac::HMAC_SHA256, derive(b"odin nonces").as_ref()),
        })
    }
}

impl Keyring {
    /// Bound to its printer or site, so that it cannot be moved to another row. The nonce comes from what is sealed: the same
    /// call twice is the same text, and idempotency keys keep working.
    pub fn seal(&self, bound_to: impl Display, plain: &str) -> Result<String, String> {
        let aad = bound_to.to_string();
        let mut context = hmac::Context::with_key(&self.nonce);
        context.update(aad.as_bytes());
        context.update(b"\n");
        context.update(plain.as_bytes());
        let mut nonce = [0u8; NONCE];
        nonce.copy_from_slice(&context.sign().as_ref()[..NONCE]);
        let mut text = plain.as_bytes().to_vec();
        self.seal
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(aad.as_bytes()),
                &mut text,
            )
            .map_err(|_| "cannot seal".to_owned())?;
        let mut out = nonce.to_vec();
        out.extend_from_slice(&text);
        Ok(format!("{MARK}{}", URL_SAFE_NO_PAD.encode(out)))
    }

    pub fn open(&self, bound_to: impl Display, sealed: &str) -> Option<String> {
        let bytes = URL_SAFE_NO_PAD.decode(sealed.strip_prefix(MARK)?).ok()?;
        let (nonce, rest) = bytes.split_at_checked(NONCE)?;
        let mut rest = rest.to_vec();
        let aad = bound_to.to_string();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let plain = self
            .seal
            .open_in_place(nonce, Aad::from(aad.as_bytes()), &mut rest)
            .ok()?;
        String::from_utf8(plain.to_vec()).ok()
    }
}

/// The credentials of a call become one sealed argument before the call leaves for the database.
pub fn seal_arguments(
    keyring: Option<&Keyring>,
    tool: &str,
    arguments: &Value,
) -> Result<Option<Value>, Value> {
    let (tool, inner) = match tool {
        "call_tool" => (
            arguments["name"].as_str().unwrap_or_default(),
            &arguments["arguments"],
        ),
        tool => (tool, arguments),
    };
    let (Some(kind), Some(object)) = (SEALED.iter().find(|s| s.tool == tool), inner.as_object())
    else {
        return Ok(None);
    };
    let mut rest = object.clone();
    let mut secret = serde_json::Map::new();
    for name in kind.arguments {
        if let Some(value) = rest.remove(*name) {
            secret.insert((*name).to_owned(), value);
        }
    }
    let refuse = |detail: &str, hint: &str| serde_json::json!({"code": "validation_failed", "detail": detail, "status": 422, "retriable": false, "hint": hint});
    if secret.is_empty() {
        return Ok(None);
    }
    let Some(keyring) = keyring else {
        return Err(refuse(
            "this sidecar has no secret key, so it cannot keep credentials",
            "The operator sets ODIN_SECRET_KEY (64 hex digits) or ODIN_SECRET_KEY_FILE, the same for every sidecar.",
        ));
    };
    let bound_to = match rest.get(kind.bound_to) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => {
            return Err(refuse(
                &format!("{}: is required", kind.bound_to),
                "Say what the credentials are for.",
            ))
        }
    };
    let sealed = keyring
        .seal(bound_to, &Value::Object(secret).to_string())
        .map_err(|e| refuse(&e, ""))?;
    rest.insert("sealed".into(), sealed.into());
    let rest = Value::Object(rest);
    Ok(Some(
        match arguments
            .get("name")
            .filter(|_| arguments.get("arguments").is_some())
        {
            Some(name) => serde_json::json!({"name": name, "arguments": rest}),
            None => rest,
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn keyring() -> Keyring {
        "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"
            .parse()
            .unwrap()
    }

    #[test]
    fn sealed_for_one_printer_only() {
        let sealed = keyring().seal(7, "s3cret").unwrap();
        assert!(!sealed.contains("s3cret"));
        assert_eq!(sealed, keyring().seal(7, "s3cret").unwrap());
        assert_eq!(keyring().open(7, &sealed).as_deref(), Some("s3cret"));
        assert_eq!(keyring().open(8, &sealed), None);
        let other: Keyring = "ff".repeat(32).parse().unwrap();
        assert_eq!(other.open(7, &sealed), None);
        assert!("ff".repeat(31).parse::<Keyring>().is_err());
        assert!("zz".repeat(32).parse::<Keyring>().is_err());
    }

    #[test]
    fn credentials_never_leave_in_clear() {
        let arguments = json!({"printer_id": 7, "api_key": "s3cret", "idempotency_key": "k"});
        let sent = seal_arguments(Some(&keyring()), "set_printer_credentials", &arguments)
            .unwrap()
            .unwrap();
        assert!(!sent.to_string().contains("s3cret"));
        assert_eq!(sent["idempotency_key"], "k");
        let wrapped = json!({"name": "set_printer_credentials", "arguments": arguments});
        let sent = seal_arguments(Some(&keyring()), "call_tool", &wrapped)
            .unwrap()
            .unwrap();
        assert!(!sent.to_string().contains("s3cret"));
        assert!(sent["arguments"]["sealed"].is_string());
        assert!(seal_arguments(None, "set_printer_credentials", &arguments).is_err());
        assert_eq!(seal_arguments(None, "queue_job", &arguments).unwrap(), None);
    }
}
