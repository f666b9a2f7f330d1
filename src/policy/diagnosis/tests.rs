use super::*;
use crate::policy::{Conditions, Email, OnExcess, Wanted};
use serde_json::json;

fn scopes(text: &str) -> ScopeSet {
    ScopeSet::parse(text).unwrap()
}

fn known(values: &[&str]) -> Fact {
    Fact::Known(values.iter().map(|value| (*value).to_owned()).collect())
}

#[expect(clippy::unnecessary_wraps, reason = "conditions are optional")]
fn names(values: &[&str]) -> Option<Vec<Wanted>> {
    Some(values.iter().map(|value| Wanted::parse(value).unwrap()).collect())
}

#[expect(clippy::unnecessary_wraps, reason = "conditions are optional")]
fn texts(values: &[&str]) -> Option<Vec<String>> {
    Some(values.iter().map(|value| (*value).to_owned()).collect())
}

fn none() -> Conditions {
    Conditions::default()
}

fn allow(conditions: Conditions, allow: &str) -> Rule {
    Rule { conditions, allow: scopes(allow), ..Rule::default() }
}

fn deny(conditions: Conditions, deny: &str) -> Rule {
    Rule { conditions, deny: scopes(deny), ..Rule::default() }
}

fn policy(rules: Vec<Rule>) -> Policy {
    Policy {
        declared: scopes("read create delete"),
        default_scopes: scopes("read create delete"),
        rules,
        on_excess: OnExcess::Narrow,
        ..Policy::default()
    }
}

/// Somebody with these roles and groups, and a verified address.
fn person(roles: Fact, groups: Fact) -> Facts {
    Facts {
        subject: "00u1".to_owned(),
        roles,
        groups,
        email: Some(Email { address: "mallory@acme.example".to_owned(), verified: true }),
        ..Facts::default()
    }
}

/// Writes a step as a test reads it.
fn told(step: &ChangeStep<'_>) -> String {
    match step {
        ChangeStep::Fulfil(condition) => {
            format!("give {} {}", condition.key(), condition.values().join("|"))
        }
        ChangeStep::Confirm => "confirm the address".to_owned(),
        ChangeStep::Tell { condition, .. } => format!("tell {}", condition.key()),
        ChangeStep::TakeAway { condition, values } => {
            format!("take {} {}", condition.key(), values.join("|"))
        }
        ChangeStep::Permission(scopes) => format!("permission {scopes}"),
        ChangeStep::Admit { rule, condition, values } => {
            format!("rule {} {} + {}", rule + 1, condition.key(), values.join("|"))
        }
        ChangeStep::Exempt { rule, condition, values } => {
            format!("rule {} {} - {}", rule + 1, condition.key(), values.join("|"))
        }
        ChangeStep::ChangeDeny { rule, scopes } => format!("rule {} denies {scopes}", rule + 1),
        ChangeStep::WriteRule => "write a rule".to_owned(),
    }
}

/// The nearest rule, counted from 1, and the ways.
fn asked(policy: &Policy, facts: &Facts, asked: &str) -> (Option<usize>, Vec<String>) {
    let found = policy.diagnose(facts, "client", &scopes(asked)).unwrap();
    let ways = found.ways(facts, "client");
    let ways = ways.iter().map(|way| {
        let steps: Vec<String> = way.steps.iter().map(told).collect();
        format!("{} => {}", steps.join(", "), way.gives)
    });
    (found.nearest.map(|at| at + 1), ways.collect())
}

fn all(policy: &Policy, facts: &Facts) -> (Option<usize>, Vec<String>) {
    asked(policy, facts, "read create delete")
}

fn expected(nearest: usize, ways: &[&str]) -> (Option<usize>, Vec<String>) {
    (Some(nearest), ways.iter().map(|way| (*way).to_owned()).collect())
}

