//! The search of `/usage` and of its download: from the parameters of a URL to a filter, and back.

use super::day::midnight;
use super::links;
use super::usage_words::UsageWords;
use super::visit::AdminPage;
use crate::clock::Timestamp;
use crate::storage::{
    CallOutcome, CalledName, PersonFilter, Storage, StorageError, UsageFilter, UsageRange,
    UsageSort, UsageStep,
};
use crate::web::list_page::utc;

/// Most people, and most clients, that a search by name is about: 20.
const FOUND: i64 = 20;
/// Longest range in hours: two days. A longer one is summed up by days.
const HOURS_UP_TO: i64 = 2;
/// Longest range: ten years, as long as usage can be kept.
const MOST_DAYS: i64 = 3660;

pub(super) struct UsageSearch {
    pub(super) filter: UsageFilter,
    /// As entered.
    pub(super) person: String,
    pub(super) client: String,
    pub(super) tool: String,
    pub(super) kind: &'static str,
    /// `24h`, `7d`, `30d` or `own`.
    pub(super) range: &'static str,
    pub(super) since: String,
    pub(super) until: String,
    note: Option<SearchNote>,
}

/// What is to be said about a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SearchNote {
    NotADay,
    Nobody,
    NoClient,
    ManyPeople,
    ManyClients,
}

impl UsageSearch {
    pub(super) async fn of(visit: &AdminPage) -> Result<Self, StorageError> {
        let text = |name| visit.param(name).trim().to_owned();
        let storage = visit.app().storage();
        let (person, client, tool) = (text("person"), text("client"), text("tool"));
        let kind = if visit.param("kind") == "method" { "method" } else { "tool" };
        let (since, until) = (text("since"), text("until"));
        let now = visit.app().now();
        let range = match visit.param("range") {
            "7d" => "7d",
            "30d" => "30d",
            "own" => "own",
            _ => "24h",
        };
        let own = own_range(&since, &until, now);
        let not_a_day = range == "own" && own.is_none();
        let mut filter = UsageFilter::of(match range {
            "7d" => last_days(7, now),
            "30d" => last_days(30, now),
            "own" => own.unwrap_or_else(|| last_days(1, now)),
            _ => last_day(now),
        });
        let (subjects, many_people) = people(storage, &person).await?;
        let searched = visit.app().config().limits.clients_searched;
        let (clients, many_clients) = clients(storage, &client, searched).await?;
        let note = [
            (not_a_day, SearchNote::NotADay),
            (!person.is_empty() && subjects.is_empty(), SearchNote::Nobody),
            (!client.is_empty() && clients.is_empty(), SearchNote::NoClient),
            (many_people, SearchNote::ManyPeople),
            (many_clients, SearchNote::ManyClients),
        ];
        let note = note.into_iter().find(|(is_so, _)| *is_so).map(|(_, note)| note);
        filter.subjects = subjects;
        filter.clients = clients;
        text("server").clone_into(&mut filter.resource);
        filter.called = (!tool.is_empty()).then(|| CalledName::of(kind, &tool));
        filter.outcome = CallOutcome::named(visit.param("outcome"));
        filter.sort = match visit.param("sort") {
            "time" => UsageSort::Time,
            _ => UsageSort::Calls,
        };
        filter.after = text("after");
        filter.backwards = !visit.param("back").is_empty();
        Ok(Self { filter, person, client, tool, kind, range, since, until, note })
    }

    /// Whether no person or no client matches, or the days are none.
    pub(super) fn finds_nothing(&self) -> bool {
        use SearchNote::{NoClient, Nobody, NotADay};
        matches!(self.note, Some(NotADay | Nobody | NoClient))
    }

