//! `portcullis audit`: lists, exports and verifies the audit trail.

use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use super::output::{self, Table};
use super::{
    CommandContext, CommandError, Common, Output, PageOptions, moment, run, tell, with_storage,
};
use crate::admin::audit_sentences;
use crate::clock::Timestamp;
use crate::storage::{AuditFilter, AuditLine, ChainHead};

/// Exit code for a broken chain.
const BROKEN: u8 = 2;
/// Exit code if the chain could not be verified.
const UNTOLD: u8 = 3;
/// Header line of the CSV export.
const COLUMNS: &str =
    "id,at,event,actor,client_id,subject,resource,grant_id,reference,detail,seq\r\n";
/// Lines per read of the database.
const BATCH: i64 = 1000;

#[derive(Subcommand)]
pub(in crate::cli) enum AuditCommand {
    /// List audit events, newest first
    #[command(
        after_help = "Examples:\n  portcullis audit list --reference 7QCK-PTKQ\n  portcullis audit list --client client_0199c2a7 --since 2026-11-01"
    )]
    List(ListAudit),
    /// Export audit events as JSON Lines or CSV, newest first
    #[command(
        after_help = "Examples:\n  portcullis audit export > audit.jsonl\n  portcullis audit export --format csv --since 2026-11-01 > november.csv"
    )]
    Export(Export),
    /// Verify that no audit event was changed, removed, inserted or moved
    #[command(
        after_help = "Exit code: 0 intact, 2 broken, 3 unknown.\n\nKeep the printed head elsewhere. With --expect, a database that was put back to an older state is found, too.\nEvents that the server itself removed (audit.retention, limits.audit_size) are counted, and the chain is\nverified across them.\n\nExamples:\n  portcullis audit verify\n  portcullis audit verify --expect 4711:pHs1…"
    )]
    Verify(Verify),
}

#[derive(clap::Args)]
struct Filter {
    /// This event, such as client_blocked; docs/operations/audit.md lists all
    #[arg(long, value_name = "EVENT", default_value = "")]
    event: String,
    /// This client
    #[arg(long, value_name = "CLIENT_ID", default_value = "")]
    client: String,
    /// This person, by the sub of their tokens
    #[arg(long, value_name = "SUB", default_value = "")]
    person: String,
    /// This grant
    #[arg(long, value_name = "GRANT", default_value = "")]
    grant: String,
    /// The reference of an error page
    #[arg(long, value_name = "REFERENCE", default_value = "")]
    reference: String,
    /// From this day (midnight UTC) or time
    #[arg(long, value_name = "DAY", value_parser = moment)]
    since: Option<Timestamp>,
    /// Before this day or time
    #[arg(long, value_name = "DAY", value_parser = moment)]
    until: Option<Timestamp>,
}

