//! `POST /consent`: the person's decision. Unless an earlier approval is remembered, Approve is the first
//! step that stores anything, binds the browser to a login and redirects it to the identity provider.

use std::net::IpAddr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::http::{Extensions, HeaderMap, StatusCode, header};
use axum::response::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::client_review;
use super::login::Start;
use crate::app::App;
use crate::clock::Timestamp;
use crate::oauth::authorization_request::{AccountPrompt, AuthorizationRequest};
use crate::oauth::error::ErrorCode;
use crate::oauth::redirect_uri::destination;
use crate::oauth::sealed::{CannotOpen, Purpose, Sealer};
use crate::storage::{ApprovedPage, Decided, StorageError};
use crate::telemetry::audit::{Actor, AuditEvent};
use crate::web::browser::{self, ClientRedirect, PageError};
use crate::web::client_address::ClientAddress;
use crate::web::cookies::Cookies;
use crate::web::pages::{Message, TooMany};
use crate::web::params::Params;

/// The contents of a consent page, sealed into a field of its own form.
#[derive(Serialize, Deserialize)]
pub(super) struct ConsentRequest {
    /// Makes the decision one-time.
    pub(super) id: String,
    /// Hash of the cookie of the browser that the page was shown to.
    pub(super) browser: String,
    /// Unix seconds.
    pub(super) expires_at: i64,
    /// Identity of the client's metadata when the page was shown.
    #[serde(default)]
    // Absent in pages of an earlier version: they can still be decided, but the approval is not remembered.
    pub(super) metadata_hash: String,
    /// The authorization request.
    pub(super) request: AuthorizationRequest,
}

impl ConsentRequest {
    /// 10 minutes: how long a consent page can be decided.
    pub(super) const LIFETIME: Duration = Duration::from_mins(10);

    /// Returns the hash that the page stores of the browser's cookie. The page never contains the cookie
    /// itself.
    pub(super) fn browser_mark(cookie: &str) -> String {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        context.update(b"portcullis consent browser ");
        context.update(cookie.as_bytes());
        URL_SAFE_NO_PAD.encode(context.finish())
    }

    /// Returns the short hash that the browser's cookies store of the requesting client.
    pub(super) fn client_tag(client_id: &str) -> String {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        context.update(b"portcullis consent client ");
        context.update(client_id.as_bytes());
        URL_SAFE_NO_PAD.encode(&context.finish().as_ref()[..9])
    }

    pub(super) fn seal(&self, sealer: &Sealer) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        sealer.seal(Purpose::Consent, "consent", &json)
    }

    fn open(sealed: &str, sealer: &Sealer) -> Result<Self, CannotOpen> {
        let json = sealer.open(Purpose::Consent, "consent", sealed)?;
        serde_json::from_slice(&json).map_err(|_| CannotOpen)
    }
}

pub(super) async fn post(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    extensions: Extensions,
    body: Body,
) -> Result<Response, PageError> {
    let form = read_form(&app, &headers, query.as_deref(), body).await?;
    let consent = same_browser(&app, &headers, &form)?;
    let client = browser::client(&app, &headers, &consent.request.client_id, None).await?;
    let presented = Some(consent.request.redirect_uri.as_str());
    let address = browser::address(&app, &headers, &client, presented)?;
    client_review::of_client(&app, &headers, &client).await?;
    let state = consent.request.state.clone();
    let back = ClientRedirect { issuer: app.issuer(), address, state };
    let decision = form.get("decision").ok().flatten();
    let approved = matches!(decision, Some("approve" | "approve_other"));
    let decided = match decision {
        Some("approve") => {
            let request = consent.request.clone();
            approve(&app, &headers, &consent, request, ClientAddress::of(&extensions)).await
        }
        Some("approve_other") => {
            let account = Some(AccountPrompt::SelectAccount);
            let request = AuthorizationRequest { account, ..consent.request.clone() };
            approve(&app, &headers, &consent, request, ClientAddress::of(&extensions)).await
        }
        Some("deny") => deny(&app, &headers, &consent, &back).await,
        _ => {
            let status = StatusCode::BAD_REQUEST;
            let message = Message::InvalidRequest { what: "decision" };
            Err(PageError::new(&headers, status, message, &"no decision"))
        }
    };
    let mut response = decided?;
    let cookies = Cookies::of(&app.config().public_url);
    // A denied page still counts towards the limit of pages shown for this client.
    if approved {
        let tag = ConsentRequest::client_tag(&client.id);
        let mut others = cookies.consents_for(&headers, &tag);
        // This page too: if it is submitted again, the message must be "already decided" and not "too many".
        if !others.contains(&consent.id) {
            others.push(consent.id.clone());
        }
        let lifetime = ConsentRequest::LIFETIME.as_secs();
        for page in others {
            let set = cookies.count_no_more(&headers, &page, lifetime);
            response.headers_mut().extend(set.map(|set| (header::SET_COOKIE, set)));
        }
    }
    Ok(response)
}

fn forbidden(headers: &HeaderMap, message: Message<'static>, reason: &str) -> PageError {
    PageError::new(headers, StatusCode::FORBIDDEN, message, &reason)
}

async fn read_form(
    app: &App,
    headers: &HeaderMap,
    query: Option<&str>,
    body: Body,
) -> Result<Params, PageError> {
    let limit = app.config().limits.consent_body;
    browser::read_form(headers, query, body, limit).await
}

