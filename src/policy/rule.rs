//! One rule: its conditions, which must all be true, and the scopes that it then allows or denies.

use std::collections::BTreeMap;

use super::condition::{Condition, Holds};
use super::{Fact, FactSet, Facts, Wanted, scopes_of};
use crate::oauth::scope::ScopeSet;

/// A rule of a resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// Name for audit events and `explain`.
    pub name: Option<String>,
    /// The conditions, which must all be true.
    pub conditions: Conditions,
    /// Scopes allowed where the rule matches.
    pub allow: ScopeSet,
    /// Scopes denied where the rule matches.
    pub deny: ScopeSet,
    /// Also allows the permissions of the provider that have the name of a declared scope.
    pub passthrough: bool,
}

/// The conditions of a rule. All of them must be true; within a list one match is enough. `None` is no
/// condition. Matching is case-sensitive, and exact unless the entry is a pattern.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Conditions {
    /// Has one of these roles.
    pub roles: Option<Vec<Wanted>>,
    /// Is in one of these groups.
    pub groups: Option<Vec<Wanted>>,
    /// Has one of these permissions.
    pub permissions: Option<Vec<Wanted>>,
    /// Has none of these roles.
    pub not_roles: Option<Vec<Wanted>>,
    /// Is in none of these groups.
    pub not_groups: Option<Vec<Wanted>>,
    /// Has one of these subjects at the identity provider.
    pub subjects: Option<Vec<String>>,
    /// Has a verified e-mail address in one of these domains. The domain of an unverified address is
    /// unknown.
    pub email_domains: Option<Vec<String>>,
    /// Uses one of these clients.
    pub clients: Option<Vec<String>>,
    /// For each claim path, the claim has one of these values.
    pub claims: BTreeMap<String, Vec<String>>,
}

impl Rule {
    /// Returns its name, or `rule 2` for the second rule without one. Positions begin at 0.
    pub fn name_at(&self, position: usize) -> String {
        self.name.clone().unwrap_or_else(|| format!("rule {}", position + 1))
    }

    /// Returns the scopes that the rule allows and denies this person, each `None` if nothing. A rule with
    /// an unknown result denies, but does not allow.
    pub(super) fn effect(
        &self,
        facts: &Facts,
        client_id: &str,
        declared: &ScopeSet,
    ) -> (Option<ScopeSet>, Option<ScopeSet>) {
        let holds = self.conditions.hold(facts, client_id);
        let allows = (holds == Holds::Yes).then(|| match &facts.permissions {
            Fact::Known(permissions) if self.passthrough => {
                self.allow.union(&scopes_of(permissions).intersection(declared))
            }
            _ => self.allow.clone(),
        });
        let denies = (holds != Holds::No).then(|| self.deny.clone());
        (allows.filter(|scopes| !scopes.is_empty()), denies.filter(|scopes| !scopes.is_empty()))
    }
}

impl Conditions {
    /// Returns the kinds of facts that the conditions read, apart from the subject.
    pub fn reads(&self) -> FactSet {
        let Self {
            roles,
            groups,
            permissions,
            not_roles,
            not_groups,
            email_domains,
            claims,
            subjects: _,
            clients: _,
        } = self;
        FactSet {
            groups: groups.is_some() || not_groups.is_some(),
            roles: roles.is_some() || not_roles.is_some(),
            permissions: permissions.is_some(),
            email: email_domains.is_some(),
            claims: !claims.is_empty(),
        }
    }

