//! Authorization rules: facts about a person, rules and a request give scopes, with the reasons. Pure.
//!
//! `granted = consented_scopes ∩ (baseline ∪ allows of matching rules) − denies of matching rules`. The consented_scopes is
//! the set of scopes that were requested, declared and consented to. Without any rules, all of it is
//! allowed. A deny wins over an allow in any order. An unknown fact satisfies no allow and every deny, for
//! every kind of condition. If scopes imply others, an allow includes what it implies, and a deny includes
//! what implies it; otherwise the broad scope would bring the denied one back.

mod claims;
mod condition;
mod diagnosis;
mod fact_set;
mod pattern;
mod rule;
mod step;
#[cfg(test)]
mod unknown;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use strum::{EnumString, IntoStaticStr, VariantArray};

use crate::oauth::scope::{Scope, ScopeSet};
use crate::oauth::scope_hierarchy::ScopeHierarchy;

pub use claims::{ClaimPath, ClaimShape, read_fact};
pub use condition::{Condition, Holds};
pub use diagnosis::{Cause, Diagnosis, RuleFinding, ScopeChange, Way};
pub use fact_set::FactSet;
pub use pattern::Wanted;
pub use rule::{Conditions, Rule};
pub use step::ChangeStep;

/// Text for an unknown fact, whatever the reason.
pub const NOT_KNOWN: &str = "not known now, because it cannot be read or was not answered: \
     rules that allow do not match, rules that deny do";

/// The values of one kind of fact, as the identity provider delivered them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact {
    /// Exactly these values.
    Known(Vec<String>),
    /// The provider delivered none, so the person has none.
    #[default]
    Absent,
    /// The values could not be read, the provider truncated them, or a source of claims did not respond.
    Unknown,
}

impl std::fmt::Display for Fact {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Known(values) if values.is_empty() => f.write_str("none"),
            Self::Known(values) => f.write_str(&values.join(", ")),
            Self::Absent => f.write_str("not told"),
            Self::Unknown => f.write_str(NOT_KNOWN),
        }
    }
}

/// An e-mail address and whether the provider has verified it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Email {
    pub address: String,
    /// True only if `email_verified` was JSON `true`.
    pub verified: bool,
}

impl std::fmt::Display for Email {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let note = if self.verified {
            "verified"
        } else {
            "not verified: rules about domains that allow do not match, those that deny do"
        };
        write!(f, "{} ({note})", self.address)
    }
}

/// The facts about a person that rules are evaluated with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// The person's subject at the identity provider.
    pub subject: String,
    #[serde(default)]
    pub groups: Fact,
    /// Roles, a namespace separate from groups.
    #[serde(default)]
    pub roles: Fact,
    #[serde(default)]
    pub permissions: Fact,
    /// E-mail address. `None` if the person has none, or if `email_unknown` is set.
    #[serde(default)]
    pub email: Option<Email>,
    /// The address could not be read, or its source did not respond.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub email_unknown: bool,
    /// Other claims that rules name, by the path in the rule.
    #[serde(default)]
    pub claims: serde_json::Map<String, Value>,
    /// Paths of claims that were truncated, or whose source did not respond.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unknown_claims: BTreeSet<String>,
}

impl Facts {
    /// Describes the address for an administrator.
    pub fn shown_email(&self) -> String {
        match &self.email {
            _ if self.email_unknown => NOT_KNOWN.to_owned(),
            None => "not told".to_owned(),
            Some(email) => email.to_string(),
        }
    }

    /// Returns whether any fact that rules read is unknown. An unverified address does not count: it was
    /// delivered, but it proves nothing.
    pub fn any_unknown(&self) -> bool {
        let lists = [&self.groups, &self.roles, &self.permissions];
        lists.into_iter().any(|fact| *fact == Fact::Unknown)
            || self.email_unknown
            || !self.unknown_claims.is_empty()
    }
}

/// How to treat requested scopes that are not declared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
pub enum OnExcess {
    /// The unknown scopes are dropped.
    #[default]
    #[strum(serialize = "narrow")]
    Narrow,
    #[strum(serialize = "reject")]
    Reject,
}

/// The scopes of OpenID Connect (Core §5.4 and §11). They concern the person's identity, which MCP clients
/// do not learn here.
const HABITUAL: [&str; 6] = ["openid", "profile", "email", "address", "phone", "offline_access"];

/// A requested scope is not declared, and the resource refuses such requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a requested scope is not declared")]
pub struct NotDeclared;

