//! Remembered consent (threat CD-02, requirements CON-09 to CON-13 and CON-22). The consent page is skipped
//! only if all of this is true: an administrator trusts the client, the response goes to a website, the
//! person opened the address themselves, this browser holds the approval, and the request is exactly what
//! was approved.
//!
//! A login under a remembered approval goes straight to the identity provider. If the person who signs in
//! there is not the one who approved, they see the consent page after all.

use std::fmt::Write;
use std::net::IpAddr;
use std::time::Duration;

use aws_lc_rs::digest;
use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;

use super::login::Start;
use crate::app::App;
use crate::http_client::is_loopback;
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::client::Client;
use crate::oauth::redirect_uri::{Destination, destination};
use crate::oauth::secret::{RememberedConsent, Secret, new_id};
use crate::storage::{ClientReview, NewRemembered, PendingLogin, StorageError};
use crate::telemetry::audit::Actor;
use crate::web::browser::PageError;
use crate::web::cookies::Cookies;
use crate::web::params::Params;

/// 30 days: afterwards the consent page is shown again. Use does not prolong it.
const LIFETIME: Duration = Duration::from_hours(30 * 24);
/// Most approvals that one browser holds. With more, its cookies could outgrow the limit for request
/// headers.
const PER_BROWSER: usize = 10;

/// Redirects to the identity provider if this browser has approved exactly this before. `None`: show the
/// consent page.
pub(super) async fn skip_consent(
    app: &App,
    headers: &HeaderMap,
    params: &Params,
    client: &Client,
    request: &AuthorizationRequest,
    address: Option<IpAddr>,
) -> Result<Option<Response>, PageError> {
    let wants_page = params.get("prompt").is_ok_and(|prompt| prompt.is_some());
    if wants_page || !comes_directly(headers) || !answers_to_website(request) {
        return Ok(None);
    }
    let cookies = Cookies::of(&app.config().public_url);
    let Some(token) = cookies.remembered(headers, &cookie_name(request)) else { return Ok(None) };
    let storage = |error: StorageError| PageError::storage(headers, &error);
    let (metadata, now) = (client.metadata.identity(), app.now());
    let known = app.storage().remembered_consent(&token, request, &metadata, now).await;
    if known.map_err(storage)?.is_none() {
        return Ok(None);
    }
    // While the provider is away the page can still be read; pressing Approve there explains the problem.
    let start = Start::prepare(app, request.clone(), metadata, address).await;
    let Ok(start) = start else { return Ok(None) };
    let event = app
        .event("consent_remembered", Actor::Person)
        .client(&request.client_id)
        .resource(&request.resource)
        .with("login_id", start.id.as_str())
        .with("remembered_id", token.id())
        .with("scopes", request.scopes.to_string());
    let new = start.new_login(app);
    let approved =
        app.storage().approve_remembered(&token, &new, now, Start::quota(app), event).await;
    Ok(approved.map_err(storage)?.map(|approval| start.lead_on(app, headers, &approval)))
}

/// Returns whether a person opened this address themselves, or came from one of our pages. Another website
/// may have come between the person and the client (threat CD-02); a browser that sends no `Sec-Fetch-Site`
/// is treated as such a case.
fn comes_directly(headers: &HeaderMap) -> bool {
    let mut sites = headers.get_all("sec-fetch-site").iter();
    let site = sites.next().map(HeaderValue::as_bytes);
    matches!(site, Some(b"none" | b"same-origin")) && sites.next().is_none()
}

/// Returns whether the response goes to a website. Programs on a device cannot be told apart (RFC 8252
/// §8.6).
pub(super) fn answers_to_website(request: &AuthorizationRequest) -> bool {
    let host = url::Url::parse(&request.redirect_uri).ok();
    let host = host.as_ref().and_then(url::Url::host_str);
    matches!(destination(&request.redirect_uri), Destination::Https { .. })
        && host.is_some_and(|host| !is_loopback(host))
}

/// Returns the cookie name: one cookie per client and MCP server.
fn cookie_name(request: &AuthorizationRequest) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in [&request.client_id, &request.resource] {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part.as_bytes());
    }
    context.finish().as_ref().iter().take(16).fold(String::new(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    })
}

/// Returns whether the person must see the consent page after all. That is the case if the login relies on a
/// remembered approval of another person, on one that was forgotten meanwhile, or on one for a client that
/// has changed or is no longer trusted.
pub(super) async fn needs_consent(
    app: &App,
    (client, standing): (&Client, &ClientReview),
    login: &PendingLogin,
    subject: &str,
) -> Result<bool, StorageError> {
    let Some(id) = &login.remembered else { return Ok(false) };
    if !standing.trusted || login.metadata_hash != client.metadata.identity() {
        return Ok(true);
    }
    let approved_by = app.storage().remembered_by(id, app.now()).await?;
    Ok(approved_by.as_deref() != Some(subject))
}

/// Remembers, where that is allowed, what this person approved before they signed in, and returns the
/// cookies to set. A login under a remembered approval does not renew it, so that use never prolongs its
/// lifetime.
pub(super) async fn remember(
    app: &App,
    headers: &HeaderMap,
    standing: &ClientReview,
    login: &PendingLogin,
    subject: &str,
) -> Vec<HeaderValue> {
    let request = &login.request;
    if login.remembered.is_some() || !standing.trusted || !answers_to_website(request) {
        return Vec::new();
    }
    let cookies = Cookies::of(&app.config().public_url);
    let slot = cookie_name(request);
    let token = Secret::<RememberedConsent>::generate(&new_id(app.clock()));
    let now = app.now();
    let new = NewRemembered {
        token: &token,
        subject,
        request,
        metadata_hash: &login.metadata_hash,
        expires_at: now.plus(LIFETIME),
    };
    let before = cookies.remembered(headers, &slot);
    match app.storage().remember_consent(&new, before.as_ref(), now).await {
        Ok(true) => {
            let evicted = cookies.remembered_beyond(headers, &slot, PER_BROWSER - 1);
            let mut set: Vec<_> =
                evicted.iter().map(|slot| cookies.clear_remembered(slot)).collect();
            set.push(cookies.set_remembered(&slot, &token, LIFETIME.as_secs()));
            set
        }
        Ok(false) => Vec::new(),
        Err(cause) => {
            // The code is already issued; the consent page will simply be shown next time.
            tracing::error!(%cause, "an approval could not be remembered");
            Vec::new()
        }
    }
}
