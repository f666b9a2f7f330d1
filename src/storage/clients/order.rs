//! What lists of clients are about, and their orders: each follows an index, and a page begins after a row of
//! the one before it.

use crate::clock::Timestamp;
use crate::storage::select::{SelectBuilder, after};

/// The order of a list of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientOrder {
    #[default]
    Newest,
    /// The last used first; those that were never used come last.
    LastUse,
    Name,
}

impl ClientOrder {
    pub const ALL: [Self; 3] = [Self::Newest, Self::LastUse, Self::Name];

    /// Returns the name in links and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::LastUse => "last-use",
            Self::Name => "name",
        }
    }

    /// Returns the order with this name; the newest first if there is none.
    pub fn parse(text: &str) -> Self {
        Self::ALL.into_iter().find(|order| order.as_str() == text).unwrap_or_default()
    }
}

#[derive(Clone, Debug, Default)]
pub struct ClientFilter {
    /// Any part of the name or of the host of the first redirect URI, or a whole `client_id`.
    pub search: String,
    /// `waiting`, `blocked`, `trusted` or `refused`. Anything else matches every client.
    pub standing: String,
    /// Only those that [`Storage::count_ending`](crate::storage::Storage::count_ending) counts as unused since this time.
    pub unused_since: Option<Timestamp>,
    pub order: ClientOrder,
    /// The page begins after this row. See [`Storage::page_after_client`](crate::storage::Storage::page_after_client).
    pub after: String,
    /// Whether the page ends before that row instead: the previous page.
    pub backwards: bool,
    /// How many clients one search looks at (`limits.clients_searched`); 0: at all of them.
    pub searched: u64,
}

/// One direction of an order.
pub(super) struct Direction {
    /// Whether the order is by name. The others are by time.
    by_name: bool,
    pub(super) order: &'static str,
    /// Begins the condition on the rows beyond a place. It is continued with the id.
    beyond: &'static str,
    /// The same on the rows up to that place.
    up_to: &'static str,
}

impl Direction {
    /// Adds the condition that a row is beyond a place; none if the text is no place.
    pub(super) fn go_on(&self, listing: &mut SelectBuilder, place: &str) {
        self.compare(listing, self.beyond, place);
    }

    /// Adds the condition that a row is not beyond a place.
    pub(super) fn stop_at(&self, listing: &mut SelectBuilder, place: &str) {
        self.compare(listing, self.up_to, place);
    }

    fn compare(&self, listing: &mut SelectBuilder, condition: &'static str, place: &str) {
        if self.by_name {
            if let Some((name, id)) = place.split_once(' ') {
                listing.and(condition, name).ends(", ?)", id);
            }
        } else if let Some((seconds, id)) = after(place) {
            listing.and(condition, seconds).ends(", ?)", id);
        }
    }
}

/// Makes the two directions of an order: descending, and ascending. `$bound` limits the first column alone,
/// because SQLite finds the beginning in an index of expressions only by that.
macro_rules! directions {
    ($key:literal, $id:literal, $by_name:literal, $bound_below:literal, $bound_above:literal) => {
        [
            Direction {
                by_name: $by_name,
                order: concat!("ORDER BY ", $key, " DESC, ", $id, " DESC"),
                beyond: concat!($bound_below, "(", $key, ", ", $id, ") < (?"),
                up_to: concat!($bound_above, "(", $key, ", ", $id, ") >= (?"),
            },
            Direction {
                by_name: $by_name,
                order: concat!("ORDER BY ", $key, ", ", $id),
                beyond: concat!($bound_above, "(", $key, ", ", $id, ") > (?"),
                up_to: concat!($bound_below, "(", $key, ", ", $id, ") <= (?"),
            },
        ]
    };
}

const DECIDED: [Direction; 2] = directions!("s.changed_at", "s.client_id", false, "", "");
const NEWEST: [Direction; 2] = directions!("c.issued_at", "c.id", false, "", "");
const NAME: [Direction; 2] = directions!("c.name_key", "c.id", true, "", "");
const LAST_USE: [Direction; 2] = directions!(
    "COALESCE(c.last_used_at, 0)",
    "c.id",
    false,
    "COALESCE(c.last_used_at, 0) <= ? AND ",
    "COALESCE(c.last_used_at, 0) >= ? AND "
);

/// Returns whether the last decision comes first.
pub(super) fn is_by_decision(filter: &ClientFilter) -> bool {
    filter.order == ClientOrder::Newest
        && filter.search.trim().is_empty()
        && standing_wanted(filter).is_some()
}

/// Returns the direction in which a page is read. Backwards, the rows nearest to its place come first.
pub(super) fn direction_of(filter: &ClientFilter) -> &'static Direction {
    let [descending, ascending] = match filter.order {
        ClientOrder::Newest if is_by_decision(filter) => &DECIDED,
        ClientOrder::Newest => &NEWEST,
        ClientOrder::LastUse => &LAST_USE,
        ClientOrder::Name => &NAME,
    };
    let ascends = (filter.order == ClientOrder::Name) != filter.backwards;
    if ascends { ascending } else { descending }
}

/// Returns the SQL condition for the review state in the filter.
pub(super) fn standing_wanted(filter: &ClientFilter) -> Option<&'static str> {
    Some(match filter.standing.as_str() {
        "waiting" => "s.state = 'waiting'",
        "refused" => "s.state = 'refused'",
        "blocked" => "s.blocked = 1",
        "trusted" => "s.trusted = 1",
        _ => return None,
    })
}
