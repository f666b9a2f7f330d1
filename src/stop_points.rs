//! Named points in the code at which tests stop the process, to kill it there, or make it panic.
//!
//! The points exist only in debug builds; release builds contain none of this.

/// Environment variable with the name of the point to stop at.
#[cfg(debug_assertions)]
const VARIABLE: &str = "TEST_STOP_AT";

/// Logs and never returns if this is the point to stop at.
#[cfg(debug_assertions)]
pub(crate) async fn reach(point: &'static str) {
    static STOP_AT: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let stop_at = STOP_AT.get_or_init(|| std::env::var(VARIABLE).ok());
    if stop_at.as_deref() == Some(point) {
        tracing::warn!("stopped at {point}");
        std::future::pending::<()>().await;
    }
}

/// Returns whether a test stops this process at some point.
#[cfg(debug_assertions)]
pub(crate) fn is_set() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

#[cfg(not(debug_assertions))]
pub(crate) const fn is_set() -> bool {
    false
}

/// A point to stop at, in async code.
macro_rules! stop_point {
    ($point:literal) => {
        #[cfg(debug_assertions)]
        $crate::stop_points::reach($point).await;
    };
}

/// Environment variable with the points to panic at, separated by commas. `name*3` panics three times, `name`
/// once.
#[cfg(debug_assertions)]
const PANIC_VARIABLE: &str = "TEST_PANIC_AT";

/// Panics if this is a point to panic at and it has not panicked often enough yet.
#[cfg(debug_assertions)]
pub(crate) fn panic_at(point: &'static str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static PANIC_AT: std::sync::OnceLock<Vec<(String, AtomicU32)>> = std::sync::OnceLock::new();
    let points = PANIC_AT.get_or_init(|| {
        let named = std::env::var(PANIC_VARIABLE).unwrap_or_default();
        let read = |point: &str| {
            let (point, times) = point.split_once('*').unwrap_or((point, "1"));
            (point.to_owned(), AtomicU32::new(times.parse().unwrap_or(0)))
        };
        named.split(',').map(read).collect()
    });
    let Some((_, times)) = points.iter().find(|(named, _)| named == point) else { return };
    let left = |times: u32| times.checked_sub(1);
    let panics = times.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_ok();
    assert!(!panics, "panicked at {point}");
}

/// A point to panic at.
macro_rules! panic_point {
    ($point:expr) => {
        #[cfg(debug_assertions)]
        $crate::stop_points::panic_at($point);
    };
}
