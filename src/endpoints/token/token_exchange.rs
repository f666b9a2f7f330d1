//! `grant_type=urn:ietf:params:oauth:grant-type:token-exchange`: RFC 8693.
//!
//! An MCP server exchanges the token of a call for the person's token of a service. It authenticates with its
//! resource identifier and `introspection_secret`, as at the introspection endpoint; OAuth clients have no
//! part in this. It gets tokens of its own connections only, for the person who called it, while the grant of
//! that call lives. Nothing is consumed, and no refresh token ever leaves.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::subject_token;
use crate::app::App;
use crate::config::{ResourceConfig, ResourceConnection, UpstreamTokenConfig, paths};
use crate::connections::{ServiceToken, TokenMissing, WantedToken};
use crate::oauth::error::ensure;
use crate::oauth::exchange::{ACCESS_TOKEN, ExchangeRefused, SIGN_IN, SubjectKind};
use crate::oauth::grant::TokenRefused;
use crate::oauth::scope::ScopeSet;
use crate::storage::LiveGrant;
use crate::telemetry::audit::{Actor, AuditEvent};
use crate::web::client_form::ClientForm;
use crate::web::error::{self, ApiError};
use crate::web::limits::OfMcpServer;
use crate::web::resource_auth;

/// The parameters of RFC 8693 §2.1 that the endpoint has not looked at yet. `audience` and `resource` may not be
/// repeated either: there is one token in the response, for one service.
const PARAMETERS: &[&str] = &[
    "subject_token",
    "subject_token_type",
    "audience",
    "resource",
    "requested_token_type",
    "actor_token",
    "actor_token_type",
];
/// An MCP server may exchange at each call: one hour between two lines of the audit trail about the same
/// grant and service.
const BETWEEN_EXCHANGES: Duration = Duration::from_hours(1);
/// One minute between two lines about refusals for the same reason.
const BETWEEN_REFUSALS: Duration = Duration::from_mins(1);

pub(super) async fn exchange(form: &ClientForm) -> Result<Response, ApiError> {
    let resource = resource_auth::authenticate_resource(form)?;
    form.app.storage().ensure_clock_sane(form.app.now())?;
    let request = ExchangeRequest { form, resource };
    let answered = Box::pin(request.answer()).await;
    let mut response = answered.unwrap_or_else(IntoResponse::into_response);
    response.extensions_mut().insert(OfMcpServer);
    Ok(response)
}

/// The service that an exchange is about, as the configuration gives it to this MCP server.
#[derive(Clone, Copy)]
enum ExchangedService<'a> {
    /// The identity provider itself.
    SignIn(&'a UpstreamTokenConfig),
    Connection(&'a ResourceConnection),
}

impl<'a> ExchangedService<'a> {
    fn of(resource: &'a ResourceConfig, audience: &str) -> Option<Self> {
        if audience == SIGN_IN {
            return resource.upstream_token.as_ref().map(Self::SignIn);
        }
        resource.connection_to(audience).map(Self::Connection)
    }

    /// The name of the connection, for the audit trail.
    fn name(self) -> &'a str {
        match self {
            Self::SignIn(_) => SIGN_IN,
            Self::Connection(connection) => &connection.name,
        }
    }
}

/// The request of an MCP server that has authenticated.
struct ExchangeRequest<'a> {
    form: &'a ClientForm,
    resource: &'a ResourceConfig,
}

