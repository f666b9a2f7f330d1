//! Types and rules of OAuth. Pure: no I/O, no axum, no sqlx.

pub mod authorization_request;
pub mod client;
pub mod client_name;
pub mod error;
pub mod exchange;
pub mod grant;
pub mod pkce;
pub mod random_key;
pub mod redirect_uri;
pub mod resource;
pub mod scope;
pub mod scope_hierarchy;
pub mod sealed;
pub mod secret;
pub mod web_url;
