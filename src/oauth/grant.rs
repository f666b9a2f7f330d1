//! The rules of the token endpoint for codes, refresh tokens and grants. RFC 6749 §4.1.3, §5.2 and §6,
//! RFC 7636 §4.6, RFC 8707 §2.2, RFC 9700 §4.14.

use super::error::{ErrorCode, Refusal, ensure};
use super::pkce::CodeChallenge;
use super::redirect_uri::{RedirectPolicy, RedirectUriRefused};
use super::scope::ScopeSet;
use crate::clock::{REPLICAS_APART, Timestamp};

/// An issued code: everything that a redemption must match.
#[derive(Clone, Debug)]
pub struct IssuedCode {
    /// The client it was issued to.
    pub client_id: String,
    /// The redirect URI that it was sent to.
    pub redirect_uri: String,
    /// The PKCE challenge that the verifier must meet.
    pub code_challenge: CodeChallenge,
    /// The resource: the audience of the tokens.
    pub resource: String,
    pub expires_at: Timestamp,
    pub issued_at: Timestamp,
}

/// The parameters with which a client redeems a code.
#[derive(Clone, Copy, Debug)]
pub struct Redemption<'a> {
    /// The authenticated client.
    pub client_id: &'a str,
    pub redirect_uri: Option<&'a str>,
    pub code_verifier: Option<&'a str>,
    /// `resource`, if sent, in our own spelling.
    pub resource: Option<&'a str>,
    /// The policy that the client's redirect URIs must satisfy now, if any.
    pub policy: Option<&'a RedirectPolicy>,
}

impl IssuedCode {
    /// Checks that the redeeming client is the one that requested the code. Says nothing about the code's
    /// age.
    pub fn check_holder(&self, attempt: &Redemption<'_>) -> Result<(), TokenRefused> {
        ensure(attempt.client_id == self.client_id, TokenRefused::OtherClient)?;
        let redirect_uri_agrees =
            attempt.redirect_uri.is_none_or(|presented| presented == self.redirect_uri);
        ensure(redirect_uri_agrees, TokenRefused::OtherRedirectUri)?;
        let verifier = attempt.code_verifier.ok_or(TokenRefused::NoVerifier)?;
        ensure(self.code_challenge.is_met_by(verifier), TokenRefused::WrongVerifier)
    }

    /// Checks that the code is unexpired, and that its redirect URI and resource are still allowed.
    pub fn check_use(&self, attempt: &Redemption<'_>, now: Timestamp) -> Result<(), TokenRefused> {
        ensure(now < self.expires_at, TokenRefused::ExpiredCode)?;
        // A clock that was set back must not extend the life of an old code. The tolerance allows for
        // replicas with different clocks.
        ensure(self.issued_at <= now.plus(REPLICAS_APART), TokenRefused::CodeOfTheFuture)?;
        if let Some(policy) = attempt.policy {
            policy.admits(&self.redirect_uri).map_err(TokenRefused::RedirectUriNotAllowed)?;
        }
        check_resource(&self.resource, attempt.resource)
    }
}

/// Checks the `resource` of a token request, in our own spelling. If absent, it means the grant's own.
pub fn check_resource(granted: &str, presented: Option<&str>) -> Result<(), TokenRefused> {
    let agrees = presented.is_none_or(|presented| presented == granted);
    ensure(agrees, TokenRefused::OtherResource)
}

/// Returns the scopes that a refresh asks for. They may only narrow the grant (RFC 6749 §6); if absent, all
/// of the grant.
///
/// A scope outside `consented_scopes` is refused. A scope inside it that the rules have taken away meanwhile is no
/// error; it is simply not granted.
pub fn narrowed(
    consented_scopes: &ScopeSet,
    presented: Option<&str>,
) -> Result<ScopeSet, TokenRefused> {
    let Some(presented) = presented else {
        return Ok(consented_scopes.clone());
    };
    let asked = ScopeSet::parse(presented).map_err(|_| TokenRefused::Scope)?;
    let asked: ScopeSet =
        asked.iter().filter(|scope| scope.as_str() != "offline_access").cloned().collect();
    if asked.is_empty() {
        return Ok(consented_scopes.clone());
    }
    ensure(asked.is_subset(consented_scopes), TokenRefused::WiderScope)?;
    Ok(asked)
}

