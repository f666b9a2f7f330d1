//! Queues messages in a transaction.

use sqlx::AnyConnection;

use super::{Occurrence, Subscriber, Subscribers};
use crate::clock::Timestamp;
use crate::config::NotifyEvent;
use crate::oauth::sealed::{Purpose, Sealer};
use crate::oauth::secret::random_bytes;
use crate::storage::database::{StorageError, column};

/// The column of sealed occurrences, as context of the sealing.
pub(super) const CONTENT: &str = "notifications.content";
/// Occurrences of which a message says more than their number: 5.
const LISTED: i64 = 5;
/// Most messages of one target that wait: 200. Beyond it, the oldest is dropped.
const WAITING: i64 = 200;
/// The messages that were open may have been taken for delivery meanwhile; so often it is tried again.
const ATTEMPTS: usize = 3;

/// Queues a message for each target that receives its kind, or adds to the open one. Returns how many messages
/// were dropped for it.
///
/// This comes last in its transaction: another one that adds to the same message waits for the commit.
pub(in crate::storage) async fn enqueue(
    sql: &mut AnyConnection,
    sealer: &Sealer,
    subscribers: &Subscribers,
    notices: &[(NotifyEvent, Occurrence)],
) -> Result<u64, StorageError> {
    let mut dropped = 0;
    for subscriber in &subscribers.list {
        for (kind, occurrence) in
            notices.iter().filter(|(kind, _)| subscriber.events.contains(*kind))
        {
            let mut queue = KindQueue { sql: &mut *sql, sealer, subscriber, kind: *kind };
            dropped += queue.add(occurrence).await?;
        }
    }
    Ok(dropped)
}

/// The messages of one kind to one target.
struct KindQueue<'a> {
    sql: &'a mut AnyConnection,
    sealer: &'a Sealer,
    subscriber: &'a Subscriber,
    kind: NotifyEvent,
}

impl KindQueue<'_> {
    async fn add(&mut self, occurrence: &Occurrence) -> Result<u64, StorageError> {
        for _ in 0..ATTEMPTS {
            if self.join(occurrence).await? {
                return Ok(0);
            }
            if self.insert(occurrence).await? {
                return self.drop_oldest(occurrence.at).await;
            }
        }
        Ok(0)
    }

    fn slot(&self) -> String {
        format!("{}/{}", self.subscriber.target, self.kind.as_str())
    }

    fn seal(&self, id: &str, content: &[Occurrence]) -> Result<String, StorageError> {
        let json = zeroize::Zeroizing::new(serde_json::to_vec(content)?);
        Ok(self.sealer.seal(Purpose::Storage, &format!("{CONTENT}/{id}"), &json))
    }

    /// Adds to the open message. Returns `false` if there is none.
    async fn join(&mut self, occurrence: &Occurrence) -> Result<bool, StorageError> {
        let joined = sqlx::query(
            "UPDATE notifications SET occurrences = occurrences + 1 WHERE open_slot = $1
             RETURNING id, content, occurrences",
        )
        .bind(self.slot())
        .fetch_optional(&mut *self.sql)
        .await?;
        let Some(row) = joined else { return Ok(false) };
        if column::<i64>(&row, "occurrences")? > LISTED {
            return Ok(true);
        }
        let (id, sealed): (String, String) = (column(&row, "id")?, column(&row, "content")?);
        let opened = self.sealer.open(Purpose::Storage, &format!("{CONTENT}/{id}"), &sealed)?;
        let mut content: Vec<Occurrence> = serde_json::from_slice(&opened)?;
        content.push(occurrence.clone());
        let sealed = self.seal(&id, &content)?;
        sqlx::query("UPDATE notifications SET content = $2 WHERE id = $1")
            .bind(id)
            .bind(sealed)
            .execute(&mut *self.sql)
            .await?;
        Ok(true)
    }

    /// Inserts an open message, due when the interval since the last one has passed. Returns `false` if
    /// another transaction inserted one meanwhile.
    async fn insert(&mut self, occurrence: &Occurrence) -> Result<bool, StorageError> {
        let now = Timestamp::from_unix(occurrence.at);
        let next_at: Option<i64> = sqlx::query_scalar(
            "SELECT next_at FROM notification_targets WHERE target = $1 AND event = $2",
        )
        .bind(&self.subscriber.target)
        .bind(self.kind.as_str())
        .fetch_optional(&mut *self.sql)
        .await?;
        // Never later than one interval: the last message may have been sent with a wrong clock.
        let latest = now.plus(self.subscriber.interval).unix();
        let due_at = next_at.map_or(now.unix(), |next| next.clamp(now.unix(), latest));
        let id = new_message_id(now);
        let sealed = self.seal(&id, std::slice::from_ref(occurrence))?;
        let inserted = sqlx::query(
            "INSERT INTO notifications
                 (id, target, event, open_slot, content, occurrences, created_at, due_at, attempts,
                  leased_until)
             VALUES ($1, $2, $3, $4, $5, 1, $6, $7, 0, 0)
             ON CONFLICT (open_slot) DO NOTHING",
        )
        .bind(id)
        .bind(&self.subscriber.target)
        .bind(self.kind.as_str())
        .bind(self.slot())
        .bind(sealed)
        .bind(now.unix())
        .bind(due_at)
        .execute(&mut *self.sql)
        .await?;
        Ok(inserted.rows_affected() == 1)
    }

    /// Drops the oldest messages of the target beyond [`WAITING`], and counts them for its next message.
    async fn drop_oldest(&mut self, at: i64) -> Result<u64, StorageError> {
        let target = &self.subscriber.target;
        let waiting: i64 =
            sqlx::query_scalar("SELECT COUNT(*) FROM notifications WHERE target = $1")
                .bind(target)
                .fetch_one(&mut *self.sql)
                .await?;
        if waiting <= WAITING {
            return Ok(0);
        }
        let dropped = sqlx::query(
            "DELETE FROM notifications WHERE id IN
                 (SELECT id FROM notifications WHERE target = $1 ORDER BY id LIMIT $2)",
        )
        .bind(target)
        .bind(waiting - WAITING)
        .execute(&mut *self.sql)
        .await?
        .rows_affected();
        sqlx::query(
            "INSERT INTO notification_targets (target, event, next_at, dropped)
             VALUES ($1, '', $2, $3)
             ON CONFLICT (target, event)
             DO UPDATE SET dropped = notification_targets.dropped + $3",
        )
        .bind(target)
        .bind(at)
        .bind(i64::try_from(dropped).unwrap_or(i64::MAX))
        .execute(&mut *self.sql)
        .await?;
        Ok(dropped)
    }
}

/// Returns an id that sorts by time.
pub(super) fn new_message_id(now: Timestamp) -> String {
    let random = u128::from_be_bytes(random_bytes::<16>()) >> 48;
    format!("{:012x}{random:020x}", now.unix().saturating_mul(1000))
}
