//! `HTTPS_PROXY` and the others: a proxy as the only way out.

use std::collections::BTreeMap;
use std::path::Path;

use portcullis::config::Config;
use serde_json::{Value, json};

use super::{MINUTE, address, inside, works};
use crate::cli::check::{check_with, finding};
use crate::harness::client::{McpClient, Tokens};
use crate::harness::proxy::{Connect, Proxy, TlsFront};
use crate::harness::publisher::Publisher;
use crate::harness::{Setup, TestApp, logs};

/// `user:p@ss:word`, as a proxy gets it.
const CREDENTIALS: &str = "Basic dXNlcjpwQHNzOndvcmQ=";

#[tokio::test]
async fn the_provider_is_asked_through_the_proxy_that_any_spelling_of_the_variables_names() {
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        let proxy = Proxy::start(&[]).await;
        let app = inside(&proxy, variable, proxy.url(), Setup::default()).await;
        works(&app).await;
        assert_eq!(proxy.places_asked(), ["CONNECT keycloak:8080"], "{variable}");
    }
}

/// An https provider, with its own certificate at the end of the tunnel.
#[tokio::test]
async fn an_https_provider_is_asked_through_a_tunnel_and_proves_itself_at_its_end() {
    let app = TestApp::start_on_the_real_clock().await;
    let front = TlsFront::of(address(&app), &["idp.example", "api.github.com"]).await;
    let authority = front.authority.to_str().unwrap().to_owned();
    let issuer = app.idp.issuer().to_owned();
    let config = app.config_text().replace(&issuer, "https://idp.example");
    app.idp.misbehave(|how| {
        how.callback_iss = Some("https://idp.example".to_owned());
        how.change_discovery = Some(|document| {
            for (_, value) in document.as_object_mut().unwrap() {
                let Some(text) = value.as_str().filter(|text| text.starts_with("http://")) else {
                    continue;
                };
                let path = text.splitn(4, '/').nth(3).map(|path| format!("/{path}"));
                *value = format!("https://idp.example{}", path.unwrap_or_default()).into();
            }
        });
    });
    for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        let proxy = Proxy::start(&[("idp.example:443", front.address)]).await;
        let env = [(variable, proxy.url()), ("SSL_CERT_FILE", authority.clone())];
        let (found, code) = check_with(&app, &config, &env).await;
        assert_eq!(code, 0, "{found:#?}");
        assert_eq!(proxy.places_asked(), ["CONNECT idp.example:443"], "{variable}");
        let network = finding(&found, "network")["found"].as_str().unwrap();
        assert!(network.contains(&proxy.url()) && network.contains(variable), "{network}");
        let endpoints = finding(&found, "endpoints")["found"].as_str().unwrap();
        assert!(endpoints.contains("over https"), "{endpoints}");

        // HTTP_PROXY is for http:// alone.
        let env = [("HTTP_PROXY", proxy.url()), ("SSL_CERT_FILE", authority.clone())];
        let (found, code) = check_with(&app, &config, &env).await;
        assert_eq!(code, 2, "{found:#?}");
    }
    // A proxy that speaks TLS itself: one certificate at its door, another at the end of the tunnel.
    let proxy = Proxy::start(&[("idp.example:443", front.address)]).await;
    let door = TlsFront::of(proxy.address(), &["localhost"]).await;
    let both = app.database.folder.join("authorities.pem");
    let authorities = [&front.authority, &door.authority].map(|file| std::fs::read(file).unwrap());
    std::fs::write(&both, authorities.concat()).unwrap();
    let url = format!("https://localhost:{}", door.address.port());
    let both = both.to_str().unwrap().to_owned();
    let env = [("HTTPS_PROXY", url.clone()), ("SSL_CERT_FILE", both)];
    let (found, code) = check_with(&app, &config, &env).await;
    assert_eq!(code, 0, "{found:#?}");
    assert_eq!(proxy.places_asked(), ["CONNECT idp.example:443"]);
    let env = [("HTTPS_PROXY", url), ("SSL_CERT_FILE", authority.clone())];
    let (found, _) = check_with(&app, &config, &env).await;
    assert_eq!(finding(&found, "network")["severity"], "failed", "{found:#?}");

    // GitHub's interface is asked like everything else.
    let proxy = Proxy::start(&[("api.github.com:443", front.address)]).await;
    let start = config.find("provider      =").unwrap();
    let end = config.find("client_id     =").unwrap();
    let github = "provider = \"github\"\norganizations = [\"acme\"]\n";
    let config = format!("{}{github}{}", &config[..start], &config[end..])
        .replace("roles = \"roles\"\ngroups = \"groups\"", "");
    let env = [("HTTPS_PROXY", proxy.url()), ("SSL_CERT_FILE", authority)];
    let (found, _) = check_with(&app, &config, &env).await;
    assert_eq!(proxy.places_asked(), ["CONNECT api.github.com:443"], "{found:#?}");
    assert_eq!(finding(&found, "secret")["severity"], "ok", "{found:#?}");
    proxy.answers(Some(407));
    let (found, _) = check_with(&app, &config, &env).await;
    assert_eq!(finding(&found, "network")["severity"], "failed", "{found:#?}");
}

