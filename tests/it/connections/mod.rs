//! Further services that people connect, and the upstream tokens of MCP servers.

mod config;
mod demo;
mod exchange;
mod gateway;
mod pages;
