//! F6: access tokens of ours, and assertions of clients: right ones, changed a line at a time
//! ([`super::patch`]). `token=` is the whole token.

use std::sync::{LazyLock, Mutex, PoisonError};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use portcullis::clock::Timestamp;
use portcullis::oauth::client::assertion::{Assertion, Audience};
use portcullis::oauth::client::keys::KeySet;
use serde_json::{Map, Value, json};

use super::patch::{Patches, jwt, object};
use super::world::{CLIENT_ID, PUBLIC_URL, World};

/// Our own key, taken out of the database, and everything that proves by it.
struct Ours {
    world: World,
    key: Ed25519KeyPair,
    kid: String,
    now: i64,
}

static OURS: LazyLock<Mutex<Ours>> = LazyLock::new(|| {
    let world = World::start();
    let keys = world.block_on(world.app.storage().signing_keys()).expect("keys");
    let stored = keys.into_iter().find(|key| key.alg == "EdDSA").expect("an EdDSA key");
    let key = Ed25519KeyPair::from_pkcs8(&stored.private_key).expect("a key");
    let now = world.app.now().unix();
    Mutex::new(Ours { world, key, kid: stored.kid, now })
});

/// A client's key, the same in every run.
static THEIRS: LazyLock<Ed25519KeyPair> =
    LazyLock::new(|| Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key"));

/// Contradicted when a token passes that a by-stander would not call right in every point.
pub fn run(data: &[u8]) {
    let Some(patches) = Patches::read(data) else { return };
    access_token(&patches);
    assertion(&patches);
}

fn access_token(patches: &Patches<'_>) {
    let ours = OURS.lock().unwrap_or_else(PoisonError::into_inner);
    let resource = format!("{PUBLIC_URL}/mcp");
    let header = object(json!({ "alg": "EdDSA", "typ": "at+jwt", "kid": ours.kid }));
    let claims = object(json!({
        "iss": PUBLIC_URL, "sub": "oidc:fuzz", "aud": resource, "client_id": CLIENT_ID,
        "scope": "read", "jti": "j", "iat": ours.now, "exp": ours.now + 600, "grant_id": "g",
    }));
    let (header, claims) = (patches.apply("header", header), patches.apply("claims", claims));
    let (made, signed) = jwt(&ours.key, &header, &claims, patches.get("sign"));
    let token = patches.get("token").unwrap_or(&made);
    let now = ours.now.saturating_add(patches.number("now").unwrap_or(0));
    let keys = ours.world.app.keys();
    let verified = keys.verify(token, &resource, Timestamp::from_unix(now));
    let text = |object: &Map<String, Value>, name: &str| {
        object.get(name).and_then(Value::as_str).map(str::to_owned)
    };
    let typ = text(&header, "typ").unwrap_or_default().to_ascii_lowercase();
    let times =
        (claims.get("iat").and_then(Value::as_i64), claims.get("exp").and_then(Value::as_i64));
    let right = signed
        && patches.get("token").is_none()
        && header.len() == 3
        && text(&header, "alg").as_deref() == Some("EdDSA")
        && text(&header, "kid").as_deref() == Some(ours.kid.as_str())
        && matches!(typ.as_str(), "at+jwt" | "application/at+jwt")
        && text(&claims, "iss").as_deref() == Some(PUBLIC_URL)
        && text(&claims, "aud").as_deref() == Some(resource.as_str())
        && ["sub", "client_id", "scope", "jti", "grant_id"]
            .iter()
            .all(|name| text(&claims, name).is_some())
        && times.0.is_some_and(|iat| iat <= now.saturating_add(60))
        && times.1.is_some_and(|exp| now < exp);
    if let Ok(read) = &verified {
        assert!(right, "{token} is accepted");
        assert_eq!(Some(&read.sub), text(&claims, "sub").as_ref());
        assert_eq!(Some(&read.grant_id), text(&claims, "grant_id").as_ref());
        assert_eq!(Some(&read.client_id), text(&claims, "client_id").as_ref());
    } else {
        let plain = text(&claims, "scope").is_some_and(|scope| scope == "read");
        assert!(!(right && plain && token.len() < 2048), "{token} is refused: {verified:?}");
    }
    // For another audience, or without the words of its type, it is nothing.
    let elsewhere = format!("{PUBLIC_URL}/open");
    if text(&claims, "aud").as_deref() != Some(elsewhere.as_str()) {
        assert!(keys.verify(token, &elsewhere, Timestamp::from_unix(now)).is_err());
    }
}

fn assertion(patches: &Patches<'_>) {
    let now = 1_795_219_200_i64;
    let client = "https://client.example/id";
    let public = THEIRS.public_key().as_ref();
    let set = json!({ "keys": [
        { "kty": "OKP", "crv": "Ed25519", "kid": "k", "x": URL_SAFE_NO_PAD.encode(public) },
        // Another kind of key under the same name must not change what a signature means.
        { "kty": "EC", "crv": "P-256", "kid": "k", "x": URL_SAFE_NO_PAD.encode([1; 32]), "y": URL_SAFE_NO_PAD.encode([2; 32]) },
    ] });
    let keys = KeySet::parse(&set).expect("a key set");
    let header = object(json!({ "alg": "EdDSA", "kid": "k" }));
    let claims = object(json!({
        "iss": client, "sub": client, "aud": PUBLIC_URL, "exp": now + 60, "iat": now, "jti": "j",
    }));
    let (header, claims) = (patches.apply("header", header), patches.apply("claims", claims));
    let (made, signed) = jwt(&THEIRS, &header, &claims, patches.get("sign"));
    let token = patches.get("token").unwrap_or(&made);
    let now = now.saturating_add(patches.number("now").unwrap_or(0));
    let Ok(read) = Assertion::parse(token) else { return };
    let audience = Audience { issuer: PUBLIC_URL, token_endpoint: None };
    let proof = read.prove(client, &keys, &audience, Timestamp::from_unix(now));
    let Ok(proof) = proof else { return };
    let is = |name: &str, value: &str| claims.get(name).is_some_and(|claim| claim == value);
    let number = |name: &str| claims.get(name).and_then(Value::as_i64);
    let begun = |name: &str| {
        claims.get(name).is_none_or(|at| {
            at.is_null() || at.as_i64().is_some_and(|at| at <= now.saturating_add(30))
        })
    };
    let to_us = is("aud", PUBLIC_URL) || claims.get("aud") == Some(&json!([PUBLIC_URL]));
    let in_time = number("exp")
        .is_some_and(|exp| now < exp.saturating_add(30) && exp <= now.saturating_add(630));
    let closed = ["crit", "b64", "zip", "jku", "jwk", "x5u", "x5c"];
    let right = signed
        && patches.get("token").is_none()
        && header.get("alg").is_some_and(|alg| alg == "EdDSA")
        && header.get("kid").is_none_or(|kid| kid == "k")
        && closed.iter().all(|name| !header.contains_key(*name))
        && is("iss", client)
        && is("sub", client)
        && to_us
        && in_time
        && begun("nbf")
        && begun("iat")
        && claims.get("jti").and_then(Value::as_str).is_some_and(|jti| !jti.is_empty());
    assert!(right, "{token} is accepted");
    assert!(!proof.old_audience);
    assert!(proof.forget_at > Timestamp::from_unix(now), "it could be used again");
}
