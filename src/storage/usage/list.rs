//! Lists of usage, for administrators: sums of each key, sums of each MCP server by hour or day, and the hours
//! themselves for downloads.

use std::collections::HashMap;

use sqlx::any::AnyRow;

use super::filter::{UsageFilter, UsageRange, UsageSort, UsageStep};
use super::{A_DAY, CallCounts, CallOutcome, CalledName};
use crate::clock::Timestamp;
use crate::storage::select::SelectBuilder;
use crate::storage::{Storage, StorageError, column};

/// Who used what, summed up over a range.
#[derive(Clone, Debug)]
pub struct UsageRow {
    /// The person, by our `sub`.
    pub subject: String,
    pub client_id: String,
    pub resource: String,
    pub called: CalledName,
    pub counts: CallCounts,
    /// The hour of the last call, since 1970 (UTC).
    pub last_hour: i64,
    key: i64,
}

impl UsageRow {
    /// Returns the place after which the next page begins.
    pub fn place(&self, filter: &UsageFilter) -> String {
        let first = match (filter.sort, filter.outcome) {
            (UsageSort::Time, _) => self.last_hour,
            (UsageSort::Calls, Some(outcome)) => self.counts.of(outcome),
            (UsageSort::Calls, None) => self.counts.total(),
        };
        format!("{first} {}", self.key)
    }
}

/// The calls of one key in one hour.
#[derive(Clone, Debug)]
pub struct UsageHour {
    /// Since 1970 (UTC).
    pub hour: i64,
    /// Who used what in it; `last_hour` is the same hour.
    pub row: UsageRow,
}

impl UsageHour {
    /// Returns the place after which the next page of a download begins.
    pub fn place(&self) -> String {
        format!("{} {}", self.hour, self.row.key)
    }
}

/// The calls of one MCP server in one hour or day.
#[derive(Clone, Debug)]
pub struct UsageSlot {
    /// The server; `None` if it is none of those asked for.
    pub resource: Option<String>,
    /// The hour or day, in the unit of the range.
    pub at: i64,
    pub counts: CallCounts,
}

/// How much one MCP server was used.
#[derive(Clone, Debug, Default)]
pub struct ServerUse {
    /// How many people used it.
    pub people: i64,
    pub counts: CallCounts,
}

macro_rules! sums {
    () => {
        "CAST(SUM(h.answered) AS BIGINT) AS answered,
         CAST(SUM(h.tool_errors) AS BIGINT) AS tool_errors,
         CAST(SUM(h.errors) AS BIGINT) AS errors,
         CAST(SUM(h.scope_refused) AS BIGINT) AS scope_refused,
         CAST(SUM(h.refused) AS BIGINT) AS refused,
         CAST(SUM(h.failed) AS BIGINT) AS failed,
         CAST(SUM(h.unanswered) AS BIGINT) AS unanswered"
    };
}

