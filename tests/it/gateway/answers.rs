//! What of an MCP server's answer reaches the client: caching, challenges, redirects, streams.

use serde_json::json;

use crate::harness::backend::{
    Backend, PURGE, answer, answer_events, answer_json, post, request, send, tokens, tokens_for,
};
use crate::harness::logs;

#[tokio::test]
async fn gw_39_no_answer_is_more_public_than_private() {
    let backend = Backend::start().await;
    let table = [
        ("public", "private"),
        ("public, max-age=3600", "private, max-age=3600"),
        ("max-age=60", "private, max-age=60"),
        ("Public, S-MaxAge=60, Max-Age=5", "private, max-age=5"),
        ("s-maxage=600", "private"),
        ("max-age=5, proxy-revalidate", "private, max-age=5"),
        ("max-age=5, must-revalidate", "private, max-age=5, must-revalidate"),
        ("private=\"x-tenant\", max-age=5", "private, max-age=5"),
        ("no-cache=\"set-cookie, x\", max-age=5", "private, no-cache, max-age=5"),
        ("no-store", "no-store"),
        ("no-store, public", "no-store"),
        ("private", "private"),
        ("private, max-age=5", "private, max-age=5"),
        ("no-cache", "no-cache, private"),
        ("max-age=\"60\"", "private"),
        ("max-age=-1, public", "private"),
        ("max-age=5, max-age=600", "no-store"),
        ("immutable, stale-while-revalidate=60, x=y", "private"),
        ("", "private"),
        ("public;max-age=60", "private"),
        ("\u{ff}", "no-store"),
    ];
    for extra in ["", "hide_forbidden_tools = true"] {
        let app = backend.behind(extra, PURGE).await;
        let (_, tokens) = tokens(&app, "bob").await;
        for (sent, expected) in table {
            backend.answers(move |seen| {
                let list = json!({ "tools": [{ "name": "purge" }, { "name": "look" }] });
                let body = json!({ "jsonrpc": "2.0", "id": seen.json()["id"], "result": list });
                let headers = [
                    ("content-type", "application/json"),
                    ("cache-control", sent),
                    ("surrogate-control", "max-age=3600"),
                    ("cdn-cache-control", "public, max-age=3600"),
                    ("cloudflare-cdn-cache-control", "max-age=3600"),
                    ("expires", "Thu, 31 Dec 2099 23:59:59 GMT"),
                    ("pragma", "public"),
                    ("age", "1"),
                ];
                answer(200, &headers, body.to_string())
            });
            let list = request("tools/list", &json!({}));
            let heard = post(&app, &tokens, &[], &list).await;
            let seen: Vec<&str> = heard
                .headers
                .get_all("cache-control")
                .iter()
                .map(|v| v.to_str().unwrap())
                .collect();
            let mut directives: Vec<&str> = seen.join(", ").leak().split(", ").collect();
            let mut wanted: Vec<&str> = expected.split(", ").collect();
            directives.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(directives, wanted, "{sent:?} {extra}");
            for name in [
                "surrogate-control",
                "cdn-cache-control",
                "cloudflare-cdn-cache-control",
                "expires",
                "age",
                "pragma",
            ] {
                assert_eq!(heard.header(name), None, "{name}");
            }
        }
        // Said in two lines, it is said all the same.
        backend.answers(|_| {
            let headers = [
                ("content-type", "application/json"),
                ("cache-control", "private"),
                ("cache-control", "public, max-age=60"),
            ];
            answer(200, &headers, "{\"result\":{}}")
        });
        let heard = send(&app, &tokens, "GET", &[], "").await;
        let seen: Vec<&str> =
            heard.headers.get_all("cache-control").iter().map(|v| v.to_str().unwrap()).collect();
        assert_eq!(seen, ["private, max-age=60"]);
    }
}

#[tokio::test]
async fn an_event_stream_says_that_nobody_may_hold_it_back() {
    let backend = Backend::start().await;
    for extra in ["", "hide_forbidden_tools = true", "transport = \"http+sse\""] {
        let app = backend.behind(extra, PURGE).await;
        let (_, tokens) = tokens(&app, "bob").await;
        for sent in [
            vec![("content-type", "text/event-stream")],
            vec![
                ("content-type", "Text/Event-Stream; charset=utf-8"),
                ("x-accel-buffering", "yes"),
            ],
            vec![("content-type", "text/event-stream"), ("cache-control", "public, max-age=60")],
            vec![("content-type", "text/event-stream"), ("cache-control", "no-cache")],
        ] {
            backend.answers(move |_| answer(200, &sent, "data: {}\n\n"));
            let heard = send(&app, &tokens, "GET", &[("accept", "text/event-stream")], "").await;
            assert_eq!(heard.assert_status(200).header("x-accel-buffering"), Some("no"));
            assert_eq!(heard.header("cache-control"), Some("no-store, no-transform"));
            assert_eq!(heard.headers.get_all("x-accel-buffering").iter().count(), 1);
        }
        backend.answers(|_| answer_json(&json!({ "id": 1, "result": {} })));
        let heard = send(&app, &tokens, "GET", &[], "").await;
        assert_eq!(heard.header("x-accel-buffering"), None, "an answer is no stream");
    }
}

