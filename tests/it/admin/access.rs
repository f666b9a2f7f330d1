//! The admin pages: who gets in, what they can do, and how at once it takes effect (threat AD-01).

use crate::harness::console::{Console, with_query};
use crate::harness::{Setup, TestApp};

/// Every page, and every form with fields that would do something.
const PAGES: &[&str] = &[
    "/",
    "/clients",
    "/clients/new",
    "/clients/edit?id=x",
    "/clients/patterns",
    "/client?id=x",
    "/grants",
    "/confirm?act=block_client&id=x",
    "/connections",
    "/confirm?act=remove_service&id=x",
    "/people",
    "/person?sub=x",
    "/refused",
    "/refused/person?sub=x&server=y",
    "/servers",
    "/servers/draft?server=x",
    "/usage",
    "/usage/export",
    "/keys",
    "/notifications",
    "/audit",
    "/audit/export?format=csv",
];
const FORMS: &[&str] = &[
    "/client",
    "/clients",
    "/clients/new",
    "/clients/edit",
    "/clients/patterns",
    "/grant",
    "/connections",
    "/person",
    "/keys",
    "/notifications",
    "/sign-out",
];

#[tokio::test]
async fn ad_01_without_a_session_every_route_asks_to_sign_in() {
    let app = TestApp::start().await;
    let (_, tokens) = app.tokens_of("alice").await;
    let stranger = Console::admin(&app);
    let bearer = format!("Bearer {}", tokens.access_token);
    for page in PAGES {
        stranger.get(page).await.assert_page(401);
        let headers = [("authorization", bearer.as_str()), ("accept", "text/html")];
        app.http.send("GET", &stranger.at(page), &headers, String::new()).await.assert_page(401);
    }
    for form in FORMS {
        stranger.post(form, &[("csrf", "x"), ("action", "block")]).await.assert_page(401);
    }
}

#[tokio::test]
async fn ad_01_the_public_listener_has_no_admin_pages() {
    let app = TestApp::start().await;
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    for page in PAGES.iter().chain(FORMS).filter(|page| **page != "/") {
        admin.browser.get(&app.at(page)).await.assert_page(404);
    }
}

#[tokio::test]
async fn ad_01_only_who_has_the_role_gets_in() {
    let app = TestApp::start().await;
    let bob = Console::admin(&app);
    bob.sign_in(&app, "bob").await.assert_page(403);
    bob.get("/").await.assert_page(401);

    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    assert!(alice.page("/").await.contains("Alice Adams"));
}

#[tokio::test]
async fn ad_01_a_form_from_elsewhere_changes_nothing() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let csrf = alice.csrf().await;
    let fields = [("csrf", csrf.as_str()), ("id", client.id.as_str()), ("action", "block")];
    let block = alice.at("/client");
    let form = crate::harness::http::encode(&fields);
    let content = ("content-type", "application/x-www-form-urlencoded");

    alice.browser.post(&block, &fields, "https://evil.example").await.assert_page(403);
    alice.browser.post(&block, &fields, &app.url).await.assert_page(403);
    alice.browser.send("POST", &block, &[content], &form).await.assert_page(403);
    let origin = ("origin", "null");
    alice.browser.send("POST", &block, &[content, origin], &form).await.assert_page(403);
    let ours = ("origin", alice.origin.as_str());
    let cross = ("sec-fetch-site", "cross-site");
    alice.browser.send("POST", &block, &[content, ours, cross], &form).await.assert_page(403);
    alice.post("/client", &[("id", &client.id), ("action", "block")]).await.assert_page(403);
    let other = Console::admin(&app).signed_in(&app, "alice").await.csrf().await;
    alice
        .post("/client", &[("csrf", &other), ("id", &client.id), ("action", "block")])
        .await
        .assert_page(403);

    client.ask(&[]).await;
    let asked = alice.post("/client", &fields).await;
    client.ask(&[]).await;
    alice.confirm(&asked, "action", "block").await.assert_leads_to(&alice.at("/client"));
    client.browser.get(&client.authorize_url(&[])).await.assert_page(403);
}

#[tokio::test]
async fn ad_01_a_session_ends_when_idle_and_after_eight_hours() {
    let app = TestApp::start().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    app.advance(14 * 60);
    alice.page("/").await;
    app.advance(15 * 60);
    alice.get("/").await.assert_page(401);

    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    for _ in 0..34 {
        app.advance(14 * 60);
        alice.page("/").await;
    }
    app.advance(10 * 60);
    alice.get("/").await.assert_page(401);
}

