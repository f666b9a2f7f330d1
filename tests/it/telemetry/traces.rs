//! Traces as a collector receives them over OTLP, and what it never receives.

use std::collections::BTreeSet;

use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use serde_json::json;

use crate::harness::backend::{self, Backend, post};
use crate::harness::browser::Form;
use crate::harness::client::{McpClient, REDIRECT_URI, Server as _, Tokens, VERIFIER, random_part};
use crate::harness::collector::{Collector, attributes};
use crate::harness::http::Http;
use crate::harness::process::Served;
use crate::harness::{Setup, TestApp, raw};

/// A trace that somebody else began.
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn traceparent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{SPAN}-{flags}")
}

/// With rules for tools the gateway parses the body; without them it reads it as it passes.
const RULES: [&str; 2] = ["", "[resource.tools]\npurge = [\"write\"]"];

/// An MCP server with these rules for its tools.
fn in_front_of(backend: &Backend, tools: &str) -> String {
    format!(
        "[[resource]]\npath = \"/mcp\"\ntarget = \"{}/mcp\"\nscopes = [\"read\", \"write\"]\n\
         rule = [{{ roles = [\"Admin\"], allow = [\"read\", \"write\"] }}]\n{tools}",
        backend.url
    )
}

/// Behind a proxy that is trusted.
fn trusting(setup: Setup) -> Setup {
    setup.and("trusted_proxies = [\"127.0.0.1\"]")
}

#[tokio::test]
async fn the_steps_of_a_sign_in_are_one_trace() {
    let collector = Collector::start().await;
    let app = TestApp::with(collector.setup("traces = 1")).await;

    app.tokens_of("alice").await;

    app.export().await;
    let first = collector.span("GET /authorize");
    assert!(first.is_server && first.parent.is_empty() && !first.failed, "{first:#?}");
    for name in ["POST /consent", "GET /auth/callback", "POST /token"] {
        let step = collector.span(name);
        assert_eq!((&step.trace, &step.parent), (&first.trace, &first.id), "{name}");
        assert!(step.time.0 >= first.time.0 && step.time.1 >= step.time.0);
    }
    let token = collector.span("POST /token");
    assert_eq!(token.attribute("http.route"), "/token");
    assert_eq!(token.attribute("http.request.method"), "POST");
    assert_eq!(token.attribute("http.response.status_code"), "200");
    assert_eq!(token.attribute("portcullis.listener"), "public");
    let callback = collector.span("GET /auth/callback");
    let spans = collector.spans();
    let provider: Vec<_> =
        spans.iter().filter(|span| span.name == "POST identity provider").collect();
    assert!(!provider.is_empty());
    for asked in provider {
        assert_eq!((&asked.trace, &asked.parent), (&first.trace, &callback.id));
        assert_eq!(asked.attribute("server.address"), "127.0.0.1");
    }
    let stored = |event: &str| {
        let stored = spans.iter().find(|span| {
            let events = span.attributes.get("portcullis.events");
            span.name == "transaction" && events.is_some_and(|events| events.contains(event))
        });
        stored.unwrap_or_else(|| panic!("no transaction with {event}: {spans:#?}"))
    };
    let (issued, redeemed) = (stored("code_issued"), stored("code_redeemed"));
    assert_eq!((&issued.trace, &issued.parent), (&first.trace, &callback.id));
    assert_eq!((&redeemed.trace, &redeemed.parent), (&first.trace, &token.id));
    let system = if app.database.is_postgres() { "postgresql" } else { "sqlite" };
    assert_eq!(redeemed.attribute("db.system.name"), system);
    let registered = collector.span("POST /register");
    assert_ne!(registered.trace, first.trace, "no step of the sign-in");
}

