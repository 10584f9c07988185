use super::*;
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{encode, EncodingKey};
use serde_json::json;

const ISSUER: &str = "https://id.example.org/realms/farm";
const AUDIENCE: &str = "https://farm.example.org/mcp";

/// An Ed25519 key in PKCS#8, out of one repeated byte.
fn key(seed: u8) -> EncodingKey {
    let mut der = vec![
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04,
        0x20,
    ];
    der.extend([seed; 32]);
    EncodingKey::from_ed_der(&der)
}

fn keys(seeds: &[(&str, u8)]) -> Value {
    let keys = seeds.iter().map(|(kid, seed)| {
        let mut jwk = Jwk::from_encoding_key(&key(*seed), Algorithm::EdDSA).unwrap();
        jwk.common.key_id = Some((*kid).to_owned());
        jwk
    });
    json!(JwkSet {
        keys: keys.collect()
    })
}

fn rules() -> Rules<'static> {
    Rules {
        issuer: ISSUER,
        audiences: vec![AUDIENCE],
        algorithms: vec!["EdDSA", "RS256"],
    }
}

fn claims(change: Value) -> Value {
    let now = jsonwebtoken::get_current_timestamp();
    let mut claims = json!({"iss": ISSUER, "aud": [AUDIENCE, "x"], "exp": now + 600, "sub": "ada", "scope": "agent:read"});
    for (name, value) in change.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    claims
}

fn token(kid: Option<&str>, seed: u8, claims: &Value) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = kid.map(str::to_owned);
    encode(&header, claims, &key(seed)).unwrap()
}

fn refused(token: &str) -> Refused {
    verified(token, &keys(&[("a", 1)]), &rules()).unwrap_err()
}

#[test]
fn a_good_token_gives_its_claims() {
    let token = token(Some("a"), 1, &claims(json!({})));
    assert_eq!(claimed_issuer(&token).as_deref(), Some(ISSUER));
    let claims = verified(&token, &keys(&[("b", 2), ("a", 1)]), &rules()).unwrap();
    assert_eq!(claims["sub"], "ada");
}

#[test]
fn an_unknown_key_is_told_from_a_wrong_signature() {
    let good = claims(json!({}));
    assert_eq!(refused(&token(Some("b"), 2, &good)), Refused::UnknownKey);
    assert_eq!(
        refused(&token(Some("a"), 2, &good)),
        Refused::Bad("the token's signature is wrong")
    );
}

#[test]
fn a_token_that_names_no_key_needs_a_set_of_one() {
    let token = token(None, 1, &claims(json!({})));
    assert!(verified(&token, &keys(&[("a", 1)]), &rules()).is_ok());
    let two = keys(&[("a", 1), ("b", 2)]);
    assert_eq!(
        verified(&token, &two, &rules()).unwrap_err(),
        Refused::UnknownKey
    );
}

#[test]
fn what_the_claims_say_is_checked() {
    for (change, why) in [
        (json!({"exp": 1_000}), "the token has expired"),
        (json!({"exp": "never"}), "the token lacks exp, iss or aud"),
        (json!({"exp": null}), "the token lacks exp, iss or aud"),
        (
            json!({"nbf": 99_999_999_999_u64}),
            "the token is not valid yet",
        ),
        (
            json!({"aud": "another"}),
            "the token is for another audience",
        ),
        (json!({"aud": null}), "the token lacks exp, iss or aud"),
        (
            json!({"iss": "https://evil.example.org"}),
            "the token is of another issuer",
        ),
        (
            json!({"iss": [ISSUER, "x"]}),
            "the token is of another issuer",
        ),
    ] {
        let bad = token(Some("a"), 1, &claims(change.clone()));
        assert_eq!(refused(&bad), Refused::Bad(why), "{change}");
    }
}

#[test]
fn no_token_can_choose_a_weaker_algorithm() {
    // Signed with the public key as if it were a shared secret.
    let set = keys(&[("a", 1)]);
    let public = set["keys"][0]["x"].as_str().unwrap();
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("a".into());
    let secret = EncodingKey::from_secret(public.as_bytes());
    let forged = encode(&header, &claims(json!({})), &secret).unwrap();
    let wrong = Refused::Bad("the token's algorithm is not one of this issuer's");
    assert_eq!(refused(&forged), wrong);
    let mut rules = rules();
    rules.algorithms = vec!["HS256"];
    assert_eq!(verified(&forged, &set, &rules).unwrap_err(), wrong);
    // {"alg":"none"}
    let unsigned = format!("eyJhbGciOiJub25lIn0.{}.", forged.split('.').nth(1).unwrap());
    assert_eq!(refused(&unsigned), Refused::Bad("the token cannot be read"));
    assert_eq!(refused("a.b.c"), Refused::Bad("the token cannot be read"));
    assert!(claimed_issuer("a.b.c").is_none());
}

/// RFC 7515, A.2 and A.3: signed by others, with claims that lack an audience.
#[test]
fn rsa_and_ecdsa_signatures_of_others() {
    const CLAIMS: &str = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let rsa = json!({"keys": [{"kty": "RSA", "e": "AQAB",
        "n": "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"}]});
    let rs256 = format!("eyJhbGciOiJSUzI1NiJ9.{CLAIMS}.cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw");
    let ec = json!({"keys": [{"kty": "EC", "crv": "P-256",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]});
    let es256 = format!("eyJhbGciOiJFUzI1NiJ9.{CLAIMS}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q");
    let mut rules = rules();
    rules.algorithms = vec!["RS256", "ES256"];
    for (token, keys, other) in [(&rs256, &rsa, &ec), (&es256, &ec, &rsa)] {
        let good = Refused::Bad("the token lacks exp, iss or aud");
        assert_eq!(verified(token, keys, &rules).unwrap_err(), good);
        let bent = token.replacen("eyJpc3MiOiJqb2UiLA0KICJl", "eyJpc3MiOiJqb2UiLA0KICJm", 1);
        let bad = Refused::Bad("the token's signature is wrong");
        assert_eq!(verified(&bent, keys, &rules).unwrap_err(), bad);
        assert_eq!(
            verified(token, other, &rules).unwrap_err(),
            Refused::UnknownKey
        );
    }
}
