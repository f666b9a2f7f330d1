//! Pages for people: plain data in, a complete response out. No JavaScript, no external resources, all
//! values escaped (threat XS-01).

mod connect;
mod consent;
mod frame;
mod landing;
mod message;
mod waiting;
mod ways_on;

pub use connect::{ConnectNews, ConnectPage, ConnectServer, ConnectStanding};
pub use consent::{ConsentPage, ScopeLine, ServiceUse, Standing};
pub use frame::{PageFrame, Style, isolate_window};
pub use landing::{ConnectableServer, LandingPage};
pub use message::{Message, MessagePage, ReturnLink, TooMany};
pub use waiting::WaitingPage;
pub use ways_on::{NextStep, Repeat, WayOn};

#[cfg(test)]
mod tests;
