//! What the gateway says when it refuses: in the words of whoever asked, JSON-RPC or not.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::backend::{Backend, PURGE, request, tokens};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp, raw};

const EVIL: (&str, &str) = ("origin", "https://evil.example");

/// The refusal of a JSON-RPC request is the same as that of a notification, told in JSON-RPC.
async fn assert_told(app: &TestApp, headers: &[(&str, &str)], call: &Value, status: u16) -> Answer {
    let url = app.mcp_url();
    let mut notification = call.clone();
    notification.as_object_mut().unwrap().remove("id");
    let plain = app.http.post_json(&url, &notification, headers).await;
    let told = app.http.post_json(&url, call, headers).await;
    assert_eq!(plain.status, status, "{}", plain.text());
    assert_eq!(told.status, status, "{}", told.text());
    let said = plain.json();
    let (code, text) = (&said["error"], &said["error_description"]);
    assert!(code.is_string() && text.is_string(), "{said}");
    let data = json!({ "error": code, "error_description": text });
    let error = json!({ "code": -32010, "message": text, "data": data });
    assert_eq!(told.json(), json!({ "jsonrpc": "2.0", "id": call["id"], "error": error }));
    for name in ["www-authenticate", "retry-after", "content-type", "cache-control", "allow"] {
        assert_eq!(told.header(name), plain.header(name), "{name}");
    }
    told
}

#[tokio::test]
async fn a_refused_json_rpc_request_hears_of_it_in_json_rpc() {
    let backend = Backend::start().await;
    let app = backend.behind("on_denied_tool = \"challenge\"", PURGE).await;
    let (_, tokens) = tokens(&app, "bob").await;
    let bearer = format!("Bearer {}", tokens.access_token);
    let authorized = ("authorization", bearer.as_str());
    for id in [json!(7), json!("a-b"), json!(0), json!(-1), json!("")] {
        let mut call = request("tools/call", &json!({ "name": "purge" }));
        call["id"] = id;
        let told = assert_told(&app, &[], &call, 401).await;
        assert!(told.header("www-authenticate").unwrap().starts_with("Bearer resource_metadata="));
        let told = assert_told(&app, &[("authorization", "Bearer x")], &call, 401).await;
        assert!(told.header("www-authenticate").unwrap().contains("error=\"invalid_token\""));
        assert_eq!(told.json()["error"]["data"]["error"], "invalid_token");
        let told = assert_told(&app, &[authorized], &call, 403).await;
        assert!(told.header("www-authenticate").unwrap().contains("scope=\"read write\""));
        assert_eq!(told.json()["error"]["data"]["error"], "insufficient_scope");
        assert_told(&app, &[("authorization", "Bearer a b")], &call, 400).await;
        assert_told(&app, &[authorized, EVIL], &call, 403).await;
        assert_told(&app, &[EVIL], &call, 403).await;
    }
    assert!(backend.take().is_empty());
}

#[tokio::test]
async fn trouble_with_the_mcp_server_is_told_in_json_rpc() {
    for tools in ["", PURGE] {
        let backend = Backend::start().await;
        let tables = "[limits]\nrequests_per_person = 1\nrequests_per_client = 1".to_owned();
        let resources = format!(
            "[[resource]]\npath = \"/mcp\"\ntarget = \"{}/mcp\"\nscopes = [\"read\", \"write\"]\n{tools}",
            backend.url
        );
        let app = TestApp::with(Setup::toml(resources).and(tables)).await;
        let (_, tokens) = tokens(&app, "alice").await;
        let bearer = format!("Bearer {}", tokens.access_token);
        let authorized = ("authorization", bearer.as_str());
        let call = request("ping", &json!({}));
        backend.answers(|_| crate::harness::backend::status(401));
        let told = assert_told(&app, &[authorized], &call, 502).await;
        assert_eq!(told.json()["error"]["data"]["error"], "bad_gateway");
        // One request that is not finished takes the only place.
        let head = format!(
            "POST {}/mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: {bearer}\r\nContent-Type: application/json\r\n\
             Content-Length: 100\r\nExpect: 100-continue\r\n\r\n",
            raw::path(&app.url),
            raw::host(&app.url)
        );
        let mut slow = raw::connect(&app.url).await;
        slow.write_all(head.as_bytes()).await.unwrap();
        let mut going_on = [0; 25];
        slow.read_exact(&mut going_on).await.unwrap(); // its body is waited for
        let told = assert_told(&app, &[authorized], &call, 429).await;
        assert_eq!(told.header("retry-after"), Some("2"));
    }
}

/// Whoever is refused before a body was looked at makes nobody read much of it.
#[tokio::test]
async fn only_what_is_one_short_request_is_read_for_its_id() {
    let backend = Backend::start().await;
    let app = backend.behind("", PURGE).await;
    let call = request("tools/call", &json!({ "name": "purge" }));
    let padded = |length: usize| {
        let text = call.to_string();
        format!("{text}{}", " ".repeat(length - text.len()))
    };
    let send = async |body: String| {
        let headers = [("content-type", "application/json")];
        app.http.send("POST", &app.mcp_url(), &headers, body).await
    };
    let told = |answer: &Answer| {
        assert_eq!(answer.status, 401);
        answer.json()["error"].is_object()
    };
    assert!(told(&send(padded(8192)).await));
    for body in [
        padded(8193),
        padded(60_000),
        json!([call]).to_string(),
        json!([1, "x"]).to_string(),
        json!({ "jsonrpc": "2.0", "id": 1, "result": {} }).to_string(),
        json!({ "jsonrpc": "2.0", "id": null, "method": "x" }).to_string(),
        json!({ "jsonrpc": "2.0", "id": { "a": 1 }, "method": "x" }).to_string(),
        r#"{"id":1,"id":2,"method":"x"}"#.to_owned(),
        "not json".to_owned(),
        String::new(),
    ] {
        let answer = send(body.clone()).await;
        assert!(!told(&answer), "{}: {}", &body[..body.len().min(100)], answer.text());
    }
    for method in ["GET", "DELETE", "PUT"] {
        let answer = app.http.send(method, &app.mcp_url(), &[], call.to_string()).await;
        assert!(!told(&answer), "{method}");
    }
    // What has not come, what does not say how long it is, and what is asked about first.
    let (host, path) = (raw::host(&app.url), raw::path(&app.url));
    let body = call.to_string();
    for (headers, body) in [
        (format!("Content-Length: {}", body.len()), &body[..10]),
        ("Transfer-Encoding: chunked".to_owned(), "5\r\n{\"id\""),
        (format!("Content-Length: {}\r\nExpect: 100-continue", body.len()), ""),
    ] {
        let head = format!("POST {path}/mcp HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n\r\n{body}");
        let answer = raw::exchange(&app.url, &head).await;
        assert_eq!(raw::status(&answer), 401, "{headers}: {answer}");
        assert!(answer.contains("{\"error\":\"unauthorized\""), "{headers}: {answer}");
    }
}
