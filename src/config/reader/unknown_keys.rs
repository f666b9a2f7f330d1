//! Keys in file or environment that nothing reads. Each is reported with the key that was probably meant, and
//! with what to do.

use super::ConfigReader;
use crate::config::keys::{last_name, nearest, walk, without_indexes};
use crate::config::presets::PRESETS;
use crate::config::reference::known_kinds;
use crate::config::service_links::nearest_link;

/// Keys of earlier versions, with their names of today.
const RENAMED: &[(&str, &str)] = &[("limits.database_log", "limits.wal_size")];

/// Tables whose members have names of the administrator's choice, or are secrets.
const WHOLE: &[&str] = &[
    "scopes",
    "scope_texts",
    "tools",
    "implies",
    "introspection_secret",
    "metrics_token",
    "url",
    "password",
    "claim",
    "authorize_params",
    "client_secret",
    "eab_hmac_key",
    "secret",
    "jwks",
    "unsafe_loopback_hosts",
    "headers",
    "secret_key",
    "database_url",
];

const WITH_A_PORT: &str = "did you mean listen? It takes both: listen = \"127.0.0.1:8000\"";
const NO_ADDRESSES: &str = "did you mean subjects? A rule names no e-mail address, because addresses change hands; email_domains (with upstream.trust_email = true) names whole domains";
const ONE_REDIRECT_URI: &str =
    "take it out: it is always public_url + /auth/callback; enter that at the provider";
const CALLBACK_OF_CONNECTION: &str =
    "take it out: `portcullis check` says the callback URL of each connection";

/// Names that other programs use, and what to write here.
const OTHER_NAMES: &[(&str, &str)] = &[
    ("url", "did you mean public_url?"),
    ("issuer", "did you mean public_url? The provider's issuer belongs below [upstream]"),
    ("base_url", "did you mean public_url?"),
    ("port", WITH_A_PORT),
    ("host", WITH_A_PORT),
    ("bind", WITH_A_PORT),
    ("address", WITH_A_PORT),
    ("database", "did you mean database_url?"),
    ("redirect_uri", ONE_REDIRECT_URI),
    ("upstream.redirect_uri", ONE_REDIRECT_URI),
    ("upstream.redirect_url", ONE_REDIRECT_URI),
    ("upstream.secret", "did you mean upstream.client_secret?"),
    (
        "resource.url",
        "did you mean target (the MCP server's own address)? Clients use public_url + path; a server elsewhere has id = \"https://…\"",
    ),
    ("resource.upstream", "did you mean target?"),
    ("resource.backend", "did you mean target?"),
    ("resource.upstream_token.name", "did you mean header?"),
    ("resource.connection.provider", "name a [[connection]]; its provider is written there"),
    ("resource.connection.client_id", "write it below [[connection]]"),
    ("connection.redirect_uri", CALLBACK_OF_CONNECTION),
    ("connection.callback_url", CALLBACK_OF_CONNECTION),
    ("connection.callback", CALLBACK_OF_CONNECTION),
    ("connection.url", "did you mean authorize_url and token_url?"),
    ("resource.rule.email", NO_ADDRESSES),
    ("resource.rule.emails", NO_ADDRESSES),
    ("resource.rule.users", NO_ADDRESSES),
    ("resource.rule.scope", "did you mean allow?"),
    ("resource.rule.scopes", "did you mean allow?"),
    ("admin.emails", "name roles, groups or subjects: addresses change hands"),
    ("admin.users", "name roles, groups or subjects"),
    ("admin.port", "did you mean admin.listen? It takes both: listen = \"127.0.0.1:8001\""),
    ("admin.host", "did you mean admin.listen? It takes both: listen = \"127.0.0.1:8001\""),
];

impl ConfigReader {
    /// Reports the keys that were not read.
    pub(in crate::config) fn report_unknown_keys(&mut self) {
        let mut leaves = Vec::new();
        walk(&self.root, String::new(), &mut leaves);
        // Tables that are read as a whole: scopes, tools, claims, parameters, secrets, hosts.
        let is_whole = |table: &str| WHOLE.contains(&last_name(table)) && self.read.contains(table);
        let known = |leaf: &str| {
            self.read.contains(leaf)
                || leaf
                    .match_indices('.')
                    .any(|(end, _)| is_whole(leaf.get(..end).unwrap_or_default()))
        };
        let keys = leaves.into_iter().map(|(key, _)| key);
        let unknown: Vec<String> = keys.filter(|leaf| !known(leaf)).collect();
        let provider = self.root.get("upstream").and_then(|upstream| upstream.get("provider"));
        let provider = provider.and_then(|name| name.as_str()).map(str::to_owned);
        for key in unknown {
            self.report_unknown_key(&key, provider.as_deref());
        }
    }

