//! The gateway gives MCP servers the tokens of the services that their people connected, and tells clients in
//! the way that each understands that its person has to connect one first.

use axum::http::HeaderMap;
use futures_util::future::join_all;
use portcullis::storage::{AuditFilter, CallOutcome, UsageFilter, UsageRange, UsageStep};
use serde_json::{Value, json};

use crate::harness::backend::{Backend, answer, answer_json, post, request, send, tokens};
use crate::harness::client::Tokens;
use crate::harness::connect::{connect_as, connect_url, nearly_connect};
use crate::harness::console::{Console, with_query};
use crate::harness::http::Answer;
use crate::harness::service::FakeService;
use crate::harness::{Setup, TestApp, raw};

/// The header of the token, as it arrives.
const HEADER: &str = "x-github-token";
const GITHUB: &str = "header = \"X-GitHub-Token\"\nscopes = [\"read\", \"write\"]";
/// What a client of MCP 2026-07-28 can do.
const SHOWS_LINKS: &str = r#"{"elicitation":{"form":{},"url":{}}}"#;

/// An MCP server that uses the service `github`.
struct World {
    app: TestApp,
    backend: Backend,
    service: FakeService,
}

/// `extra` are lines of the MCP server, `connection` those of its `[[resource.connection]]`.
async fn world(extra: &str, connection: &str) -> World {
    let more = "title = \"GitHub\"\n[connection.scope_texts]\nwrite = \"Change your issues\"";
    world_of(extra, connection, more).await
}

async fn world_of(extra: &str, connection: &str, service_lines: &str) -> World {
    let (backend, service) = (Backend::start().await, FakeService::start().await);
    let setup = format!(
        r#"
[[resource]]
path   = "/mcp"
name   = "Issue tracker"
target = "{}/mcp"
scopes = ["read", "write"]
{extra}
rule = [
  {{ roles = ["Admin"], allow = ["read", "write"] }},
  {{ roles = ["User"], allow = ["read"] }},
]
[[resource.connection]]
name = "github"
{connection}
{}
[limits]
requests_per_person = 1000
"#,
        backend.url,
        service.toml_with("github", "oauth2", &["read", "write"], service_lines),
    );
    let app = TestApp::with(Setup::toml(setup)).await;
    World { app, backend, service }
}

fn call(tool: &str) -> Value {
    request("tools/call", &json!({ "name": tool, "arguments": { "title": "broken", "n": 7 } }))
}

impl World {
    /// A call by a client that says nothing of itself.
    async fn call(&self, tokens: &Tokens, tool: &str) -> Answer {
        post(&self.app, tokens, &[], &call(tool)).await
    }

    /// A request of MCP 2026-07-28 by a client that shows links.
    async fn modern(&self, tokens: &Tokens, message: &Value) -> Answer {
        let mut message = message.clone();
        message["params"]["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities":
                serde_json::from_str::<Value>(SHOWS_LINKS).unwrap(),
        });
        let params = &message["params"];
        let name = params["name"].as_str().or(params["uri"].as_str()).unwrap().to_owned();
        let method = message["method"].as_str().unwrap().to_owned();
        let headers = [
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", method.as_str()),
            ("mcp-name", name.as_str()),
        ];
        post(&self.app, tokens, &headers, &message).await
    }

    /// The only request that reached the MCP server since the last time, by its headers.
    #[track_caller]
    fn one_request(&self) -> HeaderMap {
        let mut seen = self.backend.take();
        assert_eq!(seen.len(), 1, "{seen:?}");
        seen.remove(0).headers
    }

    /// The token of the service that the only request carried.
    #[track_caller]
    fn one_token(&self) -> String {
        let headers = self.one_request();
        assert_eq!(headers.get_all(HEADER).iter().count(), 1, "{headers:?}");
        headers[HEADER].to_str().unwrap().to_owned()
    }

    fn link(&self) -> String {
        connect_url(&self.app, "github", &self.app.mcp_url())
    }

    /// Somebody whose token of the service has ended, and can be renewed.
    async fn with_an_old_token(&self, person: &str) -> Tokens {
        self.service.expire_in(Some(120));
        connect_as(&self.app, person, "github").await;
        let (_, tokens) = tokens(&self.app, person).await;
        self.app.advance(130);
        tokens
    }
}

/// The text of a tool's result that says that something failed.
#[track_caller]
fn told(answer: &Answer) -> String {
    answer.assert_status(200);
    let json = answer.json();
    assert_eq!(json["result"]["isError"], true, "{json}");
    assert_eq!(json["result"]["resultType"], "complete", "{json}");
    assert_eq!((&json["id"], json.get("error")), (&json!(1), None), "{json}");
    json["result"]["content"][0]["text"].as_str().unwrap().to_owned()
}

/// The link in a text: it stands on a line of its own.
#[track_caller]
fn link_in(text: &str) -> String {
    let links: Vec<&str> = text.lines().filter(|line| line.starts_with("http")).collect();
    assert_eq!(links.len(), 1, "{text}");
    links[0].to_owned()
}

