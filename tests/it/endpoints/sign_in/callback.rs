//! `GET /auth/callback`: the right browser (BR-01 to BR-05), the right ID token (UP-01), and what an
//! identity provider may answer.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use futures_util::future::join_all;
use portcullis::config::PublicUrl;
use portcullis::oauth::secret::{BrowserBinding, Secret};
use portcullis::web::cookies::{
    CONSENT, ConsentMark, CookieLimits, Cookies, LOGIN, PERSON, REMEMBERED, SESSION, SIGN_IN,
    Sealed, WAITING,
};
use serde_json::json;

use crate::harness::TestApp;
use crate::harness::browser::Form;
use crate::harness::client::{REDIRECT_URI, Tokens};
use crate::harness::console::Console;
use crate::laws::races::rounds;

/// A browser that did not press Approve cannot finish, and the login is burnt.
#[tokio::test]
async fn br_01_another_browser_cannot_finish_a_login() {
    let app = TestApp::start().await;
    let attacker = app.client().await;
    let idp_url = attacker.approve(&[]).await;
    let victim = attacker.elsewhere();
    let callback = victim.log_in(&idp_url, "alice").await;
    let before = app.idp.requests_to("/token");
    let page = victim.browser.go(&callback).await;
    page.assert_page(403);
    assert!(page.text().contains("not started in this browser"));
    assert_eq!(app.idp.requests_to("/token"), before, "the provider never hears of the code");
    assert_eq!(app.database.number("SELECT COUNT(*) FROM authorization_codes").await, 0);

    // The code is spent: the attacker's own browser cannot go on with the address that the victim was shown.
    for _ in 0..2 {
        attacker.browser.go(&callback).await.assert_page(403);
    }
    assert_eq!(app.idp.requests_to("/token"), before);
}

#[tokio::test]
async fn br_01_a_cookie_of_another_login_is_not_enough() {
    let app = TestApp::start().await;
    let attacker = app.client().await;
    let idp_url = attacker.approve(&[]).await;
    let victim = attacker.elsewhere();
    victim.approve(&[]).await; // has a login, and a cookie, of its own
    let callback = victim.log_in(&idp_url, "alice").await;
    victim.browser.go(&callback).await.assert_page(403);
    // Somebody who was led from a login of their own into another one: that one is burnt.
    let again = attacker.log_in(&idp_url, "bob").await;
    attacker.browser.go(&again).await.assert_page(403);
}

/// The same at our own pages, whose sign-ins travel in a cookie: an administrator who is led into somebody's
/// sign-in, and gives away the address that the browser shows, gives nothing away.
#[tokio::test]
async fn br_01_a_sign_in_to_the_pages_is_not_finished_with_what_another_browser_brought() {
    let app = TestApp::start().await;
    for attacker in [Console::admin(&app), Console::account(&app)] {
        let home = attacker.at(if attacker.origin == app.url { "/account" } else { "/" });
        let page = attacker.browser.get(&home).await;
        let form = Form::of(&page, &home);
        let leave = attacker.browser.post(&form.action, &form.with(&[]), &attacker.origin).await;
        let victim = app.client().await;
        let callback = victim.log_in(leave.location(), "alice").await;
        let passed_on = victim.browser.go(&callback).await;
        let shown = passed_on.location();
        victim.browser.go(shown).await.assert_page(403);
        let before = app.idp.requests_to("/token");

        attacker.browser.go(shown).await.assert_page(403);

        assert_eq!(app.idp.requests_to("/token"), before);
        attacker.browser.get(&home).await.assert_page(401);
    }
}

#[tokio::test]
async fn br_02_an_error_from_another_browser_does_not_burn_the_login() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let idp_url = client.approve(&[]).await;
    let callback = client.log_in(&idp_url, "bob").await;
    let planted = callback.replace("code=", "error=access_denied&x=");
    client.elsewhere().browser.get(&planted).await.assert_page(403);
    client.browser.get(&callback).await.assert_leads_to(REDIRECT_URI);
}

