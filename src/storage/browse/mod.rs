//! What administrators look through: clients, grants, people, and the numbers of the overview. Lists
//! are read past the writer, a page at a time, each page from an index.

mod clients;
mod grants;
mod overview;
mod people;

pub use clients::{ClientFilter, ClientRow};
pub use grants::{GrantFilter, GrantRow, Selection};
pub use overview::Overview;
pub(in crate::storage) use overview::RememberedOverview;
pub use people::{PersonFilter, PersonRow};

/// `seconds key` of a page's beginning.
fn after(text: &str) -> Option<(i64, &str)> {
    let (seconds, key) = text.split_once(' ')?;
    Some((seconds.parse().ok()?, key))
}
