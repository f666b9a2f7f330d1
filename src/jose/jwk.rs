//! Public keys (RFC 7517, RFC 7518 §6, RFC 8037): reading, verifying with them, publishing our own.
//!
//! A key is read once and parsed at most once for each algorithm, because parsing a key costs about as much as
//! verifying a signature. `jsonwebtoken` parses the key at every call, cannot verify ES512 and accepts headers
//! with `crit`; it writes the JWKs and thumbprints that we publish, and only this file uses it
//! (`docs/decisions/0028-jsonwebtoken-publishes-aws-lc-verifies.md`).

use std::fmt;
use std::sync::OnceLock;

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, VerificationAlgorithm,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{
    AlgorithmParameters, CommonParameters, EllipticCurve, EllipticCurveKeyParameters, Jwk,
    OctetKeyPairParameters, PublicKeyUse, RSAKeyParameters, ThumbprintHash,
};
use serde_json::Value;

use super::alg::Alg;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Curve {
    /// NIST P-256, for ES256.
    P256,
    /// NIST P-384, for ES384.
    P384,
    /// NIST P-521, for ES512.
    P521,
}

/// The numbers of a public key. They need not be a usable key: the point may lie off its curve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    Rsa {
        /// `n`, big-endian.
        modulus: Vec<u8>,
        /// `e`, big-endian.
        exponent: Vec<u8>,
    },
    Ec {
        curve: Curve,
        /// The point in uncompressed form: 4, x, y.
        point: Vec<u8>,
    },
    /// Ed25519: the 32 bytes of the point.
    Ed25519(Vec<u8>),
}

impl PublicKey {
    /// Reads `kty`, `crv` and the numbers of a JWK. `number` decodes the member of that name. `None` if the key
    /// is of another kind, or a coordinate has another length than its curve.
    pub fn read(
        kty: &str,
        crv: Option<&str>,
        number: impl Fn(&str) -> Option<Vec<u8>>,
    ) -> Option<Self> {
        let of = |name: &str, length: usize| number(name).filter(|bytes| bytes.len() == length);
        let curve = match (kty, crv) {
            ("RSA", _) => {
                return Some(Self::Rsa { modulus: number("n")?, exponent: number("e")? });
            }
            ("OKP", Some("Ed25519")) => return of("x", 32).map(Self::Ed25519),
            ("EC", Some("P-256")) => Curve::P256,
            ("EC", Some("P-384")) => Curve::P384,
            ("EC", Some("P-521")) => Curve::P521,
            _ => return None,
        };
        let point = [vec![4], of("x", curve.coordinate())?, of("y", curve.coordinate())?].concat();
        Some(Self::Ec { curve, point })
    }

    /// Returns whether keys of this kind, on this curve, are for `alg`.
    pub const fn is_for(&self, alg: Alg) -> bool {
        match self {
            Self::Rsa { .. } => matches!(
                alg,
                Alg::Rs256 | Alg::Rs384 | Alg::Rs512 | Alg::Ps256 | Alg::Ps384 | Alg::Ps512
            ),
            Self::Ec { curve: Curve::P256, .. } => matches!(alg, Alg::Es256),
            Self::Ec { curve: Curve::P384, .. } => matches!(alg, Alg::Es384),
            Self::Ec { curve: Curve::P521, .. } => matches!(alg, Alg::Es512),
            Self::Ed25519(_) => matches!(alg, Alg::EdDsa),
        }
    }

