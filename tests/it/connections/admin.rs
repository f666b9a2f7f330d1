//! What administrators see and do of connected services: the pages, the command line, `check`, `doctor` and the
//! metrics.

use std::process::Output;

use futures_util::future::join_all;
use portcullis::telemetry::audit::EVENTS;
use serde_json::{Value, json};

use crate::harness::backend::{Backend, post, request, tokens};
use crate::harness::browser::unescape;
use crate::harness::client::Tokens;
use crate::harness::connect::{connect, connect_as};
use crate::harness::console::{Console, forms, with_query};
use crate::harness::http::Answer;
use crate::harness::process::portcullis;
use crate::harness::service::{FakeService, SERVICE_SECRET};
use crate::harness::{Setup, TestApp};

const ALICE: &str = "oidc:demo-alice";
const BOB: &str = "oidc:demo-bob";
const STORED: &str = "SELECT COUNT(*) FROM connections";
const REMOVED: &str = "SELECT COUNT(*) FROM audit_events WHERE event = 'connection_removed'";

/// An MCP server that uses two services: `github` with a header, and `calendar` where the person connected it.
struct World {
    app: TestApp,
    backend: Backend,
    github: FakeService,
    calendar: FakeService,
}

fn setup(backend: &Backend, github: &FakeService, calendar: &FakeService, more: &str) -> Setup {
    Setup::toml(format!(
        r#"
[[resource]]
path   = "/mcp"
name   = "Issue tracker"
target = "{}/mcp"
scopes = ["read", "write"]
rule   = [{{ roles = ["Admin", "User"], allow = ["read", "write"] }}]
[[resource.connection]]
name   = "github"
header = "X-GitHub-Token"
[[resource.connection]]
name     = "calendar"
header   = "X-Calendar-Token"
required = false
{}{}
[limits]
requests_per_person = 1000
{more}
"#,
        backend.url,
        github.toml_with("github", "oauth2", &["read", "write"], "title = \"GitHub\""),
        calendar.toml_with("calendar", "oauth2", &["see"], "title = \"Our calendar\""),
    ))
}

impl World {
    async fn start() -> Self {
        Self::with("").await
    }

    async fn with(more: &str) -> Self {
        let backend = Backend::start().await;
        let (github, calendar) = (FakeService::start().await, FakeService::start().await);
        let app = TestApp::with(setup(&backend, &github, &calendar, more)).await;
        Self { app, backend, github, calendar }
    }

    /// The same for commands, which have the real clock.
    async fn beside_a_shell() -> Self {
        let backend = Backend::start().await;
        let (github, calendar) = (FakeService::start().await, FakeService::start().await);
        let setup = setup(&backend, &github, &calendar, "");
        let app = TestApp::with_on_the_real_clock(setup).await;
        Self { app, backend, github, calendar }
    }

    /// Alice connects both services, bob one of them.
    async fn connected() -> Self {
        let world = Self::start().await;
        world.connect_all().await;
        world
    }

    async fn connect_all(&self) {
        self.github.account("alice-at-github");
        let alice = connect_as(&self.app, "alice", "github").await;
        self.app.advance(1);
        connect(&self.app, &alice, "calendar", &self.app.mcp_url()).await;
        self.app.advance(1);
        self.github.account("bob-at-github");
        connect_as(&self.app, "bob", "github").await;
    }

    /// The server asks the service to revoke the tokens of so many connections, and no token twice.
    async fn revoked_once_each(&self, connections: usize) {
        self.app.revoke_round().await;
        self.github.until_requested("/revoke", connections).await;
        let revoked = self.github.revoked();
        let unique: std::collections::BTreeSet<&String> = revoked.iter().collect();
        assert_eq!(unique.len(), revoked.len(), "a token is revoked twice");
    }

    async fn admin(&self) -> Console {
        Console::admin(&self.app).signed_in(&self.app, "alice").await
    }

    async fn call(&self, tokens: &Tokens) -> Answer {
        post(
            &self.app,
            tokens,
            &[],
            &request("tools/call", &json!({ "name": "x", "arguments": {} })),
        )
        .await
    }

