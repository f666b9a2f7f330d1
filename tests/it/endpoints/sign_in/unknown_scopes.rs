//! Scopes that a client asks for and the MCP server does not have: dropped, and the page says so.

use crate::harness::client::Tokens;
use crate::harness::{Setup, TestApp, logs};

const NOTE: &str = "asked for something else, which this server does not have";

/// What alice gets, and whether the page says that there was more.
async fn asked(app: &TestApp, scope: &str) -> (String, bool) {
    let client = app.client().await;
    let set = [("scope", scope)];
    let (page, form) = client.ask(&set).await;
    let note = page.text().contains(NOTE);
    let to_provider = client.decide(&form, "approve").await;
    let callback = client.log_in(to_provider.location(), "alice").await;
    let back = client.browser.get(&callback).await;
    let tokens = Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await);
    (tokens.scope, note)
}

#[tokio::test]
async fn unknown_scopes_become_the_default_ones_and_the_page_says_so() {
    let setup = || Setup::toml("[resource]\ndefault_scopes = [\"create:todos\"]");
    let app = TestApp::with(setup()).await;
    let default = "create:todos";
    for (scope, granted, note) in [
        // Unknown ones alone.
        ("read write", default, true),
        ("mcp", default, true),
        ("read read  read", default, true),
        ("Create:Todos", default, true),
        ("create:todos:all", default, true),
        ("openid write", default, true),
        ("offline_access admin", default, true),
        // Beside known ones: never more than these.
        ("read:todos read write", "read:todos", true),
        ("write read:todos openid", "read:todos", true),
        ("read:todos create:todos read:todos", "create:todos read:todos", false),
        // What clients send by habit and no MCP server has.
        ("", default, false),
        ("offline_access", default, false),
        (" offline_access", default, false),
        ("openid profile email offline_access", default, false),
        ("openid address phone", default, false),
        ("read:todos openid profile", "read:todos", false),
    ] {
        assert_eq!(asked(&app, scope).await, (granted.to_owned(), note), "{scope}");
    }
    // What is well known elsewhere and declared here is an ordinary scope.
    let resource = "scopes = [\"email\", \"read\"]\ndefault_scopes = [\"read\"]\n";
    let resources = format!("[[resource]]\npath = \"/mcp\"\ntarget = \"{{todo}}\"\n{resource}\n");
    let app = TestApp::with(Setup::toml(resources)).await;
    assert_eq!(asked(&app, "email").await, ("email".to_owned(), false));
    assert_eq!(asked(&app, "profile").await, ("read".to_owned(), false));
}

#[tokio::test]
async fn the_note_is_in_both_languages_and_repeats_nothing_that_could_mislead() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let japanese = [("accept", "text/html"), ("accept-language", "ja")];
    let url = client.authorize_url(&[("scope", "read write")]);
    let page = client.browser.send("GET", &url, &japanese, "").await;
    assert!(page.text().contains("このサーバーにない権限を求めました"), "{}", page.text());
    let url = client.authorize_url(&[("scope", "read:todos write")]);
    let page = client.browser.send("GET", &url, &japanese, "").await;
    assert!(page.text().contains("このサーバーにない権限を求めました"), "{}", page.text());

    // The names are the client's own words: no person reads them, and the log has the first of them.
    let hostile = format!("<b>Approved_by_your_administrator</b> {}", "qz".repeat(150));
    let (page, _) = client.ask(&[("scope", &hostile)]).await;
    assert!(page.text().contains(NOTE) && !page.text().contains("Approved_by"), "{}", page.text());
    let logged = logs::all();
    assert!(logged.contains("Approved_by_your_administrator"), "the log names them");
    assert!(!logged.contains(&"qz".repeat(80)), "cut");
}

/// Where unknown scopes are refused, they are refused as before.
#[tokio::test]
async fn a_server_that_refuses_unknown_scopes_still_does() {
    let setup = Setup::toml("[resource]\non_excess = \"reject\"");
    let app = TestApp::with(setup).await;
    let client = app.client().await;
    for unknown in ["read write", "create:todos write", "openid write"] {
        let url = client.authorize_url(&[("scope", unknown)]);
        let back = client.browser.get(&url).await;
        assert_eq!(back.location_param("error").as_deref(), Some("invalid_scope"), "{unknown}");
        let described = back.location_param("error_description").unwrap();
        assert!(described.contains("write") || described.contains("read"), "{described}");
    }
    // Clients send the scopes of OpenID Connect by habit.
    for known in ["create:todos openid profile email", "openid", "offline_access address phone"] {
        client.ask(&[("scope", known)]).await;
    }
}

/// Somebody who has something already and comes back for more.
#[tokio::test]
async fn a_step_up_for_unknown_scopes_asks_for_what_is_known_and_says_so() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let back = client.authorize("alice", &[("scope", "create:todos")]).await;
    client.redeem(&back.location_param("code").unwrap()).await.assert_status(200);

    let (page, _) = client.ask(&[("scope", "create:todos read:todos write")]).await;
    let text = page.text();
    assert!(text.contains(NOTE) && text.contains(">New<"), "{text}");
    assert!(text.contains(">Approved before<"), "{text}");
    assert!(!text.contains("Delete everybody"), "never more than was asked: {text}");
    let (page, _) = client.ask(&[("scope", "create:todos write")]).await;
    assert!(page.text().contains(NOTE) && !page.text().contains(">New<"), "{}", page.text());
}
