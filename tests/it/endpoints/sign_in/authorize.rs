//! `GET /authorize`: RFC 6749 §4.1.1, and what must never be redirected.

use serde_json::json;

use crate::harness::client::{McpClient, REDIRECT_URI};
use crate::harness::{Setup, TestApp};

#[tokio::test]
async fn az_04_an_unknown_client_gets_a_page_and_never_a_redirect() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for set in [[("client_id", "client_0123")], [("client_id", "")]] {
        let page = client.browser.get(&client.authorize_url(&set)).await;
        page.assert_page(400);
        assert!(!page.text().contains("client_0123"), "nothing of the request is reflected");
    }
}

#[tokio::test]
async fn ru_01_an_unproven_redirect_uri_gets_a_page_and_never_a_redirect() {
    let app = TestApp::start().await;
    let client = McpClient::register_as(
        &app,
        json!({
            "redirect_uris": ["https://good.example/cb", "http://127.0.0.1:1/cb"],
            "token_endpoint_auth_method": "none",
        }),
    )
    .await;
    for uri in [
        "https://evil.example/cb",
        "https://good.example/cb/",
        "https://good.example/cb?x=1",
        "https://good.example/cb#",
        "https://good.example:443/cb",
        "https://GOOD.example/cb",
        "https://good.example/%63b",
        "http://good.example/cb",
        "https://good.example/cb https://evil.example",
        "http://127.0.0.1:1/cb/../evil",
        "http://127.0.0.1.evil.example/cb",
        "http://localhost:1/cb",
        "//evil.example",
        "",
    ] {
        let page = client.browser.get(&client.authorize_url(&[("redirect_uri", uri)])).await;
        page.assert_page(400);
        assert!(!page.text().contains("evil"), "{uri}");
    }
    // The port alone is free, and only on loopback http (RFC 8252 §7.3).
    client.ask(&[("redirect_uri", "http://127.0.0.1:59999/cb")]).await;
}

#[tokio::test]
async fn pp_01_a_doubled_client_or_redirect_uri_gets_a_page() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for extra in ["&client_id=x", "&redirect_uri=https%3A%2F%2Fevil.example%2F", "&x=%ff"] {
        let url = format!("{}{extra}", client.authorize_url(&[]));
        client.browser.get(&url).await.assert_page(400);
    }
}

#[tokio::test]
async fn az_12_other_mistakes_are_told_to_a_client_on_this_device_once_each_with_iss() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let long_state = "s".repeat(5000);
    for (set, code) in [
        (vec![("response_type", "token")], "unsupported_response_type"),
        (vec![("response_type", "")], "invalid_request"),
        (vec![("response_mode", "fragment")], "invalid_request"),
        (vec![("code_challenge", "")], "invalid_request"),
        (vec![("code_challenge", "short")], "invalid_request"),
        (vec![("code_challenge_method", "plain")], "invalid_request"),
        (vec![("code_challenge_method", "")], "invalid_request"),
        (vec![("resource", "https://other.example/mcp")], "invalid_target"),
        (vec![("scope", "a\"b")], "invalid_scope"),
        (vec![("request", "x.y.z")], "request_not_supported"),
        (vec![("request_uri", "https://x.example/")], "request_uri_not_supported"),
        (vec![("prompt", "none")], "interaction_required"),
        (vec![("state", &long_state)], "invalid_request"),
    ] {
        let answer = client.browser.get(&client.authorize_url(&set)).await;
        answer.assert_leads_to(REDIRECT_URI);
        assert_eq!(answer.location_param("error").as_deref(), Some(code), "{set:?}");
        assert_eq!(answer.location_param("iss").as_deref(), Some(app.url.as_str()));
        assert_eq!(answer.location_param("code"), None);
        let state = answer.location_param("state");
        let expected = if set[0].0 == "state" { None } else { Some("client-state") };
        assert_eq!(state.as_deref(), expected, "{set:?}");
    }
    for twice in ["&scope=x", "&state=x", "&code_challenge=x", "&response_type=code"] {
        let url = format!("{}{twice}", client.authorize_url(&[]));
        let answer = client.browser.get(&url).await;
        answer.assert_leads_to(REDIRECT_URI);
        assert_eq!(answer.location_param("error").as_deref(), Some("invalid_request"), "{twice}");
    }
}

