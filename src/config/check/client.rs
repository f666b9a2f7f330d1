//! Reads `[[client]]`, `[client_documents]` and `[client_assertions]`: clients that the administrator
//! configures, and rules for clients that publish documents or sign assertions.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;

use serde_json::{Value as Json, json};
use toml::Value;

use super::super::reader::ConfigReader;
use super::super::{ClientConfig, ClientDocuments, LoopbackHosts, Proxies, PublicUrl, SecretText};
use super::SHORTEST_KEY;
use crate::oauth::client::{ClientMetadata, RegistrationLimits, RegistrationRefused};
use crate::oauth::redirect_uri::{RedirectPolicy, RedirectUriRefused};
use crate::oauth::web_url::{ClientIdUrl, WebUrl};

/// Longest configured `client_id`, in bytes.
const MAX_ID: usize = 255;

pub(super) fn all(
    r: &mut ConfigReader,
    env: &BTreeMap<String, String>,
    redirect_schemes: &[String],
    redirect_uris: usize,
) -> Vec<ClientConfig> {
    let policy = RedirectPolicy { private_schemes: redirect_schemes.to_vec(), allowed: None };
    let limits = RegistrationLimits { redirect_uris };
    let clients: Vec<ClientConfig> = (0..r.count("client"))
        .filter_map(|index| one(r, env, &format!("client[{index}]"), &policy, limits))
        .collect();
    let mut seen = HashSet::new();
    for client in &clients {
        if !seen.insert(&client.client_id) {
            let shown = Some(format!("{:?}", client.client_id));
            r.problem("client", shown, "is the client_id of two clients", "give each its own");
        }
    }
    clients
}

fn one(
    r: &mut ConfigReader,
    env: &BTreeMap<String, String>,
    key: &str,
    policy: &RedirectPolicy,
    limits: RegistrationLimits,
) -> Option<ClientConfig> {
    let at = |name: &str| format!("{key}.{name}");
    let client_id = r.required_text(&at("client_id"), "write the id that the client will send");
    let name = r.required_text(&at("name"), "write what people read on the consent page");
    let redirect_uris = r.texts(&at("redirect_uris"));
    let secret = secret(r, env, &at("secret"));
    let public = r.flag(&at("public"), false);
    let jwks = jwks(r, &at("jwks"));
    let jwks_uri = r.text(&at("jwks_uri"));
    let trusted = r.flag(&at("trusted"), false);

    let client_id = client_id?;
    check_id(r, &at("client_id"), &client_id, secret.is_some());
    let ways = [secret.is_some(), public, jwks.is_some(), jwks_uri.is_some()];
    check_one_way(r, key, &client_id, ways)?;
    if redirect_uris.is_none() && r.problems.is_empty() {
        let hint = "write every address it may send people back to, byte for byte";
        r.problem(&at("redirect_uris"), None, "is missing", hint);
    }
    let method = match (&secret, public) {
        (Some(_), _) => "client_secret_basic",
        (None, true) => "none",
        (None, false) => "private_key_jwt",
    };
    let listed = redirect_uris?;
    let mut metadata = json!({
        "client_name": name?,
        "redirect_uris": listed,
        "token_endpoint_auth_method": method,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
    });
    if let Some(jwks) = jwks {
        metadata["jwks"] = jwks;
    }
    if let Some(jwks_uri) = jwks_uri {
        metadata["jwks_uri"] = jwks_uri.into();
    }
    // The rules for clients that register themselves, except for the list of allowed redirect URIs: an
    // administrator who configures a redirect URI here has thereby allowed it.
    let policy = RedirectPolicy { allowed: Some(listed), ..policy.clone() };
    match ClientMetadata::parse(metadata.to_string().as_bytes(), &policy, &limits) {
        Ok(metadata) => Some(ClientConfig { client_id, metadata, secret, trusted }),
        Err(refused) => {
            let shown = Some(format!("{client_id:?}"));
            let (member, hint) = remedy(&refused);
            let key = member.map_or_else(|| key.to_owned(), at);
            r.problem(&key, shown, format!("is refused: {refused}"), hint);
            None
        }
    }
}

