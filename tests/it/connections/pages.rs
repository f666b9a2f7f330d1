//! `/connect/{name}` and `/account/connections`: people connect services for MCP servers, and disconnect them
//! (threats UT-01 and UT-02).

use futures_util::future::join_all;
use portcullis::web::words::Language;
use serde_json::json;

use crate::harness::browser::{Browser, Form};
use crate::harness::client::McpClient;
use crate::harness::connect::{
    agree, begin, callback_url, connect, connect_as, connect_url, nearly_connect, press_connect,
};
use crate::harness::console::{Console, forms, with_query};
use crate::harness::http::Answer;
use crate::harness::service::FakeService;
use crate::harness::{Setup, TestApp};

const LIST: &str = "/account/connections";
const CONFIRM: &str = "/account/connections/confirm?name=github";
const REMOVE: &str = "/account/connections/remove";
const TEXTS: &str =
    "scope_texts = { read = \"Read your repositories\", write = \"Change your repositories\" }";

/// The to-do server needs `read` of GitHub, with these further keys, and the notes `read` and `write`.
fn setup_with(github: &FakeService, more: &str) -> Setup {
    Setup::toml(format!(
        r#"{github}
[resource]
connection = [{{ name = "github", scopes = ["read"], header = "X-GitHub-Token"{more} }}]
[[resource]]
path = "/notes"
name = "Notes"
target = "http://127.0.0.1:9/"
scopes = ["use"]
connection = [{{ name = "github", scopes = ["read", "write"], header = "X-GitHub-Token" }}]
[[resource]]
path = "/plain"
target = "http://127.0.0.1:9/"
scopes = ["use"]
"#,
        github = github.toml_with("github", "github", &["read", "write"], TEXTS),
    ))
}

struct World {
    app: TestApp,
    github: FakeService,
}

impl World {
    async fn start() -> Self {
        let github = FakeService::start().await;
        let app = TestApp::with(setup_with(&github, "")).await;
        Self { app, github }
    }

    /// Only the to-do server uses GitHub, for these tools.
    async fn for_tools(tools: &str) -> Self {
        let github = FakeService::start().await;
        let toml = format!(
            "{}\n[resource]\nconnection = [{{ name = \"github\", scopes = [\"read\"], \
             header = \"X-GitHub-Token\"{tools} }}]\n",
            github.toml_with("github", "github", &["read", "write"], TEXTS)
        );
        let app = TestApp::with(Setup::toml(toml)).await;
        Self { app, github }
    }

    async fn at_account(&self, person: &str) -> Console {
        Console::account(&self.app).signed_in(&self.app, person).await
    }

    /// The page that connects GitHub for the to-do server.
    fn link(&self) -> String {
        connect_url(&self.app, "github", &self.app.mcp_url())
    }

    /// The same for the notes.
    fn notes(&self) -> String {
        self.app.at("/notes")
    }

    async fn connections(&self) -> i64 {
        self.app.database.number("SELECT COUNT(*) FROM connections").await
    }

    async fn events(&self, event: &str, subject: &str) -> i64 {
        let count = format!(
            "SELECT COUNT(*) FROM audit_events WHERE event = '{event}' AND subject = '{subject}'"
        );
        self.app.database.number_of(&count).await
    }
}

#[track_caller]
fn says(page: &Answer, status: u16, parts: &[&str]) {
    page.assert_page(status);
    for part in parts {
        assert!(page.text().contains(part), "{part} is not on the page: {}", page.text());
    }
}

#[track_caller]
fn says_not(page: &str, parts: &[&str]) {
    for part in parts {
        assert!(!page.contains(part), "{part} is on the page: {page}");
    }
}

