//! `portcullis config …`, and loading the configuration for the other commands.

mod init;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::{Value, json};

use super::{ConfigFile, fail, output, runtime};
use crate::app::knock_at_collector;
use crate::config::{Config, ListenerAddress, Loaded, Problem, Problems, Unread, schema, text_of};

/// Largest configuration file, in bytes: 4 MiB.
const LARGEST: u64 = 4 << 20;
/// File that is read if none is named.
pub(super) const DEFAULT_FILE: &str = "portcullis.toml";
/// Exit code of `config check` for warnings.
const WARNED: u8 = 1;
/// Exit code of `config check` for problems.
const REFUSED: u8 = 2;

#[derive(Subcommand)]
pub(super) enum ConfigCommand {
    /// Write a commented configuration file, and check it
    #[command(
        after_help = "On a terminal it asks for what is not given. Elsewhere, and with --yes, what is missing is an error.\nAn existing file is never overwritten.\n\nExit code: 0 written, and `check` passed or warned; 2 `check` failed, 3 it was inconclusive (the file stays); 1 nothing was written.\n\nExamples:\n  portcullis config init okta\n  portcullis config init keycloak --yes --public-url https://mcp.example.com \\\n    --issuer https://sso.example.com/realms/acme --client-id portcullis \\\n    --client-secret-file /run/secrets/keycloak --target http://127.0.0.1:9000/mcp \\\n    --scopes read:todos,create:todos --rule Admin=read:todos,create:todos --admin-role Admin"
    )]
    Init(Box<init::InitArguments>),
    /// Check the configuration, without asking the identity provider. A collector of telemetry is asked whether it
    /// answers
    #[command(
        after_help = "Exit code: 0 valid, 1 warnings, 2 problems. `portcullis check` also asks the identity provider.\n\nExamples:\n  portcullis config check\n  portcullis config check --config portcullis.toml --json"
    )]
    Check(ConfigReport),
    /// Print the merged configuration with the origin of each value; secrets are masked
    #[command(
        after_help = "Examples:\n  portcullis config show --config portcullis.toml\n  portcullis config show --json"
    )]
    Show(ConfigReport),
    /// Print the JSON Schema of the configuration file, for editors
    #[command(
        after_help = "Even Better TOML and taplo use the schema that the first line of the file names:\n  #:schema ./portcullis.schema.json\n\nExample:\n  portcullis config schema > portcullis.schema.json"
    )]
    Schema,
}

