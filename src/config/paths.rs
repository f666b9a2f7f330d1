//! The paths of our own pages and endpoints. `endpoints/` builds the routes from this list. No MCP server may
//! be configured at or below these paths, because it would hide the page or endpoint there.
//!
//! All paths are relative to the path of `public_url`.

pub const AUTHORIZE: &str = "/authorize";
/// Button of a page that offers to try an authorization again.
pub const AUTHORIZE_AGAIN: &str = "/authorize/again";
/// Receives the decision of the consent page.
pub const CONSENT: &str = "/consent";
/// Redirect URI that is registered at the identity provider.
pub const CALLBACK: &str = "/auth/callback";
/// Page of a person who waits for an administrator's approval.
pub const WAITING: &str = "/waiting";
/// Button that ends the waiting.
pub const WAITING_CANCEL: &str = "/waiting/cancel";
/// Page with a person's connected applications.
pub const ACCOUNT: &str = "/account";
/// Button of the sign-in page for `/account`.
pub const ACCOUNT_SIGN_IN: &str = "/account/sign-in";
/// Callback of the sign-in to `/account`.
pub const ACCOUNT_SIGNED_IN: &str = "/account/signed-in";
/// Page that shows what signing out everywhere would end.
pub const ACCOUNT_CONFIRM: &str = "/account/confirm";
/// Button that disconnects an application.
pub const ACCOUNT_DISCONNECT: &str = "/account/disconnect";
/// Button that ends this web session.
pub const ACCOUNT_SIGN_OUT: &str = "/account/sign-out";
/// Button that signs the person out everywhere.
pub const ACCOUNT_SIGN_OUT_EVERYWHERE: &str = "/account/sign-out-everywhere";
/// Button that chooses the language of the pages.
pub const ACCOUNT_LANGUAGE: &str = "/account/language";
/// Page with the further services that a person has connected.
pub const ACCOUNT_CONNECTIONS: &str = "/account/connections";
/// Page that shows what disconnecting a service would end.
pub const ACCOUNT_CONNECTIONS_CONFIRM: &str = "/account/connections/confirm";
/// Button that disconnects a service.
pub const ACCOUNT_CONNECTIONS_REMOVE: &str = "/account/connections/remove";
/// Page that connects the service `name`, and its button.
pub const CONNECT_PAGE: &str = "/connect/{name}";
/// Redirect URI that is registered at the service `name` ([`connect_callback`]).
pub const CONNECT_CALLBACK: &str = "/auth/connect/{name}/callback";
pub const LOGO: &str = "/branding/logo";
/// The icon in the browser's tab, if there is no logo.
pub const ICON: &str = "/branding/icon";
pub const REGISTER: &str = "/register";
/// Management of a registered client.
pub const REGISTERED: &str = "/register/{client_id}";
pub const TOKEN: &str = "/token";
pub const REVOKE: &str = "/revoke";
pub const INTROSPECT: &str = "/introspect";
/// Receives logout tokens of the identity provider (OpenID Connect Back-Channel Logout).
pub const BACKCHANNEL_LOGOUT: &str = "/backchannel-logout";
/// Receives requests of the identity provider to end all access of a person (Global Token Revocation).
pub const GLOBAL_TOKEN_REVOCATION: &str = "/global-token-revocation";
/// Liveness probe.
pub const HEALTH: &str = "/health";
/// Readiness probe.
pub const READY: &str = "/ready";
/// Metadata documents and the JWK set are below this path.
pub const WELL_KNOWN: &str = "/.well-known";
/// Metadata of the authorization server (RFC 8414).
pub const SERVER_METADATA: &str = "/.well-known/oauth-authorization-server";
/// The same metadata for OpenID Connect clients.
pub const OPENID_CONFIGURATION: &str = "/.well-known/openid-configuration";
/// Metadata of a protected resource (RFC 9728).
pub const RESOURCE_METADATA: &str = "/.well-known/oauth-protected-resource";
pub const JWKS: &str = "/.well-known/jwks.json";

/// Page that says what this is and how to connect an application. It is not in the list below, because it hides no
/// other path: an MCP server elsewhere may have our origin as its identifier.
pub(crate) const LANDING: &str = "/";