    /// Returns what is to be said about the search itself.
    pub(super) fn notice(&self, w: &'static UsageWords) -> Option<&'static str> {
        self.note.map(|note| match note {
            SearchNote::NotADay => w.not_a_day,
            SearchNote::Nobody => w.nobody,
            SearchNote::NoClient => w.no_client,
            SearchNote::ManyPeople => w.many_people,
            SearchNote::ManyClients => w.many_clients,
        })
    }

    /// Returns a URL with the same search, in which `others` take the place of their parameters. Empty
    /// parameters are left out.
    pub(super) fn link(&self, path: &str, others: &[(&str, &str)]) -> String {
        let filter = &self.filter;
        let sort = if filter.sort == UsageSort::Time { "time" } else { "" };
        let is_own = self.range == "own";
        let outcome = filter.outcome.map_or("", CallOutcome::name);
        let fields = [
            ("range", self.range),
            ("since", if is_own { self.since.as_str() } else { "" }),
            ("until", if is_own { self.until.as_str() } else { "" }),
            ("person", &self.person),
            ("client", &self.client),
            ("server", &filter.resource),
            ("tool", &self.tool),
            ("kind", if self.kind == "method" { "method" } else { "" }),
            ("outcome", outcome),
            ("sort", sort),
        ];
        let kept = fields.into_iter().filter(|(name, value)| {
            !value.is_empty() && !others.iter().any(|(other, _)| other == name)
        });
        let added = others.iter().copied().filter(|(_, value)| !value.is_empty());
        let mut query = links::query(path);
        query.extend_pairs(kept.chain(added)).finish()
    }
}

/// Returns the subjects that a text may mean, and whether there are more. A subject is also found when the
/// person is not stored any more.
async fn people(storage: &Storage, text: &str) -> Result<(Vec<String>, bool), StorageError> {
    if text.is_empty() {
        return Ok((Vec::new(), false));
    }
    let filter = PersonFilter { search: text.to_owned(), ..PersonFilter::default() };
    let found = storage.browse_people(&filter, FOUND + 1).await?;
    let mut subjects: Vec<String> = found.into_iter().map(|row| row.subject).collect();
    if subjects.is_empty() && storage.has_usage_of_person(text).await? {
        subjects.push(text.to_owned());
    }
    Ok(at_most(subjects))
}

async fn clients(
    storage: &Storage,
    text: &str,
    searched: u64,
) -> Result<(Vec<String>, bool), StorageError> {
    if text.is_empty() {
        return Ok((Vec::new(), false));
    }
    // An id first: the links of the page have one, and no name has to be searched for it.
    if storage.has_usage_of_client(text).await? {
        return Ok((vec![text.to_owned()], false));
    }
    Ok(at_most(storage.clients_found(text, searched, FOUND + 1).await?))
}

fn at_most(mut found: Vec<String>) -> (Vec<String>, bool) {
    let most = usize::try_from(FOUND).unwrap_or(usize::MAX);
    let many = found.len() > most;
    found.truncate(most);
    (found, many)
}

/// The current hour and the 23 before it.
fn last_day(now: Timestamp) -> UsageRange {
    let hour = now.unix().div_euclid(3600);
    UsageRange { step: UsageStep::Hours, from: hour - 23, until: hour + 1 }
}

/// Today and the days before it.
fn last_days(days: i64, now: Timestamp) -> UsageRange {
    let today = now.unix().div_euclid(86_400);
    UsageRange { step: UsageStep::Days, from: today + 1 - days, until: today + 1 }
}

/// The days from one to another, each included. Without the second one: up to today.
fn own_range(since: &str, until: &str, now: Timestamp) -> Option<UsageRange> {
    let day = |text: &str| Some(midnight(text)?.unix().div_euclid(86_400));
    let today = now.unix().div_euclid(86_400);
    let from = day(since)?;
    let last = if until.is_empty() { today } else { day(until)? };
    let days = last - from + 1;
    if !(1..=MOST_DAYS).contains(&days) || from < 0 {
        return None;
    }
    Some(if days <= HOURS_UP_TO {
        UsageRange { step: UsageStep::Hours, from: from * 24, until: (last + 1) * 24 }
    } else {
        UsageRange { step: UsageStep::Days, from, until: last + 1 }
    })
}

impl UsageSearch {
    /// Returns the range in words, for the audit event of a download.
    pub(super) fn told(&self) -> String {
        self.link("", &[]).trim_start_matches('?').to_owned()
    }

    /// Returns the first day of the range, for the form.
    pub(super) fn first_day(&self) -> String {
        if !self.since.is_empty() {
            return self.since.clone();
        }
        let seconds = match self.filter.range.step {
            UsageStep::Hours => 3600,
            UsageStep::Days => 86_400,
        };
        let first = Timestamp::from_unix(self.filter.range.from.saturating_mul(seconds));
        utc(first).get(..10).unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix(1_795_219_200 + 5 * 3600); // 2026-11-21 05:00
    const TODAY: i64 = 1_795_219_200 / 86_400;

    #[test]
    fn ranges_end_with_the_hour_or_day_that_is_now() {
        let hours = |from, until| UsageRange { step: UsageStep::Hours, from, until };
        let days = |from, until| UsageRange { step: UsageStep::Days, from, until };
        assert_eq!(last_day(NOW), hours(TODAY * 24 - 18, TODAY * 24 + 6));
        assert_eq!(last_days(7, NOW), days(TODAY - 6, TODAY + 1));
        for (since, until, range) in [
            ("2026-11-21", "2026-11-21", Some(hours(TODAY * 24, TODAY * 24 + 24))),
            ("2026-11-20", "2026-11-21", Some(hours(TODAY * 24 - 24, TODAY * 24 + 24))),
            ("2026-11-19", "2026-11-21", Some(days(TODAY - 2, TODAY + 1))),
            ("2026-11-19", "", Some(days(TODAY - 2, TODAY + 1))),
            ("2026-11-22", "2026-11-21", None),
            ("", "2026-11-21", None),
            ("2026-11-31", "", None),
            ("1969-12-31", "", None),
            ("2010-01-01", "2026-11-21", None),
        ] {
            assert_eq!(own_range(since, until, NOW), range, "{since} {until}");
        }
    }
}
