//! P7: an answer that refuses leaves the database as it was. Every endpoint is asked wrongly in every way
//! that its parameters allow, beside a client, a code, tokens and a consent page that wait; all rows of all
//! tables are compared before and after. What may change is named ([`MAY_CHANGE`]), and nothing else does.

use std::collections::BTreeMap;
use std::path::Path;

use portcullis::oauth::pkce::CodeChallenge;
use serde_json::json;
use sqlx::{AssertSqlSafe, Column, Connection, Row};

use crate::harness::browser::Form;
use crate::harness::client::{McpClient, REDIRECT_URI, Tokens, VERIFIER, challenge_of};
use crate::harness::console::Console;
use crate::harness::http::{Answer, encode};
use crate::harness::{Setup, TestApp};

/// What a refusal may write: the audit trail tells of it, wrong attempts at a code are counted, and a tool
/// that needs more scopes is remembered, so that the person can be told. The sums of all calls so far are
/// written every ten seconds, whatever happens then.
const MAY_CHANGE: &[(&str, &str)] = &[
    ("", "audit_events"),
    ("", "usage_keys"),
    ("", "usage_hours"),
    ("", "usage_days"),
    ("", "usage_of_servers"),
    ("wrong holder", "authorization_codes"),
    ("tool", "scope_challenges"),
];

/// Every table that the migrations make.
fn tables() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
    let mut tables: Vec<String> = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        tables.extend(
            text.split("CREATE TABLE ")
                .skip(1)
                .map(|rest| rest.split([' ', '(', '\n']).next().unwrap().to_owned()),
        );
    }
    tables.sort();
    assert!(tables.len() >= 20, "{tables:?}");
    tables
}

type Rows = BTreeMap<String, Vec<String>>;

async fn rows(app: &TestApp) -> Rows {
    let mut connection = sqlx::AnyConnection::connect(&app.database.url).await.unwrap();
    let mut all = Rows::new();
    for table in tables() {
        let query = AssertSqlSafe(format!("SELECT * FROM {table}"));
        let mut rows: Vec<String> = Vec::new();
        for row in sqlx::query(query).fetch_all(&mut connection).await.unwrap() {
            let cells = row.columns().iter().map(|column| {
                let at = column.ordinal();
                let text = row.try_get::<Option<String>, _>(at);
                let text = text.or_else(|_| {
                    let number = row.try_get::<Option<i64>, _>(at);
                    number.map(|number| number.map(|number| number.to_string()))
                });
                format!("{}={:?}", column.name(), text.unwrap())
            });
            let row = cells.collect::<Vec<_>>().join(" ");
            if table != "installation" || !row.contains("audit_head") {
                rows.push(row); // the head of the chain belongs to the audit trail
            }
        }
        rows.sort();
        all.insert(table, rows);
    }
    connection.close().await.unwrap();
    all
}

/// The server, and its rows as they must stay.
struct Watched {
    app: TestApp,
    before: Rows,
    refused: usize,
}

impl Watched {
    /// Sees that `answer` refuses, and that it changed nothing but what `kind` may.
    async fn refuses(&mut self, kind: &str, what: &str, answer: Answer) {
        let to_client = answer.header("location").is_some_and(|to| to.contains("error="));
        assert!(answer.status.as_u16() >= 400 || to_client, "{what}: {}", answer.status);
        assert!(answer.status.as_u16() < 500, "{what}: {}", answer.status);
        let mut after = rows(&self.app).await;
        for (of, table) in MAY_CHANGE {
            if kind.contains(of) {
                let rows = after.remove(*table);
                self.before.insert((*table).to_owned(), rows.clone().unwrap());
                after.insert((*table).to_owned(), rows.unwrap());
            }
        }
        for (table, rows) in &after {
            assert_eq!(&self.before[table], rows, "{what} changed {table}");
        }
        self.refused += 1;
    }

