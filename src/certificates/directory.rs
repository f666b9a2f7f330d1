//! Asks an ACME server for its directory, to see whether it answers.

use std::time::Duration;

use axum::http::{Request, StatusCode};
use serde_json::Value;

use super::Certificates;
use crate::http_client::HttpClient;

/// Longest wait for the directory: 10 s.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

impl Certificates {
    /// Asks the ACME server for its directory. Returns its URL, or why it cannot be used; `None` without
    /// `[tls.acme]`.
    pub async fn try_directory(&self) -> Option<Result<String, String>> {
        let acme = self.acme()?;
        let authority = acme.authority.as_deref();
        let client = HttpClient::trusting(ANSWER_TIMEOUT, &self.0.proxies, authority);
        let request = Request::get(&acme.directory).header("user-agent", "portcullis");
        let request = match request.body(Vec::new()) {
            Ok(request) => request,
            Err(cause) => return Some(Err(cause.to_string())),
        };
        let answer = match client.send(request).await {
            Ok(answer) => answer,
            Err(cause) => return Some(Err(cause.to_string())),
        };
        let directory: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        let wants_binding = directory["meta"]["externalAccountRequired"] == true;
        Some(if answer.status() != StatusCode::OK {
            Err(format!("it answered with status {}", answer.status().as_u16()))
        } else if !directory["newOrder"].is_string() {
            Err("its answer is no directory of an ACME server".to_owned())
        } else if wants_binding && acme.external_account.is_none() {
            Err("it wants an external account: set eab_key_id and eab_hmac_key".to_owned())
        } else {
            Ok(acme.directory.clone())
        })
    }
}
