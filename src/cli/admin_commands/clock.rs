//! `portcullis clock`: the system clock, and the last time that the server stored.

use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::{CommandContext, CommandError, Common, Output, output, run};

#[derive(Subcommand)]
pub(in crate::cli) enum ClockCommand {
    /// Show the clock of this machine and the last time that the server stored
    #[command(after_help = "Example:\n  portcullis clock show")]
    Show(ClockArguments),
    /// Accept the clock of this machine, so that tokens are issued again
    #[command(after_help = "Example:\n  portcullis clock accept")]
    Accept(ClockArguments),
}

#[derive(clap::Args)]
pub(in crate::cli) struct ClockArguments {
    #[command(flatten)]
    common: Common,
}

impl ClockCommand {
    pub(in crate::cli) fn run(&self) -> ExitCode {
        match self {
            Self::Show(a) => run(&a.common, async |desk: &CommandContext| show(desk).await),
            Self::Accept(a) => run(&a.common, async |desk: &CommandContext| accept(desk).await),
        }
    }
}

async fn show(desk: &CommandContext) -> Result<Output, CommandError> {
    let (clock, stored) = (desk.now(), desk.storage.last_time().await?);
    let behind = desk.storage.clock_is_behind(clock);
    let text = output::facts(&[
        ("Clock", output::utc(clock)),
        ("Stored", stored.map_or_else(|| "not yet".to_owned(), output::utc)),
        (
            "Tokens",
            if behind { "none: the clock lies before what was stored" } else { "yes" }.to_owned(),
        ),
    ]);
    let stored = output::iso_or_null(stored);
    Ok(Output::said(
        text,
        json!({ "clock": output::iso(clock), "stored": stored, "behind": behind }),
    ))
}

async fn accept(desk: &CommandContext) -> Result<Output, CommandError> {
    let (clock, before) = (desk.now(), desk.storage.last_time().await?);
    let event = desk.event("clock_accepted");
    let event = event.with("before", before.map(crate::clock::Timestamp::unix));
    desk.storage.accept_time(clock, event).await?;
    let text = format!("{} is taken for the present time.\n", output::utc(clock));
    Ok(Output::said(text, json!({ "clock": output::iso(clock) })))
}
