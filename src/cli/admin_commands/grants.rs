//! `portcullis grants`: lists and revokes grants.

use std::process::ExitCode;

use clap::Subcommand;

use super::ending::{self, Confirm, EndingTexts};
use super::{
    CommandContext, CommandError, Common, Output, PageOptions, grant_output, moment, output, run,
};
use crate::clock::Timestamp;
use crate::storage::{Ending, GrantFilter, Selection};

const BECAUSE: &str = "ended by an administrator";

#[derive(Subcommand)]
pub(in crate::cli) enum GrantsCommand {
    /// List grants, newest first: which person connected which client to which MCP server
    #[command(
        after_help = "Examples:\n  portcullis grants list --search \"hana dubois\"\n  portcullis grants list --person okta:00u1b2c3\n  portcullis grants list --server https://mcp.example.com/mcp --ended --json"
    )]
    List(ListGrants),
    /// End one grant, with its requests and open streams
    #[command(after_help = "Example:\n  portcullis grants revoke 0199c2a7b1f07d3e8f6a5b4c3d2e1f00")]
    Revoke(Revoke),
    /// End all grants of a client or a person, or all from before a day
    #[command(
        after_help = "Examples:\n  portcullis grants revoke-all --before 2026-11-21 --dry-run\n  portcullis grants revoke-all --client client_0199c2a7\n  portcullis grants revoke-all --person okta:00u1b2c3 --yes"
    )]
    RevokeAll(RevokeAll),
}

#[derive(clap::Args)]
pub(in crate::cli) struct ListGrants {
    /// Of people or clients with this name, beginning of a name, e-mail address or id
    #[arg(long, value_name = "TEXT", default_value = "")]
    search: String,
    /// Of this client
    #[arg(long, value_name = "CLIENT_ID", default_value = "")]
    client: String,
    /// Of this person, by the sub of their tokens
    #[arg(long, value_name = "SUB", default_value = "")]
    person: String,
    /// For this MCP server
    #[arg(long, value_name = "URL", default_value = "")]
    server: String,
    /// Include ended grants
    #[arg(long)]
    ended: bool,
    #[command(flatten)]
    page: PageOptions,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(in crate::cli) struct Revoke {
    /// The grant, as `grants list` names it
    #[arg(value_name = "GRANT")]
    id: String,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
#[group(required = true, multiple = false, id = "which")]
struct Which {
    /// All of this client
    #[arg(long, value_name = "CLIENT_ID", group = "which")]
    client: Option<String>,
    /// All of this person, by the sub of their tokens
    #[arg(long, value_name = "SUB", group = "which")]
    person: Option<String>,
    /// All from before this day (midnight UTC) or time
    #[arg(long, value_name = "DAY", group = "which", value_parser = moment)]
    before: Option<Timestamp>,
}

#[derive(clap::Args)]
pub(in crate::cli) struct RevokeAll {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    common: Common,
}

impl GrantsCommand {
    pub(in crate::cli) fn run(&self) -> ExitCode {
        match self {
            Self::List(a) => run(&a.common, async |desk: &CommandContext| list(desk, a).await),
            Self::Revoke(a) => {
                run(&a.common, async |desk: &CommandContext| revoke(desk, &a.id).await)
            }
            Self::RevokeAll(a) => {
                run(&a.common, async |desk: &CommandContext| revoke_all(desk, a).await)
            }
        }
    }
}

async fn list(desk: &CommandContext, a: &ListGrants) -> Result<Output, CommandError> {
    let search = match a.search.trim() {
        "" => None,
        text => Some(desk.storage.find_names(text, 0).await?),
    };
    let filter = GrantFilter {
        search,
        client_id: a.client.clone(),
        subject: a.person.clone(),
        resource: a.server.clone(),
        ended: a.ended,
        after: a.page.after.clone(),
        ..GrantFilter::default()
    };
    let mut rows = desk.storage.browse_grants(&filter, desk.now(), a.page.ask()).await?;
    let next = a.page.next(&mut rows, |last| last.id.clone());
    let table = grant_output::table(desk, &rows);
    let listed = rows.iter().map(|row| grant_output::as_json(desk, row)).collect();
    Ok(Output::list("grants", &table, listed, next))
}

async fn revoke(desk: &CommandContext, id: &str) -> Result<Output, CommandError> {
    let row = desk.storage.grant_row(id).await?;
    let row = row.ok_or_else(|| {
        CommandError::from(format!("there is no grant {id}; `portcullis grants list` names them"))
    })?;
    if let Some((at, reason)) = &row.revoked {
        let before = format!("{id} ended before, {}: {reason}.\n", output::utc(*at));
        return Ok(Output::changed(false, String::new(), &before));
    }
    let event = desk.event("grant_revoked").client(&row.client_id).subject(&row.subject);
    let event = event.resource(&row.resource);
    desk.storage.revoke_grant(id, BECAUSE, desk.now(), event).await?;
    Ok(Output::changed(true, format!("{id} has ended.\n"), ""))
}

async fn revoke_all(desk: &CommandContext, a: &RevokeAll) -> Result<Output, CommandError> {
    let (selection, question) = match (&a.which.client, &a.which.person, a.which.before) {
        (Some(client), _, _) => {
            (Selection::Client(client.clone()), format!("End all grants of {client}?"))
        }
        (_, Some(person), _) => {
            (Selection::Person(person.clone()), format!("End all grants of {person}?"))
        }
        (_, _, Some(before)) => (
            Selection::Before(before),
            format!("End all grants that were given before {}?", output::utc(before)),
        ),
        (None, None, None) => {
            return Err(CommandError::from("say which: --client, --person or --before".to_owned()));
        }
    };
    let words = EndingTexts { question, done: "Done".to_owned(), before: "" };
    ending::carry_out(desk, &a.confirm, &Ending::Grants(selection), &words).await
}
