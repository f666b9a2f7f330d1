//! One list of hostile tokens for everything that reads a signed token: access tokens at the gateway, client
//! assertions, logout tokens and ID tokens. RFC 7515, RFC 8725, threats JW-01 to JW-05.
//!
//! Where the test has the key, the signature is right and only the form is hostile: a reader that overlooks the
//! form accepts the token.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use portcullis::oauth::secret::random_text;
use serde_json::{Value, json};

use crate::harness::TestApp;
use crate::harness::client::{McpClient, REDIRECT_URI, jwt_part};
use crate::harness::signer::ASSERTION_TYPE;

/// The signer that clients and the provider publish.
static KEY: LazyLock<EcdsaKeyPair> = LazyLock::new(new_key);

fn new_key() -> EcdsaKeyPair {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap()
}

fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn jwk(key: &EcdsaKeyPair) -> Value {
    let point = key.public_key().as_ref();
    json!({
        "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": "k",
        "x": b64(&point[1..33]), "y": b64(&point[33..]),
    })
}

fn sign(message: &str) -> String {
    b64(KEY.sign(&SystemRandom::new(), message.as_bytes()).unwrap())
}

/// A token with this text as its header, rightly signed.
fn with_header(header: &str, claims: &Value) -> String {
    let signed = format!("{}.{}", b64(header), b64(claims.to_string()));
    format!("{signed}.{}", sign(&signed))
}

const HEADER: &str = r#"{"alg":"ES256","kid":"k"}"#;

fn good(claims: &Value) -> String {
    with_header(HEADER, claims)
}