#[tokio::test]
async fn the_proxy_gets_its_user_name_and_password_and_nobody_else_sees_them() {
    let proxy = Proxy::start(&[]).await;
    proxy.wants(CREDENTIALS);
    let url = proxy.url_with("user:p%40ss%3Aword");
    let app = inside(&proxy, "HTTP_PROXY", url.clone(), Setup::default()).await;
    works(&app).await;
    let asked = Connect {
        line: "CONNECT keycloak:8080".to_owned(),
        authorization: Some(CREDENTIALS.to_owned()),
    };
    assert!(proxy.asked().iter().all(|connect| *connect == asked), "{:?}", proxy.asked());
    for request in app.idp.recorded() {
        assert!(request.headers.get("proxy-authorization").is_none(), "the provider saw it");
    }
    // Refused, it is told; what was sent is not.
    proxy.answers(Some(407));
    app.advance(2 * 60 * MINUTE);
    let client = app.client().await;
    client.ask(&[]).await;

    let wrong = proxy.url_with("usercanary:s3cretcanary");
    let text = app.config_text();
    let (found, code) = check_with(&app, &text, &[("HTTP_PROXY", wrong.clone())]).await;
    assert_eq!(code, 2);
    let network = finding(&found, "network");
    assert!(network["found"].as_str().unwrap().contains("407"), "{network}");
    assert!(network["hint"].as_str().unwrap().contains("HTTP_PROXY"), "{network}");
    let env = BTreeMap::from([("HTTP_PROXY".to_owned(), wrong)]);
    let shown = Config::load(Some((Path::new("test.toml"), text)), &env).unwrap().show();
    assert!(shown.contains("HTTP_PROXY") && shown.contains("********@127.0.0.1"), "{shown}");
    let everything = format!("{}{shown}{found:?}", logs::all());
    for secret in ["p%40ss", "p@ss", "dXNlcjpwQHNzOndvcmQ", "s3cretcanary", "usercanary"] {
        assert!(!everything.contains(secret), "{secret} was shown");
    }
}

/// Each exception, for a provider at `http://keycloak.cluster.example:8080`.
#[tokio::test]
async fn what_no_proxy_names_is_reached_without_the_proxy() {
    for (variable, exceptions, through) in [
        ("NO_PROXY", "", true),
        ("NO_PROXY", "keycloak.cluster.example", false),
        ("no_proxy", "cluster.example", false),
        ("NO_PROXY", "other.example , .cluster.example", false),
        ("NO_PROXY", "*", false),
        ("NO_PROXY", "cluster.example:8080", false),
        ("NO_PROXY", "cluster.example:8081", true),
        ("NO_PROXY", "luster.example", true),
    ] {
        let proxy = Proxy::start(&[]).await;
        let setup = Setup {
            env: vec![("HTTP_PROXY", proxy.url()), (variable, exceptions.to_owned())],
            ..Setup::toml(
                "[upstream]\ndiscovery_url = \"http://keycloak.cluster.example:8080/.well-known/openid-configuration\"\nallow_http = true\ntimeout = \"2s\"",
            )
        };
        let app = TestApp::with(setup).await;
        proxy.lead("keycloak.cluster.example:8080", address(&app));
        let client = app.client().await;
        let (_, form) = client.ask(&[]).await;
        let answer = client.decide(&form, "approve").await;
        assert_eq!(answer.status == 303, through, "{exceptions}: {}", answer.text());
        assert_eq!(proxy.asked().is_empty(), !through, "{exceptions}");
    }
}

