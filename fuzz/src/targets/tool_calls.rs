//! F14: JSON-RPC bodies for a resource with rules on tools, of somebody who may not call `purge-todos`.
//! What passes is read again as the most careless of MCP servers might read it.

use std::fmt;
use std::sync::{LazyLock, Mutex, PoisonError};

use axum::body::Body;
use axum::http::Request;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::world::World;

static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| Mutex::new(World::start()));

/// JSON in which every member is kept, repeated ones too.
enum Loose {
    Text(String),
    List(Vec<Loose>),
    Members(Vec<(String, Loose)>),
    Other,
}

impl<'de> Deserialize<'de> for Loose {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Loose;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Loose, E> {
                Ok(Loose::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Loose, E> {
                Ok(Loose::Other)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Loose, E> {
                Ok(Loose::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Loose, E> {
                Ok(Loose::Other)
            }
            fn visit_unit<E>(self) -> Result<Loose, E> {
                Ok(Loose::Other)
            }
            fn visit_str<E>(self, text: &str) -> Result<Loose, E> {
                Ok(Loose::Text(text.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Loose, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Loose::List(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Loose, A::Error> {
                let mut all = Vec::new();
                while let Some(member) = members.next_entry()? {
                    all.push(member);
                }
                Ok(Loose::Members(all))
            }
        }
        deserializer.deserialize_any(Reader)
    }
}

/// Names as a reader sees them that ignores case, signs, and all behind a control character.
fn folded(name: &str) -> String {
    let name = name.trim().split(char::is_control).next().unwrap_or_default();
    let name: String = name.chars().filter(|char| char.is_alphanumeric()).collect();
    name.to_lowercase().replace('ſ', "s")
}

impl Loose {
    fn named(&self, name: &str) -> Vec<&Loose> {
        match self {
            Self::Members(all) => all
                .iter()
                .filter(|(known, _)| folded(known) == name)
                .map(|(_, value)| value)
                .collect(),
            _ => Vec::new(),
        }
    }

    fn is(&self, text: &str) -> bool {
        matches!(self, Self::Text(own) if folded(own) == folded(text))
    }

    /// Whether any reading of this message calls `tool`.
    fn calls(&self, tool: &str) -> bool {
        let named = self.named("params").into_iter().flat_map(|params| params.named("name"));
        let named: Vec<&Loose> = named.collect();
        self.named("method").iter().any(|method| method.is("tools/call"))
            && named.iter().any(|name| name.is(tool))
    }
}

/// Contradicted when a forbidden call passes in any disguise.
pub fn run(data: &[u8]) {
    let world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    let token = format!("Bearer {}", world.token("/mcp"));
    let request = Request::post("/mcp")
        .header("host", "127.0.0.1:8000")
        .header("authorization", token)
        .header("content-type", "application/json")
        .body(Body::from(data.to_vec()))
        .expect("a request");
    let answered = world.send(request);
    let Some(seen) = answered.seen.first() else {
        assert!(matches!(answered.status.as_u16(), 400 | 403 | 413), "{}", answered.status);
        assert_ne!(
            data, br#"{"id":1,"method":"tools/call","params":{"name":"x"}}"#,
            "it is allowed"
        );
        return;
    };
    let head = seen.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
    assert_eq!(&seen[head..], data, "the body was changed on the way");
    let read: Loose = serde_json::from_slice(data).expect("it passed, and is not JSON");
    let messages = match &read {
        Loose::List(batch) => batch.iter().collect(),
        single => vec![single],
    };
    for message in messages {
        assert!(matches!(message, Loose::Members(_)), "{:?}", String::from_utf8_lossy(data));
        assert!(!message.calls("purge-todos"), "{:?}", String::from_utf8_lossy(data));
    }
}
