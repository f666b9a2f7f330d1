//! `/metrics`: what an administrator sees on the day of an outage, and what nobody sees in it.

use std::collections::BTreeMap;

use serde_json::json;

use crate::harness::backend::{Backend, answer_json, post, request, status, tokens};
use crate::harness::client::Tokens;
use crate::harness::{Setup, TestApp, raw};

/// The series of a scrape, by name with labels; everything about the text is checked on the way
/// (OpenMetrics 1.0).
pub(crate) fn parse(text: &str) -> BTreeMap<String, f64> {
    let name = regex_lite::Regex::new("^[a-zA-Z_:][a-zA-Z0-9_:]*$").unwrap();
    let series = regex_lite::Regex::new(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(.*)\})? (\S+)$").unwrap();
    let label =
        regex_lite::Regex::new(r#"^[a-zA-Z_][a-zA-Z0-9_]*="([^"\\\n]|\\["\\n])*"$"#).unwrap();
    let mut types: BTreeMap<String, String> = BTreeMap::new();
    let mut found = BTreeMap::new();
    let body = text.strip_suffix("# EOF\n").expect("the text is whole");
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (kind, of) = (words.next().unwrap(), words.next().unwrap());
            assert!(name.is_match(of), "{line}");
            match kind {
                "TYPE" => {
                    let kind = words.next().unwrap();
                    assert!(["counter", "gauge", "histogram", "info"].contains(&kind), "{line}");
                    let twice = types.insert(of.to_owned(), kind.to_owned());
                    assert!(twice.is_none(), "{line}");
                }
                "HELP" | "UNIT" => {}
                _ => panic!("{line}"),
            }
            continue;
        }
        let parts = series.captures(line).unwrap_or_else(|| panic!("not a series: {line}"));
        let family = types.iter().find(|(family, kind)| {
            let suffixes: &[&str] = match kind.as_str() {
                "counter" => &["_total"],
                "histogram" => &["_bucket", "_sum", "_count"],
                "info" => &["_info"],
                _ => &[""],
            };
            suffixes.iter().any(|suffix| format!("{family}{suffix}") == parts[1])
        });
        assert!(family.is_some(), "a series without a type: {line}");
        for pair in parts.get(3).map_or("", |labels| labels.as_str()).split(',') {
            assert!(pair.is_empty() || label.is_match(pair), "{line}");
        }
        let value = parts[4].parse::<f64>().unwrap_or_else(|_| panic!("not a number: {line}"));
        let key = line.rsplit_once(' ').unwrap().0.to_owned();
        assert!(found.insert(key, value).is_none(), "twice: {line}");
    }
    found
}

impl TestApp {
    async fn scrape(&self) -> String {
        let answer = self.http.get(&format!("{}/metrics", self.admin_url)).await;
        answer.assert_status(200);
        assert!(answer.header("content-type").unwrap().starts_with("application/openmetrics-text"));
        answer.text().to_owned()
    }

    pub(crate) async fn metrics(&self) -> BTreeMap<String, f64> {
        parse(&self.scrape().await)
    }
}

/// The value of a series; none is zero.
#[track_caller]
fn assert_value(metrics: &BTreeMap<String, f64>, series: &str, value: f64) {
    let found = metrics.get(series).copied().unwrap_or(0.0);
    assert!((found - value).abs() < 1e-9, "{series} is {found}, not {value}");
}

#[tokio::test]
async fn ad_01_the_public_listener_has_no_metrics() {
    let app = TestApp::start().await;

    app.http.get(&app.at("/metrics")).await.assert_status(404);
    app.http.get(&format!("{}/metrics", app.admin_url)).await.assert_status(200);
}

#[tokio::test]
async fn the_metrics_tell_a_connections_life() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    client.call_tool(&tokens.access_token, "create-todo", json!({ "title": "x" })).await;
    app.advance(16 * 60);
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    app.advance(121);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    client.rpc("not a token", "tools/list", json!({})).await.assert_status(400);

    let metrics = app.metrics().await;

    for event in ["client_registered", "consent_shown", "consent_approved", "code_issued"] {
        assert_value(&metrics, &format!("portcullis_events_total{{event=\"{event}\"}}"), 1.0);
    }
    for event in ["code_redeemed", "refresh_rotated", "refresh_reused"] {
        assert_value(&metrics, &format!("portcullis_events_total{{event=\"{event}\"}}"), 1.0);
    }
    let requests = |route: &str, status: u16| {
        format!(
            "portcullis_http_requests_total{{listener=\"public\",route=\"{route}\",status=\"{status}\"}}"
        )
    };
    assert_value(&metrics, &requests("/register", 201), 1.0);
    assert_value(&metrics, &requests("/token", 200), 2.0);
    assert_value(&metrics, &requests("/token", 400), 1.0);
    assert_value(&metrics, &requests("/mcp", 400), 1.0);
    let token =
        "portcullis_http_request_duration_seconds_count{listener=\"public\",route=\"/token\"}";
    assert_value(&metrics, token, 3.0);
    let answered = "portcullis_gateway_calls_total{path=\"/mcp\",outcome=\"answered\"}";
    assert!(metrics[answered] >= 1.0);
    assert_value(&metrics, "portcullis_rechecks_total{outcome=\"confirmed\"}", 1.0);
    assert!(metrics["portcullis_upstream_requests_total{outcome=\"ok\"}"] >= 3.0);
    assert_value(&metrics, "portcullis_upstream_paused", 0.0);
    assert_value(&metrics, "portcullis_clients", 1.0);
    assert_value(&metrics, "portcullis_clients_limit", 10_000.0);
    assert!(metrics["portcullis_commit_duration_seconds_count"] >= 5.0);
    assert!(metrics["portcullis_connections{listener=\"admin\"}"] >= 1.0);
    let key = "portcullis_signing_key_created_timestamp{alg=\"ES256\",state=\"current\"}";
    assert!(metrics[key] >= 1.0);
    assert!(metrics["process_start_time_seconds"] > 1_700_000_000.0);
    #[cfg(target_os = "linux")]
    assert!(metrics["process_resident_memory_bytes"] > 1e6 && metrics["process_open_fds"] > 3.0);
}

