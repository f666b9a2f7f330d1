//! What a thief of the database gets (threat ST-01).

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::json;

use crate::harness::TestApp;
use crate::harness::client::{McpClient, Tokens, random_part};

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The ways a text can hide in bytes: as it is, in hex, in Base64 at each of the three offsets.
fn disguises(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut all =
        vec![secret.to_vec(), hex(secret).into_bytes(), hex(secret).to_uppercase().into_bytes()];
    for offset in 0..3 {
        let mut padded = vec![0; offset];
        padded.extend_from_slice(secret);
        for encoded in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
            // The first and last characters depend on the neighbours.
            all.push(encoded.as_bytes()[4..encoded.len() - 4].to_vec());
        }
    }
    all
}

#[tokio::test]
async fn st_01_a_stolen_database_opens_nothing() {
    let mut app = TestApp::start().await;
    let confidential = McpClient::register_as(
        &app,
        json!({
            "redirect_uris": ["https://app.example/callback"],
            "token_endpoint_auth_method": "client_secret_post",
        }),
    )
    .await;
    let mut secrets: Vec<String> = vec![confidential.secret.clone().unwrap()];
    let first = confidential.sign_in("alice").await;
    let second = Tokens::of(&confidential.refresh(&first.refresh_token).await);
    let unused_code = confidential.code("bob").await;
    let pending = confidential.approve(&[]).await;
    app.advance(16 * 60);
    confidential.refresh(&second.refresh_token).await.assert_status(200);
    for tokens in [first, second] {
        secrets.extend([tokens.access_token, tokens.refresh_token]);
    }
    secrets.push(unused_code);
    let pending = url::Url::parse(&pending).unwrap();
    for name in ["state", "nonce"] {
        let value = pending.query_pairs().find(|(n, _)| n == name).unwrap().1.into_owned();
        secrets.push(value);
    }
    let cookies = confidential.browser.cookie_header("127.0.0.1");
    secrets.extend(cookies.split("; ").filter_map(|c| Some(c.split_once('=')?.1.to_owned())));
    secrets.extend(app.idp.issued());
    secrets.extend(["upstream-secret-canary", "a test key that is long enough"].map(str::to_owned));
    // What stands before every private key in PKCS#8, and the words around one.
    let pkcs8_p256 = [0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

    // Personal data is sealed as well.
    secrets.extend(["alice@example.com", "Alice Adams", "bob@example.com"].map(str::to_owned));

    for running in [true, false] {
        let stolen = app.database.dump().await;
        assert!(contains(&stolen, confidential.id.as_bytes()), "the dump is not empty");
        for secret in &secrets {
            // Our secrets are an id and a random part: the random part is the secret.
            let random = random_part(secret);
            for disguise in disguises(random.as_bytes()) {
                assert!(!contains(&stolen, &disguise), "found {secret:.12}… (running: {running})");
            }
        }
        for disguise in disguises(&pkcs8_p256) {
            assert!(!contains(&stolen, &disguise), "a private key lies open");
        }
        assert!(!contains(&stolen, b"PRIVATE KEY") && !contains(&stolen, b"\"d\":"));
        if running {
            app.stop().await; // the log is folded into the file
        }
    }
}

#[test]
fn the_search_finds_what_is_hidden() {
    let secret = b"a-secret-of-some-length-0123456789";
    for offset in 0..3 {
        let mut hidden = vec![7; offset];
        hidden.extend_from_slice(secret);
        hidden.extend_from_slice(b"tail");
        let encoded = STANDARD_NO_PAD.encode(&hidden);
        assert!(disguises(secret).iter().any(|disguise| contains(encoded.as_bytes(), disguise)));
    }
    assert!(disguises(secret).iter().any(|disguise| contains(hex(secret).as_bytes(), disguise)));
}
