//! What lists of usage are about.

use super::{CallOutcome, CalledName};

/// The unit of a range, and of the bars of its chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsageStep {
    /// Hours since 1970 (UTC).
    Hours,
    /// Days since 1970 (UTC).
    Days,
}

/// A range of time, in hours or days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageRange {
    /// The unit of the other fields.
    pub step: UsageStep,
    /// The first hour or day.
    pub from: i64,
    /// The hour or day after the last one.
    pub until: i64,
}

/// By what a list is sorted, the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UsageSort {
    /// By the number of calls.
    #[default]
    Calls,
    /// By the hour of the last call.
    Time,
}

/// A filter for usage. Empty lists and texts match everything.
#[derive(Clone, Debug)]
pub struct UsageFilter {
    pub range: UsageRange,
    /// Only these people, by `sub`.
    pub subjects: Vec<String>,
    pub clients: Vec<String>,
    pub resource: String,
    /// Only this tool or method.
    pub called: Option<CalledName>,
    /// Only what ended so at least once; sorted by how often.
    pub outcome: Option<CallOutcome>,
    pub sort: UsageSort,
    /// The page begins after this row ([`UsageRow::place`](super::UsageRow::place)).
    pub after: String,
    /// Whether the page ends before that row instead: the previous page.
    pub backwards: bool,
}

impl UsageFilter {
    /// Returns a filter that matches everything in the range.
    pub fn of(range: UsageRange) -> Self {
        Self {
            range,
            subjects: Vec::new(),
            clients: Vec::new(),
            resource: String::new(),
            called: None,
            outcome: None,
            sort: UsageSort::default(),
            after: String::new(),
            backwards: false,
        }
    }

    /// Whether it selects by something that the sums of whole servers do not know.
    pub(super) fn selects_keys(&self) -> bool {
        !self.subjects.is_empty() || !self.clients.is_empty() || self.called.is_some()
    }
}