#[tokio::test]
async fn ad_01_who_lost_the_role_is_out_after_the_re_check() {
    let app = TestApp::start().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    app.idp.set_roles("alice", &["User"]);
    alice.page("/").await;
    app.advance(8 * 60);
    alice.page("/").await;
    app.advance(8 * 60);
    alice.get("/").await.assert_page(403);
    alice.get("/").await.assert_page(401);
}

#[tokio::test]
async fn ad_01_what_cuts_somebody_off_wants_a_fresh_proof() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let path = with_query("/client", &[("id", &client.id)]);
    app.advance(11 * 60);

    let asked = alice.press(&path, "action", "block").await;
    asked.assert_page(401);
    client.ask(&[]).await;

    // The provider must ask again, although it knows the browser.
    let form = crate::harness::browser::Form::of(&asked, &alice.at("/client"));
    let leave = alice.browser.post(&form.action, &form.with(&[]), &alice.origin).await;
    assert!(leave.location().contains("prompt=login"), "{}", leave.location());
    assert!(leave.location().contains("max_age=0"));
    let back = alice.pass_provider(&app, &form, "alice").await;
    back.assert_leads_to(&alice.at("/confirm"));
    client.ask(&[]).await;
    alice.press_and_confirm(&path, "action", "block").await.assert_leads_to(&alice.at("/client"));
    client.browser.get(&client.authorize_url(&[])).await.assert_page(403);
}

#[tokio::test]
async fn a_viewer_sees_everything_and_changes_nothing() {
    let app = TestApp::with(Setup::toml("[admin.read_only]\nroles = [\"User\"]\n")).await;
    let client = app.client().await;
    let bob = Console::admin(&app).signed_in(&app, "bob").await;
    let path = with_query("/client", &[("id", &client.id)]);
    let page = bob.page(&path).await;
    assert!(!page.contains("value=\"block\""), "{page}");
    for page in ["/", "/clients", "/clients/patterns", "/grants", "/people", "/servers", "/keys"]
        .into_iter()
        .chain(["/notifications", "/usage", "/audit", "/connections"])
    {
        let page = bob.page(page).await;
        // Searching and verifying change nothing; signing out is for everybody.
        let changes = page.matches("method=\"post\"").count();
        assert_eq!(changes, 1, "{page}");
    }
    let person = bob.page("/person?sub=oidc%3Ademo-bob").await;
    assert_eq!(person.matches("method=\"post\"").count(), 1, "{person}");
    let csrf = bob.csrf().await;
    for action in ["block", "approve", "delete", "trust"] {
        let fields = [("csrf", csrf.as_str()), ("id", &client.id), ("action", action)];
        bob.post("/client", &fields).await.assert_page(403);
    }
    for action in ["block", "sign_out", "end", "unblock"] {
        let fields = [("csrf", csrf.as_str()), ("sub", "oidc:demo-bob"), ("action", action)];
        bob.post("/person", &fields).await.assert_page(403);
    }
    bob.post("/keys", &[("csrf", &csrf), ("action", "rotate")]).await.assert_page(403);
    client.ask(&[]).await;
    let out = bob.post("/sign-out", &[("csrf", &csrf)]).await;
    out.assert_leads_to(&bob.origin);
    bob.get("/").await.assert_page(401);
}

#[tokio::test]
async fn ad_01_signing_in_in_the_wrong_browser_signs_nobody_in() {
    let app = TestApp::start().await;
    let alice = Console::admin(&app);
    let page = alice.get("/").await;
    let form = crate::harness::browser::Form::of(&page, &alice.at("/"));
    let leave = alice.browser.post(&form.action, &form.with(&[]), &alice.origin).await;
    let idp_url = leave.location().to_owned();
    // Another browser comes back with what this one began.
    let victim = Console::admin(&app);
    let page = victim.browser.get(&idp_url).await;
    let form = crate::harness::browser::Form::of(&page, &idp_url);
    let fields = form.with(&[("username", "alice"), ("password", "alice")]);
    let back = victim.browser.post(&form.action, &fields, &idp_url).await;
    let passed_on = victim.browser.get(back.location()).await;
    victim.browser.get(passed_on.location()).await.assert_page(403);
    victim.get("/").await.assert_page(401);
}