#[tokio::test]
async fn a_redirect_that_differs_by_the_slash_alone_is_followed_once() {
    let backend = Backend::start().await;
    let url = backend.url.clone();
    let small = request("tools/call", &json!({ "name": "look", "arguments": { "a": "b" } }));
    let large = request(
        "tools/call",
        &json!({ "name": "look", "arguments": { "a": "b".repeat(200_000) } }),
    );
    for status in [307, 308] {
        for location in ["/mcp/".to_owned(), format!("{url}/mcp/"), "mcp/".to_owned()] {
            for (rules, bodies) in [("", vec![&small]), (PURGE, vec![&small, &large])] {
                let app = backend.behind("", rules).await;
                let (_, tokens) = tokens(&app, "bob").await;
                let to = location.clone();
                backend.answers(move |seen| {
                    let (path, query) = seen.path.split_once('?').unwrap_or((&seen.path, ""));
                    if path == "/mcp" {
                        let query = if query.is_empty() { "" } else { "?tenant=a" };
                        return answer(status, &[("location", &format!("{to}{query}"))], "");
                    }
                    answer_json(&json!({ "jsonrpc": "2.0", "id": 1, "result": { "ok": path } }))
                });
                for body in bodies {
                    let heard = post(&app, &tokens, &[("mcp-x", "y")], body).await;
                    assert_eq!(heard.assert_status(200).json()["result"]["ok"], "/mcp/");
                    let seen = backend.take().pop().unwrap();
                    assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/mcp/"));
                    assert_eq!(seen.json(), *body);
                    assert_eq!(seen.header("mcp-x"), Some("y"));
                    assert_eq!(seen.header("x-portcullis-subject"), Some("oidc:demo-bob"));
                    assert_eq!(seen.header("authorization"), None);
                }
                let authorization = format!("Bearer {}", tokens.access_token);
                let headers = [("authorization", authorization.as_str())];
                for method in ["GET", "DELETE"] {
                    let at = format!("{}?tenant=a", app.mcp_url());
                    app.http.send(method, &at, &headers, "").await.assert_status(200);
                    let seen = backend.take().pop().unwrap();
                    assert_eq!(
                        (seen.method.as_str(), seen.path.as_str()),
                        (method, "/mcp/?tenant=a")
                    );
                }
            }
        }
    }
    // And the other way round.
    let resources =
        format!("[[resource]]\npath = \"/mcp\"\ntarget = \"{url}/base/\"\nscopes = [\"read\"]");
    let setup = crate::harness::Setup::toml(resources);
    let app = crate::harness::TestApp::with(setup).await;
    let (_, tokens) = tokens(&app, "bob").await;
    backend.answers(|seen| match seen.path.as_str() {
        "/base/" => answer(308, &[("location", "/base")], ""),
        _ => answer_json(&json!({ "jsonrpc": "2.0", "id": 1, "result": {} })),
    });
    post(&app, &tokens, &[], &small).await.assert_status(200);
    assert_eq!(backend.take().pop().unwrap().path, "/base");
}

