//! Why a request to a target has no response, and whether it may go to another target.

use http_body_util::LengthLimitError;

use super::challenge::GatewayRefused;
use crate::http_client::{RequestFailed, TargetFault};
use crate::telemetry::metrics::TargetFailure;
use crate::web::body;

/// What the client learns if there was no response: nothing about targets.
pub(super) const UNREACHABLE: &str = "The MCP server cannot be reached";

/// Why a target gave no response.
pub(super) struct SendFailed {
    pub(super) refused: GatewayRefused,
    /// What is wrong with the target; `None` if the fault is not its own.
    pub(super) fault: Option<TargetFault>,
    /// Not a byte of the request was sent to the target.
    pub(super) is_unsent: bool,
}

impl From<GatewayRefused> for SendFailed {
    fn from(refused: GatewayRefused) -> Self {
        Self { refused, fault: None, is_unsent: false }
    }
}

impl SendFailed {
    /// The target was reached, and did what cannot be passed on.
    pub(super) fn broken(refused: &'static str) -> Self {
        let fault = TargetFault { failure: TargetFailure::Broken, cause: refused.to_owned() };
        let refused = GatewayRefused::BadGateway(refused);
        Self { refused, fault: Some(fault), is_unsent: false }
    }

    /// The request failed on the way, in our hands, or in those of the client that still sends its body.
    pub(super) fn of(error: &RequestFailed) -> Self {
        if caused_by_limit(error) {
            return GatewayRefused::TooLarge.into();
        }
        if body::is_late(error) {
            return GatewayRefused::TooSlow.into();
        }
        if body::is_broken(error) {
            return GatewayRefused::BrokenBody.into();
        }
        let is_unsent = matches!(error, RequestFailed::NotConnected(_));
        let fault = if is_unsent {
            TargetFault::connecting(error)
        } else {
            TargetFault::on_connection(error)
        };
        let refused = GatewayRefused::BadGateway(UNREACHABLE);
        Self { refused, fault: Some(fault), is_unsent }
    }
}

fn caused_by_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<LengthLimitError>() {
            return true;
        }
        next = error.source();
    }
    false
}
