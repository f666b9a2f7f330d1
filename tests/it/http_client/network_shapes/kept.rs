//! Connections to the provider that are kept, and that it closes in the moment they are used again.

use super::{MINUTE, inside};
use crate::harness::Setup;
use crate::harness::client::Tokens;
use crate::harness::proxy::Proxy;

#[tokio::test]
async fn a_kept_connection_that_the_provider_closes_costs_nobody_a_sign_in_and_sends_nothing_twice()
{
    let proxy = Proxy::start(&[]).await;
    proxy.cuts_second_requests();
    let setup = Setup::toml("[upstream.claims]\nsources = [\"userinfo\"]");
    let app = inside(&proxy, "HTTP_PROXY", proxy.url(), setup).await;
    let client = app.client().await;
    let mut signed_in = Vec::new();
    for person in ["alice", "bob"] {
        let client = client.elsewhere();
        signed_in.push(client.sign_in(person).await);
    }
    assert_eq!(app.idp.requests_to("/token"), 2);
    app.advance(16 * MINUTE);
    for tokens in signed_in {
        let next = Tokens::of(&client.refresh(&tokens.refresh_token).await);
        assert_eq!(next.expires_in, 600, "asked, and not bridged");
        assert_eq!(next.scope, tokens.scope, "userinfo was read as well");
    }
    assert_eq!(app.idp.requests_to("/token"), 4, "each code and each refresh token was sent once");
    app.advance(60 * MINUTE); // discovery and keys are asked for again
    client.sign_in("alice").await;
    assert_eq!(app.idp.requests_to("/token"), 5);
}
