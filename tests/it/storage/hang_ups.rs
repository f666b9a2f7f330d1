//! Callers who go away in the middle of a step by which grants end: what is durable is told.

use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use portcullis::storage::Storage;
use tokio::sync::watch;

use crate::harness::TestApp;

/// Polls a future so often, and then drops it; whether it was done before.
async fn hung_up_after<F: Future>(polls: usize, step: F) -> bool {
    let mut step = pin!(step);
    let mut left = polls;
    std::future::poll_fn(|context| {
        left -= 1;
        match step.as_mut().poll(context) {
            Poll::Ready(_) => Poll::Ready(true),
            Poll::Pending if left == 0 => Poll::Ready(false),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn assert_told(listener: &mut watch::Receiver<u64>, who: &str, polls: usize) {
    let told = tokio::time::timeout(Duration::from_secs(5), listener.changed()).await;
    assert!(matches!(told, Ok(Ok(()))), "{who} was not told, hung up after {polls} polls");
}

/// A revocation that is durable is heard of, here and in the other replica, at whatever moment whoever
/// asked for it hangs up.
#[tokio::test]
async fn gw_21_who_hangs_up_during_a_revocation_keeps_nobody_from_hearing_of_it() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let storage = app.storage();
    let config = app.config();
    let other = if app.database.is_postgres() {
        let key = config.secret_key.as_ref().unwrap().expose().as_bytes();
        Some(Storage::open(config.database_url.expose(), Some(key)).await.unwrap())
    } else {
        None
    };
    let (mut revoked, mut hung_up, mut polls) = (0, 0, 1);
    // How often a step has to wait is not always the same.
    while hung_up < 3 {
        let code = client.code("bob").await;
        client.redeem(&code).await.assert_status(200);
        let mut here = storage.grants_ended();
        let mut there = other.as_ref().map(Storage::grants_ended);
        let (mcp_url, now) = (app.mcp_url(), app.now());
        let event = app.audit_event("grants_revoked");
        let end = storage.disconnect("oidc:demo-bob", &client.id, &mcp_url, now, event);
        let done = hung_up_after(polls, end).await;

        // Whatever is still being committed holds the rows: this waits for it.
        app.database.execute("UPDATE grants SET last_used_at = last_used_at").await;
        let ended = "SELECT COUNT(*) FROM grants WHERE revoked_at IS NOT NULL";
        let now_revoked = app.database.number(ended).await;
        if now_revoked > revoked {
            revoked = now_revoked;
            hung_up += usize::from(!done);
            assert_told(&mut here, "this process", polls).await;
            if let Some(there) = &mut there {
                assert_told(there, "the other replica", polls).await;
            }
        }
        polls = if done { 1 } else { polls + 1 };

        // On sqlx's own SQLite driver, a transaction after one that was given up while it began may fail once.
        let event = app.audit_event("grants_revoked");
        let _ = storage.disconnect("oidc:nobody", &client.id, &mcp_url, now, event).await;
    }
}
