//! Resource indicators: RFC 8707, and the canonical URI of an MCP server.

/// Longest accepted `resource` parameter, in bytes.
pub const MAX_RESOURCE: usize = 2048;

/// Returns which of our resources `presented` means, or `None` if it means none or is ambiguous.
///
/// Clients send URLs that people typed and libraries changed, so these differences are ignored: a trailing
/// slash, a query, the default port, upper case in the host. The path is compared byte for byte: a path in
/// upper case, with encoded characters or with dot segments is another path. A fragment is forbidden
/// (RFC 8707 §2). Tokens always contain our own spelling.
///
/// `ours` is `public_url`. Alone, it means our only resource below it. If `public_url` has a path, the bare
/// host does not mean that resource: another server may use the host, and would receive a token for ours.
pub fn meant<'a>(
    ids: impl Iterator<Item = &'a str> + Clone,
    ours: &str,
    presented: &str,
) -> Option<&'a str> {
    let exactly = ids.clone().find(|id| *id == presented);
    if exactly.is_some() {
        return exactly;
    }
    let wanted = ServerParts::of(presented)?;
    let mut same = ids.clone().filter(|id| ServerParts::of(id).as_ref() == Some(&wanted));
    if let Some(one) = same.next() {
        return same.next().is_none().then_some(one);
    }
    if ServerParts::of(ours)? != wanted {
        return None;
    }
    let below = |id: &&str| id.strip_prefix(ours).is_some_and(|rest| rest.starts_with('/'));
    let mut below_ours = ids.filter(below);
    let only = below_ours.next()?;
    below_ours.next().is_none().then_some(only)
}

/// The parts of a URL that identify a server.
#[derive(PartialEq, Eq)]
struct ServerParts<'a> {
    scheme: String,
    /// In lower case, without the default port.
    authority: String,
    /// Without a trailing slash.
    path: &'a str,
}

impl<'a> ServerParts<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let plain = text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'#' | b'\\'));
        if !plain || text.len() > MAX_RESOURCE {
            return None;
        }
        let (scheme, rest) = text.split_once("://")?;
        let rest = rest.split_once('?').map_or(rest, |(before, _)| before);
        let (authority, path) = rest.find('/').map_or((rest, ""), |slash| rest.split_at(slash));
        if authority.is_empty() || authority.contains('@') {
            return None;
        }
        let (scheme, mut authority) = (scheme.to_ascii_lowercase(), authority.to_ascii_lowercase());
        let default_port = match scheme.as_str() {
            "https" => ":443",
            "http" => ":80",
            _ => return None,
        };
        if let Some(host) = authority.strip_suffix(default_port) {
            authority.truncate(host.len());
        }
        Some(Self { scheme, authority, path: path.strip_suffix('/').unwrap_or(path) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: &str = "https://mcp.example.com";
    const MCP: &str = "https://mcp.example.com/mcp";

    fn of_one(presented: &str) -> Option<&'static str> {
        meant([MCP].into_iter(), OURS, presented)
    }

    #[test]
    fn az_18_spellings_of_shipped_clients_mean_the_one_resource_they_can_mean() {
        for spelling in [
            "https://mcp.example.com/mcp",
            "HTTPS://MCP.Example.com/mcp",
            "https://mcp.example.com/mcp/",
            "https://mcp.example.com/mcp?tenant=1",
            "https://mcp.example.com/mcp/?tenant=1/2&x=http://y",
            "https://mcp.example.com/mcp?",
            "https://mcp.example.com:443/mcp",
            "https://MCP.example.com:443/mcp/",
            "https://mcp.example.com",
            "https://mcp.example.com/",
            "https://mcp.example.com:443",
            "https://mcp.example.com?x",
        ] {
            assert_eq!(of_one(spelling), Some(MCP), "{spelling}");
        }
        let elsewhere = "https://todo.example.com";
        let root = [elsewhere].into_iter();
        assert_eq!(meant(root, OURS, "https://todo.example.com/"), Some(elsewhere));
    }

    #[test]
    fn au_01_everything_else_names_another_resource() {
        for other in [
            "https://mcp.example.com/MCP",
            "https://mcp.example.com/mcp//",
            "https://mcp.example.com//mcp",
            "https://mcp.example.com/mcp#x",
            "https://mcp.example.com/mcp#",
            "https://mcp.example.com/mcp?x#y",
            "https://mcp.example.com:8443/mcp",
            "https://mcp.example.com:80/mcp",
            "https://mcp.example.com:0443/mcp",
            "https://mcp.example.com:/mcp",
            "https://mcp.example.com./mcp",
            "https://mcp.example.com/a/../mcp",
            "https://mcp.example.com/./mcp",
            "https://mcp.example.com/%6dcp",
            "https://mcp.example.com/mcp%2f",
            "https://mcp.example.com/mcp%2Ftools",
            "https://mcp.example.com/mcp%3Fx",
            "https://mcp.example.com/mcp;x",
            "https://mcp.example.com/mcp-other",
            "https://mcp.example.com/mcp/tools",
            "https://mcp.example.com/m",
            "https://mcp.example.com/.well-known/oauth-protected-resource/mcp",
            "http://mcp.example.com/mcp",
            "https://user@mcp.example.com/mcp",
            "https://mcp.example.com:443@evil.example/mcp",
            "https://mcp.example.com\\mcp",
            "https://evil.example/?https://mcp.example.com/mcp",
            "https:/mcp.example.com/mcp",
            "//mcp.example.com/mcp",
            " https://mcp.example.com/mcp",
            "https://mcp.example.com/mcp ",
            "/mcp",
            "",
        ] {
            assert_eq!(of_one(other), None, "{other:?}");
        }
    }

    #[test]
    fn what_could_be_two_is_neither() {
        let two = ["https://mcp.example.com/one", "https://mcp.example.com/two"];
        let of_two = |presented| meant(two.into_iter(), OURS, presented);
        assert_eq!(of_two("https://mcp.example.com/two/"), Some(two[1]));
        assert_eq!(of_two("https://mcp.example.com"), None);
        assert_eq!(of_two("https://mcp.example.com/?x"), None);
        // Two servers elsewhere whose URLs differ only in the trailing slash.
        let alike = ["https://x.example/mcp", "https://x.example/mcp/"];
        let of_alike = |presented| meant(alike.into_iter(), OURS, presented);
        assert_eq!(of_alike(alike[0]), Some(alike[0]));
        assert_eq!(of_alike(alike[1]), Some(alike[1]));
        assert_eq!(of_alike("https://x.example/mcp?x"), None);
        assert_eq!(of_alike("https://X.example/mcp"), None);
    }

    #[test]
    fn a_bare_host_means_our_server_only_where_the_whole_host_is_ours() {
        let ours = "https://example.com/auth";
        let mcp = "https://example.com/auth/mcp";
        let elsewhere = "https://todo.example.com/mcp";
        let meant = |presented| meant([mcp, elsewhere].into_iter(), ours, presented);
        assert_eq!(meant("https://example.com/auth"), Some(mcp));
        assert_eq!(meant("https://example.com/auth/"), Some(mcp));
        assert_eq!(meant("https://example.com"), None);
        assert_eq!(meant("https://example.com/"), None);
        assert_eq!(meant("https://example.com/mcp"), None);
        assert_eq!(meant("https://todo.example.com"), None, "others may live on that host");
        assert_eq!(meant("https://todo.example.com/mcp/"), Some(elsewhere));
    }
}
