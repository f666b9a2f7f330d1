//! An MCP client with the browser of its person: registers, asks, redeems, refreshes, calls tools.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::TestApp;
use super::browser::{Browser, Form};
use super::http::{Answer, Http, encode};
use super::process::Served;

pub(crate) const REDIRECT_URI: &str = "http://127.0.0.1:53124/callback";
pub(crate) const VERIFIER: &str = "a-verifier-of-43-characters-or-more-0123456789";

/// Where a client finds everything.
#[derive(Clone)]
pub(crate) struct Place {
    pub url: String,
    /// Issuer of the identity provider.
    pub idp: String,
    pub http: Http,
}

impl Place {
    pub(crate) fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    pub(crate) fn mcp_url(&self) -> String {
        self.at("/mcp")
    }

    /// Where metadata about the MCP server stands: before the path of `public_url`.
    pub(crate) fn mcp_metadata(&self) -> String {
        let url = url::Url::parse(&self.mcp_url()).unwrap();
        let origin = url.origin().ascii_serialization();
        format!("{origin}/.well-known/oauth-protected-resource{}", url.path())
    }
}

/// Something a client can register with.
pub(crate) trait Server {
    fn place(&self) -> Place;
}

impl Server for Place {
    fn place(&self) -> Place {
        self.clone()
    }
}

impl Server for TestApp {
    fn place(&self) -> Place {
        let idp = self.idp.issuer().to_owned();
        Place { url: self.url.clone(), idp, http: self.http.clone() }
    }
}

impl Server for Served {
    fn place(&self) -> Place {
        let idp = self.idp.issuer().to_owned();
        Place { url: self.url.clone(), idp, http: self.http.clone() }
    }
}

pub(crate) struct McpClient {
    pub server: Place,
    pub id: String,
    pub secret: Option<String>,
    pub redirect_uri: String,
    pub browser: Browser,
}

#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    pub access_token: String,
    pub refresh_token: String,
    pub scope: String,
    pub expires_in: i64,
}

impl Tokens {
    pub(crate) fn of(answer: &Answer) -> Self {
        answer.assert_status(200);
        let json = answer.json();
        let text = |name: &str| {
            json[name].as_str().unwrap_or_else(|| panic!("no {name}: {json}")).to_owned()
        };
        assert_eq!(json["token_type"], "Bearer");
        Self {
            access_token: text("access_token"),
            refresh_token: text("refresh_token"),
            scope: text("scope"),
            expires_in: json["expires_in"].as_i64().unwrap(),
        }
    }
}

