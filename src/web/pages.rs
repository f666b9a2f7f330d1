//! The people's pages: plain data in, a finished answer out. No JavaScript, nothing from elsewhere,
//! nothing unescaped (threat XS-01).

use std::sync::OnceLock;

use askama::Template;
use aws_lc_rs::digest;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::words::{Language, Text, Words};
use crate::oauth::redirect_uri::Destination;

/// The page that asks the person. The order of its fields is the order of the page (contract, "The
/// people's pages").
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each shows or hides something of its own")]
pub struct ConsentPage<'a> {
    /// What the person reads.
    pub language: Language,
    /// What stands before every path of ours on the page.
    pub base: &'a str,
    /// Where the answer will go.
    pub destination: &'a Destination,
    /// The whole address, as it is registered.
    pub redirect_uri: &'a str,
    /// Whether an administrator vouches for the client; one that registered itself is not verified.
    pub verified: bool,
    /// The host that publishes the client's metadata, for a client that is known by it.
    pub publisher: Option<&'a str>,
    /// Whether it came to us by registering itself.
    pub registered_itself: bool,
    /// What the client calls itself, already fit to be shown.
    pub client_name: Option<&'a str>,
    /// The name could be taken for another.
    pub name_suspicious: bool,
    /// The client's identifier.
    pub client_id: &'a str,
    /// What the operator calls the MCP server.
    pub resource_name: Option<&'a str>,
    /// The MCP server's URL.
    pub resource: &'a str,
    /// What is asked for, new things first.
    pub scopes: &'a [ScopeLine<'a>],
    /// Whether scopes were asked for that are none of the MCP server's. Their names are the client's own words, and
    /// stand in the log.
    pub asked_for_unknown: bool,
    /// Whether the provider can be asked to let the person choose another account.
    pub offers_another_account: bool,
    /// Who signs the person in.
    pub identity_provider: &'a str,
    /// The sealed request that comes back with the decision.
    pub request: &'a str,
}

/// One scope on the consent page.
#[derive(Clone, Copy, Debug)]
pub struct ScopeLine<'a> {
    /// The scope.
    pub scope: &'a str,
    /// What it means in words.
    pub text: Option<&'a str>,
    /// How it got onto the page.
    pub standing: Standing<'a>,
}

/// How a scope got onto the consent page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// It is asked for.
    Asked,
    /// It is asked for beside others that were approved before.
    New,
    /// It was approved before, by whoever signed in with this browser last.
    ApprovedBefore,
    /// It comes with a broader scope.
    IncludedIn(&'a str),
}

/// What happened, for a person to read.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the English words of each say what it means")]
pub enum Message<'a> {
    UnknownClient,
    ClientDocumentRefused,
    ClientDocumentUnavailable,
    /// Documents are switched off.
    ClientDocumentsOff,
    /// No website is reached from here, so that no document can be read.
    NoNetwork,
    RedirectUriNotRegistered,
    RedirectUriNotAllowed,
    /// `what` is the parameter, or the error code, that is wrong.
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
    /// A sign-out at the identity provider has overtaken the login.
    SignedOutMeanwhile,
    /// Signed in, and not let in by any rule.
    NoAccess {
        person: Option<&'a str>,
        resource: &'a str,
        missing: &'a [&'a str],
    },
    /// Signed in, but not allowed the further scopes that an application came back for.
    NotAllowedMore {
        person: Option<&'a str>,
        missing: &'a [&'a str],
    },
    ProviderUnavailable,
    /// The identity provider answers that it cannot sign anybody in now.
    ProviderCannot,
    /// The identity provider ended the sign-in, and beginning it again did not help.
    ProviderEndedSignIn,
    ProviderMisconfigured,
    ServerError,
    TemporarilyUnavailable,
    NotFound,
    /// An admin page that is not there, or is about something that is not.
    NoSuchAdminPage,
    MethodNotAllowed,
    /// From this address; again after so many seconds.
    AskedTooOften {
        seconds: u64,
    },
    /// Too many of something; `seconds` until it is worth another try.
    TooMany {
        what: TooMany,
        seconds: u64,
    },
    RequestTooLarge,
    /// An administrator has blocked or refused the client.
    ClientShutOut,
    /// An administrator has blocked the person.
    PersonBlocked,
    /// A form of our pages that a page of ours did not send.
    FormFromElsewhere,
    NotAnAdministrator,
    /// The identity provider said no at a sign-in to our pages.
    LoginRefused,
    /// A sign-in that waited for an administrator, and waits no longer.
    WaitingOver,
}