    /// `form`, made wrong in every parameter: left out, empty, repeated, nonsense.
    async fn refuses_form(&mut self, path: &str, form: &[(&str, &str)], optional: &[&str]) {
        for (name, value) in form {
            let other = "nonsense";
            for (how, set) in [
                ("left out", vec![]),
                ("empty", vec![(*name, "")]),
                ("repeated", vec![(*name, *value), (*name, *value)]),
                ("repeated with another", vec![(*name, *value), (*name, other)]),
                ("nonsense", vec![(*name, other)]),
                ("no text", vec![(*name, "%ff")]),
            ] {
                let silent = matches!(how, "left out" | "empty") && optional.contains(name);
                let agrees = how == "repeated" && *name == "resource";
                if silent || agrees {
                    continue; // that is no mistake
                }
                let mut all: Vec<(&str, &str)> =
                    form.iter().filter(|(known, _)| known != name).copied().collect();
                all.extend(set);
                let body = encode(&all).replace("%25ff", "%ff");
                let url = self.app.at(path);
                let headers = [("content-type", "application/x-www-form-urlencoded")];
                let answer = self.app.http.send("POST", &url, &headers, body).await;
                // Somebody who holds a code and says something else about it is counted.
                let kind = if path == "/token" { "wrong holder" } else { "" };
                self.refuses(kind, &format!("{path} with {name} {how}"), answer).await;
            }
        }
    }
}

#[tokio::test]
async fn p7_a_refused_token_exchange_leaves_the_database_as_it_was() {
    let secret = "the secret of the to-do server, 0123456789abcdef";
    let app = TestApp::with(Setup::toml(format!(
        "[resource]\nintrospection_secret = \"{secret}\"\n[resource.upstream_token]\nheader = \"x-upstream\"\n"
    )))
    .await;
    let (_, tokens) = app.tokens_of("bob").await;
    let (id, before) = (app.mcp_url(), rows(&app).await);
    let mut watched = Watched { app, before, refused: 0 };
    let exchange = [
        ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
        ("client_id", id.as_str()),
        ("client_secret", secret),
        ("subject_token", tokens.access_token.as_str()),
        ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ("audience", "sign-in"),
    ];
    watched.refuses_form("/token", &exchange, &[]).await;
    for further in [
        ("scope", "not-granted"),
        ("resource", "https://api.example"),
        ("actor_token", "x"),
        ("requested_token_type", "urn:ietf:params:oauth:token-type:refresh_token"),
    ] {
        let form: Vec<(&str, &str)> = exchange.into_iter().chain([further]).collect();
        let answer = watched.app.http.post_form(&watched.app.at("/token"), &form, &[]).await;
        watched.refuses("", &format!("an exchange with {further:?}"), answer).await;
    }
    assert!(watched.refused >= 30, "{} refusals", watched.refused);
}

