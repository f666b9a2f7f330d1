//! Tests that an unknown fact satisfies no allow and every deny: for every kind of condition, and for rules
//! with several conditions.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{Conditions, Email, Fact, Facts, Rule, Wanted};
use crate::oauth::scope::ScopeSet;

const CLIENT: &str = "client";

/// The state of one fact that rules read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FactState {
    /// The value that the rule names.
    Fits,
    Other,
    Absent,
    /// Unreadable, truncated, or its source did not respond.
    Unknown,
}

fn known() -> impl Strategy<Value = FactState> {
    prop_oneof![
        Just(FactState::Fits),
        Just(FactState::Other),
        Just(FactState::Absent),
        Just(FactState::Unknown),
    ]
}

/// Everything that rules can read, each in one of the states.
#[derive(Clone, Copy, Debug)]
struct World {
    roles: FactState,
    groups: FactState,
    permissions: FactState,
    email: FactState,
    claim: FactState,
    list: FactState,
}

fn world() -> impl Strategy<Value = World> {
    (known(), known(), known(), known(), known(), known()).prop_map(
        |(roles, groups, permissions, email, claim, list)| World {
            roles,
            groups,
            permissions,
            email,
            claim,
            list,
        },
    )
}

fn fact(known: FactState) -> Fact {
    match known {
        FactState::Fits => Fact::Known(vec!["x".to_owned(), "fits".to_owned()]),
        FactState::Other => Fact::Known(vec!["other".to_owned()]),
        FactState::Absent => Fact::Absent,
        FactState::Unknown => Fact::Unknown,
    }
}

impl World {
    fn facts(self) -> Facts {
        let email = |address: &str, verified| Some(Email { address: address.to_owned(), verified });
        let mut claims = Map::new();
        let mut unknown_claims = BTreeSet::new();
        let mut claim = |path: &str, known, fits: Value, other: Value| {
            match known {
                FactState::Fits => claims.insert(path.to_owned(), fits),
                FactState::Other => claims.insert(path.to_owned(), other),
                FactState::Absent => None,
                FactState::Unknown => {
                    unknown_claims.insert(path.to_owned());
                    None
                }
            };
        };
        claim("claim", self.claim, json!("fits"), json!("other"));
        claim("list", self.list, json!([1, true, 7]), json!([1, false]));
        Facts {
            subject: "person".to_owned(),
            groups: fact(self.groups),
            roles: fact(self.roles),
            permissions: fact(self.permissions),
            email: match self.email {
                FactState::Fits => email("p@fits.example", true),
                FactState::Other => email("p@other.example", true),
                FactState::Absent => None,
                FactState::Unknown => email("p@other.example", false),
            },
            email_unknown: false,
            claims,
            unknown_claims,
        }
    }

    /// Returns the same person, with the marked facts unknown.
    fn forgetting(self, what: [bool; 6]) -> Self {
        let forget = |known, forgotten| if forgotten { FactState::Unknown } else { known };
        Self {
            roles: forget(self.roles, what[0]),
            groups: forget(self.groups, what[1]),
            permissions: forget(self.permissions, what[2]),
            email: forget(self.email, what[3]),
            claim: forget(self.claim, what[4]),
            list: forget(self.list, what[5]),
        }
    }

    /// Returns for each kind of condition, in the order of [`conditions`], whether it is true. `None` if
    /// that is unknown.
    fn holds(self) -> [Option<bool>; 12] {
        let of = |known| match known {
            FactState::Fits => Some(true),
            FactState::Other | FactState::Absent => Some(false),
            FactState::Unknown => None,
        };
        [
            of(self.roles),
            of(self.groups),
            of(self.permissions),
            of(self.roles).map(|holds| !holds),
            of(self.groups).map(|holds| !holds),
            of(self.email),
            of(self.claim),
            of(self.list),
            Some(true),
            Some(false),
            Some(true),
            Some(false),
        ]
    }
}

/// Returns the conditions that `which` marks. Those about subject and client exist twice: once true, once
/// false.
fn conditions(which: [bool; 12]) -> Conditions {
    let names = |on: bool| on.then(|| vec![Wanted::parse("fits").unwrap()]);
    let one = |yes: bool, no: bool, right: &str| match (yes, no) {
        (_, true) => Some(vec!["somebody else".to_owned()]),
        (true, false) => Some(vec![right.to_owned()]),
        (false, false) => None,
    };
    let mut claims = BTreeMap::new();
    if which[6] {
        claims.insert("claim".to_owned(), vec!["x".to_owned(), "fits".to_owned()]);
    }
    if which[7] {
        claims.insert("list".to_owned(), vec!["7".to_owned()]);
    }
    // Destructured, so that a new kind of condition does not compile until it is tested here.
    let Conditions {
        roles: _,
        groups: _,
        permissions: _,
        not_roles: _,
        not_groups: _,
        subjects: _,
        email_domains: _,
        clients: _,
        claims: _,
    } = Conditions::default();
    Conditions {
        roles: names(which[0]),
        groups: names(which[1]),
        permissions: names(which[2]),
        not_roles: names(which[3]),
        not_groups: names(which[4]),
        email_domains: which[5].then(|| vec!["fits.example".to_owned()]),
        claims,
        subjects: one(which[8], which[9], "person"),
        clients: one(which[10], which[11], CLIENT),
    }
}

fn effect(world: World, which: [bool; 12]) -> (bool, bool) {
    let scope = ScopeSet::parse("a").unwrap();
    let rule = Rule {
        conditions: conditions(which),
        allow: scope.clone(),
        deny: scope.clone(),
        ..Rule::default()
    };
    let (allows, denies) = rule.effect(&world.facts(), CLIENT, &scope);
    (allows.is_some(), denies.is_some())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_rule_allows_when_all_is_known_to_hold_and_denies_unless_something_is_known_not_to(
        world in world(),
        which in prop::array::uniform12(any::<bool>()),
    ) {
        let holds = world.holds();
        let asked = || holds.iter().zip(which).filter(|(_, on)| *on).map(|(holds, _)| *holds);
        let allows = asked().all(|holds| holds == Some(true));
        let denies = asked().all(|holds| holds != Some(false));
        prop_assert_eq!(effect(world, which), (allows, denies));
    }

    #[test]
    fn forgetting_something_never_allows_more_and_never_denies_less(
        world in world(),
        which in prop::array::uniform12(any::<bool>()),
        forgotten in prop::array::uniform6(any::<bool>()),
    ) {
        // An absent value is known. Making it unknown must not allow anything.
        let (allows, denies) = effect(world, which);
        let (allows_less, denies_more) = effect(world.forgetting(forgotten), which);
        prop_assert!(allows || !allows_less);
        prop_assert!(denies_more || !denies);
    }
}

#[test]
fn each_kind_of_condition_alone_is_unknown_when_its_fact_is() {
    let nothing = World {
        roles: FactState::Unknown,
        groups: FactState::Unknown,
        permissions: FactState::Unknown,
        email: FactState::Unknown,
        claim: FactState::Unknown,
        list: FactState::Unknown,
    };
    for kind in 0..8 {
        let mut which = [false; 12];
        which[kind] = true;
        assert_eq!(effect(nothing, which), (false, true), "{:?}", conditions(which));
    }
}
