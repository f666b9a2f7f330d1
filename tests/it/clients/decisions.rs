//! What an administrator decided about a client counts for what the client was then. A published client
//! that changes its document, and a client of the configuration that is written differently, is decided
//! about again.

use std::process::Output;

use portcullis::storage::AuditFilter;
use serde_json::{Value, json};

use crate::harness::client::McpClient;
use crate::harness::console::{Console, forms, with_query};
use crate::harness::http::Answer;
use crate::harness::process::portcullis;
use crate::harness::publisher::{Page, Publisher};
use crate::harness::signer::Signer;
use crate::harness::{Setup, TestApp};

const ID: &str = "https://client.example/oauth/client.json";
const CALLBACK: &str = "https://client.example/callback";
const FIRST_USE: &str = "client_approval = \"first_use\"";
const VERIFIED: &str = "Verified by your administrator";
const LAPSED: &str = "SELECT COUNT(*) FROM audit_events WHERE event = 'client_decision_lapsed'";
const TRUSTED: &str = "SELECT COUNT(*) FROM client_reviews WHERE trusted = 1";
const APPROVED: &str = "SELECT COUNT(*) FROM client_reviews WHERE state = 'approved'";

fn document() -> Value {
    json!({
        "client_id": ID, "client_name": "Reports", "redirect_uris": [CALLBACK],
        "client_uri": "https://client.example",
    })
}

fn with(changes: &Value) -> Value {
    let mut document = document();
    for (name, value) in changes.as_object().unwrap() {
        document[name] = value.clone();
    }
    document
}

/// Administrators have ten minutes from their sign-in to what they press.
fn short_lived(document: &Value) -> Page {
    Page::json(document).with("cache-control", "max-age=60")
}

struct Cast {
    app: TestApp,
    publisher: Publisher,
    client: McpClient,
    admin: Console,
}

impl Cast {
    /// A published client that waits for an administrator, and the administrator.
    async fn of(document: &Value) -> Self {
        let publisher = Publisher::start(&["client.example", "keys.example"]).await;
        publisher.answer(ID, short_lived(document));
        let setup = publisher.setup("").and(FIRST_USE);
        let app = TestApp::with(setup).await;
        let client = McpClient::known_as(&app, ID, CALLBACK);
        let admin = Console::admin(&app).signed_in(&app, "alice").await;
        Self { app, publisher, client, admin }
    }

    /// The same, after the administrator has approved and trusted it and bob has connected it in a
    /// browser that remembers his approval.
    async fn decided(document: &Value) -> Self {
        let cast = Box::pin(Self::of(document)).await;
        cast.waits().await;
        cast.decide("approve").await;
        cast.decide("trust").await;
        cast.sign_in().await.assert_leads_to(CALLBACK);
        cast
    }

    async fn decide(&self, action: &str) {
        let path = with_query("/client", &[("id", &self.client.id)]);
        let mut answer = self.admin.press(&path, "action", action).await;
        if matches!(action, "refuse" | "block" | "end") {
            answer = self.admin.confirm(&answer, "action", action).await;
        }
        answer.assert_leads_to(&self.admin.at("/client"));
        assert!(answer.location().ends_with(&format!("done={action}")), "{}", answer.location());
    }

    async fn sign_in(&self) -> Answer {
        self.client.authorize("bob", &[("scope", "create:todos")]).await
    }

    async fn waits(&self) {
        self.sign_in().await.assert_leads_to(&self.app.at("/waiting?id="));
    }

    /// Publishes another document, and lets the copy we have become old.
    fn changes_to(&self, document: &Value) {
        self.publisher.answer(ID, short_lived(document));
        self.app.advance(61);
    }

    /// Opens the address as somebody who typed it.
    async fn open(&self) -> Answer {
        let headers = [("accept", "text/html"), ("sec-fetch-site", "none")];
        let url = self.client.authorize_url(&[("scope", "create:todos")]);
        self.client.browser.send("GET", &url, &headers, "").await
    }

    async fn is_led_on(&self) {
        self.open().await.assert_leads_to(self.app.idp.issuer());
    }

