//! Pages that explain an event: mostly why something did not happen.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::frame::{PageFrame, Style};
use super::ways_on::{NextStep, Repeat, WayOn};
use crate::config::BrandLink;
use crate::web::locales::{MessageWords, Messages, Text};

/// An event that a page explains to a person.
#[derive(Clone, Copy, Debug)]
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
    /// The person left out all scopes on the consent page.
    NothingChosen,
    LoginFromElsewhere,
    LoginExpired,
    LoginUsed,
    LoginNotTrusted,
    /// A sign-out at the identity provider happened during the login.
    SignedOutMeanwhile,
    /// The person is signed in, but no rule gives them access. `missing`: the texts of the scopes.
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
    /// The person is signed in, but the identity provider did not send what the rules read, so nobody can tell
    /// whether they may come in.
    RightsNotKnown,
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
    /// A link names a service or an MCP server that does not exist, or that does not use the service.
    ConnectUnknown,
    /// The person may use none of the tools that need the service.
    ConnectNotForYou,
    /// A service's answer came to another browser or another person than those who began, or to another service's
    /// callback.
    ConnectFromElsewhere,
    ConnectExpired,
    ConnectUsed,
    /// A service that the person connects cannot be reached.
    ServiceUnavailable,
    /// A service rejects our client, or its configuration is wrong.
    ServiceMisconfigured,
    /// A service's answer fails a check.
    ServiceNotTrusted,
}

/// The thing that there are too many of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// Consent pages for one client in one browser.
    ConsentPages,
    SignIns,
    /// Services that one person began to connect.
    Connects,
}

/// A link back to the client.
#[derive(Clone, Copy, Debug)]
pub struct ReturnLink<'a> {
    /// The URL, based on a redirect URI that the client registered.
    pub url: &'a str,
    /// The client's own name, made safe for display; `None` if it imitates another.
    pub name: Option<&'a str>,
    /// The host, or the kind of program.
    pub host_label: &'a str,
}

/// A page that explains an event and what the person can do.
#[derive(Clone, Copy, Debug)]
pub struct MessagePage<'a> {
    /// The frame of the page.
    pub frame: PageFrame<'a>,
    pub message: Message<'a>,
    /// Number under which the log has details.
    pub reference: Option<&'a str>,
    /// A link back to the client.
    pub return_to: Option<ReturnLink<'a>>,
    /// How what failed can be done again.
    pub repeat: Repeat<'a>,
}

#[derive(Template)]
#[template(path = "message.html")]
struct MessageTemplate<'a> {
    frame: PageFrame<'a>,
    page: &'a MessagePage<'a>,
    text: &'static Text,
    w: &'static MessageWords,
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
            | Self::UnknownResource
            | Self::NothingChosen => StatusCode::BAD_REQUEST,
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
            | Self::RightsNotKnown
            | Self::ProviderEndedSignIn
            | Self::ClientShutOut
            | Self::PersonBlocked
            | Self::FormFromElsewhere
            | Self::NotAnAdministrator
            | Self::ConnectNotForYou
            | Self::ConnectFromElsewhere
            | Self::ConnectExpired
            | Self::ConnectUsed
            | Self::ServiceNotTrusted => StatusCode::FORBIDDEN,
            Self::NotFound | Self::NoSuchAdminPage | Self::ConnectUnknown => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::WaitingOver => StatusCode::GONE,
            Self::RequestTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::AskedTooOften { .. } | Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::ServerError => StatusCode::INTERNAL_SERVER_ERROR,
            Self::ProviderMisconfigured | Self::ServiceMisconfigured => StatusCode::BAD_GATEWAY,
            Self::ClientDocumentUnavailable
            | Self::NoNetwork
            | Self::ProviderUnavailable
            | Self::ProviderCannot
            | Self::ServiceUnavailable
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

    /// Returns what a person can do at once about it, besides returning to the client.
    pub fn offer(&self) -> NextStep {
        match self {
            Self::ConsentExpired
            | Self::NothingChosen
            | Self::LoginExpired
            | Self::LoginUsed
            | Self::LoginRefused
            | Self::SignedOutMeanwhile
            | Self::ClientDocumentUnavailable
            | Self::NoNetwork
            | Self::RightsNotKnown
            | Self::ProviderUnavailable
            | Self::ProviderCannot
            | Self::ProviderEndedSignIn
            | Self::ServerError
            | Self::TemporarilyUnavailable
            | Self::ConnectExpired
            | Self::ServiceUnavailable
            | Self::AskedTooOften { .. }
            | Self::TooMany { .. } => NextStep::Again,
            // The provider would sign the same person in again.
            Self::NoAccess { .. }
            | Self::NotAllowedMore { .. }
            | Self::PersonBlocked
            | Self::ConnectNotForYou
            | Self::NotAnAdministrator => NextStep::AnotherAccount,
            // The client has to begin again, an administrator has to act, or somebody may have led the person
            // here (`LoginFromElsewhere`, `LoginNotTrusted`, `ConsentFromElsewhere`, `ConnectFromElsewhere`).
            Self::UnknownClient
            | Self::ClientDocumentRefused
            | Self::ClientDocumentsOff
            | Self::RedirectUriNotRegistered
            | Self::RedirectUriNotAllowed
            | Self::InvalidRequest { .. }
            | Self::UnknownResource
            | Self::ConsentFromElsewhere
            | Self::AlreadyDecided
            | Self::LoginFromElsewhere
            | Self::LoginNotTrusted
            | Self::ProviderMisconfigured
            | Self::NotFound
            | Self::NoSuchAdminPage
            | Self::MethodNotAllowed
            | Self::RequestTooLarge
            | Self::ClientShutOut
            | Self::FormFromElsewhere
            | Self::WaitingOver
            | Self::ConnectUnknown
            | Self::ConnectFromElsewhere
            | Self::ConnectUsed
            | Self::ServiceMisconfigured
            | Self::ServiceNotTrusted => NextStep::Nothing,
        }
    }

    /// Returns the same in minutes, rounded up.
    fn minutes_to_wait(&self) -> Option<u64> {
        self.seconds_to_wait().map(|seconds| seconds.div_ceil(60).max(1))
    }
}

