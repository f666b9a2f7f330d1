//! Commands that may end several grants: count them first, then ask on the terminal.

use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal, Write};

use serde_json::{Value, json};

use super::{BY, CommandContext, CommandError, Output, grant_output, output};
use crate::cli::output::is_quiet;
use crate::storage::{Counted, Ended, Ending, GrantRow};
use crate::telemetry::audit::AuditEvent;

/// Exit code if confirmation is needed and there is no terminal.
pub(super) const NEEDS_YES: u8 = 2;
/// Grants per read of the database.
const BATCH: i64 = 1000;
/// Maximum number of grants that are listed before the question.
const LISTED: i64 = 20;

/// What every command takes that ends more than one thing.
#[derive(clap::Args)]
pub(super) struct Confirm {
    /// Print how many grants would end, and which, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask; required where there is no terminal
    #[arg(long)]
    yes: bool,
    /// Why, for the audit trail. It names nobody: a ticket number is better than a name
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl Confirm {
    /// Adds the reason to an audit event.
    fn explain(&self, event: AuditEvent) -> AuditEvent {
        match self.reason.as_deref().map(str::trim) {
            None | Some("") => event,
            Some(reason) => event.with("reason", reason),
        }
    }
}

pub(super) struct EndingTexts<'a> {
    /// The question on the terminal, such as `Block client_1?`.
    pub question: String,
    /// Text after success, printed before the number of ended grants.
    pub done: String,
    /// Text if there was nothing to change.
    pub before: &'a str,
}

/// Counts what would end, asks for confirmation unless `--yes` is given, and ends it.
pub(super) async fn carry_out(
    desk: &CommandContext,
    confirm: &Confirm,
    ending: &Ending,
    words: &EndingTexts<'_>,
) -> Result<Output, CommandError> {
    let counted = desk.storage.count_ending(ending, desk.now()).await?;
    if confirm.dry_run {
        return dry_run(desk, ending, &counted).await;
    }
    // A block matters without any connection; a revocation of nothing needs no question.
    if matches!(ending, Ending::Grants(_)) && counted == Counted::default() {
        let text = if is_quiet() { "" } else { "There is nothing to end.\n" };
        return Ok(Output::said(text.to_owned(), json!({ "changed": false, "ended": 0 })));
    }
    let mut confirmed = None;
    if !confirm.yes {
        if !std::io::stdin().is_terminal() {
            return Err(CommandError::with_code(
                NEEDS_YES,
                format!(
                    "{} {} There is no terminal to ask: add --yes to do it, or --dry-run to see which",
                    words.question,
                    sentence(&counted)
                ),
            ));
        }
        if !ask(desk, ending, &counted, &words.question).await? {
            return Err(CommandError::from("Nothing was changed".to_owned()));
        }
        confirmed = Some(&counted);
    }
    let event = confirm.explain(desk.event(ending.event()));
    match desk.storage.apply_counted(ending, confirmed, BY, desk.now(), event).await? {
        Ended::Done(ended) => {
            let text = format!("{}; {} ended.\n", words.done, have(ended));
            let text = if is_quiet() { String::new() } else { text };
            Ok(Output::said(text, json!({ "changed": true, "ended": ended })))
        }
        Ended::Unchanged => {
            Ok(Output::said(words.before.to_owned(), json!({ "changed": false, "ended": 0 })))
        }
        Ended::Recounted => Err(CommandError::from(
            "what this ends has changed since you were asked. Nothing was changed; look again"
                .to_owned(),
        )),
    }
}

fn have(grants: u64) -> String {
    if grants == 1 { "1 grant has".to_owned() } else { format!("{grants} grants have") }
}

