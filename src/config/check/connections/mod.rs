//! Reads `[[connection]]`: further services that people can connect.

mod endpoints;
mod of_resource;
mod scopes;

use std::collections::{BTreeMap, HashSet};

use strum::VariantArray;
use toml::Value;

use super::super::connections::{
    CONNECTION_PRESETS, ConnectionConfig, ConnectionPreset, ServiceEndpoints, find_preset,
};
use super::super::keys::nearest;
use super::super::presets::{Offline, PRESETS};
use super::super::reader::ConfigReader;
use super::super::{ClientAuth, ResourceConfig, SecretText, UpstreamConfig};
use super::upstream::OUR_PARAMS;

pub(super) use of_resource::{TokenDelivery, of_resource};

/// Most connections: 32. The page of a person lists all of them.
const MOST: usize = 32;
/// Longest name, in characters.
const LONGEST_NAME: usize = 40;
/// Longest title, in characters: it has to fit into a button.
const LONGEST_TITLE: usize = 40;
/// Value of `provider` that means `[upstream]`, and its name in token exchange. No connection has this name.
const SIGN_IN: &str = "sign-in";

/// Parameters of authorization requests that this part sets, in addition to those of every sign-in.
const OUR_PARAMS_HERE: &[&str] = &["user_scope", "code_verifier", "client_secret", "grant_type"];

/// Reads all connections. What those of the sign-in provider take from `[upstream]` is missing until
/// [`complete`].
pub(super) fn all(r: &mut ConfigReader, env: &BTreeMap<String, String>) -> Vec<ConnectionConfig> {
    let count = r.count("connection");
    if count > MOST {
        let hint = format!("keep {MOST} at most");
        r.problem("connection", Some(count.to_string()), "are too many services", hint);
    }
    let mut seen = HashSet::new();
    let mut connections = Vec::new();
    for index in 0..count.min(MOST) {
        let key = format!("connection[{index}]");
        let read = one(r, env, &key);
        if let Some(name) = r.text(&format!("{key}.name"))
            && !seen.insert(name.clone())
        {
            let shown = Some(format!("{name:?}"));
            let hint = "give each its own; one service may be configured twice under two names";
            r.problem(&format!("{key}.name"), shown, "is the name of two connections", hint);
        }
        connections.extend(read);
    }
    connections
}

fn one(
    r: &mut ConfigReader,
    env: &BTreeMap<String, String>,
    key: &str,
) -> Option<ConnectionConfig> {
    let at = |name: &str| format!("{key}.{name}");
    let name = name(r, &at("name"));
    let kind = kind(r, &at("provider"));
    let title = title(r, &at("title"));
    let written_auth = client_auth(r, &at("client_auth"));
    let Some(kind) = kind else {
        // What else is right or wrong depends on the provider.
        for name in ALL_OTHERS {
            r.has(&at(name));
        }
        return None;
    };
    let client_id = client_id(r, &at("client_id"), &kind);
    let client_secret = client_secret(r, env, &at("client_secret"), &kind);
    if kind.is_sign_in() {
        refuse_with_sign_in(r, &at("client_auth"), false);
    }
    let endpoints = endpoints::read(r, key, &kind, client_id.as_deref());
    let scopes = scopes::read(r, &at("scopes"), &kind);
    let authorize_params = authorize_params(r, &at("authorize_params"), kind.preset());
    let scope_texts = scopes::texts(r, &at("scope_texts"), &scopes);
    let (name, endpoints) = (name?, endpoints?);
    if client_secret.is_none() && !kind.is_sign_in() {
        return None;
    }
    Some(ConnectionConfig {
        title: title.unwrap_or_else(|| match kind.preset().title {
            "" => name.clone(),
            title => title.to_owned(),
        }),
        name,
        preset: kind.preset(),
        client_id: client_id?,
        client_secret,
        client_auth: match (written_auth.unwrap_or(kind.preset().client_auth), &endpoints) {
            // Every server must support it (RFC 6749 §2.3.1).
            (ClientAuth::Auto, ServiceEndpoints::Stated { .. }) => ClientAuth::Basic,
            (method, _) => method,
        },
        scopes,
        offline: kind.offline(),
        authorize_params,
        endpoints,
        revokes: true,
        scope_texts,
    })
}

/// The keys that are read only if the provider is known.
const ALL_OTHERS: &[&str] = &[
    "client_id",
    "client_secret",
    "tenant",
    "issuer",
    "authorize_url",
    "token_url",
    "revoke_url",
    "userinfo_url",
    "scopes",
    "authorize_params",
    "scope_texts",
];

