//! The start of a login: what is stored when a person has approved, and how the browser is sent on.

use std::net::IpAddr;

use axum::http::{HeaderMap, header};
use axum::response::Response;

use crate::app::App;
use crate::oauth::authorization_request::AuthorizationRequest;
use crate::oauth::secret::{BrowserBinding, LoginState, Secret, new_id};
use crate::rates::network;
use crate::storage::{Approval, LoginQuota, NewLogin, PendingLogin};
use crate::upstream::{LoginToStart, UpstreamError};
use crate::web::cookies::Cookies;
use crate::web::people;

/// A login that can begin once it is approved.
pub(super) struct Start {
    pub(super) id: String,
    state: Secret<LoginState>,
    binding: Secret<BrowserBinding>,
    to: LoginToStart,
    pending: PendingLogin,
    network: Option<String>,
}

impl Start {
    /// Makes everything ready; nothing is stored. Fails when the person cannot be sent on at all.
    pub(super) async fn prepare(
        app: &App,
        request: AuthorizationRequest,
        metadata_hash: String,
        address: Option<IpAddr>,
    ) -> Result<Self, UpstreamError> {
        let to = app.upstream().prepare_login().await?;
        let id = new_id(app.clock());
        Ok(Self {
            state: Secret::generate(&id),
            binding: Secret::generate(&id),
            pending: to.pending(request, metadata_hash),
            to,
            network: address.map(|address| network(address).to_string()),
            id,
        })
    }

    /// How many may be on their way.
    pub(super) fn quota(app: &App) -> LoginQuota {
        let limits = &app.config().limits;
        LoginQuota { in_all: limits.pending_logins, per_network: limits.pending_logins_per_address }
    }

    /// What is to be stored with the approval.
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

    /// Sends the browser to the identity provider, and binds it.
    pub(super) fn lead_on(&self, app: &App, headers: &HeaderMap, approval: &Approval) -> Response {
        let mut response = people::see_other(self.to.url(approval, &self.state).as_str());
        let cookies = Cookies::new(app.config().public_url.is_https());
        let keep = app.config().limits.pending_logins_per_browser.saturating_sub(1);
        for evicted in cookies.logins_beyond(headers, keep) {
            response.headers_mut().append(header::SET_COOKIE, cookies.clear_login(&evicted));
        }
        let lifetime = app.config().tokens.login;
        let set = cookies.set_login(&self.id, &self.binding, lifetime.as_secs());
        response.headers_mut().append(header::SET_COOKIE, set);
        response
    }
}
