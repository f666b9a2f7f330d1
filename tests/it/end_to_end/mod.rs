//! Whole flows, from the first 401 to an authorised tool call.

mod revisions;
mod shipped_clients;
mod walkthrough;
