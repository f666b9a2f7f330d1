//! Renews a connection's tokens at its service (threats UT-05, UT-06).
//!
//! No transaction stays open during a request. The answer is stored before anybody uses it, because a service
//! that rotates refresh tokens does not issue the same one twice. A definite refusal breaks the connection; an
//! outage, or an error in our own configuration, does not.

use std::time::Duration;

use super::account::{Holder, holder};
use super::granted::granted;
use super::lease::Turn;
use super::{ConnectionsInner, TokenMissing, key_of};
use crate::config::{ConnectionConfig, GrantedScopes};
use crate::oauth::secret::random_text;
use crate::storage::{Connection, RenewedConnection, ServiceTokens, StorageError};
use crate::telemetry::audit::{Actor, AuditEvent};
use crate::upstream::service_token::is_visible;
use crate::upstream::token_response::{self, ResponseForm, TokenFailure, TokenResponse};

/// Pauses between the attempts to store an answer, about 8 s in all. Its refresh token exists nowhere else.
const STORE_PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(500),
    Duration::from_secs(2),
    Duration::from_secs(5),
];

/// Why a connection is broken, for administrators.
const ENDED: &str = "the access has ended, and the service issued no refresh token";
const NOT_ACCEPTED: &str = "the service no longer accepts the token, and issued no refresh token";

impl ConnectionsInner {
    /// Renews the connection `row`, whose token is not fresh. `Ok` says that the row in the database has
    /// changed, or that nothing can be done.
    pub(super) async fn renew(
        &self,
        service: &ConnectionConfig,
        row: Connection,
    ) -> Result<(), TokenMissing> {
        let Some(refresh_token) = row.tokens.refresh_token.clone() else {
            return self.without_refresh_token(service, &row).await;
        };
        let owner = random_text();
        match self.our_turn(&row, &owner).await? {
            Turn::Ours => {}
            Turn::Changed => return Ok(()),
            Turn::Busy => {
                tracing::warn!(
                    service = service.name,
                    "another process asks, without an answer yet"
                );
                return Err(TokenMissing::Unavailable);
            }
        }
        let _kept = self.keep_connection_lease(&row.id, &owner);
        stop_point!("connection: leased");
        let key = key_of(&row.name, &row.subject);
        let failure = match self.ask_to_refresh(service, &refresh_token).await {
            Ok(answer) => {
                stop_point!("connection: answered");
                self.store(service, &row, &owner, &answer).await?;
                stop_point!("connection: stored");
                self.note_usable(service, &key, &answer);
                return Ok(());
            }
            Err(TokenFailure::Refused(code)) => {
                let reason = format!("the service refuses to renew the access: {code}");
                return self.broken(&row, &reason).await;
            }
            Err(failure) => failure,
        };
        let service = service.name.as_str();
        match &failure {
            TokenFailure::Ours(reason) => tracing::error!(
                service,
                reason,
                "the service rejects our client: check client_id and client_secret"
            ),
            failure => tracing::warn!(service, %failure, "the service cannot be asked"),
        }
        self.memory.pauses.begin(&key, self.clock.now());
        self.storage.release_connection(&row, &owner).await?;
        // The caller decides whether the present token may still be used.
        Ok(())
    }

