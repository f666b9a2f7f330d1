//! Why the rules refuse somebody and what would let them in, as sentences: for the page of a refused person, for
//! the form on the page of MCP servers, and for `portcullis explain`.

mod words;

use super::configured::ConfiguredServer;
use crate::oauth::scope::ScopeSet;
use crate::policy::{
    Cause, ChangeStep, Condition, Diagnosis, Fact, Facts, Holds, RuleFinding, Way,
};
use crate::web::words::Language;

pub(crate) use words::{AdviceWords, ConditionWords};

/// Longest value in a sentence, in characters: 80.
const LONGEST: usize = 80;
/// Most values in a sentence: 5.
const VALUES: usize = 5;

/// A diagnosis in words.
pub(crate) struct Advice<'a> {
    pub(crate) server: ConfiguredServer<'a>,
    pub(crate) diagnosis: Diagnosis<'a>,
    facts: &'a Facts,
    client_id: &'a str,
    language: Language,
    w: &'static AdviceWords,
    c: &'static ConditionWords,
}

/// A rule, compared with a person.
pub(crate) struct RuleReport {
    /// Its name, or `rule 2`.
    pub(crate) name: String,
    /// File and line.
    pub(crate) place: Option<String>,
    pub(crate) is_nearest: bool,
    /// Whether all its conditions are true.
    pub(crate) holds: Holds,
    /// The lacking scopes that it would allow.
    pub(crate) allows: ScopeSet,
    /// The lacking scopes that it denies.
    pub(crate) denies: ScopeSet,
    pub(crate) conditions: Vec<ConditionReport>,
}

/// A condition, compared with a person.
pub(crate) struct ConditionReport {
    /// Such as `has one of the roles`.
    pub(crate) text: String,
    /// The key in the configuration.
    pub(crate) key: &'static str,
    /// The values that it names.
    pub(crate) wanted: String,
    pub(crate) holds: Holds,
    /// What the provider sent.
    pub(crate) arrived: String,
}

impl<'a> Advice<'a> {
    /// Explains why this person does not get all of `asked` with this client. `None` if they do.
    pub(crate) fn of(
        server: ConfiguredServer<'a>,
        facts: &'a Facts,
        client_id: &'a str,
        asked: &ScopeSet,
        language: Language,
    ) -> Option<Self> {
        let diagnosis = server.resource.policy.diagnose(facts, client_id, asked)?;
        let (w, c) = (AdviceWords::of(language), ConditionWords::of(language));
        Some(Self { server, diagnosis, facts, client_id, language, w, c })
    }

    /// Returns why the person lacks the scopes, in a sentence.
    pub(crate) fn why(&self) -> String {
        let w = self.w;
        let lacks = self.diagnosis.lacks.to_string();
        match self.diagnosis.cause {
            Cause::NoRuleMatches => fill(w.no_rule_matches, &[&self.all_that_arrived()]),
            Cause::NotAllowed => fill(w.not_allowed, &[&lacks]),
            Cause::Denied => {
                let denying = self.diagnosis.nearest.and_then(|at| self.diagnosis.rules.get(at));
                let denies = denying.map_or(lacks, |one| one.denies.to_string());
                let rule = denying.map(|one| self.rule(one.position)).unwrap_or_default();
                let text = fill(w.denied, &[&rule, &denies]);
                // A name is written as configured.
                let named = denying.is_some_and(|one| one.rule.name.is_some());
                if named { text } else { self.begun(&text) }
            }
        }
    }

    /// Returns what would let the person in, in a sentence.
    pub(crate) fn sentence(&self) -> String {
        let ways = self.diagnosis.ways(self.facts, self.client_id);
        let ways: Vec<String> = ways.iter().map(|way| self.steps(way)).collect();
        format!("{}{}", self.begun(&ways.join(self.w.or)), self.w.full_stop)
    }

