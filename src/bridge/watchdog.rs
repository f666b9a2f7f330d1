//! Ends processes whose bridge was killed.
//!
//! The bridge starts one helper process, itself with `--watchdog`, and tells it over a pipe which process groups
//! run. When the bridge ends in any way, the kernel closes the pipe. The helper then ends the groups that are
//! left: a bridge that was killed with SIGKILL could not. (`PR_SET_PDEATHSIG` would reach the first process of
//! a group only, and setting it in the child needs `unsafe`.)

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout};

/// How long processes have after the end of their input, and again after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);
/// Pause between two looks at a process group. The kernel tells nobody but a parent of an end.
pub(super) const LOOK: Duration = Duration::from_millis(20);

/// The bridge's side.
pub(super) struct Watchdog(Mutex<WatchdogState>);

struct WatchdogState {
    groups: BTreeSet<i32>,
    helper: Option<Helper>,
}

struct Helper {
    process: Child,
    pipe: ChildStdin,
}

impl Helper {
    fn start() -> io::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["bridge", "--watchdog"])
            .env_clear()
            .process_group(0) // a Ctrl-C in the terminal is for the bridge
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let pipe = process.stdin.take().ok_or_else(|| io::Error::other("no pipe"))?;
        Ok(Self { process, pipe })
    }

    /// Closes the pipe and waits for the end of the helper.
    fn end(self) {
        let Self { mut process, pipe } = self;
        drop(pipe);
        let _ = process.wait();
    }
}

impl Watchdog {
    /// Starts the helper.
    pub(super) fn start() -> io::Result<Self> {
        let state = WatchdogState { groups: BTreeSet::new(), helper: Some(Helper::start()?) };
        Ok(Self(Mutex::new(state)))
    }

    /// Names a process group that runs from now on.
    pub(super) fn add(&self, group: Pid) {
        let mut state = self.0.lock();
        state.groups.insert(group.as_raw_pid());
        state.tell(&format!("+{}\n", group.as_raw_pid()));
    }

    /// Names a process group that has ended.
    pub(super) fn remove(&self, group: Pid) {
        let mut state = self.0.lock();
        state.groups.remove(&group.as_raw_pid());
        state.tell(&format!("-{}\n", group.as_raw_pid()));
    }

    /// Ends the helper, which ends what is left.
    pub(super) fn end(&self) {
        if let Some(helper) = self.0.lock().helper.take() {
            helper.end();
        }
    }
}

impl WatchdogState {
    /// Tells the helper. If somebody has ended it, starts another, which has to hear of all groups.
    fn tell(&mut self, line: &str) {
        let told = self.helper.as_mut().map(|helper| helper.pipe.write_all(line.as_bytes()));
        if matches!(told, Some(Ok(()))) {
            return;
        }
        if let Some(helper) = self.helper.take() {
            helper.end();
        }
        let again = Helper::start().and_then(|mut helper| {
            for group in &self.groups {
                writeln!(helper.pipe, "+{group}")?;
            }
            Ok(helper)
        });
        match again {
            Ok(helper) => self.helper = Some(helper),
            Err(cause) => tracing::warn!(
                %cause,
                "the watchdog cannot be started again; if the bridge is killed, processes may stay"
            ),
        }
    }
}

/// The helper's side: reads until the bridge is gone, and ends what it left.
pub async fn watch() -> io::Result<()> {
    // A signal to all processes of the bridge is for the bridge. The helper ends after it.
    let kinds = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()];
    let _signals: Vec<_> = kinds.into_iter().map(signal).collect::<io::Result<_>>()?;
    let left = tokio::task::spawn_blocking(|| {
        let mut groups = BTreeSet::new();
        for line in io::stdin().lock().lines().map_while(Result::ok) {
            note(&mut groups, &line);
        }
        groups
    });
    let left = left.await.map_err(io::Error::other)?;
    end_groups(left.into_iter().filter_map(Pid::from_raw).collect()).await;
    Ok(())
}

fn note(groups: &mut BTreeSet<i32>, line: &str) {
    // 0 and 1 would mean other processes than those of the bridge.
    let group = |digits: &str| digits.parse::<i32>().ok().filter(|group| *group > 1);
    match (line.strip_prefix('+').and_then(group), line.strip_prefix('-').and_then(group)) {
        (Some(begun), _) => drop(groups.insert(begun)),
        (_, Some(ended)) => drop(groups.remove(&ended)),
        _ => {}
    }
}

async fn end_groups(mut groups: Vec<Pid>) {
    for signal in [None, Some(Signal::TERM), Some(Signal::KILL)] {
        for group in &groups {
            let _ = signal.map(|signal| kill_process_group(*group, signal));
        }
        let waited = timeout(GRACE, async {
            while !groups.is_empty() {
                groups.retain(|group| test_kill_process_group(*group).is_ok());
                sleep(LOOK).await;
            }
        });
        if waited.await.is_ok() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_helper_ends_only_groups_that_are_left() {
        let mut groups = BTreeSet::new();
        for line in ["+12", "+13", "-12", "+1", "+0", "+-1", "+x", "", "-99", "14"] {
            note(&mut groups, line);
        }
        assert_eq!(groups, BTreeSet::from([13]));
    }
}
