//! Lists for administrators: clients, grants, people, and the numbers of the overview. Each page is read
//! from an index and does not wait for the writer.

mod clients;
mod grants;
mod overview;
mod people;

pub use clients::{ClientFilter, ClientRow};
pub use grants::{GrantFilter, GrantRow, Selection};
pub use overview::Overview;
pub(in crate::storage) use overview::RememberedOverview;
pub use people::{PersonFilter, PersonRow};

/// Splits the `seconds key` with which the next page begins.
fn after(text: &str) -> Option<(i64, &str)> {
    let (seconds, key) = text.split_once(' ')?;
    Some((seconds.parse().ok()?, key))
}
