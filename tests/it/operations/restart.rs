//! Restarts, crashes, second processes, wrong keys: threats RT-04, ST-01 and ST-03.

use std::time::Duration;

use portcullis::storage::{OpenError, Retention, Storage};
use serde_json::json;

use crate::harness::client::{McpClient, REDIRECT_URI, Tokens};
use crate::harness::http::encode;
use crate::harness::process::{Served, run};
use crate::harness::raw;
use crate::harness::{TestApp, patiently};

#[tokio::test]
async fn a_restart_in_the_middle_of_a_login_is_not_noticed() {
    let mut app = TestApp::start().await;
    let client = app.client().await;
    let (_, form) = client.ask(&[]).await;
    app.restart().await;
    let answer = client.decide(&form, "approve").await;
    answer.assert_leads_to(app.idp.issuer());
    app.restart().await;
    let callback = client.log_in(answer.location(), "bob").await;
    app.restart().await;
    let back = client.browser.get(&callback).await;
    back.assert_leads_to(REDIRECT_URI);
    app.restart().await;
    let tokens = Tokens::of(&client.redeem(&back.location_param("code").unwrap()).await);
    app.restart().await;
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
    client.refresh(&tokens.refresh_token).await.assert_status(200);
}

#[tokio::test]
async fn rt_04_a_restart_changes_no_answer_about_used_tokens() {
    let mut app = TestApp::start().await;
    let (client, first) = app.tokens_of("bob").await;
    let code = client.code("bob").await;
    client.redeem(&code).await.assert_status(200);
    let second = Tokens::of(&client.refresh(&first.refresh_token).await);
    app.restart().await;
    let again = Tokens::of(&client.refresh(&first.refresh_token).await);
    assert_eq!(again.refresh_token, second.refresh_token, "still the same successor");
    client.redeem(&code).await.assert_error(400, "invalid_grant");
    client.refresh(&second.refresh_token).await.assert_status(200);
    app.restart().await;
    client.refresh(&first.refresh_token).await.assert_error(400, "invalid_grant");
}

/// T6: the server dies after the rotation is durable and before the client has its answer.
#[tokio::test]
async fn rt_03_kill_between_commit_and_answer_then_the_same_refresh_brings_the_same_successor() {
    let mut server = Served::start().await;
    let client = McpClient::register(&server).await;
    let tokens = client.sign_in("bob").await;
    let form = encode(&[
        ("grant_type", "refresh_token"),
        ("refresh_token", &tokens.refresh_token),
        ("client_id", &client.id),
    ]);
    let connection = raw::send_form(&server.url, "/token", &form).await;
    // The answer is never read: it may be on its way, or not.
    let rotated = "SELECT COUNT(*) FROM refresh_tokens WHERE used_at IS NOT NULL";
    while server.database.number(rotated).await == 0 {}
    server.kill();
    drop(connection);

    server.launch();
    let retried = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    let successors = "SELECT COUNT(*) FROM refresh_tokens WHERE parent_id IS NOT NULL";
    assert_eq!(server.database.number(successors).await, 1);
    client.refresh(&retried.refresh_token).await.assert_status(200);
    client.call_tool(&retried.access_token, "get-todos", json!({})).await.assert_status(200);
}

/// Kills at any moment leave each code either unused or become a grant, never in between.
#[tokio::test]
async fn k1_a_code_is_never_burnt_without_a_grant_by_a_crash() {
    let mut server = Served::start().await;
    let client = McpClient::register(&server).await;
    for round in 0..6 {
        let code = client.code("bob").await;
        let form = encode(&[
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("code_verifier", crate::harness::client::VERIFIER),
            ("client_id", &client.id),
        ]);
        let _connection = raw::send_form(&server.url, "/token", &form).await;
        for _ in 0..round * 400 {
            tokio::task::yield_now().await; // a different moment each round
        }
        server.kill();
        server.launch();
        let in_between = "SELECT COUNT(*) FROM authorization_codes c WHERE redeemed_at IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM grants g JOIN refresh_tokens r ON r.grant_id = g.id
                            WHERE g.id = c.grant_id)";
        assert_eq!(server.database.number(in_between).await, 0);
        let grants = "SELECT COUNT(*) FROM grants WHERE revoked_at IS NULL";
        let before = server.database.number(grants).await;
        let again = client.redeem(&code).await;
        if again.status == 200 {
            assert_eq!(server.database.number(grants).await, before + 1);
        } else {
            again.assert_error(400, "invalid_grant");
        }
    }
}

