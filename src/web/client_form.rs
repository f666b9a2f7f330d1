//! The request context of the endpoints to which programs post a form: `/token`, `/revoke`, `/introspect`.

use std::net::IpAddr;

use axum::extract::{FromRequest, Request};
use axum::http::{Extensions, HeaderMap};

use super::body;
use super::client_address::ClientAddress;
use super::error::ApiError;
use super::params::Params;
use crate::app::App;
use crate::oauth::grant::TokenRefused;

/// A form that a client or an MCP server has posted: read within `limits.token_body`, and parsed.
/// [`super::client_auth`] and [`super::resource_auth`] authenticate its sender.
pub struct ClientForm {
    /// The application.
    pub app: App,
    /// The parameters.
    pub params: Params,
    /// The headers.
    pub headers: HeaderMap,
    extensions: Extensions,
}

impl FromRequest<App> for ClientForm {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let body = body::read_within(body, "token_body", app.config().limits.token_body).await?;
        let params = Params::from_post(&parts.headers, parts.uri.query(), &body)?;
        let (headers, extensions) = (parts.headers, parts.extensions);
        Ok(Self { app: app.clone(), params, headers, extensions })
    }
}

impl ClientForm {
    /// Returns a parameter that the request must have.
    pub fn required(&self, name: &'static str) -> Result<&str, ApiError> {
        Ok(self.params.get(name)?.ok_or(TokenRefused::Missing(name))?)
    }

    /// Returns the address for rate limits; `None` if it cannot be known.
    pub fn address(&self) -> Option<IpAddr> {
        ClientAddress::of(&self.extensions)
    }

    /// Returns the address for display.
    pub fn shown_address(&self) -> Option<IpAddr> {
        ClientAddress::shown(&self.extensions)
    }
}
