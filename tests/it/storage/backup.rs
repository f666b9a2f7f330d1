//! `portcullis backup` beside a server under load, and what a restored backup brings back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::harness::TestApp;
use crate::harness::client::{McpClient, Tokens};
use crate::harness::console::Console;
use crate::harness::process::{Served, run};

const WHOLE: &str = "SELECT COUNT(*) FROM pragma_quick_check WHERE quick_check = 'ok'";

/// The backup in place of the database, as the guide says.
fn restore(server: &Served) {
    let folder = &server.database.folder;
    for file in ["portcullis.db", "portcullis.db-wal", "portcullis.db-shm"] {
        let _ = std::fs::remove_file(folder.join(file));
    }
    std::fs::copy(folder.join("copy.db"), folder.join("portcullis.db")).unwrap();
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_under_load_disturbs_nobody_is_whole_and_serves() {
    let mut server = Served::without_rates().await;
    if server.database.is_postgres() {
        return; // pg_dump
    }
    let (stop, refreshes) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = Vec::new();
    for _ in 0..4 {
        let client = McpClient::register(&server).await;
        let mut tokens = client.sign_in("bob").await;
        let (stop, refreshes) = (Arc::clone(&stop), Arc::clone(&refreshes));
        load.push(tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
                refreshes.fetch_add(1, Ordering::SeqCst);
            }
            client
        }));
    }
    while refreshes.load(Ordering::SeqCst) < 20 {
        tokio::task::yield_now().await;
    }
    let folder = server.database.folder.clone();
    let ran =
        tokio::task::spawn_blocking(move || run(&folder, &["backup", "copy.db", "--json"], &[]));
    let ran = ran.await.unwrap();
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let said: Value = serde_json::from_slice(&ran.stdout).unwrap();
    let copy = server.database.folder.join("copy.db");
    assert_eq!(said["bytes"].as_u64().unwrap(), std::fs::metadata(&copy).unwrap().len());
    let before = refreshes.load(Ordering::SeqCst);
    while refreshes.load(Ordering::SeqCst) < before + 20 {
        tokio::task::yield_now().await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut clients = Vec::new();
    for task in load {
        clients.push(task.await.unwrap());
    }
    server.kill();

    restore(&server);
    server.launch();

    assert_eq!(server.database.number(WHOLE).await, 1);
    for client in clients {
        let tokens = client.sign_in("bob").await; // as the client it was
        client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(200);
        client.refresh(&tokens.refresh_token).await.assert_status(200);
    }
}

/// ST-04: in the backup, the first token is unused and the code is not redeemed.
#[tokio::test]
async fn st_04_a_restored_backup_brings_no_token_code_or_grant_back() {
    let mut server = Served::start().await;
    if server.database.is_postgres() {
        return; // pg_dump
    }
    let client = McpClient::register(&server).await;
    let rotated = client.sign_in("bob").await;
    let (ended, kept) = (client.sign_in("bob").await, client.sign_in("bob").await);
    let code = client.code("bob").await;
    let ran = run(&server.database.folder, &["backup", "copy.db"], &[]);
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    let successor = Tokens::of(&client.refresh(&rotated.refresh_token).await);
    client.revoke(&ended.refresh_token).await.assert_status(200);
    let redeemed = Tokens::of(&client.redeem(&code).await);
    server.kill();

    restore(&server);
    server.launch();

    for tokens in [&rotated, &successor, &ended, &kept, &redeemed] {
        client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
        client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(401);
    }
    client.redeem(&code).await.assert_error(400, "invalid_grant");
    let live = "SELECT COUNT(*) FROM grants WHERE revoked_at IS NULL";
    assert_eq!(server.database.number(live).await, 0);
    let told = "SELECT COUNT(*) FROM audit_events WHERE event = 'backup_restored'";
    assert_eq!(server.database.number(told).await, 1);

    // Only the first start ends anything.
    let tokens = client.sign_in("bob").await;
    server.kill();
    server.launch();
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    assert_eq!(server.database.number(told).await, 1);
}

