//! Sign-ins as a way to make us ask the identity provider: each is good for one question, a flood of them holds at
//! its numbers, and delays nobody who is in.

use futures_util::future::join_all;

use crate::harness::browser::{Browser, Form};
use crate::harness::client::{McpClient, Tokens};
use crate::harness::console::Console;
use crate::harness::http::Answer;
use crate::harness::{Setup, TestApp};
use crate::laws::races::rounds;

fn without_rates(more: &str) -> Setup {
    Setup::toml(format!("[limits]\nrequest_rates = false\n{more}"))
}

/// Comes back with cookies that never change, whatever is answered.
async fn come_back(app: &TestApp, url: &str, cookies: &str) -> Answer {
    let headers = [("accept", "text/html"), ("cookie", cookies)];
    app.http.send("GET", url, &headers, "").await
}

fn both_pages(app: &TestApp) -> [Console; 2] {
    [Console::account(app), Console::admin(app)]
}

#[tokio::test]
async fn a_sign_in_to_the_pages_asks_the_provider_once_however_often_it_comes_back() {
    let app = TestApp::with(without_rates("")).await;
    for pages in both_pages(&app) {
        let url = pages.nearly_signed_in(&app, "alice").await;
        let cookies = pages.browser.cookie_header("127.0.0.1");
        let before = app.idp.requests_to("/token");

        come_back(&app, &url, &cookies).await.assert_leads_to(&pages.origin);
        for n in 0..150 {
            // With the code, with another one, and with an error.
            let code = url::Url::parse(&url).unwrap();
            let code = code.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
            let changed = match n % 3 {
                0 => url.clone(),
                1 => url.replace(&code, &format!("made-up-{n}")),
                _ => url.replace(&format!("code={code}"), "error=access_denied"),
            };
            let page = come_back(&app, &changed, &cookies).await;
            page.assert_page(403);
            assert!(page.text().contains("already finished"), "{}", page.text());
        }

        assert_eq!(app.idp.requests_to("/token"), before + 1);
        let sessions = "SELECT COUNT(*) FROM web_sessions";
        assert!(app.database.number(sessions).await <= 2);
    }
}

#[tokio::test]
async fn a_sign_in_to_the_pages_counts_once_of_a_hundred() {
    for _ in rounds() {
        let app = TestApp::with(without_rates("")).await;
        for pages in both_pages(&app) {
            let url = pages.nearly_signed_in(&app, "alice").await;
            let cookies = pages.browser.cookie_header("127.0.0.1");
            let before = app.idp.requests_to("/token");

            let all = join_all((0..100).map(|_| come_back(&app, &url, &cookies))).await;

            assert_eq!(all.iter().filter(|answer| answer.status == 303).count(), 1);
            assert_eq!(all.iter().filter(|answer| answer.status == 403).count(), 99);
            assert_eq!(app.idp.requests_to("/token"), before + 1);
        }
        assert_eq!(app.database.number("SELECT COUNT(*) FROM web_sessions").await, 2);
    }
}

/// It stays used when the clock leaps and clean-up has forgotten it, and after a restart.
#[tokio::test]
async fn a_sign_in_to_the_pages_counts_once_whatever_happens_in_between() {
    let mut app = TestApp::with(without_rates("")).await;
    let pages = Console::account(&app);
    let url = pages.nearly_signed_in(&app, "alice").await;
    let cookies = pages.browser.cookie_header("127.0.0.1");
    come_back(&app, &url, &cookies).await.assert_status(303);
    let day = std::time::Duration::from_hours(24);
    let keep = portcullis::storage::Retention {
        unused_client: day,
        idle_client: 90 * day,
        audit: 400 * day,
        refused_person: 400 * day,
        refresh_idle: std::time::Duration::from_hours(1),
        rows: 500,
    };
    app.advance(24 * 60 * 60);
    while app.storage().sweep(app.now(), keep).await.unwrap() > 0 {}
    assert_eq!(app.database.number("SELECT COUNT(*) FROM replay_guard").await, 0);
    app.advance(-24 * 60 * 60);
    app.restart().await;
    let before = app.idp.requests_to("/token");
    come_back(&app, &url, &cookies).await.assert_page(403);
    assert_eq!(app.idp.requests_to("/token"), before);
}

