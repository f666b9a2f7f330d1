//! Responses for people: pages in their language, and redirects back to the client.

use std::net::IpAddr;

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::body;
use super::error::ApiError;
use super::pages::{Message, MessagePage, ReturnLink};
use super::params::Params;
use super::words::Language;
use crate::app::App;
use crate::clients::FindError;
use crate::oauth::client::{Client, Currency, Origin};
use crate::oauth::error::{ErrorCode, Refusal};
use crate::oauth::redirect_uri::{Destination, RegisteredRedirectUri, ReturnRefused, destination};
use crate::storage::{Denied, StorageError};
use crate::telemetry::log_throttle::KeyedLogThrottle;
use crate::telemetry::new_reference;
use crate::upstream::{QueryPermit, UpstreamError};

static SHOWN: KeyedLogThrottle = KeyedLogThrottle::new();
static REFUSED: KeyedLogThrottle = KeyedLogThrottle::new();

/// Returns the person's language, by `Accept-Language`.
pub fn language(headers: &HeaderMap) -> Language {
    Language::from_accept_language(
        headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()),
    )
}

/// Returns a page without a reference, for problems that the person can solve without the log.
pub fn message(headers: &HeaderMap, status: StatusCode, message: Message<'_>) -> Response {
    let page = MessagePage {
        language: language(headers),
        status,
        message,
        reference: None,
        return_to: None,
    };
    page.render()
}

/// An error that ends on a page. The reason goes to the log, under the reference that the page shows.
#[derive(Debug)]
pub struct PageError {
    status: StatusCode,
    message: Message<'static>,
    reference: String,
    reason: String,
    language: Language,
}

/// Attached to a response that shows a reference, so that the audit trail can record it.
#[derive(Clone, Debug)]
pub struct ShownReference {
    /// The reference on the page.
    pub reference: String,
    /// The reason in the log.
    pub reason: String,
}

impl PageError {
    /// Creates a page with a new reference, and logs `reason` under it.
    pub fn new(
        headers: &HeaderMap,
        status: StatusCode,
        message: Message<'static>,
        reason: &dyn std::fmt::Display,
    ) -> Self {
        let reference = new_reference();
        let reason = reason.to_string();
        // Throttled: the audit event of the page contains the reference too.
        if let Some(left_out) = SHOWN.admit(&reason) {
            let status_code = status.as_u16();
            if status.is_server_error() {
                tracing::error!(reference, status = status_code, reason, left_out, "page shown");
            } else {
                tracing::info!(reference, status = status_code, reason, left_out, "page shown");
            }
        }
        Self { status, message, reference, reason, language: language(headers) }
    }

    /// Returns the reference on the page.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Returns the page for a storage error: 503 if it is temporary, 403 if access was denied meanwhile,
    /// otherwise 500.
    pub fn storage(headers: &HeaderMap, error: &StorageError) -> Self {
        match error {
            StorageError::Unavailable(_)
            | StorageError::Busy
            | StorageError::NoConnection(_)
            | StorageError::Gone
            | StorageError::ClockBehind
            | StorageError::Full(_) => Self::new(
                headers,
                StatusCode::SERVICE_UNAVAILABLE,
                Message::TemporarilyUnavailable,
                error,
            ),
            StorageError::ShutOut(who) => {
                let message = match who {
                    Denied::Client => Message::ClientShutOut,
                    Denied::Person => Message::PersonBlocked,
                    Denied::SignedOut => Message::SignedOutMeanwhile,
                };
                Self::new(headers, StatusCode::FORBIDDEN, message, error)
            }
            StorageError::Refused(_) | StorageError::Corrupt(_) | StorageError::Sealed(_) => {
                Self::new(headers, StatusCode::INTERNAL_SERVER_ERROR, Message::ServerError, error)
            }
        }
    }
}

/// Finds the client of a request that comes through a person's browser. Its metadata must be recent enough.
/// A failure shows a page and never redirects. Fetching a metadata document counts towards the rate limit of
/// `from`.
pub async fn client(
    app: &App,
    headers: &HeaderMap,
    client_id: &str,
    from: Option<IpAddr>,
) -> Result<Client, PageError> {
    let refused = |message, reason: &dyn std::fmt::Display| {
        PageError::new(headers, StatusCode::BAD_REQUEST, message, reason)
    };
    let later = |reason: &dyn std::fmt::Display| {
        let message = Message::ClientDocumentUnavailable;
        PageError::new(headers, StatusCode::SERVICE_UNAVAILABLE, message, reason)
    };
    let found = app.clients().find(client_id, from).await.map_err(|error| match error {
        FindError::Storage(error) => PageError::storage(headers, &error),
        FindError::Document(reason) => refused(Message::ClientDocumentRefused, &reason),
        FindError::Off(reason) => refused(Message::ClientDocumentsOff, &reason),
        FindError::Later(reason) => later(&reason),
        error @ FindError::NoNetwork(_) => {
            PageError::new(headers, StatusCode::SERVICE_UNAVAILABLE, Message::NoNetwork, &error)
        }
    })?;
    let client = found.ok_or_else(|| refused(Message::UnknownClient, &"unknown client"))?;
    match client.currency(app.now()) {
        Currency::Good => Ok(client),
        Currency::Stale => Err(later(&"the client's document has not been seen for too long")),
        Currency::Gone => {
            Err(refused(Message::ClientDocumentRefused, &"the client's document is gone"))
        }
    }
}

