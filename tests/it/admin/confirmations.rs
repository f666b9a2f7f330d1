//! Nothing ends, blocks or deletes more than one thing without a page that says how many, and whose.

use futures_util::future::join_all;

use crate::harness::TestApp;
use crate::harness::browser::Form;
use crate::harness::client::{McpClient, Tokens};
use crate::harness::console::{Console, forms, with_query};

const BOB: &str = "/person?sub=oidc%3Ademo-bob";
const LIVE: &str = "SELECT COUNT(*) FROM grants WHERE revoked_at IS NULL";

async fn admin(app: &TestApp) -> Console {
    Console::admin(app).signed_in(app, "alice").await
}

/// Two connections of bob and one of alice, of the same client.
async fn connected(app: &TestApp) -> (McpClient, Tokens) {
    let client = app.client_named("Robot").await;
    let tokens = client.sign_in("bob").await;
    client.elsewhere().sign_in("bob").await;
    client.elsewhere().sign_in("alice").await;
    (client, tokens)
}

/// Everything that ends more than one thing: where its button is, what it is called, how many connections
/// it ends, and what proves that it was done.
fn acts(client: &McpClient) -> Vec<(String, &'static str, u64, &'static str)> {
    let of_client = with_query("/client", &[("id", &client.id)]);
    let blocked = "SELECT COUNT(*) FROM client_reviews WHERE blocked = 1";
    vec![
        (of_client.clone(), "block", 3, blocked),
        (
            of_client.clone(),
            "end",
            3,
            "SELECT COUNT(*) FROM audit_events WHERE event = 'grants_revoked'",
        ),
        (
            of_client,
            "delete",
            3,
            "SELECT COUNT(*) FROM audit_events WHERE event = 'client_deleted'",
        ),
        (
            BOB.to_owned(),
            "end",
            2,
            "SELECT COUNT(*) FROM audit_events WHERE event = 'grants_revoked'",
        ),
        (
            BOB.to_owned(),
            "sign_out",
            2,
            "SELECT COUNT(*) FROM audit_events WHERE event = 'person_signed_out'",
        ),
        (BOB.to_owned(), "block", 2, "SELECT COUNT(*) FROM people WHERE blocked_at IS NOT NULL"),
    ]
}

#[tokio::test]
async fn nothing_ends_more_than_one_thing_without_a_count() {
    for number in 0..6 {
        let app = TestApp::start().await;
        let (client, _) = connected(&app).await;
        let alice = admin(&app).await;
        let (path, action, count, done) = acts(&client).swap_remove(number);

        let asked = alice.press(&path, "action", action).await;

        asked.assert_leads_to(&alice.at("/confirm"));
        let between = asked.location().strip_prefix(&alice.origin).unwrap().to_owned();
        let page = alice.page(&between).await;
        assert!(
            page.contains(&format!("<strong>{count} connections</strong>")),
            "{action}: {page}"
        );
        for concerned in ["Bob Brown", "Robot"] {
            assert!(page.contains(concerned), "{action}: {concerned} is missing: {page}");
        }
        assert_eq!(page.contains(">Alice Adams</bdi></a>"), count == 3, "{action}: {page}");
        assert!(!page.contains("<script"));
        assert_eq!(app.database.number(LIVE).await, 3, "{action} waits for an answer");
        assert_eq!(app.database.number(done).await, 0, "{action} waits for an answer");

        let answer = alice.press(&between, "action", action).await;

        assert!(answer.location().contains("done="), "{action}: {}", answer.location());
        let left = 3 - i64::try_from(count).unwrap();
        assert_eq!(app.database.number(LIVE).await, left, "{action}");
        assert_eq!(app.database.number(done).await, 1, "{action}");
    }
}

