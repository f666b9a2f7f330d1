//! What a process remembers of people's tokens: recent ones, refused ones, and failures of a moment ago.
//! Everything here may be lost: the database has what counts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quick_cache::sync::Cache;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};
use tokio::time::Instant;

use super::service_token::ServiceToken;
use crate::clock::Timestamp;

/// Most tokens that are remembered: 10,000. More people at once cost a read of the database each second.
const REMEMBERED: usize = 10_000;
/// How long a token is used without a look at the database: 1 second, as a grant.
const RECENT: Duration = Duration::from_secs(1);
/// A refusal forces at most one refresh of a token a minute: an MCP server that answers 401 to everything
/// would otherwise cause one at every call.
const FORCED_AT_MOST_EVERY: Duration = Duration::from_mins(1);
/// After a failure the service is not asked about the same token for 5 s.
const PAUSE: Duration = Duration::from_secs(5);

/// Tokens that were read from the database a moment ago.
pub struct RecentTokens {
    tokens: Cache<String, RecentToken>,
    /// Changes whenever an older token may no longer be used.
    changes: watch::Receiver<u64>,
}

#[derive(Clone)]
struct RecentToken {
    token: Arc<ServiceToken>,
    seen: TokenLook,
}

/// When the database is about to be read.
#[derive(Clone, Copy)]
pub struct TokenLook {
    changes: u64,
    at: Instant,
}

impl RecentTokens {
    /// `changes` wakes whenever an older token may no longer be used.
    pub fn new(changes: watch::Receiver<u64>) -> Self {
        Self { tokens: Cache::new(REMEMBERED), changes }
    }

    /// To be called before the database is read.
    pub fn look(&self) -> TokenLook {
        TokenLook { changes: *self.changes.borrow(), at: Instant::now() }
    }

    /// Returns the token, if it was read less than a second ago and nothing has changed since.
    pub fn get(&self, key: &str) -> Option<Arc<ServiceToken>> {
        let RecentToken { token, seen } = self.tokens.get(key)?;
        let is_recent = seen.changes == *self.changes.borrow() && seen.at.elapsed() < RECENT;
        is_recent.then_some(token)
    }

    /// Remembers a token that was read after `seen`.
    pub fn put(&self, key: &str, token: Arc<ServiceToken>, seen: TokenLook) {
        self.tokens.insert(key.to_owned(), RecentToken { token, seen });
    }
}

/// No token has this version: those of stored tokens begin with 1.
const NO_VERSION: i64 = i64::MIN;

/// Tokens that a service refused although they had not ended.
pub struct RefusedTokens {
    tokens: Cache<String, (i64, Timestamp)>,
    /// Whether any was refused: until then, no call has to look for its own.
    any: AtomicBool,
}

impl Default for RefusedTokens {
    fn default() -> Self {
        Self { tokens: Cache::new(REMEMBERED), any: AtomicBool::new(false) }
    }
}

impl RefusedTokens {
    /// Notes that the token of this version was refused. Returns `false` if a refusal forced a refresh within
    /// the last minute: then this one says nothing new.
    pub fn note(&self, key: &str, version: i64, now: Timestamp) -> bool {
        if let Some((known, at)) = self.tokens.get(key) {
            if known == version {
                return true;
            }
            if at <= now && now.since(at) < FORCED_AT_MOST_EVERY {
                return false;
            }
        }
        self.insert(key, version, now);
        true
    }

    /// Forgets the refusal: it had another reason than the token. For a minute, further ones say nothing new.
    pub fn clear(&self, key: &str, now: Timestamp) {
        self.insert(key, NO_VERSION, now);
    }

    fn insert(&self, key: &str, version: i64, now: Timestamp) {
        self.tokens.insert(key.to_owned(), (version, now));
        self.any.store(true, Ordering::Release);
    }

    /// Returns the version that was refused.
    pub fn version(&self, key: &str) -> Option<i64> {
        if !self.any.load(Ordering::Acquire) {
            return None;
        }
        self.tokens.get(key).map(|(version, _)| version)
    }
}