/// What `provider = "…"` means.
enum ServiceKind {
    Service(&'static ConnectionPreset),
    /// The application of `[upstream]`.
    SignIn {
        preset: &'static ConnectionPreset,
        offline: Offline,
    },
}

impl ServiceKind {
    const fn preset(&self) -> &'static ConnectionPreset {
        match self {
            Self::Service(preset) | Self::SignIn { preset, .. } => preset,
        }
    }

    const fn is_sign_in(&self) -> bool {
        matches!(self, Self::SignIn { .. })
    }

    const fn offline(&self) -> Offline {
        match self {
            Self::Service(preset) => preset.offline,
            Self::SignIn { offline, .. } => *offline,
        }
    }
}

fn name(r: &mut ConfigReader, key: &str) -> Option<String> {
    let name = r.required_text(key, "write a short name, such as \"github\"")?;
    let shown = Some(format!("{name:?}"));
    let fits = name.len() <= LONGEST_NAME
        && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    if !fits {
        let hint = format!("use a-z, 0-9 and -, {LONGEST_NAME} at most: it is a part of URLs");
        r.problem(key, shown, "is not a name of a connection", hint);
        return None;
    }
    if name == SIGN_IN {
        let reason = "means the sign-in provider's own token, in token exchange";
        r.problem(key, shown, reason, "choose another name");
        return None;
    }
    Some(name)
}

fn kind(r: &mut ConfigReader, key: &str) -> Option<ServiceKind> {
    let names = || CONNECTION_PRESETS.iter().map(|preset| preset.name).chain([SIGN_IN]);
    let list = names().collect::<Vec<_>>().join(", ");
    let text = r.required_text(key, &format!("write one of {list}"))?;
    if text == SIGN_IN {
        let provider = r.text("upstream.provider").unwrap_or_default();
        let upstream = PRESETS.iter().find(|preset| preset.name == provider)?; // else reported below [upstream]
        let offline = if r.has("upstream.scopes") { Offline::NoScope } else { upstream.offline };
        let preset = find_preset(&provider).or_else(|| find_preset("oidc"))?;
        return Some(ServiceKind::SignIn { preset, offline });
    }
    if let Some(preset) = find_preset(&text) {
        return Some(ServiceKind::Service(preset));
    }
    let other = if PRESETS.iter().any(|preset| preset.name == text) {
        Some("\"oidc\" with its issuer".to_owned())
    } else {
        nearest(&text, names()).map(|name| format!("{name:?}"))
    };
    let hint = match other {
        Some(other) => format!("did you mean {other}? It can be {list}"),
        None => format!("it can be {list}; \"oauth2\" is for every other service"),
    };
    r.problem(key, Some(format!("{text:?}")), "is not one of the known values", hint);
    None
}

fn title(r: &mut ConfigReader, key: &str) -> Option<String> {
    let title = r.text(key)?;
    let fits = !title.trim().is_empty()
        && title.chars().count() <= LONGEST_TITLE
        && !title.chars().any(char::is_control);
    if !fits {
        let hint = format!("write 1 to {LONGEST_TITLE} characters: people read it on buttons");
        r.problem(key, Some(format!("{title:?}")), "is not a title", hint);
    }
    fits.then_some(title)
}

/// Reports a key that a connection of the sign-in provider takes from `[upstream]`.
fn refuse_with_sign_in(r: &mut ConfigReader, key: &str, secret: bool) {
    if r.has(key) {
        let shown = secret.then(|| "********".to_owned());
        let reason = "is that of [upstream] with provider = \"sign-in\"";
        let hint = "take it out; another client is another provider, such as \"oidc\"";
        r.problem(key, shown, reason, hint);
    }
}

fn client_id(r: &mut ConfigReader, key: &str, kind: &ServiceKind) -> Option<String> {
    if kind.is_sign_in() {
        refuse_with_sign_in(r, key, false);
        return r.text("upstream.client_id");
    }
    let hint =
        format!("copy it from the client you made at the service: {}", kind.preset().console);
    let id = r.required_text(key, &hint)?;
    if id.chars().any(|c| c.is_control() || c.is_whitespace()) {
        let reason = "contains spaces or control characters";
        r.problem(key, Some(format!("{id:?}")), reason, "copy it again, without what is around it");
    }
    Some(id)
}

fn client_secret(
    r: &mut ConfigReader,
    env: &BTreeMap<String, String>,
    key: &str,
    kind: &ServiceKind,
) -> Option<SecretText> {
    if kind.is_sign_in() {
        refuse_with_sign_in(r, key, true);
        return None;
    }
    if !r.has(key) {
        let hint =
            "copy it from the client you made at the service: client_secret = { env = \"NAME\" }";
        r.problem(key, None, "is missing", hint);
        return None;
    }
    r.secret(key, env)
}

