//! Extractors for admin handlers: every page takes an [`AdminPage`], every change an [`AdminForm`].

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, RawQuery, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::storage::StorageError;
use crate::telemetry::audit::{Actor, AuditEvent};
use crate::web::browser::{PageError, see_other};
use crate::web::console::{self, AccessError, SignedInPerson, Site};
use crate::web::list_page::{Frame, Section, sign_in_page};
use crate::web::pages::Message;
use crate::web::params::Params;
use crate::web::words::words;

words! {
    /// The navigation.
    struct SectionWords {
        overview: "Overview", "概要";
        clients: "Clients", "クライアント";
        grants: "Connections", "接続";
        people: "People", "利用者";
        servers: "MCP servers", "MCPサーバー";
        keys: "Keys", "鍵";
        audit: "Audit", "監査";
    }
}

/// The response to a request that is not served: the sign-in page or an error page.
pub(super) struct Rejection(Box<Response>);

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        *self.0
    }
}

impl From<Response> for Rejection {
    fn from(response: Response) -> Self {
        Self(Box::new(response))
    }
}

impl From<PageError> for Rejection {
    fn from(error: PageError) -> Self {
        error.into_response().into()
    }
}

/// A signed-in administrator or viewer requests a page.
pub(super) struct AdminPage {
    pub(super) app: App,
    pub(super) headers: HeaderMap,
    /// The query parameters.
    pub(super) params: Params,
    pub(super) visitor: SignedInPerson,
}

/// An administrator submits a form. Origin, CSRF token and the right to change are checked.
pub(super) struct AdminForm {
    pub(super) visit: AdminPage,
    pub(super) form: Params,
}

impl FromRequestParts<App> for AdminPage {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Rejection> {
        let here = parts.uri.path_and_query().map_or("/", |here| here.as_str()).to_owned();
        let visitor = enter(app, &parts.headers, &here).await?;
        let params = Params::parse(parts.uri.query().unwrap_or_default()).map_err(|refused| {
            let message = Message::InvalidRequest { what: "query" };
            PageError::new(&parts.headers, StatusCode::BAD_REQUEST, message, &refused)
        })?;
        Ok(Self { app: app.clone(), headers: parts.headers.clone(), params, visitor })
    }
}

impl FromRequest<App> for AdminForm {
    type Rejection = Rejection;

    async fn from_request(request: Request, app: &App) -> Result<Self, Rejection> {
        let (parts, body) = request.into_parts();
        let headers = parts.headers;
        let site = site(app, &headers)?;
        let visitor = enter(app, &headers, page_of_the_form(&site, &headers)).await?;
        let form = console::read_form(&site, &headers, parts.uri.query(), body).await?;
        console::check_csrf(&headers, &visitor, &form)?;
        if !visitor.may_change {
            let (status, message) = (StatusCode::FORBIDDEN, Message::NotAnAdministrator);
            return Err(PageError::new(&headers, status, message, &"read only").into());
        }
        let visit = AdminPage { app: app.clone(), headers, params: Params::default(), visitor };
        Ok(Self { visit, form })
    }
}

impl AdminForm {
    /// Requires a recent sign-in for a destructive change; otherwise returns the sign-in page. `back` is the
    /// page shown after the new sign-in.
    pub(super) fn needs_fresh_proof(&self, back: &str) -> Result<(), Rejection> {
        if self.visit.visitor.fresh {
            return Ok(());
        }
        let AdminPage { app, headers, .. } = &self.visit;
        let site = site(app, headers)?;
        Err(sign_in_page(app, &site, headers, back, true).into())
    }

    /// Returns a form field, empty if it is absent or repeated.
    pub(super) fn field(&self, name: &str) -> &str {
        self.form.get(name).ok().flatten().unwrap_or_default()
    }
}

impl AdminPage {
    /// Returns a query parameter, empty if it is absent or repeated.
    pub(super) fn param(&self, name: &str) -> &str {
        self.params.get(name).ok().flatten().unwrap_or_default()
    }