/// Failures of a moment ago, so that not every waiting call asks a service that is down.
pub struct ServicePauses(Cache<String, Timestamp>);

impl Default for ServicePauses {
    fn default() -> Self {
        Self(Cache::new(REMEMBERED))
    }
}

impl ServicePauses {
    /// Notes a failure at `now`.
    pub fn begin(&self, key: &str, now: Timestamp) {
        self.0.insert(key.to_owned(), now);
    }

    /// Returns whether there was a failure less than 5 s ago.
    pub fn is_paused(&self, key: &str, now: Timestamp) -> bool {
        self.0.get(key).is_some_and(|at| at <= now && now.since(at) < PAUSE)
    }

    /// Forgets the failure.
    pub fn end(&self, key: &str) {
        self.0.remove(key);
    }
}

/// Lets one task at a time in this process work on a key.
#[derive(Default)]
pub struct OneAtATime(Mutex<HashMap<String, Weak<AsyncMutex<()>>>>);

impl OneAtATime {
    /// Waits for its turn. The key is free again when the returned guard is dropped.
    pub async fn turn(&self, key: &str) -> OwnedMutexGuard<()> {
        let turn = {
            let mut all = self.0.lock();
            let known = all.get(key).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                all.retain(|_, turn| turn.strong_count() > 0);
                let turn = Arc::default();
                all.insert(key.to_owned(), Arc::downgrade(&turn));
                turn
            })
        };
        turn.lock_owned().await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix(seconds)
    }

    #[test]
    fn a_recent_token_is_used_for_a_second_and_until_something_changes() {
        let changes = watch::Sender::new(0);
        let recent = RecentTokens::new(changes.subscribe());
        let token = || Arc::new(ServiceToken::new("t", None, [].into(), 1).unwrap());
        recent.put("a", token(), recent.look());
        assert!(recent.get("a").is_some() && recent.get("b").is_none());
        let a_second_ago = TokenLook { at: Instant::now() - RECENT, ..recent.look() };
        recent.put("a", token(), a_second_ago);
        assert!(recent.get("a").is_none());

        let seen = recent.look();
        changes.send_modify(|count| *count += 1);
        recent.put("a", token(), seen);
        assert!(recent.get("a").is_none(), "it was read before the change");
    }

    #[test]
    fn a_refusal_forces_one_refresh_a_minute() {
        let refused = RefusedTokens::default();
        assert_eq!(refused.version("a"), None);
        assert!(refused.note("a", 1, at(1000)));
        assert!(refused.note("a", 1, at(1001)), "the same token, before anybody refreshed it");
        assert!(!refused.note("a", 2, at(1059)), "the new token is refused too");
        assert_eq!(refused.version("a"), Some(1));
        assert!(refused.note("a", 2, at(1060)));
        assert!(refused.note("a", 3, at(5)), "the clock was set back");
        assert_eq!(refused.version("a"), Some(3));
        refused.clear("a", at(10));
        assert!(!refused.note("a", 3, at(69)) && refused.version("a") != Some(3));
        assert!(refused.note("a", 3, at(70)));
    }

    #[test]
    fn a_pause_ends_after_five_seconds_or_with_a_success() {
        let pauses = ServicePauses::default();
        pauses.begin("a", at(1000));
        assert!(pauses.is_paused("a", at(1004)) && !pauses.is_paused("b", at(1004)));
        assert!(!pauses.is_paused("a", at(1005)));
        assert!(!pauses.is_paused("a", at(999)), "the clock was set back");
        pauses.end("a");
        assert!(!pauses.is_paused("a", at(1000)));
    }

    #[tokio::test]
    async fn one_task_at_a_time_has_a_key() {
        let turns = OneAtATime::default();
        let first = turns.turn("a").await;
        drop(turns.turn("b").await);
        let mut waiting = std::pin::pin!(turns.turn("a"));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        waiting.await;
    }
}