/// A sign-in of nobody: begun here, and brought back with a code that the provider never issued.
async fn made_up(app: &TestApp) -> (String, String) {
    let browser = Browser::default();
    let home = app.at("/account");
    let page = browser.get(&home).await;
    let form = Form::of(&page, &home);
    let leave = browser.post(&form.action, &form.with(&[]), &app.url).await;
    let state = leave.location_param("state").unwrap();
    let query = [("state", state.as_str()), ("code", "made-up"), ("iss", app.idp.issuer())];
    let url = format!("{}?{}", app.at("/account/signed-in"), crate::harness::http::encode(&query));
    (url, browser.cookie_header("127.0.0.1"))
}

#[tokio::test]
async fn a_flood_of_sign_ins_delays_no_re_check_and_bridges_nobody() {
    let app = TestApp::with(without_rates("upstream_sign_ins = 4")).await;
    let (client, tokens) = app.tokens_of("bob").await;
    let (cut_off, theirs) = app.tokens_of("alice").await;
    let mut flood = Vec::new();
    for _ in 0..40 {
        flood.push(made_up(&app).await);
    }
    app.advance(60);
    let before = app.idp.requests_to("/token");
    let gate = app.idp.token_gate();
    gate.close();
    let flooding = join_all(flood.iter().map(|(url, cookies)| come_back(&app, url, cookies)));
    let people = async {
        gate.until_waiting(4).await; // every place of sign-ins is taken, and none is given back
        app.idp.disable("alice");
        app.advance(16 * 60);
        // Both questions reach the provider all the same.
        let asked = async {
            gate.until_waiting(6).await;
            assert_eq!(app.idp.requests_to("/token"), before + 6, "sign-ins hold at their number");
            gate.open();
        };
        let refreshes = async {
            tokio::join!(
                client.refresh(&tokens.refresh_token),
                cut_off.refresh(&theirs.refresh_token)
            )
        };
        tokio::join!(refreshes, asked).0
    };
    let (flooded, (refreshed, refused)) = tokio::join!(flooding, people);

    assert_eq!(Tokens::of(&refreshed).expires_in, 600, "bob was asked about");
    refused.assert_error(400, "invalid_grant");
    assert!(flooded.iter().all(|answer| answer.status == 403), "none was good");
    assert!(app.metrics().await["portcullis_upstream_paused"] < 0.5);
}

/// A sign-in that gets no place has used nothing up: it is finished with the same address later.
#[tokio::test]
async fn a_sign_in_that_gets_no_turn_is_good_afterwards() {
    let app =
        TestApp::with(without_rates("upstream_sign_ins = 1").and("[upstream]\ntimeout = \"1s\""))
            .await;
    let client = app.client().await;
    let idp_url = client.approve(&[]).await;
    let callback = client.log_in(&idp_url, "bob").await;
    let pages = Console::account(&app);
    let url = pages.nearly_signed_in(&app, "bob").await;
    let (takes_the_place, cookies) = made_up(&app).await;
    let gate = app.idp.token_gate();
    gate.close();
    let waiting = come_back(&app, &takes_the_place, &cookies);
    let others = async {
        gate.until_waiting(1).await;
        tokio::join!(client.browser.get(&callback), pages.browser.get(&url))
    };
    let (_, (login, sign_in)) = tokio::join!(waiting, others);
    // One of them may have had the place when the first gave it back, and met the silence itself.
    gate.open();
    let told = |page: &Answer| page.text().contains("cannot do this at the moment");
    for answer in [&login, &sign_in] {
        answer.assert_page(503);
        assert!(!told(answer) || answer.header("retry-after").is_some());
    }
    assert!(told(&login) || told(&sign_in), "{}", login.text());
    if told(&login) {
        client.browser.get(&callback).await.assert_leads_to(&client.redirect_uri);
    }
    if told(&sign_in) {
        pages.browser.get(&url).await.assert_leads_to(&pages.origin);
    }
}

fn behind_a_proxy(limits: &str) -> Setup {
    Setup::toml("trusted_proxies = [\"127.0.0.1\"]").and(format!("[limits]\n{limits}"))
}

