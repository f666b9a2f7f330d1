//! A person connects a further service: through our pages and those of the service, by HTTP.

use super::TestApp;
use super::browser::{Browser, Form};
use super::console::{Console, with_query};
use super::http::Answer;

/// Signs `person` in at `/account` and connects the service `name` for the to-do server.
pub(crate) async fn connect_as(app: &TestApp, person: &str, name: &str) -> Console {
    let console = Console::account(app).signed_in(app, person).await;
    connect(app, &console, name, &app.mcp_url()).await;
    console
}

/// Somebody who is signed in at `/account` connects the service `name` for the MCP server `resource`. Answers
/// the page that says so.
pub(crate) async fn connect(
    app: &TestApp,
    console: &Console,
    name: &str,
    resource: &str,
) -> Answer {
    let back = nearly_connect(app, console, name, resource).await;
    let came = console.browser.get(&back).await;
    came.assert_leads_to(&app.at(&format!("/connect/{name}")));
    let page = console.browser.get(came.location()).await;
    page.assert_page(200);
    assert!(page.text().contains("Go back to your application"), "{}", page.text());
    page
}

/// The same until the service sends the browser back: answers the URL of our callback, with the code.
pub(crate) async fn nearly_connect(
    app: &TestApp,
    console: &Console,
    name: &str,
    resource: &str,
) -> String {
    let at_service = begin(app, console, name, resource).await;
    agree(&console.browser, &at_service).await
}

/// Presses the button of `/connect/{name}`. Answers the address at the service.
pub(crate) async fn begin(app: &TestApp, console: &Console, name: &str, resource: &str) -> String {
    let answer = press_connect(app, console, name, resource).await;
    assert!(!answer.location().starts_with(&app.url), "not at the service: {}", answer.location());
    answer.location().to_owned()
}

/// Presses the button of `/connect/{name}`. Answers what the server says to it.
pub(crate) async fn press_connect(
    app: &TestApp,
    console: &Console,
    name: &str,
    resource: &str,
) -> Answer {
    let url = connect_url(app, name, resource);
    let path = url.strip_prefix(&console.origin).unwrap();
    console.press(path, "action", "connect").await
}

/// The page that connects the service `name` for the MCP server `resource`: what a person gets as a link.
pub(crate) fn connect_url(app: &TestApp, name: &str, resource: &str) -> String {
    app.at(&with_query(&format!("/connect/{name}"), &[("for", resource)]))
}

/// Our callback of the service `name`.
pub(crate) fn callback_url(app: &TestApp, name: &str) -> String {
    app.at(&format!("/auth/connect/{name}/callback"))
}

/// The person says yes at the service, which may show a page or redirect at once. Answers where it sends the
/// browser.
pub(crate) async fn agree(browser: &Browser, at_service: &str) -> String {
    let page = browser.get(at_service).await;
    if page.status == 200 {
        let form = Form::of(&page, at_service);
        let answer = browser.post(&form.action, &form.with(&[]), at_service).await;
        return answer.location().to_owned();
    }
    page.location().to_owned()
}
