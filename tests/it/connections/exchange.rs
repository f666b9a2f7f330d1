//! Token exchange for MCP servers at `/token`: RFC 8693.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::harness::client::{McpClient, Tokens};
use crate::harness::connect::{connect, connect_as, connect_url};
use crate::harness::console::Console;
use crate::harness::http::Answer;
use crate::harness::service::FakeService;
use crate::harness::{Setup, TestApp};

const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const TODO_SECRET: &str = "the secret of the to-do server, 0123456789abcdef";
const OTHER: &str = "https://other.example/mcp";
const OTHER_SECRET: &str = "the secret of the other server, 0123456789abcdef";

/// The to-do server behind the gateway may use `github`, and a server elsewhere may use `calendar`.
fn setup(github: &FakeService, calendar: &FakeService) -> Setup {
    Setup::toml(format!(
        r#"{github}{calendar}
[resource]
assertion = true
introspection_secret = "{TODO_SECRET}"
[[resource.connection]]
name = "github"
scopes = ["read", "write"]
required = false
[[resource]]
id = "{OTHER}"
scopes = ["use"]
introspection_secret = "{OTHER_SECRET}"
[[resource.connection]]
name = "calendar"
scopes = ["read"]
"#,
        github = github.toml("github", "oauth2"),
        calendar = calendar.toml("calendar", "oauth2"),
    ))
}

struct World {
    app: TestApp,
    github: FakeService,
    calendar: FakeService,
}

async fn started() -> World {
    let (github, calendar) = (FakeService::start().await, FakeService::start().await);
    let app = TestApp::with(setup(&github, &calendar)).await;
    World { app, github, calendar }
}

fn basic(id: &str, secret: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")))
}

impl World {
    /// The to-do server exchanges; `set` replaces or adds parameters, an empty value removes one.
    async fn exchange(&self, token: &str, set: &[(&str, &str)]) -> Answer {
        self.exchange_as(&basic(&self.app.mcp_url(), TODO_SECRET), token, set).await
    }

    async fn exchange_as(&self, authorization: &str, token: &str, set: &[(&str, &str)]) -> Answer {
        let headers = [("authorization", authorization)];
        let headers = if authorization.is_empty() { &headers[..0] } else { &headers[..] };
        self.app.http.post_form(&self.app.at("/token"), &form(token, set), headers).await
    }

    /// The access token of a call, and the assertion that the gateway gave the to-do server with it.
    async fn call(&self, client: &McpClient, tokens: &Tokens) -> String {
        client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
        let seen = self.app.todo.recorded().pop().unwrap();
        seen.header("x-portcullis-assertion").unwrap().to_owned()
    }
}

fn form<'a>(token: &'a str, set: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut form = vec![
        ("grant_type", GRANT),
        ("subject_token", token),
        ("subject_token_type", ACCESS_TOKEN),
        ("audience", "github"),
    ];
    form.retain(|(name, _)| !set.iter().any(|(known, _)| known == name));
    form.extend(set.iter().filter(|(_, value)| !value.is_empty()));
    form
}

/// The tokens of a client for the server elsewhere.
async fn tokens_for_other(app: &TestApp, person: &str) -> (McpClient, Tokens) {
    let client = app.client().await;
    let back = client.authorize(person, &[("resource", OTHER), ("scope", "use")]).await;
    let code = back.location_param("code").unwrap();
    let tokens = Tokens::of(&client.redeem_with(&code, &[("resource", OTHER)]).await);
    (client, tokens)
}

async fn stored(app: &TestApp, event: &str) -> i64 {
    app.database
        .number_of(&format!("SELECT COUNT(*) FROM audit_events WHERE event = '{event}'"))
        .await
}

