//! The browser's return from a service: checks what came back, and redeems the code.

use serde_json::Value;

use super::account::{ServiceAccount, account_of};
use super::authorize::{is_openid, scopes_to_ask, unknown};
use super::granted::{granted, missing};
use super::service::ResolvedService;
use super::{ConnectFailed, Connections};
use crate::storage::{NewConnection, ServiceTokens};
use crate::upstream::callback_error::{CallbackParams, classify};
use crate::upstream::id_token::{DirectIdToken, claims_of_direct};
use crate::upstream::service_token::is_visible;
use crate::upstream::token_response::{self, ResponseForm, TokenResponse};

/// A browser that came back from the service, and the attempt that it belongs to.
pub struct ConnectReturn<'a> {
    /// Name of the `[[connection]]`: that of the callback's path, and the attempt's.
    pub name: &'a str,
    /// Our `sub` of the person.
    pub subject: &'a str,
    /// The scopes that were asked for.
    pub scopes: &'a [String],
    /// The PKCE verifier of the request.
    pub verifier: &'a str,
    /// The nonce of the request.
    pub nonce: &'a str,
    /// The redirect URI of the request.
    pub redirect_uri: &'a str,
}

/// A redeemed code, to be stored.
pub struct Connected {
    /// The connection. Its scopes are those that the person granted.
    pub connection: NewConnection,
    /// The scopes that were asked for and that the person did not grant.
    pub missing: Vec<String>,
}

impl Connections {
    /// Redeems the code of a callback. Checks `iss` first, for error responses too (RFC 9207 §2.4).
    pub async fn finish(
        &self,
        back: &ConnectReturn<'_>,
        came: CallbackParams<'_>,
    ) -> Result<Connected, ConnectFailed> {
        let inner = &self.0;
        let config = inner.service(back.name).ok_or_else(|| unknown(back.name))?;
        let service = inner.resolve(config).await?;
        check_iss(&service, came.iss)?;
        if let Some(error) = came.error {
            return Err(classify(error, came.error_description).into());
        }
        let code = came.code.ok_or_else(|| ConnectFailed::Untrusted("no code".to_owned()))?;
        let answer = redeem(&service, back, code).await?;
        let now = inner.clock.now();
        inner.memory.lifetimes.learn(&config.name, answer.expires_in);
        let access_token = answer.access_token().map_err(ConnectFailed::Unavailable)?;
        if !is_visible(access_token) {
            let what = "the access token does not fit into a header";
            return Err(ConnectFailed::Misconfigured(what.to_owned()));
        }
        let id_token = self.id_token(&service, back, &answer)?;
        let scopes = granted(config, back.scopes, answer.scope.as_deref());
        let account = account_of(&service, &answer, id_token.as_ref(), &scopes).await;
        let ServiceAccount { key, label } = account;
        if !answer.tolerated.is_empty() {
            let service = config.name.as_str();
            tracing::debug!(service, odd = ?answer.tolerated, "details of a token answer are tolerated");
        }
        Ok(Connected {
            missing: missing(back.scopes, &scopes),
            connection: NewConnection {
                subject: back.subject.to_owned(),
                name: config.name.clone(),
                provider_key: inner.provider_key_of(config),
                account_key: key,
                account_label: label,
                scopes,
                access_until: answer.access_until(now),
                tokens: ServiceTokens {
                    access_token: access_token.to_owned(),
                    refresh_token: answer.refresh_token.clone(),
                    token_type: answer.token_type.clone(),
                },
            },
        })
    }

    /// Returns the claims of the ID token, if there is one. It must be the one of this request.
    fn id_token(
        &self,
        service: &ResolvedService<'_>,
        back: &ConnectReturn<'_>,
        answer: &TokenResponse,
    ) -> Result<Option<Value>, ConnectFailed> {
        let asked = scopes_to_ask(service.config, back.scopes, service.lists_offline);
        let Ok(id_token) = answer.id_token() else { return Ok(None) };
        if !is_openid(&asked) {
            return Ok(None);
        }
        let expected = DirectIdToken {
            issuers: &service.issuers,
            client_id: &service.config.client_id,
            nonce: back.nonce,
            now: self.0.clock.now(),
        };
        let claims = claims_of_direct(id_token, &expected);
        claims.map(Some).map_err(|reason| ConnectFailed::Untrusted(format!("ID token: {reason}")))
    }
}

/// Checks `iss` of a callback: it must be present if the service announces it, and correct if the service's
/// issuer is known.
fn check_iss(service: &ResolvedService<'_>, iss: Option<&str>) -> Result<(), ConnectFailed> {
    let untrusted = |reason: &str| Err(ConnectFailed::Untrusted(reason.to_owned()));
    match iss {
        Some(_) if service.issuers.is_empty() => Ok(()),
        Some(iss) if service.issuers.iter().any(|known| known == iss) => Ok(()),
        Some(_) => untrusted("iss of the callback is wrong"),
        None if service.sends_iss => untrusted("iss of the callback is missing"),
        None => Ok(()),
    }
}

async fn redeem(
    service: &ResolvedService<'_>,
    back: &ConnectReturn<'_>,
    code: &str,
) -> Result<TokenResponse, ConnectFailed> {
    let preset = service.config.preset;
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", back.redirect_uri),
    ];
    if preset.pkce {
        form.push(("code_verifier", back.verifier));
    }
    let request = service.login().form(service.token.as_str(), &form);
    let request = request.map_err(|error| ConnectFailed::Misconfigured(error.to_string()))?;
    let response = service.http.send(request).await;
    let response = response.map_err(|error| ConnectFailed::Unavailable(error.to_string()))?;
    let form = ResponseForm { token_at: preset.token_at, ending_errors: preset.ending_errors };
    Ok(token_response::read(&response, &form)?)
}
