//! `portcullis bridge`: serves an MCP server that speaks stdio over HTTP.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use super::{fail, run_to_the_end, serve};
use crate::bridge::{self, BridgeOptions, ProcessFor, ProcessLimits};
use crate::config::parse_duration;

#[derive(clap::Args)]
pub(super) struct BridgeArguments {
    /// Where the bridge listens
    #[arg(long, default_value = "127.0.0.1:9000", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Listen on an address that other machines can reach. Anyone who reaches it can call the MCP server, as
    /// anybody
    #[arg(long)]
    expose_without_authentication: bool,
    /// A host name by which the gateway calls the bridge, besides loopback and the address of --listen. May be
    /// repeated
    #[arg(long, value_name = "NAME")]
    allowed_host: Vec<String>,
    /// What one process serves: an MCP session, or a person with all their sessions and clients
    #[arg(long, default_value = "session", value_name = "WHAT")]
    per: Per,
    /// Most processes
    #[arg(long, default_value_t = 64, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    max_children: u16,
    /// Most processes for one person
    #[arg(long, default_value_t = 16, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    max_children_per_person: u16,
    /// A process that nobody uses ends after this time, and a session is forgotten
    #[arg(long, default_value = "30m", value_name = "TIME", value_parser = duration)]
    idle_timeout: Duration,
    /// Longest silence of the MCP server before a request is given up
    #[arg(long, default_value = "5m", value_name = "TIME", value_parser = duration)]
    request_timeout: Duration,
    /// The longest message, in bytes, in both directions
    #[arg(long, default_value_t = 16_777_216, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1024..=268_435_456))]
    max_message: u32,
    /// Run as the helper that ends what a killed bridge left behind. The bridge starts it itself
    #[arg(long, hide = true)]
    watchdog: bool,
    /// The MCP server and its arguments
    #[arg(last = true, required_unless_present = "watchdog", value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// What one process serves.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Per {
    Session,
    Person,
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text).filter(|duration| !duration.is_zero());
    duration.ok_or_else(|| "write a time such as 90s, 15m or 8h".to_owned())
}

pub(super) fn run(arguments: &BridgeArguments) -> ExitCode {
    let ended = if arguments.watchdog {
        run_to_the_end(async { bridge::watch().await.map_err(|cause| cause.to_string()) })
    } else {
        serve::install_log();
        run_to_the_end(serve_bridge(arguments))
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => fail(&message),
    }
}

async fn serve_bridge(arguments: &BridgeArguments) -> Result<(), String> {
    let listen = arguments.listen;
    if !listen.ip().is_loopback() {
        if !arguments.expose_without_authentication {
            return Err(format!(
                "--listen {listen}: other machines may reach this address, and the bridge does not \
                 authenticate callers. Listen on 127.0.0.1, or add --expose-without-authentication where only \
                 the gateway can reach it"
            ));
        }
        tracing::warn!(
            %listen,
            "anyone who reaches this address can call the MCP server, as anybody: only the gateway may reach it"
        );
    }
    let options = BridgeOptions {
        command: arguments.command.clone(),
        hosts: arguments.allowed_host.clone(),
        limits: ProcessLimits {
            process_for: match arguments.per {
                Per::Session => ProcessFor::Session,
                Per::Person => ProcessFor::Person,
            },
            processes: arguments.max_children.into(),
            processes_of_a_person: arguments.max_children_per_person.into(),
            idle: arguments.idle_timeout,
        },
        silence: arguments.request_timeout,
        longest: usize::try_from(arguments.max_message).unwrap_or(usize::MAX),
    };
    let listener = serve::bind("--listen", listen).await?;
    bridge::serve(options, listener, serve::shutdown()).await
}
