//! Reading bodies, never more than an endpoint wants, and never for ever.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::error::{ApiError, RequestRefused};

/// A body that is read as a whole must have arrived by then.
const ARRIVAL: Duration = Duration::from_secs(30);

/// How much is read of a body that nobody wants, and for how long.
const SKIPPED: usize = 64 * 1024;
const SKIPPING: Duration = Duration::from_secs(1);

/// Reads a body that nobody wants. An answer to a request that was not read whole ends the connection,
/// and the client, still writing, loses that answer or the next request it sends.
pub async fn skip(body: Body) {
    let reading = Limited::new(body, SKIPPED).collect();
    let _ = tokio::time::timeout(SKIPPING, reading).await;
}

/// Reads a whole body of at most `limit` bytes.
pub async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let incomplete = || RequestRefused("the body did not arrive whole".to_owned()).into();
    match tokio::time::timeout(ARRIVAL, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge),
        Ok(Err(_)) | Err(_) => Err(incomplete()),
    }
}
