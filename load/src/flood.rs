//! A flood of anonymous registrations from many made-up addresses (the server must trust this machine as
//! a proxy), while somebody goes on working and newcomers register. Ends with what became of everybody.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::client::Server;
use crate::http::{Failure, Http};

#[derive(clap::Args)]
pub struct Arguments {
    /// Where the server is
    #[arg(long)]
    base: String,
    /// Registrations of the flood
    #[arg(long, default_value_t = 1_000_000)]
    registrations: u64,
    /// IPv6 networks (/48) that they come from
    #[arg(long, default_value_t = 1000)]
    networks: u64,
    /// Customers (/64) in each
    #[arg(long, default_value_t = 1000)]
    customers: u64,
    #[arg(long, default_value_t = 64)]
    callers: usize,
    /// The SQLite file of the server, to see how it grows
    #[arg(long)]
    database: Option<PathBuf>,
}

struct Counts {
    next: AtomicU64,
    stop: AtomicBool,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mcp = format!("{}/mcp", arguments.base);
    let metadata = "/.well-known/oauth-authorization-server";
    let server = Server::discover(&arguments.base, mcp, metadata, String::new(), true).await?;
    let server = Arc::new(server);
    let client = server.register().await?;
    server.flow(&client).await?;
    let size = || {
        let bytes = |suffix: &str| {
            let mut path = arguments.database.as_ref()?.as_os_str().to_owned();
            path.push(suffix);
            Some(std::fs::metadata(path).map_or(0, |file| file.len()))
        };
        json!({ "file": bytes(""), "log": bytes("-wal") })
    };
    let before = size();
    let register = format!("{}/register", arguments.base);
    let counts = Arc::new(Counts { next: AtomicU64::new(0), stop: AtomicBool::new(false) });

    let start = Instant::now();
    let flood: Vec<_> = (0..arguments.callers)
        .map(|_| {
            let (counts, register) = (Arc::clone(&counts), register.clone());
            let (all, networks) = (arguments.registrations, arguments.networks);
            let customers = arguments.customers;
            tokio::spawn(async move {
                let (http, mut answers) = (Http::new(), BTreeMap::<u16, u64>::new());
                loop {
                    let number = counts.next.fetch_add(1, Ordering::Relaxed);
                    if number >= all {
                        return Ok::<_, Failure>(answers);
                    }
                    let (network, customer) = (number % networks, number / networks % customers);
                    let from = format!(
                        "2001:{:x}:{:x}:{customer:x}::1",
                        0xd00 + network / 65_536,
                        network % 65_536
                    );
                    let status =
                        register_one(&http, &register, &format!("Flood {number}"), &from).await?;
                    *answers.entry(status).or_default() += 1;
                }
            })
        })
        .collect();

    // Somebody who was there before: whole flows and refreshes, all the time.
    let known = {
        let (server, counts, client) = (Arc::clone(&server), Arc::clone(&counts), client.clone());
        tokio::spawn(async move {
            let (mut flows, mut refreshes, mut failures) = (Vec::new(), Vec::new(), Vec::new());
            while !counts.stop.load(Ordering::Relaxed) {
                let before = Instant::now();
                match server.flow(&client).await {
                    Ok(tokens) => {
                        flows.push(before.elapsed());
                        let before = Instant::now();
                        match server.refresh(&client, &tokens.refresh).await {
                            Ok(_) => refreshes.push(before.elapsed()),
                            Err(failure) => failures.push(failure),
                        }
                    }
                    Err(failure) => failures.push(failure),
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            (flows, refreshes, failures)
        })
    };
    // Newcomers: each from a network of their own, each with a whole flow ten seconds later.
    let newcomers = {
        let (server, counts) = (Arc::clone(&server), Arc::clone(&counts));
        let register = register.clone();
        tokio::spawn(async move {
            let http = Http::new();
            let (mut registered, mut finished, mut refused, mut number) =
                (Vec::new(), 0_u64, 0_u64, 0_u64);
            let mut waiting = std::collections::VecDeque::new();
            let mut lost = Vec::new();
            loop {
                let stop = counts.stop.load(Ordering::Relaxed);
                if !stop {
                    number += 1;
                    let from = format!("198.{}.{}.7", 18 + number / 250, number % 250);
                    let before = Instant::now();
                    match register_named(&http, &register, &format!("Newcomer {number}"), &from)
                        .await
                    {
                        Ok(id) => {
                            registered.push(before.elapsed());
                            waiting.push_back((Instant::now(), id));
                        }
                        Err(_) => refused += 1,
                    }
                }
                while waiting.front().is_some_and(|(at, _): &(Instant, String)| {
                    stop || at.elapsed() > Duration::from_secs(10)
                }) {
                    if let Some((_, id)) = waiting.pop_front() {
                        match server.flow(&id).await {
                            Ok(_) => finished += 1,
                            Err(failure) => lost.push(failure),
                        }
                    }
                }
                if stop {
                    return (registered, refused, finished, lost);
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        })
    };

    let mut answers = BTreeMap::<u16, u64>::new();
    for caller in flood {
        for (status, number) in caller.await.map_err(|error| error.to_string())?? {
            *answers.entry(status).or_default() += number;
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    counts.stop.store(true, Ordering::Relaxed);
    let (flows, refreshes, failures) = known.await.map_err(|error| error.to_string())?;
    let (registered, refused, finished, lost) =
        newcomers.await.map_err(|error| error.to_string())?;
    let after = Http::new();
    let status = register_one(&after, &register, "Afterwards", "198.51.100.77").await?;
    server.flow(&client).await?;
    println!(
        "{}",
        json!({
            "seconds": seconds, "answers": answers,
            "database_before": before, "database_after": size(),
            "known_client": {
                "flows": summary(flows), "refreshes": summary(refreshes),
                "failures": failures.len(), "first_failure": failures.first(),
            },
            "newcomers": {
                "registered": summary(registered), "refused": refused,
                "flows_finished": finished, "lost": lost.len(), "first_lost": lost.first(),
            },
            "newcomer_afterwards": status,
        })
    );
    Ok(())
}

fn summary(mut taken: Vec<Duration>) -> Value {
    taken.sort_unstable();
    let at = |hundredth: usize| {
        let place = (taken.len() * hundredth / 100).min(taken.len().saturating_sub(1));
        taken.get(place).map(|time| time.as_secs_f64() * 1000.0)
    };
    json!({ "number": taken.len(), "p50_ms": at(50), "p99_ms": at(99) })
}

async fn answer(
    http: &Http,
    url: &str,
    name: &str,
    from: &str,
) -> Result<crate::http::Answer, Failure> {
    let metadata = json!({
        "client_name": name, "redirect_uris": ["http://127.0.0.1:53124/callback"],
        "token_endpoint_auth_method": "none",
    });
    let headers = [("content-type", "application/json"), ("x-forwarded-for", from)];
    http.send("POST", url, &headers, metadata.to_string()).await
}

async fn register_one(http: &Http, url: &str, name: &str, from: &str) -> Result<u16, Failure> {
    Ok(answer(http, url, name, from).await?.status)
}

async fn register_named(http: &Http, url: &str, name: &str, from: &str) -> Result<String, Failure> {
    let answer = answer(http, url, name, from).await?.expect(&[201])?.json()?;
    answer["client_id"].as_str().map(str::to_owned).ok_or("no client_id".to_owned())
}
