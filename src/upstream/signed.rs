//! JWTs that the provider signed (RFC 7515 §3.1). ID tokens, userinfo and logout messages all use this
//! reader, with the same keys and algorithms.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::UpstreamInner;
use super::provider::Provider;
use super::provider_key::ProviderKey;
use super::values::{Claims, without_place};
use crate::jose::alg::{Alg, FROM_PROVIDER};
use crate::jose::jws::{Compact, HeaderError, NotCompact};

/// A parsed JWT whose signature is not verified yet.
pub(super) struct Signed<'a> {
    pub(super) alg: Alg,
    pub(super) typ: Option<String>,
    kid: Option<String>,
    token: Compact<'a>,
    signature: Vec<u8>,
}

/// Reasons why the claims of a JWT cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum SignedRefused {
    #[error("{0}")]
    Unreadable(String),
    /// Its signature, algorithm or header is not acceptable.
    #[error("{0}")]
    Forged(String),
    /// The provider's newest keys cannot be fetched now.
    #[error("the provider's keys cannot be had: {0}")]
    KeysUnavailable(String),
}

impl<'a> Signed<'a> {
    /// Parses a JWT in compact serialization.
    pub(super) fn parse(jwt: &'a str) -> Result<Self, SignedRefused> {
        let unreadable = |reason: &str| SignedRefused::Unreadable(reason.to_owned());
        let token = Compact::split(jwt).map_err(|not| match not {
            NotCompact::Encrypted => {
                unreadable("it is encrypted (JWE): switch encryption off for this client")
            }
            NotCompact::Other => unreadable("it is not a signed JWT"),
        })?;
        let header: Map<String, Value> = token.header().map_err(|error| match error {
            HeaderError::NotBase64(_) => unreadable("its header is not base64url"),
            HeaderError::Json(error) => {
                unreadable(&format!("its header cannot be read: {}", without_place(&error)))
            }
        })?;
        let text = |name: &str| match header.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(unreadable(&format!("{name} in its header is not a text"))),
        };
        let alg = algorithm(&text("alg")?.unwrap_or_default())?;
        // RFC 7515 §4.1.11: an unknown critical extension is a reason to reject. We know none.
        if header.contains_key("crit") {
            let reason = "its header has crit, which names extensions that we do not know";
            return Err(SignedRefused::Forged(reason.to_owned()));
        }
        if text("cty")?.is_some_and(|cty| cty.eq_ignore_ascii_case("JWT")) {
            return Err(unreadable("it holds another JWT"));
        }
        let kid = match header.get("kid") {
            Some(Value::Number(number)) => Some(number.to_string()),
            _ => text("kid")?,
        };
        Ok(Self {
            alg,
            typ: text("typ")?,
            kid,
            token,
            signature: token
                .signature()
                .map_err(|_| unreadable("its signature is not base64url"))?,
        })
    }

    /// Returns the claims. Verify the signature before you trust them.
    pub(super) fn claims(&self) -> Result<Claims, String> {
        let claims = self.token.claims();
        Claims::parse(&claims.map_err(|_| "its claims are not base64url".to_owned())?)
    }

    /// Returns the only key of the provider that fits.
    fn key<'p>(&self, provider: &'p Provider) -> Result<&'p ProviderKey, String> {
        let named: Vec<&ProviderKey> = provider
            .keys
            .iter()
            .filter(|key| self.kid.is_none() || self.kid.as_deref() == key.kid())
            .collect();
        let fitting: Vec<&ProviderKey> =
            named.iter().copied().filter(|key| key.check(self.alg).is_ok()).collect();
        match (fitting.as_slice(), named.as_slice()) {
            ([key], _) => Ok(key),
            ([], []) => Err("it is signed by an unknown key".to_owned()),
            ([], [named, ..]) => {
                let why = named.check(self.alg).err().unwrap_or_default();
                Err(format!("no key of the provider fits: {why}"))
            }
            _ => Err("several keys of the provider fit, and it names none".to_owned()),
        }
    }

    fn verify(&self, provider: &Provider) -> Result<(), String> {
        let key = self.key(provider)?.verifying(self.alg);
        key.and_then(|key| self.token.verify(key, self.alg, &self.signature))
            .map_err(|error| format!("its signature: {error}"))
    }
}

/// Returns the algorithm with this header name, if we accept it.
fn algorithm(name: &str) -> Result<Alg, SignedRefused> {
    Alg::parse(name, &FROM_PROVIDER).ok_or_else(|| {
        let plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
        let named: String = name.chars().filter(plain).take(16).collect();
        SignedRefused::Forged(format!(
            "it is signed with {named}, which proves nothing to us: choose RS256 or ES256 for this client"
        ))
    })
}

impl UpstreamInner {
    /// Returns the verified claims of a JWT. Fetches the provider's keys again if no cached key verifies it.
    pub(super) async fn signed_claims(
        &self,
        provider: &Arc<Provider>,
        signed: &Signed<'_>,
    ) -> Result<Claims, SignedRefused> {
        if let Err(cause) = signed.verify(provider) {
            // The provider may have rotated its keys since we last looked.
            let renewed = self.with_new_keys(provider).await;
            let renewed = renewed.map_err(SignedRefused::KeysUnavailable)?;
            let renewed = renewed.ok_or(SignedRefused::Forged(cause))?;
            signed.verify(&renewed).map_err(SignedRefused::Forged)?;
        }
        signed.claims().map_err(SignedRefused::Unreadable)
    }

    /// Returns an error unless `iss` names our provider.
    pub(super) fn check_issuer(&self, claims: &Claims) -> Result<(), String> {
        let known = self.is_our_issuer(&claims.required_text("iss")?);
        if known { Ok(()) } else { Err("iss is another issuer".to_owned()) }
    }

    /// Returns whether `issuer` is our provider's issuer, in one of its spellings.
    pub(super) fn is_our_issuer(&self, issuer: &str) -> bool {
        issuer == self.config.issuer || self.config.preset.issuer_aliases.contains(&issuer)
    }
}
