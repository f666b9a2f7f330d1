//! Interim answers (1xx): a server may send any number of them before its answer, and one that sends nothing else
//! keeps a connection and a processor busy for as long as an answer is waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::Request;
use tokio::sync::Notify;

/// Interim answers to one request. `102` every few seconds, for as long as an answer may take, is less.
const MOST: usize = 1_000;

/// The interim answers to one request.
#[derive(Clone, Default)]
pub struct InterimAnswers(Arc<Counted>);

#[derive(Default)]
struct Counted {
    came: AtomicUsize,
    too_many: Notify,
}

impl InterimAnswers {
    /// Counts those to this request.
    pub fn of<B>(request: &mut Request<B>) -> Self {
        let answers = Self::default();
        let counted = Arc::clone(&answers.0);
        hyper::ext::on_informational(request, move |_| {
            if counted.came.fetch_add(1, Ordering::Relaxed) + 1 == MOST {
                counted.too_many.notify_one();
            }
        });
        answers
    }

    /// Returns when there were too many.
    pub async fn are_too_many(&self) {
        self.0.too_many.notified().await;
    }
}
