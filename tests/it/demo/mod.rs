//! `portcullis demo`.

mod configuration;
mod container;
mod mcp_server;
mod tunnel;
