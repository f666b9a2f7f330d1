//! Builds a confirmation page.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::object::ActObject;
use super::question::Question;
use super::words::ConfirmWords;
use crate::admin::connections::{ServiceView, ServiceWords};
use crate::admin::grant_view::GrantView;
use crate::admin::links::{ROWS, client_path};
use crate::admin::names::server_name;
use crate::admin::visit::{AdminPage, missing};
use crate::oauth::client::ClientMetadata;
use crate::oauth::client_name::DisplayName;
use crate::oauth::redirect_uri::destination;
use crate::storage::{ClientRow, Counted, Ending, WaitingPerson};
use crate::web::counted::{CountWords, besides, number, rest};
use crate::web::list_page::Frame;
use crate::web::page_error::PageError;
use crate::web::web_session::confirmation;

/// What the page says on top: nothing, that the numbers have changed, or what was wrong with the form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstLine {
    Nothing,
    Changed,
    WrongNumber,
    NoReason,
}

/// A client that is deleted with others.
struct DeletedClient {
    path: String,
    name: Option<String>,
    goes_to: String,
    row: ClientRow,
}

impl DeletedClient {
    fn of(row: ClientRow) -> Self {
        let metadata = ClientMetadata::from_stored_json(&row.metadata).ok();
        let name = metadata.as_ref().and_then(|known| known.client_name.as_deref());
        let first = metadata.as_ref().and_then(|known| known.redirect_uris.first());
        Self {
            path: client_path(&row.id),
            name: DisplayName::of(name).text,
            goes_to: first.map(|uri| destination(uri.as_str()).to_string()).unwrap_or_default(),
            row,
        }
    }
}

#[derive(Template)]
#[template(path = "admin/confirm.html")]
struct ConfirmTemplate<'a> {
    frame: &'a Frame,
    w: &'static ConfirmWords,
    c: &'static CountWords,
    question: &'a Question,
    object: &'a ActObject,
    title: &'static str,
    button: &'static str,
    note: &'static str,
    /// What was wrong with the form that was sent.
    problem: Option<&'static str>,
    reason: &'a str,
    counted: &'a Counted,
    number: String,
    rest: String,
    besides: Vec<String>,
    grants: Vec<GrantView>,
    waiting: Vec<WaitingPerson>,
    clients: Vec<DeletedClient>,
    services: Vec<ServiceView>,
    to_type: Option<u64>,
    token: String,
    back: &'a str,
    /// Whether the administrator will have to sign in again.
    stale: bool,
}

impl ConfirmTemplate<'_> {
    /// Returns how many connections are not listed.
    fn not_shown(&self) -> u64 {
        self.counted.grants.saturating_sub(self.grants.len() as u64)
    }

    /// Returns how many clients are not listed.
    fn clients_not_shown(&self) -> u64 {
        self.counted.deleted.saturating_sub(self.clients.len() as u64)
    }

    /// Returns how many connected services are not listed.
    fn services_not_shown(&self) -> u64 {
        self.counted.services.saturating_sub(self.services.len() as u64)
    }

    /// The words of the list of connected services.
    fn s(&self) -> &'static ServiceWords {
        ServiceWords::of(self.frame.language)
    }

    fn removes_services(&self) -> bool {
        self.question.removes.is_some()
    }

    /// Returns how many connected services are removed, and of how many people.
    fn removed(&self) -> (String, String) {
        let Counted { services, people, .. } = self.counted;
        let number = match services {
            1 => self.w.one_service.to_owned(),
            n => format!("{n}{}", self.w.services),
        };
        let of = match people {
            1 => self.w.of_one.to_owned(),
            n => format!("{}{n}{}", self.w.of_people, self.w.people_end),
        };
        (number, of)
    }

    fn pointless(&self) -> Option<&'static str> {
        self.question.is_pointless(self.counted).then(|| self.w.pointless(self.question))
    }

    fn ends_something(&self) -> bool {
        self.question.ending.is_some()
    }
}

/// Counts what a question would end now.
pub(super) async fn count(visit: &AdminPage, question: &Question) -> Result<Counted, PageError> {
    let storage = visit.app().storage();
    if let Some(which) = &question.removes {
        return Ok(storage.count_removed(which).await?);
    }
    let Some(ending) = &question.ending else { return Ok(Counted::default()) };
    Ok(storage.count_ending(ending, visit.app().now()).await?)
}

