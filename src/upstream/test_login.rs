//! Test logins that give nobody access, for `check --login`, where administrators test their own sign-in.

use oauth2::{PkceCodeChallenge, PkceCodeVerifier};
use url::Url;

use super::recheck::About;
use super::{CallbackParams, LoginFailed, SignedIn, Upstream, UpstreamError};
use crate::oauth::secret::random_text;
use crate::policy::FactSet;
use crate::storage::{SessionUpdate, UpstreamSession, UpstreamTokens};

/// A test login in progress. It has no approval and issues no code, so nobody gains access by it.
pub struct TrialLogin {
    url: Url,
    state: String,
    nonce: String,
    verifier: String,
}

impl TrialLogin {
    /// Returns the URL for the browser.
    pub fn url(&self) -> &str {
        self.url.as_str()
    }
}

impl Upstream {
    pub async fn trial_login(&self) -> Result<TrialLogin, UpstreamError> {
        let inner = &self.0;
        let provider = inner.provider().await?;
        let verifier = PkceCodeVerifier::new(random_text());
        let (state, nonce) = (random_text(), random_text());
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
        let url =
            inner.authorization_request(&provider.metadata, &state, &nonce, challenge.as_str());
        Ok(TrialLogin { url, state, nonce, verifier: verifier.secret().clone() })
    }

    /// Handles the query of the callback with the same code as a real login.
    pub async fn finish_trial(
        &self,
        trial: &TrialLogin,
        query: &str,
    ) -> Result<TrialSession, LoginFailed> {
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
        let SignedIn { session, tolerated, trouble, .. } =
            self.finish(nonce, verifier, answer).await?;
        Ok(TrialSession { session, tolerated, trouble })
    }

    /// Refreshes once and reads the response as a re-check does. The error is for the administrator.
    pub async fn trial_refresh(&self, trial: &TrialSession) -> Result<TrialRefresh, String> {
        let inner = &self.0;
        let now = inner.clock.now();
        let SessionUpdate { issuer, subject, person, tokens, .. } = trial.session.clone();
        let session = UpstreamSession {
            id: String::new(),
            issuer,
            subject,
            alive: true,
            person,
            tokens,
            version: 0,
            last_ok_at: now,
            facts_read_at: now,
            reused_facts: FactSet::default(),
        };
        let provider = inner.provider().await.map_err(|error| error.to_string())?;
        let refresh_token = session.tokens.refresh_token.as_deref().unwrap_or_default();
        let answer = inner.refresh(&provider, refresh_token).await;
        let answer = answer.map_err(|failure| failure.to_string())?;
        match inner.read_answer(&provider, &session, &answer).await {
            About::SamePerson(_) | About::PartlyKnown(_) => Ok(TrialRefresh {
                has_id_token: answer.has_id_token(),
                tokens: answer.tokens_after(&session.tokens, now),
                tolerated: answer.tolerated,
            }),
            About::SomebodyElse(reason) => Err(reason.to_owned()),
            About::TooOld => Err("it tells nothing new of the person".to_owned()),
            About::CannotTell(reason) => Err(reason),
        }
    }
}

/// Result of a test login.
pub struct TrialSession {
    /// The session that a real login would store.
    pub session: SessionUpdate,
    /// Details of the token response that the server tolerates.
    pub tolerated: Vec<String>,
    /// Why some facts about the person are unknown.
    pub trouble: Option<String>,
}

/// Result of a test refresh.
pub struct TrialRefresh {
    /// The tokens after the refresh.
    pub tokens: UpstreamTokens,
    /// Whether the response contained an ID token.
    pub has_id_token: bool,
    /// Details of the token response that the server tolerates.
    pub tolerated: Vec<String>,
}
