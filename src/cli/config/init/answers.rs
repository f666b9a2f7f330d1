//! The answers of `config init`, from flags and from the terminal.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::config::{Preset, SecretText, presets};

/// The path of the MCP server, unless it is answered.
pub(super) const DEFAULT_PATH: &str = "/mcp";
/// The scopes of the MCP server, unless they are answered.
pub(super) const DEFAULT_SCOPE: &str = "mcp";

/// Where the client secret is.
#[derive(Clone, Debug)]
pub(super) enum SecretSource {
    Variable(String),
    File(PathBuf),
    /// Typed on the terminal; goes into a file.
    Typed(SecretText),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Answers {
    pub(super) preset: Option<&'static Preset>,
    pub(super) public_url: Option<String>,
    pub(super) listen: Option<SocketAddr>,
    /// Keys of `[upstream]` that this provider has.
    pub(super) keys: BTreeMap<&'static str, String>,
    /// Values of the key that restricts who can sign in, where the provider is open to the world.
    pub(super) allowed: Vec<String>,
    pub(super) client_id: Option<String>,
    pub(super) secret: Option<SecretSource>,
    /// What people read on the pages, such as *Sign in with Acme*.
    pub(super) provider_name: Option<String>,
    pub(super) path: Option<String>,
    pub(super) target: Option<String>,
    pub(super) name: Option<String>,
    pub(super) scopes: Vec<String>,
    /// Each role with its scopes.
    pub(super) rules: Vec<(String, Vec<String>)>,
    pub(super) roles_claim: Option<String>,
    pub(super) admin_roles: Vec<String>,
}

/// Answers from which a file can be written.
pub(super) struct CompleteAnswers<'a> {
    pub(super) preset: &'static Preset,
    pub(super) public_url: &'a str,
    pub(super) client_id: &'a str,
    pub(super) secret: &'a SecretSource,
    pub(super) path: &'a str,
    pub(super) target: &'a str,
    pub(super) scopes: Vec<&'a str>,
    pub(super) more: &'a Answers,
}

impl Answers {
    /// Returns what a file needs, or which flags are missing.
    pub(super) fn complete(&self) -> Result<CompleteAnswers<'_>, String> {
        let Some(preset) = self.preset else {
            let names: Vec<&str> = presets().iter().map(|preset| preset.name).collect();
            return Err(format!("name the identity provider: {}", names.join(", ")));
        };
        let mut missing = Vec::new();
        let mut wanted = |flag: &'static str, answer: &Option<_>| {
            if answer.is_none() {
                missing.push(flag.to_owned());
            }
        };
        wanted("--public-url", &self.public_url.as_ref().map(|_| ()));
        wanted("--client-id", &self.client_id.as_ref().map(|_| ()));
        wanted("--client-secret-file or --client-secret-env", &self.secret.as_ref().map(|_| ()));
        wanted("--target", &self.target.as_ref().map(|_| ()));
        for key in preset.keys.iter().filter(|key| !self.keys.contains_key(key.name)) {
            missing.push(format!("--{}", key.name.replace('_', "-")));
        }
        if let Some(key) = restriction(preset).filter(|_| self.allowed.is_empty()) {
            missing.push(format!("--{}", key.replace('_', "-")));
        }
        match (&self.public_url, &self.client_id, &self.secret, &self.target) {
            (Some(public_url), Some(client_id), Some(secret), Some(target))
                if missing.is_empty() =>
            {
                let scopes = self.scopes.iter().map(String::as_str);
                let default = self.scopes.is_empty().then_some(DEFAULT_SCOPE);
                Ok(CompleteAnswers {
                    preset,
                    public_url,
                    client_id,
                    secret,
                    path: self.path.as_deref().unwrap_or(DEFAULT_PATH),
                    target,
                    scopes: scopes.chain(default).collect(),
                    more: self,
                })
            }
            _ => Err(format!("nothing was written; missing: {}", missing.join(", "))),
        }
    }
}