#[tokio::test]
async fn c12_sqlite_refuses_a_second_process_and_says_so() {
    let server = Served::start().await;
    if server.database.is_postgres() {
        return; // replicas are what PostgreSQL is for
    }
    let second = run(&server.database.folder, &["serve", "--config", "portcullis.toml"], &[]);
    assert!(!second.status.success());
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("another Portcullis is using"), "{said}");
    server.http.get(&format!("{}/health", server.url)).await.assert_status(200);
}

/// Why the database is refused, once no child of another test holds its lock any more.
async fn refusal(url: &str, key: Option<&[u8]>) -> Result<String, OpenError> {
    match Storage::open(url, key).await {
        Err(cause) if !matches!(cause, OpenError::InUse(_)) => Ok(cause.to_string()),
        Err(held) => Err(held),
        Ok(_) => panic!("it was opened"),
    }
}

#[tokio::test]
async fn st_01_a_wrong_or_missing_secret_key_is_a_clean_refusal() {
    let mut app = TestApp::start().await;
    app.tokens_of("bob").await;
    app.stop().await;
    let config = app.config();
    let url = config.database_url.expose();
    let wrong = b"another key that is long enough, 0123456789";
    let said = patiently(async || refusal(url, Some(wrong)).await).await;
    assert!(said.contains("the secret key does not fit this database"), "{said}");
    let right = config.secret_key.as_ref().unwrap().expose().as_bytes();
    patiently(async || Storage::open(url, Some(right)).await).await.close().await;

    if !app.database.is_postgres() {
        let said = patiently(async || refusal(url, None).await).await;
        assert!(said.contains("secret key"), "{said}");
    }
}

#[tokio::test]
async fn a_generated_key_lies_beside_the_database_for_its_owner_only() {
    let database = crate::harness::database::Database::new().await;
    if database.is_postgres() {
        return;
    }
    Storage::open(&database.url, None).await.unwrap().close().await;
    let key = database.folder.join("portcullis.key");
    #[cfg(unix)]
    for file in [key.clone(), database.folder.join("portcullis.db")] {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{}", file.display());
    }
    patiently(async || Storage::open(&database.url, None).await).await.close().await;
    std::fs::remove_file(&key).unwrap();
    let said = patiently(async || refusal(&database.url, None).await).await;
    assert!(said.contains("is missing"), "{said}");
}

#[tokio::test]
async fn two_replicas_on_postgres_share_everything() {
    let app = TestApp::start().await;
    if !app.database.is_postgres() {
        return; // one process is what SQLite is for
    }
    let (client, tokens) = app.tokens_of("bob").await;
    let (other, stop) = app.replica().await;
    let mut there = client.elsewhere();
    there.server.url.clone_from(&other);
    let answers = tokio::join!(
        client.refresh_at_once(&tokens.refresh_token, 5),
        there.refresh_at_once(&tokens.refresh_token, 5)
    );
    let mut successors = std::collections::BTreeSet::new();
    for answer in answers.0.iter().chain(&answers.1) {
        successors.insert(Tokens::of(answer).refresh_token);
    }
    assert_eq!(successors.len(), 1);
    let _ = stop.send(());
}

/// Threat RT-07: the provider is asked once, whichever replica a refresh meets.
#[tokio::test]
async fn fifty_refreshes_of_one_login_on_two_replicas_ask_the_provider_once() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| how.strict_rotation = true);
    let client = app.client().await;
    let mut grants = Vec::new();
    for _ in 0..10 {
        grants.push(client.sign_in("bob").await); // one browser, one session there
    }
    let replica = if app.database.is_postgres() { Some(app.replica().await) } else { None };
    let mut there = client.elsewhere();
    if let Some((url, _)) = &replica {
        there.server.url.clone_from(url);
    }
    for _ in 0..3 {
        app.advance(16 * 60);
        let before = app.idp.requests_to("/token");
        let refreshes = (0..50).map(|n| {
            let client = if n % 2 == 0 { &client } else { &there };
            client.refresh(&grants[n % 10].refresh_token)
        });
        let answers = futures_util::future::join_all(refreshes).await;
        for (n, answer) in answers.iter().enumerate() {
            grants[n % 10] = Tokens::of(answer);
        }
        assert_eq!(app.idp.requests_to("/token"), before + 1);
    }
}

