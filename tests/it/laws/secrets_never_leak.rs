//! P8: what must stay secret is marked, wherever a secret can be, and sent through every flow and every
//! failure at the finest log level. Then the log, every page and error, the audit trail and the database are
//! searched for the marks.

use portcullis::demo::Misbehaviour;
use serde_json::json;

use crate::harness::client::{McpClient, REDIRECT_URI, Tokens, VERIFIER, random_part};
use crate::harness::console::{Console, with_query};
use crate::harness::http::Answer;
use crate::harness::{TestApp, logs};

/// Stands in every secret that this test makes up, and nowhere else.
const MARK: &str = "p8-canary";

/// Everything that people and clients are shown of refusals.
#[derive(Default)]
struct Shown(String);

impl Shown {
    fn add(&mut self, answer: &Answer) {
        let body = String::from_utf8_lossy(&answer.body);
        self.0 = format!("{}{:?}\n{body}\n", self.0, answer.headers);
    }
}

#[tokio::test]
async fn p8_no_canary_is_in_logs_pages_audit_trail_or_database() {
    let app = TestApp::start().await;
    let http = app.http.clone();
    let mut shown = Shown::default();
    let confidential = McpClient::register_as(
        &app,
        json!({ "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "client_secret_basic" }),
    )
    .await;
    let marked = |name: &str| format!("{MARK}-{name}-0123456789abcdef0123456789abcdef01234567");
    let secret =
        |kind: &str| format!("{kind}_0123456789abcdef0123456789abcdef.{}", &marked(kind)[..43]);
    let basic = |id: &str, secret: &str| {
        let plain = format!("{id}:{secret}");
        format!(
            "Basic {}",
            base64::Engine::encode(&base64::engine::general_purpose::STANDARD, plain)
        )
    };

    // Every field that carries a secret, with something that is none of ours.
    let (verifier, code) = (marked("verifier"), secret("ac"));
    for form in [
        vec![
            ("grant_type", "authorization_code"),
            ("code", &code),
            ("code_verifier", &verifier),
            ("redirect_uri", REDIRECT_URI),
        ],
        vec![("grant_type", "refresh_token"), ("refresh_token", &secret("rt"))],
        vec![("grant_type", "refresh_token"), ("refresh_token", &marked("refresh"))],
        vec![("grant_type", "refresh_token"), ("client_secret", &marked("client-secret"))],
        vec![
            ("client_assertion", &marked("assertion")),
            ("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"),
        ],
        vec![("grant_type", "password"), ("username", "alice"), ("password", &marked("password"))],
        vec![("token", &marked("token"))],
        vec![
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", &marked("subject-token")),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("actor_token", &marked("actor-token")),
            ("audience", "github"),
        ],
    ] {
        for id in [confidential.id.as_str(), "nobody"] {
            let mut form = form.clone();
            form.push(("client_id", id));
            for path in ["/token", "/revoke", "/introspect"] {
                for header in [
                    None,
                    Some(basic(id, &marked("basic"))),
                    Some(format!("Bearer {}", marked("bearer"))),
                    Some(format!("DPoP {}", marked("dpop"))),
                ] {
                    let header = header.as_deref().map(|value| ("authorization", value));
                    let headers: Vec<(&str, &str)> = header.into_iter().collect();
                    shown.add(&http.post_form(&app.at(path), &form, &headers).await);
                }
            }
        }
    }
    let i = "0123456789abcdef0123456789abcdef";
    let cookies = [
        format!("portcullis-consent-{i}={}", marked("consent")),
        format!("portcullis-login-{i}={}", secret("bb")),
        format!("portcullis-pages-account={}", secret("cs")),
        format!("portcullis-pages-admin={}", secret("cs")),
        format!("portcullis-held-{i}={}", secret("hl")),
        format!("portcullis-remembered-{i}={}", secret("rc")),
        format!("portcullis-signing-in-account={}", marked("underway")),
        format!("portcullis-person={}", marked("person")),
        format!("portcullis-connect-{i}={}", secret("bb")),
    ]
    .join("; ");
    let with_cookies = [("cookie", cookies.as_str()), ("accept", "text/html")];
    let asking = confidential.authorize_url(&[]);
    for url in [
        asking,
        app.at("/account"),
        app.at("/account/signed-in"),
        app.at("/waiting"),
        app.at("/account/connections"),
        app.at("/account/connections/confirm"),
        app.at("/account/connections/remove"),
        app.at("/connect/github"),
        app.at(&format!(
            "/auth/connect/github/callback?code={}&state={}",
            marked("service-code"),
            secret("cx")
        )),
        app.at("/waiting/cancel"),
        app.at("/authorize/again"),
        app.at("/"),
        app.at("/consent"),
        format!("{}/", app.admin_url),
        app.at(&format!("/nothing?access_token={}", marked("query"))),
        app.at(&format!("/auth/callback?code={}&state={}", marked("upstream-code"), secret("ls"))),
        app.at(&format!(
            "/auth/callback?error={0}&error_description={0}&state={0}",
            marked("error")
        )),
    ] {
        shown.add(&http.send("GET", &url, &with_cookies, "").await);
        shown.add(
            &http
                .send("POST", &url, &with_cookies, format!("csrf={0}&request={0}", marked("form")))
                .await,
        );
    }
    for method in ["GET", "PUT", "DELETE"] {
        let authorization = format!("Bearer {}", marked("registration"));
        let url = app.at(&format!("/register/{}", confidential.id));
        shown.add(&http.send(method, &url, &[("authorization", &authorization)], "{}").await);
    }
    for path in ["/backchannel-logout", "/global-token-revocation"] {
        let authorization = format!("Bearer {}", marked("notice"));
        let form = [("logout_token", marked("logout"))];
        let form: Vec<(&str, &str)> =
            form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        shown
            .add(&http.post_form(&app.at(path), &form, &[("authorization", &authorization)]).await);
    }
    for authorization in
        [format!("Bearer {}", marked("access")), basic("x", &marked("basic")), marked("scheme")]
    {
        let headers = [
            ("authorization", authorization.as_str()),
            ("mcp-session-id", &marked("session")),
            ("cookie", &cookies),
        ];
        shown.add(&http.send("POST", &app.mcp_url(), &headers, "{}").await);
        let url = format!("{}?access_token={}", app.mcp_url(), marked("query"));
        shown.add(&http.send("GET", &url, &headers, "").await);
    }

    // What the provider says, marked, in success and in failure.
    for body in [
        json!({ "access_token": marked("upstream-access"), "refresh_token": marked("upstream-refresh"), "id_token": marked("upstream-id"), "token_type": "Bearer" }).to_string(),
        json!({ "error": "unheard_of", "error_description": marked("upstream-description") }).to_string(),
        json!({ "error": "invalid_grant", "error_description": marked("upstream-description") }).to_string(),
        format!("{{\"broken\": \"{}\"", marked("upstream-broken")),
    ] {
        for status in [200, 400, 401, 500] {
            app.idp.misbehave(|how| how.token_answer = Some((status, body.clone())));
            shown.add(&confidential.elsewhere().authorize("alice", &[]).await);
        }
    }
    app.idp.misbehave(|how| *how = Misbehaviour::default());

    // The real ones of a whole life, which the server made or was told.
    let person = confidential.elsewhere();
    let code = person.code("alice").await;
    let first = redeemed(&app, &confidential, &code).await;
    shown.add(&person.redeem(&code).await); // again, and without the header
    let code = confidential.elsewhere().code("alice").await;
    let second = redeemed(&app, &confidential, &code).await;
    app.advance(16 * 60);
    let authorization = basic(&confidential.id, confidential.secret.as_deref().unwrap());
    let form = [("grant_type", "refresh_token"), ("refresh_token", second.refresh_token.as_str())];
    let third =
        http.post_form(&app.at("/token"), &form, &[("authorization", &authorization)]).await;
    let third = Tokens::of(&third);
    confidential.call_tool(&third.access_token, "get-todos", json!({})).await.assert_status(200);
    shown.add(&confidential.call_tool(&first.access_token, "get-todos", json!({})).await);
    let admin = Console::admin(&app).signed_in(&app, "alice").await;
    app.write_usage().await;
    for path in ["/", "/clients", "/clients/patterns", "/grants", "/people", "/keys", "/audit"]
        .into_iter()
        .chain(["/servers", "/notifications", "/usage", "/usage/export"])
        .chain(["/refused", "/servers/draft", "/connections"])
    {
        shown.add(&admin.get(path).await);
    }
    shown.add(&admin.get("/audit/export").await);
    for path in ["/client", "/clients/edit"] {
        shown.add(&admin.get(&with_query(path, &[("id", &confidential.id)])).await);
    }

    let mut secrets: Vec<String> = app.idp.issued();
    secrets.extend([
        "upstream-secret-canary".to_owned(),
        "a test key that is long enough".to_owned(),
        VERIFIER.to_owned(),
    ]);
    secrets.extend(confidential.secret.clone());
    secrets.push(code);
    for tokens in [first, second, third] {
        secrets.extend([tokens.access_token, tokens.refresh_token]);
    }
    for browser in [&person.browser, &admin.browser] {
        let cookies = browser.cookie_header("127.0.0.1");
        secrets.extend(
            cookies.split("; ").filter_map(|pair| Some(pair.split_once('=')?.1.to_owned())),
        );
    }
    assert!(secrets.len() > 15, "{} secrets", secrets.len());
    let stolen = String::from_utf8_lossy(&app.database.dump().await).into_owned();
    let log = logs::all();
    assert!(
        log.contains(&confidential.id)
            && stolen.contains(&confidential.id)
            && shown.0.len() > 100_000
    );
    for (place, text) in [("log", &log), ("database", &stolen), ("pages and errors", &shown.0)] {
        let marks: Vec<&str> = text.lines().filter(|line| line.contains(MARK)).collect();
        assert!(marks.is_empty(), "in the {place}: {:.300}", marks[0]);
        for secret in &secrets {
            let random = random_part(secret);
            let set = place == "pages and errors" && text.contains(&format!("={random}")); // a cookie, set
            assert!(set || !text.contains(random), "{secret:.12}… is in the {place}");
        }
    }
}

async fn redeemed(app: &TestApp, client: &McpClient, code: &str) -> Tokens {
    let resource = app.mcp_url();
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code),
        ("redirect_uri", REDIRECT_URI),
        ("code_verifier", VERIFIER),
        ("resource", resource.as_str()),
        ("client_id", client.id.as_str()),
        ("client_secret", client.secret.as_deref().unwrap()),
    ];
    Tokens::of(&app.http.post_form(&app.at("/token"), &form, &[]).await)
}