#[tokio::test]
async fn gw_32_any_other_redirect_is_502_and_the_log_names_target_and_hint() {
    let backend = Backend::start().await;
    let elsewhere = Backend::start().await;
    let app = backend.behind("", PURGE).await;
    let (_, tokens) = tokens(&app, "bob").await;
    let call = request("ping", &json!({}));
    let (own, port) = (backend.url.clone(), backend.url.rsplit(':').next().unwrap().to_owned());
    let other = elsewhere.url.clone();
    let cases: Vec<(u16, Vec<String>)> = vec![
        (307, vec![format!("{other}/mcp/")]),
        (308, vec![format!("http://localhost:{port}/mcp/")]),
        (307, vec![format!("https://127.0.0.1:{port}/mcp/")]),
        (307, vec![format!("//{}/mcp/", other.trim_start_matches("http://"))]),
        (307, vec![format!("http://user@127.0.0.1:{port}/mcp/")]),
        (307, vec!["/mcp//".to_owned()]),
        (307, vec!["//mcp/".to_owned()]),
        (307, vec!["/other/".to_owned()]),
        (307, vec!["/MCP/".to_owned()]),
        (307, vec!["/mcp/admin".to_owned()]),
        (307, vec!["/mcp/?tenant=other".to_owned()]),
        (307, vec!["/mcp".to_owned()]),
        (307, vec!["/".to_owned()]),
        (307, vec![]),
        (307, vec!["/mcp/".to_owned(), "/admin".to_owned()]),
        (301, vec!["/mcp/".to_owned()]),
        (302, vec!["/mcp/".to_owned()]),
        (303, vec!["/mcp/".to_owned()]),
        (300, vec!["/mcp/".to_owned()]),
    ];
    for (status, locations) in cases {
        let told = locations.clone();
        backend.answers(move |_| {
            let headers: Vec<(&str, &str)> =
                told.iter().map(|to| ("location", to.as_str())).collect();
            answer(status, &headers, "")
        });
        let heard = post(&app, &tokens, &[], &call).await;
        assert_eq!(heard.status, 502, "{status} {locations:?}");
        assert_eq!(heard.header("location"), None);
        assert_eq!(backend.take().len(), 1, "{status} {locations:?}");
    }
    assert!(elsewhere.take().is_empty());
    // Two slashes that lead to each other.
    backend.answers(|seen| {
        let to = if seen.path == "/mcp" { "/mcp/" } else { "/mcp" };
        answer(307, &[("location", to)], "")
    });
    post(&app, &tokens, &[], &call).await.assert_status(502);
    assert_eq!(backend.take().len(), 2, "followed once");
    let log = logs::all();
    let line = |part: &str| {
        log.lines()
            .rfind(|line| line.contains(&format!("{own}/mcp")) && line.contains(part))
            .unwrap_or_else(|| panic!("no line with {part}"))
            .to_owned()
    };
    assert!(line("/other/").contains("target ="), "{}", line("/other/"));
    assert!(line("/mcp/admin").contains("redirects"));
    assert!(line("https://127.0.0.1").contains("target ="));
}

#[tokio::test]
async fn gw_16_a_challenge_of_the_mcp_server_is_told_in_our_words() {
    let backend = Backend::start().await;
    let app = backend.behind("", "").await;
    let metadata = app.well_known("oauth-protected-resource", "/mcp");
    let inner = "resource_metadata=\"http://inner.example/.well-known/x\"";
    let (_, reader) = tokens_for(&app, "alice", "read").await;
    // What it said, and the scopes that the client is to ask for; none: no challenge.
    let cases = [
        ("Bearer error=\"insufficient_scope\", scope=\"write\"", Some("read write")),
        ("bearer scope=write , error=insufficient_scope", Some("read write")),
        (
            "Bearer realm=\"a, b\", error=\"insufficient_scope\", scope=\"read write\"",
            Some("read write"),
        ),
        (
            "Basic realm=\"x\", Bearer error=\"insufficient_scope\", scope=\"write\"",
            Some("read write"),
        ),
        (
            "Negotiate YWJj==, Bearer error=\"insufficient_scope\", scope=\"write\"",
            Some("read write"),
        ),
        ("Bearer scope=\"write\"", None),
        (
            "Bearer error=\"insufficient_scope\", scope=\"write admin:everything\"",
            Some("read write"),
        ),
        ("Bearer error=\"insufficient_scope\", scope=\"admin:everything\"", None),
        ("Bearer error=\"insufficient_scope\", scope=\"wr\\\"ite\"", None),
        ("Bearer error=\"insufficient_scope\", scope=\"w\\rite\"", Some("read write")),
        ("Bearer error=\"insufficient_scope\"", Some("")),
        // It has that already; to ask for it again would go round in circles.
        ("Bearer error=\"insufficient_scope\", scope=\"read\"", None),
        ("Bearer error=\"invalid_token\", scope=\"write\"", None),
        ("Bearer error=\"made_up\", scope=\"write\"", None),
        ("Bearer error=\"insufficient_scope\\\", x=\\\"y\"", None),
        ("Basic error=\"insufficient_scope\", scope=\"write\"", None),
        ("DPoP error=\"insufficient_scope\", scope=\"write\"", None),
        ("Bearer error=\"insufficient_scope\", error=\"invalid_token\", scope=\"write\"", None),
        ("Bearer error=\"insufficient_scope\", scope=\"read\", scope=\"write\"", None),
        ("Bearer", None),
        ("", None),
        ("Bearer error=\"insufficient_scope", None),
        ("Bearer \u{ff}=x", None),
    ];
    for (said, asked) in cases {
        for with in [said.to_owned(), format!("{said}, {inner}, error_description=\"<evil>\"")] {
            if said.is_empty() && with != said {
                continue;
            }
            let told = with.clone();
            backend.answers(move |_| {
                let headers =
                    [("www-authenticate", told.as_str()), ("content-type", "application/json")];
                answer(403, &headers, "{\"mine\":1}")
            });
            let heard = post(&app, &reader, &[], &request("ping", &json!({}))).await;
            assert_eq!(heard.assert_status(403).text(), "{\"mine\":1}", "its own body");
            let challenge = heard.header("www-authenticate");
            let Some(scope) = asked else {
                assert_eq!(challenge, None, "{with}");
                continue;
            };
            let challenge = challenge.unwrap_or_else(|| panic!("no challenge: {with}"));
            assert!(challenge.starts_with(&format!("Bearer resource_metadata=\"{metadata}\"")));
            assert!(challenge.contains("error=\"insufficient_scope\""), "{challenge}");
            assert!(!challenge.contains("inner.example") && !challenge.contains("evil"));
            assert_eq!(challenge.matches("resource_metadata").count(), 1);
            match scope {
                "" => assert!(!challenge.contains("scope=\""), "{challenge}"),
                scope => assert!(challenge.contains(&format!("scope=\"{scope}\"")), "{challenge}"),
            }
        }
    }
    // Only of a 403; a 401 would send people to sign in again, for ever.
    for (status, heard_as) in [(200, 200), (400, 400), (404, 404), (401, 502)] {
        backend.answers(move |_| {
            let said = "Bearer error=\"insufficient_scope\", scope=\"write\"";
            answer(status, &[("www-authenticate", said)], "{}")
        });
        let heard = post(&app, &reader, &[], &request("ping", &json!({}))).await;
        assert_eq!(heard.assert_status(heard_as).header("www-authenticate"), None);
    }
}

