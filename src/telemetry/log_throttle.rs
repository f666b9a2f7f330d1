//! Rate limits for log lines. Events that anybody can cause are logged once a second, with the number of
//! lines left out. Failures that repeat while something is broken are logged once a minute. A flood must
//! neither fill the disk nor hide all other lines (threat DS-08).

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::ThreadId;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// Pause between two lines of one kind, for events that anybody can cause.
const PAUSE: Duration = Duration::from_secs(1);
/// Pause between two lines about a failure that repeats.
const MINUTE: Duration = Duration::from_mins(1);
/// Number of kinds of lines that have rate limits of their own: 20. Further kinds share one limit, so that
/// a stranger who invents kinds takes no memory.
const KINDS: usize = 20;

/// Whether each thread has rate limits of its own.
static PER_THREAD: AtomicBool = AtomicBool::new(false);

/// Gives each thread rate limits of its own, for test processes, in which each thread runs a server. What one
/// server logs there must not depend on what the others log in the same second.
pub fn limit_per_thread() {
    PER_THREAD.store(true, Ordering::Relaxed);
}

/// Returns the thread that a line counts for; `None` for the whole process.
fn counted_for() -> Option<ThreadId> {
    PER_THREAD.load(Ordering::Relaxed).then(|| std::thread::current().id())
}

/// A rate limit for one kind of line.
pub struct LogThrottle(KeyedLogThrottle);

impl LogThrottle {
    /// Creates a limit of one line a second.
    #[must_use]
    pub const fn new() -> Self {
        Self(KeyedLogThrottle::new())
    }

    /// Creates a limit of one line a minute, for a failure that repeats until somebody repairs its cause.
    #[must_use]
    pub const fn a_minute() -> Self {
        Self(KeyedLogThrottle { kinds: Mutex::new(Vec::new()), pause: MINUTE })
    }

    /// Returns `Some` if a line may be written now, with the number of lines left out since the last one.
    pub fn admit(&self) -> Option<u64> {
        self.0.admit("")
    }
}

impl Default for LogThrottle {
    fn default() -> Self {
        Self::new()
    }
}

/// A rate limit for lines of many kinds: one a second for each kind.
pub struct KeyedLogThrottle {
    kinds: Mutex<Vec<ThrottledKind>>,
    pause: Duration,
}

struct ThrottledKind {
    thread: Option<ThreadId>,
    name: String,
    last: Option<Instant>,
    suppressed: u64,
}

impl ThrottledKind {
    fn is_quiet(&self, pause: Duration) -> bool {
        self.last.is_none_or(|last| last.elapsed() >= pause)
    }