#[track_caller]
fn assert_answered(answer: &Answer) {
    answer.assert_status(200);
    assert_eq!(answer.json()["result"], json!({}), "{}", answer.text());
}

#[tokio::test]
async fn a_call_carries_the_persons_own_token_and_no_client_sees_it() {
    let world = world("", GITHUB).await;
    let World { app, service, .. } = &world;
    let mut found = Vec::new();
    for person in ["alice", "bob"] {
        service.account(person);
        connect_as(app, person, "github").await;
        let (_, tokens) = tokens(app, person).await;

        let answer = world.call(&tokens, "open-issue").await;

        assert_answered(&answer);
        let headers = world.one_request();
        let token = headers[HEADER].to_str().unwrap().to_owned();
        assert_eq!(service.api(&token).unwrap()["login"], person);
        assert!(headers.get("authorization").is_none(), "{headers:?}");
        assert!(
            !answer.text().contains(&token) && !format!("{:?}", answer.headers).contains(&token)
        );
        found.push(token);
    }
    assert_ne!(found[0], found[1]);
    assert_eq!(service.refreshes(), 0);
}

#[tokio::test]
async fn authorization_carries_the_token_after_bearer() {
    let world = world("", "header = \"Authorization\"").await;
    connect_as(&world.app, "alice", "github").await;
    let (_, alices) = tokens(&world.app, "alice").await;

    assert_answered(&world.call(&alices, "open-issue").await);

    let headers = world.one_request();
    let expected = format!("Bearer {}", world.service.live()[0]);
    let sent: Vec<_> = headers.get_all("authorization").iter().collect();
    assert_eq!(sent, [expected.as_str()]);
}

#[tokio::test]
async fn the_sign_ins_own_token_goes_to_the_server_that_asks_for_it() {
    let backend = Backend::start().await;
    let token = "[resource.upstream_token]\nheader = \"X-Portcullis-Upstream-Token\"";
    let app = backend.behind("", token).await;
    let (client, bobs) = tokens(&app, "bob").await;
    let ping = request("ping", &json!({}));
    let sent = async |tokens: &Tokens| {
        post(&app, tokens, &[], &ping).await.assert_status(200);
        let seen = backend.take().pop().unwrap();
        let token = seen.header("x-portcullis-upstream-token").unwrap().to_owned();
        let bearer = format!("Bearer {token}");
        let userinfo = format!("{}/userinfo", app.idp.issuer());
        let about =
            app.http.send("GET", &userinfo, &[("authorization", bearer.as_str())], "").await;
        assert_eq!(about.assert_status(200).json()["sub"], "demo-bob");
        token
    };
    let first = sent(&bobs).await;
    assert_eq!(sent(&bobs).await, first, "it is fresh");

    app.advance(6 * 60); // the provider's tokens live for five minutes
    let next = sent(&bobs).await;

    assert_ne!(next, first);
    app.advance(5 * 60);
    let bobs = Tokens::of(&client.refresh(&bobs.refresh_token).await);
    assert_ne!(sent(&bobs).await, next);
    // Another MCP server gets nothing.
    let app = backend.behind("", "").await;
    let (_, bobs) = tokens(&app, "bob").await;
    post(&app, &bobs, &[], &ping).await.assert_status(200);
    assert_eq!(backend.take().pop().unwrap().header("x-portcullis-upstream-token"), None);
}

