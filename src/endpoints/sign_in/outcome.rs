//! The outcome of a login: a code for the client, or a page that says why there is none.

use axum::response::Response;

use crate::app::App;
use crate::config::{ResourceConfig, scope_texts};
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::error::ErrorCode;
use crate::oauth::secret::{AuthorizationCode, Secret, new_id};
use crate::policy::Decision;
use crate::storage::{NewCode, NewRefusal, Person, RefusedAt, SessionUpdate};
use crate::telemetry::audit::{Actor, AuditEvent};
use crate::telemetry::log_throttle::KeyedLogThrottle;
use crate::telemetry::new_reference;
use crate::upstream::LoginFailed;
use crate::web::browser::{Browser, see_other};
use crate::web::client_redirect::ClientRedirect;
use crate::web::page_error::PageError;
use crate::web::pages::Message;

static UNAVAILABLE: KeyedLogThrottle = KeyedLogThrottle::new();
static MISCONFIGURED: KeyedLogThrottle = KeyedLogThrottle::new();

/// A person who has come back from the identity provider and is authenticated.
pub(super) struct AuthenticatedLogin<'a> {
    pub(super) request: &'a AuthorizationRequest,
    /// Our `sub`.
    pub(super) subject: &'a str,
    pub(super) person: &'a Person,
    pub(super) back: &'a ClientRedirect<'a>,
}

impl AuthenticatedLogin<'_> {
    /// Returns the name by which a page addresses the person.
    pub(super) fn shown_name(&self) -> Option<&str> {
        let Person { name, email, .. } = self.person;
        name.as_deref().or(email.as_deref())
    }
}

/// Returns the MCP server of a request. The configuration may have dropped it while the person was signing
/// in.
pub(super) fn known_resource<'a>(
    app: &'a App,
    request: &AuthorizationRequest,
) -> Result<&'a ResourceConfig, PageError> {
    let resource = app.resource(&request.resource);
    resource.ok_or_else(|| Message::UnknownResource.because("resource gone"))
}

/// Applies the rules: which of the requested scopes this person gets.
pub(super) fn decide(
    resource: &ResourceConfig,
    request: &AuthorizationRequest,
    person: &Person,
) -> Decision {
    resource.policy.decide(&person.facts, &request.client_id, &request.scopes)
}

/// Stores our authorization code and redirects to the client with it.
pub(super) async fn issue(
    app: &App,
    arrived: &AuthenticatedLogin<'_>,
    session: &SessionUpdate,
    decision: &Decision,
) -> Result<Response, PageError> {
    let code = Secret::<AuthorizationCode>::generate(&new_id(app.clock()));
    let now = app.now();
    let new = NewCode {
        code: &code,
        request: arrived.request,
        scopes: &decision.granted,
        subject: arrived.subject,
        expires_at: now.plus(app.config().tokens.code),
    };
    let event = issued(app, arrived.request, arrived.subject, &code, decision);
    app.storage().finish_login(session, &new, now, event).await?;
    Ok(see_other(&arrived.back.with_code(code.expose())))
}

/// Builds the audit event of an issued code.
pub(super) fn issued(
    app: &App,
    request: &AuthorizationRequest,
    subject: &str,
    code: &Secret<AuthorizationCode>,
    decision: &Decision,
) -> AuditEvent {
    about(app, "code_issued", request, Some(subject))
        .with("code_id", code.id())
        .with("scopes", decision.granted.to_string())
        .with("rules", decision.matched.clone())
}

pub(super) fn about(
    app: &App,
    event: &'static str,
    request: &AuthorizationRequest,
    subject: Option<&str>,
) -> AuditEvent {
    let event = app.event(event, Actor::Person).client(&request.client_id);
    let event = event.resource(&request.resource);
    match subject {
        Some(subject) => event.subject(subject),
        None => event,
    }
}

