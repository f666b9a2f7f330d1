//! Rejections as JSON-RPC errors. MCP permits such a body for a rejected request, and clients show its text.
//! Without a body, people would see only a status code.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use crate::demo::http::{Recorded, json as json_answer};

/// Reasons to reject a request before its messages are handled.
#[derive(Clone, Copy, Debug)]
pub(super) enum TodoRefused {
    /// The session id is missing.
    NoSession,
    /// The session has ended or never existed.
    UnknownSession,
    /// The request is for the event stream but does not accept one.
    TakesNoStream,
    /// MCP does not use this HTTP method.
    Method,
    /// The path is not that of the MCP endpoint.
    NotHere,
    /// The request did not come through Portcullis.
    NamesNobody,
    /// The calendar refused the person's token.
    CalendarRefuses,
}

impl TodoRefused {
    fn status(self) -> StatusCode {
        match self {
            Self::NoSession => StatusCode::BAD_REQUEST,
            Self::UnknownSession | Self::NotHere => StatusCode::NOT_FOUND,
            Self::TakesNoStream => StatusCode::NOT_ACCEPTABLE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::NamesNobody => StatusCode::FORBIDDEN,
            Self::CalendarRefuses => StatusCode::UNAUTHORIZED,
        }
    }

    /// Returns the error code that the official SDKs use: `-32001` for an unknown session, `-32000` for
    /// everything else.
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
            Self::CalendarRefuses => "The calendar refused the token of this person",
        }
    }
}

/// Builds the response, with the id of the request if it is a single call.
pub(super) fn answer(request: &Recorded, refused: TodoRefused) -> Response {
    let message = serde_json::from_slice::<Value>(&request.body).unwrap_or_default();
    let id = message.get("id").filter(|id| id.is_string() || id.is_number());
    let error = error(id.unwrap_or(&Value::Null), refused.code(), refused.message());
    let mut response = json_answer(refused.status(), &error);
    if matches!(refused, TodoRefused::Method) {
        let allowed = HeaderValue::from_static("GET, POST, DELETE");
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

pub(super) fn error(id: &Value, code: i64, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
}

/// Builds the response to a request whose body is too large to be read.
pub(super) fn unread(status: StatusCode) -> Response {
    let error = json!({ "code": -32000, "message": "The request is larger than 1 MiB" });
    json_answer(status, &json!({ "jsonrpc": "2.0", "id": null, "error": error }))
}
