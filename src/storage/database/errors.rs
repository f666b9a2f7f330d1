//! Errors of the database, and whether a retry can help.
//!
//! After an outage, the same request succeeds later. A value that no database accepts, a missing table or
//! a duplicate row stays an error, so the client is not asked to try again.

use std::fmt;
use std::path::PathBuf;

use sqlx::error::DatabaseError;
use sqlx::migrate::MigrateError;
use sqlx::postgres::PgDatabaseError;

use crate::oauth::sealed::CannotOpen;

/// An operation failed, and nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The database is broken, full, unreachable or locked. The same request may succeed later.
    #[error("the database cannot serve now: {}{}", told(.0), hint(.0))]
    Unavailable(#[source] sqlx::Error),
    /// The database rejects the statement or a value in it, and will do so again.
    #[error("the database refuses a statement or a value: {}{}", told(.0), hint(.0))]
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
    #[error("{}", match .0 { Denied::Client => "the client is blocked or rejected", Denied::Person => "the person is blocked", Denied::SignedOut => "the person signed out at the identity provider meanwhile" })]
    ShutOut(Denied),
    /// A row has content that the program never writes.
    #[error("a stored row makes no sense: {0}")]
    Corrupt(String),
    /// A sealed column does not open under the secret key.
    #[error("a sealed column cannot be opened")]
    Sealed(#[from] CannotOpen),
}

/// Why the database could not be opened. The text is for the administrator.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The URL is neither one of SQLite nor one of PostgreSQL.
    #[error("database_url must begin with sqlite:// or postgres://")]
    Address,
    /// The file or its folder cannot be used.
    #[error(
        "the database file {path} cannot be used: {cause}. The server must be able to read and write it, and to make files in its folder: is the path right, who owns it, is it mounted read-only?"
    )]
    File {
        path: PathBuf,
        /// The error of the operating system.
        cause: std::io::Error,
    },
    /// Another process has locked the database.
    #[error(
        "another Portcullis is using {0}. SQLite serves one process; stop the other one, or use PostgreSQL for several"
    )]
    InUse(PathBuf),
    /// A restored backup lies next to the WAL of another database.
    #[error(
        "the database file is a restored backup, and {0} is the log of the one before it. Move that file and the -shm beside it away: they belong together"
    )]
    ForeignLog(PathBuf),
    /// The bundled SQLite has a bug that can corrupt the database.
    #[error("SQLite {0} is too old; 3.51.3 or newer is needed")]
    SqliteTooOld(String),
    /// A server has used a database at this path, and now there is none.
    #[error(
        "the database {database} is missing or empty, and a server has used it before ({mark} says so). Is its volume mounted, was it moved? Put it back or restore a backup; to begin with an empty one, delete {mark} too"
    )]
    Lost {
        /// The path of the database.
        database: PathBuf,
        /// The file that proves the earlier use.
        mark: PathBuf,
    },
    /// A server has served another database at this path.
    #[error(
        "the database {database} is not the one that was served here before ({mark} remembers that one by its key proof). Is the right volume mounted, was a file of another installation put here? Put the right one back; a backup of it is welcome. If this one is meant, delete {mark}"
    )]
    Other {
        /// The path of the database.
        database: PathBuf,
        /// The file that identifies the earlier database.
        mark: PathBuf,
    },
    #[error("the database is damaged ({0}); restore it from a backup")]
    Damaged(String),
    /// The schema could not be migrated.
    #[error("the database schema could not be brought up to date: {}", failed_migration(.0))]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The database belongs to another application.
    #[error(
        "the database has tables of another application ({}); give Portcullis a database or a schema of its own. Nothing was made", .0.join(", ")
    )]
    OtherApplication(Vec<String>),
    /// The database's encoding is not UTF-8, so it cannot store every text.
    #[error("the database has the encoding {0}; make it with ENCODING 'UTF8'")]
    Encoding(String),
    /// The role lacks privileges that are needed.
    #[error(
        "the role in database_url lacks privileges: {}. Grant them (docs/operations/replicas.md, the role), or let the role own the tables", .0.join(", ")
    )]
    Rights(Vec<String>),
    /// A transaction pool between us and PostgreSQL gives one session to several clients.
    #[error(
        "the database is reached through a pool of transactions or statements (PgBouncer with pool_mode = transaction?), in which sessions are not kept apart: set pool_mode = session for this database, or let database_url lead to PostgreSQL itself"
    )]
    TransactionPooling,
    /// The server is not PostgreSQL, and lacks what this program needs.
    #[error(
        "the server in database_url is {name}, which speaks PostgreSQL's protocol but is not PostgreSQL: {lacks}. See docs/operations/postgresql.md for the servers that work"
    )]
    OtherServer {
        /// What the server calls itself.
        name: &'static str,
        /// What it lacks.
        lacks: &'static str,
    },
    /// The database was written with another secret key.
    #[error(
        "the secret key does not fit this database. Start with the key it was made with (secret_key, or the .key file beside the database); with another key nobody's session and no signing key can be read"
    )]
    WrongSecretKey,
    /// The database exists, but its secret key is missing.
    #[error(
        "the database exists, but its secret key {0} is missing. Put the key file back (or set secret_key); a new key could read neither sessions nor signing keys"
    )]
    SecretKeyMissing(PathBuf),
    /// A command found no database to attach to.
    #[error(
        "there is no database at {0}; is this the right --config, and the right folder? `portcullis serve` makes it"
    )]
    NoDatabase(PathBuf),
    /// The database exists, but no server has initialized it.
    #[error("no Portcullis has served this database yet; start `portcullis serve` on it once")]
    NeverServed,
    /// The schema is not the one that this program knows.
    #[error(
        "the database has the schema of {whose} Portcullis ({found}, this one knows {known}); {hint}"
    )]
    OtherSchema {
        /// `an older` or `a newer`.
        whose: &'static str,
        /// The newest migration that the database has.
        found: i64,
        /// The newest migration that this program knows.
        known: i64,
        /// The way to resolve it.
        hint: &'static str,
    },
    /// The database was made before there was a release.
    #[error(
        "a development version of Portcullis from before the first release created this database, and it cannot be updated. Move it away and start again with an empty one, or keep using the version that created it"
    )]
    EarlierDevelopment,
    /// Any other error of the database.
    #[error("the database cannot be reached: {}{}", told(.0), hint(.0))]
    Database(#[from] sqlx::Error),
    /// A transaction that is part of opening failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// The client is blocked or rejected.
    Client,
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
        // A statement that another session has prepared: a pooler is in the way, not the statement.
        if code == "42P05" {
            return false;
        }
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

/// Describes a failed migration, with its number.
fn failed_migration(cause: &MigrateError) -> String {
    match cause {
        MigrateError::Execute(cause) => told(cause).to_string(),
        MigrateError::ExecuteMigration(cause, version) => {
            format!("migration {version}: {}", told(cause))
        }
        other => other.to_string(),
    }
}

/// Returns a hint for the administrator, where there is one.
fn hint(cause: &sqlx::Error) -> String {
    match hint_of(cause) {
        Some(hint) => format!(". {hint}"),
        None => String::new(),
    }
}

/// Returns the SQLSTATE of PostgreSQL, or the code of SQLite.
pub(crate) fn code(cause: &sqlx::Error) -> Option<String> {
    let code = cause.as_database_error().and_then(sqlx::error::DatabaseError::code);
    code.map(std::borrow::Cow::into_owned)
}

/// Returns a hint for the administrator, by SQLSTATE.
pub(crate) fn hint_of(cause: &sqlx::Error) -> Option<&'static str> {
    let code = code(cause).unwrap_or_default();
    Some(match code.as_str() {
        "53300" => {
            "the server, the database or the role has no connection left for us: lower limits.database_connections, or raise max_connections or the CONNECTION LIMIT"
        }
        "57P01" | "57P02" | "57P03" => "the server is starting, stopping or recovering",
        "3D000" => "the database in database_url does not exist",
        "28P01" => "the password in database_url is not the role's",
        "42501" => "the role lacks a privilege on the database",
        "42P05" | "26000" => {
            "something in between gives a statement to another session than the one that prepared it (PgBouncer with pool_mode = transaction, the transaction port of another pooler?): set pool_mode = session, or let database_url lead to PostgreSQL itself"
        }
        _ if code.starts_with("28") => {
            "the role in database_url may not connect from here (pg_hba.conf, LOGIN, the password)"
        }
        _ if code.starts_with("53") => "the server has no room, memory or connections left",
        _ if code.starts_with("08") => "the connection broke, or something in between refuses it",
        _ => return None,
    })
}
