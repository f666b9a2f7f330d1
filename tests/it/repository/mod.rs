//! The repository itself: the import rule, the documents, the conformance table.

pub(crate) mod architecture;
mod conformance;
mod documents;
mod generated;
mod monitoring;