    /// The service refuses to renew bob's token from now on, and a call has found out.
    async fn break_bobs(&self) {
        let (_, bob) = tokens(&self.app, "bob").await;
        self.github.end_refresh_tokens();
        self.app.advance(130);
        self.call(&bob).await.assert_status(200);
    }
}

/// The rows of a list of connected services, as `person, service, account`.
fn rows(page: &str) -> Vec<String> {
    let row = regex_lite::Regex::new(
        r#"(?s)data-label="Person">(.*?)</td><td data-label="Service">(.*?)</td><td data-label="Account">(.*?)</td>"#,
    )
    .unwrap();
    let tags = regex_lite::Regex::new("<br>.*|<[^>]*>").unwrap();
    let text = |cell: &str| unescape(&tags.replace_all(cell, ""));
    let cells = row.captures_iter(page);
    cells.map(|row| format!("{}, {}, {}", text(&row[1]), text(&row[2]), text(&row[3]))).collect()
}

const ALICE_GITHUB: &str = "Alice Adams, GitHub, alice-at-github@service.example";
const ALICE_CALENDAR: &str = "Alice Adams, Our calendar, octocat@service.example";
const BOB_GITHUB: &str = "Bob Brown, GitHub, bob-at-github@service.example";

#[tokio::test]
async fn connected_services_are_found_by_person_and_by_service() {
    let world = World::connected().await;
    let alice = world.admin().await;

    for (query, found) in [
        (vec![], vec![BOB_GITHUB, ALICE_CALENDAR, ALICE_GITHUB]),
        (vec![("oldest", "1")], vec![ALICE_GITHUB, ALICE_CALENDAR, BOB_GITHUB]),
        (vec![("name", "github")], vec![BOB_GITHUB, ALICE_GITHUB]),
        (vec![("name", "calendar")], vec![ALICE_CALENDAR]),
        (vec![("name", "nothing")], vec![]),
        (vec![("sub", BOB)], vec![BOB_GITHUB]),
        (vec![("q", "alice adams")], vec![ALICE_CALENDAR, ALICE_GITHUB]),
        (vec![("q", "bro")], vec![BOB_GITHUB]),
        (vec![("q", "bob@example.com")], vec![BOB_GITHUB]),
        (vec![("q", ALICE), ("name", "github")], vec![ALICE_GITHUB]),
        (vec![("q", "nobody")], vec![]),
        (vec![("q", "' OR 1=1 --")], vec![]),
        (vec![("broken", "1")], vec![]),
    ] {
        let page = alice.page(&with_query("/connections", &query)).await;
        assert_eq!(rows(&page), found, "{query:?}");
        if found.is_empty() {
            assert!(page.contains("No connected services match."), "{page}");
        } else {
            assert!(page.contains(&format!("<strong>{}</strong>", found.len())), "{page}");
        }
    }
    let page = alice.page("/connections").await;
    assert!(page.contains("used by Issue tracker"), "{page}");
    assert!(page.contains(">read write</td>"), "the granted scopes: {page}");
    let chip = alice.page(&with_query("/connections", &[("sub", BOB)])).await;
    assert!(chip.contains("Person: Bob Brown"), "{chip}");
    let ja = [("accept", "text/html"), ("accept-language", "ja")];
    let page = alice.browser.send("GET", &alice.at("/connections"), &ja, "").await;
    assert!(page.text().contains("<h1>連携サービス</h1>"), "{}", page.text());
    let person = alice.page(&with_query("/person", &[("sub", ALICE)])).await;
    assert!(person.contains("alice-at-github") && person.contains("Our calendar"), "{person}");
    assert!(!person.contains("bob-at-github"), "{person}");
}

