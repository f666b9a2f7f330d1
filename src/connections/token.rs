//! Hands out a person's token of a service.

use std::sync::Arc;
use std::time::Duration;

use super::{Connections, ConnectionsInner, ServiceToken, TokenMissing, key_of};
use crate::clock::Timestamp;
use crate::config::ConnectionConfig;
use crate::storage::Connection;
use crate::telemetry::metrics::ServiceTokenOutcome;
use crate::telemetry::trace;

/// Longest wait of a caller for a refresh, in front of clients that give up after 10 s. The refresh goes on.
const CALLER_TIMEOUT: Duration = Duration::from_secs(7);

/// A token that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct WantedToken<'a> {
    /// Our `sub` of the person.
    pub subject: &'a str,
    pub name: &'a str,
    /// The scopes that the token must have.
    pub scopes: &'a [String],
}

impl Connections {
    /// Returns the person's token, and renews it if less than 60 s are left. A fresh one costs no access to
    /// the database. Counts the outcome in the metrics.
    pub async fn token(&self, wanted: &WantedToken<'_>) -> Result<Arc<ServiceToken>, TokenMissing> {
        let Some(service) = self.0.service(wanted.name) else {
            return Err(TokenMissing::NotConnected);
        };
        let given = self.given(service, wanted).await;
        let outcome = match &given {
            Ok((_, outcome)) => *outcome,
            Err(missing) => missing.outcome(),
        };
        self.0.storage.metrics().service_token(&service.name, outcome);
        given.map(|(token, _)| token)
    }

    /// Notes that the service refused the token of this version although it had not ended: it is renewed
    /// before the next use, at most once a minute. Repeats nothing.
    pub fn refused(&self, subject: &str, name: &str, version: i64) {
        let inner = &self.0;
        inner.memory.refused.note(&key_of(name, subject), version, inner.clock.now());
    }

    async fn given(
        &self,
        service: &ConnectionConfig,
        wanted: &WantedToken<'_>,
    ) -> Result<(Arc<ServiceToken>, ServiceTokenOutcome), TokenMissing> {
        let inner = &self.0;
        let key = key_of(wanted.name, wanted.subject);
        let refused = inner.memory.refused.version(&key);
        if let Some(token) = inner.memory.recent.get(&key)
            && refused != Some(token.version)
            && inner.memory.lifetimes.is_fresh(&service.name, token.expires_at, inner.clock.now())
        {
            check_scopes(&token.scopes, wanted.scopes)?;
            return Ok((token, ServiceTokenOutcome::Fresh));
        }
        // In a box: once a second, and every call would carry room for it.
        Box::pin(self.read(service, wanted, &key)).await
    }

    async fn read(
        &self,
        service: &ConnectionConfig,
        wanted: &WantedToken<'_>,
        key: &str,
    ) -> Result<(Arc<ServiceToken>, ServiceTokenOutcome), TokenMissing> {
        let inner = &self.0;
        let seen = inner.memory.recent.look();
        let row = inner.load(service, wanted.subject).await?;
        check_scopes(&row.scopes, wanted.scopes)?;
        if inner.is_fresh(&row) {
            let token = Arc::new(token_of(&row)?);
            inner.memory.recent.put(key, Arc::clone(&token), seen);
            inner.note_used(&row).await;
            return Ok((token, ServiceTokenOutcome::Fresh));
        }
        let renewed =
            tokio::time::timeout(CALLER_TIMEOUT, self.renewed(service, wanted.subject, key));
        let row = renewed.await.unwrap_or_else(|_| {
            tracing::warn!(service = service.name, "the service has not answered in time");
            Err(TokenMissing::Unavailable)
        })?;
        check_scopes(&row.scopes, wanted.scopes)?;
        inner.note_used(&row).await;
        Ok((Arc::new(token_of(&row)?), ServiceTokenOutcome::Refreshed))
    }

