//! `/audit`: found again, chained, and taken along without harm (threat AD-02).

use crate::harness::TestApp;
use crate::harness::client::McpClient;
use crate::harness::console::{Console, with_query};

async fn settled(app: &TestApp) {
    while app.storage().settle_audit().await.unwrap() > 0 {}
}

async fn admin(app: &TestApp) -> Console {
    Console::admin(app).signed_in(app, "alice").await
}

/// The events of the page's lines, newest first.
fn events(page: &str) -> Vec<String> {
    let cell = regex_lite::Regex::new(r#"data-label="Event"><code>([a-z_]+)</code>"#).unwrap();
    cell.captures_iter(page).map(|found| found[1].to_owned()).collect()
}

#[tokio::test]
async fn the_story_of_a_connection_is_read_from_registration_to_revocation() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    let metadata = serde_json::json!({
        "client_name": "Another",
        "redirect_uris": ["http://127.0.0.1:1/cb"],
        "token_endpoint_auth_method": "none",
    });
    McpClient::register_as(&app, metadata).await.sign_in("bob").await;
    let alice = admin(&app).await;
    let path = with_query("/grants", &[("client", &client.id)]);
    alice.press_and_confirm(&path, "action", "one").await.assert_leads_to(&alice.at("/grants"));

    let page = alice.page(&with_query("/audit", &[("client", &client.id)])).await;

    let story = [
        "grant_revoked",
        "refresh_rotated",
        "code_redeemed",
        "code_issued",
        "consent_approved",
        "client_registered",
    ];
    assert_eq!(events(&page), story);
    assert!(page.contains("admin oidc:demo-alice") && page.contains("/person?sub=oidc%3Ademo-bob"));
    assert!(page.contains("2026-11-21 00:00:00"), "{page}");
    let grant = regex_lite::Regex::new(r#"/audit\?grant=([^"]+)""#).unwrap();
    let grant = &grant.captures(&page).unwrap()[1];
    let of_grant = events(&alice.page(&format!("/audit?grant={grant}")).await);
    assert_eq!(of_grant, ["grant_revoked", "refresh_rotated", "code_redeemed"]);
}

#[tokio::test]
async fn lines_are_filtered_by_event_person_and_day() {
    let app = TestApp::start().await;
    app.tokens_of("bob").await;
    app.advance(24 * 60 * 60);
    app.tokens_of("alice").await;
    let alice = admin(&app).await;

    let issued = alice.page("/audit?event=code_issued").await;
    assert_eq!(events(&issued), ["code_issued", "code_issued"]);
    let of_bob = alice.page("/audit?sub=oidc%3Ademo-bob").await;
    assert_eq!(events(&of_bob), ["code_redeemed", "code_issued"]);
    let first_day = alice.page("/audit?until=2026-11-21").await;
    assert!(first_day.contains("demo-bob") && !first_day.contains("demo-alice\""), "{first_day}");
    let second_day = alice.page("/audit?since=2026-11-22&event=code_issued").await;
    assert_eq!(events(&second_day), ["code_issued"]);
    assert!(alice.page("/audit?since=yesterday").await.contains("That is not a day"));
    assert!(alice.page("/audit?event=nothing").await.contains("No line fits"));
}

#[tokio::test]
async fn a_pasted_reference_number_is_found() {
    let app = TestApp::start().await;
    let page = app.http.get(&app.at("/authorize?client_id=unknown")).await;
    let reference = regex_lite::Regex::new("[0-9A-Z]{4}-[0-9A-Z]{4}").unwrap();
    let reference = reference.find(page.text()).unwrap().as_str().to_lowercase();
    let alice = admin(&app).await;

    let pasted = with_query("/audit", &[("ref", &format!("  {reference} "))]);
    let mut found = alice.page(&pasted).await;
    while events(&found).is_empty() {
        found = alice.page(&pasted).await; // it is stored within a second
    }

    assert_eq!(events(&found), ["page_shown"]);
    assert!(found.contains("unknown client"));
}

#[tokio::test]
async fn lines_are_paged_with_and_without_a_filter() {
    let app = TestApp::start().await;
    for _ in 0..60 {
        app.tokens_of("bob").await; // all at one moment, which paging must bear
    }
    let alice = admin(&app).await;
    let next = regex_lite::Regex::new(r#"href="(/audit\?[^"]*before=[^"]*)""#).unwrap();
    // 60 times three, a registration, a sign-in to these pages; and 40 grants that were one too many.
    for (path, lines) in [("/audit", 222), ("/audit?event=code_issued", 60)] {
        let (mut seen, mut at) = (0, path.to_owned());
        loop {
            let page = alice.page(&at).await;
            seen += events(&page).len();
            match next.captures(&page) {
                Some(found) => at = crate::harness::browser::unescape(&found[1]),
                None => break,
            }
        }
        assert_eq!(seen, lines, "{path}");
    }
}

#[tokio::test]
async fn the_chain_is_verified_on_demand() {
    let app = TestApp::start().await;
    app.tokens_of("bob").await;
    let alice = admin(&app).await;
    settled(&app).await;
    let page = alice.page("/audit?verify=1").await;
    assert!(page.contains("The chain holds") && page.contains("1 – 5"), "{page}");

    let harm = "UPDATE audit_events SET subject = 'oidc:demo-alice' WHERE seq = 3";
    app.database.execute(harm).await;

    let page = alice.page("/audit?verify=1").await;
    assert!(page.contains("The chain is broken") && page.contains("line 3"), "{page}");
}

/// Rows of CSV, cells unquoted.
fn rows(csv: &str) -> Vec<Vec<String>> {
    let (mut rows, mut row, mut cell) = (Vec::new(), Vec::new(), String::new());
    let mut quoted = false;
    let mut letters = csv.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                cell.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => row.push(std::mem::take(&mut cell)),
            '\r' if !quoted => {}
            '\n' if !quoted => {
                row.push(std::mem::take(&mut cell));
                rows.push(std::mem::take(&mut row));
            }
            other => cell.push(other),
        }
    }
    assert!(row.is_empty() && cell.is_empty(), "the last line ends");
    rows
}

