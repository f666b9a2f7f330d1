//! Re-checks: asks the provider again whether it still vouches for a person (threats RT-07, RT-08).
//!
//! One request per session at a time: a mutex within this process, a lease in the database between processes.
//! No transaction stays open during a request. A rotated refresh token is stored before any caller gets the
//! result. A definite rejection ends the grants; an outage, or an error in our own configuration, does not.

mod breaker;
mod goal;
mod lease;
mod person;

use std::sync::Arc;
use std::time::Duration;

use super::token_response::TokenFailure;
use super::{SIGN_IN, Upstream, UpstreamInner};
use crate::clock::{REPLICAS_APART, Timestamp};
use crate::config::Protocol;
use crate::oauth::secret::random_text;
use crate::policy::FactSet;
use crate::storage::{Lease, Person, Renewed, StorageError, UpstreamSession, UpstreamTokens};
use crate::telemetry::audit::{Actor, AuditEvent};
use crate::telemetry::metrics::Rechecked;
use crate::telemetry::trace;
pub(super) use breaker::Breaker;
pub use breaker::Health;
pub(super) use goal::Goal;
pub(super) use lease::InFlight;
use lease::{Asking, LEASE, Waited};
pub(super) use person::About;

/// If the provider did not supply some facts, we ask again after 1 minute. Meanwhile the earlier facts count,
/// within the outage grace. A longer interval prolongs the use of old facts; a shorter one sends more
/// requests to a provider that has trouble.
const ASK_FOR_FACTS_AGAIN: Duration = Duration::from_mins(1);

/// Longest wait of a caller for a re-check, in front of clients that give up after 10 s.
const CALLER_TIMEOUT: Duration = Duration::from_secs(7);

/// Access tokens issued on a stale result live at most 5 minutes.
pub const STALE_ACCESS_TOKEN: Duration = Duration::from_mins(5);

/// How often people are re-checked, and how long an outage of the provider is bridged.
#[derive(Clone, Copy, Debug)]
pub struct RecheckPolicy {
    /// A confirmation counts for this long.
    pub recheck: Duration,
    /// During an outage the last confirmation counts for this long, measured from that confirmation.
    pub outage_grace: Duration,
    /// Lifetime of a session that cannot be re-checked.
    pub max_without_refresh: Duration,
}

#[derive(Debug)]
pub enum Recheck {
    /// The provider vouches for the person.
    Fresh(Person),
    /// The provider cannot be asked, and its last confirmation is within the outage grace.
    Stale(Person),
    /// The provider rejected the person, or the session has ended. The grants of this session have ended.
    Ended,
    /// The provider cannot be asked, and its last confirmation is too old. The caller should try again later.
    Unknown,
}

impl Upstream {
    /// Returns the state of the person of a session. Asks the provider if its last confirmation is older than
    /// [`RecheckPolicy::recheck`].
    pub async fn recheck(&self, session_id: &str) -> Result<Recheck, StorageError> {
        let known = self.recheck_for(session_id, Goal::Confirmation).await?;
        self.0.storage.metrics().rechecked(match known {
            (Recheck::Fresh(_), false) => Rechecked::Remembered,
            (Recheck::Fresh(_), true) => Rechecked::Confirmed,
            (Recheck::Stale(_), _) => Rechecked::Bridged,
            (Recheck::Ended, _) => Rechecked::Ended,
            (Recheck::Unknown, _) => Rechecked::Unknown,
        });
        Ok(known.0)
    }

    /// Returns the facts that were carried over from an earlier response and are older than the outage grace.
    pub async fn outdated_facts(&self, session_id: &str) -> Result<FactSet, StorageError> {
        let inner = &self.0;
        let session = inner.storage.session_without_tokens(session_id).await?;
        let outdated = session
            .filter(|session| !inner.is_younger(session.facts_read_at, inner.recheck.outage_grace));
        Ok(outdated.map(|session| session.reused_facts).unwrap_or_default())
    }

