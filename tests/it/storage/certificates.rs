//! Certificates of an ACME server in the database: one replica orders, and nothing secret is readable.

use std::time::Duration;

use futures_util::future::join_all;
use portcullis::clock::Timestamp;
use portcullis::storage::{CertificateText, ChallengeAnswer};
use serde_json::json;

use crate::harness::TestApp;

const NAME: &str = "one-certificate";

fn text(mark: &str) -> CertificateText {
    CertificateText { chain: format!("chain-of-{mark}"), key: format!("{mark}-key-canary") }
}

#[tokio::test]
async fn tl_05_of_many_replicas_one_orders_and_failures_make_all_wait() {
    let app = TestApp::start().await;
    let storage = app.storage();
    let lease =
        async |version: i64| storage.lease_certificate(NAME, version, app.now()).await.unwrap();

    let taken = join_all((0..100).map(|_| lease(0))).await;
    let taken: Vec<Timestamp> = taken.into_iter().flatten().collect();
    assert_eq!(taken.len(), 1, "{taken:?}");

    // The one that orders fails: nobody tries again before the pause is over.
    let next_at = app.now().plus(Duration::from_mins(1));
    let event = app.audit_event("certificate_failed");
    storage.certificate_failed((NAME, taken[0]), next_at, event).await.unwrap();
    let stored = storage.certificate(NAME).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.failures, stored.next_at), (0, 1, next_at));
    app.advance(59);
    assert_eq!(lease(0).await, None);
    app.advance(1);
    let second = lease(0).await.expect("the pause is over");

    // It vanishes: after five minutes another one takes over, and what the first one brings late is not kept.
    app.advance(300);
    assert_eq!(lease(0).await, None, "the lease has not ended");
    app.advance(1);
    let third = lease(0).await.expect("the lease has ended");
    let store = async |lease, mark: &str| {
        let event = app.audit_event("certificate_obtained");
        let (text, expires_at) = (text(mark), app.now().plus(Duration::from_hours(24 * 90)));
        let lease = (NAME, lease);
        storage.store_certificate(lease, &text, expires_at, app.now(), event).await.unwrap()
    };
    assert!(!store(second, "late").await);
    assert!(store(third, "current").await);
    assert!(!store(third, "again").await, "each lease stores once");

    let (read, version) = storage.certificate_text(NAME).await.unwrap().unwrap();
    assert_eq!((read.key.as_str(), version), ("current-key-canary", 1));
    let stored = storage.certificate(NAME).await.unwrap().unwrap();
    assert_eq!((stored.version, stored.failures), (1, 0));
    // A replica that has not seen this version orders none beside it.
    assert_eq!(lease(0).await, None);
    assert!(lease(1).await.is_some());
}

#[tokio::test]
async fn a_lease_or_pause_of_a_wrong_clock_does_not_last() {
    let app = TestApp::start().await;
    let storage = app.storage();
    let far = app.now().plus(Duration::from_hours(24 * 365));
    let lease = storage.lease_certificate(NAME, 0, far).await.unwrap().expect("a wrong clock");

    let lease_now = storage.lease_certificate(NAME, 0, app.now()).await.unwrap();
    assert!(lease_now.is_some_and(|until| until < lease));

    let event = app.audit_event("certificate_failed");
    storage.certificate_failed((NAME, lease_now.unwrap()), far, event).await.unwrap();
    assert!(storage.lease_certificate(NAME, 0, app.now()).await.unwrap().is_some());
}

#[tokio::test]
async fn tl_06_keys_accounts_and_answers_are_sealed_in_the_database_and_in_a_backup() {
    let app = TestApp::start().await;
    let storage = app.storage();
    let now = app.now();
    let lease = storage.lease_certificate(NAME, 0, now).await.unwrap().unwrap();
    let account = json!({ "id": "account-canary", "key_pkcs8": "account-key-canary" });
    storage.store_acme_account("an-account", &account).await.unwrap();
    let answer = ChallengeAnswer {
        domain: "domain-canary.example".to_owned(),
        chain: "chain-canary".to_owned(),
        key: "answer-key-canary".to_owned(),
    };
    let until = now.plus(Duration::from_mins(10));
    storage.store_challenges(&[("an-answer".to_owned(), answer)], now, until).await.unwrap();
    assert_eq!(storage.challenges(now).await.unwrap().len(), 1);

    let mut readable = app.database.dump().await;
    if !app.database.is_postgres() {
        let copy = app.database.folder.join("copy.db");
        storage.back_up(&copy, now).await.unwrap();
        readable.extend(std::fs::read(copy).unwrap());
    }
    let event = app.audit_event("certificate_obtained");
    let expires_at = now.plus(Duration::from_hours(24 * 90));
    assert!(
        storage
            .store_certificate((NAME, lease), &text("sealed"), expires_at, now, event)
            .await
            .unwrap()
    );
    readable.extend(app.database.dump().await);

    let readable = String::from_utf8_lossy(&readable);
    assert!(readable.contains(NAME), "what is not secret is found");
    assert!(!readable.contains("canary"), "a secret can be read");
    assert!(!crate::harness::logs::all().contains("-key-canary"));
    let known: serde_json::Value = storage.acme_account("an-account").await.unwrap().unwrap();
    assert_eq!(known, account);
    assert!(storage.challenges(now).await.unwrap().is_empty(), "answers go with the order");
}

#[tokio::test]
async fn what_expired_long_ago_is_removed() {
    let app = TestApp::start().await;
    let storage = app.storage();
    for (name, days) in [("old", 1), ("new", 90)] {
        let lease = storage.lease_certificate(name, 0, app.now()).await.unwrap().unwrap();
        let expires_at = app.now().plus(Duration::from_hours(24 * days));
        let event = app.audit_event("certificate_obtained");
        let lease = (name, lease);
        storage.store_certificate(lease, &text(name), expires_at, app.now(), event).await.unwrap();
        app.advance(32 * 24 * 3600);
    }

    let count = app.database.number("SELECT COUNT(*) FROM certificates").await;
    assert_eq!(count, 1);
    assert!(storage.certificate("old").await.unwrap().is_none());
}
