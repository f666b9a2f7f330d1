//! `portcullis demo --populated`: people that the rules refused lately.

use crate::app::App;
use crate::clock::Timestamp;
use crate::policy::{Email, Fact, Facts};
use crate::storage::{NewRefusal, Person, RefusedAt, StorageError};

/// Name, roles and groups of each.
const REFUSED: &[(&str, &[&str], &[&str])] = &[
    ("Rosa Lindqvist", &["Guest"], &["staff", "marketing"]),
    ("Tomasz Nowak", &[], &["staff"]),
    ("Yuki Tanaka", &["user"], &["staff", "tokyo"]),
    ("Omar Haddad", &["Auditor"], &[]),
];

/// Stores what the provider sent about them, for the pages that say why.
pub(super) async fn refuse(app: &App, client_id: &str, now: Timestamp) -> Result<(), StorageError> {
    let Some(resource) = app.default_resource() else { return Ok(()) };
    for (index, (name, roles, groups)) in REFUSED.iter().enumerate() {
        let known =
            |values: &[&str]| Fact::Known(values.iter().map(|value| (*value).to_owned()).collect());
        let local = name.to_lowercase().replace(' ', "-");
        let address = format!("{local}@example.com");
        let person = Person {
            name: Some((*name).to_owned()),
            email: Some(address.clone()),
            facts: Facts {
                subject: format!("demo-{local}"),
                roles: known(roles),
                groups: known(groups),
                email: Some(Email { address, verified: index % 2 == 0 }),
                ..Facts::default()
            },
        };
        let subject = app.subject(&person.facts.subject);
        let hours = i64::try_from(index * 9 + 1).unwrap_or(1);
        let refusal = NewRefusal {
            subject: &subject,
            resource: &resource.id,
            client_id,
            step: RefusedAt::SignIn,
            reference: None,
            asked: &resource.policy.default_scopes,
            person: &person,
        };
        let (most, at) = (app.config().limits.refused_people, now.unix() - hours * 3600);
        app.storage().note_refusal(&refusal, most, Timestamp::from_unix(at)).await?;
    }
    Ok(())
}
