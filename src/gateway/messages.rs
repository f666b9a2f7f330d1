//! Checks JSON-RPC messages. Where tools have rules, only messages pass that every parser reads alike.

use std::sync::LazyLock;

use memchr::memmem::Finder;
use serde_json::{Map, Value};

use super::challenge::{GatewayRefused, MessageRefused};
use super::spelling::{folds_to, has_control, is_misspelled};

/// The members that a message may have, spelled exactly. Some libraries compare member names without case
/// (CVE-2026-27896).
const MEMBERS: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

/// Requests about one task: those of the tasks extension, and `tasks/result` of revision 2025-11-25.
const ABOUT_A_TASK: [&str; 4] = ["tasks/get", "tasks/update", "tasks/cancel", "tasks/result"];

/// Subscribes to notifications, those of tasks included.
const LISTEN: &str = "subscriptions/listen";

/// Refuses a message that two readers could read differently.
pub(super) fn check(message: &Value) -> Result<(), GatewayRefused> {
    if !is_json_rpc(message) {
        return Err(MessageRefused::NotJsonRpc.into());
    }
    let Some(method) = method(message) else { return Ok(()) };
    if is_misspelled(method) {
        return Err(MessageRefused::Misspelled(id(message)).into());
    }
    let params = message.get("params");
    // Servers in C end a string at NUL, and others end it at a line break.
    let unclear = has_control(method)
        || called_tool(message).is_some_and(has_control)
        || params.is_some_and(names_have_control);
    if unclear {
        return Err(MessageRefused::Unclear(id(message)).into());
    }
    if tasks(message).into_iter().any(has_control) {
        return Err(MessageRefused::UnknownTask(id(message)).into());
    }
    if has_one_reading(method, params) { Ok(()) } else { Err(MessageRefused::NotJsonRpc.into()) }
}

/// Whether the message follows JSON-RPC 2.0: a request or notification has a method, a response has exactly
/// one of result and error.
fn is_json_rpc(message: &Value) -> bool {
    let Some(members) = message.as_object() else { return false };
    let (answers, fails) = (members.contains_key("result"), members.contains_key("error"));
    let kind = match members.get("method") {
        Some(method) => method.is_string() && !answers && !fails,
        None => answers != fails && !members.contains_key("params"),
    };
    let id = |id: &Value| id.is_string() || id.is_number() || id.is_null();
    kind && members.keys().all(|name| MEMBERS.contains(&name.as_str()))
        && members.get("jsonrpc").is_none_or(|version| version == "2.0")
        && members.get("id").is_none_or(id)
        && members.get("params").is_none_or(|params| params.is_object() || params.is_array())
        && members.get("error").is_none_or(Value::is_object)
}

/// Whether the name of any member has control characters. Members of a tool's `arguments` are not checked,
/// because no rule depends on them.
fn names_have_control(value: &Value) -> bool {
    match value {
        Value::Object(members) => members.iter().any(|(name, value)| {
            has_control(name) || (name != "arguments" && names_have_control(value))
        }),
        Value::Array(items) => items.iter().any(names_have_control),
        _ => false,
    }
}

/// Whether every server finds the same values in the parameters that we base decisions on. A server may
/// compare member names as loosely as tool names.
fn has_one_reading(method: &str, params: Option<&Value>) -> bool {
    let params = params.and_then(Value::as_object);
    let once = |member: &str| {
        params.is_some_and(|params| params.get(member).is_some_and(Value::is_string))
            && is_alone(params, member)
    };
    match method {
        // We decide from these members whether the call may become a task, which is then remembered.
        "tools/call" => {
            once("name") && is_alone(params, "task") && !has_object_like(params, "_meta")
        }
        method if ABOUT_A_TASK.contains(&method) => once("taskId"),
        LISTEN => {
            let notifications = params.and_then(|params| params.get("notifications"));
            let fields = notifications.and_then(Value::as_object);
            let ids = fields.and_then(|fields| fields.get("taskIds"));
            let texts = |ids: &Vec<Value>| ids.iter().all(Value::is_string);
            is_alone(params, "notifications")
                && notifications.is_none_or(|notifications| {
                    notifications.is_object() || notifications.is_null()
                })
                && is_alone(fields, "taskIds")
                && ids.is_none_or(|ids| ids.is_null() || ids.as_array().is_some_and(texts))
        }
        // `mcp_headers` compares these members with `Mcp-Name`.
        "prompts/get" => is_alone(params, "name"),
        "resources/read" | "resources/subscribe" | "resources/unsubscribe" => {
            is_alone(params, "uri")
        }
        _ => true,
    }
}

