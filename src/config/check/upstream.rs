//! Reads `[upstream]`: the identity provider.

use std::collections::BTreeMap;

use toml::Value;
use url::Url;

use super::super::presets::{IssuerKey, KeyKind, OPEN_WORLDS, Offline, PRESETS, Preset, Protocol};
use super::super::reader::ConfigReader;
use super::super::values::is_loopback;
use super::super::{ClaimPlan, ClaimSource, ClientAuth, Proxies, ResourceConfig, UpstreamConfig};
use super::{inside, one_of, one_of_words};
use crate::clock::Timestamp;
use crate::policy::{ClaimPath, FactSet};

pub(super) fn read(
    r: &mut ConfigReader,
    env: &BTreeMap<String, String>,
    resources: &[ResourceConfig],
    proxies: &Proxies,
) -> Option<UpstreamConfig> {
    let preset = preset(r);
    let issuer = preset.and_then(|preset| issuer(r, preset));
    let (discovery_url, allow_http) = inside::read(r, preset);
    let client_id =
        r.required_text("upstream.client_id", "copy it from the client you made at the provider");
    let client_secret = client_secret(r, env);
    let client_secret_expires = client_secret_expires(r);
    let configured_scopes = r.texts("upstream.scopes");
    let extra_scopes = r.texts("upstream.extra_scopes").unwrap_or_default();
    let authorize_params = authorize_params(r, preset);
    let claims = claims(r, preset, resources);
    let client_auth = client_auth(r, preset);
    let recheck = r.duration("upstream.recheck", "15m", "1m", "24h");
    let outage_grace = r.duration("upstream.outage_grace", "1h", "0s", "24h");
    let max_without_refresh = r.duration("upstream.max_without_refresh", "8h", "1m", "30d");
    let words = [("end", true), ("ignore", false)];
    let end_on_logout = one_of_words(r, "upstream.on_upstream_logout", &words, ("end", true));
    let revoke_upstream = r.flag("upstream.revoke_upstream", true);
    let timeout = r.duration("upstream.timeout", "10s", "1s", "60s");
    let required_claim = preset.and_then(|preset| required_claim(r, preset));
    let name = r.text("upstream.name");
    let allow_anyone = r.flag("upstream.allow_anyone", false);
    check_trust_in_addresses(r, preset, &claims);

    let (preset, issuer, client_id, client_secret) = (preset?, issuer?, client_id?, client_secret?);
    if !allow_anyone {
        refuse_open_world(r, preset, &issuer, required_claim.is_some());
    }
    let offline = if configured_scopes.is_some() { Offline::NoScope } else { preset.offline };
    let mut scopes = configured_scopes.unwrap_or_else(|| usual_scopes(preset, &issuer));
    scopes.extend(extra_scopes);
    let host = Url::parse(&issuer).ok().and_then(|url| url.host_str().map(str::to_owned));
    Some(UpstreamConfig {
        preset,
        name: name.or(host).unwrap_or_else(|| preset.name.to_owned()),
        issuer,
        discovery_url,
        allow_http,
        proxies: proxies.clone(),
        client_id,
        client_secret,
        client_secret_expires,
        scopes,
        offline,
        authorize_params,
        claims,
        client_auth,
        recheck,
        outage_grace,
        max_without_refresh,
        end_on_logout,
        revoke_upstream,
        timeout,
        required_claim,
    })
}

/// Returns the scopes that are requested if `upstream.scopes` is not set.
fn usual_scopes(preset: &Preset, issuer: &str) -> Vec<String> {
    let mut scopes: Vec<String> = preset.scopes.iter().map(|&scope| scope.to_owned()).collect();
    let is_custom_server = issuer.contains("/oauth2/");
    if preset.offline != Offline::NoScope && preset.name == "okta" && !is_custom_server {
        scopes.push("groups".to_owned()); // custom authorization servers reject this scope
    }
    scopes
}

