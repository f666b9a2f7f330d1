//! Public keys of clients that sign: RFC 7517, RFC 7518 §6, RFC 8037. The key determines the algorithm
//! family; nothing in a token can change it.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::jose::alg::{Alg, FROM_CLIENTS};
use crate::jose::jwk::{PublicKey, VerifyingKey};
use crate::jose::jws::Compact;
use crate::oauth::error::ensure;

/// Most keys in a set.
const MAX_KEYS: usize = 16;
/// Largest key set that is fetched, in bytes.
pub const MAX_KEY_SET: usize = 64 * 1024;
/// Members of private or symmetric keys.
const PRIVATE: &[&str] = &["d", "p", "q", "dp", "dq", "qi", "oth", "k", "r", "t"];
/// Longest RSA modulus, in bytes (4096 bits). Longer ones would take too much time to verify.
const MAX_MODULUS: usize = 512;
/// Longest RSA exponent, in bytes. Libraries use 3 bytes; a long one would take too much time to verify.
const MAX_EXPONENT: usize = 8;

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
struct ClientKey {
    kid: Option<String>,
    /// The algorithm, if the key names one.
    alg: Option<Alg>,
    key: VerifyingKey,
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
    pub fn has(&self, kid: Option<&str>, alg: Alg) -> bool {
        self.fitting(kid, alg).next().is_some()
    }

    /// Returns whether one of the matching keys made `signature` of `token`.
    pub fn verify(
        &self,
        kid: Option<&str>,
        alg: Alg,
        token: &Compact<'_>,
        signature: &[u8],
    ) -> bool {
        self.fitting(kid, alg).any(|key| token.verify(&key.key, alg, signature).is_ok())
    }

    fn fitting(&self, kid: Option<&str>, alg: Alg) -> impl Iterator<Item = &ClientKey> {
        self.0.iter().filter(move |key| {
            (kid.is_none() || key.kid.as_deref() == kid)
                && key.alg.is_none_or(|own| own == alg)
                && key.key.fits(alg)
        })
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
            Some(alg) => Some(Alg::parse(alg.as_str()?, &FROM_CLIENTS)?),
        };
        let number = |name: &str| URL_SAFE_NO_PAD.decode(text(name)?).ok();
        let public = PublicKey::read(text("kty")?, text("crv"), number)?;
        if let PublicKey::Rsa { modulus, exponent } = &public
            // The library refuses to verify with less than 2048 bits.
            && (modulus.len() > MAX_MODULUS || exponent.len() > MAX_EXPONENT)
        {
            return None;
        }
        let is_accepted = FROM_CLIENTS.iter().any(|alg| public.is_for(*alg));
        let key = VerifyingKey::new(public, &FROM_CLIENTS);
        is_accepted.then(|| Self { kid: text("kid").map(str::to_owned), alg, key })
    }
}
