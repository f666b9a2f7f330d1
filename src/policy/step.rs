//! Single steps of a change after which a condition is true, or no longer true, and what they change.

use std::borrow::Cow;

use serde_json::Value;

use super::condition::{Applicant, Condition, Holds};
use super::{Conditions, Email, Fact, Facts, Policy, Wanted};
use crate::oauth::scope::ScopeSet;

/// A step of a change.
#[derive(Clone, Debug)]
pub enum ChangeStep<'a> {
    /// At the identity provider: give the person one of the values of the condition. A condition about clients
    /// is met by connecting with another client.
    Fulfil(Condition<'a>),
    /// At the identity provider: confirm the person's e-mail address.
    Confirm,
    /// At the identity provider: tell what the condition reads, which is unknown now.
    Tell {
        condition: Condition<'a>,
        /// Whether what is told then has to match it; otherwise it must not.
        matching: bool,
    },
    /// At the identity provider: take these values from the person.
    TakeAway {
        /// The condition that reads them.
        condition: Condition<'a>,
        values: Vec<String>,
    },
    /// At the identity provider: give the person permissions with the names of these scopes.
    Permission(ScopeSet),
    /// In the configuration: add one of these values of the person to the condition.
    Admit { rule: usize, condition: Condition<'a>, values: Vec<String> },
    /// In the configuration: take these values out of the condition.
    Exempt { rule: usize, condition: Condition<'a>, values: Vec<String> },
    /// In the configuration: change a rule that denies.
    ChangeDeny {
        rule: usize,
        /// The scopes that it denies.
        scopes: ScopeSet,
    },
    /// In the configuration: write a rule that allows the scopes.
    WriteRule,
}

/// Where a change is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Provider,
    Configuration,
    /// At the provider where that is possible, otherwise in the configuration.
    Any,
}

/// The steps after which a condition is true, by where they are made.
pub(super) struct Sides<'a> {
    provider: Option<ChangeStep<'a>>,
    configuration: Option<ChangeStep<'a>>,
}

impl<'a> Sides<'a> {
    pub(super) fn on(self, side: Side) -> Option<ChangeStep<'a>> {
        match side {
            Side::Provider => self.provider,
            Side::Configuration => self.configuration,
            Side::Any => self.provider.or(self.configuration),
        }
    }
}

/// Returns the steps after which a condition of the rule at this position is true.
pub(super) fn sides<'a>(
    rule: usize,
    condition: Condition<'a>,
    holds: Holds,
    applicant: Applicant<'_>,
) -> Sides<'a> {
    let Applicant { facts, client_id } = applicant;
    if holds == Holds::Unknown {
        let provider = match condition {
            Condition::EmailDomains(_) if is_unconfirmed(facts) => ChangeStep::Confirm,
            _ => ChangeStep::Tell { condition, matching: true },
        };
        return Sides { provider: Some(provider), configuration: None };
    }
    match condition {
        Condition::NotRoles(unwanted) => exempt(rule, condition, unwanted, &facts.roles),
        Condition::NotGroups(unwanted) => exempt(rule, condition, unwanted, &facts.groups),
        Condition::Subjects(_) => {
            Sides { provider: None, configuration: admit(rule, condition, applicant) }
        }
        _ => Sides {
            provider: (!condition.values().is_empty()).then_some(ChangeStep::Fulfil(condition)),
            configuration: admit(rule, condition, Applicant { facts, client_id }),
        },
    }
}

