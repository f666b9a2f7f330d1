//! Read-only probes of the identity provider, for `portcullis check`. They are safe to run against
//! production: they sign nobody in and change nothing.

mod network;
mod sign_in;

use std::time::Duration;

use std::collections::BTreeSet;

use axum::http::{Request, Response, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;

use super::Upstream;
use super::metadata::Metadata;
use super::provider::KeysFailed;
use super::provider_key::ProviderKey;
use super::values::{object_of, shown};
use crate::config::{ClientAuth, Offline, Protocol, paths};
use crate::http_client::HttpError;
use crate::jose::alg::{Alg, FROM_PROVIDER};
use crate::oauth::secret::random_text;
use network::hint_for;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    Ok,
    /// Sign-in works, but an administrator should look at this.
    Warning,
    /// Sign-in will not work.
    Failed,
    /// The provider's response does not show whether this is right.
    Inconclusive,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the probe: `discovery`, `secret`, …
    pub probe: &'static str,
    pub severity: Severity,
    /// The finding, in one sentence.
    pub found: String,
    /// How to fix it, in the terms of the provider's console.
    pub hint: Option<String>,
}

/// Clocks that differ by more than 30 s make tokens look expired or not yet valid.
const CLOCK: Duration = Duration::from_secs(30);

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, probe: &'static str, severity: Severity, found: impl Into<String>) {
        self.0.push(Finding { probe, severity, found: found.into(), hint: None });
    }

    /// Adds a warning for each deviation that the server tolerates.
    fn tolerated(&mut self, probe: &'static str, of: &str, details: &[String]) {
        for detail in details {
            self.add(probe, Severity::Warning, format!("{of}{detail}; the server tolerates it"));
        }
    }

    fn hint(
        &mut self,
        probe: &'static str,
        severity: Severity,
        found: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let hint = Some(hint.into());
        self.0.push(Finding { probe, severity, found: found.into(), hint });
    }
}

/// Hint for a deviation in the metadata that the server rejects.
const SERVER_REFUSES: &str = "every sign-in is refused for it; let the provider publish this member as OpenID Connect Discovery says";

impl Upstream {
    /// Runs all probes and returns the findings in the order of the probes.
    pub async fn probe(&self) -> Vec<Finding> {
        let mut findings = Findings(Vec::new());
        if self.0.config.preset.protocol == Protocol::GitHub {
            self.probe_github(&mut findings).await;
            return findings.0;
        }
        if let Some((document, metadata)) = self.probe_discovery(&mut findings).await {
            self.probe_endpoints(&document, &metadata, &mut findings);
            self.probe_keys(&document, &metadata, &mut findings).await;
            self.probe_secret(&metadata, &mut findings).await;
            self.probe_authorize(&metadata, &mut findings).await;
            self.probe_refresh(&document, &metadata, &mut findings);
            self.probe_logout(&document, &mut findings);
        }
        findings.0
    }

    /// Checks the secret with GitHub's token check API, which authenticates the client before it looks at the
    /// token.
    async fn probe_github(&self, findings: &mut Findings) {
        const PROBE: &str = "secret";
        let config = &self.0.config;
        findings.add("discovery", Severity::Ok, "GitHub has none; its addresses are known");
        let pair = format!("{}:{}", config.client_id, config.client_secret.expose());
        let url = format!("{}/applications/{}/token", self.0.github_api(), config.client_id);
        let body = serde_json::json!({ "access_token": random_text() }).to_string();
        let request = Request::post(url)
            .header(header::AUTHORIZATION, format!("Basic {}", STANDARD.encode(pair)))
            .header(header::ACCEPT, "application/vnd.github+json")
            .header(header::USER_AGENT, "portcullis")
            .body(body.into_bytes());
        let Ok(request) = request else { return };
        let answer = self.0.http.send(request).await;
        let Ok(answer) = self.tell_network(answer, &self.0.github_api(), findings) else { return };
        match answer.map(|response| response.status().as_u16()) {
            Ok(404 | 422) => findings.add(PROBE, Severity::Ok, "accepted"),
            Ok(401) => {
                let hint = format!("copy both again from: {}", config.preset.console.secret);
                findings.hint(PROBE, Severity::Failed, "client id or secret refused", hint);
            }
            Ok(status) => {
                findings.add(PROBE, Severity::Inconclusive, format!("GitHub answers {status}"));
            }
            Err(error) => {
                let found = format!("GitHub cannot be reached: {error}");
                findings.hint(PROBE, Severity::Failed, found, hint_for(&error));
            }
        }
        let register = format!("{}:\n{}", config.preset.console.redirect_uri, self.0.redirect_uri);
        let found = "GitHub shows a wrong callback URL only to a person: try check --login";
        findings.hint("redirect_uri", Severity::Inconclusive, found, register);
    }

