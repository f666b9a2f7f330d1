//! `portcullis people`: lists, blocks and signs out people.

use std::collections::HashMap;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::ending::{self, Confirm, EndingTexts};
use super::grant_output;
use super::output::{self, Table};
use super::{CommandContext, CommandError, Common, Output, PageOptions, run};
use crate::policy::Facts;
use crate::storage::{Ending, GrantFilter, PersonFilter, PersonRow};

#[derive(Subcommand)]
pub(in crate::cli) enum PeopleCommand {
    /// List people who have signed in, the most recent first
    #[command(
        after_help = "Examples:\n  portcullis people list --search brown\n  portcullis people list --blocked --json"
    )]
    List(ListPeople),
    /// Show a person: roles, groups, what they may do and why, and their grants
    #[command(after_help = "Example:\n  portcullis people show okta:00u1b2c3")]
    Show(OnePerson),
    /// Block a person and end their connections and sessions
    #[command(
        after_help = "Examples:\n  portcullis people block okta:00u1b2c3 --dry-run\n  portcullis people block okta:00u1b2c3 --yes"
    )]
    Block(EndPersonAccess),
    /// Unblock a person
    #[command(after_help = "Example:\n  portcullis people unblock okta:00u1b2c3")]
    Unblock(OnePerson),
    /// End all connections and sessions of a person, who may sign in again
    #[command(
        after_help = "Examples:\n  portcullis people sign-out okta:00u1b2c3 --dry-run\n  portcullis people sign-out okta:00u1b2c3"
    )]
    SignOut(EndPersonAccess),
}