#[tokio::test]
async fn ad_02_an_export_holds_no_formula() {
    let app = TestApp::start().await;
    let alice = admin(&app).await;
    let corpus = ["=cmd|' /C calc'!A0", "+1+1", "-2+3", "@SUM(1)", "\t=1", "\r=1", "a\",=1+1,\"b"];
    for hostile in corpus {
        let subject = hostile.replace('\'', "''");
        let sql = format!(
            "INSERT INTO audit_events (id, at, event, actor, subject, detail)
             VALUES ('0{}', 1, 'code_issued', 'client', '{subject}', '{{}}')",
            corpus.iter().position(|one| *one == hostile).unwrap()
        );
        app.database.execute(&sql).await;
    }

    let file = alice.get("/audit/export?format=csv").await;

    file.assert_status(200);
    assert_eq!(file.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    let disposition = file.header("content-disposition").unwrap();
    assert_eq!(disposition, "attachment; filename=\"portcullis-audit-2026-11-21.csv\"");
    assert_eq!(file.header("x-content-type-options"), Some("nosniff"));
    assert_eq!(file.header("cache-control"), Some("no-store"));
    let rows = rows(file.text());
    assert!(rows.iter().all(|row| row.len() == 11), "{rows:?}");
    for cell in rows.iter().flatten() {
        assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r', '\n']), "{cell:?}");
    }
    for hostile in corpus {
        let kept = rows.iter().any(|row| row[5].trim_start_matches('\'') == hostile);
        assert!(kept, "{hostile:?} is not told as it was");
    }
}

#[tokio::test]
async fn an_export_holds_every_line_that_fits_and_is_told_of() {
    let app = TestApp::start().await;
    let metadata = serde_json::json!({
        "redirect_uris": ["https://one.example/cb"],
        "token_endpoint_auth_method": "client_secret_basic",
    });
    for _ in 0..22 {
        let registered = (0..50).map(|_| McpClient::register_as(&app, metadata.clone()));
        for _ in futures_util::future::join_all(registered).await {}
        app.advance(60); // of a flood the trail tells less
    }
    let alice = admin(&app).await;

    let file = alice.get("/audit/export?format=jsonl&event=client_registered").await;

    file.assert_status(200);
    assert_eq!(file.header("content-length"), None, "it is sent as it is read");
    let lines: Vec<serde_json::Value> =
        file.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let ids: std::collections::BTreeSet<&str> =
        lines.iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!((lines.len(), ids.len()), (1100, 1100));
    assert!(lines.iter().all(|line| line["event"] == "client_registered"));
    assert_eq!(lines[0]["time"], "2026-11-21T00:21:00.000Z");
    let told = alice.page("/audit?event=audit_exported").await;
    assert!(told.contains("event=client_registered") && told.contains("jsonl"), "{told}");
    assert!(told.contains("admin oidc:demo-alice"));
    alice.get("/audit/export?format=xlsx").await.assert_page(404);
    alice.get("/audit/export").await.assert_page(404);
    alice.get("/audit/export?format=csv&since=yesterday").await.assert_page(404);
}

#[tokio::test]
async fn xs_01_hostile_text_stays_text_in_the_audit_trail() {
    let app = TestApp::start().await;
    let alice = admin(&app).await;
    for hostile in ["<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>"] {
        let sql = format!(
            "INSERT INTO audit_events
                 (id, at, event, actor, client_id, subject, resource, grant_id, reference, detail)
             VALUES ('{:012x}{}', 1795219200000, '{hostile}', 'admin {hostile}', '{hostile}', '{hostile}',
                     '{hostile}', '{hostile}', '{hostile}', '{hostile}')",
            1_795_219_200_000_i64,
            hostile.len()
        );
        app.database.execute(&sql).await;
        let mut search = Vec::new();
        for name in ["event", "client", "sub", "grant", "ref", "since", "until", "before"] {
            search.push((name, hostile));
        }
        for page in ["/audit", &with_query("/audit", &search)] {
            let html = alice.page(page).await;
            assert!(!html.contains("<script") && !html.contains("<img"), "{page}: {html}");
        }
    }
}
