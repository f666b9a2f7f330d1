//! The pure parts that every request passes: `cargo bench`.

#![allow(missing_docs, reason = "criterion's macros make items without")]
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use portcullis::clock::Clock;
use portcullis::oauth::client::{ClientMetadata, RegistrationLimits};
use portcullis::oauth::pkce::CodeChallenge;
use portcullis::oauth::redirect_uri::{RedirectPolicy, RedirectUri};
use portcullis::oauth::scope::ScopeSet;
use portcullis::oauth::sealed::{Purpose, Sealer};
use portcullis::oauth::secret::{RefreshToken, Secret, new_id};
use portcullis::web::params::Params;

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
    criterion.bench_function("new secret and its hash", |b| {
        b.iter(|| Secret::<RefreshToken>::generate(&new_id(&Clock::System)).hash());
    });
}

criterion_group!(benches, pure);
criterion_main!(benches);
