//! `GET /authorize`: RFC 6749 §4.1.1. Checks the request in a fixed order and shows the consent page.
//!
//! The request may be repeated and has no side effects, because clients probe it and pages send it twice.
//! Nothing is stored: the page carries the sealed request until the person presses Approve. A person with a
//! remembered approval (`remembered_consent.rs`) is redirected at once, and that may be repeated too.

use axum::response::Response;

use super::known_client::{self, KnownClient};
use super::{acts_as, consent_page, remembered_consent, step_up};
use crate::app::App;
use crate::config::ResourceConfig;
use crate::oauth::authorization_request::{
    AccountPrompt, AuthorizationRequest, AuthorizeRefused, MAX_STATE,
};
use crate::oauth::client::Client;
use crate::oauth::error::ensure;
use crate::oauth::pkce::CodeChallenge;
use crate::oauth::redirect_uri::RegisteredRedirectUri;
use crate::oauth::scope::ScopeSet;
use crate::telemetry::trace;
use crate::web::browser::Browser;
use crate::web::client_redirect::ClientRedirect;
use crate::web::page_error::PageError;
use crate::web::pages::Message;
use crate::web::params::Params;

pub(super) async fn get(browser: Browser) -> Result<Response, PageError> {
    let app = &browser.app;
    let params = browser.params().map_err(|refused| bad_request("encoding", refused))?;
    let known = known_client(&browser, &params).await?;
    let (request, resource) = match check(app, &known, &params) {
        Ok(checked) => checked,
        Err(refused) => return Ok(known.back.refuse(&browser, &known.client, &refused)),
    };
    // A guess sees the page even in a browser with an approval, because it must change nothing.
    if known.review.trusted
        && !browser.is_guess()
        && let Some(redirect) =
            remembered_consent::skip_consent(&browser, &params, &known.client, &request).await?
    {
        return Ok(redirect);
    }
    consent_page::not_too_often(&browser, &known.client)?;
    let before = step_up::approved_before(&browser, &request).await;
    Ok(consent_page::show(&browser, &known, request, resource, &before).await)
}

fn bad_request(what: &'static str, reason: impl std::fmt::Display) -> PageError {
    Message::InvalidRequest { what }.because(reason)
}

/// Steps 1 and 2: finds the client, and checks that it registered the redirect URI and that the policy allows
/// it now. A failure shows a page: nothing may be redirected before these checks.
async fn known_client<'a>(
    browser: &'a Browser,
    params: &Params,
) -> Result<KnownClient<'a>, PageError> {
    let app = &browser.app;
    let client_id = params
        .get("client_id")
        .map_err(|_| bad_request("client_id", "client_id came twice"))?
        .ok_or_else(|| bad_request("client_id", "client_id is missing"))?;
    let client = known_client::find(app, client_id, browser.address).await?;
    let review = known_client::review(app, &client).await?;
    let address = proven_address(app, &client, params)?;
    let state = params.get("state").ok().flatten().filter(|state| state.len() <= MAX_STATE);
    let back = ClientRedirect {
        issuer: app.issuer(),
        address,
        state: state.map(str::to_owned),
        name: known_client::link_name(&client),
        request: None,
    };
    Ok(KnownClient { client, review, back })
}

fn proven_address(
    app: &App,
    client: &Client,
    params: &Params,
) -> Result<RegisteredRedirectUri, PageError> {
    let presented = params
        .get("redirect_uri")
        .map_err(|_| Message::RedirectUriNotRegistered.because("redirect_uri came twice"))?;
    known_client::redirect_uri(app, client, presented)
}

/// Step 3: checks everything else. The caller reports a failure to the client by a redirect.
fn check<'a>(
    app: &'a App,
    KnownClient { client, back, .. }: &KnownClient<'_>,
    params: &Params,
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
        upstream: acts_as::uses(app.config(), resource),
        account: AccountPrompt::asked_by(prompt),
        trace: trace::carried(),
    };
    Ok((request, resource))
}

/// Returns the first requested scope that the resource does not have, cut to 100 characters.
fn beyond(resource: &ResourceConfig, requested: &ScopeSet) -> String {
    let beyond = resource.policy.unknown_scopes(requested);
    beyond.iter().next().map(|scope| scope.as_str().chars().take(100).collect()).unwrap_or_default()
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
