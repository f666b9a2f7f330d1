//! `/notifications` of the admin pages.

use super::{app_with, begins_to_wait, webhook_at};
use crate::harness::console::Console;
use crate::harness::recorder::Recorder;
use crate::harness::{Setup, TestApp};

#[tokio::test]
async fn the_page_shows_each_target_what_became_of_its_messages_and_sends_a_test() {
    let hook = Recorder::start().await;
    let app = app_with(&hook).await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let page = alice.page("/notifications").await;
    assert!(page.contains("ops") && page.contains("none yet"), "{page}");
    assert!(page.contains("a client waits for approval"), "{page}");

    let answer = alice.press("/notifications", "action", "test").await;
    answer.assert_leads_to(&alice.at("/notifications?done=sent&target=ops"));
    let json = hook.next().await.json();
    assert_eq!(json["type"], "test");
    assert_eq!(json["data"]["link"], format!("{}/notifications", app.admin_url));
    let page = alice.page("/notifications?done=sent&target=ops").await;
    assert!(page.contains("The test was delivered to ops"), "{page}");
    assert!(page.contains("datetime=\"2026-11-21T00:00:00Z\""), "{page}");
    let recorded = "SELECT COUNT(*) FROM audit_events WHERE event = 'notification_tested'";
    assert_eq!(app.database.number(recorded).await, 1);

    hook.answer_next(&[503]);
    let answer = alice.press("/notifications", "action", "test").await;
    answer.assert_leads_to(&alice.at("/notifications?done=not_sent&target=ops"));
    let page = alice.page("/notifications").await;
    assert!(page.contains("it answered with status 503"), "{page}");
    hook.next().await;

    hook.answer_next(&[500]);
    begins_to_wait(&app, "Test client").await;
    hook.next().await;
    app.notify_round().await;
    let page = alice.page("/notifications").await;
    assert!(page.contains("data-label=\"Waiting\">1<"), "{page}");
}

#[tokio::test]
async fn a_test_of_a_target_that_is_not_there_is_nothing() {
    let hook = Recorder::start().await;
    let app = app_with(&hook).await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let csrf = alice.csrf().await;
    for (action, target) in [("test", "nobody"), ("test", ""), ("delete", "ops"), ("", "")] {
        let fields = [("csrf", csrf.as_str()), ("action", action), ("target", target)];
        alice.post("/notifications", &fields).await.assert_page(404);
    }
    let page = alice.page("/notifications?done=sent&target=%3Cb%3Eevil").await;
    assert!(!page.contains("The test was delivered"), "{page}");
    assert!(hook.received().is_empty());
}

#[tokio::test]
async fn a_viewer_sends_no_test() {
    let hook = Recorder::start().await;
    let setup =
        Setup::toml(webhook_at(&hook.url("/hook"))).and("[admin.read_only]\nroles = [\"User\"]\n");
    let app = TestApp::with(setup).await;
    let bob = Console::admin(&app).signed_in(&app, "bob").await;
    let page = bob.page("/notifications").await;
    assert!(page.contains("ops") && !page.contains("Send a test"), "{page}");
    let csrf = bob.csrf().await;
    let fields = [("csrf", csrf.as_str()), ("action", "test"), ("target", "ops")];
    bob.post("/notifications", &fields).await.assert_page(403);
    assert!(hook.received().is_empty());
}

#[tokio::test]
async fn without_targets_the_page_says_what_that_means() {
    let app = TestApp::start().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let page = alice.page("/notifications").await;
    assert!(page.contains("Nobody is notified"), "{page}");
    assert!(!page.contains("Send a test"), "{page}");
}
