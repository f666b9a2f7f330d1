//! The form for a draft of a rule, and the rule as TOML.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use toml::{Table, Value};

use crate::admin::visit::AdminPage;
use crate::policy::{Condition, Rule};

/// The lists of a rule: the key, which is also the name of the field.
pub(super) const LISTS: [&str; 8] = [
    "roles",
    "groups",
    "permissions",
    "not_roles",
    "not_groups",
    "subjects",
    "email_domains",
    "clients",
];

/// The fields of the form, as typed.
#[derive(Debug, Default)]
pub(super) struct DraftForm {
    pub(super) name: String,
    /// One value a line, in the order of [`LISTS`].
    pub(super) lists: Vec<(&'static str, String)>,
    /// One `path = value` a line.
    pub(super) claims: String,
    /// Scopes, separated by spaces.
    pub(super) allow: String,
    pub(super) deny: String,
    pub(super) passthrough: bool,
}

impl DraftForm {
    /// Reads the form that was sent.
    pub(super) fn sent(visit: &AdminPage) -> Self {
        let text = |name| visit.param(name).trim().to_owned();
        Self {
            name: text("name"),
            lists: LISTS.into_iter().map(|key| (key, text(key))).collect(),
            claims: text("claim"),
            allow: text("allow"),
            deny: text("deny"),
            passthrough: !visit.param("passthrough").is_empty(),
        }
    }

    /// Fills the form with a rule.
    pub(super) fn of(rule: &Rule) -> Self {
        let mut lists: Vec<(&'static str, String)> =
            LISTS.into_iter().map(|key| (key, String::new())).collect();
        let mut claims = String::new();
        for condition in rule.conditions.each() {
            match condition {
                Condition::Claim(path, values) => {
                    for value in values {
                        let _ = writeln!(claims, "{path} = {value}");
                    }
                }
                other => {
                    if let Some(list) = lists.iter_mut().find(|(key, _)| *key == other.key()) {
                        list.1 = other.values().join("\n");
                    }
                }
            }
        }
        Self {
            name: rule.name.clone().unwrap_or_default(),
            lists,
            claims: claims.trim_end().to_owned(),
            allow: rule.allow.to_string(),
            deny: rule.deny.to_string(),
            passthrough: rule.passthrough,
        }
    }

    /// Returns the rule as a table of the configuration. Empty fields are left out.
    pub(super) fn table(&self) -> Table {
        let mut table = Table::new();
        if !self.name.is_empty() {
            table.insert("name".to_owned(), Value::String(self.name.clone()));
        }
        for (key, text) in &self.lists {
            insert(&mut table, key, lines(text));
        }
        let mut claims: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for line in lines(&self.claims) {
            let (path, value) = line.split_once('=').unwrap_or((line, ""));
            claims.entry(path.trim()).or_default().push(value.trim());
        }
        if !claims.is_empty() {
            let mut paths = Table::new();
            for (path, values) in claims {
                insert(&mut paths, path, values.into_iter());
            }
            table.insert("claim".to_owned(), Value::Table(paths));
        }
        insert(&mut table, "allow", self.allow.split_whitespace());
        insert(&mut table, "deny", self.deny.split_whitespace());
        if self.passthrough {
            table.insert("passthrough".to_owned(), Value::String("permissions".to_owned()));
        }
        table
    }
}

/// Returns the lines of a field that are not empty.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty())
}

/// Inserts a list, unless it is empty.
fn insert<'v>(table: &mut Table, key: &str, values: impl Iterator<Item = &'v str>) {
    let values: Vec<Value> = values.map(|value| Value::String(value.to_owned())).collect();
    if !values.is_empty() {
        table.insert(key.to_owned(), Value::Array(values));
    }
}

/// Writes a rule for the configuration file.
pub(super) fn as_toml(table: &Table) -> String {
    let mut text = "[[resource.rule]]\n".to_owned();
    let width = table.keys().map(String::len).max().unwrap_or(0);
    for (key, value) in table {
        let value = match value {
            Value::Table(members) => {
                let members = members
                    .iter()
                    .map(|(name, value)| format!("{} = {value}", Value::String(name.clone())));
                format!("{{ {} }}", members.collect::<Vec<_>>().join(", "))
            }
            value => value.to_string(),
        };
        let _ = writeln!(text, "{key:width$} = {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::read_rule;
    use crate::oauth::scope::ScopeSet;

    #[test]
    fn a_rule_comes_back_from_the_form_and_from_the_file_as_it_was() {
        let form = DraftForm {
            name: "readers \"quoted\"".to_owned(),
            lists: vec![
                ("roles", "Admin\nglob:todo-*".to_owned()),
                ("groups", "CN=a,OU=b\n".to_owned()),
                ("not_groups", "/contractors".to_owned()),
            ],
            claims: "/org_id = org_1\n/org_id = org_2\nlevel=3".to_owned(),
            allow: "read:todos  create:todos".to_owned(),
            deny: String::new(),
            passthrough: true,
        };
        let declared = ScopeSet::parse("read:todos create:todos").unwrap();

        let rule = read_rule(form.table(), &declared).unwrap();

        let again = read_rule(DraftForm::of(&rule).table(), &declared).unwrap();
        assert_eq!(rule, again);
        let text = as_toml(&form.table());
        let file: Table = text.parse().unwrap_or_else(|error| panic!("{error}: {text}"));
        let Value::Array(rules) = &file["resource"]["rule"] else { panic!("{text}") };
        assert_eq!(rules[0].as_table().unwrap(), &form.table());
    }

    #[test]
    fn an_empty_draft_is_refused_with_a_reason() {
        let refused = read_rule(DraftForm::default().table(), &ScopeSet::default()).unwrap_err();

        assert_eq!(refused.0[0].reason, "neither allows nor denies anything");
    }
}
