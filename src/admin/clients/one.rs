//! `/client`: one client, the people who wait for it or have connected it, and the decisions about it.

use std::collections::BTreeSet;

use askama::Template;
use axum::response::Response;

use super::form;
use super::view::{ClientView, trustable};
use super::words::ClientWords;
use crate::admin::confirm;
use crate::admin::grant_view::GrantView;
use crate::admin::links::{ROWS, client_path, person_path};
use crate::admin::names::Names;
use crate::admin::visit::{AdminForm, AdminPage, missing};
use crate::clock::Timestamp;
use crate::oauth::client::ClientMetadata;
use crate::oauth::redirect_uri::RedirectUri;
use crate::storage::{
    ClientActivity, ClientDecided, ClientDecision, ClientRow, GrantFilter, ReviewDecision,
    ReviewState, WaitingPerson,
};
use crate::web::in_force::InForceWords;
use crate::web::list_page::Frame;
use crate::web::page_error::PageError;

/// A person who waits for the decision, prepared for display.
struct WaitingView {
    path: String,
    name: String,
    server: String,
    /// Each scope, with its text.
    scopes: Vec<(String, String)>,
    since: Timestamp,
}

impl WaitingView {
    fn of(visit: &AdminPage, waiting: WaitingPerson) -> Self {
        let (resources, language) = (&visit.app().config().resources, visit.language());
        let resource = resources.iter().find(|resource| resource.id == waiting.resource);
        let scopes = waiting.scopes.iter().map(|scope| {
            let known = resource.and_then(|r| r.scopes.iter().find(|known| known.scope == *scope));
            let text = known.and_then(|known| known.text_in(language.tag()));
            (scope.to_string(), text.unwrap_or_default().to_owned())
        });
        let name = waiting.person.name.filter(|name| !name.trim().is_empty());
        Self {
            path: person_path(&waiting.subject),
            name: name.unwrap_or(waiting.subject),
            server: resource.and_then(|resource| resource.name.clone()).unwrap_or(waiting.resource),
            scopes: scopes.collect(),
            since: waiting.since,
        }
    }
}

#[derive(Template)]
#[template(path = "admin/client.html")]
struct ClientTemplate<'a> {
    frame: &'a Frame,
    w: &'static ClientWords,
    client: &'a ClientView,
    pretty: String,
    waiting: Vec<WaitingView>,
    /// Who waited first, if nobody waits now: path, name and time.
    waited: Option<(String, String, Timestamp)>,
    grants: Vec<GrantView>,
    scopes: &'static InForceWords,
    trustable: bool,
}

impl ClientTemplate<'_> {
    fn has_lapsed(&self) -> bool {
        self.client.row.standing.has_lapsed()
    }

    fn has_secret(&self) -> bool {
        self.client.is_created() && self.client.row.is_confidential()
    }

    fn redirect_uris(&self) -> Vec<&str> {
        let metadata = self.client.metadata.iter();
        metadata.flat_map(|m| &m.redirect_uris).map(RedirectUri::as_str).collect()
    }

    fn encoded_id(&self) -> String {
        form_urlencoded::byte_serialize(self.client.row.id.as_bytes()).collect()
    }
}

pub(in crate::admin) async fn one(visit: AdminPage) -> Result<Response, PageError> {
    let (storage, now) = (visit.app().storage(), visit.app().now());
    let id = visit.param("id");
    let row = storage.client_details(id).await?.ok_or_else(missing)?;
    let waiting = storage.people_waiting_for(id, now, ROWS).await?;
    let people: BTreeSet<&str> = waiting.iter().map(|one| one.subject.as_str()).collect();
    let activity = ClientActivity {
        waiting: i64::try_from(people.len()).unwrap_or(i64::MAX),
        waiting_since: waiting.first().map(|first| first.since),
        ..ClientActivity::default()
    };
    let waited = if waiting.is_empty() { waited(&visit, &row).await? } else { None };
    let client = ClientView::of(row, activity);
    let mut frame = visit.frame("/clients").await?;
    let w = ClientWords::of(frame.language);
    frame.notice = done(w, visit.param("done")).map(str::to_owned);
    let filter = GrantFilter { client_id: id.to_owned(), ..GrantFilter::default() };
    let grants = storage.browse_grants(&filter, now, 10).await?;
    let template = ClientTemplate {
        frame: &frame,
        w,
        trustable: client.metadata.as_ref().is_some_and(trustable),
        pretty: pretty(&client.row.metadata),
        waiting: waiting.into_iter().map(|one| WaitingView::of(&visit, one)).collect(),
        waited,
        grants: GrantView::of_all(&visit, &frame, grants),
        scopes: InForceWords::of(frame.language),
        client: &client,
    };
    Ok(frame.answer(template.render()))
}

