//! `public_url`: the public URL of the service, with or without a path.

use std::borrow::Cow;
use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use url::Url;

use super::paths::{HEALTH, OPENID_CONFIGURATION, READY, RESOURCE_METADATA, SERVER_METADATA};
use super::values::is_loopback;

/// The public URL: `https://host[:port]` with an optional path, or the same with `http://` on loopback. It
/// has no trailing slash, because it is the issuer, and clients compare issuers byte for byte.
///
/// Only this type knows the path. Routes, rate limits and metrics see paths without it: [`Self::within`]
/// removes it from a request before other code sees the request, and [`Self::join`] and [`Self::base_path`]
/// add it to every URL, link and form that leaves the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl {
    text: String,
    /// Length of scheme, host and port, in bytes.
    origin: usize,
    /// Prefix that distinguishes our cookies from those of another installation on the same host; empty
    /// without a path.
    cookie_tag: String,
}

/// Hint for the path of `public_url`.
const PLAIN_PATH: &str =
    "write it like https://example.com/auth: letters, digits, . _ ~ - between single slashes";

impl PublicUrl {
    /// Parses and checks a URL. An error consists of reason and hint.
    pub fn parse(text: &str) -> Result<Self, (String, String)> {
        let hint = |to: &str| format!("write {to}");
        let url = Url::parse(text)
            .map_err(|_| ("is not a URL".to_owned(), hint("https://your.host.name")))?;
        let has_user = !url.username().is_empty() || url.password().is_some();
        if url.scheme() == "http" && !is_loopback(&url) && !has_user {
            let bare = text.split(['?', '#']).next().unwrap_or_default().trim_end_matches('/');
            let rest = text.strip_prefix(bare).unwrap_or_default();
            let more =
                if rest.is_empty() { String::new() } else { format!(", and ends with {rest:?}") };
            let secure = bare.get("http".len()..).unwrap_or_default();
            let hint = format!(
                "write https{secure} (http:// is for loopback only); TLS ends at the proxy in front"
            );
            return Err((format!("is not https{more}"), hint));
        }
        if text.ends_with('/') {
            let bare = text.trim_end_matches('/');
            return Err(("ends with a slash".to_owned(), hint(bare)));
        }
        if text.contains(['?', '#']) {
            let reason = "has a query or fragment; an issuer has neither";
            let bare = text.split(['?', '#']).next().unwrap_or_default();
            return Err((reason.to_owned(), hint(bare.trim_end_matches('/'))));
        }
        if has_user {
            return Err(("holds a user name or password".to_owned(), "take it out".to_owned()));
        }
        let origin = url.origin().ascii_serialization();
        let Some(path) = text.strip_prefix(&origin).filter(|path| begins_a_path(path)) else {
            let canonical = url.as_str().trim_end_matches('/');
            return Err(("is not in its canonical form".to_owned(), hint(canonical)));
        };
        check_base_path(path).map_err(|reason| (reason, PLAIN_PATH.to_owned()))?;
        if !(url.scheme() == "https" || url.scheme() == "http" && is_loopback(&url)) {
            return Err((
                "is not https".to_owned(),
                "use https:// (http:// is for loopback only); TLS ends at the proxy in front"
                    .to_owned(),
            ));
        }
        let cookie_tag = cookie_tag(path);
        Ok(Self { text: text.to_owned(), origin: origin.len(), cookie_tag })
    }

    /// Parses and checks a URL that must not have a path.
    pub fn parse_origin(text: &str) -> Result<Self, (String, String)> {
        let url = Self::parse(text)?;
        if url.base_path().is_empty() {
            return Ok(url);
        }
        let reason = "has a path; these pages have an origin of their own".to_owned();
        Err((reason, format!("write {}", url.origin())))
    }

    /// Returns the URL, byte for byte as configured.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns scheme, host and port, as browsers send them in `Origin`.
    pub fn origin(&self) -> &str {
        &self.text[..self.origin]
    }

    /// Returns the prefix of all our paths: empty, or such as `/auth`.
    pub fn base_path(&self) -> &str {
        &self.text[self.origin..]
    }

    /// Returns the prefix that distinguishes our cookies from those of another installation on this host;
    /// empty without a path.
    pub fn cookie_tag(&self) -> &str {
        &self.cookie_tag
    }

