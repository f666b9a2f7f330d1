//! A tree of values from file and environment. It records the origin of each value, the keys that were read,
//! and all problems.

mod unknown_keys;

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Value;

use super::files::{Unread, bytes_of, text_of};
use super::fingerprint::ConfigFingerprint;
use super::keys::{Part, split, walk};
use super::show::ShownValue;
use super::source::{ConfigPlace, ConfigSource};
use super::values::{SecretText, parse_duration};

/// A problem with one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the file sets the key, or where it would be added; `None` if the file has no say.
    pub place: Option<ConfigPlace>,
    /// The environment variable that sets the key.
    pub variable: Option<String>,
    /// The key: `resource[0].rule[1].allow`.
    pub key: String,
    /// The configured value, with secrets masked; `None` if there is none.
    pub value: Option<String>,
    pub reason: String,
    pub hint: String,
}

impl Problem {
    /// Returns the place and the key: `portcullis.toml:41: resource[0].scopes`.
    pub fn located(&self) -> String {
        match (&self.place, &self.variable) {
            (Some(place), _) if place.file == self.key => place.to_string(),
            (Some(place), _) => format!("{place}: {}", self.key),
            (None, Some(variable)) => format!("{variable}: {}", self.key),
            (None, None) => self.key.clone(),
        }
    }
}

