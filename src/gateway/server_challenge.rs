//! What an MCP server says with a 403 that it gives itself: `WWW-Authenticate: Bearer error="insufficient_scope",
//! scope="…"` (RFC 6750 §3). Its words are read, and told in our own: where to sign in is not its to say.

use axum::http::{HeaderMap, header};

use crate::config::ResourceConfig;
use crate::oauth::scope::{Scope, ScopeSet};

/// A refusal for want of scopes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// These, all of this resource.
    Scopes(ScopeSet),
    /// It does not say which.
    More,
}

/// What the server wants; `None` when it says nothing that a client could come back with.
///
/// `invalid_token` counts as nothing: the token that the client holds is ours, and the server never saw it.
pub(super) fn read(resource: &ResourceConfig, headers: &HeaderMap) -> Option<Wanted> {
    let mut values = headers.get_all(header::WWW_AUTHENTICATE).iter();
    let parameters = values.find_map(|value| bearer(value.to_str().ok()?))?;
    let one = |wanted: &str| {
        let mut found = parameters.iter().filter(|(name, _)| name.eq_ignore_ascii_case(wanted));
        let first = found.next().map(|(_, value)| value.as_str());
        if found.next().is_some() { Err(()) } else { Ok(first) }
    };
    if one("error").ok()? != Some("insufficient_scope") {
        return None;
    }
    let Some(scope) = one("scope").ok()? else { return Some(Wanted::More) };
    let scopes = scope.split(' ').filter_map(|name| name.parse::<Scope>().ok());
    let scopes: ScopeSet =
        scopes.filter(|scope| resource.policy.declared.contains(scope)).collect();
    (!scopes.is_empty()).then_some(Wanted::Scopes(scopes))
}

/// The parameters of the Bearer challenge in a list of challenges (RFC 9110 §11.6.1).
fn bearer(list: &str) -> Option<Vec<(String, String)>> {
    let mut found: Option<Vec<(String, String)>> = None;
    let mut here = false;
    for item in items(list)? {
        let (first, rest) = item.split_once([' ', '\t']).unwrap_or((item, ""));
        let parameter = if first.contains('=') || rest.trim_start().starts_with('=') {
            item
        } else {
            // A scheme begins another challenge.
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

/// The items between commas that stand in no quotes; `None` when a quote does not end.
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

/// A token, or the text in a quoted string.
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
