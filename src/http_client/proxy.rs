//! Forward proxies: decides which requests use one, and opens tunnels through it.
//!
//! All requests use CONNECT (RFC 9110 §9.3.6), `http://` ones too. With `https://`, the proxy sees only host
//! and port. Requests to this machine never use a proxy.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper::upgrade::Upgraded;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::proxy::matcher::Matcher;
use tokio::task::JoinSet;
use tower_service::Service;

use super::{innermost, is_loopback};
use crate::config::Proxies;

/// Largest header section of a proxy's response in bytes, and most headers in it.
const MAX_HEADERS: (usize, usize) = (16 * 1024, 64);

/// Decides which requests go through which proxy. Cheap to clone.
#[derive(Clone, Default)]
pub struct Ways(Option<Arc<ProxyRules>>);

struct ProxyRules {
    proxies: Proxies,
    /// For ports that no `NO_PROXY` entry names.
    usual: Matcher,
    /// For each port that an entry names.
    by_port: BTreeMap<u16, Matcher>,
}

/// The proxy that one request goes through.
pub(super) struct Hop {
    proxy: Uri,
    authorization: Option<HeaderValue>,
    /// Its address without credentials, and the variable that names it.
    shown: ProxyView,
    /// `host:port` of the server.
    target: String,
}

/// What logs and pages may show of a proxy.
#[derive(Clone, Debug)]
struct ProxyView {
    address: String,
    variable: &'static str,
}

impl fmt::Display for ProxyView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.address, self.variable)
    }
}

/// Why a proxy did not open a tunnel.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the proxy {proxy} {fault}")]
pub struct ProxyFailed {
    proxy: ProxyView,
    target: String,
    fault: Fault,
}

#[derive(Clone, Debug, thiserror::Error)]
enum Fault {
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    #[error("did not answer within {0:?}")]
    Silent(Duration),
    #[error("wants a user name and a password, or others (status 407)")]
    Credentials,
    #[error("does not connect to {target}: it answered with status {}", status.as_u16())]
    Refused { target: String, status: StatusCode },
    #[error("broke off: {0}")]
    BrokeOff(String),
}

impl ProxyFailed {
    /// Returns what an administrator can do about it.
    pub fn hint(&self) -> String {
        let (variable, target) = (self.proxy.variable, &self.target);
        match &self.fault {
            Fault::Credentials => format!(
                "write them into {variable}: http://user:password@host:port, special characters percent-encoded"
            ),
            Fault::Refused { .. } => format!(
                "let the proxy connect to {target}; or name the host in NO_PROXY, if this machine reaches it without the proxy"
            ),
            Fault::Unreachable(_) | Fault::Silent(_) | Fault::BrokeOff(_) => {
                format!("check {variable}, and that this machine may reach the proxy")
            }
        }
    }
}

impl Ways {
    /// Compiles the rules of these proxies and their `NO_PROXY` exceptions.
    pub fn of(proxies: &Proxies) -> Self {
        if proxies.http.is_none() && proxies.https.is_none() {
            return Self(None);
        }
        let entries: Vec<(String, Option<u16>)> =
            proxies.exceptions.iter().map(|entry| exception(entry)).collect();
        let matcher = |port: Option<u16>| {
            let url = |proxy: &Option<crate::config::Proxy>| {
                proxy.as_ref().map(|proxy| proxy.url.expose().to_owned()).unwrap_or_default()
            };
            let named: Vec<&str> = entries
                .iter()
                .filter(|(host, only)| !host.is_empty() && (only.is_none() || *only == port))
                .map(|(host, _)| host.as_str())
                .collect();
            let builder = Matcher::builder().http(url(&proxies.http)).https(url(&proxies.https));
            builder.no(named.join(",")).build()
        };
        let ports = entries.iter().filter_map(|(_, port)| *port);
        let by_port = ports.map(|port| (port, matcher(Some(port)))).collect();
        let usual = matcher(None);
        Self(Some(Arc::new(ProxyRules { proxies: proxies.clone(), usual, by_port })))
    }

