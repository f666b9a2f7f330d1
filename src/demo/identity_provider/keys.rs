//! The provider's keys: an RSA key for ID tokens (or a key of another kind if a test wants it), and a MAC key
//! for its sessions and tokens. They are stored in a folder if one is given, so that a restart of the demo
//! signs nobody out.

use std::io;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
    RsaEncoding, RsaKeyPair,
};
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::jose::jwk::{Curve, PublicKey};
use crate::jose::jws;
use crate::oauth::secret::random_bytes;

#[derive(Clone)]
pub(super) struct DemoKeys(Arc<DemoKeysInner>);

struct DemoKeysInner {
    rsa: RsaKeyPair,
    kid: String,
    /// Generated at first use.
    p256: OnceLock<EcdsaKeyPair>,
    p384: OnceLock<EcdsaKeyPair>,
    p521: OnceLock<EcdsaKeyPair>,
    ed25519: OnceLock<Ed25519KeyPair>,
    mac: hmac::Key,
}

impl DemoKeys {
    /// Returns the keys of this process, generated once because RSA key generation is slow.
    pub(super) fn of_process() -> io::Result<Self> {
        static KEYS: OnceLock<DemoKeys> = OnceLock::new();
        Self::made_once(&KEYS)
    }

    /// Returns the keys after a rotation.
    pub(super) fn next_of_process() -> io::Result<Self> {
        static KEYS: OnceLock<DemoKeys> = OnceLock::new();
        Self::made_once(&KEYS)
    }

    fn made_once(keys: &OnceLock<Self>) -> io::Result<Self> {
        if let Some(keys) = keys.get() {
            return Ok(keys.clone());
        }
        let made = Self::new(&new_rsa()?, &random_bytes::<32>())?;
        Ok(keys.get_or_init(|| made).clone())
    }

    /// Returns the keys stored in `folder`; generates missing ones.
    pub(super) fn kept_in(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let rsa = read_or_make(&folder.join("identity-provider-rsa.pk8"), new_rsa)?;
        let mac = read_or_make(&folder.join("identity-provider-mac"), || {
            Ok(random_bytes::<32>().to_vec())
        })?;
        Self::new(&rsa, &mac)
    }

    fn new(pkcs8: &[u8], mac: &[u8]) -> io::Result<Self> {
        let rsa = RsaKeyPair::from_pkcs8(pkcs8).map_err(io::Error::other)?;
        let thumb = digest::digest(&digest::SHA256, rsa.public_key().as_ref());
        let kid = URL_SAFE_NO_PAD.encode(&thumb.as_ref()[..12]);
        let mac = hmac::Key::new(hmac::HMAC_SHA256, mac);
        let (p256, p384, p521) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let ed25519 = OnceLock::new();
        Ok(Self(Arc::new(DemoKeysInner { rsa, kid, p256, p384, p521, ed25519, mac })))
    }

    /// Returns the public key for `alg` as a JWK.
    pub(super) fn jwk(&self, alg: Option<&str>) -> io::Result<Value> {
        let ec = |curve, alg| -> io::Result<PublicKey> {
            Ok(PublicKey::Ec { curve, point: self.ec(alg)?.public_key().as_ref().to_vec() })
        };
        let alg = alg.unwrap_or("RS256");
        let (public, alg) = match alg {
            "ES256" => (ec(Curve::P256, alg)?, alg),
            "ES384" => (ec(Curve::P384, alg)?, alg),
            "ES512" => (ec(Curve::P521, alg)?, alg),
            "EdDSA" => (PublicKey::Ed25519(self.ed25519()?.public_key().as_ref().to_vec()), alg),
            _ => {
                let public = self.0.rsa.public_key();
                let modulus = public.modulus().big_endian_without_leading_zero().to_vec();
                let exponent = public.exponent().big_endian_without_leading_zero().to_vec();
                let alg = if alg.starts_with(['R', 'P']) { alg } else { "RS256" };
                (PublicKey::Rsa { modulus, exponent }, alg)
            }
        };
        Ok(public.to_jwk(alg, &self.0.kid)?)
    }

