//! A person's token of a service, as the gateway and the token endpoint hand it to an MCP server.

use std::collections::BTreeSet;
use std::fmt;

use axum::http::HeaderValue;
use zeroize::Zeroizing;

use crate::clock::Timestamp;
use crate::storage::StorageError;
use crate::telemetry::metrics::ServiceTokenOutcome;

/// An access token of a service, ready to be sent. `Debug` never prints the token.
#[derive(Clone)]
pub struct ServiceToken {
    /// The bare token, marked as sensitive.
    pub header_value: HeaderValue,
    /// `Bearer` and the token, marked as sensitive.
    pub bearer: HeaderValue,
    /// When the token ends; `None`: the service names no end.
    pub expires_at: Option<Timestamp>,
    /// The scopes that the person granted, in the configuration's spelling.
    pub scopes: BTreeSet<String>,
    /// Version of the stored tokens; grows with every change of them.
    pub version: i64,
    text: Zeroizing<String>,
}

impl ServiceToken {
    /// Makes a token that can be sent in a header. `None` if it is empty or has other characters than visible
    /// ASCII: such a token could end a header early.
    pub fn new(
        text: &str,
        expires_at: Option<Timestamp>,
        scopes: BTreeSet<String>,
        version: i64,
    ) -> Option<Self> {
        if !is_visible(text) {
            return None;
        }
        let sensitive = |text: &str| {
            let mut value = HeaderValue::from_str(text).ok()?;
            value.set_sensitive(true);
            Some(value)
        };
        Some(Self {
            header_value: sensitive(text)?,
            bearer: sensitive(&format!("Bearer {text}"))?,
            expires_at,
            scopes,
            version,
            text: Zeroizing::new(text.to_owned()),
        })
    }

    /// The token itself, for the answer of a token exchange.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for ServiceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceToken").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

/// Whether a token consists of visible ASCII only, and is not empty.
pub fn is_visible(token: &str) -> bool {
    !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Why there is no token of a service for a person.
#[derive(Debug, thiserror::Error)]
pub enum TokenMissing {
    /// The person has not connected this service.
    #[error("the service is not connected")]
    NotConnected,
    /// The person connected the service without these scopes.
    #[error("the connection lacks scopes: {}", .0.join(" "))]
    LacksScopes(Vec<String>),
    /// The service refuses the connection for good: the person has to connect again. For the sign-in
    /// provider's own token: the person has to sign in again.
    #[error("the service refuses the connection")]
    Broken,
    /// The service gives no usable answer now. Try again later: 503 with `Retry-After`.
    #[error("the service cannot be asked now")]
    Unavailable,
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl TokenMissing {
    /// Returns what the metrics count.
    pub fn outcome(&self) -> ServiceTokenOutcome {
        match self {
            Self::NotConnected => ServiceTokenOutcome::NotConnected,
            Self::LacksScopes(_) => ServiceTokenOutcome::LacksScopes,
            Self::Broken => ServiceTokenOutcome::Broken,
            Self::Unavailable | Self::Storage(_) => ServiceTokenOutcome::Unavailable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_visible_ascii_goes_into_a_header() {
        for (token, fits) in [
            ("gho_16C7e42F292c6912E7710c838347Ae178B4a", true),
            ("a.b-c~d+e/f==", true),
            ("", false),
            ("a b", false),
            ("a\r\nX-Admin: yes", false),
            ("a\tb", false),
            ("a\u{7f}", false),
            ("t\u{f6}ken", false),
            ("a\0", false),
        ] {
            let made = ServiceToken::new(token, None, BTreeSet::new(), 1);
            assert_eq!(made.is_some(), fits, "{token:?}");
        }
    }

    #[test]
    fn a_token_is_not_printed() {
        let token = ServiceToken::new("secret-canary", None, BTreeSet::new(), 1).unwrap();
        let shown = format!("{token:?} {:?} {:?}", token.header_value, token.bearer);
        assert!(!shown.contains("canary"), "{shown}");
        assert_eq!(
            (token.text(), token.bearer.as_bytes()),
            ("secret-canary", &b"Bearer secret-canary"[..])
        );
    }
}
