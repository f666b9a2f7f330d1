//! Callers in parallel, each as fast as it is answered, for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use http_body_util::BodyExt;
use hyper::Response;
use hyper::body::Incoming;
use serde_json::json;

use crate::client::{Server, Tokens};
use crate::http::{Failure, Http};
use crate::processes::{ProcessorTime, Watched, resident_kib};

#[derive(clap::Args)]
pub struct Arguments {
    /// What is done again and again
    #[arg(value_enum)]
    scenario: Scenario,
    /// Where the server is; several for replicas behind the first URL, which get the requests in turns
    #[arg(long, required = true)]
    base: Vec<String>,
    /// The MCP URL, when it is not base + /mcp
    #[arg(long)]
    mcp: Option<String>,
    /// Path of the server's metadata
    #[arg(long, default_value = "/.well-known/oauth-authorization-server")]
    metadata: String,
    /// Scopes asked for
    #[arg(long, default_value = "")]
    scope: String,
    /// Leave `resource` out
    #[arg(long)]
    no_resource: bool,
    /// Callers in parallel; open streams
    #[arg(long, default_value_t = 16)]
    callers: usize,
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// The server's process, to see its memory
    #[arg(long)]
    pid: Option<u32>,
    /// NAME=PID: report the processor time of this process and those below it under NAME; may be repeated
    #[arg(long)]
    watch: Vec<Watched>,
    /// Call without a token: the MCP server itself, or a plain proxy before it
    #[arg(long)]
    no_token: bool,
    /// Begin an MCP session for each stream, as servers that keep sessions require
    #[arg(long)]
    sessions: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Scenario {
    /// GET of the server's metadata
    Metadata,
    /// New clients
    Registrations,
    /// Authorize, consent, sign in, callback, redeem
    Flows,
    /// Refresh with rotation
    Refreshes,
    /// Authorised MCP calls
    Calls,
    /// Event streams that stay open
    Streams,
}

/// A call of a tool without arguments.
pub const PING: &str =
    r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"ping","arguments":{}}}"#;

const PROTOCOL: (&str, &str) = ("mcp-protocol-version", "2025-06-18");
const INITIALIZE: &str = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"load","version":"1"}}}"#;
const INITIALIZED: &str = r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

