//! `portcullis bridge`: serves an MCP server that speaks stdio as streamable HTTP, for the gateway.
//!
//! A process of its own, without database, configuration or secrets. The official SDK's own service for
//! streamable HTTP is not used: it reads messages into its types, which lose what they do not know, and refuses
//! protocol revisions that it does not know. A bridge passes messages on as they are. Of the SDK it uses the
//! codec of stdio, the error type and the names of headers.
//!
//! A request takes this way: `http.rs` checks and reads it, `pool.rs` finds or starts the process
//! (`process.rs`), `conversation.rs` remembers whose request it is, and `answer.rs` answers with what the process
//! says. `watchdog.rs` ends processes whose bridge was killed.

mod answer;
mod conversation;
mod http;
mod local_only;
mod message;
mod person;
mod pool;
mod process;
mod queue;
mod stated_headers;
mod stderr;
mod stdout;
mod watchdog;

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Duration, MissedTickBehavior, interval, sleep, timeout};

use self::http::{BridgeContext, routes};
use self::pool::ProcessPool;
pub use self::pool::{ProcessFor, ProcessLimits};
use self::process::{LaunchPlan, StartBackoff};
use self::watchdog::Watchdog;
pub use self::watchdog::watch;

/// Most open connections. The gateway needs one for each request and stream.
const CONNECTIONS: usize = 1024;
/// How long the headers of a request may take to arrive.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// How often processes that nobody uses are looked for.
const SWEEP: Duration = Duration::from_secs(5);
/// How long requests under way may take to finish at shutdown.
const DRAIN: Duration = Duration::from_secs(5);
/// Pause between two looks at the requests under way at shutdown, and after a connection that was not accepted.
const PAUSE: Duration = Duration::from_millis(50);

/// What to serve, and how.
#[derive(Clone, Debug)]
pub struct BridgeOptions {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// Host names that requests may name, besides loopback and the address itself.
    pub hosts: Vec<String>,
    /// How many processes there may be.
    pub limits: ProcessLimits,
    /// Longest silence before a request is given up.
    pub silence: Duration,
    /// The longest message, in bytes.
    pub longest: usize,
}

impl BridgeOptions {
    /// Returns the program, if there is one of that name.
    fn program(&self) -> Result<&OsString, String> {
        let program = self.command.first().ok_or("there is no command after --")?;
        let path = Path::new(program);
        let is_there = |path: &Path| path.is_file();
        let found = if path.components().count() > 1 {
            is_there(path)
        } else {
            let folders = std::env::var_os("PATH").unwrap_or_default();
            std::env::split_paths(&folders).any(|folder| is_there(&folder.join(path)))
        };
        let name = path.display();
        found.then_some(program).ok_or_else(|| format!("{name}: there is no such program"))
    }
}

/// Serves until `shutdown` is ready, then ends all processes.
pub async fn serve(
    options: BridgeOptions,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<(), String> {
    let program = options.program()?.clone();
    let watchdog = Watchdog::start().map_err(|cause| format!("the watchdog: {cause}"))?;
    let plan = LaunchPlan {
        command: Path::new(&program).file_name().unwrap_or_default().display().to_string(),
        program,
        arguments: options.command.into_iter().skip(1).collect(),
        longest: options.longest,
        watchdog,
        starts: StartBackoff::default(),
    };
    let listen = listener.local_addr().map_err(|cause| cause.to_string())?;
    tracing::info!(%listen, command = plan.command, "serving");
    let pool = ProcessPool::new(options.limits, plan);
    let (hosts, silence) = (options.hosts, options.silence);
    let context = Arc::new(BridgeContext { pool, listen, hosts, silence });
    let connections = BridgeConnections {
        service: TowerToHyperService::new(routes(Arc::clone(&context))),
        places: Arc::new(Semaphore::new(CONNECTIONS)),
        graceful: GracefulShutdown::new(),
    };
    tokio::select! {
        () = connections.accept(listener) => {}
        () = keep_sweeping(&context.pool) => {}
        () = shutdown => {}
    }
    tracing::info!("ending the MCP servers");
    let finished = async {
        while context.pool.calls() > 0 {
            sleep(PAUSE).await;
        }
    };
    let _ = timeout(DRAIN, finished).await;
    context.pool.end().await;
    // Their streams have ended with them.
    let _ = timeout(DRAIN, connections.graceful.shutdown()).await;
    Ok(())
}

async fn keep_sweeping(pool: &ProcessPool) {
    let mut ticks = interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        pool.sweep();
    }
}

/// The connections of the listener.
struct BridgeConnections {
    service: TowerToHyperService<axum::Router>,
    places: Arc<Semaphore>,
    graceful: GracefulShutdown,
}

impl BridgeConnections {
    async fn accept(&self, listener: TcpListener) {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let serving = self.serve(stream);
                    tokio::spawn(async move {
                        if let Err(cause) = serving.await {
                            tracing::debug!(%cause, "a connection ended");
                        }
                        drop(place);
                    });
                }
                Err(cause) => {
                    if is_of_the_listener(&cause) {
                        tracing::warn!(%cause, "a connection cannot be accepted");
                    }
                    sleep(PAUSE).await;
                }
            }
        }
    }

    fn serve(&self, stream: TcpStream) -> impl Future<Output = hyper::Result<()>> + use<> {
        let _ = stream.set_nodelay(true);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIME)
            .serve_connection(TokioIo::new(stream), self.service.clone());
        self.graceful.watch(connection)
    }
}

/// Whether accepting fails for all clients, and not only for one that has disconnected.
fn is_of_the_listener(cause: &io::Error) -> bool {
    !matches!(
        cause.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
    )
}
