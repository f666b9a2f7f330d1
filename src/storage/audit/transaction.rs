//! A transaction of the protocol: one of the database, with the audit events that belong to it.

use std::sync::Arc;

use sqlx::AnyConnection;
use tokio::sync::Notify;

use super::budget::LineBudget;
use crate::config::NotifyEvent;
use crate::oauth::sealed::Sealer;
use crate::storage::database::{
    Notifications, SqlTransaction, StorageError, Use, notify, notify_of_connections,
};
use crate::storage::notifications::{self, Occurrence, Subscribers};
use crate::telemetry::audit::AuditEvent;
use crate::telemetry::metrics::{Metrics, NotifyOutcome};
use crate::telemetry::trace::OpenSpan;

/// Remembers which lines of the audit trail were committed.
pub(crate) trait SeenLines: Send + Sync {
    /// Remembers a committed line. Ignores it if the database was checked again since `generation`.
    fn committed(&self, generation: u64, id: String);
}

/// An atomic transaction. Dropped without [`Self::commit`], it changes nothing.
pub(crate) struct Transaction {
    sql: SqlTransaction,
    /// Events that are logged and counted once the transaction is durable.
    pub(super) events: Vec<AuditEvent>,
    metrics: Metrics,
    /// Makes the MAC of each audit line.
    pub(super) sealer: Sealer,
    pub(super) lines: Arc<LineBudget>,
    /// Receives the id of the last audit line after the commit. The number is the generation in which the
    /// transaction began: a line from before the database was checked is ignored.
    seen: Option<(Arc<dyn SeenLines>, u64)>,
    /// The id of the last audit line stored here, of those that stay until the oldest lines are trimmed.
    pub(super) last_line: Option<String>,
    /// The targets of notifications, and the signal that something was queued for them; `None`: nobody is
    /// notified.
    subscribers: Option<(Arc<Subscribers>, Arc<Notify>)>,
    /// What they are notified of, queued by the commit.
    notices: Vec<(NotifyEvent, Occurrence)>,
    /// It ends with the transaction.
    span: Option<OpenSpan>,
}

impl Transaction {
    pub(crate) fn new(
        sql: SqlTransaction,
        metrics: Metrics,
        sealer: Sealer,
        lines: Arc<LineBudget>,
        seen: Option<(Arc<dyn SeenLines>, u64)>,
    ) -> Self {
        let (events, notices, last_line, subscribers) = (Vec::new(), Vec::new(), None, None);
        let span = None;
        Self { sql, events, metrics, sealer, lines, seen, last_line, subscribers, notices, span }
    }

    /// Shows the transaction in the trace of the request.
    pub(crate) fn show_in(&mut self, span: Option<OpenSpan>) {
        self.span = span;
    }

    /// Queues notifications for these targets.
    pub(crate) fn notify_with(&mut self, subscribers: Option<(Arc<Subscribers>, Arc<Notify>)>) {
        self.subscribers = subscribers;
    }

    /// Remembers what the event tells, if somebody is notified of it.
    pub(super) fn note_notice(&mut self, event: &AuditEvent) {
        if let Some((subscribers, _)) = &self.subscribers {
            self.notices.extend(subscribers.notice(event));
        }
    }

    /// Does not remember the lines of this transaction: it ends everything in a database that was rolled
    /// back, and what was seen before counts no more.
    pub(crate) fn forget_lines(&mut self) {
        self.seen = None;
    }

    /// Returns the sealer under the secret key.
    pub(crate) fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Lets the transaction write beyond `limits.database_size`, because it turned out to end grants.
    pub(crate) async fn use_reserve(&mut self) -> Result<(), StorageError> {
        self.sql.use_reserve().await
    }

    /// Fails if the remaining space is reserved for other uses.
    pub(crate) async fn refuse_without_room(&mut self, what: Use) -> Result<(), StorageError> {
        self.sql.refuse_without_room(what).await
    }

    /// Returns whether there is space for this use.
    pub(crate) async fn has_room(&mut self, what: Use) -> Result<bool, StorageError> {
        self.sql.has_room(what).await
    }

    /// Switches off PostgreSQL's statement timeout, because this transaction goes through whole tables.
    pub(crate) async fn disable_statement_timeout(&mut self) -> Result<(), StorageError> {
        self.sql.disable_statement_timeout().await
    }

    /// Notifies the other replicas with the commit of this transaction. A command that is attached to a
    /// server's database has no `ours`. PostgreSQL only.
    pub(crate) async fn notify_replicas(
        &mut self,
        ours: Option<&Notifications>,
    ) -> Result<(), StorageError> {
        notify(&mut self.sql, ours, self.last_line.as_deref().unwrap_or_default()).await
    }

    /// The same about a change of connections.
    pub(crate) async fn notify_of_connections(
        &mut self,
        ours: Option<&Notifications>,
    ) -> Result<(), StorageError> {
        notify_of_connections(&mut self.sql, ours).await
    }

    /// Commits. Only after it returns may anybody learn of the outcome.
    pub(crate) async fn commit(mut self) -> Result<(), StorageError> {
        let queued = self.queue_notices().await?;
        self.sql.commit(&self.metrics).await?;
        if let Some(queued) = queued {
            queued.notify_one();
        }
        if let (Some((seen, generation)), Some(id)) = (self.seen, self.last_line) {
            seen.committed(generation, id);
        }
        if let Some(span) = &mut self.span
            && !self.events.is_empty()
        {
            let names: Vec<&str> = self.events.iter().map(|event| event.event).collect();
            span.set("portcullis.events", names.join(" "));
        }
        for event in &self.events {
            self.metrics.event(event.event);
            event.log();
        }
        Ok(())
    }
}

impl Transaction {
    /// Queues the notifications. Returns the signal for the task that delivers it.
    async fn queue_notices(&mut self) -> Result<Option<Arc<Notify>>, StorageError> {
        let notices = std::mem::take(&mut self.notices);
        let Some((subscribers, queued)) = self.subscribers.take().filter(|_| !notices.is_empty())
        else {
            return Ok(None);
        };
        let (sql, sealer) = (&mut *self.sql, &self.sealer);
        let dropped = notifications::enqueue(sql, sealer, &subscribers, &notices).await?;
        self.metrics.notified(NotifyOutcome::Dropped, dropped);
        Ok(Some(queued))
    }
}

impl std::ops::Deref for Transaction {
    type Target = AnyConnection;
    fn deref(&self) -> &AnyConnection {
        &self.sql
    }
}

impl std::ops::DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.sql
    }
}
