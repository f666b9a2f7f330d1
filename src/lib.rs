//! Portcullis: an OAuth proxy authorization server for MCP.
//!
//! # The map
//!
//! The steps of an MCP client, and the file that handles each step:
//!
//! 1. It calls the MCP server without a token, and the challenge says where to get one:
//!    [`gateway`] (`challenge.rs`). A person who opens that URL in a browser reads how to connect an
//!    application, and so at our own address: `web/landing.rs`.
//! 2. It reads the metadata documents: `endpoints/metadata.rs`. If `public_url` has a path, only
//!    `config/public_url.rs` knows that path: [`server`] strips it from each request, and links and URLs
//!    get it back when they are sent. [`config::paths`] lists all our paths.
//! 3. It registers itself: `endpoints/register.rs`, with the rules in [`oauth::client`] and
//!    [`oauth::redirect_uri`]. Or its client id is the URL of its metadata document, or the configuration
//!    lists it. [`clients`] finds a client of each kind, and [`http_client::guarded`] fetches URLs that
//!    strangers name.
//! 4. It sends the person's browser here. `endpoints/sign_in/mod.rs` tells the whole login in order.
//!    `authorize.rs` checks the request and shows the consent page ([`web::pages`]). Nothing is stored yet:
//!    the browser carries the sealed request ([`oauth::sealed`]). A person whose consent for a trusted client
//!    is remembered skips the page: `remembered_consent.rs`.
//! 5. The person decides: `consent.rs`. Approve binds the request to the browser and redirects to the
//!    identity provider ([`upstream`]): `login.rs`.
//! 6. The browser comes back: `callback.rs`. [`policy`] decides which scopes this person gets, and explains a
//!    refusal (`policy/diagnosis.rs`). The client receives a code. If an administrator has to approve the
//!    client first, the person waits: `awaiting_approval.rs`. A page that explains why a step failed leads
//!    back to step 4: `endpoints/sign_in/again.rs`.
//! 7. The client authenticates (`web/client_auth.rs`), redeems the code, and refreshes later:
//!    `endpoints/token/`. [`storage`] consumes everything that is single-use, with one method for each
//!    atomic step. On PostgreSQL, the usual steps are one statement each (`storage/single_statements/`), and
//!    what lost to another transaction is repeated (`storage/database/postgres/retry.rs`). [`signing`] mints the access token, and rotates its keys. All keys and signed tokens, ours
//!    and those of others, are read by [`jose`].
//! 8. It calls the MCP server with the token: [`gateway`] (`authenticate.rs`, `authorize.rs`,
//!    `forward.rs`), on a connection that `http_client/target_connections.rs` keeps. An event stream that waits
//!    is sent by `server/waiting_stream.rs`. Targets take turns: `target_list.rs`; calls and checks show which of them work
//!    (`app/targets.rs`). If a tool needs more scopes than the token has, the client asks for them:
//!    `endpoints/sign_in/step_up.rs`. If it needs a service that the person has not connected, the client gets
//!    the link to the page that connects it: `missing_connection.rs`. A server that the gateway does not front
//!    checks tokens with `endpoints/introspect.rs`. An MCP server exchanges the token of a call for the person's
//!    token of a service at `endpoints/token/token_exchange.rs`. [`connections`] has these tokens and renews
//!    them in time; those of the sign-in provider are in `upstream/access_token.rs`.
//! 9. It revokes the grant: `endpoints/revoke.rs`; or the person does: `endpoints/account.rs`.
//!
//! The texts of people's pages are in `locales/`, one file a language; [`web::locales`] reads them.
//! Administrators have pages of their own, on a listener of their own: [`admin`]. The audit trail
//! ([`telemetry::audit`], [`storage`]) records what happened, and [`notifications`] tells administrators of it:
//! queued in the transaction of the change (`storage/notifications/`), delivered by `app/notifier.rs`. Who
//! used what is counted by the gateway (`gateway/usage.rs`), summed up in memory (`app/usage.rs`) and stored
//! by the hour (`storage/usage/`). The trace of a request ([`telemetry`], `trace.rs`) is begun by
//! `server/request_trace.rs`, and exported with metrics and log lines by `app/exporter.rs`.
//!
//! Comments and tests name threats and requirements by id, such as CD-01: `docs/threats.md` explains
//! each. `docs/decisions/` explains the large design decisions.
//!
//! [`config`] is read at start, and again when it has changed (`app/reload.rs` replaces the current
//! application as a whole). [`app::App`] is everything that a handler may reach. [`server`] accepts
//! connections, speaks TLS and enforces timeouts (`server/`); the certificate is from files or from an ACME
//! server ([`certificates`]), [`rate_limits`] limits floods, and [`cli`] holds
//! the commands of administrators. Where a crash would do the most harm, tests stop the process
//! (`stop_points.rs`) and kill it. Benchmarks are in `benches/`, and load tests in `load/`, a crate of its
//! own. Fuzz targets are in `fuzz/`; `cargo test` runs their corpus too. What is installed with the program
//! (unit, Debian package, image, Compose) is in `packaging/`; `scripts/release` builds it.
//!
//! # The import rule
//!
//! Imports point downwards only, and modules of one line do not import each other
//! (`tests/it/repository/architecture.rs` checks it):
//!
//! ```text
//! cli
//! server
//! endpoints · gateway · admin
//! web
//! app
//! connections
//! clients · upstream · signing · notifications · certificates
//! storage · http_client · rate_limits
//! telemetry
//! config
//! policy
//! oauth
//! jose
//! clock · stop_points
//! ```
//!
//! [`bridge`] is outside this order: it uses `oauth` and `telemetry` only, and only `cli` uses it. It is a
//! process of its own, which serves an MCP server that speaks stdio over HTTP.
//!
//! [`demo`] is outside this order: it uses `oauth`, `jose` and `clock` only, and only `cli` and the tests use it.
//! `portcullis demo` runs it; with `--public-url`, `demo/tunnel_front.rs` is what the tunnel reaches.

#![cfg_attr(test, allow(clippy::too_many_lines, reason = "tables of cases are long"))]

pub mod clock;
#[macro_use]
mod stop_points;

pub mod jose;

pub mod oauth;

pub mod policy;

pub mod config;
pub mod telemetry;

pub mod http_client;
pub mod rate_limits;
pub mod storage;

pub mod certificates;
pub mod clients;
pub mod notifications;
pub mod signing;
pub mod upstream;

pub mod connections;

pub mod app;

pub mod web;

pub mod endpoints;
pub mod gateway;

pub mod admin;

pub mod server;

pub mod cli;

#[cfg(unix)]
pub mod bridge;
pub mod demo;