/// Adds members to the header.
fn adding(members: &str, claims: &Value) -> String {
    with_header(&format!(r#"{{"alg":"ES256","kid":"k",{members}}}"#), claims)
}

/// Replaces the signature.
fn signed_as(token: &str, signature: &str) -> String {
    format!("{}.{signature}", token.rsplit_once('.').unwrap().0)
}

/// Sets the unused bits of the last character: another text for the same bytes.
fn with_trailing_bits(part: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = part.bytes().last().unwrap();
    let value = ALPHABET.iter().position(|known| *known == last).unwrap();
    assert_ne!(part.len() % 4, 0, "{part} has no unused bits");
    format!("{}{}", &part[..part.len() - 1], char::from(ALPHABET[value | 1]))
}

/// Brings the text of a part to a length that leaves unused bits.
fn uneven(json: &str) -> String {
    let spaces = " ".repeat((4 - json.len() % 3) % 3);
    format!("{json}{spaces}")
}

fn parts(header: &str, claims: &str) -> String {
    let signed = format!("{header}.{claims}");
    format!("{signed}.{}", sign(&signed))
}

/// Who accepts the token.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Accepts {
    Nobody,
    Everybody,
    /// Readers of what the provider signs. They ignore members that RFC 7515 lets them ignore; the reader of
    /// client assertions refuses those that name keys or change how the token is read.
    ProviderOnly,
    ClientsOnly,
}
use Accepts::{ClientsOnly, Everybody, Nobody, ProviderOnly};

type Forge = fn(&Value) -> String;

const FORGED: &[(&str, Accepts, Forge)] = &[
    ("as it should be", Everybody, good),
    // Algorithms.
    ("none, unsigned", Nobody, |claims| {
        signed_as(&with_header(r#"{"alg":"none","kid":"k"}"#, claims), "")
    }),
    ("none, signed", Nobody, |claims| with_header(r#"{"alg":"none","kid":"k"}"#, claims)),
    ("nOnE", Nobody, |claims| with_header(r#"{"alg":"nOnE","kid":"k"}"#, claims)),
    ("es256", Nobody, |claims| with_header(r#"{"alg":"es256","kid":"k"}"#, claims)),
    ("a MAC by the public key as a JWK", Nobody, |claims| {
        mac(jwk(&KEY).to_string().as_bytes(), claims)
    }),
    ("a MAC by the public point", Nobody, |claims| mac(KEY.public_key().as_ref(), claims)),
    ("a MAC by nothing", Nobody, |claims| mac(b"", claims)),
    ("RS256 by a key of P-256", Nobody, |claims| {
        with_header(r#"{"alg":"RS256","kid":"k"}"#, claims)
    }),
    ("ES384 by a key of P-256", Nobody, |claims| {
        with_header(r#"{"alg":"ES384","kid":"k"}"#, claims)
    }),
    ("no algorithm", Nobody, |claims| with_header(r#"{"kid":"k"}"#, claims)),
    ("null as algorithm", Nobody, |claims| with_header(r#"{"alg":null,"kid":"k"}"#, claims)),
    ("a list as algorithm", Nobody, |claims| with_header(r#"{"alg":["ES256"],"kid":"k"}"#, claims)),
    // Headers.
    ("crit", Nobody, |claims| adding(r#""crit":["exp"],"exp":1"#, claims)),
    ("crit, empty", Nobody, |claims| adding(r#""crit":[]"#, claims)),
    ("crit, null", Nobody, |claims| adding(r#""crit":null"#, claims)),
    ("b64=false that is critical", Nobody, |claims| {
        adding(r#""crit":["b64"],"b64":false"#, claims)
    }),
    ("b64=false that is not", ProviderOnly, |claims| adding(r#""b64":false"#, claims)),
    ("a key in the header, and its signature", Nobody, |claims| {
        let own = new_key();
        let header = json!({ "alg": "ES256", "kid": "k", "jwk": jwk(&own) });
        let signed = format!("{}.{}", b64(header.to_string()), b64(claims.to_string()));
        format!("{signed}.{}", b64(own.sign(&SystemRandom::new(), signed.as_bytes()).unwrap()))
    }),
    ("an address of keys", ProviderOnly, |claims| {
        adding(r#""jku":"https://evil.example""#, claims)
    }),
    ("an unknown member", Everybody, |claims| adding(r#""colour":"red""#, claims)),
    ("another JWT inside", ClientsOnly, |claims| adding(r#""cty":"JWT""#, claims)),
    ("no kid", Everybody, |claims| with_header(r#"{"alg":"ES256"}"#, claims)),
    ("another kid", Nobody, |claims| with_header(r#"{"alg":"ES256","kid":"../k"}"#, claims)),
    ("a kid in other letters", Nobody, |claims| {
        with_header(r#"{"alg":"ES256","kid":"K"}"#, claims)
    }),
    ("an empty kid", Nobody, |claims| with_header(r#"{"alg":"ES256","kid":""}"#, claims)),
    ("a list as kid", Nobody, |claims| with_header(r#"{"alg":"ES256","kid":["k"]}"#, claims)),
    // RFC 7515 §4: the last of members of one name counts, or the token is refused.
    ("none first", Everybody, |claims| {
        with_header(r#"{"alg":"none","alg":"ES256","kid":"k"}"#, claims)
    }),
    ("none last", Nobody, |claims| {
        with_header(r#"{"alg":"ES256","alg":"none","kid":"k"}"#, claims)
    }),
    ("another kid first", Everybody, |claims| adding(r#""kid":"x","kid":"k""#, claims)),
    ("another kid last", Nobody, |claims| adding(r#""kid":"x""#, claims)),
    ("a list as header", Nobody, |claims| with_header(r#"["ES256","k"]"#, claims)),
    ("a text as header", Nobody, |claims| with_header(r#""ES256""#, claims)),
    ("no JSON as header", Nobody, |claims| with_header("alg: ES256", claims)),
    ("a header with something behind", Nobody, |claims| with_header(r#"{"alg":"ES256"}}"#, claims)),
    ("a byte order mark", Nobody, |claims| with_header("\u{feff}{\"alg\":\"ES256\"}", claims)),
    // The text.
    ("padding in the header", Nobody, |claims| {
        parts(&format!("{}=", b64(uneven(HEADER))), &b64(claims.to_string()))
    }),
    ("padding in the claims", Nobody, |claims| {
        parts(&b64(HEADER), &format!("{}==", b64(uneven(&claims.to_string()))))
    }),
    ("padding in the signature", Nobody, |claims| format!("{}==", good(claims))),
    ("bits behind the header", Nobody, |claims| {
        parts(&with_trailing_bits(&b64(uneven(HEADER))), &b64(claims.to_string()))
    }),
    ("bits behind the claims", Nobody, |claims| {
        parts(&b64(HEADER), &with_trailing_bits(&b64(uneven(&claims.to_string()))))
    }),
    ("bits behind the signature", Nobody, |claims| {
        let token = good(claims);
        signed_as(&token, &with_trailing_bits(token.rsplit_once('.').unwrap().1))
    }),
    ("the other alphabet", Nobody, |claims| {
        let header = STANDARD_NO_PAD.encode(r#"{"alg":"ES256","kid":"k","x":"~~~???"}"#);
        assert!(header.contains(['+', '/']));
        parts(&header, &b64(claims.to_string()))
    }),
    ("a space in front", Nobody, |claims| format!(" {}", good(claims))),
    ("a line break behind", Nobody, |claims| format!("{}\n", good(claims))),
    ("a line break inside", Nobody, |claims| good(claims).replacen('.', ".\n", 1)),
    ("a character that is no ASCII", Nobody, |claims| format!("{}é", good(claims))),
    ("a part in front", Nobody, |claims| format!("a.{}", good(claims))),
    ("a part behind", Nobody, |claims| format!("{}.a", good(claims))),
    ("a dot behind", Nobody, |claims| format!("{}.", good(claims))),
    ("no signature", Nobody, |claims| good(claims).rsplit_once('.').unwrap().0.to_owned()),
    ("an empty signature", Nobody, |claims| signed_as(&good(claims), "")),
    ("dots only", Nobody, |_| "..".to_owned()),
    ("nothing", Nobody, |_| "-".to_owned()),
    ("the JSON serialization", Nobody, |claims| {
        let token = good(claims);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, payload) = signed.split_once('.').unwrap();
        json!({ "protected": header, "payload": payload, "signature": signature }).to_string()
    }),
    // Signatures.
    ("a signature of zeros", Nobody, |claims| signed_as(&good(claims), &b64([0; 64]))),
    ("a byte behind the signature", Nobody, |claims| {
        let token = good(claims);
        let mut bytes = URL_SAFE_NO_PAD.decode(token.rsplit_once('.').unwrap().1).unwrap();
        bytes.push(0);
        signed_as(&token, &b64(bytes))
    }),
    ("a signature in DER", Nobody, |claims| {
        let token = good(claims);
        let pkcs8 = KEY.to_pkcs8v1().unwrap();
        let der =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).unwrap();
        let signed = token.rsplit_once('.').unwrap().0;
        let der = der.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        signed_as(&token, &b64(der))
    }),
    ("the signature of other claims", Nobody, |claims| {
        let mut other = claims.clone();
        other["other"] = true.into();
        signed_as(&good(claims), good(&other).rsplit_once('.').unwrap().1)
    }),
    // Claims.
    ("a list as claims", Nobody, |claims| good(&json!([claims]))),
    ("claims with something behind", Nobody, |claims| {
        parts(&b64(HEADER), &b64(format!("{claims}}}")))
    }),
];

fn mac(secret: &[u8], claims: &Value) -> String {
    let header = b64(r#"{"alg":"HS256","kid":"k"}"#);
    let signed = format!("{header}.{}", b64(claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    format!("{signed}.{}", b64(hmac::sign(&key, signed.as_bytes())))
}

#[tokio::test]
async fn jw_01_client_assertions_and_logout_tokens_are_read_in_one_form_only() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| how.change_keys = Some(|keys| keys["keys"] = json!([jwk(&KEY)])));
    let metadata = json!({
        "client_name": "Signer", "redirect_uris": [REDIRECT_URI],
        "token_endpoint_auth_method": "private_key_jwt", "jwks": { "keys": [jwk(&KEY)] },
    });
    let client = McpClient::register_as(&app, metadata).await;
    for (what, accepts, forge) in FORGED {
        let now = app.now().unix();
        let assertion = forge(&json!({
            "iss": client.id, "sub": client.id, "aud": app.url, "jti": random_text(),
            "iat": now, "exp": now + 60,
        }));
        let answer = client
            .token(&[
                ("grant_type", "refresh_token"),
                ("refresh_token", "rt_x"),
                ("client_assertion_type", ASSERTION_TYPE),
                ("client_assertion", &assertion),
            ])
            .await;
        let accepted = matches!(accepts, Everybody | ClientsOnly);
        // Authenticated, and told that the refresh token is unknown.
        let authenticated = answer.text().contains("invalid_grant");
        assert_eq!(authenticated, accepted, "assertion: {what}: {}", answer.text());

        let token = forge(&json!({
            "iss": app.idp.issuer(), "aud": "portcullis", "jti": random_text(), "sub": "demo-bob",
            "iat": now, "exp": now + 120,
            "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
        }));
        let form = [("logout_token", token.as_str())];
        let answer = app.http.post_form(&app.at("/backchannel-logout"), &form, &[]).await;
        let accepted = matches!(accepts, Everybody | ProviderOnly);
        assert_eq!(answer.status == 200, accepted, "logout token: {what}: {}", answer.status);
        app.advance(60); // for the limits of requests
    }
}

/// The case that the provider's answers are forged with. This file has one test that uses it.
static CASE: AtomicUsize = AtomicUsize::new(0);

#[tokio::test]
async fn jw_01_id_tokens_are_read_in_one_form_only() {
    let app = TestApp::start().await;
    app.idp.misbehave(|how| {
        how.change_keys = Some(|keys| keys["keys"] = json!([jwk(&KEY)]));
        how.change_token_answer = Some(|answer| {
            let claims = jwt_part(answer["id_token"].as_str().unwrap(), 1);
            answer["id_token"] = FORGED[CASE.load(Ordering::SeqCst)].2(&claims).into();
        });
    });
    let client = app.client().await;
    for (case, (what, accepts, _)) in FORGED.iter().enumerate() {
        CASE.store(case, Ordering::SeqCst);
        let answer = client.authorize("bob", &[]).await;
        let accepted = matches!(accepts, Everybody | ProviderOnly);
        assert_eq!(answer.status == 303, accepted, "{what}: {}", answer.status);
        app.advance(60);
    }
}

/// Nobody outside has our key, so these are changes of a token that we made.
#[tokio::test]
async fn jw_01_access_tokens_are_read_in_one_form_only() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let token = tokens.access_token;
    let metadata = app.http.get(&app.at("/.well-known/oauth-authorization-server")).await.json();
    let jwks = app.http.get(metadata["jwks_uri"].as_str().unwrap()).await;
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let written = String::from_utf8(URL_SAFE_NO_PAD.decode(header).unwrap()).unwrap();
    let with = |header: &str, claims: &str| format!("{header}.{claims}.{signature}");
    let headed = |header: &str| with(&b64(header), claims);
    let changed = |name: &str, value: Value| {
        let mut changed: Value = serde_json::from_str(&written).unwrap();
        changed[name] = value;
        headed(&changed.to_string())
    };
    let by_mac = {
        let hs256 = changed("alg", "HS256".into());
        let signed = hs256.rsplit_once('.').unwrap().0;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &jwks.body);
        format!("{signed}.{}", b64(hmac::sign(&key, signed.as_bytes())))
    };
    let cases = [
        ("none, unsigned", signed_as(&changed("alg", "none".into()), "")),
        ("none, signed", changed("alg", "none".into())),
        ("another algorithm", changed("alg", "RS256".into())),
        ("a MAC by our public keys", by_mac),
        ("another type", changed("typ", "JWT".into())),
        ("another kid", changed("kid", "x".into())),
        ("crit", changed("crit", json!(["exp"]))),
        ("b64=false", changed("b64", false.into())),
        ("a key in the header", changed("jwk", jwk(&KEY))),
        ("a member twice", headed(&written.replacen('{', r#"{"alg":"none","#, 1))),
        ("spaces in the header", headed(&written.replace(':', ": "))),
        ("padding in the header", with(&format!("{header}="), claims)),
        ("padding in the claims", with(header, &format!("{claims}="))),
        ("padding in the signature", format!("{token}==")),
        ("bits behind the signature", signed_as(&token, &with_trailing_bits(signature))),
        ("a space inside", token.replacen('.', ". ", 1)),
        ("a part in front", format!("a.{token}")),
        ("a part behind", format!("{token}.a")),
        ("a dot behind", format!("{token}.")),
        ("no signature", signed.to_owned()),
        ("an empty signature", signed_as(&token, "")),
        ("a signature of zeros", signed_as(&token, &b64([0; 64]))),
        ("by the key of somebody else", signed_as(&token, &sign(signed))),
        ("too long", format!("{token}{}", "A".repeat(8_192))),
        ("dots only", "..".to_owned()),
    ];
    for (what, forged) in cases {
        let answer = client.call_tool(&forged, "get-todos", json!({})).await;
        assert!(matches!(answer.status.as_u16(), 400..500), "{what}: {}", answer.status);
    }
    client.call_tool(&token, "get-todos", json!({})).await.assert_status(200);
}