    #[track_caller]
    fn assert_asks(page: &Answer, verified: bool, what: &str) {
        assert_eq!(page.status, 200, "{what}: {}", page.text());
        assert!(page.header("location").is_none(), "{what}");
        assert_eq!(page.text().contains(VERIFIED), verified, "{what}");
    }

    async fn events(&self, event: &str) -> Vec<Value> {
        let filter = AuditFilter { event: event.to_owned(), ..AuditFilter::default() };
        let lines = self.app.storage().audit_lines(&filter, 100).await.unwrap();
        lines.iter().map(|line| serde_json::from_str(&line.detail).unwrap()).collect()
    }

    async fn admin_page(&self) -> String {
        self.admin.page(&with_query("/client", &[("id", &self.client.id)])).await
    }
}

#[tokio::test]
async fn a_published_client_that_changes_its_document_is_approved_and_trusted_no_more() {
    let signer = Signer::new("theirs");
    for (what, change) in [
        ("its name", json!({ "client_name": "Claude" })),
        ("a further address", json!({ "redirect_uris": [CALLBACK, "https://evil.example/cb"] })),
        (
            "an address of another kind",
            json!({ "redirect_uris": [CALLBACK, "http://127.0.0.1/callback"] }),
        ),
        ("its home page", json!({ "client_uri": "https://evil.example" })),
        (
            "keys in the document",
            json!({ "token_endpoint_auth_method": "private_key_jwt", "jwks": signer.jwks() }),
        ),
        (
            "keys elsewhere",
            json!({
                "token_endpoint_auth_method": "private_key_jwt",
                "jwks_uri": "https://keys.example/jwks",
            }),
        ),
    ] {
        let cast = Cast::decided(&document()).await;
        cast.is_led_on().await;
        Cast::assert_asks(&cast.client.ask(&[]).await.0, true, what);

        cast.changes_to(&with(&change));

        Cast::assert_asks(&cast.open().await, false, what);
        assert_eq!(cast.app.database.number(LAPSED).await, 0, "a look changes nothing: {what}");
        cast.waits().await;
        assert_eq!(cast.app.database.number(LAPSED).await, 1, "{what}");
        let told = &cast.events("client_decision_lapsed").await[0];
        assert_eq!(told["lost"], json!(["approval", "trust"]), "{what}");
        for decided in [APPROVED, TRUSTED, "SELECT COUNT(*) FROM remembered_consents"] {
            assert_eq!(cast.app.database.number(decided).await, 0, "{what}: {decided}");
        }
        let page = cast.admin_page().await;
        assert!(page.contains("has changed since it was approved or trusted"), "{what}: {page}");

        // The next person waits as well, and what is approved now is the new document.
        cast.client
            .elsewhere()
            .authorize("alice", &[])
            .await
            .assert_leads_to(&cast.app.at("/waiting"));
        cast.decide("approve").await;
        cast.sign_in().await.assert_leads_to(CALLBACK);
        Cast::assert_asks(&cast.open().await, false, what);
        assert_eq!(cast.app.database.number(LAPSED).await, 1, "{what}");
    }
}

/// Keys that a document names by their address are changed by changing the address.
#[tokio::test]
async fn a_published_client_whose_keys_move_or_that_stops_signing_is_approved_no_more() {
    let (one, two) = (Signer::new("one"), Signer::new("two"));
    let inline = |signer: &Signer| {
        with(&json!({ "token_endpoint_auth_method": "private_key_jwt", "jwks": signer.jwks() }))
    };
    let elsewhere = |url: &str| {
        with(&json!({ "token_endpoint_auth_method": "private_key_jwt", "jwks_uri": url }))
    };
    let keys = "https://keys.example/jwks";
    for (what, before, after) in [
        ("other keys", inline(&one), inline(&two)),
        ("another address of keys", elsewhere(keys), elsewhere("https://keys.example/other")),
        ("it signs no more", inline(&one), document()),
    ] {
        let cast = Cast::decided(&before).await;
        cast.changes_to(&after);
        Cast::assert_asks(&cast.open().await, false, what);
        cast.waits().await;
        assert_eq!(cast.app.database.number(LAPSED).await, 1, "{what}");
    }
}