/// Checks that exactly one way of client authentication is configured. Where other keys have problems it says
/// nothing, because a way may be missing only because it could not be read.
fn check_one_way(r: &mut ConfigReader, key: &str, id: &str, ways: [bool; 4]) -> Option<()> {
    if ways.iter().filter(|way| **way).count() == 1 || !r.problems.is_empty() {
        return Some(());
    }
    r.problem(
        key,
        Some(format!("{id:?}")),
        "must prove itself in exactly one way",
        "give it a secret, or jwks, or jwks_uri, or public = true for a client that can keep no secret",
    );
    None
}

/// Returns the key of the mistake and what to write.
fn remedy(refused: &RegistrationRefused) -> (Option<&'static str>, String) {
    use RegistrationRefused as Registration;
    const REDIRECT_URIS: Option<&str> = Some("redirect_uris");
    const WHOLE: &str = "write the whole address, as the client sends it, such as \"https://app.example.com/callback\"";
    let text = match refused {
        Registration::NoRedirectUri => {
            return (REDIRECT_URIS, "write every address that answers may go to".to_owned());
        }
        Registration::TooManyRedirectUris { .. } => {
            return (REDIRECT_URIS, "write fewer, or raise limits.redirect_uris".to_owned());
        }
        Registration::RedirectUri(refused) => {
            let hint = match refused {
                RedirectUriRefused::PlainHttp => {
                    "write https://; plain http is for a program on the person's own machine"
                        .to_owned()
                }
                RedirectUriRefused::SchemeNotListed(scheme) => {
                    format!("add {scheme:?} to redirect_schemes")
                }
                RedirectUriRefused::UnknownCallback(uri) | RedirectUriRefused::AppQuery(uri) => {
                    format!("add {uri:?} to redirect_schemes")
                }
                _ => WHOLE.to_owned(),
            };
            return (REDIRECT_URIS, hint);
        }
        Registration::NoKeys | Registration::Keys(_) => {
            return (Some("jwks"), "write {\"keys\": [ … ]} with public keys only".to_owned());
        }
        Registration::JwksUri(_) => {
            return (Some("jwks_uri"), "write a public https URL".to_owned());
        }
        Registration::TooLong(_) => "make it shorter",
        _ => "docs/clients.md says what a client may have",
    };
    (None, text.to_owned())
}

/// Checks that the id consists of characters that no client authentication method encodes, or is the URL of a
/// metadata document. In the latter case the metadata is pinned to what the configuration says.
fn check_id(r: &mut ConfigReader, key: &str, id: &str, has_secret: bool) {
    let plain = id.len() <= MAX_ID
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~'));
    let url = ClientIdUrl::parse(id).is_ok() && !has_secret;
    if !plain && !url {
        let hint = "use letters, digits and -._~, or the URL of a client's metadata document (without a secret)";
        r.problem(key, Some(format!("{id:?}")), "is not a client_id", hint);
    }
}

fn secret(r: &mut ConfigReader, env: &BTreeMap<String, String>, key: &str) -> Option<SecretText> {
    if !r.has(key) {
        return None;
    }
    let secret = r.secret(key, env)?;
    if secret.expose().len() < SHORTEST_KEY {
        let reason = format!("is shorter than {SHORTEST_KEY} characters");
        let hint = "make one with: openssl rand -hex 32";
        r.problem(key, Some("********".to_owned()), reason, hint);
    }
    Some(secret)
}

/// Reads a JWK set, as JSON text or in a file.
fn jwks(r: &mut ConfigReader, key: &str) -> Option<Json> {
    let value = r.value(key)?;
    let text = match &value {
        Value::String(text) => text.clone(),
        Value::Table(table) if table.len() == 1 && table.contains_key("file") => {
            let path = table["file"].as_str().unwrap_or_default();
            r.secret_from_file(key, path)?.expose().to_owned()
        }
        other => {
            r.wrong_type(
                key,
                other,
                "a key set",
                "write { file = \"keys.json\" } or JSON in quotes",
            );
            return None;
        }
    };
    r.show(key, "(public keys)", true);
    let json = serde_json::from_str(&text).ok();
    if json.is_none() {
        let hint = "write a JSON Web Key Set: {\"keys\": [ … ]}, public keys only";
        r.problem(key, None, "is not JSON", hint);
    }
    json
}

