//! Identity providers: their behaviours, their outages, and sign-ins through them.

mod github;
mod identity_provider;
mod over_time;