/// Reads the day on which the client secret ends. Some providers give secrets an end (Entra: two years at most).
fn client_secret_expires(r: &mut ConfigReader) -> Option<Timestamp> {
    const KEY: &str = "upstream.client_secret_expires";
    let text = r.text(KEY)?;
    let day = chrono::NaiveDate::parse_from_str(&text, "%Y-%m-%d").ok();
    let midnight = day.and_then(|day| day.and_hms_opt(0, 0, 0));
    if midnight.is_none() {
        let hint = "write the day as the provider's console shows it: \"2027-03-01\"";
        r.problem(KEY, Some(format!("{text:?}")), "is not a day", hint);
    }
    midnight.map(|midnight| Timestamp::from_unix(midnight.and_utc().timestamp()))
}

/// Requires `trust_email` for rules that read email domains. A provider that verifies addresses may still
/// give addresses of a domain to people outside the organisation that owns it.
fn check_trust_in_addresses(r: &mut ConfigReader, preset: Option<&Preset>, claims: &ClaimPlan) {
    const KEY: &str = "upstream.trust_email";
    let trusted = r.flag(KEY, false);
    if trusted && preset.is_some_and(|preset| preset.emails_unverified) {
        let reason = "cannot be: people of this provider choose their addresses themselves";
        let hint = "take it out, and write rules with groups, roles or subjects";
        r.problem(KEY, Some("true".to_owned()), reason, hint);
    } else if trusted && !claims.email.is_the_standards_email() {
        let reason = format!(
            "cannot be: the address is read from {:?}, and email_verified is about the claim email alone",
            claims.email.as_str()
        );
        let hint = "take email out of [upstream.claims], or trust_email out, and write rules with groups, roles or subjects";
        r.problem(KEY, Some("true".to_owned()), reason, hint);
    } else if !trusted && claims.read_by_rules.email {
        let reason = "is not set, and a rule names email_domains";
        let hint = "set trust_email = true if this provider gives an address of yours to nobody else, or write the rule with groups, roles or subjects";
        r.problem(KEY, None, reason, hint);
    }
}

/// Refuses a provider at which anybody can have an account. `is_restricted`: the configuration demands a
/// claim that only some people have.
fn refuse_open_world(r: &mut ConfigReader, preset: &Preset, issuer: &str, is_restricted: bool) {
    let bare = issuer.trim_end_matches('/').trim_end_matches("/v2.0");
    let open = if preset.public_sign_up { !is_restricted } else { OPEN_WORLDS.contains(&bare) };
    if !open {
        return;
    }
    let hint = match preset.restricted_by {
        Some((key, _)) => format!("set {key}; allow_anyone = true lets everybody in"),
        None => "use an issuer of your own organisation; allow_anyone = true lets everybody in"
            .to_owned(),
    };
    let shown = Some(format!("{issuer:?}"));
    r.problem("upstream.issuer", shown, "signs in anybody in the world", hint);
}

fn preset(r: &mut ConfigReader) -> Option<&'static Preset> {
    const KEY: &str = "upstream.provider";
    let names: Vec<&str> = PRESETS.iter().map(|preset| preset.name).collect();
    let text = r.required_text(KEY, &format!("it can be {}", names.join(", ")))?;
    if let Some(preset) = PRESETS.iter().find(|preset| preset.name == text) {
        return Some(preset);
    }
    let shown = Some(format!("{text:?}"));
    let hint = match super::super::keys::nearest(&text.to_lowercase(), names.iter().copied()) {
        Some(nearest) => format!("did you mean {nearest:?}? It can be {}", names.join(", ")),
        None => format!("it can be {}", names.join(", ")),
    };
    r.problem(KEY, shown, "is not a known provider", hint);
    None
}

