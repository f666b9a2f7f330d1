//! `GET /authorize`: RFC 6749 §4.1.1. Checks the request in a fixed order and shows the consent page.
//!
//! The request may be repeated and has no side effects, because clients probe it and pages send it twice.
//! Nothing is stored: the page carries the sealed request until the person presses Approve. A person with a
//! remembered approval (`remembered_consent.rs`) is redirected at once, and that may be repeated too.

use std::net::IpAddr;

use axum::extract::{RawQuery, State};
use axum::http::{Extensions, HeaderMap, Method, StatusCode, header};
use axum::response::Response;

use super::consent::ConsentRequest;
use super::{client_review, remembered_consent, step_up};
use crate::app::App;
use crate::clock::Timestamp;
use crate::config::ResourceConfig;
use crate::oauth::authorization_request::{
    AccountPrompt, AuthorizationRequest, AuthorizeRefused, MAX_STATE,
};
use crate::oauth::client::{Client, Origin};
use crate::oauth::error::ensure;
use crate::oauth::pkce::CodeChallenge;
use crate::oauth::redirect_uri::{RegisteredRedirectUri, destination};
use crate::oauth::scope::ScopeSet;
use crate::oauth::secret::{new_id, random_text};
use crate::storage::ClientReview;
use crate::telemetry::audit::Actor;
use crate::web::browser::{self, ClientRedirect, PageError};
use crate::web::client_address::ClientAddress;
use crate::web::cookies::Cookies;
use crate::web::pages::{ConsentPage, Message, TooMany};
use crate::web::params::Params;
use crate::web::speculative;

pub(super) async fn get(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
    extensions: Extensions,
) -> Result<Response, PageError> {
    let params = Params::parse(query.as_deref().unwrap_or_default())
        .map_err(|refused| bad_request(&headers, "encoding", &refused))?;
    let client = known_client(&app, &headers, &params, ClientAddress::of(&extensions)).await?;
    let standing = client_review::of_client(&app, &headers, &client).await?;
    let address = proven_address(&app, &headers, &client, &params)?;
    let state = params.get("state");
    let back = ClientRedirect {
        issuer: app.issuer(),
        address,
        state: state.ok().flatten().filter(|s| s.len() <= MAX_STATE).map(str::to_owned),
    };
    match check(&app, &client, &params, &back) {
        Ok((request, resource)) => {
            let address = ClientAddress::of(&extensions);
            let remembered = if standing.trusted && !speculative::is_guess(&method, &headers) {
                remembered_consent::skip_consent(
                    &app, &headers, &params, &client, &request, address,
                )
                .await?
            } else {
                None // Show the page even to a browser with an approval: a guess must change nothing.
            };
            if let Some(led_on) = remembered {
                return Ok(led_on);
            }
            not_too_often(&app, &headers, &client)?;
            let before = step_up::approved_before(&app, &headers, &request).await;
            Ok(ask(&app, &headers, (&client, &standing), request, resource, &before).await)
        }
        Err(refused) => Ok(browser::refuse(&app, &headers, &client, &back, &refused)),
    }
}

fn bad_request(
    headers: &HeaderMap,
    what: &'static str,
    reason: &dyn std::fmt::Display,
) -> PageError {
    PageError::new(headers, StatusCode::BAD_REQUEST, Message::InvalidRequest { what }, reason)
}

/// Step 1: finds the client. A failure shows a page and never redirects.
async fn known_client(
    app: &App,
    headers: &HeaderMap,
    params: &Params,
    from: Option<IpAddr>,
) -> Result<Client, PageError> {
    let client_id = params
        .get("client_id")
        .map_err(|_| bad_request(headers, "client_id", &"client_id came twice"))?
        .ok_or_else(|| bad_request(headers, "client_id", &"client_id is missing"))?;
    browser::client(app, headers, client_id, from).await
}

/// Step 2: checks that this client registered the redirect URI and that the policy allows it now. Nothing
/// may be redirected before this check.
fn proven_address(
    app: &App,
    headers: &HeaderMap,
    client: &Client,
    params: &Params,
) -> Result<RegisteredRedirectUri, PageError> {
    let presented = params.get("redirect_uri").map_err(|_| {
        let (status, message) = (StatusCode::BAD_REQUEST, Message::RedirectUriNotRegistered);
        PageError::new(headers, status, message, &"redirect_uri came twice")
    })?;
    browser::address(app, headers, client, presented)
}

