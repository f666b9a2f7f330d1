//! HTTP plumbing for the handlers: parameters, client authentication, cookies, errors, pages.

pub mod body;
pub mod browser;
pub mod client_address;
pub mod client_auth;
pub mod console;
pub mod cookies;
pub mod cors;
pub mod counted;
pub mod error;
pub mod in_force;
pub mod limits;
pub mod list_page;
pub mod live_token;
pub mod pages;
pub mod params;
pub mod resource_auth;
pub mod speculative;
pub mod words;
