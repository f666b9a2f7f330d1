//! Refusals as JSON-RPC errors: MCP lets a refused request have such a body, and a client shows its text. One without a
//! body is a mere number to whoever reads it.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use crate::demo::http::{Recorded, json as json_answer};

/// Why a request is refused before any of its messages is answered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refused {
    /// It names no session.
    NoSession,
    /// It names one that has ended, or never was.
    UnknownSession,
    /// It wants the event stream, and does not take one.
    TakesNoStream,
    /// Its method is none of MCP's.
    Method,
    /// It is for another path.
    NotHere,
    /// It did not come through Portcullis.
    NamesNobody,
}

impl Refused {
    fn status(self) -> StatusCode {
        match self {
            Self::NoSession => StatusCode::BAD_REQUEST,
            Self::UnknownSession | Self::NotHere => StatusCode::NOT_FOUND,
            Self::TakesNoStream => StatusCode::NOT_ACCEPTABLE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NamesNobody => StatusCode::FORBIDDEN,
        }
    }

    /// As the official SDKs number it: `-32001` is the session that is not found, `-32000` everything else.
    fn code(self) -> i64 {
        match self {
            Self::UnknownSession => -32001,
            _ => -32000,
        }
    }

    fn message(self) -> &'static str {
        match self {
            Self::NoSession => {
                "The header Mcp-Session-Id is missing: call initialize first, and send the session id of its answer with every request. Clients of revision 2026-07-28 send MCP-Protocol-Version: 2026-07-28 instead"
            }
            Self::UnknownSession => {
                "Session not found: it has ended, or this server has been started again. Call initialize for another one"
            }
            Self::TakesNoStream => {
                "A GET opens the event stream: send Accept: text/event-stream with it"
            }
            Self::Method => "MCP is spoken with POST, GET and DELETE",
            Self::NotHere => "The MCP server is at /mcp",
            Self::NamesNobody => {
                "This server must stand behind Portcullis: the request names no person"
            }
        }
    }
}

/// The answer; it has the id of a single call.
pub(super) fn answer(request: &Recorded, refused: Refused) -> Response {
    let message = serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
    let id = message.get("id").filter(|id| id.is_string() || id.is_number());
    let error = super::rpc::error(id.unwrap_or(&Value::Null), refused.code(), refused.message());
    let mut response = json_answer(refused.status(), &error);
    if matches!(refused, Refused::Method) {
        let allowed = HeaderValue::from_static("GET, POST, DELETE");
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// The answer to a request that was not read to its end.
pub(super) fn unread(status: StatusCode) -> Response {
    let error = json!({ "code": -32000, "message": "The request is larger than 1 MiB" });
    json_answer(status, &json!({ "jsonrpc": "2.0", "id": null, "error": error }))
}
