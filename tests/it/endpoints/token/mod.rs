//! `POST /token`: client authentication, codes, refresh tokens.

mod client_assertions;
mod codes;
mod refresh;
mod requests;
