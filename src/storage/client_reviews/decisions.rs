//! Decisions of administrators about clients. Each applies to the client's metadata at that time.

use crate::clock::Timestamp;
use crate::oauth::client::ClientMetadata;
use crate::storage::client_reviews::{CONFIGURATION, read_client_review};
use crate::storage::revocation::{Counted, Ended, RevocationScope, end_as_counted};
use crate::storage::{ClientReview, ReviewState, Storage, StorageError, Transaction};
use crate::telemetry::audit::AuditEvent;

/// A decision about a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReviewDecision {
    Approve,
    Refuse,
    Trust,
    Untrust,
    Block,
    Unblock,
}

impl ReviewDecision {
    /// Returns the name of its audit event.
    pub const fn event(self) -> &'static str {
        match self {
            Self::Approve => "client_approved",
            Self::Refuse => "client_refused",
            Self::Trust => "client_trusted",
            Self::Untrust => "client_untrusted",
            Self::Block => "client_blocked",
            Self::Unblock => "client_unblocked",
        }
    }

    /// Returns whether the decision permits something. It then applies to the metadata as it is, and not
    /// just to the id.
    pub const fn opens(self) -> bool {
        matches!(self, Self::Approve | Self::Trust)
    }

    pub(super) fn apply(self, standing: &mut ClientReview, digest: Option<String>) {
        match self {
            Self::Approve => {
                standing.state = ReviewState::Approved;
                standing.approved_as = digest;
            }
            Self::Refuse => {
                standing.state = ReviewState::Rejected;
                standing.approved_as = None;
            }
            Self::Trust if standing.trusted && standing.trusted_by_configuration => {}
            Self::Trust => {
                standing.trusted = true;
                standing.trusted_as = digest;
            }
            Self::Untrust => {
                standing.trusted = false;
                standing.trusted_as = None;
                standing.trusted_by_configuration = false;
            }
            Self::Block => standing.blocked = true,
            Self::Unblock => standing.blocked = false,
        }
    }
}

/// The outcome of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientDecided {
    /// It takes effect now.
    Changed,
    /// It was already in effect.
    Unchanged,
    /// Nothing was decided: the metadata is no longer what the administrator saw.
    OtherClient,
}

/// A decision about a client, with who made it.
#[derive(Clone, Copy, Debug)]
pub struct ClientDecision<'a> {
    client_id: &'a str,
    verdict: ReviewDecision,
    by: &'a str,
    /// The digest of the client that the administrator saw. Nothing is decided about another one.
    seen: Option<&'a str>,
}

impl<'a> ClientDecision<'a> {
    /// A decision about the client as it is, by the person or program `by`.
    pub const fn new(client_id: &'a str, verdict: ReviewDecision, by: &'a str) -> Self {
        Self { client_id, verdict, by, seen: None }
    }

    /// The same, if the digest of the client is still `seen`.
    #[must_use]
    pub const fn of_seen(self, seen: &'a str) -> Self {
        Self { seen: Some(seen), ..self }
    }
}

impl Storage {
    /// Applies a decision. Returns `false` when nothing changed. A block or rejection also ends the
    /// client's grants, codes and waiting logins, in the same transaction.
    pub async fn decide_client(
        &self,
        decision: ClientDecision<'_>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let decided = self.decide_client_as_seen(decision, now, event).await?;
        Ok(decided == ClientDecided::Changed)
    }

    /// Like [`Self::decide_client`], for an administrator who looked at the client before. Tells apart why
    /// nothing changed.
    pub async fn decide_client_as_seen(
        &self,
        decision: ClientDecision<'_>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<ClientDecided, StorageError> {
        let decided = self.decide_client_and_count(decision, None, now, event).await?;
        Ok(decided.map_or(ClientDecided::Unchanged, |(decided, _)| decided))
    }

