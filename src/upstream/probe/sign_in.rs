//! Probes whether the provider accepts our redirect URI, at its authorization endpoint and without a person.

use axum::http::{Response, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use url::Url;

use super::super::metadata::Metadata;
use super::super::{LoginFailed, Upstream, callback_error};
use super::network::hint_for;
use super::{Findings, Severity};
use crate::http_client::HttpError;
use crate::oauth::redirect_uri::leads_to;
use crate::oauth::secret::random_text;

impl Upstream {
    /// Sends an authorization request with `prompt=none`. A provider that knows the client and the redirect
    /// URI redirects there with an error; one that does not shows an error page. If the provider shows a page
    /// in either case, a second request with a redirect URI that nobody registered tells the cases apart.
    pub(super) async fn probe_authorize(&self, metadata: &Metadata, findings: &mut Findings) {
        const PROBE: &str = "redirect_uri";
        let redirect_uri = self.0.redirect_uri.as_str();
        let console = self.0.config.preset.console;
        let scopes = self.0.scopes_asked(metadata);
        let url = self.sign_in_without_a_person(metadata, redirect_uri);
        let response = match self.knock(url).await {
            Ok(response) => response,
            // Browsers use the provider's public address, which a machine inside the cluster may not reach.
            Err(error) if self.0.config.discovery_url.is_some() => {
                let found = format!("this machine cannot ask where people sign in: {error}");
                let register = format!("{}:\n{redirect_uri}", console.redirect_uri);
                findings.hint(PROBE, Severity::Inconclusive, found, register);
                return;
            }
            Err(error) => {
                let found = format!("no answer: {error}");
                findings.hint(PROBE, Severity::Failed, found, hint_for(&error));
                return;
            }
        };
        let location = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
        let back = location.filter(|location| leads_to(location, redirect_uri));
        let register = format!("{}:\n{redirect_uri}", console.redirect_uri);
        match (back, response.status().as_u16()) {
            (Some(back), _) => {
                findings.add(PROBE, Severity::Ok, format!("{redirect_uri} is registered"));
                iss_finding(metadata, param_of(back, "iss").as_deref(), findings);
                let error = param_of(back, "error").unwrap_or_default();
                scopes_finding(&error, &scopes, findings);
            }
            (None, 400..=499) => {
                let found = "the client id is unknown, or the redirect URI is not registered";
                findings.hint(PROBE, Severity::Failed, found, register);
            }
            (None, 200..=399) if self.refuses_another(metadata).await => {
                let found = format!("{redirect_uri} is registered: another one is refused");
                findings.add(PROBE, Severity::Ok, found);
                scopes_finding("", &scopes, findings);
            }
            (None, 300..=399) => {
                let found = "the provider leads to a page of its own, which does not tell";
                findings.hint(PROBE, Severity::Inconclusive, found, register);
            }
            (None, status) => {
                let found =
                    format!("the provider answers {status} with a page, which does not tell");
                findings.hint(PROBE, Severity::Inconclusive, found, register);
            }
        }
    }

    /// Returns whether the provider rejects a redirect URI that nobody registered with a 4xx status.
    async fn refuses_another(&self, metadata: &Metadata) -> bool {
        let another = format!("{}/{}", self.0.redirect_uri, random_text());
        let url = self.sign_in_without_a_person(metadata, &another);
        self.knock(url).await.is_ok_and(|response| response.status().is_client_error())
    }

    /// Sends the request and follows up to three redirects within the provider's own origin. Dex, for
    /// example, redirects to its only connector before it looks at the request.
    async fn knock(&self, mut url: Url) -> Result<Response<Vec<u8>>, HttpError> {
        const HOPS: u32 = 3;
        let mut response = self.get(url.as_str()).await?;
        for _ in 0..HOPS {
            let location = response.headers().get(header::LOCATION);
            let next = location.and_then(|l| l.to_str().ok()).and_then(|l| url.join(l).ok());
            match next {
                Some(next) if next.origin() == url.origin() && !self.is_our_place(&next) => {
                    response = self.get(next.as_str()).await?;
                    url = next;
                }
                _ => break,
            }
        }
        Ok(response)
    }

    fn is_our_place(&self, url: &Url) -> bool {
        leads_to(url.as_str(), &self.0.redirect_uri)
    }

    /// Builds the authorization request of a sign-in with `prompt=none` and random values.
    fn sign_in_without_a_person(&self, metadata: &Metadata, redirect_uri: &str) -> Url {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, random_text().as_bytes());
        let challenge = URL_SAFE_NO_PAD.encode(hash);
        let (state, nonce) = (random_text(), random_text());
        let mut url = self.0.authorization_request(metadata, &state, &nonce, &challenge);
        let pairs: Vec<(String, String)> = url
            .query_pairs()
            .filter(|(name, _)| name != "prompt" && name != "redirect_uri")
            .map(|(name, value)| (name.into_owned(), value.into_owned()))
            .collect();
        url.query_pairs_mut()
            .clear()
            .extend_pairs(pairs)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("prompt", "none");
        url
    }
}

/// Returns a query parameter of a redirect to our redirect URI.
fn param_of(location: &str, wanted: &str) -> Option<String> {
    let url = Url::parse(location).ok()?;
    url.query_pairs().find_map(|(name, value)| (name == wanted).then(|| value.into_owned()))
}

/// Adds a finding about `iss` in the error response, if the server would reject it. Errors carry `iss` as
/// codes do (RFC 9207 §2).
fn iss_finding(metadata: &Metadata, iss: Option<&str>, findings: &mut Findings) {
    const PROBE: &str = "redirect_uri";
    match (metadata.check_iss(iss), iss) {
        (Ok(()), _) => {}
        (Err(reason), Some(_)) => {
            let hint =
                "somebody else answered in the provider's place, or its host name setting is wrong";
            findings.hint(PROBE, Severity::Failed, reason, hint);
        }
        (Err(reason), None) => {
            let found = format!(
                "{reason} for an error, though authorization_response_iss_parameter_supported is \
                 true; a callback without it is refused"
            );
            let hint = "try check --login: where codes come without it too, nobody can sign in";
            findings.hint(PROBE, Severity::Warning, found, hint);
        }
    }
}

fn scopes_finding(error: &str, scopes: &[String], findings: &mut Findings) {
    const PROBE: &str = "scopes";
    let asked = scopes.join(" ");
    match error {
        "invalid_scope" => {
            let found = format!("the provider refuses one of: {asked}");
            let hint = "set scopes in [upstream] to those that the client may ask for";
            findings.hint(PROBE, Severity::Failed, found, hint);
        }
        "" => findings.add(PROBE, Severity::Ok, format!("{asked}: not refused")),
        error
            if matches!(callback_error::classify(error, None), LoginFailed::ProviderCannot(_)) =>
        {
            let found = format!("the provider answers with {error}, which does not tell");
            findings.add(PROBE, Severity::Inconclusive, found);
        }
        error if matches!(callback_error::classify(error, None), LoginFailed::Misconfigured(_)) => {
            let found = format!("the provider refuses the request: {error}");
            let hint = "allow the authorization code grant for the client";
            findings.hint(PROBE, Severity::Failed, found, hint);
        }
        _ => findings.add(PROBE, Severity::Ok, format!("{asked}: not refused")),
    }
}
