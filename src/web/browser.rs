//! The request context of pages: what every handler of a page needs of a browser's request.

use std::convert::Infallible;
use std::net::IpAddr;
use std::pin::Pin;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request};
use axum::handler::Handler;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::body;
use super::client_address::ClientAddress;
use super::cookies::{self, CookieLimits, Cookies};
use super::error::ApiError;
use super::page_error::PageError;
use super::pages::{Message, MessagePage, NextStep, PageFrame, Repeat};
use super::params::{Params, ParamsRefused};
use super::speculative::FetchPurpose;
use super::times::local;
use super::words::Language;
use crate::app::App;
use crate::clock::Timestamp;
use crate::config::{PublicUrl, UNBRANDED, paths};
use crate::storage::Realm;

/// Pages that a browser may ask for again: with a GET of these nothing happens that cannot happen twice. A person
/// may choose another language there.
const REPEATABLE: &[&str] = &[
    paths::LANDING,
    paths::AUTHORIZE,
    paths::WAITING,
    paths::ACCOUNT,
    paths::ACCOUNT_CONFIRM,
    paths::ACCOUNT_CONNECTIONS,
    paths::ACCOUNT_CONNECTIONS_CONFIRM,
];

/// Returns whether a browser may ask for the page at this path again.
pub fn is_repeatable(path: &str) -> bool {
    REPEATABLE.contains(&path) || paths::is_connect_page(path)
}

/// Path of the sign-in to the admin pages.
const ADMIN_SIGN_IN: &str = "/sign-in";
/// Path at which the identity provider's answer to that sign-in arrives.
const ADMIN_SIGNED_IN: &str = "/signed-in";

/// A request of a person's browser. The handlers of pages take it, or something that is made of it, and are
/// wrapped in [`page`] or [`admin_page`] where the routes are listed.
pub struct Browser {
    pub app: App,
    /// [`Realm::Admin`] for the pages of the admin listener, [`Realm::Account`] for those of the public one.
    pub realm: Realm,
    pub language: Language,
    /// The cookies of the pages in this realm.
    pub cookies: Cookies,
    /// The address for rate limits; `None` if it cannot be known.
    pub address: Option<IpAddr>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

/// For handlers that are no pages of their own, such as fallbacks.
impl FromRequestParts<App> for Browser {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Infallible> {
        Ok(Self::new(app, Realm::Account, parts.clone()))
    }
}

impl Browser {
    fn new(app: &App, realm: Realm, parts: Parts) -> Self {
        let (cookies, language) = preferences(app, realm, &parts.headers);
        Self {
            realm,
            language,
            cookies,
            address: ClientAddress::of(&parts.extensions),
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            app: app.clone(),
        }
    }

    /// Returns the frame of every page in the response.
    pub fn frame(&self) -> PageFrame<'_> {
        frame(&self.app, self.realm, self.language, self.may_be_repeated())
    }

    /// Returns whether the browser may ask for this page again, in another language ([`is_repeatable`]).
    fn may_be_repeated(&self) -> bool {
        self.realm == Realm::Account && self.method == Method::GET && is_repeatable(self.uri.path())
    }

    /// Formats a time for people, in their zone as far as it is known.
    pub fn time(&self, moment: Timestamp) -> String {
        local(moment, &self.app.config().branding)
    }

