//! `/audit/export`: the audit lines that match a search, as a file, newest first. They are read and sent
//! page by page. A spreadsheet that opens the file must find no formula in it (threat AD-02).

use std::fmt::Write as _;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;

use super::audit_search::AuditSearch;
use super::visit::{AdminPage, missing};
use crate::storage::{AuditFilter, AuditLine, Storage, StorageError};
use crate::web::page_error::PageError;

/// Lines per page. More cost memory, fewer cost more queries.
const PAGE: i64 = 500;

/// Media type of CSV with a first line of names (RFC 4180 §3).
pub(super) const CSV: &str = "text/csv; charset=utf-8; header=present";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExportFormat {
    JsonLines,
    Csv,
}

const COLUMNS: [&str; 11] = [
    "id",
    "time",
    "event",
    "actor",
    "client_id",
    "subject",
    "resource",
    "grant_id",
    "reference",
    "detail",
    "seq",
];

impl ExportFormat {
    fn parse(text: &str) -> Option<Self> {
        match text {
            "jsonl" => Some(Self::JsonLines),
            "csv" => Some(Self::Csv),
            _ => None,
        }
    }

    fn extension(self) -> &'static str {
        match self {
            Self::JsonLines => "jsonl",
            Self::Csv => "csv",
        }
    }

    fn content_type(self) -> HeaderValue {
        match self {
            Self::JsonLines => HeaderValue::from_static("application/x-ndjson; charset=utf-8"),
            Self::Csv => HeaderValue::from_static(CSV),
        }
    }

    /// Returns the text before the first line.
    fn heading(self) -> String {
        match self {
            Self::JsonLines => String::new(),
            Self::Csv => csv(COLUMNS),
        }
    }

    fn write(self, line: &AuditLine) -> String {
        match self {
            Self::JsonLines => {
                let detail: serde_json::Value =
                    serde_json::from_str(&line.detail).unwrap_or_else(|_| json!(line.detail));
                let line = json!({
                    "id": line.id,
                    "time": time(line.at),
                    "event": line.event,
                    "actor": line.actor,
                    "client_id": line.client_id,
                    "subject": line.subject,
                    "resource": line.resource,
                    "grant_id": line.grant_id,
                    "reference": line.reference,
                    "detail": detail,
                    "seq": line.seq,
                });
                format!("{line}\n")
            }
            Self::Csv => {
                let time = time(line.at);
                let seq = line.seq.map(|seq| seq.to_string()).unwrap_or_default();
                csv([
                    &line.id,
                    &time,
                    &line.event,
                    &line.actor,
                    line.client_id.as_deref().unwrap_or_default(),
                    line.subject.as_deref().unwrap_or_default(),
                    line.resource.as_deref().unwrap_or_default(),
                    line.grant_id.as_deref().unwrap_or_default(),
                    line.reference.as_deref().unwrap_or_default(),
                    &line.detail,
                    &seq,
                ])
            }
        }
    }
}

