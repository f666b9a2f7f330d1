//! `[upstream] discovery_url` and `allow_http`: a provider inside a cluster, beside its public issuer.

use std::collections::BTreeMap;
use std::path::Path;

use portcullis::config::Config;
use serde_json::Value;

use super::{DISCOVERY, INSIDE, MINUTE, address, endpoints_inside, inside, works};
use crate::cli::check::{check_with, finding};
use crate::harness::client::Tokens;
use crate::harness::proxy::{Proxy, TlsFront};
use crate::harness::{Setup, TestApp, logs};

/// Whether the document is read with `allow_http`, and what it says.
type Change = (bool, fn(&mut Value));

const USERINFO: &str = "sources = [\"userinfo\"]";

/// Each document, and the places that the server has to go to for it.
#[tokio::test]
async fn a_provider_inside_a_cluster_is_asked_there_and_keeps_its_public_issuer() {
    let elsewhere: fn(&mut Value) = |document| {
        endpoints_inside(document);
        document["token_endpoint"] = "http://tokens.cluster.example:9000/token".into();
        document["jwks_uri"] = "http://keys:80/jwks".into();
    };
    // Without `hostname-backchannel-dynamic`, Keycloak names its public endpoints alone.
    let public: fn(&mut Value) = |_| {};
    let only_userinfo: fn(&mut Value) =
        |document| document["userinfo_endpoint"] = format!("{INSIDE}/userinfo").into();
    for (what, change, places) in [
        ("all inside", endpoints_inside as fn(&mut Value), vec!["keycloak:8080"]),
        ("other hosts", elsewhere, vec!["keycloak:8080", "keys:80", "tokens.cluster.example:9000"]),
        ("public", public, vec!["keycloak:8080"]),
        ("only userinfo", only_userinfo, vec!["keycloak:8080"]),
    ] {
        let proxy = Proxy::start(&[]).await;
        let setup = Setup::toml(format!("[upstream.claims]\n{USERINFO}"));
        let app = inside(&proxy, "HTTP_PROXY", proxy.url(), setup).await;
        for place in &places {
            proxy.lead(place, address(&app));
        }
        app.idp.misbehave(|how| how.change_discovery = Some(change));
        works(&app).await;
        let asked: Vec<String> = places.iter().map(|place| format!("CONNECT {place}")).collect();
        assert_eq!(proxy.places_asked(), asked, "{what}");
    }
}

#[tokio::test]
async fn the_address_that_a_provider_is_asked_at_is_never_its_issuer() {
    let proxy = Proxy::start(&[]).await;
    let app = inside(&proxy, "HTTP_PROXY", proxy.url(), Setup::default()).await;
    let client = app.client().await;
    let (_, form) = client.ask(&[]).await;
    let issuers: [fn(&mut Value); 4] = [
        |document| document["issuer"] = INSIDE.into(),
        |document| document["issuer"] = "https://other.example".into(),
        |document| {
            let with_slash = format!("{}/", document["issuer"].as_str().unwrap());
            document["issuer"] = with_slash.into();
        },
        |document| document["issuer"] = Value::Null,
    ];
    for change in issuers {
        app.idp.misbehave(|how| how.change_discovery = Some(change));
        app.advance(10);
        client.decide(&form, "approve").await.assert_page(502);
    }
    app.idp.misbehave(|how| how.change_discovery = Some(endpoints_inside));
    app.advance(10);
    client.decide(&form, "approve").await.assert_leads_to(app.idp.issuer());
}

#[tokio::test]
async fn a_redirect_of_the_discovery_address_is_followed_nowhere() {
    let proxy = Proxy::start(&[]).await;
    let app = inside(&proxy, "HTTP_PROXY", proxy.url(), Setup::default()).await;
    proxy.lead("elsewhere:8080", address(&app));
    let client = app.client().await;
    let (_, form) = client.ask(&[]).await;
    for status in [301, 302, 307, 308] {
        let to = "http://elsewhere:8080/.well-known/openid-configuration".to_owned();
        app.idp.misbehave(|how| how.discovery_answer = Some((status, to)));
        app.advance(10);
        client.decide(&form, "approve").await.assert_page(503);
    }
    assert_eq!(proxy.places_asked(), ["CONNECT keycloak:8080"]);
}

