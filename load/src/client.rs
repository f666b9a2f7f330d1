//! An MCP client with the browser of its person.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use regex_lite::Regex;
use serde_json::json;
use url::Url;

use crate::http::{Answer, Failure, Http, encode};

const REDIRECT_URI: &str = "http://127.0.0.1:53124/callback";
const VERIFIER: &str = "a-verifier-of-43-characters-or-more-0123456789";
/// More pages than this lead nowhere.
const MOST_PAGES: usize = 16;

/// The server under load, as discovered.
#[derive(Clone)]
pub struct Server {
    pub http: Http,
    authorize: String,
    token: String,
    register: String,
    pub metadata: String,
    pub mcp: String,
    scope: String,
    names_resource: bool,
}

pub struct Tokens {
    pub access: String,
    pub refresh: String,
}

impl Server {
    pub async fn discover(
        base: &str,
        mcp: String,
        metadata: &str,
        scope: String,
        names_resource: bool,
    ) -> Result<Self, Failure> {
        let http = Http::new();
        let metadata = format!("{base}{metadata}");
        let found = http.send("GET", &metadata, &[], "").await?.expect(&[200])?.json()?;
        let at = |name: &str| {
            found[name].as_str().map(str::to_owned).ok_or(format!("no {name} in {metadata}"))
        };
        Ok(Self {
            authorize: at("authorization_endpoint")?,
            token: at("token_endpoint")?,
            register: at("registration_endpoint")?,
            http,
            metadata,
            mcp,
            scope,
            names_resource,
        })
    }

    /// Registers a client that nobody registered before.
    pub async fn register(&self) -> Result<String, Failure> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let metadata = json!({
            "client_name": format!("Load {} {n}", std::process::id()),
            "redirect_uris": [REDIRECT_URI],
            "grant_types": ["authorization_code", "refresh_token"],
            "response_types": ["code"],
            "token_endpoint_auth_method": "none",
            "application_type": "native",
        });
        let kind = [("content-type", "application/json")];
        let answer = self.http.send("POST", &self.register, &kind, metadata.to_string()).await?;
        let answer = answer.expect(&[200, 201])?.json()?;
        answer["client_id"].as_str().map(str::to_owned).ok_or("no client_id".to_owned())
    }

    /// The whole way: consent, sign-in, callback, code, tokens; each time another person.
    pub async fn flow(&self, client_id: &str) -> Result<Tokens, Failure> {
        let challenge = URL_SAFE_NO_PAD.encode(digest(&SHA256, VERIFIER.as_bytes()));
        let mut params = vec![
            ("response_type", "code"),
            ("client_id", client_id),
            ("redirect_uri", REDIRECT_URI),
            ("state", "client-state"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        if !self.scope.is_empty() {
            params.push(("scope", &self.scope));
        }
        if self.names_resource {
            params.push(("resource", &self.mcp));
        }
        if self.scope.contains("offline_access") {
            params.push(("prompt", "consent"));
        }
        let mut browser = Browser { http: &self.http, cookies: BTreeMap::new() };
        let back = browser.walk(format!("{}?{}", self.authorize, encode(&params))).await?;
        let code = back.query_pairs().find(|(name, _)| name == "code");
        let (_, code) = code.ok_or_else(|| format!("no code in {back}"))?;
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("client_id", client_id),
            ("code", &*code),
            ("redirect_uri", REDIRECT_URI),
            ("code_verifier", VERIFIER),
        ];
        if self.names_resource {
            form.push(("resource", &self.mcp));
        }
        tokens(self.http.form(&self.token, &form).await?)
    }

    /// Signs in at the server's own pages and connects a service there: `page` is the one that begins it.
    pub async fn connect(&self, page: &str) -> Result<(), Failure> {
        let mut browser = Browser { http: &self.http, cookies: BTreeMap::new() };
        let end = browser.walk_to(page.to_owned(), |url| url.path().contains("/auth/connect/"));
        let (came, answer) = end.await?;
        match answer.headers.get("location").and_then(|location| location.to_str().ok()) {
            Some(location) if !location.contains("came=") => Ok(()),
            _ => Err(format!("{came}: {}", answer.unexpected())),
        }
    }

    pub async fn refresh(&self, client_id: &str, refresh: &str) -> Result<Tokens, Failure> {
        let form = [
            ("grant_type", "refresh_token"),
            ("client_id", client_id),
            ("refresh_token", refresh),
        ];
        tokens(self.http.form(&self.token, &form).await?)
    }

    pub async fn call(&self, headers: &[(&str, &str)], body: &'static str) -> Result<(), Failure> {
        self.http.send("POST", &self.mcp, headers, body).await?.expect(&[200]).map(drop)
    }
}

fn tokens(answer: Answer) -> Result<Tokens, Failure> {
    let answer = answer.expect(&[200])?.json()?;
    let text = |name: &str| {
        answer[name].as_str().map(str::to_owned).ok_or(format!("no {name} among {answer}"))
    };
    Ok(Tokens { access: text("access_token")?, refresh: text("refresh_token")? })
}

