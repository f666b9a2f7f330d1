//! `portcullis keys`: the keys that sign access tokens.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::output::{self, Table};
use super::{CommandContext, CommandError, Common, Output, run};
use crate::signing::{KeyRing, KeyRotation, KeyState, PUBLISHED_BEFORE, rotate};

#[derive(Subcommand)]
pub(in crate::cli) enum KeysCommand {
    /// List signing keys
    #[command(after_help = "Example:\n  portcullis keys list")]
    List(KeysArguments),
    /// Rotate signing keys without downtime
    #[command(
        after_help = "The next keys are published at once and sign ten minutes later.\n\nExample:\n  portcullis keys rotate"
    )]
    Rotate(KeysArguments),
}

#[derive(clap::Args)]
pub(in crate::cli) struct KeysArguments {
    #[command(flatten)]
    common: Common,
}

impl KeysCommand {
    pub(in crate::cli) fn run(&self) -> ExitCode {
        match self {
            Self::List(a) => run(&a.common, async |desk: &CommandContext| list(desk).await),
            Self::Rotate(a) => run(&a.common, async |desk: &CommandContext| renew(desk).await),
        }
    }
}

async fn list(desk: &CommandContext) -> Result<Output, CommandError> {
    // Requests no algorithm, so that no key is generated.
    let issuer = desk.config.public_url.as_str();
    let ring = KeyRing::load(&desk.storage, &desk.clock, issuer, &[]).await;
    let ring = ring.map_err(|error| error.to_string())?;
    let mut table = Table::new(&["KEY ID", "ALGORITHM", "GENERATION", "CREATED (UTC)", "STATE"]);
    let mut rows = Vec::new();
    for key in ring.describe() {
        let state = match key.state {
            KeyState::Next => "next",
            KeyState::Current => "signs",
            KeyState::Former => "former",
        };
        table.row(vec![
            key.kid.clone(),
            key.alg.to_owned(),
            key.generation.to_string(),
            output::utc_cell(key.created_at),
            state.to_owned(),
        ]);
        rows.push(json!({
            "kid": key.kid,
            "alg": key.alg,
            "generation": key.generation,
            "created_at": output::iso(key.created_at),
            "signs_from": output::iso(key.signs_from),
            "retires_at": key.retires_at.map(output::iso),
            "signs": key.state == KeyState::Current,
            "state": state,
        }));
    }
    Ok(Output::list("keys", &table, rows, None))
}

async fn renew(desk: &CommandContext) -> Result<Output, CommandError> {
    let algs = desk.config.token_algs();
    let rotated = rotate(&desk.storage, &algs, desk.now(), desk.event("key_added")).await;
    let begun = rotated.map_err(|error| error.to_string())? == KeyRotation::Begun;
    let minutes = PUBLISHED_BEFORE.as_secs() / 60;
    let done = format!("The next keys are published; they sign in {minutes} minutes.\n");
    let before = "The last rotation is not through yet; nothing was changed.\n";
    Ok(Output::changed(begun, done, before))
}
