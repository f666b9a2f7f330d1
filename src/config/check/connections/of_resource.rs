//! Reads `[resource.upstream_token]` and `[[resource.connection]]`: which services an MCP server uses as the
//! person, and how it gets the tokens.

use axum::http::HeaderName;
use toml::Value;
use url::Url;

use super::super::super::connections::{
    ConnectionConfig, ResourceConnection, TokenExchange, UpstreamTokenConfig,
};
use super::super::super::keys::nearest;
use super::super::super::reader::ConfigReader;
use super::super::super::values::is_loopback;
use super::super::{forward_headers, one_of};
use super::SIGN_IN;
use crate::oauth::scope::Scope;

/// Longest name of a tool, in characters.
const LONGEST_TOOL: usize = 128;
/// Longest audience of an exchanged token, in bytes.
const LONGEST_AUDIENCE: usize = 1000;
/// Sign-in providers that do not know token exchange (RFC 8693).
const NO_EXCHANGE: [&str; 2] = ["github", "google"];

/// How tokens reach an MCP server.
pub(in crate::config::check) struct TokenDelivery<'a> {
    /// The targets of the gateway; empty: no gateway.
    pub(in crate::config::check) targets: &'a [Url],
    /// Headers of clients that the gateway forwards.
    pub(in crate::config::check) forwarded: &'a [HeaderName],
    pub(in crate::config::check) services: &'a [ConnectionConfig],
}

/// Where a table is read, and the headers that carry tokens so far.
struct TokenReader<'a, F> {
    at: F,
    delivery: TokenDelivery<'a>,
    headers: Vec<HeaderName>,
}

/// Reads what the MCP server whose keys `at` builds uses as the person.
pub(in crate::config::check) fn of_resource(
    r: &mut ConfigReader,
    at: impl Fn(&str) -> String,
    delivery: TokenDelivery<'_>,
) -> (Option<UpstreamTokenConfig>, Vec<ResourceConnection>) {
    let mut reader = TokenReader { at, delivery, headers: Vec::new() };
    let upstream_token = reader.upstream_token(r);
    let count = r.count(&(reader.at)("connection"));
    let mut connections: Vec<ResourceConnection> = Vec::new();
    for index in 0..count {
        let key = (reader.at)(&format!("connection[{index}]"));
        let Some(connection) = reader.connection(r, &key) else { continue };
        if connections.iter().any(|other| other.name == connection.name) {
            let shown = Some(format!("{:?}", connection.name));
            let hint = "write it once, with all scopes and tools";
            r.problem(&format!("{key}.name"), shown, "is named twice by this MCP server", hint);
        }
        connections.push(connection);
    }
    (upstream_token, connections)
}

