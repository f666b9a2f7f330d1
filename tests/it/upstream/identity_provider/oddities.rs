//! What differs from the standards and harms nobody is tolerated; what protects somebody is insisted upon,
//! and the log names it.

use portcullis::demo::ChangeText;
use serde_json::{Map, Value, json};

use super::{ask_again, assert_bridged, assert_fresh};
use crate::harness::client::REDIRECT_URI;
use crate::harness::{Setup, TestApp};

fn claims(value: &Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

#[tokio::test]
async fn up_01_of_several_audiences_the_authorized_party_must_be_us() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let us = "portcullis";
    for (audience, azp, works) in [
        // Zitadel names its project beside the client.
        (json!([us, "project-id"]), json!(us), true),
        (json!(["project-id", us]), json!(us), true),
        (json!(["a", "b", us, "c"]), json!(us), true),
        (json!([us]), Value::Null, true),
        (json!([us]), json!(us), true),
        (json!([us, us]), Value::Null, true), // twice the same is one
        (json!(us), json!(us), true),
        (json!([us, "project-id"]), Value::Null, false),
        (json!([us, "project-id"]), json!("project-id"), false),
        (json!([us, "project-id"]), json!("Portcullis"), false),
        (json!([us, "project-id"]), json!([us]), false),
        (json!([us, "project-id"]), json!(""), false),
        (json!([us, us]), json!("project-id"), false),
        (json!(us), json!("project-id"), false),
        (json!(us), json!(7), false),
        (json!(["project-id", "x"]), json!(us), false),
        (json!("project-id"), json!(us), false),
        (json!([us, 7]), json!(us), false),
        (json!([]), json!(us), false),
        (json!({ us: true }), json!(us), false),
        (Value::Null, json!(us), false),
    ] {
        app.idp.misbehave(|how| {
            how.extra_claims = claims(&json!({ "aud": audience, "azp": azp }));
        });
        let answer = client.authorize("bob", &[]).await;
        assert_eq!(answer.status == 303, works, "{audience} {azp}: {}", answer.status);
        if works {
            answer.assert_leads_to(REDIRECT_URI);
        }
    }
}

#[tokio::test]
async fn a_claim_that_nobody_reads_may_be_anything() {
    let app = TestApp::start().await;
    let (client, mut tokens) = app.tokens_of("bob").await;
    for odd in [
        json!({ "iat": 1_795_219_200.25 }), // now
        json!({ "amr": "simulator" }),
        json!({ "amr": { "otp": true } }),
        json!({ "acr": 2 }),
        json!({ "address": "1 Main Street" }),
        json!({ "locale": { "lang": "en" } }),
        json!({ "updated_at": "last week" }),
        json!({ "phone_number": 12345, "phone_number_verified": "yes" }),
        json!({ "picture": "", "website": "not a URL", "profile": 7 }),
        json!({ "birthdate": 1990, "zoneinfo": ["Europe/Berlin"], "gender": 1 }),
        json!({ "name": { "first": "Bob" }, "nickname": ["b"] }),
        json!({ "email": ["bob@example.com"], "email_verified": "perhaps" }),
        json!({ "auth_time": "this morning" }),
        json!({ "sid": 12 }),
        json!({ "c_hash": 9, "s_hash": [] }),
        json!({ "realm_access": "none", "https://x.example/huge": 1e300 }),
    ] {
        app.idp.misbehave(|how| how.extra_claims = claims(&odd));
        let answer = client.authorize("bob", &[]).await;
        assert_eq!(answer.status, 303, "{odd}");
        answer.assert_leads_to(REDIRECT_URI);
        app.idp.misbehave(|how| {
            how.extra_claims.remove("iat"); // that one was of the sign-in
        });
        tokens = ask_again(&app, &client, &tokens).await;
        assert_eq!(tokens.expires_in, 600, "{odd}: bridged");
    }
}

#[tokio::test]
async fn a_claim_that_protects_somebody_is_named_when_it_cannot_be_read() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for (odd, said) in [
        (json!({ "iat": 1e300 }), "iat: issued in the future"),
        (json!({ "iat": 99_999_999_999_999_999_999.0 }), "iat: issued in the future"),
        (json!({ "iat": { "seconds": 1 } }), "iat is not a time"),
        (json!({ "iat": null }), "iat is missing"),
        (json!({ "exp": "soon" }), "exp is not a time"),
        (json!({ "exp": null }), "exp is missing"),
        (json!({ "exp": -1e300 }), "exp: expired"),
        (json!({ "nbf": true }), "nbf is not a time"),
        (json!({ "nonce": 7 }), "nonce is not a text"),
        (json!({ "sub": 7 }), "sub is not a text"),
        (json!({ "iss": ["x"] }), "iss is not a text"),
        (json!({ "at_hash": 7 }), "at_hash is not a text"),
        (json!({ "azp": 7 }), "azp is not a text"),
        (json!({ "aud": 7 }), "aud is neither a text nor a list of texts"),
    ] {
        app.idp.misbehave(|how| how.extra_claims = claims(&odd));
        let answer = client.authorize("bob", &[]).await;
        assert!(matches!(answer.status.as_u16(), 403 | 502), "{odd}: {}", answer.status);
        assert!(crate::harness::logs::all().contains(said), "{odd}: {said} is not in the log");
    }
}