#[tokio::test]
async fn every_connected_service_is_on_one_page_forth_and_back() {
    let world = World::start().await;
    for number in 0..110 {
        let sql = format!(
            "INSERT INTO connections (id, subject, name, provider_key, scopes, tokens, access_until, version,
                 state, state_at, created_at)
             VALUES ('{number:032}', 'oidc:person-{number:03}', 'github', 'x', '', 'x', 0, 1, 'active', 1, 1)"
        );
        world.app.database.execute(&sql).await;
    }
    let alice = world.admin().await;
    let follow = |page: &str, rel: &str| {
        let link = regex_lite::Regex::new(&format!(r#"rel="{rel}" href="([^"]*)""#)).unwrap();
        link.captures(page).map(|found| unescape(&found[1]))
    };
    for (path, newest_first) in
        [("/connections?name=github", true), ("/connections?oldest=1", false)]
    {
        let (mut seen, mut path) = (Vec::new(), path.to_owned());
        let mut last = String::new();
        loop {
            last.clone_from(&path);
            let page = alice.page(&path).await;
            seen.extend(rows(&page));
            let Some(next) = follow(&page, "next") else { break };
            path = next;
        }
        let mut all: Vec<String> =
            (0..110).map(|number| format!("oidc:person-{number:03}, GitHub, not known")).collect();
        if newest_first {
            all.reverse();
        }
        assert_eq!(seen, all);
        let mut back = Vec::new();
        let mut path = follow(&alice.page(&last).await, "prev");
        while let Some(at) = path {
            let page = alice.page(&at).await;
            back.splice(0..0, rows(&page));
            path = follow(&page, "prev");
        }
        assert_eq!(back, all[..100]);
    }
}

#[tokio::test]
async fn one_connected_service_is_removed_after_a_question_and_revoked_at_the_service() {
    let world = World::connected().await;
    let (_, bob) = tokens(&world.app, "bob").await;
    world.call(&bob).await.assert_status(200);
    let token = world.backend.take()[0].header("x-github-token").unwrap().to_owned();
    let alice = world.admin().await;

    let list = with_query("/connections", &[("sub", BOB)]);
    let asked = alice.press(&list, "action", "one").await;
    asked.assert_leads_to(&alice.at("/confirm"));
    let between = asked.location().strip_prefix(&alice.origin).unwrap().to_owned();
    let page = alice.page(&between).await;
    for told in ["GitHub", "Bob Brown", "bob-at-github", "<strong>1 connected service</strong>"] {
        assert!(page.contains(told), "{told} is missing: {page}");
    }
    assert_eq!(world.app.database.number(STORED).await, 3, "nothing happens before the answer");
    let reason = [("reason", "TICKET-7")];
    let answer = alice.press_with(&between, "action", "one", &reason).await;

    assert!(answer.location().ends_with("done=1"), "{}", answer.location());
    assert_eq!(world.app.database.number(STORED).await, 2);
    let (_, detail) = last_event(&world.app, "connection_removed").await;
    assert_eq!((&detail["connection"], &detail["reason"]), (&json!("github"), &json!("TICKET-7")));
    let audit = alice.page("/audit?event=connection_removed").await;
    assert!(audit.contains("removed the connection of"), "{audit}");
    world.revoked_once_each(1).await;
    assert!(world.github.api(&token).is_err());
    // The person is asked to connect it again.
    let answer = world.call(&bob).await;
    assert_eq!(answer.json()["result"]["isError"], true, "{}", answer.text());
    assert!(answer.text().contains("/connect/github"), "{}", answer.text());
    let gone = alice.get(&between).await;
    gone.assert_page(404);
}

/// The subject and details of the last event of this name.
async fn last_event(app: &TestApp, event: &str) -> (String, Value) {
    assert!(EVENTS.contains(&event));
    let filter = portcullis::storage::AuditFilter { event: event.to_owned(), ..Default::default() };
    let lines = app.storage().audit_lines(&filter, 10).await.unwrap();
    let line = lines.first().unwrap_or_else(|| panic!("no {event}"));
    (line.subject.clone().unwrap_or_default(), serde_json::from_str(&line.detail).unwrap())
}

#[tokio::test]
async fn all_of_a_service_and_all_of_a_person_are_counted_before_they_go() {
    let world = World::connected().await;
    let alice = world.admin().await;
    let person = with_query("/person", &[("sub", ALICE)]);

    let asked = alice.press(&person, "action", "person").await;
    let between = asked.location().strip_prefix(&alice.origin).unwrap().to_owned();
    let page = alice.page(&between).await;
    assert!(page.contains("<strong>2 connected services</strong> of 1 person."), "{page}");
    let answer = alice.press(&between, "action", "person").await;
    answer.assert_leads_to(&alice.at("/person"));
    let page = alice.page(answer.location().strip_prefix(&alice.origin).unwrap()).await;
    assert!(page.contains("The connected services were removed."), "{page}");
    assert!(page.contains("MCP servers use no service as this person"), "{page}");
    assert_eq!(world.app.database.number(STORED).await, 1);

    connect_as(&world.app, "alice", "github").await;
    let list = "/connections?name=github";
    let asked = alice.press(list, "action", "service").await;
    let between = asked.location().strip_prefix(&alice.origin).unwrap().to_owned();
    let page = alice.page(&between).await;
    assert!(page.contains("<strong>2 connected services</strong> of 2 people."), "{page}");
    for concerned in ["Alice Adams", "Bob Brown"] {
        assert!(page.contains(concerned), "{page}");
    }
    let answer = alice.press(&between, "action", "service").await;
    assert!(answer.location().ends_with("done=2"), "{}", answer.location());
    assert_eq!(world.app.database.number(STORED).await, 0);
    assert_eq!(world.app.database.number(REMOVED).await, 4, "one line for each");
}

#[tokio::test]
async fn when_another_one_is_connected_meanwhile_the_question_is_asked_again() {
    let world = World::connected().await;
    let alice = world.admin().await;
    let asked = alice.press("/connections?name=calendar", "action", "service").await;
    let between = asked.location().strip_prefix(&alice.origin).unwrap().to_owned();
    let page = alice.page(&between).await;
    let (form, _) = forms(&page, &alice.at(&between))
        .into_iter()
        .find(|(_, html)| html.contains("value=\"service\""))
        .unwrap();
    connect_as(&world.app, "bob", "calendar").await;

    let fields = form.with(&[("action", "service")]);
    let answer = alice.browser.post(&form.action, &fields, &alice.origin).await;

    answer.assert_leads_to(&alice.at("/confirm"));
    assert_eq!(world.app.database.number(STORED).await, 4);
    let again = answer.location().strip_prefix(&alice.origin).unwrap().to_owned();
    let page = alice.page(&again).await;
    assert!(page.contains("has changed since") && page.contains("2 connected services"), "{page}");
    let answer = alice.press(&again, "action", "service").await;
    assert!(answer.location().ends_with("done=2"), "{}", answer.location());
}

#[tokio::test]
async fn of_a_hundred_answers_at_once_one_removes_what_was_counted() {
    let world = World::connected().await;
    let alice = world.admin().await;
    let asked = alice.press("/connections?name=github", "action", "service").await;
    let between = asked.location().strip_prefix(&alice.origin).unwrap().to_owned();
    let page = alice.page(&between).await;
    let (form, _) = forms(&page, &alice.at(&between))
        .into_iter()
        .find(|(_, html)| html.contains("value=\"service\""))
        .unwrap();
    let fields = form.with(&[("action", "service")]);

    let answers =
        join_all((0..100).map(|_| alice.browser.post(&form.action, &fields, &alice.origin))).await;

    let done = answers.iter().filter(|answer| answer.location().ends_with("done=2")).count();
    assert_eq!(done, 1);
    assert_eq!(world.app.database.number(REMOVED).await, 2);
    assert_eq!(world.app.database.number(STORED).await, 1);
    world.revoked_once_each(2).await;
}

#[tokio::test]
async fn ten_and_more_are_removed_only_with_their_number_typed_and_a_reason() {
    let service = FakeService::start().await;
    let names: Vec<String> = (0..10).map(|number| format!("service-{number}")).collect();
    let tables: String = names.iter().map(|name| service.toml(name, "oauth2")).collect();
    let uses = names.iter().map(|name| {
        format!(
            "[[resource.connection]]\nname = \"{name}\"\nheader = \"X-{name}\"\nrequired = false\n"
        )
    });
    let text = format!("[resource]\n{}{tables}", uses.collect::<String>());
    let app = TestApp::with(Setup::toml(text)).await;
    let bob = Console::account(&app).signed_in(&app, "bob").await;
    for name in &names {
        connect(&app, &bob, name, &app.mcp_url()).await;
    }
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    let person = with_query("/person", &[("sub", BOB)]);
    let asked = alice.press(&person, "action", "person").await;
    let between = asked.location().strip_prefix(&alice.origin).unwrap().to_owned();
    let page = alice.page(&between).await;
    assert!(page.contains("10 connected services") && page.contains("name=\"typed\""), "{page}");

    for fields in [vec![], vec![("typed", "9"), ("reason", "TICKET-1")], vec![("typed", "10")]] {
        alice.press_with(&between, "action", "person", &fields).await.assert_page(400);
        assert_eq!(app.database.number(STORED).await, 10, "{fields:?}");
    }
    let fields = [("typed", "10"), ("reason", "TICKET-1")];
    alice
        .press_with(&between, "action", "person", &fields)
        .await
        .assert_leads_to(&alice.at("/person"));
    assert_eq!(app.database.number(STORED).await, 0);
}

#[tokio::test]
async fn a_viewer_sees_connected_services_and_removes_none() {
    let world = World::with("[admin.read_only]\nroles = [\"User\"]").await;
    world.connect_all().await;
    let bob = Console::admin(&world.app).signed_in(&world.app, "bob").await;
    let page = bob.page("/connections?name=github").await;
    assert_eq!(rows(&page).len(), 2);
    assert_eq!(page.matches("method=\"post\"").count(), 1, "signing out alone: {page}");
    let id = world.app.database.text("SELECT MIN(id) FROM connections").await;
    bob.get(&with_query("/confirm", &[("act", "remove_service"), ("id", &id)]))
        .await
        .assert_page(403);
    let csrf = bob.csrf().await;
    for (action, field, value) in
        [("one", "id", id.as_str()), ("service", "name", "github"), ("person", "sub", ALICE)]
    {
        let fields = [("csrf", csrf.as_str()), ("action", action), (field, value)];
        bob.post("/connections", &fields).await.assert_page(403);
    }
    assert_eq!(world.app.database.number(STORED).await, 3);
    let alice = world.admin().await;
    let csrf = alice.csrf().await;
    for fields in [
        vec![("action", "one"), ("id", "nobody")],
        vec![("action", "person"), ("sub", "nobody")],
        vec![("action", "explode")],
    ] {
        let fields = [&[("csrf", csrf.as_str())], fields.as_slice()].concat();
        let answer = alice.post("/connections", &fields).await;
        if answer.status == 303 {
            let path = answer.location().strip_prefix(&alice.origin).unwrap().to_owned();
            alice.get(&path).await.assert_page(404);
        } else {
            answer.assert_page(404);
        }
    }
    assert_eq!(world.app.database.number(STORED).await, 3);
}

#[tokio::test]
async fn a_service_that_refuses_to_renew_needs_attention_until_its_person_connects_it_again() {
    let world = World::start().await;
    world.github.expire_in(Some(120));
    world.connect_all().await;
    let alice = world.admin().await;
    assert!(alice.page("/").await.contains("Nothing needs attention."));
    let metrics = world.app.metrics().await;
    let broken = "portcullis_connections_broken{service=\"github\"}";
    assert!(metrics[broken].abs() < 0.1, "{metrics:?}");
    let used = "portcullis_upstream_tokens_total{service=\"github\",outcome=\"broken\"}";
    assert!(metrics[used].abs() < 0.1, "a service has its series from the start: {metrics:?}");

    world.break_bobs().await;

    let alice = world.admin().await;
    let overview = alice.page("/").await;
    assert!(overview.contains("1 connected service does not work any more"), "{overview}");
    assert!(overview.contains("href=\"/connections?broken=1\""), "{overview}");
    let page = alice.page("/connections?broken=1").await;
    assert_eq!(rows(&page), [BOB_GITHUB]);
    assert!(page.contains("to be connected again"), "{page}");
    let metrics = world.app.metrics().await;
    assert!((metrics[broken] - 1.0).abs() < 0.1 && metrics[used] >= 1.0, "{metrics:?}");
    let (subject, detail) = last_event(&world.app, "connection_broken").await;
    assert_eq!((subject.as_str(), &detail["connection"]), (BOB, &json!("github")));
    let audit = alice.page("/audit?event=connection_broken").await;
    assert!(audit.contains("refuses to renew the token of"), "{audit}");

    connect_as(&world.app, "bob", "github").await;

    assert_eq!(rows(&alice.page("/connections?broken=1").await), Vec::<String>::new());
    assert!(world.app.metrics().await[broken].abs() < 0.1);
    assert!(alice.page("/").await.contains("Nothing needs attention."));
}

#[tokio::test]
async fn the_metrics_count_what_became_of_each_token() {
    let world = World::start().await;
    let (_, bob) = tokens(&world.app, "bob").await;
    let count = async |outcome: &str| {
        let series =
            format!("portcullis_upstream_tokens_total{{service=\"github\",outcome=\"{outcome}\"}}");
        world.app.metrics().await.get(&series).copied().unwrap_or(0.0)
    };
    world.call(&bob).await;
    assert!((count("not_connected").await - 1.0).abs() < 0.1);
    world.github.expire_in(Some(120));
    connect_as(&world.app, "bob", "github").await;
    world.call(&bob).await.assert_status(200);
    assert!((count("fresh").await - 1.0).abs() < 0.1);
    world.app.advance(130);
    world.call(&bob).await.assert_status(200);
    assert!((count("refreshed").await - 1.0).abs() < 0.1);
    world.github.down(true);
    world.app.advance(130);
    world.call(&bob).await.assert_status(503);
    assert!((count("unavailable").await - 1.0).abs() < 0.1);
    let text = world.app.metrics().await.into_keys().collect::<String>();
    assert!(!text.contains("demo-bob") && !text.contains("octocat"), "{text}");
}

#[tokio::test]
async fn what_was_connected_with_another_client_counts_as_broken() {
    let mut world = World::connected().await;
    world.app.change_config(
        "client_id = \"portcullis-at-the-service\"",
        "client_id = \"another-client\"",
    );
    world.app.restart().await;
    let alice = world.admin().await;

    let page = alice.page("/connections?broken=1").await;

    assert_eq!(rows(&page).len(), 3, "{page}");
    assert!(page.contains("the configuration has another client or service now"), "{page}");
    assert!(alice.page("/").await.contains("3 connected services do not work any more"));
}

/// Runs a command in the folder of the server's database.
async fn shell(world: &World, arguments: &[&str]) -> Output {
    let folder = &world.app.database.folder;
    // Tests need no internet: `check` looks at no client's website.
    let config = format!("{}\n[client_documents]\nenabled = false\n", world.app.config_text());
    std::fs::write(folder.join("portcullis.toml"), config).unwrap();
    let mut command = portcullis(folder);
    command.args(arguments);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn parsed(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}{}", text(&output.stdout), text(&output.stderr)))
}

#[tokio::test]
async fn the_command_line_lists_connected_services_with_filters() {
    let world = World::beside_a_shell().await;
    world.connect_all().await;
    for (arguments, found) in [
        (vec![], vec![("github", BOB), ("calendar", ALICE), ("github", ALICE)]),
        (vec!["--person", BOB], vec![("github", BOB)]),
        (vec!["--service", "calendar"], vec![("calendar", ALICE)]),
        (vec!["--search", "alice adams"], vec![("calendar", ALICE), ("github", ALICE)]),
        (vec!["--broken"], vec![]),
        (vec!["--limit", "1"], vec![("github", BOB)]),
    ] {
        let all = [&["connections", "list", "--json"][..], &arguments].concat();
        let listed = parsed(&shell(&world, &all).await);
        let rows = listed["connections"].as_array().unwrap();
        let seen: Vec<(&str, &str)> = rows
            .iter()
            .map(|row| (row["service"].as_str().unwrap(), row["sub"].as_str().unwrap()))
            .collect();
        assert_eq!(seen, found, "{arguments:?}");
        assert_eq!(listed["next"].is_string(), arguments.contains(&"--limit"), "{listed}");
    }
    let listed = parsed(&shell(&world, &["connections", "list", "--json", "--person", BOB]).await);
    let row = &listed["connections"][0];
    assert_eq!(row["name"], "Bob Brown");
    assert_eq!(row["account"], "bob-at-github@service.example");
    assert_eq!((&row["scope"], &row["works"]), (&json!("read write"), &json!(true)));
    let table = text(&shell(&world, &["connections", "list"]).await.stdout);
    for told in ["CONNECTION", "Bob Brown", "bob-at-github", "works"] {
        assert!(table.contains(told), "{table}");
    }
    for secret in world.github.issued() {
        assert!(!table.contains(&secret) && !listed.to_string().contains(&secret));
    }
}

#[tokio::test]
async fn the_command_line_removes_what_it_was_told_after_a_yes() {
    let world = World::beside_a_shell().await;
    world.connect_all().await;
    let remove = ["connections", "remove", "--service", "github"];

    let dry = parsed(&shell(&world, &[&remove[..], &["--dry-run", "--json"]].concat()).await);
    assert_eq!((&dry["would_remove"], &dry["changed"]), (&json!(2), &json!(false)));
    let refused = shell(&world, &remove).await;
    assert_eq!(refused.status.code(), Some(2), "there is no terminal");
    assert!(
        text(&refused.stderr).contains("It removes 2 connections."),
        "{}",
        text(&refused.stderr)
    );
    assert_eq!(world.app.database.number(STORED).await, 3);
    let both = ["connections", "remove", "--service", "github", "--person", BOB];
    let told = [&both[..], &["--yes", "--reason", "TICKET-9", "--json"]].concat();
    let removed = parsed(&shell(&world, &told).await);
    assert_eq!((&removed["removed"], &removed["changed"]), (&json!(1), &json!(true)));
    assert_eq!(world.app.database.number(STORED).await, 2);
    let removed = parsed(&shell(&world, &[&remove[..], &["--yes", "--json"]].concat()).await);
    assert_eq!(removed["removed"], 1);
    let again = shell(&world, &[&remove[..], &["--yes"]].concat()).await;
    assert_eq!(
        (again.status.code(), text(&again.stdout).as_str()),
        (Some(0), "There is nothing to remove.\n")
    );
    let nothing = shell(&world, &["connections", "remove", "--yes"]).await;
    assert_eq!(nothing.status.code(), Some(2), "which is not said");
    let left = "SELECT COUNT(*) FROM connections WHERE name = 'calendar'";
    assert_eq!(world.app.database.number(left).await, 1);

    let told =
        parsed(&shell(&world, &["audit", "list", "--event", "connection_removed", "--json"]).await);
    let events = told["events"].as_array().unwrap();
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event["actor"] == "shell"), "{told}");
    assert!(told.to_string().contains("TICKET-9"), "{told}");
    // The running server revokes what the command has queued.
    world.revoked_once_each(2).await;
}

