//! Every preset against what its provider really sends: the configuration an administrator writes, what
//! we then ask for, and the person we read out of the answer.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use openidconnect::{PkceCodeChallenge, PkceCodeVerifier};
use serde_json::{Value, json};

use super::Upstream;
use super::claims::{Userinfo, needs_userinfo, read};
use super::provider::Provider;
use super::recheck::RecheckPolicy;
use crate::clock::Clock;
use crate::config::{ClientAuth, Config, Offline, UpstreamConfig};
use crate::oauth::secret::random_text;
use crate::policy::Fact;
use crate::storage::Storage;

struct Fixture {
    provider: &'static str,
    /// Lines below `[upstream]`.
    config: &'static str,
    issuer: &'static str,
    scopes: &'static str,
    offline: Offline,
    params: &'static [(&'static str, &'static str)],
    auth: ClientAuth,
    id_token: Value,
    access_token: Option<Value>,
    userinfo: Option<Value>,
    groups: &'static [&'static str],
    roles: &'static [&'static str],
}

fn load(provider: &str, lines: &str) -> UpstreamConfig {
    let text = format!(
        "public_url = \"https://mcp.example.com\"\n[upstream]\nprovider = \"{provider}\"\n\
         client_id = \"id\"\nclient_secret = {{ env = \"S\" }}\n{lines}\n\
         [[resource]]\npath = \"/mcp\"\nscopes = [\"read\"]"
    );
    let env = BTreeMap::from([("S".to_owned(), "secret".to_owned())]);
    Config::load(Some((Path::new("test.toml"), text)), &env)
        .unwrap_or_else(|problems| panic!("{provider}: {problems}"))
        .config
        .upstream
}

