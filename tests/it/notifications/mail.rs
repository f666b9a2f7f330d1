//! Mail, received by a mail server: threats NT-01, NT-04 and NT-06.

use super::{begins_to_wait, waiting};
use crate::harness::console::Console;
use crate::harness::mailbox::{MAIL_HOST, Mailbox, Protection};
use crate::harness::{TestApp, logs};

const PASSWORD: &str = "mail-password-canary-0815";

fn table(mailbox: &Mailbox, security: &str, more: &str) -> String {
    format!(
        "{}\n[[notify]]\nname = \"mail\"\nkind = \"smtp\"\nhost = {MAIL_HOST:?}\nport = {}\nsecurity = {security:?}\n\
         from = \"portcullis@example.com\"\nto = [\"ops@example.com\", \"oncall@example.com\"]\n{more}\n",
        mailbox.tables(),
        mailbox.address.port(),
    )
}

fn login(password: &str) -> String {
    format!("username = \"portcullis\"\npassword = {password:?}")
}

#[tokio::test]
async fn a_mail_comes_over_tls_or_starttls_and_says_what_happened() {
    for (protection, security) in [(Protection::Tls, "tls"), (Protection::StartTls, "starttls")] {
        let mailbox = Mailbox::start(protection, Some(PASSWORD)).await;
        let app = TestApp::with(waiting().and(table(&mailbox, security, &login(PASSWORD)))).await;

        let client = begins_to_wait(&app, "Tëst client").await;

        let mail = mailbox.next().await;
        assert!(mail.encrypted, "{security}");
        assert_eq!(mail.from, "portcullis@example.com");
        assert_eq!(mail.to, ["ops@example.com", "oncall@example.com"]);
        let subject = mail.header("Subject").unwrap();
        assert_eq!(subject, "[Portcullis] A client waits for approval");
        assert_eq!(mail.header("Auto-Submitted").as_deref(), Some("auto-generated"));
        assert!(
            mail.header("Date").unwrap().starts_with("Sat, 21 Nov 2026"),
            "{:?}",
            mail.headers()
        );
        assert!(mail.header("Message-ID").unwrap().ends_with("@portcullis>"));
        let body = mail.body();
        for part in [
            format!("client Tëst client ({})", client.id),
            "(oidc:demo-bob)".to_owned(),
            format!("{}/client?id={}", app.admin_url, client.id),
        ] {
            assert!(body.contains(&part), "{part} is not in {body}");
        }
        app.notify_round().await;
        assert_eq!(super::queued(&app).await, 0);
        let plain = mailbox.plain().join("\n");
        assert!(!plain.contains("AUTH") && !plain.contains("MAIL"), "before TLS: {plain}");
        assert!(!logs::all().contains(PASSWORD));
    }
}

#[tokio::test]
async fn a_mail_server_on_this_machine_needs_no_tls() {
    let mailbox = Mailbox::start(Protection::None, None).await;
    let table = table(&mailbox, "none", "allow_private = true").replace(MAIL_HOST, "127.0.0.1");
    let table = table.split_once("[[notify]]").unwrap().1;
    let app = TestApp::with(waiting().and(format!("[[notify]]{table}"))).await;
    begins_to_wait(&app, "Test client").await;
    assert!(!mailbox.next().await.encrypted);
}

#[tokio::test]
async fn nt_04_a_name_with_line_breaks_becomes_no_header() {
    let mailbox = Mailbox::start(Protection::Tls, None).await;
    let app = TestApp::with(waiting().and(table(&mailbox, "tls", ""))).await;
    app.idp.set_name("bob", "Bob\r\nBcc: victim@example.com\r\n\r\n.\r\nMAIL FROM:<x@example.com>");
    begins_to_wait(&app, "x\r\nSubject: You won\r\nBcc: victim@example.com").await;
    let mail = mailbox.next().await;
    let headers = mail.headers();
    assert!(!headers.iter().any(|line| line.starts_with("Bcc")), "{headers:?}");
    assert_eq!(headers.iter().filter(|line| line.starts_with("Subject")).count(), 1);
    assert_eq!(mail.to.len(), 2);
    let body = mail.body();
    assert!(body.lines().any(|line| line.contains("Bcc victim")), "one line of the body: {body}");
    assert!(!body.lines().any(|line| line.starts_with("Bcc")), "{body}");
    assert!(mailbox.is_empty().await, "and no second message");
}

/// The reason on the page of notifications.
async fn failure(app: &TestApp) -> String {
    app.notify_round().await;
    Console::admin(app).signed_in(app, "alice").await.page("/notifications").await
}

#[tokio::test]
async fn nt_06_without_starttls_nothing_is_sent_not_even_the_password() {
    for protection in [Protection::None, Protection::InjectedStartTls] {
        let mailbox = Mailbox::start(protection, Some(PASSWORD)).await;
        let app = TestApp::with(waiting().and(table(&mailbox, "starttls", &login(PASSWORD)))).await;
        begins_to_wait(&app, "Test client").await;
        let page = failure(&app).await;
        if protection == Protection::None {
            assert!(page.contains("does not offer STARTTLS"), "{page}");
        } else {
            assert!(page.contains("it cannot be reached: there was no connection"), "{page}");
        }
        let plain = mailbox.plain().join("\n");
        assert!(!plain.contains("AUTH") && !plain.contains("Test client"), "{plain}");
        assert!(mailbox.is_empty().await);
    }
}

#[tokio::test]
async fn a_wrong_password_is_said_and_a_certificate_of_nobody_known_is_refused() {
    let mailbox = Mailbox::start(Protection::Tls, Some(PASSWORD)).await;
    let app = TestApp::with(waiting().and(table(&mailbox, "tls", &login("wrong")))).await;
    begins_to_wait(&app, "Test client").await;
    let page = failure(&app).await;
    assert!(page.contains("the mail server refused the user name and password with 535"), "{page}");
    assert!(mailbox.is_empty().await);

    let stranger = Mailbox::start(Protection::Tls, None).await;
    let other = table(&mailbox, "tls", "").replace(
        &format!("\"{MAIL_HOST}\" = \"{}\"", mailbox.address),
        &format!("\"{MAIL_HOST}\" = \"{}\"", stranger.address),
    );
    let app = TestApp::with(waiting().and(other)).await;
    begins_to_wait(&app, "Test client").await;
    let page = failure(&app).await;
    assert!(page.contains("it cannot be reached: there was no connection"), "{page}");
    assert!(stranger.is_empty().await);
}
