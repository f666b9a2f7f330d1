//! F9: the cookies of a request, and what is sealed in some of them.

use std::sync::LazyLock;
use std::time::Duration;

use axum::http::header::COOKIE;
use axum::http::{HeaderMap, HeaderValue};
use portcullis::config::PublicUrl;
use portcullis::oauth::sealed::{Purpose, Sealer, open_under, seal_under};
use portcullis::oauth::secret::{RefreshToken, Secret};
use portcullis::web::cookies::{
    CONSENT, CookieLimits, Cookies, LOGIN, PERSON, REMEMBERED, SESSION, SIGN_IN, WAITING,
};

const ID: &str = "0123456789abcdef0123456789abcdef";

static SEALER: LazyLock<Sealer> = LazyLock::new(|| Sealer::new(b"the key of the fuzz targets"));

/// The values under `name`, cut by hand: at `;`, blanks taken off, at the first `=`.
fn values(headers: &[&str], name: &str) -> Vec<String> {
    let pairs = headers.iter().flat_map(|header| header.split(';'));
    let named = pairs.filter_map(|pair| pair.split_once('='));
    let named = named.filter(|(known, _)| known.trim() == name);
    named.map(|(_, value)| value.trim().to_owned()).collect()
}

/// Contradicted when a cookie is read that did not come once, or a changed text opens.
pub fn run(data: &[u8]) {
    jar(data);
    sealed(data);
}

fn jar(data: &[u8]) {
    let mut headers = HeaderMap::new();
    let mut texts = Vec::new();
    for line in data.split(|byte| *byte == b'\n').take(8) {
        let Ok(value) = HeaderValue::from_bytes(line) else { continue };
        if value.to_str().is_ok() {
            texts.extend(std::str::from_utf8(line));
        }
        headers.append(COOKIE, value);
    }
    for (url, prefix) in [
        ("https://example.com", "__Host-"),
        ("http://127.0.0.1:8000", ""),
        ("https://example.com/auth", "__Host-"),
    ] {
        let url = PublicUrl::parse(url).expect("it is one");
        let prefix = format!("{prefix}portcullis-{}", url.cookie_tag());
        let limits = CookieLimits { login: Duration::from_mins(10), logins: 0 };
        let cookies = Cookies::read(headers.get_all(COOKIE), &url, limits);
        let reads: [(String, Option<String>); 7] = [
            (format!("consent-{ID}"), CONSENT.get(&cookies, ID).map(|read| read.mark)),
            (
                format!("login-{ID}"),
                LOGIN.get(&cookies, ID).map(|secret| secret.expose().to_owned()),
            ),
            (
                format!("held-{ID}"),
                WAITING.get(&cookies, ID).map(|secret| secret.expose().to_owned()),
            ),
            (
                format!("remembered-{ID}"),
                REMEMBERED.get(&cookies, ID).map(|secret| secret.expose().to_owned()),
            ),
            (
                "pages-admin".to_owned(),
                SESSION.get(&cookies, "admin").map(|secret| secret.expose().to_owned()),
            ),
            ("signing-in-account".to_owned(), SIGN_IN.get(&cookies, "account").map(|read| read.0)),
            ("person".to_owned(), PERSON.get(&cookies, "").map(|read| read.0)),
        ];
        for (name, read) in reads {
            let Some(read) = read else { continue };
            let mut values = values(&texts, &format!("{prefix}{name}"));
            if name.contains("consent") {
                // What follows the dot says which client asked.
                for value in &mut values {
                    value.truncate(value.find('.').unwrap_or(value.len()));
                }
            }
            assert_eq!(values, [read], "{name} in {texts:?}");
        }
        for ids in [
            CONSENT.ids(&cookies),
            WAITING.ids(&cookies),
            LOGIN.ids(&cookies),
            REMEMBERED.ids(&cookies),
        ] {
            // They are written into our own Set-Cookie.
            let plain = |id: &String| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
            assert!(ids.iter().all(plain), "{ids:?}");
        }
    }
}

fn sealed(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for purpose in [Purpose::Storage, Purpose::Consent, Purpose::Session] {
        assert!(SEALER.open(purpose, "somewhere", &text).is_err(), "{text:?} opens");
    }
    let Some((at, rest)) = data.split_first() else { return };
    let (context, plain) = rest.split_at(rest.len() / 2);
    let context = String::from_utf8_lossy(context);
    let sealed = SEALER.seal(Purpose::Consent, &context, plain);
    let opened = SEALER.open(Purpose::Consent, &context, &sealed).expect("it was sealed here");
    assert_eq!(&opened[..], plain);
    let bit = (usize::from(*at) * 257) % (sealed.len() * 8);
    let mut changed = sealed.clone().into_bytes();
    changed[bit / 8] ^= 1 << (bit % 8);
    if let Ok(changed) = String::from_utf8(changed) {
        let opened = SEALER.open(Purpose::Consent, &context, &changed);
        assert!(opened.is_err(), "a changed text opens: {sealed:?} {changed:?}");
    }
    for cut in
        [&sealed[1..], &sealed[..sealed.len() - 1], &format!("{sealed}A"), &format!("{sealed}=")]
    {
        assert!(SEALER.open(Purpose::Consent, &context, cut).is_err(), "{cut:?} opens");
    }
    // A successor opens under its predecessor alone.
    if let Some(token) = Secret::<RefreshToken>::parse(&text) {
        let other = Secret::<RefreshToken>::generate(ID);
        let under = seal_under(&token, &other);
        let opened = open_under(&token, &under).expect("it was sealed under this");
        assert_eq!(opened.expose(), other.expose());
        assert!(open_under(&other, &under).is_err());
    }
}
