//! `/usage`: who used what. Calls through the gateway, summed up by person, client, MCP server and tool, with
//! a chart for each server. `usage_search.rs` has what is searched for.

use std::collections::HashMap;

use askama::Template;
use axum::response::Response;

use super::chart::{Chart, ChartSlot, ChartTexts};
use super::links::{PagePlace, ROWS, person_path};
use super::usage_search::UsageSearch;
use super::usage_words::UsageWords;
use super::visit::AdminPage;
use crate::clock::Timestamp;
use crate::config::ResourceConfig;
use crate::oauth::client::ClientMetadata;
use crate::oauth::client_name::DisplayName;
use crate::storage::{
    CallCounts, CallOutcome, CalledName, Storage, StorageError, UsageRow, UsageSlot, UsageSort,
    UsageStep,
};
use crate::web::list_page::{Frame, Pager, utc};
use crate::web::page_error::PageError;

/// A sum, prepared for display.
struct UsageView {
    row: UsageRow,
    person: String,
    /// The name; `None` for a client without one.
    client: Option<String>,
    server: String,
    /// Links that narrow the search.
    only_person: String,
    only_client: String,
    only_server: String,
    only_tool: Option<String>,
    last_hour: Timestamp,
}

impl UsageView {
    /// Returns the name of the tool as it may be displayed: clients choose it.
    fn tool(&self, w: &'static UsageWords) -> String {
        match &self.row.called {
            CalledName::Tool(name) if name.is_empty() => w.other_tools.to_owned(),
            CalledName::Method(name) if name.is_empty() => w.other_methods.to_owned(),
            CalledName::Tool(name) | CalledName::Method(name) => {
                DisplayName::of(Some(name)).text.unwrap_or_else(|| w.unnamed.to_owned())
            }
        }
    }

    fn is_method(&self) -> bool {
        matches!(&self.row.called, CalledName::Method(name) if !name.is_empty())
    }

    /// Returns the calls that did not end with a result, by outcome.
    fn others(&self, w: &'static UsageWords) -> Vec<String> {
        let counts = &self.row.counts;
        let others = CallOutcome::ALL.into_iter().skip(1);
        others
            .filter(|outcome| counts.of(*outcome) > 0)
            .map(|outcome| format!("{} {}", counts.of(outcome), w.outcome(outcome)))
            .collect()
    }
}

#[derive(Template)]
#[template(path = "admin/usage.html")]
struct UsageTemplate<'a> {
    frame: &'a Frame,
    w: &'static UsageWords,
    search: &'a UsageSearch,
    servers: Vec<(&'a str, &'a str, bool)>,
    outcomes: Vec<(&'static str, &'static str, bool)>,
    ranges: [(&'static str, &'static str, bool); 4],
    /// People that the search found, with their pages.
    people: Vec<(String, String)>,
    total: CallCounts,
    charts: Vec<(&'a str, Chart)>,
    rows: Vec<UsageView>,
    pager: Pager,
}

impl UsageTemplate<'_> {
    /// Returns the outcomes of all calls that match, with how many there are and the link to them.
    fn sums(&self) -> Vec<(i64, &'static str, String)> {
        let counts = CallOutcome::ALL.into_iter().filter(|outcome| self.total.of(*outcome) > 0);
        counts
            .map(|outcome| {
                let link = self.search.link("/usage", &[("outcome", outcome.name())]);
                (self.total.of(outcome), self.w.outcome(outcome), link)
            })
            .collect()
    }

    fn by_calls(&self) -> bool {
        self.search.filter.sort == UsageSort::Calls
    }
}

pub(super) async fn get(visit: AdminPage) -> Result<Response, PageError> {
    let mut frame = visit.frame("/usage").await?;
    let w = UsageWords::of(frame.language);
    let search = UsageSearch::of(&visit).await?;
    frame.notice = search.notice(w).map(str::to_owned);
    let storage = visit.app().storage();
    let resources = &visit.app().config().resources;
    let ids: Vec<&str> = resources.iter().map(|resource| resource.id.as_str()).collect();
    let (mut rows, slots) = if search.finds_nothing() {
        (Vec::new(), Vec::new())
    } else {
        let rows = storage.list_usage(&search.filter, ROWS + 1).await?;
        (rows, storage.usage_slots(&search.filter, &ids).await?)
    };
    let place = PagePlace { row: &search.filter.after, backwards: search.filter.backwards };
    let pager = place.pager(frame.language, &mut rows, |row, backwards| {
        let back = if backwards { "1" } else { "" };
        search.link("/usage", &[("after", &row.place(&search.filter)), ("back", back)])
    });
    let mut total = CallCounts::default();
    for slot in &slots {
        total.add(&slot.counts);
    }
    let chosen = &search.filter;
    let template = UsageTemplate {
        frame: &frame,
        w,
        servers: resources
            .iter()
            .map(|r| (r.id.as_str(), name_of(r), r.id == chosen.resource))
            .collect(),
        outcomes: CallOutcome::ALL
            .map(|one| (one.name(), w.outcome(one), chosen.outcome == Some(one)))
            .to_vec(),
        ranges: [("24h", w.day), ("7d", w.week), ("30d", w.month), ("own", w.own)]
            .map(|(value, text)| (value, text, value == search.range)),
        people: people(storage, &search).await?,
        charts: charts(w, &search, resources, &slots),
        rows: views(storage, &search, resources, rows).await?,
        total,
        pager,
        search: &search,
    };
    Ok(frame.answer(template.render()))
}

