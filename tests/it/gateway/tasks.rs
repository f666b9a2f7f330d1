//! Tasks (MCP extension `io.modelcontextprotocol/tasks`, and tasks of 2025-11-25) behind tool rules.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

use crate::harness::backend::{
    Backend, PURGE, answer, answer_events, answer_json, post, request, tokens, tokens_for,
};
use crate::harness::client::{McpClient, Tokens};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};

/// How a server tells that a call has become a task.
#[derive(Clone, Copy, Debug)]
enum Way {
    Json,
    Events,
    Of2025,
    Batch,
}

const WAYS: [Way; 4] = [Way::Json, Way::Events, Way::Of2025, Way::Batch];

fn tells(backend: &Backend, way: Way, task: &'static str, ttl: &Value) {
    let ttl = ttl.clone();
    backend.answers(move |seen| {
        let message = seen.json();
        let message = message.get(0).unwrap_or(&message);
        let result = match (message["method"].as_str().unwrap_or_default(), way) {
            ("tools/call", Way::Of2025) => {
                json!({ "task": { "taskId": task, "status": "working", "ttl": ttl } })
            }
            ("tools/call", _) => {
                json!({ "resultType": "task", "taskId": task, "status": "working", "ttlMs": ttl })
            }
            _ => json!({ "resultType": "complete", "taskId": "x", "status": "working" }),
        };
        let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
        match way {
            Way::Events => answer_events(
                &format!(
                    ": hi\n\nevent: message\ndata: {{\"method\":\"x\"}}\n\ndata: {answer}\n\n"
                ),
                7,
            ),
            Way::Batch => answer_json(&json!([answer])),
            _ => answer_json(&answer),
        }
    });
}

async fn call(app: &TestApp, tokens: &Tokens, tool: &str, way: Way) -> Answer {
    let params = match way {
        Way::Of2025 => json!({ "name": tool, "task": { "ttl": 60_000 } }),
        _ => json!({ "name": tool, "_meta": { "io.modelcontextprotocol/clientCapabilities": {
            "extensions": { "io.modelcontextprotocol/tasks": {} },
        } } }),
    };
    let call = request("tools/call", &params);
    let body = if matches!(way, Way::Batch) { json!([call]) } else { call };
    post(app, tokens, &[], &body).await
}

async fn ask(app: &TestApp, tokens: &Tokens, method: &str, task: &str) -> u16 {
    let params = match method {
        "subscriptions/listen" => json!({ "notifications": { "taskIds": ["unknown", task] } }),
        _ => json!({ "taskId": task }),
    };
    let answer = post(app, tokens, &[], &request(method, &params)).await;
    if answer.status == 400 {
        // The same words as for a task that there never was.
        assert_eq!(answer.json()["error"]["code"], -32602, "{}", answer.text());
        assert_eq!(answer.json()["id"], 1);
    }
    answer.status.as_u16()
}

const METHODS: [&str; 5] =
    ["tasks/get", "tasks/update", "tasks/cancel", "tasks/result", "subscriptions/listen"];

