//! Kills the real binary with -9, and checks what must be true of the database afterwards: K1 to K15.

mod disk;
mod files;
mod migrations;
mod random;
#[cfg(debug_assertions)] // as the places themselves
mod stop_points;

use std::process::Stdio;
use std::time::Duration;

use crate::harness::database::Database;
use crate::harness::process::{Served, portcullis};

/// What must be nowhere in the database, whenever the process died.
const NEVER: &[(&str, &str)] = &[
    (
        "a code used up without a grant and its tokens",
        "SELECT COUNT(*) FROM authorization_codes c WHERE redeemed_at IS NOT NULL AND NOT EXISTS
         (SELECT 1 FROM grants g JOIN refresh_tokens r ON r.grant_id = g.id WHERE g.id = c.grant_id)",
    ),
    (
        "a grant without its code",
        "SELECT COUNT(*) FROM grants g WHERE NOT EXISTS
         (SELECT 1 FROM authorization_codes c WHERE c.grant_id = g.id AND c.redeemed_at IS NOT NULL)",
    ),
    (
        "a code that became two grants, or a token with two successors",
        "SELECT (SELECT COUNT(*) FROM refresh_tokens WHERE parent_id IS NULL)
              - (SELECT COUNT(*) FROM grants)
              + (SELECT COUNT(parent_id) - COUNT(DISTINCT parent_id) FROM refresh_tokens)",
    ),
    (
        "a rotated token without its successor",
        "SELECT COUNT(*) FROM refresh_tokens r WHERE used_at IS NOT NULL AND NOT EXISTS
         (SELECT 1 FROM refresh_tokens n
          WHERE n.id = r.successor_id AND n.parent_id = r.id AND n.grant_id = r.grant_id)",
    ),
    (
        "a successor of a token that was not rotated",
        "SELECT COUNT(*) FROM refresh_tokens n WHERE parent_id IS NOT NULL AND NOT EXISTS
         (SELECT 1 FROM refresh_tokens r WHERE r.id = n.parent_id AND r.successor_id = n.id
          AND r.used_at IS NOT NULL)",
    ),
    (
        "a family without exactly one unused token",
        "SELECT COUNT(*) FROM (SELECT grant_id FROM refresh_tokens GROUP BY grant_id
         HAVING COUNT(*) - COUNT(used_at) <> 1) forked",
    ),
    (
        "a token issued or rotated in a family that had been revoked",
        "SELECT COUNT(*) FROM grants g JOIN refresh_tokens r ON r.grant_id = g.id
         WHERE r.issued_at > g.revoked_at OR r.used_at > g.revoked_at",
    ),
    (
        "a change that the audit trail does not know, or a line of one that did not happen",
        "SELECT ABS((SELECT COUNT(*) FROM grants)
                  - (SELECT COUNT(*) FROM audit_events WHERE event = 'code_redeemed'))
              + ABS((SELECT COUNT(used_at) FROM refresh_tokens)
                  - (SELECT COUNT(*) FROM audit_events WHERE event = 'refresh_rotated'))",
    ),
];

/// And before the periodic clean-up takes what has expired.
const NEVER_AT_FIRST: &[(&str, &str)] = &[(
    "an approval without its login, or a login without its approval",
    "SELECT ABS((SELECT COUNT(*) FROM consents WHERE decision = 'approved')
                  - (SELECT COUNT(*) FROM logins))",
)];

/// SQLite's own word for it.
const DAMAGE: &[(&str, &str)] = &[
    ("a damaged page", "SELECT COUNT(*) FROM pragma_quick_check WHERE quick_check <> 'ok'"),
    ("a row without the row it refers to", "SELECT COUNT(*) FROM pragma_foreign_key_check"),
];

pub(crate) async fn assert_sound(database: &Database, when: &str) {
    let damage = if database.is_postgres() { &[] } else { DAMAGE };
    assert_never(database, NEVER, when).await;
    assert_never(database, damage, when).await;
}

async fn assert_never(database: &Database, never: &[(&str, &'static str)], when: &str) {
    for (what, sql) in never {
        assert_eq!(database.number(sql).await, 0, "{what}, after {when}");
    }
}

/// One more start, and its end before or soon after it serves.
async fn killed_while_starting(server: &Served, after: Duration) {
    let mut child = portcullis(&server.database.folder)
        .args(["serve", "--config", "portcullis.toml"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    tokio::time::sleep(after).await;
    child.kill().unwrap();
    child.wait().unwrap();
}