/// The findings of a command with `--json`, and its exit code.
async fn findings(world: &World, arguments: &[&str]) -> (Vec<Value>, i32) {
    let output = shell(world, &[arguments, &["--json"]].concat()).await;
    let findings = parsed(&output)["findings"].as_array().unwrap().clone();
    let of_connections = findings.into_iter().filter(|finding| finding["probe"] == "connection");
    (of_connections.collect(), output.status.code().unwrap())
}

#[tokio::test]
async fn check_names_the_callback_of_each_connection_and_one_that_nobody_uses() {
    let mut world = World::beside_a_shell().await;
    let (found, _) = findings(&world, &["check"]).await;
    let told = serde_json::to_string(&found).unwrap();
    for name in ["github", "calendar"] {
        let callback = world.app.at(&format!("/auth/connect/{name}/callback"));
        assert!(told.contains(&callback), "{callback}: {told}");
    }
    assert_eq!(found.len(), 2, "{told}");
    assert!(found.iter().all(|finding| finding["severity"] == "ok"), "{told}");

    let used = "[[resource.connection]]\nname     = \"calendar\"\nheader   = \"X-Calendar-Token\"\nrequired = false\n";
    world.app.change_config(used, "");
    let output = shell(&world, &["check", "--json"]).await;
    let all = parsed(&output).to_string();
    assert!(all.contains("no MCP server uses the connection"), "{all}");
}

