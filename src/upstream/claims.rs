//! From claims to a person: pure.

use serde_json::{Map, Value};

use crate::config::{ClaimPlan, ClaimSource};
use crate::policy::{ClaimPath, Email, Fact, Facts, read_fact};
use crate::storage::Person;

/// Longest name or address kept.
const MAX_TEXT: usize = 256;

/// What the userinfo endpoint said.
#[derive(Clone, Debug, PartialEq)]
pub enum Userinfo {
    /// It was not needed, or there is none.
    NotAsked,
    /// Its claims, about the right person.
    Claims(Value),
    /// It could not be had: what only it could tell is unknown.
    Failed,
    /// It answers, and tells nothing of the person: what only it could tell is unknown, and that is no
    /// outage.
    TellsNothing,
}

impl Userinfo {
    /// Whether it was asked and told nothing.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Failed | Self::TellsNothing)
    }
}

/// Whether something the plan names is missing from the ID token and userinfo may have it.
pub fn needs_userinfo(plan: &ClaimPlan, id_token: &Value) -> bool {
    let reads_id_token = plan.sources.contains(&ClaimSource::IdToken);
    plan.sources.contains(&ClaimSource::Userinfo)
        && [&plan.name, &plan.email, &plan.groups, &plan.roles]
            .into_iter()
            .chain(plan.permissions_matter.then_some(&plan.permissions))
            .chain(&plan.extra)
            .any(|path| !reads_id_token || path.find(id_token).is_none())
}

/// The person with what `before` knew wherever it cannot be known now.
pub fn with_facts_of(mut person: Person, before: &Person) -> Person {
    let old = &before.facts;
    for (fact, old) in [
        (&mut person.facts.groups, &old.groups),
        (&mut person.facts.roles, &old.roles),
        (&mut person.facts.permissions, &old.permissions),
    ] {
        if *fact == Fact::Unknown {
            fact.clone_from(old);
        }
    }
    if person.facts.email.is_none() {
        person.facts.email.clone_from(&old.email);
        person.email.clone_from(&before.email);
    }
    for (path, value) in &old.claims {
        person.facts.claims.entry(path.clone()).or_insert_with(|| value.clone());
    }
    person.name = person.name.or_else(|| before.name.clone());
    person
}

/// Reads a person out of the sources, the first that has a claim wins.
pub fn read(
    plan: &ClaimPlan,
    subject: &str,
    id_token: &Value,
    access_token: Option<&Value>,
    userinfo: &Userinfo,
) -> Person {
    let find = |path: &ClaimPath| -> Option<&Value> {
        plan.sources.iter().find_map(|source| match (source, userinfo) {
            (ClaimSource::IdToken, _) => path.find(id_token),
            (ClaimSource::AccessToken, _) => access_token.and_then(|claims| path.find(claims)),
            (ClaimSource::Userinfo, Userinfo::Claims(claims)) => path.find(claims),
            (ClaimSource::Userinfo, _) => None,
        })
    };
    let fact = |path: &ClaimPath| match find(path) {
        // Whoever could have told did not answer: that is not the same as "none".
        None if userinfo.is_silent() => Fact::Unknown,
        None if is_cut_short(id_token, path) => Fact::Unknown,
        claim => read_fact(claim, plan.shape),
    };
    let text = |path: &ClaimPath| {
        let text = find(path)?.as_str()?.trim();
        (!text.is_empty() && text.len() <= MAX_TEXT).then(|| text.to_owned())
    };
    let email = text(&plan.email);
    let verified = find(&ClaimPath::new("email_verified")) == Some(&Value::Bool(true));
    let claims: Map<String, Value> = plan
        .extra
        .iter()
        .filter_map(|path| Some((path.as_str().to_owned(), find(path)?.clone())))
        .collect();
    Person {
        name: text(&plan.name),
        facts: Facts {
            subject: subject.to_owned(),
            groups: fact(&plan.groups),
            roles: fact(&plan.roles),
            permissions: fact(&plan.permissions),
            email: email.clone().map(|address| Email { address, verified }),
            claims,
        },
        email,
    }
}

/// The person when the provider vouches for them without a new ID token: what it tells now counts, and
/// only what it tells nowhere else is still as the last ID token has it.
pub fn read_again(
    plan: &ClaimPlan,
    subject: &str,
    last_id_token: &Value,
    access_token: Option<&Value>,
    userinfo: &Userinfo,
) -> Person {
    let mut plan = plan.clone();
    plan.sources.sort_by_key(|source| *source == ClaimSource::IdToken);
    read(&plan, subject, last_id_token, access_token, userinfo)
}

