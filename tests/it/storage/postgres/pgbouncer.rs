//! PgBouncer in between, as it is installed: sessions are pooled; transactions are refused.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use portcullis::oauth::secret::random_bytes;
use portcullis::storage::{Storage, examine};
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::broadcast;

use crate::harness::database::Database;
use crate::harness::{Setup, TestApp, logs};

const KEY: &[u8] = b"a test key that is long enough to be one, 0123456789";

/// A database of its own: PgBouncer passes no search path on.
async fn behind(variable: &str) -> String {
    let bouncer = std::env::var(variable).expect("scripts/test-postgres sets it");
    let name = format!("bounced_{:x}", u128::from_be_bytes(random_bytes::<16>()));
    let database = Database::new().await;
    database.execute(&format!("CREATE DATABASE {name}")).await;
    format!("{bouncer}/{name}")
}

#[tokio::test]
#[ignore = "needs PgBouncer: scripts/test-postgres"]
async fn everything_works_through_pgbouncer_as_it_is_installed() {
    let url = behind("TEST_PGBOUNCER").await;
    let mut app = TestApp::with(Setup::toml("[limits]\nrequest_rates = false")).await;
    let before = app.database.url.clone();
    app.change_config(&before, &url);
    app.restart().await;

    let (client, tokens) = app.tokens_of("bob").await;
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
    let again = client.refresh(&tokens.refresh_token).await;
    again.assert_status(200);
    app.http.get(&app.at("/ready")).await.assert_status(200);
    // A command works beside the server.
    let beside = Storage::attach(&url, Some(KEY)).await.unwrap();
    beside.last_time().await.unwrap();
    beside.close().await;
    // What a connection has set does not outlive it, and the next start finds its schema.
    app.restart().await;
    client.refresh(again.json()["refresh_token"].as_str().unwrap()).await.assert_status(200);
}

#[tokio::test]
#[ignore = "needs PgBouncer: scripts/test-postgres"]
async fn a_pool_of_transactions_is_refused_with_the_hint() {
    let url = behind("TEST_PGBOUNCER_TRANSACTION").await;
    for _ in 0..3 {
        let said = Storage::open(&url, Some(KEY)).await.err().unwrap().to_string();
        assert!(said.contains("pool_mode = session"), "{said}");
        assert_eq!(said.matches(". ").count(), 0, "one sentence: {said}");
        let checked = examine(&url).await.err().unwrap().to_string();
        assert_eq!(checked, said);
    }
}

/// A relay to a port that can be exchanged, with a signal that cuts all connections.
async fn relay(to: &Arc<AtomicU16>) -> (u16, broadcast::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (cut, _) = broadcast::channel(1);
    let (to, cuts) = (Arc::clone(to), cut.clone());
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (port, mut cut) = (to.load(Ordering::SeqCst), cuts.subscribe());
            tokio::spawn(async move {
                let mut server = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                tokio::select! {
                    _ = copy_bidirectional(&mut client, &mut server) => {}
                    _ = cut.recv() => {}
                }
            });
        }
    });
    (port, cut)
}

fn port_of(variable: &str) -> u16 {
    let url = std::env::var(variable).expect("scripts/test-postgres sets it");
    url.rsplit(':').next().unwrap().trim_end_matches('/').parse().unwrap()
}

#[tokio::test]
#[ignore = "needs PgBouncer: scripts/test-postgres"]
async fn a_pooler_that_changes_under_a_running_server_is_named_in_the_log() {
    let url = behind("TEST_PGBOUNCER").await;
    let to = Arc::new(AtomicU16::new(port_of("TEST_PGBOUNCER")));
    let (port, cut) = relay(&to).await;
    let url = url.replace(&format!(":{}/", port_of("TEST_PGBOUNCER")), &format!(":{port}/"));
    let mut app = TestApp::with(Setup::toml("[limits]\nrequest_rates = false")).await;
    let before = app.database.url.clone();
    app.change_config(&before, &url);
    app.restart().await;
    let (client, tokens) = app.tokens_of("bob").await;
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);

    to.store(port_of("TEST_PGBOUNCER_TRANSACTION"), Ordering::SeqCst);
    cut.send(()).unwrap();
    while !logs::all().contains("until the pooler is changed") {
        client.rpc(&tokens.access_token, "tools/list", json!({})).await;
    }
    assert!(logs::all().contains("pool_mode = session"));

    // Once it pools sessions again, everything works without a restart.
    to.store(port_of("TEST_PGBOUNCER"), Ordering::SeqCst);
    cut.send(()).unwrap();
    while client.rpc(&tokens.access_token, "tools/list", json!({})).await.status != 200 {}
    // Reads and writes have connections of their own. One that was cut costs a 503, which consumes nothing.
    for _ in 0..1000 {
        let refreshed = client.refresh(&tokens.refresh_token).await;
        if refreshed.status != 503 {
            refreshed.assert_status(200);
            return;
        }
    }
    panic!("refreshes do not recover");
}