#[tokio::test]
async fn this_machine_and_mcp_servers_are_never_reached_through_the_proxy() {
    let proxy = Proxy::start(&[]).await;
    let variables = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"];
    let env: Vec<_> = variables.iter().map(|variable| (*variable, proxy.url())).collect();
    let app = TestApp::with(Setup { env: env.clone(), ..Setup::default() }).await;
    works(&app).await; // the provider and the MCP server are on loopback
    let resources = "[[resource]]\npath = \"/mcp\"\ntarget = \"http://todo.cluster.example:9000/mcp\"\nscopes = [\"read:todos\"]\ndefault_scopes = [\"read:todos\"]\n[[resource.rule]]\nroles = [\"Admin\"]\nallow = [\"read:todos\"]";
    let setup = Setup { env, ..Setup::toml(resources) };
    let app = TestApp::with(setup).await;
    let todo = app.todo.url();
    let todo = todo.trim_start_matches("http://").split('/').next().unwrap().parse().unwrap();
    proxy.lead("todo.cluster.example:9000", todo);
    let client = app.client().await;
    let back = client.authorize("alice", &[("scope", "read:todos")]).await;
    let code = back.location_param("code").unwrap();
    let tokens = Tokens::of(&client.redeem(&code).await);
    client.call_tool(&tokens.access_token, "get-todos", json!({})).await.assert_status(502);
    assert_eq!(proxy.asked(), []);
}

/// In a CGI program `HTTP_PROXY` is the header `Proxy` of whoever asks.
#[test]
fn variables_that_cannot_be_trusted_or_used_are_not_used() {
    let load = |env: &[(&str, &str)]| {
        let mut all: BTreeMap<String, String> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        all.insert("S".to_owned(), "secret".to_owned());
        let text = "public_url = \"https://mcp.example.com\"\n[upstream]\nprovider = \"oidc\"\nissuer = \"https://idp.example\"\nclient_id = \"id\"\nclient_secret = { env = \"S\" }\n[[resource]]\npath = \"/mcp\"\nscopes = [\"read\"]";
        Config::load(Some((Path::new("test.toml"), text.to_owned())), &all)
    };
    let shown = |env: &[(&str, &str)]| load(env).unwrap_or_else(|p| panic!("{p}")).show();
    let good = ("HTTP_PROXY", "http://proxy:3128");
    assert!(shown(&[good]).contains("HTTP_PROXY"));
    assert!(!shown(&[good, ("REQUEST_METHOD", "GET")]).contains("HTTP_PROXY"));
    let lower = [("http_proxy", "proxy:3128"), ("REQUEST_METHOD", "GET")];
    assert!(shown(&lower).contains("http_proxy"));
    assert!(!shown(&[("HTTPS_PROXY", ""), ("ALL_PROXY", "")]).contains("_PROXY"));
    for wrong in [
        "socks5://proxy:1080",
        "socks5h://user:canary@proxy:1080",
        "ftp://proxy",
        "http://",
        "http://user:canary@",
        "http://proxy:99999",
        "http://proxy/path?canary",
    ] {
        for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY"] {
            let problems = load(&[(variable, wrong)]).unwrap_err().to_string();
            assert!(problems.contains(variable) && problems.contains("http://"), "{problems}");
            assert!(!problems.contains("canary"), "{problems}");
        }
    }
    // What is not used is nobody's mistake.
    let both = [("HTTPS_PROXY", "proxy:1"), ("HTTP_PROXY", "proxy:1"), ("ALL_PROXY", "socks5://x")];
    shown(&both);
}

#[tokio::test]
async fn a_proxy_that_fails_is_told_apart_from_a_provider_that_fails() {
    let proxy = Proxy::start(&[]).await;
    let app = inside(&proxy, "HTTP_PROXY", proxy.url(), Setup::default()).await;
    let client = app.client().await;
    let (_, form) = client.ask(&[]).await;
    for status in [407, 403, 502, 503, 302] {
        proxy.answers(Some(status));
        app.advance(10);
        client.decide(&form, "approve").await.assert_page(503);
        let env = [("HTTP_PROXY", proxy.url())];
        let (found, code) = check_with(&app, &app.config_text(), &env).await;
        let network = finding(&found, "network");
        assert_eq!((network["severity"].as_str(), code), (Some("failed"), 2), "{found:#?}");
        assert!(network["found"].as_str().unwrap().contains(&status.to_string()), "{network}");
        assert!(found.iter().all(|finding| finding["probe"] != "discovery"), "{found:#?}");
        let told = format!("the proxy {} (HTTP_PROXY)", proxy.url());
        let lines = logs::all();
        let line = lines.lines().find(|line| {
            line.contains("discovery failed")
                && line.contains(&told)
                && line.contains(&status.to_string())
        });
        assert!(line.is_some(), "the log says nothing of {told} and {status}");
    }
    proxy.answers(None);
    app.idp.misbehave(|how| how.discovery_down = true);
    let (found, _) = check_with(&app, &app.config_text(), &[("HTTP_PROXY", proxy.url())]).await;
    assert_eq!(finding(&found, "network")["severity"], "ok", "{found:#?}");
    assert_eq!(finding(&found, "discovery")["severity"], "failed", "{found:#?}");

    drop(proxy);
    let gone = Proxy::start(&[]).await;
    let url = gone.url();
    drop(gone);
    let (found, _) = check_with(&app, &app.config_text(), &[("HTTP_PROXY", url.clone())]).await;
    let network = finding(&found, "network");
    assert_eq!(network["severity"], "failed", "{network}");
    assert!(network["found"].as_str().unwrap().contains(&url), "{network}");
}

