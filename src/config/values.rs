//! Values with rules of their own.

use std::fmt;
use std::time::Duration;

use url::{Host, Url};
use zeroize::Zeroizing;

/// A secret of the configuration: never printed, wiped when dropped.
#[derive(Clone)]
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes a secret in.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text, for its one use.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText")
    }
}

/// Our public origin: `https://host[:port]`, or `http://` on loopback. No trailing slash: it is the
/// issuer, and everybody compares it byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

impl PublicUrl {
    /// Checks an origin; an error is the reason and the remedy.
    pub fn parse(text: &str) -> Result<Self, (String, String)> {
        let remedy = |to: &str| format!("write {to}");
        let url = Url::parse(text)
            .map_err(|_| ("is not a URL".to_owned(), remedy("https://your.host.name")))?;
        if text.ends_with('/') {
            let bare = text.trim_end_matches('/');
            return Err(("ends with a slash".to_owned(), remedy(bare)));
        }
        if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
            let reason = "has a path, query or fragment; only a bare origin can be the issuer";
            return Err((reason.to_owned(), remedy(&url.origin().ascii_serialization())));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(("holds a user name or password".to_owned(), "take it out".to_owned()));
        }
        if url.origin().ascii_serialization() != text {
            let canonical = url.origin().ascii_serialization();
            return Err(("is not in its canonical form".to_owned(), remedy(&canonical)));
        }
        match url.scheme() {
            "https" => Ok(Self(text.to_owned())),
            "http" if is_loopback(&url) => Ok(Self(text.to_owned())),
            _ => Err((
                "is not https".to_owned(),
                "use https:// (http:// is for loopback only); TLS ends at the proxy in front"
                    .to_owned(),
            )),
        }
    }

    /// The origin, byte for byte.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether browsers reach us over TLS.
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https:")
    }

    /// Whether only this machine reaches us.
    pub fn is_loopback(&self) -> bool {
        Url::parse(&self.0).is_ok_and(|url| is_loopback(&url))
    }

    /// The URL of a path of ours; `path` begins with `/`.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }
}

/// Whether a URL names this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// Reads `90s`, `15m`, `8h`, `14d`, or plain seconds.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let factor = match unit.trim() {
        "s" => 1,
        "m" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor).map(Duration::from_secs)
}