#[tokio::test]
async fn ad_01_a_made_up_state_does_not_tell_where_the_admin_pages_are() {
    let app = TestApp::start().await;
    let alice = Console::admin(&app);
    let page = alice.get("/").await;
    let form = crate::harness::browser::Form::of(&page, &alice.at("/"));
    let leave = alice.browser.post(&form.action, &form.with(&[]), &alice.origin).await;
    let state = leave.location_param("state").unwrap();
    let answer = async |state: &str| {
        let query = format!("/auth/callback?code=x&state={state}");
        app.http.get(&app.at(&query)).await
    };
    answer(&state).await.assert_leads_to(&alice.at("/signed-in"));

    let (id, secret) = state.split_once('.').unwrap();
    let one_up = |text: &str| {
        let (rest, last) = text.split_at(text.len() - 1);
        format!("{rest}{}", if last == "0" { "1" } else { "0" })
    };
    for made_up in [
        format!("ca_{}.{}", "0".repeat(32), "A".repeat(43)),
        format!("{id}.{}", "A".repeat(43)),
        format!("{}.{secret}", one_up(id)),
        state.replacen("ca_", "cp_", 1),
        format!("cp_{}.{}", "0".repeat(32), "A".repeat(43)),
    ] {
        answer(&made_up).await.assert_page(403);
    }
}

#[tokio::test]
async fn blocking_a_client_ends_what_it_has_at_once_and_unblocking_opens_it_again() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let code = client.code("bob").await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let path = with_query("/client", &[("id", &client.id)]);

    alice.press_and_confirm(&path, "action", "block").await.assert_leads_to(&alice.at("/client"));

    client.rpc(&tokens.access_token, "tools/list", serde_json::json!({})).await.assert_status(401);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    client.redeem(&code).await.assert_error(400, "invalid_grant");
    let page = client.browser.get(&client.authorize_url(&[])).await;
    page.assert_page(403);
    assert!(page.text().contains("This application is blocked"));

    alice.press(&path, "action", "unblock").await.assert_leads_to(&alice.at("/client"));
    client.sign_in("bob").await;
}

#[tokio::test]
async fn an_approval_that_is_under_way_when_the_client_is_blocked_leads_nowhere() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let path = with_query("/client", &[("id", &client.id)]);
    let (_, form) = client.ask(&[]).await;
    let idp_url = client.approve(&[]).await;
    alice.press_and_confirm(&path, "action", "block").await.assert_leads_to(&alice.at("/client"));

    client.decide(&form, "approve").await.assert_page(403);
    let callback = client.log_in(&idp_url, "bob").await;
    client.browser.get(&callback).await.assert_page(403);
}

#[tokio::test]
async fn a_connection_ends_from_the_list() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let (other, kept) = app.tokens_of("alice").await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let path = with_query("/grants", &[("sub", "oidc:demo-bob")]);
    let page = alice.page("/grants").await;
    assert!(page.contains("Bob Brown") && page.contains("from 127.0.0.1"), "{page}");

    let answer = alice.press_and_confirm(&path, "action", "one").await;

    answer.assert_leads_to(&alice.at("/grants"));
    client.rpc(&tokens.access_token, "tools/list", serde_json::json!({})).await.assert_status(401);
    other.rpc(&kept.access_token, "tools/list", serde_json::json!({})).await.assert_status(200);
    assert!(!alice.page("/grants").await.contains("Bob Brown"));
    let ended = alice.page("/grants?ended=1").await;
    assert!(ended.contains("ended by an administrator"), "{ended}");

    let asked = alice.press_with("/grants", "action", "before", &[("day", "2026-11-22")]).await;
    let answer = alice.confirm(&asked, "action", "before").await;
    assert!(answer.location().ends_with("done=1"), "{}", answer.location());
    other.rpc(&kept.access_token, "tools/list", serde_json::json!({})).await.assert_status(401);
}

