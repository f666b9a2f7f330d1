//! The day of an outage: what still works when the database is full or locked, when the clock is wrong, and
//! what a start says that cannot be.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures_util::future::join_all;
use portcullis::storage::Storage;
use serde_json::json;
use tokio::time::Instant;

use crate::harness::client::{McpClient, REDIRECT_URI, Tokens, jwt_part};
use crate::harness::console::{Console, with_query};
use crate::harness::process::{Served, portcullis, run};
use crate::harness::{Setup, TestApp};

const DAY: i64 = 24 * 3600;

fn limits(text: &str) -> Setup {
    Setup::toml(format!("[limits]\nrequest_rates = false\n{text}"))
}

async fn is_let_in(client: &McpClient, tokens: &Tokens) -> bool {
    let status = client.rpc(&tokens.access_token, "tools/list", json!({})).await.status;
    assert!(status == 200 || status == 401, "{status}");
    status == 200
}

/// Until nothing more can be stored: no client, and no refresh of this token.
async fn fill(app: &TestApp, client: &McpClient, mut token: String) {
    let long = format!("https://many.example/{}", "x".repeat(900));
    for (registration, n) in [(true, 0), (false, 0), (true, 10_000)] {
        for n in n..n + 10_000 {
            let status = if registration {
                let metadata = json!({ "client_name": format!("{n}"), "redirect_uris": [long] });
                app.http.post_json(&app.at("/register"), &metadata, &[]).await.status
            } else {
                let answer = client.refresh(&token).await;
                if answer.status == 200 {
                    token = Tokens::of(&answer).refresh_token;
                }
                answer.status
            };
            if status == 503 {
                break;
            }
        }
    }
    client.refresh(&token).await.assert_error(503, "temporarily_unavailable");
}

