//! `portcullis usage`: who used what.

use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use serde_json::{Map, Value, json};

use super::output::{self, Table};
use super::{CommandContext, CommandError, Common, Output, PageOptions, moment, run};
use crate::clock::Timestamp;
use crate::storage::{
    CallOutcome, CalledName, UsageFilter, UsageRange, UsageRow, UsageSort, UsageStep,
};

/// Longest range that is summed up by hours: 2 days. A longer one is summed up by days.
const HOURS_UP_TO: Duration = Duration::from_hours(48);

#[derive(Subcommand)]
pub(in crate::cli) enum UsageCommand {
    /// List calls through the gateway by person, client, MCP server and tool, most calls first
    #[command(
        after_help = "Examples:\n  portcullis usage list\n  portcullis usage list --tool purge-todos --since 2026-11-20\n  portcullis usage list --person okta:00u1b2c3 --outcome scope_refused --json\n\nWithout --since: the last 24 hours. The last ten seconds of a running server may be missing. A range of more than\ntwo days begins and ends at midnight (UTC)."
    )]
    List(ListUsage),
}

#[derive(clap::Args)]
pub(in crate::cli) struct ListUsage {
    /// Of this person, by the sub of their tokens
    #[arg(long, value_name = "SUB")]
    person: Option<String>,
    /// Of this client
    #[arg(long, value_name = "CLIENT_ID")]
    client: Option<String>,
    /// Of this MCP server
    #[arg(long, value_name = "URL", default_value = "")]
    server: String,
    /// Of this tool
    #[arg(long, value_name = "TOOL", conflicts_with = "method")]
    tool: Option<String>,
    /// Of this method, where no tool is called
    #[arg(long, value_name = "METHOD")]
    method: Option<String>,
    /// Only what ended so: answered, tool_errors, errors, scope_refused, refused, failed, unanswered
    #[arg(long, value_name = "OUTCOME", value_parser = outcome)]
    outcome: Option<CallOutcome>,
    /// From this day (midnight UTC) or moment
    #[arg(long, value_name = "DAY", value_parser = moment)]
    since: Option<Timestamp>,
    /// Before this day (midnight UTC) or moment
    #[arg(long, value_name = "DAY", value_parser = moment)]
    until: Option<Timestamp>,
    /// The last call first
    #[arg(long)]
    by_time: bool,
    #[command(flatten)]
    page: PageOptions,
    #[command(flatten)]
    common: Common,
}

fn outcome(name: &str) -> Result<CallOutcome, String> {
    let names = CallOutcome::ALL.map(CallOutcome::name).join(", ");
    CallOutcome::named(name).ok_or_else(|| format!("write one of {names}"))
}

impl UsageCommand {
    pub(in crate::cli) fn run(&self) -> ExitCode {
        let Self::List(a) = self;
        run(&a.common, async |desk: &CommandContext| list(desk, a).await)
    }
}

