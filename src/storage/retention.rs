//! Retention: removes rows that expired long ago. A row stays for a day after its end, so that a late
//! replay is still recognised as one.
//!
//! Each statement states its condition twice: where it selects some rows, and on the row that it deletes.
//! PostgreSQL waits for a row that another transaction is writing and then re-evaluates only the second
//! condition on the new version. Without it, a client that has just been used would be deleted.
//!
//! On SQLite all writers wait while a statement looks for its rows. So none walks a table that grows with use:
//! what belongs to a grant is found through the index of grants by their end, used refresh tokens by their ids,
//! and sessions are looked for before the transaction begins.

use std::time::Duration;

use super::revocation::first_id;
use super::{Storage, StorageError, Transaction, Use, moment, replay_guard};
use crate::clock::Timestamp;

/// How long expired rows stay: 24 hours.
const AFTER: Duration = Duration::from_hours(24);
/// How long a login stays after its end: 1 hour. A late callback fails with or without the row.
const LOGINS: Duration = Duration::from_hours(1);
/// Upper limit for the difference between the clocks of replicas: 5 minutes.
const CLOCKS: Duration = Duration::from_mins(5);
/// Refresh tokens that each grant keeps even in a full database: 1000, a week of a busy client.
const USED_TOKENS: i64 = 1_000;
/// Clients removed at a time when a full registry needs space for new ones: 100.
const ROOM: i64 = 100;

/// How long to keep data that has no expiry time of its own.
#[derive(Clone, Copy, Debug)]
pub struct Retention {
    /// A client that was never used.
    pub unused_client: Duration,
    /// A client without a live grant, since its last use.
    pub idle_client: Duration,
    /// A line of the audit trail.
    pub audit: Duration,
    /// What the identity provider sent about a person refused by the rules.
    pub refused_person: Duration,
    /// Idle lifetime of refresh tokens. Where it was changed: a used token that was issued under a shorter one
    /// stays for as long as this one, and one that was issued under a longer one is looked at by each clean-up
    /// until it expires.
    pub refresh_idle: Duration,
    /// Most rows of a table removed in one transaction, so that callers do not wait long for the writer.
    pub rows: u32,
}

const EXPIRED_LOGINS: &str = "DELETE FROM logins WHERE expires_at < $1 AND id IN
     (SELECT id FROM logins WHERE expires_at < $1 LIMIT $2)";
const EXPIRED_SIGN_OUTS: &str = "DELETE FROM upstream_sign_outs WHERE expires_at < $1 AND id IN
     (SELECT id FROM upstream_sign_outs WHERE expires_at < $1 LIMIT $2)";

const OLD_REFUSALS: &str =
    "DELETE FROM refused_people WHERE refused_at < $1 AND (subject, resource) IN
     (SELECT subject, resource FROM refused_people WHERE refused_at < $1 LIMIT $2)";

/// How long messages to administrators stay that nobody delivered, because their target is not configured any
/// more: 48 hours.
const NOTIFICATIONS: Duration = Duration::from_hours(48);
const OLD_NOTIFICATIONS: &str = "DELETE FROM notifications WHERE created_at < $1 AND id IN
     (SELECT id FROM notifications WHERE created_at < $1 LIMIT $2)";

/// How long a connection stays that its service has refused, so that the person sees why: 90 days.
const BROKEN: Duration = Duration::from_hours(90 * 24);
const BROKEN_CONNECTIONS: &str =
    "DELETE FROM connections WHERE state = 'broken' AND state_at < $1 AND id IN
     (SELECT id FROM connections WHERE state = 'broken' AND state_at < $1 LIMIT $2)";
const EXPIRED_ATTEMPTS: &str = "DELETE FROM connection_attempts WHERE expires_at < $1 AND id IN
     (SELECT id FROM connection_attempts WHERE expires_at < $1 LIMIT $2)";
/// Tokens that no server revoked, because their service is not configured any more: after 48 hours.
const OLD_REVOCATIONS: &str =
    "DELETE FROM token_revocations WHERE created_at < $1 AND tokens <> '' AND id IN
     (SELECT id FROM token_revocations WHERE created_at < $1 AND tokens <> '' LIMIT $2)";

