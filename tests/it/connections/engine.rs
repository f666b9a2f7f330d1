//! People's tokens of services are renewed in time, once for all, and stored before they are used; what a
//! service says and what it does not say are told apart; tokens that were given up are revoked.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::harness::backend::{Backend, status, tokens};
use crate::harness::client::Tokens;
use crate::harness::connect::{connect, connect_as, nearly_connect};
use crate::harness::console::Console;
use crate::harness::http::Answer;
use crate::harness::service::FakeService;
use crate::harness::{Setup, TestApp};

/// The header of the token, as it arrives.
const HEADER: &str = "x-service-token";
const LIST: &str = "/account/connections";

/// An MCP server that needs `read` and `write` of the service `github`.
struct World {
    app: TestApp,
    backend: Backend,
    service: FakeService,
}

impl World {
    /// The service plays this preset.
    async fn of(preset: &str) -> Self {
        Self::with(preset, "").await
    }

    async fn with(preset: &str, more: &str) -> Self {
        let (backend, service) = (Backend::start().await, FakeService::start().await);
        let setup = format!(
            r#"
[[resource]]
path   = "/mcp"
target = "{}/mcp"
scopes = ["read", "write"]
rule = [{{ roles = ["Admin"], allow = ["read", "write"] }}]
[[resource.connection]]
name   = "github"
scopes = ["read", "write"]
header = "X-Service-Token"
{}
[limits]
request_rates = false
requests_per_person = 1000
{more}
"#,
            backend.url,
            service.toml("github", preset),
        );
        let app = TestApp::with(Setup::toml(setup)).await;
        Self { app, backend, service }
    }

    /// alice connects the service, and her token ends soon. The other tokens are those of her client.
    async fn with_an_old_token(&self) -> Tokens {
        connect_as(&self.app, "alice", "github").await;
        self.app.advance(3600 - 30);
        tokens(&self.app, "alice").await.1
    }

    /// The same with a token that has ended.
    async fn with_an_ended_token(&self) -> Tokens {
        connect_as(&self.app, "alice", "github").await;
        self.app.advance(3600);
        tokens(&self.app, "alice").await.1
    }

    async fn call(&self, tokens: &Tokens) -> Answer {
        self.call_at(&self.app.mcp_url(), tokens).await
    }

    /// A tool call at one of several servers.
    async fn call_at(&self, url: &str, tokens: &Tokens) -> Answer {
        let authorization = format!("Bearer {}", tokens.access_token);
        let headers = [("authorization", authorization.as_str())];
        let params = json!({ "name": "open-issue", "arguments": {} });
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        self.app.http.post_json(url, &call, &headers).await
    }

    /// The tokens that reached the MCP server since the last time.
    fn sent(&self) -> Vec<String> {
        let seen = self.backend.take();
        let tokens = seen.iter().map(|seen| seen.header(HEADER).unwrap_or_default().to_owned());
        tokens.collect()
    }

