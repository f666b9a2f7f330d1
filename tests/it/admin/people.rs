//! `/people` and `/person`: finding somebody, seeing what they may do and why, cutting them off.

use serde_json::json;

use crate::harness::TestApp;
use crate::harness::console::{Console, with_query};

const BOB: &str = "/person?sub=oidc%3Ademo-bob";

async fn admin(app: &TestApp) -> Console {
    Console::admin(app).signed_in(app, "alice").await
}

#[tokio::test]
async fn people_are_found_by_full_names_words_and_their_beginnings() {
    let app = TestApp::start().await;
    let alice = admin(&app).await;
    for name in
        ["Hana Dubois", "Hana Ito", "Hanako O'Neil-Dubois", "Li Wu", "山田 太郎", "Émile Zola"]
    {
        app.idp.set_name("bob", name);
        app.tokens_of("bob").await;
        let found = async |search: &str| {
            let page = alice.page(&with_query("/people", &[("q", search)])).await;
            !page.contains("No people match") && page.contains("demo-bob")
        };
        let by: &[(&str, &[&str], &[&str])] = &[
            (
                "Hana Dubois",
                &["Hana Dubois", "dubois  HANA", "han", "dub", "han dub", "hana", " Hana  Dubois "],
                &["ha", "hana ito", "ana", "hanad", "han ito"],
            ),
            ("Hana Ito", &["hana ito", "ito"], &["it", "han it", "hana dubois"]),
            (
                "Hanako O'Neil-Dubois",
                &["hana", "o'neil-dubois", "o'n", "neil", "dubois", "han dub"],
                &["o'", "neild"],
            ),
            ("Li Wu", &["li wu", "li", "wu"], &["l", "w"]),
            ("山田 太郎", &["山田", "山", "太郎", "山田 太郎"], &["田", "郎"]),
            ("Émile Zola", &["émi", "ÉMILE", "zol émile"], &["emi", "ola"]),
        ];
        let (_, yes, no) = by.iter().find(|(known, ..)| *known == name).unwrap();
        for search in *yes {
            assert!(found(search).await, "{search} does not find {name}");
        }
        for search in *no {
            assert!(!found(search).await, "{search} finds {name}");
        }
    }
    // Whoever has another name now is not found by the one before.
    let page = alice.page(&with_query("/people", &[("q", "hana")])).await;
    assert!(page.contains("No people match"), "{page}");
}

#[tokio::test]
async fn the_list_counts_connections_that_are_neither_ended_nor_expired() {
    let app = TestApp::start().await;
    let alice = admin(&app).await;
    for _ in 0..3 {
        app.tokens_of("bob").await; // a client of its own each time
    }
    let listed = async || {
        let page = alice.page("/people?q=bob").await;
        let number = page.split("<td class=\"num\" data-label=\"Connections\">").nth(1).unwrap();
        number.split('<').next().unwrap().parse::<i64>().unwrap()
    };
    assert_eq!(listed().await, 3);
    let first = "WHERE id = (SELECT MIN(id) FROM grants)";
    app.database.execute(&format!("UPDATE grants SET expires_at = 1 {first}")).await;
    assert_eq!(listed().await, 2);
    let last = "WHERE id = (SELECT MAX(id) FROM grants)";
    app.database.execute(&format!("UPDATE grants SET revoked_at = 1 {last}")).await;
    assert_eq!(listed().await, 1);
}

#[tokio::test]
async fn a_name_without_end_is_indexed_within_bounds() {
    let app = TestApp::start().await;
    let alice = admin(&app).await;
    let name = (0..12).map(|n| format!("w{n:02}-{}", "x".repeat(16))).collect::<Vec<_>>().join(" ");
    app.idp.set_name("bob", &name);
    app.tokens_of("bob").await;
    let words = "SELECT COUNT(*) FROM people_words WHERE subject = 'oidc:demo-bob'";
    let words = app.database.number(words).await;
    assert!((100..=250).contains(&words), "{words}");
    assert!(alice.page("/people?q=w00").await.contains("demo-bob"));
    let many = vec!["han"; 200].join(" ");
    alice.page(&with_query("/people", &[("q", &many)])).await;
}