/// The rules of one resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    /// Every scope the resource has.
    pub declared: ScopeSet,
    /// Scopes for a client that requests none.
    pub default_scopes: ScopeSet,
    /// Scopes for everybody who can sign in.
    pub baseline: ScopeSet,
    /// The rules, in any order. Without rules everybody gets what was requested.
    pub rules: Vec<Rule>,
    /// How to treat requested scopes that are not declared.
    pub on_excess: OnExcess,
    /// Which scopes imply which.
    pub hierarchy: ScopeHierarchy,
}

/// A decision, with its reasons.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The scopes that the person gets with this client.
    pub granted: ScopeSet,
    /// Requested, but not granted.
    pub missing: ScopeSet,
    /// The matching rules, by name or position.
    pub matched: Vec<String>,
}

/// A decision, with the scopes it was made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The scopes that the request amounts to: declared ones, or the defaults.
    pub asked: ScopeSet,
    /// The decision of the rules.
    pub decision: Decision,
    /// Whether access is refused because no scope is left.
    pub refused: bool,
}

impl Policy {
    /// Returns the requested scopes that the resource declares, or the default scopes if there are none.
    /// Fails if [`OnExcess::Reject`] is set and a scope is unknown; see [`Self::unknown_scopes`].
    pub fn requested_or_default(&self, requested: &ScopeSet) -> Result<ScopeSet, NotDeclared> {
        let known = requested.intersection(&self.declared);
        if self.on_excess == OnExcess::Reject && !self.unknown_scopes(requested).is_empty() {
            return Err(NotDeclared);
        }
        Ok(if known.is_empty() { self.default_scopes.clone() } else { known })
    }

    /// Returns the requested scopes that the resource does not have. Leaves out `openid` and its companions:
    /// clients send them by habit and mean the sign-in, so nothing is missing when they are dropped.
    pub fn unknown_scopes(&self, requested: &ScopeSet) -> ScopeSet {
        let unknown = requested.difference(&self.declared);
        unknown.iter().filter(|scope| !HABITUAL.contains(&scope.as_str())).cloned().collect()
    }

    /// Returns whether a person who is granted nothing of `consented_scopes` has no access at all. Without rules and
    /// without requested scopes, everybody has access.
    pub fn refuses(&self, consented_scopes: &ScopeSet) -> bool {
        !self.rules.is_empty() || !consented_scopes.is_empty()
    }

    /// Decides what a person would get who requests `requested` through this client, with the reasons. This
    /// is the decision of a sign-in, as `portcullis explain` and the admin pages show it.
    pub fn explain(
        &self,
        facts: &Facts,
        client_id: &str,
        requested: &ScopeSet,
    ) -> Result<Explanation, NotDeclared> {
        let asked = self.requested_or_default(requested)?;
        let decision = self.decide(facts, client_id, &asked);
        let refused = decision.granted.is_empty() && self.refuses(&asked);
        Ok(Explanation { asked, decision, refused })
    }

    /// Returns whether this person can get anything with some client ([`Self::within_reach`]).
    pub fn lets_in(&self, facts: &Facts) -> bool {
        !self.within_reach(facts).is_empty() || !self.refuses(&self.declared)
    }

    /// Returns the scopes that this person can get with some client. Rules about particular clients count as if they
    /// allowed this one, and deny others.
    pub fn within_reach(&self, facts: &Facts) -> ScopeSet {
        let mut with_any = self.clone();
        for rule in &mut with_any.rules {
            if rule.conditions.clients.take().is_some() {
                rule.deny = ScopeSet::default();
            }
        }
        with_any.decide(facts, "", &self.declared).granted
    }

    /// Returns the scopes within `consented_scopes` that the rules grant this person with this client.
    pub fn decide(&self, facts: &Facts, client_id: &str, consented_scopes: &ScopeSet) -> Decision {
        let consented_scopes = consented_scopes.intersection(&self.declared);
        let mut matched = Vec::new();
        let mut allowed = self.baseline.clone();
        let mut denied = ScopeSet::default();
        if self.rules.is_empty() {
            allowed = consented_scopes.clone();
        }
        for (position, rule) in self.rules.iter().enumerate() {
            let (allows, denies) = rule.effect(facts, client_id, &self.declared);
            if allows.is_some() || denies.is_some() {
                matched.push(rule.name_at(position));
            }
            allowed = allowed.union(&allows.unwrap_or_default());
            denied = denied.union(&denies.unwrap_or_default());
        }
        let allowed = self.hierarchy.with_implied(&allowed);
        let denied = self.hierarchy.with_implying(&denied);
        let granted = consented_scopes.intersection(&allowed).difference(&denied);
        Decision { missing: consented_scopes.difference(&granted), granted, matched }
    }
}

