//! What passes where tool rules read the body: messages that every reader understands alike, and headers
//! that agree with them.

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::harness::backend::{Backend, PURGE, post, request, send, tokens};
use crate::harness::client::Tokens;
use crate::harness::{TestApp, raw};

fn ping() -> Value {
    request("ping", &json!({}))
}

/// The same with a header that is no text.
async fn post_bytes(app: &TestApp, tokens: &Tokens, header: &[u8], body: &Value) -> u16 {
    let body = body.to_string();
    let head = format!(
        "POST {}/mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n",
        raw::path(&app.url),
        raw::host(&app.url),
        tokens.access_token,
        body.len()
    );
    let request = [head.as_bytes(), header, b"\r\n\r\n", body.as_bytes()].concat();
    let mut connection = raw::connect(&app.url).await;
    connection.write_all(&request).await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::io::AsyncReadExt::read_to_end(&mut connection, &mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(raw::status(&answer) != 400 || answer.contains("-32020"), "{answer}");
    raw::status(&answer)
}

#[tokio::test]
async fn gw_23_a_header_that_cannot_be_decoded_contradicts_every_body() {
    let backend = Backend::start().await;
    let app = backend.behind("", PURGE).await;
    let (_, tokens) = tokens(&app, "bob").await;
    let answered = json!({ "jsonrpc": "2.0", "id": 1, "result": {} });
    let call = request("tools/call", &json!({ "name": "look" }));
    for name in ["Mcp-Method", "Mcp-Name", "MCP-Protocol-Version"] {
        let values = [
            "=?base64?!!!?=",
            "=?base64?cGluZw?=", // without its padding
            "=?base64?/w==?=",   // not UTF-8
            "=?base64??=",
            "=?base64?cGluZw==",
            "=?BASE64?cGluZw==?=",
            "=?utf-8?q?ping?=",
            "",
        ];
        for (number, value) in values.into_iter().enumerate() {
            for body in [&answered, &ping(), &call] {
                // A version that the body does not repeat is for the MCP server to judge.
                if name == "MCP-Protocol-Version" && number > 2 {
                    continue;
                }
                let answer = post(&app, &tokens, &[(name, value)], body).await;
                assert_eq!(answer.status, 400, "{name}: {value:?} {body}");
                assert_eq!(answer.json()["error"]["code"], -32020, "{name}: {value:?}");
            }
        }
        for value in [&b"\xff"[..], b"p\xc3\xafng", b"tools/call\x80"] {
            let header = [name.as_bytes(), b": ", value].concat();
            for body in [&answered, &ping(), &call] {
                assert_eq!(post_bytes(&app, &tokens, &header, body).await, 400, "{name} {value:?}");
            }
        }
    }
    assert!(backend.take().is_empty());
}

#[tokio::test]
async fn gw_23_two_versions_of_the_protocol_contradict_each_other() {
    let backend = Backend::start().await;
    let app = backend.behind("", PURGE).await;
    let (_, tokens) = tokens(&app, "bob").await;
    let twice = [("mcp-protocol-version", "2025-06-18"), ("mcp-protocol-version", "2025-11-25")];
    let answer = post(&app, &tokens, &twice, &ping()).await;
    assert_eq!(answer.assert_status(400).json()["error"]["code"], -32020);
    assert!(backend.take().is_empty());
}

#[tokio::test]
async fn gw_05_a_method_that_a_lenient_server_might_read_as_another_is_refused() {
    let backend = Backend::start().await;
    for transport in ["", "transport = \"http+sse\"\nhide_forbidden_tools = true"] {
        let app = backend.behind(transport, PURGE).await;
        let (_, tokens) = tokens(&app, "bob").await;
        for method in [
            "Tools/Call",
            "tools/Call",
            "TOOLS/CALL",
            " tools/call",
            "tools/call\n",
            "tools.call",
            "tools_call",
            "toolscall",
            "tools//call",
            "tool\u{200b}s/call",
            "\u{feff}tools/call",
            "ｔools/call",
            "tools／call",
            "𝐭ools/call",
            "ⓣools/call",
            "toolſ/call",
            "Tools/List",
            "Tasks/Get",
            "tasks/Cancel",
            "Resources/Read",
            "Prompts/Get",
            "Subscriptions/Listen",
            "Initialize",
            "Notifications/Initialized",
            "logging/setlevel",
        ] {
            let call = request(method, &json!({ "name": "purge", "taskId": "t" }));
            for body in [call.clone(), json!([ping(), call])] {
                let answer = post(&app, &tokens, &[], &body).await;
                assert_eq!(answer.status, 400, "{method:?} {transport}");
                assert_eq!(answer.json()["error"]["code"], -32600, "{method:?}");
            }
            // Nor does a header that repeats it help.
            if method.trim() == method && method.is_ascii() {
                let answer = post(&app, &tokens, &[("mcp-method", method)], &call).await;
                assert_eq!(answer.status, 400, "{method:?}");
            }
        }
        assert!(backend.take().is_empty());
    }
    let app = backend.behind("", PURGE).await;
    let (_, tokens) = tokens(&app, "bob").await;
    for method in ["tools/list", "logging/setLevel", "acme/Search", "tools/call2", "x"] {
        post(&app, &tokens, &[], &request(method, &json!({}))).await.assert_status(200);
    }
}

#[tokio::test]
async fn gw_05_a_message_that_is_not_json_rpc_is_refused_where_tools_have_rules() {
    let backend = Backend::start().await;
    let app = backend.behind("", PURGE).await;
    let (_, tokens) = tokens(&app, "bob").await;
    for body in [
        r#"{"jsonrpc":"2.0","id":1,"method":["tools/call"],"params":{"name":"purge"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":{"tools/call":1}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":null}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":7}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":"x"}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":7}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":null}"#,
        r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":[1],"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":true,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1}"#,
        r#"{"jsonrpc":"2.0"}"#,
        "{}",
        "[]",
        r#"{"jsonrpc":"2.0","id":1,"result":{},"error":{"code":1,"message":"x"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"ping","error":{"code":1,"message":"x"}}"#,
        r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#,
        r#"{"jsonrpc":2.0,"id":1,"method":"ping"}"#,
        r#"[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":1}]"#,
        r#"[[{"jsonrpc":"2.0","id":1,"method":"ping"}]]"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":["t"]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"taskId":"a","TaskId":"b"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tasks/cancel"}"#,
    ] {
        let answer = send(&app, &tokens, "POST", &[], body).await;
        assert_eq!(answer.status, 400, "{body}");
        assert_eq!(answer.json()["error"]["code"], -32700, "{body}");
    }
    assert!(backend.take().is_empty());
    for body in [
        r#"{"jsonrpc":"2.0","id":"a","method":"ping","params":[1]}"#,
        r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#,
        r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{}}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":null}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}"#,
        r#"{"jsonrpc":"2.0","error":{"code":1,"message":"x"}}"#,
    ] {
        send(&app, &tokens, "POST", &[], body).await.assert_status(200);
    }
}

