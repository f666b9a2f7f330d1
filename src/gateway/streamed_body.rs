//! A request body that is streamed to the target. If the target could not be reached, nothing of it was read,
//! and it can go to another target.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use parking_lot::Mutex as Lock;

/// A body that comes back unless somebody reads from it.
pub(super) struct StreamedBody(Arc<Lock<Option<Body>>>);

impl StreamedBody {
    pub(super) fn new(body: Body) -> Self {
        Self(Arc::new(Lock::new(Some(body))))
    }

    /// Returns the body to send; `None` if it was sent, or is being sent.
    pub(super) fn take(&self) -> Option<Body> {
        let inner = self.0.lock().take()?;
        Some(Body::new(UnreadBody { inner, home: Some(Arc::clone(&self.0)) }))
    }

    /// Whether the body is here.
    pub(super) fn is_here(&self) -> bool {
        self.0.lock().is_some()
    }
}

struct UnreadBody {
    inner: Body,
    /// Where the body goes when this is dropped; `None` once it has been read from.
    home: Option<Arc<Lock<Option<Body>>>>,
}

impl HttpBody for UnreadBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.home = None;
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if matches!(&frame, Poll::Ready(Some(Ok(frame))) if frame.is_trailers()) {
            // Trailers end the body here: no allow-list has checked them.
            return Poll::Ready(None);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for UnreadBody {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            *home.lock() = Some(std::mem::take(&mut self.inner));
        }
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn a_body_comes_back_only_if_nothing_was_read_of_it() {
        let body = StreamedBody::new(Body::from("text"));
        drop(body.take().unwrap());
        assert!(body.is_here(), "nobody read it");

        let taken = body.take().unwrap();
        assert!(!body.is_here() && body.take().is_none(), "it is under way");
        assert_eq!(taken.collect().await.unwrap().to_bytes(), "text");
        assert!(!body.is_here() && body.take().is_none(), "it was sent");

        let body = StreamedBody::new(Body::from("text"));
        let mut begun = body.take().unwrap();
        begun.frame().await.unwrap().unwrap();
        drop(begun);
        assert!(body.take().is_none(), "a part of it was sent");
    }
}
