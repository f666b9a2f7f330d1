//! The cookies of our pages. All are HttpOnly, SameSite=Lax, Path=/.
//!
//! The constants of type [`Slot`] below are the complete list: one slot for each kind of cookie, with its name,
//! its lifetime, and how many of the kind one browser holds.
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

use std::borrow::Cow;
use std::collections::HashSet;
use std::convert::Infallible;
use std::marker::PhantomData;
use std::time::Duration;

use axum::http::header::GetAll;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponseParts, ResponseParts};
use axum_extra::extract::cookie::{Cookie, SameSite};

use super::words::Language;
use crate::config::PublicUrl;
use crate::oauth::secret::{
    BrowserBinding, ConsoleSession, HeldLogin, RememberedConsent, Secret, SecretKind,
};

/// 10 minutes: how long a consent page can be decided.
pub const CONSENT_PAGE: Duration = Duration::from_mins(10);
/// 5 minutes: how long a person may take at a service that they connect.
pub const CONNECT_ATTEMPT: Duration = Duration::from_mins(5);
/// 1 hour: how long a finished sign-in waits for an administrator. Afterwards the person has to sign in
/// again.
pub const APPROVAL_WAIT: Duration = Duration::from_hours(1);
/// 30 days: afterwards the consent page is shown again. Use does not prolong it.
pub const REMEMBERED_APPROVAL: Duration = Duration::from_hours(30 * 24);
/// 8 hours: a web session ends after this time in any case.
pub const WEB_SESSION: Duration = Duration::from_hours(8);
/// 30 days: how long a browser names its last person, for the marks on consent pages.
pub const PERSON_KNOWN: Duration = Duration::from_hours(30 * 24);
/// 365 days: how long a browser keeps the language that a person chose.
pub const LANGUAGE_CHOSEN: Duration = Duration::from_hours(365 * 24);

/// Marks a browser before anything is approved, so that another browser cannot submit the Approve form
/// (CSRF). It proves nothing else. The id is that of the consent page: two pages that are opened at once do
/// not overwrite each other's mark.
pub const CONSENT: Slot<ConsentMark> =
    Slot::new("consent-", Lifetime::And(CONSENT_PAGE), Number::PendingLogins);
/// Proves at the callback that the browser that approved has come back. The id is that of the login.
pub const LOGIN: Slot<Secret<BrowserBinding>> =
    Slot::new("login-", Lifetime::OfLogin, Number::PendingLogins);
/// A sign-in that waits for an administrator. The id is that of the login.
pub const WAITING: Slot<Secret<HeldLogin>> =
    Slot::new("held-", Lifetime::And(APPROVAL_WAIT), Number::PendingLogins);
/// An approval that need not be asked again. The id is a hash of the client and the MCP server. With more of
/// them, the cookies of a browser could outgrow the limit for request headers.
pub const REMEMBERED: Slot<Secret<RememberedConsent>> =
    Slot::new("remembered-", Lifetime::Exactly(REMEMBERED_APPROVAL), Number::AtMost(10));
/// The session of a person who is signed in to our pages. The id is the realm: `admin` or `account`.
pub const SESSION: Slot<Secret<ConsoleSession>> =
    Slot::new("pages-", Lifetime::Exactly(WEB_SESSION), Number::OnePerId);
/// A sign-in to our pages that is in progress. A newer one replaces it. The id is the realm.
pub const SIGN_IN: Slot<Sealed> = Slot::new("signing-in-", Lifetime::OfLogin, Number::OnePerId);
/// Tells the next consent page who the person probably is, so that it can mark what was approved before. It
/// proves nothing and skips no check. The id is empty.
pub const PERSON: Slot<Sealed> =
    Slot::new("person", Lifetime::Exactly(PERSON_KNOWN), Number::OnePerId);

/// Proves at the callback of a service that the browser that began to connect it has come back. The id is that of the
/// attempt.
pub const CONNECT: Slot<Secret<BrowserBinding>> =
    Slot::new("connect-", Lifetime::And(CONNECT_ATTEMPT), Number::AtMost(5));

/// The language that a person chose; `Accept-Language` counts without it. The id is empty.
pub const LANGUAGE: Slot<Language> =
    Slot::new("language", Lifetime::Exactly(LANGUAGE_CHOSEN), Number::OnePerId);