/// Returns the key that must say who can sign in, for a provider that is open to the world.
pub(super) fn restriction(preset: &Preset) -> Option<&'static str> {
    preset.restricted_by.filter(|_| preset.public_sign_up).map(|(key, _)| key)
}

/// Takes an issuer apart into the keys of the preset: `https://sso.example.com/realms/acme` into `url` and
/// `realm`.
pub(super) fn keys_of_issuer(
    preset: &Preset,
    issuer: &str,
) -> Result<Vec<(&'static str, String)>, String> {
    let bare = issuer.trim_end_matches('/');
    let keys = match (preset.name, bare.split_once("/oauth2/")) {
        (_, _) if preset.issuer == "{issuer}" => Some(vec![("issuer", issuer.to_owned())]),
        ("okta", Some((organisation, server))) => matched(preset, organisation).map(|mut keys| {
            keys.push(("authorization_server", server.to_owned()));
            keys
        }),
        ("github", _) if bare != preset.issuer => Some(vec![("url", bare.to_owned())]),
        _ => matched(preset, bare),
    };
    keys.ok_or_else(|| {
        let examples = preset.keys.iter().fold(preset.issuer.to_owned(), |issuer, key| {
            issuer.replace(&format!("{{{}}}", key.name), key.example)
        });
        format!("{issuer:?} is not an issuer of {}; it looks like {examples}", preset.name)
    })
}

/// Matches a text with the template of the issuer. The first placeholder is as long as possible.
fn matched(preset: &Preset, text: &str) -> Option<Vec<(&'static str, String)>> {
    let mut values = Vec::new();
    let (mut template, mut rest) = (preset.issuer.trim_end_matches('/'), text);
    while let Some((literal, after)) = template.split_once('{') {
        rest = rest.strip_prefix(literal)?;
        let (name, after) = after.split_once('}')?;
        let key = preset.keys.iter().find(|key| key.name == name)?;
        let next = after.split('{').next().unwrap_or_default();
        let end = if next.is_empty() { rest.len() } else { rest.rfind(next)? };
        let (value, others) = rest.split_at(end);
        if value.is_empty() {
            return None;
        }
        values.push((key.name, value.to_owned()));
        (template, rest) = (after, others);
    }
    (template == rest).then_some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preset(name: &str) -> &'static Preset {
        presets().iter().find(|preset| preset.name == name).unwrap()
    }

    #[test]
    fn an_issuer_is_taken_apart_into_the_keys_of_its_provider() {
        for (provider, issuer, wanted) in [
            ("okta", "https://acme.okta.com", &[("domain", "acme.okta.com")][..]),
            (
                "okta",
                "https://acme.okta.com/oauth2/default",
                &[("domain", "acme.okta.com"), ("authorization_server", "default")],
            ),
            ("auth0", "https://acme.eu.auth0.com/", &[("domain", "acme.eu.auth0.com")]),
            (
                "keycloak",
                "http://127.0.0.1:8080/realms/acme",
                &[("url", "http://127.0.0.1:8080"), ("realm", "acme")],
            ),
            (
                "keycloak",
                "https://sso.example.com/realms/realms/acme",
                &[("url", "https://sso.example.com/realms"), ("realm", "acme")],
            ),
            (
                "cognito",
                "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbC",
                &[("region", "eu-central-1"), ("user_pool_id", "eu-central-1_AbC")],
            ),
            ("oidc", "https://id.example.com/", &[("issuer", "https://id.example.com/")]),
            ("google", "https://accounts.google.com", &[]),
            ("github", "https://git.example.com", &[("url", "https://git.example.com")]),
        ] {
            let keys = keys_of_issuer(preset(provider), issuer).unwrap();
            let keys: Vec<(&str, &str)> =
                keys.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_eq!(keys, wanted, "{issuer}");
        }
        for (provider, issuer) in [
            ("keycloak", "https://sso.example.com"),
            ("okta", "acme.okta.com"),
            ("google", "https://accounts.example.com"),
        ] {
            let refused = keys_of_issuer(preset(provider), issuer).unwrap_err();
            assert!(refused.contains("it looks like https://"), "{refused}");
        }
    }
}