/// Resolves `presented` to a redirect URI that the client registered and that the current configuration
/// allows. A failure shows a page and never redirects.
pub fn address(
    app: &App,
    headers: &HeaderMap,
    client: &Client,
    presented: Option<&str>,
) -> Result<RegisteredRedirectUri, PageError> {
    let registered = &client.metadata.redirect_uris;
    let address = match client.held_to(app.redirect_policy()) {
        Some(policy) => RegisteredRedirectUri::resolve_under(policy, registered, presented),
        None => RegisteredRedirectUri::resolve(registered, presented),
    };
    address.map_err(|reason| {
        let message = match reason {
            ReturnRefused::NotAllowed(_) => Message::RedirectUriNotAllowed,
            ReturnRefused::Required | ReturnRefused::NotRegistered => {
                Message::RedirectUriNotRegistered
            }
        };
        PageError::new(headers, StatusCode::BAD_REQUEST, message, &reason)
    })
}

impl IntoResponse for PageError {
    fn into_response(self) -> Response {
        let page = MessagePage {
            language: self.language,
            status: self.status,
            message: self.message,
            reference: Some(&self.reference),
            return_to: None,
        };
        let mut response = page.render();
        response
            .extensions_mut()
            .insert(ShownReference { reference: self.reference, reason: self.reason });
        let again = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
        if again.contains(&self.status) {
            let seconds = self.message.seconds_to_wait().unwrap_or(10);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// Takes a permit to query the identity provider for a sign-in, or returns a 503 page if none is free. To be
/// called before anything is consumed.
pub async fn place_for_sign_in(app: &App, headers: &HeaderMap) -> Result<QueryPermit, PageError> {
    app.upstream().place_for_sign_in().await.map_err(|no_place| {
        let (status, message) = (StatusCode::SERVICE_UNAVAILABLE, Message::TemporarilyUnavailable);
        PageError::new(headers, status, message, &no_place)
    })
}

/// Returns the page for an identity provider that is unreachable or misconfigured.
pub fn unreachable_page(headers: &HeaderMap, error: &UpstreamError) -> PageError {
    let (status, message) = match error {
        UpstreamError::Unreachable(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, Message::ProviderUnavailable)
        }
        UpstreamError::Misconfigured(_) => {
            (StatusCode::BAD_GATEWAY, Message::ProviderMisconfigured)
        }
    };
    PageError::new(headers, status, message, error)
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

/// A redirect back to the client: a registered redirect URI, the client's `state`, and our `iss`.
pub struct ClientRedirect<'a> {
    /// Our issuer (RFC 9207).
    pub issuer: &'a str,
    /// A redirect URI that the client registered.
    pub address: RegisteredRedirectUri,
    /// The client's `state`.
    pub state: Option<String>,
}

impl ClientRedirect<'_> {
    /// Returns the URL with an authorization code.
    pub fn with_code(&self, code: &str) -> String {
        self.with(&[("code", code)])
    }

    /// Returns the URL with an error.
    pub fn with_error(&self, code: ErrorCode, description: Option<&str>) -> String {
        let mut params = vec![("error", code.as_str())];
        params.extend(description.map(|description| ("error_description", description)));
        self.with(&params)
    }

    fn with<'p>(&'p self, first: &[(&'p str, &'p str)]) -> String {
        let mut params = first.to_vec();
        params.extend(self.state.as_deref().map(|state| ("state", state)));
        params.push(("iss", self.issuer));
        self.address.with_params(&params)
    }

    /// Returns the host, or the kind of program, as the text of a link.
    pub fn label(&self) -> String {
        destination(self.address.as_str()).to_string()
    }
}

/// Reports to the client that its request is refused, before any person has approved anything.
///
/// Redirects at once to a loopback address, and to a website that the operator listed or configured. Any
/// other website registered itself, and an automatic redirect would make us its open redirector. An app is
/// never opened without a person's decision, because a link can make it act. For these two the person reads
/// a page and decides whether to continue (OAuth 2.1 §7.13.2, requirement AZ-28).
pub fn refuse(
    app: &App,
    headers: &HeaderMap,
    client: &Client,
    back: &ClientRedirect<'_>,
    refusal: &dyn Refusal,
) -> Response {
    let reference = new_reference();
    let code = refusal.code().as_str();
    let reason = refusal.to_string();
    if let Some(left_out) = REFUSED.admit(&reason) {
        tracing::info!(reference, code, reason, left_out, "authorization refused");
    }
    let url = back.with_error(refusal.code(), Some(&reason));
    let address = back.address.as_str();
    let told_directly = match destination(address) {
        Destination::Loopback { .. } => true,
        Destination::Https { .. } => {
            app.redirect_policy().lists(address)
                || matches!(client.origin, Origin::Configured { .. })
        }
        Destination::App { .. } => false,
    };
    if told_directly {
        return see_other(&url);
    }
    let label = back.label();
    let page = MessagePage {
        language: language(headers),
        status: StatusCode::BAD_REQUEST,
        message: Message::InvalidRequest { what: &reason },
        reference: Some(&reference),
        return_to: Some(ReturnLink { url: &url, host_label: &label, automatic: false }),
    };
    let mut response = page.render();
    response.extensions_mut().insert(ShownReference { reference, reason });
    response
}
/// Reads a form of at most `limit` bytes. One that is longer is 413; one that breaks off, is too slow or cannot be
/// parsed is 400.
pub async fn read_form(
    headers: &HeaderMap,
    query: Option<&str>,
    body: Body,
    limit: usize,
) -> Result<Params, PageError> {
    let unreadable = |reason: &dyn std::fmt::Display| {
        let message = Message::InvalidRequest { what: "form" };
        PageError::new(headers, StatusCode::BAD_REQUEST, message, reason)
    };
    let body = body::read(body, limit).await.map_err(|error| match error {
        ApiError::TooLarge => {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            PageError::new(headers, status, Message::RequestTooLarge, &"the form is too large")
        }
        _ => unreadable(&"the form did not arrive whole"),
    })?;
    Params::from_post(headers, query, &body).map_err(|refused| unreadable(&refused))
}
