//! Comparing configurations: which keys need a restart, and which may differ between replicas.

use std::collections::BTreeMap;

use super::fingerprint::ConfigFingerprint;
use super::limits::{LimitTrait, keep, limits};
use super::{Config, SecretText};

/// Keys outside `[limits]` that may differ between replicas, because they concern one machine only.
const OF_ONE_MACHINE: [&str; 12] = [
    "listen",
    "listen_http",
    "admin.listen",
    "admin.tls",
    "database_url",
    "secret_key",
    "log",
    "telemetry",
    "tls.cert",
    "tls.key",
    "trusted_proxies",
    "http2",
];

impl ConfigFingerprint {
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
            || limits().any(|limit| limit.is(LimitTrait::OneMachine) && local(limit.key))
            || kept.is_some_and(|secret| self.0.contains_key(&format!("{secret} (secret)")))
    }
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
        let identity_keys: Vec<&'static str> = [
            ("public_url", self.public_url != running.public_url),
            ("upstream.provider", new.preset.name != old.preset.name),
            ("upstream.issuer", new.issuer != old.issuer),
            ("upstream.client_id", new.client_id != old.client_id),
        ]
        .into_iter()
        .filter_map(|(key, changed)| changed.then_some(key))
        .collect();
        if !identity_keys.is_empty() {
            return Err(identity_keys);
        }
        let mut waiting = Vec::new();
        keep("listen", &mut self.listen, &running.listen, &mut waiting);
        keep("listen_http", &mut self.listen_http, &running.listen_http, &mut waiting);
        // A listener speaks TLS or it does not; with which certificate may change at any time.
        if self.tls.is_some() != running.tls.is_some() {
            self.tls.clone_from(&running.tls);
            waiting.push("tls");
        }
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
                keep("admin.tls", &mut new.tls, &old.tls, &mut waiting);
            }
            (None, None) => {}
            (new, old) => {
                new.clone_from(old);
                waiting.push("admin");
            }
        }
        keep("http2", &mut self.http2, &running.http2, &mut waiting);
        let (new, old) = (&mut self.telemetry, &running.telemetry);
        keep("telemetry.otlp", &mut new.otlp, &old.otlp, &mut waiting);
        keep("telemetry.headers", &mut new.headers, &old.headers, &mut waiting);
        keep("telemetry.traces", &mut new.traces, &old.traces, &mut waiting);
        keep("telemetry.metrics", &mut new.metrics, &old.metrics, &mut waiting);
        keep("telemetry.logs", &mut new.logs, &old.logs, &mut waiting);
        self.limits.keep_until_restart(&running.limits, &mut waiting);
        Ok(ReloadPlan { config: self, waiting })
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