#[tokio::test]
async fn a_document_that_says_the_same_keeps_what_was_decided_about_it() {
    let signer = Signer::new("theirs");
    let two = ["https://client.example/other", CALLBACK];
    let signing = json!({
        "redirect_uris": two, "token_endpoint_auth_method": "private_key_jwt", "jwks": signer.jwks(),
    });
    let before = with(&signing);
    let pretty = serde_json::to_string_pretty(&before).unwrap();
    let mut key = signer.jwks()["keys"][0].clone();
    let members = key.as_object_mut().unwrap();
    let reversed: Vec<String> =
        members.iter().rev().map(|(name, value)| format!("\"{name}\":{value}")).collect();
    let mut scattered = before.clone();
    scattered.as_object_mut().unwrap().remove("jwks");
    let scattered = scattered.to_string();
    let scattered = format!(
        "{{\"jwks\":{{\"keys\":[{{{}}}]}},{}",
        reversed.join(","),
        scattered.trim_start_matches('{')
    );
    for (what, body, remembered) in [
        ("white space", pretty, true),
        ("the order of members", scattered, true),
        ("the order of addresses", with_uris(&before, &[CALLBACK, two[0]]).to_string(), false),
        ("an address twice", with_uris(&before, &[two[0], CALLBACK, two[0]]).to_string(), false),
        ("a version", merged(&before, &json!({ "software_version": "2" })).to_string(), false),
        ("scopes", merged(&before, &json!({ "scope": "read:todos" })).to_string(), false),
        (
            "a picture",
            merged(&before, &json!({ "logo_uri": "https://x.example/a" })).to_string(),
            false,
        ),
        ("what nobody reads", merged(&before, &json!({ "x_y": [1] })).to_string(), true),
    ] {
        let cast = Cast::decided(&before).await;
        let headers = vec![("content-type", "application/json".to_owned())];
        cast.publisher.answer(ID, Page { status: 200, headers, body });
        cast.app.advance(61);
        if remembered {
            cast.is_led_on().await;
        }
        Cast::assert_asks(&cast.client.ask(&[]).await.0, true, what);
        cast.sign_in().await.assert_leads_to(CALLBACK);
        assert_eq!(cast.app.database.number(LAPSED).await, 0, "{what}");
        assert_eq!(cast.app.database.number(TRUSTED).await, 1, "{what}");
    }
}

fn with_uris(document: &Value, uris: &[&str]) -> Value {
    merged(document, &json!({ "redirect_uris": uris }))
}

fn merged(document: &Value, change: &Value) -> Value {
    let mut document = document.clone();
    for (name, value) in change.as_object().unwrap() {
        document[name] = value.clone();
    }
    document
}

#[tokio::test]
async fn keys_that_change_at_their_own_address_change_no_decision() {
    let keys = "https://keys.example/jwks";
    let (one, two) = (Signer::new("one"), Signer::new("two"));
    let cast = Cast::of(&with(
        &json!({ "token_endpoint_auth_method": "private_key_jwt", "jwks_uri": keys }),
    ))
    .await;
    cast.publisher.publish(keys, &one.jwks());
    cast.waits().await;
    cast.decide("approve").await;
    let back = cast.sign_in().await;
    let code = back.location_param("code").unwrap();
    one.redeem(&cast.app, &cast.client, &code).await.assert_status(200);

    cast.publisher.publish(keys, &two.jwks());
    cast.app.advance(601);

    let back = cast.sign_in().await;
    back.assert_leads_to(CALLBACK);
    let code = back.location_param("code").unwrap();
    two.redeem(&cast.app, &cast.client, &code).await.assert_status(200);
    assert_eq!(cast.app.database.number(LAPSED).await, 0);
}

#[tokio::test]
async fn a_document_that_changes_back_before_anybody_signs_in_is_what_was_decided_about() {
    let cast = Cast::decided(&document()).await;
    cast.changes_to(&with(&json!({ "client_name": "Claude" })));
    Cast::assert_asks(&cast.open().await, false, "changed");
    cast.changes_to(&document());
    cast.is_led_on().await;
    // Once somebody has signed in for the changed one, the decision is gone for good.
    cast.changes_to(&with(&json!({ "client_name": "Claude" })));
    cast.waits().await;
    cast.changes_to(&document());
    Cast::assert_asks(&cast.open().await, false, "changed back");
    cast.waits().await;
}

