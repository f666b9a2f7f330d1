//! Further services that people connect, and the upstream tokens of MCP servers.

mod admin;
mod config;
mod crashes;
mod demo;
mod engine;
mod exchange;
mod gateway;
mod leaks;
mod other_issuer;
mod pages;
mod storage;