#[tokio::test]
async fn one_trace_leads_from_the_client_through_sign_in_store_and_provider_to_the_mcp_server() {
    let collector = Collector::start().await;
    let app = TestApp::with(trusting(collector.setup("traces = 0.000001"))).await;
    let client = app.client().await;
    // The proxy in front says with each request that it records the trace.
    let traced = traceparent(TRACE, "01");
    let traced = [("traceparent", traced.as_str())];

    app.http.post_json(&app.mcp_url(), &json!({}), &traced).await.assert_status(401);
    let url = client.authorize_url(&[]);
    let mut headers = vec![("accept", "text/html")];
    headers.extend(traced);
    let page = client.browser.send("GET", &url, &headers, "").await;
    let idp_url = client.decide(&Form::of(&page, &url), "approve").await.location().to_owned();
    let callback = client.log_in(&idp_url, "alice").await;
    let code = client.browser.get(&callback).await.location_param("code").unwrap();
    let tokens = Tokens::of(&client.redeem(&code).await);
    let call = json!({ "name": "get-todos", "arguments": {} });
    let answer =
        client.rpc_at(&app.mcp_url(), &tokens.access_token, "tools/call", call, &traced).await;
    answer.assert_status(200);

    app.export().await;
    let spans = collector.spans();
    let in_trace: Vec<_> = spans.iter().filter(|span| span.trace == TRACE).collect();
    let has = |name: &str| in_trace.iter().any(|span| span.name == name);
    for name in [
        "POST /mcp",
        "GET /authorize",
        "POST /consent",
        "GET /auth/callback",
        "POST /token",
        "transaction",
        "POST identity provider",
        "tools/call get-todos",
    ] {
        assert!(has(name), "{name}: {spans:#?}");
    }
    let server = in_trace.iter().find(|span| span.is_server && span.name.starts_with("tools/"));
    let target = in_trace.iter().find(|span| !span.is_server && span.name.starts_with("tools/"));
    let (server, target) = (server.unwrap(), target.unwrap());
    assert_eq!((server.parent.as_str(), &target.parent), (SPAN, &server.id));
    assert_eq!(server.attribute("mcp.method.name"), "tools/call");
    assert_eq!(server.attribute("gen_ai.tool.name"), "get-todos");
    assert_eq!(server.attribute("gen_ai.operation.name"), "execute_tool");
    assert_eq!(server.attribute("mcp.protocol.version"), "2026-07-28");
    assert_eq!(server.attribute("http.route"), "/mcp");
    assert_eq!(target.attribute("http.response.status_code"), "200");
    assert_eq!(target.attribute("portcullis.path"), "/mcp");
    // The MCP server continues the trace below our span.
    let seen = app.todo.recorded().pop().unwrap();
    let expected = format!("00-{TRACE}-{}-01", target.id);
    assert_eq!(seen.header("traceparent"), Some(expected.as_str()));
}

#[tokio::test]
async fn te_02_a_trace_of_a_stranger_becomes_a_link_and_never_a_parent() {
    let collector = Collector::start().await;
    let app = TestApp::with(collector.setup("traces = 1")).await;
    let (client, tokens) = app.tokens_of("alice").await;
    let theirs = traceparent(TRACE, "01");
    let headers = [("traceparent", theirs.as_str()), ("tracestate", "vendor=1")];

    let call = json!({ "name": "get-todos", "arguments": {} });
    let answer =
        client.rpc_at(&app.mcp_url(), &tokens.access_token, "tools/call", call, &headers).await;
    answer.assert_status(200);

    app.export().await;
    let spans = collector.spans();
    let call = spans.iter().find(|span| span.is_server && span.name.starts_with("tools/")).unwrap();
    assert_eq!(call.links, [(TRACE.to_owned(), SPAN.to_owned())]);
    assert!(call.parent.is_empty() && spans.iter().all(|span| span.trace != TRACE));
    let seen = app.todo.recorded().pop().unwrap();
    let ours = seen.header("traceparent").unwrap();
    assert!(ours.contains(&call.trace) && !ours.contains(TRACE), "{ours}");
    assert_eq!(seen.header("tracestate"), None, "it belongs to another trace");
}

#[tokio::test]
async fn te_02_forged_and_oversized_traces_are_ignored() {
    let collector = Collector::start().await;
    let app = TestApp::with(trusting(collector.setup("traces = 1"))).await;
    let long = format!("{}-{}", traceparent(TRACE, "01").replacen("00", "cc", 1), "x".repeat(4000));

    for wrong in [
        "nonsense",
        &traceparent(&"0".repeat(32), "01"),
        &traceparent(&TRACE.to_uppercase(), "01"),
        &traceparent("4bf92f", "01"),
        &long,
    ] {
        let headers = [("traceparent", wrong)];
        app.http.send("GET", &app.at("/account"), &headers, "").await;
    }
    let twice = format!(
        "GET /account HTTP/1.1\r\nHost: {}\r\ntraceparent: {}\r\ntraceparent: {}\r\nConnection: close\r\n\r\n",
        raw::host(&app.url),
        traceparent(TRACE, "01"),
        traceparent(&TRACE.replace('4', "5"), "01"),
    );
    raw::exchange(&app.url, &twice).await;

    app.export().await;
    let spans = collector.spans();
    let asked: Vec<_> = spans.iter().filter(|span| span.is_server).collect();
    assert_eq!(asked.len(), 6, "{spans:#?}");
    assert!(asked.iter().all(|span| span.parent.is_empty() && span.links.is_empty()));
}

