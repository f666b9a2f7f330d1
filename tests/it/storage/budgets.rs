//! What anybody can have stored has a budget: the audit trail its size, the file a share that is kept for the
//! people who are in, and nobody's events push out anybody else's.
//!
//! Every table that rows are inserted into, who can cause them, and what bounds them. (Shares are of
//! `limits.database_size`; see `src/storage/database/sqlite/size_limit.rs`.)
//!
//! | table | who can cause rows | what bounds them |
//! |---|---|---|
//! | `audit_events` | anybody: denials, registrations, pages, failed sign-ins | `audit_size`; 6,000 lines a minute that name nobody, 2,000 an hour of one person; 80 % of the file |
//! | `audit_gaps` | the server, when it removes lines | at most one for each line that stays |
//! | `clients` | anybody registers; a client changes itself | `clients`, rates per address; 85 % of the file |
//! | `consents` | anybody decides on a page | rates per address; a denial is forgotten five minutes after its page has expired, an approval a day; denials 80 %, approvals 90 % of the file |
//! | `logins` | anybody approves a page | `pending_logins…`; gone an hour after the end; 90 % of the file |
//! | `replay_guard` | a client that signs, and anybody can register one; a browser that comes back from the identity provider; the identity provider by a signature of its keys | rates per address; forgotten five minutes after the end, a logout token a day; assertions 85 % of the file, but for clients with grants; sign-ins 90 % |
//! | `upstream_sign_outs` | the identity provider alone, and a sign-in | its own rate, and one for each person and session; an hour |
//! | `upstream_sessions`, `people`, `people_words` | people who can sign in at the identity provider | one for each session, person and word of a name |
//! | `authorization_codes` | people who have signed in | one for each sign-in; a day |
//! | `grants` | people who have signed in | `grants_per_person`, `grants_per_client` |
//! | `refresh_tokens` | whoever holds a grant | `refreshes_per_minute`; used ones beyond a thousand of a grant go where there is no room for sign-ins |
//! | `refused_people` | people who can sign in at the identity provider and are refused by the rules | one for each person and MCP server; `refused_people`, 32 KiB each; `refused_person_expiry`; 80 % of the file |
//! | `web_sessions` | people who have signed in | one for each sign-in; a day |
//! | `remembered_consents` | people who have signed in, for trusted clients | one for each approval, until it expires |
//! | `logins_awaiting_approval` | people who have signed in | one for each sign-in; a day |
//! | `client_reviews` | people who wait, administrators, the configuration | one for each client |
//! | `approval_patterns` | administrators | one for each website, and a hundred in all |
//! | `scope_challenges` | whoever holds a grant | 32 of a grant; a quarter of an hour |
//! | `certificates`, `acme_secrets` | the server, as `[tls.acme]` says | one for each directory and list of names that was configured, and one for each name while it is validated; a certificate goes 30 days after its end |
//! | `signing_keys` | administrators | one for each rotation |
//! | `connections` | people who have signed in | one for each person and configured service; until it is disconnected, a broken one 90 days |
//! | `connection_attempts` | people who have signed in | 5 open ones of a person; an hour; 90 % of the file |
//! | `token_revocations` | the server: services that were disconnected, sign-ins that ended | one for each of them; a day |
//! | `mcp_tasks` | a person's tool call that an MCP server answers with a task | 1,000 of a person; an hour to 30 days |
//! | `usage_keys`, `usage_hours`, `usage_days`, `usage_of_servers` | people's calls through the gateway | `usage_rows` and `[usage] retention`; 576 names of tools of each MCP server and day, 32,768 sums of a process at once; 80 % of the file |
//! | `notifications` | who can cause what `[[notify]]` reports | one open message for each target and kind; 200 of a target, the oldest go first; given up after 12 hours |
//! | `notification_targets` | the server | one for each target and kind |
//! | `replicas` | the server, at a start | one for each process of the last five minutes |
//! | `installation`, `counters` | the server | a fixed number of names |

use futures_util::future::join_all;
use portcullis::clock::Clock;
use portcullis::storage::{AuditFilter, AuditLine};
use serde_json::{Value, json};

