//! `portcullis connections`: lists and removes the services that people connected.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::ending::{NEEDS_YES, said_yes};
use super::output::{self, Table};
use super::{CommandContext, CommandError, Common, Output, PageOptions, run};
use crate::cli::output::{is_quiet, several};
use crate::connections::provider_keys;
use crate::storage::{COUNTED, ConnectionFilter, ConnectionRow, Ended};
use crate::telemetry::audit::AuditEvent;

/// Maximum number of connections that are listed before the question.
const LISTED: i64 = 20;
/// Connections per read of the database.
const BATCH: i64 = 1000;

#[derive(Subcommand)]
pub(in crate::cli) enum ConnectionsCommand {
    /// List the services that people connected, newest first
    #[command(
        after_help = "Examples:\n  portcullis connections list --broken\n  portcullis connections list --search \"hana dubois\"\n  portcullis connections list --service github --json"
    )]
    List(ListConnections),
    /// Remove connected services: of a person, of a service, or one of them
    #[command(
        after_help = "The tokens are deleted at once, and revoked at the service by the running server. The person can connect it again.\n\nExamples:\n  portcullis connections remove --person okta:00u1b2c3 --service github\n  portcullis connections remove --service github --dry-run\n  portcullis connections remove --person okta:00u1b2c3 --yes --reason TICKET-123"
    )]
    Remove(RemoveConnections),
}

#[derive(clap::Args)]
pub(in crate::cli) struct ListConnections {
    /// Of people with this name, beginning of a name, e-mail address or id
    #[arg(long, value_name = "TEXT", default_value = "")]
    search: String,
    /// Of this person, by the sub of their tokens
    #[arg(long, value_name = "SUB", default_value = "")]
    person: String,
    /// Of this service, by its name in the configuration
    #[arg(long, value_name = "NAME", default_value = "")]
    service: String,
    /// Only those that their person has to connect again
    #[arg(long)]
    broken: bool,
    #[command(flatten)]
    page: PageOptions,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
#[group(required = true, multiple = true, id = "of")]
struct RemovedOf {
    /// Of this person, by the sub of their tokens
    #[arg(long, value_name = "SUB", group = "of")]
    person: Option<String>,
    /// Of this service, by its name in the configuration
    #[arg(long, value_name = "NAME", group = "of")]
    service: Option<String>,
}

#[derive(clap::Args)]
pub(in crate::cli) struct RemoveConnections {
    #[command(flatten)]
    of: RemovedOf,
    /// Print how many would be removed, and which, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask; required where there is no terminal
    #[arg(long)]
    yes: bool,
    /// Why, for the audit trail. It names nobody: a ticket number is better than a name
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
    #[command(flatten)]
    common: Common,
}

impl ConnectionsCommand {
    pub(in crate::cli) fn run(&self) -> ExitCode {
        match self {
            Self::List(a) => run(&a.common, async |desk: &CommandContext| list(desk, a).await),
            Self::Remove(a) => run(&a.common, async |desk: &CommandContext| remove(desk, a).await),
        }
    }
}

/// People by `sub`, with their names.
type NamesOfPeople = HashMap<String, Option<String>>;

async fn names_of(
    desk: &CommandContext,
    rows: &[ConnectionRow],
) -> Result<NamesOfPeople, CommandError> {
    let subjects: Vec<&str> = rows.iter().map(|row| row.subject.as_str()).collect();
    Ok(desk.storage.names_of_people(&subjects).await?)
}

fn name_of<'a>(names: &'a NamesOfPeople, row: &ConnectionRow) -> Option<&'a str> {
    names.get(&row.subject).and_then(Option::as_deref)
}

fn scopes_of(row: &ConnectionRow) -> String {
    row.scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
}

fn table(rows: &[ConnectionRow], names: &NamesOfPeople) -> Table {
    let headings = ["CONNECTION", "PERSON", "SUB", "SERVICE", "ACCOUNT"];
    let further = ["SCOPES", "SINCE (UTC)", "LAST USE (UTC)", "STATE"];
    let mut table = Table::new(&[&headings[..], &further].concat());
    for row in rows {
        table.row(vec![
            row.id.clone(),
            name_of(names, row).unwrap_or_default().to_owned(),
            row.subject.clone(),
            row.name.clone(),
            row.account_label.clone().unwrap_or_default(),
            scopes_of(row),
            output::utc_cell(row.created_at),
            row.used_at.map(output::utc_cell).unwrap_or_default(),
            row.broken.as_ref().map_or_else(
                || "works".to_owned(),
                |reason| format!("to be connected again: {reason}"),
            ),
        ]);
    }
    table
}

fn as_json(row: &ConnectionRow, names: &NamesOfPeople) -> Value {
    json!({
        "connection_id": row.id,
        "sub": row.subject,
        "name": name_of(names, row),
        "service": row.name,
        "account": row.account_label,
        "scope": scopes_of(row),
        "works": row.broken.is_none(),
        "reason": row.broken,
        "created_at": output::iso(row.created_at),
        "last_used_at": output::iso_or_null(row.used_at),
    })
}

