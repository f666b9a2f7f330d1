//! Stores and removes connections. What is replaced by another account, or removed, is queued for revocation
//! in the same transaction.

use std::collections::BTreeSet;
use std::fmt;

use sqlx::any::AnyRow;

use super::{ACCOUNT_LABEL, ServiceTokens, TOKENS, bound_to, joined, row_id, until, words};
use crate::clock::Timestamp;
use crate::oauth::sealed::Purpose;
use crate::storage::{Storage, StorageError, Transaction, column};
use crate::telemetry::audit::AuditEvent;

/// A connection as the service granted it.
#[derive(Clone)]
pub struct NewConnection {
    /// The person, by our `sub`.
    pub subject: String,
    /// The service's name in the configuration.
    pub name: String,
    /// Identifies client and token endpoint.
    pub provider_key: String,
    /// The person's id at the service, if it is known. Only its hash is stored, to see whether the account
    /// changed.
    pub account_key: Option<String>,
    /// The person's name at the service, for people to read.
    pub account_label: Option<String>,
    /// The scopes that the service granted.
    pub scopes: BTreeSet<String>,
    /// Without a refresh token, the one of the same account that is stored stays.
    pub tokens: ServiceTokens,
    /// End of the access token; `None`: it does not expire.
    pub access_until: Option<Timestamp>,
}

impl fmt::Debug for NewConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewConnection").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The outcome of storing a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutConnection {
    /// It is new, or the same account with the same scopes was connected again.
    Made,
    /// The same account, with other scopes.
    ScopesChanged,
    /// Another account of the same service. The tokens of the former one are queued for revocation.
    AccountChanged,
    /// The attempt has ended, or the person is blocked. Nothing is connected, and the new tokens are queued for
    /// revocation.
    Refused,
}

impl PutConnection {
    const fn event(self) -> &'static str {
        match self {
            Self::ScopesChanged => "connection_scopes_changed",
            Self::AccountChanged => "connection_account_changed",
            Self::Made | Self::Refused => "connection_made",
        }
    }
}

/// A connection that is about to be replaced or removed.
struct Former {
    id: String,
    provider_key: String,
    account_hash: Option<String>,
    scopes: BTreeSet<String>,
    is_active: bool,
    created_at: i64,
    /// `None`: they cannot be opened.
    tokens: Option<ServiceTokens>,
}

