//! Whether a service knows our client, for `portcullis doctor`. A code that does not exist is sent to its token
//! endpoint: a service that refuses the code, and nothing else, knows client ID and secret. Nobody signs in, and
//! nothing is stored.

use axum::http::Response;
use serde_json::Value;

use super::service::ResolvedService;
use super::{Connections, ConnectionsInner};
use crate::config::ConnectionConfig;
use crate::oauth::secret::random_text;
use crate::upstream::probe::{Finding, Severity};

const PROBE: &str = "connection";
/// Longest error code that is shown, in characters.
const LONGEST_CODE: usize = 64;

/// How services refuse a code that they did not issue.
const NO_SUCH_CODE: &[&str] = &["invalid_grant", "bad_verification_code", "invalid_code"];
/// How they refuse a client ID or secret.
const NO_SUCH_CLIENT: &[&str] = &[
    "invalid_client",
    "unauthorized_client",
    "incorrect_client_credentials",
    "bad_client_secret",
    "invalid_client_id",
];
/// How they refuse a redirect URI.
const NO_SUCH_CALLBACK: &[&str] =
    &["redirect_uri_mismatch", "bad_redirect_uri", "invalid_redirect_uri"];

/// What a response to a code that does not exist tells.
#[derive(Clone, Debug, PartialEq, Eq)]
enum ProbeAnswer {
    /// Only the code is refused.
    CodeRefused(String),
    ClientRefused(String),
    CallbackRefused(String),
    /// It gave a token.
    Accepted,
    /// There is nothing at this address.
    NothingThere,
    /// Something that decides nothing.
    Nothing(String),
}

impl Connections {
    /// Asks the service with this name. `redirect_uri` is our callback for it.
    pub async fn probe(&self, name: &str, redirect_uri: &str) -> Finding {
        let inner = &self.0;
        let Some(config) = inner.service(name) else {
            return finding(Severity::Failed, format!("{name}: there is no such connection"), None);
        };
        match inner.ask(config, redirect_uri).await {
            Ok((service, response)) => found(&service, redirect_uri, tell(&response)),
            Err(reason) => {
                let hint = "check the address, the network and the proxy of this machine";
                let text = format!("{name}: {} cannot be asked: {reason}", config.title);
                finding(Severity::Failed, text, Some(hint.to_owned()))
            }
        }
    }
}

impl ConnectionsInner {
    async fn ask<'a>(
        &self,
        config: &'a ConnectionConfig,
        redirect_uri: &str,
    ) -> Result<(ResolvedService<'a>, Response<Vec<u8>>), String> {
        let service = self.resolve(config).await.map_err(|error| error.to_string())?;
        let (code, verifier) = (random_text(), random_text());
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code.as_str()),
            ("redirect_uri", redirect_uri),
        ];
        if config.preset.pkce {
            form.push(("code_verifier", &verifier));
        }
        let request = service.login().form(service.token.as_str(), &form);
        let request = request.map_err(|error| error.to_string())?;
        let response = service.http.send(request).await.map_err(|error| error.to_string())?;
        Ok((service, response))
    }
}

fn finding(severity: Severity, found: String, hint: Option<String>) -> Finding {
    Finding { probe: PROBE, severity, found, hint }
}

/// Reads what a service answered. Some report errors with status 200.
fn tell(response: &Response<Vec<u8>>) -> ProbeAnswer {
    let status = response.status().as_u16();
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    let code = body["error"].as_str().filter(|code| !code.is_empty());
    match code {
        Some(code) if NO_SUCH_CODE.contains(&code) => ProbeAnswer::CodeRefused(code.to_owned()),
        Some(code) if NO_SUCH_CLIENT.contains(&code) => ProbeAnswer::ClientRefused(code.to_owned()),
        Some(code) if NO_SUCH_CALLBACK.contains(&code) => {
            ProbeAnswer::CallbackRefused(code.to_owned())
        }
        Some(code) => ProbeAnswer::Nothing(format!("{status}, {}", shown(code))),
        None if body["access_token"].is_string() => ProbeAnswer::Accepted,
        None if status == 401 => ProbeAnswer::ClientRefused("401".to_owned()),
        None if status == 404 => ProbeAnswer::NothingThere,
        None => ProbeAnswer::Nothing(format!("{status}, and no error of OAuth")),
    }
}