#[tokio::test]
async fn a_server_exchanges_the_token_of_a_call_for_that_of_the_service() {
    let world = started().await;
    let (app, github) = (&world.app, &world.github);
    let (_, tokens) = app.tokens_of("alice").await;
    connect_as(app, "alice", "github").await;
    app.advance(60);

    let answer = world.exchange(&tokens.access_token, &[]).await;
    answer.assert_status(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let body = answer.json();
    let token = body["access_token"].as_str().unwrap();
    let expected = json!({
        "access_token": token,
        "issued_token_type": ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": 3540,
        "scope": "read write",
    });
    assert_eq!(body, expected, "and no refresh token");
    assert_eq!(github.api(token).unwrap()["login"], "octocat");

    // The rest of its life, not the whole; the same token as long as it is fresh.
    app.advance(300);
    let body = world.exchange(&tokens.access_token, &[]).await.assert_status(200).json();
    assert_eq!((&body["expires_in"], &body["access_token"]), (&json!(3240), &json!(token)));
    for set in [
        &[("requested_token_type", ACCESS_TOKEN)][..],
        &[("scope", "read")],
        &[("scope", " write  read")],
    ] {
        let body = world.exchange(&tokens.access_token, set).await.assert_status(200).json();
        assert_eq!(body["scope"], "read write", "a token is not narrowed here, and says so");
    }
    assert_eq!(github.refreshes(), 0);
}

#[tokio::test]
async fn the_gateways_assertion_can_be_exchanged_for_a_minute() {
    let world = started().await;
    let (client, tokens) = world.app.tokens_of("alice").await;
    connect_as(&world.app, "alice", "github").await;
    let assertion = world.call(&client, &tokens).await;
    let by_assertion = [("subject_token_type", JWT)];
    let body = world.exchange(&assertion, &by_assertion).await.assert_status(200).json();
    assert!(world.github.api(body["access_token"].as_str().unwrap()).is_ok());

    // Each type means one kind of token.
    world.exchange(&assertion, &[]).await.assert_error(400, "invalid_request");
    world.exchange(&tokens.access_token, &by_assertion).await.assert_error(400, "invalid_request");

    world.app.advance(60);
    world.exchange(&assertion, &by_assertion).await.assert_error(400, "invalid_request");
    let assertion = world.call(&client, &tokens).await;
    world.exchange(&assertion, &by_assertion).await.assert_status(200);

    // It ends with the grant.
    client.revoke(&tokens.access_token).await.assert_status(200);
    world.exchange(&assertion, &by_assertion).await.assert_error(400, "invalid_request");
}

#[tokio::test]
async fn ut_10_an_mcp_server_gets_nothing_by_the_tokens_of_another_ones_calls() {
    let world = started().await;
    let app = &world.app;
    let console = connect_as(app, "alice", "github").await;
    connect(app, &console, "calendar", OTHER).await;
    let (client, todo) = app.tokens_of("alice").await;
    let (_, other) = tokens_for_other(app, "alice").await;
    let assertion = world.call(&client, &todo).await;
    let as_other = basic(OTHER, OTHER_SECRET);
    let calendar = ("audience", "calendar");

    // Its own calls, with its own service: yes.
    let own = world.exchange_as(&as_other, &other.access_token, &[calendar]).await;
    let token = own.assert_status(200).json()["access_token"].as_str().unwrap().to_owned();
    assert!(world.calendar.api(&token).is_ok() && world.github.api(&token).is_err());

    // The calls of the to-do server: no, whatever it asks for, and each answer is the same.
    let refused = world.exchange_as(&as_other, "made.up.token", &[calendar]).await;
    refused.assert_error(400, "invalid_request");
    for audience in ["calendar", "github", "sign-in", "nothing"] {
        for (token, kind) in [(todo.access_token.as_str(), ACCESS_TOKEN), (&assertion, JWT)] {
            let set = [("audience", audience), ("subject_token_type", kind)];
            let answer = world.exchange_as(&as_other, token, &set).await;
            assert_eq!((answer.status, answer.json()), (refused.status, refused.json()));
        }
    }
    let answer = world.exchange(&other.access_token, &[]).await;
    assert_eq!((answer.status, answer.json()), (refused.status, refused.json()));

    // The to-do server's service for its own calls: no, as if there were none of that name.
    let unknown =
        world.exchange_as(&as_other, &other.access_token, &[("audience", "nothing")]).await;
    unknown.assert_error(400, "invalid_target");
    assert_eq!(unknown.json().get("connect_url"), None);
    for audience in ["github", "sign-in"] {
        let answer =
            world.exchange_as(&as_other, &other.access_token, &[("audience", audience)]).await;
        assert_eq!((answer.status, answer.json()), (unknown.status, unknown.json()));
    }
}

#[tokio::test]
async fn ut_10_two_servers_with_one_target_do_not_share_assertions() {
    let (github, calendar) = (FakeService::start().await, FakeService::start().await);
    let mut app = TestApp::with(setup(&github, &calendar)).await;
    let target = app.todo.url();
    app.change_config(
        &format!("id = \"{OTHER}\""),
        &format!("path = \"/other\"\ntarget = \"{target}\""),
    );
    app.restart().await;
    let world = World { app, github, calendar };
    let other = world.app.at("/other");
    let console = connect_as(&world.app, "alice", "github").await;
    connect(&world.app, &console, "calendar", &other).await;
    let (client, tokens) = world.app.tokens_of("alice").await;
    let assertion = world.call(&client, &tokens).await;
    let kind = ("subject_token_type", JWT);
    world.exchange(&assertion, &[kind]).await.assert_status(200);
    let as_other = basic(&other, OTHER_SECRET);
    let answer = world.exchange_as(&as_other, &assertion, &[kind, ("audience", "calendar")]).await;
    answer.assert_error(400, "invalid_request");
}

#[tokio::test]
async fn ut_09_a_dead_token_a_revoked_grant_and_a_blocked_person_get_nothing_at_once() {
    let world = started().await;
    let app = &world.app;
    for person in ["alice", "bob"] {
        connect_as(app, person, "github").await;
    }
    let (client, of_alice) = app.tokens_of("alice").await;
    let (_, late) = app.tokens_of("alice").await;
    let (_, of_bob) = app.tokens_of("bob").await;
    for tokens in [&of_alice, &late, &of_bob] {
        world.exchange(&tokens.access_token, &[]).await.assert_status(200);
    }
    let mut refused = vec![world.exchange("made-up", &[]).await];
    refused.push(world.exchange(&of_alice.refresh_token, &[]).await);
    client.revoke(&of_alice.refresh_token).await.assert_status(200);
    refused.push(world.exchange(&of_alice.access_token, &[]).await);
    let event = app.audit_event("person_blocked");
    app.storage().block_person("oidc:demo-bob", "test", app.now(), event).await.unwrap();
    refused.push(world.exchange(&of_bob.access_token, &[]).await);
    world.exchange(&late.access_token, &[]).await.assert_status(200);
    app.advance(600);
    refused.push(world.exchange(&late.access_token, &[]).await);
    for answer in &refused {
        answer.assert_error(400, "invalid_request");
        assert_eq!(answer.json(), refused[0].json(), "one description for all");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    assert_eq!(world.github.refreshes(), 0, "the service heard of none of it");
}

#[tokio::test]
async fn a_person_who_has_not_connected_gets_a_link_by_which_it_works() {
    let world = started().await;
    let app = &world.app;
    let (_, tokens) = app.tokens_of("alice").await;
    let answer = world.exchange(&tokens.access_token, &[]).await;
    answer.assert_error(400, "invalid_target");
    let link = answer.json()["connect_url"].as_str().unwrap().to_owned();
    assert_eq!(link, connect_url(app, "github", &app.mcp_url()));

    let console = Console::account(app).signed_in(app, "alice").await;
    console.browser.get(&link).await.assert_page(200);
    connect(app, &console, "github", &app.mcp_url()).await;
    world.exchange(&tokens.access_token, &[]).await.assert_status(200);

    // Disconnected: at once, although the token itself has not ended.
    console.press_and_confirm("/account/connections", "action", "disconnect").await;
    let answer = world.exchange(&tokens.access_token, &[]).await;
    assert_eq!(answer.assert_error(400, "invalid_target").json()["connect_url"], link);
    connect(app, &console, "github", &app.mcp_url()).await;
    world.exchange(&tokens.access_token, &[]).await.assert_status(200);

    // What one person connected gives nothing to another.
    let (_, of_bob) = app.tokens_of("bob").await;
    let answer = world.exchange(&of_bob.access_token, &[]).await;
    assert_eq!(answer.assert_error(400, "invalid_target").json()["connect_url"], link);
}

#[tokio::test]
async fn scopes_that_the_person_did_not_grant_are_named_and_others_are_not_asked_for() {
    let world = started().await;
    let (_, tokens) = world.app.tokens_of("alice").await;
    world.github.grant_only("read");
    let console = Console::account(&world.app).signed_in(&world.app, "alice").await;
    let back = crate::harness::connect::nearly_connect(
        &world.app,
        &console,
        "github",
        &world.app.mcp_url(),
    )
    .await;
    console.browser.get(&back).await;

    let body =
        world.exchange(&tokens.access_token, &[("scope", "read")]).await.assert_status(200).json();
    assert_eq!(body["scope"], "read");
    for set in [&[][..], &[("scope", "read write")], &[("scope", "write")]] {
        let body = world.exchange(&tokens.access_token, set).await;
        let body = body.assert_error(400, "invalid_target").json();
        assert!(body["error_description"].as_str().unwrap().contains("scopes write:"), "{body}");
        assert!(body["connect_url"].as_str().unwrap().contains("/connect/github?for="), "{body}");
    }
    for beyond in ["admin", "read admin"] {
        let answer = world.exchange(&tokens.access_token, &[("scope", beyond)]).await;
        let body = answer.assert_error(400, "invalid_scope").json();
        assert_eq!(body.get("connect_url"), None);
    }
    for malformed in ["\"", "a\\b", "ä"] {
        let answer = world.exchange(&tokens.access_token, &[("scope", malformed)]).await;
        answer.assert_error(400, "invalid_scope");
    }
}

#[tokio::test]
async fn an_outage_is_503_and_a_service_that_refuses_for_good_gives_the_link() {
    let world = started().await;
    let (app, github) = (&world.app, &world.github);
    let (client, tokens) = app.tokens_of("alice").await;
    connect_as(app, "alice", "github").await;
    app.advance(3600);
    let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);

    github.down(true);
    let answer = world.exchange(&tokens.access_token, &[]).await;
    answer.assert_error(503, "temporarily_unavailable");
    assert!(answer.header("retry-after").unwrap().parse::<u32>().unwrap() > 0);
    assert_eq!(answer.json().get("connect_url"), None);
    github.down(false);
    app.advance(60); // an outage is not remembered for longer
    let body = world.exchange(&tokens.access_token, &[]).await.assert_status(200).json();
    assert_eq!(body["expires_in"], 3600, "a fresh one");
    assert!(github.api(body["access_token"].as_str().unwrap()).is_ok());

    app.advance(3600);
    let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    github.end_refresh_tokens();
    let answer = world.exchange(&tokens.access_token, &[]).await;
    let body = answer.assert_error(400, "invalid_target").json();
    assert!(body["error_description"].as_str().unwrap().contains("connect again"), "{body}");
    assert!(body["connect_url"].as_str().unwrap().contains("/connect/github?for="), "{body}");
}

#[tokio::test]
async fn a_token_without_an_end_has_no_expires_in() {
    let world = started().await;
    world.github.expire_in(None);
    let (_, tokens) = world.app.tokens_of("alice").await;
    connect_as(&world.app, "alice", "github").await;
    let body = world.exchange(&tokens.access_token, &[]).await.assert_status(200).json();
    let mut members: Vec<&str> = body.as_object().unwrap().keys().map(String::as_str).collect();
    members.sort_unstable();
    assert_eq!(members, ["access_token", "issued_token_type", "scope", "token_type"]);
}

#[tokio::test]
async fn of_a_hundred_exchanges_at_once_one_asks_the_service_and_one_is_in_the_trail() {
    let mut world = started().await;
    let (client, tokens) = world.app.tokens_of("alice").await;
    connect_as(&world.app, "alice", "github").await;
    world.app.advance(3600);
    let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    let answers = join_all((0..100).map(|_| world.exchange(&tokens.access_token, &[]))).await;
    let live = world.github.live();
    for answer in answers {
        let body = answer.assert_status(200).json();
        assert_eq!(Some(body["access_token"].as_str().unwrap()), live.last().map(String::as_str));
    }
    assert_eq!(world.github.refreshes(), 1);

    // The trail has one line of it, with the service and without the token.
    for _ in 0..5 {
        world.exchange(&tokens.access_token, &[("audience", "nothing")]).await.assert_status(400);
        world.exchange("made-up", &[]).await.assert_status(400);
    }
    world.app.stop().await;
    assert_eq!(stored(&world.app, "upstream_token_exchanged").await, 1);
    assert_eq!(stored(&world.app, "upstream_token_refused").await, 2, "one for each reason");
    let of_alice = "SELECT COUNT(*) FROM audit_events WHERE event = 'upstream_token_exchanged'
                    AND subject = 'oidc:demo-alice' AND detail LIKE '%\"connection\":\"github\"%'";
    assert_eq!(world.app.database.number(of_alice).await, 1);
    let with_token = format!("SELECT COUNT(*) FROM audit_events WHERE detail LIKE '%{}%'", live[0]);
    assert_eq!(world.app.database.number_of(&with_token).await, 0);
}

#[tokio::test]
async fn only_a_configured_server_that_proves_itself_may_exchange() {
    let world = started().await;
    let app = &world.app;
    let (_, tokens) = app.tokens_of("alice").await;
    connect_as(app, "alice", "github").await;
    let (token, id) = (tokens.access_token.as_str(), app.mcp_url());
    let client = McpClient::register_as(
        app,
        json!({ "redirect_uris": ["http://127.0.0.1/x"], "token_endpoint_auth_method": "client_secret_basic" }),
    )
    .await;
    for authorization in [
        basic(&id, "wrong"),
        basic(&id, OTHER_SECRET),
        basic(OTHER, TODO_SECRET),
        basic(&client.id, client.secret.as_deref().unwrap()),
        format!("Bearer {token}"),
        String::new(),
    ] {
        let refused = world.exchange_as(&authorization, token, &[]).await;
        refused.assert_error(401, "invalid_client");
        assert!(refused.header("www-authenticate").unwrap().starts_with("Basic"));
    }
    let posted = [("client_id", id.as_str()), ("client_secret", TODO_SECRET)];
    world.exchange_as("", token, &posted).await.assert_status(200);
    let wrong = [("client_id", id.as_str()), ("client_secret", OTHER_SECRET)];
    world.exchange_as("", token, &wrong).await.assert_error(401, "invalid_client");
    let twice = world.exchange(token, &posted).await;
    twice.assert_error(400, "invalid_request");
}

#[tokio::test]
async fn parameters_are_read_strictly() {
    let world = started().await;
    let (_, tokens) = world.app.tokens_of("alice").await;
    connect_as(&world.app, "alice", "github").await;
    let token = tokens.access_token.as_str();
    for (set, code) in [
        (&[("subject_token", "")][..], "invalid_request"),
        (&[("subject_token_type", "")], "invalid_request"),
        (&[("audience", "")], "invalid_request"),
        (&[("subject_token_type", "urn:ietf:params:oauth:token-type:id_token")], "invalid_request"),
        (&[("subject_token_type", "access_token")], "invalid_request"),
        (
            &[("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token")],
            "invalid_request",
        ),
        (&[("requested_token_type", JWT)], "invalid_request"),
        (&[("actor_token", "x")], "invalid_request"),
        (&[("actor_token_type", ACCESS_TOKEN)], "invalid_request"),
        (&[("resource", "https://api.github.com")], "invalid_target"),
        (&[("audience", "GitHub")], "invalid_target"),
        (&[("audience", "github ")], "invalid_target"),
    ] {
        let answer = world.exchange(token, set).await;
        answer.assert_error(400, code);
        assert_eq!(answer.json().get("access_token"), None, "{set:?}");
    }
    // Repeated, even with equal values.
    let authorization = basic(&world.app.mcp_url(), TODO_SECRET);
    let once = [
        ("requested_token_type", ACCESS_TOKEN),
        ("scope", "read"),
        ("resource", "x"),
        ("actor_token", "x"),
        ("actor_token_type", "x"),
    ];
    let whole: Vec<(&str, &str)> = form(token, &[]).into_iter().chain(once).collect();
    for repeated in &whole {
        let mut form = form(token, &[]);
        form.retain(|(name, _)| *name != repeated.0);
        form.extend([*repeated, *repeated]);
        let headers = [("authorization", authorization.as_str())];
        let answer = world.app.http.post_form(&world.app.at("/token"), &form, &headers).await;
        answer.assert_error(400, "invalid_request");
    }
    world.exchange(token, &[]).await.assert_status(200);
}

#[tokio::test]
async fn an_mcp_server_is_not_limited_for_its_people_but_for_wrong_secrets_it_is() {
    let (github, calendar) = (FakeService::start().await, FakeService::start().await);
    let setup = setup(&github, &calendar)
        .and("trusted_proxies = [\"127.0.0.1\"]")
        .and("[limits]\ntoken_per_minute = 10\ntoken_failures_per_minute = 3");
    let world = World { app: TestApp::with(setup).await, github, calendar };
    let (_, tokens) = world.app.tokens_of("alice").await;
    let (id, url) = (world.app.mcp_url(), world.app.at("/token"));
    let send = async |secret: &str, token: &str| {
        let authorization = basic(&id, secret);
        let from = [("authorization", authorization.as_str()), ("x-forwarded-for", "203.0.113.7")];
        world.app.http.post_form(&url, &form(token, &[]), &from).await
    };
    for _ in 0..20 {
        // One person who has not connected, and one who is not there at all.
        send(TODO_SECRET, &tokens.access_token).await.assert_error(400, "invalid_target");
        send(TODO_SECRET, "made-up").await.assert_error(400, "invalid_request");
    }
    for _ in 0..3 {
        send("wrong", &tokens.access_token).await.assert_error(401, "invalid_client");
    }
    let limited = send("wrong", &tokens.access_token).await;
    limited.assert_error(429, "temporarily_unavailable");
    assert!(limited.header("retry-after").is_some());
    // The right secret from that address still works.
    send(TODO_SECRET, &tokens.access_token).await.assert_error(400, "invalid_target");
}

#[tokio::test]
async fn the_sign_in_providers_own_token_is_the_audience_sign_in() {
    let app = TestApp::with(Setup::toml(format!(
        "[resource]\nintrospection_secret = \"{TODO_SECRET}\"\n[resource.upstream_token]\nheader = \"x-upstream\"\n"
    )))
    .await;
    let (github, calendar) = (FakeService::start().await, FakeService::start().await);
    let world = World { app, github, calendar };
    let (client, tokens) = world.app.tokens_of("alice").await;
    let sign_in = ("audience", "sign-in");
    let body = world.exchange(&tokens.access_token, &[sign_in]).await.assert_status(200).json();
    let token = body["access_token"].as_str().unwrap();
    assert!(world.app.idp.issued().iter().any(|issued| issued == token), "the provider's");
    assert_eq!(body.get("refresh_token"), None);
    assert!(body["expires_in"].as_i64().unwrap() > 0, "{body}");
    let lacks = world.exchange(&tokens.access_token, &[sign_in, ("scope", "not-granted")]).await;
    assert_eq!(lacks.assert_error(400, "invalid_target").json().get("connect_url"), None);
    world.exchange(&tokens.access_token, &[]).await.assert_error(400, "invalid_target");

    client.revoke(&tokens.access_token).await.assert_status(200);
    world.exchange(&tokens.access_token, &[sign_in]).await.assert_error(400, "invalid_request");
}

#[tokio::test]
async fn the_grant_type_is_advertised_exactly_when_a_server_may_use_it() {
    let grant_types = async |app: &TestApp| -> Vec<Value> {
        let mut found = Vec::new();
        for document in ["oauth-authorization-server", "openid-configuration"] {
            let metadata = app.http.get(&app.at(&format!("/.well-known/{document}"))).await.json();
            found.push(metadata["grant_types_supported"].clone());
        }
        found
    };
    let world = started().await;
    let on = json!(["authorization_code", "refresh_token", GRANT]);
    assert_eq!(grant_types(&world.app).await, [on.clone(), on]);
    // A client that copies the list when it registers still registers, and gets what clients may use.
    let metadata = json!({
        "redirect_uris": ["http://127.0.0.1/x"],
        "grant_types": ["authorization_code", "refresh_token", GRANT],
    });
    let registered = world.app.http.post_json(&world.app.at("/register"), &metadata, &[]).await;
    let registered = registered.assert_status(201).json();
    assert_eq!(registered["grant_types"], json!(["authorization_code", "refresh_token"]));

    let off = TestApp::start().await;
    let plain = json!(["authorization_code", "refresh_token"]);
    assert_eq!(grant_types(&off).await, [plain.clone(), plain]);
    let client = off.client().await;
    client.token(&form("x", &[])).await.assert_error(400, "unsupported_grant_type");
}