#[tokio::test]
async fn the_trace_of_a_message_counts_before_that_of_its_header() {
    let collector = Collector::start().await;
    let backend = Backend::start().await;
    let header = traceparent(&TRACE.replace('4', "5"), "01");
    let of_message = traceparent(TRACE, "01");
    for tools in RULES {
        let setup = trusting(collector.setup("traces = 1")).and(in_front_of(&backend, tools));
        let app = TestApp::with(setup).await;
        let (_, tokens) = backend::tokens(&app, "alice").await;
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": "look", "arguments": {}, "_meta": { "traceparent": of_message },
        } });
        post(&app, &tokens, &[("traceparent", header.as_str())], &message).await;

        app.export().await;
        let spans = collector.spans();
        let call = spans.iter().rfind(|span| span.is_server && span.name.contains("tools/call"));
        let call = call.unwrap();
        assert_eq!((call.trace.as_str(), call.parent.as_str()), (TRACE, SPAN), "{tools}");
        let seen = backend.take().pop().unwrap();
        assert!(seen.header("traceparent").unwrap().contains(TRACE));
        assert_eq!(seen.body, message.to_string(), "the body is not touched");
    }
}

#[tokio::test]
async fn a_tool_that_fails_is_an_error_of_its_own() {
    let collector = Collector::start().await;
    let app = TestApp::with(collector.setup("traces = 1")).await;
    let (client, tokens) = app.tokens_of("alice").await;
    let call = async |tool: &str, arguments| {
        client.call_tool(&tokens.access_token, tool, arguments).await.assert_status(200).json()
    };

    let made = call("create-todo", json!({ "content": "x" })).await;
    let id = made["result"]["structuredContent"]["todo"]["id"].as_str().unwrap().to_owned();
    call("delete-todo", json!({ "id": id })).await;
    let again = call("delete-todo", json!({ "id": id })).await;
    assert_eq!(again["result"]["isError"], true);

    app.export().await;
    let spans = collector.spans();
    let deleted: Vec<_> = spans
        .iter()
        .filter(|span| span.is_server && span.name == "tools/call delete-todo")
        .collect();
    let [well, badly] = deleted.as_slice() else { panic!("{spans:#?}") };
    assert!(!well.failed && badly.failed, "{deleted:#?}");
    assert_eq!(badly.attribute("error.type"), "tool_error");
    assert_eq!(badly.attribute("http.response.status_code"), "200");
    let metrics = collector.metrics();
    let operations = metrics.iter().find(|one| one.name == "mcp.server.operation.duration");
    let Some(Data::Histogram(operations)) = &operations.unwrap().data else { panic!() };
    let count = |error: Option<&str>| {
        let points = operations.data_points.iter().filter(|point| {
            let attributes = attributes(point.attributes.clone());
            attributes["mcp.method.name"] == "tools/call"
                && attributes.get("error.type").map(String::as_str) == error
        });
        points.map(|point| point.count).sum::<u64>()
    };
    assert_eq!((count(None), count(Some("tool_error"))), (2, 1));
    let scraped = app.metrics().await;
    let series = "portcullis_mcp_operation_duration_seconds_count{path=\"/mcp\",method=\"tools/call\",error_type=\"tool_error\"}";
    assert!((scraped[series] - 1.0).abs() < f64::EPSILON, "{scraped:#?}");
}

