//! The userinfo endpoint (OpenID Connect Core §5.3): JSON, or a JWT that the provider signed.

use std::sync::Arc;

use axum::http::{Request, header};
use serde_json::Value;

use super::UpstreamInner;
use super::claims::Userinfo;
use super::id_token::check_lifetime;
use super::provider::Provider;
use super::signed::{Signed, SignedRefused};
use super::values::{Claims, UNREADABLE, object_of};

/// Result of a userinfo request, and why it supplied nothing.
pub(super) struct UserinfoOutcome {
    pub(super) userinfo: Userinfo,
    /// The reason, for the administrator.
    pub(super) trouble: Option<String>,
}

impl UserinfoOutcome {
    pub(super) fn not() -> Self {
        Self { userinfo: Userinfo::NotAsked, trouble: None }
    }
}

/// Reasons why userinfo supplied nothing.
enum Silence {
    /// An outage.
    Failed(String),
    /// The endpoint responded without usable claims about the person.
    TellsNothing(String),
}

impl UpstreamInner {
    /// Requests userinfo about the person whose `sub` in the ID token is `subject`.
    pub(super) async fn userinfo(
        &self,
        provider: &Arc<Provider>,
        access_token: &str,
        subject: &str,
    ) -> UserinfoOutcome {
        let Some(endpoint) = &provider.metadata.userinfo_endpoint else {
            return UserinfoOutcome::not();
        };
        let (userinfo, reason) =
            match self.ask_userinfo(provider, endpoint, access_token, subject).await {
                Ok(claims) => {
                    return UserinfoOutcome { userinfo: Userinfo::Claims(claims), trouble: None };
                }
                Err(Silence::Failed(reason)) => (Userinfo::Failed, reason),
                Err(Silence::TellsNothing(reason)) => (Userinfo::TellsNothing, reason),
            };
        tracing::warn!(reason, "userinfo tells nothing of the person");
        UserinfoOutcome { userinfo, trouble: Some(format!("userinfo: {reason}")) }
    }

    async fn ask_userinfo(
        &self,
        provider: &Arc<Provider>,
        endpoint: &url::Url,
        access_token: &str,
        subject: &str,
    ) -> Result<Value, Silence> {
        let request = Request::get(endpoint.as_str())
            .header(header::AUTHORIZATION, format!("Bearer {access_token}"))
            .header(header::ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|error| Silence::Failed(error.to_string()))?;
        let response = self.http.send(request).await;
        let response = response.map_err(|error| Silence::Failed(error.to_string()))?;
        let status = response.status();
        if !status.is_success() {
            let reason = format!("it answers {status}");
            let later = matches!(status.as_u16(), 408 | 429);
            let tells_nothing = status.is_client_error() && !later;
            return Err(if tells_nothing {
                Silence::TellsNothing(reason)
            } else {
                Silence::Failed(reason)
            });
        }
        let claims = match object_of(response.body()) {
            Ok(claims) => Claims::from(claims),
            Err(reason) => match jwt_in(response.body()) {
                Some(jwt) => self.signed_userinfo(provider, &jwt).await?,
                // The endpoint itself responded, but with something that we cannot read.
                None if serde_json::from_slice::<Value>(response.body()).is_ok()
                    || reason.starts_with(UNREADABLE) =>
                {
                    return Err(Silence::TellsNothing(reason));
                }
                // A proxy or load balancer sends its own page while the provider is down.
                None => return Err(Silence::Failed(reason)),
            },
        };
        // OpenID Connect Core §5.3.2: claims with another `sub` must not be used.
        match claims.required_text("sub") {
            Ok(sub) if sub == subject => Ok(claims.into_value()),
            Ok(_) => Err(Silence::TellsNothing("sub is another person's".to_owned())),
            Err(reason) => Err(Silence::TellsNothing(reason)),
        }
    }

    /// Verifies signed userinfo and returns its claims: our provider's keys, its issuer, our audience
    /// (§5.3.2).
    async fn signed_userinfo(
        &self,
        provider: &Arc<Provider>,
        jwt: &str,
    ) -> Result<Claims, Silence> {
        let refused = |refused: SignedRefused| match refused {
            SignedRefused::Unreadable(reason) | SignedRefused::Forged(reason) => {
                Silence::TellsNothing(reason)
            }
            failed @ SignedRefused::KeysUnavailable(_) => Silence::Failed(failed.to_string()),
        };
        let signed = Signed::parse(jwt).map_err(refused)?;
        let claims = self.signed_claims(provider, &signed).await.map_err(refused)?;
        let check = || {
            self.check_issuer(&claims)?;
            if !claims.audiences()?.contains(&self.config.client_id.as_str()) {
                return Err("aud does not name us".to_owned());
            }
            check_lifetime(&claims, self.clock.now())
        };
        check().map_err(Silence::TellsNothing)?;
        Ok(claims)
    }
}

/// Returns the JWT in a body, which may be bare or a JSON string.
fn jwt_in(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim();
    let jwt = serde_json::from_str::<String>(text).unwrap_or_else(|_| text.to_owned());
    let part =
        |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
    let is_jwt = matches!(jwt.split('.').count(), 3 | 5) && jwt.split('.').all(part);
    (is_jwt && !jwt.starts_with('.')).then_some(jwt)
}