    async fn ask_to_refresh(
        &self,
        config: &ConnectionConfig,
        refresh_token: &str,
    ) -> Result<TokenResponse, TokenFailure> {
        let service = self.resolve(config).await;
        let service = service.map_err(|error| TokenFailure::Transient(error.to_string()))?;
        let form = [("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
        let request = service.login().form(service.token.as_str(), &form);
        let request = request.map_err(|error| TokenFailure::Ours(error.to_string()))?;
        let response = service.http.send(request).await;
        let response = response.map_err(|error| TokenFailure::Transient(error.to_string()))?;
        // The answer to a refresh has the tokens at the top, for every service.
        let ending_errors = config.preset.ending_errors;
        let answer =
            token_response::read(&response, &ResponseForm { token_at: "", ending_errors })?;
        self.memory.lifetimes.learn(&config.name, answer.expires_in);
        Ok(answer)
    }

    /// Stores the answer before anybody uses it. Tries several times if the database fails.
    async fn store(
        &self,
        service: &ConnectionConfig,
        row: &Connection,
        owner: &str,
        answer: &TokenResponse,
    ) -> Result<(), StorageError> {
        let renewed = self.renewed_by(service, row, answer);
        let mut pauses = STORE_PAUSES.iter();
        loop {
            match self.storage.renew_connection(row, owner, &renewed).await {
                Ok(stored) => {
                    if !stored {
                        let service = service.name.as_str();
                        tracing::info!(service, "a connection was replaced while it was renewed");
                    }
                    return Ok(());
                }
                Err(cause) => {
                    let service = service.name.as_str();
                    tracing::error!(service, %cause, "renewed tokens are not stored yet");
                    let Some(pause) = pauses.next() else { return Err(cause) };
                    tokio::time::sleep(*pause).await;
                }
            }
        }
    }

    fn renewed_by(
        &self,
        service: &ConnectionConfig,
        row: &Connection,
        answer: &TokenResponse,
    ) -> RenewedConnection {
        let before = &row.tokens;
        let (access_token, access_until) = match usable(answer) {
            Some(token) => (token.to_owned(), answer.access_until(self.clock.now())),
            // Only the refresh token is new.
            None => (before.access_token.clone(), row.access_until),
        };
        let stated = answer.scope.as_deref().filter(|scope| !scope.trim().is_empty());
        let stated = stated.filter(|_| service.preset.granted == GrantedScopes::Stated);
        let asked: Vec<String> = row.scopes.iter().cloned().collect();
        RenewedConnection {
            tokens: ServiceTokens {
                access_token,
                refresh_token: answer
                    .refresh_token
                    .clone()
                    .or_else(|| before.refresh_token.clone()),
                token_type: answer.token_type.clone(),
            },
            access_until,
            scopes: stated.map(|stated| granted(service, &asked, Some(stated))),
        }
    }

    /// Leaves the service alone for a moment if its answer has no access token that can be sent.
    fn note_usable(&self, service: &ConnectionConfig, key: &str, answer: &TokenResponse) {
        if usable(answer).is_some() {
            self.memory.pauses.end(key);
            return;
        }
        let service = service.name.as_str();
        tracing::error!(
            service,
            "the service answers without an access token that fits into a header"
        );
        self.memory.pauses.begin(key, self.clock.now());
    }

    /// Without a refresh token only the service itself can say whether the token still works.
    async fn without_refresh_token(
        &self,
        config: &ConnectionConfig,
        row: &Connection,
    ) -> Result<(), TokenMissing> {
        let now = self.clock.now();
        if row.access_until.is_some_and(|until| until <= now) {
            return self.broken(row, ENDED).await;
        }
        let key = key_of(&row.name, &row.subject);
        if self.memory.refused.version(&key) != Some(row.version) {
            return Ok(());
        }
        let Ok(service) = self.resolve(config).await else { return Ok(()) };
        if matches!(holder(&service, &row.tokens.access_token).await, Holder::Rejected) {
            return self.broken(row, NOT_ACCEPTED).await;
        }
        // The refusal had another reason, or nobody knows.
        self.memory.refused.clear(&key, now);
        Ok(())
    }

    /// Marks the connection as broken: the person has to connect the service again.
    async fn broken(&self, row: &Connection, reason: &str) -> Result<(), TokenMissing> {
        tracing::info!(service = row.name, reason, "a connection is broken");
        let event = AuditEvent::new("connection_broken", Actor::Server, &self.clock)
            .subject(&row.subject)
            .with("connection", row.name.as_str())
            .with("reason", reason);
        // If the connection was replaced meanwhile, the refusal was not about the new one.
        self.storage.break_connection(row, reason, self.clock.now(), event).await?;
        Ok(())
    }
}

/// The access token of an answer, if it fits into a header.
fn usable(answer: &TokenResponse) -> Option<&str> {
    answer.access_token().ok().filter(|token| is_visible(token))
}