/// Makes three checks, all required (threat CD-05): `Origin` is ours, `Sec-Fetch-Site` is same-origin if the
/// browser sends it, and the page was shown to this very browser.
fn same_browser(
    app: &App,
    headers: &HeaderMap,
    form: &Params,
) -> Result<ConsentRequest, PageError> {
    let elsewhere = |reason| forbidden(headers, Message::ConsentFromElsewhere, reason);
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let origin = origins.next().and_then(|origin| origin.to_str().ok());
    if origin != Some(app.config().public_url.origin()) || origins.next().is_some() {
        return Err(elsewhere("Origin is not ours"));
    }
    let fetch_site = headers.get("sec-fetch-site");
    if fetch_site.is_some_and(|site| site.as_bytes() != b"same-origin") {
        return Err(elsewhere("Sec-Fetch-Site is not same-origin"));
    }
    let sealed = form.get("request").ok().flatten().unwrap_or_default();
    let consent = ConsentRequest::open(sealed, app.sealer())
        .map_err(|_| elsewhere("the request in the form is not ours"))?;
    // Checked before the cookie: the cookie may have expired with the page, and its absence would hide the
    // real reason.
    if app.now() >= Timestamp::from_unix(consent.expires_at) {
        return Err(forbidden(headers, Message::ConsentExpired, "the consent page has expired"));
    }
    let cookies = Cookies::of(&app.config().public_url);
    let mark =
        cookies.consent(headers, &consent.id).map(|cookie| ConsentRequest::browser_mark(&cookie));
    if mark.as_deref() != Some(consent.browser.as_str()) {
        return Err(elsewhere("the page was shown to another browser"));
    }
    Ok(consent)
}

/// Builds the audit event of a decision. It includes when the page was shown, because showing it was not
/// recorded.
fn about(app: &App, consent: &ConsentRequest, event: &'static str) -> AuditEvent {
    let request = &consent.request;
    let shown_at = Timestamp::from_unix(consent.expires_at).minus(ConsentRequest::LIFETIME);
    app.event(event, Actor::Person)
        .client(&request.client_id)
        .resource(&request.resource)
        .with("consent_id", consent.id.as_str())
        .with("shown_at", shown_at.unix())
        .with("scopes", request.scopes.to_string())
        .with("answer_goes_to", destination(&request.redirect_uri).to_string())
}

/// Records the denial and redirects to the client with `access_denied`.
async fn deny(
    app: &App,
    headers: &HeaderMap,
    consent: &ConsentRequest,
    back: &ClientRedirect<'_>,
) -> Result<Response, PageError> {
    let expires_at = Timestamp::from_unix(consent.expires_at);
    let decided = app
        .storage()
        .deny(&consent.id, expires_at, about(app, consent, "consent_denied"))
        .await
        .map_err(|error| PageError::storage(headers, &error))?;
    let Decided::First(()) = decided else {
        return Err(forbidden(headers, Message::AlreadyDecided, "the page was decided before"));
    };
    let description = "The person did not approve the request";
    Ok(browser::see_other(&back.with_error(ErrorCode::AccessDenied, Some(description))))
}

/// Stores the approval with a pending login and redirects to the identity provider. If all slots for pending
/// logins are taken, it tries once to evict one, and otherwise returns a 429 page.
async fn approve(
    app: &App,
    headers: &HeaderMap,
    consent: &ConsentRequest,
    request: AuthorizationRequest,
    address: Option<IpAddr>,
) -> Result<Response, PageError> {
    // Nothing has been consumed yet. If the person cannot be redirected to the provider, the page stays
    // valid.
    let start = Start::prepare(app, request, consent.metadata_hash.clone(), address)
        .await
        .map_err(|error| browser::unreachable_page(headers, &error))?;

    let page = ApprovedPage {
        consent_id: &consent.id,
        expires_at: Timestamp::from_unix(consent.expires_at),
    };
    let event = about(app, consent, "consent_approved").with("login_id", start.id.as_str());
    let storage = |error: StorageError| PageError::storage(headers, &error);
    let decide = async || {
        let (new, quota) = (start.new_login(app), Start::quota(app));
        app.storage().approve(page, &new, app.now(), quota, event.clone()).await.map_err(storage)
    };
    let mut decided = decide().await?;
    if matches!(decided, Decided::Full) && start.try_evict(app).await.map_err(storage)? {
        decided = decide().await?;
    }
    let approval = match decided {
        Decided::First(approval) => approval,
        Decided::Already => {
            let reason = "the page was decided before";
            return Err(forbidden(headers, Message::AlreadyDecided, reason));
        }
        Decided::Full => {
            app.metrics().limited("pending_logins");
            let free_at = start.free_at(app).await.map_err(storage)?;
            let seconds = free_at.since(app.now()).as_secs().max(1);
            let message = Message::TooMany { what: TooMany::SignIns, seconds };
            let status = StatusCode::TOO_MANY_REQUESTS;
            let limits = &app.config().limits;
            let reason = format!(
                "too many logins are pending; an administrator can raise `limits.pending_logins` ({}) or `limits.pending_logins_per_address` ({})",
                limits.pending_logins, limits.pending_logins_per_address
            );
            return Err(PageError::new(headers, status, message, &reason));
        }
    };
    Ok(start.lead_on(app, headers, &approval))
}
