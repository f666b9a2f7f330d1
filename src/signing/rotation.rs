//! Rotation: a new key is published before it signs, and an old one for as long as a token of it can
//! be alive, so that nobody who verifies our tokens ever meets a key they could not have known.
//!
//! What is published, what signs and what is over is in the database, with times; every replica reads
//! it once a minute and switches by its clock, without a word to the others.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{KeyRing, Keys, SigningError, generate};
use crate::clock::{Clock, Timestamp};
use crate::config::TokenAlg;
use crate::storage::{RetiredKey, Storage};
use crate::telemetry::audit::{Actor, AuditEvent};
use crate::telemetry::log_throttle::LogThrottle;

static NOT_READ: LogThrottle = LogThrottle::a_minute();

/// A key is published for this long before it signs: twice what `Cache-Control` of the JWK Set
/// allows, and ten times what a replica takes to see it.
pub const PUBLISHED_BEFORE: Duration = Duration::from_mins(10);
/// A key is kept for this long after the next one signs: the longest life that an access token can be
/// given (one hour), and what clocks may be wrong by.
const KEPT_AFTER: Duration = Duration::from_mins(65);
/// How old the keys in memory may be.
const STALE: Duration = Duration::from_mins(1);
/// Longest wait of who asks for the published keys: those at hand are good.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a token with an unknown key can make us look again.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// How often the keys are looked after when nobody asks.
const ROUND: Duration = Duration::from_secs(20);

/// What it takes to read the keys anew.
pub(super) struct Keeper {
    storage: Storage,
    clock: Clock,
    /// Algorithms in use.
    algs: parking_lot::Mutex<Vec<TokenAlg>>,
    /// When the keys were read; one reads, the others wait for it.
    read_at: Mutex<Timestamp>,
}

impl Keeper {
    pub(super) fn new(storage: Storage, clock: Clock, algs: Vec<TokenAlg>) -> Self {
        // At the first chance: while no server ran, a key may have come to its end.
        let read_at = Mutex::new(Timestamp::from_unix(0));
        Self { storage, clock, algs: parking_lot::Mutex::new(algs), read_at }
    }

    fn algs(&self) -> parking_lot::MutexGuard<'_, Vec<TokenAlg>> {
        self.algs.lock()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// What became of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// The next keys are stored.
    Begun,
    /// Before the last rotation is through, there is no other.
    UnderWay,
}

/// Makes the next key of every algorithm in `algs`. A server that runs on this database takes it from
/// there.
pub async fn rotate(
    storage: &Storage,
    algs: &[TokenAlg],
    now: Timestamp,
    event: AuditEvent,
) -> Result<Rotated, SigningError> {
    let stored = storage.signing_keys().await?;
    let signs_from = now.plus(PUBLISHED_BEFORE);
    let mut next = Vec::new();
    for &alg in algs {
        let newest =
            stored.iter().filter(|key| key.alg == alg.as_str()).max_by_key(|key| key.generation);
        match newest {
            Some(key) if key.signs_from > now => {}
            Some(key) => next.push(generate(alg, key.generation + 1, now, signs_from)?),
            None => next.push(generate(alg, 1, now, now)?),
        }
    }
    if next.is_empty() {
        return Ok(Rotated::UnderWay);
    }
    let retire_at = signs_from.plus(KEPT_AFTER);
    let first = storage.rotate_signing_keys(&next, retire_at, event).await?;
    Ok(if first { Rotated::Begun } else { Rotated::UnderWay })
}

impl KeyRing {
    /// Makes the next keys, publishes them here at once, and at other replicas within a minute.
    pub async fn rotate(&self, event: AuditEvent) -> Result<Rotated, SigningError> {
        let keeper = &self.keeper;
        let algs = keeper.algs().clone();
        let rotated = rotate(&keeper.storage, &algs, keeper.now(), event).await?;
        self.read_unless_newer_than(Duration::ZERO).await;
        Ok(rotated)
    }

    /// Signs with these algorithms from now on; makes the keys that do not exist yet.
    pub async fn sign_with(&self, algs: &[TokenAlg]) -> Result<(), SigningError> {
        let keeper = &self.keeper;
        if *keeper.algs() == algs {
            return Ok(());
        }
        if super::add_missing(&keeper.storage, algs, keeper.now()).await? {
            self.read_unless_newer_than(Duration::ZERO).await;
        }
        algs.clone_into(&mut keeper.algs());
        Ok(())
    }

    /// The public keys as a JWK Set, at most a minute old; older while the database hangs.
    pub async fn published(&self) -> Arc<str> {
        // Read in a task of its own, which goes on when nobody waits for it any more; only one reads at a time, and
        // nobody waits for what somebody else has been waiting for.
        if let Ok(read_at) = self.keeper.read_at.try_lock() {
            let is_new = self.is_newer_than(*read_at, STALE);
            drop(read_at);
            if !is_new {
                let ring = self.clone();
                let reading = tokio::spawn(async move { ring.read_unless_newer_than(STALE).await });
                let _ = timeout(PATIENCE, reading).await;
            }
        }
        self.jwks()
    }

    /// Keys that were retired, last first.
    pub async fn retired(&self) -> Result<Vec<RetiredKey>, SigningError> {
        self.read_unless_newer_than(STALE).await;
        Ok(self.keeper.storage.retired_keys().await?)
    }

    /// Reads the keys again because a token names one that is not here; not when that was done a moment
    /// ago, so that made-up tokens cost nothing.
    pub async fn refresh_keys(&self) {
        self.read_unless_newer_than(LOOK_AGAIN).await;
    }

    /// Reads the keys now and then and retires those whose time is over, until it is dropped.
    pub async fn run_rotation(&self) {
        panic_point!("signing keys");
        loop {
            tokio::time::sleep(ROUND).await;
            self.read_unless_newer_than(STALE).await;
        }
    }

    fn is_newer_than(&self, read_at: Timestamp, age: Duration) -> bool {
        let now = self.keeper.now();
        now >= read_at && now.since(read_at) < age
    }

    /// When the keys cannot be read, those at hand stay in use.
    async fn read_unless_newer_than(&self, age: Duration) {
        let mut read_at = self.keeper.read_at.lock().await;
        let now = self.keeper.now();
        if self.is_newer_than(*read_at, age) {
            return;
        }
        let read = self.read(now).await;
        // Only now: a caller who goes away in the middle has not put off the others' reading. And
        // whatever came of it: a failing database is not asked more often.
        *read_at = now;
        match read {
            Ok(keys) => {
                self.keys.send_replace(Arc::new(keys));
            }
            Err(cause) => {
                if let Some(left_out) = NOT_READ.admit() {
                    tracing::warn!(
                        %cause,
                        left_out,
                        "signing keys cannot be read; those at hand stay in use"
                    );
                }
            }
        }
    }

    async fn read(&self, now: Timestamp) -> Result<Keys, SigningError> {
        let storage = &self.keeper.storage;
        let mut stored = storage.signing_keys().await?;
        if stored.iter().any(|key| key.retires_at.is_some_and(|at| at <= now)) {
            let event = AuditEvent::new("key_retired", Actor::Server, &self.keeper.clock);
            storage.retire_signing_keys(now, event).await?;
            stored = storage.signing_keys().await?;
        }
        Keys::parse(&stored)
    }
}
