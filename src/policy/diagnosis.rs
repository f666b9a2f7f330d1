//! Why the rules refuse scopes to a person, and what would change that. Pure.
//!
//! A [`Way`] is only reported if the rules would then give the person more: each one is tried on a copy of the
//! facts and of the rules. It says which change works, and not whether the change is wise.

use std::borrow::Cow;

use super::condition::{Applicant, Condition, Holds};
use super::step::{ChangeStep, Side, apply, sides, untrue};
use super::{Fact, Facts, Policy, Rule, scopes_of};
use crate::oauth::scope::ScopeSet;

/// Most rules for which a change at the identity provider is proposed: 3. More alternatives help nobody.
const ALTERNATIVES: usize = 3;

/// A rule, compared with a person.
#[derive(Clone, Debug)]
pub struct RuleFinding<'a> {
    /// Its position in the configuration, from 0.
    pub position: usize,
    pub rule: &'a Rule,
    /// Its conditions, and whether each is true.
    pub conditions: Vec<(Condition<'a>, Holds)>,
    /// Of the scopes that the person lacks, those that it allows if all its conditions are true.
    pub allows: ScopeSet,
    /// Of the scopes that the person lacks, those that it denies this person now.
    pub denies: ScopeSet,
    /// Its conditions are true, but the provider sent no permission that it passes through.
    pub lacks_permission: bool,
}

impl RuleFinding<'_> {
    /// Returns whether all its conditions are true.
    pub fn holds(&self) -> Holds {
        self.conditions.iter().fold(Holds::Yes, |all, (_, holds)| all.and(*holds))
    }

    /// Returns the number of conditions that are not true.
    pub fn unmet(&self) -> usize {
        let unmet = self.conditions.iter().filter(|(_, holds)| *holds != Holds::Yes).count();
        unmet + usize::from(self.lacks_permission)
    }

    /// Returns the name of the rule, or `rule 2`.
    pub fn name(&self) -> String {
        self.rule.name_at(self.position)
    }
}

/// Why the person lacks the scopes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    NoRuleMatches,
    /// Rules match, and none of them allows what is lacking.
    NotAllowed,
    Denied,
}

/// A change that would give the person some of the scopes. All steps are needed.
#[derive(Clone, Debug)]
pub struct Way<'a> {
    pub steps: Vec<ChangeStep<'a>>,
    /// The scopes that the person would then get in addition.
    pub gives: ScopeSet,
}

/// Why a person lacks scopes, rule by rule.
#[derive(Clone, Debug)]
pub struct Diagnosis<'a> {
    /// The scopes that the person asked for and lacks.
    pub lacks: ScopeSet,
    /// Why the person lacks them.
    pub cause: Cause,
    /// Every rule, in the order of the configuration.
    pub rules: Vec<RuleFinding<'a>>,
    /// Position of the rule that comes nearest: the first one that denies what would be allowed; otherwise the
    /// one with the fewest conditions that are not true.
    pub nearest: Option<usize>,
    policy: &'a Policy,
    asked: ScopeSet,
    /// The lacking scopes that rules allow and others deny.
    allowed: ScopeSet,
    /// The lacking scopes that rules deny.
    denied: ScopeSet,
}

impl<'a> Diagnosis<'a> {
    /// Returns what would give the person some of the scopes, the nearest rule first; at least one way. The
    /// person and the client are those of the diagnosis.
    pub fn ways(&self, facts: &Facts, client_id: &str) -> Vec<Way<'a>> {
        let applicant = Applicant { facts, client_id };
        let search = Search { found: self, applicant };
        let mut ways = match self.cause {
            Cause::Denied => search.past_denials(&self.allowed),
            Cause::NoRuleMatches | Cause::NotAllowed => Vec::new(),
        };
        ways.extend(search.through(&candidates(&self.rules, &self.denied)));
        if ways.is_empty() {
            let gives = self.lacks.difference(&self.denied);
            ways.push(Way { steps: vec![ChangeStep::WriteRule], gives });
        }
        ways
    }
}

