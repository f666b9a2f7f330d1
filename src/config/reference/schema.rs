//! The JSON Schema of the configuration file, for editors: Even Better TOML and taplo complete keys and mark
//! mistakes with it.

use serde_json::{Map, Value as Json, json};

use super::{Applies, ConfigKey, reference};
use crate::config::LANGUAGES;
use crate::config::value_type::ValueType;

/// Returns the JSON Schema (draft 7, which editors know) of `portcullis.toml`.
pub fn schema() -> Json {
    let mut root = table("The configuration of Portcullis.");
    for key in reference() {
        insert(&mut root, &key);
    }
    root["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    root["title"] = json!("portcullis.toml");
    root
}

/// A table in which nothing else may be written.
fn table(description: &str) -> Json {
    json!({
        "type": "object",
        "description": description,
        "properties": {},
        "additionalProperties": false,
    })
}

/// Adds a key to the table of its name, and makes the tables around it.
fn insert(root: &mut Json, key: &ConfigKey) {
    let mut at = root;
    let mut path = key.key.split('.').peekable();
    while let Some(name) = path.next() {
        let properties = &mut at["properties"];
        if path.peek().is_none() {
            properties[name] = property(key);
            return;
        }
        let (name, is_list) = match name.strip_suffix("[]") {
            Some(name) => (name, true),
            None => (name, false),
        };
        if properties[name].is_null() {
            let inner = table(about(name));
            properties[name] =
                if is_list { json!({ "type": "array", "items": inner }) } else { inner };
        }
        at = &mut properties[name];
        if is_list {
            at = &mut at["items"];
        }
    }
}

/// What a table is for.
fn about(table: &str) -> &'static str {
    match table {
        "upstream" => "The identity provider.",
        "claims" => "Where the provider puts facts about a person.",
        "resource" => "An MCP server.",
        "rule" => "An access rule: who gets which scopes.",
        "connection" => {
            "A further service: one that people can connect, or that an MCP server uses."
        }
        "upstream_token" => "The sign-in provider's own token, for an MCP server.",
        "client" => "A client that you configure.",
        "client_documents" => "Clients that publish their metadata.",
        "client_assertions" => "Clients that sign (private_key_jwt).",
        "admin" => "The admin pages, and who may use them.",
        "read_only" => "Who may see everything and change nothing.",
        "notify" => "Where messages to administrators go.",
        "telemetry" => "What is exported over OTLP.",
        "usage" => "Who used what.",
        "branding" => "How the pages of people look.",
        "audit" => "The audit trail.",
        "tokens" => "Lifetimes.",
        "limits" => "Limits and quotas.",
        _ => "",
    }
}

fn property(key: &ConfigKey) -> Json {
    let mut property = match of_type(key.value) {
        Json::Object(property) => property,
        _ => Map::new(),
    };
    let mut text = key.meaning.clone();
    if !key.default_in_words.is_empty() {
        text = format!("{text} Default: {}.", key.default_in_words);
    }
    if key.applies != Applies::AtOnce {
        text.push_str(" A change needs a restart.");
    }
    property.insert("description".to_owned(), json!(text));
    if let Some(default) = &key.default {
        property.insert("default".to_owned(), json!(default));
    }
    Json::Object(property)
}

fn of_type(value: ValueType) -> Json {
    let text = || json!({ "type": "string" });
    let texts = || json!({ "type": "array", "items": text() });
    match value {
        ValueType::Text => text(),
        ValueType::Flag => json!({ "type": "boolean" }),
        ValueType::Integer(least, most) => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        ValueType::Ratio => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        ValueType::Duration(..) => json!({ "anyOf": [
            { "type": "string", "pattern": "^ *[0-9]+ *[smhd]? *$" },
            { "type": "integer", "minimum": 0 },
        ]}),
        ValueType::Texts => texts(),
        ValueType::Word(words) => json!({ "type": "string", "enum": words }),
        ValueType::Words(words) => {
            json!({ "type": "array", "items": { "type": "string", "enum": words } })
        }
        ValueType::Secret => json!({ "anyOf": [named("env"), named("file"), text()] }),
        ValueType::KeySet => json!({ "anyOf": [named("file"), text()] }),
        ValueType::Scopes => json!({ "anyOf": [
            texts(),
            by_name(&json!({ "anyOf": [text(), described_scope()] })),
        ]}),
        ValueType::TextTable => by_name(&text()),
        ValueType::TranslatedTable => by_name(&words()),
        ValueType::SecretTable => {
            by_name(&json!({ "anyOf": [named("env"), named("file"), text()] }))
        }
        ValueType::ScopeTable => by_name(&texts()),
        ValueType::ClaimTable => by_name(&json!({ "anyOf": [text(), texts()] })),
    }
}

/// A table with one key, such as `{ env = "NAME" }`.
fn named(kind: &str) -> Json {
    json!({
        "type": "object",
        "properties": { kind: { "type": "string" } },
        "required": [kind],
        "additionalProperties": false,
    })
}

/// A table whose names the administrator chooses.
fn by_name(value: &Json) -> Json {
    json!({ "type": "object", "additionalProperties": value })
}

/// A text for people.
fn words() -> Json {
    let text = json!({ "type": "string" });
    let texts: Map<String, Json> =
        LANGUAGES.iter().map(|language| ((*language).to_owned(), text.clone())).collect();
    json!({
        "description": "Text for people, or one for each language; `en` is required.",
        "anyOf": [text, {
            "type": "object",
            "properties": texts,
            "required": ["en"],
            "additionalProperties": false,
        }],
    })
}

fn described_scope() -> Json {
    json!({
        "type": "object",
        "properties": {
            "text": words(),
            "destructive": {
                "type": "boolean",
                "description": "Whether the consent page warns that it deletes or overwrites.",
            },
        },
        "additionalProperties": false,
    })
}
