//! Clients that publish their metadata, and clients of the configuration.

mod configured;
mod decisions;
mod patterns;
mod published;
