//! `portcullis config show`: prints the merged configuration as TOML. A comment after each value names its
//! origin.

use std::fmt::Write as _;

use toml::Value;

use super::keys::{Part, split};

/// One value and its origin.
#[derive(Clone, Debug)]
pub(super) struct ShownValue {
    pub(super) key: String,
    pub(super) value: Value,
    pub(super) origin: String,
}

/// A table of the document: its own values, then the tables in it.
#[derive(Default)]
struct ShownTable<'a> {
    values: Vec<(String, &'a ShownValue)>,
    tables: Vec<(String, Self)>,
    lists: Vec<(String, Vec<Self>)>,
}

pub(super) fn render(lines: &[ShownValue]) -> String {
    let mut root = ShownTable::default();
    for line in lines {
        root.add(&split(&line.key), line);
    }
    let mut text = String::new();
    root.write("", &mut text);
    text
}

impl<'a> ShownTable<'a> {
    fn add(&mut self, parts: &[Part], line: &'a ShownValue) {
        match parts {
            [Part::Name(name), Part::Index(index), rest @ ..] if !rest.is_empty() => {
                let list = entry(&mut self.lists, name);
                while list.len() <= *index {
                    list.push(Self::default());
                }
                list[*index].add(rest, line);
            }
            [Part::Name(name), rest @ ..] if !rest.is_empty() => {
                entry(&mut self.tables, name).add(rest, line);
            }
            [Part::Name(name), ..] => self.values.push((quoted(name), line)),
            _ => {}
        }
    }

    fn write(&self, path: &str, text: &mut String) {
        let width = self.values.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, line) in &self.values {
            // The origin may be a path with a line break, which would end the TOML comment.
            let origin = line.origin.replace(char::is_control, " ");
            let _ = writeln!(text, "{name:width$} = {}  # {origin}", line.value);
        }
        let within = |name: &str| {
            let name = quoted(name);
            if path.is_empty() { name } else { format!("{path}.{name}") }
        };
        for (name, table) in &self.tables {
            let path = within(name);
            // A table without values of its own needs no header, because the headers of its subtables imply
            // it.
            if !table.values.is_empty() {
                let _ = writeln!(text, "\n[{path}]");
            }
            table.write(&path, text);
        }
        for (name, list) in &self.lists {
            let path = within(name);
            for table in list {
                let _ = writeln!(text, "\n[[{path}]]");
                table.write(&path, text);
            }
        }
    }
}

/// Returns the entry with this name; inserts it if it is missing.
fn entry<'e, T: Default>(entries: &'e mut Vec<(String, T)>, name: &str) -> &'e mut T {
    let index = entries.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
        entries.push((name.to_owned(), T::default()));
        entries.len() - 1
    });
    &mut entries[index].1
}

/// Returns the name as a TOML key, quoted if necessary.
fn quoted(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if !name.is_empty() && name.chars().all(bare) {
        return name.to_owned();
    }
    Value::String(name.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(key: &str, value: impl Into<Value>, origin: &str) -> ShownValue {
        ShownValue { key: key.to_owned(), value: value.into(), origin: origin.to_owned() }
    }

    #[test]
    fn lines_in_any_order_become_one_document() {
        let lines = [
            line("resource[1].rule[0].allow", vec!["x"], "a file"),
            line("upstream.claims.roles", "roles", "default"),
            line("resource[0].path", "/mcp", "a\nfile"),
            line("top", 1, "TOP"),
            line("resource[1].path", "/two \u{202e}\u{7f} \"'\\", "a file"),
            line("upstream.provider", "okta", "a file"),
        ];
        let text = render(&lines);

        let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}: {text}"));

        assert_eq!(table["top"].as_integer(), Some(1));
        assert_eq!(table["resource"][0]["path"].as_str(), Some("/mcp"));
        assert_eq!(table["resource"][1]["path"].as_str(), Some("/two \u{202e}\u{7f} \"'\\"));
        assert_eq!(table["resource"][1]["rule"][0]["allow"][0].as_str(), Some("x"));
        assert_eq!(table["upstream"]["claims"]["roles"].as_str(), Some("roles"));
        assert!(text.contains("# a file") && text.starts_with("top = 1  # TOP\n"), "{text}");
    }
}