#[derive(clap::Args)]
pub(super) struct ConfigReport {
    #[command(flatten)]
    file: ConfigFile,
    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

impl ConfigCommand {
    pub(super) fn run(&self) -> ExitCode {
        match self {
            Self::Init(arguments) => init::run(arguments),
            Self::Check(arguments) => check(arguments),
            Self::Show(arguments) => show(arguments),
            Self::Schema => match serde_json::to_string_pretty(&schema()) {
                Ok(text) => printed(&format!("{text}\n"), ExitCode::SUCCESS),
                Err(cause) => fail(&cause),
            },
        }
    }
}

fn printed(text: &str, code: ExitCode) -> ExitCode {
    match output::print(text) {
        Ok(()) => code,
        Err(cause) => fail(&cause),
    }
}

/// Loads the configuration from the environment and the named file, or the default file if it exists.
pub(super) fn load(file: &ConfigFile) -> Result<Loaded, String> {
    let path = path(file);
    if let Some(none) = nothing_configured(path.as_deref()) {
        return Err(none);
    }
    read(path.as_deref()).map_err(|problems| problems.to_string())
}

/// Returns the path to read: the named file, or the default one if it exists.
pub(super) fn path(file: &ConfigFile) -> Option<PathBuf> {
    file.config
        .clone()
        .or_else(|| Path::new(DEFAULT_FILE).exists().then(|| PathBuf::from(DEFAULT_FILE)))
}

/// Returns what to say if there is neither a file nor a variable: five missing keys would not say that.
pub(super) fn nothing_configured(path: Option<&Path>) -> Option<String> {
    if path.is_some() || Config::is_in_environment(&environment()) {
        return None;
    }
    let folder = std::env::current_dir()
        .map_or_else(|_| "the current folder".to_owned(), |folder| folder.display().to_string());
    Some(format!(
        "No configuration: {DEFAULT_FILE} is not in {folder}, and no PORTCULLIS_* variable is set. Start with `portcullis config init okta` (or another provider), or name a file with --config"
    ))
}

fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// Reads exactly this file, if any, and the environment.
pub(super) fn read(path: Option<&Path>) -> Result<Loaded, Problems> {
    Config::load(path.zip(text(path)?), &environment())
}

/// Reads only where the public listener is.
pub(super) fn listener(path: Option<&Path>) -> Result<ListenerAddress, Problems> {
    Config::listener(path.zip(text(path)?), &environment())
}

/// Returns the text of the file, if one is named.
fn text(path: Option<&Path>) -> Result<Option<String>, Problems> {
    path.map(|path| text_of(path, LARGEST)).transpose().map_err(|unread| {
        let (reason, hint) = match unread {
            Unread::Failed(cause) => {
                (format!("cannot be read: {cause}"), "check the path and its permissions")
            }
            Unread::TooLarge => (
                format!("is larger than {} MiB", LARGEST >> 20),
                "check the path; a configuration of 10,000 rules takes about 1 MiB",
            ),
        };
        let key = path.map(|path| path.display().to_string()).unwrap_or_default();
        let hint = hint.to_owned();
        Problems(vec![Problem { place: None, variable: None, key, value: None, reason, hint }])
    })
}

fn show(arguments: &ConfigReport) -> ExitCode {
    let loaded = match load(&arguments.file) {
        Ok(loaded) => loaded,
        Err(problems) => return fail(&problems),
    };
    let text = if arguments.json {
        let values: Vec<Value> = loaded
            .values()
            .map(|(key, value, origin)| json!({ "key": key, "value": value, "origin": origin }))
            .collect();
        format!("{}\n", json!({ "values": values, "warnings": loaded.warnings }))
    } else {
        loaded.show()
    };
    if let Err(cause) = output::print(&text) {
        return fail(&cause);
    }
    if !arguments.json {
        for warning in &loaded.warnings {
            let _ = fail(warning);
        }
    }
    ExitCode::SUCCESS
}

/// Says whether the configuration is valid.
fn check(arguments: &ConfigReport) -> ExitCode {
    let path = path(&arguments.file);
    if let Some(none) = nothing_configured(path.as_deref()) {
        let problem = json!({ "key": "", "reason": none });
        return refused(arguments, &none, &json!([problem]));
    }
    match read(path.as_deref()) {
        Ok(mut loaded) => {
            loaded.warnings.extend(silent_collector(&loaded.config));
            let what = path.map_or_else(
                || "The environment".to_owned(),
                |path| output::plain(&path.display().to_string()),
            );
            valid(arguments, &what, &loaded.warnings)
        }
        Err(problems) => {
            let listed = problems.0.iter().map(as_json).collect();
            refused(arguments, &problems.to_string(), &listed)
        }
    }
}

/// Returns a warning if telemetry is exported and the collector cannot be reached.
fn silent_collector(config: &Config) -> Option<String> {
    config.telemetry.otlp.as_ref()?;
    let knocked = runtime().ok()?.block_on(knock_at_collector(config));
    let (address, taken) = knocked?;
    let cause = taken.err()?;
    Some(format!("telemetry.otlp: {address} takes no telemetry now: {cause}"))
}

fn valid(arguments: &ConfigReport, what: &str, warnings: &[String]) -> ExitCode {
    let code = if warnings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(WARNED) };
    if arguments.json {
        let json = json!({ "valid": true, "problems": [], "warnings": warnings });
        return printed(&format!("{json}\n"), code);
    }
    let mut text = String::new();
    for warning in warnings {
        let _ = writeln!(text, "{}  {}", output::FindingMark::Warning, output::plain(warning));
    }
    if !output::is_quiet() {
        let count = match warnings.len() {
            0 => String::new(),
            some => format!(", with {}", output::several(some, "warning")),
        };
        let _ =
            writeln!(text, "{}  {what} is a valid configuration{count}.", output::FindingMark::Ok);
    }
    printed(&text, code)
}

fn refused(arguments: &ConfigReport, text: &str, problems: &Value) -> ExitCode {
    if arguments.json {
        let json = json!({ "valid": false, "problems": problems, "warnings": [] });
        return printed(&format!("{json}\n"), ExitCode::from(REFUSED));
    }
    let _ = fail(&text);
    ExitCode::from(REFUSED)
}

fn as_json(problem: &Problem) -> Value {
    json!({
        "key": problem.key,
        "value": problem.value,
        "reason": problem.reason,
        "hint": problem.hint,
        "file": problem.place.as_ref().map(|place| &place.file),
        "line": problem.place.as_ref().map(|place| place.line),
        "variable": problem.variable,
    })
}