#[tokio::test]
async fn ut_03_a_clients_own_header_never_reaches_the_mcp_server_however_it_is_spelled() {
    let optional = format!("{GITHUB}\nrequired = false");
    let world = world("", &optional).await;
    let app = &world.app;
    connect_as(app, "alice", "github").await;
    let body = call("open-issue").to_string();
    let spelled = [
        "X-GitHub-Token: evil",
        "x-github-token: evil",
        "X-GITHUB-TOKEN: evil",
        "X_GitHub_Token: evil",
        "x-github_token: evil",
        "X.GitHub.Token: evil",
        "x-github-token: evil\r\nX-GitHub-Token: evil",
        "x-github-token:\tevil \r\nX-Github-Token:",
        "Mcp-Param-Token: fine",
    ];
    for person in ["alice", "bob"] {
        let (_, tokens) = tokens(app, person).await;
        let live = world.service.live();
        for header in spelled {
            for trailer in [false, true] {
                let head = format!(
                    "POST {}/mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
                     Connection: close\r\n",
                    raw::path(&app.url),
                    raw::host(&app.url),
                    tokens.access_token
                );
                let sent = if trailer {
                    format!(
                        "{head}Trailer: X-GitHub-Token\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\
                         {header}\r\n\r\n",
                        body.len()
                    )
                } else {
                    format!("{head}{header}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
                };
                let status = raw::status(&raw::exchange(&app.url, &sent).await);
                let seen = world.backend.take();
                // A header with an underscore is ambiguous, and refused wherever it goes.
                let ambiguous = !trailer && header.contains('_');
                assert_eq!((status, seen.len()), if ambiguous { (400, 0) } else { (200, 1) });
                for seen in seen {
                    let values: Vec<_> = seen.headers.get_all(HEADER).iter().collect();
                    let expected: Vec<&str> = match person {
                        "alice" => vec![live[0].as_str()],
                        _ => Vec::new(),
                    };
                    assert_eq!(values, expected, "{header:?} {trailer} of {person}");
                    let all = format!("{:?}", seen.headers);
                    assert!(!all.contains("evil"), "{header:?} {trailer} of {person}: {all}");
                }
            }
        }
    }
}

#[tokio::test]
async fn ut_04_a_redirect_of_the_mcp_server_never_carries_the_token_off() {
    let world = world("", GITHUB).await;
    connect_as(&world.app, "alice", "github").await;
    let (_, alices) = tokens(&world.app, "alice").await;
    let elsewhere = Backend::start().await;
    for status in [301, 302, 303, 307, 308] {
        for to in [
            format!("{}/mcp", elsewhere.url),
            format!("{}/mcp/", elsewhere.url),
            "/other".to_owned(),
        ] {
            let location = to.clone();
            world.backend.answers(move |_| answer(status, &[("location", &location)], ""));

            let refused = world.call(&alices, "open-issue").await;

            refused.assert_status(502);
            assert_eq!(refused.header("location"), None);
            assert!(elsewhere.take().is_empty(), "{status} {to}");
            assert_eq!(world.backend.take().len(), 1, "{status} {to}");
        }
    }
    // The same server with a slash at the end is no other place.
    world.backend.answers(|seen| match seen.path.as_str() {
        "/mcp" => answer(308, &[("location", "/mcp/")], ""),
        _ => answer_json(&json!({ "jsonrpc": "2.0", "id": 1, "result": {} })),
    });
    assert_answered(&world.call(&alices, "open-issue").await);
    let seen = world.backend.take();
    assert_eq!(seen.len(), 2);
    assert_eq!(seen[1].header(HEADER), Some(world.service.live()[0].as_str()));
}

#[tokio::test]
async fn ut_09_nothing_is_sent_for_somebody_whose_grant_was_revoked_or_who_is_blocked() {
    let world = world("", GITHUB).await;
    let World { app, backend, service } = &world;
    connect_as(app, "bob", "github").await;
    let (client, bobs) = tokens(app, "bob").await;
    assert_answered(&world.call(&bobs, "open-issue").await);

    client.revoke(&bobs.refresh_token).await.assert_status(200);
    backend.take();
    world.call(&bobs, "open-issue").await.assert_status(401);

    let (_, bobs) = tokens(app, "bob").await;
    assert_answered(&world.call(&bobs, "open-issue").await);
    backend.take();
    let alice = Console::admin(app).signed_in(app, "alice").await;
    let path = with_query("/person", &[("sub", "oidc:demo-bob")]);
    alice.press_and_confirm(&path, "action", "block").await.assert_leads_to(&alice.at("/person"));
    let asked = service.token_requests().len();
    world.call(&bobs, "open-issue").await.assert_status(401);

    assert!(backend.take().is_empty());
    assert_eq!(service.token_requests().len(), asked, "nor is a token fetched");
}

#[tokio::test]
async fn ut_09_who_was_signed_out_at_the_provider_gives_no_token_away() {
    let backend = Backend::start().await;
    let token = "[resource.upstream_token]\nheader = \"X-Portcullis-Upstream-Token\"";
    let app = backend.behind("", token).await;
    let (_, bobs) = tokens(&app, "bob").await;
    let call = call("open-issue");
    post(&app, &bobs, &[], &call).await.assert_status(200);
    backend.take();

    app.idp.disable("bob");
    app.advance(6 * 60);
    let answer = post(&app, &bobs, &[], &call).await;

    let challenge = answer.assert_status(401).header("www-authenticate").unwrap();
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    assert!(backend.take().is_empty());
}

#[tokio::test]
async fn a_client_that_shows_links_by_input_required_is_asked_and_its_repeated_call_succeeds() {
    let world = world("", GITHUB).await;
    let (_, bobs) = tokens(&world.app, "bob").await;
    let open = call("open-issue");

    let answer = world.modern(&bobs, &open).await;

    let json = answer.assert_status(200).json();
    let result = &json["result"];
    assert_eq!((&json["jsonrpc"], &json["id"]), (&json!("2.0"), &json!(1)));
    assert_eq!(result["resultType"], "input_required");
    let requests = result["inputRequests"].as_object().unwrap();
    assert_eq!(requests.keys().collect::<Vec<_>>(), ["connect-github"]);
    let asked = &requests["connect-github"];
    assert_eq!(asked["method"], "elicitation/create");
    let params = asked["params"].as_object().unwrap();
    assert_eq!(params.keys().collect::<Vec<_>>(), ["message", "mode", "url"]);
    assert_eq!((&params["mode"], &params["url"]), (&json!("url"), &json!(world.link())));
    let message = params["message"].as_str().unwrap();
    for words in
        ["Issue tracker needs GitHub", "read", "Change your issues", "never sees the token"]
    {
        assert!(message.contains(words), "{message}");
    }
    let state = result["requestState"].as_str().unwrap();
    assert!(!state.contains("bob") && !world.link().contains("bob"));
    assert!(world.backend.take().is_empty());

    // The person follows the link, and the client repeats the request.
    connect_as(&world.app, "bob", "github").await;
    let mut again = open.clone();
    again["params"]["inputResponses"] = json!({ "connect-github": { "action": "accept" } });
    again["params"]["requestState"] = state.into();
    assert_answered(&world.modern(&bobs, &again).await);

    let seen = world.backend.take().pop().unwrap();
    assert_eq!(seen.header(HEADER), Some(world.service.live()[0].as_str()));
    let arrived = seen.json();
    assert_eq!(arrived["params"]["arguments"], open["params"]["arguments"]);
    assert_eq!(arrived["params"].get("requestState"), None, "ut_11: our state is ours");
    assert_eq!(arrived["params"].get("inputResponses"), None);
    // From now on without.
    assert_answered(&world.modern(&bobs, &open).await);
}

#[tokio::test]
async fn a_repeated_call_waits_while_its_person_connects_the_service() {
    let world = world("", GITHUB).await;
    let (_, bobs) = tokens(&world.app, "bob").await;
    let mut open = call("open-issue");
    let answer = world.modern(&bobs, &open).await;
    open["params"]["requestState"] = answer.json()["result"]["requestState"].clone();
    open["params"]["inputResponses"] = json!({ "connect-github": { "action": "accept" } });

    let (answer, _) =
        tokio::join!(world.modern(&bobs, &open), connect_as(&world.app, "bob", "github"));

    assert_answered(&answer);
    assert_eq!(world.one_token(), world.service.live()[0]);
}

#[tokio::test]
async fn a_person_who_does_not_come_back_is_asked_once_more_and_who_declines_reads_a_text() {
    let world = world("timeout = \"1s\"", GITHUB).await;
    let (client, bobs) = tokens(&world.app, "bob").await;
    let answer = world.modern(&bobs, &call("open-issue")).await;
    let state = answer.json()["result"]["requestState"].clone();
    let mut again = call("open-issue");
    again["params"]["requestState"] = state.clone();
    for (responses, result_type) in [
        (json!({ "connect-github": { "action": "accept" } }), "input_required"),
        (json!({}), "input_required"),
        (json!({ "connect-github": { "action": "decline" } }), "complete"),
        (json!({ "connect-github": { "action": "cancel" } }), "complete"),
    ] {
        again["params"]["inputResponses"] = responses.clone();
        let json = world.modern(&bobs, &again).await.json();
        assert_eq!(json["result"]["resultType"], result_type, "{responses}: {json}");
    }
    // A call that waits ends with its grant.
    again["params"]["inputResponses"] = json!({ "connect-github": { "action": "accept" } });
    let (answer, _) = tokio::join!(world.modern(&bobs, &again), client.revoke(&bobs.refresh_token));
    answer.assert_status(401);
    assert!(world.backend.take().is_empty());
}

#[tokio::test]
async fn ut_11_a_state_of_ours_is_good_for_one_person_client_and_request_and_ends_after_ten_minutes()
 {
    let world = world("", GITHUB).await;
    let (app, backend) = (&world.app, &world.backend);
    let (client, bobs) = tokens(app, "bob").await;
    let answer = world.modern(&bobs, &call("open-issue")).await;
    let state = answer.json()["result"]["requestState"].as_str().unwrap().to_owned();
    connect_as(app, "bob", "github").await;
    connect_as(app, "alice", "github").await;
    let carrying = |tool: &str, state: &str| {
        let mut call = call(tool);
        call["params"]["requestState"] = state.into();
        call["params"]["inputResponses"] = json!({ "connect-github": { "action": "accept" } });
        call
    };
    let assert_refused = |answer: &Answer, why: &str| {
        answer.assert_status(400);
        assert_eq!(answer.json()["error"]["code"], -32602, "{why}: {}", answer.text());
        assert_eq!(answer.json()["id"], 1);
        assert!(backend.take().is_empty(), "{why}");
    };
    let (_, alices) = tokens(app, "alice").await;
    assert_refused(&world.modern(&alices, &carrying("open-issue", &state)).await, "person");
    let other = app.client_named("Other").await;
    let back = other.authorize("bob", &[("scope", "")]).await;
    let others = Tokens::of(&other.redeem(&back.location_param("code").unwrap()).await);
    assert_refused(&world.modern(&others, &carrying("open-issue", &state)).await, "client");
    assert_refused(&world.modern(&bobs, &carrying("close-issue", &state)).await, "tool");
    let mut changed = carrying("open-issue", &state);
    changed["params"]["arguments"]["title"] = "other".into();
    assert_refused(&world.modern(&bobs, &changed).await, "arguments");
    for at in [0, 12, state.len() / 2, state.len() - 1] {
        let mut forged = state.clone().into_bytes();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).unwrap();
        if forged.starts_with("portcullis.") {
            let answer = world.modern(&bobs, &carrying("open-issue", &forged)).await;
            assert_refused(&answer, "forged");
        }
    }
    let long = format!("portcullis.{}", "x".repeat(10_000));
    assert_refused(&world.modern(&bobs, &carrying("open-issue", &long)).await, "long");

    app.advance(500);
    let bobs = Tokens::of(&client.refresh(&bobs.refresh_token).await);
    app.advance(99);
    assert_answered(&world.modern(&bobs, &carrying("open-issue", &state)).await);
    backend.take();
    app.advance(1);
    assert_refused(&world.modern(&bobs, &carrying("open-issue", &state)).await, "late");
}

