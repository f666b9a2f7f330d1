//! Restarts background tasks that panicked: an accept loop or a clean-up that ended unnoticed would become an
//! outage later. The panic is logged, counted and shown by `/ready`.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::metrics::Metrics;
use super::tasks::Task;

/// Back-off before a task is restarted for the first time. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest back-off. That of a listener is shorter: nobody can connect meanwhile, and a panic in its
/// accept loop was caused by a single connection.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const LONGEST_PAUSE_OF_A_LISTENER: Duration = Duration::from_secs(1);
/// The back-off starts over after a task ran for this long without a panic.
const RECOVERED: Duration = Duration::from_mins(1);

const fn longest_pause(task: Task) -> Duration {
    match task {
        Task::Connections | Task::AdminConnections | Task::PlainConnections => {
            LONGEST_PAUSE_OF_A_LISTENER
        }
        _ => LONGEST_PAUSE,
    }
}

/// The back-off of one task.
struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    const fn of(task: Task) -> Self {
        Self { next: FIRST_PAUSE, longest: longest_pause(task) }
    }

    /// Returns the pause after a panic of a task that had run for `ran`.
    fn after(&mut self, ran: Duration) -> Duration {
        if ran >= RECOVERED {
            self.next = FIRST_PAUSE;
        }
        let pause = self.next;
        self.next = self.longest.min(pause * 2);
        pause
    }
}

/// Runs a task until it returns, and restarts it after each panic.
pub async fn supervise<F: Future<Output = ()>>(
    metrics: &Metrics,
    task: Task,
    mut run: impl FnMut() -> F,
) {
    let state = metrics.tasks().of(task);
    let mut pauses = Pauses::of(task);
    loop {
        let begun = Instant::now();
        let running = AssertUnwindSafe(async { run().await });
        let Err(panic) = running.catch_unwind().await else { return };
        state.waits.store(true, Ordering::SeqCst);
        state.panics.inc();
        let (pause, message) = (pauses.after(begun.elapsed()), super::message_of(&*panic));
        tracing::error!(
            task = task.name(),
            panic = message,
            ?pause,
            "a task panicked; it is started again"
        );
        tokio::time::sleep(pause).await;
        state.waits.store(false, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    #[test]
    fn a_task_that_panics_is_started_ever_more_rarely_until_it_recovers() {
        let mut pauses = Pauses::of(Task::CleanUp);
        let (at_once, late) = (Duration::from_secs(1), RECOVERED);
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000];
        for pause in expected {
            assert_eq!(pauses.after(at_once).as_millis(), pause);
        }
        assert_eq!(pauses.after(late).as_millis(), 100);
        assert_eq!(pauses.after(at_once).as_millis(), 200);

        let mut pauses = Pauses::of(Task::AdminConnections);
        let longest = (0..100).map(|_| pauses.after(at_once)).max();
        assert_eq!(longest, Some(LONGEST_PAUSE_OF_A_LISTENER));
    }

    #[tokio::test]
    async fn what_became_of_a_task_is_told_for_some_minutes() {
        let (metrics, mut starts) = (Metrics::new(), 0);
        let now = Timestamp::from_unix(1_800_000_000);
        supervise(&metrics, Task::CleanUp, || {
            starts += 1;
            let first = starts == 1;
            async move { assert!(!first, "on purpose") }
        })
        .await;

        assert_eq!(starts, 2);
        let told = [("clean-up", "panicked, and was started again")];
        assert_eq!(metrics.tasks().in_trouble(now), told);
        assert!(metrics.tasks().in_trouble(now.plus(Duration::from_mins(5))).is_empty());
    }
}