    /// Performs the re-check unless `goal` is reached without it. Returns whether it had to ask the provider.
    pub(super) async fn recheck_for(
        &self,
        session_id: &str,
        goal: Goal,
    ) -> Result<(Recheck, bool), StorageError> {
        let inner = &self.0;
        // The tokens are read only if the provider may have to be asked.
        if let Goal::Confirmation = goal {
            let Some(session) = inner.storage.session_without_tokens(session_id).await? else {
                return Ok((Recheck::Ended, false));
            };
            if let Some(known) = inner.confirmed(&session) {
                return Ok((known, false));
            }
        }
        let Some(session) = inner.storage.upstream_session(session_id).await? else {
            return Ok((Recheck::Ended, false));
        };
        if let Some(known) = inner.settled(&session, goal) {
            return Ok((known, false));
        }
        // Some clients give up after ten seconds. The request to the provider continues without the caller.
        let timeout = inner.config.timeout.min(CALLER_TIMEOUT);
        let asking = inner.in_flight.of(session_id).await;
        let known = tokio::select! {
            biased;
            known = self.ask_alone(session_id, goal, &asking) => known?,
            asked = asking.is_silent_for(timeout) => {
                if asked {
                    inner.use_last_answer(&session, "it has not answered in time")
                } else {
                    // No request was sent, so this is no outage of the provider, and the earlier result must
                    // not be used.
                    tracing::warn!(session_id, "the question did not go out in time");
                    Recheck::Unknown
                }
            }
        };
        Ok((known, true))
    }

    /// Asks the provider; calls for the same session wait for each other.
    async fn ask_alone(
        &self,
        session_id: &str,
        goal: Goal,
        asking: &Arc<Asking>,
    ) -> Result<Recheck, StorageError> {
        let inner = &self.0;
        let _alone = asking.alone.lock().await;
        // Another request may have asked while we waited.
        let Some(session) = inner.storage.upstream_session(session_id).await? else {
            return Ok(Recheck::Ended);
        };
        if let Some(known) = inner.settled(&session, goal) {
            return Ok(known);
        }
        // The task must finish even if the client disconnects, because the provider may have rotated the
        // refresh token.
        let (inner, asking) = (Arc::clone(inner), Arc::clone(asking));
        let trace = trace::current();
        let asked = tokio::spawn(async move {
            trace::within(trace, std::pin::pin!(inner.ask(session, goal, &asking))).await
        });
        asked.await.unwrap_or(Ok(Recheck::Unknown))
    }
}

impl UpstreamInner {
    /// Returns the result if `goal` is reached without a request.
    fn settled(&self, session: &UpstreamSession, goal: Goal) -> Option<Recheck> {
        let Goal::Token { refused } = goal else { return self.confirmed(session) };
        if !self.may_continue(session) {
            return Some(Recheck::Ended);
        }
        let fresh = self.has_fresh_token(session, refused);
        fresh.then(|| Recheck::Fresh(session.person.clone()))
    }

    /// Returns whether the session is active at the configured provider, which cannot vouch for a session of
    /// another provider.
    fn may_continue<T>(&self, session: &UpstreamSession<T>) -> bool {
        session.alive && session.issuer == self.config.issuer
    }

    /// Returns the result if the last confirmation is recent enough, or if the session has ended.
    fn confirmed<T>(&self, session: &UpstreamSession<T>) -> Option<Recheck> {
        if !self.may_continue(session) {
            return Some(Recheck::Ended);
        }
        if !self.is_younger(session.last_ok_at, self.recheck.recheck) {
            return None;
        }
        let facts_are_young = !self.lacks_facts(session)
            || self.is_younger(session.facts_read_at, self.recheck.recheck);
        if facts_are_young {
            return Some(Recheck::Fresh(session.person.clone()));
        }
        let believed = self.is_younger(session.last_ok_at, ASK_FOR_FACTS_AGAIN)
            && self.is_younger(session.facts_read_at, self.recheck.outage_grace);
        believed.then(|| Recheck::Stale(session.person.clone()))
    }

    /// Returns whether rules read facts that were carried over from an earlier response.
    fn lacks_facts<T>(&self, session: &UpstreamSession<T>) -> bool {
        !session.reused_facts.intersection(self.config.claims.read_by_rules).is_empty()
    }

    /// Returns whether `moment` is less than `age` ago. A moment in the future was recorded before the clock
    /// was set back: its age is unknown, so it does not count as recent.
    fn is_younger(&self, moment: Timestamp, age: Duration) -> bool {
        let now = self.clock.now();
        moment <= now.plus(REPLICAS_APART) && now.since(moment) < age
    }

