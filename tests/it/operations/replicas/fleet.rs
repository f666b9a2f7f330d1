//! Three real processes on one PostgreSQL, and a balancer before them: each connection goes to the next
//! replica that can be reached.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portcullis::clock::Clock;
use portcullis::demo::{IdentityProvider, TodoServer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::harness::client::{McpClient, Place, Server};
use crate::harness::database::Database;
use crate::harness::http::{Http, encode};
use crate::harness::process::{free_address, portcullis, run};
use crate::harness::setup::ServerAt;
use crate::harness::{Setup, around, raw};

pub(super) const REPLICAS: usize = 3;

pub(super) struct Fleet {
    /// The balancer's, which is everybody's public URL.
    pub url: String,
    pub idp: IdentityProvider,
    _todo: TodoServer,
    pub database: Database,
    pub http: Http,
    pub replicas: Vec<Replica>,
    pub balancer: Balancer,
}

impl Server for Fleet {
    fn place(&self) -> Place {
        let idp = self.idp.issuer().to_owned();
        Place { url: self.url.clone(), idp, http: self.http.clone() }
    }
}

impl Fleet {
    /// Three replicas that are started at once on an empty database.
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (idp, todo) = around(&url, &Clock::System).await;
        let database = Database::new().await;
        assert!(database.is_postgres(), "replicas need PostgreSQL: scripts/test-replicas");
        let setup = Setup::toml("[limits]\nrequest_rates = false");
        let mut replicas = Vec::new();
        for n in 0..REPLICAS {
            let address = free_address().to_string();
            let file = format!("replica-{n}.toml");
            let place = ServerAt { url: &url, listen: &address, admin: None, database: &database };
            let text = setup.config(&place, &idp, &todo);
            std::fs::write(database.folder.join(&file), text).unwrap();
            let (url, folder) = (format!("http://{address}"), database.folder.clone());
            replicas.push(Replica { url, file, folder, process: None });
        }
        let starting: Vec<Starting> = replicas.iter().map(|replica| replica.begin(&[])).collect();
        for (replica, starting) in replicas.iter_mut().zip(starting) {
            replica.process = Some(starting.until_it_serves());
        }
        let backends = replicas.iter().map(|replica| replica.address().to_owned()).collect();
        let balancer = Balancer::start(listener, backends);
        Self { url, idp, _todo: todo, database, http: Http::default(), replicas, balancer }
    }

    /// The client as it is, at one replica past the balancer.
    pub(super) fn at(&self, replica: usize, client: &McpClient) -> McpClient {
        let mut there = client.elsewhere();
        there.server.url.clone_from(&self.replicas[replica].url);
        there
    }

    /// A command of the shell, beside the servers.
    pub(super) fn command(&self, arguments: &[&str]) -> String {
        let mut all = arguments.to_vec();
        all.extend(["--config", &self.replicas[0].file]);
        let done = run(&self.database.folder, &all, &[]);
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap()
    }
}

pub(super) struct Replica {
    pub url: String,
    file: String,
    folder: PathBuf,
    process: Option<Child>,
}

pub(super) struct Starting {
    child: Child,
    lines: BufReader<std::process::ChildStderr>,
}

impl Starting {
    pub(super) fn until_it_serves(mut self) -> Child {
        let mut seen = String::new();
        while !seen.contains("serving") {
            let read = self.lines.read_line(&mut seen).unwrap();
            assert!(read > 0, "the server ended: {seen}");
        }
        // Somebody has to read on, or the process blocks when the pipe is full.
        std::thread::spawn(move || self.lines.lines().map_while(Result::ok).for_each(drop));
        self.child
    }
}

impl Replica {
    pub(super) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    pub(super) fn begin(&self, env: &[(&str, &str)]) -> Starting {
        let mut child = portcullis(&self.folder)
            .args(["serve", "--config", &self.file])
            .envs(env.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap());
        Starting { child, lines }
    }

    pub(super) fn launch(&mut self) {
        self.launch_with(&[]);
    }

    pub(super) fn launch_with(&mut self, env: &[(&str, &str)]) {
        self.process = Some(self.begin(env).until_it_serves());
    }

    /// Kills it in the middle of whatever it does.
    pub(super) fn kill_now(&self) {
        self.signal("KILL");
    }

    pub(super) fn kill(&mut self) {
        let mut child = self.process.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to end, as service managers do; what is returned says how it ended.
    pub(super) fn terminate(&mut self) -> JoinHandle<ExitStatus> {
        self.signal("TERM");
        let mut child = self.process.take().unwrap();
        tokio::task::spawn_blocking(move || child.wait().unwrap())
    }

    pub(super) fn pause(&self) {
        self.signal("STOP");
    }

    pub(super) fn resume(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.process.as_ref().unwrap().id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        if let Some(mut child) = self.process.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Passes bytes on. The harness makes a connection for each request.
#[derive(Clone)]
pub(super) struct Balancer(Arc<Mutex<Vec<String>>>);

impl Balancer {
    fn start(listener: TcpListener, backends: Vec<String>) -> Self {
        let ours = Self(Arc::new(Mutex::new(backends)));
        let backends = Arc::clone(&ours.0);
        tokio::spawn(async move {
            let turn = Arc::new(AtomicUsize::new(0));
            while let Ok((mut client, _)) = listener.accept().await {
                let (backends, turn) = (Arc::clone(&backends), Arc::clone(&turn));
                tokio::spawn(async move {
                    let known = backends.lock().unwrap().clone();
                    for _ in 0..known.len() {
                        let next = turn.fetch_add(1, Ordering::SeqCst) % known.len();
                        // Nobody is asked twice: only whoever cannot be reached is passed over.
                        let Ok(mut backend) = TcpStream::connect(&known[next]).await else {
                            continue;
                        };
                        let _ = tokio::io::copy_bidirectional(&mut client, &mut backend).await;
                        return;
                    }
                });
            }
        });
        ours
    }

    /// Sends requests to these replicas only.
    pub(super) fn send_to<'a>(&self, replicas: impl IntoIterator<Item = &'a Replica>) {
        let addresses = replicas.into_iter().map(|replica| replica.address().to_owned());
        *self.0.lock().unwrap() = addresses.collect();
    }
}

/// What came back of a request that may have met a replica's end.
pub(super) struct Came {
    pub status: u16,
    pub head: String,
    pub body: Value,
}

/// Asks for tokens; `None` when no whole answer came back.
pub(super) async fn token(url: &str, form: &[(&str, &str)]) -> Option<Came> {
    let form = encode(form);
    let request = format!(
        "POST /token HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{form}",
        url.trim_start_matches("http://"),
        form.len()
    );
    let answer = raw::try_exchange(url, &request).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let (head, body) = (head.to_ascii_lowercase(), serde_json::from_str(body).ok()?);
    Some(Came { status: raw::status(&answer), head, body })
}

pub(super) async fn a_moment(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}