    fn admit(&mut self, pause: Duration) -> Option<u64> {
        if !self.is_quiet(pause) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(Instant::now());
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl KeyedLogThrottle {
    /// Creates a limit of one line a second for each kind.
    #[must_use]
    pub const fn new() -> Self {
        Self { kinds: Mutex::new(Vec::new()), pause: PAUSE }
    }

    /// Returns `Some` if a line of this kind may be written now, with the number of lines of that kind left
    /// out since the last one. If a caller invents kinds, those beyond the first ones share one line a
    /// second.
    pub fn admit(&self, kind: &str) -> Option<u64> {
        let thread = counted_for();
        let mut kinds = self.kinds.lock();
        let known = |kinds: &[ThrottledKind], name: &str| {
            kinds.iter().position(|known| known.thread == thread && known.name == name)
        };
        let index = known(&kinds, kind).unwrap_or_else(|| {
            let count =
                |kinds: &[ThrottledKind]| kinds.iter().filter(|kind| kind.thread == thread).count();
            if count(&kinds) >= KINDS {
                // Evicts kinds of which no line was written for the pause, with their counts.
                kinds.retain(|kind| kind.thread != thread || !kind.is_quiet(self.pause));
            }
            let name = if count(&kinds) < KINDS { kind } else { "" };
            known(&kinds, name).unwrap_or_else(|| {
                kinds.push(ThrottledKind {
                    thread,
                    name: name.to_owned(),
                    last: None,
                    suppressed: 0,
                });
                kinds.len() - 1
            })
        });
        kinds.get_mut(index)?.admit(self.pause)
    }
}

impl Default for KeyedLogThrottle {
    fn default() -> Self {
        Self::new()
    }
}

/// A rate limit of a number of lines per minute.
pub struct LogQuota {
    most: u32,
    /// One entry; in a test process one per thread.
    minutes: Mutex<Vec<ThrottleMinute>>,
}

struct ThrottleMinute {
    thread: Option<ThreadId>,
    begun: Option<Instant>,
    written: u32,
    suppressed: u64,
}

impl LogQuota {
    /// Creates a limit of `most` lines a minute.
    #[must_use]
    pub const fn a_minute(most: u32) -> Self {
        Self { most, minutes: Mutex::new(Vec::new()) }
    }

    /// Returns `Some` if another line may be written, with the number of lines left out since the last one.
    pub fn admit(&self) -> Option<u64> {
        let thread = counted_for();
        let mut minutes = self.minutes.lock();
        let known = minutes.iter().position(|minute| minute.thread == thread);
        let index = known.unwrap_or_else(|| {
            minutes.push(ThrottleMinute { thread, begun: None, written: 0, suppressed: 0 });
            minutes.len() - 1
        });
        let minute = minutes.get_mut(index)?;
        if minute.begun.is_none_or(|begun| begun.elapsed() >= MINUTE) {
            (minute.begun, minute.written) = (Some(Instant::now()), 0);
        }
        if minute.written >= self.most {
            minute.suppressed += 1;
            return None;
        }
        minute.written += 1;
        Some(std::mem::take(&mut minute.suppressed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_that_says_how_many_were_left_out() {
        let rarely = LogThrottle::new();
        assert_eq!(rarely.admit(), Some(0));
        assert!((0..1000).all(|_| rarely.admit().is_none()));
        rarely.0.kinds.lock()[0].last = None; // a second later
        assert_eq!(rarely.admit(), Some(1000));
        assert_eq!(rarely.admit(), None);
    }

    #[test]
    fn what_fails_over_and_over_is_a_line_a_minute() {
        let ago = |time| Some(Instant::now().checked_sub(time).unwrap());
        let rarely = LogThrottle::a_minute();
        assert_eq!(rarely.admit(), Some(0));
        for seconds in [1, 10, 50] {
            rarely.0.kinds.lock()[0].last = ago(Duration::from_secs(seconds));
            assert_eq!(rarely.admit(), None, "{seconds}");
        }
        rarely.0.kinds.lock()[0].last = ago(MINUTE);
        assert_eq!(rarely.admit(), Some(3));
    }

    #[test]
    fn kinds_do_not_hide_each_other_and_made_up_ones_share_a_line() {
        let each = KeyedLogThrottle::new();
        assert_eq!((each.admit("one"), each.admit("two")), (Some(0), Some(0)));
        assert_eq!((each.admit("one"), each.admit("two")), (None, None));
        let told = (0..1000).filter(|n| each.admit(&format!("made up {n}")).is_some()).count();
        assert_eq!(told, KINDS - 2 + 1);
        assert!(each.kinds.lock().len() <= KINDS + 1);
        for kind in each.kinds.lock().iter_mut() {
            kind.last = None; // a second later
        }
        assert_eq!(each.admit("one"), Some(1));
    }

    #[test]
    fn a_minute_has_so_many_lines_and_the_next_one_says_how_many_were_left_out() {
        let many = LogQuota::a_minute(3);
        assert_eq!((0..10).filter(|_| many.admit().is_some()).count(), 3);
        many.minutes.lock()[0].begun = None; // a minute later
        assert_eq!((many.admit(), many.admit()), (Some(7), Some(0)));
    }
}
