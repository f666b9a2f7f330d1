//! JSON Object Signing and Encryption, as far as we need it: algorithms (RFC 7518), public keys (RFC 7517) and
//! compact JWS (RFC 7515). Pure and synchronous.
//!
//! Every signed token is cut into its parts by [`jws::Compact`], and every signature is verified by a
//! [`jwk::VerifyingKey`]. Each reader keeps its own rules for headers and claims: `signing` for access tokens,
//! `oauth::client::assertion` for client assertions, `upstream::signed` for what the identity provider signs.

pub mod alg;
pub mod jwk;
pub mod jws;