#[tokio::test]
async fn the_metrics_tell_an_outage_of_the_provider_and_of_an_mcp_server() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.advance(16 * 60);
    app.idp.shutdown();
    app.todo.shutdown();

    let refreshed = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    client.rpc(&refreshed.access_token, "tools/list", json!({})).await.assert_status(502);

    let metrics = app.metrics().await;
    assert_value(&metrics, "portcullis_rechecks_total{outcome=\"bridged\"}", 1.0);
    assert!(metrics["portcullis_upstream_requests_total{outcome=\"unreachable\"}"] >= 1.0);
    assert_value(&metrics, "portcullis_upstream_paused", 1.0);
    let broken = "portcullis_gateway_calls_total{path=\"/mcp\",outcome=\"broken\"}";
    assert_value(&metrics, broken, 1.0);
}

#[tokio::test]
async fn the_metrics_tell_which_limit_was_met() {
    let app = TestApp::with(Setup::toml("[limits]\nrefreshes_per_minute = 1\nclients = 1")).await;
    let (client, tokens) = app.tokens_of("bob").await;
    let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    client.refresh(&tokens.refresh_token).await.assert_status(429);
    let another = json!({ "client_name": "x", "redirect_uris": ["https://x.example/cb"] });
    app.http.post_json(&app.at("/register"), &another, &[]).await.assert_status(429);

    let metrics = app.metrics().await;

    assert_value(&metrics, "portcullis_limited_total{limit=\"refreshes_per_minute\"}", 1.0);
    assert_value(&metrics, "portcullis_limited_total{limit=\"clients\"}", 1.0);
}

#[tokio::test]
async fn ds_12_no_caller_makes_a_series() {
    let app = TestApp::start().await;
    let ask = async |mark: &str| {
        let method = format!("M{mark}");
        for path in [format!("/{mark}"), format!("/mcp/{mark}"), format!("/.well-known/{mark}")] {
            app.http.get(&app.at(&path)).await;
            app.http.send(&method, &app.at(&path), &[], "").await;
        }
        app.http.get(&format!("{}/{mark}", app.admin_url)).await;
        app.http.send(&method, &app.at("/mcp"), &[], "").await;
        app.http.get(&app.at(&format!("/register/{mark}"))).await;
        app.http.get(&app.at(&format!("/authorize?client_id={mark}&state={mark}"))).await;
        let form = [("grant_type", mark), ("client_id", mark), ("refresh_token", mark)];
        app.http.post_form(&app.at("/token"), &form, &[]).await;
        let bearer = format!("Bearer {mark}");
        app.http.send("POST", &app.at("/mcp"), &[("authorization", &bearer)], "").await;
        let host = format!("GET /{mark} HTTP/1.1\r\nHost: {mark}\r\nConnection: close\r\n\r\n");
        raw::exchange(&app.url, &host).await;
    };
    ask("first").await;
    app.scrape().await; // its own route is a series from now on
    let before = app.metrics().await;

    for number in 0..20 {
        ask(&format!("canary{number}")).await;
    }

    let text = app.scrape().await;
    let after = parse(&text);
    let new: Vec<_> = after.keys().filter(|key| !before.contains_key(*key)).collect();
    assert!(new.is_empty(), "{new:#?}");
    assert!(!text.contains("canary") && !text.contains("first"), "{text}");
}

#[tokio::test]
async fn ds_12_metrics_name_no_person_no_client_and_no_secret() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("alice").await;
    client.call_tool(&tokens.access_token, "create-todo", json!({ "title": "canary" })).await;
    client.refresh(&tokens.refresh_token).await.assert_status(200);

    let text = app.scrape().await;

    for canary in ["alice", "Alice", "canary", &client.id, &tokens.access_token] {
        assert!(!text.contains(canary), "{canary} is in: {text}");
    }
    // Of all addresses, only those of configured targets are there.
    let target = app.todo.url().replace("/mcp", "");
    assert!(text.contains(&format!("target=\"{target}\"")), "{text}");
    assert!(!text.replace(&target, "").contains("127.0.0.1"), "{text}");
}

