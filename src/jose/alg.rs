//! Signature algorithms (RFC 7518 §3.1, RFC 8037 §3.1). None of them uses a shared secret, and `none` is not
//! one of them.

use aws_lc_rs::digest;

/// A signature algorithm with a public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alg {
    /// RSA, PKCS #1 v1.5, SHA-256.
    Rs256,
    /// RSA, PKCS #1 v1.5, SHA-384.
    Rs384,
    /// RSA, PKCS #1 v1.5, SHA-512.
    Rs512,
    /// RSA, PSS, SHA-256.
    Ps256,
    /// RSA, PSS, SHA-384.
    Ps384,
    /// RSA, PSS, SHA-512.
    Ps512,
    /// ECDSA, P-256, SHA-256.
    Es256,
    /// ECDSA, P-384, SHA-384.
    Es384,
    /// ECDSA, P-521, SHA-512.
    Es512,
    /// Ed25519. Ed448 has the same name and is not supported.
    EdDsa,
}

/// What we accept from the identity provider: all of them.
pub const FROM_PROVIDER: [Alg; 10] = Alg::ALL;

/// What we accept from clients, in the order of our metadata.
pub const FROM_CLIENTS: [Alg; 4] = [Alg::Es256, Alg::EdDsa, Alg::Rs256, Alg::Ps256];

impl Alg {
    const ALL: [Self; 10] = [
        Self::Rs256,
        Self::Rs384,
        Self::Rs512,
        Self::Ps256,
        Self::Ps384,
        Self::Ps512,
        Self::Es256,
        Self::Es384,
        Self::Es512,
        Self::EdDsa,
    ];

    /// Returns the name as in a JOSE header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Rs384 => "RS384",
            Self::Rs512 => "RS512",
            Self::Ps256 => "PS256",
            Self::Ps384 => "PS384",
            Self::Ps512 => "PS512",
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Es512 => "ES512",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Parses the name in a JOSE header if it is in `accepted`. Names are case-sensitive (RFC 7515 §4.1.1).
    pub fn parse(name: &str, accepted: &[Self]) -> Option<Self> {
        accepted.iter().copied().find(|alg| alg.as_str() == name)
    }

    /// Returns the hash of the algorithm, which OpenID Connect also uses for `at_hash`.
    pub fn hash(self) -> &'static digest::Algorithm {
        match self {
            Self::Rs256 | Self::Ps256 | Self::Es256 => &digest::SHA256,
            Self::Rs384 | Self::Ps384 | Self::Es384 => &digest::SHA384,
            Self::Rs512 | Self::Ps512 | Self::Es512 | Self::EdDsa => &digest::SHA512,
        }
    }
}
