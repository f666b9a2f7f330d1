//! Several targets behind one path: requests take turns, failing targets are left out, and sessions stay with
//! the target that made them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::BodyExt;
use portcullis::app::Reloaded;
use portcullis::clock::Clock;
use portcullis::demo::{TodoServer, TodoServerOptions};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::harness::backend::{Backend, answer, post, request, send, status, tokens};
use crate::harness::client::Tokens;
use crate::harness::console::Console;
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp, patiently};

/// An MCP server with one session of its own. It says in each answer who it is, and closes its connections,
/// so that nothing is left of it when it is stopped.
async fn server(name: &'static str) -> Backend {
    let backend = Backend::start().await;
    introduce(&backend, name);
    backend
}

fn introduce(backend: &Backend, name: &'static str) {
    backend.answers(move |seen| {
        let session = format!("session-of-{name}");
        let message = seen.json();
        let text = json!({ "jsonrpc": "2.0", "id": message["id"], "result": { "from": name } });
        let mut headers = vec![("content-type", "application/json"), ("connection", "close")];
        match (message["method"].as_str(), seen.header("mcp-session-id")) {
            (_, Some(id)) if id != session => return status(404),
            (Some("initialize"), None) => headers.push(("mcp-session-id", session.as_str())),
            _ => {}
        }
        answer(200, &headers, text.to_string())
    });
}

/// The key for these targets.
fn list(targets: &[&str]) -> String {
    let urls: Vec<String> = targets.iter().map(|url| format!("{url}/mcp")).collect();
    format!("targets = {urls:?}")
}

/// The configuration of a resource with these targets.
fn resource(targets: &[&str], extra: &str) -> String {
    let targets = list(targets);
    format!(
        "[[resource]]\npath = \"/mcp\"\nname = \"Files\"\n{targets}\nscopes = [\"read\", \"write\"]\n{extra}\n"
    )
}

async fn behind(targets: &[&str], extra: &str) -> TestApp {
    TestApp::with(Setup::toml(resource(targets, extra))).await
}

/// An address at which nothing listens.
async fn dead() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn call() -> Value {
    request("tools/call", &json!({ "name": "look", "arguments": {} }))
}

/// Who answered.
#[track_caller]
fn from(answer: &Answer) -> String {
    answer.assert_status(200).json()["result"]["from"].as_str().unwrap().to_owned()
}

async fn calls(app: &TestApp, tokens: &Tokens, number: usize) -> Vec<Answer> {
    let call = call();
    futures_util::future::join_all((0..number).map(|_| post(app, tokens, &[], &call))).await
}

/// The value of the only series with this name and target.
async fn series(app: &TestApp, name: &str, target: &str) -> f64 {
    let metrics = app.metrics().await;
    let is_asked =
        |key: &&String| key.starts_with(name) && key.contains(&format!("target=\"{target}\""));
    metrics.keys().filter(is_asked).map(|key| metrics[key]).sum()
}

/// Starts a session, and returns its id and who made it.
async fn session(app: &TestApp, tokens: &Tokens) -> (String, String) {
    let begun = post(app, tokens, &[], &request("initialize", &json!({}))).await;
    (begun.header("mcp-session-id").unwrap().to_owned(), from(&begun))
}

async fn call_in(app: &TestApp, tokens: &Tokens, session: &str) -> Answer {
    post(app, tokens, &[("mcp-session-id", session)], &call()).await
}

#[tokio::test]
async fn a_hundred_calls_at_once_are_spread_evenly() {
    let servers = [server("a").await, server("b").await, server("c").await];
    let urls = servers.each_ref().map(|server| server.url.as_str());
    let limits = "[limits]\nrequests_per_person = 200\nrequests_per_client = 200";
    let app = TestApp::with(Setup::toml(resource(&urls, "")).and(limits)).await;
    let (_, tokens) = tokens(&app, "alice").await;

    for answer in calls(&app, &tokens, 100).await {
        answer.assert_status(200);
    }

    for server in &servers {
        let seen = server.take().len();
        assert!((33..=34).contains(&seen), "{} got {seen}", server.url);
    }
}