use crate::harness::client::{McpClient, REDIRECT_URI, Tokens};
use crate::harness::http::Answer;
use crate::harness::signer::{ASSERTION_TYPE, Signer};
use crate::harness::{Setup, TestApp};

fn limits(text: &str) -> Setup {
    Setup::toml(format!("[limits]\nrequest_rates = false\n{text}"))
}

/// The smallest database there is.
const SMALL: &str = "database_size = 1572864";

/// Somebody in a new browser presses Deny.
async fn deny(client: &McpClient) -> Answer {
    let client = client.elsewhere();
    let (_, form) = client.ask(&[]).await;
    client.decide(&form, "deny").await
}

/// Twenty at a time, until a batch of them is refused or `most` were tried; answers how many succeeded.
async fn flood<F: Future<Output = u16>>(most: usize, attempt: impl Fn(usize) -> F) -> usize {
    let mut done = 0;
    for batch in 0..most / 20 {
        let statuses = join_all((0..20).map(|n| attempt(20 * batch + n))).await;
        let refused = statuses.iter().filter(|status| **status == 503).count();
        assert!(statuses.iter().all(|status| *status < 500 || *status == 503), "{statuses:?}");
        done += statuses.len() - refused;
        if refused == statuses.len() {
            break;
        }
    }
    done
}

async fn is_ready(app: &TestApp) -> Value {
    app.advance(6); // an answer is good for five seconds
    app.http.get(&app.at("/ready")).await.assert_status(200).json()
}

#[tokio::test]
async fn a_flood_of_denials_never_fills_the_database() {
    let app = TestApp::with(limits(SMALL)).await;
    let (client, tokens) = app.tokens_of("bob").await;

    let denied = flood(2400, async |_| deny(&client).await.status.as_u16()).await;

    assert!(denied > 100, "only {denied}");
    // Refreshes and sign-ins go on; the file says so itself.
    let next = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    let again = client.elsewhere().sign_in("bob").await;
    client.refresh(&next.refresh_token).await.assert_status(200);
    client.refresh(&again.refresh_token).await.assert_status(200);
    let file = app.database.folder.join("portcullis.db");
    if !app.database.is_postgres() {
        assert!(std::fs::metadata(&file).unwrap().len() <= 1_572_864);
    }
    let ready = is_ready(&app).await;
    assert_ne!(ready["room"], "none", "{ready}");
}

/// What strangers can have stored, besides denials. After a flood of each, who is in goes on.
#[tokio::test]
async fn a_flood_of_whatever_strangers_can_have_stored_leaves_room_for_who_is_in() {
    let signer = &Signer::new("one");
    // What is done any number of times, and whether sign-ins may begin after it: those that were begun for
    // nothing take the room of those that are meant.
    for (kind, sign_ins_go_on) in [
        ("registrations", true),
        ("registrations of clients that sign", true),
        ("changes of a client", true),
        ("assertions", true),
        ("refused pages", true),
        ("approvals", false),
        ("sign-ins that the provider refuses", false),
    ] {
        let app = &TestApp::with(limits("database_size = 2097152\npending_logins = 100000")).await;
        if app.database.is_postgres() {
            return; // PostgreSQL has an administrator for that
        }
        let (client, tokens) = app.tokens_of("bob").await;
        let code = client.code("bob").await;
        let managed = registered(app, &json!({ "client_name": "x" }), "client_secret_basic").await;
        let managed = &managed.json();
        let keys = signer.jwks();
        let signing = registered(app, &json!({ "jwks": keys }), "private_key_jwt").await;
        let signing = &McpClient::known_as(app, text(&signing.json(), "client_id"), REDIRECT_URI);
        let client_ref = &client;
        flood(2400, async |n| {
            let answer = match kind {
                "registrations" => {
                    registered(app, &json!({ "client_name": n.to_string() }), "none").await
                }
                "registrations of clients that sign" => {
                    registered(app, &json!({ "jwks": keys }), "private_key_jwt").await
                }
                "changes of a client" => changed(app, managed, n).await,
                "assertions" => signed(app, signing, signer).await,
                "refused pages" => app.http.get(&app.at("/authorize?client_id=unknown")).await,
                "approvals" => begin(client_ref).await.0,
                _ => refused_by_provider(app, client_ref).await,
            };
            answer.status.as_u16()
        })
        .await;

        let next = client.refresh(&tokens.refresh_token).await;
        assert_eq!(next.status, 200, "refresh after {kind}");
        assert_eq!(client.redeem(&code).await.status, 200, "redemption after {kind}");
        if sign_ins_go_on {
            client.elsewhere().sign_in("bob").await;
        }
        let next = client.refresh(&Tokens::of(&next).refresh_token).await;
        assert_eq!(next.status, 200, "second refresh after {kind}");
        let ready = is_ready(app).await;
        assert_ne!(ready["room"], "none", "{kind}: {ready}");
    }
}