    /// Returns the proxy for a request to `uri`, without its credentials; `None` if the request goes
    /// directly.
    pub fn shown(&self, uri: &Uri) -> Option<String> {
        self.through(uri).map(|hop| hop.shown.to_string())
    }

    /// Returns the proxy for a request to `uri`; `None` if the request goes directly.
    pub(super) fn through(&self, uri: &Uri) -> Option<Hop> {
        let rules = self.0.as_ref()?;
        let (scheme, host) = (uri.scheme_str()?, uri.host()?.trim_end_matches('.'));
        if is_loopback(host) {
            return None;
        }
        let is_https = scheme == "https";
        let port = uri.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let target = format!("{host}:{port}");
        let asked = format!("{scheme}://{target}/").parse().ok()?;
        let found = rules.by_port.get(&port).unwrap_or(&rules.usual).intercept(&asked)?;
        let named = if is_https { &rules.proxies.https } else { &rules.proxies.http };
        let named = named.as_ref()?;
        Some(Hop {
            proxy: found.uri().clone(),
            authorization: found.basic_auth().cloned(),
            shown: ProxyView { address: named.shown.clone(), variable: named.variable },
            target,
        })
    }
}

/// Parses a `NO_PROXY` entry into the host as the matcher expects it, and the port that it is limited to.
/// `*.example.com` becomes `.example.com`, as in Go. Ports and bracketed IPv6 addresses are Go's syntax too.
fn exception(entry: &str) -> (String, Option<u16>) {
    let (host, port) = if let Some(rest) = entry.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').unwrap_or((rest, ""));
        (address, rest.strip_prefix(':'))
    } else {
        match entry.split_once(':') {
            Some((host, port)) if !port.contains(':') => (host, Some(port)),
            _ => (entry, None),
        }
    };
    let host = host.strip_prefix("*.").map_or_else(|| host.to_owned(), |rest| format!(".{rest}"));
    let host = host.trim_end_matches('.').to_owned();
    match port.map(str::parse) {
        None => (host, None),
        Some(Ok(port)) => (host, Some(port)),
        Some(Err(_)) => (String::new(), None), // an invalid port: the entry matches nothing
    }
}

impl Hop {
    /// Opens a tunnel to the server.
    pub(super) async fn open(
        self,
        to_proxy: HttpsConnector<HttpConnector>,
        within: Duration,
    ) -> Result<Upgraded, ProxyFailed> {
        let opening = tokio::time::timeout(within, self.connect(to_proxy)).await;
        let opened = opening.unwrap_or(Err(Fault::Silent(within)));
        opened.map_err(|fault| ProxyFailed { proxy: self.shown, target: self.target, fault })
    }

