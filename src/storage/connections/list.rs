//! Lists of connections, for administrators, without tokens.

use std::collections::BTreeSet;

use sqlx::any::AnyRow;

use super::{ACCOUNT_LABEL, CANNOT_BE_OPENED, bound_to, words};
use crate::clock::Timestamp;
use crate::storage::select::SelectBuilder;
use crate::storage::{NameSearch, Storage, StorageError, column, moment, moment_if_any};

/// Why a connection of another client than the configured one has to be made again.
const OTHER_CLIENT: &str = "the configuration has another client or service now";

/// A filter for connections. Empty texts match every connection.
#[derive(Clone, Debug, Default)]
pub struct ConnectionFilter {
    /// Only this one, by its id.
    pub id: String,
    /// Only of this service, by its name in the configuration.
    pub name: String,
    /// Only of this person, by `sub`.
    pub subject: String,
    /// Only those that their person has to connect again.
    pub broken: bool,
    /// The provider keys of the configured connections: what has another one is broken. `None`: not compared.
    pub configured: Option<Vec<String>>,
    /// Only of the people that a search found.
    pub search: Option<NameSearch>,
    /// Whether the oldest come first.
    pub oldest_first: bool,
    /// The page begins after this row, by id.
    pub after: String,
    /// Whether the page ends before that row instead: the previous page.
    pub backwards: bool,
}

impl ConnectionFilter {
    /// Adds the conditions of the filter, except for its place.
    pub(super) fn narrow(&self, listing: &mut SelectBuilder) {
        for (condition, value) in
            [("c.id = ?", &self.id), ("c.name = ?", &self.name), ("c.subject = ?", &self.subject)]
        {
            if !value.is_empty() {
                listing.and(condition, value.as_str());
            }
        }
        if let Some(search) = &self.search {
            listing.among("c.subject IN (?", &search.subjects());
        }
        if self.broken {
            only_broken(listing, self.configured.as_deref());
        }
    }

    const fn is_ascending(&self) -> bool {
        self.oldest_first != self.backwards
    }
}

/// Adds the condition that a connection has to be made again.
fn only_broken(listing: &mut SelectBuilder, configured: Option<&[String]>) {
    match configured.map(<[String]>::split_first) {
        None => {
            listing.only("c.state <> 'active'");
        }
        // Nothing is configured, so nothing works.
        Some(None) => {}
        Some(Some((first, others))) => {
            listing.and("(c.state <> 'active' OR c.provider_key NOT IN (?", first.as_str());
            for key in others {
                listing.ends(", ?", key.as_str());
            }
            listing.text("))");
        }
    }
}

/// A connection in a list.
#[derive(Clone, Debug)]
pub struct ConnectionRow {
    /// Row id. Rows are sorted by it: the newest has the highest.
    pub id: String,
    /// The person, by our `sub`.
    pub subject: String,
    /// The service's name in the configuration.
    pub name: String,
    /// The person's name at the service; `None`: not known, or it cannot be opened.
    pub account_label: Option<String>,
    /// The scopes that the service granted.
    pub scopes: BTreeSet<String>,
    /// Why the person has to connect the service again; `None`: the connection works.
    pub broken: Option<String>,
    /// When the person connected this account.
    pub created_at: Timestamp,
    /// When a token was last used, to the minute; `None`: never.
    pub used_at: Option<Timestamp>,
}

const COLUMNS: &str =
    "SELECT c.id, c.subject, c.name, c.provider_key, c.account_label, c.scopes, c.state, c.reason,
            c.created_at, c.used_at
     FROM connections c";

impl Storage {
    /// Lists connections, the newest first.
    pub async fn list_connections(
        &self,
        filter: &ConnectionFilter,
        limit: i64,
    ) -> Result<Vec<ConnectionRow>, StorageError> {
        let mut listing = SelectBuilder::new(COLUMNS);
        filter.narrow(&mut listing);
        let ascending = filter.is_ascending();
        if !filter.after.is_empty() {
            listing.and(if ascending { "c.id > ?" } else { "c.id < ?" }, filter.after.as_str());
        }
        let order = if ascending { "ORDER BY c.id" } else { "ORDER BY c.id DESC" };
        let rows = listing.fetch(self.pool(), order, limit).await?;
        let read =
            rows.iter().map(|row| self.read_connection_row(row, filter.configured.as_deref()));
        let mut connections = read.collect::<Result<Vec<_>, StorageError>>()?;
        if filter.backwards {
            connections.reverse();
        }
        Ok(connections)
    }

    /// Counts the connections that a filter lists, up to [`COUNTED`](crate::storage::COUNTED) and one more.
    pub async fn count_connections(&self, filter: &ConnectionFilter) -> Result<i64, StorageError> {
        let mut listing = SelectBuilder::new("SELECT c.id FROM connections c");
        filter.narrow(&mut listing);
        listing.count(self.pool()).await
    }

    /// Loads a connection by its id, whatever the configuration says of its service.
    pub async fn connection_row(&self, id: &str) -> Result<Option<ConnectionRow>, StorageError> {
        let mut listing = SelectBuilder::new(COLUMNS);
        listing.and("c.id = ?", id);
        let rows = listing.fetch(self.pool(), "", 1).await?;
        rows.first().map(|row| self.read_connection_row(row, None)).transpose()
    }

    /// Counts the people who have to connect a service again, by its name. `configured` has the provider keys of
    /// the configured connections.
    pub async fn broken_connections(
        &self,
        configured: &[String],
    ) -> Result<Vec<(String, i64)>, StorageError> {
        let mut listing =
            SelectBuilder::new("SELECT c.name, COUNT(*) AS number FROM connections c");
        only_broken(&mut listing, Some(configured));
        let rows = listing.fetch(self.pool(), "GROUP BY c.name ORDER BY c.name", i64::MAX).await?;
        rows.iter().map(|row| Ok((column(row, "name")?, column(row, "number")?))).collect()
    }

    fn read_connection_row(
        &self,
        row: &AnyRow,
        configured: Option<&[String]>,
    ) -> Result<ConnectionRow, StorageError> {
        let (id, subject): (String, String) = (column(row, "id")?, column(row, "subject")?);
        let (name, key): (String, String) = (column(row, "name")?, column(row, "provider_key")?);
        let sealed: Option<String> = column(row, "account_label")?;
        // A label that was moved or copied is not shown; the tokens of such a row are refused when they are used.
        let bound = bound_to(&id, &name, &key, &subject);
        let label = sealed.map(|sealed| self.open_json::<String>(ACCOUNT_LABEL, &bound, &sealed));
        let (label, unreadable) = match label.transpose() {
            Ok(label) => (label, false),
            Err(_) => (None, true),
        };
        let reason: Option<String> = column(row, "reason")?;
        let broken = if column::<String>(row, "state")? != "active" {
            Some(reason.unwrap_or_default())
        } else if unreadable {
            Some(CANNOT_BE_OPENED.to_owned())
        } else {
            let other = configured.is_some_and(|configured| !configured.contains(&key));
            other.then(|| OTHER_CLIENT.to_owned())
        };
        Ok(ConnectionRow {
            id,
            subject,
            name,
            account_label: label,
            scopes: words(&column::<String>(row, "scopes")?),
            broken,
            created_at: moment(row, "created_at")?,
            used_at: moment_if_any(row, "used_at")?,
        })
    }
}