/// Whether something that rules may read was told by the last ID token and is told nowhere now.
pub fn rests_on(
    last_id_token: &Value,
    plan: &ClaimPlan,
    access_token: Option<&Value>,
    userinfo: &Userinfo,
) -> bool {
    let told_now = |path: &ClaimPath| {
        plan.sources.iter().any(|source| match (source, userinfo) {
            (ClaimSource::AccessToken, _) => {
                access_token.is_some_and(|claims| path.find(claims).is_some())
            }
            (ClaimSource::Userinfo, Userinfo::Claims(claims)) => path.find(claims).is_some(),
            _ => false,
        })
    };
    plan.sources.contains(&ClaimSource::IdToken)
        && [&plan.email, &plan.groups, &plan.roles, &plan.permissions]
            .into_iter()
            .chain(&plan.extra)
            .any(|path| path.find(last_id_token).is_some() && !told_now(path))
}

/// The provider says that there are more values than fit into the token (Entra's overage).
fn is_cut_short(id_token: &Value, path: &ClaimPath) -> bool {
    let named = id_token.get("_claim_names").and_then(|names| names.get(path.as_str())).is_some();
    named || (path.as_str() == "groups" && id_token.get("hasgroups") == Some(&Value::Bool(true)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::ClaimShape;
    use serde_json::json;

    fn plan() -> ClaimPlan {
        let path = ClaimPath::new;
        ClaimPlan {
            name: path("name"),
            email: path("email"),
            groups: path("groups"),
            roles: path("/realm_access/roles"),
            permissions: path("permissions"),
            permissions_matter: false,
            rules_read: true,
            shape: ClaimShape::Auto,
            sources: vec![ClaimSource::IdToken, ClaimSource::AccessToken, ClaimSource::Userinfo],
            extra: vec![path("/org_id")],
        }
    }

    fn known(value: &str) -> Fact {
        Fact::Known(vec![value.to_owned()])
    }

    #[test]
    fn the_first_source_that_has_a_claim_wins() {
        let id_token = json!({ "name": "Bob", "groups": ["from id"] });
        let access = json!({ "groups": ["from access"], "realm_access": { "roles": ["r"] } });
        let userinfo = Userinfo::Claims(
            json!({ "email": "bob@example.com", "email_verified": true, "org_id": "o" }),
        );

        let person = read(&plan(), "s", &id_token, Some(&access), &userinfo);

        assert_eq!(person.facts.groups, known("from id"));
        assert_eq!(person.facts.roles, known("r"));
        assert!(person.facts.email.unwrap().verified);
        assert_eq!(person.facts.claims["/org_id"], "o");
        assert_eq!(person.name.as_deref(), Some("Bob"));
    }

    #[test]
    fn what_could_not_be_asked_is_unknown_and_what_was_not_told_is_absent() {
        let nothing = json!({});
        assert_eq!(
            read(&plan(), "s", &nothing, None, &Userinfo::NotAsked).facts.groups,
            Fact::Absent
        );
        assert_eq!(
            read(&plan(), "s", &nothing, None, &Userinfo::Failed).facts.groups,
            Fact::Unknown
        );
        let overage = json!({ "_claim_names": { "groups": "src1" } });
        assert_eq!(
            read(&plan(), "s", &overage, None, &Userinfo::NotAsked).facts.groups,
            Fact::Unknown
        );
    }

    #[test]
    fn what_is_told_now_counts_before_what_the_last_id_token_said() {
        let last = json!({ "groups": ["old"], "realm_access": { "roles": ["old"] } });
        let now = Userinfo::Claims(json!({ "groups": ["new"] }));

        let person = read_again(&plan(), "s", &last, None, &now);

        assert_eq!((person.facts.groups, person.facts.roles), (known("new"), known("old")));
        assert!(rests_on(&last, &plan(), None, &now));
        let access = json!({ "realm_access": { "roles": [] } });
        assert!(!rests_on(&last, &plan(), Some(&access), &now));
        assert!(rests_on(&last, &plan(), None, &Userinfo::NotAsked));
        let name_alone = json!({ "name": "Bob", "sub": "s" });
        assert!(!rests_on(&name_alone, &plan(), None, &Userinfo::NotAsked));
    }

    #[test]
    fn up_02_only_the_json_boolean_true_verifies_an_address() {
        for (claim, verified) in
            [(json!(true), true), (json!("true"), false), (json!(1), false), (json!(null), false)]
        {
            let id_token = json!({ "email": "a@b.example", "email_verified": claim });
            let person = read(&plan(), "s", &id_token, None, &Userinfo::NotAsked);
            assert_eq!(person.facts.email.unwrap().verified, verified, "{claim}");
        }
    }

    #[test]
    fn userinfo_is_asked_only_for_what_is_missing() {
        let complete = json!({
            "name": "n", "email": "e", "groups": [], "realm_access": { "roles": [] }, "org_id": "o"
        });
        assert!(!needs_userinfo(&plan(), &complete));
        assert!(needs_userinfo(&plan(), &json!({ "name": "n" })));
    }
}
