//! The command line.

mod admin_commands;
#[cfg(unix)]
mod bridge;
mod check;
mod config;
mod demo;
pub mod doctor;
mod explain;
mod manual;
mod notify;
mod output;
mod ready;
mod reload;
mod serve;
mod service_manager;
mod trial_app;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{FromArgMatches as _, Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::telemetry;

pub use manual::command;

/// Put your company login in front of any MCP server.
///
/// Portcullis is an OAuth server for MCP. Clients register themselves, people approve the connection, your
/// identity provider signs them in, and each token is for one MCP server only.
#[derive(Parser)]
#[command(name = "portcullis", version = env!("BUILD_VERSION"), arg_required_else_help = true)]
struct Arguments {
    /// Print only results, warnings and errors
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a complete demo on this machine: identity provider, MCP server, and Portcullis in front
    #[command(
        after_help = "Examples:\n  portcullis demo --listen 127.0.0.1:8000\n  portcullis demo --populated --data portcullis-populated\n  portcullis demo --no-client-documents\n  portcullis demo --public-url https://random-words.trycloudflare.com"
    )]
    Demo(demo::DemoArguments),
    /// Run the server
    #[command(
        after_help = "The server reads its configuration again when the file changes, and on SIGHUP. The log names keys that need a restart. A file with mistakes changes nothing.\n\nExamples:\n  portcullis serve --config portcullis.toml\n  PORTCULLIS_PUBLIC_URL=https://mcp.example.com … portcullis serve"
    )]
    Serve(ConfigFile),
    /// Serve an MCP server that speaks stdio over HTTP, for the gateway
    #[cfg(unix)]
    #[command(
        after_help = "The gateway's target is http://127.0.0.1:9000/mcp. The bridge does not authenticate callers: anyone who reaches its address can call the MCP server as anybody. docs/stdio-servers.md explains it.\n\nExamples:\n  portcullis bridge --listen 127.0.0.1:9000 -- npx -y @modelcontextprotocol/server-everything\n  portcullis bridge --per person --max-children 20 -- uvx mcp-server-git"
    )]
    Bridge(bridge::BridgeArguments),
    /// Ask a running server whether it can serve
    #[command(
        after_help = "It asks /ready at the configured `listen`, on this machine. The rest of the configuration may be wrong, and secrets are not read. If the listener has TLS, the certificate must be for the host of `public_url`, from an authority that this machine trusts (or SSL_CERT_FILE names). It is always verified.\n\nExit code: 0 it can serve, 1 it cannot or does not answer within 5 seconds.\n\nExamples:\n  portcullis ready --config portcullis.toml\n  portcullis ready --url https://mcp.example.com"
    )]
    Ready(ready::ReadyArguments),
    /// Check the connections to the identity provider, the database and others, read-only
    #[command(
        after_help = "Exit code: 0 ok, 1 warnings, 2 failed, 3 inconclusive.\n\nExamples:\n  portcullis check --config portcullis.toml\n  portcullis check --login\n  portcullis check --json"
    )]
    Check(check::CheckArguments),
    /// Explain which scopes a person gets, and by which rules
    #[command(
        after_help = "Examples:\n  portcullis explain --claims claims.json --request \"read:todos delete:todos\"\n  portcullis explain --user okta:00u1 --resource https://mcp.example.com/mcp"
    )]
    Explain(explain::ExplainArguments),
    /// Test an MCP URL the way each known client does
    #[command(
        after_help = "Reads only, unless --register is given. Exit code: 0 ok, 1 warnings, 2 failed, 3 inconclusive.\n\nExamples:\n  portcullis doctor https://mcp.example.com/mcp\n  portcullis doctor --register --verbose http://127.0.0.1:8000/mcp\n  portcullis doctor --json https://mcp.example.com/mcp\n  portcullis doctor --connections --config portcullis.toml"
    )]
    Doctor(doctor::DoctorArguments),
    /// Create, check and print the configuration
    #[command(subcommand, after_help = "Example:\n  portcullis config init okta")]
    Config(config::ConfigCommand),
    /// Send a test message to a target of [[notify]]
    #[command(subcommand, after_help = "Example:\n  portcullis notify test ops")]
    Notify(notify::NotifyCommand),
    /// List, approve, block and create clients; safe while the server runs
    #[command(subcommand, after_help = "Example:\n  portcullis clients list --standing waiting")]
    Clients(admin_commands::ClientsCommand),
    /// List and end connections of people; safe while the server runs
    #[command(
        subcommand,
        after_help = "Example:\n  portcullis grants revoke-all --person okta:00u1"
    )]
    Grants(admin_commands::GrantsCommand),
    /// List and remove the services that people connected; safe while the server runs
    #[command(subcommand, after_help = "Example:\n  portcullis connections list --broken")]
    Connections(admin_commands::ConnectionsCommand),
    /// List, block and sign out people; safe while the server runs
    #[command(subcommand, after_help = "Example:\n  portcullis people list --search brown")]
    People(admin_commands::PeopleCommand),
    /// List who used which tool, in hourly sums; safe while the server runs
    #[command(
        subcommand,
        after_help = "Example:\n  portcullis usage list --tool purge-todos --since 2026-11-20"
    )]
    Usage(admin_commands::UsageCommand),
    /// List and rotate the keys that sign access tokens; safe while the server runs
    #[command(subcommand, after_help = "Example:\n  portcullis keys list")]
    Keys(admin_commands::KeysCommand),
    /// Search, export and verify the audit trail; safe while the server runs
    #[command(subcommand, after_help = "Example:\n  portcullis audit verify")]
    Audit(admin_commands::AuditCommand),
    /// Compare the clock with the last time that the server stored; safe while the server runs
    #[command(subcommand, after_help = "Example:\n  portcullis clock show")]
    Clock(admin_commands::ClockCommand),
    /// Back up the SQLite database while the server runs
    #[command(
        after_help = "The secret key is not in the backup. docs/operations/backup.md explains how to restore it.\n\nExample:\n  portcullis backup /var/backups/portcullis-2026-11-21.db"
    )]
    Backup(admin_commands::BackupArguments),
    /// Print a completion script for a shell
    #[command(
        after_help = "Examples:\n  portcullis completions bash > /etc/bash_completion.d/portcullis\n  portcullis completions zsh > ~/.zfunc/_portcullis\n  portcullis completions fish > ~/.config/fish/completions/portcullis.fish"
    )]
    Completions(manual::CompletionArguments),
    /// Write the man pages
    #[command(after_help = "Example:\n  portcullis man /usr/local/share/man/man1")]
    Man(manual::ManArguments),
}