fn issuer(r: &mut ConfigReader, preset: &Preset) -> Option<String> {
    let mut issuer = preset.issuer.to_owned();
    let mut complete = true;
    for key in preset.keys {
        match key_value(r, key) {
            Some(value) => issuer = issuer.replace(&format!("{{{}}}", key.name), &value),
            None => complete = false,
        }
    }
    if preset.protocol == Protocol::GitHub
        && let Some(url) = r.text("upstream.url")
    {
        url.trim_end_matches('/').clone_into(&mut issuer);
    }
    if preset.name == "okta"
        && let Some(server) = r.text("upstream.authorization_server").filter(|s| s != "org")
    {
        issuer = format!("{issuer}/oauth2/{server}");
    }
    if !complete {
        return None;
    }
    let fits = Url::parse(&issuer).is_ok_and(|url| {
        let safe = url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url));
        safe && url.query().is_none() && url.fragment().is_none() && url.username().is_empty()
    });
    if !fits {
        let key = preset.keys.first().map_or("provider", |key| key.name);
        r.problem(
            &format!("upstream.{key}"),
            Some(format!("{issuer:?}")),
            "does not make a usable issuer",
            "use https:// (http:// is for loopback only), without query and fragment; for a provider inside a cluster write its public address here, and the inner one into discovery_url",
        );
        return None;
    }
    Some(issuer)
}

/// Reads the value of a key that is part of an issuer.
fn key_value(r: &mut ConfigReader, key: &IssuerKey) -> Option<String> {
    let at = format!("upstream.{}", key.name);
    let value = r.required_text(&at, &format!("such as {:?}", key.example))?;
    let all = |legal: fn(u8) -> bool| !value.is_empty() && value.bytes().all(legal);
    let fits = match key.kind {
        KeyKind::Host => all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':')),
        KeyKind::Word => all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_')),
        KeyKind::Guid => {
            value.len() == 36
                && value.bytes().enumerate().all(|(at, b)| match at {
                    8 | 13 | 18 | 23 => b == b'-',
                    _ => b.is_ascii_digit() || (b'a'..=b'f').contains(&b),
                })
        }
        KeyKind::Url | KeyKind::Issuer => true, // the complete issuer is checked below
    };
    if !fits {
        let what = match key.kind {
            KeyKind::Host => "is not a host name",
            KeyKind::Guid => "is not a GUID in lower case",
            _ => "holds characters that do not belong there",
        };
        r.problem(&at, Some(format!("{value:?}")), what, format!("such as {:?}", key.example));
        return None;
    }
    Some(match key.kind {
        KeyKind::Url => value.trim_end_matches('/').to_owned(),
        _ => value,
    })
}

/// Reads the restriction of who can sign in, for providers at which anybody could have an account.
fn required_claim(r: &mut ConfigReader, preset: &Preset) -> Option<(String, Vec<String>)> {
    let (key, claim) = preset.restricted_by?;
    let at = format!("upstream.{key}");
    let is_list = key.ends_with('s');
    let values = if is_list { r.texts(&at)? } else { vec![r.text(&at)?] };
    if values.is_empty() {
        r.problem(&at, None, "lists nobody", "name at least one, or leave the key out");
    }
    Some((claim.to_owned(), values))
}

fn client_auth(r: &mut ConfigReader, preset: Option<&Preset>) -> ClientAuth {
    let default = preset.map_or(ClientAuth::Auto, |preset| preset.client_auth);
    one_of(r, "upstream.client_auth", default)
}

fn client_secret(
    r: &mut ConfigReader,
    env: &BTreeMap<String, String>,
) -> Option<super::super::SecretText> {
    const KEY: &str = "upstream.client_secret";
    if !r.has(KEY) {
        let hint =
            "copy it from the client you made at the provider: client_secret = { env = \"NAME\" }";
        r.problem(KEY, None, "is missing", hint);
        return None;
    }
    r.secret(KEY, env)
}

/// Parameters that Portcullis sets itself, or that would change the meaning of the request.
pub(super) const OUR_PARAMS: &[&str] = &[
    "client_id",
    "redirect_uri",
    "response_type",
    "response_mode",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "resource",
    "request",
    "request_uri",
];

