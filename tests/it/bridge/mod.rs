//! `portcullis bridge`: an MCP server that speaks stdio, served over HTTP. Everything runs as processes of its
//! own; the MCP server is this test program, started again (`stdio_server.rs`).

mod bridged;
mod ending;
mod hostile;
mod limits;
mod sessions;
mod stdio_server;
mod web_pages;
mod without_sessions;