/// Statements that remove rows which ended before `$1`, at most `$2` each. Rows that others refer to come
/// after those.
const ENDED: &[&str] = &[
    "DELETE FROM web_sessions WHERE expires_at < $1 AND id IN
         (SELECT id FROM web_sessions WHERE expires_at < $1 LIMIT $2)",
    "DELETE FROM remembered_consents WHERE expires_at < $1 AND id IN
         (SELECT id FROM remembered_consents WHERE expires_at < $1 LIMIT $2)",
    "DELETE FROM logins_awaiting_approval WHERE expires_at < $1 AND id IN
         (SELECT id FROM logins_awaiting_approval WHERE expires_at < $1 LIMIT $2)",
    "DELETE FROM mcp_tasks WHERE expires_at < $1 AND task_hash IN
         (SELECT task_hash FROM mcp_tasks WHERE expires_at < $1 LIMIT $2)",
    "DELETE FROM authorization_codes WHERE grant_id IS NULL AND expires_at < $1 AND id IN
         (SELECT id FROM authorization_codes WHERE grant_id IS NULL AND expires_at < $1 LIMIT $2)",
    // On SQLite, CROSS JOIN means this order: first the grants that have ended, then what belongs to them.
    "DELETE FROM authorization_codes WHERE expires_at < $1 AND id IN
         (SELECT c.id FROM grants g CROSS JOIN authorization_codes c
          WHERE COALESCE(g.revoked_at, g.expires_at) < $1 AND c.session_id = g.session_id
            AND c.grant_id = g.id AND c.expires_at < $1 LIMIT $2)",
    "DELETE FROM refresh_tokens WHERE id IN
         (SELECT r.id FROM grants g CROSS JOIN refresh_tokens r
          WHERE COALESCE(g.revoked_at, g.expires_at) < $1 AND r.grant_id = g.id LIMIT $2)",
    "DELETE FROM grants WHERE COALESCE(revoked_at, expires_at) < $1 AND id IN
         (SELECT g.id FROM grants g WHERE COALESCE(g.revoked_at, g.expires_at) < $1
            AND NOT EXISTS (SELECT 1 FROM refresh_tokens r WHERE r.grant_id = g.id)
            AND NOT EXISTS (SELECT 1 FROM authorization_codes c
                            WHERE c.session_id = g.session_id AND c.grant_id = g.id)
          LIMIT $2)",
];

/// Removes at most `$2` used refresh tokens that expired before `$1`. They stay until they would have expired
/// anyway, because their reuse must still be detected. Ids begin with the time of issue: tokens from `$3` on are
/// too new to have expired.
const USED_REFRESH_TOKENS: &str =
    "DELETE FROM refresh_tokens WHERE used_at IS NOT NULL AND expires_at < $1 AND id IN
         (SELECT id FROM refresh_tokens WHERE id < $3 AND used_at IS NOT NULL AND expires_at < $1
          LIMIT $2)";

/// A kind of single-use ids. Its watermark makes every id that expired before it count as used.
struct SingleUse {
    /// Removes at most `$2` rows that expired before `$1`, and returns when each expired.
    statement: &'static str,
    watermark: &'static str,
    /// How long a row stays after it expired.
    kept: Duration,
}

const SINGLE_USE: &[SingleUse] = &[
    // Soon after they expire, because anybody can deny any number of pages.
    SingleUse {
        statement: "DELETE FROM consents WHERE expires_at < $1 AND decision = 'denied' AND id IN
             (SELECT id FROM consents WHERE expires_at < $1 AND decision = 'denied' LIMIT $2)
         RETURNING expires_at",
        watermark: replay_guard::CONSENTS,
        kept: CLOCKS,
    },
    SingleUse {
        statement: "DELETE FROM consents WHERE expires_at < $1 AND id IN
             (SELECT id FROM consents WHERE expires_at < $1 LIMIT $2) RETURNING expires_at",
        watermark: replay_guard::CONSENTS,
        kept: AFTER,
    },
    SingleUse {
        statement: "DELETE FROM replay_guard WHERE purpose = 'logout_token' AND expires_at < $1 AND id IN
             (SELECT id FROM replay_guard WHERE purpose = 'logout_token' AND expires_at < $1
              LIMIT $2)
         RETURNING expires_at",
        watermark: replay_guard::LOGOUT_TOKENS,
        kept: AFTER,
    },
    SingleUse {
        statement: "DELETE FROM replay_guard WHERE purpose = 'sign_in' AND expires_at < $1 AND id IN
             (SELECT id FROM replay_guard WHERE purpose = 'sign_in' AND expires_at < $1
              LIMIT $2)
         RETURNING expires_at",
        watermark: replay_guard::SIGN_INS,
        kept: CLOCKS,
    },
    // Soon after they expire, because anybody who registers a key can make any number of them.
    SingleUse {
        statement: "DELETE FROM replay_guard WHERE purpose = 'client_assertion' AND expires_at < $1 AND id IN
             (SELECT id FROM replay_guard WHERE purpose = 'client_assertion' AND expires_at < $1
              LIMIT $2)
         RETURNING expires_at",
        watermark: replay_guard::ASSERTIONS,
        kept: CLOCKS,
    },
];

