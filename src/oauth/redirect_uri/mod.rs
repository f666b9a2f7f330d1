//! Redirect URIs: which may be registered, which match, and where a response may be sent. OAuth 2.1 §2.3.1,
//! RFC 8252 §7 and §8, threats RU-01 to RU-11.
//!
//! Only canonical texts are registered, which every URL parser reads the same way. From then on bytes are
//! compared; no URI is ever parsed and serialized again.

mod app_callbacks;
mod policy;
mod return_address;
#[cfg(test)]
mod vectors;

use std::fmt;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

pub use self::policy::RedirectPolicy;
pub use self::return_address::{RegisteredRedirectUri, ReturnRefused, leads_to};

/// Longest redirect URI, in bytes.
pub const MAX_REDIRECT_URI: usize = 1024;

/// Schemes that browsers or the operating system act on. Refused even if the policy lists them.
const DANGEROUS_SCHEMES: &[&str] = &[
    "about",
    "blob",
    "chrome",
    "chrome-extension",
    "content",
    "data",
    "file",
    "filesystem",
    "ftp",
    "ftps",
    "gopher",
    "intent",
    "jar",
    "javascript",
    "mailto",
    "ms-appinstaller",
    "ms-msdt",
    "res",
    "resource",
    "search-ms",
    "sms",
    "tel",
    "vbscript",
    "view-source",
    "ws",
    "wss",
];

/// Parameters of our own response. A registered query with one of them would make it occur twice (RU-07).
const RESPONSE_PARAMETERS: &[&str] = &[
    "code",
    "state",
    "iss",
    "error",
    "error_description",
    "error_uri",
    "response",
    "id_token",
    "access_token",
    "token_type",
    "expires_in",
    "scope",
    "session_state",
];

/// Why a redirect URI cannot be registered or used. Any part of the URI in the text has passed all other
/// rules: printable ASCII without quotes, in canonical form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RedirectUriRefused {
    /// Longer than [`MAX_REDIRECT_URI`].
    #[error("a redirect URI is longer than 1024 bytes")]
    TooLong,
    /// Characters that RFC 3986 §2 forbids and parsers treat differently.
    #[error("a redirect URI holds characters that must be percent-encoded in a URI")]
    Characters,
    /// Not an absolute URL.
    #[error("a redirect URI is not an absolute URL")]
    NotAUrl,
    /// A parser would serialize it differently.
    #[error("a redirect URI is not in its canonical form")]
    NotCanonical,
    /// A user name or password (`user@`).
    #[error("a redirect URI must not hold a user name or password")]
    UserInfo,
    #[error("a redirect URI must not hold a fragment")]
    Fragment,
    /// Dot segments, doubled slashes, or encoded separators and control characters (`..`, `%2e`, `%2f`,
    /// `%5c`).
    #[error("the path of a redirect URI holds dot segments or encoded separators")]
    Path,
    /// An IP address, a trailing dot, or no host.
    #[error("the host of a redirect URI must be a plain DNS name")]
    Host,
    /// Port 0.
    #[error("a redirect URI holds port 0")]
    Port,
    /// `http` to a host other than loopback.
    #[error("http is allowed for 127.0.0.1, [::1] and localhost only")]
    PlainHttp,
    /// A scheme that is never allowed.
    #[error("a redirect URI has a scheme that is never allowed")]
    Scheme,
    /// A private-use scheme that the policy does not list.
    #[error(
        "the scheme `{0}` is not allowed here; an administrator can add it to `redirect_schemes`"
    )]
    SchemeNotListed(String),
    /// The scheme of a known app, but not one of its callbacks.
    #[error(
        "`{0}` is not a known callback of this app; an administrator can add the whole address to `redirect_schemes`"
    )]
    UnknownCallback(String),
    /// An app's address with a query, because such links make apps act.
    #[error(
        "`{0}` leads to an app and holds a query; an administrator can add the whole address to `redirect_schemes`"
    )]
    AppQuery(String),
    /// The query contains a parameter of our response.
    #[error("the query of a redirect URI holds a parameter that the answer itself uses")]
    ResponseParameter,
    /// Not on the operator's list.
    #[error(
        "`{0}` is not on this server's list of redirect URIs; an administrator can add it to `allowed_redirect_uris`"
    )]
    NotListed(String),
}

