//! What is approved beside what is in force now, in the words of pages and tables.

use super::list_page::utc;
use super::words::{Language, words};
use crate::clock::Timestamp;
use crate::config::{Config, InForce};
use crate::oauth::scope::ScopeSet;
use crate::policy::Facts;
use crate::storage::GrantRow;

words! {
    /// Words for what is approved, and what is in force.
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

/// What is in force of a grant, and how old the facts behind it are, where they are old.
#[derive(Clone, Debug)]
pub struct OfGrant {
    /// What it comes to.
    pub in_force: InForce,
    /// When the identity provider last told the facts, if that is longer ago than it should be.
    pub old_facts: Option<Timestamp>,
}

impl OfGrant {
    /// By the present rules, and the facts that the identity provider told last.
    pub fn of(config: &Config, row: &GrantRow, now: Timestamp) -> Self {
        if !row.is_live(now) {
            return Self { in_force: InForce::Nothing, old_facts: None };
        }
        let facts = (&row.person.facts, row.facts_at);
        Self::by(config, &row.resource, &row.client_id, facts, &row.ceiling, now)
    }

    /// The same for what is no row of a list.
    pub fn by(
        config: &Config,
        resource: &str,
        client_id: &str,
        (facts, known_at): (&Facts, Timestamp),
        approved: &ScopeSet,
        now: Timestamp,
    ) -> Self {
        let in_force = config.in_force(resource, client_id, facts, approved);
        let old = in_force != InForce::ServerGone && now.since(known_at) >= config.upstream.recheck;
        Self { in_force, old_facts: old.then_some(known_at) }
    }

    /// In words.
    pub fn text(&self, w: &'static InForceWords) -> String {
        match &self.in_force {
            InForce::Scopes(scopes) if scopes.is_empty() => w.access.to_owned(),
            InForce::Scopes(scopes) => scopes.to_string(),
            InForce::Nothing => w.nothing.to_owned(),
            InForce::ServerGone => w.server_gone.to_owned(),
        }
    }

    /// How old the facts are, where that needs to be said.
    pub fn note(&self, w: &'static InForceWords) -> Option<String> {
        let at = self.old_facts?;
        Some(format!("{}{}{}", w.as_of_before, utc(at), w.as_of_after))
    }

    /// Both in one line of English, for the command line.
    pub fn line(&self) -> String {
        let w = InForceWords::of(Language::English);
        match self.old_facts {
            Some(at) => format!("{} ({}{})", self.text(w), w.as_of_before, utc(at)),
            None => self.text(w),
        }
    }
}
