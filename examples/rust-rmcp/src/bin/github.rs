//! What you have on GitHub, with rmcp behind the gateway: the person's token by header, and by exchange.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::request::Parts;
use reqwest::{StatusCode, Url, header};
use rmcp::handler::server::tool::Extension;
use rmcp::model::{ServerCapabilities, ServerConfig};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, tool, tool_handler, tool_router};
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Clone)]
struct GitHub {
    http: reqwest::Client,
    /// `public_url` of Portcullis.
    issuer: String,
    /// `public_url` and the resource's `path`.
    mcp_url: String,
    /// `introspection_secret` of the resource.
    secret: String,
    /// The API that the tokens are for.
    api: String,
}

/// What Portcullis answers to an exchange (RFC 8693 §2.2).
#[derive(Deserialize)]
struct Exchanged {
    access_token: Option<String>,
    connect_url: Option<String>,
    error_description: Option<String>,
}

#[derive(Deserialize)]
struct Account {
    login: String,
}

#[derive(Deserialize)]
struct Repository {
    full_name: String,
}

/// A header that the gateway set. Nobody but the gateway reaches this port, and clients cannot send it.
fn from_gateway<'a>(parts: &'a Parts, name: &str) -> Result<&'a str, String> {
    let value = parts.headers.get(name).and_then(|value| value.to_str().ok());
    value.ok_or_else(|| format!("The gateway sent no {name}."))
}

#[tool_router]
impl GitHub {
    #[tool(description = "Says which GitHub account you use")]
    async fn who_am_i(&self, Extension(parts): Extension<Parts>) -> Result<String, String> {
        // By header.
        let token = from_gateway(&parts, "x-github-token")?;
        let Account { login } = self.ask(token, "/user").await?;
        Ok(login)
    }

    #[tool(description = "Lists your repositories on GitHub")]
    async fn my_repositories(&self, Extension(parts): Extension<Parts>) -> Result<String, String> {
        // By exchange: this tool asks for the token itself, only when it needs one.
        let token = self.exchange(from_gateway(&parts, "x-portcullis-assertion")?).await?;
        let found: Vec<Repository> = self.ask(&token, "/user/repos").await?;
        let names: Vec<String> = found.into_iter().map(|found| found.full_name).collect();
        Ok(names.join("\n"))
    }
}

impl GitHub {
    /// Exchanges the gateway's assertion about this call for the caller's token of GitHub (RFC 8693).
    async fn exchange(&self, assertion: &str) -> Result<String, String> {
        let url = Url::parse(&format!("{}/token", self.issuer)).map_err(describe)?;
        let mut form = url.clone();
        form.query_pairs_mut()
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
            .append_pair("subject_token", assertion)
            .append_pair("subject_token_type", "urn:ietf:params:oauth:token-type:jwt")
            .append_pair("audience", "github"); // the name of the connection
        let request = self
            .http
            .post(url)
            .basic_auth(&self.mcp_url, Some(&self.secret))
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.query().unwrap_or_default().to_owned());
        let answer = request.send().await.map_err(describe)?;
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
            return Err("GitHub does not answer now. Try again in a moment.".to_owned());
        }
        let Exchanged { access_token, connect_url, error_description } =
            answer.json().await.map_err(describe)?;
        if let Some(url) = connect_url {
            return Err(format!("Connect your GitHub account here, then try again: {url}"));
        }
        access_token.ok_or_else(|| error_description.unwrap_or_default())
    }

    async fn ask<T: DeserializeOwned>(&self, token: &str, path: &str) -> Result<T, String> {
        let request = self.http.get(format!("{}{path}", self.api)).bearer_auth(token);
        // GitHub wants to know which program asks.
        let request = request.header(header::USER_AGENT, "portcullis-example-rmcp");
        let answer = request.send().await.and_then(reqwest::Response::error_for_status);
        answer.map_err(describe)?.json().await.map_err(describe)
    }
}

/// The words of an error. Those of reqwest name the address, and never a header.
fn describe(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[tool_handler]
impl ServerHandler for GitHub {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let set = |name: &str, default: String| std::env::var(name).unwrap_or(default);
    let port: u16 = set("PORT", "9015".to_owned()).parse()?;
    let issuer = set("ISSUER", "http://127.0.0.1:8000".to_owned());
    let github = GitHub {
        http: reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .build()?,
        mcp_url: set("MCP_URL", format!("{issuer}/github-rust")),
        secret: std::env::var("MCP_SERVER_SECRET")?,
        api: set("GITHUB_API", "https://api.github.com".to_owned()),
        issuer,
    };
    // No sessions: each request brings the headers of its own call.
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .enforce_origin_validation();
    let sessions = Arc::new(NeverSessionManager::default());
    let service = StreamableHttpService::new(move || Ok(github.clone()), sessions, config);
    let app = Router::new().nest_service("/mcp", service);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, app).await?;
    Ok(())
}
