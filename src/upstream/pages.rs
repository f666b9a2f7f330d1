//! Sign-ins to our own pages, for administrators and for people at `/account`. No client is involved and no
//! code is issued. The resulting session is re-checked like any other.

use oauth2::{PkceCodeChallenge, PkceCodeVerifier};
use serde::{Deserialize, Serialize};
use url::Url;

use super::account::with_choice;
use super::{CallbackParams, LoginFailed, SignedIn, Upstream, UpstreamError};
use crate::clock::Timestamp;
use crate::oauth::secret::random_text;
use crate::storage::SessionUpdate;

/// Maximum age of an authentication that we requested, in seconds: 10 minutes for the person to type.
const NEW_PROOF: i64 = 10 * 60;

/// Login state that must be stored until the callback.
#[derive(Clone, Serialize, Deserialize)]
pub struct PagesLogin {
    nonce: String,
    pkce_verifier: String,
    /// Whether the person must authenticate again.
    anew: bool,
}

/// What a sign-in to our pages asks of the provider.
#[derive(Clone, Copy, Debug, Default)]
pub struct PagesWish<'a> {
    /// The provider must authenticate the person even if it knows the browser. Then the others do not count.
    pub anew: bool,
    pub prompt: Option<&'a str>,
    /// The person can choose another account, if the provider can offer that.
    pub other_account: bool,
}

impl Upstream {
    /// Prepares a sign-in to our pages. Returns the URL for the browser and the state to store.
    pub async fn prepare_pages_login(
        &self,
        state: &str,
        wish: PagesWish<'_>,
    ) -> Result<(Url, PagesLogin), UpstreamError> {
        let PagesWish { anew, prompt, other_account } = wish;
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
            if other_account {
                url = with_choice(url, self.choice_of_account().await);
            }
        }
        Ok((url, PagesLogin { nonce, pkce_verifier: verifier.secret().clone(), anew }))
    }

    /// Handles the callback. Returns the person with tokens, and when the person last authenticated. If the
    /// provider does not say when, that time is the Unix epoch, which counts as long ago.
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
            // GitHub and Google cannot be asked to authenticate the person again. The completed sign-in is
            // the only evidence.
            None if login.anew && self.0.config.preset.reauth_params.is_empty() => now,
            // A provider that receives `max_age` must return `auth_time` (OIDC Core §3.1.2.1). If it is
            // missing, somebody may have removed the parameter from the URL.
            None if login.anew => {
                let reason = "a new proof was asked for, and the provider does not say when it was";
                return Err(LoginFailed::Untrusted(reason.to_owned()));
            }
            None => 0,
        };
        Ok((session, Timestamp::from_unix(proved_at)))
    }
}