#[test]
fn who_gets_everything_needs_no_diagnosis() {
    let open = policy(Vec::new());
    assert!(open.diagnose(&Facts::default(), "client", &scopes("read")).is_none());
    assert!(open.diagnose(&Facts::default(), "client", &ScopeSet::default()).is_none());
}

#[test]
fn the_nearest_rule_has_the_fewest_unmet_conditions_and_the_first_of_several_wins() {
    let rules = policy(vec![
        allow(
            Conditions { roles: names(&["Admin"]), groups: names(&["admins"]), ..none() },
            "delete",
        ),
        allow(Conditions { roles: names(&["todo-reader"]), ..none() }, "read"),
        allow(Conditions { groups: names(&["writers"]), ..none() }, "create"),
    ]);

    let found = all(&rules, &person(known(&[]), known(&["staff"])));

    let ways = [
        "give roles todo-reader => read",
        "give groups writers => create",
        "rule 3 groups + staff => create",
    ];
    assert_eq!(found, expected(2, &ways));
    let found = all(&rules, &person(known(&["Admin"]), known(&["staff"])));
    assert_eq!(found.0, Some(1), "one condition of two is unmet, and it is the first");
}

#[test]
fn each_kind_of_condition_says_what_would_make_it_true() {
    let claims = |path: &str, value: &str| [(path.to_owned(), vec![value.to_owned()])].into();
    let facts = Facts {
        claims: json!({ "/org": "org_2" }).as_object().unwrap().clone(),
        unknown_claims: ["cut".to_owned()].into(),
        ..person(known(&["contractor"]), Fact::Unknown)
    };
    let table: [(Conditions, &[&str]); 11] = [
        (
            Conditions { roles: names(&["A", "B"]), ..none() },
            &["give roles A|B => read", "rule 1 roles + contractor => read"],
        ),
        (
            Conditions { roles: names(&["glob:todo-*"]), ..none() },
            &["give roles glob:todo-* => read", "rule 1 roles + contractor => read"],
        ),
        (Conditions { groups: names(&["g"]), ..none() }, &["tell groups => read"]),
        (Conditions { not_groups: names(&["g"]), ..none() }, &["tell not_groups => read"]),
        (Conditions { permissions: names(&["p"]), ..none() }, &["give permissions p => read"]),
        (
            Conditions { not_roles: names(&["glob:contr*"]), ..none() },
            &["take not_roles contractor => read", "rule 1 not_roles - glob:contr* => read"],
        ),
        (Conditions { subjects: texts(&["00u9"]), ..none() }, &["rule 1 subjects + 00u1 => read"]),
        (
            Conditions { email_domains: texts(&["other.example"]), ..none() },
            &[
                "give email_domains other.example => read",
                "rule 1 email_domains + acme.example => read",
            ],
        ),
        (
            Conditions { clients: texts(&["robot"]), ..none() },
            &["give clients robot => read", "rule 1 clients + client => read"],
        ),
        (
            Conditions { claims: claims("/org", "org_1"), ..none() },
            &["give claim org_1 => read", "rule 1 claim + org_2 => read"],
        ),
        (Conditions { claims: claims("cut", "x"), ..none() }, &["tell claim => read"]),
    ];
    for (conditions, ways) in table {
        let rules = policy(vec![allow(conditions.clone(), "read")]);
        assert_eq!(all(&rules, &facts), expected(1, ways), "{conditions:?}");
    }
}

#[test]
fn an_address_that_is_not_verified_is_to_be_confirmed_if_that_would_help() {
    let rules = |domain: &str| {
        policy(vec![allow(Conditions { email_domains: texts(&[domain]), ..none() }, "read")])
    };
    let mut facts = person(Fact::Absent, Fact::Absent);
    facts.email.as_mut().unwrap().verified = false;

    assert_eq!(all(&rules("acme.example"), &facts), expected(1, &["confirm the address => read"]));
    assert_eq!(
        all(&rules("other.example"), &facts),
        expected(1, &["write a rule => create delete read"])
    );
}

