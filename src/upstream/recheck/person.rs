//! Reads the current state of a person from the provider's response to a refresh.

use std::sync::Arc;

use serde_json::Value;

use crate::clock::Timestamp;
use crate::config::ClaimSource;
use crate::policy::{Fact, FactSet, Facts};
use crate::storage::{Person, UpstreamSession};
use crate::upstream::UpstreamInner;
use crate::upstream::claims::{self, Userinfo};
use crate::upstream::oidc::payload;
use crate::upstream::provider::Provider;
use crate::upstream::token_response::{TokenFailure, TokenResponse};
use crate::upstream::values::time_of;

/// The person in the response to a refresh.
pub(in crate::upstream) enum About {
    SamePerson(Person),
    /// The same person, with some facts carried over from an earlier response.
    PartlyKnown(PartlyKnown),
    SomebodyElse(&'static str),
    /// The provider supplies nothing new, and its last facts are too old for rules to rely on.
    TooOld,
    /// The response fails a check that says nothing about the person: keys, clocks, algorithms.
    CannotTell(String),
}

/// A person, confirmed by the provider without all facts.
pub(in crate::upstream) struct PartlyKnown {
    pub(super) person: Person,
    /// The facts that were carried over from an earlier response.
    pub(super) reused_facts: FactSet,
    /// Whether a source of facts did not respond: then this counts as an outage.
    pub(super) is_outage: bool,
}

impl UpstreamInner {
    pub(super) async fn github_person(
        &self,
        session: &UpstreamSession,
        access_token: &str,
    ) -> Result<About, TokenFailure> {
        let identity = self.github_identity(access_token).await?;
        if identity.subject != session.subject {
            return Ok(About::SomebodyElse("another user"));
        }
        if !self.is_one_of_ours(&identity) {
            // The membership may be further down a list that we read only in part, so nothing is ended.
            if claims::is_incomplete(&identity.claims, "organizations") {
                let reason = "the person is in more organisations than are read";
                return Ok(About::CannotTell(reason.to_owned()));
            }
            return Err(TokenFailure::Refused("no longer a member".to_owned()));
        }
        let (plan, none) = (&self.config.claims, Userinfo::NotAsked);
        let person = claims::read(plan, &identity.subject, &identity.claims, None, &none);
        Ok(About::SamePerson(person))
    }

    /// Reads the person from the response to a refresh.
    pub(in crate::upstream) async fn read_answer(
        &self,
        provider: &Arc<Provider>,
        session: &UpstreamSession,
        answer: &TokenResponse,
    ) -> About {
        if !answer.has_id_token() {
            return self.read_without_id_token(provider, session, answer).await;
        }
        let identity = match self.verify_id_token(provider, answer, None).await {
            Ok(identity) => identity,
            Err(failed) => return About::CannotTell(failed.to_string()),
        };
        if identity.subject != session.subject || !self.is_one_of_ours(&identity) {
            return About::SomebodyElse("another subject");
        }
        let nonce = identity.claims.get("nonce").and_then(Value::as_str);
        if nonce.is_some() && nonce != session.tokens.nonce.as_deref() {
            return About::SomebodyElse("the nonce of another login");
        }
        let access_token = match answer.access_token() {
            Ok(access_token) => access_token,
            Err(reason) => return About::CannotTell(reason),
        };
        let before = Some(&session.person);
        let read = self.read_person(provider, access_token, &identity, before).await;
        let reused_facts = read.reused_facts;
        if reused_facts.is_empty() {
            return About::SamePerson(read.person);
        }
        let matters = !reused_facts.intersection(self.config.claims.read_by_rules).is_empty();
        let age = self.clock.now().since(session.facts_read_at);
        if read.answered && matters && age >= self.recheck.max_without_refresh {
            return About::TooOld;
        }
        About::PartlyKnown(PartlyKnown {
            person: read.person,
            reused_facts,
            is_outage: !read.answered,
        })
    }

    /// Handles a refresh response without an ID token, which OIDC Core §12.2 permits. Such a response still
    /// confirms the person. The facts come from the userinfo endpoint; facts that no source repeats count for
    /// `max_without_refresh`, like a login without a refresh token.
    async fn read_without_id_token(
        &self,
        provider: &Arc<Provider>,
        session: &UpstreamSession,
        answer: &TokenResponse,
    ) -> About {
        let plan = &self.config.claims;
        let last = session.tokens.id_token.as_deref().and_then(payload).unwrap_or_default();
        let sub = last.get("sub").and_then(Value::as_str).unwrap_or_default();
        let access_token = match answer.access_token() {
            Ok(access_token) => access_token,
            Err(reason) => return About::CannotTell(reason),
        };
        let userinfo = if plan.sources.contains(&ClaimSource::Userinfo) {
            self.userinfo(provider, access_token, sub).await.userinfo
        } else {
            Userinfo::NotAsked
        };
        if userinfo == Userinfo::Failed {
            // An outage is no reason to end the session.
            let mut untold = session.person.clone();
            untold.facts = Facts {
                groups: Fact::Unknown,
                roles: Fact::Unknown,
                permissions: Fact::Unknown,
                email_unknown: true,
                unknown_claims: plan.extra.iter().map(|path| path.as_str().to_owned()).collect(),
                ..Facts::default()
            };
            let reused_facts = claims::reused_facts(&untold, &session.person);
            let person = session.person.clone();
            return About::PartlyKnown(PartlyKnown { person, reused_facts, is_outage: true });
        }
        let access_token = payload(access_token);
        let access_token = access_token.as_ref();
        let tells_nothing = userinfo == Userinfo::TellsNothing;
        let rests_on_old = tells_nothing || claims::rests_on(&last, plan, access_token, &userinfo);
        let told_at = last.get("iat").and_then(time_of).unwrap_or_default();
        let age = self.clock.now().since(Timestamp::from_unix(told_at));
        if !plan.read_by_rules.is_empty() && rests_on_old && age >= self.recheck.max_without_refresh
        {
            return About::TooOld;
        }
        if tells_nothing {
            return About::SamePerson(session.person.clone());
        }
        let subject = &session.subject;
        let person = claims::read_again(plan, subject, &last, access_token, &userinfo);
        About::SamePerson(person)
    }
}
