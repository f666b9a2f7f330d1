//! `portcullis serve`: runs the server.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use tokio::net::TcpListener;

use super::reload::{Hangup, Seen, log_as};
use super::{
    ConfigFile, allow_open_files, cannot_open, config, fail, reload, run_to_the_end,
    service_manager,
};
use crate::app::App;
use crate::clock::Clock;
use crate::config::{Config, Loaded};
use crate::server::{self, Listeners};
use crate::storage::Storage;
use crate::telemetry::audit::Actor;
use crate::telemetry::{self, LogFormat};

pub(super) fn run(file: &ConfigFile) -> ExitCode {
    install_log();
    let path = config::path(file);
    if let Some(none) = config::nothing_configured(path.as_deref()) {
        return fail(&none);
    }
    let (read, seen) = reload::read(path.as_deref());
    let loaded = match read {
        Ok(loaded) => loaded,
        Err(problems) => return fail(&problems),
    };
    telemetry::limit_lines(loaded.config.limits.log_line);
    log_as(&loaded.config);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    allow_open_files();
    match run_to_the_end(serve(loaded, path, seen)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(&message),
    }
}

/// Sets up logging as `PORTCULLIS_LOG` (level) and `PORTCULLIS_LOG_FORMAT` (text, json) say.
pub(super) fn install_log() {
    install_log_at("info");
}

/// The same, with this level where `PORTCULLIS_LOG` names none.
pub(super) fn install_log_at(usual: &str) {
    let format = match std::env::var("PORTCULLIS_LOG_FORMAT").as_deref() {
        Ok("json") => LogFormat::Json,
        _ => LogFormat::Text,
    };
    let level = std::env::var("PORTCULLIS_LOG").ok().filter(|level| !level.is_empty());
    telemetry::install(Some(level.as_deref().unwrap_or(usual)), format);
    telemetry::log_panics();
}

async fn serve(loaded: Loaded, path: Option<PathBuf>, seen: Seen) -> Result<(), String> {
    let digest = loaded.digest();
    let config = loaded.config;
    let (listen, listen_http) = (config.listen, config.listen_http);
    let public_url = config.public_url.as_str().to_owned();
    let admin = config.admin.as_ref().map(|admin| (admin.listen, admin.url.clone()));
    // Listens for SIGHUP from now on, because a database migration may take long.
    let hangup = Hangup::new();
    stop_point!("start: before the database");
    let app = open(config, Clock::System).await?;
    let listener = bind("listen", listen).await?;
    let admin_listener = match &admin {
        Some((listen, _)) => Some(bind("admin.listen", *listen).await?),
        None => None,
    };
    let plain = match listen_http {
        Some(listen) => Some(bind("listen_http", listen).await?),
        None => None,
    };
    tell_start(&app, digest).await;
    warm_up(&app);
    tracing::info!(%listen, public_url, "serving");
    if let Some(listen) = listen_http {
        tracing::info!(%listen, "redirecting to https");
    }
    if let Some((listen, url)) = admin {
        tracing::info!(%listen, url = url.as_str(), "admin pages");
    }
    // Before anybody hears that the server serves: otherwise an early signal would kill it.
    let told_to_end = shutdown();
    service_manager::serving();
    let heeding = tokio::spawn(reload::keep_heeding(app.clone(), path, (seen, hangup)));
    let shutdown = async {
        told_to_end.await;
        heeding.abort();
    };
    let listeners = Listeners { public: listener, admin: admin_listener, plain };
    server::serve(app, listeners, shutdown).await;
    Ok(())
}

pub(super) async fn bind(key: &str, listen: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(listen).await.map_err(|cause| {
        let why = match cause.kind() {
            ErrorKind::AddrInUse => {
                "the address is in use by another program. Stop it, or choose another port"
                    .to_owned()
            }
            ErrorKind::AddrNotAvailable => {
                "this machine has no such address. Choose one that it has, or \"0.0.0.0\" for all"
                    .to_owned()
            }
            ErrorKind::PermissionDenied => {
                "the system forbids this port. Choose one from 1024 on".to_owned()
            }
            _ => format!("nothing can listen there: {cause}"),
        };
        format!("{key} = \"{listen}\": {why}")
    })
}

/// Records version and configuration digest in the audit trail. Secrets are masked in the hashed text.
pub(super) async fn tell_start(app: &App, digest: String) {
    let event = app.event("configuration_loaded", Actor::Server);
    app.record(event.with("version", env!("CARGO_PKG_VERSION")).with("digest", digest)).await;
}

/// Opens the database and builds the application.
pub(super) async fn open(config: Config, clock: Clock) -> Result<App, String> {
    let secret_key = config.secret_key.as_ref().map(|key| key.expose().as_bytes().to_vec());
    let (url, connections) = (config.database_url.expose(), config.limits.database_connections);
    let storage = Storage::open_with(url, secret_key.as_deref(), connections)
        .await
        .map_err(|error| cannot_open(url, &error))?;
    App::new(config, clock, storage).await.map_err(|error| error.to_string())
}

/// Fetches the identity provider's metadata in the background. The first person then does not wait for it,
/// and the log reports early if it cannot be fetched.
fn warm_up(app: &App) {
    let app = app.clone();
    tokio::spawn(async move {
        if let Some(proxy) = app.upstream().proxy() {
            tracing::info!(proxy, "the identity provider is asked through a proxy");
        }
        if app.upstream().is_reachable().await {
            tracing::info!("the identity provider is reachable");
        } else {
            tracing::warn!(
                "the identity provider cannot be reached; nobody new can sign in until it can"
            );
        }
    });
}

/// Receives signals from now on. The future completes on Ctrl-C or SIGTERM. A second signal then ends the process
/// immediately.
pub(super) fn shutdown() -> impl Future<Output = ()> {
    let mut signals = Signals::new();
    async move {
        signals.next().await;
        service_manager::stopping();
        tokio::spawn(async move {
            let number = signals.next().await;
            tracing::warn!("told to end a second time: what is under way is cut");
            telemetry::flush();
            std::process::exit(128 + number); // exit code of a process that a signal ended, as shells report it
        });
    }
}

/// Receives the signals that end a process.
struct Signals {
    #[cfg(unix)]
    terminate: Option<tokio::signal::unix::Signal>,
    #[cfg(unix)]
    interrupt: Option<tokio::signal::unix::Signal>,
}

#[cfg(unix)]
impl Signals {
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self {
            terminate: signal(SignalKind::terminate()).ok(),
            interrupt: signal(SignalKind::interrupt()).ok(),
        }
    }

    /// Waits for the next signal and returns its number.
    async fn next(&mut self) -> i32 {
        async fn come(signal: &mut Option<tokio::signal::unix::Signal>) {
            if let Some(signal) = signal
                && signal.recv().await.is_some()
            {
                return;
            }
            std::future::pending::<()>().await;
        }
        tokio::select! {
            () = come(&mut self.terminate) => 15,
            () = come(&mut self.interrupt) => 2,
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    fn new() -> Self {
        Self {}
    }

    async fn next(&mut self) -> i32 {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        2
    }
}
