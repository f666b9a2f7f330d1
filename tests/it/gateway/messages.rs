//! Messages that a loose MCP server could read as another one, where tools have rules: shapes that are not
//! JSON-RPC, names that end early, members that are spelled otherwise.

use serde_json::{Value, json};

use crate::harness::backend::{Backend, PURGE, post, request, send, tokens};
use crate::harness::client::Tokens;
use crate::harness::{TestApp, http::Answer};

/// Both transports, each with rules.
const TRANSPORTS: [&str; 2] = ["", "transport = \"http+sse\""];

/// By itself, and as one of a batch; nothing of it passes.
async fn assert_refused(
    app: &TestApp,
    tokens: &Tokens,
    backend: &Backend,
    message: &str,
) -> Answer {
    let batch = format!("[{},{message}]", request("ping", &json!({})));
    send(app, tokens, "POST", &[], batch).await.assert_status(400);
    let answer = send(app, tokens, "POST", &[], message.to_owned()).await;
    assert_eq!(answer.status, 400, "{message}");
    assert!(answer.json()["error"]["code"].is_number(), "{message}: {}", answer.text());
    assert!(backend.take().is_empty(), "{message}");
    answer
}

#[tokio::test]
async fn gw_05_nothing_that_is_not_json_rpc_passes_tool_rules() {
    let backend = Backend::start().await;
    for transport in TRANSPORTS {
        let app = backend.behind(transport, PURGE).await;
        let (_, tokens) = tokens(&app, "bob").await;
        for message in [
            // The method is no text.
            r#"{"jsonrpc":"2.0","id":1,"method":["tools/call"],"params":{"name":"purge"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":{"tools/call":{}},"params":{"name":"purge"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":null,"params":{"name":"purge"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":[["tools/call"]],"params":{"name":"purge"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"params":{"name":"purge"}}"#,
            // An answer with parameters, or with an error that is none.
            r#"{"jsonrpc":"2.0","id":1,"result":{},"params":{"name":"purge"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"method":"tools/call"},"params":{"name":"purge"}}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"},"params":[]}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":null}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":"tools/call"}"#,
            r#"{"jsonrpc":"2.0","id":1,"error":["x"]}"#,
            // A message within another one.
            r#"{"jsonrpc":"2.0","id":1,"request":{"method":"tools/call","params":{"name":"purge"}}}"#,
            r#""{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{\"name\":\"purge\"}}""#,
            r#"{"jsonrpc":"2.0","id":{"method":"tools/call"},"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[{"name":"purge"}]}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":["purge"]}"#,
            // JSON of some readers.
            r#"{"jsonrpc":"2.0","id":NaN,"method":"ping"}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping",}"#,
            r#"{"jsonrpc":"2.0","id":1,"method":"ping"/*,"method":"tools/call"*/}"#,
            r"{'jsonrpc':'2.0','id':1,'method':'ping'}",
            r#"{"jsonrpc":"2.0","id":1,"method":"\ud800"}"#,
        ] {
            assert_refused(&app, &tokens, &backend, message).await;
        }
        // Two documents, other encodings, other forms of a body.
        let call = request("tools/call", &json!({ "name": "purge" })).to_string();
        let ping = request("ping", &json!({})).to_string();
        let utf_16 =
            |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        for body in [
            format!("{ping}\n{call}").into_bytes(),
            format!("{ping}{call}").into_bytes(),
            format!("\u{feff}{call}").into_bytes(),
            format!("\u{1e}{call}").into_bytes(),
            utf_16(&call),
            utf_16(&format!("\u{feff}{call}")),
            Vec::new(),
        ] {
            let shown = String::from_utf8_lossy(&body).into_owned();
            send(&app, &tokens, "POST", &[], body).await.assert_status(400);
            assert!(backend.take().is_empty(), "{shown}");
        }
    }
    // What a client answers to the server passes.
    let app = backend.behind("", PURGE).await;
    let (_, tokens) = tokens(&app, "bob").await;
    for answer in [
        json!({ "jsonrpc": "2.0", "id": "s-1", "result": { "action": "accept", "content": { "a": 1 } } }),
        json!({ "jsonrpc": "2.0", "id": 7, "result": {} }),
        json!({ "jsonrpc": "2.0", "id": 7, "error": { "code": -1, "message": "no" } }),
    ] {
        post(&app, &tokens, &[], &answer).await.assert_status(200);
        assert_eq!(backend.take().pop().unwrap().json(), answer);
    }
}