#[tokio::test]
async fn a_client_made_here_works_and_its_secret_is_shown_once() {
    let app = TestApp::start().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let fields = [("name", "Reports"), ("redirect_uris", "https://reports.example/cb")];
    let fields = [fields[0], fields[1], ("confidential", "1")];
    let page = alice.press_with("/clients/new", "action", "create", &fields).await;
    page.assert_page(200);
    let secret = regex_lite::Regex::new("cs_[A-Za-z0-9_-]{43}").unwrap();
    let secret = secret.find(page.text()).unwrap().as_str().to_owned();
    let id = regex_lite::Regex::new("client_[0-9a-f]{32}").unwrap();
    let id = id.find(page.text()).unwrap().as_str().to_owned();
    assert!(!alice.page(&with_query("/client", &[("id", &id)])).await.contains(&secret));

    let mut client = app.client().await;
    client.id = id;
    client.secret = Some(secret);
    client.redirect_uri = "https://reports.example/cb".to_owned();
    client.sign_in("bob").await;

    let bad = [("name", "Bad"), ("redirect_uris", "http://reports.example/cb")];
    let page = alice.press_with("/clients/new", "action", "create", &bad).await;
    page.assert_page(400);
    assert!(page.text().contains("http://reports.example/cb"), "what was typed is kept");
}

#[tokio::test]
async fn xs_01_hostile_names_stay_text_in_every_list() {
    let app = TestApp::start().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    for name in [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "</title><svg onload=alert(1)>",
        "{{7*7}}${7*7}",
        "'-alert(1)-'",
    ] {
        let metadata = serde_json::json!({
            "client_name": name,
            "redirect_uris": ["http://127.0.0.1:1/cb"],
            "token_endpoint_auth_method": "none",
        });
        let client = crate::harness::client::McpClient::register_as(&app, metadata).await;
        client.sign_in("bob").await;
        let path = with_query("/client", &[("id", &client.id)]);
        let person = "/person?sub=oidc%3Ademo-bob";
        for page in ["/", "/clients", "/grants", person, "/audit", path.as_str()] {
            let html = alice.page(page).await;
            assert!(!html.contains("<script"), "{page}: {html}");
            assert!(!html.contains("<img") && !html.contains("<svg onload"), "{page}");
        }
        let search = with_query("/clients", &[("q", name), ("after", name), ("standing", name)]);
        assert!(!alice.page(&search).await.contains("<script"));
    }
}

/// The names in a list of clients.
fn rows(page: &str) -> Vec<&str> {
    let rows = page.split("<a href=\"/client?id=").skip(1);
    rows.filter_map(|row| row.split_once("class=\"name\">")?.1.split('<').next()).collect()
}