impl Storage {
    /// Removes expired rows and returns how many. Call it again while it returns more than zero.
    pub async fn sweep(&self, now: Timestamp, keep: Retention) -> Result<u64, StorageError> {
        let rows = i64::from(keep.rows);
        // Kept for less than a day, because anybody can begin any number of logins.
        let mut removed = self.remove(EXPIRED_LOGINS, now.minus(LOGINS), rows).await?;
        for &statement in ENDED {
            removed += self.remove(statement, now.minus(AFTER), rows).await?;
        }
        removed += self.remove_used_refresh_tokens(now.minus(AFTER), keep).await?;
        removed += self.remove(EXPIRED_ATTEMPTS, now.minus(LOGINS), rows).await?;
        removed += self.remove(BROKEN_CONNECTIONS, now.minus(BROKEN), rows).await?;
        removed += self.remove(OLD_REVOCATIONS, now.minus(NOTIFICATIONS), rows).await?;
        removed += self.remove(EXPIRED_SIGN_OUTS, now.minus(CLOCKS), rows).await?;
        removed += self.remove(OLD_REFUSALS, now.minus(keep.refused_person), rows).await?;
        removed += self.remove(OLD_NOTIFICATIONS, now.minus(NOTIFICATIONS), rows).await?;
        removed += self.thin_out_refresh_tokens(rows).await?;
        removed += self.sweep_clients(now, keep).await?;
        removed += self.sweep_kept_clients(now, keep).await?;
        for ids in SINGLE_USE {
            removed += self.forget(ids, now, rows).await?;
        }
        removed += self.sweep_audit(now, keep.audit).await?;
        // Last, once: what used them has to go first.
        if removed == 0 {
            removed += self.remove_sessions(now.minus(AFTER), rows, now).await?;
        }
        Ok(removed)
    }

    /// Removes at most `rows` rows that ended before `before`, in a transaction of its own.
    async fn remove(
        &self,
        statement: &'static str,
        before: Timestamp,
        rows: i64,
    ) -> Result<u64, StorageError> {
        let mut step = self.begin_cleanup().await?;
        let removed = sqlx::query(statement).bind(before.unix()).bind(rows);
        let removed = removed.execute(&mut *step).await?.rows_affected();
        step.commit().await?;
        Ok(removed)
    }

    async fn remove_used_refresh_tokens(
        &self,
        before: Timestamp,
        keep: Retention,
    ) -> Result<u64, StorageError> {
        let mut step = self.begin_cleanup().await?;
        let removed = sqlx::query(USED_REFRESH_TOKENS)
            .bind(before.unix())
            .bind(i64::from(keep.rows))
            .bind(first_id(before.minus(keep.refresh_idle)));
        let removed = removed.execute(&mut *step).await?.rows_affected();
        step.commit().await?;
        Ok(removed)
    }

    /// If the database has no space for logins, removes the oldest used refresh tokens of the grant that
    /// has the most. Otherwise one client that refreshes without a pause would keep everybody else out. A
    /// removed token is still refused, but its reuse no longer ends the grant.
    async fn thin_out_refresh_tokens(&self, rows: i64) -> Result<u64, StorageError> {
        let mut step = self.begin_cleanup().await?;
        if step.has_room(Use::SignIns).await? {
            return Ok(0);
        }
        drop(step);
        let most: Option<String> = sqlx::query_scalar(
            "SELECT grant_id FROM refresh_tokens GROUP BY grant_id HAVING COUNT(*) > $1
             ORDER BY COUNT(*) DESC LIMIT 1",
        )
        .bind(USED_TOKENS)
        .fetch_optional(self.pool())
        .await?;
        let Some(grant_id) = most else { return Ok(0) };
        let mut step = self.begin_cleanup().await?;
        let removed = sqlx::query(
            "DELETE FROM refresh_tokens WHERE used_at IS NOT NULL AND id IN
                 (SELECT id FROM refresh_tokens WHERE grant_id = $1 AND used_at IS NOT NULL
                    AND id NOT IN (SELECT id FROM refresh_tokens WHERE grant_id = $1
                                   ORDER BY id DESC LIMIT $2)
                  ORDER BY id LIMIT $3)",
        )
        .bind(grant_id)
        .bind(USED_TOKENS)
        .bind(rows)
        .execute(&mut *step)
        .await?
        .rows_affected();
        step.commit().await?;
        Ok(removed)
    }

