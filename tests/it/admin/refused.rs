//! `/refused`: why the rules refused somebody, and what would let them in (threat AD-06).

use portcullis::oauth::scope::ScopeSet;
use portcullis::policy::Facts;
use portcullis::storage::{NewRefusal, Person, RefusedAt, Retention};
use serde_json::json;

use crate::harness::browser::unescape;
use crate::harness::console::{Console, with_query};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};

const MALLORY: &str = "oidc:demo-mallory";

/// Rules with every kind of condition that a person can fail.
const RULES: &str = r#"
[[resource]]
path   = "/mcp"
name   = "To-do list"
target = "{todo}"
scopes = ["read:todos", "create:todos", "delete:todos"]

[[resource.rule]]
name   = "owners"
roles  = ["owner"]
groups = ["staff"]
claim  = { "/org_id" = "org_1" }
allow  = ["read:todos", "create:todos", "delete:todos"]

[[resource.rule]]
roles = ["todo-reader"]
allow = ["read:todos"]

[[resource.rule]]
groups = ["writers"]
allow  = ["create:todos"]

[[resource.rule]]
groups = ["/contractors"]
deny   = ["delete:todos"]
"#;

async fn admin(app: &TestApp) -> Console {
    Console::admin(app).signed_in(app, "alice").await
}

/// Mallory tries to connect and is refused.
async fn refuse_mallory(app: &TestApp) -> Answer {
    app.client().await.authorize("mallory", &[]).await
}

fn path_of_mallory(app: &TestApp) -> String {
    with_query("/refused/person", &[("sub", MALLORY), ("server", &app.mcp_url())])
}

async fn page_of_mallory(app: &TestApp, console: &Console) -> String {
    unescape(&console.page(&path_of_mallory(app)).await)
}

#[track_caller]
fn assert_has(page: &str, texts: &[&str]) {
    for text in texts {
        assert!(page.contains(text), "{text} is missing: {page}");
    }
}

async fn rows(app: &TestApp) -> i64 {
    app.database.number("SELECT COUNT(*) FROM refused_people").await
}

#[tokio::test]
async fn two_clicks_from_the_overview_say_why_mallory_was_refused_and_what_would_let_her_in() {
    let app = TestApp::with(Setup::toml(RULES)).await;
    app.idp.set_groups("mallory", &["staff"]);
    refuse_mallory(&app).await;
    let alice = admin(&app).await;

    let overview = alice.page("/").await;
    assert!(overview.contains("href=\"/refused\""), "{overview}");
    let list = alice.page("/refused").await;
    assert_has(
        &list,
        &["Mallory Miller", "To-do list", "No rule matches", "groups: staff", "roles: none"],
    );
    let link = regex_lite::Regex::new(r#"href="(/refused/person\?[^"]+)""#).unwrap();
    let link = unescape(&link.captures(&list).unwrap()[1]);
    let page = unescape(&alice.page(&link).await);

    let sentence = regex_lite::Regex::new(concat!(
        "Give them the role todo-reader at the demo identity provider, ",
        "or add them to the group writers at the demo identity provider, ",
        r"or add their group staff to rule 3 \(test\.toml:\d+\)\.",
    ));
    assert!(sentence.unwrap().is_match(&page), "{page}");
    assert_has(&page, &["mallory@example.com", "<bdi>staff</bdi>", "at the sign-in", "/org_id"]);
    // The rules, one by one, with the line of each.
    let place = |rule: &str| {
        let rule = format!(
            r#">{rule}(?: <span class="tag">nearest</span>)?<br><span class="soft small">[^<·]*· <code>test\.toml:(\d+)</code>"#
        );
        let found = regex_lite::Regex::new(&rule).unwrap();
        let found = found.captures(&page).unwrap_or_else(|| panic!("no line of {rule}: {page}"));
        found[1].parse::<usize>().unwrap()
    };
    let config = app.config_text();
    for (rule, says) in [("owners", "\"owners\""), ("rule 2", "todo-reader"), ("rule 3", "writers")]
    {
        let below = config.lines().skip(place(rule)).take(2).collect::<String>();
        assert!(below.contains(says), "{rule}: {below}");
    }
    let nearest = regex_lite::Regex::new("rule 2 <span class=\"tag\">nearest</span>").unwrap();
    assert!(nearest.is_match(&page), "{page}");
}

#[tokio::test]
async fn the_page_is_found_by_reference_name_and_from_the_audit_line() {
    let app = TestApp::start().await;
    let first = refuse_mallory(&app).await.reference();
    let second = refuse_mallory(&app).await.reference();
    while app.storage().settle_audit().await.unwrap() > 0 {}
    let alice = admin(&app).await;

    for search in
        [&second, &second.to_lowercase(), &first, "Miller", "mallory@example.com", MALLORY]
    {
        let page = alice.page(&with_query("/refused", &[("q", search)])).await;
        assert!(page.contains("/refused/person?sub=oidc%3Ademo-mallory"), "{search}: {page}");
    }
    let nobody = unescape(&alice.page("/refused?q=hana").await);
    assert!(nobody.contains("No refused person matches “hana”."), "{nobody}");
    assert_eq!(rows(&app).await, 1, "one row for a person and an MCP server");
    let page = page_of_mallory(&app, &alice).await;
    assert_has(&page, &["<dt>Times</dt><dd>2</dd>", &second]);
}

#[tokio::test]
async fn a_rule_that_denies_is_named_and_the_way_past_it() {
    let app = TestApp::with(Setup::toml(RULES)).await;
    app.idp.set_roles("mallory", &["owner"]);
    app.idp.set_groups("mallory", &["staff", "/contractors"]);
    app.idp.misbehave(|how| {
        how.extra_claims = json!({ "org_id": "org_1" }).as_object().unwrap().clone();
    });
    app.client().await.authorize("mallory", &[("scope", "delete:todos")]).await;

    let page = page_of_mallory(&app, &admin(&app).await).await;

    let denied =
        regex_lite::Regex::new(r"Rule 4 \(test\.toml:\d+\) denies delete:todos\.").unwrap();
    assert!(denied.is_match(&page), "{page}");
    assert_has(
        &page,
        &[
            "Take them out of the group /contractors at the demo identity provider, or change rule 4",
        ],
    );
}

#[tokio::test]
async fn who_loses_access_at_a_re_check_and_who_asks_for_more_are_there_too() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let path =
        with_query("/refused/person", &[("sub", "oidc:demo-bob"), ("server", &app.mcp_url())]);
    let alice = admin(&app).await;

    let purge = client.call_tool(&tokens.access_token, "purge-todos", json!({})).await;
    let challenge = purge.assert_status(403).header("www-authenticate").unwrap();
    let asked = challenge.split(" scope=\"").nth(1).unwrap().split('"').next().unwrap();
    client.authorize("bob", &[("scope", asked)]).await.assert_page(403);
    let page = unescape(&alice.page(&path).await);
    assert_has(&page, &["when asking for more scopes", "Give them the role Admin"]);

    app.idp.set_roles("bob", &["Guest"]);
    app.advance(16 * 60);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    let page = unescape(&admin(&app).await.page(&path).await);
    assert_has(&page, &["at a re-check", "roles: Guest", "Give them the role Admin"]);
}

