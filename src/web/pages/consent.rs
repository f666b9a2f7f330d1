//! The consent page.

use askama::Template;
use axum::http::StatusCode;
use axum::response::Response;

use super::frame::{PageFrame, Style};
use crate::oauth::redirect_uri::Destination;
use crate::web::locales::{Around, ConsentWords};

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
    pub client_id: &'a str,
    /// The operator's name for the MCP server.
    pub resource_name: Option<&'a str>,
    /// The MCP server's URL.
    pub resource: &'a str,
    /// The requested scopes, new ones first.
    pub scopes: &'a [ScopeLine<'a>],
    /// The services in which the MCP server acts as the person.
    pub services: &'a [ServiceUse<'a>],
    /// Whether the client requested scopes that the MCP server does not have. The client chose their names,
    /// so they appear only in the log.
    pub asked_for_unknown: bool,
    /// Whether the provider can let the person choose another account.
    pub offers_another_account: bool,
    /// Display name of the identity provider.
    pub identity_provider: &'a str,
    /// URL of the page on which people disconnect applications.
    pub account: &'a str,
    /// The sealed request, which the form sends back with the decision.
    pub request: &'a str,
}

/// One scope on the consent page.
#[derive(Clone, Copy, Debug)]
pub struct ScopeLine<'a> {
    pub scope: &'a str,
    /// The operator's description.
    pub text: Option<&'a str>,
    /// Why the scope is on the page.
    pub standing: Standing<'a>,
    /// Whether the scope deletes or overwrites.
    pub destructive: bool,
    /// Whether the person may leave it out.
    pub choice: bool,
}

/// A service in which an MCP server acts as the person.
#[derive(Clone, Debug)]
pub struct ServiceUse<'a> {
    /// Display name of the service.
    pub service: &'a str,
    /// Texts of the scopes; empty: the service knows none, or they are those of the sign-in alone.
    pub scopes: Vec<&'a str>,
}

impl ScopeLine<'_> {
    fn class(&self) -> &'static str {
        match (self.choice, self.destructive) {
            (false, false) => "",
            (false, true) => "destructive",
            (true, false) => "pick",
            (true, true) => "pick destructive",
        }
    }
}

/// Why a scope is on the consent page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    Asked,
    /// It is requested together with scopes that were approved before.
    New,
    /// The last person to sign in with this browser approved it before.
    ApprovedBefore,
    /// A broader scope, named here, includes it.
    IncludedIn(&'a str),
}

#[derive(Template)]
#[template(path = "consent.html")]
struct ConsentTemplate<'a> {
    frame: PageFrame<'a>,
    page: &'a ConsentPage<'a>,
    w: &'static ConsentWords,
}

impl ConsentPage<'_> {
    /// Returns the subject of the first sentence: where the answer goes. No client can choose this text,
    /// because it comes from the redirect URI.
    fn wanted_by(&self, w: &'static ConsentWords) -> &str {
        match self.destination {
            Destination::Https { host, .. } => host,
            Destination::Loopback { .. } => &w.loopback_is,
            Destination::App { .. } => &w.app_is,
        }
    }

    /// Returns the text that says that the client gets none of the tokens, around the subject of the first sentence.
    fn never_sees(&self, w: &'static ConsentWords) -> &'static Around {
        if self.services.len() == 1 { &w.never_sees } else { &w.never_sees_any }
    }

    /// Returns the name of the MCP server, or its URL if it has none.
    fn resource_shown(&self) -> &str {
        self.resource_name.unwrap_or(self.resource)
    }

    /// Returns who vouches for the client.
    fn standing(&self, w: &'static ConsentWords) -> &'static str {
        match (self.verified, self.registered_itself) {
            (true, _) => &w.verified,
            (false, true) => &w.self_registered,
            (false, false) => &w.not_verified,
        }
    }

    /// Returns what the standing of an unverified client means.
    fn standing_note(&self, w: &'static ConsentWords) -> &'static str {
        if self.registered_itself { &w.self_registered_note } else { &w.not_verified_note }
    }

    /// Returns the URL of the account page as people write it.
    fn account_shown(&self) -> &str {
        let rest = self.account.split_once("://").map(|(_, rest)| rest);
        rest.unwrap_or(self.account)
    }

    /// Returns our own host, for the header: an organisation's name alone could be anybody's.
    fn site(&self) -> &str {
        let shown = self.account_shown();
        shown.split_once('/').map_or(shown, |(host, _)| host)
    }

    /// Returns the website that the answer goes to, if it goes to one.
    fn website(&self) -> Option<&str> {
        match self.destination {
            Destination::Https { host, .. } => Some(host),
            Destination::Loopback { .. } | Destination::App { .. } => None,
        }
    }

    /// Returns what is unusual about this request. Self-registration is not: a warning on every page teaches
    /// people to ignore warnings.
    fn warnings(&self, w: &'static ConsentWords) -> Vec<&'static str> {
        let (of_destination, punycode): (Option<&'static String>, bool) = match self.destination {
            Destination::Https { punycode, .. } => (None, *punycode),
            Destination::Loopback { .. } => (Some(&w.loopback_warning), false),
            Destination::App { .. } => (Some(&w.app_warning), false),
        };
        let imitates_address = punycode || self.publisher_is_punycode();
        let warnings = [
            of_destination,
            imitates_address.then_some(&w.punycode_warning),
            self.name_suspicious.then_some(&w.name_warning),
        ];
        warnings.into_iter().flatten().map(String::as_str).collect()
    }

    /// Returns whether the publisher's host name has a punycode label, which may imitate another name.
    fn publisher_is_punycode(&self) -> bool {
        let labels = self.publisher.unwrap_or_default().split('.');
        labels.into_iter().any(|label| label.starts_with("xn--"))
    }

    /// Builds the response, with status 200.
    pub fn render(&self) -> Response {
        let w = &self.frame.words().consent;
        let template = ConsentTemplate { frame: self.frame, page: self, w };
        self.frame.respond(StatusCode::OK, Style::People, template.render())
    }
}
