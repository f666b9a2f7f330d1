//! Tests every preset against real answers of its service, with their traps: the requests that we send, and
//! what we read of what comes back.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use axum::http::Response;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::account::{ServiceAccount, read};
use super::authorize::scopes_to_ask;
use super::granted::{granted, missing};
use crate::clock::Timestamp;
use crate::config::{Config, ConnectionConfig};
use crate::upstream::id_token::{DirectIdToken, claims_of_direct};
use crate::upstream::token_response::{self, ResponseForm, TokenFailure};

fn service(provider: &str, scopes: &[&str], lines: &str) -> ConnectionConfig {
    let text = format!(
        "public_url = \"https://mcp.example.com\"\n[upstream]\nprovider = \"oidc\"\n\
         issuer = \"https://id.example.com\"\nclient_id = \"id\"\nclient_secret = {{ env = \"S\" }}\n\
         [[resource]]\npath = \"/mcp\"\ntarget = \"http://127.0.0.1:9000/mcp\"\nscopes = [\"read\"]\n\
         introspection_secret = \"0123456789abcdef0123456789abcdef\"\n\
         [[resource.connection]]\nname = \"one\"\n\
         [[connection]]\nname = \"one\"\nprovider = \"{provider}\"\nclient_id = \"id\"\n\
         client_secret = {{ env = \"S\" }}\nscopes = {scopes:?}\n{lines}\n"
    );
    let env = BTreeMap::from([("S".to_owned(), "secret".to_owned())]);
    let loaded = Config::load(Some((Path::new("test.toml"), text)), &env);
    let config = loaded.unwrap_or_else(|problems| panic!("{provider}: {problems}")).config;
    config.connections.into_iter().next().unwrap()
}

const ENTRA: &str = "tenant = \"11111111-2222-3333-4444-555555555555\"";

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn set(words: &[&str]) -> BTreeSet<String> {
    texts(words).into_iter().collect()
}

/// The answer to a code, and what we make of it.
struct Redeemed {
    provider: &'static str,
    lines: &'static str,
    asked: &'static [&'static str],
    answer: Value,
    /// The content type, if it is not JSON.
    as_form: bool,
    access: &'static str,
    refresh: Option<&'static str>,
    /// Seconds.
    lifetime: Option<u64>,
    granted: &'static [&'static str],
    missing: &'static [&'static str],
}

