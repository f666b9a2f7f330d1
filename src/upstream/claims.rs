//! Builds a person from claims. Pure: no input or output.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::config::{ClaimPlan, ClaimSource};
use crate::policy::{ClaimPath, Email, Fact, FactSet, Facts, read_fact};
use crate::storage::Person;

/// Longest name or email address that we store, in bytes. A longer name is left out, and a longer address
/// counts as unknown.
const MAX_TEXT: usize = 256;

/// Result of the userinfo request.
#[derive(Clone, Debug, PartialEq)]
pub enum Userinfo {
    /// Not requested: it was not needed, or the provider has no userinfo endpoint.
    NotAsked,
    /// The claims, with the expected `sub`.
    Claims(Value),
    /// The request failed. Claims that only userinfo can supply are unknown.
    Failed,
    /// The endpoint responded without claims about the person. Claims that only userinfo can supply are
    /// unknown, but this is no outage.
    TellsNothing,
}

impl Userinfo {
    /// Returns whether userinfo was requested and supplied nothing.
    pub fn is_silent(&self) -> bool {
        matches!(self, Self::Failed | Self::TellsNothing)
    }
}

/// Returns whether the ID token lacks a claim of the plan that userinfo may supply.
pub fn needs_userinfo(plan: &ClaimPlan, id_token: &Value) -> bool {
    let reads_id_token = plan.sources.contains(&ClaimSource::IdToken);
    let has_no_flag = || plan.read_by_rules.email && flag_of(plan, id_token).is_none();
    plan.sources.contains(&ClaimSource::Userinfo)
        && ([&plan.name, &plan.email, &plan.groups, &plan.roles]
            .into_iter()
            .chain(plan.read_by_rules.permissions.then_some(&plan.permissions))
            .chain(&plan.extra)
            .any(|path| !reads_id_token || path.find(id_token).is_none())
            || has_no_flag())
}

/// Returns the facts that [`with_facts_of`] takes from `before`: those that are unknown now and were known
/// then. "The person has none" also counts as known.
pub fn reused_facts(person: &Person, before: &Person) -> FactSet {
    let (new, old) = (&person.facts, &before.facts);
    let taken = |new: &Fact, old: &Fact| *new == Fact::Unknown && *old != Fact::Unknown;
    FactSet {
        groups: taken(&new.groups, &old.groups),
        roles: taken(&new.roles, &old.roles),
        permissions: taken(&new.permissions, &old.permissions),
        email: new.email_unknown && !old.email_unknown,
        claims: !new.unknown_claims.is_subset(&old.unknown_claims),
    }
}

/// Returns the person, with facts of `before` in place of those that are unknown now.
pub fn with_facts_of(mut person: Person, before: &Person) -> Person {
    let old = &before.facts;
    let now = &mut person.facts;
    for (fact, old) in [
        (&mut now.groups, &old.groups),
        (&mut now.roles, &old.roles),
        (&mut now.permissions, &old.permissions),
    ] {
        if *fact == Fact::Unknown {
            fact.clone_from(old);
        }
    }
    if now.email_unknown {
        now.email.clone_from(&old.email);
        now.email_unknown = old.email_unknown;
        person.email.clone_from(&before.email);
    }
    for path in std::mem::take(&mut now.unknown_claims) {
        match old.claims.get(&path) {
            Some(value) => {
                now.claims.insert(path, value.clone());
            }
            None if old.unknown_claims.contains(&path) => {
                now.unknown_claims.insert(path);
            }
            None => {} // the person had none
        }
    }
    person.name = person.name.or_else(|| before.name.clone());
    person
}

/// The value of one claim across all sources.
enum CombinedClaim<'a> {
    /// A source supplies this value.
    Value(&'a Value),
    /// All sources responded, and the person does not have this claim.
    Absent,
    /// A source supplies only a part of the value, or a source did not respond.
    Unknown,
}

/// The sources of a person's claims. The first one that has a claim wins.
struct ClaimSources<'a> {
    plan: &'a ClaimPlan,
    in_order: Vec<&'a Value>,
    id_token: &'a Value,
    /// Userinfo was requested and supplied nothing.
    userinfo_is_silent: bool,
}

impl<'a> ClaimSources<'a> {
    fn of(
        plan: &'a ClaimPlan,
        id_token: &'a Value,
        access_token: Option<&'a Value>,
        userinfo: &'a Userinfo,
    ) -> Self {
        let in_order = plan
            .sources
            .iter()
            .filter_map(|source| match (source, userinfo) {
                (ClaimSource::IdToken, _) => Some(id_token),
                (ClaimSource::AccessToken, _) => access_token,
                (ClaimSource::Userinfo, Userinfo::Claims(claims)) => Some(claims),
                (ClaimSource::Userinfo, _) => None,
            })
            .collect();
        Self { plan, in_order, id_token, userinfo_is_silent: userinfo.is_silent() }
    }