#[tokio::test]
async fn a_person_follows_a_link_signs_in_and_connects_a_service() {
    let world = World::start().await;
    let (app, alice) = (&world.app, Console::account(&world.app));
    let link = world.link();

    let page = alice.browser.get(&link).await;
    says(&page, 401, &["Sign in to see what is asked for"]);
    let back = alice.pass_provider(app, &Form::of(&page, &link), "alice").await;
    back.assert_leads_to(&link);
    assert_eq!(back.location(), link);
    let page = alice.browser.get(&link).await;
    let parts = [
        "<h1>Connect GitHub</h1>",
        "Alice",
        "<b class=\"name\">To-do list</b> needs your account",
        "Read your repositories",
        "Notes",
        "Continue to GitHub",
    ];
    says(&page, 200, &parts);
    says_not(page.text(), &["Change your repositories", "<script", "/plain"]);

    let at_service = begin(app, &alice, "github", &app.mcp_url()).await;
    let asked = &world.github.requests_to("/authorize");
    assert!(asked.is_empty(), "our server redirects, and asks nothing itself");
    let back = agree(&alice.browser, &at_service).await;
    let asked = world.github.requests_to("/authorize").remove(0);
    assert_eq!(asked.param("scope").as_deref(), Some("read"));
    assert_eq!(asked.param("redirect_uri"), Some(callback_url(app, "github")));
    let came = alice.browser.get(&back).await;
    assert_eq!(came.location(), link);
    let page = alice.browser.get(came.location()).await;
    let parts = [
        "<h1>Connected: GitHub</h1>",
        "octocat",
        "Go back to your application and repeat what you asked for.",
    ];
    says(&page, 200, &parts);
    says_not(page.text(), &["canary", "value=\"connect\""]);
    assert_eq!(world.connections().await, 1);
    assert_eq!(world.events("connection_made", "oidc:demo-alice").await, 1);
    assert_eq!(world.github.token_requests().len(), 1);
    assert!(!alice.browser.cookie_names().iter().any(|name| name.contains("connect-")));
}

#[tokio::test]
async fn the_list_says_what_is_connected_and_what_an_mcp_server_still_needs() {
    let world = World::start().await;
    let alice = connect_as(&world.app, "alice", "github").await;
    let page = alice.page(LIST).await;
    for part in [
        "GitHub",
        "octocat",
        "To-do list",
        "Notes",
        "2026-11-21 00:00",
        "not yet",
        "Read your repositories",
        "<dt>Not allowed yet</dt><dd>Change your repositories</dd>",
        "Allow more",
        "Disconnect GitHub",
    ] {
        assert!(page.contains(part), "{part} is not on the page: {page}");
    }
    says_not(&page, &["Not connected", "Reconnect", "canary", "<script"]);

    // Bob has connected nothing, and sees nothing of Alice's.
    let bob = world.at_account("bob").await;
    let page = bob.page(LIST).await;
    says_not(&page, &["octocat", "Disconnect", "Allow more"]);
    assert!(page.contains("Not connected") && page.contains("aria-label=\"Connect GitHub\""));
    assert!(page.contains("/connect/github\""), "{page}");
    let account = bob.page("/account").await;
    assert!(account.contains("/account/connections\">Your connected services</a>"), "{account}");
    // Without a session there is a page with a button, and nothing else.
    for path in [LIST, CONFIRM] {
        Console::account(&world.app).get(path).await.assert_page(401);
    }
}

#[tokio::test]
async fn a_person_who_comes_by_themselves_connects_for_all_their_mcp_servers() {
    let world = World::start().await;
    let alice = world.at_account("alice").await;
    let page = alice.get("/connect/github").await;
    says(&page, 200, &["Read your repositories", "Change your repositories"]);
    says_not(page.text(), &["for what you asked for"]);
    let answer = alice.press("/connect/github", "action", "connect").await;
    let back = agree(&alice.browser, answer.location()).await;
    let came = alice.browser.get(&back).await;
    assert_eq!(came.location(), world.app.at("/connect/github"));
    says(&alice.browser.get(came.location()).await, 200, &["Connected: GitHub"]);
    says_not(&alice.page(LIST).await, &["Not allowed yet", "Allow more"]);
}

/// A second MCP server needs one more scope: the person sees only what is new, and the old ones stay.
#[tokio::test]
async fn a_connected_service_shows_only_what_is_new() {
    let world = World::start().await;
    let alice = connect_as(&world.app, "alice", "github").await;
    let link = connect_url(&world.app, "github", &world.notes());
    let page = alice.browser.get(&link).await;
    let parts =
        ["Allow more in GitHub", "Change your repositories", "What you allowed before stays"];
    says(&page, 200, &parts);
    says_not(page.text(), &["Read your repositories"]);

    let page = connect(&world.app, &alice, "github", &world.notes()).await;

    says(&page, 200, &["Connected: GitHub"]);
    let asked = world.github.requests_to("/authorize");
    let scope = asked.last().unwrap().param("scope").unwrap();
    assert_eq!(scope.replace(',', " "), "read write");
    assert_eq!(world.connections().await, 1);
    assert_eq!(world.events("connection_scopes_changed", "oidc:demo-alice").await, 1);
    says(&alice.browser.get(&world.link()).await, 200, &["Connected: GitHub"]);
}

