//! Replicas compare themselves: their clocks, and the configuration that must be the same everywhere.

use portcullis::clock::ManualClock;
use serde_json::Value;

use crate::harness::client::McpClient;
use crate::harness::console::Console;
use crate::harness::{TestApp, logs};

async fn ready(app: &TestApp, url: &str) -> (u16, Value) {
    let answer = app.http.get(&format!("{url}/ready")).await;
    (answer.status.as_u16(), answer.json())
}

#[tokio::test]
async fn a_clock_that_differs_from_the_databases_is_told_and_ready_says_no_where_others_are_right()
{
    let app = TestApp::start().await;
    let mut running = Vec::new(); // the end of one closes the database for all of them
    for (apart, off, out) in [
        (20, false, false),
        (21, true, false),
        (-25, true, false),
        (31, true, true),
        (-250, true, true),
    ] {
        let clock = ManualClock::at(app.now());
        clock.advance(apart);
        let (replica, stop) = app.replica_with_clock(&clock).await;

        let (status, says) = ready(&app, &replica).await;

        assert_eq!(status, if out { 503 } else { 200 }, "{apart}: {says}");
        let side = if apart > 0 { "ahead of" } else { "behind" };
        let expected = format!("{} s {side} the database's", i64::abs(apart));
        assert_eq!(says["clock"], if off { expected } else { "right".to_owned() }, "{apart}");
        let (status, says) = ready(&app, &app.url).await;
        assert_eq!((status, &says["clock"]), (200, &Value::from("right")), "{apart}");
        running.push(stop);
    }
    let line = "the clock of this replica differs from the database's";
    assert!(logs::all().contains(line));
}

/// Where every replica is apart from it, the clock of the database is the wrong one.
#[tokio::test]
async fn a_database_whose_clock_is_wrong_takes_no_replica_out_of_service() {
    let app = TestApp::start().await;
    app.database_clock.advance(-70);
    app.compare_with_replicas().await;

    let (status, says) = ready(&app, &app.url).await;

    assert_eq!((status, says["clock"].as_str()), (200, Some("70 s ahead of the database's")));
    assert!((app.metrics().await["portcullis_clock_ahead_seconds"] - 70.0).abs() < 0.1);
    app.database_clock.advance(70);
    app.compare_with_replicas().await;
    assert!(app.metrics().await["portcullis_clock_ahead_seconds"].abs() < 0.1);
}

#[tokio::test]
async fn what_a_replica_ahead_has_made_is_refused_with_a_word_of_the_clock() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let tokens = client.sign_in("bob").await;
    let code = client.code("bob").await;
    let behind = ManualClock::at(app.now());
    behind.advance(-70);
    let (replica, stop) = app.replica_with_clock(&behind).await;
    let mut there = McpClient::known_as(&app, &client.id, &client.redirect_uri);
    there.server.url.clone_from(&replica);

    let called = there.rpc(&tokens.access_token, "tools/list", serde_json::json!({})).await;
    let redeemed = there.redeem(&code).await;

    assert_eq!((called.status.as_u16(), redeemed.status.as_u16()), (401, 400));
    let logs = logs::all();
    for line in
        ["the token was made in the future", "the authorization code was made in the future"]
    {
        assert!(logs.contains(line), "{line}");
    }
    let _ = stop.send(());
}

#[tokio::test]
async fn replicas_with_different_configurations_are_told_of_by_part() {
    for (before, after, parts) in [
        ("[upstream]", "[tokens]\naccess = \"5m\"\n\n[upstream]", "tokens"),
        ("roles = [\"User\"]", "roles = [\"Nobody\"]", "resource"),
        ("upstream-secret-canary", "another-secret", "upstream"),
        ("[upstream]", "[limits]\ngrants_per_client = 7\n\n[upstream]", "limits"),
        ("[upstream]", "[audit]\nretention = \"30d\"\n\n[upstream]", "audit"),
        // What may differ.
        ("listen       = \"127", "log = \"debug\"\nlisten       = \"127", ""),
        ("[upstream]", "[limits]\nconnections = 77\nshutdown_delay = \"5s\"\n\n[upstream]", ""),
        ("listen       = \"127.0.0.1:", "listen       = \"127.0.0.2:", ""),
    ] {
        let mut app = TestApp::start().await;
        app.change_config(before, after);
        let (_, stop) = app.replica_with_clock(&app.clock.clone()).await;
        app.compare_with_replicas().await;

        let differs = app.metrics().await["portcullis_configuration_differs"];

        assert!((differs - f64::from(u8::from(!parts.is_empty()))).abs() < 0.1, "{after}");
        assert!((app.metrics().await["portcullis_replicas"] - 2.0).abs() < 0.1);
        let alice = Console::admin(&app).signed_in(&app, "alice").await;
        let overview = alice.page("/").await;
        let told = format!("have another configuration: {parts}");
        assert_eq!(overview.contains(&told), !parts.is_empty(), "{after}: {overview}");
        let _ = stop.send(());
    }
}

#[tokio::test]
async fn one_replica_cleans_up_at_a_time() {
    let app = TestApp::start().await;
    let (storage, now) = (app.storage(), app.now());
    storage.take_clean_up(now, None).await.unwrap(); // by the server, or here
    app.advance(3600);
    let now = app.now();

    let attempts = (0..100).map(|_| storage.take_clean_up(now, None));
    let taken = futures_util::future::join_all(attempts).await;

    let mut taken = taken.into_iter().filter_map(Result::unwrap);
    let until = taken.next().unwrap();
    assert!(taken.next().is_none(), "a hundred at once");
    app.advance(30);
    let renewed = storage.take_clean_up(app.now(), Some(until)).await.unwrap().unwrap();
    assert_eq!(storage.take_clean_up(app.now(), None).await.unwrap(), None, "it was renewed");
    storage.give_clean_up_back(until).await.unwrap();
    assert_eq!(storage.take_clean_up(app.now(), None).await.unwrap(), None, "that is another one");
    storage.give_clean_up_back(renewed).await.unwrap();
    let next = storage.take_clean_up(app.now(), None).await.unwrap();
    assert!(next.is_some(), "it was given back");
    app.advance(121);
    assert!(storage.take_clean_up(app.now(), None).await.unwrap().is_some(), "it was given up");
    app.advance(-3600);
    assert!(storage.take_clean_up(app.now(), None).await.unwrap().is_some(), "a clock was wrong");
}

#[tokio::test]
async fn a_start_on_a_database_that_was_not_served_for_long_says_how_to_mark_a_restored_dump() {
    let mut app = TestApp::start().await;
    app.tokens_of("bob").await;
    app.stop().await;
    app.advance(77 * 3600);

    app.restart().await;

    let logs = logs::all();
    let line = logs.lines().find(|line| line.contains("the audit trail ends 77 hours before now"));
    let line = line.expect("the first start says so");
    assert!(
        line.contains("backup_taken_at") && line.contains("INSERT INTO installation"),
        "{line}"
    );
}
