//! Approval by pattern: websites whose clients need no review. A client is approved the first time that
//! somebody signs in for it, if all its redirect URIs lead to such a website.

use sqlx::any::AnyRow;

use super::ReviewState;
use super::decisions::{ReviewDecision, locked_review, store_review};
use crate::clock::Timestamp;
use crate::oauth::client::ClientMetadata;
use crate::oauth::client::website::Website;
use crate::storage::{Storage, StorageError, Transaction, column, moment, moment_if_any};
use crate::telemetry::audit::AuditEvent;

/// Most patterns: 100. A list that is longer is a rule that nobody reads.
const MOST: i64 = 100;
/// Most waiting clients that a new pattern approves at once: 1,000. Others are approved when the page of a
/// person who waits reloads.
const AT_ONCE: i64 = 1000;

/// A website whose clients need no review.
#[derive(Clone, Debug)]
pub struct ApprovalPattern {
    /// The host, with the port unless it is 443.
    pub host: String,
    /// From then on it approves no client; `None`: no end.
    pub until: Option<Timestamp>,
    /// How many clients it has approved.
    pub approved: i64,
    /// When it was added, or its end last changed.
    pub created_at: Timestamp,
    /// Our `sub` for the administrator, or `shell`.
    pub created_by: String,
}

/// A pattern to be added.
#[derive(Clone, Copy, Debug)]
pub struct NewApprovalPattern<'a> {
    pub website: &'a Website,
    /// From then on it approves no client; `None`: no end.
    pub until: Option<Timestamp>,
    /// Our `sub` for the administrator, or `shell`.
    pub by: &'a str,
}