#[tokio::test]
async fn br_04_one_callback_wins_of_a_hundred() {
    for _ in rounds() {
        let app = TestApp::start().await;
        let client = app.client().await;
        let idp_url = client.approve(&[]).await;
        let callback = client.log_in(&idp_url, "bob").await;
        let answers = join_all((0..100).map(|_| client.browser.get(&callback))).await;
        let led_on = answers.iter().filter(|answer| answer.status == 303).count();
        assert_eq!(led_on, 1);
        assert!(answers.iter().all(|answer| answer.status == 303 || answer.status == 403));
        assert_eq!(app.database.number("SELECT COUNT(*) FROM authorization_codes").await, 1);
    }
}

#[tokio::test]
async fn a_login_must_end_within_its_time() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let idp_url = client.approve(&[]).await;
    app.advance(15 * 60);
    let callback = client.log_in(&idp_url, "bob").await;
    let page = client.browser.get(&callback).await;
    page.assert_page(403);
    assert!(page.text().contains("took too long"));
}

#[tokio::test]
async fn a_callback_that_makes_no_sense_gets_a_page() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let idp_url = client.approve(&[]).await;
    let callback = client.log_in(&idp_url, "bob").await;
    let url = app.at("/auth/callback");
    for query in ["", "?code=x", "?state=x&code=y", "?state=login_0_x"] {
        client.browser.get(&format!("{url}{query}")).await.assert_page(403);
    }
    for doubled in ["&state=x", "&code=x", "&iss=x"] {
        client.browser.get(&format!("{callback}{doubled}")).await.assert_page(400);
    }
    client.browser.get(&format!("{url}?state=%ff")).await.assert_page(400);
    client.browser.get(&callback).await.assert_leads_to(REDIRECT_URI);
}

#[tokio::test]
async fn up_07_iss_of_the_callback_must_be_the_providers() {
    let app = TestApp::start().await;
    let client = app.client().await;
    app.idp.misbehave(|how| how.callback_iss = Some("https://other.example".to_owned()));
    let before = app.idp.requests_to("/token");
    client.authorize("bob", &[]).await.assert_page(403);
    app.idp.misbehave(|how| how.callback_iss = None);
    let idp_url = client.approve(&[]).await;
    let callback = client.log_in(&idp_url, "bob").await;
    let without = callback.split("&iss=").next().unwrap();
    client.browser.get(without).await.assert_page(403);
    assert_eq!(app.idp.requests_to("/token"), before, "mix-up: the code goes nowhere");
}

type Change = Box<dyn Fn(&mut portcullis::demo::Misbehaviour)>;

/// Every way an ID token can be wrong.
#[tokio::test]
async fn up_01_a_forged_or_foreign_id_token_signs_nobody_in() {
    let app = TestApp::start().await;
    let ours = "portcullis";
    let extra = |name: &'static str, value: serde_json::Value| -> Change {
        Box::new(move |how| {
            how.extra_claims.insert(name.to_owned(), value.clone());
        })
    };
    let cases: Vec<(&str, Change)> = vec![
        ("nonce", Box::new(|how| how.wrong_nonce = true)),
        ("no nonce", Box::new(|how| how.no_nonce = true)),
        ("issuer", Box::new(|how| how.id_token_issuer = Some("https://other.example".into()))),
        ("audience", Box::new(|how| how.id_token_audience = Some(json!("another-client")))),
        (
            "audiences without azp",
            Box::new(move |how| how.id_token_audience = Some(json!(["another-client", "third"]))),
        ),
        ("expired", Box::new(|how| how.expired_id_token = true)),
        ("alg none", Box::new(|how| how.algorithm = Some("none".into()))),
        ("alg HS256", Box::new(|how| how.algorithm = Some("HS256".into()))),
        ("azp", extra("azp", json!("another-client"))),
        ("at_hash", extra("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA"))),
        ("issued in the future", extra("iat", json!(4_000_000_000_i64))),
        ("issued long ago", extra("iat", json!(1_000_000_000))),
        ("empty subject", extra("sub", json!(""))),
        ("long subject", extra("sub", json!("x".repeat(300)))),
        ("audience type", extra("aud", json!({ "a": ours }))),
    ];
    let client = app.client().await;
    for (what, change) in cases {
        app.idp.misbehave(|how| change(how));
        let page = client.authorize("bob", &[]).await;
        assert!(
            page.status == 403 || page.status == 502 || page.status == 503,
            "{what}: {}",
            page.status
        );
        assert_eq!(page.header("location"), None, "{what}");
        app.idp.misbehave(|how| *how = portcullis::demo::Misbehaviour::default());
    }
    assert_eq!(app.database.number("SELECT COUNT(*) FROM authorization_codes").await, 0);
    client.authorize("bob", &[]).await.assert_leads_to(REDIRECT_URI);
}

