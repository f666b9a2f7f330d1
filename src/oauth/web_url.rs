//! URLs that strangers name and we fetch: Client ID Metadata Documents §3, threat CI-01.
//!
//! Only canonical URLs are accepted, which every parser reads the same way. This module refuses what can be
//! refused without DNS; the guarded HTTP client checks the addresses that a name resolves to.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::error::ensure;

/// Longest URL that is fetched, in bytes.
const MAX_URL: usize = 512;
/// Top-level names outside the public DNS (RFC 6761, RFC 6762, RFC 7686, RFC 8375, RFC 9476).
const CLOSED_SUFFIXES: &[&str] = &["localhost", "local", "internal", "onion", "arpa", "alt"];

/// Why a URL is not fetched. Never contains the URL, because it may be hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebUrlRefused {
    /// Longer than `MAX_URL`.
    #[error("it is longer than 512 bytes")]
    TooLong,
    /// Not a URL, or one that parsers read differently.
    #[error("it is not a URL in its canonical form")]
    NotCanonical,
    /// A scheme other than `https`.
    #[error("it is not https")]
    NotHttps,
    /// A user name or password (`user@`).
    #[error("it holds a user name or password")]
    UserInfo,
    #[error("it holds a fragment")]
    Fragment,
    /// A query (`?`) in a client id.
    #[error("it holds a query")]
    Query,
    /// An explicit port.
    #[error("it names a port; only 443 is used, and left out")]
    Port,
    /// An IP address, a single label, a trailing dot, or a name outside the public DNS.
    #[error("its host is not a name of the public DNS")]
    Host,
    /// No path, or one with doubled slashes, or with encoded dots, separators or control characters.
    #[error("its path is missing, or holds dot segments or encoded characters")]
    Path,
}

/// An https URL with a public host name, on port 443.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WebUrl {
    text: String,
    host_end: usize,
}

const SCHEME: &str = "https://";

impl WebUrl {
    /// Checks `text`, which is kept byte for byte.
    pub fn parse(text: &str) -> Result<Self, WebUrlRefused> {
        ensure(text.len() <= MAX_URL, WebUrlRefused::TooLong)?;
        ensure(text.starts_with(SCHEME), WebUrlRefused::NotHttps)?;
        ensure(!text.contains('#'), WebUrlRefused::Fragment)?;
        let url = Url::parse(text).map_err(|_| WebUrlRefused::NotCanonical)?;
        let authority = text[SCHEME.len()..].split(['/', '?', '\\']).next().unwrap_or_default();
        ensure(!authority.contains('@'), WebUrlRefused::UserInfo)?;
        check_host(&url)?;
        ensure(!authority.contains(':'), WebUrlRefused::Port)?;
        ensure(url.as_str() == text, WebUrlRefused::NotCanonical)?;
        check_path(&url)?;
        Ok(Self { text: text.to_owned(), host_end: SCHEME.len() + authority.len() })
    }

    /// Returns the URL, byte for byte as it was given.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the host, in lower case.
    pub fn host(&self) -> &str {
        &self.text[SCHEME.len()..self.host_end]
    }

    /// Returns path and query, as in a request line.
    pub fn target(&self) -> &str {
        &self.text[self.host_end..]
    }
}

impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for WebUrl {
    type Error = WebUrlRefused;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<WebUrl> for String {
    fn from(url: WebUrl) -> Self {
        url.text
    }
}

fn check_host(url: &Url) -> Result<(), WebUrlRefused> {
    let Some(Host::Domain(host)) = url.host() else {
        return Err(WebUrlRefused::Host);
    };
    let labels: Vec<&str> = host.split('.').collect();
    let last = labels.last().copied().unwrap_or_default();
    let fits = labels.len() >= 2
        && host.len() <= 253
        && labels.iter().all(|label| !label.is_empty() && label.len() <= 63)
        && host.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_'))
        && !CLOSED_SUFFIXES.contains(&last);
    ensure(fits, WebUrlRefused::Host)
}

fn check_path(url: &Url) -> Result<(), WebUrlRefused> {
    let path = url.path().to_ascii_lowercase();
    let encoded = ["%2e", "%2f", "%5c", "%25", "%0", "%1", "%7f"];
    let fits = !encoded.iter().any(|bad| path.contains(bad)) && !path.contains("//");
    ensure(fits, WebUrlRefused::Path)
}

/// Returns whether the path is percent-encoded in the one normal form: no unreserved character is encoded,
/// and the hex digits are in upper case (RFC 3986 §6.2.2). Otherwise a server could serve one document under
/// two ids, while decisions apply to one id.
fn has_one_spelling(path: &str) -> bool {
    path.split('%').skip(1).all(|rest| {
        let digits = rest.get(..2).unwrap_or_default();
        let byte = u8::from_str_radix(digits, 16).unwrap_or_default();
        let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        !unreserved && !digits.bytes().any(|digit| digit.is_ascii_lowercase())
    })
}

/// A `client_id` that is the URL of a metadata document.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientIdUrl(WebUrl);

impl ClientIdUrl {
    /// Returns whether a client id is to be read as a URL. Only `https://` counts, never `http://`.
    pub fn is_meant_by(client_id: &str) -> bool {
        client_id.starts_with(SCHEME)
    }

    /// Checks a client id: a [`WebUrl`] with a path and without a query.
    pub fn parse(client_id: &str) -> Result<Self, WebUrlRefused> {
        ensure(!client_id.contains('?'), WebUrlRefused::Query)?;
        let url = WebUrl::parse(client_id)?;
        ensure(url.target() != "/", WebUrlRefused::Path)?;
        ensure(has_one_spelling(url.target()), WebUrlRefused::NotCanonical)?;
        Ok(Self(url))
    }

    pub fn url(&self) -> &WebUrl {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cimd_02_the_table_of_client_ids() {
        for good in [
            "https://claude.ai/oauth/mcp-oauth-client-metadata",
            "https://claude.ai/oauth/claude-code-client-metadata",
            "https://chatgpt.com/oauth/client.json",
            "https://vscode.dev/oauth/client-metadata.json",
            "https://xn--bcher-kva.example/client",
            "https://a.b/c%20d",
            "https://a.b/c%C3%A9",
        ] {
            let url =
                ClientIdUrl::parse(good).unwrap_or_else(|refused| panic!("{good}: {refused}"));
            assert_eq!(url.url().as_str(), good);
        }
        let long = format!("https://a.example/{}", "x".repeat(500));
        for (bad, refused) in [
            ("http://claude.ai/oauth/client", WebUrlRefused::NotHttps),
            ("HTTPS://claude.ai/client", WebUrlRefused::NotHttps),
            ("https:claude.ai/client", WebUrlRefused::NotHttps),
            ("https://claude.ai", WebUrlRefused::NotCanonical),
            ("https://claude.ai/", WebUrlRefused::Path),
            ("https://claude.ai/a?b", WebUrlRefused::Query),
            ("https://claude.ai/a#b", WebUrlRefused::Fragment),
            ("https://claude.ai@evil.example/a", WebUrlRefused::UserInfo),
            ("https://user:pw@evil.example/a", WebUrlRefused::UserInfo),
            ("https://claude.ai:443/a", WebUrlRefused::Port),
            ("https://claude.ai:8443/a", WebUrlRefused::Port),
            ("https://claude.ai:22/a", WebUrlRefused::Port),
            ("https://CLAUDE.ai/a", WebUrlRefused::NotCanonical),
            ("https://claude.ai/a/../b", WebUrlRefused::NotCanonical),
            ("https://claude.ai/./b", WebUrlRefused::NotCanonical),
            ("https://claude.ai/%2e%2e/b", WebUrlRefused::NotCanonical),
            ("https://claude.ai/a%2fb", WebUrlRefused::Path),
            ("https://claude.ai/a%5Cb", WebUrlRefused::Path),
            ("https://claude.ai//b", WebUrlRefused::Path),
            ("https://claude.ai/%00", WebUrlRefused::Path),
            ("https://claude.ai/%61", WebUrlRefused::NotCanonical),
            ("https://claude.ai/a%7Eb", WebUrlRefused::NotCanonical),
            ("https://claude.ai/%c3%a9", WebUrlRefused::NotCanonical),
            ("https://claude.ai/%C3%a9", WebUrlRefused::NotCanonical),
            ("https://claude.ai\\@evil.example/a", WebUrlRefused::NotCanonical),
            ("https://claude.ai/a b", WebUrlRefused::NotCanonical),
            ("https://claude.ai/é", WebUrlRefused::NotCanonical),
            ("https://127.0.0.1/a", WebUrlRefused::Host),
            ("https://169.254.169.254/latest/meta-data", WebUrlRefused::Host),
            ("https://2130706433/a", WebUrlRefused::Host),
            ("https://0x7f.1/a", WebUrlRefused::Host),
            ("https://0177.0.0.1/a", WebUrlRefused::Host),
            ("https://[::1]/a", WebUrlRefused::Host),
            ("https://[::ffff:10.0.0.1]/a", WebUrlRefused::Host),
            ("https://localhost/a", WebUrlRefused::Host),
            ("https://app.localhost/a", WebUrlRefused::Host),
            ("https://metadata.google.internal/a", WebUrlRefused::Host),
            ("https://printer.local/a", WebUrlRefused::Host),
            ("https://intranet/a", WebUrlRefused::Host),
            ("https://claude.ai./a", WebUrlRefused::Host),
            ("https://x..y/a", WebUrlRefused::Host),
            (&long, WebUrlRefused::TooLong),
        ] {
            assert_eq!(ClientIdUrl::parse(bad).err(), Some(refused), "{bad}");
        }
    }

    #[test]
    fn a_url_is_taken_apart_without_being_written_anew() {
        let url = WebUrl::parse("https://keys.example/jwks?set=1").unwrap();
        assert_eq!((url.host(), url.target()), ("keys.example", "/jwks?set=1"));
    }
}