/// A redirect URI that a client registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RedirectUri(String);

impl RedirectUri {
    /// Checks `text` against all rules. Every redirect URI from outside passes through here.
    pub fn register(text: &str, policy: &RedirectPolicy) -> Result<Self, RedirectUriRefused> {
        if text.len() > MAX_REDIRECT_URI {
            return Err(RedirectUriRefused::TooLong);
        }
        if !is_uri_text(text) {
            return Err(RedirectUriRefused::Characters);
        }
        let url = Url::parse(text).map_err(|_| RedirectUriRefused::NotAUrl)?;
        if text.contains('#') {
            return Err(RedirectUriRefused::Fragment);
        }
        if DANGEROUS_SCHEMES.contains(&url.scheme()) || url.scheme().starts_with("ms-") {
            return Err(RedirectUriRefused::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() || authority(text).contains('@') {
            return Err(RedirectUriRefused::UserInfo);
        }
        check_path(text)?;
        if url.as_str() != text && url.as_str() != format!("{text}/") {
            return Err(RedirectUriRefused::NotCanonical);
        }
        match url.scheme() {
            "https" => check_host(&url)?,
            "http" => check_loopback(&url)?,
            _ => policy.check_private_scheme(&url, text)?,
        }
        if url.port() == Some(0) {
            return Err(RedirectUriRefused::Port);
        }
        check_query(&url)?;
        policy.check_list(text)?;
        Ok(Self(text.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns whether an authorization request may use `presented`: byte for byte equal, except that the
    /// port may differ if both are `http` on the same loopback host (RFC 8252 §7.3).
    pub fn admits(&self, presented: &str) -> bool {
        if self.0 == presented {
            return true;
        }
        let (Some(ours), Some(theirs)) = (Loopback::of(&self.0), Loopback::of(presented)) else {
            return false;
        };
        ours.host == theirs.host && ours.rest == theirs.rest
    }

    /// Returns the URI without the port of a loopback URI, because a program listens on another port each
    /// time it runs (RFC 8252 §7.3).
    #[must_use]
    pub fn without_loopback_port(&self) -> Self {
        match Loopback::of(&self.0) {
            Some(Loopback { host, rest, .. }) => Self(format!("http://{host}{rest}")),
            None => self.clone(),
        }
    }

    /// Returns whether the response stays on the person's device.
    pub fn is_native(&self) -> bool {
        !self.0.starts_with("https:")
    }
}

/// Returns whether the text has only characters of RFC 3986 §2, and two hex digits after every `%`.
fn is_uri_text(text: &str) -> bool {
    let legal = |b: u8| matches!(b, 0x21..=0x7e) && !b"\"<>\\^`{|}".contains(&b);
    let encoded = |rest: &str| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
    text.bytes().all(legal) && text.split('%').skip(1).all(encoded)
}

fn authority(text: &str) -> &str {
    let after = text.split_once("://").map_or("", |(_, after)| after);
    after.split(['/', '?']).next().unwrap_or_default()
}

fn check_path(text: &str) -> Result<(), RedirectUriRefused> {
    let path = text.split('?').next().unwrap_or_default().to_ascii_lowercase();
    let encoded = ["%2e", "%2f", "%5c", "%25"].iter().any(|bad| path.contains(bad))
        || path.as_bytes().windows(3).any(|triple| {
            // %00 to %1f, and %7f
            triple[0] == b'%' && (matches!(triple[1], b'0' | b'1') || &triple[1..] == b"7f")
        });
    let after_authority = path.split_once("://").map_or(path.as_str(), |(_, after)| after);
    let dots = after_authority
        .split('/')
        .skip(1)
        .any(|segment| matches!(segment.split(';').next(), Some("." | "..")));
    let doubled = after_authority.contains("//");
    if encoded || dots || doubled { Err(RedirectUriRefused::Path) } else { Ok(()) }
}

fn check_host(url: &Url) -> Result<(), RedirectUriRefused> {
    match url.host() {
        Some(Host::Domain(host)) if is_plain_name(host) => Ok(()),
        _ if is_loopback_host(url) => Ok(()),
        _ => Err(RedirectUriRefused::Host),
    }
}

/// Returns whether each label consists of letters, digits, `-` and `_`. URL parsers accept more than a host
/// name may contain.
fn is_plain_name(host: &str) -> bool {
    let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
    host.split('.').all(|label| !label.is_empty() && label.bytes().all(plain))
}

fn check_loopback(url: &Url) -> Result<(), RedirectUriRefused> {
    if is_loopback_host(url) { Ok(()) } else { Err(RedirectUriRefused::PlainHttp) }
}

fn is_loopback_host(url: &Url) -> bool {
    matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"))
}

fn check_query(url: &Url) -> Result<(), RedirectUriRefused> {
    let clash = url.query().unwrap_or_default().split(['&', ';']).any(|pair| {
        let name = pair.split('=').next().unwrap_or_default().replace('+', " ");
        let name = percent_decode_str(&name).decode_utf8_lossy().trim().to_ascii_lowercase();
        RESPONSE_PARAMETERS.contains(&name.as_str())
    });
    if clash { Err(RedirectUriRefused::ResponseParameter) } else { Ok(()) }
}

/// `http://<loopback host>[:port]<rest>`, split by hand because a URL parser would normalize the text.
struct Loopback<'a> {
    host: &'a str,
    port: Option<&'a str>,
    rest: &'a str,
}

impl<'a> Loopback<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let after = text.strip_prefix("http://")?;
        let host =
            ["127.0.0.1", "[::1]", "localhost"].into_iter().find(|host| after.starts_with(host))?;
        let (host, tail) = after.split_at(host.len());
        let split = tail.find(['/', '?']).unwrap_or(tail.len());
        let (port, rest) = tail.split_at(split);
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => None,
            None => return None, // localhost.evil, localhost@evil
            Some(digits) => Some(digits),
        };
        let port_fits = port.is_none_or(|digits| {
            !digits.starts_with('0')
                && digits.bytes().all(|b| b.is_ascii_digit())
                && digits.parse::<u16>().is_ok()
        });
        let rest_fits =
            rest.bytes().all(|b| matches!(b, 0x21..=0x7e) && !matches!(b, b'#' | b'\\'));
        (port_fits && rest_fits).then_some(Self { host, port, rest })
    }
}

/// Where a response goes, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    Https {
        /// The host, with the port unless it is 443.
        host: String,
        /// Whether the name is in punycode, so that it may look like another.
        punycode: bool,
    },
    /// A program on this computer.
    Loopback {
        /// `localhost:53124`
        host_and_port: String,
    },
    /// An app that handles a private scheme.
    App {
        /// The scheme without the colon.
        scheme: String,
    },
}

/// Formats the host, or the scheme with a colon: short enough for a label.
impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Https { host, .. } => f.write_str(host),
            Self::Loopback { host_and_port } => f.write_str(host_and_port),
            Self::App { scheme } => write!(f, "{scheme}:"),
        }
    }
}

/// Returns where a registered or admitted redirect URI leads.
pub fn destination(uri: &str) -> Destination {
    if let Some(loopback) = Loopback::of(uri) {
        let port = loopback.port.map(|port| format!(":{port}")).unwrap_or_default();
        return Destination::Loopback { host_and_port: format!("{}{port}", loopback.host) };
    }
    let (scheme, _) = uri.split_once(':').unwrap_or((uri, ""));
    if scheme != "https" {
        return Destination::App { scheme: scheme.to_owned() };
    }
    let host = authority(uri).to_owned();
    let punycode = host.split(['.', ':']).any(|label| label.starts_with("xn--"));
    Destination::Https { host, punycode }
}
