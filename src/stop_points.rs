//! Places at which a test stops the process for good, to kill it there; and at which it panics.
//!
//! Only builds for tests have any of this: in a release build there is nothing at these places.

/// Names the place to stop at.
#[cfg(debug_assertions)]
const VARIABLE: &str = "TEST_STOP_AT";

/// Says that the place was reached and never returns, if this is the place to stop at.
#[cfg(debug_assertions)]
pub(crate) async fn reach(place: &'static str) {
    static STOP_AT: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let stop_at = STOP_AT.get_or_init(|| std::env::var(VARIABLE).ok());
    if stop_at.as_deref() == Some(place) {
        tracing::warn!("stopped at {place}");
        std::future::pending::<()>().await;
    }
}

/// A place to stop at, in async code.
macro_rules! stop_point {
    ($place:literal) => {
        #[cfg(debug_assertions)]
        $crate::stop_points::reach($place).await;
    };
}

/// Names the places to panic at, with commas between; `*3` behind one: so often, else once.
#[cfg(debug_assertions)]
const PANIC_VARIABLE: &str = "TEST_PANIC_AT";

/// Panics, if this is a place to panic at and it has not panicked often enough.
#[cfg(debug_assertions)]
pub(crate) fn panic_at(place: &'static str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static PANIC_AT: std::sync::OnceLock<Vec<(String, AtomicU32)>> = std::sync::OnceLock::new();
    let places = PANIC_AT.get_or_init(|| {
        let named = std::env::var(PANIC_VARIABLE).unwrap_or_default();
        let read = |place: &str| {
            let (place, times) = place.split_once('*').unwrap_or((place, "1"));
            (place.to_owned(), AtomicU32::new(times.parse().unwrap_or(0)))
        };
        named.split(',').map(read).collect()
    });
    let Some((_, times)) = places.iter().find(|(named, _)| named == place) else { return };
    let left = |times: u32| times.checked_sub(1);
    let panics = times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok();
    assert!(!panics, "panicked at {place}");
}

/// A place to panic at.
macro_rules! panic_point {
    ($place:expr) => {
        #[cfg(debug_assertions)]
        $crate::stop_points::panic_at($place);
    };
}
