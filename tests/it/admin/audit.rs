//! `/audit`: found again, chained, and taken along without harm (threat AD-02).

use crate::harness::TestApp;
use crate::harness::browser::unescape;
use crate::harness::client::McpClient;
use crate::harness::console::{Console, with_query};

async fn settled(app: &TestApp) {
    while app.storage().settle_audit().await.unwrap() > 0 {}
}

async fn admin(app: &TestApp) -> Console {
    Console::admin(app).signed_in(app, "alice").await
}

/// The events of the page's lines, newest first: their codes, which stay in the details.
fn events(page: &str) -> Vec<String> {
    let code =
        regex_lite::Regex::new("<dt>(Event|イベント)</dt><dd><code>([a-z_]+)</code>").unwrap();
    code.captures_iter(page).map(|found| found[2].to_owned()).collect()
}

/// The sentences of the page's lines, newest first, without their links.
fn sentences(page: &str) -> Vec<String> {
    let sentence = regex_lite::Regex::new(r#"(?s)<span class="told">(.*?)</span>"#).unwrap();
    let tags = regex_lite::Regex::new("<[^>]*>").unwrap();
    let text = |found: regex_lite::Captures<'_>| unescape(&tags.replace_all(&found[1], ""));
    sentence.captures_iter(page).map(text).collect()
}

/// The link with this text.
fn link(page: &str, text: &str) -> String {
    let link = regex_lite::Regex::new(r#"<a[^>]*href="([^"]*)"[^>]*>(?:<bdi>)?([^<]*)"#).unwrap();
    let found = link.captures_iter(page).find(|found| found[2].trim() == text);
    unescape(&found.unwrap_or_else(|| panic!("no link {text}: {page}"))[1])
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

    let page = alice.page(&with_query("/audit", &[("client", &client.id), ("routine", "1")])).await;

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
    let of_bob = alice.page("/audit?sub=oidc%3Ademo-bob&routine=1").await;
    assert_eq!(events(&of_bob), ["code_redeemed", "code_issued"]);
    let first_day = alice.page("/audit?until=2026-11-21").await;
    assert!(first_day.contains("demo-bob") && !first_day.contains("demo-alice\""), "{first_day}");
    let second_day = alice.page("/audit?since=2026-11-22&event=code_issued").await;
    assert_eq!(events(&second_day), ["code_issued"]);
    assert!(alice.page("/audit?since=yesterday").await.contains("Enter a date."));
    assert!(alice.page("/audit?event=nothing").await.contains("No events match."));
}

#[tokio::test]
async fn a_pasted_reference_number_is_found() {
    let app = TestApp::start().await;
    let page = app.http.get(&app.at("/authorize?client_id=unknown")).await;
    let reference = page.reference().to_lowercase();
    let alice = admin(&app).await;

    let pasted = with_query("/audit", &[("q", &format!("  {reference} "))]);
    let mut found = alice.page(&pasted).await;
    while events(&found).is_empty() {
        found = alice.page(&pasted).await; // it is stored within a second
    }

    assert_eq!(events(&found), ["page_shown"]);
    assert!(found.contains("unknown client"));
    let linked = alice.page(&with_query("/audit", &[("ref", &reference)])).await;
    assert_eq!(events(&linked), ["page_shown"], "links in documents and mails stay good");
}

#[tokio::test]
async fn events_are_found_by_the_names_of_people_and_clients_from_one_box() {
    let app = TestApp::start().await;
    let robot = app.client_named("Robot Arm").await;
    robot.sign_in("bob").await;
    settled(&app).await;
    app.client_named("Other").await.sign_in("alice").await;
    app.client_named("Third").await.authorize("mallory", &[]).await.assert_page(403);
    let alice = admin(&app).await;
    let find = async |search: &str| {
        let page = alice.page(&with_query("/audit", &[("q", search), ("routine", "1")])).await;
        sentences(&page)
    };

    let of_robot = find("robot").await;
    assert_eq!(
        of_robot,
        [
            "Robot Arm received its first tokens for Bob Brown (create:todos)",
            "Bob Brown connected Robot Arm to To-do list (create:todos)",
            "Somebody approved that Robot Arm uses To-do list (create:todos delete:todos read:todos)",
            "Robot Arm registered itself",
        ]
    );
    let of_bob = &of_robot[..2];
    for search in ["Bob Brown", "bro", "bob@example.com", "demo-bob", "oidc:demo-bob"] {
        assert_eq!(find(search).await, of_bob, "{search}");
    }
    assert_eq!(find(&robot.id).await, of_robot);
    let refused =
        "Mallory Miller was refused To-do list: no rule matches (roles: none, groups: none)";
    assert_eq!(find("oidc:demo-mallory").await, [refused], "who never got in is found by the id");
    assert_eq!(find("nobody").await, Vec::<String>::new());
    let both = alice.page("/audit?q=alice&show=refusals").await;
    assert!(both.contains("No events match."), "{both}");
    let both = alice.page("/audit?q=oidc%3Ademo-mallory&show=refusals").await;
    assert_eq!(events(&both), ["access_denied"]);
    let file = alice.get("/audit/export?format=jsonl&q=bro").await;
    assert_eq!(file.text().lines().count(), 2, "{}", file.text());
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
    for (path, lines) in [("/audit?routine=1", 222), ("/audit?event=code_issued", 60)] {
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
async fn lines_are_sentences_with_names_in_the_language_of_the_administrator() {
    let app = TestApp::start().await;
    let robot = app.client_named("Robot").await;
    robot.sign_in("bob").await;
    app.idp.set_roles("bob", &[]);
    robot.elsewhere().authorize("bob", &[]).await.assert_page(403);
    app.client_named("Other").await.authorize("mallory", &[]).await.assert_page(403);
    let alice = admin(&app).await;
    let block = "/person?sub=oidc%3Ademo-bob";
    alice.press_and_confirm(block, "action", "block").await.assert_leads_to(&alice.at("/person"));

    let page = alice.page("/audit").await;

    let told = sentences(&page);
    for sentence in [
        "Alice Adams blocked Bob Brown (connections ended: 1)",
        "Mallory Miller was refused To-do list: no rule matches (roles: none, groups: none)",
        "Bob Brown was refused To-do list: no rule matches (roles: none, groups: staff)",
        "Bob Brown connected Robot to To-do list (create:todos)",
        "Robot registered itself",
        "Alice Adams signed in to the admin pages",
    ] {
        assert!(told.iter().any(|told| told == sentence), "{sentence} is missing: {told:#?}");
    }
    assert_eq!(told.len(), events(&page).len(), "each line has its code as well");
    assert!(events(&page).contains(&"access_denied".to_owned()));
    for id in ["oidc:demo-bob", "admin oidc:demo-alice", robot.id.as_str()] {
        assert!(page.contains(id), "{id} stays in the details");
    }
    assert!(page.contains("rules: none matched"), "{page}");
    assert_eq!(link(&page, "Bob Brown"), "/person?sub=oidc%3Ademo-bob");
    assert_eq!(link(&page, "Mallory Miller"), "/audit?sub=oidc%3Ademo-mallory");
    assert_eq!(link(&page, "Robot"), with_query("/client", &[("id", &robot.id)]));
    let headers = [("accept", "text/html"), ("accept-language", "ja")];
    let ja = alice.browser.send("GET", &alice.at("/audit"), &headers, "").await;
    let told = sentences(ja.text());
    let refused = "Bob Brown による To-do list の利用を拒否しました: 該当するルールがありません\
                   (ロール: なし、グループ: staff)";
    assert!(told.iter().any(|told| told == refused), "{told:#?}");
    assert_eq!(told.len(), events(ja.text()).len());
}

#[tokio::test]
async fn a_line_says_who_did_it() {
    let app = TestApp::start().await;
    let client = app.client_named("Robot").await;
    let tokens = client.sign_in("bob").await;
    client.revoke(&tokens.refresh_token).await.assert_status(200);
    client.elsewhere().sign_in("bob").await;
    client.elsewhere().sign_in("bob").await;
    let alice = admin(&app).await;
    alice.press_and_confirm("/person?sub=oidc%3Ademo-bob", "action", "end").await;

    let ended = sentences(&alice.page("/audit?event=grant_revoked").await);
    assert_eq!(ended, ["Robot ended its connection"]);
    let all = sentences(&alice.page("/audit?event=grants_revoked").await);
    assert_eq!(all, ["Alice Adams ended connections of Bob Brown: 2"]);
}

#[tokio::test]
async fn filters_show_refusals_administrators_and_the_last_hour_or_day() {
    let app = TestApp::start().await;
    app.client_named("First").await.authorize("mallory", &[]).await.assert_page(403);
    let (client, tokens) = app.tokens_of("bob").await;
    app.advance(2 * 3600);
    let tokens = crate::harness::client::Tokens::of(&client.refresh(&tokens.refresh_token).await);
    client.call_tool(&tokens.access_token, "purge-todos", serde_json::json!({})).await;
    let alice = admin(&app).await;
    alice.press("/keys", "action", "rotate").await.assert_leads_to(&alice.at("/keys"));
    let mut page = alice.page("/audit?event=tool_refused").await;
    while events(&page).is_empty() {
        page = alice.page("/audit?event=tool_refused").await; // it is stored within a second
    }
    settled(&app).await; // some lines are read from the chain, and a later one before it is chained
    alice.press_and_confirm("/person?sub=oidc%3Ademo-bob", "action", "end").await;

    let page = alice.page("/audit").await;
    let refusals = alice.page(&link(&page, "Refusals")).await;
    assert_eq!(events(&refusals), ["tool_refused", "access_denied"]);
    let lately = alice.page(&link(&refusals, "Last hour")).await;
    assert_eq!(events(&lately), ["tool_refused"]);
    let day = alice.page(&link(&lately, "Last 24 hours")).await;
    assert_eq!(events(&day), ["tool_refused", "access_denied"]);
    let admins = alice.page(&link(&page, "Administrators")).await;
    assert_eq!(events(&admins), ["grants_revoked", "key_added"]);
    for (page, chosen) in
        [(&refusals, "Refusals"), (&lately, "Last hour"), (&admins, "Administrators")]
    {
        let marked = format!("aria-current=\"true\">{chosen}</a>");
        assert!(page.contains(&marked), "{chosen} is not marked: {page}");
    }
    app.advance(24 * 3600 + 1);
    let alice = admin(&app).await;
    let later = alice.page("/audit?show=refusals&last=day").await;
    assert!(later.contains("No events match."), "{later}");
    let cleared = alice.page(&link(&later, "Clear")).await;
    assert!(events(&cleared).contains(&"tool_refused".to_owned()), "{cleared}");
}

#[tokio::test]
async fn routine_events_are_hidden_until_they_are_asked_for_and_are_in_every_download() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    let alice = admin(&app).await;

    let page = alice.page("/audit").await;
    assert!(!events(&page).contains(&"refresh_rotated".to_owned()), "{page}");
    assert!(page.contains("Hidden as routine:"), "{page}");
    let all = alice.page(&link(&page, "Include routine events")).await;
    assert!(events(&all).contains(&"refresh_rotated".to_owned()), "{all}");
    assert!(!all.contains("Hidden as routine:"));
    let again = alice.page(&link(&all, "Hide routine events")).await;
    assert_eq!(events(&again), events(&page));
    let chosen = alice.page("/audit?event=refresh_rotated").await;
    assert_eq!(events(&chosen), ["refresh_rotated"], "nobody has to ask twice");
    let file = alice.get("/audit/export?format=jsonl").await;
    assert!(file.text().contains("\"refresh_rotated\""), "{}", file.text());
}

#[tokio::test]
async fn a_list_of_lines_leads_back_to_its_first_page() {
    let app = TestApp::start().await;
    for number in 0..120 {
        let told = app.audit_event("backup_made").with("bytes", number);
        app.storage().record(vec![told]).await.unwrap();
        if number == 70 {
            settled(&app).await;
        }
    }
    let alice = admin(&app).await;
    let ids = |page: &str| {
        let bytes = regex_lite::Regex::new("bytes: ([0-9]+)").unwrap();
        bytes.captures_iter(page).map(|found| found[1].to_owned()).collect::<Vec<_>>()
    };
    let follow = async |page: &str, rel: &str| {
        let link = regex_lite::Regex::new(&format!(r#"rel="{rel}" href="([^"]*)""#)).unwrap();
        alice.page(&unescape(&link.captures(page).unwrap()[1])).await
    };
    for path in ["/audit?event=backup_made", "/audit"] {
        let first = alice.page(path).await;
        let second = follow(&first, "next").await;
        let third = follow(&second, "next").await;
        assert!(!first.contains("rel=\"prev\"") && !third.contains("rel=\"next\""));

        let back = follow(&third, "prev").await;
        assert_eq!(ids(&back), ids(&second), "{path}");
        let begin = follow(&back, "prev").await;
        assert_eq!(ids(&begin), ids(&first), "{path}");
        assert!(!begin.contains("rel=\"prev\""));
        let seen = [ids(&first), ids(&second), ids(&third)].concat();
        assert_eq!(seen.len(), 120, "{path}");
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