/// Shows the page of a question.
pub(super) async fn show(
    visit: &AdminPage,
    question: &Question,
    line: FirstLine,
    reason: &str,
) -> Result<Response, PageError> {
    let mut frame = visit.frame(question.section()).await?;
    let (w, c) = (ConfirmWords::of(frame.language), CountWords::of(frame.language));
    let object = ActObject::of(visit, w, question).await?.ok_or_else(missing)?;
    if line == FirstLine::Changed {
        let is_rotation = question.act == "rotate_secret";
        frame.notice = Some(if is_rotation { w.rotated } else { c.changed }.to_owned());
    }
    let problem = match line {
        FirstLine::Nothing | FirstLine::Changed => None,
        FirstLine::WrongNumber => Some(w.wrong_number),
        FirstLine::NoReason => Some(w.no_reason),
    };
    // Counted before the lists are read. A connection made in between is then listed but not counted, so
    // the form asks again.
    let counted = count(visit, question).await?;
    let (title, button, note) = w.of_question(question);
    let from_person = question.from == "person";
    let back = object.back.as_deref().filter(|_| from_person).unwrap_or(&question.back);
    let template = ConfirmTemplate {
        frame: &frame,
        w,
        c,
        question,
        object: &object,
        title,
        button,
        note,
        problem,
        reason,
        number: number(frame.language, &counted),
        rest: rest(frame.language, &counted),
        besides: besides(frame.language, &counted),
        grants: grants(visit, &frame, question).await?,
        waiting: waiting(visit, question).await?,
        clients: clients(visit, question).await?,
        services: services(visit, &frame, question).await?,
        to_type: question.number_to_type(&counted),
        token: confirmation(visit.app(), &visit.visitor, &question.key(&object.seen), &counted),
        back,
        stale: !visit.visitor.fresh,
        counted: &counted,
    };
    let status = if problem.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    Ok(frame.answer_with(status, template.render()))
}

async fn grants(
    visit: &AdminPage,
    frame: &Frame,
    question: &Question,
) -> Result<Vec<GrantView>, PageError> {
    let Some(ending) = &question.ending else { return Ok(Vec::new()) };
    let (storage, now) = (visit.app().storage(), visit.app().now());
    let rows = storage.browse_grants(&ending.selection().filter(), now, ROWS).await?;
    Ok(GrantView::of_all(visit, frame, rows))
}

/// Returns the people who wait for a decision about the client, if the act ends their waiting.
async fn waiting(visit: &AdminPage, question: &Question) -> Result<Vec<WaitingPerson>, PageError> {
    match &question.ending {
        Some(Ending::BlockClient(id) | Ending::RefuseClient(id) | Ending::DeleteClient(id)) => {
            let (storage, now) = (visit.app().storage(), visit.app().now());
            let mut waiting = storage.people_waiting_for(id, now, ROWS).await?;
            for one in &mut waiting {
                let resources = &visit.app().config().resources;
                one.resource = server_name(resources, &one.resource).to_owned();
            }
            Ok(waiting)
        }
        _ => Ok(Vec::new()),
    }
}

/// Returns the first of the connected services that the act removes.
async fn services(
    visit: &AdminPage,
    frame: &Frame,
    question: &Question,
) -> Result<Vec<ServiceView>, PageError> {
    let Some(which) = &question.removes else { return Ok(Vec::new()) };
    Ok(ServiceView::first(visit.app(), ServiceWords::of(frame.language), which, ROWS).await?)
}

/// Returns the first of the clients that the act deletes.
async fn clients(visit: &AdminPage, question: &Question) -> Result<Vec<DeletedClient>, PageError> {
    let Some(Ending::DeleteUnused(since)) = &question.ending else { return Ok(Vec::new()) };
    let storage = visit.app().storage();
    let unused = storage.unused_clients(*since).await?;
    let mut clients = Vec::new();
    for id in unused.ids().iter().take(usize::try_from(ROWS).unwrap_or(usize::MAX)) {
        clients.extend(storage.client_details(id).await?.map(DeletedClient::of));
    }
    Ok(clients)
}