fn fixtures() -> Vec<Fixture> {
    let plain = || Fixture {
        provider: "oidc",
        config: "",
        issuer: "",
        scopes: "profile email",
        offline: Offline::Scope,
        params: &[],
        auth: ClientAuth::Basic,
        id_token: json!({ "sub": "1", "name": "N", "email": "n@example.com" }),
        access_token: None,
        userinfo: None,
        groups: &[],
        roles: &[],
    };
    vec![
        Fixture {
            provider: "okta",
            config: "domain = \"acme.okta.com\"",
            issuer: "https://acme.okta.com",
            scopes: "profile email groups",
            id_token: json!({ "sub": "00u1", "groups": ["Todo Admins", "Everyone"] }),
            groups: &["Todo Admins", "Everyone"],
            ..plain()
        },
        Fixture {
            provider: "okta",
            config: "domain = \"acme.okta.com\"\nauthorization_server = \"default\"\nidp = \"0oa9\"",
            issuer: "https://acme.okta.com/oauth2/default",
            scopes: "profile email", // a custom server refuses the scope groups
            params: &[("idp", "0oa9")],
            ..plain()
        },
        Fixture {
            provider: "auth0",
            config: "domain = \"acme.eu.auth0.com\"\naudience = \"https://todo/mcp\"\n\
                     organization = \"org_1\"\nroles_claim = \"https://acme.example/roles\"",
            issuer: "https://acme.eu.auth0.com/",
            params: &[("audience", "https://todo/mcp"), ("organization", "org_1")],
            auth: ClientAuth::Post,
            id_token: json!({ "sub": "auth0|1", "https://acme.example/roles": ["Admin"] }),
            access_token: Some(json!({ "permissions": ["read:todos"] })),
            roles: &["Admin"],
            ..plain()
        },
        Fixture {
            provider: "keycloak",
            config: "url = \"https://sso.example.com/\"\nrealm = \"acme\"",
            issuer: "https://sso.example.com/realms/acme",
            offline: Offline::ScopeWhenListed,
            id_token: json!({ "sub": "f:1", "groups": ["/staff"] }),
            access_token: Some(json!({ "realm_access": { "roles": ["User", "offline_access"] } })),
            groups: &["/staff"],
            roles: &["User", "offline_access"],
            ..plain()
        },
        Fixture {
            provider: "keycloak",
            config: "url = \"https://sso.example.com\"\nrealm = \"acme\"\nrole_client = \"todo\"",
            issuer: "https://sso.example.com/realms/acme",
            offline: Offline::ScopeWhenListed,
            access_token: Some(json!({
                "realm_access": { "roles": ["User"] },
                "resource_access": { "todo": { "roles": ["Admin"] } },
            })),
            roles: &["Admin"],
            ..plain()
        },
        Fixture {
            provider: "entra",
            config: "tenant = \"11111111-2222-3333-4444-555555555555\"\ndomain_hint = \"acme.com\"",
            issuer: "https://login.microsoftonline.com/11111111-2222-3333-4444-555555555555/v2.0",
            params: &[("domain_hint", "acme.com")],
            auth: ClientAuth::Post,
            id_token: json!({ "sub": "pairwise", "tid": "11111111-2222-3333-4444-555555555555", "oid": "o", "roles": ["Admin"] }),
            roles: &["Admin"],
            ..plain()
        },
        Fixture {
            provider: "google",
            config: "hosted_domains = [\"acme.com\"]",
            issuer: "https://accounts.google.com",
            offline: Offline::NoScope,
            params: &[("access_type", "offline"), ("prompt", "consent")],
            auth: ClientAuth::Post,
            id_token: json!({ "sub": "104", "hd": "acme.com", "email_verified": true }),
            ..plain()
        },
        Fixture {
            provider: "github",
            config: "organizations = [\"acme\"]",
            issuer: "https://github.com",
            scopes: "read:user user:email read:org",
            offline: Offline::NoScope,
            auth: ClientAuth::Post,
            id_token: json!({ "sub": "583231", "groups": ["acme", "acme/todo-admins"] }),
            groups: &["acme", "acme/todo-admins"],
            ..plain()
        },
        Fixture {
            provider: "gitlab",
            config: "host = \"gitlab.example.com\"",
            issuer: "https://gitlab.example.com",
            offline: Offline::NoScope,
            auth: ClientAuth::Post,
            id_token: json!({ "sub": "7", "groups_direct": ["acme/todo"] }),
            groups: &["acme/todo"],
            ..plain()
        },
        Fixture {
            provider: "logto",
            config: "domain = \"acme.logto.app\"",
            issuer: "https://acme.logto.app/oidc",
            scopes: "profile email roles",
            params: &[("prompt", "consent")],
            id_token: json!({ "sub": "a1", "roles": ["Admin"] }),
            roles: &["Admin"],
            ..plain()
        },
        Fixture {
            provider: "cognito",
            config: "region = \"eu-central-1\"\nuser_pool_id = \"eu-central-1_AbC\"",
            issuer: "https://cognito-idp.eu-central-1.amazonaws.com/eu-central-1_AbC",
            offline: Offline::NoScope,
            id_token: json!({ "sub": "u", "cognito:groups": ["admins"], "email_verified": "true" }),
            groups: &["admins"],
            ..plain()
        },
        Fixture {
            provider: "zitadel",
            config: "domain = \"acme.zitadel.cloud\"",
            issuer: "https://acme.zitadel.cloud",
            scopes: "profile email urn:zitadel:iam:org:projects:roles",
            id_token: json!({ "sub": "2", "urn:zitadel:iam:org:project:roles": { "Admin": { "1": "acme" }, "User": {} } }),
            userinfo: Some(json!({ "sub": "2", "name": "N", "email": "n@example.com" })),
            roles: &["Admin", "User"],
            ..plain()
        },
        Fixture {
            provider: "authentik",
            config: "url = \"https://auth.example.com\"\napplication = \"portcullis\"",
            issuer: "https://auth.example.com/application/o/portcullis/",
            id_token: json!({ "sub": "h", "groups": ["admins"], "email_verified": false }),
            groups: &["admins"],
            ..plain()
        },
        Fixture {
            provider: "authelia",
            config: "issuer = \"https://auth.example.com\"",
            issuer: "https://auth.example.com",
            scopes: "profile email groups",
            params: &[("prompt", "consent")],
            userinfo: Some(json!({ "sub": "1", "groups": ["admins"], "email": "n@example.com" })),
            groups: &["admins"],
            ..plain()
        },
        Fixture {
            provider: "pingone",
            config: "region = \"eu\"\nenvironment_id = \"11111111-2222-3333-4444-555555555555\"",
            issuer: "https://auth.pingone.eu/11111111-2222-3333-4444-555555555555/as",
            offline: Offline::ScopeWhenListed,
            ..plain()
        },
        Fixture {
            provider: "onelogin",
            config: "subdomain = \"acme\"",
            issuer: "https://acme.onelogin.com/oidc/2",
            scopes: "profile groups",
            offline: Offline::NoScope,
            auth: ClientAuth::Auto,
            id_token: json!({ "sub": "9", "groups": ["Admins"] }),
            groups: &["Admins"],
            ..plain()
        },
        Fixture { provider: "jumpcloud", issuer: "https://oauth.id.jumpcloud.com/", ..plain() },
        Fixture {
            provider: "workos",
            config: "issuer = \"https://acme.authkit.app\"",
            issuer: "https://acme.authkit.app",
            auth: ClientAuth::Post,
            access_token: Some(json!({ "role": "admin", "permissions": ["todo:read"] })),
            roles: &["admin"],
            ..plain()
        },
        Fixture {
            provider: "descope",
            config: "issuer = \"https://api.descope.com/v1/apps/P1\"",
            issuer: "https://api.descope.com/v1/apps/P1",
            auth: ClientAuth::Auto,
            access_token: Some(json!({ "roles": ["Admin"] })),
            roles: &["Admin"],
            ..plain()
        },
        Fixture {
            provider: "dex",
            config: "issuer = \"https://dex.example.com/dex\"",
            issuer: "https://dex.example.com/dex",
            scopes: "profile email groups",
            id_token: json!({ "sub": "CgEx", "groups": ["acme:team"] }),
            groups: &["acme:team"],
            ..plain()
        },
        Fixture {
            provider: "oidc",
            config: "issuer = \"https://id.example.com\"",
            issuer: "https://id.example.com",
            offline: Offline::ScopeWhenListed,
            auth: ClientAuth::Auto,
            ..plain()
        },
    ]
}

