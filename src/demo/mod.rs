//! Demo servers for one machine: an OpenID provider with three people, and a to-do MCP server that trusts the
//! gateway in front of it.
//!
//! Both use the real protocols and listen on loopback only. `portcullis demo` and the tests start them;
//! `portcullis serve` cannot.

mod http;
mod identity_provider;
mod todo_server;

pub use http::{Gate, Recorded};
pub use identity_provider::{
    ChangeText, IdentityProvider, IdentityProviderOptions, KeyUse, Misbehaviour,
};
pub use todo_server::{TodoMisbehaviour, TodoServer, TodoServerOptions};
