//! The form that shows what a person may do at an MCP server with a client. Person and client are found by name.

use std::collections::BTreeMap;

use super::words::ServerWords;
use crate::admin::advice::Advice;
use crate::admin::client_label::{ClientLabel, label_of};
use crate::admin::configured::ConfiguredServer;
use crate::admin::links::{person_path, query, refused_person_path};
use crate::admin::people::{FactWords, fact};
use crate::admin::refused::{refused_matching, shown_name};
use crate::admin::rule_view::{ReportWords, RuleView};
use crate::admin::visit::AdminPage;
use crate::oauth::scope::ScopeSet;
use crate::policy::{Explanation, Facts};
use crate::storage::{PersonFilter, RefusedFilter, StorageError};
use crate::web::words::Language;

/// People or clients offered for a choice: 10.
const OFFERED: usize = 10;

/// The input of the form.
pub(super) struct AttemptForm<'a> {
    pub(super) servers: Vec<(&'a str, &'a str, bool)>,
    pub(super) person: &'a str,
    pub(super) client: &'a str,
    pub(super) requested: &'a str,
}

/// The result of the form.
#[derive(Default)]
pub(super) struct TrialResult {
    /// Why there is no decision.
    pub(super) problem: Option<&'static str>,
    /// Facts that override the rules, such as a blocked person.
    pub(super) warnings: Vec<&'static str>,
    /// Several people or clients that match, with the link that chooses each.
    pub(super) choose: Option<Choice>,
    pub(super) person: Option<(String, String)>,
    pub(super) client: Option<ClientLabel>,
    pub(super) facts: Vec<(&'static str, String)>,
    pub(super) explained: Option<Explanation>,
    /// What would give the person what is missing.
    pub(super) advice: Option<String>,
    pub(super) reports: Vec<RuleView>,
}

pub(super) struct Choice {
    pub(super) text: &'static str,
    /// Link, name, and what tells one from another.
    pub(super) options: Vec<(String, String, String)>,
    pub(super) more: bool,
}

/// What the search for a person or a client found.
enum Pick<T> {
    Nobody,
    One(T),
    Several(Choice),
}

/// A person, as far as known.
struct PickedPerson {
    subject: String,
    name: String,
    path: String,
    facts: Option<Facts>,
    blocked: bool,
}

/// The request of a form that was sent.
pub(super) struct Trial<'a> {
    visit: &'a AdminPage,
    server: ConfiguredServer<'a>,
    w: &'static ServerWords,
    language: Language,
    person: &'a str,
    client: &'a str,
    requested: &'a str,
}

impl<'a> Trial<'a> {
    /// Returns the request of the form, if it was sent.
    pub(super) fn of(
        visit: &'a AdminPage,
        server: Option<ConfiguredServer<'a>>,
        form: &AttemptForm<'a>,
        language: Language,
    ) -> Option<Self> {
        let server = server.filter(|_| !form.person.is_empty())?;
        let &AttemptForm { person, client, requested, .. } = form;
        let w = ServerWords::of(language);
        Some(Self { visit, server, w, language, person, client, requested })
    }

    /// Replays the decision of a sign-in.
    pub(super) async fn result(&self) -> Result<TrialResult, StorageError> {
        let w = self.w;
        let problem = |text| Ok(TrialResult { problem: Some(text), ..TrialResult::default() });
        let choose = |choice| Ok(TrialResult { choose: Some(choice), ..TrialResult::default() });
        let person = match self.person().await? {
            Pick::Nobody => return problem(w.nobody),
            Pick::Several(choice) => return choose(choice),
            Pick::One(person) => person,
        };
        let mut result = TrialResult::default();
        let client_id = match self.client().await? {
            Pick::Several(choice) => return choose(choice),
            Pick::Nobody => {
                if !self.client.is_empty() {
                    result.warnings.push(w.client_unknown);
                }
                self.client.to_owned()
            }
            Pick::One(client) => {
                let id = client.id.clone();
                result.client = Some(client);
                id
            }
        };
        let Ok(requested) = ScopeSet::parse(self.requested) else { return problem(w.not_scopes) };
        let Some(facts) = person.facts else { return problem(w.forgotten) };
        if person.blocked {
            result.warnings.push(w.person_blocked);
        }
        let review = self.visit.app().storage().client_review(&client_id).await?;
        if !client_id.is_empty() && review.is_denied() {
            result.warnings.push(w.client_shut_out);
        }
        result.person = Some((person.path, person.name));
        self.decide(&mut result, &facts, &client_id, &requested);
        Ok(result)
    }

