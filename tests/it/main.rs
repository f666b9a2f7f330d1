//! Portcullis from the outside: over HTTP, on both database engines, with everybody around it played
//! by the harness.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]

mod architecture;
mod conformance;
mod documents;
mod fuzz_corpus;
mod harness;
mod properties;

mod below_a_path;
mod our_urls;
mod revisions;
mod walkthrough;

mod client_decisions;
mod client_documents;
mod client_management;
mod configured_clients;
mod discovery;
mod redirect_policy;
mod registration;

mod account_choice;
mod authorize;
mod callback;
mod consent;
mod remembered;
mod unknown_scopes;
mod waiting;

mod client_assertions;
mod codes;
mod introspection;
mod races;
mod refresh;
mod revocation;
mod token_endpoint;

mod gateway;
mod gateway_answers;
mod gateway_bodies;
mod gateway_connections;
mod gateway_events;
mod gateway_framing;
mod gateway_headers;
mod gateway_messages;
mod gateway_refusals;
mod gateway_scopes;
mod gateway_tasks;
mod legacy_sse;
mod step_up;
mod streams;

mod shipped_clients;

mod account;
mod admin;
mod admin_audit;
mod admin_keys;
mod admin_people;
mod admin_servers;
mod audit;
mod backup;
mod budgets;
mod canaries;
mod clock_jumps;
mod confirmations;
mod connections;
mod crashes;
mod demo_mcp_server;
mod github;
mod graceful;
mod hang_ups;
mod http2;
mod identity_provider;
mod life_of_grants;
mod limits;
#[cfg(target_os = "linux")] // where there is a disk that is always full
mod log_failures;
mod logs;
mod metrics;
mod moving_clock;
mod network_shapes;
mod no_network;
mod odd_inputs;
mod outages;
mod postgres;
mod private_names;
mod proxies;
mod quotas;
mod rates;
mod reload;
mod replicas;
mod restart;
mod server;
mod session_settings;
mod sign_ins;
mod slow_clocks;
mod smuggling;
mod speculative;
mod stolen_database;
#[cfg(debug_assertions)] // as the places at which tasks panic
mod supervision;
mod together;
mod true_pages;
mod unchanged;
mod upstream;
mod upstream_logout;
mod vanished_clients;
mod went_back;

mod check;
mod command_line;
mod doctor;
mod manage;
