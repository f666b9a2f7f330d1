//! Comparing configurations for a reload: which keys changed, and which of them need a restart.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{SHA256, digest};
use toml::Value;

use super::{Config, SecretText};

/// Keys that may differ between replicas, because they concern one machine only.
const OF_ONE_MACHINE: [&str; 22] = [
    "listen",
    "admin.listen",
    "database_url",
    "secret_key",
    "log",
    "trusted_proxies",
    "http2",
    "limits.connections",
    "limits.connections_per_address",
    "limits.database_connections",
    "limits.first_byte",
    "limits.header_time",
    "limits.body_time",
    "limits.idle_time",
    "limits.http2_streams",
    "limits.http2_resets",
    "limits.log_line",
    "limits.shutdown_delay",
    "limits.database_size",
    "limits.database_log",
    "limits.sweep_rows",
    "limits.request_rates",
];

/// Hashes of the configured values by key: enough to detect changes, and without secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigFingerprint(BTreeMap<String, [u8; 32]>);

impl ConfigFingerprint {
    /// Records a value.
    pub(super) fn note(&mut self, key: String, value: &Value) {
        self.0.insert(key, hash(value.to_string().as_bytes()));
    }

    /// Records a secret that is stored outside the configuration, so that a new secret under the same key
    /// counts as a change.
    pub(super) fn note_secret(&mut self, key: &str, secret: &SecretText) {
        self.0.insert(format!("{key} (secret)"), hash(secret.expose().as_bytes()));
    }

    /// Returns the keys and hashes that must be the same on all replicas, grouped by the first name of the
    /// key.
    pub fn parts(&self) -> BTreeMap<String, Vec<Vec<u8>>> {
        let mut parts: BTreeMap<String, Vec<Vec<u8>>> = BTreeMap::new();
        for (key, hash) in self.0.iter().filter(|(key, _)| !self.may_differ(key)) {
            let name = key.split(['.', '[', ' ']).next().unwrap_or(key).to_owned();
            let part = parts.entry(name).or_default();
            part.push(key.as_bytes().to_vec());
            part.push(hash.to_vec());
        }
        parts
    }

    /// Returns whether replicas may differ in this key: settings of one machine, and the place where a secret
    /// is stored.
    fn may_differ(&self, key: &str) -> bool {
        let local = |own: &str| {
            let rest = key.strip_prefix(own);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[', ' ']))
        };
        let kept = key.strip_suffix(".env").or_else(|| key.strip_suffix(".file"));
        OF_ONE_MACHINE.iter().any(|own| local(own))
            || kept.is_some_and(|secret| self.0.contains_key(&format!("{secret} (secret)")))
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

/// The configuration that results from a reload.
#[derive(Debug)]
pub struct ReloadPlan {
    /// The new configuration, with the running values of all keys that need a restart.
    pub config: Config,
    /// Keys that changed and need a restart.
    pub waiting: Vec<&'static str>,
}

impl Config {
    /// Builds the configuration that replaces `running` on a reload.
    ///
    /// Returns the names of the changed keys as an error if the identity of the service changed: stored
    /// tokens, rules and sessions refer to this issuer and this provider. In that case nothing is applied
    /// before a restart.
    pub fn in_place_of(mut self, running: &Self) -> Result<ReloadPlan, Vec<&'static str>> {
        let (new, old) = (&self.upstream, &running.upstream);
        let ground: Vec<&'static str> = [
            ("public_url", self.public_url != running.public_url),
            ("upstream.provider", new.preset.name != old.preset.name),
            ("upstream.issuer", new.issuer != old.issuer),
            ("upstream.client_id", new.client_id != old.client_id),
        ]
        .into_iter()
        .filter_map(|(key, changed)| changed.then_some(key))
        .collect();
        if !ground.is_empty() {
            return Err(ground);
        }
        let mut waiting = Vec::new();
        keep("listen", &mut self.listen, &running.listen, &mut waiting);
        keep_secret("database_url", &mut self.database_url, &running.database_url, &mut waiting);
        if self.secret_key.as_ref().map(SecretText::expose)
            != running.secret_key.as_ref().map(SecretText::expose)
        {
            self.secret_key.clone_from(&running.secret_key);
            waiting.push("secret_key");
        }
        match (&mut self.admin, &running.admin) {
            (Some(new), Some(old)) => {
                keep("admin.listen", &mut new.listen, &old.listen, &mut waiting);
                keep("admin.url", &mut new.url, &old.url, &mut waiting);
            }
            (None, None) => {}
            (new, old) => {
                new.clone_from(old);
                waiting.push("admin");
            }
        }
        keep("http2", &mut self.http2, &running.http2, &mut waiting);
        let (new, old) = (&mut self.limits, &running.limits);
        keep("limits.connections", &mut new.connections, &old.connections, &mut waiting);
        keep(
            "limits.database_connections",
            &mut new.database_connections,
            &old.database_connections,
            &mut waiting,
        );
        keep("limits.first_byte", &mut new.first_byte, &old.first_byte, &mut waiting);
        keep("limits.header_time", &mut new.header_time, &old.header_time, &mut waiting);
        keep("limits.body_time", &mut new.body_time, &old.body_time, &mut waiting);
        keep("limits.idle_time", &mut new.idle_time, &old.idle_time, &mut waiting);
        keep("limits.http2_streams", &mut new.http2_streams, &old.http2_streams, &mut waiting);
        keep("limits.http2_resets", &mut new.http2_resets, &old.http2_resets, &mut waiting);
        keep("limits.log_line", &mut new.log_line, &old.log_line, &mut waiting);
        keep("limits.header_count", &mut new.header_count, &old.header_count, &mut waiting);
        keep("limits.headers", &mut new.headers, &old.headers, &mut waiting);
        keep("limits.request_target", &mut new.request_target, &old.request_target, &mut waiting);
        Ok(ReloadPlan { config: self, waiting })
    }
}

fn keep<T: Clone + PartialEq>(
    key: &'static str,
    new: &mut T,
    old: &T,
    waiting: &mut Vec<&'static str>,
) {
    if new != old {
        new.clone_from(old);
        waiting.push(key);
    }
}

fn keep_secret(
    key: &'static str,
    new: &mut SecretText,
    old: &SecretText,
    waiting: &mut Vec<&'static str>,
) {
    if new.expose() != old.expose() {
        new.clone_from(old);
        waiting.push(key);
    }
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
        let place = [("upstream.client_secret.file", "/run/secret")];
        let (mut before, mut after) = (written(&place), written(&place));
        before.note_secret("upstream.client_secret", &SecretText::new("old"));
        after.note_secret("upstream.client_secret", &SecretText::new("new"));

        assert_eq!(before.changes(&after), ["upstream.client_secret"]);
    }
}
