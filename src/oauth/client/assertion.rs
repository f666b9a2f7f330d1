//! `private_key_jwt`: a client authenticates with a signed assertion. RFC 7523 §3, with the audience rule of
//! RFC 10070; RFC 8725; threats JW-02, JW-05, JW-06.
//!
//! Two steps with two types: a parsed [`Assertion`] is not trusted yet. [`Assertion::prove`] returns a
//! [`Proof`] that the client signed it, for us, within its lifetime. Only the database can tell whether it
//! was used before.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::keys::KeySet;
use crate::clock::Timestamp;
use crate::jose::alg::{Alg, FROM_CLIENTS};
use crate::jose::jws::Compact;
use crate::oauth::error::ensure;

/// The only supported `client_assertion_type`.
pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Longest assertion that is read, in bytes.
const MAX_ASSERTION: usize = 8 * 1024;
/// Longest `jti`, in bytes.
const MAX_JTI: usize = 256;
/// 1 hour: longest remaining lifetime of an assertion. Less would exclude libraries with a fixed lifetime of
/// one hour (Authlib).
const MAX_LIFETIME: Duration = Duration::from_hours(1);
/// 30 seconds: tolerance for the client's clock.
const LEEWAY: Duration = Duration::from_secs(30);
/// Header members that name a key source or change how the token is read. Refused.
const CLOSED_HEADERS: &[&str] = &["crit", "b64", "zip", "jku", "jwk", "x5u", "x5c", "enc", "epk"];
/// Accepted values of `typ`: the one of RFC 10070, and the one that many libraries send. It may also be
/// absent.
const TYPES: &[&str] = &["client-authentication+jwt", "jwt"];

/// Why an assertion is refused. The reason is always logged. The caller sees it only if the signature was
/// valid, and otherwise just `invalid_client`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionRefused {
    /// Too long, not three parts, a header that is no JSON, or a claim that is missing or mistyped.
    #[error("the assertion is malformed, or a required claim is missing or mistyped")]
    Malformed,
    /// The claims are not JSON, or contain a number that cannot be represented.
    #[error("the claims of the assertion cannot be read")]
    Unreadable,
    /// A header member that is not accepted.
    #[error("the header of the assertion is not acceptable")]
    Header,
    /// An algorithm that is not supported.
    #[error("the algorithm of the assertion is not offered")]
    Algorithm,
    /// `iss`, `sub` and the client id differ.
    #[error("iss and sub must both be the client_id")]
    Issuer,
    /// For another audience, or for several.
    #[error("aud must be our issuer and nothing else")]
    Audience,
    /// Expired, from the future, or valid for too long.
    #[error(
        "{0} is out of bounds: exp must be in the future and at most an hour ahead, iat at most an hour old, and nbf and iat not in the future"
    )]
    Time(&'static str),
    /// No key of the client made the signature.
    #[error("the signature fits no key of the client")]
    Signature,
}

#[derive(Deserialize)]
struct AssertionClaims {
    iss: String,
    sub: String,
    aud: Audiences,
    exp: i64,
    jti: String,
    nbf: Option<i64>,
    iat: Option<i64>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audiences {
    One(String),
    List(Vec<String>),
}

/// A parsed assertion. Nothing in it is verified yet.
pub struct Assertion<'a> {
    alg: Alg,
    kid: Option<String>,
    claims: AssertionClaims,
    token: Compact<'a>,
    signature: Vec<u8>,
}

/// The audience that an assertion must have.
#[derive(Clone, Copy, Debug)]
pub struct Audience<'a> {
    pub issuer: &'a str,
    /// Our token endpoint, if the configuration accepts it for clients of the older audience rule.
    pub token_endpoint: Option<&'a str>,
}

/// Proof that a client authenticated. Valid for one use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Identifies the client and `jti` in the database.
    pub id: String,
    /// When the assertion is no longer accepted, so that the id can be deleted.
    pub forget_at: Timestamp,
    /// Earliest possible time of issue. The client's clock may be ahead of ours, and without `iat` the
    /// assertion is assumed to be as old as its lifetime allows.
    pub issued_after: Timestamp,
    /// Whether the audience is that of the older rule, such as the token endpoint.
    pub old_audience: bool,
}

impl AssertionRefused {
    /// Returns whether the signature was valid before this check, so that the client may see the reason.
    pub const fn is_after_the_signature(self) -> bool {
        matches!(self, Self::Audience | Self::Time(_))
    }
}