fn several(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

/// Describes in one sentence what would end.
fn sentence(counted: &Counted) -> String {
    let grants = several(counted.grants, "grant", "grants");
    let people = several(counted.people, "person", "people");
    let clients = several(counted.clients, "client", "clients");
    let mut parts = vec![format!("{grants} of {people} with {clients}")];
    if counted.waiting > 0 {
        parts.push(several(counted.waiting, "sign-in that waits", "sign-ins that wait"));
    }
    if counted.sessions > 0 {
        parts.push(several(counted.sessions, "session at the pages", "sessions at the pages"));
    }
    if counted.deleted > 0 {
        let deleted = several(counted.deleted, "client", "clients");
        return format!("It deletes {deleted}, and ends {}.", parts.join(", "));
    }
    format!("It ends {}.", parts.join(", "))
}

/// Returns the grants that would end; with `most`, only the first ones.
async fn concerned(
    desk: &CommandContext,
    ending: &Ending,
    most: Option<i64>,
) -> Result<Vec<GrantRow>, CommandError> {
    let mut filter = ending.selection().filter();
    let mut grants = Vec::new();
    loop {
        let batch = most.unwrap_or(BATCH);
        let rows = desk.storage.browse_grants(&filter, desk.now(), batch).await?;
        let Some(last) = rows.last() else { return Ok(grants) };
        filter.after.clone_from(&last.id);
        grants.extend(rows);
        if most.is_some() {
            return Ok(grants);
        }
    }
}

async fn dry_run(
    desk: &CommandContext,
    ending: &Ending,
    counted: &Counted,
) -> Result<Output, CommandError> {
    let grants = concerned(desk, ending, None).await?;
    let mut text = format!("{}\n", sentence(counted));
    if !grants.is_empty() {
        text.push_str(&grant_output::table(desk, &grants).to_string());
    }
    text.push_str("Nothing was changed.\n");
    let listed: Vec<Value> = grants.iter().map(|row| grant_output::as_json(desk, row)).collect();
    let json = json!({
        "dry_run": true,
        "changed": false,
        "would_end": counted.grants,
        "would_delete": counted.deleted,
        "people": counted.people,
        "clients": counted.clients,
        "waiting_sign_ins": counted.waiting,
        "page_sessions": counted.sessions,
        "grants": listed,
    });
    Ok(Output::said(text, json))
}

/// Lists what would end, and asks on the terminal.
async fn ask(
    desk: &CommandContext,
    ending: &Ending,
    counted: &Counted,
    question: &str,
) -> Result<bool, CommandError> {
    let grants = concerned(desk, ending, Some(LISTED)).await?;
    let mut text = format!("{}\n", sentence(counted));
    if !grants.is_empty() {
        text.push_str(&grant_output::table(desk, &grants).to_string());
    }
    let more = counted.grants.saturating_sub(grants.len() as u64);
    if more > 0 {
        let _ = writeln!(text, "{more} more are not listed; --dry-run lists all.");
    }
    text.push_str(question);
    Ok(said_yes(&text)?)
}

/// Shows a text that ends in a question on the terminal. Only `y` and `yes` confirm.
pub(super) fn said_yes(text: &str) -> Result<bool, String> {
    let text = format!("{text} [y/N] ");
    let failed = |cause: std::io::Error| format!("the terminal could not be asked: {cause}");
    // Standard output is reserved for the command's result.
    let mut terminal = std::io::stderr().lock();
    terminal.write_all(output::plain(&text).as_bytes()).map_err(failed)?;
    terminal.flush().map_err(failed)?;
    drop(terminal);
    let mut said = String::new();
    std::io::stdin().lock().read_line(&mut said).map_err(failed)?;
    let said = said.trim();
    Ok(said.eq_ignore_ascii_case("y") || said.eq_ignore_ascii_case("yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_a_sentence() {
        let counted = |grants, people, clients, waiting, sessions| {
            let mut counted = Counted::default();
            (counted.grants, counted.people, counted.clients) = (grants, people, clients);
            (counted.waiting, counted.sessions) = (waiting, sessions);
            sentence(&counted)
        };
        assert_eq!(counted(1, 1, 1, 0, 0), "It ends 1 grant of 1 person with 1 client.");
        assert_eq!(
            counted(3, 2, 0, 1, 2),
            "It ends 3 grants of 2 people with 0 clients, 1 sign-in that waits, 2 sessions at the pages."
        );
    }
}
