//! The website to which everything goes that a client receives, as administrators name it.

use std::fmt;

use super::ClientMetadata;
use crate::oauth::error::ensure;
use crate::oauth::redirect_uri::{Destination, destination};

/// Longest name of a host (RFC 1035 §2.3.4).
const MAX_HOST: usize = 253;

/// A website: its host, with the port unless it is 443.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Website(String);

/// Why a text does not name a website.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebsiteRefused {
    /// A URL, a path, a wildcard, or characters that no host has.
    #[error("write the host alone, such as chatgpt.com or example.com:8443")]
    NotAHost,
    /// One label, an IP address, or a name of this machine.
    #[error("write the whole name of a website, such as chatgpt.com")]
    NotAWebsite,
    /// Letters that may look like others, in any spelling.
    #[error(
        "names with other letters than a to z may look like another name; approve their clients one by one"
    )]
    OtherLetters,
}

impl Website {
    /// Parses the name of a website. It is compared as a whole: it stands for no other host.
    pub fn parse(text: &str) -> Result<Self, WebsiteRefused> {
        let text = text.trim().to_ascii_lowercase();
        ensure(text.is_ascii(), WebsiteRefused::OtherLetters)?;
        ensure(!text.contains('/'), WebsiteRefused::NotAHost)?;
        let (host, port) = match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text.as_str(), None),
        };
        let is_label = |label: &str| {
            let plain = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_');
            !label.is_empty() && label.bytes().all(plain)
        };
        let labels: Vec<&str> = host.split('.').collect();
        ensure(
            host.len() <= MAX_HOST && labels.iter().all(|label| is_label(label)),
            WebsiteRefused::NotAHost,
        )?;
        let top = labels.last().copied().unwrap_or_default();
        let is_number = top.bytes().all(|b| b.is_ascii_digit());
        let is_name = labels.len() > 1 && !is_number && top != "localhost";
        ensure(is_name, WebsiteRefused::NotAWebsite)?;
        let punycode = labels.iter().any(|label| label.starts_with("xn--"));
        ensure(!punycode, WebsiteRefused::OtherLetters)?;
        match port {
            None | Some("443") => Ok(Self(host.to_owned())),
            Some(digits) => {
                let number = digits.parse::<u16>().unwrap_or(0);
                let is_port = number != 0 && number.to_string() == digits;
                ensure(is_port, WebsiteRefused::NotAHost)?;
                Ok(Self(format!("{host}:{digits}")))
            }
        }
    }

    /// Returns the website to which all redirect URIs of a client lead. `None` if one of them leads to
    /// another website, to this device, or to a name that may look like another.
    pub fn of(metadata: &ClientMetadata) -> Option<Self> {
        let mut hosts = metadata.redirect_uris.iter().map(|uri| match destination(uri.as_str()) {
            Destination::Https { host, .. } => Some(host),
            Destination::Loopback { .. } | Destination::App { .. } => None,
        });
        let first = hosts.next()??;
        hosts.all(|host| host.as_ref() == Some(&first)).then(|| Self::parse(&first).ok())?
    }

    /// Returns the host, with the port unless it is 443.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Website {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::client::RegistrationLimits;
    use crate::oauth::redirect_uri::RedirectPolicy;

    fn website_of(redirect_uris: &[&str]) -> Option<String> {
        let body = serde_json::json!({ "redirect_uris": redirect_uris });
        let policy = RedirectPolicy { private_schemes: vec!["cursor".to_owned()], allowed: None };
        let limits = RegistrationLimits { redirect_uris: 10 };
        let metadata = ClientMetadata::parse(body.to_string().as_bytes(), &policy, &limits);
        Website::of(&metadata.unwrap()).map(|website| website.to_string())
    }

    #[test]
    fn a_website_is_named_by_its_whole_host() {
        let named = |text| Website::parse(text).map(|website| website.to_string());
        assert_eq!(named(" ChatGPT.com "), Ok("chatgpt.com".to_owned()));
        assert_eq!(named("example.com:8443"), Ok("example.com:8443".to_owned()));
        assert_eq!(named("example.com:443"), Ok("example.com".to_owned()));
        for text in [
            "",
            "https://chatgpt.com",
            "chatgpt.com/",
            "*.chatgpt.com",
            "chatgpt.com.",
            ".chatgpt.com",
            "chat gpt.com",
            "chatgpt.com:",
            "chatgpt.com:0",
            "chatgpt.com:0443",
            "chatgpt.com:70000",
            "chatgpt.com:8443:1",
            "a@chatgpt.com",
            "[::1]",
        ] {
            assert_eq!(named(text), Err(WebsiteRefused::NotAHost), "{text}");
        }
        for text in ["localhost", "localhost:8443", "app.localhost", "com", "127.0.0.1", "10.1"] {
            assert_eq!(named(text), Err(WebsiteRefused::NotAWebsite), "{text}");
        }
        for text in ["xn--hatgpt-hrf.com", "chatgpt.xn--p1ai", "\u{441}hatgpt.com", "例え.jp"] {
            assert_eq!(named(text), Err(WebsiteRefused::OtherLetters), "{text}");
        }
    }

    #[test]
    fn a_client_has_a_website_only_if_all_its_redirect_uris_lead_there() {
        let one = "https://chatgpt.com/connector/oauth/abc";
        let ours = Some("chatgpt.com".to_owned());
        assert_eq!(website_of(&[one]), ours);
        assert_eq!(website_of(&[one, "https://chatgpt.com/other?x=1"]), ours);
        for other in [
            "https://chatgpt.com.evil.example/cb",
            "https://evilchatgpt.com/cb",
            "https://www.chatgpt.com/cb",
            "https://chatgpt.com:8443/cb",
            "http://127.0.0.1/cb",
            "http://localhost:1234/cb",
            "cursor://anysphere.cursor-mcp/oauth/callback",
            "com.chatgpt://cb",
        ] {
            assert_ne!(website_of(&[other]), ours, "{other}");
            assert_eq!(website_of(&[one, other]), None, "{other}");
            assert_eq!(website_of(&[other, one]), None, "{other}");
        }
        assert_eq!(website_of(&["https://xn--hatgpt-hrf.com/cb"]), None, "punycode");
    }
}