#[tokio::test]
async fn clients_are_found_by_name_host_and_id_and_paged() {
    let app = TestApp::start().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let mut ids = Vec::new();
    for number in 0..60 {
        app.advance(1);
        let metadata = serde_json::json!({
            "client_name": format!("Robot {number:02}"),
            "redirect_uris": [format!("https://host{number:02}.example/cb")],
            "token_endpoint_auth_method": "none",
        });
        ids.push(crate::harness::client::McpClient::register_as(&app, metadata).await.id);
    }
    let next = regex_lite::Regex::new(r#"href="(/clients\?[^"]*after=[^"]*)""#).unwrap();
    for (path, first, last) in [
        ("/clients", "Robot 59", "Robot 00"),
        ("/clients?q=robot", "Robot 59", "Robot 00"),
        ("/clients?sort=name", "Robot 00", "Robot 59"),
        ("/clients?q=obo&sort=name", "Robot 00", "Robot 59"),
        ("/clients?sort=last-use", "Robot 59", "Robot 00"),
    ] {
        let page = alice.page(path).await;
        assert!(page.contains(first) && !page.contains(last), "{path}");
        let link = crate::harness::browser::unescape(&next.captures(&page).unwrap()[1]);
        let second = alice.page(&link).await;
        assert!(second.contains(last) && !second.contains(first), "{link}");
        assert!(!second.contains("rel=\"next\""), "there is no third page");
        let back = next.captures(&second).unwrap()[1].to_owned();
        let back = alice.page(&crate::harness::browser::unescape(&back)).await;
        assert_eq!(rows(&back), rows(&page), "{path}");
        assert!(!back.contains("rel=\"prev\""), "there is no page before the first");
    }
    let by_host = alice.page("/clients?q=HOST07").await;
    assert!(by_host.contains("Robot 07") && !by_host.contains("Robot 08"));
    let by_id = alice.page(&with_query("/clients", &[("q", &ids[3])])).await;
    assert!(by_id.contains("Robot 03") && !by_id.contains("Robot 04"));
    let nothing = alice.page("/clients?q=nothing").await;
    assert!(nothing.contains("No clients match “<bdi>nothing</bdi>”"), "{nothing}");
    assert!(nothing.contains("href=\"/clients\">Clear</a>"), "{nothing}");
}

#[tokio::test]
async fn a_search_looks_at_so_many_clients_and_leads_on() {
    let app = TestApp::with(Setup::toml("[limits]\nclients_searched = 8")).await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    for number in 0..30 {
        app.advance(1);
        let metadata = serde_json::json!({
            "client_name": format!("Robot {number:02}"),
            "redirect_uris": [format!("https://host{number:02}.example/cb")],
            "token_endpoint_auth_method": "none",
        });
        crate::harness::client::McpClient::register_as(&app, metadata).await;
    }
    let next = regex_lite::Regex::new(r#"rel="next" href="([^"]*)""#).unwrap();
    let previous = regex_lite::Regex::new(r#"rel="prev" href="([^"]*)""#).unwrap();
    let link = |link: &regex_lite::Regex, page: &str| {
        link.captures(page).map(|found| crate::harness::browser::unescape(&found[1]))
    };
    // A part that no name begins with: page by page, until it is found.
    let mut page = alice.page("/clients?q=obot+07").await;
    let mut pages = 1;
    while rows(&page).is_empty() {
        assert!(page.contains("Each page of this search looks at 8 clients."), "{page}");
        page = alice.page(&link(&next, &page).unwrap()).await;
        pages += 1;
    }
    assert_eq!((rows(&page), pages), (vec!["Robot 07"], 3));
    for (order, note, in_order) in [
        ("newest", "Each page of this search looks at 8 clients.", ["Robot 29", "Robot 22"]),
        ("last-use", "Only the newest 8 clients were searched", ["Robot 29", "Robot 22"]),
        ("name", "Only the newest 8 clients were searched", ["Robot 22", "Robot 29"]),
    ] {
        // What begins with the text is found at once, wherever it is.
        let found = alice.page(&format!("/clients?q=robot+07&sort={order}")).await;
        assert_eq!(rows(&found), ["Robot 07"], "{order}");
        assert!(found.contains(note), "{order}: {found}");
        let found = alice.page(&format!("/clients?q=obot+2&sort={order}")).await;
        let names = rows(&found);
        assert_eq!((names.len(), [names[0], names[7]]), (8, in_order), "{order}");
        assert!(found.contains(note), "{order}: {found}");
    }
    // A page that found nothing leads back to the beginning, and the last one does not lead on.
    let first = alice.page("/clients?q=host03").await;
    let second = alice.page(&link(&next, &first).unwrap()).await;
    assert_eq!(
        link(&previous, &second).as_deref(),
        Some("/clients?q=host03&standing=&sort=newest")
    );
    let third = alice.page(&link(&next, &second).unwrap()).await;
    let last = alice.page(&link(&next, &third).unwrap()).await;
    assert_eq!((rows(&last), link(&next, &last)), (vec!["Robot 03"], None));
    // Everything that matches is on one page, and the way back leads over the same rows.
    let mut page = alice.page("/clients?q=obot+1").await;
    let (mut forth, mut back) = (Vec::new(), Vec::new());
    let mut last = String::new();
    loop {
        forth.extend(rows(&page).into_iter().map(str::to_owned));
        if !rows(&page).is_empty() {
            last.clone_from(&page);
        }
        let Some(on) = link(&next, &page) else { break };
        page = alice.page(&on).await;
    }
    let names: Vec<String> = (10..20).rev().map(|number| format!("Robot {number}")).collect();
    assert_eq!(forth, names);
    while !rows(&last).is_empty() {
        back.splice(0..0, rows(&last).into_iter().map(str::to_owned));
        let to = link(&previous, &last).unwrap();
        last = alice.page(&to).await;
    }
    assert_eq!(back, names);
}

/// A sign-in that waits for the identity provider's token endpoint: its callback, under way.
async fn under_way(
    app: &TestApp,
    client: &crate::harness::client::McpClient,
    person: &str,
) -> tokio::task::JoinHandle<crate::harness::http::Answer> {
    let idp_url = client.approve(&[]).await;
    let callback = client.log_in(&idp_url, person).await;
    app.idp.token_gate().close();
    let before = app.idp.requests_to("/token");
    let browser = client.browser.clone();
    let answer = tokio::spawn(async move { browser.get(&callback).await });
    while app.idp.requests_to("/token") == before {
        tokio::task::yield_now().await;
    }
    answer
}

#[tokio::test]
async fn a_client_blocked_while_somebody_signs_in_gets_nothing() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let answer = under_way(&app, &client, "bob").await;

    let path = with_query("/client", &[("id", &client.id)]);
    alice.press_and_confirm(&path, "action", "block").await.assert_leads_to(&alice.at("/client"));
    app.idp.token_gate().open();

    let page = answer.await.unwrap();
    page.assert_page(403);
    assert!(page.text().contains("This application is blocked"));
    assert_eq!(app.database.number("SELECT COUNT(*) FROM authorization_codes").await, 0);
}

#[tokio::test]
async fn a_person_blocked_while_they_sign_in_gets_nothing() {
    let app = TestApp::start().await;
    let client = app.client().await;
    client.sign_in("bob").await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let answer = under_way(&app, &client, "bob").await;

    let path = with_query("/person", &[("sub", "oidc:demo-bob")]);
    alice.press_and_confirm(&path, "action", "block").await.assert_leads_to(&alice.at("/person"));
    app.idp.token_gate().open();

    let page = answer.await.unwrap();
    page.assert_page(403);
    assert!(page.text().contains("Your access is blocked"));
    assert_eq!(app.database.number("SELECT COUNT(*) FROM authorization_codes").await, 1);
    let alive =
        "SELECT COUNT(*) FROM upstream_sessions WHERE state = 'active' AND subject = 'demo-bob'";
    assert_eq!(app.database.number(alive).await, 0);
}

#[tokio::test]
async fn what_slipped_past_a_block_is_of_no_use() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let code = client.code("bob").await;
    // As if the block had come a moment too early for the step that ends grants.
    app.database
        .execute(&format!(
            "INSERT INTO client_reviews (client_id, state, trusted, blocked, changed_at, changed_by)
             VALUES ('{}', 'none', 0, 1, 0, 'x')",
            client.id
        ))
        .await;

    client.redeem(&code).await.assert_error(400, "invalid_grant");
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    app.storage().settle_audit().await.unwrap();
    let fresh = client.elsewhere();
    while fresh.rpc(&tokens.access_token, "tools/list", serde_json::json!({})).await.status != 401 {
        tokio::task::yield_now().await; // what is remembered of a grant is a second old at most
    }
}

#[tokio::test]
async fn deleting_a_blocked_client_does_not_let_it_in_again() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let path = with_query("/client", &[("id", &client.id)]);
    alice.press_and_confirm(&path, "action", "block").await.assert_leads_to(&alice.at("/client"));
    alice.press_and_confirm(&path, "action", "delete").await.assert_leads_to(&alice.at("/clients"));

    let blocked = "SELECT COUNT(*) FROM client_reviews WHERE blocked = 1";
    assert_eq!(app.database.number(blocked).await, 1);
}