/// Step 3: checks everything else. The caller reports a failure to the client by a redirect.
fn check<'a>(
    app: &'a App,
    client: &Client,
    params: &Params,
    back: &ClientRedirect<'_>,
) -> Result<(AuthorizationRequest, &'a ResourceConfig), AuthorizeRefused> {
    let get =
        |name: &'static str| params.get(name).map_err(|_| AuthorizeRefused::RepeatedParameter);
    let state = get("state")?;
    ensure(state.is_none_or(|state| state.len() <= MAX_STATE), AuthorizeRefused::StateTooLong)?;
    ensure(get("request")?.is_none(), AuthorizeRefused::RequestObject)?;
    ensure(get("request_uri")?.is_none(), AuthorizeRefused::RequestUri)?;
    let response_type = get("response_type")?.ok_or(AuthorizeRefused::Missing("response_type"))?;
    ensure(response_type == "code", AuthorizeRefused::ResponseType)?;
    let response_mode = get("response_mode")?.unwrap_or("query");
    ensure(response_mode == "query", AuthorizeRefused::ResponseMode)?;
    ensure(client.metadata.may_use_authorization_code(), AuthorizeRefused::GrantType)?;
    let challenge = get("code_challenge")?.ok_or(AuthorizeRefused::Missing("code_challenge"))?;
    let method = get("code_challenge_method")?;
    // An absent method means `plain` (RFC 7636 §4.3), which is not offered.
    ensure(method == Some("S256"), AuthorizeRefused::ChallengeMethod)?;
    let challenge = CodeChallenge::parse(challenge).map_err(|_| AuthorizeRefused::Challenge)?;
    let prompt = get("prompt")?.unwrap_or_default();
    let wants_no_person = prompt.split(' ').any(|value| value == "none");
    ensure(!wants_no_person, AuthorizeRefused::InteractionRequired)?;
    let resource = asked_resource(app, params)?;
    let requested =
        ScopeSet::parse(get("scope")?.unwrap_or_default()).map_err(|_| AuthorizeRefused::Scope)?;
    let scopes = resource
        .policy
        .requested_or_default(&requested)
        .map_err(|_| AuthorizeRefused::ScopeNotOffered(beyond(resource, &requested)))?;
    let request = AuthorizationRequest {
        client_id: client.id.clone(),
        redirect_uri: back.address.as_str().to_owned(),
        state: state.map(str::to_owned),
        code_challenge: challenge.as_str().to_owned(),
        resource: resource.id.clone(),
        scopes,
        unknown_scopes: shown(&resource.policy.unknown_scopes(&requested)),
        account: AccountPrompt::asked_by(prompt),
    };
    Ok((request, resource))
}

/// Returns the first requested scope that the resource does not declare, cut to 100 characters.
fn beyond(resource: &ResourceConfig, requested: &ScopeSet) -> String {
    let beyond = requested.difference(&resource.policy.declared);
    let first = beyond.iter().find(|scope| scope.as_str() != "offline_access");
    first.map(|scope| scope.as_str().chars().take(100).collect()).unwrap_or_default()
}

fn asked_resource<'a>(
    app: &'a App,
    params: &Params,
) -> Result<&'a ResourceConfig, AuthorizeRefused> {
    match params.get_agreeing("resource").map_err(|_| AuthorizeRefused::SeveralResources)? {
        Some(presented) => app.resource_named(presented).ok_or(AuthorizeRefused::UnknownResource),
        None => app.default_resource().ok_or(AuthorizeRefused::ResourceRequired),
    }
}

/// Returns the unknown scopes for the log. The client chose this text, so its length is limited.
fn shown(unknown: &ScopeSet) -> String {
    const MOST: usize = 120; // characters: one or two log lines
    let text = unknown.to_string();
    let cut: String = text.chars().take(MOST).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("{cut}{more}")
}

