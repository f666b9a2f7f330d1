//! The identity provider over time: asked again, unreachable, saying no (threats RT-07, RT-08).

use serde_json::json;

use crate::harness::client::{Tokens, jwt_part};
use crate::harness::{Setup, TestApp, logs};

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;

fn upstream(text: &str) -> Setup {
    Setup::toml(format!("[upstream]\n{text}"))
}

#[tokio::test]
async fn it_is_asked_again_only_when_its_last_answer_is_old() {
    let app = TestApp::start().await;
    let (client, mut tokens) = app.tokens_of("bob").await;
    let asked = |n: usize| assert_eq!(app.idp.requests_to("/token"), n);
    asked(1);
    app.advance(15 * MINUTE - 1);
    tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    asked(1);
    app.advance(1);
    tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    asked(2);
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    asked(2);
}

#[tokio::test]
async fn a_disabled_person_is_out_within_the_re_check_time() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let (other, others) = app.tokens_of("alice").await;
    app.idp.disable("bob");
    app.advance(15 * MINUTE);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    other.refresh(&others.refresh_token).await.assert_status(200);
    // For good: coming back needs a new sign-in.
    app.idp.enable("bob");
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    client.sign_in("bob").await;
}

#[tokio::test]
async fn all_grants_of_a_session_end_together() {
    let app = TestApp::start().await;
    let (client, one) = app.tokens_of("bob").await;
    let two = client.sign_in("bob").await; // the same browser, the same session there
    app.idp.disable("bob");
    app.advance(5 * MINUTE);
    client.call_tool(&two.access_token, "get-todos", json!({})).await.assert_status(200);
    app.advance(10 * MINUTE);
    client.refresh(&one.refresh_token).await.assert_error(400, "invalid_grant");
    client.refresh(&two.refresh_token).await.assert_error(400, "invalid_grant");
    let live = "SELECT COUNT(*) FROM grants WHERE revoked_at IS NULL";
    assert_eq!(app.database.number(live).await, 0);
}

/// An outage is not the person's fault.
#[tokio::test]
async fn an_outage_logs_nobody_out() {
    let app = TestApp::start().await;
    let (client, mut tokens) = app.tokens_of("bob").await;
    app.idp.misbehave(|how| how.token_answer = Some((500, "down".to_owned())));
    app.advance(16 * MINUTE);
    tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert_eq!(tokens.expires_in, 300, "on an old answer, tokens live shorter");
    app.advance(44 * MINUTE);
    // An hour after the last yes: no tokens, but nothing is used up or revoked either.
    for _ in 0..3 {
        let answer = client.refresh(&tokens.refresh_token).await;
        answer.assert_error(503, "temporarily_unavailable");
        assert!(answer.header("retry-after").is_some());
    }
    app.advance(5 * HOUR);
    client.refresh(&tokens.refresh_token).await.assert_error(503, "temporarily_unavailable");
    assert!(!says_that_it_is_back(&app));
    app.idp.misbehave(|how| how.token_answer = None);
    app.advance(MINUTE); // a provider in trouble is left alone for up to a minute
    tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert_eq!(tokens.expires_in, 600);
    assert!(says_that_it_is_back(&app));
}

/// Whether the log says that this test's provider answers again.
fn says_that_it_is_back(app: &TestApp) -> bool {
    let of_this_test = app.idp.issuer();
    logs::all().lines().any(|line| line.contains("answers again") && line.contains(of_this_test))
}

#[tokio::test]
async fn the_log_says_when_the_provider_can_be_discovered_again() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| how.discovery_down = true);
    let client = app.client().await;
    let (_, form) = client.ask(&[]).await;
    client.decide(&form, "approve").await.assert_page(503);
    assert!(!says_that_it_is_back(&app));
    app.idp.misbehave(|how| how.discovery_down = false);
    app.advance(10);
    client.decide(&form, "approve").await.assert_leads_to(app.idp.issuer());
    assert!(says_that_it_is_back(&app));
}

