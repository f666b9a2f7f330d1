//! Key rotation. A new key is published before it signs, and an old one stays published as long as its tokens
//! can be valid. Verifiers therefore never meet a key that they could not have fetched.
//!
//! The database stores when each key signs and retires. Every replica reads it once a minute and switches by
//! its own clock; replicas do not communicate.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{KeyRing, SigningError, SigningKeys, generate};
use crate::clock::{Clock, Timestamp};
use crate::config::TokenAlg;
use crate::storage::{RetiredKey, Storage};
use crate::telemetry::audit::{Actor, AuditEvent};
use crate::telemetry::log_throttle::LogThrottle;

static NOT_READ: LogThrottle = LogThrottle::a_minute();

/// A key is published 10 minutes before it signs: twice the `max-age` of the JWK set, and ten times the
/// interval at which replicas read the keys. With less, verifiers meet unknown keys; with more, a rotation
/// takes longer.
pub const PUBLISHED_BEFORE: Duration = Duration::from_mins(10);
/// A key stays published for 65 minutes after its successor signs: the longest lifetime of an access token (1
/// hour), plus 5 minutes for clock differences. With less, valid tokens are rejected.
const KEPT_AFTER: Duration = Duration::from_mins(65);
/// Maximum age of the keys in memory: 1 minute.
const STALE: Duration = Duration::from_mins(1);
/// Longest wait of a request for the published keys, 1 s. After that the keys in memory are returned.
const PUBLISHED_KEYS_TIMEOUT: Duration = Duration::from_secs(1);
/// Tokens with an unknown key cause at most one read of the keys per 10 s.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Interval of the background check, 20 s. The check reads the keys only if they are older than `STALE`.
const ROUND: Duration = Duration::from_secs(20);

/// State for reading the keys from the database again.
pub(super) struct Keeper {
    storage: Storage,
    clock: Clock,
    algs: parking_lot::Mutex<Vec<TokenAlg>>,
    /// When the keys were last read. The lock lets one task read while the others wait for it.
    read_at: Mutex<Timestamp>,
}

impl Keeper {
    pub(super) fn new(storage: Storage, clock: Clock, algs: Vec<TokenAlg>) -> Self {
        // Zero makes the first call read immediately: a key may have expired while no server ran.
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRotation {
    /// The next keys are stored.
    Begun,
    /// A rotation is already in progress; another one can start only after it.
    UnderWay,
}

/// Stores the next key of every algorithm in `algs`. Running servers load it from the database.
pub async fn rotate(
    storage: &Storage,
    algs: &[TokenAlg],
    now: Timestamp,
    event: AuditEvent,
) -> Result<KeyRotation, SigningError> {
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
        return Ok(KeyRotation::UnderWay);
    }
    let retire_at = signs_from.plus(KEPT_AFTER);
    let first = storage.rotate_signing_keys(&next, retire_at, event).await?;
    Ok(if first { KeyRotation::Begun } else { KeyRotation::UnderWay })
}

impl KeyRing {
    /// Stores the next keys. This process publishes them immediately, other replicas within a minute.
    pub async fn rotate(&self, event: AuditEvent) -> Result<KeyRotation, SigningError> {
        let keeper = &self.keeper;
        let algs = keeper.algs().clone();
        let rotated = rotate(&keeper.storage, &algs, keeper.now(), event).await?;
        self.read_unless_newer_than(Duration::ZERO).await;
        Ok(rotated)
    }

    /// Signs with these algorithms from now on. Generates the first key of each algorithm that has none.
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

    /// Returns the public keys as a JWK set, at most a minute old, or older while the database does not
    /// respond.
    pub async fn published(&self) -> Arc<str> {
        // The separate task finishes the read even if its caller disconnects. Only one task reads at a time;
        // other callers do not wait for it and get the keys in memory.
        if let Ok(read_at) = self.keeper.read_at.try_lock() {
            let is_new = self.is_newer_than(*read_at, STALE);
            drop(read_at);
            if !is_new {
                let ring = self.clone();
                let reading = tokio::spawn(async move { ring.read_unless_newer_than(STALE).await });
                let _ = timeout(PUBLISHED_KEYS_TIMEOUT, reading).await;
            }
        }
        self.jwks()
    }

    /// Returns the retired keys, newest first.
    pub async fn retired(&self) -> Result<Vec<RetiredKey>, SigningError> {
        self.read_unless_newer_than(STALE).await;
        Ok(self.keeper.storage.retired_keys().await?)
    }

    /// Reads the keys again because a token names an unknown key. Skipped if the last read was less than 10 s
    /// ago, so that forged tokens cause no load.
    pub async fn refresh_keys(&self) {
        self.read_unless_newer_than(LOOK_AGAIN).await;
    }

    /// Reads the keys at intervals and retires expired ones, until the future is dropped.
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

    /// Reads the keys unless the last read is younger than `age`. If reading fails, the keys in memory stay
    /// in use.
    async fn read_unless_newer_than(&self, age: Duration) {
        let mut read_at = self.keeper.read_at.lock().await;
        let now = self.keeper.now();
        if self.is_newer_than(*read_at, age) {
            return;
        }
        let read = self.read(now).await;
        // The time is set only after the read, so that a cancelled caller does not delay the others' read. It
        // is set after a failure too, so that a failing database is not queried more often.
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

    async fn read(&self, now: Timestamp) -> Result<SigningKeys, SigningError> {
        let storage = &self.keeper.storage;
        let mut stored = storage.signing_keys().await?;
        if stored.iter().any(|key| key.retires_at.is_some_and(|at| at <= now)) {
            let event = AuditEvent::new("key_retired", Actor::Server, &self.keeper.clock);
            storage.retire_signing_keys(now, event).await?;
            stored = storage.signing_keys().await?;
        }
        SigningKeys::parse(&stored)
    }
}