#[derive(clap::Args)]
pub(in crate::cli) struct ListAudit {
    #[command(flatten)]
    filter: Filter,
    #[command(flatten)]
    page: PageOptions,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum AuditFormat {
    Jsonl,
    Csv,
}

#[derive(clap::Args)]
pub(in crate::cli) struct Export {
    #[command(flatten)]
    filter: Filter,
    /// The format
    #[arg(long, value_name = "FORMAT", default_value = "jsonl")]
    format: AuditFormat,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub(in crate::cli) struct Verify {
    /// The head that an earlier run printed: that event must still be there, unchanged
    #[arg(long, value_name = "SEQ:MAC", value_parser = head)]
    expect: Option<ChainHead>,
    #[command(flatten)]
    common: Common,
}

impl AuditCommand {
    pub(in crate::cli) fn run(&self) -> ExitCode {
        match self {
            Self::List(a) => run(&a.common, async |desk: &CommandContext| list(desk, a).await),
            Self::Export(a) => run(&a.common, async |desk: &CommandContext| export(desk, a).await),
            Self::Verify(a) => {
                let verified = with_storage(&a.common, async |desk: &CommandContext| {
                    verify(desk, a.expect.as_ref()).await
                });
                let answer = verified.unwrap_or_else(|CommandError { text, .. }| Output {
                    text: format!("It could not be told whether the chain holds: {text}\n"),
                    json: json!({ "holds": null, "error": text }),
                    code: UNTOLD,
                });
                tell(&a.common, &answer)
            }
        }
    }
}

fn head(text: &str) -> Result<ChainHead, String> {
    text.split_once(':')
        .and_then(|(seq, mac)| Some(ChainHead { seq: seq.parse().ok()?, mac: mac.to_owned() }))
        .filter(|head| head.seq >= 0)
        .ok_or_else(|| "write it as an earlier run printed it, such as 4711:pHs1…".to_owned())
}

impl Filter {
    fn before(&self, before: &str) -> AuditFilter {
        AuditFilter {
            event: self.event.clone(),
            client_id: self.client.clone(),
            subject: self.person.clone(),
            grant_id: self.grant.clone(),
            reference: self.reference.trim().to_uppercase(),
            since: self.since,
            until: self.until,
            before: before.to_owned(),
            ..AuditFilter::default()
        }
    }
}

async fn list(desk: &CommandContext, a: &ListAudit) -> Result<Output, CommandError> {
    let filter = a.filter.before(&a.page.after);
    let mut rows = desk.storage.audit_lines(&filter, a.page.ask()).await?;
    let next = a.page.next(&mut rows, |last| last.id.clone());
    let headings = [
        "TIME (UTC)",
        "WHAT",
        "EVENT",
        "ACTOR",
        "CLIENT",
        "PERSON",
        "GRANT",
        "REFERENCE",
        "DETAIL",
    ];
    let mut table = Table::new(&headings);
    let sentences = audit_sentences(&desk.storage, &rows, &desk.config.resources).await?;
    for (row, sentence) in rows.iter().zip(sentences) {
        let optional = |text: &Option<String>| text.clone().unwrap_or_default();
        table.row(vec![
            output::utc_cell(Timestamp::from_unix(row.at / 1000)),
            sentence,
            row.event.clone(),
            row.actor.clone(),
            optional(&row.client_id),
            optional(&row.subject),
            optional(&row.grant_id),
            optional(&row.reference),
            if row.detail == "{}" { String::new() } else { row.detail.clone() },
        ]);
    }
    Ok(Output::list("events", &table, rows.iter().map(as_json).collect(), next))
}

fn as_json(line: &AuditLine) -> Value {
    json!({
        "id": line.id,
        "at": at(line),
        "event": line.event,
        "actor": line.actor,
        "client_id": line.client_id,
        "subject": line.subject,
        "resource": line.resource,
        "grant_id": line.grant_id,
        "reference": line.reference,
        "detail": serde_json::from_str::<Value>(&line.detail).unwrap_or_default(),
        "seq": line.seq,
    })
}

/// Formats the time with milliseconds.
fn at(line: &AuditLine) -> String {
    chrono::DateTime::from_timestamp_millis(line.at)
        .map(|time| time.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
        .unwrap_or_default()
}

async fn export(desk: &CommandContext, a: &Export) -> Result<Output, CommandError> {
    let csv = a.format == AuditFormat::Csv && !a.common.json;
    if csv {
        output::print_as_is(COLUMNS)?;
    }
    let mut before = String::new();
    let mut written = 0_u64;
    loop {
        let lines = desk.storage.audit_lines(&a.filter.before(&before), BATCH).await?;
        let Some(last) = lines.last() else { break };
        before.clone_from(&last.id);
        let text: String = lines
            .iter()
            .map(|line| if csv { as_csv(line) } else { format!("{}\n", as_json(line)) })
            .collect();
        if csv { output::print_as_is(&text) } else { output::print(&text) }?;
        written += lines.len() as u64;
    }
    let format = if csv { "csv" } else { "jsonl" };
    let event = desk.event("audit_exported").with("lines", written).with("format", format);
    desk.storage.record(vec![event]).await?;
    Ok(Output { text: String::new(), json: Value::Null, code: 0 })
}

fn as_csv(line: &AuditLine) -> String {
    let optional = |text: &Option<String>| text.clone().unwrap_or_default();
    let cells = [
        line.id.clone(),
        at(line),
        line.event.clone(),
        line.actor.clone(),
        optional(&line.client_id),
        optional(&line.subject),
        optional(&line.resource),
        optional(&line.grant_id),
        optional(&line.reference),
        line.detail.clone(),
        line.seq.map(|seq| seq.to_string()).unwrap_or_default(),
    ];
    format!("{}\r\n", cells.map(|text| cell(&text)).join(","))
}

/// Formats a CSV cell so that a spreadsheet shows it as text. A value that looks like a formula gets a
/// leading apostrophe; quotes protect separators and quotes inside.
fn cell(text: &str) -> String {
    let text = output::plain(text);
    let formula = text
        .trim_start()
        .starts_with(['=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}']);
    let mark = if formula || text.starts_with(['\t', '\r', '\n']) { "'" } else { "" };
    format!("\"{mark}{}\"", text.replace('"', "\"\""))
}

async fn verify(desk: &CommandContext, expect: Option<&ChainHead>) -> Result<Output, CommandError> {
    let broken = |text: String| Output {
        json: json!({ "holds": false, "broken": text }),
        text: format!("The chain is broken: {text}.\n"),
        code: BROKEN,
    };
    // Chains all pending lines first, so that the printed head covers everything.
    while desk.storage.settle_audit_and_tell(&desk.clock).await? > 0 {}
    let verified = match desk.storage.verify_audit().await? {
        Ok(verified) => verified,
        Err(found) => return Ok(broken(found.to_string())),
    };
    if let Some(expected) = expect
        && let Err(found) = desk.storage.still_holds(expected, &verified).await?
    {
        return Ok(broken(found));
    }
    let head = format!("{}:{}", verified.head.seq, verified.head.mac);
    let lines = verified.head.seq - verified.first + 1 - verified.removed_between;
    let removed = match verified.removed {
        0 => String::new(),
        removed => {
            format!("The server has removed {removed} lines so far, as old or as too many.\n")
        }
    };
    let text = format!(
        "The chain holds: {lines} lines, from {} to {}.\n{removed}head  {head}\n\n\
         Keep the head elsewhere, and give it to --expect next time.\n",
        verified.first, verified.head.seq
    );
    let json = json!({
        "holds": true,
        "first": verified.first,
        "last": verified.head.seq,
        "lines": lines,
        "removed": verified.removed,
        "bytes": verified.bytes,
        "unsettled": verified.unsettled,
        "head": head,
    });
    Ok(Output::said(text, json))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_cell_is_a_formula() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", " =1", "\t=1", "＝1", "\u{200b}=1"] {
            let cell = cell(text);
            assert!(!cell.trim_start_matches('"').trim_start().starts_with(['=', '+', '-', '@']));
            assert!(cell.starts_with("\"'") || cell.starts_with("\"\u{fffd}"), "{cell}");
        }
        assert_eq!(cell("a \"quoted\", text"), "\"a \"\"quoted\"\", text\"");
    }

    #[test]
    fn a_head_is_read_as_it_is_printed() {
        assert_eq!(head("12:abc"), Ok(ChainHead { seq: 12, mac: "abc".to_owned() }));
        for text in ["", "12", "x:abc", "-1:abc"] {
            assert!(head(text).is_err(), "{text}");
        }
    }
}
