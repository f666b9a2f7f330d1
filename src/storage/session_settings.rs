//! What every session at PostgreSQL must be set to, whatever the server, the database and the role say.
//!
//! A role may have a default of its own for almost everything (`ALTER ROLE … SET …`), and several of these
//! defaults would break a promise: `synchronous_commit = off` loses answered revocations in a crash, a
//! serializable isolation level makes sign-ins fail that only compete. So every connection sets everything
//! that this program relies on, right after it connected and before it is used. This is the only list.
//!
//! The settings go in one simple query after the connection was made, not as startup parameters: a connection
//! pooler refuses startup parameters that it does not know. `search_path` is not in the list: it says which
//! schema is ours, and the role is a good place for that.

use std::fmt::Write as _;
use std::sync::LazyLock;

use sqlx::{AnyConnection, AssertSqlSafe, Executor, PgConnection};

use super::{Engine, Storage, StorageError};

/// How a setting gets its value.
#[derive(Clone, Copy)]
enum Value {
    /// This value, on every server.
    Is(&'static str),
    /// This value, where the version of the server knows the setting.
    IfKnown(&'static str),
    /// The second value in place of one of the first; others stay as they are.
    Raised(&'static [&'static str], &'static str),
}

use Value::{IfKnown, Is, Raised};

/// What steps and look-ups rely on. The bounds are explained in [`super::timeouts`].
const SERVING: &[(&str, Value)] = &[
    // First, so that a bound of the role does not end the rest.
    ("statement_timeout", Is("10s")),
    ("lock_timeout", Is("4s")),
    ("idle_in_transaction_session_timeout", Is("5s")),
    // A bound of the role would end connections that wait in the pool, or listen.
    ("idle_session_timeout", IfKnown("0")),
    ("transaction_timeout", IfKnown("0")),
    // Every step settles what may happen once by a conditional UPDATE, whose row count decides. A stricter
    // level fails such a step where two compete.
    ("default_transaction_isolation", Is("read committed")),
    ("default_transaction_read_only", Is("off")),
    ("default_transaction_deferrable", Is("off")),
    // What was answered must survive a crash. `remote_apply` and `remote_write` stay: they wait for a
    // standby. `local` waits for none, and without synchronous standbys it is the same as `on`.
    ("synchronous_commit", Raised(&["off", "local"], "on")),
    ("standard_conforming_strings", Is("on")),
    // An error must end a step, not the connection.
    ("exit_on_error", Is("off")),
];

/// What differs for migrations, which go through whole tables and wait for each other.
const MIGRATING: &[(&str, &str)] = &[
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
];

static TO_SERVE: LazyLock<String> = LazyLock::new(|| text(&[]));
static TO_MIGRATE: LazyLock<String> = LazyLock::new(|| text(MIGRATING));

/// Sets everything on a connection that serves.
pub(super) async fn serve(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(TO_SERVE.as_str()))).await.map(drop)
}

/// Sets everything on a connection that brings the schema up to date.
pub(super) async fn migrate(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(TO_MIGRATE.as_str()))).await.map(drop)
}

/// Sets everything on a connection that listens.
pub(super) async fn listen(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(TO_SERVE.as_str()))).await.map(drop)
}

/// The statements that set everything.
fn text(instead: &[(&str, &str)]) -> String {
    let mut text = String::new();
    let mut by_choice = Vec::new();
    for (name, value) in SERVING {
        let other = instead.iter().find(|(other, _)| other == name).map(|(_, value)| *value);
        match value {
            Is(value) => {
                let _ = write!(text, "SET {name} = '{}'; ", other.unwrap_or(value));
            }
            IfKnown(value) => {
                by_choice.push(format!("WHEN name = '{name}' THEN '{}'", other.unwrap_or(value)));
            }
            Raised(from, to) => {
                let from = from.join("', '");
                by_choice
                    .push(format!("WHEN name = '{name}' AND setting IN ('{from}') THEN '{to}'"));
            }
        }
    }
    let known: Vec<String> = SERVING.iter().map(|(name, _)| format!("'{name}'")).collect();
    let (by_choice, known) = (by_choice.join(" "), known.join(", "));
    let _ = write!(
        text,
        "SELECT set_config(name, value, false)
         FROM (SELECT name, CASE {by_choice} END AS value FROM pg_settings WHERE name IN ({known}))
              AS wanted
         WHERE value IS NOT NULL"
    );
    text
}

impl Storage {
    /// A setting of PostgreSQL as the connections of this process have it; `None` on SQLite, and where the
    /// server does not know it.
    pub async fn server_setting(&self, name: &str) -> Result<Option<String>, StorageError> {
        if self.engine != Engine::Postgres {
            return Ok(None);
        }
        let setting = sqlx::query_scalar("SELECT current_setting($1, true)").bind(name);
        Ok(setting.fetch_one(&self.pool).await?)
    }

    /// Warns of settings of the server itself that no session can change and under which a crash loses what
    /// was answered, or damages the database.
    pub async fn warn_of_unsafe_settings(&self) -> Result<(), StorageError> {
        for (name, consequence) in [
            ("fsync", "a crash of the machine can damage the database beyond repair"),
            ("full_page_writes", "a loss of power can leave pages half written"),
        ] {
            if self.server_setting(name).await?.as_deref() == Some("off") {
                tracing::warn!(
                    setting = name,
                    consequence,
                    "PostgreSQL runs with an unsafe setting; switch it on in postgresql.conf"
                );
            }
        }
        Ok(())
    }
}
