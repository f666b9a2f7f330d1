//! Killed while the first start brings an empty database up to date.

use std::process::Stdio;
use std::time::Duration;

use crate::harness::database::Database;
use crate::harness::process::{Served, portcullis};

/// How many migrations there are, whole; none when there is no table of them yet.
async fn applied(database: &Database) -> i64 {
    let there_is = if database.is_postgres() {
        "SELECT COUNT(*) FROM pg_tables WHERE schemaname = current_schema() AND tablename = '_sqlx_migrations'"
    } else {
        "SELECT COUNT(*) FROM sqlite_master WHERE name = '_sqlx_migrations'"
    };
    // A file is made by the server itself, which may have been killed before.
    if !database.is_postgres() && !database.folder.join("portcullis.db").exists() {
        return 0;
    }
    if database.number(there_is).await == 0 {
        return 0;
    }
    database.number("SELECT COUNT(*) FROM _sqlx_migrations").await
}

#[tokio::test]
#[ignore = "takes long: scripts/test-crashes, scripts/test-replicas"]
async fn k10_killed_in_the_middle_of_its_migrations_the_next_start_completes_them() {
    let mut incomplete = 0;
    let mut seen = Vec::new();
    for round in 0..24 {
        let mut server = Served::prepared().await;
        let mut child = portcullis(&server.database.folder)
            .args(["serve", "--config", "portcullis.toml"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        if server.database.is_postgres() {
            // From before the first connection to the end of the one transaction that makes the schema.
            tokio::time::sleep(Duration::from_millis(20 + round * 5)).await;
        } else if round % 2 == 0 {
            tokio::time::sleep(Duration::from_millis(20 + round * 5)).await;
        } else {
            let file = server.database.folder.join("portcullis.db-wal");
            while std::fs::metadata(&file).map_or(0, |log| log.len()) < round * 12_000 {
                tokio::task::yield_now().await;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let before = applied(&server.database).await;

        server.launch();

        let all = applied(&server.database).await;
        assert!(before <= all && all >= 1);
        incomplete += usize::from(before < all);
        seen.push(before);
        let once = "SELECT COUNT(*) - COUNT(DISTINCT version) FROM _sqlx_migrations";
        assert_eq!(server.database.number(once).await, 0);
        assert_eq!(server.database.number("SELECT COUNT(*) FROM signing_keys").await, 1);
    }
    println!("migrations that were through at the kill: {seen:?}");
    assert!(incomplete > 0, "no kill came before the schema was complete");
}
