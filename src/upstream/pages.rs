//! Sign-ins to our own pages: for administrators, and for people at `/account`. No client is involved
//! and no code comes of it; the session it leaves is asked about again like any other.

use oauth2::{PkceCodeChallenge, PkceCodeVerifier};
use serde::{Deserialize, Serialize};
use url::Url;

use super::{CallbackParams, LoginFailed, SignedIn, Upstream, UpstreamError};
use crate::clock::Timestamp;
use crate::oauth::secret::random_text;
use crate::storage::SessionUpdate;

/// How old a proof may be when a new one was asked for: the time a person needs to type.
const NEW_PROOF: i64 = 10 * 60;

/// What must be remembered of a sign-in until the person comes back.
#[derive(Clone, Serialize, Deserialize)]
pub struct PagesLogin {
    nonce: String,
    pkce_verifier: String,
    /// Whether the person must prove themselves anew.
    anew: bool,
}

impl Upstream {
    /// Makes ready a sign-in to our pages: where to send the browser, and what to remember. With
    /// `anew` the provider is asked for a proof even when it knows the browser; else for this `prompt`.
    pub async fn prepare_pages_login(
        &self,
        state: &str,
        anew: bool,
        prompt: Option<&str>,
    ) -> Result<(Url, PagesLogin), UpstreamError> {
        let inner = &self.0;
        let provider = self.provider().await?;
        let verifier = PkceCodeVerifier::new(random_text());
        let nonce = random_text();
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
        let mut url =
            inner.authorization_request(&provider.metadata, state, &nonce, challenge.as_str());
        if anew {
            let asked = inner.config.preset.reauth_params;
            let kept: Vec<(String, String)> = url
                .query_pairs()
                .filter(|(name, _)| !asked.iter().any(|(known, _)| known == name))
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect();
            url.query_pairs_mut().clear().extend_pairs(kept).extend_pairs(asked);
        } else {
            url = super::with_prompt(url, prompt);
        }
        Ok((url, PagesLogin { nonce, pkce_verifier: verifier.secret().clone(), anew }))
    }

    /// Turns the provider's answer into a person and tokens, and says when the person last proved who
    /// they are: long ago, when the provider does not tell.
    pub async fn finish_pages_login(
        &self,
        login: &PagesLogin,
        answer: CallbackParams<'_>,
    ) -> Result<(SessionUpdate, Timestamp), LoginFailed> {
        let (nonce, verifier) = (&login.nonce, &login.pkce_verifier);
        let SignedIn { session, proved_at, .. } = self.finish(nonce, verifier, answer).await?;
        let now = self.0.clock.now().unix();
        let proved_at = match proved_at {
            Some(at) if login.anew && at < now - NEW_PROOF => {
                let reason = "a new proof was asked for, and the provider answered with an old one";
                return Err(LoginFailed::Untrusted(reason.to_owned()));
            }
            Some(at) => at.min(now),
            // GitHub and Google cannot be asked: that the person came back is all there is.
            None if login.anew && self.0.config.preset.reauth_params.is_empty() => now,
            // Who is asked with `max_age` must answer with `auth_time` (OIDC Core §3.1.2.1): without it
            // somebody may have taken the question out of the address.
            None if login.anew => {
                let reason = "a new proof was asked for, and the provider does not say when it was";
                return Err(LoginFailed::Untrusted(reason.to_owned()));
            }
            None => 0,
        };
        Ok((session, Timestamp::from_unix(proved_at)))
    }
}
