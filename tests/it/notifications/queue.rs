//! The queue: delivered at least once, tried again, counted in a flood, and bounded.

use futures_util::future::join_all;
use portcullis::storage::Storage;

use super::{app_with, begins_to_wait, queued, webhook_at};
use crate::harness::recorder::Recorder;
use crate::harness::{Setup, TestApp};

#[tokio::test]
async fn a_message_that_fails_is_tried_again_and_arrives_once() {
    let hook = Recorder::start().await;
    let app = app_with(&hook).await;
    hook.answer_next(&[500, 503]);
    begins_to_wait(&app, "Test client").await;
    hook.next().await;
    app.notify_round().await;
    assert_eq!(queued(&app).await, 1);

    app.advance(9);
    app.notify_round().await;
    assert_eq!(hook.received().len(), 1, "not before ten seconds");
    app.advance(4);
    app.notify_round().await;
    assert_eq!(hook.received().len(), 2);
    app.advance(29);
    app.notify_round().await;
    assert_eq!(hook.received().len(), 2, "then three times as long");
    app.advance(8);
    app.notify_round().await;
    assert_eq!(hook.received().len(), 3);
    assert_eq!(queued(&app).await, 0);
    app.advance(24 * 3600);
    app.notify_round().await;
    assert_eq!(hook.received().len(), 3);
}

#[tokio::test]
async fn a_receiver_that_wants_to_be_left_alone_is() {
    let hook = Recorder::start().await;
    let app = app_with(&hook).await;
    hook.answer_next_with(429, "retry-after", "600");
    begins_to_wait(&app, "Test client").await;
    hook.next().await;
    app.notify_round().await;

    app.advance(599);
    app.notify_round().await;
    assert_eq!(hook.received().len(), 1);
    app.advance(2);
    app.notify_round().await;
    assert_eq!(hook.received().len(), 2);
}

#[tokio::test]
async fn a_message_is_given_up_after_twelve_hours_and_that_is_recorded() {
    let hook = Recorder::start().await;
    let app = app_with(&hook).await;
    hook.answer_always(500);
    begins_to_wait(&app, "Test client").await;
    hook.next().await;

    for _ in 0..13 {
        app.notify_round().await;
        app.advance(4400); // the longest pause, with its jitter
    }

    app.notify_round().await;
    assert_eq!(queued(&app).await, 0);
    let recorded = "SELECT COUNT(*) FROM audit_events WHERE event = 'notification_given_up'";
    assert_eq!(app.database.number(recorded).await, 1);
    let metrics = app.metrics().await;
    let given_up = metrics["portcullis_notifications_total{outcome=\"given_up\"}"];
    assert!((given_up - 1.0).abs() < 1e-9, "{given_up}");
    assert!(hook.received().len() >= 10, "{}", hook.received().len());
}

#[tokio::test]
async fn nt_03_a_flood_becomes_one_message_with_a_count() {
    let hook = Recorder::start().await;
    let app = app_with(&hook).await;
    begins_to_wait(&app, "The first").await;
    hook.next().await;

    for n in 0..12 {
        begins_to_wait(&app, &format!("Flood {n}")).await;
    }
    app.notify_round().await;
    assert_eq!(hook.received().len(), 1, "nothing more within the interval");
    assert_eq!(queued(&app).await, 1, "and one row");

    app.advance(301);
    app.notify_round().await;
    let data = hook.next().await.json()["data"].clone();
    assert_eq!(data["count"], 12);
    assert_eq!(data["text"], "12 clients wait for approval");
    assert_eq!(data["about"].as_array().unwrap().len(), 5, "the first ones are named");
    assert_eq!(data["about"][0]["client"]["name"], "Flood 0");
    assert_eq!(data["link"], format!("{}/clients?standing=waiting", app.admin_url));
    assert_eq!(hook.received().len(), 2);
}

