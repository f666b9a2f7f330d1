//! Counts calls through the gateway, in memory, and writes the sums to the database now and then. A crash
//! loses what was counted since the last write.
//!
//! A call takes one lock and two look-ups to find its counter, and adds one there when its outcome is known.
//! Memory is bounded: a process holds so many counters, and each MCP server so many names of tools. Anything
//! beyond that is counted without a name.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use parking_lot::Mutex as Lock;
use tokio::sync::Mutex;

use super::App;
use super::tool_names::ToolNames;
use crate::clock::Timestamp;
use crate::oauth::random_key::RandomKeys;
use crate::storage::{CallCounts, CallOutcome, CalledName, LiveGrant, StorageError, UsageKey};
use crate::telemetry::log_throttle::LogThrottle;

/// How often the counts are written: every 10 seconds. A crash loses at most so much.
const WRITE: Duration = Duration::from_secs(10);
/// Maps that are locked separately: 16. Calls of one grant meet in one of them.
const SHARDS: usize = 16;
/// Most counters in each of them: 2,048. All together are some megabytes.
const MOST_COUNTERS: usize = 2048;
/// Most sums that wait to be written while the database does not take them: 65,536.
const MOST_WAITING: usize = 65_536;
/// Sums written in one transaction: 500.
const BATCH: usize = 500;

static NOT_WRITTEN: LogThrottle = LogThrottle::a_minute();
static NOT_COUNTED: LogThrottle = LogThrottle::a_minute();

