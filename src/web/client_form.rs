//! The request context of the endpoints to which programs post a form: `/token`, `/revoke`, `/introspect`.

use std::net::IpAddr;

use axum::extract::{FromRequest, Request};
use axum::http::{Extensions, HeaderMap, header};

use super::body;
use super::client_address::ClientAddress;
use super::error::ApiError;
use super::params::Params;
use crate::app::App;
use crate::oauth::grant::TokenRefused;

/// A form that a client or an MCP server has posted: read within `limits.token_body`, and parsed.
/// [`super::client_auth`] and [`super::resource_auth`] authenticate its sender.
pub struct ClientForm {
    pub app: App,
    pub params: Params,
    pub headers: HeaderMap,
    extensions: Extensions,
}

impl FromRequest<App> for ClientForm {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let body = body::read_within(body, "token_body", app.config().limits.token_body).await?;
        let content_type = parts.headers.get(header::CONTENT_TYPE);
        let params = Params::from_post(content_type, parts.uri.query(), &body)?;
        let (headers, extensions) = (parts.headers, parts.extensions);
        Ok(Self { app: app.clone(), params, headers, extensions })
    }
}

impl ClientForm {
    /// Returns a parameter that the request must have.
    pub fn required(&self, name: &'static str) -> Result<&str, ApiError> {
        Ok(self.params.get(name)?.ok_or(TokenRefused::Missing(name))?)
    }

    /// Returns whether `Accept` names this media type, without the weight 0.
    pub fn accepts(&self, wanted: &str) -> bool {
        let accepted = self.headers.get_all(header::ACCEPT).iter();
        let accepted = accepted.filter_map(|value| value.to_str().ok());
        accepted.flat_map(|value| value.split(',')).any(|range| {
            let (media_type, parameters) = range.split_once(';').unwrap_or((range, ""));
            let refused = parameters.split(';').any(|parameter| {
                let weight = parameter.trim().strip_prefix("q=");
                weight.is_some_and(|weight| weight.parse::<f32>().is_ok_and(|weight| weight == 0.0))
            });
            media_type.trim().eq_ignore_ascii_case(wanted) && !refused
        })
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
