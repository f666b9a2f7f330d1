//! The targets of one MCP server, and which of them a request goes to.
//!
//! Requests take turns. Those that carry an id which a target issued (of a session or an event, or the address
//! of messages) go back to that target. A request that never reached its target may go on to another one; a
//! request of which a byte was sent may not, because the tool that it calls would perhaps run twice.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::target::Target;
use crate::app::App;
use crate::clock::Timestamp;
use crate::config::{ResourceConfig, TargetTag};

/// Most targets that one request is sent to. Each may take `connect_timeout`.
const ATTEMPTS: u32 = 3;
/// A session ends if its target could not be reached for this long and another one works: 5 s. A restart of
/// the target takes less, and a client would rather begin again elsewhere than wait for longer.
const SESSION_GIVEN_UP: Duration = Duration::from_secs(5);

/// The targets of one MCP server.
pub(super) struct TargetList {
    targets: Box<[Target]>,
    /// Whose turn is next.
    turn: AtomicUsize,
}

impl TargetList {
    /// Returns `None` if there are none, or if a URL cannot be used in an HTTP request.
    pub(super) fn of(app: &App, resource: &ResourceConfig) -> Option<Self> {
        let backends = app.backends(resource)?;
        let targets = resource.targets.iter();
        let targets = targets.map(|url| Target::of(url, &backends, app.target_seen(resource, url)));
        let targets: Box<[Target]> = targets.collect::<Option<_>>()?;
        if targets.is_empty() {
            return None;
        }
        // Replicas that start together do not all begin with the first target.
        let turn = AtomicUsize::new(usize::from(std::process::id().to_le_bytes()[0]));
        Some(Self { targets, turn })
    }

    /// Chooses the target of a request that may go to any.
    pub(super) fn any(&self, app: &App) -> TargetChoice<'_> {
        let chosen = |at| TargetChoice { list: self, at, tried: 0, attempts: 1, is_bound: false };
        let all = self.targets.len();
        if all == 1 {
            return chosen(0);
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % all;
        let now = app.now();
        let mut places = (turn..all).chain(0..turn);
        // If all are left out, it is better to try one than none.
        chosen(places.find(|at| self.targets[*at].seen.admits(now)).unwrap_or(turn))
    }

    /// Returns the target that issued an id; `None` if it is no longer configured.
    pub(super) fn issuer(&self, tag: TargetTag) -> Option<TargetChoice<'_>> {
        let at = self.targets.iter().position(|target| target.tag == tag)?;
        Some(TargetChoice { list: self, at, tried: 0, attempts: 1, is_bound: true })
    }
}

/// The target of one request, and those that it was sent to in vain.
pub(super) struct TargetChoice<'a> {
    list: &'a TargetList,
    at: usize,
    /// One bit for each target.
    tried: u32,
    attempts: u32,
    /// The request carries an id that this target issued.
    is_bound: bool,
}

impl<'a> TargetChoice<'a> {
    pub(super) fn target(&self) -> &'a Target {
        &self.list.targets[self.at]
    }

    /// Goes on to another target; returns `false` if there is none.
    pub(super) fn go_on(&mut self, now: Timestamp) -> bool {
        let all = self.list.targets.len();
        if self.is_bound || all == 1 || self.attempts >= ATTEMPTS {
            return false;
        }
        self.tried |= 1_u32 << self.at;
        let places = (self.at + 1..all).chain(0..self.at);
        let mut left = places.filter(|at| self.tried & (1_u32 << *at) == 0);
        let Some(first) = left.next() else { return false };
        let admits = |at: &usize| self.list.targets[*at].seen.admits(now);
        // Nothing was sent yet, so a target that is left out may be tried too, if there is no other.
        self.at = std::iter::once(first).chain(left).find(admits).unwrap_or(first);
        self.attempts += 1;
        true
    }

    /// Whether the session of the request is lost with its target, while another target works: the client can
    /// begin a new session there.
    pub(super) fn has_lost_its_session(&self, now: Timestamp) -> bool {
        let mut others = self.list.targets.iter().enumerate().filter(|(at, _)| *at != self.at);
        self.is_bound
            && self.target().seen.has_failed_for(SESSION_GIVEN_UP, now)
            && others.any(|(_, other)| !other.seen.is_failing())
    }
}