/// P8 over OTLP: what must stay secret, and what people call themselves and write, is marked.
#[tokio::test]
async fn te_01_no_secret_name_argument_query_or_claim_leaves_with_telemetry() {
    const MARK: &str = "te1canary";
    let collector = Collector::start().await;
    // A process of its own, because a process has one log. It logs as much as it can.
    let setup = collector.setup("traces = 1\nlogs = true");
    let mut served = Served::prepared_with(&setup).await;
    served.env.push(("PORTCULLIS_LOG", "trace".to_owned()));
    served.launch();
    let app = served.place();
    let marked = |name: &str| format!("{MARK}-{name}-0123456789abcdef0123456789abcdef01234567");
    let metadata = json!({
        "client_name": format!("{MARK} client"), "redirect_uris": [REDIRECT_URI],
        "token_endpoint_auth_method": "none",
    });
    let client = McpClient::register_as(&app, metadata).await;
    let back = client.authorize("alice", &[("state", &marked("state"))]).await;
    let code = back.location_param("code").unwrap();
    let tokens = Tokens::of(&client.redeem(&code).await);
    client.redeem(&code).await;
    let tokens = {
        let second = client.sign_in("alice").await;
        drop(tokens);
        second
    };
    let bearer = tokens.access_token.as_str();
    let arguments = json!({ "content": marked("argument"), "id": marked("argument") });
    client.call_tool(bearer, "create-todo", arguments.clone()).await.assert_status(200);
    client.call_tool(bearer, "delete-todo", arguments.clone()).await.assert_status(200);
    client.call_tool(bearer, &marked("tool"), arguments.clone()).await;
    client.rpc(bearer, &marked("method"), json!({ "uri": marked("uri") })).await;
    for (name, value) in [
        ("mcp-session-id", marked("session")),
        ("mcp-protocol-version", marked("version")),
        ("traceparent", marked("traceparent")),
        ("tracestate", marked("tracestate")),
        ("user-agent", marked("agent")),
        ("baggage", marked("baggage")),
    ] {
        let headers = [(name, value.as_str())];
        client.rpc_at(&app.mcp_url(), bearer, "ping", json!({}), &headers).await;
        app.http.send("GET", &app.at("/account"), &headers, "").await;
    }
    for path in [format!("/{}", marked("path")), format!("/account?x={}", marked("query"))] {
        app.http.get(&app.at(&path)).await;
        app.http.send(&marked("method"), &app.at(&path), &[], "").await;
    }
    app.http
        .send("POST", &app.mcp_url(), &[("authorization", &format!("Bearer {}", marked("b")))], "")
        .await;
    let made_up = marked("code");
    let form = [("grant_type", "authorization_code"), ("code", made_up.as_str())];
    client.token(&form).await;
    let refused = json!({ "error": "invalid_grant", "error_description": marked("provider") });
    served.idp.misbehave(|how| how.token_answer = Some((400, refused.to_string())));
    client.elsewhere().authorize("alice", &[]).await;

    // What waits is sent at the end.
    assert!(served.terminate().await.unwrap().success());
    let exported = collector.everything();
    let says = [("traces", "tools/call"), ("metrics", "code_redeemed"), ("logs", "code_redeemed")];
    for (signal, says) in says {
        let messages = collector.messages(signal);
        let said = messages.iter().any(|one| String::from_utf8_lossy(&one.body).contains(says));
        assert!(said, "{signal} does not say {says}");
    }
    assert!(exported.len() > 20_000, "{}", exported.len());
    let at = exported.find(MARK);
    let around = at.map(|at| exported.get(at.saturating_sub(200)..at + 100).unwrap_or(MARK));
    assert_eq!(around, None);
    let mut secrets = vec![
        "upstream-secret-canary".to_owned(),
        "a test key that is long enough".to_owned(),
        VERIFIER.to_owned(),
        code,
        tokens.access_token,
        tokens.refresh_token,
    ];
    secrets.extend(served.idp.issued());
    for secret in &secrets {
        assert!(!exported.contains(random_part(secret)), "{secret:.12}…");
    }
    for name in ["alice@example.com", "Alice Adams"] {
        assert!(!exported.contains(name), "{name}");
    }
    // Who it was is a keyed hash, the same in each request.
    for person in ["alice", "Alice", "@", &client.id] {
        let shown: Vec<_> = collector
            .spans()
            .into_iter()
            .filter(|span| span.attributes.values().any(|value| value.contains(person)))
            .collect();
        assert!(shown.is_empty(), "{person}: {shown:#?}");
    }
    let hashes: BTreeSet<String> = collector
        .spans()
        .into_iter()
        .filter_map(|span| span.attributes.get("user.hash").cloned())
        .collect();
    assert_eq!(hashes.len(), 1, "{hashes:?}");
    assert_eq!(hashes.first().unwrap().len(), 22);
}

