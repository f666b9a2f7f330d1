//! A running bridge, and its callers.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use portcullis::oauth::secret::random_text;
use serde_json::{Value, json};

use super::stdio_server::VARIABLE;
use crate::harness::http::{Answer, Http};
use crate::harness::process::portcullis;

/// Longest wait for something that has to happen.
const PATIENCE: Duration = Duration::from_mins(1);

/// The headers of an ordinary POST.
const POST: [(&str, &str); 2] =
    [("content-type", "application/json"), ("accept", "application/json, text/event-stream")];

pub(super) struct Bridge {
    pub(super) origin: String,
    pub(super) http: Http,
    child: Option<Child>,
    log: Arc<Mutex<Vec<Value>>>,
    folder: PathBuf,
}

impl Bridge {
    /// Starts a bridge in front of the tiny MCP server.
    pub(super) fn start(options: &[&str]) -> Self {
        Self::with_manner(options, "plain")
    }

    pub(super) fn with_manner(options: &[&str], manner: &str) -> Self {
        let server = std::env::current_exe().unwrap();
        let name = "bridge::stdio_server::as_a_process";
        let server = [server.to_str().unwrap(), name, "--exact", "--ignored", "--nocapture"];
        Self::in_front_of(options, &server, manner)
    }

    /// Starts a bridge in front of another program.
    pub(super) fn in_front_of(options: &[&str], server: &[&str], manner: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("portcullis-bridge-{}", random_text()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut command = portcullis(&folder);
        command
            .args(["bridge", "--listen", "127.0.0.1:0"])
            .args(options)
            .arg("--")
            .args(server)
            .env(VARIABLE, manner)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("PORTCULLIS_LOG_FORMAT", "json")
            .env("PORTCULLIS_SECRET_KEY", "a secret of the gateway")
            .env("PORTCULLIS_SUBJECT", "somebody else")
            .env("OF_THE_BRIDGE", "kept")
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log: Arc<Mutex<Vec<Value>>> = Arc::default();
        let (serving, address) = mpsc::channel();
        let lines = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let line = serde_json::from_str(&line).unwrap_or(Value::String(line));
                if line["message"] == "serving" {
                    let _ = serving.send(line["listen"].as_str().unwrap().to_owned());
                }
                lines.lock().unwrap().push(line);
            }
        });
        let address = address.recv_timeout(PATIENCE);
        let address = address.unwrap_or_else(|_| panic!("no bridge: {:?}", log.lock().unwrap()));
        let origin = format!("http://{address}");
        Self { origin, http: Http::default(), child: Some(child), log, folder }
    }

    pub(super) fn mcp(&self) -> String {
        format!("{}/mcp", self.origin)
    }

    /// Sends a body as a client does.
    pub(super) async fn post(&self, body: &Value, headers: &[(&str, &str)]) -> Answer {
        self.post_text(&body.to_string(), headers).await
    }

    pub(super) async fn post_text(&self, body: &str, headers: &[(&str, &str)]) -> Answer {
        let headers = [&POST[..], headers].concat();
        self.http.send("POST", &self.mcp(), &headers, body.to_owned()).await
    }

    /// Sends a request and leaves the answer unread.
    pub(super) async fn open(&self, body: &Value, headers: &[(&str, &str)]) -> EventStream {
        let headers = [&POST[..], headers].concat();
        let response = self.http.open("POST", &self.mcp(), &headers, body.to_string()).await;
        EventStream::of(response)
    }

    /// Begins a session for the caller that these headers name.
    pub(super) async fn session(&self, headers: &[(&'static str, &'static str)]) -> Session<'_> {
        let begun = self.post(&initialize(), headers).await;
        begun.assert_status(200);
        let id = begun.header("mcp-session-id").unwrap().to_owned();
        let session = Session { bridge: self, id, headers: headers.to_vec() };
        session.notify("notifications/initialized").await;
        session
    }

    /// Calls a tool as 2026-07-28 does, without a session.
    pub(super) async fn call(&self, call: &Value, headers: &[(&str, &str)]) -> Answer {
        let name = call["params"]["name"].as_str().unwrap_or_default().to_owned();
        let method = call["method"].as_str().unwrap().to_owned();
        let mut all = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", method.as_str())];
        if !name.is_empty() {
            all.push(("mcp-name", name.as_str()));
        }
        all.extend_from_slice(headers);
        self.post(call, &all).await
    }

    pub(super) async fn health(&self) -> Answer {
        self.http.get(&format!("{}/health", self.origin)).await
    }

    /// Waits until the bridge runs so many processes.
    pub(super) async fn until_processes(&self, count: u64) {
        until(async || self.health().await.json()["processes"] == count).await;
    }

    pub(super) fn logged(&self) -> Vec<Value> {
        self.log.lock().unwrap().clone()
    }

    pub(super) fn signal(&self, name: &str) {
        signal(self.id(), name);
    }

    pub(super) fn id(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub(super) async fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        tokio::task::spawn_blocking(move || child.wait().unwrap()).await.unwrap()
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// A session of a client of 2025-11-25.
pub(super) struct Session<'a> {
    bridge: &'a Bridge,
    pub(super) id: String,
    headers: Vec<(&'static str, &'static str)>,
}