    /// Returns how the person can do this again, if it fails. A provider that cannot let them choose an account is
    /// not considered yet.
    fn repeat(&self) -> Repeat<'static> {
        let path = self.uri.path();
        let (begin, finish) = match self.realm {
            Realm::Account => (paths::ACCOUNT_SIGN_IN, paths::ACCOUNT_SIGNED_IN),
            Realm::Admin => (ADMIN_SIGN_IN, ADMIN_SIGNED_IN),
        };
        let signs_in = path == begin || path == finish;
        let has_session = self.realm == Realm::Admin
            || path.starts_with(paths::ACCOUNT)
            || path.starts_with(paths::CONNECT);
        let is_page = self.realm == Realm::Admin || is_repeatable(path);
        Repeat {
            request: None,
            page: None,
            sign_in: signs_in.then_some(begin),
            reload: self.method == Method::GET && is_page && !signs_in,
            other_account: has_session.then_some(begin),
            may_choose: false,
        }
    }

    /// Returns the URL under which browsers reach the pages of this realm.
    pub fn url(&self) -> &PublicUrl {
        url_of(&self.app, self.realm)
    }

    /// Redirects to the page at one of our own paths.
    pub fn go(&self, path: &str) -> Response {
        see_other(&self.url().join(path))
    }

    /// Returns a page without a reference, for what a person can solve without the log.
    pub fn message(&self, message: Message<'_>) -> Response {
        plain_message(self.frame(), message)
    }

    /// Returns a page with a reference to the log.
    pub fn message_about(&self, message: Message<'_>, reference: &str) -> Response {
        let (frame, reference, repeat) = (self.frame(), Some(reference), self.repeat());
        MessagePage { frame, message, reference, return_to: None, repeat }.render()
    }

    /// Returns the path without the query, as the routes know it.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// Returns the path and the query, as the routes know them.
    pub fn path_and_query(&self) -> &str {
        self.uri.path_and_query().map_or("/", |target| target.as_str())
    }

    pub fn query(&self) -> &str {
        self.uri.query().unwrap_or_default()
    }

    /// Returns the parameters of the query.
    pub fn params(&self) -> Result<Params, ParamsRefused> {
        Params::parse(self.query())
    }

    /// Returns a header that is expected at most once; `None` if it came twice or is not text.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let first = values.next()?;
        if values.next().is_some() { None } else { first.to_str().ok() }
    }

    /// Returns whether a page that does not exist is reported as a page: to browsers. Below `/.well-known/` it
    /// never is, because probing clients give up on anything except a 404 that is not HTML.
    pub fn wants_page(&self) -> bool {
        let accept = self.headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
        !self.uri.path().contains("/.well-known/")
            && accept.is_some_and(|accept| accept.contains("text/html"))
    }

    /// Returns whether no person decided to go here ([`super::speculative`]).
    pub fn is_guess(&self) -> bool {
        FetchPurpose::of(&self.headers).is_guess(&self.method)
    }

    /// Returns whether the browser marks this request as a navigation in a tab.
    pub fn is_navigation(&self) -> bool {
        FetchPurpose::of(&self.headers).is_navigation()
    }

    /// Returns whether a person opened this address themselves, or came from one of our pages. Another website
    /// may have come between the person and the client (threat CD-02); a browser that sends no
    /// `Sec-Fetch-Site` is treated as such a case.
    pub fn comes_directly(&self) -> bool {
        matches!(self.header("sec-fetch-site"), Some("none" | "same-origin"))
    }

    /// Checks that a page of our origin sent this form: `Origin` must be ours, and `Sec-Fetch-Site` must be
    /// same-origin if the browser sends it. Otherwise returns the page with `message`.
    pub fn check_same_origin(&self, message: Message<'static>) -> Result<(), PageError> {
        if self.header(header::ORIGIN.as_str()) != Some(self.url().origin()) {
            return Err(message.because("Origin is not ours"));
        }
        let fetch_site = self.headers.get("sec-fetch-site");
        if fetch_site.is_some_and(|site| site.as_bytes() != b"same-origin") {
            return Err(message.because("Sec-Fetch-Site is not same-origin"));
        }
        Ok(())
    }
}

/// A form that a browser has sent. Its body is not read yet.
pub struct BrowserForm {
    pub browser: Browser,
    body: Body,
}

impl BrowserForm {
    /// Reads a form of at most `limit` bytes. A longer one is 413; one that breaks off, is too slow or cannot
    /// be parsed is 400.
    pub async fn read(self, limit: usize) -> Result<(Browser, Params), PageError> {
        let Self { browser, body } = self;
        let unreadable = Message::InvalidRequest { what: "form" };
        let body = body::read(body, limit).await.map_err(|error| match error {
            ApiError::TooLarge => Message::RequestTooLarge.because("the form is too large"),
            _ => unreadable.because("the form did not arrive whole"),
        })?;
        let content_type = browser.headers.get(header::CONTENT_TYPE);
        let form = Params::from_post(content_type, browser.uri.query(), &body);
        let form = form.map_err(|refused| unreadable.because(refused))?;
        Ok((browser, form))
    }
}

/// What the handler of a page takes: a [`Browser`], or something that is made of one.
pub trait PageRequest: Sized {
    /// Makes it, or returns the page that is shown instead.
    fn of(browser: Browser, body: Body) -> impl Future<Output = Result<Self, PageError>> + Send;
}

impl PageRequest for Browser {
    async fn of(browser: Browser, _: Body) -> Result<Self, PageError> {
        Ok(browser)
    }
}