#[tokio::test]
async fn a_sign_in_on_a_remembered_approval_is_asked_when_the_client_changes_on_the_way() {
    let cast = Cast::decided(&document()).await;
    let led_on = cast.open().await;
    led_on.assert_leads_to(cast.app.idp.issuer());

    cast.changes_to(&with(&json!({ "client_name": "Claude" })));

    let callback = cast.client.log_in(led_on.location(), "bob").await;
    let page = cast.client.browser.get(&callback).await;
    Cast::assert_asks(&page, false, "on the way");
    assert!(page.text().contains("Claude"));
}

#[tokio::test]
async fn a_sign_in_that_waits_does_not_go_on_for_a_client_that_changed_meanwhile() {
    let cast = Cast::of(&document()).await;
    let waiting = cast.sign_in().await;
    cast.changes_to(&with(&json!({ "client_name": "Claude" })));
    let other = cast.client.elsewhere();
    let others = other.authorize("alice", &[]).await;
    others.assert_leads_to(&cast.app.at("/waiting"));
    cast.decide("approve").await;

    // Bob approved something else; alice has seen what the administrator has seen.
    cast.client.browser.get(waiting.location()).await.assert_page(410);
    other.browser.get(others.location()).await.assert_leads_to(CALLBACK);
}

#[tokio::test]
async fn a_button_that_was_pressed_about_an_older_document_decides_nothing() {
    for action in ["approve", "trust"] {
        let cast = Cast::of(&document()).await;
        cast.waits().await;
        let path = with_query("/client", &[("id", ID)]);
        let page = cast.admin.page(&path).await;
        let value = format!("value=\"{action}\"");
        let form = forms(&page, &cast.admin.at(&path));
        let form = form.into_iter().find(|(_, html)| html.contains(&value)).unwrap().0;
        cast.changes_to(&with(&json!({ "client_name": "Claude" })));
        cast.waits().await;

        let fields = form.with(&[("action", action)]);
        let answer = cast.admin.browser.post(&form.action, &fields, &cast.admin.origin).await;

        assert!(answer.location().ends_with("done=changed"), "{}", answer.location());
        assert_eq!(cast.app.database.number(APPROVED).await, 0);
        assert_eq!(cast.app.database.number(TRUSTED).await, 0);
        cast.decide(action).await;
    }
}

/// A decision without a digest, as somebody with access to the database could write one.
#[tokio::test]
async fn a_decision_that_does_not_say_what_it_was_about_counts_for_no_published_client() {
    let cast = Cast::decided(&document()).await;
    let forget = "UPDATE client_reviews SET approved_as = NULL, trusted_as = NULL";
    cast.app.database.execute(forget).await;
    Cast::assert_asks(&cast.open().await, false, "not said");
    cast.waits().await;
}

#[tokio::test]
async fn a_refusal_and_a_block_stay_whatever_the_document_says_now() {
    for action in ["refuse", "block"] {
        let cast = Cast::of(&document()).await;
        cast.waits().await;
        cast.decide(action).await;
        cast.changes_to(&with(&json!({ "client_name": "Claude" })));
        cast.client.browser.get(&cast.client.authorize_url(&[])).await.assert_page(403);
    }
}

