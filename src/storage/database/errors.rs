//! Errors of the database, and whether a retry can help.
//!
//! After an outage, the same request succeeds later. A value that no database accepts, a missing table or
//! a duplicate row stays an error, so the client is not asked to try again.

use std::fmt;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

use crate::oauth::sealed::CannotOpen;

/// An operation failed, and nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The database is broken, full, unreachable or locked. The same request may succeed later.
    #[error("the database cannot serve now: {}", told(.0))]
    Unavailable(#[source] sqlx::Error),
    /// The database rejects the statement or a value in it, and will do so again.
    #[error("the database refuses a statement or a value: {}", told(.0))]
    Refused(#[source] sqlx::Error),
    /// A database file was deleted or replaced while the server is running.
    #[error("a file of the database was deleted or replaced; nothing is written any more")]
    Gone,
    /// The clock is behind the last time that was stored.
    #[error("the clock lies before the last time that was stored")]
    ClockBehind,
    /// Too many writes are waiting.
    #[error("too many writes are waiting for the database")]
    Busy,
    /// All connections were in use for as long as a request may wait. Contains the size of the pool.
    #[error(
        "no connection to the database was free in time; all {0} that limits.database_connections leaves for this are in use"
    )]
    NoConnection(u32),
    /// The remaining space in the SQLite file is reserved for other uses.
    #[error("the database has no room for {0}: the rest is kept for people who have signed in")]
    Full(&'static str),
    /// The client or person was blocked, or the person signed out, while the request was being processed.
    #[error("{}", match .0 { Denied::Client => "the client is shut out", Denied::Person => "the person is blocked", Denied::SignedOut => "the person signed out at the identity provider meanwhile" })]
    ShutOut(Denied),
    /// A row has content that the program never writes.
    #[error("a stored row makes no sense: {0}")]
    Corrupt(String),
    /// A sealed column does not open under the secret key.
    #[error("a sealed column cannot be opened")]
    Sealed(#[from] CannotOpen),
}

/// Who is denied access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The client is blocked or rejected.
    Client,
    /// The person is blocked.
    Person,
    /// The person signed out at the identity provider before the login was completed.
    SignedOut,
}

impl From<sqlx::Error> for StorageError {
    fn from(error: sqlx::Error) -> Self {
        match error {
            sqlx::Error::ColumnDecode { .. }
            | sqlx::Error::ColumnNotFound(_)
            | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
            sqlx::Error::Encode(_) => Self::Refused(error),
            sqlx::Error::Database(ref cause) if stays(&**cause) => Self::Refused(error),
            other => Self::Unavailable(other),
        }
    }
}

impl From<serde_json::Error> for StorageError {
    fn from(error: serde_json::Error) -> Self {
        // Only the category: the message of serde_json may quote the text, which was sealed for a reason.
        Self::Corrupt(format!("JSON, {:?}", error.classify()))
    }
}

/// Returns whether the error lies in the statement or its values, so that a retry cannot help.
fn stays(error: &dyn DatabaseError) -> bool {
    let Some(code) = error.code() else { return false };
    if error.try_downcast_ref::<PgDatabaseError>().is_some() {
        // Data, constraints, syntax and privileges, program limits (SQLSTATE classes, appendix A of
        // PostgreSQL).
        return ["22", "23", "42", "54"].iter().any(|class| code.starts_with(class));
    }
    // SQLite's error, too big, constraint, mismatch, range. The lowest byte is the primary code.
    matches!(code.parse::<u32>().map(|code| code & 0xff), Ok(1 | 18 | 19 | 20 | 25))
}

/// Formats an error for the log: message, SQLSTATE and detail. Leaves out what sqlx adds, a line number
/// in PostgreSQL's source.
pub(crate) fn told(error: &sqlx::Error) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        let sqlx::Error::Database(cause) = error else { return write!(f, "{error}") };
        let Some(postgres) = cause.try_downcast_ref::<PgDatabaseError>() else {
            return write!(f, "{error}");
        };
        write!(f, "{} (SQLSTATE {})", postgres.message(), postgres.code())?;
        match postgres.detail() {
            // The detail of a constraint violation quotes the value.
            Some(detail) if !postgres.code().starts_with("23") => write!(f, ": {detail}"),
            _ => Ok(()),
        }
    })
}

/// Returns whether the role lacks a privilege on PostgreSQL (SQLSTATE 42501).
pub(crate) fn is_missing_right(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).as_deref() == Some("42501")
}

/// Returns whether a lock timeout occurred on PostgreSQL (SQLSTATE 55P03).
pub(crate) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.as_deref() == Some("55P03")
}
