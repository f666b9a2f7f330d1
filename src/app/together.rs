//! Compares this replica's clock and configuration with those of the other replicas.
//!
//! Each replica decides by its own clock whether something has expired. So each compares its clock with that
//! of the database, which all can read. If the database's clock is the wrong one, all replicas differ from
//! it, and none of them must be taken out of service for that. So `/ready` fails only on a replica whose
//! clock is off while the clock of another replica is not.

use std::collections::BTreeMap;
use std::time::Duration;

use super::App;
use crate::clock::{REPLICAS_APART, Timestamp};
use crate::oauth::secret::random_text;
use crate::storage::{ReplicaReport, StorageError};
use parking_lot::{Mutex, MutexGuard};

/// A warning is logged if the clock differs from the database's by more than this many seconds.
const WARN: i64 = 20;
/// Most seconds that the clock may differ from the database's: half of [`REPLICAS_APART`], because two
/// replicas may be off in opposite directions.
#[expect(clippy::cast_possible_wrap, reason = "half a minute")]
const TOLERANCE: i64 = (REPLICAS_APART.as_secs() / 2) as i64;
/// If the database takes longer than this to respond, its time is not used for the comparison.
const QUICK: Duration = Duration::from_secs(5);
/// Interval between two reports of a replica.
pub(super) const REPORT: Duration = Duration::from_secs(15);

/// What this process knows about the other replicas.
pub(super) struct Together {
    id: String,
    seen: Mutex<Compared>,
}

impl Default for Together {
    fn default() -> Self {
        Self { id: random_text(), seen: Mutex::default() }
    }
}

/// The result of comparing this replica with the database and the other replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compared {
    /// Seconds that the clock is ahead of the database's; negative if behind. `None` if it was not compared.
    pub clock_ahead: Option<i64>,
    /// The clock is off by more than it may be, and that of at least one other replica is not.
    pub clock_apart: bool,
    /// The number of other running replicas.
    pub others: usize,
    /// How many of them have the same version and another configuration.
    pub configured_differently: usize,
    /// The parts of the configuration that differ, by name.
    pub differing: Vec<String>,
}

impl Compared {
    /// Returns by how many seconds the clock is ahead, if that deserves a warning.
    pub fn clock_off(&self) -> Option<i64> {
        self.clock_ahead.filter(|ahead| ahead.abs() > WARN)
    }
}

impl App {
    fn compared_now(&self) -> MutexGuard<'_, Compared> {
        self.0.shared.together.seen.lock()
    }

    /// Returns the latest comparison with the other replicas.
    pub fn compared(&self) -> Compared {
        self.compared_now().clone()
    }

    /// Stores a report of this replica, and compares it with the database's time and the other replicas. Logs
    /// changes only.
    pub async fn compare_with_replicas(&self) -> Result<(), StorageError> {
        let before = self.clock().unix_millis();
        let Some(theirs) = self.storage().database_time().await? else { return Ok(()) };
        let after = self.clock().unix_millis();
        let took = Duration::from_millis(u64::try_from(after - before).unwrap_or_default());
        let ahead = seconds(before + (after - before) / 2 - theirs);
        // A slow response says little about the clock, so the previous result is kept.
        let ahead = if took > QUICK { self.compared().clock_ahead.unwrap_or(0) } else { ahead };
        let own = ReplicaReport {
            id: self.0.shared.together.id.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            configuration: self.hashes_of_configuration(),
            clock_ahead: ahead,
        };
        let now = Timestamp::from_unix(theirs / 1000);
        let others = self.storage().report_replica(&own, now).await?;
        let compared = compare(&own, &others);
        let before = std::mem::replace(&mut *self.compared_now(), compared.clone());
        tell(&before, &compared);
        Ok(())
    }

    /// Removes the report of this replica, at shutdown.
    pub(super) async fn withdraw(&self) {
        let together = &self.0.shared.together;
        if self.compared().clock_ahead.is_some() {
            // A row that remains expires within minutes, so shutdown does not wait long for an unreachable
            // database.
            let withdrawn = self.storage().withdraw_replica(&together.id);
            let _ = tokio::time::timeout(Duration::from_secs(1), withdrawn).await;
        }
    }

    /// Returns a hash of each part of the configuration, without the keys that may differ between replicas.
    fn hashes_of_configuration(&self) -> String {
        let parts = self.config().written.parts();
        let text = parts.iter().map(|(part, hashes)| {
            let hashes: Vec<&[u8]> = hashes.iter().map(Vec::as_slice).collect();
            format!("{part}={}", self.storage().hash_of_configuration(part, &hashes))
        });
        text.collect::<Vec<_>>().join(" ")
    }
}