#[tokio::test]
async fn a_target_that_refuses_connections_is_left_out_tried_again_and_used_again() {
    let (server_a, gone) = (server("a").await, dead().await);
    let app = behind(&[&gone, &server_a.url], "").await;
    let (_, tokens) = tokens(&app, "alice").await;
    let failures = async || series(&app, "portcullis_target_failures_total", &gone).await;
    assert!((series(&app, "portcullis_target_up", &gone).await - 1.0).abs() < 0.1, "not seen yet");

    for answer in calls(&app, &tokens, 20).await {
        assert_eq!(from(&answer), "a");
    }
    let first = failures().await;
    for answer in calls(&app, &tokens, 20).await {
        assert_eq!(from(&answer), "a");
    }
    // Calls that were under way at once may each have found out by themselves; later ones do not try.
    assert!((1.0..=20.0).contains(&first), "{first}");
    assert!((failures().await - first).abs() < 0.1, "it is left out");
    assert!(series(&app, "portcullis_target_up", &gone).await.abs() < 0.1);
    assert!((series(&app, "portcullis_target_up", &server_a.url).await - 1.0).abs() < 0.1);

    app.advance(1);
    for answer in calls(&app, &tokens, 20).await {
        assert_eq!(from(&answer), "a");
    }
    assert!((failures().await - first - 1.0).abs() < 0.1, "one call tried it");

    let address = gone.trim_start_matches("http://").to_owned();
    let listener = patiently(async || TcpListener::bind(&address).await).await;
    introduce(&Backend::start_on(listener), "b");
    app.advance(60);
    let mut by_b = 0;
    for _ in 0..20 {
        let name = from(&post(&app, &tokens, &[], &call()).await);
        by_b += usize::from(name == "b");
    }
    assert_eq!(by_b, 10, "its turn is every other time");
}

#[tokio::test]
async fn a_target_that_refuses_is_named_with_the_reason_on_the_pages_and_a_check_finds_it_back() {
    let (server_a, gone) = (server("a").await, dead().await);
    let app = behind(&[&server_a.url, &gone], "").await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    assert!(alice.page("/").await.contains("Nothing needs attention."));

    app.check_targets().await;
    let page = alice.page("/").await;
    let warned = format!("<code>{gone}/mcp</code> (nothing listens at its port)");
    assert!(
        page.contains("check of a target of this MCP server failed") && page.contains(&warned),
        "{page}"
    );
    assert!(page.contains("Not reachable") && page.contains("Reachable"), "{page}");
    let servers = alice.page("/servers").await;
    assert!(servers.contains("nothing listens at its port, since"), "{servers}");

    let address = gone.trim_start_matches("http://").to_owned();
    let _listener = patiently(async || TcpListener::bind(&address).await).await;
    app.check_targets().await;
    assert!(alice.page("/").await.contains("Nothing needs attention."));
    assert!((series(&app, "portcullis_target_up", &gone).await - 1.0).abs() < 0.1);
}

/// A server that reads requests, counts them, and then does nothing, or closes.
async fn silent(closes: bool) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, requests) = (format!("http://{}", listener.local_addr().unwrap()), Arc::default());
    let counted = Arc::clone(&requests);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(swallow(stream, closes, Arc::clone(&counted)));
        }
    });
    (url, requests)
}

async fn swallow(mut stream: TcpStream, closes: bool, requests: Arc<AtomicUsize>) {
    let mut heard = Vec::new();
    while stream.read_buf(&mut heard).await.unwrap_or(0) > 0 {
        if heard.ends_with(b"}") {
            requests.fetch_add(1, Ordering::SeqCst);
            if closes {
                return;
            }
            heard.clear();
        }
    }
}

