//! Discovery: RFC 8414, OpenID Connect Discovery, RFC 9728, and the public keys (JWKS).
//!
//! Every document except the keys is built once, at start, from the configuration alone. No request header
//! can change a byte of it (threat HH-01).

use aws_lc_rs::digest::{SHA256, digest};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::app::App;
use crate::config::{Config, LANGUAGES, ResourceConfig, paths};
use crate::jose::alg::{Alg, FROM_CLIENTS};
use crate::oauth::exchange;
use crate::oauth::scope::ScopeSet;

/// Cache lifetime of the documents: 300 seconds.
const CACHE: HeaderValue = HeaderValue::from_static("public, max-age=300");

/// Returns the routes of all documents, at each path where a client of any MCP revision looks.
pub(super) fn routes(app: &App) -> Router<App> {
    let config = app.config();
    let server = ServerMetadata::of(server_metadata, config);
    let openid = ServerMetadata::of(openid_configuration, config);
    let mut router = Router::new()
        .route(paths::SERVER_METADATA, server.serve())
        .route(paths::OPENID_CONFIGURATION, openid.serve())
        .route(paths::JWKS, get(jwks));
    for resource in &config.resources {
        // A resource without a path here is hosted elsewhere and publishes its own metadata.
        let Some(path) = &resource.path else { continue };
        let metadata = document(&resource_metadata(config, resource));
        router = router
            .route(&format!("{}{path}", paths::RESOURCE_METADATA), serve(&metadata))
            .route(&format!("{}{path}/", paths::RESOURCE_METADATA), serve(&metadata))
            .route(&format!("{path}{}", paths::RESOURCE_METADATA), serve(&metadata))
            .route(&format!("{}{path}", paths::SERVER_METADATA), server.serve())
            // RFC 8414 inserts the well-known part before the path. Some clients append it, as OpenID
            // Connect does.
            .route(&format!("{path}{}", paths::SERVER_METADATA), server.serve())
            .route(&format!("{}{path}", paths::OPENID_CONFIGURATION), openid.serve())
            .route(&format!("{path}{}", paths::OPENID_CONFIGURATION), openid.serve());
    }
    if let Some(default) = app.default_resource().filter(|resource| resource.path.is_some()) {
        let metadata = document(&resource_metadata(config, default));
        router = router.route(paths::RESOURCE_METADATA, serve(&metadata));
    }
    router
}

/// A serialized document with its `ETag`.
#[derive(Clone)]
struct Document {
    body: Bytes,
    etag: HeaderValue,
}

fn document(value: &Value) -> Document {
    Document::new(&value.to_string())
}

