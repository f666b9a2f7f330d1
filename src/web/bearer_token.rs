//! The bearer token of a program's request (RFC 6750 §2.1).

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::header;
use axum::http::request::Parts;

/// The token, as it was sent. `None` unless the request has exactly one `Authorization` header, with the scheme
/// `Bearer`.
pub struct BearerToken(pub Option<String>);

impl<S: Sync> FromRequestParts<S> for BearerToken {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
        let only = values.next().filter(|_| values.next().is_none());
        let presented = only.and_then(|value| value.to_str().ok()?.split_once(' '));
        let token = presented.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        Ok(Self(token.map(|(_, token)| token.to_owned())))
    }
}
