//! The consent page: its contents, how it is shown, and how often.
//!
//! Nothing is stored: the page carries the whole request, sealed and bound to the browser that it is shown to.

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use super::known_client::KnownClient;
use super::{acts_as, remembered_consent, step_up};
use crate::app::App;
use crate::clock::Timestamp;
use crate::config::{ResourceConfig, paths};
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::client::{Client, Origin};
use crate::oauth::redirect_uri::destination;
use crate::oauth::scope::{Scope, ScopeSet};
use crate::oauth::sealed::{CannotOpen, Purpose, Sealer};
use crate::oauth::secret::{new_id, random_text};
use crate::telemetry::audit::Actor;
use crate::web::browser::Browser;
use crate::web::cookies::{self, CONSENT_PAGE, ConsentMark, Cookies};
use crate::web::page_error::PageError;
use crate::web::pages::{self, Message, TooMany};
use crate::web::params::Params;

/// Most scopes with a box of their own. Nobody reads more, and a form has a limited number of fields.
const MOST_CHOICES: usize = 40;

/// The contents of a consent page, sealed into a field of its own form.
#[derive(Serialize, Deserialize)]
pub(super) struct ConsentRequest {
    /// Makes the decision one-time.
    pub(super) id: String,
    /// Hash of the cookie of the browser that the page was shown to.
    pub(super) browser: String,
    /// Unix seconds.
    pub(super) expires_at: i64,
    /// Identity of the client's metadata when the page was shown.
    #[serde(default)]
    // Absent in pages of an earlier version: they can still be decided, but the approval is not remembered.
    pub(super) metadata_hash: String,
    /// Whether the page let the person leave out scopes. Absent in pages of an earlier version, which did not.
    #[serde(default)]
    pub(super) choice: bool,
    pub(super) request: AuthorizationRequest,
}

impl ConsentRequest {
    /// Makes the contents of a page for the browser that has the cookie `mark`.
    fn new(app: &App, client: &Client, mark: &str, request: AuthorizationRequest) -> Self {
        // Of one scope there is nothing to leave out.
        let several = (2..=MOST_CHOICES).contains(&request.scopes.len());
        Self {
            id: new_id(app.clock()),
            browser: Self::browser_mark(mark),
            expires_at: app.now().plus(CONSENT_PAGE).unix(),
            metadata_hash: client.metadata.identity(),
            choice: app.config().consent_choice && several,
            request,
        }
    }

    /// Returns the hash that the page stores of the browser's cookie. The page never contains the cookie
    /// itself.
    pub(super) fn browser_mark(cookie: &str) -> String {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        context.update(b"portcullis consent browser ");
        context.update(cookie.as_bytes());
        URL_SAFE_NO_PAD.encode(context.finish())
    }

    /// Returns the short hash that the browser's cookies store of the requesting client.
    pub(super) fn client_tag(client_id: &str) -> String {
        let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        context.update(b"portcullis consent client ");
        context.update(client_id.as_bytes());
        URL_SAFE_NO_PAD.encode(&context.finish().as_ref()[..9])
    }

    /// Returns the scopes that the person left ticked. The form can only take scopes away from the sealed
    /// request: a scope that was not requested is an error, and so is none at all.
    pub(super) fn chosen(&self, form: &Params) -> Result<ScopeSet, PageError> {
        let requested = &self.request.scopes;
        if !self.choice {
            return Ok(requested.clone());
        }
        let ticked: Option<ScopeSet> = form
            .all("scope")
            .map(|name| name.parse::<Scope>().ok().filter(|scope| requested.contains(scope)))
            .collect();
        match ticked {
            None => {
                let message = Message::InvalidRequest { what: "scope" };
                Err(message.because("a scope in the form was not requested"))
            }
            Some(ticked) if ticked.is_empty() => {
                Err(Message::NothingChosen.because("all scopes were left out"))
            }
            Some(ticked) => Ok(ticked),
        }
    }

    pub(super) fn seal(&self, sealer: &Sealer) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        sealer.seal(Purpose::Consent, "consent", &json)
    }

    pub(super) fn open(sealed: &str, sealer: &Sealer) -> Result<Self, CannotOpen> {
        let json = sealer.open(Purpose::Consent, "consent", sealed)?;
        serde_json::from_slice(&json).map_err(|_| CannotOpen)
    }
}

