//! Pages for people: plain data in, a complete response out. No JavaScript, no external resources, all
//! values escaped (threat XS-01).

use std::sync::OnceLock;

use askama::Template;
use aws_lc_rs::digest;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::words::{Language, Text, Words};
use crate::oauth::redirect_uri::Destination;

/// What all pages have in common, whatever they are about: the language and the links. The request context
/// makes it ([`super::browser::Browser::frame`]).
#[derive(Clone, Copy, Debug)]
pub struct PageFrame<'a> {
    /// The person's language.
    pub language: Language,
    /// Base path, placed before every path of ours on the page.
    pub base: &'a str,
}

impl PageFrame<'_> {
    /// Returns the texts in the person's language.
    pub fn words(&self) -> &'static Words {
        self.language.words()
    }

    /// Builds the response for a rendered page, with all headers that a page must have.
    pub fn respond(
        &self,
        status: StatusCode,
        style: Style,
        html: askama::Result<String>,
    ) -> Response {
        respond(status, self.language, style, html)
    }
}

/// The consent page. Its fields are in the order in which the page shows them.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each shows or hides something of its own")]
pub struct ConsentPage<'a> {
    /// The frame of the page.
    pub frame: PageFrame<'a>,
    /// The kind and host of the redirect URI.
    pub destination: &'a Destination,
    /// The whole redirect URI, as presented.
    pub redirect_uri: &'a str,
    /// Whether an administrator vouches for the client. A client that registered itself is not verified by
    /// that.
    pub verified: bool,
    /// The host that publishes the client's metadata, if the client id is the URL of a metadata document.
    pub publisher: Option<&'a str>,
    /// Whether the client used dynamic registration.
    pub registered_itself: bool,
    /// The client's own name, already made safe for display.
    pub client_name: Option<&'a str>,
    /// Whether the name could be mistaken for another.
    pub name_suspicious: bool,
    /// The client id.
    pub client_id: &'a str,
    /// The operator's name for the MCP server.
    pub resource_name: Option<&'a str>,
    /// The MCP server's URL.
    pub resource: &'a str,
    /// The requested scopes, new ones first.
    pub scopes: &'a [ScopeLine<'a>],
    /// Whether the client requested scopes that the MCP server does not have. The client chose their names,
    /// so they appear only in the log.
    pub asked_for_unknown: bool,
    /// Whether the provider can let the person choose another account.
    pub offers_another_account: bool,
    /// Display name of the identity provider.
    pub identity_provider: &'a str,
    /// The sealed request, which the form sends back with the decision.
    pub request: &'a str,
}

/// One scope on the consent page.
#[derive(Clone, Copy, Debug)]
pub struct ScopeLine<'a> {
    /// The scope.
    pub scope: &'a str,
    /// The operator's description.
    pub text: Option<&'a str>,
    /// Why the scope is on the page.
    pub standing: Standing<'a>,
}

/// Why a scope is on the consent page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// It is requested.
    Asked,
    /// It is requested together with scopes that were approved before.
    New,
    /// The last person to sign in with this browser approved it before.
    ApprovedBefore,
    /// A broader scope, named here, includes it.
    IncludedIn(&'a str),
}

