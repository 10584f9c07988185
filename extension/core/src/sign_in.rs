//! Tokens of an OIDC issuer: whose they claim to be, and whether that is true. Asymmetric signatures only.

use std::str::FromStr;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{dangerous, Algorithm, DecodingKey, Header, Validation};
use serde_json::{Map, Value};

/// Clocks may differ by this much, in seconds.
const LEEWAY: u64 = 60;

/// What an issuer's tokens must be like.
pub struct Rules<'a> {
    pub issuer: &'a str,
    pub audiences: Vec<&'a str>,
    pub algorithms: Vec<&'a str>,
}

/// Why a token is not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum Refused {
    /// Signed with a key that is not in the set; a newer set may hold it.
    UnknownKey,
    Bad(&'static str),
}

/// The issuer a token names, unverified: only good for choosing whose keys to try.
pub fn claimed_issuer(token: &str) -> Option<String> {
    let claims: Map<String, Value> = dangerous::insecure_decode_claims(token).ok()?;
    claims.get("iss")?.as_str().map(str::to_owned)
}

/// The token's claims, if the issuer signed it for one of these audiences and it is in force.
pub fn verified(
    token: &str,
    keys: &Value,
    rules: &Rules<'_>,
) -> Result<Map<String, Value>, Refused> {
    let header = jsonwebtoken::decode_header(token).map_err(|e| why(&e))?;
    let allowed = rules
        .algorithms
        .iter()
        .filter_map(|name| Algorithm::from_str(name).ok())
        .any(|algorithm| algorithm == header.alg && !is_symmetric(algorithm));
    if !allowed {
        return Err(Refused::Bad(
            "the token's algorithm is not one of this issuer's",
        ));
    }
    let key = signing_key(keys, &header).ok_or(Refused::UnknownKey)?;
    let key = DecodingKey::from_jwk(&key).map_err(|e| why(&e))?;
    let mut validation = Validation::new(header.alg);
    validation.leeway = LEEWAY;
    validation.validate_nbf = true;
    validation.set_issuer(&[rules.issuer]);
    validation.set_audience(&rules.audiences);
    validation.set_required_spec_claims(&["exp", "iss", "aud"]);
    let claims = jsonwebtoken::decode::<Map<String, Value>>(token, &key, &validation)
        .map_err(|e| why(&e))?
        .claims;
    // The library also takes a list of issuers that holds the right one.
    match claims.get("iss").and_then(Value::as_str) {
        Some(issuer) if issuer == rules.issuer => Ok(claims),
        _ => Err(Refused::Bad("the token is of another issuer")),
    }
}

fn is_symmetric(algorithm: Algorithm) -> bool {
    matches!(
        algorithm,
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512
    )
}

/// The key named by the header; of a token that names none, the only key that could have signed it.
fn signing_key(keys: &Value, header: &Header) -> Option<Jwk> {
    let fits = |jwk: &Jwk| {
        jwk.common
            .public_key_use
            .as_ref()
            .is_none_or(|usage| *usage == PublicKeyUse::Signature)
            && DecodingKey::from_jwk(jwk).is_ok_and(|key| key.family() == header.alg.family())
    };
    // A key this library cannot read is some other program's business.
    let mut fitting = keys["keys"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|key| serde_json::from_value::<Jwk>(key.clone()).ok())
        .filter(fits);
    match &header.kid {
        Some(kid) => fitting.find(|jwk| jwk.common.key_id.as_ref() == Some(kid)),
        None => {
            let only = fitting.next();
            only.filter(|_| fitting.next().is_none())
        }
    }
}

fn why(error: &jsonwebtoken::errors::Error) -> Refused {
    Refused::Bad(match error.kind() {
        ErrorKind::InvalidSignature => "the token's signature is wrong",
        ErrorKind::ExpiredSignature => "the token has expired",
        ErrorKind::ImmatureSignature => "the token is not valid yet",
        ErrorKind::InvalidAudience => "the token is for another audience",
        ErrorKind::InvalidIssuer => "the token is of another issuer",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks exp, iss or aud",
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => {
            "the token's algorithm is not one of this issuer's"
        }
        _ => "the token cannot be read",
    })
}

#[cfg(test)]
#[path = "sign_in_tests.rs"]
mod tests;