#[tokio::test]
async fn az_28_a_self_registered_website_is_not_redirected_to_by_a_mistake_alone() {
    let app = TestApp::start().await;
    let metadata = json!({
        "redirect_uris": ["https://unknown.example/cb"], "token_endpoint_auth_method": "none",
    });
    let client = McpClient::register_as(&app, metadata).await;
    let page = client.browser.get(&client.authorize_url(&[("response_type", "token")])).await;
    page.assert_page(400);
    assert!(page.text().contains("unknown.example"), "the person may follow a link");
    assert!(!page.text().contains("http-equiv=\"refresh\""), "and is not taken there");
}

#[tokio::test]
async fn az_28_a_website_that_the_operator_listed_is_told_directly() {
    let setup = Setup::toml("allowed_redirect_uris = [\"https://known.example/cb\"]");
    let app = TestApp::with(setup).await;
    let metadata = json!({
        "redirect_uris": ["https://known.example/cb"], "token_endpoint_auth_method": "none",
    });
    let client = McpClient::register_as(&app, metadata).await;
    let answer = client.browser.get(&client.authorize_url(&[("response_type", "token")])).await;
    answer.assert_leads_to("https://known.example/cb?error=unsupported_response_type");
}

#[tokio::test]
async fn ds_01_asking_a_thousand_times_writes_nothing() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for _ in 0..100 {
        client.elsewhere().ask(&[]).await; // a browser each
    }
    for table in ["SELECT COUNT(*) FROM logins", "SELECT COUNT(*) FROM consents"] {
        assert_eq!(app.database.number(table).await, 0);
    }
}

#[tokio::test]
async fn the_same_request_can_be_opened_twice_and_either_page_works() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (_, first) = client.ask(&[]).await;
    let (_, second) = client.ask(&[]).await;
    client.decide(&second, "approve").await.assert_leads_to(app.idp.issuer());
    client.decide(&first, "approve").await.assert_leads_to(app.idp.issuer());
}

#[tokio::test]
async fn scopes_never_block_a_connection() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let all = "create:todos delete:todos read:todos";
    for (asked, shown) in [
        ("", all),
        ("unknown other", all),
        ("read:todos unknown offline_access openid", "read:todos"),
        ("offline_access", all),
    ] {
        let (page, _) = client.ask(&[("scope", asked)]).await;
        for scope in all.split(' ') {
            let is_shown = page.text().contains(&format!("<code>{scope}</code>"));
            assert_eq!(is_shown, shown.contains(scope), "{scope} when {asked:?} is asked");
        }
        assert!(!page.text().contains("unknown"));
    }
}

#[tokio::test]
async fn az_18_the_resource_may_be_left_out_or_spelled_as_clients_spell_it() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for resource in [String::new(), app.mcp_url(), app.mcp_url().replace("http:", "HTTP:")] {
        client.ask(&[("resource", &resource)]).await;
    }
    let setup = Setup::toml(
        "[[resource]]\npath = \"/a\"\nscopes = []\n[[resource]]\npath = \"/b\"\nscopes = []",
    );
    let several = TestApp::with(setup).await;
    let client = several.client().await;
    let answer = client.browser.get(&client.authorize_url(&[("resource", "")])).await;
    assert_eq!(answer.location_param("error").as_deref(), Some("invalid_target"));
}

#[tokio::test]
async fn only_get_is_served() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let url = client.authorize_url(&[]);
    client.browser.post(&url, &[], &app.url).await.assert_page(405);
}

/// The request to the identity provider is made from the configuration: whatever a client adds, it stays the same
/// but for the values that are fresh each time.
#[tokio::test]
async fn cd_03_no_parameter_of_a_client_reaches_the_identity_provider() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let fixed = |idp_url: &str| -> Vec<(String, String)> {
        let url = url::Url::parse(idp_url).unwrap();
        let pairs = url.query_pairs().into_owned();
        pairs
            .map(|(name, value)| {
                let is_fresh = ["state", "nonce", "code_challenge"].contains(&name.as_str());
                (name, if is_fresh { String::new() } else { value })
            })
            .collect()
    };
    let plain = fixed(&client.approve(&[]).await);
    for set in [
        ("login_hint", "mallory"),
        ("acr_values", "weakest"),
        ("claims", r#"{"id_token":{"sub":{"value":"demo-alice"}}}"#),
        ("id_token_hint", "a.b.c"),
        ("max_age", "1000000"),
        ("prompt", "consent"),
        ("nonce", "chosen-by-the-client"),
        ("response_mode", "query"),
        ("display", "popup"),
        ("ui_locales", "xx"),
        ("audience", "https://api.example"),
        ("code_verifier", "chosen-by-the-client"),
    ] {
        assert_eq!(fixed(&client.approve(&[set]).await), plain, "{set:?}");
    }
}
