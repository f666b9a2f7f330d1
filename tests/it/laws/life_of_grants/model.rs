//! What can happen, and what a careful reader of the specifications expects of it.

use std::collections::BTreeSet;
use std::time::Duration;

use portcullis::clock::Timestamp;
use portcullis::oauth::authorization_request::AuthorizationRequest;
use portcullis::oauth::scope::ScopeSet;
use portcullis::oauth::secret::{
    AuthorizationCode, BrowserBinding, LoginState, RefreshToken, Secret,
};

/// A step. Numbers name clients, resources, people and sessions (two each); everything that is made on
/// the way is counted from the latest.
#[derive(Clone, Debug)]
pub(super) enum Op {
    Register(usize),
    Ask {
        client: usize,
        resource: usize,
        scopes: u8,
    },
    Approve(usize),
    Deny(usize),
    Callback {
        login: usize,
        same_browser: bool,
        person: usize,
        sid: usize,
        allowed: u8,
    },
    Redeem {
        code: usize,
        how: How,
    },
    /// From the question to the first refresh token.
    Connect {
        client: usize,
        resource: usize,
        person: usize,
        sid: usize,
    },
    Refresh(usize),
    Revoke(usize),
    BlockClient(usize),
    UnblockClient(usize),
    BlockPerson(usize),
    UnblockPerson(usize),
    SignOut(usize),
    EndSession {
        person: usize,
        sid: usize,
    },
    LogoutToken {
        person: usize,
        sid: usize,
    },
    Sweep,
    Wait(i64),
    Restart,
}

/// How a code is presented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    Right,
    OtherClient,
    WrongVerifier,
    OtherRedirectUri,
    OtherResource,
}

/// A consent page somebody looks at.
#[derive(Clone)]
pub(super) struct Page {
    pub(super) id: String,
    pub(super) request: AuthorizationRequest,
    pub(super) expires_at: Timestamp,
    pub(super) decided: bool,
}

/// A login on its way through the provider.
pub(super) struct Login {
    pub(super) state: Secret<LoginState>,
    pub(super) binding: Secret<BrowserBinding>,
    pub(super) request: AuthorizationRequest,
    pub(super) expires_at: Timestamp,
    /// Messages of the provider that had come when it began.
    pub(super) logouts_before: usize,
    pub(super) ended: bool,
}

/// A message of the provider that a session has ended.
pub(super) struct Logout {
    pub(super) person: usize,
    pub(super) sid: usize,
    pub(super) at: Timestamp,
    /// Whether clean-up may have deleted it: no login of before it can still be under way, unless the clock goes back.
    pub(super) forgotten: bool,
}

/// A code from the future is one of before the clock went back; clocks may differ by this much.
const CLOCKS: Duration = Duration::from_mins(1);

/// A code that was sent to a client.
pub(super) struct Code {
    pub(super) secret: Secret<AuthorizationCode>,
    pub(super) request: AuthorizationRequest,
    pub(super) scopes: ScopeSet,
    pub(super) person: usize,
    pub(super) sid: usize,
    pub(super) issued_at: Timestamp,
    pub(super) expires_at: Timestamp,
    pub(super) failures: u32,
    /// Ended before anybody redeemed it: client blocked, person signed out.
    pub(super) dead: bool,
    pub(super) grant: Option<String>,
}

/// What an attempt to redeem must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expected {
    First,
    Refused,
    /// Refused, and counted.
    Counted,
    /// Refused, and what it became ends.
    Replay,
}

impl Code {
    pub(super) fn expected(&self, how: How, attempts: u32, now: Timestamp) -> Expected {
        let holder = matches!(how, How::Right | How::OtherResource);
        if self.failures >= attempts {
            Expected::Refused
        } else if !holder {
            Expected::Counted
        } else if self.grant.is_some() {
            Expected::Replay
        } else if self.dead
            || now >= self.expires_at
            || now.plus(CLOCKS) < self.issued_at
            || how == How::OtherResource
        {
            Expected::Refused
        } else {
            Expected::First
        }
    }
}

/// A refresh token in the hands of a client.
pub(super) struct Token {
    pub(super) secret: Secret<RefreshToken>,
    pub(super) grant: String,
    pub(super) expires_at: Timestamp,
    pub(super) used_at: Option<Timestamp>,
    /// Its successor, among all tokens.
    pub(super) successor: Option<usize>,
    pub(super) replays: u32,
    pub(super) swept: bool,
}

/// What a code became.
#[derive(Clone)]
pub(super) struct Grant {
    pub(super) request: AuthorizationRequest,
    pub(super) person: usize,
    pub(super) sid: usize,
    pub(super) expires_at: Timestamp,
    pub(super) revoked_at: Option<Timestamp>,
    /// Refresh tokens it had when it ended, and how often they were handed out again.
    pub(super) minted: Option<(i64, i64)>,
}

/// The scopes whose bits are set.
pub(super) fn scopes(bits: u8) -> ScopeSet {
    let names: BTreeSet<&str> = ["a", "b", "c"]
        .into_iter()
        .enumerate()
        .filter(|(n, _)| bits >> n & 1 == 1)
        .map(|(_, name)| name)
        .collect();
    ScopeSet::parse(&names.into_iter().collect::<Vec<_>>().join(" ")).unwrap()
}
