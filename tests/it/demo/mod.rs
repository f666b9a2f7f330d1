//! `portcullis demo`.

mod calendar;
mod configuration;
mod container;
mod mcp_server;
mod tunnel;