/// What the paths of pages that connect a further service begin with: the name of the connection follows
/// ([`connect`]). The path with the name is in the list.
pub(crate) const CONNECT: &str = "/connect/";

/// All paths of this list.
pub const ALL: &[&str] = &[
    AUTHORIZE,
    AUTHORIZE_AGAIN,
    CONSENT,
    CALLBACK,
    WAITING,
    WAITING_CANCEL,
    ACCOUNT,
    ACCOUNT_SIGN_IN,
    ACCOUNT_SIGNED_IN,
    ACCOUNT_CONFIRM,
    ACCOUNT_DISCONNECT,
    ACCOUNT_SIGN_OUT,
    ACCOUNT_SIGN_OUT_EVERYWHERE,
    ACCOUNT_LANGUAGE,
    ACCOUNT_CONNECTIONS,
    ACCOUNT_CONNECTIONS_CONFIRM,
    ACCOUNT_CONNECTIONS_REMOVE,
    CONNECT_PAGE,
    CONNECT_CALLBACK,
    LOGO,
    ICON,
    REGISTER,
    REGISTERED,
    TOKEN,
    REVOKE,
    INTROSPECT,
    BACKCHANNEL_LOGOUT,
    GLOBAL_TOKEN_REVOCATION,
    HEALTH,
    READY,
    WELL_KNOWN,
    SERVER_METADATA,
    OPENID_CONFIGURATION,
    RESOURCE_METADATA,
    JWKS,
];

/// Returns the path of the page that connects the service with this name.
pub fn connect(name: &str) -> String {
    format!("{CONNECT}{name}")
}

/// Returns the path and query of the page that connects the service `name` for the MCP server with this identifier.
pub fn connect_for(name: &str, resource: &str) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    format!("{CONNECT}{name}?{}", query.append_pair("for", resource).finish())
}

/// Returns the path of the redirect URI that is registered at the service of this connection. Each connection has one
/// of its own, so that the answer of one service never finishes the connection to another (threat UT-02).
pub fn connect_callback(name: &str) -> String {
    format!("/auth/connect/{name}/callback")
}

/// Returns whether this is the path of a page that connects a service ([`connect`]).
pub fn is_connect_page(path: &str) -> bool {
    connects(path).is_some()
}

/// Returns the name of the connection in the path of a page that connects a service.
pub fn connects(path: &str) -> Option<&str> {
    path.strip_prefix(CONNECT).filter(|name| is_connection_name(name))
}

/// Returns whether this is the path of a redirect URI for a service ([`connect_callback`]).
pub fn is_connect_callback(path: &str) -> bool {
    called_back(path).is_some()
}

/// Returns the name of the connection in the path of a redirect URI for a service.
pub fn called_back(path: &str) -> Option<&str> {
    let name = path.strip_prefix("/auth/connect/")?.strip_suffix("/callback")?;
    is_connection_name(name).then_some(name)
}

/// Returns whether a connection may have this name: 1 to 40 of `a-z`, `0-9` and `-`.
fn is_connection_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=40).contains(&name.len()) && name.bytes().all(plain)
}

/// Paths without a route that are reserved.
const RESERVED: &[&str] = &["/assets"];

/// Returns our path that a resource at `path` would hide or resemble so closely that a proxy could confuse
/// them. Our whole first path segment is reserved, regardless of case.
pub(super) fn hidden_by(path: &str) -> Option<&'static str> {
    let mut segments = path.split('/').skip(1);
    // The metadata of a resource is below that resource too.
    if segments.clone().any(|segment| segment.eq_ignore_ascii_case(&WELL_KNOWN[1..])) {
        return Some(WELL_KNOWN);
    }
    let first = segments.next()?;
    let ours = ALL.iter().chain(RESERVED).copied();
    let mut ours = ours.filter(|ours| {
        ours.split('/').nth(1).is_some_and(|segment| segment.eq_ignore_ascii_case(first))
    });
    ours.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_ours_is_in_the_list() {
        let text = include_str!("paths.rs");
        let declared =
            text.lines().filter(|line| line.starts_with("pub const") && line.ends_with("\";"));
        let declared: Vec<&str> = declared.filter_map(|line| line.split('"').nth(1)).collect();
        assert_eq!(declared, ALL);
        for path in ALL {
            assert!(hidden_by(path).is_some(), "{path}");
        }
    }
}