    fn ec(&self, alg: &str) -> io::Result<&EcdsaKeyPair> {
        let (slot, kind) = match alg {
            "ES256" => (&self.0.p256, &ECDSA_P256_SHA256_FIXED_SIGNING),
            "ES384" => (&self.0.p384, &ECDSA_P384_SHA384_FIXED_SIGNING),
            _ => (&self.0.p521, &ECDSA_P521_SHA512_FIXED_SIGNING),
        };
        if let Some(key) = slot.get() {
            return Ok(key);
        }
        let made = EcdsaKeyPair::generate(kind).map_err(io::Error::other)?;
        Ok(slot.get_or_init(|| made))
    }

    fn ed25519(&self) -> io::Result<&Ed25519KeyPair> {
        if let Some(key) = self.0.ed25519.get() {
            return Ok(key);
        }
        let made = Ed25519KeyPair::generate().map_err(io::Error::other)?;
        Ok(self.0.ed25519.get_or_init(|| made))
    }

    fn rsa(&self, how: &'static dyn RsaEncoding, message: &[u8]) -> io::Result<Vec<u8>> {
        let mut signature = vec![0; self.0.rsa.public_modulus_len()];
        self.0
            .rsa
            .sign(how, &SystemRandom::new(), message, &mut signature)
            .map_err(io::Error::other)?;
        Ok(signature)
    }

    /// Signs a JWT with RS256 or with `alg`, so that tests see how others handle it. Members of `header` are
    /// added to the usual ones or replace them; `null` removes a member.
    pub(super) fn jwt(
        &self,
        header: &Value,
        claims: &Value,
        alg: Option<&str>,
        secret: &str,
    ) -> io::Result<String> {
        let alg = alg.unwrap_or("RS256");
        let mut whole = json!({ "alg": alg, "kid": self.0.kid });
        if let (Some(whole), Some(header)) = (whole.as_object_mut(), header.as_object()) {
            whole.extend(header.clone());
            whole.retain(|_, value| !value.is_null());
        }
        jws::write(&whole, claims, |message| self.sign(alg, message, secret))
    }

    fn sign(&self, alg: &str, message: &[u8], secret: &str) -> io::Result<Vec<u8>> {
        Ok(match alg {
            "none" => Vec::new(),
            "HS256" => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
                hmac::sign(&key, message).as_ref().to_vec()
            }
            "ES256" | "ES384" | "ES512" => {
                let signature = self.ec(alg)?.sign(&SystemRandom::new(), message);
                signature.map_err(io::Error::other)?.as_ref().to_vec()
            }
            "EdDSA" => self.ed25519()?.sign(message).as_ref().to_vec(),
            "RS384" => self.rsa(&RSA_PKCS1_SHA384, message)?,
            "RS512" => self.rsa(&RSA_PKCS1_SHA512, message)?,
            "PS256" => self.rsa(&RSA_PSS_SHA256, message)?,
            "PS384" => self.rsa(&RSA_PSS_SHA384, message)?,
            "PS512" => self.rsa(&RSA_PSS_SHA512, message)?,
            _ => self.rsa(&RSA_PKCS1_SHA256, message)?,
        })
    }

    /// Encodes and authenticates `value` for one `purpose`, so that only this provider can have made it.
    pub(super) fn stamp(&self, purpose: &str, value: &Value) -> String {
        let payload = encode(value);
        let tag = hmac::sign(&self.0.mac, format!("{purpose}.{payload}").as_bytes());
        format!("{payload}.{}", URL_SAFE_NO_PAD.encode(tag))
    }

    /// Verifies and decodes the result of [`DemoKeys::stamp`] for the same purpose.
    pub(super) fn unstamp(&self, purpose: &str, text: &str) -> Option<Value> {
        let (payload, tag) = text.split_once('.')?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        let signed = format!("{purpose}.{payload}");
        hmac::verify(&self.0.mac, signed.as_bytes(), &tag).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }
}

fn encode(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

fn new_rsa() -> io::Result<Vec<u8>> {
    let key = aws_lc_rs::rsa::KeyPair::generate(KeySize::Rsa2048).map_err(io::Error::other)?;
    let der =
        AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&key).map_err(io::Error::other)?;
    Ok(der.as_ref().to_vec())
}

fn read_or_make(path: &Path, make: impl Fn() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = make()?;
            let mut options = std::fs::OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            io::Write::write_all(&mut options.open(path)?, &made)?;
            Ok(made)
        }
        read => read,
    }
}
