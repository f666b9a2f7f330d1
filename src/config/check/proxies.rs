//! Reads the proxy environment variables. They have no `PORTCULLIS_` prefix, because most programs share
//! them.

use std::collections::BTreeMap;

use axum::http::Uri;
use url::Url;

use super::super::proxies::{Proxies, Proxy};
use super::super::reader::ConfigReader;
use super::super::values::SecretText;

/// In order of precedence; an empty variable counts as unset.
const HTTPS: &[&str] = &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
const HTTP: &[&str] = &["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"];
/// In a CGI program `HTTP_PROXY` holds the request header `Proxy`, which anybody can send.
const HTTP_OF_CGI: &[&str] = &["http_proxy", "ALL_PROXY", "all_proxy"];
const NO_PROXY: &[&str] = &["NO_PROXY", "no_proxy"];

pub(super) fn read(r: &mut ConfigReader, env: &BTreeMap<String, String>) -> Proxies {
    let is_cgi = env.contains_key("REQUEST_METHOD");
    let https = proxy(r, env, HTTPS);
    let http = proxy(r, env, if is_cgi { HTTP_OF_CGI } else { HTTP });
    let mut exceptions = Vec::new();
    if (https.is_some() || http.is_some())
        && let Some((variable, text)) = first(env, NO_PROXY)
    {
        r.show_variable(variable, text.to_owned());
        let entries = text.split(|c: char| c == ',' || c.is_whitespace());
        exceptions.extend(entries.filter(|entry| !entry.is_empty()).map(str::to_owned));
    }
    Proxies { https, http, exceptions }
}

fn first<'e>(
    env: &'e BTreeMap<String, String>,
    variables: &[&'static str],
) -> Option<(&'static str, &'e str)> {
    variables.iter().find_map(|variable| {
        let text = env.get(*variable)?.trim();
        (!text.is_empty()).then_some((*variable, text))
    })
}

fn proxy(
    r: &mut ConfigReader,
    env: &BTreeMap<String, String>,
    variables: &[&'static str],
) -> Option<Proxy> {
    let (variable, text) = first(env, variables)?;
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let Some(url) = usable(&full) else {
        let reason = if full.starts_with("socks") {
            "is a SOCKS proxy, which Portcullis does not speak"
        } else {
            "is not the address of a proxy"
        };
        let hint = "write http://host:port, or http://user:password@host:port with special characters percent-encoded; unset it to connect directly";
        r.problem(variable, Some("********".to_owned()), reason, hint);
        return None;
    };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let host = url.host_str().unwrap_or_default();
    let shown = format!("{}://{host}{port}", url.scheme());
    let has_credentials = !url.username().is_empty() || url.password().is_some();
    let masked = if has_credentials {
        format!("{}://********@{host}{port}", url.scheme())
    } else {
        shown.clone()
    };
    r.show_variable(variable, masked);
    Some(Proxy { variable, url: SecretText::new(url.as_str()), shown })
}

fn usable(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let fits = matches!(url.scheme(), "http" | "https")
        && url.host_str().is_some_and(|host| !host.is_empty())
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        // The HTTP client parses the URL with another parser, so that one must accept it too.
        && url.as_str().parse::<Uri>().is_ok();
    fits.then_some(url)
}
