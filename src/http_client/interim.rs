//! Limits interim responses (1xx). A server may send any number of them before its final response. One that
//! sends nothing else would keep a connection and a processor busy until the response timeout.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use axum::http::Request;
use futures_util::task::AtomicWaker;

/// Most interim responses to one request. A server that sends `102` every few seconds until the response
/// timeout stays below this.
const MOST: usize = 1_000;

/// A counter of the interim responses to one request.
#[derive(Clone, Default)]
pub struct InterimAnswers(Arc<InterimCounter>);

#[derive(Default)]
struct InterimCounter {
    came: AtomicUsize,
    /// Wakes the task that waits. Cheaper than a `Notify` on the way of every call of an MCP server.
    waiting: AtomicWaker,
}

impl InterimAnswers {
    /// Counts the interim responses to this request.
    pub fn of<B>(request: &mut Request<B>) -> Self {
        let answers = Self::default();
        let counted = Arc::clone(&answers.0);
        hyper::ext::on_informational(request, move |_| {
            if counted.came.fetch_add(1, Ordering::Relaxed) + 1 == MOST {
                counted.waiting.wake();
            }
        });
        answers
    }

    /// Returns once there were too many; otherwise never.
    pub async fn are_too_many(&self) {
        poll_fn(|context| {
            self.0.waiting.register(context.waker());
            // After the registration: a response that comes between the two is not missed.
            if self.0.came.load(Ordering::Relaxed) >= MOST {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }
}
