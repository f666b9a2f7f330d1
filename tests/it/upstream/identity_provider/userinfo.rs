//! A13: userinfo that lies, refuses, or speaks in another form.

use portcullis::demo::ChangeText;
use serde_json::{Value, json};

use super::{HOUR, MINUTE, ask_again, assert_bridged, assert_fresh};
use crate::harness::client::Tokens;
use crate::harness::{Setup, TestApp};

fn from_userinfo() -> Setup {
    Setup::toml("[upstream.claims]\nsources = [\"userinfo\"]")
}

#[tokio::test]
async fn userinfo_that_cannot_be_trusted_or_had_tells_nothing() {
    let app = TestApp::with(from_userinfo()).await;
    let (client, mut tokens) = app.tokens_of("alice").await;
    let before = tokens.scope.clone();
    let about_alice = json!({ "sub": "demo-alice", "roles": ["Admin"] }).to_string();
    let signed =
        app.idp.sign("JWT", &json!({ "sub": "demo-alice", "roles": ["Admin"] }), None).unwrap();
    for answer in [
        (401, json!({ "error": "invalid_token" }).to_string()),
        (429, about_alice.clone()),
        (500, about_alice),
        (200, signed), // a signed one says whom it is from and for (OpenID Connect Core §5.3.2)
        (200, "<html>".to_owned()),
        (200, json!({ "sub": "demo-bob", "roles": ["Admin"] }).to_string()),
        (200, json!({ "roles": ["Admin"] }).to_string()),
        (302, "https://other.example/".to_owned()),
    ] {
        app.idp.misbehave(|how| how.userinfo_answer = Some(answer.clone()));
        // At a sign-in, what is not known allows nothing.
        client.elsewhere().authorize("alice", &[]).await.assert_page(403);
        // Later, what was known stays.
        tokens = ask_again(&app, &client, &tokens).await;
        assert_eq!(tokens.scope, before, "{answer:?}");
        app.idp.misbehave(|how| how.userinfo_answer = None);
        tokens = ask_again(&app, &client, &tokens).await;
        assert_fresh(&tokens);
    }
    client.sign_in("alice").await;
}

#[tokio::test]
async fn userinfo_that_stops_telling_roles_takes_them_away() {
    let app = TestApp::with(from_userinfo()).await;
    let (client, tokens) = app.tokens_of("alice").await;
    app.idp.misbehave(|how| {
        how.change_userinfo = Some(|claims: &mut Value| claims["roles"] = json!(["User"]));
    });
    let tokens: Tokens = ask_again(&app, &client, &tokens).await;
    assert_fresh(&tokens);
    assert_eq!(tokens.scope, "create:todos");
}

/// The ID token comes at every refresh, or at none; userinfo fails in every way that is no answer.
#[tokio::test]
async fn a_silent_userinfo_is_bridged_no_longer_than_an_outage() {
    for no_id_token in [false, true] {
        for answer in [
            Some((429, String::new())),
            Some((500, String::new())),
            Some((503, "<html>".to_owned())),
            Some((408, String::new())),
            Some((200, "<html>".to_owned())),
            Some((302, "https://other.example/".to_owned())),
            None, // no answer at all
        ] {
            let app = TestApp::with(from_userinfo().and("[upstream]\ntimeout = \"1s\"")).await;
            app.idp.misbehave(|how| how.no_id_token_on_refresh = no_id_token);
            let (client, tokens) = app.tokens_of("alice").await;
            let all = tokens.scope.clone();
            app.idp.set_roles("alice", &["User"]);
            app.idp.misbehave(|how| match &answer {
                Some(answer) => how.userinfo_answer = Some(answer.clone()),
                None => how.silent_at = Some("/userinfo"),
            });
            let what = format!("{answer:?}, no ID token: {no_id_token}");

            // The role is still believed, for a shorter time at a time.
            let tokens = ask_again(&app, &client, &tokens).await;
            assert_eq!((&tokens.scope, tokens.expires_in), (&all, 300), "{what}");
            app.advance(43 * MINUTE + 59);
            let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
            assert_eq!(tokens.scope, all, "{what}: a second before the hour");

            // Nothing is used up and nobody is logged out by it.
            app.advance(1);
            for _ in 0..2 {
                let later = client.refresh(&tokens.refresh_token).await;
                later.assert_error(503, "temporarily_unavailable");
                assert!(later.header("retry-after").is_some());
                app.advance(5 * HOUR);
            }
            app.idp.misbehave(|how| (how.userinfo_answer, how.silent_at) = (None, None));
            app.advance(2 * MINUTE);
            let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
            assert_eq!(tokens.scope, "create:todos", "{what}");
        }
    }
}

