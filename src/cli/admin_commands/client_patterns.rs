//! `portcullis clients patterns`: websites whose clients need no approval.

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Value, json};

use super::output::{self, Table};
use super::{BY, CommandContext, CommandError, Common, Output, moment, run};
use crate::clock::Timestamp;
use crate::config::ClientApproval;
use crate::oauth::client::website::Website;
use crate::storage::{ApprovalPattern, NewApprovalPattern};

#[derive(Subcommand)]
pub(in crate::cli) enum PatternsCommand {
    /// List the websites, and how many clients each has approved
    #[command(after_help = "Example:\n  portcullis clients patterns list --json")]
    List(ListPatterns),
    /// Approve every client whose redirect URIs all go to this website, waiting ones at once
    #[command(
        after_help = "Examples:\n  portcullis clients patterns add chatgpt.com\n  portcullis clients patterns add chatgpt.com --until 2026-12-31   # the end of that day, UTC"
    )]
    Add(AddPattern),
    /// Approve no further clients of this website; approved ones stay approved
    #[command(after_help = "Example:\n  portcullis clients patterns remove chatgpt.com")]
    Remove(OnePattern),
}

#[derive(clap::Args)]
pub(in crate::cli) struct ListPatterns {
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(in crate::cli) struct AddPattern {
    /// The host, such as chatgpt.com; it stands for no other host
    #[arg(value_name = "WEBSITE", value_parser = Website::parse)]
    website: Website,
    /// Approve nobody after this day (UTC), or from this moment on
    #[arg(long, value_name = "DAY", value_parser = end)]
    until: Option<Timestamp>,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(in crate::cli) struct OnePattern {
    /// The host, as `patterns list` prints it
    #[arg(value_name = "WEBSITE")]
    website: String,
    #[command(flatten)]
    common: Common,
}

/// Parses a day, and returns its end, or an exact time.
fn end(text: &str) -> Result<Timestamp, String> {
    let moment = moment(text)?;
    let is_day = !text.contains(':');
    Ok(if is_day { moment.plus(Duration::from_hours(24)) } else { moment })
}

impl PatternsCommand {
    pub(super) fn run(&self) -> ExitCode {
        match self {
            Self::List(a) => run(&a.common, async |desk: &CommandContext| list(desk).await),
            Self::Add(a) => run(&a.common, async |desk: &CommandContext| add(desk, a).await),
            Self::Remove(a) => {
                run(&a.common, async |desk: &CommandContext| remove(desk, &a.website).await)
            }
        }
    }
}

async fn list(desk: &CommandContext) -> Result<Output, CommandError> {
    let patterns = desk.storage.approval_patterns().await?;
    let mut table = Table::new(&["WEBSITE", "UNTIL", "APPROVED", "ADDED", "BY"]);
    for pattern in &patterns {
        table.row(vec![
            pattern.host.clone(),
            pattern.until.map_or_else(|| "no end".to_owned(), output::utc),
            pattern.approved.to_string(),
            output::utc(pattern.created_at),
            pattern.created_by.clone(),
        ]);
    }
    let listed = patterns.iter().map(as_json).collect();
    Ok(Output::list("patterns", &table, listed, None))
}

fn as_json(pattern: &ApprovalPattern) -> Value {
    json!({
        "website": pattern.host,
        "until": output::iso_or_null(pattern.until),
        "approved": pattern.approved,
        "added_at": output::iso(pattern.created_at),
        "added_by": pattern.created_by,
    })
}

async fn add(desk: &CommandContext, a: &AddPattern) -> Result<Output, CommandError> {
    let (now, website) = (desk.now(), &a.website);
    if a.until.is_some_and(|until| until <= now) {
        return Err(CommandError::from("nothing was changed: that day is over".to_owned()));
    }
    let new = NewApprovalPattern { website, until: a.until, by: BY };
    let event = desk.event("approval_pattern_added");
    let approved = desk.storage.add_approval_pattern(&new, now, event).await?;
    let approved = approved.ok_or_else(|| {
        CommandError::from(
            "nothing was changed: there are 100 patterns already; remove one first".to_owned(),
        )
    })?;
    let mut text = format!("Clients of {website} need no approval. {approved} that waited ");
    text.push_str(if approved == 1 { "is approved.\n" } else { "are approved.\n" });
    if desk.config.client_approval != ClientApproval::FirstUse {
        text.push_str("No client needs approval on this server now (client_approval).\n");
    }
    Ok(Output::said(text, json!({ "changed": true, "approved": approved })))
}

async fn remove(desk: &CommandContext, website: &str) -> Result<Output, CommandError> {
    let event = desk.event("approval_pattern_removed");
    let removed = desk.storage.remove_approval_pattern(website, event).await?;
    let done = format!("{website} is removed. Clients that it approved stay approved.\n");
    Ok(Output::changed(removed, done, &format!("There is no pattern {website}.\n")))
}