fn authorize_params(r: &mut ConfigReader, preset: Option<&Preset>) -> Vec<(String, String)> {
    const KEY: &str = "upstream.authorize_params";
    let mut params = Vec::new();
    if let Some(Value::Table(table)) = r.value(KEY) {
        r.show(KEY, table.clone(), true);
        for (name, value) in &table {
            let at = format!("{KEY}.{name}");
            if OUR_PARAMS.contains(&name.as_str()) {
                r.problem(&at, None, "is set by Portcullis itself", "take it out");
            } else if let Some(text) = value.as_str() {
                params.push((name.clone(), text.to_owned()));
            } else {
                r.wrong_type(&at, value, "a text", "put it in quotes");
            }
        }
    }
    if let Some(preset) = preset {
        for (name, value) in preset.authorize_params {
            if !params.iter().any(|(known, _)| known == name) {
                params.push(((*name).to_owned(), (*value).to_owned()));
            }
        }
        for name in preset.param_keys {
            let value = r.text(&format!("upstream.{name}"));
            params.extend(value.map(|value| ((*name).to_owned(), value)));
        }
    }
    params
}

fn claims(
    r: &mut ConfigReader,
    preset: Option<&Preset>,
    resources: &[ResourceConfig],
) -> ClaimPlan {
    let defaults = preset.unwrap_or(&PRESETS[PRESETS.len() - 1]);
    let mut path = |name: &str, shorthand: Option<&str>, default: &str| {
        let short = shorthand.and_then(|key| r.text(key));
        let long = r.text(&format!("upstream.claims.{name}"));
        ClaimPath::new(long.or(short).unwrap_or_else(|| default.to_owned()))
    };
    let name = path("name", None, defaults.claims.name);
    let email = path("email", None, defaults.claims.email);
    let groups = path("groups", Some("upstream.groups_claim"), defaults.claims.groups);
    let permissions = path("permissions", None, defaults.claims.permissions);
    let mut roles = path("roles", Some("upstream.roles_claim"), defaults.claims.roles);
    if defaults.name == "keycloak"
        && let Some(client) = r.text("upstream.role_client")
    {
        roles = ClaimPath::new(format!("/resource_access/{client}/roles"));
    }
    let shape = one_of(r, "upstream.claims.shape", defaults.claims.shape);
    ClaimPlan {
        name,
        email,
        groups,
        roles,
        permissions,
        read_by_rules: resources
            .iter()
            .flat_map(|resource| &resource.policy.rules)
            .map(|rule| {
                let passed_on = FactSet { permissions: rule.passthrough, ..FactSet::default() };
                rule.conditions.reads().union(passed_on)
            })
            .fold(FactSet::default(), FactSet::union),
        shape,
        sources: sources(r, defaults),
        extra: named_by_rules(resources),
    }
}

fn sources(r: &mut ConfigReader, preset: &Preset) -> Vec<ClaimSource> {
    const KEY: &str = "upstream.claims.sources";
    let Some(words) = r.texts(KEY) else {
        return preset.claims.sources.to_vec();
    };
    words
        .iter()
        .filter_map(|word| {
            let source = word.parse().ok();
            if source.is_none() {
                let hint = "it can be \"id_token\", \"userinfo\", \"access_token\"";
                r.problem(KEY, Some(format!("{word:?}")), "is not a source of claims", hint);
            }
            source
        })
        .collect()
}

fn named_by_rules(resources: &[ResourceConfig]) -> Vec<ClaimPath> {
    let rules = resources.iter().flat_map(|resource| &resource.policy.rules);
    let mut paths: Vec<ClaimPath> = Vec::new();
    for path in rules.flat_map(|rule| rule.conditions.claims.keys()) {
        if !paths.iter().any(|known| known.as_str() == path) {
            paths.push(ClaimPath::new(path.clone()));
        }
    }
    paths
}
