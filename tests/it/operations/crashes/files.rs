//! What happens to the files of an SQLite database behind the server's back.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use super::assert_sound;
use crate::harness::client::{McpClient, Tokens};
use crate::harness::process::{Served, run};

fn file(server: &Served, ending: &str) -> PathBuf {
    server.database.folder.join(format!("portcullis.db{ending}"))
}

/// What a start says that is refused.
fn refusal(server: &Served) -> String {
    let refused = run(&server.database.folder, &["serve", "--config", "portcullis.toml"], &[]);
    assert!(!refused.status.success());
    String::from_utf8(refused.stderr).unwrap()
}

#[tokio::test]
async fn st_04_no_empty_database_is_made_in_place_of_one_that_is_lost() {
    let mut server = Served::start().await;
    if server.database.is_postgres() {
        return;
    }
    let client = McpClient::register(&server).await;
    let tokens = client.sign_in("bob").await;
    server.terminate().await.unwrap();
    let (database, aside) = (file(&server, ""), file(&server, ".aside"));
    std::fs::rename(&database, &aside).unwrap();

    let said = refusal(&server);
    assert!(said.contains("is missing or empty"), "{said}");
    assert!(!database.exists(), "nothing was made");
    std::fs::write(&database, "").unwrap();
    assert!(refusal(&server).contains("is missing or empty"));

    std::fs::rename(&aside, &database).unwrap();
    server.launch();
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    server.kill();
    for ending in ["", "-wal", "-shm", ".lock"] {
        let _ = std::fs::remove_file(file(&server, ending));
    }
    server.launch(); // as the refusal said
    assert_eq!(server.database.number("SELECT COUNT(*) FROM grants").await, 0);
}

#[tokio::test]
async fn st_04_a_database_that_is_taken_away_under_the_server_takes_no_more_writes() {
    let server = Served::start().await;
    if server.database.is_postgres() {
        return;
    }
    let client = McpClient::register(&server).await;
    let mut tokens = client.sign_in("bob").await;
    let ready = format!("{}/ready", server.url);
    for ending in ["", "-wal"] {
        let (file, aside) = (file(&server, ending), file(&server, ".aside"));
        std::fs::rename(&file, &aside).unwrap();
        while server.http.get(&ready).await.status == 200 {}

        let refused = client.refresh(&tokens.refresh_token).await;
        refused.assert_error(503, "temporarily_unavailable");
        assert!(refused.header("retry-after").is_some());

        std::fs::rename(&aside, &file).unwrap();
        while server.http.get(&ready).await.status != 200 {}
        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    }
}

#[tokio::test]
async fn k8_a_damaged_database_is_refused_and_a_torn_log_loses_its_torn_end_alone() {
    let mut server = Served::without_rates().await;
    if server.database.is_postgres() {
        return;
    }
    let client = McpClient::register(&server).await;
    let log = file(&server, "-wal");
    let mut answered = Vec::new();
    for _ in 0..4 {
        let tokens = client.sign_in("bob").await;
        answered.push((tokens.refresh_token, std::fs::metadata(&log).unwrap().len()));
    }
    server.kill();
    // The end of the log is gone in the middle of what came last, and then is not what was written.
    let whole = std::fs::read(&log).unwrap();
    let (_, last) = answered.pop().unwrap();
    let (_, before) = *answered.last().unwrap();
    assert!(before < last, "each login is in the log");
    let mut torn = whole[..usize::try_from(last).unwrap() - 1000].to_vec();
    for garbage in [false, true] {
        if garbage {
            torn = std::fs::read(&log).unwrap();
            torn.extend_from_slice(&[0x5a; 7000]);
        }
        let _ = std::fs::remove_file(file(&server, "-shm"));
        std::fs::write(&log, &torn).unwrap();
        server.launch();
        assert_sound(&server.database, "a torn log").await;
        for (token, _) in &mut answered {
            *token = Tokens::of(&client.refresh(token).await).refresh_token;
        }
        server.kill();
    }
    // Pages of the database itself, after everything is in it.
    server.launch();
    let ready = format!("{}/ready", server.url);
    server.http.get(&ready).await.assert_status(200); // it heeds the signal from here on
    server.terminate().await.unwrap();
    let mut pages = std::fs::read(file(&server, "")).unwrap();
    let half = pages.len() / 2;
    pages[half - 30_000..half + 30_000].fill(0x5a);
    std::fs::write(file(&server, ""), &pages).unwrap();
    let said = refusal(&server);
    assert!(said.contains("damaged"), "{said}");
    pages[..100].fill(0x5a);
    std::fs::write(file(&server, ""), &pages).unwrap();
    let said = refusal(&server);
    assert!(said.contains("damaged"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes long: scripts/test-crashes"]
async fn k6_a_database_that_another_process_locks_is_503_in_bounded_time() {
    let server = Served::without_rates().await;
    let client = McpClient::register(&server).await;
    let tokens = client.sign_in("bob").await;
    let code = client.code("bob").await;
    let holding = "import sqlite3, sys, time\n\
                   c = sqlite3.connect(sys.argv[1], isolation_level=None)\n\
                   c.execute('BEGIN EXCLUSIVE')\nprint('held', flush=True)\ntime.sleep(60)";
    let mut holder = Command::new("python3")
        .args(["-c", holding])
        .arg(file(&server, ""))
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut said = std::io::BufReader::new(holder.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    assert_eq!(line, "held\n");

    let since = Instant::now();
    let refused = futures_util::future::join_all((0..30).map(|_| async {
        let refused = client.refresh(&tokens.refresh_token).await;
        refused.assert_error(503, "temporarily_unavailable");
        assert!(refused.header("retry-after").is_some());
        since.elapsed()
    }));
    let alive = async {
        let mut slowest = Duration::ZERO;
        while since.elapsed() < Duration::from_secs(4) {
            let asked = Instant::now();
            let health = format!("{}/health", server.url);
            server.http.get(&health).await.assert_status(200);
            slowest = slowest.max(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        slowest
    };
    let (refused, slowest) = tokio::join!(refused, alive);
    let longest = refused.into_iter().max().unwrap();
    println!("locked: 30 refreshes refused within {longest:?}; /health took {slowest:?} at most");
    assert!(longest < Duration::from_secs(3));
    assert!(slowest < Duration::from_secs(1), "{slowest:?}");

    holder.kill().unwrap();
    holder.wait().unwrap();
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    Tokens::of(&client.redeem(&code).await);
    assert_sound(&server.database, "the lock").await;
}
