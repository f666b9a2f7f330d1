//! Which headers of a request reach the MCP server.

use serde_json::json;

use crate::harness::backend::{Backend, post, request, tokens};
use crate::harness::{logs, raw};

#[tokio::test]
async fn listed_headers_pass_and_others_are_named_in_the_log() {
    let backend = Backend::start().await;
    let listed = "forward_headers = [\"X-Tenant-Id\", \"baggage\", \"x-request-id\", \"x.dotted\"]";
    let app = backend.behind(listed, "").await;
    let (_, bobs) = tokens(&app, "bob").await;
    let headers = [
        ("x-tenant-id", "acme"),
        ("x-tenant-id", "second"),
        ("Baggage", "userTier=gold,region=eu"),
        ("X-Request-ID", "r-1"),
        ("x.dotted", "d"),
        ("x-other", "dropped-value"),
        ("cookie", "a=b"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-portcullis-subject", "oidc:demo-alice"),
    ];
    let call = request("ping", &json!({}));
    post(&app, &bobs, &headers, &call).await.assert_status(200);
    let seen = backend.take().pop().unwrap();
    let values: Vec<_> = seen.headers.get_all("x-tenant-id").iter().collect();
    assert_eq!(values, ["acme", "second"], "once each, in their order");
    assert_eq!(seen.header("baggage"), Some("userTier=gold,region=eu"));
    assert_eq!(seen.header("x-request-id"), Some("r-1"));
    assert_eq!(seen.header("x.dotted"), Some("d"));
    for dropped in ["x-other", "cookie", "x-forwarded-for", "authorization"] {
        assert_eq!(seen.header(dropped), None, "{dropped}");
    }
    assert_eq!(seen.header("x-portcullis-subject"), Some("oidc:demo-bob"));
    let log = logs::all();
    let line = log.lines().rfind(|line| line.contains("x-other")).expect("a line names it");
    assert!(line.contains("DEBUG") && line.contains("cookie"), "{line}");
    assert!(!line.contains("x-tenant-id") && !line.contains("baggage"), "{line}");
    assert!(!log.contains("dropped-value"), "names alone");
    // They do not come back from the server: that list is another one.
    backend.answers(|_| {
        let headers = [("x-tenant-id", "inner"), ("content-type", "application/json")];
        crate::harness::backend::answer(200, &headers, "{}")
    });
    assert_eq!(post(&app, &bobs, &[], &call).await.header("x-tenant-id"), None);
    // Nothing passes that is not listed.
    let app = backend.behind("", "").await;
    let (_, bobs) = tokens(&app, "bob").await;
    post(&app, &bobs, &headers, &call).await.assert_status(200);
    let seen = backend.take().pop().unwrap();
    for dropped in ["x-tenant-id", "baggage", "x-request-id", "x.dotted"] {
        assert_eq!(seen.header(dropped), None, "{dropped}");
    }
}

#[tokio::test]
async fn a_parameter_may_be_named_by_any_token() {
    let backend = Backend::start().await;
    let app = backend.behind("", "").await;
    let (_, tokens) = tokens(&app, "bob").await;
    let call = request("ping", &json!({}));
    for name in [
        "Mcp-Param-tenant_id",
        "mcp-param-_x",
        "mcp-param-x_",
        "mcp-param-__",
        "Mcp-Param-user.name",
        "mcp-param-a!b",
        "mcp-param-a~b^c`d|e",
        "mcp-param-#1$%&'*+",
        "Mcp-Param-TenantId",
    ] {
        let answer = post(&app, &tokens, &[(name, "v")], &call).await;
        assert_eq!(answer.status, 200, "{name}: {}", answer.text());
        let seen = backend.take().pop().unwrap();
        assert_eq!(seen.header(&name.to_ascii_lowercase()), Some("v"), "{name}");
    }
    for both in [
        [("mcp-param-tenant_id", "a"), ("mcp-param-x", "b")],
        [("mcp-param-a_b", "a"), ("mcp-param-a_c", "b")],
        [("mcp-param-a_b", "a"), ("mcp-name", "b")],
    ] {
        post(&app, &tokens, &both, &call).await.assert_status(200);
    }
    backend.take();
}

/// Servers that hand headers on as variables (CGI, WSGI, Rack, PHP) write everything but letters and digits alike.
#[tokio::test]
async fn gw_03_two_headers_that_a_server_may_read_as_one_are_refused() {
    let backend = Backend::start().await;
    let app = backend.behind("", "").await;
    let (_, tokens) = tokens(&app, "bob").await;
    let call = request("ping", &json!({}));
    for both in [
        ["mcp-param-a_b", "mcp-param-a-b"],
        ["mcp-param-a-b", "mcp-param-a.b"],
        ["Mcp-Param-A_B", "mcp-param-a.b"],
        ["mcp-param-a!b", "mcp-param-a~b"],
        ["mcp-param-x_", "mcp-param-x-"],
    ] {
        let headers = [(both[0], "a"), ("accept", "*/*"), (both[1], "b")];
        let answer = post(&app, &tokens, &headers, &call).await;
        answer.assert_error(400, "bad_request");
        let told = answer.json()["error_description"].as_str().unwrap().to_owned();
        let names_one = both.iter().any(|name| told.contains(&name.to_lowercase()));
        assert!(names_one, "{told}");
    }
    for name in [
        "mcp_param-x",
        "mcp-param_x",
        "mcp_session-id",
        "mcp-session_id",
        "mcp-method_",
        "x_tenant_id",
        "mcp-params_x",
        "last-event_id",
    ] {
        let answer = post(&app, &tokens, &[(name, "a")], &call).await;
        answer.assert_error(400, "bad_request");
    }
    assert!(backend.take().is_empty());
    let (host, path) = (raw::host(&app.url), raw::path(&app.url));
    let request = format!(
        "POST {path}/mcp HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nMcp-Param-A_b: x\r\n\
         mcp-param-a-B: y\r\nContent-Length: 0\r\n\r\n"
    );
    assert_eq!(raw::status(&raw::exchange(&app.url, &request).await), 400);
}
