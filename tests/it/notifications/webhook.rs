//! Webhooks: what they say, and how a receiver knows that they are ours.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::time::Instant;

use super::{KEY, app_with, begins_to_wait, waiting, webhook_at};
use crate::harness::client::McpClient;
use crate::harness::process::Served;
use crate::harness::recorder::{ReceivedRequest, Recorder};

/// Checks a webhook as the documentation says, at this time of the receiver's clock.
fn is_ours(request: &ReceivedRequest, key: &[u8], now: i64) -> bool {
    let header = |name| request.header(name).unwrap();
    let (id, at) = (header("webhook-id"), header("webhook-timestamp"));
    if (now - at.parse::<i64>().unwrap()).abs() > 300 {
        return false;
    }
    let mut signed = format!("{id}.{at}.").into_bytes();
    signed.extend(&request.body);
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    header("webhook-signature").split(' ').any(|signature| {
        let mac = signature.strip_prefix("v1,").and_then(|mac| STANDARD.decode(mac).ok());
        mac.is_some_and(|mac| hmac::verify(&key, &signed, &mac).is_ok())
    })
}

#[tokio::test]
async fn a_webhook_comes_as_soon_as_a_client_begins_to_wait() {
    let hook = Recorder::start().await;
    let app = app_with(&hook).await;

    let client = begins_to_wait(&app, "Test client").await;

    // By the server's own task.
    let request = hook.next().await;
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/hook"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    let json = request.json();
    assert_eq!(json["type"], "client_waits");
    assert_eq!(json["timestamp"], "2026-11-21T00:00:00Z");
    let data = &json["data"];
    assert_eq!(data["text"], "A client waits for approval");
    assert_eq!(data["issuer"], app.url);
    assert_eq!((&data["count"], &data["dropped"]), (&1.into(), &0.into()));
    assert_eq!(data["link"], format!("{}/client?id={}", app.admin_url, client.id));
    let about = &data["about"][0];
    assert_eq!(about["client"]["id"], client.id.as_str());
    assert_eq!(about["client"]["name"], "Test client");
    assert_eq!(about["person"]["id"], "oidc:demo-bob");
    assert!(about["person"]["name"].as_str().unwrap().starts_with("Bob"), "{about}");
    assert_eq!(about["server"]["id"], app.mcp_url());
    app.notify_round().await; // after the one that sent it
    assert_eq!(super::queued(&app).await, 0);
    assert_eq!(hook.received().len(), 1, "and once");
}

/// The real binary, on the real clock.
#[tokio::test]
async fn the_server_sends_a_webhook_within_five_seconds() {
    let hook = Recorder::start().await;
    let server = Served::with(&waiting().and(webhook_at(&hook.url("/hook")))).await;
    let client = McpClient::register(&server).await;
    client.authorize("bob", &[]).await.assert_leads_to(&format!("{}/waiting?id=", server.url));

    let begun = Instant::now();
    let request = hook.next().await;

    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(request.json()["type"], "client_waits");
}

#[tokio::test]
async fn nt_02_a_webhook_proves_who_sent_it_when_and_what() {
    let hook = Recorder::start().await;
    let app = app_with(&hook).await;
    begins_to_wait(&app, "Test client").await;
    let request = hook.next().await;
    let now = app.now().unix();

    assert!(is_ours(&request, KEY, now));
    assert!(request.header("webhook-id").unwrap().starts_with("msg_"));
    assert!(!is_ours(&request, b"another key that is long enough, 01", now), "forged");
    let mut changed = request.clone();
    changed.body[0] ^= 1;
    assert!(!is_ours(&changed, KEY, now), "changed on the way");
}

#[tokio::test]
async fn nt_02_a_recorded_webhook_is_too_old_to_be_sent_again() {
    let hook = Recorder::start().await;
    let app = app_with(&hook).await;
    hook.answer_next(&[500]);
    begins_to_wait(&app, "Test client").await;
    let first = hook.next().await;
    app.notify_round().await;
    app.advance(301);
    app.notify_round().await;
    let second = hook.next().await;

    // The same message with the same id, and the time of each attempt.
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(first.body, second.body);
    let now = app.now().unix();
    assert!(!is_ours(&first, KEY, now), "a replay");
    assert!(is_ours(&second, KEY, now));
}
