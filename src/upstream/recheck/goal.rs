//! What a caller of a re-check waits for: a confirmation of the person, or a fresh access token. One request
//! brings both, so that exactly one place rotates the refresh token of a session.

use crate::storage::UpstreamSession;
use crate::upstream::{SIGN_IN, UpstreamInner};

/// What a caller of a re-check waits for.
#[derive(Clone, Copy, Debug)]
pub(in crate::upstream) enum Goal {
    /// The provider has confirmed the person recently.
    Confirmation,
    /// The access token is good for one more call.
    Token {
        /// The version of the session whose token a service refused.
        refused: Option<i64>,
    },
}

impl UpstreamInner {
    /// Returns whether the session has an access token that is good for one more call, and that is not the
    /// one that was refused.
    pub(in crate::upstream) fn has_fresh_token(
        &self,
        session: &UpstreamSession,
        refused: Option<i64>,
    ) -> bool {
        let until = session.tokens.access_until.map(crate::clock::Timestamp::from_unix);
        refused != Some(session.version)
            && !session.tokens.access_token.is_empty()
            && self.lifetimes.is_fresh(SIGN_IN, until, self.clock.now())
    }
}
