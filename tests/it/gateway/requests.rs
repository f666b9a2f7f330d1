//! The gateway: who passes, what passes, and what the MCP server sees: threats AU-01, JW-01,
//! GW-01, GW-02.

use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::client::{McpClient, Tokens, jwt_part};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp, raw, todo_resource};

fn ping() -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })
}

async fn call(app: &TestApp, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![("mcp-protocol-version", "2026-07-28"), ("mcp-method", "ping")];
    all.extend_from_slice(headers);
    app.http.post_json(&app.mcp_url(), &ping(), &all).await
}

async fn call_with(app: &TestApp, token: &str) -> Answer {
    call(app, &[("authorization", &format!("Bearer {token}"))]).await
}

#[track_caller]
fn challenge(answer: &Answer, status: u16) -> String {
    answer.assert_status(status);
    answer.header("www-authenticate").expect("a challenge").to_owned()
}

#[tokio::test]
async fn gw_01_no_token_is_challenged_whatever_the_method_and_nothing_reaches_the_server() {
    let app = TestApp::start().await;
    let metadata = app.well_known("oauth-protected-resource", "/mcp");
    for method in ["GET", "POST", "DELETE"] {
        let answer = app.http.send(method, &app.mcp_url(), &[], "").await;
        let challenge = challenge(&answer, 401);
        assert!(challenge.starts_with(&format!("Bearer resource_metadata=\"{metadata}\"")));
        assert!(!challenge.contains("error="), "RFC 6750 §3.1: no code without a token");
        for scope in ["create:todos", "read:todos", "delete:todos"] {
            assert!(challenge.contains(scope), "the full useful set: {challenge}");
        }
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    assert!(app.todo.recorded().is_empty());
}

#[tokio::test]
async fn a_challenge_ends_no_connection_on_which_the_body_is_still_to_come() {
    let app = TestApp::start().await;
    let (host, path) = (raw::host(&app.url), raw::path(&app.url));
    let body = ping().to_string();
    let head = format!(
        "POST {path}/mcp HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    let mut connection = raw::connect(&app.url).await;
    for _ in 0..2 {
        connection.write_all(head.as_bytes()).await.unwrap();
        // Meanwhile the server has long seen the head.
        challenge(&call(&app, &[]).await, 401);
        connection.write_all(body.as_bytes()).await.unwrap();
        let mut answer = [0; 4096];
        let read = connection.read(&mut answer).await.unwrap();
        assert_eq!(raw::status(&String::from_utf8_lossy(&answer[..read])), 401);
    }
}

#[tokio::test]
async fn jw_01_a_token_that_is_not_exactly_ours_is_refused() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("alice").await;
    let good = &tokens.access_token;
    call_with(&app, good).await.assert_status(200);
    let before = app.todo.recorded().len();
    let parts: Vec<&str> = good.split('.').collect();
    let with = |index: usize, change: &dyn Fn(&mut Value)| {
        let mut part = jwt_part(good, index);
        change(&mut part);
        let mut parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        parts[index] = URL_SAFE_NO_PAD.encode(part.to_string());
        parts.join(".")
    };
    let mut bad = vec![
        with(0, &|h| h["alg"] = "none".into()),
        with(0, &|h| h["alg"] = "HS256".into()),
        with(0, &|h| h["typ"] = "JWT".into()),
        with(0, &|h| h["crit"] = json!(["x"])),
        with(0, &|h| h["jwk"] = json!({})),
        with(0, &|h| h["kid"] = "other".into()),
        with(1, &|c| c["aud"] = "https://other.example/mcp".into()),
        with(1, &|c| c["scope"] = "read:todos create:todos delete:todos admin".into()),
        with(1, &|c| c["exp"] = json!(4_000_000_000_i64)),
        with(1, &|c| c["sub"] = "oidc:demo-alice2".into()),
        format!("{}.{}.", parts[0], parts[1]),
        format!("{}.{}", parts[0], parts[1]),
        format!("{good}x"),
        tokens.refresh_token.clone(),
        "x".repeat(9000),
    ];
    // A token of the identity provider itself.
    bad.push(app.idp.issuer().to_owned());
    for token in bad {
        let challenge = challenge(&call_with(&app, &token).await, 401);
        assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    }
    assert_eq!(app.todo.recorded().len(), before);
}

#[tokio::test]
async fn an_expired_token_is_refused_and_a_refreshed_one_passes() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.advance(600 + 5);
    call_with(&app, &tokens.access_token).await.assert_status(401);
    let fresh = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    call_with(&app, &fresh.access_token).await.assert_status(200);
}

