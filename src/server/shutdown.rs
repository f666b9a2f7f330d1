//! Tells the connections of listeners that the server shuts down, and waits until they have ended.
//!
//! `hyper-util` has the same for connections of its own making. It looks at the signal each time that a connection
//! is polled, which takes a lock; here a connection is woken once.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::sync::watch;

/// The signal for a set of connections.
pub(super) struct Shutdown(watch::Sender<bool>);

impl Shutdown {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(false))
    }

    /// Returns what a connection watches until it has ended.
    pub(super) fn watcher(&self) -> ShutdownWatcher {
        ShutdownWatcher { signal: self.0.subscribe(), waiting: None, is_told: false }
    }

    /// Tells all connections, and returns when they have ended.
    pub(super) async fn begin(self) {
        self.0.send_replace(true);
        self.0.closed().await;
    }
}

/// Tells one connection.
pub(super) struct ShutdownWatcher {
    signal: watch::Receiver<bool>,
    /// Wakes the task of the connection.
    waiting: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    is_told: bool,
}

impl ShutdownWatcher {
    /// Whether the server shuts down.
    pub(super) fn is_shutting_down(&self) -> bool {
        *self.signal.borrow()
    }

    /// Ready once, when the server shuts down. The task that polls this first is the one that is woken.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_told {
            return Poll::Pending;
        }
        let waiting = match &mut self.waiting {
            // No change, so nothing to look at.
            Some(_) if matches!(self.signal.has_changed(), Ok(false)) => return Poll::Pending,
            Some(waiting) => waiting,
            None => {
                let mut signal = self.signal.clone();
                self.waiting.insert(Box::pin(async move {
                    let _ = signal.wait_for(|begun| *begun).await;
                }))
            }
        };
        let poll = waiting.as_mut().poll(context);
        self.is_told = poll.is_ready();
        poll
    }
}