#[tokio::test]
async fn gw_23_mcp_name_is_compared_with_what_the_method_acts_on_and_nothing_else() {
    let backend = Backend::start().await;
    let app = backend.behind("", PURGE).await;
    let (_, tokens) = tokens(&app, "alice").await;
    let cases = [
        ("tasks/get", json!({ "taskId": "t1" }), "t1", true),
        ("tasks/update", json!({ "taskId": "t1", "inputResponses": {} }), "t1", true),
        ("tasks/cancel", json!({ "taskId": "t1" }), "t1", true),
        ("tasks/get", json!({ "taskId": "タスク" }), "=?base64?44K/44K544Kv?=", true),
        ("tasks/get", json!({ "taskId": "t1" }), "t2", false),
        ("tasks/update", json!({ "taskId": "t1" }), "T1", false),
        ("tasks/cancel", json!({ "taskId": "t1", "name": "t2" }), "t2", false),
        ("tasks/get", json!({ "taskId": "t1", "uri": "t2" }), "t2", false),
        // A call that holds the id of a task is a call of its tool.
        ("tools/call", json!({ "name": "look", "taskId": "t1" }), "look", true),
        ("tools/call", json!({ "name": "look", "taskId": "t1" }), "t1", false),
        ("tools/call", json!({ "name": "look", "uri": "purge" }), "purge", false),
        ("resources/read", json!({ "uri": "a:b" }), "a:b", true),
        ("resources/read", json!({ "uri": "a:b", "name": "c:d" }), "c:d", false),
        ("resources/subscribe", json!({ "uri": "a:b", "name": "c:d" }), "c:d", false),
        ("resources/read", json!({ "name": "a:b" }), "a:b", false),
        ("prompts/get", json!({ "name": "p" }), "p", true),
        ("prompts/get", json!({ "name": "p", "uri": "q" }), "q", false),
        ("tasks/result", json!({ "taskId": "t1" }), "t1", false),
        ("ping", json!({ "taskId": "t1" }), "t1", false),
        ("acme/open", json!({ "uri": "a:b" }), "a:b", true),
        ("acme/open", json!({ "name": "n" }), "n", true),
    ];
    for (method, params, name, passes) in cases {
        let headers = [("mcp-method", method), ("mcp-name", name)];
        let answer = post(&app, &tokens, &headers, &request(method, &params)).await;
        let status = if passes { 200 } else { 400 };
        assert_eq!(answer.status, status, "{method} {params} {name}: {}", answer.text());
        if !passes {
            assert_eq!(answer.json()["error"]["code"], -32020, "{method} {params}");
        }
        assert_eq!(backend.take().len(), usize::from(passes), "{method} {params}");
    }
}

