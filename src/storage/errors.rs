//! Why the database did not do what it was asked, and whose fault that is.
//!
//! An outage passes, and the same request succeeds later. A text that no database takes, a table that is not
//! there or a row that is there twice stays what it is: nobody is asked to try that again.

use std::fmt;

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;

use crate::oauth::sealed::CannotOpen;

/// Storage could not do what it was asked; nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Broken, full, unreachable, locked: the same request may succeed later.
    #[error("the database cannot serve now: {}", told(.0))]
    Unavailable(#[source] sqlx::Error),
    /// The statement or a value in it is refused, and will be again.
    #[error("the database refuses a statement or a value: {}", told(.0))]
    Refused(#[source] sqlx::Error),
    /// A file of the database was deleted or replaced under us.
    #[error("a file of the database was deleted or replaced; nothing is written any more")]
    Gone,
    /// The clock lies before the last time that was stored.
    #[error("the clock lies before the last time that was stored")]
    ClockBehind,
    /// Too many writes are waiting.
    #[error("too many writes are waiting for the database")]
    Busy,
    /// All connections to the database were in use for as long as a request waits.
    #[error(
        "no connection to the database was free in time; all {0} that limits.database_connections leaves for this are in use"
    )]
    NoConnection(u32),
    /// What is left of the file is kept for others.
    #[error("the database has no room for {0}: the rest is kept for people who have signed in")]
    Full(&'static str),
    /// The client or the person was shut out, or the person signed out, while this was on its way.
    #[error("{}", match .0 { Denied::Client => "the client is shut out", Denied::Person => "the person is blocked", Denied::SignedOut => "the person signed out at the identity provider meanwhile" })]
    ShutOut(Denied),
    /// A row does not say what it must.
    #[error("a stored row makes no sense: {0}")]
    Corrupt(String),
    /// A sealed column does not open under the secret key.
    #[error("a sealed column cannot be opened")]
    Sealed(#[from] CannotOpen),
}

/// Who is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// A client that is blocked or refused.
    Client,
    /// A person who is blocked.
    Person,
    /// A person who signed out at the identity provider before the login came back.
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
        // The message of serde_json may quote the text, which was sealed for a reason.
        Self::Corrupt(format!("JSON, {:?}", error.classify()))
    }
}

/// Whether the error is one of the statement or of its values, and not of the moment.
fn stays(error: &dyn DatabaseError) -> bool {
    let Some(code) = error.code() else { return false };
    if error.try_downcast_ref::<PgDatabaseError>().is_some() {
        // Data, constraints, syntax and rights, limits of the program (SQLSTATE, appendix A of PostgreSQL).
        return ["22", "23", "42", "54"].iter().any(|class| code.starts_with(class));
    }
    // SQLite: error, too big, constraint, mismatch, range. The lowest byte is the kind.
    matches!(code.parse::<u32>().map(|code| code & 0xff), Ok(1 | 18 | 19 | 20 | 25))
}

/// What the database said, for the log: message, SQLSTATE and detail. What the driver writes besides is a line
/// number in PostgreSQL's own source.
pub(super) fn told(error: &sqlx::Error) -> impl fmt::Display {
    fmt::from_fn(move |f| {
        let sqlx::Error::Database(cause) = error else { return write!(f, "{error}") };
        let Some(postgres) = cause.try_downcast_ref::<PgDatabaseError>() else {
            return write!(f, "{error}");
        };
        write!(f, "{} (SQLSTATE {})", postgres.message(), postgres.code())?;
        match postgres.detail() {
            // Of a value that is there twice, the detail quotes the value.
            Some(detail) if !postgres.code().starts_with("23") => write!(f, ": {detail}"),
            _ => Ok(()),
        }
    })
}

/// Whether the role lacks a privilege, on PostgreSQL.
pub(super) fn is_missing_right(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(DatabaseError::code).as_deref() == Some("42501")
}

/// Whether a lock was not to be had in time, on PostgreSQL.
pub(super) fn is_lock_timeout(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.as_deref() == Some("55P03")
}