#[tokio::test]
async fn people_are_found_by_a_word_of_the_name_the_address_and_the_subject() {
    let app = TestApp::start().await;
    app.tokens_of("bob").await;
    let alice = admin(&app).await;
    for search in ["bob", "BROWN", "bob@example.com", "oidc:demo-bob"] {
        let page = alice.page(&with_query("/people", &[("q", search)])).await;
        assert!(page.contains("Bob Brown") && !page.contains("demo-alice"), "{search}: {page}");
    }
    for search in ["bo", "example.com", "oidc:demo", "' OR 1=1 --"] {
        let page = alice.page(&with_query("/people", &[("q", search)])).await;
        assert!(page.contains("No people match"), "{search}");
    }
    let all = alice.page("/people").await;
    assert!(all.contains("Bob Brown") && all.contains("demo-alice"));
}

#[tokio::test]
async fn people_are_paged() {
    let app = TestApp::start().await;
    let alice = admin(&app).await;
    for number in 0..60 {
        let sql = format!(
            "INSERT INTO people (subject, upstream, issuer, upstream_subject, first_seen_at, last_seen_at)
             VALUES ('oidc:p{number:02}', 'oidc', 'x', 'p{number:02}', 1000, {})",
            1000 + number / 7 // several at the same moment
        );
        app.database.execute(&sql).await;
    }
    let next = regex_lite::Regex::new(r#"rel="next" href="(/people\?[^"]*after=[^"]*)""#).unwrap();
    let previous = regex_lite::Regex::new(r#"rel="prev" href="([^"]*)""#).unwrap();
    let subject = regex_lite::Regex::new("oidc:p[0-9]{2}").unwrap();
    let subjects = |page: &str| {
        let found = subject.find_iter(page).map(|found| found.as_str().to_owned());
        found.collect::<std::collections::BTreeSet<String>>()
    };

    let first = alice.page("/people").await;
    let link = crate::harness::browser::unescape(&next.captures(&first).unwrap()[1]);
    let second = alice.page(&link).await;

    assert!(!next.is_match(&second) && !previous.is_match(&first));
    let link = crate::harness::browser::unescape(&previous.captures(&second).unwrap()[1]);
    let back = alice.page(&link).await;
    assert_eq!(subjects(&back), subjects(&first));
    assert!(back.contains("demo-alice") && !previous.is_match(&back), "{back}");
    assert!(first.contains("<strong>61</strong> people"), "{first}");
    let (first, last) = (subjects(&first), subjects(&second));
    assert_eq!((first.len(), last.len()), (49, 11), "alice is first of all");
    assert!(first.is_disjoint(&last));

    let turned = regex_lite::Regex::new(r#"<a href="([^"]*)">Last sign-in"#).unwrap();
    let link = crate::harness::browser::unescape(&turned.captures(&second).unwrap()[1]);
    let oldest = alice.page(&link).await;
    assert!(oldest.contains("aria-sort=\"ascending\""), "{oldest}");
    assert!(subjects(&oldest).contains("oidc:p00") && !oldest.contains("oidc:demo-alice</code>"));
    let link = crate::harness::browser::unescape(&next.captures(&oldest).unwrap()[1]);
    let newest = alice.page(&link).await;
    assert!(newest.contains("oidc:demo-alice</code>") && !next.is_match(&newest), "{newest}");
    let all = subjects(&oldest).union(&subjects(&newest)).count();
    assert_eq!(all, 60);
    assert_eq!(subjects(&newest).len() + subjects(&oldest).len(), 60);
}

#[tokio::test]
async fn people_are_found_by_the_id_at_the_provider_and_by_their_address_before_the_at() {
    let app = TestApp::start().await;
    app.idp.set_name("bob", "Robert Brown");
    app.tokens_of("bob").await;
    let alice = admin(&app).await;
    for search in ["demo-bob", "bob", "Brown, Robert", "Robert Brown <bob@example.com>", "DEMO-BOB"]
    {
        let page = alice.page(&with_query("/people", &[("q", search)])).await;
        assert!(page.contains("<strong>1</strong> person"), "{search}: {page}");
        assert!(page.contains("Robert Brown"), "{search}: {page}");
    }
    for search in ["demo", "example", "Robert Adams", ",", "<>"] {
        let page = alice.page(&with_query("/people", &[("q", search)])).await;
        assert!(page.contains("No people match."), "{search}: {page}");
        assert!(page.contains("href=\"/people\""), "there is a way back to all: {page}");
    }
}

#[tokio::test]
async fn the_page_of_a_blocked_person_names_who_blocked_them() {
    let app = TestApp::start().await;
    app.tokens_of("bob").await;
    let alice = admin(&app).await;
    alice.press_and_confirm(BOB, "action", "block").await.assert_leads_to(&alice.at("/person"));

    let page = alice.page(BOB).await;
    let by = r#"by <a href="/person?sub=oidc%3Ademo-alice"><bdi>Alice Adams</bdi></a>"#;
    assert!(page.contains(by), "{page}");

    alice.press(BOB, "action", "unblock").await.assert_leads_to(&alice.at("/person"));
    let event = app.audit_event("person_blocked");
    app.storage().block_person("oidc:demo-bob", "shell", app.now(), event).await.unwrap();
    let page = alice.page(BOB).await;
    assert!(page.contains("by an administrator (command line)"), "{page}");
}

#[tokio::test]
async fn the_page_of_a_person_says_why_in_words() {
    let app = TestApp::start().await;
    app.tokens_of("bob").await;
    let alice = admin(&app).await;
    assert!(alice.page(BOB).await.contains("Matching rules: rule 2"));
    app.idp.set_roles("bob", &[]);
    app.client_named("Elsewhere").await.authorize("bob", &[]).await.assert_page(403);
    app.advance(1); // the session that was confirmed last counts
    Console::account(&app).signed_in(&app, "bob").await;
    let page = alice.page(BOB).await;
    assert!(page.contains("No rule matches."), "{page}");
}

#[tokio::test]
async fn the_page_of_a_person_says_what_they_may_do_and_why() {
    let app = TestApp::start().await;
    app.tokens_of("bob").await;
    let alice = admin(&app).await;

    let page = alice.page(BOB).await;

    for text in [
        "Bob Brown",
        "oidc:demo-bob",
        "demo-bob",
        "bob@example.com",
        "User",
        "staff",
        "create:todos",
        "delete:todos read:todos",
        "rule 2",
        "Test client",
        "the demo identity provider",
    ] {
        assert!(page.contains(text), "{text} is missing: {page}");
    }
    assert!(!page.contains("rule 1"));

    let there = alice.page("/person?sub=oidc%3Ademo-alice").await;
    assert!(there.contains("admin pages") && there.contains("You cannot block yourself"));
    alice.get("/person?sub=oidc%3Anobody").await.assert_page(404);
}

#[tokio::test]
async fn the_sessions_of_a_person_are_shown_with_their_state() {
    let app = TestApp::start().await;
    app.tokens_of("bob").await;
    let alice = admin(&app).await;
    assert_eq!(alice.page(BOB).await.matches("tag good\">active").count(), 1);

    alice.press_and_confirm(BOB, "action", "sign_out").await.assert_leads_to(&alice.at("/person"));

    let page = alice.page(BOB).await;
    assert!(!page.contains("tag good\">active"), "{page}");
    assert!(page.contains("signed out by an administrator"), "{page}");
}

#[tokio::test]
async fn a_connection_ends_from_the_page_of_the_person() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let alice = admin(&app).await;

    let answer = alice.press_and_confirm(BOB, "action", "one").await;

    answer.assert_leads_to(&alice.at("/person?sub=oidc%3Ademo-bob"));
    client.rpc(&tokens.access_token, "tools/list", json!({})).await.assert_status(401);
    assert!(alice.page(BOB).await.contains("None at the moment"));
}

#[tokio::test]
async fn all_connections_of_one_person_end_and_nobody_elses() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let (other, others) = app.tokens_of("alice").await;
    let alice = admin(&app).await;

    alice.press_and_confirm(BOB, "action", "end").await.assert_leads_to(&alice.at("/person"));

    client.rpc(&tokens.access_token, "tools/list", json!({})).await.assert_status(401);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    other.rpc(&others.access_token, "tools/list", json!({})).await.assert_status(200);
    client.sign_in("bob").await;
}

#[tokio::test]
async fn whoever_is_blocked_is_out_at_once_and_stays_out_until_unblocked() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let code = client.code("bob").await;
    let alice = admin(&app).await;

    alice.press_and_confirm(BOB, "action", "block").await.assert_leads_to(&alice.at("/person"));

    client.rpc(&tokens.access_token, "tools/list", json!({})).await.assert_status(401);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    assert_ne!(client.redeem(&code).await.status, 200);
    let answer = client.authorize("bob", &[]).await;
    assert!(answer.status == 403 || answer.location_param("error").is_some());
    let blocked = alice.page("/people?blocked=1").await;
    assert!(blocked.contains("demo-bob") && !blocked.contains("demo-alice"));
    assert!(alice.page(BOB).await.contains("Blocked"));
    let told = alice.page("/audit?event=person_blocked").await;
    assert!(told.contains("admin oidc:demo-alice") && told.contains("oidc:demo-bob"));

    alice.press(BOB, "action", "unblock").await.assert_leads_to(&alice.at("/person"));
    client.sign_in("bob").await;
}