/// 1 hour: a cookie outlives its page or login by this. A browser that comes too late still sends the cookie,
/// so the error says "expired" and not "another browser".
const AFTERWARDS: Duration = Duration::from_hours(1);
/// Bytes: the longest sealed value that is read. Ours are shorter; browsers refuse cookies above 4096.
const MAX_SEALED: usize = 4096;

/// How long a browser keeps a cookie.
#[derive(Clone, Copy, Debug)]
enum Lifetime {
    Exactly(Duration),
    /// For this long, and [`AFTERWARDS`].
    And(Duration),
    /// As long as a login may take (`tokens.login`), and [`AFTERWARDS`].
    OfLogin,
}

/// How many cookies of one kind a browser holds.
#[derive(Clone, Copy, Debug)]
enum Number {
    /// One for each id, and there are few ids.
    OnePerId,
    AtMost(usize),
    /// `limits.pending_logins_per_browser`.
    PendingLogins,
}

/// One kind of cookie, with values of type `T`. Several cookies of a kind differ by an id in their names.
#[derive(Clone, Copy, Debug)]
pub struct Slot<T> {
    name: &'static str,
    lifetime: Lifetime,
    number: Number,
    value: PhantomData<fn() -> T>,
}

/// The value of a cookie.
pub trait CookieValue: Sized {
    /// Returns the value that a browser sent, if it is well-formed.
    fn parse(text: &str) -> Option<Self>;

    /// Returns the text of the cookie.
    fn text(&self) -> Cow<'_, str>;

    /// Returns what orders the cookies of a kind by age: an id that begins with its time. Usually it is the
    /// `id` in the name.
    fn age<'a>(&'a self, id: &'a str) -> &'a str {
        id
    }
}

impl<K: SecretKind> CookieValue for Secret<K> {
    fn parse(text: &str) -> Option<Self> {
        Self::parse(text)
    }

    fn text(&self) -> Cow<'_, str> {
        self.expose().into()
    }

    /// The names of remembered approvals are hashes, so their age is that of the secret.
    fn age<'a>(&'a self, _: &'a str) -> &'a str {
        self.id()
    }
}

/// A text that only we can read. What it contains is the matter of its reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed(pub String);

impl CookieValue for Sealed {
    fn parse(text: &str) -> Option<Self> {
        (text.len() <= MAX_SEALED).then(|| Self(text.to_owned()))
    }

    fn text(&self) -> Cow<'_, str> {
        self.0.as_str().into()
    }
}

impl CookieValue for Language {
    fn parse(text: &str) -> Option<Self> {
        Self::from_tag(text)
    }

    fn text(&self) -> Cow<'_, str> {
        self.tag().into()
    }
}

/// The mark of a browser for one consent page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsentMark {
    /// The random value of which the page contains the hash.
    pub mark: String,
    /// A tag of the client that asked, while the page counts towards the rate limit of that client.
    pub client: Option<String>,
}

impl CookieValue for ConsentMark {
    fn parse(text: &str) -> Option<Self> {
        let (mark, client) = match text.split_once('.') {
            Some((mark, client)) => (mark, Some(client.to_owned())),
            None => (text, None),
        };
        let fits = mark.len() == 43
            && mark.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        fits.then(|| Self { mark: mark.to_owned(), client })
    }

    fn text(&self) -> Cow<'_, str> {
        match &self.client {
            Some(client) => format!("{}.{client}", self.mark).into(),
            None => self.mark.as_str().into(),
        }
    }
}

/// What the configuration says about cookies.
#[derive(Clone, Copy, Debug)]
pub struct CookieLimits {
    /// `tokens.login`: how long a login may take.
    pub login: Duration,
    /// `limits.pending_logins_per_browser`.
    pub logins: usize,
}

/// The cookies that a browser sent to the pages at one URL, and what is needed to set others there.
#[derive(Debug)]
pub struct Cookies {
    /// What the names of all our cookies begin with.
    prefix: String,
    secure: bool,
    limits: CookieLimits,
    /// Name without the prefix, and value.
    sent: Vec<(String, String)>,
}

impl Cookies {
    /// Reads our cookies out of the `Cookie` headers of a request for a page at `url`.
    pub fn read(headers: GetAll<'_, HeaderValue>, url: &PublicUrl, limits: CookieLimits) -> Self {
        let secure = url.is_https();
        let host = if secure { "__Host-" } else { "" };
        let prefix = format!("{host}portcullis-{}", url.cookie_tag());
        let mut sent = Vec::new();
        for value in headers.into_iter().filter_map(|value| value.to_str().ok()) {
            // The names are compared as they were sent: a name that is decoded first could have been set by
            // another host of the domain, for which browsers refuse the plain prefix `__Host-`.
            for cookie in Cookie::split_parse(value).filter_map(Result::ok) {
                if let Some(name) = cookie.name().strip_prefix(&prefix) {
                    sent.push((name.to_owned(), cookie.value().to_owned()));
                }
            }
        }
        Self { prefix, secure, limits, sent }
    }