    /// Returns whether browsers reach us over TLS.
    pub fn is_https(&self) -> bool {
        self.text.starts_with("https:")
    }

    /// Returns whether the host is a loopback address.
    pub fn is_loopback(&self) -> bool {
        Url::parse(&self.text).is_ok_and(|url| is_loopback(&url))
    }

    /// Returns the URL of one of our paths; `path` starts with `/`.
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }

    /// Returns the URL of a metadata document about `path`. The well-known part is between host and path (RFC
    /// 8414 §3.1, RFC 9728 §3.1).
    pub fn well_known(&self, document: &str, path: &str) -> String {
        format!("{}/.well-known/{document}{}{path}", self.origin(), self.base_path())
    }

    /// Returns the path of a request without our base path, as the routes know it; `None` if it is not below
    /// our base path.
    pub fn within<'p>(&self, path: &'p str) -> Option<Cow<'p, str>> {
        let base = self.base_path();
        if base.is_empty() {
            return Some(Cow::Borrowed(path));
        }
        if let Some(rest) = below(base, path) {
            return Some(Cow::Borrowed(if rest.is_empty() { "/" } else { rest }));
        }
        let document = DOCUMENTS.into_iter().find(|document| path.starts_with(document));
        if let Some(document) = document {
            let about = &path[document.len()..];
            // Clients of MCP 2025-03-26 request metadata at the root of the host, regardless of the path.
            if about.is_empty() {
                return Some(Cow::Borrowed(document));
            }
            return below(base, about).map(|rest| Cow::Owned(format!("{document}{rest}")));
        }
        // Orchestrators probe the process itself and may not know the path.
        PROBES.contains(&path).then_some(Cow::Borrowed(path))
    }
}

/// Well-known documents whose URL starts at the root of the host.
const DOCUMENTS: [&str; 3] = [SERVER_METADATA, OPENID_CONFIGURATION, RESOURCE_METADATA];
/// Paths that are also served at the root of the host.
const PROBES: [&str; 2] = [HEALTH, READY];

