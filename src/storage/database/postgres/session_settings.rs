//! The settings that every PostgreSQL session needs, regardless of the defaults of server, database and
//! role.
//!
//! A role can have its own default for almost every setting (`ALTER ROLE … SET …`), and some would break
//! guarantees: `synchronous_commit = off` loses confirmed revocations in a crash, and a serializable
//! isolation level makes concurrent logins fail. So every new connection sets everything that this
//! program relies on before its first use. This is the only list.
//!
//! The settings are sent in one simple query after connecting and not as startup parameters, because
//! connection poolers reject startup parameters that they do not know. `search_path` is not in the list:
//! it selects the schema of this installation, and the role is a good place to set it.

use std::fmt::Write as _;
use std::sync::LazyLock;

use sqlx::{AnyConnection, AssertSqlSafe, Executor, PgConnection};

use crate::storage::database::{Database, StorageError};

/// How a setting gets its value.
#[derive(Clone, Copy)]
enum SettingValue {
    /// This value, on every server.
    Is(&'static str),
    /// This value, if the server's version knows the setting.
    IfKnown(&'static str),
    /// The second value instead of any of the first ones. Other values stay.
    Raised(&'static [&'static str], &'static str),
}

use SettingValue::{IfKnown, Is, Raised};

/// Settings for transactions and reads. [`super::timeouts`] explains the timeouts.
const SERVING: &[(&str, SettingValue)] = &[
    // First, so that a timeout of the role does not interrupt the rest.
    ("statement_timeout", Is("10s")),
    ("lock_timeout", Is("4s")),
    ("idle_in_transaction_session_timeout", Is("5s")),
    // A timeout of the role would close connections that are idle in a pool, or that listen.
    ("idle_session_timeout", IfKnown("0")),
    ("transaction_timeout", IfKnown("0")),
    // Whatever may happen only once is a conditional UPDATE whose row count decides. A stricter level
    // makes such a transaction fail where two compete.
    ("default_transaction_isolation", Is("read committed")),
    ("default_transaction_read_only", Is("off")),
    ("default_transaction_deferrable", Is("off")),
    // A confirmed change must survive a crash. `remote_apply` and `remote_write` stay, because they wait
    // for a standby. `local` waits for none, and without synchronous standbys it is the same as `on`.
    ("synchronous_commit", Raised(&["off", "local"], "on")),
    ("standard_conforming_strings", Is("on")),
    // An error must end a transaction, not the connection.
    ("exit_on_error", Is("off")),
];

/// Differences for migrations, which go through whole tables and wait for each other.
const MIGRATING: &[(&str, &str)] = &[
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
];

static TO_SERVE: LazyLock<String> = LazyLock::new(|| text(&[]));
static TO_MIGRATE: LazyLock<String> = LazyLock::new(|| text(MIGRATING));

/// Applies the settings to a connection that serves requests.
pub(crate) async fn serve(connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(TO_SERVE.as_str()))).await.map(drop)
}

/// Applies the settings to a connection that migrates the schema.
pub(crate) async fn migrate(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(TO_MIGRATE.as_str()))).await.map(drop)
}

/// Applies the settings to a connection that listens for notifications.
pub(crate) async fn listen(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(TO_SERVE.as_str()))).await.map(drop)
}

/// Formats the statements, with the values in `instead` where they differ.
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

impl Database {
    /// Returns a setting of PostgreSQL as it is on our connections; `None` on SQLite, and if the server
    /// does not know it.
    pub(crate) async fn server_setting(&self, name: &str) -> Result<Option<String>, StorageError> {
        if self.postgres().is_none() {
            return Ok(None);
        }
        let setting = sqlx::query_scalar("SELECT current_setting($1, true)").bind(name);
        Ok(setting.fetch_one(&self.pool).await?)
    }

    /// Warns of server settings that no session can change and that let a crash lose confirmed changes or
    /// damage the database.
    pub(crate) async fn warn_of_unsafe_settings(&self) -> Result<(), StorageError> {
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