impl<'a> MessagePage<'a> {
    /// Returns what the page offers, where that is possible.
    fn way_on(&self) -> Option<WayOn<'a>> {
        self.repeat.way_on(self.message.offer())
    }

    /// Returns the text of that button.
    fn way_on_text(&self) -> &'static str {
        let words = self.frame.words();
        match self.message.offer() {
            NextStep::AnotherAccount => &words.consent.other_account,
            NextStep::Again | NextStep::Nothing => &words.message.try_again,
        }
    }

    /// Returns the link to where people get help, with the reference filled in.
    fn support(&self) -> Option<BrandLink> {
        let support = self.frame.brand.support.as_ref()?;
        Some(support.about(self.reference.unwrap_or_default()))
    }

    pub fn render(&self) -> Response {
        let (frame, words) = (self.frame, self.frame.words());
        let text = text(&self.message, &words.messages);
        let template = MessageTemplate { frame, page: self, text, w: &words.message };
        frame.respond(self.message.status(), Style::People, template.render())
    }
}

fn text(message: &Message<'_>, w: &'static Messages) -> &'static Text {
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
        Message::NothingChosen => &w.nothing_chosen,
        Message::LoginFromElsewhere => &w.login_from_elsewhere,
        Message::LoginExpired => &w.login_expired,
        Message::LoginUsed => &w.login_used,
        Message::LoginNotTrusted => &w.login_not_trusted,
        Message::SignedOutMeanwhile => &w.signed_out_meanwhile,
        Message::NoAccess { .. } => &w.no_access,
        Message::NotAllowedMore { .. } => &w.not_allowed_more,
        Message::RightsNotKnown => &w.rights_not_known,
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
        Message::TooMany { what: TooMany::Connects, .. } => &w.too_many_connects,
        Message::RequestTooLarge => &w.request_too_large,
        Message::ClientShutOut => &w.client_shut_out,
        Message::PersonBlocked => &w.person_blocked,
        Message::FormFromElsewhere => &w.form_from_elsewhere,
        Message::NotAnAdministrator => &w.not_an_administrator,
        Message::LoginRefused => &w.login_refused,
        Message::WaitingOver => &w.waiting_over,
        Message::ConnectUnknown => &w.connect_unknown,
        Message::ConnectNotForYou => &w.connect_not_for_you,
        Message::ConnectFromElsewhere => &w.connect_from_elsewhere,
        Message::ConnectExpired => &w.connect_expired,
        Message::ConnectUsed => &w.connect_used,
        Message::ServiceUnavailable => &w.service_unavailable,
        Message::ServiceMisconfigured => &w.service_misconfigured,
        Message::ServiceNotTrusted => &w.service_not_trusted,
    }
}
