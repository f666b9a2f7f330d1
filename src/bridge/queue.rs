//! Queues that are limited in bytes, between a process and its callers.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

/// What each item counts besides its length, in bytes, so that small items are limited, too.
const ITEM: usize = 256;
/// How long a sender waits for room: 5 s. A process whose caller reads nothing must not wait for ever, nor a
/// caller whose process reads nothing.
const PATIENCE: Duration = Duration::from_secs(5);

/// The other side does not take anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NotTaken;

/// The end of a queue that takes items.
pub(super) struct QueueSender<T> {
    items: mpsc::UnboundedSender<(T, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
}

/// The other end.
pub(super) struct QueueReceiver<T>(mpsc::UnboundedReceiver<(T, OwnedSemaphorePermit)>);

/// Creates a queue that has room for an item of `longest` bytes, and one more.
pub(super) fn queue<T>(longest: usize) -> (QueueSender<T>, QueueReceiver<T>) {
    let (items, receiver) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(2 * (longest + ITEM)));
    (QueueSender { items, room }, QueueReceiver(receiver))
}

impl<T> Clone for QueueSender<T> {
    fn clone(&self) -> Self {
        Self { items: self.items.clone(), room: Arc::clone(&self.room) }
    }
}

impl<T> QueueSender<T> {
    /// Adds an item of `length` bytes. Waits for room for a while.
    pub(super) async fn send(&self, item: T, length: usize) -> Result<(), NotTaken> {
        let room = Arc::clone(&self.room).acquire_many_owned(permits(length));
        let room = timeout(PATIENCE, room).await.map_err(|_| NotTaken)?.map_err(|_| NotTaken)?;
        self.items.send((item, room)).map_err(|_| NotTaken)
    }

    /// Adds an item if there is room now.
    pub(super) fn send_now(&self, item: T, length: usize) -> Result<(), NotTaken> {
        let room = Arc::clone(&self.room).try_acquire_many_owned(permits(length));
        self.items.send((item, room.map_err(|_| NotTaken)?)).map_err(|_| NotTaken)
    }
}

fn permits(length: usize) -> u32 {
    u32::try_from(length + ITEM).unwrap_or(u32::MAX)
}

impl<T> QueueReceiver<T> {
    /// Returns the next item; `None` when all senders are gone.
    pub(super) async fn next(&mut self) -> Option<T> {
        self.0.recv().await.map(|(item, _)| item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_queue_takes_nothing_until_something_is_read() {
        let (sender, mut receiver) = queue::<u8>(1000);
        assert_eq!(sender.send(1, 1000).await, Ok(()));
        assert_eq!(sender.send(2, 1000).await, Ok(()));
        assert_eq!(sender.send_now(3, 0), Err(NotTaken));
        assert_eq!(receiver.next().await, Some(1));
        assert_eq!(sender.send(3, 0).await, Ok(()));
        drop(receiver);
        assert_eq!(sender.send(4, 0).await, Err(NotTaken));
    }
}
