//! Reading bodies, never more than an endpoint wants, and never for ever.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http_body_util::{BodyExt, LengthLimitError, Limited};

use super::error::{ApiError, RequestRefused};

/// A body that is read as a whole must have arrived by then.
const ARRIVAL: Duration = Duration::from_secs(30);

/// Reads a whole body of at most `limit` bytes.
pub async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let incomplete = || RequestRefused("the body did not arrive whole".to_owned()).into();
    match tokio::time::timeout(ARRIVAL, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge),
        Ok(Err(_)) | Err(_) => Err(incomplete()),
    }
}
