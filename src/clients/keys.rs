//! The public keys of clients that sign assertions: registered inline, or published at `jwks_uri`.
//! Requirement PKJ-07, threat JW-03.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::FindError;
use super::budget::{FetchBudget, FetchCause};
use super::remote::{Bounds, Remote};
use crate::clock::Clock;
use crate::http_client::guarded::GuardedClient;
use crate::oauth::client::assertion::Assertion;
use crate::oauth::client::keys::{KeySet, MAX_KEY_SET};
use crate::oauth::client::{Client, Origin};

/// Key sets are cached as their response headers say, but for at least 1 minute and at most 1 hour, and for
/// 10 minutes if the headers say nothing.
const BOUNDS: Bounds = Bounds {
    body: MAX_KEY_SET,
    floor: Duration::from_mins(1),
    ceiling: Duration::from_hours(1),
    usual: Duration::from_mins(10),
};
/// 1 minute: a key set is refetched at most this often because of an unknown key.
const AGAIN: Duration = Duration::from_mins(1);

/// The key sets that clients publish. Cheap to clone.
#[derive(Clone)]
pub(super) struct PublishedKeys {
    remote: Remote<KeySet>,
    clock: Clock,
}

impl PublishedKeys {
    pub(super) fn new(http: GuardedClient, budget: Arc<FetchBudget>, clock: Clock) -> Self {
        Self { remote: Remote::new(http, clock.clone(), budget, BOUNDS), clock }
    }

    /// Returns the keys of `client`, refetched if none of them could have made `assertion`. `None` if it has
    /// no keys at all.
    pub(super) async fn find(
        &self,
        client: &Client,
        assertion: &Assertion<'_>,
        from: Option<IpAddr>,
    ) -> Result<Option<KeySet>, FindError> {
        if let Some(jwks) = &client.metadata.jwks {
            return Ok(KeySet::parse(jwks).ok());
        }
        let Some(url) = &client.metadata.jwks_uri else { return Ok(None) };
        let is_known = matches!(client.origin, Origin::Configured { .. } | Origin::Created);
        let asker = FetchCause { address: from, is_known };
        let parse = |body: &[u8]| KeySet::parse_text(body).map_err(|refused| refused.to_string());
        let mut read = self.remote.get(url, asker, None, parse).await;
        if let Ok(known) = &read
            && !assertion.has_key_in(&known.value)
        {
            let not_before = self.clock.now().minus(AGAIN);
            read = self.remote.get(url, asker, Some(not_before), parse).await;
        }
        match read {
            Ok(known) => Ok(Some(known.value)),
            // During an outage the last keys stay valid, but no longer than the cache's maximum.
            Err(failed) => match failed.last {
                Some(last) if self.clock.now().since(last.seen_at) < BOUNDS.ceiling => {
                    Ok(Some(last.value))
                }
                _ => {
                    let reason = format!("jwks_uri of the client: {}", failed.trouble);
                    Err(if failed.trouble.is_final() {
                        FindError::Document(reason)
                    } else {
                        FindError::Later(reason)
                    })
                }
            },
        }
    }
}
