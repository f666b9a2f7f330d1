//! `/clients` and `/client`: the known clients, who connected them or waits for them, and the decisions
//! about them. `/clients/patterns`: websites whose clients need no review.

mod form;
mod list;
mod one;
mod patterns;
mod view;
mod words;

pub(super) use self::form::{create, edit, new, save};
pub(super) use self::list::{act_on_list, list};
pub(super) use self::one::{act, one};
pub(super) use self::patterns::{act_on_patterns, patterns};
pub(crate) use self::view::trustable;