/// Returns the ids of the pages that this browser was shown for the client with this tag and has not approved,
/// oldest first.
pub(super) fn undecided(cookies: &Cookies, client_tag: &str) -> Vec<String> {
    let mut ids = cookies::CONSENT.ids(cookies);
    ids.retain(|id| {
        let mark = cookies::CONSENT.get(cookies, id);
        mark.and_then(|mark| mark.client).as_deref() == Some(client_tag)
    });
    ids
}

/// Rate limit for consent pages: stops a client that sends the person here again and again until they press
/// Approve to be rid of it (threat PH-02). Only the browser's cookies count the pages; nothing is stored.
pub(super) fn not_too_often(browser: &Browser, client: &Client) -> Result<(), PageError> {
    let app = &browser.app;
    let shown = undecided(&browser.cookies, &ConsentRequest::client_tag(&client.id));
    let (now, most) = (app.now(), app.config().limits.consent_pages);
    let since = now.minus(CONSENT_PAGE);
    let mut recent: Vec<Timestamp> =
        shown.iter().filter_map(|id| shown_at(id)).filter(|at| *at > since).collect();
    recent.sort_unstable();
    // Once this page expires, fewer than `most` pages are left.
    let Some(first) = recent.len().checked_sub(most).and_then(|index| recent.get(index)) else {
        return Ok(());
    };
    let seconds = first.plus(CONSENT_PAGE).since(now).as_secs().max(1);
    let message = Message::TooMany { what: TooMany::ConsentPages, seconds };
    let reason = format!(
        "this browser was shown {} pages of the client {} in ten minutes and approved none; an administrator can raise `limits.consent_pages`",
        recent.len(),
        client.id
    );
    Err(message.because(reason))
}

/// Returns when the page with this id was shown: the first 12 hex digits of an id are its time in
/// milliseconds.
fn shown_at(id: &str) -> Option<Timestamp> {
    let millis = i64::from_str_radix(id.get(..12)?, 16).ok()?;
    Some(Timestamp::from_unix(millis / 1000))
}

/// Shows the consent page. It marks the scopes that were approved `before`.
pub(super) async fn show(
    browser: &Browser,
    KnownClient { client, review, .. }: &KnownClient<'_>,
    request: AuthorizationRequest,
    resource: &ResourceConfig,
    before: &ScopeSet,
) -> Response {
    let Browser { app, cookies, .. } = browser;
    let mark = random_text();
    // The configuration may have changed since the request was checked.
    let upstream = acts_as::uses(app.config(), resource);
    let request = AuthorizationRequest { upstream, ..request };
    let consent = ConsentRequest::new(app, client, &mark, request);
    let name = client.display_name();
    let shown = (consent.choice, browser.language);
    let scopes = step_up::scope_lines(resource, &consent.request.scopes, before, shown);
    let services = acts_as::lines(app, resource, browser.language);
    let sealed = consent.seal(app.sealer());
    let destination = destination(&consent.request.redirect_uri);
    let account = browser.url().join(paths::ACCOUNT);
    let page = pages::ConsentPage {
        frame: browser.frame(),
        destination: &destination,
        redirect_uri: &consent.request.redirect_uri,
        verified: (review.trusted || matches!(client.origin, Origin::Configured { trusted: true }))
            && remembered_consent::answers_to_website(&consent.request),
        publisher: client.publisher(),
        registered_itself: matches!(client.origin, Origin::Registered),
        client_name: name.text.as_deref(),
        name_suspicious: name.suspicious,
        client_id: &client.id,
        resource_name: resource.name.as_deref(),
        resource: &resource.id,
        scopes: &scopes,
        services: &services,
        asked_for_unknown: !consent.request.unknown_scopes.is_empty(),
        offers_another_account: consent.request.account.is_none()
            && app.upstream().lets_choose_account().await,
        identity_provider: &app.config().upstream.name,
        account: &account,
        request: &sealed,
    };
    // Only in the log: an anonymous request must not add a row to the database. The audit event of the
    // decision repeats when the page was shown.
    app.log_event(
        &app.event("consent_shown", Actor::Person)
            .client(&client.id)
            .resource(&resource.id)
            .with("consent_id", consent.id.as_str())
            .with("scopes", consent.request.scopes.to_string())
            .with("unknown_scopes", consent.request.unknown_scopes.as_str()),
    );
    let client = Some(ConsentRequest::client_tag(&client.id));
    let evicted = cookies::CONSENT.evict(cookies, &consent.id);
    let set = cookies::CONSENT.set(cookies, &consent.id, &ConsentMark { mark, client });
    (evicted.and(set), page.render()).into_response()
}