    /// Returns each change that would let the person in, with the scopes that it would give.
    pub(crate) fn ways(&self) -> Vec<(String, String)> {
        let told = |way: &Way<'_>| {
            let text = format!("{}{}", self.begun(&self.steps(way)), self.w.full_stop);
            (text, way.gives.to_string())
        };
        self.diagnosis.ways(self.facts, self.client_id).iter().map(told).collect()
    }

    /// Begins a sentence. In English it begins with one of our words, in Japanese often with a name.
    fn begun(&self, text: &str) -> String {
        if self.language == Language::Japanese { text.to_owned() } else { capitalized(text) }
    }

    /// Returns every rule, in the order of the configuration.
    pub(crate) fn rules(&self) -> Vec<RuleReport> {
        self.diagnosis.rules.iter().map(|finding| self.report(finding)).collect()
    }

    /// Returns the name and place of the nearest rule.
    pub(crate) fn nearest(&self) -> Option<String> {
        self.diagnosis.nearest.map(|position| self.rule(position))
    }

    fn report(&self, finding: &RuleFinding<'_>) -> RuleReport {
        let mut conditions: Vec<ConditionReport> = finding
            .conditions
            .iter()
            .map(|(condition, holds)| ConditionReport {
                text: condition_text(self.c, *condition),
                key: condition.key(),
                wanted: condition.values().join(", "),
                holds: *holds,
                arrived: self.arrived(*condition, false),
            })
            .collect();
        if finding.rule.passthrough {
            let lacks = finding.lacks_permission;
            conditions.push(ConditionReport {
                text: self.c.permission_named.to_owned(),
                key: "passthrough",
                wanted: String::new(),
                holds: if lacks { Holds::No } else { Holds::Yes },
                arrived: self.list(&self.facts.permissions),
            });
        }
        RuleReport {
            name: finding.name(),
            place: self.server.place_of_rule(finding.position),
            is_nearest: self.diagnosis.nearest == Some(finding.position),
            holds: finding.holds(),
            allows: finding.allows.clone(),
            denies: finding.denies.clone(),
            conditions,
        }
    }

    /// Returns what the provider sent for a condition; of many values only the first, if `short`.
    fn arrived(&self, condition: Condition<'_>, short: bool) -> String {
        match condition.read(self.facts, self.client_id) {
            None => self.w.unknown.to_owned(),
            Some(values) if values.is_empty() => self.w.none.to_owned(),
            Some(values) => match (condition, &self.facts.email) {
                (Condition::EmailDomains(_), Some(email)) if !email.verified => {
                    fill(self.w.unverified, &[&clean(&email.address)])
                }
                _ if short => self.joined(&values, ", "),
                _ => all(&values),
            },
        }
    }

    fn list(&self, fact: &Fact) -> String {
        match fact {
            Fact::Known(values) if !values.is_empty() => all(values),
            Fact::Known(_) | Fact::Absent => self.w.none.to_owned(),
            Fact::Unknown => self.w.unknown.to_owned(),
        }
    }

    /// Returns what the provider sent, as far as a rule of this MCP server reads it.
    fn all_that_arrived(&self) -> String {
        let w = self.w;
        let mut told: Vec<String> = Vec::new();
        let conditions = self.diagnosis.rules.iter().flat_map(|rule| &rule.conditions);
        for (condition, _) in conditions {
            let text = fill(w.arrived, &[&self.kind(*condition), &self.arrived(*condition, true)]);
            if !told.contains(&text) {
                told.push(text);
            }
        }
        if told.is_empty() { w.nothing_sent.to_owned() } else { told.join("; ") }
    }

    /// Returns what a condition reads, such as `roles`.
    fn kind(&self, condition: Condition<'_>) -> String {
        let w = self.w;
        match condition {
            Condition::Roles(_) | Condition::NotRoles(_) => w.roles.to_owned(),
            Condition::Groups(_) | Condition::NotGroups(_) => w.groups.to_owned(),
            Condition::Permissions(_) => w.permissions.to_owned(),
            Condition::Subjects(_) => w.subject.to_owned(),
            Condition::EmailDomains(_) => w.email.to_owned(),
            Condition::Clients(_) => w.client.to_owned(),
            Condition::Claim(path, _) => fill(w.claim, &[path]),
        }
    }

    /// Names a rule, with its place: `rule 2 (portcullis.toml:41)`.
    fn rule(&self, position: usize) -> String {
        let finding = self.diagnosis.rules.get(position);
        let name = finding.map(RuleFinding::name).unwrap_or_default();
        match self.server.place_of_rule(position) {
            Some(place) => format!("{name} ({place})"),
            None => name,
        }
    }

    fn steps(&self, way: &Way<'_>) -> String {
        let steps: Vec<String> = way.steps.iter().map(|step| self.step(step, &way.gives)).collect();
        steps.join(self.w.and)
    }

    fn step(&self, step: &ChangeStep<'_>, gives: &ScopeSet) -> String {
        let (w, provider) = (self.w, self.server.provider);
        match step {
            ChangeStep::Fulfil(condition) => self.give(*condition),
            ChangeStep::Confirm => fill(w.confirm, &["", provider]),
            ChangeStep::Tell { condition, .. } => fill(w.tell, &[&self.kind(*condition), provider]),
            ChangeStep::TakeAway { condition, values } => {
                let text = match condition {
                    Condition::Groups(_) | Condition::NotGroups(_) => w.take_group,
                    Condition::Permissions(_) => w.take_permission,
                    _ => w.take_role,
                };
                fill(text, &[&self.joined(values, w.and), provider])
            }
            ChangeStep::Permission(scopes) => {
                let names: Vec<String> = scopes.iter().map(ToString::to_string).collect();
                fill(w.permission_named, &[&self.joined(&names, w.or), provider])
            }
            ChangeStep::Admit { rule, condition, values } => {
                self.admit(*condition, &self.joined(values, w.or), &self.rule(*rule))
            }
            ChangeStep::Exempt { rule, condition, values } => {
                let values = self.joined(values, w.and);
                fill(w.exempt, &[&values, condition.key(), &self.rule(*rule)])
            }
            ChangeStep::ChangeDeny { rule, scopes } => {
                fill(w.change_deny, &[&self.rule(*rule), &scopes.to_string()])
            }
            ChangeStep::WriteRule => match self.server.place() {
                Some(place) => fill(w.write_rule_at, &[&gives.to_string(), &place]),
                None => fill(w.write_rule, &[&gives.to_string()]),
            },
        }
    }

    fn give(&self, condition: Condition<'_>) -> String {
        let w = self.w;
        let values: Vec<String> = condition.values().into_iter().map(str::to_owned).collect();
        let several = values.len() > 1;
        let one_or = |one: &'static str, many: &'static str| if several { many } else { one };
        let (text, claim) = match condition {
            Condition::Roles(_) => (one_or(w.give_role, w.give_roles), ""),
            Condition::Groups(_) => (one_or(w.give_group, w.give_groups), ""),
            Condition::Permissions(_) => (one_or(w.give_permission, w.give_permissions), ""),
            Condition::EmailDomains(_) => (w.give_address, ""),
            Condition::Claim(path, _) => (one_or(w.give_claim, w.give_claims), path),
            // The others are met in other ways.
            Condition::Clients(_)
            | Condition::NotRoles(_)
            | Condition::NotGroups(_)
            | Condition::Subjects(_) => (w.other_client, ""),
        };
        fill(text, &[&self.joined(&values, w.or), self.server.provider, claim])
    }

    fn admit(&self, condition: Condition<'_>, values: &str, rule: &str) -> String {
        let w = self.w;
        let (text, claim) = match condition {
            Condition::Roles(_) | Condition::NotRoles(_) => (w.add_role, ""),
            Condition::Groups(_) | Condition::NotGroups(_) => (w.add_group, ""),
            Condition::Permissions(_) => (w.add_permission, ""),
            Condition::Subjects(_) => (w.add_subject, ""),
            Condition::EmailDomains(_) => (w.add_domain, ""),
            Condition::Clients(_) => (w.add_client, ""),
            Condition::Claim(path, _) => (w.add_claim, path),
        };
        fill(text, &[values, claim, rule])
    }

    /// Joins values, at most five of them.
    fn joined(&self, values: &[String], by: &str) -> String {
        let shown: Vec<String> = values.iter().take(VALUES).map(|value| clean(value)).collect();
        let more = if values.len() > VALUES { " …" } else { "" };
        let text = match shown.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) if by == self.w.or => {
                // "a, b or c"
                let or = by.trim_start_matches([',', ' ']);
                let space = if or.len() < by.len() { " " } else { "" };
                format!("{}{space}{or}{last}", others.join(self.w.one_of))
            }
            _ => shown.join(by),
        };
        format!("{text}{more}")
    }
}