#[tokio::test]
async fn another_account_of_the_same_service_is_said_and_audited() {
    let world = World::start().await;
    let alice = connect_as(&world.app, "alice", "github").await;
    world.github.account("hubot");
    let page = connect(&world.app, &alice, "github", &world.notes()).await;
    says(&page, 200, &["hubot", "This is another account than before."]);
    assert_eq!(world.events("connection_account_changed", "oidc:demo-alice").await, 1);
    let page = alice.page(LIST).await;
    assert!(page.contains("hubot") && !page.contains("octocat"), "{page}");
    // The address says nothing that is not so: nothing is connected here.
    let bob = world.at_account("bob").await;
    let page = bob.page(&with_query("/connect/github", &[("account", "other")])).await;
    says_not(&page, &["another account"]);
}

#[tokio::test]
async fn a_person_who_says_no_at_the_service_can_try_again() {
    let world = World::start().await;
    let alice = world.at_account("alice").await;
    world.github.refuse(true);
    let back = nearly_connect(&world.app, &alice, "github", &world.app.mcp_url()).await;
    assert!(back.contains("error=access_denied"), "{back}");
    let came = alice.browser.get(&back).await;
    came.assert_leads_to(&world.link());
    let page = alice.browser.get(came.location()).await;
    let parts = ["You said no at", "so nothing was changed.", "Continue to GitHub"];
    says(&page, 200, &parts);
    assert_eq!(world.connections().await, 0);
    assert!(world.github.token_requests().is_empty());

    world.github.refuse(false);
    let path = came.location().strip_prefix(&world.app.url).unwrap().to_owned();
    let answer = alice.press(&path, "action", "connect").await;
    let back = agree(&alice.browser, answer.location()).await;
    alice.browser.get(&back).await.assert_leads_to(&world.link());
    assert_eq!(world.connections().await, 1);
}

#[tokio::test]
async fn partial_consent_says_what_is_missing_and_offers_to_try_again() {
    let world = World::start().await;
    let alice = world.at_account("alice").await;
    world.github.grant_only("read");
    let back = nearly_connect(&world.app, &alice, "github", &world.notes()).await;
    let came = alice.browser.get(&back).await;
    let page = alice.browser.get(came.location()).await;
    let parts =
        ["You did not allow everything at", "Change your repositories", "Continue to GitHub"];
    says(&page, 200, &parts);
    says_not(page.text(), &["Read your repositories", "Go back to your application"]);
    let list = alice.page(LIST).await;
    assert!(list.contains("<dt>Not allowed yet</dt><dd>Change your repositories</dd>"), "{list}");

    world.github.grant_only("read write");
    let path = came.location().strip_prefix(&world.app.url).unwrap().to_owned();
    let answer = alice.press(&path, "action", "connect").await;
    let back = agree(&alice.browser, answer.location()).await;
    let came = alice.browser.get(&back).await;
    says(&alice.browser.get(came.location()).await, 200, &["Connected: GitHub"]);
}

#[tokio::test]
async fn ut_01_the_victim_does_not_finish_the_attackers_connection() {
    let world = World::start().await;
    let (app, mcp) = (&world.app, world.app.mcp_url());
    let (attacker, victim) = (world.at_account("bob").await, world.at_account("alice").await);
    let at_service = begin(app, &attacker, "github", &mcp).await;
    let back = agree(&victim.browser, &at_service).await;

    let page = victim.browser.get(&back).await;

    says(
        &page,
        403,
        &["You did not start this connection here", "Somebody may have sent you a link"],
    );
    says_not(page.text(), &["canary", "value=\"connect\""]);
    // What the victim brought is worth nothing to the attacker either.
    attacker.browser.get(&back).await.assert_page(403);
    assert!(world.github.token_requests().is_empty(), "the code is not redeemed");
    assert_eq!(world.connections().await, 0);
    assert_eq!(world.events("connection_refused", "oidc:demo-alice").await, 1);

    // Nor does somebody finish it who is not signed in, and who has no part in it.
    let at_service = begin(app, &attacker, "github", &mcp).await;
    let stranger = Browser::default();
    let back = agree(&stranger, &at_service).await;
    stranger.get(&back).await.assert_page(403);
    attacker.browser.get(&back).await.assert_page(403);
    assert_eq!(world.connections().await, 0);
    // An attempt that nobody touched works.
    connect(app, &attacker, "github", &mcp).await;
}