/// Formats milliseconds since 1970 as RFC 3339 with milliseconds.
fn time(at: i64) -> String {
    chrono::DateTime::from_timestamp_millis(at)
        .map(|time| time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
        .unwrap_or_default()
}

/// Formats a line of CSV (RFC 4180), with every cell in quotes.
pub(super) fn csv<const N: usize>(cells: [&str; N]) -> String {
    let mut line = String::new();
    for (position, cell) in cells.into_iter().enumerate() {
        let comma = if position == 0 { "" } else { "," };
        let mark = if is_formula(cell) { "'" } else { "" };
        let _ = write!(line, "{comma}\"{mark}{}\"", cell.replace('"', "\"\""));
    }
    line.push_str("\r\n");
    line
}

/// Returns whether a spreadsheet may evaluate this cell as a formula. That depends on the first character,
/// also in full width, because Japanese editions treat it alike. Leading white space is skipped, because
/// some programs strip it.
fn is_formula(cell: &str) -> bool {
    let begins = |text: &str| text.starts_with(['=', '+', '-', '@', '＝', '＋', '－', '＠']);
    cell.starts_with(['\t', '\r', '\n']) || begins(cell.trim_start())
}

pub(super) async fn get(visit: AdminPage) -> Result<Response, PageError> {
    let Some(format) = ExportFormat::parse(visit.param("format")) else { return Err(missing()) };
    let search = AuditSearch::of(&visit).await?;
    if search.not_a_day {
        return Err(missing()); // without that day, too many lines would be sent
    }
    let storage = visit.app().storage().clone();
    // Recorded before the first line is sent: a client that aborts the download has still received a part.
    let event = visit.event("audit_exported").with("format", format.extension());
    let event = event.with("search", search.told());
    storage.record(vec![event]).await?;
    let rest =
        RestOfExport { storage, filter: search.filter, format, heading: Some(format.heading()) };
    let pages = stream::unfold(Some(rest), |rest| async move {
        let mut rest = rest?;
        match rest.page().await {
            Ok(Some(page)) => Some((Ok(Bytes::from(page)), Some(rest))),
            Ok(None) => None,
            Err(cause) => {
                // The error aborts the connection, so that an incomplete file is not taken for a complete
                // one.
                tracing::error!(%cause, "an export of the audit trail broke off");
                Some((Err(cause), None))
            }
        }
    });
    let file = ("portcullis-audit", format.extension(), format.content_type());
    Ok(download(&visit, file, Body::from_stream(pages)))
}

/// Builds the answer that a browser stores as a file: its name, extension and media type.
pub(super) fn download(
    visit: &AdminPage,
    (name, extension, content_type): (&str, &str, HeaderValue),
    body: Body,
) -> Response {
    let day = chrono::DateTime::from_timestamp(visit.app().now().unix(), 0);
    let day = day.map(|day| day.format("%Y-%m-%d").to_string()).unwrap_or_default();
    let disposition =
        HeaderValue::from_str(&format!("attachment; filename=\"{name}-{day}.{extension}\""));
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (
            header::CONTENT_DISPOSITION,
            disposition.unwrap_or(HeaderValue::from_static("attachment")),
        ),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'; sandbox"),
        ),
    ];
    (headers, body).into_response()
}

/// The part of the export that is still to be sent.
struct RestOfExport {
    storage: Storage,
    filter: AuditFilter,
    format: ExportFormat,
    heading: Option<String>,
}

impl RestOfExport {
    /// Returns the next page, or `None` at the end.
    async fn page(&mut self) -> Result<Option<String>, StorageError> {
        let lines = self.storage.audit_lines(&self.filter, PAGE).await?;
        let heading = self.heading.take();
        let Some(last) = lines.last() else { return Ok(heading) };
        self.filter.before.clone_from(&last.id);
        let mut page = heading.unwrap_or_default();
        for line in &lines {
            page.push_str(&self.format.write(line));
        }
        Ok(Some(page))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ad_02_no_cell_begins_a_formula() {
        for hostile in [
            "=cmd|' /C calc'!A0",
            "=HYPERLINK(\"https://evil.example\",\"x\")",
            "+1+1",
            "-2+3",
            "@SUM(1+1)*cmd|' /C calc'!A0",
            "\t=1+1",
            "\r=1+1",
            "\n=1+1",
            "  =1+1",
            "＝1+1",
            "＠SUM(1)",
            "+81-3-0000-0000",
        ] {
            let line = csv([hostile]);
            let escaped = hostile.replace('"', "\"\"");
            assert_eq!(line, format!("\"'{escaped}\"\r\n"), "{hostile:?}");
        }
    }

    #[test]
    fn ad_02_a_cell_cannot_end_early() {
        assert_eq!(
            csv(["a", "b\",=1+1,\"", "c;d\r\n=1"]),
            "\"a\",\"b\"\",=1+1,\"\"\",\"c;d\r\n=1\"\r\n"
        );
        assert_eq!(csv(["", "plain"]), "\"\",\"plain\"\r\n");
    }

    #[test]
    fn times_have_milliseconds() {
        assert_eq!(time(1_795_219_200_042), "2026-11-21T00:00:00.042Z");
    }
}
