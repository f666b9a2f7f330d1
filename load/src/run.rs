//! Callers in parallel, each as fast as it is answered, for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::ValueEnum;
use http_body_util::BodyExt;
use serde_json::json;

use crate::client::Server;
use crate::http::Failure;

#[derive(clap::Args)]
pub struct Arguments {
    /// What is done again and again
    #[arg(value_enum)]
    scenario: Scenario,
    /// Where the server is
    #[arg(long)]
    base: String,
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
    /// Call without a token: the MCP server itself, or a plain proxy before it
    #[arg(long)]
    no_token: bool,
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

struct Measured {
    latencies: Vec<u32>,
    failures: usize,
    first_failure: Option<Failure>,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mcp = arguments.mcp.clone().unwrap_or_else(|| format!("{}/mcp", arguments.base));
    if arguments.no_token {
        return calls_without_token(&arguments, &mcp).await;
    }
    let (metadata, scope) = (&arguments.metadata, arguments.scope.clone());
    let names_resource = !arguments.no_resource;
    let server =
        Server::discover(&arguments.base, mcp, metadata, scope, names_resource).await?;
    let server = Arc::new(server);
    if let Scenario::Streams = arguments.scenario {
        return streams(&arguments, &server).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let client = match arguments.scenario {
        Scenario::Metadata | Scenario::Registrations => String::new(),
        _ => server.register().await?,
    };
    // What a caller needs is made before the clock starts.
    let mut ready = Vec::new();
    for _ in 0..arguments.callers {
        let tokens = match arguments.scenario {
            Scenario::Refreshes | Scenario::Calls => Some(server.flow(&client).await?),
            _ => None,
        };
        ready.push(tokens);
    }
    let start = Instant::now();
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
    report(&arguments, start, &stop, callers).await
}

pub fn call_headers(authorization: &str) -> Vec<(&str, &str)> {
    let mut headers = vec![
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2025-06-18"),
    ];
    if !authorization.is_empty() {
        headers.push(("authorization", authorization));
    }
    headers
}

async fn calls_without_token(arguments: &Arguments, mcp: &str) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let http = crate::http::Http::new();
    let start = Instant::now();
    let callers: Vec<_> = (0..arguments.callers)
        .map(|_| {
            let (http, stop, mcp) = (http.clone(), Arc::clone(&stop), mcp.to_owned());
            tokio::spawn(async move {
                let mut measured =
                    Measured { latencies: Vec::new(), failures: 0, first_failure: None };
                // As long as a bearer token, for a hop that costs the same.
                let authorization = format!("Bearer {}", "x".repeat(600));
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
    report(arguments, start, &stop, callers).await
}

impl Measured {
    fn note(&mut self, before: Instant, done: Result<(), Failure>) {
        match done {
            Ok(()) => {
                self.latencies.push(u32::try_from(before.elapsed().as_micros()).unwrap_or(u32::MAX));
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
    start: Instant,
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
    let took = start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |part: f64| {
        let index = (latencies.len() as f64 * part) as usize;
        latencies.get(index.min(latencies.len().saturating_sub(1))).copied().unwrap_or(0)
    };
    let line = json!({
        "scenario": format!("{:?}", arguments.scenario).to_lowercase(),
        "callers": arguments.callers,
        "per_second": (latencies.len() as f64 / took * 10.0).round() / 10.0,
        "p50_us": at(0.5), "p99_us": at(0.99), "failures": failures,
        "rss_kib": arguments.pid.and_then(memory),
        "first_failure": first_failure,
    });
    println!("{line}");
    Ok(())
}

/// Opens streams, and says what each costs the server in memory.
async fn streams(arguments: &Arguments, server: &Arc<Server>) -> Result<(), Failure> {
    const AT_ONCE: usize = 64;
    let client = server.register().await?;
    let tokens = server.flow(&client).await?;
    let authorization = format!("Bearer {}", tokens.access);
    let before = arguments.pid.and_then(memory);
    let start = Instant::now();
    let (mut open, mut failure) = (Vec::new(), None);
    while open.len() < arguments.callers && failure.is_none() {
        let more = AT_ONCE.min(arguments.callers - open.len());
        let opening: Vec<_> = (0..more)
            .map(|_| {
                let (server, authorization) = (Arc::clone(server), authorization.clone());
                tokio::spawn(async move {
                    let headers =
                        [("accept", "text/event-stream"), ("authorization", &*authorization)];
                    let mut stream = server.http.open("GET", &server.mcp, &headers, "").await?;
                    if stream.status() != 200 {
                        return Err(format!("a stream is answered {}", stream.status()));
                    }
                    match stream.body_mut().frame().await {
                        Some(Ok(_)) => Ok(stream),
                        _ => Err("a stream ended at once".to_owned()),
                    }
                })
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
    let after = arguments.pid.and_then(memory);
    let per_stream = before.zip(after).map(|(before, after)| {
        (after.saturating_sub(before) as f64 / open.len().max(1) as f64 * 10.0).round() / 10.0
    });
    let line = json!({
        "scenario": "streams", "open": open.len(), "opened_in_s": opened_in,
        "rss_kib_before": before, "rss_kib_after": after, "kib_per_stream": per_stream,
        "first_failure": failure,
    });
    println!("{line}");
    Ok(())
}

/// Resident memory of a process in KiB.
fn memory(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}
