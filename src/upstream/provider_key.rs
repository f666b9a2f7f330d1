//! A public key of the identity provider (RFC 7517, RFC 7518 §6, RFC 8037). It is parsed once and used for
//! all signatures of the provider, which aws-lc-rs verifies.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;

use aws_lc_rs::digest;
use aws_lc_rs::rsa::PublicKeyComponents;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters,
};
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD};
use openidconnect::core::{
    CoreJsonWebKeyType, CoreJsonWebKeyUse, CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm as Alg,
};
use openidconnect::{
    JsonWebKey, JsonWebKeyAlgorithm, JsonWebKeyId, JsonWebKeyUse as _, JwsSigningAlgorithm as _,
    SignatureVerificationError,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// Signature algorithms that we accept from a provider. None of them uses a shared secret.
pub(super) const ACCEPTED: [Alg; 10] = [
    Alg::RsaSsaPkcs1V15Sha256,
    Alg::RsaSsaPkcs1V15Sha384,
    Alg::RsaSsaPkcs1V15Sha512,
    Alg::RsaSsaPssSha256,
    Alg::RsaSsaPssSha384,
    Alg::RsaSsaPssSha512,
    Alg::EcdsaP256Sha256,
    Alg::EcdsaP384Sha384,
    Alg::EcdsaP521Sha512,
    Alg::EdDsa,
];

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

/// The key as it appears in the JWK set.
#[derive(Deserialize, Serialize)]
struct Jwk {
    kty: CoreJsonWebKeyType,
    #[serde(rename = "use", skip_serializing_if = "Option::is_none")]
    use_: Option<CoreJsonWebKeyUse>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kid: Option<JsonWebKeyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alg: Option<OwnAlg>,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    n: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    e: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    crv: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    x: Value,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    y: Value,
}

/// The `alg` member of a key.
#[derive(Deserialize, Serialize)]
#[serde(untagged)]
enum OwnAlg {
    Signature(Alg),
    Encryption(CoreJweContentEncryptionAlgorithm),
}

struct Inner {
    jwk: Jwk,
    /// The parsed key for each algorithm that fits it.
    parsed: Vec<(Alg, ParsedPublicKey)>,
}

/// A key of the provider. Cheap to clone.
#[derive(Clone)]
pub struct ProviderKey(Arc<Inner>);

impl fmt::Debug for ProviderKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProviderKey({:?})", self.0.jwk.kid)
    }
}

impl<'de> Deserialize<'de> for ProviderKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Jwk::deserialize(deserializer).map(Self::new)
    }
}

impl Serialize for ProviderKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.jwk.serialize(serializer)
    }
}

impl ProviderKey {
    fn new(jwk: Jwk) -> Self {
        let parsed =
            ACCEPTED.into_iter().filter_map(|alg| Some((alg.clone(), jwk.parse(&alg)?))).collect();
        Self(Arc::new(Inner { jwk, parsed }))
    }

    /// Returns the names of the algorithms that the key can verify.
    pub(super) fn algorithms(&self) -> Vec<String> {
        let usable = self.0.parsed.iter().filter(|(alg, _)| self.check(alg).is_ok());
        usable.filter_map(|(alg, _)| name_of(alg)).collect()
    }

    /// Returns an error if the key must not be used with `alg`, according to its `use`, `kty` or `alg`.
    pub(super) fn check(&self, alg: &Alg) -> Result<(), &'static str> {
        let jwk = &self.0.jwk;
        if jwk.use_.as_ref().is_some_and(|use_| !use_.allows_signature()) {
            return Err("the key is not for signatures");
        }
        if alg.key_type().as_ref() != Some(&jwk.kty) {
            return Err("the key is of another kind than the algorithm");
        }
        match &jwk.alg {
            None => Ok(()),
            Some(OwnAlg::Signature(own)) if own == alg => Ok(()),
            Some(_) => Err("the key is for another algorithm"),
        }
    }
}

impl Jwk {
    /// Parses the key for `alg`; `None` if its kind, curve or size does not fit.
    fn parse(&self, alg: &Alg) -> Option<ParsedPublicKey> {
        let crv = self.crv.as_str();
        match (alg, &self.kty) {
            (alg, CoreJsonWebKeyType::RSA) => {
                self.rsa()?.to_parsed_public_key(rsa_parameters(alg)?).ok()
            }
            (Alg::EcdsaP256Sha256, CoreJsonWebKeyType::EllipticCurve) if crv == Some("P-256") => {
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.point(32)?).ok()
            }
            (Alg::EcdsaP384Sha384, CoreJsonWebKeyType::EllipticCurve) if crv == Some("P-384") => {
                ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, self.point(48)?).ok()
            }
            (Alg::EcdsaP521Sha512, CoreJsonWebKeyType::EllipticCurve) if crv == Some("P-521") => {
                ParsedPublicKey::new(&ECDSA_P521_SHA512_FIXED, self.point(66)?).ok()
            }
            (Alg::EdDsa, CoreJsonWebKeyType::OctetKeyPair) if crv == Some("Ed25519") => {
                let x = bytes(&self.x).filter(|x| x.len() == 32)?;
                ParsedPublicKey::new(&ED25519, x).ok()
            }
            _ => None,
        }
    }

    fn rsa(&self) -> Option<PublicKeyComponents<Vec<u8>>> {
        // Some providers put a zero byte in front, as in DER.
        let number = |value| {
            let bytes: Vec<u8> = bytes(value)?;
            Some(bytes.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<u8>>())
        };
        let n = number(&self.n).filter(|n| MODULUS.contains(&n.len()))?;
        Some(PublicKeyComponents { n, e: number(&self.e)? })
    }

    /// Returns the point in its uncompressed form.
    fn point(&self, size: usize) -> Option<Vec<u8>> {
        let coordinate = |value| bytes(value).filter(|bytes: &Vec<u8>| bytes.len() == size);
        let mut point = vec![4];
        point.extend(coordinate(&self.x)?);
        point.extend(coordinate(&self.y)?);
        Some(point)
    }
}