/// Whether no other member has a name that a lenient server would read as this one.
fn is_alone(members: Option<&Map<String, Value>>, member: &str) -> bool {
    let others = members.into_iter().flat_map(Map::keys).filter(|name| *name != member);
    !others.into_iter().any(|name| folds_to(name, member))
}

/// Whether a member that a lenient server would read as this one is an object. Other types are allowed,
/// because `meta` is also an ordinary parameter name.
fn has_object_like(members: Option<&Map<String, Value>>, member: &str) -> bool {
    let like = |(name, value): (&String, &Value)| {
        name != member && value.is_object() && folds_to(name, member)
    };
    members.into_iter().flatten().any(like)
}

/// The id for the response; null if the message has none.
pub(super) fn id(message: &Value) -> Value {
    message.get("id").cloned().unwrap_or(Value::Null)
}

pub(super) fn method(message: &Value) -> Option<&str> {
    message.get("method")?.as_str()
}

/// Whether [`traceparent`] may find something in a body. To search for its name costs less than to read the body;
/// the letters of a name can be written as escapes, too.
pub(super) fn may_have_traceparent(body: &[u8]) -> bool {
    static NAME: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("traceparent"));
    static ESCAPE: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new("\\u"));
    NAME.find(body).is_some() || ESCAPE.find(body).is_some()
}

/// The trace that the client says the message belongs to (SEP-414).
pub(super) fn traceparent(message: &Value) -> Option<&str> {
    message.pointer("/params/_meta/traceparent")?.as_str()
}

/// The tool that a message calls.
pub(super) fn called_tool(message: &Value) -> Option<&str> {
    (method(message)? == "tools/call").then(|| message.pointer("/params/name")?.as_str())?
}

/// The ids of the tasks that a message is about.
pub(super) fn tasks(message: &Value) -> Vec<&str> {
    let listed = match method(message) {
        Some(method) if ABOUT_A_TASK.contains(&method) => message.pointer("/params/taskId"),
        Some(LISTEN) => message.pointer("/params/notifications/taskIds"),
        _ => None,
    };
    match listed {
        Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_str).collect(),
        Some(one) => one.as_str().into_iter().collect(),
        None => Vec::new(),
    }
}