    /// The only one.
    #[track_caller]
    fn one_sent(&self) -> String {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    /// A second server on the same database, with a memory of its own.
    async fn second_server(&self) -> (String, oneshot::Sender<()>) {
        let (url, stop) = if self.app.database.is_postgres() {
            self.app.replica().await
        } else {
            self.app.replica_with_clock(&self.app.clock).await
        };
        (format!("{url}/mcp"), stop)
    }

    async fn state(&self) -> String {
        self.app.database.text("SELECT state FROM connections").await
    }

    async fn events(&self, event: &str) -> i64 {
        let sql = format!("SELECT COUNT(*) FROM audit_events WHERE event = '{event}'");
        self.app.database.number_of(&sql).await
    }

    /// Revokes what is due until nothing waits, an hour at a time.
    async fn until_nothing_waits(&self) {
        for _ in 0..100 {
            if self.waiting().await == 0 {
                return;
            }
            self.app.advance(3600);
            self.app.revoke_round().await;
        }
        panic!("{} entries wait for ever", self.waiting().await);
    }

    async fn waiting(&self) -> i64 {
        self.app.database.number("SELECT COUNT(*) FROM token_revocations").await
    }
}

#[track_caller]
fn assert_passed(answer: &Answer) {
    answer.assert_status(200);
    assert_eq!(answer.json()["result"], json!({}), "{}", answer.text());
}

/// The service does not answer: the client tries again later, and nobody is told to connect anything.
#[track_caller]
fn assert_unavailable(answer: &Answer) {
    answer.assert_status(503);
    assert!(answer.header("retry-after").is_some(), "{:?}", answer.headers);
    assert!(!answer.text().contains("/connect/"), "{}", answer.text());
}

/// A page that says that something failed.
fn is_refusal(page: &Answer) -> bool {
    page.status.is_client_error() || page.status.is_server_error()
}

/// The text of a result with a link to connect the service.
#[track_caller]
fn assert_asks_to_connect(answer: &Answer) {
    answer.assert_status(200);
    let result = &answer.json()["result"];
    assert_eq!(result["isError"], true, "{}", answer.text());
    let text = result["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("/connect/github?for="), "{text}");
}

#[tokio::test]
async fn ut_05_a_hundred_calls_at_two_servers_refresh_once() {
    let world = World::of("github").await;
    let alices = world.with_an_old_token().await;
    let first = world.app.mcp_url();
    let (second, _stop) = world.second_server().await;
    world.service.hold();

    let calls = (0..100).map(|n| world.call_at(if n % 2 == 0 { &first } else { &second }, &alices));
    let release = async {
        world.service.until_asked(2).await; // the code, and the refresh
        world.service.release();
    };
    let (answers, ()) = futures_util::join!(join_all(calls), release);

    answers.iter().for_each(assert_passed);
    assert_eq!(world.service.refreshes(), 1);
    let sent = world.sent();
    assert_eq!(sent.len(), 100);
    let different: BTreeSet<String> = sent.into_iter().collect();
    assert_eq!(different.into_iter().collect::<Vec<_>>(), world.service.live());
    // Both know it from now on, until it ends soon.
    assert_passed(&world.call_at(&first, &alices).await);
    assert_passed(&world.call_at(&second, &alices).await);
    assert_eq!(world.service.refreshes(), 1);
}

#[tokio::test]
async fn a_refresh_goes_on_without_the_caller_and_its_token_is_stored() {
    let world = World::of("github").await;
    let alices = world.with_an_ended_token().await;
    world.service.hold();
    let url = world.app.mcp_url();
    let (http, token) = (world.app.http.clone(), alices.access_token.clone());
    let call = tokio::spawn(async move {
        let authorization = format!("Bearer {token}");
        let params = json!({ "name": "open-issue", "arguments": {} });
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        http.post_json(&url, &call, &[("authorization", &authorization)]).await
    });
    world.service.until_asked(2).await;
    call.abort();
    assert!(call.await.is_err());
    world.service.release();

    assert_passed(&world.call(&alices).await);

    assert_eq!(world.service.refreshes(), 1, "a rotated token would not work twice");
    assert_eq!(world.sent().pop(), world.service.live().pop());
}

#[tokio::test]
async fn an_outage_is_no_refusal_however_it_looks() {
    let world = World::of("oauth2").await;
    let alices = world.with_an_ended_token().await;
    for (status, body) in [
        (503, ""),
        (500, "{}"),
        (502, "<html>Bad gateway</html>"),
        (200, "<html>Maintenance</html>"),
        (200, "{}"),
        (200, r#"{"ok":false}"#),
        (200, r#"{"access_token":7}"#),
        (302, r#"{"access_token":"a"}"#),
        (400, r#"{"error":"temporarily_unavailable"}"#),
        (429, r#"{"error":"slow_down"}"#),
        // Our own mistake.
        (401, r#"{"error":"invalid_client"}"#),
        (401, ""),
    ] {
        world.service.answers_with(status, body);
        assert_unavailable(&world.call(&alices).await);
        let asked = world.service.token_requests().len();
        assert_unavailable(&world.call(&alices).await);
        assert_eq!(world.service.token_requests().len(), asked, "{status} {body}: asked at once");
        world.app.advance(5);
    }
    world.service.down(true);
    assert_unavailable(&world.call(&alices).await);
    assert!(world.backend.take().is_empty());
    assert_eq!(
        (world.state().await.as_str(), world.events("connection_broken").await),
        ("active", 0)
    );

    world.service.down(false);
    world.app.advance(5);
    assert_passed(&world.call(&alices).await);
    assert_eq!(world.sent(), world.service.live());
}

#[tokio::test]
async fn a_token_with_some_seconds_left_works_during_an_outage() {
    let world = World::of("github").await;
    let alices = world.with_an_old_token().await;
    let before = world.service.live();
    world.service.down(true);

    assert_passed(&world.call(&alices).await);

    assert_eq!(world.sent(), before);
    world.app.advance(31);
    assert_unavailable(&world.call(&alices).await);
}

#[tokio::test]
async fn a_refusal_for_good_breaks_the_connection_until_its_person_connects_again() {
    for (preset, code) in [
        ("oauth2", "invalid_grant"),
        ("github", "bad_refresh_token"),
        ("slack", "invalid_refresh_token"),
        ("google", "invalid_grant"),
        ("atlassian", "invalid_grant"),
    ] {
        let world = World::of(preset).await;
        let alices = world.with_an_ended_token().await;
        world.service.end_refresh_tokens();

        assert_asks_to_connect(&world.call(&alices).await);

        assert_eq!(world.state().await, "broken", "{preset}");
        assert_eq!(world.events("connection_broken").await, 1, "{preset}");
        let reason = world.app.database.text("SELECT reason FROM connections").await;
        assert!(reason.contains(code), "{preset}: {reason}");
        let asked = world.service.token_requests().len();
        assert_asks_to_connect(&world.call(&alices).await);
        assert_eq!(world.service.token_requests().len(), asked, "{preset}: it is not asked again");
        assert!(world.backend.take().is_empty(), "{preset}");

        connect_as(&world.app, "alice", "github").await;
        assert_passed(&world.call(&alices).await);
        assert_eq!(world.one_sent(), world.service.live().pop().unwrap(), "{preset}");
    }
}

#[tokio::test]
async fn each_service_renews_in_its_own_manner() {
    for preset in ["oauth2", "github", "google", "slack", "atlassian", "gitlab", "oidc", "entra"] {
        for rotates in [true, false] {
            let world = World::of(preset).await;
            world.service.rotate(rotates);
            let alices = world.with_an_old_token().await;
            let first = world.service.live().pop();

            assert_passed(&world.call(&alices).await);
            world.app.advance(3600);
            let (_, alices) = tokens(&world.app, "alice").await;
            assert_passed(&world.call(&alices).await);

            assert_eq!(world.service.refreshes(), 2, "{preset} {rotates}");
            let sent = world.sent();
            assert_ne!(Some(&sent[0]), first.as_ref(), "{preset} {rotates}");
            assert_eq!(sent.last(), world.service.live().last(), "{preset} {rotates}");
        }
    }
}

#[tokio::test]
async fn a_token_for_a_minute_is_not_renewed_at_every_call() {
    let world = World::of("github").await;
    world.service.expire_in(Some(60));
    connect_as(&world.app, "alice", "github").await;
    let (_, alices) = tokens(&world.app, "alice").await;
    for _ in 0..5 {
        assert_passed(&world.call(&alices).await);
        world.app.advance(5);
    }
    assert_eq!(world.service.refreshes(), 0);

    world.app.advance(10);
    assert_passed(&world.call(&alices).await);

    assert_eq!(world.service.refreshes(), 1);
}

#[tokio::test]
async fn a_token_that_does_not_end_needs_no_refresh_token() {
    let world = World::of("github").await;
    world.service.expire_in(None);
    connect_as(&world.app, "alice", "github").await;
    world.app.advance(365 * 24 * 60 * 60);
    let (_, alices) = tokens(&world.app, "alice").await;
    assert_passed(&world.call(&alices).await);
    assert_eq!(world.service.token_requests().len(), 1, "the code alone");

    // The MCP server refuses it for a reason of its own: nothing breaks.
    world.backend.answers(|_| status(401));
    world.call(&alices).await;
    assert_eq!(world.backend.take().len(), 2, "nothing is repeated");
    assert_eq!(world.call(&alices).await.status, 502);
    assert_eq!(world.state().await, "active");

    // The person removed the application at GitHub.
    world.service.end_access_tokens();
    world.app.advance(61);
    world.call(&alices).await;
    assert_asks_to_connect(&world.call(&alices).await);
    assert_eq!(
        (world.state().await.as_str(), world.events("connection_broken").await),
        ("broken", 1)
    );
}

#[tokio::test]
async fn a_refused_token_is_renewed_for_the_next_call_and_at_most_once_a_minute() {
    let world = World::of("github").await;
    connect_as(&world.app, "alice", "github").await;
    let (_, alices) = tokens(&world.app, "alice").await;
    let first = world.service.live();
    world.backend.answers(|_| status(401));

    assert_eq!(world.call(&alices).await.status, 502);

    assert_eq!(world.sent(), first, "the call is not repeated");
    assert_eq!(world.service.refreshes(), 0, "and nothing is renewed before somebody needs it");
    for _ in 0..5 {
        assert_eq!(world.call(&alices).await.status, 502);
    }
    assert_eq!(world.service.refreshes(), 1);
    assert_eq!(world.sent().pop(), world.service.live().pop());
    world.app.advance(60);
    world.call(&alices).await;
    world.call(&alices).await;
    assert_eq!(world.service.refreshes(), 2);
}

#[tokio::test]
async fn a_token_that_could_end_a_header_is_never_sent() {
    for token in ["a\r\nX-Admin: yes", "with space", "t\u{f6}ken", "a\u{0}b", "\u{7f}"] {
        let world = World::of("oauth2").await;
        let console = Console::account(&world.app).signed_in(&world.app, "alice").await;
        let url = world.app.mcp_url();
        let back = nearly_connect(&world.app, &console, "github", &url).await;
        let answer = json!({ "access_token": token, "token_type": "Bearer" });
        world.service.answers(answer.clone());
        let page = console.browser.get(&back).await;
        assert!(is_refusal(&page), "{token:?}: {}", page.status);
        assert_eq!(world.app.database.number("SELECT COUNT(*) FROM connections").await, 0);

        // The same in place of a good one.
        connect(&world.app, &console, "github", &url).await;
        world.app.advance(3600);
        let (_, alices) = tokens(&world.app, "alice").await;
        world.service.answers(answer);
        assert_unavailable(&world.call(&alices).await);
        assert!(world.backend.take().is_empty(), "{token:?}");
        world.app.advance(5);
        assert_passed(&world.call(&alices).await);
    }
}

#[tokio::test]
async fn the_granted_scopes_count_and_not_those_that_were_asked_for() {
    let world = World::of("google").await;
    world.service.grant_only("read openid");
    let console = Console::account(&world.app).signed_in(&world.app, "alice").await;
    let url = world.app.mcp_url();
    let back = nearly_connect(&world.app, &console, "github", &url).await;
    console.browser.get(&back).await;
    let (_, alices) = tokens(&world.app, "alice").await;

    assert_asks_to_connect(&world.call(&alices).await);

    let scopes = world.app.database.text("SELECT scopes FROM connections").await;
    assert_eq!(scopes, "read");
    assert!(world.backend.take().is_empty());
    world.service.grant_only("read write");
    connect(&world.app, &console, "github", &url).await;
    assert_passed(&world.call(&alices).await);
}

#[tokio::test]
async fn ut_02_an_answer_of_another_issuer_or_for_another_request_is_refused() {
    for what in ["another issuer", "another nonce"] {
        let world = World::of("oidc").await;
        match what {
            "another issuer" => world.service.name_issuer("https://evil.example"),
            _ => world.service.name_nonce("of another request"),
        }
        let console = Console::account(&world.app).signed_in(&world.app, "alice").await;
        let url = world.app.mcp_url();
        let back = nearly_connect(&world.app, &console, "github", &url).await;

        let page = console.browser.get(&back).await;

        assert!(is_refusal(&page), "{what}: {}", page.status);
        let stored = world.app.database.number("SELECT COUNT(*) FROM connections").await;
        assert_eq!(stored, 0, "{what}");
        let redeemed = world.service.token_requests().len();
        assert_eq!(redeemed, usize::from(what == "another nonce"), "{what}");
    }
}

/// Begins with a connection of alice, who then disconnects it while the service is away.
async fn disconnected(preset: &str, path: &str) -> (World, Vec<String>) {
    let world = World::of(preset).await;
    let console = connect_as(&world.app, "alice", "github").await;
    let issued = world.service.issued();
    world.service.down(true);
    console.press_and_confirm(LIST, "action", "disconnect").await;
    let stored = world.app.database.number("SELECT COUNT(*) FROM connections").await;
    assert_eq!(stored, 0, "it is deleted although the service is away");
    world.service.until_requested(path, 1).await;
    (world, issued)
}

#[tokio::test]
async fn who_disconnects_is_disconnected_at_once_and_the_token_is_revoked_when_the_service_is_back()
{
    for (preset, path, which) in [
        ("oauth2", "/revoke", &["refresh", "access"][..]),
        ("google", "/revoke", &["refresh"]),
        ("github", "/applications/portcullis-at-the-service/token", &["access"]),
        ("slack", "/api/auth.revoke", &["access"]),
    ] {
        let (world, issued) = disconnected(preset, path).await;
        while world.service.requests_to(path).len() < 3 {
            world.app.advance(3600);
            world.app.revoke_round().await;
        }
        assert!(world.service.revoked().is_empty());
        world.service.down(false);

        world.until_nothing_waits().await;

        let revoked = world.service.revoked();
        let expected: Vec<&String> = which
            .iter()
            .map(|which| issued.iter().find(|token| token.starts_with(which)).unwrap())
            .collect();
        assert_eq!(revoked.iter().collect::<Vec<_>>(), expected, "{preset}");
        assert!(world.service.live().is_empty(), "{preset}: no token works any more");
    }
}

#[tokio::test]
async fn a_revocation_that_never_works_is_given_up_after_a_day() {
    let (world, _) = disconnected("oauth2", "/revoke").await;
    let begun = world.app.now();

    world.until_nothing_waits().await;

    let tried_for = world.app.now().since(begun).as_secs();
    assert!((24 * 3600..=26 * 3600).contains(&tried_for), "{tried_for}");
    assert!(world.service.revoked().is_empty());
    assert!(world.service.requests_to("/revoke").len() >= 20);
}

/// The MCP server gets the sign-in provider's own token in `X-Service-Token`.
async fn with_upstream_token(more: &str) -> (TestApp, Backend) {
    with_setup(more, Setup::default()).await
}

async fn with_setup(more: &str, setup: Setup) -> (TestApp, Backend) {
    let backend = Backend::start().await;
    let resource = format!(
        r#"
[[resource]]
path   = "/mcp"
target = "{}/mcp"
scopes = ["read", "write"]
rule = [{{ roles = ["Admin"], allow = ["read", "write"] }}]
[resource.upstream_token]
header = "X-Service-Token"
{more}
[limits]
request_rates = false
requests_per_person = 1000
"#,
        backend.url
    );
    (TestApp::with(setup.and(resource)).await, backend)
}

async fn ping(app: &TestApp, url: &str, tokens: &Tokens) -> Answer {
    let authorization = format!("Bearer {}", tokens.access_token);
    let params = json!({ "name": "open-issue", "arguments": {} });
    let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    app.http.post_json(url, &call, &[("authorization", &authorization)]).await
}

fn sent(backend: &Backend) -> Vec<String> {
    let seen = backend.take();
    seen.iter().map(|seen| seen.header(HEADER).unwrap_or_default().to_owned()).collect()
}

/// The requests at the provider's token endpoint with this grant type.
fn asked(app: &TestApp, grant_type: &str) -> Vec<portcullis::demo::Recorded> {
    let mut recorded = app.idp.recorded();
    recorded.retain(|request| {
        request.path == "/token" && request.form_field("grant_type").as_deref() == Some(grant_type)
    });
    recorded
}

#[tokio::test]
async fn ut_05_the_sign_ins_token_is_renewed_by_the_one_place_that_rotates_it() {
    let (app, backend) = with_upstream_token("").await;
    app.idp.misbehave(|how| (how.strict_rotation, how.rotation_grace) = (true, 0));
    let (client, alices) = tokens(&app, "alice").await;
    let url = app.mcp_url();
    let second = if app.database.is_postgres() {
        app.replica().await
    } else {
        app.replica_with_clock(&app.clock).await
    };
    let other = format!("{}/mcp", second.0);
    app.advance(5 * 60 - 30); // the provider's tokens live for five minutes

    let calls = (0..100).map(|n| ping(&app, if n % 2 == 0 { &url } else { &other }, &alices));
    let answers = join_all(calls).await;

    answers.iter().for_each(assert_passed);
    assert_eq!(asked(&app, "refresh_token").len(), 1);
    let different: BTreeSet<String> = sent(&backend).into_iter().collect();
    assert_eq!(different.len(), 1, "{different:?}");
    assert!(app.idp.issued().contains(different.first().unwrap()));
    // A refresh of our own token re-checks the person, and both go on from one refresh token.
    app.advance(5 * 60);
    let alices = Tokens::of(&client.refresh(&alices.refresh_token).await);
    assert_passed(&ping(&app, &url, &alices).await);
    assert_passed(&ping(&app, &other, &alices).await);
    let different: BTreeSet<String> = sent(&backend).into_iter().collect();
    assert_eq!(different.len(), 1, "{different:?}");
    assert_eq!(asked(&app, "refresh_token").len(), 2);
}

#[tokio::test]
async fn the_sign_ins_token_waits_for_a_provider_that_is_away() {
    let (app, backend) = with_upstream_token("").await;
    let (_, alices) = tokens(&app, "alice").await;
    let url = app.mcp_url();
    app.advance(5 * 60);
    for (status, body) in [(503, ""), (200, "<html>"), (401, "{\"error\":\"invalid_client\"}")] {
        app.idp.misbehave(|how| how.refresh_answer = Some((status, body.to_owned())));
        assert_unavailable(&ping(&app, &url, &alices).await);
        app.advance(60);
    }
    assert!(backend.take().is_empty());
    app.idp.misbehave(|how| how.refresh_answer = None);
    assert_passed(&ping(&app, &url, &alices).await);
    let bearer = format!("Bearer {}", sent(&backend)[0]);
    let userinfo = format!("{}/userinfo", app.idp.issuer());
    app.http.send("GET", &userinfo, &[("authorization", &bearer)], "").await.assert_status(200);
}

#[tokio::test]
async fn a_refused_token_of_the_sign_in_is_renewed_for_the_next_call() {
    let (app, backend) = with_upstream_token("").await;
    let (_, alices) = tokens(&app, "alice").await;
    let url = app.mcp_url();
    backend.answers(|_| status(401));

    for _ in 0..4 {
        assert_eq!(ping(&app, &url, &alices).await.status, 502);
    }

    assert_eq!(asked(&app, "refresh_token").len(), 1);
    let sent = sent(&backend);
    assert_eq!(sent.len(), 4, "nothing is repeated");
    assert!(sent[0] != sent[1] && sent[1] == sent[3]);
}

const EXCHANGE: &str =
    "exchange = \"rfc8693\"\naudience = \"api://backend\"\nscopes = [\"a\", \"b\"]";
const TOKEN_EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// The provider answers this to everything but refreshes.
fn answer_exchanges(app: &TestApp, status: u16, body: &Value) {
    let body = body.to_string();
    app.idp.misbehave(|how| how.token_answer = Some((status, body)));
}

#[tokio::test]
async fn the_mcp_server_gets_the_exchanged_token_and_never_the_broad_one() {
    let (app, backend) = with_upstream_token(EXCHANGE).await;
    let (_, alices) = tokens(&app, "alice").await;
    let url = app.mcp_url();
    let issued = app.idp.issued();
    let answer = json!({
        "access_token": "exchanged-1",
        "issued_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "token_type": "Bearer",
        "expires_in": 200,
    });
    answer_exchanges(&app, 200, &answer);

    let answers = join_all((0..20).map(|_| ping(&app, &url, &alices))).await;

    answers.iter().for_each(assert_passed);
    assert_eq!(sent(&backend), vec!["exchanged-1".to_owned(); 20]);
    let exchanges = asked(&app, TOKEN_EXCHANGE);
    assert_eq!(exchanges.len(), 1, "it is remembered");
    let field = |name: &str| exchanges[0].form_field(name).unwrap_or_default();
    let access_token = "urn:ietf:params:oauth:token-type:access_token";
    assert_eq!(field("subject_token_type"), access_token);
    assert_eq!((field("audience"), field("scope")), ("api://backend".into(), "a b".into()));
    assert!(issued.contains(&field("subject_token")));

    app.advance(141); // less than a minute is left
    let answer =
        json!({ "access_token": "exchanged-2", "token_type": "Bearer", "expires_in": 200 });
    answer_exchanges(&app, 200, &answer);
    assert_passed(&ping(&app, &url, &alices).await);
    assert_eq!(sent(&backend), ["exchanged-2"]);
    // The API behind refuses it: the next call has a new one.
    backend.answers(|_| status(401));
    ping(&app, &url, &alices).await;
    let answer =
        json!({ "access_token": "exchanged-3", "token_type": "Bearer", "expires_in": 200 });
    answer_exchanges(&app, 200, &answer);
    ping(&app, &url, &alices).await;
    assert_eq!(sent(&backend), ["exchanged-2", "exchanged-3"]);
    assert_eq!(asked(&app, TOKEN_EXCHANGE).len(), 3);
    assert!(asked(&app, "refresh_token").is_empty(), "the broad token was not refused");
}

#[tokio::test]
async fn an_exchange_that_fails_sends_nothing() {
    for (code, body) in [
        (400, json!({ "error": "invalid_target" })),
        (400, json!({ "error": "invalid_request" })),
        (401, json!({ "error": "invalid_client" })),
        (503, json!({})),
        (200, json!({ "token_type": "N_A" })),
        (200, json!({ "access_token": "two\nlines" })),
    ] {
        let (app, backend) = with_upstream_token(EXCHANGE).await;
        let (_, alices) = tokens(&app, "alice").await;
        answer_exchanges(&app, code, &body);

        assert_unavailable(&ping(&app, &app.mcp_url(), &alices).await);
        assert_unavailable(&ping(&app, &app.mcp_url(), &alices).await);

        assert!(backend.take().is_empty(), "{body}");
        assert_eq!(asked(&app, TOKEN_EXCHANGE).len(), 1, "{body}: it is not asked at every call");
    }
    // Only a sign-in helps.
    let (app, backend) = with_upstream_token(EXCHANGE).await;
    let (_, alices) = tokens(&app, "alice").await;
    answer_exchanges(&app, 400, &json!({ "error": "interaction_required", "claims": "{}" }));
    let answer = ping(&app, &app.mcp_url(), &alices).await;
    assert!(answer.status != 503 && !answer.text().contains("\"result\":{}"), "{}", answer.text());
    assert!(backend.take().is_empty());
}

#[tokio::test]
async fn entra_exchanges_on_behalf_of_the_person() {
    const TENANT: &str = "11111111-2222-3333-4444-555555555555";
    let setup = Setup {
        persona: true,
        ..Setup::toml(format!("[upstream]\nprovider = \"entra\"\ntenant = \"{TENANT}\""))
    };
    let more = "exchange = \"entra_obo\"\naudience = \"api://backend\"";
    let (app, backend) = with_setup(more, setup).await;
    app.idp.misbehave(|how| {
        how.change_id_token = Some(|claims| {
            claims["tid"] = TENANT.into();
            claims["oid"] = "object".into();
        });
    });
    let (_, alices) = tokens(&app, "alice").await;
    let answer = json!({ "access_token": "on-behalf", "token_type": "Bearer", "expires_in": 3599 });
    answer_exchanges(&app, 200, &answer);

    assert_passed(&ping(&app, &app.mcp_url(), &alices).await);

    assert_eq!(sent(&backend), ["on-behalf"]);
    let exchanges = asked(&app, "urn:ietf:params:oauth:grant-type:jwt-bearer");
    let field = |name: &str| exchanges[0].form_field(name).unwrap_or_default();
    assert_eq!(field("requested_token_use"), "on_behalf_of");
    assert_eq!(field("scope"), "api://backend/.default");
    assert!(app.idp.issued().contains(&field("assertion")));
}

#[tokio::test]
async fn the_tokens_of_a_sign_in_are_revoked_when_its_last_grant_ends() {
    let (app, _backend) = with_upstream_token("").await;
    let (client, alices) = tokens(&app, "alice").await;
    client.revoke(&alices.refresh_token).await.assert_status(200);

    // The provider is asked by now, or within the hour: the session may have been in use for a moment.
    for _ in 0..10 {
        if app.idp.requests_to("/revoke") > 0 {
            break;
        }
        app.revoke_round().await;
        app.advance(3600);
    }

    let revoked: Vec<String> = app
        .idp
        .recorded()
        .iter()
        .filter(|request| request.path == "/revoke")
        .filter_map(|request| request.form_field("token"))
        .collect();
    assert!(!revoked.is_empty());
    assert!(revoked.iter().all(|token| app.idp.issued().contains(token)), "{revoked:?}");
}

#[tokio::test]
async fn nothing_is_revoked_at_the_provider_if_the_configuration_says_so() {
    let setup = Setup::toml("[upstream]\nrevoke_upstream = false");
    let (app, _backend) = with_setup("", setup).await;
    let (client, alices) = tokens(&app, "alice").await;
    client.revoke(&alices.refresh_token).await.assert_status(200);
    for _ in 0..3 {
        app.advance(3600);
        app.revoke_round().await;
    }
    assert_eq!(app.idp.requests_to("/revoke"), 0);
    assert_eq!(app.database.number("SELECT COUNT(*) FROM token_revocations").await, 0);
}