/// Returns the rest of `path` after `base` if `path` is at or below it.
fn below<'p>(base: &str, path: &'p str) -> Option<&'p str> {
    path.strip_prefix(base).filter(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn begins_a_path(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

fn check_base_path(path: &str) -> Result<(), String> {
    for segment in path.split('/').skip(1) {
        let wrong = match segment {
            "" => "has an empty path segment",
            "." | ".." => "has a dot segment in its path",
            _ if segment.contains('%') => "has an encoded character in its path",
            _ if segment.eq_ignore_ascii_case(".well-known") => {
                "has .well-known in its path, where metadata documents of the whole host stand"
            }
            _ if !is_plain_segment(segment) => "has a path that proxies may read differently",
            _ => continue,
        };
        return Err(wrong.to_owned());
    }
    Ok(())
}

/// Returns whether all proxies and clients write and read this path segment in the same way.
pub(super) fn is_plain_segment(segment: &str) -> bool {
    !segment.is_empty()
        && !matches!(segment, "." | "..")
        && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._~-".contains(&b))
}

fn cookie_tag(path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    let hash = digest(&SHA256, path.as_bytes());
    hash.as_ref().iter().take(4).fold(String::new(), |mut tag, byte| {
        let _ = write!(tag, "{byte:02x}");
        tag
    }) + "-"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> PublicUrl {
        PublicUrl::parse(text).unwrap_or_else(|why| panic!("{text}: {why:?}"))
    }

    #[test]
    fn a_path_is_taken_as_it_is_written_and_odd_ones_are_refused_with_the_reason() {
        for (text, base) in [
            ("https://example.com", ""),
            ("https://example.com/auth", "/auth"),
            ("https://example.com:8443/auth", "/auth"),
            ("https://example.com/one/two", "/one/two"),
            ("https://example.com/Team.A/x_y~z-1", "/Team.A/x_y~z-1"),
            ("http://127.0.0.1:8000/auth", "/auth"),
            ("http://[::1]:8000/auth", "/auth"),
        ] {
            assert_eq!((url(text).base_path(), url(text).as_str()), (base, text));
        }
        for (text, reason) in [
            ("https://example.com/", "ends with a slash"),
            ("https://example.com/auth/", "ends with a slash"),
            ("https://example.com/auth//", "ends with a slash"),
            ("https://example.com/one//two", "has an empty path segment"),
            ("https://example.com//auth", "has an empty path segment"),
            ("https://example.com/one/../two", "has a dot segment in its path"),
            ("https://example.com/./auth", "has a dot segment in its path"),
            ("https://example.com/%61uth", "has an encoded character in its path"),
            ("https://example.com/one%2Ftwo", "has an encoded character in its path"),
            ("https://example.com/%2e%2e/auth", "has an encoded character in its path"),
            ("https://example.com/auth?tenant=1", "has a query or fragment; an issuer has neither"),
            ("https://example.com/auth?", "has a query or fragment; an issuer has neither"),
            ("https://example.com/auth#", "has a query or fragment; an issuer has neither"),
            ("https://example.com/auth;v=1", "has a path that proxies may read differently"),
            ("https://example.com/a b", "has a path that proxies may read differently"),
            ("https://example.com/\u{fc}", "has a path that proxies may read differently"),
            ("https://example.com\\auth", "is not in its canonical form"),
            ("https://EXAMPLE.com/auth", "is not in its canonical form"),
            ("https://example.com:443/auth", "is not in its canonical form"),
            ("https://user@example.com/auth", "holds a user name or password"),
            ("http://example.com/auth", "is not https"),
            ("/auth", "is not a URL"),
        ] {
            let (why, hint) = PublicUrl::parse(text).expect_err(text);
            assert_eq!(why, reason, "{text}");
            assert!(!hint.is_empty());
        }
        let (why, _) = PublicUrl::parse("https://example.com/a/.Well-Known").unwrap_err();
        assert!(why.starts_with("has .well-known in its path"), "{why}");
        assert!(PublicUrl::parse_origin("https://admin.example.com/pages").is_err());
    }

    #[test]
    fn the_path_is_taken_off_what_lies_below_it_and_off_nothing_else() {
        let below = url("https://example.com/one/two");
        for (path, ours) in [
            ("/one/two", Some("/")),
            ("/one/two/", Some("/")),
            ("/one/two/token", Some("/token")),
            ("/one/two//token", Some("//token")),
            ("/one/two/one/two", Some("/one/two")),
            ("/one/two/.well-known/jwks.json", Some("/.well-known/jwks.json")),
            (
                "/.well-known/oauth-authorization-server/one/two",
                Some("/.well-known/oauth-authorization-server"),
            ),
            (
                "/.well-known/oauth-protected-resource/one/two/mcp",
                Some("/.well-known/oauth-protected-resource/mcp"),
            ),
            ("/.well-known/openid-configuration", Some("/.well-known/openid-configuration")),
            ("/health", Some("/health")),
            ("/ready", Some("/ready")),
            ("/", None),
            ("/token", None),
            ("/one", None),
            ("/one/twofold", None),
            ("/one/TWO/token", None),
            ("/one/%74wo/token", None),
            ("/one//two/token", None),
            ("/.well-known/jwks.json", None),
            ("/.well-known/oauth-protected-resource/mcp", None),
            ("/.well-known/oauth-protected-resource/one/twofold", None),
            ("/.well-known/oauth-protected-resourcex/one/two", None),
            ("/health/", None),
        ] {
            assert_eq!(below.within(path).as_deref(), ours, "{path}");
        }
        let root = url("https://example.com");
        assert_eq!(root.within("/one/two/token").as_deref(), Some("/one/two/token"));
    }

    #[test]
    fn metadata_of_a_path_stands_between_host_and_path() {
        let below = url("https://example.com:8443/auth");
        assert_eq!(
            below.well_known("oauth-protected-resource", "/mcp"),
            "https://example.com:8443/.well-known/oauth-protected-resource/auth/mcp"
        );
        assert_eq!(
            url("https://example.com").well_known("oauth-protected-resource", "/mcp"),
            "https://example.com/.well-known/oauth-protected-resource/mcp"
        );
    }

    #[test]
    fn each_path_has_a_cookie_tag_of_its_own() {
        let tags = ["", "/a", "/b", "/a/b", "/A"]
            .map(|path| url(&format!("https://example.com{path}")).cookie_tag().to_owned());
        let distinct: std::collections::BTreeSet<&String> = tags.iter().collect();
        assert_eq!((tags[0].as_str(), distinct.len()), ("", tags.len()));
    }
}
