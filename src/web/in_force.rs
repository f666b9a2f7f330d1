//! Describes which scopes are approved and which are in force now, for pages and tables.

use super::list_page::utc;
use super::words::{Language, words};
use crate::clock::Timestamp;
use crate::config::{Config, InForce};
use crate::oauth::scope::ScopeSet;
use crate::policy::Facts;
use crate::storage::GrantRow;

words! {
    /// Words for approved scopes and scopes in force.
    pub struct InForceWords {
        approved: "Approved", "承認した範囲";
        in_force: "In force now", "現在有効な範囲";
        nothing: "nothing", "なし";
        server_gone: "nothing: this MCP server is no longer configured", "なし: このMCPサーバーは設定から削除されています";
        access: "access, without any scope", "アクセスのみ(スコープなし)";
        as_of_before: "by roles and groups as of ", "";
        as_of_after: "", "時点のロールとグループによります";
    }
}

/// Scopes that a person approved for a client, with what the rules read of the person.
#[derive(Clone, Copy, Debug)]
pub struct ApprovedScopes<'a> {
    pub resource: &'a str,
    pub client_id: &'a str,
    pub scopes: &'a ScopeSet,
    /// The facts that the identity provider last delivered.
    pub facts: &'a Facts,
    /// When it delivered them.
    pub facts_at: Timestamp,
}

/// The scopes of a grant that are in force, and the age of the facts behind them if they are old.
#[derive(Clone, Debug)]
pub struct OfGrant {
    /// The result of the rules.
    pub in_force: InForce,
    /// When the identity provider last delivered the facts, if that is longer ago than the recheck interval.
    pub old_facts: Option<Timestamp>,
}

impl OfGrant {
    /// Evaluates the current rules with the facts that the identity provider last delivered. A grant that
    /// has ended gives nothing.
    pub fn of(config: &Config, row: &GrantRow, now: Timestamp) -> Self {
        if !row.is_live(now) {
            return Self { in_force: InForce::Nothing, old_facts: None };
        }
        let approved = ApprovedScopes {
            resource: &row.resource,
            client_id: &row.client_id,
            scopes: &row.consented_scopes,
            facts: &row.person.facts,
            facts_at: row.facts_at,
        };
        Self::by(config, &approved, now)
    }

    /// The same for an approval that is not a row of a list.
    pub fn by(config: &Config, approved: &ApprovedScopes<'_>, now: Timestamp) -> Self {
        let &ApprovedScopes { resource, client_id, scopes, facts, facts_at } = approved;
        let in_force = config.in_force(resource, client_id, facts, scopes);
        let old = in_force != InForce::ServerGone && now.since(facts_at) >= config.upstream.recheck;
        Self { in_force, old_facts: old.then_some(facts_at) }
    }

    /// Returns the scopes in force as text.
    pub fn text(&self, w: &'static InForceWords) -> String {
        match &self.in_force {
            InForce::Scopes(scopes) if scopes.is_empty() => w.access.to_owned(),
            InForce::Scopes(scopes) => scopes.to_string(),
            InForce::Nothing => w.nothing.to_owned(),
            InForce::ServerGone => w.server_gone.to_owned(),
        }
    }

    /// Returns a note on the age of the facts, if they are old.
    pub fn note(&self, w: &'static InForceWords) -> Option<String> {
        let at = self.old_facts?;
        Some(format!("{}{}{}", w.as_of_before, utc(at), w.as_of_after))
    }

    /// Returns both in one English line, for the command line.
    pub fn line(&self) -> String {
        let w = InForceWords::of(Language::English);
        match self.old_facts {
            Some(at) => format!("{} ({}{})", self.text(w), w.as_of_before, utc(at)),
            None => self.text(w),
        }
    }
}
