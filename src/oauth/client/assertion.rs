//! `private_key_jwt`: a client proves itself with a signature. RFC 7523 §3, with the audience rule of
//! RFC 10070; RFC 8725; threats JW-02, JW-05, JW-06.
//!
//! Two steps, two types: an [`Assertion`] is read and not believed; what [`Assertion::prove`] answers
//! was signed by the client, for us, now. That it was not used before is for the database to say.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

use super::keys::{KeySet, SigningAlg};
use crate::clock::Timestamp;
use crate::oauth::error::ensure;

/// The only `client_assertion_type`.
pub const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// Longest assertion read, in bytes.
const MAX_ASSERTION: usize = 8 * 1024;
/// Longest `jti`, in bytes.
const MAX_JTI: usize = 256;
/// An assertion may live this long, counted from now: libraries that let nobody choose (Authlib) write an hour.
const MAX_LIFETIME: Duration = Duration::from_hours(1);
/// How far the client's clock may be off.
const LEEWAY: Duration = Duration::from_secs(30);
/// Header members that would tell us where to find a key, or to read the token differently.
const CLOSED_HEADERS: &[&str] = &["crit", "b64", "zip", "jku", "jwk", "x5u", "x5c", "enc", "epk"];
/// What `typ` may be: what RFC 10070 names, what many libraries write, or nothing.
const TYPES: &[&str] = &["client-authentication+jwt", "jwt"];

/// Why an assertion proves nothing. The log has it; the caller reads it once the signature has verified, and
/// `invalid_client` alone before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssertionRefused {
    /// Too long, not three parts, not JSON, a claim missing or mistyped.
    #[error("the assertion is malformed, or a required claim is missing or mistyped")]
    Malformed,
    /// A number or text in its claims that nobody can hold.
    #[error("the claims of the assertion cannot be read")]
    Unreadable,
    /// A header that we do not take.
    #[error("the header of the assertion is not acceptable")]
    Header,
    /// An algorithm that we do not take.
    #[error("the algorithm of the assertion is not offered")]
    Algorithm,
    /// iss, sub and the client do not agree.
    #[error("iss and sub must both be the client_id")]
    Issuer,
    /// For somebody else, or for several.
    #[error("aud must be our issuer and nothing else")]
    Audience,
    /// Expired, from the future, or for too long.
    #[error(
        "{0} is out of bounds: exp must be in the future and at most an hour ahead, iat at most an hour old, and nbf and iat not in the future"
    )]
    Time(&'static str),
    /// No key of the client made the signature.
    #[error("the signature fits no key of the client")]
    Signature,
}

#[derive(Deserialize)]
struct Claims {
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

/// An assertion as it was sent: nothing in it is to be believed.
pub struct Assertion<'a> {
    alg: SigningAlg,
    kid: Option<String>,
    claims: Claims,
    signed: &'a str,
    signature: Vec<u8>,
}

/// Who the assertion must be for.
#[derive(Clone, Copy, Debug)]
pub struct Audience<'a> {
    /// Our issuer.
    pub issuer: &'a str,
    /// Our token endpoint, where the administrator admits it for clients of the older rule.
    pub token_endpoint: Option<&'a str>,
}

/// A client proved itself; good for one use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Stands for client and `jti` in the database.
    pub id: String,
    /// When the assertion is too old to be accepted, and the id may be forgotten.
    pub forget_at: Timestamp,
    /// It was not issued before this moment, as far as it tells: the client's clock may be ahead of ours, and
    /// an assertion that does not say when it was issued is taken to be as old as it may be.
    pub issued_after: Timestamp,
    /// It was made for the token endpoint, as clients of the older rule do.
    pub old_audience: bool,
}

impl AssertionRefused {
    /// Whether the client has proven who it is, and may read what is wrong.
    pub const fn is_after_the_signature(self) -> bool {
        matches!(self, Self::Audience | Self::Time(_))
    }
}

impl<'a> Assertion<'a> {
    /// Reads an assertion without believing it.
    pub fn parse(text: &'a str) -> Result<Self, AssertionRefused> {
        ensure(text.len() <= MAX_ASSERTION && text.is_ascii(), AssertionRefused::Malformed)?;
        let (signed, signature) = text.rsplit_once('.').ok_or(AssertionRefused::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(AssertionRefused::Malformed)?;
        let decode =
            |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| AssertionRefused::Malformed);
        let header: Value =
            serde_json::from_slice(&decode(header)?).map_err(|_| AssertionRefused::Malformed)?;
        let (alg, kid) = check_header(&header)?;
        let claims: Claims = serde_json::from_slice(&decode(claims)?).map_err(|error| {
            if error.is_data() { AssertionRefused::Malformed } else { AssertionRefused::Unreadable }
        })?;
        let jti_fits = !claims.jti.is_empty() && claims.jti.len() <= MAX_JTI;
        ensure(jti_fits, AssertionRefused::Malformed)?;
        Ok(Self { alg, kid, claims, signed, signature: decode(signature)? })
    }

    /// The client it claims to come from.
    pub fn claimed_client(&self) -> &str {
        &self.claims.sub
    }

    /// Whether `keys` hold one that could have made it; if not, newer ones may be worth asking for.
    pub fn has_key_in(&self, keys: &KeySet) -> bool {
        keys.has(self.kid.as_deref(), self.alg)
    }

    /// Checks everything but whether it was used before.
    pub fn prove(
        &self,
        client_id: &str,
        keys: &KeySet,
        audience: &Audience<'_>,
        now: Timestamp,
    ) -> Result<Proof, AssertionRefused> {
        let claims = &self.claims;
        ensure(claims.iss == client_id && claims.sub == client_id, AssertionRefused::Issuer)?;
        let message = self.signed.as_bytes();
        let signed = keys.verify(self.kid.as_deref(), self.alg, message, &self.signature);
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
    /// Whether it is for us alone; `true` when only the older rule admits it.
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

fn check_header(header: &Value) -> Result<(SigningAlg, Option<String>), AssertionRefused> {
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
    let alg = text("alg")?.and_then(SigningAlg::parse).ok_or(AssertionRefused::Algorithm)?;
    Ok((alg, text("kid")?.map(str::to_owned)))
}

#[cfg(test)]
mod tests;