    /// Asks the provider, as the only one who does so about this session.
    async fn ask(
        &self,
        mut session: UpstreamSession,
        goal: Goal,
        asking: &Arc<Asking>,
    ) -> Result<Recheck, StorageError> {
        let now = self.clock.now();
        let asks_by_access_token = self.config.preset.protocol == Protocol::GitHub;
        if session.tokens.refresh_token.is_none() && !asks_by_access_token {
            return self.without_refresh_token(session, now).await;
        }
        if self.breaker.is_open(now) {
            return Ok(self.use_last_answer(&session, "it has just failed; it is asked again soon"));
        }
        let Some(_permit) = self.permit_for_recheck().await else { return Ok(Recheck::Unknown) };
        let owner = random_text();
        let _sent = asking.begins();
        match self.storage.lease_session(&session, &owner, now, LEASE).await? {
            Lease::Won => {}
            Lease::Taken => match self.wait_for_the_other_asker(&session, goal, &owner).await? {
                Waited::Answered(known) => return Ok(known),
                Waited::TakenOver(now) => session = *now,
            },
        }
        let _kept = self.keep_lease(&session.id, &owner);
        stop_point!("recheck: leased");
        let refresh_token = session.tokens.refresh_token.clone();
        let provider = match self.provider().await {
            Ok(provider) => provider,
            Err(error) => {
                self.storage.release_session(&session, &owner).await?;
                return Ok(self.use_last_answer(&session, &error.to_string()));
            }
        };
        let answer = self.question(&provider, &mut session, &owner, refresh_token.as_deref()).await;
        self.note_outcome(&answer);
        match answer {
            Ok((tokens, about)) => self.conclude(session, &owner, &tokens, about).await,
            Err(TokenFailure::Refused(reason)) => {
                let event = self.event("upstream_refused", &session).with("reason", reason);
                self.end(&session, "the identity provider ended the session", event).await
            }
            Err(TokenFailure::Ours(reason)) => {
                tracing::error!(
                    reason,
                    "the identity provider rejects our client: check client_id and client_secret"
                );
                self.storage.release_session(&session, &owner).await?;
                Ok(self.use_last_answer(&session, &reason))
            }
            Err(TokenFailure::Transient(reason)) => {
                self.storage.release_session(&session, &owner).await?;
                Ok(self.use_last_answer(&session, &reason))
            }
        }
    }

    /// Tells the circuit breaker how the provider responded.
    fn note_outcome(&self, answer: &Result<(UpstreamTokens, About), TokenFailure>) {
        match answer {
            Err(TokenFailure::Transient(reason)) => {
                self.breaker.failed(self.clock.now(), reason);
            }
            Err(TokenFailure::Ours(reason)) => self.breaker.troubled(self.clock.now(), reason),
            _ => {
                let recovered = self.breaker.answered(self.clock.now());
                self.note_recovery(recovered);
            }
        }
    }

    /// Decides by what the provider said about the person: ends the session, or stores the new confirmation
    /// and tokens.
    async fn conclude(
        &self,
        session: UpstreamSession,
        owner: &str,
        tokens: &UpstreamTokens,
        about: About,
    ) -> Result<Recheck, StorageError> {
        let now = self.clock.now();
        let at = Renewed { last_ok: now, facts_read: now, reused_facts: FactSet::default() };
        let (person, at, is_outage) = match about {
            About::SamePerson(person) => (person, at, false),
            About::PartlyKnown(known) => {
                let (facts_read, reused_facts) = (session.facts_read_at, known.reused_facts);
                (known.person, Renewed { facts_read, reused_facts, ..at }, known.is_outage)
            }
            About::SomebodyElse(reason) => {
                let event = self.event("upstream_identity_changed", &session);
                let why = "the identity provider answered for another person";
                return self.end(&session, why, event.with("reason", reason)).await;
            }
            About::TooOld => {
                let event = self.event("upstream_session_expired", &session);
                let why = "signed in too long ago, and the provider tells nothing new";
                return self.end(&session, why, event).await;
            }
            About::CannotTell(reason) => {
                // This is no confirmation, but the provider may have rotated the token, so the new one is
                // stored.
                tracing::error!(session_id = session.id, reason, "the answer is not usable");
                let (person, at) = (&session.person, Renewed::as_before(&session));
                self.storage.renew_session(&session, owner, person, tokens, at).await?;
                return Ok(self.use_last_answer(&session, &reason));
            }
        };
        let renewed = self.storage.renew_session(&session, owner, &person, tokens, at).await?;
        stop_point!("recheck: renewed");
        if renewed {
            let reused_facts = at.reused_facts;
            let known = UpstreamSession { person, reused_facts, last_ok_at: at.last_ok, ..session };
            if is_outage && self.lacks_facts(&known) {
                return Ok(self.use_last_answer(&known, "it does not tell what rules read"));
            }
            return Ok(Recheck::Fresh(known.person));
        }
        // A newer login replaced the session meanwhile; its data is newer than our response.
        self.reread(&session.id).await
    }

