//! Notifications to administrators, received by real servers: threats NT-01 to NT-06.

mod chat;
mod command_line;
mod events;
mod guard;
mod mail;
mod page;
mod queue;
mod webhook;

use crate::harness::client::McpClient;
use crate::harness::recorder::Recorder;
use crate::harness::{Setup, TestApp};

/// `whsec_` and the base64 of [`KEY`].
pub(crate) const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

/// The table of a webhook at this URL.
pub(crate) fn webhook_at(url: &str) -> String {
    format!(
        "[[notify]]\nname = \"ops\"\nkind = \"webhook\"\nurl = {url:?}\nsecret = {SECRET:?}\nallow_private = true\n"
    )
}

/// A server under which clients wait for approval, and which tells this webhook of everything.
async fn app_with(hook: &Recorder) -> TestApp {
    TestApp::with(waiting().and(webhook_at(&hook.url("/hook")))).await
}

fn waiting() -> Setup {
    Setup::toml("client_approval = \"first_use\"")
}

/// A new client, for which bob begins to wait.
async fn begins_to_wait(app: &TestApp, name: &str) -> McpClient {
    let client = app.client_named(name).await;
    client.authorize("bob", &[]).await.assert_leads_to(&app.at("/waiting?id="));
    client
}

async fn queued(app: &TestApp) -> i64 {
    app.database.number("SELECT COUNT(*) FROM notifications").await
}
