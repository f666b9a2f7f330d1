//! One signing key: generating, parsing and signing.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair,
    Ed25519KeyPair, KeyPair, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
    RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use zeroize::Zeroizing;

use super::SigningError;
use crate::clock::Timestamp;
use crate::config::TokenAlg;
use crate::storage::StoredKey;

enum Signer {
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
    EdDsa(Ed25519KeyPair),
}

/// A parsed key.
pub(super) struct Key {
    pub(super) created_at: Timestamp,
    pub(super) signs_from: Timestamp,
    pub(super) retires_at: Option<Timestamp>,
    pub(super) kid: String,
    pub(super) alg: TokenAlg,
    pub(super) generation: i64,
    signer: Signer,
    pub(super) verifier: ParsedPublicKey,
    pub(super) public: Value,
}

impl Key {
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
pub(super) fn parse(stored: &StoredKey) -> Result<Key, SigningError> {
    let alg = TokenAlg::parse(&stored.alg).ok_or(SigningError::Key)?;
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    // RFC 7638 §3: only the required members, in alphabetical order.
    let (signer, verifier, required) = match alg {
        TokenAlg::Es256 => {
            let pair =
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &stored.private_key)?;
            let point = pair.public_key().as_ref();
            let (x, y) =
                point.get(1..).and_then(|xy| xy.split_at_checked(32)).ok_or(SigningError::Key)?;
            let required = vec![
                ("crv", "P-256".to_owned()),
                ("kty", "EC".to_owned()),
                ("x", b64(x)),
                ("y", b64(y)),
            ];
            let verifier = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)?;
            (Signer::Es256(pair), verifier, required)
        }
        TokenAlg::EdDsa => {
            let pair = Ed25519KeyPair::from_pkcs8(&stored.private_key)?;
            let x = b64(pair.public_key().as_ref());
            let required = vec![("crv", "Ed25519".to_owned()), ("kty", "OKP".to_owned()), ("x", x)];
            let verifier = ParsedPublicKey::new(&ED25519, pair.public_key())?;
            (Signer::EdDsa(pair), verifier, required)
        }
        TokenAlg::Rs256 => {
            let pair = RsaKeyPair::from_pkcs8(&stored.private_key)?;
            let n = b64(pair.public_key().modulus().big_endian_without_leading_zero());
            let e = b64(pair.public_key().exponent().big_endian_without_leading_zero());
            let verifier = ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, pair.public_key())?;
            (Signer::Rs256(pair), verifier, vec![("e", e), ("kty", "RSA".to_owned()), ("n", n)])
        }
    };
    let canonical: Vec<String> =
        required.iter().map(|(name, value)| format!("\"{name}\":\"{value}\"")).collect();
    let canonical = format!("{{{}}}", canonical.join(","));
    let thumbprint = digest(&SHA256, canonical.as_bytes());
    let kid = b64(thumbprint.as_ref());

    let mut public: serde_json::Map<String, Value> =
        required.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    public.insert("use".to_owned(), "sig".into());
    public.insert("alg".to_owned(), alg.as_str().into());
    public.insert("kid".to_owned(), kid.clone().into());
    let public = Value::Object(public);
    Ok(Key {
        created_at: stored.created_at,
        signs_from: stored.signs_from,
        retires_at: stored.retires_at,
        kid,
        alg,
        generation: stored.generation,
        signer,
        verifier,
        public,
    })
}