    async fn get(&self, url: &str) -> Result<Response<Vec<u8>>, HttpError> {
        self.0.get_json(url).await
    }

    async fn probe_discovery(&self, findings: &mut Findings) -> Option<(Value, Metadata)> {
        const PROBE: &str = "discovery";
        let issuer = &self.0.config.issuer;
        let url = self.0.discovery_address();
        let response = match self.first_answer(&url, findings).await {
            Ok(response) => response,
            Err(None) => return None,
            Err(Some(error)) => {
                let found = format!("{url} cannot be had: {error}");
                findings.hint(PROBE, Severity::Failed, found, hint_for(&error));
                return None;
            }
        };
        if response.status() != StatusCode::OK {
            let found = format!("{url} answers {}", response.status());
            let hint = "check the issuer: there is no discovery document at this place";
            findings.hint(PROBE, Severity::Failed, found, hint);
            return None;
        }
        let document = match object_of(response.body()) {
            Ok(document) => document,
            Err(reason) => {
                let found = format!("{url}: {reason}");
                findings.hint(PROBE, Severity::Failed, found, "check the issuer");
                return None;
            }
        };
        let stated = document.get("issuer").and_then(Value::as_str);
        if let Some(stated) = stated.filter(|stated| stated != issuer) {
            let found =
                format!("the provider calls itself {:?}, and you wrote {issuer:?}", shown(stated));
            let hint = self.hint_for_another_issuer(&shown(stated), &url);
            findings.hint(PROBE, Severity::Failed, found, hint);
            return None;
        }
        // From here the probe reads the document as the server does.
        let exactly = format!("{issuer}, exactly as configured");
        let metadata = match self.0.read_members(&document, &response) {
            Ok(metadata) => metadata,
            Err(odd) => {
                let probe = if odd.is_endpoint() { "endpoints" } else { PROBE };
                if probe != PROBE {
                    findings.add(PROBE, Severity::Ok, exactly);
                }
                let stated = document.get(odd.member).and_then(Value::as_str).map(shown);
                let stated = stated.filter(|stated| !stated.is_empty());
                let stated = stated.map(|stated| format!(": {stated}")).unwrap_or_default();
                let hint = odd.hint.unwrap_or(SERVER_REFUSES);
                findings.hint(probe, Severity::Failed, format!("{odd}{stated}"), hint);
                return None;
            }
        };
        findings.add(PROBE, Severity::Ok, exactly);
        findings.tolerated(PROBE, "", &metadata.tolerated);
        self.check_clock(&response, findings);
        Some((Value::Object(document), metadata))
    }

    fn check_clock(&self, response: &Response<Vec<u8>>, findings: &mut Findings) {
        let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
        let Some(there) = date.and_then(|d| chrono::DateTime::parse_from_rfc2822(d).ok()) else {
            // Keycloak never sends `Date`. A wrong clock shows at the first sign-in, and the log reports it.
            let found = "the provider does not tell its time; check --login compares the clocks";
            findings.add("clock", Severity::Ok, found);
            return;
        };
        let apart = there.timestamp() - self.0.clock.now().unix();
        if apart.unsigned_abs() > CLOCK.as_secs() {
            let found = format!("the clocks are {apart} s apart");
            findings.hint("clock", Severity::Warning, found, "let this machine's clock follow NTP");
        } else {
            findings.add("clock", Severity::Ok, format!("{apart:+} s apart"));
        }
    }