impl PageRequest for BrowserForm {
    async fn of(browser: Browser, body: Body) -> Result<Self, PageError> {
        Ok(Self { browser, body })
    }
}

/// The handler of a page: a function from a [`PageRequest`] to a response. Its errors are shown in the person's
/// language.
#[derive(Clone, Copy, Debug)]
pub struct PageHandler<H> {
    realm: Realm,
    handler: H,
}

/// Makes the handler of a page on the public listener.
pub const fn page<H>(handler: H) -> PageHandler<H> {
    PageHandler { realm: Realm::Account, handler }
}

/// Makes the handler of a page on the admin listener.
pub const fn admin_page<H>(handler: H) -> PageHandler<H> {
    PageHandler { realm: Realm::Admin, handler }
}

impl<H, R, Shown> Handler<(R,), App> for PageHandler<H>
where
    H: FnOnce(R) -> Shown + Clone + Send + Sync + 'static,
    R: PageRequest + Send + 'static,
    Shown: Future<Output = Result<Response, PageError>> + Send,
{
    type Future = Pin<Box<dyn Future<Output = Response> + Send>>;

    fn call(self, request: Request, app: App) -> Self::Future {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let browser = Browser::new(&app, self.realm, parts);
            let language = browser.language;
            let (repeatable, repeat) = (browser.may_be_repeated(), browser.repeat());
            let shown = match R::of(browser, body).await {
                Ok(request) => (self.handler)(request).await,
                Err(instead) => Err(instead),
            };
            match shown {
                Ok(response) => response,
                Err(error) => {
                    let may_choose = error.offer() == NextStep::AnotherAccount
                        && app.upstream().lets_choose_account().await;
                    let frame = frame(&app, self.realm, language, repeatable);
                    error.respond(frame, Repeat { may_choose, ..repeat })
                }
            }
        })
    }
}

/// Returns the person's language on the pages of this realm: the chosen one, otherwise by `Accept-Language`.
pub fn language(app: &App, realm: Realm, headers: &HeaderMap) -> Language {
    preferences(app, realm, headers).1
}

/// Returns the cookies of this realm, and the language that they or the browser ask for.
fn preferences(app: &App, realm: Realm, headers: &HeaderMap) -> (Cookies, Language) {
    let config = app.config();
    let limits = CookieLimits {
        login: config.tokens.login,
        logins: config.limits.pending_logins_per_browser,
    };
    let cookies = Cookies::read(headers.get_all(header::COOKIE), url_of(app, realm), limits);
    let offered: &[Language] = match realm {
        Realm::Admin => &Language::OF_ADMINISTRATORS,
        Realm::Account => &Language::ALL,
    };
    let chosen = cookies::LANGUAGE.get(&cookies, "").filter(|chosen| offered.contains(chosen));
    let language = chosen.unwrap_or_else(|| {
        let header = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok());
        Language::from_accept_language(header, offered)
    });
    (cookies, language)
}

/// Returns the frame of the pages of this realm. `offers_languages`: the page can be shown again in another
/// language.
pub fn frame(app: &App, realm: Realm, language: Language, offers_languages: bool) -> PageFrame<'_> {
    // The admin pages show whose software they administer.
    let brand = match realm {
        Realm::Account => &app.config().branding,
        Realm::Admin => &UNBRANDED,
    };
    let for_people = realm == Realm::Account;
    let base = url_of(app, realm).base_path();
    PageFrame { language, base, offers_languages, brand, for_people }
}

/// Returns a page without a reference and without a link.
pub fn plain_message(frame: PageFrame<'_>, message: Message<'_>) -> Response {
    let repeat = Repeat::default();
    MessagePage { frame, message, reference: None, return_to: None, repeat }.render()
}

fn url_of(app: &App, realm: Realm) -> &PublicUrl {
    let config = app.config();
    match (realm, &config.admin) {
        (Realm::Admin, Some(admin)) => &admin.url,
        // There is no admin listener without its configuration.
        (Realm::Admin, None) | (Realm::Account, _) => &config.public_url,
    }
}

/// Redirects the browser with 303, so that a POST is never repeated at the new location (RFC 9700 §4.12).
pub fn see_other(location: &str) -> Response {
    let location = HeaderValue::from_str(location);
    let Ok(location) = location else {
        // Unreachable: registered URIs and our own parameters are ASCII.
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}
