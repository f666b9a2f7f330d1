//! `portcullis backup`: copies the SQLite database while the server runs.

use std::path::PathBuf;
use std::process::ExitCode;

use serde_json::json;

use super::{CommandContext, CommandError, Common, Output, run};
use crate::storage::Engine;

#[derive(clap::Args)]
pub(in crate::cli) struct BackupArguments {
    /// The file to create; it must not exist
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    common: Common,
}

impl BackupArguments {
    pub(in crate::cli) fn run(&self) -> ExitCode {
        run(&self.common, async |desk: &CommandContext| back_up(desk, self).await)
    }
}

async fn back_up(
    desk: &CommandContext,
    arguments: &BackupArguments,
) -> Result<Output, CommandError> {
    if desk.storage.engine() == Engine::Postgres {
        let text = "PostgreSQL has its own tool: pg_dump. docs/operations/backup.md says what a restored database must be told";
        return Err(CommandError::from(text.to_owned()));
    }
    let made = desk.storage.back_up(&arguments.file, desk.now()).await;
    let bytes = made.map_err(|error| CommandError::from(error.to_string()))?;
    desk.storage.record(vec![desk.event("backup_made").with("bytes", bytes)]).await?;
    let file = arguments.file.display().to_string();
    let text = format!(
        "{file}: {bytes} bytes, whole and on the disk. The secret key is not in it: keep that elsewhere.\n"
    );
    Ok(Output::said(text, json!({ "file": file, "bytes": bytes })))
}