#[tokio::test]
async fn a_client_comes_back_for_what_the_mcp_server_asked_for() {
    let backend = Backend::start().await;
    let app = backend.behind("", "").await;
    backend.answers(|seen| {
        let may = seen.header("x-portcullis-scopes").unwrap_or_default().contains("write");
        if may {
            return answer_json(&json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
        }
        let said = "Bearer error=\"insufficient_scope\", scope=\"write\"";
        answer(403, &[("www-authenticate", said)], "")
    });
    let (client, held) = tokens_for(&app, "alice", "read").await;
    let call = request("ping", &json!({}));
    let heard = post(&app, &held, &[], &call).await;
    assert!(heard.header("www-authenticate").unwrap().contains("scope=\"read write\""));
    let back = client.authorize("alice", &[("scope", "read write")]).await;
    let code = back.location_param("code").unwrap();
    let more = crate::harness::client::Tokens::of(&client.redeem(&code).await);
    post(&app, &more, &[], &call).await.assert_status(200);

    // Where the rules forbid it, the client hears so once it asks, and does not come round again.
    let (client, held) = tokens_for(&app, "bob", "read").await;
    post(&app, &held, &[], &call).await.assert_status(403);
    let back = client.authorize("bob", &[("scope", "read write")]).await;
    back.assert_page(403);
    assert!(back.text().contains("<li>write</li>"), "{}", back.text());
}

#[tokio::test]
async fn gw_39_what_asks_for_input_passes_the_filter_of_lists_as_it_is() {
    let backend = Backend::start().await;
    let app = backend.behind("hide_forbidden_tools = true", PURGE).await;
    let (_, tokens) = tokens(&app, "bob").await;
    let bodies = [
        // MCP 2025-11-25 …
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32042,"message":"x","data":{"tools":[{"name":"purge"}],"elicitations":[{"mode":"url","elicitationId":"e","url":"https://a.example/"}]}}}"#,
        // … and 2026-07-28.
        r#"{"jsonrpc":"2.0", "id":1,"result":{"resultType":"input_required","requestState":"s","inputRequests":{"k":{"method":"sampling/createMessage","params":{"tools":[{"name":"purge"}],"cacheScope":"public"}}}}}"#,
        r#"{"result":{"resultType":"input_required","inputRequests":{"tools":{"method":"elicitation/create","params":{"mode":"url","url":"https://a.example/?tools=purge"}}},"n":1e2},"id":1,"jsonrpc":"2.0"}"#,
        r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"tools"}}"#,
    ];
    for body in bodies {
        for events in [false, true] {
            backend.answers(move |_| {
                if events {
                    answer_events(&format!("event: message\ndata: {body}\n\n"), 10)
                } else {
                    answer(200, &[("content-type", "application/json")], body)
                }
            });
            let heard = post(&app, &tokens, &[], &request("tools/list", &json!({}))).await;
            let expected =
                if events { format!("event: message\ndata: {body}\n\n") } else { body.to_owned() };
            assert_eq!(heard.assert_status(200).text(), expected);
        }
    }
}
