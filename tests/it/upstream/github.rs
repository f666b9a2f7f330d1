//! GitHub, which has no ID token: its API says who somebody is.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::harness::client::{McpClient, REDIRECT_URI, Tokens};
use crate::harness::{Setup, TestApp};

/// What GitHub would say.
#[derive(Clone)]
struct Says {
    token: Value,
    api: u16,
    organizations: Value,
    teams: Value,
    emails: Value,
    /// Whether GitHub names the next page in `Link`, or leaves it to be seen.
    links: bool,
    /// Forms that were sent to the token endpoint, and access tokens shown to the API.
    seen: Vec<String>,
}

type Shared = Arc<Mutex<Says>>;

async fn authorize(RawQuery(query): RawQuery) -> Redirect {
    let query = query.unwrap();
    let param = |name: &str| {
        form_urlencoded::parse(query.as_bytes()).find(|(n, _)| n == name).unwrap().1.into_owned()
    };
    assert!(!param("scope").contains("openid"), "GitHub knows no OpenID");
    Redirect::to(&format!("{}?code=c0de&state={}", param("redirect_uri"), param("state")))
}

async fn token(State(says): State<Shared>, form: String) -> Response {
    let mut says = says.lock().unwrap();
    says.seen.push(form);
    let token = says.token.clone();
    ([("content-type", "application/json")], token.to_string()).into_response()
}

