//! The services in which an MCP server acts as the person: what the consent page says of them. The client never gets
//! the tokens, but it makes the MCP server use them.

use std::collections::BTreeSet;

use crate::app::App;
use crate::config::{Config, ResourceConfig, TokenExchange, UpstreamTokenConfig};
use crate::web::pages::ServiceUse;
use crate::web::words::Language;

/// Name of the sign-in provider's own token among the connections; none of them may have it.
const SIGN_IN: &str = "sign-in";

/// Scopes that sign a person in and give no access to anything else.
const OF_SIGN_IN: [&str; 6] = ["openid", "profile", "email", "address", "phone", "offline_access"];

/// Returns what the page says, in the form in which an approval is remembered: a remembered approval counts as long as
/// nothing is added here.
pub(super) fn uses(config: &Config, resource: &ResourceConfig) -> BTreeSet<String> {
    let mut uses = BTreeSet::new();
    if let Some(own) = &resource.upstream_token {
        uses.insert(SIGN_IN.to_owned());
        let scopes = scopes_of_sign_in(config, own);
        uses.extend(scopes.into_iter().map(|scope| format!("{SIGN_IN}:{scope}")));
    }
    for used in &resource.connections {
        uses.insert(used.name.clone());
        uses.extend(used.scopes.iter().map(|scope| format!("{}:{scope}", used.name)));
    }
    uses
}

/// Returns the lines of the page, with the texts of the scopes in `language`.
pub(super) fn lines<'a>(
    app: &'a App,
    resource: &'a ResourceConfig,
    language: Language,
) -> Vec<ServiceUse<'a>> {
    let config = app.config();
    let mut lines = Vec::new();
    if let Some(own) = &resource.upstream_token {
        let scopes = scopes_of_sign_in(config, own);
        lines.push(ServiceUse { service: &config.upstream.name, scopes });
    }
    for connection in &config.connections {
        let Some(used) = resource.connection_to(&connection.name) else { continue };
        let in_order = connection.scopes.iter().filter(|scope| used.scopes.contains(scope));
        let texts = in_order.map(|scope| connection.scope_text(scope, language.tag()));
        lines.push(ServiceUse { service: &connection.title, scopes: texts.collect() });
    }
    lines
}

/// Returns the scopes of the sign-in provider's token for an MCP server, without those that only sign the person in.
fn scopes_of_sign_in<'a>(config: &'a Config, own: &'a UpstreamTokenConfig) -> Vec<&'a str> {
    let scopes = match own.exchange {
        TokenExchange::None => &config.upstream.scopes,
        TokenExchange::Rfc8693 | TokenExchange::EntraObo => &own.scopes,
    };
    let scopes = scopes.iter().map(String::as_str);
    scopes.filter(|scope| !OF_SIGN_IN.contains(scope)).collect()
}