struct Measured {
    latencies: Vec<u32>,
    failures: usize,
    first_failure: Option<Failure>,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let base = arguments.base.first().cloned().unwrap_or_default();
    let mcp = arguments.mcp.clone().unwrap_or_else(|| format!("{base}/mcp"));
    if arguments.no_token {
        return match arguments.scenario {
            Scenario::Streams => streams(&arguments, &Http::new(), &mcp, &no_token()).await,
            _ => calls_without_token(&arguments, &mcp).await,
        };
    }
    let (metadata, scope) = (&arguments.metadata, arguments.scope.clone());
    let names_resource = !arguments.no_resource;
    let mut server = Server::discover(&base, mcp, metadata, scope, names_resource).await?;
    server.http = Http::balanced(&arguments.base)?;
    let server = Arc::new(server);
    if let Scenario::Streams = arguments.scenario {
        let tokens = server.flow(&server.register().await?).await?;
        let authorization = format!("Bearer {}", tokens.access);
        return streams(&arguments, &server.http, &server.mcp, &authorization).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let client = match arguments.scenario {
        Scenario::Metadata | Scenario::Registrations => String::new(),
        _ => server.register().await?,
    };
    // What a caller needs is created before the clock starts.
    let ready = match arguments.scenario {
        Scenario::Refreshes | Scenario::Calls => {
            let tokens = sign_in(&server, &client, arguments.callers).await?;
            tokens.into_iter().map(Some).collect()
        }
        _ => Vec::from_iter((0..arguments.callers).map(|_| None)),
    };
    let start = Start::now(&arguments);
    let callers: Vec<_> = ready
        .into_iter()
        .map(|mut tokens| {
            let (server, client, stop) = (Arc::clone(&server), client.clone(), Arc::clone(&stop));
            let scenario = arguments.scenario;
            tokio::spawn(async move {
                let authorization =
                    tokens.as_ref().map(|tokens| format!("Bearer {}", tokens.access));
                let authorization = authorization.unwrap_or_default();
                let headers = call_headers(&authorization);
                let mut measured =
                    Measured { latencies: Vec::new(), failures: 0, first_failure: None };
                while !stop.load(Ordering::Relaxed) {
                    let before = Instant::now();
                    let done = match scenario {
                        Scenario::Metadata => {
                            let got = server.http.send("GET", &server.metadata, &[], "").await;
                            got.and_then(|answer| answer.expect(&[200])).map(drop)
                        }
                        Scenario::Registrations => server.register().await.map(drop),
                        Scenario::Flows => server.flow(&client).await.map(drop),
                        Scenario::Refreshes => {
                            let held = tokens.as_ref().map(|t| t.refresh.as_str());
                            match server.refresh(&client, held.unwrap_or_default()).await {
                                Ok(new) => {
                                    tokens = Some(new);
                                    Ok(())
                                }
                                Err(failure) => Err(failure),
                            }
                        }
                        Scenario::Calls | Scenario::Streams => server.call(&headers, PING).await,
                    };
                    measured.note(before, done);
                }
                measured
            })
        })
        .collect();
    report(&arguments, &start, &stop, callers).await
}

/// Goes through as many flows, a few at a time.
async fn sign_in(
    server: &Arc<Server>,
    client: &str,
    number: usize,
) -> Result<Vec<Tokens>, Failure> {
    const AT_ONCE: usize = 16;
    let mut done = Vec::new();
    while done.len() < number {
        let flows: Vec<_> = (0..AT_ONCE.min(number - done.len()))
            .map(|_| {
                let (server, client) = (Arc::clone(server), client.to_owned());
                tokio::spawn(async move { server.flow(&client).await })
            })
            .collect();
        for flow in flows {
            done.push(flow.await.map_err(|error| error.to_string())??);
        }
    }
    Ok(done)
}

/// As long as a bearer token, for a hop that costs the same.
fn no_token() -> String {
    format!("Bearer {}", "x".repeat(600))
}

/// The moment from which everything counts.
struct Start {
    at: Instant,
    used: ProcessorTime,
}

impl Start {
    fn now(arguments: &Arguments) -> Self {
        Self { used: ProcessorTime::now(&arguments.watch), at: Instant::now() }
    }
}

pub fn call_headers(authorization: &str) -> Vec<(&str, &str)> {
    let mut headers = vec![
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        PROTOCOL,
    ];
    if !authorization.is_empty() {
        headers.push(("authorization", authorization));
    }
    headers
}

async fn calls_without_token(arguments: &Arguments, mcp: &str) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let http = Http::new();
    let start = Start::now(arguments);
    let callers: Vec<_> = (0..arguments.callers)
        .map(|_| {
            let (http, stop, mcp) = (http.clone(), Arc::clone(&stop), mcp.to_owned());
            tokio::spawn(async move {
                let mut measured =
                    Measured { latencies: Vec::new(), failures: 0, first_failure: None };
                let authorization = no_token();
                let headers = call_headers(&authorization);
                while !stop.load(Ordering::Relaxed) {
                    let before = Instant::now();
                    let answer = http.send("POST", &mcp, &headers, PING).await;
                    let done = answer.and_then(|answer| answer.expect(&[200])).map(drop);
                    measured.note(before, done);
                }
                measured
            })
        })
        .collect();
    report(arguments, &start, &stop, callers).await
}