async fn api(
    State(says): State<Shared>,
    Path(path): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let says = {
        let mut says = says.lock().unwrap();
        says.seen.push(headers["authorization"].to_str().unwrap().to_owned());
        says.clone()
    };
    let answer = match path.as_str() {
        "user" => json!({ "id": 583_231, "login": "bob", "name": "Bob Brown" }),
        "user/emails" => says.emails,
        "user/orgs" => says.organizations,
        "user/teams" => says.teams,
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    let status = StatusCode::from_u16(says.api).unwrap();
    let Value::Array(items) = answer else {
        return (status, [("content-type", "application/json")], answer.to_string())
            .into_response();
    };
    let query = query.unwrap_or_default();
    let number = |name: &str| {
        let mut pairs = form_urlencoded::parse(query.as_bytes());
        pairs.find_map(|(n, v)| (n == name).then(|| v.parse::<usize>().unwrap())).unwrap()
    };
    // A page whose next one `Link` names may be shorter than was asked for.
    let size = number("per_page") / if says.links { 2 } else { 1 };
    let page = number("page");
    let mut pages = items.chunks(size).skip(page - 1);
    let shown = pages.next().unwrap_or_default();
    let text = Value::from(shown).to_string();
    let mut answer = (status, [("content-type", "application/json")], text).into_response();
    if says.links && pages.next().is_some() {
        let next = format!("<https://api.example/x?page={}>; rel=\"next\"", page + 1);
        answer.headers_mut().insert("link", next.parse().unwrap());
    }
    answer
}

async fn start() -> (TestApp, Shared) {
    start_with(
        "",
        "[[resource.rule]]\ngroups = [\"acme/todo-users\"]\nallow = [\"read\"]\n\
         [[resource.rule]]\ngroups = [\"acme/todo-admins\"]\nallow = [\"read\", \"write\"]",
    )
    .await
}

async fn start_with(upstream: &str, rules: &str) -> (TestApp, Shared) {
    let says: Shared = Arc::new(Mutex::new(Says {
        token: json!({ "access_token": "gho_canary", "token_type": "bearer", "scope": "read:org" }),
        api: 200,
        organizations: json!([{ "login": "acme" }]),
        teams: json!([{ "slug": "todo-users", "organization": { "login": "acme" } }]),
        emails: json!([{ "email": "bob@acme.com", "primary": true, "verified": true }]),
        links: false,
        seen: Vec::new(),
    }));
    let router = Router::new()
        .route("/login/oauth/authorize", get(authorize))
        .route("/login/oauth/access_token", post(token))
        .route("/api/v3/{*path}", get(api))
        .with_state(Arc::clone(&says));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let upstream = format!(
        "[upstream]\nprovider = \"github\"\nurl = \"{url}\"\norganizations = [\"acme\"]\n\
         client_id = \"Ov23\"\nclient_secret = \"github-secret\"\n{upstream}"
    );
    let resources = format!(
        "[[resource]]\npath = \"/mcp\"\ntarget = \"http://127.0.0.1:9/mcp\"\nscopes = [\"read\", \"write\"]\n{rules}"
    );
    (TestApp::with(Setup::toml(upstream).and(resources)).await, says)
}

/// Approves, is sent to GitHub and straight back.
async fn arrive(client: &McpClient) -> crate::harness::http::Answer {
    let (_, form) = client.ask(&[("scope", "")]).await;
    let to_github = client.decide(&form, "approve").await;
    let back = client.browser.get(to_github.location()).await;
    client.browser.get(back.location()).await
}

async fn sign_in(client: &McpClient) -> Tokens {
    let answer = arrive(client).await;
    answer.assert_leads_to(REDIRECT_URI);
    Tokens::of(&client.redeem(&answer.location_param("code").unwrap()).await)
}

#[tokio::test]
async fn a_member_signs_in_and_teams_decide() {
    let (app, says) = start().await;
    let client = app.client().await;
    let tokens = sign_in(&client).await;
    assert_eq!(tokens.scope, "read");
    let claims = crate::harness::client::jwt_part(&tokens.access_token, 1);
    assert_eq!(claims["sub"], "github:583231", "the number, which a rename does not change");

    // Teams are read again at each re-check, with the access token: there is no refresh token.
    says.lock().unwrap().teams =
        json!([{ "slug": "todo-admins", "organization": { "login": "acme" } }]);
    app.advance(16 * 60);
    let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert_eq!((tokens.scope.as_str(), tokens.expires_in), ("read write", 600));
}

#[tokio::test]
async fn who_is_no_member_is_not_let_in_and_who_leaves_is_out() {
    let (app, says) = start().await;
    let client = app.client().await;
    let tokens = sign_in(&client).await;
    says.lock().unwrap().organizations = json!([{ "login": "other" }]);
    let answer = arrive(&client).await;
    answer.assert_leads_to(&format!("{REDIRECT_URI}?error=access_denied"));
    app.advance(16 * 60);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
}

#[tokio::test]
async fn a_revoked_token_ends_the_session_and_an_outage_does_not() {
    let (app, says) = start().await;
    let client = app.client().await;
    let mut tokens = sign_in(&client).await;
    for status in [500, 403, 429] {
        says.lock().unwrap().api = status;
        app.advance(16 * 60);
        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        assert_eq!(tokens.expires_in, 300, "{status}: bridged");
    }
    says.lock().unwrap().api = 401;
    app.advance(2 * 60);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
}

#[tokio::test]
async fn errors_that_come_with_status_200_are_still_errors() {
    let (app, says) = start().await;
    let client = app.client().await;
    for (error, status) in [
        ("bad_verification_code", 403),
        ("incorrect_client_credentials", 502),
        ("redirect_uri_mismatch", 502),
        ("something_else", 503),
    ] {
        says.lock().unwrap().token = json!({ "error": error });
        arrive(&client).await.assert_page(status);
    }
}

#[tokio::test]
async fn an_expiring_token_of_a_github_app_is_rotated_and_kept() {
    let (app, says) = start().await;
    let answer = |n: u32| {
        json!({
            "access_token": format!("ghu_{n}"), "expires_in": 28800, "token_type": "bearer", "scope": "",
            "refresh_token": format!("ghr_{n}"), "refresh_token_expires_in": 15_897_600,
        })
    };
    let tell = |n: u32| says.lock().unwrap().token = answer(n);
    let seen = |text: &str| says.lock().unwrap().seen.iter().any(|seen| seen.contains(text));
    tell(1);
    let client = app.client().await;
    let mut tokens = sign_in(&client).await;
    // Each is good for one use, and the access token before it dies with it.
    for n in 2..5 {
        tell(n);
        app.advance(16 * 60);
        tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        assert_eq!(tokens.expires_in, 600);
        assert!(seen(&format!("refresh_token=ghr_{}", n - 1)));
        assert!(seen(&format!("Bearer ghu_{n}")));
    }
    // The API is away after a rotation: the new tokens are kept all the same.
    tell(5);
    says.lock().unwrap().api = 500;
    app.advance(16 * 60);
    tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert_eq!(tokens.expires_in, 300);
    says.lock().unwrap().api = 200;
    tell(6);
    app.advance(16 * 60);
    tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert_eq!(tokens.expires_in, 600);
    assert!(seen("refresh_token=ghr_5"));

    says.lock().unwrap().token = json!({ "error": "bad_refresh_token" });
    app.advance(16 * 60);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
}

/// So many teams or organisations of other people, before ours.
fn crowd(number: usize, item: impl Fn(usize) -> Value, last: Value) -> Value {
    Value::Array((0..number).map(item).chain([last]).collect())
}

fn team(organization: &str, slug: &str) -> Value {
    json!({ "slug": slug, "organization": { "login": organization } })
}

#[tokio::test]
async fn a_list_of_github_that_is_cut_short_satisfies_no_allow_and_every_deny() {
    let (app, says) = start_with(
        "trust_email = true",
        "baseline = [\"read\"]\n\
         [[resource.rule]]\ngroups = [\"acme/writers\"]\nallow = [\"write\"]\n\
         [[resource.rule]]\ngroups = [\"acme/contractors\"]\ndeny = [\"write\"]\n\
         [[resource.rule]]\nemail_domains = [\"contractors.example\"]\ndeny = [\"write\"]\n\
         [[resource.rule]]\nclaim = { organizations = [\"rivals\"] }\ndeny = [\"write\"]",
    )
    .await;
    let writers = |more: Vec<Value>| {
        let mut teams = vec![team("acme", "writers")];
        teams.extend(more);
        Value::Array(teams)
    };
    let others = |number: usize| (0..number).map(|n| team("others", &format!("t{n}"))).collect();
    let contractors = || {
        let mut teams: Vec<Value> = others(1000);
        teams.push(team("acme", "contractors"));
        writers(teams)
    };
    let us = json!([{ "login": "acme" }]);
    let many = |number: usize| {
        let mut all = vec![json!({ "login": "acme" })];
        all.extend((0..number).map(|n| json!({ "login": format!("o{n}") })));
        Value::Array(all)
    };
    let address = |address: &str| json!([{ "email": address, "primary": true, "verified": true }]);
    let hidden = crowd(
        1000,
        |n| json!({ "email": format!("a{n}@x.example"), "primary": false, "verified": true }),
        json!({ "email": "bob@contractors.example", "primary": true, "verified": true }),
    );
    for (what, organizations, teams, emails, links, scope) in [
        ("few teams", us.clone(), writers(others(5)), address("b@acme.com"), false, "read write"),
        ("999 teams", us.clone(), writers(others(998)), address("b@acme.com"), false, "read write"),
        (
            "exactly 1,000",
            us.clone(),
            writers(others(999)),
            address("b@acme.com"),
            true,
            "read write",
        ),
        (
            "short pages",
            us.clone(),
            writers(others(300)),
            address("b@acme.com"),
            true,
            "read write",
        ),
        ("a deny beyond the end", us.clone(), contractors(), address("b@acme.com"), false, "read"),
        ("short pages, cut", us.clone(), contractors(), address("b@acme.com"), true, "read"),
        (
            "organisations, cut",
            many(1500),
            writers(others(5)),
            address("b@acme.com"),
            false,
            "read",
        ),
        ("addresses, cut", us.clone(), writers(others(5)), hidden, false, "read"),
        (
            "a team that cannot be read",
            us.clone(),
            writers(vec![json!({ "id": 7 })]),
            address("b@acme.com"),
            false,
            "read",
        ),
        ("no address", us.clone(), writers(others(5)), json!([]), false, "read write"),
    ] {
        {
            let mut says = says.lock().unwrap();
            (says.organizations, says.teams, says.emails) = (organizations, teams, emails);
            says.links = links;
        }
        let client = app.client().await;
        let tokens = sign_in(&client).await;
        assert_eq!(tokens.scope, scope, "{what}");
        app.advance(16 * 60);
        let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        assert_eq!((tokens.scope.as_str(), tokens.expires_in), (scope, 600), "{what}");
    }
}

/// Whether somebody is a member, nobody knows when the list is cut before our organisation: nobody new is
/// let in, and nobody who is in is thrown out.
#[tokio::test]
async fn membership_beyond_the_end_of_a_list_is_not_known() {
    let (app, says) = start().await;
    let client = app.client().await;
    let tokens = sign_in(&client).await;
    let others = |n| json!({ "login": format!("o{n}") });
    says.lock().unwrap().organizations = crowd(1200, others, json!({ "login": "acme" }));
    arrive(&app.client().await)
        .await
        .assert_leads_to(&format!("{REDIRECT_URI}?error=access_denied"));
    app.advance(16 * 60);
    let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert_eq!(tokens.expires_in, 300, "bridged");
    says.lock().unwrap().organizations = crowd(300, others, json!({ "login": "acme" }));
    app.advance(2 * 60);
    let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert_eq!(tokens.expires_in, 600);
}