    fn report_unknown_key(&mut self, key: &str, provider: Option<&str>) {
        let variable = self.from_env.get(key).cloned();
        if let Some((_, new)) = RENAMED.iter().find(|(old, _)| *old == key) {
            let hint = match &variable {
                Some(variable) => format!("set {} instead of {variable}", variable_of(new)),
                None => format!("write {new} in its place"),
            };
            return self.problem(key, None, format!("was renamed to {new}"), hint);
        }
        if let Some(name) = key.strip_prefix("upstream.")
            && let Some(of_provider) = key_of_a_provider(name, provider)
        {
            if let KeyOfProvider::OfAnother { reason, hint } = of_provider {
                self.problem(key, None, reason, hint);
            }
            return;
        }
        let reason = match &variable {
            Some(variable) => format!("is not a key (set by {variable})"),
            None => "is not a key".to_owned(),
        };
        let link = variable.as_deref().and_then(|name| name.strip_prefix("PORTCULLIS_"));
        let hint = match link.and_then(nearest_link) {
            Some(link) => {
                format!(
                    "did you mean {link}? Kubernetes sets it, and it is ignored; or take it out"
                )
            }
            None => hint(&without_indexes(key), variable.is_some()),
        };
        self.problem(key, None, reason, hint);
    }
}

/// Returns the environment variable that sets a key.
fn variable_of(key: &str) -> String {
    format!("PORTCULLIS_{}", key.replace('.', "__").to_ascii_uppercase())
}

/// A key of `[upstream]` that only some providers have, and that was not read.
#[derive(Debug, PartialEq, Eq)]
enum KeyOfProvider {
    /// The provider is missing or misspelt, which is reported; whether the key is right cannot be known.
    OfUnknown,
    /// The configured provider does not have it.
    OfAnother { reason: String, hint: String },
}

/// Returns `None` for keys that no provider has.
fn key_of_a_provider(name: &str, provider: Option<&str>) -> Option<KeyOfProvider> {
    let those_with = PRESETS.iter().filter(|preset| preset.own_keys().contains(&name));
    let those_with: Vec<&str> = those_with.map(|preset| preset.name).collect();
    if those_with.is_empty() {
        return None;
    }
    let Some(preset) = PRESETS.iter().find(|preset| Some(preset.name) == provider) else {
        return Some(KeyOfProvider::OfUnknown);
    };
    let reason = format!("is not a key with provider = {:?}", preset.name);
    let own = preset.own_keys();
    let has = if own.is_empty() {
        format!("{} needs no key of its own", preset.name)
    } else {
        format!("{} has {}", preset.name, own.join(", "))
    };
    let hint = format!("take it out: {has}; {name} is for {}", those_with.join(", "));
    Some(KeyOfProvider::OfAnother { reason, hint })
}

