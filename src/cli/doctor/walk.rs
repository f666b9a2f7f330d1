//! Discovery as one client performs it, from the MCP URL to the endpoints.

use serde_json::{Value, json};

use super::clients::{FirstRequest, Issuer};
use super::documents::DocumentSearch;
use super::visit::Visit;
use super::wire::{Ask, Reply};

pub(super) struct Found {
    /// Scopes that the client would request.
    pub(super) scope: Option<String>,
    /// The `resource` that the client would send.
    pub(super) resource: Option<String>,
    /// Server metadata; null if the client uses the default endpoints.
    pub(super) server: Value,
    pub(super) authorization_endpoint: String,
    pub(super) token_endpoint: String,
    pub(super) registration_endpoint: Option<String>,
    /// URLs of the documents that it read, for clients in web pages.
    pub(super) documents: Vec<String>,
}

impl Visit<'_> {
    /// Performs discovery from the MCP URL to the endpoints; `None` if the client fails before.
    pub(super) async fn discover(&mut self) -> Option<Found> {
        let challenge = self.knock().await?;
        let version = self.version();
        let resource = self.search_resource(challenge.metadata.as_deref(), version).await;
        let mut documents = Vec::new();
        let (issuer, resource) = match resource {
            DocumentSearch::Ended => return None,
            DocumentSearch::Nothing => (None, None),
            DocumentSearch::Found(url, document) => {
                let read = self.resource_metadata(&url, &document)?;
                documents.push(url);
                (Some(read), Some(document))
            }
        };
        let server = self.server_metadata(issuer.as_deref(), version).await?;
        documents.extend(server.as_ref().map(|(url, _)| url.clone()));
        let server = server.map_or(Value::Null, |(_, document)| document);
        if let Some(issuer) = &issuer {
            self.issuer(issuer, &server)?;
        }
        self.endpoints(challenge.scope, resource.as_ref(), server, documents)
    }

    fn version(&self) -> &'static str {
        match self.client.first {
            FirstRequest::Get => "2024-11-05",
            FirstRequest::Initialize(version) => version,
            FirstRequest::Discover => "2026-07-28",
        }
    }

    /// Sends the first request, without a token.
    async fn knock(&mut self) -> Option<SeenChallenge> {
        let url = self.mcp.to_string();
        let ask = match self.client.first {
            FirstRequest::Get => Ask::get(&url).with("accept", "*/*"),
            FirstRequest::Initialize(version) => {
                let params = json!({
                    "protocolVersion": version, "capabilities": {},
                    "clientInfo": { "name": "portcullis-doctor", "version": "1" },
                });
                let body =
                    json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
                Ask::post(&url, "application/json", body.to_string())
                    .with("accept", "application/json, text/event-stream")
            }
            FirstRequest::Discover => {
                let meta = json!({
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientInfo": { "name": "portcullis-doctor", "version": "1" },
                    "io.modelcontextprotocol/clientCapabilities": {},
                });
                let params = json!({ "_meta": meta });
                let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": params });
                Ask::post(&url, "application/json", body.to_string())
                    .with("accept", "application/json, text/event-stream")
                    .with("mcp-method", "server/discover")
            }
        };
        let ask = ask.with("mcp-protocol-version", self.version());
        let reply = match self.wire.ask(&ask).await {
            Ok(reply) => reply,
            Err(cause) => {
                self.fail("challenge", cause, "check the URL, DNS, TLS and that the server runs");
                return None;
            }
        };
        if reply.status != 401 {
            self.fail(
                "challenge",
                format!("{} without a token is answered {}, not 401", ask.method, reply.status),
                "ask for the token before looking at anything else: method, Accept, protocol version, body",
            );
            return None;
        }
        Some(self.challenge(&reply))
    }

    fn challenge(&mut self, reply: &Reply) -> SeenChallenge {
        let value = reply.header("www-authenticate").unwrap_or_default();
        let challenge = SeenChallenge {
            metadata: parameter(value, "resource_metadata"),
            scope: parameter(value, "scope").filter(|scope| !scope.is_empty()),
        };
        if challenge.metadata.is_some() {
            self.ok("challenge", "401 with resource_metadata");
        } else {
            self.warn(
                "challenge",
                "401 names no resource_metadata; the client has to guess where it is",
                "send WWW-Authenticate: Bearer resource_metadata=\"…\" (RFC 9728 §5.1)",
            );
        }
        challenge
    }

    /// Checks whether this client accepts the metadata's issuer as the one that the resource names.
    fn issuer(&mut self, named: &str, server: &Value) -> Option<()> {
        const HINT: &str = "write the issuer the same in authorization_servers, in metadata and in iss, byte for byte";
        if server.is_null() {
            return Some(());
        }
        let issuer = server["issuer"].as_str().unwrap_or_default();
        let bare = |text: &str| text.trim_end_matches('/').to_owned();
        let accepts = match self.client.issuer {
            Issuer::Exact => issuer == named,
            Issuer::SlashAtResource => issuer == named || issuer == bare(named),
            Issuer::Slash => bare(issuer) == bare(named),
            Issuer::Anything => true,
        };
        let found = format!("metadata says {issuer:?}, the resource names {named:?}");
        if !accepts {
            self.fail("issuer", found, HINT);
            return None;
        }
        if issuer == named {
            self.ok("issuer", issuer);
        } else {
            self.warn("issuer", found, HINT);
        }
        Some(())
    }

    fn endpoints(
        &mut self,
        challenge: Option<String>,
        resource: Option<&Value>,
        server: Value,
        documents: Vec<String>,
    ) -> Option<Found> {
        let origin = self.mcp.origin().ascii_serialization();
        let named = |member: &str| server[member].as_str().map(str::to_owned);
        let (authorization, token, registration) = if server.is_null() {
            let at = |path: &str| Some(format!("{origin}{path}"));
            (at("/authorize"), at("/token"), at("/register"))
        } else {
            (
                named("authorization_endpoint"),
                named("token_endpoint"),
                named("registration_endpoint"),
            )
        };
        let (Some(authorization_endpoint), Some(token_endpoint)) = (authorization, token) else {
            self.fail(
                "server metadata",
                "it names no authorization_endpoint or no token_endpoint",
                "name both (RFC 8414 §2)",
            );
            return None;
        };
        let at_root = authorization_endpoint == format!("{origin}/authorize")
            && token_endpoint == format!("{origin}/token");
        self.root_endpoints(at_root);
        self.s256(&server)?;
        self.offline_access(&server);
        let of_resource = resource.and_then(|resource| joined(&resource["scopes_supported"]));
        let resource =
            resource.and_then(|resource| resource["resource"].as_str()).map(str::to_owned);
        Some(Found {
            scope: challenge.or(of_resource),
            resource,
            server,
            authorization_endpoint,
            token_endpoint,
            registration_endpoint: registration,
            documents,
        })
    }

    /// Warns if the endpoints are where this client may not look for them.
    fn root_endpoints(&mut self, at_root: bool) {
        if self.client.root_endpoints && !at_root {
            self.warn(
                "endpoints",
                "they are not /authorize and /token at the MCP server's origin; this client was often seen to use those whatever metadata says",
                "serve them there, on the same host as the MCP server",
            );
        }
    }

    /// Warns if this client will request no refresh token.
    fn offline_access(&mut self, server: &Value) {
        let scopes = joined(&server["scopes_supported"]);
        if self.client.wants_offline_access
            && !scopes.is_some_and(|scopes| scopes.contains("offline_access"))
        {
            self.warn(
                "scopes",
                "scopes_supported of the server lacks offline_access; this client then asks for no refresh token",
                "list offline_access in the server's metadata, not in the resource's",
            );
        }
    }

    fn s256(&mut self, server: &Value) -> Option<()> {
        const HINT: &str = "list S256 in code_challenge_methods_supported";
        const FOUND: &str = "metadata does not list S256";
        let listed = server["code_challenge_methods_supported"]
            .as_array()
            .is_some_and(|methods| methods.iter().any(|method| method == "S256"));
        if listed || server.is_null() {
            self.ok("pkce", "S256");
        } else if self.client.needs_s256 {
            self.fail("pkce", format!("{FOUND}, and this client refuses such a server"), HINT);
            return None;
        } else {
            self.warn("pkce", format!("{FOUND}; MCP tells clients to refuse such a server"), HINT);
        }
        Some(())
    }
}

/// The relevant parameters of the challenge in a 401 response.
struct SeenChallenge {
    metadata: Option<String>,
    scope: Option<String>,
}

/// Returns a quoted parameter of a challenge.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let (_, rest) = challenge.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value.to_owned())
}

fn joined(scopes: &Value) -> Option<String> {
    let scopes: Vec<&str> = scopes.as_array()?.iter().filter_map(Value::as_str).collect();
    Some(scopes.join(" ")).filter(|scopes| !scopes.is_empty())
}