#[tokio::test]
async fn ut_11_the_state_of_an_mcp_server_passes_unchanged_and_is_never_replaced() {
    let world = world("", GITHUB).await;
    let (_, bobs) = tokens(&world.app, "bob").await;
    let mut carrying = call("open-issue");
    carrying["params"]["requestState"] = "state of the server".into();
    carrying["params"]["inputResponses"] = json!({ "which": { "action": "accept" } });

    let text = told(&world.modern(&bobs, &carrying).await);

    assert_eq!(link_in(&text), world.link());
    assert!(world.backend.take().is_empty());
    connect_as(&world.app, "bob", "github").await;
    assert_answered(&world.modern(&bobs, &carrying).await);
    let arrived = world.backend.take().pop().unwrap().json();
    assert_eq!(arrived["params"]["requestState"], "state of the server");
    assert_eq!(arrived["params"]["inputResponses"], carrying["params"]["inputResponses"]);
    // What the MCP server asks of the client itself reaches it.
    let asks = json!({ "jsonrpc": "2.0", "id": 1, "result": {
        "resultType": "input_required", "requestState": "s", "inputRequests": {} } });
    let said = asks.clone();
    world.backend.answers(move |_| answer_json(&said));
    assert_eq!(world.modern(&bobs, &call("open-issue")).await.json(), asks);
}