#[tokio::test]
async fn ut_01_another_person_in_the_same_browser_does_not_finish_a_connection() {
    let world = World::start().await;
    let (app, alice) = (&world.app, world.at_account("alice").await);
    let back = nearly_connect(app, &alice, "github", &app.mcp_url()).await;
    let signed_out = alice.press("/account", "action", "here").await;
    alice.browser.get(signed_out.location()).await;
    // With the session gone, the person signs in and begins again.
    let page = alice.browser.get(&back).await;
    says(&page, 401, &["Sign in to see what is asked for"]);
    let form = Form::of(&page, &back);
    assert!(form.fields.contains(&("go_on".to_owned(), "/connect/github".to_owned())), "{form:?}");

    alice.sign_in(app, "bob").await;

    says(&alice.browser.get(&back).await, 403, &["You did not start this connection here"]);
    assert_eq!(world.connections().await, 0);
    assert!(world.github.token_requests().is_empty());
    assert_eq!(world.events("connection_refused", "oidc:demo-bob").await, 1);
}

#[tokio::test]
async fn ut_01_one_callback_wins_of_a_hundred() {
    let world = World::start().await;
    let alice = world.at_account("alice").await;
    let back = nearly_connect(&world.app, &alice, "github", &world.app.mcp_url()).await;

    let answers = join_all((0..100).map(|_| alice.browser.get(&back))).await;

    let won = answers.iter().filter(|answer| answer.status == 303).count();
    assert_eq!(won, 1);
    let lost = answers.iter().filter(|answer| answer.status != 303);
    for page in lost {
        says(page, 403, &["This connection is already finished"]);
    }
    assert_eq!(world.github.token_requests().len(), 1);
    assert_eq!(world.connections().await, 1);
    assert_eq!(world.events("connection_made", "oidc:demo-alice").await, 1);
}

#[tokio::test]
async fn ut_01_a_form_from_elsewhere_connects_nothing() {
    let world = World::start().await;
    let (app, alice) = (&world.app, world.at_account("alice").await);
    let (csrf, mcp) = (alice.csrf().await, app.mcp_url());
    let other = world.at_account("alice").await.csrf().await;
    let url = app.at("/connect/github");
    let fields = |csrf| [("csrf", csrf), ("for", mcp.as_str()), ("action", "connect")];
    for from in ["https://evil.example", app.admin_url.as_str()] {
        alice.browser.post(&url, &fields(&csrf), from).await.assert_page(403);
    }
    for csrf in ["", other.as_str()] {
        alice.post("/connect/github", &fields(csrf)).await.assert_page(403);
    }
    // A link begins nothing: it shows a page.
    alice.browser.get(&world.link()).await.assert_page(200);
    Console::account(app).post("/connect/github", &fields("x")).await.assert_page(401);
    let begun = app.database.number("SELECT COUNT(*) FROM connection_attempts").await;
    assert_eq!(begun, 0);
    assert!(world.github.requests_to("/authorize").is_empty());
    let url = callback_url(app, "github");
    alice.browser.send("POST", &url, &[("accept", "text/html")], "").await.assert_page(405);
}

/// Two services, one of which could be in an attacker's hands.
async fn two_services() -> (TestApp, FakeService, FakeService) {
    let (github, google) = (FakeService::start().await, FakeService::start().await);
    let toml = format!(
        "{}{}\n[resource]\nconnection = [{{ name = \"github\", scopes = [\"read\"] , header = \
         \"X-GitHub-Token\" }}, {{ name = \"google\", scopes = [\"read\"], header = \
         \"X-Google-Token\" }}]\n",
        github.toml("github", "oauth2"),
        google.toml("google", "oauth2"),
    );
    (TestApp::with(Setup::toml(toml)).await, github, google)
}

#[tokio::test]
async fn ut_02_the_code_of_one_service_is_refused_at_the_callback_of_another() {
    let (app, github, google) = two_services().await;
    let alice = Console::account(&app).signed_in(&app, "alice").await;
    let back = nearly_connect(&app, &alice, "google", &app.mcp_url()).await;
    let mixed = back.replace(&callback_url(&app, "google"), &callback_url(&app, "github"));
    assert_ne!(mixed, back);

    let page = alice.browser.get(&mixed).await;

    says(&page, 403, &["You did not start this connection here"]);
    // The attempt has ended: the code is worth nothing at the right callback either.
    says(&alice.browser.get(&back).await, 403, &["This connection is already finished"]);
    assert!(github.token_requests().is_empty() && google.token_requests().is_empty());
    assert_eq!(app.database.number("SELECT COUNT(*) FROM connections").await, 0);
    let refused = "SELECT COUNT(*) FROM audit_events WHERE event = 'connection_refused'
                   AND subject = 'oidc:demo-alice'";
    assert_eq!(app.database.number(refused).await, 1);
}

