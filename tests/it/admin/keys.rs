//! `/keys`, and rotation: published before it signs, kept until the last token has expired, and no
//! request fails meanwhile.

use std::collections::BTreeSet;

use base64::Engine;
use serde_json::{Value, json};

use crate::harness::client::{McpClient, Tokens, jwt_part};
use crate::harness::console::Console;
use crate::harness::{Setup, TestApp};
use crate::laws::races::rounds;

async fn rotate(app: &TestApp) {
    let alice = Console::admin(app).signed_in(app, "alice").await;
    let answer = alice.press("/keys", "action", "rotate").await;
    assert_eq!(answer.location(), alice.at("/keys?done=rotated"));
}

async fn published_at(app: &TestApp, url: &str) -> Vec<String> {
    let keys = app.http.get(&format!("{url}/.well-known/jwks.json")).await;
    let keys = keys.assert_status(200).json();
    let kid = |key: &Value| key["kid"].as_str().unwrap().to_owned();
    keys["keys"].as_array().unwrap().iter().map(kid).collect()
}

async fn published(app: &TestApp) -> Vec<String> {
    published_at(app, &app.url).await
}

fn kid_of(tokens: &Tokens) -> String {
    jwt_part(&tokens.access_token, 0)["kid"].as_str().unwrap().to_owned()
}

async fn refreshed(client: &McpClient, tokens: &Tokens) -> Tokens {
    Tokens::of(client.refresh(&tokens.refresh_token).await.assert_status(200))
}

async fn works(client: &McpClient, tokens: &Tokens) {
    client.rpc(&tokens.access_token, "tools/list", json!({})).await.assert_status(200);
}

/// One client under load: whoever verifies tokens by themselves knows the key before it is used.
async fn round(
    app: &TestApp,
    client: &McpClient,
    tokens: &mut Tokens,
    used: &mut BTreeSet<String>,
) {
    let known = published(app).await;
    let before = std::mem::replace(tokens, refreshed(client, tokens).await);
    assert!(known.contains(&kid_of(tokens)), "a key signed before it was published");
    works(client, tokens).await;
    works(client, &before).await; // of the step before: not expired
    used.insert(kid_of(tokens));
}

#[tokio::test]
async fn no_request_fails_while_keys_rotate_under_load() {
    let app = TestApp::start().await;
    let mut load = Vec::new();
    for _ in 0..5 {
        let (client, tokens) = app.tokens_of("bob").await;
        load.push((client, tokens, BTreeSet::new()));
    }
    let old = published(&app).await;
    for step in 0..60 {
        let rounds =
            load.iter_mut().map(|(client, tokens, used)| round(&app, client, tokens, used));
        let rounds = futures_util::future::join_all(rounds);
        let meanwhile = async {
            if step == 2 {
                rotate(&app).await;
            }
            app.advance(100);
        };
        tokio::join!(rounds, meanwhile);
    }
    let new = published(&app).await;
    assert_eq!((old.len(), new.len()), (1, 1));
    assert_ne!(old, new);
    for (_, _, used) in &load {
        assert_eq!(used.iter().collect::<BTreeSet<_>>(), old.iter().chain(&new).collect());
    }
}

#[tokio::test]
async fn a_key_goes_through_its_states_at_their_times() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let old = published(&app).await;
    assert_eq!(old, [kid_of(&tokens)]);

    rotate(&app).await;
    let both = published(&app).await;
    assert_eq!(both.len(), 2, "published at once");
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let page = alice.page("/keys").await;
    assert!(page.contains(">next<") && page.contains(">signing<"), "{page}");
    assert!(!page.contains("value=\"rotate\""), "one rotation at a time");
    app.advance(599);
    let tokens = refreshed(&client, &tokens).await;
    assert_eq!(kid_of(&tokens), old[0], "signs later");

    app.advance(1);
    let last_of_old = refreshed(&client, &tokens).await;
    assert_eq!(kid_of(&last_of_old), both[1]);
    works(&client, &tokens).await;
    assert!(alice.page("/keys").await.contains(">former<"));

    app.advance(64 * 60);
    assert_eq!(published(&app).await.len(), 2, "a token of an hour may be alive");
    app.advance(60);
    assert_eq!(published(&app).await, [both[1].clone()]);
    let erased = "SELECT COUNT(*) FROM signing_keys WHERE private_key = ''";
    assert_eq!(app.database.number(erased).await, 1);
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let page = alice.page("/keys").await;
    assert!(page.contains(&old[0]), "retired keys are remembered: {page}");
    let added = alice.page("/audit?event=key_added").await;
    assert!(added.contains("admin oidc:demo-alice") && added.contains(&both[1]), "{added}");
    let retired = alice.page("/audit?event=key_retired").await;
    assert!(retired.contains("server") && retired.contains(&old[0]), "{retired}");
}

