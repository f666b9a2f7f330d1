//! Where messages go, and where they never do: threat NT-01.

use portcullis::config::Config;

use super::{SECRET, app_with, begins_to_wait, waiting};
use crate::harness::console::Console;
use crate::harness::recorder::Recorder;
use crate::harness::{TestApp, logs};

/// The page of notifications, as an administrator sees it.
async fn page(app: &TestApp) -> String {
    Console::admin(app).signed_in(app, "alice").await.page("/notifications").await
}

#[tokio::test]
async fn nt_01_a_name_that_leads_into_a_private_network_gets_nothing() {
    for address in ["10.0.0.5", "169.254.169.254", "192.168.1.1", "100.64.0.1"] {
        let table = format!(
            "[[notify]]\nname = \"ops\"\nkind = \"webhook\"\nurl = \"https://hooks.example/x\"\nsecret = {SECRET:?}\n"
        );
        let mut setup = waiting().and(table);
        setup.resolves = vec![("hooks.example", address)];
        let app = TestApp::with(setup).await;
        begins_to_wait(&app, "Test client").await;
        app.notify_round().await;
        let page = page(&app).await;
        assert!(page.contains("its host has an address that is not public"), "{address}: {page}");
    }
}

#[tokio::test]
async fn nt_01_a_redirect_is_not_followed() {
    let (hook, inside) = (Recorder::start().await, Recorder::start().await);
    let app = app_with(&hook).await;
    hook.answer_next_with(307, "location", &inside.url("/secret"));
    begins_to_wait(&app, "Test client").await;
    hook.next().await;
    app.notify_round().await;
    assert!(inside.received().is_empty());
    let page = page(&app).await;
    assert!(page.contains("a redirect (status 307), which is not followed"), "{page}");
}

#[tokio::test]
async fn nt_06_a_url_is_a_secret_in_the_log_on_the_page_and_in_the_database() {
    const CANARY: &str = "notify-canary-4711";
    let hook = Recorder::start().await;
    let table = super::webhook_at(&hook.url(&format!("/services/{CANARY}")));
    let app = TestApp::with(waiting().and(table)).await;
    hook.answer_next(&[404]);
    begins_to_wait(&app, "Test client").await;
    assert!(hook.next().await.path.contains(CANARY));
    app.notify_round().await;

    let page = page(&app).await;
    assert!(page.contains("it answered with status 404"), "{page}");
    assert!(page.contains(&hook.address().to_string()), "the host is shown: {page}");
    let stolen = String::from_utf8_lossy(&app.database.dump().await).into_owned();
    let secret = SECRET.trim_start_matches("whsec_");
    for (place, text) in [("page", &page), ("log", &logs::all()), ("database", &stolen)] {
        assert!(!text.contains(CANARY), "{place}");
        assert!(!text.contains(secret), "{place}");
    }
    let read = Config::load(
        Some((std::path::Path::new("test.toml"), app.config_text())),
        &std::collections::BTreeMap::new(),
    );
    let shown = read.unwrap_or_else(|problems| panic!("{problems}")).show();
    assert!(shown.contains("url") && !shown.contains(CANARY) && !shown.contains(secret), "{shown}");
}