#[tokio::test]
async fn au_01_a_token_for_one_mcp_server_opens_no_other() {
    let app = TestApp::start().await;
    let target = app.todo.url();
    drop(app);
    let resources = format!(
        "[[resource]]\npath = \"/one\"\ntarget = \"{target}\"\nscopes = [\"read\"]\n\
         [[resource]]\npath = \"/two\"\ntarget = \"{target}\"\nscopes = [\"read\"]"
    );
    let app = TestApp::with(Setup::toml(resources)).await;
    let client = app.client().await;
    let one = app.at("/one");
    let back = client.authorize("bob", &[("resource", &one), ("scope", "")]).await;
    let code = back.location_param("code").unwrap();
    client
        .redeem_with(&code, &[("resource", &app.at("/two"))])
        .await
        .assert_error(400, "invalid_target");
    let tokens = Tokens::of(&client.redeem_with(&code, &[("resource", &one)]).await);
    let authorization = format!("Bearer {}", tokens.access_token);
    let headers = [("authorization", authorization.as_str())];
    let refused = app.http.post_json(&app.at("/two"), &ping(), &headers).await;
    assert!(challenge(&refused, 401).contains("/two"));
}

#[tokio::test]
async fn a_token_in_the_query_or_twice_is_not_read() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("bob").await;
    let url = format!("{}?access_token={}", app.mcp_url(), tokens.access_token);
    app.http.post_json(&url, &ping(), &[]).await.assert_status(401);
    let value = format!("Bearer {}", tokens.access_token);
    let twice = [("authorization", value.as_str()), ("authorization", value.as_str())];
    challenge(&call(&app, &twice).await, 400);
}

/// The server sees what we know, not what the client says.
#[tokio::test]
async fn gw_01_identity_headers_cannot_be_smuggled() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let authorization = format!("Bearer {}", tokens.access_token);
    // Many servers read `_` as `-`: such a name is not sent on, and not ignored.
    for name in ["x_portcullis_subject", "X_Portcullis_Subject", "x-portcullis_subject", "x_user"] {
        let headers = [("authorization", authorization.as_str()), (name, "oidc:demo-alice")];
        let answer = call(&app, &headers).await;
        answer.assert_error(400, "bad_request");
        // It says which header it is.
        let told = answer.json()["error_description"].as_str().unwrap().to_owned();
        assert!(told.contains(&format!("the header {} has", name.to_lowercase())), "{told}");
    }
    let answer = call(
        &app,
        &[
            ("authorization", &authorization),
            ("x-portcullis-subject", "oidc:demo-alice"),
            ("X-Portcullis-Scopes", "delete:todos"),
            ("connection", "x-portcullis-subject"),
            ("x-forwarded-user", "alice"),
            ("x-forwarded-for", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("cookie", "session=1"),
            ("proxy-authorization", "Basic eDp5"),
            ("x-user", "alice"),
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("mcp-param-region", "eu"),
            ("accept-language", "ja"),
        ],
    )
    .await;
    answer.assert_status(200);
    let seen = app.todo.recorded().pop().unwrap();
    assert_eq!(seen.header("x-portcullis-subject"), Some("oidc:demo-bob"));
    assert_eq!(seen.header("x-portcullis-client"), Some(client.id.as_str()));
    assert_eq!(seen.header("x-portcullis-scopes"), Some("create:todos"));
    assert_eq!(seen.header("x-portcullis-name"), Some("Bob Brown"));
    assert_eq!(seen.header("x-portcullis-email"), Some("bob@example.com"));
    assert_eq!(seen.headers.get_all("x-portcullis-subject").iter().count(), 1);
    let mut names: Vec<&str> = seen.headers.keys().map(hyper::header::HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept-language",
            "content-length",
            "content-type",
            "host",
            "mcp-method",
            "mcp-param-region",
            "mcp-protocol-version",
            "traceparent",
            "x-portcullis-client",
            "x-portcullis-email",
            "x-portcullis-email-verified",
            "x-portcullis-name",
            "x-portcullis-scopes",
            "x-portcullis-subject",
        ]
    );
}

