//! Configuration keys such as `resource[0].rule[1].allow`: parsing, comparing, collecting.

use toml::Value;

pub(super) fn last_name(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}

pub(super) fn without_indexes(key: &str) -> String {
    let mut text = String::new();
    let mut inside = false;
    for c in key.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => text.push(c),
            _ => {}
        }
    }
    text
}

/// Returns the known key that is most similar to `key`; `None` if none is similar enough.
pub(super) fn nearest<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> Option<String> {
    known
        .map(|known| (strsim::jaro_winkler(&without_indexes(key), &without_indexes(known)), known))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, known)| known.to_owned())
}

/// Collects every value that is not a table, with its key.
pub(super) fn walk<'v>(value: &'v Value, key: String, leaves: &mut Vec<(String, &'v Value)>) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                walk(value, key, leaves);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_table) => {
            for (index, value) in list.iter().enumerate() {
                walk(value, format!("{key}[{index}]"), leaves);
            }
        }
        leaf => leaves.push((key, leaf)),
    }
}

pub(super) enum Part {
    Name(String),
    Index(usize),
}

/// Splits a key such as `resource[0].rule[1].allow` into names and indexes.
pub(super) fn split(key: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    for piece in key.split('.') {
        let mut rest = piece;
        if let Some(open) = rest.find('[') {
            parts.push(Part::Name(rest[..open].to_owned()));
            rest = &rest[open..];
            while let Some(close) = rest.find(']') {
                if let Ok(index) = rest[1..close].parse() {
                    parts.push(Part::Index(index));
                }
                rest = &rest[close + 1..];
            }
        } else {
            parts.push(Part::Name(rest.to_owned()));
        }
    }
    parts
}