#[tokio::test]
async fn under_other_rules_the_page_says_that_they_would_be_let_in() {
    let mut app = TestApp::start().await;
    app.idp.set_groups("mallory", &["staff"]);
    refuse_mallory(&app).await;
    let alice = admin(&app).await;
    app.change_config("roles = [\"User\"]", "groups = [\"staff\"]");
    app.reload().await;

    let page = page_of_mallory(&app, &alice).await;

    assert_has(&page, &["this person would be let in"]);
    // And with other facts, the page says that they have been sent.
    app.change_config("groups = [\"staff\"]", "roles = [\"User\"]");
    app.reload().await;
    app.idp.set_roles("mallory", &["User"]);
    app.client().await.sign_in("mallory").await;
    let page = page_of_mallory(&app, &alice).await;
    assert_has(&page, &["the provider has sent other facts", "Give them the role"]);
}

#[tokio::test]
async fn ad_06_claims_of_refused_people_are_sealed_bounded_and_gone_after_their_days() {
    let app = TestApp::with(Setup::toml("[limits]\nrefused_people = 2")).await;
    app.idp.set_groups("mallory", &["group-canary-5d1e"]);
    app.idp.set_name("mallory", "Name Canary-77aa");
    refuse_mallory(&app).await;
    let stolen = String::from_utf8_lossy(&app.database.dump().await).into_owned();
    assert!(stolen.contains(MALLORY), "the dump has the row");
    for secret in ["group-canary-5d1e", "Canary-77aa", "mallory@example.com"] {
        assert!(!stolen.contains(secret), "{secret} is readable");
    }

    // Beyond the limit the oldest go; nobody fills it by trying again.
    for person in ["alice", "bob"] {
        app.idp.set_roles(person, &[]);
        app.advance(60);
        for _ in 0..3 {
            app.client().await.authorize(person, &[]).await;
        }
    }
    let left =
        "SELECT COUNT(*) FROM refused_people WHERE subject IN ('oidc:demo-alice', 'oidc:demo-bob')";
    assert_eq!((rows(&app).await, app.database.number(left).await), (2, 2));

    let day = std::time::Duration::from_hours(24);
    let keep = Retention {
        unused_client: day * 90,
        idle_client: day * 90,
        audit: day * 90,
        refused_person: day * 7,
        refresh_idle: std::time::Duration::from_hours(1),
        rows: 500,
    };
    app.advance(7 * 24 * 60 * 60 - 600);
    while app.storage().sweep(app.now(), keep).await.unwrap() > 0 {}
    assert_eq!(rows(&app).await, 2);
    app.advance(700);
    while app.storage().sweep(app.now(), keep).await.unwrap() > 0 {}
    assert_eq!(rows(&app).await, 0);
    app.idp.set_roles("alice", &["Admin"]);
    let page = page_of_mallory(&app, &admin(&app).await).await;
    assert_has(&page, &["Nothing is stored about a refusal", "7 days", "the 2 people"]);
}