impl Storage {
    /// Stores a connection that came from the attempt with this id. It replaces the person's connection of the
    /// same service. Each attempt gives one connection at most.
    ///
    /// `event` is named here after what happened, and gets person, service and scopes.
    pub async fn put_connection(
        &self,
        attempt_id: &str,
        new: &NewConnection,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<PutConnection, StorageError> {
        let mut step = self.begin().await?;
        if !finish_attempt(&mut step, attempt_id, new, now).await? {
            let place = (new.name.as_str(), new.provider_key.as_str());
            self.queue_revocation(&mut step, place, &new.subject, &new.tokens, now).await?;
            step.commit().await?;
            return Ok(PutConnection::Refused);
        }
        let hash = self.account_hash(new);
        let outcome = loop {
            if let Some(former) = self.lock_former(&mut step, &new.subject, &new.name).await? {
                break self.replace(&mut step, &former, (new, hash.as_deref()), now).await?;
            }
            if self.insert_connection(&mut step, (new, hash.as_deref()), now).await? {
                break PutConnection::Made;
            }
            // Another transaction inserted the row meanwhile, and has committed.
        };
        let event = event.named(outcome.event()).subject(&new.subject);
        let event = event.with("connection", new.name.as_str()).with("scopes", joined(&new.scopes));
        step.record(event).await?;
        stop_point!("connection: put");
        self.commit_connections(step).await?;
        Ok(outcome)
    }

    /// Removes a person's connection of a service at once, and queues its tokens for revocation. Returns
    /// `false` if there is none. `event` gets person and service.
    pub async fn remove_connection(
        &self,
        subject: &str,
        name: &str,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let mut step = self.begin_revocation().await?;
        if !self.remove_in(&mut step, (subject, name), now, event).await? {
            return Ok(false);
        }
        self.commit_connections(step).await?;
        Ok(true)
    }

    /// The same, in the caller's transaction, which must end with `commit_connections`.
    pub(in crate::storage) async fn remove_in(
        &self,
        step: &mut Transaction,
        (subject, name): (&str, &str),
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let row = sqlx::query(
            "DELETE FROM connections WHERE subject = $1 AND name = $2
             RETURNING id, provider_key, account_key_hash, scopes, tokens, state, created_at",
        )
        .bind(subject)
        .bind(name)
        .fetch_optional(&mut **step)
        .await?;
        let Some(row) = row else { return Ok(false) };
        let former = self.read_former(&row, subject, name)?;
        if let Some(tokens) = &former.tokens {
            self.queue_revocation(step, (name, &former.provider_key), subject, tokens, now).await?;
        }
        step.record(event.named("connection_removed").subject(subject).with("connection", name))
            .await?;
        Ok(true)
    }

    /// Returns what is stored of the account's id: nobody can tell the id from it without the secret key.
    fn account_hash(&self, new: &NewConnection) -> Option<String> {
        let key = new.account_key.as_deref()?;
        let parts = ["connection account", &new.name, &new.provider_key, key].map(str::as_bytes);
        Some(self.sealer.mac(Purpose::Search, &parts))
    }

    /// Reads the connection that will be replaced, and locks it until the transaction ends.
    async fn lock_former(
        &self,
        step: &mut Transaction,
        subject: &str,
        name: &str,
    ) -> Result<Option<Former>, StorageError> {
        let row = sqlx::query(
            "UPDATE connections SET version = version + 1 WHERE subject = $1 AND name = $2
             RETURNING id, provider_key, account_key_hash, scopes, tokens, state, created_at",
        )
        .bind(subject)
        .bind(name)
        .fetch_optional(&mut **step)
        .await?;
        row.as_ref().map(|row| self.read_former(row, subject, name)).transpose()
    }

    fn read_former(&self, row: &AnyRow, subject: &str, name: &str) -> Result<Former, StorageError> {
        let (id, provider_key): (String, String) =
            (column(row, "id")?, column(row, "provider_key")?);
        let bound = bound_to(&id, name, &provider_key, subject);
        Ok(Former {
            tokens: self.open_json(TOKENS, &bound, &column::<String>(row, "tokens")?).ok(),
            account_hash: column(row, "account_key_hash")?,
            scopes: words(&column::<String>(row, "scopes")?),
            is_active: column::<String>(row, "state")? == "active",
            created_at: column(row, "created_at")?,
            id,
            provider_key,
        })
    }

    async fn replace(
        &self,
        step: &mut Transaction,
        former: &Former,
        (new, hash): (&NewConnection, Option<&str>),
        now: Timestamp,
    ) -> Result<PutConnection, StorageError> {
        let is_other_client = former.provider_key != new.provider_key;
        let is_other_account =
            former.account_hash.as_deref().zip(hash).is_some_and(|(a, b)| a != b);
        let mut tokens = new.tokens.clone();
        if is_other_client || is_other_account {
            if let Some(old) = &former.tokens {
                self.queue_revocation(step, (&new.name, &former.provider_key), "", old, now)
                    .await?;
            }
        } else if tokens.refresh_token.is_none() && former.is_active {
            // Google and others issue a refresh token only at the first time: the stored one is still valid.
            tokens.refresh_token =
                former.tokens.as_ref().and_then(|former| former.refresh_token.clone());
        }
        let is_same = !is_other_client && !is_other_account;
        let bound = bound_to(&former.id, &new.name, &new.provider_key, &new.subject);
        let label = new.account_label.as_ref();
        sqlx::query(
            "UPDATE connections SET provider_key = $2, account_key_hash = $3, account_label = $4,
                 scopes = $5, tokens = $6, access_until = $7, state = 'active', reason = NULL,
                 state_at = $8, created_at = $9, lease_owner = NULL, lease_until = NULL,
                 used_at = CASE WHEN $10 = 1 THEN used_at ELSE NULL END
             WHERE id = $1",
        )
        .bind(&former.id)
        .bind(&new.provider_key)
        .bind(hash)
        .bind(label.map(|label| self.seal_json(ACCOUNT_LABEL, &bound, label)).transpose()?)
        .bind(joined(&new.scopes))
        .bind(self.seal_json(TOKENS, &bound, &tokens)?)
        .bind(until(new.access_until))
        .bind(now.unix())
        .bind(if is_same { former.created_at } else { now.unix() })
        .bind(i64::from(is_same))
        .execute(&mut **step)
        .await?;
        Ok(if is_other_account {
            PutConnection::AccountChanged
        } else if is_same && former.scopes != new.scopes {
            PutConnection::ScopesChanged
        } else {
            PutConnection::Made
        })
    }

    /// Inserts the connection. Returns `false` if there is one already.
    async fn insert_connection(
        &self,
        step: &mut Transaction,
        (new, hash): (&NewConnection, Option<&str>),
        now: Timestamp,
    ) -> Result<bool, StorageError> {
        let id = row_id(now);
        let bound = bound_to(&id, &new.name, &new.provider_key, &new.subject);
        let label = new.account_label.as_ref();
        let inserted = sqlx::query(
            "INSERT INTO connections
                 (id, subject, name, provider_key, account_key_hash, account_label, scopes, tokens,
                  access_until, version, state, state_at, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, 'active', $10, $10)
             ON CONFLICT (subject, name) DO NOTHING",
        )
        .bind(&id)
        .bind(&new.subject)
        .bind(&new.name)
        .bind(&new.provider_key)
        .bind(hash)
        .bind(label.map(|label| self.seal_json(ACCOUNT_LABEL, &bound, label)).transpose()?)
        .bind(joined(&new.scopes))
        .bind(self.seal_json(TOKENS, &bound, &new.tokens)?)
        .bind(until(new.access_until))
        .bind(now.unix())
        .execute(&mut **step)
        .await?;
        Ok(inserted.rows_affected() == 1)
    }
}

/// Marks the attempt as the source of a connection. Returns `false` if it was that before, or has ended, or if
/// the person is blocked.
async fn finish_attempt(
    step: &mut Transaction,
    attempt_id: &str,
    new: &NewConnection,
    now: Timestamp,
) -> Result<bool, StorageError> {
    let finished = sqlx::query(
        "UPDATE connection_attempts SET finished_at = $4
         WHERE id = $1 AND subject = $2 AND name = $3 AND used_at IS NOT NULL AND finished_at IS NULL
           AND NOT EXISTS (SELECT 1 FROM denied_people d WHERE d.subject = connection_attempts.subject)",
    )
    .bind(attempt_id)
    .bind(&new.subject)
    .bind(&new.name)
    .bind(now.unix())
    .execute(&mut **step)
    .await?;
    Ok(finished.rows_affected() == 1)
}
