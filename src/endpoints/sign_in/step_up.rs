//! Step-up authorization (MCP, scope challenge handling): a client comes back for more scopes than it has.
//!
//! The consent page marks which scopes are new and which were approved before. If the rules do not allow the
//! scopes that the gateway demanded, the person sees an explanation, so that the client does not loop.

use axum::response::Response;

use super::outcome::AuthenticatedLogin;
use crate::config::{ResourceConfig, scope_texts};
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::error::ErrorCode;
use crate::oauth::scope::ScopeSet;
use crate::oauth::sealed::Purpose;
use crate::policy::Decision;
use crate::storage::{NewRefusal, RefusedAt};
use crate::telemetry::audit::Actor;
use crate::telemetry::new_reference;
use crate::web::browser::Browser;
use crate::web::cookies::{self, Sealed, SetCookies};
use crate::web::page_error::PageError;
use crate::web::pages::{Message, ScopeLine, Standing};
use crate::web::words::Language;

/// Context of the seal around the value of the *person* cookie.
const PERSON: &str = "person";

/// Returns what the last person to sign in with this browser has approved for this client, under grants that
/// are still live. Only the page uses this; nothing is decided by it.
pub(super) async fn approved_before(browser: &Browser, request: &AuthorizationRequest) -> ScopeSet {
    let app = &browser.app;
    let Some(subject) = known_person(browser) else { return ScopeSet::default() };
    let (client_id, resource) = (&request.client_id, &request.resource);
    let approved = app.storage().approved_scopes(&subject, client_id, resource, app.now()).await;
    approved.unwrap_or_else(|cause| {
        tracing::warn!(%cause, "what was approved before cannot be looked up");
        ScopeSet::default()
    })
}

/// Lists the scopes for the page: new ones first, then those that a broader scope includes, then those that
/// were approved before. With `choice` the person may leave out each requested scope. The texts are in `language`.
pub(super) fn scope_lines<'a>(
    resource: &'a ResourceConfig,
    asked: &'a ScopeSet,
    before: &ScopeSet,
    (choice, language): (bool, Language),
) -> Vec<ScopeLine<'a>> {
    let hierarchy = &resource.policy.hierarchy;
    let before = hierarchy.with_implied(before);
    let any_before = !asked.intersection(&before).is_empty();
    let mut lines: Vec<ScopeLine<'_>> = resource
        .scopes
        .iter()
        .filter_map(|known| {
            let scope = &known.scope;
            let broader =
                || asked.iter().find(|broad| hierarchy.implied_by(broad).any(|s| s == scope));
            let standing = match (asked.contains(scope), before.contains(scope)) {
                (true, true) => Standing::ApprovedBefore,
                (true, false) if any_before => Standing::New,
                // Leaving it out changes nothing while the broader one stays, and the page says so.
                (true, false) => broader()
                    .map_or(Standing::Asked, |broader| Standing::IncludedIn(broader.as_str())),
                (false, _) => Standing::IncludedIn(broader()?.as_str()),
            };
            Some(ScopeLine {
                scope: scope.as_str(),
                text: known.text_in(language.tag()),
                standing,
                destructive: known.destructive,
                choice: choice && asked.contains(scope),
            })
        })
        .collect();
    lines.sort_by_key(|line| match line.standing {
        Standing::Asked | Standing::New => 0,
        Standing::IncludedIn(_) => 1,
        Standing::ApprovedBefore => 2,
    });
    lines
}

/// Returns the cookie that names this person to the next consent page.
pub(super) fn remember_person(browser: &Browser, subject: &str) -> SetCookies {
    let sealed = browser.app.sealer().seal(Purpose::Consent, PERSON, subject.as_bytes());
    cookies::PERSON.set(&browser.cookies, "", &Sealed(sealed))
}

/// Returns the subject that [`remember_person`] sealed.
fn known_person(browser: &Browser) -> Option<String> {
    let Sealed(sealed) = cookies::PERSON.get(&browser.cookies, "")?;
    let opened = browser.app.sealer().open(Purpose::Consent, PERSON, &sealed).ok()?;
    std::str::from_utf8(&opened).ok().map(str::to_owned)
}

/// Returns an error page if the gateway refused this client for scopes, the client now requests them, and
/// the rules do not allow them. Another token with the same scopes would be refused again, and the client
/// would come back again.
pub(super) async fn unsatisfiable_step_up(
    browser: &Browser,
    arrived: &AuthenticatedLogin<'_>,
    decision: &Decision,
) -> Result<Option<Response>, PageError> {
    let app = &browser.app;
    let AuthenticatedLogin { request, subject, back, .. } = arrived;
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
        .await?;
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
    app.note_refusal(&NewRefusal {
        subject,
        resource: &resource.id,
        client_id,
        step: RefusedAt::StepUp,
        reference: Some(&reference),
        asked: &missing,
        person: arrived.person,
    })
    .await;
    let missing = scope_texts(Some(resource), &missing, browser.language.tag());
    let message = Message::NotAllowedMore { person: arrived.shown_name(), missing: &missing };
    let description =
        "The rules do not allow the person these scopes; what was granted before stays";
    let error = (ErrorCode::AccessDenied, Some(description));
    Ok(Some(back.explain(browser, message, &reference, error).await))
}