#[tokio::test]
async fn an_error_of_the_provider_reaches_the_person_or_the_client() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for (error, status) in [
        ("temporarily_unavailable", 503),
        ("server_error", 503),
        ("invalid_scope", 502),
        ("unauthorized_client", 502),
    ] {
        app.idp.misbehave(|how| how.authorize_error = Some(error.to_owned()));
        let idp_url = client.approve(&[]).await;
        let callback = client.browser.get(&idp_url).await.location().to_owned();
        let page = client.browser.get(&callback).await;
        page.assert_page(status);
        assert!(
            page.text().contains(&format!("href=\"{REDIRECT_URI}?error=")),
            "{error}: the client can learn it too"
        );
        assert!(page.text().contains("Reference"), "{error}");
        assert!(!page.text().contains("http-equiv"), "{error}: somebody copies the reference");
    }
    for error in ["access_denied", "unauthorized", "something_new"] {
        app.idp.misbehave(|how| how.authorize_error = Some(error.to_owned()));
        let idp_url = client.approve(&[]).await;
        let callback = client.browser.get(&idp_url).await.location().to_owned();
        let answer = client.browser.get(&callback).await;
        answer.assert_leads_to(&format!("{REDIRECT_URI}?error=access_denied"));
        assert_eq!(answer.location_param("iss").as_deref(), Some(app.url.as_str()));
    }
}

#[tokio::test]
async fn trouble_at_the_providers_token_endpoint_is_told_apart() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let wrong_secret = r#"{"error":"invalid_client"}"#.to_owned();
    for (answer, status) in [
        ((500, "oops".to_owned()), 503),
        ((503, String::new()), 503),
        ((429, String::new()), 503),
        ((401, wrong_secret), 502),
        ((400, r#"{"error":"invalid_grant"}"#.to_owned()), 403),
        ((200, "not json".to_owned()), 503),
        ((302, String::new()), 503),
    ] {
        app.idp.misbehave(|how| how.token_answer = Some(answer.clone()));
        client.authorize("bob", &[]).await.assert_page(status);
    }
}

#[tokio::test]
async fn the_request_to_the_provider_is_bound_with_pkce_state_and_nonce() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let (one, two) = (client.approve(&[]).await, client.approve(&[]).await);
    let param = |url: &str, name: &str| {
        let url = url::Url::parse(url).unwrap();
        url.query_pairs().find(|(n, _)| n == name).map(|(_, v)| v.into_owned()).unwrap()
    };
    for name in ["state", "nonce", "code_challenge"] {
        assert_ne!(param(&one, name), param(&two, name), "{name} is fresh each time");
        assert!(param(&one, name).len() >= 43);
    }
    assert_eq!(param(&one, "code_challenge_method"), "S256");
    assert_eq!(param(&one, "redirect_uri"), app.at("/auth/callback"));
    assert_ne!(param(&one, "state"), "client-state");
    assert!(param(&one, "scope").contains("offline_access"));
    client.log_in(&one, "bob").await;
}

