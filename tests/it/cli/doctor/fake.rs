//! A server in front of nothing, with a switch for each fault.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A server with faults on purpose; the default has none.
#[derive(Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fault of its own")]
pub(super) struct Faults {
    /// Status without a token.
    pub(super) open: Option<u16>,
    pub(super) get_is_405: bool,
    pub(super) bare_challenge: bool,
    pub(super) no_resource_metadata: bool,
    pub(super) html_for_everything: bool,
    pub(super) breaks_at_metadata: bool,
    pub(super) resource: Option<&'static str>,
    pub(super) issuer: Option<&'static str>,
    pub(super) named_issuer: Option<&'static str>,
    pub(super) server_metadata_appended_only: bool,
    pub(super) no_server_metadata: bool,
    pub(super) no_s256: bool,
    pub(super) no_registration: bool,
    pub(super) registration: Option<Value>,
    pub(super) no_secrets: bool,
    pub(super) refuses_registration: bool,
    pub(super) token_is_html: bool,
    pub(super) authorize_refuses: bool,
    pub(super) unknown_client_redirects: bool,
    pub(super) no_iss: bool,
    pub(super) no_cors: bool,
    pub(super) other_endpoints: bool,
    pub(super) no_offline_access: bool,
    pub(super) empty_scopes: bool,
}

#[derive(Clone)]
pub(super) struct Fake {
    pub(super) url: String,
    pub(super) faults: Arc<Mutex<Faults>>,
}

impl Fake {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fake = Self { url, faults: Arc::default() };
        let serving = fake.clone();
        let router = Router::new().fallback(move |request: Request| {
            let fake = serving.clone();
            async move { fake.serve(request).await }
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    async fn serve(&self, request: Request) -> Response {
        let faults = self.faults.lock().unwrap().clone();
        let (parts, body) = request.into_parts();
        let body = axum::body::to_bytes(body, 100_000).await.unwrap();
        let query = parts.uri.query().unwrap_or_default();
        let mut response = if parts.method == "OPTIONS" {
            preflight(&faults)
        } else {
            self.answer(&faults, parts.method.as_str(), parts.uri.path(), query, &body)
        };
        if !faults.no_cors {
            response.headers_mut().insert("access-control-allow-origin", "*".parse().unwrap());
        }
        response
    }

    fn answer(
        &self,
        faults: &Faults,
        method: &str,
        path: &str,
        query: &str,
        body: &[u8],
    ) -> Response {
        let json = |value: Value| ([(header::CONTENT_TYPE, "application/json")], value.to_string());
        let authorize = if faults.other_endpoints { "/oauth/authorize" } else { "/authorize" };
        let param = |name: &str| {
            form_urlencoded::parse(query.as_bytes())
                .find(|(n, _)| n == name)
                .map(|(_, v)| v.into_owned())
        };
        match path {
            "/mcp" if faults.get_is_405 && method == "GET" => {
                StatusCode::METHOD_NOT_ALLOWED.into_response()
            }
            "/mcp" => self.mcp(faults),
            "/.well-known/oauth-protected-resource/mcp" if faults.breaks_at_metadata => {
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
            "/.well-known/oauth-protected-resource/mcp" if !faults.no_resource_metadata => {
                json(self.resource_metadata(faults)).into_response()
            }
            "/.well-known/oauth-authorization-server" if !faults.no_server_metadata => {
                json(self.server_metadata(faults)).into_response()
            }
            "/t/.well-known/oauth-authorization-server" if faults.server_metadata_appended_only => {
                json(self.server_metadata(faults)).into_response()
            }
            _ if path == authorize => {
                let (client_id, uri) =
                    (param("client_id").unwrap(), param("redirect_uri").unwrap());
                if client_id != "known" {
                    let status = if faults.unknown_client_redirects { 302 } else { 400 };
                    return StatusCode::from_u16(status).unwrap().into_response();
                }
                let error = if faults.authorize_refuses {
                    "invalid_scope"
                } else if param("response_type").as_deref() == Some("code") {
                    return "<h1>Consent</h1>".into_response();
                } else {
                    "unsupported_response_type"
                };
                let iss = if faults.no_iss { String::new() } else { format!("&iss={}", self.url) };
                let to = format!("{uri}?error={error}{iss}");
                (StatusCode::FOUND, [(header::LOCATION, to)]).into_response()
            }
            "/token" if faults.token_is_html => "<h1>Not found</h1>".into_response(),
            "/token" => {
                (StatusCode::BAD_REQUEST, json(json!({ "error": "invalid_grant" }))).into_response()
            }
            "/register" if faults.refuses_registration => {
                let error = json!({ "error": "invalid_redirect_uri" });
                (StatusCode::BAD_REQUEST, json(error)).into_response()
            }
            "/register" => {
                let asked: Value = serde_json::from_slice(body).unwrap();
                let mut answer = faults.registration.clone().unwrap_or_else(
                    || json!({ "client_id": "known", "redirect_uris": asked["redirect_uris"] }),
                );
                if !faults.no_secrets && asked["token_endpoint_auth_method"] == "client_secret_post"
                {
                    answer["client_secret"] = "s".into();
                }
                (StatusCode::CREATED, json(answer)).into_response()
            }
            _ if faults.html_for_everything => "<!doctype html>".into_response(),
            _ => StatusCode::NOT_FOUND.into_response(),
        }
    }

    fn mcp(&self, faults: &Faults) -> Response {
        let status = StatusCode::from_u16(faults.open.unwrap_or(401)).unwrap();
        let url = format!("{}/.well-known/oauth-protected-resource/mcp", self.url);
        let challenge = if faults.bare_challenge || faults.no_resource_metadata {
            "Bearer".to_owned()
        } else {
            format!("Bearer resource_metadata=\"{url}\", scope=\"read\"")
        };
        (status, [(header::WWW_AUTHENTICATE, challenge)]).into_response()
    }

    fn filled(&self, text: &str) -> String {
        text.replace("{}", &self.url)
    }

    fn resource_metadata(&self, faults: &Faults) -> Value {
        json!({
            "resource": self.filled(faults.resource.unwrap_or("{}/mcp")),
            "authorization_servers": [self.filled(faults.named_issuer.unwrap_or("{}"))],
            "scopes_supported": if faults.empty_scopes { json!([]) } else { json!(["read"]) },
        })
    }

    fn server_metadata(&self, faults: &Faults) -> Value {
        let below = if faults.other_endpoints { "/oauth" } else { "" };
        let mut document = json!({
            "issuer": self.filled(faults.issuer.unwrap_or("{}")),
            "authorization_endpoint": format!("{}{below}/authorize", self.url),
            "token_endpoint": format!("{}/token", self.url),
            "scopes_supported": if faults.no_offline_access { json!(["read"]) } else { json!(["read", "offline_access"]) },
            "authorization_response_iss_parameter_supported": true,
            "token_endpoint_auth_methods_supported": ["none", "client_secret_post"],
        });
        if !faults.no_s256 {
            document["code_challenge_methods_supported"] = json!(["S256"]);
        }
        if !faults.no_registration {
            document["registration_endpoint"] = format!("{}/register", self.url).into();
        }
        document
    }
}

fn preflight(faults: &Faults) -> Response {
    if faults.no_cors {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let headers =
        [("access-control-allow-headers", "authorization, content-type, mcp-protocol-version")];
    (StatusCode::NO_CONTENT, headers).into_response()
}