#[tokio::test]
async fn check_refuses_two_connections_that_need_two_callbacks_of_one_app() {
    let mut world = World::beside_a_shell().await;
    world.app.change_config("provider = \"oauth2\"", "provider = \"atlassian\"");

    let (found, code) = findings(&world, &["check"]).await;

    let failed: Vec<&Value> =
        found.iter().filter(|finding| finding["severity"] == "failed").collect();
    assert_eq!((failed.len(), code), (1, 2), "{found:?}");
    assert!(failed[0]["found"].as_str().unwrap().contains("has one callback URL"), "{found:?}");
}

#[tokio::test]
async fn doctor_says_what_each_service_answers_to_a_code_that_does_not_exist() {
    let world = World::beside_a_shell().await;
    let doctor = ["doctor", "--connections"];
    let (found, code) = findings(&world, &doctor).await;
    assert_eq!((found.len(), code), (2, 0), "{found:?}");
    for finding in &found {
        assert_eq!(finding["severity"], "ok", "{found:?}");
        assert!(finding["found"].as_str().unwrap().contains("(invalid_grant)"), "{found:?}");
    }
    let stored = "SELECT COUNT(*) FROM connection_attempts";
    assert_eq!(world.app.database.number(stored).await, 0, "nothing is stored");

    for (status, body, severity, code, told) in [
        (200, r#"{"error":"bad_verification_code"}"#, "ok", 0, "bad_verification_code"),
        (200, r#"{"ok":false,"error":"invalid_code"}"#, "ok", 0, "invalid_code"),
        (401, r#"{"error":"invalid_client"}"#, "failed", 2, "client ID or secret"),
        (200, r#"{"error":"incorrect_client_credentials"}"#, "failed", 2, "client ID or secret"),
        (
            200,
            r#"{"error":"redirect_uri_mismatch"}"#,
            "failed",
            2,
            "callback URL is not registered",
        ),
        (200, r#"{"access_token":"token-canary"}"#, "failed", 2, "gave a token"),
        (404, "no", "failed", 2, "there is nothing"),
        (503, "<html>", "inconclusive", 3, "does not tell"),
        (400, r#"{"error":"what_is_this"}"#, "inconclusive", 3, "what_is_this"),
    ] {
        world.github.answers_with(status, body);
        let (found, exit) = findings(&world, &doctor).await;
        let of_github =
            found.iter().find(|one| one["found"].as_str().unwrap().starts_with("github")).unwrap();
        assert_eq!((of_github["severity"].as_str().unwrap(), exit), (severity, code), "{body}");
        assert!(of_github["found"].as_str().unwrap().contains(told), "{body}: {of_github}");
        let hint = of_github["hint"].to_string();
        assert_eq!(
            hint.contains("/auth/connect/github/callback"),
            body.contains("mismatch"),
            "{hint}"
        );
        assert!(!found.iter().any(|one| one.to_string().contains("token-canary")), "{found:?}");
    }
}

#[tokio::test]
async fn doctor_finds_a_wrong_secret_and_a_service_that_cannot_be_reached() {
    let mut world = World::beside_a_shell().await;
    world.app.change_config(SERVICE_SECRET, "another-secret");
    let (found, code) = findings(&world, &["doctor", "--connections"]).await;
    assert_eq!(code, 2);
    assert!(found.iter().all(|one| one["severity"] == "failed"), "{found:?}");
    assert!(found[0]["found"].as_str().unwrap().contains("(invalid_client)"), "{found:?}");

    let nobody = crate::harness::process::free_address();
    world.app.change_config(&world.calendar.url.clone(), &format!("http://{nobody}"));
    let (found, code) = findings(&world, &["doctor", "--connections"]).await;
    let away = found.iter().find(|one| one["found"].as_str().unwrap().starts_with("calendar"));
    assert_eq!(code, 2);
    assert!(away.unwrap()["found"].as_str().unwrap().contains("cannot be asked"), "{found:?}");

    let neither = shell(&world, &["doctor"]).await;
    assert_eq!(neither.status.code(), Some(2), "a URL, or --connections");
}
