//! Responds to a call of a tool that the rules do not allow this person. A challenge would make them sign in
//! again and come back with a token that allows no more. So the response is a result that says so (MCP, tool
//! execution errors).

use serde_json::{Value, json};

use super::authenticate::Caller;
use super::messages::{called_tool, method};
use crate::app::App;
use crate::config::{OnDeniedTool, ResourceConfig, Transport};
use crate::oauth::scope::ScopeSet;
use crate::telemetry::audit::Actor;
use crate::telemetry::new_reference;

/// Returns the result for a call that needs `needed`, and records an audit event. Returns `None` if a
/// challenge is the right response: the rules allow the scopes, some facts about the person are unknown, or
/// the request cannot have such a result.
pub(super) fn result(
    app: &App,
    resource: &ResourceConfig,
    caller: &Caller,
    message: &Value,
    needed: &ScopeSet,
) -> Option<Value> {
    if resource.on_denied_tool == OnDeniedTool::Challenge
        // In that transport, responses go to the event stream, which the MCP server writes.
        || resource.transport == Transport::HttpSse
        || method(message) != Some("tools/call")
    {
        return None;
    }
    let id = message.get("id").filter(|id| id.is_string() || id.is_number())?;
    let tool = called_tool(message)?;
    let grant = &caller.grant;
    if grant.person.facts.any_unknown() {
        return None;
    }
    let policy = &resource.policy;
    let allowed = policy.decide(&grant.person.facts, &grant.client_id, &policy.declared).granted;
    let denied = needed.difference(&policy.hierarchy.with_implied(&allowed));
    if denied.is_empty() {
        return None;
    }
    let reference = new_reference();
    app.record_soon(
        app.event("tool_refused", Actor::Client)
            .client(&grant.client_id)
            .subject(&grant.subject)
            .resource(&resource.id)
            .grant(&grant.id)
            .reference(&reference)
            .with("needed", needed.to_string())
            .with("denied_by_rules", denied.to_string()),
    );
    let what = if denied.len() == 1 { "permission" } else { "permissions" };
    let text = format!(
        "You are not allowed to use {tool}: your account does not have the {what} {denied} for this server. Signing in \
         again does not change that. Ask an administrator of {server} for it, and name the reference {reference}.",
        server = app.config().public_url.as_str(),
    );
    Some(json!({
        "jsonrpc": "2.0",
        "id": id,
        "result": {
            // MCP 2026-07-28 requires it, earlier revisions ignore it.
            "resultType": "complete",
            "content": [{ "type": "text", "text": text }],
            "isError": true,
        },
    }))
}