fn client_auth(r: &mut ConfigReader, key: &str) -> Option<ClientAuth> {
    let text = r.text(key)?;
    let words = || ClientAuth::VARIANTS.iter().map(<&str>::from);
    let method = text.parse().ok();
    if method.is_none() {
        let list = words().collect::<Vec<_>>().join(", ");
        let hint = match nearest(&text, words()) {
            Some(near) => format!("did you mean {near:?}? It can be {list}"),
            None => format!("it can be {list}"),
        };
        r.problem(key, Some(format!("{text:?}")), "is not one of the known values", hint);
    }
    method
}

fn authorize_params(
    r: &mut ConfigReader,
    key: &str,
    preset: &ConnectionPreset,
) -> Vec<(String, String)> {
    let mut params = Vec::new();
    match r.value(key) {
        None => {}
        Some(Value::Table(table)) => {
            r.show(key, table.clone(), true);
            for (name, value) in &table {
                let at = format!("{key}.{name}");
                let is_ours = |ours: &[&str]| ours.contains(&name.as_str());
                if is_ours(OUR_PARAMS) || is_ours(OUR_PARAMS_HERE) {
                    r.problem(&at, None, "is set by Portcullis itself", "take it out");
                } else if let Some(text) = value.as_str() {
                    params.push((name.clone(), text.to_owned()));
                } else {
                    r.wrong_type(&at, value, "a text", "put it in quotes");
                }
            }
        }
        Some(other) => {
            r.wrong_type(key, &other, "a table of texts", "write { name = \"value\" }");
        }
    }
    for (name, value) in preset.authorize_params {
        if !params.iter().any(|(known, _)| known == name) {
            params.push(((*name).to_owned(), (*value).to_owned()));
        }
    }
    params
}

/// Fills in what connections of the sign-in provider take from `[upstream]`, and warns about connections that
/// no MCP server uses.
pub(super) fn complete(
    r: &mut ConfigReader,
    mut connections: Vec<ConnectionConfig>,
    upstream: Option<&UpstreamConfig>,
    resources: &[ResourceConfig],
) -> Vec<ConnectionConfig> {
    for index in 0..r.count("connection") {
        let key = format!("connection[{index}]");
        let name = r.text(&format!("{key}.name")).unwrap_or_default();
        let mut uses = resources.iter().flat_map(|resource| &resource.connections);
        if r.problems.is_empty() && !uses.any(|used| used.name == name) {
            let hint = "add [[resource.connection]], or take it out";
            r.warn(&key, &format!("no MCP server uses the connection {name:?}: {hint}"));
        }
        let sign_in = connections.iter_mut().find(|one| one.name == name && one.is_sign_in());
        if let (Some(connection), Some(upstream)) = (sign_in, upstream) {
            connection.client_auth = upstream.client_auth;
            let own = upstream.authorize_params.iter();
            let own = own.filter(|(param, _)| {
                !connection.authorize_params.iter().any(|(known, _)| known == param)
            });
            let own: Vec<_> = own.cloned().collect();
            connection.authorize_params.extend(own);
            if !r.has(&format!("{key}.title")) {
                connection.title.clone_from(&upstream.name);
            }
        }
    }
    let alone: Vec<bool> =
        (0..connections.len()).map(|index| is_alone(&connections, index, upstream)).collect();
    for (connection, alone) in connections.iter_mut().zip(alone) {
        connection.revokes = alone || !connection.preset.one_grant;
        let params = connection.preset.alone_params.iter().filter(|_| alone);
        for (name, value) in params {
            if !connection.authorize_params.iter().any(|(known, _)| known == name) {
                connection.authorize_params.push(((*name).to_owned(), (*value).to_owned()));
            }
        }
    }
    connections
}

/// Returns whether no other connection and not the sign-in has the same client at the service.
fn is_alone(
    connections: &[ConnectionConfig],
    index: usize,
    upstream: Option<&UpstreamConfig>,
) -> bool {
    let one = &connections[index];
    let is_same =
        |preset: &str, client_id: &str| preset == one.preset.name && client_id == one.client_id;
    let others = connections.iter().enumerate().filter(|(other, _)| *other != index);
    let mut shared = others.map(|(_, other)| is_same(other.preset.name, &other.client_id));
    let signs_in =
        upstream.is_some_and(|upstream| is_same(upstream.preset.name, &upstream.client_id));
    !(signs_in || shared.any(|shared| shared))
}
