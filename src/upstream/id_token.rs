//! The claims of an ID token (OpenID Connect Core §3.1.3.7, §12.2): strict in what protects somebody, and
//! without opinion about the rest.

use std::time::Duration;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use openidconnect::core::CoreJwsSigningAlgorithm as Alg;
use serde_json::Value;

use super::values::Claims;
use crate::clock::Timestamp;

/// Clocks of provider and server may differ by this much.
pub(super) const SKEW: Duration = Duration::from_mins(1);
/// An ID token of a login is not older than this.
const FRESH_LOGIN: Duration = Duration::from_mins(10);

/// What an ID token must fit.
pub(super) struct Expected<'a> {
    pub(super) client_id: &'a str,
    /// The nonce of a login; `None`: a refresh, where one inside is not required.
    pub(super) nonce: Option<&'a str>,
    /// The access token that came with it.
    pub(super) access_token: &'a str,
    /// How it is signed: `at_hash` is made with the same hash.
    pub(super) alg: &'a Alg,
    pub(super) now: Timestamp,
}

/// Checks everything but the issuer. The error names the claim.
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
    if stated.is_some() && stated != hash_of(expected.access_token, expected.alg) {
        return Err("at_hash does not fit the access token".to_owned());
    }
    Ok(())
}

/// It is for us: alone, or for others beside us when `azp` says that it was issued to us.
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

/// `exp` and `nbf`, where they are (RFC 7519 §4.1).
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

/// The left half of the hash of the access token (OpenID Connect Core §3.1.3.6).
fn hash_of(access_token: &str, alg: &Alg) -> Option<String> {
    let hash = super::provider_key::hash_of(alg)?;
    let digest = digest::digest(hash, access_token.as_bytes());
    Some(URL_SAFE_NO_PAD.encode(&digest.as_ref()[..hash.output_len() / 2]))
}

/// When the person proved themselves, where the provider says so in a way that can be read.
pub(super) fn proved_at(claims: &Value) -> Option<i64> {
    claims.get("auth_time").and_then(super::values::time_of)
}
