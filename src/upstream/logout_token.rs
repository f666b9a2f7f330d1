//! Logout messages that the identity provider sends on its own: a person has signed out (OpenID Connect
//! Back-Channel Logout 1.0), or must lose all access (Global Token Revocation, which Okta sends as Universal
//! Logout).

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::id_token::SKEW;
use super::oidc::subject_of;
use super::signed::{Signed, SignedRefused};
use super::values::{Claims, MAX_SID, MAX_SUBJECT, check_identifier};
use super::{Upstream, UpstreamError, UpstreamInner};
use crate::clock::Timestamp;
use crate::config::SubjectForm;
use crate::storage::{LogoutNotice, LogoutSubject};

/// Maximum age of a message, 5 minutes (plus the clock skew). Replay protection stores each message for about
/// that long.
const FRESH: Duration = Duration::from_mins(5);
/// Longest token that is read, in bytes. Limits the work that strangers can cause.
const MAX: usize = 16 * 1024;
/// Longest email address that is accepted, in bytes. We store no longer one, so a longer one can match
/// nobody.
const MAX_EMAIL: usize = 256;

const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
const REVOCATION_TYPE: &str = "global-token-revocation+jwt";

/// Reasons why a message was rejected.
#[derive(Debug, thiserror::Error)]
pub enum NoticeRefused {
    /// Not a valid message of our provider for us.
    #[error("{0}")]
    Invalid(String),
    /// The provider's signing keys cannot be fetched now.
    #[error("the provider's keys cannot be had: {0}")]
    Unavailable(String),
}

/// The subject of a revocation request (RFC 9493).
#[derive(Deserialize)]
#[serde(tag = "format", rename_all = "snake_case")]
enum SubjectId {
    IssSub { iss: String, sub: String },
    Email { email: String },
}

#[derive(Deserialize)]
struct RevocationRequest {
    sub_id: SubjectId,
}

impl From<SignedRefused> for NoticeRefused {
    fn from(refused: SignedRefused) -> Self {
        match refused {
            SignedRefused::Unreadable(reason) | SignedRefused::Forged(reason) => {
                Self::Invalid(reason)
            }
            SignedRefused::KeysUnavailable(reason) => Self::Unavailable(reason),
        }
    }
}

impl From<String> for NoticeRefused {
    fn from(reason: String) -> Self {
        Self::Invalid(reason)
    }
}

impl Upstream {
    /// Verifies a logout token (Back-Channel Logout §2.6) and returns whose sessions end. Other audiences
    /// besides us are allowed, because a logout token only ends sessions and grants no access.
    pub async fn read_logout_token(&self, token: &str) -> Result<LogoutNotice, NoticeRefused> {
        let inner = &self.0;
        let (claims, _) = inner.verify(token, &inner.config.client_id).await?;
        let events = claims.get("events").and_then(|events| events.get(LOGOUT_EVENT));
        require(events.is_some_and(Value::is_object), "it is not a logout token")?;
        require(claims.get("nonce").is_none(), "a logout token has no nonce")?;
        let issued = inner.check_times(&claims)?;
        let named = |name, longest| match claims.text(name) {
            Ok(Some(text)) if text.is_empty() => Err(format!("{name} is empty")),
            Ok(Some(text)) => check_identifier(name, &text, longest).map(|()| Some(text)),
            read => read,
        };
        let (subject, sid) = (named("sub", MAX_SUBJECT)?, named("sid", MAX_SID)?);
        let jti = claims.required_text("jti")?;
        // Some presets identify people by other claims than `sub` (Entra). The result must match the stored
        // subject.
        let form = inner.config.preset.subject;
        let claims = claims.into_value();
        let stored = (form != SubjectForm::Sub).then(|| subject_of(form, &claims)).flatten();
        check_identifier("tid and oid", stored.as_deref().unwrap_or_default(), MAX_SUBJECT)?;
        let whom = match (stored.or(subject), sid) {
            (None, None) => {
                return Err("it names nobody: sub and sid are missing".to_owned().into());
            }
            (subject, Some(sid)) => LogoutSubject::Session { sid, subject },
            (Some(subject), None) => LogoutSubject::Subject(subject),
        };
        Ok(inner.notice(&jti, issued, whom))
    }

