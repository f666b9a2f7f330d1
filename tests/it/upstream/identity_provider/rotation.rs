//! A5: refresh tokens that stay, rotate, or may come twice for a while.

use std::collections::BTreeSet;

use super::{MINUTE, ask_again, assert_fresh};
use crate::harness::TestApp;
use crate::harness::client::Tokens;

/// The refresh tokens that were presented to the provider, in order.
fn presented(app: &TestApp) -> Vec<String> {
    let tokens = app.idp.recorded().into_iter().filter(|request| request.path == "/token");
    tokens.filter_map(|request| request.form_field("refresh_token")).collect()
}

#[tokio::test]
async fn a_refresh_token_that_stays_is_used_again_and_again() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| how.keeps_refresh_token = true);
    let (client, mut tokens) = app.tokens_of("bob").await;
    for _ in 0..3 {
        tokens = ask_again(&app, &client, &tokens).await;
        assert_fresh(&tokens);
    }
    let presented: BTreeSet<String> = presented(&app).into_iter().collect();
    assert_eq!(presented.len(), 1);
}

#[tokio::test]
async fn within_the_providers_grace_a_lost_answer_is_made_good() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| (how.strict_rotation, how.rotation_grace) = (true, 30));
    let (client, mut tokens) = app.tokens_of("bob").await;
    for _ in 0..3 {
        app.idp.misbehave(|how| how.lose_refresh_answers = 1);
        tokens = ask_again(&app, &client, &tokens).await;
        assert_fresh(&tokens);
    }
}

#[tokio::test]
async fn only_the_newest_refresh_token_is_ever_presented() {
    let app = TestApp::start().await;
    // The second-to-last token would end the session at such a provider.
    app.idp.misbehave(|how| how.strict_rotation = true);
    let (client, mut one) = app.tokens_of("bob").await;
    let mut two = client.sign_in("bob").await;
    for _ in 0..4 {
        one = ask_again(&app, &client, &one).await;
        assert_fresh(&one);
        two = ask_again(&app, &client, &two).await;
        assert_fresh(&two);
    }
    // A third sign-in of the same session brings a new one, and the older ones are stale from then on.
    app.advance(MINUTE);
    client.sign_in("bob").await;
    one = ask_again(&app, &client, &one).await;
    assert_fresh(&one);
    let presented = presented(&app);
    let distinct: BTreeSet<&String> = presented.iter().collect();
    assert_eq!(distinct.len(), presented.len(), "each was presented once");
}

#[tokio::test]
async fn the_right_to_ask_of_a_process_that_is_gone_runs_out_within_seconds() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.advance(16 * MINUTE);
    let until = app.now().unix() + 15;
    let lease = format!("UPDATE upstream_sessions SET lease_owner = 'x', lease_until = {until}");
    app.database.execute(&lease).await;
    // Whoever waits for the answer of the process that is gone asks in its place.
    let refresh = client.refresh(&tokens.refresh_token);
    let (answer, ()) = tokio::join!(refresh, async { app.advance(15) });
    assert_fresh(&Tokens::of(&answer));
}