/// Returns who waited first for a client that is still undecided: path, name and time.
async fn waited(
    visit: &AdminPage,
    row: &ClientRow,
) -> Result<Option<(String, String, Timestamp)>, PageError> {
    let standing = &row.standing;
    match (standing.state, standing.requested_at, &standing.requested_by) {
        (ReviewState::Waiting, Some(at), Some(by)) => {
            let names = Names::of(visit.app().storage(), &[by.as_str()], &[]).await?;
            Ok(Some((person_path(by), names.person(by).text, at)))
        }
        _ => Ok(None),
    }
}

fn pretty(json: &str) -> String {
    serde_json::from_str::<serde_json::Value>(json)
        .and_then(|value| serde_json::to_string_pretty(&value))
        .unwrap_or_default()
}

fn done(w: &'static ClientWords, what: &str) -> Option<&'static str> {
    Some(match what {
        "approve" => w.done_approved,
        "refuse" => w.done_refused,
        "trust" => w.done_trusted,
        "untrust" => w.done_untrusted,
        "block" => w.done_blocked,
        "unblock" => w.done_unblocked,
        "end" => w.done_ended,
        "saved" => w.done_saved,
        "changed" => w.changed,
        _ => return None,
    })
}

/// `POST /client`: a button on the client's page, or *Approve* in the list.
pub(in crate::admin) async fn act(action: AdminForm) -> Result<Response, PageError> {
    let visit = &action.visit;
    let (id, what) = (action.field("id"), action.field("action"));
    let row = visit.app().storage().client_details(id).await?;
    let row = row.ok_or_else(missing)?;
    let verdict = match what {
        "approve" => ReviewDecision::Approve,
        "trust" => ReviewDecision::Trust,
        "untrust" => ReviewDecision::Untrust,
        "unblock" => ReviewDecision::Unblock,
        "rotate" => return form::rotate(&action, &row).await,
        "refuse" | "block" | "end" | "delete" => {
            let asked = confirm::act_on_client(&action, what, id).await?;
            return Ok(asked.unwrap_or_else(|| match what {
                "delete" => visit.go("/clients?done=deleted"),
                _ => visit.go(&format!("{}&done={what}", client_path(id))),
            }));
        }
        _ => return Err(missing()),
    };
    let page = match action.field("back") {
        "list" => "/clients?standing=waiting".to_owned(),
        _ => client_path(id),
    };
    // Approving a client that people wait for needs no recent sign-in: it ends nothing and reopens nothing.
    let lets_somebody_go_on =
        verdict == ReviewDecision::Approve && row.standing.state == ReviewState::Waiting;
    if !lets_somebody_go_on {
        action.needs_fresh_proof(&page)?;
    }
    if verdict == ReviewDecision::Trust {
        let metadata = ClientMetadata::from_stored_json(&row.metadata);
        if !metadata.is_ok_and(|metadata| trustable(&metadata)) {
            return Ok(visit.go(&client_path(id)));
        }
    }
    let done = if decide(&action, id, verdict).await? { what } else { "changed" };
    Ok(visit.go(&format!("{page}&done={done}")))
}

/// Decides about the client. Returns `false` if it is no longer what the administrator saw: a decision
/// that grants something applies only to the metadata that they have read, not to newer ones.
async fn decide(action: &AdminForm, id: &str, verdict: ReviewDecision) -> Result<bool, PageError> {
    let visit = &action.visit;
    let decision = ClientDecision::new(id, verdict, visit.by()).of_seen(action.field("seen"));
    let (storage, now) = (visit.app().storage(), visit.app().now());
    let event = visit.event(verdict.event());
    let decided = storage.decide_client_as_seen(decision, now, event).await?;
    Ok(decided != ClientDecided::OtherClient)
}
