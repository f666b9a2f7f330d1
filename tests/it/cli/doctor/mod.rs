//! `portcullis doctor`: all is green here, and each break of a server that is broken on purpose is named.

mod fake;

use std::collections::BTreeSet;

use portcullis::cli::doctor;
use portcullis::upstream::probe::Severity;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use self::fake::{Fake, Faults};
use crate::harness::process::run;
use crate::harness::{Setup, TestApp};

/// The report of `doctor --json`, and the exit code.
async fn command(url: &str, arguments: &[&str]) -> (Vec<Value>, i32) {
    let mut all = vec!["doctor".to_owned(), "--json".to_owned(), url.to_owned()];
    all.extend(arguments.iter().map(|&argument| argument.to_owned()));
    let output = tokio::task::spawn_blocking(move || {
        let all: Vec<&str> = all.iter().map(String::as_str).collect();
        run(&std::env::temp_dir(), &all, &[])
    });
    let output = output.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let json: Value = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)));
    (json["clients"].as_array().unwrap().clone(), output.status.code().unwrap())
}

/// The same report without a process of its own: there are many of them.
async fn walk(url: &str) -> Vec<Value> {
    let reports = doctor::walk(&url.parse().unwrap(), true).await;
    let json = |report: &doctor::Report| {
        let works = !report.has(Severity::Failed);
        json!({ "client": report.client, "works": works, "findings": report.findings })
    };
    reports.iter().map(json).collect()
}

/// Clients with a finding of this kind.
fn clients<'a>(report: &'a [Value], probe: &str, severity: &str, words: &str) -> BTreeSet<&'a str> {
    let has = |client: &&Value| {
        client["findings"].as_array().unwrap().iter().any(|finding| {
            finding["probe"] == probe
                && finding["severity"] == severity
                && finding["found"].as_str().unwrap().contains(words)
                && finding["hint"].is_string()
        })
    };
    report.iter().filter(has).map(|client| client["client"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn all_is_green_in_front_of_portcullis_and_nothing_is_changed() {
    let app = TestApp::start().await;
    let (report, code) = command(&app.mcp_url(), &[]).await;
    assert!(report.len() >= 16, "{} clients", report.len());
    for client in &report {
        for finding in client["findings"].as_array().unwrap() {
            assert_eq!(finding["severity"], "ok", "{}: {finding}", client["client"]);
        }
    }
    assert_eq!(code, 0);
    assert_eq!(app.database.number("SELECT COUNT(*) FROM clients").await, 0);
    assert!(app.todo.recorded().is_empty(), "nothing reached the MCP server");
}

#[tokio::test]
async fn below_a_path_every_client_that_reads_metadata_gets_to_the_authorization_page() {
    for path in ["/auth", "/one/two"] {
        let app = TestApp::with(Setup { path: Some(path), ..Setup::default() }).await;
        for client in walk(&app.mcp_url()).await {
            assert_eq!(client["works"], true, "{client}");
            for finding in client["findings"].as_array().unwrap() {
                // Some go to the root of the host whatever metadata says: that is said, and no more.
                let known = finding["probe"] == "endpoints" && finding["severity"] == "warning";
                assert!(known || finding["severity"] == "ok", "{}: {finding}", client["client"]);
            }
        }
    }
}

#[tokio::test]
async fn all_is_green_to_every_clients_authorization_page() {
    // Without documents every client registers.
    let app = TestApp::with(Setup::toml("[client_documents]\nenabled = false")).await;
    let (report, code) = command(&app.mcp_url(), &["--register"]).await;
    for client in &report {
        let findings = client["findings"].as_array().unwrap();
        for finding in findings {
            assert_eq!(finding["severity"], "ok", "{}: {finding}", client["client"]);
        }
        let known_by_document =
            findings.iter().any(|f| f["found"].as_str().unwrap().starts_with("none needed"));
        for probe in ["authorize", "iss"] {
            let hosted = ["Claude (web, desktop, phone)", "ChatGPT", "Cursor"]
                .contains(&client["client"].as_str().unwrap());
            let there = findings.iter().any(|finding| finding["probe"] == probe);
            // A website that registered itself, and an app, is told by a page, where iss cannot be seen.
            assert!(there || known_by_document || (hosted && probe == "iss"), "{client}");
        }
    }
    assert_eq!(code, 0);
    // Nobody's own registration was touched: identical ones are one client here.
    let unmarked = "SELECT COUNT(*) FROM clients WHERE metadata NOT LIKE '%(portcullis doctor)%'";
    assert_eq!(app.database.number(unmarked).await, 0);
    let left = app.database.number("SELECT COUNT(*) FROM clients").await;
    assert!(left >= 12, "{left}");
}

#[tokio::test]
async fn a_server_without_faults_is_green_whoever_wrote_it() {
    let fake = Fake::start().await;
    for client in walk(&format!("{}/mcp", fake.url)).await {
        for finding in client["findings"].as_array().unwrap() {
            assert_eq!(finding["severity"], "ok", "{}: {finding}", client["client"]);
        }
    }
}

/// Whom a break must be named for.
enum For {
    All,
    Only(&'static [&'static str]),
    AllBut(&'static [&'static str]),
}

