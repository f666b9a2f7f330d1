//! A database that lacks what happened since: one that was rolled back under running servers, and one
//! that was restored from a backup. In both, revoked grants look live and used tokens look unused, so
//! everything that may have ended is ended.

mod detection;
mod restored;
mod settlement;

pub(super) use detection::Watch;
