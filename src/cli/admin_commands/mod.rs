//! `portcullis clients|grants|connections|people|usage|keys|audit|clock|backup`: the functions of the admin pages on
//! the command line. They work whether or not a server is running ([`Storage::attach`]).

mod audit;
mod backup;
mod client_edit;
mod client_list;
mod client_patterns;
mod clients;
mod clock;
mod connections;
mod ending;
mod grant_output;
mod grants;
mod keys;
mod output;
mod people;
mod usage;

use std::process::ExitCode;

use serde_json::{Value, json};

pub(super) use audit::AuditCommand;
pub(super) use backup::BackupArguments;
pub(super) use clients::ClientsCommand;
pub(super) use clock::ClockCommand;
pub(super) use connections::ConnectionsCommand;
pub(super) use grants::GrantsCommand;
pub(super) use keys::KeysCommand;
pub(super) use people::PeopleCommand;
pub(super) use usage::UsageCommand;

use super::{ConfigFile, cannot_open, config, fail, runtime};
use crate::clock::{Clock, Timestamp};
use crate::config::Config;
use crate::storage::{Storage, StorageError};
use crate::telemetry::audit::{Actor, AuditEvent};
use crate::telemetry::{self, LogFormat};

/// Name of the deciding party, as stored with a decision.
const BY: &str = "shell";

/// What every command of these takes.
#[derive(clap::Args)]
pub(super) struct Common {
    #[command(flatten)]
    file: ConfigFile,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A page of a list.
#[derive(clap::Args)]
struct PageOptions {
    /// Start after this place, as the previous page printed it
    #[arg(long, value_name = "PLACE", default_value = "")]
    after: String,
    /// Maximum number of lines
    #[arg(long, value_name = "NUMBER", default_value = "50", value_parser = clap::value_parser!(i64).range(1..=1000))]
    limit: i64,
}

impl PageOptions {
    /// Returns the number of rows to read: one more than shown, to detect whether there is another page.
    fn ask(&self) -> i64 {
        self.limit + 1
    }

    /// Removes the extra row and returns where the next page starts.
    fn next<T>(&self, rows: &mut Vec<T>, cursor: impl Fn(&T) -> String) -> Option<String> {
        let wanted = usize::try_from(self.limit).unwrap_or(usize::MAX);
        if rows.len() <= wanted {
            return None;
        }
        rows.truncate(wanted);
        rows.last().map(cursor)
    }
}

/// Storage, configuration and clock for a command.
struct CommandContext {
    storage: Storage,
    config: Config,
    clock: Clock,
}

impl CommandContext {
    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn event(&self, event: &'static str) -> AuditEvent {
        AuditEvent::new(event, Actor::Shell, &self.clock)
    }
}

/// Result of a command: text for people, JSON for programs, and the exit code.
struct Output {
    text: String,
    json: Value,
    code: u8,
}

impl Output {
    /// A text and its equivalent in JSON.
    fn said(text: String, json: Value) -> Self {
        Self { text, json, code: 0 }
    }

    /// The result of a change that may have had no effect.
    fn changed(changed: bool, done: String, before: &str) -> Self {
        let text = if super::output::is_quiet() {
            String::new()
        } else if changed {
            done
        } else {
            before.to_owned()
        };
        Self::said(text, json!({ "changed": changed }))
    }

    /// A list, with the position of the next page.
    fn list(name: &str, table: &output::Table, rows: Vec<Value>, next: Option<String>) -> Self {
        let more = next
            .as_deref()
            .map(|next| format!("There is more: --after '{}'\n", output::plain(next)));
        let text = format!("{table}{}", more.unwrap_or_default());
        let next = next.map_or(Value::Null, Value::String);
        Self::said(text, json!({ name: Value::Array(rows), "next": next }))
    }
}

/// Failure of a command. The text says what to do about it.
struct CommandError {
    text: String,
    code: u8,
}

impl CommandError {
    fn with_code(code: u8, text: String) -> Self {
        Self { text, code }
    }
}

impl From<String> for CommandError {
    fn from(text: String) -> Self {
        Self { text, code: 1 }
    }
}

impl From<StorageError> for CommandError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Unavailable(_) | StorageError::NoConnection(_) => {
                format!("{error}. Nothing was changed; try again in a moment").into()
            }
            other => other.to_string().into(),
        }
    }
}

/// Attaches to the database of a server that may be running, runs the command, and prints its result.
fn run<F>(common: &Common, work: F) -> ExitCode
where
    F: AsyncFnOnce(&CommandContext) -> Result<Output, CommandError>,
{
    match with_storage(common, work) {
        Ok(answer) => tell(common, &answer),
        Err(CommandError { text, code }) => {
            let _ = fail(&output::plain(&text));
            ExitCode::from(code)
        }
    }
}

fn tell(common: &Common, answer: &Output) -> ExitCode {
    let text = match &answer.json {
        Value::Null => String::new(),
        json if common.json => format!("{json}\n"),
        _ => answer.text.clone(),
    };
    match output::print(&text) {
        Ok(()) => ExitCode::from(answer.code),
        Err(cause) => fail(&cause),
    }
}

fn with_storage<F>(common: &Common, work: F) -> Result<Output, CommandError>
where
    F: AsyncFnOnce(&CommandContext) -> Result<Output, CommandError>,
{
    // Log lines of this command, including its audit events, appear only with PORTCULLIS_LOG=info.
    let level = std::env::var("PORTCULLIS_LOG").unwrap_or_else(|_| "error".to_owned());
    let format = match std::env::var("PORTCULLIS_LOG_FORMAT").as_deref() {
        Ok("json") => LogFormat::Json,
        _ => LogFormat::Text,
    };
    telemetry::install(Some(&level), format);
    let config = config::load(&common.file)?.config;
    let runtime = runtime().map_err(|cause| cause.to_string())?;
    runtime.block_on(async {
        let storage = open_beside(&config).await?;
        let desk = CommandContext { storage, config, clock: Clock::System };
        let answer = work(&desk).await;
        // If no server runs, only this process can chain the audit lines that it wrote.
        let settle = || desk.storage.settle_audit_and_tell(&desk.clock);
        while settle().await.is_ok_and(|settled| settled > 0) {}
        desk.storage.close().await;
        answer
    })
}

/// Attaches to the configured database for a short command.
pub(super) async fn open_beside(config: &Config) -> Result<Storage, String> {
    let key = config.secret_key.as_ref().map(|key| key.expose().as_bytes().to_vec());
    let url = config.database_url.expose();
    Storage::attach(url, key.as_deref()).await.map_err(|error| cannot_open(url, &error))
}

/// Parses a day (midnight UTC) or an exact time.
fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(moment) = chrono::DateTime::parse_from_rfc3339(text) {
        return Ok(Timestamp::from_unix(moment.timestamp()));
    }
    chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d")
        .ok()
        .and_then(|day| day.and_hms_opt(0, 0, 0))
        .map(|midnight| Timestamp::from_unix(midnight.and_utc().timestamp()))
        .ok_or_else(|| {
            "write a day as 2026-11-21 (midnight UTC), or a moment as 2026-11-21T08:00:00Z"
                .to_owned()
        })
}
