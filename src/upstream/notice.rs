//! What the identity provider tells us by itself: somebody has signed out (OpenID Connect Back-Channel
//! Logout 1.0), or must be cut off everywhere (Global Token Revocation, as Okta's Universal Logout
//! sends it).

use std::time::Duration;

use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::oidc::subject_of;
use super::provider::Provider;
use super::{Inner, Upstream, UpstreamError};
use crate::clock::Timestamp;
use crate::config::SubjectForm;
use crate::storage::{Notice, Whom};

/// A message is at most this old.
const FRESH: Duration = Duration::from_mins(5);
/// Clocks may differ by this much.
const SKEW: Duration = Duration::from_mins(1);
/// Longest message read.
const MAX: usize = 16 * 1024;

const ALGORITHMS: [Algorithm; 7] = [
    Algorithm::RS256,
    Algorithm::PS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
const REVOCATION_TYPE: &str = "global-token-revocation+jwt";

/// Why a message was not acted upon.
#[derive(Debug, thiserror::Error)]
pub enum NoticeRefused {
    /// Not a message of our provider to us.
    #[error("{0}")]
    Invalid(&'static str),
    /// Its keys cannot be had now.
    #[error("the provider's keys cannot be had: {0}")]
    Unavailable(String),
}

#[derive(Deserialize)]
struct LogoutToken {
    iat: i64,
    jti: String,
    exp: Option<i64>,
    sub: Option<String>,
    sid: Option<String>,
    // Where people are known by these (Entra).
    tid: Option<String>,
    oid: Option<String>,
    #[serde(default)]
    events: Map<String, Value>,
    nonce: Option<Value>,
}

#[derive(Deserialize)]
struct RevocationToken {
    iat: i64,
    jti: String,
    exp: i64,
    sub: String,
}

/// Whom a revocation request is about (RFC 9493).
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

impl Upstream {
    /// Reads a logout token (§2.6): whose session ends.
    pub async fn read_logout_token(&self, token: &str) -> Result<Notice, NoticeRefused> {
        let inner = &self.0;
        let (claims, _): (LogoutToken, _) = inner.verify(token, &inner.config.client_id).await?;
        let has_event = claims.events.get(LOGOUT_EVENT).is_some_and(Value::is_object);
        require(has_event, "it is not a logout token")?;
        require(claims.nonce.is_none(), "a logout token has no nonce")?;
        inner.check_times(claims.iat, claims.exp)?;
        let named = |text: &Option<String>| text.as_ref().is_none_or(|text| !text.is_empty());
        require(named(&claims.sub) && named(&claims.sid), "it names nobody")?;
        let stored = inner.stored_subject(&claims);
        let whom = match (stored.or(claims.sub), claims.sid) {
            (None, None) => return Err(NoticeRefused::Invalid("it names nobody")),
            (subject, Some(sid)) => Whom::Session { sid, subject },
            (Some(subject), None) => Whom::Subject(subject),
        };
        Ok(inner.notice(&claims.jti, claims.iat, whom))
    }

    /// Reads a request for global token revocation: the bearer token proves the provider, the body
    /// says whom. `endpoint` is our URL that was called.
    pub async fn read_revocation(
        &self,
        token: &str,
        body: &[u8],
        endpoint: &str,
    ) -> Result<Notice, NoticeRefused> {
        let inner = &self.0;
        let (claims, typ): (RevocationToken, _) = inner.verify(token, endpoint).await?;
        require(typ.as_deref() == Some(REVOCATION_TYPE), "the token is of another type")?;
        require(claims.sub == inner.config.client_id, "the token is about another client")?;
        inner.check_times(claims.iat, Some(claims.exp))?;
        let request: RevocationRequest = serde_json::from_slice(body)
            .map_err(|_| NoticeRefused::Invalid("sub_id is missing or of another format"))?;
        let whom = match request.sub_id {
            SubjectId::IssSub { iss, sub } => {
                let ours = iss == inner.config.issuer
                    || inner.config.preset.issuer_aliases.contains(&iss.as_str());
                require(ours, "sub_id is of another issuer")?;
                require(!sub.is_empty(), "sub_id names nobody")?;
                Whom::Subject(sub)
            }
            SubjectId::Email { email } => Whom::Email(email),
        };
        Ok(inner.notice(&claims.jti, claims.iat, whom))
    }
}

fn require(holds: bool, otherwise: &'static str) -> Result<(), NoticeRefused> {
    if holds { Ok(()) } else { Err(NoticeRefused::Invalid(otherwise)) }
}

impl Inner {
    /// Who a logout token is about in the form in which people are stored, where the preset has one of its
    /// own and the token tells all of it. What it calls `sub` is compared with that claim otherwise.
    fn stored_subject(&self, claims: &LogoutToken) -> Option<String> {
        let form = self.config.preset.subject;
        let named = serde_json::json!({ "sub": claims.sub, "tid": claims.tid, "oid": claims.oid });
        (form != SubjectForm::Sub).then(|| subject_of(form, &named)).flatten()
    }

    /// Forgotten when it would be too old anyway, counted from when it was made: the same message has the
    /// same end whenever it comes.
    fn notice(&self, jti: &str, iat: i64, whom: Whom) -> Notice {
        let issuer = self.config.issuer.clone();
        let forget_at = Timestamp::from_unix(iat).plus(FRESH + SKEW + SKEW);
        Notice::new(issuer, jti, whom, forget_at)
    }

    fn check_times(&self, iat: i64, exp: Option<i64>) -> Result<(), NoticeRefused> {
        let now = self.clock.now();
        let issued = Timestamp::from_unix(iat);
        require(issued <= now.plus(SKEW), "it was issued in the future")?;
        require(issued >= now.minus(FRESH + SKEW), "it is too old")?;
        let expired = exp.is_some_and(|exp| Timestamp::from_unix(exp) <= now.minus(SKEW));
        require(!expired, "it has expired")
    }

    /// Verifies signature, issuer and audience; answers the claims and the header's `typ`.
    async fn verify<T: DeserializeOwned>(
        &self,
        token: &str,
        audience: &str,
    ) -> Result<(T, Option<String>), NoticeRefused> {
        require(token.len() <= MAX, "it is too long")?;
        let header = jsonwebtoken::decode_header(token)
            .map_err(|_| NoticeRefused::Invalid("it is not a signed JWT"))?;
        require(ALGORITHMS.contains(&header.alg), "its algorithm is not accepted")?;
        let provider = self.provider().await.map_err(|error| match error {
            UpstreamError::Unreachable(reason) | UpstreamError::Misconfigured(reason) => {
                NoticeRefused::Unavailable(reason)
            }
        })?;
        let key = match key_of(&provider, &header) {
            Some(key) => key,
            None => self
                .with_new_keys(&provider)
                .await
                .map_err(|error| NoticeRefused::Unavailable(error.to_string()))?
                .and_then(|renewed| key_of(&renewed, &header))
                .ok_or(NoticeRefused::Invalid("it is signed by an unknown key"))?,
        };
        let key = DecodingKey::from_jwk(&key)
            .map_err(|_| NoticeRefused::Invalid("its key cannot be used"))?;
        let mut validation = Validation::new(header.alg);
        validation.validate_exp = false; // by our own clock
        let mut issuers = vec![provider.metadata.issuer().as_str()];
        issuers.extend(self.config.preset.issuer_aliases);
        validation.set_issuer(&issuers);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["iss", "aud"]);
        let claims = jsonwebtoken::decode::<T>(token, &key, &validation)
            .map_err(|_| NoticeRefused::Invalid("its signature, issuer or audience is wrong"))?
            .claims;
        Ok((claims, header.typ))
    }
}

/// The provider's key for signatures that the header names, or its only one.
fn key_of(provider: &Provider, header: &jsonwebtoken::Header) -> Option<Jwk> {
    let keys = serde_json::to_value(provider.metadata.jwks()).ok()?;
    let mut keys: JwkSet = serde_json::from_value(keys).ok()?;
    keys.keys.retain(|key| key.common.public_key_use != Some(PublicKeyUse::Encryption));
    match (&header.kid, keys.keys.as_slice()) {
        (Some(kid), _) => keys.find(kid).cloned(),
        (None, [only]) => Some(only.clone()),
        (None, _) => None,
    }
}
