//! The recent refusals at each MCP server, by name.

use std::collections::HashMap;

use super::words::ServerWords;
use crate::admin::client_label::{ClientLabel, label_of};
use crate::admin::links::{person_path, query, why_path};
use crate::admin::refused::shown_name;
use crate::app::App;
use crate::clock::Timestamp;
use crate::storage::{AuditFilter, AuditLine, RefusedFilter, StorageError};

/// RecentRefusals shown for a server: 10.
const SHOWN: usize = 10;
/// Audit lines of each kind that are searched for these refusals: 200. With too few, the refusals of one server
/// can hide those of another.
const LOOKED_AT: i64 = 200;
/// Audit events that record a refusal at a server.
const REFUSALS: [&str; 4] = ["access_denied", "access_lost", "step_up_refused", "tool_refused"];

pub(super) struct RecentRefusal {
    pub(super) moment: Timestamp,
    pub(super) what: &'static str,
    pub(super) person: Option<(String, String)>,
    pub(super) client: Option<ClientLabel>,
    pub(super) scopes: String,
    /// The page that says why.
    pub(super) why_path: Option<String>,
}

/// The latest refusals of all servers, newest first, with the names that occur in them.
pub(super) struct RecentRefusals<'a> {
    app: &'a App,
    w: &'static ServerWords,
    lines: Vec<AuditLine>,
    people: HashMap<String, (String, String)>,
    clients: HashMap<String, ClientLabel>,
}

impl<'a> RecentRefusals<'a> {
    pub(super) async fn load(app: &'a App, w: &'static ServerWords) -> Result<Self, StorageError> {
        let mut lines = Vec::new();
        for event in REFUSALS {
            let filter = AuditFilter { event: event.to_owned(), ..AuditFilter::default() };
            lines.extend(app.storage().audit_lines(&filter, LOOKED_AT).await?);
        }
        lines.sort_by(|a, b| b.id.cmp(&a.id));
        Ok(Self { app, w, lines, people: HashMap::new(), clients: HashMap::new() })
    }

    /// Returns the latest refusals at one server.
    pub(super) async fn of(&mut self, server: &str) -> Result<Vec<RecentRefusal>, StorageError> {
        let here = |line: &&AuditLine| line.resource.as_deref() == Some(server);
        let lines: Vec<AuditLine> = self.lines.iter().filter(here).take(SHOWN).cloned().collect();
        let mut refusals = Vec::with_capacity(lines.len());
        for line in lines {
            let person = match line.subject.as_deref() {
                Some(subject) => Some(self.person(subject).await?),
                None => None,
            };
            let client = match line.client_id.as_deref() {
                Some(id) => Some(self.client(id).await?),
                None => None,
            };
            refusals.push(RecentRefusal {
                moment: Timestamp::from_unix(line.at.div_euclid(1000)),
                what: self.what(&line.event),
                person,
                client,
                scopes: scopes_of(&line),
                why_path: why_path(&line),
            });
        }
        Ok(refusals)
    }

    fn what(&self, event: &str) -> &'static str {
        match event {
            "access_lost" => self.w.lost,
            "step_up_refused" => self.w.more_refused,
            "tool_refused" => self.w.tool,
            _ => self.w.denied,
        }
    }

    /// Returns the path and the name of a person. Somebody who never signed in successfully has no page, so the
    /// link searches the audit trail.
    async fn person(&mut self, subject: &str) -> Result<(String, String), StorageError> {
        if let Some(known) = self.people.get(subject) {
            return Ok(known.clone());
        }
        let storage = self.app.storage();
        let stored = storage.person_row(subject).await?;
        let path = match stored {
            Some(_) => person_path(subject),
            None => query("/audit").append_pair("sub", subject).finish(),
        };
        let name = stored.and_then(|row| row.person?.name);
        let name = if let Some(name) = name {
            name
        } else {
            let filter = RefusedFilter { subject: subject.to_owned(), ..Default::default() };
            let refused = storage.refused_people(&filter, 1).await?;
            refused.first().map_or(subject, shown_name).to_owned()
        };
        let known = (path, name);
        self.people.insert(subject.to_owned(), known.clone());
        Ok(known)
    }

    async fn client(&mut self, id: &str) -> Result<ClientLabel, StorageError> {
        if let Some(known) = self.clients.get(id) {
            return Ok(known.clone());
        }
        let label = label_of(self.app, id).await?;
        self.clients.insert(id.to_owned(), label.clone());
        Ok(label)
    }
}

/// Returns the scopes that an audit line is about.
fn scopes_of(line: &AuditLine) -> String {
    let Ok(detail) = serde_json::from_str::<serde_json::Value>(&line.detail) else {
        return String::new();
    };
    let names = ["missing", "needed", "asked"];
    let scopes = names.into_iter().find_map(|name| detail.get(name)?.as_str().map(str::to_owned));
    scopes.unwrap_or_default()
}
