//! `/audit`: the audit trail, searchable and page by page, and the verification of its chain.

use askama::Template;
use axum::response::Response;

use super::audit_search::{AuditSearch, FilterChip};
use super::audit_words::AuditWords;
use super::links::{ROWS, why_path};
use super::names::{Linked, Names};
use super::telling::{Telling, names_in, told};
use super::visit::AdminPage;
use crate::clock::Timestamp;
use crate::config::ResourceConfig;
use crate::storage::{AuditLine, ChainBroken, Verified};
use crate::telemetry::audit::{EVENTS, ROUTINE};
use crate::web::list_page::{Frame, Pager};
use crate::web::page_error::PageError;
use crate::web::words::Language;

/// An audit line, prepared for display.
struct AuditPageLine {
    row: AuditLine,
    moment: Timestamp,
    /// Targets of the links in the line.
    person_path: String,
    client_path: String,
    /// The names of the person and of the client, or their ids.
    person_name: String,
    client_name: String,
}

impl AuditPageLine {
    fn of(row: AuditLine, names: &Names) -> Self {
        let parts = |linked: Option<Linked>| {
            linked.map(|linked| (linked.text, linked.path.unwrap_or_default())).unwrap_or_default()
        };
        let (person_name, person_path) =
            parts(row.subject.as_deref().map(|subject| names.person(subject)));
        let (client_name, client_path) = parts(row.client_id.as_deref().map(|id| names.client(id)));
        let moment = Timestamp::from_unix(row.at.div_euclid(1000));
        Self { row, moment, person_path, client_path, person_name, client_name }
    }

    /// Returns whether there is nothing else to say about the event.
    fn has_no_detail(&self) -> bool {
        self.row.detail == "{}"
    }

    /// Returns the details as `name: value`, separated by semicolons.
    fn detail_text(&self) -> String {
        let Ok(serde_json::Value::Object(members)) = serde_json::from_str(&self.row.detail) else {
            return self.row.detail.clone();
        };
        let pairs = members.iter().map(|(name, value)| format!("{name}: {}", told(name, value)));
        pairs.collect::<Vec<_>>().join("; ")
    }
}

/// An audit line as a sentence.
struct Told {
    line: AuditPageLine,
    sentence: Vec<Linked>,
    actor: Linked,
    why: Option<String>,
}

impl Told {
    fn of(row: AuditLine, names: &Names, resources: &[ResourceConfig], language: Language) -> Self {
        let telling = Telling::of(&row, names, resources, language);
        let (sentence, actor) = (telling.sentence(), telling.actor());
        Self { why: why_path(&row), sentence, actor, line: AuditPageLine::of(row, names) }
    }
}

#[derive(Template)]
#[template(path = "admin/audit.html")]
struct AuditTemplate<'a> {
    frame: &'a Frame,
    w: &'static AuditWords,
    search: &'a AuditSearch,
    chips: Vec<Vec<FilterChip>>,
    events: Vec<(&'static str, bool)>,
    /// Whether the page leaves out routine events.
    routine_hidden: bool,
    rows: Vec<Told>,
    pager: Pager,
    head: i64,
    verified: Option<Result<Verified, ChainBroken>>,
}

impl AuditTemplate<'_> {
    fn routine() -> String {
        ROUTINE.join(", ")
    }
}

pub(super) async fn get(visit: AdminPage) -> Result<Response, PageError> {
    let mut frame = visit.frame("/audit").await?;
    let w = AuditWords::of(frame.language);
    let search = AuditSearch::of(&visit).await?;
    if search.not_a_day {
        frame.notice = Some(w.not_a_day.to_owned());
    }
    let storage = visit.app().storage();
    let verified = if visit.param("verify").is_empty() {
        None
    } else {
        let verified = storage.verify_audit().await?;
        // A sweep that removes old lines during the first walk makes them look missing. Only a second
        // failure counts.
        Some(match verified {
            Ok(verified) => Ok(verified),
            Err(_) => storage.verify_audit().await?,
        })
    };
    let mut filter = search.filter.clone();
    let routine_hidden = search.hides_routine();
    if routine_hidden {
        filter.without_routine = true;
    }
    let mut rows = storage.audit_lines(&filter, ROWS + 1).await?;
    let pager = search.place().pager(frame.language, &mut rows, |row, backwards| {
        search.query("/audit", &[(if backwards { "after" } else { "before" }, &row.id)])
    });
    let names = names_in(storage, &rows).await?;
    let chosen = search.names(storage).await?;
    let resources = &visit.app().config().resources;
    let tell = |row| Told::of(row, &names, resources, frame.language);
    let template = AuditTemplate {
        frame: &frame,
        w,
        chips: search.chips(w, &chosen),
        events: EVENTS.iter().map(|event| (*event, *event == search.filter.event)).collect(),
        routine_hidden,
        rows: rows.into_iter().map(tell).collect(),
        pager,
        head: storage.audit_head().await?,
        verified,
        search: &search,
    };
    Ok(frame.answer(template.render()))
}
