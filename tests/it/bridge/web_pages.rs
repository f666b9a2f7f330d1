//! Who may call a bridge, and how: it has no authentication, so only what comes from this machine and from no
//! web page.

use serde_json::json;

use super::bridged::{Bridge, initialize};
use crate::harness::process::run;
use crate::harness::raw;

#[tokio::test]
async fn hh_04_a_web_page_cannot_call_a_bridge() {
    let bridge = Bridge::start(&["--allowed-host", "bridge.internal"]);
    let body = initialize().to_string();
    let with = async |host: &str, more: &str| {
        let request = format!(
            "POST /mcp HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nConnection: close\r\n\
             {more}Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        raw::status(&raw::exchange(&bridge.origin, &request).await)
    };
    assert_eq!(with("localhost:9000", "").await, 200);
    assert_eq!(with("bridge.internal:9000", "").await, 200);
    assert_eq!(with("evil.example", "").await, 421);
    assert_eq!(with("127.0.0.1.nip.io:9000", "").await, 421);
    assert_eq!(with("localhost", "Origin: http://evil.example\r\n").await, 403);
    assert_eq!(with("localhost", "Origin: null\r\n").await, 403);
    assert_eq!(with("localhost", "Origin: http://localhost:6274\r\n").await, 200);
    // A page may send text without asking first.
    let url = bridge.mcp();
    let simple = [("content-type", "text/plain")];
    bridge.http.send("POST", &url, &simple, body.clone()).await.assert_status(415);
    bridge.http.send("POST", &url, &[], body.clone()).await.assert_status(415);
}

#[tokio::test]
async fn a_request_that_is_no_mcp_is_refused_with_the_reason() {
    let bridge = Bridge::start(&[]);
    let url = bridge.mcp();
    for (body, code) in [("", -32700), ("{", -32700), ("7", -32600), ("{\"id\":1}", -32600)] {
        let answer = bridge.post_text(body, &[]).await;
        answer.assert_status(400);
        assert_eq!(answer.json()["error"]["code"], code, "{body}");
        assert_eq!(answer.json()["id"], json!(null));
    }
    bridge.http.get(&url).await.assert_status(405);
    bridge.http.send("DELETE", &url, &[], "").await.assert_status(405);
    let put = bridge.http.send("PUT", &url, &[], "").await;
    assert_eq!(put.assert_status(405).header("allow"), Some("GET, POST, DELETE"));
    bridge.http.get(&format!("{}/other", bridge.origin)).await.assert_status(404);
    let html = [("content-type", "application/json"), ("accept", "text/html")];
    bridge.http.send("POST", &url, &html, initialize().to_string()).await.assert_status(406);
    assert_eq!(
        bridge.health().await.json(),
        json!({ "status": "ok", "processes": 0, "sessions": 0 })
    );
}

#[test]
fn a_bridge_listens_on_loopback_unless_the_risk_is_named() {
    let folder = std::env::temp_dir();
    let said = |arguments: &[&str]| {
        let ran = run(&folder, arguments, &[("PATH", "/usr/bin:/bin")]);
        assert_eq!(ran.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(ran.stderr).unwrap()
    };
    let refused = said(&["bridge", "--listen", "0.0.0.0:0", "--", "true"]);
    assert!(refused.contains("--expose-without-authentication"), "{refused}");
    let missing = said(&["bridge", "--listen", "127.0.0.1:0", "--", "no-such-mcp-server"]);
    assert!(missing.contains("no-such-mcp-server: there is no such program"), "{missing}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let in_use = said(&["bridge", "--listen", &address, "--", "true"]);
    assert!(in_use.contains("in use"), "{in_use}");
    let none = run(&folder, &["bridge"], &[]);
    let none = String::from_utf8(none.stderr).unwrap();
    assert!(none.contains("COMMAND"), "{none}");
}
