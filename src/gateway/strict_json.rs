//! Parses JSON in which no object repeats a member, and limits the number of values: a parsed value takes
//! many times the memory of its text.

use std::cell::Cell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

/// Most JSON values in one body. Arguments of tools have fewer, and a file is sent as one string.
const VALUES: usize = 100_000;

/// Parses JSON. Fails if a member is repeated or there are more than [`VALUES`] values.
pub(super) fn parse(text: &[u8]) -> Result<Value, ()> {
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let left = Cell::new(VALUES);
    let value = Strict(&left).deserialize(&mut deserializer).map_err(|_| ())?;
    deserializer.end().map_err(|_| ())?;
    Ok(value)
}

#[derive(Clone, Copy)]
struct Strict<'a>(&'a Cell<usize>);

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left = self.0.get().checked_sub(1);
        self.0.set(left.ok_or_else(|| D::Error::custom("too many values"))?);
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON without repeated members")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut array = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            array.push(item);
        }
        Ok(Value::Array(array))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(self)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a member is repeated"));
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn gw_23_a_repeated_member_is_not_json_rpc() {
        let hidden =
            br#"{"method":"tools/call","params":{"name":"get-todos","name":"purge-todos"}}"#;
        assert!(parse(hidden).is_err());
        assert!(parse(br#"{"a":[{"b":1,"b":2}]}"#).is_err());
        assert!(parse(br#"{"a":1} x"#).is_err());
        assert!(parse(br#"{"a":[1,-1,1.5,null,true,"x"]}"#).is_ok());
    }

    /// JSON text; `true` if one of its objects repeats its first member.
    fn json() -> impl Strategy<Value = (String, bool)> {
        let leaf = prop_oneof![
            prop::sample::select(vec![
                "null",
                "true",
                "0",
                "-1",
                "1.5",
                "1e9",
                "\"x\"",
                "\"\\u0061\""
            ])
            .prop_map(|text| (text.to_owned(), false)),
            any::<String>().prop_map(|text| (Value::from(text).to_string(), false)),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            let array = prop::collection::vec(inner.clone(), 0..4).prop_map(|items| {
                let texts: Vec<&str> = items.iter().map(|(text, _)| text.as_str()).collect();
                (format!("[{}]", texts.join(",")), items.iter().any(|(_, doubled)| *doubled))
            });
            let object = (prop::collection::vec(inner, 0..4), prop::bool::weighted(0.1)).prop_map(
                |(values, doubled)| {
                    let doubled = doubled && !values.is_empty();
                    let mut members: Vec<String> = values
                        .iter()
                        .enumerate()
                        .map(|(n, (text, _))| format!("\"m{n}\":{text}"))
                        .collect();
                    if doubled {
                        members.push("\"\\u006d0\":7".to_owned()); // m0, spelled otherwise
                    }
                    let inside = values.iter().any(|(_, doubled)| *doubled);
                    (format!("{{{}}}", members.join(",")), doubled || inside)
                },
            );
            prop_oneof![array, object]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn gw_23_strict_json_is_json_without_repeated_members((text, doubled) in json(), raw in any::<Vec<u8>>()) {
            let _ = parse(&raw);
            let lenient: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(parse(text.as_bytes()), if doubled { Err(()) } else { Ok(lenient.clone()) });
            let _ = super::super::messages::check(&lenient);
        }
    }
}