#[tokio::test]
async fn of_the_traces_that_are_not_recorded_the_mcp_server_learns_that() {
    let collector = Collector::start().await;
    let app = TestApp::with(trusting(collector.setup("traces = 0.000001"))).await;
    let (client, tokens) = app.tokens_of("alice").await;
    let unrecorded = traceparent(TRACE, "00");
    let headers = [("traceparent", unrecorded.as_str())];

    let url = app.mcp_url();
    client.rpc_at(&url, &tokens.access_token, "tools/list", json!({}), &headers).await;

    app.export().await;
    assert!(collector.messages("traces").is_empty());
    let seen = app.todo.recorded().pop().unwrap();
    let passed = seen.header("traceparent").unwrap();
    assert!(passed.contains(TRACE) && passed.ends_with("-00"), "{passed}");
}

#[tokio::test]
async fn a_new_trace_that_is_not_recorded_has_ids_of_its_own_for_each_request() {
    let collector = Collector::start().await;
    let app = TestApp::with(collector.setup("traces = 0.000001")).await;
    let (client, tokens) = app.tokens_of("alice").await;
    let theirs = traceparent(TRACE, "01");
    let headers = [("traceparent", theirs.as_str()), ("tracestate", "vendor=1")];

    let url = app.mcp_url();
    let mut ids = BTreeSet::new();
    for _ in 0..20 {
        let call = json!({ "name": "get-todos", "arguments": {} });
        client.rpc_at(&url, &tokens.access_token, "tools/call", call, &headers).await;
        let seen = app.todo.recorded().pop().unwrap();
        let passed = seen.header("traceparent").unwrap();
        assert!(passed.ends_with("-00") && !passed.contains(TRACE), "{passed}");
        assert_eq!(seen.header("tracestate"), None, "it belongs to another trace");
        ids.extend(passed.split('-').skip(1).take(2).map(str::to_owned));
    }

    assert_eq!(ids.len(), 40, "{ids:?}");
    app.export().await;
    assert!(collector.messages("traces").is_empty());
}

#[tokio::test]
async fn a_message_from_a_trusted_proxy_records_a_call_whose_header_does_not() {
    let collector = Collector::start().await;
    let backend = Backend::start().await;
    let header = traceparent(&TRACE.replace('4', "5"), "00");
    for tools in RULES {
        let setup =
            trusting(collector.setup("traces = 0.000001")).and(in_front_of(&backend, tools));
        let app = TestApp::with(setup).await;
        let (_, tokens) = backend::tokens(&app, "alice").await;
        let message = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
            "name": "look", "arguments": {}, "_meta": { "traceparent": traceparent(TRACE, "01") },
        } });
        post(&app, &tokens, &[("traceparent", header.as_str())], &message).await;

        app.export().await;
        let spans = collector.spans();
        let call = spans.iter().rfind(|span| span.is_server).unwrap();
        assert!(call.name.starts_with("tools/call"), "{call:#?}");
        assert_eq!((call.trace.as_str(), call.parent.as_str()), (TRACE, SPAN), "{tools}");
        assert_eq!(call.links.len(), 1, "the header's trace");
        assert_eq!(call.attribute("http.route"), "/mcp");
        assert_eq!(call.attribute("http.request.method"), "POST");
        assert_eq!(call.attribute("http.response.status_code"), "200");
        assert_eq!(call.attribute("portcullis.listener"), "public");
        assert_eq!(call.attribute("user.hash").len(), 22);
        let target = spans.iter().rfind(|span| span.parent == call.id).unwrap();
        let seen = backend.take().pop().unwrap();
        let expected = format!("00-{TRACE}-{}-01", target.id);
        assert_eq!(seen.header("traceparent"), Some(expected.as_str()));
    }
}

#[tokio::test]
async fn without_telemetry_the_clients_trace_passes_as_it_is() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("alice").await;
    let theirs = traceparent(TRACE, "01");
    let headers = [("traceparent", theirs.as_str()), ("tracestate", "vendor=1")];

    let url = app.mcp_url();
    client.rpc_at(&url, &tokens.access_token, "tools/list", json!({}), &headers).await;

    let seen = app.todo.recorded().pop().unwrap();
    assert_eq!(seen.header("traceparent"), Some(theirs.as_str()));
    assert_eq!(seen.header("tracestate"), Some("vendor=1"));
}

#[tokio::test]
async fn probes_and_scrapes_are_not_traced() {
    let collector = Collector::start().await;
    let app = TestApp::with(collector.setup("traces = 1")).await;
    for url in [app.at("/health"), app.at("/ready"), format!("{}/metrics", app.admin_url)] {
        Http::default().get(&url).await.assert_status(200);
    }

    app.export().await;

    assert!(collector.messages("traces").is_empty(), "{:#?}", collector.spans());
}
