//! One condition of a rule, and whether it is true for a person.

use serde_json::Value;

use super::{Fact, Facts, Wanted};

/// 2^53: below this, floating-point numbers represent every integer exactly.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// Three-valued result of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Yes,
    No,
    /// The fact that it reads is unknown.
    Unknown,
}

impl Holds {
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Unknown,
        }
    }

    fn not(self) -> Self {
        match self {
            Self::Yes => Self::No,
            Self::No => Self::Yes,
            Self::Unknown => Self::Unknown,
        }
    }
}

impl From<bool> for Holds {
    fn from(holds: bool) -> Self {
        if holds { Self::Yes } else { Self::No }
    }
}

/// A person who uses a client.
#[derive(Clone, Copy)]
pub(super) struct Applicant<'a> {
    pub(super) facts: &'a Facts,
    pub(super) client_id: &'a str,
}

/// One condition of a rule. Within its list one match is enough.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Condition<'a> {
    /// Has one of these roles.
    Roles(&'a [Wanted]),
    /// Is in one of these groups.
    Groups(&'a [Wanted]),
    /// Has one of these permissions.
    Permissions(&'a [Wanted]),
    /// Has none of these roles.
    NotRoles(&'a [Wanted]),
    /// Is in none of these groups.
    NotGroups(&'a [Wanted]),
    /// Has one of these subjects at the identity provider.
    Subjects(&'a [String]),
    /// Has a verified e-mail address in one of these domains.
    EmailDomains(&'a [String]),
    /// Uses one of these clients.
    Clients(&'a [String]),
    /// The claim at this path has one of these values.
    Claim(&'a str, &'a [String]),
}

impl<'a> Condition<'a> {
    /// Returns the key of the rule that sets this condition.
    pub fn key(self) -> &'static str {
        match self {
            Self::Roles(_) => "roles",
            Self::Groups(_) => "groups",
            Self::Permissions(_) => "permissions",
            Self::NotRoles(_) => "not_roles",
            Self::NotGroups(_) => "not_groups",
            Self::Subjects(_) => "subjects",
            Self::EmailDomains(_) => "email_domains",
            Self::Clients(_) => "clients",
            Self::Claim(..) => "claim",
        }
    }

    /// Returns the values that it names, as configured.
    pub fn values(self) -> Vec<&'a str> {
        match self {
            Self::Roles(names)
            | Self::Groups(names)
            | Self::Permissions(names)
            | Self::NotRoles(names)
            | Self::NotGroups(names) => names.iter().map(Wanted::as_str).collect(),
            Self::Subjects(values)
            | Self::EmailDomains(values)
            | Self::Clients(values)
            | Self::Claim(_, values) => values.iter().map(String::as_str).collect(),
        }
    }

    /// Returns whether it is true for this person with this client.
    pub fn holds(self, facts: &Facts, client_id: &str) -> Holds {
        match self {
            Self::Roles(wanted) => any_of(wanted, &facts.roles),
            Self::Groups(wanted) => any_of(wanted, &facts.groups),
            Self::Permissions(wanted) => any_of(wanted, &facts.permissions),
            Self::NotRoles(unwanted) => any_of(unwanted, &facts.roles).not(),
            Self::NotGroups(unwanted) => any_of(unwanted, &facts.groups).not(),
            Self::Subjects(subjects) => subjects.contains(&facts.subject).into(),
            Self::EmailDomains(domains) => in_domain(domains, facts),
            Self::Clients(clients) => clients.iter().any(|client| client == client_id).into(),
            Self::Claim(path, _) if facts.unknown_claims.contains(path) => Holds::Unknown,
            Self::Claim(path, values) => claim_is(facts.claims.get(path), values),
        }
    }

    /// Returns the values of this person that the condition reads. `None` if they are unknown.
    pub fn read(self, facts: &Facts, client_id: &str) -> Option<Vec<String>> {
        let list = |fact: &Fact| match fact {
            Fact::Known(values) => Some(values.clone()),
            Fact::Absent => Some(Vec::new()),
            Fact::Unknown => None,
        };
        match self {
            Self::Roles(_) | Self::NotRoles(_) => list(&facts.roles),
            Self::Groups(_) | Self::NotGroups(_) => list(&facts.groups),
            Self::Permissions(_) => list(&facts.permissions),
            Self::Subjects(_) => Some(vec![facts.subject.clone()]),
            Self::EmailDomains(_) if facts.email_unknown => None,
            Self::EmailDomains(_) => {
                Some(facts.email.iter().map(|email| email.address.clone()).collect())
            }
            Self::Clients(_) if client_id.is_empty() => Some(Vec::new()),
            Self::Clients(_) => Some(vec![client_id.to_owned()]),
            Self::Claim(path, _) if facts.unknown_claims.contains(path) => None,
            Self::Claim(path, _) => Some(match facts.claims.get(path) {
                None | Some(Value::Null) => Vec::new(),
                Some(Value::Array(items)) => items.iter().map(plain).collect(),
                Some(value) => vec![plain(value)],
            }),
        }
    }
}

/// Returns a claim as a rule would write it.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn any_of(wanted: &[Wanted], fact: &Fact) -> Holds {
    match fact {
        Fact::Known(values) => {
            wanted.iter().any(|wanted| values.iter().any(|value| wanted.is(value))).into()
        }
        Fact::Absent => Holds::No,
        Fact::Unknown => Holds::Unknown,
    }
}

fn in_domain(domains: &[String], facts: &Facts) -> Holds {
    let Some(email) = facts.email.as_ref().filter(|email| email.verified) else {
        // An unverified address may belong to another person.
        return if facts.email_unknown || facts.email.is_some() {
            Holds::Unknown
        } else {
            Holds::No
        };
    };
    let domain = email.address.rsplit_once('@').map_or("", |(_, domain)| domain);
    if domains.iter().any(|known| known.eq_ignore_ascii_case(domain)) {
        return Holds::Yes;
    }
    // A domain can be written in several ways: with a trailing dot, or with non-ASCII letters. Such a domain
    // may still be one of the list, so the result is unknown.
    let plain = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if domain.split('.').all(plain) { Holds::No } else { Holds::Unknown }
}

fn claim_is(claim: Option<&Value>, values: &[String]) -> Holds {
    match claim {
        None | Some(Value::Null) => Holds::No,
        // One matching item of the array is enough. Each is compared like a single value.
        Some(Value::Array(items)) => {
            items.iter().map(|item| is_one_of(item, values)).fold(Holds::No, |any, item| {
                match (any, item) {
                    (Holds::Yes, _) | (_, Holds::Yes) => Holds::Yes,
                    (Holds::No, Holds::No) => Holds::No,
                    _ => Holds::Unknown,
                }
            })
        }
        Some(claim) => is_one_of(claim, values),
    }
}

fn is_one_of(value: &Value, values: &[String]) -> Holds {
    let is_one = |text: &str| values.iter().any(|value| value == text);
    match value {
        Value::String(text) => is_one(text).into(),
        Value::Bool(flag) => is_one(if *flag { "true" } else { "false" }).into(),
        Value::Number(number) if is_one(&number.to_string()) => Holds::Yes,
        Value::Number(number) if number.is_f64() => match number.as_f64() {
            // `3.0` and `3e0` are the number 3.
            Some(whole) if whole.fract() == 0.0 && whole.abs() < EXACT => {
                is_one(&format!("{whole:.0}")).into()
            }
            Some(exact) if exact.abs() < EXACT => Holds::No,
            _ => Holds::Unknown,
        },
        Value::Number(_) => Holds::No,
        Value::Null | Value::Array(_) | Value::Object(_) => Holds::Unknown,
    }
}