fn redeemed() -> Vec<Redeemed> {
    let plain = || Redeemed {
        provider: "oauth2",
        lines: "title = \"T\"\nauthorize_url = \"https://s.example/a\"\ntoken_url = \"https://s.example/t\"",
        asked: &["read", "write"],
        answer: json!({ "access_token": "a", "token_type": "Bearer" }),
        as_form: false,
        access: "a",
        refresh: None,
        lifetime: None,
        granted: &["read", "write"],
        missing: &[],
    };
    vec![
        // Without `scope` the service granted what was asked for (RFC 6749 §5.1).
        plain(),
        Redeemed {
            answer: json!({ "access_token": "a", "token_type": "Bearer", "scope": "write extra" }),
            granted: &["extra", "write"],
            missing: &["read"],
            ..plain()
        },
        // A GitHub OAuth app: no end, no refresh token, and the shortest list that means the same.
        Redeemed {
            provider: "github",
            lines: "",
            asked: &["repo", "repo:status", "read:org"],
            answer: json!({
                "access_token": "gho_16C7e42F292c6912E7710c838347Ae178B4a",
                "token_type": "bearer",
                "scope": "repo,read:org",
            }),
            access: "gho_16C7e42F292c6912E7710c838347Ae178B4a",
            granted: &["read:org", "repo", "repo:status"],
            ..plain()
        },
        // The same from a server that ignores `Accept`.
        Redeemed {
            provider: "github",
            lines: "",
            asked: &["gist"],
            answer: json!({ "access_token": "gho_1", "scope": "gist", "token_type": "bearer" }),
            as_form: true,
            access: "gho_1",
            granted: &["gist"],
            ..plain()
        },
        // A GitHub App: 8 hours and half a year, and its rights are not scopes.
        Redeemed {
            provider: "github",
            lines: "",
            asked: &[],
            answer: json!({
                "access_token": "ghu_16C7e42F292c6912E7710c838347Ae178B4a",
                "expires_in": 28800,
                "refresh_token": "ghr_1B4a2e77838347a7E420ce178F2E7c6912E1692",
                "refresh_token_expires_in": 15_897_600,
                "scope": "",
                "token_type": "bearer",
            }),
            access: "ghu_16C7e42F292c6912E7710c838347Ae178B4a",
            refresh: Some("ghr_1B4a2e77838347a7E420ce178F2E7c6912E1692"),
            lifetime: Some(28_800),
            granted: &[],
            ..plain()
        },
        // Google: the person unticked one box; what we ask for ourselves comes in another spelling.
        Redeemed {
            provider: "google",
            lines: "",
            asked: &[
                "https://www.googleapis.com/auth/calendar.readonly",
                "https://www.googleapis.com/auth/drive.file",
            ],
            answer: json!({
                "access_token": "ya29.a0AfH6SM",
                "expires_in": 3599,
                "refresh_token": "1//0gJ4",
                "scope": "https://www.googleapis.com/auth/drive.file openid \
                          https://www.googleapis.com/auth/userinfo.email",
                "token_type": "Bearer",
                "id_token": "e30.e30.c2ln",
            }),
            access: "ya29.a0AfH6SM",
            refresh: Some("1//0gJ4"),
            lifetime: Some(3599),
            granted: &["https://www.googleapis.com/auth/drive.file"],
            missing: &["https://www.googleapis.com/auth/calendar.readonly"],
            ..plain()
        },
        // Google, later: no refresh token, because one was issued before.
        Redeemed {
            provider: "google",
            lines: "",
            asked: &["https://www.googleapis.com/auth/drive.file"],
            answer: json!({
                "access_token": "ya29.b",
                "expires_in": 3599,
                "scope": "https://www.googleapis.com/auth/drive.file",
                "token_type": "Bearer",
            }),
            access: "ya29.b",
            lifetime: Some(3599),
            granted: &["https://www.googleapis.com/auth/drive.file"],
            ..plain()
        },
        // Entra spells scopes in its own way, and grants all or none. Numbers were texts in its first version.
        Redeemed {
            provider: "entra",
            lines: ENTRA,
            asked: &["Mail.Read"],
            answer: json!({
                "token_type": "Bearer",
                "scope": "https://graph.microsoft.com/Mail.Read https://graph.microsoft.com/User.Read",
                "expires_in": "4019",
                "ext_expires_in": 4019,
                "access_token": "eyJ0eXAi.e30.c2ln",
                "refresh_token": "0.AXkA",
            }),
            access: "eyJ0eXAi.e30.c2ln",
            refresh: Some("0.AXkA"),
            lifetime: Some(4019),
            granted: &["Mail.Read"],
            ..plain()
        },
        // Slack: the person's token is inside; the one beside it is the application's. Rotation is on.
        Redeemed {
            provider: "slack",
            lines: "",
            asked: &["chat:write", "search:read"],
            answer: json!({
                "ok": true,
                "access_token": "xoxb-17653672481-19874698323-pdFZKVeTuE8sk7oOcBrzbqgy",
                "token_type": "bot",
                "scope": "commands,incoming-webhook",
                "app_id": "A0KRD7HC3",
                "team": { "name": "Acme", "id": "T9TK3CUKW" },
                "authed_user": {
                    "id": "U1234",
                    "scope": "chat:write,search:read",
                    "access_token": "xoxe.xoxp-1-Mi0yLTk",
                    "expires_in": 43200,
                    "refresh_token": "xoxe-1-My0xLTk",
                    "token_type": "user",
                },
            }),
            access: "xoxe.xoxp-1-Mi0yLTk",
            refresh: Some("xoxe-1-My0xLTk"),
            lifetime: Some(43_200),
            granted: &["chat:write", "search:read"],
            ..plain()
        },
        // Slack without rotation: for ever.
        Redeemed {
            provider: "slack",
            lines: "",
            asked: &["chat:write"],
            answer: json!({
                "ok": true,
                "team": { "name": "Acme", "id": "T9TK3CUKW" },
                "authed_user": {
                    "id": "U1234",
                    "scope": "chat:write",
                    "access_token": "xoxp-1234",
                    "token_type": "user",
                },
            }),
            access: "xoxp-1234",
            granted: &["chat:write"],
            ..plain()
        },
        // Atlassian: the scope for the refresh token is ours.
        Redeemed {
            provider: "atlassian",
            lines: "",
            asked: &["read:jira-work"],
            answer: json!({
                "access_token": "eyJraWQi",
                "expires_in": 3600,
                "token_type": "Bearer",
                "refresh_token": "eyJyZWZy",
                "scope": "offline_access read:jira-work",
            }),
            access: "eyJraWQi",
            refresh: Some("eyJyZWZy"),
            lifetime: Some(3600),
            granted: &["read:jira-work"],
            ..plain()
        },
    ]
}

fn response_of(status: u16, body: &Value, as_form: bool) -> Response<Vec<u8>> {
    let mut response = Response::builder().status(status);
    if !as_form {
        let response = response.header("content-type", "application/json; charset=utf-8");
        return response.body(body.to_string().into()).unwrap();
    }
    response = response.header("content-type", "application/x-www-form-urlencoded; charset=utf-8");
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in body.as_object().unwrap() {
        form.append_pair(name, value.as_str().unwrap());
    }
    response.body(form.finish().into()).unwrap()
}