/// Returns the step after which a rule that denies no longer matches, because this condition of it is not true.
pub(super) fn untrue<'a>(
    condition: Condition<'a>,
    holds: Holds,
    facts: &Facts,
) -> Option<ChangeStep<'a>> {
    if holds == Holds::Unknown {
        return Some(match condition {
            Condition::EmailDomains(_) if is_unconfirmed(facts) => ChangeStep::Confirm,
            _ => ChangeStep::Tell { condition, matching: false },
        });
    }
    match condition {
        Condition::Roles(wanted) => take_away(condition, wanted, &facts.roles),
        Condition::Groups(wanted) => take_away(condition, wanted, &facts.groups),
        Condition::Permissions(wanted) => take_away(condition, wanted, &facts.permissions),
        // The rule is for people who lack all of these.
        Condition::NotRoles(names) => Some(ChangeStep::Fulfil(Condition::Roles(names))),
        Condition::NotGroups(names) => Some(ChangeStep::Fulfil(Condition::Groups(names))),
        Condition::Subjects(_)
        | Condition::EmailDomains(_)
        | Condition::Clients(_)
        | Condition::Claim(..) => None,
    }
}

/// Returns whether the person has an address that the provider has not verified.
fn is_unconfirmed(facts: &Facts) -> bool {
    !facts.email_unknown && facts.email.as_ref().is_some_and(|email| !email.verified)
}

fn exempt<'a>(
    rule: usize,
    condition: Condition<'a>,
    unwanted: &[Wanted],
    fact: &Fact,
) -> Sides<'a> {
    let Fact::Known(values) = fact else { return Sides { provider: None, configuration: None } };
    let entries = unwanted.iter().filter(|name| values.iter().any(|value| name.is(value)));
    let entries = entries.map(|name| name.as_str().to_owned()).collect();
    Sides {
        provider: take_away(condition, unwanted, fact),
        configuration: Some(ChangeStep::Exempt { rule, condition, values: entries }),
    }
}

fn take_away<'a>(
    condition: Condition<'a>,
    names: &[Wanted],
    fact: &Fact,
) -> Option<ChangeStep<'a>> {
    let Fact::Known(values) = fact else { return None };
    let matches = |value: &&String| names.iter().any(|name| name.is(value));
    let values = values.iter().filter(matches).cloned().collect();
    Some(ChangeStep::TakeAway { condition, values })
}

fn admit<'a>(
    rule: usize,
    condition: Condition<'a>,
    applicant: Applicant<'_>,
) -> Option<ChangeStep<'a>> {
    let Applicant { facts, client_id } = applicant;
    let mut values = condition.read(facts, client_id)?;
    if matches!(condition, Condition::EmailDomains(_)) {
        let domain = |address: &String| Some(address.rsplit_once('@')?.1.to_owned());
        values = values.iter().filter_map(domain).collect();
    }
    // A name that reads like a pattern would match other names too.
    values.retain(|value| !value.is_empty() && !Wanted::is_pattern(value));
    (!values.is_empty()).then_some(ChangeStep::Admit { rule, condition, values })
}

/// Makes the change of a step.
pub(super) fn apply(
    step: &ChangeStep<'_>,
    policy: &mut Cow<'_, Policy>,
    facts: &mut Facts,
    client_id: &mut String,
) {
    match step {
        ChangeStep::Fulfil(condition) | ChangeStep::Tell { condition, matching: true } => {
            fulfil(*condition, facts, client_id);
        }
        ChangeStep::Tell { condition, matching: false } => tell_nothing(*condition, facts),
        ChangeStep::Confirm => {
            if let Some(email) = &mut facts.email {
                email.verified = true;
            }
        }
        ChangeStep::TakeAway { condition, values } => {
            if let Some(Fact::Known(has)) = list_of(*condition, facts) {
                has.retain(|value| !values.contains(value));
            }
        }
        ChangeStep::Permission(scopes) => {
            for scope in scopes.iter() {
                add(&mut facts.permissions, scope.as_str());
            }
        }
        ChangeStep::Admit { rule, condition, values } => {
            if let (Some(rule), [value, ..]) =
                (policy.to_mut().rules.get_mut(*rule), values.as_slice())
            {
                widen(&mut rule.conditions, *condition, value);
            }
        }
        ChangeStep::Exempt { rule, condition, values } => {
            let Some(rule) = policy.to_mut().rules.get_mut(*rule) else { return };
            let unwanted = match condition {
                Condition::NotRoles(_) => &mut rule.conditions.not_roles,
                _ => &mut rule.conditions.not_groups,
            };
            if let Some(unwanted) = unwanted {
                unwanted.retain(|name| !values.iter().any(|value| value == name.as_str()));
            }
        }
        ChangeStep::ChangeDeny { rule, .. } => {
            if let Some(rule) = policy.to_mut().rules.get_mut(*rule) {
                rule.deny = ScopeSet::default();
            }
        }
        ChangeStep::WriteRule => {}
    }
}

