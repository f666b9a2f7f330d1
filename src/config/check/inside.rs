//! Reads `discovery_url` and `allow_http` of `[upstream]`, for a provider inside a cluster, whose issuer is
//! its public address but which we reach at another one.

use url::Url;

use super::super::presets::{Preset, Protocol};
use super::super::reader::ConfigReader;
use super::super::values::is_loopback;

const URL: &str = "upstream.discovery_url";
const ALLOW: &str = "upstream.allow_http";

pub(super) fn read(r: &mut ConfigReader, preset: Option<&Preset>) -> (Option<Url>, bool) {
    let allow_http = r.flag(ALLOW, false);
    if allow_http {
        let text = format!(
            "{ALLOW} is an insecure back channel: an attacker who can read or change the traffic between Portcullis and the provider can take the client secret and the tokens, and sign in as anybody"
        );
        r.warn(ALLOW, &text);
    }
    (discovery_url(r, preset, allow_http), allow_http)
}

fn discovery_url(r: &mut ConfigReader, preset: Option<&Preset>, allow_http: bool) -> Option<Url> {
    let key = URL;
    let text = r.value(key)?;
    let has_credentials = |text: &str| {
        Url::parse(text).is_ok_and(|u| !u.username().is_empty() || u.password().is_some())
    };
    if text.as_str().is_some_and(has_credentials) {
        let hint = "take both out; the provider knows Portcullis by client_id and client_secret";
        r.problem(key, Some("********".to_owned()), "contains a user name or password", hint);
        return None;
    }
    let text = r.text(key)?;
    let shown = Some(format!("{text:?}"));
    if preset.is_some_and(|preset| preset.protocol == Protocol::GitHub) {
        r.problem(key, shown, "is set, and GitHub has no discovery document", "take it out");
        return None;
    }
    let url = Url::parse(&text).ok().filter(|url| {
        matches!(url.scheme(), "https" | "http") && url.has_host() && url.fragment().is_none()
    });
    let Some(url) = url else {
        let hint = "write the whole URL, such as \"https://keycloak:8443/realms/acme/.well-known/openid-configuration\"";
        r.problem(key, shown, "is not the URL of a discovery document", hint);
        return None;
    };
    if url.scheme() == "http" && !is_loopback(&url) && !allow_http {
        let hint = "use https://, or add allow_http = true: then client secret, codes and tokens cross that network in the clear";
        r.problem(key, shown, "is plain http beyond this machine", hint);
        return None;
    }
    Some(url)
}
