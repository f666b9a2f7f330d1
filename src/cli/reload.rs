//! Reloads the configuration on SIGHUP and when one of its files changes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{config, output};
use crate::app::{App, Reloaded};
use crate::config::{Config, Loaded, Problems};
use crate::telemetry;
use crate::telemetry::supervision::supervise;
use crate::telemetry::tasks::Task;

/// Interval of the check for changed files: 2 s. A check costs a few system calls. It also notices changed
/// symbolic links, by which Kubernetes replaces configuration and which file watchers miss.
const LOOK: Duration = Duration::from_secs(2);

/// Maximum number of reads if a file changes during reading.
const ATTEMPTS: usize = 3;

/// The files of the configuration, and their stamps when they were read.
pub(super) struct Seen {
    files: Vec<PathBuf>,
    stamps: Vec<Option<Stamp>>,
}

/// Reads the configuration and records the stamps of its files, so that the next check notices changes during
/// or after the read.
pub(super) fn read(file: Option<&Path>) -> (Result<Loaded, Problems>, Seen) {
    read_by(|| config::read(file), file, Vec::new())
}

fn read_by(
    mut read: impl FnMut() -> Result<Loaded, Problems>,
    file: Option<&Path>,
    mut files: Vec<PathBuf>,
) -> (Result<Loaded, Problems>, Seen) {
    let mut attempt = 1;
    loop {
        let before = stamps(&files);
        let read = read();
        // A file with errors does not tell which secret files it names, so the earlier list is kept.
        let named = read.as_ref().map_or_else(|_| files.clone(), |loaded| loaded.files.clone());
        let named: Vec<PathBuf> = match file {
            Some(file) if !named.iter().any(|named| named == file) => {
                std::iter::once(file.to_owned()).chain(named).collect()
            }
            _ => named,
        };
        let settled = named == files && stamps(&named) == before;
        files = named;
        if settled || attempt == ATTEMPTS {
            // An empty list matches no files, so the next check reads again.
            return (read, Seen { files, stamps: if settled { before } else { Vec::new() } });
        }
        attempt += 1;
    }
}

/// Runs the reload task until the process ends, and restarts it after a panic.
pub(super) async fn keep_heeding(app: App, file: Option<PathBuf>, start: (Seen, Hangup)) {
    let files = start.0.files.clone();
    let mut start = Some(start);
    let heed = || {
        // A panic loses the stamps. Without stamps everything is read again, which also covers a signal that
        // arrived in between.
        let unknown = || (Seen { files: files.clone(), stamps: Vec::new() }, Hangup::new());
        let (seen, hangup) = start.take().unwrap_or_else(unknown);
        Box::pin(heed(&app, file.as_deref(), seen, hangup))
    };
    supervise(app.metrics(), Task::Reload, heed).await;
}

async fn heed(app: &App, file: Option<&Path>, mut seen: Seen, mut hangup: Hangup) {
    panic_point!("reload");
    let mut last = look(&seen.files).await;
    loop {
        let reason = tokio::select! {
            () = hangup.received() => "SIGHUP",
            () = tokio::time::sleep(LOOK) => {
                let now = look(&seen.files).await;
                // The stamps must be the same in two checks: a file that is still being written could lack
                // its rules.
                let settled = now == last;
                last = now;
                if !settled || last == seen.stamps {
                    continue;
                }
                "the file has changed"
            }
        };
        let read;
        let (path, files) = (file.map(Path::to_owned), seen.files);
        (read, seen) = aside(move || {
            let path = path.as_deref();
            read_by(|| config::read(path), path, files)
        })
        .await;
        last = look(&seen.files).await;
        if Box::pin(app.reload(read, reason)).await == Reloaded::Failed {
            seen.stamps.clear(); // retried until the database responds
        }
        log_as(app.current().config());
    }
}

/// Sets the configured log level, or `warn` with `--quiet`, unless `PORTCULLIS_LOG` sets one.
pub(super) fn log_as(config: &Config) {
    let level = std::env::var("PORTCULLIS_LOG").ok().and_then(|level| level.parse().ok());
    let configured = if output::is_quiet() { tracing::Level::WARN } else { config.log };
    telemetry::set_level(level.unwrap_or(configured));
}

/// Runs blocking work outside the async threads, because a file can be large and a disk slow.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic), // as if the work had run on this thread
            Err(_) => std::future::pending().await,        // the process is shutting down
        },
    }
}

/// Returns the current stamps of the files.
async fn look(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let files = files.to_vec();
    aside(move || stamps(&files)).await
}

/// File metadata that changes when the file is written or replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    changed: Option<std::time::SystemTime>,
    inode: (u64, u64),
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |file: &PathBuf| {
        let found = std::fs::metadata(file).ok()?;
        #[cfg(unix)]
        let inode = {
            use std::os::unix::fs::MetadataExt as _;
            (found.dev(), found.ino())
        };
        #[cfg(not(unix))]
        let inode = (0, 0);
        Some(Stamp { length: found.len(), changed: found.modified().ok(), inode })
    };
    files.iter().map(stamp).collect()
}

/// Receives SIGHUP, the usual signal to reload the configuration.
pub(super) struct Hangup {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Hangup {
    #[cfg(unix)]
    pub(super) fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self { signal: signal(SignalKind::hangup()).ok() }
    }

    #[cfg(not(unix))]
    pub(super) fn new() -> Self {
        Self {}
    }

    async fn received(&mut self) {
        #[cfg(unix)]
        if let Some(signal) = &mut self.signal
            && signal.recv().await.is_some()
        {
            return;
        }
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn what_changes_while_it_is_read_is_read_again() {
        let name = crate::oauth::secret::random_text();
        let path = std::env::temp_dir().join(format!("portcullis_reload_{name}.toml"));
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("listen = 1");
        let mut reads = 0;

        let (_, seen) = read_by(
            || {
                let text = std::fs::read_to_string(&path).unwrap();
                reads += 1;
                if reads == 2 {
                    write("listen = 23"); // changed after the read, before the next check
                }
                Config::load(Some((&path, text)), &std::collections::BTreeMap::new())
            },
            Some(&path),
            Vec::new(),
        );
        assert_eq!(reads, 3);
        assert_eq!(seen.stamps, stamps(&seen.files), "what was read last is what is there");

        let mut length = 20;
        let (_, seen) = read_by(
            || {
                length += 1;
                write(&"#".repeat(length)); // changes during every read
                Config::load(Some((&path, String::new())), &std::collections::BTreeMap::new())
            },
            Some(&path),
            Vec::new(),
        );
        assert_ne!(seen.stamps, stamps(&seen.files), "it is read at the next look");
        std::fs::remove_file(&path).unwrap();
    }
}