/// Where the configuration file is.
#[derive(clap::Args)]
struct ConfigFile {
    /// The configuration file. By default portcullis.toml if it exists, otherwise only the environment
    #[arg(long, env = "PORTCULLIS_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the command that the arguments of this process name.
pub fn main() -> ExitCode {
    let matches = command().get_matches();
    let arguments = Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    output::set_quiet(arguments.quiet);
    let ended = run(arguments.command);
    telemetry::flush();
    ended
}

fn run(command: Command) -> ExitCode {
    match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Serve(file) => serve::run(&file),
        #[cfg(unix)]
        Command::Bridge(arguments) => bridge::run(&arguments),
        Command::Ready(arguments) => ready::run(&arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Config(command) => command.run(),
        Command::Notify(command) => command.run(),
        Command::Clients(command) => command.run(),
        Command::Grants(command) => command.run(),
        Command::Connections(command) => command.run(),
        Command::People(command) => command.run(),
        Command::Usage(command) => command.run(),
        Command::Keys(command) => command.run(),
        Command::Audit(command) => command.run(),
        Command::Clock(command) => command.run(),
        Command::Backup(arguments) => arguments.run(),
        Command::Completions(arguments) => manual::completions(&arguments),
        Command::Man(arguments) => manual::man(&arguments),
    }
}

/// Prints an error to standard error and returns the exit code.
fn fail(message: &dyn std::fmt::Display) -> ExitCode {
    telemetry::say(&format!("portcullis: {message}\n"));
    ExitCode::FAILURE
}

/// Says why a database cannot be opened, with the file where the reason does not name it.
fn cannot_open(url: &str, error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let file = url.strip_prefix("sqlite:").map(|rest| rest.trim_start_matches("//"));
    match file.and_then(|file| file.split('?').next()) {
        Some(file) if !text.contains(file) => format!("{file}: {text}"),
        _ => text,
    }
}

/// Returns the address at which a listener is reached on its own machine, where it listens on every address.
fn reached_at(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Raises the limit of open files to the maximum. Each connection needs one, a stream through the gateway
/// two; most systems allow only 1,024 by default.
fn allow_open_files() {
    match rlimit::increase_nofile_limit(u64::MAX) {
        Ok(open_files) => tracing::debug!(open_files, "limit of open files"),
        Err(cause) => tracing::warn!(%cause, "the limit of open files cannot be raised"),
    }
}

/// Turns core dumps off, also for the programs that the bridge starts: a dump contains keys and tokens. The hard
/// limit stays, so that the owner of the process can turn them on again to find a fault (`prlimit --core`).
fn forbid_core_dumps() {
    let forbidden = rlimit::Resource::CORE.get().and_then(|limits| match limits {
        (0, _) => Ok(()), // the service manager has done so, and may refuse the call
        (_, hard) => rlimit::Resource::CORE.set(0, hard),
    });
    if let Err(cause) = forbidden {
        tracing::warn!(%cause, "core dumps cannot be turned off");
    }
}

/// Longest wait at exit, 2 s, for blocking work such as reading a file from a disk that does not respond.
const LAST_WORK: Duration = Duration::from_secs(2);

/// Runs a long-running command to its end, without core dumps.
fn run_to_the_end(command: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    forbid_core_dumps();
    let runtime = runtime().map_err(|cause| cause.to_string())?;
    let ended = runtime.block_on(command);
    runtime.shutdown_timeout(LAST_WORK);
    ended
}

/// Builds the runtime for commands that use the network or the database.
fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