    /// Like [`Self::decide_client`], but only if it ends exactly the grants in `counted`.
    pub(crate) async fn decide_client_as_counted(
        &self,
        decision: ClientDecision<'_>,
        counted: Option<&Counted>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Ended, StorageError> {
        let decided = self.decide_client_and_count(decision, counted, now, event).await?;
        Ok(match decided {
            Some((ClientDecided::Changed, ended)) => Ended::Done(ended),
            Some(_) => Ended::Unchanged,
            None => Ended::Recounted,
        })
    }

    /// Applies a decision. Returns the outcome and how many grants ended, or `None` if they are not the
    /// ones in `counted`.
    async fn decide_client_and_count(
        &self,
        decision: ClientDecision<'_>,
        counted: Option<&Counted>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Option<(ClientDecided, u64)>, StorageError> {
        let ClientDecision { client_id, verdict, by, seen } = decision;
        let mut step = self.begin_revocation().await?;
        let mut digest = None;
        if verdict.opens() {
            digest = locked_digest(&mut step, client_id).await?;
            if seen.is_some() && digest.as_deref() != seen {
                return Ok(Some((ClientDecided::OtherClient, 0)));
            }
        }
        let before = locked_review(&mut step, client_id, by, now).await?;
        let mut after = before.clone();
        verdict.apply(&mut after, digest.clone());
        if before == after {
            return Ok(Some((ClientDecided::Unchanged, 0)));
        }
        store_review(&mut step, client_id, &after, by, now).await?;
        let mut event = event.named(verdict.event()).client(client_id);
        if let Some(digest) = digest {
            event = event.with("digest", digest);
        }
        if !after.trusted {
            sqlx::query("DELETE FROM remembered_consents WHERE client_id = $1")
                .bind(client_id)
                .execute(&mut *step)
                .await?;
        }
        let mut ended = 0;
        if after.is_denied() {
            let reason = match verdict {
                ReviewDecision::Refuse => "the client was refused",
                _ => "the client was blocked",
            };
            let scope = RevocationScope::Client(client_id);
            let revoked = end_as_counted(&mut step, scope, reason, counted, now).await?;
            let Some(revoked) = revoked else { return Ok(None) };
            ended = revoked.grants;
            event = event.with("grants_ended", ended);
        }
        let told = |standing: &ClientReview| {
            serde_json::json!({
                "approval": standing.state.as_str(),
                "trusted": standing.trusted,
                "blocked": standing.blocked,
            })
        };
        step.record(event.with("before", told(&before)).with("after", told(&after))).await?;
        self.commit_and_notify(step).await?;
        Ok(Some((ClientDecided::Changed, ended)))
    }

    /// Aligns trust with the configuration: trusts the clients it names, and withdraws the trust that an
    /// earlier configuration gave to others.
    pub async fn configure_trust(
        &self,
        trusted: &[&str],
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<(), StorageError> {
        let mut step = self.begin().await?;
        for client_id in trusted {
            let changed = sqlx::query(
                "INSERT INTO client_reviews
                     (client_id, state, trusted, blocked, changed_at, changed_by, trusted_by)
                 VALUES ($1, 'none', 1, 0, $2, $3, $3)
                 ON CONFLICT (client_id) DO UPDATE SET trusted = 1, trusted_by = $3, trusted_as = NULL
                 WHERE client_reviews.trusted = 0",
            )
            .bind(client_id)
            .bind(now.unix())
            .bind(CONFIGURATION)
            .execute(&mut *step)
            .await?;
            if changed.rows_affected() == 1 {
                step.record(event.clone().again("client_trusted").client(client_id)).await?;
            }
        }
        let before: Vec<String> = sqlx::query_scalar(
            "SELECT client_id FROM client_reviews WHERE trusted = 1 AND trusted_by = $1",
        )
        .bind(CONFIGURATION)
        .fetch_all(&mut *step)
        .await?;
        for client_id in before.iter().filter(|id| !trusted.contains(&id.as_str())) {
            for statement in [
                "UPDATE client_reviews SET trusted = 0, trusted_by = NULL, trusted_as = NULL
                 WHERE client_id = $1",
                "DELETE FROM remembered_consents WHERE client_id = $1",
            ] {
                sqlx::query(statement).bind(client_id).execute(&mut *step).await?;
            }
            step.record(event.clone().again("client_untrusted").client(client_id)).await?;
        }
        step.commit().await
    }
}

/// Returns the digest of the client's metadata; `None` if it is not stored. Locks the row, so that a
/// concurrent change of the metadata either waits or is already visible.
async fn locked_digest(
    step: &mut Transaction,
    client_id: &str,
) -> Result<Option<String>, StorageError> {
    let metadata: Option<String> =
        sqlx::query_scalar("UPDATE clients SET kind = kind WHERE id = $1 RETURNING metadata")
            .bind(client_id)
            .fetch_optional(&mut **step)
            .await?;
    metadata.map(|metadata| digest_of(&metadata)).transpose()
}

/// Returns what was decided about the client so far. Creates the row if needed, and locks it.
pub(super) async fn locked_review(
    step: &mut Transaction,
    client_id: &str,
    by: &str,
    now: Timestamp,
) -> Result<ClientReview, StorageError> {
    sqlx::query(
        "INSERT INTO client_reviews (client_id, state, trusted, blocked, changed_at, changed_by)
         VALUES ($1, 'none', 0, 0, $2, $3)
         ON CONFLICT (client_id) DO UPDATE SET changed_by = client_reviews.changed_by",
    )
    .bind(client_id)
    .bind(now.unix())
    .bind(by)
    .execute(&mut **step)
    .await?;
    let row = sqlx::query(
        "SELECT state, trusted, blocked, requested_at, requested_by, approved_as, trusted_as,
                trusted_by
         FROM client_reviews WHERE client_id = $1",
    )
    .bind(client_id)
    .fetch_one(&mut **step)
    .await?;
    read_client_review(&row)
}

pub(super) async fn store_review(
    step: &mut Transaction,
    client_id: &str,
    review: &ClientReview,
    by: &str,
    now: Timestamp,
) -> Result<(), StorageError> {
    sqlx::query(
        "UPDATE client_reviews
         SET state = $2, trusted = $3, blocked = $4, changed_at = $5, changed_by = $6,
             approved_as = $7, trusted_as = $8,
             trusted_by = CASE WHEN $3 = 0 THEN NULL WHEN trusted = 1 THEN trusted_by ELSE $6 END
         WHERE client_id = $1",
    )
    .bind(client_id)
    .bind(review.state.as_str())
    .bind(i64::from(review.trusted))
    .bind(i64::from(review.blocked))
    .bind(now.unix())
    .bind(by)
    .bind(review.approved_as.as_deref())
    .bind(review.trusted_as.as_deref())
    .execute(&mut **step)
    .await?;
    Ok(())
}

/// Returns the digest of stored metadata.
fn digest_of(metadata: &str) -> Result<String, StorageError> {
    let metadata = ClientMetadata::from_stored_json(metadata);
    let metadata = metadata.map_err(|_| StorageError::Corrupt("clients.metadata".to_owned()))?;
    Ok(metadata.digest())
}

/// Withdraws, in the caller's transaction, approval and trust that were given to other metadata than that
/// with the digest `digest`. Trust from the configuration stays.
pub(crate) async fn lapse(
    step: &mut Transaction,
    client_id: &str,
    digest: &str,
    now: Timestamp,
    event: &AuditEvent,
) -> Result<(), StorageError> {
    let mut lost = Vec::new();
    for (what, statement) in [
        (
            "approval",
            "UPDATE client_reviews SET state = 'none', changed_at = $3
             WHERE client_id = $1 AND state = 'approved' AND COALESCE(approved_as, '') <> $2",
        ),
        (
            "trust",
            "UPDATE client_reviews SET trusted = 0, trusted_by = NULL, changed_at = $3
             WHERE client_id = $1 AND trusted = 1 AND COALESCE(trusted_as, '') <> $2
               AND COALESCE(trusted_by, '') <> 'configuration'",
        ),
    ] {
        let ended = sqlx::query(statement)
            .bind(client_id)
            .bind(digest)
            .bind(now.unix())
            .execute(&mut **step)
            .await?;
        if ended.rows_affected() == 1 {
            lost.push(what);
        }
    }
    if lost.is_empty() {
        return Ok(());
    }
    if lost.contains(&"trust") {
        sqlx::query("DELETE FROM remembered_consents WHERE client_id = $1")
            .bind(client_id)
            .execute(&mut **step)
            .await?;
    }
    let event = event.clone().again("client_decision_lapsed").client(client_id);
    step.record(event.with("lost", lost).with("digest", digest)).await
}
