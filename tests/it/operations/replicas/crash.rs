//! PostgreSQL crashes right after the server answered.

use serde_json::json;

use super::database::postgres;
use super::fleet::a_moment;
use crate::harness::Setup;
use crate::harness::client::{McpClient, Tokens};
use crate::harness::http::Answer;
use crate::harness::process::Served;
use crate::harness::role::as_superuser;
use crate::operations::crashes::assert_sound;

const PEOPLE: usize = 4;

/// What a role may be set to.
const SET_TO: &[&str] = &["off", "local", "remote_write", "on", "remote_apply"];

/// Asks until the answer is not 503, at most a thousand times: a connection from before the crash costs one, and nothing is consumed.
async fn settled(ask: impl AsyncFn() -> Answer) -> u16 {
    for _ in 0..1000 {
        let status = ask().await.status;
        if status != 503 {
            return status.as_u16();
        }
        a_moment(10).await;
    }
    503
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn an_answered_revocation_survives_a_crash_whatever_the_role_is_set_to() {
    for set_to in SET_TO {
        let tables = "[limits]\nrequest_rates = false".to_owned();
        let role = vec![("synchronous_commit", *set_to)];
        let server = Served::with(&Setup { role, ..Setup::toml(tables) }).await;
        // From now on nothing is written to the disk but what a commit asks for.
        as_superuser("ALTER SYSTEM SET wal_writer_delay = '10s'").await;
        as_superuser("SELECT CAST(pg_reload_conf() AS TEXT)").await;
        let client = McpClient::register(&server).await;
        let (mut revoked, mut rotated) = (Vec::new(), Vec::new());
        for _ in 0..PEOPLE {
            revoked.push(client.sign_in("bob").await);
            rotated.push(client.sign_in("alice").await);
        }
        let mut successors = Vec::new();
        for tokens in &rotated {
            successors.push(Tokens::of(&client.refresh(&tokens.refresh_token).await));
        }
        for tokens in &revoked {
            client.revoke(&tokens.refresh_token).await.assert_status(200);
        }

        postgres("-m immediate stop").await;
        postgres("start").await;

        while server.http.get(&format!("{}/ready", server.url)).await.status != 200 {
            a_moment(10).await;
        }
        let (mut undone, mut lost) = (0, 0);
        for tokens in &revoked {
            let call = || client.call_tool(&tokens.access_token, "get-todos", json!({}));
            let called = settled(call).await;
            let refreshed = settled(|| client.refresh(&tokens.refresh_token)).await;
            undone += usize::from((called, refreshed) != (401, 400));
        }
        for tokens in &successors {
            lost += usize::from(settled(|| client.refresh(&tokens.refresh_token)).await != 200);
        }
        println!(
            "{set_to}: of {PEOPLE} revocations {undone} undone, of {PEOPLE} successors {lost} lost"
        );
        assert_eq!((undone, lost), (0, 0), "synchronous_commit = {set_to}");
        assert_sound(&server.database, set_to).await;
    }
    as_superuser("ALTER SYSTEM RESET wal_writer_delay").await;
}