/// One path, exactly; what is forwarded comes from the configuration.
#[tokio::test]
async fn gw_02_no_path_leads_past_the_mcp_endpoint() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("alice").await;
    let authorization = format!("Bearer {}", tokens.access_token);
    let before = app.todo.recorded().len();
    for path in [
        "/mcp/..%2fadmin",
        "/mcp/%2e%2e/admin",
        "/mcp//admin",
        "/mcp/..;/admin",
        "/mcp%2f..%2fadmin",
        "/MCP",
        "/mcp.json",
        "/mcp//",
        "/mcp/admin",
        "//mcp",
        "/mcp;x",
        "/mcp%00",
        "/%6dcp",
    ] {
        let headers = [("authorization", authorization.as_str())];
        let answer = app.http.post_json(&app.at(path), &ping(), &headers).await;
        assert!(answer.status.is_client_error(), "{path}: {}", answer.status);
    }
    assert_eq!(app.todo.recorded().len(), before);
    let url = format!("{}?tenant=a%2Fb&access_token=secret", app.mcp_url());
    let headers = [
        ("authorization", authorization.as_str()),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "ping"),
    ];
    app.http.post_json(&url, &ping(), &headers).await.assert_status(200);
    let seen = app.todo.recorded().pop().unwrap();
    assert_eq!((seen.path.as_str(), seen.query.as_str()), ("/mcp", "tenant=a%2Fb"));
}

#[tokio::test]
async fn only_the_methods_of_mcp_pass_and_no_upgrades() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("bob").await;
    let authorization = format!("Bearer {}", tokens.access_token);
    for method in ["PUT", "PATCH", "TRACE", "HEAD", "PROPFIND"] {
        let headers = [("authorization", authorization.as_str())];
        let answer = app.http.send(method, &app.mcp_url(), &headers, "").await;
        assert!(answer.status == 405, "{method}: {}", answer.status);
    }
    let headers = [
        ("authorization", authorization.as_str()),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
    ];
    let answer = app.http.send("GET", &app.mcp_url(), &headers, "").await;
    assert_eq!(answer.assert_status(426).header("upgrade"), Some("HTTP/1.1"));
    assert_eq!(answer.header("connection"), Some("upgrade"));
}

/// Java's HTTP client offers HTTP/2 with every request over http://, and goes on in HTTP/1.1 without it.
#[tokio::test]
async fn gw_04_an_offer_to_change_the_protocol_is_ignored() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("bob").await;
    let ping = ping().to_string();
    for offer in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
        "Connection: upgrade\r\nUpgrade: H2C",
        "Connection: upgrade\r\nUpgrade: h2c, h2",
        "Connection: upgrade\r\nUpgrade: TLS/1.2, HTTP/1.1",
        "Connection: upgrade\r\nUpgrade: HTTP/2.0, SHTTP/1.3, IRC/6.9, RTA/x11",
        "Connection: upgrade\r\nUpgrade: connect-udp",
        "Connection: upgrade\r\nUpgrade: xwebsocket",
        "Upgrade: h2c",
    ] {
        let before = app.todo.recorded().len();
        let head = format!(
            "POST {}/mcp HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: ping\r\nContent-Length: {}\r\n",
            raw::path(&app.url),
            raw::host(&app.url),
            tokens.access_token,
            ping.len()
        );
        // The connection goes on as it was.
        let twice = format!("{head}{offer}\r\n\r\n{ping}{head}Connection: close\r\n\r\n{ping}");
        let answers = raw::exchange(&app.url, &twice).await;
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{offer}: {answers}");
        assert!(!answers.contains("101"), "{answers}");
        let seen = app.todo.recorded();
        assert_eq!(seen.len() - before, 2);
        for request in &seen[before..] {
            for name in ["upgrade", "http2-settings", "connection"] {
                assert_eq!(request.header(name), None, "{offer}");
            }
        }
    }
    for offer in ["websocket", "WebSocket", "h2c, websocket", "websocket/13", " websocket ,x"] {
        let authorization = format!("Bearer {}", tokens.access_token);
        let headers = [
            ("authorization", authorization.as_str()),
            ("connection", "upgrade"),
            ("upgrade", offer),
        ];
        let answer = app.http.post_json(&app.mcp_url(), &json!({}), &headers).await;
        assert_eq!(answer.status, 426, "{offer}");
    }
}