#[tokio::test]
async fn gw_05_control_characters_end_no_name_early() {
    let backend = Backend::start().await;
    for transport in TRANSPORTS {
        let app = backend.behind(transport, PURGE).await;
        let (_, tokens) = tokens(&app, "bob").await;
        let texts =
            ["\0", "\0x", "\n", "\nx", "\r", "\t", "\u{1}z", "\u{1b}[0m", "\u{7f}", "\u{85}x"];
        for text in texts {
            let method = request(&format!("tools/call{text}"), &json!({ "name": "purge" }));
            let other = request(&format!("acme/x{text}"), &json!({ "name": "purge" }));
            let tool = request("tools/call", &json!({ "name": format!("purge{text}") }));
            let allowed = request("tools/call", &json!({ "name": format!("look{text}") }));
            let member = |name: &str, mut params: Value| {
                params[format!("{name}{text}")] = "purge".into();
                request("tools/call", &params)
            };
            let named = member("name", json!({ "name": "look" }));
            let beside = member("cursor", json!({ "name": "look" }));
            let mut inside = request("tools/call", &json!({ "name": "look", "_meta": {} }));
            inside["params"]["_meta"][format!("progressToken{text}")] = 1.into();
            for message in [method, other, tool, allowed, named, beside, inside] {
                let answer = assert_refused(&app, &tokens, &backend, &message.to_string()).await;
                assert_eq!(answer.json()["error"]["code"], -32600, "{message}");
                assert_eq!(answer.json()["id"], 1, "{message}");
            }
            // Members of the message itself are known by name.
            let mut params = request("tools/call", &json!({ "name": "look" }));
            params[format!("params{text}")] = json!({ "name": "purge" });
            let mut method = request("ping", &json!({ "name": "purge" }));
            method[format!("method{text}")] = "tools/call".into();
            for message in [params, method] {
                assert_refused(&app, &tokens, &backend, &message.to_string()).await;
            }
            // Somebody else's task cannot be named so either.
            for message in [
                request("tasks/get", &json!({ "taskId": format!("t1{text}") })),
                request(
                    "subscriptions/listen",
                    &json!({ "notifications": { "taskIds": ["t", format!("t1{text}")] } }),
                ),
            ] {
                let answer = assert_refused(&app, &tokens, &backend, &message.to_string()).await;
                assert_eq!(answer.json()["error"]["code"], -32602, "{message}");
            }
        }
    }
    // What a tool is given is its own.
    let app = backend.behind("", PURGE).await;
    let (_, tokens) = tokens(&app, "bob").await;
    let arguments = json!({ "a\nb": "c\0d", "inner": [{ "x\0y": 1 }] });
    let call = request("tools/call", &json!({ "name": "look", "arguments": arguments }));
    post(&app, &tokens, &[], &call).await.assert_status(200);
    assert_eq!(backend.take().pop().unwrap().json(), call);
}