#[tokio::test]
async fn every_connection_has_a_callback_of_its_own() {
    let (app, github, google) = two_services().await;
    let alice = Console::account(&app).signed_in(&app, "alice").await;
    for (name, service, other) in [("github", &github, &google), ("google", &google, &github)] {
        let before = other.requests_to("/authorize").len();
        connect(&app, &alice, name, &app.mcp_url()).await;
        let asked = service.requests_to("/authorize").remove(0);
        assert_eq!(asked.param("redirect_uri"), Some(callback_url(&app, name)));
        let redeemed = service.token_requests().remove(0);
        assert_eq!(redeemed.param("redirect_uri"), Some(callback_url(&app, name)));
        assert_eq!(other.requests_to("/authorize").len(), before);
    }
    let list = alice.page(LIST).await;
    assert_eq!(list.matches("value=\"disconnect\"").count(), 2, "{list}");
}

#[tokio::test]
async fn a_callback_that_makes_no_sense_connects_nothing() {
    let world = World::start().await;
    let alice = world.at_account("alice").await;
    let callback = callback_url(&world.app, "github");
    let state = "cx_0123456789abcdef0123456789abcdef.0123456789abcdef0123456789abcdef0123456789a";
    for query in [
        String::new(),
        "code=x".to_owned(),
        "code=x&state=".to_owned(),
        "code=x&state=y".to_owned(),
        format!("code=x&state={state}"),
        format!("error=access_denied&state={state}"),
        format!("code=x&state={state}&state={state}"),
        format!("code=x&code=y&state={state}"),
        "code=%ff&state=%00".to_owned(),
    ] {
        let page = alice.browser.get(&format!("{callback}?{query}")).await;
        says(&page, 403, &["You did not start this connection here"]);
    }
    // A browser that guesses uses nothing up.
    let back = nearly_connect(&world.app, &alice, "github", &world.app.mcp_url()).await;
    let guess = [("accept", "text/html"), ("sec-purpose", "prefetch")];
    alice.browser.send("GET", &back, &guess, "").await.assert_status(503);
    alice.browser.get(&back).await.assert_leads_to(&world.link());
    assert_eq!(world.connections().await, 1);
}

#[tokio::test]
async fn an_attempt_lasts_five_minutes_and_a_person_has_five_at_most() {
    let world = World::start().await;
    let (app, alice) = (&world.app, world.at_account("alice").await);
    let back = nearly_connect(app, &alice, "github", &app.mcp_url()).await;
    app.advance(5 * 60);
    let page = alice.browser.get(&back).await;
    says(&page, 403, &["Connecting took too long", "/connect/github\">Try again</a>"]);
    assert!(world.github.token_requests().is_empty());

    let mut begun = Vec::new();
    for _ in 0..5 {
        begun.push(begin(app, &alice, "github", &app.mcp_url()).await);
    }
    let page = press_connect(app, &alice, "github", &app.mcp_url()).await;
    says(&page, 429, &["Too many attempts", "Please try again in 5 minutes."]);
    assert_eq!(page.header("retry-after"), Some("300"));
    // Others are not held back, and what was begun can be finished.
    let bob = world.at_account("bob").await;
    begin(app, &bob, "github", &app.mcp_url()).await;
    let back = agree(&alice.browser, &begun[0]).await;
    alice.browser.get(&back).await.assert_leads_to(&world.link());
    app.advance(5 * 60);
    begin(app, &alice, "github", &world.notes()).await;
}

