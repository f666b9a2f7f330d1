//! A relay between a server and PostgreSQL that counts round trips, and delays what it passes on as a
//! network does.
//!
//! A round trip begins with a `Sync` or a `Query` that is sent while nothing else is unanswered: what is
//! sent in one go, or before the answer, is one. Logging in is not counted. Under TLS nothing can be
//! counted: use `sslmode=disable`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, interval, sleep_until};

use crate::http::Failure;

/// What is the first message of a connection that asks for TLS.
const TLS_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();
const TLS_AGREED: u8 = b'S';

#[derive(clap::Args)]
pub struct Arguments {
    /// Where the relay listens
    #[arg(long)]
    listen: SocketAddr,
    /// Where PostgreSQL listens
    #[arg(long)]
    to: SocketAddr,
    /// Delay in each direction, in milliseconds: a round trip takes twice as long
    #[arg(long, default_value_t = 0.0)]
    delay_ms: f64,
    /// Print the counts every so many seconds too, not only at SIGUSR1 and at the end
    #[arg(long)]
    every: Option<u64>,
    /// Count each statement too, by its text
    #[arg(long)]
    statements: bool,
}

#[derive(Default)]
struct Counts {
    connections: AtomicU64,
    round_trips: AtomicU64,
    /// `Sync` and `Query` messages.
    requests: AtomicU64,
    /// Statements that were executed. A `Query` with several of them is one.
    executed: AtomicU64,
    /// Statements that were parsed: of those that were prepared once, the first use.
    parsed: AtomicU64,
    bytes_sent: AtomicU64,
    bytes_received: AtomicU64,
    by_text: Option<Mutex<BTreeMap<String, u64>>>,
}

impl Counts {
    fn print(&self) {
        let of = |count: &AtomicU64| count.load(Relaxed);
        let mut line = json!({
            "connections": of(&self.connections),
            "round_trips": of(&self.round_trips),
            "requests": of(&self.requests),
            "executed": of(&self.executed),
            "parsed": of(&self.parsed),
            "bytes_sent": of(&self.bytes_sent),
            "bytes_received": of(&self.bytes_received),
        });
        if let Some(texts) = &self.by_text {
            line["statements"] = json!(*texts.lock().unwrap_or_else(PoisonError::into_inner));
        }
        println!("{line}");
    }

    fn execute(&self, text: Option<&str>) {
        self.executed.fetch_add(1, Relaxed);
        if let (Some(texts), Some(text)) = (&self.by_text, text) {
            let mut texts = texts.lock().unwrap_or_else(PoisonError::into_inner);
            *texts.entry(text.split_whitespace().collect::<Vec<_>>().join(" ")).or_default() += 1;
        }
    }
}

/// Relays until SIGTERM or ctrl-c, and prints one line of JSON.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let told = |cause: std::io::Error| cause.to_string();
    let listener = TcpListener::bind(arguments.listen).await.map_err(told)?;
    let counts = Arc::new(Counts {
        by_text: arguments.statements.then(Mutex::default),
        ..Counts::default()
    });
    let delay = Duration::from_secs_f64(arguments.delay_ms / 1000.0);
    let mut end = signal(SignalKind::terminate()).map_err(told)?;
    let mut ask = signal(SignalKind::user_defined1()).map_err(told)?;
    let mut every = arguments.every.map(|seconds| interval(Duration::from_secs(seconds.max(1))));
    if let Some(every) = &mut every {
        every.tick().await; // the first is at once
    }
    loop {
        let tick = async {
            match &mut every {
                Some(every) => drop(every.tick().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = listener.accept() => {
                let (client, _) = accepted.map_err(told)?;
                let (counts, to) = (Arc::clone(&counts), arguments.to);
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(to).await {
                        relay(client, server, delay, &counts).await;
                    }
                });
            }
            _ = ask.recv() => counts.print(),
            () = tick => counts.print(),
            _ = end.recv() => break,
            _ = tokio::signal::ctrl_c() => break,
        }
    }
    counts.print();
    Ok(())
}

async fn relay(client: TcpStream, server: TcpStream, delay: Duration, counts: &Arc<Counts>) {
    counts.connections.fetch_add(1, Relaxed);
    let (Ok(()), Ok(())) = (client.set_nodelay(true), server.set_nodelay(true)) else { return };
    let unanswered = Arc::new(AtomicI64::new(0));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut questions = Questions {
        counts: Arc::clone(counts),
        unanswered: Arc::clone(&unanswered),
        rest: Vec::new(),
        logging_in: true,
        encrypted: false,
        prepared: BTreeMap::new(),
    };
    let mut answers = Answers {
        counts: Arc::clone(counts),
        unanswered,
        rest: Vec::new(),
        first: true,
        encrypted: false,
    };
    let there = pass(from_client, to_server, delay, move |bytes| questions.read(bytes));
    let back = pass(from_server, to_client, delay, move |bytes| answers.read(bytes));
    // Either side may close while the other still has something to say.
    tokio::join!(there, back);
}

