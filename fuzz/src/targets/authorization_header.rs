//! F12: the Authorization header, at the gateway and at the token endpoint, one header on each line. In an
//! input `{T}`, `{I}` and `{S}` stand for the token, the client id and its secret of this run, and `<…>` for
//! the Base64 of what is inside.

use std::sync::{LazyLock, Mutex, PoisonError};

use axum::body::Body;
use axum::http::{HeaderValue, Request};
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use super::world::World;

/// A reader that is more lenient than ours may ever be.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

struct Known {
    world: World,
    id: String,
    secret: String,
}

static KNOWN: LazyLock<Mutex<Known>> = LazyLock::new(|| {
    let world = World::start();
    let metadata = r#"{"client_name":"x","redirect_uris":["http://127.0.0.1/cb"],
        "token_endpoint_auth_method":"client_secret_basic"}"#;
    let request = Request::post("/register").header("host", "127.0.0.1:8000");
    let request = request.header("content-type", "application/json").body(Body::from(metadata));
    let answered = world.send(request.expect("a request"));
    let client: Value = serde_json::from_slice(&answered.body).expect("a client");
    let text = |name: &str| client[name].as_str().unwrap_or_else(|| panic!("{client}")).to_owned();
    let (id, secret) = (text("client_id"), text("client_secret"));
    Mutex::new(Known { world, id, secret })
});

/// What an input means in this run.
fn filled(line: &[u8], known: &Known) -> Vec<u8> {
    let text: String = line.iter().map(|byte| char::from(*byte)).collect();
    let token = known.world.token("/open");
    let text = text.replace("{T}", token).replace("{I}", &known.id).replace("{S}", &known.secret);
    let bytes =
        |text: &str| -> Vec<u8> { text.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect() };
    match text.split_once('<').and_then(|(a, rest)| Some((a, rest.split_once('>')?))) {
        Some((before, (inside, after))) => {
            let encoded = base64::engine::general_purpose::STANDARD.encode(bytes(inside));
            [bytes(before), encoded.into_bytes(), bytes(after)].concat()
        }
        None => bytes(&text),
    }
}

fn request(method: &str, path: &str, values: &[HeaderValue], body: &'static str) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path).header("host", "127.0.0.1:8000");
    for value in values {
        request = request.header("authorization", value);
    }
    let kind =
        if path == "/token" { "application/x-www-form-urlencoded" } else { "application/json" };
    request.header("content-type", kind).body(Body::from(body)).expect("a request")
}

fn unescaped(text: &str) -> String {
    form_urlencoded::parse(format!("x={}", text.replace('&', "%26")).as_bytes())
        .map(|(_, value)| value.into_owned())
        .collect()
}

/// Contradicted when somebody passes who has not shown exactly what was issued.
pub fn run(data: &[u8]) {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let lines = data.split(|byte| *byte == b'\n').take(3);
    let values: Vec<HeaderValue> =
        lines.filter_map(|line| HeaderValue::from_bytes(&filled(line, &known)).ok()).collect();
    let texts: Vec<String> =
        values.iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect();
    let only = match texts.as_slice() {
        [only] => only.trim(),
        _ => "",
    };
    let (scheme, rest) = only.split_once(' ').unwrap_or((only, ""));
    let (scheme, rest) = (scheme.to_ascii_lowercase(), rest.trim());

    let answered = known.world.send(request("POST", "/open", &values, "{}"));
    if answered.status.is_success() || !answered.seen.is_empty() {
        assert_eq!((scheme.as_str(), rest), ("bearer", known.world.token("/open")), "{texts:?}");
    } else {
        assert!(matches!(answered.status.as_u16(), 400 | 401 | 431), "{}", answered.status);
        assert_ne!(data, b"Bearer {T}", "the right token is refused");
    }

    let answered = known.world.send(request("POST", "/token", &values, "grant_type=nonsense"));
    let body = String::from_utf8_lossy(&answered.body);
    if body.contains("unsupported_grant_type") {
        assert_eq!(scheme, "basic", "{texts:?}");
        let plain = LENIENT.decode(rest).unwrap_or_else(|_| panic!("{texts:?} passed"));
        let plain = String::from_utf8(plain).unwrap_or_else(|_| panic!("{texts:?} passed"));
        let (id, secret) = plain.split_once(':').unwrap_or_else(|| panic!("{texts:?} passed"));
        assert!(id == known.id || unescaped(id) == known.id, "{texts:?}");
        assert!(secret == known.secret || unescaped(secret) == known.secret, "{texts:?}");
    } else {
        assert!(matches!(answered.status.as_u16(), 400 | 401 | 431), "{}", answered.status);
        assert_ne!(data, b"Basic <{I}:{S}>", "the right secret is refused");
    }
}