#[tokio::test]
async fn nt_03_occurrences_at_once_are_all_counted() {
    let hook = Recorder::start().await;
    let app = app_with(&hook).await;
    begins_to_wait(&app, "The first").await;
    hook.next().await;

    join_all((0..20).map(|n| {
        let app = &app;
        async move { begins_to_wait(app, &format!("At once {n}")).await }
    }))
    .await;

    app.advance(301);
    app.notify_round().await;
    assert_eq!(hook.next().await.json()["data"]["count"], 20);
}

#[tokio::test]
async fn what_waits_survives_a_restart() {
    let hook = Recorder::start().await;
    let mut app = app_with(&hook).await;
    hook.answer_next(&[500]);
    begins_to_wait(&app, "Test client").await;
    let first = hook.next().await;
    app.notify_round().await;

    app.restart().await;

    app.advance(13);
    app.notify_round().await;
    let second = hook.next().await;
    assert_eq!(first.header("webhook-id"), second.header("webhook-id"));
    assert_eq!(second.json()["data"]["about"][0]["client"]["name"], "Test client");
}

/// A message that nobody has leased, due in the future: the server's own task leaves it alone.
async fn waiting_message(hook: &Recorder, app: &TestApp) -> portcullis::storage::DueNotification {
    hook.answer_next(&[500]);
    begins_to_wait(app, "Test client").await;
    hook.next().await;
    app.notify_round().await;
    let soon = app.now().plus(std::time::Duration::from_secs(20));
    let due = app.storage().due_notifications(soon).await.unwrap();
    assert_eq!(due.len(), 1);
    due.into_iter().next().unwrap()
}

async fn leased_at_once(
    storage: &Storage,
    due: &portcullis::storage::DueNotification,
    now: portcullis::clock::Timestamp,
) -> usize {
    let interval = std::time::Duration::from_mins(5);
    let taken = join_all((0..100).map(|_| storage.lease_notification(due, interval, now))).await;
    taken.into_iter().filter(|taken| taken.as_ref().unwrap().is_some()).count()
}

#[tokio::test]
async fn a_hundred_replicas_at_once_send_a_message_once() {
    let hook = Recorder::start().await;
    let app = app_with(&hook).await;
    let due = waiting_message(&hook, &app).await;
    let now = app.now().plus(std::time::Duration::from_secs(20));

    assert_eq!(leased_at_once(&app.storage(), &due, now).await, 1);

    // A replica that died with it loses it after two minutes.
    let later = now.plus(std::time::Duration::from_secs(119));
    assert_eq!(leased_at_once(&app.storage(), &due, later).await, 0);
    let later = now.plus(std::time::Duration::from_secs(121));
    assert_eq!(leased_at_once(&app.storage(), &due, later).await, 1);
}

#[tokio::test]
async fn beyond_two_hundred_messages_the_oldest_goes_and_the_next_one_says_so() {
    let hook = Recorder::start().await;
    let app = app_with(&hook).await;
    hook.answer_always(500);
    begins_to_wait(&app, "The first").await;
    hook.next().await;
    app.notify_round().await;
    // As many more as fit, of another kind, as if they had waited since long ago.
    for n in 0..199 {
        let row = format!(
            "INSERT INTO notifications (id, target, event, open_slot, content, occurrences, created_at, due_at, attempts, leased_until)
             SELECT '{n:032}', target, 'token_reused', NULL, content, 1, created_at, due_at + 86400, 1, 0 FROM notifications
             WHERE event = 'client_waits' AND open_slot IS NULL"
        );
        app.database.execute(&row).await;
    }
    assert_eq!(queued(&app).await, 200);

    begins_to_wait(&app, "One more").await;

    assert_eq!(queued(&app).await, 200);
    let oldest = "SELECT COUNT(*) FROM notifications WHERE id = '00000000000000000000000000000000'";
    assert_eq!(app.database.number(oldest).await, 0);
    app.database.execute("DELETE FROM notifications WHERE event = 'token_reused'").await;
    hook.answer_next(&[204, 204]);
    app.advance(301);
    app.notify_round().await;
    let dropped: Vec<i64> = hook.received()[1..]
        .iter()
        .map(|request| request.json()["data"]["dropped"].as_i64().unwrap())
        .collect();
    assert_eq!(dropped, [1, 0], "told once");
}

