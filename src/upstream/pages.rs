//! Sign-ins to our own pages: for administrators, and for people at `/account`. No client is involved
//! and no code comes of it; the session it leaves is asked about again like any other.

use openidconnect::{PkceCodeChallenge, PkceCodeVerifier};
use serde::{Deserialize, Serialize};
use url::Url;

use super::{LoginFailed, Upstream, UpstreamError};
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
    /// `anew` the provider is asked for a proof even when it knows the browser.
    pub async fn prepare_pages_login(
        &self,
        state: &str,
        anew: bool,
    ) -> Result<(Url, PagesLogin), UpstreamError> {
        let inner = &self.0;
        let provider = self.provider().await?;
        let verifier = PkceCodeVerifier::new(random_text());
        let nonce = random_text();
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
        let mut url = inner.authorize_url(&provider, state, &nonce, challenge);
        if anew {
            let asked = inner.config.preset.proof_anew;
            let kept: Vec<(String, String)> = url
                .query_pairs()
                .filter(|(name, _)| !asked.iter().any(|(known, _)| known == name))
                .map(|(name, value)| (name.into_owned(), value.into_owned()))
                .collect();
            url.query_pairs_mut().clear().extend_pairs(kept).extend_pairs(asked);
        }
        Ok((url, PagesLogin { nonce, pkce_verifier: verifier.secret().clone(), anew }))
    }

    /// Turns the provider's answer into a person and tokens; parameters as at the callback.
    pub async fn finish_pages_login(
        &self,
        login: &PagesLogin,
        iss: Option<&str>,
        code: Option<&str>,
        error: Option<&str>,
    ) -> Result<SessionUpdate, LoginFailed> {
        let (nonce, verifier) = (&login.nonce, &login.pkce_verifier);
        let (session, proved_at) = self.finish(nonce, verifier, iss, code, error).await?;
        // Not every provider says when; those that do are taken at their word.
        let oldest = self.0.clock.now().unix() - NEW_PROOF;
        if login.anew && proved_at.is_some_and(|at| at < oldest) {
            let reason = "a new proof was asked for, and the provider answered with an old one";
            return Err(LoginFailed::Untrusted(reason.to_owned()));
        }
        Ok(session)
    }
}