pub(super) fn documents(
    r: &mut ConfigReader,
    public_url: Option<&PublicUrl>,
    proxies: &Proxies,
) -> ClientDocuments {
    const HOSTS: &str = "client_documents.allowed_hosts";
    let enabled = r.flag("client_documents.enabled", true);
    let allowed_hosts = r.texts(HOSTS);
    for host in allowed_hosts.iter().flatten() {
        if WebUrl::parse(&format!("https://{host}/")).is_err() {
            let hint = "write a host name alone, such as \"claude.ai\"; its subdomains are others";
            r.problem(HOSTS, Some(format!("{host:?}")), "is not a public host name", hint);
        }
    }
    let proxies = through_proxy(r, proxies);
    let loopback = loopback_hosts(r, public_url);
    ClientDocuments { enabled, allowed_hosts, loopback, proxies, only_with_network: false }
}

/// Returns the proxies for fetching documents if the administrator enabled them. The proxy then resolves host
/// names, so we cannot check the addresses.
fn through_proxy(r: &mut ConfigReader, proxies: &Proxies) -> Option<Proxies> {
    const KEY: &str = "client_documents.through_proxy";
    let through = r.flag(KEY, false);
    if through && proxies.https.is_none() {
        let text = format!(
            "{KEY} is true and HTTPS_PROXY is not set: what clients publish is fetched directly"
        );
        r.warn(KEY, &text);
    }
    through.then(|| proxies.clone())
}

/// Reads host names that resolve to this machine, for tests only. Rejected unless `public_url` is on
/// loopback.
fn loopback_hosts(r: &mut ConfigReader, public_url: Option<&PublicUrl>) -> LoopbackHosts {
    const HOSTS: &str = "client_documents.unsafe_loopback_hosts";
    const AUTHORITY: &str = "client_documents.unsafe_loopback_authority";
    let names = r.names(HOSTS);
    let authority = r.text(AUTHORITY);
    if names.is_empty() && authority.is_none() {
        return LoopbackHosts::default();
    }
    if !public_url.is_some_and(PublicUrl::is_loopback) {
        let reason = "would let strangers make this server call itself";
        let hint = "take it out; it is for tests with a public_url on loopback";
        r.problem(HOSTS, None, reason, hint);
        return LoopbackHosts::default();
    }
    let mut hosts = BTreeMap::new();
    let table = r.value(HOSTS).unwrap_or(Value::Boolean(false));
    for name in names {
        let address =
            table[name.as_str()].as_str().and_then(|text| text.parse::<SocketAddr>().ok());
        let Some(address) = address.filter(|address| address.ip().is_loopback()) else {
            let hint = "write an address and a port of this machine, such as \"127.0.0.1:8443\"";
            r.problem(HOSTS, Some(name), "does not lead to loopback", hint);
            continue;
        };
        hosts.insert(name, address);
    }
    let authority = authority.and_then(|path| r.secret_from_file(AUTHORITY, &path));
    if authority.is_none() && r.problems.is_empty() {
        let hint = "name the PEM file of the authority that vouches for these hosts";
        r.problem(AUTHORITY, None, "is missing", hint);
    }
    let text = format!("{HOSTS}: clients published under these names are taken from this machine");
    r.warn(HOSTS, &text);
    LoopbackHosts {
        hosts,
        authority: authority.map(|pem| pem.expose().as_bytes().to_vec()).unwrap_or_default(),
    }
}

pub(super) fn accept_token_endpoint_audience(r: &mut ConfigReader) -> bool {
    const KEY: &str = "client_assertions.accept_token_endpoint_audience";
    let accepted = r.flag(KEY, false);
    if accepted {
        let text = format!(
            "{KEY} admits assertions that another server could have been given; take it out when every client names the issuer (RFC 10070)"
        );
        r.warn(KEY, &text);
    }
    accepted
}

#[cfg(test)]
mod tests;