#[tokio::test]
async fn gw_17_web_pages_of_unlisted_origins_are_refused() {
    let setup = || Setup::toml("allowed_origins = [\"https://app.example\"]");
    let app = TestApp::with(setup()).await;
    let (_, tokens) = app.tokens_of("bob").await;
    let authorization = format!("Bearer {}", tokens.access_token);
    for (origin, status) in [
        (app.origin.as_str(), 200),
        ("http://localhost:6274", 200),
        ("https://app.example", 200),
        ("https://evil.example", 403),
        ("http://localhost.evil.example", 403),
        ("null", 403),
    ] {
        let answer = call(&app, &[("authorization", &authorization), ("origin", origin)]).await;
        assert_eq!(answer.status, status, "{origin}");
    }
    // A preflight is answered before any token is asked for, and challenges can be read.
    let preflight = [
        ("origin", "http://localhost:6274"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type,mcp-protocol-version"),
    ];
    let answer = app.http.send("OPTIONS", &app.mcp_url(), &preflight, "").await;
    assert!(answer.status.is_success(), "{}", answer.status);
    let answer = call(&app, &[("origin", "http://localhost:6274")]).await;
    let exposed = answer.header("access-control-expose-headers").unwrap().to_lowercase();
    assert!(exposed.contains("www-authenticate") && exposed.contains("mcp-session-id"));
}

#[tokio::test]
async fn gw_05_tool_rules_hold_in_batches_and_against_lying_headers() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("bob").await;
    let authorization = format!("Bearer {}", tokens.access_token);
    let purge = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": { "name": "purge-todos" } });
    let before = app.todo.recorded().len();
    let send = |body: String, extra: Vec<(&'static str, &'static str)>| {
        let mut headers = vec![
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
            ("mcp-protocol-version", "2025-11-25"),
        ];
        headers.extend(extra);
        let headers: Vec<(String, String)> =
            headers.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let (http, url) = (app.http.clone(), app.mcp_url());
        async move {
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            http.send("POST", &url, &headers, body).await
        }
    };
    send(json!([ping(), purge]).to_string(), vec![]).await.assert_status(403);
    let lying = vec![("mcp-method", "tools/call"), ("mcp-name", "get-todos")];
    let answer = send(purge.to_string(), lying).await;
    assert_eq!(answer.assert_status(400).json()["error"]["code"], -32020);
    let answer = send(purge.to_string(), vec![("mcp-method", "ping")]).await;
    answer.assert_status(400);
    let older = r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2027-01-01"}}}"#;
    let answer = send(older.to_owned(), vec![]).await;
    assert_eq!(answer.assert_status(400).json()["error"]["code"], -32020);
    let doubled = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get-todos","name":"purge-todos"}}"#;
    let answer = send(doubled.to_owned(), vec![]).await;
    assert_eq!(answer.assert_status(400).json()["error"]["code"], -32700);
    send("not json".to_owned(), vec![]).await.assert_status(400);
    let unicode =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"purge\u002dtodos"}}"#;
    send(unicode.to_owned(), vec![]).await.assert_status(403);
    // What another reader would read differently is not passed on at all.
    for body in [
        r#"{"Method":"tools/call","Params":{"Name":"purge-todos"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"get-todos","Name":"purge-todos"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","paramſ":{"name":"purge-todos"},"params":{"name":"get-todos"}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":["purge-todos"]}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#,
        "7",
    ] {
        send(body.to_owned(), vec![]).await.assert_status(400);
    }
    let utf7 =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"+AHA-urge-todos"}}"#;
    for extra in [
        ("content-type", "application/json; charset=utf-7"),
        ("content-type", "text/plain"),
        ("content-encoding", "gzip"),
    ] {
        send(utf7.to_owned(), vec![extra]).await.assert_status(400);
    }
    assert_eq!(app.todo.recorded().len(), before);
}

#[tokio::test]
async fn gw_05_a_refused_tool_is_a_step_up_challenge_that_names_all_it_needs() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let answer = client.call_tool(&tokens.access_token, "purge-todos", json!({})).await;
    let challenge = challenge(&answer, 403);
    assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
    assert!(challenge.contains("resource_metadata="), "{challenge}");
    assert!(challenge.contains("delete:todos"), "{challenge}");
}

