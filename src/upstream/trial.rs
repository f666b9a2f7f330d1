//! A sign-in that leads nowhere: for `check --login`, where an administrator watches their own.

use openidconnect::{PkceCodeChallenge, PkceCodeVerifier};
use url::Url;

use super::{CallbackParams, LoginFailed, Upstream, UpstreamError};
use crate::oauth::secret::random_text;
use crate::storage::{SessionUpdate, UpstreamTokens};

/// A trial sign-in on its way. It has no approval and makes no code: nothing of ours can come of it.
pub struct TrialLogin {
    url: Url,
    state: String,
    nonce: String,
    verifier: String,
}

impl TrialLogin {
    /// Where to send the browser.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }
}

impl Upstream {
    /// Makes ready a trial sign-in.
    pub async fn trial_login(&self) -> Result<TrialLogin, UpstreamError> {
        let inner = &self.0;
        let provider = inner.provider().await?;
        let verifier = PkceCodeVerifier::new(random_text());
        let (state, nonce) = (random_text(), random_text());
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
        let url = inner.authorize_url(&provider, &state, &nonce, challenge);
        Ok(TrialLogin { url, state, nonce, verifier: verifier.secret().clone() })
    }

    /// Turns the query of the callback into a person, as a real login would.
    pub async fn finish_trial(
        &self,
        trial: &TrialLogin,
        query: &str,
    ) -> Result<SessionUpdate, LoginFailed> {
        let param = |name: &str| {
            form_urlencoded::parse(query.as_bytes())
                .find_map(|(known, value)| (known == name).then(|| value.into_owned()))
        };
        if param("state").as_deref() != Some(trial.state.as_str()) {
            return Err(LoginFailed::Untrusted("state is not ours".to_owned()));
        }
        let [iss, code, error, description] =
            ["iss", "code", "error", "error_description"].map(param);
        let (nonce, verifier) = (&trial.nonce, &trial.verifier);
        let answer = CallbackParams {
            iss: iss.as_deref(),
            code: code.as_deref(),
            error: error.as_deref(),
            error_description: description.as_deref(),
        };
        Ok(self.finish(nonce, verifier, answer).await?.0)
    }

    /// Refreshes once. The error is for the administrator.
    pub async fn trial_refresh(&self, refresh_token: &str) -> Result<UpstreamTokens, String> {
        let provider = self.0.provider().await.map_err(|error| error.to_string())?;
        match self.0.refresh(&provider, refresh_token).await {
            Ok(answer) => Ok(answer.tokens()),
            Err(failure) => Err(failure.to_string()),
        }
    }
}
