//! The cookies of the pages. All are HttpOnly, SameSite=Lax, Path=/.
//!
//! - *consent*: one per page, marks a browser before anything is approved, so that the Approve form of one browser
//!   cannot be pressed by another (CSRF). It proves nothing else.
//! - *login*: made at Approve, one per login, proves at the callback that the same browser came back.
//! - *admin*, *account*: somebody who is signed in to these pages; beside it, a sign-in on its way.
//! - *held*: a sign-in that waits for an administrator. *remembered*: an approval that need not be asked again.
//! - *person*: made after a sign-in, sealed, tells the next consent page who it probably was, so that it can mark
//!   what was approved before. It proves nothing and lets nobody skip anything.
//!
//! On https they carry the `__Host-` prefix and nothing without it is ever read (threat BR-03). The prefix
//! demands `Path=/`, also where we live below a path. `__Secure-` with our path would keep the cookies from
//! neighbours on the host, but any other host of the domain could then plant a cookie that we would read, such
//! as the mark of its own consent page. A neighbour on our host is of our origin and can press our buttons
//! whatever the path is, so the path would protect nothing. Names carry a tag of the path: two installations
//! on one host never read, count or overwrite each other's.
//! On loopback http, browsers other than Chromium drop `Secure` cookies, so they are left out there.

use axum::http::{HeaderMap, HeaderValue, header};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};

use crate::config::PublicUrl;
use crate::oauth::secret::{BrowserBinding, ConsoleSession, HeldLogin, RememberedConsent, Secret};
use crate::storage::Realm;

/// Names and attributes of our cookies, by the URL that browsers know the pages by.
#[derive(Clone, Copy, Debug)]
pub struct Cookies<'a> {
    url: &'a PublicUrl,
}

/// A cookie outlives what it stands for by so many seconds: a browser that comes too late is told so, and
/// not that it is another browser.
const AFTERWARDS: u64 = 3600;

const CONSENT: &str = "consent-";
const LOGIN: &str = "login-";
const HELD: &str = "held-";
const REMEMBERED: &str = "remembered-";
const PAGES: &str = "pages-";
const UNDERWAY: &str = "signing-in-";
const PERSON: &str = "person";
/// Longest sealed value read.
const MAX_PERSON: usize = 1024;

impl<'a> Cookies<'a> {
    /// Cookies of the pages at `url`.
    pub fn of(url: &'a PublicUrl) -> Self {
        Self { url }
    }

    /// What the names of all cookies of one kind begin with.
    fn prefix(self, kind: &str) -> String {
        let host = if self.url.is_https() { "__Host-" } else { "" };
        format!("{host}portcullis-{}{kind}", self.url.cookie_tag())
    }

    /// The value that marks this browser for the consent page `id`, when it has a well-formed one.
    pub fn consent(self, headers: &HeaderMap, id: &str) -> Option<String> {
        let value = only(headers, &self.name(CONSENT, id))?;
        // What follows the dot says which client asked.
        let value = value.split_once('.').map_or(value.as_str(), |(mark, _)| mark).to_owned();
        let fits = value.len() == 43
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        fits.then_some(value)
    }

    /// `Set-Cookie` for the mark of the consent page `id`, for longer than the page lives. One per page:
    /// of two pages opened at once, neither may take the other's mark away.
    /// `tag` says for which client.
    pub fn set_consent(self, id: &str, value: &str, tag: &str, max_age: u64) -> HeaderValue {
        self.build(self.name(CONSENT, id), &format!("{value}.{tag}"), Some(max_age + AFTERWARDS))
    }

    /// `Set-Cookie` that leaves the mark of a consent page as it is, and no longer counts it.
    pub fn count_no_more(self, headers: &HeaderMap, id: &str, max_age: u64) -> Option<HeaderValue> {
        let value = self.consent(headers, id)?;
        Some(self.build(self.name(CONSENT, id), &value, Some(max_age + AFTERWARDS)))
    }

