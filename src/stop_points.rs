//! Places at which a test stops the process for good, to kill it there.
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