#[tokio::test]
async fn everything_given_before_a_day_is_counted_first() {
    let app = TestApp::start().await;
    connected(&app).await;
    app.advance(24 * 3600);
    let (client, kept) = app.tokens_of("bob").await;
    let alice = admin(&app).await;

    let day = [("day", "2026-11-22")];
    let asked = alice.press_with("/grants", "action", "before", &day).await;

    let between = asked.location().strip_prefix(&alice.origin).unwrap().to_owned();
    let page = alice.page(&between).await;
    assert!(page.contains("<strong>3 connections</strong>"), "{page}");
    assert!(page.contains("2 people") && page.contains("1 client"), "{page}");
    assert!(page.contains("2026-11-22 00:00 UTC"), "{page}");
    assert_eq!(app.database.number(LIVE).await, 4);
    let answer = alice.press(&between, "action", "before").await;
    assert!(answer.location().ends_with("done=3"), "{}", answer.location());
    assert_eq!(app.database.number(LIVE).await, 1);
    client.rpc(&kept.access_token, "tools/list", serde_json::json!({})).await.assert_status(200);

    let asked = alice.press_with("/grants", "action", "before", &day).await;
    let between = asked.location().strip_prefix(&alice.origin).unwrap().to_owned();
    let page = alice.page(&between).await;
    assert!(page.contains("No connection") && !page.contains("value=\"before\""), "{page}");
    let asked = alice.press_with("/grants", "action", "before", &[("day", "soon")]).await;
    assert!(asked.location().ends_with("done=not_a_day"), "{}", asked.location());
}

#[tokio::test]
async fn when_the_number_has_changed_meanwhile_the_question_is_asked_again() {
    for number in 0..6 {
        let app = TestApp::start().await;
        let (client, _) = connected(&app).await;
        let alice = admin(&app).await;
        let (path, action, count, done) = acts(&client).swap_remove(number);
        let asked = alice.press(&path, "action", action).await;
        let between = asked.location().strip_prefix(&alice.origin).unwrap().to_owned();
        let page = alice.page(&between).await;
        let (form, _) = forms(&page, &alice.at(&between))
            .into_iter()
            .find(|(_, html)| html.contains(&format!("value=\"{action}\"")))
            .unwrap();
        // One ends and another begins: the same number, and not the same connections.
        app.advance(1);
        client.elsewhere().sign_in("bob").await;
        app.database
            .execute(
                "UPDATE grants SET revoked_at = 1, end_reason = 'x' WHERE id =
                 (SELECT MIN(id) FROM grants WHERE subject = 'oidc:demo-bob')",
            )
            .await;

        let answer = alice
            .browser
            .post(&form.action, &form.with(&[("action", action)]), &alice.origin)
            .await;

        answer.assert_leads_to(&alice.at("/confirm"));
        assert_eq!(app.database.number(LIVE).await, 3, "{action}");
        assert_eq!(app.database.number(done).await, 0, "{action}");
        let again = answer.location().strip_prefix(&alice.origin).unwrap().to_owned();
        let page = alice.page(&again).await;
        assert!(page.contains("has changed since"), "{page}");
        assert!(
            page.contains(&format!("<strong>{count} connections</strong>")),
            "{action}: {page}"
        );
        let answer = alice.press(&again, "action", action).await;
        assert!(answer.location().contains("done="), "{}", answer.location());
        assert_eq!(app.database.number(done).await, 1, "{action}");
    }
}

#[tokio::test]
async fn an_answer_holds_for_its_own_question_and_session() {
    let app = TestApp::start().await;
    let (client, _) = connected(&app).await;
    let alice = admin(&app).await;
    let path = with_query("/client", &[("id", &client.id)]);
    let asked = alice.press(&path, "action", "end").await;
    let between = asked.location().strip_prefix(&alice.origin).unwrap().to_owned();
    let page = alice.page(&between).await;
    let (form, _) = forms(&page, &alice.at(&between))
        .into_iter()
        .find(|(_, html)| html.contains("value=\"end\""))
        .unwrap();
    let token = form.fields.iter().find(|(name, _)| name == "counted").unwrap().1.clone();
    let post = async |console: &Console, to: &str, fields: &[(&str, &str)]| {
        let csrf = console.csrf().await;
        let fields = [&[("csrf", csrf.as_str()), ("counted", token.as_str())], fields].concat();
        let answer = console.post(to, &fields).await;
        answer.assert_leads_to(&console.at("/confirm"));
    };
    let id = client.id.as_str();
    post(&alice, "/client", &[("id", id), ("action", "block")]).await;
    post(&alice, "/client", &[("id", id), ("action", "delete")]).await;
    post(&alice, "/person", &[("sub", "oidc:demo-bob"), ("action", "end")]).await;
    post(&alice, "/grant", &[("day", "2026-11-22"), ("action", "before")]).await;
    let elsewhere = admin(&app).await;
    post(&elsewhere, "/client", &[("id", id), ("action", "end")]).await;
    for made_up in ["", "x", "3", "yes"] {
        let csrf = alice.csrf().await;
        let fields = [("csrf", csrf.as_str()), ("id", id), ("action", "end"), ("counted", made_up)];
        alice.post("/client", &fields).await.assert_leads_to(&alice.at("/confirm"));
    }
    assert_eq!(app.database.number(LIVE).await, 3);
    let fields = form.with(&[("action", "end")]);
    let answer = alice.browser.post(&form.action, &fields, &alice.origin).await;
    assert!(answer.location().contains("done=end"), "{}", answer.location());
    assert_eq!(app.database.number(LIVE).await, 0);
}

