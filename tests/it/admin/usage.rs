//! `/usage` and what the overview says of MCP servers: who used what.

use serde_json::json;

use crate::harness::backend::{Backend, PURGE, answer_json, post, request, status, tokens};
use crate::harness::client::Tokens;
use crate::harness::console::{Console, with_query};
use crate::harness::{Setup, TestApp};

async fn admin(app: &TestApp) -> Console {
    Console::admin(app).signed_in(app, "alice").await
}

async fn call(app: &TestApp, tokens: &Tokens, tool: &str, times: usize) {
    let body = request("tools/call", &json!({ "name": tool, "arguments": {} }));
    for _ in 0..times {
        post(app, tokens, &[], &body).await;
    }
}

/// The cells of the page's table, by their labels.
fn cells(page: &str, label: &str) -> Vec<String> {
    let cell =
        regex_lite::Regex::new(&format!(r#"(?s)<td[^>]*data-label="{label}"[^>]*>(.*?)</td>"#));
    let tag = regex_lite::Regex::new("<[^>]*>").unwrap();
    let text = |found: regex_lite::Captures<'_>| tag.replace_all(&found[1], "").into_owned();
    cell.unwrap().captures_iter(page).map(text).collect()
}

/// A server behind which alice and bob have called three tools.
async fn used() -> (Backend, TestApp, String) {
    Box::pin(calls_of_two_people()).await
}

async fn calls_of_two_people() -> (Backend, TestApp, String) {
    let backend = Backend::start().await;
    let app = backend.behind("name = \"Files\"", PURGE).await;
    let (client, alice) = tokens(&app, "alice").await;
    let (_, bob) = tokens(&app, "bob").await;
    call(&app, &alice, "purge", 3).await;
    call(&app, &bob, "purge", 2).await;
    call(&app, &bob, "look", 4).await;
    app.advance(3600);
    backend.answers(|_| status(500));
    let (_, bob) = tokens(&app, "bob").await;
    call(&app, &bob, "late", 1).await;
    app.write_usage().await;
    (backend, app, client.id)
}

#[tokio::test]
async fn the_page_answers_who_called_a_tool() {
    let (_backend, app, _) = used().await;
    let alice = admin(&app).await;

    let page = alice.page("/usage").await;
    assert_eq!(cells(&page, "Person"), ["Bob Brown", "Alice Adams", "Bob Brown", "Bob Brown"]);
    assert_eq!(cells(&page, "Tool"), ["look", "purge", "purge", "late"]);
    assert_eq!(cells(&page, "Calls"), ["4", "3", "2", "1"]);
    let others = cells(&page, "Not answered with a result");
    assert_eq!(others, ["", "", "2 refused: scope missing", "1 server not reached"]);
    assert!(page.contains("All calls: 10"), "{page}");

    let of_tool = alice.page("/usage?tool=purge").await;
    assert_eq!(cells(&of_tool, "Calls"), ["3", "2"]);
    let refused = alice.page("/usage?outcome=scope_refused").await;
    assert_eq!(cells(&refused, "Person"), ["Bob Brown"]);
    let by_name = alice.page("/usage?person=adams&sort=time").await;
    assert_eq!(cells(&by_name, "Tool"), ["purge"]);
    assert!(by_name.contains("/person?sub=oidc%3Ademo-alice"), "{by_name}");
    let by_time = alice.page("/usage?sort=time&range=7d").await;
    assert_eq!(cells(&by_time, "Tool")[0], "late");
    for (query, text) in [
        ("tool=look&kind=method", "No calls match."),
        ("person=nobody-here", "No person matches."),
        ("client=nobody-here", "No client matches."),
        ("range=own&since=2026-11-22&until=2026-11-20", "Enter two dates"),
        ("range=own&since=tomorrow", "Enter two dates"),
        ("server=https%3A%2F%2Felsewhere.example%2Fmcp", "No calls match."),
    ] {
        let page = alice.page(&format!("/usage?{query}")).await;
        assert!(page.contains(text) && cells(&page, "Tool").is_empty(), "{query}: {page}");
    }
    for (range, found) in [("2026-11-21", 4), ("2026-11-19", 4), ("2026-11-22", 0)] {
        let page = alice.page(&format!("/usage?range=own&since={range}&until=2026-11-30")).await;
        assert_eq!(cells(&page, "Tool").len(), found, "{range}");
    }
}

#[tokio::test]
async fn every_range_has_a_chart_with_a_scale_and_the_numbers_as_a_table() {
    let (_backend, app, _) = used().await;
    let alice = admin(&app).await;
    for (query, bars, labels) in [
        ("range=24h", 24, 6),
        ("range=7d", 7, 7),
        ("range=30d", 30, 6),
        ("range=own&since=2026-11-21&until=2026-11-21", 24, 6),
        ("range=own&since=2026-05-01&until=2026-11-21", 52, 6),
    ] {
        let page = alice.page(&format!("/usage?{query}")).await;
        let chart = &page[page.find("class=\"chart\"").unwrap()..];
        assert_eq!(chart.matches("<rect class=\"in\"").count(), bars, "{query}");
        let days = &chart[chart.find("class=\"days\"").unwrap()..];
        let days = &days[..days.find("</div>").unwrap()];
        assert_eq!(days.matches("<span>").count(), labels, "{query}");
        assert!(page.contains("aria-label=\"Files: 10 calls\""), "{query}");
        assert!(page.contains("<span>10</span><span>5</span><span>0</span>"), "{query}");
        assert!(page.contains("<summary>Numbers as a table</summary>"), "{query}");
        assert!(!page.contains(" style="), "{query}");
    }
}

#[tokio::test]
async fn pages_lead_to_their_part_of_the_usage() {
    let (_backend, app, client) = used().await;
    let alice = admin(&app).await;
    let follow = async |from: &str| {
        let page = alice.page(from).await;
        let link = regex_lite::Regex::new(r#"href="(/usage\?range=30d[^"]*)""#).unwrap();
        let link = link.captures(&page).unwrap_or_else(|| panic!("{from}: {page}"))[1].to_owned();
        alice.page(&link.replace("&amp;", "&").replace("&#38;", "&")).await
    };

    let of_bob = follow("/person?sub=oidc:demo-bob").await;
    assert_eq!(cells(&of_bob, "Calls"), ["4", "2", "1"]);
    let of_client = follow(&with_query("/client", &[("id", &client)])).await;
    assert_eq!(cells(&of_client, "Calls"), ["4", "3", "2", "1"]);
    assert_eq!(cells(&follow("/servers").await, "Calls").len(), 4);
}

#[tokio::test]
async fn a_download_has_each_hour_with_names_and_is_recorded() {
    let (_backend, app, _) = used().await;
    let alice = admin(&app).await;

    let file = alice.get("/usage/export?person=bob").await;

    file.assert_status(200);
    assert_eq!(file.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    let disposition = file.header("content-disposition").unwrap();
    assert_eq!(disposition, "attachment; filename=\"portcullis-usage-2026-11-21.csv\"");
    let lines: Vec<&str> = file.text().lines().collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines[0].starts_with("\"hour\",\"subject\",\"name\""), "{lines:?}");
    let last = lines[3];
    assert!(
        last.starts_with("\"2026-11-21T01:00:00Z\",\"oidc:demo-bob\",\"Bob Brown\","),
        "{last}"
    );
    assert!(
        last.contains("\"tool\",\"late\",\"1\",\"0\",\"0\",\"0\",\"0\",\"0\",\"1\",\"0\""),
        "{last}"
    );
    assert!(!file.text().contains("demo-alice"), "another person");
    let told = alice.page("/audit?event=usage_exported").await;
    assert!(told.contains("person=bob"), "{told}");
    alice.get("/usage/export?person=nobody-here").await.assert_page(404);
    alice.get("/usage/export?range=own&since=x").await.assert_page(404);
}

#[tokio::test]
async fn gw_41_hostile_names_are_text_and_no_formula() {
    let backend = Backend::start().await;
    let app = backend.behind("", "").await;
    let (_, alice) = tokens(&app, "alice").await;
    let hostile = [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "=HYPERLINK(\"https://evil.example\")",
        "admin\u{202e}tool",
        "+1",
    ];
    for tool in hostile {
        call(&app, &alice, tool, 1).await;
    }
    call(&app, &alice, "a\nb\u{0}", 1).await;
    app.write_usage().await;
    let console = admin(&app).await;

    let mut pages = vec![console.page("/usage").await];
    for tool in hostile {
        let path = with_query("/usage", &[("tool", tool), ("person", tool), ("client", tool)]);
        pages.push(console.page(&path).await);
        let page = console.page(&with_query("/usage", &[("tool", tool)])).await;
        assert_eq!(cells(&page, "Tool").len(), 1, "{tool} is found by its name");
        pages.push(page);
    }
    for page in &pages {
        assert!(!page.contains("<script") && !page.contains("<img"), "{page}");
    }
    assert!(!cells(&pages[0], "Tool").iter().any(|name| name.contains('\u{202e}')));
    assert!(pages[0].contains("other tools"), "a name with control characters is not kept");
    let file = console.get("/usage/export").await;
    let formula = regex_lite::Regex::new("[\"\n][=+@]").unwrap();
    assert!(!formula.is_match(file.text()), "{}", file.text());
}

/// The first link to another page of a list.
fn link_of(page: &str) -> String {
    let link = regex_lite::Regex::new(r#"href="([^"]*after=[^"]*)""#).unwrap();
    link.captures(page).unwrap()[1].replace("&amp;", "&").replace("&#38;", "&")
}

#[tokio::test]
async fn many_rows_come_page_by_page_forth_and_back_in_either_order() {
    let backend = Backend::start().await;
    let app = backend.behind("", "").await;
    let (_, alice) = tokens(&app, "alice").await;
    for n in 0..60 {
        call(&app, &alice, &format!("tool-{n}"), 1 + n % 2).await;
    }
    app.write_usage().await;
    let console = admin(&app).await;
    for order in ["", "&sort=time", "&range=30d", "&range=7d&sort=time"] {
        let first = console.page(&format!("/usage?x=1{order}")).await;
        let second = console.page(&link_of(&first)).await;
        let back = link_of(&second);
        assert_eq!(cells(&console.page(&back).await, "Tool"), cells(&first, "Tool"), "{order}");
        let mut tools = [cells(&first, "Tool"), cells(&second, "Tool")].concat();
        assert_eq!(tools.len(), 60, "{order}");
        tools.sort();
        tools.dedup();
        assert_eq!(tools.len(), 60, "{order}");
    }
}

#[tokio::test]
async fn the_overview_begins_with_what_needs_attention_and_then_shows_each_server() {
    let (backend, app, _) = used().await;
    let alice = admin(&app).await;

    let page = alice.page("/").await;
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is not there: {page}"));
    let order = [
        at("Needs attention"),
        at(">MCP servers</h2>"),
        at("class=\"tiles\""),
        at("class=\"chart\""),
        at(">Identity provider<"),
    ];
    assert!(order.is_sorted(), "{order:?}");
    assert_eq!(cells(&page, "MCP server"), ["Files"]);
    assert_eq!(cells(&page, "People"), ["2"]);
    assert_eq!(cells(&page, "Calls"), ["10"]);
    assert_eq!(cells(&page, "Refused"), ["2"]);
    assert_eq!(cells(&page, "Failed"), ["1"]);
    assert!(
        page.contains("The last call or check of a target of this MCP server failed"),
        "{page}"
    );
    let state = &cells(&page, "State")[0];
    assert!(state.contains("Fails") && state.contains("error (5xx)"), "{state}");
    for link in ["/refused", "/usage", "/people", "/clients", "/grants", "/audit?event=code_issued"]
    {
        assert!(page.contains(&format!("<dt><a href=\"{link}")), "{link}");
    }

    backend.answers(|_| answer_json(&json!({ "jsonrpc": "2.0", "id": 1, "result": {} })));
    let (_, bob) = tokens(&app, "bob").await;
    call(&app, &bob, "look", 1).await;
    let page = alice.page("/").await;
    assert!(page.contains("Nothing needs attention."), "{page}");
    let state = &cells(&page, "State")[0];
    assert!(state.contains("Reachable") && state.contains("(01:00 UTC)"), "{state}");
}

#[tokio::test]
async fn the_overview_of_a_new_server_says_that_there_was_no_call() {
    let app = TestApp::with(Setup::default()).await;
    let page = admin(&app).await.page("/").await;
    assert!(cells(&page, "State")[0].contains("No call yet since the start"), "{page}");
    assert_eq!(cells(&page, "Calls"), ["0"]);
}
