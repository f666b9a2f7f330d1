//! Tasks of MCP servers, and the person and client that created each: MCP requires that every request
//! about a task is authorized (SEP-2663, security considerations).

use std::time::Duration;

use super::{Storage, StorageError, column, scopes};
use crate::clock::Timestamp;
use crate::oauth::scope::ScopeSet;

/// Shortest time for which a task is remembered: 1 hour. A server may keep a task a little longer than it
/// said.
const SHORTEST: Duration = Duration::from_hours(1);
/// Time for which a task without an end is remembered, and the longest for any: 30 days.
const LONGEST: Duration = Duration::from_hours(30 * 24);
/// Most tasks remembered for a person: 1000. The oldest are forgotten; then only the MCP server authorizes
/// requests.
const MOST: i64 = 1000;

/// The creator of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskMaker {
    pub subject: String,
    pub client_id: String,
    /// The scopes that the creating call needed.
    pub scopes: ScopeSet,
}

impl Storage {
    /// Remembers the creator of a task for the task's lifetime; `None` means that it has no end. While an
    /// earlier creator is remembered, it stays.
    pub async fn remember_task(
        &self,
        task_hash: &str,
        maker: &TaskMaker,
        lives: Option<Duration>,
        now: Timestamp,
    ) -> Result<(), StorageError> {
        let expires_at = now.plus(lives.unwrap_or(LONGEST).clamp(SHORTEST, LONGEST));
        let mut step = self.begin().await?;
        let remembered = sqlx::query(
            "INSERT INTO mcp_tasks (task_hash, subject, client_id, scopes, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (task_hash) DO UPDATE SET subject = $2, client_id = $3, scopes = $4,
                 created_at = $5, expires_at = $6
             WHERE mcp_tasks.expires_at <= $5
                OR (mcp_tasks.subject = $2 AND mcp_tasks.client_id = $3 AND mcp_tasks.expires_at < $6)",
        )
        .bind(task_hash)
        .bind(&maker.subject)
        .bind(&maker.client_id)
        .bind(maker.scopes.to_string())
        .bind(now.unix())
        .bind(expires_at.unix())
        .execute(&mut *step)
        .await?
        .rows_affected();
        if remembered > 0 {
            sqlx::query(
                "DELETE FROM mcp_tasks WHERE task_hash IN
                     (SELECT task_hash FROM mcp_tasks WHERE subject = $1
                      ORDER BY created_at DESC, task_hash LIMIT $3 OFFSET $2)",
            )
            .bind(&maker.subject)
            .bind(MOST)
            .bind(MOST)
            .execute(&mut *step)
            .await?;
        }
        step.commit().await
    }

    /// Loads the creator of a task, if it is remembered.
    pub async fn task_maker(
        &self,
        task_hash: &str,
        now: Timestamp,
    ) -> Result<Option<TaskMaker>, StorageError> {
        let found = sqlx::query(
            "SELECT subject, client_id, scopes FROM mcp_tasks
             WHERE task_hash = $1 AND expires_at > $2",
        )
        .bind(task_hash)
        .bind(now.unix());
        let Some(row) = self.read_one(found).await? else { return Ok(None) };
        Ok(Some(TaskMaker {
            subject: column(&row, "subject")?,
            client_id: column(&row, "client_id")?,
            scopes: scopes(&row, "scopes")?,
        }))
    }
}