/// Returns the valid scopes among `names`. Used by rules that pass permissions of the provider through.
fn scopes_of(names: &[String]) -> ScopeSet {
    names.iter().filter_map(|name| name.parse::<Scope>().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes(text: &str) -> ScopeSet {
        ScopeSet::parse(text).unwrap()
    }

    fn known(values: &[&str]) -> Fact {
        Fact::Known(values.iter().map(|value| (*value).to_owned()).collect())
    }

    #[expect(clippy::unnecessary_wraps, reason = "conditions are optional")]
    fn list(values: &[&str]) -> Option<Vec<Wanted>> {
        Some(values.iter().map(|value| Wanted::parse(value).unwrap()).collect())
    }

    fn rule(conditions: Conditions, allow: &str, deny: &str) -> Rule {
        Rule {
            name: None,
            conditions,
            allow: scopes(allow),
            deny: scopes(deny),
            passthrough: false,
        }
    }

    /// The to-do example: admins get everything, users may create, contractors may never delete.
    fn todo() -> Policy {
        let roles = |role: &str| Conditions { roles: list(&[role]), ..Conditions::default() };
        let contractors = Conditions { groups: list(&["/contractors"]), ..Conditions::default() };
        Policy {
            declared: scopes("read:todos create:todos delete:todos"),
            default_scopes: scopes("create:todos"),
            rules: vec![
                rule(roles("Admin"), "read:todos create:todos delete:todos", ""),
                rule(roles("User"), "create:todos", ""),
                rule(contractors, "", "delete:todos"),
            ],
            ..Policy::default()
        }
    }

    fn decide(policy: &Policy, roles: Fact, groups: Fact, asked: &str) -> String {
        let facts = Facts { subject: "p".to_owned(), roles, groups, ..Facts::default() };
        let consented_scopes = policy.requested_or_default(&scopes(asked)).unwrap();
        policy.decide(&facts, "client", &consented_scopes).granted.to_string()
    }

    #[test]
    fn the_to_do_example_decides_as_written() {
        let all = "read:todos create:todos delete:todos";
        let table: &[(Fact, Fact, &str, &str)] = &[
            (known(&["User"]), Fact::Absent, all, "create:todos"),
            (known(&["Admin"]), Fact::Absent, all, "create:todos delete:todos read:todos"),
            (known(&["Admin", "User"]), Fact::Absent, "read:todos", "read:todos"),
            (known(&["Admin"]), known(&["/contractors"]), all, "create:todos read:todos"),
            (known(&[]), Fact::Absent, all, ""),
            (Fact::Absent, Fact::Absent, all, ""),
            (known(&["admin"]), Fact::Absent, all, ""),
            // Groups and roles are different namespaces.
            (Fact::Absent, known(&["Admin"]), all, ""),
            // Unknown groups satisfy the deny; unknown roles satisfy no allow.
            (known(&["Admin"]), Fact::Unknown, all, "create:todos read:todos"),
            (Fact::Unknown, Fact::Absent, all, ""),
            // No scope requested, or none known: the defaults, still filtered.
            (known(&["User"]), Fact::Absent, "", "create:todos"),
            (known(&["User"]), Fact::Absent, "openid offline_access", "create:todos"),
            (known(&["User"]), Fact::Absent, "delete:todos", ""),
        ];
        for (roles, groups, asked, expected) in table {
            let granted = decide(&todo(), roles.clone(), groups.clone(), asked);
            assert_eq!(granted, *expected, "{roles:?} {groups:?} {asked}");
        }
    }

    #[test]
    fn a_person_may_use_a_server_if_some_client_gets_something_for_them() {
        let with_roles = |policy: &Policy, role: &str| {
            let facts = Facts { roles: known(&[role]), ..Facts::default() };
            policy.lets_in(&facts)
        };
        assert!(with_roles(&todo(), "Admin") && with_roles(&todo(), "User"));
        assert!(!with_roles(&todo(), "Nobody"));
        assert!(!todo().lets_in(&Facts::default()));

        let clients = Some(vec!["client_1".to_owned()]);
        let only = |clients, role: &str| Conditions {
            clients,
            roles: list(&[role]),
            ..Conditions::default()
        };
        let mut policy = todo();
        policy.rules = vec![rule(only(clients.clone(), "User"), "create:todos", "")];
        assert!(with_roles(&policy, "User"), "through that client");
        assert!(!with_roles(&policy, "Admin"));
        policy.rules.push(rule(only(clients, "User"), "", "create:todos read:todos delete:todos"));
        policy.rules.push(rule(only(None, "User"), "create:todos", ""));
        assert!(with_roles(&policy, "User"), "through another client");
        policy.rules.push(rule(only(None, "User"), "", "create:todos"));
        assert!(!with_roles(&policy, "User"));

        let open = Policy { rules: Vec::new(), ..todo() };
        assert!(open.lets_in(&Facts::default()));
        assert!(Policy::default().lets_in(&Facts::default()), "no scopes and no rules");
    }

    #[test]
    fn the_order_of_rules_changes_nothing() {
        let mut reversed = todo();
        reversed.rules.reverse();
        for (roles, groups) in [
            (known(&["Admin"]), known(&["/contractors"])),
            (known(&["User"]), Fact::Unknown),
            (Fact::Unknown, Fact::Absent),
        ] {
            let asked = "read:todos create:todos delete:todos";
            assert_eq!(
                decide(&todo(), roles.clone(), groups.clone(), asked),
                decide(&reversed, roles, groups, asked)
            );
        }
    }

    #[test]
    fn a_demotion_shrinks_and_a_promotion_grows_back_to_the_ceiling_only() {
        let policy = todo();
        let consented_scopes = scopes("create:todos read:todos");
        let granted = |role: &str| {
            let facts = Facts { roles: known(&[role]), ..Facts::default() };
            policy.decide(&facts, "client", &consented_scopes).granted.to_string()
        };
        assert_eq!(granted("Admin"), "create:todos read:todos");
        assert_eq!(granted("User"), "create:todos");
        assert_eq!(granted("Admin"), "create:todos read:todos", "never delete:todos");
    }

    #[test]
    fn without_rules_everybody_gets_what_was_asked_and_baseline_needs_no_rule() {
        let open = Policy { rules: Vec::new(), ..todo() };
        assert_eq!(decide(&open, Fact::Absent, Fact::Absent, "read:todos"), "read:todos");
        let based = Policy { baseline: scopes("read:todos"), ..todo() };
        assert_eq!(
            decide(&based, Fact::Absent, Fact::Absent, "read:todos create:todos"),
            "read:todos"
        );
    }

    #[test]
    fn on_excess_reject_refuses_what_is_not_declared() {
        let strict = Policy { on_excess: OnExcess::Reject, ..todo() };
        assert_eq!(strict.requested_or_default(&scopes("read:todos admin")), Err(NotDeclared));
        for habitual in ["offline_access", "openid", "openid profile email address phone"] {
            let asked = strict.requested_or_default(&scopes(&format!("read:todos {habitual}")));
            assert_eq!(asked, Ok(scopes("read:todos")), "{habitual}");
        }
    }

    #[test]
    fn gw_07_an_allow_allows_what_it_implies_and_a_deny_takes_what_implies_it() {
        let direct = [("admin".parse().unwrap(), scopes("read:todos delete:todos"))];
        let hierarchy = ScopeHierarchy::new(&direct.into()).unwrap();
        let mut policy =
            Policy { declared: scopes("admin read:todos delete:todos"), hierarchy, ..todo() };
        policy.rules[0].allow = scopes("admin");
        let admin = || known(&["Admin"]);

        assert_eq!(decide(&policy, admin(), Fact::Absent, "read:todos"), "read:todos");
        assert_eq!(decide(&policy, admin(), Fact::Absent, "admin"), "admin");
        let contractor = known(&["/contractors"]);
        assert_eq!(decide(&policy, admin(), contractor, "admin read:todos"), "read:todos");
    }

    #[test]
    fn an_explanation_is_the_decision_of_a_sign_in() {
        let facts = Facts { roles: known(&["User"]), ..Facts::default() };
        let explain = |asked: &str| todo().explain(&facts, "client", &scopes(asked)).unwrap();

        let explained = explain("create:todos delete:todos unheard:of");

        assert_eq!(explained.asked.to_string(), "create:todos delete:todos");
        assert_eq!(explained.decision.granted.to_string(), "create:todos");
        assert!(!explained.refused);
        assert!(explain("delete:todos").refused);
        let strict = Policy { on_excess: OnExcess::Reject, ..todo() };
        assert_eq!(strict.explain(&facts, "client", &scopes("unheard:of")), Err(NotDeclared));
    }

    #[test]
    fn a_decision_says_which_rules_matched_and_what_is_missing() {
        let mut policy = todo();
        policy.rules[1].name = Some("users".to_owned());
        let facts = Facts { roles: known(&["User"]), ..Facts::default() };

        let decision = policy.decide(&facts, "client", &scopes("create:todos delete:todos"));

        assert_eq!(decision.matched, ["users"]);
        assert_eq!(decision.missing.to_string(), "delete:todos");
    }
}
