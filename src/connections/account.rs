//! Which account of a service was connected: a stable key, and a label for the person to read.

use std::collections::BTreeSet;

use axum::http::{Request, StatusCode, header};
use serde_json::Value;

use super::service::ResolvedService;
use crate::config::{AccountLookup, AccountSource};
use crate::upstream::service_token::is_visible;
use crate::upstream::token_response::TokenResponse;

/// Longest label and key, in characters. A longer one is cut.
const LONGEST: usize = 200;

/// The account, as far as the service tells it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ServiceAccount {
    pub(super) key: Option<String>,
    pub(super) label: Option<String>,
}

/// What the service answered about the holder of a token.
pub(super) enum Holder {
    Known(Value),
    /// The service does not accept the token.
    Rejected,
    /// No usable answer.
    Unknown,
}

/// Returns the account of a token response. An account that cannot be found out is no error.
pub(super) async fn account_of(
    service: &ResolvedService<'_>,
    answer: &TokenResponse,
    id_token: Option<&Value>,
    granted: &BTreeSet<String>,
) -> ServiceAccount {
    let lookup = &service.config.preset.account;
    match (lookup.from, id_token) {
        (AccountSource::TokenResponse, _) => read(lookup, &Value::Object(answer.members.clone())),
        (AccountSource::IdToken, Some(claims)) => read(lookup, claims),
        (AccountSource::IdToken | AccountSource::Userinfo, _) => {
            let may_ask = lookup.needs.is_empty()
                || lookup.needs.iter().any(|scope| granted.contains(*scope));
            let token = answer.access_token().unwrap_or_default();
            if !may_ask {
                return ServiceAccount::default();
            }
            match holder(service, token).await {
                Holder::Known(claims) => read(lookup, &claims),
                Holder::Rejected | Holder::Unknown => ServiceAccount::default(),
            }
        }
    }
}

/// Asks the service who the holder of the token is.
pub(super) async fn holder(service: &ResolvedService<'_>, token: &str) -> Holder {
    let Some(url) = service.userinfo.as_ref().filter(|_| is_visible(token)) else {
        return Holder::Unknown;
    };
    let request = Request::get(url.as_str())
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "portcullis")
        .body(Vec::new());
    let Ok(request) = request else { return Holder::Unknown };
    let name = service.config.name.as_str();
    match service.http.send(request).await {
        Ok(response) if response.status() == StatusCode::UNAUTHORIZED => Holder::Rejected,
        Ok(response) if response.status() == StatusCode::OK => {
            serde_json::from_slice(response.body()).map_or(Holder::Unknown, Holder::Known)
        }
        Ok(response) => {
            let status = response.status().as_u16();
            tracing::info!(service = name, status, "the service does not tell whose token it is");
            Holder::Unknown
        }
        Err(error) => {
            tracing::info!(service = name, %error, "the service does not tell whose token it is");
            Holder::Unknown
        }
    }
}

/// Reads the account from a document.
pub(super) fn read(lookup: &AccountLookup, document: &Value) -> ServiceAccount {
    let first = |pointers: &[&str]| {
        let mut found = pointers.iter().filter_map(|pointer| text_of(document.pointer(pointer)?));
        found.next()
    };
    ServiceAccount { key: first(lookup.key), label: first(lookup.label) }
}

fn text_of(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let text: String = text.chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    Some(text).filter(|text| !text.trim().is_empty())
}
