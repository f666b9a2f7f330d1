//! Revokes tokens at their services: those of connections that were removed or replaced, and those of sign-ins
//! that have ended. What fails is tried again later.

use std::time::Duration;

use axum::http::{Request, Response, StatusCode, header};
use futures_util::future::join_all;
use serde_json::{Value, json};
use url::Url;

use super::{Connections, ConnectionsInner};
use crate::config::{ConnectionConfig, RevocationCall};
use crate::http_client::HttpClient;
use crate::storage::{DueRevocation, Settled};
use crate::telemetry::log_throttle::LogThrottle;
use crate::upstream::client_login::ClientLogin;
use crate::upstream::service_token::is_visible;

/// Pause after the first failed attempt: 1 minute. Each further one is three times as long.
const FIRST_PAUSE: Duration = Duration::from_mins(1);
/// The longest pause: 1 hour.
const LONGEST_PAUSE: Duration = Duration::from_hours(1);

static NOT_READ: LogThrottle = LogThrottle::a_minute();

/// Where and how tokens of a service are revoked.
struct RevocationPlace<'a> {
    url: Url,
    call: RevocationCall,
    login: ClientLogin<'a>,
    http: &'a HttpClient,
}

impl Connections {
    /// Performs the revocations that are due now, once. Returns how many there were.
    pub async fn revoke_due(&self) -> usize {
        let inner = &self.0;
        let due = inner.storage.take_revocations(inner.revokes_sign_ins, inner.clock.now()).await;
        let due = match due {
            Ok(due) => due,
            Err(cause) => {
                if let Some(left_out) = NOT_READ.admit() {
                    tracing::warn!(%cause, left_out, "tokens to revoke are not looked at; it is tried again");
                }
                return 0;
            }
        };
        join_all(due.iter().map(|due| inner.revoke_and_settle(due))).await.len()
    }
}

impl ConnectionsInner {
    async fn revoke_and_settle(&self, due: &DueRevocation) {
        let service = if due.connection.is_empty() { "sign-in" } else { due.connection.as_str() };
        let revoked = Box::pin(self.revoke(due)).await;
        let now = self.clock.now();
        let settled = match &revoked {
            Ok(()) => Settled::Done,
            Err(reason) => {
                tracing::warn!(service, reason, "a token is not revoked yet; it is tried again");
                let pause = FIRST_PAUSE.saturating_mul(3_u32.saturating_pow(due.attempts));
                Settled::Again(now.plus(pause.min(LONGEST_PAUSE)))
            }
        };
        match self.storage.settle_revocation(due, settled, now).await {
            Ok(true) => tracing::error!(
                service,
                reason = revoked.err(),
                "a token could not be revoked for a day, and is given up: it works until its end"
            ),
            Ok(false) => {}
            Err(cause) => {
                tracing::warn!(service, %cause, "the outcome of a revocation is not stored");
            }
        }
    }

    /// Revokes the tokens of one entry. `Ok`: done, or nothing can be done.
    async fn revoke(&self, due: &DueRevocation) -> Result<(), String> {
        if due.connection.is_empty() {
            return self.revoke_sign_in(due).await;
        }
        let config = self.service(&due.connection);
        let config = config.filter(|config| self.provider_key_of(config) == due.provider_key);
        let Some(config) = config else {
            let service = due.connection.as_str();
            tracing::info!(
                service,
                "tokens of a service that is no longer configured are not revoked"
            );
            return Ok(());
        };
        if !config.revokes || (due.is_replaced && config.preset.one_grant) {
            return Ok(()); // it would end tokens that are in use
        }
        let service = self.resolve(config).await.map_err(|error| error.to_string())?;
        let Some(url) = service.revoke.clone() else { return Ok(()) };
        let (call, login) = (config.preset.revocation, service.login());
        let place = RevocationPlace { url, call, login, http: &service.http };
        place.revoke_all(due).await
    }

