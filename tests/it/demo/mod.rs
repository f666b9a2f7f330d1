//! `portcullis demo`.

mod mcp_server;