/// Returns the display name of an MCP server.
pub(super) fn name_of(resource: &ResourceConfig) -> &str {
    resource.name.as_deref().unwrap_or(&resource.id)
}

/// Returns the people that a search by name found, with their pages.
async fn people(
    storage: &Storage,
    search: &UsageSearch,
) -> Result<Vec<(String, String)>, StorageError> {
    let subjects: Vec<&str> = search.filter.subjects.iter().map(String::as_str).collect();
    let names = storage.names_of_people(&subjects).await?;
    let named = |(subject, name): (String, Option<String>)| {
        let path = person_path(&subject);
        (name.unwrap_or(subject), path)
    };
    let mut people: Vec<_> = names.into_iter().map(named).collect();
    people.sort();
    Ok(people)
}

async fn views(
    storage: &Storage,
    search: &UsageSearch,
    resources: &[ResourceConfig],
    rows: Vec<UsageRow>,
) -> Result<Vec<UsageView>, StorageError> {
    let subjects: Vec<&str> = rows.iter().map(|row| row.subject.as_str()).collect();
    let people = storage.names_of_people(&subjects).await?;
    let ids: Vec<&str> = rows.iter().map(|row| row.client_id.as_str()).collect();
    let clients = client_names(storage.metadata_of_clients(&ids).await?);
    let view = |row: UsageRow| {
        let name = people.get(&row.subject).cloned().flatten();
        let name = name.unwrap_or_else(|| row.subject.clone());
        let client = clients.get(&row.client_id);
        let server = resources.iter().find(|resource| resource.id == row.resource);
        let only = |name: &str, value: &str| search.link("/usage", &[(name, value)]);
        let (kind, tool) = (row.called.kind(), row.called.name());
        UsageView {
            person: name,
            client: client.cloned().unwrap_or_else(|| Some(row.client_id.clone())),
            server: server.map_or_else(|| row.resource.clone(), |one| name_of(one).to_owned()),
            only_person: only("person", &row.subject),
            only_client: only("client", &row.client_id),
            only_server: only("server", &row.resource),
            only_tool: (!tool.is_empty())
                .then(|| search.link("/usage", &[("tool", tool), ("kind", kind)])),
            last_hour: Timestamp::from_unix(row.last_hour.saturating_mul(3600)),
            row,
        }
    };
    Ok(rows.into_iter().map(view).collect())
}

/// Returns the display name of each client; `None` for one without a name.
pub(super) fn client_names(metadata: HashMap<String, String>) -> HashMap<String, Option<String>> {
    let name = |(id, json): (String, String)| {
        let metadata = ClientMetadata::from_stored_json(&json).ok();
        let name = metadata.as_ref().and_then(|metadata| metadata.client_name.as_deref());
        (id, DisplayName::of(name).text)
    };
    metadata.into_iter().map(name).collect()
}

/// Most bars of a chart: 62. A longer range has bars of several days.
const MOST_BARS: i64 = 62;

/// Draws a chart for each MCP server that was called.
fn charts<'a>(
    w: &'static UsageWords,
    search: &UsageSearch,
    resources: &'a [ResourceConfig],
    slots: &[UsageSlot],
) -> Vec<(&'a str, Chart)> {
    let of = |resource: &'a ResourceConfig| {
        let ours = |slot: &&UsageSlot| slot.resource.as_deref() == Some(resource.id.as_str());
        let slots: Vec<&UsageSlot> = slots.iter().filter(ours).collect();
        (!slots.is_empty())
            .then(|| (name_of(resource), chart(w, search, name_of(resource), &slots)))
    };
    resources.iter().filter_map(of).collect()
}

fn chart(w: &'static UsageWords, search: &UsageSearch, name: &str, slots: &[&UsageSlot]) -> Chart {
    let range = search.filter.range;
    let length = (range.until - range.from).max(1);
    let each = (length + MOST_BARS - 1) / MOST_BARS;
    let number = usize::try_from((length + each - 1) / each).unwrap_or(1);
    let mut numbers = vec![(0, 0); number];
    let mut total = CallCounts::default();
    for slot in slots {
        total.add(&slot.counts);
        let place = usize::try_from((slot.at - range.from) / each).ok();
        if let Some(bar) = place.and_then(|place| numbers.get_mut(place)) {
            bar.0 += slot.counts.of(CallOutcome::Answered);
            bar.1 += slot.counts.not_answered();
        }
    }
    let per_label = if number <= 8 { 1 } else { number.div_ceil(6) };
    let begins = |place: usize| {
        let at = range.from + i64::try_from(place).unwrap_or(0) * each;
        match range.step {
            UsageStep::Hours => utc(Timestamp::from_unix(at * 3600)),
            UsageStep::Days => utc(Timestamp::from_unix(at * 86_400)),
        }
    };
    // `2026-11-21 14:00 UTC`: the hour, or month and day.
    let part = match range.step {
        UsageStep::Hours => 11..16,
        UsageStep::Days => 5..10,
    };
    let label = |place| begins(place).get(part.clone()).unwrap_or_default().to_owned();
    let labels = (0..number).step_by(per_label).map(label).collect();
    let slot = |(place, numbers)| ChartSlot { label: begins(place), numbers };
    let texts = ChartTexts {
        about: format!("{name}: {} {}", total.total(), w.chart_of),
        first: w.answered,
        second: w.not_answered,
        time: w.time,
        as_table: w.as_table,
    };
    Chart::of(numbers.into_iter().enumerate().map(slot).collect(), labels, per_label, texts)
}