#[tokio::test]
async fn a_scraper_proves_itself_where_a_token_is_set() {
    let token = "a token for scrapers, which is no visible ASCII";
    let config = |token: &str| format!("metrics_token = {token:?}");
    let refused = portcullis::config::Config::load(
        Some((
            std::path::Path::new("x.toml"),
            format!("[admin]\nroles = [\"a\"]\n{}", config(token)),
        )),
        &BTreeMap::new(),
    );
    assert!(refused.unwrap_err().to_string().contains("admin.metrics_token"));
    let token = "a-token-for-scrapers-0123456789abcdef";
    let app = TestApp::with(Setup::toml(format!("[admin]\n{}", config(token)))).await;
    let url = format!("{}/metrics", app.admin_url);
    let ask = async |authorization: &str| {
        let headers = [("authorization", authorization)];
        app.http.send("GET", &url, &headers, "").await
    };

    app.http.get(&url).await.assert_status(401);
    ask("Bearer a-token-for-scrapers-0123456789abcdeX").await.assert_status(401);
    ask(&format!("Basic {token}")).await.assert_status(401);
    ask(&format!("Bearer {token}")).await.assert_status(200);
}

#[tokio::test]
async fn a_scraper_may_write_an_address_as_host_and_no_foreign_name() {
    let app = TestApp::start().await;
    let ask = async |path: &str, host: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        raw::status(&raw::exchange(&app.admin_url, &request).await)
    };

    assert_eq!(ask("/metrics", "10.1.2.3:8001").await, 200);
    assert_eq!(ask("/metrics", "[2001:db8::1]:8001").await, 200);
    assert_eq!(ask("/metrics", "rebound.example:8001").await, 421);
    assert_eq!(ask("/", "10.1.2.3:8001").await, 421, "pages keep to their own address");
}

#[tokio::test]
async fn the_metrics_tell_tools_that_fail_from_servers_that_fail() {
    let backend = Backend::start().await;
    let app = backend.behind("", "").await;
    let (_, alice) = tokens(&app, "alice").await;
    let call = request("tools/call", &json!({ "name": "purge", "arguments": {} }));
    for is_error in [true, true, false] {
        let result = json!({ "content": [], "isError": is_error });
        let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": result });
        backend.answers(move |_| answer_json(&answer));
        post(&app, &alice, &[], &call).await.assert_status(200);
    }
    backend.answers(|_| status(500));
    post(&app, &alice, &[], &call).await;
    post(&app, &alice, &[], &request("tools/list", &json!({}))).await;

    let metrics = app.metrics().await;

    for (outcome, calls) in [("answered", 1.0), ("tool_errors", 2.0), ("failed", 1.0)] {
        let series = format!("portcullis_tool_calls_total{{path=\"/mcp\",outcome=\"{outcome}\"}}");
        assert_value(&metrics, &series, calls);
    }
    let errors = "portcullis_tool_calls_total{path=\"/mcp\",outcome=\"errors\"}";
    assert!(metrics.contains_key(errors), "it is there before it happens");
    let text = app.scrape().await;
    assert!(!text.contains("purge"), "no name of a tool is a label");
}

#[tokio::test]
async fn the_metrics_tell_how_large_the_database_is() {
    let app = TestApp::with(Setup::toml("[limits]\ndatabase_size = 8000000")).await;

    // A scrape waits for the database for a second, and a busy machine may take longer.
    let mut metrics = app.metrics().await;
    for _ in 0..20 {
        if metrics["portcullis_database_bytes"] > 0.0 {
            break;
        }
        metrics = app.metrics().await;
    }

    let bytes = metrics["portcullis_database_bytes"];
    assert!(bytes > 100_000.0, "{bytes}");
    // PostgreSQL has no limit of ours.
    let limit = if app.database.is_postgres() { 0.0 } else { 8_000_000.0 };
    assert_value(&metrics, "portcullis_database_bytes_limit", limit);
}

#[tokio::test]
async fn the_metrics_tell_how_many_audit_events_wait() {
    // More than are taken out of the queue at once, and fewer than are stored in a minute.
    const EVENTS: usize = 250;
    let app = TestApp::with(Setup::toml("[limits]\nrequest_rates = false")).await;
    assert_value(&app.metrics().await, "portcullis_audit_waiting", 0.0);
    let lock = app.database.lock_for_all("audit_events").await;

    for _ in 0..EVENTS {
        app.http.get(&app.at("/authorize?client_id=nobody")).await.assert_status(400);
    }

    let waiting = app.metrics().await["portcullis_audit_waiting"];
    lock.release().await;
    assert!((1.0..=250.0).contains(&waiting), "{waiting}");
}