/// What the ID token takes away is gone at once, whatever userinfo does.
#[tokio::test]
async fn what_an_id_token_takes_away_does_not_wait_for_userinfo() {
    let app =
        TestApp::with(Setup::toml("[upstream.claims]\nsources = [\"id_token\", \"userinfo\"]"))
            .await;
    app.idp.misbehave(|how| {
        how.change_id_token = Some(|claims: &mut Value| {
            claims.as_object_mut().unwrap().remove("groups");
        });
    });
    let (client, tokens) = app.tokens_of("alice").await;
    app.idp.set_roles("alice", &["User"]);
    app.idp.misbehave(|how| how.userinfo_down = true);
    let tokens = ask_again(&app, &client, &tokens).await;
    assert_eq!(tokens.scope, "create:todos");
}

/// A silent userinfo is asked again, and not at every refresh.
#[tokio::test]
async fn a_silent_userinfo_is_asked_again_at_most_once_a_minute() {
    let app = TestApp::with(from_userinfo()).await;
    let (client, tokens) = app.tokens_of("alice").await;
    app.idp.misbehave(|how| how.userinfo_down = true);
    let mut tokens = ask_again(&app, &client, &tokens).await;
    let asked = app.idp.requests_to("/token");
    for _ in 0..5 {
        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        assert_bridged(&tokens);
    }
    assert_eq!(app.idp.requests_to("/token"), asked);
    app.advance(MINUTE);
    app.idp.misbehave(|how| how.userinfo_down = false);
    assert_fresh(&Tokens::of(&client.refresh(&tokens.refresh_token).await));
}

/// An answer that tells nothing of the person is no outage, with an ID token as without.
#[tokio::test]
async fn userinfo_that_tells_nothing_is_believed_no_longer_than_a_sign_in() {
    let app = TestApp::with(from_userinfo()).await;
    let (client, tokens) = app.tokens_of("alice").await;
    app.idp.misbehave(|how| how.userinfo_answer = Some((403, String::new())));
    let tokens = ask_again(&app, &client, &tokens).await;
    app.advance(8 * HOUR);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
}

/// A provider that tells roles in ID tokens and sends none at a refresh.
async fn tells_nothing_again(resources: Option<&str>, upstream: &str) -> TestApp {
    let app = TestApp::with(
        Setup::toml(format!("[upstream]\n{upstream}")).and(resources.unwrap_or_default()),
    )
    .await;
    app.idp.misbehave(|how| {
        how.no_id_token_on_refresh = true;
        how.change_userinfo = Some(|claims: &mut Value| {
            claims.as_object_mut().unwrap().retain(|name, _| name == "sub");
        });
    });
    app
}

#[tokio::test]
async fn without_an_id_token_at_a_refresh_userinfo_is_asked_and_takes_roles_away() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| how.no_id_token_on_refresh = true);
    let (client, tokens) = app.tokens_of("alice").await;
    app.idp.set_roles("alice", &["User"]);
    let tokens = ask_again(&app, &client, &tokens).await;
    assert_fresh(&tokens);
    assert_eq!(tokens.scope, "create:todos");

    // An outage of userinfo that is bridged changes nothing: not even what was taken away.
    let mut tokens = tokens;
    for answer in [500, 429, 503] {
        app.idp.misbehave(|how| how.userinfo_answer = Some((answer, String::new())));
        tokens = ask_again(&app, &client, &tokens).await;
        assert_bridged(&tokens);
        assert_eq!(tokens.scope, "create:todos", "{answer}");
    }
}

#[tokio::test]
async fn what_the_provider_never_tells_again_is_good_for_as_long_as_it_may_be() {
    let app = tells_nothing_again(None, "").await;
    let (client, mut tokens) = app.tokens_of("alice").await;
    let all = tokens.scope.clone();
    for _ in 0..29 {
        tokens = ask_again(&app, &client, &tokens).await;
        assert_eq!(tokens.scope, all);
    }
    app.advance(16 * MINUTE - 1);
    tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert_eq!(tokens.scope, all, "a second before eight hours");
    app.advance(16 * MINUTE);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    client.sign_in("alice").await;
}

#[tokio::test]
async fn userinfo_that_answers_and_tells_nothing_of_the_person_is_no_outage() {
    let app = TestApp::start().await;
    let claims = json!({ "sub": "demo-alice", "roles": ["Admin"] });
    let signed = app.idp.sign("JWT", &claims, None).unwrap();
    let other = json!({ "sub": "demo-bob", "roles": ["Admin"] }).to_string();
    for (answer, is_outage) in [
        ((403, String::new()), false),
        ((200, signed), false),
        ((200, other), false),
        ((200, "<html>".to_owned()), true),
        ((302, "https://other.example/".to_owned()), true),
    ] {
        app.idp.misbehave(|how| {
            how.no_id_token_on_refresh = true;
            how.userinfo_answer = Some(answer.clone());
        });
        let (client, tokens) = app.tokens_of("alice").await;
        let again = ask_again(&app, &client, &tokens).await;
        assert_eq!(again.scope, tokens.scope);
        app.advance(8 * HOUR);
        let later = client.refresh(&again.refresh_token).await;
        if is_outage {
            later.assert_error(503, "temporarily_unavailable");
        } else {
            later.assert_error(400, "invalid_grant");
        }
    }
}

