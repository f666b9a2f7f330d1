//! Ends answers that are under way when their grant, rules or configuration end (threat GW-07).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::watch;

use super::authenticate::Caller;
use crate::app::App;
use crate::clock::Timestamp;
use crate::oauth::scope::ScopeSet;
use crate::rate_limits::RequestPermit;
use crate::storage::{GrantState, LiveGrant, Person};
use crate::telemetry::metrics::OpenStream;
use crate::upstream::recheck::Recheck;

/// How often an open stream asks whether its grant is still live. Revocations in this process cut it
/// at once; this bounds those of other processes, and expiry.
const STREAM_CHECK: Duration = Duration::from_secs(15);
/// A database that cannot answer for a moment cuts no stream; one that stays silent does, within a minute.
const UNANSWERED: u32 = 2;

type Ended = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Under whose authority an answer is passed back.
pub(super) struct StreamAuthorization {
    app: App,
    grant: Arc<LiveGrant>,
    /// What the MCP server was told that the caller may do.
    scopes: ScopeSet,
    token_expires_at: Timestamp,
    ended: watch::Receiver<u64>,
    /// The answer is to no request: nobody loses anything when it ends with the process.
    only_listens: bool,
}

impl StreamAuthorization {
    /// That of this caller; `ended` was there before the grant was looked up.
    pub(super) fn of(app: &App, caller: Caller, ended: watch::Receiver<u64>) -> Self {
        let Caller { grant, scopes, token_expires_at, .. } = caller;
        let only_listens = false;
        Self { app: app.clone(), grant, scopes, token_expires_at, ended, only_listens }
    }

    /// The same, of a stream that carries no answer to a request, if it is one.
    pub(super) fn that_only_listens(self, only_listens: bool) -> Self {
        Self { only_listens, ..self }
    }
}

/// A plain body: it holds the person's place until it has passed, and breaks off when its authority
/// has ended. Most are there at once, and cost no watching.
pub(super) struct PermitBody {
    inner: Body,
    _place: RequestPermit,
    authority: Option<StreamAuthorization>,
    ended: Option<Ended>,
}

impl PermitBody {
    pub(super) fn new(inner: Body, place: RequestPermit, authority: StreamAuthorization) -> Self {
        Self { inner, _place: place, authority: Some(authority), ended: None }
    }
}

impl HttpBody for PermitBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(ended) = &mut self.ended {
            // Before the body: one that never rests is cut as well.
            if ended.as_mut().poll(context).is_ready() {
                return Poll::Ready(Some(Err(axum::Error::new(AuthorityEnded))));
            }
            return Pin::new(&mut self.inner).poll_frame(context);
        }
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) || self.inner.is_end_stream() {
            return frame;
        }
        if let Some(authority) = self.authority.take() {
            let mut ended: Ended = Box::pin(until_ended(authority));
            if ended.as_mut().poll(context).is_ready() {
                return Poll::Ready(Some(Err(axum::Error::new(AuthorityEnded))));
            }
            self.ended = Some(ended);
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

/// An answer broke off because nobody vouches for it any more.
#[derive(Debug, thiserror::Error)]
#[error("the grant has ended")]
struct AuthorityEnded;

/// A body that ends when the future is ready, whatever the other side still has to say.
pub(super) struct RevocableBody {
    pub(super) inner: Body,
    pub(super) _held: (RequestPermit, OpenStream),
    pub(super) ended: Ended,
}

impl HttpBody for RevocableBody {
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

/// Ready when the grant of an open stream has ended, nobody vouches for the person any more, or the rules
/// allow less than it began with.
///
/// A stream may outlive its access token, or a long tool call would be cut in the middle. From then
/// on the stream itself asks the identity provider again whenever it is time.
pub(super) async fn until_ended(mut authority: StreamAuthorization) {
    let mut unanswered = 0;
    loop {
        if authority.only_listens && authority.app.is_draining() {
            return;
        }
        let hint = tokio::time::timeout(STREAM_CHECK, authority.ended.changed()).await;
        if matches!(hint, Ok(Err(_))) {
            return; // storage is closing
        }
        let present = authority.app.current();
        if present.generation() != authority.app.generation() {
            let grant = &authority.grant;
            if !still_carried(&authority.app, &present, &grant.resource) {
                tracing::info!(
                    grant_id = grant.id,
                    "stream cut: its MCP server is configured anew"
                );
                return;
            }
            authority.app = present;
        }
        // In a box of its own: what asking takes is held only while asking, not by every idle stream.
        match Box::pin(vouched_for(&authority)).await {
            Some(true) => unanswered = 0,
            None if unanswered < UNANSWERED => unanswered += 1,
            Some(false) | None => {
                tracing::info!(grant_id = authority.grant.id, "stream cut: its grant has ended");
                return;
            }
        }
    }
}

/// Whether a stream that was opened under `before` may go on under `now`. A client whose stream was cut
/// opens another, under the new rules.
fn still_carried(before: &App, now: &App, resource: &str) -> bool {
    match (before.resource(resource), now.resource(resource)) {
        (Some(before), Some(now)) => now.carries_the_same_as(before),
        _ => false,
    }
}

/// Whether the grant is live, the person vouched for, and all of it still allowed; `None` when that
/// cannot be told now.
async fn vouched_for(authority: &StreamAuthorization) -> Option<bool> {
    let StreamAuthorization { app, grant, scopes, token_expires_at, .. } = authority;
    let now = app.now();
    if let GrantState::Ended = app.storage().grant(&grant.id, now).await.ok()? {
        return Some(false);
    }
    if now < *token_expires_at {
        return Some(true);
    }
    match app.upstream().recheck(&grant.session_id).await.ok()? {
        Recheck::Fresh(person) | Recheck::Stale(person) => {
            still_allowed(app, grant, scopes, &person)
        }
        Recheck::Ended | Recheck::Unknown => Some(false),
    }
}

/// Whether the rules as they are now leave everything that the MCP server was told at the beginning:
/// when they leave less, it has to be told so, with a new request.
fn still_allowed(app: &App, grant: &LiveGrant, scopes: &ScopeSet, person: &Person) -> Option<bool> {
    let Some(resource) = app.resource(&grant.resource) else { return Some(false) };
    let policy = &resource.policy;
    let granted = policy.decide(&person.facts, &grant.client_id, &grant.ceiling).granted;
    let refused = granted.is_empty() && policy.refuses(&grant.ceiling);
    if !refused && scopes.is_subset(&granted) {
        return Some(true);
    }
    // What cannot be read now may be allowed all the same.
    (!person.facts.any_unknown()).then_some(false)
}
