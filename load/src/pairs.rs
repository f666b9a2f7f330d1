//! Two MCP URLs of one server in turns, for a comparison that a busy machine does not decide: each round calls
//! both, in the other order than the round before.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::Server;
use crate::http::Failure;
use crate::run::{PING, call_headers};

#[derive(clap::Args)]
pub struct Arguments {
    /// Where the server is
    #[arg(long)]
    base: String,
    /// The MCP URL that the other one is compared with
    #[arg(long)]
    first: String,
    /// The other MCP URL
    #[arg(long)]
    second: String,
    /// A page that connects a service, opened once before; the provider must sign in one person
    #[arg(long)]
    connect: Option<String>,
    /// Callers in parallel
    #[arg(long, default_value_t = 16)]
    callers: usize,
    /// How often each of the two is called for a while
    #[arg(long, default_value_t = 20)]
    rounds: usize,
    /// How long each time
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
}

/// One of the two, with an `Authorization` for each caller.
struct Side {
    server: Arc<Server>,
    tokens: Vec<String>,
    per_second: Vec<f64>,
    latencies: Vec<u32>,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let (mut first, mut second) =
        (side(&arguments, &arguments.first).await?, side(&arguments, &arguments.second).await?);
    if let Some(page) = &arguments.connect {
        second.server.connect(page).await?;
    }
    // Connections and caches are there before anything counts.
    for side in [&mut first, &mut second] {
        turn(side, arguments.seconds).await?;
        (side.per_second, side.latencies) = (Vec::new(), Vec::new());
    }
    let mut ratios = Vec::new();
    for round in 0..arguments.rounds {
        if round % 2 == 0 {
            turn(&mut first, arguments.seconds).await?;
            turn(&mut second, arguments.seconds).await?;
        } else {
            turn(&mut second, arguments.seconds).await?;
            turn(&mut first, arguments.seconds).await?;
        }
        let last = |side: &Side| side.per_second.last().copied().unwrap_or_default();
        ratios.push(last(&second) / last(&first));
    }
    ratios.sort_by(f64::total_cmp);
    let rounded = |number: f64| (number * 1000.0).round() / 1000.0;
    let at = |part: f64| {
        let index = (ratios.len().saturating_sub(1)) as f64 * part;
        ratios.get(index.round() as usize).copied().map(rounded)
    };
    let line = json!({
        "scenario": "pairs", "callers": arguments.callers, "rounds": arguments.rounds,
        "first": first.shown(&arguments.first), "second": second.shown(&arguments.second),
        "ratio": at(0.5), "ratio_quarter": at(0.25), "ratio_three_quarters": at(0.75),
    });
    println!("{line}");
    Ok(())
}

async fn side(arguments: &Arguments, mcp: &str) -> Result<Side, Failure> {
    let metadata = "/.well-known/oauth-authorization-server";
    let scope = String::new();
    let server = Server::discover(&arguments.base, mcp.to_owned(), metadata, scope, true).await?;
    let client = server.register().await?;
    let mut tokens = Vec::new();
    for _ in 0..arguments.callers {
        tokens.push(format!("Bearer {}", server.flow(&client).await?.access));
    }
    let (per_second, latencies) = (Vec::new(), Vec::new());
    Ok(Side { server: Arc::new(server), tokens, per_second, latencies })
}

/// Calls one side for a while. Any failure ends the comparison: it would compare something else.
async fn turn(side: &mut Side, seconds: f64) -> Result<(), Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let start = Instant::now();
    let callers: Vec<_> = side
        .tokens
        .iter()
        .map(|authorization| {
            let (server, stop) = (Arc::clone(&side.server), Arc::clone(&stop));
            let authorization = authorization.clone();
            tokio::spawn(async move {
                let headers = call_headers(&authorization);
                let mut latencies = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let before = Instant::now();
                    let answer = server.http.send("POST", &server.mcp, &headers, PING).await?;
                    let answer = answer.expect(&[200])?;
                    if !answer.text().contains("pong") {
                        return Err(answer.unexpected());
                    }
                    latencies.push(u32::try_from(before.elapsed().as_micros()).unwrap_or(u32::MAX));
                }
                Ok::<_, Failure>(latencies)
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    stop.store(true, Ordering::Relaxed);
    let mut calls = 0;
    for caller in callers {
        let latencies = caller.await.map_err(|error| error.to_string())??;
        calls += latencies.len();
        side.latencies.extend(latencies);
    }
    side.per_second.push(calls as f64 / start.elapsed().as_secs_f64());
    Ok(())
}

impl Side {
    fn shown(&mut self, mcp: &str) -> serde_json::Value {
        self.per_second.sort_by(f64::total_cmp);
        self.latencies.sort_unstable();
        let median = self.per_second.get(self.per_second.len() / 2).copied().unwrap_or_default();
        let latency = |part: f64| {
            let index = (self.latencies.len() as f64 * part) as usize;
            self.latencies.get(index).copied()
        };
        json!({ "mcp": mcp, "per_second": median.round(), "p50_us": latency(0.5), "p99_us": latency(0.99) })
    }
}