    /// Revokes tokens of the sign-in provider.
    async fn revoke_sign_in(&self, due: &DueRevocation) -> Result<(), String> {
        let client = self.upstream.sign_in_client();
        let is_shared = |one: &ConnectionConfig| !one.revokes && one.client_id == client.client_id;
        if due.provider_key != client.issuer || self.services.iter().any(is_shared) {
            return Ok(());
        }
        let found = self.upstream.service_metadata().await.map_err(|error| error.to_string())?;
        let Some(url) = found.revoke else { return Ok(()) };
        let call = RevocationCall::of_provider(client.preset);
        if due.is_replaced && call == RevocationCall::Google {
            return Ok(()); // it would end the tokens of the new sign-in too
        }
        let login = ClientLogin {
            client_id: &client.client_id,
            client_secret: client.client_secret.expose(),
            method: found.client_auth,
        };
        let http = self.http.clone().allowing_http(client.allow_http);
        RevocationPlace { url, call, login, http: &http }.revoke_all(due).await
    }
}

impl RevocationPlace<'_> {
    /// Revokes the refresh token, which ends the whole grant at most services, and the access token.
    async fn revoke_all(&self, due: &DueRevocation) -> Result<(), String> {
        let (access, refresh) = (&due.tokens.access_token, due.tokens.refresh_token.as_deref());
        match self.call {
            RevocationCall::Rfc7009 => {
                if let Some(refresh) = refresh {
                    self.revoke_one(refresh, "refresh_token").await?;
                }
                self.revoke_one(access, "access_token").await
            }
            RevocationCall::Google => self.revoke_one(refresh.unwrap_or(access), "").await,
            RevocationCall::GitHub | RevocationCall::Slack => self.revoke_one(access, "").await,
        }
    }

    async fn revoke_one(&self, token: &str, hint: &str) -> Result<(), String> {
        if !is_visible(token) {
            return Ok(()); // it was never usable
        }
        let request = self.request(token, hint).map_err(|error| error.to_string())?;
        let response = self.http.send(request).await.map_err(|error| error.to_string())?;
        if is_revoked(self.call, &response) {
            return Ok(());
        }
        Err(format!("the service answers {}", response.status()))
    }

    fn request(&self, token: &str, hint: &str) -> Result<Request<Vec<u8>>, axum::http::Error> {
        let url = self.url.as_str();
        let json = "application/json";
        match self.call {
            RevocationCall::Rfc7009 => {
                self.login.form(url, &[("token", token), ("token_type_hint", hint)])
            }
            RevocationCall::GitHub => Request::delete(url)
                .header(header::AUTHORIZATION, self.login.basic())
                .header(header::ACCEPT, "application/vnd.github+json")
                .header(header::CONTENT_TYPE, json)
                .header(header::USER_AGENT, "portcullis")
                .body(json!({ "access_token": token }).to_string().into_bytes()),
            RevocationCall::Slack => Request::post(url)
                .header(header::AUTHORIZATION, format!("Bearer {token}"))
                .header(header::ACCEPT, json)
                .body(Vec::new()),
            RevocationCall::Google => {
                let mut form = form_urlencoded::Serializer::new(String::new());
                form.append_pair("token", token);
                Request::post(url)
                    .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                    .header(header::ACCEPT, json)
                    .body(form.finish().into_bytes())
            }
        }
    }
}

/// Whether the token is revoked, or was not valid any more.
fn is_revoked(call: RevocationCall, response: &Response<Vec<u8>>) -> bool {
    let status = response.status();
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    let error = body["error"].as_str().unwrap_or_default();
    match call {
        RevocationCall::Rfc7009 => {
            let is_of_no_use =
                ["unsupported_token_type", "invalid_token", "invalid_grant"].contains(&error);
            status.is_success() || (status == StatusCode::BAD_REQUEST && is_of_no_use)
        }
        RevocationCall::GitHub => {
            status.is_success()
                || [StatusCode::NOT_FOUND, StatusCode::UNPROCESSABLE_ENTITY].contains(&status)
        }
        RevocationCall::Slack => {
            let was_dead = [
                "invalid_auth",
                "token_revoked",
                "token_expired",
                "account_inactive",
                "not_authed",
            ]
            .contains(&error);
            status.is_success() && (body["ok"] == true || was_dead)
        }
        RevocationCall::Google => status.is_success() || status == StatusCode::BAD_REQUEST,
    }
}