/// Says what was probably meant. `kind` is a key without indexes that nothing reads.
fn hint(kind: &str, from_env: bool) -> String {
    if let Some((_, hint)) = OTHER_NAMES.iter().find(|(other, _)| *other == kind) {
        return (*hint).to_owned();
    }
    let known = known_kinds();
    let (table, name) = kind.rsplit_once('.').unwrap_or(("", kind));
    let of_table = |kind: &str| kind.rsplit_once('.').map_or("", |(table, _)| table) == table;
    let meant = |key: &str, advice: String| {
        if from_env {
            format!("did you mean {key}? Set {}", variable_of(key))
        } else {
            format!("did you mean {key}?{advice}")
        }
    };
    // A key of the top that follows a table belongs to that table, as TOML reads it.
    let at_the_top = |key: &&String| !key.contains('.');
    if !table.is_empty() && known.iter().filter(at_the_top).any(|key| key == name) {
        return meant(name, " Move it above the first [table]".to_owned());
    }
    // A slip of the pen: at most one letter in four, of the same table first.
    let slips = |other: &str| strsim::damerau_levenshtein(name, last_name(other));
    let near = known.iter().filter(|kind| of_table(kind) && slips(kind) <= (name.len() / 4).max(1));
    if let Some(sibling) = near.min_by_key(|kind| slips(kind)) {
        return meant(sibling, String::new());
    }
    let fewest = known.iter().map(|kind| slips(kind)).min().filter(|fewest| *fewest <= 1);
    let namesakes = known.iter().filter(|kind| Some(slips(kind)) == fewest);
    let namesakes: Vec<&String> = namesakes.collect();
    if let [one] = namesakes.as_slice() {
        let place = one.rsplit_once('.').map_or("", |(table, _)| table);
        return meant(one, format!(" Move it below {}", header(place)));
    }
    if !namesakes.is_empty() {
        let several: Vec<&str> = namesakes.iter().map(|kind| kind.as_str()).collect();
        return format!("did you mean one of {}?", several.join(", "));
    }
    let siblings = known.iter().filter(|kind| of_table(kind)).map(|kind| last_name(kind));
    if let Some(sibling) = nearest(name, siblings) {
        let key = if table.is_empty() { sibling } else { format!("{table}.{sibling}") };
        return meant(&key, String::new());
    }
    // A table with a wrong name makes all of its keys unknown.
    let alike = known.iter().filter(|kind| last_name(kind) == name || of_table(kind));
    match nearest(kind, alike.map(String::as_str)) {
        Some(nearest) => meant(&nearest, String::new()),
        None => "take it out; docs/configuration.md lists every key".to_owned(),
    }
}

/// Returns the header of a table as the file has it: `[upstream]`, `[[resource.rule]]`.
fn header(table: &str) -> String {
    if matches!(
        table,
        "resource" | "resource.rule" | "resource.connection" | "connection" | "client" | "notify"
    ) {
        format!("[[{table}]]")
    } else {
        format!("[{table}]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_names_the_key_that_was_meant_and_where_it_belongs() {
        for (kind, wanted) in [
            ("databse_url", "did you mean database_url?"),
            ("upstream.client_idd", "did you mean upstream.client_id?"),
            ("resource.client_approval", "did you mean client_approval? Move it above the first"),
            ("limits.public_url", "did you mean public_url? Move it above the first [table]"),
            ("recheck", "did you mean upstream.recheck? Move it below [upstream]"),
            ("client_secret", "one of connection.client_secret, upstream.client_secret?"),
            ("scope_texts", "did you mean connection.scope_texts? Move it below [[connection]]"),
            ("connection.redirect_uri", "says the callback URL of each connection"),
            ("connection.authorise_url", "did you mean connection.authorize_url?"),
            ("target", "did you mean resource.target? Move it below [[resource]]"),
            ("resource.rule.emails", "did you mean subjects?"),
            ("resource.url", "did you mean target"),
            ("url", "did you mean public_url?"),
            ("client_idd", "did you mean one of client.client_id, connection.client_id, upstream."),
            ("admin.rolse", "did you mean admin.roles?"),
            ("port", "did you mean listen?"),
            ("upstream.redirect_uri", "enter that at the provider"),
            ("nothing_like_it", "take it out; docs/configuration.md"),
        ] {
            let hint = hint(kind, false);
            assert!(hint.contains(wanted), "{kind}: {hint}");
        }
        assert_eq!(
            hint("domain", true),
            "did you mean upstream.domain? Set PORTCULLIS_UPSTREAM__DOMAIN"
        );
    }

    #[test]
    fn a_key_of_another_provider_is_told_from_one_that_nobody_has() {
        let told = |name, provider| key_of_a_provider(name, Some(provider));
        let Some(KeyOfProvider::OfAnother { reason, hint }) = told("tenant", "okta") else {
            panic!()
        };
        assert_eq!(reason, "is not a key with provider = \"okta\"");
        assert!(
            hint.contains("okta has domain") && hint.ends_with("tenant is for entra"),
            "{hint}"
        );
        assert_eq!(told("domain", "Okta"), Some(KeyOfProvider::OfUnknown), "the provider is wrong");
        assert_eq!(told("nothing_like_it", "okta"), None);
    }
}