/// Rate limit for consent pages: stops a client that sends the person here again and again until they press
/// Approve to be rid of it (threat PH-02). Only the browser's cookies count the pages; nothing is stored.
fn not_too_often(app: &App, headers: &HeaderMap, client: &Client) -> Result<(), PageError> {
    let cookies = Cookies::of(&app.config().public_url);
    let shown = cookies.consents_for(headers, &ConsentRequest::client_tag(&client.id));
    let (now, most) = (app.now(), app.config().limits.consent_pages);
    let since = now.minus(ConsentRequest::LIFETIME);
    let mut recent: Vec<Timestamp> =
        shown.iter().filter_map(|id| shown_at(id)).filter(|at| *at > since).collect();
    recent.sort_unstable();
    // Once this page expires, fewer than `most` pages are left.
    let Some(first) = recent.len().checked_sub(most).and_then(|place| recent.get(place)) else {
        return Ok(());
    };
    let seconds = first.plus(ConsentRequest::LIFETIME).since(now).as_secs().max(1);
    let message = Message::TooMany { what: TooMany::ConsentPages, seconds };
    let reason = format!(
        "this browser was shown {} pages of the client {} in ten minutes and approved none; an administrator can raise `limits.consent_pages`",
        recent.len(),
        client.id
    );
    Err(PageError::new(headers, StatusCode::TOO_MANY_REQUESTS, message, &reason))
}

/// Returns when the page with this id was shown: the first 12 hex digits of an id are its time in
/// milliseconds.
fn shown_at(id: &str) -> Option<Timestamp> {
    let millis = i64::from_str_radix(id.get(..12)?, 16).ok()?;
    Some(Timestamp::from_unix(millis / 1000))
}

/// Step 4: shows the consent page. It carries the whole request, sealed and bound to this browser.
pub(super) async fn ask(
    app: &App,
    headers: &HeaderMap,
    (client, standing): (&Client, &ClientReview),
    request: AuthorizationRequest,
    resource: &ResourceConfig,
    before: &ScopeSet,
) -> Response {
    let cookies = Cookies::of(&app.config().public_url);
    let browser = random_text();
    let consent = ConsentRequest {
        id: new_id(app.clock()),
        browser: ConsentRequest::browser_mark(&browser),
        expires_at: app.now().plus(ConsentRequest::LIFETIME).unix(),
        metadata_hash: client.metadata.identity(),
        request,
    };
    let name = client.display_name();
    let scopes = step_up::scope_lines(resource, &consent.request.scopes, before);
    let sealed = consent.seal(app.sealer());
    let destination = destination(&consent.request.redirect_uri);
    let page = ConsentPage {
        language: browser::language(headers),
        base: app.config().public_url.base_path(),
        destination: &destination,
        redirect_uri: &consent.request.redirect_uri,
        verified: remembered_consent::answers_to_website(&consent.request)
            && (standing.trusted || matches!(client.origin, Origin::Configured { trusted: true })),
        publisher: client.publisher(),
        registered_itself: matches!(client.origin, Origin::Registered),
        client_name: name.text.as_deref(),
        name_suspicious: name.suspicious,
        client_id: &client.id,
        resource_name: resource.name.as_deref(),
        resource: &resource.id,
        scopes: &scopes,
        asked_for_unknown: !consent.request.unknown_scopes.is_empty(),
        offers_another_account: consent.request.account.is_none()
            && app.upstream().lets_choose_account().await,
        identity_provider: &app.config().upstream.name,
        request: &sealed,
    };
    // Only in the log: an anonymous request must not add a row to the database. The audit event of the
    // decision repeats when the page was shown.
    app.log_event(
        &app.event("consent_shown", Actor::Person)
            .client(&client.id)
            .resource(&resource.id)
            .with("consent_id", consent.id.as_str())
            .with("scopes", consent.request.scopes.to_string())
            .with("unknown_scopes", consent.request.unknown_scopes.as_str()),
    );
    let mut response = page.render();
    let set_cookies = response.headers_mut();
    let keep = app.config().limits.pending_logins_per_browser.saturating_sub(1);
    for evicted in cookies.consents_beyond(headers, keep) {
        set_cookies.append(header::SET_COOKIE, cookies.clear_consent(&evicted));
    }
    let tag = ConsentRequest::client_tag(&client.id);
    let lifetime = ConsentRequest::LIFETIME.as_secs();
    set_cookies
        .append(header::SET_COOKIE, cookies.set_consent(&consent.id, &browser, &tag, lifetime));
    response
}
