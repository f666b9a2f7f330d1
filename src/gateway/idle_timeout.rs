//! Idle timeout for event streams: closes a stream on which the server has sent nothing for too long, because
//! its client may be gone. A client that still needs a stream opens another.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use crate::http_client::TargetBody;

/// A body that ends if the server sends nothing for `timeout`.
pub(super) struct IdleTimeoutBody {
    inner: TargetBody,
    timeout: Duration,
    last: Instant,
    silence: Pin<Box<Sleep>>,
}

impl IdleTimeoutBody {
    pub(super) fn new(inner: TargetBody, timeout: Duration) -> Self {
        Self { inner, timeout, last: Instant::now(), silence: Box::pin(sleep(timeout)) }
    }
}

impl HttpBody for IdleTimeoutBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(context) {
            this.last = Instant::now();
            return Poll::Ready(frame.map(|frame| frame.map_err(axum::Error::new)));
        }
        while this.silence.as_mut().poll(context).is_ready() {
            let due = this.last + this.timeout;
            if due <= Instant::now() {
                tracing::info!("stream cut: nothing came for too long");
                return Poll::Ready(None);
            }
            this.silence.as_mut().reset(due);
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}
