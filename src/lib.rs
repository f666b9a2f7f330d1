//! Portcullis: an OAuth proxy authorization server for MCP.
//!
//! # The map
//!
//! A client's way, step by step, and the file of each step:
//!
//! 1. It calls the MCP server without a token and is told where to get one:
//!    [`gateway`] (`challenge.rs`).
//! 2. It reads what there is: `endpoints/metadata.rs`. Where `public_url` has a path, `config/public_url.rs`
//!    alone knows it: [`server`] takes it off each request, and links and URLs get it back on their way out.
//!    All paths of ours are listed in [`config::paths`].
//! 3. It registers itself: `endpoints/register.rs`, rules in [`oauth::client`] and
//!    [`oauth::redirect_uri`]. Or it is published at its own id, or written down: [`clients`] finds it,
//!    however it came to us, and [`http_client::guarded`] fetches what a stranger names.
//! 4. It sends the person's browser here: `endpoints/authorize.rs` checks the request and shows the
//!    consent page ([`web::pages`]). Nothing is stored yet: the request travels sealed
//!    ([`oauth::sealed`]). Somebody whose approval of a trusted client is remembered goes on at once:
//!    `endpoints/remembered_consent.rs`.
//! 5. The person decides: `endpoints/consent.rs`. Approve binds the browser and leads to the identity
//!    provider ([`upstream`]): `endpoints/login.rs`.
//! 6. The browser comes back: `endpoints/callback.rs`. [`policy`] decides what this person may get,
//!    and the client receives a code. Where an administrator has to approve the client first, the
//!    person waits: `endpoints/awaiting_approval.rs`.
//! 7. The client proves itself (`web/client_auth.rs`), redeems the code, and later refreshes:
//!    `endpoints/token/`; what is single-use is in [`storage`], one method per atomic step. [`signing`]
//!    mints the access token, and rotates its keys.
//! 8. It calls the MCP server with the token: [`gateway`] (`authenticate.rs`, `authorize.rs`,
//!    `forward.rs`). A tool may need more than it has; it comes back for that:
//!    `endpoints/step_up.rs`. A server that the gateway does not front asks about tokens:
//!    `endpoints/introspect.rs`.
//! 9. It gives the grant back: `endpoints/revoke.rs`; or the person ends it: `endpoints/account.rs`.
//!
//! The people who run the server have pages of their own, on a listener of their own: [`admin`]. What
//! happened is in the audit trail ([`telemetry::audit`], [`storage`]).
//!
//! Comments and tests name threats and requirements by id, such as CD-01: `docs/threats.md` explains
//! each. Why the large things are as they are stands in `docs/decisions/`.
//!
//! [`config`] is read at start, and again when it has changed (`app/reload.rs`: the next application takes the
//! place of the present one, whole); [`app::App`] is everything a handler may reach, [`server`] accepts
//! connections and keeps their times (`server/`), [`rate_limits`] holds floods back, [`cli`] is what an administrator types. Where a crash would
//! matter most, tests stop the process (`stop_points.rs`) and kill it. What is measured
//! stands beside: `benches/`, and `load/`, a crate of its own. So do the fuzz targets, `fuzz/`, whose corpus
//! `cargo test` runs too.
//!
//! # The import rule
//!
//! Imports point downwards only, and modules of one line do not import each other
//! (`tests/it/architecture.rs` holds it):
//!
//! ```text
//! cli
//! server
//! endpoints · gateway · admin
//! web
//! app
//! clients · upstream · signing
//! storage · http_client · rate_limits
//! telemetry · config
//! policy
//! oauth
//! clock · stop_points
//! ```
//!
//! [`demo`] stands beside: it uses `oauth` and `clock` only, and only `cli` and the tests use it.

pub mod clock;
#[macro_use]
mod stop_points;

pub mod oauth;

pub mod policy;

pub mod config;
pub mod telemetry;

pub mod http_client;
pub mod rate_limits;
pub mod storage;

pub mod clients;
pub mod signing;
pub mod upstream;

pub mod app;

pub mod web;

pub mod endpoints;
pub mod gateway;

pub mod admin;

pub mod server;

pub mod cli;

pub mod demo;