    #[expect(clippy::expect_used, reason = "names and values are ours and ASCII")]
    fn build(&self, name: &str, value: &str, max_age: Duration) -> SetCookies {
        let mut cookie = Cookie::new(format!("{}{name}", self.prefix), value);
        cookie.set_path("/");
        cookie.set_http_only(true);
        cookie.set_same_site(SameSite::Lax);
        if self.secure {
            cookie.set_secure(true);
        }
        let text = format!("{cookie}; Max-Age={}", max_age.as_secs());
        SetCookies(vec![HeaderValue::from_str(&text).expect("our cookies are legal headers")])
    }
}

impl<T> Slot<T> {
    const fn new(name: &'static str, lifetime: Lifetime, number: Number) -> Self {
        Self { name, lifetime, number, value: PhantomData }
    }
}

impl<T: CookieValue> Slot<T> {
    /// Returns the value of the cookie with this id. It must occur exactly once: if there are two, a
    /// neighbouring host may have planted one.
    pub fn get(&self, cookies: &Cookies, id: &str) -> Option<T> {
        let named = |name: &str| name.strip_prefix(self.name) == Some(id);
        let mut values = cookies.sent.iter().filter(|(name, _)| named(name));
        let (_, value) = values.next()?;
        if values.next().is_some() { None } else { T::parse(value) }
    }

    /// Returns the cookie with this id and value, to be set.
    pub fn set(&self, cookies: &Cookies, id: &str, value: &T) -> SetCookies {
        let max_age = match self.lifetime {
            Lifetime::Exactly(lifetime) => lifetime,
            Lifetime::And(lifetime) => lifetime + AFTERWARDS,
            Lifetime::OfLogin => cookies.limits.login + AFTERWARDS,
        };
        cookies.build(&format!("{}{id}", self.name), &value.text(), max_age)
    }

    /// Returns the cookie that removes the one with this id.
    pub fn clear(&self, cookies: &Cookies, id: &str) -> SetCookies {
        cookies.build(&format!("{}{id}", self.name), "", Duration::ZERO)
    }

    /// Returns the cookies that remove the oldest of this kind, so that there is room for the one with this
    /// id.
    pub fn evict(&self, cookies: &Cookies, id: &str) -> SetCookies {
        let most = match self.number {
            Number::OnePerId => return SetCookies::default(),
            Number::AtMost(most) => most,
            Number::PendingLogins => cookies.limits.logins,
        };
        let mut others = self.ids(cookies);
        others.retain(|other| *other != id);
        others.truncate(others.len().saturating_sub(most.saturating_sub(1)));
        let cleared = others.iter().map(|other| self.clear(cookies, other));
        cleared.fold(SetCookies::default(), SetCookies::and)
    }

    /// Returns the ids of all cookies of this kind, oldest first. One without a readable value is the oldest.
    pub fn ids(&self, cookies: &Cookies) -> Vec<String> {
        let named = cookies.sent.iter().filter_map(|(name, value)| {
            let id = name.strip_prefix(self.name).filter(|id| is_id(id))?;
            let value = T::parse(value);
            let age = value.as_ref().map_or("", |value| value.age(id)).to_owned();
            Some((age, id.to_owned()))
        });
        let mut ids: Vec<(String, String)> = named.collect();
        ids.sort_unstable();
        let mut known = HashSet::new();
        ids.retain(|(_, id)| known.insert(id.clone()));
        ids.into_iter().map(|(_, id)| id).collect()
    }
}

/// The `Set-Cookie` headers of a response.
#[derive(Clone, Debug, Default)]
pub struct SetCookies(Vec<HeaderValue>);

impl SetCookies {
    /// Returns both, these first.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    pub fn headers(&self) -> &[HeaderValue] {
        &self.0
    }
}

impl IntoResponseParts for SetCookies {
    type Error = Infallible;

    fn into_response_parts(self, mut parts: ResponseParts) -> Result<ResponseParts, Infallible> {
        parts.headers_mut().extend(self.0.into_iter().map(|set| (header::SET_COOKIE, set)));
        Ok(parts)
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit())
}
