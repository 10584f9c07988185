//! What only people may do, over HTTP: mint, list, rotate and revoke keys, decide about waiting calls.
//! A person comes with his own database login (HTTP Basic). It opens one connection as that role, for this request only;
//! nothing is pooled, cached or kept, and no key reaches any of this.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use http::{header, HeaderMap};
use serde_json::{json, Value};
use tokio::sync::Semaphore;

use super::answer::error;
use crate::app::App;
use crate::config::Serve;
use crate::db::{Login, LoginError};
use crate::door::{refused, text, Visitor};

/// Checking a password costs PostgreSQL real work: so many at once, and so long.
const AT_ONCE: usize = 4;
const LONGEST: Duration = Duration::from_secs(15);

pub struct People {
    server: Option<tokio_postgres::Config>,
    at_once: Arc<Semaphore>,
}

/// What was presented.
pub struct Presented {
    user: String,
    password: String,
}

pub struct Entered {
    login: Login,
    role: String,
    _one_of: tokio::sync::OwnedSemaphorePermit,
}

/// The login in the request, if it is one.
pub fn presented(headers: &HeaderMap) -> Result<Option<Presented>, Value> {
    let Some((scheme, rest)) =
        text(headers, header::AUTHORIZATION.as_str()).and_then(|v| v.split_once(' '))
    else {
        return Ok(None);
    };
    if !scheme.eq_ignore_ascii_case("basic") {
        return Ok(None);
    }
    let decoded = base64::engine::general_purpose::STANDARD
        .decode(rest.trim())
        .ok();
    let decoded = decoded.and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
    match pair {
        Some((user, password))
            if !user.is_empty() && !password.is_empty() && !user.contains('\0') =>
        {
            Ok(Some(Presented {
                user: user.to_owned(),
                password: password.to_owned(),
            }))
        }
        _ => Err(wrong_login()),
    }
}

impl People {
    pub fn new(config: &Serve) -> Self {
        People {
            server: config.gateway_url.parse().ok(),
            at_once: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Log in as the person, or say why not. Guessing gets slower with every miss, as with keys.
    pub async fn enter(
        &self,
        app: &App,
        visitor: &Visitor,
        login: Presented,
    ) -> Result<Entered, Value> {
        if !visitor.confidential {
            let detail = "A password may only come over TLS, or from this machine.";
            let hint = "Put a proxy with TLS in front and name it in ODIN_TRUSTED_PROXIES; or mint the key in SQL: SELECT odin.mint_key('name').";
            return Err(error("permission_denied", 403, detail, hint));
        }
        app.auth
            .slow_down(Some(visitor.ip))
            .await
            .map_err(refused)?;
        let Ok(permit) = self.at_once.clone().try_acquire_owned() else {
            let mut error = error(
                "rate_limited",
                429,
                "Too many logins at once.",
                "Repeat it in a moment.",
            );
            error["retry_after"] = json!(1);
            return Err(error);
        };
        let Some(server) = &self.server else {
            return Err(error(
                "internal_error",
                500,
                "The database's address cannot be read.",
                "",
            ));
        };
        let entering = Login::open(server, &login.user, &login.password);
        match tokio::time::timeout(LONGEST, entering).await {
            Ok(Ok(opened)) => Ok(Entered {
                login: opened,
                role: login.user,
                _one_of: permit,
            }),
            Ok(Err(LoginError::Refused)) => {
                app.auth.failed(Some(visitor.ip));
                app.metrics.refused("login");
                Err(wrong_login())
            }
            Ok(Err(LoginError::NotChecked)) => {
                let detail = "This database lets this sidecar's host in without a password, so a password proves nothing here.";
                let hint = "Use scram-sha-256 in pg_hba.conf for people; or mint the key in SQL: SELECT odin.mint_key('name').";
                Err(error("feature_disabled", 403, detail, hint))
            }
            Ok(Err(LoginError::Unavailable(e))) => Err(e.to_json()),
            Err(_) => Err(crate::db::DbError::Timeout.to_json()),
        }
    }
}

impl Entered {
    pub fn role(&self) -> &str {
        &self.role
    }

    /// One act in the database, as that person. `Err` is the farm's error object.
    pub async fn call(&self, act: &str, arguments: &Value) -> Result<Value, Value> {
        let asked = async {
            self.login
                .json("SELECT odin.person_call($1, $2)", &[&act, arguments])
                .await
        };
        let mut answer = match tokio::time::timeout(LONGEST, asked).await {
            Ok(answer) => answer.map_err(|e| self.outside(&e))?,
            Err(_) => return Err(crate::db::DbError::Timeout.to_json()),
        };
        match answer["ok"] {
            Value::Bool(true) => Ok(answer["result"].take()),
            _ => Err(answer["error"].take()),
        }
    }

    /// Somebody with a login but no part in the farm cannot even ask.
    fn outside(&self, e: &crate::db::DbError) -> Value {
        match e {
            crate::db::DbError::Sql { state, .. } if state == "42501" => {
                let hint = format!(
                    "An administrator grants one of odin_viewer, odin_operator, odin_admin to {}.",
                    self.role
                );
                error(
                    "permission_denied",
                    403,
                    format!("{} has no part in this farm.", self.role),
                    &hint,
                )
            }
            other => {
                tracing::error!(error = %other, "a person's act failed");
                other.to_json()
            }
        }
    }
}

fn wrong_login() -> Value {
    let hint = "Use your own PostgreSQL role and password.";
    let mut error = error(
        "not_authenticated",
        401,
        "The user or the password is wrong.",
        hint,
    );
    error["scheme"] = "basic".into();
    error
}

/// Nobody at all is told how people come in.
pub fn basic_instead(mut error: Value) -> Value {
    if error["code"] == "not_authenticated" {
        error["scheme"] = "basic".into();
        error["hint"] =
            "This is for people: HTTP Basic with your own PostgreSQL role and password.".into();
    }
    error
}

pub fn not_by_key(act: &str) -> Value {
    let what = match act {
        "list_keys" | "mint_key" | "revoke_key" | "rotate_key" => "Keys are made and ended",
        _ => "Waiting calls are decided about",
    };
    let hint = "Log in with HTTP Basic as your own PostgreSQL role, or use SQL (odin.mint_key, odin.approve_call).";
    error(
        "human_only",
        403,
        format!("{what} by people only; no key can do it, whatever its scope."),
        hint,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(value: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        headers
    }

    #[test]
    fn a_login_is_read_from_basic_only() {
        assert!(presented(&HeaderMap::new()).unwrap().is_none());
        assert!(presented(&with("Bearer odin_x")).unwrap().is_none());
        // ada:a:b
        let login = presented(&with("Basic YWRhOmE6Yg==")).unwrap().unwrap();
        assert_eq!(
            (login.user.as_str(), login.password.as_str()),
            ("ada", "a:b")
        );
        // "ada:" - an empty password is none
        assert!(presented(&with("Basic YWRhOg==")).is_err());
        assert!(presented(&with("Basic ???")).is_err());
    }
}
