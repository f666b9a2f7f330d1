//! F7: what the identity provider answers at a login: discovery, keys, tokens, ID token and userinfo, each
//! changed a line at a time ([`super::patch`]). `body.token=` and `status.token=` replace an answer whole.

use std::sync::{LazyLock, Mutex, PoisonError};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::oauth::authorization_request::AuthorizationRequest;
use portcullis::oauth::scope::ScopeSet;
use portcullis::storage::PendingLogin;
use portcullis::upstream::CallbackParams;
use serde_json::{Map, Value, json};

use super::patch::{Patches, jwt, object};
use super::world::World;

static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| Mutex::new(World::start()));
static PROVIDERS: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[5; 32]).expect("a key"));

const NONCE: &str = "the nonce of this login";

/// Contradicted when somebody is let in whom the provider did not vouch for, to us, in this login.
pub fn run(data: &[u8]) {
    let Some(patches) = Patches::read(data) else { return };
    let world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    // Metadata is kept for a day: whatever was learned from the input before is forgotten.
    world.clock.advance(25 * 3600);
    let now = world.app.now().unix();
    let issuer = world.peer_url.clone();
    let at = |path: &str| format!("{issuer}{path}");

    let discovery = patches.apply(
        "discovery",
        object(json!({
            "issuer": issuer, "authorization_endpoint": at("/authorize"), "token_endpoint": at("/token"),
            "jwks_uri": at("/keys"), "userinfo_endpoint": at("/userinfo"),
            "response_types_supported": ["code"], "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["EdDSA"],
        })),
    );
    let public = URL_SAFE_NO_PAD.encode(PROVIDERS.public_key().as_ref());
    let key = object(json!({
        "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": "k", "x": public,
    }));
    let key = patches.apply("key", key);
    let header = patches.apply("header", object(json!({ "alg": "EdDSA", "kid": "k" })));
    let claims = patches.apply(
        "claims",
        object(json!({
            "iss": issuer, "sub": "somebody", "aud": "portcullis", "exp": now + 300, "iat": now,
            "nonce": NONCE, "name": "Some Body",
        })),
    );
    let (id_token, signed) = jwt(&PROVIDERS, &header, &claims, patches.get("sign"));
    let answer = patches.apply(
        "token",
        object(json!({
            "access_token": "a", "refresh_token": "r", "token_type": "Bearer", "expires_in": 300,
            "id_token": id_token,
        })),
    );
    let own_token = answer.get("id_token").and_then(Value::as_str) == Some(id_token.as_str());
    let userinfo = patches.apply(
        "userinfo",
        object(json!({ "sub": "somebody", "email": "some@example.com", "groups": ["g"] })),
    );
    let mut replaced = false;
    {
        let mut peer = world.peer();
        peer.seen.clear();
        for (path, name, value) in [
            ("/.well-known/openid-configuration", "discovery", Value::Object(discovery.clone())),
            ("/keys", "keys", json!({ "keys": [key] })),
            ("/token", "token", Value::Object(answer)),
            ("/userinfo", "userinfo", Value::Object(userinfo)),
        ] {
            let body = patches.get(&format!("body.{name}"));
            let status = patches.number(&format!("status.{name}")).unwrap_or(200);
            replaced |= name != "userinfo" && body.is_some();
            let status =
                u16::try_from(status).ok().filter(|s| (200..=599).contains(s)).unwrap_or(500);
            let body = body
                .map_or_else(|| value.to_string().into_bytes(), |body| body.as_bytes().to_vec());
            peer.answers.insert(path.to_owned(), (status, body));
        }
    }
    let login = PendingLogin {
        request: AuthorizationRequest {
            client_id: "c".to_owned(),
            redirect_uri: "http://127.0.0.1/cb".to_owned(),
            state: None,
            code_challenge: "x".repeat(43),
            resource: "http://127.0.0.1:8000/mcp".to_owned(),
            scopes: ScopeSet::default(),
            unknown_scopes: String::new(),
            upstream: std::collections::BTreeSet::new(),
            account: None,
            trace: None,
        },
        nonce: NONCE.to_owned(),
        pkce_verifier: "v".repeat(43),
        metadata_hash: String::new(),
        sign_outs_before: 0,
        retried: false,
        expires_at: 0,
        remembered: None,
    };
    let (iss, error) = (patches.get("iss"), patches.get("error"));
    let upstream = world.app.upstream();
    let answer = CallbackParams { iss, code: Some("code"), error, error_description: None };
    let finished = world.block_on(upstream.finish_login(&login, answer));
    assert!(world.peer().seen.len() <= 8, "it asks and asks");
    let Ok(session) = finished else {
        assert!(!data.is_empty(), "the right answers are refused");
        return;
    };
    let right = signed
        && own_token
        && !replaced
        && error.is_none()
        && iss.is_none_or(|iss| iss == issuer)
        && discovery.get("issuer").is_some_and(|said| said == issuer.as_str())
        && is_right(&header, &claims, &issuer, now);
    assert!(right, "{} is let in by {:?}", session.subject, String::from_utf8_lossy(data));
    assert_eq!(session.issuer, issuer);
    assert!(claims["sub"] == session.subject.as_str() && !session.subject.is_empty());
    let short = |text: &Option<String>| text.as_ref().is_none_or(|text| text.len() <= 256);
    assert!(short(&session.person.name) && short(&session.person.email));
}

fn is_right(
    header: &Map<String, Value>,
    claims: &Map<String, Value>,
    issuer: &str,
    now: i64,
) -> bool {
    let aud = match claims.get("aud") {
        Some(Value::Array(several)) => several.iter().any(|aud| aud == "portcullis"),
        other => other.is_some_and(|aud| aud == "portcullis"),
    };
    #[expect(clippy::cast_precision_loss, reason = "seconds of this century")]
    let now = now as f64;
    let number = |name: &str| claims.get(name).and_then(Value::as_f64);
    // Some providers write times as dates: then the library reads them, and they say the same.
    let date = |name: &str| claims.get(name).is_some_and(Value::is_string);
    header.get("alg").is_some_and(|alg| alg == "EdDSA")
        && claims.get("iss").is_some_and(|iss| iss == issuer)
        && aud
        && claims.get("azp").is_none_or(|azp| azp.is_null() || azp == "portcullis")
        && claims.get("nonce").is_some_and(|nonce| nonce == NONCE)
        && (date("exp") || number("exp").is_some_and(|exp| exp > now - 61.0))
        && (date("iat") || number("iat").is_some_and(|iat| iat <= now + 61.0 && iat >= now - 661.0))
}