/// Begins a session of MCP 2025-11-25; answers the sealed id.
async fn session(world: &World, tokens: &Tokens, capabilities: &Value, id: &'static str) -> String {
    world.backend.answers(move |seen| {
        let result = json!({ "jsonrpc": "2.0", "id": seen.json()["id"], "result": {} });
        let headers = [("content-type", "application/json"), ("mcp-session-id", id)];
        answer(200, &headers, result.to_string())
    });
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities,
        "clientInfo": { "name": "test", "version": "1" } });
    let answer = post(&world.app, tokens, &[], &request("initialize", &params)).await;
    assert_answered(&answer);
    world.backend.take();
    answer.header("mcp-session-id").unwrap().to_owned()
}

#[tokio::test]
async fn a_client_that_shows_links_by_an_error_is_asked_and_its_repeated_call_succeeds() {
    let mut world = world("", GITHUB).await;
    let (_, bobs) = tokens(&world.app, "bob").await;
    let shows = json!({ "elicitation": { "form": {}, "url": {} }, "sampling": {} });
    let sealed = session(&world, &bobs, &shows, "s-1").await;
    let other = session(&world, &bobs, &json!({ "elicitation": {} }), "s-2").await;
    let in_session = |id: &str| {
        [("mcp-session-id", id.to_owned()), ("mcp-protocol-version", "2025-11-25".to_owned())]
    };
    let ask = async |world: &World, id: &str| {
        let headers = in_session(id);
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        post(&world.app, &bobs, &headers, &call("open-issue")).await
    };

    let answer = ask(&world, &sealed).await;

    let json = answer.assert_status(200).json();
    assert_eq!((&json["id"], json.get("result")), (&json!(1), None));
    assert_eq!(json["error"]["code"], -32042, "{json}");
    assert_eq!(link_in(json["error"]["message"].as_str().unwrap()), world.link());
    let asked = json["error"]["data"]["elicitations"].as_array().unwrap();
    assert_eq!(asked.len(), 1);
    let members = asked[0].as_object().unwrap();
    assert_eq!(members.keys().collect::<Vec<_>>(), ["elicitationId", "message", "mode", "url"]);
    assert_eq!((&asked[0]["mode"], &asked[0]["url"]), (&json!("url"), &json!(world.link())));
    let id = asked[0]["elicitationId"].as_str().unwrap();
    let again = ask(&world, &sealed).await.json();
    assert_ne!(again["error"]["data"]["elicitations"][0]["elicitationId"], id, "unique");
    // Another session of the same client, and one that this process does not know.
    assert_eq!(link_in(&told(&ask(&world, &other).await)), world.link());
    assert!(world.backend.take().is_empty());

    connect_as(&world.app, "bob", "github").await;
    assert_answered(&ask(&world, &sealed).await);
    assert_eq!(world.one_token(), world.service.live()[0]);
    let event = world.app.audit_event("connection_removed");
    let (storage, now) = (world.app.storage(), world.app.now());
    assert!(storage.remove_connection("oidc:demo-bob", "github", now, event).await.unwrap());
    assert_eq!(ask(&world, &sealed).await.json()["error"]["code"], -32042);
    drop(storage);
    world.app.restart().await;
    assert_eq!(link_in(&told(&ask(&world, &sealed).await)), world.link());
}