#[test]
fn each_service_is_understood_in_its_own_manner() {
    for fixture in redeemed() {
        let Redeemed { provider, asked, .. } = fixture;
        let config = service(provider, asked, fixture.lines);
        let response = response_of(200, &fixture.answer, fixture.as_form);
        let (token_at, ending_errors) = (config.preset.token_at, config.preset.ending_errors);
        let answer = token_response::read(&response, &ResponseForm { token_at, ending_errors });
        let answer = answer.unwrap_or_else(|failure| panic!("{provider}: {failure}"));
        assert_eq!(answer.access_token(), Ok(fixture.access), "{provider}");
        assert_eq!(answer.refresh_token.as_deref(), fixture.refresh, "{provider}");
        let lifetime = fixture.lifetime.map(Duration::from_secs);
        assert_eq!(answer.expires_in, lifetime, "{provider}");
        let asked = texts(asked);
        let granted = granted(&config, &asked, answer.scope.as_deref());
        assert_eq!(granted, set(fixture.granted), "{provider}");
        assert_eq!(missing(&asked, &granted), texts(fixture.missing), "{provider}");
    }
}

/// Slack answers with a token of the application even if the person granted nothing: it is not the person's.
#[test]
fn a_token_beside_the_persons_is_not_taken_for_it() {
    let answer = json!({ "ok": true, "access_token": "xoxb-1", "authed_user": { "id": "U1" } });
    let form = ResponseForm { token_at: "authed_user", ending_errors: &[] };
    let read = token_response::read(&response_of(200, &answer, false), &form);
    assert!(matches!(read, Err(TokenFailure::Transient(_))), "{read:?}");
}

#[test]
fn a_refresh_is_refused_for_good_only_by_what_the_service_says_so() {
    let refused = |code: &str| Some(TokenFailure::Refused(code.to_owned()));
    let ours = |code: &str| Some(TokenFailure::Ours(code.to_owned()));
    for (provider, lines, status, body, expected) in [
        // GitHub answers every error with status 200.
        (
            "github",
            "",
            200,
            json!({
                "error": "bad_refresh_token",
                "error_description": "The refresh token passed is incorrect or expired.",
                "error_uri": "https://docs.github.com",
            }),
            refused("bad_refresh_token"),
        ),
        (
            "github",
            "",
            200,
            json!({ "error": "incorrect_client_credentials" }),
            ours("incorrect_client_credentials"),
        ),
        (
            "google",
            "",
            400,
            json!({
                "error": "invalid_grant",
                "error_description": "Token has been expired or revoked.",
            }),
            refused("invalid_grant"),
        ),
        ("google", "", 400, json!({ "error": "invalid_client" }), ours("invalid_client")),
        (
            "entra",
            ENTRA,
            400,
            json!({
                "error": "invalid_grant",
                "error_description": "AADSTS700082: The refresh token has expired due to inactivity.",
                "error_codes": [700_082],
                "suberror": "bad_token",
            }),
            refused("invalid_grant"),
        ),
        (
            "entra",
            ENTRA,
            400,
            json!({ "error": "interaction_required", "claims": "{}", "error_codes": [50_076] }),
            refused("interaction_required"),
        ),
        (
            "slack",
            "",
            200,
            json!({ "ok": false, "error": "invalid_refresh_token" }),
            refused("invalid_refresh_token"),
        ),
        ("slack", "", 200, json!({ "ok": false, "error": "ratelimited" }), None),
        ("slack", "", 200, json!({ "ok": false }), None),
        (
            "atlassian",
            "",
            403,
            json!({
                "error": "invalid_grant",
                "error_description": "Unknown or invalid refresh token.",
            }),
            refused("invalid_grant"),
        ),
        (
            "atlassian",
            "",
            403,
            json!({ "error": "unauthorized_client", "error_description": "refresh_token is invalid" }),
            refused("unauthorized_client"),
        ),
        // An error of its API is no error of OAuth.
        ("google", "", 503, json!({ "error": { "code": 503, "status": "UNAVAILABLE" } }), None),
        ("google", "", 500, json!({}), None),
        ("atlassian", "", 429, json!({ "code": 429, "message": "Rate limit exceeded" }), None),
    ] {
        let config = service(provider, &["one"], lines);
        let ending_errors = config.preset.ending_errors;
        let response = response_of(status, &body, false);
        let read = token_response::read(&response, &ResponseForm { token_at: "", ending_errors });
        let failure = read.unwrap_err();
        match expected {
            Some(expected) => assert_eq!(failure, expected, "{provider} {body}"),
            None => {
                assert!(matches!(failure, TokenFailure::Transient(_)), "{provider} {body}");
            }
        }
    }
}