    /// Returns the conditions, one by one.
    pub fn each(&self) -> impl Iterator<Item = Condition<'_>> {
        // Destructured, so that a new kind of condition does not compile until it is evaluated.
        let Self {
            roles,
            groups,
            permissions,
            not_roles,
            not_groups,
            subjects,
            email_domains,
            clients,
            claims,
        } = self;
        let single = [
            roles.as_deref().map(Condition::Roles),
            groups.as_deref().map(Condition::Groups),
            permissions.as_deref().map(Condition::Permissions),
            not_roles.as_deref().map(Condition::NotRoles),
            not_groups.as_deref().map(Condition::NotGroups),
            subjects.as_deref().map(Condition::Subjects),
            email_domains.as_deref().map(Condition::EmailDomains),
            clients.as_deref().map(Condition::Clients),
        ];
        let claims = claims.iter().map(|(path, values)| Condition::Claim(path, values));
        single.into_iter().flatten().chain(claims)
    }

    /// Returns whether all conditions are true for this person with this client.
    pub(super) fn hold(&self, facts: &Facts, client_id: &str) -> Holds {
        self.each().fold(Holds::Yes, |all, condition| all.and(condition.holds(facts, client_id)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Email;
    use serde_json::json;

    #[expect(clippy::unnecessary_wraps, reason = "conditions are optional")]
    fn list(values: &[&str]) -> Option<Vec<String>> {
        Some(values.iter().map(|value| (*value).to_owned()).collect())
    }

    #[expect(clippy::unnecessary_wraps, reason = "conditions are optional")]
    fn names(values: &[&str]) -> Option<Vec<Wanted>> {
        Some(values.iter().map(|value| Wanted::parse(value).unwrap()).collect())
    }

    fn facts() -> Facts {
        let known = |values: &[&str]| Fact::Known(list(values).unwrap());
        Facts {
            subject: "00u1".to_owned(),
            groups: known(&["staff"]),
            roles: known(&["User"]),
            permissions: known(&["read:todos", "admin:everything"]),
            email: Some(Email { address: "bob@Example.com".to_owned(), verified: true }),
            claims: json!({
                "/org_id": "org_1", "level": 3, "/odd": {}, "whole": 3.0, "half": 3.5,
                "list": ["a", 7, true, 2.0], "deep": ["a", ["b"]], "huge": 1e30,
            })
            .as_object()
            .unwrap()
            .clone(),
            unknown_claims: ["cut".to_owned()].into(),
            email_unknown: false,
        }
    }

    #[test]
    fn each_condition_holds_exactly_when_it_should() {
        let claims =
            |path: &str, value: &str| BTreeMap::from([(path.to_owned(), vec![value.to_owned()])]);
        let none = Conditions::default;
        let table = [
            (none(), Holds::Yes),
            (Conditions { roles: names(&["Admin", "User"]), ..none() }, Holds::Yes),
            (Conditions { roles: names(&["Admin"]), ..none() }, Holds::No),
            (Conditions { roles: names(&["User"]), groups: names(&["x"]), ..none() }, Holds::No),
            (Conditions { not_groups: names(&["staff"]), ..none() }, Holds::No),
            (Conditions { not_groups: names(&["x"]), ..none() }, Holds::Yes),
            (Conditions { not_roles: names(&["Admin"]), ..none() }, Holds::Yes),
            (Conditions { permissions: names(&["read:todos"]), ..none() }, Holds::Yes),
            (Conditions { subjects: list(&["00u1"]), ..none() }, Holds::Yes),
            (Conditions { subjects: list(&["00U1"]), ..none() }, Holds::No),
            (Conditions { email_domains: list(&["example.com"]), ..none() }, Holds::Yes),
            (Conditions { email_domains: list(&["ample.com"]), ..none() }, Holds::No),
            (Conditions { clients: list(&["client"]), ..none() }, Holds::Yes),
            (Conditions { clients: list(&["other"]), ..none() }, Holds::No),
            (Conditions { claims: claims("/org_id", "org_1"), ..none() }, Holds::Yes),
            (Conditions { claims: claims("/org_id", "org_2"), ..none() }, Holds::No),
            (Conditions { claims: claims("level", "3"), ..none() }, Holds::Yes),
            (Conditions { claims: claims("absent", "x"), ..none() }, Holds::No),
            (Conditions { claims: claims("/odd", "x"), ..none() }, Holds::Unknown),
            (Conditions { claims: claims("cut", "x"), ..none() }, Holds::Unknown),
            (Conditions { claims: claims("whole", "3"), ..none() }, Holds::Yes),
            (Conditions { claims: claims("half", "3"), ..none() }, Holds::No),
            (Conditions { claims: claims("huge", "x"), ..none() }, Holds::Unknown),
            (Conditions { claims: claims("list", "a"), ..none() }, Holds::Yes),
            (Conditions { claims: claims("list", "7"), ..none() }, Holds::Yes),
            (Conditions { claims: claims("list", "true"), ..none() }, Holds::Yes),
            (Conditions { claims: claims("list", "2"), ..none() }, Holds::Yes),
            (Conditions { claims: claims("list", "b"), ..none() }, Holds::No),
            (Conditions { claims: claims("deep", "a"), ..none() }, Holds::Yes),
            (Conditions { claims: claims("deep", "b"), ..none() }, Holds::Unknown),
        ];
        for (conditions, expected) in table {
            assert_eq!(conditions.hold(&facts(), "client"), expected, "{conditions:?}");
        }
    }

    /// An unverified address satisfies no allow and every deny, because it may belong to anybody.
    #[test]
    fn up_02_the_domain_of_an_address_that_is_not_verified_is_not_known() {
        let domain = Conditions { email_domains: list(&["example.com"]), ..Conditions::default() };
        let holds = |email: Option<(&str, bool)>, email_unknown| {
            let email =
                email.map(|(address, verified)| Email { address: address.to_owned(), verified });
            domain.hold(&Facts { email, email_unknown, ..facts() }, "client")
        };
        for (address, verified, expected) in [
            ("bob@example.com", true, Holds::Yes),
            ("bob@other.example", true, Holds::No),
            ("bob@example.com", false, Holds::Unknown),
            ("bob@other.example", false, Holds::Unknown),
            ("bob@example.com.", true, Holds::Unknown),
            ("bob@ex\u{e4}mple.com", true, Holds::Unknown),
            ("bob", true, Holds::Unknown),
            ("bob@", true, Holds::Unknown),
            ("bob@example.com (work)", true, Holds::Unknown),
        ] {
            assert_eq!(holds(Some((address, verified)), false), expected, "{address} {verified}");
        }
        assert_eq!(holds(None, true), Holds::Unknown);
        assert_eq!(holds(None, false), Holds::No);
    }

    #[test]
    fn passthrough_allows_only_declared_scopes() {
        let rule = Rule { passthrough: true, ..Rule::default() };
        let declared = ScopeSet::parse("read:todos delete:todos").unwrap();

        let (allows, _) = rule.effect(&facts(), "client", &declared);

        assert_eq!(allows.unwrap().to_string(), "read:todos");
    }
}