    /// Verifies a Global Token Revocation request. The bearer token authenticates the provider; the body
    /// names the person. `endpoint` is our URL that received the request and must be the token's audience.
    pub async fn read_revocation(
        &self,
        token: &str,
        body: &[u8],
        endpoint: &str,
    ) -> Result<LogoutNotice, NoticeRefused> {
        let inner = &self.0;
        let (claims, typ) = inner.verify(token, endpoint).await?;
        require(typ.as_deref() == Some(REVOCATION_TYPE), "the token is of another type")?;
        let client = claims.required_text("sub")?;
        require(client == inner.config.client_id, "the token is about another client")?;
        claims.required_time("exp")?;
        let issued = inner.check_times(&claims)?;
        let request: RevocationRequest = serde_json::from_slice(body)
            .map_err(|_| "sub_id is missing or of another format".to_owned())?;
        let whom = match request.sub_id {
            SubjectId::IssSub { iss, sub } => {
                require(inner.is_our_issuer(&iss), "sub_id is of another issuer")?;
                require(!sub.is_empty(), "sub_id names nobody")?;
                check_identifier("sub of sub_id", &sub, MAX_SUBJECT)?;
                LogoutSubject::Subject(sub)
            }
            SubjectId::Email { email } => {
                check_identifier("email of sub_id", &email, MAX_EMAIL)?;
                LogoutSubject::Email(email)
            }
        };
        Ok(inner.notice(&claims.required_text("jti")?, issued, whom))
    }
}

fn require(holds: bool, otherwise: &str) -> Result<(), NoticeRefused> {
    if holds { Ok(()) } else { Err(NoticeRefused::Invalid(otherwise.to_owned())) }
}

impl UpstreamInner {
    /// Builds the notice. It expires when the message would be too old anyway, measured from its `iat`, so
    /// that every delivery of the same message has the same expiry.
    fn notice(&self, jti: &str, issued: Timestamp, whom: LogoutSubject) -> LogoutNotice {
        let issuer = self.config.issuer.clone();
        LogoutNotice::new(issuer, jti, whom, issued.plus(FRESH + SKEW + SKEW))
    }

    /// Checks `iat` and `exp`, and returns the time of issue.
    fn check_times(&self, claims: &Claims) -> Result<Timestamp, NoticeRefused> {
        let now = self.clock.now();
        let issued = Timestamp::from_unix(claims.required_time("iat")?);
        require(issued <= now.plus(SKEW), "iat: it was issued in the future, by our clock")?;
        require(issued >= now.minus(FRESH + SKEW), "iat: it is too old, by our clock")?;
        let expires = claims.time("exp")?.map(Timestamp::from_unix);
        let expired = expires.is_some_and(|expires| expires <= now.minus(SKEW));
        require(!expired, "exp: it has expired, by our clock")?;
        Ok(issued)
    }

    /// Verifies signature, issuer and audience. Returns the claims and the header's `typ`.
    async fn verify(
        &self,
        token: &str,
        audience: &str,
    ) -> Result<(Claims, Option<String>), NoticeRefused> {
        require(token.len() <= MAX, "it is too long")?;
        let signed = Signed::parse(token)?;
        let provider = self.provider().await.map_err(|error| match error {
            UpstreamError::Unreachable(reason) | UpstreamError::Misconfigured(reason) => {
                NoticeRefused::Unavailable(reason)
            }
        })?;
        let claims = self.signed_claims(&provider, &signed).await?;
        self.check_issuer(&claims)?;
        require(claims.audiences()?.contains(&audience), "aud does not name us")?;
        if claims
            .time("nbf")?
            .is_some_and(|at| Timestamp::from_unix(at) > self.clock.now().plus(SKEW))
        {
            return Err("nbf: not valid yet, by our clock".to_owned().into());
        }
        Ok((claims, signed.typ))
    }
}