#[tokio::test]
async fn a_service_that_fails_gets_a_page_with_a_reference_and_a_way_to_try_again() {
    let world = World::start().await;
    let (app, alice) = (&world.app, world.at_account("alice").await);
    let try_again = format!("href=\"{}\">Try again</a>", raw_path(&world.link()));

    let back = nearly_connect(app, &alice, "github", &app.mcp_url()).await;
    world.github.down(true);
    let page = alice.browser.get(&back).await;
    says(&page, 503, &["The service does not answer", &try_again]);
    assert_eq!(page.header("retry-after"), Some("10"));
    page.reference();
    world.github.down(false);

    let back = nearly_connect(app, &alice, "github", &app.mcp_url()).await;
    world.github.answers(json!({ "error": "incorrect_client_credentials" }));
    let page = alice.browser.get(&back).await;
    says(&page, 502, &["The service is not set up correctly"]);
    page.reference();
    assert_eq!(world.connections().await, 0);

    connect(app, &alice, "github", &app.mcp_url()).await;
}

/// The path and the query of a URL as an attribute has them.
fn raw_path(url: &str) -> String {
    let url = url::Url::parse(url).unwrap();
    format!("{}?{}", url.path(), url.query().unwrap())
}

#[tokio::test]
async fn a_link_to_what_does_not_exist_or_is_not_for_this_person_says_so() {
    let world = World::start().await;
    let alice = world.at_account("alice").await;
    for path in [
        "/connect/nothing".to_owned(),
        with_query("/connect/nothing", &[("for", &world.app.mcp_url())]),
        with_query("/connect/github", &[("for", "https://elsewhere.example/mcp")]),
        with_query("/connect/github", &[("for", &world.app.at("/plain"))]),
        "/connect/GitHub".to_owned(),
    ] {
        let page = alice.get(&path).await;
        says(&page, 404, &["This link leads to no service"]);
        page.reference();
    }
    // Mallory may use the notes, and not the to-do server.
    let mallory = world.at_account("mallory").await;
    let page = mallory.browser.get(&world.link()).await;
    says(&page, 403, &["You have no access", "Mallory", "To-do list"]);
    page.reference();
    let (csrf, mcp) = (mallory.csrf().await, world.app.mcp_url());
    let form = [("csrf", csrf.as_str()), ("for", mcp.as_str())];
    mallory.post("/connect/github", &form).await.assert_page(403);
    let page = mallory.get("/connect/github").await;
    says(&page, 200, &["Notes"]);
    says_not(page.text(), &["To-do list"]);
    assert_eq!(world.connections().await, 0);
}

#[tokio::test]
async fn a_person_whose_role_gives_none_of_the_tools_has_nothing_to_connect() {
    let world = World::for_tools(", tools = [\"purge-todos\"]").await;
    let bob = world.at_account("bob").await;
    let page = bob.browser.get(&world.link()).await;
    says(&page, 403, &["You cannot use this connection"]);
    says(&bob.get("/connect/github").await, 403, &["You cannot use this connection"]);
    let list = bob.page(LIST).await;
    assert!(list.contains("No MCP server that you may use needs another service."), "{list}");
    connect_as(&world.app, "alice", "github").await;

    let world = World::for_tools(", tools = [\"purge-todos\", \"create-todo\"]").await;
    connect_as(&world.app, "bob", "github").await;
    let mallory = world.at_account("mallory").await;
    let list = mallory.page(LIST).await;
    says_not(&list, &["GitHub", "To-do list"]);
}

#[tokio::test]
async fn a_broken_connection_says_so_and_is_connected_again() {
    let mut world = World::start().await;
    let alice = connect_as(&world.app, "alice", "github").await;
    world.app.database.execute("UPDATE connections SET state = 'broken', reason = 'x'").await;
    let list = alice.page(LIST).await;
    assert!(
        list.contains("No longer accepted") && list.contains("aria-label=\"Reconnect GitHub\"")
    );
    let page = alice.browser.get(&world.link()).await;
    says(&page, 200, &["Reconnect GitHub", "no longer accepts this connection", "Read your repos"]);
    connect(&world.app, &alice, "github", &world.app.mcp_url()).await;
    says_not(&alice.page(LIST).await, &["No longer accepted", "Reconnect"]);

    // Tokens of another client of ours are of no use.
    world.app.change_config("portcullis-at-the-service", "another-client");
    world.app.reload().await;
    assert!(alice.page(LIST).await.contains("Reconnect GitHub"));
}

#[tokio::test]
async fn a_connection_that_is_no_longer_configured_can_be_disconnected() {
    let mut world = World::start().await;
    let alice = connect_as(&world.app, "alice", "github").await;
    world.app.change_config("name = \"github\"", "name = \"other\"");
    world.app.reload().await;
    let list = alice.page(LIST).await;
    assert!(list.contains("This service is no longer set up here"), "{list}");
    assert!(list.contains("Not connected"), "the new one: {list}");
    alice.press_and_confirm(LIST, "action", "disconnect").await;
    assert_eq!(world.connections().await, 0);
}

