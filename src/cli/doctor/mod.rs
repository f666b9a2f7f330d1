//! `portcullis doctor`: tests an MCP URL as each known client would use it, and reports what works and what
//! does not.
//!
//! It works with any MCP server. The behaviour of clients is data (`clients.rs`). With `--connections` it asks
//! the services of the configuration instead (`connections.rs`).

mod clients;
mod connections;
mod documents;
mod register;
mod visit;
mod walk;
mod wire;

use std::fmt::Write as _;
use std::process::ExitCode;

use serde_json::json;
use url::Url;

use self::clients::CLIENTS;
use self::visit::Visit;
use self::wire::Wire;
use super::check::exit_code;
use super::output::{self, FindingMark};
use super::{ConfigFile, fail, runtime};
use crate::http_client::is_loopback;
use crate::telemetry::{self, LogFormat};
use crate::upstream::probe::{Finding, Severity};

/// Maximum length of a printed finding, in characters; `--json` prints it in full.
const LONGEST: usize = 500;

/// What to walk, and how far.
#[derive(clap::Args)]
pub struct DoctorArguments {
    /// The URL that people type into their client
    #[arg(value_name = "MCP-URL", required_unless_present = "connections")]
    url: Option<String>,
    /// Ask instead whether the service of each configured connection knows the client ID and secret. A code that
    /// does not exist is sent to its token endpoint; nobody signs in
    #[arg(long, conflicts_with_all = ["url", "register"])]
    connections: bool,
    #[command(flatten)]
    file: ConfigFile,
    /// Register as each client and open its authorization page. Registrations are deleted again where the server
    /// allows it. Without this, nothing is changed: documents are read, the MCP endpoint is called without a
    /// token, and the token and authorization endpoints get a code and a client that do not exist
    #[arg(long)]
    register: bool,
    #[command(flatten)]
    output: DoctorOutput,
}

/// How findings are printed.
#[derive(clap::Args)]
struct DoctorOutput {
    /// Print every step, not only warnings and failures
    #[arg(long, short)]
    verbose: bool,
    /// Print all findings as JSON
    #[arg(long)]
    json: bool,
}

/// Findings for one client.
#[derive(Debug)]
pub struct Report {
    pub client: &'static str,
    /// Findings in the order of the steps.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Returns whether any finding has this severity.
    pub fn has(&self, severity: Severity) -> bool {
        self.findings.iter().any(|finding| finding.severity == severity)
    }
}

pub(super) fn run(arguments: &DoctorArguments) -> ExitCode {
    telemetry::install(Some("error"), LogFormat::Text);
    if arguments.connections {
        return ExitCode::from(connections::run(&arguments.file, arguments.output.json));
    }
    let url = match parse(arguments.url.as_deref().unwrap_or_default()) {
        Ok(url) => url,
        Err(reason) => {
            let _ = fail(&reason);
            return ExitCode::from(2);
        }
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(cause) => return fail(&cause),
    };
    let reports = runtime.block_on(walk(&url, arguments.register));
    if let Err(cause) = print(&url, &reports, arguments) {
        let _ = fail(&cause);
        return ExitCode::from(2);
    }
    let findings: Vec<Finding> = reports.into_iter().flat_map(|report| report.findings).collect();
    ExitCode::from(exit_code(&findings))
}

fn parse(text: &str) -> Result<Url, String> {
    let example = "write it like https://mcp.example.com/mcp";
    let url = Url::parse(text).map_err(|cause| format!("{text}: {cause}; {example}"))?;
    let loopback = url.host_str().is_some_and(is_loopback);
    match url.scheme() {
        "https" => Ok(url),
        "http" if loopback => Ok(url),
        _ => Err(format!("{text}: clients want https (http on this machine only); {example}")),
    }
}

/// Tests `url` as every known client, one after the other. Registers only if `register` is set.
pub async fn walk(url: &Url, register: bool) -> Vec<Report> {
    let mut wire = Wire::new();
    let mut reports = Vec::new();
    for client in CLIENTS {
        let mut visit = Visit { client, mcp: url, wire: &mut wire, findings: Vec::new() };
        if let Some(found) = visit.discover().await {
            visit.authorize(&found, register).await;
        }
        reports.push(Report { client: client.name, findings: visit.findings });
    }
    reports
}

fn print(url: &Url, reports: &[Report], arguments: &DoctorArguments) -> Result<(), String> {
    let text =
        if arguments.output.json { as_json(url, reports) } else { as_text(reports, arguments) };
    output::print(&text)
}

fn as_json(url: &Url, reports: &[Report]) -> String {
    let clients: Vec<_> = reports
        .iter()
        .map(|report| {
            let works = !report.has(Severity::Failed);
            json!({ "client": report.client, "works": works, "findings": report.findings })
        })
        .collect();
    json!({ "url": url.as_str(), "clients": clients }).to_string() + "\n"
}