impl Document {
    fn new(json: &str) -> Self {
        let hash = digest(&SHA256, json.as_bytes());
        let etag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&hash.as_ref()[..16]));
        let etag = HeaderValue::from_str(&etag).unwrap_or(HeaderValue::from_static("\"\""));
        Self { body: Bytes::copy_from_slice(json.as_bytes()), etag }
    }

    /// Returns the document, or 304 if the client already has this version (RFC 9110 §13.1.2).
    fn answer(&self, request: &HeaderMap) -> Response {
        let known = request.get_all(header::IF_NONE_MATCH).iter().any(|known| {
            let known = known.to_str().unwrap_or_default();
            known
                .split(',')
                .map(|tag| tag.trim().trim_start_matches("W/"))
                .any(|tag| tag == "*" || tag.as_bytes() == self.etag.as_bytes())
        });
        let headers = [
            (header::CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (header::CACHE_CONTROL, CACHE),
            (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
            (header::ETAG, self.etag.clone()),
        ];
        if known {
            let [_, cache, _, etag] = headers;
            return (StatusCode::NOT_MODIFIED, [cache, etag]).into_response();
        }
        (headers, self.body.clone()).into_response()
    }
}

fn serve(document: &Document) -> axum::routing::MethodRouter<App> {
    let document = document.clone();
    get(move |headers: HeaderMap| async move { document.answer(&headers) })
}

/// Metadata about this server in two versions: with and without support for client ID metadata documents. In
/// the demo the support depends on whether it reaches the network.
#[derive(Clone)]
struct ServerMetadata {
    offering: Document,
    plain: Document,
}

impl ServerMetadata {
    fn of(metadata: fn(&Config, bool) -> Value, config: &Config) -> Self {
        Self {
            offering: document(&metadata(config, true)),
            plain: document(&metadata(config, false)),
        }
    }

    fn serve(&self) -> axum::routing::MethodRouter<App> {
        let both = self.clone();
        get(move |State(app): State<App>, headers: HeaderMap| async move {
            let offers = app.clients().offers_documents();
            if offers { both.offering.answer(&headers) } else { both.plain.answer(&headers) }
        })
    }
}

async fn jwks(State(app): State<App>, headers: HeaderMap) -> Response {
    Document::new(&app.keys().published().await).answer(&headers)
}

/// RFC 8414 §2. States only what is true, and leaves out empty lists.
fn server_metadata(config: &Config, offers_documents: bool) -> Value {
    let at = |path: &str| config.public_url.join(path);
    let resources: Vec<&str> = config.resources.iter().map(|r| r.id.as_str()).collect();
    let auth_methods = ["none", "client_secret_post", "client_secret_basic", "private_key_jwt"];
    let signing_algs = FROM_CLIENTS.map(Alg::as_str);
    let mut document = json!({
        "issuer": config.public_url.as_str(),
        "authorization_endpoint": at(paths::AUTHORIZE),
        "token_endpoint": at(paths::TOKEN),
        "registration_endpoint": at(paths::REGISTER),
        "revocation_endpoint": at(paths::REVOKE),
        "jwks_uri": at(paths::JWKS),
        "scopes_supported": scopes_supported(config),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_methods_supported": auth_methods,
        "token_endpoint_auth_signing_alg_values_supported": signing_algs,
        "revocation_endpoint_auth_methods_supported": auth_methods,
        "revocation_endpoint_auth_signing_alg_values_supported": signing_algs,
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": true,
        "protected_resources": resources,
        "ui_locales_supported": LANGUAGES,
    });
    if config.offers_token_exchange() {
        document["grant_types_supported"] =
            json!(["authorization_code", "refresh_token", exchange::GRANT_TYPE]);
    }
    if config.offers_introspection() {
        let asking = config.resources.iter().filter(|r| r.introspection_secret.is_some());
        document["introspection_endpoint"] = json!(at(paths::INTROSPECT));
        document["introspection_endpoint_auth_methods_supported"] =
            json!(["client_secret_basic", "client_secret_post"]);
        document["introspection_signing_alg_values_supported"] = json!(algs(asking));
    }
    if offers_documents {
        document["client_id_metadata_document_supported"] = json!(true);
    }
    document
}

/// Returns the signing algorithms of these resources' tokens, without duplicates.
fn algs<'a>(resources: impl Iterator<Item = &'a ResourceConfig>) -> Vec<&'static str> {
    let mut algs: Vec<&str> = resources.map(|resource| resource.token_alg.as_str()).collect();
    algs.sort_unstable();
    algs.dedup();
    algs
}

/// Returns the same document for clients that only know OpenID Connect Discovery, with the members that it
/// requires. RS256 must be listed (OpenID Connect Discovery §3), or validators refuse the document. There is
/// no `openid` scope and no userinfo endpoint, because no ID tokens are issued in any algorithm.
fn openid_configuration(config: &Config, offers_documents: bool) -> Value {
    let mut document = server_metadata(config, offers_documents);
    document["subject_types_supported"] = json!(["public"]);
    let mut algs = algs(config.resources.iter());
    if !algs.contains(&"RS256") {
        algs.push("RS256");
    }
    document["id_token_signing_alg_values_supported"] = json!(algs);
    document
}

/// Returns every scope of every resource, and `offline_access`, which some clients request for a refresh
/// token.
fn scopes_supported(config: &Config) -> Vec<String> {
    let mut scopes: Vec<String> = Vec::new();
    let declared = config.resources.iter().flat_map(|resource| &resource.scopes);
    for scope in declared.map(|known| &known.scope) {
        if !scopes.iter().any(|known| known == scope.as_str()) {
            scopes.push(scope.to_string());
        }
    }
    scopes.push("offline_access".to_owned());
    scopes
}

/// Returns every declared scope of every resource as one string: the scopes that any client may request.
pub(super) fn every_scope(config: &Config) -> String {
    let declared = config.resources.iter().map(|resource| &resource.policy.declared);
    declared.fold(ScopeSet::default(), |all, declared| all.union(declared)).to_string()
}

/// RFC 9728 §2.
fn resource_metadata(config: &Config, resource: &ResourceConfig) -> Value {
    let mut document = json!({
        "resource": resource.id,
        "authorization_servers": [config.public_url.as_str()],
        "bearer_methods_supported": ["header"],
    });
    let scopes: Vec<String> =
        resource.policy.default_scopes.iter().map(ToString::to_string).collect();
    if !scopes.is_empty() {
        document["scopes_supported"] = json!(scopes);
    }
    if let Some(name) = &resource.name {
        document["resource_name"] = json!(name);
    }
    document
}