#[tokio::test]
async fn each_break_is_named_with_whom_it_hits_and_the_mend() {
    use For::{All, AllBut, Only};
    const PYTHON: &[&str] = &["Python SDK", "FastMCP client"];
    const CAREFUL: &[&str] = &["Rust SDK (rmcp)", "Codex", "Python SDK", "FastMCP client"];
    type Break = fn(&mut Faults);
    let table: Vec<(&str, Break, &str, &str, &str, For)> = vec![
        ("open", |f| f.open = Some(200), "challenge", "failed", "answered 200, not 401", All),
        (
            "405",
            |f| f.get_is_405 = true,
            "challenge",
            "failed",
            "GET without a token is answered 405",
            Only(&["Rust SDK (rmcp)", "Codex", "mcp-remote"]),
        ),
        (
            "no header",
            |f| f.bare_challenge = true,
            "challenge",
            "warning",
            "names no resource_metadata",
            All,
        ),
        (
            "no prm",
            |f| f.no_resource_metadata = true,
            "resource metadata",
            "warning",
            "2025-03-26",
            All,
        ),
        (
            "html",
            |f| {
                f.html_for_everything = true;
                f.bare_challenge = true;
                f.no_resource_metadata = true;
            },
            "resource metadata",
            "failed",
            "not JSON",
            AllBut(CAREFUL),
        ),
        (
            "500",
            |f| f.breaks_at_metadata = true,
            "resource metadata",
            "failed",
            "no JSON document",
            All,
        ),
        (
            "500 guessed",
            |f| {
                f.breaks_at_metadata = true;
                f.bare_challenge = true;
            },
            "resource metadata",
            "failed",
            "answered 500",
            AllBut(CAREFUL),
        ),
        ("slash", |f| f.resource = Some("{}/mcp/"), "resource", "failed", "/mcp/", AllBut(PYTHON)),
        ("other", |f| f.resource = Some("{}/other"), "resource", "failed", "/other", All),
        (
            "origin",
            |f| f.resource = Some("{}"),
            "resource",
            "failed",
            "does not take",
            Only(&["Claude (web, desktop, phone)", "VS Code"]),
        ),
        (
            "issuer slash",
            |f| f.issuer = Some("{}/"),
            "issuer",
            "failed",
            "metadata says",
            AllBut(&[
                "Rust SDK (rmcp)",
                "Codex",
                "Vercel AI SDK",
                "TypeScript SDK 1.x",
                "Claude Code",
                "VS Code",
                "Cursor",
                "opencode",
                "MCP Inspector 1.x (in the web page)",
            ]),
        ),
        (
            "prm slash",
            |f| f.named_issuer = Some("{}/"),
            "issuer",
            "failed",
            "the resource names",
            Only(&["Python SDK", "FastMCP client", "Claude (web, desktop, phone)", "ChatGPT"]),
        ),
        (
            "appended",
            |f| {
                f.named_issuer = Some("{}/t");
                f.issuer = Some("{}/t");
                f.no_server_metadata = true;
                f.server_metadata_appended_only = true;
            },
            "server metadata",
            "failed",
            "there is none",
            Only(&["Python SDK", "FastMCP client", "Rust SDK (rmcp)", "Codex", "Vercel AI SDK"]),
        ),
        (
            "none",
            |f| f.no_server_metadata = true,
            "server metadata",
            "warning",
            "/authorize, /token and /register",
            AllBut(&["Python SDK", "FastMCP client", "Rust SDK (rmcp)", "Codex", "Vercel AI SDK"]),
        ),
        ("s256", |f| f.no_s256 = true, "pkce", "failed", "refuses", Only(&["Vercel AI SDK"])),
        ("s256", |f| f.no_s256 = true, "pkce", "warning", "refuse", AllBut(&["Vercel AI SDK"])),
        (
            "no dcr",
            |f| f.no_registration = true,
            "registration",
            "failed",
            "no way to become known",
            All,
        ),
        (
            "refused",
            |f| f.refuses_registration = true,
            "registration",
            "failed",
            "invalid_redirect_uri",
            All,
        ),
        (
            "nulls",
            |f| {
                f.registration =
                    Some(json!({ "client_id": "known", "redirect_uris": [], "client_uri": null }));
            },
            "registration",
            "failed",
            "client_uri",
            AllBut(PYTHON),
        ),
        (
            "echo",
            |f| f.registration = Some(json!({ "client_id": "known" })),
            "registration",
            "failed",
            "does not repeat redirect_uris",
            AllBut(PYTHON),
        ),
        ("id", |f| f.registration = Some(json!({})), "registration", "failed", "no client_id", All),
        (
            "secret",
            |f| f.no_secrets = true,
            "registration",
            "failed",
            "no client_secret",
            Only(&["Claude (web, desktop, phone)"]),
        ),
        ("token", |f| f.token_is_html = true, "token", "failed", "answered 200", All),
        ("authorize", |f| f.authorize_refuses = true, "authorize", "failed", "invalid_scope", All),
        (
            "unknown",
            |f| f.unknown_client_redirects = true,
            "unknown client",
            "warning",
            "302",
            Only(&["FastMCP client"]),
        ),
        (
            "iss",
            |f| f.no_iss = true,
            "iss",
            "failed",
            "aborts",
            Only(&[
                "ChatGPT",
                "Codex",
                "MCP Inspector 2.x",
                "mcp-remote",
                "FastMCP client",
                "Python SDK",
                "TypeScript client 2.x",
                "Rust SDK (rmcp)",
            ]),
        ),
        (
            "cors",
            |f| f.no_cors = true,
            "cors",
            "failed",
            "browsers do not let",
            Only(&["MCP Inspector 1.x (in the web page)"]),
        ),
        (
            "places",
            |f| f.other_endpoints = true,
            "endpoints",
            "warning",
            "whatever metadata says",
            Only(&["Claude (web, desktop, phone)"]),
        ),
        (
            "offline",
            |f| f.no_offline_access = true,
            "scopes",
            "warning",
            "offline_access",
            Only(&["ChatGPT"]),
        ),
        ("empty", |f| f.empty_scopes = true, "resource metadata", "warning", "empty list", All),
    ];
    let fake = Fake::start().await;
    for (name, breaks, probe, severity, words, hit) in table {
        let mut faults = Faults::default();
        breaks(&mut faults);
        *fake.faults.lock().unwrap() = faults;
        let report = walk(&format!("{}/mcp", fake.url)).await;
        let named = clients(&report, probe, severity, words);
        let all: BTreeSet<&str> = report.iter().map(|c| c["client"].as_str().unwrap()).collect();
        let expected: BTreeSet<&str> = match hit {
            All => all,
            Only(these) => these.iter().copied().collect(),
            AllBut(these) => all.into_iter().filter(|client| !these.contains(client)).collect(),
        };
        assert_eq!(named, expected, "{name}: {report:#?}");
        let failed = report.iter().filter(|client| client["works"] == false).count();
        assert!(severity == "warning" || failed >= named.len(), "{name}");
    }
}

#[tokio::test]
async fn the_exit_code_tells_warnings_from_failures() {
    let fake = Fake::start().await;
    let url = format!("{}/mcp", fake.url);
    fake.faults.lock().unwrap().no_offline_access = true;
    assert_eq!(command(&url, &[]).await.1, 1);
    fake.faults.lock().unwrap().no_registration = true;
    let (report, code) = command(&url, &[]).await;
    assert_eq!(code, 2);
    assert!(report.iter().all(|client| client["works"] == false));
}

#[tokio::test]
async fn a_url_that_leads_nowhere_is_a_failure_with_a_reason() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", free.local_addr().unwrap());
    drop(free);
    let (report, code) = command(&url, &[]).await;
    assert_eq!(code, 2);
    assert_eq!(clients(&report, "challenge", "failed", "no connection").len(), report.len());
    for wrong in ["mcp.example.com", "http://mcp.example.com/mcp", "ftp://x/"] {
        let wrong = wrong.to_owned();
        let output = tokio::task::spawn_blocking(move || {
            run(&std::env::temp_dir(), &["doctor", &wrong], &[])
        });
        let output = output.await.unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&output.stderr).contains("https://mcp.example.com/mcp"));
    }
}