#[tokio::test]
async fn of_a_hundred_answers_at_once_one_ends_what_was_counted() {
    let app = TestApp::start().await;
    connected(&app).await;
    let alice = admin(&app).await;
    let asked = alice.press(BOB, "action", "end").await;
    let between = asked.location().strip_prefix(&alice.origin).unwrap().to_owned();
    let page = alice.page(&between).await;
    let (form, _) = forms(&page, &alice.at(&between))
        .into_iter()
        .find(|(_, html)| html.contains("value=\"end\""))
        .unwrap();
    let fields = form.with(&[("action", "end")]);
    let answers =
        join_all((0..100).map(|_| alice.browser.post(&form.action, &fields, &alice.origin))).await;

    let done = answers.iter().filter(|answer| answer.location().contains("done=end")).count();
    assert_eq!(done, 1);
    let told = "SELECT COUNT(*) FROM audit_events WHERE event = 'grants_revoked'";
    assert_eq!(app.database.number(told).await, 1);
    assert_eq!(app.database.number(LIVE).await, 1);
}

#[tokio::test]
async fn the_page_in_between_is_for_those_who_may_do_it_and_for_what_there_is() {
    let setup = crate::harness::Setup::toml("[admin.read_only]\nroles = [\"User\"]\n");
    let app = TestApp::with(setup).await;
    let (client, _) = connected(&app).await;
    let path = with_query("/confirm", &[("act", "block_client"), ("id", &client.id)]);
    let stranger = Console::admin(&app);
    stranger.get(&path).await.assert_page(401);
    let bob = Console::admin(&app).signed_in(&app, "bob").await;
    bob.get(&path).await.assert_page(403);
    let alice = admin(&app).await;
    assert!(alice.page(&path).await.contains("<strong>3 connections</strong>"));
    for missing in [
        "/confirm",
        "/confirm?act=block_client&id=nobody",
        "/confirm?act=block_person&sub=nobody",
        "/confirm?act=explode&id=x",
        "/confirm?act=before&day=soon",
        "/confirm?act=block_person&sub=oidc%3Ademo-alice",
    ] {
        alice.get(missing).await.assert_page(404);
    }
    let ja = [("accept", "text/html"), ("accept-language", "ja")];
    let page = alice.browser.send("GET", &alice.at(&path), &ja, "").await;
    assert!(page.text().contains("<strong>3件の接続</strong>"), "{}", page.text());
}

#[tokio::test]
async fn a_person_sees_what_signing_out_everywhere_ends_before_it_does() {
    let app = TestApp::start().await;
    connected(&app).await;
    let bob = Console::account(&app).signed_in(&app, "bob").await;

    let asked = bob.press("/account", "action", "everywhere").await;

    asked.assert_leads_to(&app.at("/account/confirm"));
    let page = bob.page("/account/confirm").await;
    assert!(page.contains("<strong>2 connections</strong>"), "{page}");
    assert!(page.contains("Robot") && !page.contains("Alice Adams"), "{page}");
    assert_eq!(app.database.number(LIVE).await, 3);
    // One more is connected meanwhile.
    let form = Form::in_html(
        &forms(&page, &app.at("/account/confirm"))
            .into_iter()
            .find(|(_, html)| html.contains("value=\"everywhere\""))
            .unwrap()
            .1,
        &app.at("/account/confirm"),
    );
    app.tokens_of("bob").await;
    let fields = form.with(&[("action", "everywhere")]);
    let again = bob.browser.post(&form.action, &fields, &bob.origin).await;
    again.assert_leads_to(&app.at("/account/confirm"));
    assert_eq!(app.database.number(LIVE).await, 4);
    let answer = bob.confirm(&again, "action", "everywhere").await;
    answer.assert_leads_to(&format!("{}/end_session?", app.idp.issuer()));
    assert_eq!(app.database.number(LIVE).await, 1, "alice's");
    Console::account(&app).get("/account/confirm").await.assert_page(401);
}

