//! Log lines about what anybody can bring about any number of times: one a second, with how many were left
//! out. A flood must not fill the disk, nor hide everything else. Threats DS-08.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const PAUSE: Duration = Duration::from_secs(1);

/// One kind of line.
pub struct Rarely(Mutex<Told>);

struct Told {
    last: Option<Instant>,
    left_out: u64,
}

impl Rarely {
    /// None was written yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(Told { last: None, left_out: 0 }))
    }

    /// How many were left out since the last one, when it is time for another.
    pub fn due(&self) -> Option<u64> {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if told.last.is_some_and(|last| last.elapsed() < PAUSE) {
            told.left_out += 1;
            return None;
        }
        told.last = Some(Instant::now());
        Some(std::mem::take(&mut told.left_out))
    }
}

impl Default for Rarely {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_that_says_how_many_were_left_out() {
        let rarely = Rarely::new();
        assert_eq!(rarely.due(), Some(0));
        assert!((0..1000).all(|_| rarely.due().is_none()));
        rarely.0.lock().unwrap().last = None; // a second later
        assert_eq!(rarely.due(), Some(1000));
        assert_eq!(rarely.due(), None);
    }
}
