//! Odd texts wherever texts come in: checked there, so that SQLite and PostgreSQL give the same answers. The
//! table has what each of them is answered; both engines are compared with it.

use serde_json::{Value, json};
use sha::noise;

use crate::harness::client::{McpClient, REDIRECT_URI};
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};

mod sha {
    //! Text that no database can compress.

    use aws_lc_rs::digest::{SHA256, digest};
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    pub(super) fn noise(length: usize) -> String {
        let blocks = (0..=length / 43)
            .map(|n| URL_SAFE_NO_PAD.encode(digest(&SHA256, format!("block {n}").as_bytes())));
        let mut text: String = blocks.collect();
        text.truncate(length);
        text
    }
}

/// A text, and what is answered where it is the name of a client, another member of its registration, the
/// state of an authorization request, `sub` of an ID token, and `sid` of an ID token.
type Row = (String, [&'static str; 5]);

/// `201`: registered. `echo`: comes back as it was sent. `error`: the client reads one. `in`: signed in.
/// `403`: the person reads that the identity provider's answer cannot be trusted.
fn table() -> Vec<Row> {
    let all = ["201", "201", "echo", "in", "in"];
    let control = ["201", "201", "echo", "403", "403"];
    let mut rows: Vec<Row> = Vec::new();
    for text in [
        "ok",
        " a ",
        "é",
        "e\u{301}",
        "日本語",
        "😀",
        "\u{1f468}\u{200d}\u{1f469}",
        "\u{202e}abc",
        "a\u{200b}b",
        "\u{feff}a",
        "\u{fffd}",
        "\u{ffff}",
        "\u{10ffff}",
        "\u{e000}",
        "a\u{2028}b",
        "'; DROP TABLE clients;--",
        "%00",
        "%",
        "_",
        "\\u0000",
        "\\",
        "\\x00",
        "$1",
        "{}",
        "a\"b",
        "NULL",
        "1e400",
        "-",
    ] {
        rows.push((text.to_owned(), all));
    }
    for text in
        ["a\u{1}b", "a\nb", "a\rb", "a\tb", "a\u{1b}[2Jb", "a\u{7f}b", "a\u{85}b", "a\u{9f}b"]
    {
        rows.push((text.to_owned(), control));
    }
    for text in ["\0", "a\0b", "a\0"] {
        rows.push((text.to_owned(), ["201", "201", "400", "403", "403"]));
    }
    rows.push((String::new(), ["201", "201", "none", "403", "in"]));
    rows.push(("x".repeat(255), ["400", "201", "echo", "in", "in"]));
    rows.push(("x".repeat(256), ["400", "201", "echo", "403", "in"]));
    rows.push(("é".repeat(127), ["201", "201", "echo", "in", "in"]));
    rows.push((noise(3_000), ["400", "400", "echo", "403", "403"]));
    rows.push((noise(4_097), ["400", "400", "error", "403", "403"]));
    rows
}

async fn register(app: &TestApp, member: &str, text: &str) -> String {
    let mut metadata =
        json!({ "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "none" });
    metadata[member] = text.into();
    app.http.post_json(&app.at("/register"), &metadata, &[]).await.status.as_str().to_owned()
}

async fn state(client: &McpClient, text: &str) -> String {
    let url = client.authorize_url(&[]).replace(
        "state=client-state",
        &form_urlencoded::Serializer::new(String::new()).append_pair("state", text).finish(),
    );
    let client = client.elsewhere();
    let page = client.browser.get(&url).await;
    if page.status == 303 {
        return "error".to_owned();
    }
    if page.status != 200 {
        return page.status.as_str().to_owned();
    }
    let form = crate::harness::browser::Form::of(&page, &url);
    let denied = client.decide(&form, "deny").await;
    match denied.location_param("state") {
        Some(state) if state == text => "echo".to_owned(),
        Some(other) => format!("changed to {other:?}"),
        None => "none".to_owned(),
    }
}

/// What the client reads after a sign-in with this claim.
async fn signed_in(app: &TestApp, client: &McpClient, claim: &'static str, text: &str) -> String {
    app.idp.misbehave(|how| {
        how.extra_claims.clear();
        how.extra_claims.insert(claim.to_owned(), text.into());
    });
    let client = client.elsewhere();
    let answer = client.authorize("bob", &[]).await;
    if answer.status != 303 {
        return answer.status.as_str().to_owned();
    }
    if let Some(error) = answer.location_param("error") {
        return error;
    }
    let redeemed = client.redeem(&answer.location_param("code").unwrap()).await;
    if redeemed.status == 200 { "in".to_owned() } else { redeemed.status.as_str().to_owned() }
}

#[tokio::test]
async fn two_hundred_odd_inputs_get_the_same_answers_on_both_engines() {
    let app = TestApp::with(Setup::toml("[limits]\nrequest_rates = false")).await;
    let client = app.client().await;
    let (mut inputs, mut wrong) = (0, Vec::new());
    for (text, expected) in table() {
        let got = [
            register(&app, "client_name", &text).await,
            register(&app, "software_id", &text).await,
            state(&client, &text).await,
            signed_in(&app, &client, "sub", &text).await,
            signed_in(&app, &client, "sid", &text).await,
        ];
        inputs += got.len();
        if got != expected {
            let shown: String = text.chars().take(20).collect();
            wrong.push(format!("{shown:?} ({} bytes): {got:?}, not {expected:?}", text.len()));
        }
    }
    assert!(inputs >= 200, "{inputs}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

const LOGOUT: &str = "http://schemas.openid.net/event/backchannel-logout";

async fn send_logout(app: &TestApp, jti: &str, claim: &str, text: &str) -> Answer {
    let mut claims = json!({
        "iss": app.idp.issuer(), "aud": "portcullis", "jti": jti, "iat": app.now().unix(),
        "exp": app.now().unix() + 120, "events": { LOGOUT: {} },
    });
    claims[claim] = text.into();
    let token = app.idp.sign("logout+jwt", &claims, None).unwrap();
    let form = [("logout_token", token.as_str())];
    app.http.post_form(&app.at("/backchannel-logout"), &form, &[]).await
}

async fn send_revocation(app: &TestApp, jti: &str, subject: Value) -> Answer {
    let endpoint = app.at("/global-token-revocation");
    let claims = json!({
        "iss": app.idp.issuer(), "aud": endpoint, "sub": "portcullis", "jti": jti,
        "iat": app.now().unix(), "exp": app.now().unix() + 120,
    });
    let token = app.idp.sign("global-token-revocation+jwt", &claims, None).unwrap();
    let headers = [("authorization", format!("Bearer {token}"))];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    app.http.post_json(&endpoint, &json!({ "sub_id": subject }), &headers).await
}

#[tokio::test]
async fn messages_of_the_provider_with_odd_texts_are_refused_where_they_come_in() {
    let app = TestApp::start().await;
    let long = noise(3_000);
    let mut wrong = Vec::new();
    for (n, (text, status)) in [
        ("a\0b", 400),
        ("\0", 400),
        ("a\u{1}b", 400),
        ("a\nb", 400),
        ("a\u{7f}b", 400),
        ("a\u{85}b", 400),
        (long.as_str(), 400),
        ("日本語", 200),
        ("'; DROP TABLE grants;--", 200),
    ]
    .into_iter()
    .enumerate()
    {
        let issuer = app.idp.issuer();
        let revoked = if status == 200 { 204 } else { status };
        let email = format!("{text}@example.com");
        for (what, answer, status) in [
            ("logout sub", send_logout(&app, &format!("a{n}"), "sub", text).await, status),
            ("logout sid", send_logout(&app, &format!("b{n}"), "sid", text).await, status),
            (
                "revocation sub",
                send_revocation(
                    &app,
                    &format!("c{n}"),
                    json!({ "format": "iss_sub", "iss": issuer, "sub": text }),
                )
                .await,
                revoked,
            ),
            (
                "revocation email",
                send_revocation(
                    &app,
                    &format!("d{n}"),
                    json!({ "format": "email", "email": email }),
                )
                .await,
                revoked,
            ),
        ] {
            if answer.status != status {
                let shown: String = text.chars().take(20).collect();
                wrong.push(format!("{what} {shown:?}: {}, not {status}", answer.status));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What a caller can put into a path, a cookie, a header or a token: no error of the database either.
#[tokio::test]
async fn odd_texts_in_paths_headers_and_tokens_are_no_outage() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    let long = noise(3_000);
    let secret = format!("rt_{}.{}", "x".repeat(2_800), "y".repeat(43));
    let (register, bearer) = (app.at("/register"), "Bearer rat_x.".to_owned() + &"y".repeat(43));
    let mut wrong = Vec::new();
    for (path, status) in [("a%00b", 401), ("%ff", 400), (long.as_str(), 401), ("a%0Ab", 401)] {
        let url = format!("{register}/{path}");
        let answer = app.http.send("GET", &url, &[("authorization", &bearer)], "").await;
        if answer.status != status {
            wrong.push(format!("{path:.20}: {}, not {status}", answer.status));
        }
    }
    for token in [secret.as_str(), long.as_str(), "rt_a%00.b"] {
        let answer = client.refresh(token).await;
        if answer.status != 400 {
            wrong.push(format!("refresh {token:.20}: {}", answer.status));
        }
    }
    for id in [long.as_str(), "a\u{1}b", "https://a.example/\u{7f}", "a'b"] {
        let url = client.authorize_url(&[("client_id", id)]);
        let status = client.browser.get(&url).await.status;
        if status != 400 {
            wrong.push(format!("client {id:.20}: {status}"));
        }
    }
    for agent in ["\t", "é", "a'b"] {
        let answer = app
            .http
            .send("GET", &app.at("/account"), &[("user-agent", agent), ("cookie", agent)], "")
            .await;
        if answer.status.is_server_error() {
            wrong.push(format!("agent {agent:?}: {}", answer.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    client.refresh(&tokens.refresh_token).await.assert_status(200);
}

/// No text of Rust's holds half a character: bodies that spell one are refused as a whole.
#[tokio::test]
async fn half_characters_are_refused_with_the_body_that_has_them() {
    let app = TestApp::start().await;
    let (json, issuer) = (("content-type", "application/json"), app.idp.issuer());
    for half in ["\\ud800", "\\udc00", "\\ud800\\ud800", "\\udc00\\ud800", "\\uD83D x"] {
        let body = format!(
            "{{\"redirect_uris\":[\"{REDIRECT_URI}\"],\"client_name\":\"{half}\",\"x\":\"{half}\"}}"
        );
        let registered = app.http.send("POST", &app.at("/register"), &[json], body).await;
        registered.assert_error(400, "invalid_client_metadata");
        let endpoint = app.at("/global-token-revocation");
        let claims = json!({
            "iss": issuer, "aud": endpoint, "sub": "portcullis", "jti": half,
            "iat": app.now().unix(), "exp": app.now().unix() + 120,
        });
        let token = app.idp.sign("global-token-revocation+jwt", &claims, None).unwrap();
        let bearer = format!("Bearer {token}");
        let body = format!(
            "{{\"sub_id\":{{\"format\":\"iss_sub\",\"iss\":\"{issuer}\",\"sub\":\"{half}\"}}}}"
        );
        let headers = [json, ("authorization", bearer.as_str())];
        let revoked = app.http.send("POST", &endpoint, &headers, body).await;
        revoked.assert_error(400, "invalid_request");
    }
}

/// A name and an address of the identity provider are kept or dropped alike, and never stop a sign-in.
#[tokio::test]
async fn odd_names_and_addresses_of_people_never_stop_a_sign_in() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let mut wrong = Vec::new();
    for claim in ["name", "email"] {
        for text in ["a\0b", "\0", "a\u{1}b@example.com", "a\u{7f}", &noise(3_000), "\u{202e}b"] {
            let got = signed_in(&app, &client, claim, text).await;
            if got != "in" {
                wrong.push(format!("{claim} {text:?}: {got}"));
            }
        }
    }
    for groups in [json!(["a\0b"]), json!([noise(3_000)]), json!("\0")] {
        app.idp.misbehave(|how| {
            how.extra_claims.clear();
            how.extra_claims.insert("groups".to_owned(), groups.clone());
        });
        let tokens = client.elsewhere().code("bob").await;
        assert!(!tokens.is_empty());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// An error of ours is none of the database's: nobody is asked to try again.
#[tokio::test]
async fn an_error_of_ours_is_not_called_an_outage() {
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    for (breaks, mends) in [
        // 42703: a column that is not there.
        (
            "ALTER TABLE refresh_tokens RENAME COLUMN replays TO replaced",
            "ALTER TABLE refresh_tokens RENAME COLUMN replaced TO replays",
        ),
        // 42P01: a table that is not there.
        (
            "ALTER TABLE refresh_tokens RENAME TO elsewhere",
            "ALTER TABLE elsewhere RENAME TO refresh_tokens",
        ),
        // 23505: something is there twice.
        ("CREATE UNIQUE INDEX odd ON refresh_tokens (replays)", "DROP INDEX odd"),
    ] {
        app.database.execute(breaks).await;
        let answer = client.refresh(&tokens.refresh_token).await;
        app.database.execute(mends).await;
        answer.assert_error(500, "server_error");
        assert_eq!(answer.header("retry-after"), None, "{breaks}");
    }
    client.refresh(&tokens.refresh_token).await.assert_status(200);
}
