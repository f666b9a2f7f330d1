//! JSON-RPC messages that every reader reads alike; others do not pass where tools have rules.

use serde_json::Value;

use super::challenge::Refused;
use super::spelling::{folded, is_misspelled};

/// Members of a message, spelled exactly. Some libraries compare names without case (CVE-2026-27896).
const MEMBERS: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

/// Requests about one task: the extension's, and `tasks/result` of 2025-11-25.
const ABOUT_A_TASK: [&str; 4] = ["tasks/get", "tasks/update", "tasks/cancel", "tasks/result"];

/// Refuses a message that two readers could read differently.
pub(super) fn check(message: &Value) -> Result<(), Refused> {
    if !is_json_rpc(message) {
        return Err(Refused::NotJsonRpc);
    }
    let Some(method) = method(message) else { return Ok(()) };
    if is_misspelled(method) {
        return Err(Refused::Misspelled(id(message)));
    }
    let names_once = match method {
        "tools/call" => names_once(message, "name"),
        method if ABOUT_A_TASK.contains(&method) => names_once(message, "taskId"),
        _ => true,
    };
    if names_once { Ok(()) } else { Err(Refused::NotJsonRpc) }
}

/// JSON-RPC 2.0: a request or notification has a method, an answer exactly one of result and error.
fn is_json_rpc(message: &Value) -> bool {
    let Some(members) = message.as_object() else { return false };
    let (answers, fails) = (members.contains_key("result"), members.contains_key("error"));
    let kind = match members.get("method") {
        Some(method) => method.is_string() && !answers && !fails,
        None => answers != fails,
    };
    let id = |id: &Value| id.is_string() || id.is_number() || id.is_null();
    kind && members.keys().all(|name| MEMBERS.contains(&name.as_str()))
        && members.get("jsonrpc").is_none_or(|version| version == "2.0")
        && members.get("id").is_none_or(id)
        && members.get("params").is_none_or(|params| params.is_object() || params.is_array())
}

/// Whether the parameters have this member, a text, and no other that might be read as it.
fn names_once(message: &Value, member: &str) -> bool {
    let Some(params) = message.get("params").and_then(Value::as_object) else { return false };
    let other = |name: &&String| *name != member && name.len() < 64;
    let wanted = folded(member);
    params.get(member).is_some_and(Value::is_string)
        && !params.keys().filter(other).any(|name| folded(name) == wanted)
}

/// The id to answer with.
pub(super) fn id(message: &Value) -> Value {
    message.get("id").cloned().unwrap_or(Value::Null)
}

pub(super) fn method(message: &Value) -> Option<&str> {
    message.get("method")?.as_str()
}

/// The tool that a message calls.
pub(super) fn called_tool(message: &Value) -> Option<&str> {
    (method(message)? == "tools/call").then(|| message.pointer("/params/name")?.as_str())?
}

/// The tasks that a message is about.
pub(super) fn tasks(message: &Value) -> Vec<&str> {
    let listed = match method(message) {
        Some(method) if ABOUT_A_TASK.contains(&method) => message.pointer("/params/taskId"),
        Some("subscriptions/listen") => message.pointer("/params/notifications/taskIds"),
        _ => None,
    };
    match listed {
        Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_str).collect(),
        Some(one) => one.as_str().into_iter().collect(),
        None => Vec::new(),
    }
}

/// Whether the answer to a tool call may be a task: MCP 2026-07-28 makes the client say so with each request,
/// 2025-11-25 makes it ask.
pub(super) fn may_become_a_task(message: &Value) -> bool {
    const DECLARED: &str = "/params/_meta/io.modelcontextprotocol~1clientCapabilities/extensions/io.modelcontextprotocol~1tasks";
    called_tool(message).is_some()
        && (message.pointer(DECLARED).is_some() || message.pointer("/params/task").is_some())
}