#[derive(clap::Args)]
pub(in crate::cli) struct ListPeople {
    /// Words of the name or their first three letters or more, an e-mail address, a sub, or the id at the provider
    #[arg(long, value_name = "TEXT", default_value = "")]
    search: String,
    /// Only blocked people
    #[arg(long)]
    blocked: bool,
    /// Those who signed in longest ago come first
    #[arg(long)]
    oldest_first: bool,
    #[command(flatten)]
    page: PageOptions,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(in crate::cli) struct OnePerson {
    /// The person, by the sub of their tokens
    #[arg(value_name = "SUB")]
    subject: String,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(in crate::cli) struct EndPersonAccess {
    /// The person, by the sub of their tokens
    #[arg(value_name = "SUB")]
    subject: String,
    #[command(flatten)]
    confirm: Confirm,
    #[command(flatten)]
    common: Common,
}

impl PeopleCommand {
    pub(in crate::cli) fn run(&self) -> ExitCode {
        match self {
            Self::List(a) => run(&a.common, async |desk: &CommandContext| list(desk, a).await),
            Self::Show(a) => {
                run(&a.common, async |desk: &CommandContext| show(desk, &a.subject).await)
            }
            Self::Block(a) => run(&a.common, async |desk: &CommandContext| block(desk, a).await),
            Self::Unblock(a) => {
                run(&a.common, async |desk: &CommandContext| unblock(desk, &a.subject).await)
            }
            Self::SignOut(a) => {
                run(&a.common, async |desk: &CommandContext| sign_out(desk, a).await)
            }
        }
    }
}

async fn list(desk: &CommandContext, a: &ListPeople) -> Result<Output, CommandError> {
    let filter = PersonFilter {
        search: a.search.clone(),
        blocked: a.blocked,
        oldest_first: a.oldest_first,
        after: a.page.after.clone(),
        backwards: false,
    };
    let mut rows = desk.storage.browse_people(&filter, a.page.ask()).await?;
    let next =
        a.page.next(&mut rows, |last| format!("{} {}", last.last_seen_at.unix(), last.subject));
    let live = live_grants(desk, &rows).await?;
    let mut table =
        Table::new(&["SUB", "NAME", "E-MAIL", "LIVE GRANTS", "LAST SIGN-IN (UTC)", "STATE"]);
    let mut people = Vec::new();
    for row in &rows {
        let person = row.person.as_ref();
        let live = live.get(&row.subject).copied().unwrap_or_default();
        people.push(as_json(row, live));
        table.row(vec![
            row.subject.clone(),
            person.and_then(|person| person.name.clone()).unwrap_or_default(),
            person.and_then(|person| person.email.clone()).unwrap_or_default(),
            live.to_string(),
            output::utc_cell(row.last_seen_at),
            if row.blocked.is_some() { "blocked" } else { "" }.to_owned(),
        ]);
    }
    Ok(Output::list("people", &table, people, next))
}

async fn live_grants(
    desk: &CommandContext,
    rows: &[PersonRow],
) -> Result<HashMap<String, i64>, CommandError> {
    let subjects: Vec<&str> = rows.iter().map(|row| row.subject.as_str()).collect();
    Ok(desk.storage.live_grants(&subjects, desk.now()).await?)
}

fn as_json(row: &PersonRow, live_grants: i64) -> Value {
    let person = row.person.as_ref();
    json!({
        "sub": row.subject,
        "issuer": row.issuer,
        "name": person.and_then(|person| person.name.as_deref()),
        "email": person.and_then(|person| person.email.as_deref()),
        "first_seen_at": output::iso(row.first_seen_at),
        "last_seen_at": output::iso(row.last_seen_at),
        "blocked_at": output::iso_or_null(row.blocked.as_ref().map(|(at, _)| *at)),
        "blocked_by": row.blocked.as_ref().map(|(_, by)| by),
        "live_grants": live_grants,
    })
}

async fn known(desk: &CommandContext, subject: &str) -> Result<PersonRow, CommandError> {
    desk.storage.person_row(subject).await?.ok_or_else(|| {
        CommandError::from(format!(
            "nobody with the sub {subject} has signed in; `portcullis people list --search NAME` finds people"
        ))
    })
}

async fn show(desk: &CommandContext, subject: &str) -> Result<Output, CommandError> {
    let row = known(desk, subject).await?;
    let filter = GrantFilter { subject: subject.to_owned(), ..GrantFilter::default() };
    let grants = desk.storage.browse_grants(&filter, desk.now(), 100).await?;
    let blocked = row
        .blocked
        .as_ref()
        .map_or_else(|| "no".to_owned(), |(at, by)| format!("since {}, by {by}", output::utc(*at)));
    let mut facts = vec![
        ("sub", row.subject.clone()),
        ("identity provider", row.issuer.clone()),
        ("first sign-in", output::utc(row.first_seen_at)),
        ("last sign-in", output::utc(row.last_seen_at)),
        ("blocked", blocked),
    ];
    let live = live_grants(desk, std::slice::from_ref(&row)).await?;
    let mut json = as_json(&row, live.get(subject).copied().unwrap_or_default());
    if let Some(person) = &row.person {
        facts.extend([
            ("name", person.name.clone().unwrap_or_default()),
            ("e-mail", person.email.clone().unwrap_or_default()),
            ("groups", person.facts.groups.to_string()),
            ("roles", person.facts.roles.to_string()),
            ("permissions", person.facts.permissions.to_string()),
        ]);
        json["facts"] = serde_json::to_value(&person.facts).unwrap_or_default();
    }
    let mut text = output::facts(&facts);
    if let Some(person) = &row.person {
        let (table, rights) = rights(desk, &person.facts);
        text.push_str("\nmay, for a client that asks for every scope\n");
        text.push_str(&table.to_string());
        json["may"] = rights;
    }
    text.push_str("\ngrants\n");
    text.push_str(&grant_output::table(desk, &grants).to_string());
    json["grants"] = grants.iter().map(|row| grant_output::as_json(desk, row)).collect();
    Ok(Output::said(text, json))
}

/// Returns what a person may do at each MCP server, and why: as a table and as JSON.
fn rights(desk: &CommandContext, facts: &Facts) -> (Table, Value) {
    let mut table = Table::new(&["MCP SERVER", "MAY", "MAY NOT", "WHY"]);
    let mut rights = Vec::new();
    for resource in &desk.config.resources {
        let policy = &resource.policy;
        // Cannot fail: the declared scopes of an MCP server are never in excess of it.
        let Ok(explained) = policy.explain(facts, "", &policy.declared) else { continue };
        let (refused, decision) = (explained.refused, explained.decision);
        let may = if refused {
            "refused".to_owned()
        } else if decision.granted.is_empty() {
            "access, without any scope".to_owned()
        } else {
            decision.granted.to_string()
        };
        let why = if policy.rules.is_empty() {
            "there are no rules: everybody may".to_owned()
        } else if !decision.matched.is_empty() {
            decision.matched.join(", ")
        } else if refused || decision.granted.is_empty() {
            "no rule matches".to_owned()
        } else {
            "everybody may".to_owned()
        };
        rights.push(json!({
            "resource": resource.id,
            "name": resource.name,
            "refused": refused,
            "may": decision.granted.to_string(),
            "may_not": decision.missing.to_string(),
            "rules": decision.matched,
        }));
        table.row(vec![resource.id.clone(), may, decision.missing.to_string(), why]);
    }
    (table, Value::Array(rights))
}

async fn block(desk: &CommandContext, a: &EndPersonAccess) -> Result<Output, CommandError> {
    let subject = known(desk, &a.subject).await?.subject;
    let words = EndingTexts {
        question: format!("Block {subject}?"),
        done: format!("{subject} is blocked"),
        before: &format!("{subject} was blocked before.\n"),
    };
    let ending = Ending::BlockPerson(subject);
    ending::carry_out(desk, &a.confirm, &ending, &words).await
}

async fn unblock(desk: &CommandContext, subject: &str) -> Result<Output, CommandError> {
    known(desk, subject).await?;
    let changed = desk.storage.unblock_person(subject, desk.event("person_unblocked")).await?;
    let done = format!("{subject} may sign in again.\n");
    Ok(Output::changed(changed, done, &format!("{subject} was not blocked.\n")))
}

async fn sign_out(desk: &CommandContext, a: &EndPersonAccess) -> Result<Output, CommandError> {
    let subject = known(desk, &a.subject).await?.subject;
    let words = EndingTexts {
        question: format!("Sign {subject} out everywhere?"),
        done: format!("{subject} is signed out everywhere"),
        before: "",
    };
    let ending = Ending::SignOut(subject);
    ending::carry_out(desk, &a.confirm, &ending, &words).await
}
