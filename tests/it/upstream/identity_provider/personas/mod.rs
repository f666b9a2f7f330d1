//! B: providers as they are. The demo provider plays each one at its own address, behind the preset that
//! an administrator would choose.

mod clouds;
mod first_class;
mod self_hosted;

use portcullis::demo::Misbehaviour;
use serde_json::Value;

use super::{HOUR, MINUTE, ask_again, assert_fresh};
use crate::harness::client::{McpClient, Tokens};
use crate::harness::{Setup, TestApp};

const DAY: i64 = 24 * HOUR;
const TENANT: &str = "11111111-2222-3333-4444-555555555555";
const ALL: &str = "create:todos delete:todos read:todos";

/// Whoever is in a group or role of administrators may do all, everybody may add, contractors never delete.
const RULES: &str = r#"
[[resource]]
path   = "/mcp"
target = "http://127.0.0.1:9/mcp"
scopes = ["read:todos", "create:todos", "delete:todos"]
baseline = ["create:todos"]
[[resource.rule]]
groups = ["admins", "Todo Admins", "/staff/admins", "acme/admins"]
allow  = ["read:todos", "delete:todos"]
[[resource.rule]]
roles  = ["Admin"]
allow  = ["read:todos", "delete:todos"]
[[resource.rule]]
passthrough = "permissions"
[[resource.rule]]
groups = ["contractors"]
deny   = ["delete:todos"]
"#;

async fn play(preset: &str, how: Misbehaviour) -> TestApp {
    play_with(Setup { persona: true, ..Setup::toml(format!("[upstream]\n{preset}")) }, how).await
}

async fn play_with(setup: Setup, how: Misbehaviour) -> TestApp {
    let setup = if setup.has_resources() { setup } else { setup.and(RULES) };
    let app = TestApp::with(setup).await;
    app.idp.misbehave(|now| *now = how);
    app
}

/// Signs alice in, who administers, and bob, who does not; then asks about alice again.
async fn assert_both_may_what_they_should(app: &TestApp) -> (McpClient, Tokens) {
    let (_, bobs) = app.tokens_of("bob").await;
    assert_eq!(bobs.scope, "create:todos");
    let (client, tokens) = app.tokens_of("alice").await;
    assert_eq!(tokens.scope, ALL);
    let tokens = ask_again(app, &client, &tokens).await;
    assert_fresh(&tokens);
    assert_eq!(tokens.scope, ALL);
    (client, tokens)
}

/// The parameters of the newest authorization request.
fn asked(app: &TestApp, name: &str) -> Option<String> {
    let requests = app.idp.recorded();
    requests.iter().rfind(|request| request.path == "/authorize").unwrap().query_param(name)
}

async fn refused_at_refresh(app: &TestApp, body: &Value, status: u16) {
    let (client, tokens) = app.tokens_of("bob").await;
    app.idp.misbehave(|how| how.refresh_answer = Some((status, body.to_string())));
    app.advance(16 * MINUTE);
    client.refresh(&tokens.refresh_token).await.assert_error(400, "invalid_grant");
    app.idp.misbehave(|how| how.refresh_answer = None);
    client.sign_in("bob").await;
}

fn rename(claims: &mut Value, from: &str, to: &str) {
    if let Some(value) = claims.as_object_mut().unwrap().remove(from) {
        claims[to] = value;
    }
}

fn without(claims: &mut Value, names: &[&str]) {
    claims.as_object_mut().unwrap().retain(|name, _| !names.contains(&name.as_str()));
}

fn only_groups(claims: &mut Value) {
    without(claims, &["roles"]);
}