#[tokio::test]
async fn gw_20_a_task_is_of_use_to_the_person_and_client_that_made_it() {
    let backend = Backend::start().await;
    let app = backend.behind("", PURGE).await;
    let (client, bobs) = tokens(&app, "bob").await;
    let (_, alices) = tokens(&app, "alice").await;
    let metadata = json!({
        "client_name": "Other", "redirect_uris": [client.redirect_uri],
        "token_endpoint_auth_method": "none",
    });
    let other = McpClient::register_as(&app, metadata).await;
    let back = other.authorize("bob", &[("scope", "")]).await;
    let other = Tokens::of(&other.redeem(&back.location_param("code").unwrap()).await);
    let names = ["786512e2-9e0d-44bd-8f29-789f320fe840", "01J-events", "task:2025", "タスク-9"];
    for (way, task) in WAYS.into_iter().zip(names) {
        tells(&backend, way, task, &json!(3_600_000));
        call(&app, &bobs, "look", way).await.assert_status(200);
        backend.take();
        for method in METHODS {
            for stranger in [&alices, &other] {
                assert_eq!(ask(&app, stranger, method, task).await, 400, "{way:?} {method}");
            }
            let batch = json!([
                request("ping", &json!({})),
                request(
                    method,
                    &json!({
                        "taskId": task, "notifications": { "taskIds": [task] },
                    })
                )
            ]);
            post(&app, &alices, &[], &batch).await.assert_status(400);
            assert!(backend.take().is_empty(), "{way:?} {method}");
            assert_eq!(ask(&app, &bobs, method, task).await, 200, "{way:?} {method}");
            assert_eq!(ask(&app, &bobs, method, "unknown").await, 200);
            assert_eq!(ask(&app, &alices, method, "unknown").await, 200, "the server's to judge");
            assert_eq!(backend.take().len(), 3);
        }
    }
    // Servers that read identifiers loosely (UUIDs) must not be talked around.
    for spelled in [
        "786512E2-9E0D-44BD-8F29-789F320FE840",
        "786512e29e0d44bd8f29789f320fe840",
        "{786512e2-9e0d-44bd-8f29-789f320fe840}",
        "urn:uuid:786512e2-9e0d-44bd-8f29-789f320fe840",
        " 786512e2-9e0d-44bd-8f29-789f320fe840 ",
    ] {
        assert_eq!(ask(&app, &alices, "tasks/get", spelled).await, 400, "{spelled:?}");
    }
    // On every replica, and after a restart.
    if app.database.is_postgres() {
        let (replica, _stop) = app.replica().await;
        let authorization = format!("Bearer {}", alices.access_token);
        let headers = [("authorization", authorization.as_str())];
        let get = request("tasks/get", &json!({ "taskId": names[0] }));
        let answer = app.http.post_json(&format!("{replica}/mcp"), &get, &headers).await;
        answer.assert_status(400);
    }
    let mut app = app;
    app.restart().await;
    assert_eq!(ask(&app, &alices, "tasks/get", names[1]).await, 400);
    assert_eq!(ask(&app, &bobs, "tasks/get", names[1]).await, 200);
}

#[tokio::test]
async fn a_task_needs_what_its_tool_needed_and_is_forgotten_after_its_time() {
    let backend = Backend::start().await;
    let app = backend.behind("", PURGE).await;
    let (client, full) = tokens(&app, "alice").await;
    tells(&backend, Way::Json, "t-purge", &json!(7_200_000));
    call(&app, &full, "purge", Way::Json).await.assert_status(200);
    let back = client.authorize("alice", &[("scope", "read")]).await;
    let narrow = Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await);
    for method in METHODS {
        let params = json!({ "taskId": "t-purge", "notifications": { "taskIds": ["t-purge"] } });
        let answer = post(&app, &narrow, &[], &request(method, &params)).await;
        let challenge = answer.assert_status(403).header("www-authenticate").unwrap();
        assert!(challenge.contains("scope=\"read write\""), "{challenge}");
        post(&app, &full, &[], &request(method, &params)).await.assert_status(200);
    }
    let (_, bobs) = tokens(&app, "bob").await;
    assert_eq!(ask(&app, &bobs, "tasks/get", "t-purge").await, 400);
    app.advance(8 * 3600);
    let (_, bobs) = tokens(&app, "bob").await;
    assert_eq!(ask(&app, &bobs, "tasks/get", "t-purge").await, 200, "its time is over");

    // One that never ends is remembered for long, and one of a minute for a while.
    for (task, ttl) in [("t-ever", json!(null)), ("t-short", json!(60_000)), ("t-odd", json!("x"))]
    {
        tells(&backend, Way::Json, task, &ttl);
        call(&app, &bobs, "look", Way::Json).await.assert_status(200);
    }
    app.advance(300);
    for task in ["t-ever", "t-short", "t-odd"] {
        let (_, alices) = tokens(&app, "alice").await;
        assert_eq!(ask(&app, &alices, "tasks/get", task).await, 400, "{task}");
    }
}