fn text<'a>(json: &'a Value, name: &str) -> &'a str {
    json[name].as_str().unwrap_or_else(|| panic!("no {name}: {json}"))
}

async fn registered(app: &TestApp, more: &Value, method: &str) -> Answer {
    let mut metadata = more.clone();
    metadata["redirect_uris"] =
        json!([REDIRECT_URI, format!("https://a.example/{}", "y".repeat(900))]);
    metadata["token_endpoint_auth_method"] = method.into();
    app.http.post_json(&app.at("/register"), &metadata, &[]).await
}

async fn changed(app: &TestApp, managed: &Value, n: usize) -> Answer {
    let metadata = json!({
        "client_id": managed["client_id"], "client_secret": managed["client_secret"],
        "client_name": format!("{n}"), "redirect_uris": [REDIRECT_URI],
        "token_endpoint_auth_method": "client_secret_basic",
    });
    let bearer = format!("Bearer {}", text(managed, "registration_access_token"));
    let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let uri = text(managed, "registration_client_uri");
    let answer = app.http.send("PUT", uri, &headers, metadata.to_string()).await;
    assert!(answer.status == 200 || answer.status == 503, "{}", answer.text());
    answer
}

async fn signed(app: &TestApp, client: &McpClient, signer: &Signer) -> Answer {
    let assertion = signer.assertion(app, &client.id, &json!({}));
    let form = [
        ("grant_type", "refresh_token"),
        ("refresh_token", "rt_0.0"),
        ("client_assertion_type", ASSERTION_TYPE),
        ("client_assertion", assertion.as_str()),
    ];
    client.token(&form).await
}

/// Presses Approve, and goes no further.
async fn begin(client: &McpClient) -> (Answer, McpClient) {
    let client = client.elsewhere();
    let (_, form) = client.ask(&[]).await;
    (client.decide(&form, "approve").await, client)
}

async fn refused_by_provider(app: &TestApp, client: &McpClient) -> Answer {
    let (approved, client) = begin(client).await;
    if approved.status != 303 {
        return approved;
    }
    let query = approved.location().split_once('?').unwrap().1.to_owned();
    let state = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "state");
    let state = state.unwrap().1.into_owned();
    let query = crate::harness::http::encode(&[("state", &state), ("error", "access_denied")]);
    client.browser.get(&app.at(&format!("/auth/callback?{query}"))).await
}

#[test]
fn every_row_that_can_be_inserted_has_a_bound_that_is_written_down() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    crate::repository::architecture::rust_files(&root.join("src/storage"), &mut files);
    let insert = regex_lite::Regex::new(r"INSERT INTO (?:backup\.)?([a-z_]+)").unwrap();
    let table = include_str!("budgets.rs");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("//! | ")).collect();
    let mut found = 0;
    for file in files.iter().filter(|file| !file.ends_with("tests.rs")) {
        let text = std::fs::read_to_string(file).unwrap();
        for name in insert.captures_iter(&text) {
            let name = format!("`{}`", &name[1]);
            let told = rows.iter().any(|row| row.split(" | ").nth(1).unwrap().contains(&name));
            assert!(told, "{name} of {} is in no row of the table", file.display());
            found += 1;
        }
    }
    assert!(found > 20, "{found}");
}

