//! Webhooks for programs: JSON, signed by the convention of Standard Webhooks (standardwebhooks.com).
//!
//! The signature is HMAC-SHA-256 over `id.timestamp.body`. The timestamp is that of the attempt, so a receiver
//! can refuse a message that somebody recorded and sends again later.

use aws_lc_rs::hmac;
use axum::http::HeaderName;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::message::{Notification, Party, Subject, utc};
use crate::clock::Timestamp;
use crate::config::SigningSecret;

const ISO: &str = "%Y-%m-%dT%H:%M:%SZ";

/// Returns the body of a webhook.
pub(super) fn body(message: &Notification) -> Value {
    json!({
        "type": message.event.as_str(),
        "timestamp": utc(message.created_at, ISO),
        "data": {
            "issuer": message.issuer,
            "text": message.title(),
            "meaning": message.meaning(),
            "count": message.occurrences,
            "dropped": message.dropped,
            "link": message.link,
            "about": message.subjects.iter().map(about).collect::<Vec<_>>(),
        },
    })
}

fn about(subject: &Subject) -> Value {
    let party = |party: &Option<Party>| {
        party.as_ref().map(|party| json!({ "id": party.id, "name": party.name }))
    };
    json!({
        "at": utc(subject.at, ISO),
        "client": party(&subject.client),
        "person": party(&subject.person),
        "server": party(&subject.server),
        "reference": subject.reference,
        "reason": subject.reason,
    })
}

/// Returns the headers that prove who sent the body, and when.
pub(super) fn headers(
    key: &SigningSecret,
    id: &str,
    now: Timestamp,
    body: &[u8],
) -> [(HeaderName, String); 3] {
    let id = format!("msg_{id}");
    let now = now.unix().to_string();
    let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key.expose()));
    for part in [id.as_bytes(), b".", now.as_bytes(), b".", body] {
        mac.update(part);
    }
    let signature = format!("v1,{}", STANDARD.encode(mac.sign()));
    [
        (HeaderName::from_static("webhook-id"), id),
        (HeaderName::from_static("webhook-timestamp"), now),
        (HeaderName::from_static("webhook-signature"), signature),
    ]
}