#[test]
fn a_rule_that_denies_what_would_be_allowed_is_named_first() {
    let rules = policy(vec![
        allow(Conditions { roles: names(&["User"]), ..none() }, "create"),
        deny(Conditions { groups: names(&["/contractors"]), ..none() }, "create"),
    ]);
    let facts = person(known(&["User"]), known(&["/contractors", "staff"]));

    let found = rules.diagnose(&facts, "client", &scopes("create delete")).unwrap();

    assert_eq!(found.cause, Cause::Denied);
    assert_eq!(found.rules[1].denies, scopes("create"));
    let ways = ["take groups /contractors => create", "rule 2 denies create => create"];
    assert_eq!(asked(&rules, &facts, "create delete"), expected(2, &ways));
    // Unknown groups deny as well.
    let unknown = person(known(&["User"]), Fact::Unknown);
    let ways = ["tell groups => create", "rule 2 denies create => create"];
    assert_eq!(asked(&rules, &unknown, "create"), expected(2, &ways));
    // What nobody allowed and somebody denies needs both changes.
    let nobody = person(known(&[]), known(&["/contractors"]));
    let found = asked(&rules, &nobody, "create");
    let ways = [
        "take groups /contractors, give roles User => create",
        "rule 2 denies create, give roles User => create",
    ];
    assert_eq!(found, expected(2, &ways));
}

#[test]
fn a_denial_of_something_else_does_not_hide_the_nearest_rule() {
    let rules = policy(vec![
        deny(Conditions { groups: names(&["/contractors"]), ..none() }, "delete"),
        allow(Conditions { roles: names(&["User"]), ..none() }, "create"),
    ]);
    let facts = person(Fact::Absent, known(&["/contractors"]));

    let found = rules.diagnose(&facts, "client", &scopes("create delete")).unwrap();

    assert_eq!((found.cause, found.nearest), (Cause::NotAllowed, Some(1)));
    assert_eq!(found.rules[0].denies, scopes("delete"), "it is shown all the same");
    assert_eq!(all(&rules, &facts).1, ["give roles User => create"]);
}

#[test]
fn scopes_that_no_rule_allows_need_a_rule() {
    let rules = policy(vec![allow(none(), "read")]);

    let found = rules.diagnose(&Facts::default(), "client", &scopes("delete")).unwrap();

    assert_eq!((found.cause, found.nearest), (Cause::NotAllowed, None));
    assert_eq!(asked(&rules, &Facts::default(), "delete").1, ["write a rule => delete"]);
}

#[test]
fn permissions_that_are_passed_through_are_to_be_given() {
    let pass = Rule { passthrough: true, ..allow(none(), "") };
    let rules = policy(vec![pass]);
    let facts = Facts { permissions: known(&["read"]), ..Facts::default() };

    assert_eq!(asked(&rules, &facts, "read delete"), expected(1, &["permission delete => delete"]));
    assert!(rules.diagnose(&facts, "client", &scopes("read")).is_none());
}

#[test]
fn a_way_that_would_not_work_is_not_reported() {
    // Who gets the role is denied by another rule.
    let rules = policy(vec![
        allow(Conditions { roles: names(&["User"]), ..none() }, "read"),
        deny(Conditions { roles: names(&["User"]), ..none() }, "read"),
    ]);

    let found = asked(&rules, &person(known(&[]), Fact::Absent), "read");

    assert_eq!(found, expected(1, &["write a rule => read"]));
}

#[test]
fn a_draft_says_what_somebody_gains_and_loses() {
    let before = policy(vec![allow(Conditions { roles: names(&["User"]), ..none() }, "create")]);
    let after = policy(vec![allow(Conditions { groups: names(&["staff"]), ..none() }, "read")]);
    let facts = person(known(&["User"]), known(&["staff"]));

    let change = before.change_by(&after, &facts, "");

    assert_eq!(change, ScopeChange { gains: scopes("read"), loses: scopes("create") });
}