pub(crate) fn challenge_of(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

/// Our secrets are `kind_id.random`, and the last part is what is secret; others are so as a whole.
pub(crate) fn random_part(secret: &str) -> &str {
    match secret.split_once('.') {
        Some((_, random)) if random.len() == 43 => random,
        _ => secret,
    }
}

/// Header or payload of a JWT, unverified.
pub(crate) fn jwt_part(token: &str, part: usize) -> Value {
    let part = token.split('.').nth(part).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

impl McpClient {
    pub(crate) async fn register(server: &impl Server) -> Self {
        Self::register_as(
            server,
            json!({
                "client_name": "Test client",
                "redirect_uris": [REDIRECT_URI],
                "token_endpoint_auth_method": "none",
                "grant_types": ["authorization_code", "refresh_token"],
                "response_types": ["code"],
                "application_type": "native",
            }),
        )
        .await
    }

    pub(crate) async fn register_as(server: &impl Server, metadata: Value) -> Self {
        let server = server.place();
        let answer = server.http.post_json(&server.at("/register"), &metadata, &[]).await;
        answer.assert_status(201);
        let json = answer.json();
        Self {
            server,
            id: json["client_id"].as_str().unwrap().to_owned(),
            secret: json["client_secret"].as_str().map(str::to_owned),
            redirect_uri: json["redirect_uris"][0].as_str().unwrap().to_owned(),
            browser: Browser::default(),
        }
    }

    /// A client that is there without registering: published at its id, or written down.
    pub(crate) fn known_as(server: &impl Server, id: &str, redirect_uri: &str) -> Self {
        Self {
            server: server.place(),
            id: id.to_owned(),
            secret: None,
            redirect_uri: redirect_uri.to_owned(),
            browser: Browser::default(),
        }
    }

    /// The same client in another browser.
    pub(crate) fn elsewhere(&self) -> Self {
        Self {
            server: self.server.clone(),
            id: self.id.clone(),
            secret: self.secret.clone(),
            redirect_uri: self.redirect_uri.clone(),
            browser: Browser::default(),
        }
    }

    /// The URL a client opens; `set` replaces or adds parameters, an empty value removes one.
    pub(crate) fn authorize_url(&self, set: &[(&str, &str)]) -> String {
        let challenge = challenge_of(VERIFIER);
        let resource = self.server.mcp_url();
        let mut params: Vec<(&str, &str)> = vec![
            ("response_type", "code"),
            ("client_id", &self.id),
            ("redirect_uri", &self.redirect_uri),
            ("state", "client-state"),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
            ("resource", &resource),
            ("scope", "read:todos create:todos delete:todos"),
        ];
        params.retain(|(name, _)| !set.iter().any(|(known, _)| known == name));
        params.extend(set.iter().filter(|(_, value)| !value.is_empty()));
        format!("{}?{}", self.server.at("/authorize"), encode(&params))
    }

    /// The same client with the browser of somebody else at these pages.
    pub(crate) fn with_browser(mut self, browser: &Browser) -> Self {
        self.browser = browser.clone();
        self
    }

    /// Opens the consent page.
    pub(crate) async fn ask(&self, set: &[(&str, &str)]) -> (Answer, Form) {
        let url = self.authorize_url(set);
        let page = self.browser.get(&url).await;
        page.assert_page(200);
        let form = Form::of(&page, &url);
        (page, form)
    }

    pub(crate) async fn decide(&self, form: &Form, decision: &str) -> Answer {
        let fields = form.with(&[("decision", decision)]);
        self.browser.post(&form.action, &fields, &self.server.url).await
    }

    /// Asks and approves; answers the URL of the identity provider.
    pub(crate) async fn approve(&self, set: &[(&str, &str)]) -> String {
        let (_, form) = self.ask(set).await;
        let answer = self.decide(&form, "approve").await;
        answer.assert_leads_to(&self.server.idp);
        answer.location().to_owned()
    }

    /// Signs in at the identity provider; answers the URL of our callback.
    pub(crate) async fn log_in(&self, idp_url: &str, person: &str) -> String {
        let page = self.browser.get(idp_url).await;
        let answer = if page.status == 200 {
            let form = Form::of(&page, idp_url);
            let fields = form.with(&[("username", person), ("password", person)]);
            self.browser.post(&form.action, &fields, idp_url).await
        } else {
            page // a live session there: straight back
        };
        answer.assert_leads_to(&self.server.at("/auth/callback"));
        answer.location().to_owned()
    }

    /// The whole way through the browser; answers what the client receives.
    pub(crate) async fn authorize(&self, person: &str, set: &[(&str, &str)]) -> Answer {
        let idp_url = self.approve(set).await;
        let callback = self.log_in(&idp_url, person).await;
        self.browser.get(&callback).await
    }

    /// The whole way to a code.
    pub(crate) async fn code(&self, person: &str) -> String {
        let answer = self.authorize(person, &[]).await;
        answer.assert_leads_to(&self.redirect_uri);
        answer.location_param("code").unwrap()
    }

    pub(crate) async fn token(&self, form: &[(&str, &str)]) -> Answer {
        let mut all = vec![("client_id", self.id.as_str())];
        if let Some(secret) = &self.secret {
            all.push(("client_secret", secret));
        }
        all.retain(|(name, _)| !form.iter().any(|(known, _)| known == name));
        all.extend(form.iter().filter(|(_, value)| !value.is_empty()));
        self.server.http.post_form(&self.server.at("/token"), &all, &[]).await
    }

    pub(crate) async fn redeem(&self, code: &str) -> Answer {
        self.redeem_with(code, &[]).await
    }

    pub(crate) async fn redeem_with(&self, code: &str, set: &[(&str, &str)]) -> Answer {
        let resource = self.server.mcp_url();
        let mut form: Vec<(&str, &str)> = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &self.redirect_uri),
            ("code_verifier", VERIFIER),
            ("resource", &resource),
        ];
        form.retain(|(name, _)| !set.iter().any(|(known, _)| known == name));
        form.extend_from_slice(set);
        self.token(&form).await
    }

    pub(crate) async fn refresh(&self, refresh_token: &str) -> Answer {
        self.refresh_with(refresh_token, &[]).await
    }

    pub(crate) async fn refresh_with(&self, refresh_token: &str, set: &[(&str, &str)]) -> Answer {
        let mut form = vec![("grant_type", "refresh_token"), ("refresh_token", refresh_token)];
        form.extend_from_slice(set);
        self.token(&form).await
    }

    /// The same refresh many times at once.
    pub(crate) async fn refresh_at_once(&self, refresh_token: &str, times: usize) -> Vec<Answer> {
        join_all((0..times).map(|_| self.refresh(refresh_token))).await
    }

    pub(crate) async fn revoke(&self, token: &str) -> Answer {
        let mut form = vec![("client_id", self.id.as_str()), ("token", token)];
        if let Some(secret) = &self.secret {
            form.push(("client_secret", secret));
        }
        self.server.http.post_form(&self.server.at("/revoke"), &form, &[]).await
    }

    pub(crate) async fn sign_in(&self, person: &str) -> Tokens {
        let code = self.code(person).await;
        Tokens::of(&self.redeem(&code).await)
    }

    /// A JSON-RPC request through the gateway, stateless (MCP 2026-07-28).
    pub(crate) async fn rpc(&self, access_token: &str, method: &str, params: Value) -> Answer {
        self.rpc_at(&self.server.mcp_url(), access_token, method, params, &[]).await
    }

    /// The same to another spelling of the URL, with further headers.
    pub(crate) async fn rpc_at(
        &self,
        url: &str,
        access_token: &str,
        method: &str,
        params: Value,
        further: &[(&str, &str)],
    ) -> Answer {
        let name = params.get("name").and_then(Value::as_str).map(str::to_owned);
        let authorization = format!("Bearer {access_token}");
        let mut headers = vec![
            ("authorization", authorization.as_str()),
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", method),
        ];
        if let Some(name) = &name {
            headers.push(("mcp-name", name));
        }
        headers.extend_from_slice(further);
        let mut params = params;
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        self.server.http.post_json(url, &body, &headers).await
    }

    pub(crate) async fn call_tool(
        &self,
        access_token: &str,
        tool: &str,
        arguments: Value,
    ) -> Answer {
        self.rpc(access_token, "tools/call", json!({ "name": tool, "arguments": arguments })).await
    }
}
