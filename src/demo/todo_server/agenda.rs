//! The tool `agenda`: reads the person's calendar with the token that the gateway sends. The server keeps no tokens
//! and knows nothing of how the person connected the calendar.

use std::net::SocketAddr;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};

use super::NamedCaller;
use super::refused::TodoRefused;
use super::results::{done, failed};
use crate::demo::outgoing::{self, NotSent};

/// Path of the events at the calendar.
const EVENTS: &str = "/calendar/events";
/// The calendar must answer within 10 seconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Largest answer of the calendar, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Returns the result of the tool.
pub(super) async fn read(
    calendar: Option<SocketAddr>,
    caller: &NamedCaller,
) -> Result<Value, TodoRefused> {
    let Some(calendar) = calendar else {
        return Ok(failed("This server has no calendar."));
    };
    let Some(token) = &caller.calendar_token else {
        let text = "The request has no token for the calendar. Ask the administrator to connect this server with it: [[resource.connection]].";
        return Ok(failed(text));
    };
    match tokio::time::timeout(PATIENCE, events(calendar, token)).await {
        Ok(Ok((StatusCode::OK, events))) => Ok(agenda(&events)),
        // The gateway gets another token for the next call.
        Ok(Ok((StatusCode::UNAUTHORIZED, _))) => Err(TodoRefused::CalendarRefuses),
        _ => Ok(failed("The calendar does not answer. Try again later.")),
    }
}

async fn events(calendar: SocketAddr, token: &str) -> Result<(StatusCode, Value), NotSent> {
    let request = Request::get(EVENTS)
        .header(header::HOST, calendar.to_string())
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Body::empty())?;
    let (parts, body) = outgoing::send(calendar, request).await?.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
    Ok((parts.status, serde_json::from_slice(&body)?))
}

fn agenda(calendar: &Value) -> Value {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = calendar["events"].as_array().cloned().unwrap_or_default();
    let lines =
        events.iter().map(|event| format!("{} {}", text(&event["at"]), text(&event["what"])));
    let lines: Vec<String> = lines.collect();
    let lines = if lines.is_empty() { "nothing".to_owned() } else { lines.join("\n") };
    let said = format!("Today in the calendar of {}:\n{lines}", text(&calendar["owner"]));
    done(&said, &json!({ "events": events }))
}