/// A page that asks, its form, and the path of both.
async fn asked(alice: &Console, path: &str, action: &str, set: &[(&str, &str)]) -> (String, Form) {
    let asked = alice.press_with(path, "action", action, set).await;
    asked.assert_leads_to(&alice.at("/confirm"));
    let between = asked.location().strip_prefix(&alice.origin).unwrap().to_owned();
    let page = alice.page(&between).await;
    let (form, _) = forms(&page, &alice.at(&between))
        .into_iter()
        .find(|(_, html)| html.contains(&format!("value=\"{action}\"")))
        .unwrap();
    (page, form)
}

/// Bob's connection 127 times more.
async fn with_128_connections(app: &TestApp) {
    app.tokens_of("bob").await;
    let copies: Vec<String> =
        (0..127).map(|number| format!("SELECT '{number:032x}' AS id")).collect();
    let copy = format!(
        "INSERT INTO grants (id, client_id, session_id, subject, resource, consented_scopes,
                             created_at, expires_at, last_used_at)
         SELECT copies.id, g.client_id, g.session_id, g.subject, g.resource, g.consented_scopes,
                g.created_at, g.expires_at, g.last_used_at
         FROM grants g CROSS JOIN ({}) AS copies",
        copies.join(" UNION ALL ")
    );
    app.database.execute(&copy).await;
    assert_eq!(app.database.number(LIVE).await, 128);
}

async fn details(app: &TestApp, event: &str) -> Vec<serde_json::Value> {
    use portcullis::storage::AuditFilter;
    let filter = AuditFilter { event: event.to_owned(), ..AuditFilter::default() };
    let lines = app.storage().audit_lines(&filter, 100).await.unwrap();
    lines.iter().map(|line| serde_json::from_str(&line.detail).unwrap()).collect()
}

#[tokio::test]
async fn a_bulk_act_needs_its_number_typed_and_a_reason() {
    let app = TestApp::start().await;
    with_128_connections(&app).await;
    let alice = admin(&app).await;

    let day = [("day", "2026-11-22")];
    let (page, form) = asked(&alice, "/grants", "before", &day).await;

    assert!(page.contains("<strong>128 connections</strong>"), "{page}");
    assert!(page.contains("Bob Brown") && page.contains("78 more are not shown"), "{page}");
    assert!(page.contains("Type <strong>128</strong> to confirm"), "{page}");
    for (typed, reason, problem) in [
        ("", "INC-17", "the number that you typed"),
        ("127", "INC-17", "the number that you typed"),
        ("yes", "INC-17", "the number that you typed"),
        ("128", "", "write a reason"),
        ("128", "  ", "write a reason"),
    ] {
        let fields = form.with(&[("action", "before"), ("typed", typed), ("reason", reason)]);
        let answer = alice.browser.post(&form.action, &fields, &alice.origin).await;
        answer.assert_page(400);
        assert!(answer.text().contains(problem), "{typed:?} {reason:?}: {}", answer.text());
        assert!(
            answer.text().contains(&format!("value=\"{}\"", reason.trim())),
            "what was written stays"
        );
        assert_eq!(app.database.number(LIVE).await, 128, "{typed:?} {reason:?}");
    }

    let fields = form.with(&[("action", "before"), ("typed", "128"), ("reason", "INC-17\nx")]);
    let answer = alice.browser.post(&form.action, &fields, &alice.origin).await;

    assert!(answer.location().ends_with("done=128"), "{}", answer.location());
    assert_eq!(app.database.number(LIVE).await, 0);
    assert_eq!(details(&app, "grants_revoked").await[0]["reason"], "INC-17 x");
}

