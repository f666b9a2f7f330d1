//! Where the configuration file says something: file and line of a key such as `resource[0].rule[1].allow`.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

/// A line of the configuration file. Its text is `portcullis.toml:41`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigPlace {
    /// The path of the file, as it was given.
    pub file: String,
    /// The line, from 1.
    pub line: usize,
}

impl fmt::Display for ConfigPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The lines of all keys of a configuration file. Without a file it is empty.
#[derive(Clone, Debug, Default)]
pub struct ConfigSource {
    file: Option<Arc<str>>,
    lines: Arc<BTreeMap<String, usize>>,
    /// Keys that the environment sets, so that the file has no say.
    from_env: HashSet<String>,
}

impl ConfigSource {
    /// Notes the line of each key in `text`, which is the content of `file`. Text that is not TOML has no keys.
    pub fn of(file: &str, text: &str) -> Self {
        let mut lines = BTreeMap::new();
        if let Ok(table) = DeTable::parse(text) {
            let starts: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
            let line_of = |at: usize| starts.partition_point(|start| *start <= at) + 1;
            note_table(table.get_ref(), "", &line_of, &mut lines);
        }
        Self { file: Some(file.into()), lines: Arc::new(lines), from_env: HashSet::new() }
    }

    /// Notes that the environment sets this key.
    pub(super) fn overridden(&mut self, key: &str) {
        self.from_env.insert(key.to_owned());
    }

    /// Returns the path of the file, as it was given; `None` if the environment is everything.
    pub fn file(&self) -> Option<&str> {
        self.file.as_deref()
    }

    /// Returns the line of a key. For a key that the file does not have, this is the line of the nearest table
    /// around it, where the key would be added. `None` if the environment sets it, or if no such table exists.
    pub fn place(&self, key: &str) -> Option<ConfigPlace> {
        let mut key = key;
        loop {
            if self.from_env.contains(key) {
                return None;
            }
            if let (Some(file), Some(line)) = (&self.file, self.lines.get(key)) {
                return Some(ConfigPlace { file: file.to_string(), line: *line });
            }
            key = key.rfind(['.', '[']).and_then(|end| key.get(..end))?;
        }
    }
}

fn note_table(
    table: &DeTable<'_>,
    within: &str,
    line_of: &dyn Fn(usize) -> usize,
    lines: &mut BTreeMap<String, usize>,
) {
    for (name, value) in table {
        let key = match within {
            "" => name.get_ref().to_string(),
            within => format!("{within}.{}", name.get_ref()),
        };
        match value.get_ref() {
            DeValue::Table(table) => note_table(table, &key, line_of, lines),
            DeValue::Array(list) => {
                for (index, item) in list.iter().enumerate() {
                    if let DeValue::Table(table) = item.get_ref() {
                        let key = format!("{key}[{index}]");
                        note_table(table, &key, line_of, lines);
                        // The span of a table is its header.
                        lines.insert(key, line_of(item.span().start));
                    }
                }
            }
            _ => {}
        }
        lines.insert(key, line_of(name.span().start));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"# a comment
public_url = "https://mcp.example.com"
branding = { name = "Acme", support = """
two lines""" }

[upstream]
provider = "okta"
claims.roles = "/realm_access/roles"

[[resource]]
path = "/mcp"
scopes = { "read:todos" = "Read", "v1.write" = "Write" }

[[resource.rule]]
roles = ["Admin"]
allow = ["read:todos"]
[[resource.rule]]
groups = [
  "staff",
]
allow = ["read:todos"]

[[resource]]
id = "https://todo.example.com/mcp"
rule = [
  { roles = ["A"], allow = ["x"] },
  { roles = ["B"], allow = ["x"] },
]
[resource.tools]
"purge-todos" = ["x"]
"#;

    fn line(key: &str) -> Option<usize> {
        ConfigSource::of("portcullis.toml", FILE).place(key).map(|place| place.line)
    }

    #[test]
    fn each_key_has_the_line_where_it_is_written() {
        for (key, wanted) in [
            ("public_url", 2),
            ("branding.name", 3),
            ("branding.support", 3),
            ("upstream", 6),
            ("upstream.provider", 7),
            ("upstream.claims.roles", 8),
            ("resource", 10),
            ("resource[0]", 10),
            ("resource[0].path", 11),
            ("resource[0].scopes.read:todos", 12),
            ("resource[0].scopes.v1.write", 12),
            ("resource[0].rule", 14),
            ("resource[0].rule[0]", 14),
            ("resource[0].rule[0].allow", 16),
            ("resource[0].rule[1]", 17),
            ("resource[0].rule[1].groups", 18),
            ("resource[0].rule[1].allow", 21),
            ("resource[1]", 23),
            ("resource[1].id", 24),
            ("resource[1].rule[0].roles", 26),
            ("resource[1].rule[1]", 27),
            ("resource[1].tools.purge-todos", 30),
        ] {
            assert_eq!(line(key), Some(wanted), "{key}");
        }
    }

    #[test]
    fn a_key_that_is_missing_has_the_line_of_the_table_around_it() {
        for (key, wanted) in [
            ("upstream.client_id", Some(6)),
            ("resource[1].rule[1].allow[0]", Some(27)),
            ("resource[0].rule[7].allow", Some(14)),
            ("resource[0].name", Some(10)),
            ("admin.listen", None),
            ("listen", None),
            ("", None),
        ] {
            assert_eq!(line(key), wanted, "{key}");
        }
    }

    #[test]
    fn what_the_environment_sets_is_not_in_the_file() {
        let mut source = ConfigSource::of("/etc/portcullis.toml", FILE);
        source.overridden("resource[0].path");
        source.overridden("admin");

        assert_eq!(source.place("resource[0].path"), None);
        assert_eq!(source.place("admin.listen"), None);
        let place = source.place("resource[0].name").map(|place| place.to_string());
        assert_eq!(place.as_deref(), Some("/etc/portcullis.toml:10"));
        assert_eq!(ConfigSource::default().place("public_url"), None);
        assert_eq!(ConfigSource::of("x", "a = ").place("a"), None);
    }

    #[test]
    fn line_ends_of_windows_count_once() {
        let source = ConfigSource::of("x", "a = 1\r\n\r\n[b]\r\nc = 2\r\n");

        assert_eq!(source.place("b.c").map(|place| place.line), Some(4));
    }
}
