//! Reads where a service is: the keys `tenant`, `issuer`, `authorize_url`, `token_url`, `revoke_url` and
//! `userinfo_url` of `[[connection]]`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use url::Url;

use super::super::super::connections::{ConnectionPreset, ServiceEndpoints};
use super::super::super::reader::ConfigReader;
use super::super::super::values::is_loopback;
use super::{ServiceKind, refuse_with_sign_in};

const TENANT: &str = "tenant";
const ISSUER: &str = "issuer";
const AUTHORIZE: &str = "authorize_url";
const TOKEN: &str = "token_url";
const REVOKE: &str = "revoke_url";
const USERINFO: &str = "userinfo_url";

/// What is encoded in a segment of a path (RFC 3986 §2.3).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'.').remove(b'-').remove(b'_').remove(b'~');
/// Length of a tenant's ID, in characters.
const GUID: usize = 36;

/// What the configuration says.
struct WrittenEndpoints {
    authorize: Option<Url>,
    token: Option<Url>,
    revoke: Option<Url>,
    userinfo: Option<Url>,
    issuer: Option<String>,
    tenant: Option<String>,
}

/// Reads the endpoints of the connection at `key`.
pub(super) fn read(
    r: &mut ConfigReader,
    key: &str,
    kind: &ServiceKind,
    client_id: Option<&str>,
) -> Option<ServiceEndpoints> {
    let at = |name: &str| format!("{key}.{name}");
    if kind.is_sign_in() {
        for name in [TENANT, ISSUER, AUTHORIZE, TOKEN, REVOKE, USERINFO] {
            refuse_with_sign_in(r, &at(name), false);
        }
        return Some(ServiceEndpoints::SignIn);
    }
    let preset = kind.preset();
    let known = r.problems.len();
    let replaces = r.has(&at(AUTHORIZE)) || r.has(&at(TOKEN));
    let written = WrittenEndpoints {
        authorize: url(r, &at(AUTHORIZE)),
        token: url(r, &at(TOKEN)),
        revoke: url(r, &at(REVOKE)),
        userinfo: url(r, &at(USERINFO)),
        issuer: issuer(r, &at(ISSUER)),
        tenant: tenant(r, &at(TENANT), preset, replaces),
    };
    if r.problems.len() > known {
        return None;
    }
    if replaces || preset.name == "oauth2" {
        return replaced(r, key, written);
    }
    if preset.authorize_url.is_empty() {
        return discovered(r, key, written);
    }
    if written.issuer.is_some() {
        let reason = "is set, and the endpoints are those of the preset";
        let hint = "take it out; or write authorize_url and token_url of a server of your own";
        r.problem(&at(ISSUER), None, reason, hint);
    }
    stated(preset, client_id.unwrap_or_default(), written)
}

/// Takes all endpoints from the configuration. Those of the preset belong to another server, which must not
/// see the tokens of this one.
fn replaced(
    r: &mut ConfigReader,
    key: &str,
    written: WrittenEndpoints,
) -> Option<ServiceEndpoints> {
    for (one, example) in [
        (AUTHORIZE, "https://example.com/oauth/authorize"),
        (TOKEN, "https://example.com/oauth/token"),
    ] {
        if !r.has(&format!("{key}.{one}")) {
            let hint = format!(
                "write both, {AUTHORIZE} and {TOKEN}: they belong to one server; such as {example:?}"
            );
            r.problem(&format!("{key}.{one}"), None, "is missing", hint);
        }
    }
    Some(ServiceEndpoints::Stated {
        authorize: written.authorize?,
        token: written.token?,
        revoke: written.revoke,
        userinfo: written.userinfo,
        issuer: written.issuer,
    })
}

fn discovered(
    r: &mut ConfigReader,
    key: &str,
    written: WrittenEndpoints,
) -> Option<ServiceEndpoints> {
    for (name, url) in [(REVOKE, &written.revoke), (USERINFO, &written.userinfo)] {
        if url.is_some() {
            let reason = "is read from the discovery document of the issuer";
            let hint = format!("take it out; or write {AUTHORIZE} and {TOKEN} too");
            r.problem(&format!("{key}.{name}"), None, reason, hint);
        }
    }
    if written.issuer.is_none() {
        let hint = format!(
            "write the issuer, exactly as its discovery document has it; or {AUTHORIZE} and {TOKEN}"
        );
        r.problem(&format!("{key}.{ISSUER}"), None, "is missing", hint);
    }
    Some(ServiceEndpoints::Discovered { issuer: written.issuer? })
}

