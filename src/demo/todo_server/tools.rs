//! The tools of the to-do server.

use serde_json::{Value, json};

use super::refused::TodoRefused;
use super::results::{done, failed};
use super::{NamedCaller, TodoShared, agenda};
use crate::oauth::secret::new_id;

/// Longest text of a to-do, in bytes.
const MAX_CONTENT: usize = 1000;
/// Most to-dos at once: the demo keeps them in memory.
const MAX_TODOS: usize = 10_000;

/// An entry of the to-do list.
pub(super) struct Todo {
    id: String,
    content: String,
    owner: String,
    owner_name: String,
}

impl Todo {
    fn json(&self) -> Value {
        json!({ "id": self.id, "content": self.content, "owner": self.owner_name })
    }
}

/// Reasons why a call has no result.
pub(super) enum NoResult {
    /// The call itself is invalid: unknown tool, or invalid arguments.
    BadCall(&'static str),
    /// The whole request is rejected.
    Refused(TodoRefused),
}

pub(super) fn list() -> Value {
    let nothing = json!({ "type": "object", "properties": {}, "additionalProperties": false });
    let with = |name: &str, about: &str| {
        json!({
            "type": "object",
            "properties": { name: { "type": "string", "description": about } },
            "required": [name],
            "additionalProperties": false,
        })
    };
    json!([
        {
            "name": "create-todo",
            "title": "Add a to-do",
            "description": "Adds a to-do to your own list. Needs create:todos.",
            "inputSchema": with("content", "What there is to do"),
            "annotations": { "destructiveHint": false },
        },
        {
            "name": "get-todos",
            "title": "Show to-dos",
            "description": "Shows your own to-dos; everybody's with read:todos.",
            "inputSchema": nothing,
            "annotations": { "readOnlyHint": true },
        },
        {
            "name": "delete-todo",
            "title": "Delete a to-do",
            "description": "Deletes a to-do of yours; anybody's with delete:todos.",
            "inputSchema": with("id", "The to-do's id, as get-todos shows it"),
            "annotations": { "destructiveHint": true },
        },
        {
            "name": "purge-todos",
            "title": "Delete everything",
            "description": "Deletes everybody's to-dos. Needs delete:todos.",
            "inputSchema": nothing,
            "annotations": { "destructiveHint": true },
        },
        {
            "name": "agenda",
            "title": "Show your agenda",
            "description": "Shows what is in your calendar today. You connect the calendar once.",
            "inputSchema": nothing,
            "annotations": { "readOnlyHint": true },
        },
    ])
}

pub(super) async fn call(
    server: &TodoShared,
    caller: &NamedCaller,
    params: &Value,
) -> Result<Value, NoResult> {
    let text = |name: &str| params["arguments"][name].as_str().map(str::trim);
    match params["name"].as_str() {
        Some("create-todo") => {
            let content = text("content").filter(|c| !c.is_empty() && c.len() <= MAX_CONTENT);
            let content = content.ok_or(NoResult::BadCall("content must be a text"))?;
            Ok(create(server, caller, content))
        }
        Some("get-todos") => Ok(get(server, caller)),
        Some("delete-todo") => {
            let id = text("id").ok_or(NoResult::BadCall("id must be a text"))?;
            Ok(delete(server, caller, id))
        }
        Some("purge-todos") => Ok(purge(server, caller)),
        Some("agenda") => agenda::read(server.calendar, caller).await.map_err(NoResult::Refused),
        _ => Err(NoResult::BadCall("Unknown tool")),
    }
}

fn create(server: &TodoShared, caller: &NamedCaller, content: &str) -> Value {
    if !caller.may("create:todos") {
        return failed("Adding a to-do needs the scope create:todos.");
    }
    let todo = Todo {
        id: new_id(&server.clock),
        content: content.to_owned(),
        owner: caller.subject.clone(),
        owner_name: caller.name.clone(),
    };
    let json = todo.json();
    let mut state = server.state.lock();
    if state.todos.len() >= MAX_TODOS {
        return failed("The list is full. Delete a to-do first.");
    }
    state.todos.push(todo);
    done(&json.to_string(), &json!({ "todo": json }))
}

fn get(server: &TodoShared, caller: &NamedCaller) -> Value {
    let everybodys = caller.may("read:todos");
    let todos: Vec<Value> = server
        .state
        .lock()
        .todos
        .iter()
        .filter(|todo| everybodys || todo.owner == caller.subject)
        .map(Todo::json)
        .collect();
    let todos = Value::from(todos);
    done(&todos.to_string(), &json!({ "todos": todos }))
}

fn delete(server: &TodoShared, caller: &NamedCaller, id: &str) -> Value {
    let mut state = server.state.lock();
    let Some(index) = state.todos.iter().position(|todo| todo.id == id) else {
        return failed("There is no to-do with this id.");
    };
    if state.todos[index].owner != caller.subject && !caller.may("delete:todos") {
        return failed("This to-do is somebody else's: deleting it needs the scope delete:todos.");
    }
    state.todos.remove(index);
    done("Deleted.", &json!({ "deleted": id }))
}

fn purge(server: &TodoShared, caller: &NamedCaller) -> Value {
    if !caller.may("delete:todos") {
        return failed("Deleting everything needs the scope delete:todos.");
    }
    let removed = std::mem::take(&mut server.state.lock().todos).len();
    done(&format!("Deleted {removed}."), &json!({ "deleted": removed }))
}