/// What is called, before it is known whether it gets a counter of its own.
#[derive(Clone, Copy, Debug)]
pub enum Called<'a> {
    /// A tool, and whether the configuration names it.
    Tool(&'a str, bool),
    /// A method that MCP defines.
    Method(&'static str),
    /// A method that MCP does not define, or a request that was not read.
    Unknown,
}

/// Calls of one tool by one grant, by outcome, since they were last written.
#[derive(Debug, Default)]
pub struct CallCounter([AtomicU32; CallOutcome::ALL.len()]);

impl CallCounter {
    pub fn count(&self, outcome: CallOutcome) {
        if let Some(count) = self.0.get(outcome as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Takes what was counted; `None` if nothing was.
    fn take(&self) -> Option<CallCounts> {
        let mut counts = CallCounts::default();
        for (taken, count) in counts.0.iter_mut().zip(&self.0) {
            *taken = i64::from(count.swap(0, Ordering::Relaxed));
        }
        (counts.total() > 0).then_some(counts)
    }
}

/// The counters of one grant.
struct GrantCounters {
    subject: String,
    client_id: String,
    resource: String,
    /// By name; the empty one is for all without a counter of their own.
    tools: BTreeMap<String, Arc<CallCounter>>,
    methods: BTreeMap<&'static str, Arc<CallCounter>>,
}

impl GrantCounters {
    fn of(grant: &LiveGrant) -> Self {
        Self {
            subject: grant.subject.clone(),
            client_id: grant.client_id.clone(),
            resource: grant.resource.clone(),
            tools: BTreeMap::new(),
            methods: BTreeMap::new(),
        }
    }

    fn find(&self, called: Called<'_>) -> Option<&Arc<CallCounter>> {
        match called {
            Called::Tool(name, _) => self.tools.get(name),
            Called::Method(name) => self.methods.get(name),
            Called::Unknown => self.methods.get(""),
        }
    }

    fn insert(&mut self, called: Called<'_>) -> Arc<CallCounter> {
        let entry = match called {
            Called::Tool(name, _) => self.tools.entry(name.to_owned()).or_default(),
            Called::Method(name) => self.methods.entry(name).or_default(),
            Called::Unknown => self.methods.entry("").or_default(),
        };
        Arc::clone(entry)
    }

    fn len(&self) -> usize {
        self.tools.len() + self.methods.len()
    }

    /// Moves what was counted in `hour` into `sums`. Forgets the counters that nothing was counted in and that
    /// no call in flight has.
    fn collect(&mut self, hour: i64, sums: &mut BTreeMap<UsageKey, CallCounts>) {
        let Self { subject, client_id, resource, tools, methods } = self;
        let mut add = |called: CalledName, counts: &CallCounts| {
            let key = UsageKey {
                hour,
                resource: resource.clone(),
                subject: subject.clone(),
                client_id: client_id.clone(),
                called,
            };
            sums.entry(key).or_default().add(counts);
        };
        tools.retain(|name, counter| {
            let counts = counter.take();
            if let Some(counts) = &counts {
                add(CalledName::Tool(name.clone()), counts);
            }
            counts.is_some() || Arc::strong_count(counter) > 1
        });
        methods.retain(|name, counter| {
            let counts = counter.take();
            if let Some(counts) = &counts {
                add(CalledName::Method((*name).to_owned()), counts);
            }
            counts.is_some() || Arc::strong_count(counter) > 1
        });
    }
}

/// The counters of some grants in one hour.
type CountersByGrant = HashMap<String, GrantCounters, RandomKeys>;

/// The counters of some grants.
#[derive(Default)]
struct Shard {
    hour: i64,
    grants: CountersByGrant,
    counters: usize,
    /// Those of earlier hours, of which not all was written, or which calls in flight still have.
    earlier: Vec<(i64, CountersByGrant)>,
}

impl Shard {
    /// Begins a new hour, if it is one.
    fn turn_to(&mut self, hour: i64) {
        if self.hour != hour {
            self.counters = 0;
            let grants = std::mem::take(&mut self.grants);
            if !grants.is_empty() {
                self.earlier.push((self.hour, grants));
            }
            self.hour = hour;
        }
    }

    fn collect(&mut self, sums: &mut BTreeMap<UsageKey, CallCounts>) {
        for (hour, grants) in &mut self.earlier {
            collect(grants, *hour, sums);
        }
        self.earlier.retain(|(_, grants)| !grants.is_empty());
        collect(&mut self.grants, self.hour, sums);
        self.counters = self.grants.values().map(GrantCounters::len).sum();
    }
}

fn collect(grants: &mut CountersByGrant, hour: i64, sums: &mut BTreeMap<UsageKey, CallCounts>) {
    grants.retain(|_, of_grant| {
        of_grant.collect(hour, sums);
        of_grant.len() > 0
    });
}

/// What the gateway counts.
#[derive(Default)]
pub(super) struct Usage {
    shards: [Lock<Shard>; SHARDS],
    names: ToolNames,
    /// Sums that the database did not take yet.
    waiting: Lock<BTreeMap<UsageKey, CallCounts>>,
    /// Counts the calls for which there is no counter.
    beyond: Arc<CallCounter>,
    /// Serialises writes.
    writing: Mutex<()>,
}

impl Usage {
    /// Returns the sums since the last time, with those that the database did not take then.
    fn collect(&self) -> BTreeMap<UsageKey, CallCounts> {
        let mut sums = std::mem::take(&mut *self.waiting.lock());
        for shard in &self.shards {
            shard.lock().collect(&mut sums);
        }
        sums
    }

    /// Keeps sums for the next time, as many as there is room for.
    fn put_back(&self, sums: &[(UsageKey, CallCounts)]) {
        let mut waiting = self.waiting.lock();
        for (key, counts) in sums {
            if waiting.len() < MOST_WAITING || waiting.contains_key(key) {
                waiting.entry(key.clone()).or_default().add(counts);
            } else {
                self.beyond.count(CallOutcome::Unanswered);
            }
        }
    }
}

/// Whose counters are in which map. The end of an id is random.
fn shard_of(grant_id: &str) -> usize {
    let end = grant_id.bytes().rev().take(4);
    let sum = end.fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    sum % SHARDS
}

impl App {
    /// Returns the counter of a call by this grant, and whether it counts under its own name. It stays that of
    /// the hour in which the call began.
    pub fn call_counter(
        &self,
        grant: &LiveGrant,
        called: Called<'_>,
        now: Timestamp,
    ) -> (Arc<CallCounter>, bool) {
        let usage = &self.0.shared.usage;
        let hour = now.unix().div_euclid(3600);
        let Some(shard) = usage.shards.get(shard_of(&grant.id)) else {
            return (Arc::clone(&usage.beyond), false);
        };
        let mut shard = shard.lock();
        shard.turn_to(hour);
        if let Some(counter) = shard.grants.get(&grant.id).and_then(|known| known.find(called)) {
            return (Arc::clone(counter), true);
        }
        let (called, named) = match called {
            Called::Tool(name, is_configured) => {
                let day = hour.div_euclid(24);
                if usage.names.admits(&grant.resource, name, is_configured, day) {
                    (called, true)
                } else {
                    (Called::Tool("", true), false)
                }
            }
            other => (other, true),
        };
        let known = shard.grants.get(&grant.id);
        if let Some(counter) = known.and_then(|known| known.find(called)) {
            return (Arc::clone(counter), named);
        }
        if shard.counters >= MOST_COUNTERS {
            return (Arc::clone(&usage.beyond), named);
        }
        shard.counters += 1;
        let entry =
            shard.grants.entry(grant.id.clone()).or_insert_with(|| GrantCounters::of(grant));
        (entry.insert(called), named)
    }

    /// Remembers that the MCP server has a tool of this name.
    pub fn prove_tool(&self, resource: &str, name: &str) {
        self.0.shared.usage.names.prove(resource, name);
    }

    /// Writes what was counted so far. What the database does not take is kept for the next time.
    pub async fn write_usage(&self) -> Result<(), StorageError> {
        let usage = &self.0.shared.usage;
        let _alone = usage.writing.lock().await;
        let sums: Vec<(UsageKey, CallCounts)> = usage.collect().into_iter().collect();
        if let Some(beyond) = usage.beyond.take()
            && let Some(left_out) = NOT_COUNTED.admit()
        {
            let calls = beyond.total();
            tracing::warn!(calls, left_out, "calls were not counted: too many sums at once");
        }
        let mut batches = sums.chunks(BATCH);
        while let Some(batch) = batches.next() {
            if let Err(cause) = self.storage().add_usage(batch).await {
                usage.put_back(batch);
                batches.for_each(|batch| usage.put_back(batch));
                return Err(cause);
            }
        }
        Ok(())
    }

    /// Writes what was counted every ten seconds until `stop` is ready, and then once more.
    pub async fn keep_usage(&self, stop: impl Future<Output = ()>) {
        panic_point!("usage");
        let mut stop = std::pin::pin!(stop);
        loop {
            let stopped = tokio::time::timeout(WRITE, &mut stop).await.is_ok();
            if let Err(cause) = self.write_usage().await
                && let Some(left_out) = NOT_WRITTEN.admit()
            {
                tracing::warn!(%cause, left_out, "usage is not written; it is tried again");
            }
            if stopped {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::scope::ScopeSet;
    use crate::policy::Facts;
    use crate::storage::Person;

    #[test]
    fn what_was_counted_is_taken_once_and_idle_counters_go() {
        let mut of_grant = GrantCounters::of(&LiveGrant {
            id: "g".to_owned(),
            client_id: "c".to_owned(),
            session_id: "s".to_owned(),
            subject: "p".to_owned(),
            resource: "r".to_owned(),
            consented_scopes: ScopeSet::default(),
            expires_at: Timestamp::from_unix(0),
            last_ok_at: Timestamp::from_unix(0),
            person: Person { name: None, email: None, facts: Facts::default() },
        });
        let counter = of_grant.insert(Called::Tool("t", false));
        counter.count(CallOutcome::Answered);
        counter.count(CallOutcome::ToolError);

        let mut sums = BTreeMap::new();
        of_grant.collect(7, &mut sums);
        of_grant.collect(7, &mut sums);

        let counted: Vec<_> = sums.iter().map(|(key, counts)| (key.hour, counts.total())).collect();
        assert_eq!(counted, [(7, 2)]);
        assert_eq!(of_grant.len(), 1, "a call in flight still has it");
        drop(counter);
        of_grant.collect(7, &mut sums);
        assert_eq!(of_grant.len(), 0);
    }
}