/// An event that a page explains to a person.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the English words of each say what it means")]
pub enum Message<'a> {
    UnknownClient,
    ClientDocumentRefused,
    ClientDocumentUnavailable,
    /// Client ID metadata documents are disabled.
    ClientDocumentsOff,
    /// No website can be reached from here, so no document can be fetched.
    NoNetwork,
    RedirectUriNotRegistered,
    RedirectUriNotAllowed,
    /// `what` is the wrong parameter, or the error code.
    InvalidRequest {
        what: &'a str,
    },
    UnknownResource,
    ConsentExpired,
    ConsentFromElsewhere,
    AlreadyDecided,
    LoginFromElsewhere,
    LoginExpired,
    LoginUsed,
    LoginNotTrusted,
    /// A sign-out at the identity provider happened during the login.
    SignedOutMeanwhile,
    /// The person is signed in, but no rule gives them access.
    NoAccess {
        person: Option<&'a str>,
        resource: &'a str,
        missing: &'a [&'a str],
    },
    /// The person is signed in, but the rules do not allow the additional scopes that a client came back
    /// for.
    NotAllowedMore {
        person: Option<&'a str>,
        missing: &'a [&'a str],
    },
    ProviderUnavailable,
    /// The identity provider reports that it cannot sign anybody in now.
    ProviderCannot,
    /// The identity provider ended the sign-in, and restarting it did not help.
    ProviderEndedSignIn,
    ProviderMisconfigured,
    ServerError,
    TemporarilyUnavailable,
    NotFound,
    /// An admin page that does not exist, or whose subject does not exist.
    NoSuchAdminPage,
    MethodNotAllowed,
    /// The person's address reached a rate limit; `seconds` until the next attempt.
    AskedTooOften {
        seconds: u64,
    },
    /// Too many of something; `seconds` until the next attempt makes sense.
    TooMany {
        what: TooMany,
        seconds: u64,
    },
    RequestTooLarge,
    /// An administrator has blocked or rejected the client.
    ClientShutOut,
    /// An administrator has blocked the person.
    PersonBlocked,
    /// A form of our pages that came from another origin or session.
    FormFromElsewhere,
    NotAnAdministrator,
    /// The identity provider refused a sign-in to our pages.
    LoginRefused,
    /// A sign-in waited for an administrator and waits no longer.
    WaitingOver,
}

/// The thing that there are too many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// Consent pages for one client in one browser.
    ConsentPages,
    /// Pending sign-ins.
    SignIns,
}

/// A link back to the client.
#[derive(Clone, Copy, Debug)]
pub struct ReturnLink<'a> {
    /// The URL, based on a redirect URI that the client registered.
    pub url: &'a str,
    /// Text of the link: the host, or the kind of program.
    pub host_label: &'a str,
    /// Whether the browser follows it by itself after ten seconds.
    pub automatic: bool,
}

/// A page that explains an event and what the person can do.
#[derive(Clone, Copy, Debug)]
pub struct MessagePage<'a> {
    /// The frame of the page.
    pub frame: PageFrame<'a>,
    /// The event.
    pub message: Message<'a>,
    /// Number under which the log has details.
    pub reference: Option<&'a str>,
    /// A link back to the client.
    pub return_to: Option<ReturnLink<'a>>,
}

#[derive(Template)]
#[template(path = "consent.html")]
struct ConsentTemplate<'a> {
    frame: PageFrame<'a>,
    page: &'a ConsentPage<'a>,
    w: &'static Words,
}

#[derive(Template)]
#[template(path = "message.html")]
struct MessageTemplate<'a> {
    frame: PageFrame<'a>,
    page: &'a MessagePage<'a>,
    text: &'static Text,
    w: &'static Words,
}

impl ConsentPage<'_> {
    /// Returns the warning for a client that nobody vouches for.
    fn not_verified(&self, w: &'static Words) -> &'static str {
        if self.registered_itself { w.unverified } else { w.not_verified }
    }

    /// Returns whether the publisher's host name has a punycode label, which may imitate another name.
    fn publisher_is_punycode(&self) -> bool {
        let labels = self.publisher.unwrap_or_default().split('.');
        labels.into_iter().any(|label| label.starts_with("xn--"))
    }

    /// Builds the response, with status 200.
    pub fn render(&self) -> Response {
        let template = ConsentTemplate { frame: self.frame, page: self, w: self.frame.words() };
        self.frame.respond(StatusCode::OK, Style::People, template.render())
    }
}

