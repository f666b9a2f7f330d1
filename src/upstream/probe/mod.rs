//! Read-only probes of the identity provider (identity-provider guide §6.4): safe to run against
//! production, nobody is signed in, nothing is changed.

mod network;
mod sign_in;

use std::time::Duration;

use axum::http::{Request, Response, StatusCode, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::Value;

use super::Upstream;
use crate::config::{ClientAuth, Offline, Protocol};
use crate::http_client::HttpError;
use crate::oauth::secret::random_text;
use network::remedy_of;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// It works, but deserves a look.
    Warning,
    /// Sign-in will not work.
    Failed,
    /// The provider's answer tells neither.
    Inconclusive,
}

/// What one probe found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which probe: `discovery`, `secret`, …
    pub probe: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What was found, in a sentence.
    pub found: String,
    /// How to mend it, in the provider's own words.
    pub mend: Option<String>,
}

/// Algorithms of ID tokens that we accept.
const ALGORITHMS: [&str; 5] = ["RS256", "PS256", "ES256", "ES384", "EdDSA"];
/// Clocks that differ by more make tokens look too old or too young.
const CLOCK: Duration = Duration::from_secs(30);

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, probe: &'static str, severity: Severity, found: impl Into<String>) {
        self.0.push(Finding { probe, severity, found: found.into(), mend: None });
    }

    fn mend(
        &mut self,
        probe: &'static str,
        severity: Severity,
        found: impl Into<String>,
        mend: impl Into<String>,
    ) {
        let mend = Some(mend.into());
        self.0.push(Finding { probe, severity, found: found.into(), mend });
    }
}

impl Upstream {
    /// Probes the provider; the findings stand in the order of the probes.
    pub async fn probe(&self) -> Vec<Finding> {
        let mut findings = Findings(Vec::new());
        if self.0.config.preset.protocol == Protocol::GitHub {
            self.probe_github(&mut findings).await;
            return findings.0;
        }
        if let Some(document) = self.probe_discovery(&mut findings).await {
            self.probe_endpoints(&document, &mut findings);
            self.probe_keys(&document, &mut findings).await;
            self.probe_secret(&document, &mut findings).await;
            self.probe_authorize(&document, &mut findings).await;
            self.probe_refresh(&document, &mut findings);
            self.probe_logout(&document, &mut findings);
        }
        findings.0
    }

