//! A new version in place of each replica, one after the other, while people and clients are at work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::json;

use super::fleet::{Fleet, REPLICAS};
use super::load::Load;
use crate::harness::client::McpClient;
use crate::laws::races::rounds;
use crate::operations::crashes::assert_sound;

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn replicas_are_replaced_one_after_the_other_and_nobody_notices() {
    let mut fleet = Fleet::start().await;
    let client = McpClient::register(&fleet).await;
    let load = Load::begin(&fleet, &client, 9, 5).await;
    let done = Arc::new(AtomicBool::new(false));
    // People who sign in, step by step, and whose clients call tools; any failure ends the test.
    let mut people = Vec::new();
    for _ in 0..3 {
        let (client, done) = (McpClient::register(&fleet).await, Arc::clone(&done));
        people.push(tokio::spawn(async move {
            let (mut logins, mut calls) = (0, 0);
            while !done.load(Ordering::SeqCst) {
                let tokens = client.sign_in("alice").await;
                logins += 1;
                for _ in 0..5 {
                    let called = client.call_tool(&tokens.access_token, "get-todos", json!({}));
                    called.await.assert_status(200);
                    calls += 1;
                }
            }
            (logins, calls)
        }));
    }
    for replaced in 0..REPLICAS * 2 * rounds().len() {
        let leaving = replaced % REPLICAS;
        // As orchestrators do it: no new requests, and at once the signal. Others are under way.
        let others = fleet.replicas.iter().enumerate().filter(|(n, _)| *n != leaving);
        fleet.balancer.send_to(others.map(|(_, replica)| replica));
        let replica = &mut fleet.replicas[leaving];
        let ended = replica.terminate().await.unwrap();
        assert!(ended.success(), "{ended}");
        replica.launch();
        fleet.balancer.send_to(&fleet.replicas);
    }
    done.store(true, Ordering::SeqCst);
    let (mut logins, mut calls) = (0, 0);
    for person in people {
        let (theirs, called) = person.await.unwrap();
        (logins, calls) = (logins + theirs, calls + called);
    }
    let (met, tokens) = load.end().await;
    println!(
        "{} replicas replaced: {logins} logins, {calls} calls; {met:?}",
        REPLICAS * 2 * rounds().len()
    );
    assert_eq!((met.unavailable, met.no_answer), (0, 0));
    for token in tokens {
        client.refresh(&token).await.assert_status(200);
    }
    assert_sound(&fleet.database, "the replacement").await;
}