#[tokio::test]
async fn nobody_is_sent_to_sign_in_again_for_what_no_rule_reads() {
    let resource = "[[resource]]\npath = \"/mcp\"\ntarget = \"{todo}\"\nscopes = [\"read:todos\"]";
    let app = tells_nothing_again(Some(resource), "").await;
    let (client, tokens) = app.tokens_of("alice").await;
    app.advance(9 * HOUR);
    assert_fresh(&Tokens::of(&client.refresh(&tokens.refresh_token).await));
}

fn unsigned(jwt: &str) -> String {
    format!("{}.", jwt.rsplit_once('.').unwrap().0)
}

fn changed(jwt: &str) -> String {
    let (signed, signature) = jwt.rsplit_once('.').unwrap();
    let first = if signature.starts_with('A') { "B" } else { "A" };
    format!("{signed}.{first}{}", &signature[1..])
}

#[tokio::test]
async fn signed_userinfo_is_verified_and_read() {
    type Change = (fn(&mut Value), Option<ChangeText>);
    let app = TestApp::with(from_userinfo()).await;
    let client = app.client().await;
    let cases: [(&str, Change, bool); 16] = [
        ("as it should be", (|_| (), None), true),
        ("for several", (|claims| claims["aud"] = json!(["x", "portcullis"]), None), true),
        (
            "with times",
            (|claims| (claims["exp"], claims["iat"]) = (1_900_000_000.into(), 1.into()), None),
            true,
        ),
        ("as a text of JSON", (|_| (), Some(|jwt| format!("\"{jwt}\""))), true),
        ("with an end of line", (|_| (), Some(|jwt| format!("{jwt}\n"))), true),
        (
            "of another issuer",
            (|claims| claims["iss"] = "https://other.example".into(), None),
            false,
        ),
        ("of no issuer", (|claims| claims["iss"] = Value::Null, None), false),
        ("for another client", (|claims| claims["aud"] = "another".into(), None), false),
        ("for nobody", (|claims| claims["aud"] = Value::Null, None), false),
        ("about somebody else", (|claims| claims["sub"] = "demo-bob".into(), None), false),
        ("about nobody", (|claims| claims["sub"] = Value::Null, None), false),
        ("that has expired", (|claims| claims["exp"] = 1_000_000_000.into(), None), false),
        ("not valid yet", (|claims| claims["nbf"] = 1_900_000_000.into(), None), false),
        ("whose signature was changed", (|_| (), Some(changed)), false),
        ("whose signature was taken off", (|_| (), Some(unsigned)), false),
        ("that is encrypted", (|_| (), Some(|_| "e30.a.b.c.d".to_owned())), false),
    ];
    for (what, (claims, text), works) in cases {
        app.idp.misbehave(|how| {
            how.signed_userinfo = Some(claims);
            how.change_text = text.map(|change| ("/userinfo", change));
        });
        let answer = client.authorize("alice", &[]).await;
        assert_eq!(answer.status == 303, works, "userinfo {what}: {}", answer.status);
    }
    // Keys rotate for userinfo as they do for ID tokens.
    app.idp.misbehave(|how| {
        how.signed_userinfo = Some(|_| ());
        how.change_text = None;
    });
    let tokens = client.sign_in("alice").await;
    app.idp.misbehave(|how| how.keys = portcullis::demo::KeyUse::Next);
    let tokens = ask_again(&app, &client, &tokens).await;
    assert_fresh(&tokens);
    app.idp.misbehave(|how| {
        how.signed_userinfo = Some(|claims| claims["roles"] = json!(["User"]));
    });
    assert_eq!(ask_again(&app, &client, &tokens).await.scope, "create:todos");
    // One by an algorithm with a shared secret, or by none, is nobody's word.
    for alg in ["HS256", "none"] {
        let told = json!({ "iss": app.idp.issuer(), "aud": "portcullis", "sub": "demo-alice", "roles": ["Admin"] });
        let told = app.idp.sign("JWT", &told, Some(alg)).unwrap();
        app.idp.misbehave(|how| how.userinfo_answer = Some((200, told)));
        client.authorize("alice", &[]).await.assert_page(403);
    }
}
