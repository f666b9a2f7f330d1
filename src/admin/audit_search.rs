//! What the form and the links of `/audit` search for.

use std::time::Duration;

use chrono::NaiveDate;

use super::audit_words::AuditWords;
use super::links::PagePlace;
use super::names::Names;
use super::visit::AdminPage;
use crate::clock::Timestamp;
use crate::storage::{AuditFilter, Storage, StorageError};
use crate::telemetry::audit::REFUSALS;

/// Periods of time to choose from: the name in the query, and the length.
const HOUR: (&str, Duration) = ("hour", Duration::from_hours(1));
const DAY: (&str, Duration) = ("day", Duration::from_hours(24));

/// The input of the search form.
pub(super) struct AuditSearch {
    pub(super) filter: AuditFilter,
    /// A reference, a name or an id, as typed.
    pub(super) text: String,
    pub(super) since: String,
    pub(super) until: String,
    /// `refusals`, `admins`, or empty for everything.
    pub(super) show: &'static str,
    /// `hour`, `day`, or empty for any time.
    pub(super) last: &'static str,
    /// Whether routine events are asked for.
    pub(super) routine: bool,
    pub(super) not_a_day: bool,
}

/// A filter that a link sets or removes.
pub(super) struct FilterChip {
    pub(super) text: String,
    pub(super) path: String,
    pub(super) chosen: bool,
    /// Whether the link removes the filter.
    pub(super) removes: bool,
}

impl AuditSearch {
    /// Reads the search, and finds the people and clients that its text means.
    pub(super) async fn of(visit: &AdminPage) -> Result<Self, StorageError> {
        let text = |name| visit.param(name).trim().to_owned();
        let (since, until) = (text("since"), text("until"));
        let day = |text: &str| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
        let midnight = |day: NaiveDate| {
            day.and_hms_opt(0, 0, 0).map(|at| Timestamp::from_unix(at.and_utc().timestamp()))
        };
        let (first, last_day) = (day(&since), day(&until));
        let show = match visit.param("show") {
            "refusals" => "refusals",
            "admins" => "admins",
            _ => "",
        };
        let last = [HOUR, DAY].into_iter().find(|(name, _)| *name == visit.param("last"));
        let typed = Some(text("q")).filter(|typed| !typed.is_empty());
        let typed = typed.unwrap_or_else(|| text("ref"));
        let reference = reference_in(&typed);
        let names = match (&reference, typed.is_empty()) {
            (None, false) => Some(visit.find_names(&typed).await?),
            _ => None,
        };
        let from_day = first.and_then(midnight);
        let from_now = last.map(|(_, length)| visit.app().now().minus(length));
        Ok(Self {
            filter: AuditFilter {
                event: text("event"),
                client_id: text("client"),
                subject: text("sub"),
                grant_id: text("grant"),
                reference: reference.unwrap_or_default(),
                names,
                since: from_day.max(from_now),
                until: last_day.and_then(|day| day.succ_opt()).and_then(midnight),
                events: if show == "refusals" { REFUSALS } else { &[] },
                by_administrators: show == "admins",
                before: text("before"),
                after: text("after"),
                ..AuditFilter::default()
            },
            not_a_day: (!since.is_empty() && first.is_none())
                || (!until.is_empty() && last_day.is_none()),
            since,
            until,
            show,
            last: last.map_or("", |(name, _)| name),
            routine: !visit.param("routine").is_empty(),
            text: typed,
        })
    }

    /// Returns whether routine events are left out. A search for one event, one connection or one
    /// reference shows all of it.
    pub(super) fn hides_routine(&self) -> bool {
        let filter = &self.filter;
        let narrow = [&filter.event, &filter.grant_id, &filter.reference];
        !self.routine && narrow.into_iter().all(String::is_empty)
    }

    /// Returns whether one of the further fields of the form is filled in.
    pub(super) fn is_detailed(&self) -> bool {
        let filter = &self.filter;
        let ids = [&filter.event, &filter.client_id, &filter.subject, &filter.grant_id];
        ids.into_iter().chain([&self.since, &self.until]).any(|text| !text.is_empty())
    }

