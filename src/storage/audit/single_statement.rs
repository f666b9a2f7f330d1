//! A step of the protocol that is one statement of PostgreSQL, with the audit line that belongs to it. The
//! statements themselves are in [`super::super::single_statements`].

use sqlx::any::AnyRow;

use super::{SeenLines as _, chain};
use crate::stop_points;
use crate::storage::{Engine, SqlQuery, Storage, StorageError};
use crate::telemetry::audit::{AuditEvent, EVENTS};
use crate::telemetry::trace::{self, OpenSpan};

/// A step under way. Dropped without [`Self::done`], its event has not happened.
pub(crate) struct SingleStatement<'a> {
    storage: &'a Storage,
    event: AuditEvent,
    /// Whether the line goes into the trail, and is counted there.
    is_stored: bool,
    is_done: bool,
    generation: u64,
    /// It ends with the step.
    span: Option<OpenSpan>,
}

impl Storage {
    /// Returns whether a step may be one statement: on PostgreSQL, in a server, and unless a test stops between
    /// the statements of a step.
    pub(in crate::storage) fn takes_single_statements(&self) -> bool {
        self.engine() == Engine::Postgres && !self.database.is_attached() && !stop_points::is_set()
    }

    /// Begins a step that is one statement. `None`: it has to be a transaction of several, also because
    /// somebody is notified of the event.
    pub(in crate::storage) fn single_statement(
        &self,
        event: AuditEvent,
    ) -> Option<SingleStatement<'_>> {
        debug_assert!(EVENTS.contains(&event.event), "{} is not in EVENTS", event.event);
        let notifies =
            || self.hub.subscribers().is_some_and(|(who, _)| who.notice(&event).is_some());
        if !self.takes_single_statements() || notifies() {
            return None;
        }
        let is_stored = !event.log_only && self.lines.allows(&event);
        let generation = self.watch.generation();
        let span = trace::child("transaction");
        Some(SingleStatement { storage: self, event, is_stored, is_done: false, generation, span })
    }
}

impl SingleStatement<'_> {
    /// Binds the eleven columns of the audit line, in the order of its INSERT. The id is NULL if the line does
    /// not go into the trail.
    pub(in crate::storage) fn bind_line<'q>(
        &self,
        query: SqlQuery<'q>,
    ) -> Result<SqlQuery<'q>, StorageError> {
        let event = &self.event;
        let detail = serde_json::to_string(&event.detail)?;
        let actor = event.actor.to_string();
        let line = chain::Content {
            id: &event.id,
            at: event.at,
            event: event.event,
            actor: &actor,
            client_id: event.client_id.as_deref(),
            subject: event.subject.as_deref(),
            resource: event.resource.as_deref(),
            grant_id: event.grant_id.as_deref(),
            reference: event.reference.as_deref(),
            detail: &detail,
        };
        let row_mac = self.is_stored.then(|| chain::row_mac(&self.storage.sealer, &line));
        Ok(query
            .bind(self.is_stored.then(|| event.id.clone()))
            .bind(event.at)
            .bind(event.event)
            .bind(actor)
            .bind(event.client_id.clone())
            .bind(event.subject.clone())
            .bind(event.resource.clone())
            .bind(event.grant_id.clone())
            .bind(event.reference.clone())
            .bind(detail)
            .bind(row_mac))
    }

    /// Runs the statement. Returns its first row once what it did is durable; `None` if it did nothing.
    pub(in crate::storage) async fn run(
        &mut self,
        query: SqlQuery<'_>,
    ) -> Result<Option<AnyRow>, StorageError> {
        if let Some(span) = &mut self.span {
            span.set("db.system.name", Engine::Postgres.system());
        }
        self.storage.database.run_single(query).await
    }

    /// Logs and counts the event, after the statement has done it.
    pub(in crate::storage) fn done(mut self) {
        self.is_done = true;
        let (storage, event) = (self.storage, &self.event);
        if self.is_stored && !event.is_anonymous() {
            storage.watch.committed(self.generation, event.id.clone());
        }
        if let Some(span) = &mut self.span {
            span.set("portcullis.events", event.event);
        }
        storage.metrics().event(event.event);
        event.log();
    }
}

impl Drop for SingleStatement<'_> {
    fn drop(&mut self) {
        if self.is_stored && !self.is_done {
            self.storage.lines.give_back(&self.event);
        }
    }
}