/// What a document may not name, with `allow_http` and without it.
#[tokio::test]
async fn people_never_sign_in_over_http_and_without_the_word_nothing_is_asked_over_http() {
    let proxy = Proxy::start(&[]).await;
    let allowed = inside(&proxy, "HTTP_PROXY", proxy.url(), Setup::default()).await;
    let setup = Setup { env: vec![("HTTP_PROXY", proxy.url())], ..Setup::default() };
    let strict = TestApp::with(setup).await;
    let changes: [Change; 7] = [
        (true, |document| document["authorization_endpoint"] = "http://sso.example.com/a".into()),
        (true, |document| document["authorization_endpoint"] = "http://keycloak:8080/a".into()),
        (true, |document| document["token_endpoint"] = "ftp://keycloak:8080/token".into()),
        (false, |document| document["token_endpoint"] = "http://keycloak:8080/token".into()),
        (false, |document| document["userinfo_endpoint"] = "http://keycloak:8080/u".into()),
        (false, |document| document["jwks_uri"] = "http://keycloak:8080/jwks".into()),
        (false, |document| document["authorization_endpoint"] = "http://keycloak:8080/a".into()),
    ];
    for (with_the_word, change) in changes {
        let app = if with_the_word { &allowed } else { &strict };
        app.idp.misbehave(|how| how.change_discovery = Some(change));
        app.advance(10);
        let client = app.client().await;
        let (_, form) = client.ask(&[]).await;
        client.decide(&form, "approve").await.assert_page(502);
    }
    assert!(logs::all().contains("token_endpoint is not https; allow_http in [upstream] admits"));
}

#[tokio::test]
async fn another_discovery_address_is_taken_over_while_the_server_runs() {
    let proxy = Proxy::start(&[]).await;
    let mut app = inside(&proxy, "HTTP_PROXY", proxy.url(), Setup::default()).await;
    let client = works(&app).await;
    proxy.lead("sso:9000", address(&app));
    app.change_config("http://keycloak:8080/", "http://sso:9000/");
    app.reload().await;
    client.sign_in("bob").await;
    assert_eq!(proxy.places_asked(), ["CONNECT keycloak:8080", "CONNECT sso:9000"]);
    // Without the word, what was known over http is not asked any more.
    app.idp.misbehave(|how| how.change_discovery = None);
    app.change_config("discovery_url = \"http://sso:9000/.well-known/openid-configuration\"", "");
    app.change_config("allow_http = true", "");
    app.reload().await;
    let tokens = Tokens::of(&client.redeem(&client.code("bob").await).await);
    let before = proxy.asked().len();
    app.advance(16 * MINUTE);
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    assert_eq!(proxy.asked().len(), before);
}

/// The keys, as an administrator writes them.
#[test]
fn an_address_inside_is_checked_and_http_needs_its_word() {
    let load = |lines: &str| {
        let text = format!(
            "public_url = \"https://mcp.example.com\"\n[upstream]\nclient_id = \"id\"\n\
             client_secret = {{ env = \"S\" }}\n{lines}\n[[resource]]\npath = \"/mcp\"\nscopes = [\"read\"]"
        );
        let env = BTreeMap::from([("S".to_owned(), "secret".to_owned())]);
        Config::load(Some((Path::new("test.toml"), text)), &env)
    };
    let keycloak = "provider = \"keycloak\"\nurl = \"https://sso.example.com\"\nrealm = \"acme\"";
    for (lines, words) in [
        (format!("discovery_url = \"{DISCOVERY}\""), "allow_http = true"),
        ("discovery_url = \"http://10.0.0.5/x\"\nallow_http = false".to_owned(), "allow_http"),
        ("discovery_url = \"keycloak:8080\"".to_owned(), "is not the URL"),
        ("discovery_url = \"ftp://keycloak/x\"".to_owned(), "is not the URL"),
        ("discovery_url = \"https://user:pw@keycloak/x\"".to_owned(), "user name"),
        ("discovery_url = \"https://keycloak/x#y\"".to_owned(), "is not the URL"),
        ("allow_http = \"perhaps\"".to_owned(), "true or false"),
    ] {
        let problems = load(&format!("{keycloak}\n{lines}")).unwrap_err().to_string();
        assert!(problems.contains(words), "{lines}: {problems}");
        assert!(!problems.contains("pw@"), "{problems}");
    }
    let github = "provider = \"github\"\norganizations = [\"acme\"]\ndiscovery_url = \"https://x.example/y\"";
    assert!(load(github).unwrap_err().to_string().contains("no discovery document"));
    let inside = "provider = \"keycloak\"\nurl = \"http://keycloak:8080\"\nrealm = \"acme\"";
    let problems = load(inside).unwrap_err().to_string();
    assert!(problems.contains("discovery_url"), "the hint names the key: {problems}");

    let good = format!("{keycloak}\ndiscovery_url = \"{DISCOVERY}\"\nallow_http = true");
    let loaded = load(&good).unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(loaded.config.upstream.issuer, "https://sso.example.com/realms/acme");
    assert!(loaded.warnings.iter().any(|w| w.contains("allow_http")), "{:?}", loaded.warnings);
    let shown: toml::Table = loaded.show().parse().unwrap();
    for key in ["discovery_url", "allow_http"] {
        assert!(shown["upstream"].get(key).is_some(), "{shown}");
    }
    for quiet in ["https://keycloak:8443/x", "http://127.0.0.1:8080/x", "http://localhost/x?a=b"] {
        let loaded = load(&format!("{keycloak}\ndiscovery_url = \"{quiet}\"")).unwrap();
        assert!(loaded.warnings.is_empty(), "{quiet}: {:?}", loaded.warnings);
    }
}