#[tokio::test]
async fn every_other_client_reads_the_link_in_clear_words_and_its_repeated_call_succeeds() {
    let world = world("", GITHUB).await;
    let (_, bobs) = tokens(&world.app, "bob").await;

    let text = told(&world.call(&bobs, "open-issue").await);

    assert_eq!(link_in(&text), world.link());
    for words in [
        "Issue tracker needs GitHub, and you have not connected GitHub yet.",
        "Issue tracker will act in GitHub as you, with: read; Change your issues.",
        "Your application never sees the token.",
        "Open this link in your browser to connect GitHub:",
        "repeat the request",
    ] {
        assert!(text.contains(words), "{text}");
    }
    assert!(world.backend.take().is_empty());
    // Prompts and resources have no results that say so.
    for (method, params) in
        [("prompts/get", json!({ "name": "p" })), ("resources/read", json!({ "uri": "file:///x" }))]
    {
        let json = post(&world.app, &bobs, &[], &request(method, &params)).await.json();
        assert_eq!(json["error"]["code"], -32010, "{json}");
        assert_eq!(json["error"]["data"]["connect_urls"], json!([world.link()]));
        assert_eq!(link_in(json["error"]["message"].as_str().unwrap()), world.link());
        let asked = world.modern(&bobs, &request(method, &params)).await.json();
        assert_eq!(asked["result"]["resultType"], "input_required", "{asked}");
    }

    connect_as(&world.app, "bob", "github").await;
    assert_answered(&world.call(&bobs, "open-issue").await);
    assert_eq!(world.one_token(), world.service.live()[0]);
}

#[tokio::test]
async fn a_client_can_always_begin_list_and_listen() {
    let world = world("", GITHUB).await;
    let (_, bobs) = tokens(&world.app, "bob").await;
    let methods =
        ["initialize", "tools/list", "prompts/list", "ping", "server/discover", "acme/own"];
    let check = async |connected: bool| {
        for method in methods {
            post(&world.app, &bobs, &[], &request(method, &json!({}))).await.assert_status(200);
            assert_eq!(world.one_request().contains_key(HEADER), connected, "{method}");
        }
        let notice = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let list = json!([request("tools/list", &json!({})), request("ping", &json!({}))]);
        for body in [notice.to_string(), list.to_string(), "no JSON".to_owned()] {
            send(&world.app, &bobs, "POST", &[], body).await.assert_status(200);
            assert_eq!(world.one_request().contains_key(HEADER), connected);
        }
        for method in ["GET", "DELETE"] {
            send(&world.app, &bobs, method, &[], "").await.assert_status(200);
            assert_eq!(world.one_request().contains_key(HEADER), connected, "{method}");
        }
    };
    check(false).await;
    connect_as(&world.app, "bob", "github").await;
    check(true).await;
}

#[tokio::test]
async fn a_connection_of_tools_goes_with_their_calls_alone() {
    let of_tools = format!("{GITHUB}\ntools = [\"open-issue\", \"close_issue\", \"CLOSE-issue\"]");
    let world = world("", &of_tools).await;
    let (_, bobs) = tokens(&world.app, "bob").await;
    // Lenient servers read these as the tools that need the connection.
    let tools =
        ["open-issue", "Open_Issue", "OPENISSUE", "close_issue", "CLOSE-issue", "closeissue"];
    let others = ["look", "open-issues", "open-issu", "--"];
    for tool in tools {
        assert_eq!(link_in(&told(&world.call(&bobs, tool).await)), world.link(), "{tool}");
    }
    assert!(world.backend.take().is_empty());
    connect_as(&world.app, "bob", "github").await;
    for tool in tools {
        assert_answered(&world.call(&bobs, tool).await);
        assert_eq!(world.one_token(), world.service.live()[0], "{tool}");
    }
    for tool in others {
        assert_answered(&world.call(&bobs, tool).await);
        assert!(!world.one_request().contains_key(HEADER), "{tool}");
    }
    for (method, params) in [("tools/list", json!({})), ("prompts/get", json!({ "name": "p" }))] {
        post(&world.app, &bobs, &[], &request(method, &params)).await.assert_status(200);
        assert!(!world.one_request().contains_key(HEADER), "{method}");
    }
    // The token goes with a batch in which one message calls such a tool.
    let batch = json!([request("ping", &json!({})), call("open-issue")]);
    post(&world.app, &bobs, &[], &batch).await.assert_status(200);
    assert!(world.one_request().contains_key(HEADER));
    // As with tool rules, a call that two servers could read differently does not pass.
    let doubled = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"look","name":"open-issue"}}"#;
    send(&world.app, &bobs, "POST", &[], doubled).await.assert_status(400);
    assert!(world.backend.take().is_empty());
}