    /// Returns the value of one claim across all sources.
    fn find(&self, path: &ClaimPath) -> CombinedClaim<'a> {
        let mut sources = self.in_order.iter();
        let found = sources.find_map(|claims| Some((path.find(claims)?, *claims)));
        match found {
            Some((_, claims)) if is_cut_short(claims, path) => CombinedClaim::Unknown,
            Some((value, _)) => CombinedClaim::Value(value),
            // A source that could supply the claim did not respond, so the claim is unknown, not absent.
            None if self.userinfo_is_silent => CombinedClaim::Unknown,
            None if is_cut_short(self.id_token, path) => CombinedClaim::Unknown,
            None if self.in_order.iter().any(|claims| is_cut_short(claims, path)) => {
                CombinedClaim::Unknown
            }
            None => CombinedClaim::Absent,
        }
    }

    fn fact(&self, path: &ClaimPath) -> Fact {
        match self.find(path) {
            CombinedClaim::Value(value) => read_fact(Some(value), self.plan.shape),
            CombinedClaim::Absent => Fact::Absent,
            CombinedClaim::Unknown => Fact::Unknown,
        }
    }

    fn name(&self) -> Option<String> {
        match self.find(&self.plan.name) {
            CombinedClaim::Value(Value::String(name)) => kept_text(name).map(str::to_owned),
            _ => None,
        }
    }

    /// Returns the email address, and whether it is unknown.
    fn email(&self) -> (Option<Email>, bool) {
        let (address, is_unknown) = match self.find(&self.plan.email) {
            CombinedClaim::Absent | CombinedClaim::Value(Value::Null) => (None, false),
            CombinedClaim::Value(Value::String(text)) if text.trim().is_empty() => (None, false),
            CombinedClaim::Value(Value::String(text)) => {
                (kept_text(text), kept_text(text).is_none())
            }
            CombinedClaim::Value(_) | CombinedClaim::Unknown => (None, true),
        };
        let email = address.map(|address| Email {
            address: address.to_owned(),
            verified: self.vouch_for(address),
        });
        (email, is_unknown)
    }

    /// Returns whether the address is verified. Takes `email_verified` from the first source that has it,
    /// among the sources with exactly this address.
    fn vouch_for(&self, address: &str) -> bool {
        let mut vouching = self.in_order.iter().filter(|claims| {
            self.plan.email.find(claims).and_then(Value::as_str).map(str::trim) == Some(address)
        });
        vouching.find_map(|claims| flag_of(self.plan, claims)) == Some(true)
    }

    /// Returns the other claims that rules may read, and the paths of those that are unknown.
    fn extra(&self) -> (Map<String, Value>, BTreeSet<String>) {
        let (mut claims, mut unknown) = (Map::new(), BTreeSet::new());
        for path in &self.plan.extra {
            match self.find(path) {
                CombinedClaim::Value(value) => {
                    claims.insert(path.as_str().to_owned(), value.clone());
                }
                CombinedClaim::Absent => {}
                CombinedClaim::Unknown => {
                    unknown.insert(path.as_str().to_owned());
                }
            }
        }
        (claims, unknown)
    }
}

/// Builds a person from the sources. The first source that has a claim wins.
pub fn read(
    plan: &ClaimPlan,
    subject: &str,
    id_token: &Value,
    access_token: Option<&Value>,
    userinfo: &Userinfo,
) -> Person {
    let sources = ClaimSources::of(plan, id_token, access_token, userinfo);
    let (email, email_unknown) = sources.email();
    let (claims, unknown_claims) = sources.extra();
    Person {
        name: sources.name(),
        email: email.as_ref().map(|email| email.address.clone()),
        facts: Facts {
            subject: subject.to_owned(),
            groups: sources.fact(&plan.groups),
            roles: sources.fact(&plan.roles),
            permissions: sources.fact(&plan.permissions),
            email,
            email_unknown,
            claims,
            unknown_claims,
        },
    }
}

/// Returns the trimmed text if it is not empty and not longer than `MAX_TEXT`.
fn kept_text(text: &str) -> Option<&str> {
    let text = text.trim();
    (!text.is_empty() && text.len() <= MAX_TEXT).then_some(text)
}

/// Returns whether `claims` mark their email address as verified; `None` if they do not say. `email_verified`
/// concerns only the claim `email` in the same object (OpenID Connect Core §5.1). Only the JSON value `true`
/// counts as verified.
fn flag_of(plan: &ClaimPlan, claims: &Value) -> Option<bool> {
    let flag = claims.get("email_verified").filter(|flag| !flag.is_null())?;
    plan.email.is_the_standards_email().then(|| *flag == Value::Bool(true))
}