#[tokio::test]
async fn gw_05_a_member_that_a_loose_server_reads_as_another_is_refused() {
    let backend = Backend::start().await;
    for transport in TRANSPORTS {
        let app = backend.behind(transport, PURGE).await;
        let (_, tokens) = tokens(&app, "bob").await;
        let spellings = |name: &str| {
            let (first, rest) = name.split_at(1);
            let wide: String =
                name.chars().map(|c| char::from_u32(u32::from(c) + 0xfee0).unwrap()).collect();
            vec![
                format!("{name} "),
                format!(" {name}"),
                format!("{name}\u{a0}"),
                format!("{first}_{rest}"),
                format!("{first}-{rest}"),
                format!("_{name}"),
                format!("{name}[]"),
                format!("{first}.{rest}"),
                format!("{first}\u{200b}{rest}"),
                format!("\u{feff}{name}"),
                wide,
                name.to_uppercase(),
                format!("{name}{}", " ".repeat(100)),
                format!("{}{name}", "_".repeat(5000)),
            ]
        };
        let with = |method: &str, mut params: Value, name: String, value: Value| {
            params[name] = value;
            request(method, &params)
        };
        let task = json!({ "taskId": "t" });
        let mut messages = Vec::new();
        for name in spellings("name") {
            messages.push(with(
                "tools/call",
                json!({ "name": "look" }),
                name.clone(),
                "purge".into(),
            ));
            messages.push(with("tools/call", json!({}), name.clone(), "purge".into()));
            messages.push(with("prompts/get", json!({ "name": "p" }), name, "q".into()));
        }
        for name in spellings("taskId") {
            messages.push(with("tasks/get", task.clone(), name.clone(), "other".into()));
            messages.push(with("tasks/cancel", task.clone(), name.clone(), "other".into()));
            messages.push(with("tasks/result", json!({}), name, "other".into()));
        }
        for name in spellings("taskIds") {
            let listen = with("x", json!({}), name, json!(["other"]));
            let listen = json!({ "notifications": listen["params"] });
            messages.push(request("subscriptions/listen", &listen));
        }
        for name in spellings("notifications") {
            let other = json!({ "taskIds": ["other"] });
            messages.push(with("subscriptions/listen", json!({}), name, other));
        }
        for name in spellings("uri") {
            messages.push(with("resources/read", json!({ "uri": "a:b" }), name, "c:d".into()));
        }
        for name in spellings("task") {
            messages.push(with("tools/call", json!({ "name": "look" }), name, json!({ "ttl": 1 })));
        }
        for name in ["meta", "_Meta", "META", "＿meta"] {
            let name = name.to_owned();
            messages.push(with("tools/call", json!({ "name": "look" }), name, json!({ "x": {} })));
        }
        // Ids that are no texts, which a loose server may flatten.
        for ids in [json!([["t"]]), json!([{ "taskId": "t" }]), json!({ "0": "t" }), json!("t")] {
            let listen = json!({ "notifications": { "taskIds": ids } });
            messages.push(request("subscriptions/listen", &listen));
        }
        for notifications in [json!([{ "taskIds": ["t"] }]), json!("t")] {
            let listen = json!({ "notifications": notifications });
            messages.push(request("subscriptions/listen", &listen));
        }
        for message in messages {
            assert_refused(&app, &tokens, &backend, &message.to_string()).await;
        }
    }
    // Other names are other names.
    let app = backend.behind("", PURGE).await;
    let (_, tokens) = tokens(&app, "bob").await;
    for message in [
        request(
            "tools/call",
            &json!({ "name": "look", "names": 1, "rename": 2, "arguments": { "Name": "x" } }),
        ),
        request(
            "tools/call",
            &json!({ "name": "look", "_meta": { "progressToken": 1 }, "meta": null }),
        ),
        request("prompts/get", &json!({ "name": "p", "arguments": { "na_me": "x" } })),
        request("resources/read", &json!({ "uri": "a:b", "_meta": { "URI": 1 } })),
        request("acme/open", &json!({ "Name": "x", "taskIds": ["t"] })),
        request("subscriptions/listen", &json!({ "notifications": { "toolsListChanged": true } })),
        request("subscriptions/listen", &json!({ "notifications": { "taskIds": ["unknown"] } })),
    ] {
        let answer = post(&app, &tokens, &[], &message).await;
        assert_eq!(answer.status, 200, "{message}: {}", answer.text());
        assert_eq!(backend.take().pop().unwrap().json(), message);
    }
}