/// Converts milliseconds to seconds, rounded.
const fn seconds(millis: i64) -> i64 {
    (millis + 500).div_euclid(1000)
}

fn compare(own: &ReplicaReport, others: &[ReplicaReport]) -> Compared {
    let fits = |ahead: i64| ahead.abs() <= TOLERANCE;
    let mut differing: Vec<String> = Vec::new();
    let mut configured_differently = 0;
    // Replicas of other versions are skipped: they may know other keys.
    for other in others.iter().filter(|other| other.version == own.version) {
        if other.configuration != own.configuration {
            configured_differently += 1;
            differing.extend(differences(&own.configuration, &other.configuration));
        }
    }
    differing.sort();
    differing.dedup();
    Compared {
        clock_ahead: Some(own.clock_ahead),
        clock_apart: !fits(own.clock_ahead) && others.iter().any(|other| fits(other.clock_ahead)),
        others: others.len(),
        configured_differently,
        differing,
    }
}

/// Returns the names of the parts that differ.
fn differences(one: &str, other: &str) -> Vec<String> {
    let parts = |text: &str| -> BTreeMap<String, String> {
        let parts = text.split(' ').filter_map(|part| part.split_once('='));
        parts.map(|(name, hash)| (name.to_owned(), hash.to_owned())).collect()
    };
    let (one, other) = (parts(one), parts(other));
    let names = one.keys().chain(other.keys());
    let differs = |name: &&String| one.get(*name) != other.get(*name);
    names.filter(differs).cloned().collect()
}

fn tell(before: &Compared, now: &Compared) {
    match (before.clock_off(), now.clock_off()) {
        (None, Some(ahead)) => tracing::warn!(
            ahead,
            "the clock of this replica differs from the database's by more than 20 seconds; set both by NTP. Beyond half a minute, what other replicas make is refused here"
        ),
        (Some(_), None) => tracing::info!("the clock of this replica is right again"),
        _ => {}
    }
    if now.clock_apart && !before.clock_apart {
        tracing::error!(
            ahead = now.clock_ahead,
            "the clock of this replica is wrong, and other replicas have the right time: /ready says no"
        );
    }
    if now.differing != before.differing {
        if now.differing.is_empty() {
            tracing::info!("the replicas have the same configuration again");
        } else {
            tracing::warn!(
                replicas = now.configured_differently,
                parts = now.differing.join(", "),
                "other replicas have another configuration: people get other answers from one request to the next"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(configuration: &str, clock_ahead: i64) -> ReplicaReport {
        let (id, version) = (String::new(), "1".to_owned());
        ReplicaReport { id, version, configuration: configuration.to_owned(), clock_ahead }
    }

    #[test]
    fn a_clock_is_apart_only_where_another_replica_has_the_right_time() {
        for (own, others, apart) in [
            (30, &[0][..], false),
            (31, &[0], true),
            (-31, &[5], true),
            (70, &[], false),
            (70, &[70, 71], false),
            (70, &[70, 0], true),
            (70, &[-70], false),
            (0, &[70, 70], false),
        ] {
            let others: Vec<_> = others.iter().map(|ahead| replica("", *ahead)).collect();
            assert_eq!(compare(&replica("", own), &others).clock_apart, apart, "{own} {others:?}");
        }
    }

    #[test]
    fn differences_are_named_by_part_and_other_versions_are_left_out() {
        let own = replica("tokens=a upstream=b", 0);
        let newer = ReplicaReport { version: "2".to_owned(), ..replica("tokens=x", 0) };
        let others =
            [replica("tokens=a upstream=c", 0), replica("tokens=a upstream=b limits=d", 0), newer];

        let compared = compare(&own, &others);

        assert_eq!(compared.differing, ["limits", "upstream"]);
        assert_eq!((compared.others, compared.configured_differently), (3, 2));
    }

    #[test]
    fn milliseconds_are_rounded_to_both_sides() {
        for (millis, rounded) in [(0, 0), (499, 0), (500, 1), (-499, 0), (-600, -1), (70_020, 70)] {
            assert_eq!(seconds(millis), rounded);
        }
    }
}