#[tokio::test]
async fn a_person_who_makes_many_tasks_pushes_out_none_of_others() {
    let backend = Backend::start().await;
    let app = backend.behind("", PURGE).await;
    let (_, alices) = tokens_for(&app, "alice", "").await;
    let (_, bobs) = tokens(&app, "bob").await;
    tells(&backend, Way::Json, "hers", &json!(3_600_000));
    call(&app, &alices, "look", Way::Json).await.assert_status(200);
    for n in 0..1010 {
        let task: &'static str = format!("his-{n}").leak();
        if n == 1000 {
            app.advance(1); // of those that were made at once, any may go
        }
        tells(&backend, Way::Json, task, &json!(3_600_000));
        call(&app, &bobs, "look", Way::Json).await.assert_status(200);
    }
    assert_eq!(ask(&app, &bobs, "tasks/get", "hers").await, 400);
    assert_eq!(ask(&app, &alices, "tasks/get", "his-1009").await, 400);
    let count = app.database.number("SELECT COUNT(*) FROM mcp_tasks").await;
    assert_eq!(count, 1001);
}

#[tokio::test]
async fn answers_that_name_no_task_pass_as_they_are() {
    let backend = Backend::start().await;
    let app = backend.behind("", PURGE).await;
    let (_, bobs) = tokens(&app, "bob").await;
    let long = format!("{{\"id\":1,\"result\":{{\"content\":\"{}\"}}}}", "x".repeat(300_000));
    for body in ["{\"id\":1 ,\"result\":{\"n\":1e400}}", "not json", "", &long] {
        for chunked in [false, true] {
            let sent = body.to_owned();
            backend.answers(move |_| {
                let json = [("content-type", "application/json")];
                if !chunked {
                    return answer(200, &json, sent.clone());
                }
                let pieces: Vec<Result<axum::body::Bytes, std::io::Error>> = sent
                    .as_bytes()
                    .chunks(1000)
                    .map(|piece| Ok(axum::body::Bytes::copy_from_slice(piece)))
                    .collect();
                let stream = futures_util::stream::iter(pieces);
                answer(200, &json, axum::body::Body::from_stream(stream))
            });
            let heard = call(&app, &bobs, "look", Way::Json).await;
            assert_eq!(heard.assert_status(200).text(), body);
        }
    }
}

/// A response that may name a task is read before it is passed on: one that cannot be read is refused, and one that
/// does not come to its end is waited for as long as any other.
#[tokio::test]
async fn gw_20_a_response_that_may_name_a_task_and_cannot_be_read_is_refused() {
    let backend = Backend::start().await;
    let tables = "[limits]\ngateway_response = \"1s\"".to_owned();
    let resources = format!(
        "[[resource]]\npath = \"/mcp\"\ntarget = \"{}/mcp\"\nscopes = [\"read\", \"write\"]\n{PURGE}",
        backend.url
    );
    let app = TestApp::with(Setup::toml(resources).and(tables)).await;
    let (_, bobs) = tokens(&app, "bob").await;
    for coding in ["gzip", "br", "zstd", "x-unknown"] {
        backend.answers(move |_| {
            let headers = [("content-type", "application/json"), ("content-encoding", coding)];
            answer(200, &headers, "packed")
        });
        call(&app, &bobs, "look", Way::Json).await.assert_status(502);
    }
    for before in ["", "{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"taskId\":\"t-1\""] {
        backend.answers(move |_| {
            let begun = (!before.is_empty()).then(|| Ok(Bytes::from(before)));
            let stalls = stream::iter(begun).chain(stream::pending::<Result<_, Infallible>>());
            answer(200, &[("content-type", "application/json")], Body::from_stream(stalls))
        });
        call(&app, &bobs, "look", Way::Json).await.assert_status(504);
    }
}