impl<'a> ExchangeRequest<'a> {
    fn app(&self) -> &'a App {
        &self.form.app
    }

    async fn answer(&self) -> Result<Response, ApiError> {
        let (app, form) = (self.app(), self.form);
        if form.params.repeats_any(PARAMETERS) {
            return Err(TokenRefused::RepeatedParameter.into());
        }
        let token = form.required("subject_token")?;
        let kind = form.required("subject_token_type")?;
        let audience = form.required("audience")?;
        let asked = scopes(form)?;
        let kind = self.checked(kind).map_err(|refused| self.refused(None, None, refused))?;
        let grant = subject_token::grant_of(app, self.resource, kind, token).await?;
        let grant = grant.ok_or_else(|| self.refused(None, None, ExchangeRefused::Subject))?;
        let service = ExchangedService::of(self.resource, audience)
            .ok_or_else(|| self.refused(Some(&grant), None, ExchangeRefused::UnknownTarget))?;
        let found = match service {
            ExchangedService::SignIn(wanted) => {
                self.of_sign_in(&grant, wanted, asked.as_ref()).await
            }
            ExchangedService::Connection(connection) => {
                self.of_connection(&grant, connection, asked.as_ref()).await
            }
        };
        match found {
            Ok(token) => {
                self.exchanged(&grant, service, &token);
                Ok(issued(app, &token))
            }
            Err(NoToken::Refused(refused)) => {
                Err(self.refused(Some(&grant), Some(service), refused))
            }
            Err(NoToken::Failed(failed)) => Err(failed),
        }
    }

    /// Checks the parameters that have few values.
    fn checked(&self, kind: &str) -> Result<SubjectKind, ExchangeRefused> {
        let value = |name| self.form.params.get(name).ok().flatten();
        let has_actor = value("actor_token").or(value("actor_token_type")).is_some();
        let wants_other =
            value("requested_token_type").is_some_and(|wanted| wanted != ACCESS_TOKEN);
        ensure(!has_actor, ExchangeRefused::Actor)?;
        ensure(value("resource").is_none(), ExchangeRefused::Resource)?;
        ensure(!wants_other, ExchangeRefused::RequestedType)?;
        SubjectKind::parse(kind)
    }

    /// The token of a connected service. A token cannot be narrowed here: `asked` says which scopes it must
    /// have at least, and the response says which ones it has.
    async fn of_connection(
        &self,
        grant: &LiveGrant,
        connection: &ResourceConnection,
        asked: Option<&BTreeSet<String>>,
    ) -> Result<Arc<ServiceToken>, NoToken> {
        let asked: Vec<String> = match asked {
            Some(asked) => asked.iter().cloned().collect(),
            None => connection.scopes.clone(),
        };
        if !asked.iter().all(|scope| connection.scopes.contains(scope)) {
            return Err(NoToken::Refused(ExchangeRefused::WiderScope));
        }
        let wanted =
            WantedToken { subject: &grant.subject, name: &connection.name, scopes: &asked };
        let connect_url = || {
            let page = paths::connect_for(&connection.name, &self.resource.id);
            self.app().config().public_url.join(&page)
        };
        Box::pin(self.app().connections().token(&wanted)).await.map_err(|missing| {
            let refused = match missing {
                TokenMissing::NotConnected => {
                    ExchangeRefused::NotConnected { connect_url: connect_url() }
                }
                TokenMissing::LacksScopes(scopes) => ExchangeRefused::LacksScopes {
                    connect_url: connect_url(),
                    scopes: scopes.join(" "),
                },
                TokenMissing::Broken => ExchangeRefused::Broken { connect_url: connect_url() },
                TokenMissing::Unavailable => return NoToken::Failed(ApiError::Unavailable),
                TokenMissing::Storage(cause) => return NoToken::Failed(cause.into()),
            };
            NoToken::Refused(refused)
        })
    }

    /// The identity provider's own token of the sign-in behind the grant.
    async fn of_sign_in(
        &self,
        grant: &LiveGrant,
        wanted: &UpstreamTokenConfig,
        asked: Option<&BTreeSet<String>>,
    ) -> Result<Arc<ServiceToken>, NoToken> {
        let found = Box::pin(self.app().upstream().access_token(&grant.session_id, wanted)).await;
        let token = found.map_err(|missing| match missing {
            TokenMissing::NotConnected | TokenMissing::Broken => {
                NoToken::Refused(ExchangeRefused::SignInAgain)
            }
            TokenMissing::LacksScopes(scopes) => {
                NoToken::Refused(ExchangeRefused::SignInLacks(scopes.join(" ")))
            }
            TokenMissing::Unavailable => NoToken::Failed(ApiError::Unavailable),
            TokenMissing::Storage(cause) => NoToken::Failed(cause.into()),
        })?;
        let lacks: Vec<&str> = asked
            .into_iter()
            .flatten()
            .filter(|scope| !token.scopes.contains(*scope))
            .map(String::as_str)
            .collect();
        if lacks.is_empty() {
            Ok(token)
        } else {
            Err(NoToken::Refused(ExchangeRefused::SignInLacks(lacks.join(" "))))
        }
    }

    fn event(&self, name: &'static str, grant: Option<&LiveGrant>) -> AuditEvent {
        let event = self.app().event(name, Actor::Client).resource(&self.resource.id);
        match grant {
            Some(grant) => event.client(&grant.client_id).subject(&grant.subject).grant(&grant.id),
            None => event,
        }
    }

    fn exchanged(&self, grant: &LiveGrant, service: ExchangedService<'_>, token: &ServiceToken) {
        let event = self
            .event("upstream_token_exchanged", Some(grant))
            .with("connection", service.name())
            .with("scopes", joined(&token.scopes));
        let key = format!("{} {}", grant.id, service.name());
        self.app().record_seldom(event, &key, BETWEEN_EXCHANGES);
    }

    /// Records a refusal, and returns it as the error of the response.
    fn refused(
        &self,
        grant: Option<&Arc<LiveGrant>>,
        service: Option<ExchangedService<'_>>,
        refused: ExchangeRefused,
    ) -> ApiError {
        let reason = refused.reason();
        let mut event =
            self.event("upstream_token_refused", grant.map(Arc::as_ref)).with("reason", reason);
        if let Some(service) = service {
            event = event.with("connection", service.name());
        }
        let by = grant.map_or(self.resource.id.as_str(), |grant| grant.id.as_str());
        let key = format!("{by} {} {reason}", service.map_or("", ExchangedService::name));
        self.app().record_seldom(event, &key, BETWEEN_REFUSALS);
        refused.into()
    }
}

/// Why an exchange yields no token.
enum NoToken {
    Refused(ExchangeRefused),
    Failed(ApiError),
}

/// Reads `scope`; `None` if it is absent.
fn scopes(form: &ClientForm) -> Result<Option<BTreeSet<String>>, ApiError> {
    let Some(presented) = form.params.get("scope")? else { return Ok(None) };
    let asked = ScopeSet::parse(presented).map_err(|_| TokenRefused::Scope)?;
    let asked: BTreeSet<String> = asked.iter().map(ToString::to_string).collect();
    Ok(Some(asked).filter(|asked| !asked.is_empty()))
}

fn joined(scopes: &BTreeSet<String>) -> String {
    scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

/// Builds the response (RFC 8693 §2.2.1). `expires_in` is what is left of the token's life; it is absent if
/// the service states no end. `scope` is absent if the service knows no scopes.
fn issued(app: &App, token: &ServiceToken) -> Response {
    let mut body = json!({
        "access_token": token.text(),
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
    });
    if let Some(expires_at) = token.expires_at {
        body["expires_in"] = expires_at.since(app.now()).as_secs().into();
    }
    if !token.scopes.is_empty() {
        body["scope"] = joined(&token.scopes).into();
    }
    error::ok(&body)
}
