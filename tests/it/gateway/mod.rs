//! The gateway in front of MCP servers.

mod answers;
mod bodies;
mod connections;
mod events;
mod framing;
mod headers;
mod http_sse_transport;
mod messages;
mod refusals;
mod requests;
mod scopes;
mod streams;
mod target_tls;
mod targets;
mod tasks;
mod usage;
