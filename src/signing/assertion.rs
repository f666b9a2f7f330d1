//! Verifies the assertions about callers that we signed ourselves. An MCP server behind the gateway brings one back
//! when it exchanges it for a token (RFC 8693).

use serde::Deserialize;

use super::{KeyRing, MAX_TOKEN, TokenInvalid, TokenType, proven};
use crate::clock::{REPLICAS_APART, Timestamp};

/// Claims of an assertion that say whose call it is about. An assertion with a missing or mistyped claim is
/// rejected.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct CallerAssertion {
    /// Our issuer, `public_url` byte for byte.
    pub iss: String,
    /// The URL of the target that got the assertion.
    pub aud: String,
    /// Our identifier of the person.
    pub sub: String,
    /// The client that called.
    pub client_id: String,
    /// The grant that the call was made under.
    pub grant_id: String,
    /// Time of issue, in Unix seconds.
    pub iat: i64,
    /// Expiry, in Unix seconds.
    pub exp: i64,
}

impl KeyRing {
    /// Verifies an assertion, except for its audience and its grant. Nothing is cached: each call has an
    /// assertion of its own.
    pub fn verify_assertion(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<CallerAssertion, TokenInvalid> {
        if token.len() > MAX_TOKEN || !token.is_ascii() {
            return Err(TokenInvalid::Malformed);
        }
        let is_typ = |typ: &str| typ == TokenType::Assertion.typ();
        let claims: CallerAssertion = proven(&self.keys(), token, is_typ)?;
        if claims.iss != *self.issuer {
            return Err(TokenInvalid::Claims);
        }
        if now >= Timestamp::from_unix(claims.exp) {
            return Err(TokenInvalid::Expired);
        }
        if Timestamp::from_unix(claims.iat) > now.plus(REPLICAS_APART) {
            return Err(TokenInvalid::OfTheFuture);
        }
        Ok(claims)
    }
}