#[tokio::test]
async fn scopes_follow_the_rules_and_the_answer_says_so() {
    let app = TestApp::start().await;
    let client = app.client().await;
    for (person, asked, granted) in [
        ("alice", "", "create:todos delete:todos read:todos"),
        ("alice", "read:todos", "read:todos"),
        ("bob", "", "create:todos"),
        ("bob", "create:todos delete:todos", "create:todos"),
    ] {
        let answer = client.elsewhere();
        let back = answer.authorize(person, &[("scope", asked)]).await;
        let code = back.location_param("code").unwrap();
        let tokens = crate::harness::client::Tokens::of(&client.redeem(&code).await);
        assert_eq!(tokens.scope, granted, "{person} asking for {asked:?}");
    }
    // Nothing of what was asked: no access, whatever else the person may do.
    let page = client.elsewhere().authorize("bob", &[("scope", "delete:todos")]).await;
    page.assert_page(403);
}

/// The cookies that a browser with this `Cookie` header sends to us on https.
fn cookies_on_https(jar: &str) -> Cookies {
    let url = PublicUrl::parse("https://mcp.example.com").unwrap();
    let mut headers = HeaderMap::new();
    headers.insert(COOKIE, jar.parse().unwrap());
    let limits = CookieLimits { login: Duration::from_mins(10), logins: 10 };
    Cookies::read(headers.get_all(COOKIE), &url, limits)
}

/// Another host of the domain can set any cookie without the prefix for ours: none is read.
#[test]
fn br_03_on_https_only_cookies_with_the_host_prefix_are_read() {
    let id = "0123456789abcdef0123456789abcdef";
    let mark = ConsentMark { mark: "m".repeat(43), client: Some("tag".to_owned()) };
    let set = CONSENT.set(&cookies_on_https(""), id, &mark);
    let (ours, _) = set.headers()[0].to_str().unwrap().split_once(';').unwrap();
    assert!(ours.starts_with("__Host-portcullis-"), "{ours}");
    let read = |jar: &str| CONSENT.get(&cookies_on_https(jar), id);
    assert_eq!(read(ours), Some(mark.clone()));
    for prefix in ["", "__Secure-", "__host-", "__HOST-", "_Host-", "__Host_"] {
        let theirs = ours.replacen("__Host-", prefix, 1);
        assert_eq!(read(&theirs), None, "{prefix}");
        let other = theirs.replace(&mark.mark, &"x".repeat(43));
        assert_eq!(read(&format!("{other}; {ours}")), Some(mark.clone()), "{prefix}");
    }
    assert_eq!(read(&format!("{ours}; {ours}")), None, "of two with one name neither is believed");
}

/// A name that is ours only once it is decoded may come from any host of the domain: browsers keep the plain
/// prefix `__Host-` from other hosts, but not `%5F_Host-`.
#[test]
fn br_03_on_https_no_encoded_name_counts_as_a_cookie_of_ours() {
    let (id, mark) = ("0123456789abcdef0123456789abcdef", "m".repeat(43));
    for name in [
        "%5F_Host-portcullis-",
        "_%5fHost-portcullis-",
        "__Host%2Dportcullis-",
        "__Host-%70ortcullis-",
    ] {
        for kind in ["login", "consent", "held", "remembered"] {
            let planted = format!("{name}{kind}-{id}={mark}.tag");
            let cookies = cookies_on_https(&planted);
            let counted = [
                ("login", LOGIN.ids(&cookies)),
                ("consent", CONSENT.ids(&cookies)),
                ("held", WAITING.ids(&cookies)),
                ("remembered", REMEMBERED.ids(&cookies)),
            ];
            assert!(counted.iter().all(|(_, ids)| ids.is_empty()), "{planted}: {counted:?}");
        }
    }
}

