//! Public keys of clients that sign: RFC 7517, RFC 7518 §6, RFC 8037. The key determines the algorithm
//! family; nothing in a token can change it.

use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    UnparsedPublicKey,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::oauth::error::ensure;

/// Most keys in a set.
const MAX_KEYS: usize = 16;
/// Largest key set that is fetched, in bytes.
pub const MAX_KEY_SET: usize = 64 * 1024;
/// Members of private or symmetric keys.
const PRIVATE: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "oth", "k", "r", "t"];
/// Longest RSA modulus, in bytes (4096 bits). Longer ones would take too much time to verify.
const MAX_MODULUS: usize = 512;

/// An algorithm that a client may sign with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SigningAlg {
    /// ECDSA, P-256.
    Es256,
    /// RSA, PKCS #1 v1.5.
    Rs256,
    /// RSA, PSS.
    Ps256,
    /// Ed25519.
    EdDsa,
}

impl SigningAlg {
    /// All algorithms, in the order of our metadata.
    pub const ALL: [Self; 4] = [Self::Es256, Self::EdDsa, Self::Rs256, Self::Ps256];

    /// Returns the name as in a JWT header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Parses the `alg` of a header. Case-sensitive.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|alg| alg.as_str() == text)
    }
}

/// Why a key set is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysRefused {
    /// Not `{"keys": […]}`.
    #[error("it is not a JSON Web Key Set")]
    NotASet,
    /// More than `MAX_KEYS`.
    #[error("it holds more than 16 keys")]
    TooMany,
    /// A private member, or a symmetric key.
    #[error("it holds a private or symmetric key")]
    NotPublic,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Material {
    /// The uncompressed point.
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ClientKey {
    kid: Option<String>,
    /// The algorithm, if the key names one.
    alg: Option<SigningAlg>,
    material: Material,
}

/// The usable keys of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySet(Vec<ClientKey>);

impl KeySet {
    /// Parses a key set. Ignores keys of other types or for other uses. A private or symmetric key makes the
    /// whole set invalid.
    pub fn parse(set: &Value) -> Result<Self, KeysRefused> {
        let keys = set.get("keys").and_then(Value::as_array).ok_or(KeysRefused::NotASet)?;
        ensure(keys.len() <= MAX_KEYS, KeysRefused::TooMany)?;
        let public = keys.iter().all(|key| {
            key.is_object()
                && key["kty"] != "oct"
                && PRIVATE.iter().all(|private| key.get(private).is_none())
        });
        ensure(public, KeysRefused::NotPublic)?;
        Ok(Self(keys.iter().filter_map(ClientKey::read).collect()))
    }

    /// Parses a fetched key set.
    pub fn parse_text(text: &[u8]) -> Result<Self, KeysRefused> {
        let set: Value = serde_json::from_slice(text).map_err(|_| KeysRefused::NotASet)?;
        Self::parse(&set)
    }

    /// Returns whether no key is usable.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a key matches the `kid` and `alg` of a header.
    pub fn has(&self, kid: Option<&str>, alg: SigningAlg) -> bool {
        self.fitting(kid, alg).next().is_some()
    }

    /// Returns whether one of the matching keys made this signature.
    pub fn verify(
        &self,
        kid: Option<&str>,
        alg: SigningAlg,
        message: &[u8],
        signature: &[u8],
    ) -> bool {
        self.fitting(kid, alg).any(|key| key.verify(alg, message, signature))
    }

    fn fitting(&self, kid: Option<&str>, alg: SigningAlg) -> impl Iterator<Item = &ClientKey> {
        self.0.iter().filter(move |key| {
            (kid.is_none() || key.kid.as_deref() == kid)
                && key.alg.is_none_or(|own| own == alg)
                && key.material.fits(alg)
        })
    }
}

impl Material {
    fn fits(&self, alg: SigningAlg) -> bool {
        match self {
            Self::P256(_) => alg == SigningAlg::Es256,
            Self::Ed25519(_) => alg == SigningAlg::EdDsa,
            Self::Rsa { .. } => matches!(alg, SigningAlg::Rs256 | SigningAlg::Ps256),
        }
    }
}

impl ClientKey {
    /// Parses a key. `None` if it has another type or use.
    fn read(key: &Value) -> Option<Self> {
        let text = |name: &str| key[name].as_str();
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let alg = match key.get("alg") {
            None => None,
            Some(alg) => Some(SigningAlg::parse(alg.as_str()?)?),
        };
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let of = |name: &str, length: usize| bytes(name).filter(|bytes| bytes.len() == length);
        let material = match (text("kty")?, text("crv")) {
            ("EC", Some("P-256")) => Material::P256([vec![4], of("x", 32)?, of("y", 32)?].concat()),
            ("OKP", Some("Ed25519")) => Material::Ed25519(of("x", 32)?),
            ("RSA", _) => {
                let modulus = bytes("n")?;
                // The library refuses to verify with less than 2048 bits.
                if modulus.len() > MAX_MODULUS {
                    return None;
                }
                Material::Rsa { modulus, exponent: bytes("e").filter(|e| e.len() <= 8)? }
            }
            _ => return None,
        };
        Some(Self { kid: text("kid").map(str::to_owned), alg, material })
    }

    fn verify(&self, alg: SigningAlg, message: &[u8], signature: &[u8]) -> bool {
        let verified = match (&self.material, alg) {
            (Material::P256(point), SigningAlg::Es256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            (Material::Ed25519(point), SigningAlg::EdDsa) => {
                UnparsedPublicKey::new(&ED25519, point).verify(message, signature)
            }
            (Material::Rsa { modulus, exponent }, SigningAlg::Rs256 | SigningAlg::Ps256) => {
                let key = PublicKeyComponents { n: modulus, e: exponent };
                let padding = match alg {
                    SigningAlg::Ps256 => &RSA_PSS_2048_8192_SHA256,
                    _ => &RSA_PKCS1_2048_8192_SHA256,
                };
                key.verify(padding, message, signature)
            }
            _ => return false,
        };
        verified.is_ok()
    }
}
