//! HTTP Digest logins: the server's challenge is kept, so that only the first request is sent twice.

use std::sync::Mutex;

use digest_auth::{AuthContext, HttpMethod, WwwAuthenticateHeader};
use http::Method;

pub struct Digest {
    user: String,
    password: String,
    challenge: Mutex<Option<WwwAuthenticateHeader>>,
}

impl Digest {
    pub fn new(user: &str, password: &str) -> Digest {
        Digest {
            user: user.to_owned(),
            password: password.to_owned(),
            challenge: Mutex::default(),
        }
    }

    /// True when this challenge is another one, so that trying again makes sense.
    pub fn learn(&self, challenge: &str) -> bool {
        let Ok(new) = digest_auth::parse(challenge) else {
            return false;
        };
        let Ok(mut known) = self.challenge.lock() else {
            return false;
        };
        let other = known.as_ref().is_none_or(|k| k.nonce != new.nonce);
        *known = Some(new);
        other
    }

    /// The Authorization header, once a challenge is known.
    pub fn answer(&self, method: &Method, path: &str) -> Option<String> {
        let mut challenge = self.challenge.lock().ok()?;
        let method = HttpMethod::from(method.as_str());
        let context = AuthContext::new_with_method(
            self.user.as_str(),
            self.password.as_str(),
            path,
            Option::<&[u8]>::None,
            method,
        );
        let answer = challenge.as_mut()?.respond(&context).ok()?;
        Some(answer.to_header_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_login_is_not_tried_for_ever() {
        let digest = Digest::new("maker", "s3cret");
        assert_eq!(digest.answer(&Method::GET, "/"), None);
        let challenge =
            r#"Digest realm="Administrator", nonce="abc", algorithm="MD5-sess", qop="auth""#;
        assert!(digest.learn(challenge));
        let said = digest.answer(&Method::PUT, "/api/v1/job").unwrap();
        assert!(
            said.contains("MD5-sess") && !said.contains("s3cret"),
            "{said}"
        );
        assert!(
            !digest.learn(challenge),
            "the same challenge again: the password is wrong"
        );
        assert!(!digest.learn("Basic realm=x"));
    }
}
