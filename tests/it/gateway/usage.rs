//! Who used what: which calls are counted, and how they ended.

use axum::body::Body;
use portcullis::storage::{
    CallOutcome, CalledName, UsageFilter, UsageKey, UsageRange, UsageRetention, UsageStep,
};
use serde_json::{Value, json};

use crate::harness::backend::{
    Backend, PURGE, answer, answer_events, answer_json, post, request, send, status, tokens,
};
use crate::harness::client::Tokens;
use crate::harness::{Setup, TestApp};

/// The hour in which every test starts.
const HOUR: i64 = crate::harness::START / 3600;

fn a_day() -> UsageFilter {
    UsageFilter::of(UsageRange { step: UsageStep::Hours, from: HOUR - 24, until: HOUR + 24 })
}

/// Everything that was counted: `person tool: 2 answered, 1 errors`, in alphabetical order.
async fn counted(app: &TestApp) -> Vec<String> {
    app.write_usage().await;
    stored(app).await
}

async fn stored(app: &TestApp) -> Vec<String> {
    let rows = app.storage().list_usage(&a_day(), 10_000).await.unwrap();
    let mut lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let name = match &row.called {
                CalledName::Tool(name) => name.clone(),
                CalledName::Method(name) => format!("({name})"),
            };
            let outcomes = CallOutcome::ALL.into_iter().filter(|one| row.counts.of(*one) > 0);
            let outcomes = outcomes.map(|one| format!("{} {}", row.counts.of(one), one.name()));
            let outcomes = outcomes.collect::<Vec<_>>().join(", ");
            let person = row.subject.strip_prefix("oidc:demo-").unwrap();
            format!("{person} {name}: {outcomes}")
        })
        .collect();
    lines.sort();
    lines
}

fn call(tool: &str) -> Value {
    request("tools/call", &json!({ "name": tool, "arguments": { "text": "\"isError\":true" } }))
}

fn result(is_error: Option<bool>) -> Value {
    let mut result =
        json!({ "content": [{ "type": "text", "text": "\"error\": {\"isError\":true}" }] });
    if let Some(is_error) = is_error {
        result["isError"] = is_error.into();
    }
    json!({ "jsonrpc": "2.0", "id": 1, "result": result })
}

fn failure() -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": -32602, "message": "Unknown tool" } })
}

/// The answer after something that the server says first.
fn events(answers: &[Value]) -> String {
    let first =
        json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "result": 1 } });
    let asks = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    let all = [first, asks].into_iter().chain(answers.iter().cloned());
    let all: Vec<_> =
        all.map(|message| format!("event: message\nid: 7\ndata: {message}\n\n")).collect();
    all.concat()
}

