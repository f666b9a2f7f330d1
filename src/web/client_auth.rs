//! Who calls the token and revocation endpoints: RFC 6749 §2.3, §3.2.1.
//!
//! `none`, `client_secret_basic` and `client_secret_post`. A client with a secret may use either
//! secret method whatever it registered, because shipped clients choose by the server's list.

use axum::http::{HeaderMap, header};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;

use super::error::{ApiError, RequestRefused};
use super::params::Params;
use crate::app::App;
use crate::oauth::client::Client;

/// Authenticates the client of a token or revocation request.
pub async fn authenticate_client(
    app: &App,
    headers: &HeaderMap,
    params: &Params,
) -> Result<Client, ApiError> {
    let presented = Presented::read(headers, params)?;
    let refused = || ApiError::Client { basic: presented.basic };
    let found = match app.clients().find(&presented.client_id).await? {
        Some(found) => Some(found),
        // A client that percent-encodes its id, and one that does not, both mean the same id.
        None if presented.basic => app.clients().find(&decoded(&presented.client_id)).await?,
        None => None,
    };
    let Some(client) = found else {
        tracing::info!(reason = "unknown client", "client refused");
        return Err(refused());
    };
    let proven = match (&client.secret_hash, &presented.secret) {
        (None, None) => true,
        (Some(_), Some(secret)) => {
            client.secret_is(secret) || (presented.basic && client.secret_is(&decoded(secret)))
        }
        // A secret where none was issued, or none where one was: not the client it claims to be.
        (None, Some(_)) | (Some(_), None) => false,
    };
    if !proven {
        tracing::info!(client_id = client.id, reason = "wrong or missing secret", "client refused");
        return Err(refused());
    }
    Ok(client)
}

struct Presented {
    client_id: String,
    secret: Option<String>,
    basic: bool,
}

impl Presented {
    fn read(headers: &HeaderMap, params: &Params) -> Result<Self, ApiError> {
        let in_body = params.get("client_id")?;
        let secret_in_body = params.get("client_secret")?;
        if params.get("client_assertion")?.is_some() {
            return Err(ApiError::Client { basic: false });
        }
        let mut authorization = headers.get_all(header::AUTHORIZATION).iter();
        let Some(value) = authorization.next() else {
            let client_id = in_body
                .ok_or_else(|| RequestRefused("client_id is missing".to_owned()))?
                .to_owned();
            return Ok(Self { client_id, secret: secret_in_body.map(str::to_owned), basic: false });
        };
        if authorization.next().is_some() || secret_in_body.is_some() {
            return Err(RequestRefused(
                "more than one way of client authentication was used".to_owned(),
            )
            .into());
        }
        let (client_id, secret) = value
            .to_str()
            .ok()
            .and_then(basic_credentials)
            .ok_or(ApiError::Client { basic: true })?;
        if in_body.is_some_and(|in_body| in_body != client_id && in_body != decoded(&client_id)) {
            return Err(RequestRefused(
                "client_id differs from the Authorization header".to_owned(),
            )
            .into());
        }
        // `id:` without a secret identifies a public client.
        let secret = Some(secret).filter(|secret| !secret.is_empty());
        Ok(Self { client_id, secret, basic: true })
    }
}

fn basic_credentials(value: &str) -> Option<(String, String)> {
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") || encoded.len() > 2048 {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((id.to_owned(), secret.to_owned()))
}

fn decoded(encoded: &str) -> String {
    percent_decode_str(&encoded.replace('+', " ")).decode_utf8_lossy().into_owned()
}
