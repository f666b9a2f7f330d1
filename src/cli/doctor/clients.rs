//! Observed behaviour of each known client, one entry per client. Support for a new client, or a changed
//! behaviour, needs a change only here.

use url::Url;

/// A location where a client looks for a metadata document.
#[derive(Clone, Copy, Debug)]
pub(super) enum MetadataLocation {
    /// `/.well-known/{name}` before the path (RFC 8414 §3.1, RFC 9728 §3.1).
    Inserted(&'static str),
    /// `/.well-known/{name}` after the path (OpenID Connect Discovery §4).
    Appended(&'static str),
    /// `/.well-known/{name}` at the origin.
    Root(&'static str),
}

impl MetadataLocation {
    /// Returns the URL of this location for the issuer or resource `base`.
    pub(super) fn of(self, base: &Url) -> String {
        let origin = base.origin().ascii_serialization();
        let path = base.path().trim_end_matches('/');
        match self {
            Self::Inserted(name) => format!("{origin}/.well-known/{name}{path}"),
            Self::Appended(name) => format!("{origin}{path}/.well-known/{name}"),
            Self::Root(name) => format!("{origin}/.well-known/{name}"),
        }
    }
}

/// First request of a client, without a token.
#[derive(Clone, Copy, Debug)]
pub(super) enum FirstRequest {
    /// GET, regardless of the transport.
    Get,
    /// POST of `initialize` with this protocol revision.
    Initialize(&'static str),
    /// POST of `server/discover` (2026-07-28).
    Discover,
}

/// Difference between `issuer` and `authorization_servers` that a client tolerates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Issuer {
    /// None.
    Exact,
    /// A trailing slash in the value that the resource names.
    SlashAtResource,
    /// A trailing slash in either value.
    Slash,
    /// The client does not compare the values.
    Anything,
}

/// Values of `resource` that a client accepts for its MCP URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    /// Only the MCP URL.
    Exact,
    /// The MCP URL or its origin.
    Prefix,
    /// The MCP URL or its origin, with or without a trailing slash.
    PrefixOrSlash,
}

/// How a client becomes known to the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct RegistrationBehaviour {
    /// URL of its metadata document, used if the server supports such documents.
    pub(super) document: Option<&'static str>,
    /// Whether it uses the document only if the server lists the authentication method `none`.
    pub(super) document_needs_none: bool,
    /// Its registration request; the scope is added.
    pub(super) body: &'static str,
    /// Whether it requests a secret and fails without one.
    pub(super) wants_secret: bool,
}

/// A client and its behaviour.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "a row of a table: each is a habit of its own")]
pub(super) struct ClientProfile {
    pub(super) name: &'static str,
    pub(super) first: FirstRequest,
    pub(super) resource_metadata: &'static [MetadataLocation],
    pub(super) server_metadata: &'static [MetadataLocation],
    /// Locations of server metadata if there is no resource metadata.
    pub(super) legacy: &'static [MetadataLocation],
    /// Without any metadata, it uses `/authorize`, `/token` and `/register` at the origin.
    pub(super) default_endpoints: bool,
    /// It may use these paths at the origin even if the metadata names others.
    pub(super) root_endpoints: bool,
    /// An HTML page instead of a document ends its search.
    pub(super) dies_of_html: bool,
    /// A 5xx response instead of a document ends its search.
    pub(super) dies_of_5xx: bool,
    pub(super) issuer: Issuer,
    pub(super) resource: Resource,
    /// It rejects servers that do not list S256.
    pub(super) needs_s256: bool,
    /// It aborts if the server announces `iss` but does not send it.
    pub(super) checks_iss: bool,
    /// It rejects registration responses with nulls, empty URLs or without `redirect_uris`.
    pub(super) strict_registration: bool,
    /// It adds `prompt=consent` when it requests `offline_access`.
    pub(super) prompts: bool,
    /// It requests a refresh token only if the server lists the scope `offline_access`.
    pub(super) wants_offline_access: bool,
    /// It requests the authorization endpoint before it opens a browser, to see whether it must register
    /// again.
    pub(super) preflights: bool,
    /// It runs in a web page of this origin.
    pub(super) page: Option<&'static str>,
    /// It runs in its vendor's data centre.
    pub(super) hosted: bool,
    pub(super) registration: RegistrationBehaviour,
}

const PRM: &str = "oauth-protected-resource";
const OAUTH: &str = "oauth-authorization-server";
const OIDC: &str = "openid-configuration";

use MetadataLocation::{Appended, Inserted, Root};

const fn registers(body: &'static str) -> RegistrationBehaviour {
    RegistrationBehaviour { document: None, document_needs_none: false, body, wants_secret: false }
}

/// TypeScript SDK 1.x, the base of many clients.
const TS_1: ClientProfile = ClientProfile {
    name: "TypeScript SDK 1.x",
    first: FirstRequest::Initialize("2025-11-25"),
    resource_metadata: &[Inserted(PRM), Root(PRM)],
    server_metadata: &[Inserted(OAUTH), Inserted(OIDC), Appended(OIDC)],
    legacy: &[Root(OAUTH), Root(OIDC)],
    default_endpoints: true,
    root_endpoints: false,
    dies_of_html: true,
    dies_of_5xx: true,
    issuer: Issuer::Anything,
    resource: Resource::Prefix,
    needs_s256: false,
    checks_iss: false,
    strict_registration: true,
    prompts: false,
    wants_offline_access: false,
    preflights: false,
    page: None,
    hosted: false,
    registration: registers(
        r#"{"client_name":"ts-sdk","redirect_uris":["http://localhost:13031/callback"],"grant_types":["authorization_code","refresh_token"],"response_types":["code"]}"#,
    ),
};

const TS_2: ClientProfile = ClientProfile {
    name: "TypeScript client 2.x",
    issuer: Issuer::SlashAtResource,
    checks_iss: true,
    prompts: true,
    registration: registers(
        r#"{"client_name":"ts-client","redirect_uris":["http://localhost:13032/callback"],"grant_types":["authorization_code","refresh_token"],"response_types":["code"],"application_type":"native"}"#,
    ),
    ..TS_1
};

const PYTHON: ClientProfile = ClientProfile {
    name: "Python SDK",
    first: FirstRequest::Discover,
    legacy: &[Root(OAUTH)],
    default_endpoints: false,
    dies_of_html: false,
    dies_of_5xx: false,
    issuer: Issuer::Exact,
    resource: Resource::PrefixOrSlash,
    checks_iss: true,
    strict_registration: false,
    prompts: true,
    registration: registers(
        r#"{"response_types":["code"],"client_name":"py-mcp","redirect_uris":["http://localhost:13030/callback"],"grant_types":["authorization_code","refresh_token"],"application_type":"native"}"#,
    ),
    ..TS_1
};

const RMCP: ClientProfile = ClientProfile {
    name: "Rust SDK (rmcp)",
    first: FirstRequest::Get,
    resource_metadata: &[Inserted(PRM), Appended(PRM), Root(PRM)],
    server_metadata: &[Inserted(OAUTH), Inserted(OIDC), Appended(OIDC), Root(OAUTH)],
    legacy: &[Inserted(OAUTH), Inserted(OIDC), Appended(OIDC), Root(OAUTH)],
    default_endpoints: false,
    dies_of_html: false,
    dies_of_5xx: false,
    issuer: Issuer::Slash,
    checks_iss: true,
    registration: registers(
        r#"{"client_name":"rmcp","redirect_uris":["http://127.0.0.1:13034/callback"],"grant_types":["authorization_code","refresh_token"],"token_endpoint_auth_method":"none","response_types":["code"],"application_type":"native"}"#,
    ),
    ..TS_1
};

const INSPECTOR_2: ClientProfile = ClientProfile {
    name: "MCP Inspector 2.x",
    registration: registers(
        r#"{"redirect_uris":["http://localhost:6274/oauth/callback"],"token_endpoint_auth_method":"none","grant_types":["authorization_code","refresh_token"],"response_types":["code"],"client_name":"MCP Inspector","client_uri":"https://github.com/modelcontextprotocol/inspector","application_type":"native"}"#,
    ),
    ..TS_2
};

/// All known clients, the most used ones first, then the SDKs.
pub(super) const CLIENTS: &[ClientProfile] = &[
    ClientProfile {
        name: "Claude (web, desktop, phone)",
        first: FirstRequest::Initialize("2025-06-18"),
        root_endpoints: true,
        issuer: Issuer::Exact,
        resource: Resource::Exact,
        hosted: true,
        registration: RegistrationBehaviour {
            document: Some("https://claude.ai/oauth/mcp-oauth-client-metadata"),
            document_needs_none: true,
            body: r#"{"redirect_uris":["https://claude.ai/api/mcp/auth_callback"],"token_endpoint_auth_method":"client_secret_post","grant_types":["authorization_code","refresh_token"],"response_types":["code"],"client_name":"Claude"}"#,
            wants_secret: true,
        },
        ..TS_1
    },
    ClientProfile {
        name: "Claude Code",
        registration: RegistrationBehaviour {
            document: Some("https://claude.ai/oauth/claude-code-client-metadata"),
            document_needs_none: true,
            body: r#"{"client_name":"Claude Code","redirect_uris":["http://localhost:13036/callback"],"grant_types":["authorization_code","refresh_token"],"response_types":["code"],"token_endpoint_auth_method":"none"}"#,
            wants_secret: false,
        },
        ..TS_1
    },
    ClientProfile {
        name: "ChatGPT",
        first: FirstRequest::Initialize("2025-06-18"),
        issuer: Issuer::Exact,
        wants_offline_access: true,
        checks_iss: true,
        hosted: true,
        registration: RegistrationBehaviour {
            document: Some("https://chatgpt.com/oauth/client.json"),
            document_needs_none: false,
            body: r#"{"client_name":"ChatGPT","redirect_uris":["https://chatgpt.com/connector_platform_oauth_redirect"],"grant_types":["authorization_code","refresh_token"],"response_types":["code"],"token_endpoint_auth_method":"none"}"#,
            wants_secret: false,
        },
        ..TS_1
    },
    ClientProfile {
        name: "VS Code",
        resource: Resource::Exact,
        registration: RegistrationBehaviour {
            document: Some("https://vscode.dev/oauth/client-metadata.json"),
            document_needs_none: false,
            body: r#"{"client_name":"Visual Studio Code","redirect_uris":["http://127.0.0.1:33418","https://vscode.dev/redirect"],"grant_types":["authorization_code","refresh_token","urn:ietf:params:oauth:grant-type:device_code"],"response_types":["code"],"token_endpoint_auth_method":"none"}"#,
            wants_secret: false,
        },
        ..TS_1
    },
    ClientProfile {
        name: "Cursor",
        registration: registers(
            r#"{"client_name":"Cursor","redirect_uris":["cursor://anysphere.cursor-mcp/oauth/callback","https://www.cursor.com/agents/mcp/oauth/callback","http://localhost:8787/callback"],"grant_types":["authorization_code","refresh_token"],"response_types":["code"],"token_endpoint_auth_method":"none","application_type":"web"}"#,
        ),
        ..TS_1
    },
    ClientProfile {
        name: "Codex",
        registration: RegistrationBehaviour {
            document: Some("https://chatgpt.com/oauth/codex/client.json"),
            document_needs_none: false,
            body: r#"{"client_name":"Codex","redirect_uris":["http://127.0.0.1:13037/callback"],"grant_types":["authorization_code","refresh_token"],"token_endpoint_auth_method":"none","response_types":["code"],"application_type":"native"}"#,
            wants_secret: false,
        },
        ..RMCP
    },
    INSPECTOR_2,
    ClientProfile {
        name: "MCP Inspector 1.x (in the web page)",
        issuer: Issuer::Anything,
        checks_iss: false,
        prompts: false,
        page: Some("http://localhost:6274"),
        registration: registers(
            r#"{"redirect_uris":["http://localhost:6274/oauth/callback","http://localhost:6274/oauth/callback/debug"],"token_endpoint_auth_method":"none","grant_types":["authorization_code","refresh_token"],"response_types":["code"],"client_name":"MCP Inspector","client_uri":"https://github.com/modelcontextprotocol/inspector"}"#,
        ),
        ..INSPECTOR_2
    },
    ClientProfile {
        name: "mcp-remote",
        first: FirstRequest::Get,
        server_metadata: &[Inserted(OAUTH), Root(OAUTH), Inserted(OIDC), Appended(OIDC)],
        legacy: &[Root(OAUTH), Inserted(OAUTH), Root(OIDC), Inserted(OIDC)],
        registration: registers(
            r#"{"redirect_uris":["http://localhost:3334/oauth/callback"],"token_endpoint_auth_method":"none","grant_types":["authorization_code","refresh_token"],"response_types":["code"],"client_name":"MCP CLI Proxy","client_uri":"https://github.com/modelcontextprotocol/mcp-cli","software_id":"2e6dc280-f3c3-4e01-99a7-8181dbd1d23d","software_version":"0.15.1","application_type":"native"}"#,
        ),
        ..TS_2
    },
    ClientProfile {
        name: "opencode",
        registration: registers(
            r#"{"redirect_uris":["http://127.0.0.1:19876/mcp/oauth/callback"],"client_name":"OpenCode","client_uri":"https://opencode.ai","grant_types":["authorization_code","refresh_token"],"response_types":["code"],"token_endpoint_auth_method":"none"}"#,
        ),
        ..TS_1
    },
    ClientProfile {
        name: "FastMCP client",
        preflights: true,
        registration: registers(
            r#"{"response_types":["code"],"client_name":"FastMCP Client","redirect_uris":["http://localhost:13038/callback"],"grant_types":["authorization_code","refresh_token"],"application_type":"native","token_endpoint_auth_method":"none"}"#,
        ),
        ..PYTHON
    },
    ClientProfile {
        name: "Vercel AI SDK",
        first: FirstRequest::Discover,
        default_endpoints: false,
        issuer: Issuer::Slash,
        needs_s256: true,
        registration: registers(
            r#"{"client_name":"ai-sdk","redirect_uris":["http://localhost:13035/callback"],"grant_types":["authorization_code","refresh_token"],"response_types":["code"],"token_endpoint_auth_method":"none","application_type":"native"}"#,
        ),
        ..TS_1
    },
    PYTHON,
    TS_1,
    TS_2,
    RMCP,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_registers_json_with_a_redirect_uri_and_has_a_name_of_its_own() {
        let mut names: Vec<&str> = CLIENTS.iter().map(|client| client.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CLIENTS.len());
        for client in CLIENTS {
            let body: serde_json::Value = serde_json::from_str(client.registration.body).unwrap();
            assert!(body["redirect_uris"][0].is_string(), "{}", client.name);
        }
    }

    #[test]
    fn locations_are_where_the_rfcs_put_them() {
        let at = |location: MetadataLocation, base: &str| location.of(&Url::parse(base).unwrap());
        assert_eq!(at(Inserted("x"), "https://a.example/t"), "https://a.example/.well-known/x/t");
        assert_eq!(at(Appended("x"), "https://a.example/t/"), "https://a.example/t/.well-known/x");
        assert_eq!(at(Inserted("x"), "https://a.example"), "https://a.example/.well-known/x");
        assert_eq!(at(Root("x"), "https://a.example/t"), "https://a.example/.well-known/x");
    }
}
