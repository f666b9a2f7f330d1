//! Starts a login: prepares the row that is stored on approval, and redirects the browser to the identity
//! provider.

use std::collections::HashMap;

use axum::response::{IntoResponse, Response};

use crate::app::App;
use crate::clock::Timestamp;
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::secret::{BrowserBinding, LoginState, Secret, new_id};
use crate::rate_limits::{customer_prefix, site_prefix};
use crate::storage::{Approval, LoginQuota, NewLogin, PendingLogin, StorageError};
use crate::upstream::{LoginToStart, UpstreamError};
use crate::web::browser::{Browser, see_other};
use crate::web::cookies;
use crate::web::page_error::PageError;
use crate::web::pages::{Message, TooMany};

/// A prepared login. It begins once it is approved and stored.
pub(super) struct Start {
    pub(super) id: String,
    state: Secret<LoginState>,
    binding: Secret<BrowserBinding>,
    to: LoginToStart,
    pending: PendingLogin,
    network: Option<String>,
}

impl Start {
    /// Prepares a login and stores nothing. Fails when the browser cannot be redirected to the provider at
    /// all.
    pub(super) async fn prepare(
        browser: &Browser,
        request: AuthorizationRequest,
        metadata_hash: String,
    ) -> Result<Self, UpstreamError> {
        let app = &browser.app;
        let to = app.upstream().prepare_login(request.account).await?;
        let id = new_id(app.clock());
        Ok(Self {
            state: Secret::generate(&id),
            binding: Secret::generate(&id),
            pending: to.pending(request, metadata_hash),
            to,
            network: browser.address.map(|address| customer_prefix(address).to_string()),
            id,
        })
    }

    /// Returns this login with another `prompt` for the provider.
    pub(super) fn prompting(self, prompt: Option<&'static str>) -> Self {
        Self { to: self.to.prompting(prompt), ..self }
    }

    /// Returns the limits on the number of pending logins.
    pub(super) fn quota(app: &App) -> LoginQuota {
        let limits = &app.config().limits;
        LoginQuota { in_all: limits.pending_logins, per_network: limits.pending_logins_per_address }
    }

    /// Evicts a login in favour of this one when all slots are taken, so that a flood from one network
    /// cannot keep everybody else from signing in. Evicts the newest login of the busiest network, if this
    /// login's part of the network has fewer pending logins. Returns false if nothing was evicted: also if
    /// our address is unknown or our network is at its own limit.
    pub(super) async fn try_evict(&self, app: &App) -> Result<bool, StorageError> {
        let Some(ours) = &self.network else { return Ok(false) };
        let pending = app.storage().pending_by_network(app.now()).await?;
        let Some(other) = network_to_evict(ours, &pending, Self::quota(app).per_network) else {
            return Ok(false);
        };
        app.storage().evict_newest_login(other, app.now()).await?;
        Ok(true)
    }

    /// Returns the latest time at which a slot becomes free, assuming that no login ends before it expires.
    async fn free_at(&self, app: &App) -> Result<Timestamp, StorageError> {
        let (network, now) = (self.network.as_deref(), app.now());
        let most = Self::quota(app).per_network;
        let first = app.storage().first_login_to_expire(network, most, now).await?;
        Ok(first.unwrap_or_else(|| now.plus(app.config().tokens.login)))
    }

    /// Returns the login as it is stored together with the approval.
    pub(super) fn new_login(&self, app: &App) -> NewLogin<'_> {
        NewLogin {
            id: &self.id,
            state: self.state.hash(),
            binding: self.binding.hash(),
            login: &self.pending,
            network: self.network.clone(),
            expires_at: app.now().plus(app.config().tokens.login),
        }
    }

    /// Returns the page for a login that finds no free slot. It says when one becomes free.
    pub(super) async fn too_many(&self, app: &App) -> Result<PageError, StorageError> {
        app.metrics().limited("pending_logins");
        let seconds = self.free_at(app).await?.since(app.now()).as_secs().max(1);
        let limits = &app.config().limits;
        let reason = format!(
            "too many logins are pending; an administrator can raise `limits.pending_logins` ({}) or `limits.pending_logins_per_address` ({})",
            limits.pending_logins, limits.pending_logins_per_address
        );
        Ok(Message::TooMany { what: TooMany::SignIns, seconds }.because(reason))
    }

    /// Redirects the browser to the identity provider, and sets the cookie that binds the browser to the
    /// login.
    pub(super) fn redirect_to_provider(&self, browser: &Browser, approval: &Approval) -> Response {
        let evicted = cookies::LOGIN.evict(&browser.cookies, &self.id);
        let set = cookies::LOGIN.set(&browser.cookies, &self.id, &self.binding);
        let to = self.to.url(approval, &self.state);
        (evicted.and(set), see_other(to.as_str())).into_response()
    }
}

/// Returns the network that loses its newest login for one from `ours`: the busiest network within the
/// busiest site prefix.
fn network_to_evict<'a>(
    ours: &str,
    pending: &'a [(String, u64)],
    per_network: u64,
) -> Option<&'a str> {
    let part_of = |network: &str| network.parse().map(site_prefix).ok();
    if pending.iter().any(|(network, number)| network == ours && *number >= per_network) {
        return None;
    }
    let mut sites: HashMap<String, u64> = HashMap::new();
    for (network, number) in pending {
        *sites.entry(part_of(network)?).or_default() += number;
    }
    let ours_then = sites.get(&part_of(ours)?).copied().unwrap_or_default() + 1;
    let (busiest, number) = sites.into_iter().max_by_key(|(_, number)| *number)?;
    if ours_then >= number {
        return None;
    }
    let of_the_busiest =
        pending.iter().filter(|(network, _)| part_of(network).as_ref() == Some(&busiest));
    of_the_busiest.max_by_key(|(_, number)| *number).map(|(network, _)| network.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_site_loses_a_login_to_smaller_ones_only() {
        let pending = |all: &[(&str, u64)]| -> Vec<(String, u64)> {
            all.iter().map(|(network, number)| ((*network).to_owned(), *number)).collect()
        };
        let busy = pending(&[
            ("198.51.100.1", 2),
            ("198.51.100.2", 3),
            ("203.0.113.1", 4),
            ("2001:db8:1:2::", 1),
        ]);
        assert_eq!(network_to_evict("192.0.2.1", &busy, 50), Some("198.51.100.2"));
        assert_eq!(network_to_evict("2001:db8:1:9::", &busy, 50), Some("198.51.100.2"));
        assert_eq!(network_to_evict("198.51.100.3", &busy, 50), None, "it is the flood");
        assert_eq!(network_to_evict("203.0.113.9", &busy, 50), None, "it would be as large");
        assert_eq!(network_to_evict("2001:db8:1:2::", &busy, 1), None, "it has as many as it may");
        assert_eq!(network_to_evict("192.0.2.1", &pending(&[("198.51.100.1", 1)]), 50), None);
        assert_eq!(network_to_evict("192.0.2.1", &[], 50), None, "nobody's address is known");

        let many: Vec<_> = (0..200).map(|n| (format!("2001:db8:1:{n:x}::"), 50)).collect();
        assert!(
            network_to_evict("2001:db8:2::", &many, 50).is_some(),
            "/64s of one /48 are one site"
        );
        assert_eq!(network_to_evict("2001:db8:1:ffff::", &many, 50), None);
    }
}