#[tokio::test]
async fn a_client_of_the_configuration_that_is_written_differently_is_trusted_no_more_by_a_button()
{
    let entry = |name: &str, trusted: bool| {
        format!(
            "[[client]]\nclient_id = \"intranet\"\nname = \"{name}\"\nredirect_uris = [\"{CALLBACK}\"]\n\
             public = true\ntrusted = {trusted}\n"
        )
    };
    let setup = Setup::toml(entry("Reports", false));
    let mut app = TestApp::with(setup).await;
    let client = McpClient::known_as(&app, "intranet", CALLBACK);
    client.sign_in("bob").await;
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    let path = with_query("/client", &[("id", "intranet")]);
    admin.press(&path, "action", "trust").await.assert_status(303);
    assert!(client.ask(&[]).await.0.text().contains(VERIFIED));

    app.change_config("name = \"Reports\"", "name = \"Payroll\"");
    app.reload().await;

    assert!(!client.ask(&[]).await.0.text().contains(VERIFIED), "the button was about Reports");
    client.sign_in("bob").await;
    assert_eq!(app.database.number(LAPSED).await, 1);
    assert_eq!(app.database.number(TRUSTED).await, 0);

    // Where the configuration itself vouches for it, it vouches for what stands there.
    app.change_config("trusted = false", "trusted = true");
    app.reload().await;
    assert!(client.ask(&[]).await.0.text().contains(VERIFIED));
    app.change_config("name = \"Payroll\"", "name = \"Reports\"");
    app.reload().await;
    assert!(client.ask(&[]).await.0.text().contains(VERIFIED));
    client.sign_in("bob").await;
    assert_eq!(app.database.number(TRUSTED).await, 1);
    assert_eq!(app.database.number(LAPSED).await, 1);
}

#[tokio::test]
async fn a_published_client_that_was_pinned_before_inherits_no_trust() {
    let publisher = Publisher::start(&["client.example"]).await;
    publisher.publish(ID, &with(&json!({ "client_name": "Claude" })));
    let pin = format!(
        "[[client]]\nclient_id = \"{ID}\"\nname = \"Reports\"\nredirect_uris = [\"{CALLBACK}\"]\npublic = true\n"
    );
    let mut app = TestApp::with(publisher.setup(&pin)).await;
    let client = McpClient::known_as(&app, ID, CALLBACK);
    client.sign_in("bob").await;
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    let path = with_query("/client", &[("id", ID)]);
    admin.press(&path, "action", "trust").await.assert_status(303);
    assert!(client.ask(&[]).await.0.text().contains(VERIFIED));

    app.change_config(&pin, "");
    app.reload().await;

    let (page, _) = client.ask(&[]).await;
    assert!(page.text().contains("Claude") && !page.text().contains(VERIFIED));
}

#[tokio::test]
async fn a_registered_client_that_changes_itself_loses_its_decisions_in_the_audit_trail_too() {
    let app = TestApp::start().await;
    let metadata = json!({
        "client_name": "Reports", "redirect_uris": [CALLBACK],
        "token_endpoint_auth_method": "client_secret_post",
    });
    let answer = app.http.post_json(&app.at("/register"), &metadata, &[]).await;
    let registered = answer.assert_status(201).json();
    let text = |name: &str| registered[name].as_str().unwrap().to_owned();
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    let path = with_query("/client", &[("id", &text("client_id"))]);
    admin.press(&path, "action", "trust").await.assert_status(303);

    let authorization = format!("Bearer {}", text("registration_access_token"));
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let mut moved = metadata.clone();
    moved["client_id"] = text("client_id").into();
    moved["client_name"] = "Claude".into();
    let uri = text("registration_client_uri");
    app.http.send("PUT", &uri, &headers, moved.to_string()).await.assert_status(200);

    assert_eq!(app.database.number(LAPSED).await, 1);
    assert_eq!(app.database.number(TRUSTED).await, 0);
}

/// Ids that look like those of a client that was decided about are other clients, or none.
#[tokio::test]
async fn an_id_that_is_spelled_differently_is_another_client_or_none() {
    let cast = Cast::decided(&document()).await;
    for id in [
        "https://client.example/oauth/client.json/",
        "https://client.example/oauth/client.jso%6E",
        "https://client.example/oauth/client.jso%6e",
        "https://client.example/oauth/Client.json",
        "https://client.example/%6Fauth/client.json",
        "https://client.example:443/oauth/client.json",
        "https://CLIENT.example/oauth/client.json",
        "https://client.example./oauth/client.json",
        "https://client.example/oauth/./client.json",
        "https://client.example/oauth//client.json",
        "https://client.example/oauth/client.json?",
        "https://client.example/oauth/client.json#",
        "HTTPS://client.example/oauth/client.json",
        "https://client.example/oauth/client.json ",
    ] {
        // A server that answers every spelling with its only document says whose document it is.
        cast.publisher.publish(id, &document());
        let other = McpClient::known_as(&cast.app, id, CALLBACK);
        other.browser.get(&other.authorize_url(&[])).await.assert_page(400);
    }
    // Bytes that need no encoding have one spelling only: two would be two clients.
    for id in [
        "https://client.example/oauth/client.jso%6E",
        "https://client.example/oauth/%c3%a9",
        "https://client.example/oauth/a%2Db",
    ] {
        cast.publisher.publish(id, &with(&json!({ "client_id": id })));
        let other = McpClient::known_as(&cast.app, id, CALLBACK);
        other.browser.get(&other.authorize_url(&[])).await.assert_page(400);
    }
}

