//! Who used what: calls through the gateway, as sums by person, client, MCP server and tool, in hours.
//! Metadata only: neither arguments nor results.
//!
//! A key stands for a person, a client, a server and a tool. Its id is an HMAC of them, so that every replica
//! computes the same without asking the database. Rows of hours and days hold numbers only.

mod filter;
mod list;
mod retention;

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sqlx::AssertSqlSafe;

use super::{Storage, StorageError, Transaction, Use};
use crate::oauth::sealed::Purpose;

pub use filter::{UsageFilter, UsageRange, UsageSort, UsageStep};
pub use list::{ServerUse, UsageHour, UsageRow, UsageSlot};
pub use retention::UsageRetention;

/// Hours in a day.
pub(super) const A_DAY: i64 = 24;
/// Rows that one statement writes: 16. Each number of rows is a statement of its own, which is prepared once.
const AT_ONCE: usize = 16;
/// Columns of [`CallCounts`], as the tables name them.
const COUNTS: &str = "answered, tool_errors, errors, scope_refused, refused, failed, unanswered";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// The MCP server answered with a result.
    Answered,
    /// The MCP server answered with a result that says that the tool failed.
    ToolError,
    /// The MCP server answered with an error, of JSON-RPC or of HTTP (4xx).
    Error,
    /// It was refused because scopes were missing.
    ScopeRefused,
    /// The gateway refused it for another reason.
    Refused,
    /// The MCP server could not be reached, did not answer in time, or answered with 5xx.
    Failed,
    /// The client left, or its grant ended, before an answer was complete.
    Unanswered,
}

impl CallOutcome {
    /// All outcomes, in the order of [`CallCounts`] and of the columns.
    pub const ALL: [Self; 7] = [
        Self::Answered,
        Self::ToolError,
        Self::Error,
        Self::ScopeRefused,
        Self::Refused,
        Self::Failed,
        Self::Unanswered,
    ];

    /// Returns its name, which is that of its column.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::ToolError => "tool_errors",
            Self::Error => "errors",
            Self::ScopeRefused => "scope_refused",
            Self::Refused => "refused",
            Self::Failed => "failed",
            Self::Unanswered => "unanswered",
        }
    }

    /// Returns the outcome with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|outcome| outcome.name() == name)
    }
}

/// Calls by outcome, in the order of [`CallOutcome::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallCounts(pub [i64; CallOutcome::ALL.len()]);

impl CallCounts {
    /// Returns how many calls ended so.
    pub fn of(&self, outcome: CallOutcome) -> i64 {
        self.0[outcome as usize]
    }

    /// Returns how many calls there were.
    pub fn total(&self) -> i64 {
        self.0.iter().sum()
    }

    /// Returns how many calls the gateway refused.
    pub fn refusals(&self) -> i64 {
        self.of(CallOutcome::ScopeRefused) + self.of(CallOutcome::Refused)
    }

    /// Returns how many calls ended in another way than with a result.
    pub fn not_answered(&self) -> i64 {
        self.total() - self.of(CallOutcome::Answered)
    }

    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
    }
}

/// What was called: a tool, or a method where no tool was called. An empty name stands for everything that has
/// no row of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CalledName {
    /// A tool, by `tools/call`.
    Tool(String),
    Method(String),
}

impl CalledName {
    /// Builds it from the two columns, or from the parameters of a page.
    pub fn of(kind: &str, name: &str) -> Self {
        if kind == "tool" { Self::Tool(name.to_owned()) } else { Self::Method(name.to_owned()) }
    }

    /// Returns `tool` or `method`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Tool(_) => "tool",
            Self::Method(_) => "method",
        }
    }

    /// Returns the name, empty for those without a row of their own.
    pub fn name(&self) -> &str {
        match self {
            Self::Tool(name) | Self::Method(name) => name,
        }
    }
}

/// Who used what, in one hour.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UsageKey {
    /// Hours since 1970 (UTC).
    pub hour: i64,
    pub resource: String,
    /// The person, by our `sub`.
    pub subject: String,
    pub client_id: String,
    pub called: CalledName,
}

