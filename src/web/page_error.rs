//! Errors of the handlers of pages. `?` turns every error of the parts below into the page that explains it.

use std::fmt;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::again;
use super::pages::{Message, MessagePage, NextStep, PageFrame, Repeat};
use crate::app::App;
use crate::clients::FindError;
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::redirect_uri::ReturnRefused;
use crate::signing::SigningError;
use crate::storage::{Denied, StorageError};
use crate::telemetry::log_throttle::KeyedLogThrottle;
use crate::telemetry::new_reference;
use crate::upstream::{LoginFailed, NoPermit, UpstreamError};

/// Seconds: `Retry-After` of a page for a failure that passes.
const RETRY_AFTER: u64 = 10;

static SHOWN: KeyedLogThrottle = KeyedLogThrottle::new();

/// A page that a handler shows instead of what was asked for. It gets its frame, such as the language, when
/// it is shown (`browser.rs`), so that no function below a handler needs the request for it.
#[derive(Debug)]
pub struct PageError(Box<Instead>);

#[derive(Debug)]
enum Instead {
    /// A message. The reason is in the log, under the reference that the page shows.
    Message(Message<'static>, ShownReference, Begins),
    /// Another page, such as the one to sign in.
    Page(Response),
}

/// Where what failed begins, so that the person can try again.
#[derive(Debug)]
enum Begins {
    /// At the page itself, or nowhere.
    Here,
    /// With this authorization request, sealed.
    Request(String),
    /// At another page of ours: its path and query.
    Page(String),
}

/// Attached to a response that shows a reference, so that the audit trail can record it.
#[derive(Clone, Debug)]
pub struct ShownReference {
    /// The reference on the page.
    pub reference: String,
    /// The reason in the log.
    pub reason: String,
}

impl Message<'static> {
    /// Returns the page with this message and a new reference, and logs `reason` under it.
    pub fn because(self, reason: impl fmt::Display) -> PageError {
        let (reference, reason) = (new_reference(), reason.to_string());
        // Throttled: the audit event of the page contains the reference too.
        if let Some(left_out) = SHOWN.admit(&reason) {
            let status = self.status().as_u16();
            if self.status().is_server_error() {
                tracing::error!(reference, status, reason, left_out, "page shown");
            } else {
                tracing::info!(reference, status, reason, left_out, "page shown");
            }
        }
        let shown = ShownReference { reference, reason };
        PageError(Box::new(Instead::Message(self, shown, Begins::Here)))
    }
}

impl PageError {
    /// Returns the reference on the page; empty if it shows none.
    pub fn reference(&self) -> &str {
        match &*self.0 {
            Instead::Message(_, shown, _) => &shown.reference,
            Instead::Page(_) => "",
        }
    }

    /// Returns the same page, which also offers to repeat this request where that makes sense.
    #[must_use]
    pub fn repeating(self, app: &App, request: &AuthorizationRequest) -> Self {
        match *self.0 {
            Instead::Message(message, shown, _) if message.offer() != NextStep::Nothing => {
                let begins = Begins::Request(again::seal(app, request));
                Self(Box::new(Instead::Message(message, shown, begins)))
            }
            other => Self(Box::new(other)),
        }
    }

    /// Returns the same page, which also offers to begin again at another page of ours where that makes sense.
    #[must_use]
    pub fn beginning_at(self, path: &str) -> Self {
        match *self.0 {
            Instead::Message(message, shown, _) => {
                let begins = Begins::Page(path.to_owned());
                Self(Box::new(Instead::Message(message, shown, begins)))
            }
            other @ Instead::Page(_) => Self(Box::new(other)),
        }
    }

    /// Returns what the page offers.
    pub fn offer(&self) -> NextStep {
        match &*self.0 {
            Instead::Message(message, ..) => message.offer(),
            Instead::Page(_) => NextStep::Nothing,
        }
    }

