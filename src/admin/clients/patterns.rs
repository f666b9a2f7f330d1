//! `/clients/patterns`: websites whose clients need no review.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::words::PatternWords;
use crate::admin::confirm;
use crate::admin::day::end_of_day;
use crate::admin::names::Names;
use crate::admin::visit::{AdminForm, AdminPage, missing};
use crate::clock::Timestamp;
use crate::config::ClientApproval;
use crate::oauth::client::website::{Website, WebsiteRefused};
use crate::storage::{ApprovalPattern, NewApprovalPattern};
use crate::web::list_page::Frame;
use crate::web::page_error::PageError;

const PATH: &str = "/clients/patterns";
/// Stored as the author of what the command line changed.
const SHELL: &str = "shell";

/// A pattern, prepared for display.
struct PatternView {
    row: ApprovalPattern,
    by: String,
    over: bool,
}

#[derive(Template)]
#[template(path = "admin/patterns.html")]
struct PatternsTemplate<'a> {
    frame: &'a Frame,
    w: &'static PatternWords,
    patterns: Vec<PatternView>,
    no_effect: bool,
    problem: Option<&'static str>,
    website: &'a str,
    until: &'a str,
}

pub(in crate::admin) async fn patterns(visit: AdminPage) -> Result<Response, PageError> {
    let mut frame = visit.frame("/clients").await?;
    let w = PatternWords::of(frame.language);
    frame.notice = match visit.param("done") {
        "added" => Some(added(w, visit.param("approved"))),
        "removed" => Some(w.done_removed.to_owned()),
        _ => None,
    };
    show(&visit, &frame, None, ("", "")).await
}

fn added(w: &'static PatternWords, approved: &str) -> String {
    match approved.parse::<u64>().unwrap_or(0) {
        0 => w.done_added.to_owned(),
        1 => format!("{} {}", w.done_added, w.one_approved),
        number => format!("{} {number}{}", w.done_added, w.many_approved),
    }
}

/// Shows the page, with what was wrong with the form that was sent.
async fn show(
    visit: &AdminPage,
    frame: &Frame,
    problem: Option<&'static str>,
    (website, until): (&str, &str),
) -> Result<Response, PageError> {
    let w = PatternWords::of(frame.language);
    let now = visit.app().now();
    let storage = visit.app().storage();
    let rows = storage.approval_patterns().await?;
    let makers: Vec<&str> = rows.iter().map(|row| row.created_by.as_str()).collect();
    let names = Names::of(storage, &makers, &[]).await?;
    let view = |row: ApprovalPattern| {
        let by = match row.created_by.as_str() {
            SHELL => w.shell.to_owned(),
            subject => names.person(subject).text,
        };
        PatternView { by, over: row.until.is_some_and(|end| end <= now), row }
    };
    let patterns = rows.into_iter().map(view).collect();
    let template = PatternsTemplate {
        frame,
        w,
        patterns,
        no_effect: visit.app().config().client_approval != ClientApproval::FirstUse,
        problem,
        website,
        until,
    };
    let status = if problem.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    Ok(frame.answer_with(status, template.render()))
}

/// Reads the form: the website, and the end.
fn read(
    w: &'static PatternWords,
    (website, until): (&str, &str),
    now: Timestamp,
) -> Result<(Website, Option<Timestamp>), &'static str> {
    let website = Website::parse(website).map_err(|refused| match refused {
        WebsiteRefused::NotAHost => w.not_a_host,
        WebsiteRefused::NotAWebsite => w.not_a_website,
        WebsiteRefused::OtherLetters => w.other_letters,
    })?;
    if until.trim().is_empty() {
        return Ok((website, None));
    }
    let until = end_of_day(until.trim()).filter(|end| *end > now).ok_or(w.not_a_day)?;
    Ok((website, Some(until)))
}

/// `POST /clients/patterns`: adds a pattern, changes its end, or removes it.
pub(in crate::admin) async fn act_on_patterns(action: AdminForm) -> Result<Response, PageError> {
    match action.field("action") {
        "add" => add(&action).await,
        "remove" => remove(&action).await,
        _ => Err(missing()),
    }
}

async fn add(action: &AdminForm) -> Result<Response, PageError> {
    action.needs_fresh_proof(PATH)?;
    let visit = &action.visit;
    let frame = visit.frame("/clients").await?;
    let w = PatternWords::of(frame.language);
    let entered = (action.field("website"), action.field("until"));
    let now = visit.app().now();
    let (website, until) = match read(w, entered, now) {
        Ok(read) => read,
        Err(problem) => return show(visit, &frame, Some(problem), entered).await,
    };
    let new = NewApprovalPattern { website: &website, until, by: visit.by() };
    let event = visit.event("approval_pattern_added");
    match visit.app().storage().add_approval_pattern(&new, now, event).await? {
        Some(approved) => Ok(visit.go(&format!("{PATH}?done=added&approved={approved}"))),
        None => show(visit, &frame, Some(w.too_many), entered).await,
    }
}

async fn remove(action: &AdminForm) -> Result<Response, PageError> {
    let (visit, host) = (&action.visit, action.field("host"));
    let confirmed = match confirm::remove_pattern(action, host).await? {
        Ok(confirmed) => confirmed,
        Err(asks_first) => return Ok(asks_first),
    };
    let event = confirmed.explain(visit.event("approval_pattern_removed"));
    visit.app().storage().remove_approval_pattern(host, event).await?;
    Ok(visit.go(&format!("{PATH}?done=removed")))
}