#[tokio::test]
async fn of_a_hundred_rotations_at_once_one_begins() {
    for _ in rounds() {
        let app = TestApp::start().await;
        let alice = Console::admin(&app).signed_in(&app, "alice").await;
        let csrf = alice.csrf().await;
        let fields = [("csrf", csrf.as_str()), ("action", "rotate")];
        let answers =
            futures_util::future::join_all((0..100).map(|_| alice.post("/keys", &fields)));

        let answers = answers.await;

        let begun = answers.iter().filter(|answer| answer.location().ends_with("done=rotated"));
        assert_eq!(begun.count(), 1);
        assert_eq!(published(&app).await.len(), 2);
        assert_eq!(app.database.number("SELECT COUNT(*) FROM signing_keys").await, 2);
        let told = "SELECT COUNT(*) FROM audit_events WHERE event = 'key_added'";
        assert_eq!(app.database.number(told).await, 1);
    }
}

#[tokio::test]
async fn a_restart_in_the_middle_of_a_rotation_changes_nothing() {
    let mut app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    rotate(&app).await;
    let both = published(&app).await;
    app.restart().await;
    assert_eq!(published(&app).await, both);
    let tokens = refreshed(&client, &tokens).await;
    assert_eq!(kid_of(&tokens), both[0]);
    app.advance(600);
    app.restart().await;
    works(&client, &refreshed(&client, &tokens).await).await;
    app.advance(65 * 60);
    app.restart().await;
    assert_eq!(published(&app).await, [both[1].clone()]);
}

#[tokio::test]
async fn every_algorithm_in_use_rotates() {
    let resources = r#"
[[resource]]
path   = "/mcp"
scopes = ["a"]

[[resource]]
path   = "/two"
scopes = ["b"]
token_alg = "EdDSA"
"#;
    let setup = Setup::toml(resources);
    let app = TestApp::with(setup).await;
    assert_eq!(published(&app).await.len(), 2);
    rotate(&app).await;
    assert_eq!(published(&app).await.len(), 4);
    app.advance(75 * 60);
    assert_eq!(published(&app).await.len(), 2);
}

#[tokio::test]
async fn a_clock_that_jumps_back_leaves_a_key_that_signs() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    rotate(&app).await;
    app.advance(700);
    app.advance(-3600);
    let tokens = refreshed(&client, &tokens).await;
    works(&client, &tokens).await;
}

#[tokio::test]
async fn replicas_on_postgres_take_part_in_a_rotation() {
    let app = TestApp::start().await;
    if !app.database.is_postgres() {
        return; // one process is what SQLite is for
    }
    let (client, tokens) = app.tokens_of("bob").await;
    let (other, stop) = app.replica().await;
    let mut there = client.elsewhere();
    there.server.url.clone_from(&other);
    rotate(&app).await;
    let both = published(&app).await;
    app.advance(60);
    assert_eq!(published_at(&app, &other).await, both, "seen within a minute");

    app.advance(540);
    let tokens = refreshed(&client, &tokens).await;
    assert_eq!(kid_of(&tokens), both[1]);
    works(&there, &tokens).await;
    let tokens = refreshed(&there, &tokens).await;
    assert_eq!(kid_of(&tokens), both[1]);
    works(&client, &tokens).await;

    app.advance(65 * 60);
    let new = [both[1].clone()];
    let after = tokio::join!(published(&app), published_at(&app, &other));
    assert_eq!((after.0.as_slice(), after.1.as_slice()), (&new[..], &new[..]));
    let told = "SELECT COUNT(*) FROM audit_events WHERE event = 'key_retired'";
    assert_eq!(app.database.number(told).await, 1);
    let _ = stop.send(());
}

#[tokio::test]
async fn a_replica_that_has_not_looked_yet_learns_a_key_from_the_first_token() {
    let app = TestApp::start().await;
    if !app.database.is_postgres() {
        return;
    }
    let (client, tokens) = app.tokens_of("bob").await;
    let (other, stop) = app.replica().await;
    let mut there = client.elsewhere();
    there.server.url.clone_from(&other);
    rotate(&app).await;
    app.advance(600);
    let tokens = refreshed(&client, &tokens).await;
    let at_once = (0..10).map(|_| works(&there, &tokens));
    futures_util::future::join_all(at_once).await;
    let _ = stop.send(());
}

#[tokio::test]
async fn a_token_that_names_an_unknown_key_is_refused() {
    let app = TestApp::start().await;
    let (client, mut tokens) = app.tokens_of("bob").await;
    let rest = tokens.access_token.split_once('.').unwrap().1.to_owned();
    let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": "made-up" }).to_string();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(header);
    tokens.access_token = format!("{header}.{rest}");
    for _ in 0..3 {
        let answer = client.rpc(&tokens.access_token, "tools/list", json!({})).await;
        answer.assert_status(401);
    }
}