    /// Sends the refresh request, and once more immediately after a transient failure: the response may have
    /// been lost after the provider rotated the token. The grace period of providers is for such a repetition
    /// of the old token.
    async fn question(
        &self,
        provider: &Arc<super::provider::Provider>,
        session: &mut UpstreamSession,
        owner: &str,
        refresh_token: Option<&str>,
    ) -> Result<(UpstreamTokens, About), TokenFailure> {
        let Some(refresh_token) = refresh_token else {
            let about = self.github_person(session, &session.tokens.access_token).await?;
            return Ok((session.tokens.clone(), about));
        };
        let mut answer = self.refresh(provider, refresh_token).await;
        if matches!(answer, Err(TokenFailure::Transient(_))) {
            answer = self.refresh(provider, refresh_token).await;
        }
        let answer = answer?;
        stop_point!("recheck: answered");
        self.lifetimes.learn(SIGN_IN, answer.expires_in);
        let tokens = answer.tokens_after(&session.tokens, self.clock.now());
        if tokens.refresh_token != session.tokens.refresh_token {
            self.keep_rotated(session, owner, &tokens).await;
        }
        stop_point!("recheck: tokens stored");
        let about = match self.config.preset.protocol {
            Protocol::Oidc => self.read_answer(provider, session, &answer).await,
            Protocol::GitHub => match self.github_person(session, &tokens.access_token).await {
                Ok(about) => about,
                // The tokens are new and must be stored, whatever the API returns.
                Err(TokenFailure::Refused(reason)) => return Err(TokenFailure::Refused(reason)),
                Err(failure) => About::CannotTell(failure.to_string()),
            },
        };
        Ok((tokens, about))
    }

    /// Stores a rotated token before the rest of the response is read. Tries up to three times if the
    /// database fails, because the provider does not issue the token twice.
    async fn keep_rotated(
        &self,
        session: &mut UpstreamSession,
        owner: &str,
        tokens: &UpstreamTokens,
    ) {
        const TRIES: u32 = 3;
        for _ in 0..TRIES {
            match self.storage.store_tokens(session, owner, tokens).await {
                Ok(stored) => {
                    session.version += i64::from(stored);
                    return;
                }
                Err(cause) => {
                    tracing::error!(session_id = session.id, %cause, "a rotated token is not stored yet");
                }
            }
        }
    }

    fn event(&self, event: &'static str, session: &UpstreamSession) -> AuditEvent {
        AuditEvent::new(event, Actor::Provider, &self.clock)
            .subject(&self.config.preset.our_subject(&session.subject))
            .with("session_id", session.id.as_str())
    }

    async fn end(
        &self,
        session: &UpstreamSession,
        reason: &str,
        event: AuditEvent,
    ) -> Result<Recheck, StorageError> {
        if self.storage.end_session(session, reason, self.clock.now(), event).await? {
            return Ok(Recheck::Ended);
        }
        self.reread(&session.id).await
    }

    async fn reread(&self, session_id: &str) -> Result<Recheck, StorageError> {
        Ok(match self.storage.session_without_tokens(session_id).await? {
            Some(session) => self.confirmed(&session).unwrap_or(Recheck::Unknown),
            None => Recheck::Ended,
        })
    }

    /// Applies `max_without_refresh`: without a refresh token the provider cannot be asked, so the login
    /// itself counts for that long.
    async fn without_refresh_token(
        &self,
        session: UpstreamSession,
        now: Timestamp,
    ) -> Result<Recheck, StorageError> {
        if now.since(session.last_ok_at) < self.recheck.max_without_refresh {
            return Ok(Recheck::Fresh(session.person));
        }
        let event = self.event("upstream_session_expired", &session);
        let reason = "signed in too long ago, and the provider issued no refresh token";
        self.end(&session, reason, event).await
    }

    /// Returns the last confirmation if it is within the outage grace.
    fn use_last_answer(&self, session: &UpstreamSession, reason: &str) -> Recheck {
        let grace = self.recheck.outage_grace;
        let facts_are_young =
            !self.lacks_facts(session) || self.is_younger(session.facts_read_at, grace);
        let bridged = facts_are_young && self.is_younger(session.last_ok_at, grace);
        tracing::warn!(
            session_id = session.id,
            reason,
            bridged,
            "the identity provider cannot be asked"
        );
        if bridged { Recheck::Stale(session.person.clone()) } else { Recheck::Unknown }
    }
}