impl<F: Fn(&str) -> String> TokenReader<'_, F> {
    fn upstream_token(&mut self, r: &mut ConfigReader) -> Option<UpstreamTokenConfig> {
        let key = (self.at)("upstream_token");
        match r.value(&key)? {
            Value::Table(_) => {}
            other => {
                r.wrong_type(
                    &key,
                    &other,
                    "a table",
                    "write [resource.upstream_token] above its keys",
                );
                return None;
            }
        }
        let at = |name: &str| format!("{key}.{name}");
        let header = self.header(r, &at("header"));
        self.check_delivery(r, &key);
        let known = r.problems.len();
        let exchange = one_of(r, &at("exchange"), TokenExchange::None);
        if r.problems.len() > known {
            // What else is right or wrong depends on it.
            let _ = (r.has(&at("audience")), r.has(&at("scopes")));
            return None;
        }
        check_exchange(r, &at("exchange"), exchange);
        let audience = audience(r, &at("audience"), exchange);
        let mut scopes = exchanged_scopes(r, &at("scopes"), exchange);
        if let (TokenExchange::EntraObo, true, Some(api)) = (exchange, scopes.is_empty(), &audience)
        {
            scopes.push(format!("{}/.default", api.trim_end_matches('/')));
        }
        Some(UpstreamTokenConfig { header, exchange, audience, scopes })
    }

    fn connection(&mut self, r: &mut ConfigReader, key: &str) -> Option<ResourceConnection> {
        let at = |name: &str| format!("{key}.{name}");
        let name = r.required_text(&at("name"), "write the name of a [[connection]]");
        let header = self.header(r, &at("header"));
        self.check_delivery(r, key);
        let required = r.flag(&at("required"), true);
        let tools = self.tools(r, &at("tools"));
        let listed = r.texts(&at("scopes"));
        let name = name?;
        let known = self.delivery.services.iter().find(|known| known.name == name);
        let Some(known) = known else {
            report_unknown(r, &at("name"), &name);
            return None;
        };
        let scopes = match listed {
            Some(scopes) => subset(r, &at("scopes"), scopes, known),
            None => known.scopes.clone(),
        };
        Some(ResourceConnection { name, scopes, tools, required, header })
    }

    /// Reads the header that carries a token to the targets.
    fn header(&mut self, r: &mut ConfigReader, key: &str) -> Option<HeaderName> {
        let text = r.text(key)?;
        let shown = Some(format!("{text:?}"));
        let header = match forward_headers::token_header(&text) {
            Ok(header) => header,
            Err((reason, hint)) => {
                r.problem(key, shown, reason, hint);
                return None;
            }
        };
        let TokenDelivery { targets, forwarded, .. } = self.delivery;
        if forwarded.iter().any(|other| forward_headers::are_alike(other, &header)) {
            let reason = "is in forward_headers too: clients could write anything into it";
            r.problem(key, shown.clone(), reason, "take it out of forward_headers");
        }
        if self.headers.iter().any(|other| forward_headers::are_alike(other, &header)) {
            let hint = "give each token a header of its own";
            r.problem(key, shown.clone(), "carries another token already", hint);
        }
        let has_target = r.has(&(self.at)("target")) || r.has(&(self.at)("targets"));
        if !has_target {
            let hint = "add target; or take header out, and the MCP server gets the token by token exchange";
            r.problem(key, shown, "is set by the gateway, and there is none", hint);
        } else if let Some(plain) =
            targets.iter().find(|url| url.scheme() != "https" && !is_loopback(url))
        {
            let reason = format!("would carry the token in the clear to {:?}", plain.as_str());
            let hint = "write https in target; http is for a target on this machine only";
            r.problem(key, shown, reason, hint);
        }
        self.headers.push(header.clone());
        Some(header)
    }

    /// Refuses a token that the MCP server has no way to get.
    fn check_delivery(&self, r: &mut ConfigReader, key: &str) {
        let secret = (self.at)("introspection_secret");
        if !r.has(&format!("{key}.header")) && !r.has(&secret) {
            let hint = "add header = \"X-…\" (the gateway sets it), or introspection_secret to the resource (the MCP server asks for the token)";
            r.problem(key, None, "names a token that the MCP server cannot get", hint);
        }
    }

    fn tools(&self, r: &mut ConfigReader, key: &str) -> Vec<String> {
        let Some(tools) = r.texts(key) else { return Vec::new() };
        if tools.is_empty() {
            let hint = "leave it out for the whole MCP server";
            r.problem(key, Some("[]".to_owned()), "names no tool", hint);
        }
        if self.delivery.targets.is_empty() && r.problems.is_empty() {
            let reason = "is for the gateway, which knows the tool of a request, and there is none";
            r.problem(key, None, reason, "add target, or take tools out");
        }
        for (index, tool) in tools.iter().enumerate() {
            let shown = Some(format!("{tool:?}"));
            let fits = (1..=LONGEST_TOOL).contains(&tool.chars().count())
                && !tool.chars().any(|c| c.is_control() || c.is_whitespace());
            if !fits {
                let hint = "write the name exactly as the list of tools has it";
                r.problem(key, shown, "is not the name of a tool", hint);
            } else if tools[..index].contains(tool) {
                r.problem(key, shown, "is listed twice", "list each tool once");
            }
        }
        tools
    }
}

