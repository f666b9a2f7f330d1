//! The real binary as a process of its own: what `kill -9` can be tried on.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};

use portcullis::clock::Clock;
use portcullis::demo::{IdentityProvider, TodoServer};
use portcullis::oauth::secret::random_bytes;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::database::Database;
use super::setup::ServerAt;
use super::{Setup, http::Http, raw};

/// The command, away from the developer's own configuration.
pub(crate) fn portcullis(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portcullis"));
    command.current_dir(folder).env_clear();
    command
}

pub(crate) fn run(folder: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Output {
    portcullis(folder).args(arguments).envs(env.iter().copied()).output().unwrap()
}

/// An address for a process that may be stopped and started again. No port that the system gives to
/// outgoing connections (from 32768 on, on Linux): one of these may have it when the process wants it back.
pub(crate) fn free_address() -> SocketAddr {
    loop {
        let port = 20_000 + u16::from_be_bytes(random_bytes::<2>()) % 12_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if std::net::TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// `portcullis serve` with everything around it, on the real clock.
pub(crate) struct Served {
    pub url: String,
    pub idp: IdentityProvider,
    pub todo: TodoServer,
    pub database: Database,
    pub http: Http,
    pub config: PathBuf,
    child: Option<Child>,
    /// What the next starts get besides.
    pub env: Vec<(&'static str, String)>,
    stopped: Option<oneshot::Receiver<()>>,
    /// What the process has logged since it serves.
    log: Arc<Mutex<Vec<String>>>,
}

impl Served {
    pub(crate) async fn start() -> Self {
        Self::with(&Setup::default()).await
    }

    /// A server that takes any load.
    pub(crate) async fn without_rates() -> Self {
        Self::with(&Setup::toml("[limits]\nrequest_rates = false")).await
    }

    /// Everything around a server that is yet to be started.
    pub(crate) async fn prepared() -> Self {
        Self::prepared_with(&Setup::default()).await
    }

    /// The same, with this setup.
    pub(crate) async fn prepared_with(setup: &Setup) -> Self {
        Self::around(setup).await
    }

    pub(crate) async fn with(setup: &Setup) -> Self {
        let mut served = Self::around(setup).await;
        served.launch();
        served
    }

    /// Everything around a server that is yet to be started, and that the world reaches at `front`; and where
    /// it will be itself.
    pub(crate) async fn prepared_behind(front: SocketAddr, setup: &Setup) -> (Self, SocketAddr) {
        let address = free_address();
        (Self::at(address, front, setup).await, address)
    }

    async fn around(setup: &Setup) -> Self {
        let address = free_address();
        Self::at(address, address, setup).await
    }

    async fn at(address: SocketAddr, front: SocketAddr, setup: &Setup) -> Self {
        let url = format!("http://{front}{}", setup.path.unwrap_or_default());
        let (idp, todo) = super::around(&url, &Clock::System).await;
        let mut database = Database::new().await;
        if !setup.role.is_empty() {
            super::role::connect_as_role(&mut database, &setup.role).await;
        }
        let config = database.folder.join("portcullis.toml");
        let place =
            ServerAt { url: &url, listen: &address.to_string(), admin: None, database: &database };
        let text = setup.config(&place, &idp, &todo);
        std::fs::write(&config, text).unwrap();
        let http = Http::default();
        let (child, env, stopped, log) = (None, Vec::new(), None, Arc::default());
        Self { url, idp, todo, database, http, config, child, env, stopped, log }
    }

    /// Starts the process and returns when it serves.
    pub(crate) fn launch(&mut self) {
        self.launch_by(portcullis(&self.database.folder));
    }

    /// Starts it anew from a shell that allows so few open files until it asks for more.
    pub(crate) fn launch_with_open_files(&mut self, few: u32) {
        self.launch_limited(&format!("ulimit -Sn {few}"));
    }

    /// Starts it from a shell that allows so many open files and no more.
    pub(crate) fn launch_with_at_most_open_files(&mut self, most: u32) {
        self.launch_limited(&format!("ulimit -n {most}"));
    }

    /// Starts it from a shell that allows core dumps of any size, if the machine does.
    pub(crate) fn launch_with_core_dumps(&mut self) {
        self.launch_limited("ulimit -Sc $(ulimit -Hc)");
    }

    fn launch_limited(&mut self, limit: &str) {
        let mut shell = Command::new("sh");
        let limited = format!("{limit} && exec \"$0\" \"$@\"");
        shell.current_dir(&self.database.folder).env_clear();
        shell.args(["-c", &limited, env!("CARGO_BIN_EXE_portcullis")]);
        self.launch_by(shell);
    }

    /// What the system says of the process.
    #[cfg(target_os = "linux")]
    pub(crate) fn limits(&self) -> String {
        let id = self.child.as_ref().unwrap().id();
        std::fs::read_to_string(format!("/proc/{id}/limits")).unwrap()
    }

    /// Starts it with its log going to `stderr`, and returns when it answers.
    pub(crate) async fn launch_into(&mut self, stderr: impl Into<Stdio>) {
        let command = portcullis(&self.database.folder);
        self.child = Some(self.spawn(command, stderr.into()));
        let health = format!(
            "GET /health HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            raw::host(&self.url)
        );
        while !matches!(raw::try_exchange(&self.url, &health).await, Ok(answer) if raw::status(&answer) == 200)
        {
            assert_eq!(self.ended(), None, "the server ended");
            tokio::task::yield_now().await;
        }
    }

    /// Starts it and leaves its log to the caller from the line on that says that it serves.
    pub(crate) fn launch_unread(&mut self) -> BufReader<ChildStderr> {
        let mut child = self.spawn(portcullis(&self.database.folder), Stdio::piped());
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        read_until_it_serves(&mut lines);
        self.child = Some(child);
        lines
    }

    /// Returns how the process ended, when it has.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.take().unwrap().wait().unwrap()
    }

    /// How the process ended, if it did.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.as_mut().unwrap().try_wait().unwrap()
    }

    fn spawn(&self, mut command: Command, stderr: Stdio) -> Child {
        command
            .args(["serve", "--config", "portcullis.toml"])
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stderr(stderr)
            .spawn()
            .unwrap()
    }

    fn launch_by(&mut self, command: Command) {
        let mut child = self.spawn(command, Stdio::piped());
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        read_until_it_serves(&mut lines);
        // Somebody has to read on, or the process blocks when the pipe is full.
        let (stopped, until_stopped) = oneshot::channel();
        let log = Arc::clone(&self.log);
        std::thread::spawn(move || {
            let mut stopped = Some(stopped);
            for line in lines.lines().map_while(Result::ok) {
                log.lock().unwrap().push(line.clone());
                if line.contains("stopped at ") {
                    let _ = stopped.take().map(|stopped| stopped.send(()));
                }
            }
        });
        self.stopped = Some(until_stopped);
        self.child = Some(child);
    }

    /// The lines of the log that have this in them, so far.
    pub(crate) fn logged(&self, part: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|line| line.contains(part)).count()
    }

    /// Sends it a signal and lets it go on.
    pub(crate) fn signal(&self, name: &str) {
        let signal = format!("kill -{name} {}", self.child.as_ref().unwrap().id());
        assert!(Command::new("sh").args(["-c", &signal]).status().unwrap().success());
    }

    /// Asks it to end, as service managers do; what is returned says how it ended.
    pub(crate) fn terminate(&mut self) -> JoinHandle<ExitStatus> {
        let mut child = self.child.take().unwrap();
        let signal = format!("kill -TERM {}", child.id());
        assert!(Command::new("sh").args(["-c", &signal]).status().unwrap().success());
        tokio::task::spawn_blocking(move || child.wait().unwrap())
    }

    /// Starts it again, to stop for good at a place in its code (`stop_points.rs`).
    pub(crate) fn relaunch_to_stop_at(&mut self, place: &'static str) {
        self.kill();
        self.env.push(("TEST_STOP_AT", place.to_owned()));
        self.launch();
        self.env.pop();
    }

    /// Waits until it is there, and kills it.
    pub(crate) async fn kill_when_stopped(&mut self) {
        let stopped = self.stopped.take().unwrap();
        let patience = std::time::Duration::from_mins(1);
        tokio::time::timeout(patience, stopped).await.expect("it was never there").unwrap();
        self.kill();
    }

    /// The end that no process can prepare for.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

fn read_until_it_serves(lines: &mut BufReader<ChildStderr>) {
    let mut seen = String::new();
    while !seen.contains("serving") {
        let read = lines.read_line(&mut seen).unwrap();
        assert!(read > 0, "the server ended: {seen}");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
