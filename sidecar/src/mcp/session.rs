//! Session ids of the older revisions, minted without keeping anything: the id carries what `initialize` said, so any
//! sidecar can read it back. It grants nothing (the key is checked on every request), so it needs no signature.

use base64::prelude::{Engine, BASE64_URL_SAFE_NO_PAD};
use rmcp::model::{ClientCapabilities, Implementation, InitializeRequestParams, ProtocolVersion};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

const PREFIX: &str = "odin1.";
/// Longer ones are not ours, and proxies refuse them anyway.
const LONGEST: usize = 4096;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Session {
    /// Tells two clients with the same key apart.
    #[serde(rename = "n")]
    pub nonce: String,
    #[serde(rename = "v")]
    version: ProtocolVersion,
    /// What the client can do for us.
    #[serde(rename = "c")]
    capabilities: Map<String, Value>,
    #[serde(rename = "i")]
    client: (String, String),
}

impl Session {
    pub fn mint(params: &InitializeRequestParams, agreed: &ProtocolVersion) -> Session {
        let mut capabilities = Map::new();
        if let Ok(Value::Object(declared)) = serde_json::to_value(&params.capabilities) {
            for name in ["elicitation", "sampling", "roots"] {
                if let Some(value) = declared.get(name) {
                    capabilities.insert(name.to_owned(), value.clone());
                }
            }
        }
        let short = |text: &str| text.chars().take(80).collect::<String>();
        Session {
            nonce: crate::random_id(),
            version: agreed.clone(),
            capabilities,
            client: (
                short(&params.client_info.name),
                short(&params.client_info.version),
            ),
        }
    }

    pub fn id(&self) -> String {
        // A plain struct of strings always serialises.
        let json = serde_json::to_vec(self).unwrap_or_default();
        format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(json))
    }

    /// A foreign or garbled id is no session, and no reason to refuse: some clients never start again.
    pub fn read(id: &str) -> Option<Session> {
        if id.len() > LONGEST {
            return None;
        }
        let json = BASE64_URL_SAFE_NO_PAD
            .decode(id.strip_prefix(PREFIX)?)
            .ok()?;
        serde_json::from_slice(&json).ok()
    }

    /// What rmcp would remember of this client's `initialize`.
    pub fn peer(&self, version: Option<ProtocolVersion>) -> InitializeRequestParams {
        let capabilities: ClientCapabilities =
            serde_json::from_value(Value::Object(self.capabilities.clone())).unwrap_or_default();
        let (name, version_text) = self.client.clone();
        InitializeRequestParams::new(capabilities, Implementation::new(name, version_text))
            .with_protocol_version(version.unwrap_or_else(|| self.version.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_survives_its_own_id() {
        let params: InitializeRequestParams = serde_json::from_value(serde_json::json!({
            "protocolVersion": "2025-11-25",
            "capabilities": {"elicitation": {}, "experimental": {"big": {}}},
            "clientInfo": {"name": "c", "version": "1"},
        }))
        .unwrap();
        let session = Session::mint(&params, &ProtocolVersion::V_2025_06_18);
        let back = Session::read(&session.id()).unwrap();
        assert_eq!(back.nonce, session.nonce);
        let peer = back.peer(None);
        assert!(peer.capabilities.elicitation.is_some());
        assert_eq!(peer.protocol_version, ProtocolVersion::V_2025_06_18);
        assert_eq!(peer.client_info.name, "c");
        assert!(Session::read("something-else").is_none());
    }
}