    /// Returns where the page begins.
    pub(super) fn place(&self) -> PagePlace<'_> {
        let backwards = !self.filter.after.is_empty();
        PagePlace {
            row: if backwards { &self.filter.after } else { &self.filter.before },
            backwards,
        }
    }

    /// Returns the fields of the search that are not empty.
    pub(super) fn fields(&self) -> Vec<(&'static str, &str)> {
        self.fields_with("", "")
    }

    /// The same with another value of one field. The order is always the same, so that equal searches have
    /// equal URLs.
    fn fields_with<'a>(&'a self, changed: &str, value: &'a str) -> Vec<(&'static str, &'a str)> {
        let filter = &self.filter;
        let routine = if self.routine { "1" } else { "" };
        let fields: [(&str, &str); 10] = [
            ("q", &self.text),
            ("event", &filter.event),
            ("client", &filter.client_id),
            ("sub", &filter.subject),
            ("grant", &filter.grant_id),
            ("since", &self.since),
            ("until", &self.until),
            ("show", self.show),
            ("last", self.last),
            ("routine", routine),
        ];
        let fields = fields.map(|(name, kept)| (name, if name == changed { value } else { kept }));
        fields.into_iter().filter(|(_, value)| !value.is_empty()).collect()
    }

    /// Returns a URL with the same search and `further` parameters.
    pub(super) fn query(&self, path: &str, further: &[(&str, &str)]) -> String {
        let mut query = form_urlencoded::Serializer::for_suffix(format!("{path}?"), path.len() + 1);
        query.extend_pairs(self.fields()).extend_pairs(further).finish()
    }

    /// Returns the search as text, for the audit event of an export.
    pub(super) fn told(&self) -> String {
        self.query("", &[]).trim_start_matches('?').to_owned()
    }

    /// Returns the path of this search with one field changed; an empty value removes it.
    fn with(&self, name: &str, value: &str) -> String {
        let mut query = super::links::query("/audit");
        query.extend_pairs(self.fields_with(name, value));
        query.finish().trim_end_matches('?').to_owned()
    }

    /// Loads the names of the person and the client that are searched for.
    pub(super) async fn names(&self, storage: &Storage) -> Result<Names, StorageError> {
        let subject = self.filter.subject.as_str();
        let client = self.filter.client_id.as_str();
        Names::of(storage, &[subject], &[client]).await
    }

    /// Returns the groups of filters: what is shown, from when, routine events, and the ids searched for.
    pub(super) fn chips(&self, w: &'static AuditWords, names: &Names) -> Vec<Vec<FilterChip>> {
        let choice = |name, value: &'static str, chosen: &str, text: &str| FilterChip {
            text: text.to_owned(),
            path: self.with(name, value),
            chosen: value == chosen,
            removes: false,
        };
        let removal = |name, text: String| FilterChip {
            text,
            path: self.with(name, ""),
            chosen: false,
            removes: true,
        };
        let mut groups = vec![
            vec![
                choice("show", "", self.show, w.all),
                choice("show", "refusals", self.show, w.refusals),
                choice("show", "admins", self.show, w.administrators),
            ],
            vec![
                choice("last", "", self.last, w.any_time),
                choice("last", HOUR.0, self.last, w.last_hour),
                choice("last", DAY.0, self.last, w.last_day),
            ],
        ];
        if self.routine || self.hides_routine() {
            let (value, text) =
                if self.routine { ("", w.hide_routine) } else { ("1", w.show_routine) };
            groups.push(vec![choice("routine", value, "none", text)]);
        }
        let filter = &self.filter;
        let person = || format!("{}: {}", w.person, names.person(&filter.subject).text);
        let client = || format!("{}: {}", w.client, names.client(&filter.client_id).text);
        let mut set = Vec::new();
        if !filter.subject.is_empty() {
            set.push(removal("sub", person()));
        }
        if !filter.client_id.is_empty() {
            set.push(removal("client", client()));
        }
        for (name, label, value) in
            [("event", w.event, &filter.event), ("grant", w.grant, &filter.grant_id)]
        {
            if !value.is_empty() {
                set.push(removal(name, format!("{label}: {value}")));
            }
        }
        if !set.is_empty() {
            groups.push(set);
        }
        groups
    }
}

/// Returns the reference of an error page that a text consists of, in upper case: people may type it from
/// hearing, or paste it from a mail.
fn reference_in(text: &str) -> Option<String> {
    let (left, right) = text.split_once('-')?;
    let is_half =
        |half: &str| half.len() == 4 && half.chars().all(|letter| letter.is_ascii_alphanumeric());
    (is_half(left) && is_half(right)).then(|| text.to_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_is_told_from_a_name() {
        assert_eq!(reference_in("7QCK-PTKQ").as_deref(), Some("7QCK-PTKQ"));
        assert_eq!(reference_in("7qck-ptkq").as_deref(), Some("7QCK-PTKQ"));
        for other in ["", "bob", "demo-bob", "7QCK PTKQ", "7QCK-PTKQX", "日本語名-PTKQ"] {
            assert_eq!(reference_in(other), None, "{other}");
        }
    }
}