fn as_text(reports: &[Report], arguments: &DoctorArguments) -> String {
    let mut text = String::new();
    for (clients, report) in grouped(reports, arguments.output.verbose) {
        let mark = mark(report);
        if mark == FindingMark::Ok && output::is_quiet() {
            continue;
        }
        let clients = if clients.len() == reports.len() && clients.len() > 1 {
            format!("All {} clients", clients.len())
        } else {
            clients.join(", ")
        };
        let _ = writeln!(text, "{mark}  {clients}");
        for finding in shown(report, arguments.output.verbose) {
            let _ = writeln!(text, "        {:18} {}", finding.probe, printable(&finding.found));
            for line in finding.hint.iter().flat_map(|hint| hint.lines()) {
                let _ = writeln!(text, "                           → {line}");
            }
        }
    }
    if output::is_quiet() {
        return text;
    }
    if !arguments.register {
        text.push_str(
            "\nNothing was registered; --register continues to each client's authorization page.\n",
        );
    }
    let count = |wanted| reports.iter().filter(|report| mark(report) == wanted).count();
    let _ = writeln!(
        text,
        "\n{} ok, {}, {} failed",
        count(FindingMark::Ok),
        output::several(count(FindingMark::Warning), "warning"),
        count(FindingMark::Failed),
    );
    text
}

fn mark(report: &Report) -> FindingMark {
    if report.has(Severity::Failed) {
        FindingMark::Failed
    } else if report.has(Severity::Warning) {
        FindingMark::Warning
    } else {
        FindingMark::Ok
    }
}

/// Returns the findings that are printed.
fn shown(report: &Report, verbose: bool) -> impl Iterator<Item = &Finding> {
    report.findings.iter().filter(move |one| verbose || one.severity != Severity::Ok)
}

/// Puts clients together for which the same is wrong, at the place of the first one. A client without a mistake
/// has a line of its own.
fn grouped(reports: &[Report], verbose: bool) -> Vec<(Vec<&str>, &Report)> {
    let mut groups: Vec<(Vec<&str>, &Report)> = Vec::new();
    for report in reports {
        let same = |other: &Report| shown(other, verbose).eq(shown(report, verbose));
        let group = groups.iter_mut().find(|(_, first)| {
            mark(report) != FindingMark::Ok && mark(first) == mark(report) && same(first)
        });
        match group {
            Some((clients, _)) => clients.push(report.client),
            None => groups.push((vec![report.client], report)),
        }
    }
    groups
}

/// Replaces control characters and limits the length, because the text may quote the server and must not
/// control the terminal.
fn printable(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c });
    let mut clean: String = clean.take(LONGEST).collect();
    if text.chars().count() > LONGEST {
        clean.push('…');
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(client: &'static str, found: &[(&'static str, Severity)]) -> Report {
        let finding = |&(probe, severity): &(&'static str, Severity)| Finding {
            probe,
            severity,
            found: "connection refused".to_owned(),
            hint: Some("start it".to_owned()),
        };
        Report { client, findings: found.iter().map(finding).collect() }
    }

    fn text(reports: &[Report]) -> String {
        let arguments = DoctorArguments {
            url: Some("https://mcp.example.com/mcp".to_owned()),
            connections: false,
            file: ConfigFile { config: None },
            register: true,
            output: DoctorOutput { verbose: false, json: false },
        };
        as_text(reports, &arguments)
    }

    #[test]
    fn what_is_wrong_for_all_clients_is_said_once_and_the_end_counts() {
        let failed = [("reach", Severity::Failed)];
        let all = text(&[report("A", &failed), report("B", &failed), report("C", &failed)]);
        assert!(all.starts_with("FAIL  All 3 clients\n"), "{all}");
        assert_eq!(all.matches("connection refused").count(), 1, "{all}");
        assert!(all.ends_with("\n0 ok, 0 warnings, 3 failed\n"), "{all}");

        let fine = [("reach", Severity::Ok)];
        let warned = [("reach", Severity::Ok), ("scopes", Severity::Warning)];
        let some = text(&[
            report("A", &fine),
            report("B", &failed),
            report("C", &warned),
            report("D", &failed),
        ]);
        assert!(some.starts_with("ok    A\nFAIL  B, D\n"), "{some}");
        assert!(some.contains("\nwarn  C\n"), "{some}");
        assert!(some.ends_with("\n1 ok, 1 warning, 2 failed\n"), "{some}");
    }

    #[test]
    fn what_a_server_says_does_not_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc\u{9b}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(printable(&"x".repeat(1000)).chars().count(), LONGEST + 1);
    }
}
