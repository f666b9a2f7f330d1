//! `/grants`: finding connections by the names of people and clients, counted, in pages, in both orders.

use crate::harness::TestApp;
use crate::harness::browser::unescape;
use crate::harness::client::McpClient;
use crate::harness::console::{Console, with_query};

async fn admin(app: &TestApp) -> Console {
    Console::admin(app).signed_in(app, "alice").await
}

/// The connections on a page, as `person, client`.
fn connections(page: &str) -> Vec<String> {
    let row = regex_lite::Regex::new(
        r#"(?s)data-label="Person">(.*?)</td><td data-label="Client">(.*?)</td>"#,
    )
    .unwrap();
    let tags = regex_lite::Regex::new("<[^>]*>").unwrap();
    let text = |cell: &str| unescape(&tags.replace_all(cell, ""));
    row.captures_iter(page).map(|row| format!("{}, {}", text(&row[1]), text(&row[2]))).collect()
}

fn count(page: &str) -> String {
    let count = regex_lite::Regex::new(r"<strong>([^<]*)</strong> (connections?)").unwrap();
    count.captures(page).map_or_else(String::new, |found| format!("{} {}", &found[1], &found[2]))
}

#[tokio::test]
async fn connections_are_found_by_the_names_of_people_and_clients_and_by_ids() {
    let app = TestApp::start().await;
    let robot = app.client_named("Robot Arm").await;
    robot.sign_in("bob").await;
    app.advance(1);
    app.client_named("Claude").await.sign_in("alice").await;
    app.advance(1);
    app.client_named("Bobsled").await.sign_in("alice").await;
    let alice = admin(&app).await;
    let id = app.database.text("SELECT MIN(id) FROM grants").await;

    let (bob, claude, sled) =
        ("Bob Brown, Robot Arm", "Alice Adams, Claude", "Alice Adams, Bobsled");
    for (search, found) in [
        ("Bob Brown", vec![bob]),
        ("brown BOB", vec![bob]),
        ("bro", vec![bob]),
        ("bob@example.com", vec![bob]),
        ("demo-bob", vec![bob]),
        ("oidc:demo-bob", vec![bob]),
        ("Robot", vec![bob]),
        (robot.id.as_str(), vec![bob]),
        (id.as_str(), vec![bob]),
        ("bob", vec![sled, bob]),
        ("ali", vec![sled, claude]),
        ("claude", vec![claude]),
        ("nobody", vec![]),
        ("' OR 1=1 --", vec![]),
        (",;", vec![]),
    ] {
        let page = alice.page(&with_query("/grants", &[("q", search)])).await;
        assert_eq!(connections(&page), found, "{search}");
        if found.is_empty() {
            assert!(page.contains("No connections match."), "{page}");
        } else {
            let plural = if found.len() == 1 { "" } else { "s" };
            assert_eq!(count(&page), format!("{} connection{plural}", found.len()), "{search}");
        }
    }
    let both = [("q", "ali"), ("client", robot.id.as_str())];
    let page = alice.page(&with_query("/grants", &both)).await;
    assert_eq!(connections(&page), Vec::<String>::new(), "the filters are combined");
    assert!(page.contains("Client: Robot Arm"), "the filter of the link has a name: {page}");
    assert!(page.contains("href=\"/grants?q=ali\""), "and can be removed: {page}");
    alice.press_and_confirm("/person?sub=oidc%3Ademo-bob", "action", "end").await;
    let none = alice.page("/grants?q=bro").await;
    assert!(none.contains("No connections match."), "{none}");
    let ended = alice.page("/grants?q=bro&ended=1").await;
    assert_eq!(connections(&ended), [bob]);
}

#[tokio::test]
async fn connections_of_a_deleted_client_are_found_by_its_id() {
    let app = TestApp::start().await;
    let gone = app.client_named("Gone").await;
    gone.sign_in("bob").await;
    let event = app.audit_event("client_deleted");
    app.storage().delete_client(&gone.id, app.now(), event).await.unwrap();
    let alice = admin(&app).await;

    let page = alice.page(&with_query("/grants", &[("q", &gone.id), ("ended", "1")])).await;

    assert_eq!(connections(&page), [format!("Bob Brown, {}", gone.id)]);
}

/// Each line as it was granted: the name of its client is a number.
async fn many(app: &TestApp, number: usize) -> Vec<String> {
    let mut made = Vec::new();
    for index in 0..number {
        let client: McpClient = app.client_named(&format!("Robot {index:03}")).await;
        client.sign_in(if index % 2 == 0 { "bob" } else { "alice" }).await;
        made.push(format!("Robot {index:03}"));
        app.advance(10);
    }
    made
}

#[tokio::test]
async fn every_connection_is_on_one_page_forth_and_back_in_both_orders_with_and_without_a_search() {
    let app = TestApp::start().await;
    let made = many(&app, 110).await;
    let alice = admin(&app).await;
    let follow = |page: &str, rel: &str| {
        let link = regex_lite::Regex::new(&format!(r#"rel="{rel}" href="([^"]*)""#)).unwrap();
        link.captures(page).map(|found| unescape(&found[1]))
    };
    let clients = |page: &str| {
        let names = connections(page).into_iter();
        names.map(|one| one.split_once(", ").unwrap().1.to_owned()).collect::<Vec<_>>()
    };
    for (path, oldest_first) in
        [("/grants", false), ("/grants?oldest=1", true), ("/grants?q=robot", false)]
    {
        let (mut forth, mut at) = (Vec::new(), path.to_owned());
        let mut page = loop {
            let page = alice.page(&at).await;
            forth.push(clients(&page));
            match follow(&page, "next") {
                Some(next) => at = next,
                None => break page,
            }
        };
        let mut expected = made.clone();
        if !oldest_first {
            expected.reverse();
        }
        if path.contains("q=") {
            // A search lists the connections of a hundred clients at most, and says so.
            assert!(page.contains("More than 100 people or clients match"), "{page}");
            assert_eq!(forth.concat().len(), 100);
        } else {
            assert_eq!(forth.concat(), expected, "{path}");
            assert_eq!(count(&page), "110 connections");
        }
        for seen in forth.iter().rev().skip(1) {
            page = alice.page(&follow(&page, "prev").unwrap()).await;
            assert_eq!(&clients(&page), seen, "{path}");
        }
        assert_eq!(follow(&page, "prev"), None);
    }
}
