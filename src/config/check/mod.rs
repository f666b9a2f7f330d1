//! Reads and checks all keys, in the order of `portcullis.example.toml`.

mod admin;
mod branding;
mod client;
mod connections;
mod database;
mod enforcement;
mod forward_headers;
mod inside;
mod notify;
mod origins;
mod proxies;
mod rates;
mod redirects;
mod resource;
mod scope_texts;
mod scopes;
mod targets;
mod telemetry;
mod tls;
mod upstream;

pub use resource::read_rule;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use strum::VariantArray;
use toml::Value;
use url::Url;

use super::public_url::PublicUrl;
use super::reader::{ConfigReader, Problems};
use super::service_links::is_service_link;
use super::values::SecretText;
use super::{ClientApproval, Config, Limits, ListenerAddress, Loaded, TokenLifetimes};

/// Environment variables with our prefix that are not configuration keys.
const NOT_KEYS: &[&str] =
    &["PORTCULLIS_CONFIG", "PORTCULLIS_DEMO_LISTEN", "PORTCULLIS_LOG", "PORTCULLIS_LOG_FORMAT"];
/// Keys that may be set with a `…_FILE` variable.
pub(super) const SECRETS: &[&str] = &[
    "secret_key",
    "database_url",
    "upstream.client_secret",
    "resource[0].introspection_secret",
    "admin.metrics_token",
    "tls.acme.eab_hmac_key",
];
/// Where the public listener is by default.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8000);
/// Minimum length of secrets, in bytes. Shorter ones could be guessed.
const SHORTEST_KEY: usize = 32;

pub(super) fn load(
    file: Option<(&Path, String)>,
    env: &BTreeMap<String, String>,
) -> Result<Loaded, Problems> {
    load_and_look(file, env, |_| ())
}

/// Does the same, and lets `look` see the reader after all keys were read.
pub(super) fn load_and_look(
    file: Option<(&Path, String)>,
    env: &BTreeMap<String, String>,
    look: impl FnOnce(&ConfigReader),
) -> Result<Loaded, Problems> {
    let file = file.map(|(path, text)| (path.display().to_string(), text));
    let mut r = ConfigReader::new(file.as_ref().map(|(path, text)| (path.clone(), text.as_str())));
    if !r.problems.is_empty() {
        return Err(Problems(r.problems)); // not TOML, so no key can be checked
    }
    overlay_environment(&mut r, env);
    let config = read(&mut r, env);
    r.report_unknown_keys();
    look(&r);
    match config {
        Some(config) if r.problems.is_empty() => {
            Ok(Loaded { config, files: r.files, warnings: r.warnings, shown: r.shown })
        }
        _ => Err(Problems(r.problems)),
    }
}

/// Reads all keys. Returns `None` if one is missing without which there is no configuration.
fn read(r: &mut ConfigReader, env: &BTreeMap<String, String>) -> Option<Config> {
    let public_url = public_url(r);
    let listen = address(r, "listen", LISTEN);
    let database_url = database::database_url(r, env);
    let secret_key = secret_key(r, env, &database_url);
    let allowed_redirect_uris = r.texts("allowed_redirect_uris");
    let redirect_schemes = redirects::schemes(r);
    let allowed_origins = origins::read(r);
    let trusted_proxies = rates::trusted_proxies(r);
    let proxies = proxies::read(r, env);
    let services = connections::all(r, env);
    let resources = resource::all(r, env, public_url.as_ref(), &services);
    let upstream = upstream::read(r, env, &resources, &proxies);
    let connections = connections::complete(r, services, upstream.as_ref(), &resources);
    let tls = tls::read(r, env, public_url.as_ref());
    let has_tls = r.has("tls");
    let listen_http = tls::listen_http(r, has_tls);
    let admin = admin::read(r, env, public_url.as_ref(), has_tls);
    tls::warn(r, tls.as_ref(), public_url.as_ref(), admin.as_ref());
    let client_approval = client_approval(r, admin.is_some());
    let branding = branding::read(r);
    let notify = notify::all(r, env);
    let telemetry = Box::new(telemetry::read(r, env));
    let audit_retention = r.duration("audit.retention", "400d", "1d", "3660d");
    let usage_retention = r.duration("usage.retention", "90d", "1d", "3660d");
    let log = log(r);
    let tokens = tokens(r);
    let limits = limits(r, public_url.as_ref(), listen, tokens.access);
    Some(Config {
        http2: r.flag("http2", true),
        consent_choice: r.flag("consent_choice", true),
        landing: r.flag("landing", true),
        clients: client::all(r, env, &redirect_schemes, limits.redirect_uris),
        client_documents: client::documents(r, public_url.as_ref(), &proxies),
        accept_token_endpoint_audience: client::accept_token_endpoint_audience(r),
        // All keys are read, and their problems are known.
        public_url: public_url?,
        upstream: upstream?,
        listen,
        listen_http,
        tls,
        database_url,
        secret_key,
        allowed_redirect_uris,
        redirect_schemes,
        allowed_origins,
        trusted_proxies,
        resources,
        connections,
        admin,
        client_approval,
        branding,
        audit_retention,
        usage_retention,
        notify,
        telemetry,
        log,
        tokens,
        limits,
        written: r.written(),
        source: r.source.clone(),
    })
}