    async fn connect(
        &self,
        mut to_proxy: HttpsConnector<HttpConnector>,
    ) -> Result<Upgraded, Fault> {
        let stream = to_proxy
            .call(self.proxy.clone())
            .await
            .map_err(|cause| Fault::Unreachable(innermost(&*cause)))?;
        let broke_off = |cause: hyper::Error| Fault::BrokeOff(innermost(&cause));
        let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
            .max_buf_size(MAX_HEADERS.0)
            .max_headers(MAX_HEADERS.1)
            .handshake::<_, Empty<Bytes>>(stream)
            .await
            .map_err(broke_off)?;
        // The task is aborted at the end of this function. By then, an upgraded connection has become the
        // tunnel and left the task.
        let mut driver = JoinSet::new();
        driver.spawn(connection.with_upgrades());
        let mut request = Request::connect(self.target.as_str())
            .header(header::HOST, self.target.as_str())
            .header(header::USER_AGENT, "portcullis");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::PROXY_AUTHORIZATION, authorization);
        }
        let request =
            request.body(Empty::new()).map_err(|cause| Fault::BrokeOff(cause.to_string()))?;
        let answer = sender.send_request(request).await.map_err(broke_off)?;
        match answer.status() {
            status if status.is_success() => hyper::upgrade::on(answer).await.map_err(broke_off),
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => Err(Fault::Credentials),
            status => Err(Fault::Refused { target: self.target.clone(), status }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Proxy, SecretText};

    fn ways(exceptions: &[&str]) -> Ways {
        let proxy = |variable, host: &str| {
            let url = SecretText::new(format!("http://user:pw@{host}:3128/"));
            Some(Proxy { variable, url, shown: format!("http://{host}:3128") })
        };
        Ways::of(&Proxies {
            https: proxy("HTTPS_PROXY", "secure"),
            http: proxy("HTTP_PROXY", "plain"),
            exceptions: exceptions.iter().map(|entry| (*entry).to_owned()).collect(),
        })
    }

    #[test]
    fn each_scheme_has_its_proxy_and_this_machine_none() {
        let ways = ways(&[]);
        for (url, proxy) in [
            ("https://idp.example/x", Some("http://secure:3128 (HTTPS_PROXY)")),
            ("http://idp.example/x", Some("http://plain:3128 (HTTP_PROXY)")),
            ("https://10.0.0.5:8443/", Some("http://secure:3128 (HTTPS_PROXY)")),
            ("https://localhost/", None),
            ("https://LOCALHOST:8443/", None),
            ("https://localhost./", None),
            ("http://127.0.0.1:8080/", None),
            ("http://127.8.8.8/", None),
            ("http://[::1]:8080/", None),
        ] {
            assert_eq!(ways.shown(&url.parse().unwrap()).as_deref(), proxy, "{url}");
        }
        let hop = ways.through(&"https://[2001:db8::5]/".parse().unwrap()).unwrap();
        assert_eq!(hop.target, "[2001:db8::5]:443");
        assert_eq!(hop.authorization.unwrap(), "Basic dXNlcjpwdw==");
        assert!(
            Ways::of(&Proxies::default()).shown(&"https://a.example".parse().unwrap()).is_none()
        );
    }

    /// `NO_PROXY` as curl and Go interpret it.
    #[test]
    fn the_table_of_exceptions() {
        for (entry, direct, through) in [
            ("example.com", "https://example.com", "https://notexample.com"),
            ("example.com", "https://a.b.example.com", "https://example.com.evil.example"),
            ("EXAMPLE.com", "https://Example.COM", "https://example.org"),
            (".example.com", "https://a.example.com", "https://aexample.com"),
            (".example.com", "https://example.com", "https://example.co"),
            ("*.example.com", "https://a.example.com", "https://aexample.com"),
            ("example.com.", "https://example.com", "https://example.net"),
            ("example.com", "https://example.com.", "https://xample.com"),
            ("example.com:8443", "https://example.com:8443", "https://example.com"),
            ("example.com:443", "https://example.com", "https://example.com:8443"),
            ("example.com:80", "http://example.com", "https://example.com"),
            ("*:8443", "https://x.example:8443", "https://x.example"),
            ("10.0.0.5", "https://10.0.0.5", "https://10.0.0.50"),
            ("10.0.0.5:8443", "https://10.0.0.5:8443", "https://10.0.0.5"),
            ("10.0.0.0/8", "https://10.255.255.255", "https://11.0.0.0"),
            ("10.1.2.3/8", "https://10.9.9.9", "https://11.0.0.0"),
            ("2001:db8::/32", "https://[2001:db8:1::1]", "https://[2001:db9::1]"),
            ("2001:db8::5", "https://[2001:db8::5]", "https://[2001:db8::6]"),
            ("[2001:db8::5]", "https://[2001:db8::5]", "https://[2001:db8::6]"),
            ("[2001:db8::5]:8443", "https://[2001:db8::5]:8443", "https://[2001:db8::5]"),
            ("keycloak", "http://keycloak:8080", "http://keycloak2:8080"),
        ] {
            let ways = ways(&["unrelated.example", entry]);
            let goes_through = |url: &str| ways.through(&url.parse().unwrap()).is_some();
            assert!(!goes_through(direct), "{entry} names {direct}");
            assert!(goes_through(through), "{entry} does not name {through}");
        }
        assert!(ways(&["*"]).through(&"https://a.example".parse().unwrap()).is_none());
        for nothing in ["", ".", ":", "example.com:port", "[", "]", "*."] {
            let ways = ways(&[nothing]);
            assert!(ways.through(&"https://example.com".parse().unwrap()).is_some(), "{nothing}");
        }
    }
}