/// Passes on what arrives, each chunk `delay` after it came.
async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    delay: Duration,
    mut read: impl FnMut(&[u8]),
) {
    let mut chunk = vec![0; 64 * 1024];
    if delay.is_zero() {
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            read(&chunk[..length]);
            if to.write_all(&chunk[..length]).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
        return;
    }
    let (sender, mut under_way) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reading = async move {
        while let Ok(length @ 1..) = from.read(&mut chunk).await {
            read(&chunk[..length]);
            if sender.send((Instant::now() + delay, chunk[..length].to_vec())).is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = under_way.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

/// Reads what a client sends.
struct Questions {
    counts: Arc<Counts>,
    unanswered: Arc<AtomicI64>,
    rest: Vec<u8>,
    logging_in: bool,
    encrypted: bool,
    /// The texts of prepared statements.
    prepared: BTreeMap<Vec<u8>, String>,
}

impl Questions {
    fn read(&mut self, bytes: &[u8]) {
        self.counts.bytes_sent.fetch_add(bytes.len() as u64, Relaxed);
        if self.encrypted {
            return;
        }
        self.rest.extend_from_slice(bytes);
        let mut rest = std::mem::take(&mut self.rest);
        let mut at = 0;
        while let Some((kind, body, length)) = message(&rest[at..], self.logging_in) {
            if self.logging_in {
                // The request for TLS is answered by one byte, and may be followed by a handshake.
                self.logging_in = body == TLS_REQUEST;
            } else {
                self.note(kind, body);
            }
            at += length;
        }
        if self.logging_in && rest.get(at) == Some(&22) {
            self.encrypted = true; // the first byte of a handshake
            rest.clear();
            at = 0;
        }
        rest.drain(..at);
        self.rest = rest;
    }

    fn note(&mut self, kind: u8, body: &[u8]) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut parts = body.split(|byte| *byte == 0);
        match kind {
            b'S' => self.request(),
            b'Q' => {
                self.request();
                self.counts.execute(parts.next().map(text).as_deref());
            }
            b'P' => {
                self.counts.parsed.fetch_add(1, Relaxed);
                if let (Some(name), Some(sql)) = (parts.next(), parts.next()) {
                    self.prepared.insert(name.to_owned(), text(sql));
                }
            }
            b'B' => {
                let name = parts.nth(1).unwrap_or_default();
                self.counts.execute(self.prepared.get(name).map(String::as_str));
            }
            _ => {}
        }
    }

    fn request(&self) {
        self.counts.requests.fetch_add(1, Relaxed);
        if self.unanswered.fetch_add(1, Relaxed) == 0 {
            self.counts.round_trips.fetch_add(1, Relaxed);
        }
    }
}

/// Reads what the server answers.
struct Answers {
    counts: Arc<Counts>,
    unanswered: Arc<AtomicI64>,
    rest: Vec<u8>,
    first: bool,
    encrypted: bool,
}

impl Answers {
    fn read(&mut self, mut bytes: &[u8]) {
        self.counts.bytes_received.fetch_add(bytes.len() as u64, Relaxed);
        if std::mem::take(&mut self.first) && bytes.len() == 1 {
            self.encrypted = bytes == [TLS_AGREED];
            bytes = &[];
        }
        if self.encrypted {
            return;
        }
        self.rest.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((kind, _, length)) = message(&self.rest[at..], false) {
            // The answer to logging in ends like that to a request.
            if kind == b'Z' && self.unanswered.load(Relaxed) > 0 {
                self.unanswered.fetch_sub(1, Relaxed);
            }
            at += length;
        }
        self.rest.drain(..at);
    }
}

/// Returns the kind, the body and the length of the message that `bytes` begin with, if it is complete.
/// The messages before a login have no kind.
fn message(bytes: &[u8], without_kind: bool) -> Option<(u8, &[u8], usize)> {
    let header = usize::from(!without_kind);
    let kind = *bytes.first()?;
    let length = bytes.get(header..header + 4)?;
    let length = u32::from_be_bytes(length.try_into().ok()?) as usize + header;
    let body = bytes.get(header + 4..length)?;
    Some((kind, body, length))
}