async fn list(desk: &CommandContext, a: &ListConnections) -> Result<Output, CommandError> {
    let search = match a.search.trim() {
        "" => None,
        text => Some(desk.storage.find_names(text, 0).await?),
    };
    let filter = ConnectionFilter {
        search,
        subject: a.person.clone(),
        name: a.service.clone(),
        broken: a.broken,
        configured: Some(provider_keys(&desk.config)),
        after: a.page.after.clone(),
        ..ConnectionFilter::default()
    };
    let mut rows = desk.storage.list_connections(&filter, a.page.ask()).await?;
    let next = a.page.next(&mut rows, |last| last.id.clone());
    let names = names_of(desk, &rows).await?;
    let listed = rows.iter().map(|row| as_json(row, &names)).collect();
    Ok(Output::list("connections", &table(&rows, &names), listed, next))
}

async fn remove(desk: &CommandContext, a: &RemoveConnections) -> Result<Output, CommandError> {
    let filter = ConnectionFilter {
        subject: a.of.person.clone().unwrap_or_default(),
        name: a.of.service.clone().unwrap_or_default(),
        configured: Some(provider_keys(&desk.config)),
        ..ConnectionFilter::default()
    };
    if filter.subject.is_empty() && filter.name.is_empty() {
        return Err(CommandError::from("say which: --person, --service or both".to_owned()));
    }
    let number = desk.storage.count_connections(&filter).await?;
    let sentence = format!("It removes {}.", counted(number));
    if a.dry_run {
        return dry_run(desk, &filter, &sentence).await;
    }
    if number == 0 {
        let text = if is_quiet() { "" } else { "There is nothing to remove.\n" };
        return Ok(Output::said(text.to_owned(), json!({ "changed": false, "removed": 0 })));
    }
    if !a.yes {
        if !std::io::stdin().is_terminal() {
            let text = format!(
                "{sentence} There is no terminal to ask: add --yes to do it, or --dry-run to see which"
            );
            return Err(CommandError::with_code(NEEDS_YES, text));
        }
        if !said_yes(&question(desk, &filter, number, &sentence).await?)? {
            return Err(CommandError::from("Nothing was changed".to_owned()));
        }
    }
    let removed = remove_all(desk, &filter, a.reason.as_deref()).await?;
    let text = format!("Removed {}.\n", counted(i64::try_from(removed).unwrap_or(i64::MAX)));
    let text = if is_quiet() { String::new() } else { text };
    Ok(Output::said(text, json!({ "changed": removed > 0, "removed": removed })))
}

/// Removes what a filter selects, a part at a time. What people connect meanwhile goes too.
async fn remove_all(
    desk: &CommandContext,
    filter: &ConnectionFilter,
    reason: Option<&str>,
) -> Result<u64, CommandError> {
    let event = || -> AuditEvent {
        let event = desk.event("connection_removed");
        match reason.map(str::trim) {
            None | Some("") => event,
            Some(reason) => event.with("reason", reason),
        }
    };
    let mut removed = 0;
    loop {
        match desk.storage.remove_connections(filter, None, desk.now(), event()).await? {
            Ended::Done(some) => removed += some,
            Ended::Unchanged | Ended::Recounted => return Ok(removed),
        }
    }
}

/// Says how many connections these are, as far as they were counted.
fn counted(number: i64) -> String {
    if number > COUNTED {
        return format!("more than {COUNTED} connections");
    }
    several(usize::try_from(number).unwrap_or(0), "connection")
}

async fn question(
    desk: &CommandContext,
    filter: &ConnectionFilter,
    number: i64,
    sentence: &str,
) -> Result<String, CommandError> {
    let rows = desk.storage.list_connections(filter, LISTED).await?;
    let names = names_of(desk, &rows).await?;
    let mut text = format!("{sentence}\n{}", table(&rows, &names));
    let more = number.saturating_sub(i64::try_from(rows.len()).unwrap_or(i64::MAX));
    if more > 0 {
        let _ = writeln!(text, "{more} more are not listed; --dry-run lists all.");
    }
    text.push_str("Remove them?");
    Ok(text)
}

async fn dry_run(
    desk: &CommandContext,
    filter: &ConnectionFilter,
    sentence: &str,
) -> Result<Output, CommandError> {
    let mut filter = filter.clone();
    let mut all = Vec::new();
    loop {
        let rows = desk.storage.list_connections(&filter, BATCH).await?;
        let Some(last) = rows.last() else { break };
        filter.after.clone_from(&last.id);
        all.extend(rows);
    }
    let names = names_of(desk, &all).await?;
    let mut text = format!("{sentence}\n");
    if !all.is_empty() {
        text.push_str(&table(&all, &names).to_string());
    }
    text.push_str("Nothing was changed.\n");
    let listed: Vec<Value> = all.iter().map(|row| as_json(row, &names)).collect();
    let json = json!({
        "dry_run": true,
        "changed": false,
        "would_remove": all.len(),
        "connections": listed,
    });
    Ok(Output::said(text, json))
}
