//! Parses the challenge that an MCP server sends with its own 403: `WWW-Authenticate: Bearer
//! error="insufficient_scope", scope="…"` (RFC 6750 §3). We build a challenge of our own from it, because the
//! MCP server must not decide where the client signs in.

use axum::http::HeaderValue;
use axum::http::header::GetAll;

use crate::config::ResourceConfig;
use crate::oauth::scope::{Scope, ScopeSet};

/// What the MCP server's challenge asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ServerDemand {
    /// These scopes, all declared by this resource.
    Scopes(ScopeSet),
    /// More scopes, but it does not say which.
    More,
}

/// Returns what the server asks for in these values of `WWW-Authenticate`; `None` if a client could not satisfy
/// it with more scopes.
///
/// `invalid_token` returns `None`: the client's token is ours, and the server never saw it.
pub(super) fn read(
    resource: &ResourceConfig,
    challenges: &GetAll<'_, HeaderValue>,
) -> Option<ServerDemand> {
    let mut values = challenges.iter();
    let parameters = values.find_map(|value| bearer(value.to_str().ok()?))?;
    let one = |wanted: &str| {
        let mut found = parameters.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        let first = found.next().map(|(_, value)| value.as_str());
        if found.next().is_some() { Err(()) } else { Ok(first) }
    };
    if one("error").ok()? != Some("insufficient_scope") {
        return None;
    }
    let Some(scope) = one("scope").ok()? else { return Some(ServerDemand::More) };
    let scopes = scope.split(' ').filter_map(|name| name.parse::<Scope>().ok());
    let scopes: ScopeSet =
        scopes.filter(|scope| resource.policy.declared.contains(scope)).collect();
    (!scopes.is_empty()).then_some(ServerDemand::Scopes(scopes))
}

/// Returns the parameters of the first Bearer challenge in a list of challenges (RFC 9110 §11.6.1).
fn bearer(list: &str) -> Option<Vec<(String, String)>> {
    let mut found: Option<Vec<(String, String)>> = None;
    let mut here = false;
    for item in items(list)? {
        let (first, rest) = item.split_once([' ', '\t']).unwrap_or((item, ""));
        let parameter = if first.contains('=') || rest.trim_start().starts_with('=') {
            item
        } else {
            // A scheme name starts a new challenge.
            here = found.is_none() && first.eq_ignore_ascii_case("bearer");
            if here {
                found = Some(Vec::new());
            }
            rest
        };
        if let (true, Some(found), Some((name, value))) =
            (here, &mut found, parameter.split_once('='))
        {
            found.push((name.trim().to_owned(), unquoted(value.trim())?));
        }
    }
    found
}

/// Splits at commas outside quotes; `None` if a quote is not closed.
fn items(list: &str) -> Option<Vec<&str>> {
    let (mut items, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, char) in list.char_indices() {
        match char {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ',' if !quoted => {
                items.push(list.get(start..at)?.trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(list.get(start..)?.trim());
    items.retain(|item| !item.is_empty());
    (!quoted).then_some(items)
}

/// Returns the value of a token or quoted string; `None` if it is malformed.
fn unquoted(value: &str) -> Option<String> {
    let Some(inner) = value.strip_prefix('"') else {
        return (!value.contains('"')).then(|| value.to_owned());
    };
    let mut text = String::new();
    let mut chars = inner.strip_suffix('"')?.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => text.push(chars.next()?),
            '"' => return None,
            other => text.push(other),
        }
    }
    Some(text)
}
