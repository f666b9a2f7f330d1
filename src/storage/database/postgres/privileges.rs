//! The privileges that the role needs on each table. Checked when a server starts, and by `/ready`.

use sqlx::{AnyConnection, AnyPool, AssertSqlSafe, Executor, Row};

use crate::storage::database::OpenError;

/// The tables, and the statements run on each: `S`elect, `I`nsert, `U`pdate, `D`elete.
const NEEDED: &[(&str, &str)] = &[
    ("acme_secrets", "SIUD"),
    ("approval_patterns", "SIUD"),
    ("audit_events", "SIUD"),
    ("audit_gaps", "SID"),
    ("authorization_codes", "SIUD"),
    ("certificates", "SIUD"),
    ("client_reviews", "SIUD"),
    ("clients", "SIUD"),
    ("connection_attempts", "SIUD"),
    ("connections", "SIUD"),
    ("consents", "SID"),
    ("counters", "SIU"),
    ("denied_clients", "S"),
    ("denied_people", "S"),
    ("grants", "SIUD"),
    ("installation", "SIUD"),
    ("logins", "SIUD"),
    ("logins_awaiting_approval", "SIUD"),
    ("mcp_tasks", "SIUD"),
    ("notification_targets", "SIUD"),
    ("notifications", "SIUD"),
    ("people", "SIU"),
    ("people_words", "SID"),
    ("refresh_tokens", "SIUD"),
    ("refused_people", "SIUD"),
    ("remembered_consents", "SID"),
    ("replay_guard", "SID"),
    ("replicas", "SIUD"),
    ("scope_challenges", "SIUD"),
    ("signing_keys", "SIU"),
    ("token_revocations", "SIUD"),
    ("upstream_sessions", "SIUD"),
    ("upstream_sign_outs", "SIUD"),
    ("usage_days", "SIUD"),
    ("usage_hours", "SIUD"),
    ("usage_keys", "SIUD"),
    ("usage_of_servers", "SIUD"),
    ("web_sessions", "SIUD"),
];

fn privilege(letter: char) -> &'static str {
    match letter {
        'S' => "SELECT",
        'I' => "INSERT",
        'U' => "UPDATE",
        _ => "DELETE",
    }
}

/// Returns whether one of our tables has this name.
pub(crate) fn is_ours(table: &str) -> bool {
    NEEDED.iter().any(|(name, _)| *name == table)
}

/// Returns the privileges that the role lacks, such as `INSERT on people`. PostgreSQL only.
pub(crate) async fn missing(database: &mut AnyConnection) -> Result<Vec<String>, sqlx::Error> {
    let needed = NEEDED.iter().flat_map(|(table, letters)| {
        letters.chars().map(move |letter| format!("('{table}', '{}')", privilege(letter)))
    });
    // Every part of the text is a constant of this program.
    let sql = format!(
        "SELECT needed.privilege || ' on ' || needed.name AS missing
         FROM (VALUES {}) AS needed (name, privilege)
         WHERE NOT COALESCE(has_table_privilege(to_regclass(needed.name), needed.privilege), FALSE)
         ORDER BY needed.name, needed.privilege",
        needed.collect::<Vec<_>>().join(", ")
    );
    let rows = database.fetch_all(sqlx::query(AssertSqlSafe(sql))).await?;
    rows.iter().map(|row| row.try_get("missing")).collect()
}

/// Fails if the role lacks a privilege.
pub(crate) async fn refuse_missing(pool: &AnyPool) -> Result<(), OpenError> {
    let missing = missing(&mut *pool.acquire().await?).await?;
    if missing.is_empty() { Ok(()) } else { Err(OpenError::Rights(missing)) }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;

    use regex::Regex;

    use super::*;

    fn texts(folder: &Path, all: &mut String) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                texts(&path, all);
            } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "sql") {
                all.push_str(&std::fs::read_to_string(path).unwrap());
            }
        }
    }

    #[test]
    fn what_statements_do_is_what_the_role_needs() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (mut sql, mut schema) = (String::new(), String::new());
        texts(&root.join("src/storage"), &mut sql);
        texts(&root.join("migrations"), &mut schema);
        let tables: BTreeSet<String> = Regex::new(r"CREATE (?:TABLE|VIEW) (\w+)")
            .unwrap()
            .captures_iter(&schema)
            .map(|found| found[1].to_owned())
            .collect();
        let mut used: BTreeMap<String, BTreeSet<char>> = BTreeMap::new();
        for (letter, pattern) in [
            ('S', r"(?:FROM|JOIN)\s+(\w+)"),
            ('I', r"INSERT INTO\s+(\w+)"),
            ('U', r"\bUPDATE\s+(\w+)\s+SET"),
            ('U', r#"INSERT INTO\s+(\w+)[^"]*DO UPDATE"#),
            ('D', r"DELETE FROM\s+(\w+)"),
        ] {
            for found in Regex::new(pattern).unwrap().captures_iter(&sql) {
                if tables.contains(&found[1]) {
                    used.entry(found[1].to_owned()).or_default().insert(letter);
                }
            }
        }
        let needed: BTreeMap<String, BTreeSet<char>> = NEEDED
            .iter()
            .map(|(table, letters)| ((*table).to_owned(), letters.chars().collect()))
            .collect();
        assert_eq!(needed, used);
    }
}