/// Reads only where the public listener is.
pub(super) fn listener(
    file: Option<(&Path, String)>,
    env: &BTreeMap<String, String>,
) -> Result<ListenerAddress, Problems> {
    let file = file.map(|(path, text)| (path.display().to_string(), text));
    let mut r = ConfigReader::new(file.as_ref().map(|(path, text)| (path.clone(), text.as_str())));
    if !r.problems.is_empty() {
        return Err(Problems(r.problems));
    }
    overlay_environment(&mut r, env);
    let listen = address(&mut r, "listen", LISTEN);
    let public_url = if r.has("tls") { public_url(&mut r) } else { None };
    let tls_host = public_url.and_then(|url| {
        let url = Url::parse(url.as_str()).ok()?;
        url.host().map(|host| host.to_owned())
    });
    if r.problems.is_empty() {
        Ok(ListenerAddress { listen, tls_host })
    } else {
        Err(Problems(r.problems))
    }
}

fn log(r: &mut ConfigReader) -> tracing::Level {
    let Some(text) = r.text("log") else { return tracing::Level::INFO };
    text.parse().unwrap_or_else(|_| {
        let hint = "write error, warn, info, debug or trace";
        r.problem("log", Some(text), "is no level of the log", hint);
        tracing::Level::INFO
    })
}

/// Returns whether the environment sets any key.
pub(super) fn is_in_environment(env: &BTreeMap<String, String>) -> bool {
    keys_in(env).next().is_some()
}

/// Returns the variables that set keys, each with the part after `PORTCULLIS_` and its value.
fn keys_in(env: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str, &str)> {
    env.iter().filter_map(move |(variable, text)| {
        let name = variable.strip_prefix("PORTCULLIS_").filter(|name| !name.is_empty())?;
        let not_ours = NOT_KEYS.contains(&variable.as_str()) || is_service_link(name, text, env);
        (!not_ours).then_some((variable.as_str(), name, text.as_str()))
    })
}

/// Applies the environment. `PORTCULLIS_UPSTREAM__CLIENT_SECRET_FILE` sets `upstream.client_secret = { file =
/// … }`.
fn overlay_environment(r: &mut ConfigReader, env: &BTreeMap<String, String>) {
    for (variable, name, text) in keys_in(env) {
        let key = name.to_ascii_lowercase().replace("__", ".");
        let key = match key.strip_prefix("resource.") {
            Some(rest) => format!("resource[0].{rest}"),
            None => key,
        };
        let secret = key.strip_suffix("_file").filter(|key| SECRETS.contains(key));
        if let Some(key) = secret {
            let file =
                toml::Table::from_iter([("file".to_owned(), Value::String(text.to_owned()))]);
            r.overlay(key, variable, Value::Table(file));
        } else {
            r.overlay(&key, variable, Value::String(text.to_owned()));
        }
    }
}

fn public_url(r: &mut ConfigReader) -> Option<PublicUrl> {
    let text = r.required_text(
        "public_url",
        "write the address people and clients reach this server at, such as \"https://mcp.example.com\"",
    )?;
    PublicUrl::parse(&text)
        .map_err(|(reason, hint)| {
            r.problem("public_url", Some(format!("{text:?}")), reason, hint);
        })
        .ok()
}

fn address(r: &mut ConfigReader, key: &str, default: SocketAddr) -> SocketAddr {
    let Some(text) = r.text(key) else {
        if !r.has(key) {
            r.show(key, default.to_string(), false);
        }
        return default;
    };
    text.parse().unwrap_or_else(|_| {
        let hint = format!("write an address and a port, such as \"{default}\"");
        r.problem(key, Some(format!("{text:?}")), "is not an address with a port", hint);
        default
    })
}