/// Why the token endpoint refused a request.
///
/// All causes of `invalid_grant` look the same to the client; the log has the cause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefused {
    /// The grant type is not offered.
    #[error("this grant_type is not supported")]
    UnsupportedGrantType,
    /// A required parameter is absent or empty.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A parameter occurs more than once.
    #[error("a parameter was sent more than once")]
    RepeatedParameter,
    /// Never issued, or already deleted.
    #[error("the authorization code is not known")]
    UnknownCode,
    #[error("the authorization code has expired")]
    ExpiredCode,
    /// Issued by a replica whose clock is ahead, or before this clock was set back.
    #[error(
        "the authorization code was made in the future: the clocks of the replicas differ, or this one went back"
    )]
    CodeOfTheFuture,
    /// Redeemed before. The grant from the first redemption is revoked.
    #[error("the authorization code was redeemed before")]
    ReplayedCode,
    /// Too many wrong attempts have invalidated it.
    #[error("the authorization code was burnt by wrong attempts")]
    BurntCode,
    #[error("issued to another client")]
    OtherClient,
    /// Issued for another redirect URI.
    #[error("issued for another redirect_uri")]
    OtherRedirectUri,
    /// The configuration no longer allows its redirect URI.
    #[error("the redirect_uri of the code is not allowed any more: {0}")]
    RedirectUriNotAllowed(RedirectUriRefused),
    /// PKCE is required.
    #[error("code_verifier is missing")]
    NoVerifier,
    /// The verifier does not meet the challenge.
    #[error("code_verifier does not meet the challenge")]
    WrongVerifier,
    /// Never issued, or already deleted.
    #[error("the refresh token is not known")]
    UnknownRefreshToken,
    /// Not used for too long, or past the absolute end of the grant.
    #[error("the refresh token has expired")]
    ExpiredRefreshToken,
    #[error("the grant has ended")]
    EndedGrant,
    /// Used again after its successor was used, or after the grace period. The grant is revoked.
    #[error("the refresh token was used before")]
    ReusedRefreshToken,
    /// The identity provider no longer vouches for the person.
    #[error("the identity provider ended the session")]
    UpstreamEnded,
    /// The rules leave the person no scope.
    #[error("the person has no access any more")]
    NoAccess,
    /// Replayed too often within the grace period.
    #[error("the refresh token was replayed too often")]
    TooManyReplays,
    /// The resource is not that of the grant.
    #[error("resource is not the one this grant is for")]
    OtherResource,
    #[error("scope is malformed")]
    Scope,
    /// The scope exceeds the grant.
    #[error("scope exceeds what was granted")]
    WiderScope,
}

impl Refusal for TokenRefused {
    fn code(&self) -> ErrorCode {
        match self {
            Self::UnsupportedGrantType => ErrorCode::UnsupportedGrantType,
            Self::Missing(_) | Self::RepeatedParameter => ErrorCode::InvalidRequest,
            Self::UnknownCode
            | Self::ExpiredCode
            | Self::CodeOfTheFuture
            | Self::ReplayedCode
            | Self::BurntCode
            | Self::OtherClient
            | Self::OtherRedirectUri
            | Self::RedirectUriNotAllowed(_)
            | Self::NoVerifier
            | Self::WrongVerifier
            | Self::UnknownRefreshToken
            | Self::ExpiredRefreshToken
            | Self::EndedGrant
            | Self::ReusedRefreshToken
            | Self::UpstreamEnded
            | Self::NoAccess => ErrorCode::InvalidGrant,
            Self::TooManyReplays => ErrorCode::TemporarilyUnavailable,
            Self::OtherResource => ErrorCode::InvalidTarget,
            Self::Scope | Self::WiderScope => ErrorCode::InvalidScope,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn consented_scopes() -> ScopeSet {
        ScopeSet::parse("create:todos read:todos").unwrap()
    }

    #[test]
    fn rt_06_a_refresh_may_narrow_but_never_widen() {
        assert_eq!(narrowed(&consented_scopes(), None), Ok(consented_scopes()));
        assert_eq!(narrowed(&consented_scopes(), Some("")), Ok(consented_scopes()));
        assert_eq!(
            narrowed(&consented_scopes(), Some("read:todos offline_access")).unwrap().to_string(),
            "read:todos"
        );
        assert_eq!(
            narrowed(&consented_scopes(), Some("read:todos delete:todos")),
            Err(TokenRefused::WiderScope)
        );
    }

    #[test]
    fn rt_07_a_resource_may_only_be_the_grants_own() {
        let ours = "https://mcp.example.com/mcp";
        assert_eq!(check_resource(ours, None), Ok(()));
        assert_eq!(check_resource(ours, Some(ours)), Ok(()));
        assert_eq!(
            check_resource(ours, Some("https://mcp.example.com/other")),
            Err(TokenRefused::OtherResource)
        );
    }
}
