//! What the overview warns of: each warning comes with its cause, and goes with it.

use portcullis::app::Reloaded;
use tokio_rustls::TlsConnector;

use crate::harness::browser::Form;
use crate::harness::client::Tokens;
use crate::harness::console::Console;
use crate::harness::recorder::Recorder;
use crate::harness::tls::{CertificateAuthority, Folder, HOST, Kept, connect, with_files};
use crate::harness::{START, Setup, TestApp};
use crate::notifications::webhook_at;

const CALM: &str = "Nothing needs attention.";
const DAY: i64 = 24 * 3600;

/// Signs alice in, where the public listener speaks TLS with this client.
async fn admin_over_tls(app: &TestApp, client: &TlsConnector) -> Console {
    let alice = Console::admin(app);
    let home = alice.at("/");
    let form = Form::of(&alice.browser.get(&home).await, &home);
    let answer = alice.browser.post(&form.action, &form.with(&[]), &alice.origin).await;
    let at_provider = answer.location();
    let form = Form::of(&alice.browser.get(at_provider).await, at_provider);
    let fields = form.with(&[("username", "alice"), ("password", "alice")]);
    let back = alice.browser.post(&form.action, &fields, at_provider).await;
    let back = back.location().strip_prefix(&format!("https://{HOST}")).unwrap();
    let stream = connect(app, client).await;
    let (_, headers, _) = Kept::over(stream).await.get(back).await;
    let passed_on = headers["location"].to_str().unwrap();
    alice.browser.get(passed_on).await.assert_leads_to(&home);
    alice
}

/// What the notifications say of the certificate.
async fn told_of_certificate(app: &TestApp, hook: &Recorder) -> Vec<String> {
    app.notify_round().await; // queues
    app.notify_round().await; // and sends what is left
    let reasons = hook.received().into_iter().map(|request| {
        let message = request.json();
        assert_eq!(message["type"], "ends_soon");
        message["data"]["about"][0]["reason"].as_str().unwrap().to_owned()
    });
    reasons.filter(|reason| reason.contains("certificate")).collect()
}

#[tokio::test]
async fn a_certificate_that_is_not_renewed_in_time_is_warned_of_and_reported() {
    const WARNING: &str = "The certificate of this server was not renewed in time";
    let (folder, authority) = (Folder::new(), CertificateAuthority::new());
    let hook = Recorder::start().await;
    // 90 days, of which 39 are left at the start.
    authority.issue_between(&[HOST], (2026, 10, 1), (2026, 12, 30)).write(folder.path());
    // For this client it is the first day on all of them, so that it gets in after the end, too.
    let client = authority.client_at(&["http/1.1"], START.unsigned_abs());
    let setup = with_files(folder.path()).and(webhook_at(&hook.url("/hook")));
    let app = TestApp::with(setup).await;

    let expires = |when: &str| format!("the certificate of the listeners {when}: see [tls]");
    let mut expected = Vec::new();
    let mut days = 0;
    for (day, reported) in [
        (0, None),
        (23, None), // 16 days are left: a renewal may still come
        (25, Some("expires in 14 days")),
        (26, None),
        (33, Some("expires in 6 days")),
        (38, None),
        (39, Some("has expired")),
        (50, None),
    ] {
        app.advance((day - days) * DAY);
        days = day;
        expected.extend(reported.map(expires));
        assert_eq!(told_of_certificate(&app, &hook).await, expected, "day {day}");
        // A session does not last from one of these days to the next.
        let alice = admin_over_tls(&app, &client).await;
        let page = alice.page("/").await;
        assert_eq!(page.contains(WARNING), day > 24, "day {day}");
        assert_eq!(page.contains(CALM), day < 24, "day {day}");
    }

    authority.issue_between(&[HOST], (2027, 1, 9), (2027, 4, 9)).write(folder.path());
    assert!(matches!(app.reload().await, Reloaded::Applied { .. }));
    let client = authority.client_at(&["http/1.1"], app.now().unix().unsigned_abs());
    let alice = admin_over_tls(&app, &client).await;
    assert!(alice.page("/").await.contains(CALM));
    assert_eq!(told_of_certificate(&app, &hook).await, expected);

    // The next certificate has stages of its own.
    app.advance(80 * DAY);
    expected.push(expires("expires in 9 days"));
    assert_eq!(told_of_certificate(&app, &hook).await, expected);
}

