//! One process of the MCP server: its start, its input and output, and its end.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Duration, Instant, sleep, timeout};

use super::conversation::{Conversation, Sharing};
use super::message::RpcMessage;
use super::person::BridgePerson;
use super::queue::{NotTaken, QueueReceiver, QueueSender, queue};
use super::stderr::log_lines;
use super::stdout::{StdoutLine, StdoutLines};
use super::watchdog::{LOOK, Watchdog};
use crate::telemetry::log_throttle::LogThrottle;

/// How long a process has to end after its input was closed, and again after SIGTERM.
const GRACE: Duration = Duration::from_secs(3);
/// How long the output of a process that ended is read: other processes of its group may keep it open.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

static NOT_A_MESSAGE: LogThrottle = LogThrottle::new();

/// How processes are started.
pub(super) struct LaunchPlan {
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
    /// The program in log lines.
    pub(super) command: String,
    /// The longest message, in bytes.
    pub(super) longest: usize,
    pub(super) watchdog: Watchdog,
    pub(super) starts: StartBackoff,
}

/// Delays starts after processes that ended before they said anything.
#[derive(Default)]
pub(super) struct StartBackoff(Mutex<BackoffState>);

#[derive(Default)]
struct BackoffState {
    failures: u32,
    not_before: Option<Instant>,
}

/// The first and the longest pause before another start.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// From so many starts in a row that failed on, `/health` says so.
const UNHEALTHY: u32 = 3;

impl StartBackoff {
    /// Returns how long to wait before the next start, if at all.
    pub(super) fn wait(&self) -> Option<Duration> {
        let left = self.0.lock().not_before?.saturating_duration_since(Instant::now());
        (!left.is_zero()).then_some(left)
    }

    /// Whether the last starts failed.
    pub(super) fn is_unhealthy(&self) -> bool {
        self.0.lock().failures >= UNHEALTHY
    }

    fn failed(&self) {
        let mut state = self.0.lock();
        let pause = pause_after(state.failures);
        state.failures = state.failures.saturating_add(1);
        state.not_before = Some(Instant::now() + pause);
    }

    fn succeeded(&self) {
        *self.0.lock() = BackoffState::default();
    }
}

/// Returns the pause after another failure.
fn pause_after(failures: u32) -> Duration {
    PAUSES.0.saturating_mul(1 << failures.min(10)).min(PAUSES.1)
}

/// A running process of the MCP server. Dropping it does not end it; [`StdioServer::end`] does.
pub(super) struct StdioServer {
    pub(super) pid: u32,
    pub(super) conversation: Conversation,
    plan: Arc<LaunchPlan>,
    input: QueueSender<String>,
    ending: watch::Sender<bool>,
    has_spoken: AtomicBool,
    used: Mutex<Instant>,
}

impl StdioServer {
    /// Starts a process for `person`. `place` is its place among the processes of the bridge.
    pub(super) fn start(
        plan: &Arc<LaunchPlan>,
        sharing: Sharing,
        person: Option<&BridgePerson>,
        place: OwnedSemaphorePermit,
    ) -> io::Result<Arc<Self>> {
        let mut child = command(plan, person).spawn().inspect_err(|_| plan.starts.failed())?;
        let missing = || io::Error::other("the process has ended already");
        let pid = child.id().ok_or_else(missing)?;
        let group = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(missing)?;
        plan.watchdog.add(group);
        let (input, lines) = queue(plan.longest);
        let server = Arc::new(Self {
            pid,
            conversation: Conversation::new(sharing, plan.longest),
            plan: Arc::clone(plan),
            input,
            ending: watch::Sender::new(false),
            has_spoken: AtomicBool::new(false),
            used: Mutex::new(Instant::now()),
        });
        if let Some(stdin) = child.stdin.take() {
            tokio::spawn(write(stdin, lines, server.ending.subscribe()));
        }
        if let Some(stderr) = child.stderr.take() {
            let command = plan.command.clone();
            tokio::spawn(async move { log_lines(stderr, &command, pid).await });
        }
        let running = Arc::clone(&server);
        tokio::spawn(async move {
            running.run(child, group).await;
            drop(place);
        });
        tracing::info!(pid, command = plan.command, "an MCP server starts");
        Ok(server)
    }

    /// Sends a message to the process.
    pub(super) async fn send(&self, text: String) -> Result<(), NotTaken> {
        self.touch();
        let length = text.len();
        self.input.send(text, length).await
    }

    /// Sends a message if the process has room for it now.
    pub(super) fn send_now(&self, text: String) {
        let length = text.len();
        let _ = self.input.send_now(text, length);
    }

    /// Asks the process to end. Its calls get an error at once.
    pub(super) fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Notes that the process is used now.
    pub(super) fn touch(&self) {
        *self.used.lock() = Instant::now();
    }

    /// Returns for how long nobody has used the process; `None` while somebody does.
    pub(super) fn unused_for(&self) -> Option<Duration> {
        self.conversation.is_quiet().then(|| self.used.lock().elapsed())
    }

    /// Whether nobody has used the process for so long.
    pub(super) fn is_idle(&self, idle: Duration) -> bool {
        self.unused_for().is_some_and(|unused| unused >= idle)
    }