#[tokio::test]
async fn a_request_whose_response_cannot_carry_a_link_is_refused_with_it() {
    let world = world("", GITHUB).await;
    let (_, bobs) = tokens(&world.app, "bob").await;
    let batch = json!([request("ping", &json!({})), call("open-issue")]);
    let notification =
        json!({ "jsonrpc": "2.0", "method": "tools/call", "params": { "name": "x" } });
    for body in [batch, notification] {
        let answer = post(&world.app, &bobs, &[], &body).await;
        answer.assert_error(403, "connection_required");
        assert_eq!(link_in(answer.json()["error_description"].as_str().unwrap()), world.link());
        assert_eq!(answer.header("www-authenticate"), None, "more scopes would not help");
    }
    assert!(world.backend.take().is_empty());

    let old = world_of("transport = \"http+sse\"", GITHUB, "title = \"GitHub\"").await;
    let (_, bobs) = tokens(&old.app, "bob").await;
    for answer in [old.call(&bobs, "x").await, old.modern(&bobs, &call("x")).await] {
        answer.assert_status(403);
        let error = &answer.json()["error"];
        assert_eq!(error["data"]["error"], "connection_required", "{}", answer.text());
        assert_eq!(link_in(error["message"].as_str().unwrap()), old.link());
    }
    // Its event stream opens, so that the client can say so.
    old.backend.answers(|_| answer(200, &[("content-type", "text/event-stream")], ": hi\n\n"));
    send(&old.app, &bobs, "GET", &[], "").await.assert_status(200);
}

#[tokio::test]
async fn an_optional_connection_is_demanded_of_nobody() {
    let world = world("", &format!("{GITHUB}\nrequired = false")).await;
    let bobs = world.with_an_old_token("bob").await;
    let (_, alices) = tokens(&world.app, "alice").await;
    assert_answered(&world.call(&alices, "open-issue").await);
    assert!(!world.one_request().contains_key(HEADER));
    world.service.down(true);
    assert_answered(&world.call(&bobs, "open-issue").await);
    assert!(!world.one_request().contains_key(HEADER), "the service is down");
    world.service.down(false);
    world.app.advance(60);
    assert_answered(&world.call(&bobs, "open-issue").await);
    assert!(world.service.api(&world.one_token()).is_ok());
}

#[tokio::test]
async fn a_connection_without_a_header_is_demanded_and_sent_nowhere() {
    let secret = "introspection_secret = \"a secret of the MCP server, 0123456789abcdef\"";
    let world = world(secret, "scopes = [\"read\"]").await;
    let (_, bobs) = tokens(&world.app, "bob").await;
    assert_eq!(link_in(&told(&world.call(&bobs, "open-issue").await)), world.link());
    connect_as(&world.app, "bob", "github").await;
    assert_answered(&world.call(&bobs, "open-issue").await);
    let sent = format!("{:?}", world.one_request());
    assert!(!sent.contains(&world.service.live()[0]), "{sent}");
}

#[tokio::test]
async fn a_service_that_is_down_is_503_and_never_not_connected() {
    let world = world("", GITHUB).await;
    let bobs = world.with_an_old_token("bob").await;
    let fails: [&dyn Fn(); 2] = [&|| world.service.down(true), &|| {
        world.service.answers_with(500, "{\"error\":\"server_error\"}");
    }];
    for fail in fails {
        fail();

        let answer = world.modern(&bobs, &call("open-issue")).await;

        answer.assert_status(503);
        assert_eq!(answer.header("retry-after"), Some("2"));
        assert!(answer.text().contains("GitHub does not answer now"), "{}", answer.text());
        assert!(!answer.text().contains("/connect/"), "{}", answer.text());
        assert!(world.backend.take().is_empty());
        // Lists pass meanwhile.
        let list = request("tools/list", &json!({}));
        post(&world.app, &bobs, &[], &list).await.assert_status(200);
        assert!(!world.one_request().contains_key(HEADER));
        world.service.down(false);
        world.app.advance(60);
    }
    assert_answered(&world.call(&bobs, "open-issue").await);
    assert!(world.service.api(&world.one_token()).is_ok());
}

#[tokio::test]
async fn a_connection_that_the_service_refuses_has_to_be_made_again() {
    let world = world("", GITHUB).await;
    let bobs = world.with_an_old_token("bob").await;
    world.service.end_refresh_tokens();

    let text = told(&world.call(&bobs, "open-issue").await);

    assert!(text.contains("GitHub no longer accepts your connection"), "{text}");
    assert_eq!(link_in(&text), world.link());
    let asked = world.service.token_requests().len();
    told(&world.call(&bobs, "open-issue").await);
    assert_eq!(world.service.token_requests().len(), asked, "it is not asked again");
    connect_as(&world.app, "bob", "github").await;
    assert_answered(&world.call(&bobs, "open-issue").await);
    assert!(world.service.api(&world.one_token()).is_ok());
}

#[tokio::test]
async fn who_granted_too_little_reads_what_is_missing() {
    let world = world("", GITHUB).await;
    let (_, bobs) = tokens(&world.app, "bob").await;
    world.service.grant_only("read");
    let console = Console::account(&world.app).signed_in(&world.app, "bob").await;
    let back = nearly_connect(&world.app, &console, "github", &world.app.mcp_url()).await;
    console.browser.get(&back).await;

    let text = told(&world.call(&bobs, "open-issue").await);

    assert!(text.contains("needs more in GitHub than you have allowed so far"), "{text}");
    assert!(text.contains("as you, with: Change your issues."), "only what is new: {text}");
    assert_eq!(link_in(&text), world.link());
}

