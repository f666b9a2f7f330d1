//! The pure parts that every request passes: `cargo bench`.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use std::hint::black_box;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use criterion::{Criterion, criterion_group, criterion_main};
use openidconnect::JsonWebKey;
use openidconnect::core::{CoreJsonWebKey, CoreJwsSigningAlgorithm};
use portcullis::clock::Clock;
use portcullis::jose::alg::Alg;
use portcullis::oauth::client::{ClientMetadata, RegistrationLimits};
use portcullis::oauth::pkce::CodeChallenge;
use portcullis::oauth::redirect_uri::{RedirectPolicy, RedirectUri};
use portcullis::oauth::scope::ScopeSet;
use portcullis::oauth::sealed::{Purpose, Sealer};
use portcullis::oauth::secret::{RefreshToken, Secret, new_id};
use portcullis::telemetry::metrics::{ListenerKind, Metrics, Passed};
use portcullis::upstream::provider_key::ProviderKey;
use portcullis::web::params::Params;
use serde_json::json;

const REGISTRATION: &[u8] = br#"{
    "client_name": "An MCP client", "redirect_uris": ["http://127.0.0.1:33418/callback", "https://example.com/callback"],
    "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
    "token_endpoint_auth_method": "none", "application_type": "native", "client_uri": "https://example.com"
}"#;
const QUERY: &str = "response_type=code&client_id=client_0&state=abc&redirect_uri=http%3A%2F%2F127.0.0.1%3A33418%2Fcallback\
    &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&code_challenge_method=S256&scope=read%3Atodos+create%3Atodos";

fn pure(criterion: &mut Criterion) {
    let policy = RedirectPolicy { private_schemes: vec!["cursor".to_owned()], allowed: None };
    let limits = RegistrationLimits { redirect_uris: 16 };
    criterion.bench_function("registration", |b| {
        b.iter(|| ClientMetadata::parse(black_box(REGISTRATION), &policy, &limits).unwrap());
    });
    criterion.bench_function("redirect_uri", |b| {
        b.iter(|| RedirectUri::register(black_box("http://127.0.0.1:33418/callback"), &policy));
    });
    criterion.bench_function("parameters", |b| b.iter(|| Params::parse(black_box(QUERY)).unwrap()));
    criterion.bench_function("scopes", |b| {
        b.iter(|| ScopeSet::parse(black_box("read:todos create:todos delete:todos")).unwrap());
    });
    let challenge = CodeChallenge::parse("E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM").unwrap();
    criterion.bench_function("pkce", |b| {
        b.iter(|| challenge.is_met_by(black_box("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk")));
    });
    let sealer = Sealer::new(b"a key that is only good for measuring, 0123456789");
    let text = [b'x'; 2048];
    let sealed = sealer.seal(Purpose::Consent, "consent", &text);
    criterion.bench_function("seal 2 KiB", |b| {
        b.iter(|| sealer.seal(Purpose::Consent, "consent", black_box(&text)));
    });
    criterion.bench_function("open 2 KiB", |b| {
        b.iter(|| sealer.open(Purpose::Consent, "consent", black_box(&sealed)).unwrap());
    });
    let metrics = Metrics::new();
    criterion.bench_function("metrics of a request", |b| {
        b.iter(|| {
            let route = metrics.route(ListenerKind::Public, black_box("/token"));
            route.answered(200, Duration::from_micros(150));
        });
    });
    criterion.bench_function("metrics of a call through the gateway", |b| {
        let calls = metrics.calls("/mcp");
        let begun = tokio::time::Instant::now();
        b.iter(|| calls.passed(black_box(Passed::Answered), begun));
    });
    criterion.bench_function("metrics of a step with one event", |b| {
        let begun = tokio::time::Instant::now();
        b.iter(|| {
            metrics.step_waited(begun);
            metrics.event(black_box("refresh_rotated"));
            metrics.committed(Some(1), begun);
        });
    });
    criterion.bench_function("new secret and its hash", |b| {
        b.iter(|| Secret::<RefreshToken>::generate(&new_id(&Clock::System)).hash());
    });
}

/// The signature of a provider's ID token: as it is verified here, and as the library would.
fn id_token_signature(criterion: &mut Criterion) {
    let (rng, message) = (SystemRandom::new(), [b'x'; 900]);
    let b64 = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let mut by_rsa = vec![0; rsa.public_modulus_len()];
    rsa.sign(&RSA_PKCS1_SHA256, &rng, &message, &mut by_rsa).unwrap();
    let public = rsa.public_key();
    let point = ec.public_key().as_ref();
    let rsa = json!({
        "kty": "RSA", "n": b64(public.modulus().big_endian_without_leading_zero()), "e": "AQAB",
    });
    let by_ec = ec.sign(&rng, &message).unwrap().as_ref().to_vec();
    let ec = json!({
        "kty": "EC", "crv": "P-256", "x": b64(&point[1..33]), "y": b64(&point[33..]),
    });
    for (alg, core, jwk, signature) in [
        (Alg::Rs256, CoreJwsSigningAlgorithm::RsaSsaPkcs1V15Sha256, rsa, by_rsa),
        (Alg::Es256, CoreJwsSigningAlgorithm::EcdsaP256Sha256, ec, by_ec),
    ] {
        let ours: ProviderKey = serde_json::from_value(jwk.clone()).unwrap();
        let theirs: CoreJsonWebKey = serde_json::from_value(jwk).unwrap();
        let mut group = criterion.benchmark_group(format!("ID token {}", alg.as_str()));
        group.bench_function("ours", |b| {
            b.iter(|| {
                let key = ours.verifying(alg).unwrap();
                key.verify(alg, black_box(&message), &signature).unwrap();
            });
        });
        group.bench_function("the library's", |b| {
            b.iter(|| theirs.verify_signature(&core, black_box(&message), &signature).unwrap());
        });
        group.finish();
    }
}

criterion_group!(benches, pure, id_token_signature);
criterion_main!(benches);