fn secret_key(
    r: &mut ConfigReader,
    env: &BTreeMap<String, String>,
    database_url: &SecretText,
) -> Option<SecretText> {
    const KEY: &str = "secret_key";
    let hint = "make one with: openssl rand -base64 32";
    if !r.has(KEY) {
        if database_url.expose().starts_with("postgres") {
            let reason = "is missing; with PostgreSQL all replicas must share one";
            r.problem(KEY, None, reason, hint);
        }
        return None;
    }
    let key = r.secret(KEY, env)?;
    if key.expose().len() < SHORTEST_KEY {
        let reason = format!("is shorter than {SHORTEST_KEY} characters");
        r.problem(KEY, Some("********".to_owned()), reason, hint);
    }
    Some(key)
}

/// Reads whether an administrator must approve clients.
fn client_approval(r: &mut ConfigReader, has_admin_pages: bool) -> ClientApproval {
    const KEY: &str = "client_approval";
    let Some(text) = r.text(KEY) else {
        r.show(KEY, <&str>::from(ClientApproval::None), false);
        return ClientApproval::None;
    };
    let approval = text.parse().unwrap_or_else(|_| {
        let shown = Some(format!("{text:?}"));
        r.problem(KEY, shown, "is not known", "write \"none\" or \"first_use\"");
        ClientApproval::None
    });
    if approval == ClientApproval::FirstUse && !has_admin_pages {
        let hint = "add [admin], or approve with `portcullis clients approve`";
        let text = format!("client_approval is \"first_use\" and there are no admin pages: {hint}");
        r.warn(KEY, &text);
    }
    approval
}

fn tokens(r: &mut ConfigReader) -> TokenLifetimes {
    let tokens = TokenLifetimes {
        access: r.duration("tokens.access", "10m", "1m", "60m"),
        code: r.duration("tokens.code", "60s", "10s", "10m"),
        refresh_idle: r.duration("tokens.refresh_idle", "14d", "1h", "90d"),
        refresh_absolute: r.duration("tokens.refresh_absolute", "90d", "1h", "366d"),
        refresh_grace: r.duration("tokens.refresh_grace", "120s", "0s", "300s"),
        login: r.duration("tokens.login", "15m", "1m", "60m"),
    };
    if tokens.access < rates::REFRESHED_AT_EACH_REQUEST {
        r.warn(
            "tokens.access",
            "tokens.access is shorter than six minutes: clients that refresh when five minutes are left (Claude Code) refresh before every request; write \"6m\" or more",
        );
    }
    if tokens.refresh_idle > tokens.refresh_absolute {
        let reason = "is longer than tokens.refresh_absolute";
        r.problem("tokens.refresh_idle", None, reason, "make it shorter, or the other one longer");
    }
    tokens
}

/// Reads `[limits]`. Access tokens with a short lifetime need more refreshes.
fn limits(
    r: &mut ConfigReader,
    public_url: Option<&PublicUrl>,
    listen: SocketAddr,
    access_lifetime: Duration,
) -> Limits {
    let mut limits = Limits::read(r);
    let on_loopback = listen.ip().is_loopback() && public_url.is_none_or(PublicUrl::is_loopback);
    if !limits.request_rates && !on_loopback {
        r.problem(
            "limits.request_rates",
            Some("false".to_owned()),
            "turns protection off on a server that others can reach",
            "take it out; it is for load tests on loopback",
        );
    }
    let rates = &limits.rates;
    let (requests, streams) = (rates.requests_per_person, rates.streams_per_person);
    rates::check_share(r, "requests", rates.requests_per_client, requests);
    rates::check_share(r, "streams", rates.streams_per_client, streams);
    limits.rates.refreshes_per_minute =
        rates::refreshes_that_become_necessary(limits.rates.refreshes_per_minute, access_lifetime);
    limits
}

/// Reads a value that must be one of the words of an enum.
fn one_of<T>(r: &mut ConfigReader, key: &str, default: T) -> T
where
    T: VariantArray + Copy + Into<&'static str>,
{
    let words: Vec<(&str, T)> =
        T::VARIANTS.iter().map(|variant| ((*variant).into(), *variant)).collect();
    one_of_words(r, key, &words, (default.into(), default))
}

/// Reads a value that must be one of a few words.
fn one_of_words<T: Copy>(
    r: &mut ConfigReader,
    key: &str,
    words: &[(&str, T)],
    default: (&str, T),
) -> T {
    let Some(text) = r.text(key) else {
        if !r.has(key) {
            r.show(key, default.0, false);
        }
        return default.1;
    };
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
        return *value;
    }
    let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let hint = match super::keys::nearest(&text, list.iter().copied()) {
        Some(nearest) => format!("did you mean {nearest:?}? It can be {}", list.join(", ")),
        None => format!("it can be {}", list.join(", ")),
    };
    r.problem(key, Some(format!("{text:?}")), "is not one of the known values", hint);
    default.1
}