#[tokio::test]
async fn disconnecting_says_what_stops_working_and_asks_once_more() {
    let world = World::start().await;
    let (app, alice) = (&world.app, connect_as(&world.app, "alice", "github").await);
    let bob = connect_as(&world.app, "bob", "github").await;
    let asked = alice.press(LIST, "action", "disconnect").await;
    asked.assert_leads_to(&app.at(CONFIRM));
    assert_eq!(world.connections().await, 2, "nothing is done yet");
    let page = alice.page(CONFIRM).await;
    for part in ["Disconnect GitHub?", "To-do list", "Notes", "are deleted at once"] {
        assert!(page.contains(part), "{part} is not on the page: {page}");
    }
    let (form, _) = forms(&page, &alice.at(CONFIRM))
        .into_iter()
        .find(|(form, _)| form.fields.iter().any(|(name, _)| name == "confirmed"))
        .unwrap();

    let done = alice.browser.post(&form.action, &form.with(&[]), &alice.origin).await;

    done.assert_leads_to(&app.at("/account/connections?done=disconnected"));
    let page = alice.page("/account/connections?done=disconnected").await;
    assert!(page.contains("The service is disconnected.") && page.contains("Not connected"));
    assert_eq!(world.connections().await, 1);
    assert!(bob.page(LIST).await.contains("octocat"), "Bob's connection stays");
    assert_eq!(world.events("connection_removed", "oidc:demo-alice").await, 1);
    app.until_revoked().await;
    assert_eq!(world.github.revoked().len(), 1, "the service was asked to revoke the token");
    let again = alice.browser.post(&form.action, &form.with(&[]), &alice.origin).await;
    again.assert_leads_to(&app.at("/account/connections?done=not_there"));

    // The confirmation was for another connection.
    app.advance(1);
    connect(app, &alice, "github", &app.mcp_url()).await;
    let stale = alice.browser.post(&form.action, &form.with(&[]), &alice.origin).await;
    stale.assert_leads_to(&app.at(CONFIRM));
    assert!(alice.browser.get(stale.location()).await.text().contains("Nothing was done"));
    assert_eq!(world.connections().await, 2);
}

#[tokio::test]
async fn ad_01_a_form_from_elsewhere_disconnects_nothing() {
    let world = World::start().await;
    let alice = connect_as(&world.app, "alice", "github").await;
    let bob = world.at_account("bob").await;
    let page = alice.page(CONFIRM).await;
    let (form, _) = forms(&page, &alice.at(CONFIRM))
        .into_iter()
        .find(|(form, _)| form.fields.iter().any(|(name, _)| name == "confirmed"))
        .unwrap();
    for from in ["https://evil.example", world.app.admin_url.as_str()] {
        alice.browser.post(&form.action, &form.with(&[]), from).await.assert_page(403);
    }
    alice
        .browser
        .post(&form.action, &form.with(&[("csrf", "")]), &alice.origin)
        .await
        .assert_page(403);
    // Bob's own form finds nothing of Alice's, whatever it says.
    let csrf = bob.csrf().await;
    for also in ["", "oidc:demo-alice"] {
        let fields = form.with(&[("csrf", &csrf), ("sub", also), ("subject", also)]);
        let answer = bob.browser.post(&form.action, &fields, &bob.origin).await;
        answer.assert_leads_to(&world.app.at("/account/connections?done=not_there"));
    }
    bob.get(CONFIRM).await.assert_leads_to(&world.app.at("/account/connections?done=not_there"));
    alice.get(REMOVE).await.assert_page(405);
    assert_eq!(world.connections().await, 1);
}

async fn speak(browser: &Browser, url: &str, language: Language) -> Answer {
    let headers = [("accept", "text/html"), ("accept-language", language.tag())];
    browser.send("GET", url, &headers, "").await
}