#[tokio::test]
async fn trouble_of_the_mcp_server_is_told_as_such() {
    let setup = Setup::toml("[limits]\ngateway_response = \"1s\"");
    let app = TestApp::with(setup).await;
    let (_, tokens) = app.tokens_of("bob").await;
    let token = &tokens.access_token;
    let answers = [
        (401, vec![("www-authenticate", "Bearer realm=\"inner\"".to_owned())]),
        (302, vec![("location", "https://evil.example/".to_owned())]),
        (307, vec![("location", "/admin".to_owned())]),
    ];
    for (status, headers) in answers {
        app.todo.misbehave(|how| how.answer = Some((status, headers)));
        let answer = call_with(&app, token).await;
        answer.assert_status(502);
        assert!(answer.json()["error"]["data"]["error_description"].is_string());
        assert_eq!(answer.header("location"), None);
        assert_eq!(answer.header("www-authenticate"), None);
    }
    // Its own errors pass, without its cookies and banners.
    let headers = vec![
        ("set-cookie", "inner=1".to_owned()),
        ("server", "inner/1.0".to_owned()),
        ("retry-after", "7".to_owned()),
    ];
    app.todo.misbehave(|how| how.answer = Some((500, headers)));
    let answer = call_with(&app, token).await;
    answer.assert_status(500);
    assert_eq!((answer.header("set-cookie"), answer.header("server")), (None, None));
    assert_eq!(answer.header("retry-after"), Some("7"));

    app.todo.misbehave(|how| how.answer = None);
    app.todo.gate().close();
    call_with(&app, token).await.assert_status(504);
    app.todo.gate().open();
    app.todo.shutdown();
    call_with(&app, token).await.assert_status(502);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let setup = Setup::toml("[limits]\ngateway_body = 2000");
    let app = TestApp::with(setup).await;
    let (client, tokens) = app.tokens_of("bob").await;
    let create = |size: usize| json!({ "content": "x".repeat(size) });
    client.call_tool(&tokens.access_token, "create-todo", create(500)).await.assert_status(200);
    client.call_tool(&tokens.access_token, "create-todo", create(3000)).await.assert_status(413);
}

#[tokio::test]
async fn names_beyond_ascii_reach_the_server_encoded() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| {
        how.extra_claims.insert("name".to_owned(), "山田 太郎\r\nX-Evil: 1".into());
    });
    let (_, tokens) = app.tokens_of("bob").await;
    call_with(&app, &tokens.access_token).await.assert_status(200);
    let seen = app.todo.recorded().pop().unwrap();
    assert!(seen.headers.get("x-evil").is_none());
    let name = seen.header("x-portcullis-name").unwrap();
    let name = percent_encoding::percent_decode_str(name).decode_utf8().unwrap().into_owned();
    assert!(name.starts_with("山田 太郎"), "{name}");
}

#[tokio::test]
async fn it_fails_closed_when_the_grant_cannot_be_looked_up() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("bob").await;
    app.database.execute("ALTER TABLE grants RENAME TO grants_gone").await;
    let before = app.todo.recorded().len();
    let answer = call_with(&app, &tokens.access_token).await;
    // A table that is gone does not come back by trying again.
    answer.assert_status(500);
    assert_eq!(answer.header("retry-after"), None);
    assert_eq!(app.todo.recorded().len(), before);
    app.database.execute("ALTER TABLE grants_gone RENAME TO grants").await;
    call_with(&app, &tokens.access_token).await.assert_status(200);
}

#[tokio::test]
async fn a_resource_without_rules_gives_everybody_its_default_scopes() {
    let app = TestApp::start().await;
    let open = todo_resource(&app.todo, "");
    let open = open.split("[[resource.rule]]").next().unwrap().to_owned();
    let setup = Setup::toml(format!("{open}\ndefault_scopes = [\"read:todos\"]"));
    let open = TestApp::with(setup).await;
    let client = McpClient::register(&open).await;
    let back = client.authorize("mallory", &[("scope", "")]).await;
    let tokens = Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await);
    assert_eq!(tokens.scope, "read:todos");
}

/// The provider's ID token is signed, names the same person, and is no access token.
#[tokio::test]
async fn jw_04_an_id_token_of_the_provider_opens_nothing() {
    static ID_TOKEN: OnceLock<String> = OnceLock::new();
    let app = TestApp::start().await;
    app.idp.misbehave(|how| {
        how.change_token_answer = Some(|answer| {
            ID_TOKEN.get_or_init(|| answer["id_token"].as_str().unwrap().to_owned());
        });
    });
    let (client, _) = app.tokens_of("alice").await;
    let id_token = ID_TOKEN.get().unwrap();
    assert_eq!(jwt_part(id_token, 1)["sub"], "demo-alice");
    let before = app.todo.recorded().len();
    let challenge = challenge(&call_with(&app, id_token).await, 401);
    assert!(challenge.contains("error=\"invalid_token\""), "{challenge}");
    assert_eq!(app.todo.recorded().len(), before);
    client.refresh(id_token).await.assert_error(400, "invalid_grant");
    client.redeem(id_token).await.assert_error(400, "invalid_grant");
}