/// The rows of one transaction, summed up for each table and in the order of its primary key. All replicas
/// write in that order, so that they never wait for each other in a circle.
#[derive(Default)]
struct UsageRows<'a> {
    keys: BTreeMap<i64, (i64, &'a UsageKey)>,
    hours: BTreeMap<(i64, i64), (i64, CallCounts)>,
    days: BTreeMap<(i64, i64), (i64, i64, CallCounts)>,
    servers: BTreeMap<(i64, i64), CallCounts>,
}

impl Storage {
    /// Adds calls to what is stored.
    pub async fn add_usage(&self, calls: &[(UsageKey, CallCounts)]) -> Result<(), StorageError> {
        let mut rows = UsageRows::default();
        for (key, counts) in calls {
            let (id, server) = (self.usage_id(key), self.server_id(&key.resource));
            let day = key.hour.div_euclid(A_DAY);
            let known = rows.keys.entry(id).or_insert((day, key));
            known.0 = known.0.max(day);
            let of_hour = rows.hours.entry((key.hour, id));
            of_hour.or_insert((server, CallCounts::default())).1.add(counts);
            let of_day = rows.days.entry((id, day));
            let of_day = of_day.or_insert((server, key.hour, CallCounts::default()));
            of_day.1 = of_day.1.max(key.hour);
            of_day.2.add(counts);
            rows.servers.entry((key.hour, server)).or_default().add(counts);
        }
        let mut step = self.begin_for(Use::Refusals).await?;
        self.write_keys(&mut step, &rows).await?;
        let hours: Vec<_> = rows
            .hours
            .iter()
            .map(|((hour, key), (server, counts))| ([*hour, *key, *server], *counts))
            .collect();
        let days: Vec<_> = rows
            .days
            .iter()
            .map(|((key, day), (server, last, counts))| ([*key, *day, *server, *last], *counts))
            .collect();
        let servers: Vec<_> = rows
            .servers
            .iter()
            .map(|((hour, server), counts)| ([*hour, *server], *counts))
            .collect();
        write_sums(&mut step, &HOURS, &hours).await?;
        write_sums(&mut step, &DAYS, &days).await?;
        write_sums(&mut step, &SERVERS, &servers).await?;
        step.commit().await
    }

    async fn write_keys(
        &self,
        step: &mut Transaction,
        rows: &UsageRows<'_>,
    ) -> Result<(), StorageError> {
        let keys: Vec<_> = rows.keys.iter().collect();
        for keys in keys.chunks(AT_ONCE) {
            let values = placeholders(keys.len(), 9);
            let sql = format!(
                "INSERT INTO usage_keys (id, server, subject, client_id, resource, kind, name_hash,
                                         name, last_day)
                 VALUES {values}
                 ON CONFLICT (id) DO UPDATE SET last_day = excluded.last_day
                 WHERE usage_keys.last_day < excluded.last_day"
            );
            let mut insert = sqlx::query(AssertSqlSafe(sql)); // placeholders only
            for (id, (day, key)) in keys {
                insert = insert
                    .bind(**id)
                    .bind(self.server_id(&key.resource))
                    .bind(&key.subject)
                    .bind(&key.client_id)
                    .bind(&key.resource)
                    .bind(key.called.kind())
                    .bind(self.name_hash(&key.called))
                    .bind(self.sealed_name(**id, &key.called))
                    .bind(*day);
            }
            insert.execute(&mut **step).await?;
        }
        Ok(())
    }

    /// Returns the id of a key: 63 bits of an HMAC.
    fn usage_id(&self, key: &UsageKey) -> i64 {
        let UsageKey { subject, client_id, resource, called, .. } = key;
        let texts: [&str; 6] =
            ["usage", subject, client_id, resource, called.kind(), called.name()];
        number(&self.sealer.mac(Purpose::Search, &texts.map(str::as_bytes)))
    }

    /// Returns the number that stands for an MCP server.
    pub fn server_id(&self, resource: &str) -> i64 {
        let texts: [&[u8]; 2] = [b"server of usage", resource.as_bytes()];
        number(&self.sealer.mac(Purpose::Search, &texts))
    }

    /// Returns the hash by which a tool is found.
    fn name_hash(&self, called: &CalledName) -> String {
        let texts = ["name of usage", called.kind(), called.name()];
        self.sealer.mac(Purpose::Search, &texts.map(str::as_bytes))
    }

    fn sealed_name(&self, id: i64, called: &CalledName) -> String {
        match called.name() {
            "" => String::new(),
            name => self.seal("usage_keys.name", &id.to_string(), name.as_bytes()),
        }
    }

    fn opened_name(&self, id: i64, sealed: &str) -> Result<String, StorageError> {
        if sealed.is_empty() {
            return Ok(String::new());
        }
        let opened =
            self.sealer.open(Purpose::Storage, &format!("usage_keys.name/{id}"), sealed)?;
        Ok(String::from_utf8_lossy(&opened).into_owned())
    }
}

