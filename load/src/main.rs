//! Load on an OAuth server for MCP, whichever it is: whole authorization-code flows through its own
//! pages, refreshes, registrations, authorised MCP calls, open event streams. It finds everything by
//! discovery from the base URL, registers itself, and signs in at its own identity provider, which is as
//! fast as signing a token.

mod around;
mod client;
mod flood;
mod http;
mod pairs;
mod processes;
mod relay;
mod run;
mod slow;
mod soak;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about, version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The identity provider and the MCP server around the server under load
    Around(around::Arguments),
    /// Loads a server and prints one line of JSON
    Run(run::Arguments),
    /// Calls two MCP URLs in turns, and compares them; prints one line of JSON
    Pairs(pairs::Arguments),
    /// Refreshes with and without slow sockets beside them; prints one line of JSON
    Slow(slow::Arguments),
    /// Floods a server with registrations, and looks how everybody else fares; prints one line of JSON
    Flood(flood::Arguments),
    /// Relays between a server and PostgreSQL, counts round trips, and delays; prints one line of JSON
    Relay(relay::Arguments),
    /// A gentle mixture at fixed rates for hours; prints a line of JSON for each interval
    Soak(soak::Arguments),
}

#[tokio::main]
async fn main() {
    let done = match Arguments::parse().command {
        Command::Around(arguments) => around::serve(arguments).await,
        Command::Run(arguments) => run::run(arguments).await,
        Command::Pairs(arguments) => pairs::run(arguments).await,
        Command::Slow(arguments) => slow::run(arguments).await,
        Command::Flood(arguments) => flood::run(arguments).await,
        Command::Relay(arguments) => relay::run(arguments).await,
        Command::Soak(arguments) => soak::run(arguments).await,
    };
    if let Err(message) = done {
        eprintln!("{message}");
        std::process::exit(1);
    }
}