#[tokio::test]
async fn every_outcome_is_counted_in_json_and_in_event_streams() {
    for tools in ["", PURGE] {
        let backend = Backend::start().await;
        let app = backend.behind("", tools).await;
        let (_, alice) = tokens(&app, "alice").await;
        let attempt =
            async |tool: &str, script: Box<dyn Fn() -> axum::response::Response + Send + Sync>| {
                backend.answers(move |_| script());
                let answer = post(&app, &alice, &[], &call(tool)).await;
                drop(answer);
            };
        attempt("json", Box::new(|| answer_json(&result(None)))).await;
        attempt("json", Box::new(|| answer_json(&result(Some(false))))).await;
        attempt("json", Box::new(|| answer_json(&result(Some(true))))).await;
        attempt("json", Box::new(|| answer_json(&failure()))).await;
        attempt("json", Box::new(|| status(404))).await;
        attempt("json", Box::new(|| status(500))).await;
        for size in [3, 10_000] {
            attempt("events", Box::new(move || answer_events(&events(&[result(None)]), size)))
                .await;
            let tool_error = move || answer_events(&events(&[result(Some(true))]), size);
            attempt("events", Box::new(tool_error)).await;
            attempt("events", Box::new(move || answer_events(&events(&[failure()]), size))).await;
            attempt("events", Box::new(move || answer_events(&events(&[]), size))).await;
        }
        backend.answers(|_| status(202));
        let notification = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        post(&app, &alice, &[], &notification).await.assert_status(202);
        // An answer of the client is no call, and neither is an event stream.
        let answered = json!({ "jsonrpc": "2.0", "id": 1, "result": {} });
        post(&app, &alice, &[], &answered).await.assert_status(202);
        backend.answers(|_| answer_events(": hello\n\n", 100));
        send(&app, &alice, "GET", &[("accept", "text/event-stream")], "").await.assert_status(200);
        // Who it is was not known.
        app.http
            .send("POST", &app.mcp_url(), &[], call("nobody").to_string())
            .await
            .assert_status(401);

        let expected = [
            "alice (notifications/initialized): 1 answered",
            "alice events: 2 answered, 2 tool_errors, 2 errors, 2 unanswered",
            "alice json: 2 answered, 1 tool_errors, 2 errors, 1 failed",
        ];
        assert_eq!(counted(&app).await, expected, "{tools}");
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_counts_as_failed() {
    let app = TestApp::with(Setup::toml(
        "[[resource]]\npath = \"/mcp\"\ntarget = \"http://127.0.0.1:1/mcp\"\nscopes = [\"read\"]",
    ))
    .await;
    let (client, bob) = app.tokens_of("bob").await;

    client.call_tool(&bob.access_token, "look", json!({})).await.assert_status(502);

    assert_eq!(counted(&app).await, ["bob look: 1 failed"]);
}

#[tokio::test]
async fn gw_41_refused_calls_count_with_their_tool() {
    for (how, code) in [("", 200), ("on_denied_tool = \"challenge\"", 403)] {
        let backend = Backend::start().await;
        let app = backend.behind(how, PURGE).await;
        let (_, bob) = tokens(&app, "bob").await;

        post(&app, &bob, &[], &call("purge")).await.assert_status(code);
        post(&app, &bob, &[], &call("look")).await.assert_status(200);
        // Two readers could read different methods, so it is not known what was called.
        let twice = r#"{"id":1,"method":"tools/call","method":"ping","params":{"name":"look"}}"#;
        send(&app, &bob, "POST", &[], twice).await.assert_status(400);
        let misspelled = request("Tools/Call", &json!({ "name": "purge" }));
        post(&app, &bob, &[], &misspelled).await.assert_status(400);

        let expected = ["bob (): 2 refused", "bob look: 1 answered", "bob purge: 1 scope_refused"];
        assert_eq!(counted(&app).await, expected);
        assert_eq!(backend.take().len(), 1);
    }
}

#[tokio::test]
async fn a_refusal_of_the_mcp_server_for_scopes_counts_as_one() {
    let backend = Backend::start().await;
    let app = backend.behind("", "").await;
    let (_, bob) = tokens(&app, "bob").await;
    let challenge = "Bearer error=\"insufficient_scope\", scope=\"write\"";
    backend.answers(move |_| answer(403, &[("www-authenticate", challenge)], ""));
    post(&app, &bob, &[], &call("purge")).await.assert_status(403);
    backend.answers(|_| status(403));
    post(&app, &bob, &[], &call("look")).await.assert_status(403);

    let expected = ["bob look: 1 errors", "bob purge: 1 scope_refused"];
    assert_eq!(counted(&app).await, expected);
}

#[tokio::test]
async fn each_call_of_a_batch_counts_as_it_ended() {
    let batch = json!([
        { "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "one" } },
        { "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 9 } },
        { "jsonrpc": "2.0", "id": "b\"", "method": "tools/call", "params": { "name": "two" } },
        { "jsonrpc": "2.0", "id": 3, "method": "tools/list" },
        { "jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": { "name": "four" } },
        { "jsonrpc": "2.0", "id": 77, "result": {} },
    ]);
    let answers = [
        json!({ "id": 3, "jsonrpc": "2.0", "result": { "tools": [] } }),
        json!({ "jsonrpc": "2.0", "result": { "isError": true, "content": [] }, "id": "b\"" }),
        json!({ "jsonrpc": "2.0", "error": { "code": 1, "message": "x" }, "id": 1 }),
    ];
    let expected = [
        "alice (notifications/cancelled): 1 answered",
        "alice (tools/list): 1 answered",
        "alice four: 1 unanswered",
        "alice one: 1 errors",
        "alice two: 1 tool_errors",
    ];
    for tools in ["", PURGE] {
        for in_events in [false, true] {
            let backend = Backend::start().await;
            let app = backend.behind("", tools).await;
            let (_, alice) = tokens(&app, "alice").await;
            let answers = answers.clone();
            backend.answers(move |_| {
                if in_events {
                    answer_events(&events(&answers), 7)
                } else {
                    answer_json(&Value::from(answers.to_vec()))
                }
            });
            post(&app, &alice, &[], &batch).await.assert_status(200);

            assert_eq!(counted(&app).await, expected, "{tools} {in_events}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_streamed_is_read_as_it_passes() {
    let backend = Backend::start().await;
    let app = backend.behind("", "").await;
    let (_, alice) = tokens(&app, "alice").await;
    backend.answers(|_| answer_json(&result(Some(true))));
    let arguments = json!({ "text": "x\"y".repeat(50_000), "name": "other" });
    let large = request("tools/call", &json!({ "arguments": arguments, "name": "import" }));
    assert!(large.to_string().len() > 64 * 1024);

    post(&app, &alice, &[], &large).await.assert_status(200);

    assert_eq!(counted(&app).await, ["alice import: 1 tool_errors"]);
}

#[tokio::test]
async fn gw_41_no_argument_and_no_result_is_stored() {
    let mut files = Vec::new();
    for tools in ["", PURGE] {
        let backend = Backend::start().await;
        let mut app = backend.behind("", tools).await;
        let (_, alice) = tokens(&app, "alice").await;
        backend.answers(|_| {
            answer_json(&json!({
                "jsonrpc": "2.0", "id": 1,
                "result": { "content": [{ "type": "text", "text": "canary-result" }], "canary-member": 1 },
            }))
        });
        let arguments = json!({ "password": "canary-argument", "isError": "canary-error" });
        for text in ["short".to_owned(), "long".repeat(30_000)] {
            let params = json!({ "name": "canary-tool", "arguments": arguments, "more": text });
            post(&app, &alice, &[], &request("tools/call", &params)).await.assert_status(200);
        }
        assert_eq!(counted(&app).await, ["alice canary-tool: 2 answered"]);
        files.push(app.database.dump().await);
        app.stop().await;
        files.push(app.database.dump().await);
    }
    for file in files {
        let found = file.windows(7).any(|seven| seven == b"canary-");
        assert!(!found, "something of a call is in the database in the clear");
        assert!(file.windows(10).any(|ten| ten == b"demo-alice"), "the dump is not empty");
    }
}

#[tokio::test]
async fn gw_41_made_up_tools_are_one_and_a_real_one_is_still_seen() {
    let backend = Backend::start().await;
    let app = backend.behind("", PURGE).await;
    let (_, alice) = tokens(&app, "alice").await;
    backend.answers(|_| answer_json(&failure()));
    for n in 0..100 {
        post(&app, &alice, &[], &call(&format!("made-up-{n}"))).await.assert_status(200);
    }
    post(&app, &alice, &[], &call(&"x".repeat(200))).await.assert_status(200);
    post(&app, &alice, &[], &call("purge")).await.assert_status(200);
    backend.answers(|_| answer_json(&result(None)));
    for _ in 0..3 {
        post(&app, &alice, &[], &call("real")).await.assert_status(200);
    }

    let lines = counted(&app).await;

    assert_eq!(lines.len(), 64 + 3, "{lines:?}");
    assert!(lines.contains(&"alice purge: 1 errors".to_owned()), "configured tools have their own");
    assert!(lines.contains(&"alice real: 2 answered".to_owned()), "once it has answered");
    assert!(lines.contains(&"alice : 1 answered, 37 errors".to_owned()), "{lines:?}");
}

#[tokio::test]
async fn usage_survives_a_reload_and_a_restart() {
    let backend = Backend::start().await;
    let mut app = backend.behind("", "").await;
    let (_, alice) = tokens(&app, "alice").await;
    let look = async |app: &TestApp, alice: &Tokens| {
        post(app, alice, &[], &request("ping", &json!({}))).await.assert_status(200);
    };
    look(&app, &alice).await;
    app.change_config("scopes = [\"read\", \"write\"]", "scopes = [\"read\", \"write\", \"x\"]");
    let reloaded = app.reload().await;
    assert!(matches!(reloaded, portcullis::app::Reloaded::Applied { .. }), "{reloaded:?}");
    look(&app, &alice).await;

    app.restart().await;

    assert_eq!(stored(&app).await, ["alice (ping): 2 answered"]);
    look(&app, &alice).await;
    assert_eq!(counted(&app).await, ["alice (ping): 3 answered"]);
}

#[tokio::test]
async fn a_call_counts_in_the_hour_in_which_it_began() {
    let backend = Backend::start().await;
    let app = backend.behind("", "").await;
    let (_, alice) = tokens(&app, "alice").await;
    let ping = request("ping", &json!({}));
    post(&app, &alice, &[], &ping).await.assert_status(200);
    app.advance(200);
    let clock = app.clock.clone();
    backend.answers(move |seen| {
        clock.advance(3500);
        answer_json(&json!({ "jsonrpc": "2.0", "id": seen.json()["id"], "result": {} }))
    });
    post(&app, &alice, &[], &ping).await.assert_status(200);

    app.write_usage().await;
    let hours = app.storage().usage_hours(&a_day(), 100).await.unwrap();
    let hours: Vec<_> =
        hours.iter().map(|hour| (hour.hour - HOUR, hour.row.counts.total())).collect();
    assert_eq!(hours, [(0, 2)]);
}

fn key(hour: i64, tool: &str) -> UsageKey {
    UsageKey {
        hour,
        resource: "https://mcp.example.com/mcp".to_owned(),
        subject: "oidc:demo-alice".to_owned(),
        client_id: "client".to_owned(),
        called: CalledName::Tool(tool.to_owned()),
    }
}

#[tokio::test]
async fn replicas_add_to_the_same_rows() {
    let app = TestApp::start().await;
    let mut counts = portcullis::storage::CallCounts::default();
    counts.0[0] = 1;
    let storage = app.storage();
    let writers = (0..20).map(|n| {
        let mut rows: Vec<_> = (0..40).map(|tool| (key(HOUR, &tool.to_string()), counts)).collect();
        rows.rotate_left(n);
        let storage = storage.clone();
        async move { storage.add_usage(&rows).await }
    });
    for written in futures_util::future::join_all(writers).await {
        written.unwrap();
    }

    let rows = storage.list_usage(&a_day(), 1000).await.unwrap();
    assert_eq!(rows.len(), 40);
    assert!(rows.iter().all(|row| row.counts.total() == 20), "{rows:?}");
    let days = UsageRange { step: UsageStep::Days, from: HOUR / 24, until: HOUR / 24 + 1 };
    let by_day = storage.list_usage(&UsageFilter::of(days), 1000).await.unwrap();
    assert_eq!(by_day.iter().map(|row| row.counts.total()).sum::<i64>(), 800);
    let slots = storage.usage_slots(&a_day(), &["https://mcp.example.com/mcp"]).await.unwrap();
    assert_eq!(slots.iter().map(|slot| slot.counts.total()).collect::<Vec<_>>(), [800]);
}

#[tokio::test]
async fn old_usage_goes_and_the_oldest_hours_where_there_are_too_many() {
    let app = TestApp::start().await;
    let storage = app.storage();
    let mut counts = portcullis::storage::CallCounts::default();
    counts.0[0] = 1;
    let rows: Vec<_> =
        (0..100).map(|n| (key(HOUR - 24 * n, &format!("tool {n}")), counts)).collect();
    storage.add_usage(&rows).await.unwrap();
    let rows: Vec<_> = (0..10).map(|n| (key(HOUR, &format!("today {n}")), counts)).collect();
    storage.add_usage(&rows).await.unwrap();
    let sweep = async |days: u64, hours: u64| {
        let age = std::time::Duration::from_hours(24 * days);
        let keep = UsageRetention { age, hours, rows: 7 };
        while storage.sweep_usage(app.now(), keep).await.unwrap() > 0 {}
    };
    let left = async || {
        let number = async |sql| app.database.number(sql).await;
        [
            number("SELECT COUNT(*) FROM usage_hours").await,
            number("SELECT COUNT(*) FROM usage_days").await,
            number("SELECT COUNT(*) FROM usage_of_servers").await,
            number("SELECT COUNT(*) FROM usage_keys").await,
        ]
    };
    assert_eq!(left().await, [110, 110, 100, 110]);

    sweep(30, 1000).await;
    assert_eq!(left().await, [41, 41, 31, 41]);
    sweep(30, 15).await;
    assert_eq!(left().await, [15, 16, 5, 16], "a day goes when all of its hours may");
    sweep(30, 5).await;
    assert_eq!(left().await, [11, 11, 1, 11], "the current hour stays");
}

#[tokio::test]
async fn what_the_database_does_not_take_is_written_later() {
    let backend = Backend::start().await;
    let app = backend.behind("", "").await;
    let (_, alice) = tokens(&app, "alice").await;
    post(&app, &alice, &[], &request("ping", &json!({}))).await.assert_status(200);
    app.database.execute("ALTER TABLE usage_hours RENAME TO away").await;
    assert!(app.try_to_write_usage().await.is_err());
    post(&app, &alice, &[], &request("ping", &json!({}))).await.assert_status(200);
    app.database.execute("ALTER TABLE away RENAME TO usage_hours").await;

    assert_eq!(counted(&app).await, ["alice (ping): 2 answered"]);
}

#[tokio::test]
async fn a_stream_that_is_cut_before_the_answer_is_no_answer() {
    use http_body_util::BodyExt;
    let backend = Backend::start().await;
    let app = backend.behind("", "").await;
    let (client, alice) = tokens(&app, "alice").await;
    backend.answers(|_| {
        let first = futures_util::stream::once(async { Ok::<_, std::io::Error>("event: x\n\n") });
        let endless = futures_util::StreamExt::chain(first, futures_util::stream::pending());
        let headers = [("content-type", "text/event-stream")];
        answer(200, &headers, Body::from_stream(endless))
    });
    let authorization = format!("Bearer {}", alice.access_token);
    let headers = [("authorization", authorization.as_str()), ("content-type", "application/json")];
    let body = call("slow").to_string();
    let mut open = app.http.open("POST", &app.mcp_url(), &headers, body).await.into_body();
    open.frame().await.unwrap().unwrap();

    client.revoke(&alice.refresh_token).await.assert_status(200);
    while let Some(Ok(_)) = open.frame().await {}

    assert_eq!(counted(&app).await, ["alice slow: 1 unanswered"]);
}