impl Message<'_> {
    /// Returns the status of a page with this message.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnknownClient
            | Self::ClientDocumentRefused
            | Self::ClientDocumentsOff
            | Self::RedirectUriNotRegistered
            | Self::RedirectUriNotAllowed
            | Self::InvalidRequest { .. }
            | Self::UnknownResource => StatusCode::BAD_REQUEST,
            Self::ConsentExpired
            | Self::ConsentFromElsewhere
            | Self::AlreadyDecided
            | Self::LoginFromElsewhere
            | Self::LoginExpired
            | Self::LoginUsed
            | Self::LoginNotTrusted
            | Self::LoginRefused
            | Self::SignedOutMeanwhile
            | Self::NoAccess { .. }
            | Self::NotAllowedMore { .. }
            | Self::ProviderEndedSignIn
            | Self::ClientShutOut
            | Self::PersonBlocked
            | Self::FormFromElsewhere
            | Self::NotAnAdministrator => StatusCode::FORBIDDEN,
            Self::NotFound | Self::NoSuchAdminPage => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::WaitingOver => StatusCode::GONE,
            Self::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::AskedTooOften { .. } | Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ProviderMisconfigured => StatusCode::BAD_GATEWAY,
            Self::ClientDocumentUnavailable
            | Self::NoNetwork
            | Self::ProviderUnavailable
            | Self::ProviderCannot
            | Self::TemporarilyUnavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Returns the seconds until the next attempt makes sense, for [`Message::TooMany`].
    pub fn seconds_to_wait(&self) -> Option<u64> {
        match self {
            Self::TooMany { seconds, .. } => Some(*seconds),
            _ => None,
        }
    }

    /// Returns the same in minutes, rounded up.
    fn minutes_to_wait(&self) -> Option<u64> {
        self.seconds_to_wait().map(|seconds| seconds.div_ceil(60).max(1))
    }
}

impl MessagePage<'_> {
    /// Builds the response.
    pub fn render(&self) -> Response {
        let (frame, w) = (self.frame, self.frame.words());
        let template = MessageTemplate { frame, page: self, text: text(&self.message, w), w };
        frame.respond(self.message.status(), Style::People, template.render())
    }
}

/// The page for a person who waits for an administrator. It reloads by itself.
#[derive(Clone, Copy, Debug)]
pub struct WaitingPage<'a> {
    /// The frame of the page.
    pub frame: PageFrame<'a>,
}

#[derive(Template)]
#[template(path = "waiting.html")]
struct WaitingTemplate<'a> {
    frame: PageFrame<'a>,
    w: &'static Words,
}

impl WaitingPage<'_> {
    /// Builds the response, with status 200.
    pub fn render(&self) -> Response {
        let template = WaitingTemplate { frame: self.frame, w: self.frame.words() };
        self.frame.respond(StatusCode::OK, Style::People, template.render())
    }
}

fn text(message: &Message<'_>, w: &'static Words) -> &'static Text {
    match message {
        Message::UnknownClient => &w.unknown_client,
        Message::ClientDocumentRefused => &w.client_document_refused,
        Message::ClientDocumentUnavailable => &w.client_document_unavailable,
        Message::ClientDocumentsOff => &w.client_documents_off,
        Message::NoNetwork => &w.no_network,
        Message::RedirectUriNotRegistered => &w.redirect_uri_not_registered,
        Message::RedirectUriNotAllowed => &w.redirect_uri_not_allowed,
        Message::InvalidRequest { .. } => &w.invalid_request,
        Message::UnknownResource => &w.unknown_resource,
        Message::ConsentExpired => &w.consent_expired,
        Message::ConsentFromElsewhere => &w.consent_from_elsewhere,
        Message::AlreadyDecided => &w.already_decided,
        Message::LoginFromElsewhere => &w.login_from_elsewhere,
        Message::LoginExpired => &w.login_expired,
        Message::LoginUsed => &w.login_used,
        Message::LoginNotTrusted => &w.login_not_trusted,
        Message::SignedOutMeanwhile => &w.signed_out_meanwhile,
        Message::NoAccess { .. } => &w.no_access,
        Message::NotAllowedMore { .. } => &w.not_allowed_more,
        Message::ProviderUnavailable => &w.provider_unavailable,
        Message::ProviderCannot => &w.provider_cannot,
        Message::ProviderEndedSignIn => &w.provider_ended_sign_in,
        Message::ProviderMisconfigured => &w.provider_misconfigured,
        Message::ServerError => &w.server_error,
        Message::TemporarilyUnavailable => &w.temporarily_unavailable,
        Message::NotFound => &w.not_found,
        Message::NoSuchAdminPage => &w.no_such_admin_page,
        Message::MethodNotAllowed => &w.method_not_allowed,
        Message::AskedTooOften { .. } => &w.asked_too_often,
        Message::TooMany { what: TooMany::ConsentPages, .. } => &w.too_many_consent_pages,
        Message::TooMany { what: TooMany::SignIns, .. } => &w.too_many_sign_ins,
        Message::RequestTooLarge => &w.request_too_large,
        Message::ClientShutOut => &w.client_shut_out,
        Message::PersonBlocked => &w.person_blocked,
        Message::FormFromElsewhere => &w.form_from_elsewhere,
        Message::NotAnAdministrator => &w.not_an_administrator,
        Message::LoginRefused => &w.login_refused,
        Message::WaitingOver => &w.waiting_over,
    }
}

