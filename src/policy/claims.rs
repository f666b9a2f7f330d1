//! Reads facts about a person from claims.

use std::borrow::Cow;
use std::fmt;

use serde_json::Value;
use strum::{EnumString, IntoStaticStr, VariantArray};

use super::Fact;

/// The path of a claim: with a leading `/` a JSON Pointer (RFC 6901), otherwise one top-level name. Dots and
/// colons do not separate anything, because providers use them inside names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimPath(String);

impl ClaimPath {
    /// Creates a path as written in the configuration.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the path as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name of the top-level claim that this path leads into.
    pub fn top_level_name(&self) -> Cow<'_, str> {
        match self.0.strip_prefix('/') {
            None => Cow::Borrowed(&self.0),
            Some(rest) => {
                let name = rest.split('/').next().unwrap_or_default();
                if name.contains('~') {
                    Cow::Owned(name.replace("~1", "/").replace("~0", "~"))
                } else {
                    Cow::Borrowed(name)
                }
            }
        }
    }

    /// Returns whether this is the claim `email` of OpenID Connect, which `email_verified` belongs to.
    pub fn is_the_standards_email(&self) -> bool {
        matches!(self.0.as_str(), "email" | "/email")
    }

    /// Returns the claim at this path.
    pub fn find<'a>(&self, claims: &'a Value) -> Option<&'a Value> {
        if self.0.starts_with('/') { claims.pointer(&self.0) } else { claims.get(&self.0) }
    }
}

impl fmt::Display for ClaimPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The format of the values in a claim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, EnumString, IntoStaticStr, VariantArray)]
pub enum ClaimShape {
    /// A list of strings, or one string.
    #[default]
    #[strum(serialize = "auto")]
    Auto,
    #[strum(serialize = "list")]
    List,
    /// One string, separated by spaces.
    #[strum(serialize = "space")]
    Space,
    /// One string, separated by commas.
    #[strum(serialize = "comma")]
    Comma,
    /// An object whose member names are the values.
    #[strum(serialize = "keys")]
    Keys,
}

/// Reads a claim. A claim in another format is unknown, not empty: a provider that changes the format must
/// not disable a deny.
pub fn read_fact(claim: Option<&Value>, shape: ClaimShape) -> Fact {
    let parted = |text: &str, by: char| {
        let parts = text.split(by).map(str::trim).filter(|part| !part.is_empty());
        Fact::Known(parts.map(str::to_owned).collect())
    };
    match (claim, shape) {
        (None | Some(Value::Null), _) => Fact::Absent,
        (Some(Value::Array(items)), ClaimShape::Auto | ClaimShape::List) => items
            .iter()
            .map(|item| item.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .map_or(Fact::Unknown, Fact::Known),
        (Some(Value::String(text)), ClaimShape::Auto) => Fact::Known(vec![text.clone()]),
        (Some(Value::String(text)), ClaimShape::Space) => parted(text, ' '),
        (Some(Value::String(text)), ClaimShape::Comma) => parted(text, ','),
        (Some(Value::Object(members)), ClaimShape::Keys) => {
            Fact::Known(members.keys().cloned().collect())
        }
        (Some(_), _) => Fact::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_path_is_a_pointer_or_one_name() {
        let claims = json!({
            "realm_access": { "roles": ["a"] },
            "https://acme.example/roles": ["b"],
            "cognito:groups": ["c"],
            "a.b": ["d"],
        });
        let find = |path: &str| read_fact(ClaimPath::new(path).find(&claims), ClaimShape::Auto);
        let known = |value: &str| Fact::Known(vec![value.to_owned()]);
        assert_eq!(find("/realm_access/roles"), known("a"));
        assert_eq!(find("https://acme.example/roles"), known("b"));
        assert_eq!(find("cognito:groups"), known("c"));
        assert_eq!(find("a.b"), known("d"));
        assert_eq!(find("realm_access.roles"), Fact::Absent);
    }

    #[test]
    fn a_path_leads_into_one_claim() {
        for (path, name) in [
            ("groups", "groups"),
            ("/groups", "groups"),
            ("/realm_access/roles", "realm_access"),
            ("https://acme.example/roles", "https://acme.example/roles"),
            ("/https:~1~1acme.example~1roles/0", "https://acme.example/roles"),
            ("/a~01/b", "a~1"),
        ] {
            assert_eq!(ClaimPath::new(path).top_level_name(), name, "{path}");
        }
    }

    #[test]
    fn a_shape_that_does_not_fit_is_unknown() {
        let known = |values: &[&str]| Fact::Known(values.iter().map(|v| (*v).to_owned()).collect());
        let table = [
            (json!(["a", "b"]), ClaimShape::Auto, known(&["a", "b"])),
            (json!("a b"), ClaimShape::Auto, known(&["a b"])),
            (json!("a b"), ClaimShape::Space, known(&["a", "b"])),
            (json!("a, b"), ClaimShape::Comma, known(&["a", "b"])),
            (json!({ "a": 1, "b": {} }), ClaimShape::Keys, known(&["a", "b"])),
            (json!({ "a": 1 }), ClaimShape::Auto, Fact::Unknown),
            (json!(["a", 1]), ClaimShape::Auto, Fact::Unknown),
            (json!("a"), ClaimShape::List, Fact::Unknown),
            (json!(7), ClaimShape::Auto, Fact::Unknown),
            (json!(null), ClaimShape::Auto, Fact::Absent),
            (json!([]), ClaimShape::Auto, known(&[])),
        ];
        for (claim, shape, expected) in table {
            assert_eq!(read_fact(Some(&claim), shape), expected, "{claim} {shape:?}");
        }
    }
}