/// Returns the list that a condition reads.
fn list_of<'f>(condition: Condition<'_>, facts: &'f mut Facts) -> Option<&'f mut Fact> {
    match condition {
        Condition::Roles(_) | Condition::NotRoles(_) => Some(&mut facts.roles),
        Condition::Groups(_) | Condition::NotGroups(_) => Some(&mut facts.groups),
        Condition::Permissions(_) => Some(&mut facts.permissions),
        Condition::Subjects(_)
        | Condition::EmailDomains(_)
        | Condition::Clients(_)
        | Condition::Claim(..) => None,
    }
}

fn add(fact: &mut Fact, value: &str) {
    match fact {
        Fact::Known(values) => values.push(value.to_owned()),
        Fact::Absent | Fact::Unknown => *fact = Fact::Known(vec![value.to_owned()]),
    }
}

/// Changes the facts so that the condition is true.
fn fulfil(condition: Condition<'_>, facts: &mut Facts, client_id: &mut String) {
    match condition {
        Condition::Roles(names) | Condition::Groups(names) | Condition::Permissions(names) => {
            let example = names.iter().find_map(Wanted::example);
            if let (Some(list), Some(example)) = (list_of(condition, facts), example) {
                add(list, &example);
            }
        }
        // It is unknown, and told to be empty.
        Condition::NotRoles(_) | Condition::NotGroups(_) => tell_nothing(condition, facts),
        Condition::EmailDomains(domains) => {
            let address = domains.first().map(|domain| format!("person@{domain}"));
            facts.email = address.map(|address| Email { address, verified: true });
            facts.email_unknown = false;
        }
        Condition::Clients(clients) => {
            *client_id = clients.first().cloned().unwrap_or_default();
        }
        Condition::Claim(path, values) => {
            facts.unknown_claims.remove(path);
            if let Some(value) = values.first() {
                facts.claims.insert(path.to_owned(), Value::String(value.clone()));
            }
        }
        Condition::Subjects(_) => {}
    }
}

/// Changes the facts so that what the condition reads is known to be nothing.
fn tell_nothing(condition: Condition<'_>, facts: &mut Facts) {
    if let Some(list) = list_of(condition, facts) {
        *list = Fact::Known(Vec::new());
        return;
    }
    match condition {
        Condition::EmailDomains(_) => {
            facts.email = None;
            facts.email_unknown = false;
        }
        Condition::Claim(path, _) => {
            facts.unknown_claims.remove(path);
            facts.claims.remove(path);
        }
        _ => {}
    }
}

/// Adds a value to a condition of a rule.
fn widen(conditions: &mut Conditions, condition: Condition<'_>, value: &str) {
    let name = |names: &mut Option<Vec<Wanted>>| {
        if let (Some(names), Ok(name)) = (names, Wanted::parse(value)) {
            names.push(name);
        }
    };
    let text = |values: Option<&mut Vec<String>>| {
        if let Some(values) = values {
            values.push(value.to_owned());
        }
    };
    match condition {
        Condition::Roles(_) => name(&mut conditions.roles),
        Condition::Groups(_) => name(&mut conditions.groups),
        Condition::Permissions(_) => name(&mut conditions.permissions),
        Condition::Subjects(_) => text(conditions.subjects.as_mut()),
        Condition::EmailDomains(_) => text(conditions.email_domains.as_mut()),
        Condition::Clients(_) => text(conditions.clients.as_mut()),
        Condition::Claim(path, _) => text(conditions.claims.get_mut(path)),
        // People are let in past these by an exemption.
        Condition::NotRoles(_) | Condition::NotGroups(_) => {}
    }
}