impl Policy {
    /// Returns what the provider did not send, or not in a form that can be read, although rules decide about
    /// `asked` by it: the keys of their conditions. Empty if rules refuse the person by what is known.
    pub fn not_known(&self, facts: &Facts, client_id: &str, asked: &ScopeSet) -> Vec<&'static str> {
        let Some(found) = self.diagnose(facts, client_id, asked) else { return Vec::new() };
        let mut keys = Vec::new();
        for rule in found.rules.iter().filter(|rule| rule.holds() == Holds::Unknown) {
            let open = || rule.conditions.iter().filter(|(_, holds)| *holds == Holds::Unknown);
            // An address that is not verified was sent, and does not let anybody in.
            if open().all(|(condition, _)| condition.read(facts, client_id).is_none()) {
                keys.extend(open().map(|(condition, _)| condition.key()));
            }
        }
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    /// Explains why this person does not get all of `asked` with this client. `None` if they do.
    pub fn diagnose<'a>(
        &'a self,
        facts: &Facts,
        client_id: &str,
        asked: &ScopeSet,
    ) -> Option<Diagnosis<'a>> {
        let decision = self.decide(facts, client_id, asked);
        let lacks = decision.missing;
        if lacks.is_empty() {
            return None;
        }
        let applicant = Applicant { facts, client_id };
        let rules: Vec<RuleFinding<'_>> = self
            .rules
            .iter()
            .enumerate()
            .map(|(position, rule)| self.finding(position, rule, applicant, &lacks))
            .collect();
        let denied = rules.iter().fold(ScopeSet::default(), |all, one| all.union(&one.denies));
        let allowed = rules
            .iter()
            .filter(|one| one.holds() == Holds::Yes && !one.lacks_permission)
            .fold(self.hierarchy.with_implied(&self.baseline), |all, one| all.union(&one.allows))
            .intersection(&lacks);
        let candidates = candidates(&rules, &denied);
        let cause = if !allowed.is_empty() || (candidates.is_empty() && !denied.is_empty()) {
            Cause::Denied
        } else if decision.matched.is_empty() {
            Cause::NoRuleMatches
        } else {
            Cause::NotAllowed
        };
        let aim = if allowed.is_empty() { &lacks } else { &allowed };
        let nearest = match cause {
            Cause::Denied => rules.iter().find(|one| !one.denies.intersection(aim).is_empty()),
            Cause::NoRuleMatches | Cause::NotAllowed => candidates.first().copied(),
        };
        let nearest = nearest.map(|one| one.position);
        let (policy, asked) = (self, asked.clone());
        Some(Diagnosis { lacks, cause, rules, nearest, policy, asked, allowed, denied })
    }

    fn finding<'a>(
        &'a self,
        position: usize,
        rule: &'a Rule,
        applicant: Applicant<'_>,
        lacks: &ScopeSet,
    ) -> RuleFinding<'a> {
        let Applicant { facts, client_id } = applicant;
        let conditions: Vec<_> = rule
            .conditions
            .each()
            .map(|condition| (condition, condition.holds(facts, client_id)))
            .collect();
        let by_itself = self.hierarchy.with_implied(&rule.allow).intersection(lacks);
        let passes_on = rule.passthrough && by_itself.is_empty();
        let allows = if passes_on { self.declared.intersection(lacks) } else { by_itself };
        let denies = rule.effect(facts, client_id, &self.declared).1.unwrap_or_default();
        let is_met = conditions.iter().all(|(_, holds)| *holds == Holds::Yes);
        RuleFinding {
            position,
            rule,
            // A person with such a permission would have the scope, unless it is denied.
            lacks_permission: passes_on && is_met && self.passed_on(rule, facts, lacks).is_empty(),
            conditions,
            allows,
            denies: self.hierarchy.with_implying(&denies).intersection(lacks),
        }
    }

    /// Returns the lacking scopes that the person has as permissions, if the rule passes permissions through.
    fn passed_on(&self, rule: &Rule, facts: &Facts, lacks: &ScopeSet) -> ScopeSet {
        let Fact::Known(permissions) = &facts.permissions else {
            return ScopeSet::default();
        };
        if !rule.passthrough {
            return ScopeSet::default();
        }
        self.hierarchy.with_implied(&scopes_of(permissions)).intersection(lacks)
    }
}

/// Returns the rules that would allow something which is not denied, the nearest first.
fn candidates<'r, 'a>(rules: &'r [RuleFinding<'a>], denied: &ScopeSet) -> Vec<&'r RuleFinding<'a>> {
    let mut candidates: Vec<&RuleFinding<'_>> = rules
        .iter()
        .filter(|one| one.unmet() > 0 && !one.allows.difference(denied).is_empty())
        .collect();
    candidates.sort_by_key(|one| (one.unmet(), one.position));
    candidates
}

struct Search<'s, 'a> {
    found: &'s Diagnosis<'a>,
    applicant: Applicant<'s>,
}