/// What the guide says for PostgreSQL and for copies made by other means.
#[tokio::test]
async fn a_database_that_is_told_it_was_restored_brings_nothing_back() {
    let mut app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let code = client.code("bob").await;
    let location = client.approve(&[]).await; // on its way through the provider
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    admin.get("/").await.assert_status(200);
    app.stop().await;
    for row in [
        "INSERT INTO remembered_consents (id, token_hash, subject, client_id, redirect_uri, resource,
             scopes, metadata_hash, created_at, expires_at)
         VALUES ('1', 'h', 's', 'c', 'u', 'r', 'read', 'm', 0, 9999999999)",
        "INSERT INTO logins_awaiting_approval (id, token_hash, client_id, subject, resource,
             session_id, login, created_at, expires_at)
         VALUES ('1', 'h', 'c', 's', 'r', 'u', 'l', 0, 9999999999)",
    ] {
        app.database.execute(row).await;
    }
    let mark = "INSERT INTO installation (name, value) VALUES ('backup_taken_at', '0')";
    app.database.execute(mark).await;

    app.restart().await;

    assert_ne!(admin.get("/").await.status, 200);
    let left = "SELECT (SELECT COUNT(*) FROM remembered_consents)
        + (SELECT COUNT(*) FROM logins_awaiting_approval WHERE ended_at IS NULL)
        + (SELECT COUNT(*) FROM web_sessions WHERE ended_at IS NULL)
        + (SELECT COUNT(*) FROM logins WHERE ended_at IS NULL)";
    assert_eq!(app.database.number(left).await, 0);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    client.redeem(&code).await.assert_error(400, "invalid_grant");
    let back = client.log_in(&location, "bob").await;
    assert_ne!(client.browser.get(&back).await.status, 303, "no code comes of it");
    let again = client.sign_in("bob").await;
    client.call_tool(&again.access_token, "get-todos", json!({})).await.assert_status(200);
}

#[tokio::test]
async fn a_backup_is_private_and_overwrites_nothing() {
    let server = Served::start().await;
    let folder = &server.database.folder;
    let ran = run(folder, &["backup", "copy.db"], &[]);
    if server.database.is_postgres() {
        assert!(text(&ran.stderr).contains("pg_dump"), "{}", text(&ran.stderr));
        return;
    }
    assert!(ran.status.success(), "{}", text(&ran.stderr));
    assert!(text(&ran.stdout).contains("secret key is not in it"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(folder.join("copy.db")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let before = std::fs::read(folder.join("copy.db")).unwrap();
    for (name, said) in [("copy.db", "exists already"), ("nowhere/copy.db", "cannot be written")] {
        let again = run(folder, &["backup", name], &[]);
        assert!(!again.status.success());
        assert!(text(&again.stderr).contains(said), "{}", text(&again.stderr));
    }
    assert_eq!(std::fs::read(folder.join("copy.db")).unwrap(), before);
    let left = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("partial")).collect();
    assert!(left.is_empty(), "{left:?}");
    let help = run(folder, &["backup", "--help"], &[]);
    assert!(text(&help.stdout).contains("Example"), "{}", text(&help.stdout));
}

#[tokio::test]
async fn a_backup_beside_the_log_of_another_database_is_refused() {
    let mut server = Served::start().await;
    if server.database.is_postgres() {
        return;
    }
    let client = McpClient::register(&server).await;
    let folder = server.database.folder.clone();
    assert!(run(&folder, &["backup", "copy.db"], &[]).status.success());
    client.sign_in("bob").await;
    server.kill(); // its log stays behind
    let log = std::fs::read(folder.join("portcullis.db-wal")).unwrap();
    restore(&server);
    std::fs::write(folder.join("portcullis.db-wal"), log).unwrap();

    for command in [&["serve"][..], &["clients", "list"]] {
        let refused = run(&folder, command, &[]);
        assert!(!refused.status.success());
        let said = text(&refused.stderr);
        assert!(said.contains("Move that file"), "{said}");
    }

    std::fs::remove_file(folder.join("portcullis.db-wal")).unwrap();
    server.launch();
    client.sign_in("bob").await;
}