#[tokio::test]
async fn a_token_that_the_mcp_server_refuses_is_renewed_for_the_next_call() {
    let world = world("", GITHUB).await;
    let (_, bobs) = tokens(&world.app, "bob").await;
    connect_as(&world.app, "bob", "github").await;
    let challenge = "Bearer resource_metadata=\"https://evil.example/\", error=\"invalid_token\"";
    world.backend.answers(move |_| answer(401, &[("www-authenticate", challenge)], "evil"));

    let answer = world.call(&bobs, "open-issue").await;

    answer.assert_status(502);
    assert_eq!(answer.header("www-authenticate"), None, "the client's token is good");
    let error = &answer.json()["error"];
    assert_eq!(error["data"]["error"], "bad_gateway");
    assert!(error["message"].as_str().unwrap().contains("your token of GitHub"), "{error}");
    assert!(!answer.text().contains("evil"));
    let first = world.one_token();
    assert_eq!(world.service.refreshes(), 0, "the request is not sent again");

    world.backend.answers(|_| answer_json(&json!({ "jsonrpc": "2.0", "id": 1, "result": {} })));
    assert_answered(&world.call(&bobs, "open-issue").await);
    let next = world.one_token();
    assert_ne!(next, first);
    assert!(world.service.api(&next).is_ok());
    assert_answered(&world.call(&bobs, "open-issue").await);
    assert_eq!((world.one_token(), world.service.refreshes()), (next, 1), "one refresh");
}

#[tokio::test]
async fn ut_05_a_hundred_calls_at_once_cause_one_refresh() {
    let world = world("", GITHUB).await;
    let bobs = world.with_an_old_token("bob").await;

    let answers = join_all((0..100).map(|_| world.call(&bobs, "open-issue"))).await;

    answers.iter().for_each(assert_answered);
    assert_eq!(world.service.refreshes(), 1);
    let seen = world.backend.take();
    assert_eq!(seen.len(), 100);
    for request in seen {
        let token = request.header(HEADER).unwrap();
        assert!(world.service.api(token).is_ok(), "every call has the new one");
    }
}

#[tokio::test]
async fn what_became_of_calls_is_counted_and_recorded() {
    let world = world("", GITHUB).await;
    let app = &world.app;
    let (_, bobs) = tokens(app, "bob").await;
    for _ in 0..3 {
        told(&world.call(&bobs, "open-issue").await);
    }
    connect_as(app, "bob", "github").await;
    assert_answered(&world.call(&bobs, "open-issue").await);

    app.write_usage().await;
    let hour = crate::harness::START / 3600;
    let range = UsageRange { step: UsageStep::Hours, from: hour - 1, until: hour + 2 };
    let rows = app.storage().list_usage(&UsageFilter::of(range), 100).await.unwrap();
    let total = |outcome| rows.iter().map(|row| row.counts.of(outcome)).sum::<i64>();
    assert_eq!((total(CallOutcome::Refused), total(CallOutcome::Answered)), (3, 1));
    app.storage().settle_audit().await.unwrap();
    let filter = AuditFilter { event: "upstream_token_refused".to_owned(), ..Default::default() };
    let lines = app.storage().audit_lines(&filter, 100).await.unwrap();
    assert_eq!(lines.len(), 1, "a client that keeps asking writes one line");
    let detail: Value = serde_json::from_str(&lines[0].detail).unwrap();
    assert_eq!(
        (&detail["connection"], &detail["reason"]),
        (&json!("github"), &json!("not connected"))
    );
    let metrics = app.metrics().await;
    let counted = |outcome: &str| {
        let series =
            format!("portcullis_upstream_tokens_total{{service=\"github\",outcome=\"{outcome}\"}}");
        metrics.get(&series).copied().unwrap_or(0.0)
    };
    assert!((counted("not_connected") - 3.0).abs() < 0.1, "{metrics:?}");
    assert!((counted("fresh") - 1.0).abs() < 0.1, "{metrics:?}");
}

#[tokio::test]
async fn large_bodies_and_other_people_are_no_way_around() {
    let world = world("", GITHUB).await;
    let (_, bobs) = tokens(&world.app, "bob").await;
    connect_as(&world.app, "alice", "github").await;
    let large = request(
        "tools/call",
        &json!({ "name": "open-issue", "arguments": { "text": "x".repeat(200_000) } }),
    );
    assert_eq!(link_in(&told(&post(&world.app, &bobs, &[], &large).await)), world.link());
    // Somebody else's connection is of no use to bob, wherever he names her.
    let headers = [("x-portcullis-subject", "oidc:demo-alice")];
    told(&post(&world.app, &bobs, &headers, &call("open-issue")).await);
    assert!(world.backend.take().is_empty());
    let (_, alices) = tokens(&world.app, "alice").await;
    assert_answered(&post(&world.app, &alices, &[], &large).await);
    assert_eq!(world.backend.take().pop().unwrap().json(), large);
}
