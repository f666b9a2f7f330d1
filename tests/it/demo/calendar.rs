//! The demo's calendar, as somebody tries it: with the program as a process of its own.

use serde_json::{Value, json};

use crate::harness::browser::{Browser, Form};
use crate::harness::client::{McpClient, Place, Tokens};
use crate::harness::demo::DemoProcess;
use crate::harness::http::{Answer, Http};

const PUBLIC: &str = "https://demo.example";

async fn agenda(client: &McpClient, tokens: &Tokens) -> Value {
    let answer = client.call_tool(&tokens.access_token, "agenda", json!({})).await;
    answer.assert_status(200).json()["result"].clone()
}

/// The link in the text of this result.
fn link_in(result: &Value, url: &str) -> String {
    assert_eq!(result["isError"], true, "{result}");
    let text = result["content"][0]["text"].as_str().unwrap();
    let start = format!("{url}/connect/calendar?for=");
    let at = text.find(&start).unwrap_or_else(|| panic!("no {start} in {text:?}"));
    let link = text[at..].split_whitespace().next().unwrap();
    link.trim_end_matches(['.', ')', ',']).to_owned()
}

/// Follows a link of the tool through all pages until the calendar is connected; answers the page at the end.
async fn follow(browser: &Browser, link: &str, person: &str) -> Answer {
    let (mut url, mut answer) = (link.to_owned(), browser.get(link).await);
    let mut came_back = false;
    for _ in 0..20 {
        if let Some(location) = answer.header("location") {
            came_back |= location.contains("/auth/connect/calendar/callback");
            url = location.to_owned();
            answer = browser.get(&url).await;
        } else if came_back {
            return answer;
        } else {
            let form = Form::of(&answer, &url);
            let mut fields = form.with(&[("action", "connect"), ("decision", "allow")]);
            if form.action.ends_with("/login") {
                fields.retain(|(name, _)| !["username", "password"].contains(name));
                fields.extend([("username", person), ("password", person)]);
            }
            let (to, from) = (form.action.clone(), url.clone());
            answer = browser.post(&to, &fields, &from).await;
            url = to;
        }
    }
    panic!("never connected: {url}\n{}", answer.text())
}

async fn a_person_connects_and_asks_again(place: &Place, browser: Browser) -> Browser {
    let client = McpClient::register(place).await.with_browser(&browser);
    let tokens = client.sign_in("bob").await;
    let link = link_in(&agenda(&client, &tokens).await, &place.url);
    let page = follow(&browser, &link, "bob").await;
    assert_eq!(page.status, 200, "{}", page.text());
    let result = agenda(&client, &tokens).await;
    let text = result["content"][0]["text"].as_str().unwrap();
    assert!(text.contains("Bob Brown") && text.contains("11:00 Dentist"), "{result}");
    browser
}

#[tokio::test]
async fn the_demo_says_how_to_connect_a_service_and_a_person_does_it() {
    let demo = DemoProcess::start(&["--no-client-documents"], &[]).await;
    let url = format!("http://{}", demo.address);
    for part in ["what is on my agenda?", &format!("{url}/account/connections")] {
        assert!(demo.text.contains(part), "{part} is not in: {}", demo.text);
    }
    let line = demo.text.lines().find(|line| line.contains("Identity provider")).unwrap();
    let idp = line.split_whitespace().nth(2).unwrap().to_owned();
    let place = Place { url, idp, http: Http::default() };
    a_person_connects_and_asks_again(&place, Browser::default()).await;
}

/// The tunnel publishes the pages of the calendar, and neither its tokens nor its events.
#[tokio::test]
async fn a_person_connects_the_calendar_through_the_tunnel() {
    let arguments = ["--no-client-documents", "--public-url", PUBLIC];
    let demo = DemoProcess::start(&arguments, &[]).await;
    let http = Http::through_tunnel(PUBLIC, demo.address);
    let idp = format!("{PUBLIC}/demo-login");
    let place = Place { url: PUBLIC.to_owned(), idp: idp.clone(), http: http.clone() };
    let browser = a_person_connects_and_asks_again(&place, Browser::through(http.clone())).await;
    let seen = browser.seen();
    assert!(seen.iter().any(|(url, _)| url.starts_with(&format!("{idp}/calendar/decide"))));
    for (url, _) in seen {
        assert!(url.starts_with(PUBLIC), "{url}");
    }
    for path in ["/calendar", "/calendar/", "/calendar/me", "/calendar/events"] {
        http.get(&format!("{idp}{path}")).await.assert_status(404);
    }
    for path in ["/calendar/token", "/calendar/revoke"] {
        http.post_form(&format!("{idp}{path}"), &[("token", "x")], &[]).await.assert_status(404);
    }
}
