//! `portcullis check`: checks whether sign-in is set up correctly, and where to fix it if not.

use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::output::{self, FindingMark};
use super::trial_app::TrialApp;
use super::{ConfigFile, config, fail, runtime};
use crate::config::Config;
use crate::oauth::scope::ScopeSet;
use crate::telemetry::{LogFormat, install};
use crate::upstream::probe::{Finding, Severity};

mod certificate;
mod connections;
mod database;
mod documents;
mod login;
mod notifications;
mod targets;
mod telemetry;

/// Exit code if anything failed.
const FAILED: u8 = 2;

#[derive(clap::Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    file: ConfigFile,
    /// Sign in once in a browser, show the roles and groups that arrive and the scopes that the rules give, and
    /// refresh once. Stop the server first: this listens at its address
    #[arg(long)]
    login: bool,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &CheckArguments) -> ExitCode {
    ExitCode::from(verify(arguments))
}

/// Runs `portcullis check` on this file, and returns the exit code.
pub(super) fn file(path: &Path) -> u8 {
    let file = ConfigFile { config: Some(path.to_owned()) };
    verify(&CheckArguments { file, login: false, json: false })
}

fn verify(arguments: &CheckArguments) -> u8 {
    install(Some("error"), LogFormat::Text);
    let loaded = match config::load(&arguments.file) {
        Ok(loaded) => loaded,
        Err(problems) => {
            let _ = fail(&problems);
            return FAILED;
        }
    };
    let mut findings: Vec<Finding> = loaded
        .warnings
        .iter()
        .map(|warning| finding("configuration", Severity::Warning, warning.clone()))
        .collect();
    findings.extend(rules(&loaded.config));
    findings.extend(connections::run(&loaded.config));
    let checked = runtime()
        .map_err(|cause| cause.to_string())
        .and_then(|runtime| runtime.block_on(check(loaded.config, arguments.login, &mut findings)));
    if let Err(message) = checked {
        findings.push(finding("check", Severity::Failed, message));
    }
    match print(&findings, arguments.json) {
        Ok(()) => exit_code(&findings),
        Err(cause) => {
            let _ = fail(&cause);
            FAILED
        }
    }
}

fn finding(probe: &'static str, severity: Severity, found: String) -> Finding {
    Finding { probe, severity, found, hint: None }
}

async fn check(config: Config, login: bool, findings: &mut Vec<Finding>) -> Result<(), String> {
    let listen = config.listen;
    let trial = TrialApp::new(config).await?;
    let app = &trial.app;
    let (database, provider, certificate, tried, notified, targets, collector) = tokio::join!(
        database::run(app.config()),
        app.upstream().probe(),
        certificate::run(app),
        documents::run(app),
        notifications::run(app),
        targets::run(app),
        telemetry::run(app.config()),
    );
    findings.extend(database);
    findings.extend(certificate);
    findings.extend(tried);
    findings.extend([provider, notified, targets].into_iter().flatten());
    findings.extend(collector);
    let failed = findings.iter().any(|finding| finding.severity == Severity::Failed);
    let outcome = if login && !failed { login::run(app, listen, findings).await } else { Ok(()) };
    trial.close().await;
    outcome
}

/// Checks the rules as far as possible without a person.
fn rules(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    for resource in &config.resources {
        let policy = &resource.policy;
        if policy.rules.is_empty() {
            let found = format!(
                "{}: no rules, so everybody who can sign in gets {}",
                resource.id, policy.default_scopes
            );
            findings.push(finding("rules", Severity::Warning, found));
            continue;
        }
        let reachable = policy
            .rules
            .iter()
            .fold(policy.baseline.clone(), |all: ScopeSet, rule| all.union(&rule.allow));
        let reachable = policy.hierarchy.with_implied(&reachable);
        let passes = policy.rules.iter().any(|rule| rule.passthrough);
        let never = policy.declared.difference(&reachable);
        if !never.is_empty() && !passes {
            let found = format!("{}: no rule allows {never}", resource.id);
            findings.push(finding("rules", Severity::Warning, found));
        }
        let uses = |wanted: fn(&crate::policy::Conditions) -> bool| {
            policy.rules.iter().any(|rule| wanted(&rule.conditions))
        };
        if uses(|c| c.groups.is_some() || c.roles.is_some() || c.not_groups.is_some()) {
            let found = format!(
                "{}: rules read groups or roles; the provider must send them: {}",
                resource.id, config.upstream.preset.console.roles
            );
            findings.push(finding("rules", Severity::Ok, found));
        }
    }
    findings
}

/// Prints findings, with what they count up to.
pub(super) fn print(findings: &[Finding], as_json: bool) -> Result<(), String> {
    if as_json {
        return output::print(&format!("{}\n", json!({ "findings": findings })));
    }
    let mut text = String::new();
    for finding in findings {
        if finding.severity == Severity::Ok && output::is_quiet() {
            continue;
        }
        let _ = writeln!(text, "{}  {:16} {}", mark(finding), finding.probe, finding.found);
        for line in finding.hint.iter().flat_map(|hint| hint.lines()) {
            let _ = writeln!(text, "                       → {line}");
        }
    }
    if !output::is_quiet() {
        let count = |severity| findings.iter().filter(|one| one.severity == severity).count();
        let inconclusive = match count(Severity::Inconclusive) {
            0 => String::new(),
            some => format!(", {some} inconclusive"),
        };
        let _ = writeln!(
            text,
            "\n{} ok, {}, {} failed{inconclusive}",
            count(Severity::Ok),
            output::several(count(Severity::Warning), "warning"),
            count(Severity::Failed),
        );
    }
    output::print(&text)
}

fn mark(finding: &Finding) -> FindingMark {
    match finding.severity {
        Severity::Ok => FindingMark::Ok,
        Severity::Warning => FindingMark::Warning,
        Severity::Failed => FindingMark::Failed,
        Severity::Inconclusive => FindingMark::Inconclusive,
    }
}

/// Exit code: 0 everything is fine, 1 warnings, 2 a failure, 3 something was inconclusive.
pub(super) fn exit_code(findings: &[Finding]) -> u8 {
    let has = |severity| findings.iter().any(|finding| finding.severity == severity);
    if has(Severity::Failed) {
        FAILED
    } else if has(Severity::Inconclusive) {
        3
    } else {
        u8::from(has(Severity::Warning))
    }
}