const KEYS_IN_HOURS: &str = concat!(
    "SELECT s.usage_key, s.last_hour, s.answered, s.tool_errors, s.errors, s.scope_refused, s.refused, s.failed,
            s.unanswered, k.subject, k.client_id, k.resource, k.kind, k.name
     FROM (SELECT h.usage_key AS usage_key, MAX(h.hour) AS last_hour, ",
    sums!(),
    ", "
);
/// The outcomes are added up for the keys of one page only.
const KEYS_IN_DAYS: &str = concat!(
    "SELECT s.usage_key, s.last_hour, k.subject, k.client_id, k.resource, k.kind, k.name, ",
    sums!(),
    " FROM (SELECT h.usage_key AS usage_key, MAX(h.last_hour) AS last_hour, "
);
const SLOTS_OF_HOURS: &str =
    concat!("SELECT h.server, h.hour AS slot, ", sums!(), " FROM usage_hours h");
const SLOTS_OF_DAYS: &str =
    concat!("SELECT h.server, h.day AS slot, ", sums!(), " FROM usage_days h");
const HOURS_OF_SERVERS: &str =
    concat!("SELECT h.server, h.hour AS slot, ", sums!(), " FROM usage_of_servers h");
const DAYS_OF_SERVERS: &str =
    concat!("SELECT h.server, h.hour / 24 AS slot, ", sums!(), " FROM usage_of_servers h");
const USE_OF_SERVERS: &str = concat!(
    "SELECT h.server, COUNT(DISTINCT k.subject) AS people, ",
    sums!(),
    " FROM usage_hours h JOIN usage_keys k ON k.id = h.usage_key"
);
const HOURS: &str = "SELECT h.hour, h.hour AS last_hour, h.usage_key, h.answered, h.tool_errors, h.errors,
            h.scope_refused, h.refused, h.failed, h.unanswered, k.subject, k.client_id, k.resource, k.kind, k.name
     FROM usage_hours h JOIN usage_keys k ON k.id = h.usage_key";

/// Returns the sum that a list is about.
const fn summed(outcome: Option<CallOutcome>) -> &'static str {
    match outcome {
        None => {
            "CAST(SUM(h.answered + h.tool_errors + h.errors + h.scope_refused + h.refused + h.failed
                      + h.unanswered) AS BIGINT)"
        }
        Some(CallOutcome::Answered) => "CAST(SUM(h.answered) AS BIGINT)",
        Some(CallOutcome::ToolError) => "CAST(SUM(h.tool_errors) AS BIGINT)",
        Some(CallOutcome::Error) => "CAST(SUM(h.errors) AS BIGINT)",
        Some(CallOutcome::ScopeRefused) => "CAST(SUM(h.scope_refused) AS BIGINT)",
        Some(CallOutcome::Refused) => "CAST(SUM(h.refused) AS BIGINT)",
        Some(CallOutcome::Failed) => "CAST(SUM(h.failed) AS BIGINT)",
        Some(CallOutcome::Unanswered) => "CAST(SUM(h.unanswered) AS BIGINT)",
    }
}

/// Returns the condition that an hour has such calls.
const fn has(outcome: CallOutcome) -> &'static str {
    match outcome {
        CallOutcome::Answered => "h.answered > 0",
        CallOutcome::ToolError => "h.tool_errors > 0",
        CallOutcome::Error => "h.errors > 0",
        CallOutcome::ScopeRefused => "h.scope_refused > 0",
        CallOutcome::Refused => "h.refused > 0",
        CallOutcome::Failed => "h.failed > 0",
        CallOutcome::Unanswered => "h.unanswered > 0",
    }
}

impl Storage {
    /// Returns who used what, summed up over the range.
    pub async fn list_usage(
        &self,
        filter: &UsageFilter,
        limit: i64,
    ) -> Result<Vec<UsageRow>, StorageError> {
        let UsageRange { step, from, until } = filter.range;
        let (select, table, last) = match step {
            UsageStep::Hours => (KEYS_IN_HOURS, " AS chosen FROM usage_hours h", "MAX(h.hour)"),
            UsageStep::Days => (KEYS_IN_DAYS, " AS chosen FROM usage_days h", "MAX(h.last_hour)"),
        };
        let sum = summed(filter.outcome);
        let mut listing = SelectBuilder::new(select);
        listing.text(sum).text(table);
        self.narrow(&mut listing, filter, filter.range);
        listing.text(" GROUP BY h.usage_key");
        if filter.outcome.is_some() {
            listing.text(" HAVING ").text(sum).text(" > 0");
        }
        let sorted = if filter.sort == UsageSort::Calls { sum } else { last };
        // Backwards, the rows nearest to the place are read.
        let inner = match (filter.sort, filter.backwards) {
            (UsageSort::Calls, false) => " ORDER BY chosen DESC, usage_key DESC LIMIT ?",
            (UsageSort::Calls, true) => " ORDER BY chosen, usage_key LIMIT ?",
            (UsageSort::Time, false) => " ORDER BY last_hour DESC, usage_key DESC LIMIT ?",
            (UsageSort::Time, true) => " ORDER BY last_hour, usage_key LIMIT ?",
        };
        let outer = match filter.sort {
            UsageSort::Calls => "ORDER BY s.chosen DESC, s.usage_key DESC",
            UsageSort::Time => "ORDER BY s.last_hour DESC, s.usage_key DESC",
        };
        if let Some((first, key)) = place(&filter.after) {
            listing.text(if filter.outcome.is_some() { " AND (" } else { " HAVING (" });
            let beyond =
                if filter.backwards { ", h.usage_key) > (?" } else { ", h.usage_key) < (?" };
            listing.text(sorted).ends(beyond, first).ends(", ?)", key);
        }
        // Limited before the keys are read, because only those of one page are needed.
        listing.ends(inner, limit).text(") s JOIN usage_keys k ON k.id = s.usage_key");
        if step == UsageStep::Days {
            let days = " JOIN usage_days h ON h.usage_key = s.usage_key AND h.day >= ?";
            listing.ends(days, from).ends(" AND h.day < ?", until);
            listing.text(
                " GROUP BY s.usage_key, s.last_hour, s.chosen, k.subject, k.client_id, k.resource,
                           k.kind, k.name",
            );
        }
        let rows = listing.fetch(self.pool(), outer, limit).await?;
        rows.iter().map(|row| self.read_usage(row)).collect()
    }

