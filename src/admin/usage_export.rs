//! `/usage/export`: the hours that match a search of `/usage`, as CSV, the oldest first. They are read and sent
//! page by page.

use axum::body::{Body, Bytes};
use axum::http::HeaderValue;
use axum::response::Response;
use futures_util::stream;

use super::export::{CSV, csv, download};
use super::usage::client_names;
use super::usage_search::UsageSearch;
use super::visit::{AdminPage, missing};
use crate::storage::{Storage, StorageError, UsageFilter, UsageHour};
use crate::web::page_error::PageError;

/// Hours per page. More cost memory, fewer cost more queries.
const PAGE: i64 = 500;

const COLUMNS: [&str; 16] = [
    "hour",
    "subject",
    "name",
    "client_id",
    "client_name",
    "mcp_server",
    "kind",
    "tool",
    "calls",
    "answered",
    "tool_errors",
    "errors",
    "scope_refused",
    "refused",
    "failed",
    "unanswered",
];

pub(super) async fn get(visit: AdminPage) -> Result<Response, PageError> {
    let mut search = UsageSearch::of(&visit).await?;
    if search.finds_nothing() {
        return Err(missing()); // without that condition, too much would be sent
    }
    search.filter.after = String::new();
    let storage = visit.app().storage().clone();
    // Recorded before the first line is sent: a client that aborts the download has still received a part.
    let event = visit.event("usage_exported").with("search", search.told());
    storage.record(vec![event]).await?;
    let rest = RestOfUsage { storage, filter: search.filter, heading: Some(csv(COLUMNS)) };
    let pages = stream::unfold(Some(rest), |rest| async move {
        let mut rest = rest?;
        match rest.page().await {
            Ok(Some(page)) => Some((Ok(Bytes::from(page)), Some(rest))),
            Ok(None) => None,
            Err(cause) => {
                // The error aborts the connection, so that an incomplete file is not taken for a complete
                // one.
                tracing::error!(%cause, "a download of the usage broke off");
                Some((Err(cause), None))
            }
        }
    });
    let file = ("portcullis-usage", "csv", HeaderValue::from_static(CSV));
    Ok(download(&visit, file, Body::from_stream(pages)))
}

/// The part of the download that is still to be sent.
struct RestOfUsage {
    storage: Storage,
    filter: UsageFilter,
    heading: Option<String>,
}

impl RestOfUsage {
    /// Returns the next page, or `None` at the end.
    async fn page(&mut self) -> Result<Option<String>, StorageError> {
        let hours = self.storage.usage_hours(&self.filter, PAGE).await?;
        let heading = self.heading.take();
        let Some(last) = hours.last() else { return Ok(heading) };
        self.filter.after = last.place();
        let subjects: Vec<&str> = hours.iter().map(|hour| hour.row.subject.as_str()).collect();
        let people = self.storage.names_of_people(&subjects).await?;
        let ids: Vec<&str> = hours.iter().map(|hour| hour.row.client_id.as_str()).collect();
        let clients = client_names(self.storage.metadata_of_clients(&ids).await?);
        let mut page = heading.unwrap_or_default();
        for hour in &hours {
            let name = people.get(&hour.row.subject).and_then(Option::as_deref);
            let client = clients.get(&hour.row.client_id).and_then(Option::as_deref);
            page.push_str(&line(hour, name.unwrap_or_default(), client.unwrap_or_default()));
        }
        Ok(Some(page))
    }
}

fn line(hour: &UsageHour, name: &str, client: &str) -> String {
    let row = &hour.row;
    let time = chrono::DateTime::from_timestamp(hour.hour.saturating_mul(3600), 0);
    let time = time.map(|time| time.format("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default();
    let counts = row.counts.0.map(|count| count.to_string());
    let total = row.counts.total().to_string();
    let mut cells = [""; COLUMNS.len()];
    let texts = [
        time.as_str(),
        &row.subject,
        name,
        &row.client_id,
        client,
        &row.resource,
        row.called.kind(),
        row.called.name(),
        &total,
    ];
    let counts = counts.iter().map(String::as_str);
    for (cell, text) in cells.iter_mut().zip(texts.into_iter().chain(counts)) {
        *cell = text;
    }
    csv(cells)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::CallOutcome;

    #[test]
    fn the_columns_end_with_the_outcomes() {
        let outcomes: Vec<_> = CallOutcome::ALL.iter().map(|outcome| outcome.name()).collect();
        assert_eq!(COLUMNS[COLUMNS.len() - outcomes.len()..], outcomes);
    }
}
