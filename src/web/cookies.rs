//! The cookies of our pages. All are HttpOnly, SameSite=Lax, Path=/.
//!
//! - *consent*: one per page. Marks a browser before anything is approved, so that another browser cannot
//!   submit the Approve form (CSRF). It proves nothing else.
//! - *login*: one per login, set at Approve. Proves at the callback that the same browser came back.
//! - *admin*, *account*: the session of a person who is signed in to these pages. A second cookie holds a
//!   sign-in in progress.
//! - *held*: a sign-in that waits for an administrator.
//! - *remembered*: an approval that need not be asked again.
//! - *person*: set after a sign-in, sealed. Tells the next consent page who the person probably is, so that
//!   it can mark what was approved before. It proves nothing and skips no check.
//!
//! On https the names have the prefix `__Host-`, and a cookie without it is never read (threat BR-03). The
//! prefix demands `Path=/`, also if we are served below a path. `__Secure-` with our own path would hide the
//! cookies from other applications on the host, but then any other host of the domain could plant a cookie
//! that we would read, such as the mark of its own consent page. An application on our host shares our
//! origin and can submit our forms whatever the path is, so the path would protect nothing.
//!
//! The names contain a tag of the path, so that two installations on one host never read, count or overwrite
//! each other's cookies.
//!
//! On loopback http, browsers other than Chromium drop `Secure` cookies, so there they are set without
//! `Secure` and without the prefix.

use axum::http::{HeaderMap, HeaderValue, header};
use axum_extra::extract::cookie::{Cookie, CookieJar, SameSite};

use crate::config::PublicUrl;
use crate::oauth::secret::{BrowserBinding, ConsoleSession, HeldLogin, RememberedConsent, Secret};
use crate::storage::Realm;

/// Builds and reads our cookies. The names depend on the URL under which browsers reach the pages.
#[derive(Clone, Copy, Debug)]
pub struct Cookies<'a> {
    url: &'a PublicUrl,
}

/// Seconds (1 hour) that a cookie outlives its page or login. A browser that comes too late still sends the
/// cookie, so the error says "expired" and not "another browser".
const AFTERWARDS: u64 = 3600;

const CONSENT: &str = "consent-";
const LOGIN: &str = "login-";
const HELD: &str = "held-";
const REMEMBERED: &str = "remembered-";
const PAGES: &str = "pages-";
const UNDERWAY: &str = "signing-in-";
const PERSON: &str = "person";
/// Bytes: longest value of the *person* cookie that is read.
const MAX_PERSON: usize = 1024;

impl<'a> Cookies<'a> {
    /// Returns the cookies of the pages at `url`.
    pub fn of(url: &'a PublicUrl) -> Self {
        Self { url }
    }

    /// Returns the common prefix of the names of one kind of cookie.
    fn prefix(self, kind: &str) -> String {
        let host = if self.url.is_https() { "__Host-" } else { "" };
        format!("{host}portcullis-{}{kind}", self.url.cookie_tag())
    }

    /// Returns the value that marks this browser for the consent page `id`, if it is well-formed.
    pub fn consent(self, headers: &HeaderMap, id: &str) -> Option<String> {
        let value = only(headers, &self.name(CONSENT, id))?;
        // The part after the dot is the tag of the client that asked.
        let value = value.split_once('.').map_or(value.as_str(), |(mark, _)| mark).to_owned();
        let fits = value.len() == 43
            && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        fits.then_some(value)
    }

    /// Returns the `Set-Cookie` that marks the browser for the consent page `id`. It outlives the page,
    /// whose lifetime is `max_age` seconds. There is one cookie per page, so that two pages opened at once
    /// do not overwrite each other's mark. `tag` identifies the client.
    pub fn set_consent(self, id: &str, value: &str, tag: &str, max_age: u64) -> HeaderValue {
        self.build(self.name(CONSENT, id), &format!("{value}.{tag}"), Some(max_age + AFTERWARDS))
    }

    /// Returns the `Set-Cookie` that keeps the mark of a consent page but removes its tag, so that the page
    /// no longer counts towards the rate limit.
    pub fn count_no_more(self, headers: &HeaderMap, id: &str, max_age: u64) -> Option<HeaderValue> {
        let value = self.consent(headers, id)?;
        Some(self.build(self.name(CONSENT, id), &value, Some(max_age + AFTERWARDS)))
    }

    /// Returns the ids of the pages that this browser was shown for the client with this `tag` and has not
    /// approved, oldest first.
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

    /// Returns the `Set-Cookie` that removes the mark of a consent page.
    pub fn clear_consent(self, id: &str) -> HeaderValue {
        self.build(self.name(CONSENT, id), "", Some(0))
    }

    /// Returns the oldest consent pages of this browser, all except the newest `keep`, for eviction.
    pub fn consents_beyond(self, headers: &HeaderMap, keep: usize) -> Vec<String> {
        self.beyond(CONSENT, headers, keep)
    }

    /// Returns the binding of the login `id`, if this browser has it.
    pub fn login(self, headers: &HeaderMap, id: &str) -> Option<Secret<BrowserBinding>> {
        Secret::parse(&only(headers, &self.name(LOGIN, id))?)
    }

    /// Returns the `Set-Cookie` for the binding of a login that must end within `max_age` seconds.
    pub fn set_login(
        self,
        id: &str,
        binding: &Secret<BrowserBinding>,
        max_age: u64,
    ) -> HeaderValue {
        self.build(self.name(LOGIN, id), binding.expose(), Some(max_age + AFTERWARDS))
    }

