//! The paths of a realm.

use crate::config::paths;
use crate::storage::Realm;

/// Returns the path of the first page of a realm. All its other pages are below it, except those of the account that
/// connect a service (`/connect/`).
pub const fn home(realm: Realm) -> &'static str {
    match realm {
        Realm::Admin => "/",
        Realm::Account => paths::ACCOUNT,
    }
}

/// Returns `path` if it is a plain path of a page in this realm, and `None` otherwise, so that it cannot
/// redirect to another site, nor out of the realm.
pub(super) fn own_path(realm: Realm, path: &str) -> Option<&str> {
    // Browsers resolve dot segments, also encoded ones, before they send the path.
    if realm == Realm::Account && path == paths::LANDING {
        return Some(path);
    }
    let is_plain = |segment: &str| !matches!(segment, "." | "..") && !segment.contains('%');
    let (before_query, _) = path.split_once(['?', '#']).unwrap_or((path, ""));
    let below = before_query.strip_prefix(home(realm).trim_end_matches('/'));
    let is_below = below.is_some_and(|below| below.is_empty() || below.starts_with('/'));
    // A link to connect a service needs the session of the account too.
    let connects = realm == Realm::Account && paths::is_connect_page(before_query);
    let plain = (is_below || connects)
        && path.starts_with('/')
        && !path.starts_with("//")
        && before_query.split('/').all(is_plain)
        && path.len() <= 1024
        && path.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    plain.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_of_the_realm_is_our_own() {
        let own = [
            "/",
            "/account",
            "/account/",
            "/account/confirm",
            "/account?x=y",
            "/account#x",
            "/connect/github",
            "/connect/github?for=https%3A%2F%2Fmcp.example.com%2Fmcp",
        ];
        for path in own {
            assert_eq!(own_path(Realm::Account, path), Some(path));
        }
        let others = [
            "/accountx",
            "/accounts/confirm",
            "/account-of-somebody",
            "/account.evil.example",
            "/Account",
            "/consent",
            "/?x",
            "",
            "account",
            "//account",
            "//evil.example/account",
            "/account\\evil",
            "/account/../consent",
            "/account/./confirm",
            "/account/..",
            "/account/%2e%2e/consent",
            "/account%2f..",
            "/account x",
            "https://evil.example/account",
            "/connect",
            "/connect/",
            "/connect/..",
            "/connect/../consent",
            "/connect/github/x",
            "/connect/GitHub",
            "//connect/github",
            "/connect//evil.example",
            "/connect/%2e%2e",
        ];
        for path in others {
            assert_eq!(own_path(Realm::Account, path), None, "{path}");
        }
        for path in ["/", "/clients?q=a%20b", "/client?id=https%3A%2F%2Fa.example%2F..", "/?x"] {
            assert_eq!(own_path(Realm::Admin, path), Some(path));
        }
        for path in ["", "clients", "//evil.example", "/\\evil.example", "1/x", ".evil.example/"] {
            assert_eq!(own_path(Realm::Admin, path), None, "{path}");
        }
    }
}
