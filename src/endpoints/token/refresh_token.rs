//! `grant_type=refresh_token`: RFC 6749 §6, RFC 9700 §4.14.
//!
//! Order: read and check the token; ask the identity provider again if its last answer is old; evaluate the
//! rules; rotate in one transaction. Nothing is consumed before everything else has succeeded.

use axum::response::Response;

use super::{Tokens, answer};
use crate::app::App;
use crate::oauth::client::Client;
use crate::oauth::grant::{TokenRefused, check_resource, narrowed};
use crate::oauth::scope::ScopeSet;
use crate::oauth::secret::{RefreshToken, Secret, new_id};
use crate::storage::{
    FoundRefreshToken, NewRefusal, RefreshExchange, RefusedAt, Rotated, Rotation,
};
use crate::telemetry::audit::{Actor, AuditEvent};
use crate::upstream::recheck::{Recheck, STALE_ACCESS_TOKEN};
use crate::web::client_form::ClientForm;
use crate::web::error::ApiError;

pub(super) async fn exchange(form: &ClientForm, client: &Client) -> Result<Response, ApiError> {
    let app = &form.app;
    let from = form.shown_address();
    let PresentedToken { token: presented, found, asked } = presented(form, client).await?;
    let tokens = &app.config().tokens;
    let rotation = Rotation {
        grace: tokens.refresh_grace,
        replays: app.config().limits.grace_replays,
        idle: tokens.refresh_idle,
        from,
    };
    // A token that rotation will refuse anyway must not make us ask the identity provider.
    let hopeless = found.used_at.is_some_and(|used_at| !rotation.in_grace(used_at, app.now()));
    let granted = if hopeless {
        Granted { scopes: ScopeSet::default(), stale: false }
    } else {
        scopes_now(app, client, &found, &asked).await?
    };

    let successor = Secret::<RefreshToken>::generate(&new_id(app.clock()));
    let now = app.now();
    let event = about(app, client, &found)
        .with("scopes", granted.scopes.to_string())
        .with("stale", granted.stale)
        .with("from", from.map(|from| from.to_string()));
    let exchange =
        RefreshExchange { presented: &presented, found: &found, successor: &successor, rotation };
    let rotated = app.storage().rotate_refresh_token(&exchange, now, event).await?;
    let refresh_token = match rotated {
        Rotated::First => successor,
        Rotated::Replayed(successor) => successor,
        Rotated::Refused(refused) => {
            if refused == TokenRefused::TooManyReplays {
                app.metrics().limited("grace_replays");
            }
            return Err(refused.into());
        }
    };
    let lifetime =
        if granted.stale { tokens.access.min(STALE_ACCESS_TOKEN) } else { tokens.access };
    answer(
        app,
        &Tokens {
            grant_id: &found.grant_id,
            subject: &found.subject,
            client_id: &client.id,
            resource: &found.resource,
            scopes: &granted.scopes,
            refresh_token: &refresh_token,
            expires_at: now.plus(lifetime),
        },
    )
}

/// The refresh token of a request, which the client may use, and the scopes that it asks for.
struct PresentedToken {
    token: Secret<RefreshToken>,
    found: FoundRefreshToken,
    asked: ScopeSet,
}

/// Finds the refresh token and makes all checks that read nothing more.
async fn presented(form: &ClientForm, client: &Client) -> Result<PresentedToken, ApiError> {
    let ClientForm { app, params, .. } = form;
    let token = Secret::<RefreshToken>::parse(form.required("refresh_token")?)
        .ok_or(TokenRefused::UnknownRefreshToken)?;
    let found = app
        .storage()
        .find_refresh_token(&token, app.now())
        .await?
        .ok_or(TokenRefused::UnknownRefreshToken)?;
    if found.client_id != client.id {
        return Err(TokenRefused::OtherClient.into());
    }
    let resource = params.get_agreeing("resource").map_err(|_| TokenRefused::OtherResource)?;
    check_resource(&found.resource, resource.map(|presented| app.our_spelling(presented)))?;
    let asked = narrowed(&found.consented_scopes, params.get("scope")?)?;
    found.usable.clone()?;
    app.rates().refreshed(&found.grant_id).map_err(|often| ApiError::Quota {
        retry_after: often.retry_after,
        limit: "`limits.refreshes_per_minute`".to_owned(),
    })?;
    Ok(PresentedToken { token, found, asked })
}

fn about(app: &App, client: &Client, found: &FoundRefreshToken) -> AuditEvent {
    let event = app.event("refresh", Actor::Client).client(&client.id).subject(&found.subject);
    event.resource(&found.resource).grant(&found.grant_id)
}

struct Granted {
    scopes: ScopeSet,
    /// The identity provider could not be asked, and its last answer is still recent enough.
    stale: bool,
}

/// Returns the requested scopes that the rules allow today. Asks the identity provider again first, if that
/// is due.
async fn scopes_now(
    app: &App,
    client: &Client,
    found: &FoundRefreshToken,
    asked: &ScopeSet,
) -> Result<Granted, ApiError> {
    let (person, stale) = match app.upstream().recheck(&found.session_id).await? {
        Recheck::Fresh(person) => (person, false),
        Recheck::Stale(person) => (person, true),
        Recheck::Ended => return Err(TokenRefused::UpstreamEnded.into()),
        Recheck::Unknown => return Err(ApiError::Unavailable),
    };
    let resource = app.resource(&found.resource).ok_or(TokenRefused::OtherResource)?;
    let whole = resource.policy.decide(&person.facts, &client.id, &found.consented_scopes);
    if whole.granted.is_empty() && resource.policy.refuses(&found.consented_scopes) {
        if person.facts.any_unknown() {
            tracing::warn!(grant_id = found.grant_id, "facts that rules need cannot be read now");
            return Err(ApiError::Unavailable);
        }
        let event = about(app, client, found)
            .named("access_lost")
            .with("asked", found.consented_scopes.to_string())
            .with("rules", whole.matched);
        let reason = "the rules leave no scope";
        app.storage().revoke_grant(&found.grant_id, reason, app.now(), event).await?;
        app.note_refusal(&NewRefusal {
            subject: &found.subject,
            resource: &found.resource,
            client_id: &client.id,
            step: RefusedAt::Recheck,
            reference: None,
            asked: &found.consented_scopes,
            person: &person,
        })
        .await;
        return Err(TokenRefused::NoAccess.into());
    }
    Ok(Granted { scopes: whole.granted.intersection(asked), stale })
}
