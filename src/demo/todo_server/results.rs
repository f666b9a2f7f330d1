//! The results of tools.

use serde_json::{Value, json};

pub(super) fn done(text: &str, structured: &Value) -> Value {
    let content = json!([{ "type": "text", "text": text }]);
    json!({ "content": content, "structuredContent": structured, "isError": false })
}

pub(super) fn failed(text: &str) -> Value {
    json!({ "content": [{ "type": "text", "text": text }], "isError": true })
}
