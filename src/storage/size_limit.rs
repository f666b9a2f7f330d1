//! How large an SQLite database and its log may grow, and which steps may use its last pages. On PostgreSQL
//! the administrator of the database limits its size.
//!
//! People who have signed in must be able to go on when strangers have filled the database: so steps of strangers
//! are refused first, then new sign-ins, and refreshes last. What ends grants may
//! write beyond the limit (`writer`).

use sqlx::{AnyConnection, AssertSqlSafe};

use super::group_commit::Sizes;
use super::{Storage, StorageError, Transaction, TransactionKind};

/// A file with fewer pages left than this has no room: 64 KiB, some tens of refreshes.
const LAST_PAGES: i64 = 16;

/// What a step stores something for, in the order in which a full database refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Use {
    /// What comes to nothing: denials, refused requests.
    Refusals,
    /// What is not in use yet: registrations, assertions of clients that nobody has signed in for.
    Newcomers,
    /// The beginning of a sign-in.
    SignIns,
    /// People who have signed in, and the server itself.
    People,
}

impl Use {
    /// Up to where the file may be filled for it, in percent.
    const fn share(self) -> i64 {
        match self {
            Self::Refusals => 80,
            Self::Newcomers => 85,
            Self::SignIns => 90,
            Self::People => 100,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Refusals => "refusals",
            Self::Newcomers => "clients that are not in use",
            Self::SignIns => "new sign-ins",
            Self::People => "anything",
        }
    }
}

/// What the database has room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Room {
    /// For nothing: not even refreshes can be written.
    None,
    /// Not for the beginning of a sign-in.
    NoSignIns,
    /// Not for registrations.
    NoRegistrations,
    /// For everything.
    #[default]
    Enough,
}

impl Room {
    /// As `/ready` says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::NoSignIns => "no sign-ins",
            Self::NoRegistrations => "no registrations",
            Self::Enough => "enough",
        }
    }

    /// Of a file of `most` pages at most, of which `used` are in use.
    fn of(used: i64, most: i64) -> Self {
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

impl Storage {
    /// Lets the SQLite file grow to `bytes`; beyond that, whoever writes more hears "try again", and
    /// clean-up makes room. A file that is larger already stays as it is, and may not grow. Its log is cut
    /// back to `log` bytes when all of it is in the file.
    pub async fn limit_size(&self, bytes: u64, log: u64) -> Result<(), StorageError> {
        let Some(writer) = &self.writer else { return Ok(()) };
        let page: i64 = sqlx::query_scalar("PRAGMA page_size").fetch_one(&self.pool).await?;
        let used: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&self.pool).await?;
        let most = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(1);
        if used > most {
            tracing::warn!("the database is larger than limits.database_size: it may not grow");
        }
        let log = i64::try_from(log).unwrap_or(i64::MAX);
        writer.limit_size(Sizes { most_pages: most, log }).await
    }

    /// Begins an atomic step that a full database refuses earlier than others.
    pub(super) async fn begin_for(&self, what: Use) -> Result<Transaction, StorageError> {
        let mut step = self.begin().await?;
        step.refuse_without_room(what).await?;
        Ok(step)
    }
}

impl Transaction {
    /// Refuses to go on where the rest of the file is kept for others.
    pub(super) async fn refuse_without_room(&mut self, what: Use) -> Result<(), StorageError> {
        if what < Use::People && !self.has_room(what).await? {
            return Err(StorageError::Full(what.as_str()));
        }
        Ok(())
    }

    /// Whether there is room for this.
    pub(super) async fn has_room(&mut self, what: Use) -> Result<bool, StorageError> {
        match &mut self.work {
            TransactionKind::Sqlite(step) => step.is_filled_less_than(what.share()).await,
            TransactionKind::Postgres(_) => Ok(true),
        }
    }

    /// What there is room for now.
    pub(super) async fn room(&mut self) -> Result<Room, StorageError> {
        match &mut self.work {
            TransactionKind::Sqlite(step) => {
                let pages = step.pages().await?;
                Ok(pages.map_or(Room::Enough, |(used, most)| Room::of(used, most)))
            }
            TransactionKind::Postgres(_) => Ok(Room::Enough),
        }
    }
}

/// Tells a connection. SQLite forgets it with the connection.
pub(super) async fn limit(connection: &mut AnyConnection, sizes: Sizes) -> Result<(), sqlx::Error> {
    let Sizes { most_pages, log } = sizes;
    for pragma in [
        format!("PRAGMA max_page_count = {most_pages}"),
        format!("PRAGMA journal_size_limit = {log}"),
    ] {
        sqlx::query(AssertSqlSafe(pragma)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Pages that hold something. Those that were freed are used again before the file grows.
pub(super) async fn used_pages(connection: &mut AnyConnection) -> Result<i64, sqlx::Error> {
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
