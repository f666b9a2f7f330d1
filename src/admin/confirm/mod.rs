//! `/confirm`: the confirmation page for everything that ends, blocks, refuses, deletes or removes. It says
//! what happens, how much of it, and to which people. The confirmation is valid only for exactly what was
//! shown: other connections, or a client that has changed since, and the page asks again. It takes a reason
//! for the audit trail. A bulk act needs one, and its number typed.

mod object;
mod page;
mod question;
mod words;

use axum::response::Response;

use self::object::ActObject;
use self::page::FirstLine;
use self::question::Question;
pub(super) use self::question::RemovedServices;
use self::words::ConfirmWords;
use super::visit::{AdminForm, AdminPage, missing, read_only};
use crate::storage::{Counted, Ended};
use crate::telemetry::audit::AuditEvent;
use crate::web::page_error::PageError;
use crate::web::web_session::is_confirmed;
use crate::web::words::Language;

/// Longest reason, in characters.
const MAX_REASON: usize = 300;

/// An act that was confirmed.
pub(super) struct Confirmed {
    /// How many connections ended, or how many connected services were removed.
    pub(super) ended: u64,
    reason: String,
}

impl Confirmed {
    /// Adds the reason to the audit event of an act that the caller carries out.
    pub(super) fn explain(&self, event: AuditEvent) -> AuditEvent {
        with_reason(event, &self.reason)
    }
}

/// `GET /confirm`.
pub(super) async fn get(visit: AdminPage) -> Result<Response, PageError> {
    if !visit.visitor.may_change {
        return Err(read_only());
    }
    let question = Question::asked(|name| visit.param(name)).ok_or_else(missing)?;
    let changed = !visit.param("changed").is_empty();
    let line = if changed { FirstLine::Changed } else { FirstLine::Nothing };
    page::show(&visit, &question, line, "").await
}

/// Handles a button on a client's page. `Some`: the confirmation page, or the way to it.
pub(super) async fn act_on_client(
    action: &AdminForm,
    what: &str,
    id: &str,
) -> Result<Option<Response>, PageError> {
    Ok(settle(action, &Question::of_client(what, id)).await?.err())
}

/// Asks before the secret of a client is rotated, which the caller does.
pub(super) async fn rotate_secret(
    action: &AdminForm,
    id: &str,
) -> Result<Result<Confirmed, Response>, PageError> {
    settle(action, &Question::of_client("rotate", id)).await
}

/// Returns the way to the page that asks again, because the secret was rotated at the same time.
pub(super) fn rotated_meanwhile(visit: &AdminPage, id: &str) -> Response {
    visit.go(&changed(&Question::of_client("rotate", id)))
}

/// Asks before an approval pattern is removed, which the caller does.
pub(super) async fn remove_pattern(
    action: &AdminForm,
    host: &str,
) -> Result<Result<Confirmed, Response>, PageError> {
    settle(action, &Question::pattern(host)).await
}

/// Deletes the clients that nobody has used since a time. `None`: `since` is not a time.
pub(super) async fn delete_unused(
    action: &AdminForm,
    since: &str,
) -> Result<Option<Result<Confirmed, Response>>, PageError> {
    match Question::unused(since) {
        Some(question) => settle(action, &question).await.map(Some),
        None => Ok(None),
    }
}

/// The same as [`act_on_client`], for a button on a person's page.
pub(super) async fn act_on_person(
    action: &AdminForm,
    what: &str,
    subject: &str,
) -> Result<Option<Response>, PageError> {
    Ok(settle(action, &Question::of_person(what, subject)).await?.err())
}

/// The same, for a button that ends one connection.
pub(super) async fn act_on_grant(
    action: &AdminForm,
    id: &str,
) -> Result<Option<Response>, PageError> {
    Ok(settle(action, &Question::of_grant(id, action.field("back"))).await?.err())
}

/// Ends every connection granted before a day. Returns their number, or the confirmation page. `None`:
/// `day` is not a valid date.
pub(super) async fn act_before(
    action: &AdminForm,
    day: &str,
) -> Result<Option<Result<u64, Response>>, PageError> {
    match Question::before(day) {
        Some(question) => {
            let settled = settle(action, &question).await?;
            Ok(Some(settled.map(|confirmed| confirmed.ended)))
        }
        None => Ok(None),
    }
}

/// Removes connected services. Returns their number, or the confirmation page, or the way to it.
pub(super) async fn remove_services(
    action: &AdminForm,
    which: &RemovedServices,
) -> Result<Result<u64, Response>, PageError> {
    let settled = settle(action, &Question::services(which)).await?;
    Ok(settled.map(|confirmed| confirmed.ended))
}

/// Carries out the act if its confirmation is valid. Otherwise returns the confirmation page, or the way to
/// it.
async fn settle(
    action: &AdminForm,
    question: &Question,
) -> Result<Result<Confirmed, Response>, PageError> {
    let visit = &action.visit;
    let path = question.path();
    action.needs_fresh_proof(&path)?;
    let sent = action.field("counted");
    if sent.is_empty() {
        return Ok(Err(visit.go(&path)));
    }
    let again = || visit.go(&changed(question));
    // The words do not matter here: only what identifies the object.
    let object = ActObject::of(visit, ConfirmWords::of(Language::English), question).await?;
    let object = object.ok_or_else(missing)?;
    let counted = page::count(visit, question).await?;
    if !is_confirmed(visit.app(), &visit.visitor, &question.key(&object.seen), &counted, sent) {
        return Ok(Err(again()));
    }
    let reason = reason_of(action.field("reason"));
    if let Some(number) = question.number_to_type(&counted) {
        let typed = action.field("typed").replace([' ', ','], "");
        let line = match (typed == number.to_string(), reason.is_empty()) {
            (false, _) => FirstLine::WrongNumber,
            (true, true) => FirstLine::NoReason,
            (true, false) => FirstLine::Nothing,
        };
        if line != FirstLine::Nothing {
            return page::show(visit, question, line, &reason).await.map(Err);
        }
    }
    match carry_out(visit, question, &counted, &reason).await? {
        Ended::Done(ended) => Ok(Ok(Confirmed { ended, reason })),
        Ended::Unchanged => Ok(Ok(Confirmed { ended: 0, reason })),
        Ended::Recounted => Ok(Err(again())),
    }
}

/// Ends or removes what a question is about, if that is still what was counted.
async fn carry_out(
    visit: &AdminPage,
    question: &Question,
    counted: &Counted,
    reason: &str,
) -> Result<Ended, PageError> {
    let (storage, now) = (visit.app().storage(), visit.app().now());
    if let Some(which) = &question.removes {
        let event = with_reason(visit.event("connection_removed"), reason);
        return Ok(storage.remove_connections(which, Some(counted), now, event).await?);
    }
    let Some(ending) = &question.ending else { return Ok(Ended::Unchanged) };
    let event = with_reason(visit.event(ending.event()), reason);
    Ok(storage.apply_counted(ending, Some(counted), visit.by(), now, event).await?)
}

/// Returns the path of the page that asks again, because what it ends has changed.
fn changed(question: &Question) -> String {
    format!("{}&changed=1", question.path())
}

/// Returns the reason as it is stored: one line, of limited length.
fn reason_of(text: &str) -> String {
    let one_line = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    one_line.take(MAX_REASON).collect::<String>().trim().to_owned()
}

fn with_reason(event: AuditEvent, reason: &str) -> AuditEvent {
    if reason.is_empty() { event } else { event.with("reason", reason) }
}
