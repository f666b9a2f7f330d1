//! Checks the `Origin`: which web pages may call MCP servers. Protects against DNS rebinding and foreign
//! pages (MCP transport).

use axum::http::HeaderValue;
use axum::http::header::GetAll;
use url::Url;

use super::challenge::GatewayRefused;
use crate::app::App;
use crate::http_client::is_loopback;
use crate::telemetry::log_throttle::LogThrottle;

static REFUSED: LogThrottle = LogThrottle::new();

/// Returns the origin to allow in the CORS response; `None` if no page sent the request. An origin must be
/// ours, be listed in `allowed_origins`, or be on a loopback host, as MCP Inspector is. `origins` are the values
/// of the header.
pub(super) fn check(
    app: &App,
    origins: &GetAll<'_, HeaderValue>,
) -> Result<Option<HeaderValue>, GatewayRefused> {
    let mut origins = origins.iter();
    let Some(origin) = origins.next() else {
        return Ok(None);
    };
    let text = origin.to_str().map_err(|_| GatewayRefused::Origin)?;
    let one = origins.next().is_none();
    let listed = app.config().allowed_origins.iter().any(|allowed| allowed == text);
    if one && (text == app.config().public_url.origin() || listed || is_loopback_origin(text)) {
        return Ok(Some(origin.clone()));
    }
    if let Some(left_out) = REFUSED.admit() {
        tracing::info!(reason = "origin", left_out, "gateway request refused");
    }
    Err(GatewayRefused::Origin)
}

fn is_loopback_origin(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some_and(is_loopback)
            && url.origin().ascii_serialization() == text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gw_17_only_true_loopback_origins_count_as_loopback() {
        for good in [
            "http://localhost:6274",
            "http://127.0.0.1:6274",
            "http://[::1]:1",
            "https://localhost",
        ] {
            assert!(is_loopback_origin(good), "{good}");
        }
        for bad in [
            "null",
            "http://localhost.evil.example",
            "http://127.0.0.1.nip.io",
            "http://localhost:6274/",
            "http://user@localhost",
            "http://evil.example/localhost",
            "file://localhost",
        ] {
            assert!(!is_loopback_origin(bad), "{bad}");
        }
    }
}
