//! Cuts responses in flight when their grant, rules or configuration end (threat GW-07).

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::watch;

use super::authenticate::Caller;
use super::usage::{AnswerReader, show};
use crate::app::App;
use crate::clock::Timestamp;
use crate::config::TargetTag;
use crate::http_client::TargetBody;
use crate::oauth::scope::ScopeSet;
use crate::rate_limits::RequestPermit;
use crate::storage::{GrantState, LiveGrant, Person};
use crate::telemetry::metrics::OpenStream;
use crate::upstream::recheck::Recheck;

/// How often an open stream checks whether its grant is still live: every 15 s. A revocation in this process
/// cuts the stream at once; this interval is the delay for revocations in other processes and for expiry.
const STREAM_CHECK: Duration = Duration::from_secs(15);
/// Two failed checks in a row are tolerated, so that a short database outage cuts no stream. The third one,
/// within a minute, cuts it.
const UNANSWERED: u32 = 2;

type StreamEnded = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The grant that authorises an open response.
pub(super) struct StreamAuthorization {
    app: App,
    grant: Arc<LiveGrant>,
    /// The scopes that the caller had when the request was forwarded.
    scopes: ScopeSet,
    token_expires_at: Timestamp,
    ended: watch::Receiver<u64>,
    /// The target that the response comes from.
    target: TargetTag,
    /// The stream carries no response to a request, so the client loses nothing if shutdown ends it.
    only_listens: bool,
}

impl StreamAuthorization {
    /// The authorization of this caller. `ended` must have been created before the grant was looked up.
    pub(super) fn of(
        app: &App,
        caller: Caller,
        ended: watch::Receiver<u64>,
        target: TargetTag,
    ) -> Self {
        let Caller { grant, scopes, token_expires_at, .. } = caller;
        let (app, only_listens) = (app.clone(), false);
        Self { app, grant, scopes, token_expires_at, ended, target, only_listens }
    }

    /// Sets whether the stream carries no response to a request.
    pub(super) fn that_only_listens(self, only_listens: bool) -> Self {
        Self { only_listens, ..self }
    }
}

/// The body of a response that is no event stream.
pub(super) enum PassedBody {
    /// As the target sends it.
    Direct(TargetBody),
    /// It was read first.
    Read(Body),
}

impl PassedBody {
    fn poll_frame(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self {
            Self::Direct(body) => Pin::new(body).poll_frame(context).map_err(axum::Error::new),
            Self::Read(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Direct(body) => body.is_end_stream(),
            Self::Read(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Direct(body) => body.size_hint(),
            Self::Read(body) => body.size_hint(),
        }
    }
}

/// A response body that is no event stream. It holds the person's permit until it has been sent, and breaks
/// off when its grant ends. Most bodies are complete at the first poll; only the others start a revocation
/// watcher.
pub(super) struct PermitBody {
    inner: PassedBody,
    _permit: RequestPermit,
    authority: Option<StreamAuthorization>,
    ended: Option<StreamEnded>,
    /// Reads how the calls ended, until that is known.
    reader: Option<AnswerReader>,
}

impl PermitBody {
    pub(super) fn new(
        inner: PassedBody,
        permit: RequestPermit,
        authority: StreamAuthorization,
        reader: Option<AnswerReader>,
    ) -> Self {
        Self { inner, _permit: permit, authority: Some(authority), ended: None, reader }
    }

    fn poll_inner(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = self.inner.poll_frame(context);
        show(&mut self.reader, &frame);
        frame
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
            // Polled before the body, so that a body that always has data is cut as well.
            if ended.as_mut().poll(context).is_ready() {
                return Poll::Ready(Some(Err(axum::Error::new(AuthorityEnded))));
            }
            return self.poll_inner(context);
        }
        let frame = self.poll_inner(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) || self.inner.is_end_stream() {
            return frame;
        }
        if let Some(authority) = self.authority.take() {
            let mut ended: StreamEnded = Box::pin(until_ended(authority));
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

/// A response broke off because its grant has ended.
#[derive(Debug, thiserror::Error)]
#[error("the grant has ended")]
struct AuthorityEnded;

/// A body that ends as soon as `ended` is ready, even if the other side has more to send.
pub(super) struct RevocableBody {
    pub(super) inner: Body,
    pub(super) _held: (RequestPermit, OpenStream),
    pub(super) ended: StreamEnded,
    /// Reads how the calls ended, until that is known.
    pub(super) reader: Option<AnswerReader>,
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
        let frame = Pin::new(&mut self.inner).poll_frame(context);
        show(&mut self.reader, &frame);
        frame
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default() // `ended` may cut the inner body short
    }
}

/// Ready when the grant of an open stream has ended, the identity provider no longer confirms the person, or
/// the rules allow fewer scopes than at the start.
///
/// A stream may outlive its access token; otherwise a long tool call would be cut in the middle. After the
/// token has expired, the stream itself asks the identity provider again whenever that is due.
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
            let (grant, target) = (&authority.grant, authority.target);
            if !still_carried(&authority.app, &present, &grant.resource, target) {
                tracing::info!(
                    grant_id = grant.id,
                    "stream cut: the configuration of its MCP server has changed"
                );
                return;
            }
            authority.app = present;
        }
        // Boxed, so that an idle stream does not reserve the memory that the check needs only while it runs.
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

/// Whether a stream that was opened under `before` may continue under `now`. A client whose stream was cut
/// opens another under the new configuration.
fn still_carried(before: &App, now: &App, resource: &str, target: TargetTag) -> bool {
    match (before.resource(resource), now.resource(resource)) {
        (Some(before), Some(now)) => now.carries_the_same_as(before) && now.has_target(target),
        _ => false,
    }
}

/// Whether the grant is live, the identity provider confirms the person, and all scopes are still allowed.
/// `None` if that cannot be determined now.
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

/// Whether the current rules still allow every scope that the MCP server was told at the start. If they allow
/// fewer, the client has to make a new request, with which the MCP server learns the new scopes.
fn still_allowed(app: &App, grant: &LiveGrant, scopes: &ScopeSet, person: &Person) -> Option<bool> {
    let Some(resource) = app.resource(&grant.resource) else { return Some(false) };
    let policy = &resource.policy;
    let granted = policy.decide(&person.facts, &grant.client_id, &grant.consented_scopes).granted;
    let refused = granted.is_empty() && policy.refuses(&grant.consented_scopes);
    if !refused && scopes.is_subset(&granted) {
        return Some(true);
    }
    // Facts that are unknown now might still allow it.
    (!person.facts.any_unknown()).then_some(false)
}
