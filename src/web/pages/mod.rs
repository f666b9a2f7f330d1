//! Pages for people: plain data in, a complete response out. No JavaScript, no external resources, all
//! values escaped (threat XS-01).

mod consent;
mod frame;
mod message;
mod waiting;

pub use consent::{ConsentPage, ScopeLine, Standing};
pub use frame::{PageFrame, Style, isolate_window};
pub use message::{Message, MessagePage, ReturnLink, TooMany};
pub use waiting::WaitingPage;

#[cfg(test)]
mod tests;
