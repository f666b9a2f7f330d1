//! Reads request bodies with a size limit for each endpoint.

use std::error::Error;
use std::io::ErrorKind;

use axum::body::{Body, Bytes};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body as _, Frame};

use super::error::{ApiError, RequestRefused};

/// Reads a whole body of at most `limit` bytes. The time limit is enforced by the connection. Errors:
/// [`ApiError::TooLarge`], [`ApiError::TooSlow`], or a refusal if the body is incomplete.
pub async fn read(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    // The declared length is checked before the first read, because that read sends `100 Continue` to a
    // client that waits for it.
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        return Err(ApiError::TooLarge);
    }
    let mut body = Limited::new(body, limit);
    let Some(first) = body.frame().await else { return Ok(Bytes::new()) };
    let first = data(first)?;
    if body.is_end_stream() {
        return Ok(first); // most bodies are one piece
    }
    let mut whole = first.to_vec();
    while let Some(piece) = body.frame().await {
        whole.extend_from_slice(&data(piece)?);
    }
    Ok(whole.into())
}

/// Returns the bytes of a piece; none if it is trailers.
fn data(piece: Result<Frame<Bytes>, Box<dyn Error + Send + Sync>>) -> Result<Bytes, ApiError> {
    match piece {
        Ok(piece) => Ok(piece.into_data().unwrap_or_default()),
        Err(error) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge),
        Err(error) if is_late(error.as_ref()) => Err(ApiError::TooSlow),
        Err(_) => Err(RequestRefused("the body did not arrive whole".to_owned()).into()),
    }
}

/// Like [`read`], for an endpoint whose limit is the key `limit` of `[limits]`. The error names the key and
/// its value.
pub async fn read_within(body: Body, limit: &'static str, most: usize) -> Result<Bytes, ApiError> {
    read(body, most).await.map_err(|error| match error {
        ApiError::TooLarge => ApiError::LargerThan { limit, most },
        other => other,
    })
}

/// The client aborted its body, or framed it wrongly.
#[derive(Debug, thiserror::Error)]
#[error("the body did not arrive whole")]
pub struct Broken(#[source] pub hyper::Error);

/// Returns whether the client aborted its body, so that neither we nor the upstream are at fault.
pub fn is_broken(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(<dyn Error>::is::<Broken>)
}

/// Returns whether a body was abandoned because it took too long to arrive.
pub fn is_late(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|error| {
        let io = error.downcast_ref::<std::io::Error>();
        io.is_some_and(|error| error.kind() == ErrorKind::TimedOut)
    })
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}