fn rsa_parameters(alg: &Alg) -> Option<&'static RsaParameters> {
    Some(match alg {
        Alg::RsaSsaPkcs1V15Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        Alg::RsaSsaPkcs1V15Sha384 => &RSA_PKCS1_2048_8192_SHA384,
        Alg::RsaSsaPkcs1V15Sha512 => &RSA_PKCS1_2048_8192_SHA512,
        Alg::RsaSsaPssSha256 => &RSA_PSS_2048_8192_SHA256,
        Alg::RsaSsaPssSha384 => &RSA_PSS_2048_8192_SHA384,
        Alg::RsaSsaPssSha512 => &RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}

/// Returns the hash of an algorithm. For `EdDSA` it is that of Ed25519, the only such curve that we accept.
pub(super) fn hash_of(alg: &Alg) -> Option<&'static digest::Algorithm> {
    Some(match alg {
        Alg::RsaSsaPkcs1V15Sha256 | Alg::RsaSsaPssSha256 | Alg::EcdsaP256Sha256 => &digest::SHA256,
        Alg::RsaSsaPkcs1V15Sha384 | Alg::RsaSsaPssSha384 | Alg::EcdsaP384Sha384 => &digest::SHA384,
        Alg::RsaSsaPkcs1V15Sha512 | Alg::RsaSsaPssSha512 | Alg::EcdsaP521Sha512 | Alg::EdDsa => {
            &digest::SHA512
        }
        _ => return None,
    })
}

/// Returns the name of an algorithm as in a JOSE header.
pub(super) fn name_of(alg: &Alg) -> Option<String> {
    serde_json::to_value(alg).ok()?.as_str().map(str::to_owned)
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    BASE64.decode(value.as_str()?).ok()
}

impl JsonWebKey for ProviderKey {
    type KeyUse = CoreJsonWebKeyUse;
    type SigningAlgorithm = Alg;

    fn key_id(&self) -> Option<&JsonWebKeyId> {
        self.0.jwk.kid.as_ref()
    }

    fn key_type(&self) -> &CoreJsonWebKeyType {
        &self.0.jwk.kty
    }

    fn key_use(&self) -> Option<&CoreJsonWebKeyUse> {
        self.0.jwk.use_.as_ref()
    }

    fn signing_alg(&self) -> JsonWebKeyAlgorithm<&Alg> {
        match &self.0.jwk.alg {
            None => JsonWebKeyAlgorithm::Unspecified,
            Some(OwnAlg::Signature(alg)) => JsonWebKeyAlgorithm::Algorithm(alg),
            Some(OwnAlg::Encryption(_)) => JsonWebKeyAlgorithm::Unsupported,
        }
    }

    /// Shared secrets are not supported: the resulting key fits no algorithm.
    fn new_symmetric(_: Vec<u8>) -> Self {
        Self::new(Jwk {
            kty: CoreJsonWebKeyType::Symmetric,
            use_: None,
            kid: None,
            alg: None,
            n: Value::Null,
            e: Value::Null,
            crv: Value::Null,
            x: Value::Null,
            y: Value::Null,
        })
    }

    fn verify_signature(
        &self,
        alg: &Alg,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), SignatureVerificationError> {
        let invalid = |why: &str| SignatureVerificationError::InvalidKey(why.to_owned());
        if !ACCEPTED.contains(alg) {
            return Err(SignatureVerificationError::UnsupportedAlg(format!("{alg:?}")));
        }
        self.check(alg).map_err(invalid)?;
        let parsed = self.0.parsed.iter().find(|(parsed, _)| parsed == alg);
        let (_, key) = parsed.ok_or_else(|| invalid("the key cannot be used"))?;
        key.verify_sig(message, signature)
            .map_err(|_| SignatureVerificationError::CryptoError("bad signature".to_owned()))
    }

    fn hash_bytes(&self, bytes: &[u8], alg: &Alg) -> Result<Vec<u8>, String> {
        self.check(alg)?;
        if *alg == Alg::EdDsa && self.0.jwk.crv != "Ed25519" {
            return Err("the curve is not accepted".to_owned());
        }
        let hash = hash_of(alg).ok_or("the algorithm is not accepted")?;
        Ok(digest::digest(hash, bytes).as_ref().to_vec())
    }
}

#[cfg(test)]
mod tests;