#[tokio::test]
async fn a_certificate_that_no_acme_server_has_issued_is_warned_of() {
    let (folder, authority) = (Folder::new(), CertificateAuthority::new());
    authority.issue().write(folder.path());
    let mut app = TestApp::with(with_files(folder.path())).await;
    let alice = admin_over_tls(&app, &authority.client(&["http/1.1"])).await;
    assert!(alice.page("/").await.contains(CALM));

    let text = app.config_text();
    let files = text.split("[tls]\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let nobody =
        "domains = [\"mcp.example\"]\nterms = true\ndirectory = \"http://127.0.0.1:9/dir\"";
    app.change_config(&format!("[tls]\n{files}"), &format!("[tls.acme]\n{nobody}"));
    assert!(matches!(app.reload().await, Reloaded::Applied { .. }));

    let page = alice.page("/").await;
    assert!(page.contains("The ACME server has issued no certificate yet"), "{page}");
    assert!(!page.contains(CALM));
}

#[tokio::test]
async fn a_provider_that_does_not_answer_is_warned_of() {
    const WARNING: &str = "The identity provider does not answer: nobody new can sign in.";
    let app = TestApp::start().await;
    let (client, tokens) = app.tokens_of("bob").await;
    app.advance(16 * 60); // bob's session is due to be checked
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    assert!(alice.page("/").await.contains(CALM));
    app.idp.misbehave(|how| how.token_answer = Some((500, "down".to_owned())));
    let tokens = Tokens::of(&client.refresh(&tokens.refresh_token).await);

    let page = alice.page("/").await;
    assert!(page.contains(WARNING) && page.contains("Paused after repeated failures"), "{page}");
    assert!(!page.contains(CALM));

    app.idp.misbehave(|how| how.token_answer = None);
    app.advance(60);
    client.refresh(&tokens.refresh_token).await.assert_status(200);
    let page = alice.page("/").await;
    assert!(!page.contains(WARNING) && page.contains("Reachable"), "{page}");
}

#[tokio::test]
async fn a_provider_without_refresh_tokens_is_warned_of() {
    const WARNING: &str = "The identity provider gives no refresh tokens";
    let app = TestApp::start().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    app.idp.misbehave(|how| how.no_refresh_token = true);
    let client = app.client().await;
    client.sign_in("bob").await;
    let page = alice.page("/").await;
    assert!(page.contains(WARNING) && !page.contains(CALM), "{page}");

    app.idp.misbehave(|how| how.no_refresh_token = false);
    client.sign_in("bob").await;
    assert!(alice.page("/").await.contains(CALM));
}

#[tokio::test]
async fn a_signing_key_older_than_a_year_is_warned_of_until_another_one_signs() {
    const WARNING: &str = "A signing key is older than a year.";
    let app = TestApp::start().await;
    app.advance(365 * DAY);
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    assert!(alice.page("/").await.contains(CALM));
    app.advance(1);
    let page = alice.page("/").await;
    assert!(page.contains(WARNING) && !page.contains(CALM), "{page}");

    alice.press("/keys", "action", "rotate").await.assert_leads_to(&alice.at("/keys"));
    assert!(alice.page("/").await.contains(WARNING), "the next one does not sign yet");
    app.advance(600);
    assert!(alice.page("/").await.contains(CALM));
}

#[tokio::test]
async fn each_stage_of_a_database_that_fills_up_is_warned_of() {
    const PAGES: i64 = 2_097_152 / 4096;
    let app = TestApp::with(Setup::toml("[limits]\ndatabase_size = 2097152")).await;
    if app.database.is_postgres() {
        return; // the size is up to the administrator of PostgreSQL
    }
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    assert!(alice.page("/").await.contains(CALM));
    app.database.execute("CREATE TABLE filler (content BLOB)").await;
    let used = async || {
        let all = app.database.number("SELECT page_count FROM pragma_page_count()").await;
        all - app.database.number("SELECT freelist_count FROM pragma_freelist_count()").await
    };

    for (percent, warning) in [
        (86, "The database is filling up: no new clients are accepted."),
        (92, "The database is nearly full: no new sign-ins and no new clients are accepted."),
        (98, "The database is full: nothing can be written."),
    ] {
        while used().await * 100 < PAGES * percent {
            app.database.execute("INSERT INTO filler VALUES (zeroblob(3000))").await;
        }
        app.advance(5); // what is known of the database is some seconds old
        let page = alice.page("/").await;
        assert!(page.contains(warning) && !page.contains(CALM), "{percent} %: {page}");
    }

    app.database.execute("DELETE FROM filler").await;
    app.advance(5);
    assert!(alice.page("/").await.contains(CALM));
}

#[tokio::test]
async fn clients_that_wait_for_approval_are_warned_of() {
    for (names, warning) in [
        (&["One"][..], "1 client waits for your approval."),
        (&["One", "Two"], "2 clients wait for your approval."),
    ] {
        // Numbers that took long to count are remembered: each installation is asked once.
        let app = TestApp::with(Setup::toml("client_approval = \"first_use\"")).await;
        let alice = Console::admin(&app).signed_in(&app, "alice").await;
        for name in names {
            let client = app.client_named(name).await;
            client.authorize("bob", &[]).await.assert_leads_to(&app.at("/waiting?id="));
        }
        let page = alice.page("/").await;
        assert!(page.contains(warning) && !page.contains(CALM), "{page}");
    }
}

#[tokio::test]
async fn what_waits_for_a_restart_is_warned_of_until_the_file_says_the_same_again() {
    let mut app = TestApp::start().await;
    let alice = Console::admin(&app).signed_in(&app, "alice").await;
    app.change_config("[upstream]", "[limits]\nconnections = 77\n[upstream]");
    assert!(matches!(app.reload().await, Reloaded::Applied { .. }));
    let page = alice.page("/").await;
    let warning = "where only a restart can take it over: limits.connections";
    assert!(page.contains(warning) && !page.contains(CALM), "{page}");

    app.change_config("[limits]\nconnections = 77\n[upstream]", "[upstream]");
    app.reload().await;
    assert!(alice.page("/").await.contains(CALM));
}
