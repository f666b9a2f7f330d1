//! Replicas that start at once on a restored database: one settles it, and the others wait for as long as it
//! takes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStderr, Command, Stdio};

use crate::harness::process::{Served, portcullis};

const MARK: &str = "INSERT INTO installation (name, value) VALUES ('backup_taken_at', '0')";

/// Another replica that is settling: it has taken the mark away and has not committed yet.
fn settling(server: &Served) -> Child {
    let mut psql = Command::new("psql")
        .args(["-q", "-X", &server.database.url])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let stdin = psql.stdin.as_mut().unwrap();
    writeln!(stdin, "BEGIN; DELETE FROM installation WHERE name = 'backup_taken_at';").unwrap();
    psql
}

fn read_until(lines: &mut BufReader<ChildStderr>, wanted: &str) {
    let mut seen = String::new();
    while !seen.contains(wanted) {
        assert!(lines.read_line(&mut seen).unwrap() > 0, "the server ended: {seen}");
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs PostgreSQL and processes: scripts/test-replicas"]
async fn a_replica_waits_while_another_one_settles_a_restored_database_and_says_so() {
    let mut server = Served::start().await;
    server.kill();
    for (ends, told) in [("ROLLBACK", 1), ("COMMIT", 1)] {
        server.database.execute(MARK).await;
        let mut other = settling(&server);
        let held = "SELECT COUNT(*) FROM pg_stat_activity WHERE state = 'idle in transaction'
                    AND query LIKE 'DELETE FROM installation%'";
        while server.database.number(held).await == 0 {}
        let mut child = portcullis(&server.database.folder)
            .args(["serve", "--config", "portcullis.toml"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        // A lock is waited for four seconds at a time.
        for _ in 0..2 {
            read_until(&mut lines, "another replica ends everything in the restored database");
        }

        writeln!(other.stdin.as_mut().unwrap(), "{ends};").unwrap();

        read_until(&mut lines, "serving");
        let restored = "SELECT COUNT(*) FROM audit_events WHERE event = 'backup_restored'";
        assert_eq!(server.database.number(restored).await, told, "{ends}");
        other.kill().unwrap();
        other.wait().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