/// What there was too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// Consent pages of one application in one browser.
    ConsentPages,
    /// Sign-ins that have begun and not ended.
    SignIns,
}

/// A way back to the client.
#[derive(Clone, Copy, Debug)]
pub struct ReturnLink<'a> {
    /// A proven address.
    pub url: &'a str,
    /// How the address is called on the page.
    pub host_label: &'a str,
    /// Whether the browser goes there by itself after ten seconds.
    pub automatic: bool,
}

/// A page that says what happened and what to do.
#[derive(Clone, Copy, Debug)]
pub struct MessagePage<'a> {
    /// What the person reads.
    pub language: Language,
    /// The answer's status.
    pub status: StatusCode,
    /// What happened.
    pub message: Message<'a>,
    /// The number under which the log has more.
    pub reference: Option<&'a str>,
    /// A way back to the client.
    pub return_to: Option<ReturnLink<'a>>,
}

#[derive(Template)]
#[template(path = "consent.html")]
struct ConsentTemplate<'a> {
    page: &'a ConsentPage<'a>,
    w: &'static Words,
}

#[derive(Template)]
#[template(path = "message.html")]
struct MessageTemplate<'a> {
    page: &'a MessagePage<'a>,
    text: &'static Text,
    w: &'static Words,
}

impl ConsentPage<'_> {
    /// What is said of it when nobody vouches for it.
    fn not_verified(&self, w: &'static Words) -> &'static str {
        if self.registered_itself { w.unverified } else { w.not_verified }
    }

    /// Whether the publisher's name may imitate another.
    fn publisher_is_punycode(&self) -> bool {
        let labels = self.publisher.unwrap_or_default().split('.');
        labels.into_iter().any(|label| label.starts_with("xn--"))
    }

    /// The answer, `200`.
    pub fn render(&self) -> Response {
        let template = ConsentTemplate { page: self, w: self.language.words() };
        respond(StatusCode::OK, self.language, Style::People, template.render())
    }
}

impl Message<'_> {
    /// How long to wait before the same is worth another try.
    pub fn seconds_to_wait(&self) -> Option<u64> {
        match self {
            Self::TooMany { seconds, .. } => Some(*seconds),
            _ => None,
        }
    }

    /// The same in minutes, rounded up.
    fn minutes_to_wait(&self) -> Option<u64> {
        self.seconds_to_wait().map(|seconds| seconds.div_ceil(60).max(1))
    }
}

impl MessagePage<'_> {
    /// The answer.
    pub fn render(&self) -> Response {
        let w = self.language.words();
        let template = MessageTemplate { page: self, text: text(&self.message, w), w };
        respond(self.status, self.language, Style::People, template.render())
    }
}

/// The page of somebody who waits for an administrator; it asks again by itself.
#[derive(Clone, Copy, Debug)]
pub struct WaitingPage {
    /// What the person reads.
    pub language: Language,
}

#[derive(Template)]
#[template(path = "waiting.html")]
struct WaitingTemplate {
    w: &'static Words,
}

impl WaitingPage {
    /// The answer, `200`.
    pub fn render(&self) -> Response {
        let template = WaitingTemplate { w: self.language.words() };
        respond(StatusCode::OK, self.language, Style::People, template.render())
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

/// Which style sheet a page carries; the policy names its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Pages with one message or question.
    People,
    /// Pages with lists: for administrators, and `/account`.
    Lists,
}

/// The policy of every page. There is no `form-action`: Chromium applies it to every redirect that
/// follows the form, so it would block the identity provider and the way back to the client.
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

/// Cuts the ties between our pages and the window that opened them, on the pages that show and change what somebody
/// has. The pages of the authorization flow keep them: clients that open one in a popup learn from the window when
/// it is over, and `same-origin` would make them wait for ever.
pub async fn isolate_window(mut response: Response) -> Response {
    let policy = HeaderName::from_static("cross-origin-opener-policy");
    response.headers_mut().insert(policy, HeaderValue::from_static("same-origin"));
    response
}

/// The answer with a page: every header that a page must have.
pub fn respond(
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
    // `same-origin` and not `no-referrer`, which would make the browser send `Origin: null` with
    // the form, and the form would be refused.
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
