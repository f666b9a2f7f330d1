//! Killed at every step of consent, callback, redemption, refresh and the provider's rotation.

use std::sync::Arc;

use serde_json::json;

use super::{NEVER_AT_FIRST, assert_never, assert_sound};
use crate::harness::client::{McpClient, Tokens};
use crate::harness::process::Served;

/// Runs `request` until the server stops at `place`, kills it there, starts it again and looks at the
/// database. Whoever asked has heard nothing.
async fn die_at<F>(server: &mut Served, place: &'static str, request: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let asking = tokio::spawn(request);
    server.kill_when_stopped().await;
    assert!(asking.await.is_err(), "{place}: the answer came before the step was done");
    server.launch();
    assert_sound(&server.database, place).await;
    assert_never(&server.database, NEVER_AT_FIRST, place).await;
}

async fn refresh(client: Arc<McpClient>, token: String) {
    client.refresh(&token).await;
}

async fn works(client: &McpClient, tokens: &Tokens) {
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
}

#[tokio::test]
async fn killed_while_redeeming_a_code_stays_good_or_is_a_grant_and_never_in_between() {
    let mut server = Served::without_rates().await;
    let client = Arc::new(McpClient::register(&server).await);
    for place in
        ["redeem: code used", "redeem: grant stored", "redeem: token stored", "redeem: told"]
    {
        let code = client.code("bob").await;
        server.relaunch_to_stop_at(place);
        let (asking, used) = (Arc::clone(&client), code.clone());
        die_at(&mut server, place, async move { drop(asking.redeem(&used).await) }).await;

        let tokens = Tokens::of(&client.redeem(&code).await);

        works(&client, &tokens).await;
        client.refresh(&tokens.refresh_token).await.assert_status(200);
        assert_sound(&server.database, place).await;
    }
    // The answer is lost: the code is used, and a second use ends what the first one made.
    let code = client.code("bob").await;
    server.relaunch_to_stop_at("redeem: committed");
    let (asking, used) = (Arc::clone(&client), code.clone());
    let lost = async move { drop(asking.redeem(&used).await) };
    die_at(&mut server, "redeem: committed", lost).await;
    let live = "SELECT COUNT(*) FROM grants WHERE revoked_at IS NULL";
    let before = server.database.number(live).await;

    client.redeem(&code).await.assert_error(400, "invalid_grant");

    assert_eq!(server.database.number(live).await, before - 1);
    works(&client, &client.sign_in("bob").await).await;
    assert_sound(&server.database, "the replay").await;
}

#[tokio::test]
async fn killed_while_a_replay_revokes_the_next_replay_does() {
    let mut server = Served::without_rates().await;
    let client = Arc::new(McpClient::register(&server).await);
    for place in ["replay: revoked", "replay: committed"] {
        let code = client.code("bob").await;
        let tokens = Tokens::of(&client.redeem(&code).await);
        server.relaunch_to_stop_at(place);
        let (asking, used) = (Arc::clone(&client), code.clone());
        die_at(&mut server, place, async move { drop(asking.redeem(&used).await) }).await;

        client.redeem(&code).await.assert_error(400, "invalid_grant");

        client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
        client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(401);
        assert_sound(&server.database, place).await;
    }
}

#[tokio::test]
async fn killed_while_refreshing_the_same_token_brings_one_successor_and_nobody_is_out() {
    let mut server = Served::without_rates().await;
    let client = Arc::new(McpClient::register(&server).await);
    let mut tokens = client.sign_in("bob").await;
    for place in [
        "refresh: token used",
        "refresh: grant touched",
        "refresh: successor stored",
        "refresh: told",
        "refresh: committed",
    ] {
        server.relaunch_to_stop_at(place);
        let before = tokens.refresh_token.clone();
        die_at(&mut server, place, refresh(Arc::clone(&client), before.clone())).await;

        tokens = Tokens::of(&client.refresh(&before).await);

        works(&client, &tokens).await;
        let again = Tokens::of(&client.refresh(&before).await);
        assert_eq!(again.refresh_token, tokens.refresh_token, "{place}: one successor");
        assert_sound(&server.database, place).await;
    }
    for place in ["again: counted", "again: committed"] {
        let before = tokens.refresh_token.clone();
        tokens = Tokens::of(&client.refresh(&before).await);
        server.relaunch_to_stop_at(place);
        die_at(&mut server, place, refresh(Arc::clone(&client), before.clone())).await;

        let again = Tokens::of(&client.refresh(&before).await);

        assert_eq!(again.refresh_token, tokens.refresh_token, "{place}: one successor");
    }
}