impl<'a> Search<'_, 'a> {
    /// Returns the ways through rules that allow: at the provider for each of the nearest, and in the
    /// configuration for the first rule where that is possible.
    fn through(&self, candidates: &[&RuleFinding<'a>]) -> Vec<Way<'a>> {
        let Some(fewest) = candidates.first().map(|one| one.unmet()) else { return Vec::new() };
        let nearest = candidates.iter().take_while(|one| one.unmet() == fewest);
        let mut ways: Vec<Way<'_>> = nearest
            .filter_map(|one| self.tried(self.met(one, Side::Provider)?))
            .take(ALTERNATIVES)
            .collect();
        ways.extend(
            candidates.iter().find_map(|one| self.tried(self.met(one, Side::Configuration)?)),
        );
        if ways.is_empty() {
            ways.extend(candidates.iter().find_map(|one| self.tried(self.met(one, Side::Any)?)));
        }
        ways
    }

    /// Returns the ways past rules that deny. `allowed` are the lacking scopes that other rules allow; if
    /// there are none, a rule that allows has to match as well.
    fn past_denials(&self, allowed: &ScopeSet) -> Vec<Way<'a>> {
        let aim = if allowed.is_empty() { &self.found.lacks } else { allowed };
        let Some(denying) = self.fewest_denials(aim) else { return Vec::new() };
        let rest = if allowed.is_empty() { self.allowing(aim) } else { vec![Vec::new()] };
        let mut ways = Vec::new();
        for side in [Side::Provider, Side::Configuration] {
            let lifted: Option<Vec<ChangeStep<'_>>> =
                denying.iter().map(|one| self.lifted(one, side)).collect();
            let Some(lifted) = lifted else { continue };
            ways.extend(
                rest.iter()
                    .find_map(|rest| self.tried(lifted.iter().chain(rest).cloned().collect())),
            );
        }
        ways
    }

    /// Returns the rules that deny the scope with the fewest denials among `aim`.
    fn fewest_denials(&self, aim: &ScopeSet) -> Option<Vec<&RuleFinding<'a>>> {
        let denying = |scope| {
            let denying = self.found.rules.iter().filter(move |one| one.denies.contains(scope));
            denying.collect::<Vec<_>>()
        };
        aim.iter().map(denying).filter(|rules| !rules.is_empty()).min_by_key(Vec::len)
    }

    /// Returns the steps after which a rule allows one of these scopes: at most one list for each side.
    fn allowing(&self, aim: &ScopeSet) -> Vec<Vec<ChangeStep<'a>>> {
        let mut rules: Vec<&RuleFinding<'_>> = self
            .found
            .rules
            .iter()
            .filter(|one| one.unmet() > 0 && !one.allows.intersection(aim).is_empty())
            .collect();
        rules.sort_by_key(|one| (one.unmet(), one.position));
        let sides = [Side::Provider, Side::Configuration, Side::Any].into_iter();
        sides.filter_map(|side| rules.iter().find_map(|one| self.met(one, side))).collect()
    }

    /// Returns the steps after which all conditions of a rule are true.
    fn met(&self, finding: &RuleFinding<'a>, side: Side) -> Option<Vec<ChangeStep<'a>>> {
        let unmet = finding.conditions.iter().filter(|(_, holds)| *holds != Holds::Yes);
        let mut steps: Vec<ChangeStep<'_>> = unmet
            .map(|(condition, holds)| {
                sides(finding.position, *condition, *holds, self.applicant).on(side)
            })
            .collect::<Option<_>>()?;
        if finding.lacks_permission {
            if side == Side::Configuration {
                return None;
            }
            steps.push(ChangeStep::Permission(finding.allows.clone()));
        }
        Some(steps)
    }

    /// Returns the step after which a rule no longer denies.
    fn lifted(&self, finding: &RuleFinding<'a>, side: Side) -> Option<ChangeStep<'a>> {
        if side == Side::Configuration {
            let scopes = finding.denies.clone();
            return Some(ChangeStep::ChangeDeny { rule: finding.position, scopes });
        }
        finding
            .conditions
            .iter()
            .find_map(|(condition, holds)| untrue(*condition, *holds, self.applicant.facts))
    }

    /// Returns the way if it works.
    fn tried(&self, steps: Vec<ChangeStep<'a>>) -> Option<Way<'a>> {
        let mut policy = Cow::Borrowed(self.found.policy);
        let (mut facts, mut client_id) =
            (self.applicant.facts.clone(), self.applicant.client_id.to_owned());
        for step in &steps {
            apply(step, &mut policy, &mut facts, &mut client_id);
        }
        let granted = policy.decide(&facts, &client_id, &self.found.asked).granted;
        let gives = granted.intersection(&self.found.lacks);
        (!gives.is_empty()).then_some(Way { steps, gives })
    }
}

/// Scopes that a draft of the rules gives to a person and takes from them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScopeChange {
    /// Scopes that the person would get in addition.
    pub gains: ScopeSet,
    /// Scopes that the person would no longer get.
    pub loses: ScopeSet,
}

impl Policy {
    /// Compares what a person may do under these rules and under a draft of them, with this client.
    pub fn change_by(&self, draft: &Self, facts: &Facts, client_id: &str) -> ScopeChange {
        let before = self.decide(facts, client_id, &self.declared).granted;
        let after = draft.decide(facts, client_id, &self.declared).granted;
        ScopeChange { gains: after.difference(&before), loses: before.difference(&after) }
    }
}

#[cfg(test)]
mod tests;
