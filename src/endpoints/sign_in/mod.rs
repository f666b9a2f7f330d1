//! The login of a person, from the authorization request of a client to its authorization code.
//!
//! The steps, in the order in which a browser takes them:
//!
//! 1. `GET /authorize` ([`authorize`]) finds the client, proves its redirect URI, and checks everything else.
//!    Administrators may have denied the client; steps 3 and 5 check all of it again ([`known_client`]).
//! 2. It shows the consent page ([`consent_page`]). Nothing is stored: the page carries the sealed request. If a
//!    trusted client comes back for something that this browser has approved before, the page is skipped
//!    ([`remembered_consent`]), and step 4 follows at once. The page marks scopes that were approved before
//!    ([`step_up`]), and names the services in which the MCP server acts as the person ([`acts_as`]).
//! 3. `POST /consent` ([`consent`]) receives the decision. Deny redirects to the client with `access_denied`.
//! 4. Approve begins a login ([`login`]): it stores the approval and the pending login, binds the login to
//!    this browser by a cookie, and redirects the browser to the identity provider.
//! 5. `GET /auth/callback` ([`callback`]): the provider has sent the browser back. The handler proves that it
//!    is the same browser, consumes the login, redeems the provider's code, and applies the rules. If the
//!    rules allow the person nothing ([`outcome`]), or not what the gateway demanded of the client
//!    ([`step_up`]), the person sees why.
//! 6. If an administrator has to approve the client first, the person waits at `GET /waiting`
//!    ([`awaiting_approval`]).
//! 7. The browser is redirected to the client with an authorization code ([`outcome`]), which the client
//!    redeems at `endpoints/token/`. What a trusted client was allowed is remembered for step 2.
//!
//! A page that says why a step failed offers to try again where that makes sense. `POST /authorize/again` ([`again`])
//! then returns to step 1.

mod acts_as;
mod again;
mod authorize;
mod awaiting_approval;
mod callback;
mod consent;
mod consent_page;
mod known_client;
mod login;
mod outcome;
mod remembered_consent;
mod step_up;

use axum::Router;
use axum::routing::{get, post};

use crate::app::App;
use crate::config::paths;
use crate::web::browser::page;
use crate::web::routes::{method_not_allowed, once};

/// Returns the routes of the login.
pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(paths::AUTHORIZE, get(page(authorize::get)).fallback(method_not_allowed))
        .route(paths::AUTHORIZE_AGAIN, post(page(again::post)).fallback(method_not_allowed))
        .route(paths::CONSENT, post(page(consent::post)).fallback(method_not_allowed))
        .route(paths::CALLBACK, once(get(page(callback::get))))
        .route(paths::WAITING, once(get(page(awaiting_approval::get))))
        .route(
            paths::WAITING_CANCEL,
            post(page(awaiting_approval::cancel)).fallback(method_not_allowed),
        )
}