#[tokio::test]
async fn a_provider_that_is_gone_altogether_logs_nobody_out() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.idp.shutdown();
    app.advance(16 * MINUTE);
    client.refresh(&tokens.refresh_token).await.assert_status(200);
}

#[tokio::test]
async fn our_own_wrong_secret_logs_nobody_out() {
    let app = TestApp::start().await;
    let (client, mut tokens) = app.tokens_of("bob").await;
    for (status, error) in
        [(401, "invalid_client"), (400, "unauthorized_client"), (400, "invalid_scope")]
    {
        let body = format!("{{\"error\":\"{error}\"}}");
        app.idp.misbehave(|how| how.refresh_answer = Some((status, body)));
        app.advance(16 * MINUTE);
        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        assert_eq!(tokens.expires_in, 300, "{error}: bridged");
    }
    let live = "SELECT COUNT(*) FROM grants WHERE revoked_at IS NULL";
    assert_eq!(app.database.number(live).await, 1);
}

#[tokio::test]
async fn an_answer_about_somebody_else_ends_the_session() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.idp.misbehave(|how| how.other_subject_on_refresh = true);
    app.advance(16 * MINUTE);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
}

#[tokio::test]
async fn an_answer_that_cannot_be_checked_is_neither_yes_nor_no() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.idp.misbehave(|how| how.expired_id_token = true);
    app.advance(16 * MINUTE);
    let stale = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert_eq!(stale.expires_in, 300);
    app.idp.misbehave(|how| how.expired_id_token = false);
    let fresh = Tokens::of(&client.refresh(&stale.refresh_token).await);
    assert_eq!(fresh.expires_in, 600);
}

#[tokio::test]
async fn an_answer_without_id_token_is_a_yes() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.idp.misbehave(|how| how.no_id_token_on_refresh = true);
    app.advance(16 * MINUTE);
    assert_eq!(Tokens::of(&client.refresh(&tokens.refresh_token).await).expires_in, 600);
}

#[tokio::test]
async fn without_a_refresh_token_a_sign_in_is_good_for_eight_hours() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| how.no_refresh_token = true);
    let (client, mut tokens) = app.tokens_of("bob").await;
    app.advance(8 * HOUR - 1);
    tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    app.advance(1);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
}

#[tokio::test]
async fn a_provider_that_rotates_strictly_is_asked_by_one_at_a_time() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| how.strict_rotation = true);
    let (client, mut one) = app.tokens_of("bob").await;
    let mut two = client.sign_in("bob").await;
    for _ in 0..3 {
        app.advance(16 * MINUTE);
        let before = app.idp.requests_to("/token");
        let (first, second) =
            tokio::join!(client.refresh(&one.refresh_token), client.refresh(&two.refresh_token));
        (one, two) = (Tokens::of(&first), Tokens::of(&second));
        assert_eq!(app.idp.requests_to("/token") - before, 1);
    }
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_at_once() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.idp.misbehave(|how| how.lose_refresh_answers = 1);
    app.advance(16 * MINUTE);
    assert_eq!(Tokens::of(&client.refresh(&tokens.refresh_token).await).expires_in, 600);
}

#[tokio::test]
async fn a_client_that_hangs_up_stops_no_question() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| how.strict_rotation = true);
    let (client, tokens) = app.tokens_of("bob").await;
    app.advance(16 * MINUTE);
    app.idp.token_gate().close();
    {
        let refresh = client.refresh(&tokens.refresh_token);
        tokio::select! {
            _ = refresh => panic!("the gate is closed"),
            () = app.idp.token_gate().until_waiting(1) => {}
        }
    }
    app.idp.token_gate().open();
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    app.advance(16 * MINUTE);
    let next = client.sign_in("bob").await;
    client.refresh(&next.refresh_token).await.assert_status(200);
}