#[tokio::test]
async fn a_client_that_changes_itself_under_the_administrators_eyes_is_not_trusted() {
    let app = TestApp::start().await;
    let metadata = serde_json::json!({
        "client_name": "Reports",
        "redirect_uris": ["https://reports.example/cb"],
        "token_endpoint_auth_method": "client_secret_basic",
    });
    let client = crate::harness::client::McpClient::register_as(&app, metadata).await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let path = with_query("/client", &[("id", &client.id)]);
    let page = alice.page(&path).await;
    let form = crate::harness::console::forms(&page, &alice.at(&path))
        .into_iter()
        .find(|(_, html)| html.contains("value=\"trust\""))
        .unwrap()
        .0;
    app.database
        .execute(
            "UPDATE clients SET metadata = REPLACE(metadata, 'reports.example', 'evil.example')",
        )
        .await;

    let fields = form.with(&[("action", "trust")]);
    let answer = alice.browser.post(&form.action, &fields, &alice.origin).await;

    assert!(answer.location().ends_with("done=changed"), "{}", answer.location());
    let trusted = "SELECT COUNT(*) FROM client_reviews WHERE trusted = 1";
    assert_eq!(app.database.number(trusted).await, 0);
    alice.press(&path, "action", "trust").await.assert_leads_to(&alice.at("/client"));
    assert_eq!(app.database.number(trusted).await, 1);
}
