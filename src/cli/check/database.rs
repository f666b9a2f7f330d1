//! Checks whether the PostgreSQL server of `database_url` is one that works.

use crate::config::Config;
use crate::storage::examine;
use crate::upstream::probe::{Finding, Severity};

const PROBE: &str = "database";

/// Connects to the server, and changes nothing. SQLite has no server, so there is nothing to find.
pub(super) async fn run(config: &Config) -> Vec<Finding> {
    let finding = |severity, found| Finding { probe: PROBE, severity, found, hint: None };
    match examine(config.database_url.expose()).await {
        Ok(None) => Vec::new(),
        Ok(Some(server)) => match server.doubt {
            None => vec![finding(Severity::Ok, server.name)],
            Some(doubt) => {
                vec![finding(Severity::Warning, format!("{}: {doubt}", server.name))]
            }
        },
        Err(cause) => vec![finding(Severity::Failed, cause.to_string())],
    }
}