    /// Builds the response. `repeat`: how the request that failed can be repeated.
    pub fn respond(self, frame: PageFrame<'_>, repeat: Repeat<'_>) -> Response {
        let (message, shown, begins) = match *self.0 {
            Instead::Message(message, shown, begins) => (message, shown, begins),
            Instead::Page(response) => return response,
        };
        let repeat = match &begins {
            Begins::Here => repeat,
            Begins::Request(sealed) => Repeat { request: Some(sealed), ..repeat },
            Begins::Page(path) => Repeat { page: Some(path), ..repeat },
        };
        let reference = Some(shown.reference.as_str());
        let page = MessagePage { frame, message, reference, return_to: None, repeat };
        let mut response = page.render();
        response.extensions_mut().insert(shown);
        let again = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
        if again.contains(&message.status()) {
            let seconds = message.seconds_to_wait().unwrap_or(RETRY_AFTER);
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

impl From<Response> for PageError {
    fn from(page: Response) -> Self {
        Self(Box::new(Instead::Page(page)))
    }
}

/// 503 if the error is temporary, 403 if access was denied meanwhile, otherwise 500.
impl From<StorageError> for PageError {
    fn from(error: StorageError) -> Self {
        let message = match &error {
            StorageError::Unavailable(_)
            | StorageError::Busy
            | StorageError::NoConnection(_)
            | StorageError::Gone
            | StorageError::ClockBehind
            | StorageError::Full(_) => Message::TemporarilyUnavailable,
            StorageError::ShutOut(Denied::Client) => Message::ClientShutOut,
            StorageError::ShutOut(Denied::Person) => Message::PersonBlocked,
            StorageError::ShutOut(Denied::SignedOut) => Message::SignedOutMeanwhile,
            StorageError::Refused(_) | StorageError::Corrupt(_) | StorageError::Sealed(_) => {
                Message::ServerError
            }
        };
        message.because(error)
    }
}

impl From<SigningError> for PageError {
    fn from(error: SigningError) -> Self {
        match error {
            SigningError::Storage(error) => error.into(),
            other => Message::ServerError.because(other),
        }
    }
}

impl From<FindError> for PageError {
    fn from(error: FindError) -> Self {
        let message = match error {
            FindError::Storage(error) => return error.into(),
            FindError::Document(_) => Message::ClientDocumentRefused,
            FindError::Off(_) => Message::ClientDocumentsOff,
            FindError::Later(_) => Message::ClientDocumentUnavailable,
            FindError::NoNetwork(_) => Message::NoNetwork,
        };
        message.because(error)
    }
}

impl From<ReturnRefused> for PageError {
    fn from(refused: ReturnRefused) -> Self {
        let message = match refused {
            ReturnRefused::NotAllowed(_) => Message::RedirectUriNotAllowed,
            ReturnRefused::Required | ReturnRefused::NotRegistered => {
                Message::RedirectUriNotRegistered
            }
        };
        message.because(refused)
    }
}

/// The identity provider is unreachable or misconfigured.
impl From<UpstreamError> for PageError {
    fn from(error: UpstreamError) -> Self {
        let message = match error {
            UpstreamError::Unreachable(_) => Message::ProviderUnavailable,
            UpstreamError::Misconfigured(_) => Message::ProviderMisconfigured,
        };
        message.because(error)
    }
}

/// No permit to query the identity provider became free in time.
impl From<NoPermit> for PageError {
    fn from(no_permit: NoPermit) -> Self {
        Message::TemporarilyUnavailable.because(no_permit)
    }
}

/// A sign-in to our own pages failed at the identity provider. In a login for a client, the client learns of
/// it too (`endpoints/sign_in/callback.rs`).
impl From<LoginFailed> for PageError {
    fn from(failed: LoginFailed) -> Self {
        let message = match &failed {
            LoginFailed::Again { reason, .. } if reason == "temporarily_unavailable" => {
                Message::ProviderEndedSignIn
            }
            LoginFailed::Refused | LoginFailed::Again { .. } => Message::LoginRefused,
            LoginFailed::ProviderCannot(_) => Message::ProviderCannot,
            LoginFailed::Unavailable(_) => Message::ProviderUnavailable,
            LoginFailed::Misconfigured(_) => Message::ProviderMisconfigured,
            LoginFailed::Untrusted(_) => Message::LoginNotTrusted,
        };
        message.because(failed)
    }
}