/// Returns the first 63 bits of an HMAC.
fn number(mac: &str) -> i64 {
    let bytes = URL_SAFE_NO_PAD.decode(mac).unwrap_or_default();
    let first = bytes.iter().take(8).fold(0_u64, |number, byte| (number << 8) | u64::from(*byte));
    i64::try_from(first >> 1).unwrap_or_default()
}

/// Returns placeholders for so many rows of so many columns.
fn placeholders(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let columns = (1..=columns).map(|column| format!("${}", row * columns + column));
        format!("({})", columns.collect::<Vec<_>>().join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

struct SumTable {
    name: &'static str,
    /// The statement that adds rows. `{counts}` are the columns with counts, `{rows}` the values, `{added}` the
    /// new sums of a row that is stored already.
    add: &'static str,
}

const HOURS: SumTable = SumTable {
    name: "usage_hours",
    add: "INSERT INTO usage_hours (hour, usage_key, server, {counts}) VALUES {rows}
          ON CONFLICT (hour, usage_key) DO UPDATE SET {added}",
};
const DAYS: SumTable = SumTable {
    name: "usage_days",
    add: "INSERT INTO usage_days (usage_key, day, server, last_hour, {counts}) VALUES {rows}
          ON CONFLICT (usage_key, day) DO UPDATE SET
              last_hour = CASE WHEN usage_days.last_hour < excluded.last_hour
                               THEN excluded.last_hour ELSE usage_days.last_hour END, {added}",
};
const SERVERS: SumTable = SumTable {
    name: "usage_of_servers",
    add: "INSERT INTO usage_of_servers (hour, server, {counts}) VALUES {rows}
          ON CONFLICT (hour, server) DO UPDATE SET {added}",
};

/// Adds rows to a table of sums: the columns before the counts, and the counts.
async fn write_sums<const N: usize>(
    step: &mut Transaction,
    table: &SumTable,
    rows: &[([i64; N], CallCounts)],
) -> Result<(), StorageError> {
    let SumTable { name, add } = table;
    let added = CallOutcome::ALL.map(|outcome| {
        let count = outcome.name();
        format!("{count} = {name}.{count} + excluded.{count}")
    });
    let added = added.join(", ");
    for rows in rows.chunks(AT_ONCE) {
        let values = placeholders(rows.len(), N + CallOutcome::ALL.len());
        let sql = add.replace("{counts}", COUNTS);
        let sql = sql.replace("{rows}", &values).replace("{added}", &added);
        let mut insert = sqlx::query(AssertSqlSafe(sql)); // constants and placeholders only
        for (before, counts) in rows {
            for number in before.iter().chain(&counts.0) {
                insert = insert.bind(*number);
            }
        }
        insert.execute(&mut **step).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_have_the_order_and_the_names_of_the_columns() {
        let names: Vec<_> = CallOutcome::ALL.iter().map(|outcome| outcome.name()).collect();
        assert_eq!(names.join(", "), COUNTS);
        for (place, outcome) in CallOutcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome as usize, place);
            assert_eq!(CallOutcome::named(outcome.name()), Some(outcome));
        }
        assert_eq!(CallOutcome::named(""), None);
    }

    #[test]
    fn numbers_are_never_negative() {
        let most = URL_SAFE_NO_PAD.encode([0xff; 32]);
        assert_eq!(number(&most), i64::MAX);
        assert_eq!(placeholders(2, 3), "($1, $2, $3), ($4, $5, $6)");
    }
}