/// All problems of a configuration.
#[derive(Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        writeln!(f, "the configuration has {count} problem{}:", if count == 1 { "" } else { "s" })?;
        for problem in &self.0 {
            write!(f, "\n  {}", problem.located())?;
            if let Some(value) = &problem.value {
                write!(f, " = {value}")?;
            }
            write!(f, "\n    {}\n    → {}\n", problem.reason, problem.hint)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// Largest file with a secret, in bytes: 64 KiB.
const LARGEST_SECRET: u64 = 64 << 10;
/// Shown in place of a secret.
const MASK: &str = "********";

/// The values and the record of how they were read.
pub(super) struct ConfigReader {
    root: Value,
    /// Environment variable by key.
    from_env: BTreeMap<String, String>,
    file: Option<String>,
    /// The line of each key in the file.
    pub(super) source: ConfigSource,
    pub(super) read: HashSet<String>,
    pub(super) problems: Vec<Problem>,
    known_problems: HashSet<String>,
    pub(super) warnings: Vec<String>,
    pub(super) shown: Vec<ShownValue>,
    shown_keys: HashSet<String>,
    /// Files that secrets and the logo were read from.
    pub(super) files: Vec<PathBuf>,
    secrets: ConfigFingerprint,
}

impl ConfigReader {
    pub(super) fn new(file: Option<(String, &str)>) -> Self {
        let mut reader = Self {
            root: Value::Table(toml::Table::new()),
            from_env: BTreeMap::new(),
            file: None,
            source: ConfigSource::default(),
            read: HashSet::new(),
            problems: Vec::new(),
            known_problems: HashSet::new(),
            warnings: Vec::new(),
            shown: Vec::new(),
            shown_keys: HashSet::new(),
            files: Vec::new(),
            secrets: ConfigFingerprint::default(),
        };
        if let Some((path, text)) = file {
            match text.parse::<toml::Table>() {
                Ok(table) => {
                    reader.root = Value::Table(table);
                    reader.source = ConfigSource::of(&path, text);
                }
                Err(error) => {
                    // The library's message quotes the line, which may contain a secret.
                    let line = error
                        .span()
                        .and_then(|span| text.get(..span.start))
                        .map_or(1, |before| before.matches('\n').count() + 1);
                    let reason = format!("is not TOML: {}", error.message());
                    reader.problem(&path, None, reason, "fix that line");
                    for problem in &mut reader.problems {
                        problem.place = Some(ConfigPlace { file: path.clone(), line });
                    }
                }
            }
            reader.file = Some(path);
        }
        reader
    }

    /// Reads from these values alone.
    pub(super) fn of(table: toml::Table) -> Self {
        Self { root: Value::Table(table), ..Self::new(None) }
    }

    pub(super) fn problem(
        &mut self,
        key: &str,
        value: Option<String>,
        reason: impl Into<String>,
        hint: impl Into<String>,
    ) {
        let place = self.source.place(key);
        let variable = self.variable_for(key);
        let (key, reason, hint) = (key.to_owned(), reason.into(), hint.into());
        let problem = Problem { place, variable, key, value, reason, hint };
        // A key that serves two purposes is read twice, but its problem is reported once.
        if self.known_problems.insert(format!("{problem:?}")) {
            self.problems.push(problem);
        }
    }

    /// Adds a warning about a key, with the variable or the line that sets it.
    pub(super) fn warn(&mut self, key: &str, text: &str) {
        let place = self.source.place(key).map(|place| place.to_string());
        let text = match self.variable_for(key).or(place) {
            Some(place) => format!("{place}: {text}"),
            None => text.to_owned(),
        };
        self.warnings.push(text);
    }

    /// Returns the environment variable that sets this key, or the value around it.
    fn variable_for(&self, key: &str) -> Option<String> {
        let mut key = key;
        loop {
            if let Some(variable) = self.from_env.get(key) {
                return Some(variable.clone());
            }
            key = key.rfind(['.', '[']).and_then(|end| key.get(..end))?;
        }
    }

    /// Sets a value from the environment, which overrides the file.
    pub(super) fn overlay(&mut self, key: &str, variable: &str, value: Value) {
        self.from_env.insert(key.to_owned(), variable.to_owned());
        self.source.overridden(key);
        let mut node = &mut self.root;
        for part in split(key) {
            node = match part {
                Part::Name(name) => {
                    if !node.is_table() {
                        *node = Value::Table(toml::Table::new());
                    }
                    let Value::Table(table) = node else { return };
                    table.entry(name).or_insert(Value::Table(toml::Table::new()))
                }
                Part::Index(index) => {
                    if !node.is_array() {
                        *node = Value::Array(Vec::new());
                    }
                    let Value::Array(list) = node else { return };
                    while list.len() <= index {
                        list.push(Value::Table(toml::Table::new()));
                    }
                    &mut list[index]
                }
            };
        }
        *node = value;
    }

    /// Returns the raw value of a key and marks the key as read.
    pub(super) fn value(&mut self, key: &str) -> Option<Value> {
        self.read.insert(key.to_owned());
        let mut node = &self.root;
        for part in split(key) {
            node = match part {
                Part::Name(name) => node.get(name)?,
                Part::Index(index) => node.get(index)?,
            };
        }
        Some(node.clone())
    }

    /// Returns the fingerprint of all values in file and environment.
    pub(super) fn written(&self) -> ConfigFingerprint {
        let mut written = self.secrets.clone();
        let mut leaves = Vec::new();
        walk(&self.root, String::new(), &mut leaves);
        for (key, value) in leaves {
            written.note(key, value);
        }
        written
    }

    pub(super) fn has(&mut self, key: &str) -> bool {
        self.value(key).is_some()
    }

    /// Returns the number of items in a list of tables.
    pub(super) fn count(&mut self, key: &str) -> usize {
        match self.value(key) {
            None => 0,
            Some(Value::Array(list)) => list.len(),
            Some(other) => {
                let table = key.rsplit('.').next().unwrap_or(key).to_owned();
                // A table may have secrets.
                let shown = (!other.is_table()).then(|| mask_nothing(&other));
                self.problem(key, shown, "is not a list of tables", format!("write [[{table}]]"));
                0
            }
        }
    }

    pub(super) fn show(&mut self, key: &str, value: impl Into<Value>, present: bool) {
        let origin = match (self.from_env.get(key), present) {
            (Some(variable), _) => variable.clone(),
            (None, true) => self.file.clone().unwrap_or_else(|| "file".to_owned()),
            (None, false) => "default".to_owned(),
        };
        self.shown_from(key, value, origin);
    }

    fn shown_from(&mut self, key: &str, value: impl Into<Value>, origin: String) {
        if self.shown_keys.insert(key.to_owned()) {
            self.shown.push(ShownValue { key: key.to_owned(), value: value.into(), origin });
        }
    }

    /// Shows an environment variable that is not a configuration key.
    pub(super) fn show_variable(&mut self, variable: &str, value: String) {
        if self.shown_keys.insert(variable.to_owned()) {
            let origin = "environment".to_owned();
            self.shown.push(ShownValue { key: variable.to_owned(), value: value.into(), origin });
        }
    }

    pub(super) fn text(&mut self, key: &str) -> Option<String> {
        match self.value(key)? {
            Value::String(text) => {
                self.show(key, text.as_str(), true);
                Some(text)
            }
            other => {
                self.wrong_type(key, &other, "a text", "put it in quotes");
                None
            }
        }
    }

    pub(super) fn required_text(&mut self, key: &str, hint: &str) -> Option<String> {
        let known = self.problems.len();
        let text = self.text(key).filter(|text| !text.is_empty());
        if text.is_none() && self.problems.len() == known {
            self.problem(key, None, "is missing", hint);
        }
        text
    }

    pub(super) fn flag(&mut self, key: &str, default: bool) -> bool {
        let value = self.value(key);
        let flag = match &value {
            None => default,
            Some(Value::Boolean(flag)) => *flag,
            Some(Value::String(text)) if text == "true" => true,
            Some(Value::String(text)) if text == "false" => false,
            Some(other) => {
                self.wrong_type(key, other, "true or false", "write true or false");
                default
            }
        };
        self.show(key, flag, value.is_some());
        flag
    }

    pub(super) fn number<T>(&mut self, key: &str, default: T, least: T, most: T) -> T
    where
        T: TryFrom<i64> + PartialOrd + fmt::Display + Copy,
    {
        let value = self.value(key);
        let number = match &value {
            None => Some(default),
            Some(Value::Integer(number)) => T::try_from(*number).ok(),
            Some(Value::String(text)) => text.parse::<i64>().ok().and_then(|n| T::try_from(n).ok()),
            Some(_) => None,
        };
        let number = number.filter(|number| *number >= least && *number <= most);
        let Some(number) = number else {
            let shown = value.as_ref().map(mask_nothing);
            let hint = format!("write a number from {least} to {most}");
            self.problem(key, shown, "is out of range", hint);
            return default;
        };
        let shown = number.to_string();
        let shown = shown.parse::<i64>().map_or(Value::String(shown), Value::Integer);
        self.show(key, shown, value.is_some());
        number
    }

    /// Reads a duration: `"90s"`, `"15m"`, `"8h"`, `"14d"`, or whole seconds.
    pub(super) fn duration(
        &mut self,
        key: &str,
        default: &str,
        least: &str,
        most: &str,
    ) -> Duration {
        let fallback = parse_duration(default).unwrap_or_default();
        let value = self.value(key);
        let read = match &value {
            None => Some(fallback),
            Some(Value::Integer(seconds)) => u64::try_from(*seconds).ok().map(Duration::from_secs),
            Some(Value::String(text)) => parse_duration(text),
            Some(_) => None,
        };
        let within = |duration: &Duration| {
            parse_duration(least).is_none_or(|least| *duration >= least)
                && parse_duration(most).is_none_or(|most| *duration <= most)
        };
        let Some(duration) = read.filter(within) else {
            let shown = value.as_ref().map(mask_nothing);
            let hint = format!("write a duration from {least} to {most}, such as {default:?}");
            self.problem(key, shown, "is no duration within its range", hint);
            return fallback;
        };
        let text = match &value {
            Some(Value::String(text)) => text.clone(),
            Some(_) => format!("{}s", duration.as_secs()),
            None => default.to_owned(),
        };
        self.show(key, text, value.is_some());
        duration
    }

    /// Reads a list of texts. A value from the environment may be one text, which is split at commas and
    /// spaces.
    pub(super) fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        let value = self.value(key)?;
        let list = match &value {
            Value::Array(items) => {
                let texts: Option<Vec<String>> =
                    items.iter().map(|item| item.as_str().map(str::to_owned)).collect();
                texts
            }
            Value::String(text) if self.from_env.contains_key(key) => Some(
                text.split([',', ' ']).filter(|part| !part.is_empty()).map(str::to_owned).collect(),
            ),
            _ => None,
        };
        let Some(list) = list else {
            self.wrong_type(key, &value, "a list of texts", "write [\"one\", \"two\"]");
            return None;
        };
        self.show(key, list.clone(), true);
        Some(list)
    }

    /// Returns the names of the members of a table.
    pub(super) fn names(&mut self, key: &str) -> Vec<String> {
        match self.value(key) {
            Some(Value::Table(table)) => table.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }

    /// Reads a secret: `{ env = "NAME" }`, `{ file = "path" }`, or a text. A text causes a warning unless it
    /// came from the environment.
    pub(super) fn secret(
        &mut self,
        key: &str,
        env: &BTreeMap<String, String>,
    ) -> Option<SecretText> {
        let value = self.value(key)?;
        let named = match &value {
            Value::Table(table) => ["env", "file"].into_iter().find_map(|kind| {
                table.get(kind).and_then(Value::as_str).map(|name| format!("{kind} {name}"))
            }),
            _ => None,
        };
        match named {
            Some(origin) => self.shown_from(key, MASK, origin),
            None => self.show(key, MASK, true),
        }
        match &value {
            Value::String(text) => {
                if !self.from_env.contains_key(key) {
                    let text = format!(
                        "{key} is in the file itself; {{ env = \"…\" }} or {{ file = \"…\" }} keeps it out of backups and commits"
                    );
                    self.warn(key, &text);
                }
                Some(SecretText::new(text.clone()))
            }
            Value::Table(table) if table.len() == 1 => {
                let variable = table.get("env").and_then(Value::as_str);
                let path = table.get("file").and_then(Value::as_str);
                match (variable, path) {
                    (Some(variable), _) => self.secret_from_env(key, variable, env),
                    (None, Some(path)) => self.secret_from_file(key, path),
                    (None, None) => self.not_a_secret(key),
                }
            }
            _ => self.not_a_secret(key),
        }
    }

    fn secret_from_env(
        &mut self,
        key: &str,
        variable: &str,
        env: &BTreeMap<String, String>,
    ) -> Option<SecretText> {
        if let Some(text) = env.get(variable).filter(|text| !text.is_empty()) {
            let secret = SecretText::new(text.clone());
            self.secrets.note_secret(key, &secret);
            return Some(secret);
        }
        let shown = Some(format!("{{ env = {variable:?} }}"));
        let reason = "names an environment variable that is not set";
        self.problem(key, shown, reason, format!("set {variable}"));
        None
    }

    pub(super) fn secret_from_file(&mut self, key: &str, path: &str) -> Option<SecretText> {
        self.files.push(PathBuf::from(path));
        match text_of(Path::new(path), LARGEST_SECRET) {
            Ok(text) if !text.trim().is_empty() => {
                let secret = SecretText::new(text.trim());
                self.secrets.note_secret(key, &secret);
                Some(secret)
            }
            Ok(_) => {
                let shown = Some(format!("{{ file = {path:?} }}"));
                self.problem(key, shown, "names an empty file", "put the secret into it");
                None
            }
            Err(unread) => {
                let shown = Some(format!("{{ file = {path:?} }}"));
                let reason = match unread {
                    Unread::Failed(cause) => format!("names a file that cannot be read: {cause}"),
                    Unread::TooLarge => {
                        format!("names a file larger than {} KiB", LARGEST_SECRET >> 10)
                    }
                };
                self.problem(key, shown, reason, "check the path and its permissions");
                None
            }
        }
    }

    /// Reads a file that a key names and that is no secret. A change of the file is a change of the key.
    pub(super) fn file(&mut self, key: &str, path: &str, most: u64) -> Option<Vec<u8>> {
        self.files.push(PathBuf::from(path));
        match bytes_of(Path::new(path), most) {
            Ok(bytes) => {
                self.secrets.note_file(key, &bytes);
                Some(bytes)
            }
            Err(unread) => {
                let reason = match unread {
                    Unread::Failed(cause) => format!("names a file that cannot be read: {cause}"),
                    Unread::TooLarge => format!("names a file larger than {} KiB", most >> 10),
                };
                let hint = "check the path, the size and the permissions";
                self.problem(key, Some(format!("{path:?}")), reason, hint);
                None
            }
        }
    }

    fn not_a_secret(&mut self, key: &str) -> Option<SecretText> {
        let hint = "write { env = \"NAME\" }, { file = \"path\" } or a text";
        self.problem(key, Some("********".to_owned()), "is not a secret", hint);
        None
    }

    pub(super) fn wrong_type(&mut self, key: &str, value: &Value, wanted: &str, hint: &str) {
        let shown = Some(mask_nothing(value));
        self.problem(key, shown, format!("is not {wanted}"), hint);
    }
}

fn mask_nothing(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > 120 {
        let end = text.floor_char_boundary(120);
        text.truncate(end);
        let _ = write!(text, "…");
    }
    text
}