#[tokio::test]
async fn the_pages_are_in_every_language_and_offer_the_others() {
    let world = World::start().await;
    let (app, alice) = (&world.app, connect_as(&world.app, "alice", "github").await);
    let bob = world.at_account("bob").await;
    let (list, confirm) = (app.at(LIST), app.at(CONFIRM));
    let (link, notes) = (world.link(), connect_url(app, "github", &world.notes()));
    for language in Language::ALL {
        let w = language.words();
        for (who, url, title) in [
            (&bob, &link, w.connect.title.with("GitHub")),
            (&alice, &link, w.connect.done_title.with("GitHub")),
            (&alice, &notes, w.connect.more_title.with("GitHub")),
            (&alice, &list, w.services.title.clone()),
            (&alice, &confirm, w.services.confirm_title.with("GitHub")),
        ] {
            let page = speak(&who.browser, url, language).await;
            page.assert_page(200);
            let tag = language.tag();
            assert!(page.text().contains(&format!("<html lang=\"{tag}\">")), "{url} {tag}");
            assert!(page.text().contains(&format!("<title>{title} · ")), "{tag}: {}", page.text());
            assert_eq!(page.text().matches("aria-current=\"true\"").count(), 1, "{url} {tag}");
            let chosen = who.browser.choose_language(&app.url, "de", url).await;
            assert_eq!(chosen.location(), *url);
            who.browser.forget("language");
        }
    }
}

#[tokio::test]
async fn the_consent_page_says_in_which_services_the_mcp_server_acts() {
    let world = World::start().await;
    let client = world.app.client().await;
    let (page, _) = client.ask(&[]).await;
    let parts = [
        "<b class=\"name\">To-do list</b> will act in <b class=\"name\">GitHub</b> as you, with:",
        "Read your repositories",
        "<b class=\"name\">A program on this computer</b> never sees this token.",
    ];
    says(&page, 200, &parts);
    says_not(page.text(), &["Change your repositories"]);
    let plain = world.app.at("/plain");
    let (page, _) = client.ask(&[("resource", &plain), ("scope", "use")]).await;
    says_not(page.text(), &["GitHub", "never sees"]);
}

#[tokio::test]
async fn the_consent_page_says_that_the_sign_in_itself_is_used() {
    let own = "[resource]\nupstream_token = { header = \"X-Portcullis-Upstream-Token\" }";
    let app = TestApp::with(Setup::toml(own)).await;
    let (page, _) = app.client().await.ask(&[]).await;
    let sentence = "<b class=\"name\">To-do list</b> will act in <b class=\"name\">the demo \
                    identity provider</b> as you.";
    says(&page, 200, &[sentence, "never sees this token."]);
    let alice = Console::account(&app).signed_in(&app, "alice").await;
    let list = alice.page(LIST).await;
    assert!(list.contains("With your sign-in") && list.contains("To-do list"), "{list}");
    let mallory = Console::account(&app).signed_in(&app, "mallory").await;
    says_not(&mallory.page(LIST).await, &["With your sign-in", "To-do list"]);
}

/// Opens the address of the authorization as somebody who typed it.
async fn open(client: &McpClient) -> Answer {
    let url = client.authorize_url(&[("scope", "create:todos")]);
    let headers = [("accept", "text/html"), ("sec-fetch-site", "none")];
    client.browser.send("GET", &url, &headers, "").await
}

/// CD-02: a remembered approval covers the services that the page named, and no others.
#[tokio::test]
async fn cd_02_a_remembered_approval_asks_again_when_the_mcp_server_uses_more() {
    let mut world = World::start().await;
    let metadata = json!({
        "client_name": "Reports",
        "redirect_uris": ["https://app.example/cb"],
        "token_endpoint_auth_method": "none",
    });
    let client = McpClient::register_as(&world.app, metadata).await;
    let admin = Console::admin(&world.app).signed_in(&world.app, "alice").await;
    let path = with_query("/client", &[("id", &client.id)]);
    admin.press(&path, "action", "trust").await.assert_status(303);
    let approve = async || {
        let back = client.authorize("bob", &[("scope", "create:todos")]).await;
        back.assert_leads_to("https://app.example/cb");
    };
    approve().await;
    open(&client).await.assert_leads_to(world.app.idp.issuer());

    let (before, after) = ("scopes = [\"read\"], header", "scopes = [\"read\", \"write\"], header");
    world.app.change_config(before, after);
    world.app.reload().await;
    let page = open(&client).await;
    says(&page, 200, &["Change your repositories", "name=\"decision\" value=\"approve\""]);
    approve().await;
    open(&client).await.assert_leads_to(world.app.idp.issuer());

    // Less than the page said needs no question.
    world.app.change_config(after, before);
    world.app.reload().await;
    open(&client).await.assert_leads_to(world.app.idp.issuer());
}
