//! The paths that are ours. The routes are made from this list (`endpoints/`), and no MCP server may be
//! configured at or below any of them: it would hide the page or endpoint there.
//!
//! All lie below the path of `public_url`, where it has one.

/// The authorization endpoint.
pub const AUTHORIZE: &str = "/authorize";
/// The decision of the consent page.
pub const CONSENT: &str = "/consent";
/// Back from the identity provider; what is registered there.
pub const CALLBACK: &str = "/auth/callback";
/// Where somebody waits for an administrator.
pub const WAITING: &str = "/waiting";
/// A person's connected applications.
pub const ACCOUNT: &str = "/account";
/// The button of the sign-in page.
pub const ACCOUNT_SIGN_IN: &str = "/account/sign-in";
/// Back from signing in there.
pub const ACCOUNT_SIGNED_IN: &str = "/account/signed-in";
/// What signing out everywhere would end.
pub const ACCOUNT_CONFIRM: &str = "/account/confirm";
/// The button that disconnects an application.
pub const ACCOUNT_DISCONNECT: &str = "/account/disconnect";
/// The button that ends this visit.
pub const ACCOUNT_SIGN_OUT: &str = "/account/sign-out";
/// The button that ends everything.
pub const ACCOUNT_SIGN_OUT_EVERYWHERE: &str = "/account/sign-out-everywhere";
/// Dynamic client registration.
pub const REGISTER: &str = "/register";
/// Its management.
pub const REGISTERED: &str = "/register/{client_id}";
/// The token endpoint.
pub const TOKEN: &str = "/token";
/// The revocation endpoint.
pub const REVOKE: &str = "/revoke";
/// The introspection endpoint.
pub const INTROSPECT: &str = "/introspect";
/// Where the identity provider says that somebody signed out.
pub const BACKCHANNEL_LOGOUT: &str = "/backchannel-logout";
/// Where the identity provider says that somebody is to be signed out everywhere.
pub const GLOBAL_TOKEN_REVOCATION: &str = "/global-token-revocation";
/// Whether the process lives.
pub const HEALTH: &str = "/health";
/// Whether it can serve.
pub const READY: &str = "/ready";
/// Metadata documents and keys.
pub const WELL_KNOWN: &str = "/.well-known";

/// All of them.
pub const ALL: &[&str] = &[
    AUTHORIZE,
    CONSENT,
    CALLBACK,
    WAITING,
    ACCOUNT,
    ACCOUNT_SIGN_IN,
    ACCOUNT_SIGNED_IN,
    ACCOUNT_CONFIRM,
    ACCOUNT_DISCONNECT,
    ACCOUNT_SIGN_OUT,
    ACCOUNT_SIGN_OUT_EVERYWHERE,
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
];

/// Paths of ours that no route has, and that are kept free.
const RESERVED: &[&str] = &["/assets"];

/// The path of ours that a resource at `path` would hide, or come so near to that a proxy in front could take
/// one for the other: the whole first segment is ours, in upper case too.
pub(super) fn hidden_by(path: &str) -> Option<&'static str> {
    let mut segments = path.split('/').skip(1);
    // Metadata about a resource stands below that resource as well.
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
