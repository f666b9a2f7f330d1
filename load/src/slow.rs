//! Slow sockets beside ordinary callers: half a head, half a body, answers that nobody reads, each one
//! byte a second, and opened again when the server closes it. What `/token` takes is measured in turns
//! with them and without.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::client::Server;
use crate::http::Failure;

#[derive(clap::Args)]
pub struct Arguments {
    /// Where the server is; a loopback address
    #[arg(long)]
    base: String,
    /// Slow sockets, each from a loopback address of its own
    #[arg(long, default_value_t = 2000)]
    sockets: usize,
    /// Callers that refresh, each as fast as it is answered
    #[arg(long, default_value_t = 8)]
    callers: usize,
    /// Turns without and with slow sockets
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Seconds of a turn
    #[arg(long, default_value_t = 15)]
    seconds: u64,
}

/// What became of the slow sockets.
#[derive(Default)]
struct Slow {
    stop: AtomicBool,
    open: AtomicUsize,
    closed: AtomicUsize,
}

pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let mcp = format!("{}/mcp", arguments.base);
    let metadata = "/.well-known/oauth-authorization-server";
    let server = Server::discover(&arguments.base, mcp, metadata, String::new(), true).await?;
    let server = Arc::new(server);
    let address: SocketAddr = arguments
        .base
        .trim_start_matches("http://")
        .parse()
        .map_err(|_| "base must be http:// and an address with a port".to_owned())?;
    let client = server.register().await?;
    let (mut without, mut with, mut closed) = (Vec::new(), Vec::new(), 0);
    for round in 0..arguments.rounds {
        without.extend(turn(&arguments, &server, &client).await?);
        let slow = Arc::new(Slow::default());
        let sockets: Vec<_> = (0..arguments.sockets)
            .map(|number| tokio::spawn(keep_slow(Arc::clone(&slow), address, number)))
            .collect();
        let patience = Instant::now() + Duration::from_secs(30);
        while slow.open.load(Ordering::Relaxed) < arguments.sockets {
            if Instant::now() > patience {
                let open = slow.open.load(Ordering::Relaxed);
                return Err(format!("only {open} slow sockets are open"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let measured = turn(&arguments, &server, &client).await?;
        eprintln!("round {round}: {} open at the end", slow.open.load(Ordering::Relaxed));
        with.extend(measured);
        closed += slow.closed.load(Ordering::Relaxed);
        slow.stop.store(true, Ordering::Relaxed);
        for socket in sockets {
            socket.abort();
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let (without, with) = (summary(without), summary(with));
    println!(
        "{}",
        json!({
            "sockets": arguments.sockets, "closed_by_the_server": closed,
            "without": without, "with": with,
            "p99_moved_by_ms": with["p99_ms"].as_f64().unwrap_or(0.0) - without["p99_ms"].as_f64().unwrap_or(0.0),
        })
    );
    Ok(())
}

/// What refreshes take, in microseconds.
async fn turn(
    arguments: &Arguments,
    server: &Arc<Server>,
    client: &str,
) -> Result<Vec<u64>, Failure> {
    let end = Duration::from_secs(arguments.seconds);
    let mut callers = Vec::new();
    for _ in 0..arguments.callers {
        let (server, client) = (Arc::clone(server), client.to_owned());
        let mut tokens = server.flow(&client).await?;
        callers.push(tokio::spawn(async move {
            let (start, mut taken) = (Instant::now(), Vec::new());
            while start.elapsed() < end {
                let before = Instant::now();
                tokens = server.refresh(&client, &tokens.refresh).await?;
                taken.push(u64::try_from(before.elapsed().as_micros()).unwrap_or(u64::MAX));
            }
            Ok::<_, Failure>(taken)
        }));
    }
    let mut all = Vec::new();
    for caller in callers {
        all.extend(caller.await.map_err(|error| error.to_string())??);
    }
    Ok(all)
}

fn summary(mut taken: Vec<u64>) -> serde_json::Value {
    taken.sort_unstable();
    let at = |part: f64| {
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss
        )]
        let place = ((taken.len() as f64) * part) as usize;
        #[allow(clippy::cast_precision_loss)]
        let value =
            taken.get(place.min(taken.len().saturating_sub(1))).copied().unwrap_or(0) as f64;
        value / 1000.0
    };
    json!({ "requests": taken.len(), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0) })
}

async fn keep_slow(slow: Arc<Slow>, server: SocketAddr, number: usize) {
    let [high, low] = u16::try_from(number).unwrap_or(0).to_be_bytes();
    let source = SocketAddr::new(Ipv4Addr::new(127, 1, high, low.max(1)).into(), 0);
    while !slow.stop.load(Ordering::Relaxed) {
        let opened = async {
            let socket = TcpSocket::new_v4()?;
            socket.bind(source)?;
            if number % 3 == 2 {
                socket.set_recv_buffer_size(4096)?;
            }
            socket.connect(server).await
        };
        let Ok(mut stream) = opened.await else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            continue;
        };
        slow.open.fetch_add(1, Ordering::Relaxed);
        let _ = be_slow(&mut stream, server, number % 3).await;
        slow.open.fetch_sub(1, Ordering::Relaxed);
        slow.closed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Until the server closes.
async fn be_slow(stream: &mut TcpStream, server: SocketAddr, kind: usize) -> std::io::Result<()> {
    let second = Duration::from_secs(1);
    let head = match kind {
        0 => format!("POST /token HTTP/1.1\r\nHost: {server}\r\nX-Slow: "),
        1 => format!(
            "POST /token HTTP/1.1\r\nHost: {server}\r\nContent-Length: 10000\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n"
        ),
        _ => format!(
            "GET /.well-known/oauth-authorization-server HTTP/1.1\r\nHost: {server}\r\n\r\n"
        )
        .repeat(200),
    };
    stream.write_all(head.as_bytes()).await?;
    loop {
        tokio::time::sleep(second).await;
        if kind < 2 {
            stream.write_all(b"x").await?;
            if matches!(stream.try_read(&mut [0; 1024]), Ok(0)) {
                return Ok(());
            }
        } else if stream.read(&mut [0; 1]).await? == 0 {
            return Ok(());
        }
    }
}
