//! JSON-RPC over HTTP, for MCP revisions with and without handshake.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::refused::TodoRefused;
use super::tools::NoResult;
use super::{NamedCaller, SESSION_ID, TodoShared, refused, session_of, stream, tools};
use crate::demo::http::{Recorded, json as json_answer};

/// The stateless MCP revision.
const STATELESS: &str = "2026-07-28";
/// MCP revisions with a handshake, newest first.
const WITH_HANDSHAKE: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];

const INSTRUCTIONS: &str = "A to-do list. Everybody has their own; who may see or delete other people's is decided by scopes. The tool agenda reads the person's calendar.";

pub(super) async fn post(
    server: &TodoShared,
    caller: &NamedCaller,
    request: &Recorded,
) -> Response {
    let Ok(message) = serde_json::from_slice::<Value>(&request.body) else {
        let error = refused::error(&Value::Null, -32700, "Parse error");
        return json_answer(StatusCode::BAD_REQUEST, &error);
    };
    let stateless = request.header("mcp-protocol-version") == Some(STATELESS);
    let initializes = message["method"] == "initialize";
    if !stateless
        && !initializes
        && let Err(refused) = session_of(server, request)
    {
        return refused::answer(request, refused);
    }
    let messages = match &message {
        Value::Array(batch) => batch.as_slice(),
        single => std::slice::from_ref(single),
    };
    let mut answers = Vec::new();
    for message in messages {
        match answer(server, caller, message, stateless).await {
            Ok(answer) => answers.extend(answer),
            Err(refused) => return refused::answer(request, refused),
        }
    }
    let mut response = match (&message, answers.as_slice()) {
        (_, []) => StatusCode::ACCEPTED.into_response(),
        _ if wants_stream(request, &message) => {
            let texts: Vec<String> = answers.iter().map(Value::to_string).collect();
            stream::single(&texts)
        }
        (Value::Array(_), _) => json_answer(StatusCode::OK, &answers.into()),
        (_, [single, ..]) => json_answer(StatusCode::OK, single),
    };
    if initializes {
        response.headers_mut().insert(SESSION_ID, server.new_session());
    }
    response
}

fn wants_stream(request: &Recorded, message: &Value) -> bool {
    let accept = request.header("accept").unwrap_or_default();
    message.pointer("/params/_meta/progressToken").is_some()
        || (accept.contains("text/event-stream") && !accept.contains("application/json"))
}

/// Handles one message and returns the response; notifications and responses have none.
async fn answer(
    server: &TodoShared,
    caller: &NamedCaller,
    message: &Value,
    stateless: bool,
) -> Result<Option<Value>, TodoRefused> {
    let id = message.get("id").filter(|id| id.is_string() || id.is_number());
    let Some(method) = message.get("method").and_then(Value::as_str) else {
        let is_response = message.get("result").is_some() || message.get("error").is_some();
        let error = || refused::error(&Value::Null, -32600, "Invalid Request");
        return Ok((!is_response).then(error));
    };
    let Some(id) = id else { return Ok(None) };
    let params = &message["params"];
    let mut result = match method {
        "initialize" => initialize(params),
        "server/discover" if stateless => json!({
            "supportedVersions": [STATELESS],
            "capabilities": capabilities(),
            "serverInfo": server_info(),
            "instructions": INSTRUCTIONS,
        }),
        "ping" => json!({}),
        "tools/list" => json!({ "tools": tools::list() }),
        "resources/list" => json!({ "resources": [] }),
        "resources/templates/list" => json!({ "resourceTemplates": [] }),
        "prompts/list" => json!({ "prompts": [] }),
        "tools/call" => match tools::call(server, caller, params).await {
            Ok(result) => result,
            Err(NoResult::BadCall(reason)) => return Ok(Some(refused::error(id, -32602, reason))),
            Err(NoResult::Refused(refused)) => return Err(refused),
        },
        _ => return Ok(Some(refused::error(id, -32601, "Method not found"))),
    };
    if stateless && let Some(result) = result.as_object_mut() {
        result.insert("resultType".to_owned(), "complete".into());
        if method != "tools/call" {
            result.insert("ttlMs".to_owned(), 0.into());
            result.insert("cacheScope".to_owned(), "private".into());
        }
    }
    Ok(Some(json!({ "jsonrpc": "2.0", "id": id, "result": result })))
}

fn initialize(params: &Value) -> Value {
    let asked = params["protocolVersion"].as_str().unwrap_or_default();
    let version = if WITH_HANDSHAKE.contains(&asked) { asked } else { WITH_HANDSHAKE[0] };
    json!({
        "protocolVersion": version,
        "capabilities": capabilities(),
        "serverInfo": server_info(),
        "instructions": INSTRUCTIONS,
    })
}

fn capabilities() -> Value {
    json!({ "tools": { "listChanged": false } })
}

fn server_info() -> Value {
    json!({ "name": "portcullis-demo-todos", "title": "To-do list", "version": env!("CARGO_PKG_VERSION") })
}
