//! Days that administrators enter. All times are UTC.

use std::time::Duration;

use crate::clock::Timestamp;

/// Parses a day (`2026-11-21`) and returns its first second.
pub(super) fn midnight(day: &str) -> Option<Timestamp> {
    let day = chrono::NaiveDate::parse_from_str(day, "%Y-%m-%d").ok()?;
    Some(Timestamp::from_unix(day.and_hms_opt(0, 0, 0)?.and_utc().timestamp()))
}

/// Parses a day and returns the first second after it.
pub(super) fn end_of_day(day: &str) -> Option<Timestamp> {
    midnight(day).map(|first| first.plus(Duration::from_hours(24)))
}
