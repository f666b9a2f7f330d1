//! What the admin pages do, from the shell, with the server running beside.

use std::process::Output;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::harness::TestApp;
use crate::harness::client::{McpClient, Tokens};
use crate::harness::process::portcullis;

/// A running server, and a shell on its machine.
struct Shell {
    app: TestApp,
}

struct Ran(Output);

impl Ran {
    fn code(&self) -> i32 {
        self.0.status.code().unwrap()
    }

    fn out(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    fn err(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    fn ok(&self) -> String {
        assert_eq!(self.code(), 0, "{} {}", self.out(), self.err());
        self.out()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }
}

impl Shell {
    async fn start() -> Self {
        let app = TestApp::start_on_the_real_clock().await;
        std::fs::write(app.database.folder.join("portcullis.toml"), app.config_text()).unwrap();
        Self { app }
    }

    async fn run(&self, arguments: &[&str]) -> Ran {
        let mut command = portcullis(&self.app.database.folder);
        command.args(arguments);
        // The server must go on while the command runs.
        Ran(tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap())
    }

    async fn call(&self, client: &McpClient, tokens: &Tokens) -> u16 {
        client.rpc(&tokens.access_token, "tools/list", json!({})).await.status.as_u16()
    }

    /// The gateway notices within a second what another process has ended.
    async fn is_out_within_a_second(&self, client: &McpClient, tokens: &Tokens) {
        let since = Instant::now();
        while self.call(client, tokens).await != 401 {
            assert!(since.elapsed() < Duration::from_millis(1500), "still let in");
            tokio::task::yield_now().await;
        }
    }
}

/// An open event stream of a session of the older MCP revisions.
async fn listen(app: &TestApp, tokens: &Tokens) -> hyper::body::Incoming {
    use http_body_util::BodyExt;
    let authorization = format!("Bearer {}", tokens.access_token);
    let accept = ("accept", "application/json, text/event-stream");
    let headers = [("authorization", authorization.as_str()), accept];
    let body = json!({
        "jsonrpc": "2.0", "id": 1, "method": "initialize",
        "params": { "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } },
    });
    let answer = app.http.post_json(&app.mcp_url(), &body, &headers).await;
    let session = answer.assert_status(200).header("mcp-session-id").unwrap().to_owned();
    let headers = [
        headers[0],
        accept,
        ("mcp-session-id", session.as_str()),
        ("mcp-protocol-version", "2025-06-18"),
    ];
    let mut stream = app.http.open("GET", &app.mcp_url(), &headers, "").await.into_body();
    stream.frame().await.unwrap().unwrap();
    stream
}

#[tokio::test]
async fn a_grant_revoked_from_the_shell_ends_its_stream_within_a_second() {
    use http_body_util::BodyExt;
    let shell = Shell::start().await;
    let (client, tokens) = shell.app.tokens_of("bob").await;
    let (other, kept) = shell.app.tokens_of("alice").await;
    let mut stream = listen(&shell.app, &tokens).await;
    let grants = shell.run(&["grants", "list", "--person", "oidc:demo-bob", "--json"]).await.json();
    let grant = grants["grants"][0]["grant_id"].as_str().unwrap().to_owned();

    let said = shell.run(&["grants", "revoke", &grant]).await.ok();

    let since = Instant::now();
    assert!(said.contains("has ended"), "{said}");
    while let Some(Ok(_)) = stream.frame().await {}
    assert!(since.elapsed() < Duration::from_millis(1500), "{:?}", since.elapsed());
    assert_eq!(shell.call(&client, &tokens).await, 401);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    assert_eq!(shell.call(&other, &kept).await, 200);
    let again = shell.run(&["grants", "revoke", &grant, "--json"]).await.json();
    assert_eq!(again["changed"], false);
    let story = shell.run(&["audit", "list", "--grant", &grant, "--json"]).await.json();
    assert_eq!(story["events"][0]["event"], "grant_revoked");
    assert_eq!(story["events"][0]["actor"], "shell");
    // The table tells it in a sentence with names, as the page *Audit* does, and keeps the code.
    let table = shell.run(&["audit", "list", "--grant", &grant]).await.ok();
    let line = table.lines().find(|line| line.contains("grant_revoked")).unwrap();
    let sentence = "An administrator (command line) ended the connection of Bob Brown with";
    assert!(line.contains(sentence), "{table}");
}

#[tokio::test]
async fn many_grants_end_at_once() {
    let shell = Shell::start().await;
    for (which, person) in [("--client", "bob"), ("--person", "alice"), ("--before", "bob")] {
        let (client, tokens) = shell.app.tokens_of(person).await;
        let value = match which {
            "--client" => client.id.clone(),
            "--person" => format!("oidc:demo-{person}"),
            _ => "2999-01-01".to_owned(),
        };
        assert_eq!(shell.call(&client, &tokens).await, 200);
        let ended =
            shell.run(&["grants", "revoke-all", which, &value, "--json", "--yes"]).await.json();
        assert_eq!(ended["ended"], 1, "{which}");
        shell.is_out_within_a_second(&client, &tokens).await;
    }
    let wrong = shell.run(&["grants", "revoke-all", "--before", "yesterday"]).await;
    assert_eq!(wrong.code(), 2);
    assert!(wrong.err().contains("2026-11-21"), "{}", wrong.err());
    assert_eq!(shell.run(&["grants", "revoke-all"]).await.code(), 2);
}

/// Everything that ends more than one thing, with how many grants it ends of three that are live: two of
/// bob and one of alice, all of one client.
fn acts(client: &str) -> Vec<(Vec<&str>, u64)> {
    vec![
        (vec!["grants", "revoke-all", "--client", client], 3),
        (vec!["grants", "revoke-all", "--person", "oidc:demo-bob"], 2),
        (vec!["grants", "revoke-all", "--before", "2999-01-01"], 3),
        (vec!["clients", "block", client], 3),
        (vec!["clients", "refuse", client], 3),
        (vec!["clients", "delete", client], 3),
        (vec!["people", "block", "oidc:demo-bob"], 2),
        (vec!["people", "sign-out", "oidc:demo-bob"], 2),
    ]
}

#[tokio::test]
async fn what_ends_more_than_one_thing_says_how_many_first_and_wants_a_yes() {
    for number in 0..8 {
        let shell = Shell::start().await;
        let client = shell.app.client_named("Robot").await;
        client.sign_in("bob").await;
        client.elsewhere().sign_in("bob").await;
        client.elsewhere().sign_in("alice").await;
        let live = "SELECT COUNT(*) FROM grants WHERE revoked_at IS NULL";
        let events = "SELECT COUNT(*) FROM audit_events";
        let told = shell.app.database.number(events).await;
        let (act, count) = acts(&client.id).swap_remove(number);
        let with = |more: &[&'static str]| [act.as_slice(), more].concat();

        let dry = shell.run(&with(&["--dry-run"])).await;
        assert_eq!(dry.code(), 0, "{act:?}: {}", dry.err());
        let said = dry.out();
        assert!(said.contains(&format!("{count} grants")), "{act:?}: {said}");
        assert!(said.contains("Bob Brown") && said.contains("Robot"), "{act:?}: {said}");
        assert_eq!(said.contains("Alice Adams"), count == 3, "{act:?}: {said}");
        assert!(said.contains("Nothing was changed"), "{act:?}: {said}");
        let dry = shell.run(&with(&["--dry-run", "--json"])).await.json();
        assert_eq!(dry["dry_run"], true, "{act:?}");
        assert_eq!(dry["would_end"], count, "{act:?}");
        assert_eq!(dry["grants"].as_array().unwrap().len() as u64, count, "{act:?}");
        // Here no terminal can be asked.
        for more in [&[][..], &["--json"]] {
            let refused = shell.run(&with(more)).await;
            assert_eq!(refused.code(), 2, "{act:?}");
            assert!(refused.err().contains("--yes"), "{act:?}: {}", refused.err());
            assert!(
                refused.err().contains(&format!("{count} grants")),
                "{act:?}: {}",
                refused.err()
            );
            assert_eq!(refused.out(), "", "{act:?}");
        }
        let both = shell.run(&with(&["--dry-run", "--yes"])).await;
        assert_eq!(both.code(), 0, "what is only looked at needs no yes: {}", both.err());
        assert_eq!(shell.app.database.number(live).await, 3, "{act:?}");
        assert_eq!(shell.app.database.number(events).await, told, "{act:?}");

        let done = shell.run(&with(&["--yes", "--json"])).await.json();
        assert_eq!(done["ended"], count, "{act:?}: {done}");
        let left = 3 - i64::try_from(count).unwrap();
        assert_eq!(shell.app.database.number(live).await, left, "{act:?}");
    }
}

#[tokio::test]
async fn ending_nothing_needs_no_yes_and_quiet_says_nothing_of_success() {
    let shell = Shell::start().await;
    let (client, _) = shell.app.tokens_of("bob").await;
    let events = "SELECT COUNT(*) FROM audit_events";
    let told = shell.app.database.number(events).await;
    for which in [["--client", "client_nobody"], ["--before", "2001-01-01"]] {
        let nothing = shell.run(&[&["grants", "revoke-all"][..], &which].concat()).await.ok();
        assert_eq!(nothing, "There is nothing to end.\n");
        let json = [&["grants", "revoke-all", "--json"][..], &which].concat();
        assert_eq!(shell.run(&json).await.json(), json!({ "changed": false, "ended": 0 }));
    }
    assert_eq!(shell.app.database.number(events).await, told, "nothing happened");

    let quiet = ["--quiet", "grants", "revoke-all", "--client", &client.id, "--yes"];
    assert_eq!(shell.run(&quiet).await.ok(), "");
    let live = "SELECT COUNT(*) FROM grants WHERE revoked_at IS NULL";
    assert_eq!(shell.app.database.number(live).await, 0);
}

#[tokio::test]
async fn a_terminal_is_asked_and_only_a_yes_is_one() {
    if std::process::Command::new("script").arg("--version").output().is_err() {
        return; // nothing here plays a terminal
    }
    let shell = Shell::start().await;
    let (client, tokens) = shell.app.tokens_of("bob").await;
    let live = "SELECT COUNT(*) FROM grants WHERE revoked_at IS NULL";
    let ask = async |answer: &'static str| {
        let binary = env!("CARGO_BIN_EXE_portcullis");
        let line = format!("{binary} clients block {}", client.id);
        let mut command = std::process::Command::new("script");
        command.current_dir(&shell.app.database.folder).env_remove("PORTCULLIS_TEST_PATH");
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        tokio::task::spawn_blocking(move || {
            use std::io::Write;
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(answer.as_bytes()).unwrap();
            Ran(child.wait_with_output().unwrap())
        })
        .await
        .unwrap()
    };
    for no in ["n\n", "\n", "yess\n", "\u{4}"] {
        let said = ask(no).await;
        assert_eq!(said.code(), 1, "{}", said.out());
        assert!(said.out().contains("1 grant") && said.out().contains("[y/N]"), "{}", said.out());
        assert!(said.out().contains("Nothing was changed"), "{}", said.out());
        assert_eq!(shell.app.database.number(live).await, 1);
    }
    let said = ask("y\n").await;
    assert_eq!(said.code(), 0, "{}", said.out());
    assert_eq!(shell.app.database.number(live).await, 0);
    shell.is_out_within_a_second(&client, &tokens).await;
}

#[tokio::test]
async fn tables_say_what_is_approved_what_is_in_force_and_in_which_zone_times_are() {
    let shell = Shell::start().await;
    let (client, _) = shell.app.tokens_of("bob").await;
    let listed = shell.run(&["grants", "list", "--json"]).await.json();
    let shown = shell.run(&["people", "show", "oidc:demo-bob", "--json"]).await.json();
    let of_client = shell.run(&["clients", "show", &client.id, "--json"]).await.json();
    for grant in [&listed["grants"][0], &shown["grants"][0], &of_client["grants"][0]] {
        assert_eq!(grant["approved_scope"], "create:todos delete:todos read:todos", "{grant}");
        assert_eq!(grant["scope_in_force"], "create:todos", "{grant}");
        assert!(grant["facts_as_of"].as_str().unwrap().ends_with('Z'), "{grant}");
        assert_eq!(grant["scope"], Value::Null, "the name of what was not so is gone: {grant}");
    }
    let time = regex_lite::Regex::new(r"\d{4}-\d\d-\d\d \d\d:\d\d( UTC)?( UTC)?").unwrap();
    for arguments in [
        &["grants", "list"][..],
        &["grants", "list", "--ended"],
        &["clients", "list"],
        &["clients", "show", &client.id],
        &["people", "list"],
        &["people", "show", "oidc:demo-bob"],
        &["keys", "list"],
        &["audit", "list"],
        &["clock", "show"],
    ] {
        let said = shell.run(arguments).await.ok();
        let times: Vec<&str> = time.find_iter(&said).map(|found| found.as_str()).collect();
        assert!(!times.is_empty(), "{arguments:?}: {said}");
        for found in times {
            // The zone is beside the time, or in the heading of its column.
            let beside = found.matches(" UTC").count();
            let named = beside == 1 || (beside == 0 && said.contains("(UTC)"));
            assert!(named, "{arguments:?}: {found}");
        }
    }
    let table = shell.run(&["grants", "list"]).await.ok();
    assert!(table.contains("APPROVED") && table.contains("IN FORCE NOW"), "{table}");
    let found = shell.run(&["people", "list", "--search", "Bob Brown", "--json"]).await.json();
    assert_eq!(found["people"][0]["sub"], "oidc:demo-bob");
    let found = shell.run(&["people", "list", "--search", "bro", "--json"]).await.json();
    assert_eq!(found["people"][0]["sub"], "oidc:demo-bob");
}

#[tokio::test]
async fn a_person_is_shown_with_what_they_may_do_and_why() {
    let shell = Shell::start().await;
    shell.app.tokens_of("bob").await;

    let shown = shell.run(&["people", "show", "oidc:demo-bob"]).await.ok();
    let json = shell.run(&["people", "show", "oidc:demo-bob", "--json"]).await.json();

    let lines: Vec<&str> = shown.lines().collect();
    let heads = lines.iter().position(|line| line.starts_with("MCP SERVER")).unwrap();
    assert!(lines[heads].contains("MAY NOT") && lines[heads].ends_with("WHY"), "{shown}");
    let mcp = shell.app.mcp_url();
    for text in [mcp.as_str(), "create:todos", "delete:todos read:todos", "rule 2"] {
        assert!(lines[heads + 1].contains(text), "{text} is missing: {shown}");
    }
    for (search, found) in [("Bob Brown", 1), ("bro", 1), ("nobody", 0)] {
        let grants = shell.run(&["grants", "list", "--search", search, "--json"]).await.json();
        assert_eq!(grants["grants"].as_array().unwrap().len(), found, "{search}");
    }
    let may = &json["may"][0];
    assert_eq!(may["resource"], mcp.as_str());
    assert_eq!(
        (may["refused"].as_bool(), may["may"].as_str()),
        (Some(false), Some("create:todos"))
    );
    assert_eq!(may["may_not"], "delete:todos read:todos");
    assert_eq!(may["rules"], serde_json::json!(["rule 2"]));
}

#[tokio::test]
async fn a_client_blocked_from_the_shell_is_refused_everything() {
    let shell = Shell::start().await;
    let (client, tokens) = shell.app.tokens_of("bob").await;

    shell.run(&["clients", "block", &client.id, "--yes"]).await.ok();

    shell.is_out_within_a_second(&client, &tokens).await;
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    let page = client.browser.get(&client.authorize_url(&[])).await;
    page.assert_page(403);
    assert!(page.text().contains("This application is blocked"));
    let again = shell.run(&["clients", "block", &client.id, "--yes"]).await.ok();
    assert!(again.contains("blocked before"), "{again}");
    let blocked = shell.run(&["clients", "list", "--standing", "blocked", "--json"]).await.json();
    assert_eq!(blocked["clients"][0]["client_id"], client.id.as_str());

    shell.run(&["clients", "unblock", &client.id]).await.ok();
    client.sign_in("bob").await;
}

#[tokio::test]
async fn clients_are_made_shown_trusted_and_deleted() {
    let shell = Shell::start().await;
    let website = "https://reports.example/cb";
    let create = ["clients", "create", "--name", "Reports", "--redirect-uri", website, "--json"];
    let made = shell.run(&create).await.json();
    let (id, secret) =
        (made["client_id"].as_str().unwrap(), made["client_secret"].as_str().unwrap());
    let shown = shell.run(&["clients", "show", id]).await.ok();
    assert!(shown.contains("Reports") && !shown.contains(secret), "{shown}");
    let mut client = shell.app.client().await;
    let own = client.id.clone();
    client.id = id.to_owned();
    client.secret = Some(secret.to_owned());
    client.redirect_uri = website.to_owned();
    let tokens = client.sign_in("bob").await;

    shell.run(&["clients", "trust", id]).await.ok();
    assert_eq!(shell.run(&["clients", "show", id, "--json"]).await.json()["trusted"], true);
    shell.run(&["clients", "untrust", id]).await.ok();
    let program = shell.run(&["clients", "trust", &own]).await;
    assert_eq!(program.code(), 1);
    assert!(program.err().contains("cannot be trusted"), "{}", program.err());

    shell.run(&["clients", "delete", id, "--yes"]).await.ok();
    shell.is_out_within_a_second(&client, &tokens).await;
    let gone = shell.run(&["clients", "show", id]).await;
    assert!(gone.err().contains("clients list --search"), "{}", gone.err());
    assert_eq!(gone.code(), 1);
    let bad = ["clients", "create", "--redirect-uri", "http://reports.example/cb"];
    let bad = shell.run(&bad).await;
    assert_eq!(bad.code(), 1);
    assert!(bad.err().contains("http is allowed for"), "{}", bad.err());
}

#[tokio::test]
async fn lists_are_paged_to_their_end() {
    let shell = Shell::start().await;
    let mut registered = Vec::new();
    for number in 0..7 {
        let metadata = json!({
            "client_name": format!("Robot {number}"),
            "redirect_uris": ["http://127.0.0.1:1/cb"],
            "token_endpoint_auth_method": "none",
        });
        registered.push(McpClient::register_as(&shell.app, metadata).await.id);
    }
    for id in &registered {
        shell.run(&["clients", "block", id, "--yes"]).await.ok();
    }
    for search in [
        &[][..],
        &["--search", "robot"],
        &["--standing", "blocked"],
        &["--standing", "blocked", "--search", "robot"],
    ] {
        let mut found = Vec::new();
        let mut after = String::new();
        loop {
            let list = ["clients", "list", "--json", "--limit", "3", "--after", &after];
            let page = shell.run(&[&list[..], search].concat()).await.json();
            for client in page["clients"].as_array().unwrap() {
                found.push(client["client_id"].as_str().unwrap().to_owned());
            }
            let Some(next) = page["next"].as_str() else { break };
            after = next.to_owned();
        }
        found.sort();
        registered.sort();
        assert_eq!(found, registered);
    }
}

#[tokio::test]
async fn people_are_blocked_and_signed_out() {
    let shell = Shell::start().await;
    let (client, tokens) = shell.app.tokens_of("bob").await;
    let found = shell.run(&["people", "list", "--search", "brown", "--json"]).await.json();
    let bob = found["people"][0]["sub"].as_str().unwrap();
    assert_eq!(bob, "oidc:demo-bob");
    let shown = shell.run(&["people", "show", bob]).await.ok();
    assert!(shown.contains("Bob Brown") && shown.contains("User"), "{shown}");

    assert_eq!(shell.run(&["people", "sign-out", bob, "--json", "--yes"]).await.json()["ended"], 1);
    shell.is_out_within_a_second(&client, &tokens).await;
    let tokens = client.elsewhere().sign_in("bob").await;

    shell.run(&["people", "block", bob, "--yes"]).await.ok();
    shell.is_out_within_a_second(&client, &tokens).await;
    let blocked = shell.run(&["people", "list", "--blocked", "--json"]).await.json();
    assert_eq!(blocked["people"][0]["sub"], bob);
    let refused = client.elsewhere().authorize("bob", &[]).await;
    assert_eq!(refused.status, 403, "{}", refused.text());

    shell.run(&["people", "unblock", bob]).await.ok();
    client.elsewhere().sign_in("bob").await;
    let nobody = shell.run(&["people", "block", "oidc:nobody", "--yes"]).await;
    assert!(nobody.err().contains("people list --search"), "{}", nobody.err());
}

#[tokio::test]
async fn a_grant_that_has_expired_is_not_counted_as_live() {
    let shell = Shell::start().await;
    let (client, _) = shell.app.tokens_of("bob").await;
    client.elsewhere().sign_in("bob").await;
    let live = async || {
        let listed = shell.run(&["people", "list", "--json"]).await.json();
        let shown = shell.run(&["people", "show", "oidc:demo-bob", "--json"]).await.json();
        assert_eq!(listed["people"][0]["live_grants"], shown["live_grants"]);
        shown["live_grants"].as_i64().unwrap()
    };
    let had = live().await;
    let expire = "UPDATE grants SET expires_at = 1
                  WHERE id = (SELECT MIN(id) FROM grants WHERE revoked_at IS NULL)";
    shell.app.database.execute(expire).await;

    assert_eq!(live().await, had - 1);
    assert!(had > 0);
}

#[tokio::test]
async fn verify_tells_by_its_exit_code_whether_the_chain_holds() {
    let shell = Shell::start().await;
    shell.app.tokens_of("bob").await;
    let holds = shell.run(&["audit", "verify", "--json"]).await.json();
    let head = holds["head"].as_str().unwrap().to_owned();
    shell.app.tokens_of("bob").await;
    shell.run(&["audit", "verify", "--expect", &head]).await.ok();

    let database = &shell.app.database;
    database.execute("UPDATE audit_events SET subject = 'oidc:mallory' WHERE seq = 3").await;
    let broken = shell.run(&["audit", "verify"]).await;
    assert_eq!(broken.code(), 2);
    assert!(broken.out().contains("line 3 "), "{}", broken.out());
    database.execute("UPDATE audit_events SET subject = 'oidc:demo-bob' WHERE seq = 3").await;
    shell.run(&["audit", "verify"]).await.ok();

    let (seq, mac) = head.split_once(':').unwrap();
    for (expect, found) in [
        (format!("{seq}:{}x", &mac[1..]), "is not the one that stood there"),
        (format!("4000:{mac}"), "ends at line"),
    ] {
        let broken = shell.run(&["audit", "verify", "--expect", &expect]).await;
        assert_eq!(broken.code(), 2, "{expect}");
        assert!(broken.out().contains(found), "{}", broken.out());
    }

    let text = shell.app.config_text().replace("a test key that is", "another key that is");
    std::fs::write(database.folder.join("other.toml"), text).unwrap();
    let untold = shell.run(&["audit", "verify", "--config", "other.toml"]).await;
    assert_eq!(untold.code(), 3);
    assert!(untold.out().contains("secret key does not fit"), "{}", untold.out());
}

#[tokio::test]
async fn an_export_has_every_line_and_no_formula() {
    let shell = Shell::start().await;
    let (client, _) = shell.app.tokens_of("bob").await;
    let database = &shell.app.database;
    database
        .execute(
            "UPDATE audit_events SET reference = '=HYPERLINK(\"//x\")' WHERE event = 'code_issued'",
        )
        .await;
    let lines = shell.run(&["audit", "export"]).await.ok();
    let events: Vec<Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let names: Vec<&str> = events.iter().map(|line| line["event"].as_str().unwrap()).collect();
    for event in ["client_registered", "consent_approved", "code_issued", "code_redeemed"] {
        assert!(names.contains(&event), "{names:?}");
    }

    let export = ["audit", "export", "--format", "csv", "--client", &client.id];
    let csv = shell.run(&export).await.ok();
    assert!(csv.starts_with("id,at,event,"), "{csv}");
    assert!(csv.contains("\"'=HYPERLINK(\"\"//x\"\")\""), "{csv}");
    let exported =
        shell.run(&["audit", "list", "--event", "audit_exported", "--json"]).await.json();
    assert_eq!(exported["events"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn names_of_strangers_give_the_terminal_no_orders() {
    let shell = Shell::start().await;
    let metadata = json!({
        "client_name": "Nice\u{1b}[2J\u{9b}31m\u{202e}name",
        "redirect_uris": ["http://127.0.0.1:1/cb"],
        "token_endpoint_auth_method": "none",
    });
    let answer = shell.app.http.post_json(&shell.app.at("/register"), &metadata, &[]).await;
    // Whether such a name is accepted at all is the registration's to say; nothing here depends on it.
    let hostile = metadata["client_name"].as_str().unwrap();
    if answer.status != 201 {
        shell.app.client().await;
        let sql =
            format!("UPDATE clients SET metadata = REPLACE(metadata, 'Test client', '{hostile}')");
        shell.app.database.execute(&sql).await;
    }
    let id = shell.run(&["clients", "list", "--json"]).await.json();
    let id = id["clients"][0]["client_id"].as_str().unwrap().to_owned();
    for arguments in
        [vec!["clients", "list"], vec!["clients", "list", "--json"], vec!["clients", "show", &id]]
    {
        let out = shell.run(&arguments).await.ok();
        let orders = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!out.contains(orders), "{arguments:?}: {out:?}");
    }
}

#[tokio::test]
async fn keys_rotated_from_the_shell_are_published_by_the_running_server() {
    let shell = Shell::start().await;
    let (client, tokens) = shell.app.tokens_of("bob").await;
    assert!(shell.run(&["keys", "rotate"]).await.ok().contains("sign in 10 minutes"));
    assert!(shell.run(&["keys", "rotate"]).await.ok().contains("not through yet"));

    let keys = shell.run(&["keys", "list", "--json"]).await.json();
    let states: Vec<&str> =
        keys["keys"].as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["next", "signs"]);
    shell.app.advance(61); // a server reads the keys at least once a minute
    let jwks = shell.app.http.get(&shell.app.at("/.well-known/jwks.json")).await.json();
    assert_eq!(jwks["keys"].as_array().unwrap().len(), 2);
    client.rpc(&tokens.access_token, "tools/list", serde_json::json!({})).await.assert_status(200);
}

#[tokio::test]
async fn commands_need_a_database_of_their_own_version_and_make_none() {
    let shell = Shell::start().await;
    let database = &shell.app.database;
    let keys = shell.run(&["keys", "list", "--json"]).await.json();
    assert_eq!(keys["keys"][0]["signs"], true);
    let explained = ["explain", "--user", "oidc:demo-bob", "--request", "create:todos"];
    assert!(shell.run(&explained).await.err().contains("nobody with the sub"));
    shell.app.tokens_of("bob").await;
    assert!(shell.run(&explained).await.ok().contains("granted        create:todos"));

    // An older schema is refused too: the unit test of `migrate.rs` shows it, since this is the first one.
    for (change, found) in [
        (
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             SELECT 1001, 'later', success, checksum, 0 FROM _sqlx_migrations WHERE version = 1",
            "a newer Portcullis",
        ),
        (
            "UPDATE _sqlx_migrations SET description = 'the main flow' WHERE version = 1",
            "before the first release",
        ),
    ] {
        database.execute(change).await;
        let ran = shell.run(&["clients", "list"]).await;
        assert_eq!(ran.code(), 1);
        assert!(ran.err().contains(found), "{}", ran.err());
    }
    if database.is_postgres() {
        return;
    }
    let nowhere = shell.app.config_text().replace("portcullis.db", "nowhere.db");
    std::fs::write(database.folder.join("nowhere.toml"), nowhere).unwrap();
    let ran = shell.run(&["clients", "list", "--config", "nowhere.toml"]).await;
    assert!(ran.err().contains("there is no database at"), "{}", ran.err());
    assert!(!database.folder.join("nowhere.db").exists());
    std::fs::write(database.folder.join("nowhere.db"), "").unwrap();
    let ran = shell.run(&["clients", "list", "--config", "nowhere.toml"]).await;
    assert!(ran.err().contains("no Portcullis has served"), "{}", ran.err());
}

#[tokio::test]
async fn commands_at_once_and_a_busy_server_lose_nothing() {
    let shell = Shell::start().await;
    for _ in 0..8 {
        shell.app.tokens_of("bob").await;
    }
    let listed = shell.run(&["grants", "list", "--json"]).await.json();
    let grants: Vec<&str> = listed["grants"]
        .as_array()
        .unwrap()
        .iter()
        .map(|grant| grant["grant_id"].as_str().unwrap())
        .collect();
    assert_eq!(grants.len(), 8);
    let revoke = futures_util::future::join_all(grants.iter().map(|grant| {
        let shell = &shell;
        async move { shell.run(&["grants", "revoke", grant]).await.ok() }
    }));
    let serve = async {
        for _ in 0..10 {
            shell.app.tokens_of("alice").await;
        }
    };
    tokio::join!(revoke, serve);

    let revoked =
        "SELECT COUNT(*) FROM grants WHERE subject = 'oidc:demo-bob' AND revoked_at IS NULL";
    assert_eq!(shell.app.database.number(revoked).await, 0);
    shell.run(&["audit", "verify"]).await.ok();
}

#[tokio::test]
async fn every_command_of_the_shell_has_help_with_an_example() {
    let place = crate::harness::database::Database::new().await;
    let commands: &[(&str, &[&str])] = &[
        (
            "clients",
            &[
                "list", "show", "approve", "refuse", "block", "unblock", "trust", "untrust",
                "delete", "create",
            ],
        ),
        ("grants", &["list", "revoke", "revoke-all"]),
        ("people", &["list", "show", "block", "unblock", "sign-out"]),
        ("keys", &["list"]),
        ("audit", &["list", "export", "verify"]),
    ];
    for (command, parts) in commands {
        let whole = crate::harness::process::run(&place.folder, &[command, "--help"], &[]);
        let whole = String::from_utf8(whole.stdout).unwrap();
        for part in *parts {
            assert!(whole.contains(part), "{command} {part} is not in: {whole}");
            let arguments = [*command, *part, "--help"];
            let help = crate::harness::process::run(&place.folder, &arguments, &[]);
            let help = String::from_utf8(help.stdout).unwrap();
            assert!(help.contains("Example"), "{command} {part}: {help}");
            assert!(help.contains("--json") && help.contains("--config"), "{command} {part}");
        }
    }
}

#[tokio::test]
async fn the_populated_demo_is_full_once_and_its_chain_holds() {
    use std::io::{BufRead, BufReader};
    let place = crate::harness::database::Database::new().await;
    if place.is_postgres() {
        return; // the demo is an SQLite file
    }
    for start in 1..=2 {
        let mut demo = portcullis(&place.folder)
            .args(["demo", "--populated", "--listen", "127.0.0.1:0", "--data", "."])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(demo.stdout.take().unwrap());
        let mut said = String::new();
        while !said.contains("Ctrl-C") {
            assert!(lines.read_line(&mut said).unwrap() > 0, "the demo ended: {said}");
        }
        for (sql, number) in [
            ("SELECT COUNT(*) FROM clients", 50),
            ("SELECT COUNT(*) FROM people", 200),
            ("SELECT COUNT(*) FROM client_reviews WHERE state = 'waiting'", 4),
            ("SELECT COUNT(*) FROM client_reviews WHERE trusted = 1", 4),
            ("SELECT COUNT(*) FROM client_reviews WHERE blocked = 1", 3),
            ("SELECT COUNT(*) FROM client_reviews WHERE state = 'refused'", 2),
            ("SELECT COUNT(*) FROM people WHERE blocked_at IS NOT NULL", 2),
            ("SELECT COUNT(DISTINCT at / 86400000) / 14 FROM audit_events", 1),
        ] {
            assert_eq!(place.number(sql).await, number, "start {start}: {sql}");
        }
        demo.kill().unwrap();
        demo.wait().unwrap();
    }
    let storage = portcullis::storage::Storage::attach(&place.url, None).await.unwrap();
    let verified = storage.verify_audit().await.unwrap().unwrap();
    assert!(verified.head.seq > 1000, "{verified:?}");
}