#[tokio::test]
async fn check_says_which_network_it_sees_and_what_to_write_when_the_issuer_differs() {
    let app = TestApp::start_on_the_real_clock().await;
    let proxy = Proxy::start(&[("keycloak:8080", address(&app))]).await;
    let env = [("HTTP_PROXY", proxy.url())];
    let (direct, _) = check_with(&app, &app.config_text(), &env).await;
    let network = finding(&direct, "network")["found"].as_str().unwrap();
    assert!(network.contains("directly") && !network.contains(&proxy.url()), "{network}");

    let inside = app.config_text().replace(
        "client_id     =",
        &format!("discovery_url = \"{DISCOVERY}\"\nallow_http = true\nclient_id     ="),
    );
    app.idp.misbehave(|how| how.change_discovery = Some(endpoints_inside));
    let (found, code) = check_with(&app, &inside, &env).await;
    let network = finding(&found, "network")["found"].as_str().unwrap();
    for words in [DISCOVERY, app.idp.issuer(), "through the proxy", "HTTP_PROXY"] {
        assert!(network.contains(words), "{words}: {network}");
    }
    let endpoints = finding(&found, "endpoints")["found"].as_str().unwrap();
    assert!(endpoints.contains("token_endpoint") && endpoints.contains("http"), "{endpoints}");
    assert!(!endpoints.contains("https"), "{endpoints}");
    assert_eq!(code, 1, "it works, and allow_http is warned about: {found:#?}");

    // The issuer of the document is the one to write, and this address stays where it is asked.
    app.idp.misbehave(|how| {
        how.change_discovery =
            Some(|document| document["issuer"] = "https://sso.example.com".into());
    });
    let (found, code) = check_with(&app, &inside, &env).await;
    let discovery = finding(&found, "discovery");
    let hint = discovery["hint"].as_str().unwrap();
    assert!(hint.contains("issuer") && hint.contains("https://sso.example.com"), "{discovery}");
    assert_eq!(code, 2);
    let (found, _) = check_with(&app, &app.config_text(), &env).await;
    let hint = finding(&found, "discovery")["hint"].as_str().unwrap();
    let here = format!("discovery_url = \"{}/.well-known/openid-configuration\"", app.idp.issuer());
    assert!(hint.contains(&here), "{hint}");
}

#[tokio::test]
async fn check_says_over_what_the_endpoints_are_asked() {
    let app = TestApp::start_on_the_real_clock().await;
    let (found, _) = check_with(&app, &app.config_text(), &[]).await;
    let endpoints = finding(&found, "endpoints")["found"].as_str().unwrap();
    assert!(endpoints.contains("over http on this machine"), "{endpoints}");
    assert!(!endpoints.contains("https"), "{endpoints}");
    let changes: [fn(&mut Value); 3] = [
        |document| document["userinfo_endpoint"] = "http://sso.example.com/userinfo".into(),
        |document| document["token_endpoint"] = "http://sso.example.com/token".into(),
        |document| document["jwks_uri"] = "http://sso.example.com/jwks".into(),
    ];
    for change in changes {
        app.idp.misbehave(|how| how.change_discovery = Some(change));
        let (found, code) = check_with(&app, &app.config_text(), &[]).await;
        let endpoints = finding(&found, "endpoints");
        assert_eq!((endpoints["severity"].as_str(), code), (Some("failed"), 2), "{endpoints}");
        assert!(endpoints["hint"].as_str().unwrap().contains("allow_http"), "{endpoints}");
    }
}

/// A certificate of a private authority is believed when the system believes it, and no earlier.
#[tokio::test]
async fn an_address_inside_over_https_is_believed_with_a_private_authority_alone() {
    let app = TestApp::start_on_the_real_clock().await;
    let front = TlsFront::of(address(&app), &["localhost"]).await;
    let at = format!("https://localhost:{}", front.address.port());
    let config = app.config_text().replace(
        "client_id     =",
        &format!("discovery_url = \"{at}/.well-known/openid-configuration\"\nclient_id     ="),
    );
    let authority = front.authority.to_str().unwrap().to_owned();
    let (found, code) = check_with(&app, &config, &[("SSL_CERT_FILE", authority)]).await;
    assert_eq!(code, 0, "{found:#?}");
    assert!(finding(&found, "network")["found"].as_str().unwrap().contains(&at), "{found:#?}");

    let (found, code) = check_with(&app, &config, &[]).await;
    let discovery = finding(&found, "discovery");
    assert_eq!((discovery["severity"].as_str(), code), (Some("failed"), 2), "{discovery}");
    assert!(discovery["hint"].as_str().unwrap().contains("SSL_CERT_FILE"), "{discovery}");
}