/// Shortens what a service sent, without control characters.
fn shown(code: &str) -> String {
    code.chars().filter(|c| !c.is_control()).take(LONGEST_CODE).collect()
}

fn found(service: &ResolvedService<'_>, redirect_uri: &str, told: ProbeAnswer) -> Finding {
    let ConnectionConfig { name, title, preset, .. } = service.config;
    let (token, console) = (&service.token, preset.console);
    let (severity, text, hint) = match told {
        ProbeAnswer::CodeRefused(code) if preset.name == "entra" => (
            Severity::Ok,
            format!("{name}: {title} refused only the code that does not exist ({code})"),
            Some("it may do so before it looks at the secret: connect once as a test person".to_owned()),
        ),
        ProbeAnswer::CodeRefused(code) => (
            Severity::Ok,
            format!(
                "{name}: {title} knows client ID and secret: it refused only the code that does not exist ({code})"
            ),
            None,
        ),
        ProbeAnswer::ClientRefused(code) => (
            Severity::Failed,
            format!("{name}: {title} refuses client ID or secret ({code})"),
            Some("copy both again from the console of the service; client_auth says where they are sent".to_owned()),
        ),
        ProbeAnswer::CallbackRefused(code) => (
            Severity::Failed,
            format!("{name}: the callback URL is not registered at {title} ({code})"),
            Some(format!("{console}:\n{redirect_uri}")),
        ),
        ProbeAnswer::Accepted => (
            Severity::Failed,
            format!("{name}: {token} gave a token for a code that does not exist"),
            Some("this cannot be the token endpoint of the service: check token_url".to_owned()),
        ),
        ProbeAnswer::NothingThere => (
            Severity::Failed,
            format!("{name}: there is nothing at {token} (404)"),
            Some("check token_url; some services answer so to a client ID that they do not know".to_owned()),
        ),
        ProbeAnswer::Nothing(what) => (
            Severity::Inconclusive,
            format!("{name}: {title} answers {what}, which does not tell"),
            Some("connect once as a test person".to_owned()),
        ),
    };
    finding(severity, text, hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_tells_in_its_own_way_whether_it_knows_us() {
        let refused = |code: &str| ProbeAnswer::CodeRefused(code.to_owned());
        let client = |code: &str| ProbeAnswer::ClientRefused(code.to_owned());
        for (status, body, told) in [
            (400, r#"{"error":"invalid_grant"}"#, refused("invalid_grant")),
            (403, r#"{"error":"invalid_grant"}"#, refused("invalid_grant")),
            (200, r#"{"error":"bad_verification_code"}"#, refused("bad_verification_code")),
            (200, r#"{"ok":false,"error":"invalid_code"}"#, refused("invalid_code")),
            (401, r#"{"error":"invalid_client"}"#, client("invalid_client")),
            (
                200,
                r#"{"error":"incorrect_client_credentials"}"#,
                client("incorrect_client_credentials"),
            ),
            (200, r#"{"ok":false,"error":"bad_client_secret"}"#, client("bad_client_secret")),
            (401, "", client("401")),
            (
                200,
                r#"{"error":"redirect_uri_mismatch"}"#,
                ProbeAnswer::CallbackRefused("redirect_uri_mismatch".to_owned()),
            ),
            (200, r#"{"access_token":"x"}"#, ProbeAnswer::Accepted),
            (404, "Not Found", ProbeAnswer::NothingThere),
            (503, "<html>", ProbeAnswer::Nothing("503, and no error of OAuth".to_owned())),
            (
                400,
                "{\"error\":\"server\\u001b[2Jerror\"}",
                ProbeAnswer::Nothing("400, server[2Jerror".to_owned()),
            ),
        ] {
            let response = Response::builder().status(status).body(body.into()).unwrap();
            assert_eq!(tell(&response), told, "{status} {body}");
        }
    }
}
