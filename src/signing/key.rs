//! One signing key: generating, parsing and signing.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use serde_json::Value;
use zeroize::Zeroizing;

use super::SigningError;
use crate::clock::Timestamp;
use crate::config::TokenAlg;
use crate::jose::jwk::{Curve, PublicKey, VerifyingKey};
use crate::storage::StoredKey;

enum Signer {
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

pub(super) struct SigningKey {
    pub(super) created_at: Timestamp,
    pub(super) signs_from: Timestamp,
    pub(super) retires_at: Option<Timestamp>,
    pub(super) kid: String,
    pub(super) alg: TokenAlg,
    pub(super) generation: i64,
    signer: Signer,
    pub(super) verifier: VerifyingKey,
    pub(super) public: Value,
}

impl SigningKey {
    /// Returns a signature in the format of JWS.
    pub(super) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SigningError> {
        let random = SystemRandom::new();
        Ok(match &self.signer {
            Signer::Es256(pair) => pair.sign(&random, message)?.as_ref().to_vec(),
            Signer::EdDsa(pair) => pair.sign(message).as_ref().to_vec(),
            Signer::Rs256(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)?;
                signature
            }
        })
    }
}

/// Generates a key without storing it.
pub(super) fn generate(
    alg: TokenAlg,
    generation: i64,
    now: Timestamp,
    signs_from: Timestamp,
) -> Result<StoredKey, SigningError> {
    let pkcs8 = match alg {
        TokenAlg::Es256 => {
            let random = SystemRandom::new();
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random)?
                .as_ref()
                .to_vec()
        }
        TokenAlg::EdDsa => Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())?.as_ref().to_vec(),
        TokenAlg::Rs256 => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
            let der: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der()?;
            der.as_ref().to_vec()
        }
    };
    let mut key = StoredKey {
        kid: String::new(),
        alg: alg.as_str().to_owned(),
        generation,
        private_key: Zeroizing::new(pkcs8),
        created_at: now,
        signs_from,
        retires_at: None,
    };
    key.kid = parse(&key)?.kid;
    Ok(key)
}

/// Parses a stored key. Computes the key id as the JWK thumbprint (RFC 7638), so that it always matches the
/// key.
pub(super) fn parse(stored: &StoredKey) -> Result<SigningKey, SigningError> {
    let alg = TokenAlg::parse(&stored.alg).ok_or(SigningError::Key)?;
    let (signer, public) = match alg {
        TokenAlg::Es256 => {
            let pair =
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &stored.private_key)?;
            let point = pair.public_key().as_ref().to_vec();
            (Signer::Es256(pair), PublicKey::Ec { curve: Curve::P256, point })
        }
        TokenAlg::EdDsa => {
            let pair = Ed25519KeyPair::from_pkcs8(&stored.private_key)?;
            let point = pair.public_key().as_ref().to_vec();
            (Signer::EdDsa(pair), PublicKey::Ed25519(point))
        }
        TokenAlg::Rs256 => {
            let pair = RsaKeyPair::from_pkcs8(&stored.private_key)?;
            let modulus = pair.public_key().modulus().big_endian_without_leading_zero().to_vec();
            let exponent = pair.public_key().exponent().big_endian_without_leading_zero().to_vec();
            (Signer::Rs256(pair), PublicKey::Rsa { modulus, exponent })
        }
    };
    let kid = public.thumbprint().ok_or(SigningError::Key)?;
    let published = public.to_jwk(alg.as_str(), &kid)?;
    let verifier = VerifyingKey::new(public, &[alg.alg()]);
    if !verifier.is_usable(alg.alg()) {
        return Err(SigningError::Key);
    }
    Ok(SigningKey {
        created_at: stored.created_at,
        signs_from: stored.signs_from,
        retires_at: stored.retires_at,
        kid,
        alg,
        generation: stored.generation,
        signer,
        verifier,
        public: published,
    })
}
