//! `portcullis demo`.

mod configuration;
mod mcp_server;
mod tunnel;