#[tokio::test]
async fn one_connection_ends_after_a_page_and_the_reason_is_in_the_audit_trail() {
    let app = TestApp::start().await;
    app.tokens_of("bob").await;
    let alice = admin(&app).await;
    for (path, back) in [("/grants", "/grants"), (BOB, "/person?sub=oidc%3Ademo-bob")] {
        let (page, form) = asked(&alice, path, "one", &[]).await;
        assert!(page.contains("<strong>1 connection</strong>"), "{page}");
        assert!(page.contains("Bob Brown") && page.contains("Test client"), "{page}");
        assert!(page.contains(&format!("class=\"button\" href=\"{back}\"")), "{page}");
        assert_eq!(app.database.number(LIVE).await, 1, "it waits for an answer");

        let fields = form.with(&[("action", "one"), ("reason", "OPS-4")]);
        let answer = alice.browser.post(&form.action, &fields, &alice.origin).await;

        answer.assert_leads_to(&alice.at(back));
        assert_eq!(app.database.number(LIVE).await, 0);
        let told = details(&app, "grant_revoked").await;
        assert_eq!(told[0]["reason"], "OPS-4");
        // Once more: the page says that there is nothing to end.
        let again = alice.browser.post(&form.action, &fields, &alice.origin).await;
        let again = again.location().strip_prefix(&alice.origin).unwrap().to_owned();
        assert!(alice.page(&again).await.contains("has ended already"));
        assert_eq!(details(&app, "grant_revoked").await.len(), told.len());
        app.tokens_of("bob").await;
    }
    let story = "SELECT COUNT(*) FROM audit_events WHERE event = 'grant_revoked'
                 AND subject = 'oidc:demo-bob' AND client_id IS NOT NULL AND resource IS NOT NULL
                 AND grant_id IS NOT NULL";
    assert_eq!(app.database.number(story).await, 2);
}

#[tokio::test]
async fn when_the_client_has_changed_meanwhile_the_question_is_asked_again() {
    for action in ["block", "end", "delete"] {
        let app = TestApp::start().await;
        let (client, _) = connected(&app).await;
        let alice = admin(&app).await;
        let path = with_query("/client", &[("id", &client.id)]);
        let (_, form) = asked(&alice, &path, action, &[]).await;
        app.database
            .execute("UPDATE clients SET metadata = REPLACE(metadata, 'Robot', 'Reports')")
            .await;

        let fields = form.with(&[("action", action)]);
        let answer = alice.browser.post(&form.action, &fields, &alice.origin).await;

        answer.assert_leads_to(&alice.at("/confirm"));
        assert_eq!(app.database.number(LIVE).await, 3, "{action}");
        let again = answer.location().strip_prefix(&alice.origin).unwrap().to_owned();
        let page = alice.page(&again).await;
        assert!(page.contains("has changed since") && page.contains("Reports"), "{page}");
        let answer = alice.press(&again, "action", action).await;
        assert!(answer.location().contains("done="), "{}", answer.location());
        assert_eq!(app.database.number(LIVE).await, 0, "{action}");
    }
}

#[tokio::test]
async fn a_stale_sign_in_is_one_way_and_no_second_surprise() {
    let app = TestApp::start().await;
    let (client, _) = connected(&app).await;
    let alice = admin(&app).await;
    let path = with_query("/client", &[("id", &client.id)]);
    app.advance(11 * 60);

    // The sign-in comes first and leads to the page, which then asks for nothing else.
    let asked = alice.press(&path, "action", "end").await;
    asked.assert_page(401);
    let form = Form::of(&asked, &alice.at("/client"));
    let back = alice.pass_provider(&app, &form, "alice").await;
    back.assert_leads_to(&alice.at("/confirm"));
    let between = back.location().strip_prefix(&alice.origin).unwrap().to_owned();
    assert!(!alice.page(&between).await.contains("asked to sign in again"));
    let answer = alice.press(&between, "action", "end").await;
    assert!(answer.location().contains("done=end"), "{}", answer.location());
    assert_eq!(app.database.number(LIVE).await, 0);

    // Somebody who opens the page with an older sign-in reads that one comes first.
    app.advance(11 * 60);
    let path = with_query("/confirm", &[("act", "block_client"), ("id", &client.id)]);
    assert!(alice.page(&path).await.contains("asked to sign in again"));
}