#[tokio::test]
async fn nobody_blocks_themselves() {
    let app = TestApp::start().await;
    let alice = admin(&app).await;
    let csrf = alice.csrf().await;
    let fields = [("csrf", csrf.as_str()), ("sub", "oidc:demo-alice"), ("action", "block")];

    let answer = alice.post("/person", &fields).await;

    assert!(answer.location().ends_with("done=not_yourself"), "{}", answer.location());
    alice.page("/").await;
}

#[tokio::test]
async fn cutting_a_person_off_wants_a_fresh_proof() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let alice = admin(&app).await;
    app.advance(9 * 60);
    let csrf = alice.csrf().await;
    app.advance(2 * 60);
    let tokens = crate::harness::client::Tokens::of(&client.refresh(&tokens.refresh_token).await);
    for action in ["block", "sign_out", "end"] {
        let fields = [("csrf", csrf.as_str()), ("sub", "oidc:demo-bob"), ("action", action)];
        alice.post("/person", &fields).await.assert_page(401);
    }
    alice.post("/keys", &[("csrf", &csrf), ("action", "rotate")]).await.assert_page(401);
    client.rpc(&tokens.access_token, "tools/list", json!({})).await.assert_status(200);
}

#[tokio::test]
async fn xs_01_hostile_names_of_people_stay_text_in_every_list() {
    let app = TestApp::start().await;
    let alice = admin(&app).await;
    for name in [
        "<script>alert(1)</script>",
        "\"><img src=x onerror=alert(1)>",
        "</title><svg onload=alert(1)>",
        "{{7*7}}${7*7}",
        "'-alert(1)-'",
    ] {
        app.advance(1); // the last sign-in is the last
        app.idp.set_name("bob", name);
        let client = app.client().await;
        client.sign_in("bob").await;
        let client = with_query("/client", &[("id", &client.id)]);
        let found = with_query("/people", &[("q", name), ("after", name)]);
        let tried = with_query(
            "/servers",
            &[("server", &app.mcp_url()), ("sub", "oidc:demo-bob"), ("client", name)],
        );
        for page in ["/people", "/grants", BOB, &client, &found, &tried] {
            let html = alice.page(page).await;
            assert!(!html.contains("<script"), "{page}: {html}");
            assert!(!html.contains("<img") && !html.contains("<svg onload"), "{page}");
        }
        assert!(alice.page(BOB).await.contains("alert(1)") || name.contains("7*7"));
    }
}
