//! The same `sub` from another issuer is perhaps another person.

use crate::harness::connect::{connect, connect_as};
use crate::harness::console::Console;
use crate::harness::service::FakeService;
use crate::harness::{Setup, TestApp};

const CONNECTED: &str = "SELECT COUNT(*) FROM connections WHERE state = 'active'";

#[tokio::test]
async fn ut_12_who_comes_from_another_issuer_gets_no_connection_of_the_former_person() {
    let github = FakeService::start().await;
    let app = TestApp::with(Setup::toml(format!(
        "{}\n[resource]\nconnection = [{{ name = \"github\", scopes = [\"read\"], \
         header = \"X-GitHub-Token\" }}]\n",
        github.toml("github", "github"),
    )))
    .await;
    connect_as(&app, "alice", "github").await;
    connect_as(&app, "bob", "github").await;
    assert_eq!(app.database.number_of(CONNECTED).await, 2);
    // As if the people had signed in before `upstream.issuer` was changed.
    let former = "UPDATE people SET issuer = 'https://former.example' WHERE subject LIKE '%alice'";
    app.database.execute(former).await;

    let alice = Console::account(&app).signed_in(&app, "alice").await;

    assert_eq!(app.database.number_of(CONNECTED).await, 1, "bob's stays");
    let page = alice.get("/account/connections").await;
    page.assert_page(200);
    assert!(page.text().contains("Reconnect GitHub"), "{}", page.text());
    connect(&app, &alice, "github", &app.mcp_url()).await;
    Console::account(&app).signed_in(&app, "alice").await;
    assert_eq!(app.database.number_of(CONNECTED).await, 2, "the next sign-in takes nothing away");
}