/// The answer to a refresh has the tokens at the top, for Slack too.
#[test]
fn the_answer_to_a_refresh_of_slack_is_read_at_the_top() {
    let answer = json!({
        "ok": true,
        "access_token": "xoxe.xoxp-1-new",
        "expires_in": 43200,
        "refresh_token": "xoxe-1-new",
        "token_type": "user",
        "scope": "chat:write",
    });
    let read = token_response::read(&response_of(200, &answer, false), &ResponseForm::default());
    let read = read.unwrap();
    assert_eq!(read.access_token(), Ok("xoxe.xoxp-1-new"));
    assert_eq!(read.refresh_token.as_deref(), Some("xoxe-1-new"));
    assert!(!format!("{read:?}").contains("xoxe"), "no token is printed");
}

#[test]
fn what_is_asked_for_has_our_own_scopes_and_each_one_once() {
    for (provider, lines, wanted, lists_offline, asked) in [
        ("github", "", &["repo"][..], false, "repo"),
        ("google", "", &["x", "email"], false, "openid email x"),
        ("entra", ENTRA, &["Mail.Read"], false, "openid profile Mail.Read offline_access"),
        ("slack", "", &["chat:write"], false, "chat:write"),
        ("atlassian", "", &["read:me"], false, "read:me offline_access"),
        ("oidc", "issuer = \"https://i.example\"", &["api"], true, "openid api offline_access"),
        ("oidc", "issuer = \"https://i.example\"", &["api"], false, "openid api"),
    ] {
        let config = service(provider, wanted, lines);
        let wanted = texts(wanted);
        assert_eq!(scopes_to_ask(&config, &wanted, lists_offline).join(" "), asked, "{provider}");
    }
}

#[test]
fn each_service_tells_the_account_in_its_own_place() {
    for (provider, lines, document, key, label) in [
        ("github", "", json!({ "id": 583_231, "login": "octocat" }), "583231", "octocat"),
        ("google", "", json!({ "sub": "1178", "email": "a@b.c" }), "1178", "a@b.c"),
        (
            "entra",
            ENTRA,
            json!({ "sub": "pairwise", "oid": "0f8b", "preferred_username": "a@b.c" }),
            "0f8b",
            "a@b.c",
        ),
        (
            "slack",
            "",
            json!({ "team": { "name": "Acme" }, "authed_user": { "id": "U1" } }),
            "U1",
            "Acme",
        ),
        (
            "atlassian",
            "",
            json!({ "account_id": "5b10", "email": "a@b.c\u{7}", "name": "A" }),
            "5b10",
            "a@b.c",
        ),
    ] {
        let config = service(provider, &["one"], lines);
        let expected = ServiceAccount { key: Some(key.to_owned()), label: Some(label.to_owned()) };
        assert_eq!(read(&config.preset.account, &document), expected, "{provider}");
        let none = read(&config.preset.account, &json!({ "id": [], "login": "", "sub": null }));
        assert_eq!(none, ServiceAccount::default(), "{provider}");
    }
}

#[test]
fn ut_02_an_id_token_must_be_the_one_of_this_request() {
    let good = json!({
        "iss": "https://i.example", "aud": "id", "sub": "1", "nonce": "n", "exp": 2000,
    });
    let issuers = texts(&["https://i.example"]);
    let now = Timestamp::from_unix(1000);
    let expected = DirectIdToken { issuers: &issuers, client_id: "id", nonce: "n", now };
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let check = |claims: &Value, expected: &DirectIdToken<'_>| {
        let token = format!("{}.{}.c2ln", part(&json!({ "alg": "RS256" })), part(claims));
        claims_of_direct(&token, expected)
    };
    assert_eq!(check(&good, &expected), Ok(good.clone()));
    for (claim, value, said) in [
        ("iss", json!("https://evil.example"), "iss is another issuer"),
        ("iss", json!(null), "iss is missing"),
        ("aud", json!("another"), "aud does not name us"),
        ("aud", json!(["id", "another"]), "aud names others beside us, and azp is missing"),
        ("azp", json!("another"), "azp is not us"),
        ("exp", json!(900), "exp: expired, by our clock"),
        ("exp", json!(null), "exp is missing"),
        ("nonce", json!("of another"), "nonce is that of another request"),
        ("nonce", json!(null), "nonce is missing"),
    ] {
        let mut claims = good.clone();
        claims[claim] = value;
        assert_eq!(check(&claims, &expected), Err(said.to_owned()), "{claim}");
    }
    // A service whose issuer is not known.
    let mut claims = good;
    claims["iss"] = "https://any.example".into();
    assert!(check(&claims, &DirectIdToken { issuers: &[], ..expected }).is_ok());
    assert!(
        claims_of_direct(
            "no.jwt",
            &DirectIdToken { issuers: &[], client_id: "id", nonce: "n", now }
        )
        .is_err()
    );
}
