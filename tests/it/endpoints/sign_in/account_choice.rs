//! Choosing the account: `prompt=login` and `prompt=select_account` go on to the provider where it knows
//! them, and the consent page offers the same.

use serde_json::json;

use crate::harness::client::{McpClient, Tokens, jwt_part};
use crate::harness::console::{Console, with_query};
use crate::harness::{Setup, TestApp};

const SITE: &str = "https://app.example/cb";
const OTHER: &str = "Continue with another account";

/// The `prompt` that the provider is asked with.
fn prompt(url: &str) -> Option<String> {
    let url = url::Url::parse(url).unwrap();
    let values: Vec<String> = url
        .query_pairs()
        .filter(|(name, _)| name == "prompt")
        .map(|(_, value)| value.into_owned())
        .collect();
    assert!(values.len() < 2, "{url}");
    values.into_iter().next()
}

async fn passed_on(app: &TestApp, asked: &str) -> Option<String> {
    let client = app.client().await;
    prompt(&client.approve(&[("prompt", asked)]).await)
}

/// A server whose provider lists these values; empty: it lists none.
async fn listing(values: &'static str, setup: Setup) -> TestApp {
    let app = TestApp::with(setup).await;
    app.idp.misbehave(|how| {
        how.change_discovery = Some(match values {
            "" => |document| {
                document.as_object_mut().unwrap().remove("prompt_values_supported");
            },
            "none" => |document| document["prompt_values_supported"] = json!(["none", "consent"]),
            "login" => |document| document["prompt_values_supported"] = json!(["none", "login"]),
            "select_account" => {
                |document| document["prompt_values_supported"] = json!(["select_account", "none"])
            }
            "both" => |document| {
                document["prompt_values_supported"] =
                    json!(["none", "login", "consent", "select_account"]);
            },
            other => panic!("{other}"),
        });
    });
    app
}

#[tokio::test]
async fn a_client_may_ask_for_another_account_and_for_nothing_else() {
    let app = listing("both", Setup::default()).await;
    for (asked, passed) in [
        ("login", Some("login")),
        ("select_account", Some("select_account")),
        // One value at a time: some providers take no more. A sign-in lets a person type another name, too.
        ("select_account login", Some("login")),
        ("login select_account login", Some("login")),
        ("login consent", Some("login")),
        ("consent select_account", Some("select_account")),
        (" select_account ", Some("select_account")),
        ("select_account create", Some("select_account")),
        // Never passed on, or not known to anybody.
        ("consent", None),
        ("create", None),
        ("LOGIN", None),
        ("select_account,login", None),
        ("login\u{a0}", None),
    ] {
        assert_eq!(passed_on(&app, asked).await.as_deref(), passed, "{asked:?}");
    }
    let client = app.client().await;
    for asked in ["none", "none login", "select_account none"] {
        let url = client.authorize_url(&[("prompt", asked)]);
        let back = client.browser.get(&url).await;
        let error = back.location_param("error");
        assert_eq!(error.as_deref(), Some("interaction_required"), "{asked:?}");
    }
}

#[tokio::test]
async fn what_the_provider_does_not_know_is_not_asked_of_it() {
    for (values, login, select_account) in [
        ("login", Some("login"), Some("login")),
        ("select_account", Some("select_account"), Some("select_account")),
        ("none", None, None),
        // A standard provider that says nothing knows `login` (OIDC Core 15.1).
        ("", Some("login"), Some("login")),
    ] {
        let app = listing(values, Setup::default()).await;
        assert_eq!(passed_on(&app, "login").await.as_deref(), login, "{values:?}");
        assert_eq!(
            passed_on(&app, "select_account").await.as_deref(),
            select_account,
            "{values:?}"
        );
        let (page, _) = app.client().await.ask(&[]).await;
        assert_eq!(page.text().contains(OTHER), login.is_some(), "{values:?}");
    }
}

#[tokio::test]
async fn what_the_administrator_has_configured_stays_beside_it() {
    for (configured, asked, passed) in [
        ("consent", "login", "consent login"),
        ("consent", "select_account", "consent select_account"),
        ("consent", "consent", "consent"),
        ("login", "login", "login"),
        ("login", "select_account", "login select_account"),
        ("none", "login", "login"),
    ] {
        let upstream = format!("authorize_params = {{ prompt = {configured:?} }}");
        let app = listing("both", Setup::toml(format!("[upstream]\n{upstream}"))).await;
        assert_eq!(passed_on(&app, asked).await.as_deref(), Some(passed), "{configured} {asked}");
    }
}

#[tokio::test]
async fn each_kind_of_provider_is_asked_in_its_own_words() {
    let tenant = "11111111-2222-3333-4444-555555555555";
    for (preset, login, select_account) in [
        (
            "provider = \"google\"\nhosted_domains = [\"acme.example\"]".to_owned(),
            "consent select_account",
            "consent select_account",
        ),
        (format!("provider = \"entra\"\ntenant = \"{tenant}\""), "login", "select_account"),
        ("provider = \"okta\"\ndomain = \"acme.okta.com\"".to_owned(), "login", "login"),
        (
            "provider = \"logto\"\ndomain = \"acme.logto.app\"".to_owned(),
            "consent login",
            "consent login",
        ),
        (
            "provider = \"github\"\norganizations = [\"acme\"]".to_owned(),
            "select_account",
            "select_account",
        ),
        (
            "provider = \"zitadel\"\ndomain = \"acme.zitadel.cloud\"".to_owned(),
            "login",
            "select_account",
        ),
    ] {
        let app =
            listing("", Setup { persona: true, ..Setup::toml(format!("[upstream]\n{preset}")) })
                .await;
        let asked = async |value: &str| {
            let client = app.client().await;
            let (_, form) = client.ask(&[("prompt", value)]).await;
            prompt(client.decide(&form, "approve").await.location())
        };
        assert_eq!(asked("login").await.as_deref(), Some(login), "{preset}");
        assert_eq!(asked("select_account").await.as_deref(), Some(select_account), "{preset}");
    }
}

