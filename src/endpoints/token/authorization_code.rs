//! `grant_type=authorization_code`: RFC 6749 §4.1.3, RFC 7636 §4.6.

use axum::response::Response;

use super::{Tokens, answer};
use crate::oauth::client::Client;
use crate::oauth::grant::{Redemption, TokenRefused};
use crate::oauth::secret::{AuthorizationCode, RefreshToken, Secret, new_id};
use crate::storage::{CodeExchange, GrantTerms, Redeemed};
use crate::telemetry::audit::Actor;
use crate::telemetry::trace;
use crate::web::client_form::ClientForm;
use crate::web::error::ApiError;

pub(super) async fn exchange(form: &ClientForm, client: &Client) -> Result<Response, ApiError> {
    let ClientForm { app, params, .. } = form;
    let from = form.shown_address();
    let code = form.required("code")?;
    let code = Secret::<AuthorizationCode>::parse(code).ok_or(TokenRefused::UnknownCode)?;
    let resource = params.get_agreeing("resource").map_err(|_| TokenRefused::OtherResource)?;
    let attempt = Redemption {
        client_id: &client.id,
        redirect_uri: params.get("redirect_uri")?,
        code_verifier: params.get("code_verifier")?,
        resource: resource.map(|presented| app.our_spelling(presented)),
        policy: client.held_to(app.redirect_policy()),
    };
    let tokens = &app.config().tokens;
    let limits = &app.config().limits;
    let terms = GrantTerms {
        absolute: tokens.refresh_absolute,
        idle: tokens.refresh_idle,
        attempts: limits.code_attempts,
        per_client: limits.grants_per_client,
        per_person: limits.grants_per_person,
        from,
    };
    let refresh_token = Secret::<RefreshToken>::generate(&new_id(app.clock()));
    let now = app.now();
    let event = app
        .event("code", Actor::Client)
        .client(&client.id)
        .with("code_id", code.id())
        .with("from", from.map(|from| from.to_string()));
    let exchange = CodeExchange { code: &code, attempt, refresh_token: &refresh_token, terms };
    let redeemed = app.storage().redeem_code(&exchange, now, event).await?;
    match redeemed {
        Redeemed::First(grant) => {
            trace::continue_from(grant.trace.as_deref());
            let tokens = Tokens {
                grant_id: &grant.grant_id,
                subject: &grant.subject,
                client_id: &client.id,
                resource: &grant.resource,
                scopes: &grant.scopes,
                refresh_token: &refresh_token,
                expires_at: now.plus(tokens.access),
            };
            answer(app, &tokens)
        }
        Redeemed::Refused(refused) => Err(refused.into()),
    }
}