/// Joins values from outside.
fn all(values: &[String]) -> String {
    values.iter().map(|value| clean(value)).collect::<Vec<_>>().join(", ")
}

/// Returns the text of a condition, without its values.
pub(crate) fn condition_text(c: &'static ConditionWords, condition: Condition<'_>) -> String {
    let text = match condition {
        Condition::Roles(_) => c.roles,
        Condition::Groups(_) => c.groups,
        Condition::Permissions(_) => c.permissions,
        Condition::NotRoles(_) => c.not_roles,
        Condition::NotGroups(_) => c.not_groups,
        Condition::Subjects(_) => c.subjects,
        Condition::EmailDomains(_) => c.email_domains,
        Condition::Clients(_) => c.clients,
        Condition::Claim(path, _) => return fill(c.claim, &[path]),
    };
    text.to_owned()
}

/// Replaces `{0}`, `{1}` and so on by these values.
pub(crate) fn fill(text: &str, values: &[&str]) -> String {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let Some((number, after)) = after.split_once('}') else { break };
        filled.push_str(before);
        filled.push_str(number.parse().ok().and_then(|at: usize| values.get(at)).unwrap_or(&""));
        rest = after;
    }
    filled.push_str(rest);
    filled
}

/// Begins the sentence with a capital letter.
fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

/// Returns a value from outside for a sentence: of bounded length, and without characters that change the
/// direction of the text.
fn clean(value: &str) -> String {
    let turns = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
    };
    let shown = value.chars().take(LONGEST).map(|c| if turns(c) { '\u{fffd}' } else { c });
    let mut shown: String = shown.collect();
    if value.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_filled_once() {
        assert_eq!(fill("a {1} b {0} c", &["{1}", "{0}"]), "a {0} b {1} c");
        assert_eq!(fill("{7}a{x", &["a"]), "a{x");
        assert_eq!(capitalized("élan"), "Élan");
    }

    #[test]
    fn a_value_from_outside_cannot_turn_a_sentence_around() {
        assert_eq!(clean("a\u{202e}b\n"), "a\u{fffd}b\u{fffd}");
        assert_eq!(clean(&"x".repeat(200)).chars().count(), LONGEST + 1);
    }
}