    /// Pages that this browser was shown for the client that `tag` stands for and has not approved,
    /// oldest first.
    pub fn consents_for(self, headers: &HeaderMap, tag: &str) -> Vec<String> {
        let prefix = self.prefix(CONSENT);
        let jar = CookieJar::from_headers(headers);
        let pages = jar.iter().filter_map(|cookie| {
            let id = cookie.name().strip_prefix(&prefix).filter(|id| is_id(id))?;
            let (_, of) = cookie.value().split_once('.')?;
            (of == tag).then(|| id.to_owned())
        });
        let mut pages: Vec<String> = pages.collect();
        pages.sort_unstable(); // ids begin with their time
        pages
    }

    /// `Set-Cookie` that removes the mark of a consent page.
    pub fn clear_consent(self, id: &str) -> HeaderValue {
        self.build(self.name(CONSENT, id), "", Some(0))
    }

    /// Consent pages of this browser beyond `keep`, oldest first.
    pub fn consents_beyond(self, headers: &HeaderMap, keep: usize) -> Vec<String> {
        self.beyond(CONSENT, headers, keep)
    }

    /// The binding of the login `id`, when this browser has it.
    pub fn login(self, headers: &HeaderMap, id: &str) -> Option<Secret<BrowserBinding>> {
        Secret::parse(&only(headers, &self.name(LOGIN, id))?)
    }

    /// `Set-Cookie` for the binding of a login that must end within `max_age` seconds.
    pub fn set_login(
        self,
        id: &str,
        binding: &Secret<BrowserBinding>,
        max_age: u64,
    ) -> HeaderValue {
        self.build(self.name(LOGIN, id), binding.expose(), Some(max_age + AFTERWARDS))
    }

    /// `Set-Cookie` that removes the binding of a login.
    pub fn clear_login(self, id: &str) -> HeaderValue {
        self.build(self.name(LOGIN, id), "", Some(0))
    }

    /// The proof that this browser waits with the held login `id`.
    pub fn held(self, headers: &HeaderMap, id: &str) -> Option<Secret<HeldLogin>> {
        Secret::parse(&only(headers, &self.name(HELD, id))?)
    }

    /// `Set-Cookie` for a held login.
    pub fn set_held(self, id: &str, token: &Secret<HeldLogin>, max_age: u64) -> HeaderValue {
        self.build(self.name(HELD, id), token.expose(), Some(max_age + AFTERWARDS))
    }

    /// `Set-Cookie` that removes a held login.
    pub fn clear_held(self, id: &str) -> HeaderValue {
        self.build(self.name(HELD, id), "", Some(0))
    }

    /// Held logins of this browser beyond `keep`, oldest first.
    pub fn held_beyond(self, headers: &HeaderMap, keep: usize) -> Vec<String> {
        self.beyond(HELD, headers, keep)
    }

    /// The proof that an approval is remembered in this browser, under the name `slot`.
    pub fn remembered(self, headers: &HeaderMap, slot: &str) -> Option<Secret<RememberedConsent>> {
        Secret::parse(&only(headers, &self.name(REMEMBERED, slot))?)
    }

    /// `Set-Cookie` for a remembered approval.
    pub fn set_remembered(
        self,
        slot: &str,
        token: &Secret<RememberedConsent>,
        max_age: u64,
    ) -> HeaderValue {
        self.build(self.name(REMEMBERED, slot), token.expose(), Some(max_age))
    }

    /// `Set-Cookie` that removes a remembered approval.
    pub fn clear_remembered(self, slot: &str) -> HeaderValue {
        self.build(self.name(REMEMBERED, slot), "", Some(0))
    }

    /// Remembered approvals of this browser beside `slot` and beyond `keep`, oldest first.
    pub fn remembered_beyond(self, headers: &HeaderMap, slot: &str, keep: usize) -> Vec<String> {
        let prefix = self.prefix(REMEMBERED);
        let mut held: Vec<(String, String)> = CookieJar::from_headers(headers)
            .iter()
            .filter_map(|cookie| {
                let name = cookie.name().strip_prefix(&prefix)?;
                let ours = name != slot && is_id(name);
                // Their names are hashes; the secrets begin with their time.
                let token = Secret::<RememberedConsent>::parse(cookie.value());
                let age = token.map(|token| token.id().to_owned()).unwrap_or_default();
                ours.then(|| (age, name.to_owned()))
            })
            .collect();
        held.sort_unstable();
        held.truncate(held.len().saturating_sub(keep));
        held.into_iter().map(|(_, slot)| slot).collect()
    }