struct Ran(Output);

impl Ran {
    fn out(&self) -> String {
        String::from_utf8_lossy(&self.0.stdout).into_owned()
    }

    fn err(&self) -> String {
        String::from_utf8_lossy(&self.0.stderr).into_owned()
    }

    #[track_caller]
    fn ok(&self) -> String {
        assert!(self.0.status.success(), "{} {}", self.out(), self.err());
        self.out()
    }

    #[track_caller]
    fn refused(&self) -> String {
        assert_eq!(self.0.status.code(), Some(1), "{} {}", self.out(), self.err());
        self.err()
    }
}

#[tokio::test]
async fn the_shell_says_what_it_decides_about_and_decides_about_nothing_else() {
    let publisher = Publisher::start(&["client.example"]).await;
    publisher.publish(ID, &document());
    let setup = publisher.setup("").and(FIRST_USE);
    let mut app = TestApp::with_on_the_real_clock(setup).await;
    let config = app.database.folder.join("portcullis.toml");
    std::fs::write(config, app.config_text()).unwrap();
    let folder = app.database.folder.clone();
    let run = async |arguments: &[&str]| {
        let mut command = portcullis(&folder);
        command.args(arguments);
        Ran(tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap())
    };
    let client = McpClient::known_as(&app, ID, CALLBACK);
    client.authorize("bob", &[]).await.assert_leads_to(&app.at("/waiting"));
    let digest_of = |shown: &Value| shown["digest"].as_str().unwrap().to_owned();
    let shown: Value =
        serde_json::from_str(&run(&["clients", "show", ID, "--json"]).await.ok()).unwrap();
    let before = digest_of(&shown);
    assert!(run(&["clients", "show", ID]).await.ok().contains(&before));

    // What the shell read is not what is there any more.
    publisher.publish(ID, &with(&json!({ "client_name": "Claude" })));
    app.restart().await; // what is in memory is gone
    client.authorize("bob", &[]).await.assert_leads_to(&app.at("/waiting"));
    for verdict in ["approve", "trust"] {
        let refused = run(&["clients", verdict, ID, "--digest", &before]).await.refused();
        assert!(refused.contains("has changed") && refused.contains("clients show"), "{refused}");
    }
    assert_eq!(app.database.number(APPROVED).await, 0);
    assert_eq!(app.database.number(TRUSTED).await, 0);

    let said = run(&["clients", "approve", ID]).await.ok();
    for what in ["Claude", CALLBACK, "none", "digest"] {
        assert!(said.contains(what), "{what}: {said}");
    }
    let shown: Value =
        serde_json::from_str(&run(&["clients", "show", ID, "--json"]).await.ok()).unwrap();
    let now = digest_of(&shown);
    assert!(now != before && said.contains(&now), "{said}");
    let trusted = run(&["clients", "trust", ID, "--digest", &now, "--json"]).await.ok();
    let trusted: Value = serde_json::from_str(&trusted).unwrap();
    assert_eq!((&trusted["changed"], &trusted["digest"]), (&json!(true), &json!(now)));
    client.authorize("bob", &[]).await.assert_leads_to(CALLBACK);

    publisher.publish(ID, &document());
    app.restart().await;
    assert!(!client.ask(&[]).await.0.text().contains(VERIFIED));
    client.authorize("bob", &[]).await.assert_leads_to(&app.at("/waiting"));
    let shown = run(&["clients", "show", ID]).await.ok();
    assert!(shown.contains("has changed since it was approved or trusted"), "{shown}");
}