#[tokio::test]
async fn gw_42_a_call_that_was_sent_is_never_sent_to_another_target() {
    // One target closes in the middle of the call, the other hangs: nobody knows what they did.
    for (closes, refused) in [(true, 502), (false, 504)] {
        let (bad, begun) = silent(closes).await;
        let good = server("a").await;
        let app = behind(&[&bad, &good.url], "timeout = \"1s\"").await;
        let (_, tokens) = tokens(&app, "alice").await;

        let answers = calls(&app, &tokens, 12).await;

        let of = |wanted: u16| answers.iter().filter(|a| a.status.as_u16() == wanted).count();
        let (lost, answered) = (of(refused), of(200));
        assert_eq!(lost + answered, 12, "{closes}");
        assert!(lost >= 1, "{closes}");
        assert_eq!(begun.load(Ordering::SeqCst), lost, "{closes}: each was sent there once");
        assert_eq!(good.take().len(), answered, "{closes}: and nowhere else");
        for answer in answers.iter().filter(|answer| answer.status == refused) {
            assert!(!answer.text().contains("127.0.0.1"), "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_target_that_hangs_is_left_out_after_three_calls_and_a_slow_one_alone_is_not() {
    let (bad, begun) = silent(false).await;
    let good = server("a").await;
    let app = behind(&[&bad, &good.url], "timeout = \"1s\"").await;
    let (_, tokens) = tokens(&app, "alice").await;

    let answers = calls(&app, &tokens, 6).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 504).count(), 3);
    for answer in calls(&app, &tokens, 10).await {
        assert_eq!(from(&answer), "a");
    }
    assert_eq!(begun.load(Ordering::SeqCst), 3);
    // That a connection can be made does not show that it answers.
    app.check_targets().await;
    for answer in calls(&app, &tokens, 10).await {
        assert_eq!(from(&answer), "a");
    }

    // A single target is always tried: there is nothing better.
    let app = behind(&[&bad], "timeout = \"1s\"").await;
    let (_, tokens) = self::tokens(&app, "alice").await;
    for answer in calls(&app, &tokens, 5).await {
        answer.assert_status(504);
    }
    calls(&app, &tokens, 1).await[0].assert_status(504);
    assert_eq!(begun.load(Ordering::SeqCst), 9);
}

#[tokio::test]
async fn a_large_body_goes_to_the_next_target_too_if_nothing_of_it_was_sent() {
    let (server_a, gone) = (server("a").await, dead().await);
    for tools in ["", "[resource.tools]\npurge = [\"write\"]"] {
        let app = behind(&[&gone, &server_a.url], tools).await;
        let (_, tokens) = tokens(&app, "alice").await;
        for size in [10, 300_000] {
            app.advance(120); // the dead one is tried again
            let text = "x".repeat(size);
            let call =
                request("tools/call", &json!({ "name": "look", "arguments": { "a": text } }));
            for _ in 0..2 {
                assert_eq!(from(&post(&app, &tokens, &[], &call).await), "a");
            }
            for seen in server_a.take() {
                assert_eq!(seen.json(), call);
            }
        }
        assert!(series(&app, "portcullis_target_failures_total", &gone).await >= 2.0);
    }
}

#[tokio::test]
async fn if_no_target_can_be_reached_the_client_learns_just_that() {
    let (one, two) = (dead().await, dead().await);
    let app = behind(&[&one, &two], "").await;
    let (_, tokens) = tokens(&app, "alice").await;
    for _ in 0..3 {
        for answer in calls(&app, &tokens, 4).await {
            let text = answer.assert_status(502).text();
            assert!(text.contains("The MCP server cannot be reached"), "{text}");
            assert!(!text.contains("127.0.0.1") && !text.contains("refused"), "{text}");
        }
    }
}

#[tokio::test]
async fn gw_43_a_session_stays_with_its_target_over_restarts_replicas_and_reloads() {
    let servers = [server("a").await, server("b").await, server("c").await];
    let [a, b, c] = servers.each_ref().map(|server| server.url.as_str());
    let mut app = behind(&[a, b], "").await;
    let (_, tokens) = tokens(&app, "alice").await;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(session(&app, &tokens).await);
    }
    let made_by = |name: &str| sessions.iter().filter(|(_, maker)| maker == name).count();
    assert_eq!((made_by("a"), made_by("b")), (2, 2), "sessions take turns as well");
    assert!(sessions.iter().all(|(id, _)| !id.contains("session-of")), "{sessions:?}");
    let all_stay = async |app: &TestApp| {
        for (id, maker) in &sessions {
            for _ in 0..3 {
                assert_eq!(from(&call_in(app, &tokens, id).await), *maker);
            }
            let headers = [("mcp-session-id", id.as_str()), ("accept", "text/event-stream")];
            send(app, &tokens, "GET", &headers, "").await.assert_status(200);
        }
    };
    all_stay(&app).await;

    app.restart().await;
    all_stay(&app).await;

    let (replica, _stop) = app.replica_with_clock(&app.clock).await;
    for (id, maker) in &sessions {
        let bearer = format!("Bearer {}", tokens.access_token);
        let headers = [("authorization", bearer.as_str()), ("mcp-session-id", id.as_str())];
        let answer = app.http.post_json(&format!("{replica}/mcp"), &call(), &headers).await;
        assert_eq!(from(&answer), *maker, "on another replica");
    }

    // In another order, and with one more.
    app.change_config(&list(&[a, b]), &list(&[c, b, a]));
    assert!(matches!(app.reload().await, Reloaded::Applied { .. }));
    all_stay(&app).await;

    // Without b: its sessions are gone, and the client begins again elsewhere.
    app.change_config(&list(&[c, b, a]), &list(&[a, c]));
    assert!(matches!(app.reload().await, Reloaded::Applied { .. }));
    for (id, maker) in &sessions {
        let answer = call_in(&app, &tokens, id).await;
        if maker == "b" {
            assert_eq!(answer.assert_status(404).json()["error"]["code"], -32001);
        } else {
            assert_eq!(from(&answer), *maker);
        }
    }
    let (id, maker) = session(&app, &tokens).await;
    assert_ne!(maker, "b");
    assert_eq!(from(&call_in(&app, &tokens, &id).await), maker);
}