/// Bob is signed in at the provider, in this browser.
async fn bob_is_signed_in(client: &McpClient) {
    let back = client.authorize("bob", &[]).await;
    back.assert_leads_to(&client.redirect_uri);
}

/// Signs in as alice, where the provider asks.
async fn as_alice(client: &McpClient, to_provider: &str) {
    client.browser.get(to_provider).await.assert_status(200); // it asks, in spite of the session
    let callback = client.log_in(to_provider, "alice").await;
    let back = client.browser.get(&callback).await;
    let tokens = Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await);
    assert_eq!(jwt_part(&tokens.access_token, 1)["sub"], "oidc:demo-alice");
}

#[tokio::test]
async fn a_live_session_at_the_provider_does_not_decide_who_it_is() {
    let app = listing("both", Setup::default()).await;
    for asked in ["login", "select_account"] {
        let client = app.client().await;
        bob_is_signed_in(&client).await;
        let to_provider = client.approve(&[("prompt", asked)]).await;
        as_alice(&client, &to_provider).await;
    }
    // And the person asks for it on the page, for a client that did not.
    let client = app.client().await;
    bob_is_signed_in(&client).await;
    let (page, form) = client.ask(&[]).await;
    assert!(page.text().contains(OTHER), "{}", page.text());
    let to_provider = client.decide(&form, "approve_other").await;
    assert_eq!(prompt(to_provider.location()).as_deref(), Some("select_account"));
    as_alice(&client, to_provider.location()).await;

    let japanese = [("accept", "text/html"), ("accept-language", "ja")];
    let page = client.browser.send("GET", &client.authorize_url(&[]), &japanese, "").await;
    assert!(page.text().contains("別のアカウントで続ける"), "{}", page.text());
    // Where the client has asked for it, there is nothing to choose.
    let (page, _) = client.ask(&[("prompt", "login")]).await;
    assert!(!page.text().contains(OTHER), "{}", page.text());
}

/// Pressed once, like every decision.
#[tokio::test]
async fn signing_in_as_somebody_else_is_an_approval_and_is_made_once() {
    let app = listing("both", Setup::default()).await;
    let client = app.client().await;
    let (_, form) = client.ask(&[]).await;
    client.decide(&form, "approve_other").await.assert_leads_to(app.idp.issuer());
    client.decide(&form, "approve_other").await.assert_page(403);
    client.decide(&form, "approve").await.assert_page(403);
    let approved = "SELECT COUNT(*) FROM audit_events WHERE event = 'consent_approved'";
    assert_eq!(app.database.number(approved).await, 1);
}

/// A remembered approval leads past our page, and the session at the provider past its own: together they would
/// lead past the choice that was asked for.
#[tokio::test]
async fn a_remembered_approval_does_not_lead_past_the_choice_of_an_account() {
    let app = listing("both", Setup::default()).await;
    let metadata = json!({
        "client_name": "Reports", "redirect_uris": [SITE], "token_endpoint_auth_method": "none",
    });
    let client = McpClient::register_as(&app, metadata).await;
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    let path = with_query("/client", &[("id", &client.id)]);
    admin.press(&path, "action", "trust").await.assert_leads_to(&admin.at("/client"));
    let scope = ("scope", "create:todos");
    client.authorize("bob", &[scope]).await.assert_leads_to(SITE);
    let direct = [("accept", "text/html"), ("sec-fetch-site", "none")];
    let open = async |set: &[(&str, &str)]| {
        client.browser.send("GET", &client.authorize_url(set), &direct, "").await
    };
    open(&[scope]).await.assert_leads_to(app.idp.issuer());
    for asked in ["login", "select_account", "select_account login", "consent"] {
        let page = open(&[scope, ("prompt", asked)]).await;
        page.assert_page(200);
        assert!(page.text().contains("value=\"approve\""), "{asked}");
    }
    let to_provider = client.approve(&[scope, ("prompt", "select_account")]).await;
    as_alice(&client, &to_provider).await;
}

/// The provider ends the sign-in, and it is begun again: with the same choice.
#[tokio::test]
async fn a_sign_in_that_is_begun_again_still_lets_the_person_choose() {
    let app = listing("both", Setup::default()).await;
    for (error, description, second) in [
        ("temporarily_unavailable", Some("authentication_expired"), "select_account"),
        ("consent_required", None, "consent select_account"),
        ("login_required", None, "login select_account"),
        ("account_selection_required", None, "select_account"),
    ] {
        let client = app.client().await;
        let to_provider = client.approve(&[("prompt", "select_account")]).await;
        app.idp.misbehave(|how| {
            how.authorize_error = Some(error.to_owned());
            how.authorize_error_description = description.map(str::to_owned);
        });
        let callback = client.browser.get(&to_provider).await.location().to_owned();
        let again = client.browser.get(&callback).await;
        app.idp.misbehave(|how| {
            (how.authorize_error, how.authorize_error_description) = (None, None);
        });
        assert_eq!(prompt(again.location()).as_deref(), Some(second), "{error}");
        as_alice(&client, again.location()).await;
    }
}