#[tokio::test]
async fn targets_do_not_wait_for_each_other_and_get_what_they_asked_for() {
    let (down, up) = (Recorder::start().await, Recorder::start().await);
    down.answer_always(500);
    let second = webhook_at(&up.url("/up")).replace("\"ops\"", "\"second\"");
    let second = format!("{second}events = [\"client_waits\"]\n");
    let third = webhook_at(&up.url("/never")).replace("\"ops\"", "\"third\"");
    let third = format!("{third}events = [\"token_reused\"]\n");
    let setup = super::waiting().and(webhook_at(&down.url("/down"))).and(second).and(third);
    let app = TestApp::with(setup).await;

    begins_to_wait(&app, "Test client").await;

    assert_eq!(up.next().await.path, "/up");
    down.next().await;
    app.notify_round().await;
    assert_eq!(queued(&app).await, 1, "of the one that is down");
    assert_eq!(up.received().len(), 1);
}

#[tokio::test]
async fn without_a_target_nothing_is_queued_and_with_one_from_then_on() {
    let hook = Recorder::start().await;
    let mut app = TestApp::with(super::waiting()).await;
    begins_to_wait(&app, "Nobody is told").await;
    assert_eq!(queued(&app).await, 0);

    let table = webhook_at(&hook.url("/hook"));
    app.change_config("[[resource]]", &format!("{table}\n[[resource]]"));
    app.reload().await;
    begins_to_wait(&app, "Somebody is told").await;

    let json = hook.next().await.json();
    assert_eq!(json["data"]["about"][0]["client"]["name"], "Somebody is told");
    assert_eq!(json["data"]["count"], 1);
}

#[tokio::test]
async fn what_was_queued_for_a_target_that_is_gone_is_removed() {
    let hook = Recorder::start().await;
    let mut app = app_with(&hook).await;
    hook.answer_always(500);
    begins_to_wait(&app, "Test client").await;
    hook.next().await;
    app.notify_round().await;

    app.change_config("name = \"ops\"", "name = \"other\"");
    app.reload().await;
    app.advance(49 * 3600);
    app.notify_round().await;

    let keep = portcullis::storage::Retention {
        unused_client: std::time::Duration::from_hours(24),
        idle_client: std::time::Duration::from_hours(24 * 90),
        audit: std::time::Duration::from_hours(24 * 400),
        refused_person: std::time::Duration::from_hours(24 * 7),
        refresh_idle: std::time::Duration::from_hours(1),
        rows: 500,
    };
    app.storage().sweep(app.now(), keep).await.unwrap();
    assert_eq!(queued(&app).await, 0);
    let reports = "SELECT COUNT(*) FROM notification_targets WHERE target = 'ops'";
    assert_eq!(app.database.number(reports).await, 0);
}

#[tokio::test]
async fn names_are_stored_sealed() {
    let hook = Recorder::start().await;
    let app = TestApp::with(Setup::toml(webhook_at(&hook.url("/hook")))).await;
    hook.answer_always(500);
    app.idp.set_name("mallory", "Mallory Sealed-Canary");
    let client = app.client().await;
    client.authorize("mallory", &[]).await.assert_page(403);
    let told = hook.next().await.json();
    assert_eq!(told["data"]["about"][0]["person"]["name"], "Mallory Sealed-Canary");
    app.notify_round().await;
    assert_eq!(queued(&app).await, 1);
    let stolen = String::from_utf8_lossy(&app.database.dump().await).into_owned();
    assert!(!stolen.contains("Sealed-Canary"));
}
