//! Reading bodies, never more than an endpoint wants.

use std::error::Error;
use std::io::ErrorKind;

use axum::body::{Body, Bytes};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body as _;

use super::error::{ApiError, RequestRefused};

/// Reads a whole body of at most `limit` bytes. The connection sees to it that it arrives in time.
pub async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    // Looked at before a client that asks whether to send it is told to.
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(ApiError::TooLarge);
    }
    match Limited::new(body, limit).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge),
        Err(error) if is_late(error.as_ref()) => Err(ApiError::TooSlow),
        Err(_) => Err(RequestRefused("the body did not arrive whole".to_owned()).into()),
    }
}

/// The same for an endpoint whose limit is the key `limit` of `[limits]`: a refusal names both.
pub async fn read_within(body: Body, limit: &'static str, most: usize) -> Result<Bytes, ApiError> {
    read(body, most).await.map_err(|error| match error {
        ApiError::TooLarge => ApiError::LargerThan { limit, most },
        other => other,
    })
}

/// A client broke off its body, or framed it wrongly.
#[derive(Debug, thiserror::Error)]
#[error("the body did not arrive whole")]
pub struct Broken(#[source] pub hyper::Error);

/// Whether a client broke off its body: nobody else is to blame.
pub fn is_broken(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(<dyn Error>::is::<Broken>)
}

/// Whether a body was given up because it took too long to arrive.
pub fn is_late(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|error| {
        let io = error.downcast_ref::<std::io::Error>();
        io.is_some_and(|error| error.kind() == ErrorKind::TimedOut)
    })
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}
