//! TLS towards Bambu Lab printers. Their certificates name the serial number and no host, so the usual check cannot work: the
//! certificate must be the one of this serial, and stay the one that was seen first.

use std::sync::{Arc, Mutex};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    ring, verify_tls12_signature, verify_tls13_signature, WebPkiSupportedAlgorithms,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use sha2::{Digest, Sha256};
use x509_cert::der::asn1::{PrintableStringRef, Utf8StringRef};
use x509_cert::der::Decode;

use crate::hex::hex;
use crate::printers::driver::Fault;

/// id-at-commonName.
const COMMON_NAME: &str = "2.5.4.3";
const OTHER_SERIAL: &str = "the certificate there belongs to";
const CHANGED: &str = "the certificate is another one than before";

/// Whose certificate is expected; what was seen stays for as long as the printer is kept.
#[derive(Debug)]
pub struct Identity {
    serial: String,
    known: Mutex<Option<String>>,
}

impl Identity {
    pub fn new(serial: &str, known: Option<&str>) -> Arc<Identity> {
        Arc::new(Identity {
            serial: serial.to_owned(),
            known: Mutex::new(known.map(str::to_owned)),
        })
    }

    /// SHA-256 of the certificate, once one was accepted.
    pub fn certificate(&self) -> Option<String> {
        self.known.lock().ok()?.clone()
    }

    fn check(&self, certificate: &[u8]) -> Result<(), String> {
        let name = common_name(certificate).unwrap_or_else(|| "nobody".to_owned());
        if name != self.serial {
            return Err(format!("{OTHER_SERIAL} {name}, not to {}", self.serial));
        }
        let hash = hex(&Sha256::digest(certificate));
        let mut known = self.known.lock().map_err(|_| "poisoned".to_owned())?;
        match known.as_ref() {
            Some(before) if *before != hash => Err(CHANGED.to_owned()),
            _ => {
                *known = Some(hash);
                Ok(())
            }
        }
    }

    /// One configuration per server: TLS sessions that are shared between two servers make strict ones refuse the data connection.
    pub fn config(self: &Arc<Self>) -> Result<ClientConfig, Fault> {
        let provider = Arc::new(ring::default_provider());
        let verifier = Arc::new(BySerial {
            identity: self.clone(),
            algorithms: provider.signature_verification_algorithms,
        });
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Fault::odd(format!("TLS cannot be set up: {e}")))?;
        Ok(builder
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth())
    }
}

/// What a failed TLS handshake means, in words an operator can act on.
pub fn tls_fault(chain: &str) -> Option<Fault> {
    if let Some(at) = chain.find(OTHER_SERIAL) {
        let said = chain[at..]
            .split([';', '"', ')'])
            .next()
            .unwrap_or_default();
        return Some(Fault::auth(format!(
            "{said}: is the address or the serial of another printer?"
        )));
    }
    if chain.contains(CHANGED) {
        return Some(Fault::auth(format!(
            "{CHANGED}: somebody else answers there, or its mainboard was replaced. If it was, set its credentials again"
        )));
    }
    let lower = chain.to_lowercase();
    ["tls", "certificate", "handshake", "corrupt message"]
        .iter()
        .any(|word| lower.contains(word))
        .then(|| {
            Fault::unreachable("TLS fails: the port does not speak TLS as a Bambu Lab printer does")
        })
}

fn common_name(certificate: &[u8]) -> Option<String> {
    let certificate = x509_cert::Certificate::from_der(certificate).ok()?;
    let names = certificate.tbs_certificate.subject.0;
    let name = names
        .iter()
        .flat_map(|set| set.0.iter())
        .find(|part| part.oid.to_string() == COMMON_NAME)?;
    let text = Utf8StringRef::try_from(&name.value)
        .map(|s| s.as_str().to_owned())
        .or_else(|_| PrintableStringRef::try_from(&name.value).map(|s| s.as_str().to_owned()));
    text.ok()
}

#[derive(Debug)]
struct BySerial {
    identity: Arc<Identity>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for BySerial {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match self.identity.check(certificate) {
            Ok(()) => Ok(ServerCertVerified::assertion()),
            Err(why) => Err(Error::General(why)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
