//! A public key of the identity provider (RFC 7517, RFC 7518 §6, RFC 8037), read as providers write it. `jose`
//! verifies with it.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use openidconnect::core::{
    CoreJsonWebKeyType, CoreJsonWebKeyUse, CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
};
use openidconnect::{JsonWebKeyId, JsonWebKeyUse as _, JwsSigningAlgorithm as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::jose::alg::{Alg, FROM_PROVIDER};
use crate::jose::jwk::{PublicKey, VerifyError, VerifyingKey};

/// Accepted RSA modulus lengths in bytes: 2048 to 4096 bits. Shorter keys are too weak; longer ones make each
/// verification expensive.
const MODULUS: RangeInclusive<usize> = 256..=512;

/// Lenient base64url: some providers set unused trailing bits, and some add padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    NO_PAD
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The key as it appears in the JWK set. A key whose members have other types is of a kind that we do not know.
#[derive(Deserialize)]
struct Jwk {
    kty: CoreJsonWebKeyType,
    #[serde(rename = "use")]
    use_: Option<CoreJsonWebKeyUse>,
    kid: Option<JsonWebKeyId>,
    alg: Option<JwkAlg>,
    #[serde(default)]
    n: Value,
    #[serde(default)]
    e: Value,
    #[serde(default)]
    crv: Value,
    #[serde(default)]
    x: Value,
    #[serde(default)]
    y: Value,
}

/// The `alg` member of a key, as the library reads it.
#[derive(Deserialize)]
#[serde(untagged)]
enum JwkAlg {
    Signature(CoreJwsSigningAlgorithm),
    Encryption(
        #[expect(dead_code, reason = "read to know the kind")] CoreJweContentEncryptionAlgorithm,
    ),
}

/// Which algorithms a key is for, by its own `alg`.
enum OnlyFor {
    Any,
    One(Alg),
    /// An algorithm that we do not accept.
    Other,
}

struct ProviderKeyInner {
    kty: CoreJsonWebKeyType,
    /// `use` allows signatures.
    signs: bool,
    kid: Option<JsonWebKeyId>,
    only_for: OnlyFor,
    /// `None` if its curve or size is not accepted, or a number cannot be read.
    key: Option<VerifyingKey>,
}

/// A key of the provider. Cheap to clone.
#[derive(Clone)]
pub struct ProviderKey(Arc<ProviderKeyInner>);

impl fmt::Debug for ProviderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProviderKey({:?})", self.0.kid)
    }
}

impl<'de> Deserialize<'de> for ProviderKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Jwk::deserialize(deserializer).map(Self::new)
    }
}

impl ProviderKey {
    fn new(jwk: Jwk) -> Self {
        let key = jwk.public().map(|public| VerifyingKey::new(public, &FROM_PROVIDER));
        let only_for = match &jwk.alg {
            None => OnlyFor::Any,
            Some(JwkAlg::Signature(own)) => {
                let known = FROM_PROVIDER.into_iter().find(|alg| library_name(*alg) == *own);
                known.map_or(OnlyFor::Other, OnlyFor::One)
            }
            Some(JwkAlg::Encryption(_)) => OnlyFor::Other,
        };
        let signs = jwk.use_.as_ref().is_none_or(CoreJsonWebKeyUse::allows_signature);
        Self(Arc::new(ProviderKeyInner { kty: jwk.kty, signs, kid: jwk.kid, only_for, key }))
    }

    /// Returns the name of the key.
    pub(super) fn kid(&self) -> Option<&str> {
        self.0.kid.as_ref().map(|kid| kid.as_str())
    }

    /// Returns the names of the algorithms that the key can verify.
    pub(super) fn algorithms(&self) -> Vec<&'static str> {
        let key = |alg| self.check(alg).ok().and(self.0.key.as_ref());
        let usable = FROM_PROVIDER
            .into_iter()
            .filter(|alg| key(*alg).is_some_and(|key| key.is_usable(*alg)));
        usable.map(Alg::as_str).collect()
    }

    /// Returns an error if the key must not be used with `alg`, according to its `use`, `kty` or `alg`.
    pub(super) fn check(&self, alg: Alg) -> Result<(), &'static str> {
        if !self.0.signs {
            return Err("the key is not for signatures");
        }
        if library_name(alg).key_type().as_ref() != Some(&self.0.kty) {
            return Err("the key is of another kind than the algorithm");
        }
        match self.0.only_for {
            OnlyFor::Any => Ok(()),
            OnlyFor::One(own) if own == alg => Ok(()),
            OnlyFor::One(_) | OnlyFor::Other => Err("the key is for another algorithm"),
        }
    }

    /// Returns the key that verifies signatures with `alg`.
    pub fn verifying(&self, alg: Alg) -> Result<&VerifyingKey, VerifyError> {
        self.check(alg).map_err(|_| VerifyError::Key)?;
        self.0.key.as_ref().ok_or(VerifyError::Key)
    }
}

/// Returns the name that the library has for an algorithm.
fn library_name(alg: Alg) -> CoreJwsSigningAlgorithm {
    match alg {
        Alg::Rs256 => CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256,
        Alg::Rs384 => CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha384,
        Alg::Rs512 => CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha512,
        Alg::Ps256 => CoreJwsSigningAlgorithm::RsaSsaPssSha256,
        Alg::Ps384 => CoreJwsSigningAlgorithm::RsaSsaPssSha384,
        Alg::Ps512 => CoreJwsSigningAlgorithm::RsaSsaPssSha512,
        Alg::Es256 => CoreJwsSigningAlgorithm::EcdsaP256Sha256,
        Alg::Es384 => CoreJwsSigningAlgorithm::EcdsaP384Sha384,
        Alg::Es512 => CoreJwsSigningAlgorithm::EcdsaP521Sha512,
        Alg::EdDsa => CoreJwsSigningAlgorithm::EdDsa,
    }
}

impl Jwk {
    /// Returns the numbers of the key; `None` if its kind, curve or size is not accepted.
    fn public(&self) -> Option<PublicKey> {
        let kty = match self.kty {
            CoreJsonWebKeyType::RSA => "RSA",
            CoreJsonWebKeyType::EllipticCurve => "EC",
            CoreJsonWebKeyType::OctetKeyPair => "OKP",
            _ => return None,
        };
        let number = |name: &str| match name {
            "n" => without_zeros(&self.n).filter(|n| MODULUS.contains(&n.len())),
            "e" => without_zeros(&self.e),
            "x" => bytes(&self.x),
            "y" => bytes(&self.y),
            _ => None,
        };
        PublicKey::read(kty, self.crv.as_str(), number)
    }
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    BASE64.decode(value.as_str()?).ok()
}

/// Some providers put a zero byte in front of a number, as in DER.
fn without_zeros(value: &Value) -> Option<Vec<u8>> {
    Some(bytes(value)?.into_iter().skip_while(|byte| *byte == 0).collect())
}

#[cfg(test)]
mod tests;
