//! Remembered consent (threat CD-02, requirements CON-09 to CON-13 and CON-22). The consent page is skipped
//! only if all of this is true: an administrator trusts the client, the response goes to a website, the
//! person opened the address themselves, this browser holds the approval, and the request is exactly what
//! was approved.
//!
//! A login under a remembered approval goes straight to the identity provider. If the person who signs in
//! there is not the one who approved, they see the consent page after all.

use std::fmt::Write;

use aws_lc_rs::digest;
use axum::response::Response;

use super::known_client::KnownClient;
use super::login::Start;
use crate::app::App;
use crate::http_client::is_loopback;
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::client::Client;
use crate::oauth::redirect_uri::{Destination, destination};
use crate::oauth::secret::{RememberedConsent, Secret, new_id};
use crate::storage::{ClientReview, NewRemembered, PendingLogin, StorageError};
use crate::telemetry::audit::Actor;
use crate::web::browser::Browser;
use crate::web::cookies::{self, REMEMBERED_APPROVAL, SetCookies};
use crate::web::page_error::PageError;
use crate::web::params::Params;

/// Redirects to the identity provider if this browser has approved exactly this before. `None`: show the
/// consent page.
pub(super) async fn skip_consent(
    browser: &Browser,
    params: &Params,
    client: &Client,
    request: &AuthorizationRequest,
) -> Result<Option<Response>, PageError> {
    let Browser { app, cookies, .. } = browser;
    let wants_page = params.get("prompt").is_ok_and(|prompt| prompt.is_some());
    if wants_page || !browser.comes_directly() || !answers_to_website(request) {
        return Ok(None);
    }
    let Some(token) = cookies::REMEMBERED.get(cookies, &cookie_id(request)) else {
        return Ok(None);
    };
    let (metadata, now) = (client.metadata.identity(), app.now());
    let known = app.storage().remembered_consent(&token, request, &metadata, now).await?;
    if known.is_none() {
        return Ok(None);
    }
    // While the provider is away the page can still be read; pressing Approve there explains the problem.
    let start = Start::prepare(browser, request.clone(), metadata).await;
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
        app.storage().approve_remembered(&token, &new, now, Start::quota(app), event).await?;
    Ok(approved.map(|approval| start.redirect_to_provider(browser, &approval)))
}

/// Returns whether the response goes to a website. Programs on a device cannot be told apart (RFC 8252
/// §8.6).
pub(super) fn answers_to_website(request: &AuthorizationRequest) -> bool {
    let host = url::Url::parse(&request.redirect_uri).ok();
    let host = host.as_ref().and_then(url::Url::host_str);
    matches!(destination(&request.redirect_uri), Destination::Https { .. })
        && host.is_some_and(|host| !is_loopback(host))
}

/// Returns the id of the cookie: one cookie per client and MCP server.
fn cookie_id(request: &AuthorizationRequest) -> String {
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
    KnownClient { client, review, .. }: &KnownClient<'_>,
    login: &PendingLogin,
    subject: &str,
) -> Result<bool, StorageError> {
    let Some(id) = &login.remembered else { return Ok(false) };
    if !review.trusted || login.metadata_hash != client.metadata.identity() {
        return Ok(true);
    }
    let approved_by = app.storage().remembered_by(id, app.now()).await?;
    Ok(approved_by.as_deref() != Some(subject))
}

/// Remembers, where that is allowed, what this person approved before they signed in, and returns the
/// cookies to set. A login under a remembered approval does not renew it, so that use never prolongs its
/// lifetime.
pub(super) async fn remember(
    browser: &Browser,
    review: &ClientReview,
    login: &PendingLogin,
    subject: &str,
) -> SetCookies {
    let Browser { app, cookies, .. } = browser;
    let request = &login.request;
    if login.remembered.is_some() || !review.trusted || !answers_to_website(request) {
        return SetCookies::default();
    }
    let id = cookie_id(request);
    let token = Secret::<RememberedConsent>::generate(&new_id(app.clock()));
    let now = app.now();
    let new = NewRemembered {
        token: &token,
        subject,
        request,
        metadata_hash: &login.metadata_hash,
        expires_at: now.plus(REMEMBERED_APPROVAL),
    };
    let before = cookies::REMEMBERED.get(cookies, &id);
    match app.storage().remember_consent(&new, before.as_ref(), now).await {
        Ok(true) => {
            let evicted = cookies::REMEMBERED.evict(cookies, &id);
            evicted.and(cookies::REMEMBERED.set(cookies, &id, &token))
        }
        Ok(false) => SetCookies::default(),
        Err(cause) => {
            // The code is already issued; the consent page will simply be shown next time.
            tracing::error!(%cause, "an approval could not be remembered");
            SetCookies::default()
        }
    }
}
