//! Reads the configuration again on SIGHUP, and when its file has changed.

use std::path::PathBuf;
use std::time::Duration;

use super::config;
use crate::app::App;

/// How often the files are looked at. A look is a few system calls, and also sees what watching a file
/// does not: a link that leads elsewhere, as Kubernetes swaps configuration.
const LOOK: Duration = Duration::from_secs(2);

/// Until the process ends.
pub(super) async fn heed(app: App, file: Option<PathBuf>, secrets: Vec<PathBuf>) {
    let mut hangup = Hangup::new();
    let mut watched: Vec<PathBuf> = file.iter().cloned().chain(secrets).collect();
    let mut taken = stamps(&watched);
    let mut last = taken.clone();
    loop {
        let because = tokio::select! {
            () = hangup.received() => "SIGHUP",
            () = tokio::time::sleep(LOOK) => {
                let now = stamps(&watched);
                // Twice the same: half a file, read while it is written, could lack its rules.
                let settled = now == last;
                last = now;
                if !settled || last == taken {
                    continue;
                }
                "the file has changed"
            }
        };
        taken = stamps(&watched);
        let read = config::read(file.as_deref());
        if let Ok(loaded) = &read {
            watched = file.iter().chain(&loaded.files).cloned().collect();
            taken = stamps(&watched);
        }
        last.clone_from(&taken);
        app.reload(read, because).await;
    }
}

/// What changes when somebody writes a file, or puts another one in its place.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    length: u64,
    changed: Option<std::time::SystemTime>,
    place: (u64, u64),
}

fn stamps(files: &[PathBuf]) -> Vec<Option<Stamp>> {
    let stamp = |file: &PathBuf| {
        let found = std::fs::metadata(file).ok()?;
        #[cfg(unix)]
        let place = {
            use std::os::unix::fs::MetadataExt as _;
            (found.dev(), found.ino())
        };
        #[cfg(not(unix))]
        let place = (0, 0);
        Some(Stamp { length: found.len(), changed: found.modified().ok(), place })
    };
    files.iter().map(stamp).collect()
}

/// The signal by which services are told to read their configuration again.
struct Hangup {
    #[cfg(unix)]
    signal: Option<tokio::signal::unix::Signal>,
}

impl Hangup {
    #[cfg(unix)]
    fn new() -> Self {
        use tokio::signal::unix::{SignalKind, signal};
        Self { signal: signal(SignalKind::hangup()).ok() }
    }

    #[cfg(not(unix))]
    fn new() -> Self {
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