/// Reports the name of a connection that does not exist. One that exists and has mistakes of its own is
/// reported there.
fn report_unknown(r: &mut ConfigReader, key: &str, name: &str) {
    let mut names = Vec::new();
    for index in 0..r.count("connection") {
        names.extend(r.text(&format!("connection[{index}].name")));
    }
    if names.iter().any(|known| known == name) {
        return;
    }
    let hint = match nearest(name, names.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near:?}?"),
        None if name == SIGN_IN => {
            "write [resource.upstream_token] for the sign-in provider's own token".to_owned()
        }
        None => format!("add [[connection]] with name = {name:?}"),
    };
    r.problem(key, Some(format!("{name:?}")), "is not the name of a [[connection]]", hint);
}

/// Reads scopes that the connection must have.
fn subset(
    r: &mut ConfigReader,
    key: &str,
    scopes: Vec<String>,
    connection: &ConnectionConfig,
) -> Vec<String> {
    let mut read: Vec<String> = Vec::new();
    for scope in scopes {
        let shown = Some(format!("{scope:?}"));
        if read.contains(&scope) {
            r.problem(key, shown, "is listed twice", "list each scope once");
        } else if connection.scopes.contains(&scope) {
            read.push(scope);
        } else {
            let reason = format!("is not a scope of the connection {:?}", connection.name);
            let hint = match nearest(&scope, connection.scopes.iter().map(String::as_str)) {
                Some(near) => format!("did you mean {near:?}?"),
                None => "add it to scopes of that [[connection]]".to_owned(),
            };
            r.problem(key, shown, reason, hint);
        }
    }
    read
}

/// Checks that the sign-in provider knows this kind of exchange.
fn check_exchange(r: &mut ConfigReader, key: &str, exchange: TokenExchange) {
    let provider = r.text("upstream.provider").unwrap_or_default();
    let shown = Some(format!("{:?}", <&str>::from(exchange)));
    match exchange {
        TokenExchange::Rfc8693 if provider == "entra" => {
            let hint = "write \"entra_obo\"";
            r.problem(key, shown, "is not known to Entra, which has its own way", hint);
        }
        TokenExchange::Rfc8693 if NO_EXCHANGE.contains(&provider.as_str()) => {
            let reason = format!("is not known to {provider}");
            let hint =
                "take it out; a [[connection]] with provider = \"sign-in\" has scopes of its own";
            r.problem(key, shown, reason, hint);
        }
        TokenExchange::EntraObo if !provider.is_empty() && provider != "entra" => {
            let hint = if NO_EXCHANGE.contains(&provider.as_str()) {
                "take it out"
            } else {
                "write \"rfc8693\", if the provider supports it"
            };
            r.problem(key, shown, "is for upstream.provider = \"entra\" only", hint);
        }
        _ => {}
    }
}

fn audience(r: &mut ConfigReader, key: &str, exchange: TokenExchange) -> Option<String> {
    let audience = r.text(key);
    if exchange == TokenExchange::None {
        if r.has(key) {
            let hint = "add exchange = \"rfc8693\" (or \"entra_obo\"), or take audience out";
            r.problem(key, None, "is for an exchanged token, and exchange is \"none\"", hint);
        }
        return None;
    }
    let Some(audience) = audience else {
        if !r.has(key) {
            let hint = "write the API that the token is for, such as \"api://backend\"";
            r.problem(key, None, "is missing: exchange needs it", hint);
        }
        return None;
    };
    let fits = (1..=LONGEST_AUDIENCE).contains(&audience.len())
        && audience.bytes().all(|b| b.is_ascii_graphic());
    if !fits {
        let hint = "write the name that the provider knows the API by, such as \"api://backend\"";
        r.problem(key, Some(format!("{audience:?}")), "is not an audience", hint);
    }
    Some(audience)
}

fn exchanged_scopes(r: &mut ConfigReader, key: &str, exchange: TokenExchange) -> Vec<String> {
    let scopes = r.texts(key).unwrap_or_default();
    if exchange == TokenExchange::None && r.has(key) {
        let reason = "is for an exchanged token, and exchange is \"none\"";
        let hint = "add upstream.extra_scopes; or a [[connection]] with provider = \"sign-in\"";
        r.problem(key, None, reason, hint);
    }
    for scope in &scopes {
        if scope.parse::<Scope>().is_err() {
            let hint = "use printable ASCII without spaces, quotes and backslashes";
            r.problem(key, Some(format!("{scope:?}")), "is not a scope", hint);
        }
    }
    scopes
}