/// Builds a person after a refresh without a new ID token. Current sources win; the last ID token supplies
/// only claims that no current source has.
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

/// Returns whether a claim that rules may read is in the last ID token and in no current source.
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

/// Returns whether `claims` mark this claim as incomplete: an aggregated or distributed claim (OpenID Connect
/// Core §5.6.2). Entra marks group overage in the same way, and so does our GitHub reader.
fn is_cut_short(claims: &Value, path: &ClaimPath) -> bool {
    let name = path.top_level_name();
    let says_so = |flag: &Value| *flag == Value::Bool(true) || flag == "true";
    is_incomplete(claims, &name)
        || (name == "groups" && claims.get("hasgroups").is_some_and(says_so))
}

/// Returns whether `claims` refer to another source for the claim `name`.
pub(super) fn is_incomplete(claims: &Value, name: &str) -> bool {
    claims.get("_claim_names").and_then(|names| names.get(name)).is_some()
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
            read_by_rules: FactSet { roles: true, ..FactSet::default() },
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
    fn claims_and_addresses_are_unknown_as_groups_and_roles_are() {
        let unknown = |id_token: &Value, userinfo: &Userinfo| {
            let facts = read(&plan(), "s", id_token, None, userinfo).facts;
            (facts.groups == Fact::Unknown, facts.email_unknown, facts.unknown_claims.len() == 1)
        };
        for silent in [Userinfo::Failed, Userinfo::TellsNothing] {
            assert_eq!(unknown(&json!({}), &silent), (true, true, true));
            let told = json!({ "email": "a@b.example", "org_id": "o", "groups": [] });
            assert_eq!(unknown(&told, &silent), (false, false, false));
        }
        assert_eq!(unknown(&json!({}), &Userinfo::NotAsked), (false, false, false));
        // A claim that is cut short is unknown, although a part of it is present.
        let cut = json!({
            "groups": ["a"], "email": "a@b.example", "org_id": ["o"],
            "_claim_names": { "groups": "s", "email": "s", "org_id": "s" },
        });
        assert_eq!(unknown(&cut, &Userinfo::NotAsked), (true, true, true));
        let told = Userinfo::Claims(json!({ "org_id": "o" }));
        let names = json!({ "_claim_names": { "groups": "s", "email": "s", "org_id": "s" } });
        assert_eq!(unknown(&names, &told), (true, true, false), "another source has it whole");
        for flag in [json!(true), json!("true")] {
            let person =
                read(&plan(), "s", &json!({ "hasgroups": flag }), None, &Userinfo::NotAsked);
            assert_eq!(person.facts.groups, Fact::Unknown);
        }
    }

    #[test]
    fn what_was_known_stays_where_nothing_can_be_known_now() {
        let before = json!({ "groups": ["g"], "email": "a@b.example", "email_verified": true });
        let before = read(&plan(), "s", &before, None, &Userinfo::NotAsked);
        let now = read(&plan(), "s", &json!({ "name": "B" }), None, &Userinfo::Failed);
        assert!(now.facts.any_unknown());

        let person = with_facts_of(now, &before);

        assert_eq!(person.facts, Facts { subject: "s".to_owned(), ..before.facts });
        let never = read(&plan(), "s", &json!({}), None, &Userinfo::Failed);
        let again = read(&plan(), "s", &json!({}), None, &Userinfo::Failed);
        assert_eq!(with_facts_of(again, &never), never, "not known before either");
    }

    #[test]
    fn up_02_no_flag_vouches_for_an_address_of_another_claim() {
        for (path, verified) in [
            ("email", true),
            ("/email", true),
            ("upn", false),
            ("/profile/email", false),
            ("emails", false),
        ] {
            let plan = ClaimPlan { email: ClaimPath::new(path), ..plan() };
            let id_token = json!({
                "email": "a@b.example", "upn": "a@b.example", "emails": "a@b.example",
                "profile": { "email": "a@b.example", "email_verified": true },
                "email_verified": true,
            });
            let person = read(&plan, "s", &id_token, None, &Userinfo::NotAsked);
            assert_eq!(person.facts.email.unwrap().verified, verified, "{path}");
        }
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
        // An address without `email_verified`, and a rule that reads it.
        let read_by_rules = FactSet { email: true, ..FactSet::default() };
        let plan = ClaimPlan { read_by_rules, ..plan() };
        assert!(needs_userinfo(&plan, &complete));
        let mut complete = complete;
        complete["email_verified"] = false.into();
        assert!(!needs_userinfo(&plan, &complete));
    }
}