#[tokio::test]
async fn a_client_that_refreshes_without_a_pause_fills_the_database_for_nobody() {
    let app = TestApp::with(limits("database_size = 2097152")).await;
    if app.database.is_postgres() {
        return; // PostgreSQL has an administrator for that
    }
    let (client, tokens) = app.tokens_of("bob").await;
    let next = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    let newest = Tokens::of(&client.refresh(&next.refresh_token).await);
    // As many more as the file takes: used tokens, between the first and the last.
    let more = "INSERT INTO refresh_tokens
                    (id, token_hash, grant_id, parent_id, issued_at, expires_at, used_at, replays)
                WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3500)
                SELECT SUBSTR(t.id, 1, 12) || PRINTF('x%07d', i), t.token_hash, t.grant_id,
                       PRINTF('%0200d', i), t.issued_at, t.expires_at, t.issued_at, 0
                FROM n, (SELECT * FROM refresh_tokens LIMIT 1) AS t";
    app.database.execute(more).await;
    let begun = begin(&client).await.0;
    assert_eq!(begun.status, 503, "there is no room for sign-ins");

    let keep = portcullis::storage::Retention {
        unused_client: std::time::Duration::from_hours(24),
        idle_client: std::time::Duration::from_hours(24 * 90),
        audit: std::time::Duration::from_hours(24),
        refused_person: std::time::Duration::from_hours(24),
        refresh_idle: std::time::Duration::from_hours(1),
        rows: 500,
    };
    while app.storage().sweep(app.now(), keep).await.unwrap() > 0 {}

    assert_eq!(begin(&client).await.0.status, 303);
    client.refresh(&newest.refresh_token).await.assert_status(200);
    let left = app.database.number("SELECT COUNT(*) FROM refresh_tokens").await;
    assert!((1000..3500).contains(&left), "{left}");
}

#[tokio::test]
async fn ready_says_when_registrations_sign_ins_or_refreshes_cannot_be_written() {
    let app = TestApp::with(limits(&format!("{SMALL}\npending_logins = 100000"))).await;
    if app.database.is_postgres() {
        return; // PostgreSQL has an administrator for that
    }
    let (client, tokens) = app.tokens_of("bob").await;
    let said = async || {
        let ready = is_ready(&app).await;
        (text(&ready, "status").to_owned(), text(&ready, "room").to_owned())
    };
    let is = |status: &str, room: &str| (status.to_owned(), room.to_owned());
    assert_eq!(said().await, is("ready", "enough"));

    flood(1200, async |n| {
        registered(&app, &json!({ "client_name": n.to_string() }), "none").await.status.as_u16()
    })
    .await;
    assert_eq!(said().await, is("degraded", "no registrations"));
    let begun = client.elsewhere().approve(&[]).await;
    assert!(begun.starts_with(app.idp.issuer()), "sign-ins go on");

    flood(1200, async |_| begin(&client).await.0.status.as_u16()).await;
    assert_eq!(said().await, is("degraded", "no sign-ins"));

    let mut token = tokens.refresh_token;
    for _ in 0..3000 {
        let answer = client.refresh(&token).await;
        if answer.status == 503 {
            break;
        }
        token = Tokens::of(&answer).refresh_token;
    }
    client.refresh(&token).await.assert_error(503, "temporarily_unavailable");
    assert_eq!(said().await, is("degraded", "none"));
    let metrics = app.http.get(&format!("{}/metrics", app.admin_url)).await;
    assert!(metrics.text().contains("portcullis_database_room 0"), "{}", metrics.text());

    // The end of a grant is written all the same, and once there is room it is said, too.
    client.revoke(&token).await.assert_status(200);
    app.advance(25 * 3600);
    let day = std::time::Duration::from_hours(24);
    let keep = portcullis::storage::Retention {
        unused_client: day,
        idle_client: day * 90,
        audit: day,
        refused_person: day,
        refresh_idle: std::time::Duration::from_hours(1),
        rows: 500,
    };
    while app.storage().sweep(app.now(), keep).await.unwrap() > 0 {}
    assert_eq!(said().await, is("ready", "enough"));
}

fn clock(app: &TestApp) -> Clock {
    Clock::Manual(app.clock.clone())
}

async fn number_of(app: &TestApp, event: &str) -> usize {
    let filter = AuditFilter { event: event.to_owned(), ..Default::default() };
    app.storage().audit_lines(&filter, 100_000).await.unwrap().len()
}

