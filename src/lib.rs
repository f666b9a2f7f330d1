//! Portcullis: an OAuth proxy authorization server for MCP.

pub mod clock;
pub mod oauth;
pub mod policy;
pub mod config;
#[macro_use]
pub mod telemetry;
pub mod http_client;
pub mod storage;
pub mod clients;
pub mod signing;
pub mod upstream;