    async fn probe_keys(&self, document: &Value, metadata: &Metadata, findings: &mut Findings) {
        const PROBE: &str = "algorithms";
        let is_accepted = |alg: &str| Alg::parse(alg, &FROM_PROVIDER).is_some();
        let offered = texts(&document["id_token_signing_alg_values_supported"]);
        if !offered.is_empty() && !offered.iter().any(|alg| is_accepted(alg)) {
            let found = format!("ID tokens are signed with {} only", offered.join(", "));
            let hint = "choose RS256 or ES256 for the client; a shared secret proves nothing to us";
            findings.hint(PROBE, Severity::Failed, found, hint);
            return;
        }
        let keys = match self.0.fetch_keys(metadata).await {
            Ok(keys) => keys,
            Err(KeysFailed::Unreachable(error)) => {
                let found = format!("the keys cannot be had: {error}");
                findings.hint(PROBE, Severity::Failed, found, hint_for(&error));
                return;
            }
            Err(failed @ KeysFailed::Status(_)) => {
                let hint = "check what the provider answers at its jwks_uri";
                findings.hint(PROBE, Severity::Failed, failed.to_string(), hint);
                return;
            }
            Err(failed @ KeysFailed::Odd(_)) => {
                findings.hint(PROBE, Severity::Failed, failed.to_string(), SERVER_REFUSES);
                return;
            }
        };
        let usable = keys.keys.iter().map(ProviderKey::algorithms);
        let usable: Vec<Vec<&str>> = usable.filter(|algorithms| !algorithms.is_empty()).collect();
        if usable.is_empty() {
            let hint = "give the client a signing key (an asymmetric one)";
            findings.hint(PROBE, Severity::Failed, "the provider has no usable signing key", hint);
            return;
        }
        let algorithms: BTreeSet<&str> = usable.iter().flatten().copied().collect();
        let listed = offered.iter().any(|alg| algorithms.contains(alg));
        let names: Vec<&str> = algorithms.into_iter().collect();
        let found = format!("keys for signatures: {}, good for {}", usable.len(), names.join(", "));
        if offered.is_empty() || listed {
            findings.add(PROBE, Severity::Ok, found);
        } else {
            let found = format!("{found}, but it lists {} for ID tokens", offered.join(", "));
            findings.add(PROBE, Severity::Warning, found);
        }
        findings.tolerated(PROBE, "the keys: ", &keys.tolerated);
    }

    /// Checks the client secret, with the authentication method that the server uses. The revocation endpoint
    /// authenticates the client before it looks at the token (RFC 7009 §2.1). The token endpoint does the
    /// same, so we send it a code that cannot exist.
    async fn probe_secret(&self, metadata: &Metadata, findings: &mut Findings) {
        const PROBE: &str = "secret";
        let console = self.0.config.preset.console;
        let own = self.0.client_auth(metadata);
        let (name, other, other_name) = match own {
            ClientAuth::Post => ("client_secret_post", ClientAuth::Basic, "client_secret_basic"),
            _ => ("client_secret_basic", ClientAuth::Post, "client_secret_post"),
        };
        match self.accepts_secret(metadata, own).await {
            Some(true) => findings.add(PROBE, Severity::Ok, format!("accepted ({name})")),
            Some(false) if self.accepts_secret(metadata, other).await == Some(true) => {
                let found = format!(
                    "refused as {name}, which the server would use, and accepted as {other_name}"
                );
                let hint = format!("set client_auth = {other_name:?} in [upstream]");
                findings.hint(PROBE, Severity::Failed, found, hint);
            }
            Some(false) => {
                let found = format!("client id or secret refused ({name})");
                let hint = format!("copy both again from: {}", console.secret);
                findings.hint(PROBE, Severity::Failed, found, hint);
            }
            None => {
                let found = "the provider's answers do not tell whether the client secret is right";
                findings.add(PROBE, Severity::Inconclusive, found);
            }
        }
    }