#[tokio::test]
async fn p7_a_refusal_leaves_the_database_as_it_was() {
    let app = TestApp::start().await;
    let http = app.http.clone();
    let confidential = McpClient::register_as(
        &app,
        json!({ "redirect_uris": [REDIRECT_URI], "token_endpoint_auth_method": "client_secret_post" }),
    )
    .await;
    let (client, tokens) = app.tokens_of("bob").await;
    let code = client.elsewhere().code("bob").await;
    let asking = client.elsewhere();
    let (_, page) = asking.ask(&[]).await;
    let waiting = client.elsewhere();
    let at_provider = waiting.approve(&[]).await;
    let before = rows(&app).await;
    let mut watched = Watched { app, before, refused: 0 };
    let at = |path: &str| format!("{}{path}", client.server.url);

    // Asking.
    let (challenge, resource) = (challenge_of(VERIFIER), client.server.mcp_url());
    assert!(CodeChallenge::parse(&challenge).is_ok());
    for (name, value) in [
        ("response_type", ""),
        ("response_type", "token"),
        ("client_id", ""),
        ("client_id", "x"),
        ("redirect_uri", "https://evil.example/"),
        ("redirect_uri", "http://127.0.0.1:53124/other"),
        ("code_challenge", ""),
        ("code_challenge", "x"),
        ("code_challenge_method", "plain"),
        ("code_challenge_method", ""),
        ("resource", "https://other.example/mcp"),
        ("request", "x"),
        ("request_uri", "https://x.example"),
        ("response_mode", "fragment"),
        ("prompt", "none"),
    ] {
        let answer = asking.browser.get(&asking.authorize_url(&[(name, value)])).await;
        watched.refuses("", &format!("/authorize with {name}={value:?}"), answer).await;
    }
    for name in ["client_id", "redirect_uri", "state", "code_challenge", "scope"] {
        let url = format!("{}&{name}=twice", asking.authorize_url(&[]));
        let answer = asking.browser.get(&url).await;
        watched.refuses("", &format!("/authorize with {name} twice"), answer).await;
    }

    // Deciding: from elsewhere, about something else, or not at all.
    for (what, set) in [
        ("no decision", vec![("decision", "")]),
        ("an unknown decision", vec![("decision", "perhaps")]),
        ("a changed request", vec![("decision", "approve"), ("request", "sealed-by-nobody")]),
        ("no request", vec![("decision", "approve"), ("request", "")]),
    ] {
        let answer = asking.browser.post(&page.action, &page.with(&set), &client.server.url).await;
        watched.refuses("", &format!("/consent with {what}"), answer).await;
    }
    let approve = page.with(&[("decision", "approve")]);
    let answer = asking.browser.post(&page.action, &approve, "https://evil.example").await;
    watched.refuses("", "/consent from another origin", answer).await;
    let answer = client.elsewhere().browser.post(&page.action, &approve, &client.server.url).await;
    watched.refuses("", "/consent from another browser", answer).await;

    // Coming back with what the provider never said.
    let state = url::Url::parse(&at_provider).unwrap();
    let state = state.query_pairs().find(|(name, _)| name == "state").unwrap().1.into_owned();
    for query in
        ["", "?state=x&code=y", "?code=y", "?state=ls_0123456789abcdef0123456789abcdef.x&code=y"]
    {
        let answer = waiting.browser.get(&at(&format!("/auth/callback{query}"))).await;
        watched.refuses("", &format!("/auth/callback{query}"), answer).await;
    }
    let twice = format!("/auth/callback?state={state}&state={state}&code=y");
    let answer = waiting.browser.get(&at(&twice)).await;
    watched.refuses("", "/auth/callback with state twice", answer).await;

    // Redeeming and refreshing.
    let redemption = [
        ("grant_type", "authorization_code"),
        ("client_id", client.id.as_str()),
        ("code", &code),
        ("redirect_uri", REDIRECT_URI),
        ("resource", &resource),
        ("code_verifier", VERIFIER),
    ];
    // The verifier is never there: five wrong attempts of a holder would burn the code.
    watched.refuses_form("/token", &redemption[..3], &[]).await;
    let refresh = [
        ("grant_type", "refresh_token"),
        ("client_id", client.id.as_str()),
        ("refresh_token", tokens.refresh_token.as_str()),
        ("resource", &resource),
    ];
    watched.refuses_form("/token", &refresh, &["resource"]).await;
    let by_another = [
        ("grant_type", "refresh_token"),
        ("client_id", confidential.id.as_str()),
        ("client_secret", confidential.secret.as_deref().unwrap()),
        ("refresh_token", tokens.refresh_token.as_str()),
    ];
    let answer = http.post_form(&at("/token"), &by_another, &[]).await;
    watched.refuses("", "/token with the token of another client", answer).await;
    let wrong = [
        ("grant_type", "authorization_code"),
        ("client_id", client.id.as_str()),
        ("code", code.as_str()),
        ("code_verifier", "wrong-verifier-of-43-characters-0123456789-abc"),
    ];
    let answer = http.post_form(&at("/token"), &wrong, &[]).await;
    watched.refuses("wrong holder", "/token with a wrong verifier", answer).await;
    for (what, method, path, kind, body) in [
        (
            "in the URL",
            "POST",
            "/token?grant_type=refresh_token",
            "application/x-www-form-urlencoded",
            "grant_type=x",
        ),
        ("as JSON", "POST", "/token", "application/json", "{}"),
        ("by GET", "GET", "/token", "", ""),
        (
            "too large",
            "POST",
            "/token",
            "application/x-www-form-urlencoded",
            &"x=y&".repeat(30_000),
        ),
    ] {
        let answer = http.send(method, &at(path), &[("content-type", kind)], body.to_owned()).await;
        watched.refuses("", &format!("/token {what}"), answer).await;
    }

    // Giving back without being the client.
    let unknown = [("client_id", "nobody"), ("token", tokens.refresh_token.as_str())];
    let answer = http.post_form(&at("/revoke"), &unknown, &[]).await;
    watched.refuses("", "/revoke by an unknown client", answer).await;
    let impostor =
        [("client_id", confidential.id.as_str()), ("token", tokens.refresh_token.as_str())];
    let answer = http.post_form(&at("/revoke"), &impostor, &[]).await;
    watched.refuses("", "/revoke without the secret", answer).await;

    // Registering.
    for body in [
        "",
        "x",
        "[]",
        "{}",
        "{\"redirect_uris\":[]}",
        "{\"redirect_uris\":\"x\"}",
        "{\"redirect_uris\":[\"javascript:alert(1)\"]}",
        "{\"redirect_uris\":[\"http://evil.example/\"]}",
        "{\"redirect_uris\":[\"https://a.example/\"],\"redirect_uris\":[\"https://b.example/\"]}",
        "{\"redirect_uris\":[\"https://a.example/\"],\"token_endpoint_auth_method\":\"tls\"}",
    ] {
        let headers = [("content-type", "application/json")];
        let answer = http.send("POST", &at("/register"), &headers, body.to_owned()).await;
        watched.refuses("", &format!("/register with {body}"), answer).await;
    }
    for method in ["GET", "PUT", "DELETE"] {
        let url = at(&format!("/register/{}", confidential.id));
        let headers = [("authorization", "Bearer nobody"), ("content-type", "application/json")];
        let answer = http.send(method, &url, &headers, "{}").await;
        watched.refuses("", &format!("{method} /register/… with a wrong token"), answer).await;
    }

    // Calling.
    let bearer = format!("Bearer {}", tokens.access_token);
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"purge-todos"}}"#;
    for (kind, what, method, authorization, body) in [
        ("", "no token", "POST", "", "{}"),
        ("", "a wrong token", "POST", "Bearer a.b.c", "{}"),
        ("", "two words", "POST", "Bearer a b", "{}"),
        ("", "an unknown method", "PATCH", bearer.as_str(), "{}"),
        ("", "no JSON", "POST", bearer.as_str(), "x"),
        ("tool", "a forbidden tool", "POST", bearer.as_str(), call),
    ] {
        let headers = [("authorization", authorization), ("content-type", "application/json")];
        let answer = http.send(method, &resource, &headers, body).await;
        watched.refuses(kind, &format!("the gateway with {what}"), answer).await;
    }

    // Pages without a session, and nothing at all.
    let admin = Console::admin(&watched.app);
    for (origin, path) in [
        (&client.server.url, "/account/disconnect"),
        (&client.server.url, "/account/sign-out"),
        (&client.server.url, "/account/sign-out-everywhere"),
        (&client.server.url, "/account/language"),
        (&client.server.url, "/nothing"),
        (&admin.origin, "/clients/block"),
        (&admin.origin, "/grants/revoke"),
        (&admin.origin, "/keys/rotate"),
        (&client.server.url, "/backchannel-logout"),
        (&client.server.url, "/global-token-revocation"),
    ] {
        let form = [
            ("csrf", "x"),
            ("id", client.id.as_str()),
            ("client_id", client.id.as_str()),
            ("logout_token", "a.b.c"),
        ];
        let answer = admin.browser.post(&format!("{origin}{path}"), &form, origin).await;
        watched.refuses("", &format!("POST {path}"), answer).await;
    }

    // And what waited is as good as ever.
    assert!(watched.refused > 90, "{} refusals", watched.refused);
    Tokens::of(&client.redeem(&code).await);
    Tokens::of(&client.refresh(&tokens.refresh_token).await);
    let _ = asking
        .decide(&Form { ..page.clone() }, "approve")
        .await
        .assert_leads_to(&client.server.idp);
    let callback = waiting.log_in(&at_provider, "alice").await;
    waiting.browser.get(&callback).await.assert_leads_to(REDIRECT_URI);
}