#[tokio::test]
async fn a_proxy_that_stalls_is_an_outage_and_logs_nobody_out() {
    let proxy = Proxy::start(&[]).await;
    let setup = Setup::toml("[upstream]\nrecheck = \"5m\"");
    let app = inside(&proxy, "HTTP_PROXY", proxy.url(), setup).await;
    let (client, tokens) = app.tokens_of("alice").await;
    proxy.falls_silent(true);
    app.advance(6 * MINUTE);
    let stale = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert_eq!(stale.expires_in, 300, "bridged over the outage");
    proxy.falls_silent(false);
    app.advance(2 * MINUTE);
    let fresh = Tokens::of(&client.refresh(&stale.refresh_token).await);
    assert_eq!(fresh.expires_in, 600);
}

const ID: &str = "https://client.example/oauth/client.json";
const CALLBACK: &str = "https://client.example/callback";

fn document() -> Value {
    json!({ "client_id": ID, "client_name": "A published client", "redirect_uris": [CALLBACK] })
}

/// What clients publish goes through the proxy by its own word alone, and what NO_PROXY names does not.
#[tokio::test]
async fn client_documents_take_the_proxy_only_when_they_are_told_to() {
    for (through, exceptions, status) in [
        ("through_proxy = true", "", 200),
        ("through_proxy = true", "client.example", 503),
        ("through_proxy = false", "", 503),
        ("", "", 503),
    ] {
        let publisher = Publisher::start(&["client.example"]).await;
        publisher.publish(ID, &document());
        let proxy = Proxy::start(&[("client.example:443", publisher.address())]).await;
        let env = vec![("HTTPS_PROXY", proxy.url()), ("NO_PROXY", exceptions.to_owned())];
        let setup = Setup { env, ..publisher.setup_by_name(through) };
        let app = TestApp::with(setup).await;
        let client = McpClient::known_as(&app, ID, CALLBACK);
        client.browser.get(&client.authorize_url(&[])).await.assert_page(status);
        assert_eq!(proxy.asked().is_empty(), status == 503, "{through} {exceptions}");
    }
}

#[tokio::test]
async fn through_a_proxy_addresses_are_refused_and_its_own_refusals_tell_a_stranger_nothing() {
    let publisher = Publisher::start(&["client.example"]).await;
    let proxy = Proxy::start(&[("client.example:443", publisher.address())]).await;
    let env = vec![("HTTPS_PROXY", proxy.url())];
    let setup = Setup { env, ..publisher.setup_by_name("through_proxy = true") };
    let app = TestApp::with(setup).await;
    for id in [
        "https://10.0.0.5/c",
        "https://169.254.169.254/latest/meta-data",
        "https://[fd00::1]/c",
        "https://127.0.0.1/c",
        "https://localhost/c",
        "https://intranet/c",
        "https://metadata.google.internal/c",
        "https://2130706433/c",
    ] {
        let client = McpClient::known_as(&app, id, CALLBACK);
        client.browser.get(&client.authorize_url(&[])).await.assert_page(400);
    }
    assert_eq!(proxy.asked(), []);
    let reference = regex_lite::Regex::new("<p class=\"reference\">.*</p>").unwrap();
    let mut pages = Vec::new();
    for (number, status) in [403, 404, 407, 502, 503].into_iter().enumerate() {
        proxy.answers(Some(status));
        let id = format!("https://made-up-{number}.example/c");
        let client = McpClient::known_as(&app, &id, CALLBACK);
        let page = client.browser.get(&client.authorize_url(&[])).await;
        page.assert_page(503);
        pages.push(reference.replace_all(page.text(), "").into_owned());
    }
    assert!(pages.iter().all(|page| *page == pages[0]));
}
