//! HTTP plumbing for the handlers: parameters, client authentication, cookies, errors, pages.

pub mod body;
pub mod browser;
pub mod client_address;
pub mod client_auth;
pub mod client_form;
pub mod client_redirect;
pub mod cookies;
pub mod cors;
pub mod counted;
pub mod error;
pub mod in_force;
pub mod limits;
pub mod list_page;
pub mod live_token;
pub mod locales;
pub mod page_error;
pub mod pages;
pub mod params;
pub mod resource_auth;
pub mod routes;
pub mod speculative;
pub mod web_session;
pub mod words;