/// Browsers of before this version still hold cookies with these names, and a page of ours reads no other.
#[test]
fn the_names_and_attributes_of_all_cookies_stay_as_they_are() {
    let url = PublicUrl::parse("https://mcp.example.com/auth").unwrap();
    let tag = url.cookie_tag();
    let limits = CookieLimits { login: Duration::from_mins(10), logins: 2 };
    let read = |jar: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, jar.parse().unwrap());
        Cookies::read(headers.get_all(COOKIE), &url, limits)
    };
    let cookies = read("");
    let id = "0123456789abcdef0123456789abcdef";
    let mark = ConsentMark { mark: "m".repeat(43), client: None };
    let sealed = Sealed("sealed".to_owned());
    let (login, held) = (Secret::generate(id), Secret::generate(id));
    let (remembered, session) = (Secret::generate(id), Secret::generate(id));
    for (set, name, seconds) in [
        (CONSENT.set(&cookies, id, &mark), format!("consent-{id}={}", mark.mark), 4200),
        (LOGIN.set(&cookies, id, &login), format!("login-{id}={}", login.expose()), 4200),
        (WAITING.set(&cookies, id, &held), format!("held-{id}={}", held.expose()), 7200),
        (
            REMEMBERED.set(&cookies, id, &remembered),
            format!("remembered-{id}={}", remembered.expose()),
            2_592_000,
        ),
        (
            SESSION.set(&cookies, "admin", &session),
            format!("pages-admin={}", session.expose()),
            28_800,
        ),
        (SIGN_IN.set(&cookies, "account", &sealed), "signing-in-account=sealed".to_owned(), 4200),
        (PERSON.set(&cookies, "", &sealed), "person=sealed".to_owned(), 2_592_000),
        (LOGIN.clear(&cookies, id), format!("login-{id}="), 0),
    ] {
        let expected = format!(
            "__Host-portcullis-{tag}{name}; HttpOnly; SameSite=Lax; Secure; Path=/; Max-Age={seconds}"
        );
        assert_eq!(set.headers(), [expected.as_str()]);
    }
    // Of three logins, with room for two and a new one to come, the oldest two go.
    let ids: Vec<String> = (1..4).map(|n| format!("{n:032x}")).collect();
    let logins = ids.iter().rev().map(|id| {
        let secret = Secret::<BrowserBinding>::generate(id);
        format!("__Host-portcullis-{tag}login-{id}={}", secret.expose())
    });
    let cookies = read(&logins.collect::<Vec<_>>().join("; "));
    assert_eq!(LOGIN.ids(&cookies), ids);
    let evicted = LOGIN.evict(&cookies, id);
    let evicted: Vec<&str> = evicted.headers().iter().map(|set| set.to_str().unwrap()).collect();
    assert_eq!(evicted.len(), 2);
    for (set, id) in evicted.iter().zip(&ids) {
        assert!(set.contains(&format!("login-{id}=;")) && set.ends_with("Max-Age=0"), "{set}");
    }
}

#[tokio::test]
async fn br_06_of_eleven_logins_in_one_browser_the_oldest_goes_and_ten_finish() {
    let app = TestApp::start().await;
    let client = app.client().await;
    let mut callbacks = Vec::new();
    for _ in 0..11 {
        let idp_url = client.approve(&[]).await;
        callbacks.push(client.log_in(&idp_url, "bob").await);
        app.advance(1);
    }
    for callback in callbacks[1..].iter().rev() {
        client.browser.go(callback).await.assert_leads_to(REDIRECT_URI);
    }
    client.browser.go(&callbacks[0]).await.assert_page(403);
}

#[tokio::test]
async fn cd_08_scopes_in_the_providers_answer_widen_nothing() {
    let app = TestApp::start().await;
    let client = app.client().await;
    app.idp.misbehave(|how| {
        how.change_token_answer = Some(|answer| {
            answer["scope"] = "openid admin read:todos create:todos delete:todos".into();
        });
    });
    let tokens = client.sign_in("bob").await;
    assert_eq!(tokens.scope, "create:todos");
    app.advance(16 * 60);
    let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert_eq!(tokens.scope, "create:todos");
}