    async fn run(&self, mut child: Child, group: Pid) {
        let reason = self.until_it_ends(&mut child).await;
        let asked = *self.ending.borrow();
        for (to, delivery) in self.conversation.end(&reason) {
            let length = delivery.text.len();
            let _ = to.send_now(delivery, length);
        }
        let (pid, command) = (self.pid, &self.plan.command);
        if asked {
            tracing::debug!(pid, command, "an MCP server is ended");
        } else {
            if !self.has_spoken.load(Ordering::Relaxed) {
                self.plan.starts.failed();
            }
            tracing::warn!(pid, command, "{reason}");
        }
        self.ending.send_replace(true); // closes the input
        terminate(&mut child, group).await;
        self.plan.watchdog.remove(group);
    }

    /// Passes messages on until the process ends, and says why it did.
    async fn until_it_ends(&self, child: &mut Child) -> String {
        let Some(stdout) = child.stdout.take() else {
            return "The MCP server has no output".to_owned();
        };
        let mut reading = std::pin::pin!(self.read(stdout));
        tokio::select! {
            biased;
            () = until(self.ending.subscribe()) => "The bridge ended the MCP server".to_owned(),
            reason = &mut reading => match reason {
                Some(reason) => reason,
                None => ended_with(timeout(LAST_OUTPUT, child.wait()).await.ok().and_then(Result::ok)),
            },
            status = child.wait() => {
                let last = timeout(LAST_OUTPUT, reading).await.ok().flatten();
                last.unwrap_or_else(|| ended_with(status.ok()))
            }
        }
    }

    /// Reads the output to its end. Returns a reason to end the process, if there is one.
    async fn read(&self, stdout: ChildStdout) -> Option<String> {
        let mut lines = StdoutLines::new(stdout, self.plan.longest);
        while let Some(line) = lines.next().await {
            self.touch();
            let message = match line {
                StdoutLine::Json(message) => {
                    RpcMessage::read(&message).map_err(|bad| bad.0.to_owned())
                }
                StdoutLine::NotJson(cause) => Err(cause),
                StdoutLine::TooLong => {
                    let longest = self.plan.longest;
                    return Some(format!(
                        "The MCP server sent a message of more than {longest} bytes (--max-message)"
                    ));
                }
            };
            match message {
                Ok(message) => self.pass_on(&message).await,
                Err(cause) => {
                    if let Some(left_out) = NOT_A_MESSAGE.admit() {
                        let (pid, command) = (self.pid, &self.plan.command);
                        tracing::warn!(
                            pid,
                            command,
                            cause,
                            left_out,
                            "a line on standard output that is no MCP message"
                        );
                    }
                }
            }
        }
        None
    }

    async fn pass_on(&self, message: &RpcMessage) {
        if !self.has_spoken.swap(true, Ordering::Relaxed) {
            self.plan.starts.succeeded();
        }
        let routed = self.conversation.route(message);
        for (to, delivery) in routed.deliveries {
            let length = delivery.text.len();
            if to.send(delivery, length).await.is_err() {
                tracing::debug!(pid = self.pid, "a message for a caller who reads nothing");
            }
        }
        if let Some(reply) = routed.reply {
            self.send_now(reply);
        }
    }
}

fn command(plan: &LaunchPlan, person: Option<&BridgePerson>) -> Command {
    let mut command = Command::new(&plan.program);
    command
        .args(&plan.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0) // so that everything it starts can be ended with it
        .kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"PORTCULLIS_") {
            command.env_remove(name); // secrets, and a caller of the bridge itself
        }
    }
    if let Some(person) = person {
        command.envs(person.environment());
    }
    command
}

/// Writes messages to the process until it is to end. Closes its input then.
async fn write(
    mut stdin: ChildStdin,
    mut lines: QueueReceiver<String>,
    ending: watch::Receiver<bool>,
) {
    let writing = async {
        while let Some(mut line) = lines.next().await {
            line.push('\n');
            if stdin.write_all(line.as_bytes()).await.is_err() {
                return; // it has closed its input, and will end or not
            }
        }
    };
    tokio::select! {
        () = writing => {}
        () = until(ending) => {}
    }
}

/// Waits until the value is true.
async fn until(mut value: watch::Receiver<bool>) {
    let _ = value.wait_for(|is| *is).await;
}

/// Ends a process and its group: waits for it to end on its own, as the input is closed, then SIGTERM, then
/// SIGKILL.
async fn terminate(child: &mut Child, group: Pid) {
    for signal in [None, Some(Signal::TERM), Some(Signal::KILL)] {
        let _ = signal.map(|signal| kill_process_group(group, signal));
        let gone = async {
            let _ = child.wait().await;
            while test_kill_process_group(group).is_ok() {
                sleep(LOOK).await;
            }
        };
        if timeout(GRACE, gone).await.is_ok() {
            return;
        }
    }
}

/// Says how a process ended.
fn ended_with(status: Option<ExitStatus>) -> String {
    let Some(status) = status else { return "The MCP server closed its output".to_owned() };
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("The MCP server ended with exit code {code}"),
        (None, Some(signal)) => format!("The MCP server was ended by signal {signal}"),
        (None, None) => "The MCP server ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_that_fail_are_tried_more_and_more_seldom() {
        let pauses: Vec<_> = (0..7).map(|failures| pause_after(failures).as_millis()).collect();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(pause_after(u32::MAX), PAUSES.1);

        let starts = StartBackoff::default();
        assert_eq!(starts.wait(), None);
        for _ in 0..UNHEALTHY {
            assert!(!starts.is_unhealthy());
            starts.failed();
        }
        assert!(starts.is_unhealthy() && starts.wait().is_some());
        starts.succeeded();
        assert_eq!((starts.wait(), starts.is_unhealthy()), (None, false));
    }
}