impl Measured {
    fn note(&mut self, before: Instant, done: Result<(), Failure>) {
        match done {
            Ok(()) => {
                self.latencies
                    .push(u32::try_from(before.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            Err(failure) => {
                self.failures += 1;
                self.first_failure.get_or_insert(failure);
            }
        }
    }
}

async fn report(
    arguments: &Arguments,
    start: &Start,
    stop: &AtomicBool,
    callers: Vec<tokio::task::JoinHandle<Measured>>,
) -> Result<(), Failure> {
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let (mut latencies, mut failures, mut first_failure) = (Vec::new(), 0, None);
    for caller in callers {
        let measured = caller.await.map_err(|error| error.to_string())?;
        latencies.extend(measured.latencies);
        failures += measured.failures;
        first_failure = first_failure.or(measured.first_failure);
    }
    let took = start.at.elapsed().as_secs_f64();
    let used = ProcessorTime::now(&arguments.watch).since(&start.used);
    latencies.sort_unstable();
    let at = |part: f64| {
        let index = (latencies.len() as f64 * part) as usize;
        latencies.get(index.min(latencies.len().saturating_sub(1))).copied().unwrap_or(0)
    };
    let line = json!({
        "scenario": format!("{:?}", arguments.scenario).to_lowercase(),
        "callers": arguments.callers,
        "per_second": (latencies.len() as f64 / took * 10.0).round() / 10.0,
        "operations": latencies.len(), "seconds": took, "cpu_us": used,
        "p50_us": at(0.5), "p99_us": at(0.99), "failures": failures,
        "rss_kib": arguments.pid.and_then(resident_kib),
        "first_failure": first_failure,
    });
    println!("{line}");
    Ok(())
}

/// Opens streams, and says what each costs the server in memory.
async fn streams(
    arguments: &Arguments,
    http: &Http,
    mcp: &str,
    authorization: &str,
) -> Result<(), Failure> {
    /// What the first streams bring into memory is no cost of each.
    const NOT_COUNTED: usize = 8;
    let (has_session, mut open, mut failure) = (arguments.sessions, Vec::new(), None);
    for _ in 0..NOT_COUNTED {
        open.push(open_stream(http, mcp, authorization, has_session).await?);
    }
    let before = arguments.pid.and_then(resident_kib);
    let start = Instant::now();
    while open.len() < arguments.callers + NOT_COUNTED && failure.is_none() {
        const AT_ONCE: usize = 64;
        let more = AT_ONCE.min(arguments.callers + NOT_COUNTED - open.len());
        let opening: Vec<_> = (0..more)
            .map(|_| {
                let (http, mcp) = (http.clone(), mcp.to_owned());
                let authorization = authorization.to_owned();
                tokio::spawn(
                    async move { open_stream(&http, &mcp, &authorization, has_session).await },
                )
            })
            .collect();
        for opened in opening {
            match opened.await.map_err(|error| error.to_string())? {
                Ok(stream) => open.push(stream),
                Err(cause) => failure = Some(cause),
            }
        }
    }
    let opened_in = start.elapsed().as_secs_f64();
    tokio::time::sleep(Duration::from_secs(arguments.seconds)).await;
    let after = arguments.pid.and_then(resident_kib);
    let counted = open.len() - NOT_COUNTED;
    let per_stream = before.zip(after).map(|(before, after)| {
        (after.saturating_sub(before) as f64 / counted.max(1) as f64 * 10.0).round() / 10.0
    });
    let line = json!({
        "scenario": "streams", "open": counted, "opened_in_s": opened_in,
        "rss_kib_before": before, "rss_kib_after": after, "kib_per_stream": per_stream,
        "first_failure": failure,
    });
    println!("{line}");
    Ok(())
}

async fn open_stream(
    http: &Http,
    mcp: &str,
    authorization: &str,
    has_session: bool,
) -> Result<Response<Incoming>, Failure> {
    let session = match has_session {
        true => Some(initialize(http, mcp, authorization).await?),
        false => None,
    };
    let mut headers = vec![("accept", "text/event-stream"), ("authorization", authorization)];
    if let Some(session) = &session {
        headers.extend([("mcp-session-id", &**session), PROTOCOL]);
    }
    let mut stream = http.open("GET", mcp, &headers, "").await?;
    if stream.status() != 200 {
        return Err(format!("a stream is answered {}", stream.status()));
    }
    if has_session {
        return Ok(stream); // which says nothing until there is something to say
    }
    match stream.body_mut().frame().await {
        Some(Ok(_)) => Ok(stream),
        _ => Err("a stream ended at once".to_owned()),
    }
}

/// Begins an MCP session, and returns its id.
async fn initialize(http: &Http, mcp: &str, authorization: &str) -> Result<String, Failure> {
    let mut headers = call_headers(authorization);
    let answer = http.send("POST", mcp, &headers, INITIALIZE).await?.expect(&[200])?;
    let session = answer.headers.get("mcp-session-id").and_then(|id| id.to_str().ok());
    let session = session.ok_or("no mcp-session-id")?.to_owned();
    headers.push(("mcp-session-id", &session));
    http.send("POST", mcp, &headers, INITIALIZED).await?.expect(&[200, 202])?;
    Ok(session)
}