type Change = fn(&mut Value);

/// Changes to an answer of the token endpoint; the refresh token in it must not be lost.
const TOLERATED: [(&str, Change); 12] = [
    ("scope is a list", |answer| answer["scope"] = json!(["openid", "email"])),
    ("scope is an object", |answer| answer["scope"] = json!({})),
    ("no token_type", |answer| {
        answer.as_object_mut().unwrap().remove("token_type");
    }),
    ("token_type is null", |answer| answer["token_type"] = Value::Null),
    ("token_type is a number", |answer| answer["token_type"] = 1.into()),
    ("token_type is something else", |answer| answer["token_type"] = "access_token".into()),
    ("expires_in is a text", |answer| answer["expires_in"] = "300".into()),
    ("expires_in is a fraction", |answer| answer["expires_in"] = 299.5.into()),
    ("expires_in is no number", |answer| answer["expires_in"] = "never".into()),
    ("expires_in is huge", |answer| answer["expires_in"] = 1e300.into()),
    ("an error beside the tokens", |answer| answer["error"] = "".into()),
    ("more than anybody needs", |answer| answer["not_before_policy"] = json!([0, {}])),
];

#[tokio::test]
async fn details_of_a_token_answer_cost_nobody_a_sign_in_or_a_refresh_token() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| how.strict_rotation = true); // a token that is lost ends the session
    let (client, mut tokens) = app.tokens_of("bob").await;
    for (what, change) in TOLERATED {
        app.idp.misbehave(|how| how.change_token_answer = Some(change));
        tokens = ask_again(&app, &client, &tokens).await;
        assert_eq!(tokens.expires_in, 600, "{what}: bridged");
        client.elsewhere().sign_in("bob").await;
    }
    app.idp.misbehave(|how| how.change_token_answer = None);
    for (what, content_type, change) in [
        ("plain text", "text/plain", None),
        ("a page", "text/html; charset=utf-8", None),
        ("no JSON by its type", "application/octet-stream", None),
        ("a byte order mark", "application/json", Some(mark as ChangeText)),
        ("a form", "application/x-www-form-urlencoded", Some(as_form)),
    ] {
        app.idp.misbehave(|how| {
            how.content_type = Some(("/token", content_type));
            how.change_text = change.map(|change| ("/token", change));
        });
        tokens = ask_again(&app, &client, &tokens).await;
        assert_eq!(tokens.expires_in, 600, "{what}: bridged");
        client.elsewhere().sign_in("bob").await;
    }
}

fn mark(text: &str) -> String {
    format!("\u{feff}{text}")
}

fn as_form(json: &str) -> String {
    let answer: Map<String, Value> = serde_json::from_str(json).unwrap();
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in &answer {
        form.append_pair(name, value.as_str().unwrap_or(&value.to_string()));
    }
    form.finish()
}

#[tokio::test]
async fn a_rotated_refresh_token_is_kept_whatever_else_is_wrong() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| how.strict_rotation = true);
    let (client, mut tokens) = app.tokens_of("bob").await;
    let changes: [(&str, Change); 6] = [
        ("no access token", |answer| {
            answer.as_object_mut().unwrap().remove("access_token");
        }),
        ("an access token that is none", |answer| answer["access_token"] = json!({ "jwt": "x" })),
        ("an empty access token", |answer| answer["access_token"] = "".into()),
        ("an ID token that is none", |answer| answer["id_token"] = json!(["x"])),
        ("a broken ID token", |answer| answer["id_token"] = "e30.e30".into()),
        ("claims that are none", |answer| answer["id_token"] = "e30.W10.AA".into()),
    ];
    for (what, change) in changes {
        app.idp.misbehave(|how| how.change_token_answer = Some(change));
        tokens = ask_again(&app, &client, &tokens).await;
        assert_eq!(tokens.expires_in, 300, "{what}: not bridged");
        app.idp.misbehave(|how| how.change_token_answer = None);
        tokens = ask_again(&app, &client, &tokens).await;
        assert_eq!(tokens.expires_in, 600, "{what}: lost");
    }
    // What is no refresh token takes the place of none.
    app.idp.misbehave(|how| (how.strict_rotation, how.keeps_refresh_token) = (false, true));
    let changes: [fn(&mut Value); 4] = [
        |answer| answer["refresh_token"] = "".into(),
        |answer| answer["refresh_token"] = Value::Null,
        |answer| answer["refresh_token"] = 7.into(),
        |answer| answer["id_token"] = "".into(), // none is sent, as at some providers
    ];
    for change in changes {
        app.idp.misbehave(|how| how.change_token_answer = Some(change));
        tokens = ask_again(&app, &client, &tokens).await;
        assert_fresh(&tokens);
    }
}