    /// The session of these pages.
    pub fn console(self, headers: &HeaderMap, realm: Realm) -> Option<Secret<ConsoleSession>> {
        Secret::parse(&only(headers, &self.name(PAGES, realm.as_str()))?)
    }

    /// `Set-Cookie` for the session of these pages.
    pub fn set_console(
        self,
        realm: Realm,
        token: &Secret<ConsoleSession>,
        max_age: u64,
    ) -> HeaderValue {
        self.build(self.name(PAGES, realm.as_str()), token.expose(), Some(max_age))
    }

    /// `Set-Cookie` that removes the session of these pages.
    pub fn clear_console(self, realm: Realm) -> HeaderValue {
        self.build(self.name(PAGES, realm.as_str()), "", Some(0))
    }

    /// A sign-in to these pages on its way, sealed.
    pub fn underway(self, headers: &HeaderMap, realm: Realm) -> Option<String> {
        only(headers, &self.name(UNDERWAY, realm.as_str()))
    }

    /// `Set-Cookie` for a sign-in to these pages on its way; the newest counts.
    pub fn set_underway(self, realm: Realm, sealed: &str, max_age: u64) -> HeaderValue {
        self.build(self.name(UNDERWAY, realm.as_str()), sealed, Some(max_age + AFTERWARDS))
    }

    /// `Set-Cookie` that removes a sign-in on its way.
    pub fn clear_underway(self, realm: Realm) -> HeaderValue {
        self.build(self.name(UNDERWAY, realm.as_str()), "", Some(0))
    }

    /// The ids of logins this browser has under way beyond `keep` of them, oldest first: their
    /// cookies are evicted, so that cookies never outgrow a request's headers.
    pub fn logins_beyond(self, headers: &HeaderMap, keep: usize) -> Vec<String> {
        self.beyond(LOGIN, headers, keep)
    }

    /// Whether this browser has any login under way.
    pub fn has_a_login(self, headers: &HeaderMap) -> bool {
        !self.beyond(LOGIN, headers, 0).is_empty()
    }

    /// The sealed name of whoever signed in with this browser last.
    pub fn person(self, headers: &HeaderMap) -> Option<String> {
        only(headers, &self.name(PERSON, "")).filter(|sealed| sealed.len() <= MAX_PERSON)
    }

    /// `Set-Cookie` for the sealed name of whoever signed in.
    pub fn set_person(self, sealed: &str, max_age: u64) -> HeaderValue {
        self.build(self.name(PERSON, ""), sealed, Some(max_age))
    }

    fn beyond(self, kind: &str, headers: &HeaderMap, keep: usize) -> Vec<String> {
        let prefix = self.prefix(kind);
        let mut ids: Vec<String> = CookieJar::from_headers(headers)
            .iter()
            .filter_map(|cookie| cookie.name().strip_prefix(&prefix).map(str::to_owned))
            .filter(|id| is_id(id))
            .collect();
        ids.sort_unstable(); // ids begin with their time
        ids.truncate(ids.len().saturating_sub(keep));
        ids
    }

    fn name(self, kind: &str, id: &str) -> String {
        format!("{}{id}", self.prefix(kind))
    }

    #[expect(clippy::expect_used, reason = "names and values are ours and ASCII")]
    fn build(self, name: String, value: &str, max_age: Option<u64>) -> HeaderValue {
        let mut cookie = Cookie::new(name, value.to_owned());
        cookie.set_path("/");
        cookie.set_http_only(true);
        cookie.set_same_site(SameSite::Lax);
        if self.url.is_https() {
            cookie.set_secure(true);
        }
        let mut text = cookie.to_string();
        if let Some(seconds) = max_age {
            text.push_str("; Max-Age=");
            text.push_str(&seconds.to_string());
        }
        HeaderValue::from_str(&text).expect("a cookie of ours is a legal header")
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The value of a cookie that must come exactly once: of two, one was tossed in by a neighbour.
fn only(headers: &HeaderMap, name: &str) -> Option<String> {
    let mut values = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| Cookie::split_parse(value.to_owned()))
        .filter_map(Result::ok)
        .filter(|cookie| cookie.name() == name);
    let first = values.next()?;
    values.next().is_none().then(|| first.value().to_owned())
}
