//! The MCP servers behind one resource, and how the gateway connects to them.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use url::Url;

use super::ResourceConfig;

/// Names a target inside session ids, event ids and message addresses, so that they lead back to the target
/// that issued them: after a restart, on every replica, and wherever the target is in the list. Eight bytes
/// of the SHA-256 of its URL. Only configured URLs have tags, so nobody can look for two that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetTag([u8; 8]);

impl TargetTag {
    /// Returns the tag of a target.
    pub fn of(target: &Url) -> Self {
        let digest = digest(&SHA256, target.as_str().as_bytes());
        Self(digest.as_ref().first_chunk().copied().unwrap_or_default())
    }

    /// Returns four hexadecimal digits that tell it from a few others.
    pub fn short(self) -> String {
        let [first, second, ..] = self.0;
        format!("{first:02x}{second:02x}")
    }

    /// Returns `bytes` with the tag in front.
    pub fn before(self, bytes: &[u8]) -> Vec<u8> {
        [self.0.as_slice(), bytes].concat()
    }

    /// Splits what [`Self::before`] joined.
    pub fn split(joined: &[u8]) -> Option<(Self, &[u8])> {
        let (tag, bytes) = joined.split_first_chunk()?;
        Some((Self(*tag), bytes))
    }
}

/// How the gateway connects to the targets of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetConnection {
    /// Longest wait for a connection, including the TLS handshake.
    pub connect_timeout: Duration,
    /// The only certificate authorities that are trusted; empty: those of the system.
    pub authorities: Vec<CertificateDer<'static>>,
    /// What the gateway authenticates itself with; `None`: with nothing.
    pub identity: Option<Arc<ClientIdentity>>,
}

/// A client certificate and its private key.
#[derive(Debug, PartialEq, Eq)]
pub struct ClientIdentity {
    /// The certificate, and those that lead from it to its authority.
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl ResourceConfig {
    /// Returns whether the gateway forwards requests for this resource.
    pub fn is_fronted(&self) -> bool {
        self.path.is_some() && !self.targets.is_empty()
    }

    /// Returns whether one of the targets has this tag.
    pub fn has_target(&self, tag: TargetTag) -> bool {
        self.targets.iter().any(|target| TargetTag::of(target) == tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_the_same_each_time_and_differs_with_the_url() {
        let tag = |url: &str| TargetTag::of(&Url::parse(url).unwrap());
        let one = tag("http://127.0.0.1:9000/mcp");
        assert_eq!(one, tag("HTTP://127.0.0.1:9000/mcp"));
        for other in
            ["http://127.0.0.1:9001/mcp", "http://127.0.0.1:9000/", "https://127.0.0.1:9000/mcp"]
        {
            assert_ne!(one, tag(other), "{other}");
        }
        assert_eq!(TargetTag::split(&one.before(b"id")), Some((one, b"id".as_slice())));
        assert_eq!(TargetTag::split(b"short"), None);
    }
}