impl Session<'_> {
    pub(super) fn all_headers(&self) -> Vec<(&str, &str)> {
        let mut all: Vec<(&str, &str)> = self.headers.clone();
        all.push(("mcp-session-id", self.id.as_str()));
        all.push(("mcp-protocol-version", "2025-11-25"));
        all
    }

    pub(super) async fn post(&self, body: &Value) -> Answer {
        self.bridge.post(body, &self.all_headers()).await
    }

    pub(super) async fn open(&self, body: &Value) -> EventStream {
        self.bridge.open(body, &self.all_headers()).await
    }

    pub(super) async fn notify(&self, method: &str) {
        let answer = self.post(&json!({ "jsonrpc": "2.0", "method": method })).await;
        answer.assert_status(202);
    }

    /// Calls a tool, and returns the text that it gives.
    pub(super) async fn call(&self, tool: &str, arguments: &Value) -> String {
        let answer = self.post(&tool_call(&json!(1), tool, arguments)).await;
        answer.assert_status(200);
        text_of(&last_message(&answer))
    }

    pub(super) async fn pid(&self) -> u32 {
        self.call("pid", &json!({})).await.parse().unwrap()
    }

    /// Opens the stream for messages that belong to no request.
    pub(super) async fn listen(&self) -> EventStream {
        let mut headers = self.all_headers();
        headers.push(("accept", "text/event-stream"));
        let url = self.bridge.mcp();
        EventStream::of(self.bridge.http.open("GET", &url, &headers, "").await)
    }

    pub(super) async fn delete(&self) -> Answer {
        let url = self.bridge.mcp();
        self.bridge.http.send("DELETE", &url, &self.all_headers(), "").await
    }
}

/// A response that is read event by event.
pub(super) struct EventStream {
    body: Incoming,
    read: String,
}

impl EventStream {
    fn of(response: hyper::Response<Incoming>) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { body: response.into_body(), read: String::new() }
    }

    /// Returns the next message; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                let message = data.map(|data| serde_json::from_str(data).unwrap());
                let rest = rest.to_owned();
                self.read = rest;
                match message {
                    Some(message) => return Some(message),
                    None => continue,
                }
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.unwrap()?;
            let data = frame.ok()?.into_data().unwrap();
            self.read.push_str(std::str::from_utf8(&data).unwrap());
        }
    }
}

pub(super) fn initialize() -> Value {
    json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": { "sampling": {} },
        "clientInfo": { "name": "test", "version": "1" } } })
}

pub(super) fn tool_call(id: &Value, tool: &str, arguments: &Value) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
        "params": { "name": tool, "arguments": arguments } })
}

/// The same as 2026-07-28 writes it.
pub(super) fn modern_call(id: &Value, tool: &str, arguments: &Value) -> Value {
    let mut call = tool_call(id, tool, arguments);
    call["params"]["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
        "progressToken": id,
    });
    call
}

/// The text of a tool's result.
#[track_caller]
pub(super) fn text_of(answer: &Value) -> String {
    let text = answer["result"]["content"][0]["text"].as_str();
    text.unwrap_or_else(|| panic!("no text: {answer}")).to_owned()
}

/// The last message of an answer: the body, or the last event of a stream.
pub(super) fn last_message(answer: &Answer) -> Value {
    if answer.header("content-type") == Some("application/json") {
        return answer.json();
    }
    let data = answer.text().lines().rfind(|line| line.starts_with("data: "));
    serde_json::from_str(data.unwrap().trim_start_matches("data: ")).unwrap()
}

/// Sends a signal to a process.
pub(super) fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status();
    assert!(sent.unwrap().success());
}

/// Whether a process runs. One that has ended and that its parent has not asked for yet does not, once all its
/// threads have ended: until then, its pipes are open.
pub(super) fn runs(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    if threads.is_ok_and(|threads| threads.count() > 1) {
        return true;
    }
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = state.rsplit(')').next().unwrap_or_default().trim_start().chars().next();
    state.is_some_and(|state| state != 'Z' && state != 'X')
}

/// Waits until something is so.
pub(super) async fn until(mut is: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !is().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it never happened");
}

pub(super) async fn until_gone(pids: &[u32]) {
    until(async || !pids.iter().any(|pid| runs(*pid))).await;
}