async fn settled(app: &TestApp) {
    while app.storage().settle_audit().await.unwrap() > 0 {}
}

#[tokio::test]
async fn a_flood_of_pages_leaves_no_refused_tool_out_of_the_trail() {
    let mut app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let page = app.at("/authorize?client_id=unknown");
    // More than the trail takes in a minute, and more at once than wait in memory.
    for _ in 0..6 {
        join_all((0..250).map(|_| app.http.get(&page))).await;
    }
    let purge = client.call_tool(&tokens.access_token, "purge-todos", json!({})).await;
    purge.assert_status(403);
    join_all((0..250).map(|_| app.http.get(&page))).await;
    app.stop().await;

    let refused = "SELECT COUNT(*) FROM audit_events WHERE event = 'tool_refused'";
    assert_eq!(app.database.number(refused).await, 1);
    let pages = "SELECT COUNT(*) FROM audit_events WHERE event = 'page_shown'";
    assert_eq!(app.database.number(pages).await, 300);
    let left_out = "SELECT COUNT(*) FROM audit_events
                    WHERE event = 'audit_left_out' AND detail = '{\"events\":1450}'";
    assert_eq!(app.database.number(left_out).await, 1);
}

#[tokio::test]
async fn one_person_pushes_nobody_elses_refused_tool_out_of_the_trail() {
    let mut app = TestApp::with(limits("requests_per_person = 1000")).await;
    app.idp.set_roles("mallory", &["User"]);
    let (loud, of_loud) = app.tokens_of("mallory").await;
    let (client, tokens) = app.tokens_of("bob").await;
    for _ in 0..6 {
        let calls =
            (0..100).map(|_| loud.call_tool(&of_loud.access_token, "purge-todos", json!({})));
        join_all(calls).await;
    }
    let purge = client.call_tool(&tokens.access_token, "purge-todos", json!({})).await;
    purge.assert_status(403);
    app.stop().await;

    let of_bob = "SELECT COUNT(*) FROM audit_events
                  WHERE event = 'tool_refused' AND subject = 'oidc:demo-bob'";
    assert_eq!(app.database.number(of_bob).await, 1);
    let of_loud = "SELECT COUNT(*) FROM audit_events
                   WHERE event = 'tool_refused' AND subject = 'oidc:demo-mallory'";
    let stored = app.database.number(of_loud).await;
    assert!((1..=100).contains(&stored), "{stored}");
    let left_out = "SELECT COUNT(*) FROM audit_events WHERE event = 'audit_left_out'";
    assert_eq!(app.database.number(left_out).await, 1);
}

#[tokio::test]
async fn what_an_administrator_does_is_in_the_trail_whatever_flood_there_is() {
    let mut app = TestApp::start().await;
    let (client, _) = app.tokens_of("bob").await;
    let alice = crate::harness::console::Console::admin(&app).signed_in(&app, "alice").await;
    let page = app.at("/authorize?client_id=unknown");
    for _ in 0..4 {
        join_all((0..250).map(|_| app.http.get(&page))).await;
    }
    let path = crate::harness::console::with_query("/client", &[("id", &client.id)]);
    alice.press_and_confirm(&path, "action", "block").await.assert_status(303);
    app.stop().await;

    let blocked = "SELECT COUNT(*) FROM audit_events WHERE event = 'client_blocked'";
    assert_eq!(app.database.number(blocked).await, 1);
}

