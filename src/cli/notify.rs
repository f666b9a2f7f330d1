//! `portcullis notify`: sends a test message to the targets of `[[notify]]`.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::{ConfigFile, config, fail, output, runtime};
use crate::app::App;
use crate::clock::Clock;
use crate::config::Config;
use crate::notifications::DeliveryFailed;
use crate::storage::Storage;
use crate::telemetry::{self, LogFormat};

#[derive(Subcommand)]
pub(super) enum NotifyCommand {
    /// Send a test message to a target, or to all of them. Exit code 0 delivered, 2 not
    #[command(
        after_help = "Examples:\n  portcullis notify test\n  portcullis notify test ops --json"
    )]
    Test(TestArguments),
}

#[derive(clap::Args)]
pub(super) struct TestArguments {
    #[command(flatten)]
    file: ConfigFile,
    /// The target's name; all of them when left out
    name: Option<String>,
    /// Answer as JSON
    #[arg(long)]
    json: bool,
}

/// The outcome of a test message.
struct TriedTarget {
    name: String,
    to: String,
    failed: Option<DeliveryFailed>,
}

impl NotifyCommand {
    pub(super) fn run(&self) -> ExitCode {
        let Self::Test(arguments) = self;
        telemetry::install(Some("error"), LogFormat::Text);
        match test(arguments) {
            Ok(tried) => tell(arguments, &tried),
            Err(message) => {
                let _ = fail(&message);
                ExitCode::from(2)
            }
        }
    }
}

fn test(arguments: &TestArguments) -> Result<Vec<TriedTarget>, String> {
    let mut config = config::load(&arguments.file)?.config;
    let known: Vec<String> = config.notify.iter().map(|target| target.name.clone()).collect();
    if known.is_empty() {
        return Err(
            "the configuration has no [[notify]]; docs/operations/notifications.md shows one"
                .to_owned(),
        );
    }
    if let Some(name) = &arguments.name {
        config.notify.retain(|target| target.name == *name);
    }
    if config.notify.is_empty() {
        let name = arguments.name.as_deref().unwrap_or_default();
        return Err(format!("no target is named {name:?}; there is {}", known.join(", ")));
    }
    let runtime = runtime().map_err(|cause| cause.to_string())?;
    runtime.block_on(send(config))
}

/// Sends with a temporary database, because the real one may be in use and must not change.
async fn send(config: Config) -> Result<Vec<TriedTarget>, String> {
    let folder = std::env::temp_dir().join(crate::oauth::secret::random_text());
    let database = format!("sqlite://{}", folder.join("notify.db").display());
    let storage = Storage::open(&database, None).await.map_err(|error| error.to_string())?;
    let app = App::new(config, Clock::System, storage).await.map_err(|error| error.to_string())?;
    let mut tried = Vec::new();
    for target in &app.config().notify {
        let failed = app.try_target(target).await.err();
        tried.push(TriedTarget { name: target.name.clone(), to: target.shown(), failed });
    }
    app.storage().close().await;
    let _ = std::fs::remove_dir_all(&folder);
    Ok(tried)
}

fn tell(arguments: &TestArguments, tried: &[TriedTarget]) -> ExitCode {
    let mut text = String::new();
    for TriedTarget { name, to, failed } in tried {
        let _ = match failed {
            None => writeln!(text, "{name} ({to}): delivered"),
            Some(failed) => {
                writeln!(text, "{name} ({to}): not delivered: {failed}\n  → {}", failed.hint())
            }
        };
    }
    if arguments.json {
        let row = |tried: &TriedTarget| {
            json!({
                "name": tried.name,
                "to": tried.to,
                "delivered": tried.failed.is_none(),
                "reason": tried.failed.as_ref().map(ToString::to_string),
                "hint": tried.failed.as_ref().map(DeliveryFailed::hint),
            })
        };
        text = format!("{}\n", json!({ "targets": tried.iter().map(row).collect::<Vec<_>>() }));
    }
    match output::print(&text) {
        Ok(()) if tried.iter().all(|tried| tried.failed.is_none()) => ExitCode::SUCCESS,
        Ok(()) => ExitCode::from(2),
        Err(cause) => fail(&cause),
    }
}