/// Follows redirects, keeps cookies, presses the button that approves.
struct Browser<'a> {
    http: &'a Http,
    cookies: BTreeMap<(u16, String), String>,
}

impl Browser<'_> {
    async fn walk(&mut self, start: String) -> Result<Url, Failure> {
        let mut url = Url::parse(&start).map_err(|_| start)?;
        let mut form: Option<String> = None;
        for _ in 0..MOST_PAGES {
            if url.as_str().starts_with(REDIRECT_URI) {
                return Ok(url);
            }
            let answer = self.ask(&url, form.take()).await?;
            if let Some(location) = answer.headers.get("location") {
                let location = location.to_str().map_err(|_| "location".to_owned())?;
                url = url.join(location).map_err(|_| location.to_owned())?;
                continue;
            }
            let page = answer.expect(&[200])?.text();
            let (action, fields) = approving_form(&page)?;
            url = url.join(&action).map_err(|_| action)?;
            form = Some(fields);
        }
        Err(format!("too many pages, at {url}"))
    }

    /// Goes on until an address was asked for that `is_end` knows; answers it, and what it said.
    async fn walk_to(
        &mut self,
        start: String,
        is_end: impl Fn(&Url) -> bool,
    ) -> Result<(Url, Answer), Failure> {
        let mut url = Url::parse(&start).map_err(|_| start)?;
        let mut form: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let answer = self.ask(&url, form.take()).await?;
            if is_end(&url) {
                return Ok((url, answer));
            }
            if let Some(location) = answer.headers.get("location") {
                let location = location.to_str().map_err(|_| "location".to_owned())?;
                url = url.join(location).map_err(|_| location.to_owned())?;
                continue;
            }
            // A page that asks for a sign-in is a 401.
            let page = answer.expect(&[200, 401])?.text();
            let (action, fields) = approving_form(&page)?;
            url = url.join(&action).map_err(|_| action)?;
            form = Some(fields);
        }
        Err(format!("too many pages, at {url}"))
    }

    async fn ask(&mut self, url: &Url, form: Option<String>) -> Result<Answer, Failure> {
        let port = url.port_or_known_default().unwrap_or(80);
        let cookies: Vec<String> = self
            .cookies
            .iter()
            .filter(|((of, _), _)| *of == port)
            .map(|((_, name), value)| format!("{name}={value}"))
            .collect();
        let cookies = cookies.join("; ");
        let origin = url.origin().ascii_serialization();
        let mut headers = vec![("accept", "text/html")];
        if !cookies.is_empty() {
            headers.push(("cookie", &cookies));
        }
        let answer = match form {
            None => self.http.send("GET", url.as_str(), &headers, "").await?,
            Some(form) => {
                headers.push(("content-type", "application/x-www-form-urlencoded"));
                headers.push(("origin", &origin));
                headers.push(("sec-fetch-site", "same-origin"));
                self.http.send("POST", url.as_str(), &headers, form).await?
            }
        };
        for set in answer.headers.get_all("set-cookie") {
            let set = set.to_str().unwrap_or_default();
            let Some((name, rest)) = set.split_once('=') else { continue };
            let value = rest.split(';').next().unwrap_or_default();
            self.cookies.insert((port, name.to_owned()), value.to_owned());
        }
        Ok(answer)
    }
}

/// The form of a page, filled in: what says yes is pressed, what is empty gets a name.
fn approving_form(page: &str) -> Result<(String, String), Failure> {
    let no_form = || format!("no form in {}", page.chars().take(400).collect::<String>());
    let start = page.find("<form").ok_or_else(no_form)?;
    let form = &page[start..];
    let form = &form[..form.find("</form>").unwrap_or(form.len())];
    let head = &form[..form.find('>').ok_or_else(no_form)?];
    let mut fields: Vec<(String, String)> = Vec::new();
    // Every page makes the same regular expression: made once.
    static TAG: std::sync::LazyLock<Regex> = std::sync::LazyLock::new(|| {
        Regex::new(r"(?s)<(input|button)\b[^>]*>").expect("a constant")
    });
    for tag in TAG.find_iter(form) {
        let tag = tag.as_str();
        let Some(name) = attribute(tag, "name") else { continue };
        let value = attribute(tag, "value").unwrap_or_default();
        let presses = tag.starts_with("<button") || tag.contains("type=\"submit\"");
        let says_no = ["deny", "cancel", "abort", "reject"].iter().any(|no| value.contains(no));
        if presses && says_no {
            continue;
        }
        let value = if value.is_empty() { "somebody".to_owned() } else { value };
        fields.retain(|(known, _)| *known != name);
        fields.push((name, value));
    }
    let fields: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    Ok((attribute(head, "action").unwrap_or_default(), encode(&fields)))
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let start = tag.find(&format!(" {name}=\""))? + name.len() + 3;
    let rest = &tag[start..];
    let value = &rest[..rest.find('"')?];
    Some(
        value
            .replace("&quot;", "\"")
            .replace("&#x27;", "'")
            .replace("&#39;", "'")
            .replace("&#34;", "\"")
            .replace("&#x2F;", "/")
            .replace("&amp;", "&")
            .replace("&#38;", "&"),
    )
}