#[test]
fn every_preset_asks_and_reads_as_its_provider_needs() {
    for fixture in fixtures() {
        let Fixture { provider, config, .. } = fixture;
        let upstream = load(provider, config);
        assert_eq!(upstream.issuer, fixture.issuer, "{provider}");
        assert_eq!(upstream.scopes.join(" "), fixture.scopes, "{provider}");
        assert_eq!(upstream.offline, fixture.offline, "{provider}");
        assert_eq!(upstream.client_auth, fixture.auth, "{provider}");
        let params: Vec<(&str, &str)> =
            upstream.authorize_params.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(params, fixture.params, "{provider}");

        let userinfo = match fixture.userinfo {
            Some(claims) => {
                assert!(needs_userinfo(&upstream.claims, &fixture.id_token), "{provider}");
                Userinfo::Claims(claims)
            }
            None => Userinfo::NotAsked,
        };
        let access_token = fixture.access_token.as_ref();
        let person = read(&upstream.claims, "1", &fixture.id_token, access_token, &userinfo);
        for (fact, expected) in
            [(person.facts.groups, fixture.groups), (person.facts.roles, fixture.roles)]
        {
            match fact {
                Fact::Known(values) => assert_eq!(values, expected, "{provider}"),
                Fact::Absent => assert!(expected.is_empty(), "{provider}"),
                Fact::Unknown => panic!("{provider}: a fact cannot be read"),
            }
        }
    }
}

