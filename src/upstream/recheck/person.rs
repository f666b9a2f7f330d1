//! From the provider's answer to what is now known of the person.

use std::sync::Arc;

use crate::storage::{Person, UpstreamSession};
use crate::upstream::Inner;
use crate::upstream::answer::{Answer, TokenFailure};
use crate::upstream::claims::{self, Userinfo};
use crate::upstream::provider::Provider;

/// Whom the answer to a refresh is about.
pub(super) enum About {
    SamePerson(Person),
    SomebodyElse(&'static str),
    /// The ID token fails a check that says nothing about the person: keys, clocks, algorithms.
    CannotTell(String),
}

impl Inner {
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
            return Err(TokenFailure::Refused("no longer a member".to_owned()));
        }
        let (plan, none) = (&self.config.claims, Userinfo::NotAsked);
        let person = claims::read(plan, &identity.subject, &identity.claims, None, &none);
        Ok(About::SamePerson(person))
    }

    /// Reads the person of a refresh.
    pub(super) async fn read_answer(
        &self,
        provider: &Arc<Provider>,
        session: &UpstreamSession,
        answer: &Answer,
    ) -> About {
        if !answer.has_id_token() {
            return About::SamePerson(session.person.clone());
        }
        let identity = match self.verify_id_token(provider, answer, None).await {
            Ok(identity) => identity,
            Err(failed) => return About::CannotTell(failed.to_string()),
        };
        if identity.subject != session.subject || !self.is_one_of_ours(&identity) {
            return About::SomebodyElse("another subject");
        }
        let nonce = identity.claims.get("nonce").and_then(serde_json::Value::as_str);
        if nonce.is_some() && nonce != session.tokens.nonce.as_deref() {
            return About::SomebodyElse("the nonce of another login");
        }
        let before = Some(&session.person);
        About::SamePerson(self.read_person(provider, answer, &identity, before).await)
    }
}
