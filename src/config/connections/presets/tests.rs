//! The presets are complete, and say nothing that contradicts itself.

use std::collections::HashSet;

use url::Url;

use super::*;

fn set(scopes: &[&str]) -> BTreeSet<String> {
    scopes.iter().map(|scope| (*scope).to_owned()).collect()
}

#[test]
fn each_preset_of_connections_has_a_name_of_its_own() {
    let names: HashSet<&str> = CONNECTION_PRESETS.iter().map(|preset| preset.name).collect();
    assert_eq!(names.len(), CONNECTION_PRESETS.len());
    assert!(find_preset("sign-in").is_none(), "it means [upstream]");
    for preset in CONNECTION_PRESETS {
        assert_eq!(find_preset(preset.name), Some(preset));
        assert!(!preset.console.is_empty(), "{}", preset.name);
        let generic = ["oidc", "oauth2"].contains(&preset.name);
        assert_eq!(preset.title.is_empty(), generic, "{}", preset.name);
    }
}

#[test]
fn every_endpoint_of_the_presets_of_connections_is_https() {
    for preset in CONNECTION_PRESETS {
        let both = [preset.authorize_url, preset.token_url];
        assert!(both.iter().all(|url| url.is_empty()) || both.iter().all(|url| !url.is_empty()));
        for url in [both[0], both[1], preset.revoke_url, preset.userinfo_url, preset.issuer] {
            let filled = url.replace("{tenant}", "t").replace("{client_id}", "c");
            let fits = url.is_empty()
                || Url::parse(&filled).is_ok_and(|url| {
                    url.scheme() == "https" && url.query().is_none() && url.fragment().is_none()
                });
            assert!(fits && !filled.contains('{'), "{}: {url}", preset.name);
        }
    }
}

#[test]
fn what_a_preset_of_connections_reads_of_the_account_is_there_to_be_read() {
    for preset in CONNECTION_PRESETS {
        let AccountLookup { from, key, label, needs } = preset.account;
        let generic = ["oidc", "oauth2"].contains(&preset.name);
        assert!(key.iter().chain(label).all(|pointer| pointer.starts_with('/')), "{}", preset.name);
        match from {
            AccountSource::Userinfo => assert!(generic || !preset.userinfo_url.is_empty()),
            AccountSource::IdToken => assert!(preset.extra_scopes.contains(&"openid")),
            AccountSource::TokenResponse => {}
        }
        assert!(needs.is_empty() || from == AccountSource::Userinfo, "{}", preset.name);
    }
}

#[test]
fn github_names_the_shortest_list_of_scopes_and_it_covers_what_was_asked() {
    let github = find_preset("github").unwrap();
    let granted = set(&["repo", "admin:org"]);
    for wanted in ["repo", "public_repo", "repo:status", "read:org", "write:org"] {
        assert!(github.covers(&granted, wanted), "{wanted}");
    }
    for wanted in ["user", "read:user", "admin:repo_hook", "delete_repo"] {
        assert!(!github.covers(&granted, wanted), "{wanted}");
    }
    assert!(!github.covers(&set(&["public_repo", "read:org"]), "repo"), "not the other way round");
}

#[test]
fn google_answers_short_scopes_with_their_long_names() {
    let google = find_preset("google").unwrap();
    let granted = set(&["https://www.googleapis.com/auth/userinfo.email", "openid"]);
    assert!(google.covers(&granted, "email") && google.covers(&granted, "openid"));
    assert!(!google.covers(&granted, "profile"));
    let other = find_preset("oauth2").unwrap();
    assert!(!other.covers(&granted, "email"), "that is Google's own");
}
