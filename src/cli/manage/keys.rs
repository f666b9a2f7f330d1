//! `portcullis keys`: the keys that sign access tokens.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::output::{self, Table};
use super::{Answer, Common, Desk, Trouble, run};

#[derive(Subcommand)]
pub(in crate::cli) enum Command {
    /// List signing keys: which one signs, and since when
    #[command(after_help = "Example:\n  portcullis keys list")]
    List(List),
}

#[derive(clap::Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    common: Common,
}

impl Command {
    pub(in crate::cli) fn run(&self) -> ExitCode {
        match self {
            Self::List(a) => run(&a.common, async |desk: &Desk| list(desk).await),
        }
    }
}

async fn list(desk: &Desk) -> Result<Answer, Trouble> {
    let keys = desk.storage.signing_keys().await?;
    let mut newest: BTreeMap<&str, i64> = BTreeMap::new();
    for key in &keys {
        let generation = newest.entry(&key.alg).or_default();
        *generation = key.generation.max(*generation);
    }
    let mut table = Table::new(&["KEY ID", "ALGORITHM", "GENERATION", "MADE", "STATE"]);
    let mut rows = Vec::new();
    for key in &keys {
        let signs = newest.get(key.alg.as_str()) == Some(&key.generation);
        table.row(vec![
            key.kid.clone(),
            key.alg.clone(),
            key.generation.to_string(),
            output::utc(key.created_at),
            if signs { "signs" } else { "verifies" }.to_owned(),
        ]);
        rows.push(json!({
            "kid": key.kid,
            "alg": key.alg,
            "generation": key.generation,
            "created_at": output::iso(key.created_at),
            "signs": signs,
        }));
    }
    Ok(Answer::list("keys", &table, rows, None))
}