#[tokio::test]
async fn a_session_made_while_there_was_one_target_stays_with_it_when_there_are_two() {
    let (a, b) = (server("a").await, server("b").await);
    let resources =
        format!("[[resource]]\npath = \"/mcp\"\ntarget = \"{}/mcp\"\nscopes = [\"read\"]\n", a.url);
    let mut app = TestApp::with(Setup::toml(resources)).await;
    let (_, tokens) = tokens(&app, "alice").await;
    let (id, _) = session(&app, &tokens).await;

    let targets = format!("targets = [\"{}/mcp\", \"{}/mcp\"]", b.url, a.url);
    app.change_config(&format!("target = \"{}/mcp\"", a.url), &targets);
    assert!(matches!(app.reload().await, Reloaded::Applied { .. }));

    for _ in 0..4 {
        assert_eq!(from(&call_in(&app, &tokens, &id).await), "a");
    }
}

#[tokio::test]
async fn the_session_of_a_target_that_stays_away_ends_so_that_the_client_begins_again_elsewhere() {
    let (a, b) = (server("a").await, server("b").await);
    let app = behind(&[&a.url, &b.url], "").await;
    let (_, tokens) = tokens(&app, "alice").await;
    let mut sessions = [session(&app, &tokens).await, session(&app, &tokens).await];
    sessions.sort_by(|one, other| one.1.cmp(&other.1));
    let [(of_a, _), (of_b, _)] = sessions;

    a.stop().await;
    for _ in 0..3 {
        call_in(&app, &tokens, &of_a).await.assert_status(502); // perhaps it restarts
    }
    assert_eq!(from(&call_in(&app, &tokens, &of_b).await), "b");
    app.advance(5);
    let ended = call_in(&app, &tokens, &of_a).await;
    assert_eq!(ended.assert_status(404).json()["error"]["code"], -32001);
    assert_eq!(session(&app, &tokens).await.1, "b");

    // If no other works, there is nowhere to begin again.
    b.stop().await;
    call_in(&app, &tokens, &of_b).await.assert_status(502);
    app.advance(60);
    call_in(&app, &tokens, &of_a).await.assert_status(502);
}

#[tokio::test]
async fn an_event_leads_back_to_its_target_and_not_into_a_session_of_another() {
    let backends = [Backend::start().await, Backend::start().await];
    for (backend, name) in backends.iter().zip(["a", "b"]) {
        backend.answers(move |_| {
            let session = format!("session-of-{name}");
            let headers =
                [("content-type", "text/event-stream"), ("mcp-session-id", session.as_str())];
            answer(200, &headers, format!("id: event-of-{name}\ndata: {name}\n\n"))
        });
    }
    let app = behind(&[&backends[0].url, &backends[1].url], "").await;
    let (_, tokens) = tokens(&app, "alice").await;
    let mut streams = Vec::new();
    for _ in 0..2 {
        let heard = send(&app, &tokens, "GET", &[("accept", "text/event-stream")], "").await;
        let text = heard.assert_status(200).text().to_owned();
        let id = text.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap().to_owned();
        streams.push((heard.header("mcp-session-id").unwrap().to_owned(), id, data));
    }
    assert_ne!(streams[0].2, streams[1].2);

    for (_, event, data) in &streams {
        for _ in 0..2 {
            let headers = [("accept", "text/event-stream"), ("last-event-id", event.as_str())];
            let heard = send(&app, &tokens, "GET", &headers, "").await;
            assert!(heard.assert_status(200).text().contains(&format!("data: {data}")));
        }
    }
    let mixed =
        [("mcp-session-id", streams[0].0.as_str()), ("last-event-id", streams[1].1.as_str())];
    send(&app, &tokens, "GET", &mixed, "").await.assert_status(400);
}

