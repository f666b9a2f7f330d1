//! A gentle mixture at fixed rates for hours: flows, refreshes, calls, streams that open and close,
//! registrations that nobody uses. One line of JSON at each interval.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http_body_util::BodyExt;
use serde_json::json;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use crate::client::{Server, Tokens};
use crate::http::Failure;
use crate::run::{PING, call_headers};

/// Clients that people sign in with, in turn.
const CLIENTS: usize = 20;
/// Sign-ins a second while the pool is filled.
const WARM_UP: f64 = 25.0;
/// A grant that left the pool is revoked after this time, when no request with its tokens is on its way any more.
const LEAVES: Duration = Duration::from_secs(5);
/// Requests on their way at once. More are not begun, and count as skipped.
const MOST_AT_ONCE: usize = 256;

#[derive(clap::Args)]
pub struct Arguments {
    /// Where the server is
    #[arg(long)]
    base: String,
    #[arg(long, default_value_t = 120.0)]
    minutes: f64,
    /// Seconds that a line of the output is about
    #[arg(long, default_value_t = 10)]
    interval: u64,
    /// Grants that are used; each sign-in adds one, and the oldest one is revoked
    #[arg(long, default_value_t = 2000)]
    pool: usize,
    /// Sign-ins a second
    #[arg(long, default_value_t = 5.0)]
    flows: f64,
    /// Refreshes a second
    #[arg(long, default_value_t = 50.0)]
    refreshes: f64,
    /// Calls a second
    #[arg(long, default_value_t = 200.0)]
    calls: f64,
    /// Registrations of clients that nobody uses, a second
    #[arg(long, default_value_t = 1.0)]
    registrations: f64,
    /// Open streams
    #[arg(long, default_value_t = 100)]
    streams: usize,
    /// Streams closed and opened a second
    #[arg(long, default_value_t = 2.0)]
    changes: f64,
}

struct Member {
    client: String,
    tokens: Mutex<Tokens>,
    refreshing: AtomicBool,
}

#[derive(Default)]
struct Operation {
    latencies: Vec<u32>,
    failures: usize,
    skipped: usize,
    first_failure: Option<Failure>,
}

struct Soak {
    server: Server,
    revoke: String,
    clients: Vec<String>,
    pool: Mutex<VecDeque<Arc<Member>>>,
    streams: Mutex<VecDeque<oneshot::Sender<()>>>,
    open: AtomicUsize,
    on_their_way: AtomicUsize,
    turn: AtomicUsize,
    random: AtomicU64,
    operations: Mutex<BTreeMap<&'static str, Operation>>,
}

/// Nobody panics while holding one of these.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let base = &arguments.base;
    let metadata = "/.well-known/oauth-authorization-server";
    let server =
        Server::discover(base, format!("{base}/mcp"), metadata, String::new(), true).await?;
    let found = server.http.send("GET", &server.metadata, &[], "").await?.expect(&[200])?.json()?;
    let revoke = found["revocation_endpoint"].as_str().ok_or("no revocation_endpoint")?.to_owned();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(server.register().await?);
    }
    let soak = Arc::new(Soak {
        server,
        revoke,
        clients,
        pool: Mutex::default(),
        streams: Mutex::default(),
        open: AtomicUsize::new(0),
        on_their_way: AtomicUsize::new(0),
        turn: AtomicUsize::new(0),
        random: AtomicU64::new(0x9e37_79b9_7f4a_7c15),
        operations: Mutex::default(),
    });
    let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / WARM_UP));
    while locked(&soak.pool).len() < arguments.pool {
        pace.tick().await;
        let made = soak.sign_in().await?;
        locked(&soak.pool).push_back(made);
    }
    for _ in 0..arguments.streams {
        soak.open_stream().await?;
    }
    println!("{}", json!({ "at": now(), "ready": true }));
    let pool = arguments.pool;
    let loops = [
        paced(&soak, "flow", arguments.flows, move |soak| async move {
            let made = soak.sign_in().await?;
            let gone = {
                let mut members = locked(&soak.pool);
                members.push_back(made);
                if members.len() > pool { members.pop_front() } else { None }
            };
            if let Some(gone) = gone {
                tokio::spawn(async move { soak.revoke(&gone).await });
            }
            Ok(())
        }),
        paced(&soak, "refresh", arguments.refreshes, |soak| async move { soak.refresh().await }),
        paced(&soak, "call", arguments.calls, |soak| async move { soak.call().await }),
        paced(&soak, "registration", arguments.registrations, |soak| async move {
            soak.server.register().await.map(drop)
        }),
        paced(&soak, "stream", arguments.changes, |soak| async move {
            drop(locked(&soak.streams).pop_front());
            soak.open_stream().await
        }),
    ];
    let end = Instant::now() + Duration::from_secs_f64(arguments.minutes * 60.0);
    let mut pace = tokio::time::interval(Duration::from_secs(arguments.interval));
    pace.tick().await;
    while Instant::now() < end {
        pace.tick().await;
        soak.report();
    }
    loops.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}