    /// Removes rows that prevent replays, and raises the watermark below which everything counts as used.
    async fn forget(
        &self,
        ids: &SingleUse,
        now: Timestamp,
        rows: i64,
    ) -> Result<u64, StorageError> {
        let gone = now.minus(ids.kept);
        let mut step = self.begin_cleanup().await?;
        let forgotten =
            sqlx::query(ids.statement).bind(gone.unix()).bind(rows).fetch_all(&mut *step).await?;
        let mut last = None;
        for row in &forgotten {
            last = last.max(Some(moment(row, "expires_at")?));
        }
        if let Some(last) = last {
            replay_guard::mark(&mut step, ids.watermark, last).await?;
        }
        step.commit().await?;
        Ok(forgotten.len() as u64)
    }

    /// Removes configured and published clients that nobody has logged in for within the idle time.
    /// Clients with a live grant, and those that administrators decided about, stay.
    async fn sweep_kept_clients(
        &self,
        now: Timestamp,
        keep: Retention,
    ) -> Result<u64, StorageError> {
        let mut step = self.begin_cleanup().await?;
        let removed = sqlx::query(
            "DELETE FROM clients WHERE kind IN ('configured', 'document') AND last_used_at <= $1 AND id IN
                 (SELECT c.id FROM clients c
                  WHERE c.kind IN ('configured', 'document') AND c.last_used_at <= $1
                    AND NOT EXISTS (SELECT 1 FROM client_reviews s WHERE s.client_id = c.id)
                    AND NOT EXISTS (SELECT 1 FROM grants g WHERE g.client_id = c.id
                                    AND g.revoked_at IS NULL AND g.expires_at > $2)
                  LIMIT $3)",
        )
        .bind(now.minus(keep.idle_client).unix())
        .bind(now.unix())
        .bind(i64::from(keep.rows))
        .execute(&mut *step)
        .await?
        .rows_affected();
        step.commit().await?;
        Ok(removed)
    }

    /// Removes the oldest unused clients that registered before `before`, so that a full registry accepts
    /// new clients before the retention of unused ones ends. A client that a person waits for, or that an
    /// administrator has approved, is not part of a flood and stays.
    pub async fn make_room_for_clients(&self, before: Timestamp) -> Result<u64, StorageError> {
        let mut step = self.begin_cleanup().await?;
        let removed = sqlx::query(
            // `+` stops SQLite from using the index of unused clients: the row is found by its id.
            "DELETE FROM clients
             WHERE kind = 'registered' AND +last_used_at IS NULL AND +last_registered_at <= $1 AND id IN
                 (SELECT id FROM clients WHERE kind = 'registered' AND last_used_at IS NULL AND last_registered_at <= $1
                    AND NOT EXISTS (SELECT 1 FROM client_reviews s WHERE s.client_id = clients.id
                                    AND s.state IN ('waiting', 'approved'))
                  ORDER BY last_registered_at LIMIT $2)",
        )
        .bind(before.unix())
        .bind(ROOM)
        .execute(&mut *step)
        .await?
        .rows_affected();
        count_clients(&mut step).await?;
        step.commit().await?;
        Ok(removed)
    }

