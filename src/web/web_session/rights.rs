//! Who may see the pages of a realm, and who may change something there.

use crate::app::App;
use crate::policy::{Fact, FactSet};
use crate::storage::{Person, Realm};

/// Returns the person with facts of these kinds marked unknown.
pub(super) fn without(person: &Person, kinds: FactSet) -> Person {
    let mut person = person.clone();
    if kinds.roles {
        person.facts.roles = Fact::Unknown;
    }
    if kinds.groups {
        person.facts.groups = Fact::Unknown;
    }
    person
}

/// Returns `None` if these pages are not for this person, otherwise whether they may change anything there.
pub(super) fn rights(app: &App, realm: Realm, subject: &str, person: &Person) -> Option<bool> {
    match realm {
        Realm::Account => Some(true),
        Realm::Admin => {
            let admin = app.config().admin.as_ref()?;
            if admin.administrators.include(&person.facts, subject) {
                return Some(true);
            }
            admin.viewers.include(&person.facts, subject).then_some(false)
        }
    }
}
