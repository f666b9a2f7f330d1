//! Resource indicators: RFC 8707, and the canonical form of MCP.

use url::Url;

/// Longest `resource` parameter accepted, in bytes.
pub const MAX_RESOURCE: usize = 2048;

/// Whether `presented` names the resource that we call `configured`.
///
/// Shipped clients write the same server in two ways: with an upper-case scheme or host, and a bare
/// origin with or without its slash. Everything else is exact: another path, a trailing slash, a query
/// or a fragment names something else. What goes into a token is always our own spelling.
pub fn names_the_same(configured: &str, presented: &str) -> bool {
    if presented == configured {
        return true;
    }
    if presented.len() > MAX_RESOURCE || presented.contains(['#', '?', '@', '\\']) {
        return false;
    }
    let (Some((scheme, host, path)), Some((our_scheme, our_host, our_path))) =
        (split(presented), split(configured))
    else {
        return false;
    };
    scheme.eq_ignore_ascii_case(our_scheme)
        && host.eq_ignore_ascii_case(our_host)
        && path == our_path
        && Url::parse(presented).is_ok()
}

/// Scheme, authority and path of a URL text, where an empty path counts as `/`.
fn split(text: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = text.split_once("://")?;
    match rest.find('/') {
        Some(slash) => Some((scheme, &rest[..slash], &rest[slash..])),
        None => Some((scheme, rest, "/")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn az_18_case_of_scheme_and_host_and_the_slash_of_an_origin_are_forgiven() {
        assert!(names_the_same("https://mcp.example.com/mcp", "HTTPS://MCP.Example.com/mcp"));
        assert!(names_the_same("https://mcp.example.com", "https://mcp.example.com/"));
        assert!(names_the_same("https://mcp.example.com/", "https://mcp.example.com"));
    }

    #[test]
    fn au_01_everything_else_names_another_resource() {
        for other in [
            "https://mcp.example.com/mcp/",
            "https://mcp.example.com/MCP",
            "https://mcp.example.com/mcp#x",
            "https://mcp.example.com/mcp#",
            "https://mcp.example.com/mcp?tenant=1",
            "https://mcp.example.com:443/mcp",
            "https://mcp.example.com/a/../mcp",
            "https://mcp.example.com/mcp-other",
            "https://mcp.example.com/mcp/tools",
            "http://mcp.example.com/mcp",
            "https://user@mcp.example.com/mcp",
            "https://mcp.example.com\\mcp",
            " https://mcp.example.com/mcp",
            "/mcp",
            "",
        ] {
            assert!(!names_the_same("https://mcp.example.com/mcp", other), "{other:?}");
        }
    }
}
