//! Would the provider send people back to us? Asked at its authorization endpoint, without a person.

use axum::http::{Response, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use url::Url;

use super::super::Upstream;
use super::network::remedy_of;
use super::{Findings, Severity, texts};
use crate::config::Offline;
use crate::http_client::HttpError;
use crate::oauth::secret::random_text;

impl Upstream {
    /// Asks for a sign-in without a person: a provider that knows client and redirect URI sends an
    /// error back there, and one that does not shows a page. Where it shows a page either way, a redirect
    /// URI that is certainly not registered tells the two apart.
    pub(super) async fn probe_authorize(&self, document: &Value, findings: &mut Findings) {
        const PROBE: &str = "redirect_uri";
        let redirect_uri = self.0.redirect_uri.as_str();
        let console = self.0.config.preset.console;
        let scopes = self.scopes_asked(document);
        let Some(url) = self.sign_in_without_a_person(document, &scopes, redirect_uri) else {
            return; // told by the probe of the endpoints
        };
        let response = match self.knock(url).await {
            Ok(response) => response,
            // Browsers go to the public address, which a machine inside the cluster need not reach.
            Err(error) if self.0.config.discovery_url.is_some() => {
                let found = format!("this machine cannot ask where people sign in: {error}");
                let register = format!("{}:\n{redirect_uri}", console.redirect_uri);
                findings.mend(PROBE, Severity::Inconclusive, found, register);
                return;
            }
            Err(error) => {
                let found = format!("no answer: {error}");
                findings.mend(PROBE, Severity::Failed, found, remedy_of(&error));
                return;
            }
        };
        let location = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
        let back = location.filter(|location| location.starts_with(redirect_uri));
        let register = format!("{}:\n{redirect_uri}", console.redirect_uri);
        match (back, response.status().as_u16()) {
            (Some(back), _) => {
                findings.add(PROBE, Severity::Ok, format!("{redirect_uri} is registered"));
                scopes_finding(&error_of(back), &scopes, findings);
            }
            (None, 400..=499) => {
                let found = "the client id is unknown, or the redirect URI is not registered";
                findings.mend(PROBE, Severity::Failed, found, register);
            }
            (None, 200..=399) if self.refuses_another(document, &scopes).await => {
                let found = format!("{redirect_uri} is registered: another one is refused");
                findings.add(PROBE, Severity::Ok, found);
                scopes_finding("", &scopes, findings);
            }
            (None, 300..=399) => {
                let found = "the provider leads to a page of its own, which does not tell";
                findings.mend(PROBE, Severity::Inconclusive, found, register);
            }
            (None, status) => {
                let found =
                    format!("the provider answers {status} with a page, which does not tell");
                findings.mend(PROBE, Severity::Inconclusive, found, register);
            }
        }
    }

    /// Whether the provider refuses outright a redirect URI that nobody registered.
    async fn refuses_another(&self, document: &Value, scopes: &[String]) -> bool {
        let another = format!("{}/{}", self.0.redirect_uri, random_text());
        match self.sign_in_without_a_person(document, scopes, &another) {
            Some(url) => {
                self.knock(url).await.is_ok_and(|response| response.status().is_client_error())
            }
            None => false,
        }
    }

    /// Asks, and follows where the provider leads on at its own place, as Dex does to its one connector
    /// before it looks at the request.
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
        url.as_str().starts_with(&self.0.redirect_uri)
    }

    fn scopes_asked(&self, document: &Value) -> Vec<String> {
        let config = &self.0.config;
        let listed = texts(&document["scopes_supported"]).contains(&"offline_access");
        let offline = match config.offline {
            Offline::Scope => true,
            Offline::ScopeWhenListed => listed,
            Offline::NoScope => false,
        };
        let mut scopes = config.scopes.clone();
        if offline {
            scopes.push("offline_access".to_owned());
        }
        scopes.insert(0, "openid".to_owned());
        scopes.dedup();
        scopes
    }

    fn sign_in_without_a_person(
        &self,
        document: &Value,
        scopes: &[String],
        redirect_uri: &str,
    ) -> Option<Url> {
        let config = &self.0.config;
        let mut url = Url::parse(document["authorization_endpoint"].as_str()?).ok()?;
        let challenge = URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(
            &aws_lc_rs::digest::SHA256,
            random_text().as_bytes(),
        ));
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &config.client_id)
            .append_pair("redirect_uri", redirect_uri)
            .append_pair("scope", &scopes.join(" "))
            .append_pair("state", &random_text())
            .append_pair("nonce", &random_text())
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .extend_pairs(config.authorize_params.iter().filter(|(name, _)| name != "prompt"))
            .append_pair("prompt", "none");
        Some(url)
    }
}

/// The `error` of an answer at our redirect URI.
fn error_of(location: &str) -> String {
    Url::parse(location)
        .ok()
        .and_then(|url| {
            url.query_pairs()
                .find_map(|(name, value)| (name == "error").then(|| value.into_owned()))
        })
        .unwrap_or_default()
}

fn scopes_finding(error: &str, scopes: &[String], findings: &mut Findings) {
    const PROBE: &str = "scopes";
    let asked = scopes.join(" ");
    match error {
        "invalid_scope" => {
            let found = format!("the provider refuses one of: {asked}");
            let mend = "set scopes in [upstream] to those that the client may ask for";
            findings.mend(PROBE, Severity::Failed, found, mend);
        }
        "unauthorized_client" | "invalid_request" | "unsupported_response_type" => {
            let found = format!("the provider refuses the request: {error}");
            let mend = "allow the authorization code grant for the client";
            findings.mend(PROBE, Severity::Failed, found, mend);
        }
        _ => findings.add(PROBE, Severity::Ok, format!("{asked}: not refused")),
    }
}
