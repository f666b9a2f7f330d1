//! Step-up authorization (MCP, scope challenge handling): a client comes back for more scopes than it has.
//!
//! The consent page marks which scopes are new and which were approved before. If the rules do not allow the
//! scopes that the gateway demanded, the person sees an explanation, so that the client does not loop.

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;

use super::callback::AuthenticatedLogin;
use crate::app::App;
use crate::config::ResourceConfig;
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::error::ErrorCode;
use crate::oauth::scope::{Scope, ScopeSet};
use crate::oauth::sealed::Purpose;
use crate::policy::Decision;
use crate::storage::Person;
use crate::telemetry::audit::Actor;
use crate::telemetry::new_reference;
use crate::web::browser::{self, PageError};
use crate::web::cookies::Cookies;
use crate::web::pages::{Message, MessagePage, ReturnLink, ScopeLine, Standing};

/// 30 days: how long the cookie names the last person, for the marks on consent pages.
const PERSON_KNOWN: Duration = Duration::from_hours(30 * 24);
/// Context of the seal around that cookie's value.
const PERSON: &str = "person";

/// Returns what the last person to sign in with this browser has approved for this client, under grants that
/// are still live. Only the page uses this; nothing is decided by it.
pub(super) async fn approved_before(
    app: &App,
    headers: &HeaderMap,
    request: &AuthorizationRequest,
) -> ScopeSet {
    let cookies = Cookies::of(&app.config().public_url);
    let Some(subject) = cookies.person(headers).and_then(|sealed| known_person(app, &sealed))
    else {
        return ScopeSet::default();
    };
    let (client_id, resource) = (&request.client_id, &request.resource);
    let approved = app.storage().approved_scopes(&subject, client_id, resource, app.now()).await;
    approved.unwrap_or_else(|cause| {
        tracing::warn!(%cause, "what was approved before cannot be looked up");
        ScopeSet::default()
    })
}

/// Lists the scopes for the page: new ones first, then those that a broader scope includes, then those that
/// were approved before.
pub(super) fn scope_lines<'a>(
    resource: &'a ResourceConfig,
    asked: &'a ScopeSet,
    before: &ScopeSet,
) -> Vec<ScopeLine<'a>> {
    let hierarchy = &resource.policy.hierarchy;
    let before = hierarchy.with_implied(before);
    let any_before = !asked.intersection(&before).is_empty();
    let mut lines: Vec<ScopeLine<'_>> = resource
        .scope_texts
        .iter()
        .filter_map(|(scope, text)| {
            let broader =
                || asked.iter().find(|broad| hierarchy.implied_by(broad).any(|s| s == scope));
            let standing = match (asked.contains(scope), before.contains(scope)) {
                (true, true) => Standing::ApprovedBefore,
                (true, false) if any_before => Standing::New,
                (true, false) => Standing::Asked,
                (false, _) => Standing::IncludedIn(broader()?.as_str()),
            };
            Some(ScopeLine { scope: scope.as_str(), text: text.as_deref(), standing })
        })
        .collect();
    lines.sort_by_key(|line| match line.standing {
        Standing::Asked | Standing::New => 0,
        Standing::IncludedIn(_) => 1,
        Standing::ApprovedBefore => 2,
    });
    lines
}

/// Returns the `Set-Cookie` that names this person to the next consent page.
pub(super) fn remember_person(app: &App, subject: &str) -> HeaderValue {
    let sealed = app.sealer().seal(Purpose::Consent, PERSON, subject.as_bytes());
    let cookies = Cookies::of(&app.config().public_url);
    cookies.set_person(&sealed, PERSON_KNOWN.as_secs())
}

/// Returns the subject that [`remember_person`] sealed.
fn known_person(app: &App, sealed: &str) -> Option<String> {
    let opened = app.sealer().open(Purpose::Consent, PERSON, sealed).ok()?;
    std::str::from_utf8(&opened).ok().map(str::to_owned)
}

/// Returns an error page if the gateway refused this client for scopes, the client now requests them, and
/// the rules do not allow them. Another token with the same scopes would be refused again, and the client
/// would come back again.
pub(super) async fn unsatisfiable_step_up(
    app: &App,
    headers: &HeaderMap,
    arrived: &AuthenticatedLogin<'_>,
    decision: &Decision,
) -> Result<Option<Response>, PageError> {
    let AuthenticatedLogin { request, subject, person, back } = arrived;
    let Some(resource) = app.resource(&request.resource) else { return Ok(None) };
    if decision.missing.is_empty() {
        return Ok(None);
    }
    let client_id = &request.client_id;
    let step_ups = app
        .storage()
        .take_scope_challenges(
            (subject, client_id, &resource.id),
            &request.scopes,
            request.scopes == resource.policy.default_scopes,
            app.now(),
        )
        .await
        .map_err(|error| PageError::storage(headers, &error))?;
    let hierarchy = &resource.policy.hierarchy;
    let asked = hierarchy.with_implied(&request.scopes);
    let may = hierarchy.with_implied(&decision.granted);
    let missing = step_ups
        .iter()
        .filter(|needed| needed.is_subset(&asked))
        .fold(ScopeSet::default(), |all, needed| all.union(&needed.difference(&may)));
    if missing.is_empty() {
        return Ok(None);
    }
    let reference = new_reference();
    let event = app
        .event("step_up_refused", Actor::Person)
        .client(client_id)
        .subject(subject)
        .resource(&resource.id)
        .reference(&reference)
        .with("missing", missing.to_string())
        .with("rules", decision.matched.clone());
    app.record(event).await;
    let Person { name, email, .. } = person;
    let missing: Vec<&str> = missing.iter().map(Scope::as_str).collect();
    let description =
        "The rules do not allow the person these scopes; what was granted before stays";
    let url = back.with_error(ErrorCode::AccessDenied, Some(description));
    let page = MessagePage {
        language: browser::language(headers),
        status: StatusCode::FORBIDDEN,
        message: Message::NotAllowedMore {
            person: name.as_deref().or(email.as_deref()),
            missing: &missing,
        },
        reference: Some(&reference),
        return_to: Some(ReturnLink { url: &url, host_label: &back.label(), automatic: true }),
    };
    Ok(Some(page.render()))
}
