//! The command line.

mod admin_commands;
mod check;
mod config;
mod demo;
pub mod doctor;
mod explain;
mod notify;
mod output;
mod reload;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::telemetry;

/// An OAuth proxy authorization server for MCP.
///
/// Stands in front of MCP servers: clients register themselves, the person consents, the company's
/// identity provider signs the person in, and every token is for one MCP server only.
#[derive(Parser)]
#[command(name = "portcullis", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The whole thing on this machine: identity provider, MCP server, and Portcullis in front
    #[command(
        after_help = "Examples:\n  portcullis demo --listen 127.0.0.1:8000\n  portcullis demo --populated --data portcullis-populated\n  portcullis demo --no-client-documents"
    )]
    Demo(demo::DemoArguments),
    /// The server
    #[command(
        after_help = "It reads its configuration again when the file changes and on SIGHUP; what cannot change without a restart is named in the log, and a file with mistakes changes nothing.\n\nExamples:\n  portcullis serve --config portcullis.toml\n  PORTCULLIS_PUBLIC_URL=https://mcp.example.com … portcullis serve"
    )]
    Serve(ConfigFile),
    /// Verify the identity provider, read-only; exit code 0 ok, 1 warnings, 2 failed, 3 could not be told
    #[command(
        after_help = "Examples:\n  portcullis check --config portcullis.toml\n  portcullis check --login\n  portcullis check --json"
    )]
    Check(check::CheckArguments),
    /// Replay a scope decision: which rules match, what is granted and what is not
    #[command(
        after_help = "Examples:\n  portcullis explain --claims claims.json --request \"read:todos delete:todos\"\n  portcullis explain --user okta:00u1 --resource https://mcp.example.com/mcp"
    )]
    Explain(explain::ExplainArguments),
    /// Walk an MCP URL as each known client would: what works, what does not, and how to fix it. Exit code 0 ok, 1 warnings, 2 failed
    #[command(
        after_help = "Reads only, unless --register is given.\n\nExamples:\n  portcullis doctor https://mcp.example.com/mcp\n  portcullis doctor --register --verbose http://127.0.0.1:8000/mcp\n  portcullis doctor --json https://mcp.example.com/mcp"
    )]
    Doctor(doctor::DoctorArguments),
    /// Show what is configured
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Notifications to administrators: try a target of [[notify]]
    #[command(subcommand, after_help = "Example:\n  portcullis notify test ops")]
    Notify(notify::NotifyCommand),
    /// Clients: list, approve, block, delete, create; safe while the server runs
    #[command(subcommand, after_help = "Example:\n  portcullis clients list --standing waiting")]
    Clients(admin_commands::ClientsCommand),
    /// Grants: who connected what, and the way to end it; safe while the server runs
    #[command(
        subcommand,
        after_help = "Example:\n  portcullis grants revoke-all --person okta:00u1"
    )]
    Grants(admin_commands::GrantsCommand),
    /// People who have signed in: list, block, sign out; safe while the server runs
    #[command(subcommand, after_help = "Example:\n  portcullis people list --search brown")]
    People(admin_commands::PeopleCommand),
    /// Who used what: calls through the gateway, in hourly sums; safe while the server runs
    #[command(
        subcommand,
        after_help = "Example:\n  portcullis usage list --tool purge-todos --since 2026-11-20"
    )]
    Usage(admin_commands::UsageCommand),
    /// The keys that sign access tokens; safe while the server runs
    #[command(subcommand, after_help = "Example:\n  portcullis keys list")]
    Keys(admin_commands::KeysCommand),
    /// The audit trail: search, export, prove; safe while the server runs
    #[command(subcommand, after_help = "Example:\n  portcullis audit verify")]
    Audit(admin_commands::AuditCommand),
    /// The clock, and the last time that the server stored; safe while the server runs
    #[command(subcommand, after_help = "Example:\n  portcullis clock show")]
    Clock(admin_commands::ClockCommand),
    /// A copy of the SQLite database, whole and at one moment, while the server runs
    #[command(
        after_help = "The secret key is not in it. How to restore it: docs/operations/backup.md.\n\nExample:\n  portcullis backup /var/backups/portcullis-2026-11-21.db"
    )]
    Backup(admin_commands::BackupArguments),
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// The merged configuration, where each value came from, secrets masked
    #[command(after_help = "Example:\n  portcullis config show --config portcullis.toml")]
    Show(ConfigFile),
}

/// Where the configuration file is.
#[derive(clap::Args)]
struct ConfigFile {
    /// The configuration file. Without it, portcullis.toml if there is one, else the environment alone
    #[arg(long, env = "PORTCULLIS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the command that the arguments of this process name.
pub fn main() -> ExitCode {
    let ended = run(Arguments::parse().command);
    telemetry::flush();
    ended
}

fn run(command: Command) -> ExitCode {
    match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Serve(file) => serve::run(&file),
        Command::Check(arguments) => check::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Config(ConfigCommand::Show(file)) => config::show(&file),
        Command::Notify(command) => command.run(),
        Command::Clients(command) => command.run(),
        Command::Grants(command) => command.run(),
        Command::People(command) => command.run(),
        Command::Usage(command) => command.run(),
        Command::Keys(command) => command.run(),
        Command::Audit(command) => command.run(),
        Command::Clock(command) => command.run(),
        Command::Backup(arguments) => arguments.run(),
    }
}

/// Prints an error to standard error and returns the exit code.
fn fail(message: &dyn std::fmt::Display) -> ExitCode {
    telemetry::say(&format!("portcullis: {message}\n"));
    ExitCode::FAILURE
}

/// Raises the limit of open files to the maximum. Each connection needs one, a stream through the gateway
/// two; most systems allow only 1,024 by default.
fn allow_open_files() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(open_files) => tracing::debug!(open_files, "limit of open files"),
        Err(cause) => tracing::warn!(%cause, "the limit of open files cannot be raised"),
    }
}

/// Longest wait at exit, 2 s, for blocking work such as reading a file from a disk that does not respond.
const LAST_WORK: Duration = Duration::from_secs(2);

/// Runs a long-running command to its end.
fn run_to_the_end(command: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let runtime = runtime().map_err(|cause| cause.to_string())?;
    let ended = runtime.block_on(command);
    runtime.shutdown_timeout(LAST_WORK);
    ended
}

/// Builds the runtime for commands that use the network or the database.
fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
