//! Killed at every step of a refresh at a service, and of storing a connection: the next call works, or says
//! that the service has to be connected again (threat UT-06).

use std::sync::Arc;

use serde_json::json;

use crate::harness::Setup;
use crate::harness::browser::{Browser, Form};
use crate::harness::client::McpClient;
use crate::harness::console::forms;
use crate::harness::http::{Answer, encode};
use crate::harness::process::Served;
use crate::harness::service::FakeService;

async fn served(service: &FakeService) -> Served {
    let setup = Setup::toml(service.toml("github", "github"))
        .and("[resource]\nconnection = [{ name = \"github\", header = \"X-Service-Token\" }]")
        .and("[limits]\nrequest_rates = false");
    Served::with(&setup).await
}

/// Opens the link to connect the service and says yes to everything. Answers the last page.
async fn connect(url: &str, browser: &Browser, person: &str) -> Answer {
    let link = format!("{url}/connect/github?{}", encode(&[("for", &format!("{url}/mcp"))]));
    let mut here = link;
    let mut answer = browser.get(&here).await;
    for _ in 0..20 {
        if answer.status.is_redirection() {
            answer.location().clone_into(&mut here);
            answer = browser.get(&here).await;
            continue;
        }
        let text = answer.text().to_owned();
        let (form, fields): (Form, Vec<(&str, &str)>) = if text.contains("name=\"password\"") {
            (Form::of(&answer, &here), vec![("username", person), ("password", person)])
        } else if answer.status == 401 {
            (Form::of(&answer, &here), Vec::new())
        } else {
            let begins = |(_, html): &(Form, String)| html.contains("value=\"connect\"");
            match forms(&text, &here).into_iter().find(begins) {
                Some((form, _)) => (form, vec![("action", "connect")]),
                None => return answer,
            }
        };
        let action = form.action.clone();
        answer = browser.post(&action, &form.with(&fields), &here).await;
        here = action;
    }
    panic!("it never ends: {}", answer.text())
}

/// Stops the server at `place` while `request` runs, kills it there, and starts it again.
async fn die_at<F>(server: &mut Served, place: &'static str, request: F)
where
    F: Future<Output = ()> + Send + 'static,
{
    server.relaunch_to_stop_at(place);
    let asking = tokio::spawn(request);
    server.kill_when_stopped().await;
    assert!(asking.await.is_err(), "{place}: the answer came before the step was done");
    server.launch();
    if server.database.is_postgres() {
        // Another replica might be asking: its lease runs out within seconds.
        server.database.execute("UPDATE connections SET lease_until = 0").await;
    }
}

/// The token that the last call carried to the MCP server.
fn sent(server: &Served) -> String {
    let last = server.todo.recorded().pop().unwrap();
    last.header("x-service-token").unwrap_or_default().to_owned()
}

#[tokio::test]
async fn ut_06_killed_around_a_refresh_the_next_call_works_or_says_reconnect() {
    let service = FakeService::start().await;
    let mut server = served(&service).await;
    let browser = Browser::default();
    connect(&server.url, &browser, "alice").await.assert_page(200);
    let client = Arc::new(McpClient::register(&server).await);
    let alices = client.sign_in("alice").await;
    let token = alices.access_token.clone();
    client.call_tool(&token, "get-todos", json!({})).await.assert_status(200);
    assert_eq!(vec![sent(&server)], service.live());
    for (place, rotates, works) in [
        ("connection: leased", true, true),
        ("connection: answered", false, true),
        ("connection: answered", true, false), // the new tokens are lost, and the old ones are dead
        ("connection: stored", true, true),
    ] {
        service.rotate(rotates);
        server.database.execute("UPDATE connections SET access_until = 1").await;
        let (asking, access_token) = (Arc::clone(&client), token.clone());
        let call =
            async move { drop(asking.call_tool(&access_token, "get-todos", json!({})).await) };
        die_at(&mut server, place, call).await;

        let answer = client.call_tool(&token, "get-todos", json!({})).await;

        let json = answer.assert_status(200).json();
        let state = server.database.text("SELECT state FROM connections").await;
        if works {
            assert!(json["result"]["isError"] != true, "{place}: {json}");
            assert_eq!(Some(sent(&server)), service.live().pop(), "{place}");
            assert_eq!(state, "active", "{place}");
        } else {
            assert_eq!(json["result"]["isError"], true, "{place}: {json}");
            assert!(answer.text().contains("/connect/github?for="), "{place}: {json}");
            assert_eq!(state, "broken", "{place}");
            connect(&server.url, &browser, "alice").await.assert_page(200);
            client.call_tool(&token, "get-todos", json!({})).await.assert_status(200);
            assert_eq!(Some(sent(&server)), service.live().pop(), "{place}");
        }
    }
}

#[tokio::test]
async fn killed_while_a_connection_is_stored_it_is_there_or_can_be_made_again() {
    let service = FakeService::start().await;
    let mut server = served(&service).await;
    let (url, browser) = (server.url.clone(), Browser::default());
    let asking = browser.clone();
    die_at(&mut server, "connection: put", async move {
        drop(connect(&url, &asking, "alice").await);
    })
    .await;
    let connections = "SELECT COUNT(*) FROM connections";
    assert_eq!(server.database.number(connections).await, 0);

    connect(&server.url, &browser, "alice").await.assert_page(200);

    assert_eq!(server.database.number(connections).await, 1);
    let (client, token) = {
        let client = McpClient::register(&server).await;
        let tokens = client.sign_in("alice").await;
        (client, tokens.access_token)
    };
    client.call_tool(&token, "get-todos", json!({})).await.assert_status(200);
    assert_eq!(Some(sent(&server)), service.live().pop());
}
