//! Answers for people: pages in their language, and the way back to the client.

use std::net::IpAddr;

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::pages::{Message, MessagePage, ReturnLink};
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

/// The language a person reads.
pub fn language(headers: &HeaderMap) -> Language {
    Language::from_accept_language(
        headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()),
    )
}

/// A page that needs no reference: what happened is for the person to fix.
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

/// Something ends on a page. `Display` of the cause goes to the log under the reference that the
/// page shows.
#[derive(Debug)]
pub struct PageError {
    status: StatusCode,
    message: Message<'static>,
    reference: String,
    reason: String,
    language: Language,
}

/// Travels with an answer that shows a reference, for the audit trail.
#[derive(Clone, Debug)]
pub struct ShownReference {
    /// The number on the page.
    pub reference: String,
    /// What the log says.
    pub reason: String,
}

impl PageError {
    /// A page with a reference; `reason` is for the log.
    pub fn new(
        headers: &HeaderMap,
        status: StatusCode,
        message: Message<'static>,
        reason: &dyn std::fmt::Display,
    ) -> Self {
        let reference = new_reference();
        let reason = reason.to_string();
        // The audit event of the page has the reference as well.
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

    /// The number on the page.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Our database could not serve, or a fault of ours.
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

/// The client of a request that a person's browser brings: known, and recently enough to go on with.
/// Otherwise a page, and never a redirect. What has to be fetched counts towards the limit of `from`.
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

/// The address that `presented` means, when the client registered or publishes it and the present
/// configuration allows it. Otherwise a page, and never a redirect.
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

/// A place to finish a sign-in with; a page that says to come back when there is none. To be had before anything is
/// used up.
pub async fn place_for_sign_in(app: &App, headers: &HeaderMap) -> Result<QueryPermit, PageError> {
    app.upstream().place_for_sign_in().await.map_err(|no_place| {
        let (status, message) = (StatusCode::SERVICE_UNAVAILABLE, Message::TemporarilyUnavailable);
        PageError::new(headers, status, message, &no_place)
    })
}

/// The identity provider cannot be reached, or says something that makes no sense.
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

/// Leads the browser on. 303, so that a POST is never repeated elsewhere (RFC 9700 §4.12).
pub fn see_other(location: &str) -> Response {
    let location = HeaderValue::from_str(location);
    let Ok(location) = location else {
        // Registered URIs and our own parameters are ASCII; nothing else gets here.
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    ];
    (StatusCode::SEE_OTHER, headers).into_response()
}

/// The way back to a client: a proven address, its `state`, and our `iss` on every answer.
pub struct ClientRedirect<'a> {
    /// Our issuer (RFC 9207).
    pub issuer: &'a str,
    /// A redirect URI that the client registered.
    pub address: RegisteredRedirectUri,
    /// The client's `state`.
    pub state: Option<String>,
}

impl ClientRedirect<'_> {
    /// The URL that brings a code.
    pub fn with_code(&self, code: &str) -> String {
        self.with(&[("code", code)])
    }

    /// The URL that brings an error.
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

    /// The host, or the kind of program, for the label of a link.
    pub fn label(&self) -> String {
        destination(self.address.as_str()).to_string()
    }
}

/// Tells the client that its request is refused, before any person has approved anything.
///
/// A program that listens on the person's own device is told directly, and so is a website that the
/// operator listed or wrote down. Any other website registered itself, and would make us its open
/// redirector; and an app is opened by nothing but a person's decision, because a link can make it act.
/// There the person reads a page and decides to go on (OAuth 2.1 §7.13.2, requirement AZ-28).
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
