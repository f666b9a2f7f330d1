//! The object of an act, as the confirmation page describes it.

use super::question::Question;
use super::words::ConfirmWords;
use crate::admin::connections::service_title;
use crate::admin::day::midnight;
use crate::admin::links::person_path;
use crate::admin::names::{Names, server_name};
use crate::admin::visit::AdminPage;
use crate::clock::Timestamp;
use crate::oauth::client::ClientMetadata;
use crate::oauth::client_name::DisplayName;
use crate::oauth::redirect_uri::destination;
use crate::storage::{ClientRow, GrantRow};
use crate::web::list_page::utc;
use crate::web::page_error::PageError;

/// What an act is about.
pub(super) struct ActObject {
    pub(super) name: String,
    /// Facts that tell it apart from others with the same name.
    pub(super) facts: Vec<(&'static str, String)>,
    /// Identifies what was shown: a confirmation is void once it differs.
    pub(super) seen: String,
    /// The page that the person came from, if the question does not know it.
    pub(super) back: Option<String>,
}

impl ActObject {
    fn named(name: String) -> Self {
        Self { name, facts: Vec::new(), seen: String::new(), back: None }
    }

    /// Loads the object of the act; `None` if it does not exist.
    pub(super) async fn of(
        visit: &AdminPage,
        w: &'static ConfirmWords,
        question: &Question,
    ) -> Result<Option<Self>, PageError> {
        let storage = visit.app().storage();
        let value = question.field.1.as_str();
        Ok(match question.act {
            "before" => midnight(value).map(|at| Self::named(utc(at))),
            "delete_unused" => {
                let seconds = value.parse().ok();
                seconds.map(|seconds| Self::named(utc(Timestamp::from_unix(seconds))))
            }
            "remove_pattern" => {
                let patterns = storage.approval_patterns().await?;
                let known = patterns.into_iter().find(|pattern| pattern.host == value);
                known.map(|pattern| Self::named(pattern.host))
            }
            "end_one" => storage.grant_row(value).await?.map(|row| Self::grant(visit, w, &row)),
            "remove_service" => Self::service(visit, w, value).await?,
            "remove_services" => {
                let title = service_title(visit.app().config(), value);
                let facts = vec![(w.service_name, value.to_owned())];
                Some(Self { facts, ..Self::named(title.to_owned()) })
            }
            "remove_services_of" => Self::person(visit, w, question).await?,
            _ if question.form == "/person" => Self::person(visit, w, question).await?,
            "rotate_secret" => storage.client_details(value).await?.map(|row| {
                // A confirmation is about one secret: pressed twice, it rotates once.
                let secret = row.secret_hash.clone().unwrap_or_default();
                let client = Self::client(w, row);
                Self { seen: format!("{} {secret}", client.seen), ..client }
            }),
            _ => storage.client_details(value).await?.map(|row| Self::client(w, row)),
        })
    }

    async fn person(
        visit: &AdminPage,
        w: &'static ConfirmWords,
        question: &Question,
    ) -> Result<Option<Self>, PageError> {
        let subject = question.field.1.as_str();
        // A person who blocked themselves could not sign in again to undo it.
        if question.act == "block_person" && subject == visit.by() {
            return Ok(None);
        }
        let row = visit.app().storage().person_row(subject).await?;
        Ok(row.map(|row| {
            let mut facts = vec![(w.subject, row.subject.clone())];
            let (name, email) = row.person.map_or((None, None), |known| (known.name, known.email));
            facts.extend(email.map(|email| (w.email, email)));
            Self { facts, ..Self::named(name.unwrap_or(row.subject)) }
        }))
    }

    /// One connected service, by the id of its row.
    async fn service(
        visit: &AdminPage,
        w: &'static ConfirmWords,
        id: &str,
    ) -> Result<Option<Self>, PageError> {
        let storage = visit.app().storage();
        let Some(row) = storage.connection_row(id).await? else { return Ok(None) };
        let person = Names::of(storage, &[&row.subject], &[]).await?.person(&row.subject);
        let title = service_title(visit.app().config(), &row.name).to_owned();
        let mut facts = vec![(w.person, person.text)];
        facts.extend(row.account_label.map(|account| (w.account, account)));
        let back = Some(person_path(&row.subject));
        Ok(Some(Self { facts, back, ..Self::named(title) }))
    }

    fn client(w: &'static ConfirmWords, row: ClientRow) -> Self {
        let metadata = ClientMetadata::from_stored_json(&row.metadata).ok();
        let name = metadata.as_ref().and_then(|known| known.client_name.as_deref());
        let name = DisplayName::of(name).text.unwrap_or_else(|| row.id.clone());
        let mut facts = Vec::new();
        let first = metadata.as_ref().and_then(|known| known.redirect_uris.first());
        facts.extend(first.map(|uri| (w.redirects_to, destination(uri.as_str()).to_string())));
        facts.push((w.client_id, row.id));
        Self { facts, seen: row.digest, ..Self::named(name) }
    }

    fn grant(visit: &AdminPage, w: &'static ConfirmWords, row: &GrantRow) -> Self {
        let metadata = row.client_metadata.as_deref().map(ClientMetadata::from_stored_json);
        let name = metadata.as_ref().and_then(|m| m.as_ref().ok()?.client_name.as_deref());
        let client = DisplayName::of(name).text.unwrap_or_else(|| row.client_id.clone());
        let server = server_name(&visit.app().config().resources, &row.resource);
        let person = row.person.name.as_deref().unwrap_or(&row.subject);
        Self {
            facts: vec![(w.client, client), (w.server, server.to_owned())],
            back: Some(person_path(&row.subject)),
            ..Self::named(person.to_owned())
        }
    }
}