/// What we send the browser with, to the last parameter.
#[tokio::test]
async fn every_preset_sends_people_on_with_exactly_this() {
    let name = format!("portcullis-{}", random_text());
    let folder = std::env::temp_dir().join(name);
    let database = format!("sqlite://{}", folder.join("test.db").display());
    let storage = Storage::open(&database, None).await.unwrap();
    let clock = Clock::System;
    for fixture in fixtures() {
        let Fixture { provider, config, .. } = fixture;
        let (upstream, redirect_uri) = (load(provider, config), "https://p.example/auth/callback");
        let issuer = upstream.issuer.clone();
        let recheck = RecheckPolicy {
            recheck: Duration::from_mins(15),
            outage_grace: Duration::from_hours(1),
            max_without_refresh: Duration::from_hours(8),
        };
        let redirect = redirect_uri.to_owned();
        let inner = Upstream::new(upstream, redirect, recheck, clock.clone(), storage.clone()).0;
        let metadata = serde_json::from_value(json!({
            "issuer": issuer,
            "authorization_endpoint": "https://id.example/authorize",
            "token_endpoint": "https://id.example/token",
            "jwks_uri": "https://id.example/jwks",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "scopes_supported": ["openid", "offline_access"],
        }));
        let known = Provider::of(metadata.unwrap(), clock.now());
        let verifier = PkceCodeVerifier::new("a".repeat(43));
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier);
        let url = inner.authorize_url(&known, "the-state", "the-nonce", challenge);
        let sent: BTreeMap<String, String> = url.query_pairs().into_owned().collect();

        let openid = if provider == "github" { "" } else { "openid " };
        let offline = if fixture.offline == Offline::NoScope { "" } else { " offline_access" };
        let scope = format!("{openid}{}{offline}", fixture.scopes);
        let mut expected: BTreeMap<&str, &str> = BTreeMap::from([
            ("response_type", "code"),
            ("client_id", "id"),
            ("redirect_uri", redirect_uri),
            ("scope", scope.as_str()),
            ("state", "the-state"),
            ("nonce", "the-nonce"),
            ("code_challenge", "ZtNPunH49FD35FWYhT5Tv8I7vRKQJ8uxMaL0_9eHjNA"),
            ("code_challenge_method", "S256"),
        ]);
        expected.extend(fixture.params.iter().copied());
        let sent: BTreeMap<&str, &str> =
            sent.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(sent, expected, "{provider}");
    }
    storage.close().await;
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn every_preset_has_a_fixture_and_its_own_words() {
    let fixtures = fixtures();
    for preset in crate::config::presets() {
        assert!(fixtures.iter().any(|fixture| fixture.provider == preset.name), "{}", preset.name);
        let words = preset.console;
        for text in [words.redirect_uri, words.secret, words.refresh, words.roles] {
            assert!(!text.is_empty(), "{}", preset.name);
        }
    }
}

#[test]
fn a_provider_open_to_the_world_needs_a_limit_or_a_word() {
    for (provider, lines, closed_by) in [
        ("google", "", "hosted_domains = [\"acme.com\"]"),
        ("github", "", "organizations = [\"acme\"]"),
        ("gitlab", "host = \"gitlab.com\"", "allow_anyone = true"),
        ("oidc", "issuer = \"https://accounts.google.com\"", "allow_anyone = true"),
        ("entra", "tenant = \"9188040d-6c67-4c5b-b112-36a304b66dad\"", "allow_anyone = true"),
    ] {
        let text = |more: &str| {
            format!(
                "public_url = \"https://mcp.example.com\"\n[upstream]\nprovider = \"{provider}\"\n\
                 client_id = \"id\"\nclient_secret = {{ env = \"S\" }}\n{lines}\n{more}\n\
                 [[resource]]\npath = \"/mcp\"\nscopes = []"
            )
        };
        let env = BTreeMap::from([("S".to_owned(), "secret".to_owned())]);
        let load = |text: String| Config::load(Some((Path::new("t.toml"), text)), &env);
        let problems = load(text("")).err().unwrap_or_else(|| panic!("{provider} was let in")).0;
        assert!(problems[0].reason.contains("anybody in the world"), "{provider}: {problems:?}");
        assert!(load(text(closed_by)).is_ok(), "{provider}");
    }
}