    /// Returns the calls of each MCP server in each hour or day of the range. Those in `resources` are named.
    pub async fn usage_slots(
        &self,
        filter: &UsageFilter,
        resources: &[&str],
    ) -> Result<Vec<UsageSlot>, StorageError> {
        let UsageRange { step, from, until } = filter.range;
        let mut range = filter.range;
        let (select, group) = match (filter.selects_keys(), step) {
            (true, UsageStep::Hours) => (SLOTS_OF_HOURS, " GROUP BY h.server, h.hour"),
            (true, UsageStep::Days) => (SLOTS_OF_DAYS, " GROUP BY h.server, h.day"),
            (false, UsageStep::Hours) => (HOURS_OF_SERVERS, " GROUP BY h.server, h.hour"),
            (false, UsageStep::Days) => {
                range = in_hours(from, until);
                (DAYS_OF_SERVERS, " GROUP BY h.server, h.hour / 24")
            }
        };
        let mut listing = SelectBuilder::new(select);
        self.narrow(&mut listing, filter, range);
        listing.text(group);
        let names = self.names_of_servers(resources);
        let rows = listing.fetch(self.pool(), "", i64::MAX).await?;
        let slot = |row: &AnyRow| -> Result<UsageSlot, StorageError> {
            let server: i64 = column(row, "server")?;
            let resource = names.get(&server).map(|name| (*name).to_owned());
            Ok(UsageSlot { resource, at: column(row, "slot")?, counts: read_counts(row)? })
        };
        rows.iter().map(slot).collect()
    }

    /// Returns how much each MCP server was used in the last 24 hours, by [`Storage::server_id`].
    pub async fn use_of_servers(
        &self,
        now: Timestamp,
    ) -> Result<HashMap<i64, ServerUse>, StorageError> {
        let hour = now.unix().div_euclid(3600);
        let mut listing = SelectBuilder::new(USE_OF_SERVERS);
        listing.and("h.hour > ?", hour - A_DAY).text(" GROUP BY h.server");
        let mut uses = HashMap::new();
        for row in &listing.fetch(self.pool(), "", i64::MAX).await? {
            let used = ServerUse { people: column(row, "people")?, counts: read_counts(row)? };
            uses.insert(column(row, "server")?, used);
        }
        Ok(uses)
    }

    /// Returns the hours that match, the oldest first, for a download. `filter.after` is a
    /// [`UsageHour::place`].
    pub async fn usage_hours(
        &self,
        filter: &UsageFilter,
        limit: i64,
    ) -> Result<Vec<UsageHour>, StorageError> {
        let UsageRange { step, from, until } = filter.range;
        let range = match step {
            UsageStep::Hours => filter.range,
            UsageStep::Days => in_hours(from, until),
        };
        let mut listing = SelectBuilder::new(HOURS);
        self.narrow(&mut listing, filter, range);
        if let Some(outcome) = filter.outcome {
            listing.only(has(outcome));
        }
        if let Some((hour, key)) = place(&filter.after) {
            listing.and("(h.hour, h.usage_key) > (?", hour).ends(", ?)", key);
        }
        let rows = listing.fetch(self.pool(), "ORDER BY h.hour, h.usage_key", limit).await?;
        let hour = |row: &AnyRow| -> Result<UsageHour, StorageError> {
            Ok(UsageHour { hour: column(row, "hour")?, row: self.read_usage(row)? })
        };
        rows.iter().map(hour).collect()
    }