#[tokio::test]
async fn k5_a_full_database_refuses_no_end_of_a_grant() {
    let app = TestApp::with(limits("database_size = 1572864")).await;
    if app.database.is_postgres() {
        return; // PostgreSQL has an administrator for that
    }
    let (client, by_client) = app.tokens_of("bob").await;
    let reused = client.sign_in("bob").await;
    let second = Tokens::of(&client.refresh(&reused.refresh_token).await);
    let newest = Tokens::of(&client.refresh(&second.refresh_token).await);
    let code = client.code("bob").await;
    let replayed = Tokens::of(&client.redeem(&code).await);
    let by_admin = client.sign_in("bob").await;
    let (others, by_person) = app.tokens_of("alice").await;
    let (third, by_provider) = app.tokens_of("bob").await;
    let issued = app.idp.issued();
    let id_token = issued.iter().rfind(|token| token.matches('.').count() == 2).unwrap();
    let account = Console::account(&app).signed_in(&app, "alice").await;
    let filler = client.sign_in("bob").await;
    fill(&app, &client, filler.refresh_token).await;

    // Taking the only process away would keep the ends of grants from it, too.
    app.http.get(&app.at("/ready")).await.assert_status(200);
    client.revoke(&by_client.refresh_token).await.assert_status(200);
    assert!(!is_let_in(&client, &by_client).await);

    client.refresh(&reused.refresh_token).await.assert_error(400, "invalid_grant");
    assert!(!is_let_in(&client, &newest).await);

    client.redeem(&code).await.assert_error(400, "invalid_grant");
    assert!(!is_let_in(&client, &replayed).await);

    account.press("/account", "action", "disconnect").await.assert_status(303);
    assert!(!is_let_in(&others, &by_person).await);

    let claims = json!({
        "iss": app.idp.issuer(), "aud": "portcullis", "jti": "once",
        "iat": app.now().unix(), "exp": app.now().unix() + 120,
        "sid": jwt_part(id_token, 1)["sid"],
        "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
    });
    let notice = app.idp.sign("logout+jwt", &claims, None).unwrap();
    let form = [("logout_token", notice.as_str())];
    app.http.post_form(&app.at("/backchannel-logout"), &form, &[]).await.assert_status(200);
    assert!(!is_let_in(&third, &by_provider).await);

    // Who is to cut somebody off can still sign in for it.
    assert!(is_let_in(&client, &by_admin).await);
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    let bob = with_query("/person", &[("sub", "oidc:demo-bob")]);
    admin.press_and_confirm(&bob, "action", "block").await.assert_leads_to(&admin.at("/person"));
    assert!(!is_let_in(&client, &by_admin).await);

    // The reserve is for that alone.
    let metadata = json!({ "client_name": "x".repeat(60), "redirect_uris": [REDIRECT_URI] });
    let more = join_all((0..100).map(|n| {
        let mut metadata = metadata.clone();
        metadata["redirect_uris"] = json!([format!("https://{n}.example/{}", "y".repeat(900))]);
        let app = &app;
        async move { app.http.post_json(&app.at("/register"), &metadata, &[]).await.status }
    }));
    assert!(more.await.iter().filter(|status| **status == 503).count() > 90);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn k6_a_lock_of_another_process_is_503_within_three_seconds_for_everybody() {
    let app = TestApp::with(limits("")).await;
    if app.database.is_postgres() {
        return; // a lock there is a lock of rows: tests/it/replicas
    }
    let (client, tokens) = app.tokens_of("bob").await;
    let code = client.code("bob").await;
    let lock = app.database.lock().await;

    // They come one after the other, as they do.
    let asked = join_all((0..30).map(async |n| {
        tokio::time::sleep(Duration::from_millis(100 * n)).await;
        let since = Instant::now();
        let answer = client.refresh(&tokens.refresh_token).await;
        answer.assert_error(503, "temporarily_unavailable");
        assert!(answer.header("retry-after").is_some());
        since.elapsed()
    }));
    let longest = asked.await.into_iter().max().unwrap();

    assert!(longest < Duration::from_secs(3), "{longest:?}");
    assert!(is_let_in(&client, &tokens).await, "who only reads is served");
    lock.release().await;
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    client.redeem(&code).await.assert_status(200);
}

/// Somebody's lock for a moment is nobody's trouble.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lock_that_is_let_go_soon_costs_nobody_an_answer() {
    let app = TestApp::with(limits("")).await;
    let (client, tokens) = app.tokens_of("bob").await;
    let lock = app.database.lock().await;

    let waiting = join_all((0..50).map(|_| client.refresh(&tokens.refresh_token)));
    let release = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        lock.release().await;
    };
    let (answers, ()) = tokio::join!(waiting, release);

    assert!(answers.iter().all(|answer| answer.status == 200 || answer.status == 429));
}

#[tokio::test]
async fn st_05_no_token_is_minted_while_the_clock_lies_before_the_last_time_that_was_stored() {
    let mut app = TestApp::with(limits("")).await;
    let (client, mut tokens) = app.tokens_of("bob").await;
    let code = client.code("bob").await;
    app.storage().note_time(app.now()).await.unwrap();
    let ready = async |app: &TestApp| app.http.get(&app.at("/ready")).await;

    app.advance(-301);
    for restarted in [false, true] {
        if restarted {
            app.restart().await;
        }
        let refused = client.refresh(&tokens.refresh_token).await;
        refused.assert_error(503, "temporarily_unavailable");
        assert!(refused.header("retry-after").is_some());
        client.redeem(&code).await.assert_error(503, "temporarily_unavailable");
        let said = ready(&app).await.assert_status(503).json();
        assert_eq!(said["database"], "the clock lies before its last time");
        app.http.get(&app.at("/health")).await.assert_status(200);
    }
    client.revoke(&tokens.refresh_token).await.assert_status(200);

    // What is a moment's difference is not refused, and nothing was used up.
    app.advance(1);
    ready(&app).await.assert_status(200);
    tokens = client.sign_in("bob").await;
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    app.advance(300);
    client.redeem(&code).await.assert_status(200);

    // A later time that was stored stays, until somebody says that it was wrong.
    app.advance(DAY);
    app.storage().note_time(app.now()).await.unwrap();
    app.advance(-DAY);
    app.storage().note_time(app.now()).await.unwrap();
    client.redeem("ac_x").await.assert_error(503, "temporarily_unavailable");
    let event = app.audit_event("clock_accepted");
    app.storage().accept_time(app.now(), event).await.unwrap();
    app.storage().last_time().await.unwrap();
    client.sign_in("bob").await;
}