/// Returns an error page if the rules leave this person no scope, otherwise `None`. It explains to the
/// signed-in person that no rule gives them access, and reports `access_denied` to the client.
pub(super) async fn no_access(
    browser: &Browser,
    arrived: &AuthenticatedLogin<'_>,
    decision: &Decision,
) -> Option<Response> {
    let app = &browser.app;
    let AuthenticatedLogin { request, subject, back, .. } = arrived;
    let resource = app.resource(&request.resource);
    let refuses = resource.is_none_or(|resource| resource.policy.refuses(&request.scopes));
    if !decision.granted.is_empty() || !refuses {
        return None;
    }
    let reference = new_reference();
    let not_known = resource.map(|resource| {
        resource.policy.not_known(&arrived.person.facts, &request.client_id, &request.scopes)
    });
    let not_known = not_known.unwrap_or_default();
    let event = about(app, "access_denied", request, Some(subject))
        .reference(&reference)
        .person_name(arrived.shown_name())
        .with("asked", request.scopes.to_string())
        .with("rules", decision.matched.clone());
    let is_decided = not_known.is_empty();
    app.record(if is_decided { event } else { event.with("not_known", not_known) }).await;
    app.note_refusal(&NewRefusal {
        subject,
        resource: &request.resource,
        client_id: &request.client_id,
        step: RefusedAt::SignIn,
        reference: Some(&reference),
        asked: &request.scopes,
        person: arrived.person,
    })
    .await;
    if !is_decided {
        let error = (ErrorCode::AccessDenied, Some("The person's rights could not be checked"));
        return Some(back.explain(browser, Message::RightsNotKnown, &reference, error).await);
    }
    let missing = scope_texts(resource, &request.scopes, browser.language.tag());
    let message = Message::NoAccess {
        person: arrived.shown_name(),
        resource: resource
            .and_then(|resource| resource.name.as_deref())
            .unwrap_or(&request.resource),
        missing: &missing,
    };
    let description = Some("The person has no access to this MCP server");
    let error = (ErrorCode::AccessDenied, description);
    Some(back.explain(browser, message, &reference, error).await)
}

/// Handles a refusal of the identity provider, or a response that cannot be trusted or understood.
pub(super) async fn failed(
    browser: &Browser,
    back: &ClientRedirect<'_>,
    request: &AuthorizationRequest,
    failed: &LoginFailed,
) -> Response {
    let app = &browser.app;
    let reference = new_reference();
    log_failure(failed, &reference);
    let (event, message, code) = match failed {
        LoginFailed::Again { reason, .. } if reason == "temporarily_unavailable" => {
            let message = Message::ProviderEndedSignIn;
            ("login_failed", message, ErrorCode::TemporarilyUnavailable)
        }
        LoginFailed::Refused | LoginFailed::Again { .. } => {
            ("login_refused_by_provider", Message::LoginRefused, ErrorCode::AccessDenied)
        }
        LoginFailed::ProviderCannot(_) => {
            ("login_failed", Message::ProviderCannot, ErrorCode::TemporarilyUnavailable)
        }
        LoginFailed::Unavailable(_) => {
            ("login_failed", Message::ProviderUnavailable, ErrorCode::TemporarilyUnavailable)
        }
        LoginFailed::Misconfigured(_) => {
            ("login_failed", Message::ProviderMisconfigured, ErrorCode::ServerError)
        }
        LoginFailed::Untrusted(_) => {
            ("login_untrusted", Message::LoginNotTrusted, ErrorCode::AccessDenied)
        }
    };
    let event = about(app, event, request, None).reference(&reference);
    app.record(event.with("reason", failed.to_string())).await;
    match message {
        // The person decided so at the provider and knows it.
        Message::LoginRefused => {
            let description = "The identity provider did not sign the person in";
            see_other(&back.with_error(code, Some(description)))
        }
        // Another party may have planted this response, so nothing is sent back to the client.
        Message::LoginNotTrusted => browser.message_about(message, &reference),
        _ => back.explain(browser, message, &reference, (code, None)).await,
    }
}

/// Logs what an administrator has to look after.
fn log_failure(failed: &LoginFailed, reference: &str) {
    match failed {
        LoginFailed::ProviderCannot(reason) => {
            tracing::error!(reference, %reason, "the identity provider cannot sign people in");
        }
        LoginFailed::Unavailable(reason) => {
            if let Some(left_out) = UNAVAILABLE.admit(reason) {
                let what = "the identity provider is unavailable";
                tracing::error!(reference, %reason, left_out, "{what}");
            }
        }
        LoginFailed::Misconfigured(reason) => {
            if let Some(left_out) = MISCONFIGURED.admit(reason) {
                tracing::error!(reference, %reason, left_out, "sign-in is misconfigured");
            }
        }
        LoginFailed::Again { .. } | LoginFailed::Refused | LoginFailed::Untrusted(_) => {}
    }
}
