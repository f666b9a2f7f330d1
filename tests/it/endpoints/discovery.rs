//! What a client reads before it knows us: RFC 8414, OpenID Discovery, RFC 9728, RFC 7517.

use serde_json::json;

use crate::harness::{Setup, TestApp};

const TWO_RESOURCES: &str = r#"
[[resource]]
path = "/one"
name = "One"
scopes = ["read", "write"]
default_scopes = ["read"]
[[resource]]
path = "/team/two"
scopes = ["admin"]
token_alg = "RS256"
[[resource]]
id = "https://elsewhere.example/mcp"
scopes = ["read"]
"#;

fn two() -> Setup {
    Setup::toml(TWO_RESOURCES)
}

#[tokio::test]
async fn meta_01_server_metadata_names_every_endpoint_and_only_what_works() {
    let app = TestApp::start().await;
    let metadata = app.http.get(&app.at("/.well-known/oauth-authorization-server")).await;
    metadata.assert_status(200);
    assert_eq!(metadata.header("content-type"), Some("application/json"));
    let metadata = metadata.json();
    assert_eq!(
        metadata,
        json!({
            "issuer": app.url,
            "authorization_endpoint": app.at("/authorize"),
            "token_endpoint": app.at("/token"),
            "registration_endpoint": app.at("/register"),
            "revocation_endpoint": app.at("/revoke"),
            "jwks_uri": app.at("/.well-known/jwks.json"),
            "scopes_supported": ["read:todos", "create:todos", "delete:todos", "offline_access"],
            "response_types_supported": ["code"],
            "response_modes_supported": ["query"],
            "grant_types_supported": ["authorization_code", "refresh_token"],
            "client_id_metadata_document_supported": true,
            "token_endpoint_auth_methods_supported":
                ["none", "client_secret_post", "client_secret_basic", "private_key_jwt"],
            "token_endpoint_auth_signing_alg_values_supported":
                ["ES256", "EdDSA", "RS256", "PS256"],
            "revocation_endpoint_auth_methods_supported":
                ["none", "client_secret_post", "client_secret_basic", "private_key_jwt"],
            "revocation_endpoint_auth_signing_alg_values_supported":
                ["ES256", "EdDSA", "RS256", "PS256"],
            "code_challenge_methods_supported": ["S256"],
            "authorization_response_iss_parameter_supported": true,
            "protected_resources": [app.mcp_url()],
            "ui_locales_supported": ["en", "de", "es", "fr", "ja", "zh-Hans"],
        })
    );
}

#[tokio::test]
async fn meta_03_every_probed_location_answers_and_names_the_same_issuer() {
    let app = TestApp::with(two()).await;
    for path in [
        "/.well-known/oauth-authorization-server",
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/one",
        "/.well-known/openid-configuration/one",
        "/one/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server/team/two",
        "/one/.well-known/oauth-authorization-server",
        "/team/two/.well-known/oauth-authorization-server",
    ] {
        let answer = app.http.get(&app.at(path)).await;
        assert_eq!(answer.assert_status(200).json()["issuer"], app.url, "{path}");
    }
}

#[tokio::test]
async fn meta_18_the_openid_document_is_complete_enough_for_strict_readers() {
    let app = TestApp::with(two()).await;
    let document = app.http.get(&app.at("/.well-known/openid-configuration")).await.json();
    assert_eq!(document["subject_types_supported"], json!(["public"]));
    assert_eq!(document["id_token_signing_alg_values_supported"], json!(["ES256", "RS256"]));
    // OpenID Connect Discovery §3: RS256 is one of them, though nothing here is signed with it.
    let app = TestApp::start().await;
    let document = app.http.get(&app.at("/.well-known/openid-configuration")).await.json();
    assert_eq!(document["id_token_signing_alg_values_supported"], json!(["ES256", "RS256"]));
}

#[tokio::test]
async fn prm_01_each_resource_has_its_own_metadata() {
    let app = TestApp::with(two()).await;
    let one = app.http.get(&app.at("/.well-known/oauth-protected-resource/one")).await;
    assert_eq!(
        one.assert_status(200).json(),
        json!({
            "resource": app.at("/one"),
            "authorization_servers": [app.url],
            "bearer_methods_supported": ["header"],
            "scopes_supported": ["read"],
            "resource_name": "One",
        })
    );
    let two = app.http.get(&app.at("/.well-known/oauth-protected-resource/team/two")).await;
    assert_eq!(two.assert_status(200).json()["resource"], app.at("/team/two"));
}

#[tokio::test]
async fn prm_02_the_root_document_exists_only_when_it_is_clear_which_resource_is_meant() {
    let single = TestApp::start().await;
    let root = single.http.get(&single.at("/.well-known/oauth-protected-resource")).await;
    assert_eq!(root.assert_status(200).json()["resource"], single.mcp_url());

    let several = TestApp::with(two()).await;
    let root = several.http.get(&several.at("/.well-known/oauth-protected-resource")).await;
    root.assert_status(404);
}

#[tokio::test]
async fn unknown_well_known_paths_are_a_plain_404_that_no_client_takes_for_a_document() {
    let app = TestApp::start().await;
    for path in [
        "/.well-known/oauth-protected-resource/other",
        "/.well-known/oauth-authorization-server/other",
        "/.well-known/nothing",
    ] {
        let answer = app.http.send("GET", &app.at(path), &[("accept", "text/html")], "").await;
        answer.assert_status(404);
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
    }
}

#[tokio::test]
async fn programs_in_browsers_may_read_the_documents() {
    let app = TestApp::start().await;
    let headers = [("origin", "http://localhost:6274")];
    let url = app.at("/.well-known/oauth-authorization-server");
    let answer = app.http.send("GET", &url, &headers, "").await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    let headers = [
        ("origin", "http://localhost:6274"),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "mcp-protocol-version"),
    ];
    let answer = app.http.send("OPTIONS", &url, &headers, "").await;
    assert!(answer.status.is_success());
    assert_eq!(answer.header("access-control-allow-headers"), Some("mcp-protocol-version"));
}

#[tokio::test]
async fn jwk_01_only_public_keys_are_published_one_per_algorithm_in_use() {
    let app = TestApp::with(two()).await;
    let keys = app.http.get(&app.at("/.well-known/jwks.json")).await.assert_status(200).json();
    let keys = keys["keys"].as_array().unwrap().clone();
    let algs: Vec<&str> = keys.iter().map(|key| key["alg"].as_str().unwrap()).collect();
    assert_eq!(algs, ["ES256", "RS256"]);
    for key in keys {
        assert_eq!(key["use"], "sig");
        assert!(key["kid"].is_string());
        for private in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert!(key.get(private).is_none(), "{private} is published");
        }
    }
}

#[tokio::test]
async fn a_document_that_is_known_is_not_sent_again() {
    let app = TestApp::start().await;
    for path in ["/.well-known/oauth-authorization-server", "/.well-known/jwks.json"] {
        let whole = app.http.get(&app.at(path)).await;
        let etag = whole.assert_status(200).header("etag").unwrap().to_owned();
        for known in [etag.clone(), format!("\"other\", W/{etag}"), "*".to_owned()] {
            let headers = [("if-none-match", known.as_str())];
            let answer = app.http.send("GET", &app.at(path), &headers, "").await;
            assert_eq!((answer.status.as_u16(), answer.text()), (304, ""), "{path} {known}");
            assert_eq!(answer.header("etag"), Some(etag.as_str()));
        }
        let headers = [("if-none-match", "\"other\"")];
        app.http.send("GET", &app.at(path), &headers, "").await.assert_status(200);
    }
}
