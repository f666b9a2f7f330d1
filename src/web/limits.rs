//! Rate limits for each address, by path.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::browser::{self, Browser};
use super::client_address::ClientAddress;
use super::error::ApiError;
use super::page_error::PageError;
use super::pages::{Message, MessagePage, PageFrame, Repeat};
use super::resource_auth;
use super::words::Language;
use crate::app::App;
use crate::config::paths;
use crate::rate_limits::{LimitedAction, RateLimited};
use crate::storage::Realm;
use crate::telemetry::log_throttle::LogThrottle;

/// One throttle for each kind of limited action.
static TOO_OFTEN: [LogThrottle; LimitedAction::KINDS] =
    [const { LogThrottle::new() }; LimitedAction::KINDS];

impl ApiError {
    /// Returns the error for an address over its rate limit.
    pub fn too_often(asked: LimitedAction, often: RateLimited) -> Self {
        let limit = format!("`limits.{}`", asked.limit());
        Self::Quota { retry_after: often.retry_after, limit }
    }
}

/// An extension of responses to an MCP server that has authenticated: they are no failures of an address that guesses
/// secrets, whatever their status. An MCP server asks for many people, and one of them must not use up the
/// limit of the others.
#[derive(Clone, Copy)]
pub struct OfMcpServer;

/// The rate limits of a path.
struct PathLimits {
    /// Counts each request.
    asked: Option<LimitedAction>,
    /// Counts requests that fail.
    failure: Option<LimitedAction>,
}

impl PathLimits {
    /// Returns the limits of this path; `None` if nothing is limited here. Registration and the gateway have limits of
    /// their own.
    fn of(path: &str) -> Option<Self> {
        let (asked, failure) = match path {
            paths::AUTHORIZE | paths::AUTHORIZE_AGAIN | paths::CALLBACK => {
                (Some(LimitedAction::Authorize), None)
            }
            paths::CONSENT => (Some(LimitedAction::Consent), None),
            paths::ACCOUNT_SIGN_IN | paths::ACCOUNT_SIGNED_IN => {
                (Some(LimitedAction::SignIn), None)
            }
            paths::WAITING | paths::WAITING_CANCEL | paths::ACCOUNT | paths::LOGO => {
                (Some(LimitedAction::Pages), None)
            }
            path if path.strip_prefix(paths::ACCOUNT).is_some_and(|rest| rest.starts_with('/'))
                || path.starts_with(paths::CONNECT)
                || paths::is_connect_callback(path) =>
            {
                (Some(LimitedAction::Pages), None)
            }
            // An MCP server that exchanges tokens is exempt, see `is_exempt`.
            paths::TOKEN | paths::REVOKE => {
                (Some(LimitedAction::Token), Some(LimitedAction::TokenFailure))
            }
            // An MCP server may introspect at each request, and all its requests come from one address, so
            // only failures are limited.
            paths::INTROSPECT => (None, Some(LimitedAction::TokenFailure)),
            // Paths of the admin listener. On the main listener they do not exist.
            "/sign-in" => (Some(LimitedAction::SignIn), None),
            "/signed-in" => (Some(LimitedAction::SignIn), Some(LimitedAction::AdminSignInFailure)),
            path if path.contains("/.well-known/") => (Some(LimitedAction::Discovery), None),
            _ => return None,
        };
        Some(Self { asked, failure })
    }
}

/// Enforces the rate limits of an address: passes the request on, or returns 429 with `Retry-After`. A
/// request without a known address passes. Failures at the token and introspection endpoints, and of admin
/// sign-ins, have a limit of their own; above it the 429 replaces the response, so that the address learns
/// nothing more.
pub async fn enforce<F: Future<Output = Response>>(
    app: &App,
    request: Box<Request>,
    next: impl FnOnce(Box<Request>) -> F,
) -> Response {
    let Some(address) = ClientAddress::of(request.extensions()) else {
        return next(request).await;
    };
    let Some(PathLimits { asked, failure }) = PathLimits::of(request.uri().path()) else {
        return next(request).await;
    };
    if let Some(asked) = asked
        && !is_exempt(app, &request)
        && let Err(often) = app.rates().check(asked, Some(address))
    {
        let realm = match request.uri().path() {
            "/sign-in" | "/signed-in" => Realm::Admin,
            _ => Realm::Account,
        };
        let language = browser::language(app, realm, request.headers());
        let may_reload =
            *request.method() == Method::GET && browser::is_repeatable(request.uri().path());
        return refuse(app, asked, FrequentCaller { address, language, may_reload }, often);
    }
    let language = match failure {
        // Only this failure is shown to a person.
        Some(LimitedAction::AdminSignInFailure) => {
            browser::language(app, Realm::Admin, request.headers())
        }
        _ => Language::English,
    };
    let response = next(request).await;
    let failed = match failure {
        Some(LimitedAction::AdminSignInFailure) => response.status() == StatusCode::FORBIDDEN,
        _ => {
            matches!(response.status(), StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED)
                && response.extensions().get::<OfMcpServer>().is_none()
        }
    };
    if let Some(failure) = failure.filter(|_| failed)
        && let Err(often) = app.rates().check(failure, Some(address))
    {
        return refuse(
            app,
            failure,
            FrequentCaller { address, language, may_reload: false },
            often,
        );
    }
    response
}

/// Returns whether this is a token request of an MCP server that proves itself. It may exchange a token at each call of
/// each person, as it may introspect, and all its requests come from one address.
fn is_exempt(app: &App, request: &Request) -> bool {
    request.uri().path() == paths::TOKEN
        && app.config().offers_token_exchange()
        && resource_auth::has_proof(app, request.headers())
}

/// Enforces the limit of people's pages for a page whose path the admin listener has too.
pub fn check_page(browser: &Browser) -> Result<(), PageError> {
    let Some(address) = browser.address else { return Ok(()) };
    let asked = LimitedAction::Pages;
    browser.app.rates().check(asked, Some(address)).map_err(|often| {
        let caller = FrequentCaller { address, language: browser.language, may_reload: true };
        refuse(&browser.app, asked, caller, often).into()
    })
}

#[derive(Clone, Copy)]
struct FrequentCaller {
    address: IpAddr,
    language: Language,
    /// Whether the browser can load the page again.
    may_reload: bool,
}

fn refuse(
    app: &App,
    asked: LimitedAction,
    FrequentCaller { address, language, may_reload }: FrequentCaller,
    often: RateLimited,
) -> Response {
    if let Some(left_out) = TOO_OFTEN[asked as usize].admit() {
        let limit = asked.limit();
        tracing::warn!(?asked, limit, %address, left_out, "an address asks too often");
    }
    match asked {
        LimitedAction::Authorize
        | LimitedAction::Consent
        | LimitedAction::SignIn
        | LimitedAction::Pages
        | LimitedAction::AdminSignInFailure => {}
        LimitedAction::Token
        | LimitedAction::TokenFailure
        | LimitedAction::Registration
        | LimitedAction::Discovery => return ApiError::too_often(asked, often).into_response(),
    }
    let message = Message::AskedTooOften { seconds: often.retry_after };
    // Without the link to `/account` it looks the same in both realms.
    let frame = browser::frame(app, Realm::Account, language, false);
    let frame = PageFrame { for_people: false, ..frame };
    let repeat = Repeat { reload: may_reload, ..Repeat::default() };
    let page = MessagePage { frame, message, reference: None, return_to: None, repeat };
    let mut page = page.render();
    page.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(often.retry_after));
    page
}