async fn list(desk: &CommandContext, a: &ListUsage) -> Result<Output, CommandError> {
    let range = range(a.since, a.until, desk.now());
    let range = range.ok_or_else(|| {
        CommandError::from("there is nothing between --since and --until".to_owned())
    })?;
    let mut filter = UsageFilter::of(range);
    filter.subjects.extend(a.person.clone());
    filter.clients.extend(a.client.clone());
    filter.resource.clone_from(&a.server);
    let tool = a.tool.clone().map(CalledName::Tool);
    filter.called = tool.or_else(|| a.method.clone().map(CalledName::Method));
    filter.outcome = a.outcome;
    filter.sort = if a.by_time { UsageSort::Time } else { UsageSort::Calls };
    filter.after.clone_from(&a.page.after);
    let mut rows = desk.storage.list_usage(&filter, a.page.ask()).await?;
    let next = a.page.next(&mut rows, |last| last.place(&filter));
    let subjects: Vec<&str> = rows.iter().map(|row| row.subject.as_str()).collect();
    let people = desk.storage.names_of_people(&subjects).await?;
    let ids: Vec<&str> = rows.iter().map(|row| row.client_id.as_str()).collect();
    let clients = desk.storage.metadata_of_clients(&ids).await?;
    let headings =
        ["PERSON", "SUB", "CLIENT", "MCP SERVER", "TOOL", "CALLS", "NOT ANSWERED", "LAST (UTC)"];
    let mut table = Table::new(&headings);
    let mut listed = Vec::new();
    for row in &rows {
        let name = people.get(&row.subject).cloned().flatten();
        let client = clients.get(&row.client_id);
        let client = client.map(|metadata| output::client_name(Some(metadata)));
        table.row(vec![
            name.clone().unwrap_or_default(),
            row.subject.clone(),
            client.clone().unwrap_or_else(|| row.client_id.clone()),
            row.resource.clone(),
            tool_text(&row.called),
            row.counts.total().to_string(),
            row.counts.not_answered().to_string(),
            output::utc_cell(last_hour(row)),
        ]);
        listed.push(as_json(row, name.as_deref(), client.as_deref()));
    }
    Ok(Output::list("usage", &table, listed, next))
}

fn tool_text(called: &CalledName) -> String {
    match called {
        CalledName::Tool(name) if name.is_empty() => "(other tools)".to_owned(),
        CalledName::Method(name) if name.is_empty() => "(other requests)".to_owned(),
        CalledName::Tool(name) => name.clone(),
        CalledName::Method(name) => format!("({name})"),
    }
}

fn last_hour(row: &UsageRow) -> Timestamp {
    Timestamp::from_unix(row.last_hour.saturating_mul(3600))
}

fn as_json(row: &UsageRow, name: Option<&str>, client: Option<&str>) -> Value {
    let outcomes: Map<String, Value> = CallOutcome::ALL
        .into_iter()
        .map(|outcome| (outcome.name().to_owned(), row.counts.of(outcome).into()))
        .collect();
    json!({
        "subject": row.subject,
        "name": name,
        "client_id": row.client_id,
        "client_name": client,
        "mcp_server": row.resource,
        "kind": row.called.kind(),
        "tool": row.called.name(),
        "calls": row.counts.total(),
        "outcomes": outcomes,
        "last_hour": last_hour(row).unix(),
    })
}

/// Returns the hours, or the days if it is long; `None` if the range is empty.
fn range(since: Option<Timestamp>, until: Option<Timestamp>, now: Timestamp) -> Option<UsageRange> {
    let until = until.unwrap_or_else(|| now.plus(Duration::from_secs(1)));
    let since = since.unwrap_or_else(|| until.minus(Duration::from_hours(24)));
    if until <= since {
        return None;
    }
    let (step, unit) = if until.since(since) > HOURS_UP_TO {
        (UsageStep::Days, 86_400)
    } else {
        (UsageStep::Hours, 3600)
    };
    let from = since.unix().div_euclid(unit);
    Some(UsageRange { step, from, until: (until.unix() - 1).div_euclid(unit) + 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_whole_hours_or_days() {
        let at = |seconds: i64| Timestamp::from_unix(1_795_219_200 + seconds); // midnight
        let day = 1_795_219_200 / 86_400;
        let now = at(5 * 3600 + 1800);
        let hours = |from: i64, until: i64| {
            let (from, until) = (day * 24 + from, day * 24 + until);
            Some(UsageRange { step: UsageStep::Hours, from, until })
        };
        assert_eq!(range(None, None, now), hours(-19, 6));
        assert_eq!(range(Some(at(0)), None, now), hours(0, 6));
        assert_eq!(range(Some(at(0)), Some(at(3600)), now), hours(0, 1));
        let days = UsageRange { step: UsageStep::Days, from: day - 9, until: day + 1 };
        assert_eq!(range(Some(at(-9 * 86_400)), None, now), Some(days));
        assert_eq!(range(Some(at(1)), Some(at(1)), now), None);
    }
}