impl<'a> Assertion<'a> {
    /// Parses an assertion without trusting it.
    pub fn parse(text: &'a str) -> Result<Self, AssertionRefused> {
        ensure(text.len() <= MAX_ASSERTION && text.is_ascii(), AssertionRefused::Malformed)?;
        let malformed = |_| AssertionRefused::Malformed;
        let token = Compact::split(text).map_err(|_| AssertionRefused::Malformed)?;
        let header: Value = token.header().map_err(|_| AssertionRefused::Malformed)?;
        let (alg, kid) = check_header(&header)?;
        let claims = token.claims().map_err(malformed)?;
        let claims: AssertionClaims = serde_json::from_slice(&claims).map_err(|error| {
            if error.is_data() { AssertionRefused::Malformed } else { AssertionRefused::Unreadable }
        })?;
        let jti_fits = !claims.jti.is_empty() && claims.jti.len() <= MAX_JTI;
        ensure(jti_fits, AssertionRefused::Malformed)?;
        Ok(Self { alg, kid, claims, token, signature: token.signature().map_err(malformed)? })
    }

    /// Returns the client that the assertion claims to come from.
    pub fn claimed_client(&self) -> &str {
        &self.claims.sub
    }

    /// Returns whether `keys` contains a key that could have made the signature. If not, a newer key set
    /// may.
    pub fn has_key_in(&self, keys: &KeySet) -> bool {
        keys.has(self.kid.as_deref(), self.alg)
    }

    /// Checks everything except replay.
    pub fn prove(
        &self,
        client_id: &str,
        keys: &KeySet,
        audience: &Audience<'_>,
        now: Timestamp,
    ) -> Result<Proof, AssertionRefused> {
        let claims = &self.claims;
        ensure(claims.iss == client_id && claims.sub == client_id, AssertionRefused::Issuer)?;
        let signed = keys.verify(self.kid.as_deref(), self.alg, &self.token, &self.signature);
        ensure(signed, AssertionRefused::Signature)?;
        let old_audience = audience.admits(&claims.aud)?;
        let expires_at = Timestamp::from_unix(claims.exp).plus(LEEWAY);
        let soonest = now.plus(LEEWAY);
        let begun = |moment: i64| Timestamp::from_unix(moment) <= soonest;
        let is_recent = |iat: i64| Timestamp::from_unix(iat).plus(MAX_LIFETIME) > now.minus(LEEWAY);
        let ends_soon = Timestamp::from_unix(claims.exp) <= soonest.plus(MAX_LIFETIME);
        ensure(now < expires_at && ends_soon, AssertionRefused::Time("exp"))?;
        ensure(claims.nbf.is_none_or(begun), AssertionRefused::Time("nbf"))?;
        let fits = |iat| begun(iat) && is_recent(iat);
        ensure(claims.iat.is_none_or(fits), AssertionRefused::Time("iat"))?;
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(client_id.as_bytes());
        context.update(b"\n");
        context.update(claims.jti.as_bytes());
        let id = URL_SAFE_NO_PAD.encode(context.finish());
        let issued_after = match claims.iat {
            Some(iat) => Timestamp::from_unix(iat).minus(LEEWAY),
            None => Timestamp::from_unix(claims.exp).minus(MAX_LIFETIME + LEEWAY),
        };
        Ok(Proof { id, forget_at: expires_at, issued_after, old_audience })
    }
}

impl Audience<'_> {
    /// Checks that we are the only audience. Returns whether it matches only by the older rule.
    fn admits(&self, audiences: &Audiences) -> Result<bool, AssertionRefused> {
        let only = match audiences {
            Audiences::One(only) => only,
            Audiences::List(list) => match list.as_slice() {
                [only] => only,
                _ => return Err(AssertionRefused::Audience),
            },
        };
        if only == self.issuer {
            return Ok(false);
        }
        let endpoint = self.token_endpoint.ok_or(AssertionRefused::Audience)?;
        let with_slash = only.strip_suffix('/') == Some(self.issuer);
        ensure(only == endpoint || with_slash, AssertionRefused::Audience)?;
        Ok(true)
    }
}

fn check_header(header: &Value) -> Result<(Alg, Option<String>), AssertionRefused> {
    ensure(header.is_object(), AssertionRefused::Malformed)?;
    let closed = CLOSED_HEADERS.iter().any(|name| header.get(name).is_some());
    ensure(!closed, AssertionRefused::Header)?;
    let text = |name: &str| match header.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(AssertionRefused::Header),
    };
    if let Some(typ) = text("typ")? {
        let typ = typ.to_ascii_lowercase();
        let bare = typ.strip_prefix("application/").unwrap_or(&typ);
        ensure(TYPES.contains(&bare), AssertionRefused::Header)?;
    }
    let alg = text("alg")?.and_then(|alg| Alg::parse(alg, &FROM_CLIENTS));
    let alg = alg.ok_or(AssertionRefused::Algorithm)?;
    Ok((alg, text("kid")?.map(str::to_owned)))
}

#[cfg(test)]
mod tests;
