//! Portcullis from the outside: over HTTP, on both database engines, with everybody around it played
//! by the harness.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]
#![allow(clippy::print_stderr, reason = "what a failed test has to say")]

mod architecture;
mod harness;
mod walkthrough;
