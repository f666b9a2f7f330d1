//! Redirects of a person's browser back to the client.

use axum::response::Response;

use super::again;
use super::browser::{Browser, see_other};
use super::page_error::ShownReference;
use super::pages::{Message, MessagePage, NextStep, Repeat, ReturnLink};
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::client::{Client, Origin};
use crate::oauth::error::{ErrorCode, Refusal};
use crate::oauth::redirect_uri::{Destination, RegisteredRedirectUri, destination};
use crate::telemetry::log_throttle::KeyedLogThrottle;
use crate::telemetry::new_reference;

static REFUSED: KeyedLogThrottle = KeyedLogThrottle::new();

/// A redirect back to the client: a registered redirect URI, the client's `state`, and our `iss`.
pub struct ClientRedirect<'a> {
    /// Our issuer (RFC 9207).
    pub issuer: &'a str,
    /// A redirect URI that the client registered.
    pub address: RegisteredRedirectUri,
    pub state: Option<String>,
    /// The client's own name, for a link; `None` if it has none, or one that imitates another.
    pub name: Option<String>,
    /// The request, once it is checked. A page can then offer to try again.
    pub request: Option<AuthorizationRequest>,
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

    /// Explains to the person why the client gets no code, and what they can do. A link leads back to the client
    /// with the error. The browser does not follow it by itself: the page shows a reference, which somebody may be
    /// copying.
    pub async fn explain(
        &self,
        browser: &Browser,
        message: Message<'_>,
        reference: &str,
        (code, description): (ErrorCode, Option<&str>),
    ) -> Response {
        let url = self.with_error(code, description);
        let app = &browser.app;
        let offer = message.offer();
        let request = self.request.as_ref().filter(|_| offer != NextStep::Nothing);
        let sealed = request.map(|request| again::seal(app, request));
        let may_choose =
            offer == NextStep::AnotherAccount && app.upstream().lets_choose_account().await;
        let request = sealed.as_deref();
        let repeat = Repeat { request, may_choose, ..Repeat::default() };
        self.page(browser, message, reference, (&url, repeat))
    }

    /// Reports to the client that its request is refused, before any person has approved anything.
    ///
    /// Redirects at once to a loopback address, and to a website that the operator listed or configured. Any
    /// other website registered itself, and an automatic redirect would make us its open redirector. An app
    /// is never opened without a person's decision, because a link can make it act. For these two the person
    /// reads a page and decides whether to continue (OAuth 2.1 §7.13.2, requirement AZ-28).
    pub fn refuse(&self, browser: &Browser, client: &Client, refusal: &dyn Refusal) -> Response {
        let reference = new_reference();
        let code = refusal.code().as_str();
        let reason = refusal.to_string();
        if let Some(left_out) = REFUSED.admit(&reason) {
            tracing::info!(reference, code, reason, left_out, "authorization refused");
        }
        let url = self.with_error(refusal.code(), Some(&reason));
        let address = self.address.as_str();
        let told_directly = match destination(address) {
            Destination::Loopback { .. } => true,
            Destination::Https { .. } => {
                browser.app.redirect_policy().lists(address)
                    || matches!(client.origin, Origin::Configured { .. })
            }
            Destination::App { .. } => false,
        };
        if told_directly {
            return see_other(&url);
        }
        let message = Message::InvalidRequest { what: &reason };
        let mut response = self.page(browser, message, &reference, (&url, Repeat::default()));
        response.extensions_mut().insert(ShownReference { reference, reason });
        response
    }

    fn page(
        &self,
        browser: &Browser,
        message: Message<'_>,
        reference: &str,
        (url, repeat): (&str, Repeat<'_>),
    ) -> Response {
        let link = ReturnLink { url, name: self.name.as_deref(), host_label: &self.label() };
        let (frame, reference) = (browser.frame(), Some(reference));
        MessagePage { frame, message, reference, return_to: Some(link), repeat }.render()
    }
}