    /// GitHub tells its client about a token of its own; first it wants to know who asks.
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
                let mend = format!("copy both anew from: {}", config.preset.console.secret);
                findings.mend(PROBE, Severity::Failed, "client id or secret refused", mend);
            }
            Ok(status) => {
                findings.add(PROBE, Severity::Inconclusive, format!("GitHub answers {status}"));
            }
            Err(error) => {
                let found = format!("GitHub cannot be reached: {error}");
                findings.mend(PROBE, Severity::Failed, found, remedy_of(&error));
            }
        }
        let register = format!("{}:\n{}", config.preset.console.redirect_uri, self.0.redirect_uri);
        let found = "GitHub shows a wrong callback URL only to a person: try check --login";
        findings.mend("redirect_uri", Severity::Inconclusive, found, register);
    }

    async fn get(&self, url: &str) -> Result<Response<Vec<u8>>, HttpError> {
        let request = Request::get(url)
            .header(header::ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(|_| HttpError::Connection("not a URL".to_owned()))?;
        self.0.http.send(request).await
    }

    async fn probe_discovery(&self, findings: &mut Findings) -> Option<Value> {
        const PROBE: &str = "discovery";
        let issuer = &self.0.config.issuer;
        let url = self.0.discovery_address();
        let response = match self.first_answer(&url, findings).await {
            Ok(response) => response,
            Err(None) => return None,
            Err(Some(error)) => {
                let found = format!("{url} cannot be had: {error}");
                findings.mend(PROBE, Severity::Failed, found, remedy_of(&error));
                return None;
            }
        };
        if response.status() != StatusCode::OK {
            let found = format!("{url} answers {}", response.status());
            let mend = "check the issuer: there is no discovery document at this place";
            findings.mend(PROBE, Severity::Failed, found, mend);
            return None;
        }
        let Ok(document) = serde_json::from_slice::<Value>(response.body()) else {
            findings.mend(
                PROBE,
                Severity::Failed,
                format!("{url} is not JSON"),
                "check the issuer",
            );
            return None;
        };
        let stated = document["issuer"].as_str().unwrap_or_default();
        if stated != issuer {
            let found = format!("the provider calls itself {stated:?}, and you wrote {issuer:?}");
            let mend = self.remedy_of_another_issuer(stated, &url);
            findings.mend(PROBE, Severity::Failed, found, mend);
            return None;
        }
        findings.add(PROBE, Severity::Ok, format!("{stated}, exactly as configured"));
        self.check_clock(&response, findings);
        Some(document)
    }

    fn check_clock(&self, response: &Response<Vec<u8>>, findings: &mut Findings) {
        let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
        let Some(there) = date.and_then(|d| chrono::DateTime::parse_from_rfc2822(d).ok()) else {
            // Keycloak never does. A clock that is wrong shows at the first sign-in, and the log says so.
            let found = "the provider does not tell its time; check --login compares the clocks";
            findings.add("clock", Severity::Ok, found);
            return;
        };
        let apart = there.timestamp() - self.0.clock.now().unix();
        if apart.unsigned_abs() > CLOCK.as_secs() {
            let found = format!("the clocks are {apart} s apart");
            findings.mend("clock", Severity::Warning, found, "let this machine's clock follow NTP");
        } else {
            findings.add("clock", Severity::Ok, format!("{apart:+} s apart"));
        }
    }

    async fn probe_keys(&self, document: &Value, findings: &mut Findings) {
        const PROBE: &str = "algorithms";
        let offered = texts(&document["id_token_signing_alg_values_supported"]);
        if !offered.is_empty() && !offered.iter().any(|alg| ALGORITHMS.contains(alg)) {
            let found = format!("ID tokens are signed with {} only", offered.join(", "));
            let mend = "choose RS256 or ES256 for the client; a shared secret proves nothing to us";
            findings.mend(PROBE, Severity::Failed, found, mend);
            return;
        }
        let url = document["jwks_uri"].as_str().unwrap_or_default();
        let keys = match self.get(url).await {
            Ok(response) => serde_json::from_slice::<Value>(response.body()).unwrap_or_default(),
            Err(error) => {
                let found = format!("the keys cannot be had: {error}");
                findings.mend(PROBE, Severity::Failed, found, remedy_of(&error));
                return;
            }
        };
        let usable = keys["keys"].as_array().is_some_and(|keys| {
            keys.iter().any(|key| {
                matches!(key["kty"].as_str(), Some("RSA" | "EC" | "OKP")) && key["use"] != "enc"
            })
        });
        if usable {
            findings.add(PROBE, Severity::Ok, format!("{}, keys at hand", offered.join(", ")));
        } else {
            let mend = "give the client a signing key (an asymmetric one)";
            findings.mend(PROBE, Severity::Failed, "the provider has no usable signing key", mend);
        }
    }

    /// The revocation endpoint authenticates its caller before it looks at the token (RFC 7009 §2.1);
    /// the token endpoint with a code that cannot exist does as well.
    async fn probe_secret(&self, document: &Value, findings: &mut Findings) {
        const PROBE: &str = "secret";
        let endpoint = document["revocation_endpoint"].as_str();
        let token_endpoint = document["token_endpoint"].as_str().unwrap_or_default();
        let methods = match self.0.config.client_auth {
            ClientAuth::Basic => vec!["client_secret_basic"],
            ClientAuth::Post => vec!["client_secret_post"],
            ClientAuth::Auto => vec!["client_secret_basic", "client_secret_post"],
        };
        let secret = self.0.config.client_secret.expose();
        // In case the answer to the right secret does not tell: the answer to a wrong one may.
        let wrong = random_text();
        let mut refused = Vec::new();
        for method in methods {
            let accepted = match endpoint {
                Some(url) => {
                    self.accepts_us(url, method, secret, &[("token", &random_text())]).await
                }
                None => None,
            };
            let accepted = if let Some(accepted) = accepted {
                Some(accepted)
            } else {
                let redirect_uri = self.0.redirect_uri.clone();
                let (code, verifier) = (random_text(), random_text());
                let form = [
                    ("grant_type", "authorization_code"),
                    ("code", &code),
                    ("redirect_uri", &redirect_uri),
                    ("code_verifier", &verifier),
                ];
                match self.accepts_us(token_endpoint, method, secret, &form).await {
                    None => match self.accepts_us(token_endpoint, method, &wrong, &form).await {
                        Some(false) => Some(true),
                        _ => None,
                    },
                    told => told,
                }
            };
            match accepted {
                Some(true) => {
                    findings.add(PROBE, Severity::Ok, format!("accepted ({method})"));
                    return;
                }
                Some(false) => refused.push(method),
                None => {}
            }
        }
        let console = self.0.config.preset.console;
        if refused.is_empty() {
            let found = "the provider's answers do not tell whether the client secret is right";
            findings.add(PROBE, Severity::Inconclusive, found);
        } else {
            let found = format!("client id or secret refused ({})", refused.join(", "));
            let mend = format!("copy both anew from: {}", console.secret);
            findings.mend(PROBE, Severity::Failed, found, mend);
        }
    }

    /// Whether the endpoint accepts our client with this secret; `None` when its answer does not tell.
    async fn accepts_us(
        &self,
        url: &str,
        method: &str,
        secret: &str,
        form: &[(&str, &str)],
    ) -> Option<bool> {
        let id = self.0.config.client_id.as_str();
        let mut body = form_urlencoded::Serializer::new(String::new());
        body.extend_pairs(form);
        let mut request = Request::post(url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        if method == "client_secret_basic" {
            let encode =
                |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
            let pair = STANDARD.encode(format!("{}:{}", encode(id), encode(secret)));
            request = request.header(header::AUTHORIZATION, format!("Basic {pair}"));
        } else {
            body.append_pair("client_id", id).append_pair("client_secret", secret);
        }
        let response =
            self.0.http.send(request.body(body.finish().into_bytes()).ok()?).await.ok()?;
        let json: Value = serde_json::from_slice(response.body()).unwrap_or_default();
        match (response.status().as_u16(), json["error"].as_str()) {
            (_, Some("invalid_client" | "unauthorized_client")) | (401, _) => Some(false),
            (200..=299, None) | (_, Some("invalid_grant" | "unsupported_token_type")) => Some(true),
            _ => None,
        }
    }

    fn probe_refresh(&self, document: &Value, findings: &mut Findings) {
        const PROBE: &str = "refresh";
        let console = self.0.config.preset.console;
        let grants = texts(&document["grant_types_supported"]);
        let scopes = texts(&document["scopes_supported"]);
        if !grants.is_empty() && !grants.contains(&"refresh_token") {
            let found = "the provider lists no refresh token grant: people sign in again every max_without_refresh";
            findings.mend(PROBE, Severity::Warning, found, console.refresh);
        } else if self.0.config.offline == Offline::Scope
            && !scopes.is_empty()
            && !scopes.contains(&"offline_access")
        {
            let found = "the provider does not list the scope offline_access";
            findings.mend(PROBE, Severity::Warning, found, console.refresh);
        } else {
            let found =
                format!("refresh tokens are offered; the switch is at: {}", console.refresh);
            findings.add(PROBE, Severity::Ok, found);
        }
    }

    fn probe_logout(&self, document: &Value, findings: &mut Findings) {
        let callback = self.0.redirect_uri.as_str();
        let home = callback.strip_suffix("/auth/callback").unwrap_or(callback);
        let url = format!("{home}/backchannel-logout");
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