#[tokio::test]
async fn a_provider_that_does_not_send_what_rules_read_is_named_as_the_fault() {
    let app = TestApp::with(Setup::toml(RULES)).await;
    app.idp.set_groups("mallory", &["staff"]);
    // Signed in before: the roles of administrators come from the same provider.
    let alice = admin(&app).await;
    let cut = json!({ "_claim_names": { "roles": "src1" } });
    app.idp.misbehave(|how| how.extra_claims = cut.as_object().unwrap().clone());

    let answer = refuse_mallory(&app).await;

    answer.assert_page(403);
    let page = unescape(answer.text());
    assert_has(&page, &["Your access could not be checked", "Try again"]);
    assert!(!page.contains("You have no access"), "{page}");
    let page = page_of_mallory(&app, &alice).await;
    let fault = "the identity provider did not send what the rules read (roles)";
    assert_has(&page, &["This is a fault", fault, "portcullis check --login"]);
    let trail = unescape(&alice.page("/audit?show=refusals").await);
    assert_has(&trail, &["the identity provider did not send: "]);
    // With everything sent, it is a decision.
    app.idp.misbehave(|how| how.extra_claims.clear());
    let answer = refuse_mallory(&app).await;
    assert_has(&unescape(answer.text()), &["You have no access"]);
    assert!(!page_of_mallory(&app, &alice).await.contains("This is a fault"));
}

#[tokio::test]
async fn the_way_back_leads_over_the_same_refused_people() {
    let app = TestApp::start().await;
    for number in 0..120 {
        app.advance(1);
        let person = Person {
            name: Some(format!("Person {number:03}")),
            email: None,
            facts: Facts { subject: format!("p{number}"), ..Facts::default() },
        };
        let new = NewRefusal {
            subject: &format!("oidc:p{number}"),
            resource: &app.mcp_url(),
            client_id: "client_1",
            step: RefusedAt::SignIn,
            reference: None,
            asked: &ScopeSet::default(),
            person: &person,
        };
        app.storage().note_refusal(&new, 1000, app.now()).await.unwrap();
    }
    let alice = admin(&app).await;
    let name = regex_lite::Regex::new("Person [0-9]{3}").unwrap();
    let names = |page: &str| {
        name.find_iter(page).map(|found| found.as_str().to_owned()).collect::<Vec<_>>()
    };
    let link = |rel: &str, page: &str| {
        let link = regex_lite::Regex::new(&format!(r#"rel="{rel}" href="([^"]*)""#)).unwrap();
        link.captures(page).map(|found| unescape(&found[1]))
    };
    let mut pages = vec![alice.page("/refused").await];
    while let Some(next) = link("next", pages.last().unwrap()) {
        pages.push(alice.page(&next).await);
    }
    let all: Vec<String> = pages.iter().flat_map(|page| names(page)).collect();
    let expected: Vec<String> = (0..120).rev().map(|n| format!("Person {n:03}")).collect();
    assert_eq!((all, pages.len()), (expected, 3));
    for place in [1, 0] {
        let back = link("prev", &pages[place + 1]).unwrap();
        assert_eq!(names(&alice.page(&back).await), names(&pages[place]));
    }
    assert_eq!(link("prev", &pages[0]), None);
}

#[tokio::test]
async fn ad_06_with_a_limit_of_zero_nothing_is_stored() {
    let app = TestApp::with(Setup::toml("[limits]\nrefused_people = 0")).await;
    refuse_mallory(&app).await;

    let page = admin(&app).await.page("/refused").await;

    assert_eq!(rows(&app).await, 0);
    assert!(page.contains("limits.refused_people is 0"), "{page}");
}

#[tokio::test]
async fn ad_06_what_the_provider_sent_is_escaped_and_shown_to_administrators_only() {
    let app = TestApp::start().await;
    app.idp.set_name("mallory", "<script>alert(1)</script>");
    app.idp.set_roles("mallory", &["<img src=x>", "\u{202e}nimda"]);
    refuse_mallory(&app).await;
    let path = path_of_mallory(&app);

    let page = admin(&app).await.page(&path).await;

    assert!(!page.contains("<script>") && !page.contains("<img"), "{page}");
    assert!(page.contains("&#60;img src=x&#62;"), "{page}");
    let bob = Console::admin(&app);
    bob.sign_in(&app, "bob").await.assert_page(403);
    bob.get(&path).await.assert_page(401);
    Console::admin(&app).get("/refused").await.assert_page(401);
}

#[tokio::test]
async fn the_pages_are_in_japanese_too() {
    let app = TestApp::start().await;
    app.idp.set_roles("mallory", &["Guest"]);
    refuse_mallory(&app).await;
    let alice = admin(&app).await;
    let japanese = [("accept-language", "ja"), ("accept", "text/html")];

    let page = alice.browser.send("GET", &alice.at(&path_of_mallory(&app)), &japanese, "").await;

    page.assert_page(200);
    let page = unescape(page.text());
    let sentence = "the demo identity provider でロール Admin を付与する、または";
    assert_has(&page, &["利用できるようにするには", sentence, "ロール: Guest"]);
}