const STYLE_START: &str = "<style>";
const STYLE_END: &str = "</style>";

/// The style sheet of a page. The Content-Security-Policy contains its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// For pages with one message or question.
    People,
    /// For pages with lists: the admin pages and `/account`.
    Lists,
}

/// Returns the Content-Security-Policy of every page. It has no `form-action`, because Chromium applies that
/// to every redirect after the form, and so would block the identity provider and the redirect back to the
/// client.
fn content_security_policy(style: Style, html: &str) -> HeaderValue {
    static PEOPLE: OnceLock<HeaderValue> = OnceLock::new();
    static LISTS: OnceLock<HeaderValue> = OnceLock::new();
    let policy = match style {
        Style::People => &PEOPLE,
        Style::Lists => &LISTS,
    };
    policy
        .get_or_init(|| {
            let style = html.split_once(STYLE_START).and_then(|(_, rest)| rest.split_once(STYLE_END));
            let style = style.map_or("", |(style, _)| style);
            let hash = STANDARD.encode(digest::digest(&digest::SHA256, style.as_bytes()));
            let policy = format!(
                "default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; frame-ancestors 'none'"
            );
            HeaderValue::from_str(&policy)
                .unwrap_or_else(|_| HeaderValue::from_static("default-src 'none'"))
        })
        .clone()
}

/// Sets `Cross-Origin-Opener-Policy: same-origin`, which separates the account and admin pages from the
/// window that opened them. The pages of the authorization flow do not get it: a client that opens them in a
/// popup watches that window to learn when the flow is over, and would wait forever.
pub async fn isolate_window(mut response: Response) -> Response {
    let policy = HeaderName::from_static("cross-origin-opener-policy");
    response.headers_mut().insert(policy, HeaderValue::from_static("same-origin"));
    response
}

fn respond(
    status: StatusCode,
    language: Language,
    style: Style,
    html: askama::Result<String>,
) -> Response {
    let html = match html {
        Ok(html) => html,
        Err(cause) => {
            tracing::error!(%cause, "a page could not be rendered");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    // `same-origin`, because with `no-referrer` the browser would send `Origin: null` with the form, and the
    // form would be refused.
    let headers: [(HeaderName, HeaderValue); 9] = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (header::CONTENT_SECURITY_POLICY, content_security_policy(style, &html)),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (header::REFERRER_POLICY, HeaderValue::from_static("same-origin")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (
            HeaderName::from_static("permissions-policy"),
            HeaderValue::from_static("camera=(), geolocation=(), microphone=()"),
        ),
        (header::CONTENT_LANGUAGE, HeaderValue::from_static(language.words().lang)),
        (header::VARY, HeaderValue::from_static("accept-language")),
    ];
    (status, headers, html).into_response()
}

#[cfg(test)]
mod tests;
