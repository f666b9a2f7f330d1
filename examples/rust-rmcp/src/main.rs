//! Dice, with rmcp: a server that verifies Portcullis' tokens itself.

mod tokens;

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header, request::Parts};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router, routing::get};
use rmcp::handler::server::tool::Extension;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{ServerCapabilities, ServerConfig};
use rmcp::transport::streamable_http_server::session::never::NeverSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, schemars, tool, tool_handler, tool_router};
use serde_json::json;

use tokens::{Caller, Tokens, Unproven};

const ROLL: &str = "roll:dice";
const LOAD: &str = "load:dice";

/// How much of a refused request is read.
const MAX_UNREAD: usize = 64 * 1024;

#[derive(Clone)]
struct Dice;

#[derive(serde::Deserialize, schemars::JsonSchema)]
struct Die {
    /// How many sides the die has
    sides: u32,
}

#[tool_router]
impl Dice {
    #[tool(description = "Rolls a die")]
    fn roll(&self, Parameters(Die { sides }): Parameters<Die>) -> String {
        let thrown = RandomState::new().hash_one(0_u8) % u64::from(sides.max(1));
        (thrown + 1).to_string()
    }

    #[tool(description = "Rolls a die that always shows its highest side")]
    fn roll_loaded(
        &self,
        Parameters(Die { sides }): Parameters<Die>,
        Extension(parts): Extension<Parts>,
    ) -> Result<String, String> {
        match parts.extensions.get::<Caller>() {
            Some(caller) if caller.may(LOAD) => Ok(format!("{sides}, {}", caller.sub)),
            _ => Err(format!("This needs the permission {LOAD}.")),
        }
    }
}

#[tool_handler]
impl ServerHandler for Dice {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}

struct Guard {
    tokens: Tokens,
    metadata_url: String,
}

/// Lets requests with a good token through, and says who calls.
async fn guard(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let token = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("Bearer"))
        .map(|(_, token)| token.to_owned());
    let refusal = match token {
        None => guard.challenge(StatusCode::UNAUTHORIZED, None),
        Some(token) => match guard.tokens.verify(&token).await {
            Ok(caller) if caller.may(ROLL) => {
                request.extensions_mut().insert(caller);
                return next.run(request).await;
            }
            Ok(_) => guard.challenge(StatusCode::FORBIDDEN, Some("insufficient_scope")),
            Err(Unproven::Invalid) => {
                guard.challenge(StatusCode::UNAUTHORIZED, Some("invalid_token"))
            }
            Err(Unproven::NoKeys) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        },
    };
    // Read what was sent, or the connection is cut while the client still writes, and the answer may be lost.
    let reading = to_bytes(request.into_body(), MAX_UNREAD);
    let _ = tokio::time::timeout(Duration::from_secs(1), reading).await;
    refusal
}

impl Guard {
    /// RFC 6750 §3, RFC 9728 §5.1: what is wrong, and where a client gets a token.
    fn challenge(&self, status: StatusCode, error: Option<&str>) -> Response {
        let error = error.map(|code| format!("error=\"{code}\", ")).unwrap_or_default();
        let Self { metadata_url, .. } = self;
        let words =
            format!("Bearer {error}resource_metadata=\"{metadata_url}\", scope=\"{ROLL} {LOAD}\"");
        let mut response = status.into_response();
        if let Ok(value) = HeaderValue::from_str(&words) {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, value);
        }
        response
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let set = |name: &str, default: String| std::env::var(name).unwrap_or(default);
    let port: u16 = set("PORT", "9007".to_owned()).parse()?;
    // `id` of the resource and `public_url` of Portcullis, byte for byte.
    let mcp_url = set("MCP_URL", format!("http://127.0.0.1:{port}/mcp"));
    let issuer = set("ISSUER", "http://127.0.0.1:8000".to_owned());

    let url = reqwest::Url::parse(&mcp_url)?;
    let metadata_path = format!("/.well-known/oauth-protected-resource{}", url.path());
    let metadata = json!({
        "resource": mcp_url,
        "authorization_servers": [issuer],
        "scopes_supported": [ROLL, LOAD],
        "bearer_methods_supported": ["header"],
    });
    let metadata_url = format!("{}{metadata_path}", url.origin().ascii_serialization());
    let state = Arc::new(Guard { tokens: Tokens::new(&issuer, &mcp_url), metadata_url });

    // No sessions: each request identifies its caller.
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_allowed_hosts(url.host_str())
        .enforce_origin_validation();
    let sessions = Arc::new(NeverSessionManager::default());
    let dice = StreamableHttpService::new(|| Ok(Dice), sessions, config);
    let app = Router::new()
        .nest_service(url.path(), dice)
        .route_layer(from_fn_with_state(state, guard))
        .route(&metadata_path, get(move || async move { Json(metadata) }));
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    axum::serve(listener, app).await?;
    Ok(())
}
