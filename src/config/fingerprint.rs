//! Hashes of the configured values, to find out which keys changed.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use toml::Value;

use super::values::SecretText;

/// Hashes of the configured values by key: enough to detect changes, and without secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFingerprint(pub(super) BTreeMap<String, [u8; 32]>);

impl ConfigFingerprint {
    pub(super) fn note(&mut self, key: String, value: &Value) {
        self.0.insert(key, hash(value.to_string().as_bytes()));
    }

    /// Records a secret that is stored outside the configuration, so that a new secret under the same key
    /// counts as a change.
    pub(super) fn note_secret(&mut self, key: &str, secret: &SecretText) {
        self.0.insert(format!("{key} (secret)"), hash(secret.expose().as_bytes()));
    }

    /// Records the content of a file that a key names, so that a new file at the same path counts as a change
    /// of the key.
    pub(super) fn note_file(&mut self, key: &str, content: &[u8]) {
        self.0.insert(format!("{key} (secret)"), hash(content));
    }

    /// Returns the keys that exist on one side only or differ in value, sorted.
    pub fn changes(&self, other: &Self) -> Vec<String> {
        let mut keys: Vec<String> = self
            .0
            .iter()
            .filter(|(key, value)| other.0.get(*key) != Some(value))
            .map(|(key, _)| key)
            .chain(other.0.keys().filter(|key| !self.0.contains_key(*key)))
            .map(|key| key.trim_end_matches(" (secret)").to_owned())
            .collect();
        keys.sort();
        // A secret that moved to another place is reported once, under its own key.
        keys.dedup_by(|next, before| next == before || next.starts_with(&format!("{before}.")));
        keys
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, bytes).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(values: &[(&str, &str)]) -> ConfigFingerprint {
        let mut written = ConfigFingerprint::default();
        for (key, value) in values {
            written.note((*key).to_owned(), &Value::String((*value).to_owned()));
        }
        written
    }

    #[test]
    fn changes_are_told_by_key_whichever_side_they_are_on() {
        let before = written(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let after = written(&[("a", "1"), ("b", "2"), ("d", "1")]);

        assert_eq!(before.changes(&after), ["b", "c", "d"]);
        assert_eq!(before.changes(&before), Vec::<String>::new());
    }

    #[test]
    fn another_secret_at_the_same_place_is_a_change_of_its_key() {
        let entry = [("upstream.client_secret.file", "/run/secret")];
        let (mut before, mut after) = (written(&entry), written(&entry));
        before.note_secret("upstream.client_secret", &SecretText::new("old"));
        after.note_secret("upstream.client_secret", &SecretText::new("new"));

        assert_eq!(before.changes(&after), ["upstream.client_secret"]);
    }
}
