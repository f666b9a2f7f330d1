//! Portcullis from the outside: over HTTP, on both database engines, with everybody around it played
//! by the harness.
//!
//! Folders are named as in `src/`. Beside them: `end_to_end` (whole flows), `laws` (properties, races, a
//! model), `operations` (limits, restarts, replicas, crashes, clocks), `repository` (the import rule,
//! the documents), and the `harness`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]
#![allow(clippy::too_many_lines, reason = "tables of cases are long")]

mod admin;
#[cfg(target_os = "linux")]
mod bridge;
mod cli;
mod clients;
mod connections;
mod demo;
mod end_to_end;
mod endpoints;
mod gateway;
mod harness;
mod http_client;
mod laws;
mod notifications;
mod operations;
mod repository;
mod server;
mod storage;
mod telemetry;
mod upstream;
mod web;