#[tokio::test]
async fn clean_up_removes_what_has_expired_and_nothing_else() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    client.approve(&[]).await; // a login that nobody finishes
    let (_, form) = client.ask(&[]).await;
    client.decide(&form, "deny").await;
    let keep = Retention {
        unused_client: Duration::from_hours(24),
        idle_client: Duration::from_hours(24 * 90),
        audit: Duration::from_hours(24 * 400),
        refused_person: Duration::from_hours(24 * 7),
        refresh_idle: Duration::from_hours(1),
        rows: 500,
    };
    let storage = app.storage();
    app.advance(3 * 24 * 60 * 60);
    while storage.sweep(app.now(), keep).await.unwrap() > 0 {}
    for (sql, left) in [
        ("SELECT COUNT(*) FROM logins", 0),
        ("SELECT COUNT(*) FROM consents", 0),
        ("SELECT COUNT(*) FROM authorization_codes", 1), // its replay would still be noticed
        ("SELECT COUNT(*) FROM grants", 1),
        ("SELECT COUNT(*) FROM clients", 1),
    ] {
        assert_eq!(app.database.number(sql).await, left, "{sql}");
    }
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    app.advance(400 * 24 * 60 * 60);
    while storage.sweep(app.now(), keep).await.unwrap() > 0 {}
    for sql in [
        "SELECT COUNT(*) FROM grants",
        "SELECT COUNT(*) FROM refresh_tokens",
        "SELECT COUNT(*) FROM upstream_sessions",
        "SELECT COUNT(*) FROM clients",
    ] {
        assert_eq!(app.database.number(sql).await, 0, "{sql}");
    }
}

/// Signs bob in and kills the process when the provider has rotated his token and its answer is on the
/// way: between its rotation and our commit.
async fn kill_after_the_providers_rotation(server: &mut Served) -> (McpClient, Tokens) {
    let client = McpClient::register(server).await;
    let tokens = client.sign_in("bob").await;
    // The re-check time is over: the real clock would take a minute to say so.
    server.database.execute("UPDATE upstream_sessions SET last_ok_at = last_ok_at - 1000").await;
    server.idp.refresh_answers().close();
    let form = encode(&[
        ("grant_type", "refresh_token"),
        ("refresh_token", &tokens.refresh_token),
        ("client_id", &client.id),
    ]);
    let connection = raw::send_form(&server.url, "/token", &form).await;
    server.idp.refresh_answers().until_waiting(1).await;
    server.kill();
    drop(connection);
    server.idp.refresh_answers().open();
    server.launch();
    if server.database.is_postgres() {
        // Another replica might be asking: its lease runs out within seconds.
        server.database.execute("UPDATE upstream_sessions SET lease_until = 0").await;
    }
    (client, tokens)
}

/// Threat RT-07.
#[tokio::test]
async fn a_kill_after_the_providers_rotation_is_healed_by_its_grace() {
    let mut server = Served::start().await;
    server.idp.misbehave(|how| (how.strict_rotation, how.rotation_grace) = (true, 30));
    let (client, tokens) = kill_after_the_providers_rotation(&mut server).await;
    let before = server.idp.requests_to("/token");
    let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert!(tokens.expires_in > 300, "the provider vouched again");
    assert_eq!(server.idp.requests_to("/token"), before + 1);
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
}

#[tokio::test]
async fn a_kill_after_the_providers_rotation_without_grace_is_one_clear_sign_in() {
    let mut server = Served::start().await;
    server.idp.misbehave(|how| how.strict_rotation = true);
    let other = McpClient::register(&server).await;
    let others = other.sign_in("alice").await;
    let (client, tokens) = kill_after_the_providers_rotation(&mut server).await;

    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(401);
    let again = client.sign_in("bob").await;
    server.database.execute("UPDATE upstream_sessions SET last_ok_at = last_ok_at - 1000").await;
    assert!(Tokens::of(&client.refresh(&again.refresh_token).await).expires_in > 300);

    // Nobody else has lost anything.
    assert!(Tokens::of(&other.refresh(&others.refresh_token).await).expires_in > 300);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_server_asks_for_as_many_open_files_as_the_system_allows() {
    let mut server = Served::start().await;
    server.kill();
    server.launch_with_open_files(256);

    let limits = server.limits();
    let open_files = limits.lines().find_map(|line| line.strip_prefix("Max open files")).unwrap();
    let [soft, hard, ..] = *open_files.split_whitespace().collect::<Vec<_>>() else {
        panic!("{limits}");
    };
    assert_eq!(soft, hard);
}

/// ST-07: a dump would contain keys and tokens.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_server_leaves_no_core_dump() {
    let mut server = Served::prepared().await;
    server.launch_with_core_dumps();

    let limits = server.limits();
    let size = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(size.split_whitespace().next(), Some("0"), "{limits}");
}
