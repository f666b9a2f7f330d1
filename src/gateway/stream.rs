//! Open streams end with the grant they were opened under (checklist GW-21).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::watch;

use crate::app::App;
use crate::clock::Timestamp;
use crate::rates::Place;
use crate::storage::{GrantState, LiveGrant};
use crate::upstream::recheck::Recheck;

/// How often an open stream asks whether its grant is still live. Revocations in this process cut it
/// at once; this bounds those of other processes, and expiry.
const STREAM_CHECK: Duration = Duration::from_secs(15);
/// A database that cannot answer for a moment cuts no stream; one that stays silent does, within a minute.
const UNANSWERED: u32 = 2;

/// A body that holds the person's place at the gateway until it has passed.
pub(super) struct Placed {
    pub(super) inner: Body,
    pub(super) _place: Place<String>,
}

impl HttpBody for Placed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A body that ends when the future is ready, whatever the other side still has to say.
pub(super) struct CutWhenEnded {
    pub(super) inner: Body,
    pub(super) _place: Place<String>,
    pub(super) ended: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl HttpBody for CutWhenEnded {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default() // the end is not the inner body's alone to say
    }
}

/// Ready when the grant of an open stream has ended, or nobody vouches for the person any more.
///
/// A stream may outlive its access token, or a long tool call would be cut in the middle. From then
/// on the stream itself asks the identity provider again whenever it is time.
pub(super) async fn until_ended(
    app: App,
    grant: Arc<LiveGrant>,
    token_expires_at: Timestamp,
    mut ended: watch::Receiver<u64>,
) {
    let mut unanswered = 0;
    loop {
        let hint = tokio::time::timeout(STREAM_CHECK, ended.changed()).await;
        if matches!(hint, Ok(Err(_))) {
            return; // storage is closing
        }
        // In a box of its own: what asking takes is held only while asking, not by every idle stream.
        match Box::pin(vouched_for(&app, &grant, token_expires_at)).await {
            Some(true) => unanswered = 0,
            None if unanswered < UNANSWERED => unanswered += 1,
            Some(false) | None => {
                tracing::info!(grant_id = grant.id, "stream cut: the grant has ended");
                return;
            }
        }
    }
}

/// Whether the grant is live and the person vouched for; `None` when that cannot be told now.
async fn vouched_for(app: &App, grant: &LiveGrant, token_expires_at: Timestamp) -> Option<bool> {
    let now: Timestamp = app.now();
    if let GrantState::Ended = app.storage().grant(&grant.id, now).await.ok()? {
        return Some(false);
    }
    if now < token_expires_at {
        return Some(true);
    }
    let asked = app.upstream().recheck(&grant.session_id).await.ok()?;
    Some(matches!(asked, Recheck::Fresh(_) | Recheck::Stale(_)))
}
