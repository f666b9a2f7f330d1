//! Networks that Portcullis stands in: a provider inside a cluster, and a proxy as the only way out.

mod cluster;
mod kept;
mod proxy;

use std::net::SocketAddr;

use serde_json::Value;

use crate::harness::Setup;
use crate::harness::client::{McpClient, Tokens};
use crate::harness::{TestApp, proxy::Proxy};

const MINUTE: i64 = 60;

/// Where the provider is inside the cluster. The proxy of the tests plays the cluster's name server.
const INSIDE: &str = "http://keycloak:8080";
const DISCOVERY: &str = "http://keycloak:8080/.well-known/openid-configuration";

/// A document whose endpoints for servers lie inside, as Keycloak publishes it with
/// `hostname-backchannel-dynamic`.
fn endpoints_inside(document: &mut Value) {
    for name in ["token", "userinfo", "revocation"] {
        let path = if name == "revocation" { "revoke" } else { name };
        document[format!("{name}_endpoint")] = format!("{INSIDE}/{path}").into();
    }
    document["jwks_uri"] = format!("{INSIDE}/jwks").into();
}

/// The lines of a provider that is asked inside the cluster.
const ASKED_INSIDE: &str = "discovery_url = \"http://keycloak:8080/.well-known/openid-configuration\"\nallow_http = true\ntimeout = \"2s\"";

/// A server whose provider is inside the cluster that `proxy` leads into, by this variable.
async fn inside(proxy: &Proxy, variable: &'static str, value: String, more: Setup) -> TestApp {
    let mut env = more.env.clone();
    env.push((variable, value));
    let app = TestApp::with(Setup { env, ..more.and(format!("[upstream]\n{ASKED_INSIDE}")) }).await;
    proxy.lead("keycloak:8080", address(&app));
    app.idp.misbehave(|how| how.change_discovery = Some(endpoints_inside));
    app
}

fn address(app: &TestApp) -> SocketAddr {
    app.idp.issuer().trim_start_matches("http://").parse().unwrap()
}

/// Signs in, calls a tool, and is asked about again: all that the provider is needed for.
async fn works(app: &TestApp) -> McpClient {
    let (client, tokens) = app.tokens_of("alice").await;
    assert_eq!(tokens.scope, "create:todos delete:todos read:todos");
    app.advance(16 * MINUTE);
    let next = Tokens::of(&client.refresh(&tokens.refresh_token).await);
    assert_eq!(next.expires_in, 600, "the provider answered, and is not bridged");
    client
}
