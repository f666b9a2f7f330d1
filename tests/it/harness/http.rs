//! A plain HTTP client: no cookies, no redirects, everything visible.

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

#[derive(Clone)]
pub(crate) struct Http {
    client: Client<HttpConnector, Full<Bytes>>,
    tunnel: Option<Tunnel>,
}

/// A tunnel: it takes requests to a public origin over TLS, and passes them on to an address of this machine.
#[derive(Clone)]
struct Tunnel {
    origin: String,
    to: String,
}

impl Default for Http {
    fn default() -> Self {
        // No reuse: a connection to a server that was restarted is no use.
        let builder = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).clone();
        Self { client: builder.build_http(), tunnel: None }
    }
}

impl Http {
    /// Requests that come from this address of ours.
    pub(crate) fn from_address(address: std::net::IpAddr) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_local_address(Some(address));
        let builder = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).clone();
        Self { client: builder.build(connector), tunnel: None }
    }

    /// Requests to `origin` arrive at `to` as a tunnel passes them on: without TLS, with the public host name,
    /// and with the headers that say what the tunnel saw.
    pub(crate) fn through_tunnel(origin: &str, to: std::net::SocketAddr) -> Self {
        let tunnel = Tunnel { origin: origin.to_owned(), to: format!("http://{to}") };
        Self { tunnel: Some(tunnel), ..Self::default() }
    }
}

pub(crate) type Headers<'a> = &'a [(&'a str, &'a str)];

impl Http {
    pub(crate) async fn send(
        &self,
        method: &str,
        url: &str,
        headers: Headers<'_>,
        body: impl Into<Bytes>,
    ) -> Answer {
        Answer::read(self.open(method, url, headers, body).await).await
    }

    /// Sends a request and leaves the body unread: for streams.
    pub(crate) async fn open(
        &self,
        method: &str,
        url: &str,
        headers: Headers<'_>,
        body: impl Into<Bytes>,
    ) -> Response<Incoming> {
        let mut request = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap());
        let tunnelled = self.tunnel.as_ref().and_then(|tunnel| {
            let rest = url.strip_prefix(&tunnel.origin).filter(|rest| rest.starts_with('/'))?;
            Some((format!("{}{rest}", tunnel.to), tunnel.origin.split_once("://")?.1))
        });
        request = match &tunnelled {
            None => request.uri(url),
            Some((url, host)) => request
                .uri(url)
                .header("host", *host)
                .header("x-forwarded-proto", "https")
                .header("x-forwarded-for", "203.0.113.7"),
        };
        for (name, value) in headers {
            request = request.header(
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_str(value).unwrap(),
            );
        }
        let request = request.body(Full::new(body.into())).unwrap();
        self.client
            .request(request)
            .await
            .unwrap_or_else(|error| panic!("{method} {url}: {error:?}"))
    }

    pub(crate) async fn get(&self, url: &str) -> Answer {
        self.send("GET", url, &[], "").await
    }

    pub(crate) async fn post_form(
        &self,
        url: &str,
        form: &[(&str, &str)],
        headers: Headers<'_>,
    ) -> Answer {
        let mut all = vec![("content-type", "application/x-www-form-urlencoded")];
        all.extend_from_slice(headers);
        self.send("POST", url, &all, encode(form)).await
    }

    pub(crate) async fn post_json(&self, url: &str, json: &Value, headers: Headers<'_>) -> Answer {
        let mut all = vec![("content-type", "application/json")];
        all.extend_from_slice(headers);
        self.send("POST", url, &all, json.to_string()).await
    }
}

pub(crate) fn encode(form: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish()
}

/// An answer, whole.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub(crate) async fn read(response: Response<Incoming>) -> Self {
        let (parts, body) = response.into_parts();
        let body =
            body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        Self { status: parts.status, headers: parts.headers, body }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("not JSON: {}", self.text()))
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn location(&self) -> &str {
        self.header("location")
            .unwrap_or_else(|| panic!("{} without Location: {}", self.status, self.text()))
    }

    /// A parameter of the query of `Location`.
    pub(crate) fn location_param(&self, name: &str) -> Option<String> {
        let url = url::Url::parse(self.location()).unwrap();
        let values: Vec<String> =
            url.query_pairs().filter(|(n, _)| n == name).map(|(_, v)| v.into_owned()).collect();
        assert!(values.len() <= 1, "{name} stands {} times in {url}", values.len());
        values.into_iter().next()
    }

    /// The reference that a page shows. Sealed values in the page's forms can look like one by chance.
    #[track_caller]
    pub(crate) fn reference(&self) -> String {
        let shown = regex_lite::Regex::new("<code>([0-9A-Z]{4}-[0-9A-Z]{4})</code>").unwrap();
        let shown = shown.captures(self.text());
        shown.unwrap_or_else(|| panic!("no reference: {}", self.text()))[1].to_owned()
    }

    #[track_caller]
    pub(crate) fn assert_status(&self, status: u16) -> &Self {
        let body = String::from_utf8_lossy(&self.body);
        let body = body.split_once("<main>").map_or(&*body, |(_, main)| main);
        assert_eq!(self.status.as_u16(), status, "{body}");
        self
    }

    /// An OAuth error in JSON that nothing may cache.
    #[track_caller]
    pub(crate) fn assert_error(&self, status: u16, code: &str) -> &Self {
        self.assert_status(status);
        assert_eq!(self.json()["error"], code, "{}", self.text());
        assert_eq!(self.header("cache-control"), Some("no-store"));
        self
    }

    /// A page that leads nowhere.
    #[track_caller]
    pub(crate) fn assert_page(&self, status: u16) -> &Self {
        self.assert_status(status);
        assert_eq!(self.header("location"), None);
        assert_eq!(self.header("content-type"), Some("text/html; charset=utf-8"));
        self
    }

    /// A 303 to `prefix`.
    #[track_caller]
    pub(crate) fn assert_leads_to(&self, prefix: &str) -> &Self {
        self.assert_status(303);
        assert!(self.location().starts_with(prefix), "{} is not at {prefix}", self.location());
        self
    }
}
