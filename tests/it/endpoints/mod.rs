//! The endpoints of the authorization server, in folders as in `src/endpoints/`.

mod account;
mod client_management;
mod discovery;
mod introspection;
mod our_urls;
mod provider_logout;
mod registration;
mod revocation;
mod sign_in;
mod token;