#[tokio::test]
async fn sign_ins_and_the_pages_hold_at_their_number_per_address() {
    let app = TestApp::with(behind_a_proxy("sign_ins_per_minute = 6\npages_per_minute = 3")).await;
    let ask = async |method: &str, origin: &str, path: &str, from: &str| {
        let headers = [
            ("accept", "text/html"),
            ("x-forwarded-for", from),
            ("origin", origin),
            ("sec-fetch-site", "same-origin"),
            ("content-type", "application/x-www-form-urlencoded"),
        ];
        app.http.send(method, &format!("{origin}{path}"), &headers, "").await
    };
    let (public, admin) = (app.url.clone(), app.admin_url.clone());
    for (n, (most, origin, paths)) in [
        (3, &public, &[("GET", "/waiting?id=x"), ("GET", "/account")][..]),
        (3, &public, &[("POST", "/account/disconnect"), ("POST", "/account/sign-out")]),
        (3, &public, &[("POST", "/account/sign-out-everywhere"), ("GET", "/account?done=x")]),
        (6, &public, &[("POST", "/account/sign-in"), ("GET", "/account/signed-in?state=x")]),
        (6, &admin, &[("POST", "/sign-in")]),
    ]
    .into_iter()
    .enumerate()
    {
        let from = format!("203.0.113.{n}");
        for times in 0..most {
            let (method, path) = paths[times % paths.len()];
            let answer = ask(method, origin, path, &from).await;
            assert_ne!(answer.status, 429, "{path}: the {times}th");
        }
        for (method, path) in paths {
            let page = ask(method, origin, path, &from).await;
            page.assert_page(429);
            let wait: u64 = page.header("retry-after").unwrap().parse().unwrap();
            assert!((1..=20).contains(&wait), "{wait}");
            assert!(
                page.text().contains(&format!("Please wait {wait} seconds")),
                "{}",
                page.text()
            );
        }
        // Nobody else is touched, nor is anything else of this address.
        let (method, path) = paths[0];
        assert_ne!(ask(method, origin, path, "198.51.100.7").await.status, 429);
        app.http.get(&app.at("/health")).await.assert_status(200);
        app.advance(20);
        assert_ne!(ask(method, origin, path, &from).await.status, 429, "{path}");
        app.advance(60);
    }
    let ja =
        [("accept", "text/html"), ("accept-language", "ja"), ("x-forwarded-for", "203.0.113.9")];
    let mut page = None;
    for _ in 0..4 {
        page = Some(app.http.send("GET", &app.at("/account"), &ja, "").await);
    }
    assert!(page.unwrap().text().contains("20秒お待ちください"));
}

/// Who waits for an administrator looks every five seconds, and colleagues share an address.
#[tokio::test]
async fn a_dozen_people_who_wait_behind_one_address_are_not_held_back() {
    let app = TestApp::with(behind_a_proxy("")).await;
    for _ in 0..5 {
        for _ in 0..20 {
            let headers = [("accept", "text/html"), ("x-forwarded-for", "203.0.113.7")];
            let answer = app.http.send("GET", &app.at("/waiting?id=x"), &headers, "").await;
            answer.assert_page(410);
        }
        app.advance(5);
    }
}

/// The same login finished by one client, while others of the same person are refreshed.
#[tokio::test]
async fn somebody_whose_question_waits_for_another_is_answered_with_it() {
    let app = TestApp::with(without_rates("upstream_requests = 1")).await;
    let client = app.client().await;
    let (one, two) = (client.sign_in("bob").await, client.sign_in("bob").await);
    app.advance(16 * 60);
    let gate = app.idp.token_gate();
    gate.close();
    let clients: [&McpClient; 2] = [&client, &client];
    let (answers, ()) = tokio::join!(
        async {
            tokio::join!(
                clients[0].refresh(&one.refresh_token),
                clients[1].refresh(&two.refresh_token)
            )
        },
        async {
            gate.until_waiting(1).await;
            gate.open();
        }
    );
    for answer in [answers.0, answers.1] {
        assert_eq!(Tokens::of(&answer).expires_in, 600);
    }
}