    /// Returns the `Set-Cookie` that removes the binding of a login.
    pub fn clear_login(self, id: &str) -> HeaderValue {
        self.build(self.name(LOGIN, id), "", Some(0))
    }

    /// Returns the secret that proves that this browser waits with the login `id`.
    pub fn held(self, headers: &HeaderMap, id: &str) -> Option<Secret<HeldLogin>> {
        Secret::parse(&only(headers, &self.name(HELD, id))?)
    }

    /// Returns the `Set-Cookie` for a login that waits for approval; `max_age` in seconds.
    pub fn set_held(self, id: &str, token: &Secret<HeldLogin>, max_age: u64) -> HeaderValue {
        self.build(self.name(HELD, id), token.expose(), Some(max_age + AFTERWARDS))
    }

    /// Returns the `Set-Cookie` that removes a login that waits for approval.
    pub fn clear_held(self, id: &str) -> HeaderValue {
        self.build(self.name(HELD, id), "", Some(0))
    }

    /// Returns the oldest waiting logins of this browser, all except the newest `keep`, for eviction.
    pub fn held_beyond(self, headers: &HeaderMap, keep: usize) -> Vec<String> {
        self.beyond(HELD, headers, keep)
    }

    /// Returns the secret of the approval that this browser remembers under the name `slot`.
    pub fn remembered(self, headers: &HeaderMap, slot: &str) -> Option<Secret<RememberedConsent>> {
        Secret::parse(&only(headers, &self.name(REMEMBERED, slot))?)
    }

    /// Returns the `Set-Cookie` for a remembered approval; `max_age` in seconds.
    pub fn set_remembered(
        self,
        slot: &str,
        token: &Secret<RememberedConsent>,
        max_age: u64,
    ) -> HeaderValue {
        self.build(self.name(REMEMBERED, slot), token.expose(), Some(max_age))
    }

    /// Returns the `Set-Cookie` that removes a remembered approval.
    pub fn clear_remembered(self, slot: &str) -> HeaderValue {
        self.build(self.name(REMEMBERED, slot), "", Some(0))
    }

    /// Returns the oldest remembered approvals of this browser apart from `slot`, all except the newest
    /// `keep`, for eviction.
    pub fn remembered_beyond(self, headers: &HeaderMap, slot: &str, keep: usize) -> Vec<String> {
        let prefix = self.prefix(REMEMBERED);
        let mut held: Vec<(String, String)> = CookieJar::from_headers(headers)
            .iter()
            .filter_map(|cookie| {
                let name = cookie.name().strip_prefix(&prefix)?;
                let ours = name != slot && is_id(name);
                // Sorted by the ids inside the secrets, which begin with their time. The names are hashes.
                let token = Secret::<RememberedConsent>::parse(cookie.value());
                let age = token.map(|token| token.id().to_owned()).unwrap_or_default();
                ours.then(|| (age, name.to_owned()))
            })
            .collect();
        held.sort_unstable();
        held.truncate(held.len().saturating_sub(keep));
        held.into_iter().map(|(_, slot)| slot).collect()
    }

    /// Returns the session secret of these pages.
    pub fn console(self, headers: &HeaderMap, realm: Realm) -> Option<Secret<ConsoleSession>> {
        Secret::parse(&only(headers, &self.name(PAGES, realm.as_str()))?)
    }

    /// Returns the `Set-Cookie` for a session of these pages; `max_age` in seconds.
    pub fn set_console(
        self,
        realm: Realm,
        token: &Secret<ConsoleSession>,
        max_age: u64,
    ) -> HeaderValue {
        self.build(self.name(PAGES, realm.as_str()), token.expose(), Some(max_age))
    }

    /// Returns the `Set-Cookie` that removes the session of these pages.
    pub fn clear_console(self, realm: Realm) -> HeaderValue {
        self.build(self.name(PAGES, realm.as_str()), "", Some(0))
    }

    /// Returns the sealed sign-in in progress of these pages.
    pub fn underway(self, headers: &HeaderMap, realm: Realm) -> Option<String> {
        only(headers, &self.name(UNDERWAY, realm.as_str()))
    }

    /// Returns the `Set-Cookie` for a sign-in in progress. A newer one replaces it.
    pub fn set_underway(self, realm: Realm, sealed: &str, max_age: u64) -> HeaderValue {
        self.build(self.name(UNDERWAY, realm.as_str()), sealed, Some(max_age + AFTERWARDS))
    }

    /// Returns the `Set-Cookie` that removes a sign-in in progress.
    pub fn clear_underway(self, realm: Realm) -> HeaderValue {
        self.build(self.name(UNDERWAY, realm.as_str()), "", Some(0))
    }

    /// Returns the oldest pending logins of this browser, all except the newest `keep`. Their cookies are
    /// evicted, so that cookies never outgrow the limit for request headers.
    pub fn logins_beyond(self, headers: &HeaderMap, keep: usize) -> Vec<String> {
        self.beyond(LOGIN, headers, keep)
    }

    /// Returns whether this browser has any login in progress.
    pub fn has_a_login(self, headers: &HeaderMap) -> bool {
        !self.beyond(LOGIN, headers, 0).is_empty()
    }

    /// Returns the sealed subject of the last person who signed in with this browser.
    pub fn person(self, headers: &HeaderMap) -> Option<String> {
        only(headers, &self.name(PERSON, "")).filter(|sealed| sealed.len() <= MAX_PERSON)
    }

    /// Returns the `Set-Cookie` for the sealed subject of a person; `max_age` in seconds.
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

/// Returns the value of a cookie that must occur exactly once: if there are two, a neighbouring host may
/// have planted one.
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