#[tokio::test]
async fn st_05_a_replica_that_is_ahead_does_not_stop_the_others() {
    let app = TestApp::start().await;
    if !app.database.is_postgres() {
        return; // SQLite has no replicas
    }
    let (client, tokens) = app.tokens_of("bob").await;
    app.storage().note_time(app.now()).await.unwrap();
    let config = app.config();
    let key = config.secret_key.as_ref().map(|key| key.expose().as_bytes());
    let ahead = Storage::open(config.database_url.expose(), key).await.unwrap();
    let a_day = Duration::from_hours(24);
    for _ in 0..3 {
        app.advance(60);
        app.storage().note_time(app.now()).await.unwrap();
        ahead.note_time(app.now().plus(a_day)).await.unwrap();
    }
    app.storage().note_time(app.now()).await.unwrap();

    client.refresh(&tokens.refresh_token).await.assert_status(200);
    // Alone it would be believed.
    for _ in 0..2 {
        ahead.note_time(app.now().plus(a_day)).await.unwrap();
    }
    app.storage().note_time(app.now()).await.unwrap();
    assert!(app.storage().clock_is_behind(app.now()));
}

#[tokio::test]
async fn st_05_an_administrator_says_that_the_clock_is_right() {
    let app = TestApp::start_on_the_real_clock().await;
    let shell = async |arguments: &[&str]| {
        let mut command = portcullis(&app.database.folder);
        command.args(arguments).arg("--json");
        let ran = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        serde_json::from_slice::<serde_json::Value>(&ran.stdout).unwrap()
    };
    std::fs::write(app.database.folder.join("portcullis.toml"), app.config_text()).unwrap();
    let (client, tokens) = app.tokens_of("bob").await;
    assert_eq!(shell(&["clock", "show"]).await["behind"], false);
    app.advance(DAY);
    app.storage().note_time(app.now()).await.unwrap();
    app.advance(-DAY);
    client.refresh(&tokens.refresh_token).await.assert_error(503, "temporarily_unavailable");
    assert_eq!(shell(&["clock", "show"]).await["behind"], true);

    shell(&["clock", "accept"]).await;

    let since = Instant::now();
    while client.refresh(&tokens.refresh_token).await.status != 200 {
        assert!(since.elapsed() < Duration::from_secs(3), "it does not notice");
        tokio::task::yield_now().await;
    }
}

fn file(server: &Served, ending: &str) -> PathBuf {
    server.database.folder.join(format!("portcullis.db{ending}"))
}

/// What a start says that is refused.
fn refusal(folder: &Path) -> String {
    let refused = run(folder, &["serve", "--config", "portcullis.toml"], &[]);
    assert_eq!(refused.status.code(), Some(1));
    String::from_utf8(refused.stderr).unwrap()
}

