//! What can go wrong on the way to the database, and how a caller is told: never SQL text, never a secret.

use serde_json::{json, Value};
use tokio_postgres::error::SqlState;

#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// Nobody answers, or the server is going down or coming up.
    #[error("database unavailable: {0}")]
    Unavailable(String),
    /// Every connection is in use.
    #[error("no free database connection")]
    Busy,
    #[error("cancelled")]
    Cancelled,
    #[error("timed out")]
    Timeout,
    /// The database answered with an error that no tool raised on purpose.
    #[error("database error {state}: {message}")]
    Sql { state: String, message: String },
    #[error("{0}")]
    Internal(String),
}

impl From<tokio_postgres::Error> for DbError {
    fn from(error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            // Anything the server did not say itself is the connection's trouble, except a value we cannot read.
            return if error.is_closed() || std::error::Error::source(&error).is_some() {
                DbError::Unavailable(error.to_string())
            } else {
                DbError::Internal(error.to_string())
            };
        };
        let state = db.code();
        let unavailable = state.code().starts_with("08")
            || state.code().starts_with("57P")
            || [
                SqlState::TOO_MANY_CONNECTIONS,
                SqlState::INVALID_PASSWORD,
                SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                SqlState::INVALID_CATALOG_NAME,
                // A replica, or a farm not installed (yet): the next try may find it.
                SqlState::READ_ONLY_SQL_TRANSACTION,
                SqlState::UNDEFINED_FUNCTION,
                SqlState::INVALID_SCHEMA_NAME,
            ]
            .contains(state);
        if unavailable {
            return DbError::Unavailable(format!("{}: {}", state.code(), db.message()));
        }
        if *state == SqlState::QUERY_CANCELED {
            return DbError::Timeout;
        }
        DbError::Sql {
            state: state.code().to_owned(),
            message: db.message().to_owned(),
        }
    }
}

impl DbError {
    /// The farm's error object for this failure.
    pub fn to_json(&self) -> Value {
        match self {
            DbError::Unavailable(_) => json!({
                "code": "upstream_unavailable",
                "detail": "The farm's database cannot be reached right now.",
                "retriable": true, "status": 503, "retry_after": 2,
                "hint": "Nothing was changed unless an earlier answer said so. Repeat the call with the same idempotency_key.",
            }),
            DbError::Busy => json!({
                "code": "upstream_unavailable",
                "detail": "Every database connection of this sidecar is in use.",
                "retriable": true, "status": 503, "retry_after": 1,
                "hint": "Repeat the call in a moment.",
            }),
            DbError::Cancelled => json!({
                "code": "cancelled",
                "detail": "The call was cancelled and rolled back.",
                "retriable": true, "status": 499,
                "hint": "Nothing was changed.",
            }),
            DbError::Timeout => json!({
                "code": "timeout",
                "detail": "The call took too long, was stopped and rolled back.",
                "retriable": true, "status": 504,
                "hint": "Nothing was changed. Ask for less at once: a smaller limit or a narrower filter.",
            }),
            DbError::Sql { .. } | DbError::Internal(_) => json!({
                "code": "internal_error",
                "detail": "The farm could not answer; the operator's log has the reason.",
                "retriable": true, "status": 500,
                "hint": "Give the operator the request id.",
            }),
        }
    }
}