/// Begins an operation at a fixed rate, whether earlier ones have ended or not.
fn paced<F, Done>(
    soak: &Arc<Soak>,
    name: &'static str,
    rate: f64,
    operation: F,
) -> tokio::task::JoinHandle<()>
where
    F: Fn(Arc<Soak>) -> Done + Send + 'static,
    Done: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let soak = Arc::clone(soak);
    tokio::spawn(async move {
        if rate <= 0.0 {
            return;
        }
        let mut pace = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
        pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            pace.tick().await;
            if soak.on_their_way.fetch_add(1, Ordering::Relaxed) >= MOST_AT_ONCE {
                soak.on_their_way.fetch_sub(1, Ordering::Relaxed);
                locked(&soak.operations).entry(name).or_default().skipped += 1;
                continue;
            }
            let done = operation(Arc::clone(&soak));
            let soak = Arc::clone(&soak);
            tokio::spawn(async move {
                let before = Instant::now();
                let done = done.await;
                soak.on_their_way.fetch_sub(1, Ordering::Relaxed);
                soak.note(name, before, done);
            });
        }
    })
}

impl Soak {
    fn note(&self, name: &'static str, before: Instant, done: Result<(), Failure>) {
        let took = u32::try_from(before.elapsed().as_micros()).unwrap_or(u32::MAX);
        let mut operations = locked(&self.operations);
        let operation = operations.entry(name).or_default();
        match done {
            Ok(()) => operation.latencies.push(took),
            Err(failure) => {
                operation.failures += 1;
                operation.first_failure.get_or_insert(failure);
            }
        }
    }

    fn random(&self, below: usize) -> usize {
        let mut x = self.random.load(Ordering::Relaxed);
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.store(x, Ordering::Relaxed);
        usize::try_from(x >> 33).unwrap_or(0) % below.max(1)
    }

    async fn sign_in(&self) -> Result<Arc<Member>, Failure> {
        let client = self.clients[self.turn.fetch_add(1, Ordering::Relaxed) % CLIENTS].clone();
        let tokens = Mutex::new(self.server.flow(&client).await?);
        Ok(Arc::new(Member { client, tokens, refreshing: AtomicBool::new(false) }))
    }

    async fn revoke(&self, member: &Member) {
        tokio::time::sleep(LEAVES).await;
        let refresh = locked(&member.tokens).refresh.clone();
        let before = Instant::now();
        let form = [("client_id", member.client.as_str()), ("token", &refresh)];
        let done = self.server.http.form(&self.revoke, &form).await;
        self.note("revocation", before, done.and_then(|answer| answer.expect(&[200])).map(drop));
    }

    async fn refresh(&self) -> Result<(), Failure> {
        let member = {
            let members = locked(&self.pool);
            let member = &members[self.random(members.len())];
            if member.refreshing.swap(true, Ordering::Relaxed) {
                return Ok(()); // it is being refreshed
            }
            Arc::clone(member)
        };
        let held = locked(&member.tokens).refresh.clone();
        let done = self.server.refresh(&member.client, &held).await;
        let done = done.map(|tokens| *locked(&member.tokens) = tokens);
        member.refreshing.store(false, Ordering::Relaxed);
        done
    }

    async fn call(&self) -> Result<(), Failure> {
        let access = {
            let members = locked(&self.pool);
            let tokens = locked(&members[self.random(members.len())].tokens);
            format!("Bearer {}", tokens.access)
        };
        self.server.call(&call_headers(&access), PING).await
    }

    /// Opens a stream with one of the grants that stay longest, and reads it until it is to be closed.
    async fn open_stream(self: &Arc<Self>) -> Result<(), Failure> {
        let access = {
            let members = locked(&self.pool);
            let newer = members.len() / 2;
            let tokens = locked(&members[newer + self.random(members.len() - newer)].tokens);
            format!("Bearer {}", tokens.access)
        };
        let headers = [("accept", "text/event-stream"), ("authorization", &*access)];
        let mut stream = self.server.http.open("GET", &self.server.mcp, &headers, "").await?;
        if stream.status() != 200 {
            return Err(format!("a stream is answered {}", stream.status()));
        }
        match stream.body_mut().frame().await {
            Some(Ok(_)) => {}
            _ => return Err("a stream ended at once".to_owned()),
        }
        let (close, mut closed) = oneshot::channel::<()>();
        locked(&self.streams).push_back(close);
        self.open.fetch_add(1, Ordering::Relaxed);
        let soak = Arc::clone(self);
        tokio::spawn(async move {
            let before = Instant::now();
            loop {
                tokio::select! {
                    _ = &mut closed => break,
                    frame = stream.body_mut().frame() => match frame {
                        Some(Ok(_)) => {}
                        Some(Err(cause)) => {
                            soak.note("open stream", before, Err(format!("a stream broke: {cause}")));
                            break;
                        }
                        None => {
                            soak.note("open stream", before, Err("a stream was closed".to_owned()));
                            break;
                        }
                    },
                }
            }
            soak.open.fetch_sub(1, Ordering::Relaxed);
        });
        Ok(())
    }

    fn report(&self) {
        let operations = std::mem::take(&mut *locked(&self.operations));
        let operations: BTreeMap<_, _> = operations
            .into_iter()
            .map(|(name, mut operation)| {
                operation.latencies.sort_unstable();
                let sorted = &operation.latencies;
                let at = |part: usize| sorted.get((sorted.len() * part / 100).min(sorted.len().saturating_sub(1)));
                let line = json!({
                    "done": sorted.len(), "p50_us": at(50), "p99_us": at(99), "max_us": sorted.last(),
                    "failures": operation.failures, "skipped": operation.skipped,
                    "first_failure": operation.first_failure,
                });
                (name, line)
            })
            .collect();
        let line = json!({
            "at": now(), "open_streams": self.open.load(Ordering::Relaxed),
            "pool": locked(&self.pool).len(), "operations": operations,
        });
        println!("{line}");
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
