//! Further services, such as GitHub, that people connect for the MCP servers which act there as the person.
//!
//! The steps, in the order in which a browser takes them:
//!
//! 1. A person comes with a link that the gateway gave to their application, or from the list of their services
//!    ([`list`]), to `GET /connect/{name}` ([`connect`]). The page needs the session of `/account`, and says what is
//!    asked for, and which MCP servers will use it ([`wanted`]).
//! 2. `POST /connect/{name}` ([`connect`]) stores an attempt, which is bound to this browser by a cookie and to the
//!    person who is signed in, and redirects the browser to the service.
//! 3. `GET /auth/connect/{name}/callback` ([`callback`]): the service has sent the browser back. The handler uses up
//!    the attempt if browser, person and service are those of step 2, redeems the code, and stores the tokens.
//! 4. The browser is redirected to the page of step 1, which now says that the service is connected.
//!
//! `/account/connections` lists the services of a person, and disconnects them ([`remove`]).

mod callback;
mod connect;
mod list;
mod remove;
mod wanted;

use axum::Router;
use axum::body::Body;
use axum::middleware;
use axum::routing::{get, post};

use crate::app::App;
use crate::config::paths;
use crate::connections::ConnectFailed;
use crate::web::browser::{Browser, PageRequest, page};
use crate::web::page_error::PageError;
use crate::web::pages::{self, Message};
use crate::web::routes::{method_not_allowed, once};
use crate::web::web_session::{self, SignedInPerson};

/// Returns the routes of these pages.
pub(super) fn routes() -> Router<App> {
    list_routes().merge(connect_routes())
}

fn list_routes() -> Router<App> {
    Router::new()
        .route(paths::ACCOUNT_CONNECTIONS, get(page(list::get)).fallback(method_not_allowed))
        .route(
            paths::ACCOUNT_CONNECTIONS_CONFIRM,
            get(page(remove::confirm)).fallback(method_not_allowed),
        )
        .route(
            paths::ACCOUNT_CONNECTIONS_REMOVE,
            post(page(remove::post)).fallback(method_not_allowed),
        )
        .layer(middleware::map_response(pages::isolate_window))
}

/// A client may open these in a popup, and watches that window: they do not isolate it.
fn connect_routes() -> Router<App> {
    Router::new()
        .route(
            paths::CONNECT_PAGE,
            get(page(connect::get)).post(page(connect::post)).fallback(method_not_allowed),
        )
        .route(paths::CONNECT_CALLBACK, once(get(page(callback::get))))
}

/// A signed-in person requests one of these pages. Others sign in first, and come back to the same page.
struct ServiceVisit {
    browser: Browser,
    visitor: SignedInPerson,
}

impl PageRequest for ServiceVisit {
    async fn of(browser: Browser, _: Body) -> Result<Self, PageError> {
        let visitor = web_session::enter(&browser, browser.path_and_query()).await?;
        Ok(Self { browser, visitor })
    }
}

impl ServiceVisit {
    /// Returns the display name of the person.
    fn person(&self) -> &str {
        let SignedInPerson { person, session, .. } = &self.visitor;
        person.name.as_deref().or(person.email.as_deref()).unwrap_or(&session.subject)
    }

    /// Returns our `sub` of the person.
    fn subject(&self) -> &str {
        &self.visitor.session.subject
    }
}

/// Returns the page that explains why a service could not be connected. The person's own no is none of these
/// ([`callback`]).
fn explain(failed: &ConnectFailed) -> PageError {
    let message = match failed {
        ConnectFailed::Refused | ConnectFailed::Untrusted(_) => Message::ServiceNotTrusted,
        ConnectFailed::Unavailable(_) => Message::ServiceUnavailable,
        ConnectFailed::Misconfigured(_) => Message::ServiceMisconfigured,
    };
    message.because(failed)
}