    /// Returns whether any use by this person is stored.
    pub async fn has_usage_of_person(&self, subject: &str) -> Result<bool, StorageError> {
        let any = sqlx::query("SELECT 1 FROM usage_keys WHERE subject = $1 LIMIT 1").bind(subject);
        Ok(any.fetch_optional(self.pool()).await?.is_some())
    }

    /// Returns whether any use of this client is stored.
    pub async fn has_usage_of_client(&self, client_id: &str) -> Result<bool, StorageError> {
        let any = sqlx::query("SELECT 1 FROM usage_keys WHERE client_id = $1 LIMIT 1");
        Ok(any.bind(client_id).fetch_optional(self.pool()).await?.is_some())
    }

    /// Adds the conditions on the rows of a range.
    fn narrow(&self, listing: &mut SelectBuilder, filter: &UsageFilter, range: UsageRange) {
        let (from, until) = match range.step {
            UsageStep::Hours => ("h.hour >= ?", "h.hour < ?"),
            UsageStep::Days if filter.selects_keys() => ("h.day >= ?", "h.day < ?"),
            // `+` stops SQLite from using the index of days: the sums of all keys are read in the order of
            // keys, from the index that has everything.
            UsageStep::Days => ("+h.day >= ?", "+h.day < ?"),
        };
        listing.and(from, range.from).and(until, range.until);
        if !filter.resource.is_empty() {
            listing.and("h.server = ?", self.server_id(&filter.resource));
        }
        for (list, begin) in [
            (
                &filter.subjects,
                "h.usage_key IN (SELECT p.id FROM usage_keys p WHERE p.subject IN (?",
            ),
            (
                &filter.clients,
                "h.usage_key IN (SELECT c.id FROM usage_keys c WHERE c.client_id IN (?",
            ),
        ] {
            let Some((first, others)) = list.split_first() else { continue };
            listing.and(begin, first.as_str());
            for other in others {
                listing.ends(", ?", other.as_str());
            }
            listing.text("))");
        }
        if let Some(called) = &filter.called {
            let condition = "h.usage_key IN (SELECT n.id FROM usage_keys n WHERE n.name_hash = ?)";
            listing.and(condition, self.name_hash(called));
        }
    }

    fn names_of_servers<'a>(&self, resources: &[&'a str]) -> HashMap<i64, &'a str> {
        resources.iter().map(|resource| (self.server_id(resource), *resource)).collect()
    }

    fn read_usage(&self, row: &AnyRow) -> Result<UsageRow, StorageError> {
        let key: i64 = column(row, "usage_key")?;
        let name = self.opened_name(key, &column::<String>(row, "name")?)?;
        Ok(UsageRow {
            subject: column(row, "subject")?,
            client_id: column(row, "client_id")?,
            resource: column(row, "resource")?,
            called: CalledName::of(&column::<String>(row, "kind")?, &name),
            counts: read_counts(row)?,
            last_hour: column(row, "last_hour")?,
            key,
        })
    }
}

/// Returns the hours of a range of days.
const fn in_hours(from: i64, until: i64) -> UsageRange {
    UsageRange {
        step: UsageStep::Hours,
        from: from.saturating_mul(A_DAY),
        until: until.saturating_mul(A_DAY),
    }
}

/// Splits the two numbers after which the next page begins.
fn place(text: &str) -> Option<(i64, i64)> {
    let (first, key) = text.split_once(' ')?;
    Some((first.parse().ok()?, key.parse().ok()?))
}

fn read_counts(row: &AnyRow) -> Result<CallCounts, StorageError> {
    let mut counts = CallCounts::default();
    for (count, outcome) in counts.0.iter_mut().zip(CallOutcome::ALL) {
        *count = column(row, outcome.name())?;
    }
    Ok(counts)
}