/// Takes the endpoints from the preset, and those where a token only ends or is read from the configuration.
fn stated(
    preset: &ConnectionPreset,
    client_id: &str,
    written: WrittenEndpoints,
) -> Option<ServiceEndpoints> {
    let tenant = written.tenant.unwrap_or_default();
    let client_id = utf8_percent_encode(client_id, SEGMENT).to_string();
    let filled =
        |template: &str| template.replace("{tenant}", &tenant).replace("{client_id}", &client_id);
    // Names of a tenant other than its ID are not in its issuer.
    let knows_issuer = !preset.issuer.contains("{tenant}") || tenant.len() == GUID;
    Some(ServiceEndpoints::Stated {
        authorize: Url::parse(&filled(preset.authorize_url)).ok()?,
        token: Url::parse(&filled(preset.token_url)).ok()?,
        revoke: written.revoke.or_else(|| Url::parse(&filled(preset.revoke_url)).ok()),
        userinfo: written.userinfo.or_else(|| Url::parse(&filled(preset.userinfo_url)).ok()),
        issuer: (knows_issuer && !preset.issuer.is_empty()).then(|| filled(preset.issuer)),
    })
}

/// Reads the directory of Entra: by default that of the sign-in provider, if it is Entra.
fn tenant(
    r: &mut ConfigReader,
    key: &str,
    preset: &ConnectionPreset,
    replaces: bool,
) -> Option<String> {
    let text = r.text(key);
    if !preset.authorize_url.contains("{tenant}") {
        if r.has(key) {
            let reason = format!("is for entra, and provider is {:?}", preset.name);
            r.problem(key, None, reason, "take it out");
        }
        return None;
    }
    if replaces {
        if r.has(key) {
            let reason = format!("is set, and so are {AUTHORIZE} and {TOKEN}, which have it");
            r.problem(key, None, reason, "take it out");
        }
        return None;
    }
    let hint = "write the directory (tenant) ID, such as \"11111111-2222-3333-4444-555555555555\"";
    let Some(tenant) = text else {
        let of_sign_in = r.text("upstream.provider").is_some_and(|name| name == "entra");
        let usual = if of_sign_in { r.text("upstream.tenant") } else { None };
        if usual.is_none() && !r.has(key) {
            r.problem(key, None, "is missing", hint);
        }
        return usual;
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-');
    if tenant.is_empty() || tenant.starts_with('.') || !tenant.bytes().all(plain) {
        r.problem(key, Some(format!("{tenant:?}")), "is not the name of a directory", hint);
    }
    Some(tenant)
}

fn issuer(r: &mut ConfigReader, key: &str) -> Option<String> {
    let url = url(r, key)?;
    let text = r.text(key)?;
    if url.query().is_some() {
        let hint = "write it exactly as the discovery document has it";
        r.problem(key, Some(format!("{text:?}")), "has a query", hint);
    }
    Some(text)
}

fn url(r: &mut ConfigReader, key: &str) -> Option<Url> {
    let written = r.value(key)?;
    if written.as_str().is_some_and(has_credentials) {
        let hint = "take both out; the service knows Portcullis by client_id and client_secret";
        let shown = Some("********".to_owned());
        r.problem(key, shown, "contains a user name or password", hint);
        return None;
    }
    let text = r.text(key)?;
    service_url(r, key, &text)
}

fn has_credentials(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| !url.username().is_empty() || url.password().is_some())
}

/// Checks the URL of a service: codes, secrets and tokens go there.
fn service_url(r: &mut ConfigReader, key: &str, text: &str) -> Option<Url> {
    let shown = Some(format!("{text:?}"));
    let url = Url::parse(text).ok().filter(|url| {
        matches!(url.scheme(), "https" | "http") && url.has_host() && url.fragment().is_none()
    });
    let Some(url) = url else {
        let hint = "write the whole URL with https://, without fragment";
        r.problem(key, shown, "is not the URL of a service", hint);
        return None;
    };
    if url.scheme() == "http" && !is_loopback(&url) {
        let hint = "write https://: codes, the client secret and tokens go there; http:// is for this machine only";
        r.problem(key, shown, "is plain http beyond this machine", hint);
        return None;
    }
    Some(url)
}