#[tokio::test]
async fn the_recheck_time_is_a_setting() {
    let app = TestApp::with(upstream("recheck = \"1m\"\noutage_grace = \"0s\"")).await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.advance(MINUTE);
    app.idp.misbehave(|how| how.token_answer = Some((503, String::new())));
    client.refresh(&tokens.refresh_token).await.assert_error(503, "temporarily_unavailable");
    app.advance(MINUTE);
    app.idp.disable("bob");
    app.idp.misbehave(|how| how.token_answer = None);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
}

#[tokio::test]
async fn nobody_is_known_by_e_mail_address() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| {
        how.extra_claims.insert("email".to_owned(), "alice@example.com".into());
    });
    let (_, bobs) = app.tokens_of("bob").await;
    assert_eq!(jwt_part(&bobs.access_token, 1)["sub"], "oidc:demo-bob");
}

#[tokio::test]
async fn a_later_sign_in_without_a_refresh_token_keeps_the_one_at_hand() {
    let app = TestApp::start().await;
    let (client, _) = app.tokens_of("bob").await;
    app.idp.misbehave(|how| how.no_refresh_token = true);
    let tokens = client.sign_in("bob").await; // the same session there
    app.idp.misbehave(|how| how.no_refresh_token = false);
    app.advance(16 * MINUTE);
    let before = app.idp.requests_to("/token");
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    assert_eq!(app.idp.requests_to("/token"), before + 1, "it could still be asked");
}

#[tokio::test]
async fn a_provider_in_trouble_is_left_alone_for_longer_and_longer() {
    let app = TestApp::start().await;
    let (client, mut tokens) = app.tokens_of("bob").await;
    app.idp.misbehave(|how| how.token_answer = Some((500, String::new())));
    app.advance(16 * MINUTE);
    let asked = || app.idp.requests_to("/token");
    for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
        let before = asked();
        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        assert_eq!(asked(), before + 2, "asked, and once more at once");
        app.advance(pause - 1);
        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        assert_eq!(asked(), before + 2, "left alone for {pause} s");
        app.advance(1);
    }
    app.idp.misbehave(|how| how.token_answer = None);
    tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert_eq!(tokens.expires_in, 600);
}

#[tokio::test]
async fn without_grace_a_lost_answer_ends_in_one_clear_sign_in() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| how.strict_rotation = true);
    let (client, tokens) = app.tokens_of("bob").await;
    app.idp.misbehave(|how| how.lose_refresh_answers = 1);
    app.advance(16 * MINUTE);
    // The provider has rotated, the answer is lost, and it takes the second try for theft.
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(401);
    let again = client.sign_in("bob").await;
    app.advance(16 * MINUTE);
    client.refresh(&again.refresh_token).await.assert_status(200);
}

#[tokio::test]
async fn answers_that_are_lost_again_and_again_cost_nobody_their_session() {
    let app = TestApp::start().await;
    let (client, mut tokens) = app.tokens_of("bob").await;
    app.idp.misbehave(|how| how.lose_refresh_answers = 4);
    for _ in 0..2 {
        app.advance(16 * MINUTE);
        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        assert_eq!(tokens.expires_in, 300, "bridged");
    }
    app.advance(16 * MINUTE);
    assert_eq!(Tokens::of(&client.refresh(&tokens.refresh_token).await).expires_in, 600);
}

#[tokio::test]
async fn an_outage_of_userinfo_takes_nothing_away() {
    let setup = Setup::toml("[upstream.claims]\nsources = [\"userinfo\"]");
    let app = TestApp::with(setup).await;
    let (client, mut tokens) = app.tokens_of("alice").await;
    let before = tokens.scope.clone();
    app.idp.misbehave(|how| how.userinfo_down = true);
    for _ in 0..3 {
        app.advance(16 * MINUTE);
        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        assert_eq!(tokens.scope, before);
    }
    app.idp.misbehave(|how| how.userinfo_down = false);
    app.idp.set_roles("alice", &["User"]);
    app.advance(16 * MINUTE);
    tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert_eq!(tokens.scope, "create:todos");
}
