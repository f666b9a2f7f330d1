//! `[[client]]`: clients that the administrator wrote down.

use portcullis::oauth::client::ClientMetadata;
use portcullis::storage::{ClientKind, KeptClient};
use serde_json::json;

use crate::harness::client::{McpClient, REDIRECT_URI, Tokens};
use crate::harness::publisher::Publisher;
use crate::harness::signer::Signer;
use crate::harness::{Setup, TestApp};

const CALLBACK: &str = "https://intranet.example/callback";
const SECRET: &str = "a-secret-of-the-administrators-choice-0123456789";

async fn with(clients: &str) -> TestApp {
    TestApp::with(Setup::toml(clients)).await
}

#[tokio::test]
async fn reg_36_a_client_of_the_configuration_proves_itself_as_it_says_there() {
    let signer = Signer::new("one");
    let app = with(&format!(
        r#"
[[client]]
client_id = "intranet"
name = "The intranet"
redirect_uris = ["{CALLBACK}"]
secret = "{SECRET}"
trusted = true

[[client]]
client_id = "cli"
name = "Our command line"
redirect_uris = ["http://127.0.0.1/callback"]
public = true

[[client]]
client_id = "batch"
name = "Nightly batch"
redirect_uris = ["{CALLBACK}"]
jwks = '{jwks}'
"#,
        jwks = signer.jwks(),
    ))
    .await;

    let mut intranet = McpClient::known_as(&app, "intranet", CALLBACK);
    intranet.secret = Some(SECRET.to_owned());
    let (page, _) = intranet.ask(&[]).await;
    assert!(page.text().contains("Verified by your administrator"));
    let tokens = intranet.sign_in("bob").await;
    intranet.refresh(&tokens.refresh_token).await.assert_status(200);
    let nameless = McpClient::known_as(&app, "intranet", CALLBACK);
    nameless.refresh("rt_x").await.assert_error(401, "invalid_client");

    let cli = McpClient::known_as(&app, "cli", REDIRECT_URI); // a port of its own on loopback
    let (page, _) = cli.ask(&[]).await;
    assert!(page.text().contains("not verified") && !page.text().contains("self-registered"));
    cli.sign_in("bob").await;

    let batch = McpClient::known_as(&app, "batch", CALLBACK);
    let code = batch.code("bob").await;
    batch.redeem(&code).await.assert_error(401, "invalid_client");
    Tokens::of(&signer.redeem(&app, &batch, &code).await);

    assert_eq!(
        app.database.number("SELECT COUNT(*) FROM clients WHERE kind = 'registered'").await,
        0
    );
}

#[tokio::test]
async fn reg_36_nobody_can_change_a_client_of_the_configuration() {
    let app = with(&format!(
        "[[client]]\nclient_id = \"intranet\"\nname = \"x\"\nredirect_uris = [\"{CALLBACK}\"]\nsecret = \"{SECRET}\""
    ))
    .await;
    let metadata = json!({ "client_id": "intranet", "redirect_uris": ["https://evil.example/cb"], "token_endpoint_auth_method": "client_secret_post" });
    let registered = app.http.post_json(&app.at("/register"), &metadata, &[]).await.json();
    assert_ne!(registered["client_id"], "intranet");
    let authorization =
        format!("Bearer {}", registered["registration_access_token"].as_str().unwrap());
    for method in ["GET", "PUT", "DELETE"] {
        let headers =
            [("authorization", authorization.as_str()), ("content-type", "application/json")];
        let url = app.at("/register/intranet");
        let answer = app.http.send(method, &url, &headers, metadata.to_string()).await;
        answer.assert_error(401, "invalid_token");
    }
}

#[tokio::test]
async fn cimd_27_an_entry_for_a_published_client_pins_it_and_nothing_is_fetched() {
    let id = "https://client.example/oauth/client.json";
    let publisher = Publisher::start(&["client.example"]).await;
    publisher.publish(id, &json!({
        "client_id": id, "client_name": "Published", "redirect_uris": ["https://client.example/wide", CALLBACK],
    }));
    let pin = format!(
        "[[client]]\nclient_id = \"{id}\"\nname = \"Pinned\"\nredirect_uris = [\"{CALLBACK}\"]\npublic = true"
    );
    let app = TestApp::with(publisher.setup(&pin)).await;
    let wide = McpClient::known_as(&app, id, "https://client.example/wide");
    wide.browser.get(&wide.authorize_url(&[])).await.assert_page(400);
    let pinned = McpClient::known_as(&app, id, CALLBACK);
    let (page, _) = pinned.ask(&[]).await;
    assert!(page.text().contains("Pinned") && !page.text().contains("Published"));
    assert_eq!(publisher.requests(), 0);
}

#[tokio::test]
async fn a_client_that_was_taken_out_of_the_configuration_is_gone_whatever_rows_are_left() {
    let app = TestApp::start().await;
    let metadata = json!({
        "redirect_uris": [CALLBACK], "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code"], "response_types": ["code"],
    });
    let (id, now) = ("intranet", app.now());
    let metadata = ClientMetadata::from_stored_json(&metadata.to_string()).unwrap();
    for kind in [ClientKind::Configured, ClientKind::Document] {
        let kept = KeptClient { id, kind, metadata: &metadata, seen_at: now };
        let event = app.audit_event("client_decision_lapsed");
        app.storage().keep_client(&kept, now, event).await.unwrap();
        let client = McpClient::known_as(&app, id, CALLBACK);
        client.browser.get(&client.authorize_url(&[])).await.assert_page(400);
        client.refresh("rt_x").await.assert_error(401, "invalid_client");
    }
}

#[tokio::test]
async fn a_client_of_the_configuration_waits_for_no_approval() {
    let client = format!(
        "[[client]]\nclient_id = \"intranet\"\nname = \"x\"\nredirect_uris = [\"{CALLBACK}\"]\npublic = true"
    );
    let app = TestApp::with(Setup::toml("client_approval = \"first_use\"").and(client)).await;
    let client = McpClient::known_as(&app, "intranet", CALLBACK);
    client.sign_in("bob").await;
    let row = app.storage().client_details("intranet").await.unwrap().unwrap();
    assert_eq!(row.kind, "configured");
}