/// Each with the server's own answer to it: `None` where it is tolerated, else what the log says.
type Changed = (&'static str, Change, Option<&'static str>);

const DISCOVERY: [Changed; 20] = [
    ("an empty userinfo", |it| it["userinfo_endpoint"] = "".into(), None),
    ("an empty logout", |it| it["end_session_endpoint"] = "".into(), None),
    ("an empty revocation", |it| it["revocation_endpoint"] = "".into(), None),
    (
        "an empty policy",
        |it| (it["op_policy_uri"], it["op_tos_uri"]) = ("".into(), "".into()),
        None,
    ),
    (
        "documentation that is no URL",
        |it| it["service_documentation"] = "see the wiki".into(),
        None,
    ),
    ("an empty registration", |it| it["registration_endpoint"] = "".into(), None),
    ("no subject types", |it| remove(it, "subject_types_supported"), None),
    ("no response types", |it| remove(it, "response_types_supported"), None),
    ("no algorithms", |it| remove(it, "id_token_signing_alg_values_supported"), None),
    ("claims as a text", |it| it["claims_supported"] = "sub name".into(), None),
    ("scopes as a text", |it| it["scopes_supported"] = "openid offline_access".into(), None),
    ("scopes with a number", |it| it["scopes_supported"] = json!(["offline_access", 7]), None),
    (
        "methods as a text",
        |it| {
            it["token_endpoint_auth_methods_supported"] = "client_secret_basic".into();
        },
        None,
    ),
    ("display values as an object", |it| it["display_values_supported"] = json!({}), None),
    (
        "iss as a text",
        |it| {
            it["authorization_response_iss_parameter_supported"] = "true".into();
        },
        None,
    ),
    ("no token endpoint", |it| it["token_endpoint"] = "".into(), Some("token_endpoint is missing")),
    ("no keys", |it| remove(it, "jwks_uri"), Some("jwks_uri is missing")),
    (
        "a place that is no URL",
        |it| it["authorization_endpoint"] = "/authorize".into(),
        Some("authorization_endpoint is not a URL"),
    ),
    (
        "a place that is a number",
        |it| it["token_endpoint"] = 7.into(),
        Some("token_endpoint is not a text"),
    ),
    (
        "iss is unclear",
        |it| {
            it["authorization_response_iss_parameter_supported"] = json!(["x"]);
        },
        Some("authorization_response_iss_parameter_supported is neither true nor false"),
    ),
];

fn remove(json: &mut Value, name: &str) {
    json.as_object_mut().unwrap().remove(name);
}

#[tokio::test]
async fn details_of_discovery_are_tolerated_or_the_member_is_named() {
    for (what, change, refused) in DISCOVERY {
        let app = TestApp::start().await;
        app.idp.misbehave(|how| how.change_discovery = Some(change));
        let client = app.client().await;
        let Some(said) = refused else {
            let answer = client.authorize("bob", &[]).await;
            assert_eq!(answer.status, 303, "{what}");
            continue;
        };
        let (_, form) = client.ask(&[]).await;
        client.decide(&form, "approve").await.assert_page(502);
        assert!(crate::harness::logs::all().contains(said), "{what}: {said}");
    }
    for (content_type, change) in [("text/html", None), ("text/plain", Some(mark as ChangeText))] {
        let app = TestApp::start().await;
        let at = "/.well-known/openid-configuration";
        app.idp.misbehave(|how| {
            how.content_type = Some((at, content_type));
            how.change_text = change.map(|change| (at, change));
        });
        app.client().await.sign_in("bob").await;
    }
}

