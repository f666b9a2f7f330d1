//! Values and rules of OAuth, pure: no I/O, no axum, no sqlx.

pub mod error;
pub mod scope;
pub mod secret;
