//! Limits the size of an SQLite database and its WAL, and decides which transactions may use the last
//! pages. On PostgreSQL, the size is up to the database's administrator.
//!
//! People who have signed in must be able to continue when strangers have filled the database. So
//! strangers' requests are rejected first, then new logins, and refreshes last. Transactions that end
//! grants may exceed the limit ([`super::group_commit`]).

use sqlx::{AnyConnection, AssertSqlSafe};

use crate::storage::database::{Database, StorageError};

/// A file with fewer pages left counts as full: 16 pages (64 KiB), some tens of refreshes.
const LAST_PAGES: i64 = 16;

/// The kind of use for which a transaction needs space, in the order in which a full database rejects
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Use {
    /// Records of requests that led to nothing: denials, rejected requests.
    Refusals,
    /// Data not in use yet: registrations, and assertions of clients without a live grant.
    Newcomers,
    /// The start of a login.
    SignIns,
    /// Requests of people who have signed in, and of the server itself.
    People,
}

impl Use {
    /// Returns up to what share of its limit the file may be filled for this use, in percent.
    pub(crate) const fn share(self) -> i64 {
        match self {
            Self::Refusals => 80,
            Self::Newcomers => 85,
            Self::SignIns => 90,
            Self::People => 100,
        }
    }

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Refusals => "refusals",
            Self::Newcomers => "clients that are not in use",
            Self::SignIns => "new sign-ins",
            Self::People => "anything",
        }
    }
}

/// The uses for which the database still has space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// None: not even refreshes can be written.
    None,
    /// No logins and no registrations.
    NoSignIns,
    NoRegistrations,
    /// Every use.
    #[default]
    Enough,
}

impl Room {
    /// Returns the text in the response of `/ready`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::NoSignIns => "no sign-ins",
            Self::NoRegistrations => "no registrations",
            Self::Enough => "enough",
        }
    }

    /// Returns the state of a file with `used` of at most `most` pages in use.
    pub(crate) fn of(used: i64, most: i64) -> Self {
        let full_for = |what: Use| used >= most.saturating_mul(what.share()) / 100;
        if used + LAST_PAGES >= most {
            Self::None
        } else if full_for(Use::SignIns) {
            Self::NoSignIns
        } else if full_for(Use::Newcomers) {
            Self::NoRegistrations
        } else {
            Self::Enough
        }
    }
}

/// How large the database file and its WAL may be.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Sizes {
    /// Pages of the database file.
    pub(crate) most_pages: i64,
    /// Bytes to which the WAL file is truncated (`journal_size_limit`).
    pub(crate) log: i64,
}

impl Database {
    /// Limits the SQLite file to `bytes`. Beyond that, writes fail with "try again" until retention frees
    /// space. A file that is larger already stays as it is and may not grow. The WAL file is truncated to
    /// `log` bytes once all of it is in the database file.
    pub(crate) async fn limit_size(&self, bytes: u64, log: u64) -> Result<(), StorageError> {
        let Some(sqlite) = self.sqlite() else { return Ok(()) };
        let page: i64 = sqlx::query_scalar("PRAGMA page_size").fetch_one(self.pool()).await?;
        let used: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(self.pool()).await?;
        let most = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
        if used > most {
            tracing::warn!("the database is larger than limits.database_size: it may not grow");
        }
        let log = i64::try_from(log).unwrap_or(i64::MAX);
        sqlite.writer.limit_size(Sizes { most_pages: most, log }).await
    }
}

/// Sets the limits on a connection. SQLite keeps them as long as the connection is open.
pub(crate) async fn limit(connection: &mut AnyConnection, sizes: Sizes) -> Result<(), sqlx::Error> {
    let Sizes { most_pages, log } = sizes;
    for pragma in [
        format!("PRAGMA max_page_count = {most_pages}"),
        format!("PRAGMA journal_size_limit = {log}"),
    ] {
        sqlx::query(AssertSqlSafe(pragma)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Counts the pages in use. SQLite reuses freed pages before the file grows.
pub(crate) async fn used_pages(connection: &mut AnyConnection) -> Result<i64, sqlx::Error> {
    let all: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut *connection).await?;
    let free: i64 = sqlx::query_scalar("PRAGMA freelist_count").fetch_one(connection).await?;
    Ok(all - free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_ends_for_strangers_first_and_for_people_who_are_in_last() {
        for (used, room) in [
            (0, Room::Enough),
            (849, Room::Enough),
            (850, Room::NoRegistrations),
            (899, Room::NoRegistrations),
            (900, Room::NoSignIns),
            (983, Room::NoSignIns),
            (984, Room::None),
            (2000, Room::None),
        ] {
            assert_eq!(Room::of(used, 1000), room, "{used}");
        }
    }
}