#[tokio::test]
async fn the_audit_trail_holds_at_its_size_and_sign_ins_go_on() {
    let app = TestApp::with(limits("audit_size = 131072")).await;
    let (client, tokens) = app.tokens_of("bob").await;
    // The server trims as well; a step of ours that loses against one of its steps removes nothing.
    let verified = async || {
        let mut verified = None;
        for _ in 0..20 {
            settled(&app).await;
            app.storage().trim_audit(&clock(&app)).await.unwrap();
            let found = app.storage().verify_audit().await.unwrap().unwrap();
            let holds = found.bytes <= 131_072;
            verified = Some(found);
            if holds {
                break;
            }
        }
        verified.unwrap()
    };

    // What strangers cause goes first, and what people do stays.
    flood(400, async |_| deny(&client).await.status.as_u16()).await;
    let held = verified().await;
    assert!(held.bytes <= 131_072, "{held:?}");
    assert!(held.removed > 100, "{held:?}");
    let denials = number_of(&app, "consent_denied").await;
    assert!((5..250).contains(&denials), "{denials}");
    for event in ["code_issued", "code_redeemed"] {
        assert_eq!(number_of(&app, event).await, 1, "{event}");
    }
    let filter = AuditFilter { event: "audit_trimmed".to_owned(), ..Default::default() };
    let removed_by = |lines: &[AuditLine]| -> u64 {
        let lines = lines.iter().map(|line| serde_json::from_str::<Value>(&line.detail).unwrap());
        lines.map(|detail| detail["lines"].as_u64().unwrap()).sum()
    };
    // The server may trim between the two.
    let mut both = (0, 1);
    for _ in 0..20 {
        let held = verified().await;
        let told = app.storage().audit_lines(&filter, 100).await.unwrap();
        both = (removed_by(&told), held.removed.unsigned_abs());
        if both.0 == both.1 {
            break;
        }
    }
    assert_eq!(both.0, both.1);

    // Then the oldest; the chain holds from there.
    let mut token = tokens.refresh_token;
    for _ in 0..300 {
        token = Tokens::of(&client.refresh(&token).await).refresh_token;
    }
    let held = verified().await;
    assert!(held.bytes <= 131_072 && held.first > 1, "{held:?}");
    assert_eq!(number_of(&app, "code_issued").await, 0, "the oldest");
    client.elsewhere().sign_in("bob").await;
    assert_eq!(number_of(&app, "code_redeemed").await, 1);
    verified().await;
}

#[tokio::test]
async fn nobody_without_the_key_takes_lines_out_of_the_middle_as_the_server_does() {
    let app = TestApp::with(limits("audit_size = 65536")).await;
    let (client, _) = app.tokens_of("bob").await;
    for _ in 0..3 {
        flood(100, async |_| deny(&client).await.status.as_u16()).await;
        client.elsewhere().sign_in("bob").await;
    }
    settled(&app).await;
    app.storage().trim_audit(&clock(&app)).await.unwrap();
    settled(&app).await;
    app.storage().verify_audit().await.unwrap().unwrap();
    let gaps = app.database.number("SELECT COUNT(*) FROM audit_gaps").await;
    assert!(gaps > 0);

    // Each in turn, and back again.
    for (harm, undo) in [
        // A longer gap, over a line that is still there.
        (
            "UPDATE audit_gaps SET last_seq = last_seq + 1",
            "UPDATE audit_gaps SET last_seq = last_seq - 1",
        ),
        ("UPDATE audit_gaps SET mac = mac || 'x'", "UPDATE audit_gaps SET mac = RTRIM(mac, 'x')"),
        (
            "UPDATE audit_gaps SET first_seq = first_seq + 1000000",
            "UPDATE audit_gaps SET first_seq = first_seq - 1000000",
        ),
        (
            "UPDATE installation SET value = REPLACE(value, ' ', '  ') WHERE name = 'audit_head'",
            "UPDATE installation SET value = REPLACE(value, '  ', ' ') WHERE name = 'audit_head'",
        ),
    ] {
        app.database.execute(harm).await;
        let broken = app.storage().verify_audit().await.unwrap();
        assert!(broken.is_err(), "{harm}");
        app.database.execute(undo).await;
        app.storage().verify_audit().await.unwrap().unwrap();
    }
    // A line that somebody makes look old, or anonymous, is not taken away with the others.
    let last = "(SELECT MAX(seq) FROM audit_events WHERE event = 'code_issued')";
    let hide = format!("UPDATE audit_events SET subject = NULL, at = 0 WHERE seq = {last}");
    app.database.execute(&hide).await;
    flood(200, async |_| deny(&client).await.status.as_u16()).await;
    settled(&app).await;
    let _ = app.storage().trim_audit(&clock(&app)).await;
    assert!(app.storage().verify_audit().await.unwrap().is_err());
    assert!(number_of(&app, "code_issued").await > 0);
}