#[tokio::test]
async fn an_open_stream_goes_on_while_its_target_is_configured() {
    let (a, b) = (server("a").await, server("b").await);
    let waits = Backend::start().await;
    let (say, said) = mpsc::unbounded_channel::<&str>();
    let said = Mutex::new(Some(said));
    waits.answers(move |_| {
        let said = said.lock().unwrap().take().unwrap();
        let stream = futures_util::stream::unfold(said, |mut said| async {
            let text = said.recv().await?;
            Some((Ok::<_, std::io::Error>(axum::body::Bytes::from(text)), said))
        });
        answer(200, &[("content-type", "text/event-stream")], axum::body::Body::from_stream(stream))
    });
    say.send("data: 1\n\n").unwrap();
    let mut app = behind(&[&waits.url], "").await;
    let (_, tokens) = tokens(&app, "alice").await;
    let bearer = format!("Bearer {}", tokens.access_token);
    let headers = [("authorization", bearer.as_str()), ("accept", "text/event-stream")];
    let mut stream = app.http.open("GET", &app.mcp_url(), &headers, "").await.into_body();
    let mut next = async || stream.frame().await.and_then(Result::ok)?.into_data().ok();
    assert_eq!(next().await.unwrap(), "data: 1\n\n");

    app.change_config(&list(&[&waits.url]), &list(&[&a.url, &waits.url]));
    assert!(matches!(app.reload().await, Reloaded::Applied { .. }));
    for text in ["data: 2\n\n", "data: 3\n\n"] {
        say.send(text).unwrap();
        assert_eq!(next().await.unwrap(), text, "it goes on");
        assert!((app.metrics().await["portcullis_streams"] - 1.0).abs() < 0.1);
    }

    app.change_config(&list(&[&a.url, &waits.url]), &list(&[&a.url, &b.url]));
    assert!(matches!(app.reload().await, Reloaded::Applied { .. }));
    assert_eq!(next().await, None, "its target is gone");
}

#[tokio::test]
async fn an_assertion_is_for_the_target_that_gets_it() {
    let backends = [Backend::start().await, Backend::start().await];
    let urls = backends.each_ref().map(|backend| backend.url.as_str());
    let app = behind(&urls, "assertion = true").await;
    let (_, tokens) = tokens(&app, "alice").await;
    calls(&app, &tokens, 4).await;
    for backend in &backends {
        for seen in backend.take() {
            let assertion = seen.header("x-portcullis-assertion").unwrap();
            let claims = assertion.split('.').nth(1).unwrap();
            let claims = URL_SAFE_NO_PAD.decode(claims).unwrap();
            let claims: Value = serde_json::from_slice(&claims).unwrap();
            assert_eq!(claims["aud"], format!("{}/mcp", backend.url));
        }
    }
}

#[tokio::test]
async fn three_to_do_servers_share_one_path_and_each_keeps_its_sessions() {
    let mut app = TestApp::start().await;
    let (mut urls, mut todos) = (vec![app.todo.url()], Vec::new());
    for _ in 0..2 {
        let clock = Clock::Manual(app.clock.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let todo =
            TodoServer::start(listener, TodoServerOptions { clock, calendar: None }).unwrap();
        urls.push(todo.url());
        todos.push(todo);
    }
    let one = format!("target = {:?}", app.todo.url());
    app.change_config(&one, &format!("targets = {urls:?}"));
    assert!(matches!(app.reload().await, Reloaded::Applied { .. }));
    let (client, tokens) = app.tokens_of("alice").await;
    let bearer = tokens.access_token.as_str();
    let params = json!({
        "protocolVersion": "2025-06-18", "capabilities": {},
        "clientInfo": { "name": "t", "version": "1" },
    });
    let mut sessions = Vec::new();
    for _ in 0..6 {
        let begun = client.rpc(bearer, "initialize", params.clone()).await;
        sessions.push(begun.assert_status(200).header("mcp-session-id").unwrap().to_owned());
    }
    for _ in 0..3 {
        for session in &sessions {
            let headers = [
                ("mcp-session-id", session.as_str()),
                ("accept", "application/json, text/event-stream"),
                ("mcp-protocol-version", "2025-06-18"),
            ];
            let list = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" });
            let listed = post(&app, &tokens, &headers, &list).await;
            assert_eq!(
                listed.assert_status(200).json()["result"]["tools"].as_array().unwrap().len(),
                5
            );
        }
    }
    for todo in todos.iter().chain([&app.todo]) {
        let calls = todo.recorded().len();
        assert_eq!(calls, 2 + 2 * 3, "two sessions, and three calls in each");
    }
}