/// Whether the response to a tool call may be a task. In MCP 2026-07-28 the client declares with each request
/// that it supports tasks; in 2025-11-25 it asks for a task.
pub(super) fn may_become_a_task(message: &Value) -> bool {
    const DECLARED: &str = "/params/_meta/io.modelcontextprotocol~1clientCapabilities/extensions/io.modelcontextprotocol~1tasks";
    called_tool(message).is_some()
        && (message.pointer(DECLARED).is_some() || message.pointer("/params/task").is_some())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    /// Values that occur in messages, and near misses of them.
    fn value() -> impl Strategy<Value = Value> {
        let text = prop::sample::select(vec![
            "tools/call",
            "Tools/Call",
            "tools/call\0",
            "tools/list",
            "ping",
            "acme/x",
            "look",
            "purge",
            "purge\0x",
            "2.0",
            "1.0",
            "",
            "t",
        ]);
        let leaf = prop_oneof![
            4 => text.prop_map(Value::from),
            1 => Just(Value::Null),
            1 => any::<bool>().prop_map(Value::from),
            1 => any::<i64>().prop_map(Value::from),
            1 => any::<f64>().prop_map(Value::from),
            1 => any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let name = prop::sample::select(vec![
                "name",
                "Name",
                "name ",
                "na_me",
                "ｎａｍｅ",
                "name\0x",
                "names",
                "taskId",
                "TaskID",
                "taskIds",
                "notifications",
                "task",
                "_meta",
                "arguments",
                "method",
                "params",
                "x",
            ]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map(name.prop_map(str::to_owned), inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    fn message() -> impl Strategy<Value = Value> {
        let method = prop_oneof![
            6 => prop::sample::select(vec![
                "tools/call", "tasks/get", "subscriptions/listen", "ping", "acme/x", "tools/call\0x"
            ]).prop_map(Value::from),
            2 => value(),
        ];
        let name = prop::sample::select(vec![
            "jsonrpc", "id", "result", "error", "Method", "method ", "params\0", "x",
        ]);
        let others = prop::collection::btree_map(name.prop_map(str::to_owned), value(), 0..3);
        let (method, params) = (prop::option::of(method), prop::option::of(value()));
        prop_oneof![
            1 => value(),
            6 => (method, params, others).prop_map(|(method, params, others)| {
                let mut members: Map<String, Value> = others.into_iter().collect();
                members.extend(method.map(|method| ("method".to_owned(), method)));
                members.extend(params.map(|params| ("params".to_owned(), params)));
                Value::Object(members)
            }),
        ]
    }

    /// The rules of the JSON-RPC 2.0 specification, one by one.
    fn is_well_formed(message: &Value) -> bool {
        let Value::Object(members) = message else { return false };
        for (name, value) in members {
            let fits = match (name.as_str(), value) {
                ("jsonrpc", Value::String(version)) => version == "2.0",
                ("id", Value::String(_) | Value::Number(_) | Value::Null)
                | ("method", Value::String(_))
                | ("params", Value::Object(_) | Value::Array(_))
                | ("error", Value::Object(_))
                | ("result", _) => true,
                _ => false,
            };
            if !fits {
                return false;
            }
        }
        let has = |name: &str| members.contains_key(name);
        match (has("method"), has("result"), has("error")) {
            (true, false, false) => true,
            (false, true, false) | (false, false, true) => !has("params"),
            _ => false,
        }
    }

    /// A string as the most careless server reads it: cut at a control character, without case, width and
    /// punctuation.
    fn loose(text: &str) -> String {
        super::super::spelling::folded(text.split(char::is_control).next().unwrap_or_default())
    }

    /// The tools that some server might call for this message.
    fn might_call(message: &Value) -> Vec<String> {
        let members = |value: &Value| value.as_object().cloned().unwrap_or_default();
        let texts = |value: &Value, member: &str| {
            let named = members(value).into_iter().filter(|(name, _)| loose(name) == member);
            named.map(|(_, value)| value).collect::<Vec<Value>>()
        };
        let calls = texts(message, "method")
            .iter()
            .any(|method| method.as_str().is_some_and(|method| loose(method) == "toolscall"));
        let params = texts(message, "params");
        let tools = params.iter().flat_map(|params| texts(params, "name"));
        let tools = tools.map(|tool| tool.as_str().map_or_else(|| tool.to_string(), loose));
        if calls { tools.collect() } else { Vec::new() }
    }

    #[test]
    fn a_body_without_the_name_of_a_trace_is_not_searched_for_one() {
        for (name, may) in [
            ("traceparent", true),
            (r"t\u0072aceparent", true),
            (r"\u0074raceparent", true),
            ("tracestate", false),
            (r"\/traceparen\t", false),
        ] {
            let body = format!(r#"{{"method":"x","params":{{"_meta":{{"{name}":"v"}}}}}}"#);
            assert_eq!(may_have_traceparent(body.as_bytes()), may, "{name}");
            let read: Value = serde_json::from_str(&body).unwrap();
            assert_eq!(traceparent(&read).is_some(), may, "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn gw_05_nothing_but_json_rpc_with_one_reading_passes(message in message()) {
            if check(&message).is_ok() {
                prop_assert!(is_well_formed(&message), "{}", message);
                let decided: Vec<String> = called_tool(&message).map(folded_tool).into_iter().collect();
                prop_assert_eq!(might_call(&message), decided, "{}", message);
            }
        }

        #[test]
        fn what_is_json_rpc_and_plain_passes(id in any::<i64>(), tool in "[a-z][a-z0-9-]{0,20}", answer in value()) {
            let arguments = json!({ "x": answer });
            let call = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call",
                "params": { "name": tool, "arguments": arguments } });
            prop_assert_eq!(check(&call), Ok(()));
            prop_assert_eq!(check(&json!({ "jsonrpc": "2.0", "id": id, "result": answer })), Ok(()));
        }
    }

    fn folded_tool(tool: &str) -> String {
        super::super::spelling::folded(tool)
    }
}