    fn decide(
        &self,
        result: &mut TrialResult,
        facts: &Facts,
        client_id: &str,
        requested: &ScopeSet,
    ) {
        let f = FactWords::of(self.language);
        let known = [
            (f.roles, &facts.roles),
            (f.groups, &facts.groups),
            (f.permissions, &facts.permissions),
        ];
        result.facts = known.into_iter().map(|(label, known)| (label, fact(f, known))).collect();
        let Ok(explained) = self.server.resource.policy.explain(facts, client_id, requested) else {
            result.problem = Some(self.w.rejected);
            return;
        };
        let asked = &explained.asked;
        if let Some(advice) = Advice::of(self.server, facts, client_id, asked, self.language) {
            result.advice = Some(advice.sentence());
            result.reports = RuleView::all(&advice, ReportWords::of(self.language));
        }
        result.explained = Some(explained);
    }

    /// Returns the form with this person and client.
    fn link(&self, person: &str, client: &str) -> String {
        let mut query = query("/servers");
        query.append_pair("server", &self.server.resource.id).append_pair("sub", person);
        query.append_pair("client", client).append_pair("scopes", self.requested);
        format!("{}#try", query.finish())
    }

    /// Finds the person: by subject, or by words of the name or the address. Refused people are found too.
    async fn person(&self) -> Result<Pick<PickedPerson>, StorageError> {
        let storage = self.visit.app().storage();
        let mut found = Vec::new();
        if let Some(row) = storage.person_row(self.person).await? {
            found.push(row);
        } else {
            let search = PersonFilter { search: self.person.to_owned(), ..PersonFilter::default() };
            let most = i64::try_from(OFFERED + 1).unwrap_or(i64::MAX);
            found.extend(storage.browse_people(&search, most).await?);
        }
        let mut people: BTreeMap<String, (PickedPerson, String)> = BTreeMap::new();
        for row in found {
            let email = row.person.as_ref().and_then(|person| person.email.clone());
            let name = row.person.as_ref().and_then(|person| person.name.clone());
            let picked = PickedPerson {
                name: name.unwrap_or_else(|| row.subject.clone()),
                path: person_path(&row.subject),
                facts: row.person.map(|person| person.facts),
                blocked: row.blocked.is_some(),
                subject: row.subject,
            };
            people.insert(picked.subject.clone(), (picked, email.unwrap_or_default()));
        }
        let filter =
            RefusedFilter { resource: self.server.resource.id.clone(), ..Default::default() };
        for row in refused_matching(self.visit.app(), &filter, self.person).await? {
            let picked = PickedPerson {
                name: shown_name(&row).to_owned(),
                path: refused_person_path(&row.subject, &row.resource),
                facts: Some(row.person.facts),
                blocked: false,
                subject: row.subject,
            };
            let email = row.person.email.unwrap_or_default();
            people.entry(picked.subject.clone()).or_insert((picked, email));
        }
        if people.len() > 1 {
            let options = people.into_values().map(|(person, email)| {
                let hint = if email.is_empty() { person.subject.clone() } else { email };
                (self.link(&person.subject, self.client), person.name, hint)
            });
            return Ok(Pick::Several(choice(self.w.choose_person, options)));
        }
        Ok(people.into_values().next().map_or(Pick::Nobody, |(person, _)| Pick::One(person)))
    }

    /// Finds the client: by ID, or by the beginning of its name or host.
    async fn client(&self) -> Result<Pick<ClientLabel>, StorageError> {
        let app = self.visit.app();
        if self.client.is_empty() {
            return Ok(Pick::Nobody);
        }
        let exact = label_of(app, self.client).await?;
        if exact.name.is_some() || exact.path.is_some() {
            return Ok(Pick::One(exact));
        }
        let most = i64::try_from(OFFERED + 1).unwrap_or(i64::MAX);
        let searched = app.config().limits.clients_searched;
        let mut ids = app.storage().clients_found(self.client, searched, most).await?;
        let wanted = self.client.to_lowercase();
        for client in &app.config().clients {
            let name = client.metadata.client_name.as_deref().unwrap_or_default().to_lowercase();
            if name.contains(&wanted) && !ids.contains(&client.client_id) {
                ids.push(client.client_id.clone());
            }
        }
        let mut labels = Vec::with_capacity(ids.len());
        for id in &ids {
            labels.push(label_of(app, id).await?);
        }
        if labels.len() > 1 {
            let options = labels.into_iter().map(|label| {
                let name = label.name.unwrap_or_else(|| self.w.unnamed.to_owned());
                (self.link(self.person, &label.id), name, label.id)
            });
            return Ok(Pick::Several(choice(self.w.choose_client, options)));
        }
        Ok(labels.pop().map_or(Pick::Nobody, Pick::One))
    }
}

fn choice(text: &'static str, options: impl Iterator<Item = (String, String, String)>) -> Choice {
    let mut options: Vec<_> = options.collect();
    let more = options.len() > OFFERED;
    options.truncate(OFFERED);
    Choice { text, options, more }
}