    /// Builds the frame of the page at `path`.
    pub(super) async fn frame(&self, path: &str) -> Result<Frame, Rejection> {
        let waiting = self.app.storage().clients_waiting().await.map_err(|e| self.storage(&e))?;
        let mut frame = Frame::new(&self.headers, &self.visitor, &site(&self.app, &self.headers)?);
        let w = SectionWords::of(frame.language);
        let section = |at: &'static str, label, count| Section {
            path: at,
            label,
            current: at == path,
            count,
        };
        frame.sections = vec![
            section("/", w.overview, 0),
            section("/clients", w.clients, waiting),
            section("/grants", w.grants, 0),
            section("/people", w.people, 0),
            section("/servers", w.servers, 0),
            section("/keys", w.keys, 0),
            section("/audit", w.audit, 0),
        ];
        frame.footer = format!("Portcullis {} · {}", env!("CARGO_PKG_VERSION"), self.app.issuer());
        Ok(frame)
    }

    /// Returns the page for a storage error.
    pub(super) fn storage(&self, error: &StorageError) -> Rejection {
        PageError::storage(&self.headers, error).into()
    }

    /// Returns the page for another internal error.
    pub(super) fn broken(&self, error: &dyn std::fmt::Display) -> Rejection {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        PageError::new(&self.headers, status, Message::ServerError, error).into()
    }

    /// Returns the 404 page for something that does not exist.
    pub(super) fn missing(&self) -> Rejection {
        let status = StatusCode::NOT_FOUND;
        PageError::new(&self.headers, status, Message::NoSuchAdminPage, &"no such row").into()
    }

    /// Returns the 403 page for a viewer who tries to change something.
    pub(super) fn read_only(&self) -> Rejection {
        let (status, message) = (StatusCode::FORBIDDEN, Message::NotAnAdministrator);
        PageError::new(&self.headers, status, message, &"read only").into()
    }

    /// Creates an audit event with this administrator as the actor.
    pub(super) fn event(&self, event: &'static str) -> AuditEvent {
        self.app.event(event, Actor::Admin(self.visitor.session.subject.clone()))
    }

    /// Returns the administrator's subject, which is stored with their decisions.
    pub(super) fn by(&self) -> &str {
        &self.visitor.session.subject
    }

    /// Redirects to a page of the admin site.
    pub(super) fn go(&self, path: &str) -> Response {
        let url = Site::admin(&self.app).map(|site| site.url.join(path));
        see_other(url.as_deref().unwrap_or(path))
    }
}

fn site<'a>(app: &'a App, headers: &HeaderMap) -> Result<Site<'a>, Rejection> {
    Site::admin(app).ok_or_else(|| {
        let (status, message) = (StatusCode::NOT_FOUND, Message::NotFound);
        PageError::new(headers, status, message, &"there are no admin pages").into()
    })
}

/// Returns the page that contained the form, by `Referer`: after a new sign-in the browser returns to that
/// page, because the form's own target may not be a page.
fn page_of_the_form<'h>(site: &Site<'_>, headers: &'h HeaderMap) -> &'h str {
    let referer = headers.get(header::REFERER).and_then(|value| value.to_str().ok());
    referer
        .and_then(|url| url.strip_prefix(site.url.origin()))
        .filter(|path| !path.is_empty())
        .unwrap_or("/")
}

async fn enter(app: &App, headers: &HeaderMap, here: &str) -> Result<SignedInPerson, Rejection> {
    let site = site(app, headers)?;
    console::visitor(app, &site, headers).await.map_err(|why| match why {
        AccessError::SignedOut => sign_in_page(app, &site, headers, here, false).into(),
        AccessError::NotAllowed => {
            let (status, message) = (StatusCode::FORBIDDEN, Message::NotAnAdministrator);
            PageError::new(headers, status, message, &"not, or no longer, an administrator").into()
        }
        AccessError::Unavailable(reason) => {
            let (status, message) = (StatusCode::SERVICE_UNAVAILABLE, Message::ProviderUnavailable);
            PageError::new(headers, status, message, &reason).into()
        }
        AccessError::Storage(error) => PageError::storage(headers, &error).into(),
    })
}

/// `POST /sign-in`.
pub(super) async fn sign_in(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Rejection> {
    let site = site(&app, &headers)?;
    let form = console::read_form(&site, &headers, query.as_deref(), body).await?;
    let go_on = form.get("go_on").ok().flatten().unwrap_or("/");
    let anew = form.get("anew").ok().flatten().is_some();
    Ok(console::begin_sign_in(&app, &site, &headers, go_on, anew).await?)
}

/// `GET /signed-in`: finishes the sign-in when the browser comes back from the identity provider.
pub(super) async fn signed_in(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Rejection> {
    let site = site(&app, &headers)?;
    Ok(console::finish_sign_in(&app, &site, &headers, query.as_deref()).await?)
}

/// `POST /sign-out`. Viewers may do this too.
pub(super) async fn sign_out(
    State(app): State<App>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Rejection> {
    let site = site(&app, &headers)?;
    let visitor = enter(&app, &headers, "/").await?;
    let form = console::read_form(&site, &headers, query.as_deref(), body).await?;
    console::check_csrf(&headers, &visitor, &form)?;
    Ok(console::sign_out(&app, &site, &headers, &visitor).await?)
}