/// Headers, a body, and whether they pass.
type Case<'a> = (Vec<(&'a str, &'a str)>, Value, bool);

#[tokio::test]
async fn gw_23_a_request_that_states_2026_07_28_brings_its_headers() {
    let backend = Backend::start().await;
    let app = backend.behind("", PURGE).await;
    let (_, tokens) = tokens(&app, "bob").await;
    let version = |version: &str| {
        json!({ "_meta": { "io.modelcontextprotocol/protocolVersion": version }, "name": "look",
                "uri": "a:b", "taskId": "t" })
    };
    let (method, name) = (("mcp-method", "tools/call"), ("mcp-name", "look"));
    let new = ("mcp-protocol-version", "2026-07-28");
    let call = |params: &Value| request("tools/call", params);
    let plain = json!({ "name": "look", "uri": "a:b", "taskId": "t" });
    let body = version("2026-07-28");
    let cases: Vec<Case<'_>> = vec![
        (vec![new, method, name], call(&body), true),
        (vec![new, method, name], call(&plain), true),
        (vec![new, name], call(&plain), false),
        (vec![new, method], call(&plain), false),
        (vec![new], call(&plain), false),
        // Stated by the body alone.
        (vec![method, name], call(&body), false),
        (vec![], call(&body), false),
        (vec![("mcp-protocol-version", "2027-01-01")], call(&version("2027-01-01")), false),
        (vec![new], ping(), false),
        (vec![new, ("mcp-method", "ping")], ping(), true),
        (vec![new, ("mcp-method", "resources/read")], request("resources/read", &plain), false),
        (vec![new, ("mcp-method", "prompts/get")], request("prompts/get", &plain), false),
        (vec![new, ("mcp-method", "tasks/get")], request("tasks/get", &plain), false),
        (vec![new, ("mcp-method", "tools/list")], request("tools/list", &plain), true),
        // What is no request has no such headers (MCP 2026-07-28), nor has an older revision.
        (vec![new], json!({ "jsonrpc": "2.0", "method": "notifications/x" }), true),
        (vec![new], json!({ "jsonrpc": "2.0", "id": 1, "result": {} }), true),
        (vec![("mcp-protocol-version", "2025-11-25")], call(&plain), true),
        (vec![], call(&plain), true),
        (vec![], call(&version("2025-11-25")), true),
        (vec![("mcp-protocol-version", "draft")], call(&plain), true),
    ];
    for (headers, body, passes) in cases {
        let answer = post(&app, &tokens, &headers, &body).await;
        let status = if passes { 200 } else { 400 };
        assert_eq!(answer.status, status, "{headers:?} {body}: {}", answer.text());
        if !passes {
            let error = &answer.json()["error"];
            assert_eq!(error["code"], -32020, "{headers:?} {body}");
            assert!(error["message"].as_str().unwrap().contains("missing"), "{error}");
        }
        assert_eq!(backend.take().len(), usize::from(passes), "{headers:?} {body}");
    }
    // Without rules nothing is read: that is for the MCP server to say.
    let app = backend.behind("", "").await;
    let (_, tokens) = crate::harness::backend::tokens(&app, "bob").await;
    post(&app, &tokens, &[new], &call(&plain)).await.assert_status(200);
}