    fn parse(&self, alg: Alg) -> Option<ParsedPublicKey> {
        let whole = |by: &'static dyn VerificationAlgorithm, bytes: &[u8]| {
            ParsedPublicKey::new(by, bytes).ok()
        };
        match (self, alg) {
            (Self::Rsa { modulus: n, exponent: e }, _) => {
                PublicKeyComponents { n, e }.to_parsed_public_key(rsa_parameters(alg)?).ok()
            }
            (Self::Ec { curve: Curve::P256, point }, Alg::Es256) => {
                whole(&ECDSA_P256_SHA256_FIXED, point)
            }
            (Self::Ec { curve: Curve::P384, point }, Alg::Es384) => {
                whole(&ECDSA_P384_SHA384_FIXED, point)
            }
            (Self::Ec { curve: Curve::P521, point }, Alg::Es512) => {
                whole(&ECDSA_P521_SHA512_FIXED, point)
            }
            (Self::Ed25519(point), Alg::EdDsa) => whole(&ED25519, point),
            _ => None,
        }
    }

    /// Returns the key as a JWK without name and purpose.
    fn jwk(&self) -> Jwk {
        let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let algorithm = match self {
            Self::Rsa { modulus, exponent } => AlgorithmParameters::RSA(RSAKeyParameters {
                n: b64(modulus),
                e: b64(exponent),
                ..RSAKeyParameters::default()
            }),
            Self::Ec { curve, point } => {
                let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len() / 2);
                AlgorithmParameters::EllipticCurve(EllipticCurveKeyParameters {
                    curve: match curve {
                        Curve::P256 => EllipticCurve::P256,
                        Curve::P384 => EllipticCurve::P384,
                        Curve::P521 => EllipticCurve::P521,
                    },
                    x: b64(x),
                    y: b64(y),
                    ..EllipticCurveKeyParameters::default()
                })
            }
            Self::Ed25519(point) => AlgorithmParameters::OctetKeyPair(OctetKeyPairParameters {
                curve: EllipticCurve::Ed25519,
                x: b64(point),
                ..OctetKeyPairParameters::default()
            }),
        };
        Jwk { common: CommonParameters::default(), algorithm }
    }

    /// Returns the thumbprint (RFC 7638), which names our keys.
    pub fn thumbprint(&self) -> Option<String> {
        self.jwk().thumbprint(ThumbprintHash::SHA256).ok()
    }

    /// Returns the key as a JWK for signatures with `alg`.
    pub fn to_jwk(&self, alg: &str, kid: &str) -> Result<Value, serde_json::Error> {
        let mut jwk = self.jwk();
        jwk.common.public_key_use = Some(PublicKeyUse::Signature);
        jwk.common.key_id = Some(kid.to_owned());
        let mut jwk = serde_json::to_value(jwk)?;
        jwk["alg"] = alg.into(); // the library has no name for ES512
        Ok(jwk)
    }
}

impl Curve {
    /// Returns the length of a coordinate in bytes.
    const fn coordinate(self) -> usize {
        match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        }
    }
}

const fn rsa_parameters(alg: Alg) -> Option<&'static RsaParameters> {
    Some(match alg {
        Alg::Rs256 => &RSA_PKCS1_2048_8192_SHA256,
        Alg::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
        Alg::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
        Alg::Ps256 => &RSA_PSS_2048_8192_SHA256,
        Alg::Ps384 => &RSA_PSS_2048_8192_SHA384,
        Alg::Ps512 => &RSA_PSS_2048_8192_SHA512,
        Alg::Es256 | Alg::Es384 | Alg::Es512 | Alg::EdDsa => return None,
    })
}

/// Why a signature does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// The key is not for this algorithm, or no valid key at all.
    #[error("Invalid cryptographic key: the key cannot be used")]
    Key,
    /// The key did not make the signature.
    #[error("Crypto error: bad signature")]
    Signature,
}

/// A public key that verifies signatures.
#[derive(Clone)]
pub struct VerifyingKey {
    public: PublicKey,
    /// One place for each accepted algorithm that fits the key: the key, parsed at its first use. `None` if it
    /// is no valid key.
    parsed: Vec<(Alg, OnceLock<Option<ParsedPublicKey>>)>,
}

impl fmt::Debug for VerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifyingKey({:?})", self.public)
    }
}

impl PartialEq for VerifyingKey {
    fn eq(&self, other: &Self) -> bool {
        let algs = |key: &Self| key.parsed.iter().map(|(alg, _)| *alg).collect::<Vec<_>>();
        self.public == other.public && algs(self) == algs(other)
    }
}

impl Eq for VerifyingKey {}

impl VerifyingKey {
    /// Makes a key that verifies with those of the `accepted` algorithms that fit it.
    pub fn new(public: PublicKey, accepted: &[Alg]) -> Self {
        let fitting = accepted.iter().copied().filter(|alg| public.is_for(*alg));
        let parsed = fitting.map(|alg| (alg, OnceLock::new())).collect();
        Self { public, parsed }
    }

    /// Returns whether the key is of the kind that `alg` needs.
    pub fn fits(&self, alg: Alg) -> bool {
        self.parsed.iter().any(|(known, _)| *known == alg)
    }

    /// Returns whether the key can verify with `alg`.
    pub fn is_usable(&self, alg: Alg) -> bool {
        self.parsed(alg).is_some()
    }

    pub fn verify(&self, alg: Alg, message: &[u8], signature: &[u8]) -> Result<(), VerifyError> {
        let key = self.parsed(alg).ok_or(VerifyError::Key)?;
        key.verify_sig(message, signature).map_err(|_| VerifyError::Signature)
    }

    fn parsed(&self, alg: Alg) -> Option<&ParsedPublicKey> {
        let (_, parsed) = self.parsed.iter().find(|(known, _)| *known == alg)?;
        parsed.get_or_init(|| self.public.parse(alg)).as_ref()
    }
}

#[cfg(test)]
mod tests;