#[tokio::test]
async fn killed_while_reuse_revokes_the_next_reuse_does() {
    let mut server = Served::without_rates().await;
    let client = Arc::new(McpClient::register(&server).await);
    for place in ["reuse: revoked", "reuse: committed"] {
        let first = client.sign_in("bob").await;
        let second = Tokens::of(&client.refresh(&first.refresh_token).await);
        let third = Tokens::of(&client.refresh(&second.refresh_token).await);
        server.relaunch_to_stop_at(place);
        let stolen = first.refresh_token.clone();
        die_at(&mut server, place, refresh(Arc::clone(&client), stolen)).await;

        client.refresh(&first.refresh_token).await.assert_error(400, "invalid_grant");

        client.refresh(&third.refresh_token).await.assert_error(400, "invalid_grant");
        client.call_tool(&third.access_token, "get-todos", json!({})).await.assert_status(401);
        assert_sound(&server.database, place).await;
    }
}

#[tokio::test]
async fn killed_while_approving_the_page_is_still_good_or_was_decided() {
    let mut server = Served::without_rates().await;
    let client = Arc::new(McpClient::register(&server).await);
    for place in ["approve: decided", "approve: login stored", "approve: committed"] {
        server.relaunch_to_stop_at(place);
        let (_, form) = client.ask(&[]).await;
        let (asking, page) = (Arc::clone(&client), form.clone());
        let approve = async move { drop(asking.decide(&page, "approve").await) };
        die_at(&mut server, place, approve).await;

        let again = client.decide(&form, "approve").await;

        if place == "approve: committed" {
            again.assert_page(403);
            works(&client, &client.sign_in("bob").await).await; // one more page, and done
        } else {
            let back = client.log_in(again.location(), "bob").await;
            let code = client.browser.get(&back).await.location_param("code").unwrap();
            works(&client, &Tokens::of(&client.redeem(&code).await)).await;
        }
        assert_sound(&server.database, place).await;
    }
}

#[tokio::test]
async fn killed_in_the_callback_the_same_link_goes_on_or_has_ended_and_a_new_sign_in_works() {
    let mut server = Served::without_rates().await;
    let client = Arc::new(McpClient::register(&server).await);
    for place in [
        "callback: login ended",
        "callback: committed",
        "login: session stored",
        "login: code stored",
        "login: committed",
    ] {
        server.relaunch_to_stop_at(place);
        let idp = client.approve(&[]).await;
        let back = client.log_in(&idp, "bob").await;
        let (asking, link) = (Arc::clone(&client), back.clone());
        let callback = async move { drop(asking.browser.get(&link).await) };
        die_at(&mut server, place, callback).await;

        let again = client.browser.get(&back).await;

        if place == "callback: login ended" {
            let code = again.location_param("code").unwrap();
            works(&client, &Tokens::of(&client.redeem(&code).await)).await;
        } else {
            again.assert_page(403);
            works(&client, &client.sign_in("bob").await).await;
        }
        assert_sound(&server.database, place).await;
    }
}

/// Makes the provider's last answer old, so that the next refresh asks it.
async fn is_due(server: &Served) {
    server.database.execute("UPDATE upstream_sessions SET last_ok_at = last_ok_at - 1000").await;
}

#[tokio::test]
async fn killed_around_the_providers_rotation_its_new_token_is_kept_once_it_is_stored() {
    let mut server = Served::without_rates().await;
    let client = Arc::new(McpClient::register(&server).await);
    for (place, grace) in [
        ("recheck: leased", 0),
        ("recheck: answered", 30), // only the provider can heal this
        ("recheck: tokens stored", 0),
        ("recheck: renewed", 0),
    ] {
        server.idp.misbehave(|how| (how.strict_rotation, how.rotation_grace) = (true, grace));
        let tokens = client.sign_in("bob").await;
        is_due(&server).await;
        server.relaunch_to_stop_at(place);
        let before = tokens.refresh_token.clone();
        die_at(&mut server, place, refresh(Arc::clone(&client), before)).await;
        if server.database.is_postgres() {
            // Another replica might be asking: its lease runs out within seconds.
            server.database.execute("UPDATE upstream_sessions SET lease_until = 0").await;
        }

        let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);

        assert!(tokens.expires_in > 300, "{place}: the provider vouched");
        works(&client, &tokens).await;
        is_due(&server).await;
        let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        assert!(tokens.expires_in > 300, "{place}: and does again");
        assert_sound(&server.database, place).await;
    }
}

/// A place that no test stops at would be one that nobody has looked at.
#[test]
fn every_stop_point_is_stopped_at() {
    let tests = concat!(
        include_str!("stop_points.rs"),
        include_str!("../../connections/crashes.rs"),
        include_str!("../../telemetry/supervision.rs"),
    );
    let mut files = Vec::new();
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    crate::repository::architecture::rust_files(&root.join("src"), &mut files);
    let code: String = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let places: Vec<&str> = code
        .split("stop_point!(\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .filter(|place| place.contains(": "))
        .collect();
    assert!(places.len() > 20, "{places:?}");
    for place in &places {
        assert!(tests.contains(&format!("\"{place}\"")), "{place}");
        assert_eq!(places.iter().filter(|other| other == &place).count(), 1, "{place}");
    }
}
