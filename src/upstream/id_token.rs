//! Checks of ID token claims (OpenID Connect Core §3.1.3.7, §12.2). Claims that protect people are checked
//! strictly; all others are ignored.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::values::Claims;
use crate::clock::Timestamp;
use crate::jose::alg::Alg;
use crate::jose::jws;

/// Tolerated difference between the clocks of provider and server, for `iat`, `exp` and `nbf`. A smaller
/// value rejects tokens of providers whose clock is slightly off; a larger one accepts expired tokens for
/// longer.
pub(super) const SKEW: Duration = Duration::from_mins(1);
/// Maximum age of an ID token at login, by its `iat`: 10 minutes. We have just redeemed the code, so an
/// older token does not belong to it, or the clocks differ.
const FRESH_LOGIN: Duration = Duration::from_mins(10);

/// Expected values of an ID token.
pub(super) struct Expected<'a> {
    pub(super) client_id: &'a str,
    /// The nonce of a login; `None` for a refresh, whose ID token need not contain one.
    pub(super) nonce: Option<&'a str>,
    /// The access token of the same response, for `at_hash`.
    pub(super) access_token: &'a str,
    /// The signature algorithm, which also determines the hash of `at_hash`.
    pub(super) alg: Alg,
    pub(super) now: Timestamp,
}

/// Checks all claims except the issuer. The error names the claim.
pub(super) fn check(claims: &Claims, expected: &Expected<'_>) -> Result<(), String> {
    check_audience(claims, expected.client_id)?;
    check_times(claims, expected.now)?;
    let issued = Timestamp::from_unix(claims.required_time("iat")?);
    if issued > expected.now.plus(SKEW) {
        return Err("iat: issued in the future, by our clock".to_owned());
    }
    if expected.nonce.is_some() && issued < expected.now.minus(FRESH_LOGIN) {
        return Err("iat: issued too long ago, by our clock".to_owned());
    }
    let nonce = claims.text("nonce")?;
    if expected.nonce.is_some() && nonce.as_deref() != expected.nonce {
        let what = if nonce.is_some() { "is that of another login" } else { "is missing" };
        return Err(format!("nonce {what}"));
    }
    let stated = claims.text("at_hash")?;
    if stated.is_some() && stated != Some(hash_of(expected.access_token, expected.alg)) {
        return Err("at_hash does not fit the access token".to_owned());
    }
    Ok(())
}

/// Expected values of an ID token that a service has just sent to us from its token endpoint, over TLS. Its
/// signature need not be checked (OpenID Connect Core §3.1.3.7, number 6).
pub struct DirectIdToken<'a> {
    /// The issuers that it may name; empty: not known.
    pub issuers: &'a [String],
    pub client_id: &'a str,
    /// The nonce of our request.
    pub nonce: &'a str,
    /// The time at which it was received.
    pub now: Timestamp,
}

/// Returns the claims of such an ID token if they fit. The error names the claim.
pub fn claims_of_direct(id_token: &str, expected: &DirectIdToken<'_>) -> Result<Value, String> {
    let value = jws::unverified_claims(id_token).ok_or("it is not a JWT")?;
    let Value::Object(members) = value else { return Err("its claims are no object".to_owned()) };
    let claims = Claims::from(members);
    let issuer = claims.required_text("iss")?;
    if !expected.issuers.is_empty() && !expected.issuers.contains(&issuer) {
        return Err("iss is another issuer".to_owned());
    }
    check_audience(&claims, expected.client_id)?;
    check_times(&claims, expected.now)?;
    match claims.text("nonce")? {
        Some(nonce) if nonce == expected.nonce => Ok(claims.into_value()),
        Some(_) => Err("nonce is that of another request".to_owned()),
        None => Err("nonce is missing".to_owned()),
    }
}

/// Checks the audience: only us, or us and others if `azp` says that the token was issued to us.
fn check_audience(claims: &Claims, client_id: &str) -> Result<(), String> {
    let audiences = claims.audiences()?;
    if !audiences.contains(&client_id) {
        return Err("aud does not name us".to_owned());
    }
    let alone = audiences.iter().all(|audience| *audience == client_id);
    match claims.text("azp")? {
        Some(party) if party == client_id => Ok(()),
        Some(_) => Err("azp is not us".to_owned()),
        None if alone => Ok(()),
        None => Err("aud names others beside us, and azp is missing".to_owned()),
    }
}

/// Checks `exp` and `nbf` if they are present (RFC 7519 §4.1).
pub(super) fn check_lifetime(claims: &Claims, now: Timestamp) -> Result<(), String> {
    if claims.time("exp")?.is_some_and(|at| Timestamp::from_unix(at) <= now.minus(SKEW)) {
        return Err("exp: expired, by our clock".to_owned());
    }
    if claims.time("nbf")?.is_some_and(|at| Timestamp::from_unix(at) > now.plus(SKEW)) {
        return Err("nbf: not valid yet, by our clock".to_owned());
    }
    Ok(())
}

fn check_times(claims: &Claims, now: Timestamp) -> Result<(), String> {
    claims.required_time("exp")?;
    check_lifetime(claims, now)
}

/// Returns the expected `at_hash`: the left half of the hash of the access token (OpenID Connect Core
/// §3.1.3.6).
fn hash_of(access_token: &str, alg: Alg) -> String {
    let digest = digest::digest(alg.hash(), access_token.as_bytes());
    URL_SAFE_NO_PAD.encode(&digest.as_ref()[..alg.hash().output_len() / 2])
}

/// Returns when the person authenticated (`auth_time`, Unix seconds), if the provider states it in a readable
/// form.
pub(super) fn proved_at(claims: &Value) -> Option<i64> {
    claims.get("auth_time").and_then(super::values::time_of)
}