impl Storage {
    /// Lists all patterns by their hosts.
    pub async fn approval_patterns(&self) -> Result<Vec<ApprovalPattern>, StorageError> {
        let rows = sqlx::query(
            "SELECT host, until_at, approved, created_at, created_by FROM approval_patterns
             ORDER BY host",
        )
        .fetch_all(self.pool())
        .await?;
        let read = |row: &AnyRow| -> Result<ApprovalPattern, StorageError> {
            Ok(ApprovalPattern {
                host: column(row, "host")?,
                until: moment_if_any(row, "until_at")?,
                approved: column(row, "approved")?,
                created_at: moment(row, "created_at")?,
                created_by: column(row, "created_by")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Adds a pattern, or changes the end of one that exists, and approves the waiting clients that match.
    /// Returns how many these are; `None` if there are too many patterns.
    pub async fn add_approval_pattern(
        &self,
        new: &NewApprovalPattern<'_>,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<Option<u64>, StorageError> {
        let host = new.website.as_str();
        let mut step = self.begin().await?;
        sqlx::query(
            "INSERT INTO approval_patterns (host, until_at, approved, created_at, created_by)
             VALUES ($1, $2, 0, $3, $4)
             ON CONFLICT (host) DO UPDATE SET until_at = $2, created_at = $3, created_by = $4",
        )
        .bind(host)
        .bind(new.until.map(Timestamp::unix))
        .bind(now.unix())
        .bind(new.by)
        .execute(&mut *step)
        .await?;
        let number: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM approval_patterns")
            .fetch_one(&mut *step)
            .await?;
        if number > MOST {
            return Ok(None); // rolled back
        }
        let event = event.named("approval_pattern_added").with("pattern", host);
        let event = match new.until {
            Some(until) => event.with("until", until.unix()),
            None => event,
        };
        step.record(event.clone()).await?;
        let mut approved = 0;
        for client in waiting_clients(&mut step, new.website).await? {
            let about = event.clone().again("client_approved_by_pattern");
            approved += u64::from(approve(&mut step, &client, new.website, now, about).await?);
        }
        step.commit().await?;
        Ok(Some(approved))
    }

    /// Removes a pattern. What it approved stays approved. Returns `false` when it did not exist.
    pub async fn remove_approval_pattern(
        &self,
        host: &str,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let mut step = self.begin().await?;
        let removed = sqlx::query("DELETE FROM approval_patterns WHERE host = $1")
            .bind(host)
            .execute(&mut *step)
            .await?;
        if removed.rows_affected() == 0 {
            return Ok(false);
        }
        step.record(event.named("approval_pattern_removed").with("pattern", host)).await?;
        step.commit().await?;
        Ok(true)
    }

    /// Approves a client that nobody has decided about, if a pattern matches its metadata. Returns whether
    /// it is approved now.
    pub async fn approve_by_pattern(
        &self,
        client_id: &str,
        metadata: &ClientMetadata,
        now: Timestamp,
        event: AuditEvent,
    ) -> Result<bool, StorageError> {
        let Some(website) = Website::of(metadata) else { return Ok(false) };
        // Most clients match no pattern, and need no transaction.
        let known = sqlx::query("SELECT host FROM approval_patterns WHERE host = $1");
        if self.read_one(known.bind(website.as_str())).await?.is_none() {
            return Ok(false);
        }
        let mut step = self.begin().await?;
        let client = Reviewed { id: client_id.to_owned(), digest: metadata.digest() };
        if !approve(&mut step, &client, &website, now, event).await? {
            return Ok(false);
        }
        step.commit().await?;
        Ok(true)
    }
}

/// A client with the digest of the metadata that match a pattern.
struct Reviewed {
    id: String,
    digest: String,
}

/// Returns the clients that wait for a decision, and whose redirect URIs all lead to this website.
async fn waiting_clients(
    step: &mut Transaction,
    website: &Website,
) -> Result<Vec<Reviewed>, StorageError> {
    let rows = sqlx::query(
        "SELECT c.id, c.metadata FROM client_reviews s JOIN clients c ON c.id = s.client_id
         WHERE s.state = 'waiting' AND s.blocked = 0 AND c.kind <> 'configured'
         ORDER BY s.changed_at, s.client_id LIMIT $1",
    )
    .bind(AT_ONCE)
    .fetch_all(&mut **step)
    .await?;
    let mut found = Vec::new();
    for row in &rows {
        let metadata = ClientMetadata::from_stored_json(&column::<String>(row, "metadata")?);
        let Ok(metadata) = metadata else { continue };
        if Website::of(&metadata).as_ref() == Some(website) {
            found.push(Reviewed { id: column(row, "id")?, digest: metadata.digest() });
        }
    }
    Ok(found)
}

/// Approves one client, if the pattern is in force and nobody has denied the client. The approval applies
/// to metadata with this digest only.
async fn approve(
    step: &mut Transaction,
    client: &Reviewed,
    website: &Website,
    now: Timestamp,
    event: AuditEvent,
) -> Result<bool, StorageError> {
    // Locks the pattern, before the review as in every transaction: it cannot be removed at the same time.
    let in_force = sqlx::query(
        "UPDATE approval_patterns SET approved = approved
         WHERE host = $1 AND (until_at IS NULL OR until_at > $2)",
    )
    .bind(website.as_str())
    .bind(now.unix())
    .execute(&mut **step)
    .await?;
    if in_force.rows_affected() == 0 {
        return Ok(false);
    }
    let by = format!("pattern {website}");
    let before = locked_review(step, &client.id, &by, now).await?;
    if before.is_denied() {
        return Ok(false);
    }
    if before.state == ReviewState::Approved
        && before.approved_as.as_deref() == Some(client.digest.as_str())
    {
        return Ok(true); // by a sign-in at the same time
    }
    let mut after = before;
    ReviewDecision::Approve.apply(&mut after, Some(client.digest.clone()));
    store_review(step, &client.id, &after, &by, now).await?;
    sqlx::query("UPDATE approval_patterns SET approved = approved + 1 WHERE host = $1")
        .bind(website.as_str())
        .execute(&mut **step)
        .await?;
    let event = event.named("client_approved_by_pattern").client(&client.id);
    step.record(event.with("pattern", website.as_str()).with("digest", client.digest.as_str()))
        .await?;
    Ok(true)
}
