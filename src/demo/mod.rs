//! Demo servers for one machine: an OpenID provider with three people and their calendars, and a to-do MCP server
//! that trusts the gateway in front of it.
//!
//! Both use the real protocols and listen on loopback only. `portcullis demo` and the tests start them;
//! `portcullis serve` cannot. [`TunnelFront`] lets one tunnel reach Portcullis and the provider's pages.

mod http;
mod identity_provider;
mod outgoing;
mod todo_server;
mod tunnel_front;

pub use http::{Gate, Recorded};
pub use identity_provider::{
    CalendarClient, ChangeText, IdentityProvider, IdentityProviderOptions, KeyUse, Misbehaviour,
};
pub use todo_server::{TodoMisbehaviour, TodoServer, TodoServerOptions};
pub use tunnel_front::{PAGES_PATH, TunnelFront};