    /// Renews the person's token, as the only task of this process that does so, and returns the connection
    /// with a token that may be used.
    async fn renewed(
        &self,
        service: &ConnectionConfig,
        subject: &str,
        key: &str,
    ) -> Result<Connection, TokenMissing> {
        let inner = &self.0;
        let turn = inner.memory.turns.turn(key).await;
        // Another call may have renewed it while we waited.
        let row = inner.load(service, subject).await?;
        if inner.is_fresh(&row) {
            return Ok(row);
        }
        if inner.memory.pauses.is_paused(key, inner.clock.now()) {
            return inner.last_resort(row);
        }
        // The task must finish even if the client disconnects, because the service may have rotated the
        // refresh token.
        let (inner, trace) = (Arc::clone(inner), trace::current());
        let (name, subject) = (service.name.clone(), subject.to_owned());
        let asked = tokio::spawn(async move {
            let _turn = turn;
            trace::within(trace, std::pin::pin!(inner.renew_and_load(&name, &subject, row))).await
        });
        asked.await.unwrap_or(Err(TokenMissing::Unavailable))
    }
}

impl ConnectionsInner {
    /// Loads a connection that may be used.
    pub(super) async fn load(
        &self,
        service: &ConnectionConfig,
        subject: &str,
    ) -> Result<Connection, TokenMissing> {
        let row = self.storage.connection(subject, &service.name).await?;
        let row = row.ok_or(TokenMissing::NotConnected)?;
        // The tokens of another client or service are of no use.
        let fits = row.provider_key == self.provider_key_of(service);
        if fits && row.is_active() { Ok(row) } else { Err(TokenMissing::Broken) }
    }

    /// Returns whether the token is good for one more call, and is not the one that was refused.
    pub(super) fn is_fresh(&self, row: &Connection) -> bool {
        let refused = self.memory.refused.version(&key_of(&row.name, &row.subject));
        refused != Some(row.version)
            && self.memory.lifetimes.is_fresh(&row.name, row.access_until, self.clock.now())
    }

    /// Returns the connection with a token that is not fresh, but may still work.
    fn last_resort(&self, row: Connection) -> Result<Connection, TokenMissing> {
        let has_ended = row.access_until.is_some_and(|until: Timestamp| until <= self.clock.now());
        let refused = self.memory.refused.version(&key_of(&row.name, &row.subject));
        let can_be_renewed = row.tokens.refresh_token.is_some();
        if has_ended || (can_be_renewed && refused == Some(row.version)) {
            return Err(TokenMissing::Unavailable);
        }
        Ok(row)
    }

    async fn renew_and_load(
        &self,
        name: &str,
        subject: &str,
        row: Connection,
    ) -> Result<Connection, TokenMissing> {
        let service = self.service(name).ok_or(TokenMissing::NotConnected)?;
        Box::pin(self.renew(service, row)).await?;
        let row = self.load(service, subject).await?;
        if self.is_fresh(&row) { Ok(row) } else { self.last_resort(row) }
    }

    /// Notes the use, at most once a minute. The token is good even if the database is not.
    async fn note_used(&self, row: &Connection) {
        let used =
            self.storage.note_connection_used(&row.subject, &row.name, self.clock.now()).await;
        if let Err(cause) = used {
            tracing::debug!(%cause, "the use of a connection is not noted");
        }
    }
}

fn check_scopes(
    granted: &std::collections::BTreeSet<String>,
    wanted: &[String],
) -> Result<(), TokenMissing> {
    let missing = super::granted::missing(wanted, granted);
    if missing.is_empty() { Ok(()) } else { Err(TokenMissing::LacksScopes(missing)) }
}

fn token_of(row: &Connection) -> Result<ServiceToken, TokenMissing> {
    let scopes = row.scopes.clone();
    ServiceToken::new(&row.tokens.access_token, row.access_until, scopes, row.version).ok_or_else(
        || {
            tracing::error!(service = row.name, "the access token does not fit into a header");
            TokenMissing::Unavailable
        },
    )
}
