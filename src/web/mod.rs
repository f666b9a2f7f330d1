//! HTTP plumbing for the handlers: parameters, client authentication, cookies, errors, pages.

pub mod body;
pub mod client_address;
pub mod client_auth;
pub mod console;
pub mod cookies;
pub mod cors;
pub mod counted;
pub mod error;
pub mod in_force;
pub mod limits;
pub mod lists;
pub mod live_token;
pub mod pages;
pub mod params;
pub mod people;
pub mod resource_auth;
pub mod speculative;
pub mod words;
