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