    /// Returns whether the provider accepts our secret; `None` when its responses do not show it.
    async fn accepts_secret(&self, metadata: &Metadata, method: ClientAuth) -> Option<bool> {
        let secret = self.0.config.client_secret.expose();
        if let Some(url) = &metadata.revocation_endpoint {
            let form = [("token", random_text())];
            let form = form.each_ref().map(|(name, value)| (*name, value.as_str()));
            let told = self.accepts_us(url.as_str(), method, secret, &form).await;
            if told.is_some() {
                return told;
            }
        }
        let (code, verifier) = (random_text(), random_text());
        let form = [
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("redirect_uri", &self.0.redirect_uri),
            ("code_verifier", &verifier),
        ];
        let url = metadata.token_endpoint.as_str();
        let told = self.accepts_us(url, method, secret, &form).await;
        if told.is_some() {
            return told;
        }
        // The response to the right secret was inconclusive. If a wrong secret is rejected, the right one was
        // accepted.
        let refuses_another =
            self.accepts_us(url, method, &random_text(), &form).await == Some(false);
        refuses_another.then_some(true)
    }

    /// Returns whether the endpoint accepts our client with this secret; `None` when the response does not
    /// show it.
    async fn accepts_us(
        &self,
        url: &str,
        method: ClientAuth,
        secret: &str,
        form: &[(&str, &str)],
    ) -> Option<bool> {
        let request = self.0.form_as_client(url, method, secret, form).ok()?;
        let response = self.0.http.send(request).await.ok()?;
        let json = object_of(response.body()).unwrap_or_default();
        let error = json.get("error").and_then(Value::as_str);
        match (response.status().as_u16(), error) {
            (_, Some("invalid_client" | "unauthorized_client")) | (401, _) => Some(false),
            (200..=299, None) | (_, Some("invalid_grant" | "unsupported_token_type")) => Some(true),
            _ => None,
        }
    }

    fn probe_refresh(&self, document: &Value, metadata: &Metadata, findings: &mut Findings) {
        const PROBE: &str = "refresh";
        let console = self.0.config.preset.console;
        let grants = texts(&document["grant_types_supported"]);
        let scopes = &metadata.scopes_supported;
        if !grants.is_empty() && !grants.contains(&"refresh_token") {
            let found = "the provider lists no refresh token grant: people sign in again every max_without_refresh";
            findings.hint(PROBE, Severity::Warning, found, console.refresh);
        } else if self.0.config.offline == Offline::Scope
            && !scopes.is_empty()
            && !scopes.iter().any(|scope| scope == "offline_access")
        {
            let found = "the provider does not list the scope offline_access";
            findings.hint(PROBE, Severity::Warning, found, console.refresh);
        } else {
            let found =
                format!("refresh tokens are offered; the switch is at: {}", console.refresh);
            findings.add(PROBE, Severity::Ok, found);
        }
    }

    fn probe_logout(&self, document: &Value, findings: &mut Findings) {
        let callback = self.0.redirect_uri.as_str();
        let home = callback.strip_suffix(paths::CALLBACK).unwrap_or(callback);
        let url = format!("{home}{}", paths::BACKCHANNEL_LOGOUT);
        let found = if document["backchannel_logout_supported"] == true {
            format!("the provider can tell us when somebody signs out; register {url}")
        } else {
            "the provider does not say that it tells us when somebody signs out; the re-check does it"
                .to_owned()
        };
        findings.add("logout", Severity::Ok, found);
    }
}

fn texts(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .map(|items| items.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}