const KEYS: [Changed; 12] = [
    (
        "a key of an unknown kind",
        |it| more(it, json!({ "kty": "AKP", "alg": "ML-DSA-44", "pub": "AA" })),
        None,
    ),
    ("a key without a kind", |it| more(it, json!({ "kid": "x" })), None),
    ("a key that is none", |it| more(it, json!("x")), None),
    ("a secret", |it| more(it, json!({ "kty": "oct", "k": "AAAA" })), None),
    (
        "an unknown curve",
        |it| more(it, json!({ "kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA" })),
        None,
    ),
    ("a certificate that is none", |it| it["keys"][0]["x5c"] = 7.into(), None),
    (
        "an unknown use",
        |it| more(it, json!({ "kty": "RSA", "use": ["sig"], "n": "AA", "e": "AQAB" })),
        None,
    ),
    (
        "padding",
        |it| {
            let n = it["keys"][0]["n"].as_str().unwrap().to_owned();
            it["keys"][0]["n"] = format!("{n}{}", "=".repeat((4 - n.len() % 4) % 4)).into();
        },
        None,
    ),
    ("more members", |it| (it["etag"], it["keys"][0]["exp"]) = (7.into(), "later".into()), None),
    ("no list", |it| *it = json!({ "error": "none" }), Some("keys is missing")),
    ("an object", |it| it["keys"] = json!({}), Some("keys is not a list")),
    ("a bare list", |it| *it = it["keys"].clone(), Some("it is not a JSON object")),
];

fn more(set: &mut Value, key: Value) {
    set["keys"].as_array_mut().unwrap().insert(0, key);
}

#[tokio::test]
async fn details_of_the_keys_are_tolerated_or_the_member_is_named() {
    for (what, change, refused) in KEYS {
        let app = TestApp::start().await;
        app.idp.misbehave(|how| how.change_keys = Some(change));
        let client = app.client().await;
        let Some(said) = refused else {
            let answer = client.authorize("bob", &[]).await;
            assert_eq!(answer.status, 303, "{what}");
            continue;
        };
        let (_, form) = client.ask(&[]).await;
        client.decide(&form, "approve").await.assert_page(502);
        assert!(crate::harness::logs::all().contains(said), "{what}: {said}");
    }
    for content_type in ["text/html", "text/plain", "application/octet-stream"] {
        let app = TestApp::start().await;
        app.idp.misbehave(|how| how.content_type = Some(("/jwks", content_type)));
        app.client().await.sign_in("bob").await;
    }
}

/// One list for everything that the provider signs.
#[tokio::test]
async fn jw_01_one_list_of_algorithms_is_for_everything_of_one_provider() {
    const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
    for (alg, works) in [
        ("RS256", true),
        ("RS384", true),
        ("RS512", true),
        ("PS256", true),
        ("PS384", true),
        ("PS512", true),
        ("ES256", true),
        ("ES384", true),
        ("ES512", true),
        ("EdDSA", true),
        ("HS256", false),
        ("none", false),
    ] {
        let setup = Setup::toml("[upstream.claims]\nsources = [\"userinfo\"]");
        let app = TestApp::with(setup).await;
        app.idp.misbehave(|how| {
            how.algorithm = Some(alg.to_owned());
            how.signed_userinfo = Some(|_| ());
        });
        let client = app.client().await;
        let answer = client.authorize("bob", &[]).await;
        assert_eq!(answer.status == 303, works, "ID token and userinfo, {alg}: {}", answer.status);
        if works {
            answer.assert_leads_to(REDIRECT_URI);
        }
        let now = app.now().unix();
        let notice = json!({
            "iss": app.idp.issuer(), "aud": "portcullis", "jti": "1", "iat": now, "exp": now + 120,
            "events": { EVENT: {} }, "sub": "demo-bob",
        });
        let notice = app.idp.sign("logout+jwt", &notice, Some(alg)).unwrap();
        let form = [("logout_token", notice.as_str())];
        let told = app.http.post_form(&app.at("/backchannel-logout"), &form, &[]).await;
        assert_eq!(told.status == 200, works, "logout token, {alg}: {}", told.status);
    }
}

#[tokio::test]
async fn an_unreadable_claim_at_a_refresh_takes_nothing_away() {
    let app = TestApp::start().await;
    let (client, mut tokens) = app.tokens_of("bob").await;
    for odd in [json!({ "exp": "soon" }), json!({ "aud": ["portcullis", "x"] })] {
        app.idp.misbehave(|how| how.extra_claims = claims(&odd));
        tokens = ask_again(&app, &client, &tokens).await;
        assert_bridged(&tokens);
        app.idp.misbehave(|how| how.extra_claims = Map::new());
        tokens = ask_again(&app, &client, &tokens).await;
        assert_fresh(&tokens);
    }
}