    /// Removes clients that were never used, or have been idle, for too long. Clients with a live grant
    /// stay.
    pub async fn sweep_clients(
        &self,
        now: Timestamp,
        keep: Retention,
    ) -> Result<u64, StorageError> {
        let mut step = self.begin_cleanup().await?;
        let removed = sqlx::query(
            "DELETE FROM clients
             WHERE kind = 'registered' AND ((last_used_at IS NULL AND last_registered_at <= $1)
                      OR (last_used_at <= $2 AND last_registered_at <= $2)) AND id IN
                 (SELECT c.id FROM clients c
                  WHERE c.kind = 'registered' AND ((c.last_used_at IS NULL AND c.last_registered_at <= $1)
                      OR (c.last_used_at <= $2 AND c.last_registered_at <= $2))
                    AND NOT EXISTS (SELECT 1 FROM grants g WHERE g.client_id = c.id
                                    AND g.revoked_at IS NULL AND g.expires_at > $3)
                  LIMIT $4)",
        )
        .bind(now.minus(keep.unused_client).unix())
        .bind(now.minus(keep.idle_client).unix())
        .bind(now.unix())
        .bind(i64::from(keep.rows))
        .execute(&mut *step)
        .await?
        .rows_affected();
        count_clients(&mut step).await?;
        step.commit().await?;
        Ok(removed)
    }
}

/// Corrects the number of clients. Only the difference is written, and only to one of the counters of which it is
/// the sum, so that it does not matter what is registered meanwhile.
pub(super) async fn count_clients(step: &mut Transaction) -> Result<(), StorageError> {
    sqlx::query(
        "UPDATE counters SET value = value
             + (SELECT COUNT(*) FROM clients WHERE kind = 'registered')
             - (SELECT SUM(value) FROM counters WHERE name = 'clients' OR name LIKE 'clients/%')
         WHERE name = 'clients'",
    )
    .execute(&mut **step)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sqlx::{AnyConnection, AssertSqlSafe, Connection, Row};

    use super::*;
    use crate::storage::connections::{REMOVE_SESSION, SESSIONS_TO_REMOVE};

    async fn texts(connection: &mut AnyConnection, sql: String, column: &str) -> Vec<String> {
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(connection).await.unwrap();
        rows.iter().map(|row| row.get(column)).collect()
    }

    async fn database(name: &str) -> (Storage, AnyConnection) {
        let folder = std::env::temp_dir().join(format!("portcullis_{name}_{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let url = format!("sqlite://{}", folder.join("portcullis.db").display());
        let storage = Storage::open(&url, Some(&[7; 32])).await.unwrap();
        (storage, AnyConnection::connect(&url).await.unwrap())
    }

    #[tokio::test]
    async fn no_statement_of_clean_up_walks_a_table_that_grows_with_use() {
        let (_storage, mut connection) = database("clean_up_plans").await;
        let ended = ENDED.iter().copied();
        let others = [EXPIRED_LOGINS, USED_REFRESH_TOKENS, REMOVE_SESSION];
        for statement in ended.chain(others) {
            let sql = format!("EXPLAIN QUERY PLAN {statement}");
            let plan = texts(&mut connection, sql, "detail").await;
            assert!(!plan.is_empty(), "{statement}");
            let walks = plan.iter().any(|step| step.starts_with("SCAN"));
            assert!(!walks, "{statement}\n{plan:#?}");
        }
        // This one is read outside a transaction. It walks the sessions, and nothing for each of them.
        let sql = format!("EXPLAIN QUERY PLAN {SESSIONS_TO_REMOVE}");
        let plan = texts(&mut connection, sql, "detail").await;
        assert_eq!(plan.iter().filter(|step| step.starts_with("SCAN")).count(), 1, "{plan:#?}");
    }

    /// The engine looks for rows that refer to a deleted row.
    #[tokio::test]
    async fn each_reference_to_another_table_has_an_index() {
        let (_storage, mut connection) = database("references").await;
        let sql = "SELECT m.name || '.' || f.\"from\" AS reference FROM sqlite_master m
                   JOIN pragma_foreign_key_list(m.name) f WHERE m.type = 'table'";
        let references = texts(&mut connection, sql.to_owned(), "reference").await;
        assert!(references.contains(&"grants.session_id".to_owned()), "{references:?}");
        for reference in references {
            let (table, referring) = reference.split_once('.').unwrap();
            let sql = format!(
                "SELECT COALESCE(c.name, '') AS first FROM pragma_index_list('{table}') i
                 JOIN pragma_index_info(i.name) c WHERE c.seqno = 0 AND i.partial = 0"
            );
            let firsts = texts(&mut connection, sql, "first").await;
            assert!(firsts.iter().any(|first| first == referring), "{reference} has none");
        }
    }
}
