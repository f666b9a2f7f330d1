//! The text of a message: what happened, to which client, person and MCP server, and where to look.

use chrono::DateTime;

use crate::clock::Timestamp;
use crate::config::NotifyEvent;
use crate::oauth::client_name::one_line;

/// Longest name, id or reason in a message, in characters.
const LONGEST: usize = 200;

/// Somebody or something by id, with a name if one is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Its id: a client id, our `sub`, a resource identifier.
    pub id: String,
    pub name: Option<String>,
}

impl Party {
    /// Makes both fit for one line of a message: a client chooses its own name.
    pub fn new(id: &str, name: Option<&str>) -> Self {
        let name = name.map(|name| one_line(name, LONGEST)).filter(|name| !name.is_empty());
        Self { id: one_line(id, LONGEST), name }
    }

    fn shown(&self) -> String {
        match &self.name {
            Some(name) if *name != self.id => format!("{name} ({})", self.id),
            _ => self.id.clone(),
        }
    }
}

/// One occurrence of what a message reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub at: Timestamp,
    pub client: Option<Party>,
    pub person: Option<Party>,
    pub server: Option<Party>,
    /// The reference that the person was shown.
    pub reference: Option<String>,
    pub reason: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// The same for every attempt to deliver it.
    pub id: String,
    pub event: NotifyEvent,
    /// When it was queued.
    pub created_at: Timestamp,
    /// How often it happened since the last message of this kind.
    pub occurrences: u64,
    /// The first of these occurrences.
    pub subjects: Vec<Subject>,
    /// How many messages to this target were dropped since the last one, because the queue was full.
    pub dropped: u64,
    /// The admin page that helps.
    pub link: Option<String>,
    /// Our issuer: which Portcullis this is.
    pub issuer: String,
}

impl Notification {
    /// Returns the title. It contains no names, so that nobody but us writes it.
    pub(super) fn title(&self) -> String {
        let many = self.occurrences;
        match (self.event, many) {
            (NotifyEvent::ClientWaits, 0..=1) => "A client waits for approval".to_owned(),
            (NotifyEvent::ClientWaits, _) => format!("{many} clients wait for approval"),
            (NotifyEvent::PersonRefused, 0..=1) => "A person was refused".to_owned(),
            (NotifyEvent::PersonRefused, _) => format!("People were refused {many} times"),
            (NotifyEvent::ProviderDown, _) => "The identity provider does not answer".to_owned(),
            (NotifyEvent::ProviderBack, _) => "The identity provider answers again".to_owned(),
            (NotifyEvent::TokenReused, 0..=1) => "A token or code was used again".to_owned(),
            (NotifyEvent::TokenReused, _) => {
                format!("Tokens or codes were used again {many} times")
            }
            (NotifyEvent::ConfigurationRefused, _) => {
                "A changed configuration is not in use".to_owned()
            }
            (NotifyEvent::EndsSoon, 0..=1) => "A key or secret is near its end".to_owned(),
            (NotifyEvent::EndsSoon, _) => format!("{many} keys or secrets are near their end"),
            (NotifyEvent::Test, _) => "A test message".to_owned(),
        }
    }

    /// Returns the paragraph below the title: what it means.
    pub(super) fn meaning(&self) -> &'static str {
        match self.event {
            NotifyEvent::ClientWaits => {
                "A person has signed in and waits. Nobody can use the client until an administrator decides about it."
            }
            NotifyEvent::PersonRefused => "The rules give this person nothing at this MCP server.",
            NotifyEvent::ProviderDown => {
                "Nobody new can sign in. People who are signed in go on for the time of outage_grace."
            }
            NotifyEvent::ProviderBack => "People can sign in again.",
            NotifyEvent::TokenReused => {
                "Somebody may have stolen it, or the client stores its tokens badly. What it had was ended, and the person has to connect again."
            }
            NotifyEvent::ConfigurationRefused => {
                "The configuration file changed, and the configuration before it stays in use."
            }
            NotifyEvent::EndsSoon => "Renew it before its end.",
            NotifyEvent::Test => "An administrator sent it to try this target. Nothing happened.",
        }
    }

    /// Returns a line for each occurrence that is listed, how many more there were, and what was dropped.
    pub(super) fn details(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.subjects.iter().map(Subject::line).collect();
        let more = self.occurrences.saturating_sub(self.subjects.len() as u64);
        if more > 0 && !self.subjects.is_empty() {
            lines.push(format!("… and {more} more."));
        }
        if self.dropped > 0 {
            let dropped = self.dropped;
            lines.push(format!(
                "{dropped} earlier messages to this target were dropped: too many waited."
            ));
        }
        lines
    }

    /// Returns the whole text, in lines.
    pub(super) fn text(&self) -> String {
        let mut text = vec![self.title(), self.meaning().to_owned()];
        text.extend(self.details());
        text.extend(self.link.clone());
        text.push(format!("Portcullis at {}", self.issuer));
        text.join("\n")
    }
}

impl Subject {
    fn line(&self) -> String {
        let mut parts = Vec::new();
        parts.extend(self.client.as_ref().map(|client| format!("client {}", client.shown())));
        parts.extend(self.person.as_ref().map(|person| format!("person {}", person.shown())));
        parts.extend(self.server.as_ref().map(|server| format!("MCP server {}", server.shown())));
        parts.extend(self.reason.as_ref().map(|reason| one_line(reason, LONGEST)));
        parts.extend(self.reference.as_ref().map(|reference| format!("reference {reference}")));
        parts.push(utc(self.at, "%Y-%m-%d %H:%M UTC"));
        format!("- {}", parts.join(", "))
    }
}

pub(super) fn utc(moment: Timestamp, how: &str) -> String {
    let time = DateTime::from_timestamp(moment.unix(), 0);
    time.map(|time| time.format(how).to_string()).unwrap_or_default()
}
