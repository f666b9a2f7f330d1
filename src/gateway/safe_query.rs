//! The query that goes to an MCP server: the client's, without access tokens.

use super::spelling::folds_to;

/// Returns the query without `access_token` parameters, which could hand a token on to the MCP server (RFC
/// 6750 §2.3 is not offered). Parameters end at `;` too, because some servers split there. The rest stays
/// unchanged.
pub(super) fn safe_query(query: &str) -> Option<String> {
    let mut kept = String::new();
    let mut rest = query;
    while !rest.is_empty() {
        let end = rest.find(['&', ';']).map_or(rest.len(), |at| at + 1);
        let (pair, after) = rest.split_at(end);
        if !is_token(pair) {
            kept.push_str(pair);
        }
        rest = after;
    }
    if !query.ends_with(['&', ';']) && kept.ends_with(['&', ';']) {
        kept.pop(); // it preceded a parameter that was removed
    }
    (!kept.is_empty()).then_some(kept)
}

/// Whether some server would read this parameter as `access_token`: in any case, with other characters for
/// `_` (PHP), as the start of a list (`[]`), or cut at a NUL.
fn is_token(pair: &str) -> bool {
    let name = pair.split(['=', '&', ';']).next().unwrap_or_default();
    let name = percent_encoding::percent_decode_str(name).decode_utf8_lossy();
    let name = name.replace('+', " ");
    let name = name.split(['[', '\0']).next().unwrap_or_default();
    folds_to(name, "access_token")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gw_09_a_token_in_the_query_never_passes() {
        assert_eq!(safe_query("a=1&access_token=x&b=2").as_deref(), Some("a=1&b=2"));
        assert_eq!(safe_query("Access%5FToken=x"), None);
        for kept in ["a=1", "a;b=1", "a=1&", "=&=", "access_token_hint=1", "a=access_token"] {
            assert_eq!(safe_query(kept).as_deref(), Some(kept));
        }
        for (query, kept) in [
            ("a=1;access_token=x&b=2", Some("a=1;b=2")),
            ("a=1;access_token=x", Some("a=1")),
            ("access_token=x;a=1", Some("a=1")),
            ("access_token=x;access_token=y", None),
            ("a=1&access.token=x", Some("a=1")),
            ("a=1&access%20token=x", Some("a=1")),
            ("a=1&access+token=x", Some("a=1")),
            ("a=1&access_token[]=x&access_token%5B0%5D=y", Some("a=1")),
            ("a=1&access_token%00z=x", Some("a=1")),
            ("a=1&+access_token=x", Some("a=1")),
            ("a=1;%61ccess_toKen", Some("a=1")),
        ] {
            assert_eq!(safe_query(query).as_deref(), kept, "{query}");
        }
    }
}