#[tokio::test]
async fn st_04_another_installations_database_is_refused_and_a_backup_is_not() {
    let mut ours = Served::start().await;
    if ours.database.is_postgres() {
        return;
    }
    let mut others = Served::start().await;
    let made = run(&ours.database.folder, &["backup", "copy.db"], &[]);
    assert!(made.status.success());
    for server in [&mut ours, &mut others] {
        server.http.get(&format!("{}/ready", server.url)).await.assert_status(200);
        server.terminate().await.unwrap();
    }
    let aside = file(&ours, ".aside");
    std::fs::rename(file(&ours, ""), &aside).unwrap();
    std::fs::copy(file(&others, ""), file(&ours, "")).unwrap();
    let before = std::fs::read(file(&ours, "")).unwrap();

    let said = refusal(&ours.database.folder);

    assert!(said.contains("is not the one that was served here before"), "{said}");
    assert!(said.contains("portcullis.db.lock"), "{said}");
    assert!(std::fs::read(file(&ours, "")).unwrap() == before, "nothing was changed");

    // Its own backup is the same installation, and so is an older copy.
    for good in [ours.database.folder.join("copy.db"), aside] {
        for ending in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(file(&ours, ending));
        }
        std::fs::copy(good, file(&ours, "")).unwrap();
        ours.launch();
        ours.kill();
    }
    // As the refusal said.
    for ending in ["-wal", "-shm", ".lock"] {
        let _ = std::fs::remove_file(file(&ours, ending));
    }
    std::fs::copy(file(&others, ""), file(&ours, "")).unwrap();
    ours.launch();
}

/// The server as somebody who may not write there, also where the tests run as root; `None` where even that
/// is forbidden.
#[cfg(unix)]
fn refusal_of_nobody(folder: &Path) -> Option<String> {
    use std::os::unix::process::CommandExt;
    let is_root = Command::new("id").arg("-u").output().unwrap().stdout == b"0\n";
    // The build folder may be nobody else's business.
    let program = folder.join("portcullis");
    if !program.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_portcullis"), &program).unwrap();
    }
    let mut command = Command::new(&program);
    command.current_dir(folder).env_clear().args(["serve", "--config", "portcullis.toml"]);
    if is_root {
        command.uid(65534).gid(65534);
    }
    let ran = command.output().ok()?;
    assert_eq!(ran.status.code(), Some(1));
    Some(String::from_utf8(ran.stderr).unwrap())
}

#[cfg(unix)]
#[tokio::test]
async fn k7_a_database_that_cannot_be_written_is_refused_at_the_start_with_what_to_look_at() {
    use std::os::unix::fs::PermissionsExt;
    let mut server = Served::prepared().await;
    if server.database.is_postgres() {
        return;
    }
    let mode = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    let explained = |said: &str| {
        let wanted = ["portcullis.db", "must be able to read and write it", "mounted read-only"];
        assert!(wanted.iter().all(|wanted| said.contains(wanted)), "{said}");
    };
    let folder = server.database.folder.clone();
    let data = folder.join("data");
    std::fs::create_dir(&data).unwrap();
    let text = std::fs::read_to_string(&server.config).unwrap();
    let elsewhere = |part: &str| {
        std::fs::write(&server.config, text.replace("/portcullis.db\"", part)).unwrap();
    };

    // A path that cannot be one, whoever asks.
    elsewhere("/portcullis.toml/portcullis.db\"");
    explained(&refusal(&folder));
    // No database yet, in a folder that takes none.
    elsewhere("/data/portcullis.db\"");
    mode(&data, 0o555);
    let Some(said) = refusal_of_nobody(&folder) else { return };
    explained(&said);
    assert!(std::fs::read_dir(&data).unwrap().next().is_none());

    // One that may be read and not written.
    mode(&data, 0o755);
    server.launch();
    server.http.get(&format!("{}/ready", server.url)).await.assert_status(200);
    server.terminate().await.unwrap();
    let files = [data.join("portcullis.db"), data.join("portcullis.db.lock")];
    for file in &files {
        mode(file, 0o444);
    }
    mode(&data, 0o555);
    explained(&refusal_of_nobody(&folder).unwrap());
    // One that may be written, in a folder that takes no log beside it.
    for file in &files {
        mode(file, 0o666);
    }
    explained(&refusal_of_nobody(&folder).unwrap());

    mode(&data, 0o755);
    server.launch();
}
